//! Each branch of the advice, on made-up measurements.

use super::*;

const TEMPLATE: &str = include_str!("../../tests/support/measurement.json");

/// A round that proves what it says: `flush` is the median of a bare commit in µs.
fn line(mode: &str, flush: f64, rate: f64) -> Measurement {
    let mut line: Measurement = serde_json::from_str(TEMPLATE).unwrap();
    line.mode = mode.to_owned();
    line.durability = match mode {
        "memory" => Class::Memory,
        "written" | "interval" => Class::DeviceCache,
        _ => Class::Media,
    };
    line.media_within_ms = (mode == "interval").then_some(10);
    line.records_per_second = rate;
    line.latency_us.p50 = Some(1.1 * flush);
    line.floor.fdatasync_record_p50_us = Some(flush);
    line.floor.dsync_record_p50_us = Some(flush);
    line.floor.better_us.p50 = Some(flush);
    line
}

fn said(lines: &[Measurement]) -> String {
    let lines: Vec<&Measurement> = lines.iter().collect();
    let advice = recommend(&lines);
    assert_eq!(advice.len(), 1, "{advice:?}");
    assert_eq!(advice[0].about, "/disk: 256-byte records, 4 threads, 1 in flight each");
    advice[0].words.join("\n")
}

#[test]
fn a_fast_flush_is_waited_for() {
    let said = said(&[line("synced", 80.0, 40_000.0), line("memory", 80.0, 4e6)]);
    assert!(said.starts_with("Use synced: a bare commit takes 80.0 µs here"), "{said}");
    assert!(said.contains("an append waits 88.0 µs"), "{said}");
    assert!(said.contains("memory takes 100 times as many (4000000 records/s)"), "{said}");
    assert!(!said.contains("outstanding") && !said.contains("interval"), "{said}");
}

#[test]
fn a_slow_flush_is_shared_or_the_window_of_loss_is_named() {
    let slow = [line("synced", 8_000.0, 450.0), line("interval", 8_000.0, 9_000.0)];
    let text = said(&slow);
    assert!(
        text.starts_with("Use synced with more outstanding: a bare commit takes 8.00 ms"),
        "{text}"
    );
    assert!(text.contains("at most 125 appends a second"), "{text}");
    assert!(text.contains("4 in flight made 450 records/s"), "{text}");
    assert!(text.contains("a power cut may take the appends of the last 10 ms"), "{text}");
    assert!(text.contains("20.0 times as many (9000 records/s)"), "{text}");
    assert!(text.contains("of the process and of the kernel"), "{text}");
    // Through the page cache a crash of the kernel takes them too.
    let mut cached = slow.clone();
    cached[1].durability = Class::PageCache;
    assert!(said(&cached).contains("survive the end of the process only"));
    // What brings little is not worth a loss.
    let text = said(&[slow[0].clone(), line("interval", 8_000.0, 800.0)]);
    assert!(!text.contains("interval"), "{text}");
    let text = said(&slow[..1]);
    assert!(text.contains("Of interval nothing can be said: interval was not measured"), "{text}");
}

#[test]
fn who_lies_is_not_recommended() {
    let mut lies = line("synced", 80.0, 40_000.0);
    lies.disqualified = Some("acknowledged without flush".to_owned());
    let text = said(&[line("synced", 80.0, 40_000.0), lies]);
    assert!(text.starts_with("No mode is recommended here: synced is disqualified"), "{text}");
    assert!(text.contains("acknowledged without flush") && !text.contains("Use "), "{text}");
}

#[test]
fn a_file_system_in_memory_keeps_nothing() {
    let mut lines = [line("synced", 1.0, 1e6), line("memory", 1.0, 4e6)];
    lines.iter_mut().for_each(|line| line.file_system = "tmpfs".to_owned());
    let text = said(&lines);
    assert!(text.contains("nothing that is written here survives a power cut"), "{text}");
    assert!(!text.contains("Use synced"), "{text}");
}

#[test]
fn what_was_not_measured_or_moved_is_not_enough() {
    let text = said(&[line("memory", 80.0, 4e6)]);
    assert_eq!(text, "Not enough figures: synced was not measured.");
    let mut moved = line("synced", 80.0, 40_000.0);
    moved.floor.doubtful = true;
    let text = said(&[moved.clone(), moved.clone(), line("synced", 80.0, 40_000.0)]);
    assert_eq!(text, "Not enough figures: synced is doubtful in 2 of 3 rounds.");
    // Most rounds are quiet: those count, and the other one does not.
    let quiet = line("synced", 80.0, 40_000.0);
    moved.records_per_second = 1.0;
    moved.floor.better_us.p50 = Some(90_000.0);
    let text = said(&[quiet.clone(), moved, quiet.clone()]);
    assert!(text.starts_with("Use synced: a bare commit takes 80.0 µs"), "{text}");
    let mut few = quiet;
    few.floor.better_us.p50 = None;
    assert!(said(&[few]).starts_with("Not enough figures: too few bare commits"));
    assert_eq!(recommend(&[]), []);
}

#[test]
fn a_rival_or_another_subcommand_is_no_ground_for_advice() {
    let mut rival = line("synced", 80.0, 40_000.0);
    rival.engine = "sqlite".to_owned();
    let mut rotate = line("synced", 80.0, 40_000.0);
    rotate.bench = "rotate".to_owned();
    assert_eq!(recommend(&[&rival, &rotate]), []);
    assert_eq!(text(&[&rival]), "");
}

#[test]
fn options_follow_from_what_was_measured() {
    let mut synced = line("synced", 80.0, 40_000.0);
    synced.floor.fdatasync_record_p50_us = Some(160.0);
    synced.not_judged = Some("the device counts no flushes".to_owned());
    let mut lines = vec![synced];
    for (outstanding, rate) in [(1, 20_000.0), (64, 950_000.0), (512, 1_000_000.0)] {
        let mut scale = line("synced", 80.0, rate);
        (scale.bench, scale.producers, scale.outstanding) = ("scale".to_owned(), 2, outstanding);
        lines.push(scale);
    }
    for (part, p99) in [(0.5, 160.0), (0.8, 400.0), (0.95, 8_000.0)] {
        let mut load = line("synced", 80.0, 1.0);
        load.bench = "load".to_owned();
        load.latency_us.p99 = Some(p99);
        load.open_loop = Some(crate::measurement::OpenLoop {
            offered_per_second: 1.0,
            saturation_per_second: 1.0,
            part_of_saturation: part,
            seed: 1,
            due: 1,
            in_flight_max: 1,
        });
        lines.push(load);
    }
    let text = said(&lines);
    assert!(text.contains("RINGLOG_PRIMITIVE=dsync"), "{text}");
    assert!(text.contains("80.0 µs against 160 µs"), "{text}");
    assert!(text.contains("128 receipts on two threads reach 950000 records/s"), "{text}");
    assert!(text.contains("up to 80 % of saturation p99 stays within 5.00 bare commits"), "{text}");
    assert!(text.contains("could not be judged here (the device counts no flushes)"), "{text}");
}
