//! The bytes on disk: what is written is read back, and nothing else is ever taken for it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use proptest::prelude::*;
use ringlog::disk_profile::{
    DepthFigure, DiskFigures, DiskPlace, DiskProfile, Effort, Latency, SizeFigure,
};
use ringlog::format::batch::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKind, FRAME_ALIGN, FrameKind, FrameRef, FrameSeed,
    HeaderSeed, Nonce, RUN_BYTES, Run, SECTION_HEADER_BYTES, SectionHeader, check_body,
    encode_frame, frame_bytes, read_runs,
};
use ringlog::format::catalogue::{self, CatalogueEntry};
use ringlog::format::manifest::{CataloguePart, Manifest, ManifestSegment, SegmentState};
use ringlog::format::meta::LogMeta;
use ringlog::format::profile::StoredProfile;
use ringlog::format::segment::{Sealed, SegmentFooter, SegmentHeader};
use ringlog::format::{Refused, VERSION};
use ringlog::{Epoch, LogId, Lsn, Offset, SegmentId, StreamId};

const BLOCK: usize = 4096;
const LOG: LogId = LogId([7; 16]);
const SHARD: u16 = 3;
const SEGMENT: SegmentId = SegmentId(9);

/// A frame as a test has it.
#[derive(Clone, Debug)]
struct Entry {
    stream: u32,
    kind: FrameKind,
    payload: Vec<u8>,
}

/// Encodes a batch of one section for each chunk of entries.
fn batch(chunks: &[Vec<Entry>], lsn: Lsn, previous: u32) -> (BatchHeader, Vec<u8>) {
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    let mut meta = crc32fast::Hasher::new();
    let mut frames = 0;
    for (count, chunk) in chunks.iter().enumerate() {
        let nonce = Nonce { epoch: Epoch(2), count: count as u64 };
        let seed = FrameSeed::new(LOG, SHARD, nonce);
        let start = bytes.len();
        bytes.resize(start + SECTION_HEADER_BYTES, 0);
        let mut runs: Vec<Run> = Vec::new();
        for (index, entry) in chunk.iter().enumerate() {
            let at = bytes.len();
            bytes.resize(at + frame_bytes(entry.payload.len()), 0xee);
            let stream = StreamId(entry.stream);
            encode_frame(&mut bytes[at..], seed, index as u32, stream, entry.kind, &entry.payload);
            match runs.last_mut() {
                Some(run) if run.stream == stream => run.count += 1,
                _ => runs.push(Run { stream, count: 1, base: Offset(100 * at as u64) }),
            }
        }
        let section = SectionHeader {
            nonce,
            frames_bytes: (bytes.len() - start - SECTION_HEADER_BYTES) as u32,
            frames: chunk.len() as u32,
            runs: runs.len() as u32,
        };
        bytes.resize(start + section.section_bytes(), 0);
        section.encode(&runs, &mut bytes[start..], &mut meta);
        frames += chunk.len() as u32;
    }
    let body_bytes = (bytes.len() - BATCH_HEADER_BYTES) as u32;
    let stored = bytes.len().next_multiple_of(BLOCK);
    bytes.resize(stored, 0);
    let header = BatchHeader {
        kind: BatchKind::Records,
        lsn,
        epoch: Epoch(2),
        durable_lsn: Lsn(lsn.0 / 2),
        timestamp_ns: 1_000_000_007,
        body_bytes,
        stored_bytes: stored as u32,
        frames,
        sections: chunks.len() as u32,
        meta_crc: meta.finalize(),
        previous,
        resume: 0,
    };
    header.encode(HeaderSeed::new(LOG, SHARD, SEGMENT), &mut bytes);
    (header, bytes)
}

fn seed() -> HeaderSeed {
    HeaderSeed::new(LOG, SHARD, SEGMENT)
}

/// Header and body of a batch, as every reader checks them.
fn read(bytes: &[u8], seed: HeaderSeed, lsn: Lsn, log: LogId, shard: u16) -> Option<Vec<FrameRef>> {
    let (header, _) = BatchHeader::decode(bytes, seed, lsn).ok()?;
    let mut frames = Vec::new();
    let batch = bytes.get(..header.stored_bytes as usize)?;
    check_body(&header, batch, log, shard, |frame| frames.push(frame)).ok()?;
    Some(frames)
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        Just(FrameKind::Record),
        Just(FrameKind::Tombstone),
        Just(FrameKind::Void),
        Just(FrameKind::CreateStream)
    ];
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (1_u32..5, kind, payload).prop_map(|(stream, kind, payload)| Entry { stream, kind, payload })
}

