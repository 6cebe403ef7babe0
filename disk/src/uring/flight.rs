//! One operation on its way through the ring: a small state machine without a ring.
//!
//! A write may need several steps: its remainder after a short write, and a flush that covers it.
//! [`Flight::settle`] decides what comes next from the results of a step alone. It is where the
//! rules about failed flushes live: a flush that ran and failed is never asked for again.

use crate::op::{Completion, DiskError, DiskErrorKind, Done, FileId, Flush, Slice, Tag};
use crate::options::Primitive;
use crate::planted::{Bug, planted};
use crate::sys::{Errno, Parts};

/// How often a step that did not run at all is tried again.
const TRIES_MAX: u8 = 64;

/// What an operation wants.
pub(super) enum Work {
    /// The place is free.
    None,
    Write {
        data: Vec<Slice>,
        offset: u64,
        flush: Flush,
    },
    Sync,
    Read {
        slice: Slice,
        offset: u64,
    },
}

/// What is with the kernel, or goes there next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A write that flushes nothing.
    Write,
    /// A write with RWF_DSYNC.
    WriteDsync,
    /// A write linked with an fdatasync.
    WriteThenSync,
    /// An fdatasync.
    Sync,
    /// A read.
    Read,
}

impl Step {
    /// How many submission entries it takes, and how many completions it gives.
    pub(super) fn entries(self) -> u8 {
        if self == Self::WriteThenSync { 2 } else { 1 }
    }
}

/// What follows from the results of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The operation has ended.
    End(Result<Done, DiskError>),
    /// It goes on with this step.
    Again(Step),
}

/// A place for one operation in flight.
pub(super) struct Flight {
    pub(super) tag: Tag,
    pub(super) file: FileId,
    pub(super) work: Work,
    pub(super) step: Step,
    /// The kernel's view of a vectored write; lives as long as the step.
    pub(super) parts: Parts,
    /// Bytes written or read in earlier steps.
    pub(super) done: usize,
    /// Completions that this step still has to give.
    pub(super) awaited: u8,
    /// Which submission entry, counted from the first of all, the step began with.
    pub(super) head_at: u64,
    /// The kernel took the write but not the linked flush behind it in one submission, so the
    /// flush proves nothing.
    pub(super) split: bool,
    pub(super) write_result: Option<i32>,
    pub(super) sync_result: Option<i32>,
    /// Distinguishes the users of this place.
    pub(super) generation: u32,
    tries: u8,
}

impl Flight {
    pub(super) fn free() -> Self {
        Self {
            tag: Tag(0),
            file: FileId(0),
            work: Work::None,
            step: Step::Sync,
            parts: Parts::default(),
            done: 0,
            awaited: 0,
            head_at: 0,
            split: false,
            write_result: None,
            sync_result: None,
            generation: 0,
            tries: 0,
        }
    }

    /// Takes an operation; returns nothing, the first step is in `step`.
    pub(super) fn begin(&mut self, tag: Tag, file: FileId, work: Work, primitive: Primitive) {
        self.step = match &work {
            Work::Write { flush: Flush::No, .. } => Step::Write,
            Work::Write { flush, .. }
                if primitive == Primitive::Dsync
                    && (*flush == Flush::Own || planted(Bug::DsyncForFile)) =>
            {
                Step::WriteDsync
            }
            Work::Write { .. } => Step::WriteThenSync,
            Work::Sync | Work::None => Step::Sync,
            Work::Read { .. } => Step::Read,
        };
        self.tag = tag;
        self.file = file;
        self.work = work;
        self.done = 0;
        self.tries = 0;
    }

    /// How many bytes the whole operation moves.
    fn total(&self) -> usize {
        match &self.work {
            Work::Write { data, .. } => data.iter().map(|slice| slice.len).sum(),
            Work::Read { slice, .. } => slice.len,
            Work::Sync | Work::None => 0,
        }
    }

    /// Forgets the results of the step before, and expects those of this one.
    pub(super) fn expect(&mut self, step: Step, head_at: u64) {
        self.step = step;
        self.head_at = head_at;
        self.awaited = step.entries();
        self.split = false;
        self.write_result = None;
        self.sync_result = None;
    }

    /// Decides what follows, once every completion of the step is there.
    pub(super) fn settle(&mut self) -> Verdict {
        match self.step {
            Step::Read => self.settle_read(),
            Step::Sync => self.settle_sync(),
            Step::Write | Step::WriteDsync | Step::WriteThenSync => self.settle_write(),
        }
    }

