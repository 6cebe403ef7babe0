//! What a walk along a shard tells of its streams: which offset comes next, what they are called,
//! and which offsets are missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::walk::{Batch, Hole};
use crate::format::batch::{BatchKind, Run};
use crate::ids::{Offset, StreamId};

/// Offsets of a stream that are not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) stream: StreamId,
    pub(super) first: Offset,
    pub(super) next: Offset,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The first offset that was met, or that is known to be missing.
    pub(super) first: u64,
    pub(super) next: u64,
    /// How many holes had been passed when the stream was met last.
    holes: u64,
    gaps: u64,
}

/// See the module's text. Batches and holes go in in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Whether the head of the log was trimmed, so that streams may begin anywhere.
    trimmed: bool,
    holes: u64,
    gaps: u64,
    last_ns: u64,
    pub(super) streams: BTreeMap<StreamId, Seen>,
    pub(super) created: BTreeMap<StreamId, Arc<str>>,
    pub(super) missing: Vec<Missing>,
    /// Streams that begin behind a hole in a trimmed log: what was before cannot be told.
    pub(super) unclear: Vec<StreamId>,
}

impl Ledger {
    pub(super) fn new(trimmed: bool) -> Self {
        Self { trimmed, ..Self::default() }
    }

    /// A valid batch; gives what does not fit what was before.
    pub(super) fn batch(&mut self, batch: &Batch) -> Vec<String> {
        let mut wrong = Vec::new();
        if batch.header.kind == BatchKind::Gap {
            self.gaps += 1;
        }
        if batch.header.timestamp_ns < self.last_ns {
            wrong.push("a batch that is older than the one before it".to_owned());
        }
        self.last_ns = self.last_ns.max(batch.header.timestamp_ns);
        for (stream, name) in &batch.created {
            self.created.insert(*stream, Arc::clone(name));
        }
        for run in &batch.runs {
            if let Some(what) = self.run(run) {
                wrong.push(what);
            }
        }
        wrong
    }

    fn run(&mut self, run: &Run) -> Option<String> {
        let (base, next) = (run.base.0, run.base.0.saturating_add(run.count.into()));
        let (holes, gaps) = (self.holes, self.gaps);
        let (expected, holes_since, gaps_since, first) = match self.streams.get(&run.stream) {
            Some(seen) => (seen.next, holes > seen.holes, gaps > seen.gaps, seen.first),
            None if self.trimmed => {
                if holes > 0 {
                    self.unclear.push(run.stream);
                }
                (base, false, false, base)
            }
            None => (0, holes > 0, gaps > 0, 0),
        };
        self.streams.insert(run.stream, Seen { first, next: next.max(expected), holes, gaps });
        let id = run.stream.0;
        if base < expected {
            return Some(format!("stream {id}: offset {base} once more; expected {expected}"));
        }
        if base > expected && holes_since {
            let (first, next) = (Offset(expected), Offset(base));
            self.miss(Missing { stream: run.stream, first, next });
        } else if base > expected && !gaps_since {
            return Some(format!("stream {id}: offset {base} where {expected} belongs"));
        }
        None
    }

    /// A damaged range.
    pub(super) fn hole(&mut self, hole: &Hole) {
        if !hole.runs_known {
            self.holes += 1;
        }
        for run in &hole.runs {
            // What a hole held goes through the same book, and is then missing.
            if self.run(run).is_none() {
                let next = Offset(run.base.0.saturating_add(run.count.into()));
                self.miss(Missing { stream: run.stream, first: run.base, next });
            }
        }
    }

    /// The streams go on behind the walk at these offsets, says the catalogue.
    pub(super) fn goes_on(&mut self, stream: StreamId, next: Offset) -> Option<String> {
        let seen = self.streams.get(&stream).copied();
        let expected = match seen {
            Some(seen) => seen.next,
            None if self.trimmed => next.0,
            None => 0,
        };
        if next.0 == expected {
            return None;
        }
        let (holes_since, gaps_since) = match seen {
            Some(seen) => (self.holes > seen.holes, self.gaps > seen.gaps),
            None => (self.holes > 0, self.gaps > 0),
        };
        if next.0 > expected && (holes_since || gaps_since) {
            if holes_since {
                self.miss(Missing { stream, first: Offset(expected), next });
            }
            let first = seen.map_or(expected, |seen| seen.first);
            let seen = Seen { first, next: next.0, holes: self.holes, gaps: self.gaps };
            self.streams.insert(stream, seen);
            return None;
        }
        Some(format!(
            "the catalogue says that stream {} goes on at offset {next}, its records end before \
             {expected}",
            stream.0
        ))
    }

    fn miss(&mut self, missing: Missing) {
        if missing.first >= missing.next {
            return;
        }
        let joins =
            |last: &&mut Missing| last.stream == missing.stream && last.next == missing.first;
        match self.missing.iter_mut().rev().find(joins) {
            Some(last) => last.next = missing.next,
            None => self.missing.push(missing),
        }
    }

    /// Streams of which something may be missing at the end: a hole came behind all that is known
    /// of them.
    pub(super) fn open_ended(&self) -> impl Iterator<Item = (StreamId, Offset)> {
        self.streams
            .iter()
            .filter(|(_, seen)| self.holes > seen.holes)
            .map(|(stream, seen)| (*stream, Offset(seen.next)))
    }
}
