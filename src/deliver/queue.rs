//! What waits in a lane, and what of it may go next. Pure: time is handed in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::priority::{Priority, Shares, Weights};
use crate::sink::{Limits, Order};

mod held;
mod members;

use held::Held;
use members::Members;

/// What the queue must know of an entry.
pub trait Entry {
    /// The key that it must stay in order by; none where order does not matter.
    fn order(&self) -> Option<&Arc<str>>;
    /// Bytes in a request.
    fn bytes(&self) -> usize;
    /// The class that it waits in, unless others of its key are here in another.
    fn priority(&self) -> Priority;
    /// It may not go before this. Until it has gone, it holds its key back.
    fn not_before(&self) -> Option<Instant>;
}

/// The entries of one lane.
///
/// Order per key: an entry that failed, or whose time has not come, holds back its own key, and
/// nothing else, until [`LaneQueue::release`] says that it has been delivered or parked. A key
/// stays in its class for as long as it has entries here or under way.
#[derive(Debug)]
pub struct LaneQueue<E> {
    classes: Vec<Class<E>>,
    shares: Shares,
    members: Members,
    /// What is not due yet, and its class. The number keeps what is due together in order.
    delayed: BTreeMap<(Instant, u64), (usize, Turn<E>)>,
    /// Keys that are held back, and keys that go first now because they were. What of these stands
    /// in a class is newer than what is here, and moves here when its turn comes.
    held: HashMap<Arc<str>, Held<E>>,
    /// How many turns have been given out.
    turns: u64,
}

/// What waits in one class.
#[derive(Debug)]
struct Class<E> {
    ready: VecDeque<Turn<E>>,
    /// What the batch in the making has passed over.
    skipped: VecDeque<Turn<E>>,
    /// Whether it has nothing more for the batch in the making.
    spent: bool,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn<E> {
    Entry(E),
    /// The first that waits in [`LaneQueue::held`], if this turn still counts there.
    Key(Arc<str>, u64),
}

/// A batch in the making.
struct Batch<'l, E> {
    limits: &'l Limits,
    now: Instant,
    entries: Vec<E>,
    bytes: usize,
    /// Keys that it can hold no more of.
    keys: HashSet<Arc<str>>,
}

/// Whether an entry can go into a batch.
enum Fit {
    Fits,
    /// Not before those of its key that are held.
    Held,
    /// Not with the one of its key that is in the batch.
    HasKey,
    NotBefore(Instant),
    TooMuch,
}

/// What a class has for a batch.
enum Taken<E> {
    Entry(E),
    Nothing,
    /// One that does not fit any more.
    TooMuch,
}

/// How far past the head a batch looks for keys that it does not hold yet.
const LOOK_AHEAD: usize = 256;

impl<E: Entry> LaneQueue<E> {
    /// An empty one.
    #[must_use]
    pub fn new(weights: &Weights) -> Self {
        Self {
            classes: (0..weights.classes()).map(|_| Class::default()).collect(),
            shares: Shares::new(weights),
            members: Members::new(weights.classes()),
            delayed: BTreeMap::new(),
            held: HashMap::new(),
            turns: 0,
        }
    }

    /// Adds entries behind all others of their class.
    pub fn push(&mut self, entries: impl IntoIterator<Item = E>) {
        for entry in entries {
            let class = self.members.join(&entry);
            self.classes[class].ready.push_back(Turn::Entry(entry));
        }
    }

