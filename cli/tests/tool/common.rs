//! What the tests of the tool share: running it, feeding it, reading what it says.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A command line of the tool, free of the caller's `RINGLOG_*` variables.
pub(crate) fn ringlog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlog"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGLOG_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The tool's arguments for one log and stream.
pub(crate) fn on<'a>(command: &'a str, dir: &'a Path, rest: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![command, "--dir", dir.to_str().unwrap()];
    args.extend(rest);
    args
}

/// Runs to the end.
pub(crate) fn run(args: &[&str]) -> Output {
    ringlog(args).output().unwrap()
}

/// Runs to the end with `input` on stdin.
pub(crate) fn run_with(args: &[&str], input: &[u8]) -> Output {
    let child = ringlog(args).stdin(Stdio::piped()).spawn().unwrap();
    feed_and_wait(child, input)
}

/// Feeds `input` and waits. The tool may end before it has read all of it.
pub(crate) fn feed_and_wait(mut child: Child, input: &[u8]) -> Output {
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

/// Appends `input` to stream `s` with segments of 1 MiB; gives the summary.
pub(crate) fn append(dir: &Path, more: &[&str], input: &[u8]) -> Value {
    let mut args = on("append", dir, &["--stream", "s", "--segment-bytes", "1M"]);
    args.extend(more);
    let output = run_with(&args, input);
    assert_exit(&output, 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The stdout of `read` on stream `s`.
pub(crate) fn read(dir: &Path, more: &[&str]) -> Vec<u8> {
    let mut args = on("read", dir, &["--stream", "s"]);
    args.extend(more);
    let output = run(&args);
    assert_exit(&output, 0);
    output.stdout
}

/// Asserts the exit code, and shows both outputs when it is another.
#[track_caller]
pub(crate) fn assert_exit(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{:?}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout[..output.stdout.len().min(2000)]),
        stderr(output)
    );
}

/// What it said on stderr.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The last line of stderr as JSON: the summary of `append --print-acks`.
pub(crate) fn summary_on_stderr(stderr: &[u8]) -> Value {
    let text = String::from_utf8(stderr.to_vec()).unwrap();
    let line = text.lines().last().unwrap_or_else(|| panic!("nothing on stderr"));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Stdout as JSON.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// A line that depends on its number alone: text of 0 to about 600 bytes.
pub(crate) fn line(number: u64) -> Vec<u8> {
    let mut line = format!("{number} ").into_bytes();
    let length = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    line.resize(line.len() + (length % 600) as usize, b'a' + (number % 26) as u8);
    line
}

/// Numbered lines, each with its newline.
pub(crate) fn lines(numbers: std::ops::Range<u64>) -> Vec<u8> {
    numbers.flat_map(|number| [line(number), vec![b'\n']].concat()).collect()
}

/// Every file below `dir`, by its path, with its content.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}
