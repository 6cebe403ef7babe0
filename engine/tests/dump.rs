//! Everything a log holds, in its order, also while it changes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "the tests of damage use more of it")]
mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use common::{Fixture, append_round, options, record};
use ringlog::{Dumped, EntryKind, IndexState, Log, Lsn, Offset, SegmentId, dump, inspect_segments};

/// What a dump shows, with payloads checked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    /// Offsets by stream, in the order in which they came.
    offsets: BTreeMap<String, Vec<u64>>,
    /// Each with its segment.
    lsns: Vec<(Lsn, SegmentId)>,
    internal: usize,
    damage: usize,
    trimmed: Vec<SegmentId>,
}

/// Dumps; `at_entry` is called before the entry of a number, counted from 0.
fn show(dir: &Path, since_ns: u64, mut at_entry: impl FnMut(usize)) -> Shown {
    let mut shown = Shown::default();
    let mut entries = 0;
    let mut visit = |dumped: Dumped<'_>| {
        match dumped {
            Dumped::Entry(entry) => {
                at_entry(entries);
                entries += 1;
                shown.lsns.push((entry.lsn, entry.segment));
                if entry.kind == EntryKind::Internal {
                    assert_eq!(entry.name, None);
                    shown.internal += 1;
                } else {
                    let name = entry.name.unwrap();
                    assert_eq!(entry.payload, record(name, entry.offset.0));
                    shown.offsets.entry(name.to_owned()).or_default().push(entry.offset.0);
                }
            }
            Dumped::Damage(_) => shown.damage += 1,
            Dumped::Trimmed { shard, segment } => {
                assert_eq!(shard, 0);
                shown.trimmed.push(segment);
            }
            other => panic!("{other:?}"),
        }
        ControlFlow::Continue(())
    };
    dump(dir, since_ns, &mut |_| {}, &mut visit).unwrap();
    assert!(shown.lsns.is_sorted(), "not in the order of the log");
    shown
}

#[test]
fn every_entry_once_in_order_and_nothing_changed() {
    let fixture = Fixture::new();
    let before = fixture.files();
    let shown = show(fixture.path(), 0, |_| {});
    assert!(fixture.files() == before, "a dump has changed something");
    assert_eq!(shown.offsets.len(), 3);
    for offsets in shown.offsets.values() {
        assert!(offsets.iter().copied().eq(0..fixture.each));
    }
    assert_eq!((shown.internal, shown.damage), (3, 0));
    assert_eq!(shown.trimmed, []);
}

#[test]
fn a_segment_that_is_trimmed_meanwhile_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    for _ in 0..4 {
        append_round(&log, 8);
        log.rotate().unwrap();
    }
    append_round(&log, 8);
    // With the first entry of a segment, the file has been opened: that one is shown to its end.
    let shown = show(dir.path(), 0, |entry| {
        if entry == 0 {
            assert_eq!(log.trim(1).unwrap().segments, 3);
            // Until all their files are used again.
            while log.stats().shards[0].recycled_segments < 3 {
                append_round(&log, 8);
                log.rotate().unwrap();
            }
        }
    });
    assert_eq!(shown.damage, 0, "{shown:?}");
    assert_eq!(shown.trimmed, [SegmentId(2), SegmentId(3)], "{shown:?}");
    for offsets in shown.offsets.values() {
        assert!(offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
        assert!((24..40).all(|offset| offsets.contains(&offset)), "{offsets:?}");
        assert!(!offsets.contains(&8) && !offsets.contains(&23), "{offsets:?}");
    }
    log.close().unwrap();
}

#[test]
fn a_time_leaves_out_what_is_older() {
    let fixture = Fixture::new();
    let mut times = Vec::new();
    let mut visit = |dumped: Dumped<'_>| {
        if let Dumped::Entry(entry) = dumped {
            times.push(entry.timestamp_ns);
        }
        ControlFlow::Continue(())
    };
    dump(fixture.path(), 0, &mut |_| {}, &mut visit).unwrap();
    assert!(times.is_sorted());
    for since in [times[0], times[0] + 1, times[times.len() / 2], times[times.len() - 1] + 1] {
        let expected = times.iter().filter(|time| **time >= since).count();
        let shown = show(fixture.path(), since, |_| {});
        assert_eq!(shown.lsns.len(), expected, "since {since}");
    }
}

