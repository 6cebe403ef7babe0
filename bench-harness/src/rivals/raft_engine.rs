//! raft-engine: entries of many Raft groups in one log; group commit of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::contender::{Contender, Facts, Producer, Refusal};
use crate::rivals::adapter::{Purpose, Rival, Tally, say};

/// Entries kept of each group when the log is trimmed.
const KEPT: u64 = 1000;
/// Entries fetched at once.
const FETCHED: u64 = 4096;

/// A group for each producer.
pub(crate) struct RaftEngine(Arc<Engine>, Purpose);

/// An entry with its index in front: it is a protobuf message, as it has to be.
#[derive(Clone)]
struct Indexed;

/// Length of the index.
const INDEX_BYTES: usize = 8;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |front| u64::from_le_bytes(*front))
    }
}

fn open(dir: &Path, purpose: Purpose) -> Result<Engine, String> {
    let recycling = !purpose.keeps();
    let config = Config {
        dir: dir.to_string_lossy().into_owned(),
        // The records cannot be compressed.
        batch_compression_threshold: ReadableSize(0),
        // Old files are written over again, and there are some from the beginning.
        enable_log_recycle: true,
        prefill_for_recycle: recycling,
        prefill_limit: recycling.then_some(ReadableSize::mb(256)),
        target_file_size: ReadableSize::mb(128),
        purge_threshold: if recycling { ReadableSize::mb(256) } else { ReadableSize::gb(1000) },
        ..Config::default()
    };
    Engine::open(config).map_err(say("open"))
}

fn group_of(number: usize) -> u64 {
    number as u64 + 1
}

impl Rival for RaftEngine {
    const NAME: &'static str = "raft-engine";
    const VERSION: &'static str = "0.4.2";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        Ok(Self(Arc::new(open(dir, purpose)?), purpose))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let engine = open(dir, Purpose::Keep)?;
        let group = group_of(0);
        let mut tally = Tally::default();
        let (Some(mut next), Some(last)) = (engine.first_index(group), engine.last_index(group))
        else {
            return Ok(tally);
        };
        let mut entries = Vec::new();
        while next <= last {
            let end = (next + FETCHED).min(last + 1);
            entries.clear();
            engine
                .fetch_entries_to::<Indexed>(group, next, end, None, &mut entries)
                .map_err(say("fetch"))?;
            for entry in &entries {
                tally.add(entry.value.get(INDEX_BYTES..).ok_or("an entry without its index")?);
            }
            next = end;
        }
        Ok(tally)
    }
}

impl Contender for RaftEngine {
    type Producer = RaftEngineProducer;

    fn facts(&self) -> Facts {
        Self::usual_facts(self.1, if self.1.is_durable() { "write, sync" } else { "write" })
    }

    fn producer(&self, number: usize) -> Result<RaftEngineProducer, String> {
        let group = group_of(number);
        Ok(RaftEngineProducer {
            engine: Arc::clone(&self.0),
            group,
            next: self.0.last_index(group).map_or(1, |last| last + 1),
            sync: self.1.is_durable(),
            batch: LogBatch::default(),
            entries: Vec::new(),
        })
    }

    fn trim(&self) -> Result<u64, String> {
        if self.1.keeps() {
            return Ok(0);
        }
        for group in self.0.raft_groups() {
            if let Some(last) = self.0.last_index(group) {
                self.0.compact_to(group, last.saturating_sub(KEPT));
            }
        }
        self.0.purge_expired_files().map(|_| 1).map_err(say("purge"))
    }

    fn close(self) -> Result<(), String> {
        Ok(())
    }
}

/// One group.
pub(crate) struct RaftEngineProducer {
    engine: Arc<Engine>,
    group: u64,
    next: u64,
    sync: bool,
    batch: LogBatch,
    entries: Vec<BytesValue>,
}

impl Producer for RaftEngineProducer {
    type Ticket = ();

    fn submit(&mut self, records: &[Vec<u8>], _: Duration) -> Result<(), Refusal> {
        self.entries.resize_with(records.len(), BytesValue::new);
        for (entry, record) in self.entries.iter_mut().zip(records) {
            entry.value.clear();
            entry.value.extend_from_slice(&self.next.to_le_bytes());
            entry.value.extend_from_slice(record);
            self.next += 1;
        }
        let added = self.batch.add_entries::<Indexed>(self.group, &self.entries);
        added
            // A sync of its own would do nothing on an empty batch: it has to come with the write.
            .and_then(|()| self.engine.write(&mut self.batch, self.sync))
            .map(drop)
            .map_err(|error| Refusal::Failed(format!("write: {error}")))
    }

    fn wait(&mut self, (): ()) -> Result<(), String> {
        Ok(())
    }
}
