//! Faults on demand: which operation shall go wrong, when, and how.
//!
//! A fault is keyed by the class of an operation, optionally by a file, and by a count or a
//! probability. Operations are counted when they are carried out, not when they are submitted.
//! A write that flushes counts first as [`Class::Write`] and, if that went well, as
//! [`Class::Flush`].

use ringlog_disk::FileName;

use crate::rng::Rng;

/// What kind of work a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The data part of a write.
    Write,
    /// The flush of a write that asks for one, and `Sync`.
    Flush,
    /// `Read`.
    Read,
    /// `Load`.
    Load,
    /// `Open`.
    Open,
    /// `Create`.
    Create,
    /// `Rename`.
    Rename,
    /// `Remove`.
    Remove,
    /// `Replace`.
    Replace,
    /// `Store`.
    Store,
    /// `SyncDir`.
    SyncDir,
    /// `List`.
    List,
}

impl Class {
    /// All of them, for sweeps.
    pub const ALL: [Self; 12] = [
        Self::Write,
        Self::Flush,
        Self::Read,
        Self::Load,
        Self::Open,
        Self::Create,
        Self::Rename,
        Self::Remove,
        Self::Replace,
        Self::Store,
        Self::SyncDir,
        Self::List,
    ];
}

/// When a fault strikes, counted from 1 over the operations that match it since it was armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At that one operation only.
    Nth(u64),
    /// At that operation and every later one, until the faults are cleared.
    From(u64),
    /// At each operation by itself, so many times in a million.
    Chance(u32),
}

/// What a failed operation has done all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// Nothing. A failed flush has dropped the data from the cache: readers see the old bytes.
    Nothing,
    /// Everything that was to be done. A failed flush has kept the data in the cache, where
    /// readers see them, but no later flush writes them.
    Everything,
    /// Any part of it, by chance.
    Some,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The operation fails with this system error number.
    Fail {
        /// The number, `EIO` for one.
        errno: i32,
        /// What it did before. (`Open`, `Create`, `Read`, `Load`, `List` never leave anything.)
        landed: Landed,
    },
    /// It answers that all is well and has done nothing: a lost write, a flush or a directory sync
    /// that lies. A lying `Replace` changes what readers see, but not durably. Others ignore it.
    Lie,
    /// A write goes to, or a read comes from, another place of the same file, so many bytes
    /// further on (a multiple of 512). Others ignore it.
    Misdirect {
        /// How far away.
        by_bytes: i64,
    },
    /// A read gives one wrong bit. Others ignore it.
    FlipBit,
}

impl Effect {
    /// Fails with EIO; what was to be done is done in part.
    pub const EIO: Self = Self::Fail { errno: libc::EIO, landed: Landed::Some };
    /// Fails with ENOSPC; what was to be done is done in part.
    pub const ENOSPC: Self = Self::Fail { errno: libc::ENOSPC, landed: Landed::Some };
}

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it strikes.
    pub class: Class,
    /// Only operations on this file, by the name under which it was opened; on any if `None`.
    pub file: Option<FileName>,
    /// When.
    pub when: When,
    /// What happens.
    pub effect: Effect,
}

impl Fault {
    /// A fault on any file.
    pub fn new(class: Class, when: When, effect: Effect) -> Self {
        Self { class, file: None, when, effect }
    }

    /// The faults of a disk that lies about every flush.
    pub fn lying_disk() -> [Self; 3] {
        [Class::Flush, Class::SyncDir, Class::Replace]
            .map(|class| Self::new(class, When::From(1), Effect::Lie))
    }
}

#[derive(Clone, Debug)]
struct Armed {
    fault: Fault,
    seen: u64,
}

/// The faults that are armed.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultPlan {
    armed: Vec<Armed>,
    /// Operations of each class that came by, in the order of [`Class::ALL`].
    pub(crate) operations: [u64; Class::ALL.len()],
}

impl FaultPlan {
    pub(crate) fn arm(&mut self, fault: Fault) {
        self.armed.push(Armed { fault, seen: 0 });
    }

    pub(crate) fn disarm_last(&mut self) {
        self.armed.pop();
    }

    pub(crate) fn clear(&mut self) {
        self.armed.clear();
    }

    /// Counts an operation, and says what goes wrong with it: the first fault armed wins.
    pub(crate) fn strike(
        &mut self,
        class: Class,
        file: Option<&FileName>,
        rng: &mut Rng,
    ) -> Option<Effect> {
        self.operations[class as usize] += 1;
        let mut struck = None;
        for armed in &mut self.armed {
            let fault = &armed.fault;
            if fault.class != class || (fault.file.is_some() && fault.file.as_ref() != file) {
                continue;
            }
            armed.seen += 1;
            let strikes = match fault.when {
                When::Nth(n) => armed.seen == n,
                When::From(n) => armed.seen >= n,
                When::Chance(per_million) => rng.chance(per_million),
            };
            if strikes && struck.is_none() {
                struck = Some(fault.effect);
            }
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(fault: Fault, times: usize) -> Vec<bool> {
        let mut plan = FaultPlan::default();
        let class = fault.class;
        plan.arm(fault);
        let mut rng = Rng::new(1);
        (0..times).map(|_| plan.strike(class, None, &mut rng).is_some()).collect()
    }

    #[test]
    fn faults_strike_once_from_then_on_or_by_chance() {
        let at = |when| strikes(Fault::new(Class::Write, when, Effect::EIO), 4);
        assert_eq!(at(When::Nth(2)), [false, true, false, false]);
        assert_eq!(at(When::From(2)), [false, true, true, true]);
        assert_eq!(at(When::Chance(1_000_000)), [true; 4]);
        assert_eq!(at(When::Chance(0)), [false; 4]);
    }

    #[test]
    fn a_fault_of_one_file_or_class_leaves_others_alone() {
        let name = FileName::new("a").unwrap();
        let other = FileName::new("b").unwrap();
        let mut plan = FaultPlan::default();
        let fault = Fault::new(Class::Write, When::Nth(1), Effect::EIO);
        plan.arm(Fault { file: Some(name.clone()), ..fault });
        let mut rng = Rng::new(1);
        assert_eq!(plan.strike(Class::Write, Some(&other), &mut rng), None);
        assert_eq!(plan.strike(Class::Read, Some(&name), &mut rng), None);
        assert_eq!(plan.strike(Class::Write, Some(&name), &mut rng), Some(Effect::EIO));
    }
}
