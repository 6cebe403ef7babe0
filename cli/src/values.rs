//! How values are written on the command line.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use ringlog::{Durability, Visibility};

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

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VisibilityArg {
    /// What nothing takes back.
    Durable,
    /// Also what the device has accepted and no flush has covered yet.
    Written,
    /// Also what is on its way to the device.
    Staged,
}

impl From<VisibilityArg> for Visibility {
    fn from(arg: VisibilityArg) -> Self {
        match arg {
            VisibilityArg::Durable => Self::Durable,
            VisibilityArg::Written => Self::Written,
            VisibilityArg::Staged => Self::Staged,
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

/// A span such as `10m`, `1h30m`, `500ms` or `7d`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a span such as 90s, 10m, 1h30m or 7d");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
        let (number, behind) = rest.split_at(unit_at);
        let number: u64 = number.parse().map_err(|_| expected())?;
        let unit_ends = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_ends);
        let ms_per_unit: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(expected()),
        };
        let ms = number.checked_mul(ms_per_unit).ok_or_else(expected)?;
        total = total.checked_add(Duration::from_millis(ms)).ok_or_else(expected)?;
        rest = behind;
    }
    if text.is_empty() { Err(expected()) } else { Ok(total) }
}

/// A point in time, in nanoseconds since 1970: RFC 3339 (`2026-01-31T12:00:00Z`, or the day alone),
/// seconds since 1970 (`1769860800`, `1769860800.5`), or a span back from now (`10m`).
pub(crate) fn time(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time_before(text, now)
}

fn time_before(text: &str, now: Duration) -> Result<u64, String> {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).ok();
    let found = match span(text) {
        Ok(span) => ns(now.saturating_sub(span)),
        Err(_) => seconds(text).or_else(|| calendar(text)).and_then(ns),
    };
    found.ok_or_else(|| {
        format!(
            "{text:?} is not a time such as 2026-01-31T12:00:00Z, 1769860800 (seconds since \
             1970), or 10m (a span back from now)"
        )
    })
}

/// Seconds with or without a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    Some(Duration::new(digits(whole)?, fraction_ns(fraction)?))
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if all { text.parse().ok() } else { None }
}

/// The digits behind a decimal point; what is finer than a nanosecond is dropped.
fn fraction_ns(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nine: String = text.chars().chain(std::iter::repeat('0')).take(9).collect();
    nine.parse().ok()
}

/// RFC 3339, or a day alone, which is its beginning in UTC.
fn calendar(text: &str) -> Option<Duration> {
    let part = |range: Range<usize>| digits(text.get(range)?);
    let sign_at = |at: usize, sign: char| text.get(at..=at).is_some_and(|c| c == sign.to_string());
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    };
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days).contains(&day)
        && sign_at(4, '-')
        && sign_at(7, '-');
    if !fits {
        return None;
    }
    // As in `text::utc`: years that begin in March, in eras of 400 years.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    let midnight = Duration::from_secs(days * 86_400);
    let Some(behind) = text.get(10..).filter(|behind| !behind.is_empty()) else {
        return Some(midnight);
    };
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    let fits = matches!(behind.as_bytes()[0], b'T' | b't' | b' ')
        && (hour < 24 && minute < 60 && second <= 60)
        && sign_at(13, ':')
        && sign_at(16, ':');
    if !fits {
        return None;
    }
    let mut zone = text.get(19..)?;
    let mut fraction = 0;
    if let Some(behind) = zone.strip_prefix('.') {
        let ends = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        fraction = fraction_ns(&behind[..ends])?;
        zone = &behind[ends..];
    }
    let of_day = Duration::new(hour * 3_600 + minute * 60 + second, fraction);
    let local = midnight + of_day;
    if matches!(zone, "Z" | "z") {
        return Some(local);
    }
    let (hours, minutes) = (digits(zone.get(1..3)?)?, digits(zone.get(4..6)?)?);
    if zone.len() != 6 || zone.as_bytes()[3] != b':' || hours > 23 || minutes > 59 {
        return None;
    }
    let ahead = Duration::from_secs(hours * 3_600 + minutes * 60);
    match zone.as_bytes()[0] {
        b'+' => local.checked_sub(ahead),
        b'-' => local.checked_add(ahead),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(span("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(span("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "10", "m", "-1s", "1.5h", "10 m", "1w", "99999999999999999999d", "1hm"] {
            assert!(span(bad).is_err(), "{bad:?} was taken for a span");
        }
    }

    #[test]
    fn times() {
        let now = Duration::from_secs(1_000_000);
        let at = |text| time_before(text, now);
        assert_eq!(at("10m"), Ok(999_400_000_000_000));
        assert_eq!(at("400d"), Ok(0), "before 1970 there is nothing");
        assert_eq!(at("1769860800"), Ok(1_769_860_800_000_000_000));
        assert_eq!(at("1769860800.25"), Ok(1_769_860_800_250_000_000));
        assert_eq!(at("0.0000000019"), Ok(1));
        assert_eq!(at("1970-01-01"), Ok(0));
        for (text, ns) in [
            ("2000-02-29T00:00:00Z", 951_782_400_000_000_000),
            ("2000-02-28T23:59:59.000000001Z", 951_782_399_000_000_001),
            ("2025-12-31t23:59:59.999999999z", 1_767_225_599_999_999_999),
            ("2100-03-01 01:30:00+01:30", 4_107_542_400_000_000_000),
            ("2100-02-28T19:00:00-05:00", 4_107_542_400_000_000_000),
        ] {
            assert_eq!(at(text), Ok(ns), "{text}");
        }
        for ns in [0, 1, 951_782_400_123_456_789, 1_767_225_599_999_999_999, u64::MAX] {
            let shown = crate::text::utc(ns);
            assert_eq!(time_before(&shown, now), Ok(ns), "what is shown can be given back");
        }
        for bad in [
            "",
            "now",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-01-32",
            "1969-12-31",
            "2026-01-01T",
            "2026-01-01T12",
            "2026-01-01T12:00:00",
            "2026-01-01T24:00:00Z",
            "2026-01-01T12:00:00.Z",
            "2026-01-01T12:00:00+1:00",
            "2026-01-01T12:00:00Zx",
            "2026-01-01x12:00:00Z",
            "1970-01-01T00:00:00+00:01",
            "9999-01-01",
            "1.2.3",
            "1.",
            "-5",
            "2026-01-01T12:00:00+ab:cd",
            "２０２６-01-01",
            "99999999999999999999",
        ] {
            assert!(at(bad).is_err(), "{bad:?} was taken for a time");
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
