//! A disk on blocking system calls: for where io_uring is refused, for tools, and as the measure
//! of what a ring gains.
//!
//! Operations on data are carried out inside `reap`, in order. It knows nothing of rings.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::desk::{Desk, NoWatch};
use crate::dir::Dir;
use crate::direct;
use crate::op::{
    Completion, Disk, DiskError, DiskErrorKind, DiskFacts, Done, Flush, Op, Slice, Tag, Wait,
};
use crate::options::{DiskOptions, Primitive};
use crate::planted::{Bug, planted};
use crate::sys::{self, Parts};
use crate::waker::Waker;

/// A disk on blocking system calls. Dropping it carries out everything that was submitted.
pub struct BlockingDisk {
    desk: Desk,
    queue: VecDeque<(Tag, Op)>,
    parts: Parts,
    primitive: Primitive,
    waker: Waker,
    /// The caller has said that it sleeps elsewhere.
    away: bool,
    facts: DiskFacts,
    /// Whatever must live as long as the disk: the lock of the log.
    _lock: Option<Dir>,
}

impl BlockingDisk {
    /// A disk on the files of `dir`. `lock` is a directory whose lock this disk keeps alive.
    ///
    /// Fails when the directory cannot be looked at.
    pub fn open(dir: &Dir, lock: Option<&Dir>, options: &DiskOptions) -> Result<Self, DiskError> {
        let found = direct::examine(dir, options.direct, options.known_file.as_ref())?;
        let waker = Waker::new();
        Ok(Self {
            desk: Desk::new(dir, &found, options.names_thread, &waker),
            queue: VecDeque::new(),
            parts: Parts::default(),
            primitive: options.primitive,
            waker,
            away: false,
            facts: DiskFacts {
                kind: "blocking",
                align_bytes: found.align_bytes,
                direct: found.direct,
                commit_primitive: match options.primitive {
                    Primitive::Dsync => "RWF_DSYNC",
                    Primitive::LinkedSync => "fdatasync",
                },
                file_system: found.file_system,
                notes: found.notes,
            },
            _lock: lock.cloned(),
        })
    }

    /// The descriptor that becomes readable when something is there for a caller that sleeps
    /// elsewhere, for its own event loop. Fails when there is no descriptor to be had.
    pub fn poll_fd(&self) -> Result<BorrowedFd<'_>, DiskError> {
        self.waker.outside().map(AsFd::as_fd)
    }

    /// Announces that the caller is about to sleep until [`BlockingDisk::poll_fd`] is readable.
    /// False when it must not, because something is there already. Ends with the next `reap`.
    pub fn about_to_sleep(&mut self) -> bool {
        let nothing = self.queue.is_empty() && !self.desk.has_ready() && !self.desk.is_in_place();
        self.away = nothing && self.waker.leave();
        self.away
    }

    pub(crate) fn add_note(&mut self, note: String) {
        self.facts.notes.push(note);
    }

    fn do_op(&mut self, tag: Tag, op: Op) -> Completion {
        let (file, slices, result) = match op {
            Op::Write { file, offset, data, flush } => {
                let result = match self.desk.fd(file) {
                    Some(fd) => write(fd, &data, offset, flush, self.primitive, &mut self.parts),
                    None => Err(not_open()),
                };
                (file, data, result)
            }
            Op::Read { file, offset, mut block, len } => {
                let result = match self.desk.fd(file) {
                    Some(fd) => read(fd, &mut block[..len], offset),
                    None => Err(not_open()),
                };
                (file, vec![Slice { block, len }], result)
            }
            Op::Sync { file } => {
                let result = match self.desk.fd(file) {
                    Some(fd) => flush_data(fd).map(|()| Done::Synced),
                    None => Err(not_open()),
                };
                (file, Vec::new(), result)
            }
            // The desk keeps operations on names.
            _ => {
                return Completion { tag, slices: Vec::new(), result: Err(not_open()) };
            }
        };
        self.desk.release(file);
        Completion { tag, slices, result }
    }

    fn carry_out_all(&mut self, out: &mut Vec<Completion>) {
        self.desk.collect(&mut NoWatch, out);
        while let Some((tag, op)) = self.queue.pop_front() {
            let completion = self.do_op(tag, op);
            out.push(completion);
        }
    }
}

pub(crate) fn not_open() -> DiskError {
    DiskError::new(DiskErrorKind::Unexpected, "no such open file")
}

fn flush_data(fd: BorrowedFd<'_>) -> Result<(), DiskError> {
    if planted(Bug::SkipDataSync) {
        return Ok(());
    }
    sys::sync_data(fd).map_err(|errno| DiskError::from_errno(errno, "flush"))
}

/// Writes everything and flushes as asked, before it returns.
pub(crate) fn write(
    fd: BorrowedFd<'_>,
    data: &[Slice],
    offset: u64,
    flush: Flush,
    primitive: Primitive,
    parts: &mut Parts,
) -> Result<Done, DiskError> {
    let dsync = flush == Flush::Own && primitive == Primitive::Dsync;
    let flags = if dsync { libc::RWF_DSYNC } else { 0 };
    let total: usize = data.iter().map(|slice| slice.len).sum();
    let mut done = 0;
    while done < total {
        let from = if planted(Bug::GoOnWithTheFirstBytes) { 0 } else { done };
        match sys::write_slices(fd, data, from, offset + done as u64, flags, parts) {
            Ok(0) => {
                let what = "write: the file took nothing";
                return Err(DiskError::new(DiskErrorKind::Io, what));
            }
            // A short write with RWF_DSYNC has flushed its part; the rest flushes its own.
            Ok(_) if planted(Bug::IgnoreShortWrite) => break,
            Ok(n) => done += n,
            Err(errno) => return Err(DiskError::from_errno(errno, "write")),
        }
    }
    if flush != Flush::No && !dsync {
        flush_data(fd)?;
    }
    Ok(Done::Wrote)
}

fn read(fd: BorrowedFd<'_>, into: &mut [u8], offset: u64) -> Result<Done, DiskError> {
    let mut done = 0;
    while done < into.len() {
        match sys::read_at(fd, &mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            // What direct I/O answers behind an end that is not aligned.
            Err(libc::EINVAL) if !done.is_multiple_of(512) => break,
            Err(errno) => return Err(DiskError::from_errno(errno, "read")),
        }
    }
    Ok(Done::Read(done))
}

impl Disk for BlockingDisk {
    fn submit(&mut self, tag: Tag, op: Op) {
        if let Some(op) = self.desk.admit(tag, op, &mut NoWatch) {
            self.queue.push_back((tag, op));
        }
    }

    fn submit_alone(&mut self, tag: Tag, op: Op) {
        if let Some(op) = self.desk.admit_alone(tag, op, &mut NoWatch) {
            self.queue.push_back((tag, op));
        }
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        let before = out.len();
        if std::mem::take(&mut self.away) {
            self.waker.came_back();
        }
        self.carry_out_all(out);
        let at_most: Option<Duration> = match wait {
            _ if out.len() > before => return,
            Wait::No => return,
            Wait::Any => None,
            Wait::AtMost(limit) => Some(limit),
        };
        self.waker.park(at_most);
        self.desk.collect(&mut NoWatch, out);
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.desk.pending()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn facts(&self) -> &DiskFacts {
        &self.facts
    }
}

impl Drop for BlockingDisk {
    fn drop(&mut self) {
        let mut out = Vec::new();
        while self.in_flight() > 0 {
            self.reap(Wait::Any, &mut out);
            out.clear();
        }
    }
}

impl std::fmt::Debug for BlockingDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockingDisk({} in flight)", self.in_flight())
    }
}
