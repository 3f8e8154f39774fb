//! What was published, and what arrived of it where: the demo's own books, kept apart from the
//! daemon's metrics.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// For every outlet, which events are expected there and how often each arrived.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, BTreeMap<String, Copies>>>);

/// One event at one outlet.
#[derive(Debug, Clone, Copy, Default)]
struct Copies {
    expected: bool,
    /// It was parked, and whoever mends the cause may send it again.
    possible: bool,
    arrived: u32,
    leaked: bool,
}

/// The books of one outlet, or of all.
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
    /// Events with something in them that must not come so far.
    pub(crate) leaked: u64,
}

impl Balance {
    /// Events that have not arrived (yet).
    pub(crate) fn missing(&self) -> u64 {
        self.expected - self.arrived
    }
}

impl Tally {
    /// Event `id` shall arrive at `outlet`.
    pub(crate) fn expect(&self, outlet: &str, id: &str) {
        self.at(outlet, id, |copies| copies.expected = true);
    }

    /// Event `id` will arrive at `outlet` if somebody sends it there again.
    pub(crate) fn may_arrive(&self, outlet: &str, id: &str) {
        self.at(outlet, id, |copies| copies.possible = true);
    }

    /// Event `id` has arrived at `outlet`.
    pub(crate) fn arrived(&self, outlet: &str, id: &str) {
        self.at(outlet, id, |copies| copies.arrived += 1);
    }

    /// Event `id` has arrived at `outlet` with something in it that must not.
    pub(crate) fn leaked(&self, outlet: &str, id: &str) {
        self.at(outlet, id, |copies| copies.leaked = true);
    }

    fn at(&self, outlet: &str, id: &str, change: impl FnOnce(&mut Copies)) {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(books.entry(outlet.to_owned()).or_default().entry(id.to_owned()).or_default());
    }

    /// The books of every outlet, by its name.
    pub(crate) fn balances(&self) -> BTreeMap<String, Balance> {
        let books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let balance = |events: &BTreeMap<String, Copies>| {
            events.values().fold(Balance::default(), |sum, copies| Balance {
                expected: sum.expected + u64::from(copies.expected),
                arrived: sum.arrived + u64::from(copies.expected && copies.arrived > 0),
                duplicated: sum.duplicated + u64::from(copies.arrived.saturating_sub(1)),
                strange: sum.strange + u64::from(!copies.expected && !copies.possible),
                leaked: sum.leaked + u64::from(copies.leaked),
            })
        };
        books.iter().map(|(outlet, events)| (outlet.clone(), balance(events))).collect()
    }

    /// The books of all outlets together.
    pub(crate) fn total(&self) -> Balance {
        self.balances().values().fold(Balance::default(), |sum, one| Balance {
            expected: sum.expected + one.expected,
            arrived: sum.arrived + one.arrived,
            duplicated: sum.duplicated + one.duplicated,
            strange: sum.strange + one.strange,
            leaked: sum.leaked + one.leaked,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_duplicated_strange_and_leaked_events_are_told_apart() {
        let tally = Tally::default();
        for id in ["a", "b", "c"] {
            tally.expect("hub", id);
        }
        for id in ["a", "b", "b", "x", "mended"] {
            tally.may_arrive("hub", "mended");
            tally.may_arrive("hub", "not yet");
            tally.arrived("hub", id);
        }
        tally.leaked("hub", "b");
        let total = tally.total();
        assert_eq!(
            total,
            Balance { expected: 3, arrived: 2, duplicated: 1, strange: 1, leaked: 1 }
        );
        assert_eq!(total.missing(), 1);
    }
}
