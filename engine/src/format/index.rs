//! The index of a segment: where the records of each stream lie in it, and when they were placed.
//!
//! ```text
//! file = page 0: header, fences · more fences · extents · points in time · postings
//! ```
//!
//! Pages of 4096 bytes, each with a checksum of its own, so that a reader takes single pages of a
//! large index. The checksums are seeded with the log, the shard, the segment, what is covered and
//! the number of the page: a page of another index, or of another state of this one, never
//! validates. Where a section lies follows from the counts in the header.
//!
//! An *extent* is a range of offsets of one stream without a gap. A stream has several in a segment
//! only where offsets are missing between them, or where it would have more than 2^32 records. So
//! how many records a posting covers follows from the next one. A *fence* is the first key of a
//! page: with the fences at the front any key is found with one page of its section.
//!
//! The file is derived from the batches of the segment and is never evidence about them.

use ringlog_disk::planted::{Bug, planted};

use super::bytes::{
    expected_crc, get_log_id, get_u16, get_u32, get_u64, put_u16, put_u32, put_u64, seal_crc,
    seed_of,
};
use super::segment::{SEALED_BYTES, Sealed, decode_sealed, encode_sealed};
use super::{Refused, VERSION, check_format};
use crate::ids::{LogId, Offset, SegmentId, StreamId};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES, SEGMENT_BYTES_MAX, STREAMS_MAX};

/// Bytes of a page.
pub const PAGE_BYTES: usize = BLOCK_BYTES;
/// Entries of a page begin behind its number and its checksum.
const PAGE_HEAD_BYTES: usize = 8;
/// Where the fences begin in page 0.
const FENCES_AT: usize = 128;
const MAGIC: u32 = u32::from_le_bytes(*b"RLi1");
const CRC_FIELD: usize = 4;

const EXTENT_BYTES: usize = 24;
const POSTING_BYTES: usize = 8;
const POINT_BYTES: usize = 12;
/// Fences of the three sections.
const EXTENT_FENCE_BYTES: usize = 12;
const POINT_FENCE_BYTES: usize = 8;
const POSTING_FENCE_BYTES: usize = 4;

/// Extents of a page.
pub const EXTENTS_PER_PAGE: usize = per_page(EXTENT_BYTES);
/// Postings of a page.
pub const POSTINGS_PER_PAGE: usize = per_page(POSTING_BYTES);
/// Points in time of a page.
pub const POINTS_PER_PAGE: usize = per_page(POINT_BYTES);

/// Where a batch lies, in one word: the block in the lower bits, the number of blocks less one
/// above.
const BLOCK_BITS: u32 = 18;
const BLOCKS_BITS: u32 = 11;

const _: () = assert!(SEGMENT_BYTES_MAX / BLOCK_BYTES as u64 <= 1 << BLOCK_BITS);
const _: () = assert!(BATCH_BYTES_MAX / BLOCK_BYTES <= 1 << BLOCKS_BITS);
const _: () = assert!(BLOCK_BITS + BLOCKS_BITS <= 32);

const fn per_page(entry_bytes: usize) -> usize {
    (PAGE_BYTES - PAGE_HEAD_BYTES) / entry_bytes
}

/// Records of one stream in one batch: consecutive offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The stream.
    pub stream: StreamId,
    /// How many records.
    pub records: u32,
    /// Offset of the first.
    pub first: Offset,
    /// Where the batch begins: blocks of 4096 bytes behind the segment's header.
    pub block: u32,
    /// Its length in blocks.
    pub blocks: u32,
}

impl Posting {
    /// The offset behind its last record.
    pub fn end(&self) -> Offset {
        Offset(self.first.0.saturating_add(u64::from(self.records)))
    }

    fn place(&self) -> Option<u32> {
        let fits = self.block < 1 << BLOCK_BITS
            && self.blocks >= 1
            && self.blocks <= 1 << BLOCKS_BITS
            && self.records >= 1
            && self.first.0.checked_add(u64::from(self.records)).is_some();
        fits.then(|| self.block | (self.blocks - 1) << BLOCK_BITS)
    }
}

