//! Format version 1 as it was written once, byte by byte. Every later version reads it.
//!
//! `golden/v1/log` is a whole log; segments are stored without the zeros at their end.
//! `golden/v1/encodings.txt` has each structure with fixed content, in hexadecimal.
//!
//! From the first release on nothing in `golden/v1` changes any more. Until then, when the format
//! changes, both are written anew with
//!
//! ```text
//! cargo test -p ringlog --test golden -- --ignored regenerate
//! ```
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[expect(dead_code, reason = "the tests of damage use more of it")]
mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Content, Fixture, STREAMS, files, options, record};
use ringlog::disk_profile::{DepthFigure, DiskFigures, DiskPlace, Effort, Latency, SizeFigure};
use ringlog::format::batch::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKind, FrameKind, FrameSeed, HeaderSeed, Nonce, Run,
    SECTION_HEADER_BYTES, SectionHeader, check_body, encode_frame, frame_bytes,
};
use ringlog::format::catalogue::{self, CatalogueEntry};
use ringlog::format::manifest::{CataloguePart, Manifest, ManifestSegment, SegmentState};
use ringlog::format::meta::LogMeta;
use ringlog::format::profile::StoredProfile;
use ringlog::format::segment::{Sealed, SegmentFooter, SegmentHeader};
use ringlog::{Epoch, Log, LogId, Lsn, Offset, SegmentId, StreamId};

const BLOCK: usize = 4096;
const SEGMENT_BYTES: usize = 1 << 20;
/// Records of each stream in the stored log, and how many of them are sealed.
const EACH: u64 = 16;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// Writes the stored log into a directory of its own, at full length.
fn unpack() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = folder().join("log");
    for (path, mut content) in files(&log) {
        let to = dir.path().join(path.strip_prefix(&log).unwrap());
        if path.is_dir() {
            std::fs::create_dir(&to).unwrap();
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "seg") {
            content.resize(SEGMENT_BYTES, 0);
        }
        std::fs::write(to, content).unwrap();
    }
    dir
}

#[test]
fn the_stored_log_is_read_and_goes_on() {
    let dir = unpack();
    let report = ringlog::verify(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.records, EACH * STREAMS.len() as u64);
    for opened in 0..3 {
        let log = Log::open(dir.path(), options()).unwrap();
        assert!(log.recovery_report().shards[0].clean);
        let content = Content::of(&log);
        assert_eq!(content.errors, []);
        for name in STREAMS {
            let expected: Vec<u64> = (0..EACH + opened).collect();
            assert!(content.offsets[name].iter().eq(&expected), "{name}");
            let stream = log.stream(name).unwrap();
            let next = stream.next_offset();
            assert_eq!(next, Offset(EACH + opened));
            stream.append(&record(name, next.0)).unwrap().wait().unwrap();
        }
        log.close().unwrap();
    }
    assert_eq!(ringlog::verify(dir.path(), &mut |_| {}).unwrap().damage, []);
}

const LOG: LogId = LogId(*b"golden log of v1");
const SHARD: u16 = 2;
const SEGMENT: SegmentId = SegmentId(0x0102_0304_0506_0708);
const NONCE: Nonce = Nonce { epoch: Epoch(5), count: 77 };
const FRAMES: [(u32, FrameKind, &[u8]); 5] = [
    (0, FrameKind::CreateStream, b"\x01\x00\x00\x00orders"),
    (0, FrameKind::TrimStream, b"\x07\x00\x00\x00\x39\x05\x00\x00\x00\x00\x00\x00"),
    (1, FrameKind::Record, b"the first record"),
    (1, FrameKind::Tombstone, b""),
    (1, FrameKind::Void, b"passed over"),
];

fn sealed() -> Sealed {
    Sealed {
        base_lsn: Lsn(0x10_0000),
        end_lsn: Lsn(0x1f_e000),
        chain_before: 0x0a0b_0c0d,
        chain_end: 0x0102_0304,
        records: 1001,
        first_ns: 1_700_000_000_000_000_001,
        last_ns: 1_700_000_000_000_000_002,
    }
}

fn batch_header() -> BatchHeader {
    BatchHeader {
        kind: BatchKind::Records,
        lsn: Lsn(0x1f_d000),
        epoch: Epoch(6),
        durable_lsn: Lsn(0x1f_c000),
        timestamp_ns: 1_700_000_000_000_000_003,
        body_bytes: 0,
        stored_bytes: BLOCK as u32,
        frames: FRAMES.len() as u32,
        sections: 1,
        meta_crc: 0,
        previous: 0xfeed_beef,
        resume: 0,
    }
}

