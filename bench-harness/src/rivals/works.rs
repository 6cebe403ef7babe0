//! The works that are measured, and what ringlog is to reach against the best rival of a round.

use clap::ValueEnum;

use crate::measurement::Measurement;
use crate::rivals::engine::Engine;
use crate::series::Bar;

/// A work, as it is chosen on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// 256 bytes, each append durable, 1, 16 and 64 threads
    #[value(name = "append-256")]
    Append256,
    /// 4 KiB, the same
    #[value(name = "append-4k")]
    Append4k,
    /// 256 bytes, 256 receipts outstanding on two threads
    Receipts,
    /// 1,000 times 256 bytes for each durable commit, 1 and 4 threads
    Commits,
    /// 256 bytes that need not be durable, 1 and 4 threads
    Unsynced,
    /// CPU time of durable appends of 256 bytes, 64 threads
    Cpu,
    /// A log of 256-byte records read from end to end, cold
    Replay,
    /// A closed log opened again, cold, to its first durable append
    Open,
    /// Bytes that the device writes for durable appends of 4 KiB, 64 threads
    DeviceBytes,
}

/// Appending of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) record_bytes: usize,
    pub(crate) batch_records: usize,
    pub(crate) producers: usize,
    /// For each producer.
    pub(crate) outstanding: usize,
    pub(crate) unsynced: bool,
}

impl Shape {
    const fn append(record_bytes: usize, producers: usize) -> Self {
        Self { record_bytes, batch_records: 1, producers, outstanding: 1, unsynced: false }
    }

    const fn commits(producers: usize, outstanding: usize) -> Self {
        Self { batch_records: 1000, outstanding, ..Self::append(256, producers) }
    }

    const fn unsynced(producers: usize) -> Self {
        Self { unsynced: true, ..Self::append(256, producers) }
    }

    const RECEIPTS: Self = Self { outstanding: 128, ..Self::append(256, 2) };
}

/// One thing that all engines do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Append(Shape),
    Replay,
    Open,
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replay => write!(f, "replay, cold"),
            Self::Open => write!(f, "open after a clean close, cold, to the first durable append"),
            Self::Append(shape) => {
                if shape.batch_records > 1 {
                    write!(f, "{} x ", shape.batch_records)?;
                }
                write!(f, "{} B, ", shape.record_bytes)?;
                write!(f, "{}, ", if shape.unsynced { "not durable" } else { "durable" })?;
                let s = if shape.producers == 1 { "" } else { "s" };
                write!(f, "{} thread{s}", shape.producers)?;
                match shape.outstanding {
                    1 => Ok(()),
                    outstanding => write!(f, ", {outstanding} outstanding each"),
                }
            }
        }
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Metric {
    Rate,
    /// The slowest of a thousand.
    Tail,
    CpuPerMillion,
    /// Of ringlog alone: it needs no rival.
    DeviceBytes,
    Seconds,
}

impl Metric {
    /// Its unit.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "records/s",
            Self::Tail => "us at p99.9",
            Self::CpuPerMillion => "CPU s a million",
            Self::DeviceBytes => "device/payload",
            Self::Seconds => "s",
        }
    }

    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        self == Self::Rate
    }

    /// Reads it off a measurement.
    pub(crate) fn of(self, line: &Measurement) -> Option<f64> {
        match self {
            Self::Rate => Some(line.records_per_second),
            Self::Tail => line.latency_us.p99_9,
            Self::CpuPerMillion => line.ratio.cpu_seconds_per_million,
            Self::DeviceBytes => line.ratio.device_to_payload,
            Self::Seconds => Some(line.seconds),
        }
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) work: Work,
    pub(crate) ours: Engine,
    pub(crate) our_cell: Cell,
    /// What the rivals do meanwhile.
    pub(crate) their_cell: Cell,
    pub(crate) metric: Metric,
    pub(crate) bar: Bar,
}

impl Goal {
    const fn rate(work: Work, ours: Engine, shape: Shape, at_least: f64) -> Self {
        let cell = Cell::Append(shape);
        let bar = Bar::AtLeast(at_least);
        Self { work, ours, our_cell: cell, their_cell: cell, metric: Metric::Rate, bar }
    }

    const fn against(self, theirs: Shape) -> Self {
        Self { their_cell: Cell::Append(theirs), ..self }
    }

