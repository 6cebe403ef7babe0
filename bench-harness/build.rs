//! Tells the program of which commit it was built, where that can be known: in a clone of its own
//! repository. `RINGLOG_BENCH_COMMIT` is its hash, with `+changes` behind it when what is built
//! differs from what was committed; it is not set where nothing is known.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program is built of, in the root of the repository.
const SOURCES: [&str; 5] = ["Cargo.lock", "Cargo.toml", "bench-harness", "disk", "engine"];

fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    // It only looks: what it could note down in the repository would be a change to look at again.
    let mut git = Command::new("git");
    let done = git.arg("--no-optional-locks").arg("-C").arg(root).args(arguments).output().ok()?;
    let told = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| told.trim().to_owned())
}

/// The hash of what is checked out at `root`, if that is the root of a repository.
fn commit(root: &Path) -> Option<String> {
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    // As a part of another repository, whose commits say nothing of this program.
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    let hash = git(root, &["rev-parse", "HEAD"])?;
    let changed = git(root, &[&["status", "--porcelain", "--"], &SOURCES[..]].concat())?;
    Some(if changed.is_empty() { hash } else { hash + "+changes" })
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Looked at again after a commit, another branch, or a change of what is built.
    let mut looked_at: Vec<PathBuf> = SOURCES.iter().map(|source| root.join(source)).collect();
    for file in ["HEAD", "logs/HEAD"] {
        looked_at.extend(git(&root, &["rev-parse", "--git-path", file]).map(|at| root.join(at)));
    }
    for path in looked_at.iter().filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    if let Some(commit) = commit(&root) {
        println!("cargo::rustc-env=RINGLOG_BENCH_COMMIT={commit}");
    }
}
