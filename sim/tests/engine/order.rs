//! The order of operations: what must be durable before what is written.

use std::collections::BTreeMap;

use ringlog::{Durability, Request, SyncPolicy};
use ringlog_disk::Flush;
use ringlog_sim::watch::{Content, Seen};

use crate::common::{Running, open, world};

/// A life with rotations by size and by hand, and a trim; the segments come to be recycled.
fn rotations() -> Running {
    let mut shard = open(&world(), SyncPolicy::EveryCommit);
    for at in 0..30_u8 {
        shard.append_and_wait(&vec![at; 150_000], Durability::Synced);
        shard.turns(10);
        if at % 7 == 6 {
            shard.ask_and_wait(Request::Rotate);
        }
        if at % 10 == 9 {
            shard.ask_and_wait(Request::Trim { keep_sealed: 1 });
            shard.turns(10);
        }
    }
    shard.turns(50);
    assert!(shard.shard.counts().recycled > 0);
    shard.check();
    shard
}

fn done(journal: &[Seen], at: usize) -> usize {
    journal.iter().position(|seen| *seen == Seen::Done(at, true)).expect("it was completed")
}

fn batches(journal: &[Seen]) -> Vec<(usize, String)> {
    let batch = |(at, seen): (usize, &Seen)| match seen {
        Seen::Write { file, what: Content::Batch, .. } => Some((at, file.clone())),
        _ => None,
    };
    journal.iter().enumerate().filter_map(batch).collect()
}

#[test]
fn a_segment_is_listed_durably_before_its_first_batch_is_written() {
    let journal = rotations().watch.journal();
    let mut segments = 0;
    let mut last = String::new();
    for (at, file) in batches(&journal) {
        if file == last {
            continue;
        }
        segments += 1;
        let lists = |seen: &Seen| matches!(seen, Seen::Manifest { segments, .. } if segments.iter().any(|s| s.0 == file));
        let listed = journal.iter().position(lists).expect("it is listed");
        assert!(done(&journal, listed) < at, "{file} is listed too late");
        last = file;
    }
    assert!(segments >= 7, "{segments}");
}

#[test]
fn the_directory_is_synced_between_a_name_and_its_listing() {
    let journal = rotations().watch.journal();
    let mut names = 0;
    for (at, seen) in journal.iter().enumerate() {
        let name = match seen {
            Seen::Name("create", name) => name.clone(),
            Seen::Name("rename", names) => names.split(" to ").last().unwrap().to_owned(),
            _ => continue,
        };
        names += 1;
        let lists = |seen: &Seen| matches!(seen, Seen::Manifest { segments, .. } if segments.iter().any(|s| s.0 == name));
        let Some(listed) = journal.iter().position(lists) else { continue };
        let synced = (at..listed)
            .filter(|sync| matches!(journal[*sync], Seen::Name("sync directory", _)))
            .any(|sync| done(&journal, sync) < listed);
        assert!(synced, "{name} is listed before the directory is synced");
    }
    assert!(names >= 7, "{names}");
}

#[test]
fn data_is_flushed_then_the_footer_then_the_manifest_says_sealed() {
    let journal = rotations().watch.journal();
    let mut footers = 0;
    for (at, seen) in journal.iter().enumerate() {
        let Seen::Write { file, what: Content::Footer, flush, .. } = seen else { continue };
        footers += 1;
        assert_eq!(*flush, Flush::File);
        for (batch, _) in batches(&journal).into_iter().filter(|(_, of)| of == file) {
            assert!(done(&journal, batch) < at, "{file}: a batch behind the footer");
            let own = matches!(journal[batch], Seen::Write { flush: Flush::Own, .. });
            let covered = (done(&journal, batch)..at).any(|sync| {
                matches!(&journal[sync], Seen::Sync(of) if of == file) && done(&journal, sync) < at
            });
            assert!(own || covered, "{file}: a batch that is not flushed before the footer");
        }
        let sealed = |seen: &Seen| matches!(seen, Seen::Manifest { segments, .. } if segments.contains(&(file.clone(), true)));
        let listed = journal.iter().position(sealed).expect("it is sealed");
        assert!(done(&journal, at) < listed, "{file} is called sealed too early");
    }
    assert!(footers >= 6, "{footers}");
}

#[test]
fn nothing_is_written_twice_and_nothing_behind_a_footer() {
    let journal = rotations().watch.journal();
    let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
    let mut writes = 0;
    for seen in &journal {
        let Seen::Write { file, offset, len, what, .. } = seen else { continue };
        writes += 1;
        // Numbers of segments are never used again, so a name has one life.
        let end = ends.entry(file).or_default();
        assert!(*offset >= *end, "{file}: {what:?} at {offset}, written up to {end}");
        *end = if *what == Content::Footer { u64::MAX } else { offset + len };
    }
    assert!(writes > 40, "{writes}");
}

#[test]
fn the_epoch_is_durable_before_the_first_write_of_a_life() {
    let world = world();
    let mut last_epoch = 0;
    for life in 0..4 {
        let mut shard = open(&world, SyncPolicy::EveryCommit);
        shard.append_and_wait(b"x", Durability::Synced);
        // From the second life on, something is there that nothing proves to be durable.
        shard.append_and_wait(b"y", Durability::Written);
        let journal = shard.watch.journal();
        let first =
            journal.iter().position(|seen| matches!(seen, Seen::Write { .. })).expect("a write");
        let durable = journal.iter().enumerate().find_map(|(at, seen)| match seen {
            Seen::Manifest { epoch, .. } if done(&journal, at) < first => Some(*epoch),
            _ => None,
        });
        let epoch = durable.expect("a manifest comes before the first write");
        assert!(epoch > last_epoch, "life {life}: epoch {epoch} after {last_epoch}");
        last_epoch = epoch;
        shard.check();
        world.crash(&ringlog_sim::Crash::keeping_all());
    }
}
