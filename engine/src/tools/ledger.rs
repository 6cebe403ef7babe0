//! What a walk along a shard tells of its streams: which offset comes next, what they are called,
//! and which offsets are missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::walk::{Batch, Hole};
use crate::format::batch::{BatchKind, Run, frame_bytes};
use crate::format::catalogue::CatalogueEntry;
use crate::ids::{Offset, StreamId};

/// Offsets of a stream that are not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) stream: StreamId,
    pub(super) first: Offset,
    pub(super) next: Offset,
}

/// What the catalogue says of each stream.
pub(super) type Catalogue = BTreeMap<StreamId, Known>;

/// What the catalogue says of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) next: Offset,
    pub(super) name: Option<Arc<str>>,
    pub(super) trimmed_before: Offset,
}

/// Adds what a later part says.
pub(super) fn merge(catalogue: &mut Catalogue, entries: Vec<CatalogueEntry>) {
    for entry in entries {
        let known = catalogue.entry(entry.stream).or_default();
        known.next = entry.next_offset;
        known.name = entry.name.or_else(|| known.name.take());
        known.trimmed_before = known.trimmed_before.max(entry.trimmed_before);
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) next: u64,
    /// How many bytes of log were missing when the stream was met last.
    missing_bytes: u64,
}

/// See the module's text. Batches and holes go in in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Whether the head of the log was trimmed, so that streams may begin anywhere.
    trimmed: bool,
    /// Bytes of log that are missing so far, whose streams are not known.
    missing_bytes: u64,
    last_ns: u64,
    pub(super) streams: BTreeMap<StreamId, Seen>,
    pub(super) created: BTreeMap<StreamId, Arc<str>>,
    /// Streams that were trimmed, each to the largest offset.
    pub(super) trimmed_before: BTreeMap<StreamId, Offset>,
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
            self.missing_bytes += u64::from(batch.header.stored_bytes);
        }
        if batch.header.timestamp_ns < self.last_ns {
            wrong.push("a batch that is older than the one before it".to_owned());
        }
        self.last_ns = self.last_ns.max(batch.header.timestamp_ns);
        for (stream, name) in &batch.created {
            self.created.insert(*stream, Arc::clone(name));
        }
        for (stream, before) in &batch.trimmed {
            let known = self.trimmed_before.entry(*stream).or_default();
            *known = (*before).max(*known);
        }
        wrong.extend(batch.runs.iter().filter_map(|run| self.run(run)));
        wrong
    }

    fn run(&mut self, run: &Run) -> Option<String> {
        let (base, next) = (run.base.0, run.base.0.saturating_add(run.count.into()));
        let missing_bytes = self.missing_bytes;
        let (expected, something_missing) = match self.streams.get(&run.stream) {
            Some(seen) => (seen.next, missing_bytes > seen.missing_bytes),
            None if self.trimmed => {
                if missing_bytes > 0 {
                    self.unclear.push(run.stream);
                }
                (base, false)
            }
            None => (0, missing_bytes > 0),
        };
        let seen = Seen { next: next.max(expected), missing_bytes };
        self.streams.insert(run.stream, seen);
        let id = run.stream.0;
        if base < expected {
            return Some(format!("stream {id}: offset {base} once more; expected {expected}"));
        }
        if base > expected {
            if !something_missing {
                return Some(format!("stream {id}: offset {base} where {expected} belongs"));
            }
            let (first, next) = (Offset(expected), Offset(base));
            self.miss(Missing { stream: run.stream, first, next });
        }
        None
    }

    /// A damaged range.
    pub(super) fn hole(&mut self, hole: &Hole) {
        if !hole.runs_known {
            self.missing_bytes += hole.to.0.saturating_sub(hole.from.0);
        }
        for run in &hole.runs {
            // What a hole held goes through the same book, and is then missing.
            if self.run(run).is_none() {
                let next = Offset(run.base.0.saturating_add(run.count.into()));
                self.miss(Missing { stream: run.stream, first: run.base, next });
            }
        }
    }

    /// The catalogue says that a stream goes on here at this offset.
    pub(super) fn goes_on(&mut self, stream: StreamId, next: Offset) -> Option<String> {
        let seen = self.streams.get(&stream).copied();
        let expected = match seen {
            Some(seen) => seen.next,
            None if self.trimmed => next.0,
            None => 0,
        };
        let something_missing = self.missing_bytes > seen.map_or(0, |seen| seen.missing_bytes);
        if next.0 < expected || (next.0 > expected && !something_missing) {
            return Some(format!(
                "the catalogue says that stream {} goes on at offset {next}, its records end \
                 before {expected}",
                stream.0
            ));
        }
        self.miss(Missing { stream, first: Offset(expected), next });
        let seen = Seen { next: next.0, missing_bytes: self.missing_bytes };
        self.streams.insert(stream, seen);
        None
    }

    /// The catalogue stands here: trims that it has forgotten, in words.
    pub(super) fn forgotten_trims(&self, catalogue: &Catalogue) -> Vec<String> {
        let known = |stream| catalogue.get(stream).map_or(Offset(0), |known| known.trimmed_before);
        let forgotten = self.trimmed_before.iter().filter(|(id, before)| known(id) < **before);
        let tell = |(stream, before): (&StreamId, &Offset)| {
            let id = stream.0;
            format!("the catalogue does not say that stream {id} was trimmed before {before}")
        };
        forgotten.map(tell).collect()
    }

    /// There is a stream that goes on at this offset at least.
    pub(super) fn know(&mut self, stream: StreamId, next: Offset) {
        let seen = self.streams.entry(stream).or_insert(Seen { next: 0, missing_bytes: 0 });
        seen.next = seen.next.max(next.0);
    }

    fn miss(&mut self, missing: Missing) {
        if missing.first < missing.next {
            self.missing.push(missing);
        }
    }

    /// Streams of which something may be missing at the end, since bytes are missing behind all
    /// that is known of them: at most the range that is given.
    pub(super) fn open_ended(&self) -> impl Iterator<Item = Missing> {
        self.streams.iter().filter_map(|(stream, seen)| {
            let bytes = self.missing_bytes - seen.missing_bytes;
            let frames = bytes / frame_bytes(0) as u64;
            let (first, next) = (Offset(seen.next), Offset(seen.next.saturating_add(frames)));
            (frames > 0).then_some(Missing { stream: *stream, first, next })
        })
    }
}
