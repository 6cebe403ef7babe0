//! What the disk does without a log: the floor that every figure is seen against.
//!
//! The measuring itself is the disk crate's. This module decides what is measured and for how
//! long, keeps the rounds of one run apart, and says how far they drifted. A floor is only worth
//! something beside figures of the same minutes: hosts are noisy.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bare::{self, BareDisk};
use crate::counters::{Counted, Cover};
use crate::environment::interrupted;
use crate::measurement::FloorFigures;
use crate::percentile::{Drift, Percentiles, new_histogram, percentile_ns, us_from_ns};

/// Floors before and after a measurement that lie further apart than this, the larger by the
/// smaller, make it doubtful: its ratios prove nothing.
pub const MOVED_MAX: f64 = 1.5;
/// A slow disk gets so many times its time, until there are enough commits for a median.
const TIMES_MAX: usize = 8;

/// What a commit is rounded up to.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// How long one round measures each thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// For each primitive at each size.
    pub(crate) commits: Duration,
    /// For the sequential write.
    pub(crate) sequential: Duration,
    /// For copying with a checksum.
    pub(crate) copy: Duration,
}

impl Effort {
    /// Enough for a thousand commits on a disk with 0.2 ms; 2 s at most for a round of two sizes.
    pub(crate) const USUAL: Self = Self {
        commits: Duration::from_millis(250),
        sequential: Duration::from_millis(300),
        copy: Duration::from_millis(50),
    };

    /// The same, but nothing takes longer than `time`.
    pub(crate) fn at_most(self, time: Duration) -> Self {
        Self {
            commits: self.commits.min(time),
            sequential: self.sequential.min(time),
            copy: self.copy.min(time),
        }
    }
}

/// The bare primitives, one commit at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primitive {
    /// pwrite, then fdatasync.
    Fdatasync,
    /// pwritev2 with RWF_DSYNC.
    Dsync,
}

impl Primitive {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::Fdatasync, Self::Dsync];

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fdatasync => "pwrite + fdatasync",
            Self::Dsync => "RWF_DSYNC",
        }
    }
}

/// One primitive at one size.
#[derive(Clone, Debug)]
pub(crate) struct CommitFloor {
    pub(crate) primitive: Primitive,
    pub(crate) bytes: usize,
    /// In ns.
    pub(crate) latency: Histogram<u64>,
    /// What the device did meanwhile.
    pub(crate) counted: Counted,
}

/// One round: everything measured once, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) commits: Vec<CommitFloor>,
    /// Bytes per second of a sequential write; `None` where only commits were measured.
    pub(crate) sequential_write: Option<f64>,
    /// Records per second copied with a checksum; `None` likewise.
    pub(crate) copied: Option<f64>,
}

/// The sizes to measure for records of `record_bytes`: one block, and the record in whole blocks.
pub(crate) fn sizes(record_bytes: usize) -> Vec<usize> {
    let record = record_size(record_bytes);
    if record == BLOCK_BYTES { vec![BLOCK_BYTES] } else { vec![BLOCK_BYTES, record] }
}

/// A record in whole blocks.
pub(crate) fn record_size(record_bytes: usize) -> usize {
    record_bytes.max(1).next_multiple_of(BLOCK_BYTES)
}

/// Measures one round, for records of `record_bytes`.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn measure(
    disk: &BareDisk,
    sizes: &[usize],
    record_bytes: usize,
    effort: Effort,
) -> Result<Round, String> {
    let commits = measure_commits(disk, sizes, effort)?;
    Ok(Round {
        sequential_write: Some(disk.sequential_write(effort.sequential)?),
        copied: Some(bare::copy_and_checksum(record_bytes, effort.copy)),
        ..commits
    })
}

/// A round of commits only.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn measure_commits(
    disk: &BareDisk,
    sizes: &[usize],
    effort: Effort,
) -> Result<Round, String> {
    let mut commits = Vec::new();
    for &bytes in sizes {
        for primitive in Primitive::ALL {
            commits.push(measure_one(disk, primitive, bytes, effort)?);
        }
    }
    Ok(Round { commits, sequential_write: None, copied: None })
}

