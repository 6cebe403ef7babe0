//! What follows from which figures, and that a measurement leaves nothing behind.

use std::cell::Cell;

use super::*;

const KIB: u32 = 1 << 10;

fn place(file_system: &str) -> DiskPlace {
    DiskPlace {
        file_system: file_system.to_owned(),
        device: (259, 1),
        device_name: Some("nvme0n1p1".to_owned()),
        rotational: Some(false),
        write_back: Some(true),
        polled: Some(false),
        physical_block_bytes: Some(512),
        align_bytes: 512,
        direct: true,
        huge_pages: true,
        uring: true,
    }
}

fn latency(p50_ns: u64, p99_ns: u64) -> Latency {
    Latency { p50_ns, p99_ns, samples: 48 }
}

/// Figures of a disk that commits 4 KiB in these times, moves `bandwidth` bytes in a microsecond,
/// and makes so many MiB durable in a second with 1, 2 and 4 in flight.
fn figures(write: u64, dsync: u64, linked: u64, bandwidth: u64, depths: [u64; 3]) -> DiskFigures {
    let better = dsync.min(linked);
    let size = |bytes: u32| SizeFigure {
        bytes,
        latency: latency(better + u64::from(bytes - 4 * KIB) * 1000 / bandwidth, better * 4),
    };
    let depth = |(depth, mib): (u32, u64)| DepthFigure { depth, bytes_per_second: mib << 20 };
    DiskFigures {
        effort: Effort::Quick,
        dsync: latency(dsync, dsync * 2),
        linked_sync: latency(linked, linked * 2),
        write: latency(write, write * 2),
        sizes: [4, 16, 64, 256, 1024].map(|kib| size(kib * KIB)).to_vec(),
        depths: [1, 2, 4].into_iter().zip(depths).map(depth).collect(),
    }
}

#[test]
fn class_and_settings_follow_from_the_figures() {
    use DiskClass::{Hdd, Memory, Network, Nvme, Ssd};
    use Primitive::{Dsync, LinkedSync};
    const US: u64 = 1000;
    const MS: u64 = 1_000_000;
    let rotating = || DiskPlace { rotational: Some(true), ..place("ext4") };
    let buffered = || DiskPlace { direct: false, ..place("ext4") };
    // name, place, figures, class, primitive, commits in flight, KiB of a commit
    let cases = [
        (
            "NVMe with power-loss protection",
            place("xfs"),
            figures(10_600, 11_000, 16_000, 3000, [2300, 2900, 3000]),
            (Nvme, Dsync, 2, 256),
        ),
        (
            "consumer NVMe: a flush goes to the flash",
            place("ext4"),
            figures(20 * US, 4 * MS, 1700 * US, 2000, [140, 150, 160]),
            (Ssd, LinkedSync, 2, 2048),
        ),
        (
            "virtio, said to rotate",
            rotating(),
            figures(45 * US, 80 * US, 92 * US, 8000, [2200, 3000, 4000]),
            (Nvme, Dsync, 2, 2048),
        ),
        (
            "virtio where four in flight pay",
            rotating(),
            figures(45 * US, 80 * US, 92 * US, 8000, [2200, 3000, 4500]),
            (Nvme, Dsync, 4, 2048),
        ),
        (
            "SATA SSD",
            place("ext4"),
            figures(60 * US, 900 * US, 850 * US, 500, [180, 200, 210]),
            (Ssd, Dsync, 2, 1024),
        ),
        (
            "HDD, its cache on",
            rotating(),
            figures(120 * US, 12 * MS, 8 * MS, 150, [25, 24, 26]),
            (Hdd, LinkedSync, 2, 2048),
        ),
        (
            "HDD, its cache off, two in flight thrash",
            rotating(),
            figures(8 * MS, 8 * MS, 8 * MS, 150, [25, 20, 18]),
            (Hdd, Dsync, 1, 2048),
        ),
        (
            "HDD that nobody calls one",
            place("ext4"),
            figures(120 * US, 8 * MS, 8 * MS, 150, [25, 25, 26]),
            (Hdd, Dsync, 2, 2048),
        ),
        (
            "fast HDD",
            rotating(),
            figures(120 * US, 3 * MS, 3 * MS, 200, [50, 52, 53]),
            (Hdd, Dsync, 2, 2048),
        ),
        (
            "network volume",
            place("ext4"),
            figures(1100 * US, 1500 * US, 2300 * US, 250, [90, 170, 240]),
            (Network, Dsync, 2, 1024),
        ),
        (
            "the same through the page cache, where a write alone tells nothing",
            buffered(),
            figures(1100 * US, 1500 * US, 2300 * US, 250, [90, 170, 240]),
            (Ssd, Dsync, 2, 1024),
        ),
        (
            "nfs, however fast",
            place("nfs"),
            figures(50 * US, 90 * US, 90 * US, 1000, [1000, 1500, 1800]),
            (Network, Dsync, 2, 256),
        ),
        (
            "btrfs, whatever was measured",
            place("btrfs"),
            figures(90 * US, 400 * US, 460 * US, 4000, [500, 800, 1500]),
            (Ssd, LinkedSync, 1, 2048),
        ),
        (
            "tmpfs",
            place("tmpfs"),
            figures(2 * US, 2 * US, 3 * US, 9000, [4000, 4000, 4000]),
            (Memory, Dsync, 2, 256),
        ),
    ];
    for (name, place, figures, (class, primitive, commits_in_flight, kib)) in cases {
        let profile = DiskProfile::new(place, figures);
        let found = (
            profile.class.value,
            profile.primitive.value,
            profile.commits_in_flight.value,
            profile.commit_bytes.value >> 10,
        );
        assert_eq!(found, (class, primitive, commits_in_flight, kib), "{name}: {profile:#?}");
    }
}

