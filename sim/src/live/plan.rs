//! What a life of the agent does, as a function of the seed: both the agent and the judge ask here.

use std::fmt::Write as _;
use std::time::Duration;

use ringlog::{Durability, Format, IoKind, Options, Primitive, Retention, SyncPolicy};

use crate::Rng;

/// The longest record, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 48 << 10;

/// The producer of a life that is led by the command-line tool: one stream, single lines, synced.
pub const TOOL: u32 = u32::MAX;

/// Which life of which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The seed of the log: all its lives share it.
    pub seed: u64,
    /// The number of the life, never used twice with one log.
    pub number: u32,
}

/// One append, by its place in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId {
    /// The life.
    pub life: u32,
    /// The producer.
    pub producer: u32,
    /// Its number among the producer's appends.
    pub append: u64,
}

/// One record of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordId {
    /// The append.
    pub append: AppendId,
    /// Which record of the batch.
    pub index: u32,
}

/// What an append is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Append {
    /// Its level.
    pub durability: Durability,
    /// How many records; more than one is a batch.
    pub records: u32,
}

/// What producers do between their appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    None,
    /// A flush of the log.
    Flush,
    /// A rotation.
    Rotate,
    /// A trim of its stream: this share of what it holds goes, in per cent.
    Trim(u64),
}

fn mixed(numbers: &[u64]) -> Rng {
    let mut state = 0x7269_6e67;
    for number in numbers {
        state = Rng::new(state ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).next_u64();
    }
    Rng::new(state)
}

/// What holds for all lives of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// Shards.
    pub shards: u16,
    /// Streams.
    pub streams: u32,
    /// Sealed segments that are kept in each shard.
    pub retained: Option<u64>,
    /// Whether streams are trimmed.
    pub trims: bool,
}

impl LogPlan {
    /// Of the log with that seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = mixed(&[seed, 1]);
        let shards = [1, 1, 2, 3][rng.index(4)];
        let retained = [Some(2), Some(4), Some(6)][rng.index(3)];
        Self { shards, streams: 1 + rng.below(4) as u32, retained, trims: rng.coin() }
    }
}

/// What holds for one life.
#[derive(Clone, Copy, Debug)]
pub struct LifePlan {
    life: Life,
    log: LogPlan,
    /// How many threads append.
    pub producers: u32,
    /// How many appends each of them makes at most.
    pub appends: u64,
    /// How many of its appends may be unacknowledged.
    pub window: usize,
    sync: SyncPolicy,
    primitive: Option<Primitive>,
    commits_in_flight: usize,
    profile: bool,
    only_synced: bool,
    requests: bool,
    large: bool,
}

impl LifePlan {
    /// Of that life.
    pub fn of(life: Life) -> Self {
        let mut rng = mixed(&[life.seed, 2, u64::from(life.number)]);
        let delay = Duration::from_millis(1 + rng.below(4));
        let sync = match rng.index(10) {
            0 => SyncPolicy::EveryAppend,
            1 => SyncPolicy::Interval(delay),
            2 => SyncPolicy::EveryRecords { records: 1 + rng.below(40), max_delay: delay },
            3 => SyncPolicy::EveryBytes { bytes: 1 + rng.below(100_000), max_delay: delay },
            _ => SyncPolicy::EveryCommit,
        };
        Self {
            life,
            log: LogPlan::of(life.seed),
            producers: 1 + rng.below(4) as u32,
            appends: [300, 700, 1500][rng.index(3)],
            window: [1, 4, 16, 64][rng.index(4)],
            sync,
            primitive: [None, Some(Primitive::Dsync), Some(Primitive::LinkedSync)][rng.index(3)],
            commits_in_flight: [1, 2, 2, 4, 8][rng.index(5)],
            profile: rng.index(4) == 0,
            only_synced: rng.index(3) == 0,
            requests: rng.index(3) > 0,
            large: rng.coin(),
        }
    }

    /// The options to open with.
    pub fn options(&self, io: IoKind) -> Options {
        Options {
            format: Format { segment_bytes: Some(1 << 20), shards: Some(self.log.shards) },
            sync: self.sync,
            primitive: self.primitive,
            commits_in_flight: Some(self.commits_in_flight),
            profile_disk: self.profile,
            memory_bytes: (4 << 20) * usize::from(self.log.shards),
            retention: Retention { max_segments: self.log.retained, ..Retention::default() },
            io,
            pin: false,
            ..Options::default()
        }
    }

    /// The stream that a producer appends to.
    pub fn stream_of(&self, producer: u32) -> String {
        if producer == TOOL {
            return "tool".to_owned();
        }
        let mut rng = mixed(&[self.life.seed, 3, u64::from(self.life.number), u64::from(producer)]);
        format!("stream-{}", rng.below(u64::from(self.log.streams)))
    }

