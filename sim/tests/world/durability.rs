//! What the simulated disk keeps and loses at a power cut, and what it keeps when a process dies.

use std::collections::BTreeSet;

use crate::common::{A, B, KIB4, Process, fills, kind, name, one_file};
use ringlog_disk::{Disk, DiskErrorKind, Done, FileId, Flush, Op, Wait};
use ringlog_sim::{
    Crash, Keep, KeepNames, Kill, Moment, SimDisk, SimWorld, WorldOptions, crash_states,
};

#[test]
fn unflushed_writes_are_read_and_lost() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 7, Flush::No);
    assert_eq!(process.read(A, 0).unwrap(), vec![7; KIB4]);
    assert_eq!(fills(&world.read("a"))[0], 7);
    assert_eq!(fills(&world.read_durable("a"))[0], 0);
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("a"))[0], 0);
}

#[test]
fn a_flush_of_its_own_bytes_flushes_nothing_else() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    process.write_ok(A, 1, 2, Flush::Own);
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("a"))[..2], [0, 2]);
}

#[test]
fn a_covering_flush_makes_earlier_writes_durable_of_this_file_only() {
    let (world, mut process) = one_file(1);
    process.create(B, "b", KIB4 as u64);
    process.sync_dir();
    process.write_ok(A, 0, 1, Flush::No);
    process.write_ok(B, 0, 9, Flush::No);
    process.write_ok(A, 1, 2, Flush::File);
    process.write_ok(A, 2, 3, Flush::No);
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("a"))[..3], [1, 2, 0]);
    assert_eq!(fills(&world.read("b")), [0]);
}

#[test]
fn sync_covers_only_what_had_completed_before_it_was_submitted() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    let write = process.write_op(A, 1, 2, Flush::No);
    process.submit(write);
    process.submit(Op::Sync { file: A });
    assert!(process.drain().iter().all(|c| c.result.is_ok()));
    assert_eq!(fills(&world.read_durable("a"))[..2], [1, 0]);
    assert_eq!(process.sync(A), Ok(Done::Synced));
    assert_eq!(fills(&world.read_durable("a"))[..2], [1, 2]);
}

#[test]
fn a_covering_write_covers_no_write_that_was_in_flight_beside_it() {
    let (world, mut process) = one_file(1);
    let first = process.write_op(A, 0, 1, Flush::No);
    let second = process.write_op(A, 1, 2, Flush::File);
    process.submit(first);
    process.submit(second);
    process.drain();
    assert_eq!(fills(&world.read_durable("a"))[..2], [0, 2]);
}

#[test]
fn a_write_in_flight_may_be_on_the_media_in_part() {
    let mut states = BTreeSet::new();
    for seed in 0..60 {
        let (world, mut process) = one_file(1);
        let write = process.write_op(A, 0, 1, Flush::Own);
        process.submit(write);
        let keep = Keep::Random(500_000);
        world.crash(&Crash { keep, names: KeepNames::All, tear_bytes: 512, seed });
        let bytes = world.read("a");
        let sectors: Vec<u8> = bytes[..KIB4].chunks(512).map(|s| s[0]).collect();
        assert!(bytes[..KIB4].chunks(512).all(|s| s.iter().all(|b| *b == s[0])));
        states.insert(sectors);
    }
    assert!(states.len() > 30, "only {} states", states.len());
}

#[test]
fn blocks_of_4096_bytes_tear_only_where_told() {
    for seed in 0..30 {
        let (world, mut process) = one_file(1);
        for block in 0..8 {
            process.write_ok(A, block, 1, Flush::No);
        }
        let keep = Keep::Random(500_000);
        world.crash(&Crash { keep, names: KeepNames::All, tear_bytes: 4096, seed });
        let bytes = world.read("a");
        assert!(bytes.chunks(KIB4).all(|b| b.iter().all(|byte| *byte == b[0])));
    }
}

