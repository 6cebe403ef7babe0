//! Lines from a file or a pipe, read by a thread of their own, so that a pipe that brings nothing
//! holds up neither acknowledgements nor an interruption.
//!
//! Invariants: every byte but the newlines arrives, in order; a line is never split over two
//! blocks; memory is bounded by the longest line allowed times the number of blocks.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender};

use memchr::{memchr, memrchr};

/// How much is read at once.
const BLOCK_BYTES: usize = 1 << 20;
/// A longer line fits no batch of any log, where each line is a record.
pub(crate) const LINE_BYTES_MAX: usize = ringlog::limits::BATCH_BYTES_MAX;
/// How many events wait for the thread that appends.
pub(crate) const EVENTS_MAX: usize = 4;

/// What the appending thread waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// Lines have come.
    Lines(Block),
    /// There are no more.
    End,
    /// Reading failed, or a line was too long; in words.
    Failed(String),
    /// Look at the stop flag.
    Stop,
}

/// Whole lines, each with its newline, except perhaps the last one of the input.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    used: usize,
}

impl Block {
    /// The lines without their newlines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..self.used];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (line, behind) = match memchr(b'\n', rest) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &rest[rest.len()..]),
            };
            rest = behind;
            Some(line)
        })
    }

    /// How many bytes of the input it holds.
    pub(crate) fn input_bytes(&self) -> usize {
        self.used
    }

    /// Its memory, to be used again.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads `input` to its end and sends its lines. Ends early when nobody listens any more, or when a
/// line is longer than `line_bytes_max`. `memory` brings used blocks back.
pub(crate) fn pump(
    mut input: impl Read,
    events: &SyncSender<Event>,
    memory: &Receiver<Vec<u8>>,
    line_bytes_max: usize,
) {
    let fresh = |at_least: usize| {
        let mut bytes = memory.try_recv().unwrap_or_default();
        if bytes.len() < at_least {
            bytes.resize(at_least, 0);
        }
        bytes
    };
    let mut bytes = fresh(BLOCK_BYTES);
    let mut used = 0;
    loop {
        let read = match input.read(&mut bytes[used..]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let _ = events.send(Event::Failed(format!("reading the input: {error}")));
                return;
            }
        };
        let newline = memrchr(b'\n', &bytes[used..used + read]);
        let whole = newline.map(|at| used + at + 1);
        used += read;
        if let Some(whole) = whole {
            // The beginning of the next line moves to the next block.
            let begun = used - whole;
            let mut next = fresh(BLOCK_BYTES.max(begun + BLOCK_BYTES / 2));
            next[..begun].copy_from_slice(&bytes[whole..used]);
            if events.send(Event::Lines(Block { bytes, used: whole })).is_err() {
                return;
            }
            (bytes, used) = (next, begun);
        } else if used > line_bytes_max {
            let text = format!("a line is longer than {line_bytes_max} bytes, which fit no log");
            let _ = events.send(Event::Failed(text));
            return;
        } else if used == bytes.len() {
            bytes.resize(used * 2, 0);
        }
    }
    if used > 0 && events.send(Event::Lines(Block { bytes, used })).is_err() {
        return;
    }
    let _ = events.send(Event::End);
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{channel, sync_channel};

    use super::*;

    /// Gives its bytes in pieces of a given size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(self.1).min(buf.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn lines_of(input: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<String>) {
        let (events, received) = sync_channel(EVENTS_MAX);
        let (give_back, memory) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || pump(Pieces(input, piece), &events, &memory, LINE_BYTES_MAX));
            let mut lines = Vec::new();
            loop {
                match received.recv().unwrap() {
                    Event::Lines(block) => {
                        lines.extend(block.lines().map(<[u8]>::to_vec));
                        let _ = give_back.send(block.into_memory());
                    }
                    Event::End => return (lines, None),
                    Event::Failed(text) => return (lines, Some(text)),
                    Event::Stop => {}
                }
            }
        })
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let cases: [(&[u8], &[&[u8]]); 7] = [
            (b"", &[]),
            (b"\n", &[b""]),
            (b"a", &[b"a"]),
            (b"a\n", &[b"a"]),
            (b"\n\na\n\nb", &[b"", b"", b"a", b"", b"b"]),
            (b"a\r\n\0\xff\n", &[b"a\r", b"\0\xff"]),
            (b"abc\ndef\n", &[b"abc", b"def"]),
        ];
        for (input, expected) in cases {
            for piece in [1, 2, 3, 1000] {
                let (lines, error) = lines_of(input, piece);
                assert_eq!(lines, expected, "{input:?} in pieces of {piece}");
                assert_eq!(error, None);
            }
        }
    }

    #[test]
    fn lines_longer_than_a_block_arrive_whole() {
        let mut input = vec![b'x'; BLOCK_BYTES - 1];
        input.push(b'\n');
        input.extend(std::iter::repeat_n(b'y', 3 * BLOCK_BYTES + 5));
        input.extend(b"\nz");
        let (lines, error) = lines_of(&input, 70_001);
        let lengths: Vec<usize> = lines.iter().map(Vec::len).collect();
        assert_eq!(lengths, [BLOCK_BYTES - 1, 3 * BLOCK_BYTES + 5, 1]);
        assert!(lines[1].iter().all(|b| *b == b'y'), "the long line is itself");
        assert_eq!(error, None);
    }

    #[test]
    fn a_line_without_end_is_refused_after_those_before_it() {
        let mut input = b"first\n".to_vec();
        input.resize(LINE_BYTES_MAX * 2 + 100, b'x');
        let (lines, error) = lines_of(&input, 1 << 20);
        assert_eq!(lines, [b"first"]);
        assert!(error.unwrap().contains("longer than 8388608"));
    }
}