fn chunks() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    prop::collection::vec(prop::collection::vec(entry(), 1..20), 1..5)
}

fn sealed() -> impl Strategy<Value = Sealed> {
    (any::<[u64; 5]>(), any::<[u32; 2]>()).prop_map(|(long, short)| Sealed {
        base_lsn: Lsn(long[0].min(long[1])),
        end_lsn: Lsn(long[0].max(long[1])),
        chain_before: short[0],
        chain_end: short[1],
        records: long[2],
        first_ns: long[3],
        last_ns: long[4],
    })
}

fn manifest() -> impl Strategy<Value = Manifest> {
    let part = (any::<u64>(), any::<u64>(), any::<u32>());
    let segment = (1_u64..1000, 0_u64..1 << 30, any::<bool>(), any::<[u32; 2]>());
    (
        (any::<[u8; 16]>(), any::<u16>(), any::<[u64; 4]>(), any::<u32>()),
        prop::collection::vec(part, 0..5),
        prop::collection::vec(segment, 0..20),
        (0_usize..4, prop::option::of((1_u64..1 << 30, any::<[u32; 2]>()))),
    )
        .prop_map(
            |((log, shard, words, trimmed_chain), parts, segments, (unsealed, closed))| {
                let (mut id, mut end) = (0, words[3] >> 8);
                let mut list: Vec<ManifestSegment> = Vec::new();
                for (step, bytes, footer, chains) in segments {
                    id += step;
                    let (base, records) = (end, bytes / 7);
                    end += bytes;
                    let sealed = Sealed {
                        base_lsn: Lsn(base),
                        end_lsn: Lsn(end),
                        chain_before: chains[0],
                        chain_end: chains[1],
                        records,
                        first_ns: base,
                        last_ns: end,
                    };
                    let state = SegmentState::Sealed { sealed, footer };
                    list.push(ManifestSegment { segment: SegmentId(id), state });
                }
                let catalogued_lsn = Lsn(end);
                let mut proven = words[2];
                if let Some((bytes, chains)) = closed {
                    id += 1;
                    proven = end + bytes;
                    let so_far = Sealed {
                        base_lsn: Lsn(end),
                        end_lsn: Lsn(proven),
                        chain_before: chains[0],
                        chain_end: chains[1],
                        records: bytes,
                        first_ns: end,
                        last_ns: proven,
                    };
                    let state = SegmentState::Closed { so_far };
                    list.push(ManifestSegment { segment: SegmentId(id), state });
                }
                for _ in 0..unsealed {
                    id += 1;
                    let state = SegmentState::Unsealed;
                    list.push(ManifestSegment { segment: SegmentId(id), state });
                }
                let catalogue = parts.into_iter().map(|(number, bytes, crc)| CataloguePart {
                    number,
                    bytes,
                    crc,
                });
                Manifest {
                    log: LogId(log),
                    shard,
                    generation: words[0],
                    epoch: Epoch(words[1]),
                    life_lsn: Lsn(proven / 2),
                    proven_lsn: Lsn(proven),
                    clean: closed.is_some() || words[0] % 2 == 0,
                    next_segment: SegmentId(id + 1),
                    catalogued_lsn,
                    trimmed_lsn: Lsn(words[3] >> 8),
                    trimmed_chain,
                    catalogue: catalogue.collect(),
                    segments: list,
                }
            },
        )
}

