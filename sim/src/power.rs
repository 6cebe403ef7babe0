//! How the power is cut, and how the process dies.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::content::Content;
use crate::crash::{Crash, KeepNames, Kill, Moment};
use crate::faults::Landed;
use crate::names_ops::NameOp;
use crate::rng::Rng;
use crate::world::{Work, World};

impl World {
    /// One operation more: is it the one at which the power goes off?
    pub(crate) fn count_down(&mut self, moment: Moment) {
        let Some(cut) = &mut self.scripted else {
            return;
        };
        if cut.moment != moment {
            return;
        }
        cut.operations_left = cut.operations_left.saturating_sub(1);
        if cut.operations_left == 0 {
            let crash = cut.crash.clone();
            self.crash(&crash);
        }
    }

    /// Cuts the power. Every handle is dead afterwards.
    pub(crate) fn crash(&mut self, crash: &Crash) {
        self.stats.crashes += 1;
        self.scripted = None;
        let mut rng = Rng::new(crash.seed);
        self.start_name_ops(&crash.names, &mut rng);
        self.cut_names(&crash.names, &mut rng);
        self.land_late_in_cache();

        let tear_bytes = u64::from(crash.tear_bytes.max(1)).next_multiple_of(512);
        let units = self.volatile_units(tear_bytes);
        let keep = crash.keep.decide(units.len(), &mut rng);
        let kept: BTreeSet<(u64, u64)> =
            units.into_iter().zip(keep).filter_map(|(unit, keep)| keep.then_some(unit)).collect();
        for inode in self.inodes.values_mut().filter(|inode| inode.is_volatile()) {
            Arc::make_mut(inode).cut(&kept, tear_bytes);
        }
        self.flights.clear();
        self.handles.clear();
        self.forget_unused();
        self.trace.event("crash", "", &[kept.len() as u64, self.names.inodes().count() as u64]);
    }

    /// The process dies. Every handle is dead afterwards; the cache lives on.
    pub(crate) fn kill(&mut self, kill: Kill) {
        self.stats.kills += 1;
        let mut rng = Rng::new(self.rng.next_u64());
        let started = match kill {
            Kill::LandAll => KeepNames::All,
            Kill::LandNone => KeepNames::Nothing,
            Kill::Random | Kill::Late => KeepNames::Prefix,
        };
        self.start_name_ops(&started, &mut rng);
        for flight in std::mem::take(&mut self.flights) {
            let Work::Write { file, write, .. } = flight.work else {
                continue;
            };
            if kill == Kill::Late {
                if let Some(late) = self.inode(file.inode).take(write) {
                    self.late.push((file.inode, late));
                }
                continue;
            }
            let landed = match (kill, rng.below(3)) {
                (Kill::LandAll, _) | (Kill::Random, 0) => Landed::Everything,
                (Kill::LandNone, _) | (Kill::Random, 1) => Landed::Nothing,
                _ => Landed::Some,
            };
            self.completions += 1;
            let now = self.completions;
            self.inode(file.inode).break_write(write, now, landed, &mut rng);
        }
        self.handles.clear();
        self.forget_unused();
        self.trace.event("kill", "", &[self.completions]);
    }

    /// Writes of a process that died reach the cache, each fully, in part or not at all.
    pub(crate) fn land_late(&mut self) {
        let mut rng = Rng::new(self.rng.next_u64());
        for (inode, write) in std::mem::take(&mut self.late) {
            let id = write.id;
            self.completions += 1;
            let now = self.completions;
            let landed = match rng.below(3) {
                0 => Landed::Everything,
                1 => Landed::Nothing,
                _ => Landed::Some,
            };
            let file = self.inode(inode);
            file.put_back(write);
            file.break_write(id, now, landed, &mut rng);
        }
        self.forget_unused();
    }

    /// The areas whose fate a cut decides, in the order in which their writes were submitted.
    pub(crate) fn volatile_units(&self, tear_bytes: u64) -> BTreeSet<(u64, u64)> {
        self.inodes.values().flat_map(|inode| inode.volatile_units(tear_bytes)).collect()
    }

    fn land_late_in_cache(&mut self) {
        for (inode, write) in std::mem::take(&mut self.late) {
            self.inode(inode).put_back(write);
        }
    }

    /// Of the operations on names that are still queued, some have been carried out, and the next
    /// perhaps in part.
    fn start_name_ops(&mut self, keep: &KeepNames, rng: &mut Rng) {
        let handles: Vec<u64> = self.handles.keys().copied().collect();
        for handle in handles {
            let mut queued = Vec::new();
            self.flights.retain(|flight| match &flight.work {
                Work::Name(op) if flight.handle == handle => {
                    queued.push(op.clone());
                    false
                }
                _ => true,
            });
            let started = keep.started(queued.len(), rng);
            for (at, op) in queued.into_iter().enumerate() {
                if at < started {
                    // Nobody is left to hear whether it went well.
                    let _unheard = self.name_op(handle, op);
                } else if at == started && *keep != KeepNames::Nothing && rng.coin() {
                    self.begin_name_op(op, rng);
                }
            }
        }
    }

    /// An operation that the cut found in the middle.
    pub(crate) fn begin_name_op(&mut self, op: NameOp, rng: &mut Rng) {
        match op {
            NameOp::Create { name, bytes, .. } if self.names.get(&name).is_none() => {
                let len = rng.below(bytes / 512 + 1) * 512;
                self.link_new(name, Content::zeros(len));
            }
            // The new content may be there or not; what was written beside it may be left over.
            NameOp::Replace { name, content } => {
                if rng.coin() {
                    self.link_new(name, Content::from_bytes(&content));
                } else {
                    self.others += 1;
                }
            }
            NameOp::Store { name, content } => {
                if rng.coin() {
                    self.link_cached(name, content);
                } else {
                    self.others += 1;
                }
            }
            _ => {}
        }
    }

    fn cut_names(&mut self, keep: &KeepNames, rng: &mut Rng) {
        let sizes = self.names.group_sizes();
        let kept = match keep {
            KeepNames::All => sizes,
            KeepNames::Nothing => vec![0; sizes.len()],
            KeepNames::Prefix => self.names.prefix(rng.index(self.names.pending() + 1)),
            KeepNames::Groups => sizes.iter().map(|size| rng.index(size + 1)).collect(),
        };
        self.names.cut(&kept);
    }
}
