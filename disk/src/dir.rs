//! An open directory: the only place where a path enters this crate.
//!
//! Everything below it is reached through its descriptor and single names, so nothing can lead out
//! of it; symbolic links inside it are never followed. The lock of a log is a lock on the open
//! directory itself: no lock file that somebody could delete.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::direct::Directness;
use crate::op::{DiskError, DiskErrorKind, FileName};
use crate::planted::{Bug, planted};
use crate::sys;

const DIRECTORY_MODE: libc::mode_t = 0o700;

/// An open directory. Clones share the descriptor, and with it the lock and the writer's mark.
#[derive(Clone, Debug)]
pub struct Dir(Arc<Open>);

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    /// The writer's mark has a descriptor of its own, which no ring ever sees: what a ring holds
    /// ends a little after the process that was killed.
    mark: OnceLock<OwnedFd>,
    /// Whether direct I/O is real here, once somebody has looked.
    directness: OnceLock<Directness>,
}

impl Dir {
    fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(Open { fd, mark: OnceLock::new(), directness: OnceLock::new() }))
    }

    pub(crate) fn directness(&self) -> &OnceLock<Directness> {
        &self.0.directness
    }

    /// Opens a directory that is there. The path itself may be a symbolic link.
    ///
    /// Fails with [`DiskErrorKind::NotFound`], [`DiskErrorKind::Access`], or
    /// [`DiskErrorKind::Unexpected`] when it is no directory.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let doing = || format!("open directory {}", path.display());
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| DiskError::new(DiskErrorKind::Unexpected, doing()))?;
        let fd = sys::open_path(&name, libc::O_RDONLY | libc::O_DIRECTORY)
            .map_err(|errno| DiskError::from_errno(errno, doing()))?;
        Ok(Self::new(fd))
    }

    /// Opens a directory, creating it (mode 0700 whatever the umask) and its missing parents (with
    /// the usual mode). The names of all that was created are durable on return.
    pub fn create_all(path: &Path) -> Result<Self, DiskError> {
        let failed = |error: &std::io::Error| {
            let doing = format!("create directory {}", path.display());
            DiskError::from_errno(error.raw_os_error().unwrap_or(libc::EINVAL), doing)
        };
        let missing: Vec<&Path> = path
            .ancestors()
            .take_while(|at| !at.as_os_str().is_empty() && std::fs::metadata(at).is_err())
            .collect();
        for at in missing.into_iter().rev() {
            match std::fs::create_dir(at) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(&error)),
            }
            if at == path {
                let created = Self::open(at)?;
                sys::change_mode(created.as_fd(), DIRECTORY_MODE)
                    .map_err(|errno| failed(&std::io::Error::from_raw_os_error(errno)))?;
            }
            let parent = match at.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            Self::open(parent)?.sync()?;
        }
        Self::open(path)
    }

    /// Opens the directory of that name in this one; creates it (mode 0700, its name durable) when
    /// it is missing and `create` is set.
    ///
    /// Fails with [`DiskErrorKind::Unexpected`] when the name is a symbolic link or a file.
    pub fn subdir(&self, name: &FileName, create: bool) -> Result<Self, DiskError> {
        let doing = |errno| DiskError::from_errno(errno, format!("open directory {name}"));
        let c_name = c_name(name);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let created = create
            && match sys::mkdir_at(self.as_fd(), &c_name, DIRECTORY_MODE) {
                Ok(()) => true,
                Err(libc::EEXIST) => false,
                Err(errno) => return Err(doing(errno)),
            };
        let fd = sys::open_at(self.as_fd(), &c_name, flags, 0).map_err(doing)?;
        if created {
            sys::change_mode(fd.as_fd(), DIRECTORY_MODE).map_err(doing)?;
            self.sync()?;
        }
        Ok(Self::new(fd))
    }

    /// Makes all names of this directory durable.
    pub fn sync(&self) -> Result<(), DiskError> {
        sys::sync_all(self.as_fd())
            .map_err(|errno| DiskError::from_errno(errno, "flush the directory"))
    }

    /// The names of everything in the directory, sorted; those that are no text are given with
    /// replacement characters.
    pub fn entries(&self) -> Result<Vec<String>, DiskError> {
        let mut names: Vec<String> =
            self.raw_entries()?.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(crate) fn raw_entries(&self) -> Result<Vec<CString>, DiskError> {
        sys::entries(self.as_fd())
            .map_err(|errno| DiskError::from_errno(errno, "list the directory"))
    }

    /// Whether there is nothing in the directory.
    pub fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.raw_entries()?.is_empty())
    }

    /// Takes the exclusive lock on this directory, without waiting: false when another open
    /// directory (of this process or another) holds it. It is held until the last clone and every
    /// disk that was given this directory are gone, also when the process dies.
    pub fn try_lock_exclusive(&self) -> Result<bool, DiskError> {
        if planted(Bug::ShareTheLock) {
            return Ok(true);
        }
        sys::try_lock(self.as_fd())
            .map_err(|errno| DiskError::from_errno(errno, "lock the directory"))
    }

    /// The same, trying again for at most this long: the writes of a process that has just died
    /// may still hold the lock.
    pub fn lock_exclusive(&self, at_most: Duration) -> Result<bool, DiskError> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if self.try_lock_exclusive()? {
                return Ok(true);
            }
            let left = at_most.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// Puts up the mark by which others see that the log is being written
    /// ([`Dir::has_writer`]): to be called by whoever holds the exclusive lock, before anything is
    /// changed. The mark goes with the last clone, and with the process: when a process that was
    /// killed has been waited for, its mark is gone, while its lock lasts until its last write has
    /// ended. Whoever cannot put it up, because the file system knows no such locks, may write all
    /// the same.
    ///
    /// Costs two system calls and a descriptor. Keeps nobody from anything.
    pub fn hold_writer_mark(&self) -> Result<(), DiskError> {
        let doing = |errno| DiskError::from_errno(errno, "mark the directory as being written");
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let mark = sys::open_at(self.as_fd(), c".", flags, 0).map_err(doing)?;
        sys::share_record_lock(mark.as_fd()).map_err(doing)?;
        let _ = self.0.mark.set(mark); // it was held already
        Ok(())
    }

    /// Whether some other open directory, of this process or another, holds the writer's mark;
    /// `None` where that cannot be told. Takes no lock and changes nothing: a writer that opens at
    /// the same moment never notices. Costs one system call.
    ///
    /// "No" means: at this instant no process writes, and what was acknowledged before is in the
    /// files. Writes that a killed process had in flight may still arrive, where nothing was before;
    /// a writer may begin right after. Through the directory that holds the mark itself, or a clone
    /// of it, the answer is about the others.
    pub fn has_writer(&self) -> Option<bool> {
        let asks = self.0.mark.get().map_or(self.as_fd(), |mark| mark.as_fd());
        sys::is_record_locked(asks).ok()
    }

    /// Whether this process may create files here, as far as permissions and the mount say;
    /// changes nothing.
    pub fn is_writable(&self) -> Result<bool, DiskError> {
        match sys::may_write(self.as_fd()) {
            Ok(()) => Ok(true),
            Err(libc::EACCES | libc::EPERM | libc::EROFS) => Ok(false),
            Err(errno) => Err(DiskError::from_errno(errno, "look at the directory's permissions")),
        }
    }

    /// The name of the file system it lies on ("ext4", "xfs", "btrfs", "tmpfs", "overlayfs", …),
    /// or its magic number in hexadecimal.
    pub fn file_system(&self) -> Result<String, DiskError> {
        let magic = sys::file_system_magic(self.as_fd())
            .map_err(|errno| DiskError::from_errno(errno, "ask for the file system"))?;
        Ok(file_system_name(magic).map_or_else(|| format!("0x{magic:x}"), str::to_owned))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// A file name as the kernel wants it. A [`FileName`] never contains a zero byte, so the empty
/// string, which names nothing, is never used.
pub(crate) fn c_name(name: &FileName) -> CString {
    CString::new(name.as_str()).unwrap_or_default()
}

/// The [`FileName`] that a directory entry is, if it is one.
pub(crate) fn file_name(entry: &CStr) -> Option<FileName> {
    entry.to_str().ok().and_then(FileName::new)
}

fn file_system_name(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlayfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0xf2f5_2010 => "f2fs",
        0x2fc1_2fc1 => "zfs",
        0xca45_1a4e => "bcachefs",
        0xff53_4d42 => "cifs",
        0xfe53_4d42 => "smb2",
        0x0102_1997 => "9p",
        0x4d44 => "vfat",
        0x2011_bab0 => "exfat",
        _ => return None,
    })
}

/// Sixteen random bytes of the system's generator.
pub fn entropy() -> Result<[u8; 16], DiskError> {
    let mut bytes = [0; 16];
    sys::random(&mut bytes)
        .map_err(|errno| DiskError::from_errno(errno, "ask for random bytes"))?;
    Ok(bytes)
}