/// When a batch was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimePoint {
    /// Nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Where the batch begins, in blocks behind the segment's header.
    pub block: u32,
}

/// Consecutive offsets of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The stream.
    pub stream: StreamId,
    /// How many records.
    pub records: u32,
    /// Offset of the first.
    pub first: Offset,
    /// With one posting: where its batch lies. With more: the number of the first of them.
    pub place: u32,
    /// How many postings: at least one.
    pub postings: u32,
}

impl Extent {
    /// The offset behind its last record.
    pub fn end(&self) -> Offset {
        Offset(self.first.0.saturating_add(u64::from(self.records)))
    }

    fn encode(&self) -> [u8; EXTENT_BYTES] {
        let mut out = [0; EXTENT_BYTES];
        put_u32(&mut out, 0, self.stream.0);
        put_u32(&mut out, 4, self.records);
        put_u64(&mut out, 8, self.first.0);
        put_u32(&mut out, 16, self.place);
        put_u32(&mut out, 20, self.postings);
        out
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            stream: StreamId(get_u32(bytes, 0)),
            records: get_u32(bytes, 4),
            first: Offset(get_u64(bytes, 8)),
            place: get_u32(bytes, 16),
            postings: get_u32(bytes, 20),
        }
    }

    /// Its posting, if it has only one.
    pub fn single(&self) -> Option<Posting> {
        let slot = Slot { place: self.place, first: 0 };
        (self.postings == 1).then(|| slot.posting(self, self.records))
    }
}

/// A posting as stored, among those of its extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    place: u32,
    /// The first offset, counted from that of the extent.
    pub first: u32,
}

impl Slot {
    /// The posting of `extent` that covers what comes before `end`, which is counted from the first
    /// offset of the extent.
    pub fn posting(&self, extent: &Extent, end: u32) -> Posting {
        Posting {
            stream: extent.stream,
            records: end.saturating_sub(self.first),
            first: Offset(extent.first.0.saturating_add(u64::from(self.first))),
            block: self.place & ((1 << BLOCK_BITS) - 1),
            blocks: (self.place >> BLOCK_BITS & ((1 << BLOCKS_BITS) - 1)) + 1,
        }
    }
}

/// What the header of an index says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: u16,
    /// The segment.
    pub segment: SegmentId,
    /// The batches that are covered.
    pub covers: Sealed,
    /// How many streams have records there.
    pub streams: u32,
    /// How many extents there are.
    pub extents: u32,
    /// How many points in time.
    pub points: u32,
    /// How many postings that do not lie in their extent.
    pub postings: u32,
}

/// Which pages hold what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The first page of extents. What is before it is the front: header and fences.
    pub extents: u64,
    /// The first page of points in time.
    pub points: u64,
    /// The first page of postings.
    pub postings: u64,
    /// Pages of the file.
    pub pages: u64,
}

