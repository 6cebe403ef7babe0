//! The page: each chart is drawn from what the files say, and a browser draws it in light and dark.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's failure")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringlog_bench::measurement::{Class, Environment, Line, Measurement, OpenLoop, encode};
use ringlog_bench::percentile::new_histogram;
use roxmltree::{Document, Node, ParsingOptions};
use support::{PROGRAM, text};

/// A browser that takes longer than this is killed.
const BROWSER_WITHIN: Duration = Duration::from_secs(60);

fn report(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("report").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn environment(bench: &str) -> Line {
    let mut environment: Environment =
        serde_json::from_str(include_str!("support/environment.json")).unwrap();
    environment.bench = bench.to_owned();
    Line::Environment(environment)
}

/// 20,000 latencies around `us`, half of them below.
fn histogram(us: u64) -> Option<String> {
    let mut histogram = new_histogram();
    for n in 0..20_000_u64 {
        let tail = if n % 100 == 0 { 20 } else { 1 };
        histogram.saturating_record(us * 1_000 * tail * (500 + n % 1_000) / 1_000);
    }
    encode(&histogram)
}

fn measurement(bench: &str, mode: &str, round: u64, us: u64) -> Measurement {
    let mut line: Measurement =
        serde_json::from_str(include_str!("support/measurement.json")).unwrap();
    (line.bench, line.mode, line.round) = (bench.to_owned(), mode.to_owned(), round);
    line.records_per_second = 4e6 / us as f64 * (1.0 + round as f64 / 50.0);
    (line.latency_hdr, line.flush_hdr) = (histogram(us), histogram(us * 9 / 10));
    line
}

fn json(bench: &str, measured: Vec<Measurement>) -> String {
    let lines = measured.into_iter().map(|line| Line::Measurement(Box::new(line)));
    std::iter::once(environment(bench))
        .chain(lines)
        .map(|line| serde_json::to_string(&line).unwrap() + "\n")
        .collect()
}

fn both_rounds(of: impl Fn(u64) -> Vec<Measurement>) -> Vec<Measurement> {
    (1..=2).flat_map(of).collect()
}

fn compare() -> String {
    let modes = [("memory", 2), ("written", 60), ("synced", 100), ("synced-every-append", 300)];
    json(
        "compare",
        both_rounds(|round| {
            let one = |(mode, us)| measurement("compare", mode, round, us);
            modes.map(one).to_vec()
        }),
    )
}

fn load() -> String {
    json(
        "load",
        both_rounds(|round| {
            let one = |percent: u64| {
                let mut line = measurement("load", "synced", round, 100 + percent * percent / 20);
                line.records_per_second = percent as f64 * 1_000.0;
                line.open_loop = Some(OpenLoop {
                    offered_per_second: percent as f64 * 1_000.0,
                    saturation_per_second: 100_000.0,
                    part_of_saturation: percent as f64 / 100.0,
                    seed: 1,
                    due: 1,
                    in_flight_max: 1,
                });
                line
            };
            [10, 25, 50, 80, 95].map(one).to_vec()
        }),
    )
}

fn scale() -> String {
    json(
        "scale",
        both_rounds(|round| {
            let one = |(producers, outstanding, shards, record_bytes)| {
                let mut line = measurement("scale", "synced", round, 100 + producers * 2);
                (line.producers, line.outstanding) = (producers, outstanding);
                (line.shards, line.record_bytes) = (shards, record_bytes);
                line.records_per_second = (producers * outstanding) as f64 * 9_000.0;
                line
            };
            let threads = [1, 2, 4, 16, 64].map(|n| (n, 1, 1, 256));
            let receipts = [4, 16, 64, 1024].map(|n| (2, n, 1, 256));
            let shards = [1, 2].map(|n| (4 * n, 64, n, 256));
            let bytes = [64, 4096, 65536].map(|n| (4, 1, 1, n));
            [&threads[..], &receipts[..], &shards[..], &bytes[..]]
                .concat()
                .into_iter()
                .map(one)
                .collect()
        }),
    )
}

fn rivals() -> String {
    json(
        "rivals",
        both_rounds(|round| {
            let one = |(engine, mode, us): (&str, &str, u64)| {
                let mut line = measurement("rivals", mode, round, us);
                line.engine = engine.to_owned();
                line
            };
            let mut lies = one(("liar", "sync", 1));
            lies.disqualified = Some("acknowledged without flush".to_owned());
            let mut lines = vec![lies];
            lines.extend([
                one(("sqlite", "grouped: WAL, FULL", 300)),
                one(("ringlog", "synced", 100)),
                one(("okaywal", "sync", 150)),
            ]);
            lines
        }),
    )
}

struct Page {
    // Keeps the files.
    _dir: tempfile::TempDir,
    path: PathBuf,
    text: String,
}

fn page(files: &[String]) -> Page {
    let dir = tempfile::tempdir().unwrap();
    let mut arguments = Vec::new();
    for (number, lines) in files.iter().enumerate() {
        let path = dir.path().join(format!("{number}.jsonl"));
        fs::write(&path, lines).unwrap();
        arguments.push(path.to_str().unwrap().to_owned());
    }
    let path = dir.path().join("report.html");
    arguments.extend(["--out".to_owned(), path.to_str().unwrap().to_owned()]);
    let done = report(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let text = fs::read_to_string(&path).unwrap();
    Page { _dir: dir, path, text }
}

fn parse(page: &Page) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(&page.text, options).unwrap()
}

fn charts<'a>(document: &'a Document<'a>) -> Vec<Node<'a, 'a>> {
    document.descendants().filter(|node| node.has_tag_name("svg")).collect()
}

