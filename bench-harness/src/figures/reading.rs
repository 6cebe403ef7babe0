//! Figures of reading: records at random places, one stream among many, a follower's delay.

use std::time::Duration;

use ringlog::SyncPolicy;

use super::{Bench, close};
use crate::environment::scratch;
use crate::floor::mib;
use crate::reads::{self, Content, Cost, Filled};
use crate::series::{Around, Bar, Series};
use crate::workload::{self, per_second};

/// Bytes of records in the log that is read.
const READ_BYTES: u64 = 1 << 30;
/// Records that are read at random in a round.
const RANDOM_READS: u64 = 2000;

impl Bench<'_> {
    pub(super) fn random(&self) -> Result<Vec<Series>, String> {
        let mut series = Series::new(
            "one record at a random place, cold, sealed 1 GB log: device reads / record",
            "reads",
            Bar::AtMost(2.0),
        );
        let dir = scratch(self.dir)?;
        let log = Filled::new(dir.path(), &self.options(), Content::many_streams(READ_BYTES))?;
        let mut seed = 1;
        self.repeat(|| {
            seed += 1;
            let cost = log.random(RANDOM_READS, seed)?;
            let detail = format!(
                "{} records in {:?}, {:.1} KiB each{}",
                cost.records,
                cost.elapsed,
                device_bytes(&cost)? / 1024.0 / cost.records as f64,
                warm(cost.cold),
            );
            let floor = Around::exact(cost.records as f64);
            let reads = cost.counted.reads.ok_or(NOT_COUNTED)?;
            series.add(reads as f64, floor, detail);
            Ok(())
        })?;
        Ok(vec![series])
    }

    pub(super) fn scan(&self) -> Result<Vec<Series>, String> {
        let what = "one stream of 1,000, end to end: bytes read / bytes of the shard";
        let mut bytes = Series::new(what, "B", Bar::AtMost(1.05));
        // Where batches without the stream are passed over, that counts: it is what a user waits for.
        let what = "the same: bytes of the shard that were passed, per second / raw read rate";
        let mut rate = Series::new(what, "B/s", Bar::AtLeast(0.7));
        let dir = scratch(self.dir)?;
        let log = Filled::new(dir.path(), &self.options(), Content::many_streams(READ_BYTES))?;
        let mut number = 0;
        self.repeat(|| {
            number += 7;
            let (raw, cost) = self.around(|_| log.raw_read(), || log.scan(number))?;
            let detail = format!(
                "{} records, {:.0} MiB in {:?}{}",
                cost.records,
                mib(device_bytes(&cost)?),
                cost.elapsed,
                warm(cost.cold),
            );
            let shard = Around::exact(log.bytes() as f64);
            bytes.add(device_bytes(&cost)?, shard, detail.clone());
            rate.add(per_second(log.bytes(), cost.elapsed), raw, detail);
            Ok(())
        })?;
        Ok(vec![bytes, rate])
    }

    pub(super) fn follower(&self) -> Result<Vec<Series>, String> {
        let what = "a follower at 100,000 records/s: delay p50 behind durable / 200 µs";
        let mut series = Series::new(what, "s", Bar::AtMost(1.0));
        let dir = scratch(self.dir)?;
        let log = workload::open(dir.path(), SyncPolicy::EveryCommit, &self.options())?;
        self.repeat(|| {
            let followed = reads::follow(&log, Duration::from_secs(2))?;
            let p50 = followed.percentile(50.0);
            let detail = format!(
                "p50 {:.1} µs, p99 {:.1} µs at {:.0} records/s",
                p50 * 1e6,
                followed.percentile(99.0) * 1e6,
                followed.rate,
            );
            series.add(p50, Around::exact(200e-6), detail);
            Ok(())
        })?;
        close(log)?;
        Ok(vec![series])
    }
}

const NOT_COUNTED: &str = "the device does not count its reads";

fn device_bytes(cost: &Cost) -> Result<f64, String> {
    Ok(cost.counted.bytes_read.ok_or(NOT_COUNTED)? as f64)
}

fn warm(cold: bool) -> &'static str {
    if cold { "" } else { "; the kernel's caches could not be emptied" }
}
