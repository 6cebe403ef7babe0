//! Setting up a ring: the best that the kernel grants, step by step, with a note for each step
//! that was not granted.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{IoUring, Probe, opcode};

use crate::block::BlockPool;
use crate::dir::Dir;
use crate::op::{DiskError, FileId, Slice};
use crate::options::DiskOptions;
use crate::sys::{self, Errno};

const SUBMISSION_ENTRIES: u32 = 256;
/// Several times what can be in flight, so that completions never have to queue inside the kernel.
const COMPLETION_ENTRIES: u32 = 1024;
/// Each takes at most two submission entries.
const IN_FLIGHT_MAX: u32 = 120;
/// The kernel takes at most this much memory as one registered buffer.
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// A ring and what it was granted.
pub(super) struct Granted {
    pub(super) ring: IoUring,
    pub(super) registered_files: bool,
    pub(super) buffers: Buffers,
    /// What is registered once it is resident.
    pub(super) later: Vec<BlockPool>,
    pub(super) writev_fixed: bool,
    pub(super) in_flight_max: usize,
    pub(super) notes: Vec<String>,
}

pub(super) fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Sets up a ring on the calling thread, which must be the one that drives it.
pub(super) fn set_up(options: &DiskOptions, lock: Option<&Dir>) -> Result<Granted, DiskError> {
    let mut notes = Vec::new();
    let ring = build(options, &mut notes)
        .map_err(|error| DiskError::from_errno(errno(&error), "set up io_uring"))?;
    let params = ring.params();
    if !(params.is_feature_nodrop()
        && params.is_feature_submit_stable()
        && params.is_feature_ext_arg())
    {
        return Err(DiskError::from_errno(libc::ENOSYS, "set up io_uring (too old a kernel)"));
    }
    let registered_files = register_files(&ring, options, lock, &mut notes);
    let (buffers, later) = memory(&ring, options, &mut notes);
    let mut probe = Probe::new();
    let probed = ring.submitter().register_probe(&mut probe).is_ok();
    let writev_fixed =
        !options.restrict.plain_writev && probed && probe.is_supported(opcode::WritevFixed::CODE);
    let some = !buffers.is_empty() || !later.is_empty();
    if some && !writev_fixed {
        notes.push("Writes of several blocks do not use registered memory.".to_owned());
    }
    Ok(Granted {
        ring,
        registered_files,
        buffers,
        later,
        writev_fixed,
        in_flight_max: options.restrict.in_flight_max.unwrap_or(IN_FLIGHT_MAX).max(1) as usize,
        notes,
    })
}

/// Tries the set-up flags from the best combination to none.
fn build(options: &DiskOptions, notes: &mut Vec<String>) -> io::Result<IoUring> {
    /// How much is asked for.
    #[derive(Clone, Copy, PartialEq, PartialOrd)]
    enum Ask {
        Nothing,
        Cooperative,
        SingleIssuer,
        DeferTaskrun,
    }
    // A linked pair needs two entries.
    let submission = options.restrict.submission_entries.unwrap_or(SUBMISSION_ENTRIES).max(2);
    let completion = options.restrict.completion_entries.unwrap_or(COMPLETION_ENTRIES);
    let attempt = |ask: Ask| {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_cqsize(completion.max(submission));
        if ask >= Ask::Cooperative {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        }
        if ask >= Ask::SingleIssuer {
            builder.setup_single_issuer();
        }
        if ask >= Ask::DeferTaskrun {
            builder.setup_defer_taskrun();
        }
        builder.build(submission)
    };
    let steps = [
        (Ask::DeferTaskrun, "io_uring without DEFER_TASKRUN."),
        (Ask::SingleIssuer, "io_uring without SINGLE_ISSUER."),
        (Ask::Cooperative, "io_uring without COOP_TASKRUN."),
    ];
    for (ask, without) in steps {
        let forbidden = options.restrict.no_ring_flags
            || (options.restrict.no_defer_taskrun && ask == Ask::DeferTaskrun);
        if !forbidden {
            match attempt(ask) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                other => return other,
            }
        }
        notes.push(without.to_owned());
    }
    attempt(Ask::Nothing)
}

/// Registers a table of files, with the lock's directory in its last place.
fn register_files(
    ring: &IoUring,
    options: &DiskOptions,
    lock: Option<&Dir>,
    notes: &mut Vec<String>,
) -> bool {
    let registered = if options.restrict.no_registered_files {
        Err("switched off by the options".to_owned())
    } else {
        ring.submitter().register_files_sparse(FileId::LIMIT + 1).map_err(|e| e.to_string())
    };
    let locked = registered.and_then(|()| match lock {
        None => Ok(()),
        Some(lock) => ring
            .submitter()
            .register_files_update(FileId::LIMIT, &[lock.as_fd().as_raw_fd()])
            .map(drop)
            .map_err(|error| {
                // Without the lock the table is of no use for it; the files can do without.
                let _ = ring.submitter().unregister_files();
                error.to_string()
            }),
    });
    if let Err(why) = &locked {
        notes.push(format!("Files are not registered with the ring ({why})."));
        if lock.is_some() {
            notes.push(
                "The lock of the log may end before the last write of a process that was killed."
                    .to_owned(),
            );
        }
    }
    locked.is_ok()
}

