//! The world as a test holds it: cutting the power, arming faults, looking and meddling.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlog_disk::FileName;

use crate::content::Content;
use crate::crash::{Crash, Kill, Moment};
use crate::faults::{Class, Fault, FaultPlan};
use crate::names::Names;
use crate::rng::Rng;
use crate::stats::{SimStats, Trace};
use crate::world::{ScriptedCut, World};

/// What a world is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldOptions {
    /// Decides the order of completions and everything else that is left to chance.
    pub seed: u64,
    /// What the disk says of its alignment: 512 or 4096.
    pub align_bytes: u32,
    /// Whether completions come in any legal order and number; otherwise every `reap` completes
    /// all that is in flight, in the order of submission.
    pub shuffled: bool,
    /// Whether a write behind the end makes a file longer, as real disks do it. The engine never
    /// needs that, so by default it breaks the contract. (The new length is durable at once: more
    /// than a real disk promises.)
    pub files_grow: bool,
    /// How much room files have; `None` for no limit.
    pub capacity_bytes: Option<u64>,
    /// Whether the trace is kept as text, too.
    pub keep_trace: bool,
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            align_bytes: 4096,
            shuffled: true,
            files_grow: false,
            capacity_bytes: None,
            keep_trace: false,
        }
    }
}

/// The disk of one simulated machine. Clones share it.
///
/// Methods that name a file panic when there is none of that name: they belong to tests.
#[derive(Clone, Debug)]
pub struct SimWorld(Arc<Mutex<World>>);

impl SimWorld {
    /// An empty directory.
    pub fn new(options: &WorldOptions) -> Self {
        assert!(
            [512, 4096].contains(&options.align_bytes),
            "the alignment of a simulated disk is 512 or 4096"
        );
        Self::from_state(World {
            rng: Rng::new(options.seed),
            align_bytes: u64::from(options.align_bytes),
            shuffled: options.shuffled,
            files_grow: options.files_grow,
            inodes: BTreeMap::new(),
            names: Names::default(),
            handles: BTreeMap::new(),
            flights: Vec::new(),
            late: Vec::new(),
            stalled: 0,
            next_number: 0,
            completions: 0,
            faults: FaultPlan::default(),
            scripted: None,
            capacity_bytes: options.capacity_bytes,
            others: 0,
            stats: SimStats::default(),
            trace: Trace::new(options.keep_trace),
        })
    }

    /// An empty directory, everything else by default.
    pub fn seeded(seed: u64) -> Self {
        Self::new(&WorldOptions { seed, ..WorldOptions::default() })
    }

    pub(crate) fn from_state(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        // A test that panicked elsewhere has left the state whole: every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second world in the same state, down to what is in flight; neither sees the other from
    /// here on. No disk is open on it: cut or kill it, or open one. Costs as much as there are
    /// files and operations in flight; the bytes are shared.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::from_state(self.lock().clone())
    }

    /// From here on, what happens is not traced any more: nobody will compare it.
    pub(crate) fn mute(&self) {
        self.lock().trace.mute();
    }

    /// From here on, chance goes another way: so forks of one state can part.
    pub fn reseed(&self, seed: u64) {
        self.lock().rng = Rng::new(seed);
    }

    // --- crashes

    /// Cuts the power: what is volatile is lost or kept as told, and every open disk is dead.
    pub fn crash(&self, crash: &Crash) {
        self.lock().crash(crash);
    }

    /// The process dies and the machine goes on: what has completed stays in the cache, where a
    /// later [`SimWorld::crash`] can still lose it. Every open disk is dead.
    pub fn kill(&self, kill: Kill) {
        self.lock().kill(kill);
    }

    /// Writes that [`Kill::Late`] held back reach the cache, each fully, in part or not at all.
    pub fn land_late_writes(&self) {
        self.lock().land_late();
    }

    /// The power goes off by itself at the `n`-th operation from now (at least the first).
    pub fn crash_after_ops(&self, n: u64, moment: Moment, crash: Crash) {
        self.lock().scripted = Some(ScriptedCut { operations_left: n.max(1), moment, crash });
    }

    /// Takes a scripted cut back; false when there is none, or none any more since it came.
    pub fn cancel_scripted_crash(&self) -> bool {
        self.lock().scripted.take().is_some()
    }

    /// How many units of data a power cut would decide about now: the length of the mask of
    /// [`crate::Keep::Mask`].
    pub fn volatile_units(&self, tear_bytes: u32) -> usize {
        self.lock().volatile_units(u64::from(tear_bytes.max(1)).next_multiple_of(512)).len()
    }

    /// How many changes of names are volatile now.
    pub fn volatile_names(&self) -> usize {
        self.lock().names.pending()
    }

    /// How many disks are open and not dead.
    pub fn open_disks(&self) -> usize {
        self.lock().handles.len()
    }

    // --- faults

    /// Arms a fault; it counts operations from now on.
    pub fn arm(&self, fault: Fault) {
        self.lock().faults.arm(fault);
    }

    /// Disarms the fault that was armed last.
    pub fn disarm_last(&self) {
        self.lock().faults.disarm_last();
    }

    /// How many operations of each class there were, in the order of [`Class::ALL`].
    pub fn operations(&self) -> [u64; Class::ALL.len()] {
        self.lock().faults.operations
    }

