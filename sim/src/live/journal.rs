//! What an agent has said: the only evidence of what was acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::plan::{AppendId, Life, LifePlan, RecordId};

/// An acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Of which append.
    pub id: AppendId,
    /// The offset of its first record.
    pub offset: u64,
    /// Where it lies in its shard, where that was told.
    pub lsn: Option<u64>,
    /// Whether a flush of the whole log has covered it since.
    pub flushed: bool,
}

/// A stream as a life found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenStream {
    /// Its shard.
    pub shard: u16,
    /// The offset that its next record gets.
    pub next: u64,
    /// Its records by offset.
    pub records: Vec<(u64, RecordId)>,
}

/// How far a life came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The process has said nothing yet.
    #[default]
    Started,
    /// It opens the log: recovery.
    Opening,
    /// It reads everything.
    Reading,
    /// It has read everything.
    Ready,
    /// It appends.
    Appending,
    /// It closes the log.
    Closing,
    /// The log was closed cleanly.
    Closed,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "start",
            Self::Opening => "open",
            Self::Reading => "reading",
            Self::Ready => "ready",
            Self::Appending => "appending",
            Self::Closing => "close",
            Self::Closed => "closed",
        })
    }
}

/// The journal of one life.
#[derive(Debug)]
pub struct Journal {
    /// Which life.
    pub life: Life,
    /// How far it came.
    pub stage: Stage,
    /// `io_uring` or blocking calls, as the log said.
    io: Option<String>,
    /// Whether blocking calls were asked for.
    blocking: bool,
    /// What it found; complete from [`Stage::Ready`] on.
    pub seen: BTreeMap<String, SeenStream>,
    /// Segments of each shard, when it was opened.
    pub segments: Vec<u64>,
    /// Bytes that recovery cut, records that it wrote again.
    pub cut: u64,
    /// Records that recovery wrote again.
    pub rewritten: u64,
    /// Acknowledgements, by stream, in the order in which they came.
    pub acks: BTreeMap<String, Vec<Ack>>,
    /// How many appends each producer had begun, at most.
    pub begun: HashMap<u32, u64>,
    /// Trims that were asked for: stream and offset …
    pub trims: Vec<(String, u64)>,
    /// … and those that were answered.
    pub trimmed: Vec<(String, u64)>,
    /// Failures of appends and requests: the kind and the words.
    pub failures: Vec<(String, String)>,
    /// Why the log was not opened.
    pub refused: Option<(String, String)>,
    /// What could not be read: kind and words.
    pub unread: Vec<(String, String)>,
    /// Records that nobody ever made.
    pub strange: Vec<String>,
    /// Lines that make no sense: a mistake of this suite.
    pub nonsense: Vec<String>,
    /// How many acknowledgements had come when a flush was asked for, by who asked.
    flush_asked: HashMap<u32, BTreeMap<String, usize>>,
    plan: LifePlan,
    /// All acknowledgements.
    pub acknowledged: u64,
}

impl Journal {
    /// An empty one.
    pub fn new(life: Life, blocking: bool) -> Self {
        Self {
            life,
            stage: Stage::Started,
            io: None,
            blocking,
            seen: BTreeMap::new(),
            segments: Vec::new(),
            cut: 0,
            rewritten: 0,
            acks: BTreeMap::new(),
            begun: HashMap::new(),
            trims: Vec::new(),
            trimmed: Vec::new(),
            failures: Vec::new(),
            refused: None,
            unread: Vec::new(),
            strange: Vec::new(),
            nonsense: Vec::new(),
            flush_asked: HashMap::new(),
            plan: LifePlan::of(life),
            acknowledged: 0,
        }
    }

    /// How the log reaches the disk: as it said, else as it was asked for.
    pub fn io(&self) -> &str {
        let asked = if self.blocking { "blocking" } else { "io_uring" };
        self.io.as_deref().unwrap_or(asked)
    }

