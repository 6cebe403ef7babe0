//! Records of many streams: listed, dumped, exported, imported.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{
    append, assert_exit, files, json, lines, on, read, ringlog, run, run_with, stderr,
};
use serde_json::{Value, json};
use tempfile::tempdir;

/// Each line of stdout as JSON.
fn json_lines(stdout: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Appends lines to a stream of a log with three shards.
fn append_to(dir: &Path, stream: &str, input: &[u8]) {
    let rest = ["--stream", stream, "--segment-bytes", "1M", "--shards", "3"];
    assert_exit(&run_with(&on("append", dir, &rest), input), 0);
}

/// Streams on three shards, interleaved, over several segments, with payloads of every kind.
fn mixed(dir: &Path) {
    for round in 0..3 {
        for name in ["a", "b", "ü \x1b[2J"] {
            append_to(dir, name, &lines(round * 1_500..(round + 1) * 1_500));
        }
    }
    append_to(dir, "bytes", b"\xff\xfe\n\n\0\n\"\\\n");
    append_to(dir, "empty", b"");
}

/// Records by stream, without what an import gives anew.
fn content(exported: &[u8]) -> BTreeMap<String, Vec<Value>> {
    let mut streams: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut line in json_lines(exported) {
        line.as_object_mut().unwrap().remove("timestamp_ns").unwrap();
        streams.entry(line["stream"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    streams
}

#[test]
fn streams_are_listed_by_name() {
    let dir = tempdir().unwrap();
    mixed(dir.path());
    let output = run(&on("streams", dir.path(), &["--json"]));
    assert_exit(&output, 0);
    let streams = json(&output);
    let streams = streams.as_array().unwrap();
    let names: Vec<&str> = streams.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "bytes", "empty", "ü \x1b[2J"]);
    let nexts: Vec<u64> = streams.iter().map(|one| one["next_offset"].as_u64().unwrap()).collect();
    assert_eq!(nexts, [4_500, 4_500, 4, 0, 4_500]);
    assert!(streams.iter().all(|one| one["first_offset"] == 0 && one["id"].as_u64() > Some(0)));

    let output = run(&on("streams", dir.path(), &[]));
    assert_exit(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.contains(r"ü \u{1b}[2J") && !text.contains('\x1b'), "{text}");
}

#[test]
fn streams_tells_the_first_offset_that_is_left() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10));
    assert_exit(&run(&on("rotate", dir.path(), &[])), 0);
    append(dir.path(), &[], &lines(10..20));
    assert_exit(&run(&on("rotate", dir.path(), &[])), 0);
    assert_exit(&run(&on("trim", dir.path(), &["--keep-segments", "1"])), 0);
    let streams = json(&run(&on("streams", dir.path(), &["--json"])));
    assert_eq!(streams[0]["first_offset"], 10, "{streams}");
    assert_eq!(streams[0]["next_offset"], 20, "{streams}");
    assert_eq!(streams[0]["records"], 10, "{streams}");
}

#[test]
fn an_export_imported_is_the_same_log() {
    let parent = tempdir().unwrap();
    let (from, to) = (parent.path().join("from"), parent.path().join("to"));
    mixed(&from);
    let before = files(&from);
    let exported = run(&on("export", &from, &[]));
    assert_exit(&exported, 0);
    assert!(before == files(&from), "an export has changed something");

    let rest = ["--segment-bytes", "1M", "--shards", "2", "--durability", "written"];
    let output = run_with(&on("import", &to, &rest), &exported.stdout);
    assert_exit(&output, 0);
    let summary = json(&output);
    let records = exported.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(records, 13_504);
    assert_eq!(summary["records"], records, "{summary}");
    assert_eq!(summary["streams"], 4, "{summary}");
    assert_eq!(summary["renumbered"], 0, "{summary}");
    assert_eq!(summary["durability"], "written", "{summary}");
    assert_eq!(summary["ended"], "end of input", "{summary}");

    let again = run(&on("export", &to, &[]));
    assert!(content(&again.stdout) == content(&exported.stdout), "the logs differ");
    let bytes = run(&on("read", &to, &["--stream", "bytes"]));
    assert_eq!(bytes.stdout, b"\xff\xfe\n\n\0\n\"\\\n");

    // Once more, from a file: behind what is there.
    let file = parent.path().join("lines");
    std::fs::write(&file, &exported.stdout).unwrap();
    let output = run(&on("import", &to, &[file.to_str().unwrap()]));
    assert_exit(&output, 0);
    assert_eq!(json(&output)["renumbered"], records, "each has another offset");
}

