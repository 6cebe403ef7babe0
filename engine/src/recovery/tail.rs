//! Reading the unsealed segments: where the log ends, and how much of it is proven durable.

use std::collections::VecDeque;
use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{BlockPool, Disk, DiskError, DiskErrorKind, Done, FileId, Op};

use super::table::{Decision, Found, NextSegment, Proof, decide};
use super::watch::{Share, Watch};
use super::{Effects, Identity, ask, closed, read_effects};
use crate::error::{Corruption, OpenError};
use crate::format::Refused;
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchKind, HeaderSeed};
use crate::format::catalogue::CatalogueEntry;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::{SEGMENT_HEADER_BYTES, Sealed, SegmentFooter, SegmentHeader};
use crate::ids::{Lsn, SegmentId};
use crate::index::Postings;
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::shard::Streams;
use crate::window::Window;

/// The file id that scanning uses; free again afterwards.
pub(crate) const SCAN_FILE: FileId = FileId(FileId::LIMIT - 1);

/// A segment that holds part of the log.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) segment: SegmentId,
    pub(crate) so_far: Sealed,
    /// Where the records lie in it.
    pub(crate) postings: Arc<Postings>,
}

impl Part {
    /// A batch was found behind those that are known.
    pub(crate) fn add(&mut self, header: &BatchHeader, chain: u32, effects: &Effects) {
        let so_far = &mut self.so_far;
        if so_far.base_lsn == so_far.end_lsn {
            so_far.first_ns = header.timestamp_ns;
        }
        so_far.end_lsn = header.end();
        so_far.chain_end = chain;
        so_far.records += u64::from(header.frames);
        so_far.last_ns = header.timestamp_ns;
        let block = (header.lsn.0 - so_far.base_lsn.0) / BLOCK_BYTES as u64;
        let blocks = header.stored_bytes / BLOCK_BYTES as u32;
        let runs = effects.runs.iter().copied();
        self.postings.add_batch(block as u32, blocks, header.timestamp_ns, runs);
    }
}

/// A batch behind the proven end.
#[derive(Debug)]
pub(crate) struct Unproven {
    pub(crate) segment: SegmentId,
    pub(crate) file_offset: u64,
    pub(crate) header: BatchHeader,
    pub(crate) chain: u32,
    pub(crate) effects: Effects,
}

/// What the unsealed segments hold.
pub(crate) struct Tail {
    /// The end of the log.
    pub(crate) end: Lsn,
    pub(crate) last_ns: u64,
    /// Everything before this is durable; where the last proven batch ends.
    pub(crate) proven: Lsn,
    /// Chain value at `proven`.
    pub(crate) proven_chain: u32,
    /// Segments that hold proven batches, and what of each is proven.
    pub(crate) proven_parts: Vec<Part>,
    /// The streams as of `proven`.
    pub(crate) streams: Streams,
    /// For each of `proven_parts` but the last: what its part of the catalogue holds.
    pub(crate) catalogue: Vec<Vec<CatalogueEntry>>,
    /// Batches from `proven` to `end`.
    pub(crate) unproven: VecDeque<Unproven>,
    pub(crate) records: u64,
    pub(crate) bytes_scanned: u64,
    pub(crate) cut_reason: Option<String>,
    pub(crate) bytes_cut: u64,
    /// Damage below what was durable once. Then `end` is where it begins.
    pub(crate) corruption: Option<Corruption>,
    /// The largest LSN that anything says was durable once.
    pub(crate) told_durable: Lsn,
    /// Where damage was met: the segment that `end` lies in, and those behind it that have a
    /// readable first batch, each with where it begins. For reading what is left.
    pub(crate) behind: Vec<(SegmentId, Lsn)>,
}

