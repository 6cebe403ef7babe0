//! The contract suite on every real disk, and checks that need a real file system.

#![cfg(not(miri))]

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::block::BlockPool;
use crate::dir::Dir;
use crate::op::{Disk, DiskFacts};
use crate::options::{DiskOptions, IoKind, Primitive, Restrict};
use crate::{open, suite};

/// Runs the contract suite, each check in a new directory below `below`.
fn run_suite(below: &Path, kind: IoKind, options: &DiskOptions) -> DiskFacts {
    let mut home: Option<TempDir> = None;
    let mut facts = None;
    suite::run_all(&mut || {
        let pool = BlockPool::resident(suite::POOL_BLOCKS, suite::POOL_BLOCK_BYTES).unwrap();
        let new_home = home.insert(TempDir::new_in(below).unwrap());
        let dir = Dir::open(new_home.path()).unwrap();
        let options = DiskOptions { pools: vec![pool.clone()], ..options.clone() };
        let disk = open(&dir, Some(&dir), kind, &options).unwrap();
        facts = Some(disk.facts().clone());
        (Box::new(disk), pool)
    });
    let facts = facts.unwrap();
    println!("{facts:?}");
    facts
}

fn on_disk() -> PathBuf {
    std::env::temp_dir()
}

/// io_uring, unless this system refuses it: then the test is skipped by name.
fn uring_works() -> bool {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    match open(&dir, None, IoKind::Uring, &DiskOptions::default()) {
        Ok(_) => true,
        Err(error) => {
            skipped(format_args!("io_uring is refused here: {error}"));
            false
        }
    }
}

fn uring_suite(below: &Path, options: &DiskOptions) {
    if uring_works() {
        let facts = run_suite(below, IoKind::Uring, options);
        assert_eq!(facts.kind, "io_uring");
    }
}

fn with(restrict: Restrict) -> DiskOptions {
    DiskOptions { restrict, ..DiskOptions::default() }
}

const PRIMITIVES: [Primitive; 2] = [Primitive::Dsync, Primitive::LinkedSync];

#[test]
fn blocking_keeps_the_contract() {
    for names_thread in [false, true] {
        for primitive in PRIMITIVES {
            let options = DiskOptions { names_thread, primitive, ..DiskOptions::default() };
            let facts = run_suite(&on_disk(), IoKind::Blocking, &options);
            assert_eq!(facts.kind, "blocking");
        }
    }
}

#[test]
fn blocking_without_direct_io_keeps_the_contract() {
    let options = DiskOptions { direct: false, ..DiskOptions::default() };
    let facts = run_suite(&on_disk(), IoKind::Blocking, &options);
    assert!(!facts.direct && !facts.notes.is_empty());
}

#[test]
fn uring_keeps_the_contract() {
    for names_thread in [false, true] {
        for primitive in PRIMITIVES {
            let options = DiskOptions { names_thread, primitive, ..DiskOptions::default() };
            uring_suite(&on_disk(), &options);
        }
    }
}

#[test]
fn memory_keeps_the_contract() {
    suite::run_all(&mut || {
        let pool = BlockPool::resident(suite::POOL_BLOCKS, suite::POOL_BLOCK_BYTES).unwrap();
        (Box::new(crate::MemoryDevice::new().root().disk()), pool)
    });
}

#[test]
fn memory_file_systems_keep_the_contract() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        skipped(format_args!("memory_file_systems_keep_the_contract: no /dev/shm"));
        return;
    }
    for primitive in PRIMITIVES {
        let options = DiskOptions { primitive, names_thread: true, ..DiskOptions::default() };
        let facts = run_suite(shm, IoKind::Blocking, &options);
        assert!(!facts.direct, "tmpfs has no direct I/O");
        assert!(facts.notes.iter().any(|note| note.contains("tmpfs")), "{:?}", facts.notes);
        uring_suite(shm, &options);
    }
}

#[test]
fn uring_keeps_the_contract_without_registered_memory() {
    uring_suite(&on_disk(), &with(Restrict { no_registered_buffers: true, ..Restrict::default() }));
}

#[test]
fn uring_keeps_the_contract_without_registered_files() {
    uring_suite(&on_disk(), &with(Restrict { no_registered_files: true, ..Restrict::default() }));
}

#[test]
fn uring_keeps_the_contract_without_deferred_work() {
    uring_suite(&on_disk(), &with(Restrict { no_defer_taskrun: true, ..Restrict::default() }));
}

#[test]
fn uring_keeps_the_contract_without_flags() {
    uring_suite(&on_disk(), &with(Restrict { no_ring_flags: true, ..Restrict::default() }));
}

#[test]
fn uring_keeps_the_contract_with_plain_vectored_writes() {
    for primitive in PRIMITIVES {
        let restrict = Restrict { plain_writev: true, ..Restrict::default() };
        uring_suite(&on_disk(), &DiskOptions { primitive, ..with(restrict) });
    }
}

/// Far more in flight than the completion queue holds.
#[test]
fn uring_keeps_the_contract_when_completions_overflow() {
    for primitive in PRIMITIVES {
        for no_ring_flags in [false, true] {
            let restrict = Restrict {
                submission_entries: Some(2),
                completion_entries: Some(2),
                in_flight_max: Some(200),
                no_ring_flags,
                ..Restrict::default()
            };
            uring_suite(&on_disk(), &DiskOptions { primitive, ..with(restrict) });
        }
    }
}

#[test]
fn uring_keeps_the_contract_with_one_in_flight() {
    let restrict = Restrict { in_flight_max: Some(1), ..Restrict::default() };
    uring_suite(&on_disk(), &with(restrict));
}

/// Says that a test cannot be run here; past the test runner, which keeps the output of tests that
/// pass to itself.
pub(crate) fn skipped(what: std::fmt::Arguments<'_>) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {what}\n"));
}
