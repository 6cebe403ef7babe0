//! The workloads: small, each for one phase of a log's life.
//!
//! Sizes, the order of completions, the shard's number and the alignment follow from the seed, so
//! that each round of all of them is another one. What is written is mostly short enough that every
//! subset of its sectors can be taken.

use std::time::Duration;

use ringlog::Durability::{Memory, Synced, Written};
use ringlog::{Request, SyncPolicy};

use super::look::Counts;
use super::rig::{MS, Rig, Wrong, options};
use super::{Size, Stop};
use crate::crash::{Crash, Keep, KeepNames, Kill};
use crate::rng::Rng;

type Workload = fn(&mut Rig) -> Wrong;

macro_rules! workloads {
    ($($name:ident: $sync:expr;)*) => {
        /// The names of the workloads, in the order in which they are run.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
        const WORKLOADS: &[(SyncPolicy, Workload)] = &[$(($sync, $name)),*];
    };
}

workloads! {
    killed_and_cut: SyncPolicy::EveryCommit;
    rotation_by_size: SyncPolicy::EveryCommit;
    unproven_tail_over_segments: SyncPolicy::Never;
    recycled_in_flight: SyncPolicy::EveryCommit;
    stale_frames_behind_the_end: SyncPolicy::EveryCommit;
    single_records: SyncPolicy::EveryCommit;
    batches_over_blocks: SyncPolicy::EveryCommit;
    commits_in_flight: SyncPolicy::EveryCommit;
    many_commits_in_flight: SyncPolicy::EveryCommit;
    several_streams: SyncPolicy::EveryCommit;
    every_append: SyncPolicy::EveryAppend;
    interval: SyncPolicy::Interval(Duration::from_millis(5));
    every_records: SyncPolicy::EveryRecords { records: 3, max_delay: Duration::from_millis(5) };
    every_bytes: SyncPolicy::EveryBytes { bytes: 3000, max_delay: Duration::from_millis(5) };
    never_but_asked: SyncPolicy::Never;
    memory_and_watermark: SyncPolicy::EveryCommit;
    rotation_by_hand: SyncPolicy::EveryCommit;
    rotation_in_flight: SyncPolicy::Never;
    rotation_by_age: SyncPolicy::EveryCommit;
    trim_and_recycle: SyncPolicy::EveryCommit;
    trim_of_streams: SyncPolicy::EveryCommit;
    retention: SyncPolicy::EveryCommit;
    clean_close: SyncPolicy::EveryCommit;
    close_with_work_in_flight: SyncPolicy::Never;
    unproven_tail_rewritten: SyncPolicy::Never;
    life_after_life: SyncPolicy::EveryCommit;
}

/// Runs the workload of a task (those with the most states come first in each round): the tasks go through all workloads, round after round.
pub(super) fn run(task: u64, size: Size, stop: &Stop) -> (&'static str, u64, Counts, Vec<String>) {
    let number = (task % NAMES.len() as u64) as usize;
    let (sync, workload) = WORKLOADS[number];
    let name = NAMES[number];
    let seed = Rng::new(size.seed ^ task << 16).next_u64();
    let (counts, wrong) = match Rig::new(seed, size, stop, options(sync)) {
        Ok(mut rig) => {
            let result = workload(&mut rig);
            rig.end(result)
        }
        Err(wrong) => (Counts { wrong: 1, ..Counts::default() }, vec![wrong]),
    };
    let told = wrong.into_iter().map(|wrong| format!("{name}, task {task}: {wrong}")).collect();
    (name, task, counts, told)
}

/// A cut at which everything that was submitted has reached the media.
fn keeping_all() -> Crash {
    Crash::keeping_all()
}

/// Opens a log that has two streams and is at rest.
fn begin(rig: &mut Rig) -> Wrong {
    rig.open()?;
    rig.append("a", &[40], Written)?;
    rig.append("b", &[40], Memory)?;
    rig.settle()
}

/// Recovers what is there, appends, and closes.
fn one_more_life(rig: &mut Rig) -> Wrong {
    rig.open()?;
    let len = rig.sectors(2);
    rig.append("a", &[len], Written)?;
    rig.settle()?;
    rig.close()
}

