//! Shards that their caller drives, on real directories: io_uring where it is to be had, and
//! blocking calls.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringlog::driven::{Answer, AnyDisk, Appended, DrivenLog, DrivenShard, Event, Seat};
use ringlog::{
    AppendError, Durability, Format, FullReason, IoKind, Log, Offset, OpenError, Options,
    Primitive, ReceiptError, RecoveryMode, StreamError, StreamId, SyncPolicy, TrimError,
};

/// Nothing here takes this long; what does hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const BOTH: [IoKind; 2] = [IoKind::Auto, IoKind::Blocking];

fn options(io: IoKind) -> Options {
    Options {
        format: Format { segment_bytes: Some(1 << 20), shards: Some(1) },
        io,
        primitive: Some(Primitive::Dsync),
        memory_bytes: 4 << 20,
        pin: false,
        ..Options::default()
    }
}

fn start(dir: &Path, options: Options) -> DrivenShard<AnyDisk> {
    only(DrivenLog::open(dir, options).unwrap().into_seats()).start().unwrap()
}

fn only(mut seats: Vec<Seat>) -> Seat {
    assert_eq!(seats.len(), 1);
    seats.remove(0)
}

/// Waits until `done` says so.
#[track_caller]
fn drive(
    shard: &mut DrivenShard<AnyDisk>,
    mut done: impl FnMut(&mut DrivenShard<AnyDisk>) -> bool,
) {
    let begun = Instant::now();
    while !done(shard) {
        assert!(begun.elapsed() < PATIENCE, "{shard:?} hangs");
        shard.wait(Some(Duration::from_millis(50)));
    }
}

#[track_caller]
fn until_acknowledged(shard: &mut DrivenShard<AnyDisk>, appended: &Appended) {
    drive(shard, |shard| shard.is_acknowledged(appended));
}

