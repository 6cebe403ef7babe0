//! `ringlog stats`: what can be known about a log from its files. What its writer has counted is
//! in the writer's process; of the one of `append`, it is in the summary.

use clap::Args;
use ringlog::{Inspection, Options, RecoveryMode, RecoveryReport, ShardStats, Stats};
use serde_json::{Value, json};

use crate::output::{self, Exit, Failure, Messages};
use crate::profile_disk;
use crate::text::{bytes, escape, table};

/// Show sizes, counts, what a recovery would find, and how the log reaches its disk; changing and
/// locking nothing.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    dir: crate::Dir,
}

/// Runs the command.
pub(crate) fn run(args: &StatsArgs, messages: Messages) -> Result<Exit, Failure> {
    let options =
        Options { create: false, recovery: RecoveryMode::ReadOnly, ..Options::from_env()? };
    let log = output::open_log(&args.dir.dir, options, messages)?;
    let stats = log.stats();
    messages.notes(&stats.notes);
    let totals = Totals::of(&ringlog::inspect(&args.dir.dir)?);
    if messages.json() {
        output::print_json(&stats_json(&totals, &stats, log.recovery_report()))?;
    } else {
        output::print(&stats_text(&totals, &stats, log.recovery_report()))?;
    }
    Ok(Exit::Done)
}

/// Sums over all shards.
#[derive(Debug, Default)]
struct Totals {
    shards: usize,
    streams: usize,
    segments: usize,
    records: u64,
    bytes: u64,
}

impl Totals {
    fn of(inspection: &Inspection) -> Self {
        let mut totals = Self { shards: inspection.shards.len(), ..Self::default() };
        for shard in &inspection.shards {
            totals.streams += shard.streams.len();
            totals.segments += shard.segments.len();
            totals.records += shard.streams.iter().map(|stream| stream.records).sum::<u64>();
            totals.bytes += shard.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        }
        totals
    }
}

fn stats_json(totals: &Totals, stats: &Stats, recovery: &RecoveryReport) -> Value {
    let recovery: Vec<Value> = recovery
        .shards
        .iter()
        .map(|shard| {
            json!({
                "shard": shard.shard,
                "segments": shard.segments,
                "records": shard.records,
                "bytes_scanned": shard.bytes_scanned,
                "bytes_cut": shard.bytes_cut,
                "cut_reason": shard.cut_reason,
                "records_rewritten": shard.records_rewritten,
                "clean": shard.clean,
                "elapsed_s": shard.elapsed.as_secs_f64(),
                "corruptions":
                    shard.corruptions.iter().map(output::corruption_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    let ends: Vec<Value> = stats
        .shards
        .iter()
        .map(|shard| {
            json!({
                "shard": shard.shard,
                "epoch": shard.epoch.0,
                "segments": shard.segments,
                "durable_lsn": shard.durable_lsn.0,
            })
        })
        .collect();
    json!({
        "shards": totals.shards,
        "streams": totals.streams,
        "segments": totals.segments,
        "records": totals.records,
        "bytes": totals.bytes,
        "io": stats.io,
        "direct": stats.direct,
        "file_system": stats.file_system,
        "commit_primitive": stats.commit_primitive,
        "settings": profile_disk::settings_json(&stats.settings),
        "profile": stats.profile.as_ref().map(profile_disk::profile_json),
        "notes": stats.notes,
        "log_id": stats.log_id.to_string(),
        "segment_bytes": stats.segment_bytes,
        "ends": ends,
        "recovery": recovery,
    })
}

/// What a writer of this process has done: sums over its shards.
pub(crate) fn work_json(stats: &Stats) -> Value {
    let sum = |of: fn(&ShardStats) -> u64| stats.shards.iter().map(of).sum::<u64>();
    let flushes = stats.flush_latency();
    let us = |ns: u64| ns as f64 / 1e3;
    json!({
        "commits": sum(|shard| shard.commits),
        "flushes": sum(|shard| shard.flushes),
        "flush_failures": sum(|shard| shard.flush_failures),
        "flush_us_mean": flushes.mean() / 1e3,
        "flush_us_p50": us(flushes.value_at_quantile(0.5)),
        "flush_us_p99": us(flushes.value_at_quantile(0.99)),
        "flush_us_max": us(flushes.max()),
        "rotations": sum(|shard| shard.rotations),
        "device_bytes": sum(ShardStats::bytes_to_device),
        "write_amplification": stats.write_amplification(),
        "rejected_memory": sum(|shard| shard.rejections.memory),
        "rejected_disk": sum(|shard| shard.rejections.disk),
    })
}

fn stats_text(totals: &Totals, stats: &Stats, recovery: &RecoveryReport) -> String {
    let mut text = format!(
        "{} records of {} streams in {} segments of {} shards, {}\n\
         I/O: {}, {}, {}\n",
        totals.records,
        totals.streams,
        totals.segments,
        totals.shards,
        bytes(totals.bytes),
        stats.io,
        if stats.direct { "direct" } else { "through the page cache" },
        escape(&stats.file_system),
    );
    text += &match &stats.profile {
        Some(profile) => format!("disk: {}\n", profile_disk::class_text(profile)),
        None => "disk: not measured\n".to_owned(),
    };
    text += &table(&["setting", "value", "why"], &profile_disk::setting_rows(&stats.settings));
    for shard in &stats.shards {
        text += &format!(
            "shard {}: epoch {}, {} segments with records, durable to LSN {}\n",
            shard.shard, shard.epoch.0, shard.segments, shard.durable_lsn.0
        );
    }
    for shard in &recovery.shards {
        text += &format!(
            "recovery of shard {}: {}, {} records found in {} segments, {} scanned in {:.3} s\n",
            shard.shard,
            if shard.clean { "closed cleanly" } else { "not closed cleanly" },
            shard.records,
            shard.segments,
            bytes(shard.bytes_scanned),
            shard.elapsed.as_secs_f64()
        );
        if shard.bytes_cut > 0 {
            let reason = shard.cut_reason.as_deref().unwrap_or("unknown");
            text += &format!("  {} cut: {}\n", bytes(shard.bytes_cut), escape(reason));
        }
        for corruption in &shard.corruptions {
            text += &format!("  damage: {}\n", escape(&corruption.to_string()));
        }
    }
    text
}
