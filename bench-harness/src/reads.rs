//! Reading: one record somewhere, one stream among many, and following at a pace.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringlog::{Durability, Log, Offset, Options, Stream};

use crate::bare;
use crate::counters::{Counted, Counters, Device};
use crate::environment::interrupted;
use crate::percentile::new_histogram;
use crate::workload::incompressible;

/// What the log that is read holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    /// Streams, appended to in turns.
    pub(crate) streams: u64,
    /// Payload of a record.
    pub(crate) record_bytes: usize,
    /// Payload of all, about.
    pub(crate) bytes: u64,
}

impl Content {
    /// A thousand streams of 1 KiB records.
    pub(crate) fn many_streams(bytes: u64) -> Self {
        Self { streams: 1000, record_bytes: 1024, bytes }
    }

    /// One stream of 256-byte records.
    pub(crate) fn one_stream(bytes: u64) -> Self {
        Self { streams: 1, record_bytes: 256, bytes }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
/// A burst each millisecond.
const BURST: u64 = 100;

/// A sealed and closed log of many streams, appended to in turns.
pub(crate) struct Filled {
    dir: PathBuf,
    options: Options,
    device: Device,
    content: Content,
    /// Records of each stream.
    each: u64,
    /// Bytes of batches.
    bytes: u64,
}

/// What reading cost.
pub(crate) struct Cost {
    /// What the device did, where it counts.
    pub(crate) counted: Counted,
    pub(crate) elapsed: Duration,
    pub(crate) records: u64,
    /// Of each record that was read by itself, in ns.
    pub(crate) latency: Histogram<u64>,
    /// Whether the kernel's caches were emptied before.
    pub(crate) cold: bool,
}

fn say(what: &str) -> impl Fn(&dyn std::fmt::Display) -> String {
    move |error| format!("{what}: {error}")
}

impl Filled {
    /// Fills a new log in `dir`.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn new(dir: &Path, options: &Options, content: Content) -> Result<Self, String> {
        let log = Log::open(dir, options.clone()).map_err(|error| say("open")(&error))?;
        let streams = (0..content.streams).map(|number| log.stream(&format!("s{number}")));
        let streams: Vec<Stream> =
            streams.collect::<Result<_, _>>().map_err(|error| say("stream")(&error))?;
        let each = content.bytes / content.streams / content.record_bytes as u64;
        let record = incompressible(content.record_bytes, 1);
        for _ in 0..each {
            if interrupted() {
                return Err("interrupted".to_owned());
            }
            for stream in &streams {
                // The flush below answers for all of them.
                drop(
                    stream
                        .append_within(&record, Durability::Written, PATIENCE)
                        .map_err(|error| say("fill")(&error))?,
                );
            }
        }
        log.flush().map_err(|error| say("flush")(&error))?;
        log.rotate().map_err(|error| say("rotate")(&error))?;
        let bytes = log.stats().shards.iter().map(|shard| shard.durable_lsn.0).sum();
        log.close().map_err(|error| say("close")(&error))?;
        let (device, dir, options) = (Device::of(dir), dir.to_owned(), options.clone());
        Ok(Self { dir, options, device, content, each, bytes })
    }

    /// Bytes of its batches.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn open(&self) -> Result<Log, String> {
        let options = Options { create: false, ..self.options.clone() };
        Log::open(&self.dir, options).map_err(|error| say("open")(&error))
    }

