//! The commands that look at, check, repair and tend a log.

use std::path::{Path, PathBuf};

use crate::common::{append, assert_exit, files, json, lines, on, read, run, stderr};
use serde_json::Value;
use tempfile::tempdir;

/// The oldest segment file of a log with segments of 1 MiB; sealed when others follow.
fn oldest_segment(dir: &Path) -> PathBuf {
    let segments = files(dir).into_iter().filter(|(_, bytes)| bytes.len() >= 1 << 20);
    let mut segments: Vec<PathBuf> = segments.map(|(path, _)| path).collect();
    segments.sort();
    segments.into_iter().next().unwrap()
}

/// Changes one byte of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn inspect_and_stats_count_what_is_there() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10_000));
    let inspection = json(&run(&on("inspect", dir.path(), &["--json"])));
    assert_eq!(inspection["segment_bytes"], 1 << 20);
    let shard = &inspection["shards"][0];
    let segments = shard["segments"].as_array().unwrap();
    let sealed = segments.iter().filter(|segment| segment["state"] == "sealed").count();
    assert!(sealed >= 2, "10,000 lines of 300 bytes fill at least two segments: {inspection}");
    let stream = &shard["streams"][0];
    assert_eq!(stream["name"], "s");
    assert_eq!(stream["records"], 10_000);
    assert_eq!(stream["first_offset"], 0);
    assert_eq!(stream["next_offset"], 10_000);

    let text = run(&on("inspect", dir.path(), &[]));
    assert_exit(&text, 0);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("sealed") && text.contains("10000"), "{text}");

    let stats = json(&run(&on("stats", dir.path(), &["--json"])));
    assert_eq!(stats["records"], 10_000);
    assert_eq!(stats["streams"], 1);
    assert!(stats["io"].is_string() && stats["notes"].is_array(), "{stats}");
    assert_eq!(stats["recovery"][0]["bytes_cut"], 0, "{stats}");
    assert_eq!(stats["segment_bytes"], 1 << 20);
    assert_eq!(stats["log_id"], inspection["log_id"], "{inspection}");
    assert_eq!(stats["ends"][0]["epoch"], 1, "{stats}");
    let end = stats["ends"][0]["durable_lsn"].as_u64().unwrap();
    assert!(end > 10_000 * 300, "{stats}");
    let text = run(&on("stats", dir.path(), &[]));
    assert_exit(&text, 0);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(&format!("durable to LSN {end}")), "{text}");
}

#[test]
fn names_cannot_move_the_terminal() {
    let dir = tempdir().unwrap();
    let name = "evil\x1b[2J\nname\u{202e}";
    let args = on("append", dir.path(), &["--stream", name, "--segment-bytes", "1M"]);
    assert_exit(&crate::common::run_with(&args, b"x\n"), 0);
    let output = run(&on("inspect", dir.path(), &[]));
    assert_exit(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(r"evil\u{1b}[2J\nname\u{202e}"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");

    let missing = run(&on("read", dir.path(), &["--stream", "no\x1b[2J"]));
    assert_exit(&missing, 2);
    assert!(!stderr(&missing).contains('\x1b'), "{}", stderr(&missing));
}

#[test]
fn a_sound_log_is_sound() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10_000));
    let report = run(&on("verify", dir.path(), &["--json"]));
    assert_exit(&report, 0);
    let report = json(&report);
    assert_eq!(report["sound"], true);
    assert_eq!(report["damage"], Value::Array(Vec::new()));

    let before = files(dir.path());
    let output = run(&on("repair", dir.path(), &[]));
    assert_exit(&output, 2);
    assert!(String::from_utf8_lossy(&output.stdout).contains("change nothing"));
    assert!(before == files(dir.path()), "repair without --yes has written");
    assert_exit(&run(&on("repair", dir.path(), &["--yes"])), 0);
    assert!(read(dir.path(), &[]) == lines(0..10_000), "repair of a sound log lost something");
}