    fn settle_read(&mut self) -> Verdict {
        let result = self.write_result.unwrap_or(-libc::EIO);
        match usize::try_from(result) {
            Ok(0) => Verdict::End(Ok(Done::Read(self.done))),
            Ok(bytes) => {
                self.done += bytes;
                if self.done < self.total() {
                    return Verdict::Again(Step::Read);
                }
                Verdict::End(Ok(Done::Read(self.done)))
            }
            // What direct I/O answers behind an end that is not aligned.
            Err(_) if result == -libc::EINVAL && !self.done.is_multiple_of(512) => {
                Verdict::End(Ok(Done::Read(self.done)))
            }
            Err(_) => self.not_run(-result, true, "read"),
        }
    }

    fn settle_sync(&mut self) -> Verdict {
        match self.sync_result.unwrap_or(-libc::EIO) {
            0 => Verdict::End(Ok(match self.work {
                Work::Write { .. } => Done::Wrote,
                _ => Done::Synced,
            })),
            result => self.sync_failed(-result),
        }
    }

    /// A flush that ran and failed is final: the next one could succeed without having written
    /// anything. Only one that was cancelled, and so never ran, is asked for again.
    fn sync_failed(&mut self, errno: Errno) -> Verdict {
        if errno == libc::ECANCELED && planted(Bug::CancelledFlushIsDone) {
            return Verdict::End(Ok(Done::Wrote));
        }
        if errno == libc::ECANCELED && self.try_again() {
            return Verdict::Again(Step::Sync);
        }
        Verdict::End(Err(DiskError::from_errno(errno, "flush")))
    }

    fn settle_write(&mut self) -> Verdict {
        if let Some(result) = self.sync_result
            && result != 0
            && result != -libc::ECANCELED
            && !planted(Bug::RepeatFailedFlush)
        {
            return Verdict::End(Err(DiskError::from_errno(-result, "flush")));
        }
        let result = self.write_result.unwrap_or(-libc::EIO);
        let bytes = match usize::try_from(result) {
            Ok(0) => {
                let what = "write: the file took nothing";
                return Verdict::End(Err(DiskError::new(DiskErrorKind::Io, what)));
            }
            Ok(bytes) => bytes,
            Err(_) => return self.not_run(-result, self.step != Step::WriteDsync, "write"),
        };
        self.done += bytes;
        if self.done < self.total() && !planted(Bug::IgnoreShortWriteInRing) {
            // A short write is no failure, and neither is the flush that it cancelled: the rest is
            // written, with a flush of its own. (With RWF_DSYNC each part flushes itself.)
            return Verdict::Again(self.step);
        }
        let flushed = self.sync_result == Some(0) && (!self.split || planted(Bug::TrustSplitChain));
        if self.step != Step::WriteThenSync || flushed {
            return Verdict::End(Ok(Done::Wrote));
        }
        self.sync_failed(libc::ECANCELED)
    }

    /// A step that failed. It is repeated when it has certainly not run; after a signal only when
    /// it does not flush.
    fn not_run(&mut self, errno: Errno, after_signal: bool, doing: &str) -> Verdict {
        let harmless = match errno {
            libc::ECANCELED | libc::EAGAIN => true,
            libc::EINTR => after_signal && !planted(Bug::SignalIsFailure),
            _ => false,
        };
        if harmless && self.try_again() {
            return Verdict::Again(self.step);
        }
        Verdict::End(Err(DiskError::from_errno(errno, doing)))
    }

    fn try_again(&mut self) -> bool {
        self.tries += 1;
        self.tries <= TRIES_MAX
    }

