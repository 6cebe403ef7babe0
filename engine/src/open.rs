//! Opening a log: the directory, the lock, and the files that make it a log.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlog_disk::profile::PROBE_FILE;
use ringlog_disk::{
    AnyDisk, Dir, Disk, DiskError, DiskErrorKind, DiskFacts, DiskOptions, DiskProfile, FileName,
    IoKind, MemoryDevice, Op, Place, entropy,
};

use crate::clock::wall_ns;
use crate::error::{Corruption, OpenError};
use crate::format::manifest::Manifest;
use crate::format::meta::LogMeta;
use crate::ids::{Epoch, LogId, Lsn, SegmentId};
use crate::live::LiveView;
use crate::log::{OpenShard, Seen, Writer as ShardWriter, writes};
use crate::names;
use crate::options::{FrozenFormat, Options};
use crate::profile::{self, CommitSettings, Profiled};
use crate::published::Published;
use crate::recovery::watch::Watch;
use crate::recovery::{Identity, ShardRecovery, ask, load, load_manifest, rebuild, resume, tail};
use crate::shard::SegmentRef;
use crate::starting::open_for_writing;
use crate::tools::BACKUP_PREFIX;
use crate::window::pool_for;

/// How long the lock of another process that is just going is waited for.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often a log that changes while it is opened for reading is looked at.
const READ_ATTEMPTS: u32 = 8;
/// The largest file `log` that is read.
const LOG_FILE_BYTES_MAX: u64 = 4096;
/// The shard that a stream belongs to. Part of the format: it must never change.
pub(crate) fn shard_of(name: &str, shards: u16) -> usize {
    crc32fast::hash(name.as_bytes()) as usize % usize::from(shards.max(1))
}

pub(crate) struct Opened {
    pub(crate) meta: LogMeta,
    pub(crate) shards: Vec<OpenShard>,
    pub(crate) facts: DiskFacts,
    pub(crate) notes: Vec<String>,
    pub(crate) profile: Option<DiskProfile>,
    pub(crate) settings: CommitSettings,
    pub(crate) lock: Place,
}

/// A disk for reading files of a shard from any thread.
pub(crate) fn reader_disk(dir: &Place, io: IoKind) -> Result<Box<dyn Disk + Send>, DiskError> {
    dir.movable_disk(io, &reading())
}

/// A disk for reading files of a shard, on the calling thread.
pub(crate) fn reading_disk(dir: &Place, io: IoKind) -> Result<AnyDisk, DiskError> {
    let kind = if io == IoKind::Uring { IoKind::Auto } else { io };
    dir.disk(None, kind, &reading())
}

fn reading() -> DiskOptions {
    DiskOptions { known_file: Some(names::manifest()), ..DiskOptions::default() }
}

/// A log that was found: locked, where it is to be written; nothing is read of its shards yet.
pub(crate) struct Found {
    pub(crate) meta: LogMeta,
    pub(crate) dir: Place,
    pub(crate) shards: Vec<Place>,
    pub(crate) profiled: Profiled,
    pub(crate) notes: Vec<String>,
}

/// Opens the log in a directory of a file system.
pub(crate) fn open(
    path: &Path,
    options: &Options,
    watch: Option<&Arc<Watch>>,
) -> Result<Opened, OpenError> {
    open_found(find(path, options)?, options, watch)
}

/// Opens the log on a device in memory.
pub(crate) fn open_in(device: &MemoryDevice, options: &Options) -> Result<Opened, OpenError> {
    open_found(find_in(device, options)?, options, None)
}

/// Finds the log in a directory of a file system, or creates it there.
pub(crate) fn find(path: &Path, options: &Options) -> Result<Found, OpenError> {
    let dir = open_dir(path, writes(options.recovery) && options.create)?;
    find_place(path, dir.into(), options)
}

/// The same on a device in memory.
pub(crate) fn find_in(device: &MemoryDevice, options: &Options) -> Result<Found, OpenError> {
    find_place(Path::new("memory"), Place::Memory(device.root()), options)
}

