//! What may be trimmed in a life, and what must be: the rules of retention, told once more.
//!
//! Knows nothing of how the engine decides. Each segment that a manifest drops must have been
//! sealed, and must be one that a request, a bound of the options, or trims of its streams allow to
//! go at that moment; and a log at rest keeps to its bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use ringlog::{Options, Retention, Time};

use super::plan::SEGMENT_BYTES;
use crate::watch::{Dropped, Kept};

/// A clock that moves by more than this against the monotonic one is not believed.
const JUMP_NS: u64 = 60_000_000_000;
/// Segments that are prepared ahead, at most, beside the open one.
const AHEAD: u64 = 4;
/// Segments that may be on their way to being sealed.
const SEALING: u64 = 2;

/// Where an append lies.
#[derive(Clone, Debug)]
pub(super) struct Lies {
    pub(super) lsn: u64,
    pub(super) stream: String,
    pub(super) end_offset: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Keeping {
    bounds: Retention,
    /// `keep_sealed` of the trims that were asked for.
    trims: Vec<usize>,
    /// Bounds that were asked for by hand, and what the wall clock said when they were asked for or
    /// answered: what was old then may go later, when a failed manifest is tried again.
    retains: Vec<(Retention, u64)>,
    /// The latest that the wall clock has said in this life before it jumped: what was old then may go
    /// later as well.
    trusted_ns: u64,
    /// The clock has jumped, and nobody has vouched for it since.
    pub(super) distrusted: bool,
    /// Below which offset a trim of each stream was acknowledged.
    pub(super) trimmed: BTreeMap<String, u64>,
    /// Appends of earlier lives.
    before: Vec<Lies>,
    /// Everything before this was dropped with reason.
    pub(super) dropped_to: u64,
    pub(super) wrong: Vec<String>,
    pub(super) counts: KeepingCounts,
}

/// Segments that went, by the first reason that allows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeepingCounts {
    pub(super) by_request: u64,
    pub(super) by_number: u64,
    pub(super) by_bytes: u64,
    pub(super) by_age: u64,
    pub(super) by_streams: u64,
    pub(super) jumps: u64,
}

impl Keeping {
    pub(super) fn new(options: &Options, before: Vec<Lies>, newest_ns: u64, now: Time) -> Self {
        Self {
            bounds: options.retention,
            trims: Vec::new(),
            trusted_ns: 0,
            retains: Vec::new(),
            distrusted: now.wall_ns + JUMP_NS < newest_ns,
            trimmed: BTreeMap::new(),
            before,
            dropped_to: 0,
            wrong: Vec::new(),
            counts: KeepingCounts::default(),
        }
    }

    pub(super) fn trim_asked(&mut self, keep_sealed: usize) {
        self.trims.push(keep_sealed);
    }

    pub(super) fn retain_asked(&mut self, bounds: Retention, now: Time) {
        self.retains.push((bounds, now.wall_ns));
        self.distrusted = false;
    }

    /// The wall clock, which said `before_ns`, was moved by so much, while somebody was perhaps about to
    /// vouch for it.
    pub(super) fn clock_moved(&mut self, before_ns: u64, by_ns: i128, vouched: bool) {
        if !self.distrusted {
            self.trusted_ns = self.trusted_ns.max(before_ns);
        }
        if by_ns.unsigned_abs() > u128::from(JUMP_NS) {
            self.distrusted = !vouched;
            self.counts.jumps += 1;
        }
    }

