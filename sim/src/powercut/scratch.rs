//! The directories that a run mounts on.

use std::fs;
use std::path::PathBuf;

use crate::live::child::{Trouble, failed};

/// Their name, before the number of the process.
const PREFIX: &str = "ringlog-power-cuts.";

/// Directories to mount on. Removed when dropped, but nothing within them.
pub(super) struct Scratch {
    base: PathBuf,
}

impl Scratch {
    pub(super) fn new() -> Result<Self, Trouble> {
        sweep();
        let base = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        let scratch = Self { base };
        for directory in [&scratch.base, &scratch.disks(), &scratch.mount()] {
            fs::create_dir(directory)
                .map_err(|error| failed(&directory.display().to_string(), &error))?;
        }
        Ok(scratch)
    }

    pub(super) fn disks(&self) -> PathBuf {
        self.base.join("disks")
    }

    pub(super) fn mount(&self) -> PathBuf {
        self.base.join("mount")
    }
}

/// Removes the empty directories of runs that were ended by SIGKILL: all else of them went by itself.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str());
        let process = name.and_then(|name| name.strip_prefix(PREFIX));
        if process.is_some_and(|process| !PathBuf::from(format!("/proc/{process}")).exists()) {
            for directory in [path.join("disks"), path.join("mount"), path] {
                let _ = fs::remove_dir(directory); // what is not empty is not ours
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for directory in [self.disks(), self.mount(), self.base.clone()] {
            if let Err(error) = fs::remove_dir(&directory) {
                eprintln!("power-cuts: {}: {error}", directory.display());
            }
        }
    }
}
