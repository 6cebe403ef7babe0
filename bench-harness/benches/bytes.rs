//! What every record costs in work on bytes alone: its frame and checksum, the headers of its batch,
//! and the check when it is read back. No disk, lock or thread takes part.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlog::format::batch::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKind, FRAME_HEADER_BYTES, FrameKind, FrameSeed,
    HeaderSeed, Nonce, Run, SECTION_HEADER_BYTES, SectionHeader, check_body, encode_frame,
    frame_bytes,
};
use ringlog::format::bytes::expected_crc;
use ringlog::limits::BLOCK_BYTES;
use ringlog::{Epoch, LogId, Lsn, Offset, SegmentId, StreamId};

/// Payload of one record.
const SIZES: [usize; 3] = [64, 256, 4096];
/// Of one chunk.
const CHUNK_BYTES: usize = 64 << 10;
const LOG: LogId = LogId([7; 16]);
const STREAM: StreamId = StreamId(3);

fn nonce(count: usize) -> Nonce {
    Nonce { epoch: Epoch(1), count: count as u64 }
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 256) as u8).collect()
}

/// A record is copied into a chunk behind the others, and checksummed.
fn frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let mut chunk = vec![0; CHUNK_BYTES];
    let seed = FrameSeed::new(LOG, 0, nonce(1));
    for bytes in SIZES {
        let (payload, step) = (payload(bytes), frame_bytes(bytes));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            let (mut at, mut index) = (0, 0);
            b.iter(|| {
                let out = black_box(&mut chunk[at..at + step]);
                encode_frame(out, seed, index, STREAM, FrameKind::Record, black_box(&payload));
                (at, index) = (at + step, index + 1);
                if at + step > CHUNK_BYTES {
                    (at, index) = (0, 0);
                }
            });
            assert_eq!(chunk[FRAME_HEADER_BYTES..][..bytes], payload, "it was copied");
        });
    }
}

/// The checksum alone, of a whole frame and of a whole chunk.
fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for bytes in SIZES.into_iter().chain([CHUNK_BYTES]) {
        let frame = payload(frame_bytes(bytes));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| expected_crc(black_box(&frame), 0, black_box(17)));
        });
    }
}

/// One chunk each, as long as it can be, or with one frame.
struct Sections {
    headers: Vec<(SectionHeader, [Run; 1])>,
    header: BatchHeader,
    bytes: Vec<u8>,
}

impl Sections {
    fn new(sections: usize, frames: u32, record_bytes: usize) -> Self {
        let (payload, step) = (payload(record_bytes), frame_bytes(record_bytes));
        let header_of = |number: usize| SectionHeader {
            nonce: nonce(number),
            frames_bytes: frames * step as u32,
            frames,
            runs: 1,
        };
        let body = sections * header_of(0).section_bytes();
        let stored = (BATCH_HEADER_BYTES + body).next_multiple_of(BLOCK_BYTES);
        let header = BatchHeader {
            kind: BatchKind::Records,
            lsn: Lsn(0),
            epoch: Epoch(1),
            durable_lsn: Lsn(0),
            timestamp_ns: 1,
            body_bytes: body as u32,
            stored_bytes: stored as u32,
            frames: frames * sections as u32,
            sections: sections as u32,
            meta_crc: 0,
            previous: 0,
            resume: 0,
        };
        let mut all = Self { headers: Vec::new(), header, bytes: vec![0; stored] };
        let mut at = BATCH_HEADER_BYTES;
        for number in 0..sections {
            let (section, seed) = (header_of(number), FrameSeed::new(LOG, 0, nonce(number)));
            for index in 0..frames {
                let start = at + SECTION_HEADER_BYTES + index as usize * step;
                let out = &mut all.bytes[start..];
                encode_frame(out, seed, index, STREAM, FrameKind::Record, &payload);
            }
            let base = Offset(number as u64 * u64::from(frames));
            all.headers.push((section, [Run { stream: STREAM, count: frames, base }]));
            at += section.section_bytes();
        }
        all.encode();
        all
    }

    /// What the writer adds to what producers have made.
    fn encode(&mut self) -> u32 {
        let mut meta = crc32fast::Hasher::new();
        let mut at = BATCH_HEADER_BYTES;
        for (section, runs) in &self.headers {
            let end = at + section.section_bytes();
            section.encode(runs, &mut self.bytes[at..end], &mut meta);
            at = end;
        }
        self.header.meta_crc = meta.finalize();
        self.header.encode(HeaderSeed::new(LOG, 0, SegmentId(1)), &mut self.bytes)
    }

    /// Decodes and checks everything; gives the number of frames, and their bytes of payload.
    fn check(&self) -> (u64, u64) {
        let seed = HeaderSeed::new(LOG, 0, SegmentId(1));
        let (header, _) = BatchHeader::decode(&self.bytes, seed, Lsn(0)).expect("a header");
        let (mut frames, mut bytes) = (0, 0);
        let visited = check_body(&header, &self.bytes, LOG, 0, |frame| {
            frames += 1;
            bytes += u64::from(frame.payload_bytes);
        });
        visited.expect("a sound batch");
        (frames, bytes)
    }
}

/// The headers of a batch of so many small chunks.
fn batch(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    for sections in [1, 16, 64] {
        let mut all = Sections::new(sections, 1, 256);
        let chain = all.encode();
        group.throughput(Throughput::Elements(sections as u64));
        group.bench_function(BenchmarkId::from_parameter(sections), |b| {
            b.iter(|| black_box(&mut all).encode());
        });
        assert_eq!(all.encode(), chain, "the same each time");
        assert_eq!(all.check(), (sections as u64, sections as u64 * 256));
    }
}

/// A batch of about 1 MiB, as recovery and readers check it.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for bytes in SIZES {
        let frames = (CHUNK_BYTES - 1024) / frame_bytes(bytes);
        let all = Sections::new(16, frames as u32, bytes);
        let expected = (16 * frames as u64, (16 * frames * bytes) as u64);
        group.throughput(Throughput::Bytes(all.bytes.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| assert_eq!(black_box(&all).check(), expected));
        });
    }
}

criterion_group!(benches, frame, checksum, batch, decode);
criterion_main!(benches);
