//! Which streams a log has: names to places, made for millions of them.
//!
//! The names themselves are shared with the writers. Beside them a stream takes one pointer, and
//! four to eleven bytes in a table of open addressing. Knows nothing of how streams are created.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::ids::StreamId;
use crate::limits::{SHARDS_MAX, STREAMS_MAX};

/// Where a stream lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: usize,
    pub(crate) id: StreamId,
}

/// Bits of the number of a stream in an entry; above them lies its shard.
const ID_BITS: u32 = 24;
/// Entries that a table has at least.
const TABLE_MIN: usize = 64;

const _: () = assert!(STREAMS_MAX as u64 <= 1 << ID_BITS);
const _: () = assert!((SHARDS_MAX as u64) << ID_BITS <= 1 << u32::BITS);

/// See the module's text.
pub(crate) struct Registry {
    /// By shard, then by number.
    names: Vec<Vec<Option<Arc<str>>>>,
    /// Entries by hash; 0 is none, since no stream of a user has the number 0.
    table: Vec<u32>,
    used: usize,
    hasher: RandomState,
}

fn entry_of(place: Place) -> u32 {
    (place.shard as u32) << ID_BITS | place.id.0
}

fn place_of(entry: u32) -> Place {
    let id = StreamId(entry & ((1 << ID_BITS) - 1));
    Place { shard: (entry >> ID_BITS) as usize, id }
}

impl Registry {
    pub(crate) fn new(shards: usize) -> Self {
        let names = (0..shards).map(|_| Vec::new()).collect();
        Self { names, table: vec![0; TABLE_MIN], used: 0, hasher: RandomState::new() }
    }

    /// The stream of this name.
    pub(crate) fn find(&self, name: &str) -> Option<(&Arc<str>, Place)> {
        let entry = self.table[self.slot(name)];
        let place = (entry != 0).then(|| place_of(entry))?;
        Some((self.name(place)?, place))
    }

    /// A stream, which must not be the catalogue. Of two with the same name the later one counts.
    pub(crate) fn insert(&mut self, name: Arc<str>, place: Place) {
        if place.id == StreamId::CATALOGUE {
            return;
        }
        if self.used * 4 >= self.table.len() * 3 {
            self.grow();
        }
        let slot = self.slot(&name);
        self.used += usize::from(self.table[slot] == 0);
        self.table[slot] = entry_of(place);
        let names = &mut self.names[place.shard];
        let index = place.id.0 as usize;
        if index >= names.len() {
            names.resize(index + 1, None);
        }
        names[index] = Some(name);
    }

    /// How many streams there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// The streams of a shard, by number.
    pub(crate) fn of_shard(&self, shard: usize) -> impl Iterator<Item = (StreamId, &Arc<str>)> {
        let names = self.names.get(shard).into_iter().flatten().zip(0..);
        names.filter_map(|(name, id)| name.as_ref().map(|name| (StreamId(id), name)))
    }

    fn name(&self, place: Place) -> Option<&Arc<str>> {
        self.names.get(place.shard)?.get(place.id.0 as usize)?.as_ref()
    }

    /// Where the entry of a name is, or belongs.
    fn slot(&self, name: &str) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = self.hasher.hash_one(name) as usize & mask;
        loop {
            let entry = self.table[slot];
            if entry == 0 || self.name(place_of(entry)).is_some_and(|known| **known == *name) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let larger = vec![0; self.table.len() * 2];
        let entries = std::mem::replace(&mut self.table, larger);
        for entry in entries.into_iter().filter(|entry| *entry != 0) {
            if let Some(name) = self.name(place_of(entry)) {
                let slot = self.slot(name);
                self.table[slot] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_all_shards_and_nothing_else_is() {
        let mut registry = Registry::new(3);
        let place = |at: u32| Place { shard: at as usize % 3, id: StreamId(1 + at / 3) };
        for at in 0..5_000_u32 {
            assert!(registry.find(&format!("stream {at}")).is_none());
            registry.insert(format!("stream {at}").into(), place(at));
            assert_eq!(registry.len(), at as usize + 1);
        }
        for at in 0..5_000_u32 {
            let name = format!("stream {at}");
            assert_eq!(registry.find(&name), Some((&Arc::from(name.as_str()), place(at))));
        }
        assert!(registry.find("stream 5000").is_none());
        assert!(registry.find("").is_none());
        let second: Vec<StreamId> = registry.of_shard(1).map(|(id, _)| id).collect();
        assert_eq!(second.len(), 1667);
        assert!(second.is_sorted());
        // A name that is there twice: the later place counts.
        let last = Place { shard: 2, id: StreamId((1 << ID_BITS) - 1) };
        registry.insert("stream 7".into(), last);
        assert_eq!(registry.find("stream 7").map(|(_, place)| place), Some(last));
        assert_eq!(registry.len(), 5_000);
    }
}
