//! The wish to stop, shared by the thread that appends, the one that collects acknowledgements and
//! the handler of SIGINT.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use crate::input::Event;

/// Asks the appending thread to stop, and wakes it if it waits for input.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: AtomicBool,
    interrupted: AtomicBool,
    events: SyncSender<Event>,
}

impl Stop {
    pub(crate) fn new(events: SyncSender<Event>) -> Self {
        Self { asked: AtomicBool::new(false), interrupted: AtomicBool::new(false), events }
    }

    /// Nothing more is to be appended.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        // Never waits: when the queue of events is full, its reader is awake, and looks at the
        // flag between two events.
        let _ = self.events.try_send(Event::Stop);
    }

    /// SIGINT came. Says whether it was the first one.
    pub(crate) fn interrupt(&self) -> bool {
        let first = !self.interrupted.swap(true, Ordering::SeqCst);
        self.ask();
        first
    }

    /// Whether nothing more is to be appended.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether SIGINT came.
    pub(crate) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}
