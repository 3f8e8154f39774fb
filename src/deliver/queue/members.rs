//! Which class each key is in, for as long as it has entries in the queue or under way.

use std::{collections::HashMap, sync::Arc};

use super::Entry;

/// The keys and their classes. Keeps nothing where there is one class.
#[derive(Debug)]
pub(super) struct Members {
    classes: usize,
    keys: HashMap<Arc<str>, Member>,
    /// Keys of the entries under way, each as often as it has some.
    away: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Member {
    class: usize,
    queued: usize,
    away: usize,
}

impl Members {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes, keys: HashMap::new(), away: Vec::new() }
    }

    /// The class for an entry that comes in: that of its key, or else its own.
    pub(super) fn join(&mut self, entry: &impl Entry) -> usize {
        let class = usize::from(entry.priority().0).min(self.classes - 1);
        let Some(key) = entry.order().filter(|_| self.classes > 1) else { return class };
        if let Some(member) = self.keys.get_mut(key) {
            member.queued += 1;
            return member.class;
        }
        self.keys.insert(key.clone(), Member { class, queued: 1, away: 0 });
        class
    }

    /// The class of a key; none if it has nothing here.
    pub(super) fn class(&self, key: &Arc<str>) -> Option<usize> {
        if self.classes == 1 {
            return Some(0);
        }
        self.keys.get(key).map(|member| member.class)
    }

    /// An entry goes out in a batch.
    pub(super) fn depart(&mut self, entry: &impl Entry) {
        let Some(key) = entry.order().filter(|_| self.classes > 1) else { return };
        if let Some(member) = self.keys.get_mut(key) {
            member.queued = member.queued.saturating_sub(1);
            member.away += 1;
            self.away.push(key.clone());
        }
    }

    /// All that was under way has been answered.
    pub(super) fn arrived(&mut self, is_held: impl Fn(&Arc<str>) -> bool) {
        for key in std::mem::take(&mut self.away) {
            if let Some(member) = self.keys.get_mut(&key) {
                member.away = member.away.saturating_sub(1);
            }
            self.settle(&key, is_held(&key));
        }
    }

    /// Entries of a key left for good.
    pub(super) fn leave(&mut self, key: &Arc<str>, entries: usize, is_held: bool) {
        if let Some(member) = self.keys.get_mut(key) {
            member.queued = member.queued.saturating_sub(entries);
        }
        self.settle(key, is_held);
    }

    /// Forgets a key that has nothing left.
    fn settle(&mut self, key: &Arc<str>, is_held: bool) {
        let gone = |member: &Member| member.queued == 0 && member.away == 0 && !is_held;
        if self.keys.get(key).is_some_and(gone) {
            self.keys.remove(key);
        }
    }

    /// Whether no key is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.away.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.away.clear();
    }
}
