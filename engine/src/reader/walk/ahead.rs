//! The segment behind the one at hand. What of it is wanted is looked up, and its first pieces are
//! read, while the walk still works on the last ones of this segment: else the disk would rest from
//! there on until the next segment is open.
//!
//! Nothing is decided here. Whether this is the segment that comes next, and under what conditions it
//! is entered, is found out when the walk is there, as if nothing had been read; and what cannot be
//! looked up or opened now is left to then, to be told by name.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::{Done, FileId, Op};

use super::Walk;
use super::enter::Wanted;
use crate::format::segment::SEGMENT_HEADER_BYTES;
use crate::ids::{Lsn, Offset};
use crate::index::Posting;
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::options::Visibility;
use crate::reader::kit::SEGMENT_FILES;
use crate::recovery::ask;
use crate::shard::SegmentRef;

/// A segment that is open and being read, but not entered.
pub(super) struct Ahead {
    segment: Arc<SegmentRef>,
    file: FileId,
    file_bytes: u64,
    postings: VecDeque<Posting>,
    covered: Lsn,
}

impl Walk {
    /// Once all of the segment at hand was read, begins with the next one, if that holds records of
    /// the stream below `end` and is sealed.
    pub(super) fn look_ahead(&mut self, end: Option<Offset>) {
        let (Some(open), Some(kit)) = (&mut self.open, &mut self.kit) else { return };
        let disk = kit.disk.as_mut();
        let Some(base) = open.end.filter(|base| *base < self.bound) else { return };
        if open.looked_ahead || open.hops || !open.window.is_read(disk) {
            return;
        }
        let written = self.reads.published.mark(Visibility::Written);
        let Some((segment, Some(behind))) = self.reads.published.segment_at(base) else { return };
        open.looked_ahead = true;
        if segment.base_lsn != base || behind > written {
            return;
        }
        let file = if open.file == SEGMENT_FILES[0] { SEGMENT_FILES[1] } else { SEGMENT_FILES[0] };
        let covered = behind.min(self.bound);
        let Some(Wanted { postings, hops: false }) = self.wanted(&segment, covered) else { return };
        let Some(first) = postings.first().filter(|one| end.is_none_or(|end| one.first < end))
        else {
            return;
        };
        let from = SEGMENT_HEADER_BYTES + u64::from(first.block) * BLOCK_BYTES as u64;
        let (Some(open), Some(kit)) = (&mut self.open, &mut self.kit) else { return };
        let disk = kit.disk.as_mut();
        let name = names::segment(segment.segment);
        let Ok(Done::Opened { bytes }) = ask(disk, Op::Open { file, name, write: false }) else {
            return;
        };
        let there = bytes.min(SEGMENT_HEADER_BYTES + (behind.0 - base.0));
        open.window.follow(disk, (file, there), from);
        let postings = VecDeque::from(postings);
        open.ahead = Some(Ahead { segment, file, file_bytes: bytes, postings, covered });
    }

