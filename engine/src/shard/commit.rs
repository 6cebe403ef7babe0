//! From pending chunks to one write: placement, coalescing, headers.

use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{Block, Flush, Op, Slice, Tag};

use super::retention::Reason;
use super::{Commit, Flight, Load, PIPELINE_BYTES, Shard, Time, WATERMARK_AFTER_NS};
use crate::chunk::{Chunk, FRAMES_START};
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader, BatchKind, HeaderSeed, Run};
use crate::format::segment::SEGMENT_HEADER_BYTES;
use crate::ids::{Lsn, SegmentId, StreamId};
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES, COALESCE_BYTES_MAX};
use crate::options::Durability;
use crate::receipt::{Level, Ticket};
use crate::recent::Kept;

/// Bytes that a batch with so many bytes of sections takes on disk.
fn stored_bytes(body: usize) -> usize {
    (BATCH_HEADER_BYTES + body).next_multiple_of(BLOCK_BYTES)
}

/// Small chunks that are being copied together into one batch.
struct Gathered {
    block: Block,
    body: usize,
    frames: u32,
    sections: u32,
    meta: crc32fast::Hasher,
}

/// What a commit carries so far.
struct Draft {
    slices: Vec<Slice>,
    tickets: Vec<Option<Arc<Ticket>>>,
    level: Durability,
    records: u64,
    loads: [Load; 3],
    batches: u64,
    bytes: usize,
}

impl Shard {
    /// Makes the next commit out of pending chunks, if it is time for one.
    pub(super) fn form_commit(&mut self, now: Time) -> Option<(Tag, Op)> {
        if !self.commit_is_due(now) {
            return None;
        }
        self.rotate_for_memory();
        let first = self.pending.front()?.section().section_bytes();
        let room = self.room_for(stored_bytes(first))?;
        let before = self.staged;
        let draft = self.fill(room, now)?;
        self.no_room = false;
        self.pressed &= !self.pending.is_empty();
        self.counts.commits += 1;
        self.counts.batches += draft.batches;
        self.counts.bytes_written += draft.bytes as u64;
        self.counts.records += draft.records;
        self.counts.acknowledged += draft.loads[Durability::Memory as usize];
        let flush = self.choose_flush(now);
        let wants_sync = draft.level == Durability::Synced;
        self.writes_in_flight += 1;
        self.oldest_pending_ns = now.mono_ns;
        let write = self.write(before, draft.slices, draft.tickets, wants_sync, flush, now);
        if let Some(commit) = self.commits.back_mut() {
            commit.loads = draft.loads;
        }
        Some(write)
    }

    fn commit_is_due(&self, now: Time) -> bool {
        if self.pending.is_empty() || self.writes_in_flight >= self.config.commits_in_flight {
            return false;
        }
        if self.writes_in_flight > 0 {
            // Coalesce first, pipeline second.
            let apart = self.pending.front().is_some_and(|chunk| chunk.apart);
            return !apart && self.pending_bytes >= PIPELINE_BYTES.min(self.config.commit_bytes);
        }
        self.pressed
            || self.pending_bytes >= self.config.commit_bytes
            || !self.held && now.mono_ns >= self.oldest_pending_ns + self.config.linger_ns
    }

    /// Bytes left in the open segment, which is changed for the next one if `need` does not fit.
    fn room_for(&mut self, need: usize) -> Option<usize> {
        loop {
            let room = self.rotation.room(&self.config) as usize;
            if need <= room {
                return Some(room);
            }
            if self.rotation.open.is_some() {
                if !self.sealing_has_room() || !self.rotation.has_next() {
                    return self.note_no_room();
                }
                self.seal_open_segment(Reason::Size);
            }
            if !self.open_next_segment() {
                return self.note_no_room();
            }
        }
    }

    /// There is no segment for what waits: for the moment, or because the disk is full.
    fn note_no_room(&mut self) -> Option<usize> {
        if self.rotation.cannot_go_on() {
            self.refuse_unplaced(self.is_closing());
            self.no_room = !self.pending.is_empty();
        }
        None
    }

