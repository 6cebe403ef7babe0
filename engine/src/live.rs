//! A view of a shard that another process writes, kept up to date by looking again and again.
//!
//! It takes no lock and changes nothing. It goes along the batches as recovery does, and shows those
//! that are known to be durable: because a later header or the manifest says so, or, when no
//! process holds the log for writing, because recovery would keep them. What it has shown once it
//! never takes back: a writer that starts anew keeps all of it, at the same LSNs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{BlockPool, Disk, Done, FileId, Op, Place};

use crate::error::{OpenError, ReadError};
use crate::format::batch::{BatchHeader, BatchKind, HeaderSeed};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::SEGMENT_HEADER_BYTES;
use crate::ids::{Lsn, Offset, SegmentId, StreamId};
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::published::Published;
use crate::reader::Live;
use crate::recovery::tail::{Tail, Unproven, epoch_fits, take_proven};
use crate::recovery::{Identity, ask, load_manifest, load_streams, read_effects};
use crate::shard::{SegmentRef, Streams};
use crate::window::Window;

const FILE: FileId = FileId(0);
/// Batches that are read one by one before it is worth reading ahead.
const CLOSE_BEHIND: u32 = 8;
/// The shortest and the longest time between two looks, in microseconds.
const NAP_MIN_MICROS: u64 = 500;
const NAP_MAX_MICROS: u64 = 8_000;

/// The segment in which the next batch is looked for.
struct Current {
    segment: SegmentId,
    base: Lsn,
    window: Window,
}

struct State {
    disk: Box<dyn Disk + Send>,
    pool: BlockPool,
    manifest: Manifest,
    /// What was found: proven parts, streams, and what is not proven yet.
    tail: Tail,
    /// The streams as they were shown, while what was shown is being read again.
    shown: Option<Streams>,
    /// Where the next batch belongs, and the chain value before it.
    at: Lsn,
    chain: u32,
    /// The largest LSN that anything says was durable once.
    told: Lsn,
    current: Option<Current>,
}

/// See the module's text.
pub(crate) struct LiveView {
    identity: Identity,
    /// The log's directory, where a writer leaves its mark.
    root: Place,
    published: Arc<Published>,
    state: Mutex<State>,
    /// How often in a row nothing new was found.
    quiet: AtomicU32,
}

impl LiveView {
    /// Goes on from what was found when the log was opened, and shows it.
    pub(crate) fn new(
        (disk, pool): (Box<dyn Disk + Send>, BlockPool),
        identity: Identity,
        root: Place,
        published: Arc<Published>,
        manifest: Manifest,
        tail: Tail,
    ) -> Self {
        let last = tail.unproven.back();
        let at = last.map_or(tail.proven, |batch| batch.header.end());
        let chain = last.map_or(tail.proven_chain, |batch| batch.chain);
        let told = tail.told_durable;
        let (shown, current) = (None, None);
        let state = State { disk, pool, manifest, tail, shown, at, chain, told, current };
        let (state, quiet) = (Mutex::new(state), AtomicU32::new(0));
        Self { identity, root, published, state, quiet }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next offsets of some streams, as far as they are shown.
    pub(crate) fn next_offsets(&self, streams: &[StreamId]) -> Vec<Offset> {
        let state = self.lock();
        streams.iter().map(|stream| state.streams().next(*stream)).collect()
    }

    /// The streams from this number on.
    pub(crate) fn streams_from(&self, first: u32) -> Vec<(StreamId, Arc<str>)> {
        let state = self.lock();
        let named = state.streams().named().filter(|(id, _)| id.0 >= first);
        named.map(|(id, name)| (id, Arc::clone(name))).collect()
    }

    /// Looks for what is new, and shows it.
    ///
    /// # Errors
    /// Of the disk. What cannot be read because it is being changed is looked at again next time.
    pub(crate) fn look(&self) -> Result<(), OpenError> {
        let mut state = self.lock();
        // In this order: what a writer wrote before it was gone is seen.
        let nobody_writes = self.root.has_writer() == Some(false);
        let mut moved = self.go_on(&mut state)?;
        if !moved && self.reload(&mut state)? {
            moved = true;
            self.go_on(&mut state)?;
        }
        state.leave();
        moved |= state.prove(nobody_writes);
        match moved {
            true => self.quiet.store(0, Ordering::Relaxed),
            false => drop(self.quiet.fetch_add(1, Ordering::Relaxed)),
        }
        // What was shown before may be being read again.
        let back = planted(Bug::TakeBackWhatWasShown);
        if moved && (back || state.tail.proven >= self.published.durable()) {
            state.shown = None;
            self.show(&state);
        }
        Ok(())
    }

    /// Takes batches as long as they validate; whether there was any.
    fn go_on(&self, state: &mut State) -> Result<bool, OpenError> {
        let mut taken = 0;
        loop {
            if state.current.is_none() && !self.enter_next(state)? {
                return Ok(taken > 0);
            }
            if self.take_batch(state, taken >= CLOSE_BEHIND)? {
                taken += 1;
            } else {
                let before = state.current.as_ref().map(|current| current.segment);
                if !self.enter_next(state)? {
                    return Ok(taken > 0);
                }
                if state.current.as_ref().map(|current| current.segment) == before {
                    return Ok(taken > 0);
                }
            }
        }
    }

    fn take_batch(&self, state: &mut State, ahead: bool) -> Result<bool, OpenError> {
        let State { disk, manifest, current: Some(current), at, chain, .. } = state else {
            return Ok(false);
        };
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, current.segment);
        let offset = SEGMENT_HEADER_BYTES + (at.0 - current.base.0);
        let block = match ahead {
            true => current.window.get(disk.as_mut(), offset, BLOCK_BYTES)?,
            false => current.window.get_exact(disk.as_mut(), offset, BLOCK_BYTES)?,
        };
        let Ok((header, next_chain)) = BatchHeader::decode(block, seed, *at) else {
            return Ok(false);
        };
        if header.previous != *chain || !epoch_fits(manifest, &header) {
            return Ok(false);
        }
        let stored = header.stored_bytes as usize;
        let batch = match ahead {
            true => current.window.get(disk.as_mut(), offset, stored)?,
            false => current.window.get_exact(disk.as_mut(), offset, stored)?,
        };
        // What is half written now is whole at a later look.
        let Ok(effects) = read_effects(&header, batch, &self.identity) else { return Ok(false) };
        let (segment, chain) = (current.segment, next_chain);
        state.told = state.told.max(header.durable_lsn);
        (state.at, state.chain) = (header.end(), next_chain);
        state.tail.last_ns = state.tail.last_ns.max(header.timestamp_ns);
        let batch = Unproven { segment, file_offset: offset, header, chain, effects };
        state.tail.unproven.push_back(batch);
        Ok(true)
    }

