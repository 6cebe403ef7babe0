//! Making memory present in the background, so that nobody waits for it when a log is opened, nor
//! for a page on the way of a record a moment later.
//!
//! Where the host has to find the memory first, clearing 34 MiB takes from some milliseconds to
//! hundreds: more than all else that opening does.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::block::BlockPool;

/// The first records of a log are left alone.
const BEGINS_AFTER: Duration = Duration::from_millis(5);
/// After each step of a huge page follows a pause, so many times as long as the step took, so that
/// whoever shares the CPU or wants to map memory hardly meets one ...
const PAUSE: u32 = 2;
/// ... but never longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// A thread that makes the memory of pools present, one after the other, with pauses. Dropping this
/// ends it.
#[derive(Debug)]
pub struct MakingResident {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MakingResident {
    /// Begins with `pools`, some milliseconds later; each is [`BlockPool::is_resident`] once it is done.
    /// The thread runs where its caller may run at this moment. Where there is no thread to be had, this
    /// does it itself, at once.
    pub fn begin(pools: &[BlockPool]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, its_pools) = (Arc::clone(&stop), pools.to_owned());
        let all = move || {
            thread::park_timeout(BEGINS_AFTER);
            let began = Cell::new(None);
            let stopped = || {
                let took = began.get().map(|began: Instant| began.elapsed());
                if let Some(took) = took {
                    thread::park_timeout((took * PAUSE).min(PAUSE_MAX));
                }
                began.set(Some(Instant::now()));
                told.load(Ordering::Relaxed)
            };
            its_pools.iter().all(|pool| pool.make_resident_until(&stopped));
        };
        let thread = thread::Builder::new().name("ringlog-memory".to_owned()).spawn(all).ok();
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
            thread.thread().unpark();
            let _ = thread.join(); // it cannot panic
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HUGE_PAGE_BYTES, join_pages};

    #[test]
    fn what_is_made_resident_keeps_its_content_and_is_told() {
        for make in [BlockPool::new, BlockPool::ordinary_at_first, BlockPool::ordinary] {
            makes_resident(&make(4, HUGE_PAGE_BYTES).unwrap());
        }
    }

    fn makes_resident(pool: &BlockPool) {
        assert!(!pool.is_resident());
        let mut block = pool.take().unwrap();
        block.fill(7);
        let making = MakingResident::begin(std::slice::from_ref(pool));
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

    /// With pauses before and between its steps, this takes a second; who drops it waits for none.
    #[test]
    fn whoever_drops_it_does_not_wait_for_its_pauses() {
        let pool = BlockPool::ordinary_at_first(200, HUGE_PAGE_BYTES).unwrap();
        drop(MakingResident::begin(std::slice::from_ref(&pool)));
        assert!(!pool.is_resident(), "it was stopped long before its end");
    }

    /// Where the kernel joins pages, memory that was used in small ones ends in huge ones, with what was
    /// in it.
    #[test]
    #[cfg(not(miri))]
    fn ordinary_pages_become_huge_ones() {
        let pool = BlockPool::ordinary_at_first(1, HUGE_PAGE_BYTES).unwrap();
        // Nothing where the kernel has joined it with a neighbour of other tests.
        let huge_kib = |block: &crate::block::Block| -> Option<u64> {
            let start = format!("{:x}-", block.as_ptr() as usize);
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let of_it = smaps.lines().skip_while(|line| !line.starts_with(&start));
            let line = of_it.take(40).find_map(|line| line.strip_prefix("AnonHugePages:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        };
        let mut block = pool.take().unwrap();
        block[..8192].fill(9);
        assert!(
            huge_kib(&block).is_none_or(|kib| kib == 0),
            "the first users wait for small pages"
        );
        pool.make_resident();
        assert!(block[..8192].iter().all(|byte| *byte == 9));
        assert!(block[8192..].iter().all(|byte| *byte == 0));
        // The memory of this machine may be in pieces, or its kernel too old.
        let control = BlockPool::resident(1, HUGE_PAGE_BYTES).unwrap();
        let whole = HUGE_PAGE_BYTES as u64 >> 10;
        if huge_kib(&control.take().unwrap()) == Some(whole) && join_pages(control.mapping().0) {
            assert!(huge_kib(&block).is_none_or(|kib| kib == whole));
        }
    }
}
