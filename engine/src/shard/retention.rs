//! What goes, and when: the bounds of retention, and when an open segment is old enough to be
//! sealed.
//!
//! Decides only; the jobs of `rotate` do it. Invariants: only sealed segments go, oldest first,
//! never the open one, nor one that is being sealed. The wall clock's word on age counts only as
//! long as it goes along with the monotonic one: after a jump, retention by age pauses until
//! somebody asks for it by hand, or opens the log again.

use std::time::Duration;

use ringlog_disk::planted::{Bug, planted};

use super::{OpenSegment, Rotations, Shard, ShardConfig, Time};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::Sealed;
use crate::ids::SegmentId;
use crate::options::Retention;

/// A wall clock that moves by more than this against the monotonic one has jumped.
const JUMP_NS: u64 = 60_000_000_000;

/// Why an open segment is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is full.
    Size,
    /// Its first record is old.
    Age,
    /// What is kept in memory of it has grown large.
    Memory,
    /// Somebody asked for it.
    Hand,
}

impl Rotations {
    pub(super) fn note(&mut self, reason: Reason) {
        match reason {
            Reason::Size => self.size += 1,
            Reason::Age => self.age += 1,
            Reason::Memory => self.memory += 1,
            Reason::Hand => self.hand += 1,
        }
    }
}

/// Which of the oldest segments somebody wants to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All but so many sealed ones.
    KeepSealed(usize),
    /// What is outside these bounds.
    Within(Retention),
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// Which segments are sealed has changed since the last look.
    changed: bool,
    /// When the oldest sealed segment becomes too old, in monotonic nanoseconds.
    look_at_ns: Option<u64>,
    /// How far the wall clock was ahead of the monotonic one when it was looked at last.
    ahead_ns: Option<i128>,
    paused: Option<String>,
    /// The open segment, and when it is old enough, in monotonic nanoseconds.
    seal_at: Option<(SegmentId, u64)>,
}

impl Keeper {
    pub(super) fn new() -> Self {
        Self { changed: true, ..Self::default() }
    }

    /// A segment was sealed, or is about to be.
    pub(super) fn segments_changed(&mut self) {
        self.changed = true;
    }

    /// Why nothing goes because of its age.
    pub(super) fn paused(&self) -> Option<&str> {
        self.paused.as_deref()
    }

    /// Compares the clocks. `newest_ns` is the time of the newest record.
    fn watch_clock(&mut self, newest_ns: u64, now: Time) {
        let ahead = i128::from(now.wall_ns) - i128::from(now.mono_ns);
        let before = self.ahead_ns.replace(ahead);
        if self.paused.is_some() || planted(Bug::TrustJumpedClock) {
            return;
        }
        let why = match before {
            Some(before) if ahead.abs_diff(before) > u128::from(JUMP_NS) => {
                let seconds = (ahead - before) / 1_000_000_000;
                format!("the wall clock has jumped by {seconds} s")
            }
            None if now.wall_ns.saturating_add(JUMP_NS) < newest_ns => {
                let seconds = (newest_ns - now.wall_ns) / 1_000_000_000;
                format!("the wall clock stands {seconds} s before the newest record")
            }
            _ => return,
        };
        self.paused = Some(why);
        self.look_at_ns = None;
    }

    /// Somebody vouches for the clock.
    fn go_on(&mut self) {
        self.paused = None;
        self.changed = true;
    }

    /// When the next segment is too old, counted from what is kept.
    fn plan(&mut self, oldest: Option<Sealed>, max_age: Option<Duration>, now: Time) {
        self.changed = false;
        let at = oldest.zip(max_age).filter(|_| self.paused.is_none()).map(|(oldest, age)| {
            let wall_ns = oldest.last_ns.saturating_add(saturating_nanos(age));
            now.mono_ns.saturating_add(wall_ns.saturating_sub(now.wall_ns))
        });
        self.look_at_ns = at;
    }
}

/// Nanoseconds, or as many as there are numbers for.
pub(crate) fn saturating_nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How many files of segments the bound on bytes admits.
fn files_max(config: &ShardConfig, retention: &Retention) -> Option<u64> {
    retention.max_bytes.map(|bytes| bytes / config.segment_bytes)
}

/// How many segments may be ready beside the open one, so that most of what may be kept is
/// records.
pub(super) fn ahead_max(config: &ShardConfig) -> usize {
    let files = files_max(config, &config.retention).unwrap_or(u64::MAX);
    (files.saturating_sub(2) / 2).clamp(1, 1 << 16) as usize
}

/// Whether so many files are more than there may be.
pub(super) fn too_many_files(config: &ShardConfig, files: usize) -> bool {
    files_max(config, &config.retention).is_some_and(|max| files as u64 > max)
}

/// The sealed segments, oldest first.
fn sealed(manifest: &Manifest) -> impl Iterator<Item = (SegmentId, Sealed)> {
    manifest.segments.iter().filter_map(|entry| match entry.state {
        SegmentState::Sealed { sealed, .. } => Some((entry.segment, sealed)),
        SegmentState::Unsealed | SegmentState::Closed { .. } => None,
    })
}