    /// Ends the operation and frees the place.
    pub(super) fn end(&mut self, result: Result<Done, DiskError>) -> Completion {
        self.generation = self.generation.wrapping_add(1);
        let slices = match std::mem::replace(&mut self.work, Work::None) {
            Work::Write { data, .. } => data,
            Work::Read { slice, .. } => vec![slice],
            Work::Sync | Work::None => Vec::new(),
        };
        Completion { tag: self.tag, slices, result }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockPool;

    fn write(flush: Flush, primitive: Primitive) -> Flight {
        let pool = BlockPool::new(1, 8192).unwrap();
        let data = vec![Slice { block: pool.take().unwrap(), len: 8192 }];
        let mut flight = Flight::free();
        let work = Work::Write { data, offset: 0, flush };
        flight.begin(Tag(1), FileId(0), work, primitive);
        flight.expect(flight.step, 0);
        flight
    }

    fn after(flight: &mut Flight, write: i32, sync: Option<i32>) -> Verdict {
        flight.write_result = Some(write);
        flight.sync_result = sync;
        flight.settle()
    }

    fn failed(verdict: Verdict) -> (Option<i32>, String) {
        match verdict {
            Verdict::End(Err(error)) => (error.errno, error.doing),
            other => panic!("no failure: {other:?}"),
        }
    }

    #[test]
    fn a_full_write_with_its_flush_is_done() {
        let mut flight = write(Flush::Own, Primitive::LinkedSync);
        assert_eq!(after(&mut flight, 8192, Some(0)), Verdict::End(Ok(Done::Wrote)));
        let mut flight = write(Flush::Own, Primitive::Dsync);
        assert_eq!(flight.step, Step::WriteDsync);
        assert_eq!(after(&mut flight, 8192, None), Verdict::End(Ok(Done::Wrote)));
        // A flush of the file is never left to RWF_DSYNC, which covers its own bytes only.
        assert_eq!(write(Flush::File, Primitive::Dsync).step, Step::WriteThenSync);
    }

    #[test]
    fn a_short_write_is_resumed_with_a_flush_of_its_own() {
        let mut flight = write(Flush::Own, Primitive::LinkedSync);
        let verdict = after(&mut flight, 4096, Some(-libc::ECANCELED));
        assert_eq!(verdict, Verdict::Again(Step::WriteThenSync));
        assert_eq!(flight.done, 4096);
        assert_eq!(after(&mut flight, 4096, Some(0)), Verdict::End(Ok(Done::Wrote)));
    }

    #[test]
    fn a_short_write_whose_rest_fails_is_a_failure() {
        let mut flight = write(Flush::Own, Primitive::LinkedSync);
        after(&mut flight, 4096, Some(-libc::ECANCELED));
        let verdict = after(&mut flight, -libc::EFBIG, Some(-libc::ECANCELED));
        assert_eq!(failed(verdict), (Some(libc::EFBIG), "write".to_owned()));
    }

    #[test]
    fn a_failed_flush_is_never_repeated() {
        for errno in [libc::EIO, libc::ENOSPC, libc::EINTR, libc::EAGAIN] {
            let mut flight = write(Flush::Own, Primitive::LinkedSync);
            let verdict = after(&mut flight, 8192, Some(-errno));
            assert_eq!(failed(verdict), (Some(errno), "flush".to_owned()));
            let mut flight = write(Flush::Own, Primitive::LinkedSync);
            // Not even when the write was short, and so would go on.
            let verdict = after(&mut flight, 4096, Some(-errno));
            assert_eq!(failed(verdict), (Some(errno), "flush".to_owned()));
        }
        let mut flight = write(Flush::Own, Primitive::Dsync);
        assert_eq!(failed(after(&mut flight, -libc::EINTR, None)).0, Some(libc::EINTR));
    }

    #[test]
    fn a_flush_from_a_split_chain_proves_nothing() {
        let mut flight = write(Flush::Own, Primitive::LinkedSync);
        flight.split = true;
        assert_eq!(after(&mut flight, 8192, Some(0)), Verdict::Again(Step::Sync));
        flight.expect(Step::Sync, 2);
        flight.sync_result = Some(0);
        assert_eq!(flight.settle(), Verdict::End(Ok(Done::Wrote)));
    }

    #[test]
    fn a_cancelled_flush_runs_again_but_not_for_ever() {
        let mut flight = write(Flush::Own, Primitive::LinkedSync);
        let mut verdict = after(&mut flight, 8192, Some(-libc::ECANCELED));
        let mut rounds = 0;
        while verdict == Verdict::Again(Step::Sync) {
            rounds += 1;
            assert!(rounds < 1000);
            flight.expect(Step::Sync, 0);
            flight.sync_result = Some(-libc::ECANCELED);
            verdict = flight.settle();
        }
        assert_eq!(failed(verdict).0, Some(libc::ECANCELED));
    }

    #[test]
    fn a_write_that_did_not_run_is_repeated() {
        for errno in [libc::EINTR, libc::EAGAIN] {
            let mut flight = write(Flush::No, Primitive::Dsync);
            assert_eq!(after(&mut flight, -errno, None), Verdict::Again(Step::Write));
        }
        let mut flight = write(Flush::No, Primitive::Dsync);
        assert_eq!(failed(after(&mut flight, 0, None)).1, "write: the file took nothing");
    }
}
