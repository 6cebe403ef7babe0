//! What goes in through `append` comes out through `read`, byte for byte.

use crate::common::{append, assert_exit, json, lines, on, read, run, run_with, stderr};
use serde_json::{Value, json};
use tempfile::tempdir;

/// Empty lines, all byte values, carriage returns, text that is no UTF-8.
fn awkward() -> Vec<u8> {
    let mut input = b"\n\nfirst\n\r\n\0\0\n\xff\xfe\xf0\n".to_vec();
    input.extend((0..=255).filter(|b| *b != b'\n'));
    input.extend(b"\n\n\ttail\n\n");
    input
}

#[test]
fn every_byte_comes_back_at_every_durability() {
    let input = awkward();
    let records = input.iter().filter(|b| **b == b'\n').count();
    for durability in ["memory", "written", "synced"] {
        let dir = tempdir().unwrap();
        let summary = append(dir.path(), &["--durability", durability], &input);
        assert_eq!(summary["records"], records, "{durability}: {summary}");
        let work = &summary["work"];
        if durability != "memory" {
            assert!(work["commits"].as_u64() > Some(0), "{summary}");
            assert!(work["write_amplification"].as_f64() >= Some(1.0), "{summary}");
        }
        assert_eq!(work["flush_failures"], 0, "{summary}");
        if durability == "synced" {
            assert!(work["flushes"].as_u64() > Some(0), "{summary}");
            assert!(work["flush_us_p99"].as_f64() >= work["flush_us_p50"].as_f64(), "{summary}");
        }
        assert_eq!(summary["bytes"], input.len() - records, "{durability}");
        assert_eq!(summary["first_offset"], 0);
        assert_eq!(summary["last_offset"], records - 1);
        assert_eq!(summary["durability"], durability);
        assert_eq!(summary["ended"], "end of input");
        assert_eq!(summary["error"], Value::Null);
        assert_eq!(read(dir.path(), &[]), input, "{durability}");
    }
}

#[test]
fn a_last_line_without_newline_is_a_record() {
    let dir = tempdir().unwrap();
    assert_eq!(append(dir.path(), &[], b"a\nb")["records"], 2);
    assert_eq!(append(dir.path(), &[], b"c")["first_offset"], 2);
    assert_eq!(read(dir.path(), &[]), b"a\nb\nc\n");
}

#[test]
fn no_input_makes_no_record_but_the_stream() {
    let dir = tempdir().unwrap();
    let summary = append(dir.path(), &[], b"");
    assert_eq!(summary["records"], 0);
    assert_eq!(summary["first_offset"], Value::Null);
    assert_eq!(summary["last_offset"], Value::Null);
    assert_eq!(read(dir.path(), &[]), b"");
}

#[test]
fn many_lines_over_many_segments_in_several_runs() {
    for durability in ["memory", "written", "synced"] {
        let dir = tempdir().unwrap();
        let cuts = [0, 1, 6_000, 6_001, 12_000];
        for cut in cuts.windows(2) {
            let summary = append(dir.path(), &["--durability", durability], &lines(cut[0]..cut[1]));
            assert_eq!(summary["first_offset"], cut[0], "{durability}");
            assert_eq!(summary["last_offset"], cut[1] - 1, "{durability}");
        }
        assert!(read(dir.path(), &[]) == lines(0..12_000), "{durability}: not the same bytes");
    }
}

#[test]
fn a_file_or_stdin() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("input");
    std::fs::write(&file, b"from\na file").unwrap();
    let log = dir.path().join("log");
    append(&log, &[file.to_str().unwrap()], b"not read\n");
    append(&log, &["-"], b"from stdin\n");
    assert_eq!(read(&log, &[]), b"from\na file\nfrom stdin\n");
}

#[test]
fn batches_hold_every_line_in_order() {
    let input = lines(0..2_500);
    for (n, durability) in [("1", "synced"), ("7", "written"), ("500", "synced"), ("64", "memory")]
    {
        let dir = tempdir().unwrap();
        let summary = append(dir.path(), &["--batch", n, "--durability", durability], &input);
        assert_eq!(summary["records"], 2_500, "batches of {n}");
        assert_eq!(summary["first_offset"], 0, "batches of {n}");
        assert_eq!(summary["last_offset"], 2_499, "batches of {n}");
        assert!(read(dir.path(), &[]) == input, "batches of {n}: not the same bytes");
    }
}

