//! Damage of every kind: what refuses, what says where, what still reads, and what repair keeps.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::{
    Content, Files, Fixture, STREAMS, files, options, read_only, record, repair_and_check,
};
use ringlog::{Corruption, Log, OpenError, Options, ReadError, repair, verify};

const BLOCK: usize = 4096;

fn strict(path: &Path) -> OpenError {
    match Log::open(path, options()) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error,
    }
}

#[track_caller]
fn refused_as_corrupt(fixture: &Fixture) -> Corruption {
    let before = fixture.files();
    let corruption = match strict(fixture.path()) {
        OpenError::Corrupt(corruption) => corruption,
        other => panic!("{other:?}"),
    };
    assert!(fixture.files() == before, "a refused open has changed something");
    corruption
}

/// Damage that verify finds, which must change nothing.
#[track_caller]
fn damage(fixture: &Fixture) -> Vec<Corruption> {
    let before = fixture.files();
    let report = verify(fixture.path(), &mut |_| {}).unwrap();
    assert!(fixture.files() == before, "verify has changed something");
    assert_eq!(report.sound, report.damage.is_empty());
    report.damage
}

/// What can be read of a damaged log without changing it.
fn readable(fixture: &Fixture) -> Content {
    let before = fixture.files();
    let content = Content::of(&Log::open(fixture.path(), read_only()).unwrap());
    assert!(fixture.files() == before, "reading has changed something");
    content
}

fn corrupt_reads(content: &Content) -> usize {
    content.errors.iter().filter(|error| matches!(error, ReadError::Corrupt { .. })).count()
}

#[test]
fn a_sound_log_is_sound_and_looking_changes_nothing() {
    let fixture = Fixture::new();
    let before = fixture.files();
    let mut told = 0;
    let report = verify(fixture.path(), &mut |progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        assert!(told <= progress.done_bytes);
        told = progress.done_bytes;
    })
    .unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.notes, Vec::<String>::new());
    assert!(report.sound);
    assert_eq!(report.records, fixture.records());
    assert!(told > 0);
    let inspection = ringlog::inspect(fixture.path()).unwrap();
    let shard = &inspection.shards[0];
    let records: Vec<u64> = shard.streams.iter().map(|stream| stream.records).collect();
    assert_eq!(records, [fixture.each; 3]);
    let states: Vec<String> = shard.segments.iter().map(|s| s.state.to_string()).collect();
    assert_eq!(states[..2], ["sealed", "open"]);
    let repaired = repair(fixture.path(), &mut |_| {}).unwrap();
    assert!(!repaired.changed(), "{repaired:?}");
    assert!(fixture.files() == before);
}

#[test]
fn a_log_that_is_open_can_be_checked_but_not_repaired() {
    let fixture = Fixture::new();
    let log = Log::open(fixture.path(), options()).unwrap();
    log.stream("more").unwrap().append(b"x").unwrap().wait().unwrap();
    let report = verify(fixture.path(), &mut |_| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.records, fixture.records() + 1);
    let locked = repair(fixture.path(), &mut |_| {}).unwrap_err();
    assert!(matches!(locked, OpenError::Locked(_)), "{locked:?}");
}

#[test]
fn a_log_that_is_written_and_trimmed_all_the_time_is_never_called_damaged() {
    let fixture = Fixture::new();
    let log = Log::open(fixture.path(), options()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stream = log.stream("busy").unwrap();
            let mut round = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let record = vec![round as u8; 3000 + (round % 5000) as usize];
                let within = std::time::Duration::from_secs(10);
                let level = match round % 3 {
                    0 => ringlog::Durability::Synced,
                    1 => ringlog::Durability::Written,
                    _ => ringlog::Durability::Memory,
                };
                drop(stream.append_within(&record, level, within).unwrap());
                round += 1;
                if round.is_multiple_of(300) {
                    log.rotate().unwrap();
                    log.trim(1).unwrap();
                }
            }
        });
        let _end = StopAtEnd(&stop); // also when a look fails: else the scope would wait for ever
        for _ in 0..30 {
            let report = verify(fixture.path(), &mut |_| {}).unwrap();
            assert_eq!(report.damage, []);
            ringlog::inspect(fixture.path()).unwrap();
        }
    });
}

