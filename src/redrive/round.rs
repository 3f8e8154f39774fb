//! In which order entries are sent again. Pure.
//!
//! Of a key, one entry is under way at a time. One that fails holds back those behind it for the
//! whole of the redrive: they may not overtake what will have to be tried once more.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// Entries that wait to be sent.
#[derive(Debug)]
pub(super) struct Round<E> {
    /// Those that may go: without a key, or the first of theirs.
    ready: VecDeque<(Option<Arc<str>>, E)>,
    /// Those behind another of their key. A key is in here for as long as one of its entries is
    /// ready or under way.
    behind: HashMap<Arc<str>, VecDeque<E>>,
    /// Keys that have failed.
    failed: HashSet<Arc<str>>,
}

impl<E> Default for Round<E> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), behind: HashMap::new(), failed: HashSet::new() }
    }
}

impl<E> Round<E> {
    /// Adds an entry behind all others of its key. Gives it back if that has failed.
    pub(super) fn push(&mut self, key: Option<Arc<str>>, entry: E) -> Result<(), E> {
        match &key {
            Some(key) if self.failed.contains(key) => return Err(entry),
            Some(key) => match self.behind.get_mut(key) {
                Some(behind) => {
                    behind.push_back(entry);
                    return Ok(());
                }
                None => _ = self.behind.insert(key.clone(), VecDeque::new()),
            },
            None => {}
        }
        self.ready.push_back((key, entry));
        Ok(())
    }

    /// The next that may go. [`done`](Self::done) or [`fail`](Self::fail) says how it ended.
    pub(super) fn next(&mut self) -> Option<(Option<Arc<str>>, E)> {
        self.ready.pop_front()
    }

    /// Whether one may go.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The entry of this key that was under way has arrived.
    pub(super) fn done(&mut self, key: &Arc<str>) {
        let Some(behind) = self.behind.get_mut(key) else { return };
        match behind.pop_front() {
            Some(next) => self.ready.push_back((Some(key.clone()), next)),
            None => _ = self.behind.remove(key),
        }
    }

    /// The entry of this key that was under way has not arrived. Answers those behind it.
    pub(super) fn fail(&mut self, key: &Arc<str>) -> VecDeque<E> {
        self.failed.insert(key.clone());
        self.behind.remove(key).unwrap_or_default()
    }

    /// Takes out all that is not under way.
    pub(super) fn drain(&mut self) -> Vec<E> {
        let ready = self.ready.drain(..).map(|(_, entry)| entry);
        let behind = self.behind.drain().flat_map(|(_, behind)| behind);
        ready.chain(behind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(entries: &[(&str, u32)]) -> Round<u32> {
        let mut round = Round::default();
        for (key, entry) in entries {
            let key = (!key.is_empty()).then(|| Arc::from(*key));
            round.push(key, *entry).unwrap();
        }
        round
    }

    fn ready(round: &mut Round<u32>) -> Vec<u32> {
        std::iter::from_fn(|| round.next()).map(|(_, entry)| entry).collect()
    }

    #[test]
    fn one_entry_of_a_key_goes_at_a_time() {
        let mut round = round(&[("a", 1), ("", 2), ("a", 3), ("b", 4), ("a", 5)]);
        assert_eq!(ready(&mut round), [1, 2, 4]);
        assert!(!round.is_ready());
        round.done(&"a".into());
        assert_eq!(ready(&mut round), [3]);
        round.done(&"b".into());
        round.push(Some("b".into()), 6).unwrap();
        assert_eq!(ready(&mut round), [6]);
        round.done(&"a".into());
        assert_eq!(ready(&mut round), [5]);
        round.done(&"a".into());
        assert_eq!(ready(&mut round), [0; 0]);
    }

    #[test]
    fn what_fails_holds_back_its_own_key_for_good() {
        let mut round = round(&[("a", 1), ("b", 2), ("a", 3), ("a", 4)]);
        assert_eq!(ready(&mut round), [1, 2]);
        assert_eq!(round.fail(&"a".into()), [3, 4]);
        assert_eq!(round.push(Some("a".into()), 5), Err(5));
        round.done(&"b".into());
        round.push(Some("b".into()), 6).unwrap();
        assert_eq!(ready(&mut round), [6]);
    }

    #[test]
    fn what_waits_can_be_taken_out() {
        let mut round = round(&[("a", 1), ("a", 2), ("", 3)]);
        assert_eq!(round.next().unwrap().1, 1);
        let mut left = round.drain();
        left.sort_unstable();
        assert_eq!(left, [2, 3]);
    }
}
