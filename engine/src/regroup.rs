//! Whether the next commit waits for those whom the last one has served.
//!
//! Threads that append, wait and append again fall into two groups: while one has its records on the
//! disk the other gathers, each commit carries half of the threads, and twice as many are made. So
//! where several wait, the writer tells those whose records are durable and goes to sleep; the next
//! thread that goes to sleep wakes it. It has given all it has, and while the writer gets up, the
//! others that were told do so, too.
//!
//! Nobody has to come back. The wait is at most twice as long as the last commit took, and each one in
//! vain doubles the number of commits before the next try, so that threads that have other things to
//! do pay next to nothing. It is not tried behind large commits: there a device gains nothing from
//! fewer of them, and what is copied meanwhile is time won.

/// Commits up to this size, the last one and what waits, are worth a wait.
const SMALL_BYTES: u64 = 64 << 10;
/// So many times as long as the last commit took is the longest wait.
const TIMES_AS_LONG: u64 = 2;
/// Commits without a try after one in vain, at most.
const PAUSE_MAX: u32 = 64;

/// See the module's text. Times are monotonic nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Regroup {
    /// When the last commit was handed to the disk, and bytes written by then.
    sent_ns: u64,
    sent_bytes: u64,
    /// Bytes of the last commit, and how long it took.
    bytes: u64,
    took_ns: u64,
    /// Until when the next commit waits.
    until_ns: Option<u64>,
    /// Commits before the next try.
    pause: u32,
    /// The same after the next one in vain.
    next_pause: u32,
}

impl Regroup {
    /// A commit goes to the disk; so many bytes were written since the beginning, with it.
    pub(crate) fn sent(&mut self, now_ns: u64, written_bytes: u64) {
        self.bytes = written_bytes - self.sent_bytes;
        self.sent_bytes = written_bytes;
        self.sent_ns = now_ns;
    }

    /// A commit was completed, and nothing is on its way. Gives whether the next one, of which so
    /// much is there, may wait.
    pub(crate) fn completed(&mut self, now_ns: u64, pending_bytes: usize) -> bool {
        self.took_ns = now_ns.saturating_sub(self.sent_ns);
        let now = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        now && self.bytes.max(pending_bytes as u64) <= SMALL_BYTES
    }

    /// The next commit waits.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.until_ns = Some(now_ns + self.took_ns.saturating_mul(TIMES_AS_LONG));
    }

    /// Until when the next commit waits, if it does.
    pub(crate) fn until_ns(&self) -> Option<u64> {
        self.until_ns
    }

    /// The wait, if there is one, is over for another reason than that it was for.
    pub(crate) fn stop(&mut self) {
        self.until_ns = None;
    }

    /// The wait is over: somebody came back or nobody did.
    pub(crate) fn end(&mut self, came_back: bool) {
        self.until_ns = None;
        if came_back {
            self.next_pause /= 2;
        } else {
            self.pause = self.next_pause.max(1);
            self.next_pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }
}