#[test]
fn a_primitive_must_be_faster_by_more_than_noise() {
    let choose = |dsync, linked| {
        let figures = figures(10_000, dsync, linked, 1000, [1, 1, 1]);
        DiskProfile::new(place("ext4"), figures).primitive
    };
    assert_eq!(choose(100_000, 84_000).value, Primitive::Dsync);
    assert_eq!(choose(100_000, 83_000).value, Primitive::LinkedSync);
    assert!(choose(81_234, 90_000).why.contains("81.2 µs"));
}

#[test]
fn the_flat_part_ends_where_time_grows_by_half() {
    let flat = |bandwidth| {
        let figures = figures(10_000, 100_000, 100_000, bandwidth, [1, 1, 1]);
        DiskProfile::new(place("ext4"), figures).flat_bytes.value >> 10
    };
    // 50 µs more are allowed.
    assert_eq!(flat(100_000), 1024);
    assert_eq!(flat(6000), 256);
    assert_eq!(flat(1300), 64);
    assert_eq!(flat(100), 4);
}

#[test]
fn what_was_not_measured_leaves_the_defaults() {
    let mut figures = figures(0, 30_000_000, 30_000_000, 1, [1, 1, 1]);
    figures.write.samples = 0;
    figures.sizes.clear();
    figures.depths.clear();
    let profile = DiskProfile::new(place("ext4"), figures.clone());
    assert_eq!(profile.class.value, DiskClass::Hdd);
    assert_eq!(profile.commits_in_flight.value, COMMITS_IN_FLIGHT_DEFAULT);
    assert_eq!(profile.commit_bytes.value, COMMIT_BYTES_DEFAULT);
    assert!(profile.commit_bytes.why.contains("not measured"));
    assert_eq!(commits_in_flight_unmeasured("btrfs"), 1);
    // A size that was never slower than another: no division by nothing.
    figures.sizes = vec![SizeFigure { bytes: 4096, latency: latency(0, 0) }; 2];
    assert_eq!(DiskProfile::new(place("ext4"), figures).commit_bytes.value, COMMIT_BYTES_DEFAULT);
}

