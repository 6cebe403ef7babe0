//! Many receipts outstanding per thread: what an ingestion service does that serves many clients
//! with few threads.
//!
//! `cargo run --release -p ringlog --example receipts [DIRECTORY]`

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use ringlog::{AppendError, Durability, Format, Log, Offset, Options, Receipt, Stream};

const THREADS: usize = 4;
const RECORDS_PER_THREAD: usize = 2_000;
const RECORD_BYTES: usize = 1_000;
/// Receipts that a thread keeps before it waits for the oldest.
const OUTSTANDING_MAX: usize = 500;
/// How long an append may wait for room before the thread gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the example on the log in `dir`, which is created when it is missing.
pub fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let options = Options {
        format: Format { segment_bytes: Some(4 << 20), shards: None },
        memory_bytes: 4 << 20, // little, so that producers may outrun the disk
        ..Options::default()
    };
    let log = Log::open(dir, options)?;
    let stream = log.stream("events")?;
    let before = stream.next_offset();

    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let stream = stream.clone();
                scope.spawn(move || produce(&stream, thread as u8).map_err(|e| e.to_string()))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| "a producer panicked".to_owned()).and_then(|result| result)
        })
    })?;

    // The threads' records are mixed, but each thread's are in its own order.
    let mut next = [0_u64; THREADS];
    for record in stream.read(before..)? {
        let record = record?;
        let (thread, number) = parse(record.payload()).ok_or("not a record of this example")?;
        assert_eq!(number, next[thread]);
        next[thread] += 1;
    }
    assert_eq!(next, [RECORDS_PER_THREAD as u64; THREADS]);

    let shard = &log.stats().shards[0];
    println!(
        "{} records in {} commits and {} flushes; {} appends were refused at first",
        shard.records_appended, shard.commits, shard.flushes, shard.rejections.memory
    );
    log.close()?;
    Ok(())
}

/// Appends this thread's records and sees all of them acknowledged.
fn produce(stream: &Stream, thread: u8) -> Result<(), Box<dyn Error>> {
    let mut outstanding: VecDeque<Receipt> = VecDeque::new();
    let mut last: Option<Offset> = None;
    for number in 0..RECORDS_PER_THREAD as u64 {
        outstanding.push_back(append(stream, &record(thread, number))?);
        if outstanding.len() > OUTSTANDING_MAX
            && let Some(oldest) = outstanding.pop_front()
        {
            let offset = oldest.wait()?.offset;
            assert!(last < Some(offset), "a thread's offsets grow");
            last = Some(offset);
        }
    }
    // Whatever is acknowledged, everything before it in the same shard is, too: so one wait, for
    // the newest, serves all.
    if let Some(newest) = outstanding.back() {
        newest.wait()?;
    }
    assert!(outstanding.iter().all(Receipt::is_acknowledged));
    Ok(())
}

/// An append never waits by itself. When the memory for records on their way is in use, it refuses;
/// what to do then is the caller's choice: drop the record, tell the client, or wait, as here.
fn append(stream: &Stream, record: &[u8]) -> Result<Receipt, AppendError> {
    match stream.append_with(record, Durability::Synced) {
        Err(AppendError::Full { .. }) => stream.append_within(record, Durability::Synced, PATIENCE),
        other => other,
    }
}

fn record(thread: u8, number: u64) -> Vec<u8> {
    let mut record = vec![thread; RECORD_BYTES];
    record[1..9].copy_from_slice(&number.to_le_bytes());
    record
}

fn parse(record: &[u8]) -> Option<(usize, u64)> {
    let (thread, rest) = record.split_first()?;
    let number = u64::from_le_bytes(*rest.first_chunk()?);
    (usize::from(*thread) < THREADS).then_some((usize::from(*thread), number))
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(dir) => run(dir.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}
