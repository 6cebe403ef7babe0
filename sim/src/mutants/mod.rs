//! The suite is itself tested: bugs are planted in the engine, one at a time, and the layers of
//! the suite run until one of them notices.
//!
//! The bugs are listed in `ringlog_disk::planted`. Each runs in processes of their own, which may
//! hang, abort or forget everything: [`watch`] gives them a limit and ends them with all that they
//! have started. A process that only hangs has noticed nothing. What has killed a bug the last time
//! stands in `docs/mutants.md` and is tried first; after that come all [`layers`], in their order.
//! What has killed something must pass without any bug, or it would prove nothing.
//!
//! Most bugs are noticed by the first layers, which says nothing of the others. So some layers have
//! controls: bugs that they must notice by themselves, whatever else does.
//!
//! It may not know how the engine works, nor what a bug does.

pub mod build;
#[cfg(feature = "mutants")]
pub mod controls;
pub mod layers;
pub mod table;
pub mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use build::Built;
use layers::{LAYERS, Layer};
use table::{Killer, Row};
use watch::End;

/// What is to be run, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only these bugs; empty: all.
    pub only: Vec<String>,
    /// How long the killing of a bug may take.
    pub limit: Duration,
    /// How many bugs run side by side.
    pub jobs: usize,
    /// Forgets what has killed a bug the last time.
    pub search: bool,
}

/// A bug, as the build that has it tells.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// What it does.
    pub what: String,
}

/// What a build with bugs knows of them.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Bugs {
    /// All of them.
    pub mutants: Vec<Mutant>,
    /// The names of a layer and of a bug that it must notice by itself.
    pub controls: Vec<(String, String)>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// A row for each bug that ran, in the order of the list; behind them, the controls.
    pub rows: Vec<Row>,
    /// What fails without any bug.
    pub unsound: Vec<String>,
}

impl Summary {
    /// The bugs that nothing has noticed, or not the layer that has to.
    pub fn survivors(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.killer.is_none())
    }
}

/// Runs the bugs. `say` is told each result as it comes.
///
/// # Errors
/// In words: the build fails, a name is not known, a process cannot be started.
pub fn run(plan: &Plan, say: &(dyn Fn(&Row) + Sync)) -> Result<Summary, String> {
    let known = table::read(&root().join(table::FILE))?;
    let built = Built::new();
    let Bugs { mutants: all, controls } = layers::bugs(&built)?;
    if let Some(name) = plan.only.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        return Err(format!("no bug is called {name:?}"));
    }
    let recorded = |name: &str, control: Option<&Layer>| {
        let control = control.map(|layer| layer.name);
        let is_it = |row: &&Row| row.name == name && row.control.as_deref() == control;
        known.iter().find(is_it)?.killer.clone().filter(|_| !plan.search)
    };
    let mut wanted: Vec<Wanted> = all
        .iter()
        .map(|mutant| Wanted {
            mutant: mutant.clone(),
            control: None,
            first: recorded(&mutant.name, None),
        })
        .collect();
    for (layer, name) in &controls {
        let mutant = all.iter().find(|mutant| mutant.name == *name);
        let mutant = mutant.ok_or_else(|| format!("{layer}: no bug is called {name:?}"))?;
        let layer = LAYERS.iter().find(|one| one.name == layer);
        let layer = layer.ok_or_else(|| format!("{name}: no layer is called so"))?;
        let first = recorded(name, Some(layer));
        wanted.push(Wanted { mutant: mutant.clone(), control: Some(layer), first });
    }
    wanted.retain(|one| plan.only.is_empty() || plan.only.contains(&one.mutant.name));
    let needs = |one: &Wanted, layer: &Layer| match (one.control, &one.first) {
        (Some(control), _) => control.name == layer.name,
        (None, Some(killer)) => killer.layer == layer.name,
        (None, None) => true,
    };
    let needed: Vec<&Layer> =
        LAYERS.iter().filter(|layer| wanted.iter().any(|one| needs(one, layer))).collect();
    built.prepare(&needed)?;

    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<(usize, Result<Row, String>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.clamp(1, 16) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(wanted) = wanted.get(at) else { return };
                    let row = one(&built, plan, wanted);
                    if let Ok(row) = &row {
                        say(row);
                    }
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((at, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(at, _)| *at);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect::<Result<_, _>>()?;
    let unsound = baseline(&built, plan, &rows)?;
    Ok(Summary { rows, unsound })
}

/// A bug that is to be noticed: by any layer, or by one.
struct Wanted {
    mutant: Mutant,
    control: Option<&'static Layer>,
    /// What has noticed it the last time.
    first: Option<Killer>,
}

/// Runs one bug until something notices it.
fn one(built: &Built, plan: &Plan, wanted: &Wanted) -> Result<Row, String> {
    let Wanted { mutant, control, first } = wanted;
    let row = |killer, seconds| Row {
        control: control.map(|layer| layer.name.to_owned()),
        name: mutant.name.clone(),
        what: mutant.what.clone(),
        killer,
        seconds,
    };
    let attempt = |layer: &Layer, detail: Option<&str>| {
        built.prepare(&[layer])?;
        layer.run(built, Some(&mutant.name), detail, plan.limit)
    };
    if let Some(killer) = first
        && let Some(layer) = LAYERS.iter().find(|layer| layer.name == killer.layer)
    {
        let ran = attempt(layer, killer.detail.as_deref())?;
        if let End::Failed(_) = ran.end {
            return Ok(row(Some(killer.clone()), ran.seconds));
        }
    }
    let layers = control.map_or(LAYERS, std::slice::from_ref);
    for layer in layers {
        let mut ran = built.prepare(&[layer]).and_then(|()| {
            layer.run(built, Some(&mutant.name), None, layer.search_limit(plan.limit))
        })?;
        let End::Failed(detail) = ran.end.clone() else { continue };
        if detail.is_some() {
            // What was found among many is to be as fast, and as sure, alone.
            ran = attempt(layer, detail.as_deref())?;
        }
        if matches!(ran.end, End::Failed(_)) && ran.seconds <= plan.limit.as_secs_f64() {
            let killer = Killer { layer: layer.name.to_owned(), detail };
            return Ok(row(Some(killer), ran.seconds));
        }
    }
    Ok(row(None, 0.0))
}

/// What has killed a bug must be quiet without one. Gives what is not.
fn baseline(built: &Built, plan: &Plan, rows: &[Row]) -> Result<Vec<String>, String> {
    let mut unsound = Vec::new();
    for layer in LAYERS {
        let mut details: Vec<Option<&str>> = rows
            .iter()
            .filter_map(|row| row.killer.as_ref())
            .filter(|killer| killer.layer == layer.name)
            .map(|killer| killer.detail.as_deref())
            .collect();
        details.sort_unstable();
        details.dedup();
        for detail in details {
            // Alone, and at leisure: nothing else is to disturb it.
            let ran = layer.run(built, None, detail, plan.limit * 3)?;
            let detail = detail.map_or_else(String::new, |detail| format!(", {detail}"));
            match ran.end {
                End::Passed => {}
                // All of a layer may take longer; as far as it came, it was quiet.
                End::TimedOut if detail.is_empty() => {}
                End::TimedOut => unsound.push(format!("{}{detail}: takes too long", layer.name)),
                End::Failed(what) => unsound.push(format!(
                    "{}{detail}: fails without any bug ({})",
                    layer.name,
                    what.as_deref().unwrap_or("no test is named")
                )),
            }
        }
    }
    Ok(unsound)
}

/// The directory of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