fn chart<'a>(document: &'a Document<'a>, title: &str) -> Node<'a, 'a> {
    let is =
        |node: &Node<'_, '_>| node.attribute("aria-label").is_some_and(|l| l.starts_with(title));
    charts(document).into_iter().find(is).unwrap_or_else(|| panic!("no chart {title}"))
}

fn count(chart: Node<'_, '_>, tag: &str, class: &str) -> usize {
    let of = |node: &Node<'_, '_>| {
        node.tag_name().name() == tag
            && node.attribute("class").is_some_and(|c| c.split(' ').any(|c| c == class))
    };
    chart.descendants().filter(of).count()
}

fn circles(chart: Node<'_, '_>) -> usize {
    chart.descendants().filter(|node| node.tag_name().name() == "circle").count()
}

fn titles<'a>(chart: Node<'a, '_>) -> Vec<&'a str> {
    chart
        .descendants()
        .filter(|n| n.tag_name().name() == "title")
        .filter_map(|n| n.text())
        .collect()
}

#[test]
fn every_chart_is_drawn_from_what_was_measured() {
    let page = page(&[compare(), load(), scale(), rivals()]);
    let document = parse(&page);
    for one in charts(&document) {
        assert_eq!(one.attribute("role"), Some("img"));
        assert!(count(one, "text", "axis-name") >= 1, "{:?}", one.attribute("aria-label"));
    }
    // Four modes; p50, p90 and p99 of 40,000 records each, and no more.
    let latency = chart(&document, "Latency by percentile: 256 B, 4 threads");
    assert_eq!((count(latency, "path", "line"), count(latency, "text", "name")), (4, 4));
    assert_eq!(circles(latency), 4 * 3);
    let flushes = chart(&document, "Time of a commit's write and flush");
    assert_eq!(count(flushes, "text", "name"), 4);
    assert!(count(flushes, "rect", "bar") >= 4 * 5);
    let throughput = chart(&document, "Throughput against load");
    assert_eq!((count(throughput, "path", "line"), circles(throughput)), (1, 5));
    let tails = chart(&document, "Latency against load");
    assert_eq!(count(tails, "path", "line"), 2);
    assert_eq!(circles(tails), 2 * 5, "p50 and p99; too few samples for p99.9");
    let bars = chart(&document, "ringlog and rivals");
    assert_eq!(count(bars, "rect", "bar"), 3, "who is disqualified stands beside nobody");
    assert!(!titles(bars).iter().any(|title| title.contains("liar")), "{:?}", titles(bars));
    assert!(titles(bars)[0].starts_with("synced: "), "the fastest first: {:?}", titles(bars));
    assert!(titles(bars).iter().any(|t| t.ends_with("(ringlog 1.50x)")), "{:?}", titles(bars));
    // 1 to 64 threads; 2 to 2,048 receipts in flight; one and two shards; four sizes.
    for (what, points) in [("threads", 5), ("receipts", 6), ("shards", 2), ("bytes", 4)] {
        let curve = chart(&document, &format!("Throughput by {what}"));
        assert_eq!((count(curve, "path", "line"), circles(curve)), (1, points), "{what}");
        assert_eq!(circles(chart(&document, &format!("Latency by {what}"))), 2 * points, "{what}");
    }
    assert!(page.text.contains("Use synced: a bare commit takes 80.0 µs"), "advice");
    assert!(page.text.contains("DISQUALIFIED"), "in the table");
    for network in ["http://", "https://"] {
        let others = page.text.replace("http://www.w3.org/", "");
        assert!(!others.contains(network), "the page asks for nothing");
    }
    assert!(!page.text.contains("<script") && !page.text.contains("<link"));
}