fn single_records(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for count in [1, 3, 8, 6, 2] {
        let len = rig.sectors(count);
        rig.append_and_wait("a", &[len], Synced)?;
    }
    rig.settle()?;
    let len = rig.sectors(7);
    rig.append("b", &[len], Synced)?;
    rig.turns(1)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn batches_over_blocks(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    let lens: Vec<usize> = (0..6).map(|_| 300 + rig.rng.index(700)).collect();
    rig.append_and_wait("a", &lens, Synced)?;
    let lens: Vec<usize> = (0..4).map(|_| 1500 + rig.rng.index(250)).collect();
    rig.append_and_wait("b", &lens, Synced)?;
    rig.append("a", &[5000, 0, 700], Synced)?;
    rig.turns(1)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn commits_in_flight(rig: &mut Rig) -> Wrong {
    rig.options.commits_in_flight = Some(3);
    rig.options.commit_bytes = Some(64 << 10);
    begin(rig)?;
    for (count, waits) in [(4, true), (5, false), (3, true)] {
        rig.hold(true);
        for slot in 0..3 {
            let len = rig.sectors(count);
            rig.append_as(slot, ["a", "b", "c"][slot], &[len], [Synced, Written, Synced][slot])?;
            rig.turn()?;
            rig.pass(2 * MS)?;
        }
        rig.hold(false);
        if waits {
            rig.settle()?;
        } else {
            rig.turns(3)?;
        }
    }
    rig.cut_somehow();
    one_more_life(rig)
}

fn many_commits_in_flight(rig: &mut Rig) -> Wrong {
    rig.options.commits_in_flight = Some(8);
    rig.options.commit_bytes = Some(64 << 10);
    begin(rig)?;
    rig.hold(true);
    for at in 0..8 {
        let len = rig.sectors(1 + at % 3);
        rig.append_as(at, "a", &[len], if at % 3 == 1 { Written } else { Synced })?;
        rig.turn()?;
        rig.pass(2 * MS)?;
    }
    rig.hold(false);
    rig.settle()?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn several_streams(rig: &mut Rig) -> Wrong {
    rig.open()?;
    rig.settle()?;
    for name in ["x", "another stream", "ü", "y"] {
        let len = rig.sectors(2);
        rig.append(name, &[len, 20], Synced)?;
        rig.turns(2)?;
    }
    rig.settle()?;
    rig.cut_somehow();
    rig.open()?;
    for name in ["y", "new", "x"] {
        let len = rig.sectors(4);
        rig.append(name, &[len], Synced)?;
        rig.turns(2)?;
    }
    rig.settle()?;
    rig.close()
}

fn every_append(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for at in 0..4 {
        let len = rig.sectors(2 + at);
        rig.append_as(at, "a", &[len], Synced)?;
        rig.append_as(at, "b", &[100], Written)?;
        rig.turns(1)?;
    }
    rig.settle()?;
    rig.cut_somehow();
    one_more_life(rig)
}

/// Appends at several levels while time passes, so that the policy makes flushes now and then.
fn by_policy(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for at in 0..6 {
        let len = rig.sectors(1 + at % 4);
        rig.append("a", &[len], [Synced, Written, Memory][at % 3])?;
        rig.turns(2)?;
        rig.pass(1_700_000)?;
        if at == 3 {
            rig.settle()?;
        }
    }
    rig.turns(2)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn interval(rig: &mut Rig) -> Wrong {
    by_policy(rig)
}

fn every_records(rig: &mut Rig) -> Wrong {
    by_policy(rig)
}

fn every_bytes(rig: &mut Rig) -> Wrong {
    by_policy(rig)
}

fn never_but_asked(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for _ in 0..2 {
        for at in 0..3 {
            let len = rig.sectors(2 + at);
            rig.append_and_wait(["a", "b"][at % 2], &[len], Written)?;
        }
        rig.ask_and_wait(Request::Flush)?;
    }
    let len = rig.sectors(6);
    rig.append_and_wait("a", &[len, 100], Written)?;
    rig.ask(Request::Flush)?;
    rig.turns(1)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn memory_and_watermark(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for count in [2, 5] {
        let len = rig.sectors(count);
        rig.append("a", &[len], Memory)?;
        rig.turns(3)?;
        rig.append("b", &[len], Synced)?;
        rig.settle()?; // the watermark behind it
    }
    rig.append("a", &[3000], Memory)?;
    rig.pass(2 * MS)?;
    rig.turns(2)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn rotation_by_hand(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for at in 0..3 {
        let len = rig.sectors(3 + at);
        rig.append_and_wait("a", &[len], Synced)?;
        rig.ask(Request::Rotate)?;
        rig.append("b", &[len / 2], Synced)?;
        rig.turns(3)?;
    }
    rig.settle()?;
    rig.cut_somehow();
    rig.open()?;
    rig.append_and_wait("a", &[900], Synced)?;
    rig.ask_and_wait(Request::Rotate)?;
    rig.settle()?;
    rig.close()
}

fn rotation_in_flight(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for count in [3, 2] {
        let len = rig.sectors(count);
        rig.append_and_wait("a", &[len], Written)?;
        rig.hold(true);
        rig.ask(Request::Rotate)?;
        rig.turn()?;
        rig.append("b", &[len], Written)?;
        rig.turn()?;
        rig.pass(2 * MS)?;
        rig.turns(2)?;
        rig.hold(false);
        rig.turns(6)?;
    }
    rig.cut_somehow();
    one_more_life(rig)
}

fn rotation_by_size(rig: &mut Rig) -> Wrong {
    rig.options.commit_bytes = Some(64 << 10);
    begin(rig)?;
    for _ in 0..5 {
        let len = 40_000 + rig.rng.index(15_000);
        rig.append_and_wait("a", &[len], Synced)?;
        rig.settle()?;
    }
    let len = rig.sectors(5);
    rig.append_and_wait("b", &[len], Synced)?;
    rig.settle()?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn rotation_by_age(rig: &mut Rig) -> Wrong {
    rig.options.rotate_after = Some(Duration::from_millis(1500));
    begin(rig)?;
    for _ in 0..2 {
        let len = rig.sectors(3);
        rig.append_and_wait("a", &[len], Synced)?;
        rig.pass(1600 * MS)?;
        rig.turns(4)?;
    }
    rig.append("b", &[700], Synced)?;
    rig.turns(2)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn trim_and_recycle(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for at in 0..4 {
        let len = rig.sectors(6);
        rig.append_and_wait("a", &[len], Synced)?;
        rig.ask_and_wait(Request::Rotate)?;
        rig.append_and_wait("b", &[300], Synced)?;
        if at % 2 == 1 {
            rig.ask(Request::Trim { keep_sealed: 1 - at / 3 })?;
        }
        rig.turns(6)?;
    }
    rig.settle()?;
    rig.cut_somehow();
    one_more_life(rig)
}

/// Fills files, trims them, and writes into them once more: behind each batch lie frames of the
/// life of the file before, none of them zeros.
fn recycled_in_flight(rig: &mut Rig) -> Wrong {
    rig.options.commits_in_flight = Some(2);
    begin(rig)?;
    for _ in 0..5 {
        for _ in 0..3 {
            let len = rig.sectors(8);
            rig.append_and_wait("a", &[len], Synced)?;
        }
        rig.ask_and_wait(Request::Rotate)?;
        rig.append_and_wait("b", &[10], Synced)?;
        rig.ask_and_wait(Request::Trim { keep_sealed: 0 })?;
        rig.settle()?;
    }
    rig.hold(true);
    for slot in 0..2 {
        let len = rig.sectors(7);
        rig.append_as(slot, "a", &[len], Synced)?;
        rig.turn()?;
        rig.pass(2 * MS)?;
    }
    rig.hold(false);
    rig.turns(4)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn trim_of_streams(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for _ in 0..3 {
        rig.append_and_wait("a", &[300, 200], Synced)?;
        rig.append_and_wait("b", &[200], Written)?;
        rig.trim_stream("a", 3)?;
        rig.turns(2)?;
        rig.ask_and_wait(Request::Rotate)?;
        rig.trim_stream("b", 2)?;
        rig.trim_stream("a", 5)?;
        rig.turns(4)?;
    }
    rig.cut_somehow();
    rig.open()?;
    rig.trim_stream("a", u64::MAX)?;
    rig.settle()?;
    rig.close()?;
    one_more_life(rig)
}

fn retention(rig: &mut Rig) -> Wrong {
    rig.options.retention.max_segments = Some(1);
    rig.look.borrow_mut().may_trim = true;
    begin(rig)?;
    for _ in 0..4 {
        let len = rig.sectors(3);
        rig.append_and_wait("a", &[len], Synced)?;
        rig.ask(Request::Rotate)?;
        rig.turns(8)?;
    }
    rig.cut_somehow();
    one_more_life(rig)
}

fn clean_close(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for _ in 0..2 {
        let len = rig.sectors(4);
        rig.append_and_wait("a", &[len], Synced)?;
        rig.append("b", &[len / 2], Written)?;
        rig.turns(1)?;
        rig.close()?;
        rig.open()?;
    }
    rig.append("a", &[2500], Synced)?;
    rig.turns(1)?;
    rig.cut_somehow();
    one_more_life(rig)
}

fn close_with_work_in_flight(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for (at, level) in [Memory, Written, Written].into_iter().enumerate() {
        let len = rig.sectors(2 + at);
        rig.append_as(at, ["a", "b", "c"][at], &[len], level)?;
        rig.turn()?;
    }
    rig.close()?;
    rig.open()?;
    rig.close()?;
    one_more_life(rig)
}

/// Recovery itself is the workload: what nothing proves to be durable is written again.
fn unproven_tail_rewritten(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for _ in 0..2 {
        for at in 0..4 {
            let len = rig.sectors(1 + at);
            rig.append_and_wait(["a", "b"][at % 2], &[len], Written)?;
        }
        rig.cut(&keeping_all());
        rig.open()?;
    }
    rig.append_and_wait("a", &[100], Written)?;
    rig.cut(&keeping_all());
    one_more_life(rig)
}

fn unproven_tail_over_segments(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for at in 0..2 {
        let len = rig.sectors(2);
        rig.append_and_wait("a", &[len], Written)?;
        rig.hold(true);
        if at < 1 {
            rig.ask(Request::Rotate)?;
        }
        rig.append("c", &[200], Written)?;
        rig.turn()?;
        rig.pass(2 * MS)?;
        rig.turns(2)?;
        rig.hold(false);
        rig.turns(2)?;
    }
    let names = [KeepNames::All, KeepNames::Nothing][rig.rng.index(2)].clone();
    rig.cut(&Crash { keep: Keep::All, names, tear_bytes: 512, seed: 1 });
    rig.open()?;
    rig.append_and_wait("b", &[100], Written)?;
    rig.kill(Kill::LandAll);
    one_more_life(rig)
}

/// The first of some unflushed batches is lost, those behind it stay where the next life writes.
fn stale_frames_behind_the_end(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for _ in 0..2 {
        let counts = [4, 5, 6];
        for count in counts {
            let len = rig.sectors(count);
            rig.append_and_wait("a", &[len], Written)?;
        }
        rig.cut(&Crash { keep: Keep::DropOne, names: KeepNames::All, tear_bytes: 4096, seed: 5 });
        rig.open()?;
        for count in [2, 3] {
            let len = rig.sectors(count);
            rig.append_and_wait("a", &[len], Synced)?;
        }
    }
    rig.cut_somehow();
    one_more_life(rig)
}

fn killed_and_cut(rig: &mut Rig) -> Wrong {
    begin(rig)?;
    for kill in [Kill::Random, Kill::LandNone, Kill::LandAll] {
        let len = rig.sectors(2);
        rig.append_and_wait("a", &[len], Written)?;
        rig.append("b", &[len], Synced)?;
        rig.turn()?;
        rig.kill(kill);
        rig.open()?;
        rig.append_and_wait("b", &[80], Synced)?;
    }
    rig.cut_somehow();
    one_more_life(rig)
}

fn life_after_life(rig: &mut Rig) -> Wrong {
    for _ in 0..6 {
        rig.open()?;
        let len = rig.sectors(3);
        rig.append("a", &[len], Synced)?;
        let turns = 1 + rig.rng.index(12);
        rig.turns(turns)?;
        rig.cut_somehow();
    }
    one_more_life(rig)
}