#[test]
fn a_median_is_that_of_the_calmest_stretch() {
    // Two thirds of the samples are disturbed by other work on the machine.
    let disturbed = (0..24).map(|i| if (8..16).contains(&i) { 80 + i } else { 8000 });
    let latency = Latency::of(disturbed.collect());
    assert_eq!((latency.p50_ns, latency.p99_ns, latency.samples), (92, 8000, 24));
    // One or two lucky ones do not count.
    let lucky = (0..24).map(|i| if i % 8 == 0 { 1 } else { 80 });
    assert_eq!(Latency::of(lucky.collect()).p50_ns, 80);
    // A few samples are one stretch; none are nothing.
    assert_eq!(Latency::of(vec![9, 1, 5]).p50_ns, 5);
    assert_eq!(Latency::of((1..=15).collect()).p50_ns, 8);
    assert_eq!(Latency::of(Vec::new()), Latency::default());
}

#[test]
fn padding_is_never_below_a_block() {
    let pad = |align_bytes| {
        DiskProfile::new(
            DiskPlace { align_bytes, ..place("ext4") },
            figures(1, 1, 1, 1000, [1, 1, 1]),
        )
        .pad_bytes
        .value
    };
    assert_eq!((pad(512), pad(4096)), (4096, 4096));
}

#[test]
fn a_profile_holds_for_one_file_system_on_one_device() {
    let here = place("ext4");
    assert_eq!(here.differs("ext4", (259, 1)), None);
    assert!(here.differs("xfs", (259, 1)).is_some_and(|why| why.contains("ext4")));
    assert!(here.differs("ext4", (8, 1)).is_some_and(|why| why.contains("259:1")));
    // btrfs has another number after each mount.
    let nameless = DiskPlace { device: (0, 40), ..place("btrfs") };
    assert_eq!(nameless.differs("btrfs", (0, 41)), None);
}

#[test]
fn a_measurement_leaves_nothing_behind() {
    for kind in [IoKind::Auto, IoKind::Blocking] {
        let home = tempfile::TempDir::new().unwrap();
        let dir = Dir::open(home.path()).unwrap();
        // What an interrupted one has left does not disturb it.
        std::fs::write(home.path().join(PROBE_FILE), b"x").unwrap();
        let profile = profile_disk(&dir, kind, Effort::Quick).unwrap();
        assert!(dir.is_empty().unwrap());
        assert!(profile.figures.dsync.samples > 0 && profile.figures.dsync.p50_ns > 0);
        assert_eq!(profile.figures.dsync.samples, profile.figures.linked_sync.samples);
        assert_eq!(profile.place.file_system, dir.file_system().unwrap());
        assert_eq!(profile.differs_from(&dir).unwrap(), None);
    }
}

#[test]
fn a_measurement_that_is_stopped_leaves_nothing_behind() {
    let home = tempfile::TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let asked = Cell::new(0);
    let stop = || {
        // While it measures, the file is there.
        assert!(home.path().join(PROBE_FILE).exists());
        asked.set(asked.get() + 1);
        asked.get() > 5
    };
    let profile = profile_disk_until(&dir, IoKind::Auto, Effort::Full, &stop).unwrap();
    assert!(dir.is_empty().unwrap());
    assert!(profile.figures.dsync.samples < 10, "it went on: {:?}", profile.figures);
    assert_eq!(profile.figures.depths, []);
}

#[test]
fn a_measurement_that_panics_leaves_nothing_behind() {
    let home = tempfile::TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let caught = std::panic::catch_unwind(|| {
        let stop = || panic!("in the middle");
        let _ = profile_disk_until(&dir, IoKind::Auto, Effort::Quick, &stop);
    });
    assert!(caught.is_err());
    assert!(dir.is_empty().unwrap());
}

#[test]
fn a_file_that_somebody_else_removes_is_no_failure() {
    let home = tempfile::TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let stop = || {
        let _ = std::fs::remove_file(home.path().join(PROBE_FILE));
        false
    };
    profile_disk_until(&dir, IoKind::Auto, Effort::Quick, &stop).unwrap();
    assert!(dir.is_empty().unwrap());
}
