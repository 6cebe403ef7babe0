//! Windows over one file, and over one and the file that follows it.

use ringlog_disk::{DiskFacts, FileName, Flush, MemoryDevice, MemoryDisk, Slice, Waker};

use super::*;

const PIECE: usize = 2 * BLOCK_BYTES;
const PIECES: u32 = 4;
const FIRST: FileId = FileId(0);
const SECOND: FileId = FileId(2);

/// Notes what is read, and lets the reads of one file fail.
struct Watched {
    disk: MemoryDisk,
    reads: Vec<(FileId, u64)>,
    fails: Option<FileId>,
    doomed: Vec<Tag>,
}

impl Disk for Watched {
    fn submit(&mut self, tag: Tag, op: Op) {
        if let Op::Read { file, offset, .. } = &op {
            self.reads.push((*file, *offset));
            if self.fails == Some(*file) {
                self.doomed.push(tag);
            }
        }
        self.disk.submit(tag, op);
    }

    fn send(&mut self) {
        self.disk.send();
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        self.disk.reap(wait, out);
        for done in out.iter_mut().filter(|done| self.doomed.contains(&done.tag)) {
            done.result = Err(DiskError::new(DiskErrorKind::Io, "read, as was asked for"));
        }
    }

    fn in_flight(&self) -> usize {
        self.disk.in_flight()
    }

    fn waker(&self) -> Waker {
        self.disk.waker()
    }

    fn facts(&self) -> &DiskFacts {
        self.disk.facts()
    }
}

impl Watched {
    fn reads_of(&self, file: FileId) -> Vec<u64> {
        self.reads.iter().filter(|(of, _)| *of == file).map(|(_, at)| *at).collect()
    }
}

fn content(file: FileId, pieces: usize) -> Vec<u8> {
    let word = |at: u64| (at * 2654435761 + u64::from(file.0)).to_le_bytes();
    (0..(pieces * PIECE / 8) as u64).flat_map(word).collect()
}

/// Two open files, of so many pieces.
fn two_files(pieces: [usize; 2]) -> Watched {
    let mut disk = MemoryDevice::new().root().disk();
    let pool = BlockPool::new(1, PIECE).unwrap();
    for (file, pieces) in [FIRST, SECOND].into_iter().zip(pieces) {
        let name = FileName::new(format!("file{}", file.0)).unwrap();
        let bytes = (pieces * PIECE) as u64;
        run(&mut disk, Op::Create { file, name, bytes }).result.unwrap();
        for (offset, piece) in (0..).step_by(PIECE).zip(content(file, pieces).chunks(PIECE)) {
            let mut block = pool.take().unwrap();
            block.copy_from_slice(piece);
            let data = vec![Slice { block, len: PIECE }];
            let write = Op::Write { file, offset, data, flush: Flush::No };
            assert_eq!(run(&mut disk, write).result, Ok(Done::Wrote));
        }
    }
    Watched { disk, reads: Vec::new(), fails: None, doomed: Vec::new() }
}

fn window(file: FileId, pieces: usize) -> Window {
    let pool = BlockPool::new(PIECES, PIECE).unwrap();
    Window::new(pool, file, (pieces * PIECE) as u64)
}

/// Reads on from `at` in steps that lie across the borders of pieces, and compares.
fn goes_on(window: &mut Window, disk: &mut Watched, file: FileId, pieces: usize, at: usize) {
    let content = content(file, pieces);
    for (offset, expected) in (at..).step_by(5000).zip(content[at..].chunks(5000)) {
        let found = window.get(disk, offset as u64, 5000).unwrap();
        assert_eq!(found, expected, "{file:?}, {offset}");
        let part = 17.min(expected.len())..expected.len();
        let view = window.view((offset + part.start) as u64, part.len());
        assert_eq!(view, &expected[part], "{file:?}, {offset}");
    }
}

