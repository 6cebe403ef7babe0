//! What a life has promised is entered into the ledger, and what it must keep to is checked.

use ringlog::ReceiptError;
use ringlog::format::manifest::Manifest;

use super::Wrong;
use super::keeping::Keeping;
use super::life::Life;
use super::shard::{Place, ShardHistory};
use crate::oracle::Level;

impl ShardHistory {
    /// With nothing wrong, everything that was accepted is acknowledged in the end.
    pub(super) fn check_quiet(&mut self, life: &mut Life) -> Wrong {
        if !life.settle() {
            return Err("the shard never comes to rest".to_owned());
        }
        if life.shard.poisoned().is_some() || life.shard.is_disk_full() {
            return Ok(());
        }
        for (at, made) in life.made.iter_mut().enumerate() {
            if made.end().is_none() {
                let (level, place) = (made.durability, made.receipt.position());
                let marks = life.shard.watermarks();
                let what = format!("append {at} ({level:?}, {place:?}) is never acknowledged");
                return Err(format!("{what}; {marks:?}"));
            }
        }
        Ok(())
    }

    /// What receipts say must fit: nothing acknowledged and failed, everything told at a close.
    pub(super) fn check_receipts(&mut self, life: &mut Life) -> Wrong {
        if !life.closed {
            return Ok(());
        }
        for (at, made) in life.made.iter_mut().enumerate() {
            match made.end() {
                Some(Ok(())) if made.receipt.position().is_some() => {}
                Some(Err(ReceiptError::DiskFull)) => {}
                other => return Err(format!("append {at} is {other:?} after a clean close")),
            }
        }
        Ok(())
    }

    /// Enters the appends of a life into the ledger, in the order of placement.
    pub(super) fn enter(&mut self, life: &mut Life) -> Wrong {
        let mut placed: Vec<(u64, u64, usize)> = Vec::new();
        for (at, made) in life.made.iter().enumerate() {
            match made.receipt.position() {
                Some(position) => placed.push((position.lsn.0, position.offset.0, at)),
                None if made.level() > Some(Level::Memory) => {
                    return Err(format!("append {at} is acknowledged and has no place"));
                }
                None => {}
            }
        }
        placed.sort_unstable();
        for (lsn, offset, at) in placed {
            let made = &life.made[at];
            let records = made.payloads.iter().map(|p| (made.stream.clone(), p.clone()));
            let shard = u32::from(self.identity.shard);
            let id = self.ledger.submit(shard, records.collect());
            let end_offset = offset + made.payloads.len() as u64;
            self.places.push(Place { id, stream: made.stream.clone(), end_offset, lsn });
            match made.level() {
                Some(level) => {
                    self.totals.acknowledged += 1;
                    self.ledger.acknowledge(id, level, offset);
                }
                None => self.ledger.placed(id, offset),
            }
        }
        for trim in &mut life.trims {
            self.ledger.trim_asked(&trim.stream, trim.before);
            if trim.receipt.is_acknowledged() {
                self.ledger.trim_acknowledged(&trim.stream, trim.before);
            } else if life.closed && trim.end() != Some(Err(ReceiptError::DiskFull)) {
                return Err(format!("a trim of {} is not done after a close", trim.stream));
            }
        }
        self.enter_trims(&life.keeping)?;
        let counts = &life.counts;
        self.totals.appends += counts.appends;
        self.totals.records += counts.records;
        self.totals.refused_disk += counts.refused_disk;
        self.totals.refused_memory += counts.refused_memory;
        self.totals.trimmed += counts.trimmed_segments;
        self.totals.rotations += life.shard.counts().rotations;
        self.totals.recycled += life.shard.counts().recycled;
        self.totals.sealed_by_age += life.shard.counts().sealed.age;
        self.totals.pressure += life.shard.counts().pressure_flushes;
        self.totals.stream_trims += counts.stream_trims;
        let follow = &life.following.counts;
        self.totals.followers += follow.followers;
        self.totals.followed += follow.followed;
        self.totals.retracted += follow.retracted;
        self.totals.wrong_reads += follow.wrong_reads;
        self.totals.wrong_reads_told += follow.wrong_reads_told;
        let kept = &life.keeping.counts;
        self.totals.trimmed_by_number += kept.by_number;
        self.totals.trimmed_by_bytes += kept.by_bytes;
        self.totals.trimmed_by_age += kept.by_age;
        self.totals.trimmed_by_streams += kept.by_streams;
        self.totals.clock_jumps += kept.jumps;
        Ok(())
    }

    /// What the manifest says was trimmed may be gone, if it was dropped with reason.
    pub(super) fn enter_trims(&mut self, keeping: &Keeping) -> Wrong {
        if let Some(wrong) = keeping.wrong.first() {
            return Err(wrong.clone());
        }
        let files = self.world.files();
        if !files.iter().any(|(name, _)| name == "manifest") {
            return Ok(()); // recovery will say so
        }
        let Ok(manifest) = Manifest::decode(&self.world.read("manifest")) else { return Ok(()) };
        let lsn = manifest.trimmed_lsn.0;
        if lsn <= self.trimmed_lsn {
            return Ok(());
        }
        if lsn > keeping.dropped_to {
            return Err(format!("the log begins at {lsn}, and no segment before was dropped"));
        }
        self.trimmed_lsn = lsn;
        for place in self.places.iter().filter(|place| place.lsn < lsn) {
            self.ledger.trimmed(&place.stream, place.end_offset);
        }
        Ok(())
    }
}
