//! Several rounds of several things side by side: the tables at the end of a run.
//!
//! Knows measurements only. Rates and ratios are shown as minimum, median and maximum of the rounds;
//! latencies are those of all rounds' histograms merged.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::bench::Measured;
use crate::environment::interrupted;
use crate::floor::{self, Floor, MOVED_MAX, Primitive, Round, mib};
use crate::hdr;
use crate::measurement::{Class, Line, Measurement};
use crate::percentile::{Drift, Percentiles, new_histogram};
use crate::report::{Failure, Out, Table, chart, digits, duration, or_dash, times};

/// Above this, the rounds of the floor lie so far apart that figures of this run are doubtful.
const SPREAD_DOUBTFUL: f64 = 0.25;

/// What is compared.
#[derive(Default)]
pub(crate) struct Summary {
    rows: Vec<Row>,
    /// What could not be measured: its label, and why.
    failures: Vec<(String, String)>,
}

/// All rounds of one thing.
struct Row {
    label: String,
    rounds: Vec<Measured>,
}

impl Row {
    fn merged(&self, pick: fn(&Measured) -> &Histogram<u64>) -> Histogram<u64> {
        let mut merged = new_histogram();
        for round in &self.rounds {
            // Bounds are those of `new_histogram` everywhere, so that adding cannot fail.
            merged.add(pick(round)).unwrap_or_default();
        }
        merged
    }

    fn each(&self, pick: impl Fn(&Measurement) -> Option<f64>) -> Option<Drift> {
        let values: Vec<f64> = self.rounds.iter().filter_map(|round| pick(&round.line)).collect();
        Drift::of(&values)
    }

    fn class(&self) -> String {
        let Some(first) = self.rounds.first() else {
            return "-".to_owned();
        };
        let class = first.line.durability.name();
        first.line.media_within_ms.map_or_else(
            || class.to_owned(),
            |within| format!("{class}, {} within {within} ms", Class::Media.name()),
        )
    }

    fn disqualified(&self) -> bool {
        self.rounds.iter().any(|round| round.line.disqualified.is_some())
    }

    fn verdict(&self) -> &'static str {
        let owes = self.rounds.iter().any(|round| round.line.durability == Class::Media);
        let unknown = self.rounds.iter().any(|round| round.line.not_judged.is_some());
        match (self.disqualified(), unknown, owes) {
            (true, ..) => "DISQUALIFIED",
            (_, true, _) => "not judged",
            (_, _, true) => "covered",
            _ => "-",
        }
    }
}

fn doubtful(row: &Row) -> bool {
    row.rounds.iter().any(|round| round.line.floor.doubtful)
}

/// Minimum, median and maximum; the median alone where they are one.
pub(crate) fn range(drift: Option<Drift>) -> String {
    match drift {
        None => "-".to_owned(),
        Some(drift) if drift.min == drift.max => digits(drift.median),
        Some(drift) => {
            format!("{} - {} - {}", digits(drift.min), digits(drift.median), digits(drift.max))
        }
    }
}

impl Summary {
    /// Adds a round to the row of this label, and writes its line; or keeps in mind why there is
    /// none. What an interrupt has kept from being measured is no failure.
    ///
    /// # Errors
    /// What could not be written.
    pub(crate) fn take(
        &mut self,
        label: &str,
        measured: Result<Measured, String>,
        out: &mut Out,
    ) -> io::Result<()> {
        out.progress("");
        match measured {
            Ok(measured) => {
                out.json_line(&Line::Measurement(Box::new(measured.line.clone())))?;
                match self.rows.iter_mut().find(|row| row.label == label) {
                    Some(row) => row.rounds.push(measured),
                    None => self.rows.push(Row { label: label.to_owned(), rounds: vec![measured] }),
                }
            }
            Err(_) if interrupted() => {}
            Err(why) => self.failures.push((label.to_owned(), why)),
        }
        Ok(())
    }

    /// Whether this could not be measured once: then it is not tried again.
    pub(crate) fn has_failed(&self, label: &str) -> bool {
        self.failures.iter().any(|(failed, _)| failed == label)
    }

    /// All that was measured.
    pub(crate) fn lines(&self) -> Vec<&Measurement> {
        self.rows.iter().flat_map(|row| &row.rounds).map(|round| &round.line).collect()
    }

