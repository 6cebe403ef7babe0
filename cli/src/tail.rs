//! `ringlog tail`: records come out as lines while another process appends them.
//!
//! Invariants: the log is opened for reading only: no lock, no change; only what is durable is
//! written; what is written is flushed before anything is waited for; a signal and a closed pipe end
//! the program with all that was written.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use ringlog::{Follower, Offset, ReadError};

use crate::output::{self, Exit, Failure, Messages};
use crate::read;

/// How long a wait takes before stdout and signals are looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Write the records of a stream to stdout as they become durable, until interrupted.
///
/// The log may be written by another process, which may rotate, trim, end and begin again
/// meanwhile. The output is that of `read`, flushed whenever there is no more at the moment. Nothing
/// is changed or locked. Where records were trimmed before they were read, a note says so; where
/// some are damaged, an error does, and the exit code is 1 in the end.
#[derive(Args, Debug)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// The name of the stream, which must be there.
    #[arg(long, value_name = "NAME")]
    stream: String,
    /// The offset to begin at; 0 for the first one there is [default: the next record].
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// End after so many records.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &TailArgs, messages: Messages) -> Result<Exit, Failure> {
    let log = read::open(&args.dir, messages)?;
    let stream = log.existing_stream(&args.stream)?;
    let from = args.from.map_or_else(|| stream.next_offset(), Offset);
    let follower = stream.follow(from).map_err(|error| match error {
        ReadError::Disk(error) => Failure::Failed(error.to_string()),
        error => Failure::CouldNotRun(error.to_string()),
    })?;
    let interrupted = on_interrupt()?;
    follow(follower, args, &interrupted, messages)
}

fn follow(
    mut follower: Follower,
    args: &TailArgs,
    interrupted: &AtomicBool,
    messages: Messages,
) -> Result<Exit, Failure> {
    let mut out = output::stdout()?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut exit = Exit::Done;
    let mut wait = Duration::ZERO;
    let mut last_error = None;
    while left > 0 {
        if interrupted.load(Ordering::SeqCst) {
            exit = Exit::Interrupted;
            break;
        }
        match follower.next_ref_timeout(wait) {
            Ok(Some(record)) => {
                (wait, last_error) = (Duration::ZERO, None);
                left -= 1;
                read::write_record(&mut out, &record, messages.json())
                    .map_err(|error| Failure::stdout(&error))?;
                continue;
            }
            Ok(None) => {}
            Err(error) => {
                out.flush().map_err(|error| Failure::stdout(&error))?;
                match &error {
                    // Not asked for by offset, or asked for the beginning: nothing is amiss.
                    ReadError::Trimmed { .. } => messages.note(&error.to_string()),
                    _ => {
                        exit = Exit::Bad;
                        messages.error(&error.to_string());
                    }
                }
                if !read::goes_on(&error) || last_error.as_ref() == Some(&error) {
                    break;
                }
                last_error = Some(error);
                continue;
            }
        }
        if follower.is_finished() {
            break;
        }
        out.flush().map_err(|error| Failure::stdout(&error))?;
        if output::stdout_is_closed() {
            return Err(Failure::Closed);
        }
        wait = LOOK_EVERY;
    }
    out.flush().map_err(|error| Failure::stdout(&error))?;
    Ok(exit)
}

/// The first SIGINT ends the following; the second one ends the program at once.
fn on_interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(output::INTERRUPTED.into());
        }
    })
    .map_err(|error| Failure::CouldNotRun(format!("SIGINT cannot be caught: {error}")))?;
    Ok(interrupted)
}
