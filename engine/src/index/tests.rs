//! Indexes of real segments against what reading the log gives, and every kind of bad index.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ringlog_disk::{
    BlockingDisk, Completion, Dir, Disk, DiskFacts, DiskOptions, FileId, IoKind, Op, Tag, Wait,
    Waker,
};

use super::cache::Cache;
use super::file::{Fault, Loaded};
use super::search::{Pages, Search};
use super::{IndexReport, Indexes, Postings};
use crate::format::batch::{BATCH_HEADER_BYTES, BatchHeader, HeaderSeed};
use crate::format::index::{self, EXTENTS_PER_PAGE, IndexHeader, PAGE_BYTES, Posting};
use crate::format::segment::{SEGMENT_HEADER_BYTES, Sealed};
use crate::ids::{LogId, Lsn, Offset, SegmentId, StreamId};
use crate::limits::BLOCK_BYTES;
use crate::names;
use crate::recovery::{Identity, load_manifest, resume};
use crate::shard::SegmentRef;
use crate::{Durability, Format, Log, Options};

const FILE: FileId = FileId(9);
const STREAMS: usize = 300;
/// So small that most pages are read one by one.
const SMALL: usize = 64 << 10;
const LARGE: usize = 32 << 20;

/// A disk that counts what is read from segments.
struct Counting {
    disk: BlockingDisk,
    segment_open: bool,
    bytes: u64,
    index_reads: u64,
}

impl Disk for Counting {
    fn submit(&mut self, tag: Tag, op: Op) {
        match &op {
            Op::Open { name, .. } => self.segment_open = name.as_str().ends_with(".seg"),
            Op::Read { len, .. } if self.segment_open => self.bytes += *len as u64,
            Op::Read { .. } => self.index_reads += 1,
            _ => {}
        }
        self.disk.submit(tag, op);
    }

