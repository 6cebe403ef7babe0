//! Structures by themselves: decoded by the engine and by the reference reader, which must agree,
//! and encoded again.

use ringlog::LogId;
use ringlog::format::batch::{
    BatchHeader, FrameRef, HeaderSeed, check_body, check_stream, read_runs,
};
use ringlog::format::catalogue;
use ringlog::format::index as index_format;
use ringlog::format::manifest::{Manifest, SegmentState};
use ringlog::format::meta::LogMeta;
use ringlog::format::profile::StoredProfile;
use ringlog::format::{Refused, VERSION};
use ringlog::{Lsn, SegmentId, StreamId};

use super::input::Input;
use crate::reference::{self, BLOCK, Bad, State};

pub(super) const LOG: [u8; 16] = [7; 16];
const SHARD: u16 = 3;
const SEGMENT: u64 = 5;
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Puts a checksum with a seed into its field.
pub(super) fn seal(bytes: &mut [u8], field: usize, seed: u32) {
    let crc = reference::crc_with_seed(bytes, field, seed);
    bytes[field..field + 4].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Makes the checksums of the batch at the front of `bytes` fit: of its frames, of its section
/// headers and runs, and, with `seed`, of its header. Stops where its lengths do not fit.
pub(super) fn reseal_batch(bytes: &mut [u8], shard: u16, seed: Option<u32>) {
    if bytes.len() < reference::HEADER_BYTES {
        return;
    }
    let body = get_u32(bytes, 40) as usize;
    let end = (reference::HEADER_BYTES + body).min(bytes.len());
    let mut meta = Vec::new();
    let mut at = reference::HEADER_BYTES;
    for _ in 0..get_u32(bytes, 52).min(1 << 12) {
        let Some(section) = bytes[..end].get(at..at + 32) else { break };
        let nonce = (get_u64(section, 0), get_u64(section, 8));
        let (frames, runs) = (get_u32(section, 16) as usize, get_u32(section, 24) as usize);
        let runs_at = at + 32 + frames;
        let Some(table) = bytes[..end].get(runs_at..runs_at + runs * 16) else { break };
        meta.extend_from_slice(section);
        meta.extend_from_slice(table);
        let mut frame = at + 32;
        for i in 0.. {
            if frame + 16 > runs_at {
                break;
            }
            let len = (16 + get_u32(bytes, frame + 4) as usize).next_multiple_of(16);
            if frame + len > runs_at {
                break;
            }
            let seed = reference::frame_seed(&LOG, shard, nonce, i);
            seal(&mut bytes[frame..frame + len], 0, seed);
            frame += len;
        }
        at = runs_at + runs * 16;
    }
    bytes[56..60].copy_from_slice(&reference::crc(meta).to_le_bytes());
    if let Some(seed) = seed {
        seal(&mut bytes[..reference::HEADER_BYTES], 4, seed);
    }
}

/// Flips one bit.
fn flip(bytes: &mut [u8], bit: u32) {
    let count = bytes.len();
    if let Some(byte) = bytes.get_mut(bit as usize / 8 % count.max(1)) {
        *byte ^= 1 << (bit % 8);
    }
}

/// One batch. The first byte says which checksums and lengths are made to fit, and whether a bit of
/// what fits is flipped.
pub fn batch(data: &[u8]) {
    let mut input = Input(&data[..data.len().min(INPUT_BYTES_MAX)]);
    let fix = input.u8();
    let flipped = (fix & 16 != 0).then(|| input.u32());
    let mut bytes = input.0.to_vec();
    if fix & 1 != 0 {
        bytes.resize(bytes.len().max(reference::HEADER_BYTES), 0);
        bytes[..4].copy_from_slice(b"RLb1");
        bytes[66..68].copy_from_slice(&VERSION.to_le_bytes());
        bytes[72..76].fill(0);
    }
    if fix & 2 != 0 && bytes.len() >= reference::HEADER_BYTES {
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let stored = bytes.len() as u32;
        bytes[44..48].copy_from_slice(&stored.to_le_bytes());
        let body = get_u32(&bytes, 40) % (stored - reference::HEADER_BYTES as u32 + 1);
        bytes[40..44].copy_from_slice(&body.to_le_bytes());
    }
    let seed = reference::header_seed(&LOG, SHARD, SEGMENT);
    if fix & 4 != 0 {
        reseal_batch(&mut bytes, SHARD, (fix & 8 != 0).then_some(seed));
    }
    if let Some(bit) = flipped {
        flip(&mut bytes, bit);
    }
    let lsn = if bytes.len() < 16 { 0 } else { get_u64(&bytes, 8) };
    check_batch(&bytes, Lsn(lsn), seed);
}

fn check_batch(bytes: &[u8], lsn: Lsn, seed: u32) {
    let engine_seed = HeaderSeed::new(LogId(LOG), SHARD, SegmentId(SEGMENT));
    let decoded = BatchHeader::decode(bytes, engine_seed, lsn);
    let expected = reference::header(bytes, seed);
    let (header, chain) = match (decoded, expected) {
        (Ok((header, chain)), Ok(expected)) => {
            assert_eq!((header.lsn.0, header.epoch.0), (expected.lsn, expected.epoch));
            assert_eq!((chain, header.previous), (expected.chain, expected.previous));
            assert_eq!(header.durable_lsn.0, expected.durable);
            (header, chain)
        }
        (Err(refused), Err(bad)) => return same_refusal(&refused, bad),
        (engine, reference) => panic!("header: engine {engine:?}, reference {reference:?}"),
    };
    let mut again = [0; reference::HEADER_BYTES];
    let chain_again = header.encode(engine_seed, &mut again);
    if bytes[76..reference::HEADER_BYTES].iter().all(|byte| *byte == 0) {
        assert_eq!((chain, &again[..]), (chain_again, &bytes[..reference::HEADER_BYTES]));
    }
    let Some(whole) = bytes.get(..header.stored_bytes as usize) else { return };
    let mut frames: Vec<FrameRef> = Vec::new();
    let checked = check_body(&header, whole, LogId(LOG), SHARD, |frame| frames.push(frame));
    let expected = reference::header(bytes, seed)
        .ok()
        .and_then(|header| reference::batch(header, bytes, &LOG, SHARD));
    match (checked, expected) {
        (Ok(()), Some(batch)) => {
            assert_eq!(frames.len(), batch.frames.len());
            for (frame, expected) in frames.iter().zip(&batch.frames) {
                let start = frame.payload_start as usize;
                let payload = &whole[start..start + frame.payload_bytes as usize];
                let found = (frame.stream.0, frame.offset.0, payload);
                assert_eq!(found, (expected.stream, expected.offset, &expected.payload[..]));
            }
            each_stream_by_itself(&header, whole, &frames);
        }
        (Err(_), None) => {
            let _ = read_runs(&header, whole);
            let ours = (LogId(LOG), SHARD, StreamId(1));
            let _ = check_stream(&header, whole, ours, |_| ());
        }
        (engine, reference) => panic!("body: engine {engine:?}, reference {reference:?}"),
    }
}

/// What a reader of one stream is given is what the whole batch holds of it.
fn each_stream_by_itself(header: &BatchHeader, whole: &[u8], frames: &[FrameRef]) {
    let runs = read_runs(header, whole).expect("the runs of a good batch");
    assert_eq!(runs.iter().map(|run| run.count as usize).sum::<usize>(), frames.len());
    let mut streams: Vec<StreamId> = frames.iter().map(|frame| frame.stream).collect();
    streams.sort_unstable();
    streams.dedup();
    for stream in streams.into_iter().take(4) {
        let mut own = Vec::new();
        let whose = (LogId(LOG), SHARD, stream);
        let checked = check_stream(header, whole, whose, |frame| own.push(frame));
        assert_eq!(checked, Ok(()));
        assert!(own.iter().eq(frames.iter().filter(|frame| frame.stream == stream)));
    }
}

fn same_refusal(refused: &Refused, bad: Bad) {
    match (refused, bad) {
        (Refused::Damaged(_), Bad::Damaged(_)) => {}
        (Refused::Version(found), Bad::Version(expected)) => assert_eq!(*found, expected),
        (Refused::Features(found), Bad::Features(expected)) => assert_eq!(*found, expected),
        (refused, bad) => panic!("engine {refused:?}, reference {bad:?}"),
    }
}

/// Wraps the input into the envelope of a small file, as its first byte says.
fn enveloped(input: &mut Input<'_>, magic: [u8; 4]) -> Vec<u8> {
    let fix = input.u8();
    if fix & 1 == 0 {
        return input.0.to_vec();
    }
    let mut file = magic.to_vec();
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&if fix & 2 == 0 { VERSION } else { input.u16() }.to_le_bytes());
    file.extend_from_slice(&if fix & 4 == 0 { 0 } else { input.u16() }.to_le_bytes());
    let less = if fix & 8 == 0 { 0 } else { u32::from(input.u8()) };
    file.extend_from_slice(&(input.0.len() as u32).wrapping_sub(less).to_le_bytes());
    file.extend_from_slice(input.0);
    if fix & 16 == 0 {
        seal(&mut file, 4, 0);
    }
    file
}

