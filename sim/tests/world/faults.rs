//! Errors on demand, damage, and the contract that callers must keep.

use std::collections::BTreeSet;

use crate::common::{A, B, KIB4, Process, fills, kind, name, one_file};
use ringlog_disk::{DiskErrorKind, Done, FileId, Flush, Op, Slice};
use ringlog_sim::{Class, Crash, Effect, Fault, Landed, SimWorld, When, WorldOptions};

const IO: DiskErrorKind = DiskErrorKind::Io;

fn fail(landed: Landed) -> Effect {
    Effect::Fail { errno: libc::EIO, landed }
}

#[test]
fn a_failed_write_may_be_on_the_disk_in_part() {
    let mut counts = BTreeSet::new();
    for seed in 0..40 {
        let (world, mut process) = one_file(seed);
        world.arm(Fault::new(Class::Write, When::Nth(2), Effect::EIO));
        process.write_ok(A, 0, 1, Flush::No);
        assert_eq!(kind(process.write(A, 1, 1, Flush::Own)), IO);
        process.write_ok(A, 2, 1, Flush::No);
        let bytes = world.read("a");
        counts.insert(bytes[KIB4..2 * KIB4].chunks(512).filter(|s| s[0] == 1).count());
        assert_eq!(fills(&world.read_durable("a"))[1], 0);
    }
    assert!(counts.len() > 3, "{counts:?}");
}

#[test]
fn a_failed_write_may_have_done_nothing_or_everything() {
    for (landed, expected) in [(Landed::Nothing, 0), (Landed::Everything, 1)] {
        let (world, mut process) = one_file(1);
        world.arm(Fault::new(Class::Write, When::From(1), fail(landed)));
        assert_eq!(kind(process.write(A, 0, 1, Flush::No)), IO);
        assert_eq!(kind(process.write(A, 1, 1, Flush::No)), IO);
        assert_eq!(fills(&world.read("a"))[..2], [expected; 2]);
        world.clear_faults();
        process.write_ok(A, 3, 1, Flush::No);
    }
}

#[test]
fn after_a_failed_flush_the_next_one_answers_well_and_has_written_nothing() {
    for (landed, visible) in [(Landed::Everything, 1), (Landed::Nothing, 0)] {
        let (world, mut process) = one_file(1);
        process.write_ok(A, 0, 1, Flush::No);
        world.arm(Fault::new(Class::Flush, When::Nth(1), fail(landed)));
        assert_eq!(kind(process.sync(A)), IO);
        assert_eq!(process.sync(A), Ok(Done::Synced));
        process.write_ok(A, 1, 2, Flush::File);
        assert_eq!(process.read(A, 0).unwrap()[0], visible);
        world.crash(&Crash::losing_all());
        assert_eq!(fills(&world.read("a"))[..2], [0, 2]);
    }
}

#[test]
fn a_failed_flush_of_a_write_concerns_its_own_bytes() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    world.arm(Fault::new(Class::Flush, When::Nth(1), fail(Landed::Everything)));
    assert_eq!(kind(process.write(A, 1, 2, Flush::Own)), IO);
    assert_eq!(process.sync(A), Ok(Done::Synced));
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("a"))[..2], [1, 0]);
}

#[test]
fn a_full_disk_refuses_new_files_until_there_is_room() {
    let (world, mut process) = one_file(1);
    world.set_capacity(Some(9 * KIB4 as u64));
    let create = || Op::Create { file: B, name: name("b"), bytes: 2 * KIB4 as u64 };
    assert_eq!(kind(process.run(create())), DiskErrorKind::NoSpace);
    assert_eq!(world.files().len(), 1, "a failed create leaves nothing behind");
    let replace = Op::Replace { name: name("m"), content: vec![0; 2 * KIB4] };
    assert_eq!(kind(process.run(replace)), DiskErrorKind::NoSpace);
    process.write_ok(A, 0, 1, Flush::Own);
    world.set_capacity(Some(10 * KIB4 as u64));
    assert!(process.run(create()).is_ok());
}

#[test]
fn enospc_can_come_from_a_write() {
    let (world, mut process) = one_file(1);
    world.arm(Fault::new(Class::Write, When::Nth(1), Effect::ENOSPC));
    assert_eq!(kind(process.write(A, 0, 1, Flush::No)), DiskErrorKind::NoSpace);
}

