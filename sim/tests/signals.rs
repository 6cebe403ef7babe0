//! Signals hail down on every thread of a process with a log: producers, writers, readers. Whether
//! the system begins interrupted calls again or not, nothing fails and nothing is lost.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use ringlog::{Durability, Format, IoKind, Log, OpenError, Options};
use ringlog_disk::hail::under_signals;

const PRODUCERS: u64 = 3;
const APPENDS: u64 = 400;
/// Longer than a loaded machine needs for one append.
const PATIENCE: Duration = Duration::from_secs(60);

fn record(producer: u64, number: u64) -> Vec<u8> {
    let mut record = format!("{producer} {number} ").into_bytes();
    record.resize(record.len() + (number * 37 % 5000) as usize, b'a' + (number % 26) as u8);
    record
}

fn produce(log: &Log, producer: u64) {
    let stream = log.stream(&format!("s{producer}")).unwrap();
    let levels = [Durability::Synced, Durability::Written, Durability::Memory];
    let mut receipts = Vec::new();
    for number in 0..APPENDS {
        let level = levels[number as usize % 3];
        let receipt = stream.append_within(&record(producer, number), level, PATIENCE).unwrap();
        receipts.push(receipt);
        if receipts.len() == 16 {
            for receipt in receipts.drain(..) {
                receipt.wait_timeout(PATIENCE).unwrap();
            }
        }
        match number {
            100 => log.rotate().unwrap(),
            200 => log.flush().unwrap(),
            300 => assert!(stream.read(..).unwrap().all(|record| record.is_ok())),
            _ => {}
        }
    }
    for receipt in receipts {
        receipt.wait_timeout(PATIENCE).unwrap();
    }
}

fn live(dir: &std::path::Path, options: &Options) -> Result<(), OpenError> {
    let log = Log::open(dir, options.clone())?;
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let log = &log;
            scope.spawn(move || produce(log, producer));
        }
    });
    let stats = log.stats();
    assert!(stats.shards.iter().all(|shard| shard.flush_failures == 0));
    assert!(stats.shards.iter().any(|shard| shard.rotations > 0));
    log.close().unwrap();
    Ok(())
}

fn check(dir: &std::path::Path, options: &Options) {
    let report = ringlog::verify(dir, &mut |_| {}).unwrap();
    assert!(report.sound, "{:?}", report.damage);
    let log = Log::open(dir, options.clone()).unwrap();
    for producer in 0..PRODUCERS {
        let stream = log.existing_stream(&format!("s{producer}")).unwrap();
        let read: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
        assert_eq!(read.len() as u64, APPENDS);
        for (number, found) in read.iter().enumerate() {
            assert!(found.payload() == record(producer, number as u64), "{producer} {number}");
        }
    }
    log.close().unwrap();
}

#[test]
fn signals_on_every_thread_disturb_nothing() {
    for io in [IoKind::Uring, IoKind::Blocking] {
        for restart in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let format = Format { segment_bytes: Some(1 << 20), shards: Some(2) };
            let options = Options { io, format, pin: false, ..Options::default() };
            let (result, met) = under_signals(restart, || live(dir.path(), &options));
            match result {
                Ok(()) => {}
                Err(OpenError::Disk(error)) if io == IoKind::Uring => {
                    skipped(format_args!("signals_on_every_thread…: io_uring: {error}"));
                    continue;
                }
                Err(error) => panic!("{io:?}, restart {restart}: {error}"),
            }
            assert!(met > 100, "only {met} signals were met");
            println!("{io:?}, restart {restart}: {met} signals");
            check(dir.path(), &options);
        }
    }
}

/// Says that a test cannot be run here; past the test runner, which keeps the output of tests that
/// pass to itself.
fn skipped(what: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {what}\n"));
}
