//! `kill -9`, with an external journal of acknowledgements.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringlog_sim::live::child::{Programs, Stop, Trouble};
use ringlog_sim::live::kills::{Settings, run as run_kills};

use super::code;

/// Kill the process under the real log, on any directory; no root needed.
///
/// Exit code 0: nothing was wrong; 1: something was; 2: the suite had trouble.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many kills.
    #[arg(long, value_name = "N", default_value_t = 100)]
    kills: u64,
    /// Go on for so many minutes, however many kills that are.
    #[arg(long, value_name = "M", value_parser = super::minutes)]
    minutes: Option<Duration>,
    /// Decides what is decided by chance.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The logs are made below this directory [default: RINGLOG_TEST_DIR, else the temporary one].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Be wrong on purpose, and put an older copy of the log back: exit code 0 means that the loss was
    /// noticed.
    #[arg(long)]
    control: bool,
    /// The command-line tool; without, `ringlog` beside this program.
    #[arg(long, value_name = "FILE")]
    ringlog: Option<PathBuf>,
    /// Tell each life.
    #[arg(long)]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(code) => code,
        Err(trouble) => {
            println!("kills: {trouble}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: &Args) -> Result<ExitCode, Trouble> {
    let stop = Stop::on_signals()?;
    let programs = Programs::find(args.ringlog.clone())?;
    let dir = args.dir.clone().or_else(|| std::env::var_os("RINGLOG_TEST_DIR").map(PathBuf::from));
    let until = args.minutes.map(|minutes| Instant::now() + minutes);
    let settings = Settings {
        kills: if until.is_some() { 0 } else { args.kills },
        until,
        seed: args.seed,
        dir: dir.unwrap_or_else(std::env::temp_dir),
        control: args.control,
        verbose: args.verbose,
    };
    println!("kills in {}, seed {}", settings.dir.display(), args.seed);
    let (report, result) = run_kills(&settings, &programs, &stop);
    print!("{report}");
    match result {
        Ok(()) if args.control => {
            let noticed = report.findings.lost > 0;
            let what = if noticed { "noticed, as it must be" } else { "NOT NOTICED" };
            println!("control: {what}");
            Ok(code(noticed))
        }
        Ok(()) => Ok(code(report.findings.good())),
        Err(Trouble::Interrupted) => {
            println!("kills: interrupted");
            Ok(ExitCode::from(stop.exit_code()))
        }
        Err(trouble) => Err(trouble),
    }
}
