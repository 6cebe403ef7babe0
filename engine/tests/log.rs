//! A log as its users meet it, on the file system that the tests run on, and most of it in memory too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringlog::{
    AppendError, Durability, Format, FullReason, IoKind, Log, MemoryDevice, Offset, OpenError,
    Options, Progress, ReadError, RecoveryMode, StreamError, SyncPolicy,
};

fn small() -> Options {
    Options { format: Format { segment_bytes: Some(1 << 20), shards: None }, ..Options::default() }
}

fn payloads(log: &Log, stream: &str) -> Vec<Vec<u8>> {
    let stream = log.existing_stream(stream).unwrap();
    stream.read(..).unwrap().map(|record| record.unwrap().payload().to_vec()).collect()
}

fn each_io(test: impl Fn(Options)) {
    for io in [IoKind::Auto, IoKind::Blocking] {
        test(Options { io, ..small() });
    }
}

/// Where a case keeps its log: in files or in memory, it is the same log.
enum Home {
    Files(tempfile::TempDir),
    Memory(MemoryDevice),
}

impl Home {
    fn open(&self, options: Options) -> Result<Log, OpenError> {
        match self {
            Self::Files(dir) => Log::open(dir.path(), options),
            Self::Memory(device) => Log::open_in(device, options),
        }
    }
}

fn each_place(case: impl Fn(&Home)) {
    case(&Home::Files(tempfile::tempdir().unwrap()));
    case(&Home::Memory(MemoryDevice::new()));
}

fn each_home(case: impl Fn(&Home, Options)) {
    each_io(|options| case(&Home::Files(tempfile::tempdir().unwrap()), options));
    case(&Home::Memory(MemoryDevice::new()), small());
}

#[test]
fn what_is_acknowledged_is_read_back_and_survives_reopening() {
    each_home(|home, options| {
        for durability in [Durability::Memory, Durability::Written, Durability::Synced] {
            let log = home.open(options.clone()).unwrap();
            let stream = log.stream("orders").unwrap();
            let before = stream.next_offset();
            let records: Vec<Vec<u8>> = (0..500_u32).map(|n| vec![n as u8; n as usize]).collect();
            let receipts: Vec<_> = records
                .iter()
                .map(|record| {
                    stream.append_within(record, durability, Duration::from_secs(10)).unwrap()
                })
                .collect();
            for (n, receipt) in receipts.iter().enumerate() {
                assert_eq!(receipt.wait().unwrap().offset, Offset(before.0 + n as u64));
            }
            if durability == Durability::Synced {
                assert_eq!(payloads(&log, "orders")[before.0 as usize..], records);
            }
            log.close().unwrap();
            let log = home.open(options.clone()).unwrap();
            assert!(log.recovery_report().shards[0].clean);
            assert_eq!(payloads(&log, "orders")[before.0 as usize..], records);
        }
    });
}

#[test]
fn many_streams_from_many_threads_keep_each_producers_order() {
    each_home(|home, options| {
        let log = home.open(options.clone()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let log = log.clone();
                scope.spawn(move || {
                    for n in 0..400_u64 {
                        let stream = log.stream(&format!("stream {}", n % 5)).unwrap();
                        let record = [thread.to_le_bytes(), n.to_le_bytes()].concat();
                        let durability =
                            if n % 7 == 0 { Durability::Synced } else { Durability::Memory };
                        let receipt = stream
                            .append_within(&record, durability, Duration::from_secs(10))
                            .unwrap();
                        if n % 7 == 0 {
                            receipt.wait().unwrap();
                        }
                    }
                });
            }
        });
        log.close().unwrap();
        let log = home.open(options.clone()).unwrap();
        let mut found = 0;
        for stream in 0..5 {
            let mut last = [None; 8];
            for record in payloads(&log, &format!("stream {stream}")) {
                let (thread, n) = record.split_at(8);
                let thread = u64::from_le_bytes(thread.try_into().unwrap()) as usize;
                let n = u64::from_le_bytes(n.try_into().unwrap());
                assert!(last[thread].is_none_or(|last| last < n));
                assert_eq!(n % 5, stream);
                last[thread] = Some(n);
                found += 1;
            }
        }
        assert_eq!(found, 8 * 400);
    });
}

