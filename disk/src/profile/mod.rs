//! The profile of a disk: what was measured in a directory, what the system says of the device
//! below, the class that follows, and the settings that suit it, each with its reason in words.
//!
//! `measure` measures, `judge` derives; the second is pure, so a stored measurement can be judged
//! again. Nothing here knows what a log is. The class is one of behaviour, not of hardware: a
//! virtual disk may answer like any of them, and an NVMe drive without power-loss protection
//! answers a flush like a SATA one.

mod judge;
mod measure;

use std::fmt;

use crate::any::AnyDisk;
use crate::device;
use crate::dir::Dir;
use crate::op::{Disk, DiskError};
use crate::options::{IoKind, Primitive};

pub use judge::{COMMIT_BYTES_DEFAULT, COMMITS_IN_FLIGHT_DEFAULT, commits_in_flight_unmeasured};
pub use measure::PROBE_FILE;

/// How much time a profile may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// About 50 ms on a disk that flushes within 0.1 ms, below 1 s on one that takes 10 ms. What
    /// there is no time for is left out.
    Quick,
    /// At most about 5 s.
    Full,
}

/// How long something took, over all samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Median in nanoseconds, of the calmest stretch of some eight samples: what else the machine
    /// does only ever adds.
    pub p50_ns: u64,
    /// 99th percentile of all samples in nanoseconds; of fewer than 100 samples, the largest.
    pub p99_ns: u64,
    /// How many were measured; 0 when there was no time, and then the others mean nothing.
    pub samples: u32,
}

/// Durable commits of one size, one at a time, with the better primitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeFigure {
    /// Bytes of each.
    pub bytes: u32,
    /// How long each took.
    pub latency: Latency,
}

/// Durable commits of 256 KiB, several in flight, each at a place of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthFigure {
    /// How many were in flight.
    pub depth: u32,
    /// Bytes made durable in a second.
    pub bytes_per_second: u64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFigures {
    /// How much time was given.
    pub effort: Effort,
    /// A durable write of 4 KiB with RWF_DSYNC.
    pub dsync: Latency,
    /// A durable write of 4 KiB with a linked (or following) fdatasync; took turns with `dsync`.
    pub linked_sync: Latency,
    /// A write of 4 KiB that nothing flushes.
    pub write: Latency,
    /// By growing size; empty when there was no time.
    pub sizes: Vec<SizeFigure>,
    /// By growing depth; empty when there was no time.
    pub depths: Vec<DepthFigure>,
}

/// What the system says of the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlace {
    /// The file system's name, or its magic number in hexadecimal.
    pub file_system: String,
    /// Number of the device ("major, minor"). File systems without a device of their own (btrfs,
    /// tmpfs, network) have major 0 and another minor after each mount.
    pub device: (u32, u32),
    /// The kernel's name of the device, where it is one it knows.
    pub device_name: Option<String>,
    /// Whether the kernel takes it for a rotating disk. Many virtual disks say so.
    pub rotational: Option<bool>,
    /// Whether the kernel takes the device to have a volatile write cache ("write back").
    pub write_back: Option<bool>,
    /// Whether the device's queues can be polled, so that RWF_DSYNC with IOPOLL would be a third
    /// primitive. Told only; it is not measured.
    pub polled: Option<bool>,
    /// Size of a physical block in bytes.
    pub physical_block_bytes: Option<u32>,
    /// The larger of the physical block and what direct I/O needs.
    pub align_bytes: u32,
    /// Whether writes bypass the page cache.
    pub direct: bool,
    /// Whether the memory of transfers was advised to use huge pages.
    pub huge_pages: bool,
    /// Whether it was measured through io_uring; else with blocking calls.
    pub uring: bool,
}

/// How a disk answers. A class of behaviour, not of hardware; `docs/operations.md` has the
/// thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskClass {
    /// Memory: tmpfs, ramfs. Nothing survives.
    Memory,
    /// Flushes within 0.3 ms: NVMe with power-loss protection, or a cache in front that counts as
    /// durable.
    Nvme,
    /// Flushes within 5 ms: flash that empties its cache at each flush.
    Ssd,
    /// Longer: something turns.
    Hdd,
    /// A network file system, or a device on which the write itself already takes most of the
    /// time of a flush.
    Network,
}

