//! `ringlog read`: records come out as lines.
//!
//! Invariants: the log is opened for reading only: no lock, no change; payloads go out byte for
//! byte; damage is told on stderr, and reading goes on behind it.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::Args;
use ringlog::{Log, Offset, Options, ReadError, Reader, RecordRef, RecoveryMode, Stream};

use crate::output::{self, Exit, Failure, Messages, Progress, Unit};
use crate::record::{JsonRecord, write_line};
use crate::values::{self, VisibilityArg};

/// How often the progress bar moves, in records.
const BAR_EVERY: u64 = 4096;

/// Write the payloads of a stream to stdout, one a line, byte for byte.
///
/// With --json: one object a line, {"offset", "timestamp_ns", "payload"}; a payload that is not
/// UTF-8 comes as "payload_base64" instead, and a tombstone has "tombstone": true. Nothing is
/// changed or locked. Where records are damaged, were given up by a repair, or were trimmed
/// although --from asks for them, stderr says so, reading goes on behind them, and the exit code
/// is 1.
#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// The name of the stream.
    #[arg(long, value_name = "NAME")]
    stream: String,
    /// The offset to begin at, or, with --reverse, to end with [default: the first one there is].
    #[arg(long, value_name = "OFFSET", conflicts_with = "since")]
    from: Option<u64>,
    /// Begin (with --reverse: end) with the first record that was placed at TIME or later: RFC
    /// 3339, seconds since 1970, or a span back from now such as 10m.
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    since: Option<u64>,
    /// Begin with the last record and go backwards.
    #[arg(long)]
    reverse: bool,
    /// Which records are shown; of a log that another process writes, durable ones in any case.
    #[arg(long, value_name = "LEVEL", default_value = "durable")]
    visibility: VisibilityArg,
    /// Write so many records at most.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &ReadArgs, messages: Messages) -> Result<Exit, Failure> {
    let log = open(&args.dir, messages)?;
    let stream = log.existing_stream(&args.stream)?;
    let reader = reader(args, &stream).map_err(|error| match error {
        ReadError::Disk(error) => Failure::Failed(error.to_string()),
        error => Failure::CouldNotRun(error.to_string()),
    })?;
    let Some(mut reader) = reader else { return Ok(Exit::Done) };
    if let Some(limit) = args.limit {
        reader = reader.limit(limit);
    }
    let left = stream.next_offset().0.saturating_sub(args.from.unwrap_or(0));
    let total = args.limit.map_or(left, |limit| limit.min(left));
    let bar = progress(messages, "reading", Some(total));
    let mut out = output::stdout()?;
    let exit = copy(&mut reader, &mut out, bar.as_ref(), messages, |out, record| {
        write_record(out, record, messages.json())
    })?;
    out.flush().map_err(|e| Failure::stdout(&e))?;
    Ok(exit)
}

/// Opens a log for reading only.
pub(crate) fn open(dir: &crate::Dir, messages: Messages) -> Result<Log, Failure> {
    let options =
        Options { create: false, recovery: RecoveryMode::ReadOnly, ..Options::from_env()? };
    let log = output::open_log(&dir.dir, options, messages)?;
    messages.notes(&log.stats().notes);
    Ok(log)
}

/// A reader of what is asked for; `None` where there is nothing.
fn reader(args: &ReadArgs, stream: &Stream) -> Result<Option<Reader>, ReadError> {
    let visibility = args.visibility.into();
    let from = match (args.since, args.from) {
        (Some(since), _) if args.reverse => {
            // Backwards, a reader ends at an offset.
            let mut first = stream.read_since(since)?.visibility(visibility);
            match first.find_map(Result::ok) {
                Some(record) => Some(record.offset()),
                None => return Ok(None),
            }
        }
        (Some(since), _) => return Ok(Some(stream.read_since(since)?.visibility(visibility))),
        (None, from) => from.map(Offset),
    };
    let reader = match from {
        Some(from) => stream.read(from..)?,
        None => stream.read(..)?,
    };
    let reader = reader.visibility(visibility);
    Ok(Some(if args.reverse { reader.reverse() } else { reader }))
}

/// A bar that counts records, where records on the same terminal do not tear it apart.
pub(crate) fn progress(
    messages: Messages,
    doing: &'static str,
    total: Option<u64>,
) -> Option<Progress> {
    (!io::stdout().is_terminal()).then(|| messages.progress(doing, Unit::Records, total))
}

/// Writes everything that a reader gives, and tells what it cannot give.
pub(crate) fn copy(
    reader: &mut Reader,
    out: &mut BufWriter<File>,
    bar: Option<&Progress>,
    messages: Messages,
    mut write: impl FnMut(&mut BufWriter<File>, &RecordRef<'_>) -> io::Result<()>,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let mut last_error = None;
    let mut done = 0;
    while let Some(record) = reader.next_ref() {
        match record {
            Ok(record) => {
                last_error = None;
                write(out, &record).map_err(|e| Failure::stdout(&e))?;
            }
            Err(error) => {
                exit = Exit::Bad;
                // In the order in which a person at a terminal would look for it.
                out.flush().map_err(|e| Failure::stdout(&e))?;
                messages.error(&error.to_string());
                if !goes_on(&error) || last_error.as_ref() == Some(&error) {
                    break;
                }
                last_error = Some(error);
            }
        }
        done += 1;
        if let Some(bar) = bar.filter(|_| done % BAR_EVERY == 0) {
            bar.at(done);
        }
    }
    Ok(exit)
}

/// Whether a reader goes on behind this.
pub(crate) fn goes_on(error: &ReadError) -> bool {
    matches!(error, ReadError::Corrupt { .. } | ReadError::Lost { .. } | ReadError::Trimmed { .. })
}

/// Writes a record of a known stream: its payload and a newline, or an object.
pub(crate) fn write_record(
    out: &mut impl Write,
    record: &RecordRef<'_>,
    json: bool,
) -> io::Result<()> {
    if json {
        return write_line(out, &JsonRecord::of(None, record));
    }
    out.write_all(record.payload())?;
    out.write_all(b"\n")
}
