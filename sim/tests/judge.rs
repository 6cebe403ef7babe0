//! The judge of live logs: it accepts what a crash may leave, and nothing else.

use ringlog::Durability;
use ringlog_sim::live::journal::Journal;
use ringlog_sim::live::judge::{Findings, Judge, Survives};
use ringlog_sim::live::plan::{Life, LifePlan, LogPlan};

/// A record as the agent tells it: offset, life, producer, append, index.
type Told = (u64, u32, u32, u64, u32);

/// What one producer of the first life appended to its stream, as it would be found.
struct Appended {
    life: Life,
    stream: String,
    records: Vec<Told>,
    /// First offset of each append, and its level.
    appends: Vec<(u64, Durability)>,
}

/// A log without retention by trims, with batches and all three levels in the first life.
fn appended(appends: u64) -> Appended {
    let plan_of = |seed| LifePlan::of(Life { seed, number: 1 });
    let good = |seed: &u64| {
        let all: Vec<_> = (0..appends).map(|append| plan_of(*seed).append(0, append)).collect();
        let has = |level| all.iter().any(|append| append.durability == level);
        !LogPlan::of(*seed).trims
            && all.iter().any(|append| append.records > 1)
            && has(Durability::Memory)
            && has(Durability::Written)
            && all.last().is_some_and(|append| append.durability == Durability::Synced)
    };
    let seed = (0..10_000).find(good).expect("one of so many seeds has it");
    let plan = plan_of(seed);
    let (mut records, mut firsts) = (Vec::new(), Vec::new());
    for number in 0..appends {
        let append = plan.append(0, number);
        firsts.push((records.len() as u64, append.durability));
        for index in 0..append.records {
            records.push((records.len() as u64, 1, 0, number, index));
        }
    }
    let life = Life { seed, number: 1 };
    Appended { life, stream: plan.stream_of(0), records, appends: firsts }
}

impl Appended {
    /// The journal of the life that appended it, all of it acknowledged.
    fn journal(&self) -> Journal {
        let mut journal = Journal::new(self.life, false);
        journal.line(&format!("i 0 {}", self.appends.len()));
        for (number, (offset, _)) in self.appends.iter().enumerate() {
            journal.line(&format!("a 0 {number} {offset} {}", number * 4096));
        }
        assert_eq!(journal.nonsense, Vec::<String>::new());
        journal
    }

    /// What a life finds.
    fn found(&self, number: u32, records: &[Told]) -> Journal {
        let mut journal = Journal::new(Life { number, ..self.life }, false);
        journal.line("io io_uring linked true");
        journal.line("shard 0 false 0 0 1");
        let next = records.last().map_or(0, |record| record.0 + 1);
        journal.line(&format!("stream {} 0 {next}", self.stream));
        for (offset, life, producer, append, index) in records {
            let stream = &self.stream;
            journal.line(&format!("r {stream} {offset} {life} {producer} {append} {index}"));
        }
        journal.line("ready");
        assert_eq!(journal.nonsense, Vec::<String>::new());
        journal
    }

    fn judge(&self, journal: Journal, survives: Survives, found: &[Told]) -> Findings {
        let mut judge = Judge::new(self.life.seed);
        judge.ended(journal, survives);
        judge.judge(&self.found(2, found))
    }
}

#[test]
fn everything_is_good() {
    let log = appended(30);
    for survives in [Survives::Written, Survives::Synced, Survives::Nothing] {
        let findings = log.judge(log.journal(), survives, &log.records);
        assert!(findings.good(), "{findings}: {:?}", findings.words);
    }
}

#[test]
fn what_is_missing_at_the_end_counts_by_its_level() {
    let log = appended(30);
    let (last, _) = log.appends[29];
    let findings = log.judge(log.journal(), Survives::Synced, &log.records[..last as usize]);
    assert!(findings.lost > 0, "the last append was synced");
    let findings = log.judge(log.journal(), Survives::Nothing, &log.records[..last as usize]);
    assert!(findings.good(), "a lying disk may end the log early: {findings}");

    // Up to the first append of each level that is followed by none of a higher one.
    for (level, survives) in
        [(Durability::Memory, Survives::Written), (Durability::Written, Survives::Synced)]
    {
        let at = log.appends.iter().position(|append| append.1 == level).unwrap();
        let mut journal = Journal::new(log.life, false);
        journal.line(&format!("i 0 {}", at + 1));
        journal.line(&format!("a 0 {at} {} 0", log.appends[at].0));
        let without = &log.records[..log.appends[at].0 as usize];
        let findings = log.judge(journal, survives, without);
        assert!(findings.good(), "{level:?} need not survive: {findings}");
        let mut journal = Journal::new(log.life, false);
        journal.line(&format!("i 0 {}", at + 1));
        journal.line(&format!("a 0 {at} {} 0", log.appends[at].0));
        journal.line("flush 0");
        journal.line("flushed 0");
        let findings = log.judge(journal, survives, without);
        assert!(findings.lost > 0, "a flush has made {level:?} durable");
    }
}

