//! Making a failing history small: what it decided is cut down as long as it still goes wrong in the
//! same way.

use std::ops::Range;

use super::choices::Choices;
use super::{Memories, Report, Setup, Tell, play};

/// A history made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// How it goes, told in steps.
    pub report: Report,
    /// How many decisions there were, and are.
    pub decisions: (usize, usize),
    /// How many histories were tried.
    pub tried: usize,
}

/// Makes the history of a seed small, in at most so many tries; `None` if nothing is wrong with it.
///
/// Whole lives and steps are left out, the longest first, then single decisions are made the least
/// there is, or half of what they were. What remains goes wrong with the same words, numbers aside.
pub fn shrink(seed: u64, setup: &Setup, tries: usize, memories: &mut Memories) -> Option<Shrunk> {
    let quiet = Setup { tell: Tell::Nothing, ..setup.clone() };
    let (report, (record, spans)) =
        play(Choices::new(seed ^ 0x71A6_10C0_57E4_11E5), &quiet, memories);
    let gist = gist(&report.wrong?);
    let before = record.len();
    let mut search = Search { setup: quiet, gist, record, spans, left: tries, memories };
    while search.left > 0 {
        while search.leave_out() {}
        if !search.lessen() {
            break;
        }
    }
    let Search { record, left, memories, .. } = search;
    let after = record.len();
    let told = Setup { tell: Tell::Steps, ..setup.clone() };
    let (report, _) = play(Choices::replay(record), &told, memories);
    Some(Shrunk { report, decisions: (before, after), tried: tries - left })
}

/// What went wrong, without its numbers.
fn gist(wrong: &str) -> String {
    let last = wrong.lines().last().unwrap_or_default();
    last.chars().filter(|c| !c.is_ascii_digit()).take(40).collect()
}

struct Search<'a> {
    setup: Setup,
    gist: String,
    record: Vec<u64>,
    spans: Vec<Range<usize>>,
    left: usize,
    memories: &'a mut Memories,
}

impl Search<'_> {
    /// Takes this record instead, if it goes wrong in the same way.
    fn try_it(&mut self, record: Vec<u64>) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        let (report, (mut record, spans)) =
            play(Choices::replay(record), &self.setup, self.memories);
        if report.wrong.is_none_or(|wrong| gist(&wrong) != self.gist) {
            return false;
        }
        while record.last() == Some(&0) {
            record.pop();
        }
        let smaller = (record.len(), &record) < (self.record.len(), &self.record);
        if smaller {
            (self.record, self.spans) = (record, spans);
        }
        smaller
    }

    /// Leaves out what belongs together, the longest first.
    fn leave_out(&mut self) -> bool {
        let mut shorter = false;
        let mut longest = usize::MAX;
        loop {
            let spans = self.spans.iter().filter(|span| span.end <= self.record.len());
            let next = spans.filter(|s| !s.is_empty() && s.len() < longest).max_by_key(|s| s.len());
            let Some(len) = next.map(ExactSizeIterator::len) else { return shorter };
            longest = len;
            let mut at = self.spans.len();
            while at > 0 {
                at -= 1;
                let Some(span) = self.spans.get(at).cloned() else { continue };
                if span.len() == len && span.end <= self.record.len() {
                    let mut record = self.record.clone();
                    record.drain(span);
                    shorter |= self.try_it(record);
                }
            }
        }
    }

    /// Makes single decisions the least there is, or less.
    fn lessen(&mut self) -> bool {
        let mut less = false;
        for at in (0..self.record.len()).rev() {
            // The least there is, a half, three quarters.
            for quarters in [0, 2, 3] {
                let Some(now) = self.record.get(at).copied().filter(|now| *now > 0) else { break };
                let mut record = self.record.clone();
                record[at] = now / 4 * quarters;
                if self.try_it(record) {
                    less = true;
                    break;
                }
            }
        }
        less
    }
}
