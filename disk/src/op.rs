//! Operations, completions, and the trait that joins them.

use std::fmt;
use std::time::Duration;

use crate::block::Block;
use crate::waker::Waker;

/// Names one operation in flight. Chosen by the caller; the disk only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub u64);

/// Names one open file. Chosen by the caller, below [`FileId::LIMIT`]; free again after
/// [`Op::Close`] has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

impl FileId {
    /// File ids are below this number: a disk may keep a fixed table of them.
    pub const LIMIT: u32 = 64;
}

/// The name of a file in the disk's directory: 1 to 64 bytes of `a-z 0-9 . - _`, not beginning
/// with a dot. So a name can never be a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(String);

impl FileName {
    /// Checks and takes a name; `None` when it is not one.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let fits = (1..=64).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        fits.then_some(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a write is to make durable before it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing: the device has accepted the bytes when the write completes.
    No,
    /// The bytes of this write, whichever primitive the disk uses (RWF_DSYNC, or a linked
    /// fdatasync). Says nothing about any other write.
    Own,
    /// The bytes of this write and of every write to the same file that had completed before this
    /// one was submitted: a covering fdatasync.
    File,
}

/// A part of a write: the first `len` bytes of `block`.
#[derive(Debug)]
pub struct Slice {
    /// The memory.
    pub block: Block,
    /// How many bytes of it; a multiple of [`DiskFacts::align_bytes`].
    pub len: usize,
}

/// The content of a file that is derived from other files: the bytes, or how to make them.
///
/// What is made is made where the operation is carried out: on the thread for names, where a disk
/// has one, so that whoever submits it is not held up by the making.
pub enum Content {
    /// The bytes.
    Bytes(Vec<u8>),
    /// Makes the bytes. Called at most once.
    Made(Box<dyn FnOnce() -> Vec<u8> + Send>),
}

impl Content {
    /// Content that `make` makes when the operation is carried out.
    pub fn made_by(make: impl FnOnce() -> Vec<u8> + Send + 'static) -> Self {
        Self::Made(Box::new(make))
    }

    /// The bytes, made now if they were not there yet.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Made(make) => make(),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Content({} bytes)", bytes.len()),
            Self::Made(_) => f.write_str("Content(to be made)"),
        }
    }
}

/// One operation. Offsets and lengths of `Write` and `Read` are multiples of
/// [`DiskFacts::align_bytes`].
///
/// Operations on data (`Write`, `Sync`, `Read`) may complete in any order. Operations on names
/// (all others) are carried out one after another in the order of submission, possibly on another
/// thread, and do not delay operations on data.
#[derive(Debug)]
pub enum Op {
    /// Writes the slices one behind the other at `offset`. Completes with [`Done::Wrote`].
    Write {
        /// An open, writable file.
        file: FileId,
        /// Where the first slice goes, in bytes.
        offset: u64,
        /// At least one slice.
        data: Vec<Slice>,
        /// What is durable when it completes.
        flush: Flush,
    },
    /// fdatasync: covers every write to this file that had completed before this was submitted.
    /// Completes with [`Done::Synced`].
    Sync {
        /// An open, writable file.
        file: FileId,
    },
    /// Reads `len` bytes at `offset` into the front of `block`; fewer only at the end of the file.
    /// Completes with [`Done::Read`].
    Read {
        /// An open file.
        file: FileId,
        /// Where to begin, in bytes.
        offset: u64,
        /// Where to put it.
        block: Block,
        /// How many bytes, at most the block's length.
        len: usize,
    },
    /// Opens a file that is there. Symbolic links are not followed; what is no regular file is
    /// refused. Completes with [`Done::Opened`].
    Open {
        /// The id it shall have; unused so far.
        file: FileId,
        /// Its name.
        name: FileName,
        /// Whether it will be written.
        write: bool,
    },
    /// Creates a file (mode 0600) that must not be there, `bytes` long, filled with zeros that are
    /// really written (no unwritten extents), and flushes it; open for writing afterwards. On
    /// failure no file is left behind. Its *name* is durable only after a [`Op::SyncDir`].
    /// Completes with [`Done::Opened`].
    Create {
        /// The id it shall have; unused so far.
        file: FileId,
        /// Its name.
        name: FileName,
        /// Its length; a multiple of the alignment.
        bytes: u64,
    },
    /// Closes a file. No operation on it may be in flight. Completes with [`Done::Closed`].
    Close {
        /// The file.
        file: FileId,
    },
    /// Renames a file, replacing what has the name `to`. Durable after [`Op::SyncDir`].
    /// Completes with [`Done::Named`].
    Rename {
        /// The name now.
        from: FileName,
        /// The name then.
        to: FileName,
    },
    /// Removes a file. Durable after [`Op::SyncDir`]. Completes with [`Done::Named`].
    Remove {
        /// Its name.
        name: FileName,
    },
    /// Atomically and durably replaces the content of a small file, creating it if need be: after
    /// a crash the old or the new content is there, whole; once completed, the new one. (Written
    /// to a file beside it, flushed, renamed over it, directory flushed.)
    /// Completes with [`Done::Named`].
    Replace {
        /// Its name.
        name: FileName,
        /// The whole new content.
        content: Vec<u8>,
    },
    /// Replaces the content of a small file as `Replace` does, but flushes nothing: who reads it
    /// sees the old content or the new one, whole, but after a crash it may be missing, old, empty
    /// or torn. For what is derived from other files and checked before it is believed.
    /// Completes with [`Done::Named`].
    Store {
        /// Its name.
        name: FileName,
        /// The whole new content.
        content: Content,
    },
    /// Reads the whole of a small file. Completes with [`Done::Loaded`].
    Load {
        /// Its name.
        name: FileName,
        /// A longer file is an error, and is not read.
        limit_bytes: u64,
    },
    /// Makes all names of the directory durable. Completes with [`Done::Named`].
    SyncDir,
    /// Lists the files of the directory, sorted by name; whatever is no regular file with a valid
    /// [`FileName`] is counted apart. Completes with [`Done::Listed`].
    List,
}

