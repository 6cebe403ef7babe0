//! One figure over the rounds of a run, and how figures are reported.
//!
//! Knows numbers and text only. A ratio is of one round: floor and figure of the same minute.

use std::fmt::Write as _;

use serde::Serialize;

use crate::percentile::Drift;
use crate::report::{Table, digits};

/// The bar that a ratio is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Measured for comparison.
    None,
}

/// One round of one figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    figure: f64,
    floor: f64,
    ratio: f64,
    /// What else is worth knowing of this round.
    detail: String,
}

/// One figure over all rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    bench: &'static str,
    what: &'static str,
    unit: &'static str,
    bar: Bar,
    ratio: Option<Drift>,
    rounds: Vec<Measured>,
}

impl Series {
    /// No rounds yet.
    pub(crate) fn new(what: &'static str, unit: &'static str, bar: Bar) -> Self {
        Self { bench: "figures", what, unit, bar, ratio: None, rounds: Vec::new() }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, figure: f64, floor: f64, detail: String) {
        self.rounds.push(Measured { figure, floor, ratio: figure / floor, detail });
        let ratios: Vec<f64> = self.rounds.iter().map(|round| round.ratio).collect();
        self.ratio = Drift::of(&ratios);
    }

    /// The rounds, a line each.
    pub(crate) fn rounds_text(&self) -> String {
        let mut text = format!("{}\n", self.what);
        for round in &self.rounds {
            let _ = writeln!(
                text,
                "  {:>10.4e} / {:>10.4e} {} = {:<6} {}",
                round.figure,
                round.floor,
                self.unit,
                digits(round.ratio),
                round.detail
            );
        }
        text
    }
}

/// All figures with their bars. The bar is set against the median.
pub(crate) fn table(all: &[Series]) -> String {
    let mut table = Table::new(1, ["figure", "min", "median", "max", "bar", "median is"]);
    for series in all {
        let (bar, reached) = match (series.bar, series.ratio) {
            (Bar::None, _) => ("-".to_owned(), "-"),
            (Bar::AtMost(bar), ratio) => {
                (format!("<= {bar}"), verdict(ratio.map(|ratio| ratio.median <= bar)))
            }
            (Bar::AtLeast(bar), ratio) => {
                (format!(">= {bar}"), verdict(ratio.map(|ratio| ratio.median >= bar)))
            }
        };
        let cell =
            |pick: fn(&Drift) -> f64| series.ratio.as_ref().map_or("-".into(), |r| digits(pick(r)));
        table.row(&[
            series.what.to_owned(),
            cell(|ratio| ratio.min),
            cell(|ratio| ratio.median),
            cell(|ratio| ratio.max),
            bar,
            reached.to_owned(),
        ]);
    }
    format!("\n{}", table.text())
}

fn verdict(reached: Option<bool>) -> &'static str {
    match reached {
        Some(true) => "within",
        Some(false) => "MISSED",
        None => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round_and_the_bar_is_judged_by_the_median() {
        let mut series = Series::new("x", "s", Bar::AtMost(1.35));
        series.add(2.0, 1.0, String::new());
        series.add(12.0, 10.0, String::new());
        series.add(1.3, 1.0, String::new());
        let ratio = series.ratio.unwrap();
        assert!((ratio.min - 1.2).abs() < 1e-9 && (ratio.max - 2.0).abs() < 1e-9);
        assert!((ratio.median - 1.3).abs() < 1e-9);
        assert!(table(&[series]).contains("within"));
        let mut low = Series::new("y", "B/s", Bar::AtLeast(0.5));
        low.add(0.4, 1.0, String::new());
        assert!(table(&[low]).contains("MISSED"));
        let nothing = table(&[Series::new("z", "s", Bar::AtMost(1.0))]);
        assert!(!nothing.contains("within") && !nothing.contains("MISSED"), "{nothing}");
    }

    #[test]
    fn a_series_is_valid_json_with_its_bar() {
        let mut series = Series::new("x", "s", Bar::AtMost(1.5));
        series.add(1.0, 2.0, String::new());
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&series).unwrap()).unwrap();
        assert_eq!(json["bar"]["at_most"], 1.5);
        assert_eq!(json["ratio"]["median"], 0.5);
        assert_eq!(json["rounds"][0]["floor"], 2.0);
    }
}
