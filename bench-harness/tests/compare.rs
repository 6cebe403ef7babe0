//! The program as its user runs it: `compare` in a directory of its own, and what it leaves.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ringlog_bench::measurement::{Class, Measurement, decode};
use support::{PROGRAM, assert_empty, lines, text};

fn compare(dir: &Path, arguments: &[&str]) -> Output {
    support::bench("compare", dir, "0.5", arguments)
}

fn check(line: &Measurement, dir: &Path, mode: &str, class: Class) {
    assert_eq!((line.bench.as_str(), line.engine.as_str()), ("compare", "ringlog"), "{line:?}");
    assert_eq!((line.mode.as_str(), line.durability), (mode, class), "{line:?}");
    assert_eq!((line.record_bytes, line.producers), (256, 2), "{line:?}");
    assert_eq!((line.outstanding, line.shards, line.round), (3, 1, 1), "{line:?}");
    assert_eq!(line.dir, dir.to_str().unwrap(), "{line:?}");
    assert!(line.records > 0, "{line:?}");
    assert_eq!(line.payload_bytes, line.records * 256, "{line:?}");
    let rate = line.records as f64 / line.seconds;
    assert!((line.records_per_second - rate).abs() < rate / 1e6, "{line:?}");
    let mib = rate * 256.0 / f64::from(1 << 20);
    assert!((line.payload_mib_per_second - mib).abs() < mib / 1e6, "{line:?}");
    assert!(line.latency_us.max.is_some(), "{line:?}");
    // What the percentiles were read from is there, whole.
    let latency = decode(line.latency_hdr.as_deref().unwrap()).unwrap();
    assert_eq!(latency.len(), line.records, "{line:?}");
    assert!(line.device_bytes_claimed.is_some() && line.flushes_claimed.is_some(), "{line:?}");
    assert!(line.io.is_some() && line.primitive.is_some(), "{line:?}");
    assert_eq!(line.disqualified, None, "{line:?}");
    assert!(line.cpu_seconds > 0.0, "{line:?}");
}

#[test]
fn every_mode_gives_one_json_object_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let done = compare(dir.path(), &["--producers", "2", "--outstanding", "3", "--json", "-"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let lines = lines(&done.stdout);
    assert_eq!(lines.environment.bench, "compare");
    assert_eq!(lines.environment.places[0].dir, dir.path().to_str().unwrap());
    let measured = lines.measurements;
    let direct = measured.iter().all(|line| line.direct == Some(true));
    let written = if direct { Class::DeviceCache } else { Class::PageCache };
    let modes = [
        ("memory", Class::Memory),
        ("written", written),
        ("synced", Class::Media),
        ("synced-every-append", Class::Media),
        ("interval", written),
    ];
    assert_eq!(measured.len(), modes.len(), "{}", text(&done.stdout));
    for (line, (mode, class)) in measured.iter().zip(modes) {
        check(line, dir.path(), mode, class);
        assert_eq!(line.media_within_ms, (mode == "interval").then_some(10), "{mode}");
    }
    let flushes = |line: usize| measured[line].flushes_claimed.unwrap();
    assert!(flushes(2) > 0, "synced flushes");
    // One flush for each append; what was in flight at the edges of the window may differ.
    let records = measured[3].records;
    assert!(flushes(3) + 6 >= records, "{} flushes for {records}", flushes(3));
    // The table is for people and goes to the other stream.
    let report = text(&done.stderr);
    for (mode, _) in modes {
        assert!(report.contains(mode), "{report}");
    }
    assert_empty(dir.path());
}

#[test]
fn a_run_says_of_which_commit_it_is() {
    let git = |arguments: &[&str]| {
        let manifest = env!("CARGO_MANIFEST_DIR");
        let done = Command::new("git").args(["-C", manifest]).args(arguments).output().ok()?;
        done.status.success().then(|| text(&done.stdout).trim().to_owned())
    };
    let dir = tempfile::tempdir().unwrap();
    let more = ["--modes", "synced", "--max-bytes", "25600", "--json", "-"];
    let done = compare(dir.path(), &more);
    let said = lines(&done.stdout).environment.commit;
    let prefix = git(&["rev-parse", "--show-prefix"]);
    let Some(head) =
        git(&["rev-parse", "HEAD"]).filter(|_| prefix.as_deref() == Some("bench-harness/"))
    else {
        assert_eq!(said, None, "nothing is known");
        return;
    };
    let said = said.expect("a commit");
    assert!(said == head || said == format!("{head}+changes"), "{said} is not {head}");
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
    let lines = lines(&std::fs::read(json).unwrap()).measurements;
    assert_eq!(lines.len(), 2);
    check(&lines[0], dir.path(), "synced", Class::Media);
    check(&lines[1], dir.path(), "memory", Class::Memory);
    for line in &lines {
        assert_eq!(line.io.as_deref(), Some("blocking"), "{line:?}");
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
    let lines = lines(&done.stdout);
    assert_eq!(lines.environment.places.len(), 2);
    let named: Vec<&str> = lines.measurements.iter().map(|line| line.dir.as_str()).collect();
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
    let lines = lines(&done.stdout).measurements;
    assert_eq!(lines.len(), 1, "{}", text(&done.stdout));
    assert_eq!(lines[0].mode, "synced");
    assert_eq!(lines[0].ended_early.as_deref(), Some("interrupted"));
    assert_empty(dir.path());
}

#[test]
fn histograms_of_all_rounds_are_left_where_they_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let hdr = tempfile::tempdir().unwrap();
    let hdr_path = hdr.path().join("new");
    let path = hdr_path.to_str().unwrap();
    let more = ["--modes", "synced", "--hdr", path, "--name", "a run", "--max-bytes", "25600"];
    // The bytes end it, long before.
    let more = [&more[..], &["--json", "-"]].concat();
    let done = support::bench("compare", dir.path(), "300", &more);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let mut files: Vec<String> = std::fs::read_dir(&hdr_path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let names = ["flush.hgrm", "flush.hlog", "latency.hgrm", "latency.hlog"];
    let names = names.map(|name| format!("a-run-0-synced-{name}"));
    assert_eq!(files, names);
    let lines = lines(&done.stdout);
    assert_eq!(lines.environment.name.as_deref(), Some("a run"));
    assert_eq!(lines.environment.max_bytes, Some(25_600));
    assert_eq!(lines.measurements[0].name.as_deref(), Some("a run"));
    let ended = lines.measurements[0].ended_early.as_deref();
    assert_eq!(ended, Some("so many bytes were allowed"));
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
