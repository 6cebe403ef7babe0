//! `ringlog append`: lines become records.
//!
//! Three threads: one reads ([`crate::input`]), this one appends, one collects acknowledgements
//! ([`crate::acks`]). So many appends are outstanding at a time, and neither a slow input nor a
//! slow disk keeps an acknowledgement from being printed.
//!
//! Invariants: what the summary counts as `records` was acknowledged at the durability asked for;
//! a batch is appended whole or not at all; after an error nothing more is appended.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Instant;

use clap::Args;
use ringlog::{AppendError, Durability, Log, Options, SyncPolicy};
use serde::Serialize;

use crate::acks;
use crate::appender::{Appender, GROUPS_MAX};
use crate::input;
use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::stop::Stop;
use crate::values::{self, DurabilityArg};

/// Append each line of FILE or stdin, without its newline, as a record.
///
/// An empty line is an empty record; a last line without a newline is a record as well. A summary
/// follows as one JSON object on stdout (with --print-acks on stderr, as its last line): what it
/// counts is acknowledged.
#[derive(Args, Debug)]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// The name of the stream; it is created when there is none.
    #[arg(long, value_name = "NAME")]
    stream: String,
    /// When a record is acknowledged [default: RINGLOG_DURABILITY, else synced].
    #[arg(long, value_name = "LEVEL")]
    durability: Option<DurabilityArg>,
    /// Append N lines at a time as one atomic batch; the last one may have fewer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Write the offset of each record to stdout, one a line, flushed, once it is acknowledged.
    #[arg(long)]
    print_acks: bool,
    /// Size of the segments of a log that is created: a power of two from 1M to 1G.
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    segment_bytes: Option<u64>,
    /// Number of shards of a log that is created, 1 to 64.
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// When to flush: every-commit, every-append, interval:10ms, records:N[:10ms],
    /// bytes:N[:10ms] or never [default: every-commit].
    #[arg(long, value_name = "POLICY")]
    sync: Option<SyncPolicy>,
    /// The file to read; `-` or nothing means stdin.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl AppendArgs {
    fn options(&self) -> Result<Options, Failure> {
        let mut options = Options::from_env()?;
        if let Some(durability) = self.durability {
            options.durability = durability.into();
        }
        if let Some(bytes) = self.segment_bytes {
            options.format.segment_bytes = bytes;
        }
        if let Some(shards) = self.shards {
            options.format.shards = shards;
        }
        if let Some(sync) = self.sync {
            options.sync = sync;
        }
        if options.sync == SyncPolicy::Never && options.durability == Durability::Synced {
            return Err(Failure::CouldNotRun(AppendError::NeverSynced.to_string()));
        }
        Ok(options)
    }
}

/// Where the lines come from.
enum Input {
    Stdin,
    /// A file, and its size when it is a regular one.
    File(File, Option<u64>),
}

impl Input {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Stdin);
        };
        let failed =
            |error: io::Error| Failure::CouldNotRun(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self::File(file, metadata.is_file().then_some(metadata.len())))
    }

    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Stdin => None,
            Self::File(_, bytes) => *bytes,
        }
    }
}

