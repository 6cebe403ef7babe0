//! Aligned memory for direct I/O: a fixed pool, cut into blocks of one size.
//!
//! A pool is one anonymous mapping, aligned to 2 MiB and advised to use huge pages, excluded from
//! fork. Blocks are handed out and come back when dropped, from any thread, without a lock.
//! The mapping lives until the pool and every block of it are gone, so a block that is still with
//! the kernel keeps its memory alive.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::op::{DiskError, DiskErrorKind};
use crate::planted::{Bug, planted};
use crate::sync::ArrayQueue;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Blocks begin at multiples of this: enough for every direct-I/O alignment in use.
pub const BLOCK_ALIGN_BYTES: usize = 4096;
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Distinguishes pools, so that a disk can find the registered buffer of a block.
static NEXT_POOL_ID: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

struct Arena {
    id: u32,
    mapping: Mapping,
    block_bytes: usize,
    count: u32,
    /// All pages are there.
    resident: std::sync::atomic::AtomicBool,
    /// How many blocks have come back so far.
    returned: std::sync::atomic::AtomicU64,
    free: ArrayQueue<u32>,
    /// One more free block, or [`NONE`]: one that came back lately, so that a user of one block at a
    /// time has memory that the caches still hold, instead of going around in the whole pool.
    warm: AtomicU32,
    /// Tells loom who touches which block.
    #[cfg(loom)]
    touched: Vec<loom::cell::UnsafeCell<()>>,
}

/// What pages the memory of a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    /// Huge ones, if the kernel is allowed to follow the advice.
    Huge,
    /// Ordinary ones, which become huge ones when they are made resident.
    OrdinaryAtFirst,
    /// Ordinary ones.
    Ordinary,
}

/// No block.
const NONE: u32 = u32::MAX;

// SAFETY: the arena only owns memory; every byte of it is reachable through at most one `Block`
// at a time (the free list and `warm` together hold each free index once), and blocks hand out
// references under the usual borrow rules.
unsafe impl Send for Arena {}
// SAFETY: see `Send`; the shared parts (`free`, plain numbers) are themselves thread-safe.
unsafe impl Sync for Arena {}

impl Arena {
    fn take_warm(&self) -> Option<u32> {
        if self.warm.load(Ordering::Relaxed) == NONE {
            return None;
        }
        // Acquires what the last user wrote, as the queue does.
        let unordered = planted(Bug::TakeBlockUnordered);
        let order = if unordered { Ordering::Relaxed } else { Ordering::Acquire };
        let index = self.warm.swap(NONE, order);
        (index != NONE).then_some(index)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(mapping) = keep(self.mapping) {
            // SAFETY: it is what `map_aligned` returned, and no block is left: each holds an
            // `Arc<Arena>`.
            unsafe { unmap(mapping) };
        }
    }
}

/// The memory of a pool.
#[derive(Clone, Copy)]
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    pages: Pages,
    /// Whether the kernel takes the advice to use huge pages.
    takes_advice: bool,
}

/// Mappings that this thread keeps for its next pools.
#[derive(Default)]
struct Kept {
    /// How many, at most.
    limit: usize,
    mappings: Vec<Mapping>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for mapping in self.mappings.drain(..) {
            // SAFETY: `map_aligned` returned it, and its pool is gone.
            unsafe { unmap(mapping) };
        }
    }
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// Keeps up to so many mappings of pools that are dropped on this thread, for pools that it makes
/// later. For tests that open thousands of logs a second: there, making memory and clearing it is
/// most of the time. The next pool finds what the last one left, not zeros.
#[doc(hidden)]
pub fn keep_mappings(limit: usize) {
    let surplus = KEPT.with_borrow_mut(|kept| {
        let stay = limit.min(kept.mappings.len());
        Kept {
            mappings: kept.mappings.split_off(stay),
            limit: std::mem::replace(&mut kept.limit, limit),
        }
    });
    drop(surplus);
}

