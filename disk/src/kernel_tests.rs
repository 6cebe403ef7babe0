//! Faults and limits on the real kernel, each in a child process where it would harm its
//! neighbours: the test starts this very program again, with one test and a word in the
//! environment. What the system does not allow is skipped, with a line that says so.

#![cfg(not(miri))]

use crate::disk_tests::skipped;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::block::BlockPool;
use crate::dir::Dir;
use crate::op::{
    Completion, Disk, DiskErrorKind, Done, FileId, FileName, Flush, Listed, Op, Slice, Tag, Wait,
    run,
};
use crate::options::{DiskOptions, IoKind, Primitive};
use crate::{AnyDisk, open, suite};

const CHILD: &str = "RINGLOG_TEST_CHILD";

/// True in the child. In the parent: runs the named test again as a child with `word`, and fails
/// with it.
fn in_child(test: &str, word: impl AsRef<OsStr>) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("kernel_tests::{test}"), "--nocapture", "--test-threads=1"])
        .env(CHILD, word)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the child of {test} failed: {}", output.status);
    assert!(text.contains("1 passed"), "the child of {test} ran no test");
    false
}

fn word() -> String {
    std::env::var(CHILD).unwrap_or_default()
}

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn home() -> (TempDir, Dir) {
    let home = TempDir::new().unwrap();
    let dir = Dir::open(home.path()).unwrap();
    (home, dir)
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the limit is a live local; lowering it concerns this child process only.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Every kind of disk with every primitive. io_uring only where it is allowed.
fn each_disk(dir: &Dir, pool: &BlockPool, mut check: impl FnMut(&mut AnyDisk, &str)) {
    for primitive in [Primitive::Dsync, Primitive::LinkedSync] {
        for kind in [IoKind::Uring, IoKind::Blocking] {
            let options =
                DiskOptions { pools: vec![pool.clone()], primitive, ..DiskOptions::default() };
            match open(dir, None, kind, &options) {
                Ok(mut disk) => check(&mut disk, &format!("{kind:?} {primitive:?}")),
                Err(error) if kind == IoKind::Uring => skipped(format_args!("io_uring: {error}")),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn write(disk: &mut dyn Disk, offset: u64, data: Vec<Slice>, flush: Flush) -> Completion {
    run(disk, Op::Write { file: FileId(0), offset, data, flush })
}

fn slice(pool: &BlockPool, len: usize, byte: u8) -> Slice {
    let mut block = pool.take().unwrap();
    block.fill(byte);
    Slice { block, len }
}

#[track_caller]
fn refused(disk: &mut dyn Disk, op: Op, kind: DiskErrorKind) {
    let text = format!("{op:?}");
    match run(disk, op).result {
        Err(error) => assert_eq!(error.kind, kind, "{text}: {error}"),
        Ok(done) => panic!("{text}: {done:?}"),
    }
}

/// The limit cuts a write short; the rest of it fails. That is an error with all blocks back, never
/// a success, and the disk goes on.
#[test]
fn a_write_cut_short_by_the_file_size_limit_fails() {
    if !in_child("a_write_cut_short_by_the_file_size_limit_fails", "file size") {
        return;
    }
    let (_home, dir) = home();
    let pool = BlockPool::resident(8, 8192).unwrap();
    let bytes = 64 << 10;
    let create = Op::Create { file: FileId(0), name: name("file"), bytes };
    let mut first = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
    run(&mut first, create).result.unwrap();
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    limit(libc::RLIMIT_FSIZE, 32 << 10);
    let edge = (32 << 10) - 4096;
    each_disk(&dir, &pool, |disk, what| {
        run(disk, Op::Open { file: FileId(0), name: name("file"), write: true }).result.unwrap();
        for flush in [Flush::No, Flush::Own, Flush::File] {
            for data in [
                vec![slice(&pool, 8192, 7)],
                vec![slice(&pool, 4096, 7), slice(&pool, 4096, 8)],
                vec![slice(&pool, 8192, 7), slice(&pool, 8192, 8)],
            ] {
                let count = data.len();
                let completion = write(disk, edge, data, flush);
                let error = completion.result.unwrap_err();
                assert_eq!(error.errno, Some(libc::EFBIG), "{what} {flush:?}: {error}");
                assert_eq!(error.kind, DiskErrorKind::Limit);
                assert_eq!(completion.slices.len(), count);
            }
            let data = vec![slice(&pool, 4096, 9)];
            assert_eq!(write(disk, 0, data, flush).result, Ok(Done::Wrote), "{what} {flush:?}");
        }
    });
    assert_eq!(pool.available(), 8);
}

/// With many writes in flight, some whole, some cut, some refused: each tells the truth.
#[test]
fn cut_writes_among_whole_ones_are_told_apart() {
    if !in_child("cut_writes_among_whole_ones_are_told_apart", "file size") {
        return;
    }
    let (_home, dir) = home();
    let pool = BlockPool::resident(64, 8192).unwrap();
    let mut first = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
    let create = Op::Create { file: FileId(0), name: name("file"), bytes: 512 << 10 };
    run(&mut first, create).result.unwrap();
    // SAFETY: ignoring a signal installs no handler.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let cut = (128 << 10) + 4096;
    limit(libc::RLIMIT_FSIZE, cut);
    each_disk(&dir, &pool, |disk, what| {
        run(disk, Op::Open { file: FileId(0), name: name("file"), write: true }).result.unwrap();
        for i in 0..32_u64 {
            let flush = [Flush::Own, Flush::File, Flush::No][i as usize % 3];
            let data = vec![slice(&pool, 8192, i as u8)];
            disk.submit(Tag(i), Op::Write { file: FileId(0), offset: i * 8192, data, flush });
        }
        let mut out = Vec::new();
        while disk.in_flight() > 0 {
            disk.reap(Wait::Any, &mut out);
        }
        assert_eq!(out.len(), 32);
        for completion in &out {
            let fits = (completion.tag.0 + 1) * 8192 <= cut;
            assert_eq!(completion.result.is_ok(), fits, "{what}: {completion:?}");
        }
    });
}

extern "C" fn do_nothing(_: libc::c_int) {}

/// Signals hail down on the driving thread; every commit completes, once.
#[test]
fn signals_do_not_disturb() {
    if !in_child("signals_do_not_disturb", "signals") {
        return;
    }
    // SAFETY: all fields of a sigaction may be zero; the handler does nothing, and no SA_RESTART
    // is set, so that calls are interrupted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = do_nothing as *const () as libc::sighandler_t;
    // SAFETY: the action is a live local, with a handler that is safe at any moment.
    let set = unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let (_home, dir) = home();
    let pool = BlockPool::resident(1, 8192).unwrap();
    let stop = AtomicBool::new(false);
    // SAFETY: the calling thread's own handle; it outlives the scope below.
    let driver = unsafe { libc::pthread_self() };
    let mut sent = 0_u64;
    std::thread::scope(|scope| {
        let hail = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: the driver waits for this thread, so its handle is valid.
                unsafe { libc::pthread_kill(driver, libc::SIGUSR2) };
                sent += 1;
                std::thread::sleep(Duration::from_micros(20));
            }
            sent
        });
        let end = suite::SetAtEnd(&stop);
        let mut turn = 0;
        each_disk(&dir, &pool, |disk, what| {
            turn += 1;
            let file = name(&format!("file-{turn}"));
            let create = Op::Create { file: FileId(0), name: file.clone(), bytes: 4 << 20 };
            run(disk, create).result.unwrap();
            for i in 0..300_u64 {
                let flush = [Flush::Own, Flush::File, Flush::No][i as usize % 3];
                let done = write(disk, i * 8192, vec![slice(&pool, 8192, i as u8)], flush);
                assert_eq!(done.result, Ok(Done::Wrote), "{what}");
            }
            for i in 0..300_u64 {
                let block = pool.take().unwrap();
                let read = Op::Read { file: FileId(0), offset: i * 8192, block, len: 8192 };
                let done = run(disk, read);
                assert_eq!(done.result, Ok(Done::Read(8192)), "{what}");
                assert!(done.slices[0].block.iter().all(|b| *b == i as u8), "{what}");
            }
            run(disk, Op::Replace { name: file, content: vec![1; 9999] }).result.unwrap();
        });
        drop(end);
        sent = hail.join().unwrap();
    });
    println!("{sent} signals");
    assert!(sent > 0);
}

fn load(offset: u32) -> libc::sock_filter {
    let code = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    libc::sock_filter { code, jt: 0, jf: 0, k: offset }
}

fn jump(how: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | how | libc::BPF_K) as u16, jt, jf, k }
}

