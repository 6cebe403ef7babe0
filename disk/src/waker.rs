//! Waking the thread that drives a disk, from any other thread.
//!
//! A thread that is about to sleep says how it sleeps; a waker looks at that and does no more than
//! is needed: nothing while the thread is awake (it will not fall asleep before it has looked
//! again), a futex call while it is parked, an eventfd write while it waits inside a ring or outside
//! of this crate.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::futex;
use crate::op::DiskError;
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const NOTIFIED: u32 = 1;
const PARKED: u32 = 2;
const IN_RING: u32 = 3;
const OUTSIDE: u32 = 4;

struct Inner {
    state: AtomicU32,
    /// Only a disk that waits on something else than this waker has one.
    event: Option<Event>,
    /// Only where the thread sleeps outside, there is one.
    outside: OnceLock<Event>,
}

/// Wakes the thread that drives a disk. Cheap to clone; outlives the disk harmlessly.
#[derive(Clone)]
pub struct Waker(Arc<Inner>);

impl Waker {
    /// A waker for a thread that sleeps only in [`Waker::park`].
    pub fn new() -> Self {
        let (event, outside) = (None, OnceLock::new());
        Self(Arc::new(Inner { state: AtomicU32::new(AWAKE), event, outside }))
    }

    /// A waker for a thread that also sleeps while waiting for `event_fd` to become readable.
    pub(crate) fn with_event() -> Result<Self, DiskError> {
        let inner = Inner {
            state: AtomicU32::new(AWAKE),
            event: Some(Event::new()?),
            outside: OnceLock::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The event that is signalled while the thread sleeps outside of this crate; made when it is
    /// first asked for.
    pub(crate) fn outside(&self) -> Result<&Event, DiskError> {
        match self.0.outside.get() {
            Some(event) => Ok(event),
            None => {
                let event = Event::new()?;
                Ok(self.0.outside.get_or_init(|| event))
            }
        }
    }

    /// Makes the sleeping thread return, or its next sleep end at once. Costs one atomic
    /// operation while the thread is awake, one system call while it sleeps.
    pub fn wake(&self) {
        // Whatever the caller has published for the sleeper must be visible before the state is
        // read: else a state that is just about to be reset could be seen, nobody be woken, and
        // the sleeper still find nothing. Pairs with the fence in `awake_again`.
        fence(Ordering::SeqCst);
        if self.0.state.load(Ordering::SeqCst) == NOTIFIED {
            return;
        }
        match self.0.state.swap(NOTIFIED, Ordering::SeqCst) {
            PARKED => {
                futex::wake_all(&self.0.state);
            }
            IN_RING => self.signal_event(),
            OUTSIDE => self.0.outside.get().into_iter().for_each(Event::signal),
            _ => {}
        }
    }

    /// Sleeps until [`Waker::wake`] (also one that came before) or until the time is over.
    pub fn park(&self, at_most: Option<Duration>) {
        if self.0.state.compare_exchange(AWAKE, PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            futex::wait(&self.0.state, PARKED, at_most);
        }
        self.awake_again();
    }

    /// Announces that the thread is about to wait for its event. False when a wake came before:
    /// then it must not wait. Either way, [`Waker::left_ring`] follows.
    pub(crate) fn enter_ring(&self) -> bool {
        self.0.state.compare_exchange(AWAKE, IN_RING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Announces that the thread is about to sleep outside of this crate, until the event of
    /// [`Waker::outside`] is signalled. False when a wake came before: then it must not sleep. Only
    /// where this is true, [`Waker::came_back`] follows.
    pub(crate) fn leave(&self) -> bool {
        let state = &self.0.state;
        let leaves = self.outside().is_ok()
            && state.compare_exchange(AWAKE, OUTSIDE, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !leaves {
            self.awake_again();
        }
        leaves
    }

    /// The thread that has left is back.
    pub(crate) fn came_back(&self) {
        self.awake_again();
        self.clear_outside();
    }

    /// Takes back what was signalled to the outside.
    pub(crate) fn clear_outside(&self) {
        self.0.outside.get().into_iter().for_each(Event::clear);
    }

    /// The thread is awake again. True when it was woken by [`Waker::wake`].
    pub(crate) fn left_ring(&self) -> bool {
        self.awake_again()
    }

    fn awake_again(&self) -> bool {
        let before = self.0.state.swap(AWAKE, Ordering::SeqCst);
        // What a waker published before it found the old state is visible after this.
        fence(Ordering::SeqCst);
        before == NOTIFIED
    }

    /// The descriptor that becomes readable when a waker finds the thread in its ring.
    pub(crate) fn event_fd(&self) -> Option<RawFd> {
        self.0.event.as_ref().map(|event| event.as_fd().as_raw_fd())
    }

    /// Takes back what wakers have signalled, so that a new poll of the event does not fire for
    /// them.
    pub(crate) fn clear_event(&self) {
        self.0.event.iter().for_each(Event::clear);
    }

    fn signal_event(&self) {
        self.0.event.iter().for_each(Event::signal);
    }
}

impl Default for Waker {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waker(state {})", self.0.state.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_park_is_not_lost() {
        let waker = Waker::new();
        waker.wake();
        waker.park(None); // would never return if the wake were lost
    }

    #[test]
    fn a_wake_from_another_thread_ends_the_park() {
        let waker = Waker::new();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        waker.park(None);
        thread.join().unwrap();
    }

    /// The sleeper looks for something that the other thread published before it woke it. Were a
    /// wake lost, or were it to arrive before what it announces, this would hang.
    #[test]
    fn what_was_published_before_a_wake_is_seen() {
        const LAST: u32 = if cfg!(miri) { 20 } else { 100_000 };
        let waker = Waker::new();
        let published = Arc::new(AtomicU32::new(0));
        let seen = Arc::new(AtomicU32::new(0));
        let thread = std::thread::spawn({
            let (waker, published, seen) = (waker.clone(), published.clone(), seen.clone());
            move || {
                for i in 1..=LAST {
                    published.store(i, Ordering::Release);
                    waker.wake();
                    if i % 2 == 0 {
                        while seen.load(Ordering::Acquire) < i {
                            std::thread::yield_now();
                        }
                    }
                }
            }
        });
        loop {
            let now = published.load(Ordering::Acquire);
            seen.store(now, Ordering::Release);
            if now == LAST {
                break;
            }
            waker.park(None);
        }
        thread.join().unwrap();
    }
}
