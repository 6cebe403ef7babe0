//! Hours of load, with a report.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ringlog_sim::live::child::{Programs, Stop, Trouble};
use ringlog_sim::soak::{Settings, run as run_soak};

use super::code;

/// A log under steady load of many clients, with kills and power cuts in between, and a report.
///
/// Exit code 0: nothing was lost, nothing hung, and memory, descriptors, threads and disk are flat;
/// 1: something was wrong; 2: the suite had trouble, or something hangs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// So many hours …
    #[arg(long, value_name = "H", default_value_t = 0.0)]
    hours: f64,
    /// … and so many minutes [default without both: 10 minutes].
    #[arg(long, value_name = "M", default_value_t = 0.0)]
    minutes: f64,
    /// Clients, each with one append outstanding.
    #[arg(long, value_name = "N", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,
    /// Appends a second, of all clients together.
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// An append that takes so many seconds hangs.
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    hang: f64,
    /// Look at memory, descriptors, threads and disk every so many seconds.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    every: f64,
    /// Decides the bytes of the records.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The log is made below this directory [default: RINGLOG_TEST_DIR, else the temporary one].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// No power cuts in between.
    #[arg(long)]
    no_power_cuts: bool,
    /// The command-line tool; without, `ringlog` beside this program.
    #[arg(long, value_name = "FILE")]
    ringlog: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(code) => code,
        Err(trouble) => {
            println!("soak: {trouble}");
            ExitCode::from(2)
        }
    }
}

fn seconds(value: f64, name: &str) -> Result<Duration, Trouble> {
    let span = Duration::try_from_secs_f64(value).ok().filter(|span| !span.is_zero());
    span.ok_or_else(|| Trouble::Failed(format!("{name}: {value} seconds are no time")))
}

fn try_run(args: &Args) -> Result<ExitCode, Trouble> {
    let stop = Stop::on_signals()?;
    let programs = Programs::find(args.ringlog.clone())?;
    let asked = (args.hours * 60.0 + args.minutes) * 60.0;
    let dir = args.dir.clone().or_else(|| std::env::var_os("RINGLOG_TEST_DIR").map(PathBuf::from));
    let settings = Settings {
        length: seconds(if asked == 0.0 { 600.0 } else { asked }, "--hours and --minutes")?,
        clients: args.clients,
        rate: args.rate,
        hang: seconds(args.hang, "--hang")?,
        every: seconds(args.every, "--every")?,
        seed: args.seed,
        dir: dir.unwrap_or_else(std::env::temp_dir),
        power_cuts: !args.no_power_cuts,
    };
    println!("soak in {}, seed {}", settings.dir.display(), args.seed);
    let (mut report, result) = run_soak(&settings, &programs, &stop);
    match result {
        Ok(()) => {
            let good = report.conclude();
            print!("{report}");
            Ok(code(good))
        }
        Err(Trouble::Interrupted) => {
            print!("{report}");
            println!("soak: interrupted");
            Ok(ExitCode::from(stop.exit_code()))
        }
        Err(trouble) => {
            print!("{report}");
            Err(trouble)
        }
    }
}
