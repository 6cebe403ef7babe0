//! How lives end: what is armed for it, and what is known afterwards.

use ringlog::Request;

use super::Wrong;
use super::life::{Life, MS};
use super::media;
use super::plan::Ending;
use super::shard::ShardHistory;
use crate::SimWorld;
use crate::crash::{Crash, Kill};
use crate::faults::{Class, Effect, Fault, When};
use crate::oracle::{AppendId, FaultKind};

impl ShardHistory {
    /// Arms what the ending of this life needs.
    pub(super) fn strike(&mut self, ending: Ending) {
        let nth = When::Nth(self.soon([3, 10, 30]));
        let landed = self.landed();
        match ending {
            Ending::ScriptedCut => {
                let moment = self.moment();
                let n = 1 + self.rng.below(60);
                self.world.crash_after_ops(n, moment, Crash::seeded(self.rng.next_u64()));
                self.tell(|| format!("  the power will go off at operation {n} ({moment:?})"));
            }
            Ending::FailedData => {
                let class = if self.rng.coin() { Class::Write } else { Class::Flush };
                let errnos = [
                    libc::EIO,
                    libc::EIO,
                    libc::ENOSPC,
                    libc::ECANCELED,
                    libc::EAGAIN,
                    libc::EINTR,
                ];
                let errno = errnos[self.rng.index(errnos.len())];
                self.world.arm(Fault::new(class, nth, Effect::Fail { errno, landed }));
                self.tell(|| format!("  {class:?} will fail: {nth:?}, {errno}, {landed:?}"));
            }
            Ending::FailedName => {
                let classes = [
                    Class::Create,
                    Class::Rename,
                    Class::Remove,
                    Class::Replace,
                    Class::SyncDir,
                    Class::Store,
                    Class::Load,
                ];
                let class = classes[self.rng.index(classes.len())];
                let nth = When::Nth(1 + self.rng.below(4));
                let errnos = [libc::EIO, libc::EMFILE, libc::EACCES, libc::ENOMEM];
                let errno = errnos[self.rng.index(errnos.len())];
                self.world.arm(Fault::new(class, nth, Effect::Fail { errno, landed }));
                self.tell(|| format!("  {class:?} will fail: {nth:?}, {errno}, {landed:?}"));
            }
            Ending::Full => {
                self.totals.full_disks += 1;
                if self.rng.coin() {
                    let room = self.world.used_bytes() + self.rng.below(3 << 20);
                    self.world.set_capacity(Some(room));
                    self.tell(|| format!("  the disk will be full at {room} bytes"));
                } else {
                    let class = if self.rng.coin() { Class::Create } else { Class::Replace };
                    let effect = Effect::Fail { errno: libc::ENOSPC, landed };
                    let when = When::Chance(300_000);
                    self.world.arm(Fault::new(class, when, effect));
                    self.tell(|| format!("  {class:?} finds the disk full now and then"));
                }
            }
            Ending::Lie => self.world.lie_about_flushes(),
            Ending::LostWrite => {
                let effect = if self.rng.coin() {
                    Effect::Lie
                } else {
                    let by_bytes = (self.rng.below(64) as i64 - 32) * 4096;
                    Effect::Misdirect { by_bytes }
                };
                let nth = When::Nth(1 + self.rng.below(12));
                self.world.arm(Fault::new(Class::Write, nth, effect));
                self.tell(|| format!("  {nth:?} write: {effect:?}"));
            }
            _ => {}
        }
    }

