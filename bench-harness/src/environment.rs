//! The machine a run takes place on, the directories it may use, and the wish to stop.
//!
//! Knows nothing of logs. Invariants: every directory made here is removed when its guard goes;
//! what cannot be found out is said to be unknown, never guessed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::counters::whole_disk;

mod distance;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C (and SIGTERM, SIGHUP) end the run with what it has; a second one ends it at once,
/// without cleaning up.
///
/// # Errors
/// When the handler cannot be installed, in words.
pub(crate) fn stop_on_interrupt() -> Result<(), String> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| format!("cannot handle interrupts: {error}"))
}

/// Whether the run is to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// What is the same for every directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's model.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Whether huge pages are given to who asks: "always", "madvise", "never".
    pub huge_pages: String,
    /// A cache line from one CPU to another and back, in ns: the nearest pair and the farthest.
    /// `None` on one CPU.
    pub cpu_round_trip_ns: Option<[f64; 2]>,
    /// Mean number of busy tasks over the last minute, before the run: a busy machine measures
    /// its other work.
    pub load: Option<f64>,
}

impl Machine {
    /// Looks at the machine; measures the way between its CPUs for some ms.
    pub(crate) fn look() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            })
            .unwrap_or_else(unknown);
        let memory_bytes = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
        });
        let huge = read_line(Path::new("/sys/kernel/mm/transparent_hugepage/enabled"));
        Self {
            kernel: read_line(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_else(unknown),
            cpu,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes,
            huge_pages: huge.as_deref().and_then(chosen).unwrap_or_else(unknown),
            cpu_round_trip_ns: distance::between_cpus(),
            load: read_line(Path::new("/proc/loadavg"))
                .and_then(|line| line.split(' ').next()?.parse().ok()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Linux {}, {} CPUs, {}", self.kernel, self.cpus, self.cpu)?;
        if let Some([near, far]) = self.cpu_round_trip_ns {
            write!(f, ", {near:.0} to {far:.0} ns from one to another and back")?;
        }
        write!(f, "; huge pages: {}", self.huge_pages)?;
        match self.load {
            Some(load) if load > self.cpus as f64 / 2.0 => {
                write!(f, "\nthe machine is busy with other work: load {load}")
            }
            _ => Ok(()),
        }
    }
}

/// Where a directory lies, and what lies below it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The directory as it was given.
    pub dir: String,
    /// Type of its file system.
    pub file_system: String,
    /// Options that it is mounted with.
    pub mount_options: String,
    /// What is mounted.
    pub device: String,
    /// The disk's own name, where it tells one.
    pub model: Option<String>,
    /// The block device's write cache as the kernel sees it: "write back", "write through".
    pub write_cache: String,
    /// Whether the device takes writes that are durable by themselves.
    pub fua: Option<bool>,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// The smallest write.
    pub logical_block_bytes: Option<u64>,
    /// The smallest write that needs no read.
    pub physical_block_bytes: Option<u64>,
    /// How requests are put in order.
    pub scheduler: Option<String>,
    /// What is free.
    pub free_bytes: Option<u64>,
}

impl Place {
    /// Looks up the mount that holds `dir`, and its device.
    pub(crate) fn of(dir: &Path) -> Self {
        let mount = mount_below(dir);
        let block = block_device(dir).map(|path| whole_disk(&path));
        let setting = |name: &str| read_line(&block.as_ref()?.join(name));
        let number = |name: &str| setting(name)?.parse::<u64>().ok();
        let of_mount = |field: fn(&Mount) -> &String| {
            mount.as_ref().map_or_else(unknown, |mount| field(mount).clone())
        };
        Self {
            dir: dir.display().to_string(),
            file_system: of_mount(|mount| &mount.file_system),
            mount_options: of_mount(|mount| &mount.options),
            device: of_mount(|mount| &mount.source),
            model: setting("device/model"),
            write_cache: setting("queue/write_cache").unwrap_or_else(unknown),
            fua: number("queue/fua").map(|fua| fua != 0),
            rotational: number("queue/rotational").map(|turns| turns != 0),
            logical_block_bytes: number("queue/logical_block_size"),
            physical_block_bytes: number("queue/physical_block_size"),
            scheduler: setting("queue/scheduler").as_deref().and_then(chosen),
            free_bytes: free_bytes(dir),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fua = match self.fua {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        write!(f, "{}: {} on {}", self.dir, self.file_system, self.device)?;
        if let Some(model) = &self.model {
            write!(f, " ({model})")?;
        }
        write!(f, " (write cache: {}, FUA: {fua}", self.write_cache)?;
        if let Some(bytes) = self.logical_block_bytes.zip(self.physical_block_bytes) {
            write!(f, ", blocks: {} / {}", bytes.0, bytes.1)?;
        }
        write!(f, "), mounted {}", self.mount_options)
    }
}

/// The word in brackets.
fn chosen(setting: &str) -> Option<String> {
    let (_, behind) = setting.split_once('[')?;
    Some(behind.split_once(']')?.0.to_owned())
}

/// The directory in `/sys` of the block device, or the partition, below `dir`.
pub(crate) fn block_device(dir: &Path) -> Option<PathBuf> {
    let mount = mount_below(dir)?;
    let by_number = Path::new("/sys/dev/block").join(&mount.numbers);
    // Some file systems have a number of their own; the name of what is mounted tells then.
    by_number.canonicalize().ok().or_else(|| {
        let device = Path::new(&mount.source).canonicalize().ok()?;
        Path::new("/sys/class/block").join(device.file_name()?).canonicalize().ok()
    })
}

fn mount_below(dir: &Path) -> Option<Mount> {
    let dir = dir.canonicalize().ok()?;
    mount_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, &dir)
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    numbers: String,
    file_system: String,
    source: String,
    options: String,
}

/// The mount with the longest mount point that is a prefix of `dir`; of several at the same point,
/// the last, which hides the others.
fn mount_of(mountinfo: &str, dir: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let ([_, _, numbers, _, point, options, ..], [file_system, source, ..]) =
            (&left[..], &right[..])
        else {
            continue;
        };
        let point = PathBuf::from(point.replace("\\040", " "));
        let depth = point.components().count();
        if dir.starts_with(&point) && best.as_ref().is_none_or(|(found, _)| depth >= *found) {
            let mount = Mount {
                numbers: (*numbers).to_owned(),
                file_system: (*file_system).to_owned(),
                source: (*source).to_owned(),
                options: (*options).to_owned(),
            };
            best = Some((depth, mount));
        }
    }
    best.map(|(_, mount)| mount)
}