    /// Enters this segment where it is the one that was read ahead; `false`: nothing was done.
    pub(super) fn turn_to(&mut self, segment: &Arc<SegmentRef>, end: Option<Lsn>) -> bool {
        let (Some(open), Some(kit)) = (&mut self.open, &mut self.kit) else { return false };
        let here = self.at == segment.base_lsn;
        let same = |ahead: &Ahead| here && Arc::ptr_eq(&ahead.segment, segment);
        if !open.ahead.as_ref().is_some_and(same) {
            return false;
        }
        let Some(ahead) = open.ahead.take() else { return false };
        open.window.turn(kit.disk.as_mut());
        (open.segment, open.end) = (ahead.segment, end);
        (open.file, open.file_bytes) = (ahead.file, ahead.file_bytes);
        (open.postings, open.covered) = (Some(ahead.postings), ahead.covered);
        (open.hops, open.looked_ahead) = (false, false);
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::error::ReadError;
    use crate::ids::Offset;
    use crate::options::{Format, Options};
    use crate::reader::kit::SEGMENT_FILES;
    use crate::reader::walk::Open;
    use crate::reader::{Reader, Way};
    use crate::{Log, Stream};

    const EACH: u64 = 40;
    const SEALED: u64 = 5;

    /// Sealed segments of so many records each, and one record in the last segment.
    fn filled() -> (Log, Stream) {
        let format = Format { segment_bytes: Some(1 << 20), shards: None };
        let options = Options { format, memory_bytes: 4 << 20, ..Options::default() };
        let (log, _device) = Log::in_memory(options).unwrap();
        let stream = log.stream("s").unwrap();
        for offset in 0..=SEALED * EACH {
            stream.append(&payload(offset)).unwrap().wait().unwrap();
            if offset % EACH == EACH - 1 {
                log.rotate().unwrap();
            }
        }
        (log, stream)
    }

    fn payload(offset: u64) -> Vec<u8> {
        let mut payload = vec![offset as u8; 20_000];
        payload[..8].copy_from_slice(&offset.to_le_bytes());
        payload
    }

    fn open(reader: &Reader) -> &Open {
        let Way::Forward(walk) = &reader.way else { panic!("it goes forward") };
        walk.open.as_ref().unwrap()
    }

    fn take(reader: &mut Reader, offsets: std::ops::Range<u64>) {
        for offset in offsets {
            let record = reader.next_ref().unwrap().unwrap();
            assert_eq!((record.offset(), record.payload()), (Offset(offset), &payload(offset)[..]));
        }
    }

    #[test]
    fn the_next_sealed_segment_is_read_before_this_one_ends_and_entered_as_it_is() {
        let (_log, stream) = filled();
        let mut reader = stream.read(..).unwrap();
        for segment in 0..SEALED {
            take(&mut reader, segment * EACH..(segment + 1) * EACH - 1);
            let open = open(&reader);
            assert_eq!(open.file, SEGMENT_FILES[segment as usize % 2]);
            let last = segment == SEALED - 1;
            // The last segment of the log still grows.
            assert_eq!(open.ahead.is_some(), !last, "{segment}");
            take(&mut reader, (segment + 1) * EACH - 1..(segment + 1) * EACH);
        }
        take(&mut reader, SEALED * EACH..SEALED * EACH + 1);
        assert!(reader.next_ref().is_none());
    }

    #[test]
    fn nothing_is_read_behind_what_is_wanted() {
        let (_log, stream) = filled();
        let mut reader = stream.read(..Offset(EACH)).unwrap();
        take(&mut reader, 0..EACH);
        assert!(open(&reader).looked_ahead && open(&reader).ahead.is_none());
        let mut reader = stream.read(..=Offset(EACH)).unwrap();
        take(&mut reader, 0..EACH);
        assert!(open(&reader).ahead.is_some());
        take(&mut reader, EACH..EACH + 1);
        assert!(reader.next_ref().is_none());
    }

    /// What was read before a trim is not given after it.
    #[test]
    fn a_segment_that_was_trimmed_after_it_was_read_is_not_entered() {
        let (log, stream) = filled();
        let mut reader = stream.read(..).unwrap();
        take(&mut reader, 0..EACH - 1);
        assert!(open(&reader).ahead.is_some());
        log.trim(1).unwrap();
        take(&mut reader, EACH - 1..EACH);
        let first = Offset((SEALED - 1) * EACH);
        let told = reader.next_ref().unwrap().unwrap_err();
        assert_eq!(told, ReadError::Trimmed { first });
        take(&mut reader, first.0..SEALED * EACH + 1);
        assert!(reader.next_ref().is_none());
    }

    /// Leaving in the middle closes both files: the disk serves the next reader.
    #[test]
    fn who_stops_early_leaves_nothing_open() {
        let (_log, stream) = filled();
        for _ in 0..3 {
            let mut reader = stream.read(..).unwrap();
            take(&mut reader, 0..EACH + EACH - 1);
            assert!(open(&reader).ahead.is_some());
        }
        let mut reader = stream.read(..).unwrap();
        take(&mut reader, 0..SEALED * EACH + 1);
    }
}
