//! Thin wrappers of the system calls that this crate needs, as safe functions.
//!
//! Each returns the plain error number; the caller says what was being done. Nothing here knows
//! what a log is. Calls that open, wait or look again after a signal do so by themselves; a flush
//! never does, because a repeated flush could hide the error of the first.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::op::Slice;
use crate::planted::{Bug, planted};

/// An error number.
pub(crate) type Errno = i32;

/// FALLOC_FL_WRITE_ZEROES (Linux 6.17), which libc does not name yet.
pub(crate) const FALLOC_WRITE_ZEROES: i32 = 0x80;

/// At most so many parts go into one vectored call (the kernel's UIO_MAXIOV). Few in this crate's
/// own tests, so that they resume many writes.
pub(crate) const PARTS_MAX: usize = if cfg!(test) { 16 } else { 1024 };

/// At most so many bytes go into one call; below the kernel's own limit, and aligned. Few
/// in this crate's own tests.
pub(crate) const CALL_BYTES_MAX: usize = if cfg!(test) { 16 << 10 } else { 1 << 30 };

pub(crate) fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn check(result: i32) -> Result<(), Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn check_size(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| last_errno())
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(libc::EINTR) => {}
            other => return other,
        }
    }
}

/// openat; close-on-exec is always set.
pub(crate) fn open_at(
    dir: BorrowedFd<'_>,
    name: &CStr,
    flags: i32,
    mode: libc::mode_t,
) -> Result<OwnedFd, Errno> {
    retry(|| {
        // SAFETY: `name` is a NUL-terminated string that lives through the call.
        let fd =
            unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        check(fd)?;
        // SAFETY: a descriptor that was just opened and that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// open of a path, relative to the current directory.
pub(crate) fn open_path(path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    retry(|| {
        // SAFETY: `path` is a NUL-terminated string that lives through the call.
        let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
        check(fd)?;
        // SAFETY: a descriptor that was just opened and that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

pub(crate) fn mkdir_at(dir: BorrowedFd<'_>, name: &CStr, mode: libc::mode_t) -> Result<(), Errno> {
    // SAFETY: `name` is a NUL-terminated string that lives through the call.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) })
}

pub(crate) fn unlink_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is a NUL-terminated string that lives through the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) })
}

pub(crate) fn rename_at(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<(), Errno> {
    let fd = dir.as_raw_fd();
    // SAFETY: both names are NUL-terminated strings that live through the call.
    check(unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) })
}

/// Lets two names of a directory change places, in one step.
pub(crate) fn exchange_at(dir: BorrowedFd<'_>, one: &CStr, other: &CStr) -> Result<(), Errno> {
    let fd = dir.as_raw_fd();
    let flags = libc::RENAME_EXCHANGE;
    // SAFETY: both names are NUL-terminated strings that live through the call.
    check(unsafe { libc::renameat2(fd, one.as_ptr(), fd, other.as_ptr(), flags) })
}

/// Cuts a file, or lengthens it with zeros.
pub(crate) fn set_length(fd: BorrowedFd<'_>, bytes: u64) -> Result<(), Errno> {
    let bytes = libc::off_t::try_from(bytes).map_err(|_| libc::EFBIG)?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), bytes) })
}

pub(crate) fn change_mode(fd: BorrowedFd<'_>, mode: libc::mode_t) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })
}

/// fsync: data, length and everything else about the file. Never repeated.
pub(crate) fn sync_all(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fsync(fd.as_raw_fd()) })
}

/// fdatasync. Never repeated.
pub(crate) fn sync_data(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fdatasync(fd.as_raw_fd()) })
}

pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is memory of the right size for the kernel to fill.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it is filled.
    Ok(unsafe { stat.assume_init() })
}

/// What a name in a directory stands for; a symbolic link stands for itself.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `name` is NUL-terminated, `stat` is memory of the right size for the kernel to fill.
    check(unsafe {
        libc::fstatat(dir.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })?;
    // SAFETY: the call succeeded, so it is filled.
    Ok(unsafe { stat.assume_init() })
}

