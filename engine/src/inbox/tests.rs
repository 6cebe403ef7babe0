//! Tests of the inbox as producers and the writer see it; those of its protocols under every schedule are
//! in `loom_tests`.

use super::*;
use std::collections::HashSet;
use std::sync::RwLock;

use crate::ids::Lsn;
use crate::receipt::Level;
use crate::testing::WAKE_LIMIT;
use ringlog_disk::{Disk as _, Wait};

fn inbox(small: u32) -> Arc<Inbox> {
    inbox_of(small, Waker::new())
}

fn inbox_of(small: u32, writer: Waker) -> Arc<Inbox> {
    let config =
        InboxConfig { log: LogId([1; 16]), shard: 0, epoch: Epoch(1), frames_bytes_max: 60_000 };
    let small = BlockPool::new(small, 64 << 10).unwrap();
    let large = BlockPool::new(2, 128 << 10).unwrap();
    Arc::new(Inbox::new(config, small, large, writer))
}

/// Takes what is there, and fails where a record comes before the creation of its stream.
fn take_all(inbox: &Inbox, created: &mut HashSet<StreamId>, records: &mut u64) {
    while let Some(chunk) = inbox.pop() {
        created.extend(chunk.created.iter().map(|(stream, _)| *stream));
        for run in chunk.runs.iter().filter(|run| run.stream != StreamId::CATALOGUE) {
            assert!(created.contains(&run.stream), "{:?} is not created yet", run.stream);
            *records += u64::from(run.count);
        }
    }
}

const HOW: How = How { level: Durability::Memory, apart: false, will_try_again: false };

/// An idle writer that looks after what nobody waits for within a bounded time is not woken for each record:
/// it and the producer would keep each other from their work.
#[test]
fn an_idle_writer_is_woken_for_the_first_record_and_for_whoever_waits() {
    let mut disk = ringlog_disk::MemoryDevice::new().root().disk();
    let inbox = inbox_of(4, disk.waker());
    let append = |level| {
        let how = How { level, ..HOW };
        drop(inbox.append(0, StreamId(1), FrameKind::Record, &[b"x"], how).unwrap());
    };
    let mut was_woken = || {
        let sleeps = disk.about_to_sleep();
        disk.reap(Wait::No, &mut Vec::new());
        !sleeps
    };
    assert!(!was_woken());
    for _ in 0..2 {
        append(Durability::Memory);
        assert!(was_woken(), "nobody would look after it");
        for _ in 0..10 {
            append(Durability::Memory);
            assert!(!was_woken());
        }
        append(Durability::Synced);
        assert!(was_woken(), "somebody will wait for it");
        inbox.set_idle(true);
        while inbox.pop().is_some() {}
    }
    append(Durability::Memory);
    assert!(was_woken());
    inbox.sweep(true);
    append(Durability::Memory);
    assert!(was_woken(), "the first record of another chunk");
    inbox.abandon();
}

/// Nothing but the bell wakes a thread that waits without a limit.
#[test]
fn who_waits_for_a_receipt_is_woken() {
    for failed in [false, true] {
        let inbox = inbox(4);
        let how = How { level: Durability::Synced, ..HOW };
        let receipt = inbox.append(0, StreamId(1), FrameKind::Record, &[b"x"], how).unwrap();
        inbox.sweep(true);
        let chunk = inbox.pop().expect("a chunk");
        let ticket = chunk.ticket.clone().expect("a ticket");
        ticket.place(Lsn(0), chunk.runs.clone());
        let (done, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(receipt.wait().map(drop)));
        // Until it has said that it waits, there is nobody to be woken.
        let start = Instant::now();
        while !ticket.is_waited_for() {
            assert!(start.elapsed() < WAKE_LIMIT, "it does not begin to wait");
            std::thread::yield_now();
        }
        let bits = match failed {
            false => ticket.advance(Level::Synced),
            true => ticket.fail(ReceiptError::Closed),
        };
        inbox.ring_bell(bits);
        let told = end.recv_timeout(WAKE_LIMIT).expect("it waits for ever");
        assert_eq!(told, if failed { Err(ReceiptError::Closed) } else { Ok(()) });
        inbox.abandon(); // or it and its last ticket keep each other
    }
}