struct StopAtEnd<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_flipped_bit_in_a_sealed_segment() {
    let fixture = Fixture::new();
    let at = 3 * BLOCK + 700;
    fixture.change(&fixture.segment(1), |bytes| bytes[at] ^= 4);
    let found = damage(&fixture);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].segment, Some(ringlog::SegmentId(1)));
    assert!(found[0].file.ends_with(".seg") && found[0].file_offset as usize <= at, "{found:?}");
    assert!(found[0].lsn.is_some());
    // Sealed segments are trusted at the opening, and checked at each read.
    let content = readable(&fixture);
    assert!(corrupt_reads(&content) > 0);
    assert!(content.count() < fixture.records());
    let (report, left) = repair_and_check(&fixture, &options());
    assert_eq!(report.segments_repaired, 1);
    let lost: u64 = report.lost.iter().map(|lost| lost.next.0 - lost.first.0).sum();
    assert_eq!(lost + left, fixture.records(), "{report:?}");
    assert_eq!(left, content.count());
}

#[test]
fn readers_tell_of_the_gap_and_go_on() {
    let original = Fixture::new();
    for block in 2..last_used_block(&original, 1) {
        let fixture = Fixture::from_files(&original, &original.files());
        fixture.change(&fixture.segment(1), |bytes| bytes[block * BLOCK + 20] ^= 1);
        let report = repair(fixture.path(), &mut |_| {}).unwrap();
        assert_eq!(report.segments_repaired, 1);
        let log = Log::open(fixture.path(), options()).unwrap();
        for lost in &report.lost {
            let stream = log.existing_stream(&lost.stream).unwrap();
            let gap = ReadError::Lost { first: lost.first, next: lost.next };
            for items in [stream.read(..), stream.read(ringlog::Offset(0)..)] {
                let items: Vec<_> = items.unwrap().collect();
                let at = items.iter().position(|item| item.as_ref().err() == Some(&gap));
                let at = at.unwrap_or_else(|| panic!("block {block}: {lost:?} {items:?}"));
                let before = at.checked_sub(1).map(|at| items[at].as_ref().unwrap().offset().0);
                assert_eq!(before.map_or(0, |offset| offset + 1), lost.first.0);
                assert_eq!(items[at + 1].as_ref().unwrap().offset(), lost.next);
                assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1);
            }
        }
    }
}

/// Without the index of the segment that was open, opening scans it.
fn forget_index(fixture: &Fixture, segment: u64) {
    std::fs::remove_file(fixture.segment(segment).with_extension("idx")).unwrap();
}

/// What an index made of a damaged segment leaves out is not what was never there.
#[test]
fn an_index_of_a_damaged_segment_is_not_kept() {
    let fixture = Fixture::new();
    forget_index(&fixture, 1);
    fixture.change(&fixture.segment(1), |bytes| bytes[3 * BLOCK..9 * BLOCK].fill(0));
    let open = || Log::open(fixture.path(), options()).unwrap();
    let look = |log: Log| {
        let content = Content::of(&log);
        log.close().unwrap();
        assert!(corrupt_reads(&content) > 0, "{:?}", content.errors);
        format!("{:?}", content.errors)
    };
    let first = look(open());
    assert!(!fixture.segment(1).with_extension("idx").exists());
    assert_eq!(look(open()), first);
}

/// In a record, wherever watermarks lie between the batches.
fn flip_in_the_second_batch(fixture: &Fixture) {
    let record = record("beta", fixture.sealed_each + 3);
    fixture.change(&fixture.segment(2), |bytes| {
        let at = bytes.windows(record.len()).position(|window| window == record).unwrap();
        bytes[at + 2] ^= 4;
    });
}

#[test]
fn a_flipped_bit_in_a_segment_that_was_closed_cleanly() {
    let fixture = Fixture::new();
    flip_in_the_second_batch(&fixture);
    // It is trusted at the opening, as sealed segments are, and checked at each read.
    let found = damage(&fixture);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].segment, Some(ringlog::SegmentId(2)));
    let content = readable(&fixture);
    assert!(corrupt_reads(&content) > 0);
    assert!(content.count() > fixture.sealed_each * 3, "what lies behind the damage is read");
    {
        let log = Log::open(fixture.path(), options()).unwrap();
        let shard = &log.recovery_report().shards[0];
        assert_eq!((shard.bytes_scanned, shard.clean), (0, true));
        assert_eq!(corrupt_reads(&Content::of(&log)), corrupt_reads(&content));
    }
    // Closing it once more does not make it good.
    assert_eq!(damage(&fixture).len(), 1);
    let (report, left) = repair_and_check(&fixture, &options());
    assert_eq!(left, content.count());
    assert_eq!(report.segments_repaired, 1);
}

