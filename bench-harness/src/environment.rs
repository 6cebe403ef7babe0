//! The machine a run takes place on, the directories it may use, and the wish to stop.
//!
//! Knows nothing of logs. Invariants: every directory made here is removed when its guard goes;
//! what cannot be found out is said to be unknown, never guessed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tempfile::TempDir;

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
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    /// CPUs that this process may use.
    pub(crate) cpus: usize,
    /// Mean number of busy tasks over the last minute, before the run: a busy machine measures
    /// its other work.
    pub(crate) load: Option<f64>,
}

impl Machine {
    /// Looks at the machine.
    pub(crate) fn look() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            })
            .unwrap_or_else(unknown);
        Self {
            kernel: read_line(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_else(unknown),
            cpu,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: read_line(Path::new("/proc/loadavg"))
                .and_then(|line| line.split(' ').next()?.parse().ok()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Linux {}, {} CPUs, {}", self.kernel, self.cpus, self.cpu)?;
        match self.load {
            Some(load) if load > self.cpus as f64 / 2.0 => {
                write!(f, "\nthe machine is busy with other work: load {load}")
            }
            _ => Ok(()),
        }
    }
}

/// Where a directory lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    pub(crate) file_system: String,
    pub(crate) device: String,
    /// The block device's write cache as the kernel sees it: "write back", "write through".
    pub(crate) write_cache: String,
}

impl Place {
    /// Looks up the mount that holds `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        let nowhere = || Self { file_system: unknown(), device: unknown(), write_cache: unknown() };
        let Ok(dir) = dir.canonicalize() else {
            return nowhere();
        };
        let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
            return nowhere();
        };
        let Some(mount) = mount_of(&mounts, &dir) else {
            return nowhere();
        };
        let queue = |up: &str| {
            let block = Path::new("/sys/dev/block").join(&mount.numbers);
            read_line(&block.join(up).join("queue/write_cache"))
        };
        Self {
            // A partition has no queue of its own; the disk above it has.
            write_cache: queue(".").or_else(|| queue("..")).unwrap_or_else(unknown),
            file_system: mount.file_system,
            device: mount.source,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    numbers: String,
    file_system: String,
    source: String,
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
        let ([_, _, numbers, _, point, ..], [file_system, source, ..]) = (&left[..], &right[..])
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
