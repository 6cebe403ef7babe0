//! Histories of the engine on the simulated disk, judged by the oracle; see `history`.
//!
//! `cargo run --release -p ringlog-sim -- --seed N` tells what happened in one of them.

use ringlog_sim::error_sweep::sweep;
use ringlog_sim::history::{Memories, Setup, Totals, run, run_with, shrink};

/// Runs a range of seeds; fails with what was wrong in the first that is.
fn seeds(range: std::ops::Range<u64>) -> Totals {
    ringlog_disk::keep_mappings(16); // lives are short: making their memory is most of the time
    let mut memories = Memories::default();
    let mut totals = Totals::default();
    for seed in range {
        let report = run(seed, &mut memories, false);
        totals.add(&report.totals);
        if let Some(wrong) = report.wrong {
            panic!("{wrong}\nrun: cargo run --release -p ringlog-sim -- --seed {seed}");
        }
    }
    println!("{totals}{:>22}: {}", "all faults", totals.all_faults());
    totals
}

/// What every range of histories has met, or it would prove little.
fn check(totals: &Totals) {
    let met = [
        ("acknowledged", totals.acknowledged),
        ("cut off", totals.cut_off),
        ("rewritten", totals.rewritten),
        ("disturbed recoveries", totals.recoveries_disturbed),
        ("power cuts", totals.power_cuts),
        ("kills", totals.kills),
        ("clean closes", totals.closes),
        ("errors and lies", totals.faults),
        ("damages", totals.damages),
        ("loud errors", totals.loud),
        ("refused for disk", totals.refused_disk),
        ("refused for memory", totals.refused_memory),
        ("recycled", totals.recycled),
        ("trimmed", totals.trimmed),
        ("trimmed for their number", totals.trimmed_by_number),
        ("trimmed for their bytes", totals.trimmed_by_bytes),
        ("trimmed for their age", totals.trimmed_by_age),
        ("trimmed for their streams", totals.trimmed_by_streams),
        ("indexes stored", totals.stores),
        ("jumps of the clock", totals.clock_jumps),
        ("trims of streams", totals.stream_trims),
        ("sealed for their age", totals.sealed_by_age),
        ("low memory", totals.pressure),
        ("several shards", totals.shards - totals.histories),
        ("records followed", totals.followed),
        ("followers retracted", totals.retracted),
        ("reads that went wrong", totals.wrong_reads),
        ("readers told of one", totals.wrong_reads_told),
        ("disk stalls", totals.stalls),
        ("full disks", totals.full_disks),
    ];
    for (what, count) in met {
        assert!(count > 0, "no history met this: {what}");
    }
}

macro_rules! ranges {
    ($($name:ident: $range:expr;)*) => {
        $(#[test]
        fn $name() {
            check(&seeds($range));
        })*
    };
}

ranges! {
    seeds_0_to_599: 0..600;
    seeds_600_to_1199: 600..1200;
}

/// What was old when somebody asked by hand goes when the manifest, which failed, is tried again; the
/// clock has been set back by then. The judge once called that wrong.
#[test]
fn what_was_decided_before_the_clock_was_set_back_is_still_right() {
    assert_eq!(seeds(1_017_448..1_017_449).histories, 1);
}

/// A retention by hand that was refused for want of room was carried out once there was some, and vouched
/// for a clock that had jumped since: what the log keeps for an age went before its time.
#[test]
fn a_refused_retention_does_not_vouch_for_the_clock_later() {
    assert_eq!(seeds(1_481..1_482).histories, 1);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (mut some, mut others) = (Memories::default(), Memories::default());
    for seed in (0..1200).step_by(40) {
        assert_eq!(run(seed, &mut some, true), run(seed, &mut others, true), "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_histories() {
    let mut memories = Memories::default();
    assert_ne!(run(1, &mut memories, false).trace_hash, run(2, &mut memories, false).trace_hash);
}

/// A history that has to go wrong: the disk lies, and the oracle does not know.
#[test]
fn a_history_that_goes_wrong_is_noticed_and_made_small() {
    let mut memories = Memories::default();
    let control = Setup { control: true, ..Setup::default() };
    let wrong = |seed: &u64| run_with(*seed, &control, &mut Memories::default()).wrong.is_some();
    let seeds: Vec<u64> = (0..40).filter(wrong).collect();
    assert!(seeds.len() >= 10, "only {seeds:?} of 40 go wrong on a disk that lies");
    let small = shrink(seeds[0], &control, 400, &mut memories).expect("it goes wrong");
    assert!(small.report.wrong.is_some(), "{small:?}");
    let (before, after) = small.decisions;
    assert!(after < before, "{after} decisions instead of {before}");
    assert!(small.report.story.iter().any(|line| line.contains("WRONG")), "{small:?}");
}

#[test]
fn every_operation_of_a_history_meets_every_error() {
    let swept = sweep(1, false, &mut Memories::default());
    assert_eq!(swept.wrong, [""; 0]);
    assert!(swept.runs >= 20 * swept.operations && swept.operations > 20, "{swept:?}");
    assert!(swept.struck > swept.runs / 2, "{swept:?}");
}
