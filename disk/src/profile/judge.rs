//! From figures to decisions: pure functions, each with its rule in its text.

use super::{Choice, DepthFigure, DiskClass, DiskFigures, DiskPlace, Latency};
use crate::options::Primitive;

/// Commits in flight where nothing was measured: the second one keeps the disk busy while the
/// first one's end is handled.
pub const COMMITS_IN_FLIGHT_DEFAULT: usize = 2;
/// Bytes of a commit, at most, where nothing was measured.
pub const COMMIT_BYTES_DEFAULT: usize = 2 << 20;

/// Flushes up to this long are of class NVMe.
const NVME_NS_MAX: u64 = 300_000;
/// Flushes up to this long are of class SSD.
const SSD_NS_MAX: u64 = 5_000_000;
/// On a disk that is said to rotate, flushes from this long on are of class HDD.
const ROTATION_NS_MIN: u64 = 2_000_000;
/// Less of a difference than this, in percent, is noise; then RWF_DSYNC, which costs less CPU.
const PRIMITIVE_NOISE_PERCENT: u64 = 20;
/// Two in flight that bring this many percent less than one are slower, not just as fast.
const DEPTH_NOISE_PERCENT: u64 = 10;
/// Four in flight must bring this many percent more than two: they cost memory, and a small commit
/// waits behind more bytes.
const DEPTH_GAIN_PERCENT: u64 = 50;
/// A commit that takes up to this many percent of the smallest one's time costs about the same.
const FLAT_PERCENT: u64 = 150;
/// A full commit transfers for this many times as long as an empty one takes, so four fifths of
/// its time move bytes.
const TRANSFER_SHARE: u64 = 4;
const COMMIT_BYTES_MIN: u64 = 256 << 10;
/// Commits are padded to this in any case.
const PAD_BYTES: u32 = 4096;

const NETWORK_FILE_SYSTEMS: [&str; 4] = ["nfs", "cifs", "smb2", "9p"];
const MEMORY_FILE_SYSTEMS: [&str; 2] = ["tmpfs", "ramfs"];

pub(super) fn micros(ns: u64) -> String {
    if ns >= 10_000_000 {
        format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10)
    } else {
        format!("{}.{} µs", ns / 1000, ns / 100 % 10)
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, (bytes >> 10) % 1024 * 10 / 1024)
}

fn choice<T>(value: T, why: impl Into<String>) -> Choice<T> {
    Choice { value, why: why.into() }
}

/// The flush that counts: that of the better primitive.
fn flush(figures: &DiskFigures) -> Latency {
    let (dsync, linked) = (figures.dsync, figures.linked_sync);
    if linked.p50_ns < dsync.p50_ns { linked } else { dsync }
}

/// Memory and network by the file system's name; else by the better primitive's median:
/// - network, when it is above 0.3 ms and an unflushed write of 4 KiB, direct, takes at least half
///   as long: then the way to the device takes the time, not the flush. Not on a disk that is said
///   to rotate and needs 5 ms or more;
/// - NVMe up to 0.3 ms, SSD up to 5 ms, else HDD;
/// - HDD from 2 ms on, when the kernel takes it for a rotating disk.
pub(super) fn class(place: &DiskPlace, figures: &DiskFigures) -> Choice<DiskClass> {
    let file_system = place.file_system.as_str();
    if MEMORY_FILE_SYSTEMS.contains(&file_system) {
        return choice(DiskClass::Memory, format!("{file_system} lies in memory"));
    }
    if NETWORK_FILE_SYSTEMS.contains(&file_system) {
        return choice(DiskClass::Network, format!("{file_system} is a network file system"));
    }
    let flush = flush(figures);
    let took = format!(
        "a flushed write of 4 KiB takes {} (99 %: {})",
        micros(flush.p50_ns),
        micros(flush.p99_ns)
    );
    let rotates = place.rotational == Some(true);
    let write = figures.write;
    let slow_way = place.direct
        && write.samples > 0
        && flush.p50_ns > NVME_NS_MAX
        && write.p50_ns.saturating_mul(2) >= flush.p50_ns
        && !(rotates && flush.p50_ns >= SSD_NS_MAX);
    if slow_way {
        let why = format!(
            "{took}, a write alone {}: the way to the device takes the time, not the flush",
            micros(write.p50_ns)
        );
        return choice(DiskClass::Network, why);
    }
    if flush.p50_ns <= NVME_NS_MAX {
        choice(DiskClass::Nvme, format!("{took}: up to 300 µs"))
    } else if rotates && flush.p50_ns >= ROTATION_NS_MIN {
        choice(DiskClass::Hdd, format!("{took}: 2 ms or more, and the kernel says that it rotates"))
    } else if flush.p50_ns <= SSD_NS_MAX {
        choice(DiskClass::Ssd, format!("{took}: above 300 µs, up to 5 ms"))
    } else {
        choice(DiskClass::Hdd, format!("{took}: above 5 ms"))
    }
}

