//! A thread-per-core ingest service in small: two threads, a shard each, each with an event loop of
//! its own. No thread, queue or lock of the log's is between a request and the disk.
//!
//! `cargo run -p ringlog --example caller_driven [DIRECTORY]`

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use ringlog::driven::{DrivenLog, DrivenShard, Event, Seat, Waker};
use ringlog::{AppendError, Durability, Format, Log, Options, StreamId};

const REQUESTS: u64 = 2_000;

/// What a client asks for. In a service this would come from a socket of the thread's own.
struct Ask {
    key: String,
    payload: Vec<u8>,
    done: Sender<Result<u64, String>>,
}

/// A thread's way in: a channel, and what wakes the thread when it sleeps in the ring.
struct Door {
    asks: Sender<Ask>,
    waker: Waker,
}

/// One core's loop. It sleeps in one place only: in the shard's [`DrivenShard::wait`], where the
/// disk's completions and the waker end the sleep. (A loop that sleeps in epoll uses
/// [`DrivenShard::poll_fd`] instead.)
fn serve(seat: Seat, door: &Sender<Waker>, asks: &Receiver<Ask>) -> Result<(), String> {
    let mut shard = seat.start().map_err(|error| error.to_string())?;
    door.send(shard.waker()).map_err(|error| error.to_string())?;
    let mut clients: HashMap<u64, (u64, Sender<Result<u64, String>>)> = HashMap::new();
    let mut next_token = 0;
    let mut waiting: Option<Ask> = None;
    let mut open = true;
    while open || !clients.is_empty() || waiting.is_some() {
        // What has come goes into the shard's memory; the next wait sends all of it in one commit.
        while open || waiting.is_some() {
            let ask = match waiting.take().map_or_else(|| asks.try_recv(), Ok) {
                Ok(ask) => ask,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            };
            match take(&mut shard, &ask) {
                Ok((offset, appended)) => {
                    next_token += 1;
                    shard.notify(appended, next_token);
                    clients.insert(next_token, (offset, ask.done));
                }
                // Backpressure: it is tried again after the next commit.
                Err(AppendError::Full { .. }) => {
                    waiting = Some(ask);
                    break;
                }
                Err(error) => drop(ask.done.send(Err(error.to_string()))),
            }
        }
        if open || !clients.is_empty() || waiting.is_some() {
            shard.wait(Some(Duration::from_millis(100)));
        }
        for event in shard.events() {
            let (token, end) = match event {
                Event::Acknowledged { token } => (token, None),
                Event::Failed { token, error } => (token, Some(error.to_string())),
                Event::Answered { .. } => continue,
            };
            if let Some((offset, client)) = clients.remove(&token) {
                // The client may have gone; its record is durable all the same.
                let _ = client.send(end.map_or(Ok(offset), Err));
            }
        }
    }
    shard.close().map_err(|error| error.to_string())
}

type Taken = (u64, ringlog::driven::Appended);

fn take(
    shard: &mut DrivenShard<ringlog::driven::AnyDisk>,
    ask: &Ask,
) -> Result<Taken, AppendError> {
    let stream: StreamId = match shard.stream(&ask.key) {
        Ok(stream) => stream,
        Err(ringlog::StreamError::Append(error)) => return Err(error),
        Err(_) => return Err(AppendError::Closed), // not reached: keys are routed and short
    };
    let appended = shard.append(stream, &ask.payload, Durability::Synced)?;
    Ok((appended.offset.0, appended))
}

/// Runs the example on the log in `dir`, which is created when it is missing.
pub fn run(dir: &Path) -> Result<(), Box<dyn Error>> {
    let format = Format { segment_bytes: Some(8 << 20), shards: Some(2) };
    let options = Options { format, ..Options::default() };
    let log = DrivenLog::open(dir, options.clone())?;
    let route: Vec<u16> = (0..10).map(|key| log.shard_of(&format!("key-{key}"))).collect();

    let (mut doors, mut threads) = (Vec::new(), Vec::new());
    for seat in log.into_seats() {
        let (asks, asked) = channel();
        let (started, start) = channel();
        // Here the application would pin the thread, and open its sockets.
        threads.push(thread::spawn(move || serve(seat, &started, &asked)));
        doors.push(Door { asks, waker: start.recv()? });
    }

    let (done, answers) = channel();
    for number in 0..REQUESTS {
        let key = number % 10;
        let door = &doors[usize::from(route[key as usize])];
        let payload = format!("request {number}").into_bytes();
        door.asks.send(Ask { key: format!("key-{key}"), payload, done: done.clone() })?;
        door.waker.wake();
    }
    drop(done);
    let durable = answers.iter().collect::<Result<Vec<u64>, String>>()?;
    assert_eq!(durable.len() as u64, REQUESTS, "each request is answered once");

    // Without a door nothing more can come: each loop answers what it has, and closes its shard.
    let wakers: Vec<Waker> = doors.into_iter().map(|door| door.waker).collect();
    wakers.iter().for_each(Waker::wake);
    for thread in threads {
        thread.join().map_err(|_| "a loop panicked")??;
    }

    // It is the same log for whoever opens it the usual way.
    let log = Log::open(dir, options)?;
    let records: u64 = log.streams().iter().map(|stream| stream.next_offset.0).sum();
    assert!(records >= REQUESTS && records.is_multiple_of(REQUESTS));
    assert!(log.recovery_report().shards.iter().all(|shard| shard.clean));
    println!("{REQUESTS} requests on two threads; {records} records are in {}", dir.display());
    log.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(dir) => run(dir.as_ref()),
        None => run(tempfile::tempdir()?.path()),
    }
}
