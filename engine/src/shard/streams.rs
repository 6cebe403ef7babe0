//! What a shard remembers of its streams while it writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringlog_disk::planted::{Bug, planted};

use crate::format::batch::Run;
use crate::format::catalogue::CatalogueEntry;
use crate::ids::{Offset, StreamId};

#[derive(Clone, Copy, Debug, Default)]
struct StreamState {
    next: u64,
    /// Whether it has changed since the last part of the catalogue.
    touched: bool,
    /// Whether no part of the catalogue has its name yet.
    unnamed: bool,
}

/// The next offset of every stream, and which streams the open segment has touched.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    states: Vec<StreamState>,
    touched: Vec<StreamId>,
    /// Names by number; shared with the registry of the log.
    names: Vec<Option<Arc<str>>>,
    /// Below which offset the records of a stream are not there any more, for the few that were
    /// trimmed by themselves.
    trimmed: BTreeMap<StreamId, Offset>,
}

impl Streams {
    /// Gives a run its base offset, and moves its stream on.
    pub(crate) fn place(&mut self, run: &mut Run) {
        let state = self.state(run.stream);
        run.base = Offset(state.next);
        state.next += u64::from(run.count) - u64::from(planted(Bug::GiveOffsetTwice));
        if !state.touched {
            state.touched = true;
            self.touched.push(run.stream);
        }
    }

    /// A record was found during recovery.
    pub(crate) fn found(&mut self, stream: StreamId, next: Offset) {
        let state = self.state(stream);
        state.next = state.next.max(next.0);
        self.touch(stream);
    }

    fn touch(&mut self, stream: StreamId) {
        let state = self.state(stream);
        if !state.touched {
            state.touched = true;
            self.touched.push(stream);
        }
    }

    /// The records of a stream below an offset are not there any more.
    pub(crate) fn trim(&mut self, stream: StreamId, before: Offset) {
        let known = self.trimmed.entry(stream).or_default();
        *known = if planted(Bug::TakeTrimBack) { before } else { before.max(*known) };
        self.touch(stream);
    }

    /// The streams that were trimmed by themselves, and where each begins.
    pub(crate) fn trims(&self) -> impl Iterator<Item = (StreamId, Offset)> {
        self.trimmed.iter().map(|(stream, before)| (*stream, *before))
    }

    /// The catalogue says where a stream goes on, and what it is called.
    pub(crate) fn catalogued(&mut self, entry: CatalogueEntry) {
        self.state(entry.stream).next = entry.next_offset.0;
        if entry.trimmed_before > Offset(0) {
            self.trimmed.insert(entry.stream, entry.trimmed_before);
        }
        if let Some(name) = entry.name {
            self.names[entry.stream.0 as usize] = Some(name);
        }
    }

    /// A stream was created since the last part of the catalogue.
    pub(crate) fn created(&mut self, stream: StreamId, name: Arc<str>) {
        self.state(stream).unnamed = true;
        self.names[stream.0 as usize] = Some(name);
        self.touch(stream);
    }

    /// The offset that the next record of a stream gets.
    pub(crate) fn next(&self, stream: StreamId) -> Offset {
        Offset(self.states.get(stream.0 as usize).map_or(0, |state| state.next))
    }

    /// The next offset of every stream, by number.
    pub(crate) fn all_next(&self) -> Vec<Offset> {
        self.states.iter().map(|state| Offset(state.next)).collect()
    }

    /// The number behind the last stream's.
    pub(crate) fn count(&self) -> u32 {
        self.states.len() as u32
    }

