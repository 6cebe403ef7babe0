//! `rivals`: what else one could keep a log in, beside ringlog.
//!
//! Every rival gets the settings that its own documents recommend, the same records and the same
//! producers, and group commit where it has none. In each round all engines do the same thing one after
//! the other, each between two rounds of the floor. Invariants: an acknowledgement that no flush of the
//! device covers disqualifies; ratios are of one round; what a rival cannot do it is not asked for.

mod adapter;
mod against;
mod bare;
mod cold;
mod engine;
mod fjall;
mod group;
mod nodedb_wal;
mod okaywal;
mod process;
mod raft_engine;
mod ringlog;
mod seglog;
mod sqlite;
mod tephra;
mod umadb;
mod walrus;
mod works;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use tempfile::TempDir;

pub(crate) use self::process::work;

use self::adapter::Tally;
use self::against::Results;
use self::engine::Engine;
use self::process::{FILL_RECORD_BYTES, Order, Task, appended_by_open, carry_out};
use self::works::{Cell, Shape, Work};
use crate::bench::{Bench, Measured};
use crate::environment::{free_bytes, interrupted, scratch};
use crate::measurement::Line;
use crate::report::{Failure, Out};
use crate::run::Run;
use crate::series;
use crate::summary::{Summary, floor_text};

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Do this work only
    #[arg(long = "work", value_enum, value_delimiter = ',',
        default_values_t = Work::value_variants().to_vec(), hide_default_value = true)]
    pub(crate) works: Vec<Work>,
    /// Measure these engines only
    #[arg(long, value_enum, value_delimiter = ',',
        default_values_t = Engine::value_variants().to_vec(), hide_default_value = true)]
    pub(crate) engines: Vec<Engine>,
    /// Payload of the logs that are replayed and opened; each engine keeps one
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30,
        value_parser = clap::value_parser!(u64).range(1 << 20..))]
    pub(crate) bytes: u64,
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// A log that is opened and read again and again, and what it holds.
struct Kept {
    dir: TempDir,
    tally: Tally,
}

struct Rivals<'a> {
    arguments: &'a Arguments,
    dir: &'a Path,
    bench: Bench<'a>,
    /// Above the logs that are kept.
    above: TempDir,
    kept: HashMap<Engine, Kept>,
}

/// Measures in one directory.
///
/// # Errors
/// What could not be measured, in words; what had been measured before has been reported. A report
/// that cannot be written is an `io` error.
pub(crate) fn run_in(
    arguments: &Arguments,
    dir: &Path,
    number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    let rivals = Rivals {
        arguments,
        dir,
        bench: Bench::new(&arguments.run, "rivals", dir)?,
        above: scratch(dir)?,
        kept: HashMap::new(),
    };
    rivals.measure(number, out)
}