#[test]
fn a_flipped_bit_in_the_open_segment() {
    let fixture = Fixture::new();
    flip_in_the_second_batch(&fixture);
    forget_index(&fixture, 2);
    let refused = refused_as_corrupt(&fixture);
    assert_eq!(refused.segment, Some(ringlog::SegmentId(2)));
    assert_eq!(damage(&fixture).len(), 1);
    let content = readable(&fixture);
    assert!(corrupt_reads(&content) > 0);
    assert!(content.count() > fixture.sealed_each * 3, "what lies behind the damage is read");
    let (report, left) = repair_and_check(&fixture, &options());
    assert_eq!(left, content.count());
    assert_eq!(report.segments_repaired, 1);
}

#[test]
fn the_last_batch_of_all_is_damaged() {
    let original = Fixture::new();
    let used = last_used_block(&original, 2);
    // Flip in each of the last few blocks, from the front: batches and the closing watermark.
    for back in 0..3 {
        let fixture = Fixture::from_files(&original, &original.files());
        let at = (used - back) * BLOCK + 20;
        fixture.change(&fixture.segment(2), |bytes| bytes[at] ^= 1);
        if back > 0 {
            Log::open(fixture.path(), read_only()).unwrap(); // only the last batch is looked at
            forget_index(&fixture, 2);
        }
        refused_as_corrupt(&fixture);
        assert!(!damage(&fixture).is_empty());
        repair_and_check(&fixture, &options());
    }
}

/// The last block of a segment's file that is not zero.
fn last_used_block(fixture: &Fixture, segment: u64) -> usize {
    let bytes = std::fs::read(fixture.segment(segment)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() / BLOCK
}

#[test]
fn the_end_of_the_open_segment_is_zeroed() {
    let fixture = Fixture::new();
    fixture.change(&fixture.segment(2), |bytes| bytes[4 * BLOCK..].fill(0));
    refused_as_corrupt(&fixture);
    let (report, _) = repair_and_check(&fixture, &options());
    assert!(!report.lost.is_empty());
}

#[test]
fn a_zeroed_segment() {
    for number in [1, 2] {
        let fixture = Fixture::new();
        fixture.change(&fixture.segment(number), |bytes| bytes.fill(0));
        if number == 2 {
            refused_as_corrupt(&fixture);
        }
        assert!(!damage(&fixture).is_empty());
        let content = readable(&fixture);
        assert!(number == 2 || content.count() == (fixture.each - fixture.sealed_each) * 3);
        repair_and_check(&fixture, &options());
    }
}

#[test]
fn a_truncated_segment() {
    for number in [1, 2] {
        for bytes in [0, 100, BLOCK, 3 * BLOCK + 17, 6 * BLOCK] {
            let fixture = Fixture::new();
            fixture.change(&fixture.segment(number), |content| content.truncate(bytes));
            if number == 2 {
                refused_as_corrupt(&fixture);
            }
            assert!(!damage(&fixture).is_empty(), "segment {number} cut to {bytes}");
            readable(&fixture);
            repair_and_check(&fixture, &options());
        }
    }
}

#[test]
fn a_missing_segment() {
    for number in [1, 2] {
        let fixture = Fixture::new();
        std::fs::remove_file(fixture.segment(number)).unwrap();
        if number == 2 {
            let refused = refused_as_corrupt(&fixture);
            assert!(refused.what.contains("missing"), "{refused}");
        }
        let found = damage(&fixture);
        assert!(found.iter().any(|one| one.segment == Some(ringlog::SegmentId(number))));
        let content = readable(&fixture);
        let left =
            if number == 1 { fixture.each - fixture.sealed_each } else { fixture.sealed_each };
        assert_eq!(content.count(), left * 3);
        let (_, kept) = repair_and_check(&fixture, &options());
        assert_eq!(kept, left * 3);
    }
}

#[test]
fn a_segment_in_the_place_of_another() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.segment(1), fixture.segment(2));
    let (a, b) = (std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    // Swapped.
    std::fs::write(&one, &b).unwrap();
    std::fs::write(&two, &a).unwrap();
    refused_as_corrupt(&fixture);
    assert_eq!(readable(&fixture).count(), 0);
    let found = damage(&fixture);
    assert!(found.iter().any(|one| one.what.contains("expected segment 1")), "{found:?}");
    // Duplicated.
    let fixture = Fixture::new();
    std::fs::copy(fixture.segment(1), fixture.segment(2)).unwrap();
    refused_as_corrupt(&fixture);
    assert_eq!(readable(&fixture).count(), fixture.sealed_each * 3);
    repair_and_check(&fixture, &options());
    // Of another log.
    let fixture = Fixture::new();
    std::fs::copy(Fixture::new().segment(2), fixture.segment(2)).unwrap();
    refused_as_corrupt(&fixture);
    assert_eq!(readable(&fixture).count(), fixture.sealed_each * 3);
    repair_and_check(&fixture, &options());
}