/// Takes a mapping into what this thread keeps, or gives it back. Small ones of every size would take the
/// place of those that are worth keeping.
fn keep(mapping: Mapping) -> Option<Mapping> {
    if mapping.pages == Pages::Ordinary {
        return Some(mapping);
    }
    let mut mapping = Some(mapping);
    // When the thread ends there is nothing any more to keep it in.
    let _gone = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.mappings.len() < kept.limit {
            kept.mappings.extend(mapping.take());
        }
    });
    mapping
}

/// A mapping of this very size and kind that was kept.
fn kept(bytes: usize, pages: Pages) -> Option<Mapping> {
    let take = |kept: &RefCell<Kept>| {
        let mappings = &mut kept.borrow_mut().mappings;
        let fits = |mapping: &Mapping| mapping.bytes == bytes && mapping.pages == pages;
        Some(mappings.swap_remove(mappings.iter().rposition(fits)?))
    };
    KEPT.try_with(take).ok().flatten()
}

/// A fixed number of blocks of one size. Clones share the blocks.
#[derive(Clone)]
pub struct BlockPool(Arc<Arena>);

impl BlockPool {
    /// Maps memory for `count` blocks of `block_bytes` (rounded up to a multiple of 4096; both at
    /// least 1). The kernel finds a page for it at its first use: a huge one, where that is allowed.
    ///
    /// Fails with [`DiskErrorKind::Limit`] when the memory is not to be had.
    pub fn new(count: u32, block_bytes: usize) -> Result<Self, DiskError> {
        Self::of(Pages::Huge, count, block_bytes)
    }

    /// As [`Self::new`], in ordinary pages: for memory that is used for a moment. A huge page takes
    /// longer to clear than most of what a few blocks are read for.
    pub fn ordinary(count: u32, block_bytes: usize) -> Result<Self, DiskError> {
        Self::of(Pages::Ordinary, count, block_bytes)
    }

    /// As [`Self::new`], in ordinary pages until it is made resident: its first users wait for a small
    /// page each, not for a huge one.
    pub fn ordinary_at_first(count: u32, block_bytes: usize) -> Result<Self, DiskError> {
        Self::of(Pages::OrdinaryAtFirst, count, block_bytes)
    }

    fn of(pages: Pages, count: u32, block_bytes: usize) -> Result<Self, DiskError> {
        let too_large = || DiskError::new(DiskErrorKind::Limit, "map memory for blocks");
        let count = count.max(1);
        let block_bytes =
            block_bytes.max(1).checked_next_multiple_of(BLOCK_ALIGN_BYTES).ok_or_else(too_large)?;
        let page_bytes = if pages == Pages::Ordinary { BLOCK_ALIGN_BYTES } else { HUGE_PAGE_BYTES };
        let mapped_bytes = block_bytes
            .checked_mul(count as usize)
            .and_then(|n| n.checked_next_multiple_of(page_bytes))
            .ok_or_else(too_large)?;
        let mapping = match kept(mapped_bytes, pages) {
            Some(kept) => kept,
            None => map_aligned(mapped_bytes, pages)?,
        };
        let free = ArrayQueue::new(count as usize);
        for index in 0..count {
            let pushed = free.push(index);
            debug_assert!(pushed.is_ok());
        }
        Ok(Self(Arc::new(Arena {
            id: NEXT_POOL_ID.fetch_add(1, Ordering::Relaxed),
            mapping,
            block_bytes,
            count,
            resident: std::sync::atomic::AtomicBool::new(false),
            returned: std::sync::atomic::AtomicU64::new(0),
            free,
            warm: AtomicU32::new(NONE),
            #[cfg(loom)]
            touched: (0..count).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        })))
    }

    /// As [`Self::new`]; all pages are there when it returns, and no user of a block waits for one.
    /// Takes the time of clearing them: some 0.1 ms for each MiB, much more where the host has to find
    /// them first.
    pub fn resident(count: u32, block_bytes: usize) -> Result<Self, DiskError> {
        let pool = Self::new(count, block_bytes)?;
        pool.make_resident();
        Ok(pool)
    }

