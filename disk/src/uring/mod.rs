//! A disk on io_uring.
//!
//! One thread opens it and drives it. Operations on data go to the ring; what the ring has no room
//! for waits in a backlog, so the completion queue does not overflow in normal use. Blocks are
//! owned by the place of their operation until its last completion has come, so no memory is ever
//! freed or handed back while the kernel may touch it. A write and the flush linked to it always
//! go in one submission; should the kernel split them all the same, the flush is repeated.
//!
//! The thread sleeps in the ring while something is in flight there, with a poll on the waker's
//! event armed; else it parks on the waker alone.

mod entry;
mod flight;
mod movable;
mod setup;

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use crate::block::BlockPool;
use crate::blocking::{not_open, write};
use crate::desk::{Desk, FileWatch};
use crate::dir::Dir;
use crate::direct;
use crate::op::{Completion, Disk, DiskError, DiskFacts, FileId, Flush, Op, Slice, Tag, Wait};
use crate::options::{DiskOptions, Primitive};
use crate::planted::{Bug, planted};
use crate::sys::{Errno, Parts};
use crate::waker::Waker;
use entry::{Label, Memory, Target, WAKE};
use flight::{Flight, Step, Verdict, Work};
pub use movable::MovableUringDisk;
use setup::{Buffers, Granted};

/// A disk on io_uring. Must be opened on the thread that drives it, and stays there. Dropping it
/// carries out everything that was submitted, and waits for it.
pub struct UringDisk {
    ring: IoUring,
    desk: Desk,
    flights: Vec<Flight>,
    free: Vec<u32>,
    /// Operations for which there is no place yet; and a first write with a flush, until it is known
    /// whether more comes with it.
    backlog: VecDeque<(Tag, Op)>,
    /// Places whose next step found no room in the submission queue.
    stalled: VecDeque<u32>,
    /// How many submission entries there have been.
    pushed: u64,
    registered_files: bool,
    buffers: Buffers,
    /// Pools whose memory is registered once it is resident.
    later: Vec<BlockPool>,
    writev_fixed: bool,
    primitive: Primitive,
    parts: Parts,
    waker: Waker,
    poll_armed: bool,
    /// The event for callers that sleep elsewhere is signalled with each completion.
    outside: Cell<bool>,
    /// The caller has said that it sleeps elsewhere.
    away: bool,
    /// The ring itself has failed: nothing more is submitted to it.
    broken: Option<Errno>,
    facts: DiskFacts,
    /// Whatever must live as long as the disk: the lock of the log.
    _lock: Option<Dir>,
    /// The ring accepts one thread only.
    _not_send: PhantomData<*const ()>,
}

/// How a system call on the ring ended.
#[derive(PartialEq)]
enum Entered {
    Well,
    /// The kernel is short of something; completions have to be taken first, or time to pass.
    Busy,
    Broken,
}

struct RingFiles<'a>(Option<&'a IoUring>);

impl FileWatch for RingFiles<'_> {
    fn came(&mut self, file: FileId, fd: RawFd) -> Result<(), DiskError> {
        let Some(ring) = self.0.filter(|_| !planted(Bug::KeepStaleDescriptor)) else {
            return Ok(());
        };
        match ring.submitter().register_files_update(file.0, &[fd]) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(DiskError::from_errno(setup::errno(&error), "register a file with the ring"))
            }
        }
    }

    fn goes(&mut self, file: FileId) {
        if let Some(ring) = self.0 {
            // A file that stays in the table is replaced by the next of its id, at the latest.
            let _ = ring.submitter().register_files_update(file.0, &[-1]);
        }
    }
}

fn is_flushed_write(op: &Op) -> bool {
    matches!(op, Op::Write { flush: Flush::Own | Flush::File, .. })
}