#[test]
fn rotation_trim_and_recycling() {
    each_home(|home, options| {
        let log = home.open(options.clone()).unwrap();
        let stream = log.stream("s").unwrap();
        let record = vec![7; 10_000];
        for round in 0..6 {
            for _ in 0..250 {
                let receipt = stream
                    .append_within(&record, Durability::Memory, Duration::from_secs(10))
                    .unwrap();
                drop(receipt);
            }
            log.rotate().unwrap();
            let trimmed = log.trim(1).unwrap();
            assert!(round == 0 || trimmed.segments > 0);
        }
        let stats = log.stats();
        assert!(stats.shards[0].recycled_segments > 0, "{stats:?}");
        let all: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
        let first = all.first().unwrap().offset();
        assert!(first > Offset(0));
        assert_eq!(all.last().unwrap().offset(), Offset(6 * 250 - 1));
        let mut from_zero = stream.read(Offset(0)..).unwrap();
        assert_eq!(from_zero.next().unwrap().unwrap_err(), ReadError::Trimmed { first });
        assert_eq!(from_zero.next().unwrap().unwrap().offset(), first);
        log.close().unwrap();
        let log = home.open(options.clone()).unwrap();
        assert_eq!(log.stream("s").unwrap().next_offset(), Offset(6 * 250));
        assert_eq!(payloads(&log, "s").len(), all.len());
    });
}

#[test]
fn a_second_opener_is_told_and_a_reader_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    log.stream("s").unwrap().append(b"x").unwrap().wait().unwrap();
    assert!(matches!(Log::open(dir.path(), small()).err(), Some(OpenError::Locked(_))));
    let options = Options { recovery: RecoveryMode::ReadOnly, ..small() };
    let reader = Log::open(dir.path(), options).unwrap();
    assert_eq!(payloads(&reader, "s"), [b"x"]);
    let stream = reader.stream("s").unwrap();
    assert_eq!(stream.append(b"y").err(), Some(AppendError::ReadOnly));
    assert_eq!(reader.stream("t").err(), Some(StreamError::NotFound("t".into())));
}

#[test]
fn a_writer_is_marked_as_long_as_it_lives_and_a_reader_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let has_writer = || ringlog_disk::Dir::open(dir.path()).unwrap().has_writer();
    each_io(|options| {
        let log = Log::open(dir.path(), options.clone()).unwrap();
        assert_eq!(has_writer(), Some(true));
        assert!(!log.stats().notes.iter().any(|note| note.contains("cannot see")));
        log.close().unwrap();
        // A ring lets go of the directory a little after it was closed; so does the lock.
        let lock = ringlog_disk::Dir::open(dir.path()).unwrap();
        assert!(lock.lock_exclusive(Duration::from_secs(10)).unwrap());
        drop(lock);
        let read_only = Options { recovery: RecoveryMode::ReadOnly, ..options };
        let _reader = Log::open(dir.path(), read_only).unwrap();
        assert_eq!(has_writer(), Some(false));
    });
}

#[test]
fn batches_are_consecutive_and_bounded() {
    each_place(|home| {
        let log = home.open(small()).unwrap();
        let stream = log.stream("s").unwrap();
        let batch: Vec<Vec<u8>> = (0..100).map(|n| vec![n; 1000]).collect();
        let receipt = stream.append_batch(&batch, Durability::Synced).unwrap();
        assert_eq!(receipt.records(), 100);
        assert_eq!(receipt.wait().unwrap().offset, Offset(0));
        let none: [&[u8]; 0] = [];
        assert_eq!(
            stream.append_batch(&none, Durability::Synced).err(),
            Some(AppendError::EmptyBatch)
        );
        let huge = vec![0; 1 << 20];
        let error = stream.append(&huge).err().unwrap();
        assert!(matches!(error, AppendError::TooLarge { .. }), "{error:?}");
        assert_eq!(payloads(&log, "s"), batch);
    });
}

