//! Measurements that are rounds of the same thing, together.

use hdrhistogram::Histogram;

use crate::measurement::{Class, Measurement, decode};
use crate::percentile::{Drift, new_histogram};

/// All rounds of one engine in one mode under one load in one directory, of one run.
pub(super) struct Row<'a> {
    pub(super) rounds: Vec<&'a Measurement>,
    /// Of all rounds, in ns.
    pub(super) latency: Histogram<u64>,
    /// The same of commits.
    pub(super) flush: Histogram<u64>,
}

impl<'a> Row<'a> {
    /// Any of the rounds, for what is the same in all of them.
    pub(super) fn first(&self) -> &'a Measurement {
        self.rounds[0]
    }

    pub(super) fn each(&self, pick: impl Fn(&Measurement) -> Option<f64>) -> Option<Drift> {
        let values: Vec<f64> = self.rounds.iter().filter_map(|round| pick(round)).collect();
        Drift::of(&values)
    }

    pub(super) fn rate(&self) -> Option<Drift> {
        self.each(|line| Some(line.records_per_second))
    }

    /// The engine where it is not ringlog, its mode, and what else sets it apart.
    pub(super) fn short(&self) -> String {
        let line = self.first();
        let load = line.open_loop.map_or_else(String::new, |open| {
            format!(" at {:.0} %", open.part_of_saturation * 100.0)
        });
        let label = line.label.as_ref().map_or_else(String::new, |label| format!(": {label}"));
        if line.engine == "ringlog" {
            format!("{}{load}{label}", line.mode)
        } else {
            format!("{} ({}){load}", line.engine, line.mode)
        }
    }

    /// What was done.
    pub(super) fn load(&self) -> String {
        let line = self.first();
        let batch = if line.batch_records > 1 {
            format!("{} × ", line.batch_records)
        } else {
            String::new()
        };
        let mut text = format!("{batch}{} B, {} threads", line.record_bytes, line.producers);
        if line.outstanding > 1 {
            text.push_str(&format!(" × {} receipts", line.outstanding));
        }
        if line.shards > 1 {
            text.push_str(&format!(", {} shards", line.shards));
        }
        text
    }

    pub(super) fn class(&self) -> String {
        let (line, media) = (self.first(), Class::Media.name());
        line.media_within_ms.map_or_else(
            || line.durability.name().to_owned(),
            |ms| format!("{}, {media} within {ms} ms", line.durability.name()),
        )
    }

    pub(super) fn is_disqualified(&self) -> bool {
        self.rounds.iter().any(|round| round.disqualified.is_some())
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.rounds.iter().any(|round| round.floor.doubtful)
    }

    pub(super) fn verdict(&self) -> &'static str {
        let any = |what: fn(&&Measurement) -> bool| self.rounds.iter().copied().any(|r| what(&r));
        if self.is_disqualified() {
            "DISQUALIFIED"
        } else if any(|round| round.not_judged.is_some()) {
            "not judged"
        } else if any(|round| round.durability == Class::Media) {
            "covered"
        } else {
            "-"
        }
    }

    /// Whether both were made to do the same thing.
    pub(super) fn same_work(&self, other: &Self) -> bool {
        work(self.first()) == work(other.first())
    }
}

/// What a row is asked to do, whoever does it.
fn work(line: &Measurement) -> impl PartialEq + use<'_> {
    let special = ["replay", "open", "fill"].contains(&line.mode.as_str()).then_some(&line.mode);
    let durable = line.durability == Class::Media;
    let many = (line.record_bytes, line.batch_records, line.producers, line.outstanding);
    (&line.dir, many, durable, special)
}

fn same<'a>(a: &'a Measurement, b: &'a Measurement) -> bool {
    let part = |line: &Measurement| line.open_loop.map(|o| (o.part_of_saturation * 1e4) as u64);
    let many = |line: &Measurement| {
        (line.record_bytes, line.batch_records, line.producers, line.outstanding, line.shards)
    };
    let who = |line: &Measurement| (line.durability, line.media_within_ms, part(line));
    // A different number of streams is a different thing, also where no label says so.
    let streams = |line: &Measurement| line.detail.get("streams").map(|n| n.to_bits());
    let name = |line: &'a Measurement| {
        (&line.bench, &line.dir, &line.engine, &line.mode, line.label.as_deref())
    };
    name(a) == name(b)
        && many(a) == many(b)
        && who(a) == who(b)
        && streams(a) == streams(b)
        // A round is counted once: what comes again in one is another point of the same look.
        && a.round != b.round
}

/// The rows of one run, in the order in which they came.
///
/// # Errors
/// A histogram that is none.
pub(super) fn rows(measurements: &[Measurement]) -> Result<Vec<Row<'_>>, String> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for line in measurements {
        let at = match rows.iter().position(|row| row.rounds.iter().all(|one| same(one, line))) {
            Some(at) => at,
            None => {
                let (latency, flush) = (new_histogram(), new_histogram());
                rows.push(Row { rounds: Vec::new(), latency, flush });
                rows.len() - 1
            }
        };
        let row = &mut rows[at];
        merge(&mut row.latency, line.latency_hdr.as_deref())?;
        merge(&mut row.flush, line.flush_hdr.as_deref())?;
        row.rounds.push(line);
    }
    Ok(rows)
}

fn merge(into: &mut Histogram<u64>, text: Option<&str>) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    into.add(decode(text)?).map_err(|error| format!("histogram: {error}"))
}