impl Tail {
    /// The segment that holds the place behind what was found, and its base, when that lies behind
    /// some batch of it.
    pub(crate) fn inside(&self, at: Lsn) -> Option<(SegmentId, Lsn)> {
        match (self.unproven.back(), self.proven_parts.last()) {
            (Some(batch), _) => {
                let before = batch.file_offset - SEGMENT_HEADER_BYTES;
                Some((batch.segment, Lsn(batch.header.lsn.0 - before)))
            }
            (None, Some(part)) if part.so_far.end_lsn == at => {
                Some((part.segment, part.so_far.base_lsn))
            }
            _ => None,
        }
    }

    /// The newest segment that was read.
    pub(crate) fn last_segment(&self) -> Option<SegmentId> {
        let unproven = self.unproven.back().map(|batch| batch.segment);
        unproven.or(self.proven_parts.last().map(|part| part.segment))
    }

    /// Forgets what was found and begins anew behind the sealed segments.
    pub(crate) fn restart(&mut self, sealed_end: Lsn, chain: u32, streams: Streams) {
        (self.end, self.proven, self.proven_chain) = (sealed_end, sealed_end, chain);
        self.proven_parts.clear();
        self.unproven.clear();
        self.catalogue.clear();
        self.streams = streams;
    }
}

/// A valid batch is taken, whatever lies behind it: so batches can be taken one after another, and
/// the other evidence is looked for only where they stop.
const _: () = {
    assert!(matches!(
        decide(Found::Batch, NextSegment::DoesNotJoin, Proof::NotBeyond),
        Decision::Take
    ));
};

/// Which lives may have written at an LSN.
pub(crate) fn epoch_fits(manifest: &Manifest, header: &BatchHeader) -> bool {
    if planted(Bug::AcceptEveryEpoch) {
        true
    } else if header.lsn >= manifest.life_lsn {
        header.epoch == manifest.epoch
    } else {
        header.epoch < manifest.epoch
    }
}

struct Scan<'a> {
    disk: &'a mut dyn Disk,
    identity: Identity,
    manifest: &'a Manifest,
    pool: BlockPool,
    tail: Tail,
    chain: u32,
    /// The largest durable LSN that anything has told of.
    told_durable: Lsn,
    /// Bytes of batches behind the place where the log stops.
    behind: u64,
    purpose: Purpose,
    share: Share<'a>,
}

/// What is to become of the end that a scan finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is only looked at. A writer may move it on between two reads.
    Look,
    /// The log is locked, and what lies behind its end will be written over: a disk that gave wrong
    /// bytes once may not be believed about that, so the end is read twice.
    Write,
}

enum Opened {
    Yes(Window),
    Damaged(Corruption),
}

/// Scans the unsealed segments through blocks of `pool` (see [`crate::window::pool_for`]). Changes nothing on
/// disk.
///
/// # Errors
/// Of the disk, and an unknown version. Damage is not an error here; see [`Tail::corruption`].
pub(crate) fn scan(
    disk: &mut dyn Disk,
    identity: &Identity,
    manifest: &Manifest,
    streams: Streams,
    pool: &BlockPool,
) -> Result<Tail, OpenError> {
    scan_watched(disk, identity, manifest, streams, pool, (Purpose::Look, None))
}

/// The same, for somebody with a purpose, who may want to know how far it has come.
pub(crate) fn scan_watched(
    disk: &mut dyn Disk,
    identity: &Identity,
    manifest: &Manifest,
    streams: Streams,
    pool: &BlockPool,
    (purpose, watch): (Purpose, Option<&Watch>),
) -> Result<Tail, OpenError> {
    let purpose = match purpose {
        Purpose::Look if planted(Bug::DoubtTheWriter) => Purpose::Write,
        Purpose::Write if planted(Bug::ReadEndOnce) => Purpose::Look,
        purpose => purpose,
    };
    let (start, chain) = manifest.sealed_end();
    let tail = Tail {
        end: start,
        last_ns: last_sealed_ns(manifest),
        proven: start,
        proven_chain: chain,
        proven_parts: Vec::new(),
        streams,
        catalogue: Vec::new(),
        unproven: VecDeque::new(),
        records: 0,
        bytes_scanned: 0,
        cut_reason: None,
        bytes_cut: 0,
        corruption: None,
        told_durable: start,
        behind: Vec::new(),
    };
    let mut scan = Scan {
        disk,
        identity: *identity,
        manifest,
        pool: pool.clone(),
        tail,
        chain,
        told_durable: manifest.proven_lsn.max(start),
        behind: 0,
        purpose,
        share: Share::new(watch),
    };
    match closed::part(scan.disk, identity, manifest)? {
        Some(part) => scan.take_closed(part),
        // Nothing was open when the log was closed.
        None if manifest.clean && manifest.proven_lsn == start => {}
        None => scan.segments()?,
    }
    scan.prove();
    scan.tail.told_durable = scan.told_durable;
    if scan.tail.corruption.is_none() {
        scan.tail.behind.clear();
    }
    Ok(scan.tail)
}

