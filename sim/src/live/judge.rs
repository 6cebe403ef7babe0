//! Compares what a life finds with what the journals of the lives before promise.
//!
//! Rules, by stream: nothing that was acknowledged at a level which survives what happened is missing
//! (lost); records lie in the order of their appends, without a hole, and batches are whole
//! (reordered); nothing is there that was not appended, or with other bytes (unsubmitted); what a
//! life has found stays as it was, and what it did not find never comes back (changed). In a shard,
//! nothing is missing below something that is there. A disk that kept its word makes no log refuse
//! to open or to be read (false alarm).

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use ringlog::Durability;

use super::journal::{Ack, Journal, SeenStream};
use super::plan::{AppendId, LifePlan, LogPlan, RecordId};

/// What a life's end leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survives {
    /// Written and synced records: the process was killed.
    Written,
    /// Synced ones: the power went off, or a write or flush failed.
    Synced,
    /// Nothing for certain: the disk lied. What is there must still be a prefix, or loud.
    Nothing,
}

/// How much was wrong.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Acknowledged and not there.
    pub lost: u64,
    /// Out of order, with a hole, or a batch in part.
    pub reordered: u64,
    /// Never appended, or other bytes.
    pub unsubmitted: u64,
    /// Other than a life before has found it, or come back.
    pub changed: u64,
    /// A failed write of the log's own that it told nobody of.
    pub silent: u64,
    /// An error that nothing justifies.
    pub false_alarms: u64,
    /// The first of them in words.
    pub words: Vec<String>,
}

/// No more than so many are told in words.
const WORDS_MAX: usize = 12;

impl Findings {
    /// Whether nothing was wrong.
    pub fn good(&self) -> bool {
        self.all() == 0
    }

    fn all(&self) -> u64 {
        self.lost
            + self.reordered
            + self.unsubmitted
            + self.changed
            + self.silent
            + self.false_alarms
    }

    /// Adds up.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.unsubmitted += other.unsubmitted;
        self.changed += other.changed;
        self.silent += other.silent;
        self.false_alarms += other.false_alarms;
        let room = WORDS_MAX.saturating_sub(self.words.len());
        self.words.extend(other.words.iter().take(room).cloned());
    }

    /// An error that nothing justifies.
    pub fn false_alarm(&mut self, words: String) {
        self.false_alarms += 1;
        self.tell(words);
    }

    /// A failed write of the log's own that it told nobody of.
    pub fn silent(&mut self, words: String) {
        self.silent += 1;
        self.tell(words);
    }

    fn tell(&mut self, words: String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(words);
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lost, {} reordered, {} unsubmitted, {} changed, {} silent, {} false alarms",
            self.lost,
            self.reordered,
            self.unsubmitted,
            self.changed,
            self.silent,
            self.false_alarms
        )
    }
}

/// A stream as it is known to be.
#[derive(Clone, Debug, Default)]
struct Known {
    first: u64,
    next: u64,
    records: Vec<RecordId>,
}

impl Known {
    fn at(&self, offset: u64) -> Option<RecordId> {
        let index = offset.checked_sub(self.first)?;
        self.records.get(usize::try_from(index).ok()?).copied()
    }
}

/// The judge of one log.
pub struct Judge {
    log: LogPlan,
    known: BTreeMap<String, Known>,
    /// The lives since something was known, and what the worst of their ends leaves.
    since: Vec<Journal>,
    survives: Survives,
    /// How many appends were in flight and survived, how many did not.
    pub in_flight_kept: u64,
}

impl Judge {
    /// Of a log that does not exist yet.
    pub fn new(seed: u64) -> Self {
        Self {
            log: LogPlan::of(seed),
            known: BTreeMap::new(),
            since: Vec::new(),
            survives: Survives::Written,
            in_flight_kept: 0,
        }
    }

    /// A life has ended, or gone on from what it found, in this way.
    pub fn ended(&mut self, journal: Journal, survives: Survives) {
        self.since.push(journal);
        self.survives = self.survives.max(survives);
    }