fn entries() -> impl Strategy<Value = Vec<CatalogueEntry>> {
    let name = prop::option::of("[a-zé\u{1f980}\n]{1,60}");
    let entry =
        (any::<u32>(), any::<u64>(), any::<u64>(), name).prop_map(|(stream, next, below, name)| {
            CatalogueEntry {
                stream: StreamId(stream),
                next_offset: Offset(next),
                trimmed_before: Offset(if below % 2 == 0 { 0 } else { below.min(next) }),
                name: name.map(Arc::from),
            }
        });
    prop::collection::vec(entry, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_is_read_back(chunks in chunks(), lsn in 0_u64..1 << 40, previous: u32) {
        let lsn = Lsn(lsn * BLOCK as u64);
        let (header, bytes) = batch(&chunks, lsn, previous);
        let (decoded, _) = BatchHeader::decode(&bytes, seed(), lsn).unwrap();
        prop_assert_eq!(&decoded, &header);
        let frames = read(&bytes, seed(), lsn, LOG, SHARD).unwrap();
        let all: Vec<&Entry> = chunks.iter().flatten().collect();
        prop_assert_eq!(frames.len(), all.len());
        for (frame, entry) in frames.iter().zip(all) {
            let start = frame.payload_start as usize;
            prop_assert_eq!(start % FRAME_ALIGN, 0);
            let payload = &bytes[start..start + frame.payload_bytes as usize];
            prop_assert_eq!(payload, &entry.payload[..]);
            prop_assert_eq!((frame.stream.0, frame.kind), (entry.stream, entry.kind));
        }
        // The runs alone say the same of the offsets.
        let runs = read_runs(&header, &bytes).unwrap();
        let by_runs = runs.iter().flat_map(|run| {
            (0..u64::from(run.count)).map(|at| (run.stream, Offset(run.base.0 + at)))
        });
        prop_assert!(by_runs.eq(frames.iter().map(|frame| (frame.stream, frame.offset))));
    }

    #[test]
    fn no_single_flip_in_a_batch_goes_unnoticed(chunks in chunks(), at: prop::sample::Index, bit in 0_u8..8) {
        let (_, mut bytes) = batch(&chunks, Lsn(8192), 5);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(read(&bytes, seed(), Lsn(8192), LOG, SHARD), None);
    }

    #[test]
    fn a_batch_is_valid_at_its_own_place_only(chunks in chunks(), other in 1_u64..1000) {
        let (_, bytes) = batch(&chunks, Lsn(8192), 5);
        prop_assert!(read(&bytes, seed(), Lsn(8192), LOG, SHARD).is_some());
        let another_log = LogId((u128::from(other) ^ u128::from_le_bytes(LOG.0)).to_le_bytes());
        let another_shard = SHARD ^ other as u16;
        for (seed, lsn) in [
            (seed(), Lsn(8192 + other * 4096)),
            (HeaderSeed::new(LOG, SHARD, SegmentId(SEGMENT.0 ^ other)), Lsn(8192)),
            (HeaderSeed::new(LOG, another_shard, SEGMENT), Lsn(8192)),
            (HeaderSeed::new(another_log, SHARD, SEGMENT), Lsn(8192)),
        ] {
            prop_assert!(BatchHeader::decode(&bytes, seed, lsn).is_err());
        }
        // Frames are tied to log and shard by themselves, whatever header is put before them.
        prop_assert_eq!(read(&bytes, seed(), Lsn(8192), another_log, SHARD), None);
        prop_assert_eq!(read(&bytes, seed(), Lsn(8192), LOG, another_shard), None);
    }

    #[test]
    fn a_frame_is_valid_in_its_own_chunk_and_place_only(
        payload in prop::collection::vec(any::<u8>(), 0..64),
        index in 0_u32..1000, epoch in 1_u64..1000, count in 0_u64..1000,
        d_index in 0_u32..3, d_epoch in 0_u64..3, d_count in 0_u64..3,
    ) {
        prop_assume!((d_index, d_epoch, d_count) != (0, 0, 0));
        let frame = |index, epoch, count| {
            let mut bytes = vec![0; frame_bytes(payload.len())];
            let seed = FrameSeed::new(LOG, SHARD, Nonce { epoch: Epoch(epoch), count });
            encode_frame(&mut bytes, seed, index, StreamId(1), FrameKind::Record, &payload);
            bytes
        };
        // The checksum is the only thing in which they differ.
        let one = frame(index, epoch, count);
        let other = frame(index + d_index, epoch + d_epoch, count + d_count);
        prop_assert_ne!(&one[..4], &other[..4]);
        prop_assert_eq!(&one[4..], &other[4..]);
    }

    #[test]
    fn a_segments_header_and_footer_are_read_back(
        log: [u8; 16], shard: u16, words: [u64; 4], sealed in sealed(),
        at in 0_usize..BLOCK, bit in 0_u8..8,
    ) {
        let log = LogId(log);
        let header = SegmentHeader {
            log, shard, segment: SegmentId(words[0]), epoch: Epoch(words[1]),
            created_ns: words[2], segment_bytes: words[3],
        };
        let footer = SegmentFooter { log, shard, segment: SegmentId(words[0]), sealed };
        let mut block = vec![0xaa; BLOCK];
        header.encode(&mut block);
        prop_assert_eq!(SegmentHeader::decode(&block).unwrap(), header);
        prop_assert!(SegmentFooter::decode(&block).is_err());
        block[at] ^= 1 << bit;
        prop_assert!(SegmentHeader::decode(&block).is_err());
        footer.encode(&mut block);
        prop_assert_eq!(SegmentFooter::decode(&block).unwrap(), footer);
        prop_assert!(SegmentHeader::decode(&block).is_err());
        block[at] ^= 1 << bit;
        prop_assert!(SegmentFooter::decode(&block).is_err());
    }

    #[test]
    fn a_manifest_is_read_back(manifest in manifest(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut file = manifest.encode();
        prop_assert_eq!(Manifest::decode(&file).unwrap(), manifest);
        let cut = at.index(file.len());
        prop_assert!(Manifest::decode(&file[..cut]).is_err());
        file[cut] ^= 1 << bit;
        prop_assert!(Manifest::decode(&file).is_err());
    }

    #[test]
    fn a_part_of_the_catalogue_is_read_back(
        entries in entries(), number: u64, at: prop::sample::Index, bit in 0_u8..8,
    ) {
        let mut file = catalogue::encode(LOG, SHARD, number, &entries);
        prop_assert_eq!(catalogue::decode(&file, LOG, SHARD, number).unwrap(), entries);
        prop_assert!(catalogue::decode(&file, LOG, SHARD, number ^ 1).is_err());
        prop_assert!(catalogue::decode(&file, LOG, SHARD ^ 1, number).is_err());
        prop_assert!(catalogue::decode(&file, LogId([8; 16]), SHARD, number).is_err());
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(catalogue::decode(&file, LOG, SHARD, number).is_err());
    }

    #[test]
    fn a_disk_profile_is_read_back(
        words: [u64; 8], small: [u32; 4], answers: [Option<bool>; 3], flags: [bool; 4],
        names in ("[a-z0-9]{0,64}", prop::option::of("[a-z0-9]{1,64}")),
        sizes in 0_usize..17, depths in 0_usize..17, at: prop::sample::Index, bit in 0_u8..8,
    ) {
        let latency = Latency { p50_ns: words[0], p99_ns: words[1], samples: small[0] };
        let figures = DiskFigures {
            effort: if flags[0] { Effort::Quick } else { Effort::Full },
            dsync: latency,
            linked_sync: Latency { p50_ns: words[2], ..latency },
            write: Latency { p99_ns: words[3], ..latency },
            sizes: vec![SizeFigure { bytes: small[1], latency }; sizes],
            depths: vec![DepthFigure { depth: small[1], bytes_per_second: words[4] }; depths],
        };
        let place = DiskPlace {
            file_system: names.0,
            device: (small[2], small[3]),
            device_name: names.1,
            rotational: answers[0],
            write_back: answers[1],
            polled: answers[2],
            physical_block_bytes: (small[0] != 0).then_some(small[0]),
            align_bytes: 1 << (small[1] % 32),
            direct: flags[1],
            huge_pages: flags[2],
            uring: flags[3],
        };
        let profile = StoredProfile { log: LOG, measured_ns: words[5], place, figures };
        let mut file = profile.encode();
        prop_assert_eq!(StoredProfile::decode(&file).unwrap(), profile.clone());
        // Whatever the numbers are, they can be judged.
        let judged = DiskProfile::new(profile.place, profile.figures);
        prop_assert!((1..=8).contains(&judged.commits_in_flight.value));
        prop_assert!((64 << 10..=64 << 20).contains(&judged.commit_bytes.value));
        let at = at.index(file.len());
        prop_assert!(StoredProfile::decode(&file[..at]).is_err());
        file[at] ^= 1 << bit;
        prop_assert!(StoredProfile::decode(&file).is_err());
    }

    #[test]
    fn a_disk_profile_of_any_content_is_no_panic(content in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut file = vec![0; 16];
        file[..4].copy_from_slice(b"RLp1");
        file[8..10].copy_from_slice(&VERSION.to_le_bytes());
        file[12..16].copy_from_slice(&(content.len() as u32).to_le_bytes());
        file.extend(content);
        let crc = crc32fast::hash(&file);
        file[4..8].copy_from_slice(&crc.to_le_bytes());
        if let Ok(profile) = StoredProfile::decode(&file) {
            let _ = DiskProfile::new(profile.place, profile.figures);
        }
    }

    #[test]
    fn the_file_log_is_read_back(
        log: [u8; 16], words: [u64; 2], shards: u16, at: prop::sample::Index, bit in 0_u8..8,
    ) {
        let (created_ns, segment_bytes) = (words[0], words[1]);
        let meta = LogMeta { log: LogId(log), created_ns, segment_bytes, shards };
        let mut file = meta.encode();
        prop_assert_eq!(LogMeta::decode(&file).unwrap(), meta);
        let at = at.index(file.len());
        prop_assert!(LogMeta::decode(&file[..at]).is_err());
        file[at] ^= 1 << bit;
        prop_assert!(LogMeta::decode(&file).is_err());
    }

    #[test]
    fn decoders_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..9000), magic in 0_usize..7) {
        let magics: [&[u8]; 7] = [b"", b"RLb1", b"RLs1", b"RLf1", b"RLm1", b"RLc1", b"RLl1"];
        if let Some(front) = bytes.get_mut(..magics[magic].len()) {
            front.copy_from_slice(magics[magic]);
        }
        decode_everything(&bytes);
        // Again with checksums that fit, so that what lies behind them is reached.
        for length in [bytes.len(), BLOCK, BATCH_HEADER_BYTES] {
            let Some(part) = bytes.get_mut(..length).filter(|part| part.len() >= 16) else { continue };
            part[8..10].copy_from_slice(&VERSION.to_le_bytes());
            let said = (part.len() - 16) as u32;
            part[12..16].copy_from_slice(&said.to_le_bytes());
            part[4..8].fill(0);
            let crc = crc32fast::hash(part);
            part[4..8].copy_from_slice(&crc.to_le_bytes());
            decode_everything(&bytes);
        }
    }

    #[test]
    fn a_body_of_any_lengths_is_refused_without_a_panic(
        chunks in chunks(), fields: [u32; 4], at: prop::sample::Index, value: u32,
    ) {
        let (header, mut bytes) = batch(&chunks, Lsn(0), 0);
        // Lengths and counts that lie, under a header that is believed.
        let at = BATCH_HEADER_BYTES + at.index(bytes.len() - BATCH_HEADER_BYTES - 4) / 4 * 4;
        let before: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let valid = check_body(&header, &bytes, LOG, SHARD, |_| {}).is_ok();
        prop_assert!(!valid || before == value.to_le_bytes());
        let lying = BatchHeader {
            body_bytes: fields[0], sections: fields[1] % 8, frames: fields[2], meta_crc: fields[3],
            ..header
        };
        let refused = check_body(&lying, &bytes, LOG, SHARD, |_| {}).is_err();
        prop_assert!(refused);
        prop_assert_eq!(read_runs(&lying, &bytes), None);
    }
}