#[test]
fn every_class_of_operation_can_fail() {
    for class in Class::ALL {
        let (world, mut process) = one_file(1);
        process.run(Op::Replace { name: name("m"), content: vec![1] }).unwrap();
        world.arm(Fault::new(class, When::Nth(1), fail(Landed::Nothing)));
        let results = [
            process.write(A, 0, 1, Flush::File),
            process.read(A, 0).map(|_| Done::Synced),
            process.run(Op::Load { name: name("m"), limit_bytes: 10 }),
            process.run(Op::Open { file: B, name: name("m"), write: false }),
            process.run(Op::Create { file: FileId(9), name: name("c"), bytes: KIB4 as u64 }),
            process.run(Op::Rename { from: name("a"), to: name("z") }),
            process.run(Op::Remove { name: name("m") }),
            process.run(Op::Replace { name: name("n"), content: vec![1] }),
            process.run(Op::Store { name: name("s"), content: vec![1].into() }),
            process.run(Op::SyncDir),
            process.run(Op::List),
        ];
        let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(failed.len(), 1, "{class:?}: {failed:?}");
        assert_eq!(failed[0].kind, IO);
        assert_eq!(world.stats().faults, 1);
        assert_eq!(world.stats().contract_violations, 0);
    }
}

#[test]
fn names_after_a_failed_directory_sync_are_not_saved_by_the_next() {
    let (world, mut process) = one_file(1);
    process.create(B, "b", KIB4 as u64);
    world.arm(Fault::new(Class::SyncDir, When::Nth(1), fail(Landed::Nothing)));
    assert_eq!(kind(process.run(Op::SyncDir)), IO);
    process.sync_dir();
    world.crash(&Crash::losing_all());
    assert_eq!(world.files().len(), 1);
}

#[test]
fn a_failed_replace_may_have_happened_but_is_not_durable() {
    let (world, mut process) = one_file(1);
    process.run(Op::Replace { name: name("m"), content: b"old".to_vec() }).unwrap();
    world.arm(Fault::new(Class::Replace, When::Nth(1), fail(Landed::Everything)));
    let replace = Op::Replace { name: name("m"), content: b"new".to_vec() };
    assert_eq!(kind(process.run(replace)), IO);
    assert_eq!(world.read("m"), b"new");
    world.crash(&Crash::losing_all());
    assert_eq!(world.read("m"), b"old");
}

#[test]
fn a_disk_that_lies_about_flushes_loses_what_it_acknowledged() {
    let (world, mut process) = one_file(1);
    world.lie_about_flushes();
    process.create(B, "b", KIB4 as u64);
    process.sync_dir();
    process.write_ok(A, 0, 1, Flush::Own);
    process.write_ok(A, 1, 1, Flush::File);
    assert_eq!(process.sync(A), Ok(Done::Synced));
    process.run(Op::Replace { name: name("m"), content: vec![1] }).unwrap();
    assert_eq!(fills(&world.read("a"))[..2], [1, 1]);
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("a"))[..2], [0, 0]);
    assert_eq!(world.files().len(), 1);
}

#[test]
fn lost_and_misdirected_writes_answer_well() {
    let (world, mut process) = one_file(1);
    world.arm(Fault::new(Class::Write, When::Nth(1), Effect::Lie));
    let beside = Effect::Misdirect { by_bytes: 2 * KIB4 as i64 };
    world.arm(Fault::new(Class::Write, When::Nth(2), beside));
    process.write_ok(A, 0, 1, Flush::Own);
    process.write_ok(A, 1, 2, Flush::Own);
    assert_eq!(fills(&world.read_durable("a"))[..4], [0, 0, 0, 2]);
}

#[test]
fn reads_can_be_misdirected_or_flipped() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 1, 5, Flush::Own);
    world.arm(Fault::new(Class::Read, When::Nth(1), Effect::Misdirect { by_bytes: 4096 }));
    world.arm(Fault::new(Class::Read, When::Nth(2), Effect::FlipBit));
    assert_eq!(process.read(A, 0).unwrap()[0], 5);
    let flipped = process.read(A, 1).unwrap();
    let wrong: u32 = flipped.iter().map(|b| (b ^ 5).count_ones()).sum();
    assert_eq!(wrong, 1);
    assert_eq!(process.read(A, 1).unwrap(), vec![5; KIB4]);
}

