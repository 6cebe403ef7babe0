//! Spans and events, as a subscriber sees them.
#![cfg(feature = "tracing")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ringlog::{Format, IoKind, Log, Options};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

type Fields = BTreeMap<String, String>;

#[derive(Clone, Debug)]
struct Seen {
    name: &'static str,
    fields: Fields,
    /// Whether the span has ended; events end at once.
    ended: bool,
}

#[derive(Default)]
struct Collected {
    spans: Vec<Seen>,
    events: Vec<(Level, Fields)>,
}

/// Keeps every span and event of the log.
#[derive(Clone, Default)]
struct Collector(Arc<(Mutex<Collected>, Condvar)>);

struct Reading<'a>(&'a mut Fields);

impl Visit for Reading<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Collector {
    fn change<T>(&self, change: impl FnOnce(&mut Collected) -> T) -> T {
        let result = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    /// Waits until there is what is looked for.
    fn wait_for<T>(&self, mut look: impl FnMut(&Collected) -> Option<T>) -> T {
        let mut collected = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = look(&collected) {
                return found;
            }
            let (next, over) = self.0.1.wait_timeout(collected, Duration::from_secs(60)).unwrap();
            assert!(!over.timed_out(), "{:?}\n{:?}", next.spans, next.events);
            collected = next;
        }
    }

    fn ended(&self, name: &str) -> Fields {
        self.wait_for(|all| {
            let found = all.spans.iter().find(|span| span.name == name && span.ended);
            found.map(|span| span.fields.clone())
        })
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ringlog")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        span.record(&mut Reading(&mut fields));
        let name = span.metadata().name();
        self.change(|all| {
            all.spans.push(Seen { name, fields, ended: false });
            Id::from_u64(all.spans.len() as u64)
        })
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.change(|all| {
            values.record(&mut Reading(&mut all.spans[span.into_u64() as usize - 1].fields));
        });
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Reading(&mut fields));
        self.change(|all| all.events.push((*event.metadata().level(), fields)));
    }

    fn try_close(&self, span: Id) -> bool {
        self.change(|all| all.spans[span.into_u64() as usize - 1].ended = true);
        true
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// One test: the subscriber is that of the whole process, since writers have threads of their own.
#[test]
fn what_a_log_does_is_seen() {
    let collector = Collector::default();
    tracing::subscriber::set_global_default(collector.clone()).unwrap();
    let format = Format { segment_bytes: Some(1 << 20), shards: None };
    let options = Options { format, memory_bytes: 4 << 20, ..Options::default() };

    let (log, device) = Log::in_memory(options.clone()).unwrap();
    let recovery = collector.ended("recovery");
    for (field, value) in [("shard", "0"), ("clean", "true"), ("records", "0")] {
        assert_eq!(recovery[field], value, "{recovery:?}");
    }
    assert!(!recovery.contains_key("error"), "{recovery:?}");

    let stream = log.stream("s").unwrap();
    stream.append_batch(&[b"a", b"b", b"c"], ringlog::Durability::Synced).unwrap().wait().unwrap();
    let commit = collector.ended("commit");
    assert_eq!((commit["shard"].as_str(), commit["ok"].as_str()), ("0", "true"), "{commit:?}");
    assert!(commit["records"].parse::<u64>().unwrap() >= 1, "{commit:?}");

    assert!(collector.change(|all| all.spans.iter().all(|span| span.name != "rotation")));
    log.rotate().unwrap();
    let rotation = collector.ended("rotation");
    assert_eq!((rotation["shard"].as_str(), rotation["reason"].as_str()), ("0", r#""hand""#));

    device.fail_next_flush();
    // The next segment may be prepared beside the appends, and meet the fault first.
    let is_refused = |_| !stream.append(b"lost").is_ok_and(|receipt| receipt.wait().is_ok());
    assert!((0..10_000).any(is_refused));
    let error = collector.wait_for(|all| {
        all.events
            .iter()
            .find(|(level, _)| *level == Level::ERROR)
            .map(|(_, fields)| fields.clone())
    });
    assert_eq!(error["shard"], "0", "{error:?}");
    assert!(error["message"].contains("takes nothing any more"), "{error:?}");
    collector.wait_for(|all| {
        let failed = |span: &&Seen| span.fields.get("ok").is_some_and(|ok| ok == "false");
        all.spans.iter().find(failed).map(drop)
    });
    drop((stream, log));

    // A note is an event, too: where it comes from is the business of the disk.
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), Options { io: IoKind::Blocking, ..options }).unwrap();
    let notes = log.stats().notes;
    let told = collector.change(|all| {
        let warnings = all.events.iter().filter(|(level, _)| *level == Level::WARN);
        warnings.filter_map(|(_, fields)| fields.get("note").cloned()).collect::<Vec<_>>()
    });
    for note in notes {
        assert!(told.contains(&format!("{note:?}")), "{note} is not among {told:?}");
    }
}
