//! fjall: a key-value store; a record under each key, behind this harness's group commit.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Fifo;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::contender::{Contender, Facts};
use crate::rivals::adapter::{Grouped, GroupedProducer, Purpose, Rival, Tally, say};
use crate::rivals::group::Sink;

/// Where old records are thrown away, so much is kept.
const KEPT_BYTES: u64 = 256 << 20;

/// A database of one keyspace.
pub(crate) struct Fjall(Grouped<Records>);

/// Records under ascending keys.
pub(crate) struct Records {
    database: Database,
    keyspace: Keyspace,
    next: u64,
    /// What the next commit takes; `None` where appends need no commit.
    batch: Option<OwnedWriteBatch>,
}

impl Records {
    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        let database = Database::builder(dir).open().map_err(say("open"))?;
        let options = || match purpose {
            Purpose::Keep | Purpose::Fill => KeyspaceCreateOptions::default(),
            Purpose::Durable | Purpose::Unsynced => KeyspaceCreateOptions::default()
                .compaction_strategy(Arc::new(Fifo::new(KEPT_BYTES, None))),
        };
        let keyspace = database.keyspace("log", options).map_err(say("keyspace"))?;
        let last = keyspace.last_key_value().map(fjall::Guard::key).transpose();
        let next = match last.map_err(say("last key"))? {
            Some(key) => u64::from_be_bytes(*key.first_chunk().ok_or("a short key")?) + 1,
            None => 0,
        };
        let batch = purpose.is_durable().then(|| durable_batch(&database));
        Ok(Self { database, keyspace, next, batch })
    }
}

fn durable_batch(database: &Database) -> OwnedWriteBatch {
    database.batch().durability(Some(PersistMode::SyncData))
}

impl Sink for Records {
    fn append(&mut self, record: &[u8]) -> Result<(), String> {
        let key = self.next.to_be_bytes();
        self.next += 1;
        match &mut self.batch {
            Some(batch) => {
                batch.insert(&self.keyspace, key, record);
                Ok(())
            }
            None => self.keyspace.insert(key, record).map_err(say("insert")),
        }
    }

    fn commit(&mut self) -> Result<(), String> {
        match &mut self.batch {
            Some(batch) => std::mem::replace(batch, durable_batch(&self.database))
                .commit()
                .map_err(say("commit")),
            None => self.database.persist(PersistMode::SyncData).map_err(say("persist")),
        }
    }
}

impl Rival for Fjall {
    const NAME: &'static str = "fjall";
    const VERSION: &'static str = "3.1.13";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        Ok(Self(Grouped::new(Records::open(dir, purpose)?, purpose)))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let records = Records::open(dir, Purpose::Keep)?;
        let mut tally = Tally::default();
        for item in records.keyspace.iter() {
            tally.add(&item.value().map_err(say("read"))?);
        }
        Ok(tally)
    }
}

impl Contender for Fjall {
    type Producer = GroupedProducer<Records>;

    fn facts(&self) -> Facts {
        let durable = self.0.purpose.is_durable();
        let mode = if durable { "grouped: batch, SyncData" } else { "insert" };
        Self::usual_facts(self.0.purpose, mode)
    }

    fn producer(&self, _: usize) -> Result<Self::Producer, String> {
        Ok(self.0.way_in())
    }

    fn close(self) -> Result<(), String> {
        self.0.into_sink()?.commit()
    }
}
