//! `ringlog profile-disk`: measures the disk below a directory, and says what suits it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use ringlog::disk_profile::{DiskProfile, Effort, Latency};
use ringlog::{CommitSettings, Options, Primitive, measure_disk, measure_disk_of_log};
use serde_json::{Value, json};

use crate::output::{self, Exit, Failure, Messages};
use crate::text::{bytes, escape, table};

/// Measure the disk below a directory with a small file that is removed again, and say how it
/// answers and which settings suit it. Works on any directory that can be written to.
#[derive(Args, Debug)]
pub(crate) struct ProfileDiskArgs {
    #[command(flatten)]
    dir: crate::Dir,
    /// Take well below a second, as at the creation of a log; else up to five.
    #[arg(long)]
    quick: bool,
    /// Keep the profile in the log of this directory, which must not be open for writing. It is
    /// used from the next open on.
    #[arg(long)]
    store: bool,
}

/// Runs the command.
pub(crate) fn run(args: &ProfileDiskArgs, messages: Messages) -> Result<Exit, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))
        .map_err(|error| Failure::CouldNotRun(format!("no handler of signals: {error}")))?;
    let io = Options::from_env()?.io;
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    let stop = || interrupted.load(Ordering::SeqCst);
    let measure = if args.store { measure_disk_of_log } else { measure_disk };
    let profile = measure(&args.dir.dir, io, effort, &stop)?;
    if stop() {
        messages.note("interrupted: nothing is told of what was measured, nothing is stored");
        return Ok(Exit::Interrupted);
    }
    if messages.json() {
        let mut value = profile_json(&profile);
        value["stored"] = json!(args.store);
        output::print_json(&value)?;
    } else {
        output::print(&profile_text(&profile, args.store))?;
    }
    Ok(Exit::Done)
}

/// The name of a primitive, as in `RINGLOG_PRIMITIVE`.
fn primitive_name(primitive: Primitive) -> &'static str {
    match primitive {
        Primitive::Dsync => "dsync",
        Primitive::LinkedSync => "linked",
    }
}

/// A choice as JSON.
fn choice_json(value: impl serde::Serialize, why: &str) -> Value {
    json!({ "value": value, "why": why })
}

/// Settings of commits as JSON.
pub(crate) fn settings_json(settings: &CommitSettings) -> Value {
    let CommitSettings { primitive, commits_in_flight, commit_bytes } = settings;
    json!({
        "primitive": choice_json(primitive_name(primitive.value), &primitive.why),
        "commits_in_flight": choice_json(commits_in_flight.value, &commits_in_flight.why),
        "commit_bytes": choice_json(commit_bytes.value, &commit_bytes.why),
    })
}

/// A profile as JSON.
pub(crate) fn profile_json(profile: &DiskProfile) -> Value {
    let latency = |latency: &Latency| {
        json!({
            "p50_ns": latency.p50_ns,
            "p99_ns": latency.p99_ns,
            "samples": latency.samples,
        })
    };
    let (place, figures) = (&profile.place, &profile.figures);
    let sizes = figures.sizes.iter().map(|figure| {
        let mut value = latency(&figure.latency);
        value["bytes"] = json!(figure.bytes);
        value
    });
    let depths = figures.depths.iter().map(|figure| {
        json!({ "commits_in_flight": figure.depth, "bytes_per_second": figure.bytes_per_second })
    });
    let mut settings = settings_json(&CommitSettings::of(profile));
    settings["flat_bytes"] = choice_json(profile.flat_bytes.value, &profile.flat_bytes.why);
    settings["pad_bytes"] = choice_json(profile.pad_bytes.value, &profile.pad_bytes.why);
    json!({
        "class": choice_json(profile.class.value.name(), &profile.class.why),
        "effort": effort_name(figures.effort),
        "place": {
            "file_system": place.file_system,
            "device": format!("{}:{}", place.device.0, place.device.1),
            "device_name": place.device_name,
            "rotational": place.rotational,
            "write_back": place.write_back,
            "polled_queues": place.polled,
            "physical_block_bytes": place.physical_block_bytes,
            "align_bytes": place.align_bytes,
            "direct": place.direct,
            "huge_pages": place.huge_pages,
            "io": io_name(place.uring),
        },
        "figures": {
            "dsync": latency(&figures.dsync),
            "linked_sync": latency(&figures.linked_sync),
            "write": latency(&figures.write),
            "commit_by_size": sizes.collect::<Vec<_>>(),
            "commits_in_flight": depths.collect::<Vec<_>>(),
        },
        "settings": settings,
    })
}

