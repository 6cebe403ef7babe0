//! A device in memory: for users' own tests, and for logs that need not outlive the process.
//!
//! A [`MemoryDevice`] holds directories and files, and outlives the disks on it: closing a log and
//! opening it again on the same device is a restart. Faults are injected on the device: it is
//! full, a write or a flush fails, the power is cut. Everything that happens follows from the calls
//! made, in their order; there is no clock and no chance here. (Seeded torture is the affair of the
//! project's simulator; here simplicity counts.)
//!
//! Invariants: a power cut is one instant, between two operations; whoever had opened the device
//! before it gets nothing but errors after it.

mod disk;
mod file;
mod spares;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::op::{DiskError, DiskErrorKind, FileName, Listed};
use file::Content;
use spares::Spares;

pub use disk::MemoryDisk;

type File = Arc<RwLock<Content>>;

/// Directories and files in memory, and the faults that they are to meet. Clones are handles of
/// the same device.
///
/// Costs 4 KiB for each unit of 4 KiB that was ever written, and as much again while one is
/// overwritten and not flushed; what is empty costs nothing. Of memory that became free, up to 16 MiB
/// are kept for the next writes.
#[derive(Clone, Default)]
pub struct MemoryDevice(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: RwLock<State>,
    spares: Spares,
    full: AtomicBool,
    /// 0: none. Stored plus one, so that a capacity of nothing can be told from none at all.
    capacity: AtomicU64,
    fail_next_write: AtomicBool,
    fail_next_flush: AtomicBool,
    fail_flushes: AtomicBool,
    openers: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Grows with each power cut.
    life: u64,
    /// The root has no name.
    dirs: BTreeMap<Option<FileName>, Directory>,
}

#[derive(Default)]
struct Directory {
    names: BTreeMap<FileName, File>,
    /// What the names are after a power cut.
    durable: BTreeMap<FileName, File>,
    /// The opener that holds the exclusive lock.
    lock: Option<u64>,
    /// The opener that holds the writer's mark.
    writer: Option<u64>,
}

fn content_of(file: &File) -> RwLockReadGuard<'_, Content> {
    file.read().unwrap_or_else(PoisonError::into_inner)
}

fn content_of_mut(file: &File) -> RwLockWriteGuard<'_, Content> {
    file.write().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Each file that has a name, now or after a power cut; those with two are here twice.
    fn files(&self) -> impl Iterator<Item = &File> {
        self.dirs.values().flat_map(|dir| dir.names.values().chain(dir.durable.values()))
    }
}

impl MemoryDevice {
    /// An empty device without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the root directory, as a process does that begins.
    pub fn root(&self) -> MemoryDir {
        let life = self.read().life;
        MemoryDir::new(self.clone(), None, life)
    }

    /// Full, or no longer: while it is full, nothing can be created or replaced and no file grows
    /// ([`DiskErrorKind::NoSpace`]). What there is can be written and removed.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// How many bytes of files the device holds at most; `None`: as many as there is memory. More
    /// is [`DiskErrorKind::NoSpace`]. A file counts with its length from its creation on, written
    /// or not; one that replaces another counts beside it until it has taken its place.
    pub fn set_capacity_bytes(&self, bytes: Option<u64>) {
        let stored = bytes.map_or(0, |bytes| bytes.saturating_add(1));
        self.0.capacity.store(stored, Ordering::SeqCst);
    }

    /// The next write to an open file fails ([`DiskErrorKind::Io`]); nothing of it is written. Under
    /// a log that is a write of records, or the preparation of a segment for them.
    pub fn fail_next_write(&self) {
        self.0.fail_next_write.store(true, Ordering::SeqCst);
    }

    /// The next flush of an open file fails ([`DiskErrorKind::Io`]): what it was to make durable can
    /// be read, but is lost at the next power cut, whatever later flushes say. Under a log that is a
    /// flush of records, or of a segment that is prepared for them.
    pub fn fail_next_flush(&self) {
        self.0.fail_next_flush.store(true, Ordering::SeqCst);
    }

    /// The same for every flush from now on, or no longer.
    pub fn fail_flushes(&self, fail: bool) {
        self.0.fail_flushes.store(fail, Ordering::SeqCst);
    }

    /// Cuts the power: all writes that no flush has covered are lost, all changes of names since
    /// the last flush of their directory too, and all locks. Whatever had the device open fails
    /// from now on; open it again. The faults that were set stay.
    pub fn power_cut(&self) {
        let mut state = self.write();
        state.life += 1;
        for dir in state.dirs.values_mut() {
            dir.names.clone_from(&dir.durable);
            (dir.lock, dir.writer) = (None, None);
        }
        state.files().for_each(|file| content_of_mut(file).cut());
    }