/// Runs the command.
pub(crate) fn run(args: &AppendArgs, messages: Messages) -> Result<Exit, Failure> {
    let options = args.options()?;
    let (durability, sync) = (options.durability, options.sync);
    let acks_out = if args.print_acks { Some(output::stdout()?) } else { None };
    // Before the log, so that a mistyped file name creates none.
    let input = Input::open(args.file.as_deref())?;
    let bar_total = input.bytes();
    let log = Log::open(&args.dir.dir, options)?;
    let stream = log.stream(&args.stream)?;
    messages.notes(&log.stats().notes);

    let started = Instant::now();
    let (event_sender, events) = sync_channel(input::EVENTS_MAX);
    let (give_back, memory) = channel();
    let stop = Arc::new(Stop::new(event_sender.clone()));
    on_interrupt(&stop)?;
    // The reader is never joined: it may be waiting for input that will not come.
    spawn("reader", move || match input {
        Input::Stdin => input::pump(io::stdin().lock(), &event_sender, &memory),
        Input::File(file, _) => input::pump(file, &event_sender, &memory),
    })?;
    let (pending, collected) = sync_channel(GROUPS_MAX);
    let collector = {
        let stop = Arc::clone(&stop);
        spawn("acknowledgements", move || acks::collect(&collected, acks_out, &stop))?
    };

    // Acknowledgements on the same terminal would tear the bar apart.
    let bar = (!args.print_acks || !io::stdout().is_terminal())
        .then(|| messages.progress("appending", Unit::Bytes, bar_total));
    // In memory, the append itself is the acknowledgement.
    let collect_all = args.print_acks || durability != Durability::Memory;
    let mut appender =
        Appender::new(&stream, durability, args.batch, collect_all.then_some(pending));
    let appended = appender.take_all(&events, &give_back, &stop, |bytes| {
        if let Some(bar) = &bar {
            bar.at(bytes);
        }
    });
    let memory_tally = appender.finish();
    // Nothing more comes that a flush could wait for.
    let flushed = match (durability, sync) {
        (Durability::Synced, SyncPolicy::EveryCommit | SyncPolicy::EveryAppend) => Ok(()),
        (Durability::Synced, _) => log.flush(),
        _ => Ok(()),
    };
    let mut tally = collector
        .join()
        .map_err(|_| Failure::Failed("the thread of the acknowledgements died".to_owned()))?;
    memory_tally.add_to(&mut tally);
    if let Err(error) = appended {
        tally.fail(error);
    }
    if let Err(error) = flushed {
        tally.fail(error.to_string());
    }
    let elapsed = started.elapsed();
    drop(bar);

    let stats = log.stats();
    drop(stream);
    if let Err(error) = log.close() {
        tally.fail(format!("closing the log: {error}"));
    }
    let ended = match (&tally.error, stop.interrupted(), tally.stdout_closed) {
        (Some(_), _, _) => "error",
        (None, true, _) => "interrupted",
        (None, false, true) => "stdout closed",
        (None, false, false) => "end of input",
    };
    let summary = Summary {
        records: tally.records,
        bytes: tally.bytes,
        first_offset: tally.first.map(|offset| offset.0),
        last_offset: tally.last.map(|offset| offset.0),
        unacknowledged_records: tally.unacknowledged,
        ended,
        error: tally.error.as_deref(),
        elapsed_s: elapsed.as_secs_f64(),
        records_per_s: tally.records as f64 / elapsed.as_secs_f64(),
        bytes_per_s: tally.bytes as f64 / elapsed.as_secs_f64(),
        durability: values::durability_name(durability),
        sync: sync.to_string(),
        batch: args.batch,
        io: stats.io,
        direct: stats.direct,
        commit_primitive: stats.commit_primitive,
        file_system: &stats.file_system,
        notes: &stats.notes,
    };
    if let Some(error) = &tally.error {
        messages.error(&format!(
            "{error}; {} records were acknowledged ({})",
            tally.records,
            values::durability_name(durability)
        ));
    }
    if args.print_acks {
        output::raw_stderr(&output::to_json(&summary)?);
    } else {
        match output::print_json(&summary) {
            // Whether anybody hears the summary changes nothing in what came of the appends.
            Ok(()) | Err(Failure::Closed) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(match ended {
        "error" => Exit::Bad,
        "interrupted" => Exit::Interrupted,
        _ => Exit::Done,
    })
}

/// What came of it. `records`, `bytes` and the offsets are those of acknowledged records.
#[derive(Serialize)]
struct Summary<'a> {
    records: u64,
    bytes: u64,
    first_offset: Option<u64>,
    last_offset: Option<u64>,
    unacknowledged_records: u64,
    ended: &'static str,
    error: Option<&'a str>,
    elapsed_s: f64,
    records_per_s: f64,
    bytes_per_s: f64,
    durability: &'static str,
    sync: String,
    batch: Option<u32>,
    io: &'static str,
    direct: bool,
    commit_primitive: &'static str,
    file_system: &'a str,
    notes: &'a [String],
}

/// The first SIGINT stops the appending; the second one ends the program at once.
fn on_interrupt(stop: &Arc<Stop>) -> Result<(), Failure> {
    let stop = Arc::clone(stop);
    ctrlc::set_handler(move || {
        if !stop.interrupt() {
            std::process::exit(output::INTERRUPTED.into());
        }
    })
    .map_err(|error| Failure::CouldNotRun(format!("SIGINT cannot be caught: {error}")))
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| Failure::CouldNotRun(format!("a thread could not be started: {error}")))
}
