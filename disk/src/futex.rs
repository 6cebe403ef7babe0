//! Waiting for a 32-bit word to change: the kernel's futex, private to this process.
//!
//! Many waiters of one word are woken by a single system call, which the standard library's
//! condition variables and thread parking do not offer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Sleeps while `word` holds `expected`: until [`wake_all`], until the time is over, or for no
/// reason at all. The caller looks at the word again. Returns at once when it holds another value.
pub fn wait(word: &AtomicU32, expected: u32, at_most: Option<Duration>) {
    if word.load(Ordering::SeqCst) != expected {
        return;
    }
    let timeout = at_most.map(|d| libc::timespec {
        tv_sec: libc::time_t::try_from(d.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: i64::from(d.subsec_nanos()),
    });
    let timeout_ptr = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is a live, aligned 32-bit word; the timeout is null or a live local. The
    // kernel reads both only during the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout_ptr,
        );
    }
}

/// The same for a word that several groups of waiters share: [`wake_bits`] wakes only those whose
/// `bits` (at least one) it names.
pub fn wait_bits(word: &AtomicU32, expected: u32, at_most: Option<Duration>, bits: u32) {
    if word.load(Ordering::SeqCst) != expected {
        return;
    }
    // This call takes a point in time, not a span. A span beyond the end of time is none.
    let deadline = at_most.and_then(after);
    let deadline_ptr = deadline.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is a live, aligned 32-bit word; the deadline is null or a live local. The
    // kernel reads both only during the call; the second address is not used.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
            expected,
            deadline_ptr,
            std::ptr::null::<u32>(),
            bits,
        );
    }
}

/// The monotonic time so long from now.
fn after(span: Duration) -> Option<libc::timespec> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live local for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let nanos = now.tv_nsec + i64::from(span.subsec_nanos());
    let seconds = libc::time_t::try_from(span.as_secs()).ok()?;
    Some(libc::timespec {
        tv_sec: now.tv_sec.checked_add(seconds)?.checked_add(nanos / 1_000_000_000)?,
        tv_nsec: nanos % 1_000_000_000,
    })
}

/// Wakes the threads that sleep in [`wait_bits`] on this word with any of these bits: all of them
/// with one system call.
pub fn wake_bits(word: &AtomicU32, bits: u32) {
    // SAFETY: `word` is a live, aligned 32-bit word; waking reads no memory, and neither of the
    // addresses is used.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
            std::ptr::null::<libc::timespec>(),
            std::ptr::null::<u32>(),
            bits,
        );
    }
}

/// Wakes every thread that sleeps in [`wait`] on this word.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: `word` is a live, aligned 32-bit word; waking reads no memory.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            i32::MAX,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn one_call_wakes_all_waiters() {
        let word = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let word = Arc::clone(&word);
                std::thread::spawn(move || {
                    while word.load(Ordering::SeqCst) == 0 {
                        wait(&word, 0, None);
                    }
                })
            })
            .collect();
        word.store(1, Ordering::SeqCst);
        wake_all(&word);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn only_the_bits_that_are_named_are_woken() {
        let word = Arc::new(AtomicU32::new(0));
        let done = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = [1, 2]
            .map(|bits| {
                let (word, done) = (Arc::clone(&word), Arc::clone(&done));
                std::thread::spawn(move || {
                    // Whoever is woken looks whether its turn has come.
                    while done.load(Ordering::SeqCst) & bits == 0 {
                        let seen = word.load(Ordering::SeqCst);
                        if done.load(Ordering::SeqCst) & bits == 0 {
                            wait_bits(&word, seen, None, bits);
                        }
                    }
                })
            })
            .into();
        for (bits, thread) in [1, 2].into_iter().zip(threads) {
            done.fetch_or(bits, Ordering::SeqCst);
            word.fetch_add(1, Ordering::SeqCst);
            wake_bits(&word, bits);
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_wait_for_bits_ends_in_time() {
        let word = AtomicU32::new(0);
        wait_bits(&word, 0, Some(Duration::from_millis(1)), 1);
        wait_bits(&word, 1, None, 1); // holds another value: returns at once
        assert!(after(Duration::MAX).is_none());
    }

    #[test]
    fn a_wait_with_a_time_limit_returns() {
        let word = AtomicU32::new(0);
        wait(&word, 0, Some(Duration::from_millis(1)));
    }
}
