//! Which charts a run has: by what it has measured.

use std::collections::BTreeSet;

use hdrhistogram::Histogram;

use super::chart::{Axis, Bar, COLOURS, Line, Scale, bars, count, histograms, lines, time};
use super::rows::Row;
use crate::measurement::Measurement;
use crate::percentile::{Drift, SAMPLES_BEYOND_MIN, quantile_ns};
use crate::report::{digits, times};

/// Steps of a percentile distribution for each halving of what lies beyond.
const STEPS_PER_HALVING: f64 = 5.0;
/// Marked on each distribution.
const MARKED: [u64; 5] = [5_000, 9_000, 9_900, 9_990, 9_999];

const RECORDS: Axis = Axis { name: "records/s", scale: Scale::Linear, text: count, ticks: None };
const LATENCY: Axis = Axis { name: "latency (log)", scale: Scale::Log, text: time, ticks: None };

/// All charts of the rows of one directory.
pub(super) fn of(bench: &str, rows: &[&Row<'_>]) -> String {
    match bench {
        "scale" => scale(rows),
        "load" => load(rows) + &latency(rows),
        "rivals" => rivals(rows) + &latency(rows),
        _ => latency(rows) + &flushes(rows),
    }
}

/// Latency by percentile, of so many rows a chart as there are colours.
fn latency(rows: &[&Row<'_>]) -> String {
    let works = works(rows);
    let mut text = String::new();
    for work in &works {
        let chunks = work.chunks(COLOURS);
        let (all, load) = (chunks.len(), work[0].load());
        for (number, chunk) in chunks.enumerate() {
            let mut title = format!("Latency by percentile: {load}");
            if all > 1 {
                title.push_str(&format!(" ({} of {all})", number + 1));
            }
            let of = |row: &&Row<'_>| distribution(row.short(), &row.latency);
            let ones: Vec<Line> = chunk.iter().map(of).collect();
            let beyond = Axis {
                name: "percentile (log of what lies beyond)",
                scale: Scale::Log,
                text: percentile,
                ticks: Some(vec![1.0, 2.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]),
            };
            text.push_str(&lines(&title, &beyond, &LATENCY, &ones));
        }
    }
    text
}

/// `1 / (1 - part)` as a percentile.
fn percentile(beyond: f64) -> String {
    let percent = 100.0 - 100.0 / beyond;
    format!("p{}", (percent * 1e5).round() / 1e5)
}

/// As far as [`SAMPLES_BEYOND_MIN`] samples lie beyond.
fn distribution(name: String, histogram: &Histogram<u64>) -> Line {
    let last = histogram.len() as f64 / SAMPLES_BEYOND_MIN as f64;
    let points = (0..)
        .map(|step| (f64::from(step) / STEPS_PER_HALVING).exp2())
        .take_while(|beyond| *beyond <= last)
        .map(|beyond| (beyond, histogram.value_at_quantile(1.0 - 1.0 / beyond) as f64))
        .collect();
    let marks = MARKED
        .iter()
        .filter_map(|of_10_000| {
            let beyond = 10_000.0 / (10_000 - of_10_000) as f64;
            Some((beyond, quantile_ns(histogram, *of_10_000)? as f64))
        })
        .collect();
    Line { name, points, marks: Some(marks) }
}

/// Rows that do the same thing, together.
fn works<'a, 'b>(rows: &[&'a Row<'b>]) -> Vec<Vec<&'a Row<'b>>> {
    let mut works: Vec<Vec<&Row<'_>>> = Vec::new();
    for row in rows {
        // Modes of one engine are set side by side whatever they promise.
        let same = |work: &&mut Vec<&Row<'_>>| match row.first().bench.as_str() {
            "rivals" => work[0].same_work(row),
            _ => work[0].load() == row.load(),
        };
        match works.iter_mut().find(same) {
            Some(work) => work.push(row),
            None => works.push(vec![row]),
        }
    }
    works
}

fn flushes(rows: &[&Row<'_>]) -> String {
    let mut text = String::new();
    for work in works(rows) {
        let all: Vec<_> = work.iter().map(|row| (row.short(), &row.flush)).collect();
        let title = format!("Time of a commit's write and flush: {}", work[0].load());
        text.push_str(&histograms(&title, &all));
    }
    text
}

fn point(x: f64, y: Option<f64>) -> Option<(f64, f64)> {
    Some((x, y?))
}

fn ns_at(row: &Row<'_>, of_10_000: u64) -> Option<f64> {
    quantile_ns(&row.latency, of_10_000).map(|ns| ns as f64)
}

fn load(rows: &[&Row<'_>]) -> String {
    let open: Vec<&&Row<'_>> = rows.iter().filter(|row| row.first().open_loop.is_some()).collect();
    let modes: BTreeSet<&str> = open.iter().map(|row| row.first().mode.as_str()).collect();
    let [mut rates, mut latencies] = [Vec::new(), Vec::new()];
    for mode in modes {
        let mut of: Vec<_> = open.iter().filter(|row| row.first().mode == mode).collect();
        let part = |row: &Row<'_>| row.first().open_loop.map_or(0.0, |o| o.part_of_saturation);
        of.sort_by(|a, b| part(a).total_cmp(&part(b)));
        let line = |name: String, y: &dyn Fn(&Row<'_>) -> Option<f64>| {
            let points = of.iter().filter_map(|row| point(part(row) * 100.0, y(row)));
            Line { name, points: points.collect(), marks: None }
        };
        rates.push(line(mode.to_owned(), &|row| row.rate().map(|rate| rate.median)));
        for (name, of_10_000) in [("p50", 5_000), ("p99", 9_900), ("p99.9", 9_990)] {
            latencies.push(line(format!("{mode} {name}"), &|row| ns_at(row, of_10_000)));
        }
    }
    let offered = || Axis {
        name: "load offered (% of saturation)",
        scale: Scale::Linear,
        text: |percent| format!("{percent:.0} %"),
        ticks: None,
    };
    lines("Throughput against load", &offered(), &RECORDS, &rates)
        + &lines(
            "Latency against load, from when an arrival was due",
            &offered(),
            &LATENCY,
            &latencies,
        )
}

/// ringlog against each rival: the ratio is of one round each.
fn rivals(rows: &[&Row<'_>]) -> String {
    let mut text = String::new();
    for mut work in works(rows) {
        // What no flush covers does not stand beside what is durable.
        work.retain(|row| !row.is_disqualified());
        work.sort_by(|a, b| {
            let rate = |row: &Row<'_>| row.rate().map_or(0.0, |rate| rate.median);
            rate(b).total_cmp(&rate(a))
        });
        let Some(first) = work.first() else { continue };
        let ours: Vec<&Measurement> = work
            .iter()
            .find(|row| row.first().engine == "ringlog" && !row.first().mode.contains("driven"))
            .map_or_else(Vec::new, |row| row.rounds.clone());
        let all: Vec<Bar> = work
            .iter()
            .filter_map(|row| {
                let rate = row.rate()?;
                let is_ours = row.first().engine == "ringlog";
                let ratio = row.each(|line| {
                    let beside = ours.iter().find(|one| one.round == line.round)?;
                    Some(beside.records_per_second / line.records_per_second)
                });
                let mut said = format!("{}/s", count(rate.median));
                if let Some(ratio) = ratio.filter(|_| !is_ours) {
                    said.push_str(&format!(" (ringlog {})", times(Some(ratio.median))));
                }
                let (low, high, value) = (rate.min, rate.max, rate.median);
                Some(Bar { name: row.short(), value, low, high, said, ours: is_ours })
            })
            .collect();
        let special = ["replay", "open"].iter().find(|mode| first.first().mode == **mode);
        let durable = if first.first().durability == crate::measurement::Class::Media {
            "each append durable"
        } else {
            "not durable"
        };
        let what = special.map_or(durable, |mode| *mode);
        let title = format!("ringlog and rivals: {}, {what}", first.load());
        text.push_str(&bars(&title, "records/s (the thin line: all rounds)", &all));
    }
    text
}

/// One thing that there is more and more of.
struct Over {
    name: &'static str,
    /// Where a row lies along it, if it does.
    at: fn(&Measurement) -> Option<u64>,
}

const OVER: [Over; 4] = [
    Over {
        name: "threads that each wait for their append (log)",
        at: |l| (l.outstanding == 1 && l.shards == 1).then_some(l.producers),
    },
    Over {
        name: "receipts in flight on two threads (log)",
        at: |l| (l.producers <= 2 && l.shards == 1).then_some(l.producers * l.outstanding),
    },
    Over {
        name: "shards, with four threads each (log)",
        at: |l| (l.outstanding == 64 && l.producers == 4 * l.shards).then_some(l.shards),
    },
    Over {
        name: "bytes of a record (log)",
        at: |l| ((l.producers, l.outstanding, l.shards) == (4, 1, 1)).then_some(l.record_bytes),
    },
];

fn scale(rows: &[&Row<'_>]) -> String {
    let mut text = String::new();
    for over in OVER {
        let bytes: BTreeSet<u64> = rows.iter().map(|row| row.first().record_bytes).collect();
        let by_bytes = over.name.starts_with("bytes");
        // Along that axis there is one line; along the others one for each size of a record.
        let sizes = if by_bytes { vec![None] } else { bytes.into_iter().map(Some).collect() };
        let [mut rates, mut latencies] = [Vec::new(), Vec::new()];
        for size in sizes {
            let mut on: Vec<(u64, &Row<'_>)> = rows
                .iter()
                .filter(|row| size.is_none_or(|size| row.first().record_bytes == size))
                .filter_map(|row| Some(((over.at)(row.first())?, *row)))
                .collect();
            on.sort_by_key(|(at, _)| *at);
            on.dedup_by_key(|(at, _)| *at);
            if on.len() < 2 {
                continue;
            }
            let what = size.map_or_else(|| "all sizes".to_owned(), |size| format!("{size} B"));
            let line = |name: String, y: &dyn Fn(&Row<'_>) -> Option<f64>| {
                let points = on.iter().filter_map(|(at, row)| point(*at as f64, y(row)));
                Line { name, points: points.collect(), marks: None }
            };
            rates.push(line(what.clone(), &|row| row.rate().map(|rate: Drift| rate.median)));
            latencies.push(line(format!("{what}, p50"), &|row| ns_at(row, 5_000)));
            latencies.push(line(format!("{what}, p99"), &|row| ns_at(row, 9_900)));
        }
        let axis = || Axis { name: over.name, scale: Scale::Log, text: count, ticks: None };
        let plain = over.name.trim_end_matches(" (log)");
        let records = Axis { name: "records/s (log)", scale: Scale::Log, ..RECORDS };
        text.push_str(&lines(&format!("Throughput by {plain}"), &axis(), &records, &rates));
        text.push_str(&lines(&format!("Latency by {plain}"), &axis(), &LATENCY, &latencies));
    }
    text
}

/// Minimum, median and maximum, one number where they are the same, or a dash.
pub(super) fn range(drift: Option<Drift>) -> String {
    drift.map_or_else(
        || "-".to_owned(),
        |d| match [d.min, d.median, d.max].map(digits) {
            [low, middle, high] if low == middle && middle == high => middle,
            [low, middle, high] => format!("{low} – {middle} – {high}"),
        },
    )
}
