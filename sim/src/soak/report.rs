//! What a soak came to.

use std::fmt;
use std::time::{Duration, Instant};

use super::Settings;
use super::flat::{Series, median};

const MIB: f64 = (1 << 20) as f64;

/// What was measured of the process and its log.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    /// Resident memory, in bytes.
    pub memory: Series,
    /// Open descriptors.
    pub descriptors: Series,
    /// Threads.
    pub threads: Series,
    /// What the log takes of the disk, in bytes.
    pub disk: Series,
}

/// Figures and findings.
#[derive(Clone, Debug)]
pub struct Report {
    settings: Settings,
    begun: Instant,
    /// How long it took.
    pub elapsed: Duration,
    /// Lives that were killed.
    pub kills: u64,
    /// Lives that were closed.
    pub closed: u64,
    /// Recoveries that were judged.
    pub judged: u64,
    /// Records that were read for that.
    pub records_read: u64,
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// The slowest append of each round, in milliseconds.
    pub slowest_ms: Vec<f64>,
    /// What the power cuts said.
    pub power_cuts: Vec<String>,
    /// What was wrong, in words.
    pub findings: Vec<String>,
    pub(super) samples: Samples,
    /// When the one long life began and ended.
    pub(super) long_life: Option<(f64, f64)>,
}

impl Report {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            begun: Instant::now(),
            elapsed: Duration::ZERO,
            kills: 0,
            closed: 0,
            judged: 0,
            records_read: 0,
            acknowledged: 0,
            slowest_ms: Vec::new(),
            power_cuts: Vec::new(),
            findings: Vec::new(),
            samples: Samples::default(),
            long_life: None,
        }
    }

    /// Seconds since it began.
    pub(super) fn elapsed_now(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Whether nothing was wrong so far.
    pub fn good(&self) -> bool {
        self.findings.is_empty()
    }

    /// The figures that must be flat: name, unit, the looks, what they may grow by beside 10 %.
    fn figures(&self) -> [(&'static str, f64, &Series, f64); 4] {
        let samples = &self.samples;
        [
            ("memory, MiB", MIB, &samples.memory, 16.0 * MIB),
            ("descriptors", 1.0, &samples.descriptors, 8.0),
            ("threads", 1.0, &samples.threads, 4.0),
            ("disk, MiB", MIB, &samples.disk, 48.0 * MIB),
        ]
    }

    /// Judges what was measured; false when there is anything wrong in all.
    pub fn conclude(&mut self) -> bool {
        let mut found = Vec::new();
        for (name, _, series, allowance) in self.figures() {
            let parts = [("the whole", Some(series.clone())), ("the long life", self.long(series))];
            for (part, series) in parts {
                match series.and_then(|series| series.summary(allowance)) {
                    Some(summary) if summary.flat => {}
                    Some(_) => found.push(format!("{name}: not flat over {part}")),
                    None => found.push(format!("{name}: too few looks at {part}")),
                }
            }
        }
        let slowest = self.slowest_ms.iter().copied().fold(0.0, f64::max);
        if slowest > self.settings.hang.as_secs_f64() * 1000.0 {
            found.push(format!("an append took {slowest:.0} ms"));
        }
        if self.acknowledged == 0 {
            found.push("nothing was acknowledged".to_owned());
        }
        self.findings.extend(found);
        self.good()
    }

    fn long(&self, series: &Series) -> Option<Series> {
        self.long_life.map(|(begin, end)| series.between(begin, end))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, text: String| writeln!(f, "{name:>24}: {text}");
        let Settings { clients, rate, seed, .. } = self.settings;
        let minutes = self.elapsed.as_secs_f64() / 60.0;
        row("soak", format!("{minutes:.1} minutes, seed {seed}"))?;
        row("clients", format!("{clients}, each with one append outstanding"))?;
        let a_second = self.acknowledged as f64 / self.elapsed.as_secs_f64();
        row(
            "acknowledged",
            format!("{} appends, {a_second:.0} a second ({rate} asked)", self.acknowledged),
        )?;
        row("lives", format!("{} killed, {} closed", self.kills, self.closed))?;
        row("recoveries judged", format!("{}, {} records read", self.judged, self.records_read))?;
        let slowest = self.slowest_ms.iter().copied().fold(0.0, f64::max);
        row(
            "slowest of a round, ms",
            format!("median {:.1}, max {slowest:.1}", median(&self.slowest_ms)),
        )?;
        for (name, unit, series, allowance) in self.figures() {
            let text = |series: &Series| {
                let mut shown = Series::default();
                series.each(|seconds, value| shown.add(seconds, value / unit));
                let summary = shown.summary(allowance / unit);
                summary.map_or_else(|| "too few looks".to_owned(), |summary| summary.to_string())
            };
            row(name, text(series))?;
            if let Some(series) = self.long(series) {
                row("in the long life", text(&series))?;
            }
        }
        for line in &self.power_cuts {
            row("on disks of its own", line.clone())?;
        }
        for words in &self.findings {
            row("WRONG", words.clone())?;
        }
        row("wrong", self.findings.len().to_string())
    }
}
