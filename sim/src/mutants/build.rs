//! The programs of the layers, built with the bugs in them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::layers::Layer;
use super::root;

/// A program that cargo builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// The command `ringlog-sim`.
    Sim,
    /// The tests beside the code of a package.
    Beside(&'static str),
    /// The tests of a package in `tests/`.
    Tests(&'static str, &'static str),
}

impl Program {
    /// The directory of its package, what kind of target it is there, and its name.
    fn target(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Sim => ("sim", "bin", "ringlog-sim"),
            Self::Beside("disk") => ("disk", "lib", "ringlog_disk"),
            Self::Beside(directory) => (directory, "lib", "ringlog"),
            Self::Tests(directory, name) => (directory, "test", name),
        }
    }

    fn is_told_by(self, message: &Message) -> bool {
        let (directory, kind, name) = self.target();
        message.manifest_path.ends_with(format!("{directory}/Cargo.toml"))
            && message.target.name == name
            && message.target.kind.iter().any(|one| one == kind)
            && message.profile.test == (kind != "bin")
    }
}

/// What is built so far.
#[derive(Default)]
pub struct Built(Mutex<BTreeMap<Program, PathBuf>>);

/// What cargo says of something that it has built.
#[derive(Deserialize)]
struct Message {
    executable: PathBuf,
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Built {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds what these layers need and is not built yet.
    ///
    /// # Errors
    /// Cargo cannot be run or fails; it has told why on standard error.
    pub fn prepare(&self, layers: &[&Layer]) -> Result<(), String> {
        let mut built = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<Program> = layers
            .iter()
            .map(|layer| layer.program)
            .filter(|program| !built.contains_key(program))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let found = build(&missing)?;
            built.extend(missing.into_iter().zip(found));
        }
        Ok(())
    }

    /// A program that was prepared.
    ///
    /// # Errors
    /// It was not.
    pub fn path(&self, program: Program) -> Result<PathBuf, String> {
        let built = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        built.get(&program).cloned().ok_or_else(|| format!("{program:?} was not built"))
    }
}

fn build(programs: &[Program]) -> Result<Vec<PathBuf>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root())
        .args(["test", "--no-run", "--message-format=json-render-diagnostics", "--quiet"])
        // Always the same, so that what they have in common is built once.
        .args(["-p", "ringlog-disk", "-p", "ringlog", "-p", "ringlog-sim"])
        .args(["--features", "ringlog-sim/mutants"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let mut asked: Vec<Vec<&str>> = programs
        .iter()
        .map(|program| match program.target() {
            (_, "test", name) => vec!["--test", name],
            // Tests get the commands of their package, built as the tests are.
            (_, "bin", _) => vec!["--test", "engine"],
            _ => vec!["--lib"],
        })
        .collect();
    asked.dedup();
    command.args(asked.into_iter().flatten());
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} fails"));
    }
    // Of all its messages only those of this form tell of a program.
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let messages: Vec<Message> =
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let path = |program: &Program| {
        let told = messages.iter().find(|message| program.is_told_by(message));
        let path = told.map(|message| message.executable.clone());
        path.ok_or_else(|| format!("cargo has not said where {program:?} is"))
    };
    programs.iter().map(path).collect()
}
