//! The directory of the simulated disk: the names as everybody sees them, the names on the media,
//! and the changes between the two.
//!
//! At a power cut a change has happened or not. Changes that have a name in common, directly or
//! through others, form a group, and of a group a prefix survives; what becomes of one group says
//! nothing about another.

use std::collections::BTreeMap;

use ringlog_disk::FileName;

/// One change of names, not yet on the media.
#[derive(Clone, Debug)]
enum Change {
    Link { name: FileName, inode: u64 },
    Move { from: FileName, to: FileName, inode: u64 },
    Unlink { name: FileName },
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<FileName, u64>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Move { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
        }
    }

    fn touches(&self) -> [&FileName; 2] {
        match self {
            Self::Link { name, .. } | Self::Unlink { name } => [name, name],
            Self::Move { from, to, .. } => [from, to],
        }
    }

    fn shares_a_name(&self, other: &Self) -> bool {
        self.touches().iter().any(|name| other.touches().contains(name))
    }
}

#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// A directory sync that covered it has failed.
    stuck: bool,
}

/// The names of the directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    now: BTreeMap<FileName, u64>,
    media: BTreeMap<FileName, u64>,
    pending: Vec<Pending>,
}

impl Names {
    pub(crate) fn get(&self, name: &FileName) -> Option<u64> {
        self.now.get(name).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&FileName, u64)> {
        self.now.iter().map(|(name, inode)| (name, *inode))
    }

