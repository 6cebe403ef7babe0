//! Retention, trims of streams, and the readers that are in what goes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "the tests of damage use more of it")]
mod common;

use std::time::Duration;

use common::{options, read_only, record};
use ringlog::{
    AppendError, Durability, Format, Log, LogError, Offset, OpenError, Options, ReadError,
    Retention, Stream, SyncPolicy, TrimError, inspect, repair, verify,
};

const SEGMENT: u64 = 1 << 20;

/// Fills sealed segments, each with `each` records of 100 KiB; the first bytes tell the offset.
fn fill(log: &Log, stream: &Stream, segments: u64, each: u64) {
    for _ in 0..segments {
        for _ in 0..each {
            let offset = stream.next_offset().0;
            let mut payload = vec![offset as u8; 100 << 10];
            payload[..8].copy_from_slice(&offset.to_le_bytes());
            let wait = Duration::from_secs(20);
            stream.append_within(&payload, Durability::Written, wait).unwrap().wait().unwrap();
        }
        log.rotate().unwrap();
    }
}

fn offset_in(payload: &[u8]) -> u64 {
    assert!(payload[8..].iter().all(|byte| *byte == payload[0]), "a mixture of records");
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

#[test]
fn a_slow_reader_finishes_its_segment_while_the_log_turns_over() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_segments: Some(2), ..Retention::default() };
    let log = Log::open(dir.path(), Options { retention, ..options() }).unwrap();
    let stream = log.stream("s").unwrap();
    fill(&log, &stream, 2, 8);
    let mut slow = stream.read(..).unwrap();
    let first = slow.next().unwrap().unwrap();
    assert_eq!(first.offset(), Offset(0));
    // Many times the files there are: all others are overwritten again and again.
    fill(&log, &stream, 30, 8);
    let stats = log.stats().shards.remove(0);
    assert!(stats.recycled_segments >= 15, "{stats:?}");
    assert!(stats.trimmed_segments >= 28, "{stats:?}");
    assert_eq!(stats.rotations_by_reason.hand, 32);
    for expected in 1..8 {
        let record = slow.next().unwrap().unwrap();
        assert_eq!((record.offset(), offset_in(record.payload())), (Offset(expected), expected));
    }
    // Then it says that the rest was trimmed, although it was made before all of what there is now.
    let mut next = 8;
    for item in slow.by_ref() {
        match item {
            Ok(record) => {
                assert_eq!((offset_in(record.payload()), record.offset().0), (next, next));
                next += 1;
            }
            Err(ReadError::Trimmed { first }) => {
                assert!(first.0 > next, "{first:?} at {next}");
                next = first.0;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(next, 32 * 8);
    drop(slow);
    log.retain(retention).unwrap(); // what is due comes before what is asked for
    let first = (32 - 2) * 8;
    let mut reader = stream.read(Offset(3)..).unwrap();
    let expected = ReadError::Trimmed { first: Offset(first) };
    assert_eq!(reader.next().unwrap().unwrap_err(), expected);
    assert_eq!(reader.next().unwrap().unwrap().offset(), Offset(first));
    log.close().unwrap();
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
}

/// Nothing of the stream is left that could tell by its offset what is missing; of what the readers
/// were made for, something of another stream may be.
#[test]
fn a_reader_whose_rest_was_trimmed_to_the_last_record_says_so() {
    for (before, after) in [(0, 8), (2, 1), (2, 2), (2, 8)] {
        let dir = tempfile::tempdir().unwrap();
        let retention = Retention { max_segments: Some(2), ..Retention::default() };
        let log = Log::open(dir.path(), options()).unwrap();
        let [stream, other] = ["s", "other"].map(|name| log.stream(name).unwrap());
        fill(&log, &stream, 2, 8);
        fill(&log, &other, before, 8);
        let mut ways = [stream.read(..), stream.read(..Offset(12)), stream.read(Offset(5)..)];
        let read = |reader: &mut ringlog::Reader, count: usize| {
            reader.by_ref().take(count).map(|item| item.unwrap().offset().0).collect::<Vec<_>>()
        };
        let [all, bounded, later] = ways.each_mut().map(|way| way.as_mut().unwrap());
        assert_eq!(read(all, 1), [0]);
        assert_eq!(read(bounded, 1), [0]);
        assert_eq!(read(later, 1), [5]);
        fill(&log, &other, after, 8);
        log.retain(retention).unwrap();
        assert_eq!(read(all, 7), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(read(bounded, 7), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(read(later, 2), [6, 7]);
        for reader in [all, bounded, later] {
            let expected = ReadError::Trimmed { first: Offset(16) };
            assert_eq!(reader.next().unwrap().unwrap_err(), expected);
            assert!(reader.next().is_none());
        }
        // It goes on at the first record there is, though it lies behind all the reader was made for.
        fill(&log, &stream, 1, 3);
        let first = stream.read(..).unwrap().next().unwrap().unwrap();
        assert_eq!(first.offset(), Offset(16));
        drop(ways);
        log.close().unwrap();
    }
}

#[test]
fn retaining_by_hand_reports_what_went() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let stream = log.stream("s").unwrap();
    fill(&log, &stream, 12, 1);
    let bounds = Retention { max_segments: Some(9), ..Retention::default() };
    let report = log.retain(bounds).unwrap();
    assert_eq!((report.segments, report.bytes), (3, 3 * SEGMENT));
    assert_eq!(log.retain(bounds).unwrap().segments, 0);
    // Of ten files, one is open and four are ready.
    let bounds = Retention { max_bytes: Some(10 * SEGMENT), ..Retention::default() };
    assert_eq!(log.retain(bounds).unwrap().segments, 4);
    let age = Retention { max_age: Some(Duration::from_secs(3600)), ..Retention::default() };
    assert_eq!(log.retain(age).unwrap().segments, 0);
    let age = Retention { max_age: Some(Duration::ZERO), ..Retention::default() };
    assert_eq!(log.retain(age).unwrap().segments, 5);
    assert_eq!(stream.read(..).unwrap().count(), 0);
    assert_eq!(stream.next_offset(), Offset(12));
    log.close().unwrap();
    let log = Log::open(dir.path(), read_only()).unwrap();
    assert_eq!(log.retain(age), Err(LogError::ReadOnly));
}

#[test]
fn a_bound_below_four_segments_is_refused_and_nothing_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let max_bytes = Some(4 * SEGMENT - 1);
    let retention = Retention { max_bytes, ..Retention::default() };
    let refused = Log::open(dir.path(), Options { retention, ..options() }).err();
    match refused {
        Some(OpenError::InvalidOption { field, .. }) => assert_eq!(field, "retention.max_bytes"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    Log::open(dir.path(), options()).unwrap().close().unwrap();
    // What counts is the size of this log's segments, not that of one to be created.
    let max_bytes = Some(4 * SEGMENT);
    let retention = Retention { max_bytes, ..Retention::default() };
    let format = Format::default();
    Log::open(dir.path(), Options { retention, format, ..options() }).unwrap();
}

fn trimmed(stream: &Stream, from: u64) -> (Option<ReadError>, Vec<u64>) {
    let mut reader = stream.read(Offset(from)..).unwrap();
    let mut records = Vec::new();
    let mut error = None;
    for item in reader.by_ref() {
        match item {
            Ok(record) => {
                assert_eq!(record.payload(), common::record("s", record.offset().0));
                records.push(record.offset().0);
            }
            Err(other) => assert_eq!(error.replace(other), None),
        }
    }
    (error, records)
}

fn append(stream: &Stream, count: u64) {
    for _ in 0..count {
        let record = record("s", stream.next_offset().0);
        stream.append_with(&record, Durability::Written).unwrap().wait().unwrap();
    }
}

#[test]
fn a_stream_is_trimmed_under_every_policy_and_its_bounds_are_named() {
    for sync in [SyncPolicy::EveryCommit, SyncPolicy::Never, SyncPolicy::EveryAppend] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options { sync, ..options() }).unwrap();
        let stream = log.stream("s").unwrap();
        append(&stream, 10);
        let expected = Err(TrimError::OutOfRange { next: Offset(10) });
        assert_eq!(stream.trim(Offset(11)), expected);
        assert_eq!(stream.trim(Offset(0)), Ok(Offset(0)));
        assert_eq!(stream.trim(Offset(4)), Ok(Offset(4)));
        assert_eq!(stream.trim(Offset(3)), Ok(Offset(4)), "it is not taken back");
        let error = Some(ReadError::Trimmed { first: Offset(4) });
        assert_eq!(trimmed(&stream, 0), (error, (4..10).collect()));
        // The log is left as a crash would leave it.
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        log.close().unwrap();
        let check = |log: &Log| {
            let stream = log.existing_stream("s").unwrap();
            let error = Some(ReadError::Trimmed { first: Offset(4) });
            assert_eq!(trimmed(&stream, 2), (error, (4..10).collect()));
            assert_eq!(stream.next_offset(), Offset(10));
        };
        for path in [dir.path(), copy.path()] {
            let log = Log::open(path, read_only()).unwrap();
            check(&log);
            let refused = log.existing_stream("s").unwrap().trim(Offset(5));
            assert_eq!(refused, Err(TrimError::Append(AppendError::ReadOnly)));
            check(&Log::open(path, options()).unwrap());
            check(&Log::open(path, read_only()).unwrap());
            assert_eq!(verify(path, &mut |_| {}).unwrap().damage, []);
            let stream = inspect(path).unwrap().shards.remove(0).streams.remove(0);
            assert_eq!((stream.first_offset, stream.records), (Offset(4), 6));
        }
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    for (path, content) in common::files(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        match path.is_dir() {
            true => std::fs::create_dir(to).unwrap(),
            false => std::fs::write(to, content).unwrap(),
        }
    }
}

#[test]
fn a_repair_keeps_what_was_trimmed_and_does_not_call_it_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let stream = log.stream("s").unwrap();
    append(&stream, 10);
    let damaged = log.stats().shards[0].staged_lsn;
    append(&stream, 1);
    log.rotate().unwrap();
    append(&stream, 5);
    assert_eq!(stream.trim(Offset(8)), Ok(Offset(8)));
    append(&stream, 1);
    log.rotate().unwrap();
    append(&stream, 1);
    assert_eq!(stream.trim(Offset(9)), Ok(Offset(9)));
    log.close().unwrap();
    let path = dir.path().join("shard-000/0000000000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 4096 + 200] ^= 1; // a record below the trim point
    bytes[4096 + damaged.0 as usize + 200] ^= 1; // and one above
    std::fs::write(&path, bytes).unwrap();
    let report = repair(dir.path(), &mut |_| {}).unwrap();
    let lost: Vec<_> = report.lost.iter().map(|lost| (lost.first.0, lost.next.0)).collect();
    assert_eq!(lost, [(10, 11)]);
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
    let log = Log::open(dir.path(), options()).unwrap();
    let stream = log.stream("s").unwrap();
    let (error, _) = trimmed_and_lost(&stream);
    assert_eq!(error, ReadError::Trimmed { first: Offset(9) });
}

/// The first error, and how many more there are.
fn trimmed_and_lost(stream: &Stream) -> (ReadError, usize) {
    let mut errors = stream.read(Offset(0)..).unwrap().filter_map(Result::err);
    (errors.next().unwrap(), errors.count())
}

#[test]
fn a_catalogue_that_forgets_a_trim_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options()).unwrap();
    let stream = log.stream("s").unwrap();
    append(&stream, 3);
    log.rotate().unwrap();
    assert_eq!(stream.trim(Offset(2)), Ok(Offset(2)));
    log.rotate().unwrap();
    log.close().unwrap();
    assert_eq!(verify(dir.path(), &mut |_| {}).unwrap().damage, []);
    let manifest_path = dir.path().join("shard-000/manifest");
    let mut manifest =
        ringlog::format::manifest::Manifest::decode(&std::fs::read(&manifest_path).unwrap())
            .unwrap();
    let part = manifest.catalogue.last_mut().unwrap();
    let path = dir.path().join(format!("shard-000/{:016x}.cat", part.number));
    let bytes = std::fs::read(&path).unwrap();
    use ringlog::format::catalogue::{decode, encode};
    let mut entries = decode(&bytes, manifest.log, 0, part.number).unwrap();
    assert_eq!(entries[1].trimmed_before, Offset(2));
    entries[1].trimmed_before = Offset(0);
    let bytes = encode(manifest.log, 0, part.number, &entries);
    (part.bytes, part.crc) = (bytes.len() as u64, crc32fast::hash(&bytes));
    std::fs::write(path, bytes).unwrap();
    std::fs::write(manifest_path, manifest.encode()).unwrap();
    let damage = verify(dir.path(), &mut |_| {}).unwrap().damage;
    assert!(damage[0].what.contains("trimmed before 2"), "{damage:?}");
}
