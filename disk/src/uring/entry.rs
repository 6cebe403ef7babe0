//! From a step of an operation to its submission entries.
//!
//! It decides nothing: which step, and when, is the business of others.

use std::os::fd::RawFd;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, Fixed, FsyncFlags};

use super::flight::{Flight, Step, Work};
use super::setup::Buffers;
use crate::op::Slice;
use crate::planted::{Bug, planted};
use crate::sys::{CALL_BYTES_MAX, Parts};

/// Which entry of an operation a completion belongs to: the two low bits of user_data. Behind them
/// is the place, in the upper half the generation.
const MAIN: u64 = 0;
pub(super) const SYNC: u64 = 1;
pub(super) const WAKE: u64 = 2;

/// What user_data says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) place: u32,
    pub(super) generation: u32,
    pub(super) is_sync: bool,
}

impl Label {
    /// Reads it; `None` for the poll of the waker's event.
    pub(super) fn read(user_data: u64) -> Option<Self> {
        let kind = user_data & 3;
        (kind != WAKE).then_some(Self {
            place: user_data as u32 >> 2,
            generation: (user_data >> 32) as u32,
            is_sync: kind == SYNC,
        })
    }
}

fn label(place: u32, generation: u32, kind: u64) -> u64 {
    kind | u64::from(place) << 2 | u64::from(generation) << 32
}

/// How the kernel finds the file.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// By its place in the ring's table.
    Registered(u32),
    Descriptor(RawFd),
}

/// What the kernel knows of the blocks' memory.
pub(super) struct Memory<'a> {
    pub(super) buffers: &'a Buffers,
    pub(super) writev_fixed: bool,
}

/// Writes the same expression for both kinds of target, which are two types.
macro_rules! on {
    ($target:expr, |$fd:ident| $entry:expr) => {
        match $target {
            Target::Registered(index) => {
                let $fd = Fixed(index);
                $entry
            }
            Target::Descriptor(descriptor) => {
                let $fd = Fd(descriptor);
                $entry
            }
        }
    };
}

/// The entries of the step that a flight is at: what it moves, and the flush.
pub(super) fn entries(
    flight: &mut Flight,
    place: u32,
    target: Target,
    memory: &Memory<'_>,
) -> [Option<Entry>; 2] {
    let (step, done, generation) = (flight.step, flight.done, flight.generation);
    let main = match &mut flight.work {
        Work::Write { data, offset, .. } if step != Step::Sync => {
            let rw_flags = if step == Step::WriteDsync { libc::RWF_DSYNC } else { 0 };
            let offset = *offset + if planted(Bug::GoOnAtTheFirstOffset) { 0 } else { done as u64 };
            Some(write(data, done, offset, rw_flags, &mut flight.parts, target, memory))
        }
        Work::Read { slice, offset } => {
            Some(read(slice, done, *offset + done as u64, target, memory))
        }
        _ => None,
    };
    let sync = matches!(step, Step::Sync | Step::WriteThenSync).then(|| {
        on!(target, |fd| opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build())
            .user_data(label(place, generation, SYNC))
    });
    let main = main.map(|entry| {
        let flags = if sync.is_some() { Flags::IO_LINK } else { Flags::empty() };
        entry.flags(flags).user_data(label(place, generation, MAIN))
    });
    [main, sync]
}

fn write(
    data: &[Slice],
    done: usize,
    offset: u64,
    rw_flags: i32,
    parts: &mut Parts,
    target: Target,
    memory: &Memory<'_>,
) -> Entry {
    if let [slice] = data {
        let rest = &slice.block[done..slice.len];
        let (start, len) = (rest.as_ptr(), rest.len().min(CALL_BYTES_MAX) as u32);
        return match memory.buffers.index(slice) {
            Some(index) => on!(target, |fd| {
                opcode::WriteFixed::new(fd, start, len, index)
                    .offset(offset)
                    .rw_flags(rw_flags)
                    .build()
            }),
            None => on!(target, |fd| {
                opcode::Write::new(fd, start, len).offset(offset).rw_flags(rw_flags).build()
            }),
        };
    }
    parts.point_to(data, done);
    let (start, len) = (parts.as_slice().as_ptr(), parts.as_slice().len() as u32);
    let index = if memory.writev_fixed { memory.buffers.common_index(data) } else { None };
    match index {
        Some(index) => on!(target, |fd| {
            opcode::WritevFixed::new(fd, start, len, index)
                .offset(offset)
                .rw_flags(rw_flags)
                .build()
        }),
        None => on!(target, |fd| {
            opcode::Writev::new(fd, start, len).offset(offset).rw_flags(rw_flags).build()
        }),
    }
}

fn read(slice: &mut Slice, done: usize, offset: u64, target: Target, memory: &Memory<'_>) -> Entry {
    let index = memory.buffers.index(slice);
    let rest = &mut slice.block[done..slice.len];
    let (start, len) = (rest.as_mut_ptr(), rest.len().min(CALL_BYTES_MAX) as u32);
    match index {
        Some(index) => on!(target, |fd| {
            opcode::ReadFixed::new(fd, start, len, index).offset(offset).build()
        }),
        None => on!(target, |fd| opcode::Read::new(fd, start, len).offset(offset).build()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_written() {
        for place in [0, 1, 119, u32::MAX >> 2] {
            for generation in [0, 7, u32::MAX] {
                for (kind, is_sync) in [(MAIN, false), (SYNC, true)] {
                    let read = Label::read(label(place, generation, kind));
                    assert_eq!(read, Some(Label { place, generation, is_sync }));
                }
            }
        }
        assert_eq!(Label::read(WAKE), None);
    }
}
