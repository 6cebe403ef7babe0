//! A log in memory: the same engine without files, and the faults that its users can inject. That
//! it is the same log in all else, `log.rs` shows by running most of its cases on it too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory};
use ringlog::{
    AppendError, DiskError, DiskErrorKind, Durability, Format, FullReason, Log, LogError, LogId,
    MemoryDevice, Offset, OpenError, Options, Receipt, ReceiptError, RecoveryMode, Request, Stream,
    SyncPolicy, Time, Visibility,
};
use ringlog_disk::{Disk, Done, FileName, MemoryDisk, Op, run};

const PATIENCE: Duration = Duration::from_secs(30);

fn small() -> Options {
    let format = Format { segment_bytes: Some(1 << 20), shards: Some(1) };
    Options { format, memory_bytes: 4 << 20, ..Options::default() }
}

/// The record of an offset: its own bytes, so that no other can stand for it.
fn record(offset: u64) -> Vec<u8> {
    let mut record = offset.to_le_bytes().to_vec();
    record.resize(8 + (offset * 37 % 3000) as usize, offset as u8);
    record
}

fn append(stream: &Stream, offset: u64, durability: Durability) -> Receipt {
    stream.append_within(&record(offset), durability, PATIENCE).unwrap()
}

/// Appends records up to `end`, each acknowledged.
fn fill(stream: &Stream, end: u64, durability: Durability) {
    let from = stream.next_offset().0;
    let receipts: Vec<Receipt> = (from..end).map(|at| append(stream, at, durability)).collect();
    for (receipt, at) in receipts.iter().zip(from..) {
        assert_eq!(receipt.wait().unwrap().offset, Offset(at));
    }
}

/// Appends synced records from `from` on until the log has failed: the first one, unless it is the
/// preparation of a segment, beside the appends, that meets the fault. The offset of the record that was
/// refused, and why.
fn append_until_poisoned(stream: &Stream, from: u64) -> (u64, DiskError) {
    let limit = Instant::now() + PATIENCE;
    for at in from.. {
        assert!(Instant::now() < limit, "nobody has heard of the fault");
        if let Some(error) = poison_of_append(stream, at) {
            return (at, error);
        }
    }
    unreachable!("there are enough offsets")
}

/// The same with two streams, one record of each in turn. Which of them was the first to be refused.
fn append_in_turns_until_poisoned(streams: &[Stream; 2], from: u64) -> usize {
    let limit = Instant::now() + PATIENCE;
    for at in from.. {
        assert!(Instant::now() < limit, "nobody has heard of the fault");
        for (number, stream) in streams.iter().enumerate() {
            if poison_of_append(stream, at).is_some() {
                return number;
            }
        }
    }
    unreachable!("there are enough offsets")
}

/// Appends the record of this offset, and waits for it. Why it was refused, if it was.
fn poison_of_append(stream: &Stream, at: u64) -> Option<DiskError> {
    match stream.append_within(&record(at), Durability::Synced, PATIENCE) {
        Ok(receipt) => match receipt.wait() {
            Ok(position) => {
                assert_eq!(position.offset, Offset(at));
                None
            }
            Err(ReceiptError::Poisoned(error)) => Some(error),
            Err(other) => panic!("{other}"),
        },
        Err(AppendError::Poisoned(error)) => Some(error),
        Err(other) => panic!("{other}"),
    }
}

/// Asserts that the stream holds the records before `end`, and nothing else.
#[track_caller]
fn assert_holds(stream: &Stream, end: u64) {
    let found: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
    assert_eq!(found.len() as u64, end);
    for (found, at) in found.iter().zip(0..) {
        assert_eq!((found.offset(), found.payload()), (Offset(at), &record(at)[..]));
    }
}

