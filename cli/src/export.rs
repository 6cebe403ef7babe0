//! `ringlog export`: records as lines of JSON, for `ringlog import`.
//!
//! Invariants: nothing is changed or locked; what cannot be exported is told, never passed over in
//! silence.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use clap::Args;
use ringlog::{Dumped, Entry, EntryKind};

use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::read;
use crate::record::{JsonPayload, JsonRecord, write_line};
use crate::values;

/// Write records as JSON, one object a line, for `ringlog import`.
///
/// {"stream", "offset", "timestamp_ns", "payload"}; a payload that is not UTF-8 comes as
/// "payload_base64" instead, and a tombstone has "tombstone": true. The order is that of the log,
/// shard by shard, so the records of each stream are in the order of their offsets. Where
/// something is damaged, stderr says so, the export goes on behind it, and the exit code is 1.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// Only the records of this stream.
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Only what was placed at TIME or later: RFC 3339, seconds since 1970, or a span back from
    /// now such as 10m.
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    since: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &ExportArgs, messages: Messages) -> Result<Exit, Failure> {
    match &args.stream {
        Some(stream) => export_stream(args, stream, messages),
        None => export_all(args, messages),
    }
}

/// One stream, with the help of its index.
fn export_stream(args: &ExportArgs, name: &str, messages: Messages) -> Result<Exit, Failure> {
    let log = read::open(&args.dir, messages)?;
    let stream = log.existing_stream(name)?;
    let reader = match args.since {
        Some(since) => stream.read_since(since),
        None => stream.read(..),
    };
    let mut reader = reader.map_err(|error| Failure::Failed(error.to_string()))?;
    let bar = read::progress(messages, "exporting", None);
    let mut out = output::stdout()?;
    let exit = read::copy(&mut reader, &mut out, bar.as_ref(), messages, |out, record| {
        write_line(out, &JsonRecord::of(Some(name), record))
    })?;
    out.flush().map_err(|error| Failure::stdout(&error))?;
    Ok(exit)
}

/// All streams, in one pass.
fn export_all(args: &ExportArgs, messages: Messages) -> Result<Exit, Failure> {
    let mut out = output::stdout()?;
    // Lines on the same terminal would tear the bar apart.
    let bar =
        (!io::stdout().is_terminal()).then(|| messages.progress("exporting", Unit::Bytes, Some(0)));
    let mut exit = Exit::Done;
    let mut written = Ok(());
    let mut visit = |dumped: Dumped<'_>| {
        match dumped {
            Dumped::Entry(entry) => match entry.name {
                _ if entry.trimmed => {}
                _ if !matches!(entry.kind, EntryKind::Record | EntryKind::Tombstone) => {}
                Some(name) => written = write_line(&mut out, &line(name, &entry)),
                None => {
                    exit = Exit::Bad;
                    messages.error(&format!(
                        "shard {}: stream {} has no name; its record {} is not exported",
                        entry.shard, entry.stream.0, entry.offset
                    ));
                }
            },
            Dumped::Damage(corruption) => {
                exit = Exit::Bad;
                messages.error(&format!("damaged, and not exported: {corruption}"));
            }
            Dumped::Trimmed { shard, segment } => {
                messages.note(&format!("shard {shard}: segment {segment} was trimmed meanwhile"));
            }
            _ => {}
        }
        if written.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut progress = |progress| {
        if let Some(bar) = &bar {
            bar.update(&progress);
        }
    };
    ringlog::dump(&args.dir.dir, args.since.unwrap_or(0), &mut progress, &mut visit)?;
    written.and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))?;
    Ok(exit)
}

fn line<'a>(name: &'a str, entry: &Entry<'a>) -> JsonRecord<'a> {
    JsonRecord {
        stream: Some(name),
        offset: entry.offset.0,
        timestamp_ns: entry.timestamp_ns,
        payload: JsonPayload::of(entry.payload),
        tombstone: entry.kind == EntryKind::Tombstone,
    }
}