    /// Reads so many records, each at a random offset of a random stream.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn random(&self, records: u64, seed: u64) -> Result<Cost, String> {
        let log = self.open()?;
        let cold = empty_caches();
        let (before, begun) = (self.device.look(), Instant::now());
        let (mut state, mut latency) = (seed, new_histogram());
        let mut read = 0;
        while read < records && !interrupted() {
            read += 1;
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 33) % self.content.streams;
            let offset = (state >> 17) % self.each;
            let stream = log.existing_stream(&format!("s{number}"));
            let stream = stream.map_err(|error| say("stream")(&error))?;
            let at = Instant::now();
            let record = stream.get(Offset(offset)).map_err(|error| say("read")(&error))?;
            latency.saturating_record(u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if record.payload().len() != self.content.record_bytes
                || record.offset() != Offset(offset)
            {
                return Err("another record was read".to_owned());
            }
        }
        let cost = self.cost(&before, begun, read, cold);
        log.close().map_err(|error| say("close")(&error))?;
        Ok(Cost { latency, ..cost })
    }

    /// Reads one stream from its first record to its last.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn scan(&self, number: u64) -> Result<Cost, String> {
        let log = self.open()?;
        let cold = empty_caches();
        let stream = log.existing_stream(&format!("s{}", number % self.content.streams));
        let stream = stream.map_err(|error| say("stream")(&error))?;
        let (before, begun) = (self.device.look(), Instant::now());
        let mut reader = stream.read(..).map_err(|error| say("read")(&error))?;
        let mut records = 0;
        while let Some(record) = reader.next_ref() {
            records += u64::from(record.map_err(|error| say("read")(&error))?.payload().len() > 1);
        }
        drop(reader);
        let cost = self.cost(&before, begun, records, cold);
        if records != self.each {
            return Err(format!("{records} records were read, not {}", self.each));
        }
        log.close().map_err(|error| say("close")(&error))?;
        Ok(cost)
    }

    fn cost(&self, before: &Counters, begun: Instant, records: u64, cold: bool) -> Cost {
        let elapsed = begun.elapsed();
        Cost {
            counted: self.device.look().since(before),
            elapsed,
            records,
            latency: new_histogram(),
            cold,
        }
    }

    /// How fast the device reads a segment of it, in bytes per second.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn raw_read(&self) -> Result<f64, String> {
        let shard = self.dir.join("shard-000");
        let entries = std::fs::read_dir(&shard).map_err(|error| say("list")(&error))?;
        let mut segments: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        segments.sort();
        bare::sequential_read(segments.first().ok_or("there is no segment")?)
    }
}

/// Drops what the kernel has cached of files, where that is allowed.
fn empty_caches() -> bool {
    std::fs::write("/proc/sys/vm/drop_caches", "1").is_ok()
}

/// What a follower saw.
pub(crate) struct Followed {
    /// How long after a record was durable it was given, in nanoseconds, sorted.
    pub(crate) delays_ns: Vec<u64>,
    /// Records per second that were appended.
    pub(crate) rate: f64,
}

impl Followed {
    /// The delays as a histogram.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        let mut histogram = new_histogram();
        self.delays_ns.iter().for_each(|ns| histogram.saturating_record((*ns).max(1)));
        histogram
    }

    /// A percentile of the delays, in seconds.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let at = (self.delays_ns.len() as f64 * percent / 100.0) as usize;
        let ns = self.delays_ns.get(at.min(self.delays_ns.len().saturating_sub(1)));
        ns.copied().unwrap_or_default() as f64 / 1e9
    }
}

/// Appends 100 records of 256 bytes each millisecond for about `window`, and follows them. The
/// moment at which the last record of a burst is durable is watched for by its producer.
///
/// # Errors
/// In words.
pub(crate) fn follow(log: &Log, window: Duration) -> Result<Followed, String> {
    let stream = log.stream("followed").map_err(|error| say("stream")(&error))?;
    let first = stream.next_offset();
    let bursts = window.as_millis() as u64;
    let last = first.0 + bursts * BURST;
    let follower = stream.follow(first).map_err(|error| say("follow")(&error))?;
    let seen = std::thread::spawn(move || -> Result<Vec<Instant>, String> {
        let mut seen = Vec::with_capacity(bursts as usize);
        for record in follower {
            let offset = record.map_err(|error| say("follow")(&error))?.offset().0;
            if (offset - first.0) % BURST == BURST - 1 {
                seen.push(Instant::now());
            }
            if offset + 1 == last {
                break;
            }
        }
        Ok(seen)
    });
    let record = incompressible(256, 1);
    let begun = Instant::now();
    let mut durable = Vec::with_capacity(bursts as usize);
    for burst in 0..bursts {
        let due = begun + Duration::from_millis(burst);
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(early);
        }
        let mut receipt = None;
        for _ in 0..BURST {
            let appended = stream.append_within(&record, Durability::Synced, PATIENCE);
            receipt = Some(appended.map_err(|error| say("append")(&error))?);
        }
        if let Some(receipt) = receipt {
            while !receipt.is_acknowledged() {
                std::thread::yield_now();
            }
        }
        durable.push(Instant::now());
    }
    let rate = (bursts * BURST) as f64 / begun.elapsed().as_secs_f64();
    let seen = seen.join().map_err(|_| "the follower has panicked".to_owned())??;
    let delay = |(seen, durable): (&Instant, &Instant)| {
        seen.saturating_duration_since(*durable).as_nanos() as u64
    };
    let mut delays_ns: Vec<u64> = seen.iter().zip(&durable).map(delay).collect();
    delays_ns.sort_unstable();
    Ok(Followed { delays_ns, rate })
}