/// A directory of its own inside `dir`, removed with everything in it when the guard goes.
///
/// # Errors
/// When it cannot be made, in words.
pub(crate) fn scratch(dir: &Path) -> Result<TempDir, String> {
    tempfile::Builder::new()
        .prefix("ringlog-bench-")
        .tempdir_in(dir)
        .map_err(|error| format!("cannot make a directory in {}: {error}", dir.display()))
}

/// Bytes of all files below `dir`. Files that vanish meanwhile count as nothing.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(facts) if facts.is_dir() => bytes_below(&entry.path()),
            Ok(facts) => facts.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes that are free where `dir` lies, as `df` tells; `None` when it does not.
pub(crate) fn free_bytes(dir: &Path) -> Option<u64> {
    let mut df = std::process::Command::new("df");
    let told = df.args(["--output=avail", "--block-size=1"]).arg(dir).output().ok()?;
    String::from_utf8(told.stdout).ok()?.lines().nth(1)?.trim().parse().ok()
}

fn read_line(path: &Path) -> Option<String> {
    let text: io::Result<String> = fs::read_to_string(path);
    Some(text.ok()?.trim().to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 7:1 / /mnt/a\\040b rw shared:1 master:2 - xfs /dev/loop1 rw
31 22 0:40 / /mnt rw - tmpfs tmpfs rw
32 22 0:41 / /mnt rw - btrfs /dev/loop2 rw
broken line
";

    #[test]
    fn the_longest_and_last_mount_point_wins() {
        let found = |dir: &str| {
            let mount = mount_of(MOUNTS, Path::new(dir)).unwrap();
            (mount.file_system, mount.source, mount.numbers)
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(found("/home/x"), owned("ext4", "/dev/vda", "254:0"));
        assert_eq!(found("/mnt/a b/c"), owned("xfs", "/dev/loop1", "7:1"));
        assert_eq!(found("/mnt/c"), owned("btrfs", "/dev/loop2", "0:41"));
        // A name that only begins alike is not below the mount point.
        assert_eq!(found("/mntx"), owned("ext4", "/dev/vda", "254:0"));
        assert_eq!(mount_of("", Path::new("/")), None);
        assert_eq!(mount_of(MOUNTS, Path::new("/")).unwrap().options, "rw,relatime");
    }

    #[test]
    fn the_setting_in_brackets_is_the_one_that_holds() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("[none]").as_deref(), Some("none"));
        assert_eq!(chosen("none"), None);
    }

    #[test]
    fn a_scratch_directory_is_removed_with_its_content() {
        let outer = tempfile::tempdir().unwrap();
        let scratch = scratch(outer.path()).unwrap();
        fs::create_dir(scratch.path().join("deep")).unwrap();
        fs::write(scratch.path().join("deep/file"), [0; 1000]).unwrap();
        fs::write(scratch.path().join("file"), [0; 24]).unwrap();
        assert_eq!(bytes_below(outer.path()), 1024);
        drop(scratch);
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_scratch_directory_where_there_is_no_directory_is_an_error() {
        let error = scratch(Path::new("/nonexistent/place")).unwrap_err();
        assert!(error.contains("/nonexistent/place"), "{error}");
    }
}