/// Memory that is registered with the ring.
#[derive(Default)]
pub(super) struct Buffers {
    ranges: Vec<Range>,
    /// Keeps the mappings alive while they are registered.
    _pools: Vec<BlockPool>,
}

struct Range {
    pool_id: u32,
    start: usize,
    bytes: usize,
    /// The pool is registered in pieces of this size, a multiple of its blocks.
    piece_bytes: usize,
    first_index: u16,
}

/// Registers the memory of the pools now, or says which are to be registered later, or why not.
fn memory(
    ring: &IoUring,
    options: &DiskOptions,
    notes: &mut Vec<String>,
) -> (Buffers, Vec<BlockPool>) {
    let pools = &options.pools;
    if options.restrict.no_registered_buffers {
        notes.push("Memory is not registered with the ring (switched off).".to_owned());
        return (Buffers::default(), Vec::new());
    }
    if !pools.iter().all(BlockPool::is_resident) {
        let bytes: u64 = pools.iter().map(|pool| pool.mapping().1 as u64).sum();
        match sys::lockable_bytes() {
            None => return (Buffers::default(), pools.clone()),
            // The kernel would find the memory first, and refuse then.
            Some(limit) if limit < bytes => {
                notes.push(not_registered(LOCK_LIMIT));
                return (Buffers::default(), Vec::new());
            }
            Some(_) => {}
        }
    }
    (Buffers::register(ring, pools, notes), Vec::new())
}

const LOCK_LIMIT: &str = "the limit for locked memory is met";

fn not_registered(why: &str) -> String {
    format!(
        "Memory is not registered with the ring ({why}): each write costs a little more CPU time; \
         raise the limit (ulimit -l, LimitMEMLOCK=)."
    )
}

impl Buffers {
    /// Registers all that the pools have: pages that are not there yet are found now.
    pub(super) fn register(ring: &IoUring, pools: &[BlockPool], notes: &mut Vec<String>) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        let mut vectors: Vec<libc::iovec> = Vec::new();
        for pool in pools {
            let (start, bytes) = pool.mapping();
            let per_piece = BUFFER_BYTES_MAX / pool.block_bytes();
            let known = ranges.iter().any(|range| range.pool_id == pool.id());
            let Ok(first_index) = u16::try_from(vectors.len()) else {
                break;
            };
            if per_piece == 0 || known {
                continue;
            }
            let piece_bytes = per_piece * pool.block_bytes();
            let mut at = 0;
            while at < bytes {
                let len = piece_bytes.min(bytes - at);
                let base = start.wrapping_add(at).cast();
                vectors.push(libc::iovec { iov_base: base, iov_len: len });
                at += len;
            }
            let start = start as usize;
            ranges.push(Range { pool_id: pool.id(), start, bytes, piece_bytes, first_index });
        }
        if vectors.is_empty() {
            return Self::default();
        }
        // SAFETY: the vectors describe whole mappings of pools that `_pools` keeps alive; the ring
        // is dropped no later than this value's owner drops it, and the kernel pins the pages.
        let registered = unsafe { ring.submitter().register_buffers(&vectors) };
        if let Err(error) = registered {
            let why = match error.raw_os_error() {
                Some(libc::ENOMEM) => LOCK_LIMIT.to_owned(),
                _ => error.to_string(),
            };
            notes.push(not_registered(&why));
            return Self::default();
        }
        Self { ranges, _pools: pools.to_vec() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    #[cfg(test)]
    pub(super) fn has(&self, pool: &BlockPool) -> bool {
        self.ranges.iter().any(|range| range.pool_id == pool.id())
    }

    /// The registered buffer that a slice's block lies in.
    pub(super) fn index(&self, slice: &Slice) -> Option<u16> {
        let pool_id = slice.block.pool_id();
        let range = self.ranges.iter().find(|range| range.pool_id == pool_id)?;
        let at = (slice.block.as_ptr() as usize).checked_sub(range.start)?;
        if at >= range.bytes {
            return None;
        }
        u16::try_from(usize::from(range.first_index) + at / range.piece_bytes).ok()
    }

    /// The registered buffer that all the slices lie in, if it is one.
    pub(super) fn common_index(&self, slices: &[Slice]) -> Option<u16> {
        let (first, rest) = slices.split_first()?;
        let index = self.index(first)?;
        rest.iter().all(|slice| self.index(slice) == Some(index)).then_some(index)
    }
}
