//! From the index file of a segment that is gone on in back to its postings.

use ringlog_disk::planted::{Bug, planted};

use super::Postings;
use crate::format::index as format;
use crate::format::segment::Sealed;
use crate::ids::{LogId, SegmentId};
use crate::limits::BLOCK_BYTES;

/// The largest index of a segment of this size: even records without bytes need twice as much in
/// the segment as in its index, and there is a page or two for each section.
pub(crate) const fn file_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_add(64 << 10)
}

/// The postings of all batches that `covers` tells of, if the file is their index, and whole.
///
/// Cost: that of making the index once more, since it is compared with itself.
pub(crate) fn restore(
    file: &[u8],
    log: LogId,
    shard: u16,
    segment: SegmentId,
    covers: &Sealed,
) -> Option<Postings> {
    let format::Content { header, postings, times } =
        format::decode(file, log, shard, segment).ok()?;
    if header.covers != *covers && !planted(Bug::BelieveStaleIndex) {
        return None;
    }
    let end_block = (covers.end_lsn.0 - covers.base_lsn.0) / BLOCK_BYTES as u64;
    Some(Postings::restored(&postings, times, u32::try_from(end_block).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Lsn, Offset, StreamId};

    #[test]
    fn what_was_stored_comes_back_in_the_order_of_the_log() {
        let postings = Postings::default();
        let run = |stream, first, records| (StreamId(stream), Offset(first), records);
        let mut next = [0_u64; 40];
        let mut expected = Vec::new();
        for batch in 0..3000_u32 {
            let mut runs = Vec::new();
            // Now and then a stream has a gap in its offsets.
            for stream in [batch % 40, (batch * 7 + 1) % 40] {
                let at = &mut next[stream as usize];
                *at += u64::from(batch % 500 == 499) * 10;
                runs.push(run(stream, *at, 1 + batch % 3));
                *at += u64::from(1 + batch % 3);
            }
            runs.sort();
            expected.extend(runs.iter().map(|run| (batch * 2, *run)));
            postings.add_batch(batch * 2, 2, u64::from(batch), runs);
        }
        let covers = Sealed {
            base_lsn: Lsn(8192),
            end_lsn: Lsn(8192 + 6000 * BLOCK_BYTES as u64),
            chain_before: 1,
            chain_end: 2,
            records: 5,
            first_ns: 0,
            last_ns: 2999,
        };
        let (log, segment) = (LogId([3; 16]), SegmentId(9));
        let snapshot = postings.snapshot();
        let file = crate::index::encode(log, 1, segment, &covers, &snapshot).unwrap();
        assert!(file.len() as u64 <= file_bytes_max(1 << 20));
        let restored = restore(&file, log, 1, segment, &covers).unwrap();
        assert_eq!(restored.last_batch(), Some((5998, 2)));
        let restored = restored.snapshot();
        let mut found: Vec<_> = restored
            .iter()
            .map(|posting| (posting.block, (posting.stream, posting.first, posting.records)))
            .collect();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(restored.times, snapshot.times);
        assert_eq!(restored.end_block, snapshot.end_block);
        // Neither another index nor a damaged one.
        let other = Sealed { chain_end: 3, ..covers };
        assert!(restore(&file, log, 1, segment, &other).is_none());
        assert!(restore(&file, log, 2, segment, &covers).is_none());
        assert!(restore(&file[..file.len() - BLOCK_BYTES], log, 1, segment, &covers).is_none());
        for at in (0..file.len()).step_by(1009) {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(restore(&damaged, log, 1, segment, &covers).is_none(), "byte {at}");
        }
    }
}
