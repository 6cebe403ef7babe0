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
    assert_exit(&run(&on("stats", dir.path(), &[])), 0);
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
