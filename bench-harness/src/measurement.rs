//! What the harness says to machines: one JSON object a line, each with a `kind`.
//!
//! `docs/bench-schema.json` says the same in JSON Schema; a test holds every printed line against
//! it. Whoever adds a field adds it there. What is not known is `null`, never a guess.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::environment::{Machine, Place};
use crate::percentile::Percentiles;
use crate::series::Series;

/// Where a record is when its append is acknowledged, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// In memory of the process: survives nothing.
    #[serde(rename = "memory")]
    Memory,
    /// In memory of the kernel: survives the end of the process.
    #[serde(rename = "page cache")]
    PageCache,
    /// Accepted by the device: survives the end of the kernel, and no power cut.
    #[serde(rename = "device cache")]
    DeviceCache,
    /// Flushed: survives a power cut.
    #[serde(rename = "media")]
    Media,
}

impl Class {
    /// Its name in reports and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::PageCache => "page cache",
            Self::DeviceCache => "device cache",
            Self::Media => "media",
        }
    }
}

/// A line of a report. The fields of each kind are refused where they are not known.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// What was measured on; the first line of a run.
    Environment(Environment),
    /// One engine in one mode under one load, in one round.
    Measurement(Box<Measurement>),
    /// One of the project's figures over all rounds.
    Figure(Series),
}

/// The machine, its disks, and what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The subcommand.
    pub bench: String,
    /// What the user called the run.
    pub name: Option<String>,
    /// The command line behind the program's name.
    pub command: Vec<String>,
    /// Version of the harness, which is that of ringlog.
    pub version: String,
    /// The commit that it was built of, with `+changes` behind it where more than that was built.
    pub commit: Option<String>,
    /// When the run began, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// What is the same for every directory.
    pub machine: Machine,
    /// One for each directory.
    pub places: Vec<Place>,
    /// How often everything is measured.
    pub rounds: u64,
    /// Length of one measurement.
    pub seconds: f64,
    /// The bound on the payload of one measurement.
    pub max_bytes: Option<u64>,
}

/// One engine in one mode under one load, in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The subcommand.
    pub bench: String,
    /// What the user called the run.
    pub name: Option<String>,
    /// Counted from 1.
    pub round: u64,
    /// "ringlog", or the name of a rival.
    pub engine: String,
    /// Its version, where it is known.
    pub version: Option<String>,
    /// Durability mode in the engine's own words.
    pub mode: String,
    /// What was measured, where rows of one mode and one load differ in something else: how many
    /// streams, which segments, which log.
    pub label: Option<String>,
    /// Where a record is when its append is acknowledged.
    pub durability: Class,
    /// Where an acknowledged record reaches the media later on: within so many ms.
    pub media_within_ms: Option<u64>,
    /// Payload of one record.
    pub record_bytes: u64,
    /// Records of one append; above 1 they are acknowledged together, and timed once.
    pub batch_records: u64,
    /// Threads that append or read.
    pub producers: u64,
    /// Appends that each of them keeps in flight; 1 is a blocked producer.
    pub outstanding: u64,
    /// Shards of the log; 1 for what has none.
    pub shards: u64,
    /// The directory that was measured on.
    pub dir: String,
    /// The device below it.
    pub device: String,
    /// Its file system.
    pub file_system: String,
    /// "io_uring", "blocking", or what the engine uses.
    pub io: Option<String>,
    /// Whether its writes bypass the page cache.
    pub direct: Option<bool>,
    /// How it makes a commit durable.
    pub primitive: Option<String>,
    /// Where arrivals came by themselves: how.
    pub open_loop: Option<OpenLoop>,
    /// Records acknowledged (or read) inside the window.
    pub records: u64,
    /// Length of the window.
    pub seconds: f64,
    /// The first by the second.
    pub records_per_second: f64,
    /// The same for payload.
    pub payload_mib_per_second: f64,
    /// From before the append, in an open loop from when it was due, to its acknowledgement.
    pub latency_us: Percentiles,
    /// Time of a commit's write and flush, as the engine has measured it.
    pub flush_us: Percentiles,
    /// Flushes that the block device has completed in the window, whoever asked for them.
    pub flushes: Option<u64>,
    /// Flushes that the engine says that it has made.
    pub flushes_claimed: Option<u64>,
    /// Bytes that the block device has written in the window, whoever wrote them.
    pub device_bytes: Option<u64>,
    /// Bytes that the engine says that it has written.
    pub device_bytes_claimed: Option<u64>,
    /// Bytes that the block device has read in the window.
    pub device_bytes_read: Option<u64>,
    /// Payload of the records.
    pub payload_bytes: u64,
    /// CPU time of the whole process in the window, the harness's own included.
    pub cpu_seconds: f64,
    /// What the disk did without a log just before and after.
    pub floor: FloorFigures,
    /// What was reached, as parts and multiples of the floor.
    pub ratio: Ratios,
    /// Why the durability that is claimed cannot be true.
    pub disqualified: Option<String>,
    /// Why the durability that is claimed could not be judged here.
    pub not_judged: Option<String>,
    /// Why the measurement ended before its time.
    pub ended_early: Option<String>,
    /// What else was counted, by name.
    pub detail: BTreeMap<String, f64>,
    /// What falls short, in words.
    pub notes: Vec<String>,
    /// Latencies in ns: HdrHistogram V2, compressed, in base64.
    pub latency_hdr: Option<String>,
    /// The same of commits.
    pub flush_hdr: Option<String>,
}

