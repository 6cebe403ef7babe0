//! A disk with a volatile write cache, in memory: what lies below the real file system when the
//! power goes off.
//!
//! A write goes into the cache, sector by sector; a flush makes all of it durable. The cut is one
//! instant: under one lock the device dies and what it holds is settled, so a flush that was
//! answered is never undone, and none is answered afterwards. From then on every request fails.
//!
//! The device knows nothing of file systems. Of the log it knows the first four bytes of its
//! structures, only to tell and to choose *when* the power goes off.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Rng;

/// What a cut keeps or loses as a whole.
pub const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// The content of a disk. Clones share what is equal.
#[derive(Clone, Default)]
pub struct Image {
    pages: HashMap<u64, Arc<[u8]>>,
}

impl Image {
    fn read(&self, at: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let position = at + done as u64;
            let within = (position % PAGE_BYTES as u64) as usize;
            let take = (PAGE_BYTES - within).min(out.len() - done);
            let to = &mut out[done..done + take];
            match self.pages.get(&(position / PAGE_BYTES as u64)) {
                Some(page) => to.copy_from_slice(&page[within..within + take]),
                None => to.fill(0),
            }
            done += take;
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let position = at + done as u64;
            let within = (position % PAGE_BYTES as u64) as usize;
            let take = (PAGE_BYTES - within).min(bytes.len() - done);
            if take == PAGE_BYTES && bytes[done..done + take].iter().all(|byte| *byte == 0) {
                // mkfs writes whole megabytes of them.
                self.pages.remove(&(position / PAGE_BYTES as u64));
                done += take;
                continue;
            }
            let page = self
                .pages
                .entry(position / PAGE_BYTES as u64)
                .or_insert_with(|| Arc::from([0u8; PAGE_BYTES]));
            let from = &bytes[done..done + take];
            match Arc::get_mut(page) {
                Some(page) => page[within..within + take].copy_from_slice(from),
                None => {
                    let mut copy = page.to_vec();
                    copy[within..within + take].copy_from_slice(from);
                    *page = Arc::from(copy);
                }
            }
            done += take;
        }
    }
}

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
mod tests {
    use super::*;

    fn device() -> Device {
        Device::new(1 << 20, Image::default(), Rng::new(7))
    }

    fn cut(keep: Keep) -> Event {
        Event::Cut { keep, effect: false }
    }

    fn sector(image: &Image, number: u64) -> u8 {
        let mut byte = [0];
        image.read(number * SECTOR_BYTES as u64, &mut byte);
        byte[0]
    }

    #[test]
    fn only_a_flush_makes_durable() {
        let device = device();
        device.write(0, &[1; 1024]).unwrap();
        device.flush().unwrap();
        device.write(512, &[2; 1024]).unwrap();
        let mut now = [0; 1];
        device.read(512, &mut now).unwrap();
        assert_eq!(now, [2], "reads see the cache");
        device.now(cut(Keep::None));
        let after = device.after_cut().unwrap();
        assert_eq!((0..3).map(|n| sector(&after.image, n)).collect::<Vec<_>>(), [1, 1, 0]);
        assert_eq!((after.pending, after.kept), (2, 0));
        assert_eq!(device.write(0, &[3; 512]), Err(Failed));
        assert_eq!(device.flush(), Err(Failed));
        assert_eq!(device.read(0, &mut now), Err(Failed));
        assert_eq!(device.counts().refused, 3);
    }

    #[test]
    fn a_cut_keeps_what_its_kind_says() {
        let kept = |keep| {
            let device = device();
            for n in 0..40u8 {
                device.write(u64::from(n) * 512, &[n + 1; 512]).unwrap();
            }
            device.now(cut(keep));
            let after = device.after_cut().unwrap();
            let kept: Vec<u64> = (0..40).filter(|n| sector(&after.image, *n) != 0).collect();
            assert_eq!(kept.len(), after.kept);
            kept
        };
        assert_eq!(kept(Keep::All).len(), 40);
        assert_eq!(kept(Keep::AllButOne).len(), 39);
        assert_eq!(kept(Keep::OnlyOne).len(), 1);
        let prefix = kept(Keep::Prefix);
        assert_eq!(prefix, (0..prefix.len() as u64).collect::<Vec<_>>());
        assert!((1..40).contains(&kept(Keep::Subset).len()));
    }

