//! `report`: one HTML page made from JSON lines, to be read anywhere and sent round.
//!
//! The page has all it needs in itself: no script, no network. It is well-formed XML too, so that a
//! test can count what is drawn. Invariants: histograms are merged, never averaged; everything that
//! comes from a file is escaped; rows of different runs are never put together.

mod chart;
mod charts;
mod html;
mod input;
mod rows;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::report::Failure;

/// What is read, and where the page goes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// JSON lines as `--json` leaves them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The page; "-" is standard output
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

/// Reads the files and writes the page.
///
/// # Errors
/// What cannot be read, with its file and line, or not be written.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runs = input::read(&arguments.files)?;
    let page = html::page(&runs)?;
    if arguments.out.as_os_str() == "-" {
        return Ok(io::stdout().write_all(page.as_bytes())?);
    }
    let said = |error| format!("{}: {error}", arguments.out.display());
    let mut file = File::create(&arguments.out).map_err(said)?;
    file.write_all(page.as_bytes()).map_err(said)?;
    Ok(writeln!(io::stdout(), "{}", arguments.out.display())?)
}