fn ret(k: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k }
}

/// Refuses system calls of this process by a filter that begins with the number of the call loaded;
/// what falls through it is allowed. False, said by name, where that is not possible.
fn filter_calls(rules: &[libc::sock_filter]) -> bool {
    // The number of the system call is the first word.
    let mut filter = vec![load(0)];
    filter.extend_from_slice(rules);
    filter.push(ret(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: no memory is involved.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(alone, 0);
    // SAFETY: the program and its filter are live locals; the kernel copies them.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if set != 0 {
        skipped(format_args!("no seccomp here"));
    }
    set == 0
}

/// A flush that is left out is never refused: each of them has to meet the error.
#[test]
fn a_flush_that_the_kernel_refuses_is_told() {
    for what in ["the data", "a file", "the directory"] {
        if in_child("a_flush_that_the_kernel_refuses_is_told", what) {
            return a_flush_is_refused(&word());
        }
    }
}

fn a_flush_is_refused(what: &str) {
    let (_home, dir) = home();
    let pool = BlockPool::resident(4, 8192).unwrap();
    let (segment, manifest) = (name("segment"), name("manifest"));
    let options = DiskOptions { pools: vec![pool.clone()], ..DiskOptions::default() };
    let replace = |content: &[u8]| Op::Replace { name: manifest.clone(), content: content.into() };
    {
        let mut disk = open(&dir, None, IoKind::Blocking, &options).unwrap();
        let create = Op::Create { file: FileId(0), name: segment.clone(), bytes: 8192 };
        run(&mut disk, create).result.unwrap();
        run(&mut disk, replace(b"old")).result.unwrap();
    }
    let call = if what == "the data" { libc::SYS_fdatasync } else { libc::SYS_fsync };
    let first_argument = 16; // behind number, architecture and address
    let directory = dir.as_fd().as_raw_fd() as u32;
    let (of_it, of_others) = if what == "the directory" { (0, 1) } else { (1, 0) };
    let refused_calls = [
        jump(libc::BPF_JEQ, call as u32, 0, 3),
        load(first_argument),
        jump(libc::BPF_JEQ, directory, of_it, of_others),
        ret(libc::SECCOMP_RET_ERRNO | libc::EIO as u32),
    ];
    if !filter_calls(&refused_calls) {
        return;
    }
    for primitive in [Primitive::Dsync, Primitive::LinkedSync] {
        let options = DiskOptions { primitive, ..options.clone() };
        let mut disk = open(&dir, None, IoKind::Blocking, &options).unwrap();
        let opens = Op::Open { file: FileId(0), name: segment.clone(), write: true };
        run(&mut disk, opens).result.unwrap();
        if what == "the data" {
            refused(&mut disk, Op::Sync { file: FileId(0) }, DiskErrorKind::Io);
            let done = write(&mut disk, 0, vec![slice(&pool, 8192, 7)], Flush::File);
            assert_eq!(done.result.unwrap_err().kind, DiskErrorKind::Io, "{primitive:?}");
            continue;
        }
        refused(&mut disk, replace(b"new"), DiskErrorKind::Io);
        let stores = Op::Store { name: name("index"), content: b"derived".to_vec().into() };
        assert_eq!(run(&mut disk, stores).result, Ok(Done::Named), "nobody needs it");
        if what == "the directory" {
            refused(&mut disk, Op::SyncDir, DiskErrorKind::Io);
            continue;
        }
        let creates = Op::Create { file: FileId(1), name: name("another"), bytes: 8192 };
        refused(&mut disk, creates, DiskErrorKind::Io);
        let loads = Op::Load { name: manifest.clone(), limit_bytes: 100 };
        assert_eq!(run(&mut disk, loads).result, Ok(Done::Loaded(b"old".to_vec())));
    }
}

/// A file system that knows no direct I/O answers EINVAL to an open with that flag.
#[test]
fn refused_direct_io_leads_to_the_page_cache_and_a_note() {
    if !in_child("refused_direct_io_leads_to_the_page_cache_and_a_note", "seccomp") {
        return;
    }
    let flags = 32; // where the third argument lies, behind number, architecture and address
    let refused = [
        jump(libc::BPF_JEQ, libc::SYS_openat as u32, 0, 3),
        load(flags),
        jump(libc::BPF_JSET, libc::O_DIRECT as u32, 0, 1),
        ret(libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
    ];
    if !filter_calls(&refused) {
        return;
    }
    let (_home, dir) = home();
    let pool = BlockPool::resident(4, 8192).unwrap();
    each_disk(&dir, &pool, |disk, what| {
        assert!(!disk.facts().direct, "{what}");
        let notes = &disk.facts().notes;
        let noted = notes.iter().filter(|note| note.contains("Direct I/O is refused")).count();
        assert_eq!(noted, 1, "{what}: {notes:?}");
        let file = name("file");
        run(disk, Op::Create { file: FileId(0), name: file.clone(), bytes: 8192 }).result.unwrap();
        let done = write(disk, 0, vec![slice(&pool, 8192, 7)], Flush::Own);
        assert_eq!(done.result, Ok(Done::Wrote), "{what}");
        run(disk, Op::Remove { name: file }).result.unwrap();
    });
}

/// Where huge pages are forbidden the advice to use them is accepted all the same.
#[test]
fn forbidden_huge_pages_are_seen() {
    if !in_child("forbidden_huge_pages_are_seen", "huge pages") {
        return;
    }
    let before = BlockPool::resident(1, 4096).unwrap().huge_pages_advised();
    // SAFETY: no memory is involved; it concerns this child process alone.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }, 0);
    assert!(!BlockPool::resident(1, 4096).unwrap().huge_pages_advised());
    println!("without the ban: {before}");
}

/// A seccomp filter refuses io_uring, as container runtimes do.
#[test]
fn a_refused_ring_leads_to_blocking_calls_and_a_note() {
    if !in_child("a_refused_ring_leads_to_blocking_calls_and_a_note", "seccomp") {
        return;
    }
    let refused = [
        jump(libc::BPF_JEQ, libc::SYS_io_uring_setup as u32, 0, 1),
        ret(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    if !filter_calls(&refused) {
        return;
    }
    let (_home, dir) = home();
    let options = DiskOptions::default();
    let error = open(&dir, None, IoKind::Uring, &options).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Access, "{error}");
    let mut disk = open(&dir, None, IoKind::Auto, &options).unwrap();
    assert_eq!(disk.facts().kind, "blocking");
    let notes = &disk.facts().notes;
    assert!(notes.iter().any(|note| note.contains("io_uring is refused")), "{notes:?}");
    run(&mut disk, Op::Create { file: FileId(0), name: name("file"), bytes: 4096 }).result.unwrap();
    let profile = crate::profile_disk(&dir, IoKind::Auto, crate::Effort::Quick).unwrap();
    assert!(!profile.place.uring);
    let floor = crate::floor::FloorFile::open(&dir, &name("file")).unwrap();
    let read = floor.sequential_read(4096, 4).unwrap();
    assert!(!read.by_uring && read.bytes == 4096);
}

/// Without the right to lock memory, nothing is registered; the log works all the same.
#[test]
fn a_memory_lock_limit_is_noted_and_survived() {
    if !in_child("a_memory_lock_limit_is_noted_and_survived", "memlock") {
        return;
    }
    let (home, dir) = home();
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o777)).unwrap();
    limit(libc::RLIMIT_MEMLOCK, 64 << 10);
    // SAFETY: no memory is involved.
    if unsafe { libc::getuid() } == 0 {
        // Root may lock what it likes, so it becomes somebody else.
        // SAFETY: no memory is involved.
        let other = unsafe { libc::setuid(65534) };
        assert_eq!(other, 0);
    }
    let pool = BlockPool::resident(suite::POOL_BLOCKS, suite::POOL_BLOCK_BYTES).unwrap();
    let options = DiskOptions { pools: vec![pool.clone()], ..DiskOptions::default() };
    let mut disk = match open(&dir, None, IoKind::Uring, &options) {
        Ok(disk) => disk,
        Err(error) => {
            skipped(format_args!("io_uring: {error}"));
            return;
        }
    };
    let notes = disk.facts().notes.clone();
    assert!(notes.iter().any(|note| note.contains("ulimit -l")), "{notes:?}");
    run(&mut disk, Op::Create { file: FileId(0), name: name("file"), bytes: 65536 })
        .result
        .unwrap();
    let data = vec![slice(&pool, 8192, 1), slice(&pool, 4096, 2)];
    assert_eq!(write(&mut disk, 0, data, Flush::Own).result, Ok(Done::Wrote));
}

/// A ring takes memory that is not resident yet as it is, and registers it later: what was written
/// before, in between and afterwards is the same.
#[test]
fn memory_is_registered_once_it_is_resident() {
    let (home, dir) = home();
    let pool = BlockPool::new(suite::POOL_BLOCKS, suite::POOL_BLOCK_BYTES).unwrap();
    let options = DiskOptions { pools: vec![pool.clone()], ..DiskOptions::default() };
    let mut disk = match crate::UringDisk::open(&dir, None, &options) {
        Ok(disk) => disk,
        Err(error) => return skipped(format_args!("io_uring: {error}")),
    };
    if crate::sys::lockable_bytes().is_some() {
        return skipped(format_args!("the memory that this process may lock is limited"));
    }
    let create = Op::Create { file: FileId(0), name: name("file"), bytes: 65536 };
    run(&mut disk, create).result.unwrap();
    let both = |disk: &mut crate::UringDisk, offset: u64, fill: u8| {
        let data = vec![slice(&pool, 8192, fill), slice(&pool, 4096, fill + 1)];
        assert_eq!(write(disk, offset, data, Flush::Own).result, Ok(Done::Wrote));
        disk.registers(&pool)
    };
    assert!(!both(&mut disk, 0, 1));
    pool.make_resident();
    assert!(both(&mut disk, 12288, 3));
    drop(disk);
    let bytes = std::fs::read(home.path().join("file")).unwrap();
    let runs: Vec<(u8, usize)> =
        bytes[..24576].chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect();
    assert_eq!(runs, [(1, 8192), (2, 4096), (3, 8192), (4, 4096)]);
}

#[test]
fn a_descriptor_limit_is_an_error_and_leaves_no_file() {
    if !in_child("a_descriptor_limit_is_an_error_and_leaves_no_file", "descriptors") {
        return;
    }
    let (home, dir) = home();
    let mut disk = open(&dir, None, IoKind::Auto, &DiskOptions::default()).unwrap();
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    limit(libc::RLIMIT_NOFILE, used + 4);
    let mut opened = 0;
    let error = loop {
        assert!(opened < 60, "no limit was met");
        let file = name(&format!("f-{opened}"));
        let op = Op::Create { file: FileId(opened), name: file, bytes: 4096 };
        match run(&mut disk, op).result {
            Ok(_) => opened += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, DiskErrorKind::Limit, "{error}");
    run(&mut disk, Op::Close { file: FileId(0) }).result.unwrap();
    let again = Op::Create { file: FileId(0), name: name("again"), bytes: 4096 };
    run(&mut disk, again).result.unwrap();
    drop(disk);
    drop(dir);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count() as u32, opened + 1);
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    // Nothing taken away, and everything that the owner does not need to get in.
    for umask in ["0", "191"] {
        if !in_child("modes_do_not_depend_on_the_umask", umask) {
            continue;
        }
        let home = TempDir::new().unwrap();
        // SAFETY: no memory is involved; it concerns this child process only.
        unsafe { libc::umask(word().parse().unwrap()) };
        let path = home.path().join("log");
        let dir = Dir::create_all(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        dir.subdir(&name("shard-0"), true).unwrap();
        assert_eq!(mode(&path.join("shard-0")), 0o700);
        let mut disk = open(&dir, None, IoKind::Blocking, &DiskOptions::default()).unwrap();
        run(&mut disk, Op::Create { file: FileId(0), name: name("a.seg"), bytes: 4096 })
            .result
            .unwrap();
        let op = Op::Replace { name: name("manifest"), content: b"x".to_vec() };
        run(&mut disk, op).result.unwrap();
        assert_eq!(mode(&path.join("a.seg")), 0o600);
        assert_eq!(mode(&path.join("manifest")), 0o600);
        return;
    }
}

#[test]
fn directories_are_created_opened_and_listed() {
    let (home, dir) = home();
    assert!(dir.is_empty().unwrap());
    assert!(dir.is_writable().unwrap());
    assert!(!dir.file_system().unwrap().is_empty());
    let deep = home.path().join("a/b/c");
    Dir::create_all(&deep).unwrap();
    Dir::create_all(&deep).unwrap();
    assert_eq!(mode(&deep), 0o700);
    assert_eq!(Dir::open(&home.path().join("x")).unwrap_err().kind, DiskErrorKind::NotFound);
    assert_eq!(dir.subdir(&name("x"), false).unwrap_err().kind, DiskErrorKind::NotFound);
    std::fs::write(home.path().join("file"), b"x").unwrap();
    let not_a_directory = Dir::open(&home.path().join("file")).unwrap_err();
    assert_eq!(not_a_directory.kind, DiskErrorKind::Unexpected);
    assert!(Dir::create_all(&home.path().join("file/x")).is_err());
    for create in [false, true] {
        let error = dir.subdir(&name("file"), create).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Unexpected);
    }
    assert_eq!(dir.entries().unwrap(), ["a", "file"]);
    // The path to a log may lead through a link; nothing inside it may.
    symlink(home.path().join("a"), home.path().join("link")).unwrap();
    assert_eq!(Dir::open(&home.path().join("link")).unwrap().entries().unwrap(), ["b"]);
    for create in [false, true] {
        let error = dir.subdir(&name("link"), create).unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::Unexpected);
    }
}