impl DiskClass {
    /// "memory", "NVMe", "SSD", "HDD" or "network".
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Nvme => "NVMe",
            Self::Ssd => "SSD",
            Self::Hdd => "HDD",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for DiskClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// What.
    pub value: T,
    /// The reason, in words.
    pub why: String,
}

/// What follows from a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskProfile {
    /// Where it was measured.
    pub place: DiskPlace,
    /// What was measured.
    pub figures: DiskFigures,
    /// How the disk answers.
    pub class: Choice<DiskClass>,
    /// How a commit is made durable.
    pub primitive: Choice<Primitive>,
    /// How many commits are in flight at most.
    pub commits_in_flight: Choice<usize>,
    /// How many bytes a commit carries at most.
    pub commit_bytes: Choice<usize>,
    /// Up to how many bytes a commit takes about as long as the smallest.
    pub flat_bytes: Choice<usize>,
    /// To how many bytes a commit is padded.
    pub pad_bytes: Choice<usize>,
}

impl DiskProfile {
    /// Judges a measurement: the same one always leads to the same profile.
    pub fn new(place: DiskPlace, figures: DiskFigures) -> Self {
        let class = judge::class(&place, &figures);
        let primitive = judge::primitive(&place, &figures);
        let commits_in_flight = judge::commits_in_flight(&place, &figures);
        let commit_bytes = judge::commit_bytes(&figures);
        let flat_bytes = judge::flat_bytes(&figures);
        let pad_bytes = judge::pad_bytes(&place);
        Self {
            place,
            figures,
            class,
            primitive,
            commits_in_flight,
            commit_bytes,
            flat_bytes,
            pad_bytes,
        }
    }

    /// Why the profile does not hold for this directory (another file system or device), in words;
    /// `None` when it does.
    ///
    /// Fails when the directory cannot be looked at.
    pub fn differs_from(&self, dir: &Dir) -> Result<Option<String>, DiskError> {
        let (file_system, device) = (dir.file_system()?, device::device_number(dir)?);
        Ok(self.place.differs(&file_system, device))
    }
}

impl DiskPlace {
    fn differs(&self, file_system: &str, device: (u32, u32)) -> Option<String> {
        if self.file_system != file_system {
            return Some(format!("it was measured on {}, this is {file_system}", self.file_system));
        }
        // Without a device of its own, a file system gets a new number at each mount.
        let has_device = self.device.0 != 0 || device.0 != 0;
        (has_device && self.device != device).then(|| {
            let text = |(major, minor)| format!("{major}:{minor}");
            format!("it was measured on device {}, this is {}", text(self.device), text(device))
        })
    }

    fn look(dir: &Dir, disk: &AnyDisk, huge_pages: bool) -> Result<Self, DiskError> {
        let facts = disk.facts();
        let flag = |name: &str| match device::queue_setting(dir, name)?.as_str() {
            "0" | "write through" => Some(false),
            "1" | "write back" => Some(true),
            _ => None,
        };
        Ok(Self {
            file_system: facts.file_system.clone(),
            device: device::device_number(dir)?,
            device_name: device::device_name(dir),
            rotational: flag("rotational"),
            write_back: flag("write_cache"),
            polled: flag("io_poll"),
            physical_block_bytes: device::physical_block_bytes(dir),
            align_bytes: facts.align_bytes,
            direct: facts.direct,
            huge_pages,
            uring: matches!(disk, AnyDisk::Uring(_)),
        })
    }
}

/// Measures on a small prewritten file in `dir`, which is removed again, and judges. A file that an
/// interrupted one has left is removed, too.
///
/// Fails when the directory is not writable, has no room for a few MiB, or the device fails.
pub fn profile_disk(dir: &Dir, kind: IoKind, effort: Effort) -> Result<DiskProfile, DiskError> {
    profile_disk_until(dir, kind, effort, &|| false)
}

/// The same, given up (with what has been measured until then) as soon as `stop` says so; it is
/// asked between any two commits.
///
/// Fails like [`profile_disk`].
pub fn profile_disk_until(
    dir: &Dir,
    kind: IoKind,
    effort: Effort,
    stop: &dyn Fn() -> bool,
) -> Result<DiskProfile, DiskError> {
    let (place, figures) = measure::measure(dir, kind, effort, stop)?;
    Ok(DiskProfile::new(place, figures))
}

#[cfg(test)]
mod tests;
