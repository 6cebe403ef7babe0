//! What shares a commit, without the log: group commit with nothing around it, to compare with.
//!
//! A bare commit is the floor of one thread that waits. Many that wait also have to copy their records
//! to one place, be counted, sleep and be woken, and what that costs depends on the machine, not on a log.
//! So this does just that, and nothing that a log needs beside it: records are checksummed and copied
//! behind one another into one of two buffers under one lock; one thread writes what has gathered into
//! a file that was written before, with `RWF_DSYNC`, and wakes those whose records it was. No segments,
//! no streams, no recovery, nothing to read: what it stores cannot even be found again.
//!
//! Invariant: where appends are durable, a record is acknowledged only after a durable write that holds it
//! has succeeded.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::io::IoSlice;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringlog_disk::{Block, BlockPool};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use rustix::thread::futex;
use rustix::time::Timespec;

use crate::contender::{ACKNOWLEDGED_WITHIN, Claims, Contender, Facts, Producer, Refusal};
use crate::counters::{Counted, Device};
use crate::measurement::Class;
use crate::workload::incompressible;

/// What stands before each record, as in any format that checks what it reads.
const HEADER_BYTES: usize = 16;
/// One buffer, and how many there are: one is filled while the other is written.
const BUFFER_BYTES: usize = 4 << 20;
const BUFFERS: u32 = 2;
/// Writes go around in a file of this size.
const FILE_BYTES: u64 = 256 << 20;
const ALIGN: usize = 4096;
/// What nobody waits for is written once so much has gathered.
const WRITE_FROM_BYTES: usize = 1 << 20;
/// How long a thread sleeps before it looks again, should it have been forgotten.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Where what is written goes.
enum To {
    /// A file that was written before.
    File { file: File, at: u64 },
    /// Memory, from the front again and again.
    Memory(Vec<u8>),
}

impl To {
    /// A file in `dir`, where it stays, written once; and whether it is written past the page cache.
    fn create(dir: &Path) -> Result<(Self, bool), String> {
        let said = |error: std::io::Error| format!("bare group commit: {error}");
        let path = dir.join("bare");
        let filled = pool(1)?;
        let mut filling = take(&filled)?;
        filling.fill(0xa5);
        {
            let plain = File::create(&path).map_err(said)?;
            let mut at = 0;
            while at < FILE_BYTES {
                write_all(&plain, &filling, at, ReadWriteFlags::empty())?;
                at += BUFFER_BYTES as u64;
            }
            plain.sync_all().map_err(said)?;
        }
        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let direct = File::options().write(true).custom_flags(flags).open(&path);
        let (file, direct) = match direct {
            Ok(file) => (file, true),
            // Not on every file system.
            Err(_) => (File::options().write(true).open(&path).map_err(said)?, false),
        };
        Ok((Self::File { file, at: 0 }, direct))
    }
}

/// What has gathered for the next commit.
struct Gathered {
    block: Option<Block>,
    bytes: usize,
    spare: Vec<Block>,
    /// The number that the next record gets, from 1.
    next: u64,
    /// The number of the commit that takes what gathers now.
    commit: u32,
}

struct Shared {
    gathered: Mutex<Gathered>,
    durable: bool,
    /// Whether the first record wakes the committer, or whoever waits for one.
    at_once: bool,
    /// Records below this are acknowledged.
    acknowledged: AtomicU64,
    /// Those who wait for a commit sleep on one of two, by its number: no third is ever waited for.
    bells: [AtomicU32; 2],
    room: AtomicU32,
    /// Whether the committer sleeps, and what wakes it.
    idle: AtomicBool,
    knock: AtomicU32,
    over: AtomicBool,
    failed: OnceLock<String>,
    commits: AtomicU64,
    bytes: AtomicU64,
}

/// See the module's text.
pub(crate) struct GroupCommit {
    shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
    facts: Facts,
}

/// What wakes the thread that commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Somebody who waits: what a thread appends before it waits goes into one commit.
    WhenWaited,
    /// The first record: for those who only look.
    AtOnce,
}

fn sleep(word: &AtomicU32, seen: u32) {
    // Woken, interrupted or changed before: whoever sleeps looks again anyway.
    let _ = futex::wait(word, futex::Flags::PRIVATE, seen, Some(&NAP));
}

fn wake_all(word: &AtomicU32) {
    word.fetch_add(1, Ordering::SeqCst);
    // It cannot fail for memory that is there.
    let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
}