#[test]
fn the_lock_lives_as_long_as_the_disk() {
    let (home, dir) = home();
    let pause = Duration::from_secs(5);
    each_disk(&dir, &BlockPool::resident(1, 4096).unwrap(), |_, what| {
        let kind = if what.starts_with("Uring") { IoKind::Uring } else { IoKind::Blocking };
        let lock = Dir::open(home.path()).unwrap();
        assert!(lock.lock_exclusive(pause).unwrap(), "{what}");
        let disk = open(&dir, Some(&lock), kind, &DiskOptions::default()).unwrap();
        drop(lock);
        let other = Dir::open(home.path()).unwrap();
        assert!(!other.try_lock_exclusive().unwrap(), "{what}: the lock has gone");
        assert!(!other.lock_exclusive(Duration::from_millis(3)).unwrap());
        drop(disk);
        assert!(other.lock_exclusive(pause).unwrap(), "{what}: the lock has stayed");
    });
}

#[test]
fn links_and_special_files_are_refused() {
    let (home, dir) = home();
    let outside = TempDir::new().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, b"precious").unwrap();
    symlink(&victim, home.path().join("link")).unwrap();
    symlink(&victim, home.path().join("manifest.tmp")).unwrap();
    std::fs::create_dir(home.path().join("dir")).unwrap();
    let fifo = std::ffi::CString::new(home.path().join("fifo").to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    std::fs::write(home.path().join("Not A Name"), b"x").unwrap();
    let mut disk = open(&dir, None, IoKind::Auto, &DiskOptions::default()).unwrap();
    let unexpected = DiskErrorKind::Unexpected;
    for odd in ["link", "dir", "fifo"] {
        for write in [false, true] {
            let op = Op::Open { file: FileId(0), name: name(odd), write };
            refused(&mut disk, op, unexpected);
        }
        refused(&mut disk, Op::Load { name: name(odd), limit_bytes: 100 }, unexpected);
        refused(&mut disk, Op::Remove { name: name(odd) }, unexpected);
        refused(&mut disk, Op::Rename { from: name(odd), to: name("other") }, unexpected);
        let op = Op::Create { file: FileId(0), name: name(odd), bytes: 4096 };
        refused(&mut disk, op, DiskErrorKind::Exists);
    }
    // A planted link where the temporary file goes leads nowhere; one with the name itself is
    // replaced, not followed.
    for target in ["manifest", "link"] {
        let op = Op::Replace { name: name(target), content: b"new".to_vec() };
        run(&mut disk, op).result.unwrap();
        assert_eq!(std::fs::read(home.path().join(target)).unwrap(), b"new");
    }
    let op = Op::Replace { name: name("dir"), content: b"new".to_vec() };
    refused(&mut disk, op, unexpected);
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    let files = ["link", "manifest"].map(|text| Listed { name: name(text), bytes: 3 }).to_vec();
    let others = ["Not A Name", "dir", "fifo"].len();
    assert_eq!(run(&mut disk, Op::List).result, Ok(Done::Listed { files, others }));
}

