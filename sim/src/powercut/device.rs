//! A disk with a volatile write cache, in memory: what lies below the real file system when the
//! power goes off.
//!
//! A write goes into the cache, sector by sector; a flush makes all of it durable. The cut is one
//! instant: under one lock the device dies and what it holds is settled, so a flush that was
//! answered is never undone, and none is answered afterwards. From then on every request fails.
//!
//! The device knows nothing of file systems. Of the log it knows the first four bytes of its
//! structures, only to tell and to choose *when* the power goes off.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::image::{Image, PAGE_BYTES};
use crate::Rng;

/// What a cut keeps or loses as a whole.
pub const SECTOR_BYTES: usize = 512;

/// What of the cache reaches the media in the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// The oldest sectors, up to some point.
    Prefix,
    /// All but one sector.
    AllButOne,
    /// Only one sector.
    OnlyOne,
    /// Each sector by chance, in the order of writing.
    Subset,
    /// Each sector by chance, and of a sector that was written twice perhaps the older content.
    Reordered,
}

impl Keep {
    /// One of them.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.index(10) {
            0 => Self::None,
            1 => Self::All,
            2 => Self::Prefix,
            3 => Self::AllButOne,
            4 => Self::OnlyOne,
            5..=7 => Self::Subset,
            _ => Self::Reordered,
        }
    }
}

/// What a write holds, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A batch of records.
    Batch,
    /// The header of a segment that is being prepared.
    SegmentHeader,
    /// The footer of a segment that is being sealed.
    Footer,
    /// A manifest.
    Manifest,
    /// A part of the stream catalogue, the file `log` or a disk profile.
    SmallFile,
    /// An index.
    Index,
    /// Something else: mostly the file system's own.
    Other,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batch => "batches",
            Self::SegmentHeader => "segment headers",
            Self::Footer => "footers",
            Self::Manifest => "manifests",
            Self::SmallFile => "small files",
            Self::Index => "indexes",
            Self::Other => "file system",
        })
    }
}

fn kind_of(block: &[u8]) -> Kind {
    match block.get(..4) {
        Some(b"RLb1") => Kind::Batch,
        Some(b"RLs1") => Kind::SegmentHeader,
        Some(b"RLf1") => Kind::Footer,
        Some(b"RLm1") => Kind::Manifest,
        Some(b"RLc1" | b"RLl1" | b"RLp1") => Kind::SmallFile,
        Some(b"RLi1") => Kind::Index,
        _ => Kind::Other,
    }
}

/// When something happens, counted from the arming.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// At this write, 0 being the next.
    Write(u64),
    /// At this flush, 0 being the next.
    Flush(u64),
    /// So many operations behind a write that holds this.
    Behind {
        /// What the write holds.
        kind: Kind,
        /// Which such write, 0 being the next.
        nth: u64,
        /// How many writes and flushes later; 0 is the write itself.
        operations: u64,
    },
}

/// What happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The power goes off, before or after the operation has had its effect.
    Cut {
        /// What of the cache is kept.
        keep: Keep,
        /// Whether the operation still has its effect; it is never answered with success.
        effect: bool,
    },
    /// Writes fail: this many.
    FailWrites(u64),
    /// Flushes fail: this many. The cache is kept (a later flush will write it), or what it holds
    /// of the log's batches is dropped. (Dropping the file system's own as well would damage it:
    /// ext4 goes on after a failed flush.)
    FailFlushes {
        /// How many.
        count: u64,
        /// Whether the batches in the cache are dropped with each.
        drop: bool,
    },
    /// From here on, flushes are answered and not carried out.
    Lie,
}

/// What the cut found.
#[derive(Clone)]
pub struct Cut {
    /// What the media hold.
    pub image: Image,
    /// Sectors in the cache, and how many of them were kept.
    pub pending: usize,
    /// Of those, how many were kept.
    pub kept: usize,
    /// What of the log was in the cache: kinds and number of writes.
    pub kinds: BTreeMap<Kind, usize>,
    /// The newest writes of the log, whether flushed or not, newest last.
    pub newest: Vec<Kind>,
}

struct Pending {
    at: u64,
    bytes: Box<[u8]>,
    kinds: Vec<Kind>,
}

#[derive(Default)]
struct Armed {
    when: Option<(When, Event)>,
    writes: u64,
    flushes: u64,
    /// How many writes of the kind that is waited for have passed.
    seen: u64,
    /// Counts down once the kind has been seen often enough.
    countdown: Option<u64>,
}

