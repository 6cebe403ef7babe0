//! Where the files of a log lie: in a directory of a file system, or in memory. Whoever opens a log
//! need not know which.

use std::time::Duration;

use crate::any::AnyDisk;
use crate::dir::Dir;
use crate::memory::{MemoryDir, MemoryDisk};
use crate::names::Runner;
use crate::op::{Disk, DiskError, Done, FileName, Op, run};
use crate::options::{DiskOptions, IoKind};

/// An open directory of either kind. Clones share it, and its lock.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file system.
    Dir(Dir),
    /// In memory.
    Memory(MemoryDir),
}

impl Place {
    /// The directory, unless it is in memory.
    pub fn as_dir(&self) -> Option<&Dir> {
        match self {
            Self::Dir(dir) => Some(dir),
            Self::Memory(_) => None,
        }
    }

    fn as_memory(&self) -> Option<&MemoryDir> {
        match self {
            Self::Dir(_) => None,
            Self::Memory(dir) => Some(dir),
        }
    }

    /// See [`Dir::subdir`].
    pub fn subdir(&self, name: &FileName, create: bool) -> Result<Self, DiskError> {
        Ok(match self {
            Self::Dir(dir) => Self::Dir(dir.subdir(name, create)?),
            Self::Memory(dir) => Self::Memory(dir.subdir(name, create)?),
        })
    }

    /// See [`Dir::entries`].
    pub fn entries(&self) -> Result<Vec<String>, DiskError> {
        match self {
            Self::Dir(dir) => dir.entries(),
            Self::Memory(dir) => dir.entries(),
        }
    }

    /// See [`Dir::is_writable`].
    pub fn is_writable(&self) -> Result<bool, DiskError> {
        match self {
            Self::Dir(dir) => dir.is_writable(),
            Self::Memory(_) => Ok(true),
        }
    }

    /// See [`Dir::lock_exclusive`]. In memory nothing outlives its owner, so nothing is waited for.
    pub fn lock_exclusive(&self, at_most: Duration) -> Result<bool, DiskError> {
        match self {
            Self::Dir(dir) => dir.lock_exclusive(at_most),
            Self::Memory(dir) => dir.try_lock_exclusive(),
        }
    }

    /// See [`Dir::hold_writer_mark`].
    pub fn hold_writer_mark(&self) -> Result<(), DiskError> {
        match self {
            Self::Dir(dir) => dir.hold_writer_mark(),
            Self::Memory(dir) => dir.hold_writer_mark(),
        }
    }

    /// See [`Dir::has_writer`].
    pub fn has_writer(&self) -> Option<bool> {
        match self {
            Self::Dir(dir) => dir.has_writer(),
            Self::Memory(dir) => dir.has_writer(),
        }
    }

    /// The content of a small file, as [`Op::Load`] brings it, for callers that need no disk for more.
    pub fn load(&self, name: FileName, limit_bytes: u64) -> Result<Vec<u8>, DiskError> {
        match self {
            Self::Dir(dir) => Runner::new(dir.clone(), false, None).load(&name, limit_bytes),
            Self::Memory(dir) => match run(&mut dir.disk(), Op::Load { name, limit_bytes }).result?
            {
                Done::Loaded(content) => Ok(content),
                _ => Ok(Vec::new()),
            },
        }
    }

    /// Opens a disk on its files, on the thread that will drive it; see [`crate::open`]. In memory
    /// there is one kind of disk only.
    pub fn disk(
        &self,
        lock: Option<&Self>,
        kind: IoKind,
        options: &DiskOptions,
    ) -> Result<AnyDisk, DiskError> {
        match self {
            Self::Dir(dir) => crate::any::open(dir, lock.and_then(Self::as_dir), kind, options),
            Self::Memory(dir) => {
                let disk = MemoryDisk::open(dir, lock.and_then(Self::as_memory));
                Ok(AnyDisk::Memory(Box::new(disk)))
            }
        }
    }

    /// Opens a disk for reading its files that may be moved from thread to thread; see
    /// [`crate::open_movable`].
    pub fn movable_disk(
        &self,
        kind: IoKind,
        options: &DiskOptions,
    ) -> Result<Box<dyn Disk + Send>, DiskError> {
        match self {
            Self::Dir(dir) => crate::any::open_movable(dir, kind, options),
            Self::Memory(dir) => Ok(Box::new(dir.disk())),
        }
    }
}

impl From<Dir> for Place {
    fn from(dir: Dir) -> Self {
        Self::Dir(dir)
    }
}
