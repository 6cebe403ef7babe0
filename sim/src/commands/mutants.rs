//! Bugs planted on purpose, each of which some layer of the suite must notice.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ringlog_sim::mutants::table::{self, Row};
use ringlog_sim::mutants::{Bugs, Plan, root, run as run_mutants};

use super::code;

/// Which bugs, and what becomes of the result.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this one; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How long a layer has to kill a bug.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// How many bugs run side by side.
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Forget what has killed a bug the last time: try all layers in their order.
    #[arg(long)]
    search: bool,
    /// Write docs/mutants.md anew.
    #[arg(long, conflicts_with = "only")]
    write: bool,
    /// Write the result to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// List the bugs of this build as JSON: none, unless it has the feature `mutants`.
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    if args.list {
        println!("{}", serde_json::to_string(&bugs()).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    match try_run(args) {
        Ok(well) => code(well),
        Err(why) => {
            println!("mutants: {why}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(args: &Args) -> Result<bool, String> {
    let start = Instant::now();
    let plan = Plan {
        only: args.only.clone(),
        limit: Duration::from_secs(args.seconds),
        jobs: args.jobs,
        search: args.search,
    };
    let summary = run_mutants(&plan, &tell)?;
    if args.write {
        let file = root().join(table::FILE);
        std::fs::write(&file, table::text(&summary.rows))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let Some(file) = &args.json {
        let json =
            serde_json::to_string_pretty(&summary.rows).map_err(|error| error.to_string())?;
        std::fs::write(file, json).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let survivors: Vec<&Row> = summary.survivors().collect();
    for row in &survivors {
        let layer = row.control.as_deref().unwrap_or("all layers");
        println!("SURVIVES {layer}: {}: {}", row.name, row.what);
    }
    for what in &summary.unsound {
        println!("WRONG: {what}");
    }
    let (all, killed) = (summary.rows.len(), summary.rows.len() - survivors.len());
    let controls = summary.rows.iter().filter(|row| row.control.is_some()).count();
    let slowest = summary.rows.iter().map(|row| row.seconds).fold(0.0, f64::max);
    println!("{:>22}: {}", "mutants", all - controls);
    println!("{:>22}: {controls}", "controls of layers");
    println!("{:>22}: {killed}", "killed");
    println!("{:>22}: {slowest:.1}", "seconds, the slowest");
    println!("{:>22}: {}", "fails without a bug", summary.unsound.len());
    println!("{:>22}: {:.0}", "seconds, in all", start.elapsed().as_secs_f64());
    Ok(all > 0 && killed == all && summary.unsound.is_empty())
}

fn tell(row: &Row) {
    let killer = match &row.killer {
        None => "nothing".to_owned(),
        Some(killer) => {
            let detail = killer.detail.as_deref().unwrap_or("as a whole");
            format!("{}, {detail}", killer.layer)
        }
    };
    println!("{:>7.2} s  {}: {killer}", row.seconds, row.name);
}

#[cfg(feature = "mutants")]
fn bugs() -> Bugs {
    use ringlog_sim::mutants::{Mutant, controls};
    let mutant = |name: &str, what: &str| Mutant { name: name.to_owned(), what: what.to_owned() };
    let all = ringlog_disk::planted::BUGS.iter();
    Bugs {
        mutants: all.map(|(_, name, what)| mutant(name, what)).collect(),
        controls: controls::all(),
    }
}

#[cfg(not(feature = "mutants"))]
fn bugs() -> Bugs {
    Bugs::default()
}
