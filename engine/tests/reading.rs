//! Reading in every way there is: from an offset, one record, backwards, by time, at every
//! visibility, borrowed and owned; the same records each time.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::time::Duration;

use ringlog::{Durability, Format, Log, Offset, Options, ReadError, SyncPolicy, Visibility};

const STREAMS: u64 = 7;
const RECORDS: u64 = 2_000;

fn options() -> Options {
    Options { format: Format { segment_bytes: Some(1 << 20), shards: None }, ..Options::default() }
}

fn payload(stream: u64, offset: u64) -> Vec<u8> {
    let len = 100 + (offset * 37 + stream * 11) % 900;
    (0..len).map(|at| (at ^ offset ^ stream) as u8).collect()
}

/// Several segments of several streams, appended in turns and in batches.
fn filled(dir: &std::path::Path, clean: bool) -> Log {
    let log = Log::open(dir, options()).unwrap();
    let streams: Vec<_> = (0..STREAMS).map(|s| log.stream(&format!("s{s}")).unwrap()).collect();
    for offset in 0..RECORDS {
        for (number, stream) in (0..).zip(&streams) {
            let record = payload(number, offset);
            let within = Duration::from_secs(60);
            let level = Durability::Written;
            let _receipt = stream.append_within(&record, level, within).unwrap();
        }
    }
    log.flush().unwrap();
    if clean {
        log.close().unwrap();
        return Log::open(dir, options()).unwrap();
    }
    log
}

#[test]
fn every_way_of_reading_gives_the_same_records() {
    for clean in [false, true] {
        let home = tempfile::TempDir::new().unwrap();
        let log = filled(home.path(), clean);
        for number in [0, STREAMS - 1] {
            let stream = log.existing_stream(&format!("s{number}")).unwrap();
            let expected: Vec<Vec<u8>> = (0..RECORDS).map(|o| payload(number, o)).collect();
            let owned: Vec<_> = stream.read(..).unwrap().map(Result::unwrap).collect();
            assert_eq!(owned.len() as u64, RECORDS);
            for (offset, record) in (0..).zip(&owned) {
                assert_eq!(
                    (record.offset().0, record.payload()),
                    (offset, &expected[offset as usize][..])
                );
            }
            let mut reader = stream.read(..).unwrap();
            let mut at = 0;
            while let Some(record) = reader.next_ref() {
                let record = record.unwrap();
                assert_eq!(record.payload(), expected[at]);
                assert_eq!(record.timestamp_ns(), owned[at].timestamp_ns());
                at += 1;
            }
            assert_eq!(at as u64, RECORDS);
            // Borrowed and owned ones in turns come from the same place.
            let mut reader = stream.read(Offset(5)..).unwrap();
            for (offset, expected) in expected.iter().enumerate().skip(5).take(500) {
                if offset % 3 == 0 {
                    assert_eq!(reader.next_ref().unwrap().unwrap().payload(), expected);
                } else {
                    assert_eq!(reader.next().unwrap().unwrap().payload(), expected);
                }
            }
            let mut back: Vec<u64> = Vec::new();
            for record in stream.read(..).unwrap().reverse() {
                let record = record.unwrap();
                assert_eq!(record.payload(), expected[record.offset().0 as usize]);
                back.push(record.offset().0);
            }
            assert!(back.iter().copied().eq((0..RECORDS).rev()), "{:?}", &back[..10]);
            let some = stream.read(Offset(1234)..Offset(1300)).unwrap().reverse().limit(10);
            let some: Vec<u64> = some.map(|record| record.unwrap().offset().0).collect();
            assert!(some.iter().copied().eq((1290..1300).rev()), "{some:?}");
            let all = stream.read(Offset(1234)..Offset(1300)).unwrap().reverse().count();
            assert_eq!(all, 66);
            for offset in (0..RECORDS).step_by(97) {
                assert_eq!(
                    stream.get(Offset(offset)).unwrap().payload(),
                    expected[offset as usize]
                );
                let one = stream.read(Offset(offset)..).unwrap().next().unwrap().unwrap();
                assert_eq!(one.payload(), expected[offset as usize]);
            }
            for at in (0..owned.len()).step_by(211) {
                let time = owned[at].timestamp_ns();
                let first = stream.read_since(time).unwrap().next().unwrap().unwrap();
                let due = owned.iter().find(|record| record.timestamp_ns() >= time).unwrap();
                assert_eq!(first.offset(), due.offset());
                assert_eq!(first.payload(), due.payload());
            }
            let last = owned.last().unwrap().timestamp_ns();
            assert!(stream.read_since(last + 1).unwrap().next().is_none());
            assert_eq!(stream.read_since(0).unwrap().count() as u64, RECORDS);
            assert_eq!(stream.get(Offset(RECORDS)).unwrap_err(), out_of_range());
            assert_eq!(stream.read(Offset(RECORDS + 1)..).unwrap_err(), out_of_range());
            assert_eq!(stream.follow(Offset(RECORDS + 1)).unwrap_err(), out_of_range());
        }
        log.close().unwrap();
    }
}

