//! okaywal: entries of chunks in files that are checkpointed and used again; group commit of its own.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use okaywal::{
    Configuration, Entry, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader,
    WriteAheadLog,
};

use crate::contender::{Contender, Facts, Producer, Refusal};
use crate::rivals::adapter::{Purpose, Rival, Tally, say};

/// Every commit is durable: there is no other way.
pub(crate) struct Okaywal(WriteAheadLog, Purpose);

fn configuration(dir: &Path, purpose: Purpose) -> Configuration {
    let configuration = Configuration::default_for(dir);
    match purpose {
        // Room for a batch of a commit; larger files make it slower, they leave the caches.
        Purpose::Durable | Purpose::Unsynced => configuration
            .preallocate_bytes(16 << 20)
            .checkpoint_after_bytes(12 << 20)
            .buffer_bytes(256 << 10),
        // A checkpoint throws away what it has seen.
        Purpose::Keep | Purpose::Fill => configuration
            .preallocate_bytes(64 << 20)
            .checkpoint_after_bytes(u64::MAX)
            .buffer_bytes(256 << 10),
    }
}

/// Counts what is recovered. It reads every chunk to its end, also where nobody wants to know: one that
/// is left unread is skipped by four bytes too many, and what lies behind is written over.
#[derive(Debug)]
struct Counter(Arc<Mutex<Tally>>);

impl LogManager for Counter {
    fn recover(&mut self, entry: &mut Entry<'_>) -> std::io::Result<()> {
        let mut tally = self.0.lock().map_err(|_| std::io::Error::other("poisoned"))?;
        loop {
            let mut chunk = match entry.read_chunk()? {
                ReadChunkResult::Chunk(chunk) => chunk,
                ReadChunkResult::EndOfEntry | ReadChunkResult::AbortedEntry => return Ok(()),
            };
            tally.add(&chunk.read_all()?);
            if !chunk.check_crc()? {
                return Err(std::io::Error::other("a chunk is damaged"));
            }
        }
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

impl Rival for Okaywal {
    const NAME: &'static str = "okaywal";
    const VERSION: &'static str = "0.3.1";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        if purpose == Purpose::Unsynced {
            return Err("okaywal knows durable commits only".to_owned());
        }
        let configuration = configuration(dir, purpose);
        let log = if purpose.keeps() {
            configuration.open(Counter(Arc::default()))
        } else {
            configuration.open(LogVoid)
        };
        log.map(|log| Self(log, purpose)).map_err(say("open"))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let log = configuration(dir, Purpose::Keep).open(Counter(Arc::clone(&tally)));
        let log = log.map_err(say("recover"))?;
        let tally = *tally.lock().map_err(|_| "poisoned")?;
        log.shutdown().map_err(say("shutdown"))?;
        Ok(tally)
    }
}

impl Contender for Okaywal {
    type Producer = OkaywalProducer;

    fn facts(&self) -> Facts {
        Self::usual_facts(self.1, "commit")
    }

    fn producer(&self, _: usize) -> Result<OkaywalProducer, String> {
        Ok(OkaywalProducer(self.0.clone()))
    }

    fn close(self) -> Result<(), String> {
        self.0.shutdown().map_err(say("shutdown"))
    }
}

/// The log itself: it is shared by nature.
pub(crate) struct OkaywalProducer(WriteAheadLog);

impl OkaywalProducer {
    fn append(&self, records: &[Vec<u8>]) -> std::io::Result<()> {
        let mut entry = self.0.begin_entry()?;
        for record in records {
            entry.write_chunk(record)?;
        }
        entry.commit().map(drop)
    }
}

impl Producer for OkaywalProducer {
    type Ticket = ();

    fn submit(&mut self, records: &[Vec<u8>], _: Duration) -> Result<(), Refusal> {
        self.append(records).map_err(|error| Refusal::Failed(format!("commit: {error}")))
    }

    fn wait(&mut self, (): ()) -> Result<(), String> {
        Ok(())
    }
}