impl IndexHeader {
    /// Reads the first page of the index of one segment.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(
        page: &[u8],
        log: LogId,
        shard: u16,
        segment: SegmentId,
    ) -> Result<Self, Refused> {
        let Some(page) = page.get(..PAGE_BYTES) else {
            return Refused::damaged("an index is cut short");
        };
        if get_u32(page, 0) != MAGIC {
            return Refused::damaged("expected an index, found other bytes");
        }
        let seed = front_seed(log, shard, segment);
        if expected_crc(page, CRC_FIELD, seed) != get_u32(page, CRC_FIELD) {
            return Refused::damaged(
                "the checksum of an index does not fit its content, log, shard or segment",
            );
        }
        check_format(get_u16(page, 8), get_u32(page, 12))?;
        let header = Self {
            log: get_log_id(page, 16),
            shard: get_u16(page, 10),
            segment: SegmentId(get_u64(page, 32)),
            covers: decode_sealed(&page[40..40 + SEALED_BYTES]),
            streams: get_u32(page, 88),
            extents: get_u32(page, 92),
            points: get_u32(page, 96),
            postings: get_u32(page, 100),
        };
        if (header.log, header.shard, header.segment) != (log, shard, segment) {
            return Refused::damaged("an index of another segment");
        }
        Ok(header)
    }

    fn encode(&self, page: &mut [u8]) {
        put_u32(page, 0, MAGIC);
        put_u16(page, 8, VERSION);
        put_u16(page, 10, self.shard);
        page[16..32].copy_from_slice(&self.log.0);
        put_u64(page, 32, self.segment.0);
        encode_sealed(&self.covers, &mut page[40..40 + SEALED_BYTES]);
        put_u32(page, 88, self.streams);
        put_u32(page, 92, self.extents);
        put_u32(page, 96, self.points);
        put_u32(page, 100, self.postings);
    }

    /// Which pages hold what.
    pub fn layout(&self) -> Layout {
        let pages = |count: u32, each: usize| u64::from(count).div_ceil(each as u64);
        let extents = pages(self.extents, EXTENTS_PER_PAGE);
        let points = pages(self.points, POINTS_PER_PAGE);
        let postings = pages(self.postings, POSTINGS_PER_PAGE);
        let fences = extents * EXTENT_FENCE_BYTES as u64
            + points * POINT_FENCE_BYTES as u64
            + postings * POSTING_FENCE_BYTES as u64;
        let behind = fences.saturating_sub((PAGE_BYTES - FENCES_AT) as u64);
        let front = 1 + behind.div_ceil((PAGE_BYTES - PAGE_HEAD_BYTES) as u64);
        Layout {
            extents: front,
            points: front + extents,
            postings: front + extents + points,
            pages: front + extents + points + postings,
        }
    }

    /// Whether these bytes are the page of this number of the index with this header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_page(&self, number: u64, page: &[u8]) -> Result<(), Refused> {
        let fits = page.len() == PAGE_BYTES
            && u64::from(get_u32(page, 0)) == number
            && expected_crc(page, CRC_FIELD, self.page_seed(number)) == get_u32(page, CRC_FIELD);
        if fits || number == 0 || planted(Bug::AcceptDamagedIndexPage) {
            return Ok(()); // the first page was checked when the header was read
        }
        Refused::damaged(format!("the checksum of page {number} of an index does not fit"))
    }

    fn page_seed(&self, number: u64) -> u32 {
        let covers = &self.covers;
        let parts = [
            3,
            u64::from(self.shard),
            self.segment.0,
            covers.end_lsn.0,
            u64::from(covers.chain_end),
            number,
        ];
        seed_of(self.log, &parts) as u32
    }

    /// How many entries of a section with `count` of them lie in its page of this number.
    fn in_page(count: u32, each: usize, page: u64) -> usize {
        let before = page.saturating_mul(each as u64);
        u64::from(count).saturating_sub(before).min(each as u64) as usize
    }

    /// The extents in a page; `at` counts the pages of the section.
    pub fn extents_in<'a>(&self, at: u64, page: &'a [u8]) -> impl Iterator<Item = Extent> + 'a {
        let count = Self::in_page(self.extents, EXTENTS_PER_PAGE, at);
        entries(page, EXTENT_BYTES, count).map(Extent::decode)
    }

    /// The points in time in a page; `at` counts the pages of the section.
    pub fn points_in<'a>(&self, at: u64, page: &'a [u8]) -> impl Iterator<Item = TimePoint> + 'a {
        let count = Self::in_page(self.points, POINTS_PER_PAGE, at);
        entries(page, POINT_BYTES, count)
            .map(|bytes| TimePoint { timestamp_ns: get_u64(bytes, 0), block: get_u32(bytes, 8) })
    }

    /// The postings in a page; `at` counts the pages of the section.
    pub fn slots_in<'a>(&self, at: u64, page: &'a [u8]) -> impl Iterator<Item = Slot> + 'a {
        let count = Self::in_page(self.postings, POSTINGS_PER_PAGE, at);
        entries(page, POSTING_BYTES, count)
            .map(|bytes| Slot { place: get_u32(bytes, 0), first: get_u32(bytes, 4) })
    }
}

