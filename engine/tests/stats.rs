//! What a log tells of itself is what it did.

use std::time::Duration;

use ringlog::{AppendError, Durability, Format, Log, Options, ShardStats, SyncPolicy};

const SEGMENT_BYTES: u64 = 1 << 20;

fn options() -> Options {
    let format = Format { segment_bytes: Some(SEGMENT_BYTES), shards: None };
    Options { format, memory_bytes: 8 << 20, ..Options::default() }
}

/// What must hold between the figures of a shard at any time.
#[track_caller]
fn consistent(shard: &ShardStats) {
    assert!(shard.records_acknowledged <= shard.records_appended, "{shard:?}");
    assert!(shard.bytes_acknowledged <= shard.bytes_appended, "{shard:?}");
    assert!(shard.records_flushed <= shard.records_appended, "{shard:?}");
    assert!(shard.bytes_flushed <= shard.bytes_appended, "{shard:?}");
    assert!(shard.batches >= shard.commits, "{shard:?}");
    assert_eq!(shard.commit_bytes.len(), shard.commits, "{shard:?}");
    assert_eq!(shard.commit_records.len(), shard.commits, "{shard:?}");
    assert_eq!(shard.flush_latency.len(), shard.flushes, "{shard:?}");
}

#[test]
fn records_are_counted_on_their_way() {
    // Flushed only when somebody asks for it.
    let (log, _device) = Log::in_memory(Options { sync: SyncPolicy::Never, ..options() }).unwrap();
    let stream = log.stream("s").unwrap();
    for _ in 0..100 {
        drop(stream.append_with(b"0123456789", Durability::Memory).unwrap());
    }
    for _ in 0..10 {
        stream.append_batch(&[[0; 30]; 5], Durability::Written).unwrap().wait().unwrap();
    }
    let before = log.stats().shards.remove(0);
    consistent(&before);
    assert_eq!((before.records_appended, before.bytes_appended), (150, 2500));
    assert_eq!((before.records_acknowledged, before.bytes_acknowledged), (150, 2500));
    assert_eq!((before.records_flushed, before.bytes_flushed), (0, 0));

    log.flush().unwrap();
    let after = log.stats().shards.remove(0);
    consistent(&after);
    assert_eq!((after.records_flushed, after.bytes_flushed), (150, 2500));
    assert_eq!((after.records_acknowledged, after.bytes_acknowledged), (150, 2500));
    assert_eq!(after.flushes, before.flushes + 1);
    assert!(after.last_flush_ns > 0);
    log.close().unwrap();
}

#[test]
fn sizes_of_commits_and_bytes_on_the_device() {
    let (log, _device) = Log::in_memory(options()).unwrap();
    let stream = log.stream("s").unwrap();
    stream.append(b"first").unwrap().wait().unwrap();
    let before = log.stats();
    // 16 records of 4 KiB: 17 blocks with what goes round them.
    stream.append_batch(&vec![vec![7; 4096]; 16], Durability::Synced).unwrap().wait().unwrap();
    let after = log.stats();
    let (first, then) = (&before.shards[0], &after.shards[0]);
    consistent(then);
    assert_eq!(then.commits, first.commits + 1);
    assert_eq!(then.commit_records.max(), 16);
    assert_eq!(then.commit_bytes.count_between(17 << 12, 17 << 12), 1, "{then:?}");

    // A file is written once before it is used, then header, manifest and footer.
    let segments = then.bytes_prewritten / SEGMENT_BYTES;
    assert_eq!(then.bytes_prewritten, segments * SEGMENT_BYTES);
    assert!(segments >= then.rotations, "{then:?}");
    // The last one may be on its way still. Those that are prepared share a manifest.
    let (whole, manifest) = (segments.saturating_sub(1), 1);
    assert!(then.bytes_written_beside >= (whole + manifest) * 4096, "{then:?}");
    let device = then.bytes_written + then.bytes_written_beside + then.bytes_prewritten;
    assert_eq!(then.bytes_to_device(), device);
    let payload = 5.0 + 16.0 * 4096.0;
    assert_eq!(after.write_amplification(), Some(device as f64 / payload));
    assert_eq!(then.io_wq_flushes, None, "there is no io_uring");

    let rotations = then.rotations_by_reason.hand;
    log.rotate().unwrap();
    let rotated = log.stats().shards.remove(0);
    assert_eq!(rotated.rotations_by_reason.hand, rotations + 1);
    assert!(rotated.bytes_written_beside > then.bytes_written_beside, "footer and manifest");
    log.close().unwrap();
}

