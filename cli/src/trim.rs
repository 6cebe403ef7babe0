//! `ringlog trim`: drops the oldest sealed segments.

use clap::Args;
use ringlog::{Log, Options};
use serde_json::json;

use crate::output::{self, Exit, Failure, Messages};
use crate::text::bytes;

/// Drop the oldest sealed segments of every shard, for good.
#[derive(Args, Debug)]
pub(crate) struct TrimArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// How many sealed segments each shard keeps.
    #[arg(long, value_name = "N")]
    keep_segments: usize,
}

/// Runs the command.
pub(crate) fn run(args: &TrimArgs, messages: Messages) -> Result<Exit, Failure> {
    let log = Log::open(&args.dir.dir, Options { create: false, ..Options::from_env()? })?;
    messages.notes(&log.stats().notes);
    let trimmed = log.trim(args.keep_segments).and_then(|report| log.close().map(|()| report));
    let report = trimmed.map_err(|error| Failure::Failed(error.to_string()))?;
    if messages.json() {
        output::print_json(&json!({ "segments": report.segments, "bytes": report.bytes }))?;
    } else {
        output::print(&format!("{} segments trimmed, {}\n", report.segments, bytes(report.bytes)))?;
    }
    Ok(Exit::Done)
}
