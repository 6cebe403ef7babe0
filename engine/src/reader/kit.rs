//! What a reader needs to reach the files of a shard: a disk of its own and memory to read into.
//!
//! Making them costs some system calls, so they are kept for the next reader when one has finished.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringlog_disk::{BlockPool, Disk, DiskError, FileId};

use crate::error::ReadError;
use crate::ids::{Lsn, Offset, StreamId};
use crate::index::{Indexes, Posting};
use crate::limits::BLOCK_BYTES;
use crate::options::Visibility;
use crate::published::Published;
use crate::recovery::Identity;
use crate::shard::SegmentRef;
use crate::window::pool_for;

/// The file that records are read from, and the one that follows it; the other way round when that
/// one has been entered.
pub(super) const SEGMENT_FILES: [FileId; 2] = [FileId(0), FileId(2)];
/// The file that indexes are read from, and segments while their index is made anew.
const INDEX_FILE: FileId = FileId(1);
/// Memory for indexes where nobody says how much.
const INDEX_CACHE_BYTES_MIN: usize = 64 << 10;
/// Sets that are kept while nobody uses them, per shard.
const IDLE_MAX: usize = 4;

/// A disk and memory, used by one reader at a time.
pub(crate) struct Kit {
    pub(super) disk: Box<dyn Disk + Send>,
    pub(super) pool: BlockPool,
}

impl Kit {
    pub(crate) fn new(disk: Box<dyn Disk + Send>, identity: &Identity) -> Result<Self, DiskError> {
        Ok(Self { disk, pool: pool_for(identity.segment_bytes)? })
    }
}

/// Opens a disk on the files of the shard.
pub(crate) type OpenDisk = Box<dyn Fn() -> Result<Box<dyn Disk + Send>, DiskError> + Send + Sync>;

/// What all readers of a shard share.
pub(crate) struct ShardReads {
    pub(crate) identity: Identity,
    pub(crate) published: Arc<Published>,
    /// The log is written, if at all, by another process.
    pub(crate) others_may_trim: bool,
    /// The thread that reads is the one that writes.
    pub(crate) driven: bool,
    /// For a log that another process may write: looks for what is new.
    pub(crate) live: Option<Arc<dyn Live>>,
    /// Where the records of each stream lie in sealed segments.
    pub(crate) indexes: Indexes,
    open_disk: OpenDisk,
    idle: Mutex<Vec<Kit>>,
}

/// A log that another process writes: what it publishes has to be looked for.
pub(crate) trait Live: Send + Sync {
    /// Looks for what is new, and publishes it.
    fn refresh(&self) -> Result<(), ReadError>;

    /// Lets a little time pass before the next look, at most so much.
    fn nap(&self, at_most: Option<Duration>);
}

impl ShardReads {
    pub(crate) fn new(
        identity: Identity,
        published: Arc<Published>,
        (others_may_trim, driven): (bool, bool),
        open_disk: OpenDisk,
    ) -> Self {
        let (idle, live) = (Mutex::default(), None);
        let indexes = Indexes::new(identity, INDEX_CACHE_BYTES_MIN, false);
        Self { identity, published, others_may_trim, driven, live, indexes, open_disk, idle }
    }

    /// The same, with so much memory for indexes; those that had to be made anew are stored where
    /// `stores` says so.
    pub(crate) fn keeping(mut self, index_cache_bytes: usize, stores: bool) -> Self {
        self.indexes = Indexes::new(self.identity, index_cache_bytes, stores);
        self
    }

    /// Looks for what another process has written.
    pub(super) fn refresh(&self) -> Result<(), ReadError> {
        self.live.as_ref().map_or(Ok(()), |live| live.refresh())
    }

    /// Waits until there may be something new at this visibility, or gives what `look` finds just
    /// before.
    pub(super) fn wait_for_news<T>(
        &self,
        visibility: Visibility,
        at_most: Option<Duration>,
        look: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        match &self.live {
            None => self.published.wait_for(visibility, at_most, look),
            Some(live) => {
                live.nap(at_most);
                None
            }
        }
    }

    /// Where the stream lies in a segment, up to `covered` at least; `None` where that is not known
    /// without walking through it. A segment that cannot be read is one of those: who walks there
    /// tells what is wrong with it.
    pub(super) fn postings(
        &self,
        kit: &mut Kit,
        segment: &SegmentRef,
        stream: StreamId,
        covered: Lsn,
    ) -> Option<Vec<Posting>> {
        let disk = kit.disk.as_mut();
        self.indexes.postings(disk, INDEX_FILE, segment, stream, covered).ok().flatten()
    }

    /// A place in the log at or before the record of a stream at `offset`, and behind nothing that
    /// is wanted, if one is known.
    pub(super) fn find(
        &self,
        kit: &mut Kit,
        stream: StreamId,
        offset: Offset,
        bound: Lsn,
    ) -> Option<Lsn> {
        let (disk, segments) = (kit.disk.as_mut(), self.published.segments());
        let found = self.indexes.find(disk, INDEX_FILE, &segments, stream, offset, bound);
        let place = found.ok().flatten()?;
        lsn_of(segments.get(place.at)?, place.block)
    }

    /// A place in the log before which nothing was placed at or after a time, if one is known.
    pub(super) fn find_time(&self, kit: &mut Kit, timestamp_ns: u64) -> Option<Lsn> {
        let segments = self.published.segments();
        let before = |segment: &&Arc<SegmentRef>| {
            segment.sealed.get().is_some_and(|sealed| sealed.last_ns < timestamp_ns)
        };
        let segment = segments.iter().find(|segment| !before(segment))?;
        let disk = kit.disk.as_mut();
        let block = self.indexes.block_at_time(disk, INDEX_FILE, segment, timestamp_ns);
        lsn_of(segment, block.unwrap_or(0))
    }

    /// Waits until the device has accepted more than it has now. `false`: it never will, or the
    /// caller is the one who would have to make it so.
    pub(super) fn wait_for_device(&self) -> bool {
        let published = &self.published;
        if self.driven || published.ended().is_some() {
            return false;
        }
        let before = published.mark(Visibility::Written);
        let ended = loop {
            let look = || {
                let ended = published.ended().is_some();
                (ended || published.mark(Visibility::Written) > before).then_some(ended)
            };
            if let Some(ended) = published.wait_for(Visibility::Written, None, look) {
                break ended;
            }
        };
        !ended || published.mark(Visibility::Written) > before
    }

    /// A set for one reader.
    pub(super) fn take_kit(&self) -> Result<Kit, DiskError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(kit) => Ok(kit),
            None => Kit::new((self.open_disk)()?, &self.identity),
        }
    }

    /// Takes a set back. Its files are closed.
    pub(super) fn give_back(&self, kit: Kit) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && kit.disk.in_flight() == 0 {
            idle.push(kit);
        }
    }
}

/// Where a batch begins that lies so many blocks behind the segment's header.
fn lsn_of(segment: &SegmentRef, block: u32) -> Option<Lsn> {
    let bytes = u64::from(block) * BLOCK_BYTES as u64;
    segment.base_lsn.0.checked_add(bytes).map(Lsn)
}
