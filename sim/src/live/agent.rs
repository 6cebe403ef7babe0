//! The process that opens the real log, and is taken away under it.
//!
//! What it knows it says on stdout at once, a line each ([`super::journal`] reads them), and an
//! acknowledgement only when it has one. It waits for a word on stdin before it appends and before
//! it closes, so that whoever runs it can say what is to happen in which phase; when stdin ends,
//! it ends.

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringlog::{
    AppendError, DiskError, FullReason, IoKind, Log, LogError, Offset, OpenError, Options,
    ReadError, Receipt, ReceiptError, Stream, TrimError,
};

use super::plan::{Append, Life, LifePlan, RecordId, Request, recognize};

/// How long the lock of a process that was killed is waited for: its last writes may be on their
/// way.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long an append waits for room.
const ROOM_PATIENCE: Duration = Duration::from_secs(20);

/// What the agent is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory of the log.
    #[arg(long)]
    dir: PathBuf,
    /// The seed of the log.
    #[arg(long)]
    seed: u64,
    /// Which life this is.
    #[arg(long)]
    life: u32,
    /// Blocking calls instead of io_uring.
    #[arg(long)]
    blocking: bool,
}

impl Args {
    /// As words of a command line.
    pub fn words(dir: &Path, life: Life, blocking: bool) -> Vec<String> {
        let mut words = vec![
            "--dir".to_owned(),
            dir.display().to_string(),
            "--seed".to_owned(),
            life.seed.to_string(),
            "--life".to_owned(),
            life.number.to_string(),
        ];
        words.extend(blocking.then(|| "--blocking".to_owned()));
        words
    }
}

/// Says a line. When nobody listens any more there is nobody to do anything for.
fn say(line: std::fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    let said = stdout.write_fmt(format_args!("{line}\n")).and_then(|()| stdout.flush());
    if said.is_err() {
        std::process::exit(4);
    }
}

macro_rules! say {
    ($($words:tt)*) => { say(format_args!($($words)*)) };
}

/// Runs the agent.
pub fn run(args: &Args) -> ExitCode {
    let life = Life { seed: args.seed, number: args.life };
    let plan = LifePlan::of(life);
    let words = listen();
    say!("opening");
    let io = if args.blocking { IoKind::Blocking } else { IoKind::Auto };
    let log = match open(&args.dir, &plan.options(io)) {
        Ok(log) => log,
        Err(error) => {
            say!("refused {} {}", open_kind(&error), one_line(&error));
            return ExitCode::SUCCESS;
        }
    };
    tell_recovery(&log);
    tell_content(&log, args.seed);
    say!("ready");
    match words.recv().as_deref() {
        Ok("append") => append_all(&log, &plan),
        Ok("close") => {}
        _ => std::process::exit(0),
    }
    say!("closing");
    if words.recv().as_deref() != Ok("close") {
        std::process::exit(0);
    }
    match log.close() {
        Ok(()) => say!("closed"),
        Err(error) => say!("unclosed {} {}", log_kind(&error), one_line(&error)),
    }
    ExitCode::SUCCESS
}

/// Words that come on stdin. The process ends with them: whoever started it has gone.
fn listen() -> Receiver<String> {
    let (sender, words) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        std::process::exit(3);
    });
    words
}

