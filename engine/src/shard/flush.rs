//! When to flush: the sync policy of a shard as a small machine.
//!
//! It counts what has been placed and not yet covered by a flush that was begun; it knows nothing
//! of files or completions.

use crate::options::{Durability, SyncPolicy};

/// See the module's text.
#[derive(Debug)]
pub(super) struct FlushPlan {
    policy: SyncPolicy,
    records: u64,
    bytes: u64,
    /// When the oldest uncovered record was placed, in monotonic nanoseconds.
    oldest_ns: Option<u64>,
}

impl FlushPlan {
    pub(super) fn new(policy: SyncPolicy) -> Self {
        Self { policy, records: 0, bytes: 0, oldest_ns: None }
    }

    /// Records were placed.
    pub(super) fn placed(&mut self, records: u64, bytes: u64, now_ns: u64) {
        self.records += records;
        self.bytes += bytes;
        self.oldest_ns.get_or_insert(now_ns);
    }

    /// Whether the commit that carries what was just placed is to be flushed with it. `level` is
    /// the strongest durability in that commit.
    pub(super) fn with_commit(&self, level: Durability, now_ns: u64) -> bool {
        match self.policy {
            SyncPolicy::EveryCommit | SyncPolicy::EveryAppend => level == Durability::Synced,
            _ => self.due(now_ns),
        }
    }

    /// Whether a flush is due now.
    pub(super) fn due(&self, now_ns: u64) -> bool {
        let reached = match self.policy {
            SyncPolicy::EveryRecords { records, .. } => self.records >= records,
            SyncPolicy::EveryBytes { bytes, .. } => self.bytes >= bytes,
            _ => false,
        };
        reached || self.deadline_ns().is_some_and(|deadline| deadline <= now_ns)
    }

    /// When a flush becomes due by itself.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        let delay = match self.policy {
            SyncPolicy::Interval(delay)
            | SyncPolicy::EveryRecords { max_delay: delay, .. }
            | SyncPolicy::EveryBytes { max_delay: delay, .. } => delay,
            SyncPolicy::EveryCommit | SyncPolicy::EveryAppend | SyncPolicy::Never => return None,
        };
        self.oldest_ns.map(|oldest| oldest.saturating_add(delay.as_nanos() as u64))
    }

    /// A flush of everything placed so far has been begun.
    pub(super) fn begun(&mut self) {
        self.records = 0;
        self.bytes = 0;
        self.oldest_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MS: u64 = 1_000_000;

    #[test]
    fn group_commit_flushes_only_what_somebody_wants_flushed() {
        let mut plan = FlushPlan::new(SyncPolicy::EveryCommit);
        plan.placed(1, 10, 0);
        assert!(!plan.with_commit(Durability::Written, 0));
        assert!(plan.with_commit(Durability::Synced, 0));
        assert_eq!(plan.deadline_ns(), None);
    }

    #[test]
    fn an_interval_runs_from_the_oldest_uncovered_record() {
        let mut plan = FlushPlan::new(SyncPolicy::Interval(Duration::from_millis(10)));
        assert_eq!(plan.deadline_ns(), None);
        plan.placed(1, 10, 5 * MS);
        plan.placed(1, 10, 9 * MS);
        assert_eq!(plan.deadline_ns(), Some(15 * MS));
        assert!(!plan.due(15 * MS - 1));
        assert!(plan.due(15 * MS));
        plan.begun();
        assert!(!plan.due(100 * MS));
    }

    #[test]
    fn counts_carry_a_maximum_delay() {
        let max_delay = Duration::from_millis(3);
        let mut plan = FlushPlan::new(SyncPolicy::EveryRecords { records: 3, max_delay });
        plan.placed(2, 10, 0);
        assert!(!plan.due(0));
        assert!(plan.due(3 * MS));
        plan.placed(1, 10, MS);
        assert!(plan.due(MS));
        let mut plan = FlushPlan::new(SyncPolicy::EveryBytes { bytes: 100, max_delay });
        plan.placed(1, 99, 0);
        assert!(!plan.due(0));
        plan.placed(1, 1, 0);
        assert!(plan.due(0));
    }
}