fn decode_everything(bytes: &[u8]) {
    let lsn = bytes.get(8..16).map_or(0, |lsn| u64::from_le_bytes(lsn.try_into().unwrap()));
    if let Ok((header, _)) = BatchHeader::decode(bytes, seed(), Lsn(lsn)) {
        drop(check_body(&header, bytes, LOG, SHARD, |_| {}));
        drop(read_runs(&header, bytes));
    }
    drop(SegmentHeader::decode(bytes));
    drop(SegmentFooter::decode(bytes));
    drop(Manifest::decode(bytes));
    drop(catalogue::decode(bytes, LOG, SHARD, 1));
    drop(LogMeta::decode(bytes));
}

#[test]
fn zeros_and_ones_are_never_valid() {
    for byte in [0x00, 0xff] {
        for length in [0, 1, 16, 52, 96, 4095, 4096, 8192, 1 << 20] {
            let bytes = vec![byte; length];
            assert!(SegmentHeader::decode(&bytes).is_err());
            assert!(SegmentFooter::decode(&bytes).is_err());
            assert!(Manifest::decode(&bytes).is_err());
            assert!(catalogue::decode(&bytes, LOG, SHARD, 1).is_err());
            assert!(LogMeta::decode(&bytes).is_err());
            for lsn in [Lsn(0), Lsn(u64::MAX)] {
                assert!(BatchHeader::decode(&bytes, seed(), lsn).is_err());
            }
            // Nor as the frames of a section, under whatever seed.
            for count in 0..1000 {
                let nonce = Nonce { epoch: Epoch(u64::from(byte)), count };
                let mut frame = vec![byte; 16];
                encode_frame(
                    &mut frame,
                    FrameSeed::new(LOG, SHARD, nonce),
                    0,
                    StreamId(0),
                    FrameKind::Record,
                    b"",
                );
                assert_ne!(frame, vec![byte; 16]);
            }
        }
    }
}

