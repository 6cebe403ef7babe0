//! Every subcommand once, at its smallest size: it ends well, says what it must, leaves nothing
//! behind. Also with blocking calls, as where io_uring is refused.

use std::path::Path;

use ringlog_bench::measurement::{Class, Measurement};

mod support;

use support::{assert_empty, bench, lines, text};

/// Runs it in a directory of its own; gives its measurements, and what it told people. On a busy
/// disk nothing may be acknowledged in the shortest time: then it is given more.
fn smallest(command: &str, arguments: &[&str]) -> (Vec<Measurement>, String) {
    for seconds in ["0.1", "1", "10"] {
        let (lines, told) = once(command, seconds, arguments);
        if lines.iter().all(|line| line.records > 0) {
            return (lines, told);
        }
    }
    panic!("{command} {arguments:?}: nothing in ten seconds");
}

fn once(command: &str, seconds: &str, arguments: &[&str]) -> (Vec<Measurement>, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let done = bench(command, dir.path(), seconds, &[arguments, &["--json", "-"]].concat());
    let told = text(&done.stderr).to_owned();
    assert!(done.status.success(), "{command}: {told}");
    assert_empty(dir.path());
    let lines = lines(&done.stdout);
    assert_eq!(lines.environment.bench, command);
    assert!(!lines.measurements.is_empty(), "{command}: {told}");
    for line in &lines.measurements {
        assert_eq!((line.bench.as_str(), line.round), (command, 1), "{line:?}");
        assert_eq!(line.dir, dir.path().to_str().expect("a name"), "{line:?}");
        assert_eq!(line.payload_bytes, line.records * line.record_bytes, "{line:?}");
        assert_eq!(line.disqualified, None, "{line:?}");
    }
    (lines.measurements, told)
}

fn labels(lines: &[Measurement]) -> Vec<Option<&str>> {
    lines.iter().map(|line| line.label.as_deref()).collect()
}

/// The same, also with blocking calls.
fn smallest_of_both(command: &str, arguments: &[&str]) -> Vec<Measurement> {
    let (blocking, _) = smallest(command, &[arguments, &["--io", "blocking"]].concat());
    assert!(
        blocking.iter().all(|line| line.io.as_deref() == Some("blocking")),
        "{command}: {blocking:?}"
    );
    smallest(command, arguments).0
}

#[test]
fn floor_measures_each_primitive_at_each_size() {
    let (lines, told) = smallest("floor", &["--sizes", "4096,10000"]);
    let modes: Vec<(&str, u64)> =
        lines.iter().map(|line| (line.mode.as_str(), line.record_bytes)).collect();
    assert_eq!(
        modes,
        [
            ("pwrite + fdatasync", 4096),
            ("RWF_DSYNC", 4096),
            ("copy + crc32", 4096),
            ("pwrite + fdatasync", 12288),
            ("RWF_DSYNC", 12288),
            ("copy + crc32", 12288),
            ("sequential write", 1 << 20),
            ("sequential read", 1 << 20),
        ]
    );
    assert!(told.contains("drift of the commit"), "{told}");
}

#[test]
fn load_offers_parts_of_saturation() {
    let lines = smallest_of_both("load", &["--at", "50,20", "--outstanding", "8"]);
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0].open_loop, None, "saturation comes first");
    for (line, part) in lines[1..].iter().zip([0.5, 0.2]) {
        let open = line.open_loop.expect("an open loop");
        assert_eq!(open.saturation_per_second, lines[0].records_per_second, "{line:?}");
        assert!((open.offered_per_second - open.saturation_per_second * part).abs() < 1e-6);
        assert!(open.due >= line.records, "{line:?}");
    }
}