#[test]
fn a_dump_ends_when_it_is_asked_to() {
    let fixture = Fixture::new();
    for wanted in [1, 5, 90] {
        let mut seen = 0;
        let mut visit = |_: Dumped<'_>| {
            seen += 1;
            if seen == wanted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        dump(fixture.path(), 0, &mut |_| {}, &mut visit).unwrap();
        assert_eq!(seen, wanted);
    }
}

#[test]
fn damage_is_one_item_and_the_rest_is_shown() {
    // Segment 1 is sealed, segment 2 is not.
    for segment in [1, 2] {
        let fixture = Fixture::new();
        let whole = show(fixture.path(), 0, |_| {});
        let lsns = whole.lsns.iter().filter(|(_, at)| at.0 == segment).map(|(lsn, _)| *lsn);
        let mut batches: Vec<Lsn> = lsns.collect();
        batches.dedup();
        let base = batches[0].0;
        for damaged in [batches[0], batches[1]] {
            let at = 4096 + (damaged.0 - base) as usize + 200;
            let path = fixture.segment(segment);
            fixture.change(&path, |bytes| bytes[at] ^= 1);
            let shown = show(fixture.path(), 0, |_| {});
            assert_eq!(shown.damage, 1, "{damaged:?} of segment {segment}");
            let expected: Vec<_> =
                whole.lsns.iter().filter(|(lsn, _)| *lsn != damaged).copied().collect();
            assert_eq!(shown.lsns, expected, "{damaged:?} of segment {segment}");
            fixture.change(&path, |bytes| bytes[at] ^= 1);
        }
    }
}

#[test]
fn the_streams_of_the_segments_add_up() {
    let fixture = Fixture::new();
    let inspection = inspect_segments(fixture.path()).unwrap();
    let shard = &inspection.shards[0];
    for stream in &shard.streams {
        let held = shard.segments.iter().flat_map(|segment| segment.streams.as_ref().unwrap());
        let held: Vec<_> = held.filter(|held| held.id == stream.id).collect();
        assert_eq!(held.len(), 2, "{}", stream.name);
        assert_eq!(
            (held[0].first_offset, held[0].last_offset.0),
            (Offset(0), fixture.sealed_each - 1)
        );
        assert_eq!(held[1].first_offset.0, fixture.sealed_each);
        assert_eq!(held[1].last_offset.0, fixture.each - 1);
        assert_eq!(held.iter().map(|held| held.records).sum::<u64>(), stream.records);
    }
    let cheap = ringlog::inspect(fixture.path()).unwrap();
    assert!(cheap.shards[0].segments.iter().all(|segment| segment.streams.is_none()));
}

#[test]
fn an_index_is_told_from_none_and_from_a_bad_one() {
    let fixture = Fixture::new();
    let index = fixture.shard("0000000000000001.idx");
    let good = std::fs::read(&index).unwrap();
    let state = || ringlog::inspect(fixture.path()).unwrap().shards[0].segments[0].index;
    assert_eq!(state(), Some(IndexState::Present));
    for bad in [&good[..100], &[]] {
        std::fs::write(&index, bad).unwrap();
        assert_eq!(state(), Some(IndexState::Wrong), "{} bytes", bad.len());
    }
    fixture.change(&index, |bytes| *bytes = good.clone());
    fixture.change(&index, |bytes| bytes[50] ^= 1);
    assert_eq!(state(), Some(IndexState::Wrong));
    // That of another log.
    let other = Fixture::new();
    std::fs::copy(other.shard("0000000000000001.idx"), &index).unwrap();
    assert_eq!(state(), Some(IndexState::Wrong));
    std::fs::remove_file(&index).unwrap();
    assert_eq!(state(), Some(IndexState::Missing));
    let inspection = ringlog::inspect(fixture.path()).unwrap();
    assert_eq!(inspection.shards[0].segments[1].index, None, "it is not sealed");
}
