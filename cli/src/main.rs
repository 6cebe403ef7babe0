//! The operator's tool. This file joins arguments and commands, and turns what came of a command
//! into an exit code; it knows nothing of what the commands do.
//!
//! Invariants: a command changes a log only when its name says so (`append`, `import`,
//! `repair`, `trim`, `retain`, `rotate`, `index rebuild`); a closed pipe ends the program quietly; nothing that a file, a disk or a user can
//! cause makes it panic.

mod acks;
mod append;
mod appender;
mod completions;
mod dump;
mod export;
mod feed;
mod import;
mod index;
mod input;
mod inspect;
mod output;
mod profile_disk;
mod read;
mod record;
mod repair;
mod rotate;
mod stats;
mod stop;
mod streams;
mod tail;
mod text;
mod trim;
mod values;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use output::Messages;

const EXIT_CODES: &str = "\
Exit codes:
  0    done; for verify: the log is sound
  1    the operation failed; for verify: the log is damaged; for what reads: records are missing
  2    wrong usage, or the command could not begin (no log, locked, no permission)
  130  interrupted (SIGINT): append and import have acknowledged what the summary counts, tail has
       written whole records

A closed pipe (`ringlog read … | head`) is a normal end: exit code 0.

Environment: RINGLOG_DURABILITY, RINGLOG_SYNC, RINGLOG_IO and one variable for every other option
(docs/operations.md lists them). A flag wins over the environment.";

/// Appends to, reads, checks and repairs ringlog logs.
#[derive(Debug, Parser)]
#[command(name = "ringlog", version, after_help = EXIT_CODES)]
struct Cli {
    /// Output for machines: JSON on stdout, and each message on stderr as a JSON object.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::AppendArgs),
    Read(read::ReadArgs),
    Tail(tail::TailArgs),
    Dump(dump::DumpArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Streams(streams::StreamsArgs),
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Repair(repair::RepairArgs),
    Index(index::IndexArgs),
    Stats(stats::StatsArgs),
    ProfileDisk(profile_disk::ProfileDiskArgs),
    Trim(trim::TrimArgs),
    Retain(trim::RetainArgs),
    Rotate(rotate::RotateArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

/// The directory of the log.
#[derive(Args, Debug)]
struct Dir {
    /// The directory of the log.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let messages = Messages::new(cli.json);
    let result = match &cli.command {
        Command::Append(args) => append::run(args, messages),
        Command::Read(args) => read::run(args, messages),
        Command::Tail(args) => tail::run(args, messages),
        Command::Dump(args) => dump::run(args, messages),
        Command::Export(args) => export::run(args, messages),
        Command::Import(args) => import::run(args, messages),
        Command::Streams(args) => streams::run(args, messages),
        Command::Inspect(args) => inspect::run(args, messages),
        Command::Verify(args) => verify::run(args, messages),
        Command::Repair(args) => repair::run(args, messages),
        Command::Index(args) => index::run(args, messages),
        Command::Stats(args) => stats::run(args, messages),
        Command::ProfileDisk(args) => profile_disk::run(args, messages),
        Command::Trim(args) => trim::trim(args, messages),
        Command::Retain(args) => trim::retain(args, messages),
        Command::Rotate(args) => rotate::run(args, messages),
        Command::Completions(args) => completions::completions(args, Cli::command()),
        Command::Man(args) => completions::man(args, Cli::command()),
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => failure.report(messages),
    }
}