/// `path` is what the place is called in errors.
fn find_place(path: &Path, dir: Place, options: &Options) -> Result<Found, OpenError> {
    let write = writes(options.recovery);
    let mut notes: Vec<String> = Vec::new();
    if write {
        if !dir.is_writable()? {
            let doing = format!("open {} for writing", path.display());
            return Err(DiskError::new(DiskErrorKind::Access, doing).into());
        }
        if !dir.lock_exclusive(LOCK_PATIENCE)? {
            return Err(OpenError::Locked(path.to_owned()));
        }
        if let Err(error) = dir.hold_writer_mark() {
            notes.push(format!(
                "Readers in other processes cannot see that this log is being written ({error}): \
                 they may show records that are not durable yet."
            ));
        }
    }
    let found = find_meta(path, &dir)?;
    let format = found.map_or(options.format.at_creation(), FrozenFormat::from);
    options.format.check(format)?;
    options.validate_for(format)?;
    let meta = match found {
        Some(meta) => meta,
        None if write && options.create => create(&dir, options)?,
        None => return Err(OpenError::NotFound(path.to_owned())),
    };
    let mut dirs = Vec::with_capacity(meta.shards.into());
    for shard in 0..meta.shards {
        dirs.push(dir.subdir(&names::shard(shard), false).map_err(|error| match error.kind {
            DiskErrorKind::NotFound => missing_shard(shard),
            _ => OpenError::Disk(error),
        })?);
    }
    let measure = write && options.profile_disk;
    let profiled = profile::find(&dir, meta.log, options, found.is_none(), measure)?;
    Ok(Found { meta, dir, shards: dirs, profiled, notes })
}

fn open_found(
    found: Found,
    options: &Options,
    watch: Option<&Arc<Watch>>,
) -> Result<Opened, OpenError> {
    let write = writes(options.recovery);
    let Found { meta, dir, shards: dirs, mut profiled, mut notes } = found;
    let opened = match write {
        true => {
            let options = profiled.settings.fill(options.clone());
            open_for_writing(&dir, dirs, &meta, &options, watch)?
        }
        false => {
            let how = (options, watch.map(Arc::as_ref));
            let open =
                |(shard, place)| open_for_reading(&dir, place, shard, &meta, how, READ_ATTEMPTS);
            (0..).zip(dirs).map(open).collect::<Result<Vec<Parts>, OpenError>>()?
        }
    };
    if write {
        notes.extend(profiled.keep(&dir));
    }
    let mut shards = Vec::with_capacity(opened.len());
    let mut facts = None;
    for (open, shard_facts, shard_notes) in opened {
        for note in shard_facts.notes.iter().cloned().chain(shard_notes) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        facts.get_or_insert(shard_facts);
        shards.push(open);
    }
    let Some(facts) = facts else { return Err(missing_shard(0)) };
    let Profiled { profile, settings, .. } = profiled;
    Ok(Opened { meta, shards, facts, notes, profile, settings, lock: dir })
}

fn missing_shard(shard: u16) -> OpenError {
    OpenError::Corrupt(Corruption {
        shard,
        segment: None,
        file: names::shard(shard).to_string(),
        file_offset: 0,
        lsn: None,
        what: "the directory of a shard is missing".into(),
    })
}

pub(crate) fn open_dir(path: &Path, create: bool) -> Result<Dir, OpenError> {
    match Dir::open(path) {
        Ok(dir) => Ok(dir),
        Err(error) if error.kind == DiskErrorKind::NotFound && create => Ok(Dir::create_all(path)?),
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            Err(OpenError::NotFound(path.to_owned()))
        }
        Err(error) if error.kind == DiskErrorKind::Unexpected => {
            Err(OpenError::NotALog { dir: path.to_owned(), reason: "it is not a directory".into() })
        }
        Err(error) => Err(error.into()),
    }
}

