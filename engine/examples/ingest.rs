//! Append lines, wait until they are durable, read them back, open the log again.
//!
//! `cargo run -p ringlog --example ingest [DIRECTORY]`

use std::error::Error;
use std::path::Path;

use ringlog::{Log, Offset, Options, Position, Receipt};

const LINES: [&str; 4] = ["the first line", "", "an empty one stays a record", "the last line"];

/// Runs the example on the log in `dir`, which is created when it is missing.
pub fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let log = Log::open(dir, Options::default())?;
    let lines = log.stream("lines")?;
    let before = lines.next_offset();

    // An append returns at once. Under the default durability its receipt is good once the record
    // survives power loss.
    let receipts: Vec<Receipt> =
        LINES.iter().map(|line| lines.append(line.as_bytes())).collect::<Result<_, _>>()?;
    for (receipt, expected) in receipts.iter().zip(before.0..) {
        let Position { offset, .. } = receipt.wait()?;
        assert_eq!(offset, Offset(expected));
    }

    // Readers see durable records, so everything that was waited for is there.
    for (record, line) in lines.read(before..)?.zip(LINES) {
        let record = record?;
        assert_eq!(record.payload(), line.as_bytes());
    }
    // Closing says whether everything is stored; dropping the log would keep that to itself.
    log.close()?;

    let log = Log::open(dir, Options::default())?;
    let lines = log.existing_stream("lines")?;
    let recovered = lines.read(before..)?.collect::<Result<Vec<_>, _>>()?;
    assert_eq!(recovered.len(), LINES.len());
    assert!(log.recovery_report().shards.iter().all(|shard| shard.clean));
    println!("offsets {before} to before {} are in {}", lines.next_offset(), dir.display());
    log.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(dir) => run(dir.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}