/// Waits for the answer to the request with this token.
#[track_caller]
fn answer(shard: &mut DrivenShard<AnyDisk>, token: u64) -> Answer {
    let mut answer = None;
    drive(shard, |shard| {
        for event in shard.events() {
            match event {
                Event::Answered { token: answered, result } if answered == token => {
                    answer = Some(result.unwrap());
                }
                Event::Acknowledged { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        answer.is_some()
    });
    answer.unwrap()
}

fn record(at: u64) -> Vec<u8> {
    let mut record = format!("record {at} ").into_bytes();
    record.resize(record.len() + (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize, b'x');
    record
}

#[test]
fn what_is_appended_is_read_back_by_either_way_of_opening() {
    for io in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut next = 0;
        for life in 0..4 {
            if life % 2 == 0 {
                let mut shard = start(dir.path(), options(io));
                assert!(life == 0 || shard.recovery().clean, "life {life}");
                let stream = shard.stream("s").unwrap();
                assert_eq!(shard.next_offset(stream), Offset(next));
                let mut last = None;
                for durability in [Durability::Memory, Durability::Written, Durability::Synced] {
                    for _ in 0..50 {
                        let appended = shard.append(stream, &record(next), durability).unwrap();
                        assert_eq!(appended.offset, Offset(next));
                        next += 1;
                        last = Some(appended);
                    }
                }
                until_acknowledged(&mut shard, &last.unwrap());
                let read: Vec<_> =
                    shard.read(stream, ..).unwrap().map(|record| record.unwrap()).collect();
                assert_eq!(read.len() as u64, next);
                assert!(read.iter().zip(0..).all(|(found, at)| found.payload() == record(at)));
                shard.close().unwrap();
            } else {
                let log = Log::open(dir.path(), options(io)).unwrap();
                assert!(log.recovery_report().shards[0].clean);
                let stream = log.existing_stream("s").unwrap();
                let read: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
                assert_eq!(read.len() as u64, next);
                assert!(read.iter().zip(0..).all(|(found, at)| found.payload() == record(at)));
                let receipt = stream.append(&record(next)).unwrap();
                assert_eq!(receipt.wait().unwrap().offset, Offset(next));
                next += 1;
                log.close().unwrap();
            }
        }
    }
}

#[test]
fn dropping_a_shard_keeps_what_was_acknowledged() {
    for io in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged = 0;
        for _ in 0..3 {
            let mut shard = start(dir.path(), options(io));
            let stream = shard.stream("s").unwrap();
            let next = shard.next_offset(stream).0;
            assert!(next >= acknowledged, "{next} of {acknowledged} records are left");
            for at in next..next + 40 {
                let appended = shard.append(stream, &record(at), Durability::Synced).unwrap();
                until_acknowledged(&mut shard, &appended);
            }
            acknowledged = next + 40;
            // These were never asked for; the open chunk goes with the shard.
            for at in acknowledged..acknowledged + 5 {
                shard.append(stream, &record(at), Durability::Memory).unwrap();
            }
        }
        let log = Log::open(dir.path(), options(io)).unwrap();
        assert!(!log.recovery_report().shards[0].clean);
        let stream = log.existing_stream("s").unwrap();
        let read: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
        assert!(read.len() as u64 >= acknowledged);
        assert!(read.iter().zip(0..).all(|(found, at)| found.payload() == record(at)));
    }
}

#[test]
fn two_seats_are_driven_by_two_threads_and_lock_out_everybody_else() {
    fn assert_send<T: Send>(_: &T) {}
    let dir = tempfile::tempdir().unwrap();
    let mut two = options(IoKind::Auto);
    (two.format.shards, two.memory_bytes) = (Some(2), 8 << 20);
    let log = DrivenLog::open(dir.path(), two.clone()).unwrap();
    let name = |shard: u16| {
        (0..).map(|at| format!("s{at}")).find(|name| log.shard_of(name) == shard).unwrap()
    };
    let names = [name(0), name(1)];
    assert_eq!(log.shards(), 2);
    let seats = log.into_seats();
    seats.iter().for_each(assert_send);
    let locked = |what: &str| {
        let refused = DrivenLog::open(dir.path(), two.clone());
        assert!(matches!(refused, Err(OpenError::Locked(_))), "{what}");
        assert!(matches!(Log::open(dir.path(), two.clone()), Err(OpenError::Locked(_))), "{what}");
    };
    locked("seats that nobody has started");
    std::thread::scope(|scope| {
        for seat in seats {
            let names = &names;
            scope.spawn(move || {
                let own = usize::from(seat.shard());
                let mut shard = seat.start().unwrap();
                let other = shard.stream(&names[1 - own]);
                assert_eq!(other, Err(StreamError::OtherShard { shard: 1 - own as u16 }));
                let stream = shard.stream(&names[own]).unwrap();
                let mut last = None;
                for at in 0..100 {
                    last = Some(shard.append(stream, &record(at), Durability::Synced).unwrap());
                }
                until_acknowledged(&mut shard, &last.unwrap());
                shard.close().unwrap();
            });
        }
    });
    let log = Log::open(dir.path(), two).unwrap();
    assert!(log.recovery_report().shards.iter().all(|shard| shard.clean));
    for name in &names {
        assert_eq!(log.existing_stream(name).unwrap().next_offset(), Offset(100));
    }
}

#[test]
fn a_running_shard_locks_the_log_and_a_gone_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let shard = start(dir.path(), options(IoKind::Auto));
    let refused = DrivenLog::open(dir.path(), options(IoKind::Auto));
    assert!(matches!(refused, Err(OpenError::Locked(_))), "{refused:?}");
    drop(shard);
    drop(DrivenLog::open(dir.path(), options(IoKind::Auto)).unwrap());
    let read_only = Options { recovery: RecoveryMode::ReadOnly, ..options(IoKind::Auto) };
    let refused = DrivenLog::open(dir.path(), read_only);
    assert!(matches!(refused, Err(OpenError::InvalidOption { field, .. }) if field == "recovery"));
}

#[test]
fn a_refused_open_changes_nothing_in_any_shard() {
    let dir = tempfile::tempdir().unwrap();
    let mut two = options(IoKind::Auto);
    (two.format.shards, two.memory_bytes) = (Some(2), 8 << 20);
    Log::open(dir.path(), two.clone()).unwrap().close().unwrap();
    for damaged in ["shard-000", "shard-001"] {
        let manifest = dir.path().join(damaged).join("manifest");
        let whole = std::fs::read(&manifest).unwrap();
        std::fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
        let before = files(dir.path());
        let refused = DrivenLog::open(dir.path(), two.clone());
        assert!(matches!(refused, Err(OpenError::Corrupt(_))), "{refused:?}");
        assert_eq!(files(dir.path()), before);
        std::fs::write(&manifest, &whole).unwrap();
    }
    let sound = files(dir.path());
    drop(DrivenLog::open(dir.path(), two).unwrap());
    assert_eq!(files(dir.path()), sound, "seats that nobody starts change nothing");
}

/// Every file below `dir`.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => drop(files.insert(path.clone(), std::fs::read(path).unwrap())),
        }
    }
    files
}

