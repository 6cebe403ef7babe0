//! Operations on names: carried out one after another, on a thread of their own or in place.
//!
//! Everything is relative to one open directory; no symbolic link is followed, and what is no
//! regular file is refused. The runner knows neither tags nor file ids.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::block::BlockPool;
use crate::dir::{Dir, c_name, file_name};
use crate::op::{Content, DiskError, DiskErrorKind, Done, FileName, Listed};
use crate::planted::{Bug, planted};
use crate::sys;
use crate::waker::Waker;

/// How often a file is read again that was replaced meanwhile.
const LOADS_MAX: u32 = 100;
/// What was read is compared with the file in pieces of this size.
const COMPARE_BYTES: usize = 64 << 10;

const FILE_MODE: libc::mode_t = 0o600;
/// New files are filled in writes of this size, one at a time, while nobody else writes.
const FILL_BYTES: usize = 1 << 20;
/// And of this size while somebody does, so that a commit never queues behind much.
const POLITE_FILL_BYTES: usize = 128 << 10;
/// Then a pause follows each write, so many times as long as the write took ...
const POLITE_PAUSE: u32 = 2;
/// ... but never longer than this.
const POLITE_PAUSE_MAX: Duration = Duration::from_millis(5);

/// Counts operations on data, so that the thread for names sees whether there are any to give way
/// to. One thread counts, another one looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic(Arc<AtomicU64>);

