//! What is asked of a driven shard beside appending: flush, rotate, trim, close; and the answers.

use ringlog_disk::Disk;

use super::shard::{DrivenShard, StreamState};
use super::tokens::{Answer, Event};
use crate::error::{AppendError, LogError, TrimError};
use crate::format::batch::{FrameKind, frame_bytes};
use crate::ids::{Offset, StreamId};
use crate::options::{Durability, Retention};
use crate::shard::{Reply, Request};
use crate::stats::TrimReport;

/// Whom the answer to a request is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    Token(u64),
    Close,
    Nobody,
}

impl<D: Disk> DrivenShard<D> {
    // ---- requests ----

    /// Asks for everything appended so far to become durable, under any policy; the token comes
    /// back when it is.
    pub fn flush(&mut self, token: u64) {
        self.ask(Request::Flush, Asker::Token(token));
    }

    /// Asks for the open segment to be sealed; the token comes back when it is. An empty one stays
    /// open.
    pub fn rotate(&mut self, token: u64) {
        self.ask(Request::Rotate, Asker::Token(token));
    }

    /// Asks for the oldest sealed segments to be removed, all but `keep_sealed`; the token comes
    /// back with what was removed.
    pub fn trim(&mut self, keep_sealed: usize, token: u64) {
        self.ask(Request::Trim { keep_sealed }, Asker::Token(token));
    }

    /// Asks for the oldest sealed segments outside these bounds to be removed, once, whatever
    /// [`Options::retention`](crate::Options::retention) says; the token comes back with what was
    /// removed. Retention by age that has paused goes on.
    pub fn retain(&mut self, bounds: Retention, token: u64) {
        self.ask(Request::Retain(bounds), Asker::Token(token));
    }

    /// Trims a stream, as [`crate::Stream::trim`] does: its records below `before` cannot be read
    /// any more once the token has come back acknowledged. Offsets stay what they are.
    ///
    /// # Errors
    /// See [`TrimError`].
    pub fn trim_stream(
        &mut self,
        stream: StreamId,
        before: Offset,
        token: u64,
    ) -> Result<(), TrimError> {
        self.check_open().map_err(TrimError::Append)?;
        let known = self.streams.get(stream.0 as usize).filter(|_| stream != StreamId::CATALOGUE);
        let Some(StreamState { next, .. }) = known.copied() else {
            return Err(TrimError::Append(AppendError::UnknownStream(stream)));
        };
        if before > next {
            return Err(TrimError::OutOfRange { next });
        }
        let mut payload = [0; 12];
        payload[..4].copy_from_slice(&stream.0.to_le_bytes());
        payload[4..].copy_from_slice(&before.0.to_le_bytes());
        let bytes = frame_bytes(payload.len());
        let chunk = self.chunk_with_room(bytes).map_err(TrimError::Append)?;
        chunk.push(StreamId::CATALOGUE, FrameKind::TrimStream, &payload);
        chunk.trimmed.push((stream, before));
        chunk.level = Durability::Synced;
        let chunk = chunk.number;
        self.count(StreamId::CATALOGUE, 1);
        self.tokens.wait(Durability::Synced, chunk, token);
        // Whatever the sync policy is, this does not wait for it.
        self.ask(Request::Flush, Asker::Nobody);
        Ok(())
    }

    /// Begins to close the shard: nothing more is appended, and turns make everything durable and
    /// mark the shard as cleanly closed. [`DrivenShard::closed`] tells when.
    pub fn begin_close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.ask(Request::Close, Asker::Close);
        }
    }

    /// What came of closing, once it is over. Then the shard is to be dropped.
    pub fn closed(&self) -> Option<&Result<(), LogError>> {
        self.closed.as_ref()
    }

    /// Makes everything durable, marks the shard as cleanly closed and lets go of it. Waits for
    /// the disk; a loop that must not wait uses [`DrivenShard::begin_close`]. The log as a whole is
    /// cleanly closed when all its shards are.
    ///
    /// # Errors
    /// See [`LogError`]: what was not acknowledged may not be stored. Tokens that have not come
    /// back are forgotten.
    pub fn close(mut self) -> Result<(), LogError> {
        self.begin_close();
        loop {
            self.tokens.events.clear();
            if let Some(result) = self.closed.take() {
                return result;
            }
            self.wait(None);
        }
    }

    fn ask(&mut self, request: Request, asker: Asker) {
        // Everything appended before belongs to it.
        self.touched = true;
        self.push_all(self.last_turn);
        let id = self.writer.ask_here(request);
        self.asked.push((id, asker));
    }

    pub(super) fn take_answers(&mut self) {
        for (id, reply) in self.writer.answers.drain(..) {
            let Some(at) = self.asked.iter().position(|(asked, _)| *asked == id) else { continue };
            let (_, asker) = self.asked.swap_remove(at);
            let result = match reply {
                Reply::Done => Ok(Answer::Done),
                Reply::Trimmed { segments } => {
                    let bytes = segments * self.place.identity.segment_bytes;
                    Ok(Answer::Trimmed(TrimReport { segments, bytes }))
                }
                Reply::DiskFull => Err(LogError::DiskFull),
                Reply::Poisoned(error) => Err(LogError::Poisoned(error)),
            };
            match asker {
                Asker::Token(token) => self.tokens.events.push(Event::Answered { token, result }),
                Asker::Close => self.closed = Some(result.map(drop)),
                Asker::Nobody => {}
            }
        }
    }
}
