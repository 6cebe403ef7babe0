//! The contract suite: small checks of what `op.rs` promises, that every disk must pass.
//!
//! It relies on the traits and nothing else, so the simulated disk passes it too. A check panics
//! when the disk breaks the contract; that is its way of telling.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::block::{Block, BlockPool};
use crate::op::{
    Completion, Content, Disk, DiskErrorKind, Done, FileId, FileName, Flush, Listed, Op, Slice,
    Tag, Wait, run,
};

/// How many blocks the suite's pool must have at least.
pub const POOL_BLOCKS: u32 = 256;
/// How large each must be at least, in bytes.
pub const POOL_BLOCK_BYTES: usize = 32768;

/// Makes a disk on a new, empty directory, and the pool whose blocks go to it
/// ([`POOL_BLOCKS`] of [`POOL_BLOCK_BYTES`]).
pub type Make<'a> = dyn FnMut() -> (Box<dyn Disk>, BlockPool) + 'a;

/// One named check.
#[derive(Clone, Copy)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    run: fn(&mut Rig),
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Check({})", self.name)
    }
}

/// Runs every check, each on a disk of its own, and prints its name first.
///
/// # Panics
/// When the disk breaks the contract.
pub fn run_all(make: &mut Make<'_>) {
    for check in checks() {
        println!("contract: {}", check.name);
        run_one(check, make);
    }
}

/// Runs one check.
///
/// # Panics
/// When the disk breaks the contract.
pub fn run_one(check: &Check, make: &mut Make<'_>) {
    let (disk, pool) = make();
    assert!(pool.count() >= POOL_BLOCKS && pool.block_bytes() >= POOL_BLOCK_BYTES);
    let align = disk.facts().align_bytes as usize;
    assert!(align.is_power_of_two() && align <= 4096, "alignment {align}");
    let mut rig = Rig { disk, pool, align };
    (check.run)(&mut rig);
    assert_eq!(rig.disk.in_flight(), 0, "{}: operations are left", check.name);
    let all = rig.pool.count() as usize;
    let Rig { disk, pool, .. } = rig;
    drop(disk);
    assert_eq!(pool.available(), all, "{}: blocks are lost", check.name);
}

struct Rig {
    disk: Box<dyn Disk>,
    pool: BlockPool,
    align: usize,
}

fn name(text: &str) -> FileName {
    match FileName::new(text) {
        Some(name) => name,
        None => panic!("{text} is no file name"),
    }
}

impl Rig {
    fn block(&self) -> Block {
        match self.pool.take() {
            Some(block) => block,
            None => panic!("the pool is empty"),
        }
    }

    /// A slice of `units` alignment units, filled with one byte.
    fn slice(&self, units: usize, byte: u8) -> Slice {
        let mut block = self.block();
        let len = units * self.align;
        block[..len].fill(byte);
        Slice { block, len }
    }

    fn run(&mut self, op: Op) -> Completion {
        run(self.disk.as_mut(), op)
    }

