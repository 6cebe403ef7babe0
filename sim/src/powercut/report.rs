//! What the power cuts came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::device::{Cut, Kind};
use crate::live::journal::{Journal, Stage};
use crate::live::judge::Findings;

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Power cuts.
    pub cuts: u64,
    /// Cuts by file system.
    pub by_file_system: BTreeMap<String, u64>,
    /// Cuts by how the log reached the disk.
    pub by_io: BTreeMap<String, u64>,
    /// Cuts by what the log was doing.
    pub by_phase: BTreeMap<&'static str, u64>,
    /// Lives with failing writes or flushes; how many of them told of it.
    pub errors: u64,
    /// How many logs told of it (poisoned), and by what words.
    pub poisoned: u64,
    /// Disks that lied.
    pub lies: u64,
    /// How those ended: loud, or with a prefix.
    pub lies_by_end: BTreeMap<&'static str, u64>,
    /// Disks whose file system could not be mounted any more: the end of them.
    pub unmountable: u64,
    /// Disks.
    pub disks: u64,
    /// Lives of the log.
    pub lives: u64,
    /// Recoveries that were judged.
    pub judged: u64,
    /// Appends that were acknowledged.
    pub acknowledged: u64,
    /// Records in flight that were there after a cut.
    pub in_flight_kept: u64,
    /// Records that recovery wrote again; bytes that it cut.
    pub rewritten: u64,
    /// Bytes that recovery cut.
    pub cut_bytes: u64,
    /// Sectors in the cache at the cuts.
    pub sectors_pending: u64,
    /// How many of them were kept.
    pub sectors_kept: u64,
}

/// Totals and findings.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was done.
    pub totals: Totals,
    /// What was wrong.
    pub findings: Findings,
    /// How long it took.
    pub elapsed: Duration,
}

/// What the log was doing when the power went off.
pub(super) fn phase(stage: Stage, first_life: bool, cut: &Cut) -> &'static str {
    let recent =
        |kind| cut.kinds.contains_key(&kind) || cut.newest.iter().rev().take(2).any(|k| *k == kind);
    match stage {
        Stage::Started | Stage::Opening if first_life => "creation",
        Stage::Started | Stage::Opening | Stage::Reading | Stage::Ready => "recovery",
        Stage::Closing => "close",
        Stage::Closed => "at rest",
        Stage::Appending if recent(Kind::Footer) => "seal",
        Stage::Appending if recent(Kind::Manifest) => "manifest",
        Stage::Appending if recent(Kind::SegmentHeader) => "preparing",
        Stage::Appending if recent(Kind::SmallFile) || recent(Kind::Index) => "index, catalogue",
        Stage::Appending => "steady",
    }
}

impl Totals {
    pub(super) fn cut(&mut self, file_system: &str, io: &str, phase: &'static str, cut: &Cut) {
        self.cuts += 1;
        *self.by_file_system.entry(file_system.to_owned()).or_default() += 1;
        *self.by_io.entry(io.to_owned()).or_default() += 1;
        *self.by_phase.entry(phase).or_default() += 1;
        self.sectors_pending += cut.pending as u64;
        self.sectors_kept += cut.kept as u64;
    }

    pub(super) fn life(&mut self, journal: &Journal) {
        self.lives += 1;
        self.acknowledged += journal.acknowledged;
        self.rewritten += journal.rewritten;
        self.cut_bytes += journal.cut;
    }
}

fn counts<K: fmt::Display>(map: &BTreeMap<K, u64>) -> String {
    let counts: Vec<String> = map.iter().map(|(what, count)| format!("{what} {count}")).collect();
    counts.join(", ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        let mut row = |name: &str, text: String| writeln!(f, "{name:>22}: {text}");
        row("power cuts", totals.cuts.to_string())?;
        row("on", counts(&totals.by_file_system))?;
        row("through", counts(&totals.by_io))?;
        row("while", counts(&totals.by_phase))?;
        row(
            "sectors in the cache",
            format!("{}, {} kept", totals.sectors_pending, totals.sectors_kept),
        )?;
        row(
            "failing disks",
            format!("{}, {} of the logs poisoned", totals.errors, totals.poisoned),
        )?;
        row("lying disks", format!("{} ({})", totals.lies, counts(&totals.lies_by_end)))?;
        row("disks", format!("{}, {} not mountable in the end", totals.disks, totals.unmountable))?;
        row("lives", format!("{}, {} judged", totals.lives, totals.judged))?;
        row("appends acknowledged", totals.acknowledged.to_string())?;
        row(
            "in flight, kept",
            format!("{} records; {} written again", totals.in_flight_kept, totals.rewritten),
        )?;
        for words in &self.findings.words {
            row("WRONG", words.clone())?;
        }
        row("wrong", self.findings.to_string())?;
        row("seconds", format!("{:.1}", self.elapsed.as_secs_f64()))
    }
}
