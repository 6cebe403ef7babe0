//! The file `disk-profile`: what was measured of the disk below a log, and where.
//!
//! Only measurements are stored; what follows from them is derived again at each open. Losing the
//! file costs a measurement, nothing else.

use ringlog_disk::{DepthFigure, DiskFigures, DiskPlace, Effort, Latency, SizeFigure};

use super::Refused;
use super::bytes::Fields;
use super::meta::{unwrap, wrap};
use crate::ids::LogId;

const MAGIC: [u8; 4] = *b"RLp1";
/// Longer names are cut.
const NAME_BYTES_MAX: usize = 64;
/// More figures than this are left out.
const FIGURES_MAX: usize = 16;

/// What was measured of the disk below a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProfile {
    /// The log. Where it is another one's, the file was copied here.
    pub log: LogId,
    /// When it was measured, in nanoseconds since 1970.
    pub measured_ns: u64,
    /// Where.
    pub place: DiskPlace,
    /// What.
    pub figures: DiskFigures,
}

impl StoredProfile {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let Self { log, measured_ns, place, figures } = self;
        let file_system = cut(&place.file_system);
        let device_name = cut(place.device_name.as_deref().unwrap_or_default());
        let sizes = &figures.sizes[..figures.sizes.len().min(FIGURES_MAX)];
        let depths = &figures.depths[..figures.depths.len().min(FIGURES_MAX)];
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(&log.0);
        out.extend_from_slice(&measured_ns.to_le_bytes());
        out.extend_from_slice(&[
            match figures.effort {
                Effort::Quick => 1,
                Effort::Full => 2,
            },
            place.uring.into(),
            place.direct.into(),
            place.huge_pages.into(),
            from_answer(place.rotational),
            from_answer(place.write_back),
            from_answer(place.polled),
            0,
        ]);
        let physical = place.physical_block_bytes.unwrap_or(0);
        for number in [place.device.0, place.device.1, physical, place.align_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for latency in [figures.dsync, figures.linked_sync, figures.write] {
            put_latency(&mut out, latency);
        }
        for length in [file_system.len(), device_name.len(), sizes.len(), depths.len()] {
            out.extend_from_slice(&(length as u16).to_le_bytes());
        }
        out.extend_from_slice(file_system.as_bytes());
        out.extend_from_slice(device_name.as_bytes());
        for SizeFigure { bytes, latency } in sizes {
            out.extend_from_slice(&bytes.to_le_bytes());
            put_latency(&mut out, *latency);
        }
        for DepthFigure { depth, bytes_per_second } in depths {
            out.extend_from_slice(&depth.to_le_bytes());
            out.extend_from_slice(&bytes_per_second.to_le_bytes());
        }
        wrap(MAGIC, &out)
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(file: &[u8]) -> Result<Self, Refused> {
        let mut fields = Fields::new(unwrap(MAGIC, file, "disk profile")?);
        let decoded = decode_content(&mut fields).filter(|_| fields.left() == 0);
        decoded.map_or_else(|| Refused::damaged("a disk profile with fields out of bounds"), Ok)
    }
}

fn decode_content(fields: &mut Fields<'_>) -> Option<StoredProfile> {
    let mut log = [0; 16];
    log.copy_from_slice(fields.take(16)?);
    let measured_ns = fields.u64()?;
    let &[effort, uring, direct, huge_pages, rotational, write_back, polled, 0] = fields.take(8)?
    else {
        return None;
    };
    let effort = match effort {
        1 => Effort::Quick,
        2 => Effort::Full,
        _ => return None,
    };
    let device = (fields.u32()?, fields.u32()?);
    let physical = fields.u32()?;
    let align_bytes = fields.u32().filter(|align| align.is_power_of_two())?;
    let (dsync, linked_sync, write) = (latency(fields)?, latency(fields)?, latency(fields)?);
    let mut count = |max| fields.u16().map(usize::from).filter(|count| *count <= max);
    let file_system = count(NAME_BYTES_MAX)?;
    let device_name = count(NAME_BYTES_MAX)?;
    let (sizes, depths) = (count(FIGURES_MAX)?, count(FIGURES_MAX)?);
    let mut text = |bytes| Some(std::str::from_utf8(fields.take(bytes)?).ok()?.to_owned());
    let (file_system, device_name) = (text(file_system)?, text(device_name)?);
    let sizes = (0..sizes)
        .map(|_| Some(SizeFigure { bytes: fields.u32()?, latency: latency(fields)? }))
        .collect::<Option<_>>()?;
    let depths = (0..depths)
        .map(|_| Some(DepthFigure { depth: fields.u32()?, bytes_per_second: fields.u64()? }))
        .collect::<Option<_>>()?;
    let place = DiskPlace {
        file_system,
        device,
        device_name: (!device_name.is_empty()).then_some(device_name),
        rotational: to_answer(rotational)?,
        write_back: to_answer(write_back)?,
        polled: to_answer(polled)?,
        physical_block_bytes: (physical != 0).then_some(physical),
        align_bytes,
        direct: to_flag(direct)?,
        huge_pages: to_flag(huge_pages)?,
        uring: to_flag(uring)?,
    };
    let figures = DiskFigures { effort, dsync, linked_sync, write, sizes, depths };
    Some(StoredProfile { log: LogId(log), measured_ns, place, figures })
}

fn cut(name: &str) -> &str {
    let fits = |end: &usize| name.is_char_boundary(*end);
    &name[..(0..=name.len().min(NAME_BYTES_MAX)).rfind(fits).unwrap_or(0)]
}

fn put_latency(out: &mut Vec<u8>, latency: Latency) {
    out.extend_from_slice(&latency.p50_ns.to_le_bytes());
    out.extend_from_slice(&latency.p99_ns.to_le_bytes());
    out.extend_from_slice(&latency.samples.to_le_bytes());
}

fn latency(fields: &mut Fields<'_>) -> Option<Latency> {
    Some(Latency { p50_ns: fields.u64()?, p99_ns: fields.u64()?, samples: fields.u32()? })
}

fn from_answer(answer: Option<bool>) -> u8 {
    match answer {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    }
}

fn to_answer(byte: u8) -> Option<Option<bool>> {
    match byte {
        0 => Some(None),
        1 => Some(Some(false)),
        2 => Some(Some(true)),
        _ => None,
    }
}

fn to_flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
