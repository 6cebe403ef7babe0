//! Entering a segment, and leaving it: what of it is to be read, whether it is the one it should
//! be, and whether another process has trimmed it.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{DiskErrorKind, Done, Op};

use super::{Gone, Jump, Open, Walk};
use crate::error::{OpenError, ReadError};
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::{Lsn, Offset, SegmentId};
use crate::index::Posting;
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::reader::kit::SEGMENT_FILES;
use crate::recovery::{ask, load, load_manifest};
use crate::shard::SegmentRef;
use crate::window::Window;

/// One read at a place of its own costs about as much as reading on over this many bytes.
const SEEK_BYTES: u64 = 256 << 10;

/// What of a segment is to be read.
pub(super) struct Wanted {
    pub(super) postings: Vec<Posting>,
    /// They are so few that each is read by itself.
    pub(super) hops: bool,
}

impl Walk {
    pub(super) fn open_segment(&mut self) -> Result<(), ReadError> {
        let found = self.reads.published.segment_at(self.at);
        let turned = found.as_ref().is_some_and(|(segment, end)| self.turn_to(segment, *end));
        if !turned {
            self.close();
        }
        let Some((segment, end)) = found else {
            // All of it was trimmed under the reader; what comes does not continue what it has read.
            self.at = self.bound;
            self.chain = None;
            self.note_gone();
            if self.jump == Jump::None {
                self.jump = Jump::Start;
            }
            return Ok(());
        };
        if segment.base_lsn > self.at {
            // The head of the log was trimmed under the reader.
            self.note_gone();
            if self.jump == Jump::None {
                self.jump = Jump::Start;
            }
        }
        if self.reads.others_may_trim && segment.base_lsn <= self.at {
            // A writer that started anew has written what was not proven a second time, under
            // headers of its own.
            self.chain = None;
        }
        if segment.base_lsn > self.at || self.chain.is_none() {
            self.at = self.at.max(segment.base_lsn);
            self.chain = (self.at == segment.base_lsn).then_some(segment.chain_before);
        }
        if turned {
            return Ok(());
        }
        let covered = end.unwrap_or(self.bound).min(self.bound);
        let wanted = self.wanted(&segment, covered);
        if wanted.as_ref().is_some_and(|wanted| wanted.postings.is_empty()) {
            (self.at, self.chain) = (covered, None);
            return Ok(());
        }
        let hops = wanted.as_ref().is_some_and(|wanted| wanted.hops);
        let Some(kit) = &mut self.kit else { return Ok(()) };
        let file = SEGMENT_FILES[0];
        let name = names::segment(segment.segment);
        let opened = ask(kit.disk.as_mut(), Op::Open { file, name, write: false });
        match opened {
            Ok(Done::Opened { bytes }) => {
                let header = SEGMENT_HEADER_BYTES.min(bytes);
                let window = Window::new(kit.pool.clone(), file, header);
                let checks_header = wanted.is_none();
                let postings = wanted.map(|wanted| VecDeque::from(wanted.postings));
                self.open = Some(Open {
                    segment,
                    end,
                    file,
                    file_bytes: bytes,
                    window,
                    postings,
                    covered,
                    hops,
                    ahead: None,
                    looked_ahead: false,
                });
                if checks_header { self.check_segment_header() } else { Ok(()) }
            }
            Ok(_) => Ok(()),
            Err(error)
                if matches!(error.kind, DiskErrorKind::NotFound | DiskErrorKind::Unexpected) =>
            {
                if self.is_gone(segment.segment)? {
                    return Ok(());
                }
                let name = names::segment(segment.segment);
                let what = match error.kind {
                    DiskErrorKind::NotFound => "a listed segment is missing",
                    _ => "a listed segment is no regular file",
                };
                let (id, file) = (Some(segment.segment), name.as_str());
                let identity = &self.reads.identity;
                self.damage = Some(identity.corruption(id, file, 0, Some(self.at), what));
                self.jump = Jump::Damage;
                self.chain = None;
                self.at = end.unwrap_or(self.bound);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where the stream lies in a segment, up to `covered`; `None` where that is not known.
    pub(super) fn wanted(&mut self, segment: &SegmentRef, covered: Lsn) -> Option<Wanted> {
        let kit = self.kit.as_mut()?;
        let mut postings = self.reads.postings(kit, segment, self.stream, covered)?;
        let base = segment.base_lsn.0;
        postings.retain(|posting| {
            let end = u64::from(posting.block) + u64::from(posting.blocks);
            posting.end() > self.next && base + end * BLOCK_BYTES as u64 <= covered.0
        });
        let (mut reads, mut span) = (0_u64, (u64::MAX, 0));
        for posting in &postings {
            let end = u64::from(posting.block) + u64::from(posting.blocks);
            reads += SEEK_BYTES + u64::from(posting.blocks) * BLOCK_BYTES as u64;
            span = (span.0.min(u64::from(posting.block)), span.1.max(end));
        }
        let whole = span.1.saturating_sub(span.0) * BLOCK_BYTES as u64;
        Some(Wanted { hops: reads <= whole + SEEK_BYTES, postings })
    }

    /// A segment that is another one than it should be is damage; what validates in it is read
    /// all the same.
    fn check_segment_header(&mut self) -> Result<(), ReadError> {
        let (Some(open), Some(kit)) = (&mut self.open, &mut self.kit) else { return Ok(()) };
        let segment = open.segment.segment;
        let identity = &self.reads.identity;
        let block = open.window.get(kit.disk.as_mut(), 0, BLOCK_BYTES)?;
        let what = match SegmentHeader::decode(block) {
            Ok(header)
                if header.log == identity.log
                    && header.shard == identity.shard
                    && header.segment == segment =>
            {
                return Ok(());
            }
            Ok(header) => {
                format!("segment {} of log {} lies here", header.segment, header.log)
            }
            Err(refused) => refused.to_string(),
        };
        if !self.is_gone(segment)? {
            let name = names::segment(segment);
            let (id, file) = (Some(segment), name.as_str());
            let identity = &self.reads.identity;
            self.damage = Some(identity.corruption(id, file, 0, Some(self.at), what));
            self.jump = Jump::Damage;
        }
        Ok(())
    }

    /// Whether a segment that does not read as it should was trimmed since this walk was made. Then it
    /// goes on where the log begins now.
    pub(super) fn is_gone(&mut self, segment: SegmentId) -> Result<bool, ReadError> {
        if !self.reads.others_may_trim {
            let list = self.reads.published.segments();
            let gone = list.iter().all(|one| one.segment != segment);
            if gone {
                // Where it ended nobody knows any more: with it all that lies before the log's
                // beginning is gone.
                let first = list.first().map_or(self.bound, |first| first.base_lsn);
                self.go_on_at(first);
            }
            return Ok(gone);
        }
        let Some(kit) = &mut self.kit else { return Ok(false) };
        if let Some(open) = &mut self.open {
            open.window.settle(kit.disk.as_mut());
        }
        let manifest = match load_manifest(kit.disk.as_mut(), &self.reads.identity) {
            Ok(manifest) => manifest,
            Err(OpenError::Disk(error)) => return Err(error.into()),
            Err(_) => return Ok(false), // no better witness than what was found
        };
        if manifest.segments.iter().any(|entry| entry.segment == segment) {
            return Ok(false);
        }
        self.go_on_at(manifest.trimmed_lsn);
        self.head_went = true;
        self.any_start = false;
        Ok(true)
    }

    /// The log begins here now: what was between is trimmed.
    fn go_on_at(&mut self, first: Lsn) {
        self.close();
        self.at = self.at.max(first);
        self.chain = None;
        self.jump = Jump::Start;
        self.note_gone();
    }

    fn note_gone(&mut self) {
        if matches!(self.gone, Gone::Nothing) && !planted(Bug::EndAtTrimmedRest) {
            self.gone = Gone::Something;
        }
    }

    /// What the stream's next offset was when the newest sealed segment was sealed: nothing of it
    /// that was trimmed lies behind.
    pub(super) fn catalogued_next(&mut self) -> Result<Offset, ReadError> {
        let Some(kit) = &mut self.kit else { return Ok(self.next) };
        if let Some(open) = &mut self.open {
            open.window.settle(kit.disk.as_mut());
        }
        match load(kit.disk.as_mut(), &self.reads.identity) {
            Ok((_, streams)) => Ok(streams.next(self.stream)),
            Err(OpenError::Corrupt(corruption)) => {
                Err(ReadError::Corrupt { corruption, resumes_at: None })
            }
            Err(OpenError::Disk(error)) => Err(error.into()),
            Err(_) => Ok(self.next),
        }
    }

    /// For going backwards: opens a segment, to read batches at any place in it.
    pub(in crate::reader) fn enter(
        &mut self,
        segment: &Arc<SegmentRef>,
    ) -> Result<bool, ReadError> {
        self.close();
        self.batch.frames.clear();
        let Some(kit) = &mut self.kit else { return Ok(false) };
        let name = names::segment(segment.segment);
        let file = SEGMENT_FILES[0];
        match ask(kit.disk.as_mut(), Op::Open { file, name, write: false }) {
            Ok(Done::Opened { bytes }) => {
                let window = Window::new(kit.pool.clone(), file, bytes);
                let (segment, covered) = (Arc::clone(segment), segment.base_lsn);
                self.open = Some(Open {
                    segment,
                    end: None,
                    file,
                    file_bytes: bytes,
                    window,
                    postings: None,
                    covered,
                    hops: true,
                    ahead: None,
                    looked_ahead: true,
                });
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error)
                if matches!(error.kind, DiskErrorKind::NotFound | DiskErrorKind::Unexpected) =>
            {
                if !self.reads.others_may_trim {
                    let file = names::segment(segment.segment);
                    let (id, file) = (Some(segment.segment), file.as_str());
                    let what = "a listed segment is missing, or no regular file";
                    self.damage = Some(self.reads.identity.corruption(id, file, 0, None, what));
                }
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(in crate::reader) fn close(&mut self) {
        if let (Some(mut open), Some(kit)) = (self.open.take(), &mut self.kit) {
            open.window.drop_all(kit.disk.as_mut());
            for file in [Some(open.file), open.window.following()].into_iter().flatten() {
                let _ = ask(kit.disk.as_mut(), Op::Close { file }); // only read from
            }
        }
    }
}
