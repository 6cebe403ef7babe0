//! Small whole files: a common envelope, and the file that makes a directory a log.
//!
//! ```text
//! envelope = magic (4) · crc (4) · version (2) · features (2) · length (4) · content
//! ```

use ringlog_disk::planted::{Bug, planted};

use super::bytes::{Fields, expected_crc, get_u16, get_u32, put_u16, put_u32, seal_crc};
use super::{Refused, VERSION, check_format};
use crate::ids::LogId;

const ENVELOPE_BYTES: usize = 16;

/// Wraps content into its envelope.
pub(super) fn wrap(magic: [u8; 4], content: &[u8]) -> Vec<u8> {
    let mut file = vec![0; ENVELOPE_BYTES];
    file[..4].copy_from_slice(&magic);
    put_u16(&mut file, 8, VERSION);
    put_u32(&mut file, 12, content.len() as u32);
    file.extend_from_slice(content);
    seal_crc(&mut file, 4, 0);
    file
}

/// Checks an envelope and gives its content.
pub(super) fn unwrap<'a>(magic: [u8; 4], file: &'a [u8], what: &str) -> Result<&'a [u8], Refused> {
    if file.len() < ENVELOPE_BYTES {
        return Refused::damaged(format!("a {what} is cut short"));
    }
    if file[..4] != magic {
        return Refused::damaged(format!("expected a {what}, found other bytes"));
    }
    if expected_crc(file, 4, 0) != get_u32(file, 4) && !planted(Bug::AcceptDamagedManifest) {
        return Refused::damaged(format!("the checksum of a {what} does not fit"));
    }
    check_format(get_u16(file, 8), get_u16(file, 10).into())?;
    if get_u32(file, 12) as usize != file.len() - ENVELOPE_BYTES {
        return Refused::damaged(format!("a {what} of another length than it says"));
    }
    Ok(&file[ENVELOPE_BYTES..])
}

/// What is frozen when a log is created: the file `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogMeta {
    /// The log.
    pub log: LogId,
    /// When it was created, in nanoseconds since 1970.
    pub created_ns: u64,
    /// Size of its segments in bytes.
    pub segment_bytes: u64,
    /// Number of its shards.
    pub shards: u16,
}

impl LogMeta {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(64);
        content.extend_from_slice(&self.log.0);
        content.extend_from_slice(&self.created_ns.to_le_bytes());
        content.extend_from_slice(&self.segment_bytes.to_le_bytes());
        content.extend_from_slice(&self.shards.to_le_bytes());
        wrap(*b"RLl1", &content)
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(file: &[u8]) -> Result<Self, Refused> {
        let mut fields = Fields::new(unwrap(*b"RLl1", file, "log file")?);
        let mut decode = || {
            let mut log = [0; 16];
            log.copy_from_slice(fields.take(16)?);
            let meta = Self {
                log: LogId(log),
                created_ns: fields.u64()?,
                segment_bytes: fields.u64()?,
                shards: fields.u16()?,
            };
            (fields.left() == 0).then_some(meta)
        };
        decode().map_or_else(|| Refused::damaged("a log file of the wrong length"), Ok)
    }
}