    /// Has the kernel make all pages present, whoever uses the blocks meanwhile; where the memory is
    /// not to be had, the rest comes at its first use. See also [`crate::MakingResident`].
    pub fn make_resident(&self) {
        self.make_resident_until(&|| false);
    }

    /// The same, in steps of a huge page: while the kernel clears one, nobody else in the process can
    /// map or unmap anything. False when it was stopped, or the memory is not to be had.
    pub(crate) fn make_resident_until(&self, stopped: &dyn Fn() -> bool) -> bool {
        let (start, bytes) = self.mapping();
        let grows = self.0.mapping.pages == Pages::OrdinaryAtFirst;
        if grows {
            advise(start, bytes, Pages::Huge);
        }
        let whole = (0..bytes).step_by(HUGE_PAGE_BYTES).all(|at| {
            let start = start.wrapping_add(at);
            !stopped() && {
                if grows {
                    join_pages(start);
                }
                touch(start, HUGE_PAGE_BYTES.min(bytes - at))
            }
        });
        if whole {
            self.0.resident.store(true, Ordering::Release);
        }
        whole
    }

    /// Whether all pages are there.
    pub fn is_resident(&self) -> bool {
        self.0.resident.load(Ordering::Acquire)
    }

    /// Takes a block, or `None` when all are out (or, rarely, when one comes back at this very
    /// moment while another goes out). Its content is whatever the last user left.
    pub fn take(&self) -> Option<Block> {
        // The second look meets a block that came back while others emptied the queue.
        let warm = || self.0.take_warm();
        let index = warm().or_else(|| self.0.free.pop()).or_else(warm)?;
        Some(Block { arena: Arc::clone(&self.0), index })
    }

    /// The size of each block in bytes.
    pub fn block_bytes(&self) -> usize {
        self.0.block_bytes
    }

    /// How many blocks there are in all.
    pub fn count(&self) -> u32 {
        self.0.count
    }

    /// How many blocks are free at this instant.
    pub fn available(&self) -> usize {
        self.0.free.len() + usize::from(self.0.warm.load(Ordering::Relaxed) != NONE)
    }

    /// How many blocks have come back since the pool was made. Each is counted once it can be taken
    /// again.
    pub fn returned(&self) -> u64 {
        self.0.returned.load(Ordering::Relaxed)
    }

    /// Whether the kernel is asked for huge pages, at once or when the memory is made resident, and is
    /// allowed to give them.
    pub fn huge_pages_advised(&self) -> bool {
        let Mapping { pages, takes_advice, .. } = self.0.mapping;
        // The advice is taken also where it is not followed.
        pages != Pages::Ordinary && takes_advice && crate::sys::huge_pages_allowed()
    }

    /// Distinguishes this pool from every other of this process.
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// The whole mapping, for registering it with a ring.
    pub(crate) fn mapping(&self) -> (*mut u8, usize) {
        (self.0.mapping.base.as_ptr(), self.0.mapping.bytes)
    }
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockPool")
            .field("id", &self.0.id)
            .field("block_bytes", &self.0.block_bytes)
            .field("count", &self.0.count)
            .field("available", &self.available())
            .finish()
    }
}

/// One block of a pool: owned, aligned memory. Goes back to its pool when dropped.
pub struct Block {
    arena: Arc<Arena>,
    index: u32,
}

impl Block {
    /// The pool this block belongs to ([`BlockPool::id`]).
    pub fn pool_id(&self) -> u32 {
        self.arena.id
    }