/// What has happened to a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Writes and flushes that were failed on purpose.
    pub failed: u64,
    /// Of the failed writes, those that held batches of the log.
    pub failed_batches: u64,
    /// Flushes that were answered and not carried out.
    pub lies: u64,
    /// Requests that came after the cut.
    pub refused: u64,
}

struct State {
    durable: Image,
    /// What reads see: durable content and the cache.
    seen: Image,
    cache: Vec<Pending>,
    armed: Armed,
    fail_writes: u64,
    fail_flushes: u64,
    fail_drops: bool,
    lies: bool,
    dead: Option<Cut>,
    newest: Vec<Kind>,
    rng: Rng,
    counts: Counts,
}

/// A request that was not carried out: EIO.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed;

/// The device. Shared between the server and the rig.
pub struct Device {
    bytes: u64,
    state: Mutex<State>,
    cut: Condvar,
}

impl Device {
    /// A device of that size which holds that.
    pub fn new(bytes: u64, image: Image, rng: Rng) -> Self {
        let state = State {
            durable: image.clone(),
            seen: image,
            cache: Vec::new(),
            armed: Armed::default(),
            fail_writes: 0,
            fail_flushes: 0,
            fail_drops: false,
            lies: false,
            dead: None,
            newest: Vec::new(),
            rng,
            counts: Counts::default(),
        };
        Self { bytes, state: Mutex::new(state), cut: Condvar::new() }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the server must not make the device hang those who wait for it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `event`; it replaces what was armed before.
    pub fn arm(&self, when: When, event: Event) {
        self.lock().armed = Armed { when: Some((when, event)), ..Armed::default() };
    }

    /// Forgets what is armed, and fails nothing any more.
    pub fn disarm(&self) {
        let mut state = self.lock();
        state.armed = Armed::default();
        (state.fail_writes, state.fail_flushes) = (0, 0);
    }

    /// Does it now.
    pub fn now(&self, event: Event) {
        let mut state = self.lock();
        state.happen(event);
        self.cut.notify_all();
    }

    /// Whether the power is off.
    pub fn is_dead(&self) -> bool {
        self.lock().dead.is_some()
    }

    /// Waits for the cut, so long at most.
    pub fn wait_for_cut(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut state = self.lock();
        while state.dead.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.cut.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What the cut left, once it has been.
    pub fn after_cut(&self) -> Option<Cut> {
        self.lock().dead.clone()
    }

    /// What reads see: for a device that was unmounted in peace.
    pub fn content(&self) -> Image {
        self.lock().seen.clone()
    }

    /// What has happened.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Fills `out` with what lies at `at`.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Failed> {
        let mut state = self.lock();
        if state.dead.is_some() {
            state.counts.refused += 1;
            return Err(Failed);
        }
        state.seen.read(at, out);
        Ok(())
    }

    /// Takes a write into the cache.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Failed> {
        let mut state = self.lock();
        if state.dead.is_some() {
            state.counts.refused += 1;
            return Err(Failed);
        }
        let kinds: Vec<Kind> =
            bytes.chunks(PAGE_BYTES).map(kind_of).filter(|kind| *kind != Kind::Other).collect();
        state.counts.writes += 1;
        let event = state.armed.write(&kinds);
        if let Some(Event::Cut { effect, .. }) = event
            && effect
        {
            state.take(at, bytes, kinds.clone());
        }
        if let Some(event) = event {
            state.happen(event);
            self.cut.notify_all();
        }
        if state.dead.is_some() {
            return Err(Failed);
        }
        if state.fail_writes > 0 {
            state.fail_writes -= 1;
            state.counts.failed += 1;
            state.counts.failed_batches += u64::from(kinds.contains(&Kind::Batch));
            return Err(Failed);
        }
        state.take(at, bytes, kinds);
        Ok(())
    }

    /// Makes durable what is in the cache.
    pub fn flush(&self) -> Result<(), Failed> {
        let mut state = self.lock();
        if state.dead.is_some() {
            state.counts.refused += 1;
            return Err(Failed);
        }
        state.counts.flushes += 1;
        let event = state.armed.flush();
        if let Some(Event::Cut { effect: true, .. }) = event
            && !state.lies
        {
            state.make_durable();
        }
        if let Some(event) = event {
            state.happen(event);
            self.cut.notify_all();
        }
        if state.dead.is_some() {
            return Err(Failed);
        }
        if state.fail_flushes > 0 {
            state.fail_flushes -= 1;
            state.counts.failed += 1;
            if state.fail_drops {
                state.drop_batches();
            }
            return Err(Failed);
        }
        if state.lies {
            state.counts.lies += 1;
        } else {
            state.make_durable();
        }
        Ok(())
    }
}