    /// Goes into the segment that holds the place where the next batch belongs, if that is another
    /// one than before; whether there is one.
    fn enter_next(&self, state: &mut State) -> Result<bool, OpenError> {
        let known = state.current.as_ref().map(|current| current.segment);
        let inside = match known {
            Some(_) => None,
            None => state.tail.inside(state.at),
        };
        if let Some((segment, base)) = inside {
            return state.enter(segment, base);
        }
        let later = state.manifest.segments.iter().find(|entry| {
            !matches!(entry.state, SegmentState::Sealed { .. })
                && known.or(state.tail.last_segment()).is_none_or(|known| entry.segment > known)
        });
        let Some(segment) = later.map(|entry| entry.segment) else { return Ok(false) };
        let (at, chain) = (state.at, state.chain);
        let came_from = state.current.take();
        state.leave_window(came_from);
        if !state.enter(segment, at)? {
            return Ok(false);
        }
        let State { disk, manifest, current: Some(current), .. } = state else { return Ok(false) };
        let seed = HeaderSeed::new(self.identity.log, self.identity.shard, segment);
        let block = current.window.get_exact(disk.as_mut(), SEGMENT_HEADER_BYTES, BLOCK_BYTES)?;
        let joins = BatchHeader::decode(block, seed, at)
            .is_ok_and(|(header, _)| header.previous == chain && epoch_fits(manifest, &header));
        if !joins {
            state.leave();
        }
        Ok(joins)
    }

    /// Reads the manifest again; whether it has changed.
    fn reload(&self, state: &mut State) -> Result<bool, OpenError> {
        state.leave();
        let manifest = match load_manifest(state.disk.as_mut(), &self.identity) {
            Ok(manifest) => manifest,
            Err(OpenError::Disk(error)) => return Err(error.into()),
            Err(_) => return Ok(false),
        };
        if manifest.generation == state.manifest.generation {
            return Ok(false);
        }
        let (sealed_end, chain) = manifest.sealed_end();
        // A new life raises the epoch first, and then swaps in its own segments for what was not
        // proven: what was read of the others does not go on.
        let unsealed = |segment| {
            let entry = manifest.segments.iter().find(|entry| entry.segment == segment);
            entry.is_some_and(|entry| !matches!(entry.state, SegmentState::Sealed { .. }))
        };
        let goes_on = (state.at, state.chain) == (sealed_end, chain)
            || state.at > sealed_end && state.tail.last_segment().is_some_and(unsealed);
        if (manifest.epoch != state.manifest.epoch || !goes_on) && !planted(Bug::IgnoreNewLife) {
            // Another life has begun, or this view is far behind: the catalogue tells of what is
            // sealed, and the rest is read from there on.
            let streams = match load_streams(state.disk.as_mut(), &self.identity, &manifest) {
                Ok(streams) => streams,
                Err(OpenError::Disk(error)) => return Err(error.into()),
                Err(_) => return Ok(false), // the manifest has changed once more
            };
            // Until all of that is read, and proven, again, what was shown stays.
            let before = std::mem::take(&mut state.tail.streams);
            state.shown.get_or_insert(before);
            state.tail.restart(sealed_end, chain, streams);
            (state.at, state.chain) = (sealed_end, chain);
        } else {
            // What is sealed is durable; it belongs to its part before that is let go.
            state.told = state.told.max(sealed_end);
            state.prove(false);
            state.tail.proven_parts.retain(|part| unsealed(part.segment));
        }
        state.told = state.told.max(manifest.proven_lsn);
        state.manifest = manifest;
        Ok(true)
    }

