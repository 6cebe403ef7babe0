//! `read`: what reading back costs, beside a raw read of the same bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use ringlog::{Log, SyncPolicy};

use crate::bench::{Bench, ReadFloor, Work};
use crate::compare::finish;
use crate::contender::{Facts, Ringlog};
use crate::counters::Device;
use crate::environment::{interrupted, scratch};
use crate::reads::{self, Content, Cost, Filled};
use crate::report::{Failure, Out};
use crate::run::Run;
use crate::summary::Summary;
use crate::workload::{self, Outcome};

/// What is read how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// Records of 1 KiB at random places of a log of a thousand streams
    Random,
    /// One of those streams from end to end
    Scan,
    /// A log of one stream of 256-byte records, from end to end
    Replay,
    /// A stream that is appended to at 100,000 records/s: delay behind the durable watermark
    Follow,
}

/// In which ways, how much.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Ways of reading
    #[arg(long, value_enum, value_delimiter = ',', default_value = "random,scan,replay,follow")]
    ways: Vec<Way>,
    /// Payload of the logs that are read
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30,
        value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 40))]
    bytes: u64,
    /// Records read at random in a round
    #[arg(long, value_name = "N", default_value_t = 2000,
        value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
}

/// A log to read, filled when it is first wanted.
struct Logs {
    many: Option<Filled>,
    one: Option<Filled>,
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
    out.print(&format!(
        "\n{}\nreading logs of {} MiB; {rounds} rounds\n\n",
        dir.display(),
        arguments.bytes >> 20
    ))?;
    let mut bench = Bench::new(&arguments.run, "read", dir)?;
    let options = bench.options()?;
    let facts = {
        let own = scratch(bench.path())?;
        let log = workload::open(own.path(), SyncPolicy::EveryCommit, &options)?;
        let facts = Ringlog::facts_of(&log, "read");
        log.close().map_err(|error| format!("close: {error}"))?;
        facts
    };
    let (many_dir, one_dir) = (scratch(bench.path())?, scratch(bench.path())?);
    let mut logs = Logs { many: None, one: None };
    for way in &arguments.ways {
        match way {
            Way::Random | Way::Scan if logs.many.is_none() => {
                out.progress("filling a log of a thousand streams");
                let content = Content::many_streams(arguments.bytes);
                logs.many = Some(Filled::new(many_dir.path(), &options, content)?);
            }
            Way::Replay if logs.one.is_none() => {
                out.progress("filling a log of one stream");
                let content = Content::one_stream(arguments.bytes);
                logs.one = Some(Filled::new(one_dir.path(), &options, content)?);
            }
            _ => {}
        }
    }
    let mut summary = Summary::default();
    for round in 1..=rounds {
        for way in &arguments.ways {
            let name = way.to_possible_value().map_or(String::new(), |v| v.get_name().to_owned());
            if interrupted() || summary.has_failed(&name) {
                continue;
            }
            out.progress(&format!("round {round}, {name}"));
            let record_bytes = if matches!(way, Way::Random | Way::Scan) { 1024 } else { 256 };
            let load = bench.load(record_bytes, 1, 1);
            let facts = Facts { mode: name.clone(), ..facts.clone() };
            let seed = round as u64;
            let measured = bench.measure_by(round, &load, |dir| match (way, &logs) {
                (Way::Random, Logs { many: Some(log), .. }) => {
                    let cost = log.random(arguments.records, seed)?;
                    Ok(outcome(facts, cost, record_bytes).into())
                }
                (Way::Scan, Logs { many: Some(log), .. }) => {
                    from_end_to_end(log, seed * 7, facts, record_bytes)
                }
                (Way::Replay, Logs { one: Some(log), .. }) => {
                    from_end_to_end(log, 0, facts, record_bytes)
                }
                (Way::Follow, _) => {
                    let log = workload::open(dir, SyncPolicy::EveryCommit, &options)?;
                    follow(&log, dir, facts, arguments.run.seconds)
                }
                _ => Err("there is no log to read".to_owned()),
            });
            summary.take(&name, measured, out)?;
        }
    }
    finish(&bench, &summary, "way", 1, number, out)
}

fn outcome(mut facts: Facts, cost: Cost, record_bytes: usize) -> Outcome {
    if !cost.cold {
        facts.notes.push("the kernel's caches could not be emptied before reading".to_owned());
    }
    let payload = cost.records * record_bytes as u64;
    let mut outcome = Outcome::of(facts, cost.records, payload, cost.elapsed);
    outcome.latency = cost.latency;
    if let Some(reads) = cost.counted.reads {
        outcome.claims.counts.insert("device_reads", reads);
    }
    outcome.counted = cost.counted;
    outcome
}

fn from_end_to_end(
    log: &Filled,
    number: u64,
    facts: Facts,
    record_bytes: usize,
) -> Result<Work, String> {
    let before = log.raw_read()?;
    let cost = log.scan(number)?;
    // Where batches without the stream are passed over, that counts: it is what a user waits for.
    let read = ReadFloor { before, after: log.raw_read()?, bytes: log.bytes() };
    Ok(Work { read: Some(read), ..outcome(facts, cost, record_bytes).into() })
}

fn follow(log: &Log, dir: &Path, facts: Facts, window: Duration) -> Result<Work, String> {
    let device = Device::of(dir);
    let (looked, begun) = (device.look(), Instant::now());
    let followed = reads::follow(log, window)?;
    let elapsed = begun.elapsed();
    let records = (followed.rate * elapsed.as_secs_f64()) as u64;
    let mut outcome = Outcome::of(facts, records, records * 256, elapsed);
    outcome.counted = device.look().since(&looked);
    outcome.latency = followed.histogram();
    Ok(outcome.into())
}
