//! Indexes that are missing or wrong: told apart from damage, and made anew.

use std::path::{Path, PathBuf};

use crate::common::{append, assert_exit, files, json, lines, on, read, run};
use tempfile::tempdir;

fn indexes(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let is_index = |path: &Path| path.extension().is_some_and(|end| end == "idx");
    files(dir).into_iter().filter(|(path, _)| is_index(path)).collect()
}

fn rebuild(dir: &Path, args: &[&str]) -> std::process::Output {
    let all = [&["index", "rebuild", "--dir", dir.to_str().unwrap()], args].concat();
    run(&all)
}

#[test]
fn a_bad_index_is_told_and_made_anew() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10_000));
    let before = indexes(dir.path());
    assert!(before.len() >= 3, "10,000 lines of 300 bytes fill at least two segments");
    let verified = json(&run(&on("verify", dir.path(), &["--json"])));
    assert_eq!(verified["bad_indexes"].as_array().unwrap().len(), 0, "{verified}");

    std::fs::remove_file(&before[0].0).unwrap();
    let mut wrong = before[1].1.clone();
    wrong[5000] ^= 1;
    std::fs::write(&before[1].0, wrong).unwrap();
    let verify = run(&on("verify", dir.path(), &["--json"]));
    assert_exit(&verify, 0);
    let verified = json(&verify);
    assert_eq!(verified["sound"], true, "{verified}");
    let bad = verified["bad_indexes"].as_array().unwrap();
    assert_eq!(bad.len(), 2, "{verified}");
    assert_eq!((&bad[0]["missing"], &bad[1]["missing"]), (&true.into(), &false.into()));
    let text = String::from_utf8(run(&on("verify", dir.path(), &[])).stdout).unwrap();
    assert!(text.contains("index: shard 0, segment 1: the index is missing"), "{text}");

    let rebuilt = rebuild(dir.path(), &["--json"]);
    assert_exit(&rebuilt, 0);
    let rebuilt = json(&rebuilt);
    assert_eq!(rebuilt["rebuilt"], 2, "{rebuilt}");
    assert_eq!(rebuilt["bad"].as_array().unwrap().len(), 2, "{rebuilt}");
    assert_eq!(indexes(dir.path()), before, "the same files as before");
    let again = json(&rebuild(dir.path(), &["--json"]));
    assert_eq!(again["rebuilt"], 0, "{again}");
    let all = json(&rebuild(dir.path(), &["--all", "--json"]));
    assert_eq!(all["rebuilt"], all["segments"], "{all}");
    assert_eq!(indexes(dir.path()), before);
    assert!(read(dir.path(), &[]) == lines(0..10_000));
}

#[test]
fn what_is_damaged_gets_no_index() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10_000));
    let (index, _) = indexes(dir.path()).swap_remove(0);
    std::fs::remove_file(&index).unwrap();
    let segment = index.with_extension("seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4096 + 20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let output = rebuild(dir.path(), &[]);
    assert_exit(&output, 1);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("not made: shard 0, segment 1"), "{text}");
    assert!(!index.exists());
    assert_exit(&rebuild(&dir.path().join("nothing"), &[]), 2);
}
