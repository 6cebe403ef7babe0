//! A disk that watches what the engine does with it, and holds every operation against the rules
//! that must never be broken, whatever happens.
//!
//! It sits between the engine and a [`SimDisk`], sees operations and completions only, and keeps
//! what it finds until somebody asks. Rules:
//! - **append only**: no byte that was written in this life, or that recovery found to be part of
//!   the log, is written again while its segment is listed; nothing is written to a sealed segment;
//! - **listed first**: outside recovery, a batch goes only into a segment that a durable manifest
//!   lists;
//! - **named first**: a manifest lists a segment only after a directory sync has covered its name;
//! - **epoch first**: a batch carries the epoch of a manifest that this life has made durable;
//! - **seal order**: a footer is written when all data of its segment is flushed; a manifest calls
//!   a segment sealed only after its footer (or, without one, its data) is flushed;
//! - **one nonce, one chunk**: outside recovery, no two sections carry the same nonce;
//! - **only sealed ones go**: a running log drops no segment from its manifest but sealed ones;
//! - **no retry**: after a write or a flush has failed, no other is submitted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlog::format::batch::{
    BATCH_HEADER_BYTES, BatchHeader, HeaderSeed, RUN_BYTES, SECTION_HEADER_BYTES,
};
use ringlog::format::manifest::{Manifest, SegmentState};
use ringlog::format::segment::Sealed;
use ringlog::{LogId, Lsn, SegmentId};
use ringlog_disk::{
    Completion, Disk, DiskFacts, Done, FileId, FileName, Flush, Op, Tag, Wait, Waker,
};

use crate::disk::SimDisk;

/// One operation, as far as tests want to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A write was submitted.
    Write {
        /// Its file.
        file: String,
        /// Where.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// With which flush.
        flush: Flush,
        /// Whether it begins with a batch, a segment header, a footer.
        what: Content,
    },
    /// A flush was submitted.
    Sync(String),
    /// A manifest was submitted.
    Manifest {
        /// Its epoch.
        epoch: u64,
        /// The segments that it lists, and whether each is called sealed.
        segments: Vec<(String, bool)>,
    },
    /// An operation on names was submitted: its kind and the name.
    Name(&'static str, String),
    /// An operation was completed: that of this place in the journal, with or without an error.
    Done(usize, bool),
}

/// What a write begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A batch.
    Batch,
    /// The header of a segment.
    Header,
    /// The footer of a segment.
    Footer,
    /// Something else.
    Other,
}

/// A sealed segment that a manifest no longer lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its number.
    pub segment: u64,
    /// LSN of its first batch.
    pub base_lsn: u64,
    /// LSN behind its last batch.
    pub end_lsn: u64,
    /// Time of its last batch.
    pub last_ns: u64,
}

/// What a durable manifest lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Time of the last batch of each sealed segment.
    pub sealed: Vec<u64>,
    /// Whether anything lies behind them.
    pub is_open: bool,
}

#[derive(Debug, Default)]
struct File {
    /// Everything before this was written, or must not be written again.
    high: u64,
    in_flight: usize,
    /// Completed and not flushed: the numbers of the writes.
    unflushed: Vec<u64>,
    name_synced: bool,
    footer: bool,
    sealed: bool,
}

#[derive(Debug)]
enum Pending {
    Write { file: String, number: u64, covers: Vec<u64>, flush: Flush, footer: bool },
    Sync { file: String, covers: Vec<u64> },
    Manifest(Manifest),
    Name { names: Vec<String>, done: NameDone },
    Other,
}

#[derive(Clone, Copy, Debug)]
enum NameDone {
    Appeared,
    DirSynced,
    Nothing,
}

#[derive(Debug)]
struct State {
    log: LogId,
    shard: u16,
    serving: bool,
    open: BTreeMap<FileId, String>,
    files: BTreeMap<String, File>,
    in_flight: Vec<(Tag, Pending, usize)>,
    /// The last one that this handle made durable.
    manifest: Option<Manifest>,
    failed: bool,
    nonces: BTreeSet<Vec<u8>>,
    next_number: u64,
    violations: Vec<String>,
    /// What was dropped, and how many sealed segments were left.
    dropped: Vec<(Vec<Dropped>, u64)>,
    journal: Option<Vec<Seen>>,
    seen: usize,
    /// While set, nothing completes.
    held: bool,
}