    /// Publishes what is proven.
    fn show(&self, state: &State) {
        let known = self.published.segments();
        let of = |segment: SegmentId| known.iter().find(|known| known.segment == segment);
        let mut list: Vec<Arc<SegmentRef>> = Vec::with_capacity(state.manifest.segments.len());
        for entry in &state.manifest.segments {
            let SegmentState::Sealed { sealed, .. } = entry.state else { continue };
            let (base, chain) = (sealed.base_lsn, sealed.chain_before);
            let shown = of(entry.segment).filter(|known| known.base_lsn == base);
            let shown = shown.map_or_else(
                || Arc::new(SegmentRef::new(entry.segment, base, chain, Arc::default())),
                Arc::clone,
            );
            let _ = shown.sealed.set(sealed); // the same as before, if it was set
            list.push(shown);
        }
        for part in &state.tail.proven_parts {
            let (base, chain) = (part.so_far.base_lsn, part.so_far.chain_before);
            let shown =
                of(part.segment).filter(|known| Arc::ptr_eq(&known.postings, &part.postings));
            list.push(shown.map_or_else(
                || {
                    let postings = Arc::clone(&part.postings);
                    Arc::new(SegmentRef::new(part.segment, base, chain, postings))
                },
                Arc::clone,
            ));
        }
        self.published.set_segments(list);
        self.published.add_trims(state.tail.streams.trims());
        self.published.set_durable(state.tail.proven);
    }
}

impl State {
    /// The streams as far as they are shown.
    fn streams(&self) -> &Streams {
        self.shown.as_ref().unwrap_or(&self.tail.streams)
    }

    fn enter(&mut self, segment: SegmentId, base: Lsn) -> Result<bool, OpenError> {
        let open = Op::Open { file: FILE, name: names::segment(segment), write: false };
        let bytes = match ask(self.disk.as_mut(), open) {
            Ok(Done::Opened { bytes }) => bytes,
            // It was trimmed or renamed meanwhile.
            _ => return Ok(false),
        };
        let window = Window::new(self.pool.clone(), FILE, bytes);
        self.current = Some(Current { segment, base, window });
        Ok(true)
    }

    /// Closes what is open, so that the next look reads afresh.
    fn leave(&mut self) {
        let current = self.current.take();
        self.leave_window(current);
    }

    fn leave_window(&mut self, current: Option<Current>) {
        if let Some(mut current) = current {
            current.window.drop_all(self.disk.as_mut());
            let _ = ask(self.disk.as_mut(), Op::Close { file: FILE }); // only read from
        }
    }

    /// Counts as proven what is; whether there was any.
    fn prove(&mut self, nobody_writes: bool) -> bool {
        let told = self.told.max(self.manifest.proven_lsn);
        // Nobody needs a watermark at the end, and the next life may write in its place.
        let holds_records = |batch: &&Unproven| batch.header.kind != BatchKind::Watermark;
        let last = self.tail.unproven.iter().rfind(holds_records).map(|batch| batch.header.end());
        let all = nobody_writes || planted(Bug::ShowUnproven);
        let kept = if all { last.unwrap_or_default() } else { Lsn(0) };
        let mut any = false;
        while self.tail.unproven.front().is_some_and(|next| next.header.end() <= told.max(kept)) {
            let Some(batch) = self.tail.unproven.pop_front() else { break };
            take_proven(&mut self.tail, batch);
            any = true;
        }
        // The catalogue's parts are the writer's business.
        self.tail.catalogue.clear();
        any
    }
}

impl Live for LiveView {
    fn refresh(&self) -> Result<(), ReadError> {
        match self.look() {
            Ok(()) => Ok(()),
            Err(OpenError::Disk(error)) => Err(error.into()),
            Err(_) => Ok(()), // `look` says nothing else
        }
    }

    fn nap(&self, at_most: Option<Duration>) {
        let quiet = self.quiet.load(Ordering::Relaxed).min(8);
        let micros = (NAP_MIN_MICROS << quiet).min(NAP_MAX_MICROS);
        let nap = Duration::from_micros(micros);
        std::thread::sleep(at_most.map_or(nap, |most| most.min(nap)));
    }
}
