//! How recovery reads, as the document has it: where the log ends, and what it holds.

use std::collections::BTreeMap;

use super::batch::{Batch, batch, header, header_seed, remains};
use super::small::{Manifest, Span, State, catalogue, manifest, segment_header};
use super::{BLOCK, Bad, Shard, crc};

/// A record: its LSN, its payload, whether it is a tombstone.
pub type Record = (u64, Vec<u8>, bool);

/// What a shard holds.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Where the log ends.
    pub end: u64,
    /// The streams there are, by number; their names, where they are known.
    pub streams: BTreeMap<u32, Option<String>>,
    /// Of each stream its records, by offset. Those of sealed segments as far as their batches are
    /// whole and lie where they belong.
    pub records: BTreeMap<u32, BTreeMap<u64, Record>>,
    /// Below which offset a stream has been trimmed.
    pub trimmed: BTreeMap<u32, u64>,
    /// Whether the sealed and closed segments are what the manifest says of them.
    pub sealed_sound: bool,
    /// Two batches claim the same offset of a stream.
    pub is_ambiguous: bool,
    /// The log was closed cleanly and recovery may take that on trust.
    pub on_trust: bool,
}

/// What recovery comes to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The open is refused.
    Refused(String),
    /// The log is opened.
    Opened(Found),
}

/// Reads a shard.
pub fn recover(shard: &Shard) -> Outcome {
    match read(shard) {
        Ok(found) => Outcome::Opened(found),
        Err(why) => Outcome::Refused(why),
    }
}

fn read(shard: &Shard) -> Result<Found, String> {
    let file = shard.files.get("manifest").ok_or("no manifest")?;
    let manifest = manifest(file).map_err(|bad| format!("manifest: {bad:?}"))?;
    if manifest.log != shard.log || manifest.shard != shard.number {
        return Err("the manifest of something else".into());
    }
    let too_long = |state: &State| match state {
        State::Sealed(span) | State::Closed(span) => span.end - span.base > shard.segment_bytes,
        State::Unsealed => false,
    };
    if manifest.segments.iter().any(|(_, state)| too_long(state)) {
        return Err("a segment that ends behind its file".into());
    }
    let mut found = Found { sealed_sound: true, ..Found::default() };
    read_catalogue(shard, &manifest, &mut found)?;
    let (mut end, mut chain) = (manifest.trimmed_lsn, manifest.trimmed_chain);
    for (segment, state) in &manifest.segments {
        if let State::Sealed(span) = state {
            found.sealed_sound &= read_sealed(shard, *segment, span, &mut found);
            (end, chain) = (span.end, span.last);
        }
    }
    found.end = end;
    if manifest.clean && manifest.proven_lsn == end && closed(&manifest).is_none() {
        return Ok(found); // nothing was open
    }
    let trusted = closed(&manifest).filter(|(segment, span)| {
        has_good_header(shard, *segment) == Some(true)
            && ends_well(shard, *segment, span, &manifest)
    });
    let mut on_trust = found.clone();
    match (unsealed(shard, &manifest, chain, &mut found), trusted) {
        (Ok(()), _) => Ok(found),
        (Err(why), None) => Err(why),
        // What is damaged is not looked at, if the index of the closed segment is good, too.
        (Err(_), Some((segment, span))) => {
            on_trust.sealed_sound &= read_sealed(shard, segment, &span, &mut on_trust);
            (on_trust.end, on_trust.on_trust) = (span.end, true);
            Ok(on_trust)
        }
    }
}

fn closed(manifest: &Manifest) -> Option<(u64, Span)> {
    manifest.segments.iter().find_map(|(segment, state)| match state {
        State::Closed(span) => Some((*segment, *span)),
        _ => None,
    })
}

fn read_catalogue(shard: &Shard, manifest: &Manifest, found: &mut Found) -> Result<(), String> {
    for (number, bytes, sum) in &manifest.parts {
        let file = shard.files.get(&format!("{number:016x}.cat")).ok_or("no catalogue part")?;
        if file.len() as u64 != *bytes || crc(file.iter().copied()) != *sum {
            return Err("a catalogue part that is not the listed one".into());
        }
        let entries = catalogue(file, &shard.log, shard.number, *number);
        for (stream, _next, trimmed, name) in entries.map_err(|bad| format!("{bad:?}"))? {
            if stream >= 1 << 24 {
                return Err("a stream number that is too large".into());
            }
            found.trim(stream, trimmed);
            found.name(stream, name);
        }
    }
    Ok(())
}

