//! The world and the oracle together, on a log small enough to be obviously right: it must pass
//! every history, and each bug planted in it must be found.
//!
//! The toy keeps one record in each block of one file: number, hash of the block before, length,
//! payload, hash. Recovery reads up to the first block that does not fit, writes what it found
//! again and flushes it.

use std::collections::BTreeMap;

use crate::common::{A, KIB4, Process, name};
use ringlog_disk::{BlockPool, Done, Flush, Op, Slice};
use ringlog_sim::oracle::{AppendId, FaultKind, Ledger, Level, Outcome, Recovered};
use ringlog_sim::{Class, Crash, Effect, Fault, Kill, Moment, Rng, SimWorld, When};

const BLOCKS: u64 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    AcknowledgeAtSubmission,
    AcknowledgeBeforeFlush,
    FlushOwnBytesOnly,
    RetryFailedFlush,
    NoDirectorySync,
    NoChecksum,
    NoChain,
    RecoveryFlushesOnly,
    RecoveryNeitherWritesNorFlushes,
}

/// The device failed or the power went off.
struct Broken;

type Attempt<T> = Result<T, Broken>;

fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3))
}

fn word(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}

fn encode(number: u64, before: u64, payload: &[u8]) -> Vec<u8> {
    let mut block = vec![0; KIB4];
    block[..8].copy_from_slice(&(number + 1).to_le_bytes());
    block[8..16].copy_from_slice(&before.to_le_bytes());
    block[16..24].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    block[24..24 + payload.len()].copy_from_slice(payload);
    let sum = hash(&block[..KIB4 - 8]);
    block[KIB4 - 8..].copy_from_slice(&sum.to_le_bytes());
    block
}

struct Toy {
    process: Process,
    bug: Bug,
    next: u64,
    last_hash: u64,
}

impl Toy {
    /// Opens, recovers, and gives the records.
    fn open(world: &SimWorld, pool: &BlockPool, bug: Bug) -> Attempt<(Self, Vec<Vec<u8>>)> {
        let process = Process::start_with(world, pool);
        let mut toy = Self { process, bug, next: 0, last_hash: 0 };
        let is_new = !matches!(
            toy.try_run(Op::List)?,
            Done::Listed { files, .. } if files.iter().any(|f| f.name.as_str() == "log")
        );
        if is_new {
            // Made under another name, so that a file that was cut short is never taken for one.
            let _left_over = toy.process.run(Op::Remove { name: name("new") });
            let bytes = BLOCKS * KIB4 as u64;
            toy.try_run(Op::Create { file: A, name: name("new"), bytes })?;
            toy.try_run(Op::Rename { from: name("new"), to: name("log") })?;
        } else {
            toy.try_run(Op::Open { file: A, name: name("log"), write: true })?;
        }
        if bug != Bug::NoDirectorySync {
            toy.try_run(Op::SyncDir)?;
        }
        let records = toy.recover()?;
        Ok((toy, records))
    }

    fn try_run(&mut self, op: Op) -> Attempt<Done> {
        self.process.run(op).map_err(|_| Broken)
    }

    fn recover(&mut self) -> Attempt<Vec<Vec<u8>>> {
        let mut records = Vec::new();
        let mut blocks = Vec::new();
        for number in 0..BLOCKS {
            let block = self.process.read(A, number).map_err(|_| Broken)?;
            let sound = hash(&block[..KIB4 - 8]) == word(&block, KIB4 - 8);
            let follows = word(&block, 8) == self.last_hash;
            let fits = word(&block, 0) == number + 1
                && (sound || self.bug == Bug::NoChecksum)
                && (follows || self.bug == Bug::NoChain);
            if !fits {
                break;
            }
            let len = (word(&block, 16) as usize).min(KIB4 - 32);
            records.push(block[24..24 + len].to_vec());
            self.last_hash = hash(&block);
            self.next = number + 1;
            blocks.push((number, block));
        }
        match self.bug {
            Bug::RecoveryNeitherWritesNorFlushes => {}
            Bug::RecoveryFlushesOnly => self.flush()?,
            _ => {
                for (number, block) in blocks {
                    self.submit(number, &block, Flush::No);
                }
                self.drain()?;
                self.flush()?;
            }
        }
        Ok(records)
    }

    fn submit(&mut self, number: u64, bytes: &[u8], flush: Flush) {
        let mut block = self.process.pool.take().expect("a block");
        block[..KIB4].copy_from_slice(bytes);
        let data = vec![Slice { block, len: KIB4 }];
        let offset = number * KIB4 as u64;
        self.process.submit(Op::Write { file: A, offset, data, flush });
    }

    fn drain(&mut self) -> Attempt<()> {
        let done = self.process.drain();
        if done.iter().all(|c| c.result.is_ok()) { Ok(()) } else { Err(Broken) }
    }

    fn flush(&mut self) -> Attempt<()> {
        let first = self.process.sync(A);
        let retry = self.bug == Bug::RetryFailedFlush && first.is_err();
        let last = if retry { self.process.sync(A) } else { first };
        last.map(|_| ()).map_err(|_| Broken)
    }

    /// Submits a record; its number is its offset.
    fn append(&mut self, payload: &[u8], flush: Flush) {
        let block = encode(self.next, self.last_hash, payload);
        self.submit(self.next, &block, flush);
        self.last_hash = hash(&block);
        self.next += 1;
    }
}

