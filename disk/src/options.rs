//! What the opener of a disk may choose.

use crate::block::BlockPool;
use crate::op::FileName;

/// How a write that is flushed by itself ([`crate::Flush::Own`]) is made durable. Which is faster
/// differs between devices: see [`crate::profile_disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primitive {
    /// The write itself carries RWF_DSYNC.
    Dsync,
    /// The write is linked with an fdatasync.
    LinkedSync,
}

/// Which kind of disk to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// io_uring; where it is refused, blocking calls, and a note that says why.
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Blocking calls.
    Blocking,
}

/// How a disk is opened.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The pools whose blocks will be written and read most: their memory is registered with the
    /// ring. Blocks of other pools work too, a little slower. Where the process may lock as much
    /// memory as it likes, and pools are not resident yet, it is registered once they are.
    pub pools: Vec<BlockPool>,
    /// The primitive behind [`crate::Flush::Own`].
    pub primitive: Primitive,
    /// Whether operations on names run on a thread of their own, so that they never delay data:
    /// right for a writer. Without it they are carried out inside `reap`: right for tools.
    pub names_thread: bool,
    /// A file that is there, if one is known: what direct I/O is like is asked of it. Else a nameless file
    /// is made for that.
    pub known_file: Option<FileName>,
    /// Whether to bypass the page cache where the file system really does that.
    pub direct: bool,
    /// What not to use although the kernel offers it.
    pub restrict: Restrict,
}

impl Default for DiskOptions {
    /// No pools, RWF_DSYNC, no names thread, direct, nothing restricted.
    fn default() -> Self {
        Self {
            pools: Vec::new(),
            primitive: Primitive::Dsync,
            names_thread: false,
            known_file: None,
            direct: true,
            restrict: Restrict::default(),
        }
    }
}

/// Switches off what the kernel would offer: for tests of each fallback, and for diagnosis.
#[derive(Clone, Debug, Default)]
pub struct Restrict {
    /// Register no memory.
    pub no_registered_buffers: bool,
    /// Register no files.
    pub no_registered_files: bool,
    /// Do not ask for DEFER_TASKRUN.
    pub no_defer_taskrun: bool,
    /// Ask for no set-up flag at all.
    pub no_ring_flags: bool,
    /// Write several slices with plain vectored writes, never from registered memory.
    pub plain_writev: bool,
    /// Entries of the submission queue.
    pub submission_entries: Option<u32>,
    /// Entries of the completion queue.
    pub completion_entries: Option<u32>,
    /// How many operations may be with the kernel at once.
    pub in_flight_max: Option<u32>,
}
