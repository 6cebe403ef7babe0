//! Printed acknowledgements are true, complete and in order, whatever ends the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::common::{
    assert_exit, line, lines, on, ringlog, run, run_with, stderr, summary_on_stderr,
};
use tempfile::tempdir;

fn append_args<'a>(dir: &'a Path, durability: &'a str) -> Vec<&'a str> {
    let rest = ["--stream", "s", "--segment-bytes", "1M", "--print-acks", "--durability"];
    let mut args = on("append", dir, &rest);
    args.push(durability);
    args
}

/// Starts an append that prints acknowledgements; gives it and its stdout.
fn start(dir: &Path, durability: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = ringlog(&append_args(dir, durability)).stdin(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

fn next_ack(stdout: &mut BufReader<ChildStdout>) -> u64 {
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    text.trim_end().parse().unwrap_or_else(|_| panic!("{text:?} is no acknowledgement"))
}

#[test]
fn each_offset_once_and_in_order() {
    let input = lines(0..5_000);
    for durability in ["memory", "written", "synced"] {
        for more in [&[][..], &["--batch", "17"]] {
            let dir = tempdir().unwrap();
            let args = [&append_args(dir.path(), durability)[..], more].concat();
            let output = run_with(&args, &input);
            assert_exit(&output, 0);
            let expected: String = (0..5_000).map(|offset| format!("{offset}\n")).collect();
            assert!(
                output.stdout == expected.as_bytes(),
                "{durability} {more:?}: the acknowledgements are not 0 to 4999"
            );
            let summary = summary_on_stderr(&output.stderr);
            assert_eq!(summary["records"], 5_000);
            assert_eq!(summary["first_offset"], 0);
            assert_eq!(summary["last_offset"], 4_999);
        }
    }
}

#[test]
fn an_acknowledgement_does_not_wait_for_more_input() {
    for durability in ["memory", "written", "synced"] {
        let dir = tempdir().unwrap();
        let (mut child, mut stdout) = start(dir.path(), durability);
        let mut stdin = child.stdin.take().unwrap();
        // Each line is sent only when the one before it is acknowledged: a tool that kept an
        // acknowledgement back would hang here for ever.
        for number in 0..20 {
            stdin.write_all(&lines(number..number + 1)).unwrap();
            assert_eq!(next_ack(&mut stdout), number, "{durability}");
        }
        drop(stdin);
        assert_exit(&child.wait_with_output().unwrap(), 0);
    }
}

#[test]
fn a_killed_append_keeps_what_it_acknowledged() {
    for durability in ["written", "synced", "memory"] {
        let dir = tempdir().unwrap();
        let mut stored = 0;
        // Several lives of one log, each killed at another amount of acknowledgements.
        for acks in [1, 40, 1_500, 7, 9_000, 300] {
            stored = one_killed_life(dir.path(), durability, stored, acks);
        }
        let output = run(&on("verify", dir.path(), &[]));
        assert_exit(&output, 0);
    }
}

/// Appends numbered lines from `begin` on, kills the tool after `acks` acknowledgements, checks
/// what is stored, and gives how much that is.
fn one_killed_life(dir: &Path, durability: &str, begin: u64, acks: u64) -> u64 {
    let (mut child, mut stdout) = start(dir, durability);
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        // Until the tool is dead.
        let mut number = begin;
        while stdin.write_all(&lines(number..number + 100)).is_ok() {
            number += 100;
        }
    });
    for expected in begin..begin + acks {
        assert_eq!(next_ack(&mut stdout), expected, "{durability}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    feeder.join().unwrap();
    // What it wrote before its death counts as well; the last line may be torn.
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
    let acknowledged = whole.lines().last().map_or(begin + acks, |ack| {
        ack.parse::<u64>().unwrap_or_else(|_| panic!("{ack:?} is no acknowledgement")) + 1
    });

    let output = run(&on("read", dir, &["--stream", "s"]));
    // In memory the stream itself may not have survived.
    if durability == "memory" && output.status.code() == Some(2) {
        return 0;
    }
    assert_exit(&output, 0);
    let mut stored = 0;
    for text in output.stdout.split_inclusive(|b| *b == b'\n') {
        assert!(
            text.strip_suffix(b"\n") == Some(&line(stored)),
            "{durability}: record {stored} is not what was appended"
        );
        stored += 1;
    }
    if durability != "memory" {
        assert!(
            stored >= acknowledged,
            "{durability}: {acknowledged} acknowledged, but {stored} stored"
        );
    }
    stored
}

#[test]
fn an_interrupted_append_says_what_is_stored() {
    for durability in ["memory", "written", "synced"] {
        let dir = tempdir().unwrap();
        let (mut child, mut stdout) = start(dir.path(), durability);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&lines(0..50)).unwrap();
        for expected in 0..50 {
            assert_eq!(next_ack(&mut stdout), expected);
        }
        let kill =
            Command::new("sh").args(["-c", "kill -INT \"$0\"", &child.id().to_string()]).status();
        assert!(kill.unwrap().success(), "the signal could not be sent");
        // Its input is still open: it ends because of the signal.
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        assert_exit(&output, 130);
        let summary = summary_on_stderr(&output.stderr);
        assert_eq!(summary["ended"], "interrupted");
        assert_eq!(summary["records"], 50);
        assert_eq!(crate::common::read(dir.path(), &[]), lines(0..50), "{durability}");
    }
}

#[test]
fn an_append_whose_acknowledgements_nobody_reads_ends_quietly() {
    let dir = tempdir().unwrap();
    let (mut child, mut stdout) = start(dir.path(), "synced");
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let mut number = 0;
        while stdin.write_all(&lines(number..number + 100)).is_ok() {
            number += 100;
        }
    });
    assert_eq!(next_ack(&mut stdout), 0);
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_exit(&output, 0);
    let summary = summary_on_stderr(&output.stderr);
    assert_eq!(summary["ended"], "stdout closed");
    let records = summary["records"].as_u64().unwrap();
    assert!(records > 0, "the first one was acknowledged");
    assert!(crate::common::read(dir.path(), &[]) == lines(0..records), "the summary is the truth");
    assert!(!stderr(&output).contains("panic"), "{}", stderr(&output));
}

