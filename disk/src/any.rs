//! Opening a disk of whichever kind is to be had.

use std::os::fd::BorrowedFd;

use crate::blocking::BlockingDisk;
use crate::dir::Dir;
use crate::memory::MemoryDisk;
use crate::op::{Completion, Disk, DiskError, DiskFacts, Op, Tag, Wait};
use crate::options::{DiskOptions, IoKind};
use crate::uring::{MovableUringDisk, UringDisk};
use crate::waker::Waker;

/// A disk of whichever kind.
#[derive(Debug)]
pub enum AnyDisk {
    /// On io_uring.
    Uring(Box<UringDisk>),
    /// On blocking system calls.
    Blocking(Box<BlockingDisk>),
    /// In memory.
    Memory(Box<MemoryDisk>),
}

/// Opens a disk on the files of `dir`, on the thread that will drive it. `lock` is a locked
/// directory whose lock the disk keeps alive as long as it has something in flight.
///
/// With [`IoKind::Auto`], a refused io_uring leads to a blocking disk whose facts say why. Fails
/// when the directory cannot be looked at, or when [`IoKind::Uring`] is refused.
pub fn open(
    dir: &Dir,
    lock: Option<&Dir>,
    kind: IoKind,
    options: &DiskOptions,
) -> Result<AnyDisk, DiskError> {
    let why = match kind {
        IoKind::Blocking => None,
        IoKind::Uring => {
            return Ok(AnyDisk::Uring(Box::new(UringDisk::open(dir, lock, options)?)));
        }
        IoKind::Auto => match UringDisk::open(dir, lock, options) {
            Ok(disk) => return Ok(AnyDisk::Uring(Box::new(disk))),
            Err(error) => Some(error),
        },
    };
    let mut disk = BlockingDisk::open(dir, lock, options)?;
    if let Some(why) = why {
        let remedy = match why.errno {
            Some(libc::ENOMEM) => "raise the limit for locked memory (ulimit -l, LimitMEMLOCK=)",
            _ => "allow it (sysctl kernel.io_uring_disabled, or the container's seccomp profile)",
        };
        disk.add_note(format!(
            "io_uring is refused ({why}): blocking calls are used, at more CPU time and less at once; \
             {remedy}."
        ));
    }
    Ok(AnyDisk::Blocking(Box::new(disk)))
}

/// Opens a disk for reading that may be moved from thread to thread: on io_uring where that is to be
/// had and wanted, else on blocking calls.
///
/// Fails when the directory cannot be looked at.
pub fn open_movable(
    dir: &Dir,
    kind: IoKind,
    options: &DiskOptions,
) -> Result<Box<dyn Disk + Send>, DiskError> {
    if kind != IoKind::Blocking
        && let Ok(disk) = MovableUringDisk::open(dir, options)
    {
        return Ok(Box::new(disk));
    }
    Ok(Box::new(BlockingDisk::open(dir, None, options)?))
}

impl AnyDisk {
    /// The descriptor that becomes readable when something is there for a caller that sleeps
    /// elsewhere, in its own event loop: see [`AnyDisk::about_to_sleep`]. Fails when there is no
    /// descriptor to be had.
    pub fn poll_fd(&self) -> Result<BorrowedFd<'_>, DiskError> {
        match self {
            Self::Uring(disk) => disk.poll_fd(),
            Self::Blocking(disk) => disk.poll_fd(),
            Self::Memory(disk) => disk.poll_fd(),
        }
    }

    /// Announces that the caller is about to sleep until [`AnyDisk::poll_fd`] is readable: what
    /// completes from now on, and whoever uses the waker, makes it so. False when the caller must
    /// not sleep, because something is there already. Ends with the next `reap`.
    pub fn about_to_sleep(&mut self) -> bool {
        match self {
            Self::Uring(disk) => disk.about_to_sleep(),
            Self::Blocking(disk) => disk.about_to_sleep(),
            Self::Memory(disk) => disk.about_to_sleep(),
        }
    }
}

impl Disk for AnyDisk {
    fn submit(&mut self, tag: Tag, op: Op) {
        match self {
            Self::Uring(disk) => disk.submit(tag, op),
            Self::Blocking(disk) => disk.submit(tag, op),
            Self::Memory(disk) => disk.submit(tag, op),
        }
    }

    fn submit_alone(&mut self, tag: Tag, op: Op) {
        match self {
            Self::Uring(disk) => disk.submit_alone(tag, op),
            Self::Blocking(disk) => disk.submit_alone(tag, op),
            Self::Memory(disk) => disk.submit_alone(tag, op),
        }
    }

    fn send(&mut self) {
        match self {
            Self::Uring(disk) => Disk::send(&mut **disk),
            Self::Blocking(disk) => disk.send(),
            Self::Memory(disk) => disk.send(),
        }
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        match self {
            Self::Uring(disk) => disk.reap(wait, out),
            Self::Blocking(disk) => disk.reap(wait, out),
            Self::Memory(disk) => disk.reap(wait, out),
        }
    }

    fn carry_out(&mut self, out: &mut Vec<Completion>) -> bool {
        match self {
            Self::Uring(disk) => disk.carry_out(out),
            Self::Blocking(disk) => disk.carry_out(out),
            Self::Memory(disk) => disk.carry_out(out),
        }
    }

    fn in_flight(&self) -> usize {
        match self {
            Self::Uring(disk) => disk.in_flight(),
            Self::Blocking(disk) => disk.in_flight(),
            Self::Memory(disk) => disk.in_flight(),
        }
    }

    fn waker(&self) -> Waker {
        match self {
            Self::Uring(disk) => disk.waker(),
            Self::Blocking(disk) => disk.waker(),
            Self::Memory(disk) => disk.waker(),
        }
    }

    fn facts(&self) -> &DiskFacts {
        match self {
            Self::Uring(disk) => disk.facts(),
            Self::Blocking(disk) => disk.facts(),
            Self::Memory(disk) => disk.facts(),
        }
    }
}
