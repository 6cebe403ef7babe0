//! Every rival does every work once, at its smallest size. Only with the feature `rivals`, by hand:
//! `cargo test -p bench-harness --features rivals --test rivals`.

#![cfg(feature = "rivals")]

use std::collections::BTreeSet;

use ringlog_bench::measurement::Class;

mod support;

use support::{assert_empty, bench, lines, text};

fn run(arguments: &[&str]) -> (support::Lines, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = [arguments, &["--json", "-"]].concat();
    let done = bench("rivals", dir.path(), "0.2", &arguments);
    let told = text(&done.stderr).to_owned();
    assert!(done.status.success(), "{told}");
    assert_empty(dir.path());
    (lines(&done.stdout), told)
}

fn engines(lines: &support::Lines, of: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let found = lines.measurements.iter().filter(|line| of(&line.mode));
    found.map(|line| line.engine.clone()).collect()
}

#[test]
fn everybody_appends_and_every_acknowledgement_is_covered_by_a_flush() {
    let (lines, told) = run(&["--work", "append-256,commits,unsynced,receipts"]);
    let all = ["fjall", "nodedb-wal", "okaywal", "raft-engine", "ringlog", "rusqlite", "seglog"];
    let mut all: BTreeSet<String> = all.map(str::to_owned).into();
    all.extend(["tephra", "walrus-rust"].map(str::to_owned));
    assert_eq!(engines(&lines, |_| true), all, "{told}");
    for line in &lines.measurements {
        assert!(line.records > 0, "{line:?}");
        assert_eq!(line.disqualified, None, "{line:?}");
        assert!(matches!(line.durability, Class::Media | Class::PageCache | Class::Memory));
    }
    // Each judged goal names the best rival of its round.
    assert!(lines.figures.iter().all(|figure| figure["bench"] == "rivals"), "{told}");
    assert!(told.contains("ringlog / it") && told.contains("best rival"), "{told}");
}

#[test]
fn everybody_replays_what_was_appended_and_is_opened_again() {
    let (lines, told) = run(&["--work", "replay,open", "--bytes", "4194304"]);
    let read = engines(&lines, |mode| mode == "replay");
    assert_eq!(read.len(), 10, "{read:?} {told}");
    assert_eq!(engines(&lines, |mode| mode == "open"), read);
    for line in lines.measurements.iter().filter(|line| line.mode == "replay") {
        assert!(line.payload_bytes >= 4 << 20, "{line:?}");
    }
}
