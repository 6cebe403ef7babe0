//! Group commit for logs that have none: leader and followers.
//!
//! Many of the rivals are written for one writer at a time, and flush while they hold it. Used as
//! they come, 64 threads would get one flush for each append. This is what a careful user would put
//! in front of them: whoever finds no leader becomes it, takes all that waits, writes it and commits
//! once; the others sleep until their batch is done.
//!
//! Invariant: an append that returned `Ok` was handed to [`Sink::append`] before a [`Sink::commit`]
//! that began later and succeeded. After a failure nothing succeeds any more.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::contender::ACKNOWLEDGED_WITHIN;

/// A log for one writer.
pub(crate) trait Sink: Send + 'static {
    /// Writes a record, which need not be durable yet.
    ///
    /// # Errors
    /// In words.
    fn append(&mut self, record: &[u8]) -> Result<(), String>;

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// In words.
    fn commit(&mut self) -> Result<(), String>;
}

/// Records one behind the other.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn records(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }
}

#[derive(Debug, Default)]
struct State {
    /// What the next leader takes.
    waiting: Batch,
    /// An empty one, with its memory.
    spare: Batch,
    /// The number that `waiting` will have; those below have been taken.
    number: u64,
    /// Batches below this are durable.
    committed: u64,
    leading: bool,
    failed: Option<String>,
}

/// A log that many threads append to.
pub(crate) struct Group<S> {
    state: Mutex<State>,
    /// At most one batch is being committed while one waits: two, told apart by the lowest bit.
    done: [Condvar; 2],
    sink: Mutex<S>,
}

impl<S: Sink> Group<S> {
    /// Takes a log.
    pub(crate) fn new(sink: S) -> Self {
        Self {
            state: Mutex::new(State::default()),
            done: [Condvar::new(), Condvar::new()],
            sink: Mutex::new(sink),
        }
    }

    /// Appends records one behind the other, and returns when they are durable.
    ///
    /// # Errors
    /// Why they may not be, in words.
    pub(crate) fn append(&self, records: &[Vec<u8>]) -> Result<(), String> {
        let mut state = self.state()?;
        for record in records {
            state.waiting.push(record);
        }
        let mine = state.number;
        let begun = Instant::now();
        loop {
            if let Some(why) = &state.failed {
                return Err(why.clone());
            }
            if state.committed > mine {
                return Ok(());
            }
            if !state.leading {
                state = self.lead(state)?;
                continue;
            }
            let left = ACKNOWLEDGED_WITHIN.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(format!("not durable within {ACKNOWLEDGED_WITHIN:?}"));
            }
            state = self.sleep(state, mine, left)?;
        }
    }

    /// Appends records that need not be durable.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn append_unsynced(&self, records: &[Vec<u8>]) -> Result<(), String> {
        self.with(|sink| records.iter().try_for_each(|record| sink.append(record)))
    }

    /// Lends the log out.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn with<T>(
        &self,
        use_it: impl FnOnce(&mut S) -> Result<T, String>,
    ) -> Result<T, String> {
        use_it(&mut *self.sink.lock().map_err(|_| poisoned())?)
    }

    /// The log itself.
    ///
    /// # Errors
    /// When a thread has panicked while it wrote.
    pub(crate) fn into_sink(self) -> Result<S, String> {
        self.sink.into_inner().map_err(|_| poisoned())
    }

    /// Commits all that waits, as its leader.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<MutexGuard<'a, State>, String> {
        let spare = mem::take(&mut state.spare);
        let mut batch = mem::replace(&mut state.waiting, spare);
        let number = state.number;
        state.number += 1;
        state.leading = true;
        drop(state);

        let result = self.with(|sink| {
            batch.records().try_for_each(|record| sink.append(record))?;
            sink.commit()
        });

        batch.clear();
        let mut state = self.state()?;
        state.leading = false;
        state.spare = batch;
        match result {
            Ok(()) => state.committed = number + 1,
            Err(why) => state.failed = Some(why),
        }
        self.of(number).notify_all();
        if state.failed.is_some() {
            self.of(number + 1).notify_all();
        } else {
            // One of those that wait leads next.
            self.of(number + 1).notify_one();
        }
        Ok(state)
    }

    fn sleep<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        number: u64,
        at_most: Duration,
    ) -> Result<MutexGuard<'a, State>, String> {
        let woken = self.of(number).wait_timeout(state, at_most);
        woken.map(|(state, _)| state).map_err(|_| poisoned())
    }

    fn of(&self, number: u64) -> &Condvar {
        &self.done[usize::from(number % 2 == 1)]
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, String> {
        self.state.lock().map_err(|_| poisoned())
    }
}