    fn reap(&mut self, wait: Wait, out: &mut Vec<Completion>) {
        self.disk.reap(wait, out);
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

/// Where a record lies and when it was placed.
#[derive(Clone, Copy, Debug)]
struct Known {
    offset: Offset,
    lsn: Lsn,
    timestamp_ns: u64,
}

struct Fixture {
    _dir: tempfile::TempDir,
    shard: PathBuf,
    identity: Identity,
    /// The sealed ones.
    segments: Vec<Arc<SegmentRef>>,
    /// All records of the sealed segments.
    model: BTreeMap<u32, Vec<Known>>,
}

impl Fixture {
    /// A closed log of sealed segments with batches of all streams, and some of few.
    fn new(segment_bytes: u64, segments: usize, rounds: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            format: Format { segment_bytes: Some(segment_bytes), shards: Some(1) },
            io: IoKind::Blocking,
            pin: false,
            durability: Durability::Memory,
            ..Options::default()
        };
        let log = Log::open(dir.path(), options).unwrap();
        let stream = |n| {
            if n % 64 == 0 {
                log.flush().unwrap(); // so that there is memory for more
            }
            log.stream(&format!("stream {n}")).unwrap()
        };
        let streams: Vec<_> = (0..STREAMS).map(stream).collect();
        for segment in 0..segments {
            for round in 0..rounds {
                let here = streams.iter().enumerate().filter(|(n, _)| {
                    // Some streams are not in each segment, and not in each batch.
                    (n % 7 != 3 || segment % 3 == 1) && (n % 3 != 0 || round % 4 == 0)
                });
                for (n, stream) in here {
                    for _ in 0..1 + (n + round) % 3 {
                        drop(stream.append(&[n as u8; 24]).unwrap()); // the flush waits
                    }
                }
                log.flush().unwrap();
            }
            log.rotate().unwrap();
        }
        let info = log.streams();
        let mut model = BTreeMap::new();
        for stream in &info {
            let reader = log.stream(&stream.name).unwrap().read(..).unwrap();
            let known = reader.map(|record| {
                let record = record.unwrap();
                let (offset, lsn) = (record.offset(), record.lsn());
                Known { offset, lsn, timestamp_ns: record.timestamp_ns() }
            });
            model.insert(stream.id.0, known.collect());
        }
        let identity = Identity { log: log.stats().log_id, shard: 0, segment_bytes };
        log.close().unwrap();
        let shard = dir.path().join("shard-000");
        let mut made = Self { _dir: dir, shard, identity, segments: Vec::new(), model };
        let manifest = load_manifest(&mut made.disk(), &identity).unwrap();
        made.segments = resume::segment_refs(&manifest, &[]);
        made.segments.retain(|segment| segment.sealed.get().is_some());
        assert!(made.segments.len() >= segments);
        made
    }

    fn disk(&self) -> Counting {
        let dir = Dir::open(&self.shard).unwrap();
        let disk = BlockingDisk::open(&dir, None, &DiskOptions::default()).unwrap();
        Counting { disk, segment_open: false, bytes: 0, index_reads: 0 }
    }

    fn indexes(&self, bytes: usize) -> Indexes {
        Indexes::new(self.identity, bytes, true)
    }

    fn path(&self, at: usize) -> PathBuf {
        self.shard.join(names::index(self.segments[at].segment).as_str())
    }

    fn sealed(&self, at: usize) -> Sealed {
        *self.segments[at].sealed.get().unwrap()
    }

    /// The records of a stream in a segment.
    fn here(&self, at: usize, stream: u32) -> Vec<Known> {
        let sealed = self.sealed(at);
        let range = sealed.base_lsn..sealed.end_lsn;
        let all = self.model[&stream].iter().filter(|known| range.contains(&known.lsn));
        all.copied().collect()
    }

    /// Stores the index of every segment, and gives them.
    fn store_all(&self) -> Vec<Vec<u8>> {
        let (indexes, mut disk) = (self.indexes(LARGE), self.disk());
        (0..self.segments.len())
            .map(|at| {
                let _ = std::fs::remove_file(self.path(at));
                indexes.streams_of(&mut disk, FILE, &self.segments[at]).unwrap();
                std::fs::read(self.path(at)).unwrap()
            })
            .collect()
    }

    /// Everything that an index of a segment can be asked.
    fn check_segment(&self, indexes: &Indexes, disk: &mut dyn Disk, at: usize) {
        let segment = &self.segments[at];
        let base = segment.base_lsn.0;
        let place = |lsn: Lsn| ((lsn.0 - base) / BLOCK_BYTES as u64) as u32;
        let until = self.sealed(at).end_lsn;
        let mut streams = indexes.streams_of(disk, FILE, segment).unwrap();
        streams.retain(|(stream, ..)| *stream != StreamId::CATALOGUE);
        let mut times: Vec<(u64, u32)> = Vec::new();
        for id in self.model.keys().copied() {
            let (stream, known) = (StreamId(id), self.here(at, id));
            let bounds = indexes.stream_bounds(disk, FILE, segment, stream).unwrap();
            let expected = known.first().zip(known.last());
            let expected = expected.map(|(first, last)| (first.offset, Offset(last.offset.0 + 1)));
            assert_eq!(bounds, expected, "stream {id} of segment {at}");
            let listed = streams.iter().find(|(listed, ..)| *listed == stream);
            assert_eq!(listed.map(|(_, first, end)| (*first, *end)), expected);
            let postings = indexes.postings(disk, FILE, segment, stream, until).unwrap().unwrap();
            let each = |posting: &Posting| {
                let block = posting.block;
                (posting.first.0..posting.end().0).map(move |offset| (offset, block))
            };
            let told: Vec<(u64, u32)> = postings.iter().flat_map(each).collect();
            let wanted = known.iter().map(|known| (known.offset.0, place(known.lsn)));
            assert_eq!(told, wanted.collect::<Vec<_>>(), "stream {id} of segment {at}");
            for known in known.iter().step_by(5) {
                let found = indexes.posting_at(disk, FILE, segment, stream, known.offset).unwrap();
                let found = found.unwrap();
                assert!(found.first <= known.offset && known.offset < found.end());
                assert_eq!(found.block, place(known.lsn));
                assert!(postings.contains(&found));
            }
            let end = expected.map_or(Offset(0), |(_, end)| end);
            let behind = indexes.posting_at(disk, FILE, segment, stream, end).unwrap();
            assert_eq!(behind, None);
            times.extend(known.iter().map(|known| (known.timestamp_ns, place(known.lsn))));
        }
        times.sort_unstable();
        for (ns, _) in times.iter().step_by(97) {
            let first = times.iter().find(|(time, _)| time >= ns).unwrap().1;
            let block = indexes.block_at_time(disk, FILE, segment, *ns).unwrap();
            assert!(block <= first && first - block <= 64, "block {block} for {first}");
        }
    }

    fn check_find(&self, indexes: &Indexes, disk: &mut dyn Disk) {
        let until = Lsn(u64::MAX);
        let segments = &self.segments;
        for (id, all) in &self.model {
            let stream = StreamId(*id);
            let sealed_end = self.sealed(segments.len() - 1).end_lsn;
            let all = all.iter().filter(|known| known.lsn < sealed_end);
            for known in all.step_by(17) {
                let found = indexes.find(disk, FILE, segments, stream, known.offset, sealed_end);
                let place = found.unwrap().unwrap();
                let at = segments.partition_point(|one| one.base_lsn <= known.lsn) - 1;
                let block = (known.lsn.0 - segments[at].base_lsn.0) / BLOCK_BYTES as u64;
                assert_eq!((place.at, u64::from(place.block)), (at, block), "{known:?} of {id}");
            }
        }
        let nobody = StreamId(100_000);
        assert_eq!(indexes.find(disk, FILE, segments, nobody, Offset(0), Lsn(4096)).unwrap(), None);
        // What lies behind the last index is not known, and nobody says that there is nothing.
        assert!(indexes.find(disk, FILE, &[], nobody, Offset(0), until).unwrap().is_none());
    }
}

fn rebuilt(report: &IndexReport) -> (u64, u64, u64) {
    (report.loaded, report.rebuilt, report.rebuilt_partly)
}

#[test]
fn an_index_tells_what_reading_tells() {
    let fixture = Fixture::new(1 << 20, 5, 24);
    let of_the_writer: Vec<_> =
        (0..fixture.segments.len()).map(|at| std::fs::read(fixture.path(at)).unwrap()).collect();
    let stored = fixture.store_all();
    assert!(stored == of_the_writer, "made anew, it is what the writer stored");
    assert!(stored.iter().all(|file| file.len() > 10 * PAGE_BYTES), "several pages of postings");
    for bytes in [SMALL, LARGE] {
        let (indexes, mut disk) = (fixture.indexes(bytes), fixture.disk());
        for at in 0..fixture.segments.len() {
            fixture.check_segment(&indexes, &mut disk, at);
        }
        fixture.check_find(&indexes, &mut disk);
        assert_eq!(disk.bytes, 0, "no segment was read");
        let report = indexes.report();
        assert_eq!((report.rebuilt, report.rebuilt_partly), (0, 0), "{report:?}");
        assert!(report.memory_bytes <= bytes as u64 + 32_768, "{report:?}");
    }
}

/// What can be wrong with a file, each as what lies there then.
fn bad_files(good: &[u8], other: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut bad = vec![
        ("empty".to_owned(), Vec::new()),
        ("zeros".to_owned(), vec![0; good.len()]),
        ("ones".to_owned(), vec![0xff; good.len()]),
        ("of another segment".to_owned(), other.to_vec()),
        ("longer".to_owned(), [good, &[0; PAGE_BYTES]].concat()),
        ("longer by a byte".to_owned(), [good, &[7]].concat()),
    ];
    let lengths = (0..good.len()).step_by(PAGE_BYTES).chain([1, 4095, 4097, good.len() - 1]);
    for length in lengths {
        bad.push((format!("cut to {length} bytes"), good[..length].to_vec()));
    }
    for bit in (0..good.len() * 8).step_by(29_989) {
        let mut file = good.to_vec();
        file[bit / 8] ^= 1 << (bit % 8);
        bad.push((format!("bit {bit} flipped"), file));
    }
    bad
}

#[test]
fn a_bad_index_is_never_believed_and_is_made_anew() {
    let fixture = Fixture::new(1 << 20, 3, 24);
    let stored = fixture.store_all();
    let at = 1;
    for (n, (what, bytes)) in bad_files(&stored[at], &stored[0]).into_iter().enumerate() {
        std::fs::write(fixture.path(at), bytes).unwrap();
        let memory = if n % 2 == 0 { SMALL } else { LARGE };
        let (indexes, mut disk) = (fixture.indexes(memory), fixture.disk());
        fixture.check_segment(&indexes, &mut disk, at);
        let report = indexes.report();
        assert_eq!((report.rebuilt, report.rebuilt_partly), (1, 0), "{what}: {report:?}");
        assert_eq!(report.reasons.len(), 1, "{what}: {report:?}");
        let now = std::fs::read(fixture.path(at)).unwrap();
        assert!(now == stored[at], "{what}: stored again, the same as before");
    }
}

#[test]
fn an_index_that_cannot_be_read_or_stored_is_kept_in_memory() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new(1 << 20, 2, 24);
    fixture.store_all();
    for what in ["missing", "a directory", "a link"] {
        let path = fixture.path(0);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        match what {
            "a directory" => {
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join("x"), "in use").unwrap();
            }
            "a link" => symlink("/etc/passwd", &path).unwrap(),
            _ => {}
        }
        let (indexes, mut disk) = (fixture.indexes(LARGE), fixture.disk());
        fixture.check_segment(&indexes, &mut disk, 0);
        fixture.check_segment(&indexes, &mut disk, 0);
        let report = indexes.report();
        assert_eq!(rebuilt(&report), (0, 1, 0), "{what}: {report:?}");
        assert_eq!(path.is_dir(), what == "a directory");
    }
}

