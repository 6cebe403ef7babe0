//! The disk profile of a log: stored, found again, lost, damaged, foreign, moved, overridden.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use ringlog::disk_profile::{DiskFigures, DiskPlace, Effort, Latency, SizeFigure};
use ringlog::format::profile::StoredProfile;
use ringlog::{
    IoKind, Log, LogId, OpenError, Options, Primitive, RecoveryMode, Stats, measure_disk,
    measure_disk_of_log,
};

const FILE: &str = "disk-profile";

fn options() -> Options {
    let mut options = Options { pin: false, memory_bytes: 4 << 20, ..Options::default() };
    options.format.segment_bytes = Some(1 << 20);
    options
}

/// Opens, closes, and gives what the log told of itself.
fn stats(dir: &Path, options: Options) -> Stats {
    let log = Log::open(dir, options).unwrap();
    let stats = log.stats();
    log.close().unwrap();
    stats
}

fn stored(dir: &Path) -> StoredProfile {
    StoredProfile::decode(&std::fs::read(dir.join(FILE)).unwrap()).unwrap()
}

/// Notes about the profile.
fn notes(stats: &Stats) -> Vec<&String> {
    let about = ["The disk was", "The disk profile", "The disk could"];
    stats.notes.iter().filter(|note| about.iter().any(|text| note.starts_with(text))).collect()
}

/// A profile that no measurement here gives: what follows from it can be told from anything else.
fn odd(log: LogId, place: DiskPlace) -> StoredProfile {
    let latency = |p50_ns| Latency { p50_ns, p99_ns: p50_ns, samples: 9 };
    let figures = DiskFigures {
        effort: Effort::Full,
        dsync: latency(4_000_000),
        linked_sync: latency(1_000_000),
        write: latency(1000),
        sizes: [4096, 1 << 20]
            .map(|bytes| SizeFigure { bytes, latency: latency(u64::from(bytes) * 1000) })
            .to_vec(),
        depths: Vec::new(),
    };
    StoredProfile { log, measured_ns: 7, place, figures }
}

/// A log whose stored profile is an odd one.
fn log_with_an_odd_profile() -> (tempfile::TempDir, StoredProfile) {
    let dir = tempfile::tempdir().unwrap();
    stats(dir.path(), options());
    let found = stored(dir.path());
    let odd = odd(found.log, found.place);
    std::fs::write(dir.path().join(FILE), odd.encode()).unwrap();
    (dir, odd)
}

#[test]
fn a_new_log_is_measured_and_later_opens_use_what_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let first = stats(dir.path(), options());
    assert_eq!(notes(&first), Vec::<&String>::new());
    let file = std::fs::read(dir.path().join(FILE)).unwrap();
    let profile = first.profile.unwrap();
    assert_eq!(first.settings.primitive, profile.primitive);
    assert_eq!(profile.figures, stored(dir.path()).figures);

    let second = stats(dir.path(), options());
    assert_eq!(notes(&second), Vec::<&String>::new());
    assert_eq!(second.profile, Some(profile));
    assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), file, "it was measured once");
    assert_eq!(ringlog::verify(dir.path(), &mut |_| {}).unwrap().notes, Vec::<String>::new());
}

#[test]
fn the_settings_are_those_of_the_profile_and_an_option_wins() {
    let (dir, _) = log_with_an_odd_profile();
    let by_profile = stats(dir.path(), options());
    assert_eq!(by_profile.settings.primitive.value, Primitive::LinkedSync);
    assert!(by_profile.settings.primitive.why.contains("faster"), "{:?}", by_profile.settings);
    assert!(by_profile.commit_primitive.contains("fdatasync"), "{}", by_profile.commit_primitive);
    assert_eq!(by_profile.settings.commit_bytes.value, 256 << 10);

    let chosen =
        Options { primitive: Some(Primitive::Dsync), commit_bytes: Some(1 << 20), ..options() };
    let by_option = stats(dir.path(), chosen);
    assert_eq!(by_option.settings.primitive.value, Primitive::Dsync);
    assert_eq!(by_option.settings.primitive.why, "set by an option");
    assert!(!by_option.commit_primitive.contains("linked"), "{}", by_option.commit_primitive);
    assert_eq!(by_option.settings.commit_bytes.value, 1 << 20);
    assert!(by_option.profile.is_some(), "the profile is still told");
}

