//! The oracle: what a recovery may bring back, given what was submitted and acknowledged.
//!
//! It knows neither the engine's types nor its format, so that both cannot be wrong in the same
//! way. A test keeps a [`Ledger`] beside the log:
//! - each append that the log *accepted* is entered with [`Ledger::submit`], in the order in which
//!   its shard placed it (one producer: the order of its calls; several: the order of the
//!   positions that the log gave them). What was refused is not entered;
//! - each acknowledgement is entered with [`Ledger::acknowledge`];
//! - after a fault and a recovery, everything is read back and [`Ledger::judge`] gives a
//!   [`Verdict`]; then [`Ledger::adopt`] makes what was recovered the start of the next life.
//!
//! Rules, after every recovery:
//! - **O1** what was acknowledged at a level that survives the fault is there, bit for bit;
//! - **O2** of each shard a prefix is there, in order and without a hole; an append is there whole
//!   or not at all; positions that were given out hold;
//! - **O3** nothing is there that was never submitted;
//! - **O4** recovering again gives the same ([`judge_repeat`]). A recovery that was itself cut
//!   short is judged by the same ledger as an undisturbed one; and since `adopt` counts everything
//!   recovered as durable, whatever a finished recovery served has to be there ever after;
//! - **O5** what a recovery has cut off never comes back;
//! - **O6** a fault that is part of life is no reason to refuse to open;
//! - **O8** what was trimmed, acknowledged or served as trimmed, never comes back, and nothing is
//!   trimmed that nobody asked for;
//! - **O7** other damage is never silent, but for what was not yet proven durable.
//!
//! Offsets of a stream are 0, 1, 2, … in the order of placement. Payloads should be unique
//! ([`Ledger::payload`]): the rules hold without, but a wrong record is told apart by its bytes.
//! Judging costs a comparison of everything submitted with everything recovered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// The level at which an append was acknowledged, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Survives nothing but a clean close.
    Memory,
    /// Survives the death of the process.
    Written,
    /// Survives a power cut.
    Synced,
}

/// What had happened before the log was opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The log was closed without an error: every acknowledgement holds.
    CleanClose,
    /// The process died: `Written` and `Synced` hold.
    ProcessKill,
    /// A write or a flush had failed before the process died or let the log go. `Synced` holds.
    /// `Written` does not: a failed flush may drop from the cache what the device had accepted.
    FailedLog,
    /// The power was cut: `Synced` holds.
    PowerCut,
    /// The power was cut and the disk had lied about flushes: a prefix, or a loud error.
    LyingDisk,
    /// Stored bytes were damaged after a clean close, or after a crash and a recovery. A loud
    /// error is right; silence only if every append up to this one (by
    /// [`Ledger::submit`]'s number) is intact; `None` if nothing was proven durable yet.
    Damage {
        /// The last append that the log can prove to have been durable.
        proven: Option<AppendId>,
    },
}

impl FaultKind {
    /// The weakest level that must have survived; `None` if none must.
    fn survives(self) -> Option<Level> {
        match self {
            Self::CleanClose => Some(Level::Memory),
            Self::ProcessKill => Some(Level::Written),
            Self::FailedLog | Self::PowerCut => Some(Level::Synced),
            Self::LyingDisk | Self::Damage { .. } => None,
        }
    }

    /// Whether the log may refuse to open, or report that something is missing.
    fn excuses_loud_errors(self) -> bool {
        matches!(self, Self::LyingDisk | Self::Damage { .. })
    }
}

/// Names one append of a ledger; grows in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// What was read back after a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Offset and payload of each record, by stream, in the order in which they were read.
    pub streams: BTreeMap<String, Vec<(u64, Vec<u8>)>>,
    /// Offsets that the log itself reported as damaged or missing, by stream.
    pub reported_gaps: BTreeMap<String, Vec<Range<u64>>>,
}

/// How the log was found after the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It opened and was read to the end.
    Opened(Recovered),
    /// It refused, or a read failed, with this error.
    Refused(String),
}