#[test]
fn an_index_of_another_log_is_foreign() {
    let (one, other) = (Fixture::new(1 << 20, 2, 24), Fixture::new(1 << 20, 2, 24));
    let (stored, foreign) = (one.store_all(), other.store_all());
    assert_eq!(one.path(0).file_name(), other.path(0).file_name());
    std::fs::write(one.path(0), &foreign[0]).unwrap();
    let (indexes, mut disk) = (one.indexes(LARGE), one.disk());
    one.check_segment(&indexes, &mut disk, 0);
    assert_eq!(rebuilt(&indexes.report()), (0, 1, 0));
    assert!(std::fs::read(one.path(0)).unwrap() == stored[0]);
}

/// The index of a segment as it was when only some of its batches were there.
fn older(fixture: &Fixture, at: usize, part: u64, stored: &[u8]) -> (Vec<u8>, Lsn) {
    let Identity { log, shard, .. } = fixture.identity;
    let (sealed, id) = (fixture.sealed(at), fixture.segments[at].segment);
    let segment = std::fs::read(fixture.shard.join(names::segment(id).as_str())).unwrap();
    let seed = HeaderSeed::new(log, shard, id);
    let (mut lsn, mut chain) = (sealed.base_lsn, sealed.chain_before);
    let (mut records, mut last_ns) = (0, 0);
    while lsn.0 - sealed.base_lsn.0 < (sealed.end_lsn.0 - sealed.base_lsn.0) * part / 8 {
        let offset = (SEGMENT_HEADER_BYTES + lsn.0 - sealed.base_lsn.0) as usize;
        let block = &segment[offset..offset + BATCH_HEADER_BYTES];
        let (header, own) = BatchHeader::decode(block, seed, lsn).unwrap();
        (lsn, chain, last_ns) = (header.end(), own, header.timestamp_ns);
        records += u64::from(header.frames);
    }
    let covers = Sealed { end_lsn: lsn, chain_end: chain, records, last_ns, ..sealed };
    let end = ((lsn.0 - sealed.base_lsn.0) / BLOCK_BYTES as u64) as u32;
    let content = index::decode(stored, log, shard, id).unwrap();
    let mut postings: Vec<Posting> = content.postings;
    postings.retain(|posting| posting.block < end);
    let times: Vec<_> = content.times.into_iter().filter(|point| point.block < end).collect();
    let file = index::encode(log, shard, id, &covers, &mut postings, &times).unwrap();
    (file, lsn)
}