#[test]
fn damage_is_found_named_and_repaired() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10_000));
    let segment = oldest_segment(dir.path());
    let name = segment.file_name().unwrap().to_str().unwrap().to_owned();
    let at = 500_000;
    flip(&segment, at);

    let output = run(&on("verify", dir.path(), &["--json"]));
    assert_exit(&output, 1);
    let report = json(&output);
    assert_eq!(report["sound"], false);
    let damage = &report["damage"][0];
    assert!(damage["file"].as_str().unwrap().ends_with(&name), "{damage}");
    let found_at = damage["file_offset"].as_u64().unwrap() as usize;
    assert!((1..=at).contains(&found_at), "the batch or frame that begins before byte {at}");

    let output = run(&on("verify", dir.path(), &[]));
    assert_exit(&output, 1);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&name) && text.contains(&format!("at byte {found_at}")), "{text}");

    // What is left can be read; what is missing is said.
    let output = run(&on("read", dir.path(), &["--stream", "s"]));
    assert_exit(&output, 1);
    assert!(stderr(&output).contains(&name), "{}", stderr(&output));
    let left = output.stdout;
    assert!(left.len() < lines(0..10_000).len(), "something is missing");
    assert!(left.starts_with(&lines(0..100)), "what lies before the damage is there");
    assert!(left.ends_with(&lines(9_000..10_000)), "what lies behind the damage is there");

    // Without consent nothing changes.
    let before = files(dir.path());
    let output = run(&on("repair", dir.path(), &[]));
    assert_exit(&output, 2);
    assert!(String::from_utf8_lossy(&output.stdout).contains("--yes"));
    assert!(before == files(dir.path()), "repair without --yes has written");

    let output = run(&on("repair", dir.path(), &["--yes", "--json"]));
    assert_exit(&output, 0);
    let repair = json(&output);
    assert_eq!(repair["segments_repaired"], 1, "{repair}");
    assert_eq!(repair["lost"][0]["stream"], "s", "{repair}");
    let lost: u64 = repair["lost"]
        .as_array()
        .unwrap()
        .iter()
        .map(|range| range["next"].as_u64().unwrap() - range["first"].as_u64().unwrap())
        .sum();
    let left_records = left.iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(lost + left_records, 10_000, "each record is there, or listed as lost");
    let backup = PathBuf::from(repair["backup"].as_str().unwrap());
    assert!(backup.exists(), "{backup:?}: the damaged files are kept");

    assert_exit(&run(&on("verify", dir.path(), &[])), 0);
    let output = run(&on("read", dir.path(), &["--stream", "s"]));
    assert!(output.stdout == left, "repair keeps what could be read");
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("lost"), "{}", stderr(&output));
    assert_eq!(append(dir.path(), &[], b"more\n")["first_offset"], 10_000);
}

#[test]
fn rotate_and_trim() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10));
    assert_exit(&run(&on("rotate", dir.path(), &[])), 0);
    append(dir.path(), &[], &lines(10..20));
    assert_exit(&run(&on("rotate", dir.path(), &[])), 0);
    append(dir.path(), &[], &lines(20..30));
    assert_eq!(read(dir.path(), &[]), lines(0..30));

    let output = run(&on("trim", dir.path(), &["--keep-segments", "1", "--json"]));
    assert_exit(&output, 0);
    assert!(json(&output)["segments"].as_u64().unwrap() >= 1, "{}", json(&output));
    assert_eq!(read(dir.path(), &[]), lines(10..30), "reading begins where the log begins");
    let output = run(&on("read", dir.path(), &["--stream", "s", "--from", "3"]));
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("first offset is 10"), "{}", stderr(&output));
    assert_eq!(output.stdout, lines(10..30), "and goes on with what is there");
    assert_eq!(append(dir.path(), &[], b"x\n")["first_offset"], 30, "offsets go on");
    assert_exit(&run(&on("verify", dir.path(), &[])), 0);
}

/// Segments of ten records each, sealed; then ten records in an open one.
fn ten_to_a_segment(dir: &Path, sealed: u64) {
    for at in 0..sealed {
        append(dir, &[], &lines(at * 10..at * 10 + 10));
        assert_exit(&run(&on("rotate", dir, &[])), 0);
    }
    append(dir, &[], &lines(sealed * 10..sealed * 10 + 10));
}