#[test]
fn every_sync_policy_takes_records() {
    let policies = [
        ("every-commit", "synced"),
        ("every-append", "synced"),
        ("interval:5ms", "synced"),
        // The end of the input is not kept waiting.
        ("interval:1h", "synced"),
        ("records:10", "synced"),
        ("records:1000000:1h", "synced"),
        ("bytes:4K:5ms", "synced"),
        ("never", "written"),
        ("never", "memory"),
    ];
    for (policy, durability) in policies {
        let dir = tempdir().unwrap();
        let args = ["--sync", policy, "--durability", durability];
        let summary = append(dir.path(), &args, &lines(0..50));
        assert_eq!(summary["records"], 50, "{policy}");
        assert_eq!(read(dir.path(), &[]), lines(0..50), "{policy}");
    }
}

#[test]
fn shards_and_streams_keep_apart() {
    let dir = tempdir().unwrap();
    for name in ["a", "b", "ü/../c"] {
        let args = on("append", dir.path(), &["--stream", name, "--shards", "3"]);
        let args = [&args[..], &["--segment-bytes", "1M"]].concat();
        assert_exit(&run_with(&args, name.as_bytes()), 0);
    }
    for name in ["a", "b", "ü/../c"] {
        let output = run(&on("read", dir.path(), &["--stream", name]));
        assert_exit(&output, 0);
        assert_eq!(output.stdout, format!("{name}\n").as_bytes());
    }
    let inspection = json(&run(&on("inspect", dir.path(), &["--json"])));
    assert_eq!(inspection["shards"].as_array().unwrap().len(), 3);
}

#[test]
fn from_and_limit() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..3_000));
    assert_eq!(read(dir.path(), &["--from", "0", "--limit", "0"]), b"");
    assert_eq!(read(dir.path(), &["--limit", "1"]), lines(0..1));
    assert_eq!(read(dir.path(), &["--from", "2999"]), lines(2_999..3_000));
    assert_eq!(read(dir.path(), &["--from", "1234", "--limit", "700"]), lines(1_234..1_934));
    assert_eq!(read(dir.path(), &["--from", "2990", "--limit", "700"]), lines(2_990..3_000));
    assert_eq!(read(dir.path(), &["--from", "3000"]), b"", "just behind the end is empty");
    let output = run(&on("read", dir.path(), &["--stream", "s", "--from", "3001"]));
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("3000"), "{}", stderr(&output));
}

#[test]
fn json_lines_hold_text_or_base64() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], "grüße \"x\"\n\n\u{1}\n".as_bytes());
    append(dir.path(), &[], b"\xff\0a\n");
    let output = String::from_utf8(read(dir.path(), &["--json"])).unwrap();
    let records: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 4);
    for (offset, record) in records.iter().enumerate() {
        assert_eq!(record["offset"], offset);
        assert!(record["timestamp_ns"].as_u64().unwrap() > 0, "{record}");
    }
    assert_eq!(records[0]["payload"], "grüße \"x\"");
    assert_eq!(records[1]["payload"], "");
    assert_eq!(records[2]["payload"], "\u{1}");
    assert_eq!(records[3].get("payload"), None);
    assert_eq!(records[3]["payload_base64"], "/wBh");
}

#[test]
fn a_reader_needs_no_lock_and_changes_nothing() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..100));
    let before = crate::common::files(dir.path());
    assert_eq!(read(dir.path(), &[]), lines(0..100));
    assert_exit(&run(&on("stats", dir.path(), &[])), 0);
    assert_exit(&run(&on("inspect", dir.path(), &[])), 0);
    assert_exit(&run(&on("verify", dir.path(), &[])), 0);
    assert!(before == crate::common::files(dir.path()), "a command that reads has written");
}

#[test]
fn large_records_up_to_the_limit_and_one_beyond() {
    let dir = tempdir().unwrap();
    // A quarter of a segment of 1 MiB bounds a batch, with header and padding.
    let large = vec![b'x'; 200 << 10];
    let summary = append(dir.path(), &[], &large);
    assert_eq!(summary["bytes"], large.len());

    let mut input = lines(0..10);
    input.extend(vec![b'y'; 3 << 20]);
    input.extend(b"\nnever appended\n");
    let output = run_with(&on("append", dir.path(), &["--stream", "s"]), &input);
    assert_exit(&output, 1);
    assert!(stderr(&output).contains("line 11"), "{}", stderr(&output));
    let summary = json(&output);
    assert_eq!(summary["records"], 10, "those before it are acknowledged");
    assert_eq!(summary["ended"], "error");

    let mut expected = large;
    expected.push(b'\n');
    expected.extend(lines(0..10));
    assert!(read(dir.path(), &[]) == expected, "what was acknowledged, and nothing else");
}

