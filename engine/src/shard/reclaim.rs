//! Giving back the room of what was trimmed stream by stream: the oldest sealed segments go once
//! every record in them lies below the trim point of its stream.
//!
//! Which streams a sealed segment holds is told by its index, which is read a segment at a time and
//! only when a trim may have changed the answer. An index is no evidence about the log, so it is
//! believed here only where all of it that counts validates, names the very end of its segment, and
//! speaks of as many records as the manifest does; else the segment stays. What lies in stream 0,
//! creations and trims, is in the catalogue when its segment is sealed, and holds nothing back.

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{Done, Op};

use super::{Shard, Time};
use crate::format::Refused;
use crate::format::index::IndexHeader;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::Sealed;
use crate::ids::{Lsn, Offset, SegmentId, StreamId};
use crate::limits::BLOCK_BYTES;
use crate::names;

/// The largest index that is read for this.
const INDEX_BYTES_MAX: u64 = 64 << 20;
/// How long after a look at the oldest segment was in vain the next one comes, at least.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

/// What keeps the oldest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocked {
    /// It holds records of a stream up to this offset.
    By(StreamId, Offset),
    /// Its index cannot be used.
    Unknown,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Reclaimer {
    /// Something has changed since the last look.
    changed: bool,
    not_before_ns: u64,
    blocked: Option<(SegmentId, Blocked)>,
}

/// A look at the oldest sealed segments, one after the other.
pub(super) struct Look {
    /// The next one.
    at: Option<(SegmentId, Sealed)>,
    /// Those before it, which can go.
    pub(super) gone: Vec<SegmentId>,
}

impl Reclaimer {
    pub(super) fn new() -> Self {
        Self { changed: true, ..Self::default() }
    }

    /// A stream was trimmed, or a segment sealed.
    pub(super) fn note(&mut self) {
        self.changed = true;
    }
}

fn next_sealed(manifest: &Manifest, after: Option<SegmentId>) -> Option<(SegmentId, Sealed)> {
    let behind = |segment: SegmentId| after.is_none_or(|after| segment > after);
    manifest.segments.iter().find_map(|entry| match entry.state {
        SegmentState::Sealed { sealed, .. } if behind(entry.segment) => {
            Some((entry.segment, sealed))
        }
        _ => None,
    })
}

impl Shard {
    /// Whether a look may find something; trims count once they are durable.
    fn may_reclaim(&self) -> bool {
        self.reclaimer.changed && self.trims_are_durable() && self.streams.trims().next().is_some()
    }

    fn trims_are_durable(&self) -> bool {
        let durable = |lsn: &Lsn| *lsn < self.durable || planted(Bug::ReclaimBeforeDurable);
        self.trims.iter().all(|(lsn, ..)| durable(lsn))
    }

    /// When [`Shard::look_for_trimmed`] has something to do.
    pub(super) fn reclaim_deadline(&self) -> Option<u64> {
        let may = self.may_reclaim() && self.rotation.may_begin_job();
        may.then_some(self.reclaimer.not_before_ns)
    }

    /// The look that is due, if any.
    pub(super) fn look_for_trimmed(&mut self, now: Time) -> Option<Look> {
        if now.mono_ns < self.reclaimer.not_before_ns {
            return None;
        }
        self.look_at_once()
    }

    /// A look that may find something, however soon after the last one.
    pub(super) fn look_at_once(&mut self) -> Option<Look> {
        if !self.may_reclaim() {
            return None;
        }
        self.reclaimer.changed = false;
        let at = next_sealed(&self.rotation.manifest, None)?;
        match self.reclaimer.blocked {
            Some((segment, Blocked::Unknown)) if segment == at.0 => return None,
            Some((segment, Blocked::By(stream, end)))
                if segment == at.0 && self.streams.trimmed_before(stream) < end =>
            {
                return None;
            }
            _ => {}
        }
        Some(Look { at: Some(at), gone: Vec::new() })
    }

    /// What is to be read next for a look; `None` at its end.
    pub(super) fn look_op(&self, look: &Look) -> Option<Op> {
        let (segment, _) = look.at?;
        Some(Op::Load { name: names::index(segment), limit_bytes: INDEX_BYTES_MAX })
    }

    /// What was read for a look.
    pub(super) fn looked(&mut self, look: &mut Look, done: Option<&Done>, now: Time) {
        let Some((segment, sealed)) = look.at.take() else { return };
        if !self.trims_are_durable() {
            // One was placed meanwhile: a crash could take it back, but not the segment.
            self.reclaimer.changed = true;
            return;
        }
        let blocked = match done {
            Some(Done::Loaded(index)) => match self.holds_back(segment, &sealed, index) {
                Ok(None) => {
                    look.gone.push(segment);
                    look.at = next_sealed(&self.rotation.manifest, Some(segment));
                    return;
                }
                Ok(Some((stream, end))) => Blocked::By(stream, end),
                Err(_) => Blocked::Unknown,
            },
            _ => Blocked::Unknown,
        };
        self.reclaimer.blocked = Some((segment, blocked));
        self.reclaimer.not_before_ns = now.mono_ns + LOOK_AGAIN_NS;
    }

    /// A stream with records that are not trimmed, and where those end.
    fn holds_back(
        &self,
        segment: SegmentId,
        sealed: &Sealed,
        index: &[u8],
    ) -> Result<Option<(StreamId, Offset)>, Refused> {
        let header = IndexHeader::decode(index, self.config.log, self.config.shard, segment)?;
        if header.covers != *sealed {
            return Refused::damaged("an index of another state of its segment");
        }
        let layout = header.layout();
        let (mut records, mut extents) = (0_u64, 0_u32);
        let mut holds_back = None;
        for at in layout.extents..layout.points {
            let start = at.saturating_mul(BLOCK_BYTES as u64);
            let page = usize::try_from(start).ok().and_then(|start| index.get(start..));
            let Some(page) = page.and_then(|rest| rest.get(..BLOCK_BYTES)) else {
                return Refused::damaged("an index that is cut short");
            };
            header.check_page(at, page)?;
            for extent in header.extents_in(at - layout.extents, page) {
                records += u64::from(extent.records);
                extents += 1;
                let trimmed = self.streams.trimmed_before(extent.stream);
                let trimmed = Offset(trimmed.0 + u64::from(planted(Bug::ReclaimOneTooEarly)));
                if extent.stream != StreamId::CATALOGUE && extent.end() > trimmed {
                    holds_back = Some((extent.stream, extent.end()));
                }
            }
        }
        if records != sealed.records || extents != header.extents {
            return Refused::damaged("an index that does not speak of all records");
        }
        Ok(holds_back)
    }
}
