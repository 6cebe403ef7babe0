//! Whether a figure has grown.

use std::fmt;

/// Looks at one figure, with their times in seconds.
#[derive(Clone, Debug, Default)]
pub struct Series {
    looks: Vec<(f64, f64)>,
}

/// Fewer looks than these say nothing.
const LOOKS_MIN: usize = 9;

impl Series {
    /// One more look.
    pub fn add(&mut self, seconds: f64, value: f64) {
        self.looks.push((seconds, value));
    }

    /// Shows each look.
    pub fn each(&self, mut show: impl FnMut(f64, f64)) {
        self.looks.iter().for_each(|(seconds, value)| show(*seconds, *value));
    }

    /// What there is of it from `begin` to `end`, in seconds.
    pub fn between(&self, begin: f64, end: f64) -> Self {
        let within = |look: &&(f64, f64)| (begin..=end).contains(&look.0);
        Self { looks: self.looks.iter().filter(within).copied().collect() }
    }

    /// Judges it: flat is whose last third has a median of at most 10 % and `allowance` above that
    /// of the first third. `None` of fewer than nine looks.
    pub fn summary(&self, allowance: f64) -> Option<Summary> {
        if self.looks.len() < LOOKS_MIN {
            return None;
        }
        let values: Vec<f64> = self.looks.iter().map(|look| look.1).collect();
        let third = values.len() / 3;
        let first = median(&values[..third]);
        let last = median(&values[values.len() - third..]);
        Some(Summary {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            median: median(&values),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            first,
            last,
            per_hour: self.slope() * 3600.0,
            flat: last <= first * 1.1 + allowance,
        })
    }

    /// By least squares, per second.
    fn slope(&self) -> f64 {
        let count = self.looks.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.looks.iter().map(of).sum::<f64>() / count;
        let (time, value) = (mean(|look| look.0), mean(|look| look.1));
        let both: f64 = self.looks.iter().map(|look| (look.0 - time) * (look.1 - value)).sum();
        let times: f64 = self.looks.iter().map(|look| (look.0 - time).powi(2)).sum();
        if times > 0.0 { both / times } else { 0.0 }
    }
}

/// The middle one; of none, 0.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// What came of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    min: f64,
    median: f64,
    max: f64,
    first: f64,
    last: f64,
    per_hour: f64,
    /// Whether it has not grown.
    pub flat: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} – {:.1} – {:.1}; first third {:.1}, last {:.1}; {:+.1} an hour; {}",
            self.min,
            self.median,
            self.max,
            self.first,
            self.last,
            self.per_hour,
            if self.flat { "flat" } else { "NOT FLAT" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: impl Fn(f64) -> f64) -> Series {
        let mut series = Series::default();
        (0..90).for_each(|at| series.add(f64::from(at), value(f64::from(at))));
        series
    }

    #[test]
    fn what_grows_is_not_flat() {
        let noise = |at: f64| if at % 2.0 == 0.0 { 3.0 } else { -3.0 };
        let steady = of(|at| 100.0 + noise(at)).summary(0.0).unwrap();
        assert!(steady.flat && steady.per_hour.abs() < 100.0, "{steady}");
        let grows = of(|at| 100.0 + noise(at) + at / 2.0).summary(8.0).unwrap();
        assert!(!grows.flat, "{grows}");
        assert!((grows.per_hour - 1800.0).abs() < 100.0, "{grows}");
        assert!(of(|at| 100.0 - at).summary(0.0).unwrap().flat, "shrinking is no leak");
        assert!(of(|at| 5.0 + at / 20.0).summary(8.0).unwrap().flat, "within the allowance");
        // A single high look is none of the medians.
        assert!(of(|at| if at == 80.0 { 900.0 } else { 9.0 }).summary(0.0).unwrap().flat);
    }

    #[test]
    fn a_part_is_judged_by_itself() {
        let series = of(|at| if at < 45.0 { 10.0 } else { 100.0 });
        assert!(!series.summary(8.0).unwrap().flat);
        assert!(series.between(45.0, 89.0).summary(0.0).unwrap().flat);
        assert_eq!(series.between(10.0, 15.0).summary(0.0), None);
    }
}