#[test]
fn a_reader_whose_pipe_closes_ends_quietly() {
    let dir = tempdir().unwrap();
    // More than all buffers on the way can hold.
    crate::common::append(dir.path(), &["--durability", "memory"], &lines(0..8_000));
    let of_s = on("read", dir.path(), &["--stream", "s"]);
    for args in [
        of_s.clone(),
        [&of_s[..], &["--json"]].concat(),
        on("dump", dir.path(), &["--json"]),
        on("export", dir.path(), &[]),
    ] {
        let mut child = ringlog(&args).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_exit(&output, 0);
        assert!(!stderr(&output).contains("panic"), "{}", stderr(&output));
        assert!(!stderr(&output).contains("error"), "{}", stderr(&output));
    }
}

#[test]
fn a_full_stdout_is_an_error() {
    let dir = tempdir().unwrap();
    crate::common::append(dir.path(), &[], b"a\n");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for command in [
        on("read", dir.path(), &["--stream", "s"]),
        on("dump", dir.path(), &[]),
        on("export", dir.path(), &[]),
        on("streams", dir.path(), &[]),
        on("inspect", dir.path(), &[]),
        on("stats", dir.path(), &["--json"]),
        vec!["man"],
        on("append", dir.path(), &["--stream", "s"]),
    ] {
        let output = ringlog(&command).stdout(full()).output().unwrap();
        assert_exit(&output, 1);
        assert!(stderr(&output).contains("stdout"), "{command:?}: {}", stderr(&output));
    }
    let args = append_args(dir.path(), "synced");
    let child = ringlog(&args).stdin(Stdio::piped()).stdout(full()).spawn().unwrap();
    let output = crate::common::feed_and_wait(child, b"b\n");
    assert_exit(&output, 1);
    assert_eq!(summary_on_stderr(&output.stderr)["records"], 1, "it is stored all the same");
}

#[test]
fn a_second_writer_is_refused_while_the_first_goes_on() {
    let dir = tempdir().unwrap();
    let (mut child, mut stdout) = start(dir.path(), "synced");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(next_ack(&mut stdout), 0);

    for command in [
        on("append", dir.path(), &["--stream", "s"]),
        on("rotate", dir.path(), &[]),
        on("trim", dir.path(), &["--keep-segments", "1"]),
        on("trim", dir.path(), &["--stream", "s", "--before", "1"]),
        on("retain", dir.path(), &["--max-segments", "1"]),
        on("repair", dir.path(), &["--yes"]),
        on("import", dir.path(), &[]),
    ] {
        let output = run_with(&command, b"intruder\n");
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("open for writing"), "{command:?}: {}", stderr(&output));
    }
    // Reading is no writing.
    assert_eq!(crate::common::read(dir.path(), &[]), b"one\n");

    stdin.write_all(b"two\n").unwrap();
    assert_eq!(next_ack(&mut stdout), 1);
    drop(stdin);
    assert_exit(&child.wait_with_output().unwrap(), 0);
    assert_eq!(crate::common::read(dir.path(), &[]), b"one\ntwo\n");
}
