//! What the system refuses, the log does without, and says so: each refusal is made real in a child
//! process, which opens a log, writes and reads it, and prints what the log says of itself. What
//! this machine cannot refuse is skipped, with a line that says so.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

use ringlog::{Format, Log, Options};

const CHILD: &str = "RINGLOG_TEST_FALLBACK";

/// In the child: the log works, and its notes are printed.
fn child() -> bool {
    let Some(dir) = std::env::var_os(CHILD) else { return false };
    let format = Format { segment_bytes: Some(1 << 20), shards: Some(1) };
    let log = Log::open(PathBuf::from(dir), Options { format, ..Options::default() }).unwrap();
    let stream = log.stream("s").unwrap();
    let records: Vec<Vec<u8>> = (1..20_u8).map(|n| vec![n; usize::from(n) * 4000]).collect();
    let receipts: Vec<_> = records.iter().map(|record| stream.append(record).unwrap()).collect();
    for receipt in &receipts {
        receipt.wait().unwrap();
    }
    log.rotate().unwrap();
    let read: Vec<_> = stream.read(..).unwrap().map(|record| record.unwrap()).collect();
    assert!(read.iter().map(ringlog::Record::payload).eq(records.iter().map(Vec::as_slice)));
    let stats = log.stats();
    println!("io: {}", stats.io);
    stats.notes.iter().for_each(|note| println!("note: {note}"));
    log.close().unwrap();
    true
}

/// Runs a test again as a child under `wrapper`, with its log below `home`. `None`, said by name,
/// where the wrapper does not work here.
fn under(test: &str, wrapper: &[&str], home: &Path) -> Option<String> {
    let runs = |program: &mut Command| program.output().is_ok_and(|done| done.status.success());
    let (program, arguments) = wrapper.split_first().unwrap();
    if !runs(Command::new(program).args(arguments).arg("true")) {
        let line = format!("skipped: {test}: {wrapper:?} does not work here\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        return None;
    }
    let output = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, home.join("log"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("io: "), "{said}{errors}");
    Some(said)
}

/// A directory on the disk that anybody may write.
fn open_home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(home.path(), anybody).unwrap();
    home
}

/// Asserts that one note has the words, and that none has them without the refusal.
#[track_caller]
fn assert_noted(test: &str, wrapper: &[&str], words: &[&str]) {
    let notes = |said: &str| -> Vec<String> {
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        said.lines()
            .filter(|line| line.starts_with("note: "))
            .filter(has_all)
            .map(str::to_owned)
            .collect()
    };
    let home = open_home();
    let Some(said) = under(test, wrapper, home.path()) else { return };
    let noted = notes(&said);
    assert_eq!(noted.len(), 1, "{said}");
    assert!(noted[0].ends_with('.') && noted[0].matches(". ").count() == 0, "{noted:?}");
    let home = open_home();
    let said = under(test, &["env"], home.path()).unwrap();
    assert_eq!(notes(&said), Vec::<String>::new(), "it is said without a reason");
}

#[test]
fn io_uring_refused() {
    if child() {
        return;
    }
    let wrapper =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=io_uring_setup:error=EPERM"];
    assert_noted("io_uring_refused", &wrapper, &["io_uring is refused", "blocking calls"]);
}

#[test]
fn pinning_refused() {
    if child() {
        return;
    }
    let wrapper =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=sched_setaffinity:error=EPERM"];
    assert_noted("pinning_refused", &wrapper, &["could not be pinned"]);
}

#[test]
fn one_cpu() {
    if child() {
        return;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first = allowed.trim().split(['-', ',']).next().unwrap();
    assert_noted("one_cpu", &["taskset", "-c", first], &["one CPU"]);
}

/// Root may lock what it likes, so the child loses that right.
#[test]
fn memory_lock_limit() {
    if child() {
        return;
    }
    let drop = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--no-new-privs"];
    let limit = ["prlimit", "--memlock=65536:65536"];
    let wrapper = if std::fs::metadata("/proc/self").is_ok_and(|me| is_root(&me)) {
        [&limit[..], &drop[..]].concat()
    } else {
        limit.to_vec()
    };
    // The limit is one of the user's: while others of this user have rings, there may not even be
    // room for the ring.
    assert_noted("memory_lock_limit", &wrapper, &["ulimit -l"]);
}

fn is_root(me: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(me) == 0
}

/// (That direct I/O is refused outright, `ringlog-disk` tests with a filter of system calls.)
#[test]
fn direct_io_faked() {
    if child() {
        return;
    }
    let shm = Path::new("/dev/shm");
    if !shm.is_dir() {
        println!("skipped: direct_io_faked: no /dev/shm");
        return;
    }
    let home = tempfile::TempDir::new_in(shm).unwrap();
    let said = under("direct_io_faked", &["env"], home.path()).unwrap();
    assert!(said.contains("note: tmpfs accepts direct I/O but does not do it"), "{said}");
}

#[test]
fn no_huge_pages() {
    if child() {
        return;
    }
    // Inherited over exec; 41 is PR_SET_THP_DISABLE.
    let disable = "import ctypes, os, sys\n\
        if ctypes.CDLL(None).prctl(41, 1, 0, 0, 0): sys.exit(1)\n\
        os.execvp(sys.argv[1], sys.argv[1:])";
    assert_noted("no_huge_pages", &["python3", "-c", disable], &["Huge pages are not to be had"]);
}