#[test]
fn of_an_older_index_only_the_rest_is_made() {
    let fixture = Fixture::new(8 << 20, 1, 200);
    let stored = fixture.store_all();
    let used = fixture.sealed(0).end_lsn.0 - fixture.sealed(0).base_lsn.0;
    for part in [1, 4, 7] {
        let (file, covered) = older(&fixture, 0, part, &stored[0]);
        std::fs::write(fixture.path(0), &file).unwrap();
        let (indexes, mut disk) = (fixture.indexes(LARGE), fixture.disk());
        fixture.check_segment(&indexes, &mut disk, 0);
        let report = indexes.report();
        assert_eq!(rebuilt(&report), (0, 0, 1), "{part}/8: {report:?}");
        let missing = used - (covered.0 - fixture.sealed(0).base_lsn.0);
        assert!(disk.bytes <= missing + (2 << 20), "{} of {missing} missing", disk.bytes);
        assert!(std::fs::read(fixture.path(0)).unwrap() == stored[0]);
    }
    // An older index whose last batch is not the one that lies there proves nothing.
    let (file, _) = older(&fixture, 0, 4, &stored[0]);
    let Identity { log, shard, .. } = fixture.identity;
    let id = fixture.segments[0].segment;
    let content = index::decode(&file, log, shard, id).unwrap();
    let covers = Sealed { chain_end: 1, ..content.header.covers };
    let mut few: Vec<Posting> = content.postings[..3].to_vec();
    let forged = index::encode(log, shard, id, &covers, &mut few, &content.times).unwrap();
    std::fs::write(fixture.path(0), &forged).unwrap();
    let (indexes, mut disk) = (fixture.indexes(LARGE), fixture.disk());
    fixture.check_segment(&indexes, &mut disk, 0);
    assert_eq!(rebuilt(&indexes.report()), (0, 1, 0));
}

