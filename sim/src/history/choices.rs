//! What a history decides: drawn from its seed, recorded as it is drawn, and replayed from a record.
//!
//! A record can be edited and replayed: that is how a failing history is made small without knowing
//! anything about histories (as Hypothesis does it: MacIver and Donaldson, "Test-Case Reduction via
//! Test-Case Generation", 2020). What a replay asks for beyond the record is 0, so 0 stands for the
//! least there is.

use std::ops::Range;

use crate::rng::{Rng, scaled};

/// The decisions of one history. The same methods as [`Rng`].
#[derive(Clone, Debug, Default)]
pub(super) struct Choices {
    source: Source,
    drawn: Vec<u64>,
    /// Ranges of `drawn` that belong together: a life, a step. A range is closed before those that
    /// hold it.
    spans: Vec<Range<usize>>,
    open: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Source {
    Seed(Rng),
    Record(Vec<u64>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Record(Vec::new())
    }
}

impl Choices {
    pub(super) fn new(seed: u64) -> Self {
        Self { source: Source::Seed(Rng::new(seed)), ..Self::default() }
    }

    pub(super) fn replay(record: Vec<u64>) -> Self {
        Self { source: Source::Record(record), ..Self::default() }
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        let next = match &mut self.source {
            Source::Seed(rng) => rng.next_u64(),
            Source::Record(record) => record.get(self.drawn.len()).copied().unwrap_or(0),
        };
        self.drawn.push(next);
        next
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        scaled(self.next_u64(), bound)
    }

    /// An index below `bound`; 0 when the bound is 0.
    pub(super) fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True in half of the cases.
    pub(super) fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }

    /// What is decided from here to [`Choices::leave`] belongs together.
    pub(super) fn enter(&mut self) {
        self.open.push(self.drawn.len());
    }

    pub(super) fn leave(&mut self) {
        if let Some(start) = self.open.pop() {
            self.spans.push(start..self.drawn.len());
        }
    }

    /// Everything that was decided, and what of it belongs together.
    pub(super) fn into_record(self) -> (Vec<u64>, Vec<Range<usize>>) {
        (self.drawn, self.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_the_same_again_and_then_nothing() {
        let mut first = Choices::new(7);
        let drawn: Vec<u64> = (0..5).map(|_| first.below(100)).collect();
        let (record, _) = first.into_record();
        let mut again = Choices::replay(record);
        assert_eq!((0..5).map(|_| again.below(100)).collect::<Vec<u64>>(), drawn);
        assert_eq!((again.below(100), again.coin()), (0, false));
    }

    #[test]
    fn spans_say_what_belongs_together() {
        let mut choices = Choices::new(7);
        choices.enter();
        choices.coin();
        choices.enter();
        choices.coin();
        choices.leave();
        choices.leave();
        assert_eq!(choices.into_record().1, [1..2, 0..2]);
    }
}