    #[test]
    fn a_reordered_cut_may_bring_back_the_older_of_two_writes() {
        let older = (0..64).any(|seed| {
            let device = Device::new(1 << 20, Image::default(), Rng::new(seed));
            device.write(0, &[1; 512]).unwrap();
            device.write(0, &[2; 512]).unwrap();
            device.now(cut(Keep::Reordered));
            let after = device.after_cut().unwrap();
            after.kept == 2 && sector(&after.image, 0) == 1
        });
        assert!(older);
    }

    #[test]
    fn events_come_when_they_are_due() {
        let device = device();
        device.arm(When::Write(2), cut(Keep::All));
        device.write(0, &[1; 512]).unwrap();
        device.flush().unwrap();
        device.write(0, &[2; 512]).unwrap();
        assert_eq!(device.write(0, &[3; 512]), Err(Failed), "without effect");
        assert_eq!(sector(&device.after_cut().unwrap().image, 0), 2);

        let device = self::device();
        device.arm(When::Flush(1), Event::Cut { keep: Keep::None, effect: true });
        device.flush().unwrap();
        device.write(0, &[1; 512]).unwrap();
        assert_eq!(device.flush(), Err(Failed));
        assert_eq!(sector(&device.after_cut().unwrap().image, 0), 1, "with effect");

        let device = self::device();
        let when = When::Behind { kind: Kind::Footer, nth: 1, operations: 2 };
        device.arm(when, cut(Keep::All));
        for _ in 0..2 {
            device.write(0, b"RLf1 and more").unwrap();
            device.write(4096, b"RLb1").unwrap();
        }
        assert!(!device.is_dead());
        assert_eq!(device.flush(), Err(Failed));
        let after = device.after_cut().unwrap();
        assert_eq!(after.kinds, BTreeMap::from([(Kind::Batch, 2), (Kind::Footer, 2)]));
        assert_eq!(after.newest, [Kind::Footer, Kind::Batch, Kind::Footer, Kind::Batch]);
    }

    #[test]
    fn a_failed_flush_keeps_or_drops_the_cache() {
        for drop in [false, true] {
            let device = device();
            device.write(0, b"RLb1").unwrap();
            device.write(4096, &[1; 512]).unwrap();
            device.now(Event::FailFlushes { count: 1, drop });
            assert_eq!(device.flush(), Err(Failed));
            device.flush().unwrap();
            device.now(cut(Keep::None));
            let after = device.after_cut().unwrap();
            assert_eq!(sector(&after.image, 0), if drop { 0 } else { b'R' });
            assert_eq!(sector(&after.image, 8), 1);
        }
    }

    #[test]
    fn a_lying_flush_makes_nothing_durable() {
        let device = device();
        device.now(Event::Lie);
        device.write(0, &[1; 512]).unwrap();
        device.flush().unwrap();
        device.now(cut(Keep::None));
        assert_eq!(sector(&device.after_cut().unwrap().image, 0), 0);
        assert_eq!(device.counts().lies, 1);
    }

    #[test]
    fn clones_of_an_image_do_not_share_later_writes() {
        let mut one = Image::default();
        one.write(100, &[1; 5000]);
        let two = one.clone();
        one.write(0, &[2; 512]);
        let mut bytes = [0; 1];
        two.read(100, &mut bytes);
        assert_eq!(bytes, [1]);
        one.read(100, &mut bytes);
        assert_eq!(bytes, [2]);
        one.read(5099, &mut bytes);
        assert_eq!(bytes, [1]);
    }
}
