//! `ringlog trim` and `ringlog retain`: drop what is old.

use std::time::Duration;

use clap::Args;
use ringlog::{Log, LogError, Offset, Options, Retention, TrimError, TrimReport};
use serde_json::json;

use crate::output::{self, Exit, Failure, Messages};
use crate::text::{bytes, escape};
use crate::values;

/// Drop, for good, the oldest sealed segments of every shard, or the beginning of one stream.
///
/// The room of a stream's records is given back once all that lies in their segment is trimmed.
#[derive(Args, Debug)]
pub(crate) struct TrimArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// How many sealed segments each shard keeps.
    #[arg(
        long,
        value_name = "N",
        conflicts_with_all = ["stream", "before"],
        required_unless_present = "stream"
    )]
    keep_segments: Option<usize>,
    /// Trim this stream only.
    #[arg(long, value_name = "NAME", requires = "before")]
    stream: Option<String>,
    /// Drop the records of the stream below this offset.
    #[arg(long, value_name = "OFFSET", requires = "stream")]
    before: Option<u64>,
}

/// Runs `trim`.
pub(crate) fn trim(args: &TrimArgs, messages: Messages) -> Result<Exit, Failure> {
    let log = open(&args.dir, messages)?;
    if let (Some(stream), Some(before)) = (&args.stream, args.before) {
        return trim_stream(log, stream, Offset(before), messages);
    }
    let report = log.trim(args.keep_segments.unwrap_or(usize::MAX));
    print_report(log, report, messages)
}

fn trim_stream(log: Log, name: &str, before: Offset, messages: Messages) -> Result<Exit, Failure> {
    let stream = log.existing_stream(name)?;
    let trimmed = stream.trim(before).map_err(|error| match error {
        TrimError::OutOfRange { .. } => Failure::CouldNotRun(error.to_string()),
        _ => Failure::Failed(error.to_string()),
    });
    drop(stream);
    if trimmed.is_ok() {
        // What can go now goes now, not at the next open.
        log.retain(Retention::default()).map_err(|error| Failure::Failed(error.to_string()))?;
    }
    let closed = log.close().map_err(|error| Failure::Failed(error.to_string()));
    let first = trimmed?;
    closed?;
    if messages.json() {
        output::print_json(&json!({ "stream": name, "first_offset": first.0 }))?;
    } else {
        output::print(&format!("stream {} begins at {first}\n", escape(name)))?;
    }
    Ok(Exit::Done)
}

/// Drop, once and for good, the oldest sealed segments of each shard that are outside these bounds.
///
/// A segment goes as soon as one bound is passed; the open one always stays. A running program keeps
/// to such bounds by itself, with `Options::retention`.
#[derive(Args, Debug)]
pub(crate) struct RetainArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// How many bytes all segment files of a shard may have: a size such as 64M or 10GiB.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = values::size,
        required_unless_present_any = ["max_age", "max_segments"]
    )]
    max_bytes: Option<u64>,
    /// How old the last record of a segment may be: a span such as 12h or 7d.
    #[arg(long, value_name = "SPAN", value_parser = values::span)]
    max_age: Option<Duration>,
    /// How many sealed segments each shard keeps.
    #[arg(long, value_name = "N")]
    max_segments: Option<u64>,
}

/// Runs `retain`.
pub(crate) fn retain(args: &RetainArgs, messages: Messages) -> Result<Exit, Failure> {
    let log = open(&args.dir, messages)?;
    let report = log.retain(Retention {
        max_bytes: args.max_bytes,
        max_age: args.max_age,
        max_segments: args.max_segments,
    });
    print_report(log, report, messages)
}

fn open(dir: &crate::Dir, messages: Messages) -> Result<Log, Failure> {
    let log =
        output::open_log(&dir.dir, Options { create: false, ..Options::from_env()? }, messages)?;
    messages.notes(&log.stats().notes);
    Ok(log)
}

fn print_report(
    log: Log,
    report: Result<TrimReport, LogError>,
    messages: Messages,
) -> Result<Exit, Failure> {
    let trimmed = report.and_then(|report| log.close().map(|()| report));
    let report = trimmed.map_err(|error| Failure::Failed(error.to_string()))?;
    if messages.json() {
        output::print_json(&json!({ "segments": report.segments, "bytes": report.bytes }))?;
    } else {
        output::print(&format!("{} segments trimmed, {}\n", report.segments, bytes(report.bytes)))?;
    }
    Ok(Exit::Done)
}
