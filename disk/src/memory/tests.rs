//! What the device promises beyond the contract: its faults, and what survives them.

use std::collections::BTreeSet;

use crate::block::BlockPool;
use crate::memory::file::Content;
use crate::memory::spares::Spares;
use crate::memory::{MemoryDevice, MemoryDir, MemoryDisk};
use crate::op::{Disk, DiskErrorKind, Done, FileId, FileName, Flush, Op, Slice, Tag, Wait, run};

const UNIT: u64 = 4096;

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

struct Rig {
    device: MemoryDevice,
    dir: MemoryDir,
    disk: MemoryDisk,
    pool: BlockPool,
}

impl Rig {
    fn new() -> Self {
        Self::on(MemoryDevice::new())
    }

    fn on(device: MemoryDevice) -> Self {
        let dir = device.root().subdir(&name("shard-000"), true).unwrap();
        let disk = dir.disk();
        Self { device, dir, disk, pool: BlockPool::new(8, 4 * UNIT as usize).unwrap() }
    }

    #[track_caller]
    fn good(&mut self, op: Op) -> Done {
        run(&mut self.disk, op).result.unwrap()
    }

    fn kind(&mut self, op: Op) -> Option<DiskErrorKind> {
        run(&mut self.disk, op).result.err().map(|error| error.kind)
    }

    fn write(&self, unit: u64, byte: u8, flush: Flush) -> Op {
        let mut block = self.pool.take().unwrap();
        block.fill(byte);
        let data = vec![Slice { block, len: UNIT as usize }];
        Op::Write { file: FileId(0), offset: unit * UNIT, data, flush }
    }

    fn create(&mut self, text: &str, units: u64) {
        self.good(Op::Create { file: FileId(0), name: name(text), bytes: units * UNIT });
    }

    /// The first byte of each unit that the file has after a power cut and a new start.
    fn after_a_cut(self, text: &str) -> Vec<u8> {
        self.device.power_cut();
        Self::on(self.device).content(text).chunks(UNIT as usize).map(|unit| unit[0]).collect()
    }

    fn content(&mut self, text: &str) -> Vec<u8> {
        match self.good(Op::Load { name: name(text), limit_bytes: 1 << 20 }) {
            Done::Loaded(content) => content,
            other => panic!("{other:?}"),
        }
    }

