//! What recovery keeps, cuts and refuses.

use ringlog::format::batch::{
    BATCH_HEADER_BYTES, BatchHeader, FRAME_HEADER_BYTES, HeaderSeed, SECTION_HEADER_BYTES,
};
use ringlog::format::manifest::Manifest;
use ringlog::{Durability, Epoch, Lsn, OpenError, Request, SegmentId, SyncPolicy};
use ringlog_sim::watch::{Content, Seen};
use ringlog_sim::{Class, Crash, Effect, Fault, Kill, Landed, Moment, SimDisk, SimWorld, When};

use crate::common::{IDENTITY, MS, Running, open, options, try_open, world};

/// The segment and file offset of each batch written so far.
fn batches(shard: &Running) -> Vec<(String, u64)> {
    let batch = |seen: &Seen| match seen {
        Seen::Write { file, offset, what: Content::Batch, .. } => Some((file.clone(), *offset)),
        _ => None,
    };
    shard.watch.journal().iter().filter_map(batch).collect()
}

/// Two segments with records acknowledged as durable, and some behind them in two more that
/// nothing proves to be.
fn unproven_tail() -> (SimWorld, Vec<Vec<u8>>) {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    let records: Vec<Vec<u8>> = (0..12_u8).map(|at| vec![at; 3000]).collect();
    for (at, record) in records.iter().enumerate() {
        let durability = if at < 6 { Durability::Synced } else { Durability::Written };
        shard.append_and_wait(record, durability);
        if at == 2 {
            shard.ask_and_wait(Request::Rotate);
        }
    }
    (world, records)
}

#[test]
fn what_is_not_proven_is_written_again_into_a_fresh_segment() {
    let (world, records) = unproven_tail();
    world.crash(&Crash::keeping_all());
    let shard = open(&world, SyncPolicy::EveryCommit);
    assert_eq!(shard.read(), records);
    assert!(shard.shard.recovery().records_rewritten >= 6);
    let before = batches(&shard).len();
    assert!(before >= 6, "{before} batches were written in recovery");
    shard.check();
    world.crash(&Crash::losing_all());
    assert_eq!(open(&world, SyncPolicy::EveryCommit).read(), records, "what was served stays");
}

#[test]
fn recovery_may_be_cut_at_every_operation() {
    let (built, records) = unproven_tail();
    for keep_all in [true, false] {
        let crash = if keep_all { Crash::keeping_all() } else { Crash::losing_all() };
        let start = built.fork();
        start.crash(&crash);
        let expected = open(&start.fork(), SyncPolicy::EveryCommit).read();
        assert_eq!(expected, records[..expected.len()]);
        assert!(expected.len() >= if keep_all { 12 } else { 6 });
        for moment in [Moment::Submission, Moment::Completion] {
            for seed in 0..12 {
                let operations = cut_everywhere(&start, moment, seed, &expected, &records);
                assert!(operations > 8, "{operations}");
            }
        }
    }
}

/// Cuts a recovery at its first, second, … operation; gives how many there are.
fn cut_everywhere(
    start: &SimWorld,
    moment: Moment,
    seed: u64,
    expected: &[Vec<u8>],
    records: &[Vec<u8>],
) -> u64 {
    for n in 1.. {
        let world = start.fork();
        world.crash_after_ops(n, moment, Crash::seeded(seed * 1000 + n));
        let opened = try_open(&world, &options(SyncPolicy::EveryCommit));
        if world.cancel_scripted_crash() {
            assert_eq!(opened.expect("it opens").read(), expected);
            return n;
        }
        drop(opened);
        let found = open(&world, SyncPolicy::EveryCommit).read();
        // What the first recovery saw was on the media already, unless the cut was in it.
        assert_eq!(found, expected, "cut at {n} ({moment:?}), seed {seed}");
        assert_eq!(found, records[..found.len()]);
    }
    0
}

#[test]
fn a_torn_batch_cuts_what_lies_in_the_next_segment_too() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::Never);
    for record in [b"a", b"b", b"c"] {
        shard.append_and_wait(record, Durability::Written);
    }
    let first = batches(&shard).last().unwrap().0.clone();
    shard.watch.hold(true);
    let _unheard = shard.ask(Request::Rotate);
    shard.turn();
    let late = shard.append(b"d", Durability::Written).unwrap();
    shard.turn();
    shard.pass(2 * MS); // a shard at work takes a chunk within 1 ms
    shard.turns(3);
    assert!(!late.is_acknowledged());
    let second = batches(&shard).last().unwrap().0.clone();
    assert_ne!(first, second, "the last batch lies in the next segment");
    assert_eq!(world.volatile_units(4096), 4);
    let all = world.fork();
    all.crash(&Crash::masked(vec![true; 4], 4096));
    assert_eq!(open(&all, SyncPolicy::Never).read(), [b"a", b"b", b"c", b"d"]);
    world.crash(&Crash::masked(vec![true, true, false, true], 4096));
    assert_eq!(open(&world, SyncPolicy::Never).read(), [b"a", b"b"]);
}

