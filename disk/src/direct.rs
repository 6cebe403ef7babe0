//! Whether direct I/O in a directory is real, and which alignment it needs.
//!
//! Opening with O_DIRECT succeeds on several file systems that buffer all the same. So a file's
//! willingness is not taken for the deed: the file system's kind, what statx says of the file, and
//! the file's attributes decide.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use crate::device;
use crate::dir::{Dir, c_name};
use crate::op::{DiskError, FileName};
use crate::planted::{Bug, planted};
use crate::sys;

/// The largest alignment that the contract allows.
const ALIGN_BYTES_MAX: u32 = 4096;
const SECTOR_BYTES: u32 = 512;
/// What it costs to write without direct I/O.
const BUFFERED: &str = "writes go through the page cache, so that what was written and not flushed \
    ends with the kernel";
/// FS_NOCOW_FL: what "chattr +C" sets on btrfs.
const NO_COPY_ON_WRITE: u32 = 0x0080_0000;

/// The answer.
#[derive(Clone, Debug)]
pub(crate) struct Directness {
    pub(crate) direct: bool,
    pub(crate) align_bytes: u32,
    pub(crate) file_system: String,
    pub(crate) notes: Vec<String>,
}

/// Looks at the directory, by means of a file that is known to be there, or of a nameless one where one
/// can be made. Leaves no trace. What was found once holds as long as the directory is open.
pub(crate) fn examine(
    dir: &Dir,
    wanted: bool,
    known: Option<&FileName>,
) -> Result<Directness, DiskError> {
    if let (Some(known), true) = (dir.directness().get(), wanted) {
        return Ok(known.clone());
    }
    let found = look(dir, wanted, known)?;
    if wanted {
        let _ = dir.directness().set(found.clone()); // or another thread has found the same
    }
    Ok(found)
}

fn look(dir: &Dir, wanted: bool, known: Option<&FileName>) -> Result<Directness, DiskError> {
    let file_system = dir.file_system()?;
    let physical = device::physical_block_bytes(dir);
    let mut notes = Vec::new();
    let (direct, needed) = if wanted {
        match judge(dir, &file_system, known, &mut notes) {
            Some(needed) => (true, needed),
            None => (false, 0),
        }
    } else {
        notes.push(format!("Direct I/O is switched off by the options: {BUFFERED}."));
        (false, 0)
    };
    // Without a word from the device, the largest: too much alignment harms nobody.
    let align = physical.unwrap_or(ALIGN_BYTES_MAX).max(needed).max(SECTOR_BYTES);
    let align = align.checked_next_power_of_two().unwrap_or(u32::MAX);
    if align > ALIGN_BYTES_MAX {
        if direct && needed > ALIGN_BYTES_MAX {
            notes.push(format!(
                "Direct I/O needs an alignment of {needed} bytes here, more than 4096: \
                 writes go through the page cache."
            ));
            return Ok(Directness {
                direct: false,
                align_bytes: ALIGN_BYTES_MAX,
                file_system,
                notes,
            });
        }
        notes.push(format!(
            "The device's physical block is {align} bytes, more than 4096: commits may share one."
        ));
    }
    Ok(Directness { direct, align_bytes: align.min(ALIGN_BYTES_MAX), file_system, notes })
}

