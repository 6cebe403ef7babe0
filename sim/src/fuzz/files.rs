//! A damaged log as real files, with what only a directory can have: links, directories, pipes and
//! odd names where files belong. Nothing outside the directory is touched, whatever is called.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ringlog::format::meta::LogMeta;
use ringlog::{IoKind, Log, LogId, OpenError, Options, ReadError, RecoveryMode};

use super::base::{LARGE_SEGMENT_BYTES, large_bases, options};
use super::input::Input;
use super::mutate::damaged;
use super::pure::LOG;
use crate::reference;

const OUTSIDE: &[u8] = b"nobody writes here";
const OPERATIONS_MAX: usize = 3;

/// Where the directories are made: in memory, if the machine has such a place.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory for a damaged log")
}

/// A log in a directory, damaged inside its files and around them.
pub fn files(data: &[u8]) {
    let mut input = Input(data);
    let bases = large_bases();
    let base = &bases.all[input.below(bases.all.len())];
    let also = input.u8();
    let around = usize::from(also) % (OPERATIONS_MAX + 1);
    let mut inside = Input(if also & 0x80 == 0 { &[] } else { input.bytes(24) });
    let (world, damage) = damaged(bases, base, &mut inside, false);
    let dir = scratch();
    let (outside, log) = (dir.path().join("outside"), dir.path().join("log"));
    let shard = log.join("shard-000");
    fs::write(&outside, OUTSIDE).expect("a file outside");
    fs::create_dir_all(&shard).expect("a directory");
    let meta =
        LogMeta { log: LogId(LOG), created_ns: 1, segment_bytes: LARGE_SEGMENT_BYTES, shards: 1 };
    fs::write(log.join("log"), meta.encode()).expect("the file of the log");
    if !damage.unreadable {
        for (name, _) in world.files() {
            put_sparse(&shard.join(&name), &world.read(&name));
        }
    }
    let mut story = damage.story;
    for _ in 0..around {
        story.extend(operation(&mut input, &log, &shard, &outside));
    }
    let told = story.join("; ");
    use_it(&log, input.u8(), &told);
    let kept = fs::read(&outside).expect("the file outside is still there");
    assert_eq!(kept, OUTSIDE, "something outside was changed: {told}");
}

/// Writes a file of which most is zeros.
fn put_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(path).expect("a file");
    file.set_len(bytes.len() as u64).expect("its length");
    for (at, block) in (0..).step_by(reference::BLOCK).zip(bytes.chunks(reference::BLOCK)) {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, at).expect("a block");
        }
    }
}

/// One change of names. What is not possible is left.
fn operation(
    input: &mut Input<'_>,
    log: &Path,
    shard: &Path,
    outside: &Path,
) -> Result<String, std::io::Error> {
    let what = input.u8();
    let dir = if what & 0x40 == 0 { shard } else { log };
    let mut names: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    names.sort();
    if names.is_empty() {
        return Ok("nothing is there".into());
    }
    let victim = names[input.below(names.len())].clone();
    let other = names[input.below(names.len())].clone();
    let text = match what % 10 {
        0 => {
            replace(&victim, |at| symlink(outside, at))?;
            "a link to a file outside is"
        }
        1 => {
            replace(&victim, |at| symlink(&other, at))?;
            "a link to another file is"
        }
        2 => {
            replace(&victim, |at| fs::hard_link(outside, at))?;
            "a hard link to a file outside is"
        }
        3 => {
            replace(&victim, |at| fs::hard_link(&other, at))?;
            "a hard link to another file is"
        }
        4 => {
            replace(&victim, |at| fs::create_dir(at))?;
            "a directory is"
        }
        5 => {
            // Stands for all that is neither file, directory nor link.
            replace(&victim, |at| std::os::unix::net::UnixListener::bind(at).map(drop))?;
            "a socket is"
        }
        6 => {
            fs::rename(&victim, dir.join(std::ffi::OsStr::from_bytes(input.bytes(8))))?;
            "an odd name instead of"
        }
        7 => {
            fs::rename(&victim, &other)?;
            "another file was renamed to"
        }
        8 => {
            let away = outside.with_file_name("moved");
            fs::rename(&victim, &away)?;
            symlink(&away, &victim)?;
            "a link to where it was moved is"
        }
        _ => {
            fs::write(dir.join(format!("{:016x}.seg", input.u8())), input.bytes(100))?;
            "a new file is beside"
        }
    };
    Ok(format!("{text} {}", victim.display()))
}

fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        fs::remove_dir_all(path)?;
    } else {
        fs::remove_file(path)?;
    }
    make(path)
}

/// Everything that a user can do with a directory.
fn use_it(log: &Path, how: u8, told: &str) {
    let sound = ringlog::verify(log, &mut |_| ()).is_ok_and(|report| report.sound);
    let _ = ringlog::inspect(log);
    for mode in [RecoveryMode::ReadOnly, RecoveryMode::Strict] {
        let errors = open_and_read(log, mode, told);
        assert!(!sound || errors == Ok(0), "sound, says verify, but {errors:?}: {told}");
    }
    if how & 1 == 1 {
        let _ = ringlog::repair(log, &mut |_| ());
        let _ = open_and_read(log, RecoveryMode::Strict, told);
    }
}

/// Gives how many items were errors.
fn open_and_read(log: &Path, recovery: RecoveryMode, told: &str) -> Result<usize, OpenError> {
    let (create, io, profile_disk, pin) = (false, IoKind::Blocking, false, false);
    let log = Log::open(log, Options { recovery, create, io, profile_disk, pin, ..options() })?;
    let mut errors = 0;
    for info in log.streams() {
        let Ok(stream) = log.existing_stream(&info.name) else { continue };
        let Ok(reader) = stream.read(..) else {
            errors += 1;
            continue;
        };
        for item in reader {
            match item {
                Ok(record) => {
                    let (offset, name) = (record.offset().0, &*info.name);
                    let known = was_written(name, offset, record.payload());
                    assert!(known, "{offset} of {name} was never written: {told}");
                }
                Err(ReadError::Trimmed { .. }) => {}
                Err(_) => errors += 1,
            }
        }
    }
    Ok(errors)
}

/// A stream whose name was lost in a repair may be any of them.
fn was_written(name: &str, offset: u64, payload: &[u8]) -> bool {
    let is_it = |stream: u32| large_bases().streams.get(name).is_none_or(|id| *id == stream);
    let mut places = large_bases().written.iter().filter(|((_, at), _)| *at == offset);
    places.any(|((stream, _), known)| is_it(*stream) && known.contains(payload))
}
