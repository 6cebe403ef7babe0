//! Making memory present in the background, so that nobody waits for it when a log is opened, nor
//! for a page on the way of a record a moment later.
//!
//! Where the host has to find the memory first, clearing 34 MiB takes from some milliseconds to
//! hundreds: more than all else that opening does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::block::BlockPool;

/// A thread that makes the memory of pools present, one after the other. Dropping this ends it.
#[derive(Debug)]
pub struct MakingResident {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MakingResident {
    /// Begins with `pools`; each is [`BlockPool::is_resident`] once it is done. The thread runs where
    /// its caller may run at this moment. Where there is no thread to be had, this does it itself.
    pub fn begin(pools: &[BlockPool]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, its_pools) = (Arc::clone(&stop), pools.to_owned());
        let all = move || {
            let stopped = || told.load(Ordering::Relaxed);
            its_pools.iter().all(|pool| pool.make_resident_until(&stopped));
        };
        let thread = std::thread::Builder::new().name("ringlog-memory".to_owned()).spawn(all).ok();
        if thread.is_none() {
            pools.iter().for_each(BlockPool::make_resident);
        }
        Self { stop, thread }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::HUGE_PAGE_BYTES;

    #[test]
    fn what_is_made_resident_keeps_its_content_and_is_told() {
        let pool = BlockPool::new(4, HUGE_PAGE_BYTES).unwrap();
        assert!(!pool.is_resident());
        let mut block = pool.take().unwrap();
        block.fill(7);
        let making = MakingResident::begin(std::slice::from_ref(&pool));
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
        let pool = BlockPool::new(1, HUGE_PAGE_BYTES).unwrap();
        assert!(!pool.make_resident_until(&|| true), "it was stopped before its first step");
        assert!(!pool.is_resident());
        assert!(pool.make_resident_until(&|| false) && pool.is_resident());
    }
}