#[test]
fn an_empty_segment_that_is_damaged_or_missing_is_left_out() {
    for missing in [false, true] {
        let fixture = Fixture::new();
        let empty = fixture.segment(3);
        match missing {
            true => std::fs::remove_file(&empty).unwrap(),
            false => fixture.change(&empty, |bytes| bytes[20] ^= 1),
        }
        assert_eq!(damage(&fixture).len(), 1);
        // Nothing was ever in it, so nothing is lost; what is written next must not go there.
        let log = Log::open(fixture.path(), options()).unwrap();
        log.rotate().unwrap();
        common::append_round(&log, 8);
        assert_eq!(Content::of(&log).errors, []);
        log.close().unwrap();
        assert_eq!(damage(&fixture), []);
        let content = Content::of(&Log::open(fixture.path(), options()).unwrap());
        assert_eq!(content.count(), fixture.records() + 24);
    }
}

#[test]
fn something_else_in_the_place_of_a_segment() {
    for number in [1, 2] {
        for kind in ["text", "directory", "link"] {
            let fixture = Fixture::new();
            let path = fixture.segment(number);
            let elsewhere = fixture.path().join("elsewhere");
            match kind {
                "text" => std::fs::write(&path, "no segment\n").unwrap(),
                "directory" => {
                    std::fs::remove_file(&path).unwrap();
                    std::fs::create_dir(&path).unwrap();
                }
                _ => {
                    // To the true content: still refused, since it may lead anywhere.
                    std::fs::rename(&path, &elsewhere).unwrap();
                    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
                }
            }
            if number == 2 {
                refused_as_corrupt(&fixture);
            }
            assert!(!damage(&fixture).is_empty(), "{kind}");
            assert!(readable(&fixture).count() < fixture.records(), "{kind}");
            if kind == "text" {
                repair_and_check(&fixture, &options());
            }
        }
    }
}

