//! `streams`: from one stream to a million, appended to in turns.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlog::{Durability, Log, Receipt, Stream, SyncPolicy};

use crate::bench::{Bench, Work};
use crate::compare::finish;
use crate::contender::{Claims, Contender, Facts, Producer, Refusal, Ringlog};
use crate::contender::{append, wait, wait_within};
use crate::environment::interrupted;
use crate::report::{Failure, Out};
use crate::run::{Appends, Run, within};
use crate::summary::Summary;
use crate::workload;

const STREAMS_MAX: usize = 10_000_000;

/// How many.
#[derive(Clone, Debug, clap::Args)]
#[command(
    mut_arg("producers", |producers| producers.default_value("1")
        .help("Threads, each of which appends to its part of the streams in turns")),
    mut_arg("outstanding", |receipts| receipts.default_value("256")
        .help("Receipts that each of them keeps in flight"))
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Numbers of streams
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,1000,100000,1000000",
        value_parser = |text: &str| within(text, 1, STREAMS_MAX))]
    streams: Vec<usize>,
    #[command(flatten)]
    pub(crate) appends: Appends,
}

/// The name of the stream of this number.
pub(crate) fn name(at: u32) -> String {
    format!("stream-{at:07}")
}

/// Creates streams, or finds them, one after the other; gives their handles if they are wanted.
///
/// # Errors
/// In words.
pub(crate) fn create(log: &Log, count: u32, keep: bool) -> Result<Vec<Stream>, String> {
    let mut streams = Vec::with_capacity(if keep { count as usize } else { 0 });
    for at in 0..count {
        if interrupted() {
            return Err("interrupted".to_owned());
        }
        let stream = log.stream(&name(at)).map_err(|error| format!("create: {error}"))?;
        if keep {
            streams.push(stream);
        }
    }
    Ok(streams)
}

/// Memory of this process that is not swapped out.
///
/// # Errors
/// When the kernel does not tell, in words.
pub(crate) fn resident_bytes() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("read status: {error}"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| "no VmRSS in /proc/self/status".to_owned())
}

/// A log whose producers go around among many streams.
struct Many {
    log: Ringlog,
    streams: Arc<Vec<Stream>>,
    producers: usize,
    /// What creating them took.
    created: Duration,
    /// What they took of memory before anybody held them, all together.
    bytes: u64,
}

impl Many {
    fn new(log: Log, count: usize, producers: usize) -> Result<Self, String> {
        let count = u32::try_from(count).map_err(|error| format!("streams: {error}"))?;
        let (before, begun) = (resident_bytes()?, Instant::now());
        create(&log, count, false)?;
        log.flush().map_err(|error| format!("flush: {error}"))?;
        let created = begun.elapsed();
        let bytes = resident_bytes()?.saturating_sub(before);
        let streams = Arc::new(create(&log, count, true)?);
        let log = Ringlog::new(log, Durability::Synced);
        Ok(Self { log, streams, producers, created, bytes })
    }
}

impl Contender for Many {
    type Producer = AroundProducer;

    fn facts(&self) -> Facts {
        self.log.facts()
    }

    fn producer(&self, number: usize) -> Result<AroundProducer, String> {
        let streams = Arc::clone(&self.streams);
        Ok(AroundProducer { streams, next: number, step: self.producers })
    }

    fn claims(&self) -> Claims {
        let mut claims = self.log.claims();
        claims.counts.insert("streams", 0);
        claims
    }

    fn trim(&self) -> Result<u64, String> {
        self.log.trim()
    }

    fn bytes_on_disk(&self) -> Option<u64> {
        self.log.bytes_on_disk()
    }

    fn close(self) -> Result<(), String> {
        drop(self.streams);
        self.log.close()
    }
}

/// Appends to one of its streams after the other.
struct AroundProducer {
    streams: Arc<Vec<Stream>>,
    next: usize,
    step: usize,
}

impl Producer for AroundProducer {
    type Ticket = Receipt;

    fn submit(&mut self, records: &[Vec<u8>], at_most: Duration) -> Result<Receipt, Refusal> {
        let stream = &self.streams[self.next % self.streams.len()];
        let receipt = append(stream, records, Durability::Synced, at_most)?;
        self.next = (self.next + self.step) % self.streams.len();
        Ok(receipt)
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
    out.print(&format!("\n{}\nstreams in turns; {rounds} rounds\n\n", dir.display()))?;
    let mut bench = Bench::new(&arguments.run, "streams", dir)?;
    let options = bench.options()?;
    let mut summary = Summary::default();
    for round in 1..=rounds {
        for count in &arguments.streams {
            let label = format!("{count} streams");
            if interrupted() || summary.has_failed(&label) {
                continue;
            }
            out.progress(&format!("round {round}, {label}"));
            let load = arguments.appends.load(&bench);
            let measured = bench.measure_by(round, &load, |dir| {
                let log = workload::open(dir, SyncPolicy::EveryCommit, &options)?;
                let many = Many::new(log, *count, arguments.appends.producers)?;
                let (created, bytes) = (many.created, many.bytes);
                let mut outcome = workload::run(&many, dir, &load)?;
                many.close()?;
                let begun = Instant::now();
                let log = workload::open(dir, SyncPolicy::EveryCommit, &options)?;
                let reopened = begun.elapsed();
                log.close().map_err(|error| format!("close: {error}"))?;
                let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                let counts = &mut outcome.claims.counts;
                counts.insert("streams", *count as u64);
                counts.insert("created_us", us(created));
                counts.insert("resident_bytes_of_streams", bytes);
                counts.insert("reopened_us", us(reopened));
                Ok(Work::from(outcome).labelled(&label))
            });
            summary.take(&label, measured, out)?;
        }
    }
    out.print(
        &summary.details("streams", &["created_us", "resident_bytes_of_streams", "reopened_us"]),
    )?;
    finish(&bench, &summary, "streams", arguments.appends.record_bytes, number, out)
}
