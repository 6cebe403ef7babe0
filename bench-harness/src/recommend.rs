//! Advice in words: for this disk and this work use this mode, because of these figures.
//!
//! A pure function over measurements. It promises nothing that was not measured: where a row is
//! missing, disqualified or doubtful it says so, and recommends nothing that rests on it.

use std::collections::BTreeMap;

use crate::measurement::{Class, Measurement};
use crate::percentile::Drift;
use crate::report::digits;

/// A flush up to this is one that most services can wait for.
const FAST_FLUSH_US: f64 = 1_000.0;
/// A weaker mode must bring so much more to be worth what it can lose.
const WORTH: f64 = 2.0;
/// One primitive is called the better one from here on.
const BETTER: f64 = 1.1;
/// So much of the best rate is as good as all of it.
const NEARLY: f64 = 0.9;
/// File systems that live in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// What is said of one directory under one work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    /// The directory and the work.
    pub(crate) about: String,
    /// Sentences, a paragraph each.
    pub(crate) words: Vec<String>,
}

/// Advice for every directory and work of `compare` and `disks`; `scale` and `load` of the same
/// directory add to it.
pub(crate) fn recommend(all: &[&Measurement]) -> Vec<Advice> {
    let mut works: BTreeMap<_, Vec<&Measurement>> = BTreeMap::new();
    for line in all {
        if line.engine == "ringlog" && ["compare", "disks"].contains(&line.bench.as_str()) {
            let work = (&line.dir, line.record_bytes, line.producers, line.outstanding);
            works.entry(work).or_default().push(line);
        }
    }
    let one = |((dir, bytes, threads, outstanding), lines): ((&String, _, _, _), Vec<_>)| Advice {
        about: format!(
            "{dir}: {bytes}-byte records, {threads} threads, {outstanding} in flight each"
        ),
        words: words(&lines, all),
    };
    works.into_iter().map(one).collect()
}

/// As text for a terminal; empty where there is nothing to say.
pub(crate) fn text(all: &[&Measurement]) -> String {
    let one = |advice: Advice| {
        let words: String = advice.words.iter().map(|word| format!("  {word}\n")).collect();
        format!("recommendation for {}\n{words}\n", advice.about)
    };
    recommend(all).into_iter().map(one).collect()
}

/// The rounds of one mode that prove something.
struct Proven<'a>(Vec<&'a Measurement>);