#[test]
fn a_restart_finds_what_was_closed() {
    let format = Format { segment_bytes: Some(1 << 20), shards: Some(3) };
    let options = Options { format, memory_bytes: 16 << 20, ..small() };
    let (log, device) = Log::in_memory(options.clone()).unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("stream {n}")).collect();
    for name in &names {
        fill(&log.stream(name).unwrap(), 100, Durability::Synced);
    }
    log.rotate().unwrap();
    for name in &names {
        fill(&log.stream(name).unwrap(), 150, Durability::Synced);
    }
    log.close().unwrap();
    let log = Log::open_in(&device, options).unwrap();
    assert!(log.recovery_report().shards.iter().all(|shard| shard.clean));
    assert_eq!(log.streams().len(), names.len());
    for name in &names {
        assert_holds(&log.existing_stream(name).unwrap(), 150);
    }
    assert!(log.stats().shards.iter().all(|shard| shard.epoch.0 == 2));
}

#[test]
fn it_says_that_it_is_in_memory() {
    let (log, _) = Log::in_memory(small()).unwrap();
    let stats = log.stats();
    assert_eq!((stats.io, stats.direct), ("memory", false));
    assert_eq!(stats.notes.len(), 1, "{:?}", stats.notes);
    assert!(stats.notes[0].contains("in memory"), "{:?}", stats.notes);
}

#[test]
fn there_must_be_a_log_where_none_may_be_created() {
    let device = MemoryDevice::new();
    for recovery in [RecoveryMode::Strict, RecoveryMode::ReadOnly] {
        let options = Options { create: false, recovery, ..small() };
        let refused = Log::open_in(&device, options).err();
        assert!(matches!(refused, Some(OpenError::NotFound(_))), "{refused:?}");
    }
    drop(Log::open_in(&device, small()).unwrap());
    drop(Log::open_in(&device, Options { create: false, ..small() }).unwrap());
}

#[test]
fn only_what_was_written_takes_memory() {
    let (log, device) = Log::in_memory(Options { format: Format::default(), ..small() }).unwrap();
    fill(&log.stream("s").unwrap(), 100, Durability::Synced);
    log.rotate().unwrap();
    fill(&log.stream("s").unwrap(), 200, Durability::Synced);
    let used = device.memory_bytes();
    assert!(used > 200 * 1500 && used < 8 << 20, "{used} bytes");
}

#[test]
fn a_power_cut_takes_what_was_not_flushed_and_nothing_else() {
    // Nothing is flushed but what is asked for; nor is any segment full, which would flush it, even
    // where each record is a commit of its own.
    let format = Format { segment_bytes: Some(4 << 20), shards: Some(1) };
    let sync = SyncPolicy::Interval(Duration::from_secs(3600));
    let options = Options { format, sync, ..small() };
    let (log, device) = Log::in_memory(options.clone()).unwrap();
    let stream = log.stream("s").unwrap();
    let mut durable = 0;
    for round in 1..=4 {
        fill(&stream, durable + 300, Durability::Written);
        log.flush().unwrap();
        durable += 300;
        if round == 2 {
            log.rotate().unwrap();
        }
    }
    fill(&stream, durable + 50, Durability::Written);
    assert_eq!(stream.next_offset(), Offset(durable + 50));
    device.power_cut();
    // The old log is as dead as its machine.
    assert!(stream.append_with(b"x", Durability::Memory).map(|r| r.wait().err()).is_ok());
    assert!(log.flush().is_err());
    for _ in 0..3 {
        let log = Log::open_in(&device, options.clone()).unwrap();
        assert!(!log.recovery_report().shards[0].clean);
        assert_holds(&log.stream("s").unwrap(), durable);
        device.power_cut(); // what was recovered stays
    }
    let log = Log::open_in(&device, options).unwrap();
    fill(&log.stream("s").unwrap(), durable + 10, Durability::Written);
    log.close().unwrap();
}

