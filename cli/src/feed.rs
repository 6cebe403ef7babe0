//! What the commands share that take lines and append: flags, input, signals, threads.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use ringlog::{AppendError, Durability, Log, Options, SyncPolicy};

use crate::output::{self, Failure};
use crate::stop::Stop;
use crate::values::{self, DurabilityArg};

/// How a log is written.
#[derive(Args, Debug)]
pub(crate) struct WriteArgs {
    /// When a record is acknowledged [default: RINGLOG_DURABILITY, else synced].
    #[arg(long, value_name = "LEVEL")]
    durability: Option<DurabilityArg>,
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
}

impl WriteArgs {
    /// The options of the environment, and what the flags say.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut options = Options::from_env()?;
        if let Some(durability) = self.durability {
            options.durability = durability.into();
        }
        if let Some(bytes) = self.segment_bytes {
            options.format.segment_bytes = Some(bytes);
        }
        if let Some(shards) = self.shards {
            options.format.shards = Some(shards);
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
pub(crate) enum Input {
    Stdin,
    /// A file, and its size when it is a regular one.
    File(File, Option<u64>),
}

impl Input {
    /// Opens a file; `-` and nothing are stdin.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
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

    /// How many bytes will come, where that is known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Stdin => None,
            Self::File(_, bytes) => *bytes,
        }
    }

    /// The bytes.
    pub(crate) fn into_read(self) -> Box<dyn Read> {
        match self {
            Self::Stdin => Box::new(io::stdin().lock()),
            Self::File(file, _) => Box::new(file),
        }
    }
}

/// Makes durable what no sync policy would flush before long: nothing more comes that a flush could
/// wait for.
pub(crate) fn flush_rest(
    log: &Log,
    durability: Durability,
    sync: SyncPolicy,
) -> Result<(), ringlog::LogError> {
    match (durability, sync) {
        (Durability::Synced, SyncPolicy::EveryCommit | SyncPolicy::EveryAppend) => Ok(()),
        (Durability::Synced, _) => log.flush(),
        _ => Ok(()),
    }
}

/// The first SIGINT stops the appending; the second one ends the program at once.
pub(crate) fn on_interrupt(stop: &Arc<Stop>) -> Result<(), Failure> {
    let stop = Arc::clone(stop);
    ctrlc::set_handler(move || {
        if !stop.interrupt() {
            std::process::exit(output::INTERRUPTED.into());
        }
    })
    .map_err(|error| Failure::CouldNotRun(format!("SIGINT cannot be caught: {error}")))
}

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| Failure::CouldNotRun(format!("a thread could not be started: {error}")))
}