#[test]
fn stale_batches_of_a_recycled_segment_never_validate() {
    // The same bytes lie where a batch of the new segment would: the file was only renamed.
    let entry = Entry { stream: 1, kind: FrameKind::Record, payload: vec![1; 500] };
    let (_, old) = batch(&[vec![entry]], Lsn(1 << 20), 1);
    for number in 1..2000 {
        let new = HeaderSeed::new(LOG, SHARD, SegmentId(SEGMENT.0 + number));
        assert!(BatchHeader::decode(&old, new, Lsn(1 << 20)).is_err());
        assert!(BatchHeader::decode(&old, new, Lsn((1 << 20) + number * 4096)).is_err());
    }
}

#[test]
fn a_gap_hands_the_chain_on() {
    let header = BatchHeader {
        kind: BatchKind::Gap,
        lsn: Lsn(4096),
        epoch: Epoch(1),
        durable_lsn: Lsn(0),
        timestamp_ns: 1,
        body_bytes: 0,
        stored_bytes: 8192,
        frames: 0,
        sections: 0,
        meta_crc: 0,
        previous: 1234,
        resume: 5678,
    };
    let mut bytes = vec![0; 8192];
    assert_eq!(header.encode(seed(), &mut bytes), 5678);
    let (decoded, chain) = BatchHeader::decode(&bytes, seed(), Lsn(4096)).unwrap();
    assert_eq!((decoded, chain), (header, 5678));
    assert_eq!(read(&bytes, seed(), Lsn(4096), LOG, SHARD), Some(Vec::new()));
}