    /// The disk completes nothing the next `reaps` times that it is asked by somebody who does not
    /// wait.
    pub fn stall(&self, reaps: u64) {
        let mut world = self.lock();
        world.stalled = reaps;
        world.stats.stalls += 1;
    }

    /// Disarms all faults, the lies of the disk included.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// The disk answers every flush without doing anything, until the faults are cleared.
    pub fn lie_about_flushes(&self) {
        for fault in Fault::lying_disk() {
            self.arm(fault);
        }
    }

    /// How much room files have from now on; what is there already stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// How much room files take: those with a name and those that are open.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    // --- looking

    /// What was counted so far.
    pub fn stats(&self) -> SimStats {
        self.lock().stats.clone()
    }

    /// A hash of everything that happened, bytes included: equal for equal runs.
    pub fn trace_hash(&self) -> u64 {
        self.lock().trace.hash()
    }

    /// What happened, one line each; empty unless [`WorldOptions::keep_trace`] is set.
    pub fn trace(&self) -> Vec<String> {
        self.lock().trace.lines().to_vec()
    }

    /// The files as everybody sees them: name and length, sorted by name.
    pub fn files(&self) -> Vec<(String, u64)> {
        let world = self.lock();
        let len = |inode| world.inodes.get(&inode).map_or(0, |i| i.len());
        world.names.iter().map(|(name, inode)| (name.to_string(), len(inode))).collect()
    }

    /// Whether there is a file of this name.
    pub fn exists(&self, name: &str) -> bool {
        self.lock().names.get(&file_name(name)).is_some()
    }

    /// The content that a reader sees now. Sectors in flight show either state; a file with an
    /// unreadable sector shows nothing.
    pub fn read(&self, name: &str) -> Vec<u8> {
        let mut world = self.lock();
        let inode = inode_of(&world, name);
        let mut rng = Rng::new(0);
        let file = world.inode(inode);
        let len = file.len() as usize;
        file.read(0, len, &mut rng).unwrap_or_default()
    }

    /// The content that is on the media.
    pub fn read_durable(&self, name: &str) -> Vec<u8> {
        let mut world = self.lock();
        let inode = inode_of(&world, name);
        world.inode(inode).media().to_vec()
    }

    // --- meddling. What changes content first puts the cached writes of the file on the media;
    // what changes names first makes all names durable.

    /// Inverts one bit.
    pub fn flip_bit(&self, name: &str, bit: u64) {
        self.edit(name, |content| {
            let mut byte = [0];
            content.read(bit / 8, &mut byte);
            content.write(bit / 8, &[byte[0] ^ 1 << (bit % 8)]);
        });
    }

    /// Overwrites bytes; what would lie beyond the end is dropped.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) {
        self.edit(name, |content| content.write(offset, bytes));
    }

    /// Zeros a range of bytes.
    pub fn zero(&self, name: &str, range: Range<u64>) {
        let zeros = vec![0; range.end.saturating_sub(range.start) as usize];
        self.overwrite(name, range.start, &zeros);
    }

    /// Cuts a file off, or lengthens it with zeros.
    pub fn set_len(&self, name: &str, bytes: u64) {
        self.edit(name, |content| content.set_len(bytes));
    }

    /// Makes the sector at this offset answer EIO until it is written.
    pub fn set_unreadable(&self, name: &str, offset: u64) {
        let mut world = self.lock();
        let inode = inode_of(&world, name);
        world.inode(inode).set_unreadable(offset);
    }

    /// Puts a file there, or replaces it.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut world = self.lock();
        let inode = world.link_new(file_name(name), Content::from_bytes(bytes));
        world.names.settle(|_| ());
        debug_assert!(world.inodes.contains_key(&inode));
    }

    /// Two files change their names.
    pub fn swap(&self, a: &str, b: &str) {
        let mut world = self.lock();
        let (of_a, of_b) = (inode_of(&world, a), inode_of(&world, b));
        world.names.settle(|names| {
            names.insert(file_name(a), of_b);
            names.insert(file_name(b), of_a);
        });
    }

    /// The content of one file takes the place of another, or becomes a new file.
    pub fn duplicate(&self, from: &str, to: &str) {
        let bytes = {
            let mut world = self.lock();
            let inode = inode_of(&world, from);
            world.inode(inode).settle().to_vec()
        };
        self.put(to, &bytes);
    }

    /// Removes a file.
    pub fn delete(&self, name: &str) {
        let mut world = self.lock();
        inode_of(&world, name);
        world.names.settle(|names| {
            names.remove(&file_name(name));
        });
        world.forget_unused();
    }

    /// How many entries of the directory are no regular files with a valid name.
    pub fn set_others(&self, others: usize) {
        self.lock().others = others;
    }

    /// Makes everything durable that has completed, names included.
    pub fn settle(&self) {
        let mut world = self.lock();
        let inodes: Vec<u64> = world.inodes.keys().copied().collect();
        for inode in inodes {
            world.inode(inode).settle();
        }
        world.names.settle(|_| ());
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Content)) {
        let mut world = self.lock();
        let inode = inode_of(&world, name);
        edit(world.inode(inode).settle());
    }
}

fn file_name(name: &str) -> FileName {
    FileName::new(name).unwrap_or_else(|| panic!("{name:?} is no file name"))
}

fn inode_of(world: &World, name: &str) -> u64 {
    world.names.get(&file_name(name)).unwrap_or_else(|| panic!("there is no file {name:?}"))
}
