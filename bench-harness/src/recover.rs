//! `recover`: opening a log after its process was killed, and after a clean close.

use std::path::Path;
use std::time::{Duration, Instant};

use ringlog::{Durability, Format, Log, Options};
use ringlog_disk::{Dir, IoKind};

use crate::bare;
use crate::bench::{Bench, ReadFloor, Work};
use crate::compare::finish;
use crate::contender::Ringlog;
use crate::counters::Device;
use crate::environment::{free_bytes, interrupted};
use crate::filler::{FILLED_RECORD_BYTES, Filler, filled_segment};
use crate::percentile::new_histogram;
use crate::report::{Failure, Out};
use crate::run::Run;
use crate::summary::Summary;
use crate::workload::{Outcome, incompressible};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Segments of the logs that are closed cleanly.
const SEGMENT_BYTES: u64 = 64 * MIB;
/// How often such a log is opened in a round.
const OPENS: u64 = 7;
const FIRST_RECORD: &[u8] = b"the first record of a life";

/// Which logs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Sizes of logs that are opened after a clean close; less where there is no room for twice as
    /// much
    #[arg(
        long,
        value_name = "BYTES",
        value_delimiter = ',',
        default_value = "0,67108864,1073741824"
    )]
    bytes: Vec<u64>,
}

/// What opening a log whose process was killed took.
pub(crate) struct Killed {
    /// Bytes per second of a raw read of the same file, before and after.
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// Bytes that were scanned, and in what time.
    pub(crate) scanned: u64,
    pub(crate) elapsed: Duration,
    /// Records found, and those of them that were written again.
    pub(crate) records: u64,
    pub(crate) rewritten: u64,
}

/// Fills a log in `dir` from another process, kills that, and opens the log.
///
/// # Errors
/// What went wrong, in words.
pub(crate) fn after_kill(dir: &Path, io: IoKind, options: &Options) -> Result<Killed, String> {
    Filler::start(dir, io)?.kill_when_full()?;
    let segment = filled_segment(dir).ok_or("there is no filled segment")?;
    let before = bare::sequential_read(&segment)?;
    let options = Options { create: false, ..options.clone() };
    let log = Log::open(dir, options).map_err(|error| format!("open: {error}"))?;
    let report = log.recovery_report().clone();
    // Closed before the second read: an open log prepares segments beside it.
    log.close().map_err(|error| format!("close: {error}"))?;
    let shards = &report.shards;
    Ok(Killed {
        before,
        after: bare::sequential_read(&segment)?,
        scanned: shards.iter().map(|shard| shard.bytes_scanned).sum(),
        elapsed: shards.iter().map(|shard| shard.scan_time).sum(),
        records: shards.iter().map(|shard| shard.records).sum(),
        rewritten: shards.iter().map(|shard| shard.records_rewritten).sum(),
    })
}

/// A log with so many bytes of records, closed.
///
/// # Errors
/// What went wrong, in words.
pub(crate) fn fill(dir: &Path, bytes: u64, options: &Options) -> Result<(), String> {
    let log = Log::open(dir, options.clone()).map_err(|error| format!("open: {error}"))?;
    let stream = log.stream("first").map_err(|error| format!("stream: {error}"))?;
    let batch = vec![incompressible(4096, 1); 256];
    for _ in 0..bytes / MIB {
        if interrupted() {
            return Err("interrupted".to_owned());
        }
        // The close answers for all of them.
        let receipt = stream.append_batch_within(&batch, Durability::Written, PATIENCE);
        drop(receipt.map_err(|error| format!("fill: {error}"))?);
    }
    log.close().map_err(|error| format!("close: {error}"))
}

/// From the call that opens the log in `dir` to its first durable append.
///
/// # Errors
/// What went wrong, in words.
pub(crate) fn first_append(dir: &Path, options: &Options) -> Result<Duration, String> {
    // The ring of the life before lets go of the lock a little after it was closed: that is waited
    // for here, and not measured.
    let lock = Dir::open(dir).map_err(|error| format!("open the directory: {error}"))?;
    if !lock.lock_exclusive(PATIENCE).map_err(|error| format!("wait for the lock: {error}"))? {
        return Err("the log stays locked".to_owned());
    }
    drop(lock);
    let begun = Instant::now();
    let log = Log::open(dir, options.clone()).map_err(|error| format!("open: {error}"))?;
    let stream = log.existing_stream("first").map_err(|error| format!("stream: {error}"))?;
    let receipt = stream.append(FIRST_RECORD).map_err(|error| format!("append: {error}"))?;
    receipt.wait_timeout(PATIENCE).map_err(|error| format!("wait: {error}"))?;
    let took = begun.elapsed();
    log.close().map_err(|error| format!("close: {error}"))?;
    Ok(took)
}