    #[track_caller]
    fn good(&mut self, op: Op) -> Done {
        let text = format!("{op:?}");
        match self.run(op).result {
            Ok(done) => done,
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[track_caller]
    fn bad(&mut self, op: Op, kind: DiskErrorKind) -> Completion {
        let text = format!("{op:?}");
        let completion = self.run(op);
        match &completion.result {
            Ok(done) => panic!("{text}: {done:?} instead of {kind:?}"),
            Err(error) => assert_eq!(error.kind, kind, "{text}: {error}"),
        }
        completion
    }

    #[track_caller]
    fn create(&mut self, file: u32, text: &str, units: usize) {
        let bytes = (units * self.align) as u64;
        let op = Op::Create { file: FileId(file), name: name(text), bytes };
        assert_eq!(self.good(op), Done::Opened { bytes });
    }

    fn write_op(&self, file: u32, at: usize, units: usize, byte: u8, flush: Flush) -> Op {
        Op::Write {
            file: FileId(file),
            offset: (at * self.align) as u64,
            data: vec![self.slice(units, byte)],
            flush,
        }
    }

    #[track_caller]
    fn write(&mut self, file: u32, at: usize, units: usize, byte: u8) {
        let op = self.write_op(file, at, units, byte, Flush::Own);
        assert_eq!(self.good(op), Done::Wrote);
    }

    /// The bytes that a read of so many units brings.
    #[track_caller]
    fn read(&mut self, file: u32, at: usize, units: usize) -> Vec<u8> {
        let completion = self.run(Op::Read {
            file: FileId(file),
            offset: (at * self.align) as u64,
            block: self.block(),
            len: units * self.align,
        });
        assert_eq!(completion.slices.len(), 1, "the block of a read comes back");
        match completion.result {
            Ok(Done::Read(bytes)) => completion.slices[0].block[..bytes].to_vec(),
            other => panic!("read: {other:?}"),
        }
    }

    /// Reaps until nothing is in flight.
    fn reap_all(&mut self) -> Vec<Completion> {
        let mut out = Vec::new();
        while self.disk.in_flight() > 0 {
            self.disk.reap(Wait::Any, &mut out);
        }
        out
    }
}

macro_rules! checks {
    ($($name:ident),+ $(,)?) => {
        /// All checks.
        pub fn checks() -> &'static [Check] {
            &[$(Check { name: stringify!($name), run: $name }),+]
        }
    };
}

checks! {
    what_is_written_is_read,
    several_slices_are_one_write,
    many_slices_are_one_write,
    every_flush_completes,
    a_failed_write_gives_its_blocks_back,
    a_read_ends_with_the_file,
    a_read_fills_the_front_of_the_block_only,
    a_write_behind_the_end_makes_the_file_longer,
    a_created_file_is_zero_and_exact,
    an_empty_file_can_be_created,
    an_existing_name_is_not_created,
    a_failed_create_leaves_its_file_id_free,
    a_missing_name_is_not_found,
    a_file_opened_for_reading_is_not_written,
    a_file_id_in_use_is_refused,
    an_unknown_file_is_an_error,
    a_misaligned_operation_is_an_error,
    replace_takes_the_place_of_the_old,
    store_takes_the_place_of_the_old,
    replace_can_be_repeated_and_empty,
    load_refuses_a_longer_file,
    rename_replaces,
    remove_removes,
    a_removed_file_stays_usable_while_open,
    list_is_sorted_and_complete,
    names_are_carried_out_in_order,
    names_and_data_mix,
    a_closed_file_id_is_free_again,
    a_busy_file_is_not_closed,
    the_same_file_can_be_open_twice,
    many_operations_complete_once,
    many_flushed_writes_at_once,
    reads_in_flight_with_writes,
    a_wake_before_the_wait_ends_it,
    a_wake_during_the_wait_ends_it,
    a_wake_while_data_is_in_flight_loses_nothing,
    no_wait_returns,
    a_limited_wait_returns,
    a_write_that_is_carried_out_at_once_is_like_any_other,
    a_drop_with_operations_in_flight_is_safe,
}

fn what_is_written_is_read(r: &mut Rig) {
    r.create(0, "file", 8);
    r.write(0, 1, 2, 0xa5);
    r.write(0, 6, 1, 0x5a);
    let got = r.read(0, 0, 8);
    let align = r.align;
    for (unit, byte) in [0, 0xa5, 0xa5, 0, 0, 0, 0x5a, 0].into_iter().enumerate() {
        let part = &got[unit * align..(unit + 1) * align];
        assert!(part.iter().all(|b| *b == byte), "unit {unit} is not {byte:#x}");
    }
    r.write(0, 1, 1, 0x11);
    assert_eq!(r.read(0, 1, 1)[0], 0x11);
    assert_eq!(r.read(0, 2, 1)[0], 0xa5, "a neighbour was overwritten");
}

fn several_slices_are_one_write(r: &mut Rig) {
    r.create(0, "file", 8);
    let lens = [1, 2, 1];
    let data: Vec<Slice> =
        lens.iter().enumerate().map(|(i, units)| r.slice(*units, i as u8 + 1)).collect();
    let places: Vec<usize> = data.iter().map(|slice| slice.block.as_ptr() as usize).collect();
    let offset = 2 * r.align as u64;
    let completion = r.run(Op::Write { file: FileId(0), offset, data, flush: Flush::Own });
    assert_eq!(completion.result, Ok(Done::Wrote));
    let back: Vec<usize> =
        completion.slices.iter().map(|slice| slice.block.as_ptr() as usize).collect();
    assert_eq!(back, places, "the blocks come back in their order");
    for (slice, units) in completion.slices.iter().zip(lens) {
        assert_eq!(slice.len, units * r.align);
    }
    drop(completion);
    let got: Vec<u8> = r.read(0, 0, 8).chunks(r.align).map(|unit| unit[0]).collect();
    assert_eq!(got, [0, 0, 1, 2, 2, 3, 0, 0]);
}

fn many_slices_are_one_write(r: &mut Rig) {
    let count = POOL_BLOCKS as usize - 1;
    r.create(0, "file", count);
    let data = (0..count).map(|i| r.slice(1, i as u8)).collect();
    let done = r.good(Op::Write { file: FileId(0), offset: 0, data, flush: Flush::File });
    assert_eq!(done, Done::Wrote);
    for i in 0..count {
        assert_eq!(r.read(0, i, 1)[0], i as u8, "slice {i}");
    }
}

fn every_flush_completes(r: &mut Rig) {
    r.create(0, "file", 4);
    for (i, flush) in [Flush::No, Flush::Own, Flush::File].into_iter().enumerate() {
        let op = r.write_op(0, i, 1, i as u8 + 1, flush);
        assert_eq!(r.good(op), Done::Wrote, "{flush:?}");
    }
    assert_eq!(r.good(Op::Sync { file: FileId(0) }), Done::Synced);
    let got: Vec<u8> = r.read(0, 0, 4).chunks(r.align).map(|unit| unit[0]).collect();
    assert_eq!(got, [1, 2, 3, 0]);
}

fn a_failed_write_gives_its_blocks_back(r: &mut Rig) {
    let slices = vec![r.slice(1, 1), r.slice(2, 2)];
    let op = Op::Write { file: FileId(5), offset: 0, data: slices, flush: Flush::Own };
    let completion = r.bad(op, DiskErrorKind::Unexpected);
    assert_eq!(completion.slices.len(), 2);
    assert_eq!(completion.slices[1].block[0], 2);
    let (block, len) = (r.block(), r.align);
    let op = Op::Read { file: FileId(5), offset: 0, block, len };
    assert_eq!(r.bad(op, DiskErrorKind::Unexpected).slices.len(), 1);
}

fn a_read_ends_with_the_file(r: &mut Rig) {
    r.create(0, "file", 4);
    r.write(0, 3, 1, 9);
    assert_eq!(r.read(0, 3, 2), vec![9; r.align], "short at the end");
    assert_eq!(r.read(0, 4, 1), Vec::<u8>::new(), "nothing at the end");
    assert_eq!(r.read(0, 100, 1), Vec::<u8>::new(), "nothing behind the end");
}

fn a_read_fills_the_front_of_the_block_only(r: &mut Rig) {
    r.create(0, "file", 4);
    r.write(0, 0, 2, 3);
    let mut block = r.block();
    block.fill(0xee);
    let op = Op::Read { file: FileId(0), offset: 0, block, len: r.align };
    let completion = r.run(op);
    assert_eq!(completion.result, Ok(Done::Read(r.align)));
    let block = &completion.slices[0].block;
    assert!(block[..r.align].iter().all(|b| *b == 3));
    assert!(block[r.align..].iter().all(|b| *b == 0xee), "more was touched than asked");
}

fn a_write_behind_the_end_makes_the_file_longer(r: &mut Rig) {
    r.create(0, "file", 1);
    r.write(0, 2, 1, 7);
    let got: Vec<u8> = r.read(0, 0, 4).chunks(r.align).map(|unit| unit[0]).collect();
    assert_eq!(got, [0, 0, 7]);
}

fn a_created_file_is_zero_and_exact(r: &mut Rig) {
    let bytes = (3 << 20) + r.align as u64;
    let op = Op::Create { file: FileId(0), name: name("file"), bytes };
    assert_eq!(r.good(op), Done::Opened { bytes });
    let units = POOL_BLOCK_BYTES / r.align;
    let mut total = 0;
    loop {
        let got = r.read(0, total / r.align, units);
        assert!(got.iter().all(|b| *b == 0), "not zero behind {total}");
        total += got.len();
        if got.len() < units * r.align {
            break;
        }
    }
    assert_eq!(total as u64, bytes);
    assert_eq!(
        r.good(Op::List),
        Done::Listed { files: vec![Listed { name: name("file"), bytes }], others: 0 }
    );
}

fn an_empty_file_can_be_created(r: &mut Rig) {
    r.create(0, "file", 0);
    assert_eq!(r.read(0, 0, 1), Vec::<u8>::new());
    r.write(0, 0, 1, 1);
    assert_eq!(r.read(0, 0, 1).len(), r.align);
}

fn an_existing_name_is_not_created(r: &mut Rig) {
    r.create(0, "file", 1);
    r.write(0, 0, 1, 5);
    let bytes = r.align as u64;
    r.bad(Op::Create { file: FileId(1), name: name("file"), bytes }, DiskErrorKind::Exists);
    assert_eq!(r.read(0, 0, 1), vec![5; r.align], "the old content is untouched");
}

fn a_failed_create_leaves_its_file_id_free(r: &mut Rig) {
    r.create(0, "file", 1);
    let bytes = r.align as u64;
    r.bad(Op::Create { file: FileId(1), name: name("file"), bytes }, DiskErrorKind::Exists);
    r.bad(Op::Sync { file: FileId(1) }, DiskErrorKind::Unexpected);
    r.create(1, "other", 1);
}

fn a_missing_name_is_not_found(r: &mut Rig) {
    let missing = || name("missing");
    let not_found = DiskErrorKind::NotFound;
    r.bad(Op::Open { file: FileId(0), name: missing(), write: true }, not_found);
    r.bad(Op::Open { file: FileId(0), name: missing(), write: false }, not_found);
    r.bad(Op::Remove { name: missing() }, not_found);
    r.bad(Op::Rename { from: missing(), to: name("other") }, not_found);
    r.bad(Op::Load { name: missing(), limit_bytes: 100 }, not_found);
}

fn a_file_opened_for_reading_is_not_written(r: &mut Rig) {
    r.create(0, "file", 2);
    r.write(0, 0, 1, 8);
    let bytes = 2 * r.align as u64;
    let op = Op::Open { file: FileId(1), name: name("file"), write: false };
    assert_eq!(r.good(op), Done::Opened { bytes });
    assert_eq!(r.read(1, 0, 1)[0], 8);
    let op = r.write_op(1, 0, 1, 9, Flush::No);
    r.bad(op, DiskErrorKind::Access);
    r.bad(Op::Sync { file: FileId(1) }, DiskErrorKind::Access);
    assert_eq!(r.read(0, 0, 1)[0], 8);
}

fn a_file_id_in_use_is_refused(r: &mut Rig) {
    r.create(0, "file", 1);
    let bytes = r.align as u64;
    let refused = DiskErrorKind::Unexpected;
    r.bad(Op::Create { file: FileId(0), name: name("other"), bytes }, refused);
    r.bad(Op::Open { file: FileId(0), name: name("file"), write: true }, refused);
    r.write(0, 0, 1, 1);
    match r.good(Op::List) {
        Done::Listed { files, .. } => assert_eq!(files.len(), 1, "the refused one was created"),
        other => panic!("{other:?}"),
    }
}

fn an_unknown_file_is_an_error(r: &mut Rig) {
    let refused = DiskErrorKind::Unexpected;
    for file in [0, 63, 64, 65, u32::MAX] {
        let op = r.write_op(file, 0, 1, 1, Flush::Own);
        assert_eq!(r.bad(op, refused).slices.len(), 1);
        let (block, len) = (r.block(), r.align);
        r.bad(Op::Read { file: FileId(file), offset: 0, block, len }, refused);
        r.bad(Op::Sync { file: FileId(file) }, refused);
        r.bad(Op::Close { file: FileId(file) }, refused);
    }
    let bytes = r.align as u64;
    let beyond = FileId(FileId::LIMIT);
    r.bad(Op::Create { file: beyond, name: name("file"), bytes }, refused);
    r.bad(Op::Open { file: beyond, name: name("file"), write: true }, refused);
}

fn a_misaligned_operation_is_an_error(r: &mut Rig) {
    r.create(0, "file", 4);
    let align = r.align as u64;
    let refused = DiskErrorKind::Unexpected;
    let data = vec![r.slice(1, 1)];
    r.bad(Op::Write { file: FileId(0), offset: align / 2, data, flush: Flush::No }, refused);
    let data = vec![Slice { block: r.block(), len: r.align - 1 }];
    r.bad(Op::Write { file: FileId(0), offset: 0, data, flush: Flush::No }, refused);
    let block = r.block();
    let len = block.len() + r.align;
    let data = vec![Slice { block, len }];
    r.bad(Op::Write { file: FileId(0), offset: 0, data, flush: Flush::No }, refused);
    let op = Op::Write { file: FileId(0), offset: 0, data: Vec::new(), flush: Flush::No };
    r.bad(op, refused);
    let block = r.block();
    let len = block.len() + r.align;
    r.bad(Op::Read { file: FileId(0), offset: 0, block, len }, refused);
    let (block, len) = (r.block(), r.align);
    r.bad(Op::Read { file: FileId(0), offset: 1, block, len }, refused);
    assert!(r.read(0, 0, 4).iter().all(|b| *b == 0), "a refused write wrote");
}

#[track_caller]
fn replace(r: &mut Rig, text: &str, content: &[u8]) {
    let op = Op::Replace { name: name(text), content: content.to_vec() };
    assert_eq!(r.good(op), Done::Named);
}

#[track_caller]
fn load(r: &mut Rig, text: &str) -> Vec<u8> {
    match r.good(Op::Load { name: name(text), limit_bytes: 1 << 20 }) {
        Done::Loaded(content) => content,
        other => panic!("load: {other:?}"),
    }
}

fn store_takes_the_place_of_the_old(r: &mut Rig) {
    let store =
        |content: &[u8]| Op::Store { name: name("index"), content: content.to_vec().into() };
    assert_eq!(r.good(store(b"one")), Done::Named);
    assert_eq!(load(r, "index"), b"one");
    assert_eq!(r.good(store(b"a longer one")), Done::Named);
    assert_eq!(load(r, "index"), b"a longer one");
    assert_eq!(r.good(store(b"")), Done::Named);
    assert_eq!(load(r, "index"), b"");
    let made = Content::made_by(|| b"made".to_vec());
    assert_eq!(r.good(Op::Store { name: name("index"), content: made }), Done::Named);
    assert_eq!(load(r, "index"), b"made");
}

fn replace_takes_the_place_of_the_old(r: &mut Rig) {
    replace(r, "manifest", b"one");
    assert_eq!(load(r, "manifest"), b"one");
    replace(r, "manifest", b"the second");
    assert_eq!(load(r, "manifest"), b"the second");
    let expected = vec![Listed { name: name("manifest"), bytes: 10 }];
    assert_eq!(r.good(Op::List), Done::Listed { files: expected, others: 0 });
}

fn replace_can_be_repeated_and_empty(r: &mut Rig) {
    for round in 0..20_usize {
        let content = vec![round as u8; round * 997];
        replace(r, "manifest", &content);
        assert_eq!(load(r, "manifest"), content, "round {round}");
    }
    replace(r, "manifest", b"");
    assert_eq!(load(r, "manifest"), b"");
}

fn load_refuses_a_longer_file(r: &mut Rig) {
    replace(r, "small", &[7; 100]);
    let refused = DiskErrorKind::Unexpected;
    r.bad(Op::Load { name: name("small"), limit_bytes: 99 }, refused);
    r.bad(Op::Load { name: name("small"), limit_bytes: 0 }, refused);
    let done = r.good(Op::Load { name: name("small"), limit_bytes: 100 });
    assert_eq!(done, Done::Loaded(vec![7; 100]));
    let done = r.good(Op::Load { name: name("small"), limit_bytes: u64::MAX });
    assert_eq!(done, Done::Loaded(vec![7; 100]));
}

fn rename_replaces(r: &mut Rig) {
    replace(r, "a", b"from a");
    replace(r, "b", b"from b");
    assert_eq!(r.good(Op::Rename { from: name("a"), to: name("b") }), Done::Named);
    assert_eq!(load(r, "b"), b"from a");
    r.bad(Op::Load { name: name("a"), limit_bytes: 9 }, DiskErrorKind::NotFound);
    assert_eq!(r.good(Op::SyncDir), Done::Named);
}

fn remove_removes(r: &mut Rig) {
    replace(r, "a", b"x");
    assert_eq!(r.good(Op::Remove { name: name("a") }), Done::Named);
    r.bad(Op::Remove { name: name("a") }, DiskErrorKind::NotFound);
    assert_eq!(r.good(Op::List), Done::Listed { files: Vec::new(), others: 0 });
    r.create(0, "a", 1);
}

fn a_removed_file_stays_usable_while_open(r: &mut Rig) {
    r.create(0, "file", 2);
    assert_eq!(r.good(Op::Remove { name: name("file") }), Done::Named);
    r.write(0, 0, 1, 4);
    assert_eq!(r.read(0, 0, 1)[0], 4);
}

fn list_is_sorted_and_complete(r: &mut Rig) {
    assert_eq!(r.good(Op::List), Done::Listed { files: Vec::new(), others: 0 });
    for text in ["c", "a", "0002.seg", "b", "0001.seg"] {
        replace(r, text, text.as_bytes());
    }
    match r.good(Op::List) {
        Done::Listed { files, others } => {
            let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
            assert_eq!(names, ["0001.seg", "0002.seg", "a", "b", "c"]);
            assert!(files.iter().all(|file| file.bytes == file.name.as_str().len() as u64));
            assert_eq!(others, 0);
        }
        other => panic!("{other:?}"),
    }
}

fn names_are_carried_out_in_order(r: &mut Rig) {
    let bytes = 2 * r.align as u64;
    let ops = vec![
        Op::Create { file: FileId(0), name: name("one"), bytes },
        Op::Rename { from: name("one"), to: name("two") },
        Op::Rename { from: name("two"), to: name("three") },
        Op::Replace { name: name("one"), content: b"new".to_vec() },
        Op::SyncDir,
        Op::List,
        Op::Remove { name: name("three") },
        Op::Load { name: name("one"), limit_bytes: 3 },
        Op::Remove { name: name("one") },
        Op::List,
    ];
    let count = ops.len();
    for (i, op) in ops.into_iter().enumerate() {
        r.disk.submit(Tag(i as u64), op);
    }
    assert_eq!(r.disk.in_flight(), count);
    let out = r.reap_all();
    let tags: Vec<u64> = out.iter().map(|c| c.tag.0).collect();
    assert_eq!(tags, (0..count as u64).collect::<Vec<_>>());
    let mut results: Vec<Done> = Vec::new();
    for completion in out {
        match completion.result {
            Ok(done) => results.push(done),
            Err(error) => panic!("operation {}: {error}", completion.tag.0),
        }
    }
    let listed =
        vec![Listed { name: name("one"), bytes: 3 }, Listed { name: name("three"), bytes }];
    assert_eq!(results[5], Done::Listed { files: listed, others: 0 });
    assert_eq!(results[7], Done::Loaded(b"new".to_vec()));
    assert_eq!(results[9], Done::Listed { files: Vec::new(), others: 0 });
}

fn names_and_data_mix(r: &mut Rig) {
    r.create(0, "file", 64);
    let bytes = 1 << 20;
    r.disk.submit(Tag(1000), Op::Create { file: FileId(1), name: name("next"), bytes });
    for i in 0..64 {
        let op = r.write_op(0, i, 1, i as u8, Flush::Own);
        r.disk.submit(Tag(i as u64), op);
    }
    r.disk.submit(Tag(1001), Op::SyncDir);
    let out = r.reap_all();
    assert_eq!(out.len(), 66);
    for completion in &out {
        assert!(completion.result.is_ok(), "{completion:?}");
    }
    for i in 0..64 {
        assert_eq!(r.read(0, i, 1)[0], i as u8);
    }
    r.write(1, 0, 1, 1);
}

fn a_closed_file_id_is_free_again(r: &mut Rig) {
    for round in 0..3_u8 {
        for file in 0..FileId::LIMIT {
            r.create(file, &format!("f-{round}-{file}"), 1);
            r.write(file, 0, 1, round * 64 + file as u8);
        }
        for file in 0..FileId::LIMIT {
            assert_eq!(r.read(file, 0, 1)[0], round * 64 + file as u8);
            assert_eq!(r.good(Op::Close { file: FileId(file) }), Done::Closed);
        }
        r.bad(Op::Sync { file: FileId(7) }, DiskErrorKind::Unexpected);
    }
    let op = Op::Open { file: FileId(3), name: name("f-1-9"), write: true };
    assert_eq!(r.good(op), Done::Opened { bytes: r.align as u64 });
    assert_eq!(r.read(3, 0, 1)[0], 64 + 9);
}

fn a_busy_file_is_not_closed(r: &mut Rig) {
    r.create(0, "file", 2);
    let op = r.write_op(0, 0, 1, 1, Flush::Own);
    r.disk.submit(Tag(1), op);
    r.disk.submit(Tag(2), Op::Close { file: FileId(0) });
    let out = r.reap_all();
    let by_tag: BTreeMap<u64, _> = out.into_iter().map(|c| (c.tag.0, c.result)).collect();
    assert_eq!(by_tag[&1], Ok(Done::Wrote));
    match &by_tag[&2] {
        Err(error) => assert_eq!(error.kind, DiskErrorKind::Unexpected),
        other => panic!("a busy file was closed: {other:?}"),
    }
    assert_eq!(r.good(Op::Close { file: FileId(0) }), Done::Closed);
}

fn the_same_file_can_be_open_twice(r: &mut Rig) {
    r.create(0, "file", 2);
    let op = Op::Open { file: FileId(1), name: name("file"), write: false };
    r.good(op);
    r.write(0, 1, 1, 6);
    assert_eq!(r.read(1, 1, 1)[0], 6);
    r.good(Op::Close { file: FileId(0) });
    assert_eq!(r.read(1, 1, 1)[0], 6);
}

fn many_operations_complete_once(r: &mut Rig) {
    let count = 240;
    r.create(0, "file", count);
    for i in 0..count {
        let op = r.write_op(0, i, 1, i as u8, Flush::No);
        r.disk.submit(Tag(i as u64), op);
    }
    assert_eq!(r.disk.in_flight(), count);
    let mut seen = vec![0; count];
    for completion in r.reap_all() {
        assert_eq!(completion.result, Ok(Done::Wrote));
        let i = completion.tag.0 as usize;
        seen[i] += 1;
        assert_eq!(completion.slices.len(), 1);
        assert_eq!(completion.slices[0].block[0], i as u8, "somebody else's block");
    }
    assert!(seen.iter().all(|n| *n == 1), "{seen:?}");
    for i in 0..count {
        assert_eq!(r.read(0, i, 1)[0], i as u8);
    }
}

fn many_flushed_writes_at_once(r: &mut Rig) {
    let count = 120;
    r.create(0, "file", count);
    r.create(1, "other", count);
    for i in 0..count {
        let flush = [Flush::Own, Flush::File, Flush::No][i % 3];
        for file in 0..2 {
            let op = r.write_op(file, i, 1, i as u8 + 1, flush);
            r.disk.submit(Tag((i * 4) as u64 + u64::from(file)), op);
        }
        if i % 10 == 0 {
            r.disk.submit(Tag((i * 4 + 2) as u64), Op::Sync { file: FileId(0) });
        }
    }
    let out = r.reap_all();
    assert_eq!(out.len(), 2 * count + count / 10);
    let mut tags: Vec<u64> = out.iter().map(|c| c.tag.0).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), out.len(), "a tag came twice");
    for completion in &out {
        assert!(completion.result.is_ok(), "{completion:?}");
    }
    for file in 0..2 {
        for i in 0..count {
            assert_eq!(r.read(file, i, 1)[0], i as u8 + 1);
        }
    }
}

