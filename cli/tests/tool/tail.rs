//! `tail`: what is acknowledged elsewhere comes out here, once and in order.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output};

use crate::common::{append, assert_exit, files, line, lines, on, ringlog, run, stderr};
use crate::live::Writer;
use serde_json::Value;
use tempfile::tempdir;

/// A running `tail` of stream `s`.
struct Tail {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Tail {
    fn start(dir: &Path, more: &[&str]) -> Self {
        // Beside a writer a record is shown once something later speaks for it: a few milliseconds
        // after its acknowledgement. Until then the stream that it began is not there.
        for _ in 0..200 {
            if run(&on("read", dir, &["--stream", "s", "--limit", "1"])).status.success() {
                break;
            }
        }
        let args = [&on("tail", dir, &["--stream", "s"])[..], more].concat();
        let mut child = ringlog(&args).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// The next line, with its newline; waits for it.
    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.stdout.read_until(b'\n', &mut line).unwrap();
        line
    }

    #[track_caller]
    fn expect(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let expected = [line(number), vec![b'\n']].concat();
            let found = self.line();
            assert!(
                found == expected,
                "{:?}, not record {number}",
                String::from_utf8_lossy(&found)
            );
        }
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let kill = Command::new("sh").args(["-c", "kill -INT \"$0\"", &pid]).status();
        assert!(kill.unwrap().success(), "the signal could not be sent");
    }

    /// The rest of its output, and how it ended.
    fn end(mut self) -> Output {
        let mut rest = Vec::new();
        self.stdout.read_to_end(&mut rest).unwrap();
        let mut output = self.child.wait_with_output().unwrap();
        output.stdout = rest;
        output
    }
}

#[test]
fn a_log_at_rest_is_shown_and_left_as_it_is() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..3_000));
    let before = files(dir.path());
    let all = run(&on("tail", dir.path(), &["--stream", "s", "--from", "0", "--limit", "3000"]));
    assert_exit(&all, 0);
    assert!(all.stdout == lines(0..3_000));
    let rest = ["--stream", "s", "--from", "2998", "--limit", "2", "--json"];
    let output = run(&on("tail", dir.path(), &rest));
    assert_exit(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let offsets: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["offset"].clone())
        .collect();
    assert_eq!(offsets, [2_998, 2_999]);
    assert!(before == files(dir.path()), "a tail has changed something");
}

#[test]
fn a_tail_that_cannot_begin_says_why() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], b"x\n");
    let output = run(&on("tail", dir.path(), &["--stream", "other"]));
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("other"), "{}", stderr(&output));
    let output = run(&on("tail", dir.path(), &["--stream", "s", "--from", "2"]));
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("offset 1"), "{}", stderr(&output));
}

#[test]
fn a_signal_ends_it_with_everything_written() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..1_000));
    let mut tail = Tail::start(dir.path(), &["--from", "0"]);
    tail.expect(0..1_000);
    tail.interrupt();
    let output = tail.end();
    assert_exit(&output, 130);
    assert!(output.stdout.is_empty(), "once is enough");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_closed_pipe_ends_it_although_nothing_comes() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10));
    let mut tail = Tail::start(dir.path(), &["--from", "0"]);
    tail.expect(0..1);
    let Tail { child, stdout } = tail;
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_exit(&output, 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn what_is_acknowledged_comes_out_as_it_comes() {
    let dir = tempdir().unwrap();
    let writer = Writer::start(dir.path());
    let mut from_start = Tail::start(dir.path(), &["--from", "0"]);
    from_start.expect(0..1);
    let mut from_end = Tail::start(dir.path(), &["--json"]);
    // One at a time: a tail that kept something back would hang here for ever.
    let mut next_at_end = None;
    for number in 1..50 {
        writer.feed(1);
        writer.wait_for(number + 1);
        from_start.expect(number..number + 1);
        // The second one begins wherever it was when it was ready.
        if number >= 40 {
            let record: Value = match next_at_end {
                None => loop {
                    let record: Value = serde_json::from_slice(&from_end.line()).unwrap();
                    if record["offset"] == number {
                        break record;
                    }
                },
                Some(_) => serde_json::from_slice(&from_end.line()).unwrap(),
            };
            assert_eq!(record["offset"], number);
            next_at_end = Some(number + 1);
        }
    }
    // Many at a time, over several segments.
    writer.feed(10_000);
    from_start.expect(50..10_050);
    from_start.interrupt();
    assert_exit(&from_start.end(), 130);
    from_end.interrupt();
    // Its pipe is full of what nobody has read.
    let output = from_end.end();
    assert_exit(&output, 130);
    writer.kill();
}

#[test]
fn a_tail_outlives_writers_that_are_killed() {
    let dir = tempdir().unwrap();
    let mut tail = None;
    let mut stored = 0;
    for lines in [3_000, 1, 7_000, 500, 4_000] {
        let writer = Writer::start_at(dir.path(), stored);
        let tail = tail.get_or_insert_with(|| Tail::start(dir.path(), &["--from", "0"]));
        writer.feed(lines);
        writer.wait_for(stored + lines.div_ceil(2));
        let acknowledged = writer.kill();
        let count = next_offset(dir.path());
        assert!(count >= acknowledged, "{acknowledged} acknowledged, {count} stored");
        // All that is stored, nothing else, and each once: what was acknowledged is in it.
        tail.expect(stored..count);
        stored = count;
        if lines == 7_000 {
            assert_exit(&run(&on("trim", dir.path(), &["--keep-segments", "1"])), 0);
            assert_exit(&run(&on("rotate", dir.path(), &[])), 0);
        }
    }
    let tail = tail.unwrap();
    tail.interrupt();
    let output = tail.end();
    assert_exit(&output, 130);
    assert!(output.stdout.is_empty());
    assert_eq!(stderr(&output), "", "it was never behind");
}

fn next_offset(dir: &Path) -> u64 {
    let streams = crate::common::json(&run(&on("streams", dir, &["--json"])));
    streams[0]["next_offset"].as_u64().unwrap()
}

#[test]
fn a_tail_that_was_overtaken_by_a_trim_says_so_and_goes_on() {
    let dir = tempdir().unwrap();
    // More segments than the tail holds open and than are kept to be used again, which it may read on.
    append(dir.path(), &[], &lines(0..40_000));
    let mut tail = Tail::start(dir.path(), &["--from", "0"]);
    // Its pipe is full, and it waits in the middle of the log.
    tail.expect(0..10);
    assert_exit(&run(&on("trim", dir.path(), &["--keep-segments", "0"])), 0);
    append(dir.path(), &[], &lines(40_000..40_010));
    let mut next = 10;
    let mut jumps = 0;
    while next < 40_010 {
        let text = tail.line();
        let number: u64 =
            String::from_utf8_lossy(&text).split(' ').next().unwrap().parse().unwrap();
        assert_eq!(text, [line(number), vec![b'\n']].concat());
        assert!(number >= next, "{number} after {next}");
        jumps += u64::from(number > next);
        next = number + 1;
    }
    tail.interrupt();
    let output = tail.end();
    assert_exit(&output, 130);
    assert_eq!(jumps, 1, "what was trimmed is not there any more");
    let text = stderr(&output);
    assert!(text.contains("note: trimmed") && !text.contains("error"), "{text}");
}
