//! Every bound of the engine in one place, and how the bounds relate.

/// Everything on disk begins at a multiple of this, and commits are padded to it.
pub const BLOCK_BYTES: usize = 4096;
/// Smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;
/// Segment size unless chosen otherwise.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Largest segment.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Most shards of a log.
pub const SHARDS_MAX: usize = 64;
/// Shards of a log unless chosen otherwise.
pub const SHARDS_DEFAULT: u16 = 1;
/// The largest batch that any reader must be able to take, with header and padding.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// Most commits in flight per shard.
pub const COMMITS_IN_FLIGHT_MAX: usize = 8;
/// Commits in flight per shard, unless chosen otherwise or by the disk.
pub const COMMITS_IN_FLIGHT_DEFAULT: usize = ringlog_disk::profile::COMMITS_IN_FLIGHT_DEFAULT;
/// Bytes of a commit at most, unless chosen otherwise or by the disk.
pub const COMMIT_BYTES_DEFAULT: usize = ringlog_disk::profile::COMMIT_BYTES_DEFAULT;
/// Bytes of a stream's name, at most.
pub const STREAM_NAME_BYTES_MAX: usize = 255;
/// Most streams of a shard.
pub const STREAMS_MAX: u32 = 1 << 24;
/// Size of the block in which a producer collects its records.
pub const CHUNK_BYTES: usize = 64 << 10;
/// Chunks up to this size are copied together by the writer; larger ones go out untouched.
pub const COALESCE_BYTES_MAX: usize = 32 << 10;
/// Slots in which threads collect records, per shard.
pub const SLOTS: usize = 16;
/// Segments of a shard that may be written but not yet sealed, beside the open one.
pub const SEALING_MAX: usize = 2;
/// Memory of a shard, at least.
pub const MEMORY_BYTES_MIN: usize = 4 << 20;
/// Segments that retention by bytes must admit: one sealed, one being sealed, the open one and the
/// next.
pub const RETENTION_SEGMENTS_MIN: u64 = 4;

const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(BLOCK_BYTES as u64));
const _: () = assert!(CHUNK_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(COALESCE_BYTES_MAX < CHUNK_BYTES);
const _: () = assert!(CHUNK_BYTES <= BATCH_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES as u64 * 4 <= SEGMENT_BYTES_MIN);
const _: () = assert!(SLOTS < 64, "the set of used slots is one 64-bit word");
