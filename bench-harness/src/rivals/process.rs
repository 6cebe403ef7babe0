//! Each piece of work is done by a process of its own.
//!
//! Rivals keep state for the whole process, read the environment, print, and panic where a disk
//! fails. In a process of its own each has the same conditions, its CPU time is its own, and one that
//! hangs can be killed. ringlog is treated no better.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::contender::{Claims, Contender, Facts, Producer, Refusal, Ringlog};
use crate::counters::{Counted, Device};
use crate::environment::interrupted;
use crate::measurement::{Class, decode, encode};
use crate::percentile::new_histogram;
use crate::rivals::adapter::{Purpose, Rival, Tally};
use crate::rivals::engine::{Engine, with_rival};
use crate::rivals::ringlog::Driven;
use crate::rivals::walrus::{DIR_VARIABLE, QUIET_VARIABLE};
use crate::run::Io;
use crate::workload::{self, Keep, Load, Outcome, incompressible, stamp};

/// What a piece of work may take beside its window: opening, warming up, closing.
const BESIDE: Duration = Duration::from_secs(120);
/// What filling takes at most.
const FILLED_WITHIN: Duration = Duration::from_secs(600);
/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// An interrupted process ends by itself within this time.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Records of one commit while a log is filled, and their payload.
const FILL_RECORDS: usize = 1000;
pub(crate) const FILL_RECORD_BYTES: usize = 256;
/// Tells ringlog how to reach the disk.
const IO_VARIABLE: &str = "RINGLOG_IO";
/// How long an append waits for room.
const ROOM_WITHIN: Duration = Duration::from_secs(60);

/// A piece of work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) engine: Engine,
    /// A directory of its own.
    pub(crate) dir: PathBuf,
    pub(crate) task: Task,
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A closed loop of producers.
    Append {
        unsynced: bool,
        record_bytes: usize,
        batch_records: usize,
        producers: usize,
        outstanding: usize,
        warm_up: Duration,
        window: Duration,
        payload_bytes_max: Option<u64>,
    },
    /// About so many bytes of payload, durable, and a clean close.
    Fill { bytes: u64 },
    /// All of it read.
    Replay,
    /// Opened, and one record appended.
    Open,
}

impl Task {
    fn within(&self) -> Duration {
        match self {
            Self::Append { window, .. } => *window + BESIDE,
            Self::Fill { .. } => FILLED_WITHIN,
            Self::Replay | Self::Open => BESIDE,
        }
    }
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    facts: Facts,
    latency: Option<String>,
    flush_latency: Option<String>,
    flushes_claimed: Option<u64>,
    device_bytes_claimed: Option<u64>,
    records: u64,
    payload_bytes: u64,
    in_flight_max: u64,
    elapsed: Duration,
    counted: Counted,
    waited_for_room: u64,
    trimmed: u64,
    ended_early: Option<String>,
    /// What was filled or read.
    pub(crate) tally: Tally,
}

impl Done {
    fn appended(outcome: Outcome) -> Self {
        Self {
            latency: encode(&outcome.latency),
            flush_latency: encode(&outcome.claims.flush_latency),
            flushes_claimed: outcome.claims.flushes,
            device_bytes_claimed: outcome.claims.device_bytes,
            records: outcome.records,
            payload_bytes: outcome.payload_bytes,
            in_flight_max: outcome.in_flight_max,
            elapsed: outcome.elapsed,
            counted: outcome.counted,
            waited_for_room: outcome.waited_for_room,
            trimmed: outcome.trimmed,
            ended_early: outcome.ended_early,
            facts: outcome.facts,
            tally: Tally::default(),
        }
    }

    /// Of one thing that took so long. The log is durable, and no acknowledgement was waited for.
    fn once(facts: Facts, tally: Tally, elapsed: Duration, counted: Counted) -> Self {
        Self {
            facts,
            latency: None,
            flush_latency: None,
            flushes_claimed: None,
            device_bytes_claimed: None,
            records: tally.records,
            payload_bytes: tally.bytes,
            in_flight_max: u64::MAX,
            elapsed,
            counted,
            waited_for_room: 0,
            trimmed: 0,
            ended_early: None,
            tally,
        }
    }

