//! ringlog itself, as the rivals are seen: with its writer thread, and driven by its caller.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringlog::driven::{AnyDisk, Appended, DrivenLog, DrivenShard, Seat};
use ringlog::{AppendError, Durability, FullReason, Options, RecoveryMode, StreamId, SyncPolicy};

use crate::contender::{Contender, Facts, Producer, Refusal, Ringlog};
use crate::rivals::adapter::{Purpose, Rival, Tally, say};
use crate::workload;

/// How long a turn waits for room at most.
const TURN_WITHIN: Duration = Duration::from_millis(10);
/// A caller-driven log is trimmed by whom it is driven, each time that it has grown by this.
const TRIM_EVERY_BYTES: usize = 256 << 20;

fn options() -> Result<Options, String> {
    Options::from_env().map_err(|error| error.to_string())
}

impl Rival for Ringlog {
    const NAME: &'static str = "ringlog";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    /// So that it has segments to use again.
    const TRIM_ABOVE_BYTES: u64 = 256 << 20;

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        let durable = purpose.is_durable();
        let durability = if durable { Durability::Synced } else { Durability::Memory };
        let log = workload::open(dir, SyncPolicy::EveryCommit, &options()?)?;
        Ok(Self::new(log, durability))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        // As one opens a log that is only to be read: nothing is prepared, and nothing is written.
        let options = Options { recovery: RecoveryMode::ReadOnly, create: false, ..options()? };
        let log = workload::open(dir, SyncPolicy::EveryCommit, &options)?;
        let stream = log.existing_stream("producer-0").map_err(say("stream"))?;
        let mut reader = stream.read(..).map_err(say("read"))?;
        let mut tally = Tally::default();
        while let Some(record) = reader.next_ref() {
            tally.add(record.map_err(say("read"))?.payload());
        }
        drop(reader);
        log.close().map_err(say("close"))?;
        Ok(tally)
    }
}

/// A log of one shard, driven by the thread that appends.
pub(crate) struct Driven(Mutex<Option<Seat>>);

impl Driven {
    /// Opens it in `dir`.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn open(dir: &Path) -> Result<Self, String> {
        let log = DrivenLog::open(dir, options()?).map_err(say("open"))?;
        let seat = log.into_seats().into_iter().next().ok_or("a log without shards")?;
        Ok(Self(Mutex::new(Some(seat))))
    }
}

impl Contender for Driven {
    type Producer = DrivenProducer;

    fn facts(&self) -> Facts {
        let facts = Ringlog::usual_facts(Purpose::Durable, "synced, caller-driven");
        Facts { acknowledged_on_return: false, ..facts }
    }

    fn producer(&self, _: usize) -> Result<DrivenProducer, String> {
        let mut seat = self.0.lock().map_err(|_| "poisoned")?;
        let seat = seat.take().ok_or("a caller-driven log has one producer")?;
        Ok(DrivenProducer { seat: Some(seat), since_trim: 0 })
    }
}

/// A shard and its stream.
type Running = (DrivenShard<AnyDisk>, StreamId);

thread_local! {
    /// A shard never leaves the thread that it was started on; a producer does, before its first
    /// append.
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// The way to the shard, which lives where it is appended to.
pub(crate) struct DrivenProducer {
    seat: Option<Seat>,
    since_trim: usize,
}

fn with_shard<T>(use_it: impl FnOnce(&mut Running) -> T) -> Result<T, String> {
    RUNNING.with_borrow_mut(|running| running.as_mut().map(use_it)).ok_or("not started".to_owned())
}

fn start(seat: Seat) -> Result<(), String> {
    let mut shard = seat.start().map_err(say("start"))?;
    let stream = shard.stream("producer-0").map_err(say("stream"))?;
    RUNNING.set(Some((shard, stream)));
    Ok(())
}

impl Producer for DrivenProducer {
    type Ticket = Appended;

    fn submit(&mut self, records: &[Vec<u8>], at_most: Duration) -> Result<Appended, Refusal> {
        if let Some(seat) = self.seat.take() {
            start(seat).map_err(Refusal::Failed)?;
        }
        self.since_trim += records.iter().map(Vec::len).sum::<usize>();
        let trim = self.since_trim > TRIM_EVERY_BYTES;
        if trim {
            self.since_trim = 0;
        }
        let append = |(shard, stream): &mut Running| {
            if trim {
                shard.trim(0, 0);
            }
            append_within(shard, *stream, records, at_most)
        };
        with_shard(append).unwrap_or_else(|why| Err(Refusal::Failed(why)))
    }

    fn is_acknowledged(&self, appended: &Appended) -> bool {
        with_shard(|(shard, _)| shard.is_acknowledged(appended)).unwrap_or(false)
    }

    fn wait(&mut self, appended: Appended) -> Result<(), String> {
        with_shard(|(shard, _)| {
            while !shard.is_acknowledged(&appended) {
                if let Some(error) = shard.failure_of(&appended) {
                    return Err(format!("acknowledge: {error}"));
                }
                shard.events();
                shard.wait(None); // The process has a limit of its own.
            }
            Ok(())
        })?
    }
}

fn append_within(
    shard: &mut DrivenShard<AnyDisk>,
    stream: StreamId,
    records: &[Vec<u8>],
    at_most: Duration,
) -> Result<Appended, Refusal> {
    let give_up = Instant::now() + at_most;
    loop {
        let appended = match records {
            [record] => shard.append(stream, record, Durability::Synced),
            records => shard.append_batch(stream, records, Durability::Synced),
        };
        match appended {
            Ok(appended) => return Ok(appended),
            Err(AppendError::Full { reason: FullReason::Memory }) => {
                if Instant::now() >= give_up {
                    return Err(Refusal::NoRoom);
                }
                shard.events();
                shard.wait(Some(TURN_WITHIN));
            }
            Err(AppendError::Full { reason: _ }) => return Err(Refusal::DiskFull),
            Err(error) => return Err(Refusal::Failed(format!("append: {error}"))),
        }
    }
}
