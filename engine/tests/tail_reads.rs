//! Followers at the tail cost no reads. The kernel counts the reads of a process, so this test has
//! one of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringlog::{Format, Log, Offset, Options};

const LONG: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options { format: Format { segment_bytes: Some(1 << 20), shards: None }, ..Options::default() }
}

fn payload(offset: u64) -> Vec<u8> {
    let len = 50 + (offset * 131) % 3000;
    (0..len).map(|at| (at.wrapping_mul(7) ^ offset) as u8).collect()
}

#[test]
fn followers_at_the_tail_read_nothing_from_the_disk() {
    let home = tempfile::TempDir::new().unwrap();
    let log = Log::open(home.path(), options()).unwrap();
    let stream = log.stream("tail").unwrap();
    let followers = 20;
    let seen = AtomicU64::new(0);
    let direct_reads = || -> u64 {
        let io = std::fs::read_to_string("/proc/self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("read_bytes: ")).unwrap().parse().unwrap()
    };
    std::thread::scope(|scope| {
        stream.append(&payload(0)).unwrap().wait().unwrap();
        for _ in 0..followers {
            let mut follower = stream.follow(Offset(0)).unwrap();
            assert_eq!(follower.next_timeout(LONG).unwrap().unwrap().offset(), Offset(0));
            let seen = &seen;
            scope.spawn(move || {
                for offset in 1..400 {
                    let record = follower.next_timeout(LONG).unwrap().unwrap();
                    assert_eq!(record.offset(), Offset(offset));
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let before = direct_reads();
        for offset in 1..400 {
            stream.append(&payload(offset)).unwrap().wait().unwrap();
        }
        while seen.load(Ordering::SeqCst) < 399 * followers {
            std::thread::yield_now();
        }
        // A follower that was held up for long may have gone back to the disk now and then; each
        // of them reading everything would be 20 times 600 KB.
        let read = direct_reads() - before;
        assert!(read < 3 << 20, "{read} bytes were read");
    });
}
