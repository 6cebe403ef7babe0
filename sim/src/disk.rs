//! The simulated disk: the I/O contract on a [`SimWorld`].
//!
//! A handle holds the blocks of its operations in flight and nothing else; what becomes of the
//! bytes is the world's affair. After a power cut or the death of the process the handle is dead:
//! each operation of it, also one in flight, ends with an I/O error.

use ringlog_disk::{Completion, Disk, DiskError, DiskFacts, Op, Slice, Tag, Wait, Waker};

use crate::access::SimWorld;
use crate::names_ops::NameOp;
use crate::world::{Blocks, DataOp, Finished, World};

/// One process's hold on a simulated disk.
pub struct SimDisk {
    world: SimWorld,
    handle: u64,
    next_number: u64,
    /// Tags and blocks of what is in flight, by this handle's own number.
    in_flight: Blocks,
    waker: Waker,
    facts: DiskFacts,
}

impl SimDisk {
    /// Opens the disk of this world, as a process does that has just started.
    pub fn open(world: &SimWorld) -> Self {
        let (handle, align_bytes) = {
            let mut state = world.lock();
            (state.open_handle(), state.align_bytes as u32)
        };
        let facts = DiskFacts {
            kind: "simulated",
            align_bytes,
            direct: true,
            commit_primitive: "simulated",
            file_system: "simulated".to_string(),
            notes: Vec::new(),
        };
        Self {
            world: world.clone(),
            handle,
            next_number: 0,
            in_flight: Blocks::new(),
            waker: Waker::new(),
            facts,
        }
    }

    /// Whether a power cut or the death of the process has ended this handle.
    pub fn is_dead(&self) -> bool {
        !self.world.lock().handles.contains_key(&self.handle)
    }

    fn end(&mut self, finished: Finished) -> Option<Completion> {
        let (tag, slices) = self.in_flight.remove(&finished.number)?;
        Some(Completion { tag, slices, result: finished.result })
    }
}

/// Submits an operation to the world; gives the blocks that it came with.
fn pass_on(world: &mut World, handle: u64, number: u64, op: Op) -> Vec<Slice> {
    let name = |world: &mut World, op| {
        world.submit_name(handle, number, op);
        Vec::new()
    };
    match op {
        Op::Write { file, offset, data, flush } => {
            let align_bytes = world.align_bytes as usize;
            let slices_fit = data
                .iter()
                .all(|s| (1..=s.block.len()).contains(&s.len) && s.len.is_multiple_of(align_bytes));
            let mut bytes = Vec::with_capacity(data.iter().map(|s| s.len.min(s.block.len())).sum());
            for slice in &data {
                bytes.extend_from_slice(&slice.block[..slice.len.min(slice.block.len())]);
            }
            let write = DataOp::Write { offset, bytes, slices_fit, flush };
            world.submit_data(handle, number, file, write);
            data
        }
        Op::Sync { file } => {
            world.submit_data(handle, number, file, DataOp::Sync);
            Vec::new()
        }
        Op::Read { file, offset, block, len } => {
            let read = DataOp::Read { offset, len, fits: len <= block.len() };
            world.submit_data(handle, number, file, read);
            vec![Slice { block, len }]
        }
        Op::Open { file, name: n, write } => name(world, NameOp::Open { file, name: n, write }),
        Op::Create { file, name: n, bytes } => name(world, NameOp::Create { file, name: n, bytes }),
        Op::Close { file } => name(world, NameOp::Close { file }),
        Op::Rename { from, to } => name(world, NameOp::Rename { from, to }),
        Op::Remove { name: n } => name(world, NameOp::Remove { name: n }),
        Op::Replace { name: n, content } => name(world, NameOp::Replace { name: n, content }),
        Op::Store { name: n, content } => {
            name(world, NameOp::Store { name: n, content: content.into_bytes() })
        }
        Op::Load { name: n, limit_bytes } => name(world, NameOp::Load { name: n, limit_bytes }),
        Op::SyncDir => name(world, NameOp::SyncDir),
        Op::List => name(world, NameOp::List),
    }
}

impl Disk for SimDisk {
    fn submit(&mut self, tag: Tag, op: Op) {
        self.next_number += 1;
        let number = self.next_number;
        let slices = {
            let mut world = self.world.lock();
            if world.handles.contains_key(&self.handle) {
                pass_on(&mut world, self.handle, number, op)
            } else {
                blocks_of(op)
            }
        };
        self.in_flight.insert(number, (tag, slices));
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        let finished = self.world.lock().reap(self.handle, wait, &mut self.in_flight);
        match finished {
            Some(finished) => {
                for one in finished {
                    out.extend(self.end(one));
                }
            }
            None => {
                let dead = std::mem::take(&mut self.in_flight);
                out.extend(dead.into_values().map(|(tag, slices)| Completion {
                    tag,
                    slices,
                    result: Err(DiskError::from_errno(libc::EIO, "use of a disk that is dead")),
                }));
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn facts(&self) -> &DiskFacts {
        &self.facts
    }
}

fn blocks_of(op: Op) -> Vec<Slice> {
    match op {
        Op::Write { data, .. } => data,
        Op::Read { block, len, .. } => vec![Slice { block, len }],
        _ => Vec::new(),
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        self.world.lock().close_handle(self.handle);
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDisk(handle {}, {} in flight)", self.handle, self.in_flight.len())
    }
}