#[test]
fn a_future_needs_no_runtime() {
    each_place(|home| {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let log = home.open(small()).unwrap();
        let stream = log.stream("s").unwrap();
        let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
        let mut context = std::task::Context::from_waker(&waker);
        for n in 0..20 {
            let mut receipt = std::pin::pin!(stream.append(b"x").unwrap());
            let position = loop {
                match receipt.as_mut().poll(&mut context) {
                    std::task::Poll::Ready(result) => break result.unwrap(),
                    std::task::Poll::Pending => std::thread::park(),
                }
            };
            assert_eq!(position.offset, Offset(n));
        }
    });
}

#[test]
fn synced_under_never_is_refused_and_flush_makes_durable() {
    each_place(|home| {
        let options =
            Options { sync: SyncPolicy::Never, durability: Durability::Written, ..small() };
        let log = home.open(options).unwrap();
        let stream = log.stream("s").unwrap();
        let refused = stream.append_with(b"x", Durability::Synced).err();
        assert_eq!(refused, Some(AppendError::NeverSynced));
        stream.append(b"y").unwrap().wait().unwrap();
        log.flush().unwrap();
        assert_eq!(payloads(&log, "s"), [b"y"]);
    });
}

#[test]
fn a_closed_log_refuses() {
    each_place(|home| {
        let log = home.open(small()).unwrap();
        let stream = log.stream("s").unwrap();
        log.clone().close().unwrap();
        assert_eq!(stream.append(b"x").err(), Some(AppendError::Closed));
        assert_eq!(log.rotate().err(), Some(ringlog::LogError::Closed));
    });
}

#[test]
fn a_stream_may_have_a_policy_of_its_own() {
    each_place(|home| {
        let stream_sync = [("never".to_owned(), SyncPolicy::Never)].into();
        let log = home.open(Options { stream_sync, ..small() }).unwrap();
        let (never, always) = (log.stream("never").unwrap(), log.stream("always").unwrap());
        assert_eq!(never.append(b"x").err(), Some(AppendError::NeverSynced));
        always.append(b"x").unwrap().wait().unwrap();
    });
}

#[test]
fn a_flush_for_each_append_is_shared_with_nobody() {
    each_place(|home| {
        let log = home.open(Options { sync: SyncPolicy::EveryAppend, ..small() }).unwrap();
        let stream = log.stream("s").unwrap();
        let receipts: Vec<_> = (0..50)
            .map(|_| {
                stream.append_within(b"x", Durability::Synced, Duration::from_secs(10)).unwrap()
            })
            .collect();
        for receipt in receipts {
            receipt.wait().unwrap();
        }
        assert!(log.stats().shards[0].flushes >= 50);
    });
}

#[test]
fn a_reader_beside_the_writer_tells_trimming_from_damage() {
    each_place(|home| {
        let log = home.open(small()).unwrap();
        let stream = log.stream("s").unwrap();
        let fill = |segments: u64| {
            for _ in 0..segments {
                for _ in 0..8 {
                    stream.append(&vec![9; 100_000]).unwrap().wait().unwrap();
                }
                log.rotate().unwrap();
            }
        };
        fill(6);
        let options = Options { recovery: RecoveryMode::ReadOnly, ..small() };
        let beside = home.open(options).unwrap();
        let mut reader = beside.stream("s").unwrap().read(..).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().offset(), Offset(0));
        // The writer knows nothing of this reader: the segments that it is about to read are trimmed
        // and written anew.
        log.trim(2).unwrap();
        fill(3);
        let mut told = None;
        let mut last = Offset(0);
        for item in reader {
            match item {
                Ok(record) => {
                    assert!(record.offset() > last);
                    last = record.offset();
                    assert!(record.payload().iter().all(|byte| *byte == 9));
                }
                Err(ReadError::Trimmed { first }) => {
                    assert!(told.is_none(), "told twice");
                    told = Some(first);
                }
                Err(other) => panic!("trimming was taken for damage: {other}"),
            }
        }
        assert!(told.is_some_and(|first| first >= Offset(4 * 8)), "{told:?}");
        assert_eq!(last, Offset(6 * 8 - 1));
    });
}