#[test]
fn an_unreadable_sector_answers_eio_until_it_is_written() {
    let (world, mut process) = one_file(1);
    world.set_unreadable("a", 5000);
    assert_eq!(process.read(A, 1).unwrap_err().kind, IO);
    assert!(process.read(A, 0).is_ok());
    process.write_ok(A, 1, 1, Flush::No);
    assert!(process.read(A, 1).is_ok());
    world.set_unreadable("a", 0);
    let load = Op::Load { name: name("a"), limit_bytes: 1 << 20 };
    assert_eq!(kind(process.run(load)), IO);
}

#[test]
fn tests_can_meddle_with_files() {
    let (world, mut process) = one_file(1);
    for block in 0..8 {
        process.write_ok(A, block, block as u8 + 1, Flush::No);
    }
    world.flip_bit("a", 8 * KIB4 as u64 + 3);
    assert_eq!(world.read_durable("a")[KIB4], 2 ^ 8);
    world.zero("a", 0..KIB4 as u64);
    world.overwrite("a", 2 * KIB4 as u64, &[77]);
    world.set_len("a", 5 * KIB4 as u64);
    assert_eq!(fills(&world.read("a")), [0, 2 ^ 8, 77, 4, 5]);
    world.put("b", b"small");
    world.swap("a", "b");
    assert_eq!(world.read("a"), b"small");
    world.duplicate("b", "c");
    world.delete("b");
    world.set_others(2);
    let mut next = Process::start(&world);
    match next.run(Op::List).unwrap() {
        Done::Listed { files, others } => {
            let listed: Vec<_> = files.iter().map(|f| (f.name.as_str(), f.bytes)).collect();
            assert_eq!((listed, others), (vec![("a", 5), ("c", 5 * KIB4 as u64)], 2));
        }
        other => panic!("{other:?}"),
    }
    world.crash(&Crash::losing_all());
    assert_eq!(fills(&world.read("c")), [0, 2 ^ 8, 77, 4, 5]);
}

#[test]
fn settling_makes_everything_durable() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    process.create(B, "b", KIB4 as u64);
    world.settle();
    assert_eq!((world.volatile_units(512), world.volatile_names()), (0, 0));
    world.crash(&Crash::losing_all());
    assert_eq!((fills(&world.read("a"))[0], world.files().len()), (1, 2));
}

#[test]
fn whoever_breaks_the_contract_is_told_and_counted() {
    let (world, mut process) = one_file(1);
    let block = |p: &Process| p.pool.take().unwrap();
    let write = |p: &Process, file, offset, len| {
        let data = vec![Slice { block: block(p), len }];
        Op::Write { file, offset, data, flush: Flush::No }
    };
    let mut ops = vec![
        write(&process, A, 100, KIB4),
        write(&process, A, 0, 100),
        write(&process, A, 0, 0),
        write(&process, A, 0, 1 << 20),
        write(&process, A, 8 * KIB4 as u64, KIB4),
        write(&process, FileId(7), 0, KIB4),
        Op::Write { file: A, offset: 0, data: Vec::new(), flush: Flush::No },
        Op::Sync { file: FileId(7) },
        Op::Read { file: A, offset: 100, block: block(&process), len: KIB4 },
        Op::Read { file: A, offset: 0, block: block(&process), len: 1 << 20 },
        Op::Open { file: A, name: name("a"), write: true },
        Op::Open { file: FileId(FileId::LIMIT), name: name("a"), write: true },
        Op::Create { file: B, name: name("b"), bytes: 100 },
        Op::Close { file: FileId(7) },
    ];
    let count = ops.len() as u64;
    for op in ops.drain(..) {
        let text = format!("{op:?}");
        assert_eq!(kind(process.run(op)), DiskErrorKind::Unexpected, "{text}");
    }
    assert_eq!(world.stats().contract_violations, count);
    assert_eq!(process.pool.available(), 64, "blocks come back");
}

#[test]
fn a_file_is_closed_when_nothing_is_in_flight_and_used_while_it_is_open() {
    let (world, mut process) = one_file(1);
    let write = process.write_op(A, 0, 1, Flush::No);
    let written = process.submit(write);
    process.submit(Op::Close { file: A });
    for done in process.drain() {
        assert_eq!(done.result.is_ok(), done.tag == written);
    }
    let closed = process.submit(Op::Close { file: A });
    let late = process.write_op(A, 0, 1, Flush::No);
    process.submit(late);
    process.submit(Op::Open { file: A, name: name("a"), write: true });
    for done in process.drain() {
        assert_eq!(done.result.is_ok(), done.tag == closed);
    }
    assert_eq!(world.stats().contract_violations, 3);
    assert!(process.open(A, "a").is_ok(), "the id is free again");
}

