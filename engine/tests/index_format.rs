//! The bytes of an index: what goes in comes out, and nothing else does.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proptest::prelude::*;
use ringlog::format::index::{self, Posting, TimePoint};
use ringlog::format::segment::Sealed;
use ringlog::{LogId, Lsn, Offset, SegmentId, StreamId};

const LOG: LogId = LogId(*b"an index's log  ");
const SEGMENT: SegmentId = SegmentId(7);

fn covers(blocks: u32) -> Sealed {
    Sealed {
        base_lsn: Lsn(4096),
        end_lsn: Lsn(4096 + u64::from(blocks) * 4096),
        chain_before: 1,
        chain_end: 2,
        records: 3,
        first_ns: 4,
        last_ns: 5,
    }
}

/// A segment as a writer would have noted it: batches one behind the other, each with records of
/// some streams; now and then offsets are missing.
fn postings(max_batches: usize) -> impl Strategy<Value = (Vec<Posting>, Vec<TimePoint>, u32)> {
    let run =
        (0_u32..40, 1_u32..5, prop::option::weighted(0.1, prop_oneof![1_u64..9, Just(1 << 33)]));
    let batch = (1_u32..4, prop::collection::vec(run, 0..6));
    (prop::collection::vec(batch, 0..max_batches), 0_u64..1 << 40).prop_map(|(batches, base)| {
        let mut next = vec![base; 40];
        let (mut all, mut times, mut block) = (Vec::<Posting>::new(), Vec::new(), 0);
        for (at, (blocks, runs)) in batches.into_iter().enumerate() {
            if at.is_multiple_of(5) {
                times.push(TimePoint { timestamp_ns: 1000 + u64::from(block), block });
            }
            let from = all.len();
            for (stream, records, gap) in runs {
                let first = next[stream as usize] + gap.unwrap_or(0);
                next[stream as usize] = first + u64::from(records);
                let mut here = all[from..].iter_mut().rev();
                let same = here.find(|posting| posting.stream.0 == stream);
                match same.filter(|posting| posting.end().0 == first) {
                    Some(posting) => posting.records += records,
                    None => all.push(Posting {
                        stream: StreamId(stream),
                        records,
                        first: Offset(first),
                        block,
                        blocks,
                    }),
                }
            }
            all[from..].sort_by_key(|posting| (posting.stream.0, posting.first));
            block += blocks;
        }
        (all, times, block)
    })
}

fn encode(all: &[Posting], times: &[TimePoint], blocks: u32) -> Vec<u8> {
    let mut all = all.to_vec();
    index::encode(LOG, 3, SEGMENT, &covers(blocks), &mut all, times).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_in_comes_out((all, times, blocks) in postings(600)) {
        let file = encode(&all, &times, blocks);
        let content = index::decode(&file, LOG, 3, SEGMENT).unwrap();
        prop_assert_eq!(&content.postings, &all);
        prop_assert_eq!(&content.times, &times);
        prop_assert_eq!(content.header.covers, covers(blocks));
    }

    #[test]
    fn no_changed_byte_goes_unseen(
        (all, times, blocks) in postings(60),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut file = encode(&all, &times, blocks);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(index::decode(&file, LOG, 3, SEGMENT).is_err(), "byte {}", at);
    }
}

fn many(count: u32) -> Vec<Posting> {
    let posting = |n| Posting {
        stream: StreamId(n % (count / 2).max(1)),
        records: 1,
        first: Offset(u64::from(n / (count / 2).max(1))),
        block: n / 16,
        blocks: 1,
    };
    (0..count).map(posting).collect()
}

#[test]
fn an_index_of_another_place_or_length_is_refused() {
    let all = many(4000);
    let file = encode(&all, &[TimePoint { timestamp_ns: 1, block: 0 }], 250);
    assert!(index::decode(&file, LOG, 3, SEGMENT).is_ok());
    assert!(index::decode(&file, LOG, 2, SEGMENT).is_err(), "another shard");
    assert!(index::decode(&file, LOG, 3, SegmentId(8)).is_err(), "another segment");
    assert!(index::decode(&file, LogId([7; 16]), 3, SEGMENT).is_err(), "another log");
    for length in (0..file.len()).step_by(1009) {
        assert!(index::decode(&file[..length], LOG, 3, SEGMENT).is_err(), "{length} bytes");
    }
    let longer = [file.as_slice(), &[0; 4096]].concat();
    assert!(index::decode(&longer, LOG, 3, SEGMENT).is_err(), "a page more");
    // Pages that are good by themselves but lie elsewhere, or belong to another state.
    let mut swapped = file.clone();
    let (front, back) = swapped.split_at_mut(8192);
    front[4096..].swap_with_slice(&mut back[..4096]);
    assert!(index::decode(&swapped, LOG, 3, SEGMENT).is_err(), "pages in another order");
    let older = encode(&all, &[TimePoint { timestamp_ns: 1, block: 0 }], 249);
    let mixed = [&older[..4096], &file[4096..]].concat();
    assert!(index::decode(&mixed, LOG, 3, SEGMENT).is_err(), "pages of another state");
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut beyond = [Posting { block: 1 << 18, ..many(1)[0] }];
    assert!(index::encode(LOG, 3, SEGMENT, &covers(1), &mut beyond, &[]).is_none());
    let mut last = [Posting { first: Offset(u64::MAX), ..many(1)[0] }];
    assert!(index::encode(LOG, 3, SEGMENT, &covers(1), &mut last, &[]).is_none());
}

#[test]
#[ignore = "a measurement: run it with --release --nocapture"]
fn time_of_encoding() {
    let cases = [
        ("230,000 postings of as many streams", many(460_000)[..230_000].to_vec()),
        (
            "230,000 postings of 1000 streams",
            (0..230_000)
                .map(|n| Posting {
                    stream: StreamId(n % 1000),
                    first: Offset((n / 1000).into()),
                    records: 1,
                    block: n / 16,
                    blocks: 1,
                })
                .collect(),
        ),
        (
            "16,000 postings of one stream",
            (0..16_000)
                .map(|n: u32| Posting {
                    stream: StreamId(1),
                    records: 1,
                    first: Offset(n.into()),
                    block: n,
                    blocks: 1,
                })
                .collect(),
        ),
    ];
    for (what, all) in cases {
        let mut times: Vec<u128> = (0..15)
            .map(|_| {
                let mut all = all.clone();
                let begun = std::time::Instant::now();
                let file = index::encode(LOG, 3, SEGMENT, &covers(20_000), &mut all, &[]);
                assert!(file.is_some());
                begun.elapsed().as_micros()
            })
            .collect();
        times.sort_unstable();
        println!("{what}: {} – {} – {} µs", times[0], times[7], times[14]);
    }
}

#[test]
fn the_header_of_an_index_is_of_one_log_shard_and_segment() {
    let file = encode(&[], &[], 5);
    let header = |log, shard, segment| index::IndexHeader::decode(&file, log, shard, segment);
    assert!(header(LOG, 3, SEGMENT).is_ok());
    assert!(header(LOG, 3, SegmentId(SEGMENT.0 + 1)).is_err());
    assert!(header(LOG, 4, SEGMENT).is_err());
    assert!(header(LogId([1; 16]), 3, SEGMENT).is_err());
}
