//! Processes with limits: an agent that is listened to, and commands that must come to an end.
//!
//! Nothing here waits for ever: each wait has a limit, looks at the wish to stop, and whatever was
//! started is killed when it is dropped.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::agent;
use super::journal::{Ack, Journal};
use super::plan::{Life, LifePlan, RecordId, TOOL};

/// How often something is looked at that gives no sign.
const POLL: Duration = Duration::from_millis(2);

/// Why the suite itself could not go on. Not a finding about the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A signal asked to stop.
    Interrupted,
    /// Something did not come to an end within its limit.
    Hangs(String),
    /// A file system cannot be mounted.
    Unmountable(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Hangs(what) => write!(f, "HANGS: {what}"),
            Self::Unmountable(what) | Self::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Trouble {}

/// Says that something failed.
pub fn failed(what: &str, error: &impl fmt::Display) -> Trouble {
    Trouble::Failed(format!("{what}: {error}"))
}

/// The wish to stop, made by SIGINT, SIGTERM or SIGHUP.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicI32>,
}

impl Stop {
    /// Listens for the signals from here on.
    pub fn on_signals() -> Result<Self, Trouble> {
        let stop = Self::default();
        let mut signals = signal_hook::iterator::Signals::new([
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ])
        .map_err(|error| failed("signals", &error))?;
        let told = stop.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                told.signal.store(signal, Ordering::SeqCst);
                told.asked.store(true, Ordering::SeqCst);
            }
        });
        Ok(stop)
    }

    /// An error when somebody wants to stop.
    pub fn check(&self) -> Result<(), Trouble> {
        if self.asked.load(Ordering::SeqCst) { Err(Trouble::Interrupted) } else { Ok(()) }
    }

    /// The exit code of a process that a signal ended.
    pub fn exit_code(&self) -> u8 {
        128 + u8::try_from(self.signal.load(Ordering::SeqCst)).unwrap_or(0)
    }
}

/// Waits for the end of a process.
pub fn wait(child: &mut Child, limit: Duration, what: &str) -> Result<ExitStatus, Trouble> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            Ok(None) => return Err(Trouble::Hangs(what.to_owned())),
            Err(error) => return Err(failed(what, &error)),
        }
    }
}

/// Runs a command to its end; gives what it wrote to stdout, or an error with its stderr.
pub fn run(command: &mut Command, limit: Duration) -> Result<String, Trouble> {
    let what = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&what, &error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || text_of(stdout));
    let err = std::thread::spawn(move || text_of(stderr));
    let status = match wait(&mut child, limit, &what) {
        Ok(status) => status,
        Err(trouble) => {
            let _ = child.kill(); // it may hang in the kernel; nobody waits for it
            return Err(trouble);
        }
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if status.success() {
        Ok(out)
    } else {
        Err(Trouble::Failed(format!("{what}: {status}: {} {}", err.trim(), out.trim())))
    }
}

fn text_of(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes); // what came before an error is what there is
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The programs that are run.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program, which is the agent as well.
    pub agent: PathBuf,
    /// The command-line tool.
    pub tool: PathBuf,
}

impl Programs {
    /// Those beside this one.
    pub fn find(tool: Option<PathBuf>) -> Result<Self, Trouble> {
        let agent = std::env::current_exe().map_err(|error| failed("this program", &error))?;
        let tool = tool.unwrap_or_else(|| agent.with_file_name("ringlog"));
        if !tool.is_file() {
            return Err(Trouble::Failed(format!(
                "{} is not there: build it (cargo build --release -p ringlog-cli), or name it \
                 with --ringlog",
                tool.display()
            )));
        }
        Ok(Self { agent, tool })
    }

    /// Has the tool check every checksum.
    pub fn verify(&self, dir: &Path, limit: Duration) -> Result<String, Trouble> {
        run(Command::new(&self.tool).arg("verify").arg("--dir").arg(dir), limit)
    }
}

