//! What ends all shards of a log when one of them has failed.
//!
//! The shards lie on one device, behind one cache. A device that fails a flush may have dropped what
//! any of them had written, and answer their next flush with success. So whoever meets a failure
//! leaves it here, and no shard looks at what its disk has completed without looking here first.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ringlog_disk::planted::{Bug, planted};
use ringlog_disk::{DiskError, Waker};

/// The first failure of any shard of a log. Its clones are the same one.
#[derive(Clone, Default)]
pub struct LogFailure(Arc<Inner>);

#[derive(Default)]
struct Inner {
    first: OnceLock<DiskError>,
    writers: Mutex<Vec<Waker>>,
}

impl LogFailure {
    /// Another writer wants to hear of it.
    pub fn join(&self, writer: Waker) {
        self.0.writers.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
    }

    /// A shard has failed. The first to say so wakes all writers.
    pub fn set(&self, error: &DiskError) {
        if planted(Bug::OtherShardsGoOn) || self.0.first.set(error.clone()).is_err() {
            return;
        }
        for writer in &*self.0.writers.lock().unwrap_or_else(PoisonError::into_inner) {
            writer.wake();
        }
    }

    /// The failure.
    pub fn get(&self) -> Option<&DiskError> {
        self.0.first.get()
    }
}
