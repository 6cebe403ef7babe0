//! Clean closes: what they leave, what the next life takes on trust, and what crashes make of it.

use ringlog::format::batch::{BATCH_HEADER_BYTES, BatchHeader, HeaderSeed};
use ringlog::format::manifest::{Manifest, SegmentState};
use ringlog::format::segment::SEGMENT_HEADER_BYTES;
use ringlog::{Durability, OpenError, Reply, Request, SyncPolicy};
use ringlog_sim::faults::{Class, Effect, Fault, Landed, When};
use ringlog_sim::watch::Seen;
use ringlog_sim::{Crash, Moment, SimWorld};

use crate::common::{IDENTITY, MS, Running, open, options, try_open, world};

fn close(mut shard: Running) {
    assert_eq!(shard.ask_and_wait(Request::Close), Reply::Done);
    shard.check();
}

fn manifest(world: &SimWorld) -> Manifest {
    Manifest::decode(&world.read("manifest")).unwrap()
}

/// The index of the segment that was open at the close.
fn closed_index(world: &SimWorld) -> String {
    let (segment, _) = manifest(world).closed().expect("a closed segment");
    format!("{:016x}.idx", segment.0)
}

fn strict(world: &SimWorld) -> Running {
    try_open(world, &options(SyncPolicy::EveryCommit)).expect("it opens")
}

/// A log with a sealed segment and some records behind it, closed; and the records.
fn closed_log() -> (SimWorld, Vec<Vec<u8>>) {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    let records: Vec<Vec<u8>> = (0..9_u8).map(|at| vec![at; 1 + 900 * usize::from(at)]).collect();
    for (at, record) in records.iter().enumerate() {
        shard.append_and_wait(record, Durability::Synced);
        if at == 4 {
            assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
        }
    }
    close(shard);
    (world, records)
}

#[test]
fn the_next_life_scans_nothing_and_goes_on_exactly() {
    let (world, mut records) = closed_log();
    for round in 0..4_u8 {
        let shard = strict(&world);
        let recovery = shard.shard.recovery();
        assert_eq!((recovery.bytes_scanned, recovery.records, recovery.clean), (0, 0, true));
        assert_eq!(shard.read(), records, "round {round}");
        assert_eq!(shard.shard.next_offset(shard.stream).0, records.len() as u64);
        assert_eq!(manifest(&world).closed(), None, "from here on it is scanned again");
        assert!(!manifest(&world).clean);
        let mut shard = shard;
        // A life in which nothing is written, one with records, one that fills the segment.
        for _ in 0..[0, 2, 12, 1][usize::from(round)] {
            let record = vec![round; 100_000];
            shard.append_and_wait(&record, Durability::Synced);
            records.push(record);
        }
        assert_eq!(shard.read(), records);
        close(shard);
    }
    world.crash(&Crash::losing_all());
    assert_eq!(strict(&world).read(), records);
}

#[test]
fn a_life_that_ends_in_a_crash_is_scanned_wholly() {
    let (world, mut records) = closed_log();
    let mut shard = strict(&world);
    shard.append_and_wait(b"more", Durability::Synced);
    records.push(b"more".to_vec());
    world.crash(&Crash::losing_all());
    let shard = strict(&world);
    assert!(shard.shard.recovery().bytes_scanned > 0);
    assert_eq!(shard.shard.recovery().records, 5, "what lies behind the sealed segment");
    assert_eq!(shard.read(), records);
}

#[test]
fn an_empty_open_segment() {
    let world = world();
    let mut shard = strict(&world);
    shard.append_and_wait(b"a", Durability::Synced);
    assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
    shard.turns(20);
    close(shard);
    assert_eq!(manifest(&world).closed(), None, "nothing is open behind a sealed segment");
    let mut shard = strict(&world);
    assert_eq!(shard.read(), [b"a"]);
    shard.append_and_wait(b"b", Durability::Synced);
    assert_eq!(shard.read(), [b"a", b"b"]);
    close(shard);
}

/// What is done to an index, in words and in deed.
type Tamper<'a> = (&'a str, &'a dyn Fn(&SimWorld));

#[test]
fn without_its_index_the_segment_is_scanned() {
    let (world, records) = closed_log();
    let index = closed_index(&world);
    let length = world.read(&index).len() as u64;
    let tampers: [Tamper<'_>; 6] = [
        ("gone", &|world| world.delete(&index)),
        ("empty", &|world| world.set_len(&index, 0)),
        ("cut short", &|world| world.set_len(&index, length - 1)),
        ("unreadable", &|world| world.set_unreadable(&index, 0)),
        ("zero", &|world| world.zero(&index, 0..length)),
        ("of another segment", &|world| {
            let other = world
                .files()
                .into_iter()
                .find(|(name, _)| name.ends_with(".idx") && *name != index);
            world.duplicate(&other.expect("the index of the sealed segment").0, &index);
        }),
    ];
    for (what, tamper) in tampers {
        let world = world.fork();
        tamper(&world);
        let shard = strict(&world);
        assert!(shard.shard.recovery().bytes_scanned > 0, "{what}");
        assert_eq!(shard.read(), records, "{what}");
        close(shard);
        assert_eq!(strict(&world).shard.recovery().bytes_scanned, 0, "{what}: it is there again");
    }
    // Any flipped bit, too; whether it is scanned is a matter of where the bit lies.
    for bit in (0..length * 8).step_by(97) {
        let world = world.fork();
        world.flip_bit(&index, bit);
        assert_eq!(strict(&world).read(), records, "bit {bit}");
    }
}