#[test]
fn a_newer_version_is_said_to_be_one() {
    let newer = |bytes: &mut [u8], version_at: usize| {
        bytes[version_at..version_at + 2].copy_from_slice(&2_u16.to_le_bytes());
        bytes[4..8].fill(0);
        let crc = crc32fast::hash(bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    };
    let cases: [(&str, usize); 4] =
        [("log", 0), ("manifest", 0), ("catalogue", 0), ("segment", BLOCK)];
    for (what, length) in cases {
        let fixture = Fixture::new();
        let path = match what {
            "log" => fixture.path().join("log"),
            "manifest" => fixture.shard("manifest"),
            "catalogue" => fixture.catalogue(),
            _ => fixture.segment(2),
        };
        fixture.change(&path, |bytes| {
            let length = if length == 0 { bytes.len() } else { length };
            newer(&mut bytes[..length], 8);
        });
        let before = fixture.files();
        if what == "catalogue" {
            // The manifest knows the checksum of the part that it lists.
            refused_as_corrupt(&fixture);
            continue;
        }
        for error in [
            strict(fixture.path()),
            Log::open(fixture.path(), read_only()).err().unwrap(),
            verify(fixture.path(), &mut |_| {}).unwrap_err(),
            repair(fixture.path(), &mut |_| {}).unwrap_err(),
        ] {
            let version = matches!(error, OpenError::UnknownVersion { found: 2, known: 1, .. });
            assert!(version, "{what}: {error:?}");
        }
        assert!(fixture.files() == before, "{what}");
    }
}

#[test]
fn a_manifest_that_is_missing_or_damaged() {
    for cut in [None, Some(0), Some(10), Some(60)] {
        let fixture = Fixture::new();
        match cut {
            None => std::fs::remove_file(fixture.shard("manifest")).unwrap(),
            Some(at) => fixture.change(&fixture.shard("manifest"), |bytes| bytes[at] ^= 1),
        }
        let refused = refused_as_corrupt(&fixture);
        assert_eq!(refused.file, "manifest");
        assert_eq!(damage(&fixture).len(), 1);
        let error = Log::open(fixture.path(), read_only()).err().unwrap();
        assert!(matches!(error, OpenError::Corrupt(_)), "{error:?}");
        let (report, left) = repair_and_check(&fixture, &options());
        assert_eq!(left, fixture.records(), "{report:?}");
        assert_eq!(report.lost, []);
    }
}

#[test]
fn a_manifest_and_the_newest_segment_are_missing() {
    let fixture = Fixture::new();
    std::fs::remove_file(fixture.shard("manifest")).unwrap();
    fixture.change(&fixture.segment(1), |bytes| bytes[2 * BLOCK..3 * BLOCK].fill(0xff));
    repair_and_check(&fixture, &options());
}

#[test]
fn a_catalogue_that_is_missing_or_damaged() {
    for flip in [None, Some(40)] {
        let fixture = Fixture::new();
        let part = fixture.catalogue();
        match flip {
            None => std::fs::remove_file(&part).unwrap(),
            Some(at) => fixture.change(&part, |bytes| bytes[at] ^= 1),
        }
        refused_as_corrupt(&fixture);
        assert!(damage(&fixture).iter().any(|one| one.file.ends_with(".cat")));
        let (report, left) = repair_and_check(&fixture, &options());
        assert_eq!(left, fixture.records());
        assert_eq!(report.lost, []);
    }
}

#[test]
fn streams_whose_names_are_lost_get_new_ones() {
    // The creations are trimmed away, and the part of the catalogue that knew them is lost.
    let fixture = Fixture::new();
    let log = Log::open(fixture.path(), options()).unwrap();
    log.rotate().unwrap();
    assert!(log.trim(1).unwrap().segments > 0);
    log.close().unwrap();
    std::fs::remove_file(fixture.catalogue()).unwrap();
    refused_as_corrupt(&fixture);
    let report = repair(fixture.path(), &mut |_| {}).unwrap();
    assert_eq!(report.notes.len(), STREAMS.len(), "{report:?}");
    let log = Log::open(fixture.path(), options()).unwrap();
    let mut content = Content::default();
    for (number, name) in STREAMS.iter().enumerate() {
        let stream = log.existing_stream(&format!("recovered-0-{}", number + 1)).unwrap();
        assert_eq!(stream.next_offset().0, fixture.each);
        content.read(&stream, name);
    }
    assert_eq!(content.errors, []);
    assert_eq!(content.count(), (fixture.each - fixture.sealed_each) * 3);
    log.close().unwrap(); // an open log changes its files by itself
    assert_eq!(damage(&fixture), []);
}

#[test]
fn the_file_log_is_missing_or_damaged() {
    for flip in [None, Some(0), Some(20)] {
        let fixture = Fixture::new();
        let path = fixture.path().join("log");
        match flip {
            None => std::fs::remove_file(&path).unwrap(),
            Some(at) => fixture.change(&path, |bytes| bytes[at] ^= 1),
        }
        let refused = refused_as_corrupt(&fixture);
        assert_eq!(refused.file, "log");
        assert_eq!(damage(&fixture).len(), 1);
        let (report, left) = repair_and_check(&fixture, &options());
        assert_eq!(left, fixture.records());
        assert_eq!(report.lost, []);
    }
}

fn two_shards() -> Options {
    let format = ringlog::Format { shards: Some(2), ..options().format };
    Options { format, ..options() }
}

#[test]
fn a_shard_is_missing() {
    let two = two_shards();
    let fixture = Fixture::with(&two, 2, 2);
    std::fs::remove_dir_all(fixture.path().join("shard-001")).unwrap();
    let refused = refused_as_corrupt(&fixture);
    assert_eq!((refused.shard, refused.file.as_str()), (1, "shard-001"));
    assert_eq!(damage(&fixture).len(), 1);
    repair_and_check(&fixture, &two);
}

#[test]
fn damage_in_one_shard_of_two() {
    let two = two_shards();
    for shard in ["shard-000", "shard-001"] {
        let fixture = Fixture::with(&two, 2, 2);
        let segment = fixture.path().join(shard).join("0000000000000002.seg");
        fixture.change(&segment, |bytes| bytes[BLOCK + 20] ^= 1);
        std::fs::remove_file(segment.with_extension("idx")).unwrap();
        refused_as_corrupt(&fixture);
        refused_as_corrupt(&fixture); // and not as locked
        repair_and_check(&fixture, &two);
    }
}

#[test]
fn a_directory_of_someone_else() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    std::fs::create_dir(dir.path().join("pictures")).unwrap();
    let before = files(dir.path());
    for error in [
        strict(dir.path()),
        Log::open(dir.path(), read_only()).err().unwrap(),
        verify(dir.path(), &mut |_| {}).unwrap_err(),
        ringlog::inspect(dir.path()).unwrap_err(),
        repair(dir.path(), &mut |_| {}).unwrap_err(),
    ] {
        assert!(matches!(error, OpenError::NotALog { .. }), "{error:?}");
    }
    assert!(files(dir.path()) == before);
    let file = dir.path().join("thesis.txt");
    for error in [strict(&file), verify(&file, &mut |_| {}).unwrap_err()] {
        assert!(matches!(error, OpenError::NotALog { .. }), "{error:?}");
    }
    let nowhere = dir.path().join("nowhere");
    for error in [
        verify(&nowhere, &mut |_| {}).unwrap_err(),
        repair(&nowhere, &mut |_| {}).unwrap_err(),
        ringlog::inspect(&nowhere).unwrap_err(),
    ] {
        assert_eq!(error, OpenError::NotFound(nowhere.clone()));
    }
    assert!(!nowhere.exists());
}

