//! Readers beside the writer: what they are given must be what was appended, without gap or repeat,
//! at every visibility and whatever goes wrong; and what was shown as durable is as good as
//! acknowledged.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ringlog::testing::DrivenShard;
use ringlog::{Follower, Offset, ReadError, StreamId, Visibility};

use super::choices::Choices;
use super::life::Made;
use crate::faults::{Class, Effect, Fault, Landed, When};
use crate::oracle::Level;
use crate::watch::WatchedDisk;
use crate::{SimDisk, SimWorld};

/// One follower of a stream.
struct One {
    follower: Follower,
    stream: String,
    visibility: Visibility,
    next: u64,
}

/// What came of asking one.
enum Took {
    Record,
    Nothing,
    End,
}

/// The followers of a life, and what they may see.
pub(super) struct Following {
    world: SimWorld,
    /// What the disk had met when the life began: an error of a reader needs a reason.
    cuts: u64,
    faults: u64,
    followers: Vec<One>,
    /// A hash of each record that has a place.
    known: BTreeMap<String, BTreeMap<u64, u64>>,
    /// Appends of this life by stream and first offset, and those that have no place yet.
    places: BTreeMap<(String, u64), usize>,
    pending: Vec<usize>,
    entered: usize,
    pub(super) wrong: Vec<String>,
    pub(super) counts: FollowingCounts,
}

/// What was counted of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FollowingCounts {
    pub(super) followers: u64,
    pub(super) followed: u64,
    pub(super) retracted: u64,
    pub(super) wrong_reads: u64,
    pub(super) wrong_reads_told: u64,
}

impl Following {
    pub(super) fn new(world: &SimWorld) -> Self {
        let stats = world.stats();
        Self {
            world: world.clone(),
            cuts: stats.crashes,
            faults: stats.faults,
            followers: Vec::new(),
            known: BTreeMap::new(),
            places: BTreeMap::new(),
            pending: Vec::new(),
            entered: 0,
            wrong: Vec::new(),
            counts: FollowingCounts::default(),
        }
    }

