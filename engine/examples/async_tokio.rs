//! Many tasks on one thread of tokio, each awaiting its own receipts; they share the flushes.
//!
//! `cargo run -p ringlog --example async_tokio [DIRECTORY]`

use std::error::Error;
use std::path::Path;

use ringlog::{AppendError, Format, Log, Options, Position, Stream};
use tokio::task::JoinSet;

const TASKS: usize = 200;
const RECORDS_PER_TASK: usize = 20;

/// Appends, and gives the other tasks a turn as long as the log has no room.
///
/// `append_within` would hold up the thread, and with it every other task.
async fn append(stream: &Stream, record: &[u8]) -> Result<Position, Box<dyn Error + Send + Sync>> {
    loop {
        match stream.append(record) {
            Ok(receipt) => return Ok(receipt.await?),
            Err(AppendError::Full { .. }) => tokio::task::yield_now().await,
            Err(other) => return Err(other.into()),
        }
    }
}

async fn client(stream: Stream, number: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut last = None;
    for turn in 0..RECORDS_PER_TASK {
        let position = append(&stream, format!("client {number}, turn {turn}").as_bytes()).await?;
        assert!(last < Some(position.offset), "a client's records are in its order");
        last = Some(position.offset);
    }
    Ok(())
}

async fn serve(log: &Log) -> Result<(), Box<dyn Error + Send + Sync>> {
    let stream = log.stream("clients")?;
    let before = stream.next_offset();
    let mut clients = JoinSet::new();
    for number in 0..TASKS {
        clients.spawn(client(stream.clone(), number));
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let expected = (TASKS * RECORDS_PER_TASK) as u64;
    assert_eq!(stream.next_offset().0 - before.0, expected);
    let shard = &log.stats().shards[0];
    println!("{expected} durable records with {} flushes, on one thread", shard.flushes);
    Ok(())
}

/// Runs the example on the log in `dir`, which is created when it is missing.
pub fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let format = Format { segment_bytes: Some(1 << 20), shards: None };
    // Opening, reading and closing wait for the disk: a service does them outside its tasks.
    let log = Log::open(dir, Options { format, ..Options::default() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(serve(&log)).map_err(|error| error.to_string())?;
    log.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(dir) => run(dir.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}