#[test]
fn an_index_that_is_lost_by_the_crash_behind_the_close_costs_a_scan() {
    let (world, records) = closed_log();
    let mut scanned = [false; 2];
    for seed in 0..40 {
        let world = world.fork();
        world.crash(&Crash::seeded(seed));
        let shard = strict(&world);
        scanned[usize::from(shard.shard.recovery().bytes_scanned > 0)] = true;
        assert_eq!(shard.read(), records, "seed {seed}");
    }
    assert!(scanned[0], "an index that stays is used");
}

#[test]
fn an_index_that_cannot_be_stored_harms_nothing() {
    for errno in [libc_errno::EIO, libc_errno::ENOSPC] {
        let world = world();
        let mut shard = open(&world, SyncPolicy::EveryCommit);
        let fail = Effect::Fail { errno, landed: Landed::Some };
        world.arm(Fault::new(Class::Store, When::From(1), fail));
        shard.append_and_wait(b"a", Durability::Synced);
        assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
        shard.append_and_wait(b"b", Durability::Synced);
        shard.turns(40);
        assert_eq!(shard.shard.counts().index_failures, 1);
        assert_eq!(shard.ask_and_wait(Request::Close), Reply::Done);
        assert_eq!(shard.shard.counts().index_failures, 2);
        assert!(shard.shard.poisoned().is_none());
        shard.check();
        world.clear_faults();
        let shard = strict(&world);
        assert_eq!(shard.read(), [b"a", b"b"]);
        assert!(shard.shard.recovery().bytes_scanned > 0);
    }
}

/// Numbers of the errors, as Linux has them.
mod libc_errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const ENOSPC: i32 = 28;
}

#[test]
fn the_close_stores_its_index_before_the_manifest_and_nothing_behind_it() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"a", Durability::Synced);
    let before = shard.watch.journal().len();
    assert_eq!(shard.ask_and_wait(Request::Close), Reply::Done);
    shard.turns(20);
    shard.pass(20 * MS);
    shard.turns(20);
    let steps: Vec<String> = shard.watch.journal()[before..]
        .iter()
        .filter_map(|seen| match seen {
            Seen::Name(what, name) if name.is_empty() => Some(what.to_string()),
            Seen::Name(what, name) => Some(format!("{what} {}", &name[name.len() - 4..])),
            Seen::Manifest { .. } => Some("manifest".to_owned()),
            Seen::Done(..) => None,
            other => Some(format!("{other:?}")),
        })
        .collect();
    // (The segment that is prepared ahead is listed, too: its name comes first.)
    assert_eq!(steps, ["store .idx", "replace .cat", "sync directory", "manifest"]);
    let last = manifest(&world);
    let states: Vec<SegmentState> = last.segments.iter().map(|entry| entry.state).collect();
    assert!(matches!(states[0], SegmentState::Closed { .. }));
    assert_eq!(last.catalogued_lsn, last.proven_lsn);
}

#[test]
fn sealed_segments_get_an_index_and_lose_it_when_they_are_trimmed() {
    let indexes = |world: &SimWorld| -> Vec<String> {
        let files = world.files().into_iter().map(|(name, _)| name);
        files.filter(|name| name.ends_with(".idx")).collect()
    };
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    for record in [b"a", b"b", b"c"] {
        shard.append_and_wait(record, Durability::Synced);
        assert_eq!(shard.ask_and_wait(Request::Rotate), Reply::Done);
        shard.turns(20);
    }
    assert_eq!(indexes(&world).len(), 3);
    let trim = Request::Trim { keep_sealed: 1 };
    assert_eq!(shard.ask_and_wait(trim), Reply::Trimmed { segments: 2 });
    shard.turns(40);
    assert_eq!(indexes(&world).len(), 1);
    shard.check();
    // A crash between the manifest and the removals: the next open removes them.
    assert_eq!(
        shard.ask_and_wait(Request::Trim { keep_sealed: 0 }),
        Reply::Trimmed { segments: 1 }
    );
    world.put("00000000000000ff.idx", b"of nobody");
    world.crash(&Crash::keeping_all());
    let shard = strict(&world);
    assert_eq!(indexes(&world), Vec::<String>::new());
    assert_eq!(shard.read(), Vec::<Vec<u8>>::new());
}

