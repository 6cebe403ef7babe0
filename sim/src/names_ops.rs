//! How operations on names are carried out: one after another, each in one step.

use std::sync::Arc;

use ringlog_disk::{DiskError, DiskErrorKind, Done, FileId, FileName, Listed};

use crate::content::Content;
use crate::faults::{Class, Effect, Landed};
use crate::inode::Inode;
use crate::world::{Flight, OpenFile, Work, World};

/// An operation on names.
#[derive(Clone, Debug)]
pub(crate) enum NameOp {
    Open { file: FileId, name: FileName, write: bool },
    Create { file: FileId, name: FileName, bytes: u64 },
    Close { file: FileId },
    Rename { from: FileName, to: FileName },
    Remove { name: FileName },
    Replace { name: FileName, content: Vec<u8> },
    Store { name: FileName, content: Vec<u8> },
    Load { name: FileName, limit_bytes: u64 },
    SyncDir,
    List,
}

impl NameOp {
    /// The file id that it takes or gives back.
    fn file(&self) -> Option<FileId> {
        match self {
            Self::Open { file, .. } | Self::Create { file, .. } | Self::Close { file } => {
                Some(*file)
            }
            _ => None,
        }
    }
}

fn not_found(doing: String) -> DiskError {
    DiskError::from_errno(libc::ENOENT, doing)
}

impl World {
    /// Takes an operation on names, and checks it against the contract as it is now: a file id is
    /// in use from the submission of what opens it to the completion of what closes it.
    pub(crate) fn submit_name(&mut self, handle: u64, number: u64, op: NameOp) {
        let work = match self.broken_rule(handle, &op) {
            Some(broken) => Work::Refused(self.violation(DiskErrorKind::Unexpected, broken)),
            None => Work::Name(op),
        };
        self.submit(Flight { handle, number, file: None, work });
    }

