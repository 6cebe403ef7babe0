//! Looking at a world at a moment: what is claimed of the log by then, and all states that a cut
//! may leave.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

use ringlog::format::manifest::Manifest;
use ringlog::{Durability, Receipt};
use ringlog_disk::{Completion, Disk, DiskFacts, Op, Tag, Wait, Waker};

use super::recover::{Claim, Opening, Place, Then};
use super::{Size, Stop};
use crate::crash::crash_states;
use crate::cuts::Fate;
use crate::oracle::Level;
use crate::rng::Rng;
use crate::{SimDisk, SimWorld};

/// Up to so many sectors every subset is taken.
const IN_FULL: usize = 16;
/// Findings that are told, of each workload.
const TOLD: usize = 3;

/// What was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Moments that differ from all others of their workload.
    pub moments: u64,
    /// Of them, those at which all fates and all subsets of sectors were taken.
    pub in_full: u64,
    /// Of the others, those at which all subsets of areas of 4096 bytes were.
    pub in_full_4096: u64,
    /// Most open sectors at any moment.
    pub sectors_max: u64,
    /// States that differ in their bytes or in what is claimed: each was recovered and judged.
    pub states: u64,
    /// How many different disks these are.
    pub disks: u64,
    /// States met again, and not counted.
    pub repeated: u64,
    /// States that were recovered, cut and recovered once more.
    pub again: u64,
    /// States whose recovery was cut.
    pub cut_inside: u64,
    /// States on which a next life was begun, and cut.
    pub next_lives: u64,
    /// Power cuts, deaths and clean closes between the lives of the workloads.
    pub lives: u64,
    /// States that were judged wrong.
    pub wrong: u64,
}

impl Counts {
    fn numbers(&mut self) -> [(&'static str, &mut u64); 10] {
        [
            ("lives", &mut self.lives),
            ("moments", &mut self.moments),
            ("every subset of sectors", &mut self.in_full),
            ("every subset of 4096 bytes", &mut self.in_full_4096),
            ("states", &mut self.states),
            ("different disks", &mut self.disks),
            ("met again, not counted", &mut self.repeated),
            ("recovered twice", &mut self.again),
            ("cut in their recovery", &mut self.cut_inside),
            ("with a next life", &mut self.next_lives),
        ]
    }

    /// Adds those of another workload.
    pub fn add(&mut self, other: &Self) {
        self.wrong += other.wrong;
        self.sectors_max = self.sectors_max.max(other.sectors_max);
        let mut other = other.clone();
        for ((_, sum), (_, more)) in self.numbers().into_iter().zip(other.numbers()) {
            *sum += *more;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, number) in self.clone().numbers() {
            writeln!(f, "{name:>30}: {number}")?;
        }
        writeln!(f, "{:>30}: {}", "most open sectors", self.sectors_max)
    }
}

/// An append that was accepted in this life.
pub(super) struct Made {
    pub(super) receipt: Receipt,
    pub(super) stream: String,
    pub(super) payloads: Vec<Vec<u8>>,
    pub(super) durability: Durability,
    /// A flush or a close that was asked for behind it has been answered.
    pub(super) flushed: bool,
}

/// A trim of a stream that was accepted in this life.
pub(super) struct Trimmed {
    pub(super) receipt: Receipt,
    pub(super) stream: String,
    pub(super) before: u64,
}

/// Looks at one world.
pub(super) struct Look {
    pub(super) world: SimWorld,
    pub(super) opening: Opening,
    /// What was known when this life began.
    pub(super) base: Claim,
    pub(super) made: Vec<Made>,
    pub(super) trims: Vec<Trimmed>,
    /// Whether the workload trims.
    pub(super) may_trim: bool,
    /// Completions are held back.
    pub(super) held: bool,
    pub(super) counts: Counts,
    pub(super) wrong: Vec<String>,
    pub(super) seen: usize,
    size: Size,
    stop: Stop,
    rng: Rng,
    moments: HashSet<u64>,
    states: HashSet<u64>,
    disks: HashSet<u64>,
    claim: Option<(u64, Claim)>,
}

impl Look {
    pub(super) fn new(
        world: SimWorld,
        opening: Opening,
        (size, stop): (Size, &Stop),
        seed: u64,
    ) -> Self {
        Self {
            world,
            opening,
            base: Claim::default(),
            made: Vec::new(),
            trims: Vec::new(),
            may_trim: false,
            held: false,
            counts: Counts::default(),
            wrong: Vec::new(),
            seen: 0,
            size,
            stop: stop.clone(),
            rng: Rng::new(seed),
            moments: HashSet::new(),
            states: HashSet::new(),
            disks: HashSet::new(),
            claim: None,
        }
    }