/// Three records, each acknowledged as durable by a flush of its own; where their batches lie.
fn three_synced(watermark: bool) -> (SimWorld, Vec<(String, u64)>) {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    let before = batches(&shard).len();
    for record in [b"a", b"b", b"c"] {
        shard.append_and_wait(record, Durability::Synced);
    }
    let places = batches(&shard)[before..].to_vec();
    assert_eq!(places.len(), 3);
    if watermark {
        shard.pass(6 * MS);
        shard.turns(4);
        assert_eq!(batches(&shard).len(), before + 4);
    }
    world.crash(&Crash::losing_all());
    (world, places)
}

#[test]
fn a_bad_batch_below_what_a_later_one_proves_is_loud() {
    for at in 0..2 {
        let (world, places) = three_synced(false);
        let (file, offset) = &places[at];
        world.flip_bit(file, (offset + 100) * 8);
        let before = world.files();
        match try_open(&world, &options(SyncPolicy::EveryCommit)).err() {
            Some(OpenError::Corrupt(found)) => {
                assert_eq!((&found.file, found.file_offset), (file, *offset));
            }
            other => panic!("batch {at}: {other:?}"),
        }
        assert_eq!(world.files(), before, "nothing is deleted");
    }
}

#[test]
fn the_last_batch_is_proven_by_the_watermark_behind_it() {
    let (world, places) = three_synced(true);
    world.flip_bit(&places[2].0, (places[2].1 + 100) * 8);
    let refused = try_open(&world, &options(SyncPolicy::EveryCommit)).err();
    assert!(matches!(refused, Some(OpenError::Corrupt(_))), "{refused:?}");
    // Without one, nothing tells damage from a batch that was torn.
    let (world, places) = three_synced(false);
    world.flip_bit(&places[2].0, (places[2].1 + 100) * 8);
    assert_eq!(open(&world, SyncPolicy::EveryCommit).read(), [b"a", b"b"]);
}

#[test]
fn frames_of_an_older_life_do_not_come_back() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"kept", Durability::Synced);
    shard.pass(6 * MS);
    shard.turns(4);
    for record in [b"old1", b"old2", b"old3"] {
        shard.append_and_wait(record, Durability::Written);
    }
    // The first of the three is lost, the others stay on the media behind the end.
    assert_eq!(world.volatile_units(4096), 3);
    world.crash(&Crash::masked(vec![false, true, true], 4096));
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    assert_eq!(shard.read(), [b"kept"]);
    shard.append_and_wait(b"new1", Durability::Synced);
    world.crash(&Crash::keeping_all());
    assert_eq!(open(&world, SyncPolicy::EveryCommit).read(), [b"kept", b"new1"]);
}

#[test]
fn a_reader_that_goes_on_behind_damage_passes_over_what_older_lives_left() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"kept", Durability::Synced);
    shard.pass(6 * MS);
    shard.turns(4);
    let before = batches(&shard).len();
    for record in [b"old1", b"old2", b"old3"] {
        shard.append_and_wait(record, Durability::Written);
    }
    let places = batches(&shard)[before..].to_vec();
    world.crash(&Crash::masked(vec![false, true, true], 4096));
    let left: Vec<Vec<u8>> = places
        .iter()
        .map(|(file, offset)| world.read(file)[*offset as usize..*offset as usize + 4096].to_vec())
        .collect();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    assert_eq!(shard.read(), [b"kept"]);
    for record in [b"new1", b"new2", b"new3", b"new4"] {
        shard.append_and_wait(record, Durability::Synced);
    }
    // The disk has lost two writes that it had acknowledged.
    for at in [1, 2] {
        world.overwrite(&places[at].0, places[at].1, &left[at]);
    }
    let reader = shard.shard.read(Box::new(SimDisk::open(&world)), shard.stream, None).unwrap();
    let (found, told): (Vec<_>, Vec<_>) = reader.partition(Result::is_ok);
    let found: Vec<_> =
        found.into_iter().map(|record| record.unwrap().payload().to_vec()).collect();
    assert_eq!(found, [&b"kept"[..], b"new1", b"new4"]);
    assert_eq!(told.len(), 1);
}