    /// Every inode that has a name, had one on the media, or may have one after a cut.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = u64> + '_ {
        let pending = self.pending.iter().filter_map(|p| match &p.change {
            Change::Link { inode, .. } | Change::Move { inode, .. } => Some(*inode),
            Change::Unlink { .. } => None,
        });
        self.now.values().copied().chain(self.media.values().copied()).chain(pending)
    }

    pub(crate) fn link(&mut self, name: FileName, inode: u64) {
        self.change(Change::Link { name, inode });
    }

    /// False when there is no such file.
    pub(crate) fn rename(&mut self, from: &FileName, to: &FileName) -> bool {
        let Some(inode) = self.get(from) else {
            return false;
        };
        if from != to {
            self.change(Change::Move { from: from.clone(), to: to.clone(), inode });
        }
        true
    }

    /// False when there is no such file.
    pub(crate) fn unlink(&mut self, name: &FileName) -> bool {
        let found = self.now.contains_key(name);
        if found {
            self.change(Change::Unlink { name: name.clone() });
        }
        found
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(Pending { change, stuck: false });
    }

    /// Makes every change durable, but for groups that a failed sync has left behind.
    pub(crate) fn sync(&mut self) {
        let mut left = Vec::new();
        for group in self.groups() {
            if group.iter().all(|at| self.pending[*at].stuck) {
                left.extend(group);
            } else {
                self.make_durable(&group);
            }
        }
        self.keep_pending(left);
    }

    /// Makes the changes durable that concern this name, and no others.
    pub(crate) fn sync_name(&mut self, name: &FileName) {
        let mut left = Vec::new();
        for group in self.groups() {
            if group.iter().any(|at| self.pending[*at].change.touches().contains(&name)) {
                self.make_durable(&group);
            } else {
                left.extend(group);
            }
        }
        self.keep_pending(left);
    }

    /// A sync has failed: what it was to cover stays volatile, whatever later syncs say.
    pub(crate) fn fail_sync(&mut self) {
        for pending in &mut self.pending {
            pending.stuck = true;
        }
    }

    /// How many changes each independent group has.
    pub(crate) fn group_sizes(&self) -> Vec<usize> {
        self.groups().iter().map(Vec::len).collect()
    }

    /// How many changes are pending.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// For a cut at which the first `kept` changes of all have happened: how many of each group.
    pub(crate) fn prefix(&self, kept: usize) -> Vec<usize> {
        self.groups().iter().map(|group| group.iter().filter(|at| **at < kept).count()).collect()
    }

    /// The power is cut: of each group the first so many changes have happened.
    pub(crate) fn cut(&mut self, kept: &[usize]) {
        for (group, kept) in self.groups().iter().zip(kept) {
            self.make_durable(&group[..(*kept).min(group.len())]);
        }
        self.pending.clear();
        self.now = self.media.clone();
    }

    /// Changes the names on the media directly, after making all changes durable.
    pub(crate) fn settle(&mut self, edit: impl FnOnce(&mut BTreeMap<FileName, u64>)) {
        self.pending.clear();
        edit(&mut self.now);
        self.media = self.now.clone();
    }

    fn make_durable(&mut self, changes: &[usize]) {
        for at in changes {
            self.pending[*at].change.apply(&mut self.media);
        }
    }

    fn keep_pending(&mut self, mut left: Vec<usize>) {
        left.sort_unstable();
        self.pending = left.into_iter().map(|at| self.pending[at].clone()).collect();
    }

    /// Indices of pending changes, by group, each in order; groups in the order of their first.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (at, pending) in self.pending.iter().enumerate() {
            let related = |group: &Vec<usize>| {
                group.iter().any(|i| self.pending[*i].change.shares_a_name(&pending.change))
            };
            let (mut joined, apart): (Vec<_>, Vec<_>) = groups.into_iter().partition(related);
            let mut merged: Vec<usize> = joined.drain(..).flatten().collect();
            merged.push(at);
            merged.sort_unstable();
            groups = apart;
            groups.push(merged);
            groups.sort_unstable_by_key(|group| group[0]);
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FileName {
        FileName::new(text).unwrap()
    }

    fn list(names: &Names) -> Vec<(String, u64)> {
        names.iter().map(|(n, i)| (n.to_string(), i)).collect()
    }

    #[test]
    fn changes_of_one_name_and_its_renames_are_one_group() {
        let mut names = Names::default();
        names.link(name("a"), 1);
        names.link(name("b"), 2);
        assert!(names.rename(&name("a"), &name("c")));
        assert!(names.unlink(&name("b")));
        names.link(name("d"), 3);
        assert_eq!(names.group_sizes(), [2, 2, 1]);
        assert_eq!(names.prefix(3), [2, 1, 0]);
    }

    #[test]
    fn a_cut_keeps_a_prefix_of_each_group() {
        let mut names = Names::default();
        names.link(name("a"), 1);
        names.sync();
        names.rename(&name("a"), &name("b"));
        names.link(name("x"), 2);
        let mut lost = names.clone();
        lost.cut(&[0, 1]);
        assert_eq!(list(&lost), [("a".to_string(), 1), ("x".to_string(), 2)]);
        names.cut(&[1, 0]);
        assert_eq!(list(&names), [("b".to_string(), 1)]);
    }

    #[test]
    fn syncing_one_name_leaves_the_others_volatile() {
        let mut names = Names::default();
        names.link(name("a"), 1);
        names.link(name("b"), 2);
        names.sync_name(&name("b"));
        names.cut(&[0]);
        assert_eq!(list(&names), [("b".to_string(), 2)]);
    }

    #[test]
    fn after_a_failed_sync_a_later_one_leaves_the_change_out() {
        let mut names = Names::default();
        names.link(name("a"), 1);
        names.fail_sync();
        names.link(name("b"), 2);
        names.sync();
        assert_eq!(names.group_sizes(), [1]);
        names.cut(&[0]);
        assert_eq!(list(&names), [("b".to_string(), 2)]);
    }

    #[test]
    fn renaming_over_a_file_is_atomic() {
        let mut names = Names::default();
        names.link(name("old"), 1);
        names.link(name("new"), 2);
        names.sync();
        names.rename(&name("new"), &name("old"));
        for kept in 0..=1 {
            let mut cut = names.clone();
            cut.cut(&[kept]);
            assert!(cut.get(&name("old")).is_some());
            assert_eq!(cut.get(&name("new")).is_some(), kept == 0);
        }
    }
}