#[test]
fn memory_that_is_used_up_refuses_until_turns_have_been_taken() {
    for io in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = start(dir.path(), options(io));
        let stream = shard.stream("s").unwrap();
        let record = vec![7; 4000];
        let (mut taken, mut last, mut refusals) = (0, None, 0);
        while refusals < 3 {
            // Nothing happens between the appends: so the memory bounds how many there are.
            match shard.append(stream, &record, Durability::Synced) {
                Ok(appended) => {
                    assert_eq!(appended.offset, Offset(taken));
                    taken += 1;
                    last = Some(appended);
                }
                Err(error) => {
                    assert_eq!(error, AppendError::Full { reason: FullReason::Memory });
                    let held = (taken * 4000) / (refusals + 1);
                    assert!((1 << 19..4 << 20).contains(&held), "{held} bytes");
                    refusals += 1;
                    until_acknowledged(&mut shard, &last.unwrap());
                }
            }
        }
        let appended = shard.append(stream, &record, Durability::Synced).unwrap();
        assert_eq!(appended.offset, Offset(taken));
        shard.close().unwrap();
    }
}

#[test]
fn tokens_come_back_exactly_once_and_in_order_for_each_durability() {
    for io in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = start(dir.path(), options(io));
        let stream = shard.stream("s").unwrap();
        let levels = [Durability::Memory, Durability::Written, Durability::Synced];
        let mut back: [Vec<u64>; 3] = Default::default();
        let mut take = |shard: &mut DrivenShard<AnyDisk>| {
            for event in shard.events() {
                let Event::Acknowledged { token } = event else { panic!("{event:?}") };
                back[token as usize % 3].push(token / 3);
            }
            back.iter().map(Vec::len).sum::<usize>()
        };
        for at in 0..3000 {
            let level = levels[at as usize % 3];
            let appended = loop {
                match shard.append(stream, &record(at), level) {
                    Ok(appended) => break appended,
                    Err(AppendError::Full { .. }) => drop(shard.wait(None)),
                    Err(error) => panic!("{error}"),
                }
            };
            shard.notify(appended, at);
            if at % 7 == 0 {
                shard.turn();
                take(&mut shard);
            }
        }
        drive(&mut shard, |shard| take(shard) == 3000);
        for _ in 0..20 {
            shard.turn();
        }
        assert_eq!(take(&mut shard), 3000, "a token came back twice");
        for level in back {
            assert_eq!(level, (0..1000).collect::<Vec<_>>());
        }
        shard.close().unwrap();
    }
}

#[test]
fn a_token_that_is_left_late_comes_back_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = start(dir.path(), options(IoKind::Auto));
    let stream = shard.stream("s").unwrap();
    let appended = shard.append(stream, b"x", Durability::Synced).unwrap();
    assert!(!shard.is_acknowledged(&appended), "nothing was written yet");
    until_acknowledged(&mut shard, &appended);
    assert_eq!(shard.failure_of(&appended), None);
    shard.notify(appended, 5);
    assert_eq!(shard.events().collect::<Vec<_>>(), [Event::Acknowledged { token: 5 }]);
}