#[test]
fn the_file_that_follows_is_read_while_this_one_is_in_use() {
    let mut disk = two_files([6, 5]);
    let mut window = window(FIRST, 6);
    window.get(&mut disk, 0, PIECE).unwrap();
    assert!(!window.is_read(&mut disk), "the front of six pieces");
    window.get(&mut disk, PIECE as u64, PIECE).unwrap();
    assert!(!window.is_read(&mut disk), "one piece is left");
    window.get(&mut disk, 2 * PIECE as u64, PIECE).unwrap();
    assert!(window.is_read(&mut disk));
    window.follow(&mut disk, (SECOND, 5 * PIECE as u64), 0);
    // No block is left; with each that comes back one more is read.
    assert!(disk.reads_of(SECOND).is_empty());
    window.get(&mut disk, 3 * PIECE as u64, PIECE).unwrap();
    assert_eq!(disk.reads_of(SECOND), [0]);
    window.get(&mut disk, 5 * PIECE as u64, PIECE).unwrap();
    assert_eq!(disk.reads_of(SECOND), [0, PIECE as u64, 2 * PIECE as u64]);
    assert_eq!(window.following(), Some(SECOND));
    assert_eq!(
        window.get(&mut disk, 5 * PIECE as u64, PIECE).unwrap(),
        &content(FIRST, 6)[5 * PIECE..]
    );
    window.turn(&mut disk);
    assert_eq!(window.following(), None);
    assert!(window.view(5 * PIECE as u64, PIECE) != &content(FIRST, 6)[5 * PIECE..]);
    goes_on(&mut window, &mut disk, SECOND, 5, 0);
    assert_eq!((disk.reads_of(FIRST).len(), disk.reads_of(SECOND).len()), (6, 5), "each once");
    assert_eq!(window.bytes_read, 11 * PIECE as u64);
    // The first one was closed, the second was not.
    window.drop_all(&mut disk);
    let close = |file| Op::Close { file };
    run(&mut disk, close(FIRST)).result.unwrap_err();
    run(&mut disk, close(SECOND)).result.unwrap();
}

#[test]
fn it_is_read_from_where_it_is_wanted() {
    let mut disk = two_files([1, 5]);
    let mut window = window(FIRST, 1);
    window.get(&mut disk, 0, PIECE).unwrap();
    assert!(window.is_read(&mut disk));
    window.follow(&mut disk, (SECOND, 5 * PIECE as u64), 2 * PIECE as u64 + 100);
    assert_eq!(disk.reads_of(SECOND), [2, 3, 4].map(|piece| piece * PIECE as u64));
    window.turn(&mut disk);
    goes_on(&mut window, &mut disk, SECOND, 5, 2 * PIECE + 100);
    assert_eq!(disk.reads_of(SECOND).len(), 3);
}

#[test]
fn what_fails_ahead_fails_only_who_wants_it() {
    let mut disk = two_files([3, 3]);
    disk.fails = Some(SECOND);
    let mut window = window(FIRST, 3);
    goes_on(&mut window, &mut disk, FIRST, 3, 0);
    assert!(window.is_read(&mut disk));
    window.follow(&mut disk, (SECOND, 3 * PIECE as u64), 0);
    goes_on(&mut window, &mut disk, FIRST, 3, 2 * PIECE);
    window.settle(&mut disk);
    window.turn(&mut disk);
    let error = window.get(&mut disk, 0, 100).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Io);
    // And once more when it is asked once more, from the device.
    disk.fails = None;
    disk.doomed.clear();
    goes_on(&mut window, &mut disk, SECOND, 3, 0);
}

#[test]
fn who_goes_back_gets_all_blocks() {
    let mut disk = two_files([6, 6]);
    let mut window = window(FIRST, 6);
    window.read_on();
    goes_on(&mut window, &mut disk, FIRST, 6, 0);
    assert!(window.is_read(&mut disk));
    window.follow(&mut disk, (SECOND, 6 * PIECE as u64), 0);
    assert_eq!(disk.reads_of(SECOND).len(), 3);
    let most = (PIECES as usize - 1) * PIECE;
    assert_eq!(window.get(&mut disk, 0, most).unwrap(), &content(FIRST, 6)[..most]);
    goes_on(&mut window, &mut disk, FIRST, 6, 0);
    window.turn(&mut disk);
    goes_on(&mut window, &mut disk, SECOND, 6, 0);
}