    /// Records of earlier lives.
    pub(super) fn know<'a>(&mut self, records: impl Iterator<Item = (&'a str, u64, &'a [u8])>) {
        for (stream, offset, payload) in records {
            let stream = self.known.entry(stream.to_owned()).or_default();
            stream.insert(offset, hash(payload));
        }
    }

    /// Enters what has got a place since the last time.
    fn look(&mut self, made: &[Made]) {
        self.pending.extend(self.entered..made.len());
        self.entered = made.len();
        let (known, places) = (&mut self.known, &mut self.places);
        self.pending.retain(|at| {
            let one = &made[*at];
            let Some(position) = one.receipt.position() else { return true };
            let stream = known.entry(one.stream.clone()).or_default();
            for (nth, payload) in one.payloads.iter().enumerate() {
                stream.insert(position.offset.0 + nth as u64, hash(payload));
            }
            places.insert((one.stream.clone(), position.offset.0), *at);
            false
        });
    }

    /// A new follower of a stream, from anywhere in it.
    pub(super) fn begin(
        &mut self,
        shard: &DrivenShard<WatchedDisk>,
        (id, stream): (StreamId, String),
        rng: &mut Choices,
    ) -> String {
        let disk = Box::new(SimDisk::open(&self.world));
        let next = rng.below(shard.next_offset(id).0 + 1);
        let all = [Visibility::Durable, Visibility::Written, Visibility::Staged];
        let visibility = all[rng.index(3)];
        let told = format!("{stream} is followed from {next}, {visibility:?}");
        match shard.follow(disk, id, Offset(next)) {
            Ok(follower) => {
                let follower = follower.visibility(visibility);
                self.counts.followers += 1;
                self.followers.push(One { follower, stream, visibility, next });
            }
            // The durable end may lie below the offset that the next record gets.
            Err(ReadError::OutOfRange { next: end }) if end.0 < next => {}
            Err(ReadError::Trimmed { first }) if first.0 > next => {}
            Err(error) => self.complain(shard, &format!("{told}: {error}"), false),
        }
        told
    }

    /// Each follower is asked for at most so many records.
    pub(super) fn poll(
        &mut self,
        shard: &DrivenShard<WatchedDisk>,
        made: &mut [Made],
        at_most: usize,
    ) {
        if self.followers.is_empty() {
            return;
        }
        self.look(made);
        let mut followers = std::mem::take(&mut self.followers);
        followers.retain_mut(|one| {
            for _ in 0..at_most {
                match self.take(one, shard, made) {
                    Took::Record => {}
                    Took::Nothing => return true,
                    Took::End => return false,
                }
            }
            true
        });
        self.followers = followers;
    }

    /// Takes a record, if there is one.
    fn take(&mut self, one: &mut One, shard: &DrivenShard<WatchedDisk>, made: &mut [Made]) -> Took {
        let who = |one: &One| format!("a follower ({:?}) of {}", one.visibility, one.stream);
        match one.follower.try_next() {
            Ok(Some(record)) => {
                let offset = record.offset().0;
                if offset != one.next {
                    let (who, next) = (who(one), one.next);
                    self.wrong.push(format!("{who} was given {offset} instead of {next}"));
                }
                one.next = offset + 1;
                let known = self.known.get(&one.stream).and_then(|known| known.get(&offset));
                if known != Some(&hash(record.payload())) {
                    let who = who(one);
                    self.wrong.push(format!("{who} was given something else at {offset}"));
                }
                self.counts.followed += 1;
                self.shown(one, offset, made);
                Took::Record
            }
            Ok(None) if one.follower.is_finished() => Took::End,
            Ok(None) => Took::Nothing,
            Err(ReadError::Trimmed { first }) if first.0 > one.next => {
                one.next = first.0;
                Took::Record
            }
            Err(ReadError::Retracted { first })
                if one.visibility != Visibility::Durable && first.0 <= one.next =>
            {
                self.counts.retracted += 1;
                self.complain(shard, &format!("{}: records retracted", who(one)), true);
                Took::End
            }
            Err(error) => {
                self.complain(shard, &format!("{}: {error}", who(one)), false);
                Took::End
            }
        }
    }

    /// What was seen at a level counts as acknowledged at it.
    fn shown(&mut self, one: &One, offset: u64, made: &mut [Made]) {
        let level = match one.visibility {
            Visibility::Durable => Level::Synced,
            Visibility::Written => Level::Written,
            _ => return,
        };
        let place = self.places.range(..=(one.stream.clone(), offset)).next_back();
        if let Some(((stream, first), at)) = place
            && *stream == one.stream
        {
            let made = &mut made[*at];
            if offset < first + made.payloads.len() as u64 {
                made.seen = made.seen.max(Some(level));
            }
        }
    }

    /// An error of a reader is wrong unless the shard has failed or the disk has erred.
    fn complain(&mut self, shard: &DrivenShard<WatchedDisk>, what: &str, needs_failure: bool) {
        let stats = self.world.stats();
        let erred = stats.crashes > self.cuts || stats.faults > self.faults;
        if shard.poisoned().is_none() && (needs_failure || !erred) {
            self.wrong.push(what.to_owned());
        }
    }

    /// After a clean close, followers get everything.
    pub(super) fn drain(&mut self, shard: &DrivenShard<WatchedDisk>, made: &mut [Made]) {
        loop {
            let before = self.counts.followed;
            self.poll(shard, made, 100);
            if self.counts.followed == before {
                break;
            }
        }
        for one in &self.followers {
            let id = shard.streams().iter().find(|(_, name)| **name == *one.stream);
            let end = id.map_or(0, |(id, _)| shard.next_offset(*id).0);
            // Where all that would come was trimmed, only the next record would tell.
            let rest = || {
                let disk = Box::new(SimDisk::open(&self.world));
                let reader = shard.read(disk, id.map(|(id, _)| *id)?, None).ok()?;
                reader.flatten().map(|record| record.offset().0 + 1).max()
            };
            if one.next != end && rest() > Some(one.next) {
                let (stream, next) = (&one.stream, one.next);
                self.wrong.push(format!("a follower of {stream} stays at {next}, not {end}"));
            }
        }
        self.let_go();
    }

    pub(super) fn let_go(&mut self) {
        self.followers.clear();
    }

    /// A stream is read from its beginning, and one read of the disk goes wrong.
    pub(super) fn read_wrongly(
        &mut self,
        shard: &DrivenShard<WatchedDisk>,
        made: &[Made],
        (id, stream): (StreamId, String),
        rng: &mut Choices,
    ) -> String {
        self.look(made);
        let effect = match rng.below(3) {
            0 => Effect::Fail { errno: libc::EIO, landed: Landed::Nothing },
            1 => Effect::FlipBit,
            _ => Effect::Misdirect { by_bytes: (rng.below(64) as i64 - 32) * 4096 },
        };
        let when = When::Nth(1 + rng.below(4));
        let before = self.world.stats().faults;
        self.world.arm(Fault::new(Class::Read, when, effect));
        let known = self.known.get(&stream);
        let mut told = 0;
        let reader = shard.read(Box::new(SimDisk::open(&self.world)), id, None);
        for item in reader.into_iter().flatten() {
            match item {
                Ok(record) => {
                    let right = known.and_then(|known| known.get(&record.offset().0));
                    if right != Some(&hash(record.payload())) {
                        let offset = record.offset().0;
                        let what = format!("{stream}/{offset} is wrong beside {when:?} {effect:?}");
                        self.wrong.push(what);
                    }
                }
                Err(_) => told += 1,
            }
        }
        self.world.disarm_last();
        let struck = self.world.stats().faults - before;
        self.counts.wrong_reads += struck;
        self.counts.wrong_reads_told += u64::from(told > 0);
        // What went wrong here excuses nothing later.
        self.faults += struck;
        format!("{stream} is read, {when:?} read: {effect:?}; {told} errors told")
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    hasher.finish()
}