/// fdatasync on btrfs, and where it is faster by more than 20 %; else RWF_DSYNC.
pub(super) fn primitive(place: &DiskPlace, figures: &DiskFigures) -> Choice<Primitive> {
    let (dsync, linked) = (figures.dsync.p50_ns, figures.linked_sync.p50_ns);
    let took = format!("RWF_DSYNC {}, linked fdatasync {}", micros(dsync), micros(linked));
    if place.file_system == "btrfs" {
        let why = format!("{took}; on btrfs one covering fdatasync at a time is best");
        choice(Primitive::LinkedSync, why)
    } else if linked.saturating_mul(100 + PRIMITIVE_NOISE_PERCENT) < dsync.saturating_mul(100) {
        choice(Primitive::LinkedSync, format!("{took}: fdatasync is faster"))
    } else {
        choice(Primitive::Dsync, format!("{took}: RWF_DSYNC is not slower by more than noise"))
    }
}

/// One on btrfs, else the default: for a disk that has not been measured.
pub fn commits_in_flight_unmeasured(file_system: &str) -> usize {
    if file_system == "btrfs" { 1 } else { COMMITS_IN_FLIGHT_DEFAULT }
}

/// One on btrfs, and where two bring at least 10 % less than one; four where they bring at least
/// 50 % more than two; else two.
pub(super) fn commits_in_flight(place: &DiskPlace, figures: &DiskFigures) -> Choice<usize> {
    if place.file_system == "btrfs" {
        return choice(1, "btrfs: flushes in flight at once delay each other");
    }
    let rate = |depth: u32| {
        let found = figures.depths.iter().find(|figure: &&DepthFigure| figure.depth == depth);
        found.map(|figure| figure.bytes_per_second)
    };
    let (Some(one), Some(two)) = (rate(1), rate(2)) else {
        return choice(COMMITS_IN_FLIGHT_DEFAULT, "not measured: the default");
    };
    let told =
        format!("256 KiB commits: one in flight {}/s, two {}/s", mebibytes(one), mebibytes(two));
    if two.saturating_mul(100) <= one.saturating_mul(100 - DEPTH_NOISE_PERCENT) {
        return choice(1, format!("{told}: two are slower"));
    }
    match rate(4) {
        Some(four) if four.saturating_mul(100) >= two.saturating_mul(100 + DEPTH_GAIN_PERCENT) => {
            choice(4, format!("{told}, four {}/s: four bring half as much again", mebibytes(four)))
        }
        Some(four) => {
            choice(2, format!("{told}, four {}/s: more would hardly gain", mebibytes(four)))
        }
        None => choice(2, told),
    }
}

/// The largest size, from the smallest on without a gap, that takes at most half as long again as
/// the smallest one.
pub(super) fn flat_bytes(figures: &DiskFigures) -> Choice<usize> {
    let Some(first) = figures.sizes.first() else {
        return choice(PAD_BYTES as usize, "not measured");
    };
    let limit = first.latency.p50_ns.saturating_mul(FLAT_PERCENT) / 100;
    let flat = figures.sizes.iter().take_while(|figure| figure.latency.p50_ns <= limit);
    let last = flat.last().unwrap_or(first);
    let why = format!(
        "{} KiB take {}, {} KiB {}",
        first.bytes >> 10,
        micros(first.latency.p50_ns),
        last.bytes >> 10,
        micros(last.latency.p50_ns)
    );
    choice(last.bytes as usize, why)
}

/// As many bytes as are transferred in four times the time of the smallest commit, a power of two
/// from 256 KiB to 2 MiB: so most of a full commit's time moves bytes, and a small commit behind it
/// does not wait much longer than that.
pub(super) fn commit_bytes(figures: &DiskFigures) -> Choice<usize> {
    let (Some(small), Some(large)) = (figures.sizes.first(), figures.sizes.last()) else {
        return choice(COMMIT_BYTES_DEFAULT, "not measured: the default");
    };
    let more_bytes = u64::from(large.bytes.saturating_sub(small.bytes));
    let more_ns = large.latency.p50_ns.saturating_sub(small.latency.p50_ns);
    if more_bytes == 0 {
        return choice(COMMIT_BYTES_DEFAULT, "only one size was measured: the default");
    }
    let transfer_ns = u128::from(small.latency.p50_ns) * u128::from(TRANSFER_SHARE);
    let bytes = u128::from(more_bytes) * transfer_ns / u128::from(more_ns.max(1));
    let max = COMMIT_BYTES_DEFAULT as u64;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).clamp(COMMIT_BYTES_MIN, max);
    // Downwards, so that the share is kept to.
    let bytes = 1_u64 << bytes.ilog2();
    let why = format!(
        "{} KiB take {}, {} KiB {}: a commit of {} KiB moves bytes for most of its time",
        small.bytes >> 10,
        micros(small.latency.p50_ns),
        large.bytes >> 10,
        micros(large.latency.p50_ns),
        bytes >> 10
    );
    choice(bytes as usize, why)
}

/// The larger of 4096 and the alignment: what was acknowledged shares no block with what comes.
pub(super) fn pad_bytes(place: &DiskPlace) -> Choice<usize> {
    let physical = place.physical_block_bytes;
    let known = physical.map_or_else(|| "is unknown".to_owned(), |bytes| format!("has {bytes}"));
    let why = format!(
        "a physical block {known}{}, transfers are aligned to {}: never less than {PAD_BYTES}",
        if physical.is_some() { " bytes" } else { "" },
        place.align_bytes
    );
    choice(place.align_bytes.max(PAD_BYTES) as usize, why)
}
