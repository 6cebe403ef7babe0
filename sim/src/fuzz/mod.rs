//! What the fuzz targets do with their input: one function for each, which panics when a promise is
//! broken.
//!
//! libFuzzer drives them from `fuzz/` (`scripts/fuzz.sh`); the tests of this crate run them on the
//! inputs that are kept there, without any fuzzer. Every input is a program or a structure that is
//! built from the bytes as they come, and every input is a valid one. Checksums are made to fit
//! again where the input says so: behind a checksum of 32 bits nothing is found by chance.
//!
//! Nothing here decides by anything but the input.

mod base;
mod differential;
mod files;
mod input;
mod mutate;
mod pure;
mod recovery;
mod seeds;
mod segment;

use std::path::{Path, PathBuf};

pub use differential::differential;
pub use files::files;
pub use pure::{batch, index, manifest, small};
pub use recovery::recovery;
pub use seeds::seeds;
pub use segment::segment;

/// A fuzz target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("batch", batch),
    ("segment", segment),
    ("manifest", manifest),
    ("small", small),
    ("index", index),
    ("recovery", recovery),
    ("differential", differential),
    ("files", files),
];

/// The inputs kept for a target in `dir/NAME/`, in order; none, where there is no such directory.
///
/// # Errors
/// The directory cannot be read.
pub fn inputs(name: &str, dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut inputs: Vec<_> = match std::fs::read_dir(dir.join(name)) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    inputs.sort();
    Ok(inputs)
}

/// Runs every target on the inputs kept in `dir/NAME/`, and gives how many there were of each.
///
/// # Errors
/// When a file cannot be read. A broken promise is a panic, told with the name of the input.
pub fn replay(dir: &Path) -> std::io::Result<Vec<(&'static str, usize)>> {
    let mut counts = Vec::new();
    for (name, target) in TARGETS {
        let inputs = inputs(name, dir)?;
        for path in &inputs {
            let _told = Told(path);
            target(&std::fs::read(path)?);
        }
        counts.push((name, inputs.len()));
    }
    Ok(counts)
}

/// Tells which input it was if that panics.
struct Told<'a>(&'a Path);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with the input {}", self.0.display());
        }
    }
}