fn measure_one(
    disk: &BareDisk,
    primitive: Primitive,
    bytes: usize,
    effort: Effort,
) -> Result<CommitFloor, String> {
    let (mut latency, mut counted) = (new_histogram(), Counted::default());
    for _ in 0..TIMES_MAX {
        let done = disk.commits(primitive, bytes, effort.commits)?;
        done.latencies_ns.iter().for_each(|ns| latency.saturating_record(*ns));
        counted = counted.and(&done.counted, latency.len() == done.latencies_ns.len() as u64);
        // Short rounds belong to those who merge several of them.
        let enough = percentile_ns(&latency, 500).is_some() || effort.commits < SLOW_DISK_FROM;
        if enough || interrupted() {
            break;
        }
    }
    Ok(CommitFloor { primitive, bytes, latency, counted })
}

/// From this effort on, a disk with too few commits for a median gets more time.
const SLOW_DISK_FROM: Duration = Duration::from_millis(50);

/// Several rounds taken together.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    commits: Vec<CommitFloor>,
    /// Median of the rounds.
    pub(crate) sequential_write: Option<f64>,
    /// Median of the rounds.
    pub(crate) copied: Option<f64>,
}

impl Floor {
    /// Merges the rounds.
    pub(crate) fn of<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Self {
        let mut commits: Vec<CommitFloor> = Vec::new();
        let (mut rates, mut copied) = (Vec::new(), Vec::new());
        for round in rounds {
            rates.extend(round.sequential_write);
            copied.extend(round.copied);
            for one in &round.commits {
                let same =
                    |c: &&mut CommitFloor| c.primitive == one.primitive && c.bytes == one.bytes;
                match commits.iter_mut().find(same) {
                    // Both have the same bounds, so that adding cannot fail.
                    Some(merged) => {
                        merged.latency.add(&one.latency).unwrap_or_default();
                        merged.counted = merged.counted.and(&one.counted, false);
                    }
                    None => commits.push(one.clone()),
                }
            }
        }
        let median = |values: &[f64]| Drift::of(values).map(|drift| drift.median);
        Self { commits, sequential_write: median(&rates), copied: median(&copied) }
    }

    fn one(&self, primitive: Primitive, bytes: usize) -> Option<&CommitFloor> {
        self.commits.iter().find(|c| c.primitive == primitive && c.bytes == bytes)
    }

    /// Median of one primitive at one size in ns; `None` with too few samples.
    pub(crate) fn p50_ns(&self, primitive: Primitive, bytes: usize) -> Option<u64> {
        percentile_ns(&self.one(primitive, bytes)?.latency, 500)
    }

    /// What makes a write durable here, as far as the commits have shown it.
    pub(crate) fn cover(&self) -> Cover {
        let shown = |primitive| {
            self.one(primitive, BLOCK_BYTES)
                .map_or((0, Counted::default()), |one| (one.latency.len(), one.counted))
        };
        Cover::of(shown(Primitive::Fdatasync), shown(Primitive::Dsync))
    }

    /// The better primitive at this size, and its median in ns.
    pub(crate) fn best_ns(&self, bytes: usize) -> Option<(Primitive, u64)> {
        Primitive::ALL
            .into_iter()
            .filter_map(|primitive| Some((primitive, self.p50_ns(primitive, bytes)?)))
            .min_by_key(|(_, ns)| *ns)
    }

    /// The primitive with the better 99.9th percentile at this size, and that percentile in ns.
    pub(crate) fn best_tail_ns(&self, bytes: usize) -> Option<(Primitive, u64)> {
        let tail = |primitive| percentile_ns(&self.one(primitive, bytes)?.latency, 999);
        Primitive::ALL
            .into_iter()
            .filter_map(|primitive| Some((primitive, tail(primitive)?)))
            .min_by_key(|(_, ns)| *ns)
    }

    /// For the report: everything, size by size.
    pub(crate) fn commits(&self) -> &[CommitFloor] {
        &self.commits
    }

    /// For machines: of appends of `append_bytes`.
    pub(crate) fn figures(&self, append_bytes: usize, moved: Option<f64>) -> FloorFigures {
        let bytes = record_size(append_bytes);
        let p50 = |primitive, bytes| self.p50_ns(primitive, bytes).map(us_from_ns);
        let better = self.best_ns(bytes).map(|(primitive, _)| primitive);
        FloorFigures {
            fdatasync_4k_p50_us: p50(Primitive::Fdatasync, BLOCK_BYTES),
            dsync_4k_p50_us: p50(Primitive::Dsync, BLOCK_BYTES),
            record_blocks_bytes: bytes as u64,
            fdatasync_record_p50_us: p50(Primitive::Fdatasync, bytes),
            dsync_record_p50_us: p50(Primitive::Dsync, bytes),
            better: better.map(|primitive| primitive.name().to_owned()),
            better_us: better
                .and_then(|primitive| self.one(primitive, bytes))
                .map_or_else(Percentiles::default, |one| Percentiles::of(&one.latency)),
            sequential_write_mib_per_second: self.sequential_write.map(mib),
            sequential_read_mib_per_second: None,
            copy_crc32_records_per_second: self.copied,
            moved,
            doubtful: moved.is_some_and(|moved| moved > MOVED_MAX),
        }
    }
}