pub(crate) fn is_regular(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// The alignment that direct I/O on this file needs (memory, offset): `Some((0, 0))` when the file
/// does not support it, `None` when the kernel or the file system does not say.
pub(crate) fn direct_alignment(fd: BorrowedFd<'_>) -> Option<(u32, u32)> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an empty NUL-terminated path, and memory of the right size for the kernel to fill.
    let result = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    // SAFETY: all of it was zeroed, which is a valid value of each of its fields.
    let stat = unsafe { stat.assume_init() };
    let known = result == 0 && stat.stx_mask & libc::STATX_DIOALIGN != 0;
    known.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// The magic number of the file system that a descriptor lies on.
pub(crate) fn file_system_magic(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    retry(|| {
        // SAFETY: `stat` is memory of the right size for the kernel to fill.
        check(unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) })
    })?;
    // SAFETY: the call succeeded, so it is filled.
    let stat = unsafe { stat.assume_init() };
    // The type of this field differs between platforms; magic numbers have 32 bits.
    Ok(stat.f_type as u64 & 0xffff_ffff)
}

/// The inode flags (chattr), or `None` where the file system has none.
pub(crate) fn inode_flags(fd: BorrowedFd<'_>) -> Option<u32> {
    let mut flags: libc::c_long = 0;
    // SAFETY: FS_IOC_GETFLAGS writes at most a long into the local.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    (result == 0).then_some(flags as u32)
}

/// Takes the exclusive lock of an open directory; false when somebody else has it.
pub(crate) fn try_lock(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // SAFETY: no memory is involved.
    match retry(|| check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })) {
        Ok(()) => Ok(true),
        Err(libc::EWOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A record lock of a whole file, as the kernel describes one.
fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: plain numbers, for which zero is a value; the process number must be zero.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

/// Puts a shared record lock on an open file or directory; the lock belongs to the open file
/// description and goes with it.
pub(crate) fn share_record_lock(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let lock = whole_file(libc::F_RDLCK);
    // SAFETY: the lock is a live local that the kernel reads.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) })
}

/// Whether another open file description has any record lock on this file or directory. Only asks.
pub(crate) fn is_record_locked(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: the lock is a live local that the kernel reads and fills.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) })?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Whether this process may create names in the directory.
pub(crate) fn may_write(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: a NUL-terminated constant string.
    check(unsafe {
        libc::faccessat(dir.as_raw_fd(), c".".as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS)
    })
}

/// Takes O_NONBLOCK away from an open file.
pub(crate) fn clear_nonblock(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    check(flags)?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK) })
}

pub(crate) fn allocate(fd: BorrowedFd<'_>, mode: i32, bytes: u64) -> Result<(), Errno> {
    let bytes = libc::off_t::try_from(bytes).map_err(|_| libc::EFBIG)?;
    // SAFETY: no memory is involved.
    retry(|| check(unsafe { libc::fallocate(fd.as_raw_fd(), mode, 0, bytes) }))
}

pub(crate) fn read_at(fd: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EINVAL)?;
    let len = into.len().min(CALL_BYTES_MAX);
    retry(|| {
        // SAFETY: the kernel writes at most `len` bytes, all inside the borrowed slice.
        check_size(unsafe { libc::pread(fd.as_raw_fd(), into.as_mut_ptr().cast(), len, offset) })
    })
}

pub(crate) fn write_at(fd: BorrowedFd<'_>, from: &[u8], offset: u64) -> Result<usize, Errno> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EINVAL)?;
    let len = from.len().min(CALL_BYTES_MAX);
    retry(|| {
        // SAFETY: the kernel reads at most `len` bytes, all inside the borrowed slice.
        check_size(unsafe { libc::pwrite(fd.as_raw_fd(), from.as_ptr().cast(), len, offset) })
    })
}

/// Parts of a write, as the kernel wants them. Kept by its owner so that no write allocates.
#[derive(Default)]
pub(crate) struct Parts(Vec<libc::iovec>);

// SAFETY: the vectors are plain addresses that `Parts` itself never follows; whoever does holds
// the blocks that they point into at that moment, on whichever thread.
unsafe impl Send for Parts {}

impl Parts {
    /// Points to the bytes of `slices` from `skip` on, as far as one call can take them. Returns
    /// how many bytes that is. The slices' blocks must stay where they are while these are used.
    pub(crate) fn point_to(&mut self, slices: &[Slice], mut skip: usize) -> usize {
        self.0.clear();
        let mut bytes = 0;
        for slice in slices {
            if skip >= slice.len {
                skip -= slice.len;
                continue;
            }
            if self.0.len() == PARTS_MAX || bytes == CALL_BYTES_MAX {
                break;
            }
            let part = &slice.block[skip..slice.len];
            skip = 0;
            let len = part.len().min(CALL_BYTES_MAX - bytes);
            bytes += len;
            self.0.push(libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: len });
        }
        bytes
    }

    pub(crate) fn as_slice(&self) -> &[libc::iovec] {
        &self.0
    }
}

