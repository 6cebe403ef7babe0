//! A module for each suite that `ringlog-sim` runs.

use std::process::ExitCode;
use std::time::Duration;

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

/// A length of time, given in minutes.
pub(crate) fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "no number of minutes".to_owned())?;
    let span = Duration::try_from_secs_f64(minutes * 60.0).ok().filter(|span| !span.is_zero());
    span.filter(|span| *span < Duration::from_secs(366 * 86_400))
        .ok_or_else(|| "no time".to_owned())
}