/// What the tests hold of a [`WatchedDisk`].
#[derive(Clone, Debug)]
pub struct Watch(Arc<Mutex<State>>);

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Recovery is over: from here on no segment is written that is not listed.
    pub fn begin_serving(&self) {
        self.lock().serving = true;
    }

    /// The rules that were broken, in words; takes them out.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().violations)
    }

    /// What manifests have dropped while the log was running, and how many sealed segments each
    /// of them left; takes it out.
    pub fn take_dropped(&self) -> Vec<(Vec<Dropped>, u64)> {
        std::mem::take(&mut self.lock().dropped)
    }

    /// What the last durable manifest lists.
    pub fn kept(&self) -> Kept {
        let state = self.lock();
        let Some(manifest) = &state.manifest else { return Kept::default() };
        let sealed: Vec<u64> = sealed_in(manifest).map(|(_, sealed)| sealed.last_ns).collect();
        let is_listed = |name: &str| manifest.segments.iter().any(|e| name_of(e.segment) == name);
        let written =
            |(name, file): (&String, &File)| !file.sealed && file.high > 4096 && is_listed(name);
        Kept { sealed, is_open: state.files.iter().any(written) }
    }

    /// What was seen, where a journal is kept.
    pub fn journal(&self) -> Vec<Seen> {
        self.lock().journal.clone().unwrap_or_default()
    }

    /// How much has been seen: grows with every operation and completion that is of interest.
    pub fn seen(&self) -> usize {
        self.lock().seen
    }

    /// Holds all completions back, or no more.
    pub fn hold(&self, held: bool) {
        self.lock().held = held;
    }
}

/// See the module's text.
pub struct WatchedDisk {
    inner: SimDisk,
    watch: Watch,
}

impl WatchedDisk {
    /// Watches `inner`, on which nothing is open yet. With a journal, everything is kept.
    pub fn new(inner: SimDisk, log: LogId, shard: u16, journal: bool) -> Self {
        let state = State {
            log,
            shard,
            serving: false,
            open: BTreeMap::new(),
            files: BTreeMap::new(),
            in_flight: Vec::new(),
            manifest: None,
            failed: false,
            nonces: BTreeSet::new(),
            next_number: 0,
            violations: Vec::new(),
            dropped: Vec::new(),
            journal: journal.then(Vec::new),
            seen: 0,
            held: false,
        };
        Self { inner, watch: Watch(Arc::new(Mutex::new(state))) }
    }

    /// What it finds.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

impl State {
    fn broken(&mut self, what: String) {
        self.violations.push(what);
    }

    fn note(&mut self, seen: Seen) -> usize {
        if let Some(journal) = &mut self.journal {
            journal.push(seen);
        }
        self.seen += 1;
        self.seen - 1
    }

    fn name_of(&self, file: FileId) -> String {
        self.open.get(&file).cloned().unwrap_or_else(|| format!("{file:?}"))
    }

