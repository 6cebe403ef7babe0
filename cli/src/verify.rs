//! `ringlog verify`: every checksum of a log.

use std::path::Path;

use clap::Args;
use ringlog::{BadIndex, VerifyReport};
use serde_json::{Value, json};

use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::text::{bytes, escape};

/// Check every checksum of a log, changing nothing. Exit code 0: sound; 1: damaged (stdout says
/// where and what); 2: the check could not run. Indexes that are missing or wrong are listed, but
/// are no damage: readers make them anew (or `ringlog index rebuild` does).
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    dir: crate::Dir,
}

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs, messages: Messages) -> Result<Exit, Failure> {
    let report = verify(&args.dir.dir, messages)?;
    if messages.json() {
        output::print_json(&report_json(&report))?;
    } else {
        output::print(&report_text(&report))?;
    }
    Ok(if report.sound { Exit::Done } else { Exit::Bad })
}

/// Verifies with a progress bar.
pub(crate) fn verify(dir: &Path, messages: Messages) -> Result<VerifyReport, Failure> {
    let bar = messages.progress("verifying", Unit::Bytes, Some(0));
    Ok(ringlog::verify(dir, &mut |progress| bar.update(&progress))?)
}

/// The report as JSON.
pub(crate) fn report_json(report: &VerifyReport) -> Value {
    json!({
        "sound": report.sound,
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "bytes": report.bytes,
        "damage": report.damage.iter().map(output::corruption_json).collect::<Vec<_>>(),
        "bad_indexes": report.bad_indexes.iter().map(bad_index_json).collect::<Vec<_>>(),
        "notes": report.notes,
    })
}

/// A missing or wrong index as JSON.
pub(crate) fn bad_index_json(bad: &BadIndex) -> Value {
    json!({
        "shard": bad.shard,
        "segment": bad.segment.0,
        "missing": bad.missing,
        "what": bad.what,
    })
}

/// The report for people.
pub(crate) fn report_text(report: &VerifyReport) -> String {
    let mut text = format!(
        "{}: {} records in {} batches in {} segments, {}\n",
        if report.sound { "sound" } else { "DAMAGED" },
        report.records,
        report.batches,
        report.segments,
        bytes(report.bytes)
    );
    for damage in &report.damage {
        text += &format!("damage: {}\n", escape(&damage.to_string()));
    }
    for bad in &report.bad_indexes {
        text += &format!("index: {} (no record is affected)\n", escape(&bad.to_string()));
    }
    for note in &report.notes {
        text += &format!("note: {}\n", escape(note));
    }
    text
}