/// The alignment of real direct I/O; `None` (and a note) when it is not real.
fn judge(
    dir: &Dir,
    file_system: &str,
    known: Option<&FileName>,
    notes: &mut Vec<String>,
) -> Option<u32> {
    if matches!(file_system, "tmpfs" | "ramfs") && !planted(Bug::HideBufferedWrites) {
        notes.push(format!(
            "{file_system} accepts direct I/O but does not do it: the log is in memory and ends with \
             the machine; put it on a disk if it shall last."
        ));
        return None;
    }
    if file_system == "overlayfs" {
        notes.push(format!(
            "overlayfs accepts direct I/O but does not do it: {BUFFERED}; put the log on a volume of \
             its own."
        ));
        return None;
    }
    let file = match sample_file(dir, known) {
        Ok(Some(file)) => file,
        Ok(None) => {
            notes.push(
                "Direct I/O could not be tried: the directory is empty and not writable."
                    .to_owned(),
            );
            return None;
        }
        Err(errno) => {
            let why = std::io::Error::from_raw_os_error(errno);
            notes.push(format!(
                "Direct I/O is refused ({why}): {BUFFERED}; put the log on ext4 or xfs."
            ));
            return None;
        }
    };
    if file_system == "btrfs"
        && sys::inode_flags(file.as_fd()).is_none_or(|flags| flags & NO_COPY_ON_WRITE == 0)
    {
        notes.push(
            "btrfs buffers direct writes of files with checksums: \
             \"chattr +C\" on the empty directory makes them direct."
                .to_owned(),
        );
        return None;
    }
    match sys::direct_alignment(file.as_fd()) {
        Some((0, _) | (_, 0)) => {
            notes.push(format!(
                "{file_system} does not do direct I/O here: {BUFFERED}; put the log on ext4 or xfs."
            ));
            None
        }
        Some((memory, offset)) => Some(memory.max(offset)),
        None => {
            if !matches!(file_system, "ext4" | "xfs" | "btrfs" | "f2fs") {
                notes.push(format!(
                    "{file_system} accepts direct I/O, but nothing tells whether it does it."
                ));
            }
            Some(SECTOR_BYTES)
        }
    }
}

/// A file of the directory, opened for direct I/O: the one that is known, a nameless one, or one that is
/// there. `None` when there is none; an error when direct I/O is refused.
fn sample_file(dir: &Dir, known: Option<&FileName>) -> Result<Option<OwnedFd>, sys::Errno> {
    if let Some(name) = known
        && let Some(file) = named_file(dir, &c_name(name))?
    {
        return Ok(Some(file));
    }
    let nameless = libc::O_TMPFILE | libc::O_RDWR;
    match sys::open_at(dir.as_fd(), c".", nameless | libc::O_DIRECT, 0o600) {
        Ok(file) => return Ok(Some(file)),
        // Either flag may be the one that is not liked.
        Err(errno @ libc::EINVAL) if sys::open_at(dir.as_fd(), c".", nameless, 0o600).is_ok() => {
            return Err(errno);
        }
        Err(_) => {}
    }
    for name in sys::entries(dir.as_fd())? {
        if let Some(file) = named_file(dir, &name)? {
            return Ok(Some(file));
        }
    }
    named_sample(dir)
}

/// A regular file of this name, opened for direct I/O; an error when that is refused.
fn named_file(dir: &Dir, name: &CStr) -> Result<Option<OwnedFd>, sys::Errno> {
    if !sys::stat_at(dir.as_fd(), name).is_ok_and(|stat| sys::is_regular(&stat)) {
        return Ok(None);
    }
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_DIRECT;
    match sys::open_at(dir.as_fd(), name, flags, 0) {
        Ok(file) => Ok(Some(file)),
        Err(errno @ libc::EINVAL) => Err(errno),
        Err(_) => Ok(None),
    }
}

/// For file systems without nameless files: a named one, gone at once.
fn named_sample(dir: &Dir) -> Result<Option<OwnedFd>, sys::Errno> {
    let name = c"direct-probe.tmp";
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    match sys::open_at(dir.as_fd(), name, flags | libc::O_DIRECT, 0o600) {
        Ok(file) => {
            sys::unlink_at(dir.as_fd(), name)?;
            Ok(Some(file))
        }
        Err(errno @ libc::EINVAL) => {
            // Some file systems leave the file behind when they refuse the flag.
            let _ = sys::unlink_at(dir.as_fd(), name);
            Err(errno)
        }
        Err(_) => Ok(None),
    }
}
