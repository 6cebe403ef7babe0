//! What really happened: the block device's own counts, and the CPU time of this process.
//!
//! An engine that acknowledges without flushing is fast, and worthless. The device's count of
//! flushes cannot be talked into anything: in a closed loop a flush acknowledges at most what is in
//! flight when it begins, so acknowledgements bound the flushes from below.
//!
//! The counts are of the whole device: other work on it can hide a lie, and never makes one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::environment::block_device;
use crate::measurement::Class;

/// The device below a directory.
#[derive(Clone, Debug)]
pub struct Device {
    /// Counts of the partition, or of the whole disk where there are none.
    own: Option<PathBuf>,
    /// The whole disk, which alone counts flushes.
    disk: Option<PathBuf>,
}

/// A look at the counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    flushes: Option<u64>,
    reads: Option<u64>,
    writes: Option<u64>,
    bytes_written: Option<u64>,
    bytes_read: Option<u64>,
    cpu: Duration,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Flushes that the device has completed.
    pub flushes: Option<u64>,
    /// Reads that it has completed.
    pub reads: Option<u64>,
    /// Writes that it has completed.
    pub writes: Option<u64>,
    /// Bytes that it has written.
    pub bytes_written: Option<u64>,
    /// Bytes that it has read.
    pub bytes_read: Option<u64>,
    /// CPU time of this process, all threads, user and kernel.
    pub cpu: Duration,
}

impl Device {
    /// Finds the block device below `dir`; where there is none, its counts are `None`.
    pub fn of(dir: &Path) -> Self {
        let own = block_device(dir);
        let disk = own.as_ref().map(|path| whole_disk(path));
        Self { own: own.map(|path| path.join("stat")), disk: disk.map(|path| path.join("stat")) }
    }

    /// Reads the counters.
    pub fn look(&self) -> Counters {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        );
        let own = self.own.as_deref().and_then(fields);
        let field = |at: usize| own.as_ref()?.get(at).copied();
        Counters {
            flushes: self.disk.as_deref().and_then(fields).and_then(|all| all.get(15).copied()),
            reads: field(0),
            writes: field(4),
            // Sectors of 512 bytes, whatever the device's own are.
            bytes_written: field(6).map(|sectors| sectors * 512),
            bytes_read: field(2).map(|sectors| sectors * 512),
            cpu,
        }
    }
}