impl UringDisk {
    /// A disk on the files of `dir`, driven by the calling thread. `lock` is a directory whose
    /// lock shall outlive every write in flight, even when the process dies.
    ///
    /// Fails with [`crate::DiskErrorKind::Access`] or [`crate::DiskErrorKind::Io`] when io_uring is
    /// refused, and when the directory cannot be looked at.
    pub fn open(dir: &Dir, lock: Option<&Dir>, options: &DiskOptions) -> Result<Self, DiskError> {
        let mut found = direct::examine(dir, options.direct, options.known_file.as_ref())?;
        let waker = Waker::with_event()?;
        let granted = setup::set_up(options, lock)?;
        let Granted { ring, registered_files, buffers, later, writev_fixed, in_flight_max, notes } =
            granted;
        found.notes.extend(notes);
        let mut disk = Self {
            ring,
            desk: Desk::new(dir, &found, options.names_thread, &waker),
            flights: (0..in_flight_max).map(|_| Flight::free()).collect(),
            free: (0..in_flight_max as u32).rev().collect(),
            backlog: VecDeque::new(),
            stalled: VecDeque::new(),
            pushed: 0,
            registered_files,
            buffers,
            later,
            writev_fixed,
            primitive: options.primitive,
            parts: Parts::default(),
            waker,
            poll_armed: false,
            outside: Cell::new(false),
            away: false,
            broken: None,
            facts: DiskFacts {
                kind: "io_uring",
                align_bytes: found.align_bytes,
                direct: found.direct,
                commit_primitive: match options.primitive {
                    Primitive::Dsync => "RWF_DSYNC",
                    Primitive::LinkedSync => "linked fdatasync",
                },
                file_system: found.file_system,
                notes: found.notes,
            },
            _lock: lock.cloned(),
            _not_send: PhantomData,
        };
        disk.arm_poll();
        disk.enter(0, None);
        disk.take_completions(&mut Vec::new());
        match disk.broken {
            Some(errno) => Err(DiskError::from_errno(errno, "enter io_uring")),
            // A kernel without multishot polls says so at once.
            None if !disk.poll_armed => {
                Err(DiskError::from_errno(libc::ENOSYS, "poll in io_uring (too old a kernel)"))
            }
            None => Ok(disk),
        }
    }

