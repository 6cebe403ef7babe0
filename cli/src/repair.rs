//! `ringlog repair`: gives up what is damaged, and says what that was.
//!
//! Invariant: without consent nothing is changed.

use clap::Args;
use ringlog::RepairReport;
use serde_json::{Value, json};

use crate::output::{self, Exit, Failure, Messages, Unit};
use crate::text::{bytes, escape};
use crate::verify;

/// Make a damaged log whole again, without what is damaged.
///
/// Damaged files are copied first; every lost offset is listed, and a gap stays in its place.
/// Without --yes nothing is changed: the damage is listed, and the exit code is 2.
#[derive(Args, Debug)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// Really repair.
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) fn run(args: &RepairArgs, messages: Messages) -> Result<Exit, Failure> {
    if !args.yes {
        return say_what_would_be_done(args, messages);
    }
    let bar = messages.progress("repairing", Unit::Bytes, Some(0));
    let report = ringlog::repair(&args.dir.dir, &mut |progress| bar.update(&progress))?;
    drop(bar);
    if messages.json() {
        output::print_json(&report_json(&report))?;
    } else {
        output::print(&report_text(&report))?;
    }
    Ok(Exit::Done)
}

fn say_what_would_be_done(args: &RepairArgs, messages: Messages) -> Result<Exit, Failure> {
    let report = verify::verify(&args.dir.dir, messages)?;
    let would = if report.sound {
        "the log is sound: repair would change nothing"
    } else {
        "repair would copy the damaged files, then give up the damaged batches and leave a gap \
         in their place; run it with --yes"
    };
    if messages.json() {
        let verify = verify::report_json(&report);
        output::print_json(&json!({ "repaired": false, "would": would, "verify": verify }))?;
    } else {
        output::print(&format!("{}{would}\n", verify::report_text(&report)))?;
    }
    Ok(Exit::NotDone)
}

fn report_json(report: &RepairReport) -> Value {
    let lost: Vec<Value> = report
        .lost
        .iter()
        .map(|lost| {
            json!({
                "stream": lost.stream,
                "first": lost.first.0,
                "next": lost.next.0,
            })
        })
        .collect();
    json!({
        "repaired": true,
        "segments_repaired": report.segments_repaired,
        "bytes_dropped": report.bytes_dropped,
        "backup": report.backup.as_ref().map(|path| path.to_string_lossy()),
        "lost": lost,
    })
}

fn report_text(report: &RepairReport) -> String {
    if !report.changed() {
        return "nothing to repair\n".to_owned();
    }
    let mut text = format!(
        "{} segments repaired, {} dropped\n",
        report.segments_repaired,
        bytes(report.bytes_dropped)
    );
    if let Some(backup) = &report.backup {
        text += &format!("the damaged files are kept in {}\n", escape(&backup.to_string_lossy()));
    }
    for lost in &report.lost {
        text += &format!(
            "lost: stream {}, offsets {} to before {}\n",
            escape(&lost.stream),
            lost.first,
            lost.next
        );
    }
    text
}