    /// What is claimed now, in numbers: equal numbers, equal claims.
    fn claimed(&self) -> u64 {
        let mut sum = Rng::new(self.counts.lives ^ self.base.trimmed_max << 8);
        let mut add = |number: u64| sum = Rng::new(sum.next_u64() ^ number);
        for made in &self.made {
            let place = made.receipt.position();
            add(place.map_or(u64::MAX, |place| place.lsn.0));
            add(place.map_or(u64::MAX, |place| place.offset.0));
            add(u64::from(made.level() == Some(Level::Synced)));
        }
        for trim in &self.trims {
            add(u64::from(trim.receipt.is_acknowledged()));
        }
        sum.next_u64()
    }

    /// The claim of this moment.
    pub(super) fn claim_now(&self) -> Claim {
        let mut claim = self.base.clone();
        let shard = u32::from(self.opening.identity.shard);
        let placed = |(at, made): (usize, &Made)| {
            made.receipt.position().map(|place| (place.lsn.0, place.offset.0, at))
        };
        let mut placed: Vec<_> = self.made.iter().enumerate().filter_map(placed).collect();
        placed.sort_unstable();
        let last = placed.len().saturating_sub(1);
        for (number, (lsn, offset, at)) in placed.into_iter().enumerate() {
            let made = &self.made[at];
            let records = made.payloads.iter().map(|p| (made.stream.clone(), p.clone()));
            let id = claim.ledger.submit(shard, records.collect());
            let end_offset = offset + made.payloads.len() as u64;
            claim.places.push(Place { lsn, stream: made.stream.clone(), end_offset });
            let mut level = made.level();
            if self.size.claims_too_much && number == last {
                level = Some(Level::Synced);
            }
            match level {
                Some(level) => claim.ledger.acknowledge(id, level, offset),
                None => claim.ledger.placed(id, offset),
            }
        }
        for trim in &self.trims {
            claim.ledger.trim_asked(&trim.stream, trim.before);
            if trim.receipt.is_acknowledged() {
                claim.ledger.trim_acknowledged(&trim.stream, trim.before);
            }
        }
        claim
    }

    /// Takes all states of this moment.
    pub(super) fn look(&mut self) {
        if self.stop.is_enough(self.size.states) {
            return;
        }
        let claimed = self.claimed();
        let cuts = self.world.cuts(self.size.seed);
        let moment =
            cuts.fates.iter().fold(claimed, |key, fate| mix(key.rotate_left(7) ^ fate.identity()));
        if !self.moments.insert(moment) {
            return;
        }
        let claim = match self.claim.take() {
            Some((number, claim)) if number == claimed => claim,
            _ => self.claim_now(),
        };
        self.counts.moments += 1;
        let last = cuts.fates.len().saturating_sub(1);
        let (mut in_full, mut in_full_4096) = (cuts.all_fates, cuts.all_fates);
        for (at, fate) in cuts.fates.iter().enumerate() {
            let sectors = fate.sectors();
            self.counts.sectors_max = self.counts.sectors_max.max(sectors as u64);
            // With many fates, those in the middle get a sample.
            let bound = if at == 0 || at == last { IN_FULL } else { IN_FULL - 4 };
            let bound = bound.min(self.size.subsets_max.ilog2() as usize);
            let (units, count) = fate.units_of_4096();
            in_full &= sectors <= bound;
            in_full_4096 &= count <= bound;
            let seed = mix(moment ^ self.size.seed ^ at as u64);
            if sectors > bound && count <= bound {
                for kept in crash_states(count, bound, 0, seed) {
                    let kept: Vec<bool> = units.iter().map(|unit| kept[*unit]).collect();
                    self.state(fate, &kept, claimed, &claim);
                }
            }
            for kept in crash_states(sectors, bound, self.size.random, seed) {
                self.state(fate, &kept, claimed, &claim);
            }
        }
        self.counts.in_full += u64::from(in_full);
        self.counts.in_full_4096 += u64::from(in_full_4096 && !in_full);
        self.claim = Some((claimed, claim));
    }

