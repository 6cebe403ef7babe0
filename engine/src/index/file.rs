//! The stored index of one segment: its front in memory, its other pages read when they are wanted.
//!
//! What is read is checked before it is used; whatever does not fit is a [`Fault`], for which the
//! caller makes the index anew. Knows nothing of caches and of other segments.

use ringlog_disk::{BlockPool, Disk, DiskError, DiskErrorKind, Done, FileId, Op, run};

use crate::format::index::{Fences, IndexHeader, Layout, PAGE_BYTES};
use crate::format::segment::Sealed;
use crate::ids::SegmentId;
use crate::names;
use crate::recovery::{Identity, ask};

const PAGE: u64 = PAGE_BYTES as u64;

/// Why an index cannot be used, in words.
#[derive(Debug)]
pub(super) struct Fault(pub(super) String);

impl From<DiskError> for Fault {
    /// An index that cannot be read is as good as a missing one.
    fn from(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::NotFound => Self("it is missing".to_owned()),
            _ => Self(error.to_string()),
        }
    }
}

/// An index whose front is in memory, and perhaps all of it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) header: IndexHeader,
    pub(super) layout: Layout,
    pub(super) fences: Fences,
    /// The first pages, checked.
    resident: Vec<u8>,
    /// Batches of the segment do not validate: what they held is not known.
    pub(super) has_holes: bool,
}

impl Loaded {
    /// A whole index.
    pub(super) fn whole(file: Vec<u8>, identity: &Identity, id: SegmentId) -> Result<Self, Fault> {
        let header = header(&file, identity, id)?;
        Self::new(header, file)
    }

    fn new(header: IndexHeader, resident: Vec<u8>) -> Result<Self, Fault> {
        for (number, page) in (0..).zip(resident.chunks(PAGE_BYTES)) {
            header.check_page(number, page).map_err(|refused| Fault(refused.to_string()))?;
        }
        let (layout, fences) = (header.layout(), Fences::decode(&header, &resident));
        Ok(Self { header, layout, fences, resident, has_holes: false })
    }

    /// A page, if it is in memory.
    pub(super) fn resident(&self, number: u64) -> Option<&[u8]> {
        let at = usize::try_from(number).ok()?.checked_mul(PAGE_BYTES)?;
        self.resident.get(at..at + PAGE_BYTES)
    }

    /// Memory in use, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let fences = &self.fences;
        self.resident.len()
            + fences.extents.len() * 16
            + fences.points.len() * 8
            + fences.postings.len() * 4
            + size_of::<Self>()
    }
}

fn header(page: &[u8], identity: &Identity, id: SegmentId) -> Result<IndexHeader, Fault> {
    IndexHeader::decode(page, identity.log, identity.shard, id)
        .map_err(|refused| Fault(refused.to_string()))
}

/// An index file, open for reading.
pub(super) struct IndexFile<'a> {
    disk: &'a mut dyn Disk,
    file: FileId,
    bytes: u64,
}

impl<'a> IndexFile<'a> {
    pub(super) fn open(
        disk: &'a mut dyn Disk,
        file: FileId,
        id: SegmentId,
    ) -> Result<Self, DiskError> {
        let open = Op::Open { file, name: names::index(id), write: false };
        match ask(disk, open)? {
            Done::Opened { bytes } => Ok(Self { disk, file, bytes }),
            _ => Ok(Self { disk, file, bytes: 0 }),
        }
    }

    /// The front of the index, and as much as lies in the first `first_bytes`, which is a multiple
    /// of a page. `None`: it is of this segment, but seems to cover only the first of its batches.
    pub(super) fn load(
        &mut self,
        identity: &Identity,
        id: SegmentId,
        sealed: &Sealed,
        first_bytes: usize,
    ) -> Result<Option<Loaded>, Fault> {
        let mut resident = self.read(0, self.bytes.min(first_bytes as u64) as usize)?;
        let header = header(&resident, identity, id)?;
        let (covers, layout) = (&header.covers, header.layout());
        if covers != sealed {
            let begins = covers.base_lsn == sealed.base_lsn
                && covers.chain_before == sealed.chain_before
                && covers.end_lsn > sealed.base_lsn;
            if begins && covers.end_lsn < sealed.end_lsn {
                return Ok(None);
            }
            return Err(Fault(format!(
                "it covers LSN {} to {} (chain {:08x}), the segment holds {} to {} (chain {:08x})",
                covers.base_lsn,
                covers.end_lsn,
                covers.chain_end,
                sealed.base_lsn,
                sealed.end_lsn,
                sealed.chain_end
            )));
        }
        if layout.pages.checked_mul(PAGE) != Some(self.bytes) {
            let what = format!("{} bytes where {} pages belong", self.bytes, layout.pages);
            return Err(Fault(what));
        }
        let front = layout.extents * PAGE;
        while (resident.len() as u64) < front {
            let at = resident.len() as u64;
            resident.extend(self.read(at, (front - at).min(first_bytes as u64) as usize)?);
        }
        Loaded::new(header, resident).map(Some)
    }

    /// All of it.
    pub(super) fn read_all(&mut self, piece_bytes: usize) -> Result<Vec<u8>, Fault> {
        let mut all = Vec::new();
        while (all.len() as u64) < self.bytes {
            let left = self.bytes - all.len() as u64;
            all.extend(self.read(all.len() as u64, left.min(piece_bytes as u64) as usize)?);
        }
        Ok(all)
    }

    /// Some pages one behind the other, checked.
    pub(super) fn pages(
        &mut self,
        header: &IndexHeader,
        number: u64,
        count: usize,
    ) -> Result<Vec<u8>, Fault> {
        let pages = self.read(number.saturating_mul(PAGE), count.saturating_mul(PAGE_BYTES))?;
        for (number, page) in (number..).zip(pages.chunks(PAGE_BYTES)) {
            header.check_page(number, page).map_err(|refused| Fault(refused.to_string()))?;
        }
        Ok(pages)
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Fault> {
        let whole = len.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        let pool = BlockPool::new(1, whole)?;
        let Some(block) = pool.take() else {
            return Err(DiskError::new(DiskErrorKind::Limit, "take a block").into());
        };
        let done = run(self.disk, Op::Read { file: self.file, offset, block, len: whole });
        let read = match done.result? {
            Done::Read(read) => read.min(len),
            _ => 0,
        };
        if read < len {
            return Err(Fault("it is cut short".to_owned()));
        }
        Ok(done.slices.first().map_or_else(Vec::new, |slice| slice.block[..read].to_vec()))
    }
}

impl Drop for IndexFile<'_> {
    fn drop(&mut self) {
        let _ = ask(self.disk, Op::Close { file: self.file }); // only read from
    }
}