    /// The bytes of several blocks as one slice, where each lies right behind the one before it in the
    /// memory of their pool. `None` where one does not, and where there is no block.
    pub fn joined<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Option<&'a [u8]> {
        let mut blocks = blocks.into_iter();
        let first = blocks.next()?;
        let mut count = 1;
        for block in blocks {
            let behind = block.index as usize == first.index as usize + count;
            if !behind || !Arc::ptr_eq(&block.arena, &first.arena) {
                return None;
            }
            #[cfg(loom)]
            block.arena.touched[block.index as usize].with(|_| ());
            count += 1;
        }
        #[cfg(loom)]
        first.arena.touched[first.index as usize].with(|_| ());
        // SAFETY: these are `count` blocks of one arena one behind the other, so the range lies inside
        // the mapping. It is initialised, as in `deref`. Each of them is borrowed for as long as the
        // slice lives, so that nobody can write to it.
        Some(unsafe { std::slice::from_raw_parts(first.start(), count * first.arena.block_bytes) })
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: index < count, so the result lies inside the mapping.
        unsafe {
            self.arena.mapping.base.as_ptr().add(self.index as usize * self.arena.block_bytes)
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[cfg(loom)]
        self.arena.touched[self.index as usize].with(|_| ());
        // SAFETY: the range lies inside the mapping, is initialised (anonymous memory begins as
        // zeros), and this block is its only owner.
        unsafe { std::slice::from_raw_parts(self.start(), self.arena.block_bytes) }
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        #[cfg(loom)]
        self.arena.touched[self.index as usize].with_mut(|_| ());
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.arena.block_bytes) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let warm = &self.arena.warm;
        if warm.compare_exchange(NONE, self.index, Ordering::Release, Ordering::Relaxed).is_err() {
            let pushed = self.arena.free.push(self.index);
            debug_assert!(pushed.is_ok(), "the free list has room for every block");
        }
        self.arena.returned.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({}:{})", self.arena.id, self.index)
    }
}

/// # Safety
/// The memory must come from [`map_aligned`], and nothing may refer to it.
#[cfg(not(miri))]
unsafe fn unmap(mapping: Mapping) {
    // SAFETY: our own mapping, by the caller's promise.
    unsafe { libc::munmap(mapping.base.as_ptr().cast(), mapping.bytes) };
}

/// Miri knows no mappings of this kind: there, the allocator stands in for them.
#[cfg(miri)]
fn map_aligned(bytes: usize, pages: Pages) -> Result<Mapping, DiskError> {
    let limit = || DiskError::new(DiskErrorKind::Limit, "map memory for blocks");
    let layout =
        std::alloc::Layout::from_size_align(bytes, HUGE_PAGE_BYTES).map_err(|_| limit())?;
    if bytes > 1 << 30 {
        return Err(limit());
    }
    // SAFETY: the size is not zero: a pool has at least one block.
    let base = unsafe { std::alloc::alloc_zeroed(layout) };
    let base = NonNull::new(base).ok_or_else(limit)?;
    Ok(Mapping { base, bytes, pages, takes_advice: false })
}

/// # Safety
/// As for the other.
#[cfg(miri)]
unsafe fn unmap(mapping: Mapping) {
    let Mapping { base, bytes, .. } = mapping;
    // SAFETY: the layout was valid when the memory was allocated.
    let layout = unsafe { std::alloc::Layout::from_size_align_unchecked(bytes, HUGE_PAGE_BYTES) };
    // SAFETY: allocated with this very layout, by the caller's promise.
    unsafe { std::alloc::dealloc(base.as_ptr(), layout) };
}