impl Shard {
    /// Which of the oldest segments are outside the bounds. `by_age` tells whether age counts.
    fn outside(&self, bounds: &Retention, by_age: bool, now: Time) -> Vec<SegmentId> {
        let rotation = &self.rotation;
        let all: Vec<(SegmentId, Sealed)> = sealed(&rotation.manifest).collect();
        // What is being sealed takes room as well; it does not go before it is sealed.
        let full = all.len() + rotation.sealing_len();
        let others = 1 + rotation.ahead(&self.config) as u64;
        let by_bytes = files_max(&self.config, bounds)
            .map_or(0, |files| (full as u64).saturating_sub(files.saturating_sub(others)));
        let over = |max: u64| (all.len() as u64).saturating_sub(max);
        let less = u64::from(planted(Bug::RetainOneTooFew));
        let by_count = bounds.max_segments.map_or(0, |max| over(max.saturating_sub(less)));
        let too_old = |(_, sealed): &&(SegmentId, Sealed)| {
            let age = bounds.max_age.filter(|_| by_age).map(saturating_nanos);
            let born =
                if planted(Bug::AgeByFirstRecord) { sealed.first_ns } else { sealed.last_ns };
            age.is_some_and(|age| born.saturating_add(age) <= now.wall_ns)
        };
        let by_age = all.iter().take_while(too_old).count() as u64;
        let count = by_bytes.max(by_count).max(by_age).min(all.len() as u64);
        all[..count as usize].iter().map(|(segment, _)| *segment).collect()
    }

    /// Which segments a request wants to be gone.
    pub(super) fn wanted_away(&mut self, wanted: Wanted, now: Time) -> Vec<SegmentId> {
        match wanted {
            Wanted::KeepSealed(keep) => {
                let mut all: Vec<SegmentId> =
                    sealed(&self.rotation.manifest).map(|(segment, _)| segment).collect();
                let keep = keep.saturating_sub(usize::from(planted(Bug::TrimOneTooMany)));
                all.truncate(all.len().saturating_sub(keep));
                all
            }
            Wanted::Within(bounds) => {
                self.keeper.go_on();
                self.outside(&bounds, true, now)
            }
        }
    }

    /// Which segments the options want to be gone now; looks only when something has changed, or
    /// time has come.
    pub(super) fn expired(&mut self, now: Time) -> Vec<SegmentId> {
        let bounds = self.config.retention;
        let any = bounds != Retention::default();
        let due = self.keeper.look_at_ns.is_some_and(|at| at <= now.mono_ns);
        if !any || !(self.keeper.changed || due) {
            return Vec::new();
        }
        let gone = self.outside(&bounds, self.keeper.paused.is_none(), now);
        let oldest = sealed(&self.rotation.manifest).nth(gone.len());
        self.keeper.plan(oldest.map(|(_, sealed)| sealed), bounds.max_age, now);
        gone
    }

    /// What time asks for: looks at the clocks, and seals the open segment when it is old.
    pub(super) fn keep_time(&mut self, now: Time) {
        if self.config.retention.max_age.is_some() {
            self.keeper.watch_clock(self.last_ns, now);
        }
        let Some(after_ns) = self.config.rotate_after_ns else { return };
        let begun = |open: &&OpenSegment| open.so_far.records > 0;
        let Some(open) = self.rotation.open.as_ref().filter(begun) else {
            self.keeper.seal_at = None;
            return;
        };
        // How old it is by the wall clock is asked once, when it is first seen; from there on
        // the monotonic clock counts.
        let (segment, first_ns) = (open.segment, open.so_far.first_ns);
        let at = match self.keeper.seal_at {
            Some((of, at)) if of == segment => at,
            _ => {
                let age = now.wall_ns.saturating_sub(first_ns);
                let at = now.mono_ns.saturating_add(after_ns.saturating_sub(age));
                self.keeper.seal_at = Some((segment, at));
                at
            }
        };
        if at <= now.mono_ns && self.may_seal() {
            self.seal_open_segment(Reason::Age);
        }
    }

    /// Seals the open segment when what is kept in memory of it has grown large, if that makes
    /// nobody wait.
    pub(super) fn rotate_for_memory(&mut self) {
        let limit = self.config.postings_bytes_max;
        let large = |open: &OpenSegment| open.postings.memory_bytes() > limit;
        if self.rotation.open.as_ref().is_some_and(large)
            && self.rotation.has_next()
            && self.may_seal()
        {
            self.seal_open_segment(Reason::Memory);
        }
    }

    fn may_seal(&self) -> bool {
        self.sealing_has_room() && !self.rotation.is_closing()
    }

    /// When [`Shard::keep_time`] or [`Shard::expired`] have something to do.
    pub(super) fn keeping_deadline(&self) -> Option<u64> {
        let look = self.keeper.look_at_ns.filter(|_| self.rotation.may_begin_job());
        let seal = self.keeper.seal_at.filter(|_| self.may_seal()).map(|(_, at)| at);
        look.into_iter().chain(seal).min()
    }
}