fn open(dir: &Path, options: &Options) -> Result<Log, OpenError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Log::open(dir, options.clone()) {
            Err(OpenError::Locked(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn tell_recovery(log: &Log) {
    let stats = log.stats();
    say!("io {} {} {}", stats.io, stats.commit_primitive, stats.direct);
    for (shard, stats) in log.recovery_report().shards.iter().zip(&stats.shards) {
        say!(
            "shard {} {} {} {} {}",
            shard.shard,
            shard.clean,
            shard.bytes_cut,
            shard.records_rewritten,
            stats.segments
        );
    }
}

fn tell_content(log: &Log, seed: u64) {
    for info in log.streams() {
        let Ok(stream) = log.existing_stream(&info.name) else {
            say!("unread {} lost not there although it is listed", info.name);
            continue;
        };
        // Retention may be at work while the log is read: then once more, from where it begins now.
        loop {
            say!("stream {} {} {}", info.name, info.shard, info.next_offset.0);
            if tell_stream(&stream, seed) {
                break;
            }
        }
    }
}

/// Reads a stream to its end; false when its beginning was trimmed away meanwhile.
fn tell_stream(stream: &Stream, seed: u64) -> bool {
    let name = stream.name();
    let mut reader = match stream.read(..) {
        Ok(reader) => reader,
        Err(ReadError::Trimmed { .. }) => return false,
        Err(error) => {
            say!("unread {name} {} {}", read_kind(&error), one_line(&error));
            return true;
        }
    };
    while let Some(record) = reader.next_ref() {
        match record {
            Ok(record) => match recognize(seed, record.payload()) {
                Ok(RecordId { append, index }) => say!(
                    "r {name} {} {} {} {} {index}",
                    record.offset(),
                    append.life,
                    append.producer,
                    append.append
                ),
                Err(what) => say!("strange {name} {} {what}", record.offset()),
            },
            Err(ReadError::Trimmed { .. }) => return false,
            Err(error) => {
                say!("unread {name} {} {}", read_kind(&error), one_line(&error));
            }
        }
    }
    true
}

fn append_all(log: &Log, plan: &LifePlan) {
    std::thread::scope(|scope| {
        for producer in 0..plan.producers {
            scope.spawn(move || produce(log, plan, producer));
        }
    });
}

fn produce(log: &Log, plan: &LifePlan, producer: u32) {
    let stream = match log.stream(&plan.stream_of(producer)) {
        Ok(stream) => stream,
        Err(error) => return say!("failed {producer} 0 stream {}", one_line(&error)),
    };
    let mut pending = VecDeque::new();
    for number in 0..plan.appends {
        say!("i {producer} {}", number + 1);
        match append(&stream, plan, producer, number) {
            Ok(receipt) => pending.push_back((number, receipt)),
            Err(error) => {
                say!("failed {producer} {number} {} {}", append_kind(&error), one_line(&error));
                break;
            }
        }
        while pending.front().is_some_and(|(_, receipt)| receipt.is_acknowledged())
            || pending.len() >= plan.window
        {
            if !tell_next(&mut pending, producer) {
                break;
            }
        }
        if !ask(log, &stream, plan.request(producer, number), producer, number) {
            break;
        }
    }
    while tell_next(&mut pending, producer) {}
}

fn append(
    stream: &Stream,
    plan: &LifePlan,
    producer: u32,
    number: u64,
) -> Result<Receipt, AppendError> {
    let Append { durability, records } = plan.append(producer, number);
    let append = plan.append_id(producer, number);
    let payloads: Vec<Vec<u8>> =
        (0..records).map(|index| plan.payload(RecordId { append, index })).collect();
    match &payloads[..] {
        [one] => stream.append_within(one, durability, ROOM_PATIENCE),
        batch => stream.append_batch_within(batch, durability, ROOM_PATIENCE),
    }
}

/// Waits for the oldest receipt and tells what came of it; false when there is none.
fn tell_next(pending: &mut VecDeque<(u64, Receipt)>, producer: u32) -> bool {
    let Some((number, receipt)) = pending.pop_front() else { return false };
    match receipt.wait() {
        Ok(position) => say!("a {producer} {number} {} {}", position.offset, position.lsn.0),
        Err(error) => {
            say!("failed {producer} {number} {} {}", receipt_kind(&error), one_line(&error));
        }
    }
    true
}

/// Asks the log for something; false when it has failed.
fn ask(log: &Log, stream: &Stream, request: Request, producer: u32, number: u64) -> bool {
    match request {
        Request::None => true,
        Request::Flush => {
            say!("flush {producer}");
            match log.flush() {
                Ok(()) => {
                    say!("flushed {producer}");
                    true
                }
                Err(error) => {
                    say!("failed {producer} {number} {} {}", log_kind(&error), one_line(&error));
                    false
                }
            }
        }
        Request::Rotate => match log.rotate() {
            Ok(()) => true,
            Err(error) => {
                say!("failed {producer} {number} {} {}", log_kind(&error), one_line(&error));
                false
            }
        },
        Request::Trim(percent) => {
            let next = stream.next_offset().0;
            let before = next * percent / 100;
            say!("trim {} {before}", stream.name());
            match stream.trim(Offset(before)) {
                Ok(first) => {
                    say!("trimmed {} {first}", stream.name());
                    true
                }
                Err(error) => {
                    say!("failed {producer} {number} {} {}", trim_kind(&error), one_line(&error));
                    false
                }
            }
        }
    }
}

fn one_line(error: &impl std::fmt::Display) -> String {
    error.to_string().replace('\n', " ")
}

/// Whether it is a failed write or flush that the log tells of.
fn disk_kind(_: &DiskError) -> &'static str {
    "poisoned"
}

fn open_kind(error: &OpenError) -> &'static str {
    match error {
        OpenError::Corrupt(_) => "corrupt",
        OpenError::Disk(_) => "disk",
        OpenError::Locked(_) => "locked",
        OpenError::NotALog { .. } => "not-a-log",
        _ => "other",
    }
}

fn read_kind(error: &ReadError) -> &'static str {
    match error {
        ReadError::Corrupt { .. } => "corrupt",
        ReadError::Disk(_) => "disk",
        ReadError::Lost { .. } => "lost",
        _ => "other",
    }
}

fn append_kind(error: &AppendError) -> &'static str {
    match error {
        AppendError::Poisoned(error) => disk_kind(error),
        AppendError::Full { reason: FullReason::Disk | FullReason::Behind } => "disk-full",
        AppendError::Full { reason: FullReason::Memory } => "memory-full",
        _ => "other",
    }
}

fn receipt_kind(error: &ReceiptError) -> &'static str {
    match error {
        ReceiptError::Poisoned(error) => disk_kind(error),
        ReceiptError::DiskFull => "disk-full",
        _ => "other",
    }
}

fn log_kind(error: &LogError) -> &'static str {
    match error {
        LogError::Poisoned(error) => disk_kind(error),
        LogError::DiskFull => "disk-full",
        _ => "other",
    }
}

fn trim_kind(error: &TrimError) -> &'static str {
    match error {
        TrimError::Append(error) => append_kind(error),
        TrimError::Log(error) => log_kind(error),
        _ => "other",
    }
}