#[test]
fn a_mask_decides_each_unit_and_enumerates_every_state() {
    let (world, mut process) = one_file(1);
    for block in 0..3 {
        process.write_ok(A, block, 1, Flush::No);
    }
    let write = process.write_op(A, 3, 1, Flush::No);
    process.submit(write);
    let units = world.volatile_units(4096);
    assert_eq!((units, world.volatile_units(512)), (4, 32));
    let mut seen = BTreeSet::new();
    for mask in crash_states(units, 16, 0, 0) {
        let fork = world.fork();
        fork.crash(&Crash::masked(mask.clone(), 4096));
        let kept: Vec<bool> = fills(&fork.read("a"))[..4].iter().map(|b| *b == 1).collect();
        assert_eq!(kept, mask);
        seen.insert(kept);
    }
    assert_eq!(seen.len(), 16);
    assert_eq!(world.volatile_units(4096), 4, "the forks changed their origin");
}

#[test]
fn a_created_file_keeps_its_length_but_perhaps_not_its_name() {
    let (world, mut process) = one_file(1);
    process.create(B, "b", 2 * KIB4 as u64);
    assert_eq!(world.volatile_names(), 1);
    let lost = world.fork();
    lost.crash(&Crash::losing_all());
    assert_eq!(lost.files(), [("a".to_string(), 8 * KIB4 as u64)]);
    let kept = world.fork();
    kept.crash(&Crash { names: KeepNames::All, ..Crash::losing_all() });
    assert_eq!(kept.files().len(), 2);
    assert_eq!(kept.read("b"), vec![0; 2 * KIB4]);
    process.sync_dir();
    world.crash(&Crash::losing_all());
    assert_eq!(world.files().len(), 2);
}

#[test]
fn renames_are_atomic_and_removals_may_be_undone() {
    let (world, mut process) = one_file(1);
    process.create(B, "b", KIB4 as u64);
    process.create(FileId(3), "c", KIB4 as u64);
    process.sync_dir();
    let rename = Op::Rename { from: name("a"), to: name("b") };
    assert_eq!(process.run(rename), Ok(Done::Named));
    assert_eq!(process.run(Op::Remove { name: name("c") }), Ok(Done::Named));
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let fork = world.fork();
        fork.crash(&Crash { names: KeepNames::Groups, seed, ..Crash::losing_all() });
        let files: Vec<(String, u64)> = fork.files();
        let b = files.iter().find(|(n, _)| n == "b").expect("b is always there").1;
        assert_eq!(b == 8 * KIB4 as u64, files.iter().all(|(n, _)| n != "a"));
        seen.insert(files);
    }
    assert_eq!(seen.len(), 4, "two independent changes have four outcomes");
}

