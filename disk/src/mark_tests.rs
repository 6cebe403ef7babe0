//! The writer's mark on the real kernel: it can be seen, it disturbs nobody, and it ends with the
//! process, while the lock lasts until the last write in flight has ended.

#![cfg(not(miri))]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::block::BlockPool;
use crate::dir::Dir;
use crate::disk_tests::skipped;
use crate::op::{Disk, FileId, FileName, Flush, Op, Slice, Tag, Wait, run};
use crate::options::{DiskOptions, IoKind};
use crate::{open, suite};

/// In the environment of a child: the directory that it shall write.
const CHILD: &str = "RINGLOG_TEST_MARK";
/// Longer than a loaded machine needs for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The directories at hand, each on another kind of file system.
fn homes() -> Vec<TempDir> {
    let mut homes = vec![TempDir::new().unwrap()];
    match Path::new("/dev/shm") {
        shm if shm.is_dir() => homes.push(TempDir::new_in(shm).unwrap()),
        _ => skipped(format_args!("the writer's mark on tmpfs: no /dev/shm")),
    }
    homes
}

#[test]
fn the_mark_is_seen_by_others_and_goes_with_the_last_holder() {
    for home in homes() {
        let writer = Dir::open(home.path()).unwrap();
        let other = Dir::open(home.path()).unwrap();
        assert_eq!(other.has_writer(), Some(false));
        assert!(writer.try_lock_exclusive().unwrap());
        assert_eq!(other.has_writer(), Some(false), "the lock is not the mark");
        writer.hold_writer_mark().unwrap();
        assert_eq!(other.has_writer(), Some(true));
        assert_eq!(writer.has_writer(), Some(false), "one's own mark is not another writer");
        // Closing another descriptor of the same directory takes nothing away, as it would with
        // the older kind of record locks.
        drop(Dir::open(home.path()).unwrap());
        assert_eq!(other.has_writer(), Some(true));
        let clone = writer.clone();
        drop(writer);
        assert_eq!(other.has_writer(), Some(true));
        drop(clone);
        assert_eq!(other.has_writer(), Some(false));
    }
}

#[test]
fn the_mark_lives_as_long_as_the_disk() {
    let home = TempDir::new().unwrap();
    for kind in [IoKind::Uring, IoKind::Blocking] {
        let lock = Dir::open(home.path()).unwrap();
        lock.hold_writer_mark().unwrap();
        let disk = match open(&lock, Some(&lock), kind, &DiskOptions::default()) {
            Ok(disk) => disk,
            Err(error) => {
                skipped(format_args!("io_uring: {error}"));
                continue;
            }
        };
        drop(lock);
        let other = Dir::open(home.path()).unwrap();
        assert_eq!(other.has_writer(), Some(true), "{kind:?}");
        drop(disk);
        assert_eq!(other.has_writer(), Some(false), "{kind:?}");
    }
}

/// While others ask all the time, a writer that locks and marks the directory never fails, and
/// who asks never sees a mark that nobody holds.
#[test]
fn asking_disturbs_no_writer() {
    for home in homes() {
        let stop = AtomicBool::new(false);
        let asked = std::thread::scope(|scope| {
            let askers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let dir = Dir::open(home.path()).unwrap();
                        let mut seen = [0_u64; 2];
                        while !stop.load(Ordering::Relaxed) || seen[1] == 0 {
                            seen[usize::from(dir.has_writer().unwrap())] += 1;
                        }
                        seen
                    })
                })
                .collect();
            let end = suite::SetAtEnd(&stop);
            for _ in 0..2000 {
                let writer = Dir::open(home.path()).unwrap();
                assert!(writer.try_lock_exclusive().unwrap(), "a question took the lock");
                writer.hold_writer_mark().unwrap();
            }
            // However it was scheduled, each asker sees at least this one.
            let writer = Dir::open(home.path()).unwrap();
            writer.hold_writer_mark().unwrap();
            drop(end);
            askers.into_iter().map(|asker| asker.join().unwrap()).collect::<Vec<_>>()
        });
        println!("no and yes: {asked:?}");
        assert_eq!(Dir::open(home.path()).unwrap().has_writer(), Some(false));
    }
}

/// Runs this program again as a writer of `dir`; returns when it has the mark.
fn writer_process(test: &str, dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("mark_tests::{test}"), "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("marked")), "the child has no mark");
    child
}

/// A writer dies by kill -9 with writes and flushes of the directory in flight: whoever has waited
/// for its end sees no mark any more, while the lock comes free when the last write has ended.
#[test]
fn the_mark_of_a_killed_process_ends() {
    if let Some(path) = std::env::var_os(CHILD) {
        let dir = Dir::open(Path::new(&path)).unwrap();
        assert!(dir.try_lock_exclusive().unwrap());
        dir.hold_writer_mark().unwrap();
        let pool = BlockPool::resident(64, 65536).unwrap();
        let options = DiskOptions { pools: vec![pool.clone()], ..DiskOptions::default() };
        let mut disk = open(&dir, Some(&dir), IoKind::Auto, &options).unwrap();
        let name = FileName::new("file").unwrap();
        run(&mut disk, Op::Create { file: FileId(0), name, bytes: 4 << 20 }).result.unwrap();
        println!("marked");
        let mut out = Vec::new();
        loop {
            for at in 0..64 {
                let Some(block) = pool.take() else { break };
                let data = vec![Slice { block, len: 65536 }];
                let op = Op::Write { file: FileId(0), offset: at * 65536, data, flush: Flush::Own };
                disk.submit(Tag(at), op);
            }
            disk.submit(Tag(64), Op::SyncDir);
            disk.reap(Wait::Any, &mut out);
            out.clear();
        }
    }
    // One kill may meet a moment at which nothing is in flight.
    for home in (0..10).flat_map(|_| homes()) {
        let other = Dir::open(home.path()).unwrap();
        let mut child = writer_process("the_mark_of_a_killed_process_ends", home.path());
        assert_eq!(other.has_writer(), Some(true));
        assert!(!other.try_lock_exclusive().unwrap());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(other.has_writer(), Some(false), "the mark has outlived the process");
        assert!(other.lock_exclusive(PATIENCE).unwrap(), "the lock has stayed");
    }
}
