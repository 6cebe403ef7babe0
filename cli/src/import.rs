//! `ringlog import`: lines of JSON, as `ringlog export` writes them, become records.
//!
//! The same three threads as for [`crate::append`]: one reads, this one appends, one collects
//! acknowledgements.
//!
//! Invariants: what the summary counts as `records` was acknowledged at the durability asked for;
//! of a line that is no record nothing is stored, and nothing behind it; offsets and times are those
//! of this log, never those of the lines.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use ringlog::{AppendError, Durability, FullReason, Log, Receipt, Stream, StreamError};
use serde::Serialize;

use crate::acks::{self, Handover, Pending};
use crate::appender::PATIENCE;
use crate::feed::{self, Input, WriteArgs};
use crate::input::{self, Event};
use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::record::ImportedRecord;
use crate::stop::Stop;
use crate::values;

/// In JSON, a byte takes up to six: `\u0000`. The rest of a line is small.
const LINE_BYTES_MAX: usize = 6 * ringlog::limits::BATCH_BYTES_MAX + 8192;
/// How long to wait before a stream is created again that found no room.
const PAUSE: Duration = Duration::from_millis(1);

/// Append the records of FILE or stdin, one JSON object a line, as `ringlog export` writes them.
///
/// {"stream", "payload" or "payload_base64", "tombstone"}; "offset" and "timestamp_ns" may be there,
/// but each record gets the next offset of its stream and the time of now. Streams, and the log,
/// are created where there are none. Empty lines are passed over. At a line that is no record the
/// import stops: what is before it is stored, the exit code is 1. A summary follows as one JSON
/// object on stdout: what it counts is acknowledged; "renumbered" counts the records that have
/// another offset than their line says.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    dir: crate::Dir,
    #[command(flatten)]
    write: WriteArgs,
    /// The file to read; `-` or nothing means stdin.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &ImportArgs, messages: Messages) -> Result<Exit, Failure> {
    let options = args.write.options()?;
    let (durability, sync) = (options.durability, options.sync);
    // Before the log, so that a mistyped file name creates none.
    let input = Input::open(args.file.as_deref())?;
    let bar_total = input.bytes();
    let log = output::open_log(&args.dir.dir, options, messages)?;
    messages.notes(&log.stats().notes);

    let started = Instant::now();
    let (event_sender, events) = sync_channel(input::EVENTS_MAX);
    let (give_back, memory) = channel();
    let stop = Arc::new(Stop::new(event_sender.clone()));
    feed::on_interrupt(&stop)?;
    // The reader is never joined: it may be waiting for input that will not come.
    feed::spawn("reader", move || {
        input::pump(input.into_read(), &event_sender, &memory, LINE_BYTES_MAX);
    })?;
    let (pending, collected) = sync_channel(acks::GROUPS_MAX);
    let collector = {
        let stop = Arc::clone(&stop);
        feed::spawn("acknowledgements", move || acks::collect(&collected, None, &stop))?
    };

    let bar = messages.progress("importing", Unit::Bytes, bar_total);
    let mut importer = Importer {
        log: &log,
        durability,
        streams: HashMap::new(),
        lines: 0,
        handover: Handover::new(pending),
    };
    let imported = importer.take_all(&events, &give_back, &stop, |bytes| bar.at(bytes));
    importer.handover.hand_over();
    let streams = importer.streams.len();
    drop(importer);
    let flushed = feed::flush_rest(&log, durability, sync);
    let mut tally = collector
        .join()
        .map_err(|_| Failure::Failed("the thread of the acknowledgements died".to_owned()))?;
    if let Err(error) = imported {
        tally.fail(error);
    }
    if let Err(error) = flushed {
        tally.fail(error.to_string());
    }
    let elapsed = started.elapsed();
    drop(bar);
    if let Err(error) = log.close() {
        tally.fail(format!("closing the log: {error}"));
    }
    let (ended, exit) = match (&tally.error, stop.interrupted()) {
        (Some(_), _) => ("error", Exit::Bad),
        (None, true) => ("interrupted", Exit::Interrupted),
        (None, false) => ("end of input", Exit::Done),
    };
    if let Some(error) = &tally.error {
        messages.error(&format!(
            "{error}; {} records were acknowledged ({})",
            tally.records,
            values::durability_name(durability)
        ));
    }
    let summary = Summary {
        records: tally.records,
        bytes: tally.bytes,
        streams,
        renumbered: tally.renumbered,
        unacknowledged_records: tally.unacknowledged,
        ended,
        error: tally.error.as_deref(),
        elapsed_s: elapsed.as_secs_f64(),
        records_per_s: tally.records as f64 / elapsed.as_secs_f64(),
        durability: values::durability_name(durability),
        sync: sync.to_string(),
    };
    match output::print_json(&summary) {
        // Whether anybody hears the summary changes nothing in what came of the appends.
        Ok(()) | Err(Failure::Closed) => Ok(exit),
        Err(other) => Err(other),
    }
}

