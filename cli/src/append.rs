//! `ringlog append`: lines become records.
//!
//! Three threads: one reads ([`crate::input`]), this one appends, one collects acknowledgements
//! ([`crate::acks`]). So many appends are outstanding at a time, and neither a slow input nor a
//! slow disk keeps an acknowledgement from being printed.
//!
//! Invariants: what the summary counts as `records` was acknowledged at the durability asked for;
//! a batch is appended whole or not at all; after an error nothing more is appended.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Instant;

use clap::Args;
use ringlog::Durability;
use serde::Serialize;

use crate::acks;
use crate::appender::Appender;
use crate::feed::{self, Input, WriteArgs};
use crate::input;
use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::stop::Stop;
use crate::values;

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
    #[command(flatten)]
    write: WriteArgs,
    /// Append N lines at a time as one atomic batch; the last one may have fewer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Write the offset of each record to stdout, one a line, flushed, once it is acknowledged.
    #[arg(long)]
    print_acks: bool,
    /// The file to read; `-` or nothing means stdin.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &AppendArgs, messages: Messages) -> Result<Exit, Failure> {
    let options = args.write.options()?;
    let (durability, sync) = (options.durability, options.sync);
    let acks_out = if args.print_acks { Some(output::stdout()?) } else { None };
    // Before the log, so that a mistyped file name creates none.
    let input = Input::open(args.file.as_deref())?;
    let bar_total = input.bytes();
    let log = output::open_log(&args.dir.dir, options, messages)?;
    let stream = log.stream(&args.stream)?;
    messages.notes(&log.stats().notes);

    let started = Instant::now();
    let (event_sender, events) = sync_channel(input::EVENTS_MAX);
    let (give_back, memory) = channel();
    let stop = Arc::new(Stop::new(event_sender.clone()));
    feed::on_interrupt(&stop)?;
    // The reader is never joined: it may be waiting for input that will not come.
    feed::spawn("reader", move || {
        input::pump(input.into_read(), &event_sender, &memory, input::LINE_BYTES_MAX);
    })?;
    let (pending, collected) = sync_channel(acks::GROUPS_MAX);
    let collector = {
        let stop = Arc::clone(&stop);
        feed::spawn("acknowledgements", move || acks::collect(&collected, acks_out, &stop))?
    };

    // Acknowledgements on the same terminal would tear the bar apart.
    let bar = (!args.print_acks || !io::stdout().is_terminal())
        .then(|| messages.progress("appending", Unit::Bytes, bar_total));
    // In memory, the append itself is the acknowledgement.
    let collect_all = args.print_acks || durability != Durability::Memory;
    let pending = collect_all.then(|| acks::Handover::new(pending));
    let mut appender = Appender::new(&stream, durability, args.batch, pending);
    let appended = appender.take_all(&events, &give_back, &stop, |bytes| {
        if let Some(bar) = &bar {
            bar.at(bytes);
        }
    });
    let memory_tally = appender.finish();
    let flushed = feed::flush_rest(&log, durability, sync);
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
        work: crate::stats::work_json(&stats),
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
    /// What the log did for it.
    work: serde_json::Value,
}
