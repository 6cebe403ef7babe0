//! Some of the flips of which `ringlog-sim bit-flips` tries all.

use ringlog_sim::bit_flips::{Outcome, Size, run};

const SOME: Size = Size {
    bytes: 128 << 10,
    threads: 2,
    seed: 3,
    stride: 331,
    from: 0,
    until: u64::MAX,
    until_wrong: false,
    expects_too_much: false,
};

#[test]
fn a_flipped_bit_is_told_where_it_is_or_does_no_harm() {
    let report = run(SOME).unwrap();
    println!("{report}");
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!(report.wrong, 0);
    let told = [Outcome::Refused, Outcome::ReadError, Outcome::Checksum, Outcome::Index];
    for outcome in told {
        assert!(report.count(outcome) > 10, "{outcome:?}: {report}");
    }
    assert!(report.count(Outcome::FreeSpace) < report.flips / 4, "{report}");
}

#[test]
fn a_flip_that_nobody_can_see_counts_where_it_is_said_to_matter() {
    let report = run(Size { expects_too_much: true, ..SOME }).unwrap();
    assert!(report.wrong > 0, "{report}");
    assert!(report.findings[0].contains("FreeSpace does not belong here"), "{report:?}");
}
