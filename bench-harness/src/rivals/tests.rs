//! Each adapter stores and replays what was appended. Run by hand: they build for minutes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::adapter::{Purpose, Rival, Tally};
use crate::contender::Producer;

/// Appends singly and in batches, by one producer and by eight at once, closes, and reads.
fn stores_and_replays<R: Rival>(dir: &Path) {
    let record = |number: u64| [&number.to_le_bytes()[..], &[number as u8; 248]].concat();
    let mut wanted = Tally::default();
    let rival = R::open(dir, Purpose::Keep).unwrap();
    assert!(rival.facts().engine == R::NAME && !rival.facts().mode.is_empty());
    let append = |producer: &mut R::Producer, records: &[Vec<u8>]| {
        let ticket = producer.submit(records, Duration::from_secs(10)).unwrap();
        producer.wait(ticket).unwrap();
    };
    let mut producer = rival.producer(0).unwrap();
    for number in 0..20 {
        append(&mut producer, &[record(number)]);
        wanted.add(&record(number));
    }
    let batch: Vec<Vec<u8>> = (20..1020).map(record).collect();
    append(&mut producer, &batch);
    batch.iter().for_each(|record| wanted.add(record));
    drop(producer);
    rival.close().unwrap();
    assert_eq!(R::replay(dir).unwrap(), wanted, "after closing");

    // Opened again, it goes on where it was.
    let rival = R::open(dir, Purpose::Keep).unwrap();
    let mut producer = rival.producer(0).unwrap();
    for number in 1020..1040 {
        append(&mut producer, &[record(number)]);
        wanted.add(&record(number));
    }
    drop(producer);
    rival.close().unwrap();
    assert_eq!(R::replay(dir).unwrap(), wanted, "after opening again");
}

fn many_threads<R: Rival>(dir: &Path, purpose: Purpose) {
    let rival = R::open(dir, purpose).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut producer = rival.producer(number).unwrap();
            scope.spawn(move || {
                for _ in 0..50 {
                    let ticket = producer.submit(&[vec![7; 256]], Duration::from_secs(10)).unwrap();
                    producer.wait(ticket).unwrap();
                }
            });
        }
    });
    rival.trim().unwrap();
    rival.close().unwrap();
}

macro_rules! tests {
    ($($name:ident: $rival:ty, $unsynced:literal;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn what_was_appended_is_replayed() {
                let dir = tempfile::tempdir().unwrap();
                stores_and_replays::<$rival>(dir.path());
            }

            #[test]
            fn many_threads_append_at_once() {
                let dir = tempfile::tempdir().unwrap();
                many_threads::<$rival>(dir.path(), Purpose::Durable);
                let dir = tempfile::tempdir().unwrap();
                if $unsynced {
                    many_threads::<$rival>(dir.path(), Purpose::Unsynced);
                } else {
                    assert!(<$rival>::open(dir.path(), Purpose::Unsynced).is_err());
                }
            }
        }
    )*};
}

tests! {
    fjall: super::super::fjall::Fjall, true;
    nodedb_wal: super::super::nodedb_wal::NodedbWal, true;
    okaywal: super::super::okaywal::Okaywal, false;
    raft_engine: super::super::raft_engine::RaftEngine, true;
    seglog: super::super::seglog::Seglog, true;
    sqlite: super::super::sqlite::Sqlite, true;
    tephra: super::super::tephra::Tephra, false;
    umadb: super::super::umadb::Umadb, false;
}

#[test]
fn what_has_no_log_takes_appends_and_keeps_nothing() {
    use crate::group_commit::GroupCommit;
    let dir = tempfile::tempdir().unwrap();
    many_threads::<GroupCommit>(dir.path(), Purpose::Durable);
    many_threads::<GroupCommit>(dir.path(), Purpose::Unsynced);
    for purpose in [Purpose::Keep, Purpose::Fill] {
        assert!(GroupCommit::open(dir.path(), purpose).is_err());
    }
    assert!(GroupCommit::replay(dir.path()).is_err());
}

/// The versions that the adapters name are those that are built.
#[test]
fn versions_are_those_of_the_lock_file() {
    let lock = include_str!("../../../Cargo.lock");
    let mut names = lock.lines().filter_map(|line| line.strip_prefix("name = "));
    let mut versions = lock.lines().filter_map(|line| line.strip_prefix("version = ")).skip(1);
    let mut locked: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    while let (Some(name), Some(version)) = (names.next(), versions.next()) {
        locked.entry(name.trim_matches('"')).or_default().push(version.trim_matches('"'));
    }
    fn named<R: Rival>() -> (&'static str, &'static str) {
        (R::NAME, R::VERSION)
    }
    for (name, version) in [
        named::<super::fjall::Fjall>(),
        named::<super::nodedb_wal::NodedbWal>(),
        named::<super::okaywal::Okaywal>(),
        named::<super::raft_engine::RaftEngine>(),
        named::<super::seglog::Seglog>(),
        named::<super::sqlite::Sqlite>(),
        named::<super::tephra::Tephra>(),
        named::<super::umadb::Umadb>(),
        named::<super::walrus::Walrus>(),
    ] {
        assert_eq!(locked.get(name), Some(&vec![version]), "{name}");
    }
}
