//! What was acknowledged, and whether it is there.
//!
//! A client's appends are numbered from 0 in each life, and it has one outstanding at a time. So its
//! last acknowledgement stands for all before it: whoever reads its records without a hole up to
//! there has lost none. Marks of former lives are kept until retention has taken their segments.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use ringlog::{Log, OpenError, ReadError, Stream};

use super::clients::{self, STREAMS};
use crate::Rng;

/// How long the lock of a process that was killed is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// How often a stream is read anew because retention took its beginning meanwhile.
const READS_MAX: usize = 20;
/// No more than so many findings of one recovery are told.
const WORDS_MAX: usize = 12;

/// One append: of one client in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// The life.
    pub life: u32,
    /// The client.
    pub client: u32,
    /// Its number in that life.
    pub number: u64,
}

impl Id {
    /// The bytes of the record: who it is, then noise that the seed decides.
    pub fn payload(self, seed: u64) -> Vec<u8> {
        let mix = (u64::from(self.life) << 48) ^ (u64::from(self.client) << 24) ^ self.number;
        let mut rng = Rng::new(seed ^ mix.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let bytes = 16 + rng.below(400) as usize;
        let mut payload = Vec::with_capacity(bytes + 8);
        payload.extend(self.life.to_le_bytes());
        payload.extend(self.client.to_le_bytes());
        payload.extend(self.number.to_le_bytes());
        while payload.len() < bytes {
            payload.extend(rng.next_u64().to_le_bytes());
        }
        payload
    }

    /// Whose record this is; `None` when nobody ever made it.
    pub fn of(seed: u64, payload: &[u8]) -> Option<Self> {
        let id = Self {
            life: u32::from_le_bytes(payload.get(0..4)?.try_into().ok()?),
            client: u32::from_le_bytes(payload.get(4..8)?.try_into().ok()?),
            number: u64::from_le_bytes(payload.get(8..16)?.try_into().ok()?),
        };
        (id.payload(seed) == payload).then_some(id)
    }
}

/// A client's last acknowledgement in a life: which append, at which offset of its stream.
pub type LastAck = (u64, u64);

/// See the module's text.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    clients: u32,
    life: u32,
    /// By stream and offset.
    marks: HashMap<u32, BTreeMap<u64, Id>>,
    /// Of the life that has just ended.
    acks: Vec<Option<LastAck>>,
}

/// What a recovery left.
#[derive(Debug, Default)]
pub struct Found {
    /// Records that were read.
    pub records: u64,
    /// What was wrong, in words.
    pub wrong: Vec<String>,
}

impl Found {
    fn wrong(&mut self, words: String) {
        if self.wrong.len() < WORDS_MAX {
            self.wrong.push(words);
        }
    }
}

impl Ledger {
    /// Of a new log.
    pub fn new(seed: u64, clients: u32) -> Self {
        Self { seed, clients, life: 0, marks: HashMap::new(), acks: Vec::new() }
    }

    /// A life begins.
    pub fn begin(&mut self, life: u32) {
        self.life = life;
        self.acks.clear();
    }

    /// It has ended; by client, what it acknowledged last.
    pub fn ended(&mut self, acks: &[Option<LastAck>]) {
        self.acks = acks.to_vec();
        for (client, ack) in (0..).zip(acks) {
            if let Some((number, offset)) = *ack {
                let id = Id { life: self.life, client, number };
                self.marks.entry(clients::stream_of(client)).or_default().insert(offset, id);
            }
        }
    }

    /// Judges a stream: the payloads of its records by offset, and the offset that comes next.
    pub fn judge(&mut self, stream: u32, records: &[(u64, Option<Id>)], next: u64) -> Found {
        let mut found = Found { records: records.len() as u64, ..Found::default() };
        let first = records.first().map_or(next, |record| record.0);
        let mut last_of: HashMap<u32, (u64, Id)> = HashMap::new();
        let marks = self.marks.entry(stream).or_default();
        // What was acknowledged last is in the newest segments; retention has not come to it.
        if let Some((newest, id)) = marks.last_key_value().filter(|mark| *mark.0 < first) {
            found.wrong(format!("stream {stream}: LOST {id:?} at {newest}, it begins at {first}"));
        }
        marks.retain(|offset, _| *offset >= first);
        for (place, (offset, id)) in (first..).zip(records) {
            if place != *offset {
                found.wrong(format!("stream {stream}: {offset} where {place} is expected"));
                return found;
            }
            let Some(id) = id else {
                found.wrong(format!("stream {stream}: nobody made the record at {offset}"));
                continue;
            };
            if clients::stream_of(id.client) != stream || id.client >= self.clients {
                found.wrong(format!("stream {stream}: {id:?} is none of its records"));
            }
            if let Some((_, before)) = last_of.insert(id.client, (*offset, *id)) {
                let follows = match id.life == before.life {
                    true => id.number == before.number + 1,
                    false => id.life > before.life && id.number == 0,
                };
                if !follows {
                    found.wrong(format!("stream {stream}: {id:?} comes behind {before:?}"));
                }
            }
            if let Some(mark) = marks.get(offset).filter(|mark| *mark != id) {
                found.wrong(format!("stream {stream}: {id:?} at {offset}, which was {mark:?}"));
            }
        }
        if first + records.len() as u64 != next {
            found.wrong(format!("stream {stream}: it ends before {next}"));
        }
        for (offset, id) in marks.range(first + records.len() as u64..) {
            found.wrong(format!("stream {stream}: LOST {id:?}, acknowledged at {offset}"));
        }
        for (client, (offset, id)) in last_of {
            // One append may have been in flight.
            let acknowledged = self.acks.get(client as usize).copied().flatten();
            let most = acknowledged.map_or(0, |(number, _)| number + 1);
            if id.life > self.life || (id.life == self.life && id.number > most) {
                found.wrong(format!("stream {stream}: {id:?} was never appended"));
            }
            // What one recovery has shown stays.
            marks.insert(offset, id);
        }
        found
    }
}

