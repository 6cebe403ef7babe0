//! A module for each suite that `ringlog-sim` runs.

use std::process::ExitCode;

pub(crate) mod bit_flips;
pub(crate) mod crash_states;
pub(crate) mod errors;
pub(crate) mod fuzz;
pub(crate) mod histories;
pub(crate) mod kills;
pub(crate) mod mutants;
pub(crate) mod power_cuts;
pub(crate) mod soak;

/// Success, if all was well.
pub(crate) fn code(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
