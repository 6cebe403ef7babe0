//! One file of the simulated disk: what is on the media, and what is still on its way there.
//!
//! A write is *in flight* from its submission, *cached* from its completion, and gone from here
//! once a flush has put it on the media. It is kept as one entry with a mark for each 512-byte
//! sector that is still alive: a sector dies when it was lost, or when something newer reached the
//! media in its place.
//!
//! Invariant: entries that have completed come first, in the order of completion, so that laying
//! the entries over the media one after another gives what a reader sees.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::content::Content;
use crate::faults::Landed;
use crate::rng::Rng;

/// The smallest unit that a device writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// A write that the media do not have yet.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// Grows with each submission, over all files.
    pub(crate) id: u64,
    offset: u64,
    bytes: Arc<[u8]>,
    live: Vec<bool>,
    /// When it completed, in the world's count of completions; `None` while in flight.
    completed: Option<u64>,
    /// A flush that covered it has failed: no later flush will write it.
    stuck: bool,
}

impl Write {
    fn sector(&self, index: usize) -> (u64, &[u8]) {
        let start = index * SECTOR_BYTES as usize;
        let end = (start + SECTOR_BYTES as usize).min(self.bytes.len());
        (self.offset + start as u64, &self.bytes[start..end])
    }

    fn live_sectors(&self) -> impl Iterator<Item = usize> + '_ {
        self.live.iter().enumerate().filter_map(|(i, live)| live.then_some(i))
    }

    /// The sectors in which an area may tear, as (unit, sector): the unit is the number of the
    /// area of `tear_bytes` within the file.
    fn units(&self, tear_bytes: u64) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.live_sectors().map(move |i| (self.sector(i).0 / tear_bytes, i))
    }
}

/// A sector of a write that was on its way to the media.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The number of its write.
    pub(crate) write: u64,
    pub(crate) offset: u64,
    all: Arc<[u8]>,
    range: Range<usize>,
}

impl Taken {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.all[self.range.clone()]
    }
}

/// Which cached writes a flush covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    /// Those that completed no later than this.
    pub(crate) completed_by: Option<u64>,
    /// And this one.
    pub(crate) own: Option<u64>,
}