#[test]
fn a_repair_that_was_cut_short_can_be_run_again() {
    let fixture = Fixture::new();
    for (segment, at) in [(1, 2 * BLOCK + 99), (2, 3 * BLOCK + 99)] {
        fixture.change(&fixture.segment(segment), |bytes| bytes[at] ^= 1);
    }
    let damaged = fixture.files();
    repair(fixture.path(), &mut |_| {}).unwrap();
    let repaired = fixture.files();
    let changed: Vec<_> = damaged.iter().filter(|(path, old)| repaired[*path] != **old).collect();
    assert!(changed.len() >= 3, "two segments and the manifest");
    // In the order of the repair: segments first, the manifest last.
    for done in 0..changed.len() {
        let mut half: Files = damaged.clone();
        let mut order = changed.clone();
        order.sort_by_key(|(path, _)| path.ends_with("manifest"));
        for (path, _) in &order[..done] {
            half.insert((*path).clone(), repaired[*path].clone());
        }
        let fresh = Fixture::from_files(&fixture, &half);
        std::fs::write(fresh.shard("repair.tmp"), b"half of it").unwrap();
        let (report, _) = repair_and_check(&fresh, &options());
        assert!(!report.lost.is_empty());
    }
}

/// A log as a killed process leaves it: the fixture with more batches, not closed.
fn killed() -> Fixture {
    let fixture = Fixture::new();
    let log = Log::open(fixture.path(), options()).unwrap();
    for _ in 0..3 {
        common::append_round(&log, 8);
    }
    let mut killed = Fixture::from_files(&fixture, &fixture.files());
    killed.each += 24;
    killed
}