    /// The end of a run.
    ///
    /// # Errors
    /// What could not be measured, in words.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        if self.failures.is_empty() {
            return Ok(());
        }
        let words: Vec<String> =
            self.failures.iter().map(|(label, why)| format!("{label}: {why}")).collect();
        Err(Failure::Measuring(words.join("; ")))
    }

    /// Both tables. `what` heads the first column.
    pub(crate) fn tables(&self, what: &str) -> String {
        format!("{}\n{}", self.speed(what), self.ratios(what))
    }

    fn speed(&self, what: &str) -> String {
        let mut table = Table::new(
            2,
            [
                what,
                "durability",
                "records/s",
                "MiB/s",
                "p50 us",
                "p90",
                "p99",
                "p99.9",
                "p99.99",
                "max",
            ],
        );
        for row in &self.rows {
            let latency = Percentiles::of(&row.merged(|round| &round.latency));
            let median = |pick: fn(&Measurement) -> f64| {
                or_dash(row.each(|line| Some(pick(line))).map(|drift| drift.median))
            };
            table.row(&[
                row.label.clone(),
                row.class(),
                median(|line| line.records_per_second),
                median(|line| line.payload_mib_per_second),
                or_dash(latency.p50),
                or_dash(latency.p90),
                or_dash(latency.p99),
                or_dash(latency.p99_9),
                or_dash(latency.p99_99),
                or_dash(latency.max),
            ]);
        }
        format!(
            "{}Rates are medians of the rounds, latencies are of all rounds together. \"-\": unknown, \
             or fewer than 100 samples beyond.\n",
            table.text()
        )
    }

    fn ratios(&self, what: &str) -> String {
        let mut table = Table::new(
            1,
            [
                what,
                "p50/floor",
                "rec/floor",
                "% of raw write",
                "flushes/s",
                "claimed",
                "bytes/payload",
                "claimed",
                "CPU s/M",
                "floor moved",
                "flushes are",
            ],
        );
        for row in &self.rows {
            let per_second = |flushes: Option<u64>, line: &Measurement| {
                flushes.map(|flushes| flushes as f64 / line.seconds.max(1e-9))
            };
            let moved = row.each(|line| line.floor.moved).map(|drift| drift.max);
            let doubtful = if doubtful(row) { " DOUBTFUL" } else { "" };
            let rate = |pick: &dyn Fn(&Measurement) -> Option<f64>| {
                or_dash(row.each(pick).map(|drift| drift.median))
            };
            let claimed = |line: &Measurement| {
                let bytes = line.device_bytes_claimed? as f64;
                (line.payload_bytes > 0).then(|| bytes / line.payload_bytes as f64)
            };
            table.row(&[
                row.label.clone(),
                range(row.each(|line| line.ratio.p50_to_floor)),
                range(row.each(|line| line.ratio.records_per_floor_commit)),
                range(
                    row.each(|line| {
                        line.ratio.payload_to_sequential_write.map(|part| part * 100.0)
                    }),
                ),
                rate(&|line| per_second(line.flushes, line)),
                rate(&|line| per_second(line.flushes_claimed, line)),
                range(row.each(|line| line.ratio.device_to_payload)),
                rate(&claimed),
                rate(&|line| line.ratio.cpu_seconds_per_million),
                format!("{}{doubtful}", times(moved)),
                row.verdict().to_owned(),
            ]);
        }
        format!(
            "{}min - median - max of the rounds, each by the floor just before and after it.\n\
             p50/floor: by the median of the better bare primitive. rec/floor: records in the time \
             of one bare commit.\n% of raw write: payload by the sequential O_DIRECT write. flushes, \
             bytes: counted by the device, and claimed by the engine.\nfloor moved: at most; above \
             {MOVED_MAX} a row is doubtful.\n",
            table.text()
        )
    }

    /// What else was counted, by these names.
    pub(crate) fn details(&self, what: &str, names: &[&str]) -> String {
        let headings: Vec<&str> = std::iter::once(what).chain(names.iter().copied()).collect();
        let mut table = Table::of(1, &headings);
        for row in &self.rows {
            let mut cells = vec![row.label.clone()];
            for name in names {
                cells.push(range(row.each(|line| line.detail.get(*name).copied())));
            }
            table.add(cells);
        }
        format!("{}\n", table.text())
    }

    /// How long commits took, row by row.
    pub(crate) fn charts(&self) -> String {
        let one = |row: &Row| {
            let flushes = row.merged(|round| &round.flush);
            format!("{}: time of a commit's write and flush\n{}\n", row.label, chart(&flushes))
        };
        self.rows.iter().map(one).collect()
    }

    /// What must be known beside the figures, each once.
    pub(crate) fn notes(&self, floor: Option<&str>) -> String {
        let mut seen = BTreeSet::new();
        let mut text = "notes\n".to_owned();
        let mut add = |note: String| {
            if seen.insert(note.clone()) {
                text.push_str(&format!("- {note}\n"));
            }
        };
        for row in &self.rows {
            for Measured { line, .. } in &row.rounds {
                let label = &row.label;
                if let Some(why) = &line.disqualified {
                    add(format!("{label}: DISQUALIFIED: {why}"));
                }
                if let Some(why) = &line.not_judged {
                    add(format!("{label}: its flushes could not be judged: {why}"));
                }
                add(format!(
                    "engine: {} {}, {} on {}, commit primitive {}",
                    line.engine,
                    line.version.as_deref().unwrap_or("of unknown version"),
                    line.io.as_deref().unwrap_or("its own I/O"),
                    line.file_system,
                    line.primitive.as_deref().unwrap_or("its own"),
                ));
                if line.direct == Some(false) {
                    add("writes do not bypass the page cache here: \"written\" survives the end of \
                         the process only"
                        .to_owned());
                }
                if line.file_system == "tmpfs" {
                    add("tmpfs: nothing survives a power cut here, whatever is flushed".to_owned());
                }
                line.notes.iter().for_each(|note| add(note.clone()));
                if let Some(reason) = &line.ended_early {
                    add(format!("{label}, round {} ended early: {reason}", line.round));
                }
                let waited = line.detail.get("waited_for_room").copied().unwrap_or(0.0);
                if waited > 0.0 {
                    add(format!("{label}: {waited} appends found no room and waited for it"));
                }
                if line.durability == Class::Memory {
                    add(
                        "memory: the latency is that of the append call, and includes reading the \
                         clock"
                            .to_owned(),
                    );
                }
            }
        }
        floor.iter().for_each(|note| add(format!("floor: {note}")));
        for (label, why) in &self.failures {
            add(format!("FAILED {label}: {why}"));
        }
        text.push('\n');
        text
    }

    /// Leaves the histograms of each row in `dir`.
    ///
    /// # Errors
    /// What the file system refused, in words.
    pub(crate) fn write_hdr(&self, dir: &Path, prefix: &str) -> Result<(), String> {
        for row in &self.rows {
            for (kind, pick) in [
                ("latency", (|round| &round.latency) as fn(&Measured) -> &Histogram<u64>),
                ("flush", |round| &round.flush),
            ] {
                let rounds: Vec<hdr::Interval<'_>> = row
                    .rounds
                    .iter()
                    .map(|round| (pick(round), Duration::from_secs_f64(round.line.seconds)))
                    .collect();
                let name = format!("{prefix}-{}-{kind}", row.label);
                let name: String = name
                    .chars()
                    .map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' })
                    .collect();
                hdr::write(dir, &name, &rounds)?;
            }
        }
        Ok(())
    }
}

