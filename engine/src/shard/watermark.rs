//! How far the log has come: written, flushed, and the flushes that travel without a write.

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{Flush, Op, Tag};

use super::{Flight, Shard, Time, WATERMARK_AFTER_NS};
use crate::ids::{Lsn, SegmentId};
use crate::options::Durability;
use crate::receipt::Level;

impl Shard {
    pub(super) fn commit_completed(
        &mut self,
        segment: SegmentId,
        end: Lsn,
        flush: Flush,
        submitted_ns: u64,
        now: Time,
    ) {
        if flush != Flush::No {
            self.flush_completed(submitted_ns, now);
        }
        for commit in &mut self.commits {
            // A covering flush was asked for only when all before it in its file was written.
            let own = commit.end == end;
            let covered = flush == Flush::File && commit.segment == segment && commit.end < end;
            commit.written |= own;
            commit.flushed |= covered || (own && flush != Flush::No);
        }
        self.advance();
    }

    pub(super) fn flush_completed(&mut self, submitted_ns: u64, now: Time) {
        self.counts.flushes += 1;
        self.counts.last_flush_ns = now.wall_ns;
        self.flush_times_ns.push(now.mono_ns.saturating_sub(submitted_ns));
    }

    /// Moves the watermarks over what is complete, and notes whom that serves.
    pub(super) fn advance(&mut self) {
        for commit in &mut self.commits {
            if commit.end <= self.written {
                continue;
            }
            if !commit.written && planted(Bug::WrittenOutOfOrder) {
                continue;
            }
            if !commit.written {
                break;
            }
            self.written = commit.end;
            self.written_to = commit.placed_to;
            self.counts.acknowledged += commit.loads[Durability::Written as usize];
            for ticket in commit.tickets.iter().flatten() {
                self.acks.push((ticket.clone(), Level::Written));
            }
            if !commit.wants_sync {
                commit.tickets.clear();
            }
        }
        while let Some(commit) = self.commits.front() {
            let later = || self.commits.iter().any(|commit| commit.flushed);
            let flushed = commit.flushed
                || planted(Bug::AcknowledgeAtWrite)
                || planted(Bug::DurableOutOfOrder) && later();
            if !(commit.written && flushed) {
                break;
            }
            let Some(commit) = self.commits.pop_front() else { break };
            self.durable = commit.end;
            self.durable_to = commit.placed_to;
            self.counts.acknowledged += commit.loads[Durability::Synced as usize];
            commit.loads.into_iter().for_each(|load| self.counts.flushed += load);
            for ticket in commit.tickets.into_iter().flatten() {
                self.acks.push((ticket, Level::Synced));
            }
        }
        self.merge_finished();
        assert!(self.staged >= self.written && self.written >= self.durable);
    }

    /// Commits that nobody waits for any more are kept as one, so that a log that is never flushed
    /// does not grow a list.
    pub(super) fn merge_finished(&mut self) {
        while self.commits.len() >= 2 {
            let (a, b) = (&self.commits[0], &self.commits[1]);
            let alike = a.written && b.written && !a.flushed && !b.flushed;
            if !alike || a.segment != b.segment || a.wants_sync || b.wants_sync {
                return;
            }
            let first = self.commits.pop_front().map_or_else(Default::default, |one| one.loads);
            for (sum, load) in self.commits[0].loads.iter_mut().zip(first) {
                *sum += load;
            }
        }
    }

    pub(super) fn next_sync(&mut self, now: Time) -> Option<(Tag, Op)> {
        let idle_for = |since: u64| now.mono_ns >= since + WATERMARK_AFTER_NS;
        let idle = self.idle_flush_wanted() && self.idle_since_ns.is_some_and(idle_for);
        if (idle || self.plans.due(now.mono_ns)) && self.pending.is_empty() {
            self.sync_wanted = self.staged;
            self.plans.begun();
        }
        if self.sync_in_flight || self.sync_wanted <= self.durable {
            return None;
        }
        // The oldest segment with unflushed bytes comes first: the watermark cannot pass it.
        let segment = self.commits.front()?.segment;
        let mut covers = None;
        for commit in self.commits.iter().filter(|commit| commit.segment == segment) {
            if commit.written || planted(Bug::FlushCoversWhatIsInFlight) {
                covers = Some(commit.end);
            } else if commit.end <= self.sync_wanted || covers.is_none() {
                return None; // once it is written, one flush will do for all
            } else {
                break;
            }
        }
        let mut file = self.rotation.file_of(segment)?;
        if let (Some(open), true) = (&self.rotation.open, planted(Bug::FlushTheOpenFile)) {
            file = open.file;
        }
        let covers = covers?;
        if covers == self.staged {
            self.plans.begun(); // whoever asked for it, it covers what the policies count
        }
        self.sync_in_flight = true;
        let flight = Flight::Sync { segment, covers, submitted_ns: now.mono_ns };
        Some((self.take_off(flight), Op::Sync { file }))
    }

    /// What nobody waits for is flushed, too, once there is nothing else to do; unless the policy
    /// says when.
    pub(super) fn idle_flush_wanted(&self) -> bool {
        self.durable < self.staged && self.plans.flushes_when_idle()
    }

    pub(super) fn watermark_wanted(&self) -> bool {
        // The manifest of a clean close names the end; nothing may be written behind it.
        !self.rotation.is_closing()
            && self.recorded_durable < self.durable
            && self.durable == self.staged
    }

    pub(super) fn note_idleness(&mut self, now: Time) {
        if !self.is_idle() {
            self.idle_since_ns = None;
        } else if self.idle_since_ns.is_none() {
            self.idle_since_ns = Some(now.mono_ns);
        }
    }
}
