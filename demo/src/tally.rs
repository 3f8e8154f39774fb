//! What was published, and what arrived of it where: the demo's own books, kept apart from the
//! daemon's metrics.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// For every sink of the daemon, which events are expected there and how often each arrived.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, BTreeMap<String, Copies>>>);

/// One event at one sink.
#[derive(Debug, Clone, Copy, Default)]
struct Copies {
    expected: bool,
    arrived: u32,
}

/// The books of one sink, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    /// Events that shall arrive.
    pub(crate) expected: u64,
    /// Those that did, however often.
    pub(crate) arrived: u64,
    /// Copies beyond the first of each event.
    pub(crate) duplicated: u64,
    /// Events that do not belong here.
    pub(crate) strange: u64,
}

impl Balance {
    /// Events that have not arrived (yet).
    pub(crate) fn missing(&self) -> u64 {
        self.expected - self.arrived
    }
}

impl Tally {
    /// Event `id` shall arrive at `sink`.
    pub(crate) fn expect(&self, sink: &str, id: &str) {
        self.at(sink, id, |copies| copies.expected = true);
    }

    /// Event `id` has arrived at `sink`.
    pub(crate) fn arrived(&self, sink: &str, id: &str) {
        self.at(sink, id, |copies| copies.arrived += 1);
    }

    fn at(&self, sink: &str, id: &str, change: impl FnOnce(&mut Copies)) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(books.entry(sink.to_owned()).or_default().entry(id.to_owned()).or_default());
    }

    /// The books of every sink, by its name.
    pub(crate) fn balances(&self) -> BTreeMap<String, Balance> {
        let books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let balance = |events: &BTreeMap<String, Copies>| {
            events.values().fold(Balance::default(), |sum, copies| Balance {
                expected: sum.expected + u64::from(copies.expected),
                arrived: sum.arrived + u64::from(copies.expected && copies.arrived > 0),
                duplicated: sum.duplicated + u64::from(copies.arrived.saturating_sub(1)),
                strange: sum.strange + u64::from(!copies.expected),
            })
        };
        books.iter().map(|(sink, events)| (sink.clone(), balance(events))).collect()
    }

    /// The books of all sinks together.
    pub(crate) fn total(&self) -> Balance {
        self.balances().values().fold(Balance::default(), |sum, one| Balance {
            expected: sum.expected + one.expected,
            arrived: sum.arrived + one.arrived,
            duplicated: sum.duplicated + one.duplicated,
            strange: sum.strange + one.strange,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_duplicated_and_strange_events_are_told_apart() {
        let tally = Tally::default();
        for id in ["a", "b", "c"] {
            tally.expect("hub", id);
        }
        for id in ["a", "b", "b", "x"] {
            tally.arrived("hub", id);
        }
        let total = tally.total();
        assert_eq!(total, Balance { expected: 3, arrived: 2, duplicated: 1, strange: 1 });
        assert_eq!(total.missing(), 1);
    }
}
