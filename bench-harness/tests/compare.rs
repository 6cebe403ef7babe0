//! The program as its user runs it: `compare` in a directory of its own, and what it leaves.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ringlog-bench");

fn compare(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(["compare", "--seconds", "0.2", "--dir"])
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    text(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_empty(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn is_number_or_null(value: &Value) -> bool {
    value.is_null() || value.as_f64().is_some_and(|number| number > 0.0)
}

fn check(line: &Value, dir: &Path, mode: &str, class: &str) {
    assert_eq!(line["bench"], "compare", "{line}");
    assert_eq!(line["engine"], "ringlog", "{line}");
    assert_eq!(line["mode"], mode, "{line}");
    assert_eq!(line["durability"], class, "{line}");
    assert_eq!(line["record_bytes"], 256, "{line}");
    assert_eq!(line["producers"], 2, "{line}");
    assert_eq!(line["outstanding"], 3, "{line}");
    assert_eq!(line["shards"], 1, "{line}");
    assert_eq!(line["dir"], dir.to_str().unwrap(), "{line}");
    let records = line["records"].as_u64().unwrap();
    assert!(records > 0, "{line}");
    assert_eq!(line["payload_bytes"].as_u64().unwrap(), records * 256, "{line}");
    let rate = records as f64 / line["seconds"].as_f64().unwrap();
    let told = line["records_per_second"].as_f64().unwrap();
    assert!((told - rate).abs() < rate / 1e6, "{line}");
    let mib = line["payload_mib_per_second"].as_f64().unwrap();
    assert!((mib - rate * 256.0 / f64::from(1 << 20)).abs() < mib / 1e6, "{line}");
    for percentile in ["p50", "p90", "p99", "p99_9", "max"] {
        assert!(is_number_or_null(&line["latency_us"][percentile]), "{percentile}: {line}");
        assert!(is_number_or_null(&line["flush_us"][percentile]), "{percentile}: {line}");
    }
    assert!(line["latency_us"]["max"].is_number(), "{line}");
    assert!(line["device_bytes"].is_u64() && line["flushes"].is_u64(), "{line}");
    assert!(line["floor"].is_object() && line["ratio"].is_object(), "{line}");
    for field in ["file_system", "io", "primitive"] {
        assert!(line[field].as_str().is_some_and(|word| !word.is_empty()), "{field}: {line}");
    }
}

#[test]
fn every_mode_gives_one_json_object_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let done = compare(dir.path(), &["--producers", "2", "--outstanding", "3", "--json", "-"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines = json_lines(&done.stdout);
    let modes = [
        ("memory", "memory"),
        ("written", "device cache"),
        ("synced", "media"),
        ("synced-every-append", "media"),
        ("interval", "device cache, media within 10 ms"),
    ];
    assert_eq!(lines.len(), modes.len(), "{}", text(&done.stdout));
    for (line, (mode, class)) in lines.iter().zip(modes) {
        check(line, dir.path(), mode, class);
    }
    let flushes = |line: usize| lines[line]["flushes"].as_u64().unwrap();
    let records = |line: usize| lines[line]["records"].as_u64().unwrap();
    assert!(flushes(2) > 0, "synced flushes");
    // One flush for each append; what was in flight at the edges of the window may differ.
    assert!(flushes(3) + 6 >= records(3), "{} flushes for {}", flushes(3), records(3));
    // The table is for people and goes to the other stream.
    let report = text(&done.stderr);
    for (mode, _) in modes {
        assert!(report.contains(mode), "{report}");
    }
    assert_empty(dir.path());
}

#[test]
fn blocking_calls_are_used_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let json = file.path().to_str().unwrap();
    let done = compare(
        dir.path(),
        &[
            "--modes",
            "synced,memory",
            "--producers",
            "2",
            "--outstanding",
            "3",
            "--io",
            "blocking",
            "--json",
            json,
        ],
    );
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines = json_lines(&std::fs::read(json).unwrap());
    assert_eq!(lines.len(), 2);
    check(&lines[0], dir.path(), "synced", "media");
    check(&lines[1], dir.path(), "memory", "memory");
    for line in &lines {
        assert_eq!(line["io"], "blocking", "{line}");
    }
    let report = text(&done.stdout);
    for heading in ["records/s", "p99.9", "time of a commit", "sequential O_DIRECT", "notes"] {
        assert!(report.contains(heading), "{heading} is missing: {report}");
    }
    assert_empty(dir.path());
}

#[test]
fn several_directories_are_measured_one_after_the_other() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let second = dirs[1].path().to_str().unwrap();
    let done = compare(dirs[0].path(), &["--dir", second, "--modes", "synced", "--json", "-"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines = json_lines(&done.stdout);
    let named: Vec<&str> = lines.iter().map(|line| line["dir"].as_str().unwrap()).collect();
    assert_eq!(named, [dirs[0].path().to_str().unwrap(), second]);
}

#[test]
fn a_directory_that_is_not_there_is_an_error_in_words() {
    let done = compare(Path::new("/nonexistent/place"), &[]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("/nonexistent/place"), "{}", text(&done.stderr));
}

#[test]
fn a_record_that_no_log_takes_fails_by_name_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let done = compare(dir.path(), &["--modes", "synced", "--record-bytes", "4194304"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("synced: append"), "{}", text(&done.stderr));
    assert_empty(dir.path());
}

#[test]
fn an_interrupt_ends_the_run_with_what_it_has_and_cleans_up() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["compare", "--seconds", "600", "--modes", "synced,written", "--json", "-", "--dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The heading comes when the handler is in place and the floor is about to be measured.
    let mut heading = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut heading).unwrap();
    // A log's own directory below the scratch directory: the first mode is running.
    while nested_directories(dir.path()) < 2 {
        assert_eq!(child.try_wait().unwrap(), None, "ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{:?}", done.status);
    let lines = json_lines(&done.stdout);
    assert_eq!(lines.len(), 1, "{}", text(&done.stdout));
    assert_eq!(lines[0]["mode"], "synced");
    assert_eq!(lines[0]["ended_early"], "interrupted");
    assert_empty(dir.path());
}

/// How deep the directories below this one go.
fn nested_directories(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let depth = |entry: std::fs::DirEntry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir { 1 + nested_directories(&entry.path()) } else { 0 }
    };
    entries.flatten().map(depth).max().unwrap_or(0)
}