    /// Whether anything has to be there.
    pub fn expects_a_log(&self) -> bool {
        self.since.iter().any(|life| life.acknowledged > 0) || !self.known.is_empty()
    }

    /// Judges what a life has found; afterwards that is what is known.
    pub fn judge(&mut self, found: &Journal) -> Findings {
        let mut findings = Findings::default();
        self.errors(found, &mut findings);
        let mut acks: BTreeMap<&str, Vec<Ack>> = BTreeMap::new();
        for life in &self.since {
            for (name, told) in &life.acks {
                acks.entry(name).or_default().extend(told);
            }
        }
        let mut names: Vec<&str> = self.known.keys().map(String::as_str).collect();
        names.extend(found.seen.keys().map(String::as_str));
        names.extend(acks.keys());
        names.sort_unstable();
        names.dedup();
        let mut kept = 0;
        for name in names {
            let seen = found.seen.get(name).cloned().unwrap_or_default();
            let acks = acks.get(name).map_or(&[][..], |acks| acks);
            let stream = OneStream { judge: self, found, name, seen: &seen, acks };
            stream.content(&mut findings);
            stream.acknowledged(&mut findings);
            stream.beginning(&mut findings);
            kept += stream.kept_in_flight();
        }
        self.in_flight_kept += kept;
        self.holes(found, &mut findings);
        self.known = found.seen.iter().map(|(name, seen)| (name.clone(), known(seen))).collect();
        self.since.clear();
        self.survives = Survives::Written;
        findings
    }

    /// What the life could not read or did not understand.
    fn errors(&self, found: &Journal, findings: &mut Findings) {
        for what in &found.strange {
            findings.unsubmitted += 1;
            findings.tell(format!("a record that nobody made: {what}"));
        }
        if self.survives < Survives::Nothing {
            for (kind, words) in &found.unread {
                findings.false_alarm(format!("not readable ({kind}): {words}"));
            }
        }
    }

    /// Nothing is missing in a shard below something that is there.
    fn holes(&self, found: &Journal, findings: &mut Findings) {
        let present = |name: &str, ack: &Ack| -> Option<bool> {
            let seen = found.seen.get(name)?;
            let first = seen.records.first().map_or(seen.next, |(offset, _)| *offset);
            (ack.offset >= first).then_some(ack.offset < seen.next)
        };
        let mut highest: HashMap<u16, u64> = HashMap::new();
        let acks = || {
            let lives = self.since.iter().flat_map(|life| &life.acks);
            lives.flat_map(|(name, acks)| acks.iter().map(move |ack| (name, ack)))
        };
        for (name, ack) in acks() {
            if let (Some(true), Some(lsn)) = (present(name, ack), ack.lsn) {
                let shard = found.seen.get(name).map_or(0, |seen| seen.shard);
                let highest = highest.entry(shard).or_default();
                *highest = lsn.max(*highest);
            }
        }
        for (name, ack) in acks() {
            let shard = found.seen.get(name).map(|seen| seen.shard);
            let highest = shard.and_then(|shard| highest.get(&shard)).copied().unwrap_or(0);
            if present(name, ack) == Some(false) && ack.lsn.is_some_and(|lsn| lsn < highest) {
                findings.reordered += 1;
                findings.tell(format!(
                    "{name}: {:?} at LSN {:?} is missing, and LSN {highest} is there",
                    ack.id, ack.lsn
                ));
            }
        }
    }
}

fn known(seen: &SeenStream) -> Known {
    let first = seen.records.first().map_or(seen.next, |(offset, _)| *offset);
    let records = seen.records.iter().map(|(_, id)| *id).collect();
    Known { first, next: seen.next, records }
}

/// One stream before the judge.
struct OneStream<'a> {
    judge: &'a Judge,
    found: &'a Journal,
    name: &'a str,
    seen: &'a SeenStream,
    acks: &'a [Ack],
}