#[test]
fn an_export_of_a_stream_or_of_a_time_is_that_part() {
    let dir = tempdir().unwrap();
    mixed(dir.path());
    let all = content(&run(&on("export", dir.path(), &[])).stdout);
    let one = run(&on("export", dir.path(), &["--stream", "b"]));
    assert_exit(&one, 0);
    let one = content(&one.stdout);
    assert_eq!(one.len(), 1);
    assert!(one["b"] == all["b"]);
    let offsets = one["b"].iter().map(|line| line["offset"].as_u64().unwrap());
    assert!(offsets.eq(0..4_500), "in the order of the offsets");

    let exported = run(&on("export", dir.path(), &["--stream", "a"])).stdout;
    let times: Vec<u64> =
        json_lines(&exported).iter().map(|line| line["timestamp_ns"].as_u64().unwrap()).collect();
    let middle = times[3_000];
    let since = format!("{}.{:09}", middle / 1_000_000_000, middle % 1_000_000_000);
    let part = run(&on("export", dir.path(), &["--stream", "a", "--since", &since]));
    assert_exit(&part, 0);
    let first = times.iter().position(|time| *time >= middle).unwrap();
    assert!(first > 0, "the rounds lie apart in time");
    let part = json_lines(&part.stdout);
    assert_eq!(part.len(), times.len() - first);
    assert_eq!(part[0]["offset"], first);
    let none = run(&on("export", dir.path(), &["--since", "2500-01-01"]));
    assert_exit(&none, 0);
    assert!(none.stdout.is_empty());
    for time in ["yesterday", "", "10x"] {
        assert_exit(&run(&on("export", dir.path(), &["--since", time])), 2);
    }
}

#[test]
fn an_import_keeps_tombstones_and_stops_at_what_is_no_record() {
    let dir = tempdir().unwrap();
    let input = b"{\"stream\":\"x\",\"payload\":\"one\"}\n\
        \n\
        {\"stream\":\"x\",\"payload\":\"gone\",\"tombstone\":true,\"offset\":7}\n\
        {\"stream\":\"y\",\"payload_base64\":\"/w==\"}\n\
        {\"stream\":\"x\",\"payload\":\"half\n\
        {\"stream\":\"x\",\"payload\":\"behind\"}\n";
    let rest = ["--segment-bytes", "1M"];
    let output = run_with(&on("import", dir.path(), &rest), input);
    assert_exit(&output, 1);
    let text = stderr(&output);
    assert!(text.contains("line 5: column"), "{text}");
    assert!(text.contains("3 records were acknowledged (synced)"), "{text}");
    let summary = json(&output);
    assert_eq!(summary["records"], 3, "{summary}");
    assert_eq!(summary["renumbered"], 1, "{summary}");
    assert_eq!(summary["ended"], "error", "{summary}");

    let exported = json_lines(&run(&on("export", dir.path(), &[])).stdout);
    let without_time: Vec<Value> = exported
        .into_iter()
        .map(|mut line| {
            line.as_object_mut().unwrap().remove("timestamp_ns");
            line
        })
        .collect();
    let expected = [
        json!({ "stream": "x", "offset": 0, "payload": "one" }),
        json!({ "stream": "x", "offset": 1, "payload": "gone", "tombstone": true }),
        json!({ "stream": "y", "offset": 0, "payload_base64": "/w==" }),
    ];
    assert_eq!(without_time, expected);
}

#[test]
fn an_import_refuses_names_and_sizes_that_no_log_takes() {
    let dir = tempdir().unwrap();
    let long = "n".repeat(256);
    let large = "p".repeat(300_000);
    for (line, why) in [
        (json!({ "stream": "", "payload": "x" }), "1 to 255 bytes"),
        (json!({ "stream": long, "payload": "x" }), "1 to 255 bytes"),
        (json!({ "stream": "s", "payload": large }), "line 2"),
    ] {
        let input = format!("{{\"stream\":\"s\",\"payload\":\"good\"}}\n{line}\n");
        let rest = ["--segment-bytes", "1M"];
        let output = run_with(&on("import", dir.path(), &rest), input.as_bytes());
        assert_exit(&output, 1);
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
        assert_eq!(json(&output)["records"], 1);
    }
    assert_eq!(read(dir.path(), &[]), b"good\ngood\ngood\n");
    // A file that is not there creates no log.
    let missing = dir.path().join("none");
    assert_exit(&run(&on("import", &missing, &["no such file"])), 2);
    assert!(!missing.exists());
}