fn last_sealed_ns(manifest: &Manifest) -> u64 {
    manifest
        .segments
        .iter()
        .filter_map(|entry| match entry.state {
            SegmentState::Sealed { sealed, .. } => Some(sealed.last_ns),
            SegmentState::Closed { so_far } => Some(so_far.last_ns),
            SegmentState::Unsealed => None,
        })
        .max()
        .unwrap_or(0)
}

impl Scan<'_> {
    /// The log ends where the manifest of a clean close says.
    fn take_closed(&mut self, part: Part) {
        self.chain = part.so_far.chain_end;
        self.tail.end = part.so_far.end_lsn;
        self.tail.proven = part.so_far.end_lsn;
        self.tail.proven_chain = part.so_far.chain_end;
        self.tail.proven_parts.push(part);
    }

    fn segments(&mut self) -> Result<(), OpenError> {
        let unsealed: Vec<SegmentId> = self.manifest.unsealed().collect();
        self.share.expect(unsealed.len() as u64 * self.identity.segment_bytes);
        for (at, segment) in unsealed.iter().copied().enumerate() {
            let base = self.tail.end;
            self.tail.behind = vec![(segment, base)];
            let mut window = match self.open(segment)? {
                Opened::Yes(window) => window,
                Opened::Damaged(corruption) => {
                    self.look_into_later(&unsealed[at + 1..])?;
                    return self.damaged(corruption);
                }
            };
            let stop = self.end_of(segment, &mut window)?;
            let clean_end = self.manifest.clean && self.tail.end == self.manifest.proven_lsn;
            if !clean_end {
                // The rest of this segment may still hold a header that proves something.
                let from = stop.file_offset + BLOCK_BYTES as u64;
                self.look_for_proof(segment, &mut window, from, Some(base.0))?;
            }
            self.close(window)?;
            let next = match clean_end {
                true => NextSegment::DoesNotJoin,
                false => self.look_into_later(&unsealed[at + 1..])?,
            };
            if self.tail.corruption.is_some() {
                return Ok(());
            }
            let here = self.tail.end;
            let beyond = self.told_durable > here && !planted(Bug::CutDurableSilently);
            let beyond = beyond || planted(Bug::RefuseTornTail) && stop.remains;
            let proof = if beyond { Proof::Beyond } else { Proof::NotBeyond };
            match decide(Found::Other, next, proof) {
                Decision::Take | Decision::NextSegment => {}
                Decision::Cut => {
                    if stop.remains {
                        self.tail.bytes_cut = self.behind + BLOCK_BYTES as u64;
                        self.tail.cut_reason = Some(stop.why);
                    }
                    return Ok(());
                }
                Decision::Corrupt => {
                    let what = format!("{}; LSN {} was durable once", stop.why, self.told_durable);
                    let file = names::segment(segment);
                    let (file, at) = (file.as_str(), stop.file_offset);
                    let corruption =
                        self.identity.corruption(Some(segment), file, at, Some(here), what);
                    return self.damaged(corruption);
                }
            }
        }
        let end = self.tail.end;
        if self.told_durable > end {
            let what = format!(
                "the log ends at LSN {end}, but LSN {} was durable once",
                self.told_durable
            );
            let file = names::MANIFEST_FILE;
            return self.damaged(self.identity.corruption(None, file, 0, Some(end), what));
        }
        Ok(())
    }

    fn damaged(&mut self, corruption: Corruption) -> Result<(), OpenError> {
        self.tail.corruption.get_or_insert(corruption);
        Ok(())
    }

    fn close(&mut self, mut window: Window) -> Result<(), OpenError> {
        window.drop_all(self.disk);
        // What is looked at twice counts once.
        self.tail.bytes_scanned += window.bytes_read.min(self.identity.segment_bytes);
        ask(self.disk, Op::Close { file: SCAN_FILE })?;
        Ok(())
    }

    fn open(&mut self, segment: SegmentId) -> Result<Opened, OpenError> {
        let name = names::segment(segment);
        let identity = self.identity;
        let damaged = |what: &str| identity.corruption(Some(segment), name.as_str(), 0, None, what);
        let opened = ask(self.disk, Op::Open { file: SCAN_FILE, name: name.clone(), write: false });
        let bytes = match opened {
            Ok(Done::Opened { bytes }) => bytes,
            Ok(_) => 0,
            Err(error) if error.kind == DiskErrorKind::NotFound => {
                return Ok(Opened::Damaged(damaged("a listed segment is missing")));
            }
            Err(error) if error.kind == DiskErrorKind::Unexpected => {
                return Ok(Opened::Damaged(damaged("a listed segment is no regular file")));
            }
            Err(error) => return Err(error.into()),
        };
        let mut window = Window::new(self.pool.clone(), SCAN_FILE, bytes);
        let header = SegmentHeader::decode(window.peek(self.disk, 0, BLOCK_BYTES)?);
        let wrong = match header {
            Ok(header)
                if header.log == identity.log
                    && header.shard == identity.shard
                    && header.segment == segment
                    && header.segment_bytes == identity.segment_bytes =>
            {
                (bytes < identity.segment_bytes)
                    .then(|| format!("{bytes} bytes long instead of {}", identity.segment_bytes))
            }
            Ok(header) => Some(format!(
                "a segment {} of log {}, shard {}",
                header.segment, header.log, header.shard
            )),
            Err(refused @ (Refused::Version(_) | Refused::Features(_))) => {
                self.close(window)?;
                return Err(identity.refused(name.as_str(), refused));
            }
            Err(Refused::Damaged(what)) => Some(what),
        };
        match wrong {
            None => Ok(Opened::Yes(window)),
            Some(what) => {
                self.close(window)?;
                Ok(Opened::Damaged(damaged(&what)))
            }
        }
    }

    /// Takes batches as long as they validate. Where they stop is read twice by who will write there.
    fn end_of(&mut self, segment: SegmentId, window: &mut Window) -> Result<Stop, OpenError> {
        let base = self.tail.end;
        window.read_on();
        let first = self.batches(segment, base, window)?;
        if self.purpose == Purpose::Look {
            return Ok(first);
        }
        // One block is all that the second look is for.
        window.begin_again(self.disk);
        let stop = self.batches(segment, base, window)?;
        match stop.file_offset == first.file_offset {
            true => Ok(stop),
            false => Err(differs(segment, first.file_offset)),
        }
    }

    /// Takes batches from the end of what is known, as long as they validate.
    fn batches(
        &mut self,
        segment: SegmentId,
        base: Lsn,
        window: &mut Window,
    ) -> Result<Stop, OpenError> {
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, segment);
        loop {
            let lsn = self.tail.end;
            let file_offset = SEGMENT_HEADER_BYTES + (lsn.0 - base.0);
            let stop = |why: String, remains: bool| Stop { file_offset, why, remains };
            let block = window.get(self.disk, file_offset, BLOCK_BYTES)?;
            let blank = block.iter().all(|byte| *byte == 0);
            let (header, chain) = match BatchHeader::decode(block, seed, lsn) {
                Ok(decoded) => decoded,
                Err(refused @ (Refused::Version(_) | Refused::Features(_))) => {
                    let file = names::segment(segment);
                    return Err(self.identity.refused(file.as_str(), refused));
                }
                Err(Refused::Damaged(why)) => {
                    let footer = SegmentFooter::decode(block).is_ok();
                    return Ok(stop(why, !blank && !footer));
                }
            };
            let chained = header.previous == self.chain || planted(Bug::SkipChainCheck);
            if !chained || !epoch_fits(self.manifest, &header) {
                return Ok(stop("a batch of an older life".into(), false));
            }
            let stored = header.stored_bytes as usize;
            let batch = window.get(self.disk, file_offset, stored)?;
            let effects = match read_effects(&header, batch, &self.identity) {
                Ok(effects) => effects,
                Err((at, what)) => {
                    return Ok(stop(format!("byte {at} of a batch: {what}"), true));
                }
            };
            self.chain = chain;
            self.told_durable = self.told_durable.max(header.durable_lsn);
            self.tail.end = header.end();
            self.tail.last_ns = self.tail.last_ns.max(header.timestamp_ns);
            self.tail.records += effects.records;
            self.tail.unproven.push_back(Unproven { segment, file_offset, header, chain, effects });
            self.share.done(stored as u64);
            self.fold();
        }
    }

    /// Whether the first of the later segments goes on where this one ends; if not, whether any of
    /// them proves that this one should not end here.
    fn look_into_later(&mut self, later: &[SegmentId]) -> Result<NextSegment, OpenError> {
        for (at, segment) in later.iter().copied().enumerate() {
            let mut window = match self.open(segment)? {
                Opened::Yes(window) => window,
                Opened::Damaged(corruption) => {
                    // Listed segments were whole before they were listed.
                    self.damaged(corruption)?;
                    continue;
                }
            };
            let (mut first, mut joins) = self.first_batch(segment, &mut window)?;
            if !joins && self.purpose == Purpose::Write {
                // As at the end of a segment: this may decide that the log ends.
                window.drop_all(self.disk);
                let before = first.take();
                (first, joins) = self.first_batch(segment, &mut window)?;
                if joins || first != before {
                    return Err(differs(segment, SEGMENT_HEADER_BYTES));
                }
            }
            if at == 0 && joins && !planted(Bug::ForgetNextSegment) {
                self.close(window)?;
                return Ok(NextSegment::Joins);
            }
            if let Some(header) = first {
                self.tail.behind.push((segment, header.lsn));
            }
            // Also where its first batch cannot be read: those behind it may prove that it was
            // durable.
            self.look_for_proof(segment, &mut window, SEGMENT_HEADER_BYTES, None)?;
            self.close(window)?;
        }
        Ok(NextSegment::DoesNotJoin)
    }

    /// The header of the first batch of a later segment, and whether the batch is whole and goes on
    /// where the log has come to.
    fn first_batch(
        &mut self,
        segment: SegmentId,
        window: &mut Window,
    ) -> Result<(Option<BatchHeader>, bool), OpenError> {
        let header = self.first_header(segment, window)?;
        let joins = match &header {
            Some(header) if header.lsn == self.tail.end && header.previous == self.chain => {
                self.is_whole(header, window)?
            }
            _ => false,
        };
        Ok((header, joins))
    }

    fn is_whole(&mut self, header: &BatchHeader, window: &mut Window) -> Result<bool, OpenError> {
        let stored = header.stored_bytes as usize;
        let batch = window.get(self.disk, SEGMENT_HEADER_BYTES, stored)?;
        Ok(read_effects(header, batch, &self.identity).is_ok())
    }

    /// The header of the first batch of a segment, wherever in the log that lies.
    fn first_header(
        &mut self,
        segment: SegmentId,
        window: &mut Window,
    ) -> Result<Option<BatchHeader>, OpenError> {
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, segment);
        let block = window.peek(self.disk, SEGMENT_HEADER_BYTES, BLOCK_BYTES)?;
        let Some(lsn) = block.get(8..16) else { return Ok(None) };
        let lsn = Lsn(crate::format::bytes::get_u64(lsn, 0));
        let header = BatchHeader::decode(block, seed, lsn).ok().map(|(header, _)| header);
        Ok(header.filter(|header| epoch_fits(self.manifest, header)))
    }

    /// Looks at every block for the header of a batch of this segment, and keeps the largest
    /// durable LSN that one tells of. `base`: where the segment begins; the first header tells it
    /// where nothing else does.
    fn look_for_proof(
        &mut self,
        segment: SegmentId,
        window: &mut Window,
        from: u64,
        mut base: Option<u64>,
    ) -> Result<(), OpenError> {
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, segment);
        let mut offset = from;
        while offset < self.identity.segment_bytes {
            let block = window.get(self.disk, offset, BLOCK_BYTES)?;
            let Some(bytes) = block.get(..BATCH_HEADER_BYTES) else { break };
            let before = offset - SEGMENT_HEADER_BYTES;
            let lsn = match base {
                Some(base) => base.saturating_add(before),
                None => crate::format::bytes::get_u64(bytes, 8),
            };
            if let Ok((header, _)) = BatchHeader::decode(bytes, seed, Lsn(lsn))
                && epoch_fits(self.manifest, &header)
                && let Some(begins) = lsn.checked_sub(before)
                && !planted(Bug::IgnoreProofInHeaders)
            {
                base = Some(begins);
                self.told_durable = self.told_durable.max(header.durable_lsn);
                self.behind += u64::from(header.stored_bytes);
            }
            offset += BLOCK_BYTES as u64;
        }
        Ok(())
    }

    /// Moves batches that are proven by now out of the list of the unproven.
    fn fold(&mut self) {
        while let Some(batch) = self.tail.unproven.front() {
            if batch.header.end() > self.told_durable {
                return;
            }
            let Some(batch) = self.tail.unproven.pop_front() else { return };
            take_proven(&mut self.tail, batch);
        }
    }

    fn prove(&mut self) {
        self.fold();
        // A watermark proves what lies before it, but nobody needs it to be proven.
        let holds_records = |batch: &Unproven| batch.header.kind != BatchKind::Watermark;
        if !self.tail.unproven.iter().any(holds_records) {
            self.tail.unproven.clear();
            self.tail.end = self.tail.proven;
        }
    }
}

