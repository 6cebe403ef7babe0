//! Measuring: commits on a small prewritten file, in several rounds that take turns, within a
//! bounded time.
//!
//! Invariant: the file is gone afterwards, whatever happened; one that a killed process has left
//! is removed by the next measurement.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{DepthFigure, DiskFigures, DiskPlace, Effort, Latency, SizeFigure};
use crate::any::{AnyDisk, open};
use crate::block::{Block, BlockPool};
use crate::dir::Dir;
use crate::op::{
    Completion, Disk, DiskError, DiskErrorKind, Done, FileId, FileName, Flush, Op, Slice, Tag,
    Wait, run,
};
use crate::options::{DiskOptions, IoKind, Primitive};

/// The file that is measured on.
pub const PROBE_FILE: &str = "commit-probe.tmp";

const FILE: FileId = FileId(0);
const FILE_BYTES: u64 = 4 << 20;
const SMALL_BYTES: usize = 4 << 10;
const SIZES: [usize; 5] = [SMALL_BYTES, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
const DEPTH_BYTES: usize = 256 << 10;
const DEPTHS: [usize; 3] = [1, 2, 4];
const DEPTH_MAX: usize = 4;
/// Enough for a first judgement where a commit takes milliseconds.
const ROUNDS_MIN: usize = 3;
/// So many commits, one after another, are judged together.
const STRETCH: usize = 8;
/// From here on a disk is slow, and fewer commits make a round.
const SLOW_NS: u64 = 2_000_000;
const SLOW_ROUND: usize = 4;

/// How many rounds there are of each kind, and how long each kind may take.
struct Plan {
    /// No round begins after this, except the first few of the primitives.
    whole: Duration,
    primitives: (usize, Duration),
    writes: (usize, Duration),
    sizes: (usize, Duration),
    depths: (usize, Duration),
    commits_of_a_depth_round: usize,
}

const QUICK: Plan = Plan {
    whole: Duration::from_millis(600),
    primitives: (48, Duration::from_millis(50)),
    writes: (32, Duration::from_millis(15)),
    sizes: (16, Duration::from_millis(40)),
    depths: (5, Duration::from_millis(30)),
    commits_of_a_depth_round: 8,
};

const FULL: Plan = Plan {
    whole: Duration::from_millis(4500),
    primitives: (1000, Duration::from_millis(1500)),
    writes: (1000, Duration::from_millis(500)),
    sizes: (200, Duration::from_millis(1200)),
    depths: (60, Duration::from_millis(1000)),
    commits_of_a_depth_round: 16,
};

pub(super) fn measure(
    dir: &Dir,
    kind: IoKind,
    effort: Effort,
    stop: &dyn Fn() -> bool,
) -> Result<(DiskPlace, DiskFigures), DiskError> {
    let begun = Instant::now();
    let plan = match effort {
        Effort::Quick => &QUICK,
        Effort::Full => &FULL,
    };
    // The largest commit, and as many as are in flight at once.
    let pool = BlockPool::resident(DEPTH_MAX as u32, SIZES[SIZES.len() - 1])?;
    let mut options = DiskOptions { pools: vec![pool.clone()], ..DiskOptions::default() };
    let dsync = open(dir, None, kind, &options)?;
    fill(&pool);
    options.primitive = Primitive::LinkedSync;
    let linked = open(dir, None, kind, &options)?;
    let Some(name) = FileName::new(PROBE_FILE) else {
        return Err(DiskError::new(DiskErrorKind::Unexpected, "name the probe's file"));
    };
    let place = DiskPlace::look(dir, &dsync, pool.huge_pages_advised())?;
    let mut file = ProbeFile::create(dsync, linked, name)?;
    let mut measuring = Measuring { file: &mut file, pool, plan, begun, stop, at: 0 };
    let figures = measuring.all(effort);
    let removed = file.remove();
    let figures = figures?;
    removed?;
    Ok((place, figures))
}

/// Neither zeros nor one repeated byte, which some devices and file systems store as nothing.
fn fill(pool: &BlockPool) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut blocks = Vec::with_capacity(DEPTH_MAX);
    while let Some(mut block) = pool.take() {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        blocks.push(block);
    }
}

/// The file, open on both disks. Removed when dropped.
struct ProbeFile {
    dsync: AnyDisk,
    linked: AnyDisk,
    name: FileName,
    removed: bool,
}

impl ProbeFile {
    fn create(dsync: AnyDisk, linked: AnyDisk, name: FileName) -> Result<Self, DiskError> {
        let mut file = Self { dsync, linked, name, removed: false };
        file.remove()?; // one that an interrupted probe has left
        file.removed = false;
        let create = Op::Create { file: FILE, name: file.name.clone(), bytes: FILE_BYTES };
        run(&mut file.dsync, create).result?;
        let open = Op::Open { file: FILE, name: file.name.clone(), write: true };
        run(&mut file.linked, open).result?;
        Ok(file)
    }