fn effort_name(effort: Effort) -> &'static str {
    match effort {
        Effort::Quick => "quick",
        Effort::Full => "full",
    }
}

fn io_name(uring: bool) -> &'static str {
    if uring { "io_uring" } else { "blocking" }
}

fn micros(ns: u64) -> String {
    format!("{}.{} µs", ns / 1000, ns / 100 % 10)
}

/// Settings of commits for people: value and reason of each.
pub(crate) fn setting_rows(settings: &CommitSettings) -> Vec<Vec<String>> {
    let CommitSettings { primitive, commits_in_flight, commit_bytes } = settings;
    let row = |name: &str, value: String, why: &str| vec![name.to_owned(), value, escape(why)];
    vec![
        row("commit primitive", primitive_name(primitive.value).to_owned(), &primitive.why),
        row("commits in flight", commits_in_flight.value.to_string(), &commits_in_flight.why),
        row("commit bytes", commit_bytes.value.to_string(), &commit_bytes.why),
    ]
}

/// The class of a disk and the reason, in one line.
pub(crate) fn class_text(profile: &DiskProfile) -> String {
    format!("class {}, {}", profile.class.value, escape(&profile.class.why))
}

/// What the system says of the place, in one line.
fn place_text(profile: &DiskProfile) -> String {
    let place = &profile.place;
    let known = |answer: Option<bool>, yes: &str, no: &str, unknown: &str| {
        let text = answer.map_or(unknown, |answer| if answer { yes } else { no });
        (!text.is_empty()).then(|| text.to_owned())
    };
    let name = place.device_name.as_deref().map_or_else(String::new, |n| format!("{} ", escape(n)));
    let parts = [
        Some(format!(
            "{} on device {name}{}:{}",
            escape(&place.file_system),
            place.device.0,
            place.device.1
        )),
        place.physical_block_bytes.map(|bytes| format!("physical block {bytes}")),
        Some(format!("alignment {}", place.align_bytes)),
        known(place.write_back, "write-back cache", "write-through cache", "write cache unknown"),
        known(place.rotational, "said to rotate", "said not to rotate", ""),
        known(place.polled, "polled queues (not used)", "polled queues not available", ""),
        known(Some(place.direct), "direct", "through the page cache", ""),
        known(Some(place.huge_pages), "huge pages", "no huge pages", ""),
        Some(io_name(place.uring).to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A profile for people.
fn profile_text(profile: &DiskProfile, stored: bool) -> String {
    let figures = &profile.figures;
    let mut text = format!("{}\nplace: {}\n\n", class_text(profile), place_text(profile));
    let row = |what: &str, kib: u64, latency: &Latency| {
        let figures = match latency.samples {
            0 => ["not measured".to_owned(), String::new()],
            _ => [micros(latency.p50_ns), micros(latency.p99_ns)],
        };
        let [p50, p99] = figures;
        vec![what.to_owned(), kib.to_string(), p50, p99, latency.samples.to_string()]
    };
    let mut rows = vec![
        row("RWF_DSYNC", 4, &figures.dsync),
        row("linked fdatasync", 4, &figures.linked_sync),
        row("write, not flushed", 4, &figures.write),
    ];
    for figure in &figures.sizes {
        rows.push(row("commit, the better way", u64::from(figure.bytes >> 10), &figure.latency));
    }
    text += &table(&["one at a time", "KiB", "p50", "p99", "samples"], &rows);
    text.push('\n');
    let depths: Vec<Vec<String>> = figures
        .depths
        .iter()
        .map(|figure| {
            vec![figure.depth.to_string(), format!("{}/s", bytes(figure.bytes_per_second))]
        })
        .collect();
    text += &table(&["256 KiB commits in flight", "durable"], &depths);
    text.push('\n');
    let mut rows = setting_rows(&CommitSettings::of(profile));
    for (name, choice) in
        [("flat up to", &profile.flat_bytes), ("padding bytes", &profile.pad_bytes)]
    {
        rows.push(vec![name.to_owned(), choice.value.to_string(), escape(&choice.why)]);
    }
    text += &table(&["setting", "value", "why"], &rows);
    if stored {
        text += "\nstored in the log; used from its next open on\n";
    }
    text
}
