//! The inbox, receipts and what the writer publishes under every schedule, with `--cfg loom`
//! (`scripts/ci-loom.sh`). The code is the real one; of the writer only its turn is written out here,
//! in the order of `runtime`. A wake that is lost is a thread that sleeps for ever, which loom
//! reports.

use std::sync::Arc;
use std::task::{Context, Poll, Wake};

use loom::thread;
use ringlog_disk::sync::atomic::{AtomicU32, Ordering};
use ringlog_disk::{BlockPool, DiskError, DiskErrorKind, Waker};

use crate::error::{AppendError, FullReason, ReceiptError};
use crate::format::batch::FrameKind;
use crate::ids::{Epoch, LogId, Lsn, StreamId};
use crate::inbox::{How, Inbox, InboxConfig};
use crate::options::{Durability, Visibility};
use crate::published::Published;
use crate::receipt::{Level, Receipt};

const STREAM: StreamId = StreamId(1);

/// The inbox of a model. Nothing of it is left behind the model: there are millions.
struct Model(Arc<Inbox>);

impl std::ops::Deref for Model {
    type Target = Arc<Inbox>;

    fn deref(&self) -> &Arc<Inbox> {
        &self.0
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.0.forget_taken();
    }
}

/// An inbox with so many blocks, and the waker of its writer.
fn inbox(blocks: u32) -> (Model, Waker) {
    ringlog_disk::block::keep_mappings(2);
    let (log, shard, epoch) = (LogId([1; 16]), 0, Epoch(1));
    let config = InboxConfig { log, shard, epoch, frames_bytes_max: 1000 };
    let pool = |count| BlockPool::new(count, 4096).expect("memory");
    let waker = Waker::new();
    (Model(Arc::new(Inbox::new(config, pool(blocks), pool(1), waker.clone()))), waker)
}

fn append(inbox: &Arc<Inbox>, slot: usize, level: Durability) -> Result<Receipt, AppendError> {
    let how = How { level, apart: false, will_try_again: false };
    inbox.append(slot, STREAM, FrameKind::Record, &[b"r"], how)
}

/// Takes what is in the queue and acknowledges it; gives how many records that were.
fn take(inbox: &Inbox) -> u32 {
    let mut records = 0;
    while let Some(chunk) = inbox.pop() {
        records += chunk.frames;
        let ticket = chunk.ticket.clone().expect("each chunk of an inbox has one");
        ticket.place(Lsn(4096), chunk.runs.clone());
        drop(chunk);
        inbox.ring_bell(ticket.advance(Level::Placed) | ticket.advance(Level::Synced));
        inbox.room_made();
    }
    records
}

/// The turns of a writer until it has acknowledged so many records. It is never busy.
fn write(inbox: &Inbox, waker: &Waker, records: u32) {
    let mut done = 0;
    loop {
        inbox.sweep(false);
        done += take(inbox);
        if inbox.take_pressure() {
            inbox.sweep(true);
            done += take(inbox);
        }
        if done == records {
            return;
        }
        inbox.set_idle(true);
        if inbox.set_waits(true) {
            continue;
        }
        let (used, urgent) = inbox.open_chunks();
        if urgent {
            inbox.sweep(false);
        } else if used {
            inbox.sweep(true); // the time that a chunk may stay open has passed
        } else if inbox.depth() == 0 {
            waker.park(None);
        }
    }
}

/// The producer waits for its record: neither of the two sleeps for ever, and who is told that the
/// record is durable finds its place.
#[test]
fn loom_a_record_that_is_waited_for_is_acknowledged() {
    loom::model(|| {
        let (inbox, waker) = inbox(2);
        let producer = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let receipt = append(&inbox, 0, Durability::Synced).expect("room");
                assert!(receipt.wait().is_ok_and(|place| place.lsn == Lsn(4096)));
                assert!(receipt.is_acknowledged(), "acknowledged, and then no more");
            })
        };
        write(&inbox, &waker, 1);
        producer.join().expect("it ends");
        assert_eq!((inbox.depth(), inbox.open_chunks()), (0, (false, false)));
        assert_eq!(inbox.counts().records, 1);
    });
}

/// Two producers: each chunk comes once, and no wake is lost between them.
#[test]
fn loom_two_producers_wake_one_writer() {
    loom::model(|| {
        let (inbox, waker) = inbox(2);
        let producers: Vec<_> = (0..2)
            .map(|slot| {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || drop(append(&inbox, slot, Durability::Synced).expect("room")))
            })
            .collect();
        write(&inbox, &waker, 2);
        producers.into_iter().for_each(|producer| producer.join().expect("it ends"));
        assert_eq!((inbox.depth(), inbox.open_chunks()), (0, (false, false)));
    });
}

