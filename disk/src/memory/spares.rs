//! Memory of a device that is in no file at the moment, kept for the next writes.
//!
//! A log needs and frees units all the time, as many as it writes. Given back to the allocator, such
//! memory often goes back to the kernel, and has to be had from there anew, page by page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::{Memory, UNIT_BYTES};

/// How many units are kept at most; more goes back to the allocator.
const SPARES_MAX: usize = (16 << 20) / UNIT_BYTES;

/// The spare units of a device. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Spares(Arc<Mutex<Vec<Memory>>>);

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Vec<Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many units, or fewer when there are not as many. They hold what they held before.
    pub(super) fn take(&self, units: usize) -> Vec<Memory> {
        if units == 0 {
            return Vec::new();
        }
        let mut spares = self.lock();
        let kept = spares.len().saturating_sub(units);
        spares.split_off(kept)
    }

    /// Gives back units whose content is of no use.
    pub(super) fn give(&self, units: impl IntoIterator<Item = Memory>) {
        let mut units = units.into_iter();
        let mut spares = self.lock();
        let room = SPARES_MAX.saturating_sub(spares.len());
        spares.extend(units.by_ref().take(room));
        drop(spares);
        units.for_each(drop);
    }

    /// How much memory they are.
    pub(super) fn memory_bytes(&self) -> u64 {
        (self.lock().len() * UNIT_BYTES) as u64
    }
}
