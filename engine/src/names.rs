//! What the files of a shard are called.

use ringlog_disk::FileName;

use crate::ids::SegmentId;

/// The file that makes a directory a log.
pub(crate) const LOG_FILE: &str = "log";
/// What was measured of the disk below the log.
pub(crate) const PROFILE_FILE: &str = "disk-profile";
/// The manifest of a shard.
pub(crate) const MANIFEST_FILE: &str = "manifest";

fn name(text: String) -> FileName {
    FileName::new(text).expect("made of digits, letters and one dot")
}

/// The manifest.
pub(crate) fn manifest() -> FileName {
    name(MANIFEST_FILE.to_owned())
}

/// The file of the disk profile.
pub(crate) fn disk_profile() -> FileName {
    name(PROFILE_FILE.to_owned())
}

/// The directory of a shard.
pub(crate) fn shard(shard: u16) -> FileName {
    name(format!("shard-{shard:03}"))
}

/// A segment's file.
pub(crate) fn segment(segment: SegmentId) -> FileName {
    name(format!("{:016x}.seg", segment.0))
}

/// The file of the index of a segment.
pub(crate) fn index(segment: SegmentId) -> FileName {
    name(format!("{:016x}.idx", segment.0))
}

/// The file of a part of the catalogue.
pub(crate) fn catalogue(number: u64) -> FileName {
    name(format!("{number:016x}.cat"))
}

/// What a file is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Segment(SegmentId),
    Index(SegmentId),
    Catalogue(u64),
    Other,
}

/// Reads a file's name.
pub(crate) fn kind(file: &FileName) -> Kind {
    let number = |suffix: &str| {
        let digits = file.as_str().strip_suffix(suffix).filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    };
    if file.as_str() == MANIFEST_FILE {
        Kind::Manifest
    } else if let Some(id) = number(".seg") {
        Kind::Segment(SegmentId(id))
    } else if let Some(id) = number(".idx") {
        Kind::Index(SegmentId(id))
    } else if let Some(id) = number(".cat") {
        Kind::Catalogue(id)
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let id = SegmentId(0xfe_dcba);
        assert_eq!(kind(&segment(id)), Kind::Segment(id));
        assert_eq!(kind(&index(id)), Kind::Index(id));
        assert_eq!(kind(&catalogue(7)), Kind::Catalogue(7));
        assert_eq!(kind(&manifest()), Kind::Manifest);
        for other in ["1.seg", "manifest.tmp", "00000000000000zz.seg"] {
            assert_eq!(kind(&FileName::new(other).unwrap()), Kind::Other, "{other}");
        }
    }
}
