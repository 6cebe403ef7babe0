//! Spans and events for the `tracing` facade. Without the feature of that name, nothing is left of
//! this file but empty functions.
//!
//! A span lasts as long as what it stands for, which may be several turns of the writer; it is
//! never entered, since other work goes on meanwhile.

#[cfg(feature = "tracing")]
pub(crate) use on::{Recovering, Tracer, notes};

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{Recovering, Tracer, notes};

#[cfg(feature = "tracing")]
mod on {
    use std::collections::VecDeque;

    use ringlog_disk::{DiskError, Tag};
    use tracing::{Span, debug_span, field, info_span, warn};

    use crate::error::OpenError;
    use crate::observe::by_reason;
    use crate::recovery::ShardRecovery;
    use crate::shard::{Rotations, Shard};

    /// Tells what falls short on this machine.
    pub(crate) fn notes(notes: &[String]) {
        for note in notes {
            warn!(note, "ringlog: a fallback is used");
        }
    }

    /// The span of a recovery.
    pub(crate) struct Recovering(Span);

    impl Recovering {
        pub(crate) fn begin(shard: u16) -> Self {
            Self(info_span!(
                "recovery",
                shard,
                clean = field::Empty,
                segments = field::Empty,
                records = field::Empty,
                bytes_scanned = field::Empty,
                bytes_cut = field::Empty,
                records_rewritten = field::Empty,
                error = field::Empty,
            ))
        }

        pub(crate) fn failed(self, error: &OpenError) {
            self.0.record("error", field::display(error));
        }

        pub(crate) fn end(self, report: &ShardRecovery) {
            self.0.record("clean", report.clean);
            self.0.record("segments", report.segments as u64);
            self.0.record("records", report.records);
            self.0.record("bytes_scanned", report.bytes_scanned);
            self.0.record("bytes_cut", report.bytes_cut);
            self.0.record("records_rewritten", report.records_rewritten);
        }
    }

    /// Follows one writer.
    pub(crate) struct Tracer {
        shard: u16,
        commits: Vec<(Tag, Span)>,
        rotations: VecDeque<Span>,
        sealed: Rotations,
        disk_full: bool,
        paused: bool,
    }

    impl Tracer {
        pub(crate) fn new(shard: u16) -> Self {
            Self {
                shard,
                commits: Vec::new(),
                rotations: VecDeque::new(),
                sealed: Rotations::default(),
                disk_full: false,
                paused: false,
            }
        }

        /// A commit goes to the disk.
        pub(crate) fn commit(&mut self, tag: Tag, records: u64, shard: &Shard) {
            let end_lsn = shard.staged().0;
            let span =
                debug_span!("commit", shard = self.shard, records, end_lsn, ok = field::Empty,);
            if !span.is_disabled() {
                self.commits.push((tag, span));
            }
        }

        /// An operation has come back.
        pub(crate) fn completed(&mut self, tag: Tag, ok: bool) {
            if let Some(at) = self.commits.iter().position(|(known, _)| *known == tag) {
                let (_, span) = self.commits.swap_remove(at);
                span.record("ok", ok);
            }
        }

        /// The end of a writer's turn: what has begun or ended in it.
        pub(crate) fn turn(&mut self, shard: &Shard) {
            let sealed = shard.counts().sealed;
            if sealed != self.sealed {
                let before = std::mem::replace(&mut self.sealed, sealed);
                let (now, before) = (by_reason(sealed), by_reason(before));
                for ((reason, now), (_, before)) in now.into_iter().zip(before) {
                    for _ in before..now {
                        let span = info_span!("rotation", shard = self.shard, reason);
                        self.rotations.push_back(span);
                    }
                }
            }
            while self.rotations.len() > shard.sealing() {
                self.rotations.pop_front();
            }
            let full = shard.is_disk_full();
            if full != self.disk_full {
                self.disk_full = full;
                match full {
                    true => warn!(shard = self.shard, "ringlog: the disk is full"),
                    false => warn!(shard = self.shard, "ringlog: there is room on the disk again"),
                }
            }
            let paused = shard.age_retention_paused();
            if paused.is_some() != self.paused {
                self.paused = paused.is_some();
                if let Some(reason) = paused {
                    warn!(shard = self.shard, reason, "ringlog: retention by age is paused");
                }
            }
        }

        /// The shard has failed.
        pub(crate) fn poisoned(&self, error: &DiskError) {
            let error = field::display(error);
            tracing::error!(shard = self.shard, error, "ringlog: a shard takes nothing any more");
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use ringlog_disk::{DiskError, Tag};

    use crate::error::OpenError;
    use crate::recovery::ShardRecovery;
    use crate::shard::Shard;

    pub(crate) fn notes(_: &[String]) {}

    pub(crate) struct Recovering;

    impl Recovering {
        pub(crate) fn begin(_: u16) -> Self {
            Self
        }
        pub(crate) fn failed(self, _: &OpenError) {}
        pub(crate) fn end(self, _: &ShardRecovery) {}
    }

    pub(crate) struct Tracer;

    impl Tracer {
        pub(crate) fn new(_: u16) -> Self {
            Self
        }
        pub(crate) fn commit(&mut self, _: Tag, _: u64, _: &Shard) {}
        pub(crate) fn completed(&mut self, _: Tag, _: bool) {}
        pub(crate) fn turn(&mut self, _: &Shard) {}
        pub(crate) fn poisoned(&self, _: &DiskError) {}
    }
}