/// A life of the log that runs.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it has said.
    pub journal: Journal,
    /// Lines of the tool are bare offsets.
    tool: bool,
    stop: Stop,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    /// Starts an agent.
    pub fn agent(
        programs: &Programs,
        dir: &Path,
        life: Life,
        blocking: bool,
        stop: &Stop,
    ) -> Result<Self, Trouble> {
        let mut command = Command::new(&programs.agent);
        command.arg("agent").args(agent::Args::words(dir, life, blocking));
        let mut running = Self::start(&mut command, Journal::new(life, blocking), false, stop)?;
        running.stdin = running.child.stdin.take();
        Ok(running)
    }

    /// Starts `ringlog append --print-acks` and feeds it.
    pub fn tool(
        programs: &Programs,
        dir: &Path,
        life: Life,
        blocking: bool,
        stop: &Stop,
    ) -> Result<Self, Trouble> {
        let log = super::plan::LogPlan::of(life.seed);
        let mut command = Command::new(&programs.tool);
        command.args(["append", "--print-acks", "--stream", "tool", "--segment-bytes", "1M"]);
        command.arg("--shards").arg(log.shards.to_string()).arg("--dir").arg(dir);
        command.env("RINGLOG_IO", if blocking { "blocking" } else { "auto" });
        if let Some(retained) = log.retained {
            command.env("RINGLOG_RETAIN_SEGMENTS", retained.to_string());
        }
        let mut running = Self::start(&mut command, Journal::new(life, blocking), true, stop)?;
        let plan = LifePlan::of(life);
        // How many lines it has taken is not known, only how many there are.
        running.journal.begun.insert(TOOL, plan.appends);
        if let Some(mut stdin) = running.child.stdin.take() {
            std::thread::spawn(move || {
                for append in 0..plan.appends {
                    let append = plan.append_id(TOOL, append);
                    let mut line = plan.payload(RecordId { append, index: 0 });
                    line.push(b'\n');
                    if stdin.write_all(&line).is_err() {
                        break; // it has ended
                    }
                }
            });
        }
        Ok(running)
    }

    fn start(
        command: &mut Command,
        journal: Journal,
        tool: bool,
        stop: &Stop,
    ) -> Result<Self, Trouble> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed("agent", &error))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                // A line that the kill has cut short is not said.
                while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0)
                    && line.ends_with('\n')
                    && sender.send(line.trim_end().to_owned()).is_ok()
                {
                    line.clear();
                }
            });
        }
        let stderr = child.stderr.take();
        let stderr = Some(std::thread::spawn(move || text_of(stderr)));
        Ok(Self { child, stdin: None, lines, journal, tool, stop: stop.clone(), stderr })
    }

    /// Gives it a word.
    pub fn tell(&mut self, word: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{word}"); // it may have ended; what it said tells
        }
    }

    /// Listens until `enough` says so (true) or it says nothing more (false).
    pub fn listen(
        &mut self,
        limit: Duration,
        mut enough: impl FnMut(&Journal) -> bool,
    ) -> Result<bool, Trouble> {
        let deadline = Instant::now() + limit;
        while !enough(&self.journal) {
            self.stop.check()?;
            match self.lines.recv_timeout(Duration::from_millis(5)) {
                Ok(line) => self.take(&line),
                Err(RecvTimeoutError::Disconnected) => return Ok(enough(&self.journal)),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    let (life, stage) = (self.journal.life, self.journal.stage);
                    return Err(Trouble::Hangs(format!("{life:?} in {stage} for {limit:?}")));
                }
            }
        }
        Ok(true)
    }

    fn take(&mut self, line: &str) {
        if !self.tool {
            return self.journal.line(line);
        }
        let Ok(offset) = line.parse() else { return self.journal.nonsense.push(line.to_owned()) };
        let plan = LifePlan::of(self.journal.life);
        let acks = self.journal.acks.entry(plan.stream_of(TOOL)).or_default();
        let id = plan.append_id(TOOL, acks.len() as u64);
        acks.push(Ack { id, offset, lsn: None, flushed: false });
        self.journal.acknowledged += 1;
        self.journal.stage = super::journal::Stage::Appending;
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it may be gone already
    }

    /// Waits for the end, and takes what it said last; gives its status and stderr.
    pub fn end(mut self, limit: Duration) -> Result<(Journal, ExitStatus, String), Trouble> {
        self.listen(limit, |_| false)?;
        let status = wait(&mut self.child, limit, "the end of an agent")?;
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let empty = Journal::new(self.journal.life, false);
        Ok((std::mem::replace(&mut self.journal, empty), status, stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        // A process that hangs in the kernel is not waited for.
        let _ = wait(&mut self.child, Duration::from_secs(5), "the end of an agent");
    }
}