impl GroupCommit {
    /// On a file in `dir`, where it stays; durable or not.
    ///
    /// # Errors
    /// What the disk refused, in words.
    pub(crate) fn create(dir: &Path, durable: bool, wake: Wake) -> Result<Self, String> {
        let (to, direct) = To::create(dir)?;
        let class = if durable { Class::Media } else { Class::Memory };
        let mode = if durable { "group commit" } else { "not durable" };
        let facts = Facts {
            acknowledged_on_return: !durable,
            direct: Some(direct),
            primitive: durable.then(|| "RWF_DSYNC".to_owned()),
            ..Facts::new("bare", None, mode, class)
        };
        Self::start(to, durable, wake, facts)
    }

    /// On memory: nothing is ever durable.
    ///
    /// # Errors
    /// There is no memory, or no thread.
    pub(crate) fn in_memory() -> Result<Self, String> {
        let facts = Facts::new("bare", None, "in memory", Class::Memory);
        Self::start(To::Memory(vec![0; BUFFER_BYTES]), false, Wake::AtOnce, facts)
    }

    fn start(to: To, durable: bool, wake: Wake, facts: Facts) -> Result<Self, String> {
        let pool = pool(BUFFERS)?;
        let mut spare = (0..BUFFERS).map(|_| take(&pool)).collect::<Result<Vec<_>, _>>()?;
        let gathered = Gathered { block: spare.pop(), bytes: 0, spare, next: 1, commit: 0 };
        let shared = Arc::new(Shared {
            gathered: Mutex::new(gathered),
            durable,
            at_once: wake == Wake::AtOnce,
            acknowledged: AtomicU64::new(0),
            bells: Default::default(),
            room: AtomicU32::new(0),
            idle: AtomicBool::new(false),
            knock: AtomicU32::new(0),
            over: AtomicBool::new(false),
            failed: OnceLock::new(),
            commits: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let committer = thread::Builder::new().name("bare".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.commit_all(to)
        });
        let committer = Some(committer.map_err(|error| format!("bare group commit: {error}"))?);
        Ok(Self { shared, committer, facts })
    }

    fn stop(&mut self) -> Result<(), String> {
        self.shared.over.store(true, Ordering::SeqCst);
        wake_all(&self.shared.knock);
        match self.committer.take().map(JoinHandle::join) {
            Some(Err(_)) => Err("the committer panicked".to_owned()),
            _ => self.shared.check(),
        }
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        // Whoever wants to know has closed it.
        let _ = self.stop();
    }
}

/// Commits in which each of `producers` threads has its `outstanding` records, for about `time`: how
/// many records, and what the process and the device did.
///
/// Of those who wait for their records nobody can do with fewer commits, nor can their threads sleep less
/// often. So this is the least that a closed loop costs: a thread checksums and copies its records to a
/// place of its own and sleeps until they are durable; the last one of them wakes the thread that commits,
/// which writes as much as they have, and wakes them all. Nobody takes a lock, and what is written is not
/// even what they copied.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn whole_groups(
    dir: &Path,
    producers: u32,
    outstanding: usize,
    record_bytes: usize,
    time: Duration,
) -> Result<(u64, Counted), String> {
    let record = incompressible(record_bytes, 1);
    let place_bytes = stored_bytes(&record) * outstanding;
    let (mut to, _) = To::create(dir)?;
    let pool = pool(1)?;
    let block = take(&pool)?;
    let bytes = (place_bytes * producers as usize).next_multiple_of(ALIGN);
    if bytes > block.len() {
        return Err(format!("bare group commit: {bytes} bytes are more than a buffer"));
    }
    let (arrived, commits, over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let device = Device::of(dir);
    let produce = || {
        let mut place = vec![0_u8; place_bytes];
        while !over.load(Ordering::SeqCst) {
            for out in place.chunks_exact_mut(stored_bytes(&record)) {
                out[..4].copy_from_slice(&crc32fast::hash(&record).to_le_bytes());
                out[HEADER_BYTES..HEADER_BYTES + record.len()].copy_from_slice(&record);
            }
            black_box(&place);
            let commit = commits.load(Ordering::SeqCst);
            let all = commit.wrapping_add(1).wrapping_mul(producers);
            if arrived.fetch_add(1, Ordering::SeqCst).wrapping_add(1) == all {
                // It cannot fail for memory that is there.
                let _ = futex::wake(&arrived, futex::Flags::PRIVATE, 1);
            }
            while commits.load(Ordering::SeqCst) == commit && !over.load(Ordering::SeqCst) {
                sleep(&commits, commit);
            }
        }
    };
    thread::scope(|scope| {
        let started = (0..producers)
            .try_for_each(|_| thread::Builder::new().spawn_scoped(scope, produce).map(drop));
        let mut result = started.map_err(|error| format!("bare group commit: {error}"));
        let mut measured = None;
        let begun = Instant::now();
        while result.is_ok() {
            let all = commits.load(Ordering::SeqCst).wrapping_add(1).wrapping_mul(producers);
            loop {
                let seen = arrived.load(Ordering::SeqCst);
                if seen == all {
                    break;
                }
                sleep(&arrived, seen);
            }
            result = put(&mut to, &block[..bytes], true);
            // Not measured: the first tenth, in which everything becomes warm.
            if measured.is_none() && begun.elapsed() >= time / 10 {
                measured = Some((0, Instant::now(), device.look()));
            } else if let Some((records, since, _)) = &mut measured {
                *records += u64::from(producers) * outstanding as u64;
                if since.elapsed() >= time {
                    break;
                }
            }
            wake_all(&commits);
        }
        over.store(true, Ordering::SeqCst);
        wake_all(&commits);
        result?;
        let (records, _, before) = measured.ok_or("bare group commit: no time")?;
        Ok((records, device.look().since(&before)))
    })
}

fn pool(blocks: u32) -> Result<BlockPool, String> {
    BlockPool::new(blocks, BUFFER_BYTES).map_err(|error| format!("bare group commit: {error}"))
}

fn take(pool: &BlockPool) -> Result<Block, String> {
    let mut block = pool.take().ok_or("bare group commit: no buffer")?;
    block.fill(0); // each page is there before anything is measured
    Ok(block)
}

fn write_all(file: &File, bytes: &[u8], at: u64, flags: ReadWriteFlags) -> Result<(), String> {
    let mut done = 0;
    while done < bytes.len() {
        match pwritev2(file, &[IoSlice::new(&bytes[done..])], at + done as u64, flags) {
            Ok(0) => return Err("bare group commit: nothing was written".to_owned()),
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(error) => return Err(format!("bare group commit, write: {error}")),
        }
    }
    Ok(())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), String> {
        self.failed.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Wakes the committer if it sleeps.
    fn call(&self) {
        if self.idle.load(Ordering::SeqCst) && self.idle.swap(false, Ordering::SeqCst) {
            wake_all(&self.knock);
        }
    }

    /// Whether there is enough for a commit.
    fn is_due(&self, gathered: &Gathered) -> bool {
        let from = if self.durable { 1 } else { WRITE_FROM_BYTES };
        gathered.bytes >= from && !gathered.spare.is_empty()
    }

    /// The committer's thread.
    fn commit_all(&self, mut to: To) {
        while !self.over.load(Ordering::SeqCst) {
            let knock = self.knock.load(Ordering::SeqCst);
            let mut gathered = self.lock();
            if !self.is_due(&gathered) {
                drop(gathered);
                self.idle.store(true, Ordering::SeqCst);
                // It may have been added to before that could be seen.
                if !self.is_due(&self.lock()) {
                    sleep(&self.knock, knock);
                }
                self.idle.store(false, Ordering::SeqCst);
                continue;
            }
            let next = gathered.spare.pop();
            let Some(block) = std::mem::replace(&mut gathered.block, next) else { return };
            let bytes = std::mem::take(&mut gathered.bytes);
            let (end, commit) = (gathered.next, gathered.commit);
            gathered.commit = commit.wrapping_add(1);
            drop(gathered);
            if !self.durable {
                wake_all(&self.room);
            }
            let stored = bytes.next_multiple_of(ALIGN);
            if let Err(why) = put(&mut to, &block[..stored], self.durable) {
                let _ = self.failed.set(why); // the first counts
                self.over.store(true, Ordering::SeqCst);
            } else {
                self.acknowledged.store(end, Ordering::SeqCst);
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(stored as u64, Ordering::Relaxed);
            }
            self.lock().spare.push(block);
            wake_all(&self.bells[commit as usize % 2]);
            wake_all(&self.room);
        }
        self.bells.iter().for_each(wake_all);
        wake_all(&self.room);
    }

    /// Copies records behind those that are there. `None`: there is no room.
    fn add(&self, records: &[Vec<u8>]) -> Option<Ticket> {
        let mut gathered = self.lock();
        let Gathered { block, bytes, next, commit, .. } = &mut *gathered;
        let block = block.as_mut()?;
        let need: usize = records.iter().map(|record| stored_bytes(record)).sum();
        if *bytes + need > block.len() {
            return None;
        }
        for record in records {
            let out = &mut block[*bytes..*bytes + stored_bytes(record)];
            let (header, body) = out.split_at_mut(HEADER_BYTES);
            header[..4].copy_from_slice(&crc32fast::hash(record).to_le_bytes());
            header[4..8].copy_from_slice(&(record.len() as u32).to_le_bytes());
            header[8..].copy_from_slice(&next.to_le_bytes());
            body[..record.len()].copy_from_slice(record);
            *bytes += out.len();
            *next += 1;
        }
        Some(Ticket { record: *next - 1, commit: *commit })
    }
}

fn stored_bytes(record: &[u8]) -> usize {
    (HEADER_BYTES + record.len()).next_multiple_of(8)
}

fn put(to: &mut To, bytes: &[u8], durable: bool) -> Result<(), String> {
    match to {
        To::Memory(memory) => {
            memory[..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }
        To::File { file, at } => {
            if *at + bytes.len() as u64 > FILE_BYTES {
                *at = 0;
            }
            let flags = if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
            write_all(file, bytes, *at, flags)?;
            *at += bytes.len() as u64;
            Ok(())
        }
    }
}

/// The last record of an append, and the commit that it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    record: u64,
    commit: u32,
}

/// One thread's way in.
pub(crate) struct GroupProducer(Arc<Shared>);

impl GroupProducer {
    fn wait_until(&self, ticket: Ticket, end: Instant) -> Result<bool, String> {
        let Self(shared) = self;
        let bell = &shared.bells[ticket.commit as usize % 2];
        loop {
            let seen = bell.load(Ordering::SeqCst);
            if self.is_acknowledged(&ticket) {
                return Ok(true);
            }
            shared.check()?;
            if Instant::now() >= end {
                return Ok(false);
            }
            shared.call();
            sleep(bell, seen);
        }
    }
}

impl Producer for GroupProducer {
    type Ticket = Ticket;

    fn submit(&mut self, records: &[Vec<u8>], at_most: Duration) -> Result<Ticket, Refusal> {
        let Self(shared) = self;
        let mut end = None;
        loop {
            let room = shared.room.load(Ordering::SeqCst);
            if let Some(ticket) = shared.add(records) {
                if shared.at_once || !shared.durable {
                    shared.call();
                }
                return Ok(ticket);
            }
            shared.check().map_err(Refusal::Failed)?;
            shared.call();
            if Instant::now() >= *end.get_or_insert_with(|| Instant::now() + at_most) {
                return Err(Refusal::NoRoom);
            }
            sleep(&shared.room, room);
        }
    }

    fn is_acknowledged(&self, ticket: &Ticket) -> bool {
        let Self(shared) = self;
        !shared.durable || ticket.record < shared.acknowledged.load(Ordering::SeqCst)
    }

    fn wait_within(&mut self, ticket: &Ticket, at_most: Duration) -> Result<bool, String> {
        self.wait_until(*ticket, Instant::now() + at_most)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<(), String> {
        match self.wait_until(ticket, Instant::now() + ACKNOWLEDGED_WITHIN)? {
            true => Ok(()),
            false => Err(format!("not durable within {ACKNOWLEDGED_WITHIN:?}")),
        }
    }
}

impl Contender for GroupCommit {
    type Producer = GroupProducer;

    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn producer(&self, _: usize) -> Result<GroupProducer, String> {
        Ok(GroupProducer(Arc::clone(&self.shared)))
    }

    fn claims(&self) -> Claims {
        let commits = self.shared.commits.load(Ordering::Relaxed);
        let bytes = self.shared.bytes.load(Ordering::Relaxed);
        Claims {
            flushes: self.shared.durable.then_some(commits),
            device_bytes: Some(bytes),
            counts: BTreeMap::from([("commits", commits), ("batch_bytes", bytes)]),
            ..Claims::default()
        }
    }

    fn close(mut self) -> Result<(), String> {
        self.stop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{self, Keep, Load};

    const LOAD: Load = Load {
        record_bytes: 100,
        batch_records: 1,
        producers: 3,
        outstanding: 5,
        timed: true,
        keep: Keep::All,
        warm_up: Duration::from_millis(10),
        window: Duration::from_millis(60),
        payload_bytes_max: None,
    };

    #[test]
    fn every_way_of_waking_serves_those_who_wait_and_those_who_look() {
        let dir = tempfile::tempdir().unwrap();
        for wake in [Wake::WhenWaited, Wake::AtOnce] {
            let log = GroupCommit::create(dir.path(), true, wake).unwrap();
            for (producers, outstanding, batch_records) in [(1, 1, 1), (3, 5, 1), (2, 1, 1000)] {
                let load = Load { producers, outstanding, batch_records, ..LOAD };
                let outcome = workload::run(&log, dir.path(), &load).unwrap();
                assert!(outcome.records > 0, "{wake:?}, {load:?}");
                let claimed = outcome.claims.flushes.unwrap();
                assert!(claimed > 0 && claimed <= outcome.claims.device_bytes.unwrap() / 4096);
            }
            log.close().unwrap();
        }
        let log = GroupCommit::create(dir.path(), true, Wake::AtOnce).unwrap();
        let mut producer = log.producer(0).unwrap();
        let ticket = producer.submit(&[vec![1; 10]], Duration::ZERO).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while !producer.is_acknowledged(&ticket) {
            assert!(Instant::now() < end, "nobody has committed it");
            thread::yield_now();
        }
    }

    #[test]
    fn nothing_is_acknowledged_before_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let log = GroupCommit::create(dir.path(), true, Wake::WhenWaited).unwrap();
        let mut producer = log.producer(0).unwrap();
        let record = vec![0x5c; 3000];
        let ticket = producer.submit(std::slice::from_ref(&record), Duration::ZERO).unwrap();
        producer.wait(ticket).unwrap();
        let bytes = std::fs::read(dir.path().join("bare")).unwrap();
        assert_eq!(bytes.len() as u64, FILE_BYTES);
        assert_eq!(bytes[HEADER_BYTES..HEADER_BYTES + record.len()], record);
        assert_eq!(bytes[..4], crc32fast::hash(&record).to_le_bytes());
    }

    #[test]
    fn who_finds_no_room_waits_for_it_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        for log in [
            GroupCommit::in_memory().unwrap(),
            GroupCommit::create(dir.path(), false, Wake::AtOnce).unwrap(),
        ] {
            let mut producer = log.producer(0).unwrap();
            let mut waited = 0;
            for _ in 0..100 {
                let records = [vec![1; 1 << 20]];
                while let Err(refusal) = producer.submit(&records, Duration::from_secs(1)) {
                    assert_eq!(refusal, Refusal::NoRoom);
                    waited += 1;
                    assert!(waited < 30, "no room is ever made");
                }
            }
            let bytes = log.claims().device_bytes.unwrap();
            assert!(bytes >= 90 << 20, "{bytes} bytes");
            log.close().unwrap();
        }
        // What no buffer can hold is refused, and nobody waits for ever.
        let log = GroupCommit::in_memory().unwrap();
        let mut producer = log.producer(0).unwrap();
        let refusal = producer.submit(&[vec![1; BUFFER_BYTES]], Duration::from_millis(10));
        assert_eq!(refusal.err(), Some(Refusal::NoRoom));
    }

    #[test]
    fn a_failed_write_is_told_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("read-only");
        std::fs::write(&path, b"x").unwrap();
        let to = To::File { file: File::open(&path).unwrap(), at: 0 };
        let facts = Facts::new("bare", None, "group commit", Class::Media);
        let log = GroupCommit::start(to, true, Wake::WhenWaited, facts).unwrap();
        let mut producer = log.producer(0).unwrap();
        let ticket = producer.submit(&[vec![1; 10]], Duration::ZERO).unwrap();
        assert!(producer.wait(ticket).unwrap_err().contains("write"));
        assert!(log.close().is_err());
    }

    #[test]
    fn whole_groups_carry_all_that_is_outstanding() {
        let dir = tempfile::tempdir().unwrap();
        let short = Duration::from_millis(50);
        let (records, counted) = whole_groups(dir.path(), 2, 128, 256, short).unwrap();
        assert!(records > 0 && records.is_multiple_of(256), "{records}");
        // Others may write, too.
        assert!(counted.bytes_written.is_none_or(|bytes| bytes >= records * 256), "{counted:?}");
        let error = whole_groups(dir.path(), 2, 1 << 20, 4096, short).unwrap_err();
        assert!(error.contains("buffer"), "{error}");
        assert!(whole_groups(Path::new("/nonexistent"), 1, 1, 1, short).is_err());
    }

    #[test]
    fn no_directory_is_an_error_in_words() {
        let error =
            GroupCommit::create(Path::new("/nonexistent"), true, Wake::AtOnce).err().unwrap();
        assert!(error.starts_with("bare group commit"), "{error}");
    }
}
