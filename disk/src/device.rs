//! What the system knows of the block device below a directory, read from sysfs.
//!
//! Everything here is advice and statistics: where nothing is found (a network or memory file
//! system, a volume of several devices, no sysfs) the answer is `None`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::dir::Dir;
use crate::op::DiskError;
use crate::sys;

/// Counters of a block device since the system started, and its write cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceStats {
    /// "major:minor".
    pub device: String,
    /// Completed reads.
    pub reads: u64,
    /// Sectors of 512 bytes read.
    pub sectors_read: u64,
    /// Completed writes.
    pub writes: u64,
    /// Sectors of 512 bytes written.
    pub sectors_written: u64,
    /// Completed flushes; of a partition, those of the partition only.
    pub flushes: u64,
    /// "write back" or "write through", as the kernel believes.
    pub write_cache: Option<String>,
}

/// Major and minor number of the device that the directory's file system lies on, or those that
/// stand for it.
pub(crate) fn device_number(dir: &Dir) -> Result<(u32, u32), DiskError> {
    let stat = sys::stat(dir.as_fd())
        .map_err(|errno| DiskError::from_errno(errno, "look at the directory"))?;
    Ok((libc::major(stat.st_dev), libc::minor(stat.st_dev)))
}

/// The kernel's name of the device ("vda", "nvme0n1p2").
pub(crate) fn device_name(dir: &Dir) -> Option<String> {
    let (_, path) = device_path(dir)?;
    path.canonicalize().ok()?.file_name()?.to_str().map(str::to_owned)
}

fn device_path(dir: &Dir) -> Option<(String, PathBuf)> {
    let (major, minor) = device_number(dir).ok()?;
    let number = format!("{major}:{minor}");
    let path = PathBuf::from(format!("/sys/dev/block/{number}"));
    path.exists().then_some((number, path))
}

/// A setting of the device's queue; that of a partition is its disk's.
pub(crate) fn queue_setting(dir: &Dir, name: &str) -> Option<String> {
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

/// The CPU that takes nearly all interrupts of the device below the directory, if there is one: a
/// thread that waits for that device is woken soonest there. A device with a queue for each CPU
/// has none.
pub fn interrupt_cpu(dir: &Dir) -> Option<usize> {
    let (_, path) = device_path(dir)?;
    let path = path.canonicalize().ok()?;
    // The directory of the bus device, somewhere above, lists the interrupts.
    let list = path.ancestors().map(|above| above.join("msi_irqs")).find(|list| list.is_dir())?;
    let numbers = std::fs::read_dir(list).ok()?.flatten();
    let numbers: Vec<String> =
        numbers.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    busiest(&std::fs::read_to_string("/proc/interrupts").ok()?, &numbers)
}

/// The CPU with more than nine tenths of the interrupts of these numbers, by the table of
/// `/proc/interrupts`.
fn busiest(table: &str, numbers: &[String]) -> Option<usize> {
    let mut lines = table.lines();
    let cpus: Vec<usize> = lines
        .next()?
        .split_whitespace()
        .map(|name| name.strip_prefix("CPU")?.parse().ok())
        .collect::<Option<_>>()?;
    let mut counts = vec![0_u64; cpus.len()];
    for line in lines {
        let Some((number, rest)) = line.split_once(':') else { continue };
        if numbers.iter().any(|wanted| wanted == number.trim()) {
            for (count, text) in counts.iter_mut().zip(rest.split_whitespace()) {
                *count += text.parse::<u64>().unwrap_or(0);
            }
        }
    }
    let total: u64 = counts.iter().sum();
    let (at, most) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
    (*most > total / 10 * 9 && *most > 0).then(|| cpus[at])
}

/// The counters of the device that the directory's file system lies on, where it is a single
/// device that the kernel names.
pub fn block_device_stats(dir: &Dir) -> Option<DeviceStats> {
    let (device, path) = device_path(dir)?;
    let text = std::fs::read_to_string(path.join("stat")).ok()?;
    let fields: Vec<u64> = text.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    Some(DeviceStats {
        device,
        reads: *fields.first()?,
        sectors_read: *fields.get(2)?,
        writes: *fields.get(4)?,
        sectors_written: *fields.get(6)?,
        flushes: fields.get(15).copied().unwrap_or(0),
        write_cache: queue_setting(dir, "write_cache"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "           CPU0       CPU2
 35:          0          1  PCI-MSIX  0-edge  virtio1-config
 36:         10    8821860  PCI-MSIX  1-edge  virtio1-req.0
 37:        500        400  PCI-MSIX  0-edge  other
NMI:          7          7  Non-maskable interrupts
";

    #[test]
    fn the_cpu_of_a_single_queue_is_found_by_its_number() {
        assert_eq!(busiest(TABLE, &["35".into(), "36".into()]), Some(2));
    }

    #[test]
    fn queues_on_many_cpus_and_unknown_numbers_give_none() {
        assert_eq!(busiest(TABLE, &["37".into()]), None);
        assert_eq!(busiest(TABLE, &["99".into()]), None);
        assert_eq!(busiest("", &["36".into()]), None);
    }
}