    /// Which append this is.
    pub fn append_id(&self, producer: u32, append: u64) -> AppendId {
        AppendId { life: self.life.number, producer, append }
    }

    fn rng_of(&self, producer: u32, append: u64, what: u64) -> Rng {
        let life = u64::from(self.life.number);
        mixed(&[self.life.seed, what, life, u64::from(producer), append])
    }

    /// What a producer's append is.
    pub fn append(&self, producer: u32, append: u64) -> Append {
        if producer == TOOL {
            return Append { durability: Durability::Synced, records: 1 };
        }
        let mut rng = self.rng_of(producer, append, 4);
        let durability = match rng.index(10) {
            _ if self.only_synced => Durability::Synced,
            0 | 1 => Durability::Memory,
            2..=4 => Durability::Written,
            _ => Durability::Synced,
        };
        let records = if rng.index(6) == 0 { 2 + rng.below(7) as u32 } else { 1 };
        Append { durability, records }
    }

    /// What it asks for after that append.
    pub fn request(&self, producer: u32, append: u64) -> Request {
        let mut rng = self.rng_of(producer, append, 5);
        match rng.below(400) {
            _ if !self.requests => Request::None,
            0..=2 => Request::Flush,
            3 => Request::Rotate,
            4 | 5 if self.log.trims => Request::Trim(rng.below(60)),
            _ => Request::None,
        }
    }

    /// The bytes of a record.
    pub fn payload(&self, id: RecordId) -> Vec<u8> {
        payload(self.life.seed, id, self.large)
    }
}

/// The bytes of a record: who it is, then noise.
fn payload(seed: u64, id: RecordId, large: bool) -> Vec<u8> {
    let AppendId { life, producer, append } = id.append;
    let mut rng =
        mixed(&[seed, 6, u64::from(life), u64::from(producer), append, u64::from(id.index)]);
    let bytes = match rng.index(20) {
        0..=9 => rng.below(200),
        10..=16 => rng.below(3000),
        17 | 18 if !large => rng.below(5000),
        17 | 18 => rng.below(20_000),
        _ if !large => rng.below(9000),
        _ => rng.below(PAYLOAD_BYTES_MAX),
    };
    let mut text = String::new();
    let _ = write!(text, "{life} {producer} {append} {} ", id.index);
    let mut payload = text.into_bytes();
    while payload.len() < bytes as usize {
        // No newlines: the command-line tool takes records as lines.
        let noise = rng.next_u64().to_le_bytes();
        payload.extend(noise.map(|byte| if byte == b'\n' { b'.' } else { byte }));
    }
    payload
}

/// Which record of the log this is; in words, why it is none that was ever made for it.
pub fn recognize(seed: u64, bytes: &[u8]) -> Result<RecordId, String> {
    let mut numbers = bytes.splitn(5, |byte| *byte == b' ');
    let mut number = || {
        let text = numbers.next().and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let id = (|| {
        let (life, producer, append, index) = (number()?, number()?, number()?, number()?);
        let life = u32::try_from(life).ok()?;
        let append = AppendId { life, producer: u32::try_from(producer).ok()?, append };
        Some(RecordId { append, index: u32::try_from(index).ok()? })
    })();
    let id = id.ok_or_else(|| format!("{} bytes that say nothing", bytes.len()))?;
    let expected = LifePlan::of(Life { seed, number: id.append.life }).payload(id);
    if expected == bytes {
        return Ok(id);
    }
    let at = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    Err(format!(
        "{id:?} is different from byte {at} on ({} bytes, expected {})",
        bytes.len(),
        expected.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_recognized_and_a_changed_one_is_not() {
        let life = Life { seed: 9, number: 3 };
        let plan = LifePlan::of(life);
        for append in 0..200 {
            let id = RecordId { append: plan.append_id(1, append), index: 2 };
            let mut bytes = plan.payload(id);
            assert_eq!(recognize(9, &bytes), Ok(id));
            assert!(recognize(10, &bytes).is_err() || bytes.len() < 24);
            bytes.push(0);
            assert!(recognize(9, &bytes).is_err());
            bytes.pop();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
            assert!(recognize(9, &bytes).is_err());
        }
        assert!(recognize(9, b"").is_err());
        assert!(recognize(9, b"1 2 3").is_err());
    }

    #[test]
    fn every_plan_has_valid_options() {
        for seed in 0..200 {
            for number in 0..5 {
                let plan = LifePlan::of(Life { seed, number });
                plan.options(IoKind::Auto).validate().unwrap();
            }
        }
    }
}