#[test]
fn histograms_are_merged_and_not_averaged() {
    let mut first = measurement("compare", "synced", 1, 100);
    let mut second = measurement("compare", "synced", 2, 100);
    let of = |us: u64, count: u64| {
        let mut histogram = new_histogram();
        histogram.saturating_record_n(us * 1_000, count);
        encode(&histogram)
    };
    (first.latency_hdr, second.latency_hdr) = (of(100, 9_000), of(2_000, 11_000));
    let page = page(&[json("compare", vec![first, second])]);
    let document = parse(&page);
    let titles = titles(chart(&document, "Latency by percentile"));
    assert!(
        titles
            .iter()
            .any(|title| title.contains("2.00 ms at p50") || title.contains("2 ms at p50")),
        "{titles:?}"
    );
    assert!(!titles.iter().any(|title| title.contains("1.05")), "{titles:?}");
}

#[test]
fn rows_that_differ_in_their_label_only_stand_apart() {
    let line = |round, label: &str, us| {
        let mut line = measurement("rotate", "synced", round, us);
        line.label = Some(label.to_owned());
        line
    };
    let measured = both_rounds(|round| vec![line(round, "large", 100), line(round, "small", 150)]);
    let page = page(&[json("rotate", measured)]);
    let document = parse(&page);
    let latency = chart(&document, "Latency by percentile");
    assert_eq!(count(latency, "path", "line"), 2, "two rounds each");
    for name in ["synced: large", "synced: small"] {
        let cells = document
            .descendants()
            .filter(|node| node.has_tag_name("td") && node.text() == Some(name));
        assert_eq!(cells.count(), 2, "{name}: a row in each of the two tables");
    }
}

