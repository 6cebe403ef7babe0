//! Collects acknowledgements in the order of the appends, prints them, and counts.
//!
//! Invariants: an offset is printed only after its acknowledgement; what is known to be
//! acknowledged is flushed to stdout before anything is waited for; a failed receipt stops the
//! appending, and those behind it are still asked, so that the count is the truth.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use ringlog::{Offset, Receipt, ReceiptError};

use crate::stop::Stop;

/// An append whose acknowledgement is still to be collected.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The engine's promise.
    pub(crate) receipt: Receipt,
    /// Its payload bytes.
    pub(crate) bytes: u64,
    /// The offset that it had in another log.
    pub(crate) expected: Option<u64>,
}

/// So many receipts travel together to the thread that collects them …
const GROUP: usize = 1024;
/// … and so many groups may wait there.
pub(crate) const GROUPS_MAX: usize = 64;

/// The appending side of [`collect`].
#[derive(Debug)]
pub(crate) struct Handover {
    group: Vec<Pending>,
    pending: SyncSender<Vec<Pending>>,
}

impl Handover {
    pub(crate) fn new(pending: SyncSender<Vec<Pending>>) -> Self {
        Self { group: Vec::new(), pending }
    }

    /// Gives a receipt to the thread that collects them, perhaps later.
    pub(crate) fn push(&mut self, pending: Pending) {
        self.group.push(pending);
        if self.group.len() == GROUP {
            self.hand_over();
        }
    }

    /// Gives all receipts so far; waits when the collecting thread has many.
    pub(crate) fn hand_over(&mut self) {
        if !self.group.is_empty() {
            // The other side ends only after this sender has gone.
            let _ = self.pending.send(std::mem::take(&mut self.group));
        }
    }
}

/// What was acknowledged, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Acknowledged records.
    pub(crate) records: u64,
    /// Their payload bytes.
    pub(crate) bytes: u64,
    /// Offset of the first one.
    pub(crate) first: Option<Offset>,
    /// Offset of the last one.
    pub(crate) last: Option<Offset>,
    /// Acknowledged records that got another offset than they had in another log.
    pub(crate) renumbered: u64,
    /// Records whose append had begun and that were not acknowledged.
    pub(crate) unacknowledged: u64,
    /// The first thing that went wrong.
    pub(crate) error: Option<String>,
    /// Nobody reads the acknowledgements any more.
    pub(crate) stdout_closed: bool,
}

impl Tally {
    /// Waits for one acknowledgement and counts it; gives the offsets when there is one.
    pub(crate) fn collect(&mut self, pending: &Pending) -> Option<std::ops::Range<u64>> {
        match pending.receipt.wait() {
            Ok(position) => {
                let offsets = position.offset.0..position.offset.0 + pending.receipt.records();
                self.records += pending.receipt.records();
                self.bytes += pending.bytes;
                if pending.expected.is_some_and(|expected| expected != position.offset.0) {
                    self.renumbered += pending.receipt.records();
                }
                self.first.get_or_insert(position.offset);
                self.last = Some(Offset(offsets.end - 1));
                Some(offsets)
            }
            Err(error) => {
                self.unacknowledged += pending.receipt.records();
                self.fail(match error {
                    ReceiptError::DiskFull => "the disk is full".to_owned(),
                    other => other.to_string(),
                });
                None
            }
        }
    }

    /// Notes an error, if it is the first one.
    pub(crate) fn fail(&mut self, error: impl Into<String>) {
        self.error.get_or_insert_with(|| error.into());
    }

    fn stdout_failed(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.stdout_closed = true;
        } else {
            self.fail(format!("stdout: {error}"));
        }
    }
}

/// Collects what comes until the sender has gone. With `out`, prints each acknowledged offset on a
/// line of its own.
pub(crate) fn collect(
    pending: &Receiver<Vec<Pending>>,
    mut out: Option<BufWriter<File>>,
    stop: &Stop,
) -> Tally {
    let mut tally = Tally::default();
    loop {
        let group = match pending.try_recv() {
            Ok(group) => group,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                flush(&mut out, &mut tally, stop);
                match pending.recv() {
                    Ok(group) => group,
                    Err(_) => break,
                }
            }
        };
        for one in group {
            if out.is_some() && !one.receipt.is_acknowledged() {
                flush(&mut out, &mut tally, stop);
            }
            match tally.collect(&one) {
                Some(offsets) => print(&mut out, offsets, &mut tally, stop),
                None => stop.ask(),
            }
        }
    }
    flush(&mut out, &mut tally, stop);
    tally
}

fn print(
    out: &mut Option<BufWriter<File>>,
    mut offsets: std::ops::Range<u64>,
    tally: &mut Tally,
    stop: &Stop,
) {
    let Some(writer) = out else { return };
    if let Err(error) = offsets.try_for_each(|offset| writeln!(writer, "{offset}")) {
        give_up(out, &error, tally, stop);
    }
}

fn flush(out: &mut Option<BufWriter<File>>, tally: &mut Tally, stop: &Stop) {
    let Some(writer) = out else { return };
    if let Err(error) = writer.flush() {
        give_up(out, &error, tally, stop);
    }
}

/// Stdout takes no more: prints nothing from here on, and lets the appending end.
fn give_up(out: &mut Option<BufWriter<File>>, error: &io::Error, tally: &mut Tally, stop: &Stop) {
    if let Some(writer) = out.take() {
        // Without writing once more what could not be written.
        drop(writer.into_parts());
    }
    tally.stdout_failed(error);
    stop.ask();
}
