//! Reading JSON lines back: whatever is wrong is named with its file and line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::measurement::{Environment, Line, Measurement, decode};
use crate::series::Series;

/// What one command has said.
pub(super) struct Run {
    pub(super) environment: Environment,
    pub(super) measurements: Vec<Measurement>,
    pub(super) figures: Vec<Series>,
}

impl Run {
    fn is_empty(&self) -> bool {
        self.measurements.is_empty() && self.figures.is_empty()
    }
}

/// The runs of all files, in their order; those that measured nothing are left out.
///
/// # Errors
/// A file that cannot be read, a line that is none of ours, or nothing measured at all.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Run>, String> {
    let mut runs = Vec::new();
    for path in files {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        runs.append(&mut parse(path, BufReader::new(file))?);
    }
    runs.retain(|run| !run.is_empty());
    if runs.is_empty() {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        return Err(format!("nothing was measured in {}", names.join(", ")));
    }
    Ok(runs)
}

fn parse(path: &Path, lines: impl BufRead) -> Result<Vec<Run>, String> {
    let mut runs: Vec<Run> = Vec::new();
    for (number, line) in (1..).zip(lines.lines()) {
        let at = |what: &str| format!("{}:{number}: {what}", path.display());
        let line = line.map_err(|error| at(&error.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(&line).map_err(|error| at(&error.to_string()))?;
        let last = runs.last_mut().ok_or_else(|| at("a run begins with its environment"));
        match line {
            Line::Environment(environment) => {
                runs.push(Run { environment, measurements: Vec::new(), figures: Vec::new() });
            }
            Line::Measurement(one) => {
                for text in [&one.latency_hdr, &one.flush_hdr].into_iter().flatten() {
                    decode(text).map_err(|why| at(&why))?;
                }
                last?.measurements.push(*one);
            }
            Line::Figure(one) => last?.figures.push(one),
        }
    }
    Ok(runs)
}
