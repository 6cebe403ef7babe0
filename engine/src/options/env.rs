//! Options from the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::text::{duration, flag, io, memory_size, primitive, size};
use super::{Options, SyncPolicy, invalid};
use crate::error::OpenError;

/// A variable of the environment that sets one option.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// The field of [`Options`] that it sets.
    pub field: &'static str,
    /// What it may hold, in short.
    pub values: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
}

const POLICIES: &str = "every-commit, every-append, interval:10ms, records:N[:10ms], \
                        bytes:N[:10ms], never";

/// Every variable that [`Options::from_env`] reads; each field of [`Options`] has one. Sizes may be
/// in `K`, `M` or `G` of 1024, times are in `us`, `ms`, `s`, `m`, `h` or `d`.
pub const VARIABLES: &[Variable] = &[
    variable("RINGLOG_CREATE", "create", "0, 1", |o, text| put(&mut o.create, flag(text))),
    variable("RINGLOG_SEGMENT_BYTES", "format.segment_bytes", "1M to 1G", |o, text| {
        put(&mut o.format.segment_bytes, size(text).map(Some))
    }),
    variable("RINGLOG_SHARDS", "format.shards", "1 to 64", |o, text| {
        let shards = text.parse().map_err(|_| format!("{text:?} is not a number below 65536"));
        put(&mut o.format.shards, shards.map(Some))
    }),
    variable("RINGLOG_DURABILITY", "durability", "memory, written, synced", |o, text| {
        put(&mut o.durability, text.parse())
    }),
    variable("RINGLOG_SYNC", "sync", POLICIES, |o, text| put(&mut o.sync, text.parse())),
    variable("RINGLOG_STREAM_SYNC", "stream_sync", "stream=policy,stream=policy", |o, text| {
        put(&mut o.stream_sync, stream_policies(text))
    }),
    variable("RINGLOG_RECOVERY", "recovery", "strict, read-only", |o, text| {
        put(&mut o.recovery, text.parse())
    }),
    variable("RINGLOG_IO", "io", "auto, uring, blocking", |o, text| put(&mut o.io, io(text))),
    variable("RINGLOG_PRIMITIVE", "primitive", "dsync, linked", |o, text| {
        put(&mut o.primitive, primitive(text).map(Some))
    }),
    variable("RINGLOG_PROFILE_DISK", "profile_disk", "0, 1", |o, text| {
        put(&mut o.profile_disk, flag(text))
    }),
    variable("RINGLOG_PIN", "pin", "0, 1", |o, text| put(&mut o.pin, flag(text))),
    variable("RINGLOG_MEMORY_BYTES", "memory_bytes", "4M to 4G", |o, text| {
        put(&mut o.memory_bytes, memory_size(text))
    }),
    variable("RINGLOG_BATCH_BYTES_MAX", "batch_bytes_max", "64K to 8M", |o, text| {
        put(&mut o.batch_bytes_max, memory_size(text))
    }),
    variable("RINGLOG_COMMITS_IN_FLIGHT", "commits_in_flight", "1 to 8", |o, text| {
        put(&mut o.commits_in_flight, memory_size(text).map(Some))
    }),
    variable("RINGLOG_COMMIT_BYTES", "commit_bytes", "64K to 64M", |o, text| {
        put(&mut o.commit_bytes, memory_size(text).map(Some))
    }),
    variable("RINGLOG_LINGER", "linger", "up to 1s", |o, text| put(&mut o.linger, duration(text))),
    variable("RINGLOG_RETAIN_BYTES", "retention.max_bytes", "at least 4 segments", |o, text| {
        put(&mut o.retention.max_bytes, size(text).map(Some))
    }),
    variable("RINGLOG_RETAIN_AGE", "retention.max_age", "1s or more", |o, text| {
        put(&mut o.retention.max_age, duration(text).map(Some))
    }),
    variable("RINGLOG_RETAIN_SEGMENTS", "retention.max_segments", "a number", |o, text| {
        put(&mut o.retention.max_segments, super::text::number(text).map(Some))
    }),
    variable("RINGLOG_ROTATE_AFTER", "rotate_after", "1s or more", |o, text| {
        put(&mut o.rotate_after, duration(text).map(Some))
    }),
    variable("RINGLOG_INDEX_CACHE_BYTES", "index_cache_bytes", "64K to 4G", |o, text| {
        put(&mut o.index_cache_bytes, memory_size(text))
    }),
    variable("RINGLOG_TAIL_BYTES", "tail_bytes", "64K to 1G", |o, text| {
        put(&mut o.tail_bytes, memory_size(text))
    }),
];

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

const fn variable(
    name: &'static str,
    field: &'static str,
    values: &'static str,
    set: fn(&mut Options, &str) -> Result<(), String>,
) -> Variable {
    Variable { name, field, values, set }
}

impl Options {
    /// The defaults, changed by the environment: see [`VARIABLES`]. Bounds are checked when the log
    /// is opened.
    ///
    /// # Errors
    /// [`OpenError::InvalidOption`] names the variable that cannot be read, or that is none but
    /// looks like one. Other variables that begin with `RINGLOG_` are left to other programs.
    pub fn from_env() -> Result<Self, OpenError> {
        let mut options = Self::default();
        options.set_from(std::env::vars_os())?;
        Ok(options)
    }

    pub(super) fn set_from(
        &mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), OpenError> {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue; // not ours, whatever it is
            };
            let Some(variable) = VARIABLES.iter().find(|known| known.name == name) else {
                refuse_mistyped(name)?;
                continue;
            };
            let value = value.to_str().ok_or_else(|| invalid(name, "is not text"))?;
            (variable.set)(self, value).map_err(|reason| invalid(name, reason))?;
        }
        Ok(())
    }
}

const PREFIX: &str = "RINGLOG_";

/// A name that is near to one of ours was meant to be it, and must not be passed over in silence.
/// Programs on top of ringlog may have variables of their own.
fn refuse_mistyped(name: &str) -> Result<(), OpenError> {
    let is_near = |known: &Variable| {
        let by_field = known.field.to_uppercase().replace('.', "_");
        let [name, ours, by_field] = [name, known.name, &by_field].map(short);
        [ours, by_field].into_iter().any(|ours| {
            let longer = name.len().max(ours.len());
            distance(name, ours) <= longer / 4
        })
    };
    let near: Vec<&str> = VARIABLES.iter().filter(|v| is_near(v)).map(|v| v.name).collect();
    match near.is_empty() {
        true => Ok(()),
        false => Err(invalid(name, format!("there is no such option; is it {}?", near.join(", ")))),
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// How many letters have to be changed, added or left out to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// `stream=policy`, separated by commas. A name may hold `=`, but no comma.
fn stream_policies(text: &str) -> Result<BTreeMap<String, SyncPolicy>, String> {
    let mut policies = BTreeMap::new();
    for one in text.split(',').filter(|one| !one.is_empty()) {
        let (stream, policy) = one
            .rsplit_once('=')
            .filter(|(stream, _)| !stream.is_empty())
            .ok_or_else(|| format!("{one:?} is not stream=policy"))?;
        if policies.insert(stream.to_owned(), policy.parse()?).is_some() {
            return Err(format!("the stream {stream:?} is named twice"));
        }
    }
    Ok(policies)
}
