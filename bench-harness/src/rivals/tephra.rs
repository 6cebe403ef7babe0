//! tephra: an event store with one writer thread and group commit of its own; the only rival whose
//! appends can be on their way while the caller goes on.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::Duration;

use flume::{Receiver, Sender};
use tephra::event::EventRef;
use tephra::{
    AppendError, Event, EventType, Position, PositionRange, SegmentConfig, SegmentSet, Tags,
    WriteCoordinator, WriteHandle, WriterConfig,
};

use crate::contender::{ACKNOWLEDGED_WITHIN, Contender, Facts, Producer, Refusal};
use crate::rivals::adapter::{Purpose, Rival, Tally, say};

/// As its own example has it.
const SEGMENT_BYTES: usize = 256 << 20;

/// Every append is durable: there is no other way.
pub(crate) struct Tephra {
    coordinator: WriteCoordinator,
    handle: WriteHandle,
    purpose: Purpose,
}

impl Rival for Tephra {
    const NAME: &'static str = "tephra";
    const VERSION: &'static str = "0.4.1";

    fn open(dir: &Path, purpose: Purpose) -> Result<Self, String> {
        if purpose == Purpose::Unsynced {
            return Err("tephra knows durable appends only".to_owned());
        }
        let set = SegmentSet::open(dir, SegmentConfig::new(SEGMENT_BYTES)).map_err(say("open"))?;
        let (coordinator, handle) =
            WriteCoordinator::start(set, WriterConfig::default()).map_err(say("start"))?;
        Ok(Self { coordinator, handle, purpose })
    }

    fn replay(dir: &Path) -> Result<Tally, String> {
        let config = SegmentConfig::new(SEGMENT_BYTES);
        let set = SegmentSet::open_read_only(dir, config).map_err(say("open"))?;
        let mut tally = Tally::default();
        let mut scan = set.scan_after(Position::ZERO);
        while let Some(record) = scan.next() {
            let record = record.map_err(say("scan"))?;
            tally.add(EventRef::from_bytes(record.data).map_err(say("decode"))?.data());
        }
        Ok(tally)
    }
}

impl Contender for Tephra {
    type Producer = TephraProducer;

    fn facts(&self) -> Facts {
        Facts { acknowledged_on_return: false, ..Self::usual_facts(self.purpose, "append_submit") }
    }

    fn producer(&self, _: usize) -> Result<TephraProducer, String> {
        let (reply, replies) = flume::unbounded();
        Ok(TephraProducer {
            handle: self.handle.clone(),
            kind: EventType::new("r").map_err(say("event type"))?,
            tags: Tags::new([]).map_err(say("tags"))?,
            next: 0,
            acknowledged: Cell::new(0),
            failed: RefCell::new(None),
            reply,
            replies,
        })
    }

    fn close(self) -> Result<(), String> {
        drop(self.handle);
        drop(self.coordinator.shutdown());
        Ok(())
    }
}

type Reply = (u64, Result<PositionRange, AppendError>);

/// Its appends are numbered; they are acknowledged in order.
pub(crate) struct TephraProducer {
    handle: WriteHandle,
    kind: EventType,
    tags: Tags,
    next: u64,
    /// Appends below this are durable.
    acknowledged: Cell<u64>,
    failed: RefCell<Option<String>>,
    reply: Sender<Reply>,
    replies: Receiver<Reply>,
}

impl TephraProducer {
    fn events(&self, records: &[Vec<u8>]) -> Result<Vec<Event>, String> {
        let event = |record: &Vec<u8>| Event::new(&self.kind, &self.tags, record);
        records.iter().map(event).collect::<Result<_, _>>().map_err(say("event"))
    }

    fn take(&self, (number, result): Reply) {
        match result {
            Ok(_) if number == self.acknowledged.get() => self.acknowledged.set(number + 1),
            Ok(_) => {
                let next = self.acknowledged.get();
                *self.failed.borrow_mut() = Some(format!("append {number} came before {next}"));
            }
            Err(error) => *self.failed.borrow_mut() = Some(format!("append: {error}")),
        }
    }
}

impl Producer for TephraProducer {
    type Ticket = u64;

    fn submit(&mut self, records: &[Vec<u8>], _: Duration) -> Result<u64, Refusal> {
        let events = self.events(records).map_err(Refusal::Failed)?;
        let number = self.next;
        self.handle
            .append_submit(events, None, number, self.reply.clone())
            .map_err(|error| Refusal::Failed(format!("append: {error}")))?;
        self.next += 1;
        Ok(number)
    }

    fn is_acknowledged(&self, number: &u64) -> bool {
        while let Ok(reply) = self.replies.try_recv() {
            self.take(reply);
        }
        self.acknowledged.get() > *number
    }

    fn wait(&mut self, number: u64) -> Result<(), String> {
        while self.acknowledged.get() <= number {
            let reply = self.replies.recv_timeout(ACKNOWLEDGED_WITHIN);
            self.take(reply.map_err(say("acknowledgement"))?);
            if let Some(why) = self.failed.borrow().as_ref() {
                return Err(why.clone());
            }
        }
        Ok(())
    }
}
