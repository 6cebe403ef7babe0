//! The bytes of one file in memory: what is in it now, and what of it would survive a power cut.
//!
//! Memory is taken piece by piece when something is written; what was never written is zero and
//! costs nothing. Of each unit that was written and not flushed, the content before is kept. Knows
//! nothing of names, devices or locks.

use std::collections::BTreeMap;

use crate::op::{DiskError, DiskErrorKind, Slice};

/// The unit of writing, and the alignment that the disk asks for.
pub(super) const UNIT_BYTES: usize = 4096;
/// How much memory is taken at once.
const PIECE_BYTES: usize = 64 << 10;

const _: () = assert!(PIECE_BYTES.is_multiple_of(UNIT_BYTES));

/// A unit whose content now is not durable.
struct Unflushed {
    /// What is durable there; `None` for zeros.
    before: Option<Box<[u8]>>,
    /// A flush of it has failed, so no later flush covers it; only writing it again helps.
    given_up: bool,
}

/// The content of a file.
#[derive(Default)]
pub(super) struct Content {
    bytes: u64,
    pieces: BTreeMap<u64, Box<[u8]>>,
    durable_bytes: u64,
    unflushed: BTreeMap<u64, Unflushed>,
}

fn zeroed(bytes: usize) -> Result<Box<[u8]>, DiskError> {
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(bytes)
        .map_err(|_| DiskError::new(DiskErrorKind::Limit, "take memory for a file"))?;
    memory.resize(bytes, 0);
    Ok(memory.into_boxed_slice())
}

/// Where a byte lies: the number of its piece, and how far inside.
fn place(at: u64) -> (u64, usize) {
    (at / PIECE_BYTES as u64, (at % PIECE_BYTES as u64) as usize)
}

impl Content {
    /// A durable file of so many zeros.
    pub(super) fn zeros(bytes: u64) -> Self {
        Self { bytes, durable_bytes: bytes, ..Self::default() }
    }

    /// A file of these bytes, durable or not.
    pub(super) fn whole(bytes: &[u8], durable: bool) -> Result<Self, DiskError> {
        let mut content = Self::default();
        content.put(0, bytes, durable)?;
        content.bytes = bytes.len() as u64;
        content.durable_bytes = if durable { content.bytes } else { 0 };
        Ok(content)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much memory it takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        let kept = self.unflushed.values().filter(|unit| unit.before.is_some()).count();
        (self.pieces.len() * PIECE_BYTES + kept * UNIT_BYTES) as u64
    }

    /// Where a write of these slices would end.
    pub(super) fn end_of(&self, offset: u64, slices: &[Slice]) -> u64 {
        let bytes: u64 = slices.iter().map(|slice| slice.len as u64).sum();
        self.bytes.max(offset.saturating_add(bytes))
    }

    /// Writes the slices one behind the other. What is written durably is durable by itself.
    pub(super) fn write(
        &mut self,
        mut offset: u64,
        slices: &[Slice],
        durably: bool,
    ) -> Result<(), DiskError> {
        for slice in slices {
            self.put(offset, &slice.block[..slice.len], durably)?;
            offset += slice.len as u64;
            self.bytes = self.bytes.max(offset);
            if durably {
                self.durable_bytes = self.durable_bytes.max(offset);
            }
        }
        Ok(())
    }

    /// Puts bytes at an offset that begins a unit.
    fn put(&mut self, offset: u64, bytes: &[u8], durably: bool) -> Result<(), DiskError> {
        for (at, unit) in (offset..).step_by(UNIT_BYTES).zip(bytes.chunks(UNIT_BYTES)) {
            let (number, inside) = place(at);
            let new = !self.pieces.contains_key(&number);
            if new {
                self.pieces.insert(number, zeroed(PIECE_BYTES)?);
            }
            let Some(piece) = self.pieces.get_mut(&number) else { continue };
            let target = &mut piece[inside..inside + UNIT_BYTES];
            if durably {
                self.unflushed.remove(&at);
            } else if let Some(known) = self.unflushed.get_mut(&at) {
                known.given_up = false;
            } else {
                let was_zero = new || target.iter().all(|byte| *byte == 0);
                let before = if was_zero { None } else { Some(Box::from(&*target)) };
                self.unflushed.insert(at, Unflushed { before, given_up: false });
            }
            target[..unit.len()].copy_from_slice(unit);
        }
        Ok(())
    }

    /// Fills the front of `into`; fewer bytes only at the end of the file.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let there = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = into.len().min(there);
        let mut done = 0;
        while done < len {
            let (number, inside) = place(offset + done as u64);
            let part = (len - done).min(PIECE_BYTES - inside);
            let target = &mut into[done..done + part];
            match self.pieces.get(&number) {
                Some(piece) => target.copy_from_slice(&piece[inside..inside + part]),
                None => target.fill(0),
            }
            done += part;
        }
        len
    }

    /// A flush that succeeds.
    pub(super) fn flush(&mut self) {
        self.unflushed.retain(|_, unit| unit.given_up);
        self.durable_bytes = self.bytes;
    }

    /// A flush that fails, as on a real disk: what it was to cover stays readable, and no later
    /// flush makes it durable.
    pub(super) fn fail_flush(&mut self) {
        self.unflushed.values_mut().for_each(|unit| unit.given_up = true);
    }

    /// What is not durable is gone.
    pub(super) fn cut(&mut self) {
        for (at, unit) in std::mem::take(&mut self.unflushed) {
            let (number, inside) = place(at);
            let Some(piece) = self.pieces.get_mut(&number) else { continue };
            let target = &mut piece[inside..inside + UNIT_BYTES];
            match unit.before {
                Some(before) => target.copy_from_slice(&before),
                None => target.fill(0),
            }
        }
        self.bytes = self.durable_bytes;
        self.pieces.split_off(&self.bytes.div_ceil(PIECE_BYTES as u64));
    }
}