fn front_seed(log: LogId, shard: u16, segment: SegmentId) -> u32 {
    seed_of(log, &[3, u64::from(shard), segment.0]) as u32
}

/// The front of a page as entries. Fewer where the page is shorter.
fn entries(page: &[u8], entry_bytes: usize, count: usize) -> impl Iterator<Item = &[u8]> {
    let body = page.get(PAGE_HEAD_BYTES..).unwrap_or(&[]);
    body.chunks_exact(entry_bytes).take(count)
}

/// The first key of each page, by section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fences {
    /// Of the pages of extents: stream and first offset.
    pub extents: Vec<(StreamId, Offset)>,
    /// Of the pages of points in time.
    pub points: Vec<u64>,
    /// Of the pages of postings: the first offset of the first posting, counted from that of its
    /// extent.
    pub postings: Vec<u32>,
}

impl Fences {
    /// Reads them from the front of an index: its first [`Layout::extents`] pages, checked.
    pub fn decode(header: &IndexHeader, front: &[u8]) -> Self {
        let layout = header.layout();
        let pages = front.chunks_exact(PAGE_BYTES).take(layout.extents as usize).enumerate();
        let area: Vec<u8> = pages.fold(Vec::new(), |mut area, (number, page)| {
            area.extend_from_slice(&page[if number == 0 { FENCES_AT } else { PAGE_HEAD_BYTES }..]);
            area
        });
        let extents_end = (layout.points - layout.extents) as usize * EXTENT_FENCE_BYTES;
        let points = (layout.postings - layout.points) as usize * POINT_FENCE_BYTES;
        let postings = (layout.pages - layout.postings) as usize * POSTING_FENCE_BYTES;
        let part = |from: usize, len: usize| area.get(from..from + len).unwrap_or(&[]);
        let extents = part(0, extents_end).chunks_exact(EXTENT_FENCE_BYTES);
        let times = part(extents_end, points).chunks_exact(POINT_FENCE_BYTES);
        let slots = part(extents_end + points, postings).chunks_exact(POSTING_FENCE_BYTES);
        Self {
            extents: extents.map(|b| (StreamId(get_u32(b, 0)), Offset(get_u64(b, 4)))).collect(),
            points: times.map(|bytes| get_u64(bytes, 0)).collect(),
            postings: slots.map(|bytes| get_u32(bytes, 0)).collect(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut area = Vec::new();
        for (stream, first) in &self.extents {
            area.extend_from_slice(&stream.0.to_le_bytes());
            area.extend_from_slice(&first.0.to_le_bytes());
        }
        self.points.iter().for_each(|ns| area.extend_from_slice(&ns.to_le_bytes()));
        self.postings.iter().for_each(|first| area.extend_from_slice(&first.to_le_bytes()));
        area
    }
}

/// The sections of an index, before they are laid out.
#[derive(Default)]
struct Sections {
    extents: Vec<Extent>,
    slots: Vec<Slot>,
    streams: u32,
}

impl Sections {
    /// `postings` in the order of stream and offset.
    fn of(postings: &[Posting]) -> Option<Self> {
        let mut all = Self { extents: Vec::with_capacity(postings.len() / 8), ..Self::default() };
        let mut rest = postings;
        while let Some(first) = rest.first() {
            let count = extent_len(rest);
            let (here, behind) = rest.split_at(count);
            rest = behind;
            let same = all.extents.last().is_some_and(|last| last.stream == first.stream);
            all.streams += u32::from(!same);
            let before = all.slots.len();
            let mut records: u32 = 0;
            for posting in here {
                let place = posting.place()?;
                // Records of one batch that came from several producers are one posting.
                if all.slots.len() == before || all.slots.last()?.place != place {
                    all.slots.push(Slot { place, first: records });
                }
                records += posting.records;
            }
            let postings = u32::try_from(all.slots.len() - before).ok()?;
            let place = match postings {
                1 => all.slots.pop()?.place,
                _ => u32::try_from(before).ok()?,
            };
            let (stream, first) = (first.stream, first.first);
            all.extents.push(Extent { stream, records, first, place, postings });
        }
        Some(all)
    }

    fn fences(&self, times: &[TimePoint]) -> Fences {
        let extents = self.extents.chunks(EXTENTS_PER_PAGE);
        let points = times.chunks(POINTS_PER_PAGE);
        let slots = self.slots.chunks(POSTINGS_PER_PAGE);
        Fences {
            extents: extents.map(|page| (page[0].stream, page[0].first)).collect(),
            points: points.map(|page| page[0].timestamp_ns).collect(),
            postings: slots.map(|page| page[0].first).collect(),
        }
    }
}

/// How many of the first postings make one extent.
fn extent_len(postings: &[Posting]) -> usize {
    let mut records = u64::from(postings[0].records);
    let joined = postings.windows(2).take_while(|pair| {
        records += u64::from(pair[1].records);
        pair[0].stream == pair[1].stream
            && pair[0].end() == pair[1].first
            && records <= u64::from(u32::MAX)
    });
    1 + joined.count()
}

/// The whole file: the index of what `covers` says, from all postings of it, in any order. `None`
/// where they do not fit: a block beyond the largest segment, an offset beyond the largest number.
///
/// Cost: linear where the postings of each stream come in the order of their offsets, as they do
/// in a log.
pub fn encode(
    log: LogId,
    shard: u16,
    segment: SegmentId,
    covers: &Sealed,
    postings: &mut [Posting],
    times: &[TimePoint],
) -> Option<Vec<u8>> {
    sort(postings);
    let sections = Sections::of(postings)?;
    let header = IndexHeader {
        log,
        shard,
        segment,
        covers: *covers,
        streams: sections.streams,
        extents: u32::try_from(sections.extents.len()).ok()?,
        points: u32::try_from(times.len()).ok()?,
        postings: u32::try_from(sections.slots.len()).ok()?,
    };
    let layout = header.layout();
    let mut file = vec![0; usize::try_from(layout.pages).ok()?.checked_mul(PAGE_BYTES)?];
    header.encode(&mut file);
    let area = sections.fences(times).encode();
    let (here, behind) = area.split_at(area.len().min(PAGE_BYTES - FENCES_AT));
    file[FENCES_AT..FENCES_AT + here.len()].copy_from_slice(here);
    let pages = file[PAGE_BYTES..].chunks_exact_mut(PAGE_BYTES);
    for (page, part) in pages.zip(behind.chunks(PAGE_BYTES - PAGE_HEAD_BYTES)) {
        page[PAGE_HEAD_BYTES..PAGE_HEAD_BYTES + part.len()].copy_from_slice(part);
    }
    put_entries(&mut file, layout.extents, &sections.extents, Extent::encode);
    put_entries(&mut file, layout.points, times, |point| {
        let mut out = [0; POINT_BYTES];
        put_u64(&mut out, 0, point.timestamp_ns);
        put_u32(&mut out, 8, point.block);
        out
    });
    put_entries(&mut file, layout.postings, &sections.slots, |slot| {
        let mut out = [0; POSTING_BYTES];
        put_u32(&mut out, 0, slot.place);
        put_u32(&mut out, 4, slot.first);
        out
    });
    for (number, page) in file.chunks_exact_mut(PAGE_BYTES).enumerate().skip(1) {
        put_u32(page, 0, number as u32);
        seal_crc(page, CRC_FIELD, header.page_seed(number as u64));
    }
    seal_crc(&mut file[..PAGE_BYTES], CRC_FIELD, front_seed(log, shard, segment));
    Some(file)
}

/// Sorts by stream and offset.
fn sort(postings: &mut [Posting]) {
    let key = |posting: &Posting| (posting.stream.0, posting.first.0);
    if postings.is_sorted_by_key(key) {
        return;
    }
    if postings.iter().all(|posting| posting.stream.0 < STREAMS_MAX) {
        // In the order of the log they are sorted by offset already.
        let mut scratch = postings.to_vec();
        scatter(postings, &mut scratch, |posting| posting.stream.0 % DIGIT);
        scatter(&scratch, postings, |posting| posting.stream.0 / DIGIT);
        if postings.is_sorted_by_key(key) {
            return;
        }
    }
    postings.sort_by_key(key);
}

/// A number of a stream has two digits of this base.
const DIGIT: u32 = 1 << 12;
const _: () = assert!(STREAMS_MAX as u64 <= DIGIT as u64 * DIGIT as u64);

/// Puts the postings in the order of one digit; those with the same keep their order.
fn scatter(from: &[Posting], to: &mut [Posting], digit: impl Fn(&Posting) -> u32) {
    let mut starts = vec![0_usize; DIGIT as usize + 1];
    from.iter().for_each(|posting| starts[digit(posting) as usize + 1] += 1);
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    for posting in from {
        let start = &mut starts[digit(posting) as usize];
        to[*start] = *posting;
        *start += 1;
    }
}

fn put_entries<T, const BYTES: usize>(
    file: &mut [u8],
    first_page: u64,
    all: &[T],
    encode: impl Fn(&T) -> [u8; BYTES],
) {
    let pages = file.chunks_exact_mut(PAGE_BYTES).skip(first_page as usize);
    for (page, part) in pages.zip(all.chunks(per_page(BYTES))) {
        let slots = page[PAGE_HEAD_BYTES..].chunks_exact_mut(BYTES);
        for (slot, entry) in slots.zip(part) {
            slot.copy_from_slice(&encode(entry));
        }
    }
}

/// The whole content of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its header.
    pub header: IndexHeader,
    /// All postings, in the order of the log; those of one batch in the order of their streams.
    pub postings: Vec<Posting>,
    /// All points in time, in order.
    pub times: Vec<TimePoint>,
}

/// Reads a whole file.
///
/// # Errors
/// What is wrong with it: whatever [`encode`] would not have written is refused.
pub fn decode(file: &[u8], log: LogId, shard: u16, segment: SegmentId) -> Result<Content, Refused> {
    let header = IndexHeader::decode(file, log, shard, segment)?;
    let layout = header.layout();
    let bytes = layout.pages.saturating_mul(PAGE_BYTES as u64);
    if file.len() as u64 != bytes && !planted(Bug::TrustIndexLength) {
        return Refused::damaged(format!(
            "an index of {} bytes where {} pages belong",
            file.len(),
            layout.pages
        ));
    }
    let pages: Vec<&[u8]> = file.chunks_exact(PAGE_BYTES).collect();
    for (number, page) in pages.iter().enumerate() {
        header.check_page(number as u64, page)?;
    }
    let section = |from: u64, to: u64| (0..).zip(&pages[from as usize..to as usize]);
    let slots: Vec<Slot> = section(layout.postings, layout.pages)
        .flat_map(|(at, page)| header.slots_in(at, page))
        .collect();
    let times: Vec<TimePoint> = section(layout.points, layout.postings)
        .flat_map(|(at, page)| header.points_in(at, page))
        .collect();
    let mut postings = Vec::with_capacity(slots.len() + header.extents as usize);
    for (at, page) in section(layout.extents, layout.points) {
        for extent in header.extents_in(at, page) {
            if let Some(posting) = extent.single() {
                postings.push(posting);
                continue;
            }
            let from = extent.place as usize;
            let own = from.checked_add(extent.postings as usize).and_then(|to| slots.get(from..to));
            let Some(own) = own else {
                return Refused::damaged("an extent of an index with postings that are not there");
            };
            let ends = own.iter().skip(1).map(|slot| slot.first).chain([extent.records]);
            postings.extend(own.iter().zip(ends).map(|(slot, end)| slot.posting(&extent, end)));
        }
    }
    // What a header says of itself holds only if the same content would be written the same way.
    let again = encode(log, shard, segment, &header.covers, &mut postings, &times);
    if again.as_deref() != Some(file) {
        return Refused::damaged("an index that contradicts itself");
    }
    postings.sort_by_key(|posting| (posting.block, posting.stream.0, posting.first.0));
    Ok(Content { header, postings, times })
}
