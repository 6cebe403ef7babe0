//! Signals that hail down on every thread of this process while something runs. For tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::suite::SetAtEnd;

/// How often the handler has run.
static MET: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    MET.fetch_add(1, Ordering::Relaxed);
}

/// Runs `body` while every other thread of the process gets SIGUSR1 all the time, the caller's
/// included. With `restart` the system begins interrupted calls again where it can (SA_RESTART);
/// without, they end with EINTR. Gives how many signals were met, too.
///
/// The handler stays: a signal may still be on its way.
pub fn under_signals<T>(restart: bool, body: impl FnOnce() -> T) -> (T, u64) {
    // SAFETY: all fields of a sigaction may be zero.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as *const () as libc::sighandler_t;
    action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
    // SAFETY: the action is a live local, with a handler that is safe at any moment.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0, "the handler is refused");
    let before = MET.load(Ordering::Relaxed);
    let stop = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                signal_others();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let end = SetAtEnd(&stop);
        let result = body();
        drop(end);
        result
    });
    (result, MET.load(Ordering::Relaxed) - before)
}

/// One signal to each thread of this process but the calling one.
fn signal_others() {
    // SAFETY: no memory is involved.
    let me = unsafe { libc::gettid() };
    let process = std::process::id() as libc::pid_t;
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return };
    for thread in threads.flatten() {
        let number = thread.file_name().to_str().and_then(|name| name.parse::<libc::pid_t>().ok());
        if let Some(number) = number.filter(|number| *number != me) {
            // SAFETY: no memory is involved; a thread that has ended meanwhile is an error that
            // does not matter.
            unsafe { libc::syscall(libc::SYS_tgkill, process, number, libc::SIGUSR1) };
        }
    }
}
