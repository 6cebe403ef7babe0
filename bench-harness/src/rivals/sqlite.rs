//! SQLite: a row for each record, behind this harness's group commit: one transaction for all that
//! wait.

use std::path::Path;

use rusqlite::Connection;

use crate::contender::{Contender, Facts};
use crate::rivals::adapter::{Grouped, GroupedProducer, Purpose, Rival, Tally, say};
use crate::rivals::group::Sink;

/// A database of one table.
pub(crate) struct Sqlite(Grouped<Table>);

/// The one connection that writes.
pub(crate) struct Table {
    connection: Connection,
    in_transaction: bool,
    durable: bool,
}

/// WAL with FULL: the log is flushed at every commit. One process only, so no memory is shared.
fn connect(dir: &Path, durable: bool) -> rusqlite::Result<Connection> {
    let connection = Connection::open(dir.join("log.sqlite"))?;
    connection.execute_batch(&format!(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {};
         PRAGMA cache_size = -65536;
         PRAGMA mmap_size = {};
         CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, record BLOB NOT NULL);",
        if durable { "FULL" } else { "OFF" },
        2_u64 << 30,
    ))?;
    Ok(connection)
}

impl Sink for Table {
    fn append(&mut self, record: &[u8]) -> Result<(), String> {
        // What need not be durable is a transaction of its own, as another connection would see it.
        if self.durable && !self.in_transaction {
            self.run("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        self.connection
            .prepare_cached("INSERT INTO log (record) VALUES (?1)")
            .and_then(|mut insert| insert.execute([record]))
            .map(drop)
            .map_err(say("insert"))
    }

    fn commit(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.in_transaction) { self.run("COMMIT") } else { Ok(()) }
    }
}

impl Table {
    fn run(&self, statement: &str) -> Result<(), String> {
        self.connection
            .prepare_cached(statement)
            .and_then(|mut prepared| prepared.execute([]))
            .map(drop)
            .map_err(say(statement))
    }
}

impl Rival for Sqlite {
    const NAME: &'static str = "rusqlite";
    const VERSION: &'static str = "0.41.1";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        let durable = purpose.is_durable();
        let connection = connect(dir, durable).map_err(say("open"))?;
        Ok(Self(Grouped::new(Table { connection, in_transaction: false, durable }, purpose)))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let connection = connect(dir, true).map_err(say("open"))?;
        read(&connection).map_err(say("read"))
    }
}

fn read(connection: &Connection) -> rusqlite::Result<Tally> {
    let mut tally = Tally::default();
    let mut select = connection.prepare("SELECT record FROM log ORDER BY id")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        tally.add(row.get_ref(0)?.as_blob()?);
    }
    Ok(tally)
}

impl Contender for Sqlite {
    type Producer = GroupedProducer<Table>;

    fn facts(&self) -> Facts {
        let durable = self.0.purpose.is_durable();
        let mode = if durable { "grouped: WAL, FULL" } else { "WAL, OFF" };
        Self::usual_facts(self.0.purpose, mode)
    }

    fn producer(&self, _: usize) -> Result<Self::Producer, String> {
        Ok(self.0.way_in())
    }

    fn close(self) -> Result<(), String> {
        let mut table = self.0.into_sink()?;
        table.commit()?;
        table.connection.close().map_err(|(_, error)| format!("close: {error}"))
    }
}
