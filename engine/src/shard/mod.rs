//! One shard: a plain state machine that turns chunks into batches, batches into writes, and
//! completions into watermarks.
//!
//! It never sees a path, a descriptor, a clock or a thread. Time is a value handed in; what the
//! disk shall do comes out of [`Shard::next_op`], what the disk did goes into
//! [`Shard::complete`]. The same machine runs on io_uring, on blocking calls and in simulation.
//!
//! ```text
//! chunk --push--> pending --form_commit--> commit: in flight --> written --> flushed = durable
//!                    |                        |                                   |
//!               (disk full: refused)      (failure: poisoned, for good, everything behind fails)
//! ```
//!
//! Invariants:
//! - staged >= written >= durable; each only grows, and each is a prefix: a batch counts as written
//!   or durable only when every earlier batch does;
//! - the commit point of a record is the completion of a flush that covers it and all before it;
//! - a flush covers writes of one file that had completed before it was submitted, and, where it
//!   travels with a write, that write;
//! - after a failed write or flush nothing is acknowledged any more, and nothing is retried;
//! - no byte of a batch is written twice; a commit never crosses a segment;
//! - a segment is listed durably before its first batch is written, and is overwritten only after
//!   a manifest without it is durable and no reader holds it.

mod commit;
mod flush;
mod jobs;
mod reclaim;
mod requests;
mod retention;
mod rotate;
mod streams;
mod watermark;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{BlockPool, Completion, DiskError, DiskErrorKind, FileId, Flush, Op, Tag};

use crate::chunk::Chunk;
use crate::error::ReceiptError;
use crate::format::manifest::Manifest;
use crate::format::segment::Sealed;
use crate::ids::{Epoch, LogId, Lsn, Offset, SegmentId, StreamId};
use crate::index::Postings;
use crate::limits::SEALING_MAX;
use crate::options::{Durability, Retention, SyncPolicy};
use crate::receipt::{Level, Ticket};
use crate::recent::Recent;
use crate::refusals::Refusals;

use flush::FlushPlans;
use reclaim::Reclaimer;
use requests::Waiting;
pub use requests::{Reply, Request};
use retention::Keeper;
pub(crate) use retention::saturating_nanos;
pub(crate) use streams::Streams;

/// How long after the last commit the durable LSN is put on record, in nanoseconds.
const WATERMARK_AFTER_NS: u64 = 5_000_000;
/// While a commit is in flight, the next one waits until this much has gathered.
const PIPELINE_BYTES: usize = 256 << 10;

/// An instant, as the driver of the shard read it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Time {
    /// Monotonic nanoseconds since any fixed instant.
    pub mono_ns: u64,
    /// Nanoseconds since 1970; may jump.
    pub wall_ns: u64,
}

/// What does not change while the shard lives.
#[derive(Clone)]
pub struct ShardConfig {
    /// The log.
    pub log: LogId,
    /// The shard's number.
    pub shard: u16,
    /// This life.
    pub epoch: Epoch,
    /// Size of a segment file in bytes.
    pub segment_bytes: u64,
    /// When to flush.
    pub policy: SyncPolicy,
    /// The same for streams that differ, by name.
    pub stream_policies: BTreeMap<String, SyncPolicy>,
    /// Commits in flight, at most.
    pub commits_in_flight: usize,
    /// Bytes of one commit, at most (a single larger chunk goes alone).
    pub commit_bytes: usize,
    /// How long a commit waits for company, in nanoseconds.
    pub linger_ns: u64,
    /// What is kept.
    pub retention: Retention,
    /// A segment of which more than this is kept in memory is sealed, in bytes.
    pub postings_bytes_max: usize,
    /// A segment whose first record is this old is sealed, in nanoseconds.
    pub rotate_after_ns: Option<u64>,
    /// Blocks in which small chunks are copied together; reserved for the writer.
    pub batch_blocks: BlockPool,
    /// Blocks for segment headers, footers and watermarks; reserved for the writer.
    pub meta_blocks: BlockPool,
    /// Where the newest batches are kept for followers.
    pub(crate) recent: Arc<Recent>,
}

