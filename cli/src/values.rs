//! How values are written on the command line.

use std::time::Duration;

use clap::ValueEnum;
use ringlog::{Durability, SyncPolicy};

/// How long records wait for company under a count policy that names no delay.
const DELAY_DEFAULT: Duration = Duration::from_millis(10);

/// When an append counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// In the log's memory: survives nothing.
    Memory,
    /// Accepted by the device: survives the death of the process.
    Written,
    /// Flushed: survives power loss.
    Synced,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Memory => Self::Memory,
            DurabilityArg::Written => Self::Written,
            DurabilityArg::Synced => Self::Synced,
        }
    }
}

/// The name of a durability.
pub(crate) fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Memory => "memory",
        Durability::Written => "written",
        Durability::Synced => "synced",
    }
}

/// A sync policy: `every-commit`, `every-append`, `interval:D`, `records:N[:D]`, `bytes:N[:D]` or
/// `never`. Its bounds are the engine's to check.
pub(crate) fn sync_policy(text: &str) -> Result<SyncPolicy, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let count = |number: &str| {
        number.parse::<u64>().map_err(|_| format!("{number:?} is not a whole number"))
    };
    match parts[..] {
        ["every-commit"] => Ok(SyncPolicy::EveryCommit),
        ["every-append"] => Ok(SyncPolicy::EveryAppend),
        ["never"] => Ok(SyncPolicy::Never),
        ["interval", every] => Ok(SyncPolicy::Interval(duration(every)?)),
        ["records", n, ref delay @ ..] if delay.len() < 2 => {
            Ok(SyncPolicy::EveryRecords { records: count(n)?, max_delay: delay_or_default(delay)? })
        }
        ["bytes", n, ref delay @ ..] if delay.len() < 2 => {
            Ok(SyncPolicy::EveryBytes { bytes: size(n)?, max_delay: delay_or_default(delay)? })
        }
        _ => Err("expected every-commit, every-append, interval:10ms, records:N[:10ms], \
                  bytes:N[:10ms] or never"
            .to_owned()),
    }
}

fn delay_or_default(delay: &[&str]) -> Result<Duration, String> {
    delay.first().map_or(Ok(DELAY_DEFAULT), |text| duration(text))
}

/// A policy, as [`sync_policy`] reads it.
pub(crate) fn sync_policy_name(policy: SyncPolicy) -> String {
    match policy {
        SyncPolicy::EveryCommit => "every-commit".to_owned(),
        SyncPolicy::EveryAppend => "every-append".to_owned(),
        SyncPolicy::Interval(every) => format!("interval:{}us", every.as_micros()),
        SyncPolicy::EveryRecords { records, max_delay } => {
            format!("records:{records}:{}us", max_delay.as_micros())
        }
        SyncPolicy::EveryBytes { bytes, max_delay } => {
            format!("bytes:{bytes}:{}us", max_delay.as_micros())
        }
        SyncPolicy::Never => "never".to_owned(),
    }
}

/// A time span: a whole number and one of `us`, `ms`, `s`, `m`, `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a time span such as 500us, 10ms, 2s, 1m or 1h");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(unit_at);
    let micros_per_unit = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(micros_per_unit).map(Duration::from_micros).ok_or_else(expected)
}

/// A size in bytes: a whole number, and `K`, `M` or `G` (also as `KiB`, `MiB`, `GiB`) for units
/// of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?} is not a size such as 4096, 64K, 1MiB or 1G");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let bytes_per_unit: u64 = match unit {
        "" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(bytes_per_unit).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn every_policy_can_be_written() {
        let good = [
            ("every-commit", SyncPolicy::EveryCommit),
            ("every-append", SyncPolicy::EveryAppend),
            ("never", SyncPolicy::Never),
            ("interval:10ms", SyncPolicy::Interval(10 * MS)),
            ("interval:1h", SyncPolicy::Interval(3_600_000 * MS)),
            ("records:7", SyncPolicy::EveryRecords { records: 7, max_delay: 10 * MS }),
            ("records:7:2s", SyncPolicy::EveryRecords { records: 7, max_delay: 2000 * MS }),
            ("bytes:64K", SyncPolicy::EveryBytes { bytes: 65536, max_delay: 10 * MS }),
            ("bytes:1:5ms", SyncPolicy::EveryBytes { bytes: 1, max_delay: 5 * MS }),
        ];
        for (text, policy) in good {
            assert_eq!(sync_policy(text), Ok(policy), "{text}");
            assert_eq!(sync_policy(&sync_policy_name(policy)), Ok(policy), "{text}, named");
        }
        for bad in [
            "",
            "sometimes",
            "interval",
            "interval:",
            "interval:10",
            "interval:ms",
            "interval:1ms:2ms",
            "records:",
            "records:-1",
            "records:1:",
            "records:1:1ms:",
            "bytes:1X",
            "interval:99999999999999999999h",
            "interval:9999999999999999h",
            "every-commit:1",
        ] {
            assert!(sync_policy(bad).is_err(), "{bad:?} was taken for a policy");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1M"), Ok(1 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        for bad in ["", "M", "1.5M", "1MB", "1 M", "-1", "99999999999999999999", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad:?} was taken for a size");
        }
    }
}
