//! What histories have met.

use std::fmt;

/// What histories have met; sums over many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Histories.
    pub histories: u64,
    /// Their shards.
    pub shards: u64,
    /// Lives.
    pub lives: u64,
    /// Appends that were accepted.
    pub appends: u64,
    /// Their records.
    pub records: u64,
    /// Appends that were acknowledged at the level they asked for.
    pub acknowledged: u64,
    /// Appends that a recovery found again, summed over the recoveries.
    pub recovered: u64,
    /// Appends that a recovery cut off.
    pub cut_off: u64,
    /// Records that recoveries wrote again.
    pub rewritten: u64,
    /// Recoveries that were judged.
    pub recoveries: u64,
    /// Recoveries that were cut or failed, and begun again.
    pub recoveries_disturbed: u64,
    /// Power cuts, those inside recoveries included.
    pub power_cuts: u64,
    /// Deaths of the process.
    pub kills: u64,
    /// Clean closes.
    pub closes: u64,
    /// Errors, lies, lost and misdirected writes that struck.
    pub faults: u64,
    /// Files that were damaged.
    pub damages: u64,
    /// Damage, lies and lost writes that were met with a loud error.
    pub loud: u64,
    /// Lives in which the disk was full.
    pub full_disks: u64,
    /// Appends refused because the disk was full.
    pub refused_disk: u64,
    /// Appends refused for want of memory.
    pub refused_memory: u64,
    /// Segments opened for writing.
    pub rotations: u64,
    /// Segments made of trimmed ones.
    pub recycled: u64,
    /// Segments that were trimmed.
    pub trimmed: u64,
    /// Segments that retention trimmed, because of their number.
    pub trimmed_by_number: u64,
    /// Because of their bytes.
    pub trimmed_by_bytes: u64,
    /// Because of their age.
    pub trimmed_by_age: u64,
    /// Segments that went because all in them was trimmed.
    pub trimmed_by_streams: u64,
    /// Jumps of the wall clock.
    pub clock_jumps: u64,
    /// Trims of single streams.
    pub stream_trims: u64,
    /// Segments sealed for their age.
    pub sealed_by_age: u64,
    /// Times that memory ran low.
    pub pressure: u64,
    /// Indexes stored, or torn by a crash.
    pub stores: u64,
    /// Times that the disk completed nothing for a while.
    pub stalls: u64,
    /// Followers.
    pub followers: u64,
    /// Records that they were given.
    pub followed: u64,
    /// Followers that were told that what they were given may never have been durable.
    pub retracted: u64,
    /// Reads beside the writer that failed, or were wrong.
    pub wrong_reads: u64,
    /// Readers that told of one.
    pub wrong_reads_told: u64,
    /// Operations that the disk carried out on data.
    pub data_operations: u64,
}

impl Totals {
    /// Everything that counts as a fault: cuts, deaths, errors, lies, wrong reads, damage, full
    /// disks, jumps of the clock, and times that the disk stood still.
    pub fn all_faults(&self) -> u64 {
        let struck = self.power_cuts + self.kills + self.faults + self.damages;
        struck + self.full_disks + self.clock_jumps + self.stalls
    }

    fn numbers(&mut self) -> [(&'static str, &mut u64); 39] {
        [
            ("histories", &mut self.histories),
            ("shards", &mut self.shards),
            ("lives", &mut self.lives),
            ("appends", &mut self.appends),
            ("records", &mut self.records),
            ("acknowledged", &mut self.acknowledged),
            ("recovered", &mut self.recovered),
            ("cut off", &mut self.cut_off),
            ("records rewritten", &mut self.rewritten),
            ("recoveries judged", &mut self.recoveries),
            ("recoveries disturbed", &mut self.recoveries_disturbed),
            ("power cuts", &mut self.power_cuts),
            ("kills", &mut self.kills),
            ("clean closes", &mut self.closes),
            ("errors and lies", &mut self.faults),
            ("files damaged", &mut self.damages),
            ("loud", &mut self.loud),
            ("full disks", &mut self.full_disks),
            ("refused for disk", &mut self.refused_disk),
            ("refused for memory", &mut self.refused_memory),
            ("segments opened", &mut self.rotations),
            ("recycled", &mut self.recycled),
            ("trimmed", &mut self.trimmed),
            ("  for their number", &mut self.trimmed_by_number),
            ("  for their bytes", &mut self.trimmed_by_bytes),
            ("  for their age", &mut self.trimmed_by_age),
            ("  for their streams", &mut self.trimmed_by_streams),
            ("jumps of the clock", &mut self.clock_jumps),
            ("trims of streams", &mut self.stream_trims),
            ("sealed for their age", &mut self.sealed_by_age),
            ("memory low", &mut self.pressure),
            ("indexes stored", &mut self.stores),
            ("disk stalls", &mut self.stalls),
            ("followers", &mut self.followers),
            ("records followed", &mut self.followed),
            ("followers retracted", &mut self.retracted),
            ("reads gone wrong", &mut self.wrong_reads),
            ("  readers told", &mut self.wrong_reads_told),
            ("data operations", &mut self.data_operations),
        ]
    }

    /// Adds those of other histories.
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for ((_, sum), (_, more)) in self.numbers().into_iter().zip(other.numbers()) {
            *sum += *more;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, number) in self.clone().numbers() {
            writeln!(f, "{name:>22}: {number}")?;
        }
        Ok(())
    }
}