#[test]
fn a_replaced_file_is_durable_when_it_completed_and_whole_in_between() {
    let (world, mut process) = one_file(1);
    let replace = |text: &str| Op::Replace { name: name("m"), content: text.into() };
    assert_eq!(process.run(replace("old")), Ok(Done::Named));
    let fork = world.fork();
    fork.crash(&Crash::losing_all());
    assert_eq!(fork.read("m"), b"old");
    process.submit(replace("new and longer"));
    let mut seen = BTreeSet::new();
    for seed in 0..60 {
        let fork = world.fork();
        fork.crash(&Crash { names: KeepNames::Groups, seed, ..Crash::losing_all() });
        seen.insert(fork.read("m"));
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new and longer".to_vec()]));
}

#[test]
fn what_is_stored_is_seen_whole_but_may_be_lost_or_torn() {
    let (world, mut process) = one_file(1);
    let store = |fill: u8| Op::Store { name: name("m"), content: vec![fill; 2 * KIB4].into() };
    assert_eq!(process.run(store(1)), Ok(Done::Named));
    assert_eq!(process.run(Op::SyncDir), Ok(Done::Named));
    assert_eq!(fills(&world.read("m")), [1, 1]);
    let mut torn = BTreeSet::new();
    for seed in 0..60 {
        let fork = world.fork();
        fork.crash(&Crash { seed, ..Crash::seeded(seed) });
        let read = fork.read("m");
        torn.insert((read.contains(&0), read.contains(&1)));
    }
    assert_eq!(torn.len(), 3, "whole, empty and torn: {torn:?}");
    assert_eq!(process.run(store(2)), Ok(Done::Named));
    world.crash(&Crash::losing_all());
    assert!(!world.read("m").contains(&2), "a name that nothing made durable");
}

#[test]
fn a_replace_makes_no_other_name_durable() {
    let (world, mut process) = one_file(1);
    process.create(B, "b", KIB4 as u64);
    let replace = Op::Replace { name: name("m"), content: b"x".to_vec() };
    assert_eq!(process.run(replace), Ok(Done::Named));
    world.crash(&Crash::losing_all());
    let names: Vec<String> = world.files().into_iter().map(|f| f.0).collect();
    assert_eq!(names, ["a", "m"]);
}

#[test]
fn a_file_that_was_being_created_may_be_short() {
    let (world, mut process) = one_file(1);
    process.submit(Op::Create { file: B, name: name("b"), bytes: 8 * KIB4 as u64 });
    let lengths: BTreeSet<Option<u64>> = (0..80)
        .map(|seed| {
            let fork = world.fork();
            fork.crash(&Crash { names: KeepNames::Groups, seed, ..Crash::losing_all() });
            fork.files().iter().find(|(n, _)| n == "b").map(|f| f.1)
        })
        .collect();
    assert!(lengths.contains(&None));
    assert!(lengths.contains(&Some(8 * KIB4 as u64)));
    assert!(lengths.len() > 4, "{lengths:?}");
}

#[test]
fn after_a_cut_the_old_disk_is_dead_and_gives_its_blocks_back() {
    let (world, mut process) = one_file(1);
    let free = process.pool.available();
    let write = process.write_op(A, 0, 1, Flush::No);
    process.submit(write);
    world.crash(&Crash::losing_all());
    assert!(process.disk.is_dead());
    process.submit(Op::SyncDir);
    let done = process.drain();
    assert_eq!(done.len(), 2);
    assert_eq!(done[0].slices.len(), 1);
    for completion in done {
        assert_eq!(kind(completion.result), DiskErrorKind::Io);
    }
    assert_eq!(process.pool.available(), free);
    assert_eq!(kind(process.write(A, 0, 1, Flush::No)), DiskErrorKind::Io);
    let mut next = Process::start(&world);
    assert_eq!(next.open(A, "a"), Ok(Done::Opened { bytes: 8 * KIB4 as u64 }));
}

#[test]
fn a_killed_process_leaves_the_cache_and_a_later_cut_may_lose_it() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    process.write_ok(A, 1, 2, Flush::Own);
    world.kill(Kill::LandNone);
    assert!(process.disk.is_dead());
    let mut next = Process::start(&world);
    next.open(A, "a").unwrap();
    assert_eq!(next.read(A, 0).unwrap()[0], 1);
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("a"))[..2], [0, 2]);
}

#[test]
fn a_flush_of_the_next_process_covers_what_the_killed_one_left() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    world.kill(Kill::Random);
    let mut next = Process::start(&world);
    next.open(A, "a").unwrap();
    assert_eq!(next.sync(A), Ok(Done::Synced));
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("a"))[0], 1);
}

