//! What the disk does without a log: the floor that every figure is seen against.
//!
//! The measuring itself is the disk crate's. This module decides what is measured and for how
//! long, keeps the rounds of one run apart, and says how far they drifted. A floor is only worth
//! something beside figures of the same minutes: hosts are noisy.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bare::BareDisk;
use crate::percentile::{Drift, new_histogram, percentile_ns, us_from_ns};

/// What a commit is rounded up to.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// How long one round measures each thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// For each primitive at each size.
    pub(crate) commits: Duration,
    /// For the sequential write.
    pub(crate) sequential: Duration,
}

impl Effort {
    /// Enough for a thousand commits on a disk with 0.2 ms; 2 s at most for a round of two sizes.
    pub(crate) const USUAL: Self =
        Self { commits: Duration::from_millis(250), sequential: Duration::from_millis(300) };

    /// The same, but nothing takes longer than `time`.
    pub(crate) fn at_most(self, time: Duration) -> Self {
        Self { commits: self.commits.min(time), sequential: self.sequential.min(time) }
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
}

/// One round: everything measured once, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    pub(crate) commits: Vec<CommitFloor>,
    /// Bytes per second of a sequential write; `None` where only commits were measured.
    pub(crate) sequential_write: Option<f64>,
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

/// Measures one round.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn measure(disk: &BareDisk, sizes: &[usize], effort: Effort) -> Result<Round, String> {
    let commits = measure_commits(disk, sizes, effort)?;
    Ok(Round { sequential_write: Some(disk.sequential_write(effort.sequential)?), ..commits })
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
            let mut latency = new_histogram();
            for ns in disk.commits(primitive, bytes, effort.commits)? {
                latency.saturating_record(ns);
            }
            commits.push(CommitFloor { primitive, bytes, latency });
        }
    }
    Ok(Round { commits, sequential_write: None })
}

/// Several rounds taken together.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    commits: Vec<CommitFloor>,
    /// Median of the rounds.
    pub(crate) sequential_write: Option<f64>,
}

impl Floor {
    /// Merges the rounds.
    pub(crate) fn of<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Self {
        let mut commits: Vec<CommitFloor> = Vec::new();
        let mut rates = Vec::new();
        for round in rounds {
            rates.extend(round.sequential_write);
            for one in &round.commits {
                let same =
                    |c: &&mut CommitFloor| c.primitive == one.primitive && c.bytes == one.bytes;
                match commits.iter_mut().find(same) {
                    // Both have the same bounds, so that adding cannot fail.
                    Some(merged) => merged.latency.add(&one.latency).unwrap_or_default(),
                    None => commits.push(one.clone()),
                }
            }
        }
        Self { commits, sequential_write: Drift::of(&rates).map(|drift| drift.median) }
    }

    /// Median of one primitive at one size in ns; `None` with too few samples.
    pub(crate) fn p50_ns(&self, primitive: Primitive, bytes: usize) -> Option<u64> {
        let found = self.commits.iter().find(|c| c.primitive == primitive && c.bytes == bytes)?;
        percentile_ns(&found.latency, 500)
    }

    /// The better primitive at this size, and its median in ns.
    pub(crate) fn best_ns(&self, bytes: usize) -> Option<(Primitive, u64)> {
        Primitive::ALL
            .into_iter()
            .filter_map(|primitive| Some((primitive, self.p50_ns(primitive, bytes)?)))
            .min_by_key(|(_, ns)| *ns)
    }

    /// For the report: everything, size by size.
    pub(crate) fn commits(&self) -> &[CommitFloor] {
        &self.commits
    }

    /// For machines.
    pub(crate) fn json(&self, record_bytes: usize) -> FloorJson {
        let bytes = record_size(record_bytes);
        let p50 = |primitive, bytes| self.p50_ns(primitive, bytes).map(us_from_ns);
        FloorJson {
            fdatasync_4k_p50_us: p50(Primitive::Fdatasync, BLOCK_BYTES),
            dsync_4k_p50_us: p50(Primitive::Dsync, BLOCK_BYTES),
            record_blocks_bytes: bytes,
            fdatasync_record_p50_us: p50(Primitive::Fdatasync, bytes),
            dsync_record_p50_us: p50(Primitive::Dsync, bytes),
            sequential_write_mib_per_second: self.sequential_write.map(mib),
        }
    }
}

/// The floor of one mode, for machines.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FloorJson {
    fdatasync_4k_p50_us: Option<f64>,
    dsync_4k_p50_us: Option<f64>,
    record_blocks_bytes: usize,
    fdatasync_record_p50_us: Option<f64>,
    dsync_record_p50_us: Option<f64>,
    sequential_write_mib_per_second: Option<f64>,
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
                CommitFloor { primitive, bytes: BLOCK_BYTES, latency }
            })
            .collect();
        Round { commits, sequential_write: Some(rate) }
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
