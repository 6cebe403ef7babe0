//! What both real disks share: the table of open files, the checks of an operation before it goes
//! to the kernel, operations on names, and completions that are ready.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::dir::Dir;
use crate::direct::Directness;
use crate::names::{Job, Names, Traffic};
use crate::op::{Completion, DiskError, DiskErrorKind, Done, FileId, Op, Slice, Tag};
use crate::planted::{Bug, planted};
use crate::waker::Waker;

/// A file in the table.
struct OpenFile {
    fd: OwnedFd,
    write: bool,
    /// Operations on data that are submitted and not completed.
    busy: u32,
}

enum Place {
    Free,
    /// Being opened or closed.
    Changing,
    Open(OpenFile),
}

/// What has to happen when an operation on names comes back.
pub(crate) struct Ticket {
    tag: Tag,
    then: Then,
}

enum Then {
    Nothing,
    Install { file: FileId, write: bool },
    Free(FileId),
}

/// Told when a file comes or goes, so that a ring can register it. An error refuses the file.
pub(crate) trait FileWatch {
    fn came(&mut self, file: FileId, fd: RawFd) -> Result<(), DiskError>;
    fn goes(&mut self, file: FileId);
}

/// For a disk that registers nothing.
pub(crate) struct NoWatch;

impl FileWatch for NoWatch {
    fn came(&mut self, _: FileId, _: RawFd) -> Result<(), DiskError> {
        Ok(())
    }
    fn goes(&mut self, _: FileId) {}
}

/// Whether a number is a multiple of a power of two.
fn is_aligned(align_bytes: u64, number: u64) -> bool {
    number & (align_bytes - 1) == 0 || planted(Bug::TakeEveryAlignment)
}

/// Whether a write has sound slices, and lies where a file can have bytes.
pub(crate) fn is_sound_write(align_bytes: u64, offset: u64, data: &[Slice]) -> bool {
    let mut end = offset;
    for slice in data {
        let len = slice.len as u64;
        if slice.len == 0 || slice.len > slice.block.len() || !is_aligned(align_bytes, len) {
            return false;
        }
        match end.checked_add(len) {
            Some(sum) => end = sum,
            None => return false,
        }
    }
    !data.is_empty() && is_aligned(align_bytes, offset) && end <= i64::MAX as u64
}

/// Whether a read fits its block, and lies where a file can have bytes.
pub(crate) fn is_sound_read(align_bytes: u64, offset: u64, block: &[u8], len: usize) -> bool {
    let aligned = is_aligned(align_bytes, offset) && is_aligned(align_bytes, len as u64);
    let end = offset.checked_add(len as u64);
    aligned && len <= block.len() && end.is_some_and(|end| end <= i64::MAX as u64)
}

/// The front desk of a disk.
pub(crate) struct Desk {
    files: Vec<Place>,
    names: Names<Ticket>,
    ready: Vec<Completion>,
    traffic: Traffic,
    align_bytes: u64,
    /// The operation that is being taken has a caller who has nothing else to do.
    alone: bool,
}

impl Desk {
    /// The desk of a disk on `dir`; `waker` is woken by the thread for names, if there is to be one.
    pub(crate) fn new(dir: &Dir, found: &Directness, names_thread: bool, waker: &Waker) -> Self {
        let traffic = Traffic::default();
        let (dir, direct) = (dir.clone(), found.direct);
        let names = if names_thread {
            Names::on_thread(dir, direct, traffic.clone(), waker.clone())
        } else {
            Names::in_place(dir, direct)
        };
        Self {
            files: (0..FileId::LIMIT).map(|_| Place::Free).collect(),
            names,
            ready: Vec::new(),
            traffic,
            align_bytes: u64::from(found.align_bytes),
            alone: false,
        }
    }

    /// How many operations are here: on names, or ready.
    pub(crate) fn pending(&self) -> usize {
        self.ready.len() + self.names.pending()
    }

    /// Whether a completion is ready.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether an operation on names waits to be carried out by the caller.
    pub(crate) fn is_in_place(&self) -> bool {
        self.names.is_in_place() && self.names.pending() > 0
    }

    pub(crate) fn fail(&mut self, tag: Tag, slices: Vec<Slice>, error: DiskError) {
        self.ready.push(Completion { tag, slices, result: Err(error) });
    }

