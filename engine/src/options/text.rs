//! How values are written: in the environment, in configuration files, on command lines.
//!
//! Every value that can be written can be read again, and comes out the same.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ringlog_disk::{IoKind, Primitive};

use super::{Durability, RecoveryMode, SyncPolicy};

/// How long records wait for company under a count policy whose text names no delay.
const DELAY_DEFAULT: Duration = Duration::from_millis(10);

/// Reads `every-commit`, `every-append`, `interval:D`, `records:N[:D]`, `bytes:N[:D]` or `never`,
/// where D is a whole number with one of `ns`, `us`, `ms`, `s`, `m`, `h`, `d`, and bytes may be in
/// `K`, `M`, `G` of 1024. Bounds are checked when the log is opened.
impl FromStr for SyncPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let delay_of =
            |delay: &[&str]| delay.first().map_or(Ok(DELAY_DEFAULT), |text| duration(text));
        match parts[..] {
            ["every-commit"] => Ok(Self::EveryCommit),
            ["every-append"] => Ok(Self::EveryAppend),
            ["never"] => Ok(Self::Never),
            ["interval", every] => Ok(Self::Interval(duration(every)?)),
            ["records", n, ref delay @ ..] if delay.len() < 2 => {
                Ok(Self::EveryRecords { records: number(n)?, max_delay: delay_of(delay)? })
            }
            ["bytes", n, ref delay @ ..] if delay.len() < 2 => {
                Ok(Self::EveryBytes { bytes: size(n)?, max_delay: delay_of(delay)? })
            }
            _ => Err(format!(
                "{text:?} is not a sync policy: every-commit, every-append, interval:10ms, \
                 records:N[:10ms], bytes:N[:10ms] or never"
            )),
        }
    }
}

/// The text that [`SyncPolicy::from_str`] reads.
impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EveryCommit => f.write_str("every-commit"),
            Self::EveryAppend => f.write_str("every-append"),
            Self::Interval(every) => write!(f, "interval:{}", duration_text(*every)),
            Self::EveryRecords { records, max_delay } => {
                write!(f, "records:{records}:{}", duration_text(*max_delay))
            }
            Self::EveryBytes { bytes, max_delay } => {
                write!(f, "bytes:{bytes}:{}", duration_text(*max_delay))
            }
            Self::Never => f.write_str("never"),
        }
    }
}

/// Values that have names: how they are listed in messages, read and written.
macro_rules! named {
    ($type:ty, $read:ident, $(#[$only:meta])? $write:ident, $($value:path => $name:literal),+) => {
        pub(crate) fn $read(text: &str) -> Result<$type, String> {
            match text {
                $($name => Ok($value),)+
                _ => Err(format!("{text:?} is not one of {}", [$($name),+].join(", "))),
            }
        }

        $(#[$only])?
        pub(crate) fn $write(value: $type) -> &'static str {
            match value {
                $($value => $name,)+
            }
        }
    };
}

named!(Durability, durability, durability_text,
    Durability::Memory => "memory",
    Durability::Written => "written",
    Durability::Synced => "synced");
named!(RecoveryMode, recovery, recovery_text,
    RecoveryMode::Strict => "strict",
    RecoveryMode::ReadOnly => "read-only");
named!(IoKind, io, #[cfg(feature = "serde")] io_text,
    IoKind::Auto => "auto",
    IoKind::Uring => "uring",
    IoKind::Blocking => "blocking");
named!(Primitive, primitive, #[cfg(feature = "serde")] primitive_text,
    Primitive::Dsync => "dsync",
    Primitive::LinkedSync => "linked");

/// Reads `memory`, `written` or `synced`.
impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        durability(text)
    }
}

/// The text that [`Durability::from_str`] reads.
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(durability_text(*self))
    }
}

/// Reads `strict` or `read-only`.
impl FromStr for RecoveryMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        recovery(text)
    }
}

/// The text that [`RecoveryMode::from_str`] reads.
impl fmt::Display for RecoveryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(recovery_text(*self))
    }
}

pub(crate) fn number(text: &str) -> Result<u64, String> {
    text.parse::<u64>().map_err(|_| format!("{text:?} is not a whole number"))
}

/// `0` or `1`.
pub(crate) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{text:?} is not 0 or 1")),
    }
}

/// A size in bytes: a whole number, with `K`, `M` or `G` (also `KiB`, `MiB`, `GiB`) in units of
/// 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let shift = match unit {
        "" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(format!("{text:?} is not a size such as 4096, 64K, 1MiB or 1G")),
    };
    number(digits)?.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"))
}

/// The same, in memory.
pub(crate) fn memory_size(text: &str) -> Result<usize, String> {
    size(text)?.try_into().map_err(|_| format!("{text:?} is too large"))
}

/// Units of time, each a whole number of the one behind it, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A time span: a whole number with one of `ns`, `us`, `ms`, `s`, `m`, `h`, `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a time span such as 500us, 10ms, 2s, 1m, 1h or 7d");
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (digits, unit) = text.split_at(unit_at);
    let count: u64 = digits.parse().map_err(|_| expected())?;
    let (_, unit_ns) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
    if unit_ns >= 1_000_000_000 {
        let seconds = count.checked_mul(unit_ns / 1_000_000_000).ok_or_else(expected)?;
        return Ok(Duration::from_secs(seconds));
    }
    let per_second = 1_000_000_000 / unit_ns;
    let rest_ns = (count % per_second) * unit_ns;
    Ok(Duration::new(count / per_second, rest_ns as u32))
}

/// The text that [`duration`] reads, in the largest unit that is exact.
pub(crate) fn duration_text(span: Duration) -> String {
    let ns = span.as_nanos();
    let exact = |unit_ns: u64| ns.is_multiple_of(u128::from(unit_ns)) && ns > 0;
    match UNITS.into_iter().find(|(_, unit_ns)| exact(*unit_ns)) {
        Some((unit, unit_ns)) => format!("{}{unit}", ns / u128::from(unit_ns)),
        None => "0s".to_owned(),
    }
}