/// What the file `log` says; `None` where a log may be created.
pub(crate) fn find_meta(path: &Path, dir: &Place) -> Result<Option<LogMeta>, OpenError> {
    match dir.load(log_file()?, LOG_FILE_BYTES_MAX) {
        Ok(file) => {
            let identity = Identity { log: LogId([0; 16]), shard: 0, segment_bytes: 0 };
            let meta = LogMeta::decode(&file)
                .map_err(|refused| identity.refused(names::LOG_FILE, refused))?;
            Ok(Some(meta))
        }
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            let entries = dir.entries()?;
            let ours = |name: &str| {
                // What a creation that was cut short may have left, and what a file system of
                // its own begins with.
                let left = [
                    "shard-",
                    "log.",
                    names::PROFILE_FILE,
                    BACKUP_PREFIX,
                    PROBE_FILE,
                    "direct-probe.",
                ];
                left.iter().any(|prefix| name.starts_with(prefix)) || name == "lost+found"
            };
            if let Some(other) = entries.iter().find(|name| !ours(name)) {
                let (dir, reason) = (path.to_owned(), format!("it holds {other:?}"));
                return Err(OpenError::NotALog { dir, reason });
            }
            for name in entries.iter().filter(|name| name.starts_with("shard-")) {
                check_half_made(dir, name)?;
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn log_file() -> Result<FileName, OpenError> {
    FileName::new(names::LOG_FILE)
        .ok_or_else(|| DiskError::new(DiskErrorKind::Unexpected, "name the log file").into())
}

/// A creation that a crash cut short leaves shards without segments. Anything more is a log that
/// has lost its file.
fn check_half_made(dir: &Place, name: &str) -> Result<(), OpenError> {
    let Some(shard) = FileName::new(name) else { return Ok(()) };
    let shard = dir.subdir(&shard, false)?;
    if shard.entries()?.iter().any(|name| name.ends_with(".seg")) {
        return Err(OpenError::Corrupt(Corruption {
            shard: 0,
            segment: None,
            file: names::LOG_FILE.into(),
            file_offset: 0,
            lsn: None,
            what: format!("the file is missing, but {name} holds segments"),
        }));
    }
    Ok(())
}

/// Makes the files of an empty log; the file `log`, last, makes it one.
fn create(dir: &Place, options: &Options) -> Result<LogMeta, OpenError> {
    let FrozenFormat { segment_bytes, shards } = options.format.at_creation();
    let log = LogId(entropy()?);
    let meta = LogMeta { log, created_ns: wall_ns(), segment_bytes, shards };
    for shard in 0..meta.shards {
        let shard_dir = dir.subdir(&names::shard(shard), true)?;
        let mut disk = reading_disk(&shard_dir, IoKind::Blocking)?;
        let content = empty_manifest(meta.log, shard).encode();
        ask(&mut disk, Op::Replace { name: names::manifest(), content })?;
    }
    let mut disk = reading_disk(dir, IoKind::Blocking)?;
    ask(&mut disk, Op::Replace { name: log_file()?, content: meta.encode() })?;
    Ok(meta)
}

/// The manifest of a shard in which nothing was ever written.
pub(crate) fn empty_manifest(log: LogId, shard: u16) -> Manifest {
    Manifest {
        log,
        shard,
        generation: 0,
        epoch: Epoch(0),
        life_lsn: Lsn(0),
        proven_lsn: Lsn(0),
        clean: true,
        next_segment: SegmentId(1),
        catalogued_lsn: Lsn(0),
        trimmed_lsn: Lsn(0),
        trimmed_chain: 0,
        catalogue: Vec::new(),
        segments: Vec::new(),
    }
}

pub(crate) fn report(
    shard: u16,
    manifest: &Manifest,
    tail: &tail::Tail,
    scan_time: Duration,
) -> ShardRecovery {
    ShardRecovery {
        shard,
        clean: manifest.clean,
        segments: manifest.segments.len(),
        records: tail.records,
        bytes_scanned: tail.bytes_scanned,
        bytes_cut: tail.bytes_cut,
        cut_reason: tail.cut_reason.clone(),
        records_rewritten: 0,
        corruptions: tail.corruption.iter().cloned().collect(),
        scan_time,
        elapsed: scan_time,
    }
}

/// A shard, what its disk is, and what is to be said of it.
pub(crate) type Parts = (OpenShard, DiskFacts, Vec<String>);

fn open_for_reading(
    root: &Place,
    dir: Place,
    shard: u16,
    meta: &LogMeta,
    (options, watch): (&Options, Option<&Watch>),
    attempts: u32,
) -> Result<Parts, OpenError> {
    let identity = Identity { log: meta.log, shard, segment_bytes: meta.segment_bytes };
    let mut disk = reading_disk(&dir, options.io)?;
    let start = Instant::now();
    let pool = pool_for(identity.segment_bytes)?;
    let (manifest, streams, damage) = match load(&mut disk, &identity) {
        Ok((manifest, streams)) => (manifest, streams, None),
        Err(OpenError::Corrupt(damage)) => {
            // Where only the catalogue is damaged, the segments tell of their streams.
            let manifest = load_manifest(&mut disk, &identity)?;
            let streams = rebuild::streams(&mut disk, &identity, &manifest, &pool)?;
            (manifest, streams, Some(damage))
        }
        Err(error) => return Err(error),
    };
    let mut tail = tail::scan_watched(
        &mut disk,
        &identity,
        &manifest,
        streams,
        &pool,
        (tail::Purpose::Look, watch),
    )?;
    if tail.corruption.is_some() && attempts > 1 {
        // A writer at work may have gone on between two looks.
        return open_for_reading(root, dir, shard, meta, (options, watch), attempts - 1);
    }
    let mut recovery = report(shard, &manifest, &tail, start.elapsed());
    let damage_met = damage.is_some();
    recovery.corruptions.extend(damage);
    let published = Arc::new(Published::new(0));
    let facts = disk.facts().clone();
    drop(disk);
    let open = |seen: Seen, names, next_stream: u32| OpenShard {
        writer: ShardWriter::ReadOnly { seen },
        published: Arc::clone(&published),
        dir: dir.clone(),
        epoch: manifest.epoch,
        next_stream: next_stream.max(1),
        names,
        recovery,
    };
    if tail.corruption.is_none() && !damage_met {
        let tools = (reader_disk(&dir, options.io)?, pool);
        let shown = Arc::clone(&published);
        published.set_segments(resume::segment_refs(&manifest, &tail.proven_parts));
        published.add_trims(tail.streams.trims());
        published.set_durable(tail.proven);
        let view = LiveView::new(tools, identity, root.clone(), shown, manifest.clone(), tail);
        view.look()?;
        let names = view.streams_from(0);
        let next = names.iter().map(|(id, _)| id.0 + 1).max().unwrap_or(1);
        return Ok((open(Seen::Live(Arc::new(view)), names, next), facts, Vec::new()));
    }
    // Nothing is written, so what is not proven durable is served as it was found.
    while let Some(batch) = tail.unproven.pop_front() {
        tail::take_proven(&mut tail, batch);
    }
    let mut segments: Vec<Arc<SegmentRef>> = resume::segment_refs(&manifest, &tail.proven_parts);
    for (segment, base_lsn) in &tail.behind {
        if segments.iter().all(|known| known.segment != *segment) {
            let chain_before = tail.proven_chain;
            let (segment, base_lsn) = (*segment, *base_lsn);
            let known = SegmentRef::new(segment, base_lsn, chain_before, Arc::default());
            segments.push(Arc::new(known));
        }
    }
    published.set_segments(segments);
    published.add_trims(tail.streams.trims());
    published.set_durable(match tail.corruption {
        Some(_) => tail.proven.max(tail.told_durable),
        None => tail.proven,
    });
    let names = tail.streams.named().map(|(id, name)| (id, Arc::clone(name))).collect();
    let seen = Seen::Still(tail.streams.all_next());
    let open = open(seen, names, tail.streams.count());
    Ok((open, facts, Vec::new()))
}