impl Rivals<'_> {
    fn measure(mut self, number: usize, out: &mut Out) -> Result<(), Failure> {
        let goals = works::goals(&self.arguments.works);
        let cells = works::cells(&goals);
        let mut results = Results::default();
        let mut summaries: Vec<Summary> = cells.iter().map(|_| Summary::default()).collect();
        for round in 1..=self.arguments.run.rounds {
            for (cell, summary) in cells.iter().zip(&mut summaries) {
                for engine in self.engines(*cell) {
                    if interrupted() || summary.has_failed(&engine.name()) {
                        continue;
                    }
                    let rounds = self.arguments.run.rounds;
                    out.progress(&format!("round {round} of {rounds}, {cell}: {engine}"));
                    let measured = self.one(*cell, engine, round);
                    if let Ok(measured) = &measured {
                        results.add(*cell, engine, round, &measured.line);
                    }
                    summary.take(&engine.name(), measured, out)?;
                }
            }
        }
        for (at, (cell, summary)) in cells.iter().zip(&summaries).enumerate() {
            out.print(&format!("\n== {cell}\n\n{}\n", summary.tables("engine")))?;
            out.print(&results.table(*cell))?;
            out.print(&summary.notes(self.bench.note()))?;
            if let Some(hdr) = &self.arguments.run.hdr {
                let name = self.arguments.run.name.as_deref().unwrap_or("rivals");
                summary.write_hdr(hdr, &format!("{name}-{number}-{at}"))?;
            }
        }
        let judged: Vec<_> = goals
            .iter()
            .flat_map(|goal| [Some(results.judged(goal)), results.limit(goal)])
            .flatten()
            .collect();
        for series in &judged {
            out.print(&series.rounds_text())?;
            out.json_line(&Line::Figure(series.clone()))?;
        }
        out.print(&series::table(&judged))?;
        out.print(&format!("\n{}\n", results.losses(&goals)))?;
        out.print(&floor_text(&self.bench.rounds(), FILL_RECORD_BYTES))?;
        summaries.iter().try_for_each(Summary::end)
    }

    /// Those that can, in the order in which they were asked for.
    fn engines(&self, cell: Cell) -> Vec<Engine> {
        let can = |engine: &Engine| match cell {
            Cell::Append(shape) => engine.can(&shape),
            Cell::Replay | Cell::Open => engine.can_replay(),
        };
        self.arguments.engines.iter().copied().filter(can).collect()
    }

    fn one(&mut self, cell: Cell, engine: Engine, round: usize) -> Result<Measured, String> {
        match cell {
            Cell::Append(shape) => self.append(shape, engine, round),
            Cell::Replay => self.again(Task::Replay, engine, round),
            Cell::Open => self.again(Task::Open, engine, round),
        }
    }

    fn append(&mut self, shape: Shape, engine: Engine, round: usize) -> Result<Measured, String> {
        let mut load = self.bench.load(shape.record_bytes, shape.producers, shape.outstanding);
        load.batch_records = shape.batch_records;
        // A new log writes its first segments twice, and uses files again only after some more: that is
        // over before anything is measured.
        load.warm_up = load.window.min(Duration::from_secs(1));
        let task = Task::Append {
            unsynced: shape.unsynced,
            record_bytes: load.record_bytes,
            batch_records: load.batch_records,
            producers: load.producers,
            outstanding: load.outstanding,
            warm_up: load.warm_up,
            window: load.window,
            payload_bytes_max: load.payload_bytes_max,
        };
        let io = self.arguments.run.io;
        self.bench.measure_by(round, &load, |dir| {
            let order = Order { engine, dir: absolute(dir)?, task };
            Ok(carry_out(&order, io)?.outcome()?.into())
        })
    }

    /// What is done with a log that is there.
    fn again(&mut self, task: Task, engine: Engine, round: usize) -> Result<Measured, String> {
        if !self.kept.contains_key(&engine) {
            let filled = self.fill(engine)?;
            self.kept.insert(engine, filled);
        }
        let kept = self.kept.get_mut(&engine).ok_or("a log that was filled")?;
        let load = self.bench.load(FILL_RECORD_BYTES, 1, 1);
        let (opens, io) = (matches!(task, Task::Open), self.arguments.run.io);
        self.bench.measure_by(round, &load, |_| {
            let dir = absolute(kept.dir.path())?;
            cold::forget(&dir)?;
            let done = carry_out(&Order { engine, dir, task }, io)?;
            if opens {
                kept.tally.add(&appended_by_open());
            } else if done.tally != kept.tally {
                return Err(format!("not what was appended: {:?}, {:?}", done.tally, kept.tally));
            }
            Ok(done.outcome()?.into())
        })
    }

    fn fill(&self, engine: Engine) -> Result<Kept, String> {
        let bytes = self.arguments.bytes;
        // Some write everything twice, and keep both for a while.
        if free_bytes(self.dir).is_some_and(|free| free < bytes.saturating_mul(4)) {
            return Err(format!("no room for a log of {bytes} bytes"));
        }
        let dir = scratch(self.above.path())?;
        let order = Order { engine, dir: absolute(dir.path())?, task: Task::Fill { bytes } };
        Ok(Kept { tally: carry_out(&order, self.arguments.run.io)?.tally, dir })
    }
}

fn absolute(dir: &Path) -> Result<std::path::PathBuf, String> {
    dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))
}
