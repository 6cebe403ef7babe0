//! The fuzz targets without a fuzzer: their seeds, single inputs, and inputs that are merely random.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use ringlog_sim::Rng;
use ringlog_sim::fuzz::{TARGETS, Target, inputs, replay, seeds};

use super::code;

/// What to do.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Write the seeds that every run of the fuzzer begins with.
    Seeds {
        /// Where to: a directory for each target is made there.
        dir: PathBuf,
        /// A log as real files.
        #[arg(long, default_value = "engine/tests/golden/v1/log")]
        golden: PathBuf,
    },
    /// Run every target on the inputs in DIR/NAME.
    Replay {
        /// Directories of such directories.
        dirs: Vec<PathBuf>,
    },
    /// Run one target on its inputs in DIR/TARGET, to the first that is wrong.
    Kept {
        /// The name of the target.
        target: String,
        /// Directories of such directories.
        dirs: Vec<PathBuf>,
    },
    /// Run one target on one input.
    One {
        /// The name of the target.
        target: String,
        /// The input.
        file: PathBuf,
    },
    /// Run targets on random inputs. Far weaker than the fuzzer, which looks where they lead.
    Random {
        /// Only this target.
        #[arg(long)]
        target: Option<String>,
        /// How many inputs of each target.
        #[arg(long, default_value_t = 1000)]
        runs: u64,
        /// Decides them.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let done = match &args.what {
        What::Seeds { dir, golden } => seeds(dir, golden).map(|count| println!("{count} seeds")),
        What::Replay { dirs } => dirs.iter().try_for_each(|dir| {
            replay(dir).map(|counts| println!("{}: {counts:?}", dir.display()))
        }),
        What::Kept { target, dirs } => kept(target, dirs),
        What::One { target, file } => std::fs::read(file).map(|input| {
            named(Some(target)).for_each(|(_, run)| run(&input));
        }),
        What::Random { target, runs, seed } => {
            named(target.as_deref()).for_each(|target| random(target, *runs, *seed));
            Ok(())
        }
    };
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    code(done.is_ok())
}

fn named(name: Option<&str>) -> impl Iterator<Item = Target> {
    TARGETS.into_iter().filter(move |(known, _)| name.is_none_or(|name| name == *known))
}

/// Tells the input that is wrong, and fails.
fn kept(target: &str, dirs: &[PathBuf]) -> std::io::Result<()> {
    let (mut files, mut wrong) = (Vec::new(), None);
    for dir in dirs {
        files.extend(inputs(target, dir)?);
    }
    for (name, run) in named(Some(target)) {
        wrong = files.iter().find(|file| {
            std::fs::read(file)
                .map_or(true, |input| std::panic::catch_unwind(|| run(&input)).is_err())
        });
        println!("{name}: {} inputs", files.len());
    }
    match wrong {
        None => Ok(()),
        Some(file) => {
            println!("WRONG: {}", file.display());
            Err(std::io::Error::other(format!("{target}: a promise is broken")))
        }
    }
}

fn random((name, run): Target, runs: u64, seed: u64) {
    let started = Instant::now();
    for number in 0..runs {
        let mut rng = Rng::new(seed ^ number << 20);
        let bytes = rng.index(200);
        let input: Vec<u8> = (0..bytes).map(|_| rng.index(256) as u8).collect();
        let told = std::panic::catch_unwind(|| run(&input));
        if let Err(panic) = told {
            eprintln!("{name}: input {number} of seed {seed}: {input:?}");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{name}: {runs} inputs, {:.1} s", started.elapsed().as_secs_f64());
}
