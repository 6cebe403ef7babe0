//! The examples, run as tests: twice on the same directory, so that each also meets a log that is
//! there already.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "an example's main is for `cargo run`")]
#[path = "../examples/async_no_runtime.rs"]
mod async_no_runtime;
#[expect(dead_code, reason = "an example's main is for `cargo run`")]
#[path = "../examples/async_tokio.rs"]
mod async_tokio;
#[expect(dead_code, reason = "an example's main is for `cargo run`")]
#[path = "../examples/caller_driven.rs"]
mod caller_driven;
#[expect(dead_code, reason = "an example's main is for `cargo run`")]
#[path = "../examples/in_memory.rs"]
mod in_memory;
#[expect(dead_code, reason = "an example's main is for `cargo run`")]
#[path = "../examples/ingest.rs"]
mod ingest;
#[expect(dead_code, reason = "an example's main is for `cargo run`")]
#[path = "../examples/receipts.rs"]
mod receipts;

use std::error::Error;
use std::path::Path;

fn twice(example: fn(&Path) -> Result<(), Box<dyn Error>>) {
    let dir = tempfile::tempdir().unwrap();
    example(dir.path()).unwrap();
    example(dir.path()).unwrap();
}

#[test]
fn ingest_and_read_back() {
    twice(ingest::run);
}

#[test]
fn faults_in_memory() {
    in_memory::run().unwrap();
}

#[test]
fn many_receipts_per_thread() {
    twice(receipts::run);
}

#[test]
fn a_receipt_without_a_runtime() {
    twice(async_no_runtime::run);
}

#[test]
fn two_threads_drive_a_shard_each() {
    twice(caller_driven::run);
}

#[test]
fn many_tasks_on_tokio() {
    twice(async_tokio::run);
}
