//! Making memory present in the background, so that nobody waits for it when a log is opened, nor
//! for a page on the way of a record a moment later.
//!
//! Where the host has to find the memory first, clearing 34 MiB takes from some milliseconds to
//! hundreds: more than all else that opening does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::block::{BlockPool, HUGE_PAGE_BYTES};

/// A thread that makes the memory of pools present, one after the other. Dropping this ends it.
#[derive(Debug)]
pub struct MakingResident {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MakingResident {
    /// Begins with `pools`, none of whose blocks is out; each is [`BlockPool::is_resident`] once it
    /// is done. The thread runs where its caller may run at this moment. Where there is no thread to
    /// be had, the pages come at their first use.
    pub fn begin(pools: Vec<BlockPool>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let all = move || {
            let stopped = || told.load(Ordering::Relaxed);
            pools.iter().all(|pool| pool.make_resident_until(&stopped));
        };
        let thread = std::thread::Builder::new().name("ringlog-memory".to_owned());
        Self { stop, thread: thread.spawn(all).ok() }
    }
}

impl Drop for MakingResident {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it cannot panic
        }
    }
}

/// How much is made present between two looks whether it shall end: while the kernel clears it,
/// nobody else in the process can map or unmap anything.
pub(crate) const STEP_BYTES: usize = HUGE_PAGE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_resident_keeps_its_content_and_is_told() {
        let pool = BlockPool::new(4, STEP_BYTES).unwrap();
        assert!(!pool.is_resident());
        let mut block = pool.take().unwrap();
        block.fill(7);
        let making = MakingResident::begin(vec![pool.clone()]);
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !pool.is_resident() && std::time::Instant::now() < limit {
            std::thread::yield_now();
        }
        drop(making);
        assert!(pool.is_resident());
        assert!(block.iter().all(|byte| *byte == 7));
        assert!(pool.take().unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let pool = BlockPool::new(1, STEP_BYTES).unwrap();
        assert!(!pool.make_resident_until(&|| true), "it was stopped before its first step");
        assert!(!pool.is_resident());
        assert!(pool.make_resident_until(&|| false) && pool.is_resident());
    }
}
