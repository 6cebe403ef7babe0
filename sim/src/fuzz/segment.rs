//! Unsealed segments, built by the input piece by piece: good batches, and batches that are wrong in
//! one field, with all their checksums as they should be. The engine and the reference reader must
//! agree on where such a log ends, and on whether it is damaged.

use std::collections::BTreeMap;

use ringlog::LogId;
use ringlog::format::segment::{SegmentFooter, SegmentHeader};
use ringlog::testing::{ShardIdentity, examine};

use super::input::Input;
use super::pure::{LOG, reseal_batch, seal};
use crate::reference::{self, BLOCK, Outcome, Shard, recover};
use crate::{SimDisk, SimWorld, WorldOptions};

const SEGMENT_BYTES: usize = 16 * BLOCK;
const BATCHES_MAX: usize = 40;

/// What the shard is like while it is built.
struct Builder<'a> {
    input: Input<'a>,
    epoch: u64,
    life_lsn: u64,
    lsn: u64,
    chain: u32,
    segments: Vec<Vec<u8>>,
    at: usize,
}

/// One to three unsealed segments behind a manifest.
pub fn segment(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.u8();
    let mut builder = Builder {
        epoch: u64::from(input.u8() % 4),
        life_lsn: u64::from(input.u8() % 24) * BLOCK as u64,
        input,
        lsn: 0,
        chain: 0,
        segments: Vec::new(),
        at: SEGMENT_BYTES,
    };
    builder.begin_segment();
    for _ in 0..BATCHES_MAX {
        if builder.input.is_empty() {
            break;
        }
        builder.piece();
    }
    let proven = match flags & 3 {
        0 => 0,
        1 => builder.lsn,
        2 => builder.life_lsn,
        _ => u64::from(flags) * 1024,
    };
    let mut files = BTreeMap::new();
    files.insert("manifest".to_owned(), builder.manifest(flags & 4 != 0, proven));
    for (number, mut file) in (1_u64..).zip(builder.segments) {
        let (header, footer) = (SegmentHeader::decode(&file), SegmentFooter::decode(&file));
        assert_eq!(header.is_ok(), reference::segment_header(&file).is_ok());
        assert_eq!(footer.is_ok(), reference::footer(&file).is_ok());
        if flags & 0x30 == 0x30 && number == 2 {
            file.truncate(file.len() - BLOCK);
        }
        files.insert(format!("{number:016x}.seg"), file);
    }
    let world = SimWorld::new(&WorldOptions { shuffled: false, ..WorldOptions::default() });
    files.iter().for_each(|(name, file)| world.put(name, file));
    let segment_bytes = SEGMENT_BYTES as u64;
    let identity = ShardIdentity { log: LogId(LOG), shard: 0, segment_bytes };
    ringlog_disk::block::keep_mappings(8);
    let examined = examine(&mut SimDisk::open(&world), identity);
    match (examined, recover(&Shard { log: LOG, number: 0, segment_bytes, files })) {
        (Ok(end), Outcome::Opened(found)) => assert_eq!(end.0, found.end, "the ends differ"),
        (Err(_), Outcome::Refused(_)) => {}
        (engine, Outcome::Opened(found)) => {
            panic!("engine {engine:?}, reference ends at {}", found.end)
        }
        (engine, Outcome::Refused(why)) => panic!("engine {engine:?}, reference refuses, {why}"),
    }
}

