//! What keeps a thread with many appends outstanding from storing records behind one that was
//! refused, before it has heard of the refusal.
//!
//! A shard that finds no room on the disk gives up what was taken and has no place yet. It counts
//! that ([`Refusals`]), and gives up as well whatever was taken under an older count, as it comes:
//! room may be there again by then. A thread whose records were among that is refused its next
//! append, once. So among the records of one thread, a refusal that it was told of lies between any
//! that was given up and any later one that is stored.
//!
//! A chunk with nothing but records at `Memory`, which are acknowledged when they are taken, is never
//! given up like this; one that also holds a stronger record goes as a whole.

use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};

use crate::receipt::Ticket;

/// How often a shard has given up what was taken, for want of room.
pub type Refusals = u64;

/// What a slot remembers of what was taken through it.
#[derive(Default)]
pub struct Taken {
    /// The newest chunk with a record that waits for more than memory; older ones of the slot have
    /// their place before it.
    last: Option<(Arc<Ticket>, Refusals)>,
    /// The count when this was last asked.
    seen: Refusals,
    /// There is a refusal that these threads have been told of, and others of the slot have not.
    told: Option<Vec<usize>>,
}

impl Taken {
    /// Such a record goes into this chunk, which was begun under this count.
    pub fn note(&mut self, ticket: &Arc<Ticket>, under: Refusals) {
        self.last = Some((Arc::clone(ticket), under));
    }

    /// Whether nobody has to hear of anything.
    pub fn is_quiet(&self, now: Refusals) -> bool {
        self.seen == now && self.told.is_none()
    }

    /// Whether this thread is to hear of a refusal before anything more of it is taken.
    pub fn take_refusal(&mut self, thread: usize, now: Refusals) -> bool {
        if self.seen != now {
            self.seen = now;
            // Who has no place at the time of a refusal is given none later.
            let last = self.last.take_if(|(_, under)| *under < now);
            if last.is_some_and(|(ticket, _)| !ticket.is_placed()) {
                self.told = Some(Vec::new());
            }
        }
        match &mut self.told {
            Some(told) if !told.contains(&thread) && !planted(Bug::TakeBehindRefused) => {
                told.push(thread);
                true
            }
            _ => false,
        }
    }
}