    /// The descriptor that is readable when something has completed, for the event loop of a caller
    /// that sleeps elsewhere. Fails when there is no descriptor to be had.
    pub fn poll_fd(&self) -> Result<BorrowedFd<'_>, DiskError> {
        let event = self.waker.outside()?;
        if !self.outside.get() {
            // Not the ring's own descriptor: with DEFER_TASKRUN it does not wake who polls it. Nor
            // the event that the ring polls: a signal made by a signal comes late, if at all.
            self.ring.submitter().register_eventfd(event.as_fd().as_raw_fd()).map_err(|error| {
                DiskError::from_errno(setup::errno(&error), "register an eventfd")
            })?;
            self.outside.set(true);
        }
        Ok(event.as_fd())
    }

    /// Announces that the caller is about to sleep until [`UringDisk::poll_fd`] is readable. False
    /// when it must not, because something is there already. Ends with the next `reap`.
    pub fn about_to_sleep(&mut self) -> bool {
        Disk::send(self);
        // What is signalled from here on is not lost, and what was before is looked for.
        if self.poll_fd().is_err() {
            return false;
        }
        self.waker.clear_outside();
        let nothing = {
            let queue = self.ring.submission();
            queue.is_empty() && !queue.taskrun() && !queue.cq_overflow()
        } && self.ring.completion().is_empty()
            && !self.desk.has_ready()
            && !self.desk.is_in_place()
            && self.broken.is_none();
        self.away = nothing && self.waker.leave();
        self.away
    }

    fn busy(&self) -> usize {
        self.flights.len() - self.free.len()
    }

    fn arm_poll(&mut self) {
        let Some(event) = self.waker.event_fd() else {
            return;
        };
        if self.room() == 0 {
            return;
        }
        self.waker.clear_event();
        let poll = opcode::PollAdd::new(Fd(event), libc::POLLIN as u32).multi(true).build();
        self.poll_armed = self.push(&poll.user_data(WAKE));
    }

    fn room(&mut self) -> usize {
        let queue = self.ring.submission();
        queue.capacity() - queue.len()
    }

    fn push(&mut self, entry: &Entry) -> bool {
        // SAFETY: whatever memory the entry points to is owned by the operation's place (blocks
        // and the vectors that describe them) and is given back only after the entry's completion;
        // an entry for the poll points to nothing.
        let pushed = unsafe { self.ring.submission().push(entry) }.is_ok();
        self.pushed += u64::from(pushed);
        pushed
    }

    /// Starts an admitted operation, or has it wait.
    fn take_in(&mut self, tag: Tag, op: Op) {
        let full = self.free.is_empty() || !self.backlog.is_empty() || !self.stalled.is_empty();
        if full || self.busy() == 0 && is_flushed_write(&op) {
            self.backlog.push_back((tag, op));
        } else {
            self.start(tag, op);
        }
    }

    /// Gives an admitted operation a place and sends its first step.
    fn start(&mut self, tag: Tag, op: Op) {
        let (file, work) = match op {
            Op::Write { file, offset, data, flush } => (file, Work::Write { data, offset, flush }),
            Op::Read { file, offset, block, len } => {
                (file, Work::Read { slice: Slice { block, len }, offset })
            }
            Op::Sync { file } => (file, Work::Sync),
            // The desk keeps operations on names.
            _ => return,
        };
        let Some(place) = self.free.pop() else { return };
        let primitive = self.primitive;
        self.flights[place as usize].begin(tag, file, work, primitive);
        self.send(place);
    }

    /// Puts the step of a place into the submission queue, whole or not at all.
    fn send(&mut self, place: u32) {
        let needed = usize::from(self.flights[place as usize].step.entries());
        if self.room() < needed {
            self.enter(0, None);
            if self.room() < needed || self.broken.is_some() {
                self.stalled.push_back(place);
                return;
            }
        }
        let entries = self.entries(place);
        let head_at = self.pushed;
        for entry in entries.iter().flatten() {
            self.push(entry);
        }
        let flight = &mut self.flights[place as usize];
        flight.expect(flight.step, head_at);
    }

    /// The submission entries of a place's step.
    fn entries(&mut self, place: u32) -> [Option<Entry>; 2] {
        let file = self.flights[place as usize].file;
        let target = if self.registered_files {
            Target::Registered(file.0)
        } else {
            Target::Descriptor(self.desk.fd(file).map_or(-1, |fd| fd.as_raw_fd()))
        };
        self.register_later();
        let memory = Memory { buffers: &self.buffers, writev_fixed: self.writev_fixed };
        entry::entries(&mut self.flights[place as usize], place, target, &memory)
    }

    /// Whether the memory of a pool is registered.
    #[cfg(test)]
    pub(crate) fn registers(&self, pool: &BlockPool) -> bool {
        self.buffers.has(pool)
    }

    /// Registers memory that was not resident when the ring was made, and is by now: a system call, once.
    fn register_later(&mut self) {
        if !self.later.is_empty() && self.later.iter().all(BlockPool::is_resident) {
            let pools = std::mem::take(&mut self.later);
            self.buffers = Buffers::register(&self.ring, &pools, &mut self.facts.notes);
        }
    }

    /// Submits what is queued and waits for `want` completions, at most so long.
    fn enter(&mut self, want: usize, at_most: Option<Duration>) -> Entered {
        if self.broken.is_some() {
            return Entered::Broken;
        }
        let result = match at_most {
            None => self.ring.submitter().submit_and_wait(want),
            Some(limit) => {
                let limit = Timespec::from(limit);
                let args = SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(want, &args)
            }
        };
        let left = self.ring.submission().len() as u64;
        if left > 0 {
            self.mark_split_chain(self.pushed - left);
        }
        match result {
            Ok(_) => Entered::Well,
            Err(error) => match setup::errno(&error) {
                libc::EINTR | libc::ETIME => Entered::Well,
                libc::EAGAIN | libc::EBUSY => Entered::Busy,
                errno => {
                    self.broken = Some(errno);
                    Entered::Broken
                }
            },
        }
    }

    /// The kernel took the entries before `boundary` and no more: a link does not reach across.
    fn mark_split_chain(&mut self, boundary: u64) {
        for flight in &mut self.flights {
            let linked = flight.step == Step::WriteThenSync && flight.awaited > 0;
            if linked && flight.head_at + 1 == boundary {
                flight.split = true;
            }
        }
    }

    /// Takes every completion that is in the queue, and those that the kernel held back.
    fn take_completions(&mut self, out: &mut Vec<Completion>) {
        loop {
            while let Some(entry) = {
                let mut queue = self.ring.completion();
                queue.next()
            } {
                self.take(&entry, out);
            }
            if !self.ring.submission().cq_overflow() || self.enter(0, None) != Entered::Well {
                return;
            }
        }
    }

    fn take(&mut self, entry: &cqueue::Entry, out: &mut Vec<Completion>) {
        let Some(label) = Label::read(entry.user_data()) else {
            self.poll_armed = cqueue::more(entry.flags());
            return;
        };
        let place = label.place;
        let Some(flight) = self.flights.get_mut(place as usize) else { return };
        if flight.generation != label.generation || flight.awaited == 0 {
            return;
        }
        if label.is_sync {
            flight.sync_result = Some(entry.result());
        } else {
            flight.write_result = Some(entry.result());
        }
        flight.awaited -= 1;
        if flight.awaited > 0 {
            return;
        }
        match flight.settle() {
            Verdict::Again(step) => {
                flight.step = step;
                self.send(place);
            }
            Verdict::End(result) => {
                let file = flight.file;
                out.push(flight.end(result));
                self.free.push(place);
                self.desk.release(file);
            }
        }
    }

    /// Sends what could not be sent before.
    fn send_waiting(&mut self) {
        for _ in 0..self.stalled.len() {
            if let Some(place) = self.stalled.pop_front() {
                self.send(place);
            }
        }
        while self.stalled.is_empty()
            && !self.free.is_empty()
            && let Some((tag, op)) = self.backlog.pop_front()
        {
            self.start(tag, op);
        }
    }

    fn collect(&mut self, out: &mut Vec<Completion>) {
        if self.desk.pending() > 0 {
            self.desk.collect(&mut RingFiles(self.registered_files.then_some(&self.ring)), out);
        }
    }

    /// Submits and takes what there is, without waiting and without a needless system call.
    fn poll(&mut self, out: &mut Vec<Completion>) {
        self.send_waiting();
        let due = {
            let queue = self.ring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        };
        if due {
            self.enter(0, None);
        }
        self.take_completions(out);
        self.send_waiting();
        self.fail_unsubmitted(out);
    }

    /// Submits, and waits in the ring for a completion or a wake. True when the wait is over for
    /// another reason than a completion.
    fn wait_in_ring(&mut self, deadline: Option<Instant>, out: &mut Vec<Completion>) -> bool {
        if !self.poll_armed {
            self.arm_poll();
        }
        let limit = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let awake = !self.waker.enter_ring();
        let entered = self.enter(usize::from(!awake), limit);
        let woken = self.waker.left_ring();
        let before = out.len();
        self.take_completions(out);
        self.send_waiting();
        if entered != Entered::Well && out.len() == before {
            self.fail_unsubmitted(out);
            // Nothing tells when the kernel will have what it lacks.
            std::thread::sleep(Duration::from_micros(100));
        }
        woken || limit.is_some_and(|limit| limit.is_zero())
    }

    /// After the ring itself has failed: ends every operation that the kernel has not seen. (What
    /// it has seen keeps its memory until its completion comes.)
    fn fail_unsubmitted(&mut self, out: &mut Vec<Completion>) {
        let Some(errno) = self.broken else { return };
        let taken = self.pushed - self.ring.submission().len() as u64;
        let stalled = std::mem::take(&mut self.stalled);
        for place in 0..self.flights.len() as u32 {
            let flight = &mut self.flights[place as usize];
            if matches!(flight.work, Work::None) {
                continue;
            }
            let unseen = flight.head_at >= taken || stalled.contains(&place);
            if flight.split && !unseen && flight.sync_result.is_none() {
                // The linked flush will never be taken.
                flight.sync_result = Some(-errno);
                flight.awaited = flight.awaited.saturating_sub(1);
            }
            if unseen || flight.awaited == 0 {
                flight.awaited = 0;
                let file = flight.file;
                out.push(flight.end(Err(DiskError::from_errno(errno, "enter io_uring"))));
                self.free.push(place);
                self.desk.release(file);
            }
        }
    }
}

