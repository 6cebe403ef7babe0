//! A log that one process writes and another reads and follows: nothing is locked or changed by the
//! reader, and what it sees is durable, in order, each record once, whatever the writer does.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringlog::format::manifest::Manifest;
use ringlog::{
    Durability, Epoch, IoKind, Log, Offset, Options, Primitive, ReadError, RecoveryMode, SyncPolicy,
};
use ringlog_disk::Dir;

/// Less where the code is known to be wrong: a test that meets a planted bug is not to take so long.
const LONG: Duration = Duration::from_secs(if cfg!(feature = "__mutants") { 5 } else { 60 });

/// Small segments, blocking calls.
fn writing() -> Options {
    let mut options = Options {
        io: IoKind::Blocking,
        primitive: Some(Primitive::Dsync),
        memory_bytes: 4 << 20,
        pin: false,
        ..Options::default()
    };
    options.format.segment_bytes = Some(1 << 20);
    options
}

fn reading() -> Options {
    Options { recovery: RecoveryMode::ReadOnly, create: false, ..writing() }
}

/// Every file of the log, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    found
}

fn payload(offset: u64) -> Vec<u8> {
    let len = 20 + (offset * 379) % 4000;
    (0..len).map(|at| (at.wrapping_mul(31) ^ offset) as u8).collect()
}

/// The stream, once its creation is known to be durable.
fn existing(log: &Log) -> ringlog::Stream {
    let give_up = Instant::now() + LONG;
    loop {
        match log.existing_stream("s") {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
        std::thread::yield_now();
    }
}

/// Follows up to (not including) `end`; gives how often trimming was told.
fn follow(log: &Log, end: u64) -> usize {
    let mut follower = existing(log).follow(Offset(0)).unwrap();
    let (mut next, mut trimmed) = (0, 0);
    while next < end {
        match follower.next_timeout(LONG) {
            Ok(Some(record)) => {
                assert_eq!(record.offset(), Offset(next));
                assert_eq!(record.payload(), payload(next));
                next += 1;
            }
            Ok(None) => panic!("nothing came after offset {next}"),
            Err(ReadError::Trimmed { first }) => {
                assert!(first > Offset(next));
                next = first.0;
                trimmed += 1;
            }
            Err(error) => panic!("at offset {next}: {error}"),
        }
    }
    trimmed
}

#[test]
fn a_follower_beside_the_writer_goes_over_rotation_and_restarts() {
    let home = tempfile::tempdir().unwrap();
    let first = Log::open(home.path(), writing()).unwrap();
    first.stream("s").unwrap().append(&payload(0)).unwrap().wait().unwrap();
    let end = 1500;
    let beside = Log::open(home.path(), reading()).unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&beside, end));
        let mut log = first;
        for offset in 1..end {
            let stream = log.stream("s").unwrap();
            let level = if offset % 7 == 0 { Durability::Synced } else { Durability::Written };
            let receipt = stream.append_within(&payload(offset), level, LONG).unwrap();
            if offset % 50 == 0 {
                receipt.wait().unwrap();
            }
            if offset % 400 == 0 {
                log.close().unwrap();
                log = Log::open(home.path(), writing()).unwrap();
            }
        }
        log.flush().unwrap();
        assert_eq!(follower.join().unwrap(), 0, "nothing was trimmed");
        assert!(log.stats().shards[0].segments > 1);
        log.close().unwrap();
    });
}

#[test]
fn a_follower_beside_the_writer_is_told_of_trimming_and_never_of_damage() {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path(), writing()).unwrap();
    let stream = log.stream("s").unwrap();
    stream.append(&payload(0)).unwrap().wait().unwrap();
    let end = 4000;
    let beside = Log::open(home.path(), reading()).unwrap();
    std::thread::scope(|scope| {
        let followers: Vec<_> = (0..3).map(|_| scope.spawn(|| follow(&beside, end))).collect();
        for offset in 1..end {
            let receipt = stream.append_within(&payload(offset), Durability::Synced, LONG).unwrap();
            if offset % 10 == 0 {
                receipt.wait().unwrap();
            }
            if offset % 300 == 0 {
                // The followers cannot keep up with this; and the files are used again.
                log.rotate().unwrap();
                log.trim(1).unwrap();
            }
        }
        log.flush().unwrap();
        for follower in followers {
            follower.join().unwrap();
        }
    });
    let first = beside.existing_stream("s").unwrap().read(..).unwrap().next().unwrap().unwrap();
    assert!(first.offset() > Offset(0));
}