#[test]
fn what_files_say_cannot_become_markup() {
    let evil = "<script>alert(1)</script>&\"'";
    let mut line = measurement("compare", "synced", 1, 100);
    (line.dir, line.mode) = (evil.to_owned(), evil.to_owned());
    (line.device, line.file_system) = (evil.to_owned(), evil.to_owned());
    line.notes = vec![evil.to_owned()];
    line.not_judged = Some(evil.to_owned());
    let mut other = line.clone();
    other.mode = "synced".to_owned();
    let lines = json("compare", vec![line, other])
        .replace("\"/disk\"", &serde_json::to_string(evil).unwrap());
    let page = page(&[lines]);
    assert!(!page.text.contains("<script"), "escaped everywhere");
    let document = parse(&page);
    assert!(document.descendants().all(|node| !node.has_tag_name("script")));
    let heading = document.descendants().find(|node| node.tag_name().name() == "h3").unwrap();
    assert!(heading.text().unwrap().starts_with(evil));
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("report.html");
    let refused = |content: &str, says: &str| {
        let path = dir.path().join("in.jsonl");
        fs::write(&path, content).unwrap();
        let done = report(&[path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(!out.exists(), "no page of nothing");
    };
    refused("", "nothing was measured in");
    refused(&json("compare", Vec::new()), "in.jsonl");
    let good = compare();
    refused(&format!("{good}no json\n"), "in.jsonl:10: ");
    let no_environment = good.split_once('\n').unwrap().1;
    refused(no_environment, "in.jsonl:1: a run begins with its environment");
    let mut broken = measurement("compare", "synced", 1, 100);
    broken.latency_hdr = Some("AAAA".to_owned());
    refused(&json("compare", vec![broken]), "in.jsonl:2: histogram");
    let done = report(&["/nowhere/in.jsonl"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("/nowhere/in.jsonl"), "{}", text(&done.stderr));
    assert_eq!(report(&[]).status.code(), Some(2), "a file is wanted");
}

#[test]
fn a_run_on_another_machine_gives_no_common_advice() {
    let other = compare().replace("made up", "another");
    let page = page(&[compare(), other]);
    assert!(page.text.contains("None: the files are from more than one machine."));
    assert!(!page.text.contains("Use synced"));
    let mut weak = measurement("compare", "memory", 1, 2);
    weak.durability = Class::Memory;
    let alone = self::page(&[json("compare", vec![weak])]);
    assert!(alone.text.contains("Not enough figures: synced was not measured."));
}

fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        || std::env::split_paths(&path).map(|dir| dir.join("chromium")).find(|p| p.is_file());
    named.or_else(found)
}

/// What the browser makes of the page, or nothing when it did not end in time.
fn dump(browser: &Path, page: &Path, dark: bool) -> String {
    let profile = tempfile::tempdir().unwrap();
    let dom = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--dump-dom"])
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(dom.reopen().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > BROWSER_WITHIN {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{} did not end within {BROWSER_WITHIN:?}", browser.display());
        }
        thread::sleep(Duration::from_millis(20));
    }
    fs::read_to_string(dom.path()).unwrap()
}

/// Says of each chart how large it and its lines and bars are, and of the page what colours it has.
const LOOK: &str = "<script>
const said = [getComputedStyle(document.body).backgroundColor];
for (const svg of document.querySelectorAll('svg')) {
  const box = svg.getBoundingClientRect();
  let drawn = 0;
  for (const mark of svg.querySelectorAll('.line, .bar')) {
    const b = mark.getBoundingClientRect(), s = getComputedStyle(mark);
    const seen = s.stroke !== 'none' || s.fill !== 'none';
    if (seen && b.width + b.height > 0.5 && b.right <= box.right + 1 && b.bottom <= box.bottom + 1) drawn++;
  }
  said.push([Math.round(box.width), Math.round(box.height), drawn,
             svg.querySelectorAll('.line, .bar').length].join(' '));
}
document.body.dataset.said = said.join(';');
</script></body>";

#[test]
fn a_browser_draws_every_chart_in_light_and_dark() {
    let Some(browser) = browser() else {
        eprintln!(
            "SKIPPED a_browser_draws_every_chart_in_light_and_dark: no chromium on PATH or in CHROMIUM"
        );
        return;
    };
    let page = page(&[compare(), load(), scale(), rivals()]);
    let document = parse(&page);
    let expected = charts(&document).len();
    let look = page.path.with_extension("look.html");
    fs::write(&look, page.text.replace("</body>", LOOK)).unwrap();
    for (dark, ground) in [(false, "rgb(255, 255, 255)"), (true, "rgb(20, 23, 26)")] {
        let dom = dump(&browser, &look, dark);
        let said =
            dom.split_once("data-said=\"").unwrap_or_else(|| panic!("not drawn: {dom:.300}")).1;
        let mut said = said.split_once('"').unwrap().0.split(';');
        assert_eq!(said.next(), Some(ground), "dark: {dark}");
        let boxes: Vec<Vec<u64>> =
            said.map(|one| one.split(' ').map(|n| n.parse().unwrap()).collect()).collect();
        assert_eq!(boxes.len(), expected);
        for one in boxes {
            assert!(one[0] > 300 && one[1] > 80, "{one:?}");
            assert!(one[2] > 0 && one[2] == one[3], "lines and bars that are seen: {one:?}");
        }
    }
}
