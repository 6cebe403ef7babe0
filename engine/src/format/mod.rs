//! Bytes only: how everything on disk is encoded and checked. `docs/format.md` describes the same
//! layout byte by byte.
//!
//! Knows no file, no clock and no state. All numbers are little-endian. Nothing here panics on any
//! input: decoders get slices of any content and length.

pub mod batch;
pub mod bytes;
pub mod catalogue;
pub mod index;
pub mod manifest;
pub mod meta;
pub mod profile;
pub mod segment;

/// The newest format version that this code reads and the one that it writes.
pub const VERSION: u16 = 1;

/// Why stored bytes were refused. The text says what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not what it should be, or it is damaged.
    Damaged(String),
    /// It carries a newer format version, under a checksum that fits.
    Version(u16),
    /// It carries features that this version does not know, under a checksum that fits.
    Features(u32),
}

/// What a header says of its format: the version must be the known one, and no feature flag may be
/// set. A later version of the same format sets a flag where an older reader must keep off.
pub(crate) fn check_format(version: u16, features: u32) -> Result<(), Refused> {
    match (version, features) {
        (VERSION, 0) => Ok(()),
        (VERSION, features) => Err(Refused::Features(features)),
        (version, _) => Err(Refused::Version(version)),
    }
}

impl Refused {
    pub(crate) fn damaged<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Damaged(what.into()))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(what) => f.write_str(what),
            Self::Features(found) => {
                write!(f, "format features {found:#x}; this version of ringlog knows none")
            }
            Self::Version(found) => {
                write!(f, "format version {found}; this version of ringlog knows up to {VERSION}")
            }
        }
    }
}
