//! The waker and the pool of blocks under every schedule, with `--cfg loom` (`scripts/ci-loom.sh`).

use std::sync::Arc;

use loom::thread;

use crate::block::keep_mappings;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::{BlockPool, Waker};

/// Two threads publish something and wake; the sleeper looks, and sleeps where it finds nothing.
/// What is published is not ordered by itself: the wake must do that. Were a wake lost, the sleeper
/// would sleep for ever, and loom would say so.
#[test]
fn loom_what_is_published_before_a_wake_is_found() {
    loom::model(|| {
        let waker = Waker::new();
        let published: Arc<[AtomicU32; 2]> = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let threads: Vec<_> = [0, 1]
            .map(|at| {
                let (waker, published) = (waker.clone(), Arc::clone(&published));
                thread::spawn(move || {
                    published[at].store(1, Ordering::Relaxed);
                    waker.wake();
                })
            })
            .into();
        while published.iter().map(|one| one.load(Ordering::Relaxed)).sum::<u32>() < 2 {
            waker.park(None);
        }
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    });
}

/// The same, where the sleeper waits for the ring that it drives: a wake that finds it there signals
/// the event, one that came before forbids to wait.
#[test]
fn loom_a_wake_is_seen_before_the_ring_or_signalled_in_it() {
    loom::model(|| {
        let waker = Waker::new();
        let published = Arc::new(AtomicU32::new(0));
        let other = {
            let (waker, published) = (waker.clone(), Arc::clone(&published));
            thread::spawn(move || {
                published.store(1, Ordering::Relaxed);
                waker.wake();
            })
        };
        let may_wait = waker.enter_ring();
        let woken = waker.left_ring();
        if !may_wait || woken {
            assert_eq!(published.load(Ordering::Relaxed), 1, "woken for nothing that is seen");
        }
        other.join().expect("it ends");
        assert!(woken || !waker.enter_ring(), "the wake has left no trace");
    });
}

/// A block goes from hand to hand. Who takes it sees what the one before wrote, and nobody has it at
/// the same time: loom watches each access.
#[test]
fn loom_a_block_has_one_owner_at_a_time() {
    loom::model(|| {
        keep_mappings(1);
        let pool = BlockPool::new(2, 4096).expect("memory");
        let threads: Vec<_> = (0..2_u8)
            .map(|number| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for _ in 0..2 {
                        if let Some(mut block) = pool.take() {
                            block[0] = number;
                            assert_eq!(block[0], number);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        assert_eq!(pool.available(), 2, "a block is lost");
        let both = [pool.take(), pool.take()];
        assert!(both.iter().all(Option::is_some) && pool.take().is_none());
    });
}
