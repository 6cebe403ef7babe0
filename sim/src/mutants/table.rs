//! `docs/mutants.md`: what has killed each bug, and how fast. Written by the command; the next run
//! begins with what stands there.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

/// Where it is, in the workspace.
pub const FILE: &str = "docs/mutants.md";

/// What has noticed a bug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Killer {
    /// The layer.
    pub layer: String,
    /// The test or the seed, where that is known.
    pub detail: Option<String>,
}

/// A bug, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it does.
    pub what: String,
    /// What has noticed it.
    pub killer: Option<Killer>,
    /// How long that took.
    pub seconds: f64,
}

const HEAD: &str = "\
# Mutants

Bugs are planted in the engine on purpose, one at a time, and the suite runs until one of its layers
notices: the tests are tested. This file is written by

    cargo run --release -p ringlog-sim -- mutants --write

and CI (`scripts/ci-mutants.sh`) fails unless each of them is killed within ten seconds of the layer that
kills it. How bugs are planted, and why no ordinary build has them, is told in
[decision 0020](decisions/0020-bugs-are-planted-by-name.md). Seconds are those of the process that
noticed, from its start, beside another one on a machine of two cores.

";

/// The rows of a table that was written before; none, where there is no file.
///
/// # Errors
/// It cannot be read.
pub fn read(file: &Path) -> Result<Vec<Row>, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().filter_map(row).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim().split(" | ").collect();
    let [name, what, killer, seconds] = cells[..] else { return None };
    let name = name.strip_prefix("| `")?.strip_suffix('`')?;
    let seconds = seconds.strip_suffix(" |")?.parse().ok()?;
    let killer = (killer != "-").then(|| match killer.split_once(": ") {
        Some((layer, detail)) => {
            Killer { layer: layer.to_owned(), detail: Some(detail.trim_matches('`').to_owned()) }
        }
        None => Killer { layer: killer.to_owned(), detail: None },
    });
    Some(Row { name: name.to_owned(), what: what.to_owned(), killer, seconds })
}

/// The whole file.
pub fn text(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    let killed = rows.iter().filter(|row| row.killer.is_some()).count();
    let _ = writeln!(text, "{killed} of {} are killed.\n", rows.len());
    text.push_str("| mutant | what it does | killed by | seconds |\n| --- | --- | --- | --- |\n");
    for Row { name, what, killer, seconds } in rows {
        let killer = match killer {
            None => "-".to_owned(),
            Some(Killer { layer, detail: None }) => layer.clone(),
            Some(Killer { layer, detail: Some(detail) }) => format!("{layer}: `{detail}`"),
        };
        let _ = writeln!(text, "| `{name}` | {what} | {killer} | {seconds:.2} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let killer = |layer: &str, detail: Option<&str>| {
            Some(Killer { layer: layer.to_owned(), detail: detail.map(str::to_owned) })
        };
        let row = |name: &str, killer| Row {
            name: name.to_owned(),
            what: "something, said in words".to_owned(),
            killer,
            seconds: 0.25,
        };
        let rows = [
            row("One", killer("histories", Some("seed 7"))),
            row("Two", killer("rules", Some("recovery::a_torn_batch"))),
            row("Three", killer("live", None)),
            row("Four", None),
        ];
        let text = text(&rows);
        let read: Vec<Row> = text.lines().filter_map(super::row).collect();
        assert_eq!(read.len(), 4);
        assert_eq!(read[0].killer, rows[0].killer);
        assert_eq!(read[1].killer, rows[1].killer);
        assert_eq!(read[2].killer, rows[2].killer);
        assert_eq!(read[3].killer, None);
        assert!(text.contains("3 of 4 are killed."));
    }
}
