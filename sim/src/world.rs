//! The state of the simulated disk, and how operations on data are submitted and carried out.
//!
//! A handle (one [`crate::SimDisk`]) has open files and flights: operations submitted and not yet
//! completed. Blocks stay with the `SimDisk`; a flight knows their bytes only, so that a world can
//! be copied. Operations on names are carried out in order of submission for each handle, those
//! on data in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringlog_disk::{DiskError, DiskErrorKind, Done, FileId, FileName, Flush, Slice, Tag, Wait};

use crate::crash::{Crash, Moment};
use crate::faults::{Class, Effect, FaultPlan};
use crate::inode::{Covered, Inode, Write};
use crate::names::Names;
use crate::names_ops::NameOp;
use crate::rng::Rng;
use crate::stats::{SimStats, Trace};

/// An open file of a handle.
#[derive(Clone, Debug)]
pub(crate) struct OpenFile {
    pub(crate) inode: u64,
    pub(crate) name: FileName,
    pub(crate) writable: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Handle {
    pub(crate) files: BTreeMap<FileId, OpenFile>,
}

/// What a flight has to do.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// It broke the contract when it was submitted.
    Refused(DiskError),
    Write {
        file: OpenFile,
        write: u64,
        len: u64,
        flush: Flush,
        /// The count of completions at submission.
        before: u64,
    },
    Sync {
        file: OpenFile,
        before: u64,
    },
    Read {
        file: OpenFile,
        offset: u64,
        len: usize,
    },
    Name(NameOp),
}

/// An operation submitted and not yet completed.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) handle: u64,
    /// The handle's own number for it.
    pub(crate) number: u64,
    /// The file that it keeps busy.
    pub(crate) file: Option<FileId>,
    pub(crate) work: Work,
}

/// A flight that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) number: u64,
    pub(crate) result: Result<Done, DiskError>,
}

/// Where reads of a handle go: the tags and blocks of its operations, by number.
pub(crate) type Blocks = BTreeMap<u64, (Tag, Vec<Slice>)>;

/// An operation on data as the handle submits it.
pub(crate) enum DataOp {
    Write { offset: u64, bytes: Vec<u8>, slices_fit: bool, flush: Flush },
    Sync,
    Read { offset: u64, len: usize, fits: bool },
}

/// A power cut that comes by itself.
#[derive(Clone, Debug)]
pub(crate) struct ScriptedCut {
    pub(crate) operations_left: u64,
    pub(crate) moment: Moment,
    pub(crate) crash: Crash,
}