#[test]
fn segments_change_inside_the_loop_with_and_without_a_thread_for_names() {
    for io in BOTH {
        for names_thread in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let seat = only(DrivenLog::open(dir.path(), options(io)).unwrap().into_seats());
            let mut shard = seat.names_thread(names_thread).start().unwrap();
            let stream = shard.stream("s").unwrap();
            let record = vec![3; 30_000];
            let append = |shard: &mut DrivenShard<AnyDisk>, count: u64| {
                for _ in 0..count {
                    let appended = shard.append(stream, &record, Durability::Synced).unwrap();
                    until_acknowledged(shard, &appended);
                }
            };
            append(&mut shard, 120); // 3.6 MB in segments of 1 MiB
            shard.rotate(1);
            assert_eq!(answer(&mut shard, 1), Answer::Done);
            shard.trim(1, 2);
            let Answer::Trimmed(report) = answer(&mut shard, 2) else { panic!("not a trim") };
            assert!(report.segments >= 3, "{report:?}");
            append(&mut shard, 120);
            shard.flush(3);
            assert_eq!(answer(&mut shard, 3), Answer::Done);
            shard.close().unwrap();
            let log = Log::open(dir.path(), options(io)).unwrap();
            let stream = log.existing_stream("s").unwrap();
            assert_eq!(stream.next_offset(), Offset(240));
            let kept = stream.read(..).unwrap().map(|r| r.unwrap()).collect::<Vec<_>>();
            assert!((120..180).contains(&kept.len()), "{} records are kept", kept.len());
            assert!(kept.iter().all(|found| found.payload() == record));
        }
    }
}

#[test]
fn a_batch_a_tombstone_and_a_large_record_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = start(dir.path(), options(IoKind::Auto));
    let stream = shard.stream("s").unwrap();
    let other = shard.stream("other").unwrap();
    assert_eq!(shard.existing_stream("s"), Ok(stream));
    assert_eq!(shard.stream("s"), Ok(stream));
    let mut expected: Vec<(Vec<u8>, bool)> = Vec::new();
    for round in 0..5_u8 {
        let batch = [vec![round; 10], vec![], vec![round; 3000]];
        let first = shard.append_batch(stream, &batch, Durability::Synced).unwrap();
        assert_eq!(first.offset, Offset(expected.len() as u64));
        expected.extend(batch.into_iter().map(|record| (record, false)));
        shard.append(other, b"between", Durability::Written).unwrap();
        let large = vec![round; 200_000];
        let appended = shard.append(stream, &large, Durability::Synced).unwrap();
        assert_eq!(appended.offset, Offset(expected.len() as u64));
        expected.push((large, false));
        let stone = shard.append_tombstone(stream, b"gone", Durability::Synced).unwrap();
        assert_eq!(stone.offset, Offset(expected.len() as u64));
        expected.push((b"gone".to_vec(), true));
        until_acknowledged(&mut shard, &stone);
    }
    let read: Vec<_> = shard.read(stream, ..).unwrap().map(|record| record.unwrap()).collect();
    let read: Vec<_> = read.iter().map(|r| (r.payload().to_vec(), r.is_tombstone())).collect();
    assert_eq!(read, expected);
    assert_eq!(shard.next_offset(other), Offset(5));
    shard.close().unwrap();
}

#[test]
fn appends_that_cannot_be_taken_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut rules = options(IoKind::Auto);
    rules.stream_sync.insert("never".into(), SyncPolicy::Never);
    let mut shard = start(dir.path(), rules);
    let stream = shard.stream("s").unwrap();
    for unknown in [StreamId(0), StreamId(77)] {
        let refused = shard.append(unknown, b"x", Durability::Memory);
        assert_eq!(refused, Err(AppendError::UnknownStream(unknown)));
    }
    let none: [&[u8]; 0] = [];
    assert_eq!(shard.append_batch(stream, &none, Durability::Synced), Err(AppendError::EmptyBatch));
    let refused = shard.append(stream, &vec![0; 3 << 20], Durability::Synced);
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    let never = shard.stream("never").unwrap();
    assert_eq!(shard.append(never, b"x", Durability::Synced), Err(AppendError::NeverSynced));
    assert!(shard.append(never, b"x", Durability::Written).is_ok());
    assert_eq!(shard.stream(""), Err(StreamError::InvalidName { bytes: 0 }));
    shard.begin_close();
    assert_eq!(shard.append(stream, b"x", Durability::Memory), Err(AppendError::Closed));
    drive(&mut shard, |shard| shard.closed().is_some());
    assert_eq!(shard.closed(), Some(&Ok(())));
    drop(shard);
    let log = Log::open(dir.path(), options(IoKind::Auto)).unwrap();
    assert!(log.recovery_report().shards[0].clean);
    assert_eq!(log.existing_stream("never").unwrap().next_offset(), Offset(1));
    assert_eq!(log.existing_stream("s").unwrap().next_offset(), Offset(0));
}