#[test]
fn what_is_kept_of_a_segment_is_not_believed_once_more_lies_in_it() {
    let fixture = Fixture::new(1 << 20, 1, 24);
    let stored = fixture.store_all();
    let (file, _) = older(&fixture, 0, 4, &stored[0]);
    let Identity { log, shard, .. } = fixture.identity;
    let whole = &fixture.segments[0];
    let covers = IndexHeader::decode(&file, log, shard, whole.segment).unwrap().covers;
    let before = SegmentRef::new(whole.segment, whole.base_lsn, whole.chain_before, Arc::default());
    before.sealed.set(covers).unwrap();
    for memory in [SMALL, LARGE] {
        let (indexes, mut disk) = (fixture.indexes(memory), fixture.disk());
        std::fs::write(fixture.path(0), &file).unwrap();
        indexes.stream_bounds(&mut disk, FILE, &before, StreamId(5)).unwrap().unwrap();
        assert_eq!(rebuilt(&indexes.report()), (1, 0, 0));
        fixture.check_segment(&indexes, &mut disk, 0);
    }
}

#[test]
fn no_page_is_kept_of_an_index_that_has_been_replaced() {
    let fixture = Fixture::new(1 << 20, 1, 24);
    let stored = fixture.store_all();
    let id = fixture.segments[0].segment;
    let front = || Arc::new(Loaded::whole(stored[0].clone(), &fixture.identity, id).unwrap());
    let (bad, good) = (front(), front());
    let page: Arc<[u8]> = vec![7; PAGE_BYTES].into();
    let mut cache = Cache::new(LARGE);
    cache.put_front(id, Arc::clone(&bad));
    cache.put_page(id, &bad, 3, Arc::clone(&page));
    assert!(cache.page(id, 3).is_some());
    cache.put_front(id, Arc::clone(&good));
    assert_eq!(cache.page(id, 3), None, "it goes with its front");
    // A reader that is still in the bad one has read another page.
    cache.put_page(id, &bad, 4, Arc::clone(&page));
    assert_eq!(cache.page(id, 4), None);
    cache.put_page(id, &good, 4, page);
    assert!(cache.page(id, 4).is_some());
}