/// Whether the segment's file is as long as it must be and begins with its header. `None` for a
/// version that is not known.
fn has_good_header(shard: &Shard, segment: u64) -> Option<bool> {
    let Some(file) = file(shard, segment) else { return Some(false) };
    match segment_header(file) {
        Ok(header) => Some(
            header == (shard.log, shard.number, segment, shard.segment_bytes)
                && file.len() as u64 >= shard.segment_bytes,
        ),
        Err(Bad::Damaged(_)) => Some(false),
        Err(Bad::Version(_) | Bad::Features(_)) => None,
    }
}

fn file(shard: &Shard, segment: u64) -> Option<&Vec<u8>> {
    shard.files.get(&format!("{segment:016x}.seg"))
}

fn bytes_at(shard: &Shard, segment: u64, place: u64) -> &[u8] {
    let bytes = file(shard, segment).map_or(&[][..], |file| &file[..]);
    usize::try_from(place).ok().and_then(|place| bytes.get(place..)).unwrap_or(&[])
}

/// What a reader of single streams can still take from a batch that is not whole.
fn remains_at(shard: &Shard, segment: u64, place: u64, lsn: u64) -> Option<Batch> {
    let bytes = bytes_at(shard, segment, place);
    let header = header(bytes, header_seed(&shard.log, shard.number, segment)).ok();
    let header = header.filter(|header| header.lsn == lsn)?;
    remains(header, bytes, &shard.log, shard.number)
}

/// The batch at a place of a segment, if it is whole and its LSN the one given.
fn batch_at(shard: &Shard, segment: u64, place: u64, lsn: u64) -> Result<Batch, Bad> {
    let bytes = bytes_at(shard, segment, place);
    let header = header(bytes, header_seed(&shard.log, shard.number, segment))?;
    let batch = match header.lsn == lsn {
        true => batch(header, bytes, &shard.log, shard.number),
        false => None,
    };
    batch.filter(Batch::is_sensible).ok_or(Bad::Damaged("batch"))
}

/// Reads what the manifest says of a segment; whether all of it was so.
fn read_sealed(shard: &Shard, segment: u64, span: &Span, found: &mut Found) -> bool {
    let (mut chain, mut frames) = (span.before, 0);
    let mut sound = has_good_header(shard, segment) == Some(true);
    let mut lsn = span.base;
    while lsn < span.end && lsn - span.base < shard.segment_bytes {
        let place = BLOCK as u64 + (lsn - span.base);
        match batch_at(shard, segment, place, lsn) {
            Ok(batch) => {
                sound &= batch.header.previous == chain;
                (chain, frames) = (batch.header.chain, frames + batch.frames.len() as u64);
                lsn += batch.header.stored as u64;
                found.take(batch, false);
            }
            Err(_) => {
                sound = false;
                if let Some(batch) = remains_at(shard, segment, place, lsn) {
                    found.take(batch, false);
                }
                lsn += BLOCK as u64;
            }
        }
    }
    sound && lsn == span.end && chain == span.last && frames == span.frames
}

/// Whether the last batch of a closed segment is whole and has the right chain value.
fn ends_well(shard: &Shard, segment: u64, span: &Span, manifest: &Manifest) -> bool {
    let mut lsn = span.base;
    let good = |batch: &Batch| {
        batch.header.lsn + batch.header.stored as u64 == span.end
            && batch.header.chain == span.last
            && epoch_fits(manifest, batch.header.lsn, batch.header.epoch)
    };
    while lsn < span.end && lsn - span.base < shard.segment_bytes {
        let place = BLOCK as u64 + (lsn - span.base);
        if batch_at(shard, segment, place, lsn).as_ref().is_ok_and(good) {
            return true;
        }
        lsn += BLOCK as u64;
    }
    false
}

fn epoch_fits(manifest: &Manifest, lsn: u64, epoch: u64) -> bool {
    if lsn >= manifest.life_lsn { epoch == manifest.epoch } else { epoch < manifest.epoch }
}

