//! The contract suite on every real disk, and checks that need a real file system.

use std::path::Path;

use tempfile::TempDir;

use crate::block::BlockPool;
use crate::dir::Dir;
use crate::op::Disk;
use crate::options::DiskOptions;
use crate::{BlockingDisk, suite};

/// Runs the contract suite, each check in a new directory below `below`.
fn run_suite(
    below: &Path,
    mut open: impl FnMut(&Dir, &DiskOptions) -> Box<dyn Disk>,
    options: &DiskOptions,
) {
    let mut homes: Vec<TempDir> = Vec::new();
    suite::run_all(&mut || {
        let pool = BlockPool::new(suite::POOL_BLOCKS, suite::POOL_BLOCK_BYTES).unwrap();
        let home = TempDir::new_in(below).unwrap();
        let dir = Dir::open(home.path()).unwrap();
        homes.clear();
        homes.push(home);
        let options = DiskOptions {
            pools: vec![pool.clone()],
            ..options.clone()
        };
        (open(&dir, &options), pool)
    });
}

#[test]
fn blocking_keeps_the_contract() {
    for names_thread in [false, true] {
        let options = DiskOptions {
            names_thread,
            ..DiskOptions::default()
        };
        run_suite(
            &std::env::temp_dir(),
            |dir, o| Box::new(BlockingDisk::open(dir, None, o).unwrap()),
            &options,
        );
    }
}
