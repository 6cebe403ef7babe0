//! The inputs of the fuzz targets that are kept in `fuzz/`, run by the stable toolchain without a
//! fuzzer: the seeds, and every input that has ever found anything.

use std::path::PathBuf;

use ringlog_sim::fuzz::{TARGETS, replay, seeds};

fn kept(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(name)
}

#[test]
fn what_once_was_wrong_is_right() {
    let counts = replay(&kept("regressions")).expect("the inputs can be read");
    assert!(counts.iter().map(|(_, count)| count).sum::<usize>() > 0, "{counts:?}");
}

#[test]
fn every_seed_is_right_and_every_target_has_some() {
    let counts = replay(&kept("corpus")).expect("the inputs can be read");
    assert_eq!(counts.len(), TARGETS.len());
    assert!(counts.iter().all(|(_, count)| *count >= 5), "{counts:?}");
}

/// `ringlog-sim fuzz seeds fuzz/corpus` would change nothing.
#[test]
fn the_seeds_are_made_the_same_way_every_time() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/v1/log");
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let files = dirs.each_ref().map(|dir| {
        seeds(dir.path(), &golden).expect("seeds");
        let names = |target: &str| {
            let entries = std::fs::read_dir(dir.path().join(target)).expect("seeds of a target");
            let name = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.expect("an entry").file_name().into_string().expect("a name")
            };
            let mut names: Vec<String> = entries.map(name).collect();
            names.sort();
            names
        };
        TARGETS.map(|(target, _)| names(target))
    });
    assert_eq!(files[0], files[1]);
}