    fn fill(&mut self, room: usize, now: Time) -> Option<Draft> {
        let mut draft = Draft {
            slices: Vec::with_capacity(4),
            tickets: Vec::with_capacity(self.pending.len().min(64)),
            level: Durability::Memory,
            records: 0,
            loads: Default::default(),
            batches: 0,
            bytes: 0,
        };
        let bytes_max = room.min(self.config.commit_bytes);
        let mut gathered: Option<Gathered> = None;
        while let Some(chunk) = self.pending.front() {
            let section = chunk.section().section_bytes();
            let alone = gathered.is_none() && self.pending.len() == 1;
            let gather = section <= COALESCE_BYTES_MAX && !alone;
            // What is written if this chunk joins: what is closed, what is gathered, and itself.
            let body = gathered.as_ref().map_or(0, |gathered| gathered.body);
            let joins = gather
                && gathered.as_ref().is_none_or(|gathered| {
                    BATCH_HEADER_BYTES + body + section <= gathered.block.len()
                });
            let more = match (joins, body) {
                (true, _) => stored_bytes(body + section),
                (false, 0) => stored_bytes(section),
                (false, body) => stored_bytes(body) + stored_bytes(section),
            };
            let fits = draft.bytes + more <= bytes_max;
            let is_first = draft.batches == 0 && gathered.is_none();
            let apart = chunk.apart || planted(Bug::SplitCommits);
            if !(fits || is_first && more <= room) || apart && !is_first {
                break;
            }
            if !joins && let Some(full) = gathered.take() {
                self.close_gathered(&mut draft, full, now);
            }
            if gather && gathered.is_none() {
                let Some(block) = self.config.batch_blocks.take() else { break };
                let meta = crc32fast::Hasher::new();
                gathered = Some(Gathered { block, body: 0, frames: 0, sections: 0, meta });
            }
            let Some(chunk) = self.pending.pop_front() else { break };
            self.pending_bytes -= section;
            self.placed_to = chunk.number;
            draft.level = draft.level.max(chunk.level);
            draft.records += u64::from(chunk.frames);
            match &mut gathered {
                Some(gathered) if gather => {
                    let lsn = self.staged;
                    self.gather(&mut draft, gathered, *chunk, lsn, now);
                }
                _ => self.send_untouched(&mut draft, *chunk, now),
            }
            if apart {
                break;
            }
        }
        if let Some(gathered) = gathered {
            self.close_gathered(&mut draft, gathered, now);
        }
        (draft.batches > 0).then_some(draft)
    }

    /// Gives a chunk's runs their offsets and its receipts their place.
    fn place(&mut self, draft: &mut Draft, chunk: &mut Chunk, lsn: Lsn, now: Time) -> Vec<Run> {
        for (stream, name) in chunk.created.drain(..) {
            self.plans.know(stream, &name);
            self.streams.created(stream, name);
        }
        for (stream, before) in chunk.trimmed.drain(..) {
            self.streams.trim(stream, before);
            self.trims.push_back((lsn, stream, before));
            self.reclaimer.note();
        }
        for (run, bytes) in chunk.runs.iter_mut().zip(&chunk.run_bytes) {
            self.streams.place(run);
            let (records, level) = (u64::from(run.count), chunk.level);
            self.plans.placed(run.stream, records, *bytes, level, now.mono_ns);
            if run.stream != StreamId::CATALOGUE {
                draft.loads[level as usize] += Load { records, bytes: *bytes };
            }
        }
        if chunk.level == Durability::Memory {
            self.acks.extend(chunk.ticket.clone().map(|ticket| (ticket, Level::Placed)));
        }
        draft.tickets.push(chunk.ticket.clone());
        self.runs.extend(chunk.runs.iter().map(|run| (run.stream, run.base, run.count)));
        if let Some(ticket) = &chunk.ticket {
            ticket.place(lsn, chunk.runs.clone());
        }
        std::mem::take(&mut chunk.runs)
    }