#[test]
fn recovery_stores_the_indexes_of_what_it_seals() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    shard.append_and_wait(b"a", Durability::Synced);
    // Sealing is asked for, and the power goes before there is room for its manifest.
    world.arm(Fault::new(Class::Replace, When::From(1), Effect::ENOSPC));
    let _unheard = shard.ask(Request::Rotate);
    shard.append_and_wait(b"b", Durability::Synced);
    shard.append_and_wait(b"c", Durability::Synced);
    world.crash(&Crash::losing_all());
    world.clear_faults();
    let before = manifest(&world);
    assert!(before.unsealed().count() >= 2, "{before:?}");
    assert!(!world.files().iter().any(|(name, _)| name.ends_with(".idx")));
    let shard = strict(&world);
    assert_eq!(shard.read(), [b"a", b"b", b"c"]);
    let first = before.unsealed().next().unwrap();
    assert!(!world.read(&format!("{:016x}.idx", first.0)).is_empty());
}

/// A close, an open and an append behind it, cut at each operation in turn.
#[test]
fn a_close_and_the_open_behind_it_may_be_cut_at_every_operation() {
    let world = world();
    let mut shard = open(&world, SyncPolicy::EveryCommit);
    let mut records: Vec<Vec<u8>> = Vec::new();
    for record in [b"a", b"b"] {
        shard.append_and_wait(record, Durability::Synced);
        records.push(record.to_vec());
    }
    // Known to a part of the catalogue, and touched again behind it.
    close(shard);
    let mut cuts = 0;
    for moment in [Moment::Submission, Moment::Completion] {
        for seed in 0..2 {
            for n in 1.. {
                let world = world.fork();
                world.crash_after_ops(n, moment, Crash::seeded(seed * 10_000 + n));
                let expected = two_lives(&world, &records);
                if world.cancel_scripted_crash() {
                    break;
                }
                cuts += 1;
                let (sure, begun) = expected;
                let found = open(&world, SyncPolicy::EveryCommit).read();
                let place = format!("cut at {n} ({moment:?}), seed {seed}");
                assert!(found.len() >= sure.len() && begun.starts_with(&found), "{place}");
                // And that log closes and opens, too.
                close(strict(&world));
                world.crash(&Crash::losing_all());
                let shard = strict(&world);
                assert_eq!(shard.read(), found, "{place}");
            }
        }
    }
    assert!(cuts > 100, "{cuts}");
}

/// Two lives with an append and a close each; gives what was acknowledged and what was begun before
/// the power went.
fn two_lives(world: &SimWorld, records: &[Vec<u8>]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut sure, mut begun) = (records.to_vec(), records.to_vec());
    for round in 0..2_u8 {
        let Ok(mut shard) = try_open(world, &options(SyncPolicy::EveryCommit)) else { break };
        begun.push(vec![round; 700]);
        let Ok(mut receipt) = shard.append(&[round; 700], Durability::Synced) else { break };
        shard.turns(60);
        if crate::common::poll(&mut receipt) != Some(Ok(())) {
            break;
        }
        sure.push(vec![round; 700]);
        let reply = shard.ask(Request::Close);
        shard.turns(60);
        if reply.try_recv() != Ok(Reply::Done) {
            break;
        }
    }
    (sure, begun)
}

/// Another batch in the place of the last one, sound in itself, that continues something else.
#[test]
fn the_last_batch_of_a_closed_log_is_the_one_that_the_manifest_names() {
    let (world, records) = closed_log();
    let manifest = manifest(&world);
    let (segment, so_far) = manifest.closed().expect("a closed segment");
    let file = format!("{:016x}.seg", segment.0);
    let seed = HeaderSeed::new(IDENTITY.log, IDENTITY.shard, segment);
    let content = world.read(&file);
    // The batches lie one behind the other, behind the header of the segment.
    let (mut lsn, mut last) = (so_far.base_lsn, None);
    while lsn < so_far.end_lsn {
        let at = (SEGMENT_HEADER_BYTES + (lsn.0 - so_far.base_lsn.0)) as usize;
        let (header, _) = BatchHeader::decode(&content[at..], seed, lsn).expect("a batch");
        lsn = header.end();
        last = Some((at, header));
    }
    let (at, mut header) = last.expect("a last batch");
    assert_eq!(strict(&world.fork()).read(), records);
    header.previous ^= 1;
    let mut front = [0; BATCH_HEADER_BYTES];
    header.encode(seed, &mut front);
    world.overwrite(&file, at as u64, &front);
    let refused = try_open(&world, &options(SyncPolicy::EveryCommit)).err();
    assert!(matches!(refused, Some(OpenError::Corrupt(_))), "{refused:?}");
}
