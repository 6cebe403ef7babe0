//! One life of the log: the process is started, listened to, looked at, and ended.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::clients::Args;
use super::ledger::LastAck;
use super::{LIMIT, Report, Settings};
use crate::live::child::{Programs, Stop, Trouble, failed, wait};

/// What is measured right after the start says nothing: memory is only being taken.
const SETTLE: Duration = Duration::from_secs(3);

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// SIGKILL.
    Kill,
    /// A clean close.
    Close,
}

/// What the process has said.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last acknowledgement of each client.
    pub acks: Vec<Option<LastAck>>,
    /// All of them.
    pub acknowledged: u64,
    /// The slowest append of each round.
    pub slowest_ms: Vec<f64>,
    /// What it said went wrong, and what makes no sense.
    pub wrong: Vec<String>,
    closed: bool,
}

impl Told {
    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let good = match word {
            "a" => self.ack(rest).is_some(),
            "round" => rest.parse().is_ok_and(|us: f64| {
                self.slowest_ms.push(us / 1000.0);
                true
            }),
            "open" => true,
            "closed" => {
                self.closed = true;
                true
            }
            _ => false,
        };
        if !good && self.wrong.len() < 20 {
            self.wrong.push(line.to_owned());
        }
    }

    /// Notes an acknowledgement; `None` when it is not the client's next.
    fn ack(&mut self, rest: &str) -> Option<()> {
        let mut words = rest.split(' ');
        let client: usize = words.next()?.parse().ok()?;
        let number: u64 = words.next()?.parse().ok()?;
        let offset: u64 = words.next()?.parse().ok()?;
        let last = self.acks.get_mut(client)?;
        let follows = match *last {
            Some((before, place)) => number == before + 1 && offset > place,
            None => number == 0,
        };
        *last = Some((number, offset));
        self.acknowledged += 1;
        follows.then_some(())
    }
}

pub(super) struct Life<'a> {
    settings: &'a Settings,
    dir: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    told: Arc<Mutex<Told>>,
    listener: Option<JoinHandle<()>>,
    begun: Instant,
}

impl<'a> Life<'a> {
    pub(super) fn start(
        settings: &'a Settings,
        programs: &Programs,
        dir: &Path,
        life: u32,
        blocking: bool,
    ) -> Result<Self, Trouble> {
        let args = Args {
            dir: dir.to_owned(),
            seed: settings.seed,
            life,
            clients: settings.clients,
            rate: settings.rate,
            hang: settings.hang.as_secs_f64(),
            blocking,
        };
        let mut command = Command::new(&programs.agent);
        command.arg("soak-clients").args(args.words());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed("the clients", &error))?;
        let acks = vec![None; settings.clients as usize];
        let told = Arc::new(Mutex::new(Told { acks, ..Told::default() }));
        let listener = child.stdout.take().map(|stdout| {
            let told = Arc::clone(&told);
            std::thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                // A line that the kill has cut short is not said.
                while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0)
                    && line.ends_with('\n')
                {
                    lock(&told).line(line.trim_end());
                    line.clear();
                }
            })
        });
        let stdin = child.stdin.take();
        let dir = dir.to_owned();
        Ok(Self { settings, dir, child, stdin, told, listener, begun: Instant::now() })
    }

    /// Looks at it until then, and ends it.
    pub(super) fn lead(
        &mut self,
        until: Instant,
        end: End,
        stop: &Stop,
        report: &mut Report,
    ) -> Result<Told, Trouble> {
        let settle = SETTLE.min(self.settings.length / 40);
        let mut look = self.begun + settle;
        let mut progress = (0, Instant::now());
        let started = report.elapsed_now();
        while Instant::now() < until {
            stop.check()?;
            std::thread::sleep(Duration::from_millis(20));
            let (acknowledged, wrong) = {
                let told = lock(&self.told);
                (told.acknowledged, !told.wrong.is_empty())
            };
            if acknowledged > progress.0 {
                progress = (acknowledged, Instant::now());
            }
            if progress.1.elapsed() > self.settings.hang + SETTLE {
                return Err(Trouble::Hangs(format!("no acknowledgement behind {acknowledged}")));
            }
            if wrong || !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            if Instant::now() >= look {
                // Also a short run gets enough of them.
                look = Instant::now() + self.settings.every.min(self.settings.length / 90);
                self.look(report);
            }
        }
        if end == End::Close {
            report.long_life = Some((started + settle.as_secs_f64(), report.elapsed_now()));
        }
        self.end(end, report)
    }

    fn look(&self, report: &mut Report) {
        let process = format!("/proc/{}", self.child.id());
        let now = report.elapsed_now();
        let count = |what: &str| fs::read_dir(format!("{process}/{what}")).map(Iterator::count);
        let status = fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let kibibytes = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        });
        let samples = &mut report.samples;
        if let (Some(kibibytes), Ok(descriptors), Ok(threads)) =
            (kibibytes, count("fd"), count("task"))
        {
            samples.memory.add(now, kibibytes * 1024.0);
            samples.descriptors.add(now, descriptors as f64);
            samples.threads.add(now, threads as f64);
        }
        samples.disk.add(now, bytes_below(&self.dir) as f64);
    }

    fn end(&mut self, end: End, report: &mut Report) -> Result<Told, Trouble> {
        let ended = !matches!(self.child.try_wait(), Ok(None));
        match end {
            End::Kill => {
                let _ = self.child.kill(); // it may have ended
                report.kills += 1;
            }
            End::Close => {
                if let Some(mut stdin) = self.stdin.take() {
                    let _ = writeln!(stdin, "close"); // it may have ended
                }
                report.closed += 1;
            }
        }
        let status = wait(&mut self.child, LIMIT, "the end of the clients")?;
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let mut told = std::mem::take(&mut *lock(&self.told));
        if ended {
            told.wrong.push(format!("the clients have ended by themselves: {status}"));
        } else if end == End::Close && !told.closed {
            told.wrong.push(format!("the log was not closed: {status}"));
        }
        Ok(told)
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // A process that hangs in the kernel is not waited for.
        let _ = wait(&mut self.child, Duration::from_secs(5), "the end of the clients");
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the files below a directory take of the disk. What is removed meanwhile takes nothing.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