#[test]
fn the_largest_record_that_is_taken_can_be_read() {
    each_place(|home| {
        let format = Format { segment_bytes: Some(64 << 20), shards: None };
        let options = Options {
            format,
            batch_bytes_max: 8 << 20,
            memory_bytes: 64 << 20,
            ..Options::default()
        };
        let log = home.open(options.clone()).unwrap();
        let stream = log.stream("s").unwrap();
        let refused = stream.append(&vec![1; 8 << 20]).err().unwrap();
        let AppendError::TooLarge { limit, .. } = refused else { panic!("{refused:?}") };
        let largest = vec![7; limit - 16];
        assert!(stream.append(&vec![7; limit - 15]).is_err());
        stream.append(&largest).unwrap().wait().unwrap();
        assert!(payloads(&log, "s") == [largest.clone()]);
        log.close().unwrap();
        let log = home.open(options).unwrap();
        assert!(payloads(&log, "s") == [largest]);
    });
}

#[test]
fn what_a_creation_that_was_cut_short_leaves_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    for left in ["commit-probe.tmp", "direct-probe.tmp", "log.tmp"] {
        std::fs::write(dir.path().join(left), b"rest").unwrap();
    }
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    std::fs::create_dir(dir.path().join("shard-000")).unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    log.stream("s").unwrap().append(b"x").unwrap().wait().unwrap();
    log.close().unwrap();
    std::fs::write(dir.path().join("log"), b"").unwrap();
    assert!(matches!(Log::open(dir.path(), small()).err(), Some(OpenError::Corrupt(_))));
    std::fs::remove_file(dir.path().join("log")).unwrap();
    assert!(matches!(Log::open(dir.path(), small()).err(), Some(OpenError::Corrupt(_))));
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("diary.txt"), b"dear diary").unwrap();
    assert!(matches!(Log::open(other.path(), small()).err(), Some(OpenError::NotALog { .. })));
}

/// Opening reads every part of the catalogue, so lives must not add up to many.
#[test]
fn a_small_catalogue_stays_one_file_whatever_lives_and_rotations_add() {
    let home = tempfile::tempdir().unwrap();
    let parts = || {
        let files = std::fs::read_dir(home.path().join("shard-000")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".cat")).count()
    };
    for life in 0..12_u64 {
        let log = Log::open(home.path(), small()).unwrap();
        let stream = log.stream(&format!("of life {life}")).unwrap();
        let all = log.stream("all").unwrap();
        drop(stream.append(b"one").unwrap());
        assert_eq!(all.append(b"more").unwrap().wait().unwrap().offset, Offset(life));
        if life % 3 == 0 {
            log.rotate().unwrap();
        }
        log.close().unwrap();
        assert_eq!(parts(), 1, "life {life}");
    }
    let log = Log::open(home.path(), small()).unwrap();
    for life in 0..12 {
        let stream = log.existing_stream(&format!("of life {life}")).unwrap();
        assert_eq!(stream.read(..).unwrap().count(), 1);
    }
}