/// A segment as readers know it. Held by a reader while it reads in it.
#[derive(Debug)]
pub struct SegmentRef {
    /// Its number; names its file.
    pub segment: SegmentId,
    /// LSN of its first batch.
    pub base_lsn: Lsn,
    /// Chain value before its first batch.
    pub chain_before: u32,
    /// What is known of it once nothing is added to it any more.
    pub(crate) sealed: OnceLock<Sealed>,
    /// Where the records lie in it; empty once its index is stored.
    pub(crate) postings: Arc<Postings>,
}

impl SegmentRef {
    pub(crate) fn new(
        segment: SegmentId,
        base_lsn: Lsn,
        chain_before: u32,
        postings: Arc<Postings>,
    ) -> Self {
        Self { segment, base_lsn, chain_before, sealed: OnceLock::new(), postings }
    }
}

/// The segment that is being written.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) segment: SegmentId,
    pub(crate) file: FileId,
    /// Where the records lie in it.
    pub(crate) postings: Arc<Postings>,
    /// Its end, chain and counts move with each batch.
    pub(crate) so_far: Sealed,
}

/// What recovery hands to a shard.
pub(crate) struct Start {
    /// The manifest as it is on disk.
    pub(crate) manifest: Manifest,
    /// The segment to go on in, open for writing.
    pub(crate) open: Option<OpenSegment>,
    /// Where to go on; everything before it is durable.
    pub(crate) next_lsn: Lsn,
    pub(crate) chain: u32,
    pub(crate) streams: Streams,
    pub(crate) last_ns: u64,
    /// Files of segments that are listed no more.
    pub(crate) spares: Vec<SegmentId>,
    /// Segments that are listed, prepared and empty.
    pub(crate) prepared: Vec<(SegmentId, FileId)>,
    /// All segments with batches, oldest first.
    pub(crate) segments: Vec<Arc<SegmentRef>>,
}

/// One commit that is not durable yet.
#[derive(Debug)]
struct Commit {
    segment: SegmentId,
    end: Lsn,
    /// Its chunks that wait for more than they have.
    tickets: Vec<Option<Arc<Ticket>>>,
    /// The number of its last chunk, or of the last one before it.
    placed_to: u64,
    wants_sync: bool,
    /// What it carries, by the level that its chunks ask for.
    loads: [Load; 3],
    written: bool,
    flushed: bool,
    /// Whether its write carries its flush.
    flush_travels: bool,
}

/// What an operation in flight is.
#[derive(Debug)]
enum Flight {
    Commit { segment: SegmentId, end: Lsn, flush: Flush, watermark: bool, submitted_ns: u64 },
    Sync { segment: SegmentId, covers: Lsn, submitted_ns: u64 },
    Job,
}

/// How many segments were sealed, by the reason why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotations {
    /// They were full.
    pub size: u64,
    /// Their first record was [`crate::Options::rotate_after`] old.
    pub age: u64,
    /// What is kept in memory of them had grown large.
    pub memory: u64,
    /// Somebody asked for it.
    pub hand: u64,
}

/// Records of users, and their payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub records: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// Counters of a shard. All of them only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Records placed.
    pub records: u64,
    /// Users' records, acknowledged at the strongest level that their chunk asked for.
    pub acknowledged: Load,
    /// Users' records, covered by a flush.
    pub flushed: Load,
    /// Batches written.
    pub batches: u64,
    /// Write operations that carried them.
    pub commits: u64,
    /// Bytes written for batches, with headers and padding.
    pub bytes_written: u64,
    /// Flushes completed, with a write or alone.
    pub flushes: u64,
    /// Flushes that failed.
    pub flush_failures: u64,
    /// Segments opened for writing.
    pub rotations: u64,
    /// Segments sealed, by the reason why.
    pub sealed: Rotations,
    /// Segments trimmed, by hand or by retention.
    pub trimmed: u64,
    /// Segments prepared from a trimmed one.
    pub recycled: u64,
    /// Times that everything was written out at once because memory ran low.
    pub pressure_flushes: u64,
    /// Indexes that could not be stored: readers make do without them.
    pub index_failures: u64,
    /// When the last flush completed, in nanoseconds since 1970.
    pub last_flush_ns: u64,
}

