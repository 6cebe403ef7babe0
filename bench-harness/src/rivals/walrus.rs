//! walrus-rust: a topic for each producer; each append is flushed by itself, there is no group commit.
//!
//! Where its files lie, and whether it prints a line for each append, it takes from variables of the
//! environment, and how it opens its files is settled once for a process. So this adapter wants a
//! process of its own, with `WALRUS_DATA_DIR` naming the directory above the log's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus as Log};

use crate::contender::{Contender, Facts, Producer, Refusal};
use crate::rivals::adapter::{Purpose, Rival, Tally, say};

/// The directory that holds those of its logs.
pub(crate) const DIR_VARIABLE: &str = "WALRUS_DATA_DIR";
/// Set, it prints nothing.
pub(crate) const QUIET_VARIABLE: &str = "WALRUS_QUIET";
/// The most that it takes as one batch.
const BATCH_MAX: usize = 2000;
/// Read at once.
const READ_BYTES: usize = 8 << 20;

/// A log in a directory of its own.
pub(crate) struct Walrus(Arc<Log>, Purpose);

fn open(dir: &Path, purpose: Purpose) -> Result<Log, String> {
    let above = std::env::var_os(DIR_VARIABLE);
    if above.as_deref().map(Path::new) != dir.parent() {
        return Err(format!("{DIR_VARIABLE} does not name the directory above {}", dir.display()));
    }
    let name = dir.file_name().and_then(|name| name.to_str()).ok_or("a directory without name")?;
    let schedule = match purpose {
        Purpose::Durable | Purpose::Keep => FsyncSchedule::SyncEach,
        // Each record of a batch would be a synchronous write: minutes for what is no measurement.
        Purpose::Unsynced | Purpose::Fill => FsyncSchedule::NoFsync,
    };
    // It would remember how far it has been read.
    let never = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
    Log::with_consistency_and_schedule_for_key(name, never, schedule).map_err(say("open"))
}

fn topic(number: usize) -> String {
    format!("producer-{number}")
}

impl Rival for Walrus {
    const NAME: &'static str = "walrus-rust";
    const VERSION: &'static str = "0.2.0";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        Ok(Self(Arc::new(open(dir, purpose)?), purpose))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let log = open(dir, Purpose::Keep)?;
        let mut tally = Tally::default();
        loop {
            let read = log.batch_read_for_topic(&topic(0), READ_BYTES, true);
            let entries = read.map_err(say("read"))?;
            if entries.is_empty() {
                return Ok(tally);
            }
            entries.iter().for_each(|entry| tally.add(&entry.data));
        }
    }
}

impl Contender for Walrus {
    type Producer = WalrusProducer;

    fn facts(&self) -> Facts {
        Self::usual_facts(self.1, if self.1.is_durable() { "SyncEach" } else { "NoFsync" })
    }

    fn producer(&self, number: usize) -> Result<WalrusProducer, String> {
        Ok(WalrusProducer { log: Arc::clone(&self.0), topic: topic(number) })
    }
}

/// One topic.
pub(crate) struct WalrusProducer {
    log: Arc<Log>,
    topic: String,
}

impl Producer for WalrusProducer {
    type Ticket = ();

    fn submit(&mut self, records: &[Vec<u8>], _: Duration) -> Result<(), Refusal> {
        let appended = match records {
            [record] => self.log.append_for_topic(&self.topic, record),
            records => records.chunks(BATCH_MAX).try_for_each(|part| {
                let part: Vec<&[u8]> = part.iter().map(Vec::as_slice).collect();
                self.log.batch_append_for_topic(&self.topic, &part)
            }),
        };
        appended.map_err(|error| Refusal::Failed(format!("append: {error}")))
    }

    fn wait(&mut self, (): ()) -> Result<(), String> {
        Ok(())
    }
}