fn reads_in_flight_with_writes(r: &mut Rig) {
    r.create(0, "file", 128);
    for i in 0..64 {
        r.write(0, i, 1, i as u8);
    }
    for i in 0..64 {
        let (block, len) = (r.block(), r.align);
        let offset = (i * r.align) as u64;
        r.disk.submit(Tag(i as u64), Op::Read { file: FileId(0), offset, block, len });
        let op = r.write_op(0, 64 + i, 1, 0xff, Flush::Own);
        r.disk.submit(Tag(100 + i as u64), op);
    }
    let mut reads = 0;
    for completion in r.reap_all() {
        if completion.tag.0 < 100 {
            assert_eq!(completion.result, Ok(Done::Read(r.align)));
            let expected = completion.tag.0 as u8;
            assert!(completion.slices[0].block[..r.align].iter().all(|b| *b == expected));
            reads += 1;
        } else {
            assert_eq!(completion.result, Ok(Done::Wrote));
        }
    }
    assert_eq!(reads, 64);
}

fn a_wake_before_the_wait_ends_it(r: &mut Rig) {
    r.create(0, "file", 1);
    r.disk.waker().wake();
    let mut out = Vec::new();
    r.disk.reap(Wait::Any, &mut out); // would never return if the wake were lost
    assert!(out.is_empty());
}