fn batch() -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    let section_start = BATCH_HEADER_BYTES;
    let mut at = section_start + SECTION_HEADER_BYTES;
    for (index, (stream, kind, payload)) in FRAMES.iter().enumerate() {
        let seed = FrameSeed::new(LOG, SHARD, NONCE);
        encode_frame(&mut bytes[at..], seed, index as u32, StreamId(*stream), *kind, payload);
        at += frame_bytes(payload.len());
    }
    let runs = [
        Run { stream: StreamId(0), count: 2, base: Offset(9) },
        Run { stream: StreamId(1), count: 3, base: Offset(0) },
    ];
    let section = SectionHeader {
        nonce: NONCE,
        frames_bytes: (at - section_start - SECTION_HEADER_BYTES) as u32,
        frames: FRAMES.len() as u32,
        runs: runs.len() as u32,
    };
    let mut meta = crc32fast::Hasher::new();
    section.encode(&runs, &mut bytes[section_start..][..section.section_bytes()], &mut meta);
    let mut header = batch_header();
    header.body_bytes = section.section_bytes() as u32;
    header.meta_crc = meta.finalize();
    header.encode(HeaderSeed::new(LOG, SHARD, SEGMENT), &mut bytes);
    bytes
}

fn gap() -> Vec<u8> {
    let header = BatchHeader {
        kind: BatchKind::Gap,
        frames: 0,
        sections: 0,
        resume: 0x0bad_cafe,
        stored_bytes: 8 * BLOCK as u32,
        ..batch_header()
    };
    let mut bytes = vec![0; 8 * BLOCK];
    header.encode(HeaderSeed::new(LOG, SHARD, SEGMENT), &mut bytes);
    bytes
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        log: LOG,
        shard: SHARD,
        segment: SEGMENT,
        epoch: Epoch(5),
        created_ns: 1_700_000_000_000_000_000,
        segment_bytes: 1 << 26,
    }
}

fn segment_footer() -> SegmentFooter {
    SegmentFooter { log: LOG, shard: SHARD, segment: SEGMENT, sealed: sealed() }
}

fn manifest() -> Manifest {
    let state = SegmentState::Sealed { sealed: sealed(), footer: true };
    Manifest {
        log: LOG,
        shard: SHARD,
        generation: 42,
        epoch: Epoch(6),
        life_lsn: Lsn(0x1f_e000),
        proven_lsn: Lsn(0x20_0000),
        clean: true,
        next_segment: SegmentId(12),
        catalogued_lsn: Lsn(0x1f_e000),
        trimmed_lsn: Lsn(0x10_0000),
        trimmed_chain: 0x0a0b_0c0d,
        catalogue: vec![CataloguePart { number: 3, bytes: 99, crc: 0x1234_5678 }],
        segments: vec![
            ManifestSegment { segment: SegmentId(10), state },
            ManifestSegment { segment: SegmentId(11), state: SegmentState::Unsealed },
        ],
    }
}

fn closed_manifest() -> Manifest {
    let so_far = Sealed { base_lsn: Lsn(0x1f_e000), end_lsn: Lsn(0x20_0000), ..sealed() };
    let mut manifest = manifest();
    manifest.catalogued_lsn = manifest.proven_lsn;
    manifest.segments[1].state = SegmentState::Closed { so_far };
    manifest
}

fn entries() -> Vec<CatalogueEntry> {
    let entry = |stream, next, before, name: Option<&str>| CatalogueEntry {
        stream: StreamId(stream),
        next_offset: Offset(next),
        trimmed_before: Offset(before),
        name: name.map(Arc::from),
    };
    vec![
        entry(0, 10, 0, None),
        entry(1, 3, 2, Some("orders")),
        entry(2, 0, 0, Some("Größe")),
        entry(3, 9, 9, None),
    ]
}

fn log_file() -> LogMeta {
    LogMeta { log: LOG, created_ns: 1_700_000_000_000_000_000, segment_bytes: 1 << 26, shards: 4 }
}

fn disk_profile() -> StoredProfile {
    let latency = |p50_ns| Latency { p50_ns, p99_ns: 2 * p50_ns, samples: 48 };
    StoredProfile {
        log: LOG,
        measured_ns: 1_700_000_000_000_000_004,
        place: DiskPlace {
            file_system: "ext4".to_owned(),
            device: (254, 1),
            device_name: Some("vda1".to_owned()),
            rotational: Some(true),
            write_back: Some(true),
            polled: Some(false),
            physical_block_bytes: Some(4096),
            align_bytes: 4096,
            direct: true,
            huge_pages: true,
            uring: true,
        },
        figures: DiskFigures {
            effort: Effort::Quick,
            dsync: latency(81_000),
            linked_sync: latency(93_000),
            write: latency(46_000),
            sizes: vec![SizeFigure { bytes: 4096, latency: latency(81_500) }],
            depths: vec![DepthFigure { depth: 2, bytes_per_second: 3_000_000_000 }],
        },
    }
}