impl OneStream<'_> {
    fn known(&self) -> Option<&Known> {
        self.judge.known.get(self.name)
    }

    fn first(&self) -> u64 {
        self.seen.records.first().map_or(self.seen.next, |(offset, _)| *offset)
    }

    /// Order, contiguity, wholeness, and that all of it was appended.
    fn content(&self, findings: &mut Findings) {
        let mut at = self.first();
        for (offset, _) in &self.seen.records {
            if *offset != at {
                findings.reordered += 1;
                findings.tell(format!("{}: offset {offset} follows, not {at}", self.name));
            }
            at = offset + 1;
        }
        if at != self.seen.next && self.found.unread.is_empty() {
            findings.reordered += 1;
            let next = self.seen.next;
            let first = self.first();
            findings.tell(format!(
                "{}: records from {first} end at {at}, the stream at {next}",
                self.name
            ));
        }
        let known = self.known().cloned().unwrap_or_default();
        let mut new = NewRecords::new(self, self.first() > known.next);
        for (offset, id) in &self.seen.records {
            if *offset < known.next {
                if known.at(*offset).is_some_and(|before| before != *id) {
                    findings.changed += 1;
                    let before = known.at(*offset);
                    findings.tell(format!("{}: {offset} was {before:?}, is {id:?}", self.name));
                }
            } else {
                new.take(*offset, *id, findings);
            }
        }
        new.end(findings);
        if self.seen.next < known.next && self.judge.survives < Survives::Nothing {
            findings.lost += known.next - self.seen.next;
            findings.tell(format!(
                "{}: ends at {}, a life before found {}",
                self.name, self.seen.next, known.next
            ));
        }
    }

    /// What was acknowledged is there, and where it was acknowledged.
    fn acknowledged(&self, findings: &mut Findings) {
        let by_offset: HashMap<u64, RecordId> = self.seen.records.iter().copied().collect();
        for ack in self.acks {
            let life = super::plan::Life { seed: self.found.life.seed, number: ack.id.life };
            let what = LifePlan::of(life).append(ack.id.producer, ack.id.append);
            let must = match self.judge.survives {
                Survives::Nothing => false,
                _ if ack.flushed => true,
                Survives::Synced => what.durability == Durability::Synced,
                Survives::Written => what.durability >= Durability::Written,
            };
            for index in 0..what.records {
                let offset = ack.offset + u64::from(index);
                let expected = RecordId { append: ack.id, index };
                match by_offset.get(&offset) {
                    Some(found) if *found == expected => {}
                    Some(found) => {
                        findings.reordered += 1;
                        findings.tell(format!(
                            "{}: {offset} was acknowledged as {expected:?}, is {found:?}",
                            self.name
                        ));
                    }
                    // The beginning may be trimmed: see `beginning`.
                    None if offset < self.first() => {}
                    None if must => {
                        findings.lost += 1;
                        findings.tell(format!(
                            "{}: {expected:?}, acknowledged at {offset} ({:?}{}), is not there; \
                             the stream ends at {}",
                            self.name,
                            what.durability,
                            if ack.flushed { ", flushed" } else { "" },
                            self.seen.next
                        ));
                    }
                    None => {}
                }
            }
        }
    }

    /// Where the stream begins: no further than somebody asked for, and never further back.
    fn beginning(&self, findings: &mut Findings) {
        if self.judge.survives == Survives::Nothing {
            return;
        }
        let first = self.first();
        let before = self.known().map_or(0, |known| known.first);
        let of_this = |trims: &[(String, u64)]| {
            let of_this = trims.iter().filter(|(name, _)| name == self.name);
            of_this.map(|(_, offset)| *offset).max().unwrap_or(0)
        };
        let lives = &self.judge.since;
        let asked = lives.iter().map(|life| of_this(&life.trims)).max().unwrap_or(0);
        let trimmed = lives.iter().map(|life| of_this(&life.trimmed)).max().unwrap_or(0);
        if first < before.max(trimmed) && first < self.seen.next {
            findings.changed += 1;
            findings.tell(format!(
                "{}: begins at {first} again; it was trimmed to {}",
                self.name,
                before.max(trimmed)
            ));
        }
        if first > before.max(asked) {
            // Retention may have been at work: then that many segments are there. (Fewer, where trims
            // of streams have emptied more segments than retention has taken.)
            let segments = self.found.segments.get(usize::from(self.seen.shard));
            let kept = self.judge.log.retained.zip(segments.copied());
            let kept = kept.is_some_and(|(retained, segments)| segments >= retained);
            if !kept && !self.judge.log.trims {
                findings.lost += first - before.max(asked);
                findings.tell(format!(
                    "{}: begins at {first}, not {}, and only {segments:?} segments are kept",
                    self.name,
                    before.max(asked)
                ));
            }
        }
    }

    /// Records that are there without having been acknowledged.
    fn kept_in_flight(&self) -> u64 {
        let acknowledged: u64 = self.acks.iter().map(|ack| ack.offset + 1).max().unwrap_or(0);
        let known = self.known().map_or(0, |known| known.next);
        self.seen.next.saturating_sub(acknowledged.max(known))
    }
}

