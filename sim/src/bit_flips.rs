//! Every bit of a cleanly closed log flipped once, each time in a log that is sound but for it.
//!
//! The log has a sealed segment, whose file of a chosen size is full of batches of every kind, the
//! segment that was open when it was closed, their indexes, a part of the catalogue, the manifest.
//! With each bit flipped the engine opens it for real, everything is read, and what comes of it must
//! fit the place:
//! - records that are returned are the right ones, at the right offsets; what is missing is told;
//! - what is told is damage ([`Corruption`]), and names the file, the segment and the batch;
//! - a refused open changes nothing, and no open removes a segment;
//! - what is told by nobody lies where the log has nothing, or is covered by a checksum that nobody
//!   needs to look at for the records (a segment's header and footer, frames that create a stream,
//!   marks): that checksum, which `verify` goes by, is looked at here.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ringlog::format::batch::{BatchHeader, HeaderSeed, check_body};
use ringlog::format::manifest::{Manifest, SegmentState};
use ringlog::format::segment::{SegmentFooter, SegmentHeader};
use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory};
use ringlog::{
    Corruption, Durability, LogId, Lsn, Offset, OpenError, Options, ReadError, Request, SegmentId,
    Time,
};

use crate::rng::Rng;
use crate::{SimDisk, SimWorld, WorldOptions};

const BLOCK: u64 = 4096;
const MS: u64 = 1_000_000;
/// Findings that are told.
const TOLD: usize = 10;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Bytes of the sealed segment's file; a multiple of 4096, at least 64 KiB.
    pub bytes: u64,
    /// How many flips are tried side by side.
    pub threads: usize,
    /// Decides what is in the log.
    pub seed: u64,
    /// Every so many bits; 1 for each.
    pub stride: u64,
    /// Only those of the bits with these numbers, counted through all files.
    pub from: u64,
    /// Where they end.
    pub until: u64,
    /// Ends with the first flip that is judged wrong.
    pub until_wrong: bool,
    /// For a test of this suite: nothing may be silent, not even where nothing is stored.
    pub expects_too_much: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            bytes: 128 << 10,
            threads: 2,
            seed: 1,
            stride: 1,
            from: 0,
            until: u64::MAX,
            until_wrong: false,
            expects_too_much: false,
        }
    }
}

/// What came of a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The open was refused, with the right place.
    Refused,
    /// A reader told it, with the right place, and read on behind it.
    ReadError,
    /// The closed segment was scanned instead of trusted: everything is there.
    Scanned,
    /// Everything is there; the place has a checksum of its own that does not fit any more.
    Checksum,
    /// Everything is there: it was in an index, which is made anew.
    Index,
    /// Everything is there: nothing is stored at this place.
    FreeSpace,
}

const OUTCOMES: [(Outcome, &str); 6] = [
    (Outcome::Refused, "refused by the open"),
    (Outcome::ReadError, "told by a reader"),
    (Outcome::Scanned, "scanned, nothing lost"),
    (Outcome::Checksum, "only a checksum tells"),
    (Outcome::Index, "index made anew"),
    (Outcome::FreeSpace, "free space"),
];

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of each region of the log: its name, and how many flips had which [`Outcome`].
    pub regions: Vec<(String, [u64; 6])>,
    /// Flips in the file of the sealed segment.
    pub segment_bits: u64,
    /// All flips.
    pub flips: u64,
    /// Flips that were judged wrong.
    pub wrong: u64,
    /// The first of them, in words.
    pub findings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// How many flips ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.regions.iter().map(|(_, counts)| counts[outcome as usize]).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, counts) in &self.regions {
            write!(f, "{name:>34}:")?;
            for ((_, what), count) in OUTCOMES.iter().zip(counts).filter(|(_, count)| **count > 0) {
                write!(f, " {count} {what};")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "{:>34}: {}", "bits of the sealed segment", self.segment_bits)?;
        writeln!(f, "{:>34}: {}", "flips", self.flips)?;
        writeln!(f, "{:>34}: {:.1}", "seconds", self.seconds)?;
        let speed = self.flips as f64 / self.seconds.max(0.001);
        writeln!(f, "{:>34}: {speed:.0}", "flips a second")?;
        writeln!(f, "{:>34}: {}", "wrong", self.wrong)
    }
}

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Manifest,
    Catalogue,
    Index,
    SealedHeader,
    SealedBatch,
    SealedFooter,
    ClosedHeader,
    ClosedBatch,
    ClosedLastBatch,
    Free,
}