#[test]
fn the_blocking_disk_on_request() {
    let dir = tempdir().unwrap();
    let args = on("append", dir.path(), &["--stream", "s", "--segment-bytes", "1M"]);
    let child = crate::common::ringlog(&args)
        .env("RINGLOG_IO", "blocking")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = crate::common::feed_and_wait(child, &lines(0..3_000));
    assert_exit(&output, 0);
    assert_eq!(json(&output)["io"], json!("blocking"));
    assert!(read(dir.path(), &[]) == lines(0..3_000), "not the same bytes");
}

#[test]
fn flags_win_over_the_environment() {
    let dir = tempdir().unwrap();
    let args = on("append", dir.path(), &["--stream", "s", "--durability", "written"]);
    let args = [&args[..], &["--segment-bytes", "1M"]].concat();
    let mut command = crate::common::ringlog(&args);
    command.env("RINGLOG_DURABILITY", "memory").env("RINGLOG_SEGMENT_BYTES", "2097152");
    let output = command.output().unwrap();
    assert_exit(&output, 0);
    assert_eq!(json(&output)["durability"], "written");
    let inspection = json(&run(&on("inspect", dir.path(), &["--json"])));
    assert_eq!(inspection["segment_bytes"], 1 << 20);
}

/// The numbers that lines begin with.
fn numbers(stdout: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(stdout).unwrap();
    let number = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
    text.lines().map(number).collect()
}

#[test]
fn backwards_is_the_same_the_other_way_round() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..6_000));
    let forth = numbers(&read(dir.path(), &[]));
    let back = numbers(&read(dir.path(), &["--reverse"]));
    assert!(forth.iter().eq(back.iter().rev()), "6,000 records over several segments");
    assert_eq!(numbers(&read(dir.path(), &["--reverse", "--limit", "2"])), [5_999, 5_998]);
    let part = numbers(&read(dir.path(), &["--reverse", "--from", "5997"]));
    assert_eq!(part, [5_999, 5_998, 5_997]);
}

#[test]
fn a_time_begins_with_the_first_record_that_is_not_older() {
    let dir = tempdir().unwrap();
    for round in 0..3 {
        append(dir.path(), &[], &lines(round * 1_000..(round + 1) * 1_000));
    }
    let all = String::from_utf8(read(dir.path(), &["--json"])).unwrap();
    let times: Vec<u64> = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["timestamp_ns"].as_u64().unwrap())
        .collect();
    for at in [0, 1, 1_000, 2_500, 2_999] {
        let time = times[at];
        let since = format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
        let first = times.iter().position(|one| *one >= time).unwrap() as u64;
        let found = numbers(&read(dir.path(), &["--since", &since]));
        assert!(found.iter().copied().eq(first..3_000), "since record {at}");
        let found = numbers(&read(dir.path(), &["--since", &since, "--reverse"]));
        assert!(found.iter().copied().eq((first..3_000).rev()), "since record {at}, backwards");
    }
    assert_eq!(numbers(&read(dir.path(), &["--since", "1h"])).len(), 3_000);
    assert_eq!(read(dir.path(), &["--since", "2500-01-01T00:00:00Z"]), b"");
    assert_eq!(read(dir.path(), &["--since", "2500-01-01T00:00:00Z", "--reverse"]), b"");
    for bad in [&["--since", "never"][..], &["--since", "1h", "--from", "3"]] {
        let args = [&on("read", dir.path(), &["--stream", "s"])[..], bad].concat();
        assert_exit(&run(&args), 2);
    }
}

#[test]
fn every_visibility_shows_what_is_durable() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..100));
    for level in ["durable", "written", "staged"] {
        assert_eq!(read(dir.path(), &["--visibility", level]), lines(0..100), "{level}");
        let back = read(dir.path(), &["--visibility", level, "--reverse"]);
        assert!(numbers(&back).into_iter().eq((0..100).rev()), "{level}");
    }
    let args = on("read", dir.path(), &["--stream", "s", "--visibility", "all"]);
    assert_exit(&run(&args), 2);
}