impl<'a> Proven<'a> {
    /// Or why they prove nothing.
    fn of(mode: &str, lines: &[&'a Measurement]) -> Result<Self, String> {
        let all: Vec<_> = lines.iter().filter(|line| line.mode == mode).copied().collect();
        if all.is_empty() {
            return Err(format!("{mode} was not measured"));
        }
        if let Some(why) = all.iter().find_map(|line| line.disqualified.as_ref()) {
            return Err(format!("{mode} is disqualified: {why}"));
        }
        let quiet: Vec<_> = all
            .iter()
            .filter(|line| !line.floor.doubtful && line.records_per_second > 0.0)
            .copied()
            .collect();
        if quiet.len() * 2 < all.len() || quiet.is_empty() {
            let (doubtful, rounds) = (all.len() - quiet.len(), all.len());
            return Err(format!("{mode} is doubtful in {doubtful} of {rounds} rounds"));
        }
        Ok(Self(quiet))
    }

    fn median(&self, pick: impl Fn(&Measurement) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.0.iter().filter_map(|line| pick(line)).collect();
        Drift::of(&values).map(|drift| drift.median)
    }

    fn rate(&self) -> Option<f64> {
        self.median(|line| Some(line.records_per_second))
    }
}

fn words(lines: &[&Measurement], all: &[&Measurement]) -> Vec<String> {
    let file_system = lines[0].file_system.as_str();
    if IN_MEMORY.contains(&file_system) {
        return vec![format!(
            "{file_system} lives in memory: nothing that is written here survives a power cut or a \
             reboot, whatever is flushed. Do not keep here what must not be lost; for anything else \
             use memory, since no other mode keeps more."
        )];
    }
    if let Some(lie) = lines.iter().find(|line| line.disqualified.is_some()) {
        let why = lie.disqualified.as_deref().unwrap_or_default();
        return vec![format!(
            "No mode is recommended here: {} is disqualified ({why}). What was acknowledged was not \
             flushed, so that none of the figures says what a durable append costs on this disk.",
            lie.mode
        )];
    }
    let synced = match Proven::of("synced", lines) {
        Ok(synced) => synced,
        Err(why) => return vec![format!("Not enough figures: {why}.")],
    };
    let flush = synced.median(|line| line.floor.better_us.p50);
    let (Some(flush), Some(rate)) = (flush, synced.rate()) else {
        return vec![
            "Not enough figures: too few bare commits to say what a flush takes.".to_owned(),
        ];
    };
    let mut words = if flush <= FAST_FLUSH_US {
        vec![fast(&synced, flush, rate, lines)]
    } else {
        slow(&synced, flush, rate, lines)
    };
    words.extend(primitive(&synced));
    words.extend(in_flight(lines, all));
    words.extend(load(lines, all));
    words.extend(caveat(&synced));
    words
}

fn fast(synced: &Proven<'_>, flush: f64, rate: f64, lines: &[&Measurement]) -> String {
    let waits = match synced.median(|line| line.latency_us.p50) {
        Some(p50) => format!(", and an append waits {} at the median", us(p50)),
        None => String::new(),
    };
    let weaker = match Proven::of("memory", lines).ok().and_then(|memory| memory.rate()) {
        Some(memory) if memory >= WORTH * rate => format!(
            " memory takes {} times as many ({} records/s), and loses with the process what has not \
             been written: only for what can be made again.",
            digits(memory / rate),
            digits(memory)
        ),
        _ => String::new(),
    };
    format!(
        "Use synced: a bare commit takes {} here{waits}, at {} records/s; every acknowledged record \
         survives a power cut.{weaker}",
        us(flush),
        digits(rate)
    )
}

fn slow(synced: &Proven<'_>, flush: f64, rate: f64, lines: &[&Measurement]) -> Vec<String> {
    let first = synced.0[0];
    let flight = first.producers * first.outstanding;
    let mut words = vec![format!(
        "Use synced with more outstanding: a bare commit takes {}, so that one blocked producer gets \
         at most {} appends a second. A flush covers all that waits for it: {flight} in flight made \
         {} records/s. Keep receipts in flight instead of waiting for each append.",
        us(flush),
        digits(1e6 / flush),
        digits(rate)
    )];
    let interval = match Proven::of("interval", lines) {
        Ok(interval) => interval,
        Err(why) => {
            words.push(format!("Of interval nothing can be said: {why}."));
            return words;
        }
    };
    let (within, gain) = (interval.0[0].media_within_ms, interval.rate().map(|r| r / rate));
    if let (Some(within), Some(gain)) = (within, gain.filter(|gain| *gain >= WORTH)) {
        let survives = if interval.0[0].durability == Class::PageCache {
            "Until then they survive the end of the process only"
        } else {
            "Until then they survive the end of the process and of the kernel"
        };
        words.push(format!(
            "Or use interval, where a power cut may take the appends of the last {within} ms and of \
             the flush that is under way: {} times as many ({} records/s). {survives}.",
            digits(gain),
            digits(gain * rate)
        ));
    }
    words
}

/// Which of the bare primitives is the faster one, where they differ.
fn primitive(synced: &Proven<'_>) -> Option<String> {
    let linked = synced.median(|line| line.floor.fdatasync_record_p50_us)?;
    let dsync = synced.median(|line| line.floor.dsync_record_p50_us)?;
    let (name, option, fast, slow) = if dsync < linked {
        ("RWF_DSYNC", "dsync", dsync, linked)
    } else {
        ("write + fdatasync", "linked", linked, dsync)
    };
    (slow >= BETTER * fast).then(|| {
        format!(
            "Options: {name} is the better commit primitive here ({} against {}); \
             RINGLOG_PRIMITIVE={option} fixes it.",
            us(fast),
            us(slow)
        )
    })
}

fn of<'a>(bench: &str, lines: &[&Measurement], all: &[&'a Measurement]) -> Vec<&'a Measurement> {
    let same = |line: &&&Measurement| {
        (line.bench.as_str(), line.engine.as_str(), line.mode.as_str())
            == (bench, "ringlog", "synced")
            && (&line.dir, line.record_bytes) == (&lines[0].dir, lines[0].record_bytes)
            && line.disqualified.is_none()
            && !line.floor.doubtful
    };
    all.iter().filter(same).copied().collect()
}

/// How many receipts in flight are enough.
fn in_flight(lines: &[&Measurement], all: &[&Measurement]) -> Option<String> {
    let mut rates: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for line in of("scale", lines, all) {
        if line.shards == 1 && line.producers <= 2 {
            let flight = line.producers * line.outstanding;
            rates.entry(flight).or_default().push(line.records_per_second);
        }
    }
    let medians: Vec<(u64, f64)> = rates
        .into_iter()
        .filter_map(|(flight, rates)| Some((flight, Drift::of(&rates)?.median)))
        .collect();
    let best = medians.iter().map(|(_, rate)| *rate).reduce(f64::max)?;
    let (flight, rate) = medians.iter().find(|(_, rate)| *rate >= NEARLY * best)?;
    (medians.len() >= 2).then(|| {
        format!(
            "In flight: {flight} receipts on two threads reach {} records/s, nearly the best of all \
             that was tried ({}).",
            digits(*rate),
            digits(best)
        )
    })
}

/// Up to which load latency stays near that of a flush.
fn load(lines: &[&Measurement], all: &[&Measurement]) -> Option<String> {
    let mut tails: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for line in of("load", lines, all) {
        let ratio = line.latency_us.p99.zip(line.floor.better_us.p50);
        if let (Some(open), Some((p99, floor))) = (line.open_loop, ratio) {
            let percent = (open.part_of_saturation * 100.0).round() as u64;
            tails.entry(percent).or_default().push(p99 / floor);
        }
    }
    let (percent, tail) = tails
        .into_iter()
        .filter_map(|(percent, tails)| Some((percent, Drift::of(&tails)?.median)))
        .take_while(|(_, tail)| *tail <= 10.0)
        .last()?;
    Some(format!(
        "Load: up to {percent} % of saturation p99 stays within {} bare commits.",
        digits(tail)
    ))
}

/// What the figures cannot show.
fn caveat(synced: &Proven<'_>) -> Option<String> {
    let why = synced.0.iter().find_map(|line| line.not_judged.as_ref())?;
    Some(format!(
        "Beware: whether flushes reach the media could not be judged here ({why}); the device is \
         taken at its word."
    ))
}

/// µs with a unit.
fn us(us: f64) -> String {
    crate::report::duration((us * 1e3) as u64).replace(" us", " µs")
}

#[cfg(test)]
mod tests;
