//! The bytes of one file in memory: what is in it now, and what of it would survive a power cut.
//!
//! Memory is taken unit by unit when something is written; what was never written is zero and costs
//! nothing. A unit that is durable is not overwritten: its memory is put aside as it is until the next
//! flush, and other memory takes what is new. So a write copies what it is given, and nothing else.
//! Knows nothing of names and devices.

use std::collections::{BTreeMap, BTreeSet};

use super::spares::Spares;
use crate::op::{DiskError, DiskErrorKind, Slice};

/// The unit of writing, and the alignment that the disk asks for.
pub(super) const UNIT_BYTES: usize = 4096;
/// How many units are found with one look.
const PIECE_UNITS: usize = 16;
const PIECE_BYTES: usize = PIECE_UNITS * UNIT_BYTES;

static ZEROS: [u8; UNIT_BYTES] = [0; UNIT_BYTES];

/// The memory of a unit.
pub(super) type Memory = Box<[u8; UNIT_BYTES]>;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Durable,
    /// The next flush makes it durable.
    Unflushed,
    /// A flush of it has failed, so no later flush covers it; only writing it again helps.
    GivenUp,
}

/// One unit; without memory it is zeros.
#[derive(Default)]
struct Unit {
    now: Option<Memory>,
    state: State,
    /// What is durable there; `None` for zeros, and where that is what is there now.
    before: Option<Memory>,
}

type Piece = [Unit; PIECE_UNITS];

/// The content of a file.
#[derive(Default)]
pub(super) struct Content {
    bytes: u64,
    durable_bytes: u64,
    pieces: BTreeMap<u64, Piece>,
    /// Each piece with units that are not durable, and perhaps some that have none any more.
    unflushed: BTreeSet<u64>,
    /// Where memory comes from, and where it goes.
    spares: Spares,
}

/// Where a byte lies: the number of its piece, and how far inside.
fn place(at: u64) -> (u64, usize) {
    (at / PIECE_BYTES as u64, (at % PIECE_BYTES as u64) as usize)
}

/// Memory that holds `front` and `rest`, which together are a unit: the spare one, or new.
fn filled(front: &[u8], rest: &[u8], spare: Option<Memory>) -> Result<Memory, DiskError> {
    if let Some(mut memory) = spare {
        let (begin, end) = memory.split_at_mut(front.len());
        begin.copy_from_slice(front);
        end.copy_from_slice(rest);
        return Ok(memory);
    }
    let limit = || DiskError::new(DiskErrorKind::Limit, "take memory for a file");
    let mut memory = Vec::new();
    memory.try_reserve_exact(UNIT_BYTES).map_err(|_| limit())?;
    memory.extend_from_slice(front);
    memory.extend_from_slice(rest);
    memory.try_into().map_err(|_| limit())
}

impl Unit {
    /// Whether a write leaves the memory as it is, and needs other memory.
    fn needs_memory(&self, durably: bool) -> bool {
        self.now.is_none() || (!durably && self.state == State::Durable)
    }

    /// Puts bytes at the front. Memory comes from `spares` while there is some, and goes there.
    fn put(
        &mut self,
        bytes: &[u8],
        durably: bool,
        spares: &mut Vec<Memory>,
    ) -> Result<(), DiskError> {
        if self.needs_memory(durably) {
            let old = self.now.as_deref().unwrap_or(&ZEROS);
            let new = filled(bytes, &old[bytes.len()..], spares.pop())?;
            self.before = self.now.replace(new);
        } else if let Some(memory) = &mut self.now {
            memory[..bytes.len()].copy_from_slice(bytes);
        }
        self.state = State::Unflushed;
        if durably {
            spares.extend(self.settle());
        }
        Ok(())
    }

    /// What is there now is durable. Gives the memory of what was.
    fn settle(&mut self) -> Option<Memory> {
        self.state = State::Durable;
        self.before.take()
    }

    /// What is durable is there now. Gives the memory of what was.
    fn undo(&mut self) -> Option<Memory> {
        self.state = State::Durable;
        std::mem::replace(&mut self.now, self.before.take())
    }
}

