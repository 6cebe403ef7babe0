//! Memory for indexes that readers have used, with a bound.
//!
//! Holds the front of an index, or all of it, and single pages. What was used longest ago goes
//! first. The newest item stays whatever its size, so the bound is passed by no more than that one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::file::Loaded;
use crate::ids::SegmentId;

/// What keeping an item costs beside its content, roughly.
const ITEM_BYTES: usize = 192;

/// The front of an index, or one of its pages.
type Key = (SegmentId, Option<u64>);

#[derive(Debug)]
enum Content {
    Front(Arc<Loaded>),
    Page(Arc<[u8]>),
}

#[derive(Debug)]
struct Item {
    content: Content,
    bytes: usize,
    used: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Cache {
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    items: BTreeMap<Key, Item>,
    /// By when they were used last.
    order: BTreeMap<u64, Key>,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn front(&mut self, id: SegmentId) -> Option<Arc<Loaded>> {
        match self.touch((id, None))? {
            Content::Front(loaded) => Some(Arc::clone(loaded)),
            Content::Page(_) => None,
        }
    }

    pub(super) fn page(&mut self, id: SegmentId, number: u64) -> Option<Arc<[u8]>> {
        match self.touch((id, Some(number)))? {
            Content::Page(page) => Some(Arc::clone(page)),
            Content::Front(_) => None,
        }
    }

    fn touch(&mut self, key: Key) -> Option<&Content> {
        let item = self.items.get_mut(&key)?;
        self.order.remove(&item.used);
        self.clock += 1;
        item.used = self.clock;
        self.order.insert(self.clock, key);
        Some(&item.content)
    }

    pub(super) fn put_front(&mut self, id: SegmentId, loaded: Arc<Loaded>) {
        self.forget(id);
        let bytes = loaded.memory_bytes();
        self.put((id, None), Content::Front(loaded), bytes);
    }

    /// Keeps a page of the index whose front is `of`; not if another one has taken its place.
    pub(super) fn put_page(
        &mut self,
        id: SegmentId,
        of: &Arc<Loaded>,
        number: u64,
        page: Arc<[u8]>,
    ) {
        if self.front(id).is_some_and(|front| Arc::ptr_eq(&front, of)) {
            let bytes = page.len();
            self.put((id, Some(number)), Content::Page(page), bytes);
        }
    }

    fn put(&mut self, key: Key, content: Content, bytes: usize) {
        self.remove(key);
        self.clock += 1;
        let bytes = bytes + ITEM_BYTES;
        self.items.insert(key, Item { content, bytes, used: self.clock });
        self.order.insert(self.clock, key);
        self.bytes += bytes;
        while self.bytes > self.bytes_max && self.items.len() > 1 {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            match oldest {
                // Pages mean nothing without their front.
                (id, None) => self.forget(id),
                page => self.remove(page),
            }
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(item) = self.items.remove(&key) {
            self.order.remove(&item.used);
            self.bytes -= item.bytes;
        }
    }

    /// Forgets all of an index.
    pub(super) fn forget(&mut self, id: SegmentId) {
        let keys: Vec<Key> =
            self.items.range((id, None)..=(id, Some(u64::MAX))).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }
}