/// The loop of an application that sleeps in `poll(2)`, as one in epoll would.
#[test]
fn a_loop_of_the_callers_own_sleeps_on_the_descriptor() {
    for io in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = start(dir.path(), options(io));
        let stream = shard.stream("s").unwrap();
        let record = vec![1; 20_000];
        let (mut acknowledged, mut slept) = (0, 0);
        let begun = Instant::now();
        for token in 0..100 {
            let appended = shard.append(stream, &record, Durability::Synced).unwrap();
            shard.notify(appended, token);
            while acknowledged <= token {
                assert!(begun.elapsed() < PATIENCE, "{shard:?} hangs");
                let turn = shard.turn();
                acknowledged += shard.events().count() as u64;
                if !turn.more && acknowledged <= token && shard.about_to_sleep() {
                    slept += 1;
                    // Far longer than a commit: were the descriptor silent, this would hang.
                    sleep_on(&shard, Duration::from_secs(20));
                }
            }
        }
        if io == IoKind::Auto {
            assert!(slept > 0, "it never slept");
        }
        // Whoever has something for this thread wakes it through the same descriptor.
        while shard.turn().more || !shard.about_to_sleep() {}
        let waker = shard.waker();
        let other = std::thread::spawn(move || waker.wake());
        let begun = Instant::now();
        sleep_on(&shard, PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "the waker does not reach the descriptor");
        other.join().unwrap();
        shard.close().unwrap();
    }
}

/// Sleeps until the shard's descriptor is readable.
fn sleep_on(shard: &DrivenShard<AnyDisk>, at_most: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let descriptor = shard.poll_fd().unwrap();
    let limit = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit)).unwrap();
}

#[test]
fn records_that_nobody_waits_for_are_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = start(dir.path(), options(IoKind::Auto));
    let stream = shard.stream("s").unwrap();
    let appended = shard.append(stream, b"x", Durability::Memory).unwrap();
    assert!(shard.is_acknowledged(&appended));
    let before = shard.durable_lsn();
    drive(&mut shard, |shard| shard.durable_lsn() > before);
    assert_eq!(shard.read(stream, ..).unwrap().count(), 1);
}

#[test]
fn a_flush_covers_what_no_policy_would() {
    let dir = tempfile::tempdir().unwrap();
    let never = Options { sync: SyncPolicy::Never, ..options(IoKind::Auto) };
    let mut shard = start(dir.path(), never);
    let stream = shard.stream("s").unwrap();
    let appended = shard.append(stream, b"x", Durability::Written).unwrap();
    until_acknowledged(&mut shard, &appended);
    assert!(shard.durable_lsn() < shard.written_lsn());
    shard.flush(9);
    assert_eq!(answer(&mut shard, 9), Answer::Done);
    assert_eq!(shard.durable_lsn(), shard.staged_lsn());
}