/// Maps `bytes` of zeroed memory aligned to a huge page.
#[cfg(not(miri))]
fn map_aligned(bytes: usize, pages: Pages) -> Result<Mapping, DiskError> {
    let failed = |doing: &str| {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOMEM);
        DiskError::from_errno(errno, doing)
    };
    let span = bytes + HUGE_PAGE_BYTES;
    // SAFETY: an anonymous private mapping at an address of the kernel's choice.
    let raw = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            span,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if raw == libc::MAP_FAILED {
        return Err(failed("map memory for blocks"));
    }
    let start = raw as usize;
    let aligned = start.next_multiple_of(HUGE_PAGE_BYTES);
    let head = aligned - start;
    let base = raw.wrapping_byte_add(head);
    let tail = span - head - bytes;
    if head > 0 {
        // SAFETY: the head of our own mapping, which nothing refers to.
        unsafe { libc::munmap(raw, head) };
    }
    if tail > 0 {
        // SAFETY: the tail of our own mapping, which nothing refers to.
        unsafe { libc::munmap(base.wrapping_byte_add(bytes), tail) };
    }
    let takes_advice = advise(base.cast(), bytes, Pages::Huge);
    if pages != Pages::Huge {
        advise(base.cast(), bytes, Pages::Ordinary);
    }
    // SAFETY: our own mapping. Direct I/O and fork do not mix: a child must not share these pages.
    unsafe { libc::madvise(base, bytes, libc::MADV_DONTFORK) };
    let Some(base) = NonNull::new(base.cast::<u8>()) else {
        return Err(DiskError::new(DiskErrorKind::Limit, "map memory for blocks"));
    };
    Ok(Mapping { base, bytes, pages, takes_advice })
}

/// Tells the kernel which pages are wanted from now on. Whether it listens: a refusal changes nothing.
#[cfg(not(miri))]
fn advise(start: *mut u8, bytes: usize, pages: Pages) -> bool {
    let huge = pages == Pages::Huge;
    let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: advice about the caller's own mapping; no byte of it changes.
    unsafe { libc::madvise(start.cast(), bytes, advice) == 0 }
}

#[cfg(miri)]
fn advise(_: *mut u8, _: usize, _: Pages) -> bool {
    false
}

/// Has the kernel put a huge page in the place of ordinary ones, where some are in use already, and gives
/// whether there is one now. Where it cannot (pages that are just being written from, a kernel before
/// 6.1), they stay as they are.
#[cfg(not(miri))]
pub(crate) fn join_pages(start: *mut u8) -> bool {
    // SAFETY: the range lies in the caller's mapping, and no byte of it changes for whoever reads or
    // writes it meanwhile.
    unsafe { libc::madvise(start.cast(), HUGE_PAGE_BYTES, libc::MADV_COLLAPSE) == 0 }
}

#[cfg(miri)]
pub(crate) fn join_pages(_: *mut u8) -> bool {
    false
}

/// Has the kernel make pages present, without a change to what is in them. False when they are not to be
/// had. A kernel before 5.14 does not know how: there they come at their first use, or when they are
/// registered with a ring.
#[cfg(not(miri))]
fn touch(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: the range lies in the caller's mapping, and no byte of it changes.
    let done = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_POPULATE_WRITE) };
    done == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