#[test]
fn a_profile_that_is_missing_damaged_or_foreign_is_measured_again() {
    let (dir, odd_one) = log_with_an_odd_profile();
    let path = dir.path().join(FILE);
    let sound = odd_one.encode();
    let mut flipped = sound.clone();
    flipped[40] ^= 1;
    let mut newer = sound.clone();
    newer[8] = 2;
    newer[4..8].fill(0);
    let crc = crc32fast::hash(&newer);
    newer[4..8].copy_from_slice(&crc.to_le_bytes());
    let foreign = StoredProfile { log: LogId([7; 16]), ..odd_one.clone() }.encode();
    let cases = [
        ("missing", None, "no profile"),
        ("flipped", Some(flipped), "checksum"),
        ("empty", Some(Vec::new()), "cut short"),
        ("cut", Some(sound[..50].to_vec()), "checksum"),
        ("too long", Some(vec![1; 10_000]), FILE),
        ("of a newer version", Some(newer), "version"),
        ("foreign", Some(foreign), "of log 07070707"),
    ];
    for (name, content, told) in cases {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let before = std::fs::read(&path).ok();
        // Who may not measure, or may not write, goes on with the defaults, and changes nothing.
        let kept = stats(dir.path(), Options { profile_disk: false, ..options() });
        assert_eq!(kept.profile, None, "{name}");
        assert_eq!(kept.settings.commit_bytes.why, "the default", "{name}");
        assert_eq!(notes(&kept).len(), usize::from(before.is_some()), "{name}: {:?}", kept.notes);
        let log = Log::open(
            dir.path(),
            Options { recovery: RecoveryMode::ReadOnly, create: false, ..options() },
        );
        assert_eq!(log.unwrap().stats().profile, None, "{name}");
        assert_eq!(std::fs::read(&path).ok(), before, "{name}");

        let again = stats(dir.path(), options());
        let notes = notes(&again);
        assert!(notes.len() == 1 && notes[0].contains(told), "{name}: {notes:?}");
        let fresh = stored(dir.path());
        assert!(fresh.measured_ns > odd_one.measured_ns, "{name}");
        assert_eq!(again.profile.unwrap().figures, fresh.figures, "{name}");
    }
}

#[test]
fn a_log_that_was_moved_is_measured_again() {
    let (dir, odd_one) = log_with_an_odd_profile();
    let elsewhere = |change: fn(&mut DiskPlace)| {
        let mut moved = odd_one.clone();
        change(&mut moved.place);
        std::fs::write(dir.path().join(FILE), moved.encode()).unwrap();
        stats(dir.path(), options())
    };
    let other_file_system = elsewhere(|place| place.file_system = "vfat".into());
    assert!(notes(&other_file_system)[0].contains("measured on vfat"));
    assert_ne!(stored(dir.path()).place.file_system, "vfat");
    let other_device = elsewhere(|place| place.device = (999, 9));
    assert!(notes(&other_device)[0].contains("device 999:9"), "{:?}", other_device.notes);
    assert_ne!(stored(dir.path()).place.device, (999, 9));
    assert_eq!(notes(&stats(dir.path(), options())), Vec::<&String>::new());
}

#[test]
fn a_log_that_is_refused_keeps_its_profile() {
    let (dir, odd_one) = log_with_an_odd_profile();
    let foreign = StoredProfile { log: LogId([7; 16]), ..odd_one }.encode();
    std::fs::write(dir.path().join(FILE), &foreign).unwrap();
    std::fs::write(dir.path().join("shard-000/manifest"), b"no manifest").unwrap();
    assert!(matches!(Log::open(dir.path(), options()), Err(OpenError::Corrupt(_))));
    assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), foreign);
}

#[test]
fn any_directory_can_be_measured_and_a_log_keeps_it_unless_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let go_on = || false;
    let measure = |keep| {
        let measure = if keep { measure_disk_of_log } else { measure_disk };
        measure(dir.path(), IoKind::Auto, Effort::Quick, &go_on)
    };
    measure(false).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(matches!(measure(true), Err(OpenError::NotFound(_))));

    let log = Log::open(dir.path(), Options { profile_disk: false, ..options() }).unwrap();
    assert!(matches!(measure(true), Err(OpenError::Locked(_))));
    measure(false).unwrap();
    assert!(!dir.path().join(FILE).exists());
    log.close().unwrap();
    let profile = measure(true).unwrap();
    let told = stats(dir.path(), Options { profile_disk: false, ..options() });
    assert_eq!(told.profile, Some(profile));

    let before = std::fs::read(dir.path().join(FILE)).unwrap();
    let stop = || true;
    measure_disk_of_log(dir.path(), IoKind::Auto, Effort::Full, &stop).unwrap();
    assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), before, "it was ended early");
}

/// What scripts/with-loop-fs.sh mounts; skipped, by name, where it cannot.
#[test]
fn btrfs_gets_one_commit_in_flight() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/with-loop-fs.sh");
    let Some(dir) = std::env::var_os("RINGLOG_TEST_DIR") else {
        let child = std::process::Command::new(script)
            .args(["btrfs", "512", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["btrfs_gets_one_commit_in_flight", "--exact", "--nocapture"])
            .output()
            .unwrap();
        if child.status.code() == Some(77) {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"skipped: btrfs_gets_one_commit_in_flight: no btrfs here\n",
            );
            return;
        }
        assert!(
            child.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&child.stdout),
            String::from_utf8_lossy(&child.stderr)
        );
        return;
    };
    if std::env::var("RINGLOG_TEST_FS").as_deref() != Ok("btrfs") {
        return; // called on another file system, by somebody else
    }
    for (name, profile_disk) in [("measured", true), ("not-measured", false)] {
        let dir = Path::new(&dir).join(name);
        let told = stats(&dir, Options { profile_disk, ..options() });
        assert_eq!(told.file_system, "btrfs");
        assert_eq!(told.settings.commits_in_flight.value, 1, "{name}");
        assert_eq!(told.profile.is_some(), profile_disk);
        let chosen = stats(&dir, Options { commits_in_flight: Some(3), profile_disk, ..options() });
        assert_eq!(chosen.settings.commits_in_flight.value, 3, "{name}: an option wins");
    }
}
