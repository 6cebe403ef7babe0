//! The contract suite of the disk crate, on the simulated disk.

use ringlog_disk::BlockPool;
use ringlog_disk::suite::{POOL_BLOCK_BYTES, POOL_BLOCKS, run_all};
use ringlog_sim::{SimDisk, SimWorld, WorldOptions};

fn suite(shuffled: bool, align_bytes: u32) {
    let mut seed = 0;
    run_all(&mut || {
        seed += 1;
        let world = SimWorld::new(&WorldOptions {
            seed,
            shuffled,
            align_bytes,
            files_grow: true,
            ..WorldOptions::default()
        });
        let pool = BlockPool::new(POOL_BLOCKS, POOL_BLOCK_BYTES).expect("memory for blocks");
        (Box::new(SimDisk::open(&world)), pool)
    });
}

#[test]
fn completions_in_order() {
    suite(false, 4096);
}

#[test]
fn completions_in_any_order() {
    suite(true, 4096);
}

#[test]
fn an_alignment_of_512_bytes() {
    suite(true, 512);
}
