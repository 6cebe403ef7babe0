//! The seam to what measures the floor: the disk crate's bare primitives, and pure computing.
//!
//! Everything here is without a log.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringlog_disk::floor::FloorFile;
use ringlog_disk::{Dir, FileName, Primitive as DiskPrimitive};

use crate::counters::{Counted, Device};
use crate::floor::Primitive;
use crate::workload::{incompressible, per_second};

/// Length of the file that the floor is measured on: writes go around in it.
const FILE_BYTES: u64 = 128 << 20;
/// One sequential write or read, and how many are in flight: enough for the full rate of a disk.
const SEQUENTIAL_BYTES: usize = 1 << 20;
const SEQUENTIAL_DEPTH: usize = 8;
/// Most commits of one measurement: a bound on its memory.
const COMMITS_MAX: usize = 100_000;

/// A prewritten file, on which the floor is measured again and again.
pub(crate) struct BareDisk {
    file: FloorFile,
    device: Device,
}

/// Bare commits, one after the other.
pub(crate) struct Commits {
    /// The latency of each in ns.
    pub(crate) latencies_ns: Vec<u64>,
    /// What the device did meanwhile.
    pub(crate) counted: Counted,
}

impl BareDisk {
    /// Writes the file in `dir`, which must be a scratch directory: the file stays there.
    ///
    /// # Errors
    /// What the disk refused, in words.
    pub(crate) fn create(dir: &Path) -> Result<Self, String> {
        Self::create_named(dir, "floor")
    }

    /// The same, for a second one beside it.
    ///
    /// # Errors
    /// What the disk refused, in words.
    pub(crate) fn create_named(dir: &Path, name: &str) -> Result<Self, String> {
        let device = Device::of(dir);
        let (dir, name) = place(&dir.join(name))?;
        FloorFile::create(&dir, &name, FILE_BYTES)
            .map(|file| Self { file, device })
            .map_err(|error| format!("floor, prepare a file: {error}"))
    }

    /// What falls short here, in words.
    pub(crate) fn note(&self) -> Option<&'static str> {
        (!self.file.direct()).then_some("goes through the page cache: no direct I/O here")
    }

    /// Commits of `bytes`, one after the other, for about `time`.
    ///
    /// # Errors
    /// What the disk refused, in words.
    pub(crate) fn commits(
        &self,
        primitive: Primitive,
        bytes: usize,
        time: Duration,
    ) -> Result<Commits, String> {
        let one = match primitive {
            Primitive::Fdatasync => DiskPrimitive::LinkedSync,
            Primitive::Dsync => DiskPrimitive::Dsync,
        };
        let before = self.device.look();
        let latencies_ns = self
            .file
            .durable_writes(one, bytes, COMMITS_MAX, time)
            .map_err(|error| format!("floor, {}: {error}", primitive.name()))?;
        Ok(Commits { latencies_ns, counted: self.device.look().since(&before) })
    }

    /// Reads it whole, once: how many bytes, and at how many per second.
    ///
    /// # Errors
    /// What the disk refused, in words.
    pub(crate) fn sequential_read(&self) -> Result<(u64, f64), String> {
        self.file
            .sequential_read(SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH)
            .map(|moved| (moved.bytes, moved.bytes_per_second()))
            .map_err(|error| format!("floor, sequential read: {error}"))
    }

    /// Bytes per second of a sequential write from huge-page buffers, for about `time`.
    ///
    /// # Errors
    /// What the disk refused, in words.
    pub(crate) fn sequential_write(&self, time: Duration) -> Result<f64, String> {
        self.file
            .sequential_write(SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH, u64::MAX, time)
            .map(|moved| moved.bytes_per_second())
            .map_err(|error| format!("floor, sequential write: {error}"))
    }
}