#[cfg(miri)]
fn touch(_: *mut u8, _: usize) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_hands_out_each_block_once_and_takes_it_back() {
        let pool = BlockPool::new(3, 5000).unwrap();
        assert_eq!(pool.block_bytes(), 8192);
        let mut out: Vec<Block> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(out.len(), 3);
        for (i, block) in out.iter_mut().enumerate() {
            assert_eq!(block.as_ptr() as usize % BLOCK_ALIGN_BYTES, 0);
            block.fill(i as u8 + 1);
        }
        for (i, block) in out.iter().enumerate() {
            assert!(block.iter().all(|b| *b == i as u8 + 1), "blocks overlap");
        }
        assert!(pool.take().is_none());
        out.pop();
        assert_eq!(pool.available(), 1);
    }

    #[test]
    fn blocks_that_lie_one_behind_the_other_are_one_slice() {
        let (pool, other) = (BlockPool::new(4, 4096).unwrap(), BlockPool::new(4, 4096).unwrap());
        let fill = |pool: &BlockPool| {
            let mut blocks: Vec<Block> = std::iter::from_fn(|| pool.take()).collect();
            for (number, block) in (0..).zip(&mut blocks) {
                block.fill(number);
            }
            blocks
        };
        let (blocks, others) = (fill(&pool), fill(&other));
        let joined = Block::joined(&blocks[1..]).unwrap();
        let expected: Vec<u8> = [1, 2, 3].iter().flat_map(|number| [*number; 4096]).collect();
        assert_eq!(joined, expected);
        assert_eq!(joined.as_ptr(), blocks[1].as_ptr());
        assert_eq!(Block::joined([&blocks[2]]).unwrap(), &blocks[2][..]);
        for apart in [[0, 2], [1, 0], [3, 0], [2, 2]] {
            assert!(Block::joined(apart.map(|at: usize| &blocks[at])).is_none(), "{apart:?}");
        }
        assert!(Block::joined([&blocks[0], &others[1]]).is_none(), "of two pools");
        assert!(Block::joined([]).is_none());
    }

    #[test]
    fn memory_is_kept_for_the_next_pool_where_that_was_asked_for() {
        let pool = || BlockPool::new(1, 4096).unwrap();
        keep_mappings(1);
        let one = pool();
        let mut block = one.take().unwrap();
        block[0] = 17;
        drop(one);
        let two = pool();
        let start = block.as_ptr();
        assert_ne!(two.take().unwrap().as_ptr(), start, "a block of it is in use");
        drop(block);
        let again = pool();
        let block = again.take().unwrap();
        assert_eq!((block.as_ptr(), block[0]), (start, 17));
        assert_ne!(pool().take().unwrap().as_ptr(), start, "it is given away once");
        keep_mappings(0);
        assert!(KEPT.with_borrow(|kept| kept.mappings.is_empty()));
    }

    #[test]
    fn one_block_at_a_time_is_always_the_same() {
        let pool = BlockPool::new(4, 4096).unwrap();
        drop(pool.take().unwrap());
        let first = pool.take().unwrap().as_ptr();
        for _ in 0..10 {
            assert_eq!(pool.take().unwrap().as_ptr(), first);
        }
    }

    #[test]
    fn threads_never_share_a_block() {
        let (pool, rounds) =
            (BlockPool::new(3, 4096).unwrap(), if cfg!(miri) { 30 } else { 20_000 });
        std::thread::scope(|scope| {
            for thread in 1..=3_u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..rounds {
                        // As many blocks as threads, and each holds one at most.
                        let mut block = loop {
                            match pool.take() {
                                Some(block) => break block,
                                None => std::thread::yield_now(),
                            }
                        };
                        block[..8].fill(thread);
                        std::thread::yield_now();
                        assert_eq!(block[..8], [thread; 8], "two threads have the same block");
                    }
                });
            }
        });
        assert_eq!(pool.available(), 3);
    }

    /// Nothing but the way of the block orders the two, who have it in turns: for whoever looks at
    /// that (Miri, ThreadSanitizer).
    #[test]
    fn who_takes_a_block_comes_after_its_last_user() {
        let (pool, turn) = (BlockPool::new(1, 4096).unwrap(), AtomicU32::new(0));
        let rounds = if cfg!(miri) { 10 } else { 500 };
        let user = |me: u32| {
            for round in 0..rounds {
                while turn.load(Ordering::Relaxed) != 2 * round + me {
                    std::thread::yield_now();
                }
                let mut block = loop {
                    match pool.take() {
                        Some(block) => break block,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(block[..8], u64::from(2 * round + me).to_le_bytes());
                block[..8].copy_from_slice(&u64::from(2 * round + me + 1).to_le_bytes());
                drop(block);
                turn.store(2 * round + me + 1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| user(0));
            scope.spawn(|| user(1));
        });
    }

    #[test]
    fn a_block_outlives_its_pool() {
        let pool = BlockPool::new(1, 4096).unwrap();
        let mut block = pool.take().unwrap();
        drop(pool);
        block.fill(7);
        assert_eq!(block[4095], 7);
    }

    #[test]
    fn absurd_sizes_are_an_error() {
        assert!(BlockPool::new(u32::MAX, usize::MAX / 2).is_err());
    }
}
