//! What handles ask of a shard beside appending: flush, rotate, trim, close.

use ringlog_disk::DiskError;
use ringlog_disk::planted::{Bug, planted};

use super::Shard;
use super::retention::{Reason, Wanted};
use crate::chunk::Chunk;
use crate::ids::Lsn;
use crate::options::Retention;

/// What a user asks of a shard beside appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Everything handed over so far is to be durable.
    Flush,
    /// The open segment is to be sealed.
    Rotate,
    /// The oldest sealed segments are to go, all but so many.
    Trim {
        /// How many sealed segments stay.
        keep_sealed: usize,
    },
    /// Sealed segments outside these bounds are to go, once. Retention by age that has paused
    /// goes on.
    Retain(Retention),
    /// Everything is to be durable, then the manifest is marked clean.
    Close,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// So many segments were trimmed.
    Trimmed {
        /// How many.
        segments: u64,
    },
    /// The disk is full.
    DiskFull,
    /// The shard failed.
    Poisoned(DiskError),
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: u64,
    pub(super) request: Request,
    /// Chunks that were accepted before it.
    pub(super) after_chunks: u64,
    /// Set once those are placed.
    pub(super) target: Option<Lsn>,
}

impl Shard {
    /// Whether the end has been asked for: then nobody waits for room any more.
    pub(super) fn is_closing(&self) -> bool {
        self.waiting.iter().any(|one| one.request == Request::Close)
    }

    pub(super) fn settle_requests(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        for one in &mut waiting {
            // A trim may be what makes room for the chunks before it.
            let trims = matches!(one.request, Request::Trim { .. } | Request::Retain(_));
            let before = |chunk: &Chunk| chunk.number <= one.after_chunks;
            let placed = !self.pending.front().is_some_and(|chunk| before(chunk));
            if one.target.is_none() && (trims || placed) {
                one.target = Some(self.staged);
                match one.request {
                    Request::Flush => self.sync_wanted = self.staged,
                    Request::Rotate => self.seal_open_segment(Reason::Hand),
                    Request::Trim { keep_sealed } => {
                        self.rotation.want_trim(one.id, Wanted::KeepSealed(keep_sealed));
                    }
                    Request::Retain(bounds) => {
                        self.rotation.want_trim(one.id, Wanted::Within(bounds));
                    }
                    Request::Close => {
                        self.sync_wanted = self.staged;
                        self.rotation.want_close();
                    }
                }
            }
        }
        waiting.retain(|one| {
            let Some(target) = one.target else {
                // What came before it finds no room, and a close gives that up.
                let refused = self.no_room && one.request != Request::Close;
                if refused {
                    self.replies.push((one.id, Reply::DiskFull));
                }
                return !refused;
            };
            let reply = match one.request {
                Request::Flush if planted(Bug::AnswerFlushAtWrite) => {
                    (self.written >= target).then_some(Reply::Done)
                }
                Request::Flush => (self.durable >= target).then_some(Reply::Done),
                Request::Rotate => self.rotation.is_sealed_to(target).then_some(Reply::Done),
                Request::Trim { .. } | Request::Retain(_) => self.rotation.take_trimmed(one.id),
                Request::Close if self.gave_up => {
                    self.rotation.is_closed().then_some(Reply::DiskFull)
                }
                Request::Close => self.rotation.is_closed().then_some(Reply::Done),
            };
            let full = self.rotation.is_blocked() && one.request != Request::Flush;
            if let (None, true, Request::Retain(_)) = (&reply, full, one.request) {
                // Later it would vouch for a clock that may have jumped meanwhile.
                self.rotation.take_back(one.id);
            }
            let reply = reply.or_else(|| full.then_some(Reply::DiskFull));
            reply.map(|reply| self.replies.push((one.id, reply))).is_none()
        });
        self.waiting = waiting;
    }
}
