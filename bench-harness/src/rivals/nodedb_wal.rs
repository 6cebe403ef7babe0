//! nodedb-wal: segments for one writer, behind this harness's group commit.

use std::path::Path;

use nodedb_wal::mmap_reader::MmapWalReader;
use nodedb_wal::segment::discover_segments;
use nodedb_wal::writer::WalWriterConfig;
use nodedb_wal::{DwbMode, RecordType, SegmentedWal, SegmentedWalConfig};

use crate::contender::{Contender, Facts};
use crate::measurement::Class;
use crate::rivals::adapter::{Grouped, GroupedProducer, Purpose, Rival, Tally, say};
use crate::rivals::group::Sink;

/// Its own `GroupCommitter` knows single files only.
pub(crate) struct NodedbWal(Grouped<SegmentedWal>);

impl Sink for SegmentedWal {
    fn append(&mut self, record: &[u8]) -> Result<(), String> {
        let put = RecordType::Put as u32;
        SegmentedWal::append(self, put, 0, 0, 0, record).map(drop).map_err(say("append"))
    }

    fn commit(&mut self) -> Result<(), String> {
        self.sync().map_err(say("sync"))
    }
}

impl Rival for NodedbWal {
    const NAME: &'static str = "nodedb-wal";
    const VERSION: &'static str = "0.4.0";
    /// It fills a buffer of 2 MiB.
    const UNSYNCED: Class = Class::Memory;

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        let config = SegmentedWalConfig {
            writer_config: WalWriterConfig {
                // With direct I/O a commit is padded to a block, and its own readers take the
                // padding for the end of the log: what comes later is durable, and lost.
                use_direct_io: false,
                // Every record written twice, against torn pages: ringlog has nothing like it, and
                // a log that is only appended to, with checksums, needs it no more than that.
                dwb_mode: Some(DwbMode::Off),
                ..WalWriterConfig::default()
            },
            ..SegmentedWalConfig::new(dir.to_owned())
        };
        let log = SegmentedWal::open(config).map_err(say("open"))?;
        Ok(Self(Grouped::new(log, purpose)))
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for segment in discover_segments(dir).map_err(say("segments"))? {
            let mut reader = MmapWalReader::open(&segment.path).map_err(say("open"))?;
            while let Some(record) = reader.next_record().map_err(say("read"))? {
                tally.add(&record.payload);
            }
        }
        Ok(tally)
    }
}

impl Contender for NodedbWal {
    type Producer = GroupedProducer<SegmentedWal>;

    fn facts(&self) -> Facts {
        Self::usual_facts(self.0.purpose, "grouped: append, sync")
    }

    fn producer(&self, _: usize) -> Result<Self::Producer, String> {
        Ok(self.0.way_in())
    }

    fn trim(&self) -> Result<u64, String> {
        if self.0.purpose.keeps() {
            return Ok(0);
        }
        self.0.group.with(|log| {
            let report = log.truncate_before(log.next_lsn()).map_err(say("truncate"))?;
            Ok(report.segments_deleted)
        })
    }

    fn close(self) -> Result<(), String> {
        self.0.into_sink()?.commit()
    }
}
