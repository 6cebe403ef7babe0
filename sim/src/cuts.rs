//! Everything that a power cut may leave of a world at one moment, to be taken state by state.
//!
//! A state is a *fate* of the names (which changes of the directory have happened, how far the
//! operations on names that were on their way have come) and a set of sectors, out of those that
//! no flush has covered, that have reached the media. A sector whose bytes are on the media
//! already makes no difference and is not counted among them.
//!
//! Each state has a key that is made of its names and bytes alone: equal keys, equal disks. (Two
//! unflushed writes to one sector, which the engine never has, may give one disk two keys.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::access::SimWorld;
use crate::inode::Taken;
use crate::names_ops::NameOp;
use crate::rng::Rng;
use crate::world::{Work, World};

/// So many combinations of changes of names are taken one by one; of more, some by chance.
const NAMES_IN_FULL: usize = 48;
/// How often chance decides how far an operation on names has come in the middle.
const BEGUN: u64 = 4;

/// All states that a cut may leave. See the module's text.
#[derive(Debug)]
pub struct Cuts {
    /// One for each fate of the names.
    pub fates: Vec<Fate>,
    /// Whether the fates are all there are.
    pub all_fates: bool,
}

/// One fate of the names, and the sectors whose fate is open.
#[derive(Debug)]
pub struct Fate {
    /// Without what is open.
    world: World,
    open: Vec<(u64, Taken, u64)>,
    key: u64,
}

impl SimWorld {
    /// What a power cut may leave at this moment. `seed` decides where there is too much to take
    /// everything.
    pub fn cuts(&self, seed: u64) -> Cuts {
        let now = self.lock();
        let mut rng = Rng::new(seed);
        let mut begun: Vec<World> = Vec::new();
        now.name_ops_begun(&mut begun, &mut rng);
        drop(now);
        let mut all_fates = true;
        let mut seen = BTreeSet::new();
        let mut fates = Vec::new();
        let mut sums = BTreeMap::new();
        // `begun` stays until the end: `sums` knows files by where they lie in memory.
        for world in &begun {
            for kept in combinations(&world.names.group_sizes(), &mut rng, &mut all_fates) {
                let mut world = world.clone();
                world.names.cut(&kept);
                world.handles.clear();
                world.forget_unused();
                let fate = Fate::new(world, &mut sums);
                if seen.insert(fate.identity()) {
                    fates.push(fate);
                }
            }
        }
        Cuts { fates, all_fates }
    }
}

/// How many changes of each group have happened: nothing first, everything last.
fn combinations(sizes: &[usize], rng: &mut Rng, all: &mut bool) -> Vec<Vec<usize>> {
    let count = sizes.iter().try_fold(1_usize, |n, size| n.checked_mul(size + 1));
    if count.is_some_and(|count| count <= NAMES_IN_FULL) {
        let mut combinations = vec![Vec::new()];
        for size in sizes {
            let longer = |begun: &Vec<usize>| {
                let begun = begun.clone();
                (0..=*size).map(move |kept| [&begun[..], &[kept]].concat())
            };
            combinations = combinations.iter().flat_map(longer).collect();
        }
        return combinations;
    }
    *all = false;
    let random = (0..NAMES_IN_FULL - 2).map(|_| sizes.iter().map(|s| rng.index(s + 1)).collect());
    let mut some = vec![vec![0; sizes.len()]];
    some.extend(random);
    some.push(sizes.to_vec());
    some
}

impl World {
    /// The power is off; of the operations on names that were on their way none, one, … have
    /// happened, and the next may have begun.
    fn name_ops_begun(&self, out: &mut Vec<Self>, rng: &mut Rng) {
        let mut world = self.clone();
        world.stats.crashes += 1;
        world.scripted = None;
        world.trace.mute();
        let mut queued: Vec<(u64, NameOp)> = Vec::new();
        for flight in std::mem::take(&mut world.flights) {
            if let Work::Name(op) = flight.work {
                queued.push((flight.handle, op));
            }
        }
        for (handle, op) in queued {
            out.push(world.clone());
            for _ in 0..BEGUN {
                let mut in_the_middle = world.clone();
                in_the_middle.begin_name_op(op.clone(), rng);
                out.push(in_the_middle);
            }
            // Nobody is left to hear whether it went well.
            let _unheard = world.name_op(handle, op);
        }
        out.push(world);
    }
}