impl Builder<'_> {
    fn begin_segment(&mut self) {
        let mut file = vec![0; SEGMENT_BYTES];
        let number = self.segments.len() as u64 + 1;
        file[..4].copy_from_slice(b"RLs1");
        file[8] = 1;
        file[16..32].copy_from_slice(&LOG);
        file[32..40].copy_from_slice(&number.to_le_bytes());
        file[56..64].copy_from_slice(&(SEGMENT_BYTES as u64).to_le_bytes());
        seal(&mut file[..BLOCK], 4, 0);
        self.segments.push(file);
        self.at = BLOCK;
    }

    /// A batch, something else in its place, or the end of a segment.
    fn piece(&mut self) {
        match self.input.u8() {
            0..=9 if self.segments.len() < 3 => self.begin_segment(),
            0..=19 => self.at += BLOCK,
            20..=29 => {
                let at = self.at + usize::from(self.input.u8());
                let bytes = self.input.bytes(8);
                if let Some(target) = self.file().get_mut(at..at + bytes.len()) {
                    target.copy_from_slice(bytes);
                }
                self.at += BLOCK;
            }
            what => self.batch(what),
        }
    }

    fn file(&mut self) -> &mut [u8] {
        match self.segments.last_mut() {
            Some(file) => file,
            None => &mut [],
        }
    }

    /// `what`: at most one thing that is not as it should be.
    fn batch(&mut self, what: u8) {
        let mut body = Vec::new();
        let sections = self.input.u8() % 3;
        let mut frames = 0_u32;
        for _ in 0..sections {
            frames += self.section(&mut body);
        }
        let stored = (reference::HEADER_BYTES + body.len()).next_multiple_of(BLOCK);
        let stored = stored + usize::from(what == 40) * BLOCK;
        let mut batch = vec![0; stored];
        batch[reference::HEADER_BYTES..reference::HEADER_BYTES + body.len()].copy_from_slice(&body);
        let is_before = self.lsn < self.life_lsn;
        let epoch = if is_before { self.epoch.saturating_sub(1) } else { self.epoch };
        let durable = match self.input.u8() {
            back @ 0..=15 => self.lsn.saturating_sub(u64::from(back) * BLOCK as u64),
            16 => self.lsn + BLOCK as u64,
            _ => 0,
        };
        let lsn = if what == 41 { self.input.number() } else { self.lsn };
        let epoch = if what == 42 { self.input.number() } else { epoch };
        let chain = if what == 43 { self.input.u32() } else { self.chain };
        for (at, word) in [(8, lsn), (16, epoch), (24, durable), (32, 1)] {
            batch[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let numbers = [body.len() as u32, stored as u32, frames, sections.into(), 0, chain];
        for (at, number) in (40..).step_by(4).zip(numbers) {
            batch[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        batch[..4].copy_from_slice(b"RLb1");
        batch[64] = if frames == 0 { self.input.u8() % 4 } else { 0 };
        batch[66] = 1 + u8::from(what == 44);
        batch[72] = u8::from(what == 45);
        if what == 46 {
            let at = usize::from(self.input.u8()) % reference::HEADER_BYTES;
            batch[at] = self.input.u8();
        }
        let number = self.segments.len() as u64 + u64::from(what == 47);
        reseal_batch(&mut batch, 0, Some(reference::header_seed(&LOG, 0, number)));
        if what == 48 {
            let at = usize::from(self.input.u16()) % batch.len();
            batch[at] ^= 1 << (self.input.u8() % 8);
        }
        let at = self.at;
        let end = (at + batch.len()).min(SEGMENT_BYTES);
        if at < end {
            let file = self.file();
            file[at..end].copy_from_slice(&batch[..end - at]);
        }
        self.at += batch.len();
        self.lsn += batch.len() as u64;
        let at = if batch[64] == 2 { 68 } else { 4 };
        self.chain = super::pure::get_u32(&batch, at);
    }

    /// Adds a section to the body of a batch; gives the number of its frames.
    fn section(&mut self, body: &mut Vec<u8>) -> u32 {
        let (count, wrong) = (u32::from(self.input.u8() % 5), self.input.u8());
        let (mut frames, mut runs) = (Vec::new(), Vec::new());
        for frame in 0..count {
            let stream = u32::from(self.input.u8() % 4);
            let payload = self.input.u8();
            let kind = if stream == 0 { 4 + payload % 2 } else { 1 + payload % 3 };
            let payload = match kind {
                4 => [&[1, 0, 0, 0], &b"name"[..]].concat(),
                5 => [&[1, 0, 0, 0], &[0; 8][..]].concat(),
                _ => vec![payload; usize::from(payload) * if wrong == 1 { 40 } else { 1 }],
            };
            let at = frames.len();
            frames.resize(at + (16 + payload.len()).next_multiple_of(16), 0);
            let head = [0, payload.len() as u32, stream, u32::from(kind)];
            for (at, number) in (at..).step_by(4).zip(head) {
                frames[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            frames[at + 16..at + 16 + payload.len()].copy_from_slice(&payload);
            let run = [stream, u32::from(frame != 0 || wrong != 2), frame, 0];
            run.iter().for_each(|number| runs.extend_from_slice(&number.to_le_bytes()));
        }
        if wrong == 3 {
            let at = self.input.below(frames.len() + 1);
            if let Some(byte) = frames.get_mut(at) {
                *byte = self.input.u8();
            }
        }
        let head = [1, 0, 9, 0, frames.len() as u32, count, runs.len() as u32 / 16, 0];
        head.iter().for_each(|number: &u32| body.extend_from_slice(&number.to_le_bytes()));
        body.extend_from_slice(&frames);
        body.extend_from_slice(&runs);
        count
    }

    fn manifest(&self, clean: bool, proven: u64) -> Vec<u8> {
        let mut file = b"RLm1\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        file.extend_from_slice(&LOG);
        file.extend_from_slice(&[0, 0, u8::from(clean), 0, 0, 0, 0, 0]);
        let listed = self.segments.len() as u64;
        for word in [1, self.epoch, self.life_lsn, proven, listed + 1, 0, 0, listed] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&[0; 4]);
        for number in 1..=listed {
            file.extend_from_slice(&number.to_le_bytes());
            file.extend_from_slice(&[0; 4]);
        }
        let content = (file.len() - 16) as u32;
        file[12..16].copy_from_slice(&content.to_le_bytes());
        seal(&mut file, 4, 0);
        file
    }
}
