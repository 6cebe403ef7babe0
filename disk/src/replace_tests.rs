//! Replacing files by name on the real kernel.

#![cfg(not(miri))]

use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use crate::any::AnyDisk;
use crate::dir::Dir;
use crate::names::Runner;
use crate::op::{Disk, Done, FileName, Op, Tag, Wait, run};
use crate::options::{DiskOptions, IoKind};
use crate::{open, suite};

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn replace(disk: &mut AnyDisk, text: &str, content: &[u8]) {
    let op = Op::Replace { name: name(text), content: content.to_vec() };
    run(disk, op).result.unwrap();
}

#[test]
fn a_file_that_is_replaced_often_is_never_seen_in_part() {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let stop = AtomicBool::new(false);
    let content = |round: usize| vec![round as u8; 1 + round * 7919 % 60_000];
    std::thread::scope(|scope| {
        let mut loaders = Vec::new();
        let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
        replace(&mut disk, "manifest", &content(0));
        for _ in 0..2 {
            let (dir, stop) = (Dir::open(home.path()).unwrap(), &stop);
            loaders.push(scope.spawn(move || {
                let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
                let mut seen = 0;
                while !stop.load(Ordering::Relaxed) || seen == 0 {
                    let load = Op::Load { name: name("manifest"), limit_bytes: 1 << 20 };
                    match run(&mut disk, load).result {
                        Ok(Done::Loaded(found)) => {
                            assert!(found.iter().all(|byte| *byte == found[0]), "of two contents");
                            assert!((0..400).any(|round| content(round) == found), "a part of one");
                            seen += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                seen
            }));
        }
        let end = suite::SetAtEnd(&stop);
        for round in 1..400 {
            replace(&mut disk, "manifest", &content(round));
        }
        drop(end);
        let seen: Vec<u32> = loaders.into_iter().map(|loader| loader.join().unwrap()).collect();
        println!("loads: {seen:?}");
    });
    let names: Vec<String> = dir.entries().unwrap();
    assert_eq!(names, ["manifest"], "a disk that has ended leaves nothing beside it");
}

/// Replaced twice, a file has its name again, with other content.
#[test]
fn a_file_that_has_its_name_again_is_not_taken_for_what_it_was() {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let runner = Runner::new(Dir::open(home.path()).unwrap(), false, None);
    let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
    let manifest = name("manifest");
    for (old, new) in [(&b"1"[..], &b"2"[..]), (b"1", b"longer"), (b"longer", b""), (b"", b"1")] {
        replace(&mut disk, "manifest", b"before");
        replace(&mut disk, "manifest", old);
        let (content, file) = runner.load_once(&manifest, 100).unwrap().unwrap();
        assert_eq!(content, old);
        assert!(runner.is_still(&manifest, &content, &file).unwrap());
        replace(&mut disk, "manifest", b"between");
        assert!(!runner.is_still(&manifest, &content, &file).unwrap(), "it is another file");
        replace(&mut disk, "manifest", new);
        assert!(!runner.is_still(&manifest, &content, &file).unwrap(), "{old:?} is {new:?}");
    }
}

#[test]
fn what_somebody_puts_where_the_next_content_is_written_is_not_written_to() {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let beside = home.path().join("manifest.tmp");
    let victim = home.path().join("victim");
    std::fs::write(&victim, b"precious").unwrap();
    let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
    replace(&mut disk, "manifest", b"one");
    replace(&mut disk, "manifest", b"two");
    let _ = std::fs::remove_file(&beside);
    std::os::unix::fs::symlink(&victim, &beside).unwrap();
    replace(&mut disk, "manifest", b"three");
    let _ = std::fs::remove_file(&beside);
    std::fs::hard_link(&victim, &beside).unwrap();
    replace(&mut disk, "manifest", b"four");
    let _ = std::fs::remove_file(&beside);
    replace(&mut disk, "manifest", b"five");
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert_eq!(std::fs::read(home.path().join("manifest")).unwrap(), b"five");
}

/// What is left of a process that was killed may be what a durable name still leads to: the next
/// one must not write over it.
#[test]
fn what_another_life_has_left_beside_a_file_is_not_written_over() {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let beside = home.path().join("manifest.tmp");
    std::fs::write(home.path().join("manifest"), b"new").unwrap();
    std::fs::write(&beside, b"old").unwrap();
    let mut left = std::fs::File::open(&beside).unwrap();
    let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
    replace(&mut disk, "manifest", b"newer");
    let mut content = String::new();
    std::io::Read::read_to_string(&mut left, &mut content).unwrap();
    assert_eq!(content, "old");
    assert_eq!(std::fs::read(home.path().join("manifest")).unwrap(), b"newer");
}

/// A file of which this disk has the old one beside it says nothing about what lies beside others.
#[test]
fn only_the_file_that_was_replaced_last_has_a_spare() {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    std::fs::write(home.path().join("other.tmp"), b"left by another life").unwrap();
    let mut left = std::fs::File::open(home.path().join("other.tmp")).unwrap();
    let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
    replace(&mut disk, "manifest", b"one");
    replace(&mut disk, "manifest", b"two");
    replace(&mut disk, "other", b"three");
    let mut content = String::new();
    std::io::Read::read_to_string(&mut left, &mut content).unwrap();
    assert_eq!(content, "left by another life");
    for (name, expected) in [("manifest", b"two".as_slice()), ("other", b"three")] {
        assert_eq!(std::fs::read(home.path().join(name)).unwrap(), expected);
    }
}

/// Storing does not flush the directory: a durable name may still lead to the file before.
#[test]
fn what_is_stored_has_no_spare_that_could_be_written_over() {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
    for content in [&b"one"[..], b"two", b"three"] {
        let before = std::fs::read(home.path().join("index"));
        let kept = std::fs::File::open(home.path().join("index"));
        let store = Op::Store { name: name("index"), content: content.to_vec().into() };
        run(&mut disk, store).result.unwrap();
        assert_eq!(dir.entries().unwrap(), ["index"]);
        assert_eq!(std::fs::read(home.path().join("index")).unwrap(), content);
        if let (Ok(before), Ok(mut kept)) = (before, kept) {
            let mut found = Vec::new();
            std::io::Read::read_to_end(&mut kept, &mut found).unwrap();
            assert_eq!(found, before);
        }
    }
}

/// Who has nothing else to do carries operations on names out itself; who has hands them to a thread,
/// which goes on with what the first one knew.
#[test]
fn a_thread_for_names_begins_with_the_first_who_does_not_wait() {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    for kind in [IoKind::Blocking, IoKind::Auto] {
        let options = DiskOptions { names_thread: true, ..DiskOptions::default() };
        let mut disk = open(&dir, None, kind, &options).unwrap();
        replace(&mut disk, "manifest", b"one");
        replace(&mut disk, "manifest", b"two");
        assert!(home.path().join("manifest.tmp").exists(), "beside it lies the old one");
        let mut tags = Vec::new();
        for (tag, content) in [(1, b"three".as_slice()), (2, b"four"), (3, b"five")] {
            let op = Op::Replace { name: name("manifest"), content: content.to_vec() };
            disk.submit(Tag(tag), op);
        }
        let mut out = Vec::new();
        while out.len() < 3 {
            disk.reap(Wait::Any, &mut out);
        }
        for done in out {
            done.result.unwrap();
            tags.push(done.tag.0);
        }
        assert_eq!(tags, [1, 2, 3]);
        assert_eq!(std::fs::read(home.path().join("manifest")).unwrap(), b"five");
        assert_eq!(std::fs::read(home.path().join("manifest.tmp")).unwrap(), b"four");
        drop(disk);
        assert_eq!(dir.entries().unwrap(), ["manifest"], "the thread took over what lies beside");
    }
}
