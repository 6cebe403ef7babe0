//! When to flush: the sync policy of a shard as a small machine.
//!
//! It counts what has been placed and not yet covered by a flush that was begun; it knows nothing
//! of files or completions.

use std::collections::{BTreeMap, HashMap};

use crate::ids::StreamId;
use crate::options::{Durability, SyncPolicy};

/// The plans of all policies of a shard: that of the log, and those of streams that differ.
#[derive(Debug)]
pub(super) struct FlushPlans {
    policies: BTreeMap<String, SyncPolicy>,
    /// The first is the log's own.
    plans: Vec<FlushPlan>,
    of: HashMap<StreamId, usize>,
    /// Nothing waits for a count or for time, until the next flush.
    hurried: bool,
}

impl FlushPlans {
    pub(super) fn new(policy: SyncPolicy, streams: &BTreeMap<String, SyncPolicy>) -> Self {
        let plans = vec![FlushPlan::new(policy)];
        Self { policies: streams.clone(), plans, of: HashMap::new(), hurried: false }
    }

    /// A stream is there.
    pub(super) fn know(&mut self, stream: StreamId, name: &str) {
        let Some(policy) = self.policies.get(name) else { return };
        let known = self.plans.iter().position(|plan| plan.policy == *policy);
        let at = known.unwrap_or_else(|| {
            self.plans.push(FlushPlan::new(*policy));
            self.plans.len() - 1
        });
        self.of.insert(stream, at);
    }

    /// Records of a stream were placed.
    pub(super) fn placed(
        &mut self,
        stream: StreamId,
        records: u64,
        bytes: u64,
        level: Durability,
        now_ns: u64,
    ) {
        let at = match self.of.is_empty() {
            true => 0,
            false => self.of.get(&stream).copied().unwrap_or(0),
        };
        self.plans[at].placed(records, bytes, level, now_ns);
    }

    /// Whether the commit that carries what was just placed is to be flushed with it.
    pub(super) fn with_commit(&self, now_ns: u64) -> bool {
        self.plans.iter().any(|plan| plan.with_commit(now_ns) || plan.gives_in(self.hurried))
    }

    /// Whether a flush is due now.
    pub(super) fn due(&self, now_ns: u64) -> bool {
        self.plans.iter().any(|plan| plan.due(now_ns) || plan.gives_in(self.hurried))
    }

    /// When a flush becomes due by itself.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.plans.iter().filter_map(FlushPlan::deadline_ns).min()
    }

    /// Whether what nobody waits for is to be flushed once there is nothing else to do.
    pub(super) fn flushes_when_idle(&self) -> bool {
        self.plans.iter().any(|plan| {
            let counts = plan.oldest_ns.is_some();
            counts && matches!(plan.policy, SyncPolicy::EveryCommit | SyncPolicy::EveryAppend)
        })
    }

    /// Memory runs low: what would wait for a count or for time does not.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// A flush of everything placed so far has been begun.
    pub(super) fn begun(&mut self) {
        self.hurried = false;
        self.plans.iter_mut().for_each(FlushPlan::begun);
    }
}

/// The plan of one policy.
#[derive(Debug)]
struct FlushPlan {
    policy: SyncPolicy,
    records: u64,
    bytes: u64,
    /// The strongest durability among the uncovered records.
    level: Durability,
    /// When the oldest uncovered record was placed, in monotonic nanoseconds.
    oldest_ns: Option<u64>,
}

impl FlushPlan {
    pub(super) fn new(policy: SyncPolicy) -> Self {
        Self { policy, records: 0, bytes: 0, level: Durability::Memory, oldest_ns: None }
    }

    fn placed(&mut self, records: u64, bytes: u64, level: Durability, now_ns: u64) {
        self.records += records;
        self.bytes += bytes;
        self.level = self.level.max(level);
        self.oldest_ns.get_or_insert(now_ns);
    }

    fn with_commit(&self, now_ns: u64) -> bool {
        match self.policy {
            SyncPolicy::EveryCommit | SyncPolicy::EveryAppend => self.level == Durability::Synced,
            _ => self.due(now_ns),
        }
    }

    fn due(&self, now_ns: u64) -> bool {
        let reached = match self.policy {
            SyncPolicy::EveryRecords { records, .. } => self.records >= records,
            SyncPolicy::EveryBytes { bytes, .. } => self.bytes >= bytes,
            _ => false,
        };
        reached || self.deadline_ns().is_some_and(|deadline| deadline <= now_ns)
    }

    /// Whether it has something that waits only for more, or for time.
    fn gives_in(&self, hurried: bool) -> bool {
        let waits = matches!(
            self.policy,
            SyncPolicy::Interval(_)
                | SyncPolicy::EveryRecords { .. }
                | SyncPolicy::EveryBytes { .. }
        );
        hurried && waits && self.oldest_ns.is_some()
    }

    fn deadline_ns(&self) -> Option<u64> {
        let delay = match self.policy {
            SyncPolicy::Interval(delay)
            | SyncPolicy::EveryRecords { max_delay: delay, .. }
            | SyncPolicy::EveryBytes { max_delay: delay, .. } => delay,
            SyncPolicy::EveryCommit | SyncPolicy::EveryAppend | SyncPolicy::Never => return None,
        };
        self.oldest_ns.map(|oldest| oldest.saturating_add(delay.as_nanos() as u64))
    }

    fn begun(&mut self) {
        self.records = 0;
        self.bytes = 0;
        self.level = Durability::Memory;
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
        plan.placed(1, 10, Durability::Written, 0);
        assert!(!plan.with_commit(0));
        plan.placed(1, 10, Durability::Synced, 0);
        assert!(plan.with_commit(0));
        assert_eq!(plan.deadline_ns(), None);
    }

    #[test]
    fn an_interval_runs_from_the_oldest_uncovered_record() {
        let mut plan = FlushPlan::new(SyncPolicy::Interval(Duration::from_millis(10)));
        assert_eq!(plan.deadline_ns(), None);
        plan.placed(1, 10, Durability::Written, 5 * MS);
        plan.placed(1, 10, Durability::Written, 9 * MS);
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
        plan.placed(2, 10, Durability::Written, 0);
        assert!(!plan.due(0));
        assert!(plan.due(3 * MS));
        plan.placed(1, 10, Durability::Written, MS);
        assert!(plan.due(MS));
        let mut plan = FlushPlan::new(SyncPolicy::EveryBytes { bytes: 100, max_delay });
        plan.placed(1, 99, Durability::Written, 0);
        assert!(!plan.due(0));
        plan.placed(1, 1, Durability::Written, 0);
        assert!(plan.due(0));
    }

    #[test]
    fn a_stream_may_have_a_policy_of_its_own() {
        let own = BTreeMap::from([("slow".to_owned(), SyncPolicy::Never)]);
        let mut plans = FlushPlans::new(SyncPolicy::EveryCommit, &own);
        plans.know(StreamId(1), "slow");
        plans.know(StreamId(2), "fast");
        plans.placed(StreamId(1), 1, 10, Durability::Synced, 0);
        assert!(!plans.with_commit(0));
        assert!(!plans.flushes_when_idle());
        plans.placed(StreamId(2), 1, 10, Durability::Synced, 0);
        assert!(plans.with_commit(0));
        plans.begun();
        assert!(!plans.with_commit(0));
    }
}