#[test]
fn a_torn_tail_is_a_note_and_no_damage() {
    let fixture = killed();
    // Nothing behind the last batch may prove it: it is the first block that says so that goes.
    let last = last_used_block(&fixture, 2);
    let is_watermark = |block: &[u8]| block[64] == 1;
    let bytes = std::fs::read(fixture.segment(2)).unwrap();
    let mut end = last;
    while is_watermark(&bytes[end * BLOCK..]) {
        end -= 1;
    }
    fixture.change(&fixture.segment(2), |bytes| {
        bytes[(end + 1) * BLOCK..].fill(0);
        bytes[end * BLOCK + 3000] ^= 0xff; // the end of the last batch did not arrive
        bytes[end * BLOCK + 100] ^= 0xff;
    });
    let before = fixture.files();
    let report = verify(fixture.path(), &mut |_| {}).unwrap();
    assert_eq!(report.damage, []);
    assert!(report.notes.iter().any(|note| note.contains("never acknowledged")), "{report:?}");
    assert!(!repair(fixture.path(), &mut |_| {}).unwrap().changed());
    assert!(fixture.files() == before);
    let log = Log::open(fixture.path(), options()).unwrap();
    assert!(log.recovery_report().shards[0].bytes_cut > 0);
    let content = Content::of(&log);
    assert_eq!(content.errors, []);
    assert_eq!(content.count(), fixture.records() - 8);
}

/// Nothing behind the damage tells how far the stream had come.
#[test]
fn a_stream_whose_last_records_are_lost_goes_on_behind_them() {
    let fixture = Fixture::new();
    let log = Log::open(fixture.path(), options()).unwrap();
    let append = |stream: &str| {
        let stream = log.stream(stream).unwrap();
        stream.append(b"in a batch of its own").unwrap().wait().unwrap()
    };
    let places: Vec<_> = (0..5).map(|_| append("quiet")).collect();
    let last = places[4];
    for _ in 0..5 {
        append("busy");
    }
    let killed = Fixture::from_files(&fixture, &fixture.files());
    drop(log);
    let is_last = |block: &[u8]| block[..4] == *b"RLb1" && block[8..16] == last.lsn.0.to_le_bytes();
    killed.change(&killed.segment(2), |bytes| {
        let batch = bytes.chunks_mut(BLOCK).find(|block| is_last(block)).expect("the batch");
        batch[50] ^= 2;
    });
    let report = repair(killed.path(), &mut |_| {}).unwrap();
    let lost: Vec<_> = report.lost.iter().filter(|lost| lost.stream == "quiet").collect();
    assert!(matches!(lost[..], [lost] if lost.first == last.offset), "{report:?}");
    let log = Log::open(killed.path(), options()).unwrap();
    let next = log.stream("quiet").unwrap().append(b"new").unwrap().wait().unwrap();
    assert!(next.offset > last.offset, "{} is given out once more", last.offset);
}

#[test]
fn damage_in_a_log_that_was_not_closed() {
    for block in 1..6 {
        let fixture = killed();
        fixture.change(&fixture.segment(2), |bytes| bytes[block * BLOCK + 50] ^= 2);
        refused_as_corrupt(&fixture);
        let found = damage(&fixture);
        assert_eq!(found[0].segment, Some(ringlog::SegmentId(2)), "{found:?}");
        repair_and_check(&fixture, &options());
    }
}

#[test]
fn nothing_is_written_behind_the_end_that_a_clean_manifest_names() {
    use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory};
    use ringlog::{Durability, LogId, Request, Time};
    use ringlog_disk::{BlockingDisk, Dir, DiskOptions};

    let identity = ShardIdentity { log: LogId([1; 16]), shard: 0, segment_bytes: 1 << 20 };
    let memory = ShardMemory::new(&options(), identity.segment_bytes).unwrap();
    // The close is asked for at any time around the moment of the watermark.
    for wait_ns in (0..8_000_000).step_by(500_000) {
        let dir = tempfile::tempdir().unwrap();
        let open = Dir::open(dir.path()).unwrap();
        let mut disk = BlockingDisk::open(&open, None, &DiskOptions::default()).unwrap();
        DrivenShard::create(&mut disk, identity).unwrap();
        let at = |mono_ns| Time { mono_ns, wall_ns: 1 + mono_ns };
        let mut shard = DrivenShard::open(disk, identity, &options(), &memory, at(0)).unwrap();
        let stream = shard.create_stream("s").unwrap();
        let receipt = shard.append(0, stream, &[b"x"], Durability::Synced).unwrap();
        for turn in 0..200 {
            shard.turn(at(turn));
        }
        assert!(receipt.is_acknowledged());
        let reply = shard.request(Request::Close);
        let mut now = wait_ns;
        while reply.try_recv().is_err() {
            shard.turn(at(now));
            now += 1_000_000;
        }
        for _ in 0..20 {
            shard.turn(at(now));
            now += 1_000_000;
        }
        let (staged, _, durable) = shard.watermarks();
        let manifest = std::fs::read(dir.path().join("manifest")).unwrap();
        let manifest = ringlog::format::manifest::Manifest::decode(&manifest).unwrap();
        assert!(manifest.clean);
        assert_eq!((manifest.proven_lsn, durable), (staged, staged), "closed after {wait_ns} ns");
    }
}