fn out_of_range() -> ReadError {
    ReadError::OutOfRange { next: Offset(RECORDS) }
}

#[test]
fn below_the_trim_point_there_is_an_error_that_names_the_first_offset() {
    let home = tempfile::TempDir::new().unwrap();
    let log = filled(home.path(), false);
    let stream = log.existing_stream("s3").unwrap();
    log.rotate().unwrap();
    assert!(log.trim(3).unwrap().segments > 3);
    let first = stream.read(..).unwrap().next().unwrap().unwrap().offset();
    assert!(first > Offset(0));
    let trimmed = ReadError::Trimmed { first };
    let mut reader = stream.read(Offset(0)..).unwrap();
    assert_eq!(reader.next().unwrap().unwrap_err(), trimmed);
    assert_eq!(reader.next().unwrap().unwrap().offset(), first);
    assert_eq!(stream.get(Offset(first.0 - 1)).unwrap_err(), trimmed);
    assert_eq!(stream.get(first).unwrap().payload(), payload(3, first.0));
    let mut follower = stream.follow(Offset(2)).unwrap();
    assert_eq!(follower.try_next().unwrap_err(), trimmed);
    assert_eq!(follower.try_next().unwrap().unwrap().offset(), first);
    // Backwards the missing head comes last, and only where it was asked for.
    let mut back: Vec<_> = stream.read(Offset(0)..).unwrap().reverse().collect();
    assert_eq!(back.pop().unwrap().unwrap_err(), trimmed);
    assert_eq!(back.len() as u64, RECORDS - first.0);
    assert!(back.iter().all(Result::is_ok));
    assert!(stream.read(..).unwrap().reverse().all(|record| record.is_ok()));
}

#[test]
fn visibility_says_how_early_a_record_is_seen() {
    let home = tempfile::TempDir::new().unwrap();
    // Nothing is flushed but at rotation and close.
    let log = Log::open(home.path(), Options { sync: SyncPolicy::Never, ..options() }).unwrap();
    let stream = log.stream("early").unwrap();
    for offset in 0..10_u64 {
        let receipt = stream.append_with(&payload(1, offset), Durability::Written).unwrap();
        assert_eq!(receipt.wait().unwrap().offset, Offset(offset));
    }
    let seen = |visibility| stream.read(..).unwrap().visibility(visibility).count();
    assert_eq!(seen(Visibility::Durable), 0);
    assert_eq!(seen(Visibility::Written), 10);
    assert_eq!(seen(Visibility::Staged), 10);
    let back = stream.read(..).unwrap().visibility(Visibility::Written).reverse().count();
    assert_eq!(back, 10);
    let receipt = stream.append_with(&payload(1, 10), Durability::Memory).unwrap();
    receipt.wait().unwrap(); // placed
    assert_eq!(seen(Visibility::Staged), 11);
    log.flush().unwrap();
    assert_eq!(seen(Visibility::Durable), 11);
    log.close().unwrap();
}

#[test]
fn a_reader_can_be_moved_to_another_thread_in_the_middle() {
    let home = tempfile::TempDir::new().unwrap();
    let log = filled(home.path(), false);
    let mut reader = log.existing_stream("s2").unwrap().read(..).unwrap();
    let mut offset = 0;
    while offset < RECORDS {
        // Each thread ends with reads ahead of it in flight.
        reader = std::thread::spawn(move || {
            for record in reader.by_ref().take(250) {
                let record = record.unwrap();
                assert_eq!(record.payload(), payload(2, record.offset().0));
            }
            reader
        })
        .join()
        .unwrap();
        offset += 250;
    }
    assert!(reader.next().is_none());
}
