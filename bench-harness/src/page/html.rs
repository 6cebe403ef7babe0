//! The page itself: what was measured on, advice, tables, charts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::chart::escape;
use super::charts::{self, range};
use super::input::Run;
use super::rows::{Row, rows};
use crate::environment::Place;
use crate::measurement::{Environment, Measurement};
use crate::percentile::Percentiles;
use crate::recommend::recommend;
use crate::report::{digits, or_dash, times};
use crate::series;

const STYLE: &str = include_str!("style.css");

/// The whole page.
///
/// # Errors
/// A histogram that is none.
pub(super) fn page(runs: &[Run]) -> Result<String, String> {
    let mut page = format!(
        "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\
         <meta charset=\"utf-8\"/><meta name=\"viewport\" content=\"width=device-width\"/>\
         <title>ringlog-bench</title><style>\n{STYLE}</style></head>\n<body>\n\
         <h1>ringlog-bench: what this disk can afford</h1>\n"
    );
    let all: Vec<&Measurement> = runs.iter().flat_map(|run| &run.measurements).collect();
    advice(&mut page, runs, &all);
    for run in runs {
        one_run(&mut page, run)?;
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

/// Advice is of one machine: of runs on another it says nothing.
fn advice(page: &mut String, runs: &[Run], all: &[&Measurement]) {
    let first = runs.first().map(|run| &run.environment.machine);
    let one = runs.iter().all(|run| {
        let machine = Some(&run.environment.machine);
        machine.map(|m| (&m.kernel, &m.cpu, m.cpus)) == first.map(|m| (&m.kernel, &m.cpu, m.cpus))
    });
    let given = if one { recommend(all) } else { Vec::new() };
    page.push_str("<h2>Recommendation</h2>\n");
    if given.is_empty() {
        let why = if one {
            "Not enough figures: run compare on the disk that is meant."
        } else {
            "None: the files are from more than one machine."
        };
        let _ = writeln!(page, "<p>{why}</p>");
    }
    for advice in given {
        let _ = writeln!(page, "<div class=\"advice\"><h4>{}</h4>", escape(&advice.about));
        for sentence in &advice.words {
            let _ = writeln!(page, "<p>{}</p>", escape(sentence));
        }
        page.push_str("</div>\n");
    }
}

fn one_run(page: &mut String, run: &Run) -> Result<(), String> {
    let environment = &run.environment;
    let name = environment.name.as_ref().map_or_else(String::new, |name| format!(": {name}"));
    let _ = writeln!(page, "<h2>{}{}</h2>", escape(&environment.bench), escape(&name));
    truth(page, environment);
    let rows = rows(&run.measurements)?;
    let mut seen = BTreeSet::new();
    let dirs = rows.iter().map(|row| row.first().dir.as_str()).filter(|dir| seen.insert(*dir));
    for dir in dirs {
        let here: Vec<&Row<'_>> = rows.iter().filter(|row| row.first().dir == dir).collect();
        let line = here[0].first();
        let _ = writeln!(
            page,
            "<h3>{} ({} on {})</h3>",
            escape(dir),
            escape(&line.file_system),
            escape(&line.device)
        );
        speed(page, &here);
        ratios(page, &here);
        page.push_str(&charts::of(&environment.bench, &here));
        notes(page, &here);
    }
    figures(page, run);
    Ok(())
}

/// A table; what begins with capital letters only is a warning.
fn table(page: &mut String, class: &str, caption: &str, head: &[&str], rows: &[Vec<String>]) {
    let _ = write!(
        page,
        "<div class=\"wide\"><table class=\"{class}\"><caption>{}</caption><thead><tr>",
        escape(caption)
    );
    for cell in head {
        let _ = write!(page, "<th>{}</th>", escape(cell));
    }
    page.push_str("</tr></thead><tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let bad = ["DISQUALIFIED", "DOUBTFUL", "MISSED"].iter().any(|w| cell.contains(w));
            let class = if bad { " class=\"bad\"" } else { "" };
            let _ = write!(page, "<td{class}>{}</td>", escape(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

fn truth(page: &mut String, environment: &Environment) {
    let machine = &environment.machine;
    let commit =
        environment.commit.as_ref().map_or_else(String::new, |at| format!(" (commit {at})"));
    let _ = writeln!(
        page,
        "<p><code>ringlog-bench {}</code><br/><span class=\"soft\">version {}{}, {} rounds of {} s, \
         begun {} UTC</span></p><p>{}{}</p>",
        escape(&environment.command.join(" ")),
        escape(&environment.version),
        escape(&commit),
        environment.rounds,
        digits(environment.seconds),
        date(environment.started_unix_seconds),
        escape(&machine.to_string().replace('\n', "; ")),
        machine.memory_bytes.map_or_else(String::new, |bytes| format!(
            "; {} GiB of memory",
            digits(bytes as f64 / (1_u64 << 30) as f64)
        )),
    );
    let yes = |known: Option<bool>| match known {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "unknown".to_owned(),
    };
    let number = |known: Option<u64>| known.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let rows: Vec<Vec<String>> = environment
        .places
        .iter()
        .map(|place: &Place| {
            let blocks = [place.logical_block_bytes, place.physical_block_bytes].map(number);
            vec![
                place.dir.clone(),
                place.file_system.clone(),
                place.device.clone(),
                place.model.clone().unwrap_or_else(|| "-".to_owned()),
                place.write_cache.clone(),
                yes(place.fua),
                yes(place.rotational),
                blocks.join(" / "),
                place.scheduler.clone().unwrap_or_else(|| "-".to_owned()),
                place.mount_options.clone(),
            ]
        })
        .collect();
    let head = [
        "directory",
        "file system",
        "device",
        "model",
        "write cache",
        "FUA",
        "rotates",
        "block bytes",
        "scheduler",
        "mounted",
    ];
    table(page, "left", "The disks", &head, &rows);
}

/// Seconds since 1970 as a day and a minute.
fn date(unix_seconds: u64) -> String {
    let (mut days, minutes) = (unix_seconds / 86_400, unix_seconds / 60 % 1_440);
    let is_leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    // Nobody measures that late; a file may say anything.
    days = days.min(2_900_000);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02} {:02}:{:02}", days + 1, minutes / 60, minutes % 60)
}

fn label(row: &Row<'_>) -> Vec<String> {
    vec![row.short(), row.load()]
}

fn speed(page: &mut String, rows: &[&Row<'_>]) {
    let cells = |row: &&Row<'_>| {
        let latency = Percentiles::of(&row.latency);
        let median = |drift: Option<crate::percentile::Drift>| or_dash(drift.map(|d| d.median));
        let mut cells = label(row);
        cells.push(row.class());
        cells.push(range(row.rate()));
        cells.push(median(row.each(|line| Some(line.payload_mib_per_second))));
        let percentiles =
            [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.p99_99, latency.max];
        cells.extend(percentiles.map(or_dash));
        cells
    };
    let head = [
        "mode",
        "work",
        "durability",
        "records/s",
        "MiB/s",
        "p50 µs",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
    ];
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let caption = "Speed: rates are minimum – median – maximum of the rounds, latencies are of all \
                   rounds together";
    table(page, "", caption, &head, &rows);
}

fn ratios(page: &mut String, rows: &[&Row<'_>]) {
    let cells = |row: &&Row<'_>| {
        let per_second = |flushes: Option<u64>, line: &Measurement| {
            flushes.map(|flushes| flushes as f64 / line.seconds.max(1e-9))
        };
        let raw = |line: &Measurement| Some(line.ratio.payload_to_sequential_write? * 100.0);
        let moved = row.each(|line| line.floor.moved).map(|drift| drift.max);
        let doubtful = if row.is_doubtful() { " DOUBTFUL" } else { "" };
        let mut cells = label(row);
        cells.extend([
            range(row.each(|line| line.floor.better_us.p50)),
            range(row.each(|line| line.ratio.p50_to_floor)),
            range(row.each(|line| line.ratio.records_per_floor_commit)),
            range(row.each(raw)),
            range(row.each(|line| line.ratio.device_to_payload)),
            range(row.each(|line| line.ratio.cpu_seconds_per_million)),
            or_dash(row.each(|line| per_second(line.flushes, line)).map(|d| d.median)),
            or_dash(row.each(|line| per_second(line.flushes_claimed, line)).map(|d| d.median)),
            format!("{}{doubtful}", times(moved)),
            row.verdict().to_owned(),
        ]);
        cells
    };
    let head = [
        "mode",
        "work",
        "floor p50 µs",
        "p50 / floor",
        "records in a bare commit",
        "% of raw write",
        "bytes / payload",
        "CPU s / million",
        "flushes/s",
        "claimed",
        "floor moved",
        "flushes are",
    ];
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let caption = "Ratios: minimum – median – maximum of the rounds, each by the floor just before \
                   and after it";
    table(page, "", caption, &head, &rows);
}

/// What must be known beside the figures, each once.
fn notes(page: &mut String, rows: &[&Row<'_>]) {
    let mut all = BTreeSet::new();
    for row in rows {
        for line in &row.rounds {
            let said = [
                ("DISQUALIFIED", &line.disqualified),
                ("its flushes could not be judged", &line.not_judged),
                ("ended early", &line.ended_early),
            ];
            for (what, why) in said {
                if let Some(why) = why {
                    all.insert(format!("{}: {what}: {why}", row.short()));
                }
            }
            all.extend(line.notes.iter().cloned());
        }
    }
    if all.is_empty() {
        return;
    }
    page.push_str("<ul class=\"soft\">\n");
    for note in all {
        let _ = writeln!(page, "<li>{}</li>", escape(&note));
    }
    page.push_str("</ul>\n");
}

fn figures(page: &mut String, run: &Run) {
    if run.figures.is_empty() {
        return;
    }
    let rows = series::cells(&run.figures);
    let (head, rows) = rows.split_at(1);
    let head: Vec<&str> = head[0].iter().map(String::as_str).collect();
    table(page, "", "Figures: the bar is set against the median", &head, rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_700_000_000, "2023-11-14 22:13"),
            (1_735_689_599, "2024-12-31 23:59"),
        ] {
            assert_eq!(date(seconds), day);
        }
    }
}