/// Bytes per second of reading a whole file once.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn sequential_read(file: &Path) -> Result<f64, String> {
    let (dir, name) = place(file)?;
    FloorFile::open_to_read(&dir, &name)
        .and_then(|file| file.sequential_read(SEQUENTIAL_BYTES, SEQUENTIAL_DEPTH))
        .map(|moved| moved.bytes_per_second())
        .map_err(|error| format!("floor, sequential read: {error}"))
}

/// A path as the disk crate names it.
fn place(file: &Path) -> Result<(Dir, FileName), String> {
    let unnamed = || format!("floor: {} is not the name of a file", file.display());
    let name = file.file_name().and_then(|name| name.to_str()).and_then(FileName::new);
    let parent = file.parent().ok_or_else(unnamed)?;
    let dir = Dir::open(parent).map_err(|error| format!("floor: {error}"))?;
    Ok((dir, name.ok_or_else(unnamed)?))
}

/// Memory that records are copied into, one behind the other, and again from the front.
const COPY_BYTES: usize = 64 << 10;

/// Records of `record_bytes` per second that one thread copies into private memory with a crc32
/// of each, for about `time`.
pub(crate) fn copy_and_checksum(record_bytes: usize, time: Duration) -> f64 {
    let record = incompressible(record_bytes.max(1), 1);
    let mut memory = vec![0_u8; COPY_BYTES.max(record.len())];
    let begun = Instant::now();
    let mut records = 0_u64;
    loop {
        for place in memory.chunks_exact_mut(record.len()) {
            place.copy_from_slice(black_box(&record));
            black_box(crc32fast::hash(place));
            records += 1;
        }
        let elapsed = begun.elapsed();
        if elapsed >= time {
            return per_second(records, elapsed);
        }
    }
}

/// Memory of a log that keeps little: more than the caches next to a processor hold.
const KEPT_BYTES: usize = 32 << 20;

/// The least that any log does which several threads may append to and which keeps its records: the
/// same, each under a lock that nobody else wants, and copied to where the records of a while are kept.
pub(crate) fn copy_to_keep(record_bytes: usize, time: Duration) -> f64 {
    let record = incompressible(record_bytes.max(1), 1);
    let memory = Mutex::new(vec![0x5a_u8; KEPT_BYTES.max(record.len())]);
    let places = KEPT_BYTES.max(record.len()) / record.len();
    let begun = Instant::now();
    let mut records = 0_u64;
    loop {
        for _ in 0..COPY_BYTES.div_ceil(record.len()) {
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (records % places as u64) as usize * record.len();
            memory[at..at + record.len()].copy_from_slice(black_box(&record));
            black_box(crc32fast::hash(&record));
            records += 1;
        }
        let elapsed = begun.elapsed();
        if elapsed >= time {
            return per_second(records, elapsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_disk_is_measured_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let disk = BareDisk::create(dir.path()).unwrap();
        let short = Duration::from_millis(20);
        for primitive in Primitive::ALL {
            assert!(!disk.commits(primitive, 4096, short).unwrap().latencies_ns.is_empty());
        }
        assert!(disk.sequential_write(short).unwrap() > 0.0);
        assert_eq!(disk.sequential_read().unwrap().0, FILE_BYTES);
        assert!(sequential_read(&dir.path().join("floor")).unwrap() > 0.0);
        let error = disk.commits(Primitive::Dsync, 100, short).err().unwrap();
        assert!(error.contains("RWF_DSYNC"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_an_error_in_words() {
        assert!(sequential_read(Path::new("/")).is_err());
        assert!(sequential_read(Path::new("/nonexistent/file")).is_err());
        assert!(BareDisk::create(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn copying_counts_records_of_any_size() {
        for record_bytes in [0, 1, 256, 1 << 20] {
            for rate in [copy_and_checksum, copy_to_keep] {
                let rate = rate(record_bytes, Duration::from_millis(1));
                assert!(rate.is_finite() && rate > 0.0, "{record_bytes}");
            }
        }
    }
}