/// See the module's text.
pub struct Shard {
    config: ShardConfig,
    plans: FlushPlans,
    streams: Streams,
    // Placement.
    pending: VecDeque<Box<Chunk>>,
    pending_bytes: usize,
    /// Memory runs low: what is pending waits for nothing.
    pressed: bool,
    /// The next commit waits for company.
    held: bool,
    /// The runs of the batch that is being made: stream, first offset, records.
    runs: Vec<(StreamId, Offset, u32)>,
    oldest_pending_ns: u64,
    accepted_chunks: u64,
    /// Numbers of chunks: the last one that was placed, written, made durable.
    placed_to: u64,
    written_to: u64,
    durable_to: u64,
    chain: u32,
    last_ns: u64,
    staged: Lsn,
    written: Lsn,
    durable: Lsn,
    /// The durable LSN in the newest batch header.
    recorded_durable: Lsn,
    // In flight.
    commits: VecDeque<Commit>,
    writes_in_flight: usize,
    sync_in_flight: bool,
    sync_wanted: Lsn,
    flights: Vec<(Tag, Flight)>,
    next_tag: u64,
    idle_since_ns: Option<u64>,
    watermark_in_flight: bool,
    // Segments.
    rotation: rotate::Rotation,
    keeper: Keeper,
    reclaimer: Reclaimer,
    /// Trims of streams that are not durable yet, each with the LSN of its batch.
    trims: VecDeque<(Lsn, StreamId, Offset)>,
    segments: Vec<Arc<SegmentRef>>,
    segments_changed: bool,
    // Outside world.
    waiting: Vec<Waiting>,
    poison: Option<DiskError>,
    /// What waits for its place finds no room on the disk.
    no_room: bool,
    /// How often what was taken was given up for want of room.
    refusals: Refusals,
    /// Records that were acknowledged at `Memory` found no room before the end.
    gave_up: bool,
    acks: Vec<(Arc<Ticket>, Level)>,
    failures: Vec<(Arc<Ticket>, ReceiptError)>,
    /// Chunks without a ticket that find no room on the disk.
    refused: VecDeque<Box<Chunk>>,
    replies: Vec<(u64, Reply)>,
    flush_times_ns: Vec<u64>,
    counts: ShardCounts,
}

impl Shard {
    pub(crate) fn new(config: ShardConfig, start: Start) -> Self {
        let mut plans = FlushPlans::new(config.policy, &config.stream_policies);
        for (stream, name) in start.streams.named() {
            plans.know(stream, name);
        }
        Self {
            plans,
            streams: start.streams,
            pending: VecDeque::new(),
            pending_bytes: 0,
            pressed: false,
            held: false,
            runs: Vec::new(),
            oldest_pending_ns: 0,
            accepted_chunks: 0,
            placed_to: 0,
            written_to: 0,
            durable_to: 0,
            chain: start.chain,
            last_ns: start.last_ns,
            staged: start.next_lsn,
            written: start.next_lsn,
            durable: start.next_lsn,
            recorded_durable: start.next_lsn,
            commits: VecDeque::new(),
            writes_in_flight: 0,
            sync_in_flight: false,
            sync_wanted: start.next_lsn,
            flights: Vec::new(),
            next_tag: 0,
            idle_since_ns: None,
            watermark_in_flight: false,
            rotation: rotate::Rotation::new(
                start.manifest,
                start.open,
                start.prepared,
                start.spares,
            ),
            keeper: Keeper::new(),
            reclaimer: Reclaimer::new(),
            trims: VecDeque::new(),
            segments: start.segments,
            segments_changed: true,
            waiting: Vec::new(),
            poison: None,
            no_room: false,
            refusals: 0,
            gave_up: false,
            acks: Vec::new(),
            failures: Vec::new(),
            refused: VecDeque::new(),
            replies: Vec::new(),
            flush_times_ns: Vec::new(),
            counts: ShardCounts::default(),
            config,
        }
    }

    /// Takes a chunk. It is placed in the order of these calls.
    pub fn push(&mut self, mut chunk: Box<Chunk>, now: Time) {
        self.accepted_chunks += 1;
        chunk.number = self.accepted_chunks;
        if let Some(error) = &self.poison {
            let error = ReceiptError::Poisoned(error.clone());
            self.failures.extend(chunk.ticket.map(|ticket| (ticket, error)));
            return;
        }
        if chunk.refusals < self.refusals && Self::can_give_up(&chunk) {
            // There may be room again, but what came before it from the same thread was given up.
            self.failures.extend(chunk.ticket.map(|ticket| (ticket, ReceiptError::DiskFull)));
            return;
        }
        if self.pending.is_empty() {
            self.oldest_pending_ns = now.mono_ns;
        }
        self.pending_bytes += chunk.section().section_bytes();
        self.pending.push_back(chunk);
    }

