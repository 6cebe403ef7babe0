//! Finding something in an index, whether it is in memory or in pages.

use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};

use super::file::{Fault, Loaded};
use super::postings::{Posting, Snapshot, TimePoint};
use crate::format::index::{EXTENTS_PER_PAGE, Extent, POINTS_PER_PAGE, POSTINGS_PER_PAGE, Slot};
use crate::ids::{Offset, StreamId};

/// A page of an index.
pub(super) enum Page<'a> {
    Resident(&'a [u8]),
    Read(Arc<[u8]>),
}

impl std::ops::Deref for Page<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Resident(page) => page,
            Self::Read(page) => page,
        }
    }
}

/// Where pages come from.
pub(super) trait Pages {
    fn index(&self) -> &Arc<Loaded>;
    /// A page that is not in memory; those up to `behind` are wanted next.
    fn read(&mut self, number: u64, behind: u64) -> Result<Arc<[u8]>, Fault>;
}

/// A stored index and a way to its pages.
pub(super) struct Search<'a, P> {
    pages: &'a mut P,
    index: Arc<Loaded>,
}

impl<'a, P: Pages> Search<'a, P> {
    pub(super) fn new(pages: &'a mut P) -> Self {
        let index = Arc::clone(pages.index());
        Self { pages, index }
    }