    /// The next batch within `limits`, shared out among the classes by their weights. Holds at most
    /// one entry of a key, unless the sink takes them [together](Order::Together).
    pub fn batch(&mut self, limits: &Limits, now: Instant) -> Vec<E> {
        self.end_batch();
        self.wake(now);
        let ready: usize = self.classes.iter().map(|class| class.ready.len()).sum();
        let entries = Vec::with_capacity(ready.min(limits.events));
        let mut batch = Batch { limits, now, entries, bytes: 0, keys: HashSet::new() };
        while batch.entries.len() < limits.events {
            let next = self.shares.next(|class| self.classes[class].has_more());
            let Some(class) = next else { break };
            match self.take(class, &batch) {
                Taken::Entry(entry) => {
                    self.shares.charge(class);
                    self.members.depart(&entry);
                    batch.add(entry);
                }
                Taken::Nothing => self.classes[class].spent = true,
                Taken::TooMuch => break,
            }
        }
        self.classes.iter_mut().for_each(Class::put_back);
        batch.entries
    }

    /// Takes out the first entry of a class that can go into the batch.
    fn take(&mut self, class: usize, batch: &Batch<'_, E>) -> Taken<E> {
        while self.classes[class].skipped.len() < LOOK_AHEAD {
            let Some(turn) = self.classes[class].ready.pop_front() else { break };
            let fit = match &turn {
                Turn::Entry(entry) => {
                    let held = entry.order().is_some_and(|key| self.held.contains_key(key));
                    if held { Fit::Held } else { batch.fit(entry) }
                }
                Turn::Key(key, turn) => {
                    let next = self.held.get(key).and_then(|held| held.next(*turn));
                    let Some(entry) = next else { continue };
                    batch.fit(entry)
                }
            };
            match fit {
                Fit::Fits => match self.use_turn(class, turn) {
                    Some(entry) => return Taken::Entry(entry),
                    None => continue,
                },
                Fit::Held => self.fall_in(turn),
                Fit::HasKey => self.classes[class].skipped.push_back(turn),
                Fit::NotBefore(due) => self.wait(class, turn, due),
                Fit::TooMuch => {
                    self.classes[class].ready.push_front(turn);
                    return Taken::TooMuch;
                }
            }
        }
        Taken::Nothing
    }

    /// The entry whose turn it is. If more of its key may go, they come next.
    fn use_turn(&mut self, class: usize, turn: Turn<E>) -> Option<E> {
        let (key, turn) = match turn {
            Turn::Entry(entry) => return Some(entry),
            Turn::Key(key, turn) => (key, turn),
        };
        let held = self.held.get_mut(&key)?;
        let entry = held.pop();
        if held.is_over() {
            self.held.remove(&key);
        } else if held.going(turn) > 0 {
            self.classes[class].ready.push_front(Turn::Key(key, turn));
        }
        entry
    }

    /// Moves an entry behind those of its key that are held.
    fn fall_in(&mut self, turn: Turn<E>) {
        let Turn::Entry(entry) = turn else { return };
        if let Some(held) = entry.order().and_then(|key| self.held.get_mut(key)) {
            held.follow(entry);
        }
    }

    /// Puts off an entry whose time has not come.
    fn wait(&mut self, class: usize, turn: Turn<E>, due: Instant) {
        match turn {
            Turn::Entry(entry) => self.delay(class, entry, due),
            Turn::Key(key, _) => {
                if let Some(held) = self.held.get_mut(&key) {
                    held.wait();
                }
                self.schedule(&key, due);
            }
        }
    }

    /// Puts off an entry, before all others of its key.
    fn delay(&mut self, class: usize, entry: E, due: Instant) {
        match entry.order().cloned() {
            Some(key) => {
                self.held.entry(key.clone()).or_insert_with(|| Held::new(class)).lead(entry);
                self.schedule(&key, due);
            }
            None => {
                self.turns += 1;
                self.delayed.insert((due, self.turns), (class, Turn::Entry(entry)));
            }
        }
    }

    /// Gives a held key its next turn.
    fn schedule(&mut self, key: &Arc<str>, due: Instant) {
        let Some(held) = self.held.get_mut(key) else { return };
        self.turns += 1;
        let turn = (held.class, Turn::Key(key.clone(), self.turns));
        if let Some(former) = held.set_turn(self.turns, Some(due)) {
            self.delayed.remove(&former);
        }
        self.delayed.insert((due, self.turns), turn);
    }

