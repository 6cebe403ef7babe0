//! The disk on a directory of a [`super::MemoryDevice`]: one opener's view of it.
//!
//! Everything is carried out inside `reap`, in the order of submission.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use super::file::{Content, UNIT_BYTES};
use super::{Directory, File, MemoryDir, State, content_of, content_of_mut, cut_off};
use crate::desk::{is_sound_read, is_sound_write};
use crate::op::{
    Completion, Disk, DiskError, DiskErrorKind, DiskFacts, Done, FileId, FileName, Flush, Op,
    Slice, Tag, Wait,
};
use crate::waker::Waker;

/// A file in the table.
enum Slot {
    Free,
    /// Being opened or closed.
    Changing,
    Open(OpenFile),
}

struct OpenFile {
    file: File,
    write: bool,
    /// Operations on data that are submitted and not carried out.
    busy: u32,
}

/// What was submitted: an operation that may be carried out, or the end of one that may not.
enum Submitted {
    Op(Tag, Op),
    Close(Tag, FileId),
    Refused(Completion),
}

/// A disk in memory. Dropping it carries out everything that was submitted.
pub struct MemoryDisk {
    dir: MemoryDir,
    slots: Vec<Slot>,
    queue: VecDeque<Submitted>,
    waker: Waker,
    /// The caller has said that it sleeps elsewhere.
    away: bool,
    facts: DiskFacts,
    /// Whatever must live as long as the disk: the lock of the log.
    _lock: Option<MemoryDir>,
}

fn unexpected(what: impl Into<String>) -> DiskError {
    DiskError::new(DiskErrorKind::Unexpected, what)
}

/// What an operation does, for the error that it may end with.
fn doing(op: &Op) -> String {
    match op {
        Op::Write { .. } => "write".to_owned(),
        Op::Sync { .. } => "flush".to_owned(),
        Op::Read { .. } => "read".to_owned(),
        Op::Open { name, .. } => format!("open {name}"),
        Op::Create { name, .. } => format!("create {name}"),
        Op::Close { .. } => "close".to_owned(),
        Op::Rename { from, to } => format!("rename {from} to {to}"),
        Op::Remove { name } => format!("remove {name}"),
        Op::Replace { name, .. } => format!("replace {name}"),
        Op::Store { name, .. } => format!("store {name}"),
        Op::Load { name, .. } => format!("load {name}"),
        Op::SyncDir => "flush the directory".to_owned(),
        Op::List => "list the directory".to_owned(),
    }
}

impl MemoryDisk {
    /// A disk on the files of `dir`. `lock` is a directory whose lock this disk keeps alive.
    pub fn open(dir: &MemoryDir, lock: Option<&MemoryDir>) -> Self {
        Self {
            dir: dir.clone(),
            slots: (0..FileId::LIMIT).map(|_| Slot::Free).collect(),
            queue: VecDeque::new(),
            waker: Waker::new(),
            away: false,
            facts: DiskFacts {
                kind: "memory",
                align_bytes: UNIT_BYTES as u32,
                direct: false,
                commit_primitive: "memory",
                file_system: "memory".to_owned(),
                notes: vec![
                    "The log is in memory: nothing of it survives this process.".to_owned(),
                ],
            },
            _lock: lock.cloned(),
        }
    }

