//! Damage to a log in the simulated world, as the input says.

use super::base::{Base, Bases};
use super::input::Input;
use super::pure::{LOG, get_u32, reseal_batch, seal, seal_index};
use crate::SimWorld;
use crate::reference::{self, BLOCK};

const OPERATIONS_MAX: usize = 6;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// In words, for the message of a failure.
    pub(super) story: Vec<String>,
    /// A checksum was made to fit something that nobody wrote.
    pub(super) forged: bool,
    /// An index was forged: it may hide what it should lead to.
    pub(super) forged_index: bool,
    /// Bytes come from a time that this log has not seen.
    pub(super) from_the_future: bool,
    /// A sector cannot be read.
    pub(super) unreadable: bool,
}

/// Damages a copy of a base. Checksums are made to fit again only where `forges` is set.
pub(super) fn damaged(
    bases: &Bases,
    base: &Base,
    input: &mut Input<'_>,
    forges: bool,
) -> (SimWorld, Damage) {
    let world = base.world.fork();
    let mut damage = Damage::default();
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        operation(&world, bases, base, input, forges, &mut damage);
    }
    (world, damage)
}

/// A file that is there, and a place in the part of it that is in use, or a little behind.
fn place(world: &SimWorld, base: &Base, input: &mut Input<'_>) -> Option<(String, usize)> {
    let files = world.files();
    if files.is_empty() {
        return None;
    }
    let (name, bytes) = files[input.below(files.len())].clone();
    let known = base.files.iter().find(|(file, _)| *file == name);
    let used = known.map_or(bytes as usize, |(_, used)| *used).min(bytes as usize);
    let block = input.below(used / BLOCK + 2);
    let within = input.u16() as usize % BLOCK;
    // Mostly where fields are.
    let within = if within & 0x800 == 0 { within & 0x7f } else { within };
    Some((name, (block * BLOCK + within) % (bytes as usize).max(1)))
}

fn operation(
    world: &SimWorld,
    bases: &Bases,
    base: &Base,
    input: &mut Input<'_>,
    forges: bool,
    damage: &mut Damage,
) {
    let what = input.u8();
    let Some((name, at)) = place(world, base, input) else { return };
    let block = at / BLOCK * BLOCK;
    let Damage { story, .. } = damage;
    let mut tell = |text: &str| story.push(format!("{text} {name} at {at}"));
    match what % if forges { 24 } else { 16 } {
        0 | 1 if world.read(&name).is_empty() => {}
        0 => {
            tell("flip a bit of");
            world.flip_bit(&name, at as u64 * 8 + u64::from(input.u8() % 8));
        }
        1 => {
            tell("overwrite");
            let count = usize::from(input.u8() % 16) + 1;
            world.overwrite(&name, at as u64, input.bytes(count));
        }
        2 => {
            tell("truncate");
            world.set_len(&name, at as u64);
        }
        3 => {
            tell("extend");
            let bytes = world.read(&name).len() as u64;
            world.set_len(&name, bytes + u64::from(input.u16()));
        }
        4 => {
            let Some((other, _)) = place(world, base, input) else { return };
            tell(&format!("swap {other} with"));
            world.swap(&name, &other);
        }
        5 => {
            let Some((other, there)) = place(world, base, input) else { return };
            tell(&format!("swap a block of {other} at {there} with"));
            let (one, two) = (sector(world, &name, block), sector(world, &other, there));
            world.overwrite(&name, block as u64, &two);
            world.overwrite(&other, (there / BLOCK * BLOCK) as u64, &one);
        }
        6 => {
            let Some((other, _)) = place(world, base, input) else { return };
            tell(&format!("overwrite {other} with"));
            world.duplicate(&name, &other);
        }
        7 | 8 => {
            let same = |(_, (donor, _)): &(usize, &(String, Vec<u8>))| *donor == name;
            let donors: Vec<_> = bases.donors.iter().enumerate().filter(same).collect();
            if donors.is_empty() {
                return;
            }
            let (number, (_, donor)) = donors[input.below(donors.len())];
            damage.from_the_future |= number >= base.donors;
            if what % 16 == 7 {
                tell("an older or newer state of");
                world.put(&name, donor);
            } else {
                tell("blocks of an older or newer state of");
                let count = (usize::from(input.u8() % 8) + 1) * BLOCK;
                let end = donor.len().min(block + count);
                world.overwrite(&name, block as u64, donor.get(block..end).unwrap_or_default());
            }
        }
        9 => {
            let bytes = if input.u8().is_multiple_of(2) { 512 } else { BLOCK } as u64;
            tell("zeros in");
            let from = at as u64 / bytes * bytes;
            world.zero(&name, from..from + bytes);
        }
        10 => {
            tell("rename");
            let new = match input.u8() {
                number @ 0..=200 => format!("{number:016x}.{}", ["seg", "idx", "cat"][at % 3]),
                201.. => format!("other-{at}"),
            };
            world.duplicate(&name, &new);
            if new != name {
                world.delete(&name);
            }
        }
        11 => {
            tell("remove");
            world.delete(&name);
        }
        12 => {
            tell("ones in");
            world.overwrite(&name, block as u64, &[0xff; BLOCK]);
        }
        13 => {
            tell("unreadable:");
            world.set_unreadable(&name, at as u64);
            damage.unreadable = true;
        }
        14 => {
            let Some((other, there)) = place(world, base, input) else { return };
            tell(&format!("a block that belongs to {other} at {there} in"));
            let bytes = sector(world, &other, there);
            world.overwrite(&name, block as u64, &bytes);
        }
        15 => {
            tell("half a block in");
            let number = input.below(bases.donors.len());
            let (donor, bytes) = &bases.donors[number];
            damage.from_the_future |= number >= base.donors;
            tell(&format!("… of {donor}, to"));
            let half = bytes.get(block..block + 512 * usize::from(input.u8() % 8));
            world.overwrite(&name, block as u64, half.unwrap_or_default());
        }
        _ => {
            let count = usize::from(input.u8() % 8) + 1;
            let value = input.bytes(count);
            tell(&format!("{value:?} and a checksum that fits in"));
            forge(world, &name, at, value);
            damage.forged = true;
            damage.forged_index |= name.ends_with(".idx");
        }
    }
}