    fn submitted(&mut self, tag: Tag, op: &Op) {
        let (pending, place) = match op {
            Op::Write { file, offset, data, flush } => {
                let len: usize = data.iter().map(|slice| slice.len).sum();
                let name = self.name_of(*file);
                for slice in data {
                    self.check_nonces(&name, &slice.block[..slice.len]);
                }
                let front = data.first().map_or(&[][..], |slice| &slice.block[..]);
                self.write(name, *offset, len as u64, *flush, front)
            }
            Op::Sync { file } => {
                let name = self.name_of(*file);
                if self.failed {
                    self.broken(format!("{name} is flushed after a failure"));
                }
                let file = self.files.entry(name.clone()).or_default();
                let covers = file.unflushed.clone();
                let place = self.note(Seen::Sync(name.clone()));
                (Pending::Sync { file: name, covers }, place)
            }
            Op::Replace { name, content } if name.as_str() == "manifest" => {
                match Manifest::decode(content) {
                    Ok(manifest) => {
                        self.check_manifest(&manifest);
                        let sealed = |state| matches!(state, SegmentState::Sealed { .. });
                        let segments = manifest.segments.iter();
                        let segments =
                            segments.map(|e| (name_of(e.segment), sealed(e.state))).collect();
                        let place = self.note(Seen::Manifest { epoch: manifest.epoch.0, segments });
                        (Pending::Manifest(manifest), place)
                    }
                    Err(refused) => {
                        let place = self.note(Seen::Name("replace", name.to_string()));
                        self.broken(format!(
                            "a manifest is written that cannot be read: {refused}"
                        ));
                        (Pending::Other, place)
                    }
                }
            }
            Op::Open { file, name, .. } => {
                self.open.insert(*file, name.to_string());
                self.name_op("open", &[name], NameDone::Nothing)
            }
            Op::Create { file, name, .. } => {
                self.open.insert(*file, name.to_string());
                self.name_op("create", &[name], NameDone::Appeared)
            }
            Op::Rename { from, to } => self.name_op("rename", &[from, to], NameDone::Appeared),
            Op::Remove { name } => self.name_op("remove", &[name], NameDone::Nothing),
            Op::Replace { name, .. } => self.name_op("replace", &[name], NameDone::Nothing),
            Op::Store { name, .. } => {
                if !name.as_str().ends_with(".idx") {
                    self.broken(format!("{name} is stored without a flush"));
                }
                self.name_op("store", &[name], NameDone::Nothing)
            }
            Op::SyncDir => self.name_op("sync directory", &[], NameDone::DirSynced),
            Op::Load { name, .. } => self.name_op("load", &[name], NameDone::Nothing),
            Op::Close { file } => {
                let name = self.name_of(*file);
                let place = self.note(Seen::Name("close", name));
                (Pending::Other, place)
            }
            Op::List | Op::Read { .. } => {
                self.in_flight.push((tag, Pending::Other, usize::MAX));
                return;
            }
        };
        self.in_flight.push((tag, pending, place));
    }

    fn name_op(
        &mut self,
        what: &'static str,
        names: &[&FileName],
        done: NameDone,
    ) -> (Pending, usize) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let place = self.note(Seen::Name(what, names.join(" to ")));
        (Pending::Name { names, done }, place)
    }

    fn write(
        &mut self,
        name: String,
        offset: u64,
        len: u64,
        flush: Flush,
        front: &[u8],
    ) -> (Pending, usize) {
        let what = match front.get(..4) {
            Some(b"RLb1") => Content::Batch,
            Some(b"RLs1") => Content::Header,
            Some(b"RLf1") => Content::Footer,
            _ => Content::Other,
        };
        let place = self.note(Seen::Write { file: name.clone(), offset, len, flush, what });
        if self.failed {
            self.broken(format!("{name} is written at {offset} after a failure"));
        }
        let (high, sealed, busy) = match self.files.get(&name) {
            Some(file) => {
                (file.high, file.sealed, file.in_flight > 0 || !file.unflushed.is_empty())
            }
            None => (0, false, false),
        };
        if sealed {
            self.broken(format!("{name} is sealed and is written at {offset}"));
        } else if offset < high {
            self.broken(format!("{name} is written at {offset}, which is taken up to {high}"));
        }
        match what {
            Content::Batch => self.check_batch(&name, front),
            Content::Footer if busy => {
                self.broken(format!("{name} gets its footer before its data is flushed"));
            }
            _ => {}
        }
        self.next_number += 1;
        let number = self.next_number;
        let file = self.files.entry(name.clone()).or_default();
        file.high = file.high.max(offset + len);
        file.in_flight += 1;
        let covers = file.unflushed.clone();
        let footer = what == Content::Footer;
        (Pending::Write { file: name, number, covers, flush, footer }, place)
    }

