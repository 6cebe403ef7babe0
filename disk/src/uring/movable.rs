//! An io_uring disk for readers, which their users may move from thread to thread.

use super::UringDisk;
use crate::dir::Dir;
use crate::op::{Completion, Disk, DiskError, DiskFacts, Op, Tag, Wait};
use crate::options::DiskOptions;
use crate::waker::Waker;

/// A [`UringDisk`] whose ring was set up without the flags that bind it to one thread. Still one
/// thread at a time drives it, which `&mut` sees to.
#[derive(Debug)]
pub struct MovableUringDisk(UringDisk);

// SAFETY: `UringDisk` is not `Send` because a ring with SINGLE_ISSUER or DEFER_TASKRUN accepts one
// thread only, not because of anything in memory: its parts are owned values, and the queues that
// it shares with the kernel may be used from any thread that has the ring to itself. This ring was
// set up with neither flag (`no_ring_flags`). Should the thread that submitted an operation end
// before it completes, the kernel completes it as cancelled, and the disk sends it again.
unsafe impl Send for MovableUringDisk {}

impl MovableUringDisk {
    /// A disk on the files of `dir`, for reading.
    ///
    /// Fails as [`UringDisk::open`] does.
    pub fn open(dir: &Dir, options: &DiskOptions) -> Result<Self, DiskError> {
        let mut options = options.clone();
        options.restrict.no_ring_flags = true;
        UringDisk::open(dir, None, &options).map(Self)
    }
}

impl Disk for MovableUringDisk {
    fn submit(&mut self, tag: Tag, op: Op) {
        self.0.submit(tag, op);
    }

    fn send(&mut self) {
        Disk::send(&mut self.0);
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        self.0.reap(wait, out);
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }

    fn facts(&self) -> &DiskFacts {
        self.0.facts()
    }
}
