//! The layers of the suite, in the order in which they are tried: what each runs, and how it says
//! that something is wrong.

use std::process::Command;
use std::time::Duration;

use super::build::{Built, Program};
use super::watch::{Ran, watch};
use super::{Bugs, root};

/// How a layer is run.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Histories by their seeds, from 0 on.
    Histories,
    /// Tests of cargo.
    Tests,
    /// Errors in short histories, by their seeds, from 0 on.
    Errors,
    /// A sample of the states that power cuts may leave of each workload.
    CrashStates,
    /// A sample of the bits of a closed log.
    BitFlips,
    /// A fuzz target, on the inputs that are kept for it.
    Fuzz(&'static str),
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

const fn sim(name: &'static str, kind: Kind) -> Layer {
    Layer { name, program: Program::Sim, kind }
}

const fn tests(name: &'static str, program: Program) -> Layer {
    Layer { name, program, kind: Kind::Tests }
}

/// All of them.
pub const LAYERS: &[Layer] = &[
    sim("histories", Kind::Histories),
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
    tests("in memory", Program::Tests("engine", "in_memory")),
    tests("format", Program::Tests("engine", "format")),
    tests("index format", Program::Tests("engine", "index_format")),
    tests("golden", Program::Tests("engine", "golden")),
    sim("errors", Kind::Errors),
    sim("crash states", Kind::CrashStates),
    sim("bit flips", Kind::BitFlips),
    sim("fuzz batch", Kind::Fuzz("batch")),
    sim("fuzz segment", Kind::Fuzz("segment")),
    sim("fuzz manifest", Kind::Fuzz("manifest")),
    sim("fuzz small", Kind::Fuzz("small")),
    sim("fuzz index", Kind::Fuzz("index")),
    sim("fuzz recovery", Kind::Fuzz("recovery")),
    sim("fuzz differential", Kind::Fuzz("differential")),
    sim("fuzz files", Kind::Fuzz("files")),
];

/// The tests of one program may take as long.
const SEARCH: Duration = Duration::from_secs(60);
/// So many histories at most: an end for a process that nobody watches any more.
const SEEDS: u64 = 20_000;
/// So many runs with an error, at most.
const ERROR_RUNS: u64 = 20_000;
/// So many states, at most; and the sample, by which each workload is tried soon.
const STATES: &str = "30000";
const ONE_STATE_IN: &str = "31";
/// One bit in so many: no multiple of anything in the format.
const ONE_BIT_IN: u64 = 61;
/// Where the inputs of the fuzz targets are kept.
const KEPT: [&str; 2] = ["fuzz/regressions", "fuzz/corpus"];

/// The bugs that are built in, and the layers that must notice them by themselves.
///
/// # Errors
/// They cannot be built, or do not say.
pub fn bugs(built: &Built) -> Result<Bugs, String> {
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
            _ => limit.max(SEARCH),
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
        command.current_dir(root()).env_remove("RINGLOG_MUTANT");
        if let Some(name) = mutant {
            command.env("RINGLOG_MUTANT", name);
        }
        let numbered = |word: &str| -> Option<u64> { detail?.strip_prefix(word)?.parse().ok() };
        match self.kind {
            Kind::Histories => {
                let seeds = numbered("seed ").map_or(0..SEEDS, |seed| seed..seed + 1);
                command.args(["--threads", "1", "--until-wrong", "--seeds"]);
                command.arg(format!("{}..{}", seeds.start, seeds.end));
                watch(command, limit, wrong_seed)
            }
            Kind::Errors => {
                let (seed, runs) = numbered("seed ").map_or((0, ERROR_RUNS), |seed| (seed, 1));
                command.args(["errors", "--threads", "1", "--until-wrong"]);
                command.args([format!("--seed={seed}"), format!("--runs={runs}")]);
                watch(command, limit, wrong_seed)
            }
            Kind::CrashStates => {
                command.args(["crash-states", "--threads", "1", "--until-wrong"]);
                command.args(["--states", STATES, "--one-in", ONE_STATE_IN]);
                command.args(numbered("task ").map(|task| format!("--task={task}")));
                watch(command, limit, wrong_task)
            }
            Kind::BitFlips => {
                command.args(["bit-flips", "--threads", "1", "--until-wrong"]);
                command.arg(match numbered("bit ") {
                    Some(bit) => format!("--bits={bit}..{}", bit + 1),
                    None => format!("--stride={ONE_BIT_IN}"),
                });
                watch(command, limit, wrong_bit)
            }
            Kind::Fuzz(target) => {
                match detail {
                    Some(input) => command.args(["fuzz", "one", target, input]),
                    None => command.args(["fuzz", "kept", target]).args(KEPT),
                };
                watch(command, limit, wrong_input)
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

/// `WRONG: a workload, task 3: …`
fn wrong_task(line: &str) -> Option<String> {
    let (_, rest) = line.strip_prefix("WRONG: ")?.split_once(", task ")?;
    let task: u64 = rest.split_once(':')?.0.parse().ok()?;
    Some(format!("task {task}"))
}

/// `WRONG: bit 17, …`
fn wrong_bit(line: &str) -> Option<String> {
    let (bit, _) = line.strip_prefix("WRONG: bit ")?.split_once(',')?;
    bit.parse::<u64>().ok().map(|bit| format!("bit {bit}"))
}

/// `WRONG: fuzz/corpus/batch/seed-0123`
fn wrong_input(line: &str) -> Option<String> {
    let input = line.strip_prefix("WRONG: ")?;
    input.starts_with("fuzz/").then(|| input.to_owned())
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
        let line = "WRONG: killed and cut, task 7: state 3: O1: gone";
        assert_eq!(wrong_task(line), Some("task 7".to_owned()));
        assert_eq!(wrong_task("one of them again: … --task TASK"), None);
        let line = "WRONG: bit 17, manifest Manifest byte 2 bit 1: silent";
        assert_eq!(wrong_bit(line), Some("bit 17".to_owned()));
        let line = "WRONG: fuzz/corpus/batch/seed-0123";
        assert_eq!(wrong_input(line), Some("fuzz/corpus/batch/seed-0123".to_owned()));
        let line = "test recovery::a_torn_batch ... FAILED";
        assert_eq!(failed_test(line), Some("recovery::a_torn_batch".to_owned()));
        assert_eq!(failed_test("test recovery::a_torn_batch ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed; 1 failed"), None);
    }
}