#[test]
fn streams_that_are_created_later_are_found() {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path(), writing()).unwrap();
    let beside = Log::open(home.path(), reading()).unwrap();
    assert!(beside.existing_stream("late").is_err());
    log.stream("late").unwrap().append(b"x").unwrap().wait().unwrap();
    log.close().unwrap();
    let stream = beside.existing_stream("late").unwrap();
    assert_eq!(stream.next_offset(), Offset(1));
    assert_eq!(beside.streams().len(), 1);
    assert_eq!(stream.read(..).unwrap().count(), 1);
}

#[test]
fn looking_at_a_live_log_changes_nothing_and_keeps_no_writer_out() {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path(), writing()).unwrap();
    let stream = log.stream("s").unwrap();
    for at in 0..100 {
        stream.append(&payload(at)).unwrap().wait().unwrap();
    }
    log.close().unwrap();
    let before = files(home.path());
    let beside = Log::open(home.path(), reading()).unwrap();
    assert_eq!(beside.existing_stream("s").unwrap().read(..).unwrap().count(), 100);
    let mut follower = beside.existing_stream("s").unwrap().follow(Offset(100)).unwrap();
    assert!(follower.next_timeout(Duration::from_millis(20)).unwrap().is_none());
    assert!(files(home.path()) == before);
    let log = Log::open(home.path(), writing()).unwrap();
    log.stream("s").unwrap().append(&payload(100)).unwrap().wait().unwrap();
    assert_eq!(follower.next_timeout(LONG).unwrap().unwrap().payload(), payload(100));
    log.close().unwrap();
}

/// The end moves on between any two reads of it.
#[test]
fn a_view_opens_however_busy_the_writer_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), writing()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stream = log.stream("s").unwrap();
            for offset in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                stream.append(&payload(offset)).unwrap().wait().unwrap();
            }
        });
        let refused = (0..200).find_map(|_| Log::open(dir.path(), reading()).err());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(refused, None);
    });
    log.close().unwrap();
}

#[test]
fn what_is_not_durable_is_not_shown_as_long_as_a_writer_is_there() {
    let home = tempfile::tempdir().unwrap();
    // Nothing is flushed before somebody asks for it.
    let never = Options { sync: SyncPolicy::Never, ..writing() };
    let log = Log::open(home.path(), never).unwrap();
    let stream = log.stream("s").unwrap();
    stream.append_with(&payload(0), Durability::Written).unwrap().wait().unwrap();
    log.flush().unwrap();
    for offset in 1..20 {
        stream.append_with(&payload(offset), Durability::Written).unwrap().wait().unwrap();
    }
    let beside = Log::open(home.path(), reading()).unwrap();
    let shown = existing(&beside);
    for _ in 0..3 {
        assert_eq!(shown.read(..).unwrap().count(), 1, "the others are on the device, no more");
        assert_eq!(shown.next_offset(), Offset(1));
    }
    let mut follower = shown.follow(Offset(1)).unwrap();
    assert!(follower.try_next().unwrap().is_none());
    log.flush().unwrap();
    stream.append_with(&payload(20), Durability::Written).unwrap().wait().unwrap();
    // The header of the last one tells of the flush.
    assert_eq!(shown.read(..).unwrap().count(), 20);
    assert_eq!(follower.try_next().unwrap().unwrap().payload(), payload(1));
    log.close().unwrap();
    assert_eq!(shown.read(..).unwrap().count(), 21);
}

/// The log as the death of its writer leaves it.
fn copy_dir(from: &Path, to: &Path) {
    for (path, content) in files(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, content).unwrap();
    }
}

