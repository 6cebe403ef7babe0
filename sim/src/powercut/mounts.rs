//! Loop devices and mounts over the power-cut disk.
//!
//! All of it happens in a mount namespace of its own ([`enter_namespace`]), and a loop device is
//! given back to the kernel as soon as it is mounted: so when this process is gone, however it
//! went, its mounts and loop devices go as well.

use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::live::child::{Trouble, failed, run};

/// How long a command that mounts or makes a file system may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a killed process may keep its files open.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// A file system that can be put on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FileSystem {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// How large the disk is: small, but as large as its mkfs wants it.
    pub fn disk_bytes(self) -> u64 {
        match self {
            Self::Ext4 => 96 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 192 << 20,
        }
    }

    /// Why it cannot be made here, if it cannot.
    pub fn missing(self) -> Option<String> {
        let name = self.name();
        let mkfs = format!("mkfs.{name}");
        if !in_path(&mkfs) {
            return Some(format!("{mkfs} is not installed"));
        }
        let known = |name: &str| {
            let list = fs::read_to_string("/proc/filesystems").unwrap_or_default();
            list.lines().any(|line| line.trim_start_matches("nodev").trim() == name)
        };
        if !known(name) {
            let _ = run(Command::new("modprobe").arg(name), LIMIT); // the list tells
        }
        (!known(name)).then(|| format!("this kernel has no {name}"))
    }

    fn make(self, device: &Path) -> Result<(), Trouble> {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Self::Ext4 => command.args(["-q", "-F", "-E", "nodiscard,lazy_itable_init=0"]),
            Self::Xfs => command.args(["-q", "-f", "-K"]),
            Self::Btrfs => command.args(["-q", "-f", "-K"]),
        };
        run(command.arg(device), LIMIT).map(drop)
    }

    fn options(self) -> &'static str {
        match self {
            // The image that was cut has the identity of the one that it was copied from.
            Self::Xfs => "nouuid",
            Self::Ext4 | Self::Btrfs => "defaults",
        }
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.any(|directory| directory.join(program).is_file())
}

/// What no file system can do without; `None` when all of it is there.
pub fn missing() -> Option<String> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    if !root {
        return Some("mounting needs root".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(device) {
            return Some(format!("{device}: {error}"));
        }
    }
    for program in ["losetup", "mount", "umount", "unshare"] {
        if !in_path(program) {
            return Some(format!("{program} is not installed"));
        }
    }
    if let Err(trouble) = run(Command::new("unshare").args(["--mount", "true"]), LIMIT) {
        return Some(format!("no mount namespace can be had: {trouble}"));
    }
    None
}

/// Starts this program again, in the same process, with the same arguments, in a mount namespace of
/// its own. Comes back only when that fails.
pub fn enter_namespace(mark: &str) -> Trouble {
    let Ok(program) = std::env::current_exe() else {
        return Trouble::Failed("this program is not known".to_owned());
    };
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(mark, "1")
        .exec();
    failed("unshare", &error)
}

/// A loop device over a file; detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn attach(file: &Path) -> Result<Self, Trouble> {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show", "--direct-io=on"]).arg(file);
        let device = run(&mut command, LIMIT)?;
        let device = PathBuf::from(device.trim());
        let attached = Self(device);
        // Where direct I/O is refused, the page cache below would be a cache that no cut empties.
        let name = attached.0.file_name().unwrap_or_default().to_owned();
        let direct = Path::new("/sys/block").join(name).join("loop/dio");
        match fs::read_to_string(&direct) {
            Ok(text) if text.trim() == "1" => Ok(attached),
            Ok(_) => Err(Trouble::Failed("the loop device takes no direct I/O".to_owned())),
            Err(error) => Err(failed(&direct.display().to_string(), &error)),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // While it is mounted this means: as soon as it is not.
        if let Err(trouble) = run(Command::new("losetup").arg("--detach").arg(&self.0), LIMIT) {
            eprintln!("power-cuts: {trouble}");
        }
    }
}

/// Makes a file system on the disk behind a file.
pub fn make(file_system: FileSystem, file: &Path) -> Result<(), Trouble> {
    let device = Loop::attach(file)?;
    file_system.make(&device.0)
}

/// A mounted file system. Unmounted when dropped.
pub struct Mounted {
    directory: PathBuf,
    mounted: bool,
}

impl Mounted {
    /// Mounts what is on the disk behind a file.
    pub fn mount(file_system: FileSystem, file: &Path, on: &Path) -> Result<Self, Trouble> {
        let device = Loop::attach(file)?;
        let mut command = Command::new("mount");
        command.args(["-t", file_system.name(), "-o", file_system.options()]);
        run(command.arg(&device.0).arg(on), LIMIT)?;
        Ok(Self { directory: on.to_owned(), mounted: true })
    }

    /// Unmounts it. Waits a little for processes that were killed just now.
    pub fn unmount(mut self) -> Result<(), Trouble> {
        self.try_unmount(BUSY_LIMIT)
    }

    fn try_unmount(&mut self, limit: Duration) -> Result<(), Trouble> {
        let deadline = Instant::now() + limit;
        loop {
            match run(Command::new("umount").arg(&self.directory), LIMIT) {
                Ok(_) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(Trouble::Failed(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted
            && self.try_unmount(Duration::from_secs(2)).is_err()
            && let Err(trouble) = run(Command::new("umount").arg("-l").arg(&self.directory), LIMIT)
        {
            eprintln!("power-cuts: {trouble}");
        }
    }
}

/// Waits until no loop device has a file below `directory`: the kernel gives them back a little
/// after the file system has gone.
pub fn wait_for_loops(directory: &Path) {
    let deadline = Instant::now() + BUSY_LIMIT;
    while let Some(name) = loop_below(directory) {
        if Instant::now() >= deadline {
            return eprintln!("power-cuts: {name} is still in use; it goes with its last user");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn loop_below(directory: &Path) -> Option<String> {
    let devices = fs::read_dir("/sys/block").ok()?;
    let mut names = devices.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find(|name| {
        let file = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()).starts_with(directory))
    })
}
