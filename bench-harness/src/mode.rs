//! The durability modes that are compared, and what each of them promises.

use std::time::Duration;

use clap::ValueEnum;
use ringlog::{Durability, SyncPolicy};

/// How long an append of the interval mode may stay unflushed.
pub(crate) const INTERVAL: Duration = Duration::from_millis(10);

/// One durability mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Acknowledged in memory, written in the background
    Memory,
    /// Acknowledged when the device has accepted the write
    Written,
    /// Acknowledged when flushed; all that waits shares one flush (group commit)
    Synced,
    /// Acknowledged when flushed; one flush for each append, shared with nobody
    SyncedEveryAppend,
    /// Acknowledged when the device has accepted the write; a flush every 10 ms
    Interval,
}

impl Mode {
    /// Its name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Written => "written",
            Self::Synced => "synced",
            Self::SyncedEveryAppend => "synced-every-append",
            Self::Interval => "interval",
        }
    }

    /// Within how many ms an acknowledged record reaches the media, where it has not already.
    pub(crate) fn media_within_ms(self) -> Option<u64> {
        (self == Self::Interval).then_some(INTERVAL.as_millis() as u64)
    }

    /// The level that its appends ask for.
    pub(crate) fn durability(self) -> Durability {
        match self {
            Self::Memory => Durability::Memory,
            Self::Written | Self::Interval => Durability::Written,
            Self::Synced | Self::SyncedEveryAppend => Durability::Synced,
        }
    }

    /// When its log flushes. Only `Synced` appends make a group commit flush, so memory and written
    /// flush at the end of a segment only.
    pub(crate) fn sync_policy(self) -> SyncPolicy {
        match self {
            Self::Memory | Self::Written | Self::Synced => SyncPolicy::EveryCommit,
            Self::SyncedEveryAppend => SyncPolicy::EveryAppend,
            Self::Interval => SyncPolicy::Interval(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for mode in Mode::value_variants() {
            assert_eq!(mode.to_possible_value().unwrap().get_name(), mode.name());
        }
        assert_eq!(Mode::Interval.media_within_ms(), Some(10));
        assert_eq!(Mode::Synced.media_within_ms(), None);
    }
}
