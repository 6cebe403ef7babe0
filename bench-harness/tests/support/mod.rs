//! Running the program, and reading what it printed.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]
#![allow(dead_code, reason = "each test program uses its part of the helpers")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use ringlog_bench::measurement::{Environment, Line, Measurement};
use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ringlog-bench");

/// One round of a subcommand in `dir`, of so many seconds a measurement.
pub fn bench(command: &str, dir: &Path, seconds: &str, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args([command, "--rounds", "1", "--seconds", seconds, "--dir"])
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What a run said to machines, each line held against the schema in `docs/`.
pub struct Lines {
    pub environment: Environment,
    pub measurements: Vec<Measurement>,
    pub figures: Vec<Value>,
}

pub fn lines(bytes: &[u8]) -> Lines {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bench-schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let (mut environment, mut measurements, mut figures) = (None, Vec::new(), Vec::new());
    for (number, line) in text(bytes).lines().enumerate() {
        let value: Value = serde_json::from_str(line).unwrap();
        let kind = value["kind"].as_str().unwrap_or("nothing").to_owned();
        // The part of the schema that is meant says what is wrong; the whole only says that it is.
        let mut part = schema.clone();
        part.as_object_mut().unwrap().remove("oneOf");
        part["$ref"] = format!("#/$defs/{kind}").into();
        let part = jsonschema::validator_for(&part).unwrap();
        let wrong: Vec<String> =
            part.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(wrong.is_empty(), "{wrong:#?} in {line}");
        assert!(validator.is_valid(&value), "{line}");
        assert_eq!(kind == "environment", number == 0, "the environment comes first: {line}");
        match serde_json::from_str(line).unwrap() {
            Line::Environment(one) => environment = Some(one),
            Line::Measurement(one) => measurements.push(*one),
            Line::Figure(_) => figures.push(value),
        }
    }
    Lines { environment: environment.unwrap(), measurements, figures }
}

pub fn assert_empty(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