    /// Copies a small chunk behind the others.
    fn gather(
        &mut self,
        draft: &mut Draft,
        to: &mut Gathered,
        mut chunk: Chunk,
        lsn: Lsn,
        now: Time,
    ) {
        let section = chunk.section();
        let runs = self.place(draft, &mut chunk, lsn, now);
        let start = BATCH_HEADER_BYTES + to.body;
        let out = &mut to.block[start..start + section.section_bytes()];
        let frames = FRAMES_START..FRAMES_START + chunk.frames_bytes;
        let frames_at = FRAMES_START - BATCH_HEADER_BYTES;
        out[frames_at..frames_at + chunk.frames_bytes].copy_from_slice(&chunk.block[frames]);
        section.encode(&runs, out, &mut to.meta);
        to.body += section.section_bytes();
        to.frames += chunk.frames;
        to.sections += 1;
    }

    fn close_gathered(&mut self, draft: &mut Draft, gathered: Gathered, now: Time) {
        let Gathered { block, body, frames, sections, meta } = gathered;
        self.close_batch(draft, block, body, (frames, sections), meta, now);
    }

    /// A chunk becomes a batch by itself; its payload is not touched.
    fn send_untouched(&mut self, draft: &mut Draft, mut chunk: Chunk, now: Time) {
        let section = chunk.section();
        let lsn = self.staged;
        let runs = self.place(draft, &mut chunk, lsn, now);
        let mut meta = crc32fast::Hasher::new();
        let body = section.section_bytes();
        let out = &mut chunk.block[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + body];
        section.encode(&runs, out, &mut meta);
        self.close_batch(draft, chunk.block, body, (section.frames, 1), meta, now);
    }

    fn close_batch(
        &mut self,
        draft: &mut Draft,
        mut block: Block,
        body: usize,
        (frames, sections): (u32, u32),
        meta: crc32fast::Hasher,
        now: Time,
    ) {
        let stored = stored_bytes(body);
        assert!(stored <= BATCH_BYTES_MAX, "no reader could take a batch of {stored} bytes");
        block[BATCH_HEADER_BYTES + body..stored].fill(0);
        let mut header = self.header(BatchKind::Records, stored, now);
        header.body_bytes = body as u32;
        header.frames = frames;
        header.sections = sections;
        header.meta_crc = meta.finalize();
        self.seal_header(&header, &mut block);
        if self.config.recent.is_wanted_early() {
            let kept = Kept::Copied(block[..stored].into());
            self.config.recent.keep(header, self.chain, kept);
        }
        draft.slices.push(Slice { block, len: stored });
        draft.batches += 1;
        draft.bytes += stored;
    }

    fn header(&mut self, kind: BatchKind, stored: usize, now: Time) -> BatchHeader {
        self.last_ns = self.last_ns.max(now.wall_ns);
        BatchHeader {
            kind,
            lsn: self.staged,
            epoch: self.config.epoch,
            durable_lsn: if planted(Bug::WriteDurableLsnTooLarge) {
                self.staged
            } else {
                self.durable
            },
            timestamp_ns: self.last_ns,
            body_bytes: 0,
            stored_bytes: stored as u32,
            frames: 0,
            sections: 0,
            meta_crc: 0,
            previous: self.chain,
            resume: 0,
        }
    }

    /// Writes the header, chains it, and moves the end of the log behind it.
    fn seal_header(&mut self, header: &BatchHeader, block: &mut Block) {
        let Some(open) = &mut self.rotation.open else { return };
        let seed = HeaderSeed::new(self.config.log, self.config.shard, open.segment);
        self.chain = header.encode(seed, block);
        self.staged = header.end();
        self.recorded_durable = header.durable_lsn;
        let so_far = &mut open.so_far;
        if so_far.base_lsn == so_far.end_lsn {
            so_far.first_ns = header.timestamp_ns;
        }
        so_far.end_lsn = self.staged;
        so_far.chain_end = self.chain;
        so_far.records += u64::from(header.frames);
        so_far.last_ns = header.timestamp_ns;
        let block = (header.lsn.0 - so_far.base_lsn.0) / BLOCK_BYTES as u64;
        let blocks = header.stored_bytes / BLOCK_BYTES as u32;
        let runs = self.runs.drain(..);
        open.postings.add_batch(block as u32, blocks, header.timestamp_ns, runs);
    }