    fn names(&mut self) -> Vec<String> {
        match self.good(Op::List) {
            Done::Listed { files, .. } => files.iter().map(|file| file.name.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_power_cut_takes_what_no_flush_has_covered() {
    let mut rig = Rig::new();
    rig.create("file", 8);
    rig.good(Op::SyncDir);
    rig.good(rig.write(0, 1, Flush::No));
    rig.good(rig.write(1, 1, Flush::Own));
    rig.good(Op::Sync { file: FileId(0) });
    rig.good(rig.write(0, 2, Flush::No)); // lost: 1 comes back
    rig.good(rig.write(2, 2, Flush::No)); // lost: was never written before
    rig.good(rig.write(3, 3, Flush::Own)); // covers itself alone
    rig.good(rig.write(1, 4, Flush::No));
    rig.good(rig.write(1, 5, Flush::Own)); // the second write of it is durable
    rig.good(rig.write(4, 6, Flush::No));
    rig.good(rig.write(4, 7, Flush::No)); // neither is
    assert_eq!(rig.content("file")[4 * UNIT as usize], 7);
    assert_eq!(rig.after_a_cut("file"), [1, 5, 0, 3, 0, 0, 0, 0]);
}

#[test]
fn a_covering_flush_covers_all_before_it() {
    let mut rig = Rig::new();
    rig.create("file", 4);
    rig.good(Op::SyncDir);
    rig.good(rig.write(0, 1, Flush::No));
    rig.good(rig.write(1, 2, Flush::File));
    rig.good(rig.write(2, 3, Flush::No));
    assert_eq!(rig.after_a_cut("file"), [1, 2, 0, 0]);
}

#[test]
fn a_length_is_as_durable_as_the_bytes() {
    let mut rig = Rig::new();
    rig.create("file", 1);
    rig.good(Op::SyncDir);
    rig.good(rig.write(3, 1, Flush::No));
    rig.good(rig.write(1, 2, Flush::Own));
    let device = rig.device.clone();
    assert_eq!(rig.after_a_cut("file"), [0, 2]);
    // What a cut took does not come back when the file grows again.
    let mut rig = Rig::on(device);
    rig.good(Op::Open { file: FileId(0), name: name("file"), write: true });
    rig.good(rig.write(4, 9, Flush::Own));
    assert_eq!(rig.after_a_cut("file"), [0, 2, 0, 0, 9]);
}

#[test]
fn a_failed_flush_is_told_and_no_later_one_makes_up_for_it() {
    for sticky in [false, true] {
        let mut rig = Rig::new();
        rig.create("file", 4);
        rig.good(Op::SyncDir);
        rig.good(rig.write(0, 1, Flush::No));
        if sticky {
            rig.device.fail_flushes(true);
        } else {
            rig.device.fail_next_flush();
        }
        assert_eq!(rig.kind(rig.write(1, 2, Flush::Own)), Some(DiskErrorKind::Io));
        let again = rig.kind(Op::Sync { file: FileId(0) });
        assert_eq!(again, sticky.then_some(DiskErrorKind::Io));
        rig.device.fail_flushes(false);
        rig.good(rig.write(2, 3, Flush::No));
        rig.good(Op::Sync { file: FileId(0) });
        let there: Vec<u8> =
            rig.content("file").chunks(UNIT as usize).map(|unit| unit[0]).collect();
        assert_eq!(there, [1, 2, 3, 0], "it can be read until then");
        assert_eq!(rig.after_a_cut("file"), [0, 0, 3, 0]);
    }
}

#[test]
fn what_was_written_again_after_a_failed_flush_is_durable() {
    let mut rig = Rig::new();
    rig.create("file", 2);
    rig.good(Op::SyncDir);
    rig.device.fail_next_flush();
    assert_eq!(rig.kind(rig.write(0, 1, Flush::Own)), Some(DiskErrorKind::Io));
    rig.good(rig.write(0, 2, Flush::No));
    rig.good(Op::Sync { file: FileId(0) });
    assert_eq!(rig.after_a_cut("file"), [2, 0]);
}

#[test]
fn a_failed_write_writes_nothing_and_fails_once() {
    let mut rig = Rig::new();
    rig.create("file", 2);
    rig.device.fail_next_write();
    assert_eq!(rig.kind(rig.write(0, 1, Flush::Own)), Some(DiskErrorKind::Io));
    assert_eq!(rig.content("file")[0], 0);
    rig.good(rig.write(0, 2, Flush::Own));
    assert_eq!(rig.content("file")[0], 2);
    assert_eq!(rig.pool.available(), 8);
}

#[test]
fn names_are_durable_with_their_directory() {
    let mut rig = Rig::new();
    rig.create("kept", 1);
    rig.good(Op::Close { file: FileId(0) });
    rig.create("gone", 1);
    rig.good(Op::Close { file: FileId(0) });
    rig.good(Op::SyncDir);
    rig.good(Op::Rename { from: name("kept"), to: name("renamed") });
    rig.good(Op::Remove { name: name("gone") });
    rig.create("new", 1);
    rig.good(Op::Store { name: name("index"), content: vec![1; 5000].into() });
    assert_eq!(rig.names(), ["index", "new", "renamed"]);
    rig.device.power_cut();
    let mut rig = Rig::on(rig.device);
    assert_eq!(rig.names(), ["gone", "kept"]);
    // A replacement brings its directory with it; what was only stored is empty then.
    rig.good(Op::Store { name: name("index"), content: vec![1; 5000].into() });
    rig.good(Op::Replace { name: name("manifest"), content: vec![2; 5000] });
    rig.device.power_cut();
    let mut rig = Rig::on(rig.device);
    assert_eq!(rig.names(), ["gone", "index", "kept", "manifest"]);
    assert_eq!(rig.content("manifest"), [2; 5000]);
    assert_eq!(rig.content("index"), []);
}

#[test]
fn whoever_had_it_open_at_a_power_cut_gets_errors() {
    let mut rig = Rig::new();
    rig.create("file", 2);
    assert!(rig.dir.try_lock_exclusive().unwrap());
    let in_flight = rig.write(0, 1, Flush::Own);
    rig.disk.submit(Tag(1), in_flight);
    rig.device.power_cut();
    let mut out = Vec::new();
    rig.disk.reap(Wait::Any, &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].result.as_ref().unwrap_err().kind, DiskErrorKind::Io);
    drop(out);
    let io = Some(DiskErrorKind::Io);
    assert_eq!(rig.kind(rig.write(0, 1, Flush::No)), io);
    assert_eq!(rig.kind(Op::Sync { file: FileId(0) }), io);
    assert_eq!(rig.kind(Op::SyncDir), io);
    assert_eq!(rig.kind(Op::Replace { name: name("x"), content: Vec::new() }), io);
    assert_eq!(rig.kind(Op::Create { file: FileId(1), name: name("x"), bytes: 0 }), io);
    assert_eq!(rig.dir.try_lock_exclusive().unwrap_err().kind, DiskErrorKind::Io);
    assert_eq!(rig.dir.disk().submit_and_kind(Op::List), io);
    // The next life has the lock for the asking, and the old one's end does not take it away.
    let next = Rig::on(rig.device.clone());
    assert!(next.dir.try_lock_exclusive().unwrap());
    drop(rig);
    let other = Rig::on(next.device.clone());
    assert!(!other.dir.try_lock_exclusive().unwrap());
}

impl MemoryDisk {
    fn submit_and_kind(mut self, op: Op) -> Option<DiskErrorKind> {
        run(&mut self, op).result.err().map(|error| error.kind)
    }
}

#[test]
fn a_full_device_refuses_what_needs_room_and_nothing_else() {
    let mut rig = Rig::new();
    rig.create("file", 4);
    let full = Some(DiskErrorKind::NoSpace);
    let replace = |bytes: usize| Op::Replace { name: name("m"), content: vec![1; bytes] };
    rig.good(replace(100));
    rig.device.set_capacity_bytes(Some(4 * UNIT + 300));
    rig.good(replace(200)); // beside the old one it just fits
    assert_eq!(rig.kind(replace(101)), full);
    assert_eq!(rig.content("m"), [1; 200]);
    rig.device.set_capacity_bytes(None);
    rig.device.set_full(true);
    assert_eq!(rig.kind(Op::Store { name: name("i"), content: vec![1].into() }), full);
    let create = || Op::Create { file: FileId(1), name: name("next"), bytes: UNIT };
    assert_eq!(rig.kind(create()), full);
    rig.good(rig.write(3, 1, Flush::Own));
    assert_eq!(rig.kind(rig.write(4, 1, Flush::Own)), full);
    assert_eq!(rig.content("file").len() as u64, 4 * UNIT);
    rig.good(Op::Remove { name: name("m") });
    rig.device.set_full(false);
    rig.good(create());
    assert_eq!(rig.names(), ["file", "next"]);
}

#[test]
fn only_what_is_written_takes_memory() {
    let mut rig = Rig::new();
    rig.create("file", 1 << 20); // 4 GiB
    assert_eq!(rig.device.memory_bytes(), 0);
    rig.good(rig.write(1000, 1, Flush::Own));
    rig.good(rig.write(1001, 1, Flush::Own));
    assert_eq!(rig.device.memory_bytes(), 2 * UNIT);
    rig.good(rig.write(1001, 2, Flush::No));
    rig.good(rig.write(1001, 3, Flush::No));
    assert_eq!(rig.device.memory_bytes(), 3 * UNIT, "what is durable is put aside, once");
    rig.good(Op::Sync { file: FileId(0) });
    rig.good(rig.write(1002, 4, Flush::Own));
    assert_eq!(rig.device.memory_bytes(), 3 * UNIT, "and taken for what comes after the flush");
}

#[test]
fn what_becomes_free_is_kept_up_to_a_bound() {
    let mut rig = Rig::new();
    rig.create("file", 6000);
    for flush in [Flush::Own, Flush::No] {
        (0..6000).for_each(|unit| drop(rig.good(rig.write(unit, 1, flush))));
    }
    assert_eq!(rig.device.memory_bytes(), 2 * 6000 * UNIT);
    rig.good(Op::Sync { file: FileId(0) });
    assert_eq!(rig.device.memory_bytes(), 6000 * UNIT + (16 << 20));
}

#[test]
fn a_lock_is_held_until_its_last_clone_and_disk_are_gone() {
    let device = MemoryDevice::new();
    let (one, other) = (device.root(), device.root());
    assert!(one.try_lock_exclusive().unwrap() && one.try_lock_exclusive().unwrap());
    one.hold_writer_mark().unwrap();
    assert!(!other.try_lock_exclusive().unwrap());
    assert_eq!((one.has_writer(), other.has_writer()), (Some(false), Some(true)));
    let disk = MemoryDisk::open(&other, Some(&one.clone()));
    drop(one);
    assert!(!other.try_lock_exclusive().unwrap());
    drop(disk);
    assert_eq!(other.has_writer(), Some(false));
    assert!(other.try_lock_exclusive().unwrap());
}

#[test]
fn directories_are_found_and_listed() {
    let root = MemoryDevice::new().root();
    let missing = root.subdir(&name("shard-000"), false).unwrap_err();
    assert_eq!(missing.kind, DiskErrorKind::NotFound);
    let shard = root.subdir(&name("shard-000"), true).unwrap();
    run(&mut root.disk(), Op::Replace { name: name("log"), content: vec![1] }).result.unwrap();
    assert_eq!(root.entries().unwrap(), ["log", "shard-000"]);
    assert_eq!(shard.entries().unwrap(), Vec::<String>::new());
    let deeper = shard.subdir(&name("x"), true).unwrap_err();
    assert_eq!(deeper.kind, DiskErrorKind::Unexpected);
    match run(&mut root.disk(), Op::List).result.unwrap() {
        Done::Listed { files, others } => assert_eq!((files.len(), others), (1, 1)),
        other => panic!("{other:?}"),
    }
}

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// What a [`Content`] must be: all bytes twice, and the units that no flush covers any more.
#[derive(Default)]
struct Model {
    now: Vec<u8>,
    durable: Vec<u8>,
    given_up: BTreeSet<usize>,
}

/// Puts bytes into a file, which grows with zeros where it must.
fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Model {
    /// Writes a unit, or what there is of it at the end of the file.
    fn write(&mut self, at: usize, bytes: &[u8], durably: bool) {
        put(&mut self.now, at, bytes);
        self.given_up.remove(&(at / UNIT as usize));
        if durably {
            put(&mut self.durable, at, bytes);
        }
    }

    fn flush(&mut self) {
        self.durable.resize(self.now.len(), 0);
        let units = self.now.chunks(UNIT as usize).zip(self.durable.chunks_mut(UNIT as usize));
        for (unit, (now, durable)) in units.enumerate() {
            if !self.given_up.contains(&unit) {
                durable.copy_from_slice(now);
            }
        }
    }

    /// Those that are durable are given up too, which changes nothing for them.
    fn fail_flush(&mut self) {
        self.given_up.extend(0..self.now.len().div_ceil(UNIT as usize));
    }

    fn cut(&mut self) {
        self.now.clone_from(&self.durable);
        self.given_up.clear();
    }

    #[track_caller]
    fn compare(&self, content: &Content, at: usize, len: usize, seed: u64) {
        let mut read = vec![0xA5; len];
        let done = content.read(at as u64, &mut read);
        let there = self.now.get(at..).unwrap_or_default();
        assert_eq!(done, there.len().min(len), "seed {seed}");
        let same = read[..done] == there[..done];
        let first = || read.iter().zip(there).position(|(one, other)| one != other);
        assert!(same, "seed {seed}: {len} bytes at {at}: differ at {:?}", first());
        assert!(read[done..].iter().all(|byte| *byte == 0xA5), "seed {seed}");
        assert_eq!(content.bytes(), self.now.len() as u64, "seed {seed}");
    }
}

/// Writes up to nine units anywhere, in one slice or in two. What makes the file longer may end inside
/// of a unit.
fn write_somewhere(
    content: &mut Content,
    model: &mut Model,
    chance: &mut Chance,
    pool: &BlockPool,
    units: usize,
) {
    let offset = chance.below(units) * UNIT as usize;
    let durably = chance.below(4) == 0;
    let mut data = Vec::new();
    let mut at = offset;
    for last in [false, true] {
        if !last && chance.below(2) == 0 {
            continue;
        }
        let mut block = pool.take().unwrap();
        let mut len = (1 + chance.below(if last { 6 } else { 3 })) * UNIT as usize;
        if last && chance.below(4) == 0 && at + len > model.now.len() + UNIT as usize {
            len -= chance.below(UNIT as usize);
        }
        for unit in block[..len].chunks_mut(UNIT as usize) {
            // Now and then what is written are zeros.
            unit.fill((chance.below(5) * chance.below(64)) as u8);
            unit[0] = chance.below(256) as u8;
            model.write(at, unit, durably);
            at += unit.len();
        }
        data.push(Slice { block, len });
    }
    let bytes = model.now.len() as u64;
    assert_eq!(content.end_of(offset as u64, &data), bytes);
    content.write(offset as u64, &data, durably).unwrap();
}

#[test]
fn whatever_happens_a_file_is_what_a_simple_model_of_it_is() {
    let pool = BlockPool::new(2, 6 * UNIT as usize).unwrap();
    // Memory goes from one file to the next, with what it held.
    let spares = Spares::default();
    for seed in 0..4000 {
        let mut chance = Chance(seed);
        let units = 1 + chance.below(40);
        let mut model = Model::default();
        let mut content = if chance.below(2) == 0 {
            model.now.resize(chance.below(48) * UNIT as usize, 0);
            model.durable.clone_from(&model.now);
            Content::zeros(model.now.len() as u64, &spares)
        } else {
            let durable = chance.below(2) == 0;
            model.now = (0..chance.below(40_000)).map(|_| chance.below(256) as u8).collect();
            model.durable = if durable { model.now.clone() } else { Vec::new() };
            Content::whole(&model.now, durable, &spares).unwrap()
        };
        for _ in 0..1 + chance.below(40) {
            match chance.below(16) {
                0 | 1 => {
                    content.flush();
                    model.flush();
                }
                2 => {
                    content.fail_flush();
                    model.fail_flush();
                }
                3 => {
                    content.cut();
                    model.cut();
                }
                4..=6 => {
                    let (at, len) = (chance.below(50 * UNIT as usize), chance.below(90_000));
                    model.compare(&content, at, len, seed);
                }
                _ => write_somewhere(&mut content, &mut model, &mut chance, &pool, units),
            }
        }
        model.compare(&content, 0, 60 * UNIT as usize, seed);
        content.cut();
        model.cut();
        model.compare(&content, 0, 60 * UNIT as usize, seed);
    }
}
