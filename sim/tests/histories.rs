//! Histories of the engine on the simulated disk, judged by the oracle; see `history`.
//!
//! `cargo run --release -p ringlog-sim -- --seed N` tells what happened in one of them.

use ringlog_sim::history::{Memories, Totals, run};

/// Runs a range of seeds; fails with what was wrong in the first that is.
fn seeds(range: std::ops::Range<u64>) -> Totals {
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
    seeds_0_to_1299: 0..1300;
    seeds_1300_to_2599: 1300..2600;
    seeds_2600_to_3899: 2600..3900;
    seeds_3900_to_5199: 3900..5200;
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (mut some, mut others) = (Memories::default(), Memories::default());
    for seed in (0..5200).step_by(100) {
        assert_eq!(run(seed, &mut some, true), run(seed, &mut others, true), "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_histories() {
    let mut memories = Memories::default();
    assert_ne!(run(1, &mut memories, false).trace_hash, run(2, &mut memories, false).trace_hash);
}