/// Which bytes of the fixture's files are flipped: all bits of what describes, some of the rest.
fn flips(fixture: &Fixture) -> Vec<(std::path::PathBuf, usize, u8, bool)> {
    let mut flips = Vec::new();
    for (path, content) in fixture.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // An index is no evidence, so damage in it is none of the log.
        if path.is_dir() || name.ends_with(".idx") {
            continue;
        }
        let used = match name.as_str() {
            // Segments: up to the last block that is not zero. In a prepared one, the header.
            _ if name.ends_with(".seg") => {
                (content.iter().rposition(|byte| *byte != 0).unwrap() / BLOCK + 1) * BLOCK
            }
            _ => content.len(),
        };
        for (at, byte) in content.iter().enumerate() {
            let in_block = at % BLOCK;
            let every_bit = !name.ends_with(".seg") || (at < used && in_block < 200);
            let some_bit = if at < used { in_block % 16 == 5 } else { at % 65_536 == 777 };
            if every_bit {
                flips.extend((0..8).map(|bit| (path.clone(), at, 1 << bit, true)));
            } else if some_bit {
                let bit = (at / 16 + usize::from(*byte)) % 8;
                flips.push((path.clone(), at, 1 << bit, at < used));
            }
        }
    }
    flips
}

#[test]
fn a_flipped_bit_is_never_silent_and_never_gives_a_wrong_record() {
    sweep(29);
}

#[test]
#[ignore = "all of them: takes minutes"]
fn no_flipped_bit_is_silent_or_gives_a_wrong_record() {
    sweep(1);
}

/// Flips one bit after the other, each `step`-th of them.
fn sweep(step: usize) {
    let original = Fixture::with(&options(), 1, 1);
    let files = original.files();
    let all: Vec<_> = flips(&original).into_iter().step_by(step).collect();
    assert!(all.len() * step > 5_000, "{}", all.len());
    let half = all.len() / 2;
    std::thread::scope(|scope| {
        for part in [&all[..half], &all[half..]] {
            let fixture = Fixture::from_files(&original, &files);
            let root = original.path();
            scope.spawn(move || {
                for (path, at, bit, is_used) in part {
                    let path = fixture.path().join(path.strip_prefix(root).unwrap());
                    flip_and_look(&fixture, &path, *at, *bit, *is_used);
                }
            });
        }
    });
}

fn flip_and_look(fixture: &Fixture, path: &Path, at: usize, bit: u8, is_used: bool) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let flip = || {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[byte[0] ^ bit], at as u64).unwrap();
    };
    flip();
    let place = format!("{} byte {at} bit {bit:#x}", path.display());
    let said = match verify(fixture.path(), &mut |_| {}) {
        Ok(report) => !report.damage.is_empty(),
        Err(error) => {
            assert!(matches!(error, OpenError::UnknownVersion { .. }), "{place}: {error:?}");
            true
        }
    };
    // Free space is nobody's, and must not disturb.
    assert_eq!(said, is_used, "{place}");
    match Log::open(fixture.path(), read_only()) {
        Ok(log) => {
            let content = Content::of(&log);
            let told = log.recovery_report().shards.iter().any(|one| !one.corruptions.is_empty());
            let whole = content.count() == fixture.records();
            assert!(whole || told || !content.errors.is_empty(), "{place}: records are missing");
        }
        Err(error) => {
            let typed = matches!(error, OpenError::Corrupt(_) | OpenError::UnknownVersion { .. });
            assert!(typed && is_used, "{place}: {error:?}");
        }
    }
    flip();
}