    /// All entries of the last batch are answered. Those that are not back are gone.
    pub fn end_batch(&mut self) {
        self.members.arrived(|key| self.held.contains_key(key));
    }

    /// Puts failed entries back, in the order in which they stood in their batch, each with when it
    /// is due; those that share a key are due with the last of them. Their keys are held until each
    /// is [released](Self::release).
    pub fn retry(&mut self, failed: Vec<(E, Instant)>) {
        let mut last: HashMap<Arc<str>, Instant> = HashMap::new();
        for (entry, due) in &failed {
            if let Some(key) = entry.order() {
                let last = last.entry(key.clone()).or_insert(*due);
                *last = (*last).max(*due);
            }
        }
        if planted!(RetryOvertakes) {
            return self.push(failed.into_iter().map(|(entry, _)| entry));
        }
        // From the last on, because each goes before what is here of its key.
        for (entry, due) in failed.into_iter().rev() {
            let class = self.members.join(&entry);
            let due = entry.order().and_then(|key| last.get(key)).copied().unwrap_or(due);
            self.delay(class, entry, due);
        }
    }

    /// Holds a key back: its entry is under way elsewhere. What failed with that waits as well.
    pub fn hold(&mut self, key: &Arc<str>) {
        let class = self.members.class(key).unwrap_or_default();
        self.held.entry(key.clone()).or_insert_with(|| Held::new(class)).park();
    }

    /// An entry that held a key is done with. Once it was the last one, what waited behind goes
    /// first. (With a sink that is atomic per key, several entries of it may have failed together.)
    pub fn release(&mut self, key: &Arc<str>) {
        let Some(held) = self.held.get_mut(key) else { return };
        if !held.release() {
            return;
        }
        if held.is_over() {
            self.held.remove(key);
            self.members.leave(key, 0, false);
        } else if let Some(due) = held.due() {
            self.schedule(key, due);
        } else {
            self.turns += 1;
            held.set_turn(self.turns, None);
            self.classes[held.class].ready.push_front(Turn::Key(key.clone(), self.turns));
        }
    }

    /// Takes out everything that waits behind a held key: its head goes back to the source, and
    /// what came after it may not overtake.
    pub fn take_behind(&mut self, key: &Arc<str>) -> Vec<E> {
        let mut taken = Vec::new();
        if let Some(held) = self.held.get_mut(key) {
            if let Some(due) = held.delayed() {
                self.delayed.remove(&due);
            }
            taken.extend(held.drain());
            if held.is_over() {
                self.held.remove(key);
            }
        }
        if let Some(class) = self.members.class(key) {
            self.classes[class].take_of(key, &mut taken);
        }
        self.members.leave(key, taken.len(), self.held.contains_key(key));
        taken
    }

    /// Takes out what `is_meant`, and all that shares a key with it: none of that may overtake.
    /// Nothing is under way.
    pub fn take_out(&mut self, is_meant: impl Fn(&E) -> bool) -> Vec<E> {
        // By a key's own order: what goes back does so as it would in a replay.
        let (mut taken, mut keys) = (Vec::new(), BTreeSet::new());
        let mut keep = |turn: Turn<E>| match turn {
            Turn::Entry(entry) if is_meant(&entry) => match entry.order().cloned() {
                Some(key) => {
                    keys.insert(key);
                    Some(Turn::Entry(entry))
                }
                None => {
                    taken.push(entry);
                    None
                }
            },
            turn => Some(turn),
        };
        for class in &mut self.classes {
            let ready = std::mem::take(&mut class.ready).into_iter();
            class.ready = ready.filter_map(&mut keep).collect();
        }
        let delayed = std::mem::take(&mut self.delayed).into_iter();
        let kept = delayed.filter_map(|(due, (class, turn))| Some((due, (class, keep(turn)?))));
        self.delayed = kept.collect();
        for (key, held) in &self.held {
            if held.any(&is_meant) {
                keys.insert(key.clone());
            }
        }
        for key in keys {
            taken.extend(self.take_behind(&key));
        }
        taken
    }

