//! Histories: one seed decides several lives of a log, their faults and their recoveries, and the
//! oracle judges each recovery.
//!
//! A history has one to three shards. A shard is one [`SimWorld`], one [`Ledger`](crate::oracle::Ledger), and lives one after
//! the other: recover (perhaps with cuts and errors in it), judge, append and ask, meet the fault.
//! Damage and lies come last, since after them the shard may be gone. Shards share nothing on the
//! disk: their turns need not be interleaved to meet every combination of their states; what they
//! share is the options, cuts of the power that strike all, and that none may be taken for another.
//!
//! Not every history does everything: each leaves out a random half of the faults and of what users
//! do, so that what remains comes in numbers and mixes that an even choice would hardly give ("Swarm
//! Testing": Groce et al., 2012).
//!
//! Nothing but the seed decides anything. A history that goes wrong can be made small: [`shrink`].

mod choices;
mod ending;
mod enter;
mod following;
mod keeping;
mod life;
mod media;
mod plan;
mod shard;
mod shrink;
mod totals;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ringlog::testing::{DrivenShard, ShardIdentity};
use ringlog::{LogId, Options, Time};

use crate::faults::{Class, Fault};
use crate::{SimDisk, SimWorld, WorldOptions};

use choices::Choices;
use life::MS;
use plan::Taste;
pub use plan::{Memories, SEGMENT_BYTES};
use shard::{ShardHistory, Which};
pub use shrink::{Shrunk, shrink};
pub use totals::Totals;

/// How a history went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it met.
    pub totals: Totals,
    /// A hash of everything that the disk did.
    pub trace_hash: u64,
    /// What happened, in words; empty unless it was asked for.
    pub story: Vec<String>,
    /// What was wrong; `None` if all was well.
    pub wrong: Option<String>,
    /// How often the disk was asked for each class of operation, in the order of [`Class::ALL`]: in
    /// each life, while it was opened and afterwards. Of the first shard.
    pub operations: Vec<[[u64; Class::ALL.len()]; 2]>,
}

/// How much of a history is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tell {
    /// Nothing.
    #[default]
    Nothing,
    /// Lives, faults and verdicts.
    Lives,
    /// Also each step and each operation of the disk.
    Steps,
}

/// A fault at one place of a history that is calm otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// In which life, from 0.
    pub life: usize,
    /// While the log is opened, or afterwards.
    pub opening: bool,
    /// Counted from the beginning of that.
    pub fault: Fault,
}

/// How a history is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// What is told.
    pub tell: Tell,
    /// One short history of one shard without faults but for cuts and kills at the end of its lives.
    pub calm: bool,
    /// With this fault; only where it is calm otherwise.
    pub injection: Option<Injection>,
    /// The disk lies about every flush, and nobody tells the oracle: a history that has to go wrong.
    /// It shows that one can.
    pub control: bool,
}

/// Runs the history of a seed. With `tell`, it is told in words.
pub fn run(seed: u64, memories: &mut Memories, tell: bool) -> Report {
    let tell = if tell { Tell::Lives } else { Tell::Nothing };
    run_with(seed, &Setup { tell, ..Setup::default() }, memories)
}

/// Runs the history of a seed in this way.
pub fn run_with(seed: u64, setup: &Setup, memories: &mut Memories) -> Report {
    let (mut report, _) = play(Choices::new(seed ^ 0x71A6_10C0_57E4_11E5), setup, memories);
    report.wrong = report.wrong.map(|wrong| format!("seed {seed}: {wrong}"));
    report
}

/// What was decided, and which of it belongs together.
type Record = (Vec<u64>, Vec<Range<usize>>);

/// Runs the history that these choices make.
fn play(choices: Choices, setup: &Setup, memories: &mut Memories) -> (Report, Record) {
    let mut history = History::new(choices, setup);
    let wrong = match catch_unwind(AssertUnwindSafe(|| history.live(memories))) {
        Ok(lived) => lived.err(),
        Err(panic) => {
            *memories = Memories::default();
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Some(format!("it panicked: {}", said.unwrap_or("without a word")))
        }
    };
    history.report(wrong)
}

type Wrong<T = ()> = Result<T, String>;

struct History {
    choices: Choices,
    setup: Setup,
    shards: Vec<ShardHistory>,
    lives_mean: u64,
    story: Vec<String>,
}