impl Traffic {
    pub(crate) fn note(&self) {
        // A single thread writes, so this need not be one atomic step.
        let count = self.0.load(Ordering::Relaxed);
        self.0.store(count.wrapping_add(1), Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One operation on names, with what it needs.
pub(crate) enum Job {
    Open { name: FileName, write: bool },
    Create { name: FileName, bytes: u64 },
    Close(OwnedFd),
    Rename { from: FileName, to: FileName },
    Remove { name: FileName },
    Replace { name: FileName, content: Vec<u8> },
    Store { name: FileName, content: Content },
    Load { name: FileName, limit_bytes: u64 },
    SyncDir,
    List,
}

/// What a job brings: its result, and the file it opened.
pub(crate) struct Outcome {
    pub(crate) done: Done,
    pub(crate) file: Option<OwnedFd>,
}

type JobResult = Result<Outcome, DiskError>;

/// Carries out jobs in one directory.
pub(crate) struct Runner {
    dir: Dir,
    direct: bool,
    /// Whom to give way to while filling a file; on a thread of its own only.
    traffic: Option<Traffic>,
    /// Zeros to fill files with; mapped when first needed.
    zeros: Option<BlockPool>,
    /// How much traffic there had been when it was last looked at.
    seen: u64,
    /// A file beside which the one that it replaced lies, to be written over the next time.
    spare: Option<FileName>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(beside) = self.spare.take().and_then(|name| beside(&name)) {
            let _ = sys::unlink_at(self.dir.as_fd(), &c_name(&beside)); // it disturbs nobody
        }
    }
}

/// Where the next content of a file is written.
fn beside(name: &FileName) -> Option<FileName> {
    FileName::new(format!("{name}.tmp"))
}

impl Runner {
    pub(crate) fn new(dir: Dir, direct: bool, traffic: Option<Traffic>) -> Self {
        Self { dir, direct, traffic, zeros: None, seen: 0, spare: None }
    }

    /// Takes it out, and leaves one that knows nothing.
    fn take(&mut self) -> Self {
        let empty = Self::new(self.dir.clone(), self.direct, None);
        std::mem::replace(self, empty)
    }

    pub(crate) fn run(&mut self, job: Job) -> JobResult {
        let done = match job {
            Job::Open { name, write } => return self.open(&name, write),
            Job::Create { name, bytes } => return self.create(&name, bytes),
            Job::Close(file) => {
                drop(file);
                Done::Closed
            }
            Job::Rename { from, to } => {
                let doing = format!("rename {from} to {to}");
                let (from, to) = (c_name(&from), c_name(&to));
                self.demand_regular(&from, &doing)?;
                sys::rename_at(self.dir.as_fd(), &from, &to)
                    .map_err(|errno| DiskError::from_errno(errno, doing))?;
                Done::Named
            }
            Job::Remove { name } => {
                let doing = format!("remove {name}");
                let name = c_name(&name);
                self.demand_regular(&name, &doing)?;
                sys::unlink_at(self.dir.as_fd(), &name)
                    .map_err(|errno| DiskError::from_errno(errno, doing))?;
                Done::Named
            }
            Job::Replace { name, content } => {
                self.replace(&name, &content, true)?;
                Done::Named
            }
            Job::Store { name, content } => {
                self.replace(&name, &content.into_bytes(), false)?;
                Done::Named
            }
            Job::Load { name, limit_bytes } => Done::Loaded(self.load(&name, limit_bytes)?),
            Job::SyncDir => {
                self.dir.sync()?;
                Done::Named
            }
            Job::List => self.list()?,
        };
        Ok(Outcome { done, file: None })
    }

    fn demand_regular(&self, name: &CStr, doing: &str) -> Result<(), DiskError> {
        let stat = sys::stat_at(self.dir.as_fd(), name)
            .map_err(|errno| DiskError::from_errno(errno, doing))?;
        if sys::is_regular(&stat) {
            Ok(())
        } else {
            Err(DiskError::new(DiskErrorKind::Unexpected, format!("{doing} (no regular file)")))
        }
    }

    /// Opens a regular file; returns its length too.
    fn open_regular(
        &self,
        name: &FileName,
        flags: i32,
        doing: &str,
    ) -> Result<(OwnedFd, u64), DiskError> {
        let failed = |errno| DiskError::from_errno(errno, doing);
        let name = c_name(name);
        let follows = planted(Bug::FollowLinks);
        if !follows {
            self.demand_regular(&name, doing)?;
        }
        let flags = if follows { flags } else { flags | libc::O_NOFOLLOW };
        // Should it have become a pipe meanwhile, opening must not wait for the other end.
        let flags = flags | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = sys::open_at(self.dir.as_fd(), &name, flags, 0).map_err(failed)?;
        let stat = sys::stat(file.as_fd()).map_err(failed)?;
        if !sys::is_regular(&stat) {
            return Err(DiskError::new(DiskErrorKind::Unexpected, doing));
        }
        // A ring would take the flag as a wish never to wait for the device.
        sys::clear_nonblock(file.as_fd()).map_err(failed)?;
        Ok((file, u64::try_from(stat.st_size).unwrap_or(0)))
    }

    fn direct_flag(&self) -> i32 {
        if self.direct { libc::O_DIRECT } else { 0 }
    }

    fn open(&self, name: &FileName, write: bool) -> JobResult {
        let access = if write { libc::O_RDWR } else { libc::O_RDONLY };
        let (file, bytes) =
            self.open_regular(name, access | self.direct_flag(), &format!("open {name}"))?;
        Ok(Outcome { done: Done::Opened { bytes }, file: Some(file) })
    }

    /// Creates a file of ours under a name that is free.
    fn new_file(&self, name: &CStr, flags: i32) -> Result<OwnedFd, sys::Errno> {
        let flags = flags | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = sys::open_at(self.dir.as_fd(), name, flags, FILE_MODE)?;
        let mode = if planted(Bug::LeaveModeToUmask) { 0o644 } else { FILE_MODE };
        if let Err(errno) = sys::change_mode(file.as_fd(), mode) {
            let _ = sys::unlink_at(self.dir.as_fd(), name);
            return Err(errno);
        }
        Ok(file)
    }

    fn create(&mut self, name: &FileName, bytes: u64) -> JobResult {
        let doing = format!("create {name}");
        let failed = |errno| DiskError::from_errno(errno, doing.as_str());
        let c_name = c_name(name);
        let file = self.new_file(&c_name, libc::O_RDWR | self.direct_flag()).map_err(failed)?;
        match self.fill(&file, bytes, &doing) {
            Ok(()) => Ok(Outcome { done: Done::Opened { bytes }, file: Some(file) }),
            Err(error) => {
                // The first error is the one to tell; that the name may stay is the lesser evil.
                let _ = sys::unlink_at(self.dir.as_fd(), &c_name);
                Err(error)
            }
        }
    }

    /// Makes an empty file `bytes` long, of zeros that are really on the device.
    fn fill(&mut self, file: &OwnedFd, bytes: u64, doing: &str) -> Result<(), DiskError> {
        let failed = |errno| DiskError::from_errno(errno, doing);
        let file = file.as_fd();
        if bytes == 0 {
            return sys::sync_all(file).map_err(failed);
        }
        let by_device = sys::allocate(file, sys::FALLOC_WRITE_ZEROES, bytes).is_ok()
            && sys::stat(file).map_err(failed)?.st_size as u64 == bytes;
        if !by_device {
            match sys::allocate(file, 0, bytes) {
                // Where space cannot be reserved, writing it will do.
                Ok(()) | Err(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => {}
                Err(errno) => return Err(failed(errno)),
            }
            let zeros = match &self.zeros {
                Some(pool) => pool.clone(),
                None => self.zeros.insert(BlockPool::resident(1, FILL_BYTES)?).clone(),
            };
            let Some(block) = zeros.take() else {
                return Err(DiskError::new(DiskErrorKind::Limit, doing));
            };
            self.write_zeros(file, bytes, &block).map_err(failed)?;
        }
        if planted(Bug::SkipSyncOfCreated) {
            return Ok(());
        }
        sys::sync_all(file).map_err(failed)
    }

    fn write_zeros(
        &mut self,
        file: BorrowedFd<'_>,
        bytes: u64,
        zeros: &[u8],
    ) -> Result<(), sys::Errno> {
        let traffic = self.traffic.clone();
        let count = || traffic.as_ref().map_or(0, Traffic::count);
        // At the beginning, what has happened since the last look counts.
        let mut at = 0;
        while at < bytes {
            let now = count();
            let polite = now != self.seen;
            self.seen = now;
            let most = if polite { POLITE_FILL_BYTES } else { FILL_BYTES };
            let len = usize::try_from(bytes - at).map_or(most, |left| left.min(most));
            let begun = Instant::now();
            match sys::write_at(file, &zeros[..len], at)? {
                0 => return Err(libc::EIO),
                written => at += written as u64,
            }
            if polite && at < bytes {
                std::thread::sleep((begun.elapsed() * POLITE_PAUSE).min(POLITE_PAUSE_MAX));
            }
        }
        Ok(())
    }

    /// Writes `content` beside the file, and puts it in its place in one step.
    ///
    /// A file that is replaced again and again, such as a manifest, changes places with the new one:
    /// the old one stays beside it, and is written over the next time. So nothing is created and
    /// nothing freed, which a file system pays for with searches and writes of its own.
    fn replace(&mut self, name: &FileName, content: &[u8], durably: bool) -> Result<(), DiskError> {
        let doing = format!("{} {name}", if durably { "replace" } else { "store" });
        let failed = |errno| DiskError::from_errno(errno, doing.as_str());
        let Some(beside) = beside(name) else {
            return Err(DiskError::new(
                DiskErrorKind::Unexpected,
                format!("{doing}: a name of more than 60 bytes"),
            ));
        };
        let (beside, c_name) = (c_name(&beside), c_name(name));
        let dir = self.dir.as_fd();
        // Only what this runner has left there, and what a durable name no longer leads to.
        let spare = self.spare.take_if(|spare| spare == name);
        let file = match spare.and_then(|_| self.open_spare(&beside)) {
            Some(file) => file,
            None => {
                match sys::unlink_at(dir, &beside) {
                    Ok(()) | Err(libc::ENOENT) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                self.new_file(&beside, libc::O_WRONLY).map_err(failed)?
            }
        };
        let written = write_all(&file, content)
            .and_then(|()| sys::set_length(file.as_fd(), content.len() as u64))
            .and_then(|()| match durably && !planted(Bug::SkipSyncOfReplaced) {
                true => sys::sync_all(file.as_fd()),
                false => Ok(()),
            });
        // A link or a directory is no file of ours: it is replaced, or it refuses.
        let exchanged = written.is_ok()
            && durably
            && sys::stat_at(dir, &c_name).is_ok_and(|stat| sys::is_regular(&stat))
            && sys::exchange_at(dir, &beside, &c_name).is_ok(); // not every file system can
        let moved = written
            .and_then(|()| if exchanged { Ok(()) } else { sys::rename_at(dir, &beside, &c_name) });
        if let Err(errno) = moved {
            let _ = sys::unlink_at(dir, &beside);
            return Err(failed(errno));
        }
        if durably && !planted(Bug::SkipNameOfReplaced) {
            self.dir.sync()?;
        }
        if exchanged {
            self.spare = Some(name.clone());
        }
        Ok(())
    }

    /// The file that lies beside another one since it was replaced, if it is still what it was.
    fn open_spare(&self, name: &CStr) -> Option<OwnedFd> {
        let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = sys::open_at(self.dir.as_fd(), name, flags, 0).ok()?;
        let stat = sys::stat(file.as_fd()).ok()?;
        let alone = stat.st_nlink == 1 || planted(Bug::WriteIntoHardLink);
        (sys::is_regular(&stat) && alone).then_some(file)
    }

    /// What was in the file of that name at one moment.
    pub(crate) fn load(&self, name: &FileName, limit_bytes: u64) -> Result<Vec<u8>, DiskError> {
        for _ in 0..LOADS_MAX {
            let Some((content, file)) = self.load_once(name, limit_bytes)? else { continue };
            if self.is_still(name, &content, &file)? {
                return Ok(content);
            }
        }
        Err(DiskError::new(DiskErrorKind::Unexpected, format!("load {name}: it never stays")))
    }

    /// Whether a file that was read is the one of that name, and holds just this.
    ///
    /// A file that another process replaces again and again may be written over while it is read,
    /// but only while it does not have the name. It gets that back with the next content, though:
    /// so it is read once more after it was seen to have the name.
    pub(crate) fn is_still(
        &self,
        name: &FileName,
        content: &[u8],
        file: &OwnedFd,
    ) -> Result<bool, DiskError> {
        let named = sys::stat_at(self.dir.as_fd(), &c_name(name));
        let (Ok(named), Ok(read)) = (named, sys::stat(file.as_fd())) else { return Ok(true) };
        if planted(Bug::MixTwoContents) {
            return Ok(true);
        }
        if (named.st_dev, named.st_ino) != (read.st_dev, read.st_ino) {
            return Ok(false);
        }
        let mut piece = vec![0; content.len().saturating_add(1).min(COMPARE_BYTES)];
        let mut at = 0;
        loop {
            let here = sys::read_at(file.as_fd(), &mut piece, at as u64)
                .map_err(|errno| DiskError::from_errno(errno, format!("load {name}")))?;
            if here == 0 {
                return Ok(at == content.len());
            }
            if content.get(at..at + here) != Some(&piece[..here]) {
                return Ok(false);
            }
            at += here;
        }
    }

    /// The content, and the file that it is from; nothing when it grew while it was read.
    pub(crate) fn load_once(
        &self,
        name: &FileName,
        limit_bytes: u64,
    ) -> Result<Option<(Vec<u8>, OwnedFd)>, DiskError> {
        let doing = format!("load {name}");
        let over = || {
            let what = format!("{doing}: longer than {limit_bytes} bytes");
            DiskError::new(DiskErrorKind::Unexpected, what)
        };
        let (file, bytes) = self.open_regular(name, libc::O_RDONLY, &doing)?;
        if bytes > limit_bytes {
            return Err(over());
        }
        let mut content = Vec::new();
        let room = usize::try_from(bytes).ok().and_then(|n| n.checked_add(1));
        let reserved = room.is_some_and(|n| content.try_reserve_exact(n).is_ok());
        let (Some(room), true) = (room, reserved) else {
            return Err(DiskError::new(DiskErrorKind::Limit, doing));
        };
        // One byte more than expected, so that the end is seen.
        content.resize(room, 0);
        let mut filled = 0;
        loop {
            if filled == content.len() {
                return Ok(None);
            }
            match sys::read_at(file.as_fd(), &mut content[filled..], filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(errno) => return Err(DiskError::from_errno(errno, doing)),
            }
        }
        content.truncate(filled);
        Ok(Some((content, file)))
    }

    fn list(&self) -> Result<Done, DiskError> {
        let mut files = Vec::new();
        let mut others = 0;
        let spare = self.spare.as_ref().and_then(beside);
        for entry in self.dir.raw_entries()? {
            let stat = match sys::stat_at(self.dir.as_fd(), &entry) {
                Ok(stat) => stat,
                Err(libc::ENOENT) => continue,
                Err(errno) => return Err(DiskError::from_errno(errno, "list the directory")),
            };
            match file_name(&entry) {
                // Part of how a file is replaced: nobody but this runner has to know.
                name if name.is_some() && name == spare => {}
                Some(name) if sys::is_regular(&stat) => {
                    files.push(Listed { name, bytes: u64::try_from(stat.st_size).unwrap_or(0) });
                }
                _ => others += 1,
            }
        }
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Done::Listed { files, others })
    }
}

fn write_all(file: &OwnedFd, content: &[u8]) -> Result<(), sys::Errno> {
    let mut written = 0;
    while written < content.len() {
        match sys::write_at(file.as_fd(), &content[written..], written as u64)? {
            0 => return Err(libc::EIO),
            n => written += n,
        }
    }
    Ok(())
}

/// Jobs in order, each with a ticket of the owner's that comes back with its result.
pub(crate) struct Names<T> {
    tickets: VecDeque<T>,
    how: How,
}

enum How {
    InPlace(Runner, VecDeque<Job>),
    /// In place for a caller that has nothing else to do; becomes `Thread` with the first job of one
    /// that has.
    Later(Runner, VecDeque<Job>, Waker),
    Thread(Worker),
}

struct Worker {
    /// `None` only while it is being dropped.
    jobs: Option<mpsc::Sender<Job>>,
    results: mpsc::Receiver<JobResult>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Names<T> {
    /// Jobs are carried out inside [`Names::next`].
    pub(crate) fn in_place(dir: Dir, direct: bool) -> Self {
        let how = How::InPlace(Runner::new(dir, direct, None), VecDeque::new());
        Self { tickets: VecDeque::new(), how }
    }

    /// Jobs are carried out by a thread, which begins with the first; `waker` is woken after each.
    pub(crate) fn on_thread(dir: Dir, direct: bool, traffic: Traffic, waker: Waker) -> Self {
        let runner = Runner::new(dir, direct, Some(traffic));
        Self { tickets: VecDeque::new(), how: How::Later(runner, VecDeque::new(), waker) }
    }

    /// Whether jobs are carried out inside [`Names::next`].
    pub(crate) fn is_in_place(&self) -> bool {
        match &self.how {
            How::InPlace(..) => true,
            How::Later(_, jobs, _) => !jobs.is_empty(),
            How::Thread(_) => false,
        }
    }

    /// How many jobs have not come back.
    pub(crate) fn pending(&self) -> usize {
        self.tickets.len()
    }

    pub(crate) fn submit(&mut self, ticket: T, job: Job) {
        if let How::Later(runner, jobs, waker) = &mut self.how {
            let (runner, jobs) = (runner.take(), std::mem::take(jobs));
            self.how = match Worker::start(runner, waker.clone()) {
                Ok(worker) => How::Thread(worker),
                // No thread to be had: late is better than never.
                Err(mut runner) => {
                    runner.traffic = None;
                    How::InPlace(runner, VecDeque::new())
                }
            };
            jobs.into_iter().for_each(|job| self.hand_over(job));
        }
        self.tickets.push_back(ticket);
        self.hand_over(job);
    }

    /// The same for a caller that has nothing else to do meanwhile: where there is no thread yet, the job
    /// is carried out inside [`Names::next`], which saves two hand-overs.
    pub(crate) fn submit_alone(&mut self, ticket: T, job: Job) {
        match &mut self.how {
            How::Later(_, jobs, _) => {
                self.tickets.push_back(ticket);
                jobs.push_back(job);
            }
            _ => self.submit(ticket, job),
        }
    }

    fn hand_over(&mut self, job: Job) {
        match &mut self.how {
            How::InPlace(_, jobs) | How::Later(_, jobs, _) => jobs.push_back(job),
            How::Thread(Worker { jobs: Some(jobs), .. }) => {
                // Should the thread be gone, `next` finds that out.
                let _ = jobs.send(job);
            }
            How::Thread(_) => {}
        }
    }

    /// The next result that is there; in place, the next job is carried out for it.
    pub(crate) fn next(&mut self) -> Option<(T, JobResult)> {
        if self.tickets.is_empty() {
            return None;
        }
        let result = match &mut self.how {
            How::InPlace(runner, jobs) | How::Later(runner, jobs, _) => {
                runner.run(jobs.pop_front()?)
            }
            How::Thread(worker) => match worker.results.try_recv() {
                Ok(result) => result,
                Err(mpsc::TryRecvError::Empty) => return None,
                Err(mpsc::TryRecvError::Disconnected) => {
                    Err(DiskError::new(DiskErrorKind::Limit, "reach the thread for file names"))
                }
            },
        };
        Some((self.tickets.pop_front()?, result))
    }
}

impl Worker {
    /// Gives the runner back where there is no thread to be had.
    fn start(runner: Runner, waker: Waker) -> Result<Self, Runner> {
        /// Tells the driver that the thread has ended, however it ended.
        struct WakeAtEnd(Waker);
        impl Drop for WakeAtEnd {
            fn drop(&mut self) {
                self.0.wake();
            }
        }
        let (jobs, todo) = mpsc::channel::<Job>();
        let (done, results) = mpsc::channel();
        // Not moved in at once: a thread that does not begin would take it along.
        let (hand, from_hand) = mpsc::sync_channel::<Runner>(1);
        let name = "ringlog-names".to_owned();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let waker = WakeAtEnd(waker);
            let Ok(mut runner) = from_hand.recv() else { return };
            // Moved in, so that it is dropped before the last wake.
            let done = done;
            for job in todo {
                if done.send(runner.run(job)).is_err() {
                    break;
                }
                waker.0.wake();
            }
        });
        let Ok(thread) = thread else { return Err(runner) };
        let _ = hand.send(runner); // it waits for it
        Ok(Self { jobs: Some(jobs), results, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The thread carries out what is queued, then sees that there is nobody left.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