/// Measures one directory.
///
/// # Errors
/// What could not be measured, or written, in words.
pub(crate) fn run_in(
    arguments: &Arguments,
    dir: &Path,
    number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    let rounds = arguments.run.rounds;
    out.print(&format!("\n{}\nopening a log; {rounds} rounds\n\n", dir.display()))?;
    let mut bench = Bench::new(&arguments.run, "recover", dir)?;
    let mut summary = Summary::default();
    for round in 1..=rounds {
        for bytes in std::iter::once(None).chain(arguments.bytes.iter().copied().map(Some)) {
            let label = match bytes {
                None => "scan after a kill".to_owned(),
                Some(bytes) => format!("{} MiB, closed: to the first append", bytes / MIB),
            };
            if interrupted() || summary.has_failed(&label) {
                continue;
            }
            out.progress(&format!("round {round}, {label}"));
            let usual = bench.options()?;
            let format = Format { segment_bytes: Some(SEGMENT_BYTES), ..usual.format };
            let options = Options { format, ..usual };
            let record_bytes =
                if bytes.is_none() { FILLED_RECORD_BYTES } else { FIRST_RECORD.len() };
            let load = bench.load(record_bytes, 1, 1);
            let io = arguments.run.io.kind();
            let measured = bench.measure_by(round, &load, |dir| match bytes {
                None => killed(dir, io, &options),
                Some(bytes) => Ok(closed(dir, bytes, &options)?.labelled(&label)),
            });
            summary.take(&label, measured, out)?;
        }
    }
    finish(&bench, &summary, "log", 1, number, out)
}

/// What a log in this directory is, opened for a moment.
fn facts(dir: &Path, mode: &str, options: &Options) -> Result<crate::contender::Facts, String> {
    let log = Log::open(dir, options.clone()).map_err(|error| format!("open: {error}"))?;
    let facts = Ringlog::facts_of(&log, mode);
    log.close().map_err(|error| format!("close: {error}"))?;
    Ok(facts)
}

fn killed(dir: &Path, io: IoKind, options: &Options) -> Result<Work, String> {
    let device = Device::of(dir);
    let looked = device.look();
    let killed = after_kill(dir, io, options)?;
    let counted = device.look().since(&looked);
    let payload = killed.records * FILLED_RECORD_BYTES as u64;
    let facts = facts(dir, "recovery", options)?;
    let mut outcome = Outcome::of(facts, killed.records, payload, killed.elapsed);
    outcome.counted = counted;
    outcome.claims.counts.insert("bytes_scanned", killed.scanned);
    outcome.claims.counts.insert("records_rewritten", killed.rewritten);
    let read = ReadFloor { before: killed.before, after: killed.after, bytes: killed.scanned };
    Ok(Work { read: Some(read), ..outcome.into() })
}

fn closed(dir: &Path, bytes: u64, options: &Options) -> Result<Work, String> {
    let room = free_bytes(dir).ok_or("df does not tell how much room there is")? / 2;
    let bytes = bytes.min(room);
    fill(dir, bytes, options)?;
    // Once before anything is counted: the code and the directory are warm then.
    first_append(dir, options)?;
    let facts = facts(dir, "open", options)?;
    let device = Device::of(dir);
    let (looked, begun) = (device.look(), Instant::now());
    let (mut latency, mut opens) = (new_histogram(), 0);
    let mut all = Vec::new();
    while opens < OPENS && !interrupted() {
        let took = first_append(dir, options)?;
        latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        all.push(took);
        opens += 1;
    }
    all.sort_unstable();
    let elapsed = begun.elapsed();
    let mut outcome = Outcome::of(facts, opens, opens * FIRST_RECORD.len() as u64, elapsed);
    outcome.counted = device.look().since(&looked);
    outcome.latency = latency;
    // Seven are too few for a percentile, and a median of one round is what a ratio wants.
    let median = all.get(all.len() / 2).map_or(0, Duration::as_micros);
    let counts = &mut outcome.claims.counts;
    counts.insert("first_append_median_us", u64::try_from(median).unwrap_or(u64::MAX));
    counts.insert("log_bytes", bytes);
    Ok(outcome.into())
}