    const fn at_most(self, metric: Metric, bar: f64) -> Self {
        Self { metric, bar: Bar::AtMost(bar), ..self }
    }

    const fn cell(self, cell: Cell) -> Self {
        Self { our_cell: cell, their_cell: cell, ..self }
    }
}

/// All goals, work by work.
pub(crate) const GOALS: &[Goal] = {
    use Engine::{Ringlog, RinglogDriven};
    use Work::{Append4k, Append256, Commits, Cpu, DeviceBytes, Open, Receipts, Replay, Unsynced};
    const ONE: Shape = Shape::append(256, 1);
    const MANY: Shape = Shape::append(256, 64);
    const BLOCKS: Shape = Shape::append(4096, 64);
    &[
        Goal::rate(Append256, Ringlog, ONE, 0.9),
        Goal::rate(Append256, RinglogDriven, ONE, 1.03),
        Goal::rate(Append256, Ringlog, Shape::append(256, 16), 1.5),
        Goal::rate(Append256, Ringlog, MANY, 1.7),
        Goal::rate(Append256, Ringlog, ONE, 0.0).at_most(Metric::Tail, 1.0),
        Goal::rate(Append256, Ringlog, Shape::append(256, 16), 0.0).at_most(Metric::Tail, 1.0),
        Goal::rate(Append256, Ringlog, MANY, 0.0).at_most(Metric::Tail, 1.0),
        Goal::rate(Append4k, Ringlog, Shape::append(4096, 1), 0.9),
        Goal::rate(Append4k, RinglogDriven, Shape::append(4096, 1), 1.03),
        Goal::rate(Append4k, Ringlog, Shape::append(4096, 16), 1.3),
        Goal::rate(Append4k, Ringlog, BLOCKS, 1.6),
        Goal::rate(Receipts, Ringlog, Shape::RECEIPTS, 10.0).against(MANY),
        Goal::rate(Commits, Ringlog, Shape::commits(1, 1), 2.5),
        Goal::rate(Commits, Ringlog, Shape::commits(1, 2), 4.0).against(Shape::commits(1, 1)),
        Goal::rate(Commits, Ringlog, Shape::commits(4, 1), 4.0),
        Goal::rate(Unsynced, Ringlog, Shape::unsynced(1), 4.0),
        Goal::rate(Unsynced, Ringlog, Shape::unsynced(4), 4.0),
        Goal::rate(Cpu, Ringlog, MANY, 0.0).at_most(Metric::CpuPerMillion, 0.7),
        Goal::rate(Replay, Ringlog, ONE, 1.6).cell(Cell::Replay),
        Goal::rate(Open, Ringlog, ONE, 0.0).cell(Cell::Open).at_most(Metric::Seconds, 1.0),
        Goal::rate(DeviceBytes, Ringlog, BLOCKS, 0.0).at_most(Metric::DeviceBytes, 1.05),
    ]
};

/// The goals of these works.
pub(crate) fn goals(works: &[Work]) -> Vec<Goal> {
    GOALS.iter().filter(|goal| works.contains(&goal.work)).copied().collect()
}

/// What has to be done for these goals, each thing once. Replay comes before opening, which appends.
pub(crate) fn cells(goals: &[Goal]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for goal in goals {
        for cell in [goal.their_cell, goal.our_cell] {
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_has_goals_and_whoever_is_to_reach_one_can() {
        for work in Work::value_variants() {
            assert!(!goals(&[*work]).is_empty(), "{work:?}");
        }
        for goal in GOALS {
            if let Cell::Append(shape) = goal.our_cell {
                assert!(goal.ours.can(&shape), "{goal:?}");
            }
            let rivals = Engine::value_variants().iter().filter(|engine| engine.is_rival());
            let able = rivals.filter(|engine| match goal.their_cell {
                Cell::Append(shape) => engine.can(&shape),
                Cell::Replay | Cell::Open => engine.can_replay(),
            });
            assert!(able.count() >= 2, "{goal:?}");
        }
    }

    #[test]
    fn what_several_works_need_is_done_once() {
        let both = cells(&goals(&[Work::Append256, Work::Cpu, Work::Receipts]));
        assert_eq!(both.len(), 4);
        let ends = cells(&goals(&[Work::Open, Work::Replay]));
        assert_eq!(ends, [Cell::Replay, Cell::Open]);
    }
}
