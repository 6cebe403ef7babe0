//! What can be measured: an engine in one durability mode, and ringlog as the first of them.
//!
//! An adapter is a few lines: open, append, say what one believes of oneself. It is told nothing of
//! the measuring, and nothing it says of its durability is believed (see [`crate::counters`]).

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use ringlog::{AppendError, Durability, FullReason, Log, Receipt, ReceiptError, Stream};
use serde::{Deserialize, Serialize};

use crate::measurement::Class;
use crate::percentile::new_histogram;

/// An acknowledgement that takes longer is an error of the run, not a latency.
pub const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// An engine in one mode, open in a directory of its own.
pub trait Contender: Sync {
    /// What one thread appends through.
    type Producer: Producer;

    /// What it is.
    fn facts(&self) -> Facts;

    /// A handle for the thread of this number, counted from 0. The same number gives the same
    /// stream, where there are streams.
    ///
    /// # Errors
    /// In words.
    fn producer(&self, number: usize) -> Result<Self::Producer, String>;

    /// What it says that it has done since it was opened.
    fn claims(&self) -> Claims {
        Claims::default()
    }

    /// Frees on disk what can be freed while running; gives how many files. Called when the
    /// directory has grown beyond the bound of the load.
    ///
    /// # Errors
    /// In words.
    fn trim(&self) -> Result<u64, String> {
        Ok(0)
    }

    /// Its bytes on disk, if that is known without looking at each file.
    fn bytes_on_disk(&self) -> Option<u64> {
        None
    }

    /// Closes it.
    ///
    /// # Errors
    /// In words.
    fn close(self) -> Result<(), String>
    where
        Self: Sized,
    {
        Ok(())
    }
}

/// One thread's way into a contender.
pub trait Producer: Send {
    /// An append on its way; `()` where [`Facts::acknowledged_on_return`].
    type Ticket;

    /// Appends the records, as one batch if they are several. Waits at most so long for room.
    ///
    /// # Errors
    /// See [`Refusal`].
    fn submit(&mut self, records: &[Vec<u8>], at_most: Duration) -> Result<Self::Ticket, Refusal>;

    /// Whether it is acknowledged by now, at no cost. "No" is always allowed.
    fn is_acknowledged(&self, ticket: &Self::Ticket) -> bool {
        let _ = ticket;
        false
    }

    /// Waits at most so long; gives whether it is acknowledged then.
    ///
    /// # Errors
    /// Why it will not be, in words.
    fn wait_within(&mut self, ticket: &Self::Ticket, at_most: Duration) -> Result<bool, String> {
        std::thread::sleep(at_most);
        Ok(self.is_acknowledged(ticket))
    }

    /// Waits for the acknowledgement, [`ACKNOWLEDGED_WITHIN`] at most.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn wait(&mut self, ticket: Self::Ticket) -> Result<(), String>;
}

/// Why an append was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room in memory; later there may be.
    NoRoom,
    /// The disk is full: the run ends.
    DiskFull,
    /// Anything else, in words: the run fails.
    Failed(String),
}

/// What a contender is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its name.
    pub engine: String,
    /// Its version.
    pub version: Option<String>,
    /// The mode in its own words.
    pub mode: String,
    /// Where an acknowledged record is said to be.
    pub class: Class,
    /// Where it reaches the media later on: within so many ms.
    pub media_within_ms: Option<u64>,
    /// Whether [`Producer::submit`] returns with the acknowledgement: nothing is ever in flight then.
    pub acknowledged_on_return: bool,
    /// 1 for what has none.
    pub shards: u64,
    /// "io_uring", "blocking", …
    pub io: Option<String>,
    /// Whether its writes bypass the page cache.
    pub direct: Option<bool>,
    /// How it makes a commit durable.
    pub primitive: Option<String>,
    /// What falls short, in words.
    pub notes: Vec<String>,
}