#[test]
fn a_file_opened_for_reading_is_not_written() {
    let (world, mut process) = one_file(1);
    process.run(Op::Open { file: B, name: name("a"), write: false }).unwrap();
    assert_eq!(kind(process.write(B, 0, 1, Flush::No)), DiskErrorKind::Access);
    assert_eq!(kind(process.sync(B)), DiskErrorKind::Access);
    assert_eq!(world.stats().contract_violations, 2);
}

#[test]
fn what_is_not_there_or_there_already_is_an_error_of_its_own() {
    let (world, mut process) = one_file(1);
    assert_eq!(kind(process.open(B, "nope")), DiskErrorKind::NotFound);
    assert_eq!(kind(process.run(Op::Remove { name: name("nope") })), DiskErrorKind::NotFound);
    let rename = Op::Rename { from: name("nope"), to: name("a") };
    assert_eq!(kind(process.run(rename)), DiskErrorKind::NotFound);
    let load = Op::Load { name: name("nope"), limit_bytes: 1 };
    assert_eq!(kind(process.run(load)), DiskErrorKind::NotFound);
    let load = Op::Load { name: name("a"), limit_bytes: 1 };
    assert_eq!(kind(process.run(load)), DiskErrorKind::Unexpected);
    let create = Op::Create { file: B, name: name("a"), bytes: KIB4 as u64 };
    assert_eq!(kind(process.run(create)), DiskErrorKind::Exists);
    assert_eq!(world.stats().contract_violations, 0);
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    let (world, mut process) = one_file(1);
    world.put("odd", &[3; 5000]);
    process.open(B, "odd").unwrap();
    assert_eq!(process.read(B, 1).unwrap(), vec![3; 904]);
    assert_eq!(process.read(B, 2).unwrap(), Vec::<u8>::new());
}

#[test]
fn sectors_of_512_bytes_can_be_written_alone() {
    let options = WorldOptions { align_bytes: 512, ..WorldOptions::default() };
    let world = SimWorld::new(&options);
    let mut process = Process::start(&world);
    process.create(A, "a", 1024);
    let mut block = process.pool.take().unwrap();
    block.fill(1);
    let data = vec![Slice { block, len: 512 }];
    let write = Op::Write { file: A, offset: 512, data, flush: Flush::No };
    assert_eq!(process.run(write), Ok(Done::Wrote));
    assert_eq!(world.read("a")[511..513], [0, 1]);
}

#[test]
fn what_was_done_is_counted() {
    let (world, mut process) = one_file(1);
    process.write_ok(A, 0, 1, Flush::No);
    process.write_ok(A, 1, 1, Flush::Own);
    process.write_ok(A, 2, 1, Flush::File);
    process.sync(A).unwrap();
    process.read(A, 0).unwrap();
    process.run(Op::Rename { from: name("a"), to: name("b") }).unwrap();
    process.run(Op::Remove { name: name("b") }).unwrap();
    let stats = world.stats();
    assert_eq!((stats.writes, stats.bytes_written), (3, 3 * KIB4 as u64));
    assert_eq!((stats.flushes_own, stats.flushes_file, stats.syncs, stats.flushes()), (1, 1, 1, 3));
    assert_eq!((stats.creates, stats.renames, stats.removes, stats.dir_syncs), (1, 1, 1, 1));
    assert_eq!((stats.reads, stats.bytes_read), (1, KIB4 as u64));
}

#[test]
fn files_grow_only_where_the_world_says_so() {
    let grown = |files_grow| {
        let world = SimWorld::new(&WorldOptions { files_grow, ..WorldOptions::default() });
        let mut process = Process::start(&world);
        process.create(A, "a", KIB4 as u64);
        let written = process.write(A, 2, 1, Flush::Own).is_ok();
        (written, world.files()[0].1, world.stats().contract_violations)
    };
    assert_eq!(grown(true), (true, 3 * KIB4 as u64, 0));
    assert_eq!(grown(false), (false, KIB4 as u64, 1));
}