/// pwritev2 of the bytes of `slices` from `skip` on: how many were written. A flag that flushes
/// makes a signal an error, as with every flush.
pub(crate) fn write_slices(
    fd: BorrowedFd<'_>,
    slices: &[Slice],
    skip: usize,
    offset: u64,
    flags: i32,
    parts: &mut Parts,
) -> Result<usize, Errno> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EINVAL)?;
    parts.point_to(slices, skip);
    let vectors = parts.as_slice();
    let count = i32::try_from(vectors.len()).map_err(|_| libc::EINVAL)?;
    let call = || {
        // SAFETY: every vector lies inside a block that `slices` borrows for this whole function,
        // and the kernel only reads them during the call.
        check_size(unsafe {
            libc::pwritev2(fd.as_raw_fd(), vectors.as_ptr(), count, offset, flags)
        })
    };
    if flags & libc::RWF_DSYNC == 0 { retry(call) } else { call() }
}

/// Whether the system and this process allow huge pages to those who ask for them.
pub(crate) fn huge_pages_allowed() -> bool {
    // SAFETY: no memory is involved.
    let disabled = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) };
    // 1: disabled. (3: but for those who ask.) Where nobody can tell, they are taken for allowed.
    let never = || {
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
            .is_ok_and(|setting| setting.contains("[never]"))
    };
    disabled != 1 && !never()
}

/// How much memory this process may lock, in bytes, all rings and locks of its user together; `None`: as
/// much as it likes.
pub(crate) fn lockable_bytes() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes the structure that is given.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    if known && limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    // The right to lock without a limit counts in the first user namespace only.
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let first = read("/proc/self/uid_map").split_whitespace().eq(["0", "0", "4294967295"]);
    let status = read("/proc/thread-self/status");
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = rights.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    const CAP_IPC_LOCK: u32 = 14;
    (!first || rights & (1 << CAP_IPC_LOCK) == 0).then_some(limit.rlim_cur)
}

/// Random bytes of the system.
pub(crate) fn random(into: &mut [u8]) -> Result<(), Errno> {
    let mut filled = 0;
    while filled < into.len() {
        let rest = &mut into[filled..];
        filled += retry(|| {
            // SAFETY: the kernel writes at most `rest.len()` bytes into the borrowed slice.
            check_size(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) })
        })?;
    }
    Ok(())
}

/// The names in a directory, without "." and "..", in no order.
pub(crate) fn entries(dir: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>, Errno> {
    struct Stream(*mut libc::DIR);
    impl Drop for Stream {
        fn drop(&mut self) {
            if planted(Bug::LeakDirectory) {
                return;
            }
            // SAFETY: a stream that fdopendir returned, closed once.
            unsafe { libc::closedir(self.0) };
        }
    }
    use std::os::fd::IntoRawFd;
    // A description of its own: the position in a directory is shared by duplicates.
    let fd = open_at(dir, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?.into_raw_fd();
    // SAFETY: an open directory, whose ownership goes to the stream on success.
    let raw = unsafe { libc::fdopendir(fd) };
    if raw.is_null() {
        let errno = last_errno();
        // SAFETY: the call failed, so the descriptor is still ours and nobody else's.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return Err(errno);
    }
    let stream = Stream(raw);
    let mut names = Vec::new();
    loop {
        // The end and an error look alike but for the error number.
        // SAFETY: errno is a thread-local integer.
        let errno_at = unsafe { libc::__errno_location() };
        // SAFETY: as above; the pointer is valid for this thread.
        unsafe { *errno_at = 0 };
        // SAFETY: the stream is open, and used by this thread alone.
        let entry = unsafe { libc::readdir(stream.0) };
        if entry.is_null() {
            let errno = last_errno();
            return if errno == 0 { Ok(names) } else { Err(errno) };
        }
        // SAFETY: readdir returned a valid entry, which lives until the next call.
        let name_at = unsafe { (&raw const (*entry).d_name).cast() };
        if planted(Bug::ReadClosedDirectory) {
            drop(stream);
            // SAFETY: none, that is the bug.
            return Ok(vec![unsafe { CStr::from_ptr(name_at) }.to_owned()]);
        }
        // SAFETY: the name in an entry is NUL-terminated.
        let name = unsafe { CStr::from_ptr(name_at) };
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
}