    /// As the harness knows it.
    ///
    /// # Errors
    /// When a histogram is none.
    pub(crate) fn outcome(self) -> Result<Outcome, String> {
        let histogram = |text: Option<&str>| match text {
            None => Ok(new_histogram()),
            Some(text) => {
                // The bounds of the others, so that they can be merged.
                let mut histogram = new_histogram();
                histogram.add(decode(text)?).map_err(|error| format!("histogram: {error}"))?;
                Ok::<_, String>(histogram)
            }
        };
        Ok(Outcome {
            latency: histogram(self.latency.as_deref())?,
            records: self.records,
            payload_bytes: self.payload_bytes,
            in_flight_max: self.in_flight_max,
            elapsed: self.elapsed,
            claims: Claims {
                flushes: self.flushes_claimed,
                device_bytes: self.device_bytes_claimed,
                flush_latency: histogram(self.flush_latency.as_deref())?,
                ..Claims::default()
            },
            counted: self.counted,
            waited_for_room: self.waited_for_room,
            trimmed: self.trimmed,
            ended_early: self.ended_early,
            facts: self.facts,
        })
    }
}

/// Has it done by a new process, which is killed when it takes too long.
///
/// # Errors
/// What went wrong there, in words.
pub(crate) fn carry_out(order: &Order, io: Io) -> Result<Done, String> {
    let above = order.dir.parent().ok_or("a directory above")?;
    // Beside the directory: what lies in it belongs to the engine.
    let answer = tempfile::Builder::new()
        .prefix("answer-")
        .tempfile_in(above)
        .map_err(|error| format!("answer: {error}"))?;
    let text = serde_json::to_string(order).map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    let mut child = Command::new(program)
        .arg("rival-work")
        .arg(text)
        .arg(answer.path())
        .env(DIR_VARIABLE, above)
        .env(QUIET_VARIABLE, "1")
        .env(IO_VARIABLE, io_name(io))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("start a process: {error}"))?;
    let begun = Instant::now();
    let mut limit = order.task.within();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if begun.elapsed() < limit => {}
            Ok(None) => break Err(format!("killed: not done within {limit:?}")),
            Err(error) => break Err(format!("wait: {error}")),
        }
        if interrupted() {
            limit = limit.min(begun.elapsed() + ENDS_WITHIN);
        }
        thread::sleep(LOOK_EVERY);
    };
    if status.is_err() {
        // Both only fail when the process has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
    let status = status?;
    let bytes = fs::read(answer.path()).map_err(|error| format!("answer: {error}"))?;
    if bytes.is_empty() {
        return Err(format!("it ended without an answer: {status}"));
    }
    serde_json::from_slice::<Result<Done, String>>(&bytes)
        .map_err(|error| format!("answer: {error}"))?
}

fn io_name(io: Io) -> &'static str {
    match io {
        Io::Auto => "auto",
        Io::Uring => "uring",
        Io::Blocking => "blocking",
    }
}

/// The other side: does what the order says, and writes the answer.
///
/// # Errors
/// When the order cannot be read, or the answer not be written.
pub(crate) fn work(order: &str, answer: &Path) -> Result<(), String> {
    let order: Order = serde_json::from_str(order).map_err(|error| format!("order: {error}"))?;
    let limit = order.task.within();
    // Should nobody be left to kill it.
    thread::spawn(move || {
        thread::sleep(limit + ENDS_WITHIN);
        std::process::exit(3);
    });
    let done = with_rival!(
        order.engine,
        R => rival_does::<R>(&order),
        driven => match &order.task {
            Task::Append { .. } => append(&Driven::open(&order.dir)?, &order, Ringlog::TRIM_ABOVE_BYTES),
            _ => Err("a caller-driven log only appends".to_owned()),
        }
    );
    let text = serde_json::to_vec(&done).map_err(|error| error.to_string())?;
    fs::write(answer, text).map_err(|error| format!("answer: {error}"))
}