    /// See [`crate::AnyDisk::poll_fd`].
    pub fn poll_fd(&self) -> Result<BorrowedFd<'_>, DiskError> {
        self.waker.outside().map(AsFd::as_fd)
    }

    /// See [`crate::AnyDisk::about_to_sleep`].
    pub fn about_to_sleep(&mut self) -> bool {
        self.away = self.queue.is_empty() && self.waker.leave();
        self.away
    }

    fn slot(&mut self, file: FileId) -> Option<&mut OpenFile> {
        match self.slots.get_mut(file.0 as usize) {
            Some(Slot::Open(open)) => Some(open),
            _ => None,
        }
    }

    /// Checks an operation on data; its file counts as busy then.
    fn admit_data(&mut self, file: FileId, writes: bool, sound: bool) -> Result<(), DiskError> {
        if !sound {
            return Err(unexpected("a bad offset, length or slice"));
        }
        match self.slot(file) {
            None => Err(unexpected("no such open file")),
            Some(open) if writes && !open.write => {
                Err(DiskError::new(DiskErrorKind::Access, "a file not open for writing"))
            }
            Some(open) => {
                open.busy += 1;
                Ok(())
            }
        }
    }

    /// Reserves the place of a file that is to be opened.
    fn admit_open(&mut self, file: FileId) -> Result<(), DiskError> {
        match self.slots.get_mut(file.0 as usize) {
            Some(slot @ Slot::Free) => *slot = Slot::Changing,
            _ => return Err(unexpected("open: a file id that is in use or too large")),
        }
        Ok(())
    }

    fn admit_close(&mut self, file: FileId) -> Result<(), DiskError> {
        match self.slots.get_mut(file.0 as usize) {
            Some(Slot::Open(open)) if open.busy > 0 => {
                Err(unexpected("close: operations in flight"))
            }
            Some(slot @ Slot::Open(_)) => {
                *slot = Slot::Changing;
                Ok(())
            }
            _ => Err(unexpected("close: no such open file")),
        }
    }

    fn admit(&mut self, op: &Op) -> Result<(), DiskError> {
        let align_bytes = UNIT_BYTES as u64;
        match op {
            Op::Write { file, offset, data, .. } => {
                self.admit_data(*file, true, is_sound_write(align_bytes, *offset, data))
            }
            Op::Sync { file } => self.admit_data(*file, true, true),
            Op::Read { file, offset, block, len } => {
                let sound = is_sound_read(align_bytes, *offset, block, *len);
                self.admit_data(*file, false, sound)
            }
            Op::Create { bytes, .. }
                if !bytes.is_multiple_of(align_bytes) || *bytes > i64::MAX as u64 =>
            {
                Err(unexpected("create: a bad length"))
            }
            Op::Create { file, .. } | Op::Open { file, .. } => self.admit_open(*file),
            Op::Close { file } => self.admit_close(*file),
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self, submitted: Submitted) -> Completion {
        let (tag, op) = match submitted {
            Submitted::Refused(completion) => return completion,
            Submitted::Close(tag, file) => {
                self.slots[file.0 as usize] = Slot::Free;
                return Completion { tag, slices: Vec::new(), result: Ok(Done::Closed) };
            }
            Submitted::Op(tag, op) => (tag, op),
        };
        match op {
            Op::Write { file, offset, data, flush } => {
                let result = self.on_file(file, "write", |dir, state, content| {
                    write(dir, state, content, offset, &data, flush)
                });
                Completion { tag, slices: data, result }
            }
            Op::Sync { file } => {
                let result = self.on_file(file, "flush", |dir, _, file| {
                    flush_content(dir, file).map(|()| Done::Synced)
                });
                Completion { tag, slices: Vec::new(), result }
            }
            Op::Read { file, offset, mut block, len } => {
                let result = self.on_file(file, "read", |_, _, file| {
                    Ok(Done::Read(content_of(file).read(offset, &mut block[..len])))
                });
                Completion { tag, slices: vec![Slice { block, len }], result }
            }
            op => Completion { tag, slices: Vec::new(), result: self.on_names(op) },
        }
    }

    /// An operation on data of an open file, at one instant of the device's life.
    fn on_file(
        &mut self,
        id: FileId,
        doing: &str,
        act: impl FnOnce(&MemoryDir, &State, &File) -> Result<Done, DiskError>,
    ) -> Result<Done, DiskError> {
        let Some(open) = self.slot(id) else { return Err(unexpected(doing)) };
        open.busy -= 1;
        let file = Arc::clone(&open.file);
        let state = self.dir.0.device.read();
        if state.life != self.dir.0.life {
            return Err(cut_off(doing));
        }
        act(&self.dir, &state, &file)
    }

    fn on_names(&mut self, op: Op) -> Result<Done, DiskError> {
        let doing = doing(&op);
        let opens = match op {
            Op::Open { file, write, .. } => Some((file, write)),
            Op::Create { file, .. } => Some((file, true)),
            _ => None,
        };
        let dir = self.dir.clone();
        let mut state = dir.0.device.write();
        let result = if state.life == dir.0.life {
            change_names(&dir, &mut state, op, &doing)
        } else {
            Err(cut_off(&doing))
        };
        drop(state);
        if let Some((id, write)) = opens {
            self.slots[id.0 as usize] = match &result {
                Ok((_, Some(file))) => {
                    Slot::Open(OpenFile { file: Arc::clone(file), write, busy: 0 })
                }
                _ => Slot::Free,
            };
        }
        result.map(|(done, _)| done)
    }

    fn carry_out_all(&mut self, out: &mut Vec<Completion>) {
        while let Some(submitted) = self.queue.pop_front() {
            let completion = self.carry_out(submitted);
            out.push(completion);
        }
    }
}

