//! Followers: nothing is missed, nothing comes twice, whatever the writers, rotation and trimming
//! do meanwhile; and they end when there is nothing more to come.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringlog::{Durability, Format, Log, Offset, Options, ReadError, Visibility};

const LONG: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options { format: Format { segment_bytes: Some(1 << 20), shards: None }, ..Options::default() }
}

fn payload(offset: u64) -> Vec<u8> {
    let len = 50 + (offset * 131) % 3000;
    (0..len).map(|at| (at.wrapping_mul(7) ^ offset) as u8).collect()
}

#[test]
fn followers_see_every_record_once_while_the_log_rotates() {
    let home = tempfile::TempDir::new().unwrap();
    // So little memory for followers that they fall back to the disk again and again.
    let log = Log::open(home.path(), Options { tail_bytes: 64 << 10, ..options() }).unwrap();
    let stream = log.stream("followed").unwrap();
    let other = log.stream("other").unwrap();
    let records = 6_000_u64;
    let levels = [Visibility::Durable, Visibility::Written, Visibility::Staged];
    std::thread::scope(|scope| {
        for visibility in levels.into_iter().cycle().take(6) {
            let follower = stream.follow(Offset(0)).unwrap().visibility(visibility);
            scope.spawn(move || {
                let mut next = 0;
                for record in follower {
                    let record = record.unwrap();
                    assert_eq!(record.offset(), Offset(next));
                    assert_eq!(record.payload(), payload(next));
                    next += 1;
                }
                assert_eq!(next, records, "at {visibility:?}");
            });
        }
        // One that begins in the middle of it all, and one that reads so slowly that it never
        // gets to the tail before the end.
        for offset in 0..records {
            if offset == records / 2 {
                let late = stream.follow(Offset(offset / 2)).unwrap();
                scope.spawn(move || {
                    let offsets = late.map(|record| record.unwrap().offset().0);
                    assert!(offsets.eq(records / 4..records));
                });
            }
            let level = if offset % 5 == 0 { Durability::Synced } else { Durability::Memory };
            let receipt = stream.append_within(&payload(offset), level, LONG).unwrap();
            let _unread = other.append_within(&[7; 300], Durability::Memory, LONG).unwrap();
            if offset % 100 == 0 {
                receipt.wait().unwrap();
            }
            if offset % 1000 == 999 {
                log.rotate().unwrap();
            }
        }
        log.clone().close().unwrap();
    });
}

#[test]
fn a_follower_is_told_of_what_was_trimmed_and_goes_on() {
    let home = tempfile::TempDir::new().unwrap();
    let log = Log::open(home.path(), options()).unwrap();
    let stream = log.stream("trimmed").unwrap();
    let mut follower = stream.follow(Offset(0)).unwrap();
    let append = |offset: u64| {
        stream.append_within(&payload(offset), Durability::Synced, LONG).unwrap().wait().unwrap();
    };
    (0..10).for_each(append);
    for offset in 0..10 {
        assert_eq!(follower.next_timeout(LONG).unwrap().unwrap().offset(), Offset(offset));
    }
    assert!(follower.next_timeout(Duration::ZERO).unwrap().is_none());
    (10..2000).for_each(append);
    log.rotate().unwrap();
    // What is kept in memory for it may reach further back than the log; so it is let go first.
    let mut slow = stream.follow(Offset(5)).unwrap();
    drop(follower);
    assert!(log.trim(0).unwrap().segments >= 3);
    append(2000);
    let mut trimmed = 0;
    let mut next = 5;
    loop {
        match slow.next_timeout(LONG) {
            Ok(Some(record)) => {
                assert_eq!(record.offset(), Offset(next));
                next += 1;
            }
            Ok(None) => panic!("there is more to come"),
            Err(ReadError::Trimmed { first }) => {
                assert!(first > Offset(next));
                trimmed += 1;
                next = first.0;
            }
            Err(error) => panic!("{error:?}"),
        }
        if next == 2001 {
            break;
        }
    }
    assert!(trimmed <= 1);
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_task_is_woken_when_there_is_a_record_and_loses_none_when_it_is_dropped() {
    let home = tempfile::TempDir::new().unwrap();
    let log = Log::open(home.path(), options()).unwrap();
    let stream = log.stream("async").unwrap();
    let mut follower = stream.follow(Offset(0)).unwrap();
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut cx = Context::from_waker(&waker);
    for offset in 0..50 {
        {
            let mut next = pin!(follower.next_async());
            assert!(next.as_mut().poll(&mut cx).is_pending());
        }
        flag.0.store(false, Ordering::SeqCst);
        stream.append(&payload(offset)).unwrap().wait().unwrap();
        while !flag.0.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let mut next = pin!(follower.next_async());
        match next.as_mut().poll(&mut cx) {
            Poll::Ready(Some(Ok(record))) => assert_eq!(record.offset(), Offset(offset)),
            other => panic!("{other:?}"),
        }
    }
    assert!(pin!(follower.next_async()).poll(&mut cx).is_pending());
    flag.0.store(false, Ordering::SeqCst);
    log.close().unwrap();
    while !flag.0.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    assert!(matches!(pin!(follower.next_async()).poll(&mut cx), Poll::Ready(None)));
    assert!(follower.is_finished());
}
