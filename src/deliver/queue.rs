//! What waits in a lane, and what of it may go next. Pure: time is handed in.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use crate::sink::{Limits, Order};

/// What the queue must know of an entry.
pub trait Entry {
    /// The key that it must stay in order by; none where order does not matter.
    fn order(&self) -> Option<&Arc<str>>;
    /// Bytes in a request.
    fn bytes(&self) -> usize;
}

/// The entries of one lane.
///
/// Order per key: an entry that failed holds back its own key, and nothing else, until
/// [`LaneQueue::release`] says that it has been delivered or parked.
#[derive(Debug)]
pub struct LaneQueue<E> {
    ready: VecDeque<E>,
    /// Entries that failed, until they are due. Few: only failures are here.
    delayed: Vec<(Instant, E)>,
    /// Keys that are held back, with what came after the entry that holds them.
    held: HashMap<Arc<str>, VecDeque<E>>,
}

/// How far past the head a batch looks for keys that it does not hold yet.
const LOOK_AHEAD: usize = 256;

impl<E> Default for LaneQueue<E> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), delayed: Vec::new(), held: HashMap::new() }
    }
}

impl<E: Entry> LaneQueue<E> {
    /// Adds entries behind all others.
    pub fn push(&mut self, entries: impl IntoIterator<Item = E>) {
        for entry in entries {
            match entry.order().and_then(|key| self.held.get_mut(key)) {
                Some(behind) => behind.push_back(entry),
                None => self.ready.push_back(entry),
            }
        }
    }

    /// The next batch within `limits`. Holds at most one entry of a key, unless the sink
    /// takes them [together](Order::Together).
    pub fn batch(&mut self, limits: &Limits, now: Instant) -> Vec<E> {
        self.wake(now);
        let mut batch = Vec::new();
        let mut keys = HashSet::new();
        let mut skipped = VecDeque::new();
        let mut bytes = 0;
        while batch.len() < limits.events && skipped.len() < LOOK_AHEAD {
            let Some(entry) = self.ready.pop_front() else { break };
            let key = entry.order().filter(|_| limits.order != Order::Together);
            if key.is_some_and(|key| keys.contains(key)) {
                skipped.push_back(entry);
                continue;
            }
            if !batch.is_empty() && bytes + entry.bytes() > limits.bytes {
                skipped.push_back(entry);
                break;
            }
            keys.extend(key.cloned());
            bytes += entry.bytes();
            batch.push(entry);
        }
        while let Some(entry) = skipped.pop_back() {
            self.ready.push_front(entry);
        }
        batch
    }

    /// Puts failed entries back, in the order in which they stood in their batch. Their keys are
    /// held until each is [released](Self::release).
    pub fn retry(&mut self, failed: Vec<E>, due: Instant) {
        for entry in failed {
            if let Some(key) = entry.order().cloned() {
                self.hold(&key);
            }
            self.delayed.push((due, entry));
        }
    }

    /// Holds a key back: its entry is under way elsewhere.
    pub fn hold(&mut self, key: &Arc<str>) {
        if self.held.contains_key(key) {
            return;
        }
        let (behind, rest) = self.ready.drain(..).partition(|entry: &E| entry.order() == Some(key));
        self.ready = rest;
        self.held.insert(key.clone(), behind);
    }

    /// An entry that held a key is done with. Once it was the last one, what waited behind goes
    /// first. (With a sink that is atomic per key, several entries of it may have failed together.)
    pub fn release(&mut self, key: &Arc<str>) {
        let holds = |entry: &E| entry.order() == Some(key);
        if !self.held.contains_key(key)
            || self.delayed.iter().any(|(_, entry)| holds(entry))
            || self.ready.iter().any(holds)
        {
            return;
        }
        if let Some(mut behind) = self.held.remove(key) {
            behind.append(&mut self.ready);
            self.ready = behind;
        }
    }

    /// Takes out everything that waits behind a held key: its head goes back to the source, and
    /// what came after it may not overtake.
    pub fn take_behind(&mut self, key: &Arc<str>) -> Vec<E> {
        let mut taken: Vec<E> = Vec::new();
        let (of_key, rest) =
            self.delayed.drain(..).partition(|(_, entry)| entry.order() == Some(key));
        self.delayed = rest;
        let of_key: Vec<(Instant, E)> = of_key;
        taken.extend(of_key.into_iter().map(|(_, entry)| entry));
        taken.extend(self.held.remove(key).into_iter().flatten());
        let (ready, rest) = self.ready.drain(..).partition(|entry: &E| entry.order() == Some(key));
        self.ready = rest;
        let ready: VecDeque<E> = ready;
        taken.extend(ready);
        taken
    }

    /// When something falls due, if nothing is ready.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.iter().map(|(due, _)| *due).min()
    }

    /// Whether a batch could be made now.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        !self.ready.is_empty() || self.delayed.iter().any(|(due, _)| *due <= now)
    }

    /// How many could go at once.
    #[must_use]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<E> {
        let delayed = self.delayed.drain(..).map(|(_, entry)| entry);
        let held = self.held.drain().flat_map(|(_, behind)| behind);
        self.ready.drain(..).chain(delayed).chain(held).collect()
    }

    /// Moves due retries to the front, in their order.
    fn wake(&mut self, now: Instant) {
        if self.delayed.iter().all(|(due, _)| *due > now) {
            return;
        }
        let (due, later) = self.delayed.drain(..).partition(|(due, _)| *due <= now);
        self.delayed = later;
        let due: Vec<(Instant, E)> = due;
        for (_, entry) in due.into_iter().rev() {
            self.ready.push_front(entry);
        }
    }
}

#[cfg(test)]
mod tests;