impl History {
    fn new(mut choices: Choices, setup: &Setup) -> Self {
        let mut log = [0; 16];
        log[..8].copy_from_slice(&choices.next_u64().to_le_bytes());
        let taste = Taste::choose(&mut choices, setup.calm);
        let count = if setup.calm || choices.below(4) != 3 { 1 } else { 2 + choices.index(2) };
        let lives_mean = if setup.calm { 0 } else { taste.lives_mean };
        let shards = (0..count).map(|at| {
            let world = SimWorld::new(&WorldOptions {
                seed: choices.next_u64(),
                shuffled: choices.below(8) != 0,
                align_bytes: if choices.below(4) == 0 { 512 } else { 4096 },
                keep_trace: setup.tell == Tell::Steps,
                ..WorldOptions::default()
            });
            let shard = at as u16;
            let identity = ShardIdentity { log: LogId(log), shard, segment_bytes: SEGMENT_BYTES };
            ShardHistory::new(world, identity, taste.clone(), setup.clone())
        });
        let shards = shards.collect();
        Self { shards, choices, setup: setup.clone(), lives_mean, story: Vec::new() }
    }

    fn live(&mut self, memories: &mut Memories) -> Wrong {
        for shard in &mut self.shards {
            let mut disk = SimDisk::open(&shard.world);
            DrivenShard::create(&mut disk, shard.identity).map_err(|e| format!("create: {e}"))?;
        }
        let mut which = Which::Early;
        for at in 0.. {
            self.choices.enter();
            which = self.which(at, which);
            let lived = self.round(at, which, memories);
            self.choices.leave();
            lived?;
            if which == Which::End {
                break;
            }
        }
        self.mix_up(memories)
    }

    /// Whether the life that comes now is the last. What decides it belongs to the life.
    fn which(&mut self, at: u64, before: Which) -> Which {
        let chosen = self.choices.below(self.lives_mean);
        match (before, chosen) {
            (Which::Last | Which::End, _) => Which::End,
            _ if self.setup.calm && at < 2 => Which::Early,
            (_, 0) => Which::End,
            (_, 1 | 2) => Which::Last,
            _ if at > 40 => Which::Last,
            _ => Which::Early,
        }
    }

    /// A life of each shard.
    fn round(&mut self, at: u64, which: Which, memories: &mut Memories) -> Wrong {
        let options = plan::options(&mut self.choices, self.setup.calm);
        let all_cut = self.shards.len() > 1 && self.choices.below(3) == 2;
        for shard in 0..self.shards.len() {
            self.choices.enter();
            let lived = self.one_life(shard, (at, which), &options, all_cut, memories);
            self.choices.leave();
            lived?;
        }
        Ok(())
    }

    /// A life of one shard.
    fn one_life(
        &mut self,
        shard: usize,
        (at, which): (u64, Which),
        options: &Options,
        all_cut: bool,
        memories: &mut Memories,
    ) -> Wrong {
        let several = self.shards.len() > 1;
        let shard = &mut self.shards[shard];
        if shard.over {
            return Ok(());
        }
        std::mem::swap(&mut shard.rng, &mut self.choices);
        let lived = shard.live(at, which, options, all_cut, memories);
        std::mem::swap(&mut shard.rng, &mut self.choices);
        if let Err(wrong) = &lived {
            shard.tell(|| format!("  wrong: {wrong}"));
        }
        let number = shard.identity.shard;
        let lines = shard.take_story();
        self.story.extend(lines.into_iter().map(|line| match several {
            true => format!("shard {number}: {line}"),
            false => line,
        }));
        lived.map_err(|wrong| if several { format!("shard {number}: {wrong}") } else { wrong })
    }

    /// A shard in another one's place is refused, and nothing of it changes.
    fn mix_up(&mut self, memories: &mut Memories) -> Wrong {
        let [first, second, ..] = &self.shards[..] else { return Ok(()) };
        if first.over {
            return Ok(());
        }
        let options = plan::options(&mut self.choices, true);
        let memory = memories.get(&options).map_err(|error| error.to_string())?;
        let before = first.contents();
        let now = Time { mono_ns: MS, wall_ns: first.now.wall_ns };
        let disk = SimDisk::open(&first.world);
        match DrivenShard::open(disk, second.identity, &options, &memory, now) {
            Ok(_) => return Err("a shard was opened as another one".to_owned()),
            Err(error) => self.story.push(format!("one shard in the place of another: {error}")),
        }
        match self.shards[0].contents() == before {
            true => Ok(()),
            false => Err("a shard that was refused as another one has changed".to_owned()),
        }
    }

    fn report(mut self, wrong: Option<String>) -> (Report, Record) {
        if let Some(wrong) = &wrong {
            self.story.push(format!("WRONG: {wrong}"));
        }
        let mut totals = Totals::default();
        let mut trace_hash = 0_u64;
        for shard in &mut self.shards {
            totals.add(&shard.take_totals());
            trace_hash = trace_hash.rotate_left(1) ^ shard.world.trace_hash();
        }
        totals.histories = 1;
        let operations = self.shards.swap_remove(0).operations;
        let told = self.setup.tell > Tell::Nothing;
        let story = if told { self.story } else { Vec::new() };
        (Report { totals, trace_hash, story, wrong, operations }, self.choices.into_record())
    }
}
