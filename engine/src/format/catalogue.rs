//! Parts of the stream catalogue: which streams there are, and where each of them goes on.
//!
//! Each part is a small immutable file. A later part overrides what an earlier one says of the
//! same stream; the manifest lists the parts in order. Streams that were created after the last
//! part are found in the unsealed segments themselves.

use std::sync::Arc;

use super::Refused;
use super::bytes::Fields;
use super::meta::{unwrap, wrap};
use crate::ids::{LogId, Offset, StreamId};
use crate::limits::STREAM_NAME_BYTES_MAX;

/// What a part says of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The stream.
    pub stream: StreamId,
    /// The offset that its next record gets.
    pub next_offset: Offset,
    /// Its records below this are not there any more; 0 for a stream that was never trimmed by
    /// itself.
    pub trimmed_before: Offset,
    /// Its name, in the first part that mentions it.
    pub name: Option<Arc<str>>,
}

const MAGIC: [u8; 4] = *b"RLc1";
/// In the length of the name: an offset stands before the name.
const TRIMMED: u16 = 1 << 15;

/// The largest part that is read.
pub const PART_BYTES_MAX: u64 = 1 << 30;

/// The whole file of one part.
pub fn encode(log: LogId, shard: u16, number: u64, entries: &[CatalogueEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + entries.len() * 24);
    out.extend_from_slice(&log.0);
    out.extend_from_slice(&u64::from(shard).to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
    for entry in entries {
        out.extend_from_slice(&entry.stream.0.to_le_bytes());
        out.extend_from_slice(&entry.next_offset.0.to_le_bytes());
        let name = entry.name.as_deref().unwrap_or("");
        let trimmed = entry.trimmed_before > Offset(0);
        let flag = if trimmed { TRIMMED } else { 0 };
        out.extend_from_slice(&(name.len() as u16 | flag).to_le_bytes());
        if trimmed {
            out.extend_from_slice(&entry.trimmed_before.0.to_le_bytes());
        }
        out.extend_from_slice(name.as_bytes());
    }
    wrap(MAGIC, &out)
}

/// Reads the whole file of one part, which must be the one asked for.
///
/// # Errors
/// What is wrong with it.
pub fn decode(
    file: &[u8],
    log: LogId,
    shard: u16,
    number: u64,
) -> Result<Vec<CatalogueEntry>, Refused> {
    let mut fields = Fields::new(unwrap(MAGIC, file, "catalogue part")?);
    let mut decode = || {
        let same = fields.take(16)? == log.0
            && fields.u64()? == u64::from(shard)
            && fields.u64()? == number;
        if !same {
            return Some(None);
        }
        let mut entries = Vec::new();
        while fields.left() > 0 {
            let stream = StreamId(fields.u32()?);
            let next_offset = Offset(fields.u64()?);
            let bytes = fields.u16()?;
            let trimmed_before = Offset(if bytes & TRIMMED == 0 { 0 } else { fields.u64()? });
            let trimmed = trimmed_before > Offset(0);
            if trimmed != (bytes & TRIMMED != 0) || trimmed_before > next_offset {
                return None;
            }
            let bytes = usize::from(bytes & !TRIMMED);
            let name = match bytes {
                0 => None,
                1..=STREAM_NAME_BYTES_MAX => {
                    Some(Arc::from(std::str::from_utf8(fields.take(bytes)?).ok()?))
                }
                _ => return None,
            };
            entries.push(CatalogueEntry { stream, next_offset, trimmed_before, name });
        }
        Some(Some(entries))
    };
    match decode() {
        Some(Some(entries)) => Ok(entries),
        Some(None) => Refused::damaged("a catalogue part of another log, shard or number"),
        None => {
            Refused::damaged("a catalogue part of the wrong length, or an entry that cannot be")
        }
    }
}