/// An index of which all is in memory.
struct Whole(Arc<Loaded>);

impl Pages for Whole {
    fn index(&self) -> &Arc<Loaded> {
        &self.0
    }

    fn read(&mut self, number: u64, _: u64) -> Result<Arc<[u8]>, Fault> {
        Err(Fault(format!("page {number} is not in memory")))
    }
}

/// Where offsets are missing again and again, a stream has many extents, on several pages.
#[test]
fn a_stream_with_many_gaps_is_found_on_all_its_pages() {
    let many = 3 * EXTENTS_PER_PAGE as u64;
    let mut postings: Vec<Posting> = Vec::new();
    for (stream, extents) in [(1, 2), (2, many), (3, 1), (4, many + 7), (9, 5)] {
        for at in 0..extents {
            // Every third is in two batches, and behind each something is missing.
            for half in 0..1 + u64::from(at % 3 == 0) {
                let block = postings.len() as u32;
                let first = Offset(10 * at + 2 * half);
                let stream = StreamId(stream);
                postings.push(Posting { stream, records: 2, first, block, blocks: 1 });
            }
        }
    }
    let (log, segment) = (LogId([3; 16]), SegmentId(9));
    let identity = Identity { log, shard: 1, segment_bytes: 1 << 20 };
    let covers = Sealed {
        base_lsn: Lsn(0),
        end_lsn: Lsn(postings.len() as u64 * BLOCK_BYTES as u64),
        chain_before: 1,
        chain_end: 2,
        records: 2 * postings.len() as u64,
        first_ns: 0,
        last_ns: 0,
    };
    let file = index::encode(log, 1, segment, &covers, &mut postings.clone(), &[]).unwrap();
    let mut pages = Whole(Arc::new(Loaded::whole(file, &identity, segment).unwrap()));
    let mut search = Search::new(&mut pages);
    for stream in (0..11).map(StreamId) {
        let own: Vec<Posting> =
            postings.iter().filter(|posting| posting.stream == stream).copied().collect();
        assert_eq!(search.postings(stream).unwrap(), own);
        let bounds = own.first().zip(own.last()).map(|(first, last)| (first.first, last.end()));
        assert_eq!(search.bounds(stream).unwrap(), bounds);
        let end = bounds.map_or(3, |(_, end)| end.0 + 3);
        for offset in (0..end).map(Offset) {
            let due = own.iter().find(|posting| posting.end() > offset).copied();
            assert_eq!(search.posting_at(stream, offset).unwrap(), due, "{offset} of {stream:?}");
        }
    }
}