/// A manifest.
pub fn manifest(data: &[u8]) {
    let mut input = Input(&data[..data.len().min(INPUT_BYTES_MAX)]);
    let file = enveloped(&mut input, *b"RLm1");
    match (Manifest::decode(&file), reference::manifest(&file)) {
        (Ok(manifest), Ok(expected)) => {
            assert_eq!(manifest.segments.len(), expected.segments.len());
            for (entry, (number, state)) in manifest.segments.iter().zip(&expected.segments) {
                assert_eq!(entry.segment.0, *number);
                match (entry.state, *state) {
                    (SegmentState::Unsealed, State::Unsealed) => {}
                    (SegmentState::Sealed { sealed, .. }, State::Sealed(span))
                    | (SegmentState::Closed { so_far: sealed }, State::Closed(span)) => {
                        let found = (sealed.base_lsn.0, sealed.end_lsn.0, sealed.chain_end);
                        assert_eq!(found, (span.base, span.end, span.last));
                    }
                    (engine, reference) => panic!("engine {engine:?}, reference {reference:?}"),
                }
            }
            assert_eq!(manifest.log.0, expected.log);
            assert_eq!((manifest.shard, manifest.clean), (expected.shard, expected.clean));
            assert_eq!(
                (manifest.epoch.0, manifest.life_lsn.0, manifest.proven_lsn.0),
                (expected.epoch, expected.life_lsn, expected.proven_lsn)
            );
            assert_eq!(
                (manifest.trimmed_lsn.0, manifest.trimmed_chain, manifest.catalogue.len()),
                (expected.trimmed_lsn, expected.trimmed_chain, expected.parts.len())
            );
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
        (Err(refused), Err(bad)) => same_refusal(&refused, bad),
        (engine, reference) => panic!("engine {engine:?}, reference {reference:?}"),
    }
}

/// The other small files: a part of the catalogue, the file of the log, a disk profile.
pub fn small(data: &[u8]) {
    let mut input = Input(&data[..data.len().min(INPUT_BYTES_MAX)]);
    match input.u8() % 4 {
        0 => {
            let file = enveloped(&mut input, *b"RLl1");
            if let Ok(meta) = LogMeta::decode(&file) {
                assert_eq!(meta.encode(), file);
            }
        }
        1 => {
            let file = enveloped(&mut input, *b"RLp1");
            if let Ok(profile) = StoredProfile::decode(&file) {
                assert_eq!(profile.encode(), file);
            }
        }
        _ => {
            let entries = input.0.get(1..).unwrap_or_default().to_vec();
            let mut part = input.u8().to_le_bytes().to_vec();
            part.extend_from_slice(&LOG);
            part.extend_from_slice(&u64::from(SHARD).to_le_bytes());
            part.extend_from_slice(&1_u64.to_le_bytes());
            part.extend_from_slice(&entries);
            let file = enveloped(&mut Input(&part), *b"RLc1");
            let found = catalogue::decode(&file, LogId(LOG), SHARD, 1);
            match (found, reference::catalogue(&file, &LOG, SHARD, 1)) {
                (Ok(entries), Ok(expected)) => {
                    let plain = entries.iter().map(|entry| {
                        let name = entry.name.as_deref().map(str::to_owned);
                        (entry.stream.0, entry.next_offset.0, entry.trimmed_before.0, name)
                    });
                    assert!(plain.eq(expected), "the entries of a catalogue part differ");
                    assert_eq!(catalogue::encode(LogId(LOG), SHARD, 1, &entries), file);
                }
                (Err(refused), Err(bad)) => same_refusal(&refused, bad),
                (engine, reference) => panic!("engine {engine:?}, reference {reference:?}"),
            }
        }
    }
}

/// The index of a segment.
pub fn index(data: &[u8]) {
    let mut input = Input(&data[..data.len().min(INPUT_BYTES_MAX)]);
    let fix = input.u8();
    let mut file = input.0.to_vec();
    if fix & 1 != 0 {
        file.resize(file.len().max(1).next_multiple_of(BLOCK), 0);
        file[..4].copy_from_slice(b"RLi1");
        file[8..10].copy_from_slice(&VERSION.to_le_bytes());
        file[10..12].copy_from_slice(&SHARD.to_le_bytes());
        file[12..16].fill(0);
        file[16..32].copy_from_slice(&LOG);
        file[32..40].copy_from_slice(&SEGMENT.to_le_bytes());
    }
    if fix & 2 != 0 && file.len() >= BLOCK {
        seal_index(&mut file, &LOG, SHARD, SEGMENT);
    }
    let decoded = index_format::decode(&file, LogId(LOG), SHARD, SegmentId(SEGMENT));
    if let Ok(mut content) = decoded {
        let index_format::IndexHeader { log, shard, segment, covers, .. } = content.header;
        let (postings, times) = (&mut content.postings, &content.times);
        let again = index_format::encode(log, shard, segment, &covers, postings, times);
        assert_eq!(again, Some(file), "an index is written in one way only");
    }
}

/// Makes the checksums of all pages of an index fit.
pub(super) fn seal_index(file: &mut [u8], log: &[u8; 16], shard: u16, segment: u64) {
    let (end, chain) = (get_u64(file, 48), u64::from(get_u32(file, 60)));
    for (number, page) in (0_u32..).zip(file.chunks_exact_mut(BLOCK)).skip(1) {
        let covers = [3, shard.into(), segment, end, chain, number.into()];
        page[..4].copy_from_slice(&number.to_le_bytes());
        seal(page, 4, reference::seed(log, &covers));
    }
    seal(&mut file[..BLOCK], 4, reference::seed(log, &[3, shard.into(), segment]));
}