/// The whole state.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) align_bytes: u64,
    pub(crate) shuffled: bool,
    pub(crate) files_grow: bool,
    pub(crate) inodes: BTreeMap<u64, Arc<Inode>>,
    pub(crate) names: Names,
    pub(crate) handles: BTreeMap<u64, Handle>,
    pub(crate) flights: Vec<Flight>,
    pub(crate) late: Vec<(u64, Write)>,
    /// How many times yet it completes nothing.
    pub(crate) stalled: u64,
    /// Counts everything that needs a fresh number.
    pub(crate) next_number: u64,
    /// Counts completions of writes.
    pub(crate) completions: u64,
    pub(crate) faults: FaultPlan,
    pub(crate) scripted: Option<ScriptedCut>,
    pub(crate) capacity_bytes: Option<u64>,
    pub(crate) others: usize,
    pub(crate) stats: SimStats,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn fresh_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn open_handle(&mut self) -> u64 {
        let handle = self.fresh_number();
        self.handles.insert(handle, Handle::default());
        handle
    }

    /// The handle is being dropped: its operations are waited for, its files closed.
    pub(crate) fn close_handle(&mut self, handle: u64) {
        while let Some(at) = self.flights.iter().position(|f| f.handle == handle) {
            let flight = self.flights.remove(at);
            if self.carry_out(flight, &mut Blocks::new()).is_none() {
                return;
            }
        }
        self.handles.remove(&handle);
        self.forget_unused();
    }

    pub(crate) fn inode(&mut self, inode: u64) -> &mut Inode {
        Arc::make_mut(self.inodes.entry(inode).or_default())
    }

    pub(crate) fn violation(&mut self, kind: DiskErrorKind, doing: &str) -> DiskError {
        self.stats.contract_violations += 1;
        self.trace.event("violation", doing, &[]);
        DiskError::new(kind, doing)
    }

    /// Takes an operation on data.
    pub(crate) fn submit_data(&mut self, handle: u64, number: u64, id: FileId, op: DataOp) {
        let work = match self.begin(handle, id, op) {
            Ok(work) => work,
            Err((kind, broken)) => Work::Refused(self.violation(kind, broken)),
        };
        let file = (!matches!(work, Work::Refused(_))).then_some(id);
        self.submit(Flight { handle, number, file, work });
    }

    pub(crate) fn submit(&mut self, flight: Flight) {
        self.flights.push(flight);
        self.count_down(Moment::Submission);
    }

    /// Checks an operation against the contract; says which rule it breaks, and how that is told.
    fn begin(
        &mut self,
        handle: u64,
        id: FileId,
        op: DataOp,
    ) -> Result<Work, (DiskErrorKind, &'static str)> {
        let refused = |rule| (DiskErrorKind::Unexpected, rule);
        let file = self
            .handles
            .get(&handle)
            .and_then(|h| h.files.get(&id))
            .ok_or(refused("use of a file that is not open"))?
            .clone();
        let closing = |f: &Flight| {
            f.handle == handle
                && matches!(&f.work, Work::Name(NameOp::Close { file }) if *file == id)
        };
        if self.flights.iter().any(closing) {
            return Err(refused("use of a file that is being closed"));
        }
        let aligned = |n: u64| n.is_multiple_of(self.align_bytes);
        let before = self.completions;
        match op {
            DataOp::Write { offset, bytes, slices_fit, flush } => {
                let len = bytes.len() as u64;
                let end = self.inodes.get(&file.inode).map_or(0, |inode| inode.len());
                if !file.writable {
                    return Err((
                        DiskErrorKind::Access,
                        "write to a file that was opened for reading",
                    ));
                }
                if !slices_fit || !aligned(offset) || len == 0 {
                    return Err(refused("write of misaligned or empty slices"));
                }
                let fits = |n: u64| n <= end || (self.files_grow && n <= i64::MAX as u64);
                if !offset.checked_add(len).is_some_and(fits) {
                    return Err(refused("write beyond the end of the file"));
                }
                self.trace.mix_bytes(&bytes);
                self.trace.event("submit write", file.name.as_str(), &[offset, len]);
                let write = self.fresh_number();
                self.inode(file.inode).begin_write(write, offset, bytes);
                Ok(Work::Write { file, write, len, flush, before })
            }
            DataOp::Sync if !file.writable => {
                Err((DiskErrorKind::Access, "flush of a file that was opened for reading"))
            }
            DataOp::Sync => {
                self.trace.event("submit sync", file.name.as_str(), &[]);
                Ok(Work::Sync { file, before })
            }
            DataOp::Read { offset, len, fits } => {
                if !fits || !aligned(offset) || !aligned(len as u64) {
                    return Err(refused("misaligned read, or one that its block does not hold"));
                }
                self.trace.event("submit read", file.name.as_str(), &[offset, len as u64]);
                Ok(Work::Read { file, offset, len })
            }
        }
    }

    /// Completes some of the handle's flights; `None` when the handle is dead.
    pub(crate) fn reap(
        &mut self,
        handle: u64,
        wait: Wait,
        blocks: &mut Blocks,
    ) -> Option<Vec<Finished>> {
        self.handles.get(&handle)?;
        let mine = self.flights.iter().filter(|f| f.handle == handle).count();
        let count = match wait {
            _ if mine == 0 => 0,
            Wait::No | Wait::AtMost(_) if self.stalled > 0 => {
                self.stalled -= 1;
                0
            }
            _ if !self.shuffled => mine,
            Wait::Any => 1 + self.rng.index(mine),
            Wait::No | Wait::AtMost(_) => self.rng.index(mine + 1),
        };
        let mut finished = Vec::with_capacity(count);
        for _ in 0..count {
            let ready = self.ready(handle);
            let chosen = if self.shuffled { self.rng.index(ready.len()) } else { 0 };
            let Some(at) = ready.get(chosen) else { break };
            let flight = self.flights.remove(*at);
            match self.carry_out(flight, blocks) {
                Some(done) => finished.push(done),
                // The power went off: nobody hears of what was completed just before either.
                None => return None,
            }
        }
        Some(finished)
    }

    /// Which flights may end next: any on data, the first on names.
    fn ready(&self, handle: u64) -> Vec<usize> {
        let mut name_seen = false;
        let mine = self.flights.iter().enumerate().filter(|(_, f)| f.handle == handle);
        mine.filter(|(_, f)| {
            let name = matches!(f.work, Work::Name(_));
            !(name && std::mem::replace(&mut name_seen, true))
        })
        .map(|(at, _)| at)
        .collect()
    }

    /// Does what a flight is to do; `None` when the power went off at its end.
    fn carry_out(&mut self, flight: Flight, blocks: &mut Blocks) -> Option<Finished> {
        let mut bytes: &[u8] = &[];
        let result = match flight.work {
            Work::Refused(error) => Err(error),
            Work::Write { file, write, len, flush, before } => {
                self.write(&file, write, len, flush, before)
            }
            Work::Sync { file, before } => {
                self.stats.syncs += 1;
                let covered = Covered { completed_by: Some(before), own: None };
                self.flush(&file, covered).map(|()| Done::Synced)
            }
            Work::Read { file, offset, len } => {
                let slices = blocks.get_mut(&flight.number).map(|(_, slices)| slices);
                let block = slices.and_then(|slices| slices.first_mut());
                let into = block.and_then(|slice| slice.block.get_mut(..len));
                // Whoever has let go of the block does not look at what was read.
                let into = into.unwrap_or_default();
                self.read(&file, offset, into).map(|read| {
                    bytes = &into[..read];
                    Done::Read(read)
                })
            }
            Work::Name(op) => self.name_op(flight.handle, op),
        };
        self.trace.mix_sample(bytes);
        self.trace.event("done", "", &[flight.handle, flight.number, u64::from(result.is_ok())]);
        self.count_down(Moment::Completion);
        self.handles
            .contains_key(&flight.handle)
            .then_some(Finished { number: flight.number, result })
    }

    pub(crate) fn strike(&mut self, class: Class, file: Option<&FileName>) -> Option<Effect> {
        let struck = self.faults.strike(class, file, &mut self.rng);
        if struck.is_some() {
            self.stats.faults += 1;
        }
        struck
    }

    fn write(
        &mut self,
        file: &OpenFile,
        write: u64,
        len: u64,
        flush: Flush,
        before: u64,
    ) -> Result<Done, DiskError> {
        self.stats.writes += 1;
        self.stats.bytes_written += len;
        let struck = self.strike(Class::Write, Some(&file.name));
        self.completions += 1;
        let now = self.completions;
        let mut rng = self.rng.clone();
        let inode = self.inode(file.inode);
        match struck {
            Some(Effect::Fail { errno, landed }) => {
                inode.break_write(write, now, landed, &mut rng);
                self.rng = rng;
                return Err(DiskError::from_errno(errno, format!("write {}", file.name)));
            }
            Some(Effect::Lie) => drop(inode.take(write)),
            Some(Effect::Misdirect { by_bytes }) => inode.misdirect_write(write, by_bytes),
            Some(Effect::FlipBit) | None => {}
        }
        inode.complete_write(write, now);
        let completed_by = match flush {
            Flush::No => return Ok(Done::Wrote),
            Flush::Own => {
                self.stats.flushes_own += 1;
                None
            }
            Flush::File => {
                self.stats.flushes_file += 1;
                Some(before)
            }
        };
        self.flush(file, Covered { completed_by, own: Some(write) }).map(|()| Done::Wrote)
    }

    fn flush(&mut self, file: &OpenFile, covered: Covered) -> Result<(), DiskError> {
        let struck = self.strike(Class::Flush, Some(&file.name));
        let mut rng = self.rng.clone();
        let inode = self.inode(file.inode);
        match struck {
            Some(Effect::Fail { errno, landed }) => {
                inode.fail_flush(covered, landed, &mut rng);
                self.rng = rng;
                Err(DiskError::from_errno(errno, format!("flush {}", file.name)))
            }
            Some(Effect::Lie) => Ok(()),
            _ => {
                inode.flush(covered);
                Ok(())
            }
        }
    }

    fn read(&mut self, file: &OpenFile, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.stats.reads += 1;
        let doing = || format!("read {}", file.name);
        let struck = self.strike(Class::Read, Some(&file.name));
        let offset = match struck {
            Some(Effect::Fail { errno, .. }) => return Err(DiskError::from_errno(errno, doing())),
            Some(Effect::Misdirect { by_bytes }) => offset.saturating_add_signed(by_bytes),
            _ => offset,
        };
        let inode = self.inodes.entry(file.inode).or_default();
        let read = inode.read_into(offset, into, &mut self.rng);
        let read = read.ok_or_else(|| DiskError::from_errno(libc::EIO, doing()))?;
        if struck == Some(Effect::FlipBit) && read > 0 {
            let bit = self.rng.index(read * 8);
            into[bit / 8] ^= 1 << (bit % 8);
        }
        self.stats.bytes_read += read as u64;
        Ok(read)
    }

    /// Drops files that nobody can reach any more.
    pub(crate) fn forget_unused(&mut self) {
        let open = self.handles.values().flat_map(|h| h.files.values().map(|f| f.inode));
        let late = self.late.iter().map(|(inode, _)| *inode);
        let used: BTreeSet<u64> = self.names.inodes().chain(open).chain(late).collect();
        self.inodes.retain(|inode, _| used.contains(inode));
    }

    /// The same for one file.
    pub(crate) fn forget_if_unused(&mut self, inode: u64) {
        let mut open = self.handles.values().flat_map(|h| h.files.values().map(|f| f.inode));
        let mut late = self.late.iter().map(|(inode, _)| *inode);
        let is_used = self.names.inodes().any(|named| named == inode)
            || open.any(|open| open == inode)
            || late.any(|late| late == inode);
        if !is_used {
            self.inodes.remove(&inode);
        }
    }

    /// How much room files take: those with a name, and those that are open.
    pub(crate) fn used_bytes(&self) -> u64 {
        let open = self.handles.values().flat_map(|h| h.files.values().map(|f| f.inode));
        let used: BTreeSet<u64> = self.names.iter().map(|(_, inode)| inode).chain(open).collect();
        used.iter().filter_map(|inode| self.inodes.get(inode)).map(|inode| inode.len()).sum()
    }
}