/// One listed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: FileName,
    /// Its length.
    pub bytes: u64,
}

/// What a successful operation brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// A write: all of it, flushed as was asked.
    Wrote,
    /// A flush.
    Synced,
    /// A read of so many bytes: fewer than asked only at the end of the file.
    Read(usize),
    /// An open or created file of so many bytes.
    Opened {
        /// Its length.
        bytes: u64,
    },
    /// A closed file.
    Closed,
    /// A change of names.
    Named,
    /// The content of a small file.
    Loaded(Vec<u8>),
    /// The files of the directory.
    Listed {
        /// Regular files with a valid name, sorted by name.
        files: Vec<Listed>,
        /// How many other entries there are.
        others: usize,
    },
}

/// The end of one operation.
#[derive(Debug)]
pub struct Completion {
    /// Which operation.
    pub tag: Tag,
    /// Its blocks, in the order in which they went in; also after a failure.
    pub slices: Vec<Slice>,
    /// What came of it. After a failed write or flush nothing is known about the bytes that it
    /// was to write, and nothing about any write to that file that no earlier flush has covered.
    pub result: Result<Done, DiskError>,
}

/// Why an operation failed, as far as a caller can do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskErrorKind {
    /// The device or the quota is full. Free space and try again.
    NoSpace,
    /// There is no file of that name.
    NotFound,
    /// There is a file of that name.
    Exists,
    /// No permission, or a read-only file system.
    Access,
    /// A limit of this process: descriptors, locked memory, file size, memory.
    Limit,
    /// It is not what it should be: a symbolic link, no regular file, a file over the limit.
    Unexpected,
    /// The device failed.
    Io,
}

/// A failed operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    /// What the caller can do about it.
    pub kind: DiskErrorKind,
    /// What was being done, in words ("write", "flush", "create seg-…").
    pub doing: String,
    /// The system's error number, where there was one.
    pub errno: Option<i32>,
}

impl DiskError {
    /// Puts a system error number into its class.
    pub fn from_errno(errno: i32, doing: impl Into<String>) -> Self {
        let kind = match errno {
            libc::ENOSPC | libc::EDQUOT => DiskErrorKind::NoSpace,
            libc::ENOENT => DiskErrorKind::NotFound,
            libc::EEXIST => DiskErrorKind::Exists,
            libc::EACCES | libc::EPERM | libc::EROFS => DiskErrorKind::Access,
            libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EFBIG => DiskErrorKind::Limit,
            libc::ELOOP | libc::EISDIR | libc::ENOTDIR => DiskErrorKind::Unexpected,
            _ => DiskErrorKind::Io,
        };
        Self { kind, doing: doing.into(), errno: Some(errno) }
    }

