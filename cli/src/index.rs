//! `ringlog index rebuild`: indexes of sealed segments, made anew.

use clap::{Args, Subcommand};
use ringlog::IndexRebuildReport;
use serde_json::{Value, json};

use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::text::{bytes, escape};
use crate::verify::bad_index_json;

/// Tend the indexes of sealed segments.
#[derive(Args, Debug)]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    Rebuild(RebuildArgs),
}

/// Make each index anew that is missing or wrong. Readers do so by themselves when they need one;
/// this spares them the time. Exit code 1: some could not be made.
#[derive(Args, Debug)]
struct RebuildArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// Make all indexes anew, also those that seem right.
    #[arg(long)]
    all: bool,
}

/// Runs the command.
pub(crate) fn run(args: &IndexArgs, messages: Messages) -> Result<Exit, Failure> {
    let IndexCommand::Rebuild(args) = &args.command;
    let bar = messages.progress("indexing", Unit::Bytes, Some(0));
    let tell = &mut |progress: ringlog::Progress| bar.update(&progress);
    let report = ringlog::rebuild_indexes(&args.dir.dir, args.all, tell)?;
    drop(bar);
    if messages.json() {
        output::print_json(&report_json(&report))?;
    } else {
        output::print(&report_text(&report))?;
    }
    Ok(if report.failed.is_empty() { Exit::Done } else { Exit::Bad })
}

fn report_json(report: &IndexRebuildReport) -> Value {
    json!({
        "segments": report.segments,
        "rebuilt": report.rebuilt,
        "bytes_read": report.bytes_read,
        "bad": report.bad.iter().map(bad_index_json).collect::<Vec<_>>(),
        "failed": report.failed.iter().map(bad_index_json).collect::<Vec<_>>(),
    })
}

fn report_text(report: &IndexRebuildReport) -> String {
    let mut text = format!(
        "{} of {} indexes made anew, {} read\n",
        report.rebuilt,
        report.segments,
        bytes(report.bytes_read)
    );
    for bad in &report.bad {
        text += &format!("was bad: {}\n", escape(&bad.to_string()));
    }
    for failed in &report.failed {
        text += &format!("not made: {}\n", escape(&failed.to_string()));
    }
    text
}
