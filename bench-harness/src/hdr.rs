//! Histograms for other tools: percentile distributions (`.hgrm`), and interval logs (`.hlog`).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::percentile::us_from_ns;

/// How finely a distribution is told: steps for each halving of what lies beyond.
const STEPS_PER_HALVING: u32 = 5;

/// One round: its histogram, and how long it took.
pub(crate) type Interval<'a> = (&'a Histogram<u64>, Duration);

/// Writes `name.hgrm`, of all rounds together, and `name.hlog`, an interval for each round, behind
/// one another. Writes nothing where nothing was measured.
///
/// # Errors
/// What the file system refused, in words.
pub(crate) fn write(dir: &Path, name: &str, rounds: &[Interval<'_>]) -> Result<(), String> {
    let Some(((first, _), others)) = rounds.split_first() else {
        return Ok(());
    };
    let mut merged = (*first).clone();
    for (other, _) in others {
        merged.add(*other).map_err(|error| format!("merge: {error}"))?;
    }
    if merged.is_empty() {
        return Ok(());
    }
    let said = |error: std::io::Error| format!("cannot write in {}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(said)?;
    fs::write(dir.join(format!("{name}.hgrm")), distribution(&merged)).map_err(said)?;
    fs::write(dir.join(format!("{name}.hlog")), interval_log(name, rounds)?).map_err(said)
}

/// The table that HdrHistogram's own tools print and plot; values in µs.
fn distribution(histogram: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut row = |value: u64, part: f64, count: u64| {
        let _ = write!(text, "{:12.3} {part:14.12} {count:10}", us_from_ns(value));
        // Beyond the last sample there is nothing.
        let _ = if part < 1.0 {
            writeln!(text, " {:14.2}", 1.0 / (1.0 - part))
        } else {
            writeln!(text)
        };
    };
    let mut count = 0;
    for value in histogram.iter_quantiles(STEPS_PER_HALVING) {
        count += value.count_since_last_iteration();
        row(value.value_iterated_to(), value.quantile_iterated_to(), count);
    }
    let (mean, deviation) = (histogram.mean() / 1000.0, histogram.stdev() / 1000.0);
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let max = us_from_ns(histogram.max());
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {:12}]", histogram.len());
    let (buckets, distinct) = (histogram.buckets(), histogram.distinct_values());
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {distinct:12}]");
    text
}

fn interval_log(name: &str, rounds: &[Interval<'_>]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let said = |error: &dyn std::fmt::Debug| format!("interval log: {error:?}");
    let total: Duration = rounds.iter().map(|(_, took)| *took).sum();
    let begun = SystemTime::now() - total;
    let mut log = IntervalLogWriterBuilder::new()
        .with_base_time(begun)
        .with_start_time(begun)
        // Values are kept in ns and shown in µs.
        .with_max_value_divisor(1000.0)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|error| said(&error))?;
    // A tag ends at a comma or a space.
    let tag: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let mut at = Duration::ZERO;
    for (histogram, took) in rounds {
        log.write_histogram(*histogram, at, *took, Tag::new(&tag)).map_err(|error| said(&error))?;
        at += *took;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percentile::new_histogram;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn both_files_hold_every_sample() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (new_histogram(), new_histogram());
        one.saturating_record_n(85_000, 900);
        other.saturating_record_n(2_000_000, 100);
        let second = Duration::from_secs(1);
        write(dir.path(), "a b", &[(&one, second), (&other, second)]).unwrap();

        let text = fs::read_to_string(dir.path().join("a b.hgrm")).unwrap();
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let words: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(words[1..3], ["1.000000000000", "1000"], "{text}");
        assert!(text.contains("Total count    =         1000"), "{text}");
        let half = text.lines().find(|line| line.contains(" 0.5000")).unwrap();
        assert!(half.trim_start().starts_with("85."), "{half}");

        let log = fs::read(dir.path().join("a b.hlog")).unwrap();
        let mut rounds = Vec::new();
        for entry in IntervalLogIterator::new(&log) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.tag().unwrap().as_str(), "a_b");
                let bytes = STANDARD.decode(interval.encoded_histogram()).unwrap();
                let read: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                rounds.push(read);
            }
        }
        assert_eq!(rounds, [one, other]);
    }

    #[test]
    fn nothing_measured_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "none", &[(&new_histogram(), Duration::ZERO)]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