fn block(encode: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    encode(&mut bytes);
    bytes
}

/// Every structure, as this version encodes it.
fn encodings() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("batch", batch()),
        ("gap", gap()),
        ("segment-header", block(|out| segment_header().encode(out))),
        ("segment-footer", block(|out| segment_footer().encode(out))),
        ("manifest", manifest().encode()),
        ("closed-manifest", closed_manifest().encode()),
        ("catalogue-part", catalogue::encode(LOG, SHARD, 3, &entries())),
        ("log-file", log_file().encode()),
        ("disk-profile", disk_profile().encode()),
    ]
}

/// A line for each: name, length, and the bytes without the zeros at the end.
fn to_text(encodings: &[(&'static str, Vec<u8>)]) -> String {
    let mut text = String::new();
    for (name, bytes) in encodings {
        write!(text, "{name} {} ", bytes.len()).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for byte in &bytes[..used] {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

fn stored(wanted: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(folder().join("encodings.txt")).unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(wanted)).unwrap();
    let mut fields = line.split(' ').skip(1);
    let length: usize = fields.next().unwrap().parse().unwrap();
    let hex = fields.next().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let mut bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.resize(length, 0);
    bytes
}

#[test]
fn each_structure_is_encoded_as_it_was() {
    for (name, bytes) in encodings() {
        let before = stored(name);
        let first = before.iter().zip(&bytes).position(|(before, now)| before != now);
        assert_eq!((first, bytes.len()), (None, before.len()), "{name}: the first other byte");
    }
}

#[test]
fn each_stored_structure_is_read() {
    let seed = HeaderSeed::new(LOG, SHARD, SEGMENT);
    let bytes = stored("batch");
    let (header, _) = BatchHeader::decode(&bytes, seed, Lsn(0x1f_d000)).unwrap();
    let mut frames = Vec::new();
    check_body(&header, &bytes, LOG, SHARD, |frame| frames.push(frame)).unwrap();
    let found: Vec<_> = frames
        .iter()
        .map(|frame| {
            let start = frame.payload_start as usize;
            (frame.stream.0, frame.kind, &bytes[start..start + frame.payload_bytes as usize])
        })
        .collect();
    assert_eq!(found, FRAMES);
    let offsets: Vec<u64> = frames.iter().map(|frame| frame.offset.0).collect();
    assert_eq!(offsets, [9, 10, 0, 1, 2]);
    let (gap, chain) = BatchHeader::decode(&stored("gap"), seed, Lsn(0x1f_d000)).unwrap();
    assert_eq!((gap.kind, chain), (BatchKind::Gap, 0x0bad_cafe));
    assert_eq!(SegmentHeader::decode(&stored("segment-header")), Ok(segment_header()));
    assert_eq!(SegmentFooter::decode(&stored("segment-footer")), Ok(segment_footer()));
    assert_eq!(Manifest::decode(&stored("manifest")), Ok(manifest()));
    assert_eq!(Manifest::decode(&stored("closed-manifest")), Ok(closed_manifest()));
    assert_eq!(catalogue::decode(&stored("catalogue-part"), LOG, SHARD, 3), Ok(entries()));
    assert_eq!(LogMeta::decode(&stored("log-file")), Ok(log_file()));
    assert_eq!(StoredProfile::decode(&stored("disk-profile")), Ok(disk_profile()));
}

/// A stream belongs to the shard that its name hashes to; that is part of the format, too.
#[test]
fn streams_stay_in_their_shards() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    options.format.shards = Some(8);
    options.memory_bytes = 32 << 20;
    let log = Log::open(dir.path(), options).unwrap();
    for name in ["alpha", "beta", "gamma", "orders", "Größe"] {
        log.stream(name).unwrap();
    }
    let found: Vec<(String, u16)> =
        log.streams().into_iter().map(|stream| (stream.name, stream.shard)).collect();
    let expected = [("Größe", 5), ("alpha", 2), ("beta", 3), ("gamma", 1), ("orders", 6)];
    let mut expected = expected.map(|(name, shard): (&str, u16)| (name.to_owned(), shard));
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
#[ignore = "writes the golden files anew; see the module's text"]
fn regenerate() {
    let _ = std::fs::remove_dir_all(folder());
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(folder().join("encodings.txt"), to_text(&encodings())).unwrap();
    let fixture = Fixture::with(&options(), 1, 1);
    assert_eq!(fixture.each, EACH);
    for (path, mut content) in fixture.files() {
        let to = folder().join("log").join(path.strip_prefix(fixture.path()).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        if path.is_dir() {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "seg") {
            let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            content.truncate(used.next_multiple_of(BLOCK));
        }
        std::fs::write(to, content).unwrap();
    }
}