    /// An error that no system call gave.
    pub fn new(kind: DiskErrorKind, doing: impl Into<String>) -> Self {
        Self { kind, doing: doing.into(), errno: None }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.doing)?;
        match self.errno {
            Some(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(errno)),
            None if self.kind == DiskErrorKind::Access => {
                f.write_str("no permission, or a read-only file system")
            }
            None => write!(f, "{:?}", self.kind),
        }
    }
}

impl std::error::Error for DiskError {}

/// What a disk knows of itself; nothing of it changes while it is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// "io_uring", "blocking", "memory" or "simulated".
    pub kind: &'static str,
    /// Offsets, lengths and addresses of data operations are multiples of this: the larger of the
    /// physical block and the direct-I/O alignment. A power of two, at most 4096.
    pub align_bytes: u32,
    /// Whether writes really bypass the page cache. False on tmpfs, on overlayfs, where O_DIRECT
    /// is refused, and where it is accepted but buffered all the same.
    pub direct: bool,
    /// The primitive behind [`Flush::Own`]: "RWF_DSYNC", "linked fdatasync", "fdatasync".
    pub commit_primitive: &'static str,
    /// The file system's name, or its magic number in hexadecimal.
    pub file_system: String,
    /// What is missing or falls short, in words, one sentence each, for whoever runs the log.
    pub notes: Vec<String>,
}

/// How long [`Disk::reap`] may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until something completes or [`Waker::wake`] is called.
    Any,
    /// The same, but at most this long.
    AtMost(Duration),
}

/// A place that carries out operations. One thread drives it.
pub trait Disk {
    /// Takes an operation. Never fails and never waits for the device: what goes wrong comes with
    /// the completion. (A disk that has no other way may carry operations out inside
    /// [`Disk::reap`].)
    fn submit(&mut self, tag: Tag, op: Op);

    /// As [`Disk::submit`], for a caller that has nothing else in flight and waits for this one
    /// operation: a disk then may do without the threads that it has for others.
    fn submit_alone(&mut self, tag: Tag, op: Op) {
        self.submit(tag, op);
    }

    /// Sends what has been submitted to the device, and waits for nothing. A disk that cannot do
    /// that leaves it to the next [`Disk::reap`]. Worth calling before other work.
    fn send(&mut self) {}

    /// Sends what has been submitted to the device, waits as told, and appends every completion
    /// there is to `out`. Returns early, perhaps with nothing, when the waker was called.
    /// With [`Wait::Any`] and nothing in flight it waits for the waker alone.
    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>);

    /// Where all that is to be done is one write with a flush, which has not been sent yet: carries
    /// it out on the calling thread, which sleeps until the device is done and hears no waker
    /// meanwhile, and appends its completion to `out`. Else false, and nothing has changed.
    ///
    /// For who would wait for it anyway: one call takes less than a ring, where a flushed write
    /// goes through other threads of the kernel. A disk that has nothing to gain says no.
    fn carry_out(&mut self, _out: &mut Vec<Completion>) -> bool {
        false
    }

    /// How many operations have been submitted and not yet reaped.
    fn in_flight(&self) -> usize;

    /// A handle that makes a concurrent or the next [`Disk::reap`] return at once.
    fn waker(&self) -> Waker;

    /// What this disk is.
    fn facts(&self) -> &DiskFacts;
}

/// Carries out one operation and waits for it. For callers that have nothing else in flight:
/// opening, recovery, tools.
pub fn run(disk: &mut dyn Disk, op: Op) -> Completion {
    debug_assert_eq!(disk.in_flight(), 0, "run() is for a disk with nothing in flight");
    disk.submit_alone(Tag(u64::MAX), op);
    let mut out = Vec::with_capacity(1);
    while out.is_empty() {
        disk.reap(Wait::Any, &mut out);
    }
    out.swap_remove(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_never_a_path() {
        for good in ["manifest", "0000000000000001.seg", "a", "x-y_z.0"] {
            assert!(FileName::new(good).is_some(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "..", ".hidden", "a/b", "A", "é", "a b", "a\0", long.as_str()] {
            assert!(FileName::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn errors_are_classed_by_number_not_by_text() {
        assert_eq!(DiskError::from_errno(libc::ENOSPC, "write").kind, DiskErrorKind::NoSpace);
        assert_eq!(DiskError::from_errno(libc::EIO, "write").kind, DiskErrorKind::Io);
        assert_eq!(DiskError::from_errno(libc::ECANCELED, "flush").kind, DiskErrorKind::Io);
        assert_eq!(DiskError::from_errno(libc::EROFS, "create").kind, DiskErrorKind::Access);
    }
}
