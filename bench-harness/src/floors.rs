//! `floor`: what the disk does without a log, size by size.

use std::path::Path;
use std::time::Duration;

use crate::bare::{self, BareDisk};
use crate::bench::Bench;
use crate::compare::finish;
use crate::contender::Facts;
use crate::counters::{Counted, Device};
use crate::environment::interrupted;
use crate::floor::{Primitive, record_size};
use crate::measurement::Class;
use crate::percentile::new_histogram;
use crate::report::{Failure, Out};
use crate::run::{RECORD_BYTES_MAX, Run, within};
use crate::summary::Summary;
use crate::workload::{Load, Outcome};

/// One sequential write or read.
const SEQUENTIAL_BYTES: usize = 1 << 20;

/// Which sizes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Bytes of a commit, in whole blocks of 4 KiB
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "4096,16384,65536,262144,1048576",
        value_parser = |text: &str| within(text, 1, RECORD_BYTES_MAX))]
    sizes: Vec<usize>,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
enum Bare {
    Commit(Primitive, usize),
    Write,
    Read,
    Copy(usize),
}

impl Bare {
    fn label(self) -> String {
        match self {
            Self::Commit(primitive, bytes) => format!("{}, {bytes} B", primitive.name()),
            Self::Write => "sequential write".to_owned(),
            Self::Read => "sequential read".to_owned(),
            Self::Copy(bytes) => format!("copy + crc32, {bytes} B"),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Commit(_, bytes) | Self::Copy(bytes) => bytes,
            Self::Write | Self::Read => SEQUENTIAL_BYTES,
        }
    }

    fn facts(self, direct: bool) -> Facts {
        let (mode, class) = match self {
            Self::Commit(primitive, _) => (primitive.name(), Class::Media),
            Self::Write if direct => ("sequential write", Class::DeviceCache),
            Self::Write => ("sequential write", Class::PageCache),
            // Nothing is acknowledged.
            Self::Read => ("sequential read", Class::Memory),
            Self::Copy(_) => ("copy + crc32", Class::Memory),
        };
        Facts { direct: Some(direct), ..Facts::new("bare", None, mode, class) }
    }

    fn measure(self, disk: &BareDisk, dir: &Path, window: Duration) -> Result<Outcome, String> {
        let device = Device::of(dir);
        let before = device.look();
        let mut latency = new_histogram();
        let (records, elapsed) = match self {
            Self::Commit(primitive, bytes) => {
                let done = disk.commits(primitive, bytes, window)?;
                done.latencies_ns.iter().for_each(|ns| latency.saturating_record(*ns));
                (done.latencies_ns.len() as u64, None)
            }
            Self::Write => {
                let rate = disk.sequential_write(window)?;
                ((rate * window.as_secs_f64()) as u64 / SEQUENTIAL_BYTES as u64, Some(window))
            }
            Self::Read => {
                let (bytes, rate) = disk.sequential_read()?;
                let took = Duration::from_secs_f64(bytes as f64 / rate.max(1.0));
                (bytes / SEQUENTIAL_BYTES as u64, Some(took))
            }
            Self::Copy(bytes) => {
                let rate = bare::copy_and_checksum(bytes, window);
                ((rate * window.as_secs_f64()) as u64, Some(window))
            }
        };
        let counted: Counted = device.look().since(&before);
        let sum: u64 =
            latency.iter_recorded().map(|v| v.count_at_value() * v.value_iterated_to()).sum();
        let elapsed = elapsed.unwrap_or(Duration::from_nanos(sum));
        let payload = records * self.bytes() as u64;
        let facts = self.facts(disk.note().is_none());
        Ok(Outcome { latency, counted, ..Outcome::of(facts, records, payload, elapsed) })
    }
}

/// Measures the floor of one directory.
///
/// # Errors
/// What could not be measured, or written, in words.
pub(crate) fn run_in(
    arguments: &Arguments,
    dir: &Path,
    number: usize,
    out: &mut Out,
) -> Result<(), Failure> {
    out.print(&format!(
        "\n{}\nbare primitives, one at a time; {} rounds\n\n",
        dir.display(),
        arguments.run.rounds
    ))?;
    let mut all = Vec::new();
    for bytes in &arguments.sizes {
        let bytes = record_size(*bytes);
        all.extend(Primitive::ALL.map(|primitive| Bare::Commit(primitive, bytes)));
        all.push(Bare::Copy(bytes));
    }
    all.extend([Bare::Write, Bare::Read]);
    let mut bench = Bench::new(&arguments.run, "floor", dir)?;
    // A file of its own: what is measured takes turns with the floor as all else does.
    let disk = BareDisk::create_named(bench.path(), "measured")?;
    let mut summary = Summary::default();
    for round in 1..=arguments.run.rounds {
        for bare in &all {
            if interrupted() || summary.has_failed(&bare.label()) {
                continue;
            }
            out.progress(&format!("round {round}, {}", bare.label()));
            let load: Load = bench.load(bare.bytes(), 1, 1);
            let measured = bench.measure_by(round, &load, |dir| {
                Ok(bare.measure(&disk, dir, arguments.run.seconds)?.into())
            });
            summary.take(&bare.label(), measured, out)?;
        }
    }
    finish(&bench, &summary, "bare", arguments.sizes[0], number, out)
}
