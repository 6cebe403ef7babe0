//! The command line.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Failure;
use crate::run::Io;
use crate::{
    compare, environment, figures, filler, floors, load, page, read, recover, rotate, scale,
    streams,
};

/// Measures ringlog beside what the disk does without it
#[derive(Debug, Parser)]
#[command(name = "ringlog-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the durability modes on one or more directories, one after the other
    Compare(compare::Arguments),
    /// Compare directories: the same modes on all of them in turns, side by side
    Disks(compare::Arguments),
    /// Measure what the disk does without a log: bare commits by size, sequential writes and reads
    Floor(floors::Arguments),
    /// Latency against load: arrivals by themselves at parts of saturation
    Load(load::Arguments),
    /// More and more threads, receipts in flight, shards, bytes of a record
    Scale(scale::Arguments),
    /// From one stream to a million
    Streams(streams::Arguments),
    /// Opening a log: after a kill, and after a clean close
    Recover(recover::Arguments),
    /// Reading back: at random places, one stream of many, a whole log, and following
    Read(read::Arguments),
    /// Appends while segments come and go, and followers read
    Rotate(rotate::Arguments),
    /// Measure the project's figures, each as a ratio to its floor, round by round
    Figures(figures::Arguments),
    /// Make one HTML page of JSON lines: tables, charts, and a recommendation
    Report(page::Arguments),
    /// Measure what else one could keep a log in, beside ringlog
    #[cfg(feature = "rivals")]
    Rivals(crate::rivals::Arguments),
    /// Measure what else one could keep a log in, beside ringlog (not built in)
    #[cfg(not(feature = "rivals"))]
    Rivals {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        rest: Vec<std::ffi::OsString>,
    },
    /// One piece of work of `rivals`, in a process of its own
    #[cfg(feature = "rivals")]
    #[command(hide = true)]
    RivalWork { order: String, answer: PathBuf },
    /// Fill a log until killed: the other half of the recovery figure
    #[command(hide = true)]
    FillUntilKilled {
        dir: PathBuf,
        bytes: u64,
        #[arg(value_enum)]
        io: Io,
    },
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the report has seen enough.
        Err(Failure::Reporting(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failure::Reporting(error)) => fail(&format!("cannot write the report: {error}")),
        Err(Failure::Measuring(what)) => fail(&what),
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("ringlog-bench: {what}");
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<(), Failure> {
    // What fills a log is to die when it is killed.
    if !matches!(command, Command::FillUntilKilled { .. }) {
        environment::stop_on_interrupt()?;
    }
    match command {
        Command::Compare(all) => all.run.in_each_dir("compare", &all, compare::run_in),
        Command::Disks(all) => compare::disks(&all, &mut all.run.begin("disks")?),
        Command::Floor(all) => all.run.in_each_dir("floor", &all, floors::run_in),
        Command::Load(all) => all.run.in_each_dir("load", &all, load::run_in),
        Command::Scale(all) => all.run.in_each_dir("scale", &all, scale::run_in),
        Command::Streams(all) => all.run.in_each_dir("streams", &all, streams::run_in),
        Command::Recover(all) => all.run.in_each_dir("recover", &all, recover::run_in),
        Command::Read(all) => all.run.in_each_dir("read", &all, read::run_in),
        Command::Rotate(all) => all.run.in_each_dir("rotate", &all, rotate::run_in),
        Command::Figures(all) => all.run.in_each_dir("figures", &all, figures::run_in),
        Command::Report(arguments) => page::run(&arguments),
        #[cfg(feature = "rivals")]
        Command::Rivals(all) => all.run.in_each_dir("rivals", &all, crate::rivals::run_in),
        #[cfg(not(feature = "rivals"))]
        Command::Rivals { rest: _ } => Err(Failure::Measuring(
            "the rivals are not built in: cargo run --release -p bench-harness --features rivals -- \
             rivals"
                .to_owned(),
        )),
        #[cfg(feature = "rivals")]
        Command::RivalWork { order, answer } => Ok(crate::rivals::work(&order, &answer)?),
        Command::FillUntilKilled { dir, bytes, io } => {
            Ok(filler::fill_until_killed(&dir, bytes, io.kind())?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mode::Mode;
    use crate::run::Appends;
    use clap::ValueEnum;
    use std::time::Duration;

    fn compare(line: &str) -> Result<compare::Arguments, clap::Error> {
        let words = ["ringlog-bench", "compare"].into_iter().chain(line.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| match arguments.command {
            Command::Compare(compare) => compare,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn defaults_are_those_of_the_first_look() {
        let arguments = compare("").unwrap();
        assert_eq!(arguments.modes, Mode::value_variants());
        let appends = arguments.appends;
        assert_eq!((appends.record_bytes, appends.producers, appends.outstanding), (256, 4, 1));
        assert_eq!(arguments.run.dirs(), [PathBuf::from(".")]);
        assert_eq!((arguments.run.rounds, arguments.run.max_bytes), (3, None));
        assert!(arguments.run.json.is_none() && arguments.run.hdr.is_none());
    }

    #[test]
    fn each_subcommand_has_its_own_defaults_of_what_is_appended() {
        let appends =
            |command: &str| match Arguments::parse_from(["ringlog-bench", command]).command {
                Command::Load(arguments) => arguments.appends,
                Command::Streams(arguments) => arguments.appends,
                Command::Rotate(arguments) => arguments.appends,
                other => panic!("{other:?}"),
            };
        for (command, expected) in
            [("load", (256, 2, 128)), ("streams", (256, 1, 256)), ("rotate", (4096, 1, 1))]
        {
            let Appends { record_bytes, producers, outstanding } = appends(command);
            assert_eq!((record_bytes, producers, outstanding), expected, "{command}");
        }
    }

    #[test]
    fn all_figures_are_measured_unless_some_are_chosen() {
        let arguments = Arguments::try_parse_from(["ringlog-bench", "figures"]).unwrap();
        let Command::Figures(figures) = arguments.command else { panic!("{arguments:?}") };
        assert_eq!(figures.only, figures::Figure::value_variants());
    }

    #[test]
    fn lists_and_repeats_are_taken() {
        let arguments =
            compare("--dir a --dir b --modes synced,memory --seconds 0.2 --io blocking").unwrap();
        assert_eq!(arguments.run.dirs(), [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(arguments.modes, [Mode::Synced, Mode::Memory]);
        assert_eq!(arguments.run.seconds, Duration::from_millis(200));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "--seconds 0",
            "--seconds nan",
            "--seconds -1",
            "--seconds 1e9",
            "--rounds 0",
            "--max-bytes 0",
            "--producers 0",
            "--outstanding 0",
            "--modes fast",
            "--io quick",
            "--record-bytes -1",
            "--record-bytes 8388609",
            "--producers 1025",
            "--outstanding 65537",
        ] {
            assert!(compare(line).is_err(), "{line}");
        }
    }
}
