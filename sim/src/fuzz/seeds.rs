//! The inputs that every run begins with: made from the logs of [`super::base`] and from the log
//! under `engine/tests/golden`, the same ones every time.

use std::fs;
use std::path::Path;

use super::base::bases;
use crate::Rng;
use crate::reference::{BLOCK, HEADER_BYTES};

/// Batches longer than this are no seeds.
const SEED_BYTES_MAX: usize = 8 << 10;
const SECTION_BYTES: usize = 32;
/// So many batches have a flipped bit in every part, too.
const FLIPPED_BATCHES: usize = 4;
/// A frame of a real file is overwritten: a record that nobody wrote, but for its checksum.
const OVERWRITTEN: [u8; 27] = [
    190, 248, 113, 113, 195, 224, 133, 73, 203, 103, 154, 116, 135, 111, 42, 165, 208, 174, 226,
    16, 20, 126, 31, 73, 12, 131, 182,
];

/// Writes the seeds of each target into `dir/NAME/`. `golden` is a log as real files.
///
/// # Errors
/// Of the file system.
pub fn seeds(dir: &Path, golden: &Path) -> std::io::Result<usize> {
    let mut files: Vec<(String, Vec<u8>)> = bases().donors.clone();
    for entry in fs::read_dir(golden.join("shard-000"))? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    files.push(("log".into(), fs::read(golden.join("log"))?));
    files.sort();
    files.dedup();
    let mut put = Put { dir, count: 0 };
    let mut flipped = 0;
    for (name, content) in &files {
        match name.rsplit('.').next() {
            // Each as it is, and with a checksum that does not fit; an index without its last page.
            Some("manifest") => {
                put.put("manifest", &[&[1], &content[16..]])?;
                put.put("manifest", &[&[17], &content[16..]])?;
            }
            Some("log") => {
                put.put("small", &[&[0, 1], &content[16..]])?;
                put.put("small", &[&[0, 17], &content[16..]])?;
            }
            Some("cat") => {
                put.put("small", &[&[2, 1], &content[48..]])?;
                put.put("small", &[&[2, 17], &content[48..]])?;
            }
            Some("idx") => {
                put.put("index", &[&[3], content])?;
                put.put("index", &[&[3], &content[..content.len() - BLOCK]])?;
            }
            Some("seg") => batches(&mut put, content, &mut flipped)?,
            _ => {}
        }
    }
    put.put("files", &[&OVERWRITTEN])?;
    programs(&mut put)?;
    Ok(put.count)
}

/// The batches of a segment; of the first few, each with a flipped bit in every part, too.
fn batches(put: &mut Put<'_>, segment: &[u8], flipped: &mut usize) -> std::io::Result<()> {
    for block in segment.chunks(BLOCK).skip(1).filter(|block| block[..4] == *b"RLb1") {
        let end = HEADER_BYTES + super::pure::get_u32(block, 40) as usize;
        let used = &block[..end.min(block.len())];
        if used.len() >= SEED_BYTES_MAX {
            continue;
        }
        put.put("batch", &[&[0x0f], used])?;
        if end < BLOCK && *flipped < FLIPPED_BATCHES {
            *flipped += 1;
            let frame = HEADER_BYTES + SECTION_BYTES;
            let run = frame + super::pure::get_u32(used, HEADER_BYTES + 16) as usize;
            // In the header, a section, a frame, its payload, a run, the padding.
            for byte in [17, HEADER_BYTES + 9, frame + 9, frame + 16, run + 8, end] {
                let bit = byte as u32 * 8;
                put.put("batch", &[&[0x1f], &bit.to_le_bytes(), used])?;
            }
        }
    }
    Ok(())
}

/// Programs for the targets that build or damage something.
fn programs(put: &mut Put<'_>) -> std::io::Result<()> {
    let mut rng = Rng::new(1);
    for (target, programs) in
        [("segment", 24), ("recovery", 40), ("differential", 60), ("files", 30)]
    {
        for number in 0..programs {
            let bytes = 8 + rng.index(120);
            let mut program: Vec<u8> = (0..bytes).map(|_| rng.index(256) as u8).collect();
            if target == "segment" {
                // Mostly good batches: few of the bytes that say what is wrong.
                program = [&[number as u8 * 5, 2, 0][..], &sound_batches(&mut rng)].concat();
            } else {
                program[0] = number as u8;
                program[1] = (number / 5) as u8;
            }
            put.put(target, &[&program])?;
        }
    }
    Ok(())
}

fn sound_batches(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..3 + rng.index(8) {
        let what = if rng.chance(150_000) { rng.index(50) as u8 } else { 200 };
        out.extend_from_slice(&[what, 1, 2, 0, 1, 9, 2, 30, rng.index(6) as u8]);
    }
    out
}

struct Put<'a> {
    dir: &'a Path,
    count: usize,
}

impl Put<'_> {
    /// Files are named by their content, as libFuzzer does: no two are the same.
    fn put(&mut self, target: &str, parts: &[&[u8]]) -> std::io::Result<()> {
        let content = parts.concat();
        let name = format!("seed-{:08x}", crate::reference::crc(content.iter().copied()));
        fs::create_dir_all(self.dir.join(target))?;
        fs::write(self.dir.join(target).join(name), content)?;
        self.count += 1;
        Ok(())
    }
}