impl Facts {
    /// An engine whose appends return when they are acknowledged, and that tells no more.
    pub fn new(engine: &str, version: Option<&str>, mode: &str, class: Class) -> Self {
        Self {
            engine: engine.to_owned(),
            version: version.map(str::to_owned),
            mode: mode.to_owned(),
            class,
            media_within_ms: None,
            acknowledged_on_return: true,
            shards: 1,
            io: None,
            direct: None,
            primitive: None,
            notes: Vec::new(),
        }
    }
}

/// What a contender says that it has done.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Flushes completed.
    pub flushes: Option<u64>,
    /// Bytes written to the device.
    pub device_bytes: Option<u64>,
    /// Time of write and flush of each commit that was flushed, in ns; empty where it does not tell.
    pub flush_latency: Histogram<u64>,
    /// What else it counts, by name.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            flushes: None,
            device_bytes: None,
            flush_latency: new_histogram(),
            counts: BTreeMap::new(),
        }
    }
}

impl Claims {
    /// What was done between an earlier look and this one.
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let mut flush_latency = new_histogram();
        for value in self.flush_latency.iter_recorded() {
            let earlier = before.flush_latency.count_at(value.value_iterated_to());
            let count = value.count_at_value().saturating_sub(earlier);
            flush_latency.saturating_record_n(value.value_iterated_to(), count);
        }
        let earlier = |name: &str| before.counts.get(name).copied().unwrap_or(0);
        Self {
            flushes: less(self.flushes, before.flushes),
            device_bytes: less(self.device_bytes, before.device_bytes),
            flush_latency,
            counts: self
                .counts
                .iter()
                .map(|(name, count)| (*name, count.saturating_sub(earlier(name))))
                .collect(),
        }
    }

    /// One of the counts; 0 where there is none of this name.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// An open log.
#[derive(Clone)]
pub struct Ringlog {
    log: Log,
    durability: Durability,
    mode: String,
    media_within_ms: Option<u64>,
}

impl Ringlog {
    /// Takes a log whose records are appended at this level.
    pub fn new(log: Log, durability: Durability) -> Self {
        let mode = match durability {
            Durability::Memory => "memory",
            Durability::Written => "written",
            Durability::Synced => "synced",
        };
        Self { log, durability, mode: mode.to_owned(), media_within_ms: None }
    }

    /// The same under another name, for a policy that is more than its level.
    #[must_use]
    pub fn named(self, mode: &str, media_within_ms: Option<u64>) -> Self {
        Self { mode: mode.to_owned(), media_within_ms, ..self }
    }

    /// What a log is, whatever its mode.
    pub(crate) fn facts_of(log: &Log, mode: &str) -> Facts {
        let facts = Self::new(log.clone(), Durability::Synced).named(mode, None).facts();
        // Nothing is acknowledged by what only reads.
        Facts { class: Class::Memory, ..facts }
    }
}

impl Contender for Ringlog {
    type Producer = RinglogProducer;

    fn facts(&self) -> Facts {
        let stats = self.log.stats();
        let class = match self.durability {
            Durability::Memory => Class::Memory,
            Durability::Written if !stats.direct => Class::PageCache,
            Durability::Written => Class::DeviceCache,
            Durability::Synced => Class::Media,
        };
        let version = Some(env!("CARGO_PKG_VERSION"));
        Facts {
            acknowledged_on_return: self.durability == Durability::Memory,
            media_within_ms: self.media_within_ms,
            shards: stats.shards.len() as u64,
            io: Some(stats.io.to_owned()),
            direct: Some(stats.direct),
            primitive: Some(stats.commit_primitive.to_owned()),
            notes: stats.notes,
            ..Facts::new("ringlog", version, &self.mode, class)
        }
    }

    fn producer(&self, number: usize) -> Result<RinglogProducer, String> {
        self.log
            .stream(&format!("producer-{number}"))
            .map(|stream| RinglogProducer { stream, durability: self.durability })
            .map_err(|error| format!("stream: {error}"))
    }