    /// Keeps the batches of a commit that was written, for followers.
    pub(super) fn keep_recent(&self, segment: SegmentId, end: Lsn, slices: Vec<Slice>) {
        let config = &self.config;
        let seed = HeaderSeed::new(config.log, config.shard, segment);
        let total: usize = slices.iter().map(|slice| slice.len).sum();
        let mut lsn = Lsn(end.0 - total as u64);
        for Slice { block, len } in slices {
            let at = lsn;
            lsn.0 += len as u64;
            if config.recent.holds(at) {
                continue;
            }
            let Ok((header, chain)) = BatchHeader::decode(&block, seed, at) else { continue };
            let reserved = [config.batch_blocks.id(), config.meta_blocks.id()];
            let kept = match reserved.contains(&block.pool_id()) || len * 2 < block.len() {
                true => Kept::Copied(block[..len].into()),
                false => Kept::Block(block, len),
            };
            config.recent.keep(header, chain, kept);
        }
    }

    /// What is to be flushed with this commit. A flush covers only what was written before it; so
    /// where earlier plain writes to this file are still under way, this one goes out plain, too,
    /// and one flush for all follows.
    fn choose_flush(&mut self, now: Time) -> Flush {
        if !self.plans.with_commit(now.mono_ns) {
            return Flush::No;
        }
        self.plans.begun();
        let Some(segment) = self.rotation.open.as_ref().map(|open| open.segment) else {
            return Flush::No;
        };
        let covered = |commit: &Commit| commit.flushed || commit.flush_travels;
        let (mut here, mut here_all_written) = (false, true);
        for commit in self.commits.iter().filter(|commit| !covered(commit)) {
            if commit.segment == segment {
                here = true;
                here_all_written &= commit.written;
            } else {
                // Another file: it takes a flush of its own.
                self.sync_wanted = self.sync_wanted.max(commit.end);
            }
        }
        match (here, here_all_written) {
            (false, _) => Flush::Own,
            (true, true) => Flush::File,
            (true, false) => {
                self.sync_wanted = self.staged;
                Flush::No
            }
        }
    }

    fn write(
        &mut self,
        begin: Lsn,
        data: Vec<Slice>,
        tickets: Vec<Option<Arc<Ticket>>>,
        wants_sync: bool,
        flush: Flush,
        now: Time,
    ) -> (Tag, Op) {
        let end = self.staged;
        let (segment, file, base) = match &self.rotation.open {
            Some(open) => (open.segment, open.file, open.so_far.base_lsn),
            None => unreachable!("a commit is formed only in an open segment"),
        };
        let watermark = tickets.is_empty();
        let flight = Flight::Commit { segment, end, flush, watermark, submitted_ns: now.mono_ns };
        self.commits.push_back(Commit {
            segment,
            end,
            tickets,
            placed_to: self.placed_to,
            wants_sync,
            loads: Default::default(),
            written: false,
            flushed: false,
            flush_travels: flush != Flush::No,
        });
        let offset = SEGMENT_HEADER_BYTES + (begin.0 - base.0);
        let own = planted(Bug::FlushOwnBytesOnly) && flush == Flush::File;
        let flush = if own { Flush::Own } else { flush };
        (self.take_off(flight), Op::Write { file, offset, data, flush })
    }

    /// Puts the durable LSN on record once the shard has been idle for a while.
    pub(super) fn watermark(&mut self, now: Time) -> Option<(Tag, Op)> {
        if planted(Bug::SkipWatermark) {
            return None;
        }
        let idle = self.idle_since_ns? + WATERMARK_AFTER_NS <= now.mono_ns;
        if !idle || !self.watermark_wanted() || !self.is_idle() || self.watermark_in_flight {
            return None;
        }
        if self.rotation.room(&self.config) < BLOCK_BYTES as u64 {
            self.recorded_durable = self.staged; // the manifest will say it
            return None;
        }
        let mut block = self.config.meta_blocks.take()?;
        block.fill(0);
        let begin = self.staged;
        let header = self.header(BatchKind::Watermark, BLOCK_BYTES, now);
        self.seal_header(&header, &mut block);
        self.recorded_durable = self.staged; // it does not call for another one
        self.watermark_in_flight = true;
        self.counts.bytes_written += BLOCK_BYTES as u64;
        let slices = vec![Slice { block, len: BLOCK_BYTES }];
        Some(self.write(begin, slices, Vec::new(), false, Flush::Own, now))
    }
}
