//! The statistics through the `metrics` facade, at the moment somebody asks for them.
//!
//! The writers know nothing of it: what they count anyway is read and handed on, so the way of a
//! record costs the same with the feature and without it.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::stats::{ShardStats, Stats};

/// What was handed on of the histograms of each shard, in the order of [`HISTOGRAMS`].
pub(crate) type Told = BTreeMap<u16, [Histogram<u64>; 3]>;

struct Metric<T> {
    name: &'static str,
    unit: Unit,
    what: &'static str,
    of: fn(&ShardStats) -> T,
}

macro_rules! metrics {
    ($($name:literal, $unit:ident, $what:literal, $of:expr;)+) => {
        &[$(Metric { name: $name, unit: Unit::$unit, what: $what, of: $of }),+]
    };
}

const COUNTERS: &[Metric<u64>] = metrics! {
    "ringlog_appended_records_total", Count, "Records taken from producers", |s| s.records_appended;
    "ringlog_appended_bytes_total", Bytes, "Payload taken from producers", |s| s.bytes_appended;
    "ringlog_acknowledged_records_total", Count, "Records acknowledged", |s| s.records_acknowledged;
    "ringlog_acknowledged_bytes_total", Bytes, "Payload acknowledged", |s| s.bytes_acknowledged;
    "ringlog_flushed_records_total", Count, "Records covered by a flush", |s| s.records_flushed;
    "ringlog_flushed_bytes_total", Bytes, "Payload covered by a flush", |s| s.bytes_flushed;
    "ringlog_batches_total", Count, "Batches written", |s| s.batches;
    "ringlog_commits_total", Count, "Writes that carried batches", |s| s.commits;
    "ringlog_flushes_total", Count, "Flushes completed", |s| s.flushes;
    "ringlog_flush_failures_total", Count, "Flushes that failed", |s| s.flush_failures;
    "ringlog_pressure_flushes_total", Count, "Early commits as memory ran low", |s| s.pressure_flushes;
    "ringlog_trimmed_segments_total", Count, "Segments trimmed", |s| s.trimmed_segments;
    "ringlog_recycled_segments_total", Count, "Segments made of trimmed ones", |s| s.recycled_segments;
    "ringlog_device_bytes_total", Bytes, "Bytes written by the log", ShardStats::bytes_to_device;
};

const GAUGES: &[Metric<f64>] = metrics! {
    "ringlog_queue_depth", Count, "Chunks on their way to the writer", |s| s.queue_depth as f64;
    "ringlog_last_flush_timestamp_seconds", Seconds, "Time of the last flush since 1970",
        |s| s.last_flush_ns as f64 / 1e9;
    "ringlog_recovery_seconds", Seconds, "How long opening took", |s| s.recovery_time.as_secs_f64();
    "ringlog_segments", Count, "Segments that hold records", |s| s.segments as f64;
    "ringlog_durable_lsn", Bytes, "Everything before this is durable", |s| s.durable_lsn.0 as f64;
    "ringlog_staged_lsn", Bytes, "Everything before this has its place", |s| s.staged_lsn.0 as f64;
    "ringlog_age_retention_paused", Count, "1 while nothing is trimmed by age after a clock jump",
        |s| f64::from(u8::from(s.age_retention_paused.is_some()));
};

const HISTOGRAMS: &[(Metric<Histogram<u64>>, f64)] = &[
    (
        Metric {
            name: "ringlog_flush_seconds",
            unit: Unit::Seconds,
            what: "How long flushes took, with the write they travelled with",
            of: |s| s.flush_latency.clone(),
        },
        1e-9,
    ),
    (
        Metric {
            name: "ringlog_commit_bytes",
            unit: Unit::Bytes,
            what: "Bytes of a commit",
            of: |s| s.commit_bytes.clone(),
        },
        1.0,
    ),
    (
        Metric {
            name: "ringlog_commit_records",
            unit: Unit::Count,
            what: "Records of a commit",
            of: |s| s.commit_records.clone(),
        },
        1.0,
    ),
];

const REJECTED: &str = "ringlog_rejected_appends_total";
const ROTATIONS: &str = "ringlog_rotations_total";

/// Hands on what `stats` say; of histograms, what has come since `told`.
pub(crate) fn record(log: &str, stats: &Stats, told: &mut Told) {
    describe();
    for shard in &stats.shards {
        let labels = [("log", log.to_owned()), ("shard", shard.shard.to_string())];
        for metric in COUNTERS {
            counter!(metric.name, &labels).absolute((metric.of)(shard));
        }
        for metric in GAUGES {
            gauge!(metric.name, &labels).set((metric.of)(shard));
        }
        let [log, number] = labels.clone();
        let with = |reason: &str| [log.clone(), number.clone(), ("reason", reason.to_owned())];
        for (reason, count) in shard.rejections.each() {
            counter!(REJECTED, &with(reason)).absolute(count);
        }
        for (reason, count) in super::by_reason(shard.rotations_by_reason) {
            counter!(ROTATIONS, &with(reason)).absolute(count);
        }
        let now = [0, 1, 2].map(|i: usize| (HISTOGRAMS[i].0.of)(shard));
        let before = told.insert(shard.shard, now.clone());
        for (i, (metric, scale)) in HISTOGRAMS.iter().enumerate() {
            let handle = histogram!(metric.name, &labels);
            for found in now[i].iter_recorded() {
                let value = found.value_iterated_to();
                let known = before.as_ref().map_or(0, |before| before[i].count_at(value));
                let new = found.count_at_value().saturating_sub(known);
                if new > 0 {
                    handle.record_many(value as f64 * scale, new as usize);
                }
            }
        }
    }
}

fn describe() {
    for metric in COUNTERS {
        describe_counter!(metric.name, metric.unit, metric.what);
    }
    for metric in GAUGES {
        describe_gauge!(metric.name, metric.unit, metric.what);
    }
    for (metric, _) in HISTOGRAMS {
        describe_histogram!(metric.name, metric.unit, metric.what);
    }
    describe_counter!(REJECTED, Unit::Count, "Appends refused, by reason");
    describe_counter!(ROTATIONS, Unit::Count, "Segments sealed, by reason");
}

/// Every name that [`record`] hands on.
#[cfg(test)]
pub(crate) fn names() -> Vec<&'static str> {
    let counters = COUNTERS.iter().map(|metric| metric.name);
    let gauges = GAUGES.iter().map(|metric| metric.name);
    let histograms = HISTOGRAMS.iter().map(|(metric, _)| metric.name);
    counters.chain(gauges).chain(histograms).chain([REJECTED, ROTATIONS]).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn operations_md_lists_every_metric() {
        let text = include_str!("../../../docs/operations.md");
        for name in super::names() {
            assert!(text.contains(&format!("`{name}`")), "docs/operations.md lacks {name}");
        }
    }
}
