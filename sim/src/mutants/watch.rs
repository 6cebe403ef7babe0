//! One process that may hang or die: it is read line by line, has a limit, and is ended with
//! everything that it has started.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Passed,
    /// It said that something is wrong (and what, where that is known), or did not end well.
    Failed(Option<String>),
    /// It was ended at its limit. Nothing was noticed.
    TimedOut,
}

/// How it ended, and when.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How.
    pub end: End,
    /// Seconds after it was started.
    pub seconds: f64,
}

/// Ends the process and all of its group, whatever happens to whoever holds it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL); // it may be gone
        }
        let _ = self.0.wait(); // it was killed: there is nothing to learn from it
    }
}

/// Where the process leaves its files. Goes with all of them, and with what is mounted there.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        // Without links: mounts are listed so.
        let place = std::env::temp_dir().canonicalize()?;
        TempDir::with_prefix_in("ringlog-mutant-", place).map(Self)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| Path::new(point).starts_with(self.0.path())) {
            let _ = Command::new("umount").arg("--lazy").arg(point).status(); // shown by what stays
        }
    }
}

/// Runs a command until it ends, or `verdict` makes a failure out of a line, or the limit is met.
/// An exit status of 2 says that the command itself is wrong, which proves nothing.
///
/// # Errors
/// It cannot be started, or refuses its arguments.
pub fn watch(
    mut command: Command,
    limit: Duration,
    verdict: impl Fn(&str) -> Option<String>,
) -> Result<Ran, String> {
    let scratch = Scratch::new().map_err(|error| format!("a directory for it: {error}"))?;
    command
        .env("TMPDIR", scratch.0.path())
        .env("RINGLOG_TEST_DIR", scratch.0.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let start = Instant::now();
    let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let mut group = Group(child);
    let stdout = group.0.stdout.take().ok_or("no standard output")?;
    let (lines, told) = channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return; // enough was read
            }
        }
    });
    let end = loop {
        match told.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => {
                if let Some(what) = verdict(&line) {
                    break End::Failed(Some(what));
                }
            }
            Err(RecvTimeoutError::Timeout) => break End::TimedOut,
            Err(RecvTimeoutError::Disconnected) => {
                match ended(&mut group.0, limit.saturating_sub(start.elapsed()))? {
                    None => break End::TimedOut,
                    Some(status) if status.code() == Some(2) => {
                        return Err(format!("{command:?}: refuses its arguments"));
                    }
                    Some(status) if status.success() => break End::Passed,
                    Some(_) => break End::Failed(None),
                }
            }
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    drop((group, told, scratch));
    let _ = reader.join(); // it has nothing to say
    Ok(Ran { end, seconds })
}

/// The status of a process that has closed its output, and so is about to end.
fn ended(child: &mut Child, at_most: Duration) -> Result<Option<ExitStatus>, String> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(Some(status));
        }
        if start.elapsed() >= at_most {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit_ms: u64) -> End {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let wrong = |line: &str| line.strip_prefix("wrong: ").map(str::to_owned);
        watch(command, Duration::from_millis(limit_ms), wrong).unwrap().end
    }

    #[test]
    fn a_process_is_judged_by_its_words_and_by_its_end() {
        assert_eq!(shell("echo fine", 60_000), End::Passed);
        assert_eq!(shell("exit 1", 60_000), End::Failed(None));
        assert_eq!(shell("kill -ABRT $$", 60_000), End::Failed(None));
        let said = End::Failed(Some("seed 7".to_owned()));
        assert_eq!(shell("echo wrong: seed 7; exec sleep 600", 60_000), said);
    }

    #[test]
    fn one_that_hangs_has_noticed_nothing_and_leaves_nobody_behind() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        assert_eq!(shell(&script, 1_000), End::TimedOut);
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        // It is gone, or waits for somebody to ask how it ended.
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let start = Instant::now();
        while !gone() {
            assert!(start.elapsed() < Duration::from_secs(60), "process {pid} is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
