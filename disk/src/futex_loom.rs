//! The futex for loom: the same functions, with loom's lock and condition variable for the kernel.
//!
//! A sleeper is woken by name only, never for no reason and never by time: so a wake that is lost is
//! a deadlock, which loom reports.

use std::time::Duration;

use loom::sync::{Condvar, Mutex};

use crate::sync::{atomic, ordered};

/// A word of either kind.
pub trait Word {
    /// What it holds.
    fn look(&self) -> u32;
}

impl Word for atomic::AtomicU32 {
    fn look(&self) -> u32 {
        self.load(atomic::Ordering::SeqCst)
    }
}

impl Word for ordered::AtomicU32 {
    fn look(&self) -> u32 {
        self.load(ordered::Ordering::SeqCst)
    }
}

#[derive(Default)]
struct Sleepers {
    next: u64,
    /// Number, word, bits of each that has not been woken.
    asleep: Vec<(u64, usize, u32)>,
}

loom::lazy_static! {
    static ref KERNEL: (Mutex<Sleepers>, Condvar) = (Mutex::new(Sleepers::default()), Condvar::new());
}

fn address<W>(word: &W) -> usize {
    std::ptr::from_ref(word) as usize
}

/// See the other futex.
pub fn wait<W: Word>(word: &W, expected: u32, at_most: Option<Duration>) {
    wait_bits(word, expected, at_most, u32::MAX);
}

/// See the other futex.
pub fn wait_bits<W: Word>(word: &W, expected: u32, _at_most: Option<Duration>, bits: u32) {
    if word.look() != expected {
        return;
    }
    let (sleepers, wakes) = &*KERNEL;
    let mut all = sleepers.lock().expect("no thread of a model panics");
    if word.look() != expected {
        return;
    }
    let number = all.next;
    all.next += 1;
    all.asleep.push((number, address(word), bits));
    while all.asleep.iter().any(|(asleep, ..)| *asleep == number) {
        all = wakes.wait(all).expect("no thread of a model panics");
    }
}

/// See the other futex.
pub fn wake_bits<W: Word>(word: &W, bits: u32) {
    let (sleepers, wakes) = &*KERNEL;
    let mut all = sleepers.lock().expect("no thread of a model panics");
    all.asleep.retain(|(_, at, waits_for)| *at != address(word) || waits_for & bits == 0);
    wakes.notify_all();
}

/// See the other futex.
pub fn wake_all<W: Word>(word: &W) {
    wake_bits(word, u32::MAX);
}