/// Appends in groups, with acknowledgements, until the device fails or it has been enough.
fn live(toy: &mut Toy, ledger: &mut Ledger, rng: &mut Rng) -> Attempt<()> {
    for _ in 0..rng.below(5) {
        let count = (1 + rng.below(4)).min(BLOCKS - toy.next);
        let synced = rng.coin();
        let mut ids: Vec<(AppendId, u64)> = Vec::new();
        for i in 0..count {
            let len = 8 + rng.index(3000);
            let payload = ledger.payload(len);
            ids.push((ledger.submit_one(0, "s", &payload), toy.next));
            let own = synced && toy.bug == Bug::FlushOwnBytesOnly && i + 1 == count;
            toy.append(&payload, if own { Flush::Own } else { Flush::No });
        }
        if toy.bug == Bug::AcknowledgeAtSubmission {
            for (id, offset) in &ids {
                ledger.acknowledge(*id, Level::Written, *offset);
            }
        }
        if rng.below(6) == 0 {
            return Ok(()); // the fault finds them in flight
        }
        toy.drain()?;
        let early = synced && toy.bug == Bug::AcknowledgeBeforeFlush;
        let level = if early { Level::Synced } else { Level::Written };
        for (id, offset) in &ids {
            ledger.acknowledge(*id, level, *offset);
        }
        if synced {
            if toy.bug != Bug::FlushOwnBytesOnly {
                toy.flush()?;
            }
            for (id, offset) in &ids {
                ledger.acknowledge(*id, Level::Synced, *offset);
            }
        }
    }
    Ok(())
}

/// One history of several lives; what the oracle says of it, and the trace.
fn history(pool: &BlockPool, seed: u64, bug: Bug) -> (Result<(), String>, u64) {
    let world = SimWorld::seeded(seed);
    let mut rng = Rng::new(seed ^ 0x0005_EED0_F0A1_0000);
    let mut ledger = Ledger::new();
    let mut fault = FaultKind::CleanClose;
    for _life in 0..6 {
        if rng.below(4) == 0 {
            let moment = if rng.coin() { Moment::Submission } else { Moment::Completion };
            world.crash_after_ops(1 + rng.below(40), moment, Crash::seeded(rng.next_u64()));
        }
        let crashes = world.stats().crashes;
        let opened = Toy::open(&world, pool, bug);
        world.cancel_scripted_crash();
        let Ok((mut toy, records)) = opened else {
            assert!(world.stats().crashes > crashes, "recovery failed without a reason");
            fault = FaultKind::PowerCut;
            continue;
        };
        let records = records.into_iter().enumerate().map(|(i, r)| (i as u64, r)).collect();
        let streams = BTreeMap::from([("s".to_string(), records)]);
        let recovered = Recovered { streams, ..Recovered::default() };
        let verdict = ledger.judge(&Outcome::Opened(recovered.clone()), fault);
        if !verdict.is_good() {
            return (Err(format!("seed {seed}: {verdict}")), world.trace_hash());
        }
        ledger.adopt(&recovered);

        if rng.below(3) == 0 {
            let class = if rng.coin() { Class::Flush } else { Class::Write };
            world.arm(Fault::new(class, When::Nth(1 + rng.below(4)), Effect::EIO));
        }
        let lived = live(&mut toy, &mut ledger, &mut rng);
        world.clear_faults();
        fault = match rng.below(if lived.is_ok() { 3 } else { 4 }) {
            0 => {
                world.kill(Kill::Random);
                if lived.is_ok() { FaultKind::ProcessKill } else { FaultKind::FailedLog }
            }
            3 => FaultKind::FailedLog, // it is closed and opened again
            _ => {
                world.crash(&Crash::seeded(rng.next_u64()));
                FaultKind::PowerCut
            }
        };
        if toy.process.disk.is_dead() {
            assert!(toy.process.drain().iter().all(|c| c.result.is_err()));
        }
    }
    assert_eq!(world.stats().contract_violations, 0);
    (Ok(()), world.trace_hash())
}

fn pool() -> BlockPool {
    BlockPool::new(64, KIB4).expect("memory")
}

#[test]
fn a_sound_log_passes_every_history() {
    let pool = pool();
    for seed in 0..3000 {
        if let (Err(message), _) = history(&pool, seed, Bug::None) {
            panic!("{message}");
        }
    }
}

#[test]
fn a_history_repeats_itself() {
    let pool = pool();
    for seed in 0..50 {
        assert_eq!(history(&pool, seed, Bug::None), history(&pool, seed, Bug::None));
    }
}

#[test]
fn every_planted_bug_is_found() {
    let pool = pool();
    for bug in [
        Bug::AcknowledgeAtSubmission,
        Bug::AcknowledgeBeforeFlush,
        Bug::FlushOwnBytesOnly,
        Bug::RetryFailedFlush,
        Bug::NoDirectorySync,
        Bug::NoChecksum,
        Bug::NoChain,
        Bug::RecoveryFlushesOnly,
        Bug::RecoveryNeitherWritesNorFlushes,
    ] {
        let found = (0..3000).find_map(|seed| history(&pool, seed, bug).0.err());
        println!("{bug:?}: {found:?}");
        assert!(found.is_some(), "{bug:?} was not found");
    }
}
