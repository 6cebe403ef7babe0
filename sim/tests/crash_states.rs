//! A few thousand of the states that `ringlog-sim crash-states` takes millions of.

use ringlog_sim::crash_states::{NAMES, Report, Size, run, run_one};

/// Every workload once, with a sample of its states.
const SMALL: Size = Size {
    states: u64::MAX,
    at_most: None,
    threads: 2,
    seed: 7,
    random: 2,
    subsets_max: 1 << 8,
    one_in: 60,
    until_wrong: false,
    claims_too_much: false,
};

fn all_once(size: Size) -> Report {
    let mut sum = Report::default();
    for task in 0..NAMES.len() as u64 {
        let report = run_one(task, size);
        sum.counts.add(&report.counts);
        sum.workloads.extend(report.workloads);
        sum.wrong.extend(report.wrong);
    }
    sum
}

#[test]
fn no_state_of_any_workload_is_judged_wrong() {
    let report = all_once(SMALL);
    println!("{report}");
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(report.workloads.iter().all(|(_, _, counts)| counts.states > 5), "{report}");
    let counts = report.counts;
    assert!(counts.again > 0 && counts.cut_inside > 0 && counts.next_lives > 0, "{counts}");
    assert!(counts.moments > counts.in_full && counts.in_full > 100, "{counts}");
}

#[test]
fn a_few_sectors_are_taken_in_full() {
    let report = run(Size { states: 2000, subsets_max: 1 << 16, one_in: 1, ..SMALL });
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(report.counts.states >= 2000, "{report}");
    assert!(report.counts.in_full > 0, "{report}");
}

#[test]
fn a_claim_that_is_too_large_is_seen() {
    let size = Size { claims_too_much: true, one_in: 20, ..SMALL };
    for task in 6..10 {
        let report = run_one(task, size);
        let (name, _, _) = report.workloads[0];
        assert!(report.counts.wrong > 0, "{name}: nothing was found");
        let first = &report.wrong[0];
        assert!(first.contains("O1: ") && first.contains("is lost after PowerCut"), "{first}");
    }
}

#[test]
fn the_same_task_gives_the_same_states() {
    let (one, two) = (run_one(8, SMALL), run_one(8, SMALL));
    assert_eq!(one.counts, two.counts);
}
