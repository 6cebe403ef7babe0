//! Bare floors: what the device and the kernel can do without any of this project's code in the
//! way. For the bench harness, which sets its own figures against them in the same run.
//!
//! All of it works on one prewritten file with direct I/O (where the file system does that), from
//! aligned memory on huge pages.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

use crate::block::{Block, BlockPool};
use crate::dir::{Dir, c_name};
use crate::direct;
use crate::names::{Job, Runner};
use crate::op::{DiskError, DiskErrorKind, FileName, Slice};
use crate::options::Primitive;
use crate::sys::{self, Parts};

/// A prewritten file to measure on.
#[derive(Debug)]
pub struct FloorFile {
    file: OwnedFd,
    bytes: u64,
    direct: bool,
    dir: Dir,
    name: FileName,
}

/// How much was moved in which time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Throughput {
    /// Bytes moved.
    pub bytes: u64,
    /// In so much time.
    pub elapsed: Duration,
    /// Through io_uring; else with blocking calls, one at a time, because it was refused.
    pub by_uring: bool,
}

impl Throughput {
    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

impl FloorFile {
    /// Creates a file of `bytes` zeros that are really written. Fails when the name is taken.
    pub fn create(dir: &Dir, name: &FileName, bytes: u64) -> Result<Self, DiskError> {
        Self::from_job(dir, name, Job::Create { name: name.clone(), bytes })
    }

    /// Opens a file that is there, for writing; its content is overwritten by the measurements
    /// that write.
    pub fn open(dir: &Dir, name: &FileName) -> Result<Self, DiskError> {
        Self::from_job(dir, name, Job::Open { name: name.clone(), write: true })
    }

    /// Opens a file that is there for [`FloorFile::sequential_read`] only.
    pub fn open_to_read(dir: &Dir, name: &FileName) -> Result<Self, DiskError> {
        Self::from_job(dir, name, Job::Open { name: name.clone(), write: false })
    }

    fn from_job(dir: &Dir, name: &FileName, job: Job) -> Result<Self, DiskError> {
        let direct = direct::examine(dir, true, None)?.direct;
        let outcome = Runner::new(dir.clone(), direct, None).run(job)?;
        let Some(file) = outcome.file else {
            return Err(DiskError::new(DiskErrorKind::Unexpected, format!("open {name}")));
        };
        let stat = sys::stat(file.as_fd())
            .map_err(|errno| DiskError::from_errno(errno, format!("open {name}")))?;
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Self { file, bytes, direct, dir: dir.clone(), name: name.clone() })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the measurements bypass the page cache.
    pub fn direct(&self) -> bool {
        self.direct
    }

    /// Closes and removes it.
    pub fn remove(self) -> Result<(), DiskError> {
        let doing = format!("remove {}", self.name);
        sys::unlink_at(self.dir.as_fd(), &c_name(&self.name))
            .map_err(|errno| DiskError::from_errno(errno, doing))
    }

