//! Who is faster: ratios of one round each, and goals against the best rival of that round.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::ValueEnum;

use crate::measurement::Measurement;
use crate::percentile::Drift;
use crate::report::{Table, digits};
use crate::rivals::engine::Engine;
use crate::rivals::works::{Cell, Goal, Metric};
use crate::series::{Around, Bar, Series};
use crate::summary::range;

/// A number that was measured.
struct Value {
    cell: Cell,
    engine: Engine,
    round: usize,
    metric: Metric,
    value: f64,
}

/// What was measured: of each thing done, round by round, by whom.
#[derive(Default)]
pub(crate) struct Results {
    values: Vec<Value>,
}

impl Results {
    /// Adds a measurement of this round, unless no flush covers what it says.
    pub(crate) fn add(&mut self, cell: Cell, engine: Engine, round: usize, line: &Measurement) {
        if line.disqualified.is_some() {
            return;
        }
        for metric in Metric::value_variants() {
            if let Some(value) = metric.of(line) {
                self.values.push(Value { cell, engine, round, metric: *metric, value });
            }
        }
    }

    /// Of this thing in this round, by engine.
    fn of(
        &self,
        cell: Cell,
        round: usize,
        metric: Metric,
    ) -> impl Iterator<Item = (Engine, f64)> + '_ {
        self.values.iter().filter_map(move |found| {
            let this = found.cell == cell && found.round == round && found.metric == metric;
            this.then_some((found.engine, found.value))
        })
    }

    fn value(&self, cell: Cell, round: usize, engine: Engine, metric: Metric) -> Option<f64> {
        self.of(cell, round, metric).find(|(found, _)| *found == engine).map(|(_, value)| value)
    }

    /// The best rival of a round, and what it reached.
    fn best(&self, cell: Cell, round: usize, metric: Metric) -> Option<(Engine, f64)> {
        let sign = if metric.more_is_better() { 1.0 } else { -1.0 };
        self.of(cell, round, metric)
            .filter(|(engine, _)| engine.is_rival())
            .max_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)))
    }

    fn rounds(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.values.iter().map(|value| value.round).max().unwrap_or(0)
    }

    /// One goal over all rounds.
    pub(crate) fn judged(&self, goal: &Goal) -> Series {
        let against = if goal.metric == Metric::DeviceBytes {
            "alone".to_owned()
        } else if goal.our_cell == goal.their_cell {
            "best rival".to_owned()
        } else {
            format!("best rival at {}", goal.their_cell)
        };
        let what =
            format!("{}: {} / {against}, {}", goal.our_cell, goal.ours.name(), goal.metric.unit());
        let mut series = Series::of("rivals", &what, goal.metric.unit(), goal.bar);
        for round in self.rounds() {
            let Some(ours) = self.value(goal.our_cell, round, goal.ours, goal.metric) else {
                continue;
            };
            if goal.metric == Metric::DeviceBytes {
                series.add(ours, Around::exact(1.0), String::new());
            } else if let Some((best, theirs)) = self.best(goal.their_cell, round, goal.metric) {
                series.add(ours, Around::exact(theirs), best.name());
            }
        }
        series
    }

    /// The same with no log at all, where that was measured.
    pub(crate) fn limit(&self, goal: &Goal) -> Option<Series> {
        let measured = self.values.iter().any(|value| {
            (value.engine, value.cell, value.metric) == (Engine::Bare, goal.our_cell, goal.metric)
        });
        let rival_is_there = goal.metric != Metric::DeviceBytes && goal.ours == Engine::Ringlog;
        (measured && rival_is_there)
            .then(|| self.judged(&Goal { ours: Engine::Bare, bar: Bar::None, ..*goal }))
    }

    /// ringlog beside each rival at one thing: by rate, or by time where that is what counts.
    pub(crate) fn table(&self, cell: Cell) -> String {
        let mut ratios: BTreeMap<String, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
        let ours = [Engine::Ringlog, Engine::RinglogDriven];
        for round in self.rounds() {
            let rates = self.of(cell, round, Metric::Rate);
            for (engine, theirs) in rates.filter(|(engine, _)| engine.is_rival()) {
                let entry = ratios.entry(engine.name()).or_default();
                for (ours, into) in ours.into_iter().zip([&mut entry.0, &mut entry.1]) {
                    if let Some(ours) = self.value(cell, round, ours, Metric::Rate) {
                        into.push(ours / theirs);
                    }
                }
            }
        }
        let mut table = Table::new(1, ["rival", "ringlog / it", "driven / it", "faster"]);
        for (name, (with_thread, driven)) in &ratios {
            let (thread, alone) = (Drift::of(with_thread), Drift::of(driven));
            table.row(&[name.clone(), range(thread), range(alone), faster(name, thread, alone)]);
        }
        if ratios.is_empty() { String::new() } else { format!("{}\n", table.text()) }
    }

    /// Where a rival wins, in words; or that none does.
    pub(crate) fn losses(&self, goals: &[Goal]) -> String {
        let mut text = String::new();
        for goal in goals.iter().filter(|goal| goal.metric != Metric::DeviceBytes) {
            let mut lost = Vec::new();
            let mut all = 0;
            for round in self.rounds() {
                let ours = self.value(goal.our_cell, round, goal.ours, goal.metric);
                let best = self.best(goal.their_cell, round, goal.metric);
                if let Some((ours, (rival, theirs))) = ours.zip(best) {
                    all += 1;
                    if (theirs > ours) == goal.metric.more_is_better() && theirs != ours {
                        lost.push(format!(
                            "{} ({} to {})",
                            rival.name(),
                            digits(theirs),
                            digits(ours)
                        ));
                    }
                }
            }
            if !lost.is_empty() {
                let _ = writeln!(
                    text,
                    "A RIVAL WINS in {} of {all} rounds: {}, {} against {}: {}",
                    lost.len(),
                    goal.our_cell,
                    goal.metric.unit(),
                    goal.ours.name(),
                    lost.join(", ")
                );
            }
        }
        if text.is_empty() { "No rival wins.\n".to_owned() } else { text }
    }
}