#[test]
fn a_newer_version_is_not_called_damage() {
    let mut file = LogMeta { log: LOG, created_ns: 1, segment_bytes: 1 << 20, shards: 1 }.encode();
    file[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
    assert!(matches!(LogMeta::decode(&file), Err(Refused::Damaged(_))), "its checksum is wrong");
    file[4..8].fill(0);
    let crc = crc32fast::hash(&file);
    file[4..8].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(LogMeta::decode(&file), Err(Refused::Version(VERSION + 1)));
}

#[test]
fn an_unknown_feature_is_not_called_damage() {
    let mut file = LogMeta { log: LOG, created_ns: 1, segment_bytes: 1 << 20, shards: 1 }.encode();
    file[10] = 4;
    file[4..8].fill(0);
    let crc = crc32fast::hash(&file);
    file[4..8].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(LogMeta::decode(&file), Err(Refused::Features(4)));
    let mut block = vec![0; 4096];
    SegmentHeader {
        log: LOG,
        shard: SHARD,
        segment: SegmentId(1),
        epoch: Epoch(1),
        created_ns: 1,
        segment_bytes: 1 << 20,
    }
    .encode(&mut block);
    block[12] = 1;
    block[4..8].fill(0);
    let crc = crc32fast::hash(&block);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&block), Err(Refused::Features(1)));
}

#[test]
fn the_sizes_that_the_documentation_names() {
    assert_eq!((BATCH_HEADER_BYTES, SECTION_HEADER_BYTES, RUN_BYTES), (96, 32, 16));
    assert_eq!(
        [frame_bytes(0), frame_bytes(1), frame_bytes(16), frame_bytes(17)],
        [16, 32, 32, 48]
    );
}