/// The floor of a directory over all rounds, and how far it moved.
pub(crate) fn floor_text(rounds: &[Round], append_bytes: usize) -> String {
    let floor = Floor::of(rounds);
    let bytes = floor::record_size(append_bytes);
    let mut table = Table::new(
        1,
        ["floor, one at a time", "bytes", "p50 us", "p90", "p99", "p99.9", "max", "commits"],
    );
    for one in floor.commits() {
        let latency = Percentiles::of(&one.latency);
        table.row(&[
            one.primitive.name().to_owned(),
            one.bytes.to_string(),
            or_dash(latency.p50),
            or_dash(latency.p90),
            or_dash(latency.p99),
            or_dash(latency.p99_9),
            or_dash(latency.max),
            one.latency.len().to_string(),
        ]);
    }
    let (commits, writes) = floor::drift(rounds, bytes);
    let better = match floor.best_ns(bytes) {
        Some((Primitive::Dsync, ns)) => format!("RWF_DSYNC is the better one: {}", duration(ns)),
        Some((Primitive::Fdatasync, ns)) => {
            format!("fdatasync is the better one: {}", duration(ns))
        }
        None => "too few commits to say which is the better one".to_owned(),
    };
    let copied = floor.copied.map_or_else(|| "-".to_owned(), |rate| duration((1e9 / rate) as u64));
    format!(
        "{}{better}\nsequential O_DIRECT write: {} MiB/s; copy + crc32 of a record: {copied}\n{}{}\n",
        table.text(),
        or_dash(floor.sequential_write.map(mib)),
        drift_text("commit", "us", commits, rounds.len()),
        drift_text("sequential write", "MiB/s", writes, rounds.len()),
    )
}

fn drift_text(what: &str, unit: &str, drift: Option<Drift>, rounds: usize) -> String {
    let Some(drift) = drift else {
        return format!("drift of the {what}: not known\n");
    };
    let doubtful = if drift.spread() > SPREAD_DOUBTFUL {
        format!(" - DOUBTFUL: spread over {:.0} % of the median", SPREAD_DOUBTFUL * 100.0)
    } else {
        String::new()
    };
    format!(
        "drift of the {what} over {rounds} rounds: {} - {} - {} {unit} (min - median - max), last/first {}{doubtful}\n",
        digits(drift.min),
        digits(drift.median),
        digits(drift.max),
        times(Some(drift.last_to_first)),
    )
}
