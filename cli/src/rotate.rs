//! `ringlog rotate`: seals the open segments.

use clap::Args;
use ringlog::Options;
use serde_json::json;

use crate::output::{self, Exit, Failure, Messages};

/// Seal the open segment of every shard; later records go to new segments.
#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    dir: crate::Dir,
}

/// Runs the command.
pub(crate) fn run(args: &RotateArgs, messages: Messages) -> Result<Exit, Failure> {
    let log = output::open_log(
        &args.dir.dir,
        Options { create: false, ..Options::from_env()? },
        messages,
    )?;
    messages.notes(&log.stats().notes);
    log.rotate().and_then(|()| log.close()).map_err(|error| Failure::Failed(error.to_string()))?;
    if messages.json() {
        output::print_json(&json!({ "rotated": true }))?;
    } else {
        output::print("rotated\n")?;
    }
    Ok(Exit::Done)
}