/// Opens the log, which is a recovery, reads everything, and closes it.
pub fn judge_log(ledger: &mut Ledger, dir: &Path) -> Found {
    let mut all = Found::default();
    let log = match open(dir) {
        Ok(log) => log,
        Err(error) => {
            all.wrong(format!("it is not opened: {error}"));
            return all;
        }
    };
    for number in 0..STREAMS {
        let stream = match log.existing_stream(&clients::stream_name(number)) {
            Ok(stream) => stream,
            Err(_) if ledger.marks.get(&number).is_none_or(BTreeMap::is_empty) => continue,
            Err(error) => {
                all.wrong(format!("stream {number}: {error}"));
                continue;
            }
        };
        match read(&stream, ledger.seed) {
            Ok(records) => {
                let found = ledger.judge(number, &records, stream.next_offset().0);
                all.records += found.records;
                found.wrong.into_iter().for_each(|words| all.wrong(words));
            }
            Err(error) => all.wrong(format!("stream {number} is not read: {error}")),
        }
    }
    if let Err(error) = log.close() {
        all.wrong(format!("it is not closed: {error}"));
    }
    all
}

fn open(dir: &Path) -> Result<Log, OpenError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Log::open(dir, clients::options(false)) {
            Err(OpenError::Locked(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// All records of a stream. Anew where retention takes its beginning meanwhile.
fn read(stream: &Stream, seed: u64) -> Result<Vec<(u64, Option<Id>)>, ReadError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let read = || {
            let mut reader = stream.read(..)?;
            let mut records = Vec::new();
            while let Some(record) = reader.next_ref() {
                let record = record?;
                records.push((record.offset().0, Id::of(seed, record.payload())));
            }
            Ok(records)
        };
        match read() {
            Err(ReadError::Trimmed { .. }) if tries < READS_MAX => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(life: u32, client: u32, number: u64) -> Id {
        Id { life, client, number }
    }

    /// Two clients of stream 0, of which the first has three acknowledgements, the other one.
    fn ledger() -> (Ledger, Vec<(u64, Option<Id>)>) {
        let mut ledger = Ledger::new(7, 2 * STREAMS);
        ledger.begin(1);
        let mut acks = vec![None; 2 * STREAMS as usize];
        acks[0] = Some((2, 3));
        acks[STREAMS as usize] = Some((0, 1));
        ledger.ended(&acks);
        let records = [id(1, 0, 0), id(1, STREAMS, 0), id(1, 0, 1), id(1, 0, 2), id(1, STREAMS, 1)];
        (ledger, (0..).zip(records.map(Some)).collect())
    }

    #[test]
    fn what_is_there_is_good_with_and_without_what_was_in_flight() {
        for keep in [5, 4] {
            let (mut ledger, mut records) = ledger();
            records.truncate(keep);
            let found = ledger.judge(0, &records, keep as u64);
            assert_eq!(found.wrong, Vec::<String>::new());
            // And after retention has taken the first two.
            let found = ledger.judge(0, &records[2..], keep as u64);
            assert_eq!(found.wrong, Vec::<String>::new());
        }
    }

    #[test]
    fn every_loss_and_change_is_seen() {
        type Change = fn(&mut Vec<(u64, Option<Id>)>);
        let changes: [(&str, Change); 7] = [
            ("LOST", |records| records.truncate(3)),
            ("LOST", Vec::clear),
            ("expected", |records| {
                records.remove(1);
            }),
            ("comes behind", |records| records[2].1 = Some(id(1, 0, 2))),
            ("which was", |records| records[1].1 = Some(id(1, 0, 1))),
            ("nobody made", |records| records[2].1 = None),
            ("never appended", |records| records.push((5, Some(id(1, STREAMS, 2))))),
        ];
        for (word, change) in changes {
            let (mut ledger, mut records) = ledger();
            change(&mut records);
            let next = records.last().map_or(0, |record| record.0 + 1);
            let found = ledger.judge(0, &records, next);
            let said = found.wrong.iter().any(|words| words.contains(word));
            assert!(said, "{word}: {:?}", found.wrong);
        }
    }

    #[test]
    fn what_a_recovery_has_shown_must_stay() {
        let (mut ledger, mut records) = ledger();
        assert_eq!(ledger.judge(0, &records, 5).wrong, Vec::<String>::new());
        ledger.begin(2);
        records.truncate(4);
        assert!(ledger.judge(0, &records, 4).wrong[0].contains("LOST"));
    }

    #[test]
    fn a_record_is_known_by_its_bytes() {
        let mut payload = id(3, 4, 5).payload(9);
        assert_eq!(Id::of(9, &payload), Some(id(3, 4, 5)));
        assert_eq!(Id::of(8, &payload), None);
        let last = payload.len() - 1;
        payload[last] ^= 1;
        assert_eq!(Id::of(9, &payload), None);
        assert_eq!(Id::of(9, b""), None);
    }
}