/// What came of it. `records`, `bytes` and `renumbered` are about acknowledged records.
#[derive(Serialize)]
struct Summary<'a> {
    records: u64,
    bytes: u64,
    streams: usize,
    renumbered: u64,
    unacknowledged_records: u64,
    ended: &'static str,
    error: Option<&'a str>,
    elapsed_s: f64,
    records_per_s: f64,
    durability: &'static str,
    sync: String,
}

struct Importer<'a> {
    log: &'a Log,
    durability: Durability,
    streams: HashMap<String, Stream>,
    /// How many lines have been taken, empty ones as well.
    lines: u64,
    handover: Handover,
}

impl Importer<'_> {
    /// Appends all that comes, until the input ends or somebody asks to stop. `progress` is told
    /// how many bytes of the input are done; `give_back` takes the memory of blocks.
    fn take_all(
        &mut self,
        events: &Receiver<Event>,
        give_back: &Sender<Vec<u8>>,
        stop: &Stop,
        progress: impl Fn(u64),
    ) -> Result<(), String> {
        let mut done = 0;
        while !stop.asked() {
            match events.recv() {
                Ok(Event::Lines(block)) => {
                    for line in block.lines().take_while(|_| !stop.asked()) {
                        self.lines += 1;
                        if !line.trim_ascii().is_empty() {
                            let number = self.lines;
                            self.take(line).map_err(|error| format!("line {number}: {error}"))?;
                        }
                    }
                    self.handover.hand_over();
                    done += block.input_bytes() as u64;
                    progress(done);
                    // Nobody reuses it when the reader has ended.
                    let _ = give_back.send(block.into_memory());
                }
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Stop) => {}
                Ok(Event::End) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8]) -> Result<(), String> {
        let record = ImportedRecord::parse(line)?;
        let stream = match self.streams.get(&record.stream) {
            Some(stream) => stream.clone(),
            None => {
                let stream = self.create(&record.stream).map_err(|error| error.to_string())?;
                self.streams.insert(record.stream.clone(), stream.clone());
                stream
            }
        };
        let receipt = match self.append(&stream, &record, None) {
            Err(AppendError::Full { reason: FullReason::Memory }) => {
                // What is appended so far need not wait with us.
                self.handover.hand_over();
                self.append(&stream, &record, Some(PATIENCE))
            }
            other => other,
        };
        let receipt = receipt.map_err(|error| error.to_string())?;
        let bytes = record.payload.len() as u64;
        self.handover.push(Pending { receipt, bytes, expected: record.offset });
        Ok(())
    }

    /// The stream of this name; waits for room for its creation.
    fn create(&mut self, name: &str) -> Result<Stream, StreamError> {
        let begun = Instant::now();
        loop {
            match self.log.stream(name) {
                Err(StreamError::Append(AppendError::Full { reason: FullReason::Memory }))
                    if begun.elapsed() < PATIENCE =>
                {
                    self.handover.hand_over();
                    std::thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }

    fn append(
        &self,
        stream: &Stream,
        record: &ImportedRecord,
        patience: Option<Duration>,
    ) -> Result<Receipt, AppendError> {
        let (payload, durability) = (record.payload.as_slice(), self.durability);
        match (record.tombstone, patience) {
            (false, None) => stream.append_with(payload, durability),
            (false, Some(time)) => stream.append_within(payload, durability, time),
            (true, None) => stream.append_tombstone(payload, durability),
            (true, Some(time)) => stream.append_tombstone_within(payload, durability, time),
        }
    }
}