fn a_wake_during_the_wait_ends_it(r: &mut Rig) {
    for _ in 0..200 {
        let waker = r.disk.waker();
        let thread = std::thread::spawn(move || waker.wake());
        let mut out = Vec::new();
        r.disk.reap(Wait::Any, &mut out);
        assert!(out.is_empty());
        assert!(thread.join().is_ok());
    }
}

fn a_wake_while_data_is_in_flight_loses_nothing(r: &mut Rig) {
    r.create(0, "file", 16);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waker = r.disk.waker();
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                waker.wake();
                std::thread::yield_now();
            }
        });
        let _end = SetAtEnd(stop);
        let mut out = Vec::new();
        for i in 0..200_u64 {
            let op = r.write_op(0, (i % 16) as usize, 1, i as u8, Flush::Own);
            r.disk.submit(Tag(i), op);
            while r.disk.in_flight() > 0 {
                r.disk.reap(Wait::Any, &mut out);
            }
            assert_eq!(out.len(), 1);
            for completion in out.drain(..) {
                assert_eq!(completion.tag, Tag(i));
                assert_eq!(completion.result, Ok(Done::Wrote));
            }
        }
    });
}

fn no_wait_returns(r: &mut Rig) {
    let mut out = Vec::new();
    r.disk.reap(Wait::No, &mut out);
    assert!(out.is_empty());
    r.create(0, "file", 1);
    let op = r.write_op(0, 0, 1, 1, Flush::Own);
    r.disk.submit(Tag(1), op);
    while out.is_empty() {
        r.disk.reap(Wait::No, &mut out); // makes progress without ever waiting
    }
    assert_eq!(out.len(), 1);
    assert_eq!(r.disk.in_flight(), 0);
    r.disk.reap(Wait::No, &mut out);
    assert_eq!(out.len(), 1, "a completion came twice");
}

