//! What the system knows of the block device below a directory, read from sysfs.
//!
//! Everything here is advice and statistics: where nothing is found (a network or memory file
//! system, a volume of several devices, no sysfs) the answer is `None`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::dir::Dir;
use crate::sys;

/// Counters of a block device since the system started, and its write cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStats {
    /// "major:minor".
    pub device: String,
    /// Completed writes.
    pub writes: u64,
    /// Sectors of 512 bytes written.
    pub sectors_written: u64,
    /// Completed flushes; of a partition, those of the partition only.
    pub flushes: u64,
    /// "write back" or "write through", as the kernel believes.
    pub write_cache: Option<String>,
}

fn device_path(dir: &Dir) -> Option<(String, PathBuf)> {
    let device = sys::stat(dir.as_fd()).ok()?.st_dev;
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let path = PathBuf::from(format!("/sys/dev/block/{number}"));
    path.exists().then_some((number, path))
}

/// A setting of the device's queue; that of a partition is its disk's.
fn queue_setting(dir: &Dir, name: &str) -> Option<String> {
    let (_, path) = device_path(dir)?;
    // The link is resolved first: ".." means the parent of what it points to.
    let path = path.canonicalize().ok()?;
    let own = std::fs::read_to_string(path.join("queue").join(name));
    let text = match (own, path.parent()) {
        (Ok(text), _) => text,
        (Err(_), Some(parent)) => std::fs::read_to_string(parent.join("queue").join(name)).ok()?,
        (Err(_), None) => return None,
    };
    Some(text.trim().to_owned())
}

/// The size of a physical block in bytes.
pub(crate) fn physical_block_bytes(dir: &Dir) -> Option<u32> {
    queue_setting(dir, "physical_block_size")?.parse().ok()
}

/// The counters of the device that the directory's file system lies on, where it is a single
/// device that the kernel names.
pub fn block_device_stats(dir: &Dir) -> Option<DeviceStats> {
    let (device, path) = device_path(dir)?;
    let text = std::fs::read_to_string(path.join("stat")).ok()?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    Some(DeviceStats {
        device,
        writes: *fields.get(4)?,
        sectors_written: *fields.get(6)?,
        flushes: fields.get(15).copied().unwrap_or(0),
        write_cache: queue_setting(dir, "write_cache"),
    })
}
