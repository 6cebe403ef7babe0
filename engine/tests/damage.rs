//! Damage of every kind: what refuses, what says where, what still reads, and what repair keeps.

mod common;

use common::{Fixture, options};
use ringlog::{Log, OpenError, verify};

#[test]
fn a_sound_log_is_sound_and_looking_changes_nothing() {
    let fixture = Fixture::new();
    let before = fixture.files();
    let mut told = 0;
    let report = verify(fixture.path(), &mut |progress| {
        assert!(progress.done_bytes <= progress.total_bytes);
        assert!(told <= progress.done_bytes);
        told = progress.done_bytes;
    })
    .unwrap();
    assert_eq!(report.damage, []);
    assert!(report.sound);
    assert_eq!(report.records, fixture.records());
    assert!(told > 0);
    let inspection = ringlog::inspect(fixture.path()).unwrap();
    let records: u64 = inspection.shards[0].streams.iter().map(|stream| stream.records).sum();
    assert_eq!(records, fixture.records());
    assert_eq!(fixture.files(), before);
}

#[test]
fn a_log_that_is_open_can_be_checked() {
    let fixture = Fixture::new();
    let log = Log::open(fixture.path(), options()).unwrap();
    let stream = log.stream("more").unwrap();
    stream.append(b"x").unwrap().wait().unwrap();
    let report = verify(fixture.path(), &mut |_| {}).unwrap();
    assert_eq!(report.damage, []);
    assert_eq!(report.records, fixture.records() + 1);
    assert!(matches!(Log::open(fixture.path(), options()), Err(OpenError::Locked(_))));
}
