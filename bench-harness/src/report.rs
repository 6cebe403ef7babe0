//! How results look: a table and charts for people, one JSON object a line for machines.
//!
//! Knows numbers and text only. What is not known is "-" in the table and `null` in JSON.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Why a run ended without all that was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something could not be measured.
    Measuring(String),
    /// The report could not be written.
    Reporting(io::Error),
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Self::Measuring(what)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Reporting(error)
    }
}

/// Text in columns: the first one to the left, the others to the right.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    left: usize,
}

impl Table {
    /// A table with these headings; the first `left` columns are set to the left.
    pub(crate) fn new<const N: usize>(left: usize, headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()], left }
    }

    /// The same for headings that are known later.
    pub(crate) fn of(left: usize, headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()], left }
    }

    /// Adds a row of as many cells.
    pub(crate) fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: &[String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// Its cells, the headings first.
    pub(crate) fn into_rows(self) -> Vec<Vec<String>> {
        self.rows
    }

    /// The lines of the table, with a line below the headings.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let gap = if column == 0 { "" } else { "  " };
                let _ = if column < self.left {
                    write!(line, "{gap}{cell:<width$}")
                } else {
                    write!(line, "{gap}{cell:>width$}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
            if number == 0 {
                let all = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
                text.push_str(&"-".repeat(all));
                text.push('\n');
            }
        }
        text
    }
}

/// Width of the longest bar.
const BAR_CHARS: f64 = 50.0;

/// A histogram of ns as lines with bars, in buckets that each begin at twice the last one's
/// beginning. A bucket with anything in it has a bar.
pub(crate) fn chart(histogram: &Histogram<u64>) -> String {
    let mut buckets = [0_u64; 64];
    for value in histogram.iter_recorded() {
        buckets[value.value_iterated_to().max(1).ilog2() as usize] += value.count_at_value();
    }
    let Some(first) = buckets.iter().position(|count| *count > 0) else {
        return "  nothing was flushed\n".to_owned();
    };
    let last = buckets.iter().rposition(|count| *count > 0).unwrap_or(first);
    let most = buckets.iter().copied().max().unwrap_or(1);
    let total: u64 = buckets.iter().sum();
    let mut text = String::new();
    for (power, count) in buckets.iter().enumerate().take(last + 1).skip(first) {
        let bar = (*count as f64 / most as f64 * BAR_CHARS).ceil() as usize;
        let part = *count as f64 / total as f64 * 100.0;
        let (from, to) =
            (duration(1_u64 << power), duration(2_u64.saturating_pow(power as u32 + 1)));
        let line = format!("  {from:>8} .. {to:>8} {count:>9} {part:>6.2} % {}", "#".repeat(bar));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// ns with a unit, three digits.
pub(crate) fn duration(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        _ if ns < 1e3 => (ns, "ns"),
        _ if ns < 1e6 => (ns / 1e3, "us"),
        _ if ns < 1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{} {unit}", digits(value))
}

/// A number with about three digits that matter, or all of those before the point.
pub(crate) fn digits(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        // What is far below the others is still not nothing.
        _ if value > 1e-6 && value < 0.01 => format!("{value:.1e}"),
        _ => format!("{value:.2}"),
    }
}

/// [`digits`], or "-".
pub(crate) fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), digits)
}

/// [`digits`] with an "x" behind it, or "-".
pub(crate) fn times(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{}x", digits(value)))
}

/// Where text and JSON lines go. With JSON on standard output, text goes to standard error.
pub(crate) struct Out {
    json: Option<Box<dyn Write>>,
    text: Box<dyn Write>,
    watched: bool,
}

impl Out {
    /// `json`: a file to be written anew, `-` for standard output.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub(crate) fn new(json: Option<&Path>) -> Result<Self, String> {
        let watched = io::stderr().is_terminal();
        Ok(match json {
            None => Self { json: None, text: Box::new(io::stdout()), watched },
            Some(path) if path == Path::new("-") => {
                Self { json: Some(Box::new(io::stdout())), text: Box::new(io::stderr()), watched }
            }
            Some(path) => {
                let file = File::create(path)
                    .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
                Self { json: Some(Box::new(file)), text: Box::new(io::stdout()), watched }
            }
        })
    }

    /// Prints text and flushes it.
    ///
    /// # Errors
    /// What the stream refused.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        self.text.write_all(text.as_bytes())?;
        self.text.flush()
    }

    /// Says on a terminal what is being measured, in place of what was said before; nothing where
    /// nobody looks.
    pub(crate) fn progress(&self, what: &str) {
        if self.watched {
            eprint!("\r\x1b[K{what}");
        }
    }

    /// Writes one JSON object on a line of its own, whole, and flushes it.
    ///
    /// # Errors
    /// What the stream refused.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let Some(json) = &mut self.json else {
            return Ok(());
        };
        json.write_all(&line(value)?)?;
        json.flush()
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percentile::{Percentiles, new_histogram};

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(1, ["mode", "rate"]);
        table.row(&["a".to_owned(), "1".to_owned()]);
        table.row(&["longer".to_owned(), "12345".to_owned()]);
        assert_eq!(table.text(), "mode     rate\n-------------\na           1\nlonger  12345\n");
    }

    #[test]
    fn a_chart_has_every_sample_in_the_bucket_it_belongs_to() {
        let mut histogram = new_histogram();
        histogram.saturating_record_n(1023, 1);
        histogram.saturating_record_n(1024, 90);
        histogram.saturating_record_n(5000, 9);
        let chart = chart(&histogram);
        let lines: Vec<&str> = chart.lines().collect();
        assert_eq!(lines.len(), 4, "{chart}");
        for (line, count) in lines.iter().zip(["1", "90", "0", "9"]) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[5], count, "{line}");
        }
        assert!(lines[1].ends_with(&"#".repeat(50)), "{chart}");
        assert!(lines[0].ends_with(" #"), "a lone sample is seen: {chart}");
        assert!(lines[2].ends_with('%'), "{chart}");
    }

    #[test]
    fn an_empty_chart_says_so() {
        assert!(chart(&new_histogram()).contains("nothing"));
    }

    #[test]
    fn what_is_not_known_is_a_dash_or_null() {
        assert_eq!(or_dash(None), "-");
        assert_eq!(times(Some(1.234)), "1.23x");
        assert_eq!(times(None), "-");
        let written = line(&Percentiles::of(&new_histogram())).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert!(parsed["p50"].is_null() && parsed["max"].is_null(), "{parsed}");
        assert_eq!(written.iter().filter(|b| **b == b'\n').count(), 1);
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(digits(123_456.7), "123457");
        assert_eq!(digits(12.34), "12.3");
        assert_eq!(digits(0.123), "0.12");
        assert_eq!(digits(0.001_44), "1.4e-3");
        assert_eq!(digits(0.0), "0.00");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(85_300), "85.3 us");
        assert_eq!(duration(2_000_000_000), "2.00 s");
    }
}
