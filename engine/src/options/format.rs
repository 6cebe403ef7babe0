//! What is frozen when a log is created.

use super::{invalid, within};
use crate::error::OpenError;
use crate::format::meta::LogMeta;
use crate::limits;

/// What is asked of the format of a log. It is chosen when the log is created; afterwards a value
/// that differs from what is there refuses to open ([`OpenError::FormatDiffers`]), and `None`
/// takes what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Format {
    /// Size of a segment file in bytes: a power of two from 1 MiB to 1 GiB. `None`: 64 MiB at
    /// creation.
    #[cfg_attr(feature = "serde", serde(with = "super::serial::size_or_none"))]
    pub segment_bytes: Option<u64>,
    /// Number of shards, 1 to 64: threads, total orders, directories. `None`: 1 at creation. A
    /// stream belongs to the shard that its name hashes to. A log opens on any number of cores.
    pub shards: Option<u16>,
}

/// The format that a log has: see [`Format`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrozenFormat {
    /// Size of a segment file in bytes.
    pub segment_bytes: u64,
    /// Number of shards.
    pub shards: u16,
}

impl Format {
    /// The format of a log that is created now.
    pub(crate) fn at_creation(&self) -> FrozenFormat {
        FrozenFormat {
            segment_bytes: self.segment_bytes.unwrap_or(limits::SEGMENT_BYTES_DEFAULT),
            shards: self.shards.unwrap_or(limits::SHARDS_DEFAULT),
        }
    }

    /// Checks that a log with this format is what was asked for.
    pub(crate) fn check(&self, found: FrozenFormat) -> Result<(), OpenError> {
        let fields = [
            ("format.segment_bytes", self.segment_bytes, found.segment_bytes),
            ("format.shards", self.shards.map(u64::from), found.shards.into()),
        ];
        for (field, asked, found) in fields {
            if let Some(asked) = asked.filter(|asked| *asked != found) {
                return Err(OpenError::FormatDiffers { field: field.into(), asked, found });
            }
        }
        Ok(())
    }

    pub(super) fn validate(&self) -> Result<(), OpenError> {
        if let Some(bytes) = self.segment_bytes {
            let bounds = limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX;
            if !bytes.is_power_of_two() || !bounds.contains(&bytes) {
                let reason = format!("{bytes} is not a power of two from 1 MiB to 1 GiB");
                return Err(invalid("format.segment_bytes", reason));
            }
        }
        match self.shards {
            Some(shards) => within("format.shards", shards.into(), 1, limits::SHARDS_MAX),
            None => Ok(()),
        }
    }
}

impl From<LogMeta> for FrozenFormat {
    fn from(meta: LogMeta) -> Self {
        Self { segment_bytes: meta.segment_bytes, shards: meta.shards }
    }
}

impl From<FrozenFormat> for Format {
    fn from(format: FrozenFormat) -> Self {
        Self { segment_bytes: Some(format.segment_bytes), shards: Some(format.shards) }
    }
}