fn rival_does<R: Rival>(order: &Order) -> Result<Done, String> {
    let facts = |mode| Facts::new(R::NAME, Some(R::VERSION), mode, Class::Media);
    match order.task {
        Task::Append { unsynced, .. } => {
            let purpose = if unsynced { Purpose::Unsynced } else { Purpose::Durable };
            let rival = R::open(&order.dir, purpose)?;
            let done = append(&rival, order, R::TRIM_ABOVE_BYTES)?;
            rival.close()?;
            Ok(done)
        }
        Task::Fill { bytes } => {
            let begun = Instant::now();
            let tally = fill::<R>(&order.dir, bytes)?;
            Ok(Done::once(facts("fill"), tally, begun.elapsed(), Counted::default()))
        }
        Task::Replay => {
            let device = Device::of(&order.dir);
            let (before, begun) = (device.look(), Instant::now());
            let tally = R::replay(&order.dir)?;
            let elapsed = begun.elapsed();
            Ok(Done::once(facts("replay"), tally, elapsed, device.look().since(&before)))
        }
        Task::Open => {
            let device = Device::of(&order.dir);
            let record = [appended_by_open()];
            let mut tally = Tally::default();
            tally.add(&record[0]);
            let (before, begun) = (device.look(), Instant::now());
            let rival = R::open(&order.dir, Purpose::Keep)?;
            let mut producer = rival.producer(0)?;
            append_once(&mut producer, &record)?;
            let elapsed = begun.elapsed();
            let counted = device.look().since(&before);
            drop(producer);
            rival.close()?;
            Ok(Done::once(facts("open"), tally, elapsed, counted))
        }
    }
}

/// The record that opening ends with.
pub(crate) fn appended_by_open() -> Vec<u8> {
    incompressible(FILL_RECORD_BYTES, 7)
}

fn append<C: Contender>(contender: &C, order: &Order, trim_above: u64) -> Result<Done, String> {
    let Task::Append {
        record_bytes,
        batch_records,
        producers,
        outstanding,
        warm_up,
        window,
        payload_bytes_max,
        ..
    } = order.task
    else {
        return Err("not appending".to_owned());
    };
    let load = Load {
        record_bytes,
        batch_records,
        producers,
        outstanding,
        timed: true,
        keep: Keep::TrimAbove(trim_above),
        warm_up,
        window,
        payload_bytes_max,
    };
    workload::run(contender, &order.dir, &load).map(Done::appended)
}

fn fill<R: Rival>(dir: &Path, bytes: u64) -> Result<Tally, String> {
    let rival = R::open(dir, Purpose::Fill)?;
    let mut producer = rival.producer(0)?;
    let mut records: Vec<Vec<u8>> =
        (0..FILL_RECORDS).map(|number| incompressible(FILL_RECORD_BYTES, number as u64)).collect();
    let mut tally = Tally::default();
    let mut number = 0;
    while tally.bytes < bytes {
        if interrupted() {
            return Err("interrupted".to_owned());
        }
        for record in &mut records {
            stamp(std::slice::from_mut(record), number);
            tally.add(record);
            number += 1;
        }
        append_once(&mut producer, &records)?;
    }
    drop(producer);
    rival.close()?;
    Ok(tally)
}

fn append_once<P: Producer>(producer: &mut P, records: &[Vec<u8>]) -> Result<(), String> {
    match producer.submit(records, ROOM_WITHIN) {
        Ok(ticket) => producer.wait(ticket),
        Err(Refusal::Failed(why)) => Err(why),
        Err(Refusal::DiskFull) => Err("the disk is full".to_owned()),
        Err(Refusal::NoRoom) => Err(format!("no room within {ROOM_WITHIN:?}")),
    }
}