    /// Durable writes of `bytes` (a multiple of 4096), one after another, each at the next place
    /// of the file: the time of each in nanoseconds. [`Primitive::Dsync`] is pwritev2 with
    /// RWF_DSYNC, [`Primitive::LinkedSync`] is pwrite and then fdatasync. Ends after `rounds`, or
    /// earlier once `at_most` is over.
    pub fn durable_writes(
        &self,
        primitive: Primitive,
        bytes: usize,
        rounds: usize,
        at_most: Duration,
    ) -> Result<Vec<u64>, DiskError> {
        let mut places = self.places(bytes)?;
        let pool = BlockPool::resident(1, bytes)?;
        let slices = [Slice { block: fill(&pool)?, len: bytes }];
        let mut parts = Parts::default();
        let mut samples = Vec::with_capacity(rounds);
        let flags = if primitive == Primitive::Dsync { libc::RWF_DSYNC } else { 0 };
        let begun = Instant::now();
        while samples.len() < rounds && begun.elapsed() < at_most {
            let offset = places.next_offset();
            let at = Instant::now();
            let written =
                sys::write_slices(self.file.as_fd(), &slices, 0, offset, flags, &mut parts)
                    .map_err(|errno| DiskError::from_errno(errno, "write"))?;
            if primitive == Primitive::LinkedSync {
                sys::sync_data(self.file.as_fd())
                    .map_err(|errno| DiskError::from_errno(errno, "flush"))?;
            }
            let took = at.elapsed();
            if written != bytes {
                return Err(DiskError::new(DiskErrorKind::Io, "write: short"));
            }
            samples.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(samples)
    }

    /// Writes without flushing, front to back and around again, `depth` at a time of `bytes` each,
    /// until `total` bytes are written or `at_most` is over.
    pub fn sequential_write(
        &self,
        bytes: usize,
        depth: usize,
        total: u64,
        at_most: Duration,
    ) -> Result<Throughput, DiskError> {
        self.stream(true, bytes, depth, total, at_most)
    }

    /// Reads the file once from front to back, `depth` reads at a time of `bytes` each; a
    /// remainder smaller than `bytes` is left out.
    pub fn sequential_read(&self, bytes: usize, depth: usize) -> Result<Throughput, DiskError> {
        let total = self.bytes / bytes.max(1) as u64 * bytes as u64;
        self.stream(false, bytes, depth, total, Duration::MAX)
    }

    fn places(&self, bytes: usize) -> Result<Places, DiskError> {
        if bytes == 0 || !bytes.is_multiple_of(4096) || bytes as u64 > self.bytes {
            let what = "measure: a bad size";
            return Err(DiskError::new(DiskErrorKind::Unexpected, what));
        }
        Ok(Places { bytes: bytes as u64, end: self.bytes, next: 0 })
    }

    fn stream(
        &self,
        write: bool,
        bytes: usize,
        depth: usize,
        total: u64,
        at_most: Duration,
    ) -> Result<Throughput, DiskError> {
        let places = self.places(bytes)?;
        let depth = depth.clamp(1, 1024);
        let pool = BlockPool::resident(depth as u32, bytes)?;
        let mut blocks = Vec::with_capacity(depth);
        for _ in 0..depth {
            blocks.push(fill(&pool)?);
        }
        let entries = depth.next_power_of_two() as u32;
        let limits = Limits { total, at_most };
        match IoUring::new(entries) {
            Ok(ring) => Stream { ring, write, file: &self.file, blocks, bytes, in_flight: 0 }
                .run(places, limits),
            Err(_) => self.stream_blocking(write, &mut blocks[0], bytes, places, limits),
        }
    }

    fn stream_blocking(
        &self,
        write: bool,
        block: &mut Block,
        bytes: usize,
        mut places: Places,
        limits: Limits,
    ) -> Result<Throughput, DiskError> {
        let begun = Instant::now();
        let mut moved = 0;
        while moved < limits.total && begun.elapsed() < limits.at_most {
            let offset = places.next_offset();
            let done = if write {
                sys::write_at(self.file.as_fd(), &block[..bytes], offset)
            } else {
                sys::read_at(self.file.as_fd(), &mut block[..bytes], offset)
            };
            match done {
                Ok(n) if n == bytes => moved += bytes as u64,
                Ok(_) => return Err(DiskError::new(DiskErrorKind::Io, "measure: short")),
                Err(errno) => return Err(DiskError::from_errno(errno, "measure")),
            }
        }
        Ok(Throughput { bytes: moved, elapsed: begun.elapsed(), by_uring: false })
    }
}

#[derive(Clone, Copy)]
struct Limits {
    total: u64,
    at_most: Duration,
}

/// Offsets from front to back, and around again.
struct Places {
    bytes: u64,
    end: u64,
    next: u64,
}

impl Places {
    fn next_offset(&mut self) -> u64 {
        if self.next + self.bytes > self.end {
            self.next = 0;
        }
        let offset = self.next;
        self.next += self.bytes;
        offset
    }
}

fn fill(pool: &BlockPool) -> Result<Block, DiskError> {
    let Some(mut block) = pool.take() else {
        return Err(DiskError::new(DiskErrorKind::Limit, "take a block"));
    };
    // Neither zeros nor one repeated byte, which some devices store as nothing.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in block.chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        word.copy_from_slice(&state.to_le_bytes());
    }
    Ok(block)
}

/// A ring that moves blocks to or from a file, as many at a time as there are blocks.
struct Stream<'a> {
    ring: IoUring,
    write: bool,
    file: &'a OwnedFd,
    blocks: Vec<Block>,
    bytes: usize,
    in_flight: usize,
}