    pub(super) fn end_life(&mut self, life: &mut Life, ending: Ending, crashes: u64) -> Wrong {
        let cut = |world: &SimWorld| world.stats().crashes > crashes;
        let faults = self.world.stats().faults;
        let mut fault = FaultKind::ProcessKill;
        let mut damage = false;
        if !cut(&self.world) {
            if let (Ending::Full, Some(error)) = (ending, life.shard.poisoned()) {
                return Err(format!("a full disk is taken for a failure: {error}"));
            }
            match ending {
                Ending::Close | Ending::LostWrite | Ending::Damage => {
                    self.close(life)?;
                    damage = ending == Ending::Damage;
                }
                Ending::Full => {
                    if self.rng.coin() {
                        self.world.set_capacity(None);
                        self.world.clear_faults();
                    }
                    match self.rng.below(3) {
                        0 => self.close(life)?,
                        1 => self.cut(),
                        _ => self.kill(),
                    }
                }
                Ending::CutWhileClosing => {
                    let moment = self.moment();
                    let n = 1 + self.rng.below(30);
                    let crash = Crash::seeded(self.rng.next_u64());
                    self.world.crash_after_ops(n, moment, crash);
                    self.close(life)?;
                    if self.world.cancel_scripted_crash() && self.rng.coin() {
                        self.cut();
                    }
                }
                Ending::Kill => self.kill(),
                Ending::BadRead => {
                    match self.rng.coin() {
                        true => self.close(life)?,
                        false => self.cut(),
                    }
                    self.bad_read = true;
                }
                Ending::Cut | Ending::ScriptedCut | Ending::CutAndDamage => self.cut(),
                Ending::Lie => {
                    self.cut();
                    fault = FaultKind::LyingDisk;
                }
                Ending::FailedData | Ending::FailedName => {
                    if self.rng.coin() {
                        self.check_quiet(life)?;
                    }
                    match self.rng.below(4) {
                        0 => self.cut(),
                        1 => self.close(life)?,
                        _ => self.kill(),
                    }
                }
            }
        }
        let poisoned = life.shard.poisoned().is_some();
        let clean = life.closed;
        match clean {
            true => life.following.drain(&life.shard, &mut life.made),
            false => life.following.let_go(),
        }
        if let Some(wrong) = life.following.wrong.first() {
            return Err(wrong.clone());
        }
        if !clean && self.world.open_disks() > 0 {
            self.world.kill(Kill::LandAll); // a process that ends lets go of everything
        }
        self.check_receipts(life)?;
        self.enter(life)?;
        self.totals.closes += u64::from(clean);
        if !clean && !life.bury() {
            return Err("a shard on a dead disk never notices".to_owned());
        }
        for (at, made) in life.made.iter_mut().enumerate() {
            if !clean && made.end().is_none() && life.shard.poisoned().is_some() {
                return Err(format!("append {at} waits for ever on a shard that has failed"));
            }
        }
        let struck = self.world.stats().faults > faults || ending == Ending::LostWrite;
        self.world.clear_faults();
        self.world.cancel_scripted_crash();
        self.fault = match (ending, fault) {
            (_, FaultKind::LyingDisk) => FaultKind::LyingDisk,
            (Ending::Lie, _) => FaultKind::LyingDisk,
            (Ending::LostWrite, _) if struck => {
                let proven = if clean { self.ledger.last_append() } else { None };
                FaultKind::Damage { proven }
            }
            _ if cut(&self.world) => FaultKind::PowerCut,
            _ if clean => FaultKind::CleanClose,
            _ if poisoned => FaultKind::FailedLog,
            _ => FaultKind::ProcessKill,
        };
        let proven = match self.fault {
            FaultKind::CleanClose if damage => self.ledger.last_append(),
            FaultKind::PowerCut if ending == Ending::CutAndDamage => self.proven(),
            _ => return self.ended(life),
        };
        if let Some(what) = media::damage(&self.world, &mut self.rng) {
            self.totals.damages += 1;
            self.tell(|| format!("  damaged: {what}"));
            self.fault = FaultKind::Damage { proven };
        }
        self.ended(life)
    }

    /// The last append of which the media themselves say that it was durable.
    pub(super) fn proven(&self) -> Option<AppendId> {
        let lsn = media::proven_lsn(&self.world, &self.identity);
        let proven = self.places.iter().filter(|place| place.lsn < lsn);
        proven.map(|place| place.id).max()
    }

    fn ended(&mut self, life: &Life) -> Wrong {
        let fault = self.fault;
        self.tell(|| format!("  ended: {fault:?}, {} appends", life.made.len()));
        Ok(())
    }

    fn cut(&mut self) {
        self.world.crash(&Crash::seeded(self.rng.next_u64()));
    }

    fn kill(&mut self) {
        let kill = [Kill::LandAll, Kill::LandNone, Kill::Random, Kill::Late][self.rng.index(4)];
        self.world.kill(kill);
        // The lock of the log outlives writes in flight: nobody opens it before they have landed.
        if kill == Kill::Late && self.rng.coin() {
            self.cut();
        }
        self.world.land_late_writes();
        self.tell(|| format!("  killed: {kill:?}"));
    }

    fn close(&mut self, life: &mut Life) -> Wrong {
        let crashes = self.world.stats().crashes;
        life.ask(Request::Close);
        for _ in 0..20_000 {
            let before = life.watch.seen();
            life.turn();
            if life.closed || life.close_refused {
                break;
            }
            if life.shard.in_flight() == 0
                && life.watch.seen() == before
                && let Some(at) = life.shard.deadline()
            {
                // What is due and cannot be done yet is tried again a millisecond later.
                life.now.mono_ns = at.max(life.now.mono_ns + MS);
            }
        }
        let cut = self.world.stats().crashes > crashes;
        if !life.closed && !life.close_refused && !cut {
            let waits = life.made.iter().filter(|made| made.receipt.position().is_none()).count();
            return Err(format!(
                "closing hangs: {:?}, {waits} without a place, {} in flight, full {}, {:?} at {}",
                life.shard.watermarks(),
                life.shard.in_flight(),
                life.shard.is_disk_full(),
                life.shard.deadline(),
                life.now.mono_ns
            ));
        }
        if !life.closed {
            self.world.kill(Kill::LandAll);
        }
        Ok(())
    }
}