#[test]
fn a_dump_shows_every_entry_in_the_order_of_the_log() {
    let dir = tempdir().unwrap();
    mixed(dir.path());
    let before = files(dir.path());
    let output = run(&on("dump", dir.path(), &["--json"]));
    assert_exit(&output, 0);
    assert!(before == files(dir.path()), "a dump has changed something");
    let entries = json_lines(&output.stdout);
    let of_users = entries.iter().filter(|entry| entry["kind"] == "record").count();
    let of_shards = entries.iter().filter(|entry| entry["kind"] == "internal").count();
    assert_eq!((of_users, of_shards), (13_504, 5), "records, and creations of streams");
    let place = |entry: &Value| (entry["shard"].as_u64(), entry["lsn"].as_u64());
    assert!(entries.windows(2).all(|two| place(&two[0]) <= place(&two[1])), "the order");
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry["kind"] == "record") {
        let next = next.entry(entry["stream"].as_str().unwrap()).or_default();
        assert_eq!(entry["offset"], *next, "{entry}");
        *next += 1;
    }

    let output = run(&on("dump", dir.path(), &["--limit", "7", "--payload-bytes", "5"]));
    assert_exit(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 8, "a heading and 7 entries: {text}");
    assert!(text.contains("… and "), "{text}");
    let output = run(&on("dump", dir.path(), &["--stream", "bytes"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(r"\xff\xfe") && text.contains(r"\u{0}"), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
    assert_exit(&run(&on("dump", dir.path(), &["--stream", "none"])), 2);
    let all = run(&on("dump", dir.path(), &[]));
    assert!(!all.stdout.contains(&0x1b), "a name has reached the terminal as it is");
}

#[test]
fn damage_is_told_and_passed() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10_000));
    let segments = files(dir.path()).into_iter().filter(|(_, bytes)| bytes.len() >= 1 << 20);
    let (oldest, mut bytes) = segments.min().unwrap();
    bytes[500_000] ^= 0x10;
    std::fs::write(&oldest, bytes).unwrap();
    let name = oldest.file_name().unwrap().to_str().unwrap();

    let readable = run(&on("read", dir.path(), &["--stream", "s", "--json"]));
    assert_exit(&readable, 1);
    let left = json_lines(&readable.stdout);
    for command in ["export", "dump"] {
        let output = run(&on(command, dir.path(), &["--json"]));
        assert_exit(&output, 1);
        assert!(stderr(&output).contains(name), "{command}: {}", stderr(&output));
        let found: Vec<Value> = json_lines(&output.stdout)
            .into_iter()
            .filter(|line| line["stream"] == "s")
            .map(|line| line["offset"].clone())
            .collect();
        let expected: Vec<Value> = left.iter().map(|line| line["offset"].clone()).collect();
        assert!(!expected.is_empty() && expected.len() < 10_000);
        assert!(found == expected, "{command}: not what `read` finds");
    }
    // One of the segments is gone.
    std::fs::remove_file(&oldest).unwrap();
    let output = run(&on("export", dir.path(), &[]));
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
    assert!(!output.stdout.is_empty(), "what follows is exported");
}

#[test]
fn inspect_shows_which_offsets_the_segments_hold() {
    let dir = tempdir().unwrap();
    for round in 0..2 {
        append(dir.path(), &[], &lines(round * 10..round * 10 + 10));
        let other = on("append", dir.path(), &["--stream", "t"]);
        assert_exit(&run_with(&other, &lines(0..3)), 0);
        assert_exit(&run(&on("rotate", dir.path(), &[])), 0);
    }
    let inspection = json(&run(&on("inspect", dir.path(), &["--streams", "--json"])));
    let segments = inspection["shards"][0]["segments"].as_array().unwrap();
    let held: Vec<Value> = segments
        .iter()
        .flat_map(|segment| segment["streams"].as_array().unwrap())
        .map(|held| json!([held["name"], held["first_offset"], held["last_offset"]]))
        .collect();
    let of = |name: &str| -> Vec<&Value> { held.iter().filter(|one| one[0] == name).collect() };
    assert_eq!(of("s").last().unwrap()[2], 19, "{inspection}");
    assert_eq!(of("t").last().unwrap()[2], 5, "{inspection}");
    for name in ["s", "t"] {
        assert_eq!(of(name)[0][1], 0);
        let joined = of(name).windows(2).all(|two| two[0][2].as_u64().unwrap() + 1 == two[1][1]);
        assert!(joined, "each segment goes on where the one before ends: {inspection}");
    }
    let cheap = json(&run(&on("inspect", dir.path(), &["--json"])));
    assert_eq!(cheap["shards"][0]["segments"][0]["streams"], Value::Null);
    let text = run(&on("inspect", dir.path(), &["--streams"]));
    assert_exit(&text, 0);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("records  first  last  stream"), "{text}");
}

#[test]
fn an_interrupted_import_says_what_is_stored() {
    let dir = tempdir().unwrap();
    let args = on("import", dir.path(), &["--segment-bytes", "1M"]);
    let mut child = ringlog(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for _ in 0..50 {
        stdin.write_all(b"{\"stream\":\"s\",\"payload\":\"x\"}\n").unwrap();
    }
    // Another process sees when they are there.
    let stored = || {
        let output = run(&on("streams", dir.path(), &["--json"]));
        output.status.success().then(|| json(&output)[0]["next_offset"].as_u64()).flatten()
    };
    while stored() != Some(50) {
        assert_eq!(child.try_wait().unwrap(), None, "it has ended by itself");
    }
    let pid = child.id().to_string();
    let kill = Command::new("sh").args(["-c", "kill -INT \"$0\"", &pid]).status();
    assert!(kill.unwrap().success(), "the signal could not be sent");
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_exit(&output, 130);
    assert_eq!(json(&output)["ended"], "interrupted");
    assert_eq!(json(&output)["records"], 50);
    assert_eq!(read(dir.path(), &[]), b"x\n".repeat(50));
}