    /// How much memory the files take at this moment, in bytes, with what is kept for the next writes.
    pub fn memory_bytes(&self) -> u64 {
        let state = self.read();
        let mut seen: Vec<*const RwLock<Content>> = Vec::new();
        let mut sum = self.0.spares.memory_bytes();
        for file in state.files() {
            if !seen.contains(&Arc::as_ptr(file)) {
                seen.push(Arc::as_ptr(file));
                sum += content_of(file).memory_bytes();
            }
        }
        sum
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error when there is no room for so many bytes more.
    fn demand_room(&self, state: &State, more: u64, doing: &str) -> Result<(), DiskError> {
        let fits = || match self.0.capacity.load(Ordering::SeqCst) {
            0 => true,
            stored => {
                let files = state.dirs.values().flat_map(|dir| dir.names.values());
                let used: u64 = files.map(|file| content_of(file).bytes()).sum();
                used.saturating_add(more) < stored
            }
        };
        if self.0.full.load(Ordering::SeqCst) || !fits() {
            return Err(DiskError::from_errno(libc::ENOSPC, doing));
        }
        Ok(())
    }

    fn write_fails(&self) -> bool {
        self.0.fail_next_write.swap(false, Ordering::SeqCst)
    }

    fn flush_fails(&self) -> bool {
        self.0.fail_next_flush.swap(false, Ordering::SeqCst)
            || self.0.fail_flushes.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for MemoryDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryDevice({} bytes)", self.memory_bytes())
    }
}

/// An open directory of a [`MemoryDevice`]. Clones are the same opener, and share its lock.
#[derive(Clone)]
pub struct MemoryDir(Arc<Opener>);

struct Opener {
    device: MemoryDevice,
    name: Option<FileName>,
    number: u64,
    life: u64,
}

impl Drop for Opener {
    fn drop(&mut self) {
        let mut state = self.device.write();
        if let Some(dir) = state.dirs.get_mut(&self.name) {
            dir.lock.take_if(|holder| *holder == self.number);
            dir.writer.take_if(|holder| *holder == self.number);
        }
    }
}

fn cut_off(doing: &str) -> DiskError {
    DiskError::new(DiskErrorKind::Io, format!("{doing}: the power was cut"))
}

impl MemoryDir {
    fn new(device: MemoryDevice, name: Option<FileName>, life: u64) -> Self {
        let number = device.0.openers.fetch_add(1, Ordering::Relaxed);
        device.write().dirs.entry(name.clone()).or_default();
        Self(Arc::new(Opener { device, name, number, life }))
    }

    /// The device it is on.
    pub fn device(&self) -> &MemoryDevice {
        &self.0.device
    }

    /// A disk on the files of this directory.
    pub fn disk(&self) -> MemoryDisk {
        MemoryDisk::open(self, None)
    }

    /// Opens the directory of that name in the root; creates it, durably, when it is missing and
    /// `create` is set.
    ///
    /// Fails with [`DiskErrorKind::NotFound`]; with [`DiskErrorKind::Unexpected`] in a directory
    /// that is not the root, which holds no directories.
    pub fn subdir(&self, name: &FileName, create: bool) -> Result<Self, DiskError> {
        let doing = format!("open directory {name}");
        if self.0.name.is_some() {
            return Err(DiskError::new(DiskErrorKind::Unexpected, doing));
        }
        let known = self.look(&doing, |state| state.dirs.contains_key(&Some(name.clone())))?;
        if !known && !create {
            return Err(DiskError::from_errno(libc::ENOENT, doing));
        }
        Ok(Self::new(self.0.device.clone(), Some(name.clone()), self.0.life))
    }

    /// The names of everything in the directory, sorted.
    pub fn entries(&self) -> Result<Vec<String>, DiskError> {
        self.look("list the directory", |state| {
            let names = state.dirs.get(&self.0.name).into_iter().flat_map(|dir| dir.names.keys());
            let dirs = state.dirs.keys().flatten().filter(|_| self.0.name.is_none());
            let mut all: Vec<String> = names.chain(dirs).map(ToString::to_string).collect();
            all.sort_unstable();
            all
        })
    }

    /// Takes the exclusive lock: false when another opener holds it. It is held until the last
    /// clone and every disk that was given this directory are gone, or the power is cut.
    pub fn try_lock_exclusive(&self) -> Result<bool, DiskError> {
        self.change("lock the directory", |dir, opener| *dir.lock.get_or_insert(opener) == opener)
    }

    /// Puts up the writer's mark, as [`crate::Dir::hold_writer_mark`] does.
    pub fn hold_writer_mark(&self) -> Result<(), DiskError> {
        self.change("mark the directory as being written", |dir, opener| {
            dir.writer = Some(opener);
        })
    }

    /// Whether another opener holds the writer's mark.
    pub fn has_writer(&self) -> Option<bool> {
        let opener = self.0.number;
        let writer = |state: &State| state.dirs.get(&self.0.name).and_then(|dir| dir.writer);
        self.look("ask for a writer", |state| writer(state).is_some_and(|by| by != opener)).ok()
    }

    fn look<T>(&self, doing: &str, look: impl FnOnce(&State) -> T) -> Result<T, DiskError> {
        let state = self.0.device.read();
        if state.life != self.0.life {
            return Err(cut_off(doing));
        }
        Ok(look(&state))
    }

    fn change<T>(
        &self,
        doing: &str,
        change: impl FnOnce(&mut Directory, u64) -> T,
    ) -> Result<T, DiskError> {
        let mut state = self.0.device.write();
        if state.life != self.0.life {
            return Err(cut_off(doing));
        }
        Ok(change(state.dirs.entry(self.0.name.clone()).or_default(), self.0.number))
    }
}

impl std::fmt::Debug for MemoryDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.name.as_ref().map_or("root", FileName::as_str);
        write!(f, "MemoryDir({name}, opener {})", self.0.number)
    }
}

impl Directory {
    fn list(&self) -> Vec<Listed> {
        let listed = |(name, file): (&FileName, &File)| Listed {
            name: name.clone(),
            bytes: content_of(file).bytes(),
        };
        self.names.iter().map(listed).collect()
    }
}
