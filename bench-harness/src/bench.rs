//! Measuring contenders in one directory, each between two rounds of the floor.
//!
//! The round after one measurement is the round before the next, so that floor and figures take
//! turns all the way. Invariant: what is reported of a measurement was set against the floor of the
//! same minute, or has none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use ringlog::Options;
use tempfile::TempDir;

use crate::bare::BareDisk;
use crate::contender::Contender;
use crate::counters::Verdict;
use crate::environment::{Place, interrupted, scratch};
use crate::floor::{self, Effort, Floor, Round, mib};
use crate::measurement::{Class, Measurement, OpenLoop, Ratios, encode};
use crate::percentile::Percentiles;
use crate::run::Run;
use crate::workload::{self, Keep, Load, Outcome};

/// From here on what can be freed on disk is.
const TRIM_ABOVE_BYTES: u64 = 256 << 20;

/// One directory of a run.
pub(crate) struct Bench<'a> {
    pub(crate) run: &'a Run,
    bench: &'static str,
    dir: PathBuf,
    place: Place,
    effort: Effort,
    disk: BareDisk,
    /// All rounds of the floor, oldest first, with what they were measured for.
    rounds: Vec<(Wanted, Round)>,
    /// The newest of them is still the round before whatever comes next.
    fresh: bool,
    scratch: TempDir,
}

/// What a round of the floor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    record_bytes: usize,
    append_bytes: usize,
}

/// What came of work that was measured.
pub(crate) struct Work {
    pub(crate) outcome: Outcome,
    pub(crate) open_loop: Option<OpenLoop>,
    pub(crate) read: Option<ReadFloor>,
    /// See [`Measurement::label`].
    pub(crate) label: Option<String>,
}

impl From<Outcome> for Work {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, open_loop: None, read: None, label: None }
    }
}

impl Work {
    /// Sets it apart from others of the same mode and load.
    pub(crate) fn labelled(self, label: &str) -> Self {
        Self { label: Some(label.to_owned()), ..self }
    }
}

/// The floor of what reads: bytes per second of a raw read of the same bytes before and after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadFloor {
    pub(crate) before: f64,
    pub(crate) after: f64,
    /// Bytes that were read, or passed over, in the measured time.
    pub(crate) bytes: u64,
}

/// One measurement, with the histograms that are merged over rounds.
pub(crate) struct Measured {
    pub(crate) line: Measurement,
    pub(crate) latency: Histogram<u64>,
    pub(crate) flush: Histogram<u64>,
}

impl<'a> Bench<'a> {
    /// Prepares `dir`.
    ///
    /// # Errors
    /// What the disk refused, in words.
    pub(crate) fn new(run: &'a Run, bench: &'static str, dir: &Path) -> Result<Self, String> {
        // Both the floor's files and the logs lie below this one: one guard removes everything.
        let scratch = scratch(dir)?;
        Ok(Self {
            run,
            bench,
            dir: dir.to_owned(),
            place: Place::of(dir),
            // A short look needs no long floor.
            effort: Effort::USUAL.at_most(run.seconds),
            disk: BareDisk::create(scratch.path())?,
            rounds: Vec::new(),
            fresh: false,
            scratch,
        })
    }