impl Armed {
    fn write(&mut self, kinds: &[Kind]) -> Option<Event> {
        let (when, event) = self.when?;
        let due = match when {
            When::Write(at) => self.writes == at,
            When::Flush(_) => false,
            When::Behind { kind, nth, operations } => {
                self.countdown = self.countdown.map(|left| left.saturating_sub(1));
                if self.countdown.is_none() && kinds.contains(&kind) {
                    self.seen += 1;
                    if self.seen > nth {
                        self.countdown = Some(operations);
                    }
                }
                self.countdown == Some(0)
            }
        };
        self.writes += 1;
        self.fire(due, event)
    }

    fn flush(&mut self) -> Option<Event> {
        let (when, event) = self.when?;
        let due = match when {
            When::Write(_) => false,
            When::Flush(at) => self.flushes == at,
            When::Behind { .. } => {
                self.countdown = self.countdown.map(|left| left.saturating_sub(1));
                self.countdown == Some(0)
            }
        };
        self.flushes += 1;
        self.fire(due, event)
    }

    fn fire(&mut self, due: bool, event: Event) -> Option<Event> {
        due.then(|| {
            self.when = None;
            event
        })
    }
}

impl State {
    fn take(&mut self, at: u64, bytes: &[u8], kinds: Vec<Kind>) {
        self.seen.write(at, bytes);
        self.newest.extend(&kinds);
        let excess = self.newest.len().saturating_sub(8);
        self.newest.drain(..excess);
        self.cache.push(Pending { at, bytes: bytes.into(), kinds });
    }

    fn make_durable(&mut self) {
        for pending in self.cache.drain(..) {
            self.durable.write(pending.at, &pending.bytes);
        }
    }

    fn drop_batches(&mut self) {
        self.cache.retain(|pending| !pending.kinds.contains(&Kind::Batch));
        self.seen = self.durable.clone();
        for pending in &self.cache {
            self.seen.write(pending.at, &pending.bytes);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Cut { keep, .. } if self.dead.is_none() => self.dead = Some(self.cut(keep)),
            Event::Cut { .. } => {}
            Event::FailWrites(count) => self.fail_writes = count,
            Event::FailFlushes { count, drop } => {
                (self.fail_flushes, self.fail_drops) = (count, drop);
            }
            Event::Lie => self.lies = true,
        }
    }

    fn cut(&mut self, keep: Keep) -> Cut {
        let mut kinds = BTreeMap::new();
        for kind in self.cache.iter().flat_map(|pending| &pending.kinds) {
            *kinds.entry(*kind).or_default() += 1;
        }
        let mut sectors: Vec<(u64, &[u8])> = self
            .cache
            .iter()
            .flat_map(|pending| {
                let sectors = pending.bytes.chunks(SECTOR_BYTES).enumerate();
                sectors.map(|(i, bytes)| (pending.at + (i * SECTOR_BYTES) as u64, bytes))
            })
            .collect();
        let pending = sectors.len();
        let rng = &mut self.rng;
        match keep {
            Keep::None => sectors.clear(),
            Keep::All => {}
            Keep::Prefix => sectors.truncate(rng.index(pending + 1)),
            Keep::AllButOne if pending > 0 => {
                sectors.remove(rng.index(pending));
            }
            Keep::OnlyOne if pending > 0 => {
                let only = sectors[rng.index(pending)];
                sectors = vec![only];
            }
            Keep::AllButOne | Keep::OnlyOne => {}
            Keep::Subset | Keep::Reordered => {
                let share = [50_000, 300_000, 500_000, 700_000, 950_000][rng.index(5)];
                sectors.retain(|_| rng.chance(share));
                if keep == Keep::Reordered {
                    for last in (1..sectors.len()).rev() {
                        sectors.swap(last, rng.index(last + 1));
                    }
                }
            }
        }
        let mut image = self.durable.clone();
        for (at, bytes) in &sectors {
            image.write(*at, bytes);
        }
        let newest = self.newest.clone();
        Cut { image, pending, kept: sectors.len(), kinds, newest }
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