/// Fills `into` with what lies in a piece from `at` on.
fn read_piece(piece: &Piece, mut at: usize, mut into: &mut [u8]) {
    while !into.is_empty() {
        let (unit, inside) = (&piece[at / UNIT_BYTES], at % UNIT_BYTES);
        let (target, rest) = into.split_at_mut(into.len().min(UNIT_BYTES - inside));
        let now = unit.now.as_deref().unwrap_or(&ZEROS);
        target.copy_from_slice(&now[inside..inside + target.len()]);
        at += target.len();
        into = rest;
    }
}

impl Content {
    /// A durable file of so many zeros.
    pub(super) fn zeros(bytes: u64, spares: &Spares) -> Self {
        Self { bytes, durable_bytes: bytes, spares: spares.clone(), ..Self::default() }
    }

    /// A file of these bytes, durable or not.
    pub(super) fn whole(bytes: &[u8], durable: bool, spares: &Spares) -> Result<Self, DiskError> {
        let mut content = Self::zeros(0, spares);
        content.put(0, bytes, durable)?;
        content.bytes = bytes.len() as u64;
        content.durable_bytes = if durable { content.bytes } else { 0 };
        Ok(content)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much memory the bytes take, those that are put aside among them.
    pub(super) fn memory_bytes(&self) -> u64 {
        let units = self.pieces.values().flatten();
        let memory = units.flat_map(|unit| [&unit.now, &unit.before]).flatten();
        (memory.count() * UNIT_BYTES) as u64
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
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (number, inside) = place(offset);
            let (bytes, behind) = rest.split_at(rest.len().min(PIECE_BYTES - inside));
            (offset, rest) = (offset + bytes.len() as u64, behind);
            if !durably {
                self.unflushed.insert(number);
            }
            let piece = self.pieces.entry(number).or_default();
            let first = inside / UNIT_BYTES;
            let units = &mut piece[first..first + bytes.len().div_ceil(UNIT_BYTES)];
            let needed = units.iter().filter(|unit| unit.needs_memory(durably)).count();
            let mut spares = self.spares.take(needed);
            for (unit, bytes) in units.iter_mut().zip(bytes.chunks(UNIT_BYTES)) {
                unit.put(bytes, durably, &mut spares)?;
            }
            self.spares.give(spares);
        }
        Ok(())
    }

    /// Fills the front of `into`; fewer bytes only at the end of the file.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let there = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = into.len().min(there);
        let (mut at, mut rest) = (offset, &mut into[..len]);
        while !rest.is_empty() {
            let (number, inside) = place(at);
            let (target, behind) = rest.split_at_mut(rest.len().min(PIECE_BYTES - inside));
            at += target.len() as u64;
            rest = behind;
            match self.pieces.get(&number) {
                Some(piece) => read_piece(piece, inside, target),
                None => target.fill(0),
            }
        }
        len
    }

    /// A flush that succeeds.
    pub(super) fn flush(&mut self) {
        let Self { pieces, unflushed, spares, .. } = self;
        unflushed.retain(|number| {
            let Some(piece) = pieces.get_mut(number) else { return false };
            let covered = piece.iter_mut().filter(|unit| unit.state == State::Unflushed);
            spares.give(covered.filter_map(Unit::settle));
            piece.iter().any(|unit| unit.state == State::GivenUp)
        });
        self.durable_bytes = self.bytes;
    }

    /// A flush that fails, as on a real disk: what it was to cover stays readable, and no later
    /// flush makes it durable.
    pub(super) fn fail_flush(&mut self) {
        for number in &self.unflushed {
            let units = self.pieces.get_mut(number).into_iter().flatten();
            let failed = units.filter(|unit| unit.state == State::Unflushed);
            failed.for_each(|unit| unit.state = State::GivenUp);
        }
    }

    /// What is not durable is gone.
    pub(super) fn cut(&mut self) {
        for number in std::mem::take(&mut self.unflushed) {
            let units = self.pieces.get_mut(&number).into_iter().flatten();
            let lost = units.filter(|unit| unit.state != State::Durable);
            self.spares.give(lost.filter_map(Unit::undo));
        }
        self.bytes = self.durable_bytes;
        self.pieces.split_off(&self.bytes.div_ceil(PIECE_BYTES as u64));
    }
}