/// The disk has given other bytes than before.
pub(super) fn differs(segment: SegmentId, file_offset: u64) -> OpenError {
    let name = names::segment(segment);
    let doing = format!("read {name} at byte {file_offset} twice: it gave different bytes");
    DiskError::new(DiskErrorKind::Io, doing).into()
}

struct Stop {
    file_offset: u64,
    why: String,
    /// Whether something of a batch is there.
    remains: bool,
}

/// Counts a batch as proven. Where it is the first of its segment, the one before is complete.
pub(crate) fn take_proven(tail: &mut Tail, batch: Unproven) {
    let Unproven { segment, header, chain, effects, .. } = batch;
    if tail.proven_parts.last().is_none_or(|part| part.segment != segment) {
        if !tail.proven_parts.is_empty() {
            let changes = tail.streams.take_changes();
            tail.catalogue.push(changes);
        }
        tail.proven_parts.push(Part {
            segment,
            so_far: Sealed {
                base_lsn: header.lsn,
                end_lsn: header.lsn,
                chain_before: tail.proven_chain,
                chain_end: tail.proven_chain,
                records: 0,
                first_ns: header.timestamp_ns,
                last_ns: header.timestamp_ns,
            },
            postings: Arc::default(),
        });
    }
    if let Some(part) = tail.proven_parts.last_mut() {
        part.add(&header, chain, &effects);
    }
    effects.apply(&mut tail.streams);
    tail.proven = header.end();
    tail.proven_chain = chain;
}