impl Stream<'_> {
    fn run(mut self, mut places: Places, limits: Limits) -> Result<Throughput, DiskError> {
        let vectors: Vec<libc::iovec> = self
            .blocks
            .iter_mut()
            .map(|block| libc::iovec { iov_base: block.as_mut_ptr().cast(), iov_len: self.bytes })
            .collect();
        // SAFETY: the vectors describe blocks that this stream owns, and drops after its ring has
        // nothing in flight (see `drop`).
        let fixed = unsafe { self.ring.submitter().register_buffers(&vectors) }.is_ok();
        let begun = Instant::now();
        let (mut asked, mut moved) = (0, 0);
        let mut idle: Vec<usize> = (0..self.blocks.len()).collect();
        loop {
            while asked < limits.total
                && begun.elapsed() < limits.at_most
                && let Some(index) = idle.pop()
            {
                let entry = self.entry(index, places.next_offset(), fixed);
                // SAFETY: the entry points to a block that this stream owns, which nobody touches
                // before its completion.
                let pushed = unsafe { self.ring.submission().push(&entry) };
                if pushed.is_err() {
                    return Err(DiskError::new(DiskErrorKind::Limit, "measure"));
                }
                self.in_flight += 1;
                asked += self.bytes as u64;
            }
            if self.in_flight == 0 {
                let elapsed = begun.elapsed();
                return Ok(Throughput { bytes: moved, elapsed, by_uring: true });
            }
            self.wait()?;
            for entry in self.ring.completion() {
                self.in_flight -= 1;
                idle.push(entry.user_data() as usize);
                match usize::try_from(entry.result()) {
                    Ok(n) if n == self.bytes => moved += n as u64,
                    Ok(_) => return Err(DiskError::new(DiskErrorKind::Io, "measure: short")),
                    Err(_) => return Err(DiskError::from_errno(-entry.result(), "measure")),
                }
            }
        }
    }

    fn entry(&mut self, index: usize, offset: u64, fixed: bool) -> Entry {
        let fd = Fd(self.file.as_raw_fd());
        let start = self.blocks[index].as_mut_ptr();
        let len = self.bytes as u32;
        let buffer = index as u16;
        let entry = match (self.write, fixed) {
            (true, true) => opcode::WriteFixed::new(fd, start, len, buffer).offset(offset).build(),
            (true, false) => opcode::Write::new(fd, start, len).offset(offset).build(),
            (false, true) => opcode::ReadFixed::new(fd, start, len, buffer).offset(offset).build(),
            (false, false) => opcode::Read::new(fd, start, len).offset(offset).build(),
        };
        entry.user_data(index as u64)
    }

    fn wait(&mut self) -> Result<(), DiskError> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                Err(DiskError::from_errno(errno, "measure"))
            }
        }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            if self.wait().is_err() {
                // Nothing tells when the kernel lets go of this memory: it is given up for good.
                std::mem::forget(std::mem::take(&mut self.blocks));
                return;
            }
            let ended = self.ring.completion().count();
            self.in_flight = self.in_flight.saturating_sub(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_floor_can_be_measured() {
        let home = tempfile::TempDir::new().unwrap();
        let dir = Dir::open(home.path()).unwrap();
        let name = FileName::new("floor").unwrap();
        let file = FloorFile::create(&dir, &name, 4 << 20).unwrap();
        let second = Duration::from_secs(1);
        for primitive in [Primitive::Dsync, Primitive::LinkedSync] {
            let samples = file.durable_writes(primitive, 4096, 5, second).unwrap();
            assert!(samples.iter().all(|ns| *ns > 0) && !samples.is_empty());
        }
        let wrote = file.sequential_write(1 << 20, 4, 16 << 20, Duration::MAX).unwrap();
        assert_eq!(wrote.bytes, 16 << 20);
        let read = file.sequential_read(1 << 20, 8).unwrap();
        assert_eq!(read.bytes, 4 << 20);
        assert!(read.bytes_per_second() > 0.0);
        assert!(file.sequential_read(0, 8).is_err());
        assert!(file.durable_writes(Primitive::Dsync, 100, 1, second).is_err());
        assert!(file.sequential_write(8 << 20, 1, 1, second).is_err(), "larger than the file");
        file.remove().unwrap();
        assert!(dir.is_empty().unwrap());
    }
}