/// Under group commit every acknowledged `Synced` record survives, wherever the cut falls.
#[test]
fn a_power_cut_among_writers_keeps_what_was_acknowledged() {
    let device = MemoryDevice::new();
    let mut kept = 0;
    for round in 0..12_u64 {
        let log = Log::open_in(&device, small()).unwrap();
        let stream = log.stream("s").unwrap();
        let begun = stream.next_offset().0;
        assert!(begun >= kept, "round {round}: {begun} of {kept} acknowledged records");
        assert_holds(&stream, begun);
        let acknowledged = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut at = begun;
                let mut waiting: Vec<Receipt> = Vec::new();
                loop {
                    match stream.append(&record(at)) {
                        Ok(receipt) => waiting.push(receipt),
                        Err(AppendError::Full { .. }) => std::thread::yield_now(),
                        Err(_) => break,
                    }
                    at = begun + waiting.len() as u64;
                }
                waiting.iter().take_while(|receipt| receipt.wait().is_ok()).count() as u64
            });
            while stream.next_offset().0 < begun + 20 + round * 17 {
                std::thread::yield_now();
            }
            device.power_cut();
            writer.join().unwrap()
        });
        assert!(acknowledged > 0);
        kept = begun + acknowledged;
        assert!(log.close().is_err());
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_by_itself() {
    let (log, device) = Log::in_memory(small()).unwrap();
    let stream = log.stream("s").unwrap();
    fill(&stream, 100, Durability::Synced);
    device.set_full(true);
    let mut acknowledged = 100;
    let refused = loop {
        match stream.append(&record(acknowledged)) {
            Ok(receipt) => match receipt.wait() {
                Ok(position) => {
                    assert_eq!(position.offset, Offset(acknowledged));
                    acknowledged += 1;
                }
                Err(error) => assert_eq!(error, ReceiptError::DiskFull),
            },
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Full { reason: FullReason::Disk });
    assert!(log.stats().shards[0].rejections.disk > 0);
    assert_holds(&stream, acknowledged);
    device.set_full(false);
    fill(&stream, acknowledged + 1000, Durability::Synced);
    assert_holds(&stream, acknowledged + 1000);
    log.close().unwrap();
    let log = Log::open_in(&device, small()).unwrap();
    assert_holds(&log.stream("s").unwrap(), acknowledged + 1000);
}

#[test]
fn a_disk_of_limited_size_is_freed_by_trimming() {
    let (log, device) = Log::in_memory(small()).unwrap();
    device.set_capacity_bytes(Some((8 << 20) + 4096));
    let stream = log.stream("s").unwrap();
    while stream.append(&[5; 50_000]).map(|receipt| receipt.wait()).is_ok() {}
    assert!(stream.next_offset().0 > 20);
    assert!(log.trim(1).unwrap().segments > 0);
    stream.append_within(&[5; 50_000], Durability::Synced, PATIENCE).unwrap().wait().unwrap();
    log.close().unwrap();
}

#[test]
fn a_log_on_a_full_disk_closes_and_opens() {
    let (log, device) = Log::in_memory(small()).unwrap();
    let stream = log.stream("s").unwrap();
    fill(&stream, 100, Durability::Synced);
    device.set_full(true);
    // Of such records a segment takes five, with enough left over for many a smaller one.
    let begun = Instant::now();
    let refused = loop {
        match stream.append_with(&[5; 180_000], Durability::Memory) {
            Ok(receipt) => drop(receipt),
            Err(AppendError::Full { reason: FullReason::Memory }) if begun.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Full { reason: FullReason::Disk });
    let _ = log.close(); // full or not, it returns
    device.set_full(false);
    let log = Log::open_in(&device, small()).unwrap();
    let first: Vec<_> = log.stream("s").unwrap().read(..Offset(100)).unwrap().collect();
    assert_eq!(first.len(), 100);
    assert!(first.iter().all(Result::is_ok));
}

/// Two streams in different shards of a log.
fn in_two_shards(log: &Log) -> [Stream; 2] {
    let first = log.stream("0").unwrap();
    let mut others = (1..).map(|name| log.stream(&name.to_string()).unwrap());
    let second = others.find(|other| other.shard() != first.shard()).unwrap();
    [first, second]
}

/// The device may have dropped what any shard had written. Which shard's flush fails is not said: it
/// may be one of the preparation of a segment.
#[test]
fn a_failed_flush_of_one_shard_ends_all() {
    for first in [0, 1] {
        let mut options = small();
        options.format.shards = Some(2);
        options.memory_bytes = 8 << 20;
        let (log, device) = Log::in_memory(options).unwrap();
        let mut streams = in_two_shards(&log);
        streams.swap(0, first);
        for stream in &streams {
            fill(stream, 10, Durability::Synced);
        }
        device.fail_next_flush();
        let failing = append_in_turns_until_poisoned(&streams, 10);
        // Once somebody has heard of it, nobody hears an acknowledgement that rests on a later flush.
        for stream in [&streams[1 - failing], &streams[failing]] {
            match stream.append(&record(10)) {
                Ok(receipt) => {
                    let error = receipt.wait().unwrap_err();
                    assert!(matches!(error, ReceiptError::Poisoned(_)), "{error}");
                }
                Err(error) => assert!(matches!(error, AppendError::Poisoned(_)), "{error}"),
            }
        }
        assert!(matches!(log.flush(), Err(LogError::Poisoned(_))));
    }
}

#[test]
fn a_failed_write_or_flush_poisons_until_the_log_is_opened_again() {
    let faults: [fn(&MemoryDevice); 3] =
        [MemoryDevice::fail_next_write, MemoryDevice::fail_next_flush, |device| {
            device.fail_flushes(true);
        }];
    for (number, inject) in faults.into_iter().enumerate() {
        for cut in [false, true] {
            let what = format!("fault {number}, power cut {cut}");
            let (log, device) = Log::in_memory(small()).unwrap();
            let stream = log.stream("s").unwrap();
            fill(&stream, 100, Durability::Synced);
            inject(&device);
            let (refused_at, error) = append_until_poisoned(&stream, 100);
            assert_eq!(error.kind, DiskErrorKind::Io);
            // The fault is over, the poison is not.
            device.fail_flushes(false);
            let refused = stream.append(b"x").err();
            assert!(matches!(refused, Some(AppendError::Poisoned(_))), "{what}: {refused:?}");
            assert!(matches!(log.flush().err(), Some(LogError::Poisoned(_))), "{what}");
            assert_holds(&stream, refused_at);
            for visibility in [Visibility::Written, Visibility::Staged] {
                for reverse in [false, true] {
                    let reader = stream.read(Offset(0)..).unwrap().visibility(visibility);
                    let reader = if reverse { reader.reverse() } else { reader };
                    // What the fault has dropped is missing, and nobody calls it damage.
                    let found: Vec<Offset> =
                        reader.map(|record| record.unwrap().offset()).collect();
                    assert!(
                        (refused_at..=refused_at + 1).contains(&(found.len() as u64)),
                        "{what}, {visibility:?}: {found:?}"
                    );
                }
            }
            if cut {
                device.power_cut();
            }
            assert!(matches!(log.close().err(), Some(LogError::Poisoned(_))), "{what}");
            let log = Log::open_in(&device, small()).unwrap();
            let stream = log.stream("s").unwrap();
            // What was not acknowledged is there or not.
            let end = stream.next_offset().0;
            assert!((refused_at..=refused_at + 1).contains(&end), "{what}: {end}");
            assert_holds(&stream, end);
            let more = refused_at + 100;
            fill(&stream, more, Durability::Synced);
            device.power_cut();
            drop(log);
            let log = Log::open_in(&device, small()).unwrap();
            assert_holds(&log.stream("s").unwrap(), more);
        }
    }
}

#[test]
fn a_device_is_opened_for_writing_once() {
    let (log, device) = Log::in_memory(small()).unwrap();
    fill(&log.stream("s").unwrap(), 10, Durability::Synced);
    assert!(matches!(Log::open_in(&device, small()).err(), Some(OpenError::Locked(_))));
    let options = Options { recovery: RecoveryMode::ReadOnly, ..small() };
    // The reader sees what the writer has proven durable, which it does when it falls idle.
    let begun = Instant::now();
    let reader = loop {
        let reader = Log::open_in(&device, options.clone()).unwrap();
        if reader.existing_stream("s").is_ok_and(|stream| stream.next_offset() == Offset(10)) {
            break reader;
        }
        assert!(begun.elapsed() < PATIENCE, "the writer never proves what it has written");
        std::thread::yield_now();
    };
    assert_holds(&reader.stream("s").unwrap(), 10);
    log.close().unwrap();
    Log::open_in(&device, small()).unwrap().close().unwrap();
    let (log, _) = Log::in_memory(small()).unwrap();
    assert_eq!(log.streams(), [], "another device knows nothing of the first");
}

/// Runs a shard from this thread, with time as a number; gives the bytes of all its files.
fn driven(seed: u64) -> Vec<(String, Vec<u8>)> {
    let device = MemoryDevice::new();
    let dir = device.root();
    let segment_bytes = 1 << 20;
    let identity = ShardIdentity { log: LogId([7; 16]), shard: 0, segment_bytes };
    let memory = ShardMemory::new(&small(), segment_bytes).unwrap();
    DrivenShard::create(&mut dir.disk(), identity).unwrap();
    let mut now = Time { mono_ns: 0, wall_ns: 1_700_000_000_000_000_000 };
    for life in 0..3 {
        let disk: MemoryDisk = dir.disk();
        let mut shard = DrivenShard::open(disk, identity, &small(), &memory, now).unwrap();
        let mut turns = |shard: &mut DrivenShard<MemoryDisk>, turns: u64| {
            for _ in 0..turns {
                shard.turn(now);
                now = Time { mono_ns: now.mono_ns + 250_000, wall_ns: now.wall_ns + 250_000 };
            }
        };
        let stream = match shard.streams().first() {
            Some((id, _)) => *id,
            None => shard.create_stream("s").unwrap(),
        };
        for n in 0..200_u64 {
            let at = shard.next_offset(stream).0 + n;
            let durability = [Durability::Synced, Durability::Written][(n + seed) as usize % 2];
            let batch = [record(at), record(at + seed)];
            let receipt = shard.append(n as usize % 4, stream, &batch, durability).unwrap();
            turns(&mut shard, 1 + (n + seed) % 3);
            drop(receipt);
            if n % 60 == 59 {
                let _ = shard.request(Request::Rotate);
            }
        }
        if life < 2 {
            let _ = shard.request(Request::Close);
        }
        turns(&mut shard, 100);
        assert!(shard.next_offset(stream).0 >= (life + 1) * 400);
    }
    let mut disk = dir.disk();
    let Done::Listed { files, .. } = run(&mut disk, Op::List).result.unwrap() else { panic!() };
    files.into_iter().map(|file| (file.name.to_string(), load(&mut disk, file.name))).collect()
}

fn load(disk: &mut dyn Disk, name: FileName) -> Vec<u8> {
    match run(disk, Op::Load { name, limit_bytes: 1 << 24 }).result.unwrap() {
        Done::Loaded(content) => content,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let first = driven(1);
    assert!(first.iter().filter(|(name, _)| name.ends_with(".seg")).count() > 3);
    let again = driven(1);
    let names = |files: &[(String, Vec<u8>)]| {
        files.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), names(&again));
    for ((name, bytes), (_, other)) in first.iter().zip(&again) {
        assert!(bytes == other, "{name} differs");
    }
    assert!(first != driven(2), "other calls, the same bytes");
}
