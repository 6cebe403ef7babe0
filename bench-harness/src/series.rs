//! One figure over the rounds of a run, and how figures are reported.
//!
//! Knows numbers and text only. A ratio is of one round: floor and figure of the same minute.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::percentile::Drift;
use crate::report::{Table, digits, times};

/// The bar that a ratio is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Measured for comparison.
    None,
}

/// A floor that was measured before and after a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Around {
    pub(crate) before: f64,
    pub(crate) after: f64,
}

impl Around {
    /// A value that is counted, and so does not move.
    pub(crate) fn exact(value: f64) -> Self {
        Self { before: value, after: value }
    }

    /// What the figure is set against.
    fn middle(self) -> f64 {
        f64::midpoint(self.before, self.after)
    }
}

/// Floors of one figure that lie further apart than this, largest to smallest, make it doubtful.
const FLOOR_MOVED_MAX: f64 = 1.5;

/// Stands for a ratio of nothing: printed as 0.
const NOTHING: f64 = 1e-9;

/// One round of one figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    figure: f64,
    floor: Around,
    ratio: f64,
    /// What else is worth knowing of this round.
    detail: String,
}

/// One figure over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    bench: String,
    what: String,
    unit: String,
    bar: Bar,
    ratio: Option<Drift>,
    rounds: Vec<Measured>,
}

impl Series {
    /// No rounds yet.
    pub(crate) fn new(what: &str, unit: &str, bar: Bar) -> Self {
        Self::of("figures", what, unit, bar)
    }

    /// The same for another subcommand.
    pub(crate) fn of(bench: &str, what: &str, unit: &str, bar: Bar) -> Self {
        let [bench, what, unit] = [bench, what, unit].map(str::to_owned);
        Self { bench, what, unit, bar, ratio: None, rounds: Vec::new() }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, figure: f64, floor: Around, detail: String) {
        self.rounds.push(Measured { figure, floor, ratio: figure / floor.middle(), detail });
        // A delay that no clock could tell from nothing is a figure, too.
        let ratios = self.rounds.iter().map(|round| match round.ratio {
            0.0 => NOTHING,
            ratio => ratio,
        });
        self.ratio = Drift::of(&ratios.collect::<Vec<f64>>());
    }

    /// The largest floor of all rounds divided by the smallest.
    fn floor_moved(&self) -> Option<f64> {
        let floors: Vec<f64> =
            self.rounds.iter().flat_map(|round| [round.floor.before, round.floor.after]).collect();
        Drift::of(&floors).map(|floors| floors.max / floors.min)
    }

    /// The rounds, a line each.
    pub(crate) fn rounds_text(&self) -> String {
        let mut text = format!("{}\n", self.what);
        for round in &self.rounds {
            let _ = writeln!(
                text,
                "  {:>10.4e} {} / {:>10.4e} .. {:>10.4e} = {:<6} {}",
                round.figure,
                self.unit,
                round.floor.before,
                round.floor.after,
                digits(round.ratio),
                round.detail
            );
        }
        text
    }
}

/// All figures with their bars. The bar is set against the median.
pub(crate) fn table(all: &[Series]) -> String {
    format!("\n{}", judged(all).text())
}

/// The same as cells, the headings first.
pub(crate) fn cells(all: &[Series]) -> Vec<Vec<String>> {
    judged(all).into_rows()
}

fn judged(all: &[Series]) -> Table {
    let mut table =
        Table::new(1, ["figure", "min", "median", "max", "bar", "median is", "floor moved"]);
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
            series.what.clone(),
            cell(|ratio| ratio.min),
            cell(|ratio| ratio.median),
            cell(|ratio| ratio.max),
            bar,
            // Ratios to a floor that would not keep still prove nothing, either way.
            if is_doubtful(series) { "not judged" } else { reached }.to_owned(),
            moved(series),
        ]);
    }
    table
}

/// How far the floor moved. What counts is exact has none that could.
fn moved(series: &Series) -> String {
    match series.floor_moved() {
        _ if series.unit == "B" => "-".to_owned(),
        moved if is_doubtful(series) => format!("{} DOUBTFUL", times(moved)),
        moved => times(moved),
    }
}

/// Whether the floor moved too far for the ratios to be judged.
fn is_doubtful(series: &Series) -> bool {
    series.floor_moved().is_some_and(|moved| moved > FLOOR_MOVED_MAX) && series.unit != "B"
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
        series.add(2.0, Around::exact(1.0), String::new());
        series.add(1.44, Around::exact(1.2), String::new());
        series.add(1.3, Around::exact(1.0), String::new());
        let ratio = series.ratio.unwrap();
        assert!((ratio.min - 1.2).abs() < 1e-9 && (ratio.max - 2.0).abs() < 1e-9);
        assert!((ratio.median - 1.3).abs() < 1e-9);
        assert!(table(&[series]).contains("within"));
        let mut low = Series::new("y", "B/s", Bar::AtLeast(0.5));
        low.add(0.4, Around::exact(1.0), String::new());
        assert!(table(&[low]).contains("MISSED"));
        let mut none = Series::new("delay", "s", Bar::AtMost(1.0));
        none.add(0.0, Around::exact(2e-4), String::new());
        none.add(2e-5, Around::exact(2e-4), String::new());
        assert!(table(&[none]).contains("within"));
        let nothing = table(&[Series::new("z", "s", Bar::AtMost(1.0))]);
        assert!(!nothing.contains("within") && !nothing.contains("MISSED"), "{nothing}");
    }

    #[test]
    fn a_series_is_valid_json_with_its_bar() {
        let mut series = Series::new("x", "s", Bar::AtMost(1.5));
        series.add(1.0, Around::exact(2.0), String::new());
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&series).unwrap()).unwrap();
        assert_eq!(json["bar"]["at_most"], 1.5);
        assert_eq!(json["ratio"]["median"], 0.5);
        assert_eq!(json["rounds"][0]["floor"]["after"], 2.0);
    }

    #[test]
    fn a_floor_that_moves_makes_a_figure_doubtful() {
        let mut series = Series::new("x", "s", Bar::AtMost(1.0));
        series.add(2.0, Around { before: 1.0, after: 3.0 }, String::new());
        assert_eq!(series.ratio.unwrap().median, 1.0);
        assert_eq!(series.floor_moved(), Some(3.0));
        let text = table(&[series]);
        assert!(text.contains("3.00x DOUBTFUL") && text.contains("not judged"), "{text}");
        assert!(!text.contains("within") && !text.contains("MISSED"), "{text}");
        let mut still = Series::new("x", "s", Bar::AtMost(1.0));
        still.add(2.0, Around { before: 1.0, after: 1.4 }, String::new());
        still.add(2.0, Around { before: 1.2, after: 1.0 }, String::new());
        let text = table(&[still]);
        assert!(text.contains("1.40x") && !text.contains("DOUBTFUL"), "{text}");
    }
}
