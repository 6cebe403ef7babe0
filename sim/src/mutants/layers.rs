//! The layers of the suite, in the order in which they are tried: what each runs, and how it says
//! that something is wrong.

use std::process::Command;
use std::time::Duration;

use super::Mutant;
use super::build::{Built, Program};
use super::watch::{Ran, watch};

/// How a layer is run.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Histories by their seeds, from 0 on.
    Histories,
    /// Tests of cargo.
    Tests,
}

/// One layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// What it is called in the table.
    pub name: &'static str,
    /// What runs it.
    pub program: Program,
    kind: Kind,
}

const fn tests(name: &'static str, program: Program) -> Layer {
    Layer { name, program, kind: Kind::Tests }
}

/// All of them.
pub const LAYERS: &[Layer] = &[
    Layer { name: "histories", program: Program::Sim, kind: Kind::Histories },
    tests("rules", Program::Tests("sim", "engine")),
    tests("engine", Program::Beside("engine")),
    tests("disk", Program::Beside("disk")),
    tests("damage", Program::Tests("engine", "damage")),
    tests("following", Program::Tests("engine", "following")),
    tests("reading", Program::Tests("engine", "reading")),
    tests("log", Program::Tests("engine", "log")),
    tests("live", Program::Tests("engine", "live")),
    tests("retention", Program::Tests("engine", "retention")),
    tests("full disk", Program::Tests("engine", "full_disk")),
    tests("driven", Program::Tests("engine", "driven")),
    tests("format", Program::Tests("engine", "format")),
    tests("index format", Program::Tests("engine", "index_format")),
    tests("golden", Program::Tests("engine", "golden")),
];

/// The tests of one program may take as long.
const SEARCH: Duration = Duration::from_secs(60);
/// So many histories at most: an end for a process that nobody watches any more.
const SEEDS: u64 = 20_000;

/// The bugs that are built in.
///
/// # Errors
/// They cannot be built, or do not say.
pub fn mutants(built: &Built) -> Result<Vec<Mutant>, String> {
    built.prepare(&[&LAYERS[0]])?;
    let mut command = Command::new(built.path(Program::Sim)?);
    command.args(["mutants", "--list"]);
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the list of bugs: {error}"))
}

impl Layer {
    /// How long it may take as a whole, where it is not known what in it kills a bug. Histories have
    /// no end: what they find, they find soon.
    pub(super) fn search_limit(&self, limit: Duration) -> Duration {
        match self.kind {
            Kind::Histories => limit,
            Kind::Tests => limit.max(SEARCH),
        }
    }

    /// Runs it with a bug or without one: only what `detail` names, or all.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn run(
        &self,
        built: &Built,
        mutant: Option<&str>,
        detail: Option<&str>,
        limit: Duration,
    ) -> Result<Ran, String> {
        let mut command = Command::new(built.path(self.program)?);
        command.env_remove("RINGLOG_MUTANT");
        if let Some(name) = mutant {
            command.env("RINGLOG_MUTANT", name);
        }
        match self.kind {
            Kind::Histories => {
                let seed = detail.and_then(|detail| detail.strip_prefix("seed ")?.parse().ok());
                let seeds = seed.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
                command.args(["--threads", "1", "--until-wrong", "--seeds"]);
                command.arg(format!("{}..{}", seeds.start, seeds.end));
                watch(command, limit, wrong_seed)
            }
            Kind::Tests => {
                command.arg("--test-threads=2");
                command.args(detail.into_iter().flat_map(|name| ["--exact", name]));
                watch(command, limit, failed_test)
            }
        }
    }
}

/// `seed 17: …`
fn wrong_seed(line: &str) -> Option<String> {
    let (seed, _) = line.strip_prefix("seed ")?.split_once(':')?;
    seed.parse::<u64>().ok().map(|seed| format!("seed {seed}"))
}

/// `test module::name ... FAILED`
fn failed_test(line: &str) -> Option<String> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.trim_end_matches(" - should panic").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_layers_say_is_understood() {
        assert_eq!(wrong_seed("seed 17: a record is gone"), Some("seed 17".to_owned()));
        assert_eq!(wrong_seed("             histories: 3"), None);
        let line = "test recovery::a_torn_batch ... FAILED";
        assert_eq!(failed_test(line), Some("recovery::a_torn_batch".to_owned()));
        assert_eq!(failed_test("test recovery::a_torn_batch ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed; 1 failed"), None);
    }
}
