//! `ringlog dump`: all entries of a log, in its order.
//!
//! Invariants: nothing is changed or locked; no byte of a payload reaches a terminal as it is.

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;

use clap::Args;
use ringlog::{Dumped, Entry, EntryKind};
use serde::Serialize;

use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::record::{JsonPayload, payload_text, write_line};
use crate::text::{escape, utc};
use crate::values;

/// Show every entry of every stream, for eyes: shard by shard, in the order of the log.
///
/// The shard's own entries (such as the creation of a stream) and offsets without a record (void)
/// are shown as well. What a recovery would keep is shown, and also what was trimmed from its
/// stream as long as its segment is there. With --json: one object a line, with the whole payload.
/// Where something is damaged, stderr says so, and the exit code is 1.
#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// Only the entries of this stream.
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Only what was placed at TIME or later: RFC 3339, seconds since 1970, or a span back from
    /// now such as 10m.
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    since: Option<u64>,
    /// Show so many entries at most.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Show so many bytes of each payload at most.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    payload_bytes: usize,
}

/// Runs the command.
pub(crate) fn run(args: &DumpArgs, messages: Messages) -> Result<Exit, Failure> {
    let mut out = output::stdout()?;
    // Lines on the same terminal would tear the bar apart.
    let bar =
        (!io::stdout().is_terminal()).then(|| messages.progress("reading", Unit::Bytes, Some(0)));
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut exit = Exit::Done;
    let mut written = Ok(());
    let mut known = args.stream.is_none();
    if !messages.json() {
        written = writeln!(out, "{}", head());
    }
    let mut visit = |dumped: Dumped<'_>| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        match dumped {
            Dumped::Entry(entry) => {
                if args.stream.as_deref().is_some_and(|wanted| entry.name != Some(wanted)) {
                    return ControlFlow::Continue(());
                }
                known = true;
                left -= 1;
                written = if messages.json() {
                    write_line(&mut out, &JsonEntry::of(&entry))
                } else {
                    writeln!(out, "{}", line(&entry, args.payload_bytes))
                };
            }
            Dumped::Damage(corruption) => {
                exit = Exit::Bad;
                // In the order in which a person at a terminal would look for it.
                written = out.flush();
                messages.error(&format!("damaged: {corruption}"));
            }
            Dumped::Trimmed { shard, segment } => {
                messages.note(&format!("shard {shard}: segment {segment} was trimmed meanwhile"));
            }
            _ => {}
        }
        if written.is_err() || left == 0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let mut progress = |progress| {
        if let Some(bar) = &bar {
            bar.update(&progress);
        }
    };
    ringlog::dump(&args.dir.dir, args.since.unwrap_or(0), &mut progress, &mut visit)?;
    drop(bar);
    written.and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))?;
    if !known {
        check_stream(args)?;
    }
    Ok(exit)
}

/// Nothing was shown of the stream: says so where there is none of that name.
fn check_stream(args: &DumpArgs) -> Result<(), Failure> {
    let Some(wanted) = &args.stream else { return Ok(()) };
    let inspection = ringlog::inspect(&args.dir.dir)?;
    let mut streams = inspection.shards.iter().flat_map(|shard| &shard.streams);
    if streams.any(|stream| stream.name == *wanted) {
        return Ok(());
    }
    Err(ringlog::StreamError::NotFound(wanted.clone()).into())
}

fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Record => "record",
        EntryKind::Tombstone => "tombstone",
        EntryKind::Void => "void",
        _ => "internal",
    }
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    shard: u16,
    segment: u64,
    lsn: u64,
    stream: Option<&'a str>,
    stream_id: u32,
    offset: u64,
    timestamp_ns: u64,
    kind: &'static str,
    bytes: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    trimmed: bool,
    #[serde(flatten)]
    payload: JsonPayload<'a>,
}

impl<'a> JsonEntry<'a> {
    fn of(entry: &Entry<'a>) -> Self {
        Self {
            shard: entry.shard,
            segment: entry.segment.0,
            lsn: entry.lsn.0,
            stream: entry.name,
            stream_id: entry.stream.0,
            offset: entry.offset.0,
            timestamp_ns: entry.timestamp_ns,
            kind: kind_name(entry.kind),
            bytes: entry.payload.len(),
            trimmed: entry.trimmed,
            payload: JsonPayload::of(entry.payload),
        }
    }
}

/// Columns of a width that suits most logs: what comes is not known before it is shown.
fn head() -> String {
    format!(
        "{:>5}  {:>12}  {:>10}  {:<30}  {:<9}  {:>8}  stream  payload",
        "shard", "LSN", "offset", "time", "kind", "bytes"
    )
}

fn line(entry: &Entry<'_>, payload_bytes: usize) -> String {
    let stream = match entry.name {
        Some(name) => escape(name),
        None => format!("({})", entry.stream.0),
    };
    let line = format!(
        "{:>5}  {:>12}  {:>10}  {:<30}  {:<9}  {:>8}  {stream}  {}",
        entry.shard,
        entry.lsn.0,
        entry.offset.0,
        utc(entry.timestamp_ns),
        if entry.trimmed { "trimmed" } else { kind_name(entry.kind) },
        entry.payload.len(),
        payload_text(entry.payload, payload_bytes)
    );
    line.trim_end().to_owned()
}