fn write(
    dir: &MemoryDir,
    state: &State,
    file: &File,
    offset: u64,
    data: &[Slice],
    flush: Flush,
) -> Result<Done, DiskError> {
    let device = dir.device();
    if device.write_fails() {
        return Err(DiskError::from_errno(libc::EIO, "write"));
    }
    let (bytes, end) = {
        let content = content_of(file);
        (content.bytes(), content.end_of(offset, data))
    };
    if end > bytes {
        device.demand_room(state, end - bytes, "write")?;
    }
    let flush_fails = flush != Flush::No && device.flush_fails();
    let mut content = content_of_mut(file);
    content.write(offset, data, flush == Flush::Own && !flush_fails)?;
    match flush {
        _ if flush_fails => {
            content.fail_flush();
            return Err(DiskError::from_errno(libc::EIO, "flush"));
        }
        Flush::File => content.flush(),
        Flush::Own | Flush::No => {}
    }
    Ok(Done::Wrote)
}

fn flush_content(dir: &MemoryDir, file: &File) -> Result<(), DiskError> {
    let mut content = content_of_mut(file);
    if dir.device().flush_fails() {
        content.fail_flush();
        return Err(DiskError::from_errno(libc::EIO, "flush"));
    }
    content.flush();
    Ok(())
}

