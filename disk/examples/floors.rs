//! Durable writes of 4 KiB, one at a time: the disk against the bare system calls, taking turns in
//! one run; then the same while a file is being created on the thread for names.
//!
//! `cargo run --release -p ringlog-disk --example floors -- [DIRECTORY]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringlog_disk::floor::FloorFile;
use ringlog_disk::{
    AnyDisk, BlockPool, Dir, Disk, DiskError, DiskErrorKind, DiskOptions, FileId, FileName, Flush,
    IoKind, Op, Primitive, Slice, Tag, Wait, open, run,
};

const COMMIT_BYTES: usize = 4096;
const FILE_BYTES: u64 = 16 << 20;
const TURNS: usize = 10;
const ROUNDS: usize = 300;

fn name(text: &str) -> Result<FileName, DiskError> {
    FileName::new(text).ok_or_else(|| DiskError::new(DiskErrorKind::Unexpected, text))
}

/// One commit after another; the time of each in nanoseconds. Ends early when `until` is done.
fn commits(
    disk: &mut AnyDisk,
    pool: &BlockPool,
    rounds: usize,
    until: Option<Tag>,
) -> Result<Vec<u64>, DiskError> {
    let mut samples = Vec::with_capacity(rounds.min(1000));
    let mut out = Vec::new();
    let mut data = vec![Slice { block: take(pool)?, len: COMMIT_BYTES }];
    let mut ended = false;
    for round in 0..rounds {
        let offset = (round * COMMIT_BYTES) as u64 % FILE_BYTES;
        let begun = Instant::now();
        disk.submit(Tag(1), Op::Write { file: FileId(0), offset, data, flush: Flush::Own });
        data = Vec::new();
        while data.is_empty() {
            disk.reap(Wait::Any, &mut out);
            for completion in out.drain(..) {
                completion.result?;
                if completion.tag == Tag(1) {
                    samples.push(begun.elapsed().as_nanos() as u64);
                    data = completion.slices;
                } else {
                    ended = Some(completion.tag) == until;
                }
            }
        }
        if ended {
            return Ok(samples);
        }
    }
    while until.is_some() && !ended {
        disk.reap(Wait::Any, &mut out);
        for completion in out.drain(..) {
            completion.result?;
            ended = true;
        }
    }
    Ok(samples)
}

fn take(pool: &BlockPool) -> Result<ringlog_disk::Block, DiskError> {
    pool.take().ok_or_else(|| DiskError::new(DiskErrorKind::Limit, "take a block"))
}

fn print(what: &str, mut samples: Vec<u64>, floor_ns: Option<u64>) -> u64 {
    samples.sort_unstable();
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize];
    let micros = |ns: u64| ns as f64 / 1000.0;
    let p50 = at(0.5);
    let ratio =
        floor_ns.map_or(String::new(), |f| format!("  {:.3} x floor", p50 as f64 / f as f64));
    println!(
        "{what:<34} p50 {:7.1}  p90 {:7.1}  p99 {:7.1}  max {:8.1} µs  n {}{ratio}",
        micros(p50),
        micros(at(0.9)),
        micros(at(0.99)),
        micros(at(1.0)),
        samples.len(),
    );
    p50
}

fn main() -> Result<(), DiskError> {
    let below = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let home = below.join(format!("ringlog-floors-{}", std::process::id()));
    let dir = Dir::create_all(&home)?;
    let result = measure(&dir);
    let _ = std::fs::remove_dir_all(&home);
    result
}

fn measure(dir: &Dir) -> Result<(), DiskError> {
    let pool = BlockPool::new(4, COMMIT_BYTES)?;
    let floor = FloorFile::create(dir, &name("floor")?, FILE_BYTES)?;
    let mut disks = Vec::new();
    for (kind, primitive) in [
        (IoKind::Auto, Primitive::Dsync),
        (IoKind::Auto, Primitive::LinkedSync),
        (IoKind::Blocking, Primitive::Dsync),
    ] {
        let options = DiskOptions {
            pools: vec![pool.clone()],
            primitive,
            names_thread: true,
            ..DiskOptions::default()
        };
        let mut disk = open(dir, None, kind, &options)?;
        let file = name(&format!("disk-{}", disks.len()))?;
        run(&mut disk, Op::Create { file: FileId(0), name: file, bytes: FILE_BYTES }).result?;
        disks.push((disk, Vec::new()));
    }
    println!("{:?}", disks[0].0.facts());
    let mut floors = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (samples, primitive) in floors.iter_mut().zip([Primitive::Dsync, Primitive::LinkedSync])
        {
            samples.extend(floor.durable_writes(
                primitive,
                COMMIT_BYTES,
                ROUNDS,
                Duration::from_secs(10),
            )?);
        }
        for (disk, samples) in &mut disks {
            samples.extend(commits(disk, &pool, ROUNDS, None)?);
        }
    }
    let [dsync, synced] = floors;
    let floor_dsync = print("floor: pwritev2 RWF_DSYNC", dsync, None);
    let floor_synced = print("floor: pwrite, fdatasync", synced, None);
    let best = floor_dsync.min(floor_synced);
    for (disk, samples) in &mut disks {
        let facts = disk.facts();
        let what = format!("{} {}", facts.kind, facts.commit_primitive);
        print(&what, std::mem::take(samples), Some(best));
    }
    let (disk, _) = &mut disks[0];
    let mut during = Vec::new();
    let mut took = Vec::new();
    for i in 0..10_u32 {
        let file = name(&format!("created-{i}"))?;
        let begun = Instant::now();
        disk.submit(Tag(2), Op::Create { file: FileId(1 + i), name: file, bytes: 64 << 20 });
        during.extend(commits(disk, &pool, usize::MAX >> 20, Some(Tag(2)))?);
        took.push(begun.elapsed().as_nanos() as u64);
    }
    print("io_uring commits during a Create", during, Some(best));
    print("the Create of 64 MiB itself", took, None);
    Ok(())
}