fn a_write_that_is_carried_out_at_once_is_like_any_other(r: &mut Rig) {
    r.create(0, "file", 64);
    let mut out = Vec::new();
    assert!(!r.disk.carry_out(&mut out), "there is nothing to be carried out");
    for i in 0..60_usize {
        let flush = [Flush::Own, Flush::File, Flush::No][i % 3];
        let op = r.write_op(0, i, 1 + i % 4, i as u8 + 1, flush);
        r.disk.submit(Tag(i as u64), op);
        let sent = i % 5 == 4;
        if sent {
            r.disk.send();
        }
        let done = r.disk.carry_out(&mut out);
        assert!(
            !done || flush != Flush::No,
            "nobody waits for a device that need not be waited for"
        );
        assert_eq!(out.len(), usize::from(done));
        while r.disk.in_flight() > 0 {
            r.disk.reap(Wait::Any, &mut out);
        }
        assert_eq!(out.len(), 1);
        for completion in out.drain(..) {
            assert_eq!(completion.tag, Tag(i as u64));
            assert_eq!(completion.result, Ok(Done::Wrote));
            assert!(!completion.slices.is_empty(), "the blocks come back");
        }
        assert_eq!(r.read(0, i, 1)[0], i as u8 + 1);
    }
    // Never one before another that it was submitted with.
    for i in 0..2 {
        let op = r.write_op(0, 0, 1, i, Flush::Own);
        r.disk.submit(Tag(u64::from(i)), op);
    }
    assert!(!r.disk.carry_out(&mut out) && out.is_empty());
    assert_eq!(r.reap_all().len(), 2);
    // What goes wrong comes with the completion, as ever.
    let op = r.write_op(0, 0, 1, 1, Flush::Own);
    r.disk.submit(Tag(1), op);
    r.disk.submit(Tag(2), Op::Close { file: FileId(0) });
    r.disk.carry_out(&mut out);
    while r.disk.in_flight() > 0 {
        r.disk.reap(Wait::Any, &mut out);
    }
    out.sort_by_key(|completion| completion.tag.0);
    assert_eq!(out[0].result, Ok(Done::Wrote));
    assert!(out[1].result.is_err(), "the file was busy when it was to be closed");
}