/// The memory for all blocks goes with it, so a log that is closed must not keep it.
#[test]
fn nothing_keeps_an_inbox_whose_writer_is_gone() {
    let inbox = inbox(4);
    let how = How { level: Durability::Synced, ..HOW };
    let receipt = inbox.append(0, StreamId(1), FrameKind::Record, &[b"x"], how).unwrap();
    inbox.sweep(true);
    let chunk = inbox.pop().expect("a chunk");
    let ticket = chunk.ticket.clone().expect("a ticket");
    ticket.place(Lsn(0), chunk.runs.clone());
    ticket.advance(Level::Synced);
    drop((receipt, chunk, ticket));
    inbox.abandon();
    let left = Arc::downgrade(&inbox);
    drop(inbox);
    assert_eq!(left.strong_count(), 0);
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_task_that_waits_for_a_receipt_is_woken() {
    let inbox = inbox(4);
    let how = How { level: Durability::Synced, ..HOW };
    let mut receipt = inbox.append(0, StreamId(1), FrameKind::Record, &[b"x"], how).unwrap();
    inbox.sweep(true);
    let chunk = inbox.pop().expect("a chunk");
    let ticket = chunk.ticket.clone().expect("a ticket");
    ticket.place(Lsn(0), chunk.runs.clone());
    let woken = Arc::new(Woken::default());
    let waker = std::task::Waker::from(Arc::clone(&woken));
    let mut cx = std::task::Context::from_waker(&waker);
    let mut poll = || std::pin::Pin::new(&mut receipt).poll(&mut cx).is_ready();
    assert!(!poll());
    ticket.advance(Level::Written);
    let so_far = woken.0.load(Ordering::SeqCst);
    assert!(!poll(), "written is not enough");
    ticket.advance(Level::Synced);
    assert!(woken.0.load(Ordering::SeqCst) > so_far);
    assert!(poll());
    inbox.abandon();
}

#[test]
fn creations_gather_and_go_before_any_record_of_their_streams() {
    let inbox = inbox(16);
    let (mut created, mut records) = (HashSet::new(), 0);
    inbox.set_idle(false);
    for id in 1..=100 {
        let name = Arc::from(format!("stream {id}"));
        inbox.append_creation(StreamId(id), &name, None).unwrap();
    }
    assert_eq!(inbox.depth(), 0, "one block for all of them, and nothing handed over yet");
    assert_eq!(inbox.open_chunks(), (true, false));
    // A chunk that was open before takes a record of the newest stream.
    let _receipt = inbox.append(3, StreamId(100), FrameKind::Record, &[b"x"], HOW).unwrap();
    inbox.sweep(true);
    assert_eq!(inbox.depth(), 2);
    take_all(&inbox, &mut created, &mut records);
    assert_eq!((created.len(), records), (100, 1));
    assert_eq!(inbox.open_chunks(), (false, false));
}

#[test]
fn no_record_overtakes_the_creation_of_its_stream() {
    let inbox = inbox(64);
    let streams = RwLock::new(0_u32);
    let stop = AtomicBool::new(false);
    let patience = || Instant::now().checked_add(Duration::from_secs(60));
    let (mut created, mut records) = (HashSet::new(), 0);
    std::thread::scope(|scope| {
        let creator = scope.spawn(|| {
            for id in 1..=20_000 {
                let name = Arc::from(format!("stream {id}"));
                inbox.append_creation(StreamId(id), &name, patience()).unwrap();
                *streams.write().unwrap() = id;
            }
            stop.store(true, Ordering::SeqCst);
        });
        let appenders: Vec<_> = (0..4_usize)
            .map(|slot| {
                let (inbox, streams, stop) = (&inbox, &streams, &stop);
                scope.spawn(move || {
                    let mut count = 0_u64;
                    // Each goes for the newest stream, and has its chunk taken at once.
                    while !stop.load(Ordering::SeqCst) {
                        let newest = *streams.read().unwrap();
                        if newest == 0 {
                            continue;
                        }
                        let (stream, how) = (StreamId(newest), How { apart: true, ..HOW });
                        let record = &[b"r"];
                        let kind = FrameKind::Record;
                        let done = inbox.append_until(slot, stream, kind, record, how, patience());
                        drop(done.unwrap());
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut turn = 0_u64;
        while !(creator.is_finished()
            && appenders.iter().all(std::thread::ScopedJoinHandle::is_finished))
        {
            take_all(&inbox, &mut created, &mut records);
            turn += 1;
            inbox.sweep(turn.is_multiple_of(3));
            inbox.room_made();
        }
        let appended: u64 = appenders.into_iter().map(|one| one.join().unwrap()).sum();
        inbox.drain_slots();
        take_all(&inbox, &mut created, &mut records);
        assert_eq!((created.len(), records), (20_000, appended));
    });
}

/// Woken for nothing, all who wait would look, find no block, and press the writer for one, which would
/// wake them again: on few processors that left nothing for the writer to work with.
#[test]
fn those_who_wait_for_room_are_woken_by_blocks_and_by_nothing_else() {
    let inbox = inbox(1);
    let taken = inbox.append(0, StreamId(1), FrameKind::Record, &[b"takes the block"], HOW);
    drop(taken.unwrap());
    std::thread::scope(|scope| {
        let deadline = Instant::now().checked_add(Duration::from_secs(60));
        let (inbox, record) = (&inbox, [b"waits for one"]);
        let waiting = scope.spawn(move || {
            inbox.append_until(1, StreamId(1), FrameKind::Record, &record, HOW, deadline)
        });
        while inbox.room_waiters.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let before = inbox.room.load(Ordering::SeqCst);
        for _ in 0..100 {
            inbox.room_made();
        }
        assert_eq!(inbox.room.load(Ordering::SeqCst), before, "there is no block");
        inbox.sweep(true);
        drop(inbox.pop()); // its block is free
        inbox.room_made();
        drop(waiting.join().unwrap().unwrap());
    });
    inbox.abandon(); // a chunk and its inbox keep each other
}

#[test]
fn a_creation_waits_for_memory_and_not_for_the_disk() {
    let inbox = inbox(1);
    let name = Arc::from("s");
    let _receipt = inbox.append(0, StreamId(1), FrameKind::Record, &[b"x"], HOW).unwrap();
    let full = AppendError::Full { reason: FullReason::Memory };
    assert_eq!(inbox.append_creation(StreamId(2), &name, None), Err(full));
    std::thread::scope(|scope| {
        let patience = Instant::now().checked_add(Duration::from_secs(60));
        let (inbox, name) = (&inbox, &name);
        let waiting = scope.spawn(move || inbox.append_creation(StreamId(2), name, patience));
        inbox.sweep(true);
        drop(inbox.pop()); // its block is free
        inbox.room_made();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
    inbox.set_admission(Admission::DiskFull);
    let patience = Instant::now().checked_add(Duration::from_secs(60));
    let full = AppendError::Full { reason: FullReason::Disk };
    assert_eq!(inbox.append_creation(StreamId(3), &name, patience), Err(full));
    inbox.abandon(); // a chunk and its inbox keep each other
}