    fn with_page<T>(
        &mut self,
        number: u64,
        behind: u64,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Fault> {
        let page = match self.index.resident(number) {
            Some(page) => Page::Resident(page),
            None => Page::Read(self.pages.read(number, behind)?),
        };
        Ok(look(&page))
    }

    /// The extents in a page of their section; those up to `behind` are wanted next.
    fn extents(&mut self, at: u64, behind: u64) -> Result<Vec<Extent>, Fault> {
        let (index, first) = (Arc::clone(&self.index), self.index.layout.extents);
        self.with_page(first + at, first + behind, |page| {
            index.header.extents_in(at, page).collect()
        })
    }

    fn extent_pages(&self) -> u64 {
        self.index.fences.extents.len() as u64
    }

    /// The page in which the last extent lies that begins at or before a key.
    fn extent_page(&self, stream: StreamId, first: Offset) -> u64 {
        let key = (stream.0, first);
        let before = |fence: &(StreamId, Offset)| (fence.0.0, fence.1) <= key;
        self.index.fences.extents.partition_point(before).saturating_sub(1) as u64
    }

    /// The extent of the stream that holds the offset, or the first one behind it.
    fn extent_at(&mut self, stream: StreamId, offset: Offset) -> Result<Option<Extent>, Fault> {
        let ends_behind = |extent: &Extent| (extent.stream.0, extent.end()) > (stream.0, offset);
        let mut at = self.extent_page(stream, offset);
        while at < self.extent_pages() {
            let here = self.extents(at, at + 1)?;
            if let Some(found) = here.get(here.partition_point(|extent| !ends_behind(extent))) {
                return Ok(Some(*found).filter(|extent| extent.stream == stream));
            }
            at += 1;
        }
        Ok(None)
    }

    /// All extents of a stream.
    fn extents_of(&mut self, stream: StreamId) -> Result<Vec<Extent>, Fault> {
        let mut all = Vec::new();
        let first = self.extent_page(stream, Offset(0));
        for at in first..self.extent_pages() {
            let here = self.extents(at, at + 1)?;
            all.extend(here.iter().filter(|extent| extent.stream == stream));
            if here.last().is_none_or(|last| last.stream.0 > stream.0) {
                break;
            }
        }
        Ok(all)
    }

    /// The first offset of a stream and the one behind its last.
    pub(super) fn bounds(&mut self, stream: StreamId) -> Result<Option<(Offset, Offset)>, Fault> {
        let Some(first) = self.extent_at(stream, Offset(0))? else { return Ok(None) };
        let last_page = self.extent_page(stream, Offset(u64::MAX));
        let here = self.extents(last_page, last_page + 1)?;
        let last = here.iter().rfind(|extent| extent.stream == stream);
        Ok(Some((first.first, last.unwrap_or(&first).end())))
    }

    /// The postings of an extent with the numbers `from` to `to`, counted from its first.
    fn slots(&mut self, extent: &Extent, from: u64, to: u64) -> Result<Vec<Slot>, Fault> {
        let (each, base) = (POSTINGS_PER_PAGE as u64, u64::from(extent.place));
        let (from, to) = (base + from, base + to);
        if to > u64::from(self.index.header.postings) {
            return Err(Fault("an extent with postings that are not there".to_owned()));
        }
        let index = Arc::clone(&self.index);
        let mut slots = Vec::new();
        for page in from / each..to.div_ceil(each) {
            let first = page * each;
            let skip = from.saturating_sub(first) as usize;
            let take = (to - first).min(each) as usize - skip;
            let section = index.layout.postings;
            self.with_page(section + page, section + to.div_ceil(each), |bytes| {
                slots.extend(index.header.slots_in(page, bytes).skip(skip).take(take));
            })?;
        }
        Ok(slots)
    }

    /// All postings of a stream, in order.
    pub(super) fn postings(&mut self, stream: StreamId) -> Result<Vec<Posting>, Fault> {
        let mut all = Vec::new();
        for extent in self.extents_of(stream)? {
            if let Some(posting) = extent.single() {
                all.push(posting);
                continue;
            }
            let slots = self.slots(&extent, 0, extent.postings.into())?;
            let ends = slots.iter().skip(1).map(|slot| slot.first).chain([extent.records]);
            all.extend(slots.iter().zip(ends).map(|(slot, end)| slot.posting(&extent, end)));
        }
        Ok(all)
    }

    /// The posting that holds an offset, or the first one behind it. Reads at most two pages.
    pub(super) fn posting_at(
        &mut self,
        stream: StreamId,
        offset: Offset,
    ) -> Result<Option<Posting>, Fault> {
        let Some(extent) = self.extent_at(stream, offset)? else { return Ok(None) };
        if let Some(posting) = extent.single() {
            return Ok(Some(posting));
        }
        // Within an extent nothing is missing, so the offset lies in it or before it.
        let wanted = offset.0.saturating_sub(extent.first.0);
        let wanted = wanted + u64::from(planted(Bug::SearchOffsetTooFar));
        let each = POSTINGS_PER_PAGE as u64;
        let (place, count) = (u64::from(extent.place), u64::from(extent.postings));
        let (first_page, last_page) = (place / each, (place + count).saturating_sub(1) / each);
        let fences = self.index.fences.postings.get(first_page as usize + 1..=last_page as usize);
        let fences = fences.unwrap_or(&[]);
        let ahead = fences.partition_point(|fence| u64::from(*fence) <= wanted);
        // The fence of the page behind says where the last posting of this one ends.
        let behind = fences.get(ahead).copied();
        let page = first_page + ahead as u64;
        let from = (page * each).max(place) - place;
        let to = ((page + 1) * each).min(place + count) - place;
        let slots = self.slots(&extent, from, to)?;
        let at = slots.partition_point(|slot| u64::from(slot.first) <= wanted).saturating_sub(1);
        let end = slots.get(at + 1).map(|slot| slot.first).or(behind).unwrap_or(extent.records);
        match slots.get(at) {
            Some(slot) => Ok(Some(slot.posting(&extent, end))),
            None => Err(Fault("an extent without postings".to_owned())),
        }
    }

    /// Where a batch begins that lies at or before the first one placed at a time or later.
    pub(super) fn block_at_time(&mut self, timestamp_ns: u64) -> Result<u32, Fault> {
        let before = |ns: u64| ns < timestamp_ns;
        let page = self.index.fences.points.partition_point(|ns| before(*ns));
        let Some(at) = page.checked_sub(1) else { return Ok(0) };
        let index = Arc::clone(&self.index);
        let number = index.layout.points + at as u64;
        let here: Vec<TimePoint> = self.with_page(number, number + 1, |page| {
            index.header.points_in(at as u64, page).collect()
        })?;
        Ok(point_before(&here, timestamp_ns))
    }

    /// All streams, each with its bounds, in order.
    #[cfg(test)]
    pub(super) fn streams(&mut self) -> Result<Vec<(StreamId, Offset, Offset)>, Fault> {
        let mut all: Vec<(StreamId, Offset, Offset)> = Vec::new();
        let pages = self.extent_pages();
        for at in 0..pages {
            for extent in self.extents(at, pages)? {
                match all.last_mut() {
                    Some(last) if last.0 == extent.stream => last.2 = extent.end(),
                    _ => all.push((extent.stream, extent.first, extent.end())),
                }
            }
        }
        Ok(all)
    }
}

const _: () = assert!(EXTENTS_PER_PAGE > 1 && POINTS_PER_PAGE > 1);

/// The block of the last point before a time; the first block where there is none.
fn point_before(points: &[TimePoint], timestamp_ns: u64) -> u32 {
    let timestamp_ns = timestamp_ns.saturating_add(u64::from(planted(Bug::SearchTimeTooFar)));
    let behind = points.partition_point(|point| point.timestamp_ns < timestamp_ns);
    behind.checked_sub(1).and_then(|at| points.get(at)).map_or(0, |point| point.block)
}

/// The same in what a writer has noted, which is in the order of the log.
impl Snapshot {
    pub(super) fn bounds(&self, stream: StreamId) -> Option<(Offset, Offset)> {
        let mut own = self.iter().filter(|posting| posting.stream == stream);
        let first = own.next()?;
        let last = own.next_back().unwrap_or(first);
        Some((first.first, last.end()))
    }

    pub(super) fn posting_at(&self, stream: StreamId, offset: Offset) -> Option<Posting> {
        let mut own = self.iter().filter(|posting| posting.stream == stream);
        own.find(|posting| posting.end() > offset).copied()
    }

    pub(super) fn block_at_time(&self, timestamp_ns: u64) -> u32 {
        point_before(&self.times, timestamp_ns)
    }

    #[cfg(test)]
    pub(super) fn streams(&self) -> Vec<(StreamId, Offset, Offset)> {
        let mut all = std::collections::BTreeMap::new();
        for posting in self.iter() {
            let own = all.entry(posting.stream.0).or_insert((posting.first, posting.end()));
            own.1 = posting.end();
        }
        all.into_iter().map(|(stream, (first, end))| (StreamId(stream), first, end)).collect()
    }
}