    /// Takes a request; its answer comes out of [`Shard::take_replies`] under the same `id`.
    pub fn request(&mut self, id: u64, request: Request) {
        match &self.poison {
            Some(error) => self.replies.push((id, Reply::Poisoned(error.clone()))),
            None => self.waiting.push(Waiting {
                id,
                request,
                after_chunks: self.accepted_chunks,
                target: None,
            }),
        }
    }

    /// Memory runs low. While the disk is at work, it is the disk that is waited for; otherwise
    /// what is here is written out at once, whatever it waits for.
    pub fn press(&mut self) {
        let something = !self.pending.is_empty() || self.durable < self.staged;
        if something && self.writes_in_flight == 0 && self.poison.is_none() {
            self.pressed = !self.pending.is_empty();
            self.plans.hurry();
            self.counts.pressure_flushes += 1;
        }
    }

    /// Has the next commit wait for company until this is taken back, unless it has become large or
    /// memory runs low.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether what is placed next shares its commit with nothing.
    pub(crate) fn next_goes_apart(&self) -> bool {
        self.pending.front().is_some_and(|chunk| chunk.apart)
    }

    /// Bytes that wait for their commit.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether a write is under way, which will give memory back.
    pub fn is_writing(&self) -> bool {
        self.writes_in_flight > 0
    }

    /// What the disk shall do next; `None` when it has nothing (more) to do now.
    pub fn next_op(&mut self, now: Time) -> Option<(Tag, Op)> {
        if self.poison.is_some() {
            return None;
        }
        self.settle_requests();
        self.keep_time(now);
        let op = self
            .form_commit(now)
            .or_else(|| self.next_sync(now))
            .or_else(|| self.next_job_op(now))
            .or_else(|| self.watermark(now));
        self.note_idleness(now);
        self.settle_requests();
        op
    }

    /// What the disk did.
    pub fn complete(&mut self, done: Completion, now: Time) {
        let Some(at) = self.flights.iter().position(|(tag, _)| *tag == done.tag) else {
            return; // not ours
        };
        let (_, flight) = self.flights.swap_remove(at);
        let Completion { slices, result, .. } = done;
        match (&flight, &result) {
            (Flight::Commit { segment, end, .. }, Ok(_)) if self.config.recent.is_wanted() => {
                self.keep_recent(*segment, *end, slices);
            }
            _ => drop(slices), // the blocks go back to their pools
        }
        match flight {
            Flight::Commit { segment, end, flush, watermark, submitted_ns } => {
                if watermark {
                    self.watermark_in_flight = false;
                } else {
                    self.writes_in_flight -= 1;
                }
                match result {
                    Ok(_) => self.commit_completed(segment, end, flush, submitted_ns, now),
                    Err(_) if planted(Bug::CountFailedCommit) => {
                        self.commit_completed(segment, end, flush, submitted_ns, now);
                    }
                    Err(error) => {
                        self.counts.flush_failures += u64::from(flush != Flush::No);
                        self.fail(error);
                    }
                }
            }
            Flight::Sync { segment, covers, submitted_ns } => {
                self.sync_in_flight = false;
                match result {
                    Ok(_) => {
                        self.flush_completed(submitted_ns, now);
                        for commit in &mut self.commits {
                            if commit.segment == segment && commit.end <= covers {
                                commit.flushed = true;
                            }
                        }
                        self.advance();
                    }
                    Err(_) if planted(Bug::RetryFailedFlush) => {}
                    Err(error) => {
                        self.counts.flush_failures += 1;
                        self.fail(error);
                    }
                }
            }
            Flight::Job => self.job_op_completed(result, now),
        }
        self.settle_requests();
    }