/// The rules by their number in this module's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Acknowledged and lost.
    O1,
    /// Out of order, with a hole, or in part.
    O2,
    /// Never submitted.
    O3,
    /// Not the same the second time.
    O4,
    /// From an older life.
    O5,
    /// A loud error without a reason.
    O6,
    /// Silent damage.
    O7,
    /// Trimmed and back, or trimmed for nothing.
    O8,
}

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub rule: Rule,
    /// What was found, in words.
    pub message: String,
}

/// What the oracle found: nothing, if all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// The rules that were broken.
    pub findings: Vec<Finding>,
    /// How many appends of this ledger are there, whole.
    pub appends_kept: usize,
    /// How many are not, whether or not they had to be.
    pub appends_lost: usize,
}

impl Verdict {
    /// Whether no rule was broken.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether this rule was broken.
    pub fn breaks(&self, rule: Rule) -> bool {
        self.findings.iter().any(|f| f.rule == rule)
    }

    /// Panics with every finding unless all is well; `context` (a seed) goes in front.
    #[track_caller]
    pub fn assert_good(&self, context: impl fmt::Display) {
        assert!(self.is_good(), "{context}: {self}");
    }

    fn found(&mut self, rule: Rule, message: String) {
        self.findings.push(Finding { rule, message });
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} appends kept, {} lost", self.appends_kept, self.appends_lost)?;
        for finding in &self.findings {
            write!(f, "\n  {:?}: {}", finding.rule, finding.message)?;
        }
        Ok(())
    }
}

/// One record of an append.
#[derive(Clone, Debug)]
struct Record {
    stream: String,
    offset: u64,
    payload: Vec<u8>,
}

/// One append: its records are there together or not at all.
#[derive(Clone, Debug)]
struct Append {
    id: AppendId,
    shard: u32,
    records: Vec<Record>,
    acknowledged: Option<Level>,
}

/// How much of an append was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Whole,
    Part,
    Nothing,
    /// All of it was trimmed, or lies in a gap that was reported.
    Excused,
}

/// What was submitted and acknowledged, over all lives of one log.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    next_append: u64,
    next_payload: u64,
    /// In the order of placement.
    live: Vec<Append>,
    /// Cut off by a recovery.
    dead: Vec<Append>,
    next_offset: BTreeMap<String, u64>,
    trimmed: BTreeMap<String, u64>,
    /// Trims of streams: below the first, records must be gone; below the second they may be.
    stream_trims: BTreeMap<String, (u64, u64)>,
    /// Positions that contradict the order of placement.
    misplaced: Vec<String>,
}