fn poisoned() -> String {
    "a thread has panicked while it wrote".to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;

    use super::*;

    /// What a disk would hold: what was written before a commit that succeeded began.
    #[derive(Default)]
    struct Disk {
        durable: Mutex<HashSet<Vec<u8>>>,
        commits: AtomicU64,
        /// From here on, commits fail.
        broken: AtomicBool,
        /// Commits wait here while it is locked.
        gate: Mutex<()>,
    }

    struct Fake {
        disk: Arc<Disk>,
        written: Vec<Vec<u8>>,
    }

    impl Sink for Fake {
        fn append(&mut self, record: &[u8]) -> Result<(), String> {
            self.written.push(record.to_vec());
            Ok(())
        }

        fn commit(&mut self) -> Result<(), String> {
            let began_with = mem::take(&mut self.written);
            drop(self.disk.gate.lock().unwrap());
            if self.disk.broken.load(Ordering::SeqCst) {
                return Err("broken".to_owned());
            }
            self.disk.durable.lock().unwrap().extend(began_with);
            self.disk.commits.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    fn group() -> (Arc<Disk>, Group<Fake>) {
        let disk = Arc::new(Disk::default());
        (Arc::clone(&disk), Group::new(Fake { disk, written: Vec::new() }))
    }

    fn record(thread: u64, number: u64) -> Vec<u8> {
        [thread.to_le_bytes(), number.to_le_bytes()].concat()
    }

    #[test]
    fn what_was_acknowledged_is_covered_by_a_commit_that_began_after_it() {
        let (disk, group) = group();
        thread::scope(|scope| {
            for thread in 0..8 {
                let (disk, group) = (&disk, &group);
                scope.spawn(move || {
                    for number in 0..500 {
                        let records = [record(thread, 2 * number), record(thread, 2 * number + 1)];
                        group.append(&records).unwrap();
                        let durable = disk.durable.lock().unwrap();
                        assert!(records.iter().all(|record| durable.contains(record)));
                    }
                });
            }
        });
        assert_eq!(disk.durable.lock().unwrap().len(), 8 * 1000);
    }

    #[test]
    fn those_that_wait_share_one_commit() {
        let (disk, group) = group();
        let (disk, group) = (&disk, &group);
        thread::scope(|scope| {
            let closed = disk.gate.lock().unwrap();
            // The first one leads, and stands at the gate with its own record only.
            scope.spawn(move || group.append(&[record(0, 0)]).unwrap());
            while group.state.lock().unwrap().number == 0 {
                thread::yield_now();
            }
            for thread in 1..=5 {
                scope.spawn(move || group.append(&[record(thread, 0)]).unwrap());
            }
            while group.state.lock().unwrap().waiting.ends.len() < 5 {
                thread::yield_now();
            }
            drop(closed);
        });
        assert_eq!(disk.commits.load(Ordering::SeqCst), 2);
        assert_eq!(disk.durable.lock().unwrap().len(), 6);
    }

    #[test]
    fn a_failed_commit_is_told_to_all_and_nothing_succeeds_after_it() {
        let (disk, group) = group();
        group.append(&[record(0, 0)]).unwrap();
        disk.broken.store(true, Ordering::SeqCst);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let group = &group;
                    scope.spawn(move || group.append(&[record(thread, 1)]))
                })
                .collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), Err("broken".to_owned()));
            }
        });
        disk.broken.store(false, Ordering::SeqCst);
        assert!(group.append(&[record(9, 9)]).is_err());
        assert_eq!(disk.durable.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_need_not_be_durable_waits_for_nothing() {
        let (disk, group) = group();
        group.append_unsynced(&[record(0, 0)]).unwrap();
        assert_eq!(disk.commits.load(Ordering::SeqCst), 0);
        group.append(&[record(0, 1)]).unwrap();
        assert_eq!(disk.durable.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_batch_gives_back_its_records() {
        let mut batch = Batch::default();
        batch.push(b"one");
        batch.push(b"");
        batch.push(b"three");
        assert_eq!(batch.records().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        batch.clear();
        assert_eq!(batch.records().count(), 0);
    }
}
