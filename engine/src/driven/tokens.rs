//! The tokens that a caller has left with its appends and requests, and what is to be told of them.
//!
//! Knows numbers of chunks and nothing of records. Invariants: a token comes back exactly once;
//! among appends of one durability, tokens come back in the order of the appends.

use std::collections::VecDeque;

use crate::error::{LogError, ReceiptError};
use crate::options::Durability;
use crate::stats::TrimReport;

/// What has come of an append or a request. Drained with [`super::DrivenShard::events`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The append is acknowledged at the durability it asked for.
    Acknowledged {
        /// The caller's token.
        token: u64,
    },
    /// The append will not be acknowledged. After [`ReceiptError::DiskFull`] it is not stored, and
    /// its offset is given to the next append; after [`ReceiptError::Poisoned`] whether it is
    /// stored is known only after opening again.
    Failed {
        /// The caller's token.
        token: u64,
        /// Why.
        error: ReceiptError,
    },
    /// A request was carried out, or could not be.
    Answered {
        /// The caller's token.
        token: u64,
        /// What came of it.
        result: Result<Answer, LogError>,
    },
}

/// What a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// What a trim removed.
    Trimmed(TrimReport),
}

/// Tokens that wait, and events that the caller has not taken.
#[derive(Default)]
pub(super) struct Tokens {
    /// Number of the chunk, token; in the order of the chunks.
    written: VecDeque<(u64, u64)>,
    synced: VecDeque<(u64, u64)>,
    pub(super) events: Vec<Event>,
    /// Numbers of chunks that were refused: first and last of each run of them, in order.
    refused: Vec<(u64, u64)>,
}

impl Tokens {
    /// A token waits for its chunk.
    pub(super) fn wait(&mut self, level: Durability, chunk: u64, token: u64) {
        let waiting = match level {
            Durability::Memory => return self.events.push(Event::Acknowledged { token }),
            Durability::Written => &mut self.written,
            Durability::Synced => &mut self.synced,
        };
        // Nearly always the last one: only a token that is left late goes further in front.
        let at = waiting.iter().rposition(|(other, _)| *other <= chunk).map_or(0, |at| at + 1);
        waiting.insert(at, (chunk, token));
    }

    /// All chunks up to these numbers have been written, and are durable.
    pub(super) fn reached(&mut self, written_to: u64, durable_to: u64) {
        let lists = [(&mut self.written, written_to), (&mut self.synced, durable_to)];
        for (waiting, to) in lists {
            let behind = waiting.partition_point(|(chunk, _)| *chunk <= to);
            let acknowledged = waiting.drain(..behind);
            self.events.extend(acknowledged.map(|(_, token)| Event::Acknowledged { token }));
        }
    }

    /// A chunk found no room on the disk.
    pub(super) fn refuse(&mut self, chunk: u64) {
        let Self { written, synced, events, refused } = self;
        for waiting in [written, synced] {
            waiting.retain(|(number, token)| {
                let here = *number == chunk;
                if here {
                    events.push(Event::Failed { token: *token, error: ReceiptError::DiskFull });
                }
                !here
            });
        }
        match refused.last_mut() {
            Some((_, last)) if *last + 1 == chunk => *last = chunk,
            _ => refused.push((chunk, chunk)),
        }
    }

    /// Whether a chunk was refused.
    pub(super) fn is_refused(&self, chunk: u64) -> bool {
        let behind = self.refused.partition_point(|(first, _)| *first <= chunk);
        behind > 0 && self.refused[behind - 1].1 >= chunk
    }

    /// Nothing will be acknowledged any more.
    pub(super) fn fail_all(&mut self, error: &ReceiptError) {
        for (_, token) in self.written.drain(..).chain(self.synced.drain(..)) {
            self.events.push(Event::Failed { token, error: error.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tokens: &mut Tokens) -> Vec<u64> {
        let token = |event| match event {
            Event::Acknowledged { token } => token,
            Event::Failed { token, .. } => 1000 + token,
            Event::Answered { token, .. } => 2000 + token,
        };
        tokens.events.drain(..).map(token).collect()
    }

    #[test]
    fn tokens_come_back_once_and_in_order() {
        let mut tokens = Tokens::default();
        tokens.wait(Durability::Synced, 1, 10);
        tokens.wait(Durability::Written, 1, 11);
        tokens.wait(Durability::Memory, 2, 12);
        tokens.wait(Durability::Synced, 3, 13);
        tokens.wait(Durability::Synced, 2, 14);
        tokens.wait(Durability::Synced, 2, 15);
        assert_eq!(told(&mut tokens), [12]);
        tokens.reached(2, 0);
        assert_eq!(told(&mut tokens), [11]);
        tokens.reached(3, 2);
        assert_eq!(told(&mut tokens), [10, 14, 15]);
        tokens.reached(3, 3);
        tokens.reached(3, 3);
        assert_eq!(told(&mut tokens), [13]);
    }

    #[test]
    fn a_refused_chunk_fails_its_tokens_and_no_others() {
        let mut tokens = Tokens::default();
        for chunk in 1..=6 {
            tokens.wait(Durability::Synced, chunk, chunk);
        }
        for chunk in [3, 4, 6] {
            tokens.refuse(chunk);
        }
        assert_eq!(told(&mut tokens), [1003, 1004, 1006]);
        let refused: Vec<u64> = (0..9).filter(|chunk| tokens.is_refused(*chunk)).collect();
        assert_eq!(refused, [3, 4, 6]);
        tokens.reached(6, 2);
        assert_eq!(told(&mut tokens), [1, 2]);
        tokens.fail_all(&ReceiptError::Closed);
        assert_eq!(told(&mut tokens), [1005]);
    }
}
