//! What the commands tell: results on stdout, messages and progress on stderr, exit codes.
//!
//! Invariants: text of foreign origin reaches a terminal only through [`crate::text::escape`] or
//! as JSON; a message that cannot be written is dropped, never a panic; a closed stdout is no
//! failure.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ringlog::{Corruption, Log, OpenError, Options, StreamError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::json;

use crate::text::escape;

/// How a command ended that did what it was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well: 0.
    Done,
    /// Damage was found, or part of the work failed and has been reported: 1.
    Bad,
    /// Nothing was done because consent is missing: 2.
    NotDone,
    /// Interrupted: 130, as shells have it.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Bad => 1,
            Exit::NotDone => 2,
            Exit::Interrupted => INTERRUPTED,
        })
    }
}

/// The exit code after SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read our output has gone: a quiet end, exit code 0.
    Closed,
    /// It began and failed: exit code 1.
    Failed(String),
    /// It could not begin: exit code 2.
    CouldNotRun(String),
}

impl Failure {
    /// Tells it, and gives the exit code.
    pub(crate) fn report(self, messages: Messages) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Failed(text) => {
                messages.error(&text);
                Exit::Bad.into()
            }
            Self::CouldNotRun(text) => {
                messages.error(&text);
                Exit::NotDone.into()
            }
        }
    }

    /// For an error while writing results.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Failed(format!("stdout: {error}"))
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt(_) => Self::Failed(format!(
                "{error}\n`ringlog verify` lists all damage, `ringlog repair` gives up what is lost"
            )),
            other => Self::CouldNotRun(other.to_string()),
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Append(_) => Self::Failed(error.to_string()),
            other => Self::CouldNotRun(other.to_string()),
        }
    }
}

/// Messages on stderr, for people or as JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    json: bool,
}

impl Messages {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are wanted as JSON.
    pub(crate) fn json(self) -> bool {
        self.json
    }

    /// Something that went wrong.
    pub(crate) fn error(self, text: &str) {
        self.say("error", text);
    }

    /// Something to know, such as a fallback.
    pub(crate) fn note(self, text: &str) {
        self.say("note", text);
    }

    fn say(self, kind: &str, text: &str) {
        let line = if self.json {
            json!({ kind: text }).to_string()
        } else {
            let lines: Vec<String> = text.lines().map(escape).collect();
            format!("ringlog: {kind}: {}", lines.join("\n  "))
        };
        raw_stderr(&line);
    }

    /// Each note once.
    pub(crate) fn notes(self, notes: &[String]) {
        for (i, note) in notes.iter().enumerate() {
            if !notes[..i].contains(note) {
                self.note(note);
            }
        }
    }

    /// A bar for `total` units of work, in bytes or records; shown only when stderr is a terminal.
    pub(crate) fn progress(self, doing: &'static str, unit: Unit, total: Option<u64>) -> Progress {
        if self.json || !io::stderr().is_terminal() {
            return Progress(None);
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        let template = match (unit, total) {
            (Unit::Bytes, Some(_)) => {
                "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}"
            }
            (Unit::Bytes, None) => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
            (Unit::Records, Some(_)) => "{msg} {wide_bar} {human_pos}/{human_len} {per_sec}",
            (Unit::Records, None) => "{msg} {spinner} {human_pos} {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(doing);
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(Some(bar))
    }
}

/// Opens a log, with a bar on a terminal while it recovers.
pub(crate) fn open_log(dir: &Path, options: Options, messages: Messages) -> Result<Log, OpenError> {
    // Made with the first news: a log that was closed cleanly has nothing to be read.
    let bar = OnceLock::new();
    Log::open_with_progress(dir, options, move |progress| {
        bar.get_or_init(|| messages.progress("recovering", Unit::Bytes, Some(0))).update(&progress);
    })
}

/// Writes one line to stderr as it is. A stderr that is closed or full is nobody's loss.
pub(crate) fn raw_stderr(line: &str) {
    let mut line = line.to_owned();
    line.push('\n');
    drop(io::stderr().lock().write_all(line.as_bytes()));
}

/// What a progress bar counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Bytes,
    Records,
}

/// A progress bar, or nothing where there is no terminal. Removed from the screen when dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// So much is done.
    pub(crate) fn at(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// So much is done, of so much.
    pub(crate) fn update(&self, progress: &ringlog::Progress) {
        if let Some(bar) = &self.0 {
            bar.set_length(progress.total_bytes);
            bar.set_position(progress.done_bytes);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Stdout with a large buffer, and without the line buffer of the standard library, which would
/// look for newlines in what may be binary.
///
/// # Errors
/// [`Failure::Failed`] when the descriptor cannot be duplicated.
pub(crate) fn stdout() -> Result<BufWriter<File>, Failure> {
    let fd = io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::stdout(&e))?;
    Ok(BufWriter::with_capacity(256 << 10, File::from(fd)))
}

/// Whether nobody reads our output any more, as far as that can be known without writing.
pub(crate) fn stdout_is_closed() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be asked is told by the next write.
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

/// Writes the whole result of a command to stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// The same, for what need not be text.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout()?;
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Writes the whole result of a command to stdout as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&(to_json(value)? + "\n"))
}

/// A result as one line of JSON, without its newline.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|e| Failure::Failed(format!("the result has no JSON form: {e}")))
}

/// Damage as JSON.
pub(crate) fn corruption_json(corruption: &Corruption) -> serde_json::Value {
    json!({
        "shard": corruption.shard,
        "segment": corruption.segment.map(|segment| segment.0),
        "file": corruption.file,
        "file_offset": corruption.file_offset,
        "lsn": corruption.lsn.map(|lsn| lsn.0),
        "what": corruption.what,
    })
}
