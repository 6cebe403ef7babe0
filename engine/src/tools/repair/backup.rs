//! Copies of what a repair is about to replace.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ringlog_disk::{DiskError, DiskErrorKind};

use super::super::BACKUP_PREFIX;
use crate::error::OpenError;
use crate::names;

/// A directory of copies, made when it is first needed.
pub(super) struct Backup {
    log: PathBuf,
    made: Option<PathBuf>,
}

impl Backup {
    pub(super) fn new(log: &Path) -> Self {
        Self { log: log.to_owned(), made: None }
    }

    pub(super) fn made(self) -> Option<PathBuf> {
        self.made
    }

    /// Makes the directory: `repair-<n>` with the first number that is free.
    pub(super) fn begin(&mut self) -> Result<PathBuf, OpenError> {
        if let Some(made) = &self.made {
            return Ok(made.clone());
        }
        let mut number = 1_u64;
        let made = loop {
            let path = self.log.join(format!("{BACKUP_PREFIX}{number}"));
            match make_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(failed("create", &path, &error)),
            }
        };
        sync_dir(&self.log)?;
        self.made = Some(made.clone());
        Ok(made)
    }

    /// Copies a file of a shard; durable on return. One that is not there needs no copy.
    pub(super) fn copy(&mut self, shard: u16, file: &str) -> Result<(), OpenError> {
        let shard = names::shard(shard);
        let to = self.begin()?.join(shard.as_str());
        match make_dir(&to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create", &to, &error));
            }
            _ => {}
        }
        copy_file(&self.log.join(shard.as_str()).join(file), &to.join(file))?;
        sync_dir(&to)?;
        sync_dir(&self.begin()?)
    }

    /// Copies a file of the log's own directory; durable on return.
    pub(super) fn copy_top(&mut self, file: &str) -> Result<(), OpenError> {
        let to = self.begin()?;
        copy_file(&self.log.join(file), &to.join(file))?;
        sync_dir(&to)
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<(), OpenError> {
    match fs::symlink_metadata(from) {
        Ok(meta) if meta.is_file() => {}
        // A link or a directory in the place of a file: there is nothing of the log in it.
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", from, &error)),
    }
    fs::copy(from, to).map_err(|error| failed("copy", from, &error))?;
    File::open(to).and_then(|file| file.sync_all()).map_err(|error| failed("flush", to, &error))
}

fn make_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn sync_dir(path: &Path) -> Result<(), OpenError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|error| failed("flush", path, &error))
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> OpenError {
    let doing = format!("{doing} {}", path.display());
    OpenError::Disk(match error.raw_os_error() {
        Some(errno) => DiskError::from_errno(errno, doing),
        None => DiskError::new(DiskErrorKind::Io, doing),
    })
}