    /// What waits for its next try has waited enough.
    pub fn hasten(&mut self, now: Instant) {
        for ((_, turn), (class, waiting)) in std::mem::take(&mut self.delayed) {
            match waiting {
                Turn::Key(key, _) => self.schedule(&key, now),
                entry => _ = self.delayed.insert((now, turn), (class, entry)),
            }
        }
    }

    /// When something falls due, if nothing is ready.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((due, _), _)| *due)
    }

    /// Whether it may be that a batch could be made now.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.classes.iter().any(|class| !class.ready.is_empty())
            || self.next_due().is_some_and(|due| due <= now)
    }

    /// Whether this many could go at once.
    #[must_use]
    pub fn fills(&self, events: usize) -> bool {
        let ready = || self.classes.iter().flat_map(|class| &class.ready);
        let turns: usize = self.classes.iter().map(|class| class.ready.len()).sum();
        if turns >= events || self.held.is_empty() {
            return turns >= events;
        }
        let going = |turn: &Turn<E>| match turn {
            Turn::Entry(_) => 1,
            Turn::Key(key, turn) => self.held.get(key).map_or(0, |held| held.going(*turn)),
        };
        ready().map(going).sum::<usize>() >= events
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<E> {
        self.members.clear();
        let delayed = std::mem::take(&mut self.delayed).into_values().map(|(_, turn)| turn);
        let ready = self.classes.iter_mut().flat_map(|class| class.ready.drain(..));
        let entry = |turn| match turn {
            Turn::Entry(entry) => Some(entry),
            Turn::Key(..) => None,
        };
        let mut drained: Vec<E> = ready.chain(delayed).filter_map(entry).collect();
        let mut held: Vec<_> = self.held.drain().collect();
        held.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        held.into_iter().for_each(|(_, mut held)| drained.extend(held.drain()));
        drained
    }

    /// Moves what is due to the front of its class, in its order.
    fn wake(&mut self, now: Instant) {
        let mut due = Vec::new();
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        for (class, turn) in due.into_iter().rev() {
            self.classes[class].ready.push_front(turn);
        }
    }
}

impl<E: Entry> Class<E> {
    fn has_more(&self) -> bool {
        !self.spent && !self.ready.is_empty()
    }

    /// Makes ready for the next batch.
    fn put_back(&mut self) {
        self.spent = false;
        while let Some(turn) = self.skipped.pop_back() {
            self.ready.push_front(turn);
        }
    }

    /// Takes out the entries of a key.
    fn take_of(&mut self, key: &Arc<str>, taken: &mut Vec<E>) {
        let is_of =
            |turn: &Turn<E>| matches!(turn, Turn::Entry(entry) if entry.order() == Some(key));
        if !self.ready.iter().any(is_of) {
            return;
        }
        for turn in std::mem::take(&mut self.ready) {
            match turn {
                Turn::Entry(entry) if entry.order() == Some(key) => taken.push(entry),
                turn => self.ready.push_back(turn),
            }
        }
    }
}

impl<E> Default for Class<E> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), skipped: VecDeque::new(), spent: false }
    }
}

impl<E: Entry> Batch<'_, E> {
    fn fit(&self, entry: &E) -> Fit {
        if entry.order().is_some_and(|key| self.keys.contains(key)) {
            return Fit::HasKey;
        }
        if let Some(due) = entry.not_before().filter(|due| *due > self.now) {
            return Fit::NotBefore(due);
        }
        let fits = self.entries.is_empty() || self.bytes + entry.bytes() <= self.limits.bytes;
        if fits { Fit::Fits } else { Fit::TooMuch }
    }

    fn add(&mut self, entry: E) {
        if self.limits.order != Order::Together {
            self.keys.extend(entry.order().cloned());
        }
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests;