impl Ledger {
    /// The ledger of an empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// A payload of `len` bytes that no other call gives, if `len` is at least 8.
    pub fn payload(&mut self, len: usize) -> Vec<u8> {
        self.next_payload += 1;
        let mut rng = crate::Rng::new(self.next_payload);
        let mut bytes = self.next_payload.to_le_bytes().to_vec();
        while bytes.len() < len {
            bytes.extend(rng.next_u64().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Enters an append that the log accepted: its records by stream, all in this shard.
    pub fn submit(&mut self, shard: u32, records: Vec<(String, Vec<u8>)>) -> AppendId {
        self.next_append += 1;
        let id = AppendId(self.next_append);
        let records = records
            .into_iter()
            .map(|(stream, payload)| {
                let next = self.next_offset.entry(stream.clone()).or_default();
                let offset = *next;
                *next += 1;
                Record { stream, offset, payload }
            })
            .collect();
        self.live.push(Append { id, shard, records, acknowledged: None });
        id
    }

    /// Enters an append of one record.
    pub fn submit_one(&mut self, shard: u32, stream: &str, payload: &[u8]) -> AppendId {
        self.submit(shard, vec![(stream.to_string(), payload.to_vec())])
    }

    /// Enters where the log has placed the first record of an append, acknowledged or not.
    pub fn placed(&mut self, id: AppendId, first_offset: u64) {
        match self.live.binary_search_by_key(&id, |append| append.id) {
            Ok(at) => {
                if let Some(first) = self.live[at].records.first()
                    && first.offset != first_offset
                {
                    let place = format!("{}/{}", first.stream, first.offset);
                    self.misplaced.push(format!(
                        "{id:?} got the offset {first_offset}, but comes at {place}"
                    ));
                }
            }
            Err(_) => {
                self.misplaced.push(format!("{id:?} was placed after it had been cut off"));
            }
        }
    }

    /// Enters that the log has acknowledged an append at this level, with its first record at this
    /// offset of its stream. A weaker level than one before changes nothing.
    pub fn acknowledge(&mut self, id: AppendId, level: Level, first_offset: u64) {
        self.placed(id, first_offset);
        if let Ok(at) = self.live.binary_search_by_key(&id, |append| append.id) {
            let append = &mut self.live[at];
            append.acknowledged = append.acknowledged.max(Some(level));
        }
    }

    /// The offset that the next record of a stream gets, if nothing is cut off.
    pub fn next_offset(&self, stream: &str) -> u64 {
        self.next_offset.get(stream).copied().unwrap_or_default()
    }

    /// The streams that records were submitted to.
    pub fn streams(&self) -> impl Iterator<Item = &String> {
        self.next_offset.keys()
    }

    /// The append submitted last of those that may still be there.
    pub fn last_append(&self) -> Option<AppendId> {
        self.live.last().map(|append| append.id)
    }

    /// Enters that a trim was asked for: records of this stream below this offset may be gone.
    pub fn trimmed(&mut self, stream: &str, before: u64) {
        let limit = self.trimmed.entry(stream.to_string()).or_default();
        *limit = before.max(*limit);
    }

    /// Enters that a trim of a stream was accepted: its records below this offset may be gone, once
    /// the log says so.
    pub fn trim_asked(&mut self, stream: &str, before: u64) {
        let (_, may) = self.stream_trims.entry(stream.to_string()).or_default();
        *may = before.max(*may);
    }

    /// Enters that such a trim was acknowledged: from now on those records are gone.
    pub fn trim_acknowledged(&mut self, stream: &str, before: u64) {
        let (must, may) = self.stream_trims.entry(stream.to_string()).or_default();
        *must = before.max(*must);
        *may = before.max(*may);
    }

    /// Enters where a recovered log says that a stream begins, because it was trimmed: judges that,
    /// and takes it for granted from now on. To be called before [`Ledger::judge`].
    pub fn trims_found(&mut self, stream: &str, first: u64, fault: FaultKind) -> Verdict {
        let mut verdict = Verdict::default();
        let (must, may) = self.stream_trims.entry(stream.to_string()).or_default();
        // Where the log may have lost its end, it may have lost trims with it.
        let least = if fault.excuses_loud_errors() { 0 } else { *must };
        if !(least..=*may).contains(&first) {
            let what = format!("{stream} begins at {first}, must at {must}, may at {may}");
            verdict.found(Rule::O8, what);
        }
        // A trim that was cut off does not happen any more.
        (*must, *may) = (first, first);
        self.trimmed(stream, first);
        verdict
    }

    /// Whether trims of streams were asked for, or found.
    pub fn knows_trims(&self) -> bool {
        !self.stream_trims.is_empty()
    }

    /// Every record that may still be there: stream, offset, payload.
    pub fn records(&self) -> impl Iterator<Item = (&str, u64, &[u8])> {
        let records = self.live.iter().flat_map(|append| &append.records);
        records.map(|record| (&*record.stream, record.offset, &*record.payload))
    }

    /// How many appends may still be there.
    pub fn live_appends(&self) -> usize {
        self.live.len()
    }

    /// Holds what was found against what may be there.
    pub fn judge(&self, outcome: &Outcome, fault: FaultKind) -> Verdict {
        let mut verdict = Verdict::default();
        for message in &self.misplaced {
            verdict.found(Rule::O2, message.clone());
        }
        match outcome {
            Outcome::Refused(error) => {
                if !fault.excuses_loud_errors() {
                    verdict.found(Rule::O6, format!("the log refused after {fault:?}: {error}"));
                }
            }
            Outcome::Opened(recovered) => {
                if !fault.excuses_loud_errors() && !recovered.reported_gaps.is_empty() {
                    let gaps = &recovered.reported_gaps;
                    verdict.found(Rule::O6, format!("gaps reported after {fault:?}: {gaps:?}"));
                }
                if !fault.excuses_loud_errors() {
                    self.judge_trims(recovered, &mut verdict);
                }
                let present = self.match_records(recovered, &mut verdict);
                self.judge_appends(recovered, &present, fault, &mut verdict);
            }
        }
        verdict
    }

    fn judge_trims(&self, recovered: &Recovered, verdict: &mut Verdict) {
        for (stream, (must, _)) in &self.stream_trims {
            let records = recovered.streams.get(stream).map_or(&[][..], |records| records);
            if let Some((offset, _)) = records.iter().find(|(offset, _)| offset < must) {
                let what = format!("{stream}/{offset} is there, trimmed before {must}");
                verdict.found(Rule::O8, what);
            }
        }
    }

    /// The recovered content becomes the start of the next life: what is not in it must never come
    /// back, what is in it must always be there. To be called after a good verdict.
    pub fn adopt(&mut self, recovered: &Recovered) {
        let present = self.match_records(recovered, &mut Verdict::default());
        let (kept, cut): (Vec<Append>, Vec<Append>) =
            std::mem::take(&mut self.live).into_iter().partition(|append| {
                matches!(self.found(append, recovered, &present), Found::Whole | Found::Excused)
            });
        self.live = kept;
        for append in &mut self.live {
            append.acknowledged = Some(Level::Synced);
        }
        for record in cut.iter().flat_map(|append| &append.records) {
            let next = self.next_offset.entry(record.stream.clone()).or_default();
            *next = record.offset.min(*next);
        }
        self.dead.extend(cut);
    }

    /// Holds each recovered record against the one that belongs there; gives those that are right.
    fn match_records<'a>(
        &self,
        recovered: &'a Recovered,
        verdict: &mut Verdict,
    ) -> BTreeSet<(&'a str, u64)> {
        let mut expected: BTreeMap<(&str, u64), &[u8]> = BTreeMap::new();
        for record in self.live.iter().flat_map(|append| &append.records) {
            expected.insert((&record.stream, record.offset), &record.payload);
        }
        let mut present = BTreeSet::new();
        for (stream, records) in &recovered.streams {
            for pair in records.windows(2) {
                if pair[0].0 >= pair[1].0 {
                    let (a, b) = (pair[0].0, pair[1].0);
                    verdict.found(Rule::O2, format!("{stream}: offset {b} was read after {a}"));
                }
            }
            for (offset, payload) in records {
                if expected.get(&(stream.as_str(), *offset)) == Some(&payload.as_slice()) {
                    present.insert((stream.as_str(), *offset));
                } else {
                    let (rule, origin) = self.origin(payload);
                    let bytes = payload.len();
                    let what = format!("{stream}/{offset} holds a record of {bytes} bytes");
                    verdict.found(rule, format!("{what} that {origin}"));
                }
            }
        }
        present
    }

    /// Where a record comes from that does not belong where it was found.
    fn origin(&self, payload: &[u8]) -> (Rule, String) {
        let find = |appends: &[Append]| {
            let mut all = appends.iter().flat_map(|a| a.records.iter().map(move |r| (a.id, r)));
            all.find(|(_, record)| record.payload == payload)
                .map(|(id, record)| format!("{id:?}, {}/{}", record.stream, record.offset))
        };
        if let Some(place) = find(&self.live) {
            (Rule::O2, format!("belongs elsewhere ({place})"))
        } else if let Some(place) = find(&self.dead) {
            (Rule::O5, format!("an earlier recovery had cut off ({place})"))
        } else {
            (Rule::O3, "was never submitted".to_string())
        }
    }

    fn found(
        &self,
        append: &Append,
        recovered: &Recovered,
        present: &BTreeSet<(&str, u64)>,
    ) -> Found {
        let excused = |record: &Record| {
            let trimmed = self.trimmed.get(&record.stream).is_some_and(|t| record.offset < *t);
            let gaps = recovered.reported_gaps.get(&record.stream);
            trimmed || gaps.is_some_and(|gaps| gaps.iter().any(|g| g.contains(&record.offset)))
        };
        let (mut there, mut missing) = (0, 0);
        for record in &append.records {
            if present.contains(&(record.stream.as_str(), record.offset)) {
                there += 1;
            } else if !excused(record) {
                missing += 1;
            }
        }
        match (there, missing) {
            (0, 0) => Found::Excused,
            (_, 0) => Found::Whole,
            (0, _) => Found::Nothing,
            _ => Found::Part,
        }
    }

    fn judge_appends(
        &self,
        recovered: &Recovered,
        present: &BTreeSet<(&str, u64)>,
        fault: FaultKind,
        verdict: &mut Verdict,
    ) {
        let mut first_lost: BTreeMap<u32, AppendId> = BTreeMap::new();
        for append in &self.live {
            let found = self.found(append, recovered, present);
            let Append { id, shard, .. } = append;
            match found {
                Found::Excused => continue,
                Found::Whole => {
                    verdict.appends_kept += 1;
                    if let Some(lost) = first_lost.get(shard) {
                        let hole = format!("{id:?} is there, {lost:?} before it is not");
                        verdict.found(Rule::O2, format!("shard {shard} has a hole: {hole}"));
                    }
                    continue;
                }
                Found::Part => {
                    verdict.found(Rule::O2, format!("{} is there in part", describe(append)));
                }
                Found::Nothing => {}
            }
            verdict.appends_lost += 1;
            first_lost.entry(*shard).or_insert(*id);
            let level = append.acknowledged;
            if level.is_some() && fault.survives().is_some_and(|weakest| level >= Some(weakest)) {
                let what = describe(append);
                verdict.found(Rule::O1, format!("{what} is lost after {fault:?}"));
            }
            if let FaultKind::Damage { proven } = fault
                && Some(*id) <= proven
            {
                verdict.found(Rule::O7, format!("{} is gone without a word", describe(append)));
            }
        }
    }
}

fn describe(append: &Append) -> String {
    let Append { id, shard, records, acknowledged } = append;
    let place = records.first().map(|r| format!("{}/{}", r.stream, r.offset)).unwrap_or_default();
    let level = match acknowledged {
        Some(level) => format!("acknowledged as {level:?}"),
        None => "not acknowledged".to_string(),
    };
    format!("{id:?} (shard {shard}, {} records from {place}, {level})", records.len())
}

/// O4: two recoveries one after the other, with nothing appended in between, give the same.
pub fn judge_repeat(first: &Outcome, second: &Outcome) -> Verdict {
    let mut verdict = Verdict::default();
    match (first, second) {
        (Outcome::Opened(a), Outcome::Opened(b)) => {
            let names: BTreeSet<&String> = a.streams.keys().chain(b.streams.keys()).collect();
            for name in names {
                let (a, b) = (a.streams.get(name), b.streams.get(name));
                if a.map_or(&[][..], |r| r) != b.map_or(&[][..], |r| r) {
                    let count = |r: Option<&Vec<_>>| r.map_or(0, Vec::len);
                    let (a, b) = (count(a), count(b));
                    let what = format!("{name}: {a} records, then {b}, or other ones");
                    verdict.found(Rule::O4, what);
                }
            }
        }
        (Outcome::Refused(_), Outcome::Refused(_)) => {}
        (Outcome::Refused(error), Outcome::Opened(_)) => {
            verdict.found(Rule::O4, format!("refused ({error}), then opened"));
        }
        (Outcome::Opened(_), Outcome::Refused(error)) => {
            verdict.found(Rule::O4, format!("opened, then refused: {error}"));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four appends of shard 0 on stream `s`: two synced, one written, one not acknowledged.
    fn ledger() -> (Ledger, Vec<Vec<u8>>) {
        let mut ledger = Ledger::new();
        let payloads: Vec<Vec<u8>> = (0..4).map(|_| ledger.payload(20)).collect();
        let ids: Vec<AppendId> = payloads.iter().map(|p| ledger.submit_one(0, "s", p)).collect();
        ledger.acknowledge(ids[0], Level::Synced, 0);
        ledger.acknowledge(ids[1], Level::Synced, 1);
        ledger.acknowledge(ids[2], Level::Written, 2);
        (ledger, payloads)
    }

    fn content(records: &[(u64, &[u8])]) -> Recovered {
        let records = records.iter().map(|(o, p)| (*o, p.to_vec())).collect();
        Recovered { streams: BTreeMap::from([("s".to_string(), records)]), ..Recovered::default() }
    }

    fn prefix(payloads: &[Vec<u8>]) -> Recovered {
        let records: Vec<(u64, &[u8])> =
            payloads.iter().enumerate().map(|(i, p)| (i as u64, p.as_slice())).collect();
        content(&records)
    }

    fn rules(verdict: &Verdict) -> BTreeSet<Rule> {
        verdict.findings.iter().map(|f| f.rule).collect()
    }

    fn judge(ledger: &Ledger, recovered: Recovered, fault: FaultKind) -> BTreeSet<Rule> {
        rules(&ledger.judge(&Outcome::Opened(recovered), fault))
    }

    const GOOD: BTreeSet<Rule> = BTreeSet::new();
    const CUT: FaultKind = FaultKind::PowerCut;

    #[test]
    fn any_prefix_with_what_must_survive_is_good() {
        let (ledger, p) = ledger();
        for (fault, least) in [
            (FaultKind::PowerCut, 2),
            (FaultKind::ProcessKill, 3),
            (FaultKind::FailedLog, 2),
            (FaultKind::CleanClose, 3),
            (FaultKind::LyingDisk, 0),
        ] {
            for n in 0..=4 {
                let broken = judge(&ledger, prefix(&p[..n]), fault);
                let expected = if n >= least { GOOD } else { BTreeSet::from([Rule::O1]) };
                assert_eq!(broken, expected, "{fault:?} {n}");
            }
        }
    }

    #[test]
    fn what_only_memory_held_survives_a_clean_close_alone() {
        let mut ledger = Ledger::new();
        let id = ledger.submit_one(0, "s", b"m");
        ledger.acknowledge(id, Level::Memory, 0);
        let none = Recovered::default;
        assert_eq!(judge(&ledger, none(), FaultKind::ProcessKill), GOOD);
        assert_eq!(judge(&ledger, none(), FaultKind::CleanClose), BTreeSet::from([Rule::O1]));
    }

    #[test]
    fn holes_wrong_order_and_strangers_are_found() {
        let (ledger, p) = ledger();
        let holed = content(&[(0, &p[0]), (1, &p[1]), (3, &p[3])]);
        assert_eq!(judge(&ledger, holed, CUT), BTreeSet::from([Rule::O2]));
        let swapped = content(&[(0, &p[0]), (1, &p[1]), (2, &p[3]), (3, &p[2])]);
        assert_eq!(judge(&ledger, swapped, CUT), BTreeSet::from([Rule::O2]));
        let twice = content(&[(0, &p[0]), (1, &p[1]), (1, &p[1])]);
        assert_eq!(judge(&ledger, twice, CUT), BTreeSet::from([Rule::O2]));
        let stranger = content(&[(0, &p[0]), (1, &p[1]), (2, b"stranger")]);
        assert_eq!(judge(&ledger, stranger, CUT), BTreeSet::from([Rule::O3]));
        let mut flipped = p.clone();
        flipped[1][3] ^= 1;
        assert_eq!(judge(&ledger, prefix(&flipped), CUT), {
            BTreeSet::from([Rule::O1, Rule::O2, Rule::O3])
        });
        let behind = content(&[(0, &p[0]), (1, &p[1]), (2, &p[2]), (3, &p[3]), (4, &p[3])]);
        assert_eq!(judge(&ledger, behind, CUT), BTreeSet::from([Rule::O2]));
    }

    #[test]
    fn a_batch_is_there_whole_or_not_at_all_also_over_streams() {
        let mut ledger = Ledger::new();
        let batch = vec![("s".to_string(), b"one".to_vec()), ("t".to_string(), b"two".to_vec())];
        ledger.submit(0, batch);
        assert_eq!(judge(&ledger, Recovered::default(), CUT), GOOD);
        assert_eq!(judge(&ledger, content(&[(0, b"one")]), CUT), BTreeSet::from([Rule::O2]));
        let mut whole = content(&[(0, b"one")]);
        whole.streams.insert("t".to_string(), vec![(0, b"two".to_vec())]);
        assert_eq!(judge(&ledger, whole, CUT), GOOD);
    }

    #[test]
    fn shards_are_cut_on_their_own_and_streams_of_one_shard_together() {
        let build = |shard_of_t| {
            let mut ledger = Ledger::new();
            ledger.submit_one(shard_of_t, "t", b"t0");
            ledger.submit_one(0, "s", b"s0");
            judge(&ledger, content(&[(0, b"s0")]), CUT)
        };
        assert_eq!(build(1), GOOD);
        assert_eq!(build(0), BTreeSet::from([Rule::O2]));
    }

    #[test]
    fn a_position_that_does_not_fit_the_order_is_found() {
        let mut ledger = Ledger::new();
        let id = ledger.submit_one(0, "s", b"a");
        ledger.acknowledge(id, Level::Synced, 1);
        assert_eq!(judge(&ledger, content(&[(0, b"a")]), CUT), BTreeSet::from([Rule::O2]));
    }

    #[test]
    fn what_was_cut_off_never_comes_back_and_what_was_served_stays() {
        let (mut ledger, p) = ledger();
        let recovered = prefix(&p[..3]);
        ledger.judge(&Outcome::Opened(recovered.clone()), CUT).assert_good("first");
        ledger.adopt(&recovered);
        assert_eq!(judge(&ledger, prefix(&p), CUT), BTreeSet::from([Rule::O5]));
        assert_eq!(judge(&ledger, prefix(&p[..2]), CUT), BTreeSet::from([Rule::O1]));
        let new = ledger.payload(20);
        let id = ledger.submit_one(0, "s", &new);
        ledger.acknowledge(id, Level::Synced, 3);
        let good = content(&[(0, &p[0]), (1, &p[1]), (2, &p[2]), (3, &new)]);
        assert_eq!(judge(&ledger, good, CUT), GOOD);
        assert_eq!(judge(&ledger, prefix(&p), CUT), BTreeSet::from([Rule::O1, Rule::O5]));
    }

    #[test]
    fn trimmed_records_may_be_gone_or_there() {
        let (mut ledger, p) = ledger();
        ledger.trimmed("s", 2);
        for from in 0..=2 {
            let kept: Vec<(u64, &[u8])> = (from..4).map(|i| (i as u64, &p[i][..])).collect();
            assert_eq!(judge(&ledger, content(&kept), CUT), GOOD);
        }
        assert_eq!(judge(&ledger, content(&[(3, &p[3])]), FaultKind::ProcessKill), {
            BTreeSet::from([Rule::O1, Rule::O2])
        });
        let recovered = content(&[(2, &p[2])]);
        ledger.adopt(&recovered);
        assert_eq!(judge(&ledger, recovered, CUT), GOOD);
        let id = ledger.submit_one(0, "s", b"next");
        ledger.acknowledge(id, Level::Synced, 3);
        assert_eq!(judge(&ledger, content(&[(2, &p[2]), (3, b"next")]), CUT), GOOD);
    }

    #[test]
    fn a_trim_of_a_stream_holds_once_acknowledged_and_goes_no_further_than_asked() {
        let (mut ledger, p) = ledger();
        ledger.trim_asked("s", 3);
        assert!(ledger.clone().trims_found("s", 0, CUT).is_good(), "it was cut off");
        assert!(ledger.clone().trims_found("s", 4, CUT).breaks(Rule::O8));
        ledger.trim_acknowledged("s", 2);
        assert!(ledger.clone().trims_found("s", 1, CUT).breaks(Rule::O8));
        assert!(ledger.trims_found("s", 2, CUT).is_good());
        assert_eq!(judge(&ledger, content(&[(2, &p[2]), (3, &p[3])]), CUT), GOOD);
        assert_eq!(judge(&ledger, content(&[(1, &p[1]), (2, &p[2])]), CUT), {
            BTreeSet::from([Rule::O8])
        });
        assert!(ledger.clone().trims_found("s", 3, CUT).breaks(Rule::O8), "it was cut off before");
    }

    #[test]
    fn a_refusal_is_right_after_damage_and_wrong_after_a_crash() {
        let (ledger, _) = ledger();
        let refused = Outcome::Refused("bad frame".to_string());
        assert_eq!(rules(&ledger.judge(&refused, CUT)), BTreeSet::from([Rule::O6]));
        let damage = FaultKind::Damage { proven: Some(AppendId(2)) };
        assert_eq!(rules(&ledger.judge(&refused, damage)), GOOD);
        assert_eq!(rules(&ledger.judge(&refused, FaultKind::LyingDisk)), GOOD);
    }

    #[test]
    fn damage_is_silent_only_above_what_was_proven() {
        let (ledger, p) = ledger();
        let damage = FaultKind::Damage { proven: Some(AppendId(2)) };
        assert_eq!(judge(&ledger, prefix(&p[..2]), damage), GOOD);
        assert_eq!(judge(&ledger, prefix(&p[..1]), damage), BTreeSet::from([Rule::O7]));
        let unproven = FaultKind::Damage { proven: None };
        assert_eq!(judge(&ledger, Recovered::default(), unproven), GOOD);
    }

    #[test]
    fn a_gap_that_was_reported_is_not_silent() {
        let (ledger, p) = ledger();
        let mut gappy = content(&[(0, &p[0]), (2, &p[2]), (3, &p[3])]);
        gappy.reported_gaps.insert("s".to_string(), vec![Range { start: 1, end: 2 }]);
        let damage = FaultKind::Damage { proven: Some(AppendId(3)) };
        assert_eq!(judge(&ledger, gappy.clone(), damage), GOOD);
        assert_eq!(judge(&ledger, gappy, CUT), BTreeSet::from([Rule::O6]));
    }

    #[test]
    fn two_recoveries_must_agree() {
        let (_, p) = ledger();
        let opened = |n: usize| Outcome::Opened(prefix(&p[..n]));
        let refused = || Outcome::Refused("no".to_string());
        assert!(judge_repeat(&opened(2), &opened(2)).is_good());
        assert!(judge_repeat(&opened(0), &Outcome::Opened(Recovered::default())).is_good());
        assert!(judge_repeat(&opened(2), &opened(3)).breaks(Rule::O4));
        assert!(judge_repeat(&opened(2), &refused()).breaks(Rule::O4));
        assert!(judge_repeat(&refused(), &opened(2)).breaks(Rule::O4));
    }

    #[test]
    fn payloads_are_unique_and_as_long_as_asked() {
        let mut ledger = Ledger::new();
        let all: BTreeSet<Vec<u8>> = (0..100).map(|_| ledger.payload(8)).collect();
        assert_eq!(all.len(), 100);
        assert_eq!(ledger.payload(3).len(), 3);
        assert_eq!(ledger.payload(100).len(), 100);
        assert_eq!(ledger.payload(0), Vec::<u8>::new());
    }
}