    /// All streams with a name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (StreamId, &Arc<str>)> {
        let names = self.names.iter().enumerate();
        names.filter_map(|(id, name)| name.as_ref().map(|name| (StreamId(id as u32), name)))
    }

    /// The name of a stream, where it is known.
    pub(crate) fn name(&self, stream: StreamId) -> Option<&Arc<str>> {
        self.names.get(stream.0 as usize)?.as_ref()
    }

    /// Whether anything has changed since the last part of the catalogue.
    pub(crate) fn has_changes(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What has changed since the last call: the content of the next part of the catalogue.
    pub(crate) fn take_changes(&mut self) -> Vec<CatalogueEntry> {
        let mut changed = std::mem::take(&mut self.touched);
        changed.sort_unstable();
        changed.into_iter().map(|stream| self.entry(stream, false)).collect()
    }

    /// Everything: the content of a part that replaces all parts before it.
    pub(crate) fn take_all(&mut self) -> Vec<CatalogueEntry> {
        self.touched.clear();
        (0..self.states.len() as u32).map(|id| self.entry(StreamId(id), true)).collect()
    }

    /// What the next part says of a stream: its name if that is asked for, or new.
    fn entry(&mut self, stream: StreamId, with_name: bool) -> CatalogueEntry {
        let index = stream.0 as usize;
        let state = &mut self.states[index];
        let new = std::mem::take(&mut state.unnamed) && !planted(Bug::ForgetNameInCatalogue);
        let with_name = new || with_name;
        state.touched = false;
        CatalogueEntry {
            stream,
            next_offset: Offset(self.states[index].next),
            trimmed_before: match planted(Bug::ForgetTrimInCatalogue) {
                true => Offset(0),
                false => self.trimmed_before(stream),
            },
            name: if with_name { self.names[index].clone() } else { None },
        }
    }

    /// Below which offset the records of a stream are not there any more, by its own trims.
    pub(crate) fn trimmed_before(&self, stream: StreamId) -> Offset {
        self.trimmed.get(&stream).copied().unwrap_or_default().min(self.next(stream))
    }

    fn state(&mut self, stream: StreamId) -> &mut StreamState {
        let index = stream.0 as usize;
        if index >= self.states.len() {
            self.states.resize(index + 1, StreamState::default());
            self.names.resize(index + 1, None);
        }
        &mut self.states[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_the_open_segment_only() {
        let mut streams = Streams::default();
        let mut run = Run { stream: StreamId(2), count: 3, base: Offset(9) };
        streams.created(StreamId(2), "two".into());
        streams.created(StreamId(1), "one".into());
        streams.place(&mut run);
        assert_eq!(run.base, Offset(0));
        streams.place(&mut run);
        assert_eq!(run.base, Offset(3));
        let changes = streams.take_changes();
        assert_eq!(changes.len(), 2);
        assert_eq!((changes[0].stream, changes[0].next_offset), (StreamId(1), Offset(0)));
        assert_eq!(changes[0].name.as_deref(), Some("one"));
        assert_eq!((changes[1].stream, changes[1].next_offset), (StreamId(2), Offset(6)));
        assert!(streams.take_changes().is_empty());
        streams.place(&mut run);
        let changes = streams.take_changes();
        assert_eq!((changes.len(), changes[0].name.as_deref()), (1, None));
        assert_eq!(streams.take_all().len(), 3);
    }

    #[test]
    fn a_trim_is_kept_in_every_later_part() {
        let mut streams = Streams::default();
        streams.created(StreamId(1), "one".into());
        let mut run = Run { stream: StreamId(1), count: 9, base: Offset(0) };
        streams.place(&mut run);
        streams.take_changes();
        streams.trim(StreamId(1), Offset(4));
        streams.trim(StreamId(1), Offset(2));
        let changes = streams.take_changes();
        assert_eq!((changes.len(), changes[0].trimmed_before), (1, Offset(4)));
        assert!(streams.take_changes().is_empty());
        streams.place(&mut run);
        assert_eq!(streams.take_changes()[0].trimmed_before, Offset(4));
        let all = streams.take_all();
        assert_eq!(all[1].trimmed_before, Offset(4));
        let mut again = Streams::default();
        all.into_iter().for_each(|entry| again.catalogued(entry));
        assert_eq!(again.trims().collect::<Vec<_>>(), [(StreamId(1), Offset(4))]);
    }
}