    fn broken_rule(&self, handle: u64, op: &NameOp) -> Option<&'static str> {
        let open = |id| self.handles.get(&handle).is_some_and(|h| h.files.contains_key(&id));
        let changing = |id| {
            self.flights.iter().any(|f| {
                f.handle == handle && matches!(&f.work, Work::Name(op) if op.file() == Some(id))
            })
        };
        let busy = |id| self.flights.iter().any(|f| f.handle == handle && f.file == Some(id));
        match *op {
            NameOp::Open { file, .. } | NameOp::Create { file, .. } if file.0 >= FileId::LIMIT => {
                Some("a file id over the limit")
            }
            NameOp::Open { file, .. } | NameOp::Create { file, .. }
                if open(file) || changing(file) =>
            {
                Some("a file id that is in use")
            }
            NameOp::Create { bytes, .. } if !bytes.is_multiple_of(self.align_bytes) => {
                Some("create a file of a misaligned length")
            }
            NameOp::Close { file } if !open(file) || changing(file) => {
                Some("close of a file that is not open")
            }
            NameOp::Close { file } if busy(file) => Some("close of a file with work in flight"),
            _ => None,
        }
    }

    pub(crate) fn name_op(&mut self, handle: u64, op: NameOp) -> Result<Done, DiskError> {
        match op {
            NameOp::Open { file, name, write } => self.open(handle, file, name, write),
            NameOp::Create { file, name, bytes } => self.create(handle, file, name, bytes),
            NameOp::Close { file } => Ok(self.close(handle, file)),
            NameOp::Rename { from, to } => self.rename(&from, &to),
            NameOp::Remove { name } => self.remove(&name),
            NameOp::Replace { name, content } => self.replace(&name, &content),
            NameOp::Store { name, content } => self.store(name, content),
            NameOp::Load { name, limit_bytes } => self.load(&name, limit_bytes),
            NameOp::SyncDir => self.sync_dir(),
            NameOp::List => self.list(),
        }
    }

    /// Counts an operation with the faults; gives the error if it shall fail, and what it is to
    /// have done all the same.
    fn fault(
        &mut self,
        class: Class,
        name: Option<&FileName>,
        doing: &str,
    ) -> Result<Option<Effect>, (DiskError, Landed)> {
        match self.strike(class, name) {
            Some(Effect::Fail { errno, landed }) => {
                let landed = match landed {
                    Landed::Some if self.rng.coin() => Landed::Everything,
                    Landed::Some => Landed::Nothing,
                    whole => whole,
                };
                Err((DiskError::from_errno(errno, doing), landed))
            }
            other => Ok(other),
        }
    }

    fn insert_open(&mut self, handle: u64, file: FileId, open: OpenFile) {
        if let Some(handle) = self.handles.get_mut(&handle) {
            handle.files.insert(file, open);
        }
    }

    fn open(
        &mut self,
        handle: u64,
        file: FileId,
        name: FileName,
        writable: bool,
    ) -> Result<Done, DiskError> {
        self.stats.opens += 1;
        self.trace.event("open", name.as_str(), &[u64::from(file.0)]);
        let doing = format!("open {name}");
        self.fault(Class::Open, Some(&name), &doing).map_err(|(error, _)| error)?;
        let inode = self.names.get(&name).ok_or_else(|| not_found(doing))?;
        let bytes = self.inodes.get(&inode).map_or(0, |file| file.len());
        self.insert_open(handle, file, OpenFile { inode, name, writable });
        Ok(Done::Opened { bytes })
    }

    fn create(
        &mut self,
        handle: u64,
        file: FileId,
        name: FileName,
        bytes: u64,
    ) -> Result<Done, DiskError> {
        self.stats.creates += 1;
        self.trace.event("create", name.as_str(), &[u64::from(file.0), bytes]);
        let doing = format!("create {name}");
        if self.names.get(&name).is_some() {
            return Err(DiskError::from_errno(libc::EEXIST, doing));
        }
        self.fault(Class::Create, Some(&name), &doing).map_err(|(error, _)| error)?;
        self.reserve(bytes, &doing)?;
        self.stats.bytes_created += bytes;
        let inode = self.link_new(name.clone(), Content::zeros(bytes));
        self.insert_open(handle, file, OpenFile { inode, name, writable: true });
        Ok(Done::Opened { bytes })
    }

    fn close(&mut self, handle: u64, file: FileId) -> Done {
        self.stats.closes += 1;
        self.trace.event("close", "", &[u64::from(file.0)]);
        let closed = self.handles.get_mut(&handle).and_then(|handle| handle.files.remove(&file));
        if let Some(OpenFile { inode, .. }) = closed {
            self.forget_if_unused(inode);
        }
        Done::Closed
    }

    fn rename(&mut self, from: &FileName, to: &FileName) -> Result<Done, DiskError> {
        self.stats.renames += 1;
        self.trace.event("rename", from.as_str(), &[]);
        self.trace.event("rename to", to.as_str(), &[]);
        let doing = format!("rename {from} to {to}");
        let failed = self.fault(Class::Rename, Some(from), &doing).err();
        if matches!(failed, Some((_, Landed::Nothing))) || self.names.rename(from, to) {
            self.forget_unused();
            return failed.map_or(Ok(Done::Named), |(error, _)| Err(error));
        }
        Err(not_found(doing))
    }

    fn remove(&mut self, name: &FileName) -> Result<Done, DiskError> {
        self.stats.removes += 1;
        self.trace.event("remove", name.as_str(), &[]);
        let doing = format!("remove {name}");
        let failed = self.fault(Class::Remove, Some(name), &doing).err();
        if matches!(failed, Some((_, Landed::Nothing))) || self.names.unlink(name) {
            self.forget_unused();
            return failed.map_or(Ok(Done::Named), |(error, _)| Err(error));
        }
        Err(not_found(doing))
    }

    fn replace(&mut self, name: &FileName, content: &[u8]) -> Result<Done, DiskError> {
        self.stats.replaces += 1;
        self.trace.mix_bytes(content);
        self.trace.event("replace", name.as_str(), &[content.len() as u64]);
        let doing = format!("replace {name}");
        let fault = self.fault(Class::Replace, Some(name), &doing);
        if let Err((error, Landed::Nothing)) = fault {
            return Err(error);
        }
        self.reserve(content.len() as u64, &doing)?;
        self.link_new(name.clone(), Content::from_bytes(content));
        match fault {
            // The rename has happened, whatever became of the flush behind it.
            Err((error, _)) => Err(error),
            Ok(Some(Effect::Lie)) => Ok(Done::Named),
            Ok(_) => {
                self.names.sync_name(name);
                self.forget_unused();
                Ok(Done::Named)
            }
        }
    }

    /// What is stored sits in the cache until the next power cut, and so does its name.
    fn store(&mut self, name: FileName, content: Vec<u8>) -> Result<Done, DiskError> {
        self.stats.stores += 1;
        self.trace.mix_bytes(&content);
        self.trace.event("store", name.as_str(), &[content.len() as u64]);
        let doing = format!("store {name}");
        let fault = self.fault(Class::Store, Some(&name), &doing);
        if let Err((error, Landed::Nothing)) = fault {
            return Err(error);
        }
        self.reserve(content.len() as u64, &doing)?;
        self.link_cached(name, content);
        fault.map_or_else(|(error, _)| Err(error), |_| Ok(Done::Named))
    }

    /// A new file whose content no flush has covered.
    pub(crate) fn link_cached(&mut self, name: FileName, content: Vec<u8>) {
        let inode = self.link_new(name, Content::zeros(content.len() as u64));
        if !content.is_empty() {
            let write = self.fresh_number();
            self.completions += 1;
            let now = self.completions;
            let file = self.inode(inode);
            file.begin_write(write, 0, content);
            file.complete_write(write, now);
        }
    }

    fn load(&mut self, name: &FileName, limit_bytes: u64) -> Result<Done, DiskError> {
        self.stats.loads += 1;
        self.trace.event("load", name.as_str(), &[]);
        let doing = format!("load {name}");
        let fault = self.fault(Class::Load, Some(name), &doing).map_err(|(error, _)| error)?;
        let inode = self.names.get(name).ok_or_else(|| not_found(doing.clone()))?;
        let len = self.inodes.get(&inode).map_or(0, |file| file.len());
        if len > limit_bytes {
            return Err(DiskError::new(DiskErrorKind::Unexpected, doing));
        }
        let file = self.inodes.entry(inode).or_default();
        let read = file.read(0, len as usize, &mut self.rng);
        let mut content = read.ok_or_else(|| DiskError::from_errno(libc::EIO, doing))?;
        if fault == Some(Effect::FlipBit) && !content.is_empty() {
            let bit = self.rng.index(content.len() * 8);
            content[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(Done::Loaded(content))
    }

    fn sync_dir(&mut self) -> Result<Done, DiskError> {
        self.stats.dir_syncs += 1;
        self.trace.event("sync directory", "", &[]);
        match self.fault(Class::SyncDir, None, "sync the directory") {
            Ok(Some(Effect::Lie)) => return Ok(Done::Named),
            Ok(_) => self.names.sync(),
            Err((error, landed)) => {
                if landed == Landed::Everything && self.rng.coin() {
                    self.names.sync();
                } else {
                    self.names.fail_sync();
                }
                return Err(error);
            }
        }
        self.forget_unused();
        Ok(Done::Named)
    }

    fn list(&mut self) -> Result<Done, DiskError> {
        self.stats.lists += 1;
        self.fault(Class::List, None, "list the directory").map_err(|(error, _)| error)?;
        let files = self
            .names
            .iter()
            .map(|(name, inode)| Listed {
                name: name.clone(),
                bytes: self.inodes.get(&inode).map_or(0, |inode| inode.len()),
            })
            .collect();
        Ok(Done::Listed { files, others: self.others })
    }

    /// Gives a name to a new file.
    pub(crate) fn link_new(&mut self, name: FileName, content: Content) -> u64 {
        let inode = self.fresh_number();
        self.inodes.insert(inode, Arc::new(Inode::new(content)));
        self.names.link(name, inode);
        inode
    }

    fn reserve(&self, bytes: u64, doing: &str) -> Result<(), DiskError> {
        let needed = self.used_bytes().saturating_add(bytes);
        if self.capacity_bytes.is_some_and(|capacity| needed > capacity) {
            return Err(DiskError::from_errno(libc::ENOSPC, doing));
        }
        Ok(())
    }
}
