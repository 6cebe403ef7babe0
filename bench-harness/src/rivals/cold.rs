//! Making files cold.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// Takes all files below `dir` out of the page cache. Nobody may have them mapped. Names and extents
/// stay known to the kernel.
///
/// # Errors
/// What could not be read or flushed, in words.
pub(crate) fn forget(dir: &Path) -> Result<(), String> {
    let say = |error: std::io::Error| format!("{}: {error}", dir.display());
    for entry in fs::read_dir(dir).map_err(say)? {
        let entry = entry.map_err(say)?;
        if entry.file_type().map_err(say)?.is_dir() {
            forget(&entry.path())?;
            continue;
        }
        let file = File::open(entry.path()).map_err(say)?;
        // What is not yet written cannot be dropped.
        file.sync_all().map_err(say)?;
        fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| say(error.into()))?;
    }
    Ok(())
}