/// Batches of one moment: a point in time that names it lies behind the first of them.
#[test]
fn all_batches_of_the_same_time_are_found() {
    let postings = Postings::default();
    let mut placed: Vec<(u64, u32)> = Vec::new();
    for (at, ns) in [5, 7, 7, 7, 9, 9, 9, 9, 9, 9, 12].into_iter().enumerate() {
        let (block, run) = (12 * at as u32, (StreamId(1), Offset(at as u64), 1));
        postings.add_batch(block, 12, ns, [run]);
        placed.push((ns, block));
    }
    let snapshot = postings.snapshot();
    let (log, segment) = (LogId([3; 16]), SegmentId(9));
    let identity = Identity { log, shard: 1, segment_bytes: 1 << 20 };
    let covers = Sealed {
        base_lsn: Lsn(0),
        end_lsn: Lsn(u64::from(snapshot.end_block) * BLOCK_BYTES as u64),
        chain_before: 1,
        chain_end: 2,
        records: placed.len() as u64,
        first_ns: 5,
        last_ns: 12,
    };
    let file = super::encode(log, 1, segment, &covers, &snapshot).unwrap();
    let mut pages = Whole(Arc::new(Loaded::whole(file, &identity, segment).unwrap()));
    let mut search = Search::new(&mut pages);
    for wanted in 0..14 {
        let first = placed.iter().find(|(ns, _)| *ns >= wanted);
        let first = first.map_or(snapshot.end_block, |(_, block)| *block);
        let found = snapshot.block_at_time(wanted);
        assert!(found <= first && first - found <= 24, "{found} for {wanted} at {first}");
        assert_eq!(search.block_at_time(wanted).unwrap(), found);
    }
}

#[test]
fn readers_that_wait_for_an_index_have_it_made_once() {
    let fixture = Fixture::new(1 << 20, 2, 24);
    for at in 0..fixture.segments.len() {
        let _ = std::fs::remove_file(fixture.path(at));
    }
    let indexes = fixture.indexes(LARGE);
    let together = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (fixture, indexes, together) = (&fixture, &indexes, &together);
            scope.spawn(move || {
                let mut disk = fixture.disk();
                together.wait();
                fixture.check_segment(indexes, &mut disk, n % fixture.segments.len());
            });
        }
    });
    let report = indexes.report();
    assert_eq!(rebuilt(&report), (0, fixture.segments.len() as u64, 0), "{report:?}");
}

#[test]
fn what_damage_hides_is_said_to_be_unknown_and_not_stored() {
    let fixture = Fixture::new(1 << 20, 3, 24);
    let (stream, at) = (StreamId(2), 1);
    let whole = fixture.here(at, stream.0);
    let hidden = whole[whole.len() / 2];
    let segment = &fixture.segments[at];
    let path = fixture.shard.join(names::segment(segment.segment).as_str());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[(SEGMENT_HEADER_BYTES + hidden.lsn.0 - segment.base_lsn.0) as usize + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let _ = std::fs::remove_file(fixture.path(at));
    let (indexes, mut disk) = (fixture.indexes(LARGE), fixture.disk());
    let until = fixture.sealed(at).end_lsn;
    let postings = indexes.postings(&mut disk, FILE, segment, stream, until).unwrap();
    assert_eq!(postings, None);
    let all = &fixture.segments;
    let end = fixture.sealed(all.len() - 1).end_lsn;
    let found = indexes.find(&mut disk, FILE, all, stream, hidden.offset, end).unwrap().unwrap();
    assert_eq!((found.at, found.block, found.posting), (at, 0, None));
    // Others are found all the same.
    let known = whole[0];
    let found = indexes.find(&mut disk, FILE, all, stream, known.offset, end).unwrap().unwrap();
    assert!(found.posting.is_some());
    assert!(!fixture.path(at).exists(), "it is not stored");
}

#[test]
fn a_random_read_takes_at_most_one_page() {
    let fixture = Fixture::new(1 << 20, 4, 24);
    fixture.store_all();
    let (indexes, mut disk) = (fixture.indexes(LARGE), fixture.disk());
    fixture.check_find(&indexes, &mut disk);
    // All of these small indexes lie in the piece that is read first.
    assert_eq!(disk.index_reads, fixture.segments.len() as u64);
    let (indexes, mut disk) = (fixture.indexes(SMALL), fixture.disk());
    let stream = StreamId(5);
    let segment = &fixture.segments[2];
    let known = fixture.here(2, stream.0);
    indexes.stream_bounds(&mut disk, FILE, segment, stream).unwrap();
    let before = disk.index_reads;
    indexes.posting_at(&mut disk, FILE, segment, stream, known[known.len() / 2].offset).unwrap();
    assert!(disk.index_reads - before <= 1);
}
