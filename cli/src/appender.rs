//! Turns lines into appends, and keeps many of them outstanding.
//!
//! Invariants: a batch is appended whole or not at all; after an error nothing more is appended;
//! a line is copied at most once before the engine takes it.

use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use ringlog::{AppendError, Durability, FullReason, Receipt, Stream};

use crate::acks::{Handover, Pending, Tally};
use crate::input::Event;
use crate::stop::Stop;

/// How long an append waits for room in the log's memory: longer means that the disk is stuck.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// No batch of any log holds more …
const BATCH_BYTES_MAX: usize = ringlog::limits::BATCH_BYTES_MAX;
/// … and each record costs so much of it beside its bytes.
const RECORD_OVERHEAD: usize = 16;

/// What the appending thread keeps.
pub(crate) struct Appender<'a> {
    stream: &'a Stream,
    durability: Durability,
    /// How many lines are one atomic batch; `None`: each line is an append of its own.
    batch: Option<usize>,
    /// Lines of a batch that is not yet full, from blocks that are gone; and what they take.
    carried: Vec<Vec<u8>>,
    carried_bytes: usize,
    /// How many lines have been appended.
    lines: u64,
    /// Where each receipt goes; `None`: the append itself is the acknowledgement.
    pending: Option<Handover>,
    counted: Counted,
}

impl<'a> Appender<'a> {
    pub(crate) fn new(
        stream: &'a Stream,
        durability: Durability,
        batch: Option<u32>,
        pending: Option<Handover>,
    ) -> Self {
        Self {
            stream,
            durability,
            batch: batch.map(|n| n as usize),
            carried: Vec::new(),
            carried_bytes: 0,
            lines: 0,
            pending,
            counted: Counted::default(),
        }
    }

    /// Appends all that comes, until the input ends or somebody asks to stop. `progress` is told
    /// how many bytes of the input are done; `give_back` takes the memory of blocks.
    pub(crate) fn take_all(
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
                    self.take_lines(block.lines().take_while(|_| !stop.asked()))?;
                    self.hand_over();
                    done += block.input_bytes() as u64;
                    progress(done);
                    // Nobody reuses it when the reader has ended.
                    let _ = give_back.send(block.into_memory());
                }
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Stop) => {}
                Ok(Event::End) | Err(_) => return self.append_carried(),
            }
        }
        Ok(())
    }

    fn take_lines<'b>(&mut self, mut lines: impl Iterator<Item = &'b [u8]>) -> Result<(), String> {
        let Some(full) = self.batch else {
            return lines.try_for_each(|line| self.append(&[line]));
        };
        while !self.carried.is_empty() {
            let Some(line) = lines.next() else {
                return Ok(());
            };
            self.carry(line)?;
            if self.carried.len() == full {
                self.append_carried()?;
            }
        }
        let mut batch: Vec<&[u8]> = Vec::new();
        for line in lines {
            batch.push(line);
            if batch.len() == full {
                self.append(&batch)?;
                batch.clear();
            }
        }
        batch.into_iter().try_for_each(|line| self.carry(line))
    }

    /// Keeps a line for a batch that is not yet full.
    fn carry(&mut self, line: &[u8]) -> Result<(), String> {
        self.carried_bytes += line.len() + RECORD_OVERHEAD;
        if self.carried_bytes > BATCH_BYTES_MAX {
            return Err(format!(
                "the batch from line {} on is larger than {BATCH_BYTES_MAX} bytes, which fit no \
                 log",
                self.lines + 1
            ));
        }
        self.carried.push(line.to_vec());
        Ok(())
    }

    fn append_carried(&mut self) -> Result<(), String> {
        let carried = std::mem::take(&mut self.carried);
        self.carried_bytes = 0;
        if carried.is_empty() { Ok(()) } else { self.append(&carried) }
    }

    /// Appends one line or one batch; waits for room when the log's memory is full.
    fn append<R: AsRef<[u8]>>(&mut self, lines: &[R]) -> Result<(), String> {
        let receipt = match self.try_append(lines, None) {
            Err(AppendError::Full { reason: FullReason::Memory }) => {
                // What is appended so far need not wait with us.
                self.hand_over();
                self.try_append(lines, Some(PATIENCE))
            }
            other => other,
        };
        let receipt = receipt.map_err(|error| format!("line {}: {error}", self.lines + 1))?;
        self.lines += lines.len() as u64;
        let bytes = lines.iter().map(|line| line.as_ref().len() as u64).sum();
        let pending = Pending { receipt, bytes, expected: None };
        match &mut self.pending {
            None => self.counted.add(lines.len() as u64, pending),
            Some(handover) => handover.push(pending),
        }
        Ok(())
    }

    fn try_append<R: AsRef<[u8]>>(
        &self,
        lines: &[R],
        patience: Option<Duration>,
    ) -> Result<Receipt, AppendError> {
        let (stream, durability) = (self.stream, self.durability);
        match (lines, patience) {
            ([line], None) => stream.append_with(line.as_ref(), durability),
            ([line], Some(time)) => stream.append_within(line.as_ref(), durability, time),
            (lines, None) => stream.append_batch(lines, durability),
            (lines, Some(time)) => stream.append_batch_within(lines, durability, time),
        }
    }

    fn hand_over(&mut self) {
        if let Some(handover) = &mut self.pending {
            handover.hand_over();
        }
    }

    /// Hands over what is left, and lets the collecting thread end.
    pub(crate) fn finish(mut self) -> Counted {
        self.hand_over();
        self.counted
    }
}

/// What was acknowledged by the append itself.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    records: u64,
    bytes: u64,
    first: Option<Pending>,
    last: Option<Pending>,
}

impl Counted {
    fn add(&mut self, records: u64, pending: Pending) {
        self.records += records;
        self.bytes += pending.bytes;
        if self.first.is_none() {
            self.first = Some(pending);
        } else {
            self.last = Some(pending);
        }
    }

    /// Adds it all; the first and the last append are asked for their offsets.
    pub(crate) fn add_to(self, tally: &mut Tally) {
        let mut ends = Tally::default();
        for pending in self.first.iter().chain(&self.last) {
            ends.collect(pending);
        }
        tally.records += self.records;
        tally.bytes += self.bytes;
        tally.first = tally.first.or(ends.first);
        tally.last = ends.last.or(tally.last);
        if let Some(error) = ends.error {
            tally.fail(error);
        }
    }
}