    /// When [`Shard::next_op`] should be asked again although nothing has completed.
    pub fn deadline(&self) -> Option<u64> {
        if self.poison.is_some() {
            return None;
        }
        let linger = (!self.pending.is_empty() && self.writes_in_flight == 0)
            .then(|| self.oldest_pending_ns + self.config.linger_ns)
            .filter(|_| self.config.linger_ns > 0 && !self.pressed);
        let watermark = self
            .idle_since_ns
            .filter(|_| self.watermark_wanted() || self.idle_flush_wanted())
            .map(|since| since + WATERMARK_AFTER_NS);
        let jobs = [self.rotation.retry_at_ns(), self.keeping_deadline(), self.reclaim_deadline()];
        [linger, watermark, self.plans.deadline_ns()].into_iter().chain(jobs).flatten().min()
    }

    /// Everything before this is flushed.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Everything before this was accepted by the device.
    pub fn written(&self) -> Lsn {
        self.written
    }

    /// Everything before this has its place.
    pub fn staged(&self) -> Lsn {
        self.staged
    }

    /// Whether it has nothing in flight.
    pub(crate) fn is_still(&self) -> bool {
        self.writes_in_flight == 0 && !self.sync_in_flight
    }

    /// Whether it has nothing in flight and nothing to place.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.is_still()
    }

    /// Whether records that wait cannot be placed, or soon could not, because the disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.rotation.cannot_go_on()
            && (self.no_room || self.rotation.room(&self.config) < self.config.segment_bytes / 8)
    }

    /// How often it has given up, for want of room, what it had taken.
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// The failure that poisoned it.
    pub fn poisoned(&self) -> Option<&DiskError> {
        self.poison.as_ref()
    }

    /// Why nothing is trimmed because of its age, although the options say so.
    pub fn age_retention_paused(&self) -> Option<&str> {
        self.keeper.paused()
    }

    /// The offset that the next record of a stream gets.
    pub fn next_offset(&self, stream: StreamId) -> Offset {
        self.streams.next(stream)
    }

    /// The number behind the last stream's.
    pub fn stream_count(&self) -> u32 {
        self.streams.count()
    }

    /// The counters.
    pub fn counts(&self) -> &ShardCounts {
        &self.counts
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.config.shard
    }

    /// How many segments are being sealed.
    #[cfg(feature = "tracing")]
    pub(crate) fn sealing(&self) -> usize {
        self.rotation.sealing_len()
    }

    /// Whether anybody is to be told of something.
    pub fn has_news(&self) -> bool {
        !self.acks.is_empty() || !self.failures.is_empty()
    }

    /// Receipts that have come further, in order. The caller tells them.
    pub fn take_acks(&mut self) -> std::vec::Drain<'_, (Arc<Ticket>, Level)> {
        self.acks.drain(..)
    }

    /// Receipts that come no further. The caller tells them.
    pub fn take_failures(&mut self) -> std::vec::Drain<'_, (Arc<Ticket>, ReceiptError)> {
        self.failures.drain(..)
    }

    /// Chunks without a ticket that were refused because the disk is full, last first.
    pub fn take_refused(&mut self) -> std::collections::vec_deque::Drain<'_, Box<Chunk>> {
        self.refused.drain(..)
    }

    /// How many chunks it has taken; the number of the last one.
    pub fn accepted_chunks(&self) -> u64 {
        self.accepted_chunks
    }

    /// The number of the last chunk that has its place, was written, is durable; all before it
    /// have come as far, or were refused.
    pub fn reached_chunks(&self) -> (u64, u64, u64) {
        (self.placed_to, self.written_to, self.durable_to)
    }

    /// Whether it may refuse the next commit for want of room on the disk.
    pub fn may_refuse(&self) -> bool {
        self.rotation.cannot_go_on()
    }

    /// Whether a commit could be begun now with what is pushed now.
    pub fn could_commit(&self) -> bool {
        self.pending.is_empty() && self.writes_in_flight == 0
    }

    /// Answers to requests.
    pub fn take_replies(&mut self) -> std::vec::Drain<'_, (u64, Reply)> {
        self.replies.drain(..)
    }

    /// How long each flush took that completed since the last call, in nanoseconds.
    pub fn take_flush_times(&mut self) -> std::vec::Drain<'_, u64> {
        self.flush_times_ns.drain(..)
    }

    /// The list of segments, if it has changed since the last call.
    pub fn take_segments(&mut self) -> Option<Vec<Arc<SegmentRef>>> {
        std::mem::take(&mut self.segments_changed).then(|| self.segments.clone())
    }

    /// Trims of streams that have become durable since the last call.
    pub fn take_trims(&mut self) -> impl Iterator<Item = (StreamId, Offset)> {
        // A batch is durable as a whole.
        let is_durable = |lsn: Lsn| lsn < self.durable || planted(Bug::PublishTrimEarly);
        let durable = self.trims.iter().take_while(|(lsn, ..)| is_durable(*lsn)).count();
        self.trims.drain(..durable).map(|(_, stream, before)| (stream, before))
    }

    // ---- failure ----

    /// A write or a flush failed, of this shard or of another one of the log: nothing behind it is
    /// acknowledged, ever. The first failure counts.
    pub(crate) fn fail(&mut self, error: DiskError) {
        if self.poison.is_some() {
            return;
        }
        let told = ReceiptError::Poisoned(error.clone());
        for commit in self.commits.drain(..) {
            let tickets = commit.tickets.into_iter().flatten();
            self.failures.extend(tickets.map(|ticket| (ticket, told.clone())));
        }
        for mut chunk in self.pending.drain(..) {
            if planted(Bug::LeaveThePendingWaiting) {
                std::mem::forget(chunk.ticket.take());
            }
            self.failures.extend(chunk.ticket.map(|ticket| (ticket, told.clone())));
        }
        for one in self.waiting.drain(..) {
            self.replies.push((one.id, Reply::Poisoned(error.clone())));
        }
        self.poison = Some(error).filter(|_| !planted(Bug::GoOnAfterFailure));
    }

    /// The disk is full: what waits for a place and for more than memory is refused, so that
    /// nobody waits without end.
    fn refuse_unplaced(&mut self, all: bool) {
        if self.pending.front().is_some_and(|chunk| chunk.ticket.is_none()) {
            return self.refuse_last(all);
        }
        let mut kept = VecDeque::with_capacity(self.pending.len());
        let mut gave_up = false;
        self.pending_bytes = 0;
        for chunk in self.pending.drain(..) {
            if !all && !Self::can_give_up(&chunk) {
                self.pending_bytes += chunk.section().section_bytes();
                kept.push_back(chunk);
            } else {
                self.gave_up |= chunk.level == Durability::Memory;
                gave_up = true;
                let told = chunk.ticket.filter(|_| !planted(Bug::LeaveTheRefusedWaiting));
                self.failures.extend(told.map(|ticket| (ticket, ReceiptError::DiskFull)));
            }
        }
        self.pending = kept;
        self.refusals += Refusals::from(gave_up);
    }

    /// Nobody was told that it is taken for good.
    fn can_give_up(chunk: &Chunk) -> bool {
        chunk.level > Durability::Memory && chunk.created.is_empty()
    }

    /// The same where records were told their offsets when they were taken: only what comes last
    /// is refused, so that the offsets of what stays hold.
    fn refuse_last(&mut self, all: bool) {
        let goes = |chunk: &Chunk| all || Self::can_give_up(chunk);
        while self.pending.back().is_some_and(|chunk| goes(chunk)) {
            let Some(chunk) = self.pending.pop_back() else { return };
            self.pending_bytes -= chunk.section().section_bytes();
            self.gave_up |= chunk.level == Durability::Memory;
            self.refused.push_back(chunk);
        }
    }

    fn take_off(&mut self, flight: Flight) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag += 1;
        self.flights.push((tag, flight));
        tag
    }

    fn sealing_has_room(&self) -> bool {
        self.rotation.sealing_len() < SEALING_MAX
    }

    /// Whether an operation on names may go well later, when something has become free: room, or
    /// what a limit of this process counts.
    fn is_full(error: &DiskError) -> bool {
        matches!(error.kind, DiskErrorKind::NoSpace | DiskErrorKind::Limit)
            && !planted(Bug::FullDiskIsFailure)
    }
}

impl Drop for Shard {
    /// Nobody waits for a shard that is gone. After a close there is nobody.
    fn drop(&mut self) {
        let waiting = self.commits.drain(..).flat_map(|commit| commit.tickets);
        let pending = self.pending.drain(..).map(|chunk| chunk.ticket);
        for ticket in waiting.chain(pending).flatten() {
            ticket.fail(ReceiptError::Closed);
        }
    }
}
