//! What a history chooses: options, sizes, and how each life ends.

use std::collections::BTreeMap;
use std::time::Duration;

use ringlog::testing::ShardMemory;
use ringlog::{DiskError, Durability, Options, Retention, SyncPolicy};

use super::choices::Choices;

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
    /// Closed, or the power cut; then something is read wrongly once.
    BadRead,
}

impl Ending {
    /// By their weights; those from here on end the log, and come last.
    const ALL: [(Self, u64); 13] = [
        (Self::Close, 4),
        (Self::CutWhileClosing, 2),
        (Self::Kill, 4),
        (Self::Cut, 6),
        (Self::ScriptedCut, 7),
        (Self::FailedData, 4),
        (Self::FailedName, 2),
        (Self::Full, 3),
        (Self::Lie, 2),
        (Self::LostWrite, 2),
        (Self::Damage, 4),
        (Self::CutAndDamage, 4),
        (Self::BadRead, 4),
    ];
    const LASTING: usize = 8;

    pub(super) fn choose(rng: &mut Choices, taste: &Taste, last: bool) -> Self {
        let among = if last { &Self::ALL[..] } else { &Self::ALL[..Self::LASTING] };
        let among = || among.iter().filter(|(ending, _)| taste.allows(*ending));
        let mut at = rng.below(among().map(|(_, weight)| weight).sum());
        for (ending, weight) in among() {
            if at < *weight {
                return *ending;
            }
            at -= weight;
        }
        Self::Cut
    }
}

/// What a user, the disk or time does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Append,
    Turns,
    Time,
    Flush,
    Rotate,
    Trim,
    Retain,
    TrimStream,
    Rest,
    Follow,
    ReadWrongly,
    Stall,
}

impl Step {
    /// By their weights. The first two are always allowed.
    const ALL: [(Self, u64); 12] = [
        (Self::Append, 55),
        (Self::Turns, 30),
        (Self::Time, 9),
        (Self::Flush, 2),
        (Self::Rotate, 4),
        (Self::Trim, 1),
        (Self::Retain, 2),
        (Self::TrimStream, 4),
        (Self::Rest, 2),
        (Self::Follow, 5),
        (Self::ReadWrongly, 6),
        (Self::Stall, 6),
    ];

    pub(super) fn choose(rng: &mut Choices, taste: &Taste) -> Self {
        let mut at = rng.below(Self::ALL.iter().map(|(_, weight)| weight).sum());
        for (number, (step, weight)) in Self::ALL.into_iter().enumerate() {
            if at < weight {
                return if taste.steps >> number & 1 == 1 { step } else { Self::Append };
            }
            at -= weight;
        }
        Self::Append
    }
}

/// What the appends of a history look like.
#[derive(Clone, Debug)]
pub(super) struct Taste {
    pub(super) streams: usize,
    pub(super) producers: usize,
    /// Whether records fill segments by themselves.
    pub(super) big: bool,
    /// Three times as many as lives come, about.
    pub(super) lives_mean: u64,
    pub(super) steps_mean: u64,
    pub(super) steps_max: u64,
    pub(super) bytes_left: usize,
    /// How many of ten recoveries are disturbed.
    pub(super) disturbed: usize,
    /// A bit for each [`Ending`] and each [`Step`] that there is in this history.
    endings: u32,
    steps: u32,
}

impl Taste {
    /// Of a history; a calm one is short, and nothing goes wrong in it by itself.
    pub(super) fn choose(rng: &mut Choices, calm: bool) -> Self {
        let big = rng.below(12) == 11;
        let bits = |rng: &mut Choices| (rng.next_u64() >> 32) as u32;
        let everything = rng.below(4) == 3;
        let (mut endings, mut steps) = (bits(rng), bits(rng));
        if everything {
            (endings, steps) = (u32::MAX, u32::MAX);
        }
        if calm {
            endings = Self::bit(Ending::Kill) | Self::bit(Ending::Cut) | Self::bit(Ending::Close);
            // No step in which something goes wrong.
            steps &= 0x1ff;
        }
        let long = rng.below(10) == 9;
        Self {
            streams: 1 + rng.index(3),
            producers: 1 + rng.index(4),
            big: big && !calm,
            lives_mean: [9, 18, 18, 36][rng.index(4)],
            steps_mean: if calm {
                12
            } else if long {
                80
            } else {
                20
            },
            steps_max: if calm { 24 } else { 200 },
            bytes_left: if big { 4 << 20 } else { 768 << 10 },
            disturbed: if calm { 0 } else { [0, 3, 4, 6][rng.index(4)] },
            endings,
            steps: steps | 3,
        }
    }

    fn bit(ending: Ending) -> u32 {
        1 << Ending::ALL.iter().position(|(one, _)| *one == ending).unwrap_or(0)
    }

    fn allows(&self, ending: Ending) -> bool {
        self.endings & Self::bit(ending) != 0
    }

    /// The length of the next record.
    pub(super) fn record_bytes(&self, rng: &mut Choices) -> usize {
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

/// Options of one life; in a calm history without bounds on what is kept.
pub(super) fn options(rng: &mut Choices, calm: bool) -> Options {
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
    let bounds = retention(rng);
    if !calm {
        options.retention = bounds;
    }
    if rng.below(6) == 0 {
        options.rotate_after = Some(Duration::from_millis(1000 + rng.below(30_000)));
    }
    options
}

/// Bounds on what is kept; mostly none, so that there is something to recover.
pub(super) fn retention(rng: &mut Choices) -> Retention {
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
pub(super) fn durability(rng: &mut Choices, policy: SyncPolicy) -> Durability {
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