/// How far the better primitive's median at `bytes` moved over the rounds: the larger by the
/// smaller.
pub(crate) fn moved<'a>(rounds: impl IntoIterator<Item = &'a Round>, bytes: usize) -> Option<f64> {
    let medians: Vec<f64> = rounds
        .into_iter()
        .filter_map(|round| Some(Floor::of([round]).best_ns(bytes)?.1 as f64))
        .collect();
    Drift::of(&medians).filter(|_| medians.len() > 1).map(|drift| drift.max / drift.min)
}

/// How far the median in µs of the better primitive at `bytes`, and the sequential write in MiB/s,
/// moved over the rounds. Rounds with too few samples for a median are left out.
pub(crate) fn drift(rounds: &[Round], bytes: usize) -> (Option<Drift>, Option<Drift>) {
    let commits: Vec<f64> = rounds
        .iter()
        .filter_map(|round| Some(us_from_ns(Floor::of([round]).best_ns(bytes)?.1)))
        .collect();
    let writes: Vec<f64> =
        rounds.iter().filter_map(|round| round.sequential_write).map(mib).collect();
    (Drift::of(&commits), Drift::of(&writes))
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(fdatasync_ns: u64, dsync_ns: u64, samples: u64, rate: f64) -> Round {
        let commits = [(Primitive::Fdatasync, fdatasync_ns), (Primitive::Dsync, dsync_ns)]
            .into_iter()
            .map(|(primitive, ns)| {
                let mut latency = new_histogram();
                latency.saturating_record_n(ns, samples);
                CommitFloor { primitive, bytes: BLOCK_BYTES, latency, counted: Counted::default() }
            })
            .collect();
        Round { commits, sequential_write: Some(rate), copied: Some(rate / 100.0) }
    }

    #[test]
    fn the_better_primitive_is_found_over_all_rounds() {
        let rounds = [round(1000, 900, 100, 3e9), round(1000, 1900, 150, 1e9)];
        let floor = Floor::of(&rounds);
        assert_eq!(floor.best_ns(BLOCK_BYTES), Some((Primitive::Fdatasync, 1000)));
        assert_eq!(floor.p50_ns(Primitive::Dsync, BLOCK_BYTES), Some(1900));
        assert_eq!(floor.sequential_write, Some(2e9));
        assert_eq!(floor.best_ns(8192), None);
    }

    #[test]
    fn a_floor_of_few_samples_is_none() {
        assert_eq!(Floor::of(&[round(1000, 900, 199, 3e9)]).best_ns(BLOCK_BYTES), None);
        assert!(Floor::of(&[round(1000, 900, 200, 3e9)]).best_ns(BLOCK_BYTES).is_some());
    }

    #[test]
    fn drift_compares_the_better_primitive_of_each_round() {
        let rounds = [round(1000, 800, 200, 3e9), round(1200, 1600, 200, 2e9)];
        let (commits, writes) = drift(&rounds, BLOCK_BYTES);
        let commits = commits.unwrap();
        assert!((commits.last_to_first - 1.5).abs() < 1e-9, "{commits:?}");
        assert!(writes.unwrap().last_to_first < 1.0);
        assert_eq!(drift(&rounds, 8192).0, None);
        assert_eq!(moved(&rounds, BLOCK_BYTES), Some(1.5));
        assert_eq!(moved(&rounds[..1], BLOCK_BYTES), None);
        let floor = Floor::of(&rounds);
        assert!(!floor.figures(1, Some(MOVED_MAX)).doubtful);
        assert!(floor.figures(1, Some(MOVED_MAX + 0.1)).doubtful);
        assert_eq!(drift(&[round(1000, 800, 199, 3e9)], BLOCK_BYTES).0, None);
    }

    #[test]
    fn sizes_are_whole_blocks_and_named_once() {
        assert_eq!(sizes(256), [4096]);
        assert_eq!(sizes(0), [4096]);
        assert_eq!(sizes(4096), [4096]);
        assert_eq!(sizes(4097), [4096, 8192]);
    }
}
