//! What a device keeps, loses and refuses.

use super::*;

fn device() -> Device {
    Device::new(1 << 20, Image::default(), Rng::new(7))
}

fn cut(keep: Keep) -> Event {
    Event::Cut { keep, effect: false }
}

fn sector(image: &Image, number: u64) -> u8 {
    let mut byte = [0];
    image.read(number * SECTOR_BYTES as u64, &mut byte);
    byte[0]
}

#[test]
fn only_a_flush_makes_durable() {
    let device = device();
    device.write(0, &[1; 1024]).unwrap();
    device.flush().unwrap();
    device.write(512, &[2; 1024]).unwrap();
    let mut now = [0; 1];
    device.read(512, &mut now).unwrap();
    assert_eq!(now, [2], "reads see the cache");
    device.now(cut(Keep::None));
    let after = device.after_cut().unwrap();
    assert_eq!((0..3).map(|n| sector(&after.image, n)).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!((after.pending, after.kept), (2, 0));
    assert_eq!(device.write(0, &[3; 512]), Err(Failed));
    assert_eq!(device.flush(), Err(Failed));
    assert_eq!(device.read(0, &mut now), Err(Failed));
    assert_eq!(device.counts().refused, 3);
}

#[test]
fn a_cut_keeps_what_its_kind_says() {
    let kept = |keep| {
        let device = device();
        for n in 0..40u8 {
            device.write(u64::from(n) * 512, &[n + 1; 512]).unwrap();
        }
        device.now(cut(keep));
        let after = device.after_cut().unwrap();
        let kept: Vec<u64> = (0..40).filter(|n| sector(&after.image, *n) != 0).collect();
        assert_eq!(kept.len(), after.kept);
        kept
    };
    assert_eq!(kept(Keep::All).len(), 40);
    assert_eq!(kept(Keep::AllButOne).len(), 39);
    assert_eq!(kept(Keep::OnlyOne).len(), 1);
    let prefix = kept(Keep::Prefix);
    assert_eq!(prefix, (0..prefix.len() as u64).collect::<Vec<_>>());
    assert!((1..40).contains(&kept(Keep::Subset).len()));
}

#[test]
fn a_reordered_cut_may_bring_back_the_older_of_two_writes() {
    let older = (0..64).any(|seed| {
        let device = Device::new(1 << 20, Image::default(), Rng::new(seed));
        device.write(0, &[1; 512]).unwrap();
        device.write(0, &[2; 512]).unwrap();
        device.now(cut(Keep::Reordered));
        let after = device.after_cut().unwrap();
        after.kept == 2 && sector(&after.image, 0) == 1
    });
    assert!(older);
}

#[test]
fn events_come_when_they_are_due() {
    let device = device();
    device.arm(When::Write(2), cut(Keep::All));
    device.write(0, &[1; 512]).unwrap();
    device.flush().unwrap();
    device.write(0, &[2; 512]).unwrap();
    assert_eq!(device.write(0, &[3; 512]), Err(Failed), "without effect");
    assert_eq!(sector(&device.after_cut().unwrap().image, 0), 2);

    let device = self::device();
    device.arm(When::Flush(1), Event::Cut { keep: Keep::None, effect: true });
    device.flush().unwrap();
    device.write(0, &[1; 512]).unwrap();
    assert_eq!(device.flush(), Err(Failed));
    assert_eq!(sector(&device.after_cut().unwrap().image, 0), 1, "with effect");

    let device = self::device();
    let when = When::Behind { kind: Kind::Footer, nth: 1, operations: 2 };
    device.arm(when, cut(Keep::All));
    for _ in 0..2 {
        device.write(0, b"RLf1 and more").unwrap();
        device.write(4096, b"RLb1").unwrap();
    }
    assert!(!device.is_dead());
    assert_eq!(device.flush(), Err(Failed));
    let after = device.after_cut().unwrap();
    assert_eq!(after.kinds, BTreeMap::from([(Kind::Batch, 2), (Kind::Footer, 2)]));
    assert_eq!(after.newest, [Kind::Footer, Kind::Batch, Kind::Footer, Kind::Batch]);
}

#[test]
fn a_failed_flush_keeps_or_drops_the_cache() {
    for drop in [false, true] {
        let device = device();
        device.write(0, b"RLb1").unwrap();
        device.write(4096, &[1; 512]).unwrap();
        device.now(Event::FailFlushes { count: 1, drop });
        assert_eq!(device.flush(), Err(Failed));
        device.flush().unwrap();
        device.now(cut(Keep::None));
        let after = device.after_cut().unwrap();
        assert_eq!(sector(&after.image, 0), if drop { 0 } else { b'R' });
        assert_eq!(sector(&after.image, 8), 1);
    }
}

#[test]
fn a_lying_flush_makes_nothing_durable() {
    let device = device();
    device.now(Event::Lie);
    device.write(0, &[1; 512]).unwrap();
    device.flush().unwrap();
    device.now(cut(Keep::None));
    assert_eq!(sector(&device.after_cut().unwrap().image, 0), 0);
    assert_eq!(device.counts().lies, 1);
}
