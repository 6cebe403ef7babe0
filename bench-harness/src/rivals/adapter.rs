//! What all rivals are asked for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::contender::{Contender, Facts, Producer, Refusal};
use crate::measurement::Class;
use crate::rivals::group::{Group, Sink};

/// What a rival is opened for: its best settings differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Durable appends; what is old may be thrown away.
    Durable,
    /// Appends that need not be durable; what is old may be thrown away.
    Unsynced,
    /// Durable appends that are all read again, or a log that is opened again.
    Keep,
    /// The same, filled once: durable when it is closed, at the latest.
    Fill,
}

impl Purpose {
    /// Whether an append returns when it is durable.
    pub(crate) fn is_durable(self) -> bool {
        self != Self::Unsynced
    }

    /// Whether nothing may be thrown away.
    pub(crate) fn keeps(self) -> bool {
        matches!(self, Self::Keep | Self::Fill)
    }
}

/// What was read back: as much as tells one sequence of records from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Of the first eight bytes of each, in order.
    pub(crate) sum: u64,
}

impl Tally {
    /// Takes the next record.
    pub(crate) fn add(&mut self, record: &[u8]) {
        self.records += 1;
        self.bytes += record.len() as u64;
        let front = record.first_chunk().map_or(0, |front| u64::from_le_bytes(*front));
        self.sum = self.sum.wrapping_mul(31).wrapping_add(front);
    }
}

/// A rival: a contender that can be opened anew, and read from end to end.
pub(crate) trait Rival: Contender + Sized {
    /// Its name, which is that of its package.
    const NAME: &'static str;
    /// The version that is measured.
    const VERSION: &'static str;
    /// Where a record is when an append that need not be durable returns.
    const UNSYNCED: Class = Class::PageCache;
    /// From here on it is asked to throw away what is old; above what it prepares.
    const TRIM_ABOVE_BYTES: u64 = 1 << 30;

    /// Opens a log in `dir`, or makes one there.
    ///
    /// # Errors
    /// In words.
    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String>;

    /// Reads all records of the first producer in `dir`, in order, from opening to the last one.
    ///
    /// # Errors
    /// In words.
    fn replay(dir: &Path) -> Result<Tally, String>;

    /// Facts of a rival, which returns when it has acknowledged and never lets anything wait.
    fn usual_facts(purpose: Purpose, mode: &str) -> Facts {
        let class = if purpose.is_durable() { Class::Media } else { Self::UNSYNCED };
        Facts::new(Self::NAME, Some(Self::VERSION), mode, class)
    }
}

/// A log for one writer at a time, behind group commit.
pub(crate) struct Grouped<S> {
    pub(crate) group: Arc<Group<S>>,
    pub(crate) purpose: Purpose,
}

impl<S: Sink> Grouped<S> {
    /// Takes a log.
    pub(crate) fn new(sink: S, purpose: Purpose) -> Self {
        Self { group: Arc::new(Group::new(sink)), purpose }
    }

    /// A way into it for one thread.
    pub(crate) fn way_in(&self) -> GroupedProducer<S> {
        GroupedProducer { group: Arc::clone(&self.group), durable: self.purpose.is_durable() }
    }

    /// The log itself, when no producer is left.
    ///
    /// # Errors
    /// When one is.
    pub(crate) fn into_sink(self) -> Result<S, String> {
        let group = Arc::into_inner(self.group).ok_or("a producer is left")?;
        group.into_sink()
    }
}

/// One thread's way into a log behind group commit.
pub(crate) struct GroupedProducer<S> {
    group: Arc<Group<S>>,
    durable: bool,
}

impl<S: Sink> Producer for GroupedProducer<S> {
    type Ticket = ();

    fn submit(&mut self, records: &[Vec<u8>], _: Duration) -> Result<(), Refusal> {
        let appended = if self.durable {
            self.group.append(records)
        } else {
            self.group.append_unsynced(records)
        };
        appended.map_err(Refusal::Failed)
    }

    fn wait(&mut self, (): ()) -> Result<(), String> {
        Ok(())
    }
}

/// An error in words, with what was done.
pub(crate) fn say<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}