    /// A manifest was written without these segments, oldest first. `here` are the appends of this
    /// life.
    pub(super) fn dropped(&mut self, gone: &[Dropped], kept: u64, here: &[Lies], now: Time) {
        for (at, one) in gone.iter().enumerate() {
            // How many sealed segments were left without it and those before it.
            let left = kept + (gone.len() - 1 - at) as u64;
            match self.reason(one, left, here, now) {
                Some(count) => *count += 1,
                None => {
                    let (id, what) = (one.segment, &self.bounds);
                    let trust = if self.distrusted { ", the clock is not trusted" } else { "" };
                    let kept: Vec<&Lies> = self.not_trimmed(one, here).collect();
                    let trimmed = &self.trimmed;
                    self.wrong.push(format!(
                        "segment {id} is dropped, {left} sealed ones are left; {what:?}{trust}; in \
                         it are {kept:?}, trimmed are {trimmed:?}"
                    ));
                }
            }
            self.dropped_to = self.dropped_to.max(one.end_lsn);
        }
    }

    fn reason(&mut self, one: &Dropped, left: u64, here: &[Lies], now: Time) -> Option<&mut u64> {
        let by_age = |bounds: &Retention, wall_ns: u64| {
            let age = bounds.max_age.map(|age| age.as_nanos() as u64);
            age.is_some_and(|age| one.last_ns.saturating_add(age) <= wall_ns)
        };
        let by_number = |bounds: &Retention| bounds.max_segments.is_some_and(|max| left >= max);
        let by_bytes = |bounds: &Retention| {
            let least = |files: u64| files.saturating_sub(1 + AHEAD + SEALING);
            bounds.max_bytes.is_some_and(|max| left >= least(max / SEGMENT_BYTES))
        };
        let now_ns = if self.distrusted { 0 } else { now.wall_ns };
        let trusted_ns = self.trusted_ns.max(now_ns);
        let any = |(bounds, asked_ns): &(Retention, u64)| {
            by_age(bounds, now.wall_ns.max(*asked_ns)) || by_number(bounds) || by_bytes(bounds)
        };
        let asked =
            self.trims.iter().any(|keep| left >= *keep as u64) || self.retains.iter().any(any);
        let by_streams = self.not_trimmed(one, here).next().is_none();
        let counts = &mut self.counts;
        match () {
            () if asked => Some(&mut counts.by_request),
            () if by_number(&self.bounds) => Some(&mut counts.by_number),
            () if by_bytes(&self.bounds) => Some(&mut counts.by_bytes),
            () if by_age(&self.bounds, trusted_ns) => Some(&mut counts.by_age),
            () if by_streams => Some(&mut counts.by_streams),
            () => None,
        }
    }

    /// Appends in a segment that no trim of their stream covers.
    fn not_trimmed<'a>(
        &'a self,
        one: &Dropped,
        here: &'a [Lies],
    ) -> impl Iterator<Item = &'a Lies> {
        let range = one.base_lsn..one.end_lsn;
        let all = self.before.iter().chain(here);
        all.filter(move |lies| range.contains(&lies.lsn)).filter(|lies| {
            self.trimmed.get(&lies.stream).is_none_or(|before| lies.end_offset > *before)
        })
    }

    /// The log is at rest, and this is what it has.
    pub(super) fn at_rest(&mut self, kept: &Kept, now: Time, paused: bool) {
        let Retention { max_bytes, max_age, max_segments } = self.bounds;
        let sealed = kept.sealed.len() as u64;
        if max_segments.is_some_and(|max| sealed > max) {
            self.wrong.push(format!("{sealed} sealed segments at rest; {:?}", self.bounds));
        }
        // Files that were prepared under other options are used up first.
        let held = kept.sealed.len() as u64 + u64::from(kept.is_open);
        if max_bytes.is_some_and(|max| held + 1 > max / SEGMENT_BYTES) {
            self.wrong.push(format!("{held} segments with records at rest; {:?}", self.bounds));
        }
        let age = |age: Duration| age.as_nanos() as u64 + 1_000_000;
        let is_old = |last_ns: &u64| max_age.is_some_and(|max| last_ns + age(max) < now.wall_ns);
        // The engine also looks at the newest record of the open segment; it may keep what it might
        // let go, as long as it says so.
        if !self.distrusted && !paused && kept.sealed.iter().any(is_old) {
            self.wrong.push(format!("old segments at rest: {kept:?}, {:?}", self.bounds));
        }
    }
}