#[test]
fn a_damaged_catalogue_does_not_hide_the_records_from_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    for name in ["a", "b"] {
        log.stream(name).unwrap().append(name.as_bytes()).unwrap().wait().unwrap();
    }
    log.rotate().unwrap();
    log.stream("c").unwrap().append(b"c").unwrap().wait().unwrap();
    log.close().unwrap();
    let shard = std::fs::read_dir(dir.path().join("shard-000")).unwrap();
    let part = shard
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "cat"))
        .unwrap();
    let mut bytes = std::fs::read(&part).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    assert!(matches!(Log::open(dir.path(), small()).err(), Some(OpenError::Corrupt(_))));
    let options = Options { recovery: RecoveryMode::ReadOnly, ..small() };
    let log = Log::open(dir.path(), options).unwrap();
    assert_eq!(log.recovery_report().shards[0].corruptions.len(), 1);
    for name in ["a", "b", "c"] {
        assert_eq!(payloads(&log, name), [name.as_bytes()]);
    }
}

#[test]
fn names_and_offsets_that_do_not_exist() {
    each_place(|home| {
        let log = home.open(small()).unwrap();
        assert_eq!(log.stream("").err(), Some(StreamError::InvalidName { bytes: 0 }));
        let long = "x".repeat(256);
        assert_eq!(log.stream(&long).err(), Some(StreamError::InvalidName { bytes: 256 }));
        assert_eq!(log.existing_stream("s").err(), Some(StreamError::NotFound("s".into())));
        // A name is data, never a path.
        for name in ["../escape", "/etc/passwd", "a\0b", "é", &long[..255]] {
            log.stream(name).unwrap().append(name.as_bytes()).unwrap().wait().unwrap();
            assert_eq!(payloads(&log, name), [name.as_bytes()]);
        }
        let stream = log.stream("s").unwrap();
        stream.append(b"").unwrap().wait().unwrap();
        assert_eq!(payloads(&log, "s"), [b""]);
        let next = Offset(1);
        assert_eq!(stream.read(next..).unwrap().count(), 0);
        assert_eq!(stream.read(Offset(2)..).err(), Some(ReadError::OutOfRange { next }));
        let backwards = Offset(1)..Offset(0);
        assert_eq!(stream.read(backwards).err(), Some(ReadError::OutOfRange { next }));
    });
}

#[test]
fn limits_bounds_and_ranges_of_a_read() {
    each_place(|home| {
        let log = home.open(small()).unwrap();
        let stream = log.stream("s").unwrap();
        let batch: Vec<[u8; 1]> = (0..100).map(|n| [n]).collect();
        stream.append_batch(&batch, Durability::Synced).unwrap().wait().unwrap();
        let read = |reader: ringlog::Reader| -> Vec<u8> {
            reader.map(|record| record.unwrap().payload()[0]).collect()
        };
        assert_eq!(read(stream.read(Offset(90)..).unwrap()), (90..100).collect::<Vec<u8>>());
        assert_eq!(read(stream.read(..Offset(3)).unwrap()), [0, 1, 2]);
        assert_eq!(read(stream.read(Offset(3)..=Offset(5)).unwrap()), [3, 4, 5]);
        assert_eq!(read(stream.read(Offset(50)..).unwrap().limit(2)), [50, 51]);
        assert_eq!(read(stream.read(..).unwrap().limit(0)), []);
    });
}

