//! Opening a log for callers that drive its shards themselves.
//!
//! Opening reads; starting changes. What a seat carries from the one to the other is plain data, so
//! that the ring and the memory are made on the thread that uses them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ringlog_disk::{AnyDisk, BlockPool, MemoryDevice, Place};

use super::shard::{DrivenShard, Whereabouts, without_linger};
use crate::clock::wall_ns;
use crate::error::OpenError;
use crate::failure::LogFailure;
use crate::format::meta::LogMeta;
use crate::ids::LogId;
use crate::open::{Found, find, find_in, reader_disk, shard_of};
use crate::options::{FrozenFormat, Options, RecoveryMode};
use crate::reader::{OpenDisk, ShardReads};
use crate::recovery::Identity;
use crate::starting::{
    Begin, NO_HUGE_PAGES, Pools, Scanned, disk_options, read_shard, start_shard,
};

/// A log that was found sound and is locked; nothing drives it yet.
pub struct DrivenLog {
    meta: LogMeta,
    seats: Vec<Seat>,
}

/// One shard of a log, to be started on the thread that will drive it.
pub struct Seat {
    dir: Place,
    lock: Place,
    meta: LogMeta,
    identity: Identity,
    options: Arc<Options>,
    scanned: Scanned,
    names_thread: bool,
    notes: Vec<String>,
    failure: LogFailure,
    opened: Instant,
}

impl DrivenLog {
    /// Opens the log in `dir` for writing; creates it, and the directory, where there is none and
    /// [`Options::create`] says so. Reads what recovery needs of every shard, one after the other.
    ///
    /// The lock is held until the log, its seats and its shards are all gone. Of the options,
    /// [`Options::pin`] is ignored: the threads are the caller's.
    ///
    /// # Errors
    /// See [`OpenError`]. When one shard is refused, nothing is changed in any. But each seat is
    /// started by itself: where one cannot be started (its memory or its ring is not to be had),
    /// others may have begun a new life. That loses nothing.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        check(&options)?;
        Self::from_found(find(dir.as_ref(), &options)?, options)
    }

    /// The same on a device in memory, as [`crate::Log::open_in`]: for tests of what is built on
    /// this, which are deterministic where one thread drives.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_in(device: &MemoryDevice, options: Options) -> Result<Self, OpenError> {
        check(&options)?;
        Self::from_found(find_in(device, &options)?, options)
    }

    fn from_found(mut found: Found, options: Options) -> Result<Self, OpenError> {
        let options = Arc::new(found.profiled.settings.fill(options));
        let meta = found.meta;
        let mut seats = Vec::with_capacity(found.shards.len());
        let failure = LogFailure::default();
        for (shard, dir) in (0..).zip(found.shards) {
            let opened = Instant::now();
            let identity = Identity { log: meta.log, shard, segment_bytes: meta.segment_bytes };
            let scanned = read_shard(&dir, options.io, &identity, &|| opened.elapsed(), None)?;
            seats.push(Seat {
                dir,
                lock: found.dir.clone(),
                meta,
                identity,
                options: Arc::clone(&options),
                scanned,
                names_thread: true,
                notes: found.notes.clone(),
                failure: failure.clone(),
                opened,
            });
        }
        if let Some(note) = found.profiled.keep(&found.dir) {
            seats.iter_mut().for_each(|seat: &mut Seat| seat.notes.push(note.clone()));
        }
        Ok(Self { meta, seats })
    }

    /// The log's identity.
    pub fn log_id(&self) -> LogId {
        self.meta.log
    }

    /// How many shards it has.
    pub fn shards(&self) -> u16 {
        self.meta.shards
    }

    /// The shard that a stream of this name belongs to. Other shards refuse it.
    pub fn shard_of(&self, stream: &str) -> u16 {
        shard_of(stream, self.meta.shards) as u16
    }

    /// One seat for each shard, in order.
    pub fn into_seats(self) -> Vec<Seat> {
        self.seats
    }
}

fn check(options: &Options) -> Result<(), OpenError> {
    options.validate()?;
    if options.recovery != RecoveryMode::Strict {
        let reason = "a shard is driven for writing: read-only mode is for Log::open".into();
        return Err(OpenError::InvalidOption { field: "recovery".into(), reason });
    }
    Ok(())
}

impl Seat {
    /// Which shard it is.
    pub fn shard(&self) -> u16 {
        self.identity.shard
    }

    /// Whether work on names (preparing the next segment, renaming, the manifest) is done by a
    /// thread of the disk's, which sleeps otherwise. Default: yes.
    ///
    /// Without it there is no other thread at all, and that work is carried out inside the turns
    /// that meet it, which then last as long as it takes: a new segment is written through once
    /// (64 MiB unless chosen otherwise, so tens of milliseconds on a fast disk), a recycled one
    /// takes a few flushes. With it, no turn waits for more than a commit. Memory is made resident by
    /// another thread, which ends soon after the start; without, inside [`Seat::start`].
    #[must_use]
    pub fn names_thread(mut self, yes: bool) -> Self {
        self.names_thread = yes;
        self
    }

    /// Recovers the shard and begins its new life, on the calling thread: the ring and the memory
    /// belong to it from now on.
    ///
    /// # Errors
    /// See [`OpenError`]; the shard is as it was, or recovery has begun and the next open goes on
    /// with it. The log has to be opened again.
    pub fn start(self) -> Result<DrivenShard<AnyDisk>, OpenError> {
        let Self { dir, lock, meta, identity, options, scanned, mut notes, .. } = self;
        let (names_thread, failure, opened) = (self.names_thread, self.failure, self.opened);
        let format = FrozenFormat::from(meta);
        let pools = Pools::new(&options, format)?;
        if !names_thread {
            pools.all().iter().for_each(BlockPool::make_resident);
        }
        if dir.as_dir().is_some() && !pools.small.huge_pages_advised() {
            notes.push(NO_HUGE_PAGES.to_owned());
        }
        let disk_options = disk_options(&options, &pools, names_thread);
        let disk = dir.disk(Some(&lock), options.io, &disk_options)?;
        let own = without_linger(&options);
        let (pools_too, now_ns) = (pools.clone(), wall_ns());
        let begin = Begin { options: &own, pools: pools_too, notes, now_ns, failure };
        let measure = || opened.elapsed();
        let (writer, ready) = start_shard(disk, &identity, scanned, begin, &measure)?;
        let io = options.io;
        let open_disk: OpenDisk = Box::new(move || reader_disk(&dir, io));
        let published = Arc::clone(&ready.published);
        let reads = ShardReads::new(identity, published, (false, false), open_disk);
        let reads = Arc::new(reads.keeping(options.index_cache_bytes, true));
        let place = Whereabouts { identity, shards: Some(meta.shards), reads };
        let making_resident = names_thread.then(|| pools.make_resident());
        let mut shard = DrivenShard::new(writer, ready, pools, place, options);
        shard.making_resident = making_resident;
        Ok(shard)
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat(shard {})", self.identity.shard)
    }
}

impl std::fmt::Debug for DrivenLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DrivenLog({} shards)", self.meta.shards)
    }
}
