//! Tests of the writer's turns, which the test takes itself: it is the clock, too.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Waker as Task};

use ringlog_disk::{MemoryDevice, MemoryDisk};

use super::*;
use crate::error::ReceiptError;
use crate::format::batch::FrameKind;
use crate::ids::{LogId, Position};
use crate::inbox::How;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::options::{Durability, Options};
use crate::receipt::Receipt;
use crate::starting::{Begin, open_shard};
use crate::testing::{DrivenShard, ShardIdentity, ShardMemory};

const HOW: How = How { level: Durability::Synced, apart: false, will_try_again: false };
/// How long each commit takes here, in nanoseconds.
const COMMIT_NS: u64 = 100_000;

struct Turns {
    writer: Writer<MemoryDisk>,
    inbox: Arc<Inbox>,
    now_ns: u64,
    threads: usize,
}

impl Turns {
    fn new() -> Self {
        let options = Options::default();
        let segment_bytes = SEGMENT_BYTES_MIN;
        let identity = ShardIdentity { log: LogId([7; 16]), shard: 0, segment_bytes };
        let memory = ShardMemory::new(&options, segment_bytes).unwrap();
        let begin = Begin {
            options: &options,
            pools: memory.pools(),
            notes: Vec::new(),
            now_ns: 0,
            failure: LogFailure::default(),
        };
        let mut disk = MemoryDevice::new().root().disk();
        DrivenShard::create(&mut disk, identity).unwrap();
        let (writer, ready) =
            open_shard(disk, &identity.into(), begin, &|| Duration::ZERO).unwrap();
        let inbox = Arc::clone(&ready.shared.inbox);
        let mut turns = Self { writer, inbox, now_ns: 1, threads: 0 };
        turns.rest();
        turns
    }

    fn now(&self) -> Time {
        Time { mono_ns: self.now_ns, wall_ns: self.now_ns }
    }

    /// Takes turns until nothing is to be done, and leaves the time as it is.
    fn rest(&mut self) {
        loop {
            let wait = self.writer.work(self.now());
            if wait.is_some() && self.writer.disk.in_flight() == 0 {
                return;
            }
            let now = self.now();
            self.writer.reap(Wait::No, || now);
        }
    }

    /// Appends as a thread of its own.
    fn append(&mut self) -> Receipt {
        self.threads += 1;
        let record = [b"record"];
        self.inbox.append(self.threads, StreamId(1), FrameKind::Record, &record, HOW).unwrap()
    }

    /// Sends what was appended, and has the disk take its time.
    fn commit(&mut self) {
        let before = self.commits();
        assert!(self.writer.work(self.now()).is_some());
        self.now_ns += COMMIT_NS;
        let now = self.now();
        assert!(self.writer.reap(Wait::No, || now));
        assert_eq!(self.commits(), before + 1);
    }

    fn commits(&self) -> u64 {
        self.writer.shard.counts().commits
    }

    /// When the writer wants its next turn.
    fn wakes_at(&mut self) -> Option<u64> {
        match self.writer.work(self.now()) {
            Some(Wait::AtMost(limit)) => Some(self.now_ns + limit.as_nanos() as u64),
            _ => None,
        }
    }
}

/// Waits as a task does: looks, and says whom to wake.
fn wait(receipt: &mut Receipt) -> Option<Result<Position, ReceiptError>> {
    match Pin::new(receipt).poll(&mut Context::from_waker(Task::noop())) {
        std::task::Poll::Ready(end) => Some(end),
        std::task::Poll::Pending => None,
    }
}

fn is_done(receipt: &mut Receipt) -> bool {
    wait(receipt).is_some_and(|end| end.is_ok())
}

/// Two that wait for one commit, and a third whose record has come since.
fn two_served_and_one_come(turns: &mut Turns) -> [Receipt; 3] {
    let mut both = [turns.append(), turns.append()];
    assert!(both.iter_mut().all(|receipt| wait(receipt).is_none()));
    turns.commit();
    let third = turns.append();
    let [a, b] = both;
    [a, b, third]
}

#[test]
fn those_who_were_served_are_told_first_and_the_next_commit_waits_for_one_of_them() {
    let mut turns = Turns::new();
    let [mut a, mut b, mut third] = two_served_and_one_come(&mut turns);
    let before = turns.commits();
    assert!(turns.wakes_at().is_some());
    assert_eq!(turns.commits(), before, "it has not waited");
    // Both are told: they come back, and the first that waits again has the writer woken.
    assert!(is_done(&mut a) && is_done(&mut b));
    let mut again = [turns.append(), turns.append()];
    turns.writer.work(turns.now());
    assert_eq!(turns.commits(), before, "an append alone does not end the wait");
    assert!(wait(&mut again[0]).is_none());
    turns.commit();
    turns.rest();
    assert!(is_done(&mut third));
    assert!(again.iter_mut().all(is_done), "all that came are in one commit");
    turns.inbox.abandon();
}