#[test]
fn limits_of_the_process_are_errors() {
    // Runs itself again under a limit on descriptors: one child for each.
    if let Ok(dir) = std::env::var("RINGLOG_TEST_UNDER_LIMIT") {
        let opened = Log::open(dir, small());
        if let Ok(log) = opened {
            // The limit is met early or late: then it is a full disk.
            match log.stream("s") {
                Ok(stream) => {
                    for _ in 0..40 {
                        if let Ok(receipt) = stream.append(&[1; 100_000]) {
                            let _ = receipt.wait_timeout(Duration::from_secs(5));
                        }
                    }
                }
                Err(error) => {
                    let reason = FullReason::Disk;
                    assert_eq!(error, StreamError::Append(AppendError::Full { reason }));
                }
            }
            let _ = log.close();
        }
        println!("no panic, no hang");
        return;
    }
    let me = std::env::current_exe().unwrap();
    for descriptors in 4..16 {
        let dir = tempfile::tempdir().unwrap();
        let command = format!(
            "ulimit -n {descriptors}; exec \"$0\" --exact --nocapture limits_of_the_process_are_errors"
        );
        let child = std::process::Command::new("sh")
            .args(["-c", &command])
            .arg(&me)
            .env("RINGLOG_TEST_UNDER_LIMIT", dir.path().join("log"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned()
            + &String::from_utf8_lossy(&child.stderr);
        assert!(!said.contains("panicked"), "{descriptors} descriptors: {said}");
        // Below a handful even the test itself does not start.
        let started = said.contains("running 1 test");
        assert!(!started || said.contains("no panic, no hang"), "{descriptors}: {said}");
        // Whatever happened, the log opens without the limit, or there is none.
        match Log::open(dir.path().join("log"), small()) {
            Ok(log) => log.close().unwrap(),
            Err(error) => panic!("{descriptors} descriptors left: {error}"),
        }
    }
}

#[test]
fn a_read_only_file_system_is_refused_for_writing_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), small()).unwrap();
    log.stream("s").unwrap().append(b"x").unwrap().wait().unwrap();
    log.close().unwrap();
    let mount = |arguments: &[&str]| {
        let mut command = std::process::Command::new("mount");
        command.args(arguments).arg(dir.path()).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let here = dir.path().to_str().unwrap().to_owned();
    if !(mount(&["--bind", &here]) && mount(&["-o", "remount,bind,ro"])) {
        skipped(format_args!("a_read_only_file_system…: no right to mount"));
        return;
    }
    let refused = Log::open(dir.path(), small()).err();
    let options = Options { recovery: RecoveryMode::ReadOnly, ..small() };
    let read = Log::open(dir.path(), options).map(|log| payloads(&log, "s"));
    let umount = std::process::Command::new("umount").args(["--lazy", &here]).status();
    assert!(umount.is_ok_and(|status| status.success()));
    let access = matches!(
        &refused,
        Some(OpenError::Disk(error)) if error.kind == ringlog::DiskErrorKind::Access
    );
    assert!(access, "{refused:?}");
    assert_eq!(read.unwrap(), [b"x"]);
}

/// Says that a test cannot be run here; past the test runner, which keeps the output of tests that
/// pass to itself.
fn skipped(what: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {what}\n"));
}

#[test]
fn a_log_that_was_closed_is_opened_without_a_scan_in_every_shard() {
    let dir = tempfile::tempdir().unwrap();
    let format = Format { shards: Some(3), ..small().format };
    let options = Options { format, ..small() };
    let reading = || Options { recovery: RecoveryMode::ReadOnly, ..options.clone() };
    let scanned = |log: &Log| -> Vec<(u64, bool)> {
        let shards = &log.recovery_report().shards;
        shards.iter().map(|shard| (shard.bytes_scanned, shard.clean)).collect()
    };
    // An empty log, and one in which only one shard has records.
    Log::open(dir.path(), options.clone()).unwrap().close().unwrap();
    for names in [&["a"][..], &["a", "b", "c", "d", "e", "f"]] {
        for round in 0..3_u64 {
            let log = Log::open(dir.path(), options.clone()).unwrap();
            assert_eq!(scanned(&log), [(0, true); 3]);
            for name in names {
                let stream = log.stream(name).unwrap();
                let before = stream.next_offset();
                for at in 0..3 {
                    let receipt = stream.append(format!("{name} {round} {at}").as_bytes()).unwrap();
                    assert_eq!(receipt.wait().unwrap().offset.0, before.0 + at);
                }
            }
            log.close().unwrap();
            let log = Log::open(dir.path(), reading()).unwrap();
            assert_eq!(scanned(&log), [(0, true); 3]);
            for name in names {
                let last = log.existing_stream(name).unwrap().read(..).unwrap().last();
                assert_eq!(
                    last.unwrap().unwrap().payload(),
                    format!("{name} {round} 2").as_bytes()
                );
            }
            assert!(ringlog::verify(dir.path(), &mut |_| {}).unwrap().sound);
        }
    }
}

