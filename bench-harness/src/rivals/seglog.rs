//! seglog: one segment file for one writer; rolled over and behind group commit by this harness.

use std::fs;
use std::path::{Path, PathBuf};

use seglog::read::Reader;
use seglog::write::Writer;

use crate::contender::{Contender, Facts};
use crate::measurement::Class;
use crate::rivals::adapter::{Grouped, GroupedProducer, Purpose, Rival, Tally, say};
use crate::rivals::group::Sink;

/// What tephra, which is built on it, recommends.
const SEGMENT_BYTES: usize = 256 << 20;
/// Frame of a record, and of the marker that ends a commit.
const FRAME_BYTES: u64 = 8;
const MARKER_BYTES: u64 = FRAME_BYTES + 9;
/// Segments kept when the log is trimmed.
const KEPT: usize = 1;

/// Segments of one log, by number.
pub(crate) struct Segments {
    dir: PathBuf,
    number: u64,
    writer: Writer<0>,
    appended: u64,
}

/// A log of segments.
pub(crate) struct Seglog(Grouped<Segments>);

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.seg"))
}

fn numbers(dir: &Path) -> Result<Vec<u64>, String> {
    let mut numbers: Vec<u64> = fs::read_dir(dir)
        .map_err(say("list"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".seg")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Segments {
    fn open(dir: &Path) -> Result<Self, String> {
        let last = numbers(dir)?.last().copied();
        let writer = match last {
            Some(number) => Writer::open(path(dir, number), SEGMENT_BYTES, 0),
            None => Writer::create(path(dir, 0), SEGMENT_BYTES, 0),
        };
        let writer = writer.map_err(say("open"))?;
        let appended = writer.last_committed_position().unwrap_or(0);
        Ok(Self { dir: dir.to_owned(), number: last.unwrap_or(0), writer, appended })
    }
}

impl Sink for Segments {
    fn append(&mut self, record: &[u8]) -> Result<(), String> {
        let needed = FRAME_BYTES + record.len() as u64 + MARKER_BYTES;
        if self.writer.remaining_bytes() < needed {
            self.commit()?;
            self.number += 1;
            self.writer = Writer::create(path(&self.dir, self.number), SEGMENT_BYTES, 0)
                .map_err(say("create"))?;
        }
        self.appended += 1;
        self.writer.append_data(record).map(drop).map_err(say("append"))
    }

    fn commit(&mut self) -> Result<(), String> {
        self.writer.commit(self.appended).map(drop).map_err(say("commit"))
    }
}

impl Rival for Seglog {
    const NAME: &'static str = "seglog";
    const VERSION: &'static str = "0.3.6";
    /// It fills a buffer of 16 KiB.
    const UNSYNCED: Class = Class::Memory;

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        Ok(Self(Grouped::new(Segments::open(dir)?, purpose)))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for number in numbers(dir)? {
            let mut reader =
                Reader::<0>::open_read_only(path(dir, number), None).map_err(say("open"))?;
            let mut records = reader.iter(0);
            while let Some(record) = records.next_record().map_err(say("read"))? {
                tally.add(&record.data);
            }
        }
        Ok(tally)
    }
}

impl Contender for Seglog {
    type Producer = GroupedProducer<Segments>;

    fn facts(&self) -> Facts {
        Self::usual_facts(self.0.purpose, "grouped: append, commit")
    }

    fn producer(&self, _: usize) -> Result<Self::Producer, String> {
        Ok(self.0.way_in())
    }

    fn trim(&self) -> Result<u64, String> {
        if self.0.purpose.keeps() {
            return Ok(0);
        }
        // Nothing below looks at the older segments: no lock is needed.
        let numbers = numbers(&self.0.group.with(|log| Ok(log.dir.clone()))?)?;
        let old = &numbers[..numbers.len().saturating_sub(KEPT)];
        let dir = self.0.group.with(|log| Ok(log.dir.clone()))?;
        for number in old {
            fs::remove_file(path(&dir, *number)).map_err(say("remove"))?;
        }
        Ok(old.len() as u64)
    }

    fn close(self) -> Result<(), String> {
        self.0.into_sink()?.commit()
    }
}