    /// The descriptor of an open file.
    pub(crate) fn fd(&self, file: FileId) -> Option<BorrowedFd<'_>> {
        match self.files.get(file.0 as usize) {
            Some(Place::Open(open)) => Some(open.fd.as_fd()),
            _ => None,
        }
    }

    fn open_file(&mut self, file: FileId) -> Option<&mut OpenFile> {
        match self.files.get_mut(file.0 as usize) {
            Some(Place::Open(open)) => Some(open),
            _ => None,
        }
    }

    /// An operation on data has ended.
    pub(crate) fn release(&mut self, file: FileId) {
        if let Some(open) = self.open_file(file) {
            open.busy = open.busy.saturating_sub(1);
        }
    }

    /// As [`Desk::admit`], for a caller that waits for this operation alone.
    pub(crate) fn admit_alone(
        &mut self,
        tag: Tag,
        op: Op,
        watch: &mut impl FileWatch,
    ) -> Option<Op> {
        self.alone = true;
        let op = self.admit(tag, op, watch);
        self.alone = false;
        op
    }

    /// Takes an operation. Gives it back when it is one on data that the kernel may see: its file
    /// is open for it and counted busy until [`Desk::release`].
    pub(crate) fn admit(&mut self, tag: Tag, op: Op, watch: &mut impl FileWatch) -> Option<Op> {
        let (file, writes, sound) = match &op {
            Op::Write { file, offset, data, .. } => {
                (*file, true, is_sound_write(self.align_bytes, *offset, data))
            }
            Op::Sync { file } => (*file, true, true),
            Op::Read { file, offset, block, len } => {
                (*file, false, is_sound_read(self.align_bytes, *offset, block, *len))
            }
            _ => {
                self.take_name_op(tag, op, watch);
                return None;
            }
        };
        let problem = match self.open_file(file) {
            _ if !sound => Some((DiskErrorKind::Unexpected, "a bad offset, length or slice")),
            None => Some((DiskErrorKind::Unexpected, "no such open file")),
            Some(open) if writes && !open.write => {
                Some((DiskErrorKind::Access, "a file not open for writing"))
            }
            Some(open) => {
                open.busy += 1;
                None
            }
        };
        let Some((kind, what)) = problem else {
            self.traffic.note();
            return Some(op);
        };
        let (doing, slices) = match op {
            Op::Write { data, .. } => ("write", data),
            Op::Read { block, len, .. } => ("read", vec![Slice { block, len }]),
            _ => ("flush", Vec::new()),
        };
        self.fail(tag, slices, DiskError::new(kind, format!("{doing}: {what}")));
        None
    }

    fn take_name_op(&mut self, tag: Tag, op: Op, watch: &mut impl FileWatch) {
        let (then, job) = match op {
            Op::Open { file, name, write } => {
                (Then::Install { file, write }, Job::Open { name, write })
            }
            Op::Create { file, name, bytes } => {
                if !is_aligned(self.align_bytes, bytes) || bytes > i64::MAX as u64 {
                    let what = format!("create {name}: a bad length");
                    self.fail(tag, Vec::new(), DiskError::new(DiskErrorKind::Unexpected, what));
                    return;
                }
                (Then::Install { file, write: true }, Job::Create { name, bytes })
            }
            Op::Close { file } => match self.take_for_close(file) {
                Ok(fd) => {
                    watch.goes(file);
                    (Then::Free(file), Job::Close(fd))
                }
                Err(error) => return self.fail(tag, Vec::new(), error),
            },
            Op::Rename { from, to } => (Then::Nothing, Job::Rename { from, to }),
            Op::Remove { name } => (Then::Nothing, Job::Remove { name }),
            Op::Replace { name, content } => (Then::Nothing, Job::Replace { name, content }),
            Op::Store { name, content } => (Then::Nothing, Job::Store { name, content }),
            Op::Load { name, limit_bytes } => (Then::Nothing, Job::Load { name, limit_bytes }),
            Op::SyncDir => (Then::Nothing, Job::SyncDir),
            Op::List => (Then::Nothing, Job::List),
            // `admit` keeps these.
            Op::Write { .. } | Op::Sync { .. } | Op::Read { .. } => return,
        };
        if let Then::Install { file, .. } = then {
            match self.files.get_mut(file.0 as usize) {
                Some(place @ Place::Free) => *place = Place::Changing,
                _ => {
                    let what = "open: a file id that is in use or too large";
                    self.fail(tag, Vec::new(), DiskError::new(DiskErrorKind::Unexpected, what));
                    return;
                }
            }
        }
        match self.alone {
            true => self.names.submit_alone(Ticket { tag, then }, job),
            false => self.names.submit(Ticket { tag, then }, job),
        }
    }

    fn take_for_close(&mut self, file: FileId) -> Result<OwnedFd, DiskError> {
        let refused = |what| DiskError::new(DiskErrorKind::Unexpected, format!("close: {what}"));
        let Some(place) = self.files.get_mut(file.0 as usize) else {
            return Err(refused("a file id that is too large"));
        };
        match std::mem::replace(place, Place::Changing) {
            Place::Open(open) if open.busy == 0 || planted(Bug::CloseBusyFile) => Ok(open.fd),
            before => {
                let busy = matches!(before, Place::Open(_));
                *place = before;
                Err(refused(if busy { "operations in flight" } else { "no such open file" }))
            }
        }
    }

    /// Appends every completion that is here. In place, carries out the operations on names.
    pub(crate) fn collect(&mut self, watch: &mut impl FileWatch, out: &mut Vec<Completion>) {
        out.append(&mut self.ready);
        while let Some((ticket, result)) = self.names.next() {
            let result = self.settle(ticket.then, result, watch);
            out.push(Completion { tag: ticket.tag, slices: Vec::new(), result });
        }
    }

    fn settle(
        &mut self,
        then: Then,
        result: Result<crate::names::Outcome, DiskError>,
        watch: &mut impl FileWatch,
    ) -> Result<Done, DiskError> {
        let (file, place, result) = match (then, result) {
            (Then::Nothing, result) => return result.map(|outcome| outcome.done),
            (Then::Free(file), result) => (file, Place::Free, result.map(|o| o.done)),
            (Then::Install { file, write }, Ok(outcome)) => {
                let Some(fd) = outcome.file else {
                    return Err(DiskError::new(DiskErrorKind::Unexpected, "open"));
                };
                match watch.came(file, fd.as_raw_fd()) {
                    Ok(()) => {
                        let open = OpenFile { fd, write, busy: 0 };
                        (file, Place::Open(open), Ok(outcome.done))
                    }
                    Err(error) => (file, Place::Free, Err(error)),
                }
            }
            (Then::Install { file, .. }, Err(error)) => (file, Place::Free, Err(error)),
        };
        if let Some(at) = self.files.get_mut(file.0 as usize) {
            *at = place;
        }
        result
    }
}