#[test]
fn writes_in_flight_when_the_process_dies_land_fully_in_part_or_not_at_all() {
    let landed = |kill: Kill, seed: u64| {
        let (world, mut process) = one_file(seed);
        let write = process.write_op(A, 0, 1, Flush::No);
        process.submit(write);
        world.kill(kill);
        let early = world.read("a")[..KIB4].chunks(512).filter(|s| s[0] == 1).count();
        world.land_late_writes();
        (early, world.read("a")[..KIB4].chunks(512).filter(|s| s[0] == 1).count())
    };
    assert_eq!(landed(Kill::LandAll, 1), (8, 8));
    assert_eq!(landed(Kill::LandNone, 1), (0, 0));
    let random: BTreeSet<usize> = (0..40).map(|seed| landed(Kill::Random, seed).1).collect();
    assert!(random.contains(&0) && random.contains(&8) && random.len() > 3, "{random:?}");
    let late: Vec<(usize, usize)> = (0..40).map(|seed| landed(Kill::Late, seed)).collect();
    assert!(late.iter().all(|l| l.0 == 0) && late.iter().any(|l| l.1 == 8), "{late:?}");
}

#[test]
fn a_scripted_cut_comes_at_the_operation_it_was_told() {
    for moment in [Moment::Submission, Moment::Completion] {
        let (world, mut process) = one_file(1);
        let crash = Crash { keep: Keep::Nothing, ..Crash::keeping_all() };
        world.crash_after_ops(3, moment, crash);
        for block in 0..2 {
            process.write_ok(A, block, 1, Flush::Own);
        }
        assert_eq!(world.stats().crashes, 0);
        let third = process.write(A, 2, 1, Flush::Own);
        assert_eq!(kind(third), DiskErrorKind::Io);
        assert_eq!(world.stats().crashes, 1);
        assert!(!world.cancel_scripted_crash());
        // A write that was only submitted is lost; one that completed was flushed before the cut.
        let expected = if moment == Moment::Submission { 0 } else { 1 };
        assert_eq!(fills(&world.read("a"))[..3], [1, 1, expected]);
    }
}

#[test]
fn a_scripted_cut_can_strike_the_next_life() {
    let (world, process) = one_file(1);
    drop(process);
    world.crash(&Crash::losing_all());
    world.crash_after_ops(2, Moment::Completion, Crash::losing_all());
    let mut next = Process::start(&world);
    assert!(next.open(A, "a").is_ok());
    assert_eq!(kind(next.run(Op::List)), DiskErrorKind::Io);
    assert_eq!(world.stats().crashes, 2);
}

#[test]
fn dropping_a_disk_waits_for_what_is_in_flight() {
    let (world, mut process) = one_file(1);
    let write = process.write_op(A, 0, 1, Flush::Own);
    process.submit(write);
    process.submit(Op::Remove { name: name("a") });
    process.submit(Op::SyncDir);
    drop(process);
    assert_eq!(world.files(), []);
    assert_eq!(world.stats().flushes_own, 1);
}

#[test]
fn data_completes_in_any_order_and_names_in_theirs() {
    let mut orders = BTreeSet::new();
    for seed in 0..30 {
        let world = SimWorld::seeded(seed);
        let mut process = Process::start(&world);
        process.create(A, "a", 8 * KIB4 as u64);
        let writes: Vec<_> = (0..3).map(|b| process.write_op(A, b, 1, Flush::No)).collect();
        let data: Vec<u64> = writes.into_iter().map(|op| process.submit(op).0).collect();
        let names: Vec<u64> = (0..3).map(|_| process.submit(Op::List).0).collect();
        let done: Vec<u64> = process.drain().iter().map(|c| c.tag.0).collect();
        let of = |set: &[u64]| done.iter().copied().filter(|t| set.contains(t)).collect::<Vec<_>>();
        assert_eq!(of(&names), names);
        assert_eq!(of(&data).len(), 3);
        orders.insert(of(&data));
    }
    assert_eq!(orders.len(), 6, "some orders of three writes never come");
}

