//! The seam to what measures the floor: the disk crate's bare primitives, and pure computing.
//!
//! Everything here is without a log.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use ringlog_disk::floor;

use crate::floor::Primitive;
use crate::workload::{incompressible, per_second};

/// Commits one after the other.
pub(crate) struct Commits {
    /// In ns, in the order in which they were made.
    pub(crate) latencies_ns: Vec<u64>,
    /// What fell short, in words.
    pub(crate) note: Option<String>,
}

/// A sequential write.
pub(crate) struct Sequential {
    pub(crate) bytes_per_second: f64,
    /// What fell short, in words.
    pub(crate) note: Option<String>,
}

/// Commits of `bytes` at queue depth 1 on a prewritten file in `dir`, for about `time`.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn commits(
    dir: &Path,
    primitive: Primitive,
    bytes: usize,
    time: Duration,
) -> Result<Commits, String> {
    let bare = match primitive {
        Primitive::Fdatasync => floor::Bare::Fdatasync,
        Primitive::Dsync => floor::Bare::Dsync,
    };
    let latencies_ns = floor::commits(dir, bare, bytes, time)
        .map_err(|error| format!("floor, {}: {error}", primitive.name()))?;
    Ok(Commits {
        latencies_ns,
        note: None,
    })
}

/// A sequential O_DIRECT write from huge-page buffers in `dir`, for about `time`.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn sequential_write(dir: &Path, time: Duration) -> Result<Sequential, String> {
    let bytes_per_second = floor::sequential_write(dir, time)
        .map_err(|error| format!("floor, sequential write: {error}"))?;
    Ok(Sequential {
        bytes_per_second,
        note: None,
    })
}

/// Bytes per second of reading a whole file once, with O_DIRECT through io_uring.
///
/// # Errors
/// What the disk refused, in words.
pub(crate) fn sequential_read(file: &Path) -> Result<f64, String> {
    floor::sequential_read(file).map_err(|error| format!("floor, sequential read: {error}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copying_counts_records_of_any_size() {
        for record_bytes in [0, 1, 256, 1 << 20] {
            let rate = copy_and_checksum(record_bytes, Duration::from_millis(1));
            assert!(rate.is_finite() && rate > 0.0, "{record_bytes}");
        }
    }
}
