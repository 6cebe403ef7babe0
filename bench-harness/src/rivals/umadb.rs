//! umadb-core: an event store in a copy-on-write tree, behind this harness's group commit. Carried for
//! opening and replay.

use std::path::Path;
use std::sync::Arc;

use umadb_core::common::Position;
use umadb_core::db::{UmaDb, process_append_request};
use umadb_core::mvcc::{Mvcc, StorageOptions};
use umadb_dcb::{DcbEvent, DcbEventStoreSync};

use crate::contender::{Contender, Facts};
use crate::rivals::adapter::{Grouped, GroupedProducer, Purpose, Rival, Tally, say};
use crate::rivals::group::Sink;

/// Events read at once: it gives them as one list.
const READ_EVENTS: u32 = 10_000;

/// A database of one file.
pub(crate) struct Umadb(Grouped<Events>);

/// What the next transaction takes.
pub(crate) struct Events {
    store: Arc<Mvcc>,
    waiting: Vec<DcbEvent>,
}

fn open(dir: &Path) -> Result<Arc<Mvcc>, String> {
    let options = StorageOptions::default().db_path(dir);
    Mvcc::new(false, options).map(Arc::new).map_err(say("open"))
}

impl Sink for Events {
    fn append(&mut self, record: &[u8]) -> Result<(), String> {
        self.waiting.push(DcbEvent::new().event_type("r").data(record));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), String> {
        let mut writer = self.store.writer().map_err(say("writer"))?;
        let events = std::mem::take(&mut self.waiting);
        process_append_request(events, None, None, self.store.as_ref(), &mut writer, None)
            .map_err(say("append"))?;
        self.store.commit(&mut writer).map_err(say("commit"))
    }
}

impl Rival for Umadb {
    const NAME: &'static str = "umadb-core";
    const VERSION: &'static str = "0.7.8";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        if purpose == Purpose::Unsynced {
            return Err("umadb-core knows durable commits only".to_owned());
        }
        let events = Events { store: open(dir)?, waiting: Vec::new() };
        Ok(Self(Grouped::new(events, purpose)))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let store = UmaDb::from_arc(open(dir)?);
        let mut tally = Tally::default();
        let mut next = Position(1);
        loop {
            let read = store.read_with_head(None, Some(next.0), false, Some(READ_EVENTS));
            let (events, _) = read.map_err(say("read"))?;
            let Some(last) = events.last() else { return Ok(tally) };
            next = Position(last.position + 1);
            events.iter().for_each(|event| tally.add(&event.event.data));
        }
    }
}

impl Contender for Umadb {
    type Producer = GroupedProducer<Events>;

    fn facts(&self) -> Facts {
        Self::usual_facts(self.0.purpose, "grouped: transaction")
    }

    fn producer(&self, _: usize) -> Result<Self::Producer, String> {
        Ok(self.0.way_in())
    }

    fn close(self) -> Result<(), String> {
        self.0.into_sink().map(drop)
    }
}
