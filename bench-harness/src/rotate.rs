//! `rotate`: appends while segments are sealed and begun, trimmed and made anew, and read.
//!
//! The logs stay until the end of the run: ext4 does not use the inode of a removed file again for a
//! minute or more, and passes over each of them whenever a file is created near by. After thousands
//! of removals that takes most of a millisecond, and would be what is measured.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringlog::{Format, Log, Options, ReadError, Retention, SyncPolicy};
use tempfile::TempDir;

use crate::bench::{Bench, Work};
use crate::compare::finish;
use crate::contender::{Contender, Ringlog};
use crate::environment::{interrupted, scratch};
use crate::report::{Failure, Out};
use crate::run::{Appends, Run, within};
use crate::summary::Summary;
use crate::workload::{self, Keep, Load, Outcome};

const MIB: usize = 1 << 20;
/// How often a follower looks whether the run is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Segments that retention keeps.
const SEGMENTS_KEPT: u64 = 4;

/// With which segments.
#[derive(Clone, Debug, clap::Args)]
#[command(
    mut_arg("record_bytes", |bytes| bytes.default_value("4096")),
    mut_arg("producers", |producers| producers.default_value("1")),
    mut_arg("outstanding", |receipts| receipts.default_value("1")
        .help("Receipts that each producer keeps in flight"))
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Sizes of segments in MiB; the largest is what the others are set against
    #[arg(long, value_name = "MIB", value_delimiter = ',', default_value = "64,1",
        value_parser = |text: &str| within(text, 1, 1024))]
    segment_mib: Vec<usize>,
    /// Followers that read all along in the last run, in which retention trims as well; 0: there is
    /// no such run
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = |text: &str| within(text, 0, 64))]
    followers: usize,
    #[command(flatten)]
    pub(crate) appends: Appends,
}

/// One way to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) segment_mib: usize,
    pub(crate) followers: usize,
}

impl Way {
    fn label(self) -> String {
        let Self { segment_mib, followers } = self;
        match followers {
            0 => format!("segments of {segment_mib} MiB"),
            _ => format!("segments of {segment_mib} MiB, retention, {followers} followers"),
        }
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
    out.print(&format!("\n{}\nsegments come and go; {rounds} rounds\n\n", dir.display()))?;
    let mut bench = Bench::new(&arguments.run, "rotate", dir)?;
    let mut ways: Vec<Way> = arguments
        .segment_mib
        .iter()
        .map(|segment_mib| Way { segment_mib: *segment_mib, followers: 0 })
        .collect();
    if let Some(smallest) = arguments.segment_mib.iter().min()
        && arguments.followers > 0
    {
        ways.push(Way { segment_mib: *smallest, followers: arguments.followers });
    }
    let keep_all = Load { keep: Keep::All, ..arguments.appends.load(&bench) };
    let options = bench.options()?;
    let kept = scratch(bench.path())?;
    let mut summary = Summary::default();
    let mut logs: Vec<TempDir> = Vec::new();
    for round in 1..=rounds {
        for way in &ways {
            if interrupted() || summary.has_failed(&way.label()) {
                continue;
            }
            out.progress(&format!("round {round}, {}", way.label()));
            let own = scratch(kept.path())?;
            let measured = bench.measure_by(round, &keep_all, |_| {
                let outcome = measure(*way, own.path(), &options, &keep_all)?;
                Ok(Work::from(outcome).labelled(&way.label()))
            });
            logs.push(own);
            summary.take(&way.label(), measured, out)?;
        }
    }
    drop(logs);
    let details = ["rotations", "recycled_segments", "followed"];
    out.print(&summary.details("segments", &details))?;
    finish(&bench, &summary, "segments", arguments.appends.record_bytes, number, out)
}

pub(crate) fn measure(
    way: Way,
    dir: &Path,
    options: &Options,
    load: &Load,
) -> Result<Outcome, String> {
    let segment_bytes = Some((way.segment_mib * MIB) as u64);
    let format = Format { segment_bytes, shards: Some(1) };
    let max_segments = (way.followers > 0).then_some(SEGMENTS_KEPT);
    let retention = Retention { max_segments, ..options.retention };
    // A batch has to fit into a quarter of a segment.
    let batch_bytes_max = options.batch_bytes_max.min(way.segment_mib * MIB / 4);
    let options = Options { format, retention, batch_bytes_max, ..options.clone() };
    let log = workload::open(dir, SyncPolicy::EveryCommit, &options)?;
    let followers = (0..way.followers)
        .map(|number| Following::start(&log, number))
        .collect::<Result<Vec<_>, _>>()?;
    let contender = Ringlog::new(log, ringlog::Durability::Synced);
    let outcome = workload::run(&contender, dir, load);
    let followed = followers.into_iter().map(Following::end).sum::<Result<u64, String>>();
    let closed = contender.close();
    let mut outcome = outcome?;
    closed?;
    if way.followers > 0 {
        outcome.claims.counts.insert("followed", followed?);
    }
    Ok(outcome)
}

/// A thread that reads all that comes.
struct Following {
    thread: JoinHandle<Result<u64, String>>,
    over: Arc<AtomicBool>,
}

impl Following {
    fn start(log: &Log, number: usize) -> Result<Self, String> {
        let stream = log.stream("producer-0").map_err(|error| format!("stream: {error}"))?;
        let mut follower =
            stream.follow(stream.next_offset()).map_err(|error| format!("follow: {error}"))?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let following = move || {
            let mut records = 0;
            while !is_over.load(Ordering::Relaxed) && !follower.is_finished() {
                match follower.next_timeout(LOOK_EVERY) {
                    Ok(record) => records += u64::from(record.is_some()),
                    // It was too slow for the retention; it goes on behind what is gone.
                    Err(ReadError::Trimmed { .. }) => {}
                    Err(error) => return Err(format!("follow: {error}")),
                }
            }
            Ok(records)
        };
        thread::Builder::new()
            .name(format!("follower-{number}"))
            .spawn(following)
            .map(|thread| Self { thread, over })
            .map_err(|error| format!("start a follower: {error}"))
    }

    fn end(self) -> Result<u64, String> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "a follower panicked".to_owned())?
    }
}