impl Disk for UringDisk {
    fn submit(&mut self, tag: Tag, op: Op) {
        let mut files = RingFiles(self.registered_files.then_some(&self.ring));
        if let Some(op) = self.desk.admit(tag, op, &mut files) {
            self.take_in(tag, op);
        }
    }

    fn submit_alone(&mut self, tag: Tag, op: Op) {
        let mut files = RingFiles(self.registered_files.then_some(&self.ring));
        if let Some(op) = self.desk.admit_alone(tag, op, &mut files) {
            self.take_in(tag, op);
        }
    }

    fn send(&mut self) {
        self.send_waiting();
        if !self.ring.submission().is_empty() {
            self.enter(0, None);
        }
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        let before = out.len();
        if std::mem::take(&mut self.away) {
            self.waker.came_back();
        }
        self.collect(out);
        let mut deadline = None;
        loop {
            if out.len() > before || wait == Wait::No {
                self.poll(out);
                break;
            }
            self.send_waiting();
            if let (Wait::AtMost(limit), None) = (wait, deadline) {
                // A limit beyond the end of time is none.
                deadline = Instant::now().checked_add(limit);
            }
            let over = if self.busy() > 0 {
                self.wait_in_ring(deadline, out)
            } else {
                let limit = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                self.waker.park(limit);
                true
            };
            self.collect(out);
            if over {
                break;
            }
        }
        Disk::send(self);
    }