    /// The subcommand.
    pub(crate) fn name(&self) -> &'static str {
        self.bench
    }

    /// The directory as it was given.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it may write.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// What falls short of the floor here.
    pub(crate) fn note(&self) -> Option<&'static str> {
        self.disk.note()
    }

    /// All rounds of the floor that were measured so far.
    pub(crate) fn rounds(&self) -> Vec<Round> {
        self.rounds.iter().map(|(_, round)| round.clone()).collect()
    }

    /// Options of a log: those of the environment, and what was asked for.
    ///
    /// # Errors
    /// A variable that is not understood, in words.
    pub(crate) fn options(&self) -> Result<Options, String> {
        let options = Options::from_env().map_err(|error| error.to_string())?;
        Ok(Options { io: self.run.io.kind(), ..options })
    }

    /// What producers do unless a subcommand has its own wishes.
    pub(crate) fn load(&self, record_bytes: usize, producers: usize, outstanding: usize) -> Load {
        Load {
            record_bytes,
            batch_records: 1,
            producers,
            outstanding,
            timed: true,
            keep: Keep::TrimAbove(TRIM_ABOVE_BYTES),
            warm_up: (self.run.seconds / 10).min(Duration::from_millis(500)),
            window: self.run.seconds,
            payload_bytes_max: self.run.max_bytes,
        }
    }

    /// Measures one contender, opened by `open` in a new directory, between two rounds of the floor.
    ///
    /// # Errors
    /// The first that went wrong, in words.
    pub(crate) fn measure<C: Contender>(
        &mut self,
        round: usize,
        load: &Load,
        open: impl FnOnce(&Path) -> Result<C, String>,
    ) -> Result<Measured, String> {
        self.measure_by(round, load, |dir| {
            let contender = open(dir)?;
            let outcome = workload::run(&contender, dir, load)?;
            contender.close()?;
            Ok(outcome.into())
        })
    }

    /// The same, for work that measures itself; the floor is that of `load`.
    ///
    /// # Errors
    /// The first that went wrong, in words.
    pub(crate) fn measure_by(
        &mut self,
        round: usize,
        load: &Load,
        work: impl FnOnce(&Path) -> Result<Work, String>,
    ) -> Result<Measured, String> {
        let append_bytes = load.record_bytes * load.batch_records.max(1);
        let wanted = Wanted { record_bytes: load.record_bytes, append_bytes };
        let last = self.rounds.last().map(|(wanted, _)| *wanted);
        if !(self.fresh && last == Some(wanted)) {
            self.floor(wanted)?;
        }
        self.fresh = false;
        let before = self.rounds.len() - 1;
        let own = scratch(self.scratch.path())?;
        let work = work(own.path())?;
        drop(own);
        if !interrupted() {
            self.floor(wanted)?;
            self.fresh = true;
        }
        let around = self.rounds[before..].iter().map(|(_, round)| round);
        let moved = floor::moved(around.clone(), floor::record_size(append_bytes));
        let floor = Floor::of(around);
        Ok(self.measured(round, load, work, &floor, moved))
    }

    fn floor(&mut self, wanted: Wanted) -> Result<(), String> {
        let sizes = floor::sizes(wanted.append_bytes);
        let round = floor::measure(&self.disk, &sizes, wanted.record_bytes, self.effort)?;
        self.rounds.push((wanted, round));
        Ok(())
    }

    fn measured(
        &self,
        round: usize,
        load: &Load,
        work: Work,
        floor: &Floor,
        moved: Option<f64>,
    ) -> Measured {
        let Work { outcome, open_loop, read, label } = work;
        let append_bytes = load.record_bytes * load.batch_records.max(1);
        let appends = outcome.records / load.batch_records.max(1) as u64;
        let facts = &outcome.facts;
        let verdict = Verdict::of(
            facts.class,
            appends,
            outcome.in_flight_max,
            &outcome.counted,
            &floor.cover(),
        );
        let (disqualified, not_judged) = match verdict {
            Verdict::Passed => (None, None),
            Verdict::Disqualified(why) => (Some(why), None),
            Verdict::NotJudged(why) => (None, Some(why)),
        };
        let mut detail: BTreeMap<String, f64> = outcome
            .claims
            .counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count as f64))
            .collect();
        detail.insert("waited_for_room".to_owned(), outcome.waited_for_room as f64);
        detail.insert("trimmed".to_owned(), outcome.trimmed as f64);
        let latency_us = Percentiles::of(&outcome.latency);
        let mut ratio = ratios(&outcome, latency_us, floor, append_bytes);
        let mut floor = floor.figures(append_bytes, moved);
        if let Some(read) = read {
            let raw = f64::midpoint(read.before, read.after);
            let rate = workload::per_second(read.bytes, outcome.elapsed);
            ratio.payload_to_sequential_read = Some(rate / raw);
            floor.sequential_read_mib_per_second = Some(mib(raw));
            // What reads is set against reading alone.
            let moved = read.before.max(read.after) / read.before.min(read.after);
            floor.moved = Some(moved);
            floor.doubtful = moved > floor::MOVED_MAX;
        }
        let line = Measurement {
            bench: self.bench.to_owned(),
            name: self.run.name.clone(),
            round: round as u64,
            engine: facts.engine.clone(),
            version: facts.version.clone(),
            mode: facts.mode.clone(),
            label,
            durability: facts.class,
            media_within_ms: facts.media_within_ms,
            record_bytes: load.record_bytes as u64,
            batch_records: load.batch_records.max(1) as u64,
            producers: load.producers as u64,
            outstanding: load.outstanding as u64,
            shards: facts.shards,
            dir: self.dir.display().to_string(),
            device: self.place.device.clone(),
            file_system: self.place.file_system.clone(),
            io: facts.io.clone(),
            direct: facts.direct,
            primitive: facts.primitive.clone(),
            open_loop,
            records: outcome.records,
            seconds: outcome.elapsed.as_secs_f64(),
            records_per_second: outcome.records_per_second(),
            payload_mib_per_second: mib(outcome.payload_per_second()),
            latency_us,
            flush_us: Percentiles::of(&outcome.claims.flush_latency),
            flushes: outcome.counted.flushes,
            flushes_claimed: outcome.claims.flushes,
            device_bytes: outcome.counted.bytes_written,
            device_bytes_claimed: outcome.claims.device_bytes,
            device_bytes_read: outcome.counted.bytes_read,
            payload_bytes: outcome.payload_bytes,
            cpu_seconds: outcome.counted.cpu.as_secs_f64(),
            floor,
            ratio,
            disqualified,
            not_judged,
            ended_early: outcome.ended_early.clone(),
            detail,
            notes: facts.notes.clone(),
            latency_hdr: encode(&outcome.latency),
            flush_hdr: encode(&outcome.claims.flush_latency),
        };
        Measured { line, latency: outcome.latency, flush: outcome.claims.flush_latency }
    }
}