/// The table of the document, over all segments that are not sealed.
fn unsealed(
    shard: &Shard,
    manifest: &Manifest,
    mut chain: u32,
    found: &mut Found,
) -> Result<(), String> {
    let sealed = |entry: &&(u64, State)| matches!(entry.1, State::Sealed(_));
    let list: Vec<u64> = manifest.segments.iter().skip_while(sealed).map(|(n, _)| *n).collect();
    let mut proof = manifest.proven_lsn.max(found.end);
    let mut taken: Vec<Batch> = Vec::new();
    let mut end = found.end;
    for (at, segment) in list.iter().enumerate() {
        if has_good_header(shard, *segment) != Some(true) {
            return Err(format!("segment {segment} does not begin with its header"));
        }
        let base = end;
        loop {
            let next = batch_at(shard, *segment, BLOCK as u64 + (end - base), end);
            let fits = |batch: &Batch| {
                batch.header.previous == chain && epoch_fits(manifest, end, batch.header.epoch)
            };
            match next {
                Ok(batch) if fits(&batch) => {
                    (chain, end) = (batch.header.chain, end + batch.header.stored as u64);
                    proof = proof.max(batch.header.durable);
                    taken.push(batch);
                }
                Err(bad @ (Bad::Version(_) | Bad::Features(_))) => return Err(format!("{bad:?}")),
                _ => break,
            }
        }
        if manifest.clean && end == manifest.proven_lsn {
            break; // nothing behind the exact end is looked at
        }
        proof = proof.max(proof_in(shard, *segment, manifest, Some((base, end))));
        let mut joins = false;
        for (nth, later) in list[at + 1..].iter().enumerate() {
            let first = batch_at(shard, *later, BLOCK as u64, end);
            joins |= nth == 0
                && first.is_ok_and(|batch| {
                    batch.header.previous == chain && epoch_fits(manifest, end, batch.header.epoch)
                });
            if !joins {
                proof = proof.max(proof_in(shard, *later, manifest, None));
            }
            if has_good_header(shard, *later) != Some(true) {
                return Err(format!("segment {later} does not begin with its header"));
            }
        }
        match (joins, proof > end) {
            (true, _) => {}
            (false, true) => return Err(format!("LSN {end} is damaged; {proof} was durable")),
            (false, false) => break,
        }
    }
    if proof > end {
        return Err(format!("the log ends at {end}; {proof} was durable"));
    }
    // Watermarks behind the proof are dropped where nothing else is there.
    let is_behind = |batch: &&Batch| batch.header.lsn + batch.header.stored as u64 > proof;
    let proven = taken.iter().take_while(|batch| !is_behind(batch)).count();
    if taken[proven..].iter().all(|batch| batch.header.kind == 1) {
        end = taken.get(proven).map_or(end, |batch| batch.header.lsn);
        taken.truncate(proven);
    }
    found.end = end;
    taken.into_iter().for_each(|batch| found.take(batch, true));
    Ok(())
}

/// The largest durable LSN that a header in a segment tells. Where the segment begins is told by the
/// first header that there is, if nobody else knows. What the header at the end itself says is not
/// asked: it can prove nothing beyond the end.
fn proof_in(
    shard: &Shard,
    segment: u64,
    manifest: &Manifest,
    base_and_end: Option<(u64, u64)>,
) -> u64 {
    let Some(file) = file(shard, segment) else { return 0 };
    let seed = header_seed(&shard.log, shard.number, segment);
    let (mut proof, mut base) = (0, base_and_end.map(|(base, _)| base));
    let bytes = &file[..file.len().min(shard.segment_bytes as usize)];
    for (block, bytes) in bytes.chunks(BLOCK).enumerate().skip(1) {
        let before = (block as u64 - 1) * BLOCK as u64;
        let Ok(header) = header(bytes, seed) else { continue };
        let here = header.lsn.checked_sub(before);
        if here.is_some()
            && base_and_end.is_none_or(|(_, end)| header.lsn != end)
            && base.is_none_or(|base| here == Some(base))
            && epoch_fits(manifest, header.lsn, header.epoch)
        {
            base = here;
            proof = proof.max(header.durable);
        }
    }
    proof
}

impl Found {
    /// `new`: the catalogue does not have it yet.
    fn take(&mut self, batch: Batch, new: bool) {
        let lsn = batch.header.lsn;
        for frame in batch.frames {
            let number = || super::u32_at(&frame.payload, 0);
            match frame.kind {
                4 if new => {
                    let name = String::from_utf8_lossy(&frame.payload[4..]).into_owned();
                    self.name(number(), Some(name));
                }
                5 if new => self.trim(number(), super::u64_at(&frame.payload, 4)),
                _ => {}
            }
            if new {
                self.streams.entry(frame.stream).or_default();
            }
            if frame.kind <= 2 {
                let record = (lsn, frame.payload, frame.kind == 2);
                let records = self.records.entry(frame.stream).or_default();
                self.is_ambiguous |= records.insert(frame.offset, record).is_some();
            }
        }
    }

    fn name(&mut self, stream: u32, name: Option<String>) {
        let known = self.streams.entry(stream).or_default();
        if name.is_some() {
            *known = name;
        }
    }

    fn trim(&mut self, stream: u32, before: u64) {
        let known = self.trimmed.entry(stream).or_default();
        *known = before.max(*known);
    }
}