#[test]
fn very_many_streams_are_created_reopened_and_read() {
    const STREAMS: u64 = 50_000;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { memory_bytes: 4 << 20, ..small() };
    let name = |at: u64| format!("stream number {at}");
    let log = Log::open(dir.path(), options.clone()).unwrap();
    for at in 0..STREAMS {
        // Faster than the writer: waits for memory, and is not refused.
        let stream = log.stream(&name(at)).unwrap();
        if at.is_multiple_of(7) {
            let within = Duration::from_secs(30);
            let record = at.to_le_bytes();
            drop(stream.append_within(&record, Durability::Memory, within).unwrap());
        }
    }
    log.flush().unwrap();
    log.rotate().unwrap();
    for at in (0..STREAMS).step_by(5) {
        let stream = log.existing_stream(&name(at)).unwrap();
        let within = Duration::from_secs(30);
        drop(stream.append_within(b"again", Durability::Memory, within).unwrap());
    }
    log.close().unwrap();
    let check = |log: &Log| {
        let streams = log.streams();
        assert_eq!(streams.len() as u64, STREAMS);
        for at in (0..STREAMS).step_by(991) {
            let mut expected = Vec::new();
            expected.extend(at.is_multiple_of(7).then(|| at.to_le_bytes().to_vec()));
            expected.extend(at.is_multiple_of(5).then(|| b"again".to_vec()));
            let stream = log.existing_stream(&name(at)).unwrap();
            assert_eq!(stream.next_offset().0, expected.len() as u64);
            assert_eq!(payloads(log, &name(at)), expected, "stream {at}");
        }
    };
    let log = Log::open(dir.path(), options.clone()).unwrap();
    assert_eq!(log.recovery_report().shards[0].bytes_scanned, 0);
    check(&log);
    // And from what a crash leaves: scanned from the open segment.
    let left = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), left.path());
    drop(log);
    let log = Log::open(left.path(), options).unwrap();
    assert!(log.recovery_report().shards[0].bytes_scanned > 0);
    check(&log);
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn whoever_watches_an_opening_is_told_how_far_it_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let format = Format { segment_bytes: Some(8 << 20), shards: Some(2) };
    let open = |dir: &std::path::Path| {
        let told = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&told);
        let tell = move |progress: Progress| keep.lock().unwrap().push(progress);
        let log = Log::open_with_progress(dir, Options { format, ..small() }, tell).unwrap();
        let told = std::mem::take(&mut *told.lock().unwrap());
        (log, told)
    };
    let (log, told) = open(dir.path());
    assert_eq!(told, [], "a new log has nothing to be read");
    for name in ["a", "b", "c", "d"] {
        let stream = log.stream(name).unwrap();
        for _ in 0..40 {
            stream.append(&[7; 100_000]).unwrap().wait().unwrap();
        }
    }
    // What a killed process would leave.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), copy.path());
    log.close().unwrap();
    let (log, told) = open(dir.path());
    assert_eq!(told, [], "after a clean close nothing is read");
    drop(log);

    let (log, told) = open(copy.path());
    let last = told.iter().max_by_key(|progress| progress.done_bytes).unwrap();
    assert_eq!(last.done_bytes, last.total_bytes, "{told:?}");
    let scanned: u64 = log.recovery_report().shards.iter().map(|shard| shard.bytes_scanned).sum();
    assert!(scanned > 4 << 20 && last.total_bytes >= scanned, "{scanned}, {told:?}");
    // Each shard tells for itself; which of them comes first nobody knows.
    assert!(told.iter().all(|progress| progress.done_bytes <= progress.total_bytes), "{told:?}");
    assert!(told.len() >= 2, "{told:?}");
}
