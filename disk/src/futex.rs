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
    fn a_wait_with_a_time_limit_returns() {
        let word = AtomicU32::new(0);
        wait(&word, 0, Some(Duration::from_millis(1)));
    }
}