/// A stretch of a file.
#[derive(Clone, Debug)]
struct Region {
    file: String,
    range: Range<u64>,
    kind: Kind,
    segment: Option<SegmentId>,
    /// LSN of the batch.
    lsn: Lsn,
}

/// A record: its stream, its offset, its payload.
type Read = (String, u64, Vec<u8>);

struct Log {
    world: SimWorld,
    identity: ShardIdentity,
    options: Options,
    now: Time,
    regions: Vec<Region>,
    content: Vec<Read>,
}

/// Flips every bit (or every so many).
///
/// # Errors
/// When the log to be damaged cannot be made.
pub fn run(size: Size) -> Result<Report, String> {
    let start = Instant::now();
    let log = Log::make(size)?;
    let next = AtomicU64::new(size.from);
    let ends: Vec<u64> = log
        .regions
        .iter()
        .scan(0, |end, region| {
            *end += (region.range.end - region.range.start) * 8;
            Some(*end)
        })
        .collect();
    let bits = ends.last().copied().unwrap_or(0).min(size.until);
    let report: Mutex<Report> = Mutex::default();
    let name_of = |region: &Region| format!("{} {:?}", region.file, region.kind);
    std::thread::scope(|scope| {
        for _ in 0..size.threads.clamp(1, 64) {
            scope.spawn(|| {
                ringlog_disk::keep_mappings(32);
                let Ok(memory) = ShardMemory::new(&log.options, size.bytes) else { return };
                let mut counts = vec![[0; 6]; log.regions.len()];
                let mut mine = Report::default();
                loop {
                    let from = next.fetch_add(64 * size.stride, Ordering::Relaxed);
                    if from >= bits {
                        break;
                    }
                    let until = (from + 64 * size.stride).min(bits);
                    for number in (from..until).step_by(size.stride as usize) {
                        let at = ends.partition_point(|end| *end <= number);
                        let before = if at == 0 { 0 } else { ends[at - 1] };
                        let region = &log.regions[at];
                        let bit = region.range.start * 8 + number - before;
                        mine.flips += 1;
                        match log.flip(region, bit, &memory, size.expects_too_much) {
                            Ok(outcome) => counts[at][outcome as usize] += 1,
                            Err(wrong) => {
                                mine.wrong += 1;
                                if size.until_wrong {
                                    next.store(bits, Ordering::Relaxed);
                                }
                                let (byte, bit) = (bit / 8, bit % 8);
                                let place = format!("{} byte {byte} bit {bit}", name_of(region));
                                let place = format!("bit {number}, {place}");
                                mine.findings.push(format!("{place}: {wrong}"));
                                mine.findings.truncate(TOLD);
                            }
                        }
                    }
                }
                let Ok(mut report) = report.lock() else { return };
                report.flips += mine.flips;
                report.wrong += mine.wrong;
                report.findings.extend(mine.findings);
                for (region, counts) in log.regions.iter().zip(counts) {
                    let name = name_of(region);
                    let place = report.regions.iter().position(|(known, _)| *known == name);
                    let place = place.unwrap_or_else(|| {
                        report.regions.push((name, [0; 6]));
                        report.regions.len() - 1
                    });
                    for (sum, more) in report.regions[place].1.iter_mut().zip(counts) {
                        *sum += more;
                    }
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_default();
    let sealed = log.regions.first().map(|region| region.file.clone()).unwrap_or_default();
    let of_sealed = report.regions.iter().filter(|(name, _)| name.starts_with(&sealed));
    report.segment_bits = of_sealed.map(|(_, counts)| counts.iter().sum::<u64>()).sum();
    report.seconds = start.elapsed().as_secs_f64();
    let ended = size.until_wrong && report.wrong > 0;
    if !ended && report.flips < bits.saturating_sub(size.from) / size.stride {
        return Err(format!("{} of {bits} bits were flipped: no memory", report.flips));
    }
    Ok(report)
}

impl Log {
    /// A log with one sealed segment and one that was open when it was closed.
    fn make(size: Size) -> Result<Self, String> {
        let mut rng = Rng::new(size.seed);
        let world = SimWorld::new(&WorldOptions {
            seed: rng.next_u64(),
            shuffled: false,
            ..WorldOptions::default()
        });
        let identity = ShardIdentity { log: LogId([9; 16]), shard: 1, segment_bytes: size.bytes };
        let options = Options { memory_bytes: 4 << 20, ..Options::default() };
        let now = Time { mono_ns: MS, wall_ns: 1_700_000_000_000 * MS };
        let mut log = Self { world, identity, options, now, regions: vec![], content: vec![] };
        log.fill(&mut rng, size.bytes)?;
        log.world.settle();
        log.world.mute();
        log.find_regions()?;
        let memory = ShardMemory::new(&log.options, size.bytes).map_err(|e| e.to_string())?;
        let (content, told, scanned) =
            log.read(&log.world.fork(), &memory).map_err(|e| e.to_string())?;
        if !told.is_empty() || scanned || content.len() < 20 {
            return Err(format!("the sound log is not: {told:?}, scanned {scanned}"));
        }
        log.content = content;
        Ok(log)
    }

    fn fill(&mut self, rng: &mut Rng, segment_bytes: u64) -> Result<(), String> {
        let memory = ShardMemory::new(&self.options, segment_bytes).map_err(|e| e.to_string())?;
        let mut disk = SimDisk::open(&self.world);
        DrivenShard::create(&mut disk, self.identity).map_err(|e| e.to_string())?;
        drop(disk);
        let disk = SimDisk::open(&self.world);
        let mut shard = DrivenShard::open(disk, self.identity, &self.options, &memory, self.now)
            .map_err(|e| e.to_string())?;
        let mut now = self.now;
        let mut turns = |shard: &mut DrivenShard<SimDisk>, count: usize, ns: u64| {
            for _ in 0..count {
                now.mono_ns += ns;
                now.wall_ns += ns;
                shard.turn(now);
            }
        };
        turns(&mut shard, 30, MS);
        let mut streams = Vec::new();
        for name in ["a", "another one", "z"] {
            streams.push(shard.create_stream(name).map_err(|e| e.to_string())?);
        }
        let limit = (segment_bytes / 12).min(24_000);
        let mut receipts = Vec::new();
        let mut left = 6;
        for round in 0..100_000 {
            if shard.counts().rotations >= 2 {
                left -= 1;
            }
            if left == 0 {
                break;
            }
            let count = if round % 3 == 0 { 1 + rng.index(6) } else { 1 };
            let mut payloads = Vec::new();
            for _ in 0..count {
                let few = rng.below(3) == 0;
                let len = rng.below(if few { 400 } else { limit }) / count as u64;
                payloads.push((0..len).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>());
            }
            let stream = streams[rng.index(streams.len())];
            let made = shard.append(0, stream, &payloads, Durability::Synced);
            receipts.push(made.map_err(|e| e.to_string())?);
            if round == 5 {
                let trim = shard.trim_stream(streams[0], Offset(1));
                receipts.push(trim.map_err(|e| e.to_string())?);
            }
            if rng.below(3) == 0 {
                turns(&mut shard, 12, if rng.below(4) == 0 { MS } else { 1_000 });
            }
        }
        let answer = shard.request(Request::Close);
        for _ in 0..1000 {
            turns(&mut shard, 1, MS);
            if answer.try_recv().is_ok() {
                let all = receipts.iter().all(ringlog::Receipt::is_acknowledged);
                return if all { Ok(()) } else { Err("not all is acknowledged".to_owned()) };
            }
        }
        Err("it is never closed".to_owned())
    }

    /// What lies where: of the sealed segment, of the closed one, and of all other files.
    fn find_regions(&mut self) -> Result<(), String> {
        let manifest = Manifest::decode(&self.world.read("manifest")).map_err(|e| e.to_string())?;
        let mut regions = Vec::new();
        for entry in &manifest.segments {
            let (sealed, is_closed) = match entry.state {
                SegmentState::Sealed { sealed, .. } => (sealed, false),
                SegmentState::Closed { so_far } => (so_far, true),
                SegmentState::Unsealed => continue,
            };
            let segment = entry.segment;
            let file = format!("{:016x}.seg", segment.0);
            let bytes = self.world.read(&file);
            let mut push = |range: Range<u64>, kind: Kind, lsn: Lsn| {
                let (file, segment) = (file.clone(), Some(segment));
                regions.push(Region { file, range, kind, segment, lsn });
            };
            let header = if is_closed { Kind::ClosedHeader } else { Kind::SealedHeader };
            push(0..BLOCK, header, sealed.base_lsn);
            let seed = HeaderSeed::new(self.identity.log, self.identity.shard, segment);
            let (mut at, mut lsn) = (BLOCK, sealed.base_lsn);
            while lsn < sealed.end_lsn {
                let (header, _) = BatchHeader::decode(&bytes[at as usize..], seed, lsn)
                    .map_err(|e| e.to_string())?;
                let end = at + u64::from(header.stored_bytes);
                let kind = match is_closed {
                    false => Kind::SealedBatch,
                    true if header.end() == sealed.end_lsn => Kind::ClosedLastBatch,
                    true => Kind::ClosedBatch,
                };
                push(at..end, kind, lsn);
                (at, lsn) = (end, header.end());
            }
            if !is_closed {
                push(at..at + BLOCK, Kind::SealedFooter, lsn);
                at += BLOCK;
            }
            let end =
                if is_closed { (at + BLOCK).min(bytes.len() as u64) } else { bytes.len() as u64 };
            if at < end {
                push(at..end, Kind::Free, lsn);
            }
        }
        for (file, bytes) in self.world.files() {
            let kind = match file.rsplit('.').next() {
                Some("manifest") => Kind::Manifest,
                Some("cat") => Kind::Catalogue,
                Some("idx") => Kind::Index,
                _ => continue,
            };
            regions.push(Region { file, range: 0..bytes, kind, segment: None, lsn: Lsn(0) });
        }
        let has = |kind: Kind| regions.iter().any(|region| region.kind == kind);
        let all = [Kind::SealedBatch, Kind::ClosedBatch, Kind::ClosedLastBatch, Kind::Catalogue];
        if let Some(missing) = all.into_iter().find(|kind| !has(*kind)) {
            return Err(format!("the log has no {missing:?}"));
        }
        self.regions = regions;
        Ok(())
    }

    /// Opens and reads everything: the records, the damage that readers told, and whether a segment
    /// was scanned.
    fn read(
        &self,
        world: &SimWorld,
        memory: &ShardMemory,
    ) -> Result<(Vec<Read>, Vec<Corruption>, bool), OpenError> {
        let disk = SimDisk::open(world);
        let shard = DrivenShard::open(disk, self.identity, &self.options, memory, self.now)?;
        let mut content = Vec::new();
        let mut told = Vec::new();
        for (id, name) in shard.streams() {
            let Ok(reader) = shard.read(Box::new(SimDisk::open(world)), *id, None) else {
                continue;
            };
            for item in reader {
                match item {
                    Ok(record) => content.push((
                        name.to_string(),
                        record.offset().0,
                        record.payload().to_vec(),
                    )),
                    Err(ReadError::Corrupt { corruption, .. }) => told.push(corruption),
                    Err(_) => {} // what is missing for it is missed below
                }
            }
        }
        let scanned = shard.recovery().bytes_scanned > 0;
        Ok((content, told, scanned))
    }

    fn flip(
        &self,
        region: &Region,
        bit: u64,
        memory: &ShardMemory,
        expects_too_much: bool,
    ) -> Result<Outcome, String> {
        let world = self.world.fork();
        world.flip_bit(&region.file, bit);
        let files = world.files();
        let outcome = match self.read(&world, memory) {
            Err(OpenError::Corrupt(corruption)) => {
                if world.files() != files {
                    return Err("a refused open has changed something".to_owned());
                }
                self.check_place(region, bit, &corruption)?;
                Outcome::Refused
            }
            Err(other) => return Err(format!("the wrong kind of error: {other:?}")),
            Ok((content, told, scanned)) => {
                self.check_content(&content, &told)?;
                for corruption in &told {
                    self.check_place(region, bit, corruption)?;
                }
                let after = world.files();
                let is_gone = |(name, bytes): &&(String, u64)| {
                    name.ends_with(".seg") && !after.contains(&(name.clone(), *bytes))
                };
                if let Some((gone, _)) = files.iter().find(is_gone) {
                    return Err(format!("{gone} is gone after the open"));
                }
                match () {
                    () if !told.is_empty() => Outcome::ReadError,
                    () if region.kind == Kind::Index => Outcome::Index,
                    () if scanned => Outcome::Scanned,
                    () if region.kind == Kind::Free => Outcome::FreeSpace,
                    () => {
                        self.check_checksum(&self.world, region, bit)?;
                        Outcome::Checksum
                    }
                }
            }
        };
        let fits = match region.kind {
            Kind::Manifest | Kind::Catalogue | Kind::ClosedHeader | Kind::ClosedLastBatch => {
                outcome == Outcome::Refused
            }
            Kind::SealedHeader | Kind::SealedFooter => outcome == Outcome::Checksum,
            Kind::SealedBatch | Kind::ClosedBatch => {
                matches!(outcome, Outcome::ReadError | Outcome::Checksum)
            }
            Kind::Index => outcome == Outcome::Index,
            Kind::Free => outcome == Outcome::FreeSpace && !expects_too_much,
        };
        if fits { Ok(outcome) } else { Err(format!("{outcome:?} does not belong here")) }
    }

    /// What is returned is right, and nothing is missing without a word.
    fn check_content(&self, content: &[Read], told: &[Corruption]) -> Result<(), String> {
        let mut expected = self.content.iter();
        for (stream, offset, payload) in content {
            let right = |read: &Read| read.0 == *stream && read.1 == *offset;
            match expected.find(|read| right(read)) {
                Some(read) if read.2 == *payload => {}
                Some(_) => return Err(format!("{stream}/{offset} is wrong")),
                None => return Err(format!("{stream}/{offset} is out of order, or nobody's")),
            }
        }
        let missing = self.content.len() - content.len();
        if missing > 0 && told.is_empty() {
            return Err(format!("{missing} records are missing without a word"));
        }
        Ok(())
    }

    /// The error names the place that was flipped.
    fn check_place(&self, region: &Region, bit: u64, told: &Corruption) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what} is wrong: {told:?}"));
        if told.file != region.file || told.shard != self.identity.shard {
            return wrong("the file");
        }
        if told.segment != region.segment {
            return wrong("the segment");
        }
        if region.segment.is_none() {
            return if told.file_offset == 0 { Ok(()) } else { wrong("the offset") };
        }
        // Within a batch it may be noticed behind the flip, where things do not add up.
        let is_batch =
            matches!(region.kind, Kind::SealedBatch | Kind::ClosedBatch | Kind::ClosedLastBatch);
        let end = if is_batch { region.range.end } else { bit / 8 + 1 };
        if !(region.range.start..end).contains(&told.file_offset) {
            return wrong("the offset");
        }
        match told.lsn {
            Some(lsn) if lsn != region.lsn => wrong("the LSN"),
            _ => Ok(()),
        }
    }

    /// Nobody had to look: but the checksum of the place does not fit any more.
    fn check_checksum(&self, world: &SimWorld, region: &Region, bit: u64) -> Result<(), String> {
        let all = world.read(&region.file);
        let mut bytes = all[region.range.start as usize..region.range.end as usize].to_vec();
        bytes[(bit / 8 - region.range.start) as usize] ^= 1 << (bit % 8);
        let silent = match (region.kind, region.segment) {
            (Kind::SealedHeader, _) => SegmentHeader::decode(&bytes).is_ok(),
            (Kind::SealedFooter, _) => SegmentFooter::decode(&bytes).is_ok(),
            (Kind::SealedBatch | Kind::ClosedBatch, Some(segment)) => {
                let ShardIdentity { log, shard, .. } = self.identity;
                let seed = HeaderSeed::new(log, shard, segment);
                match BatchHeader::decode(&bytes, seed, region.lsn) {
                    Ok((header, _)) => check_body(&header, &bytes, log, shard, |_| {}).is_ok(),
                    Err(_) => false,
                }
            }
            _ => true,
        };
        if silent { Err("O7: silent, and no checksum tells".to_owned()) } else { Ok(()) }
    }
}