#[test]
fn retain_keeps_to_its_bounds() {
    let dir = tempdir().unwrap();
    ten_to_a_segment(dir.path(), 5);
    let output = run(&on("retain", dir.path(), &["--max-age", "1h", "--json"]));
    assert_exit(&output, 0);
    assert_eq!(json(&output)["segments"], 0, "nothing is that old");
    assert_eq!(read(dir.path(), &[]), lines(0..60));

    let output = run(&on("retain", dir.path(), &["--max-segments", "2", "--max-age", "1h"]));
    assert_exit(&output, 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("segments trimmed"));
    assert_eq!(read(dir.path(), &[]), lines(30..60), "two sealed segments, and the open one");

    let output = run(&on("retain", dir.path(), &["--max-bytes", "4M", "--json"]));
    assert_exit(&output, 0);
    assert!(json(&output)["segments"].as_u64().unwrap() >= 1, "{}", json(&output));
    assert!(read(dir.path(), &[]).ends_with(&lines(50..60)), "the open segment stays");
    assert_exit(&run(&on("verify", dir.path(), &[])), 0);

    let bad: [&[&str]; 5] = [
        &[],
        &["--max-bytes", "much"],
        &["--max-age", "10"],
        &["--max-age", "-1h"],
        &["--max-segments", "-1"],
    ];
    for args in bad {
        assert_exit(&run(&on("retain", dir.path(), args)), 2);
    }
}

#[test]
fn trimming_a_stream_gives_its_segments_back() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10));
    for _ in 0..3 {
        assert_exit(&run(&on("rotate", dir.path(), &[])), 0);
        append(dir.path(), &[], &lines(0..10));
    }
    let sealed = || {
        let seen = json(&run(&on("inspect", dir.path(), &["--json"])));
        let segments = seen["shards"][0]["segments"].as_array().unwrap().clone();
        segments.iter().filter(|segment| segment["state"] == "sealed").count()
    };
    assert_eq!(sealed(), 3);
    // The third segment holds offsets 20 to 29.
    assert_exit(&run(&on("trim", dir.path(), &["--stream", "s", "--before", "25"])), 0);
    assert_eq!(sealed(), 1);
    assert_eq!(read(dir.path(), &[]), [lines(5..10), lines(0..10)].concat());
}

#[test]
fn a_stream_is_trimmed_by_itself() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10));
    let other = on("append", dir.path(), &["--stream", "other"]);
    assert_exit(&crate::common::run_with(&other, &lines(0..10)), 0);
    let of_s = |before| on("trim", dir.path(), &["--stream", "s", "--before", before]);
    let output = run(&[&of_s("4")[..], &["--json"]].concat());
    assert_exit(&output, 0);
    assert_eq!(json(&output), serde_json::json!({ "stream": "s", "first_offset": 4 }));
    let output = run(&of_s("2"));
    assert_exit(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "stream s begins at 4\n", "it was trimmed further before");

    assert_eq!(read(dir.path(), &[]), lines(4..10));
    let output = run(&on("read", dir.path(), &["--stream", "other"]));
    assert_eq!(output.stdout, lines(0..10), "the other stream is whole");
    let streams = json(&run(&on("streams", dir.path(), &["--json"])));
    assert_eq!(streams[1]["first_offset"], 4, "{streams}");
    let exported = run(&on("export", dir.path(), &["--stream", "s"])).stdout;
    assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 6, "what can be read");
    let all = String::from_utf8(run(&on("export", dir.path(), &[])).stdout).unwrap();
    let of = |name: &str| all.lines().filter(|line| line.contains(name)).count();
    assert_eq!((of("\"stream\":\"s\""), of("\"stream\":\"other\"")), (6, 10));
    let dumped = run(&on("dump", dir.path(), &["--stream", "s", "--json"])).stdout;
    let dumped = String::from_utf8(dumped).unwrap();
    assert_eq!(dumped.lines().filter(|line| line.contains("\"trimmed\":true")).count(), 4);

    let output = run(&of_s("11"));
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("offset 10"), "{}", stderr(&output));
    let bad: [&[&str]; 5] = [
        &[],
        &["--stream", "s"],
        &["--before", "3"],
        &["--stream", "s", "--before", "3", "--keep-segments", "1"],
        &["--stream", "none", "--before", "0"],
    ];
    for args in bad {
        assert_exit(&run(&on("trim", dir.path(), args)), 2);
    }
    assert_exit(&run(&of_s("10")), 0);
    assert_eq!(read(dir.path(), &[]), b"");
    assert_eq!(append(dir.path(), &[], b"x\n")["first_offset"], 10);
    assert_exit(&run(&on("verify", dir.path(), &[])), 0);
}
