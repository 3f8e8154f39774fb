//! The queue of one key that does not flow with the others.

use std::collections::VecDeque;

use tokio::time::Instant;

/// A key that is held back, or that goes first now because it was.
#[derive(Debug)]
pub(super) struct Held<E> {
    pub(super) class: usize,
    /// In order.
    entries: VecDeque<E>,
    /// How many of these, from the first, hold the key: they go without a release.
    holding: usize,
    /// The key is held by one that is elsewhere, so that none may go.
    parked: bool,
    /// All may go, one after the other.
    released: bool,
    /// The one turn that counts; others that are still about are void.
    turn: u64,
    /// When that turn comes or came, if it was delayed.
    due: Option<Instant>,
}

impl<E> Held<E> {
    pub(super) fn new(class: usize) -> Self {
        let entries = VecDeque::new();
        Self { class, entries, holding: 0, parked: false, released: false, turn: 0, due: None }
    }

    /// Adds what came after all that is here.
    pub(super) fn follow(&mut self, entry: E) {
        self.entries.push_back(entry);
    }

    /// Puts an entry before all others and lets it hold the key.
    pub(super) fn lead(&mut self, entry: E) {
        self.entries.push_front(entry);
        self.holding += 1;
        self.released = false;
    }

    /// Lets the first entry hold the key.
    pub(super) fn wait(&mut self) {
        self.holding = self.holding.max(1);
        self.released = false;
    }

    /// Holds the key for the sake of one that is elsewhere.
    pub(super) fn park(&mut self) {
        self.parked = true;
    }

    /// What held the key from elsewhere, or went last, is done with. Says whether the key needs a
    /// turn: none goes before those that hold it themselves have gone.
    pub(super) fn release(&mut self) -> bool {
        let changes = self.parked || (!self.released && self.holding == 0);
        self.parked = false;
        self.released = self.holding == 0;
        changes
    }

    /// Makes `turn` the one that counts, and gives the one that counted, if that was delayed.
    pub(super) fn set_turn(&mut self, turn: u64, due: Option<Instant>) -> Option<(Instant, u64)> {
        let former = self.delayed();
        (self.turn, self.due) = (turn, due);
        former
    }

    /// When the first is due, if it has to wait.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.holding > 0)
    }

    /// The turn that counts, if it was delayed.
    pub(super) fn delayed(&self) -> Option<(Instant, u64)> {
        self.due.map(|due| (due, self.turn))
    }

    /// How many may go at this turn.
    pub(super) fn going(&self, turn: u64) -> usize {
        match self.released {
            _ if self.parked || turn != self.turn => 0,
            true => self.entries.len(),
            false => self.holding,
        }
    }

    /// The one to go at this turn.
    pub(super) fn next(&self, turn: u64) -> Option<&E> {
        self.entries.front().filter(|_| self.going(turn) > 0)
    }

    /// Takes out the one to go.
    pub(super) fn pop(&mut self) -> Option<E> {
        self.holding = self.holding.saturating_sub(1);
        self.entries.pop_front()
    }

    /// Whether one of those that wait is meant.
    pub(super) fn any(&self, is_meant: impl Fn(&E) -> bool) -> bool {
        self.entries.iter().any(is_meant)
    }

    /// Whether the key is free again.
    pub(super) fn is_over(&self) -> bool {
        self.released && !self.parked && self.entries.is_empty()
    }

    /// Takes out all; then only one that is elsewhere can still hold the key.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = E> {
        self.holding = 0;
        self.due = None;
        self.released = true;
        self.entries.drain(..)
    }
}