impl Covered {
    fn covers(self, write: &Write) -> bool {
        let before = match (write.completed, self.completed_by) {
            (Some(completed), Some(limit)) => completed <= limit,
            _ => false,
        };
        before || self.own == Some(write.id)
    }
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inode {
    media: Content,
    writes: Vec<Write>,
    unreadable: BTreeSet<u64>,
}

impl Inode {
    pub(crate) fn new(media: Content) -> Self {
        Self { media, writes: Vec::new(), unreadable: BTreeSet::new() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.media.len()
    }

    pub(crate) fn media(&self) -> &Content {
        &self.media
    }

    /// Whether anything is on its way to the media.
    pub(crate) fn is_volatile(&self) -> bool {
        !self.writes.is_empty()
    }

    pub(crate) fn begin_write(&mut self, id: u64, offset: u64, bytes: Vec<u8>) {
        let live = vec![true; bytes.len().div_ceil(SECTOR_BYTES as usize)];
        let bytes = bytes.into();
        self.writes.push(Write { id, offset, bytes, live, completed: None, stuck: false });
    }

    /// The write has reached the cache.
    pub(crate) fn complete_write(&mut self, id: u64, now: u64) {
        let Some(mut write) = self.take(id) else {
            return;
        };
        write.completed = Some(now);
        if write.live.contains(&true) {
            let end = write.offset + write.bytes.len() as u64;
            self.media.set_len(end.max(self.media.len()));
        }
        for sector in write.live_sectors() {
            self.unreadable.remove(&(write.sector(sector).0 / SECTOR_BYTES));
        }
        let place = self.writes.partition_point(|w| w.completed.is_some());
        self.writes.insert(place, write);
    }

    /// The write has failed, or its process has died: some of its sectors may have arrived.
    pub(crate) fn break_write(&mut self, id: u64, now: u64, landed: Landed, rng: &mut Rng) {
        let Some(write) = self.writes.iter_mut().find(|w| w.id == id) else {
            return;
        };
        for live in &mut write.live {
            *live &= match landed {
                Landed::Nothing => false,
                Landed::Everything => true,
                Landed::Some => rng.coin(),
            };
        }
        self.complete_write(id, now);
        self.forget_dead();
    }

    /// The write goes somewhere else in the file (nowhere when it does not fit there).
    pub(crate) fn misdirect_write(&mut self, id: u64, by_bytes: i64) {
        let len = self.len();
        let Some(write) = self.writes.iter_mut().find(|w| w.id == id) else {
            return;
        };
        let by = by_bytes - by_bytes % SECTOR_BYTES as i64;
        match write.offset.checked_add_signed(by) {
            Some(offset) if offset + write.bytes.len() as u64 <= len => write.offset = offset,
            _ => write.live.fill(false),
        }
    }

    /// Puts the covered writes on the media, but for those whose flush has failed before.
    pub(crate) fn flush(&mut self, covered: Covered) {
        for at in 0..self.writes.len() {
            if covered.covers(&self.writes[at]) && !self.writes[at].stuck {
                for sector in 0..self.writes[at].live.len() {
                    self.land(at, sector);
                }
            }
        }
        self.forget_dead();
    }

    /// A flush of the covered writes has failed. Those that stay in the cache stay there for
    /// good: later flushes leave them out, and say nothing.
    pub(crate) fn fail_flush(&mut self, covered: Covered, landed: Landed, rng: &mut Rng) {
        for at in 0..self.writes.len() {
            if !covered.covers(&self.writes[at]) {
                continue;
            }
            self.writes[at].stuck = true;
            for sector in 0..self.writes[at].live.len() {
                match landed {
                    Landed::Everything => {}
                    Landed::Nothing => self.writes[at].live[sector] = false,
                    Landed::Some => match rng.below(3) {
                        0 => self.land(at, sector),
                        1 => self.writes[at].live[sector] = false,
                        _ => {}
                    },
                }
            }
        }
        self.forget_dead();
    }

    /// The areas of this file whose fate a power cut decides, as (write, unit).
    pub(crate) fn volatile_units(&self, tear_bytes: u64) -> BTreeSet<(u64, u64)> {
        self.writes.iter().flat_map(|w| w.units(tear_bytes).map(|(unit, _)| (w.id, unit))).collect()
    }

    /// The power is cut: of what was on its way, only these areas have reached the media.
    pub(crate) fn cut(&mut self, kept: &BTreeSet<(u64, u64)>, tear_bytes: u64) {
        for write in std::mem::take(&mut self.writes) {
            for (unit, sector) in write.units(tear_bytes) {
                if kept.contains(&(write.id, unit)) {
                    let (offset, bytes) = write.sector(sector);
                    self.media.write(offset, bytes);
                }
            }
        }
    }

    /// Takes away everything that is on its way, in the order in which it would take effect.
    pub(crate) fn take_sectors(&mut self) -> Vec<Taken> {
        let mut taken = Vec::new();
        for write in std::mem::take(&mut self.writes) {
            for index in write.live_sectors() {
                let start = index * SECTOR_BYTES as usize;
                let end = (start + SECTOR_BYTES as usize).min(write.bytes.len());
                let (all, offset) = (Arc::clone(&write.bytes), write.sector(index).0);
                taken.push(Taken { write: write.id, offset, all, range: start..end });
            }
        }
        taken
    }

    /// Puts on the media what was taken.
    pub(crate) fn put_sector(&mut self, sector: &Taken) {
        self.media.write(sector.offset, sector.bytes());
    }

    /// Reads what a reader sees; of a write in flight, any sectors. `None` when a sector cannot be
    /// read.
    pub(crate) fn read(&self, offset: u64, len: usize, rng: &mut Rng) -> Option<Vec<u8>> {
        let len = self.len().saturating_sub(offset).min(len as u64);
        let mut out = vec![0; len as usize];
        self.read_into(offset, &mut out, rng)?;
        Some(out)
    }

    /// The same into memory that is there already; gives how many bytes there were.
    pub(crate) fn read_into(&self, offset: u64, out: &mut [u8], rng: &mut Rng) -> Option<usize> {
        let len = self.len().saturating_sub(offset).min(out.len() as u64);
        let out = &mut out[..len as usize];
        let sectors = offset / SECTOR_BYTES..(offset + len).div_ceil(SECTOR_BYTES);
        if len > 0 && self.unreadable.range(sectors).next().is_some() {
            return None;
        }
        self.media.read(offset, out);
        for write in &self.writes {
            let write_end = write.offset + write.bytes.len() as u64;
            if write_end <= offset || write.offset >= offset + len {
                continue;
            }
            for sector in write.live_sectors() {
                if write.completed.is_none() && rng.coin() {
                    continue;
                }
                let (at, bytes) = write.sector(sector);
                let from = at.max(offset);
                let to = (at + bytes.len() as u64).min(offset + len);
                if from < to {
                    out[(from - offset) as usize..(to - offset) as usize]
                        .copy_from_slice(&bytes[(from - at) as usize..(to - at) as usize]);
                }
            }
        }
        Some(len as usize)
    }

    /// Puts everything that has completed on the media, and gives the media for changes.
    pub(crate) fn settle(&mut self) -> &mut Content {
        for at in 0..self.writes.len() {
            if self.writes[at].completed.is_some() {
                for sector in 0..self.writes[at].live.len() {
                    self.land(at, sector);
                }
            }
        }
        self.forget_dead();
        &mut self.media
    }

    pub(crate) fn set_unreadable(&mut self, offset: u64) {
        self.unreadable.insert(offset / SECTOR_BYTES);
    }

    /// Removes a write in flight from here, to put it back later.
    pub(crate) fn take(&mut self, id: u64) -> Option<Write> {
        let at = self.writes.iter().position(|w| w.id == id)?;
        Some(self.writes.remove(at))
    }

    /// Puts back what was taken.
    pub(crate) fn put_back(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Puts one sector on the media, over all older versions of it.
    fn land(&mut self, at: usize, sector: usize) {
        if !self.writes[at].live[sector] {
            return;
        }
        let (older, rest) = self.writes.split_at_mut(at);
        let Some(write) = rest.first_mut() else {
            return;
        };
        write.live[sector] = false;
        let (offset, bytes) = write.sector(sector);
        self.media.write(offset, bytes);
        for other in older {
            if offset >= other.offset {
                let index = ((offset - other.offset) / SECTOR_BYTES) as usize;
                if let Some(live) = other.live.get_mut(index) {
                    *live = false;
                }
            }
        }
    }

    fn forget_dead(&mut self) {
        self.writes.retain(|w| w.completed.is_none() || w.live.iter().any(|live| *live));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_1: Covered = Covered { completed_by: Some(1), own: None };

    fn seen(inode: &Inode) -> Vec<u8> {
        inode.read(0, inode.len() as usize, &mut Rng::new(0)).unwrap()
    }

    fn file(sectors: u64) -> Inode {
        Inode::new(Content::zeros(sectors * SECTOR_BYTES))
    }

    #[test]
    fn an_older_cached_write_does_not_cover_a_newer_flushed_one() {
        let mut inode = file(2);
        inode.begin_write(1, 0, vec![1; 1024]);
        inode.complete_write(1, 1);
        inode.begin_write(2, 0, vec![2; 512]);
        inode.complete_write(2, 2);
        inode.flush(Covered { completed_by: None, own: Some(2) });
        assert_eq!(seen(&inode)[..512], [2; 512]);
        assert_eq!(seen(&inode)[512..], [1; 512]);
        assert_eq!(inode.volatile_units(512), BTreeSet::from([(1, 1)]));
    }

    #[test]
    fn a_flush_covers_what_completed_before_and_nothing_else() {
        let mut inode = file(3);
        for id in 1..=3 {
            inode.begin_write(id, (id - 1) * 512, vec![id as u8; 512]);
        }
        inode.complete_write(2, 1);
        inode.complete_write(1, 2);
        inode.flush(BY_1);
        let media = inode.media().to_vec();
        assert_eq!((media[0], media[512], media[1024]), (0, 2, 0));
    }

    #[test]
    fn overlapping_writes_take_effect_in_the_order_of_completion() {
        let mut inode = file(1);
        inode.begin_write(1, 0, vec![1; 512]);
        inode.begin_write(2, 0, vec![2; 512]);
        inode.complete_write(2, 1);
        inode.complete_write(1, 2);
        assert_eq!(seen(&inode), [1; 512]);
    }

    #[test]
    fn after_a_failed_flush_no_later_one_writes_the_data() {
        let mut inode = file(1);
        inode.begin_write(1, 0, vec![1; 512]);
        inode.complete_write(1, 1);
        inode.fail_flush(BY_1, Landed::Everything, &mut Rng::new(0));
        inode.flush(BY_1);
        assert_eq!(seen(&inode), [1; 512]);
        assert_eq!(inode.media().to_vec(), [0; 512]);
        inode.cut(&BTreeSet::new(), 512);
        assert_eq!(seen(&inode), [0; 512]);
    }

    #[test]
    fn a_failed_flush_may_drop_the_data_at_once() {
        let mut inode = file(1);
        inode.begin_write(1, 0, vec![1; 512]);
        inode.complete_write(1, 1);
        inode.fail_flush(BY_1, Landed::Nothing, &mut Rng::new(0));
        assert_eq!(seen(&inode), [0; 512]);
    }

    #[test]
    fn units_of_4096_bytes_share_their_fate() {
        let mut inode = file(16);
        inode.begin_write(1, 0, vec![1; 8192]);
        assert_eq!(inode.volatile_units(512).len(), 16);
        assert_eq!(inode.volatile_units(4096), BTreeSet::from([(1, 0), (1, 1)]));
        inode.cut(&BTreeSet::from([(1, 1)]), 4096);
        let media = inode.media().to_vec();
        assert_eq!(media[..4096], [0; 4096]);
        assert_eq!(media[4096..], [1; 4096]);
    }

    #[test]
    fn a_read_beside_a_write_in_flight_may_see_any_of_its_sectors() {
        let mut inode = file(64);
        inode.begin_write(1, 0, vec![1; 64 * 512]);
        let bytes = seen(&inode);
        assert!(bytes.contains(&0) && bytes.contains(&1));
    }

    #[test]
    fn a_write_heals_an_unreadable_sector() {
        let mut inode = file(4);
        inode.set_unreadable(600);
        let mut rng = Rng::new(0);
        assert!(inode.read(512, 512, &mut rng).is_none());
        assert!(inode.read(1024, 512, &mut rng).is_some());
        inode.begin_write(1, 512, vec![1; 512]);
        inode.complete_write(1, 1);
        assert!(inode.read(512, 512, &mut rng).is_some());
    }
}