#[test]
fn a_full_disk_is_told_and_leaves_no_file() {
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        skipped(format_args!("a_full_disk_is_told_and_leaves_no_file: no /dev/shm"));
        return;
    }
    let home = TempDir::new_in(shm).unwrap();
    let dir = Dir::open(home.path()).unwrap();
    let mut disk = open(&dir, None, IoKind::Auto, &DiskOptions::default()).unwrap();
    // More than any memory: refused before anything is allocated.
    let op = Op::Create { file: FileId(0), name: name("file"), bytes: 1 << 50 };
    refused(&mut disk, op, DiskErrorKind::NoSpace);
    assert!(dir.is_empty().unwrap());
    run(&mut disk, Op::Create { file: FileId(0), name: name("file"), bytes: 4096 }).result.unwrap();
}

/// A small file system fills up under writes: each failure is told as such, and after something
/// was removed the disk goes on.
#[test]
fn a_write_to_a_full_disk_is_told() {
    if !in_child("a_write_to_a_full_disk_is_told", "full") {
        return;
    }
    let home = TempDir::new().unwrap();
    if !small_file_system(home.path()) {
        skipped(format_args!("a_write_to_a_full_disk_is_told: needs root to mount a file system"));
        return;
    }
    let dir = Dir::open(home.path()).unwrap();
    assert_eq!(dir.file_system().unwrap(), "tmpfs", "the small file system is mounted");
    let pool = BlockPool::resident(8, 65536).unwrap();
    each_disk(&dir, &pool, |disk, what| {
        let create = Op::Create { file: FileId(0), name: name("file"), bytes: 0 };
        run(disk, create).result.unwrap();
        let big = Op::Create { file: FileId(1), name: name("big"), bytes: 1 << 19 };
        run(disk, big).result.unwrap();
        let mut whole = 0;
        let error = loop {
            assert!(whole < 100, "{what}: the file system is never full");
            let data = vec![slice(&pool, 65536, 1), slice(&pool, 65536, 2)];
            let completion = write(disk, whole * 131_072, data, Flush::Own);
            assert_eq!(completion.slices.len(), 2);
            match completion.result {
                Ok(_) => whole += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind, DiskErrorKind::NoSpace, "{what}: {error}");
        let more = Op::Create { file: FileId(2), name: name("more"), bytes: 1 << 19 };
        refused(disk, more, DiskErrorKind::NoSpace);
        let missing = Op::Load { name: name("more"), limit_bytes: 1 };
        refused(disk, missing, DiskErrorKind::NotFound);
        run(disk, Op::Close { file: FileId(1) }).result.unwrap();
        run(disk, Op::Remove { name: name("big") }).result.unwrap();
        let data = vec![slice(&pool, 65536, 1), slice(&pool, 65536, 2)];
        let again = write(disk, whole * 131_072, data, Flush::Own);
        assert_eq!(again.result, Ok(Done::Wrote), "{what}");
        run(disk, Op::Remove { name: name("file") }).result.unwrap();
    });
}

/// Mounts a memory file system of 1 MiB, seen by this child process alone.
fn small_file_system(at: &Path) -> bool {
    let at = std::ffi::CString::new(at.to_str().unwrap()).unwrap();
    let mount = |kind: &std::ffi::CStr, at: &std::ffi::CStr, flags, data: &std::ffi::CStr| {
        // SAFETY: NUL-terminated strings that live through the call.
        let result = unsafe {
            libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
        };
        result == 0
    };
    // SAFETY: no memory is involved; this thread gets mounts of its own.
    let own = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
    own && mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE, c"")
        && mount(c"tmpfs", &at, 0, c"size=1m")
}