    fn check_batch(&mut self, name: &str, front: &[u8]) {
        let Some(segment) = segment_of(name) else {
            return self.broken(format!("a batch is written to {name}"));
        };
        let lsn = front.get(8..16).and_then(|bytes| bytes.try_into().ok());
        let lsn = Lsn(lsn.map_or(0, u64::from_le_bytes));
        let seed = HeaderSeed::new(self.log, self.shard, segment);
        let front = front.get(..BATCH_HEADER_BYTES).unwrap_or_default();
        let header = match BatchHeader::decode(front, seed, lsn) {
            Ok((header, _)) => header,
            Err(refused) => {
                return self.broken(format!("{name}: a batch that cannot be read: {refused}"));
            }
        };
        let epoch = self.manifest.as_ref().map(|manifest| manifest.epoch);
        if epoch != Some(header.epoch) {
            let durable = format!("{epoch:?}");
            self.broken(format!("{name}: a batch of {:?}, durable is {durable}", header.epoch));
        }
        let lists = |manifest: &Manifest| manifest.segments.iter().any(|e| e.segment == segment);
        if self.serving && !self.manifest.as_ref().is_some_and(lists) {
            self.broken(format!("{name}: a batch before the segment is listed"));
        }
    }

    /// A slice is a batch, a header or a footer, whole.
    fn check_nonces(&mut self, name: &str, slice: &[u8]) {
        let word = |bytes: &[u8], at: usize| {
            let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
            word.map_or(0, u32::from_le_bytes)
        };
        if !self.serving || slice.get(..4) != Some(b"RLb1") {
            return;
        }
        let (body, sections) = (word(slice, 40) as usize, word(slice, 52));
        let Some(mut rest) = slice.get(BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + body) else {
            return self.broken(format!("{name}: a batch that is longer than its slice"));
        };
        for _ in 0..sections {
            let Some(nonce) = rest.get(..16) else { break };
            if !self.nonces.insert(nonce.to_vec()) {
                self.broken(format!("{name}: a nonce is used again"));
            }
            let bytes = SECTION_HEADER_BYTES
                + word(rest, 16) as usize
                + word(rest, 24) as usize * RUN_BYTES;
            rest = rest.get(bytes..).unwrap_or_default();
        }
    }

    fn check_dropped(&mut self, next: &Manifest) -> Vec<String> {
        let Some(before) = self.manifest.as_ref().filter(|_| self.serving) else {
            return Vec::new();
        };
        let is_listed = |segment| next.segments.iter().any(|entry| entry.segment == segment);
        let gone = before.segments.iter().filter(|entry| !is_listed(entry.segment));
        let unsealed = gone.filter(|entry| !matches!(entry.state, SegmentState::Sealed { .. }));
        let broken =
            unsealed.map(|entry| format!("{} is dropped unsealed", name_of(entry.segment)));
        let broken = broken.collect();
        let dropped: Vec<Dropped> = sealed_in(before)
            .filter(|(segment, _)| !is_listed(*segment))
            .map(|(segment, sealed)| Dropped {
                segment: segment.0,
                base_lsn: sealed.base_lsn.0,
                end_lsn: sealed.end_lsn.0,
                last_ns: sealed.last_ns,
            })
            .collect();
        if !dropped.is_empty() {
            self.dropped.push((dropped, sealed_in(next).count() as u64));
        }
        broken
    }

    fn check_manifest(&mut self, next: &Manifest) {
        let mut broken = self.check_dropped(next);
        for entry in &next.segments {
            let name = name_of(entry.segment);
            let Some(file) = self.files.get(&name) else { continue };
            if !file.name_synced {
                broken.push(format!("{name} is listed before the directory is synced"));
            }
            let SegmentState::Sealed { footer, .. } = entry.state else { continue };
            if !file.sealed && file.in_flight > 0 {
                broken.push(format!("{name} is called sealed while it is written"));
            }
            if !file.sealed && !file.unflushed.is_empty() {
                broken.push(format!("{name} is called sealed before it is flushed"));
            }
            if footer && !file.sealed && !file.footer {
                broken.push(format!("{name} is called sealed before its footer is there"));
            }
        }
        self.violations.extend(broken);
    }

