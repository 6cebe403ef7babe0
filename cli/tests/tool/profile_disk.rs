//! `profile-disk`, and what the other commands tell of the profile.

use serde_json::Value;
use tempfile::tempdir;

use crate::common::{append, assert_exit, files, json, lines, on, ringlog, run, stderr};

#[test]
fn any_directory_can_be_profiled_and_stays_as_it_was() {
    let dir = tempdir().unwrap();
    let output = run(&on("profile-disk", dir.path(), &["--quick", "--json"]));
    assert_exit(&output, 0);
    let profile = json(&output);
    let class = profile["class"]["value"].as_str().unwrap();
    assert!(["memory", "NVMe", "SSD", "HDD", "network"].contains(&class), "{profile}");
    assert_eq!(profile["effort"], "quick");
    assert_eq!(profile["stored"], false);
    assert!(profile["figures"]["dsync"]["p50_ns"].as_u64().unwrap() > 0, "{profile}");
    let dsync = profile["settings"]["primitive"]["value"] == "dsync";
    assert!(dsync || profile["settings"]["primitive"]["value"] == "linked", "{profile}");
    assert_eq!(files(dir.path()).len(), 0);

    let output = run(&on("profile-disk", dir.path(), &["--quick"]));
    assert_exit(&output, 0);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["class ", "RWF_DSYNC", "linked fdatasync", "commits in flight", "padding bytes"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_profile_is_kept_in_a_log_and_told() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10));
    let of = |command: &str| json(&run(&on(command, dir.path(), &["--json"])))["profile"].clone();
    let first = of("stats");
    assert_eq!(first["effort"], "quick", "measured at creation: {first}");
    assert_eq!(of("inspect"), first);
    // Without --store nothing changes.
    let before = files(dir.path());
    assert_exit(&run(&on("profile-disk", dir.path(), &["--quick"])), 0);
    assert_eq!(files(dir.path()), before);

    let output = run(&on("profile-disk", dir.path(), &["--store", "--json"]));
    assert_exit(&output, 0);
    let mut kept = json(&output);
    assert_eq!(kept["stored"], true);
    kept.as_object_mut().unwrap().remove("stored");
    assert_eq!(of("stats"), kept);
    assert_eq!(kept["effort"], "full");
    let text = String::from_utf8(run(&on("stats", dir.path(), &[])).stdout).unwrap();
    let why = kept["settings"]["primitive"]["why"].as_str().unwrap();
    assert!(text.contains(why) && text.contains("disk: class "), "{text}");
    let text = String::from_utf8(run(&on("inspect", dir.path(), &[])).stdout).unwrap();
    assert!(text.contains("disk: class "), "{text}");
}

#[test]
fn an_option_is_told_as_such() {
    let dir = tempdir().unwrap();
    append(dir.path(), &[], &lines(0..10));
    let mut command = ringlog(&on("stats", dir.path(), &["--json"]));
    let output = command.env("RINGLOG_PRIMITIVE", "linked").output().unwrap();
    let expected: Value =
        serde_json::from_str(r#"{"value":"linked","why":"set by an option"}"#).unwrap();
    assert_eq!(json(&output)["settings"]["primitive"], expected);
}

#[test]
fn what_cannot_be_profiled_is_refused() {
    let dir = tempdir().unwrap();
    let missing = dir.path().join("missing");
    let output = run(&on("profile-disk", &missing, &["--quick"]));
    assert_exit(&output, 2);
    assert!(!missing.exists());
    let output = run(&on("profile-disk", dir.path(), &["--quick", "--store"]));
    assert_exit(&output, 2);
    assert!(stderr(&output).contains("no log"), "{}", stderr(&output));
}
