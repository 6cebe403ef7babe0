//! `ringlog read`: records come out as lines.
//!
//! Invariants: the log is opened for reading only: no lock, no change; payloads go out byte for
//! byte; damage is told on stderr, and reading goes on behind it.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use ringlog::{Log, Offset, Options, ReadError, Record, RecoveryMode};

use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::record::{JsonPayload, JsonRecord, write_line};

/// How often the progress bar moves, in records.
const BAR_EVERY: u64 = 4096;

/// Write the payloads of a stream to stdout, one a line, byte for byte.
///
/// With --json: one object a line, {"offset", "timestamp_ns", "payload"}; a payload that is not
/// UTF-8 comes as "payload_base64" instead, and a tombstone has "tombstone": true. Only durable
/// records are read, and nothing is changed or locked. Where records are damaged, were given up by
/// a repair, or were trimmed although --from asks for them, stderr says so, reading goes on behind
/// them, and the exit code is 1.
#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// The name of the stream.
    #[arg(long, value_name = "NAME")]
    stream: String,
    /// The offset to begin at [default: the first one there is].
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// Write so many records at most.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &ReadArgs, messages: Messages) -> Result<Exit, Failure> {
    let options =
        Options { create: false, recovery: RecoveryMode::ReadOnly, ..Options::from_env()? };
    let log = Log::open(&args.dir.dir, options)?;
    messages.notes(&log.stats().notes);
    let stream = log.existing_stream(&args.stream)?;
    let reader = match args.from {
        Some(from) => stream.read(Offset(from)..),
        None => stream.read(..),
    };
    let mut reader = reader.map_err(|error| Failure::CouldNotRun(error.to_string()))?;
    if let Some(limit) = args.limit {
        reader = reader.limit(limit);
    }
    let left = stream.next_offset().0.saturating_sub(args.from.unwrap_or(0));
    let total = args.limit.map_or(left, |limit| limit.min(left));
    // Records on the same terminal would tear the bar apart.
    let bar = (!io::stdout().is_terminal())
        .then(|| messages.progress("reading", Unit::Records, Some(total)));

    let mut out = output::stdout()?;
    let mut exit = Exit::Done;
    let mut last_error = None;
    for (done, record) in (0..).zip(reader) {
        match record {
            Ok(record) => {
                last_error = None;
                let written = if messages.json() {
                    write_json(&mut out, &record)
                } else {
                    out.write_all(record.payload()).and_then(|()| out.write_all(b"\n"))
                };
                written.map_err(|e| Failure::stdout(&e))?;
            }
            Err(error) => {
                exit = Exit::Bad;
                // In the order in which a person at a terminal would look for it.
                out.flush().map_err(|e| Failure::stdout(&e))?;
                messages.error(&error.to_string());
                let goes_on = matches!(
                    error,
                    ReadError::Corrupt { .. } | ReadError::Lost { .. } | ReadError::Trimmed { .. }
                );
                if !goes_on || last_error.as_ref() == Some(&error) {
                    break;
                }
                last_error = Some(error);
            }
        }
        if done % BAR_EVERY == 0
            && let Some(bar) = &bar
        {
            bar.at(done);
        }
    }
    out.flush().map_err(|e| Failure::stdout(&e))?;
    Ok(exit)
}

fn write_json(out: &mut impl Write, record: &Record) -> io::Result<()> {
    let line = JsonRecord {
        stream: None,
        offset: record.offset().0,
        timestamp_ns: record.timestamp_ns(),
        payload: JsonPayload::of(record.payload()),
        tombstone: record.is_tombstone(),
    };
    write_line(out, &line)
}