/// All memory is in use: who waits for room gets it when the writer has given back a block.
#[test]
fn loom_who_waits_for_room_is_woken() {
    loom::model(|| {
        let (inbox, _) = inbox(1);
        let first = append(&inbox, 0, Durability::Synced).expect("room");
        let full = Err(AppendError::Full { reason: FullReason::Memory });
        assert_eq!(append(&inbox, 1, Durability::Synced).map(drop), full);
        inbox.sweep(true);
        let waiting = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let how = How { level: Durability::Synced, apart: false, will_try_again: false };
                let kind = FrameKind::Record;
                inbox.append_until(1, STREAM, kind, &[b"r"], how, None).map(drop)
            })
        };
        assert_eq!(take(&inbox), 1);
        assert_eq!(waiting.join().expect("it ends"), Ok(()));
        assert!(first.is_acknowledged());
    });
}

/// A failure wakes who waits for a record, and who waits for room; both are told.
#[test]
fn loom_a_failure_is_told_to_all() {
    loom::model(|| {
        let (inbox, _) = inbox(1);
        let receipt = append(&inbox, 0, Durability::Synced).expect("room");
        inbox.sweep(true);
        let waiting = thread::spawn(move || receipt.wait().map(drop));
        let refused = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let how = How { level: Durability::Synced, apart: false, will_try_again: false };
                let kind = FrameKind::Record;
                inbox.append_until(1, STREAM, kind, &[b"r"], how, None).map(drop)
            })
        };
        let error = DiskError::new(DiskErrorKind::Io, "test");
        inbox.poison(error.clone());
        let chunk = inbox.pop().expect("the chunk");
        let ticket = chunk.ticket.clone().expect("each chunk of an inbox has one");
        inbox.ring_bell(ticket.fail(ReceiptError::Poisoned(error.clone())));
        assert_eq!(waiting.join().expect("it ends"), Err(ReceiptError::Poisoned(error.clone())));
        assert_eq!(refused.join().expect("it ends"), Err(AppendError::Poisoned(error)));
        drop(chunk);
    });
}

struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// A task that was told to wait is woken once its record is durable.
#[test]
fn loom_a_pending_future_is_woken() {
    loom::model(|| {
        let (inbox, _) = inbox(1);
        let mut receipt = append(&inbox, 0, Durability::Synced).expect("room");
        inbox.sweep(true);
        let writer = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || assert_eq!(take(&inbox), 1))
        };
        let woken = Arc::new(Woken(AtomicU32::new(0)));
        let waker = std::task::Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let first = std::future::Future::poll(std::pin::Pin::new(&mut receipt), &mut cx);
        writer.join().expect("it ends");
        match first {
            Poll::Ready(end) => assert!(end.is_ok()),
            Poll::Pending => assert_eq!(woken.0.load(Ordering::Acquire), 1, "never woken"),
        }
    });
}

/// A reader that waits for a watermark is woken by it, or by the end of the writer.
#[test]
fn loom_what_is_published_wakes_who_waits_for_it() {
    loom::model(|| {
        let published = Arc::new(Published::new(0));
        let writer = {
            let published = Arc::clone(&published);
            thread::spawn(move || {
                published.set_durable(Lsn(4096));
                published.end(None);
            })
        };
        let there = || (published.durable() == Lsn(4096)).then_some(());
        while published.wait_for(Visibility::Durable, None, there).is_none() {}
        while published.wait_for(Visibility::Durable, None, || published.ended()).is_none() {}
        assert_eq!(published.durable(), Lsn(4096), "the end is seen before what came before it");
        writer.join().expect("it ends");
    });
}

/// The same for a task, which looks once more after it has left its waker.
#[test]
fn loom_a_task_that_follows_is_woken() {
    loom::model(|| {
        let published = Arc::new(Published::new(0));
        let writer = {
            let published = Arc::clone(&published);
            thread::spawn(move || published.set_durable(Lsn(4096)))
        };
        let woken = Arc::new(Woken(AtomicU32::new(0)));
        published.wake_task(&std::task::Waker::from(Arc::clone(&woken)));
        let found = published.durable() == Lsn(4096);
        writer.join().expect("it ends");
        assert!(found || woken.0.load(Ordering::Acquire) == 1, "never woken");
    });
}
