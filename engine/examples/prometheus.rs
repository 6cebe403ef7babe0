//! A log whose statistics Prometheus can scrape, over a plain `TcpListener`.
//!
//! ```sh
//! cargo run --example prometheus --features metrics -- data 127.0.0.1:9464
//! curl http://127.0.0.1:9464/metrics
//! ```
//!
//! `Log::record_metrics` hands the statistics to whatever recorder of the `metrics` crate the
//! program has installed. Most will take `metrics-exporter-prometheus`; the recorder below shows
//! how little is needed, and keeps the example free of dependencies. Instead of records from
//! elsewhere, a thread appends one every 10 ms. Ends when stdin ends.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use ringlog::{AppendError, Log, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "data".to_owned());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9464".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("http://{}/metrics", listener.local_addr()?);
    run(Path::new(&dir), listener, std::io::stdin())
}

/// Serves the statistics of a log in `dir` until `stop` ends.
pub fn run(dir: &Path, listener: TcpListener, mut stop: impl Read) -> Result<(), Box<dyn Error>> {
    let page = Page::default();
    metrics::set_global_recorder(page.clone())?;
    let log = Log::open(dir, Options::from_env()?)?;

    let ticks = log.stream("ticks")?;
    let appending = std::thread::spawn(move || -> Result<(), AppendError> {
        loop {
            match ticks.append(b"tick") {
                Ok(_) => {}
                Err(AppendError::Full { .. }) => {} // it is counted
                Err(AppendError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let scraped = log.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // Only now are the statistics looked at.
            scraped.record_metrics("example");
            if let Err(error) = answer(&connection, &page.render()) {
                eprintln!("a scrape was not answered: {error}");
            }
        }
    });
    stop.read_to_end(&mut Vec::new())?;
    log.close()?;
    appending.join().map_err(|_| "the appending thread panicked")??;
    Ok(())
}

/// Reads a request and answers it, whatever it asks for.
fn answer(mut connection: &TcpStream, text: &str) -> std::io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = BufReader::new(connection).take(16 << 10);
    for line in request.lines() {
        if line?.is_empty() {
            break;
        }
    }
    write!(
        connection,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

/// All metrics there are, by name and labels.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Metrics>>);

#[derive(Default)]
struct Metrics {
    what: BTreeMap<String, String>,
    counters: BTreeMap<Series, Arc<AtomicU64>>,
    gauges: BTreeMap<Series, Arc<AtomicU64>>,
    histograms: BTreeMap<Series, Arc<Buckets>>,
}

/// A name, and its labels as they are written.
type Series = (String, String);

fn series(key: &Key) -> Series {
    let labels = key.labels().map(|label| {
        let value = label.value().replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        format!("{}=\"{value}\"", label.key())
    });
    (key.name().to_owned(), labels.collect::<Vec<_>>().join(","))
}

/// Counts of values in powers of 4, from a microsecond (or a millionth of what it is) upwards.
#[derive(Default)]
struct Buckets {
    counts: [AtomicU64; 32],
    /// The sum, as the bits of a float.
    sum: AtomicU64,
}

fn bound(bucket: usize) -> f64 {
    1e-6 * 4_f64.powi(bucket as i32)
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let at = (0..31).find(|at| value <= bound(*at)).unwrap_or(31);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let add = |sum: u64| Some((f64::from_bits(sum) + value).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Page {
    fn with<T>(&self, change: impl FnOnce(&mut Metrics) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn describe(&self, name: &KeyName, what: SharedString) {
        self.with(|all| all.what.insert(name.as_str().to_owned(), what.into_owned()));
    }

    /// The text format of Prometheus.
    fn render(&self) -> String {
        self.with(|all| {
            let mut text = String::new();
            let mut last = "";
            let head = |text: &mut String, name: &str, kind: &str| {
                let what = all.what.get(name).map_or("", String::as_str);
                let _ = write!(text, "# HELP {name} {what}\n# TYPE {name} {kind}\n");
            };
            for (kind, values) in [("counter", &all.counters), ("gauge", &all.gauges)] {
                for ((name, labels), value) in values {
                    if name != last {
                        head(&mut text, name, kind);
                        last = name;
                    }
                    let bits = value.load(Ordering::Relaxed);
                    let value = if kind == "gauge" { f64::from_bits(bits) } else { bits as f64 };
                    let _ = writeln!(text, "{name}{{{labels}}} {value}");
                }
            }
            for ((name, labels), buckets) in &all.histograms {
                if name != last {
                    head(&mut text, name, "histogram");
                    last = name;
                }
                let mut sum = 0;
                for (at, count) in buckets.counts.iter().enumerate() {
                    sum += count.load(Ordering::Relaxed);
                    let le = if at == 31 { "+Inf".to_owned() } else { bound(at).to_string() };
                    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{le}\"}} {sum}");
                }
                let total = f64::from_bits(buckets.sum.load(Ordering::Relaxed));
                let _ = writeln!(text, "{name}_sum{{{labels}}} {total}");
                let _ = writeln!(text, "{name}_count{{{labels}}} {sum}");
            }
            text
        })
    }
}

impl Recorder for Page {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, what: SharedString) {
        self.describe(&name, what);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, what: SharedString) {
        self.describe(&name, what);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, what: SharedString) {
        self.describe(&name, what);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.with(|all| Arc::clone(all.counters.entry(series(key)).or_default())))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.with(|all| Arc::clone(all.gauges.entry(series(key)).or_default())))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let buckets = self.with(|all| Arc::clone(all.histograms.entry(series(key)).or_default()));
        Histogram::from_arc(buckets)
    }
}
