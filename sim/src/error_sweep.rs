//! Every operation of a history meets every error, once and for good.
//!
//! A history is run as it is, and counted: how many operations of each class the disk is asked for
//! while each life opens the log, and while it runs. Then it is run again for each of them and each
//! error, and judged as any history is: nothing acknowledged is lost, nothing hangs, whoever waits is
//! told, and the log opens again once the disk is well.

use crate::faults::{Class, Effect, Fault, Landed, When};
use crate::history::{Injection, Memories, Report, Setup, run_with};

/// The errors, and what the operation has done before it fails. A short write is one that finds the
/// disk full after a part; a cancelled flush is one whose write has landed.
pub const ERRORS: [(&str, i32, Landed); 10] = [
    ("EIO, nothing done", libc::EIO, Landed::Nothing),
    ("EIO, done in part", libc::EIO, Landed::Some),
    ("EIO, done", libc::EIO, Landed::Everything),
    ("ENOSPC, nothing done", libc::ENOSPC, Landed::Nothing),
    ("ENOSPC, short", libc::ENOSPC, Landed::Some),
    ("cancelled, nothing done", libc::ECANCELED, Landed::Nothing),
    ("cancelled, short", libc::ECANCELED, Landed::Some),
    ("cancelled, done", libc::ECANCELED, Landed::Everything),
    ("EINTR", libc::EINTR, Landed::Nothing),
    ("EAGAIN", libc::EAGAIN, Landed::Nothing),
];

/// What a sweep has met.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Histories that were swept.
    pub histories: u64,
    /// Operations that met every error.
    pub operations: u64,
    /// Histories run with an error.
    pub runs: u64,
    /// Errors that struck: for good means more than one in a run.
    pub struck: u64,
    /// Runs in which the error was never reached.
    pub missed: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl Swept {
    /// Adds those of another thread.
    pub fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.operations += other.operations;
        self.runs += other.runs;
        self.struck += other.struck;
        self.missed += other.missed;
        self.wrong.extend(other.wrong);
    }
}

/// A history that nothing has been done to.
fn calm() -> Setup {
    Setup { calm: true, ..Setup::default() }
}

/// Sweeps the history of a seed: each operation, each error, once and from then on; or, if so
/// wanted, only until something is wrong.
pub fn sweep(seed: u64, until_wrong: bool, memories: &mut Memories) -> Swept {
    let mut swept = Swept { histories: 1, ..Swept::default() };
    let plain = run_with(seed, &calm(), memories);
    if let Some(wrong) = plain.wrong {
        swept.wrong.push(format!("{wrong} (without an error)"));
        return swept;
    }
    for (life, parts) in plain.operations.iter().enumerate() {
        for (opening, counts) in [(true, parts[0]), (false, parts[1])] {
            for (class, count) in Class::ALL.into_iter().zip(counts) {
                swept.operations += count;
                for nth in 1..=count {
                    for error in ERRORS {
                        for when in [When::Nth(nth), When::From(nth)] {
                            if until_wrong && !swept.wrong.is_empty() {
                                return swept;
                            }
                            swept.one(seed, (life, opening, class, when), error, memories);
                        }
                    }
                }
            }
        }
    }
    swept
}

impl Swept {
    fn one(
        &mut self,
        seed: u64,
        (life, opening, class, when): (usize, bool, Class, When),
        (name, errno, landed): (&str, i32, Landed),
        memories: &mut Memories,
    ) {
        let fault = Fault::new(class, when, Effect::Fail { errno, landed });
        let setup = Setup { injection: Some(Injection { life, opening, fault }), ..calm() };
        let Report { totals, wrong, .. } = run_with(seed, &setup, memories);
        self.runs += 1;
        self.struck += totals.faults;
        self.missed += u64::from(totals.faults == 0);
        if let Some(wrong) = wrong {
            let part = if opening { "opening" } else { "running" };
            let place = format!("life {life}, {part}, {class:?} {when:?}: {name}");
            self.wrong.push(format!("{wrong} ({place})"));
        }
    }
}