/// A process is killed with writes in flight: its lock ends with the last of them, by itself.
#[test]
fn the_lock_of_a_killed_process_ends() {
    let home = TempDir::new().unwrap();
    let path = std::env::var_os(CHILD).unwrap_or_else(|| home.path().into());
    let dir = Dir::open(Path::new(&path)).unwrap();
    if std::env::var_os(CHILD).is_some() {
        assert!(dir.try_lock_exclusive().unwrap());
        let pool = BlockPool::resident(64, 65536).unwrap();
        let options = DiskOptions { pools: vec![pool.clone()], ..DiskOptions::default() };
        let mut disk = open(&dir, Some(&dir), IoKind::Auto, &options).unwrap();
        let create = Op::Create { file: FileId(0), name: name("file"), bytes: 4 << 20 };
        run(&mut disk, create).result.unwrap();
        for i in 0..64 {
            let data = vec![slice(&pool, 65536, 1)];
            let flush = Flush::Own;
            disk.submit(Tag(i), Op::Write { file: FileId(0), offset: i * 65536, data, flush });
        }
        disk.reap(Wait::No, &mut Vec::new());
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kernel_tests::the_lock_of_a_killed_process_ends", "--nocapture"])
        .env(CHILD, &path)
        .status()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    assert!(dir.lock_exclusive(Duration::from_secs(10)).unwrap(), "the lock has stayed");
}

/// Blocks of a pool that is not registered go the long way, alone and mixed with others.
#[test]
fn blocks_of_any_pool_can_be_written() {
    let (_home, dir) = home();
    let (known, foreign) =
        (BlockPool::resident(4, 8192).unwrap(), BlockPool::resident(4, 8192).unwrap());
    let mut turn = 0;
    each_disk(&dir, &known, |disk, what| {
        turn += 1;
        let file = name(&format!("file-{turn}"));
        run(disk, Op::Create { file: FileId(0), name: file, bytes: 65536 }).result.unwrap();
        let data = vec![slice(&foreign, 8192, 1)];
        assert_eq!(write(disk, 0, data, Flush::Own).result, Ok(Done::Wrote), "{what}");
        let data = vec![slice(&known, 4096, 2), slice(&foreign, 4096, 3), slice(&known, 4096, 4)];
        assert_eq!(write(disk, 8192, data, Flush::Own).result, Ok(Done::Wrote), "{what}");
        let mut got = Vec::new();
        for unit in 0..6 {
            let block = foreign.take().unwrap();
            let read = Op::Read { file: FileId(0), offset: unit * 4096, block, len: 4096 };
            got.push(run(disk, read).slices[0].block[0]);
        }
        assert_eq!(got, [1, 1, 2, 3, 4, 0], "{what}");
    });
}

#[test]
fn device_counters_move_with_writes_where_they_exist() {
    let (_home, dir) = home();
    let Some(before) = crate::block_device_stats(&dir) else {
        skipped(format_args!("no single block device below the temporary directory"));
        return;
    };
    let mut disk = open(&dir, None, IoKind::Auto, &DiskOptions::default()).unwrap();
    if !disk.facts().direct {
        skipped(format_args!("writes are buffered"));
        return;
    }
    run(&mut disk, Op::Create { file: FileId(0), name: name("file"), bytes: 1 << 20 })
        .result
        .unwrap();
    let after = crate::block_device_stats(&dir).unwrap();
    assert_eq!(before.device, after.device);
    assert!(after.writes > before.writes);
    // Zeros may reach the device as a command without data, so sectors may stand still.
    assert!(after.sectors_written >= before.sectors_written);
}

#[test]
fn random_bytes_differ() {
    assert_ne!(crate::entropy().unwrap(), crate::entropy().unwrap());
}
