//! An eventfd: a descriptor that is readable once it was signalled, until it is cleared.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::op::DiskError;

#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> Result<Self, DiskError> {
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EMFILE);
            return Err(DiskError::from_errno(errno, "create an eventfd"));
        }
        // SAFETY: a descriptor that was just created and that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn signal(&self) {
        let one: u64 = 1;
        // SAFETY: eight bytes of a local; an eventfd takes exactly these. It can only refuse when
        // its counter is full, and then it is readable anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Takes back what was signalled.
    pub(crate) fn clear(&self) {
        let mut count: u64 = 0;
        // SAFETY: eight bytes of a local; an eventfd fills exactly these, or refuses because there
        // is nothing to take.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
