//! How far the reading of an opening has come, for whoever watches it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::tools::Progress;

/// After so many bytes it is told again.
const TELL_EVERY_BYTES: u64 = 4 << 20;

/// Adds up what all shards of a log have read.
pub(crate) struct Watch {
    done: AtomicU64,
    total: AtomicU64,
    tell: Box<dyn Fn(Progress) + Send + Sync>,
}

impl Watch {
    pub(crate) fn new(tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self { done: AtomicU64::new(0), total: AtomicU64::new(0), tell: Box::new(tell) }
    }

    fn tell(&self) {
        let done_bytes = self.done.load(Ordering::Relaxed);
        let total_bytes = self.total.load(Ordering::Relaxed).max(done_bytes);
        (self.tell)(Progress { done_bytes, total_bytes });
    }
}

/// The part of one shard: what it has announced is done when this is dropped.
pub(super) struct Share<'a> {
    watch: Option<&'a Watch>,
    /// Announced, and not done yet.
    left: u64,
    /// Done, and not told yet.
    untold: u64,
}

impl<'a> Share<'a> {
    pub(super) fn new(watch: Option<&'a Watch>) -> Self {
        Self { watch, left: 0, untold: 0 }
    }

    /// So many bytes are going to be read, or passed over.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.left += bytes;
        if let Some(watch) = self.watch {
            watch.total.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// So many of them were read.
    pub(super) fn done(&mut self, bytes: u64) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.untold += bytes;
        if self.untold >= TELL_EVERY_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.untold);
        if let (Some(watch), true) = (self.watch, bytes > 0) {
            watch.done.fetch_add(bytes, Ordering::Relaxed);
            watch.tell();
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.untold += std::mem::take(&mut self.left);
        self.flush();
    }
}