impl Counters {
    /// What happened between an earlier look and this one.
    pub fn since(&self, before: &Self) -> Counted {
        let less = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Counted {
            flushes: less(self.flushes, before.flushes),
            reads: less(self.reads, before.reads),
            writes: less(self.writes, before.writes),
            bytes_written: less(self.bytes_written, before.bytes_written),
            bytes_read: less(self.bytes_read, before.bytes_read),
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

impl Counted {
    /// This and the other together; the other alone where this one is `first`.
    pub(crate) fn and(&self, other: &Self, first: bool) -> Self {
        if first {
            return *other;
        }
        let sum = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
        Self {
            flushes: sum(self.flushes, other.flushes),
            reads: sum(self.reads, other.reads),
            writes: sum(self.writes, other.writes),
            bytes_written: sum(self.bytes_written, other.bytes_written),
            bytes_read: sum(self.bytes_read, other.bytes_read),
            cpu: self.cpu + other.cpu,
        }
    }
}

/// The disk that a partition is of; a disk itself.
pub(crate) fn whole_disk(device: &Path) -> PathBuf {
    match device.parent() {
        Some(parent) if device.join("partition").exists() => parent.to_owned(),
        _ => device.to_owned(),
    }
}

fn fields(stat: &Path) -> Option<Vec<u64>> {
    let text = fs::read_to_string(stat).ok()?;
    Some(text.split_whitespace().filter_map(|field| field.parse().ok()).collect())
}

/// What makes a write durable on a device, as the floor has shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// Nothing but a flush, and the device counts them.
    Flushes,
    /// A flush, or the write itself (FUA).
    FlushesOrWrites,
    /// The device does not count its flushes, or there is none: why, in words.
    NotCounted(String),
}

impl Cover {
    /// What so many bare commits, one after the other, have shown: those with fdatasync and those
    /// with RWF_DSYNC.
    pub fn of(fdatasync: (u64, Counted), dsync: (u64, Counted)) -> Self {
        // One in ten may fall outside of the looks.
        let counts = |commits: u64, counted: Option<u64>| {
            commits > 0 && counted.is_some_and(|counted| counted * 10 >= commits * 9)
        };
        if fdatasync.1.flushes.is_none() {
            Self::NotCounted("no block device is known below this directory".to_owned())
        } else if !counts(fdatasync.0, fdatasync.1.flushes) {
            Self::NotCounted("the device counts no flush even for bare fdatasync".to_owned())
        } else if counts(dsync.0, dsync.1.flushes) {
            Self::Flushes
        } else {
            Self::FlushesOrWrites
        }
    }
}

/// Whether what is claimed can be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The device has flushed often enough, or nothing of that kind is claimed.
    Passed,
    /// It has not: why, in words.
    Disqualified(String),
    /// It could not be found out: why, in words.
    NotJudged(String),
}

/// Flushes at the edges of the window that may not have been counted.
const AT_THE_EDGES: u64 = 2;

impl Verdict {
    /// Judges a window in which so many appends were acknowledged, never more than `in_flight_max` of
    /// them being in flight at one time.
    pub fn of(
        class: Class,
        appends: u64,
        in_flight_max: u64,
        counted: &Counted,
        cover: &Cover,
    ) -> Self {
        if class != Class::Media {
            return Self::Passed;
        }
        let covering = match (cover, counted.flushes) {
            (Cover::NotCounted(why), _) => return Self::NotJudged(why.clone()),
            (_, None) => return Self::NotJudged("the device has stopped counting".to_owned()),
            (Cover::Flushes, Some(flushes)) => flushes,
            (Cover::FlushesOrWrites, Some(flushes)) => flushes + counted.writes.unwrap_or(0),
        };
        let most = (covering + AT_THE_EDGES).saturating_mul(in_flight_max);
        if appends <= most {
            return Self::Passed;
        }
        let kind = if *cover == Cover::Flushes { "flushes" } else { "flushes and writes" };
        Self::Disqualified(format!(
            "acknowledged without flush: {appends} appends, at most {in_flight_max} in flight, but \
             the device has made {covering} {kind}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(flushes: Option<u64>, writes: u64) -> Counted {
        Counted { flushes, writes: Some(writes), ..Counted::default() }
    }

    #[test]
    fn what_the_floor_shows_decides_what_covers() {
        let flushed = (100, counted(Some(100), 100));
        assert_eq!(Cover::of(flushed, flushed), Cover::Flushes);
        assert_eq!(Cover::of(flushed, (100, counted(Some(3), 100))), Cover::FlushesOrWrites);
        let none = (100, counted(Some(0), 100));
        assert!(matches!(Cover::of(none, none), Cover::NotCounted(_)));
        let unknown = (100, counted(None, 0));
        assert!(matches!(Cover::of(unknown, flushed), Cover::NotCounted(_)));
    }

    #[test]
    fn acknowledgements_bound_the_flushes_from_below() {
        let judge = |appends, in_flight, flushes, cover: &Cover| {
            Verdict::of(Class::Media, appends, in_flight, &counted(Some(flushes), 500), cover)
        };
        assert_eq!(judge(100, 1, 100, &Cover::Flushes), Verdict::Passed);
        assert_eq!(judge(6_400, 64, 100, &Cover::Flushes), Verdict::Passed);
        assert!(matches!(judge(103, 1, 100, &Cover::Flushes), Verdict::Disqualified(_)));
        assert!(matches!(judge(6_529, 64, 100, &Cover::Flushes), Verdict::Disqualified(_)));
        assert_eq!(judge(602, 1, 100, &Cover::FlushesOrWrites), Verdict::Passed);
        assert!(matches!(judge(603, 1, 100, &Cover::FlushesOrWrites), Verdict::Disqualified(_)));
        let unknown = Cover::NotCounted("why".to_owned());
        assert_eq!(judge(103, 1, 0, &unknown), Verdict::NotJudged("why".to_owned()));
        // Who promises less owes no flush.
        let none = counted(Some(0), 0);
        for class in [Class::Memory, Class::PageCache, Class::DeviceCache] {
            assert_eq!(Verdict::of(class, 1_000, 1, &none, &Cover::Flushes), Verdict::Passed);
        }
    }

    #[test]
    fn time_of_the_processor_goes_forward() {
        let device = Device::of(Path::new("/"));
        let before = device.look();
        let mut sum = 0_u64;
        while device.look().since(&before).cpu < Duration::from_millis(1) {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
