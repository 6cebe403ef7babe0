//! The server of the power-cut disk: a FUSE file system whose files are [`Device`]s.
//!
//! It mounts by itself, without libfuse and without `fusermount`. It answers every request at once,
//! for ever: a device whose power is off answers EIO. So nothing above it can hang as long as this
//! process lives, and when it dies the kernel fails everything with ENOTCONN.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::device::{Device, Failed};

/// Attributes may be kept for ever: a device never changes its size.
const TTL: Duration = Duration::from_secs(3600);
/// The inode of the first device; its file is called by the number.
const FIRST_INODE: u64 = 2;

#[derive(Default)]
struct Devices {
    next: u64,
    by_inode: HashMap<u64, Arc<Device>>,
}

/// The mounted file system. Unmounted when dropped.
pub struct Server {
    devices: Arc<Mutex<Devices>>,
    directory: PathBuf,
    session: Option<BackgroundSession>,
}

impl Server {
    /// Mounts it on a directory.
    pub fn mount(directory: &Path) -> io::Result<Self> {
        let devices = Arc::new(Mutex::new(Devices { next: FIRST_INODE, ..Devices::default() }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("ringlog-power-cuts".to_owned())];
        let session =
            fuser::spawn_mount(Files { devices: Arc::clone(&devices) }, directory, &config)?;
        Ok(Self { devices, directory: directory.to_owned(), session: Some(session) })
    }

    /// Plugs a device in; gives the file.
    pub fn plug(&self, device: Arc<Device>) -> PathBuf {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let inode = devices.next;
        devices.next += 1;
        devices.by_inode.insert(inode, device);
        self.directory.join(inode.to_string())
    }

    /// Gives the memory of a device back that nobody needs any more. Whoever still holds its file
    /// open gets EIO, as with a dead one.
    pub fn unplug(&self, file: &Path) {
        let inode = file.file_name().and_then(inode_of);
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        inode.and_then(|inode| devices.by_inode.remove(&inode));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Detached, not unmounted: that never waits for anybody. The thread of the server ends when
        // the last user has gone, or with the process.
        if let Some(session) = self.session.take() {
            drop(std::process::Command::new("umount").arg("-l").arg(&self.directory).status());
            drop(session);
        }
    }
}

fn inode_of(name: &OsStr) -> Option<u64> {
    name.to_str()?.parse().ok()
}

struct Files {
    devices: Arc<Mutex<Devices>>,
}

impl Files {
    fn device(&self, inode: INodeNo) -> Option<Arc<Device>> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.by_inode.get(&u64::from(inode)).cloned()
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let bytes = match u64::from(inode) {
            1 => None,
            _ => Some(self.device(inode)?.bytes()),
        };
        Some(FileAttr {
            ino: inode,
            size: bytes.unwrap_or(0),
            blocks: bytes.unwrap_or(0) / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if bytes.is_some() { FileType::RegularFile } else { FileType::Directory },
            perm: if bytes.is_some() { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }
}

impl Filesystem for Files {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let inode = inode_of(name).filter(|inode| u64::from(parent) == 1 && *inode >= FIRST_INODE);
        match inode.and_then(|inode| self.attributes(INodeNo(inode))) {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::EIO),
        }
    }

    /// Times change when the loop device writes; a disk has none.
    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attributes(ino) {
            Some(attributes) if size.is_none() => reply.attr(&TTL, &attributes),
            _ => reply.error(Errno::EPERM),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.device(ino) {
            // Never through the page cache: that would be a second volatile cache.
            Some(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            None => reply.error(Errno::EIO),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(device) = self.device(ino) else { return reply.error(Errno::EIO) };
        let left = device.bytes().saturating_sub(offset);
        let mut bytes = vec![0; u64::from(size).min(left) as usize];
        match device.read(offset, &mut bytes) {
            Ok(()) => reply.data(&bytes),
            Err(Failed) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(device) = self.device(ino) else { return reply.error(Errno::EIO) };
        if offset.saturating_add(data.len() as u64) > device.bytes() {
            return reply.error(Errno::ENOSPC);
        }
        match device.write(offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(Failed) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _data: bool, reply: ReplyEmpty) {
        match self.device(ino).map(|device| device.flush()) {
            Some(Ok(())) => reply.ok(),
            Some(Err(Failed)) | None => reply.error(Errno::EIO),
        }
    }

    /// Closing a file flushes nothing on a disk.
    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _o: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}