fn ratios(outcome: &Outcome, latency: Percentiles, floor: &Floor, append_bytes: usize) -> Ratios {
    let flushed = outcome.facts.class == Class::Media;
    let figures = floor.figures(append_bytes, None);
    let by = |value: Option<f64>, floor: Option<f64>| Some(value? / floor?).filter(|_| flushed);
    let bare = figures.better_us.p50;
    let rate = outcome.records_per_second();
    let of_records = |value: f64| (outcome.records > 0).then_some(value);
    Ratios {
        p50_to_floor: by(latency.p50, bare),
        p99_9_to_floor: by(latency.p99_9, figures.better_us.p99_9),
        p99_9_to_floor_p50: by(latency.p99_9, bare),
        records_per_floor_commit: bare.map(|us| rate * us / 1e6),
        payload_to_sequential_write: floor
            .sequential_write
            .map(|write| outcome.payload_per_second() / write),
        payload_to_sequential_read: None,
        records_to_copy_crc32: floor.copied.map(|copied| rate / copied),
        device_to_payload: outcome
            .counted
            .bytes_written
            .filter(|_| outcome.payload_bytes > 0)
            .map(|bytes| bytes as f64 / outcome.payload_bytes as f64),
        cpu_seconds_per_million: of_records(
            outcome.counted.cpu.as_secs_f64() * 1e6 / outcome.records.max(1) as f64,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::{Facts, Producer, Refusal};
    use crate::report::Out;
    use crate::summary::Summary;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    /// Says that every record is on the media, and keeps none.
    struct Liar;

    impl Contender for Liar {
        type Producer = Self;

        fn facts(&self) -> Facts {
            Facts::new("liar", Some("1.0"), "synced", Class::Media)
        }

        fn producer(&self, _number: usize) -> Result<Self, String> {
            Ok(Self)
        }
    }

    impl Producer for Liar {
        type Ticket = ();

        fn submit(&mut self, _records: &[Vec<u8>], _at_most: Duration) -> Result<(), Refusal> {
            Ok(())
        }

        fn wait(&mut self, (): ()) -> Result<(), String> {
            Ok(())
        }
    }

    #[test]
    fn a_lie_is_told_in_the_line_and_in_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let json = tempfile::NamedTempFile::new().unwrap();
        let run = Line::parse_from(["x", "--seconds", "0.2"]).run;
        let mut bench = Bench::new(&run, "compare", dir.path()).unwrap();
        let load = bench.load(256, 4, 1);
        let measured = bench.measure(1, &load, |_| Ok(Liar)).unwrap();
        if let Some(why) = &measured.line.not_judged {
            eprintln!("SKIPPED a_lie_is_told_in_the_line_and_in_the_table: {why}");
            return;
        }
        let why = measured.line.disqualified.clone().unwrap();
        assert!(why.starts_with("acknowledged without flush"), "{why}");
        let mut out = Out::new(Some(json.path())).unwrap();
        let mut summary = Summary::default();
        summary.take("liar", Ok(measured), &mut out).unwrap();
        assert!(summary.tables("engine").contains("DISQUALIFIED"));
        assert!(summary.notes(None).contains("liar: DISQUALIFIED: acknowledged without flush"));
        let line = std::fs::read_to_string(json.path()).unwrap();
        assert!(line.contains("\"disqualified\":\"acknowledged without flush"), "{line}");
    }

    #[test]
    fn the_round_after_one_is_the_round_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let run = Line::parse_from(["x", "--seconds", "0.05"]).run;
        let mut bench = Bench::new(&run, "compare", dir.path()).unwrap();
        let load = bench.load(256, 1, 1);
        for rounds in [2, 3, 4] {
            bench.measure(1, &load, |_| Ok(Liar)).unwrap();
            assert_eq!(bench.rounds().len(), rounds);
        }
        // Another size has a floor of its own.
        let larger = bench.load(5000, 1, 1);
        bench.measure(1, &larger, |_| Ok(Liar)).unwrap();
        assert_eq!(bench.rounds().len(), 6);
        // What failed leaves no floor for what comes next.
        assert!(bench.measure(1, &larger, |_| Err::<Liar, _>("no".to_owned())).is_err());
        bench.measure(1, &larger, |_| Ok(Liar)).unwrap();
        assert_eq!(bench.rounds().len(), 8);
    }
}