/// The block around a place.
fn sector(world: &SimWorld, name: &str, at: usize) -> Vec<u8> {
    let file = world.read(name);
    let from = (at / BLOCK * BLOCK).min(file.len());
    file[from..file.len().min(from + BLOCK)].to_vec()
}

/// Changes bytes and makes the checksums of what is there fit.
fn forge(world: &SimWorld, name: &str, at: usize, value: &[u8]) {
    let mut file = world.read(name);
    let end = file.len().min(at + value.len());
    let Some(target) = file.get_mut(at..end) else { return };
    target.copy_from_slice(&value[..target.len()]);
    let number = name.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match (name.rsplit('.').next(), number) {
        (Some("seg"), Some(segment)) => {
            let seed = reference::header_seed(&LOG, 0, segment);
            // The structure that the place is in begins at this block or at one before.
            let starts = (0..=at / BLOCK).rev().map(|block| block * BLOCK);
            for from in starts.take(4) {
                let block = &mut file[from..];
                match block.get(..4) {
                    Some(b"RLb1") if block.len() >= reference::HEADER_BYTES => {
                        let stored = get_u32(block, 44) as usize;
                        let end = stored.clamp(reference::HEADER_BYTES, block.len());
                        reseal_batch(&mut block[..end], 0, Some(seed));
                        break;
                    }
                    Some(b"RLs1" | b"RLf1") if block.len() >= BLOCK => {
                        seal(&mut block[..BLOCK], 4, 0);
                        break;
                    }
                    _ => {}
                }
            }
        }
        (Some("idx"), Some(segment)) if file.len() >= BLOCK => {
            seal_index(&mut file, &LOG, 0, segment);
        }
        _ if file.len() >= 16 => {
            let content = (file.len() - 16) as u32;
            file[12..16].copy_from_slice(&content.to_le_bytes());
            seal(&mut file, 4, 0);
        }
        _ => {}
    }
    world.put(name, &file);
}
