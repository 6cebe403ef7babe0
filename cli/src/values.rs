//! How values are written on the command line.

use clap::ValueEnum;
use ringlog::Durability;

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
