//! The process with the log: thousands of clients, each with one append outstanding, on a few
//! threads; one more thread reads.
//!
//! Each thread lets all its clients append, waits for all of them, and then until the next round is
//! due, so that the load is steady. On stdout: `a CLIENT NUMBER OFFSET` for each acknowledgement,
//! `round MICROSECONDS` for the slowest of a round, `failed WORDS`. It ends when stdin says `close`,
//! or ends.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringlog::{Durability, Format, IoKind, Log, Options, ReadError, Retention, Stream};

use super::ledger::Id;

/// How many streams the clients share.
pub const STREAMS: u32 = 16;
const THREADS: u32 = 8;
const SHARDS: u16 = 2;

/// The stream of a client.
pub fn stream_of(client: u32) -> u32 {
    client % STREAMS
}

/// Its name.
pub fn stream_name(stream: u32) -> String {
    format!("s-{stream}")
}

/// Small segments, of which few are kept: each is rotated, deleted and used again often.
pub fn options(blocking: bool) -> Options {
    Options {
        format: Format { segment_bytes: Some(4 << 20), shards: Some(SHARDS) },
        retention: Retention { max_segments: Some(4), ..Retention::default() },
        io: if blocking { IoKind::Blocking } else { IoKind::Auto },
        pin: false,
        ..Options::default()
    }
}

/// What the process is started with.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory of the log.
    #[arg(long)]
    pub dir: PathBuf,
    /// The seed of the records.
    #[arg(long)]
    pub seed: u64,
    /// Which life this is.
    #[arg(long)]
    pub life: u32,
    /// How many clients.
    #[arg(long)]
    pub clients: u32,
    /// How many appends a second, of all clients together.
    #[arg(long)]
    pub rate: u64,
    /// An append that takes so many seconds hangs.
    #[arg(long)]
    pub hang: f64,
    /// Blocking calls instead of io_uring.
    #[arg(long)]
    pub blocking: bool,
}

impl Args {
    /// As words of a command line.
    pub fn words(&self) -> Vec<String> {
        let named = [
            ("--dir", self.dir.display().to_string()),
            ("--seed", self.seed.to_string()),
            ("--life", self.life.to_string()),
            ("--clients", self.clients.to_string()),
            ("--rate", self.rate.to_string()),
            ("--hang", self.hang.to_string()),
        ];
        let words = named.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        words.chain(self.blocking.then(|| "--blocking".to_owned())).collect()
    }
}

/// Says lines. When nobody listens any more there is nobody to append for.
fn say(lines: &str) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(4);
    }
}

/// Runs it.
pub fn run(args: &Args) -> ExitCode {
    let log = match Log::open(&args.dir, options(args.blocking)) {
        Ok(log) => log,
        Err(error) => {
            say(&format!("failed open: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    say("open\n");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, stop) = (&log, &stop);
            scope.spawn(move || {
                if let Err(words) = append(log, args, thread, stop) {
                    say(&format!("failed {}\n", words.replace('\n', " ")));
                    stop.store(true, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| read(&log, &stop));
        let mut word = String::new();
        if io::stdin().lock().read_line(&mut word).is_err() || word.trim() != "close" {
            std::process::exit(3); // whoever started it has gone
        }
        stop.store(true, Ordering::Relaxed);
    });
    match log.close() {
        Ok(()) => say("closed\n"),
        Err(error) => say(&format!("failed close: {error}\n")),
    }
    ExitCode::SUCCESS
}

/// Lets the clients of one thread append, round by round.
fn append(log: &Log, args: &Args, thread: u32, stop: &AtomicBool) -> Result<(), String> {
    let streams: Vec<Stream> = (0..STREAMS)
        .map(|number| log.stream(&stream_name(number)).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let clients: Vec<u32> = (thread..args.clients).step_by(THREADS as usize).collect();
    let round = Duration::from_secs_f64(f64::from(args.clients) / args.rate as f64);
    let patience = Duration::from_secs_f64(args.hang);
    let mut due = Instant::now();
    let mut receipts = Vec::with_capacity(clients.len());
    let mut lines = String::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        for client in &clients {
            let payload = Id { life: args.life, client: *client, number }.payload(args.seed);
            let begun = Instant::now();
            let stream = &streams[stream_of(*client) as usize];
            let receipt = stream.append_within(&payload, Durability::Synced, patience);
            let receipt = receipt.map_err(|error| format!("append: {error}"))?;
            receipts.push((*client, begun, receipt));
        }
        let mut slowest = Duration::ZERO;
        for (client, begun, receipt) in receipts.drain(..) {
            let position = receipt.wait_timeout(patience);
            let position = position.map_err(|error| format!("receipt: {error}"))?;
            slowest = slowest.max(begun.elapsed());
            let _ = writeln!(lines, "a {client} {number} {}", position.offset);
            if lines.len() > 2000 {
                say(&lines);
                lines.clear();
            }
        }
        let _ = writeln!(lines, "round {}", slowest.as_micros());
        say(&lines);
        lines.clear();
        // A round that was late does not make the next ones come all at once.
        due = (due + round).max(Instant::now());
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
    Ok(())
}

/// Reads one stream after the other, as long as the others append.
fn read(log: &Log, stop: &AtomicBool) {
    for number in (0..STREAMS).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(Duration::from_millis(250));
        let Ok(stream) = log.existing_stream(&stream_name(number)) else { continue };
        let outcome = stream.read(..).and_then(|mut reader| {
            while let Some(record) = reader.next_ref() {
                record?;
            }
            Ok(())
        });
        match outcome {
            // Retention goes on meanwhile.
            Ok(()) | Err(ReadError::Trimmed { .. }) => {}
            Err(error) => say(&format!("failed read: {error}\n")),
        }
    }
}
