//! Live power cuts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringlog_sim::live::child::{Programs, Stop, Trouble};
use ringlog_sim::powercut::mounts::{self, FileSystem};
use ringlog_sim::powercut::{Control, Settings, run as run_cuts};

use super::code;

/// Set for the process that is already in a mount namespace of its own.
const INSIDE: &str = "RINGLOG_SIM_INSIDE";
/// The exit code of a suite that this machine cannot run.
const SKIPPED: u8 = 77;

/// Cut the power under the real log, on real file systems: needs root, FUSE and loop devices.
///
/// Exit code 0: nothing was wrong; 1: something was; 2: the rig had trouble; 77: this machine
/// cannot do it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many power cuts.
    #[arg(long, value_name = "N", default_value_t = 30)]
    cuts: u64,
    /// Go on for so many minutes, however many cuts that are.
    #[arg(long, value_name = "M", value_parser = super::minutes)]
    minutes: Option<Duration>,
    /// Decides what is decided by chance.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only disks with this seed, as a finding or --verbose names it.
    #[arg(long, value_name = "S")]
    disk: Option<u64>,
    /// On which file systems, in turn.
    #[arg(long, value_delimiter = ',', default_value = "ext4,xfs,btrfs")]
    fs: Vec<FileSystem>,
    /// Be wrong on purpose: exit code 0 means that this was noticed.
    #[arg(long)]
    control: Option<Control>,
    /// The command-line tool; without, `ringlog` beside this program.
    #[arg(long, value_name = "FILE")]
    ringlog: Option<PathBuf>,
    /// Tell each life.
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    if std::env::var_os(INSIDE).is_none() {
        if let Some(why) = mounts::missing() {
            println!("power-cuts SKIPPED: {why}");
            return ExitCode::from(SKIPPED);
        }
        println!("power-cuts: {}", mounts::enter_namespace(INSIDE));
        return ExitCode::from(2);
    }
    match run_inside(args) {
        Ok(code) => code,
        Err(trouble) => {
            println!("power-cuts: {trouble}");
            ExitCode::from(2)
        }
    }
}

fn run_inside(args: &Args) -> Result<ExitCode, Trouble> {
    let stop = Stop::on_signals()?;
    let programs = Programs::find(args.ringlog.clone())?;
    let mut file_systems = args.fs.clone();
    file_systems.retain(|file_system| match file_system.missing() {
        None => true,
        Some(why) => {
            println!("power-cuts on {file_system} SKIPPED: {why}");
            false
        }
    });
    if file_systems.is_empty() {
        return Ok(ExitCode::from(SKIPPED));
    }
    let until = args.minutes.map(|minutes| Instant::now() + minutes);
    let settings = Settings {
        cuts: if until.is_some() { 0 } else { args.cuts },
        until,
        seed: args.seed,
        disk: args.disk,
        file_systems,
        control: args.control,
        verbose: args.verbose,
    };
    println!("power-cuts, seed {}", args.seed);
    let (report, result) = run_cuts(&settings, &programs, &stop);
    print!("{report}");
    match result {
        Ok(()) => {}
        Err(Trouble::Interrupted) => {
            println!("power-cuts: interrupted");
            return Ok(ExitCode::from(stop.exit_code()));
        }
        // A log or a file system that hangs is a finding.
        Err(trouble) => {
            println!("power-cuts: {trouble}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(match args.control {
        None => code(report.findings.good()),
        Some(control) => {
            let noticed = report.findings.lost > 0;
            let what = if noticed { "noticed, as it must be" } else { "NOT NOTICED" };
            println!("control {control:?}: {what}");
            code(noticed)
        }
    })
}
