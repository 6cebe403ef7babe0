//! The example `prometheus`, scraped.
#![cfg(feature = "metrics")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "an example's main is for `cargo run`")]
#[path = "../examples/prometheus.rs"]
mod prometheus;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn prometheus_sees_values_move() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, never_written) = std::io::pipe().unwrap();
    let example = std::thread::spawn(move || {
        prometheus::run(&path, listener, stop).map_err(|error| error.to_string())
    });

    let labels = r#"{log="example",shard="0"}"#;
    let of = |samples: &BTreeMap<String, f64>, name: &str| samples[&format!("{name}{labels}")];
    let before = scrape(address);
    // Each scrape looks anew; the example appends all the time.
    let after = loop {
        let samples = scrape(address);
        let flushes = of(&samples, "ringlog_flushes_total");
        if flushes > of(&before, "ringlog_flushes_total") + 2.0 {
            break samples;
        }
    };
    assert!(
        of(&after, "ringlog_appended_records_total")
            > of(&before, "ringlog_appended_records_total")
    );
    let records = of(&after, "ringlog_acknowledged_records_total");
    assert!(records > 0.0);
    assert_eq!(of(&after, "ringlog_acknowledged_bytes_total"), records * 4.0); // "tick"
    // What is handed on of a histogram is handed on once.
    let flushes = of(&after, "ringlog_flushes_total");
    assert_eq!(of(&after, "ringlog_flush_seconds_count"), flushes);
    let commits = of(&after, "ringlog_commits_total");
    assert_eq!(of(&after, "ringlog_commit_records_count"), commits);
    assert!(of(&after, "ringlog_commit_bytes_sum") >= commits * 4096.0 * 0.99);
    assert!(after.contains_key(
        r#"ringlog_rejected_appends_total{log="example",shard="0",reason="memory"}"#
    ));

    drop(never_written); // the end of its work
    assert_eq!(example.join().unwrap(), Ok(()));
}