    /// Whether the agent told of a write or flush that failed.
    pub fn poisoned(&self) -> bool {
        self.failures.iter().any(|(kind, _)| kind == "poisoned")
    }

    /// Takes one line.
    pub fn line(&mut self, line: &str) {
        if self.take(line).is_none() {
            self.nonsense.push(line.to_owned());
        }
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "opening" => self.stage = Stage::Opening,
            "io" => {
                self.stage = Stage::Reading;
                self.io = rest.split(' ').next().map(str::to_owned);
            }
            "shard" => {
                let mut words = rest.split(' ').skip(2);
                self.cut += words.next()?.parse::<u64>().ok()?;
                self.rewritten += words.next()?.parse::<u64>().ok()?;
                self.segments.push(words.next()?.parse().ok()?);
            }
            "stream" => {
                let mut words = rest.split(' ');
                let name = words.next()?.to_owned();
                let (shard, next) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                self.seen.insert(name, SeenStream { shard, next, records: Vec::new() });
            }
            "r" => {
                let (name, numbers) = rest.split_once(' ')?;
                let [offset, life, producer, append, index] = numbers_of(numbers)?;
                let append = AppendId { life: life as u32, producer: producer as u32, append };
                let record = RecordId { append, index: index as u32 };
                self.seen.get_mut(name)?.records.push((offset, record));
            }
            "strange" => self.strange.push(rest.to_owned()),
            "unread" => {
                let mut words = rest.splitn(3, ' ');
                let name = words.next()?;
                let kind = words.next()?.to_owned();
                self.unread.push((kind, format!("{name}: {}", words.next().unwrap_or(""))));
            }
            "ready" => self.stage = Stage::Ready,
            "refused" => self.refused = Some(split_kind(rest)),
            "i" => {
                self.stage = Stage::Appending;
                let [producer, begun] = numbers_of(rest)?;
                self.begun.insert(producer as u32, begun);
            }
            "a" => {
                let [producer, append, offset, lsn] = numbers_of(rest)?;
                let id = self.plan.append_id(producer as u32, append);
                let stream = self.plan.stream_of(producer as u32);
                let ack = Ack { id, offset, lsn: Some(lsn), flushed: false };
                self.acks.entry(stream).or_default().push(ack);
                self.acknowledged += 1;
            }
            "failed" => {
                let mut words = rest.splitn(3, ' ').skip(2);
                self.failures.push(split_kind(words.next()?));
            }
            "flush" => {
                let so_far = self.acks.iter().map(|(name, acks)| (name.clone(), acks.len()));
                let so_far = so_far.collect();
                self.flush_asked.insert(rest.parse().ok()?, so_far);
            }
            "flushed" => {
                let covered = self.flush_asked.remove(&rest.parse().ok()?)?;
                for (name, count) in covered {
                    let acks = self.acks.get_mut(&name)?;
                    acks[..count].iter_mut().for_each(|ack| ack.flushed = true);
                }
            }
            "trim" | "trimmed" => {
                let (name, offset) = rest.split_once(' ')?;
                let trim = (name.to_owned(), offset.parse().ok()?);
                if word == "trim" { self.trims.push(trim) } else { self.trimmed.push(trim) }
            }
            "closing" => self.stage = Stage::Closing,
            "closed" => {
                self.stage = Stage::Closed;
                self.acks.values_mut().flatten().for_each(|ack| ack.flushed = true);
            }
            "unclosed" => self.failures.push(split_kind(rest)),
            _ => return None,
        }
        Some(())
    }
}

fn split_kind(text: &str) -> (String, String) {
    let (kind, words) = text.split_once(' ').unwrap_or((text, ""));
    (kind.to_owned(), words.to_owned())
}

fn numbers_of<const N: usize>(text: &str) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    let mut words = text.split(' ');
    for number in &mut numbers {
        *number = words.next()?.parse().ok()?;
    }
    words.next().is_none().then_some(numbers)
}