#[test]
fn a_full_disk_fails_tokens_and_goes_on_by_itself() {
    use std::process::Command;
    let home = tempfile::tempdir().unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "ringlog-test"]).arg(home.path());
        command.stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !mount("size=6m") {
        let text = "skipped: a_full_disk_fails_tokens…: no right to mount a tmpfs\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        return;
    }
    let dir = home.path().join("log");
    let mut shard = start(&dir, options(IoKind::Auto));
    let stream = shard.stream("s").unwrap();
    let record = vec![5; 50_000];
    let (mut acknowledged, mut failed, mut offset) = (0, 0, 0);
    let begun = Instant::now();
    // More is appended than there is room for, and several at a time, so that some are refused
    // after they were taken.
    while failed == 0 {
        assert!(begun.elapsed() < PATIENCE, "never full");
        match shard.append(stream, &record, Durability::Synced) {
            Ok(appended) => {
                assert_eq!(appended.offset.0, offset);
                offset += 1;
                shard.notify(appended, appended.offset.0);
                if offset % 10 != 0 {
                    continue;
                }
            }
            Err(AppendError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        shard.wait(Some(Duration::from_millis(20)));
        for event in shard.events() {
            match event {
                Event::Acknowledged { token } => {
                    assert_eq!((token, failed), (acknowledged, 0));
                    acknowledged += 1;
                }
                Event::Failed { error, .. } => {
                    assert_eq!(error, ReceiptError::DiskFull);
                    failed += 1;
                }
                other @ Event::Answered { .. } => panic!("{other:?}"),
            }
        }
        offset = shard.next_offset(stream).0;
    }
    assert!(acknowledged > 20, "only {acknowledged} records fitted 6 MiB");
    drive(&mut shard, |shard| {
        acknowledged +=
            shard.events().filter(|e| matches!(e, Event::Acknowledged { .. })).count() as u64;
        shard.in_flight() == 0
    });
    assert_eq!(shard.next_offset(stream), Offset(acknowledged), "offsets of refused records");

    assert!(mount("remount,size=64m"));
    let mut again = None;
    drive(&mut shard, |shard| {
        if again.is_none() {
            again = shard.append(stream, &record, Durability::Synced).ok();
        }
        again.is_some_and(|appended| shard.is_acknowledged(&appended))
    });
    assert_eq!(again.unwrap().offset, Offset(acknowledged));
    shard.close().unwrap();
    let log = Log::open(&dir, options(IoKind::Auto)).unwrap();
    let stream = log.existing_stream("s").unwrap();
    let read: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
    assert_eq!(read.len() as u64, acknowledged + 1);
    assert!(read.iter().all(|found| found.payload() == record));
    log.close().unwrap();
    let _ = Command::new("umount").arg("--lazy").arg(home.path()).status();
}

#[test]
fn a_stream_is_trimmed_under_any_policy() {
    let dir = tempfile::tempdir().unwrap();
    let never = Options { sync: SyncPolicy::Never, ..options(IoKind::Auto) };
    let mut shard = start(dir.path(), never.clone());
    let stream = shard.stream("s").unwrap();
    for at in 0..10 {
        shard.append(stream, &record(at), Durability::Written).unwrap();
    }
    let refused = shard.trim_stream(stream, Offset(11), 1);
    assert_eq!(refused, Err(TrimError::OutOfRange { next: Offset(10) }));
    shard.trim_stream(stream, Offset(4), 2).unwrap();
    let mut events = Vec::new();
    drive(&mut shard, |shard| {
        events.extend(shard.events());
        !events.is_empty()
    });
    assert_eq!(events, [Event::Acknowledged { token: 2 }]);
    let first = |read: Vec<Result<ringlog::Record, ringlog::ReadError>>| {
        read.iter().find_map(|record| record.as_ref().ok().map(ringlog::Record::offset))
    };
    assert_eq!(first(shard.read(stream, ..).unwrap().collect()), Some(Offset(4)));
    shard.close().unwrap();
    let log = Log::open(dir.path(), never).unwrap();
    let stream = log.existing_stream("s").unwrap();
    assert_eq!(first(stream.read(..).unwrap().collect()), Some(Offset(4)));
}

#[test]
fn its_statistics_are_those_of_what_it_did() {
    for io in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut shard = start(dir.path(), options(io));
        let stream = shard.stream("s").unwrap();
        let before = shard.stats();
        assert_eq!((before.records_appended, before.queue_depth), (0, 1), "the stream's creation");
        for at in 0..10 {
            let appended = shard.append(stream, &record(at), Durability::Synced).unwrap();
            until_acknowledged(&mut shard, &appended);
        }
        let bytes: usize = (0..10).map(|at| record(at).len()).sum();
        shard.append(StreamId(77), b"x", Durability::Synced).unwrap_err();
        shard.append(stream, &vec![0; 32 << 20], Durability::Synced).unwrap_err();
        let open = shard.append(stream, b"open", Durability::Memory).unwrap();
        let stats = shard.stats();
        assert_eq!(stats.records_appended, 11);
        assert_eq!(stats.bytes_appended, bytes as u64 + 4);
        assert_eq!(stats.records_acknowledged, 10);
        assert_eq!(stats.rejections.each().map(|(_, count)| count), [0, 0, 1, 0, 0]);
        assert_eq!(stats.queue_depth, 1);
        assert_eq!(stats.epoch, before.epoch);
        assert_eq!(
            (stats.durable_lsn, stats.staged_lsn),
            (shard.durable_lsn(), shard.staged_lsn())
        );
        assert!(stats.flushes >= 10 && stats.flush_latency.len() >= 10, "{stats:?}");
        assert_eq!(stats.segments, 1);
        let _ = open;
        shard.close().unwrap();
    }
}
