//! Bad input gets an error that says what is wrong, the right exit code, and changes nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::common::{append, assert_exit, on, ringlog, run, run_with, stderr};
use serde_json::Value;
use tempfile::tempdir;

#[test]
fn bad_values_are_refused_before_anything_is_created() {
    let parent = tempdir().unwrap();
    let dir = parent.path().join("log");
    let long_name = "x".repeat(256);
    let cases: [&[&str]; 17] = [
        &["--durability", "none"],
        &["--batch", "0"],
        &["--batch", "-1"],
        &["--batch", "many"],
        &["--segment-bytes", "1000"],
        &["--segment-bytes", "3M"],
        &["--segment-bytes", "2G"],
        &["--segment-bytes", "1MB"],
        &["--shards", "0"],
        &["--shards", "65"],
        &["--shards", "70000"],
        &["--sync", "sometimes"],
        &["--sync", "interval:0ms"],
        &["--sync", "records:0"],
        &["--sync", "never"],
        &["--sync", "never", "--durability", "synced"],
        &["no such file"],
    ];
    for case in cases {
        let args = [&on("append", &dir, &["--stream", "s"])[..], case].concat();
        let output = run_with(&args, b"x\n");
        assert_exit(&output, 2);
        assert!(output.stdout.is_empty(), "{case:?}: no result");
        assert!(!stderr(&output).is_empty(), "{case:?}: no word of why");
        assert!(!dir.exists(), "{case:?}: a directory was created");
    }
    for name in ["", &long_name] {
        let output = run_with(&on("append", &dir, &["--stream", name]), b"x\n");
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("1 to 255 bytes"), "{}", stderr(&output));
    }
    for variable in ["RINGLOG_DURABILITY", "RINGLOG_IO", "RINGLOG_SHARDS", "RINGLOG_PIN"] {
        let args = on("append", &dir, &["--stream", "s"]);
        let output = ringlog(&args).env(variable, "nonsense").output().unwrap();
        assert_exit(&output, 2);
        assert!(stderr(&output).contains(variable), "{}", stderr(&output));
    }
}

#[test]
fn wrong_usage_is_2_and_help_tells_the_codes() {
    for args in [&[][..], &["append"], &["read", "--dir", "x"], &["fly"], &["trim", "--dir", "x"]] {
        assert_exit(&run(args), 2);
    }
    let help = run(&["--help"]);
    assert_exit(&help, 0);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes"));
}

/// Every command that needs a log.
fn commands(dir: &Path) -> Vec<Vec<&str>> {
    vec![
        on("read", dir, &["--stream", "s"]),
        on("tail", dir, &["--stream", "s"]),
        on("dump", dir, &[]),
        on("export", dir, &[]),
        on("export", dir, &["--stream", "s"]),
        on("streams", dir, &[]),
        on("inspect", dir, &[]),
        on("inspect", dir, &["--streams"]),
        on("verify", dir, &[]),
        on("repair", dir, &[]),
        on("repair", dir, &["--yes"]),
        on("stats", dir, &[]),
        on("trim", dir, &["--keep-segments", "1"]),
        on("trim", dir, &["--stream", "s", "--before", "1"]),
        on("retain", dir, &["--max-segments", "1"]),
        on("rotate", dir, &[]),
    ]
}

#[test]
fn where_there_is_no_log() {
    let parent = tempdir().unwrap();
    let missing = parent.path().join("missing");
    for command in commands(&missing) {
        let output = run(&command);
        assert_exit(&output, 2);
        assert!(stderr(&output).contains("missing"), "{command:?}: {}", stderr(&output));
        assert!(!missing.exists(), "{command:?} created a directory");
    }
    let file = parent.path().join("file");
    std::fs::write(&file, "text").unwrap();
    for command in commands(&file) {
        assert_exit(&run(&command), 2);
    }
    assert_exit(&run_with(&on("append", &file, &["--stream", "s"]), b"x\n"), 2);
    assert_exit(&run_with(&on("import", &file, &[]), b"x\n"), 2);
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
}

#[test]
fn a_directory_of_someone_elses_files_is_left_alone() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "text").unwrap();
    let before = crate::common::files(dir.path());
    for command in commands(dir.path()) {
        assert_exit(&run(&command), 2);
    }
    assert_exit(&run_with(&on("append", dir.path(), &["--stream", "s"]), b"x\n"), 2);
    assert!(before == crate::common::files(dir.path()), "somebody else's directory was changed");
}

#[test]
fn a_stream_that_does_not_exist() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], b"x\n");
    let output = run(&on("read", dir.path(), &["--stream", "other"]));
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("other"), "{}", stderr(&output));
}

#[test]
fn errors_are_json_when_json_is_asked_for() {
    let output = run(&["read", "--dir", "/nonexistent", "--stream", "s", "--json"]);
    assert_exit(&output, 2);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(error["error"].as_str().unwrap().contains("/nonexistent"), "{error}");
}

#[test]
fn an_input_that_cannot_be_read() {
    let parent = tempdir().unwrap();
    let dir = parent.path().join("log");
    let args = on("append", &dir, &["--stream", "s", parent.path().to_str().unwrap()]);
    assert_exit(&run(&args), 2);
    assert!(!dir.exists(), "a log was created for an input that is a directory");
}

#[test]
fn an_environment_that_is_no_text_is_no_reason_to_fail() {
    let dir = tempdir().unwrap();
    let args = on("append", dir.path(), &["--stream", "s", "--segment-bytes", "1M"]);
    let odd = OsStr::from_bytes(b"\xff\xfe");
    assert_exit(&ringlog(&args).env("SOMETHING_ELSE", odd).output().unwrap(), 0);
    // One of ours must be readable.
    let output = ringlog(&args).env("RINGLOG_IO", odd).output().unwrap();
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("RINGLOG_IO"), "{}", stderr(&output));
}