/// The first thing that a new life does is to raise the epoch; then it proves what it has found.
#[test]
fn what_was_shown_is_not_taken_back_while_a_new_life_begins() {
    let home = tempfile::tempdir().unwrap();
    let never = Options { sync: SyncPolicy::Never, ..writing() };
    let log = Log::open(home.path(), never).unwrap();
    let stream = log.stream("s").unwrap();
    stream.append_with(&payload(0), Durability::Written).unwrap().wait().unwrap();
    log.flush().unwrap();
    for offset in 1..20 {
        stream.append_with(&payload(offset), Durability::Written).unwrap().wait().unwrap();
    }
    let end = log.stats().shards[0].staged_lsn;
    let copy = tempfile::tempdir().unwrap();
    copy_dir(home.path(), copy.path());
    drop((stream, log));

    let beside = Log::open(copy.path(), reading()).unwrap();
    let shown = beside.existing_stream("s").unwrap();
    let mut follower = shown.follow(Offset(0)).unwrap();
    for offset in 0..10 {
        assert_eq!(follower.try_next().unwrap().unwrap().payload(), payload(offset));
    }
    assert_eq!(shown.read(..).unwrap().count(), 20, "nobody writes: recovery would keep them");

    let path = copy.path().join("shard-000/manifest");
    let mut manifest = Manifest::decode(&std::fs::read(&path).unwrap()).unwrap();
    let new_life = Dir::open(copy.path()).unwrap();
    new_life.hold_writer_mark().unwrap();
    (manifest.epoch, manifest.life_lsn) = (Epoch(manifest.epoch.0 + 1), end);
    manifest.generation += 1;
    std::fs::write(&path, manifest.encode()).unwrap();
    for _ in 0..3 {
        assert_eq!(shown.read(..).unwrap().count(), 20);
        assert_eq!(shown.read(Offset(15)..).unwrap().count(), 5);
        assert_eq!(shown.next_offset(), Offset(20));
    }
    for offset in 10..15 {
        assert_eq!(follower.try_next().unwrap().unwrap().payload(), payload(offset));
    }

    drop(new_life);
    let log = Log::open(copy.path(), writing()).unwrap();
    log.stream("s").unwrap().append(&payload(20)).unwrap().wait().unwrap();
    log.close().unwrap();
    for offset in 15..21 {
        assert_eq!(follower.next_timeout(LONG).unwrap().unwrap().payload(), payload(offset));
    }
    let read: Vec<_> = shown.read(..).unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 21);
    assert!(read.iter().all(|record| record.payload() == payload(record.offset().0)));
}

const CHILD: &str = "RINGLOG_TEST_LIVE_DIR";

/// Not a test: the writing process of the test below, which runs it again with the variable set.
#[test]
fn child_writer() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let log = Log::open(Path::new(&dir), writing()).unwrap();
    let stream = log.stream("s").unwrap();
    loop {
        let offset = stream.next_offset().0;
        stream.append(&payload(offset)).unwrap().wait().unwrap();
        println!("acknowledged {offset}");
        if offset % 200 == 199 {
            log.rotate().unwrap();
        }
    }
}

fn start_writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child_writer", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_follower_goes_on_when_the_writer_is_killed_and_started_again() {
    let home = tempfile::tempdir().unwrap();
    let log = Log::open(home.path(), writing()).unwrap();
    log.stream("s").unwrap().append(&payload(0)).unwrap().wait().unwrap();
    log.close().unwrap();
    let beside = Log::open(home.path(), reading()).unwrap();
    let (seen, finished) = (AtomicU64::new(0), AtomicBool::new(false));
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let stream = beside.existing_stream("s").unwrap();
            let mut follower = stream.follow(Offset(0)).unwrap();
            let mut next = 0;
            while !finished.load(Ordering::SeqCst) {
                let Some(record) = follower.next_timeout(Duration::from_millis(50)).unwrap() else {
                    continue;
                };
                assert_eq!(record.offset(), Offset(next));
                assert_eq!(record.payload(), payload(next));
                next += 1;
                seen.store(next, Ordering::SeqCst);
            }
        });
        for _ in 0..6 {
            let mut writer = start_writer(home.path());
            let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
            let offsets = lines.map_while(Result::ok).filter_map(|line| {
                line.rsplit_once("acknowledged ").and_then(|(_, offset)| offset.parse().ok())
            });
            let mut last: u64 = 0;
            for offset in offsets.take(150) {
                last = offset;
            }
            writer.kill().unwrap();
            writer.wait().unwrap();
            assert!(last > 0);
            acknowledged.fetch_max(last, Ordering::SeqCst);
            // What was acknowledged is seen, with nobody there to prove it.
            let give_up = Instant::now() + LONG;
            while seen.load(Ordering::SeqCst) <= last {
                assert!(Instant::now() < give_up, "{last} was never seen");
                std::thread::yield_now();
            }
        }
        finished.store(true, Ordering::SeqCst);
    });
    // And what was seen was not taken back.
    let log = Log::open(home.path(), writing()).unwrap();
    assert!(log.stream("s").unwrap().next_offset().0 >= seen.load(Ordering::SeqCst));
    log.close().unwrap();
}