impl Fate {
    /// Takes what is volatile out of a world that is dead. `sums` knows what was summed up before.
    fn new(mut world: World, sums: &mut BTreeMap<usize, u64>) -> Self {
        let mut open = Vec::new();
        let mut key = world.others as u64;
        for (name, inode) in world.names.iter() {
            key = mix(key ^ hash(name.as_str().as_bytes()) ^ mix(inode));
        }
        for (id, inode) in &mut world.inodes {
            let salt = mix(*id ^ 0x51AB);
            let sum = || {
                let mut sum = inode.len();
                inode.media().sectors(|at, bytes| {
                    sum = sum.wrapping_add(sector_hash(salt, at, bytes));
                });
                sum
            };
            let place = Arc::as_ptr(inode) as usize;
            key = key.wrapping_add(mix(salt ^ *sums.entry(place).or_insert_with(sum)));
        }
        for (id, inode) in &mut world.inodes {
            if !inode.is_volatile() {
                continue;
            }
            let salt = mix(*id ^ 0x51AB);
            let inode = Arc::make_mut(inode);
            let taken = inode.take_sectors();
            for sector in &taken {
                let mut before = [0; 512];
                let bytes = sector.bytes();
                let before = &mut before[..bytes.len()];
                inode.media().read(sector.offset, before);
                let others = taken.iter().filter(|other| other.offset == sector.offset).count();
                if before == bytes && others == 1 {
                    continue;
                }
                let delta = sector_hash(salt, sector.offset, bytes).wrapping_sub(sector_hash(
                    salt,
                    sector.offset,
                    before,
                ));
                open.push((*id, sector.clone(), delta));
            }
        }
        // In the order in which the writes were submitted.
        open.sort_by_key(|(inode, sector, _)| (sector.write, *inode, sector.offset));
        Self { world, open, key }
    }

    /// Equal for fates that leave the same states.
    pub fn identity(&self) -> u64 {
        self.open.iter().fold(self.key, |key, (_, _, delta)| mix(key ^ delta))
    }

    /// How many sectors may be kept or lost.
    pub fn sectors(&self) -> usize {
        self.open.len()
    }

    /// For each sector, the number of the unit that it shares its fate with on a device that
    /// writes 4096 bytes whole or not at all; and how many units there are.
    pub fn units_of_4096(&self) -> (Vec<usize>, usize) {
        let mut known = BTreeMap::new();
        let unit = |(inode, sector, _): &(u64, Taken, u64)| {
            let next = known.len();
            *known.entry((*inode, sector.write, sector.offset / 4096)).or_insert(next)
        };
        let units: Vec<usize> = self.open.iter().map(unit).collect();
        let count = known.len();
        (units, count)
    }

    /// The key of the state in which these sectors are kept.
    pub fn key(&self, kept: &[bool]) -> u64 {
        let deltas = self.open.iter().zip(kept).filter(|(_, kept)| **kept);
        deltas.fold(self.key, |key, ((_, _, delta), _)| key.wrapping_add(*delta))
    }

    /// The state in which these sectors are kept: a machine that has just started.
    pub fn state(&self, kept: &[bool]) -> SimWorld {
        let mut world = self.world.clone();
        let kept = self.open.iter().zip(kept).filter(|(_, kept)| **kept);
        for ((inode, sector, _), _) in kept {
            world.inode(*inode).put_sector(sector);
        }
        SimWorld::from_state(world)
    }
}

/// Zeros count as nothing, so that it does not matter whether they are stored.
fn sector_hash(salt: u64, offset: u64, bytes: &[u8]) -> u64 {
    if bytes.iter().all(|byte| *byte == 0) { 0 } else { mix(hash(bytes) ^ mix(salt ^ offset)) }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut sum = bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        sum = (sum.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    }
    for byte in words.remainder() {
        sum = (sum.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x517C_C1B7_2722_0A95);
    }
    sum
}

fn mix(x: u64) -> u64 {
    Rng::new(x).next_u64()
}