/// How arrivals came in an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenLoop {
    /// Arrivals a second, on average.
    pub offered_per_second: f64,
    /// What the engine took in a closed loop just before.
    pub saturation_per_second: f64,
    /// The first as a part of the second.
    pub part_of_saturation: f64,
    /// Seed of the arrivals.
    pub seed: u64,
    /// Arrivals that were due in the window.
    pub due: u64,
    /// Most of them that were not acknowledged at one time.
    pub in_flight_max: u64,
}

/// The floor of one measurement: rounds before and after it, merged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloorFigures {
    /// Median of pwrite + fdatasync of 4 KiB.
    pub fdatasync_4k_p50_us: Option<f64>,
    /// Median of pwritev2 with RWF_DSYNC of 4 KiB.
    pub dsync_4k_p50_us: Option<f64>,
    /// One append in whole blocks.
    pub record_blocks_bytes: u64,
    /// Median of pwrite + fdatasync of that many bytes.
    pub fdatasync_record_p50_us: Option<f64>,
    /// Median of RWF_DSYNC of that many bytes.
    pub dsync_record_p50_us: Option<f64>,
    /// The better one at that size.
    pub better: Option<String>,
    /// Its latencies.
    pub better_us: Percentiles,
    /// Sequential direct write from huge-page buffers.
    pub sequential_write_mib_per_second: Option<f64>,
    /// Sequential direct read, where it was measured.
    pub sequential_read_mib_per_second: Option<f64>,
    /// Records a second that one thread copies and checksums.
    pub copy_crc32_records_per_second: Option<f64>,
    /// The larger median by the smaller one of the better primitive, before and after; of the raw
    /// read, where something is read.
    pub moved: Option<f64>,
    /// Whether that is beyond the bound: the ratios prove nothing then.
    pub doubtful: bool,
}

/// What was reached, as parts and multiples of the floor; `null` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratios {
    /// Median latency by the better primitive's median. Only where an acknowledgement waits for a
    /// flush.
    pub p50_to_floor: Option<f64>,
    /// p99.9 by the better primitive's p99.9.
    pub p99_9_to_floor: Option<f64>,
    /// p99.9 by the better primitive's median.
    pub p99_9_to_floor_p50: Option<f64>,
    /// Records acknowledged in the time of one bare commit.
    pub records_per_floor_commit: Option<f64>,
    /// Payload rate by the rate of the sequential write.
    pub payload_to_sequential_write: Option<f64>,
    /// Bytes read, or passed over, a second, by the rate of a raw read of the same bytes.
    pub payload_to_sequential_read: Option<f64>,
    /// Records a second by those that one thread copies and checksums.
    pub records_to_copy_crc32: Option<f64>,
    /// Bytes written by the device by bytes of payload.
    pub device_to_payload: Option<f64>,
    /// CPU seconds for a million records.
    pub cpu_seconds_per_million: Option<f64>,
}

/// A histogram as other tools read it: HdrHistogram V2, compressed, in base64. `None` of an empty
/// one.
pub fn encode(histogram: &Histogram<u64>) -> Option<String> {
    let mut bytes = Vec::new();
    if histogram.is_empty() {
        return None;
    }
    // Into memory, and within the bounds of the format: it has nothing to refuse.
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).ok()?;
    Some(STANDARD.encode(bytes))
}

/// The other way.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("histogram: {error}"))?;
    Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| format!("histogram: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percentile::new_histogram;

    #[test]
    fn a_histogram_comes_back_as_it_was_and_merges() {
        let mut histogram = new_histogram();
        for value in [1, 999, 123_456, 99_000_000_000] {
            histogram.saturating_record_n(value, value % 7 + 1);
        }
        let back = decode(&encode(&histogram).unwrap()).unwrap();
        assert_eq!(back, histogram);
        let mut both = new_histogram();
        both.add(&back).unwrap();
        both.add(&histogram).unwrap();
        assert_eq!(both.len(), 2 * histogram.len());
        assert_eq!(encode(&new_histogram()), None);
        assert!(decode("no base64!").is_err());
        assert!(decode("AAAA").is_err());
    }

    #[test]
    fn classes_are_ordered_and_named_as_in_json() {
        let all = [Class::Memory, Class::PageCache, Class::DeviceCache, Class::Media];
        assert!(all.is_sorted());
        for class in all {
            assert_eq!(serde_json::to_value(class).unwrap(), class.name());
        }
    }
}