#[test]
fn nothing_appended_amplifies_nothing() {
    let (log, _device) = Log::in_memory(options()).unwrap();
    let stats = log.stats();
    assert_eq!(stats.write_amplification(), None);
    assert_eq!(stats.flush_latency().len(), stats.shards[0].flushes);
    assert!(stats.shards[0].recovery_time > Duration::ZERO);
    log.close().unwrap();
}

#[test]
fn flush_times_of_all_shards_are_one_histogram() {
    let format = Format { shards: Some(4), ..options().format };
    let options = Options { format, memory_bytes: 16 << 20, ..options() };
    let (log, _device) = Log::in_memory(options).unwrap();
    for name in 0..20 {
        let stream = log.stream(&format!("stream {name}")).unwrap();
        stream.append(b"x").unwrap().wait().unwrap();
    }
    let stats = log.stats();
    stats.shards.iter().for_each(consistent);
    let used = stats.shards.iter().filter(|shard| shard.flushes > 0).count();
    assert_eq!(used, 4);
    let all = stats.flush_latency();
    assert_eq!(all.len(), stats.shards.iter().map(|shard| shard.flushes).sum::<u64>());
    assert_eq!(all.max(), stats.shards.iter().map(|s| s.flush_latency.max()).max().unwrap());
    let mut commits = stats.shards[0].commit_bytes.clone();
    for shard in &stats.shards[1..] {
        commits.add(&shard.commit_bytes).unwrap();
    }
    assert_eq!(commits.len(), stats.shards.iter().map(|shard| shard.commits).sum::<u64>());
    log.close().unwrap();
}

#[test]
fn refusals_are_counted_by_reason() {
    // Large segments are not prepared before there is use for them.
    let format = Format { segment_bytes: Some(64 << 20), shards: None };
    let (log, device) = Log::in_memory(Options { format, ..options() }).unwrap();
    let stream = log.stream("s").unwrap();
    let rejections = || log.stats().shards[0].rejections;
    assert!(rejections().each().iter().all(|(_, count)| *count == 0));

    let huge = vec![0; 4 << 20];
    for _ in 0..3 {
        let refused = stream.append(&huge).unwrap_err();
        assert!(matches!(refused, AppendError::TooLarge { .. }), "{refused:?}");
    }
    assert_eq!(rejections().too_large, 3);

    // Once the watermark behind the first record is on the device, nothing else is flushed.
    stream.append(b"kept").unwrap().wait().unwrap();
    while log.stats().shards[0].flushes < 2 {
        std::thread::yield_now();
    }
    device.fail_next_flush();
    stream.append(b"lost").unwrap().wait().unwrap_err();
    let refused = stream.append(b"late").unwrap_err();
    assert!(matches!(refused, AppendError::Poisoned(_)), "{refused:?}");
    let stats = log.stats().shards.remove(0);
    assert_eq!((stats.rejections.too_large, stats.rejections.poisoned), (3, 1));
    assert_eq!(stats.flush_failures, 1);
    assert_eq!((stats.records_appended, stats.records_acknowledged), (2, 1));
}

#[test]
fn a_closed_log_still_tells() {
    let (log, _device) = Log::in_memory(options()).unwrap();
    let stream = log.stream("s").unwrap();
    stream.append(b"x").unwrap().wait().unwrap();
    log.clone().close().unwrap();
    assert_eq!(stream.append(b"y").unwrap_err(), AppendError::Closed);
    let stats = log.stats().shards.remove(0);
    consistent(&stats);
    assert_eq!(stats.rejections.closed, 1);
    assert_eq!((stats.records_flushed, stats.records_acknowledged), (1, 1));
    assert!(stats.flushes > 0);
}
