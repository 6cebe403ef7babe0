//! One state: recovered for real, read to the end, judged; and what may come after it.

use ringlog::format::manifest::Manifest;
use ringlog::testing::{DrivenShard, ShardIdentity, ShardMemory};
use ringlog::{Durability, Options, Retention, Time};
use ringlog_disk::Disk;

use crate::crash::{Crash, Moment};
use crate::oracle::{FaultKind, Ledger, Outcome, judge_repeat};
use crate::reading::read_all;
use crate::{SimDisk, SimWorld};

/// What is known of a log at some moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    /// What was submitted, and what of it is acknowledged.
    pub(super) ledger: Ledger,
    /// Where each append lies.
    pub(super) places: Vec<Place>,
    /// No segment that ends behind this may have been trimmed.
    pub(super) trimmed_max: u64,
}

/// Where an append lies.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) lsn: u64,
    pub(super) stream: String,
    pub(super) end_offset: u64,
}

/// How states are opened.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) identity: ShardIdentity,
    pub(super) options: Options,
    pub(super) memory: ShardMemory,
    pub(super) now: Time,
}

/// What follows the recovery of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Nothing,
    /// The power goes off once more, and it is recovered again.
    Again,
    /// Before that, the recovery itself is cut at some operation.
    CutInside(u64),
    /// A next life appends, and is cut; then it is recovered again.
    NextLife(u64),
}

type Wrong<T = ()> = Result<T, String>;

/// What the manifest says was trimmed may be gone, if the log was asked for it.
pub(super) fn enter_trims(world: &SimWorld, claim: &mut Claim) -> Wrong {
    let Some(lsn) = trimmed_lsn(world) else { return Ok(()) };
    if lsn > claim.trimmed_max {
        return Err(format!("O8: the log begins at {lsn}, and nothing there was trimmed"));
    }
    for place in claim.places.iter().filter(|place| place.lsn < lsn) {
        claim.ledger.trimmed(&place.stream, place.end_offset);
    }
    Ok(())
}

/// Where the log begins, if it was trimmed. What is wrong with the manifest, recovery will say.
fn trimmed_lsn(world: &SimWorld) -> Option<u64> {
    if !world.exists("manifest") {
        return None;
    }
    let manifest = Manifest::decode(&world.read("manifest")).ok()?;
    Some(manifest.trimmed_lsn.0).filter(|lsn| *lsn > 0)
}

/// Holds an open log against the claim, and makes what was found the start of what follows.
pub(super) fn judge<D: Disk>(
    world: &SimWorld,
    shard: &DrivenShard<D>,
    claim: &mut Claim,
    fault: FaultKind,
) -> Wrong<Outcome> {
    let outcome = read_all(world, shard);
    for (id, name) in shard.streams() {
        let first = shard.trimmed_before(*id).0;
        if first > 0 || claim.ledger.knows_trims() {
            let verdict = claim.ledger.trims_found(name, first, fault);
            if !verdict.is_good() {
                return Err(verdict.to_string());
            }
        }
    }
    let verdict = claim.ledger.judge(&outcome, fault);
    if verdict.is_good() { Ok(outcome) } else { Err(verdict.to_string()) }
}

/// Where a life goes on, it goes on at the right offsets. To be called after `adopt`.
pub(super) fn check_offsets<D: Disk>(shard: &DrivenShard<D>, ledger: &Ledger) -> Wrong {
    for (id, name) in shard.streams() {
        let (next, expected) = (shard.next_offset(*id).0, ledger.next_offset(name));
        if next != expected {
            return Err(format!("O2: {name} goes on at {next} instead of {expected}"));
        }
    }
    Ok(())
}

impl Opening {
    fn open(&self, world: &SimWorld) -> Result<DrivenShard<SimDisk>, ringlog::OpenError> {
        let disk = SimDisk::open(world);
        DrivenShard::open(disk, self.identity, &self.options, &self.memory, self.now)
    }

    /// Recovers the state in `world` and judges it; then the same with what follows.
    pub(super) fn check(&self, world: &SimWorld, claim: &Claim, then: Then) -> Wrong {
        let fault = FaultKind::PowerCut;
        if let Then::CutInside(seed) = then {
            let moment = if seed % 2 == 0 { Moment::Submission } else { Moment::Completion };
            world.crash_after_ops(1 + seed / 2 % 24, moment, Crash::seeded(seed));
            drop(self.open(world));
            world.cancel_scripted_crash();
            world.crash(&Crash::seeded(!seed));
        }
        let trims = trimmed_lsn(world).is_some() || claim.ledger.knows_trims();
        let shard = self.open(world).map_err(|error| format!("O6: the log refused: {error}"))?;
        if !trims && then == Then::Nothing {
            let outcome = read_all(world, &shard);
            let verdict = claim.ledger.judge(&outcome, fault);
            return if verdict.is_good() { Ok(()) } else { Err(verdict.to_string()) };
        }
        let mut claim = claim.clone();
        enter_trims(world, &mut claim)?;
        let first = judge(world, &shard, &mut claim, fault)?;
        if let Outcome::Opened(recovered) = &first {
            claim.ledger.adopt(recovered);
        }
        check_offsets(&shard, &claim.ledger)?;
        match then {
            Then::Nothing => return Ok(()),
            Then::Again | Then::CutInside(_) => {
                drop(shard);
                world.crash(&Crash::losing_all());
                let again = self.open(world).map_err(|e| format!("O4: the second time: {e}"))?;
                let second = read_all(world, &again);
                let verdict = judge_repeat(&first, &second);
                return if verdict.is_good() { Ok(()) } else { Err(verdict.to_string()) };
            }
            Then::NextLife(_) => {}
        }
        self.next_life(world, shard, claim, then)
    }

    /// A next life appends to each stream, and is cut; then it is recovered and judged again.
    fn next_life(
        &self,
        world: &SimWorld,
        mut shard: DrivenShard<SimDisk>,
        mut claim: Claim,
        then: Then,
    ) -> Wrong {
        let Then::NextLife(seed) = then else { return Ok(()) };
        let mut now = self.now;
        let streams: Vec<_> = shard.streams().to_vec();
        let mut made = Vec::new();
        for (id, name) in streams.iter().take(3) {
            let payload = claim.ledger.payload(700 + (seed % 5000) as usize);
            let receipt = shard.append(0, *id, &[&payload], Durability::Written);
            made.extend(receipt.ok().map(|receipt| (receipt, name, payload)));
        }
        for _ in 0..4 + seed % 12 {
            now.mono_ns += 100_000;
            now.wall_ns += 100_000;
            shard.turn(now);
        }
        let placed = |receipt: &ringlog::Receipt| receipt.position().map(|at| (at.lsn, at.offset));
        made.retain(|(receipt, _, _)| placed(receipt).is_some());
        made.sort_by_key(|(receipt, _, _)| placed(receipt));
        for (_, name, payload) in made {
            claim.ledger.submit_one(u32::from(self.identity.shard), name, &payload);
        }
        world.crash(&Crash::seeded(seed));
        drop(shard);
        let shard = self.open(world).map_err(|e| format!("O6: after the next life: {e}"))?;
        if self.options.retention != Retention::default() || claim.ledger.knows_trims() {
            // Whether it was time to trim is judged by the histories.
            claim.trimmed_max = u64::MAX;
        }
        enter_trims(world, &mut claim)?;
        judge(world, &shard, &mut claim, FaultKind::PowerCut)
            .map(drop)
            .map_err(|wrong| format!("after the next life: {wrong}"))
    }
}