/// Follows the records of a stream that no life before has found.
struct NewRecords<'a, 'b> {
    stream: &'a OneStream<'b>,
    /// What each producer's next append must be; unknown where the beginning is trimmed.
    next: HashMap<(u32, u32), u64>,
    trimmed: bool,
    /// The batch that is not complete yet: the append, its next index, its records.
    open: Option<(AppendId, u32, u32)>,
}

impl<'a, 'b> NewRecords<'a, 'b> {
    fn new(stream: &'a OneStream<'b>, trimmed: bool) -> Self {
        Self { stream, next: HashMap::new(), trimmed, open: None }
    }

    fn take(&mut self, offset: u64, id: RecordId, findings: &mut Findings) {
        let name = self.stream.name;
        let AppendId { life, producer, append } = id.append;
        let journal = self.stream.judge.since.iter().find(|journal| journal.life.number == life);
        let seed = self.stream.found.life.seed;
        let plan = LifePlan::of(super::plan::Life { seed, number: life });
        let begun = journal.and_then(|journal| journal.begun.get(&producer)).copied().unwrap_or(0);
        if append >= begun || plan.stream_of(producer) != name {
            if self.stream.judge.survives == Survives::Nothing {
                // A lying disk may have taken a trim back; the record is older, and known to be.
                return;
            }
            let known = journal.is_none();
            if known {
                findings.changed += 1;
            } else {
                findings.unsubmitted += 1;
            }
            findings.tell(format!("{name}: {id:?} at {offset} was not appended here ({begun})"));
            return;
        }
        let records = plan.append(producer, append).records;
        if let Some((open, index, count)) = self.open {
            self.open = (index + 1 < count).then_some((open, index + 1, count));
            if id != (RecordId { append: open, index }) {
                findings.reordered += 1;
                findings.tell(format!("{name}: {open:?} is cut at record {index} by {id:?}"));
                self.open = None;
            }
            return;
        }
        let first_seen = !self.next.contains_key(&(life, producer));
        let expected = self.next.insert((life, producer), append + 1).unwrap_or(0);
        let excused = self.trimmed && first_seen;
        if append != expected && !excused {
            findings.reordered += 1;
            findings.tell(format!(
                "{name}: producer {producer} of life {life}: append {append} at {offset}, \
                 expected {expected}"
            ));
        }
        if id.index != 0 && !excused {
            findings.reordered += 1;
            findings.tell(format!("{name}: {id:?} at {offset} without its beginning"));
        }
        if id.index + 1 < records {
            self.open = Some((id.append, id.index + 1, records));
        }
    }

    fn end(self, findings: &mut Findings) {
        if let Some((append, index, records)) = self.open {
            findings.reordered += 1;
            findings.tell(format!(
                "{}: {append:?} has {index} of its {records} records",
                self.stream.name
            ));
        }
    }
}