    fn remove(&mut self) -> Result<(), DiskError> {
        self.removed = true;
        match run(&mut self.dsync, Op::Remove { name: self.name.clone() }).result {
            Ok(_) => Ok(()),
            Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        if !self.removed {
            let _ = self.remove(); // what failed before is told
        }
    }
}

/// Samples of both primitives.
#[derive(Default)]
struct Pairs {
    dsync: Vec<u64>,
    linked: Vec<u64>,
}

impl Pairs {
    fn latencies(&self) -> (Latency, Latency) {
        (Latency::of(self.dsync.clone()), Latency::of(self.linked.clone()))
    }
}

struct Measuring<'a> {
    file: &'a mut ProbeFile,
    pool: BlockPool,
    plan: &'a Plan,
    begun: Instant,
    stop: &'a dyn Fn() -> bool,
    /// Where the next commit goes.
    at: u64,
}

impl Measuring<'_> {
    fn all(&mut self, effort: Effort) -> Result<DiskFigures, DiskError> {
        let mut pairs = Pairs::default();
        self.primitives(&mut pairs)?;
        let (dsync, linked_sync) = pairs.latencies();
        let better = if linked_sync.p50_ns < dsync.p50_ns {
            Primitive::LinkedSync
        } else {
            Primitive::Dsync
        };
        let write = self.writes()?;
        let sizes = self.sizes(better)?;
        let slow = dsync.p50_ns.min(linked_sync.p50_ns) > SLOW_NS;
        let depths = self.depths(better, slow)?;
        if !self.over() {
            // The other half, at another time: what disturbed the first one may be gone.
            self.primitives(&mut pairs)?;
        }
        let (dsync, linked_sync) = pairs.latencies();
        Ok(DiskFigures { effort, dsync, linked_sync, write, sizes, depths })
    }

    /// Half of the rounds. Both take turns, so that what disturbs one disturbs the other.
    fn primitives(&mut self, pairs: &mut Pairs) -> Result<(), DiskError> {
        let (rounds, at_most) = self.plan.primitives;
        let phase = Instant::now();
        let before = pairs.dsync.len();
        self.commit(Primitive::Dsync, SMALL_BYTES, Flush::Own)?;
        self.commit(Primitive::LinkedSync, SMALL_BYTES, Flush::Own)?;
        while pairs.dsync.len() < before + rounds / 2 {
            let done = pairs.dsync.len();
            let enough = done >= before + ROUNDS_MIN && phase.elapsed() > at_most / 2;
            // Without one round there is nothing to tell.
            if enough || (done > 0 && self.over()) {
                break;
            }
            pairs.dsync.push(self.commit(Primitive::Dsync, SMALL_BYTES, Flush::Own)?);
            pairs.linked.push(self.commit(Primitive::LinkedSync, SMALL_BYTES, Flush::Own)?);
        }
        Ok(())
    }

    fn writes(&mut self) -> Result<Latency, DiskError> {
        let (rounds, at_most) = self.plan.writes;
        let phase = Instant::now();
        let mut samples = Vec::with_capacity(rounds);
        while samples.len() < rounds && !self.over() {
            if samples.len() >= ROUNDS_MIN && phase.elapsed() > at_most {
                break;
            }
            samples.push(self.commit(Primitive::Dsync, SMALL_BYTES, Flush::No)?);
        }
        // What lies in the device's cache shall not be paid by what is measured next.
        run(&mut self.file.dsync, Op::Sync { file: FILE }).result?;
        Ok(Latency::of(samples))
    }

    fn sizes(&mut self, primitive: Primitive) -> Result<Vec<SizeFigure>, DiskError> {
        let (rounds, at_most) = self.plan.sizes;
        let phase = Instant::now();
        let mut samples: [Vec<u64>; SIZES.len()] = Default::default();
        for round in 0..rounds {
            if self.over() || (round >= ROUNDS_MIN && phase.elapsed() > at_most) {
                break;
            }
            for (samples, bytes) in samples.iter_mut().zip(SIZES) {
                samples.push(self.commit(primitive, bytes, Flush::Own)?);
            }
        }
        let figures = SIZES.into_iter().zip(samples).filter(|(_, samples)| !samples.is_empty());
        Ok(figures
            .map(|(bytes, samples)| SizeFigure {
                bytes: bytes as u32,
                latency: Latency::of(samples),
            })
            .collect())
    }

    fn depths(&mut self, primitive: Primitive, slow: bool) -> Result<Vec<DepthFigure>, DiskError> {
        let (rounds, at_most) = self.plan.depths;
        let commits = if slow { SLOW_ROUND } else { self.plan.commits_of_a_depth_round };
        let phase = Instant::now();
        let mut samples: [Vec<u64>; DEPTHS.len()] = Default::default();
        for _ in 0..rounds {
            if self.over() || (!samples[0].is_empty() && phase.elapsed() > at_most) {
                break;
            }
            for (samples, depth) in samples.iter_mut().zip(DEPTHS) {
                samples.push(self.stream(primitive, depth, commits)?);
            }
        }
        let figures = DEPTHS.into_iter().zip(samples).filter(|(_, samples)| !samples.is_empty());
        let bytes = (commits * DEPTH_BYTES) as u128;
        Ok(figures
            .map(|(depth, samples)| {
                let ns = u128::from(Latency::of(samples).p50_ns.max(1));
                let bytes_per_second = u64::try_from(bytes * 1_000_000_000 / ns);
                DepthFigure {
                    depth: depth as u32,
                    bytes_per_second: bytes_per_second.unwrap_or(u64::MAX),
                }
            })
            .collect())
    }

    /// Whether the time is over, or the caller wants no more.
    fn over(&self) -> bool {
        self.begun.elapsed() > self.plan.whole || (self.stop)()
    }

    /// One write; how many nanoseconds it took.
    fn commit(
        &mut self,
        primitive: Primitive,
        bytes: usize,
        flush: Flush,
    ) -> Result<u64, DiskError> {
        let block = self.block()?;
        let op = self.write(block, bytes, flush);
        let disk = self.file.disk(primitive);
        let begun = Instant::now();
        let done = run(disk, op);
        let took = begun.elapsed();
        written(&done)?;
        Ok(nanos(took))
    }

    /// So many durable commits, at most `depth` of them in flight; how many nanoseconds they took.
    fn stream(
        &mut self,
        primitive: Primitive,
        depth: usize,
        commits: usize,
    ) -> Result<u64, DiskError> {
        let mut ops: VecDeque<Op> = VecDeque::with_capacity(depth);
        for _ in 0..depth.min(commits) {
            let block = self.block()?;
            ops.push_back(self.write(block, DEPTH_BYTES, Flush::Own));
        }
        let mut begun_commits = ops.len();
        let mut done = Vec::with_capacity(depth);
        let mut failed = None;
        let begun = Instant::now();
        loop {
            while let Some(op) = ops.pop_front() {
                self.file.disk(primitive).submit(Tag(0), op);
            }
            let disk = self.file.disk(primitive);
            if disk.in_flight() == 0 {
                break;
            }
            disk.reap(Wait::Any, &mut done);
            for completion in done.drain(..) {
                failed = failed.or(written(&completion).err());
                let block = completion.slices.into_iter().next().map(|slice| slice.block);
                if let Some(block) = block
                    && begun_commits < commits
                    && failed.is_none()
                {
                    begun_commits += 1;
                    ops.push_back(self.write(block, DEPTH_BYTES, Flush::Own));
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(nanos(begun.elapsed())),
        }
    }

    fn block(&self) -> Result<Block, DiskError> {
        self.pool.take().ok_or_else(|| DiskError::new(DiskErrorKind::Limit, "take a block"))
    }

    /// A write behind the one before; from the front again, where the file ends.
    fn write(&mut self, block: Block, bytes: usize, flush: Flush) -> Op {
        if self.at + bytes as u64 > FILE_BYTES {
            self.at = 0;
        }
        let offset = self.at;
        self.at += bytes as u64;
        Op::Write { file: FILE, offset, data: vec![Slice { block, len: bytes }], flush }
    }
}

impl ProbeFile {
    fn disk(&mut self, primitive: Primitive) -> &mut AnyDisk {
        match primitive {
            Primitive::Dsync => &mut self.dsync,
            Primitive::LinkedSync => &mut self.linked,
        }
    }
}

impl Latency {
    /// The median is that of the calmest stretch: what else a machine does only ever adds, and may
    /// add to most of the samples. Fewer than two stretches are one.
    pub(super) fn of(mut samples: Vec<u64>) -> Self {
        let at = |sorted: &[u64], percent: usize| {
            let index = sorted.len() * percent / 100;
            sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        let stretches = (samples.len() / STRETCH).max(1);
        let length = samples.len().div_ceil(stretches).max(1);
        let medians = samples.chunks_mut(length).map(|stretch| {
            stretch.sort_unstable();
            at(stretch, 50)
        });
        let p50_ns = medians.min().unwrap_or(0);
        samples.sort_unstable();
        Self { p50_ns, p99_ns: at(&samples, 99), samples: samples.len() as u32 }
    }
}

fn written(done: &Completion) -> Result<(), DiskError> {
    match &done.result {
        Ok(Done::Wrote) => Ok(()),
        Ok(_) => Err(DiskError::new(DiskErrorKind::Io, "write the probe's file")),
        Err(error) => Err(error.clone()),
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
