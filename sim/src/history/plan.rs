//! What a history chooses: options, sizes, and how each life ends.

use std::collections::BTreeMap;
use std::time::Duration;

use ringlog::testing::ShardMemory;
use ringlog::{DiskError, Durability, Options, Retention, SyncPolicy};

use crate::rng::Rng;

/// Size of the segments of every history: the smallest there is.
pub const SEGMENT_BYTES: u64 = 1 << 20;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Closed without an error.
    Close,
    /// Closed, and the power cut while it closes.
    CutWhileClosing,
    /// The process dies.
    Kill,
    /// The power is cut between two turns.
    Cut,
    /// The power is cut at some operation.
    ScriptedCut,
    /// A write or a flush fails; then the process ends, or the power is cut.
    FailedData,
    /// An operation on names fails; the same.
    FailedName,
    /// The disk is full for a while; then one of the above.
    Full,
    /// The disk lies about flushes; then the power is cut.
    Lie,
    /// A write is lost or goes elsewhere; then it is closed.
    LostWrite,
    /// Closed; then stored bytes are damaged.
    Damage,
    /// The power is cut; then stored bytes are damaged, and no recovery comes between.
    CutAndDamage,
}

impl Ending {
    pub(super) fn choose(rng: &mut Rng, last: bool) -> Self {
        match rng.below(if last { 44 } else { 32 }) {
            0..=3 => Self::Close,
            4..=5 => Self::CutWhileClosing,
            6..=9 => Self::Kill,
            10..=15 => Self::Cut,
            16..=22 => Self::ScriptedCut,
            23..=26 => Self::FailedData,
            27..=28 => Self::FailedName,
            29..=31 => Self::Full,
            32..=33 => Self::Lie,
            34..=35 => Self::LostWrite,
            36..=39 => Self::Damage,
            _ => Self::CutAndDamage,
        }
    }
}

/// What the appends of a history look like.
#[derive(Clone, Debug)]
pub(super) struct Taste {
    pub(super) streams: usize,
    pub(super) producers: usize,
    /// Whether records fill segments by themselves.
    pub(super) big: bool,
    pub(super) steps_max: u64,
    pub(super) bytes_left: usize,
}

impl Taste {
    pub(super) fn choose(rng: &mut Rng) -> Self {
        let big = rng.below(12) == 0;
        Self {
            streams: 1 + rng.index(3),
            producers: 1 + rng.index(4),
            big,
            steps_max: if rng.below(10) == 0 { 160 } else { 50 },
            bytes_left: if big { 4 << 20 } else { 768 << 10 },
        }
    }

    /// The length of the next record.
    pub(super) fn record_bytes(&self, rng: &mut Rng) -> usize {
        match rng.below(if self.big { 20 } else { 16 }) {
            0 => 0,
            1..=8 => rng.index(120),
            9..=12 => rng.index(1500),
            13..=14 => rng.index(12_000),
            15 => rng.index(66_000),
            _ => 60_000 + rng.index(190_000),
        }
    }
}

/// Options of one life.
pub(super) fn options(rng: &mut Rng) -> Options {
    let delay = Duration::from_millis(1 + rng.below(20));
    let sync = match rng.below(10) {
        0..=3 => SyncPolicy::EveryCommit,
        4 => SyncPolicy::EveryAppend,
        5..=6 => SyncPolicy::Interval(delay),
        7 => SyncPolicy::EveryRecords { records: 1 + rng.below(20), max_delay: delay },
        8 => SyncPolicy::EveryBytes { bytes: 1 + rng.below(50_000), max_delay: delay },
        _ => SyncPolicy::Never,
    };
    let mut options = Options {
        sync,
        memory_bytes: 4 << 20,
        commits_in_flight: Some([1, 2, 2, 3, 8][rng.index(5)]),
        commit_bytes: Some([64 << 10, 64 << 10, 256 << 10, 2 << 20][rng.index(4)]),
        linger: Duration::from_micros([0, 0, 0, 100, 3000][rng.index(5)]),
        ..Options::default()
    };
    options.format.segment_bytes = Some(SEGMENT_BYTES);
    options.retention = retention(rng);
    if rng.below(6) == 0 {
        options.rotate_after = Some(Duration::from_millis(1000 + rng.below(30_000)));
    }
    options
}

/// Bounds on what is kept; mostly none, so that there is something to recover.
pub(super) fn retention(rng: &mut Rng) -> Retention {
    let mut retention = Retention::default();
    match rng.below(12) {
        0 => retention.max_segments = Some(rng.below(4)),
        1 => retention.max_bytes = Some((4 + rng.below(5)) * SEGMENT_BYTES),
        2 | 3 => retention.max_age = Some(Duration::from_millis(1000 + rng.below(120_000))),
        4 => {
            retention.max_segments = Some(rng.below(4));
            retention.max_age = Some(Duration::from_millis(1000 + rng.below(10_000)));
        }
        _ => {}
    }
    retention
}

/// A durability that the policy can acknowledge.
pub(super) fn durability(rng: &mut Rng, policy: SyncPolicy) -> Durability {
    match rng.below(6) {
        0 => Durability::Memory,
        1..=2 => Durability::Written,
        _ if policy == SyncPolicy::Never => Durability::Written,
        _ => Durability::Synced,
    }
}

/// Memory for shards, kept from one history to the next: mapping it costs more than a short life.
#[derive(Default)]
pub struct Memories(BTreeMap<(Option<usize>, usize), ShardMemory>);

impl Memories {
    /// Memory for a shard with these options and segments of [`SEGMENT_BYTES`].
    ///
    /// # Errors
    /// When the memory is not to be had.
    pub fn get(&mut self, options: &Options) -> Result<ShardMemory, DiskError> {
        let key = (options.commits_in_flight, options.memory_bytes);
        if let Some(memory) = self.0.get(&key) {
            return Ok(memory.clone());
        }
        let memory = ShardMemory::new(options, SEGMENT_BYTES)?;
        self.0.insert(key, memory.clone());
        Ok(memory)
    }
}
