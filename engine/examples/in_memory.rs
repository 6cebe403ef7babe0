//! The log in memory, as a test of one's own program uses it: nothing on disk, a restart, a full
//! disk, a failed flush, a power cut.
//!
//! `cargo run -p ringlog --example in_memory`

use std::error::Error;
use std::time::Duration;

use ringlog::{AppendError, Durability, Format, FullReason, Log, Options, ReceiptError, Stream};

/// The program under test: it books orders, and says which of them it may promise.
fn book(orders: &Stream, count: u64) -> Result<u64, AppendError> {
    let mut promised = 0;
    for number in 0..count {
        let receipt = orders.append(format!("order {number} {:>9000}", "…").as_bytes())?;
        match receipt.wait() {
            Ok(_) => promised += 1,
            Err(ReceiptError::DiskFull) => {} // not stored: nothing is promised
            Err(error) => {
                println!("not promised: {error}");
                break;
            }
        }
    }
    Ok(promised)
}

/// Runs the example.
pub fn run() -> Result<(), Box<dyn Error>> {
    let format = Format { segment_bytes: Some(1 << 20), shards: Some(1) };
    let options = Options { format, memory_bytes: 4 << 20, ..Options::default() };
    let (log, device) = Log::in_memory(options.clone())?;
    let orders = log.stream("orders")?;
    let mut promised = book(&orders, 100)?;

    // The disk is full. What is prepared ahead can still be filled, then appends are refused.
    device.set_full(true);
    let refused = loop {
        match book(&orders, 10) {
            Ok(more) => promised += more,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::Full { reason: FullReason::Disk });
    // The refused call of `book` may have promised some before it was refused.
    promised = promised.max(orders.read(..)?.count() as u64);

    // There is room again, and the log goes on by itself.
    device.set_full(false);
    let patience = Duration::from_secs(30);
    orders.append_within(b"order", Durability::Synced, patience)?.wait()?;
    promised += 1;

    // A flush fails, that of a record or one beside it: from then on nothing is promised, until the
    // log is opened again.
    device.fail_next_flush();
    loop {
        match book(&orders, 1) {
            Ok(0) | Err(AppendError::Poisoned(_)) => break,
            Ok(more) => promised += more,
            Err(error) => return Err(error.into()),
        }
    }
    assert!(matches!(orders.append(b"order").err(), Some(AppendError::Poisoned(_))));
    drop((orders, log));

    // The power is cut, and what was promised is there.
    device.power_cut();
    let log = Log::open_in(&device, options)?;
    let found = log.existing_stream("orders")?.read(..)?.collect::<Result<Vec<_>, _>>()?;
    assert!(found.len() as u64 >= promised);
    println!("{promised} orders promised, {} found; {device:?}", found.len());
    log.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run()
}