#[test]
fn scale_goes_along_each_axis() {
    let lines = smallest_of_both(
        "scale",
        &[
            "--producers",
            "1,3",
            "--outstanding",
            "4",
            "--shards",
            "1,2",
            "--record-bytes",
            "64,1000",
        ],
    );
    let points: Vec<(u64, u64, u64, u64)> = lines
        .iter()
        .map(|line| (line.producers, line.outstanding, line.shards, line.record_bytes))
        .collect();
    assert_eq!(
        points,
        [
            (1, 1, 1, 1000),
            (3, 1, 1, 1000),
            (2, 2, 1, 1000),
            (4, 64, 1, 1000),
            (8, 64, 2, 1000),
            (4, 1, 1, 64),
            (4, 1, 1, 1000),
        ]
    );
    assert!(lines.iter().all(|line| line.durability == Class::Media));
}

#[test]
fn streams_are_appended_to_in_turns() {
    let lines = smallest_of_both("streams", &["--streams", "1,100", "--outstanding", "16"]);
    let counts: Vec<f64> = lines.iter().map(|line| line.detail["streams"]).collect();
    assert_eq!(counts, [1.0, 100.0]);
    assert_eq!(labels(&lines), [Some("1 streams"), Some("100 streams")]);
    assert!(lines.iter().all(|line| line.detail.contains_key("reopened_us")), "{lines:?}");
}

#[test]
fn recover_opens_logs_that_were_killed_and_closed() {
    let lines = smallest_of_both("recover", &["--bytes", "0,2097152"]);
    assert_eq!(lines.len(), 3);
    assert!(lines[0].ratio.payload_to_sequential_read.is_some(), "{:?}", lines[0]);
    let scanned = lines[0].detail["bytes_scanned"];
    assert!(scanned > lines[0].payload_bytes as f64, "{:?}", lines[0]);
    for (line, bytes) in lines[1..].iter().zip([0.0, 2_097_152.0]) {
        assert_eq!(line.detail["log_bytes"], bytes, "{line:?}");
        assert_eq!(line.records, 7, "{line:?}");
    }
    let closed = |mib: u64| format!("{mib} MiB, closed: to the first append");
    assert_eq!(labels(&lines), [None, Some(&*closed(0)), Some(&*closed(2))]);
}

#[test]
fn read_goes_each_way() {
    let lines = smallest_of_both("read", &["--bytes", "4194304", "--records", "50"]);
    let ways: Vec<(&str, u64)> =
        lines.iter().map(|line| (line.mode.as_str(), line.records)).collect();
    assert_eq!(ways[..3], [("random", 50), ("scan", 4), ("replay", 16384)]);
    assert_eq!(ways[3].0, "follow");
    for line in &lines[1..3] {
        assert!(line.ratio.payload_to_sequential_read.is_some(), "{line:?}");
    }
}

#[test]
fn rotate_compares_sizes_of_segments_and_followers() {
    let more = ["--segment-mib", "4,1", "--followers", "2"];
    let lines = smallest_of_both("rotate", &more);
    assert_eq!(lines.len(), 3);
    assert!(lines[2].detail.contains_key("followed"), "{:?}", lines[2]);
    assert!(lines[1].detail.contains_key("rotations"), "{:?}", lines[1]);
    let expected =
        ["segments of 4 MiB", "segments of 1 MiB", "segments of 1 MiB, retention, 2 followers"];
    assert_eq!(labels(&lines), expected.map(Some));
}

#[test]
fn disks_are_measured_in_turns() {
    let other = tempfile::tempdir().expect("a directory");
    let other = other.path().to_str().expect("a name");
    let dir = tempfile::tempdir().expect("a directory");
    let more = ["--dir", other, "--modes", "synced,memory", "--json", "-"];
    let done = bench("disks", dir.path(), "0.1", &more);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines = lines(&done.stdout).measurements;
    let turns: Vec<(&str, &Path)> =
        lines.iter().map(|line| (line.mode.as_str(), Path::new(&line.dir))).collect();
    let (one, other) = (dir.path(), Path::new(other));
    assert_eq!(turns, [("synced", one), ("synced", other), ("memory", one), ("memory", other)]);
    for dir in [one, other] {
        let advice = format!("recommendation for {}: ", dir.display());
        assert!(text(&done.stderr).contains(&advice), "{}", text(&done.stderr));
        assert_empty(dir);
    }
}