fn a_limited_wait_returns(r: &mut Rig) {
    let mut out = Vec::new();
    let limit = Duration::from_millis(2);
    r.disk.reap(Wait::AtMost(limit), &mut out);
    r.disk.reap(Wait::AtMost(Duration::ZERO), &mut out);
    assert!(out.is_empty());
    r.create(0, "file", 1);
    let op = r.write_op(0, 0, 1, 1, Flush::Own);
    r.disk.submit(Tag(1), op);
    while out.is_empty() {
        r.disk.reap(Wait::AtMost(limit), &mut out);
    }
    assert_eq!(out[0].result, Ok(Done::Wrote));
}

fn a_drop_with_operations_in_flight_is_safe(r: &mut Rig) {
    // The rig checks that every block is back when the disk is gone.
    r.create(0, "file", 200);
    for i in 0..200 {
        let flush = [Flush::Own, Flush::File, Flush::No][i % 3];
        let op = r.write_op(0, i, 1, 1, flush);
        r.disk.submit(Tag(i as u64), op);
    }
    let op = Op::Replace { name: name("manifest"), content: vec![1; 100] };
    r.disk.submit(Tag(1000), op);
    let mut out = Vec::new();
    r.disk.reap(Wait::No, &mut out);
    let pool = r.pool.clone();
    drop(out);
    let mut nothing: Box<dyn Disk> = Box::new(Nothing);
    std::mem::swap(&mut r.disk, &mut nothing);
    drop(nothing);
    assert_eq!(pool.available(), pool.count() as usize, "a block outlived its disk");
}

/// Stops a thread of a check also when the check panics: else its scope would wait for ever.
pub(crate) struct SetAtEnd<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is left of a rig whose disk was dropped.
struct Nothing;

impl Disk for Nothing {
    fn submit(&mut self, _: Tag, _: Op) {}
    fn reap(&mut self, _: Wait, _: &mut Vec<Completion>) {}
    fn in_flight(&self) -> usize {
        0
    }
    fn waker(&self) -> crate::waker::Waker {
        crate::waker::Waker::new()
    }
    fn facts(&self) -> &crate::op::DiskFacts {
        unreachable!("nobody asks nothing for its facts")
    }
}