fn faster(name: &str, thread: Option<Drift>, driven: Option<Drift>) -> String {
    let median = |drift: Option<Drift>| drift.map(|drift| drift.median);
    match median(thread).into_iter().chain(median(driven)).reduce(f64::max) {
        None => "-".to_owned(),
        Some(ratio) if ratio >= 1.0 => "ringlog".to_owned(),
        Some(_) => name.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rivals::works::{Work, goals};

    /// Appends of 256 bytes by one thread: the first goal of all.
    fn results(rates: &[(Engine, usize, f64)]) -> (Goal, Results) {
        let goal = goals(&[Work::Append256])[0];
        let mut results = Results::default();
        for (engine, round, value) in rates.iter().copied() {
            let (cell, metric) = (goal.our_cell, goal.metric);
            results.values.push(Value { cell, engine, round, metric, value });
        }
        (goal, results)
    }

    #[test]
    fn ratios_are_of_one_round_and_against_its_best_rival() {
        let (goal, results) = results(&[
            (Engine::Ringlog, 1, 100.0),
            (Engine::Okaywal, 1, 50.0),
            (Engine::Sqlite, 1, 80.0),
            (Engine::Ringlog, 2, 10.0),
            (Engine::Okaywal, 2, 5.0),
            (Engine::Sqlite, 2, 4.0),
        ]);
        let text = results.judged(&goal).rounds_text();
        assert!(text.contains("= 1.25") && text.contains("sqlite"), "{text}");
        assert!(text.contains("= 2.00") && text.contains("okaywal"), "{text}");
        assert_eq!(results.losses(&[goal]), "No rival wins.\n");
        let table = results.table(goal.our_cell);
        let row = table.lines().find(|line| line.starts_with("sqlite")).unwrap();
        assert!(row.contains("1.25 - 1.88 - 2.50") && row.ends_with("ringlog"), "{table}");
    }

    #[test]
    fn a_rival_that_wins_is_named() {
        let (goal, results) = results(&[
            (Engine::Ringlog, 1, 100.0),
            (Engine::Okaywal, 1, 120.0),
            (Engine::Ringlog, 2, 100.0),
            (Engine::Okaywal, 2, 90.0),
        ]);
        let text = results.losses(&[goal]);
        assert!(text.starts_with("A RIVAL WINS in 1 of 2 rounds"), "{text}");
        assert!(text.contains("okaywal (120 to 100)"), "{text}");
        let slow = Goal { metric: Metric::Seconds, ..goal };
        let mut open = Results::default();
        for (engine, value) in [(Engine::Ringlog, 2.0), (Engine::Umadb, 1.0)] {
            let (cell, metric) = (goal.our_cell, Metric::Seconds);
            open.values.push(Value { cell, engine, round: 1, metric, value });
        }
        assert!(open.losses(&[slow]).contains("umadb (1.00 to 2.00)"));
        let table = open.table(goal.our_cell);
        assert_eq!(table, "", "no rates, no table");
    }

    #[test]
    fn what_has_no_log_is_a_limit_and_no_rival() {
        let (goal, results) = results(&[
            (Engine::Ringlog, 1, 100.0),
            (Engine::Bare, 1, 300.0),
            (Engine::Okaywal, 1, 50.0),
        ]);
        let text = results.judged(&goal).rounds_text();
        assert!(text.contains("= 2.00") && text.contains("okaywal"), "{text}");
        let limit = results.limit(&goal).unwrap().rounds_text();
        assert!(limit.contains("bare / best rival") && limit.contains("= 6.00"), "{limit}");
        assert_eq!(results.losses(&[goal]), "No rival wins.\n");
        assert!(!results.table(goal.our_cell).contains("bare"));
        assert!(results.limit(&Goal { ours: Engine::RinglogDriven, ..goal }).is_none());
    }

    #[test]
    fn what_nobody_did_has_no_ratio() {
        let (goal, results) = results(&[(Engine::Ringlog, 1, 100.0)]);
        assert_eq!(results.judged(&goal).rounds_text().lines().count(), 1);
        assert_eq!(results.table(goal.our_cell), "");
    }
}