#[test]
fn a_reap_that_may_not_wait_may_bring_nothing_and_one_that_may_brings_something() {
    let world = SimWorld::seeded(3);
    let mut process = Process::start(&world);
    process.disk.reap(Wait::Any, &mut Vec::new()); // nothing in flight: returns
    let mut counts = BTreeSet::new();
    for _ in 0..50 {
        process.submit(Op::List);
        process.submit(Op::List);
        let mut out = Vec::new();
        process.disk.reap(Wait::No, &mut out);
        counts.insert(out.len());
        while process.disk.in_flight() > 0 {
            let before = out.len();
            process.disk.reap(Wait::Any, &mut out);
            assert!(out.len() > before);
        }
    }
    assert_eq!(counts, BTreeSet::from([0, 1, 2]));
}

#[test]
fn two_disks_share_one_world() {
    let (world, mut writer) = one_file(1);
    let mut reader = Process::start(&world);
    assert!(reader.run(Op::Open { file: B, name: name("a"), write: false }).is_ok());
    writer.write_ok(A, 2, 5, Flush::No);
    assert_eq!(reader.read(B, 2).unwrap(), vec![5; KIB4]);
    drop(writer);
    assert_eq!(reader.read(B, 2).unwrap()[0], 5);
}

#[test]
fn a_removed_file_lives_while_it_is_open_and_its_room_comes_back() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 4, Flush::No);
    assert_eq!(process.run(Op::Remove { name: name("a") }), Ok(Done::Named));
    process.sync_dir();
    assert_eq!(process.read(A, 0).unwrap()[0], 4);
    assert_eq!(world.used_bytes(), 8 * KIB4 as u64);
    assert_eq!(process.run(Op::Close { file: A }), Ok(Done::Closed));
    assert_eq!(world.used_bytes(), 0);
}

fn busy_run(seed: u64) -> (u64, Vec<String>) {
    let world = SimWorld::new(&WorldOptions { seed, keep_trace: true, ..WorldOptions::default() });
    let mut process = Process::start(&world);
    process.create(A, "a", 8 * KIB4 as u64);
    for round in 0..8 {
        for block in 0..4 {
            let write = process.write_op(A, block, round, Flush::No);
            process.submit(write);
        }
        process.submit(Op::Sync { file: A });
        process.submit(Op::SyncDir);
        process.drain();
    }
    world.crash(&Crash::seeded(seed));
    (world.trace_hash(), world.trace())
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let (hash, trace) = busy_run(5);
    assert!(trace.len() > 80);
    assert_eq!(busy_run(5), (hash, trace));
    assert_ne!(busy_run(6).0, hash);
}

#[test]
fn a_disk_can_move_to_another_thread() {
    fn movable<T: Send>(_: &T) {}
    let world = SimWorld::seeded(1);
    movable(&world);
    movable(&SimDisk::open(&world));
}

#[test]
fn all_states_of_sixteen_sectors_can_be_visited() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    let write = process.write_op(A, 1, 1, Flush::No);
    process.submit(write);
    let mut seen = BTreeSet::new();
    for mask in crash_states(world.volatile_units(512), 16, 0, 0) {
        let fork = world.fork();
        fork.crash(&Crash::masked(mask, 512));
        let mut next = Process::start_with(&fork, &process.pool);
        next.open(A, "a").unwrap();
        let kept = |bytes: Vec<u8>| bytes.chunks(512).fold(0_u32, |n, s| n * 2 + u32::from(s[0]));
        seen.insert(kept(next.read(A, 0).unwrap()) * 256 + kept(next.read(A, 1).unwrap()));
    }
    assert_eq!(seen.len(), 1 << 16);
}

#[test]
fn forks_of_one_state_part_when_they_are_seeded_anew() {
    let ways: BTreeSet<u64> = (0..20)
        .map(|seed| {
            let world = SimWorld::seeded(1);
            let fork = world.fork();
            fork.reseed(seed);
            let mut process = Process::start(&fork);
            process.create(A, "a", 8 * KIB4 as u64);
            for block in 0..8 {
                let write = process.write_op(A, block, 1, Flush::No);
                process.submit(write);
            }
            process.drain();
            fork.trace_hash()
        })
        .collect();
    assert!(ways.len() > 10, "{} ways", ways.len());
}