#[test]
fn a_hole_is_found() {
    let log = appended(30);
    // Not the first: a beginning that is missing is judged by other rules.
    let single = log.appends.windows(2).rposition(|pair| pair[1].0 - pair[0].0 == 1).unwrap();
    assert!(single > 0);
    let mut records = log.records.clone();
    records.remove(log.appends[single].0 as usize);
    let findings = log.judge(log.journal(), Survives::Nothing, &records);
    assert!(findings.reordered > 0, "{findings}");
    // The same, with offsets that hide it.
    for (offset, record) in records.iter_mut().enumerate() {
        record.0 = offset as u64;
    }
    let mut journal = Journal::new(log.life, false);
    journal.line("i 0 30");
    let findings = log.judge(journal, Survives::Synced, &records);
    assert!(findings.reordered > 0, "{findings}");
}

#[test]
fn a_torn_batch_and_swapped_records_are_found() {
    let log = appended(30);
    let batch = log.appends.windows(2).position(|pair| pair[1].0 - pair[0].0 > 1).unwrap();
    let mut journal = Journal::new(log.life, false);
    journal.line("i 0 30");
    let torn = &log.records[..=log.appends[batch].0 as usize];
    let findings = log.judge(journal, Survives::Synced, torn);
    assert!(findings.reordered > 0, "{findings}");

    let mut swapped = log.records.clone();
    let last = swapped.len() - 1;
    swapped.swap(0, last);
    (swapped[0].0, swapped[last].0) = (0, last as u64);
    let findings = log.judge(log.journal(), Survives::Nothing, &swapped);
    assert!(findings.reordered > 0, "{findings}");
}

#[test]
fn what_nobody_appended_is_found() {
    let log = appended(30);
    let mut journal = Journal::new(log.life, false);
    journal.line("i 0 10");
    let findings = log.judge(journal, Survives::Synced, &log.records);
    assert!(findings.unsubmitted > 0, "only ten appends had begun: {findings}");

    let mut judge = Judge::new(log.life.seed);
    let mut found = log.found(2, &[]);
    found.line("strange stream-0 0 17 bytes that say nothing");
    assert!(judge.judge(&found).unsubmitted > 0);
    let mut found = log.found(3, &[]);
    found.line("unread stream-0 corrupt something");
    assert!(judge.judge(&found).false_alarms > 0);
}

#[test]
fn what_was_found_once_stays_and_what_was_not_stays_away() {
    let log = appended(30);
    let half = log.appends[15].0 as usize;
    let mut judge = Judge::new(log.life.seed);
    let mut journal = Journal::new(log.life, false);
    journal.line("i 0 30");
    judge.ended(journal, Survives::Synced);
    let found = log.found(2, &log.records[..half]);
    assert!(judge.judge(&found).good(), "in flight: any beginning");
    judge.ended(found, Survives::Synced);
    let found = log.found(3, &log.records[..half]);
    assert!(judge.judge(&found).good(), "the same once more");
    judge.ended(found, Survives::Synced);
    let findings = judge.judge(&log.found(4, &log.records));
    assert!(findings.changed > 0, "frames of an older life have come back: {findings}");

    let mut judge = Judge::new(log.life.seed);
    judge.ended(log.journal(), Survives::Synced);
    let found = log.found(2, &log.records);
    assert!(judge.judge(&found).good());
    judge.ended(found, Survives::Synced);
    let findings = judge.judge(&log.found(3, &log.records[..half]));
    assert!(findings.lost > 0, "what a life has found is gone: {findings}");
}

#[test]
fn the_beginning_moves_only_where_somebody_asked() {
    let log = appended(30);
    let half = log.appends[15].0;
    let rest = &log.records[half as usize..];
    let findings = log.judge(log.journal(), Survives::Synced, rest);
    assert!(findings.lost > 0, "{findings}");

    let mut journal = log.journal();
    journal.line(&format!("trim {} {half}", log.stream));
    let findings = log.judge(journal, Survives::Synced, rest);
    assert!(findings.good(), "asked for: {findings} {:?}", findings.words);

    let mut journal = log.journal();
    journal.line(&format!("trim {} {half}", log.stream));
    journal.line(&format!("trimmed {} {half}", log.stream));
    let findings = log.judge(journal, Survives::Synced, &log.records);
    assert!(findings.changed > 0, "an acknowledged trim was taken back: {findings}");
}