    fn claims(&self) -> Claims {
        let stats = self.log.stats();
        let sum = |of: fn(&ringlog::ShardStats) -> u64| stats.shards.iter().map(of).sum::<u64>();
        let mut flush_latency = new_histogram();
        for shard in &stats.shards {
            for value in shard.flush_latency.iter_recorded() {
                flush_latency
                    .saturating_record_n(value.value_iterated_to(), value.count_at_value());
            }
        }
        Claims {
            flushes: Some(sum(|shard| shard.flushes)),
            device_bytes: Some(sum(ringlog::ShardStats::bytes_to_device)),
            flush_latency,
            counts: BTreeMap::from([
                ("commits", sum(|shard| shard.commits)),
                ("batch_bytes", sum(|shard| shard.bytes_written)),
                ("prewritten_bytes", sum(|shard| shard.bytes_prewritten)),
                ("rotations", sum(|shard| shard.rotations)),
                ("recycled_segments", sum(|shard| shard.recycled_segments)),
            ]),
        }
    }

    fn trim(&self) -> Result<u64, String> {
        self.log.trim(0).map(|report| report.segments).map_err(|error| format!("trim: {error}"))
    }

    fn bytes_on_disk(&self) -> Option<u64> {
        let stats = self.log.stats();
        let segments: usize = stats.shards.iter().map(|shard| shard.segments).sum();
        Some(segments as u64 * stats.segment_bytes)
    }

    fn close(self) -> Result<(), String> {
        self.log.close().map_err(|error| format!("close: {error}"))
    }
}

/// One stream of a log.
pub struct RinglogProducer {
    stream: Stream,
    durability: Durability,
}

impl Producer for RinglogProducer {
    type Ticket = Receipt;

    fn submit(&mut self, records: &[Vec<u8>], at_most: Duration) -> Result<Receipt, Refusal> {
        append(&self.stream, records, self.durability, at_most)
    }

    fn is_acknowledged(&self, ticket: &Receipt) -> bool {
        ticket.is_acknowledged()
    }

    fn wait_within(&mut self, ticket: &Receipt, at_most: Duration) -> Result<bool, String> {
        wait_within(ticket, at_most)
    }

    fn wait(&mut self, ticket: Receipt) -> Result<(), String> {
        wait(&ticket)
    }
}

/// [`Producer::submit`] for a stream.
pub(crate) fn append(
    stream: &Stream,
    records: &[Vec<u8>],
    durability: Durability,
    at_most: Duration,
) -> Result<Receipt, Refusal> {
    let receipt = match (records, at_most.is_zero()) {
        ([record], true) => stream.append_with(record, durability),
        ([record], false) => stream.append_within(record, durability, at_most),
        (records, true) => stream.append_batch(records, durability),
        (records, false) => stream.append_batch_within(records, durability, at_most),
    };
    receipt.map_err(|error| match error {
        AppendError::Full { reason: FullReason::Memory } => Refusal::NoRoom,
        AppendError::Full { reason: _ } => Refusal::DiskFull,
        error => Refusal::Failed(format!("append: {error}")),
    })
}

/// [`Producer::wait_within`] for a receipt.
pub(crate) fn wait_within(ticket: &Receipt, at_most: Duration) -> Result<bool, String> {
    match ticket.wait_timeout(at_most) {
        Ok(_) => Ok(true),
        Err(ReceiptError::Timeout) => Ok(false),
        Err(error) => Err(format!("acknowledgement: {error}")),
    }
}

/// [`Producer::wait`] for a receipt.
pub(crate) fn wait(ticket: &Receipt) -> Result<(), String> {
    ticket
        .wait_timeout(ACKNOWLEDGED_WITHIN)
        .map(|_| ())
        .map_err(|error| format!("acknowledgement: {error}"))
}
