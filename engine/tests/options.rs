//! Options at work: what is frozen, and machines of other sizes.

use ringlog::{Format, FrozenFormat, Log, OpenError, Options, RecoveryMode};

fn with(segment_bytes: Option<u64>, shards: Option<u16>) -> Options {
    Options { format: Format { segment_bytes, shards }, ..Options::default() }
}

#[test]
fn the_format_is_frozen_at_creation_and_checked_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let frozen = FrozenFormat { segment_bytes: 1 << 20, shards: 4 };
    let log = Log::open(dir.path(), with(Some(1 << 20), Some(4))).unwrap();
    assert_eq!(log.format(), frozen);
    log.stream("s").unwrap().append(b"x").unwrap().wait().unwrap();
    log.close().unwrap();
    for fits in [with(None, None), with(None, Some(4)), with(Some(1 << 20), None)] {
        let log = Log::open(dir.path(), fits).unwrap();
        assert_eq!(log.format(), frozen);
        assert_eq!(log.stats().shards.len(), 4);
        log.close().unwrap();
    }
    let differing = [
        (with(Some(2 << 20), None), "format.segment_bytes", 2 << 20, 1 << 20),
        (with(None, Some(1)), "format.shards", 1, 4),
    ];
    for (options, name, asks, has) in differing {
        for recovery in [RecoveryMode::Strict, RecoveryMode::ReadOnly] {
            match Log::open(dir.path(), Options { recovery, ..options.clone() }).map(drop) {
                Err(OpenError::FormatDiffers { field, asked, found }) => {
                    assert_eq!((field.as_str(), asked, found), (name, asks, has));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    // The refusals have left no lock, and nothing else.
    let log = Log::open(dir.path(), Options::default()).unwrap();
    assert_eq!(log.stream("s").unwrap().read(..).unwrap().count(), 1);
}

/// The other half of the test below, in a process of its own that may use one CPU.
const CHILD: &str = "RINGLOG_TEST_ON_ONE_CPU";

#[test]
fn a_log_opens_with_fewer_cores_than_shards() {
    if let Ok(dir) = std::env::var(CHILD) {
        let allowed = core_affinity::get_core_ids().unwrap();
        assert_eq!(allowed.len(), 1, "the test is to run on one CPU");
        use_four_shards(dir.as_ref(), 2);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    Log::open(dir.path(), with(Some(1 << 20), Some(4))).unwrap().close().unwrap();
    use_four_shards(dir.path(), 1);
    let cpu = core_affinity::get_core_ids().unwrap()[0];
    let status = std::thread::spawn(move || {
        // What a thread may use, its children inherit.
        assert!(core_affinity::set_for_current(cpu));
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_log_opens_with_fewer_cores_than_shards"])
            .env(CHILD, dir.path())
            .status()
    });
    assert!(status.join().unwrap().unwrap().success());
}

/// Appends to every shard and reads all back; `times` in total by now.
#[expect(clippy::unwrap_used, reason = "a part of a test")]
fn use_four_shards(dir: &std::path::Path, times: usize) {
    let log = Log::open(dir, Options::default()).unwrap();
    let names: Vec<String> = (0..16).map(|i| format!("stream {i}")).collect();
    let receipts: Vec<_> = names
        .iter()
        .map(|name| log.stream(name).unwrap().append(name.as_bytes()).unwrap())
        .collect();
    for receipt in receipts {
        receipt.wait().unwrap();
    }
    let used = log.stats().shards.iter().filter(|shard| shard.records_appended > 0).count();
    assert_eq!(used, 4);
    for name in &names {
        assert_eq!(log.stream(name).unwrap().read(..).unwrap().count(), times);
    }
    log.close().unwrap();
}