#[test]
fn a_reader_tells_of_a_batch_that_does_not_continue_the_one_before_it() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    for record in [b"one", b"two", b"six"] {
        shard.append_and_wait(record, Durability::Synced);
    }
    assert_eq!(shard.read(), [b"one", b"two", b"six"]);
    let places = batches(&shard);
    let (file, offset) = &places[places.len() - 2];
    let segment = SegmentId(u64::from_str_radix(file.strip_suffix(".seg").unwrap(), 16).unwrap());
    let mut front = world.read(file)[*offset as usize..][..BATCH_HEADER_BYTES].to_vec();
    let lsn = Lsn(u64::from_le_bytes(front[8..16].try_into().unwrap()));
    let seed = HeaderSeed::new(IDENTITY.log, IDENTITY.shard, segment);
    let (mut header, _) = BatchHeader::decode(&front, seed, lsn).unwrap();
    // Sound in itself, and all of its records.
    header.previous ^= 1;
    header.encode(seed, &mut front);
    world.overwrite(file, *offset, &front);
    let reader = shard.shard.read(Box::new(SimDisk::open(&world)), shard.stream, None).unwrap();
    let (found, told): (Vec<_>, Vec<_>) = reader.partition(Result::is_ok);
    let found: Vec<_> =
        found.into_iter().map(|record| record.unwrap().payload().to_vec()).collect();
    assert_eq!(found, [b"one", b"six"]);
    assert_eq!(told.len(), 1, "{told:?}");
}

/// A batch like the last one, forged behind the end of the log or at the front of the next
/// segment. What is wrong with it is up to the caller.
#[derive(Clone, Copy)]
struct Forgery {
    epoch_back: u64,
    chain_flip: u32,
    seed_of: Option<SegmentId>,
    next_segment: bool,
}

/// How many records are found in a log of two that is opened with the forged batch in it.
fn opened_with(forgery: &Forgery) -> u64 {
    let world = world();
    // Two lives, so that there is an older epoch.
    drop(open(&world, SyncPolicy::EveryCommit));
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"a", Durability::Synced);
    shard.append_and_wait(b"b", Durability::Synced);
    let (file, offset) = batches(&shard).last().unwrap().clone();
    world.crash(&Crash::losing_all());
    drop(shard);
    let segment = SegmentId(u64::from_str_radix(file.strip_suffix(".seg").unwrap(), 16).unwrap());
    let mut batch = world.read(&file)[offset as usize..offset as usize + 4096].to_vec();
    let lsn = Lsn(u64::from_le_bytes(batch[8..16].try_into().unwrap()));
    let seed = |segment| HeaderSeed::new(IDENTITY.log, IDENTITY.shard, segment);
    let (mut header, chain) = BatchHeader::decode(&batch, seed(segment), lsn).unwrap();
    header.lsn = header.end();
    header.epoch = Epoch(header.epoch.0 - forgery.epoch_back);
    header.previous = chain ^ forgery.chain_flip;
    let manifest = Manifest::decode(&world.read("manifest")).unwrap();
    let next = manifest.segments.iter().map(|entry| entry.segment).find(|id| *id > segment);
    let (target, at) = match forgery.next_segment {
        true => (next.expect("a prepared segment"), 4096),
        false => (segment, offset + 4096),
    };
    header.encode(seed(forgery.seed_of.unwrap_or(target)), &mut batch[..BATCH_HEADER_BYTES]);
    world.overwrite(&format!("{:016x}.seg", target.0), at, &batch);
    open(&world, SyncPolicy::EveryCommit).shard.recovery().records
}

#[test]
fn a_batch_is_taken_only_with_the_right_epoch_chain_and_segment() {
    let good = Forgery { epoch_back: 0, chain_flip: 0, seed_of: None, next_segment: false };
    assert_eq!(opened_with(&good), 3, "the forger knows the trade");
    assert_eq!(opened_with(&Forgery { next_segment: true, ..good }), 3);
    for next_segment in [false, true] {
        let good = Forgery { next_segment, ..good };
        assert_eq!(opened_with(&Forgery { epoch_back: 1, ..good }), 2, "{next_segment}");
        assert_eq!(opened_with(&Forgery { chain_flip: 1, ..good }), 2, "{next_segment}");
        let seed_of = Some(SegmentId(77));
        assert_eq!(opened_with(&Forgery { seed_of, ..good }), 2, "{next_segment}");
    }
}