    fn carry_out(&mut self, out: &mut Vec<Completion>) -> bool {
        let alone = self.busy() == 0 && self.backlog.len() == 1 && self.broken.is_none();
        if !alone || !self.backlog.front().is_some_and(|(_, op)| is_flushed_write(op)) {
            return false;
        }
        let Some((tag, op)) = self.backlog.pop_front() else { return false };
        if std::mem::take(&mut self.away) {
            self.waker.came_back();
        }
        if let Op::Write { file, offset, data, flush } = op {
            let result = match self.desk.fd(file) {
                Some(fd) => write(fd, &data, offset, flush, self.primitive, &mut self.parts),
                None => Err(not_open()),
            };
            self.desk.release(file);
            out.push(Completion { tag, slices: data, result });
        }
        self.collect(out);
        true
    }

    fn in_flight(&self) -> usize {
        self.busy() + self.backlog.len() + self.desk.pending()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn facts(&self) -> &DiskFacts {
        &self.facts
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        let mut out = Vec::new();
        while self.in_flight() > 0 && self.broken.is_none() {
            self.reap(Wait::Any, &mut out);
            out.clear();
        }
        for flight in &mut self.flights {
            // Only after the ring itself has failed: the kernel may still use this memory, and
            // nothing will ever tell when it does not. It is given up for good.
            std::mem::forget(std::mem::replace(&mut flight.work, Work::None));
        }
        if self.registered_files {
            // Lets go of the files and of the lock now; a closed ring does so a little later.
            let _ = self.ring.submitter().unregister_files();
        }
    }
}

impl std::fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UringDisk({} in flight)", self.in_flight())
    }
}
