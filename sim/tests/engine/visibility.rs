//! What is not durable is given to nobody who has not asked for it, wherever it lies.

use ringlog::{Durability, Offset, ReadError, Reply, Request, StreamId, SyncPolicy, Visibility};
use ringlog_sim::{Class, Effect, Fault, SimDisk, When};

use crate::common::{MS, Running, open, poll, world};

fn append(shard: &mut Running, stream: StreamId, record: &[u8]) {
    let mut receipt = shard.shard.append(0, stream, &[record], Durability::Written).unwrap();
    for _ in 0..1000 {
        if let Some(end) = poll(&mut receipt) {
            return end.unwrap();
        }
        shard.turn();
    }
    panic!("an append is never acknowledged");
}

fn backward(shard: &Running) -> Vec<Vec<u8>> {
    let disk = Box::new(SimDisk::open(&shard.world));
    let reader = shard.shard.read(disk, shard.stream, None).unwrap().reverse();
    reader.map(|record| record.unwrap().payload().to_vec()).collect()
}

/// A log with a durable record of the stream and, behind it, one of another stream.
fn durable_end() -> (Running, StreamId) {
    let mut shard = open(&world(), SyncPolicy::Never);
    let other = shard.shard.create_stream("other").unwrap();
    let stream = shard.stream;
    append(&mut shard, stream, b"durable");
    append(&mut shard, other, b"last");
    assert_eq!(shard.ask_and_wait(Request::Flush), Reply::Done);
    (shard, other)
}

#[test]
fn readers_do_not_jump_over_the_durable_end_in_the_open_segment() {
    let (mut shard, other) = durable_end();
    let stream = shard.stream;
    for record in [b"b", b"c"] {
        append(&mut shard, other, record);
        append(&mut shard, stream, record);
        assert_eq!(shard.read(), [b"durable"]);
        assert_eq!(backward(&shard), [b"durable"]);
    }
    assert_eq!(shard.ask_and_wait(Request::Flush), Reply::Done);
    assert_eq!(shard.read(), [&b"durable"[..], b"b", b"c"]);
    assert_eq!(backward(&shard), [&b"c"[..], b"b", b"durable"]);
    shard.check();
}

#[test]
fn readers_do_not_jump_over_the_durable_end_in_a_segment_that_has_a_successor() {
    let (mut shard, other) = durable_end();
    let stream = shard.stream;
    let durable = shard.shard.watermarks().2;
    for at in 0..9 {
        append(&mut shard, stream, &[at; 100_000]);
    }
    // This one goes into the next segment; that it makes the flush of the first one due, the disk
    // does not say for now.
    shard.watch.hold(true);
    drop(shard.shard.append(0, other, &[[7; 200_000]], Durability::Memory).unwrap());
    shard.turns(20);
    assert!(shard.shard.watermarks().0.0 > 1 << 20, "it is not placed");
    assert_eq!(shard.shard.watermarks().2, durable);
    assert_eq!(shard.read(), [b"durable"]);
    assert_eq!(backward(&shard), [b"durable"]);
    shard.watch.hold(false);
    assert_eq!(shard.ask_and_wait(Request::Flush), Reply::Done);
    assert_eq!((shard.read().len(), backward(&shard).len()), (10, 10));
    shard.check();
}

#[test]
fn after_a_failure_a_follower_is_given_nothing_more_and_has_ended() {
    for visibility in [Visibility::Durable, Visibility::Written, Visibility::Staged] {
        let (mut shard, _) = durable_end();
        let disk = Box::new(SimDisk::open(&shard.world));
        let follower = shard.shard.follow(disk, shard.stream, Offset(0)).unwrap();
        let mut follower = follower.visibility(visibility);
        assert_eq!(follower.try_next().unwrap().unwrap().payload(), b"durable");
        // Accepted by the device, and lost in the flush that fails.
        let stream = shard.stream;
        append(&mut shard, stream, b"lost");
        shard.world.arm(Fault::new(Class::Flush, When::Nth(1), Effect::EIO));
        let _unheard = shard.ask(Request::Flush);
        shard.turns(20);
        shard.pass(10 * MS);
        shard.turns(20);
        assert!(shard.shard.poisoned().is_some());
        assert!(matches!(follower.try_next(), Err(ReadError::Disk(_))), "at {visibility:?}");
        assert!(follower.is_finished());
        assert!(follower.try_next().unwrap().is_none());
    }
}