/// Carries out an operation on names; gives the file that it opened.
fn change_names(
    dir: &MemoryDir,
    state: &mut State,
    op: Op,
    doing: &str,
) -> Result<(Done, Option<File>), DiskError> {
    let failed = |errno| DiskError::from_errno(errno, doing);
    // What is to be made is made here.
    let (op, stored) = match op {
        Op::Store { name, content } => {
            (Op::Store { name, content: Vec::new().into() }, content.into_bytes())
        }
        op => (op, Vec::new()),
    };
    let more = match &op {
        Op::Create { bytes, .. } => Some(*bytes),
        Op::Replace { content, .. } => Some(content.len() as u64),
        Op::Store { .. } => Some(stored.len() as u64),
        _ => None,
    };
    let room = more.map_or(Ok(()), |more| dir.device().demand_room(state, more, doing));
    let here: &mut Directory = state.dirs.entry(dir.0.name.clone()).or_default();
    let done = match op {
        Op::Open { name, .. } => {
            let file = Arc::clone(here.names.get(&name).ok_or_else(|| failed(libc::ENOENT))?);
            let bytes = content_of(&file).bytes();
            return Ok((Done::Opened { bytes }, Some(file)));
        }
        Op::Create { name, bytes, .. } => {
            if here.names.contains_key(&name) {
                return Err(failed(libc::EEXIST));
            }
            room?;
            let file = Arc::new(RwLock::new(Content::zeros(bytes, &dir.device().0.spares)));
            here.names.insert(name, Arc::clone(&file));
            return Ok((Done::Opened { bytes }, Some(file)));
        }
        Op::Rename { from, to } => {
            let file = here.names.remove(&from).ok_or_else(|| failed(libc::ENOENT))?;
            here.names.insert(to, file);
            Done::Named
        }
        Op::Remove { name } => {
            here.names.remove(&name).ok_or_else(|| failed(libc::ENOENT))?;
            Done::Named
        }
        Op::Replace { name, content } => {
            room?;
            put_whole(dir, here, name, &content, true, doing)?;
            // As on a real disk, which flushes the directory for this.
            here.durable.clone_from(&here.names);
            Done::Named
        }
        Op::Store { name, .. } => {
            room?;
            put_whole(dir, here, name, &stored, false, doing)?;
            Done::Named
        }
        Op::Load { name, limit_bytes } => {
            let file = here.names.get(&name).ok_or_else(|| failed(libc::ENOENT))?;
            Done::Loaded(load(&content_of(file), limit_bytes, doing)?)
        }
        Op::SyncDir => {
            here.durable.clone_from(&here.names);
            Done::Named
        }
        Op::List => {
            let others = if dir.0.name.is_none() { state.dirs.len() - 1 } else { 0 };
            let here = state.dirs.get(&dir.0.name);
            Done::Listed { files: here.map(Directory::list).unwrap_or_default(), others }
        }
        // These are carried out elsewhere.
        Op::Write { .. } | Op::Sync { .. } | Op::Read { .. } | Op::Close { .. } => {
            return Err(unexpected(doing));
        }
    };
    Ok((done, None))
}

fn put_whole(
    dir: &MemoryDir,
    here: &mut Directory,
    name: FileName,
    content: &[u8],
    durable: bool,
    doing: &str,
) -> Result<(), DiskError> {
    // Where names and room are real, this needs a file of another name beside it.
    if FileName::new(format!("{name}.tmp")).is_none() {
        return Err(unexpected(format!("{doing}: a name of more than 60 bytes")));
    }
    let content = Content::whole(content, durable, &dir.device().0.spares)?;
    here.names.insert(name, Arc::new(RwLock::new(content)));
    Ok(())
}

fn load(content: &Content, limit_bytes: u64, doing: &str) -> Result<Vec<u8>, DiskError> {
    if content.bytes() > limit_bytes {
        return Err(unexpected(format!("{doing}: longer than {limit_bytes} bytes")));
    }
    let limit = || DiskError::new(DiskErrorKind::Limit, doing);
    let bytes = usize::try_from(content.bytes()).map_err(|_| limit())?;
    let mut loaded = Vec::new();
    loaded.try_reserve_exact(bytes).map_err(|_| limit())?;
    loaded.resize(bytes, 0);
    content.read(0, &mut loaded);
    Ok(loaded)
}

impl Disk for MemoryDisk {
    fn submit(&mut self, tag: Tag, op: Op) {
        let submitted = match (self.admit(&op), op) {
            (Ok(()), Op::Close { file }) => Submitted::Close(tag, file),
            (Ok(()), op) => Submitted::Op(tag, op),
            (Err(error), op) => {
                let slices = match op {
                    Op::Write { data, .. } => data,
                    Op::Read { block, len, .. } => vec![Slice { block, len }],
                    _ => Vec::new(),
                };
                Submitted::Refused(Completion { tag, slices, result: Err(error) })
            }
        };
        self.queue.push_back(submitted);
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
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn facts(&self) -> &DiskFacts {
        &self.facts
    }
}

impl Drop for MemoryDisk {
    fn drop(&mut self) {
        self.carry_out_all(&mut Vec::new());
    }
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryDisk({:?}, {} in flight)", self.dir, self.in_flight())
    }
}