#[test]
fn no_bit_of_a_batch_may_change_unnoticed() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"the record in question", Durability::Synced);
    let (file, offset) = batches(&shard).last().unwrap().clone();
    shard.append_and_wait(b"another", Durability::Synced);
    assert!(matches!(shard.ask_and_wait(Request::Close), ringlog::Reply::Done));
    drop(shard);
    // Header, section, frame and run lie in the front; behind it is padding.
    let front = 0..256 * 8;
    let rest = (256 * 8..4096 * 8).step_by(409);
    let mut silent = Vec::new();
    let closed = world;
    for bit in front.chain(rest) {
        let world = closed.fork();
        world.flip_bit(&file, offset * 8 + bit);
        // The index stands for the batches of a segment that was closed cleanly: whoever reads the
        // batch is told, or gets the record as it was.
        let shard = try_open(&world, &options(SyncPolicy::EveryCommit)).expect("it opens");
        let disk = Box::new(SimDisk::open(&world));
        let reader = shard.shard.read(disk, shard.stream, None).expect("a reader");
        let (found, told): (Vec<_>, Vec<_>) = reader.partition(Result::is_ok);
        let found: Vec<_> = found.into_iter().map(|one| one.unwrap().payload().to_vec()).collect();
        let good = !told.is_empty() || found == [&b"the record in question"[..], b"another"];
        drop(shard);
        // Without the index, recovery is told.
        let world = closed.fork();
        world.flip_bit(&file, offset * 8 + bit);
        world.delete(&file.replace(".seg", ".idx"));
        let refused = try_open(&world, &options(SyncPolicy::EveryCommit)).err();
        if !good || !matches!(refused, Some(OpenError::Corrupt(_))) {
            silent.push(bit);
        }
    }
    assert_eq!(silent, Vec::<u64>::new(), "bits that nobody misses");
}

/// What blocks that were never written, or were erased, would say.
#[test]
fn a_checksum_of_zero_is_no_checksum() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"the record in question", Durability::Synced);
    let (file, offset) = batches(&shard).last().unwrap().clone();
    shard.append_and_wait(b"another", Durability::Synced);
    world.crash(&Crash::keeping_all());
    drop(shard);
    let frame = (BATCH_HEADER_BYTES + SECTION_HEADER_BYTES) as u64;
    // Of the header the time is changed, of the frame a byte of its payload.
    for (checksum, changed) in [(4, 32), (frame, frame + FRAME_HEADER_BYTES as u64)] {
        let world = world.fork();
        world.overwrite(&file, offset + checksum, &[0; 4]);
        world.flip_bit(&file, (offset + changed) * 8);
        let refused = try_open(&world, &options(SyncPolicy::EveryCommit)).err();
        assert!(matches!(refused, Some(OpenError::Corrupt(_))), "{checksum}: {refused:?}");
    }
}

#[test]
fn a_file_that_a_crash_has_left_and_that_cannot_be_removed_is_passed_over() {
    let world = world();
    world.put("0000000000000002.seg", &[7; 4096]);
    let effect = Effect::Fail { errno: 5, landed: Landed::Nothing };
    world.arm(Fault::new(Class::Remove, When::From(1), effect));
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    for at in 0..8 {
        shard.append_and_wait(&[at], Durability::Synced);
        shard.ask_and_wait(Request::Rotate);
    }
    assert_eq!(shard.shard.poisoned(), None);
    assert_eq!(shard.read().len(), 8);
    shard.check();
}

/// A read that gives wrong bytes once must not make the log shorter: it is refused, and nothing is
/// lost for the next attempt; or it does not matter.
#[test]
fn one_wrong_read_never_cuts_what_is_proven() {
    let effects = [
        Effect::FlipBit,
        Effect::Misdirect { by_bytes: 32 << 10 },
        Effect::Misdirect { by_bytes: 512 << 10 },
    ];
    let (mut refused, mut opened) = (0, 0);
    for (effect, more) in effects.into_iter().flat_map(|effect| [(effect, 0), (effect, 9)]) {
        for nth in 1..=16 {
            let world = world();
            // No manifest tells yet that there is anything.
            let mut shard = try_open(&world, &options(SyncPolicy::EveryCommit)).expect("it opens");
            shard.append_and_wait(b"one", Durability::Synced);
            for _ in 0..more {
                shard.append_and_wait(&[7; 130_000], Durability::Synced);
            }
            world.crash(&Crash::keeping_all());
            drop(shard);
            world.arm(Fault::new(Class::Read, When::Nth(nth), effect));
            let first = try_open(&world, &options(SyncPolicy::EveryCommit));
            world.clear_faults();
            let shard = match first {
                Ok(shard) => {
                    opened += 1;
                    shard
                }
                Err(_) => {
                    refused += 1;
                    try_open(&world, &options(SyncPolicy::EveryCommit)).expect("a good disk")
                }
            };
            assert_eq!(shard.read().len(), 1 + more, "{effect:?} at read {nth}");
            world.kill(Kill::LandAll);
        }
    }
    assert!(refused > 10 && opened > 10, "{refused} refused, {opened} opened");
}
