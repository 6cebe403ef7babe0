//! A log whose shards are driven by the application's own threads: no writer thread, no queue, no
//! lock between an append and its write.
//!
//! For applications that are thread-per-core themselves. Each shard is opened as a [`Seat`], which
//! may be sent to the thread that will drive it; there it becomes a [`DrivenShard`]. An append
//! copies the record into the shard's open chunk and knows its offset at once; nothing happens on
//! the disk before the caller takes a [turn](DrivenShard::turn) or [waits](DrivenShard::wait).
//! What has been acknowledged is known from the [watermarks](DrivenShard::is_acknowledged), or
//! comes back as a token of the caller's among the [events](DrivenShard::events).
//!
//! On disk it is the same log that [`crate::Log`] writes: either opens what the other has left.
//!
//! ```
//! use ringlog::driven::{DrivenLog, Event};
//! use ringlog::{Durability, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let log = DrivenLog::open(dir, Options::default())?;
//! for seat in log.into_seats() {
//!     // Usually on a thread of its own, pinned as the application likes.
//!     let mut shard = seat.start()?;
//!     let orders = shard.stream("orders")?;
//!     let appended = shard.append(orders, b"first", Durability::Synced)?;
//!     shard.notify(appended, 17); // 17 comes back once the record survives power loss
//!     while !shard.is_acknowledged(&appended) {
//!         shard.wait(None); // submits, and sleeps until something has completed
//!     }
//!     assert_eq!(shard.events().next(), Some(Event::Acknowledged { token: 17 }));
//!     shard.close()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The caller's own event loop
//!
//! A loop that sleeps elsewhere (epoll, another ring) takes [turns](DrivenShard::turn) until there
//! is nothing more to do at once, then calls [`DrivenShard::about_to_sleep`] and, where that says
//! yes, sleeps until [`DrivenShard::poll_fd`] is readable, [`Turn::wake_in`] is over, or it has
//! something else to do. On blocking I/O a turn itself carries out what the disk has to do, so the
//! loop stands still that long.
//!
//! # Threads
//!
//! None, but for one that the disk begins when it first works on names (preparing the next segment,
//! the manifest): see [`Seat::names_thread`], which says what it costs to do without.

mod appending;
mod open;
mod reading;
mod requests;
mod shard;
mod tokens;
mod turns;

pub use appending::Appended;
pub use open::{DrivenLog, Seat};
pub use ringlog_disk::{AnyDisk, Waker};
pub use shard::DrivenShard;
pub use tokens::{Answer, Event};
pub use turns::Turn;

#[doc(hidden)]
pub use crate::shard::Time;
#[doc(hidden)]
pub use crate::testing::{ShardIdentity, ShardMemory};
