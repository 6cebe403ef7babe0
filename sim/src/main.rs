//! The command of the suites that are too long for `cargo test`: histories by their seeds, and one
//! sub-command for each other suite.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{
    bit_flips, crash_states, errors, fuzz, histories, kills, mutants, power_cuts, soak,
};
use ringlog_sim::live::agent;
use ringlog_sim::soak::clients;

/// Runs ringlog in a simulated world: one history by its seed, told in words, or many.
#[derive(Parser)]
#[command(name = "ringlog-sim", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    histories: histories::Args,
    #[command(subcommand)]
    suite: Option<Suite>,
}

/// The other suites.
#[derive(Subcommand)]
enum Suite {
    /// Every bit of a closed log flipped once: nothing silent, nothing wrong.
    BitFlips(bit_flips::Args),
    /// Every operation of short histories meets every error.
    Errors(errors::Args),
    /// Bugs planted on purpose, each of which some layer of the suite must notice.
    Mutants(mutants::Args),
    PowerCuts(power_cuts::Args),
    Kills(kills::Args),
    /// One life of a log, as kills and power-cuts start it.
    #[command(hide = true)]
    Agent(agent::Args),
    Soak(soak::Args),
    /// The log and the clients of a soak.
    #[command(hide = true)]
    SoakClients(clients::Args),
    /// The fuzz targets without a fuzzer: seeds, replay, random inputs.
    Fuzz(fuzz::Args),
    /// Every state that a power cut may leave of small workloads, recovered and judged.
    CrashStates(crash_states::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.suite {
        None => histories::run(&cli.histories),
        Some(Suite::Errors(args)) => errors::run(&args),
        Some(Suite::Mutants(args)) => mutants::run(&args),
        Some(Suite::PowerCuts(args)) => power_cuts::run(&args),
        Some(Suite::Kills(args)) => kills::run(&args),
        Some(Suite::Agent(args)) => agent::run(&args),
        Some(Suite::Soak(args)) => soak::run(&args),
        Some(Suite::SoakClients(args)) => clients::run(&args),
        Some(Suite::Fuzz(args)) => fuzz::run(&args),
        Some(Suite::BitFlips(args)) => bit_flips::run_suite(&args),
        Some(Suite::CrashStates(args)) => crash_states::run_suite(&args),
    }
}
