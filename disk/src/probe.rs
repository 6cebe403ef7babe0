//! Which commit primitive is faster here: measured, because the ranking inverts between devices.

use std::time::{Duration, Instant};

use crate::any::{AnyDisk, open};
use crate::block::BlockPool;
use crate::dir::Dir;
use crate::op::{Disk, DiskError, DiskErrorKind, Done, FileId, FileName, Flush, Op, Slice, run};
use crate::options::{DiskOptions, IoKind, Primitive};

const ROUNDS: usize = 32;
const WARM_UP: usize = 2;
/// Enough for a first judgement where a commit takes milliseconds.
const ROUNDS_MIN: usize = 3;
const COMMIT_BYTES: usize = 4096;
const FILE_BYTES: u64 = 256 << 10;
/// No further round begins after this long.
const BUDGET: Duration = Duration::from_millis(60);
/// Less of a difference than this, in percent, is noise; then RWF_DSYNC, which costs less CPU.
const NOISE_PERCENT: u64 = 20;

/// What was measured, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitProbe {
    /// The one to use.
    pub better: Primitive,
    /// Median time of a durable write of 4 KiB with RWF_DSYNC, in nanoseconds.
    pub dsync_ns_p50: u64,
    /// The same with a linked (or following) fdatasync.
    pub linked_sync_ns_p50: u64,
    /// How many of each were measured, taking turns.
    pub rounds: usize,
    /// "io_uring" or "blocking".
    pub kind: &'static str,
    /// The reason for the choice, in words.
    pub why: String,
}

/// Measures both primitives, taking turns, on a small prewritten file in `dir`, which is removed
/// again. Takes about 10 ms on a fast device, and well under 100 ms on any that commits within
/// 10 ms.
///
/// Fails when the directory is not writable or the device fails.
pub fn probe_commit(dir: &Dir, kind: IoKind) -> Result<CommitProbe, DiskError> {
    let pool = BlockPool::new(1, COMMIT_BYTES)?;
    let mut options = DiskOptions { pools: vec![pool.clone()], ..DiskOptions::default() };
    let mut dsync = open(dir, None, kind, &options)?;
    options.primitive = Primitive::LinkedSync;
    let mut linked = open(dir, None, kind, &options)?;
    let Some(name) = FileName::new("commit-probe.tmp") else {
        return Err(DiskError::new(DiskErrorKind::Unexpected, "name the probe's file"));
    };
    // One that an interrupted probe has left.
    match run(&mut dsync, Op::Remove { name: name.clone() }).result {
        Ok(_) => {}
        Err(error) if error.kind == DiskErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let create = Op::Create { file: FileId(0), name: name.clone(), bytes: FILE_BYTES };
    run(&mut dsync, create).result?;
    let measured = measure(&mut dsync, &mut linked, &name, &pool);
    let removed = run(&mut dsync, Op::Remove { name }).result;
    let (dsync_ns_p50, linked_sync_ns_p50, rounds) = measured?;
    removed?;
    let file_system = &dsync.facts().file_system;
    let (better, why) = choose(file_system, dsync_ns_p50, linked_sync_ns_p50);
    let kind = dsync.facts().kind;
    Ok(CommitProbe { better, dsync_ns_p50, linked_sync_ns_p50, rounds, kind, why })
}

fn choose(file_system: &str, dsync_ns: u64, linked_ns: u64) -> (Primitive, String) {
    let micros = |ns: u64| format!("{}.{} µs", ns / 1000, ns / 100 % 10);
    let figures = format!("RWF_DSYNC {}, fdatasync {}", micros(dsync_ns), micros(linked_ns));
    if file_system == "btrfs" {
        let why = format!("{figures}; on btrfs one covering fdatasync at a time is best");
        return (Primitive::LinkedSync, why);
    }
    if linked_ns.saturating_mul(100 + NOISE_PERCENT) < dsync_ns.saturating_mul(100) {
        (Primitive::LinkedSync, format!("{figures}; fdatasync is faster"))
    } else {
        (Primitive::Dsync, format!("{figures}; RWF_DSYNC is not slower"))
    }
}

fn measure(
    dsync: &mut AnyDisk,
    linked: &mut AnyDisk,
    name: &FileName,
    pool: &BlockPool,
) -> Result<(u64, u64, usize), DiskError> {
    let open = Op::Open { file: FileId(0), name: name.clone(), write: true };
    run(linked, open).result?;
    let begun = Instant::now();
    let mut samples = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
    for round in 0..WARM_UP + ROUNDS {
        if samples.0.len() >= ROUNDS_MIN && begun.elapsed() > BUDGET {
            break;
        }
        let first = commit(dsync, pool, 2 * round)?;
        let second = commit(linked, pool, 2 * round + 1)?;
        if round >= WARM_UP {
            samples.0.push(first);
            samples.1.push(second);
        }
    }
    let rounds = samples.0.len();
    Ok((median(samples.0), median(samples.1), rounds))
}

/// One durable write; how many nanoseconds it took.
fn commit(disk: &mut AnyDisk, pool: &BlockPool, turn: usize) -> Result<u64, DiskError> {
    let Some(block) = pool.take() else {
        return Err(DiskError::new(DiskErrorKind::Limit, "take a block"));
    };
    let places = FILE_BYTES / COMMIT_BYTES as u64;
    let offset = turn as u64 % places * COMMIT_BYTES as u64;
    let data = vec![Slice { block, len: COMMIT_BYTES }];
    let begun = Instant::now();
    let done = run(disk, Op::Write { file: FileId(0), offset, data, flush: Flush::Own });
    let took = begun.elapsed();
    match done.result? {
        Done::Wrote => Ok(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)),
        _ => Err(DiskError::new(DiskErrorKind::Io, "write the probe's file")),
    }
}

fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_is_chosen_and_a_tie_goes_to_dsync() {
        assert_eq!(choose("ext4", 80_000, 90_000).0, Primitive::Dsync);
        assert_eq!(choose("ext4", 4_000_000, 1_700_000).0, Primitive::LinkedSync);
        assert_eq!(choose("ext4", 100_000, 98_000).0, Primitive::Dsync);
        assert_eq!(choose("btrfs", 80_000, 90_000).0, Primitive::LinkedSync);
        assert!(choose("xfs", 81_234, 90_000).1.contains("81.2 µs"));
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let home = tempfile::TempDir::new().unwrap();
        let dir = Dir::open(home.path()).unwrap();
        // What an interrupted one has left does not disturb it.
        std::fs::write(home.path().join("commit-probe.tmp"), b"x").unwrap();
        let probe = probe_commit(&dir, IoKind::Auto).unwrap();
        println!("{probe:?}");
        assert!(probe.rounds >= ROUNDS_MIN);
        assert!(probe.dsync_ns_p50 > 0 && probe.linked_sync_ns_p50 > 0);
        assert!(dir.is_empty().unwrap());
    }
}
