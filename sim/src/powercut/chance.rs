//! What is left to chance: faults, and when they come.

use super::device::{Event, Keep, Kind, When};
use crate::Rng;

/// What is done to the disk in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Cut,
    FailWrites,
    FailFlushes { drop: bool },
    Lie,
}

/// In which phase of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Opening,
    Appending,
    Closing,
}

pub(super) fn cut(rng: &mut Rng) -> Event {
    Event::Cut { keep: Keep::draw(rng), effect: rng.coin() }
}

/// A number below `bound`, small ones as often as large ones.
pub(super) fn log_uniform(rng: &mut Rng, bound: u64) -> u64 {
    let bits = 64 - bound.leading_zeros();
    let bound_now = 1u64 << rng.below(u64::from(bits) + 1);
    rng.below(bound_now.min(bound))
}

/// One of the next operations.
pub(super) fn soon(rng: &mut Rng, within: u64) -> When {
    if rng.index(3) == 0 {
        When::Flush(rng.below(within / 2 + 1))
    } else {
        When::Write(rng.below(within))
    }
}

/// Some operation of a life.
pub(super) fn sometime(rng: &mut Rng) -> When {
    match rng.index(20) {
        0..=5 => When::Write(log_uniform(rng, 1500)),
        6..=9 => When::Flush(log_uniform(rng, 600)),
        _ => {
            let kinds = [
                Kind::Footer,
                Kind::Footer,
                Kind::Manifest,
                Kind::SegmentHeader,
                Kind::SmallFile,
                Kind::Index,
            ];
            let kind = kinds[rng.index(kinds.len())];
            When::Behind { kind, nth: rng.below(3), operations: rng.below(8) }
        }
    }
}

pub(super) fn at_batch(rng: &mut Rng) -> When {
    When::Behind { kind: Kind::Batch, nth: log_uniform(rng, 60), operations: 0 }
}
