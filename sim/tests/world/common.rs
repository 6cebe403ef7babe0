//! A simulated disk with blocks at hand, and the operations that the tests need.

use ringlog_disk::{
    BlockPool, Completion, Disk, DiskError, DiskErrorKind, Done, FileId, FileName, Flush, Op,
    Slice, Tag, Wait, run,
};
use ringlog_sim::{SimDisk, SimWorld, WorldOptions};

pub(crate) const KIB4: usize = 4096;
pub(crate) const A: FileId = FileId(1);
pub(crate) const B: FileId = FileId(2);

pub(crate) fn name(text: &str) -> FileName {
    FileName::new(text).expect("a file name")
}

/// A process on a world.
pub(crate) struct Process {
    pub(crate) disk: SimDisk,
    pub(crate) pool: BlockPool,
    next_tag: u64,
}

impl Process {
    pub(crate) fn start(world: &SimWorld) -> Self {
        Self::start_with(world, &BlockPool::new(64, 4 * KIB4).expect("memory"))
    }

    /// With blocks that are there already: mapping them costs more than a short life.
    pub(crate) fn start_with(world: &SimWorld, pool: &BlockPool) -> Self {
        Self { disk: SimDisk::open(world), pool: pool.clone(), next_tag: 0 }
    }

    pub(crate) fn run(&mut self, op: Op) -> Result<Done, DiskError> {
        run(&mut self.disk, op).result
    }

    pub(crate) fn create(&mut self, file: FileId, text: &str, bytes: u64) {
        let created = self.run(Op::Create { file, name: name(text), bytes });
        assert_eq!(created, Ok(Done::Opened { bytes }));
    }

    pub(crate) fn open(&mut self, file: FileId, text: &str) -> Result<Done, DiskError> {
        self.run(Op::Open { file, name: name(text), write: true })
    }

    pub(crate) fn sync_dir(&mut self) {
        assert_eq!(self.run(Op::SyncDir), Ok(Done::Named));
    }

    pub(crate) fn write_op(&self, file: FileId, block_no: u64, fill: u8, flush: Flush) -> Op {
        let mut block = self.pool.take().expect("a free block");
        block.fill(fill);
        let data = vec![Slice { block, len: KIB4 }];
        Op::Write { file, offset: block_no * KIB4 as u64, data, flush }
    }

    pub(crate) fn write(
        &mut self,
        file: FileId,
        block_no: u64,
        fill: u8,
        flush: Flush,
    ) -> Result<Done, DiskError> {
        let op = self.write_op(file, block_no, fill, flush);
        self.run(op)
    }

    pub(crate) fn write_ok(&mut self, file: FileId, block_no: u64, fill: u8, flush: Flush) {
        assert_eq!(self.write(file, block_no, fill, flush), Ok(Done::Wrote));
    }

    pub(crate) fn sync(&mut self, file: FileId) -> Result<Done, DiskError> {
        self.run(Op::Sync { file })
    }

    pub(crate) fn read(&mut self, file: FileId, block_no: u64) -> Result<Vec<u8>, DiskError> {
        let block = self.pool.take().expect("a free block");
        let offset = block_no * KIB4 as u64;
        let mut done = run(&mut self.disk, Op::Read { file, offset, block, len: KIB4 });
        match done.result? {
            Done::Read(len) => Ok(done.slices.remove(0).block[..len].to_vec()),
            other => panic!("a read brought {other:?}"),
        }
    }

    /// Submits, and gives the tag.
    pub(crate) fn submit(&mut self, op: Op) -> Tag {
        self.next_tag += 1;
        self.disk.submit(Tag(self.next_tag), op);
        Tag(self.next_tag)
    }

    /// Waits for all that is in flight.
    pub(crate) fn drain(&mut self) -> Vec<Completion> {
        let mut out = Vec::new();
        while self.disk.in_flight() > 0 {
            self.disk.reap(Wait::Any, &mut out);
        }
        out
    }
}

/// A world whose completions come at once and in order, with one file `a` of eight blocks, its
/// name durable, open as `A`.
pub(crate) fn one_file(seed: u64) -> (SimWorld, Process) {
    let world = SimWorld::new(&WorldOptions { seed, shuffled: false, ..WorldOptions::default() });
    let mut process = Process::start(&world);
    process.create(A, "a", 8 * KIB4 as u64);
    process.sync_dir();
    (world, process)
}

pub(crate) fn kind(result: Result<Done, DiskError>) -> DiskErrorKind {
    result.expect_err("it must fail").kind
}

/// The first byte of each block.
pub(crate) fn fills(bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(KIB4).map(|block| block[0]).collect()
}