    fn completed(&mut self, done: &Completion) {
        let Some(at) = self.in_flight.iter().position(|(tag, ..)| *tag == done.tag) else {
            return self.broken(format!("{:?} completed and was never submitted", done.tag));
        };
        let (_, pending, place) = self.in_flight.remove(at);
        let well = done.result.is_ok();
        if place != usize::MAX {
            self.note(Seen::Done(place, well));
        }
        match pending {
            Pending::Write { file, number, covers, flush, footer } => {
                self.failed |= !well;
                let file = self.files.entry(file).or_default();
                file.in_flight -= 1;
                if well && flush == Flush::No {
                    file.unflushed.push(number);
                }
                if well && flush == Flush::File {
                    file.unflushed.retain(|number| !covers.contains(number));
                }
                file.footer |= well && footer && flush != Flush::No;
            }
            Pending::Sync { file, covers } => {
                self.failed |= !well;
                let file = self.files.entry(file).or_default();
                if well {
                    file.unflushed.retain(|number| !covers.contains(number));
                }
            }
            Pending::Manifest(manifest) if well => self.manifest_durable(manifest),
            Pending::Name { names, done: then } => self.name_done(&names, then, &done.result),
            Pending::Manifest(_) | Pending::Other => {}
        }
    }

    fn name_done(
        &mut self,
        names: &[String],
        then: NameDone,
        result: &Result<Done, ringlog_disk::DiskError>,
    ) {
        match (then, result.is_ok()) {
            (NameDone::Appeared, true) => {
                // A rename takes the file with it under its new name.
                if let [from, _] = names {
                    self.files.remove(from);
                }
                if let Some(new) = names.last() {
                    self.files.insert(new.clone(), File::default());
                }
            }
            (NameDone::DirSynced, true) => {
                self.files.values_mut().for_each(|file| file.name_synced = true);
            }
            _ => {}
        }
    }

    fn manifest_durable(&mut self, manifest: Manifest) {
        let (end, _) = manifest.sealed_end();
        // While the log runs, writes that are submitted say more.
        let mut first_unsealed = !self.serving;
        for entry in &manifest.segments {
            let known = File { name_synced: true, ..File::default() };
            let file = self.files.entry(name_of(entry.segment)).or_insert(known);
            match entry.state {
                SegmentState::Sealed { .. } => file.sealed = true,
                SegmentState::Closed { so_far } => {
                    file.high = file.high.max(4096 + so_far.end_lsn.0 - so_far.base_lsn.0);
                }
                SegmentState::Unsealed => {
                    let proven = manifest.proven_lsn.0.saturating_sub(end.0);
                    let taken = if std::mem::take(&mut first_unsealed) { proven } else { 0 };
                    file.high = file.high.max(4096 + taken);
                }
            }
        }
        // What is not listed any more may be used again.
        let listed = |name: &String| manifest.segments.iter().any(|e| name_of(e.segment) == *name);
        let known = self.manifest.iter().flat_map(|before| &before.segments);
        for gone in known.map(|entry| name_of(entry.segment)).filter(|name| !listed(name)) {
            self.files.remove(&gone);
        }
        self.manifest = Some(manifest);
    }
}

fn sealed_in(manifest: &Manifest) -> impl Iterator<Item = (SegmentId, Sealed)> {
    manifest.segments.iter().filter_map(|entry| match entry.state {
        SegmentState::Sealed { sealed, .. } => Some((entry.segment, sealed)),
        _ => None,
    })
}

fn name_of(segment: SegmentId) -> String {
    format!("{:016x}.seg", segment.0)
}

fn segment_of(name: &str) -> Option<SegmentId> {
    u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok().map(SegmentId)
}

impl Disk for WatchedDisk {
    fn submit(&mut self, tag: Tag, op: Op) {
        if !self.inner.is_dead() {
            self.watch.lock().submitted(tag, &op);
        } else {
            self.watch.lock().in_flight.push((tag, Pending::Other, usize::MAX));
        }
        self.inner.submit(tag, op);
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        if self.watch.lock().held {
            return;
        }
        let before = out.len();
        self.inner.reap(wait, out);
        let mut state = self.watch.lock();
        for done in &out[before..] {
            state.completed(done);
        }
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn facts(&self) -> &DiskFacts {
        self.inner.facts()
    }
}