    fn state(&mut self, fate: &Fate, kept: &[bool], claimed: u64, claim: &Claim) {
        if self.size.until_wrong && self.counts.wrong > 0 {
            return;
        }
        let key = fate.key(kept);
        if !mix(key).is_multiple_of(self.size.one_in.max(1)) {
            return;
        }
        if !self.states.insert(mix(key ^ claimed)) {
            self.counts.repeated += 1;
            return;
        }
        self.counts.disks += u64::from(self.disks.insert(key));
        let number = self.counts.states;
        self.counts.states += 1;
        self.stop.one_more();
        let then = match number % 128 {
            7 | 71 => Then::Again,
            29 => Then::CutInside(self.rng.next_u64()),
            101 => Then::NextLife(self.rng.next_u64()),
            _ => Then::Nothing,
        };
        match then {
            Then::Nothing => {}
            Then::Again => self.counts.again += 1,
            Then::CutInside(_) => self.counts.cut_inside += 1,
            Then::NextLife(_) => self.counts.next_lives += 1,
        }
        let state = fate.state(kept);
        if let Err(wrong) = self.opening.check(&state, claim, then) {
            self.counts.wrong += 1;
            if self.size.until_wrong {
                self.stop.now(self.size.states);
            }
            if self.wrong.len() < TOLD {
                let kept: String = kept.iter().map(|kept| if *kept { '1' } else { '0' }).collect();
                let moment = self.counts.moments;
                self.wrong.push(format!(
                    "state {number} (moment {moment}, sectors kept {kept}, {then:?}): {wrong}"
                ));
            }
        }
    }
}

impl Made {
    /// The level at which it is acknowledged.
    pub(super) fn level(&self) -> Option<Level> {
        if self.flushed {
            return Some(Level::Synced);
        }
        self.receipt.is_acknowledged().then_some(match self.durability {
            Durability::Memory => Level::Memory,
            Durability::Written => Level::Written,
            Durability::Synced => Level::Synced,
        })
    }
}

fn mix(x: u64) -> u64 {
    Rng::new(x).next_u64()
}

/// A disk under the engine of a workload: after each operation that changes something, somebody
/// looks.
pub(super) struct LookedAt {
    inner: SimDisk,
    look: Rc<RefCell<Look>>,
}

impl LookedAt {
    pub(super) fn new(look: &Rc<RefCell<Look>>) -> Self {
        let inner = SimDisk::open(&look.borrow().world);
        Self { inner, look: Rc::clone(look) }
    }
}

impl Disk for LookedAt {
    fn submit(&mut self, tag: Tag, op: Op) {
        let changes = !matches!(
            op,
            Op::Read { .. } | Op::Open { .. } | Op::Close { .. } | Op::Load { .. } | Op::List
        );
        if let Op::Replace { name, content } = &op
            && name.as_str() == "manifest"
            && let Ok(manifest) = Manifest::decode(content)
        {
            let mut look = self.look.borrow_mut();
            if look.may_trim {
                look.base.trimmed_max = look.base.trimmed_max.max(manifest.trimmed_lsn.0);
            }
            look.claim = None;
        }
        self.inner.submit(tag, op);
        if changes && !self.inner.is_dead() {
            let mut look = self.look.borrow_mut();
            look.seen += 1;
            look.look();
        }
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        if self.look.borrow().held {
            return;
        }
        let before = out.len();
        self.inner.reap(wait, out);
        if out.len() > before && !self.inner.is_dead() {
            let mut look = self.look.borrow_mut();
            look.seen += 1;
            look.look();
        }
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }

    fn facts(&self) -> &DiskFacts {
        self.inner.facts()
    }
}