#[test]
fn a_commit_waits_for_company_no_longer_than_twice_the_last_one_and_then_less_often() {
    let mut turns = Turns::new();
    let mut tries = 0;
    let mut commits_between = 0;
    let mut seen = Vec::new();
    while tries < 6 {
        let [.., mut third] = two_served_and_one_come(&mut turns);
        let before = turns.commits();
        let begun = turns.now_ns;
        let wakes_at = turns.wakes_at();
        if turns.commits() == before {
            // It waits, and nobody comes.
            let wakes_at = wakes_at.expect("an end of the wait");
            assert!(wakes_at <= begun + 2 * COMMIT_NS, "{} ns", wakes_at - begun);
            turns.now_ns = wakes_at;
            turns.writer.work(turns.now());
            assert_eq!(turns.commits(), before + 1, "the wait has no end");
            tries += 1;
            seen.push(std::mem::take(&mut commits_between));
        } else {
            commits_between += 1;
        }
        turns.rest();
        assert!(is_done(&mut third));
    }
    assert!(seen.is_sorted() && seen[5] > 4, "{seen:?}");
    turns.inbox.abandon();
}

#[test]
fn one_that_waits_alone_has_nobody_to_wait_for() {
    let mut turns = Turns::new();
    for _ in 0..3 {
        let mut receipt = turns.append();
        assert!(wait(&mut receipt).is_none());
        turns.commit();
        turns.rest();
        assert!(is_done(&mut receipt));
        let mut next = turns.append(); // would be held if the writer waited
        let before = turns.commits();
        turns.writer.work(turns.now());
        assert_eq!(turns.commits(), before + 1);
        turns.rest();
        assert!(is_done(&mut next));
    }
    turns.inbox.abandon();
}

/// With a flush for each append nobody gains by company.
#[test]
fn what_goes_apart_waits_for_nobody() {
    let mut turns = Turns::new();
    let how = How { apart: true, ..HOW };
    let record = [b"record"];
    let append =
        |thread| turns.inbox.append(thread, StreamId(1), FrameKind::Record, &record, how).unwrap();
    let mut receipts: Vec<_> = (0..4).map(append).collect();
    assert!(receipts.iter_mut().all(|receipt| wait(receipt).is_none()));
    let before = turns.commits();
    turns.writer.work(turns.now());
    for done in 1..=4 {
        assert_eq!(turns.commits(), before + done, "it waits");
        turns.now_ns += COMMIT_NS;
        let now = turns.now();
        assert!(turns.writer.reap(Wait::No, || now));
        turns.writer.work(now);
        let acknowledged = receipts.iter().filter(|receipt| receipt.is_acknowledged()).count();
        assert_eq!(acknowledged as u64, done);
    }
    turns.rest();
    turns.inbox.abandon();
}

#[test]
fn memory_that_runs_low_ends_the_wait() {
    let mut turns = Turns::new();
    let _receipts = two_served_and_one_come(&mut turns);
    let before = turns.commits();
    assert!(turns.wakes_at().is_some());
    assert_eq!(turns.commits(), before);
    turns.inbox.press();
    turns.writer.work(turns.now());
    assert_eq!(turns.commits(), before + 1);
    // That commit served nobody who waits, so the next one has nobody to wait for.
    let now = turns.now();
    assert!(turns.writer.reap(Wait::No, || now));
    let mut next = turns.append();
    turns.writer.work(now);
    assert_eq!(turns.commits(), before + 2, "the wait goes on");
    turns.rest();
    assert!(is_done(&mut next));
    turns.inbox.abandon();
}

/// Four threads to a slot, a record of 4 KiB each: a chunk a little larger than four blocks. Each by itself
/// would take five.
#[test]
fn chunks_that_padding_would_blow_up_are_copied_together() {
    let mut turns = Turns::new();
    let record = [[0x5a_u8; 4096]];
    for thread in 0..64 {
        drop(turns.inbox.append(thread, StreamId(1), FrameKind::Record, &record, HOW).unwrap());
    }
    let before = turns.writer.shard.counts().bytes_written;
    turns.commit();
    let written = turns.writer.shard.counts().bytes_written - before;
    assert!(written * 100 <= 64 * 4096 * 105, "{written} bytes");
    turns.rest();
    turns.inbox.abandon();
}
