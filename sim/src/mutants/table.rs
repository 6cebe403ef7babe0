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
    /// The layer that has to notice it, where it is a control.
    pub control: Option<String>,
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

const CONTROLS: &str = "
## Controls

The first layers notice nearly everything, so the table above says little of the others. Each of the layers
below must notice these bugs by itself (`sim/src/mutants/controls.rs`).

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
    let [first, second, third, seconds] = cells[..] else { return None };
    let (name, what, killer, control) = match second.starts_with('`') {
        true => (second, "", third, first.strip_prefix("| ")),
        false => (first, second, third, None),
    };
    let killer = match (control, killer) {
        (None, killer) | (Some(_), killer @ "-") => killer.to_owned(),
        (Some(layer), "as a whole") => layer.to_owned(),
        (Some(layer), detail) => format!("{layer}: {detail}"),
    };
    let name = name.strip_prefix("| ").unwrap_or(name);
    let name = name.strip_prefix('`')?.strip_suffix('`')?;
    let seconds = seconds.strip_suffix(" |")?.parse().ok()?;
    let killer = (killer != "-").then(|| match killer.split_once(": ") {
        Some((layer, detail)) => {
            Killer { layer: layer.to_owned(), detail: Some(detail.trim_matches('`').to_owned()) }
        }
        None => Killer { layer: killer.to_owned(), detail: None },
    });
    let control = control.map(str::to_owned);
    Some(Row { control, name: name.to_owned(), what: what.to_owned(), killer, seconds })
}

/// The whole file.
pub fn text(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    let (controls, rows): (Vec<&Row>, Vec<&Row>) =
        rows.iter().partition(|row| row.control.is_some());
    let killed = |rows: &[&Row]| rows.iter().filter(|row| row.killer.is_some()).count();
    let _ = writeln!(text, "{} of {} are killed.\n", killed(&rows), rows.len());
    text.push_str("| mutant | what it does | killed by | seconds |\n| --- | --- | --- | --- |\n");
    for Row { name, what, killer, seconds, .. } in rows {
        let killer = match killer {
            None => "-".to_owned(),
            Some(Killer { layer, detail: None }) => layer.clone(),
            Some(Killer { layer, detail: Some(detail) }) => format!("{layer}: `{detail}`"),
        };
        let _ = writeln!(text, "| `{name}` | {what} | {killer} | {seconds:.2} |");
    }
    text.push_str(CONTROLS);
    let _ = writeln!(text, "{} of {} are killed.\n", killed(&controls), controls.len());
    text.push_str("| layer | mutant | killed by | seconds |\n| --- | --- | --- | --- |\n");
    for Row { control, name, killer, seconds, .. } in controls {
        let killer = match killer {
            None => "-".to_owned(),
            Some(Killer { detail: None, .. }) => "as a whole".to_owned(),
            Some(Killer { detail: Some(detail), .. }) => format!("`{detail}`"),
        };
        let layer = control.as_deref().unwrap_or_default();
        let _ = writeln!(text, "| {layer} | `{name}` | {killer} | {seconds:.2} |");
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
            control: None,
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
            Row {
                control: Some("fuzz batch".to_owned()),
                ..row("One", killer("fuzz batch", None))
            },
            Row {
                control: Some("bit flips".to_owned()),
                ..row("Two", killer("bit flips", Some("bit 7")))
            },
            Row { control: Some("errors".to_owned()), ..row("Two", None) },
        ];
        let text = text(&rows);
        let read: Vec<Row> = text.lines().filter_map(super::row).collect();
        assert_eq!(read.len(), rows.len());
        for (read, row) in read.iter().zip(&rows) {
            let all = |row: &Row| (row.control.clone(), row.name.clone(), row.killer.clone());
            assert_eq!(all(read), all(row));
        }
        assert!(text.contains("3 of 4 are killed."));
        assert!(text.contains("2 of 3 are killed."));
    }
}
