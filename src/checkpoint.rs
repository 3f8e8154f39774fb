//! The contiguous watermark of one partition.
//!
//! Events of a log are settled in any order, but only a prefix may be checkpointed: whatever lies
//! past the first unsettled event comes again after a restart. Sequence numbers may have holes
//! (a service may skip some), so the watermark follows what was received, not arithmetic.
//!
//! `model/` has it, with owners that come and go, for a model checker: what changes here changes
//! there.

use std::collections::VecDeque;

use crate::state::Checkpoint;

/// Tracks what a partition has handed out and what of it is settled.
#[derive(Debug, Default)]
pub struct Watermark {
    /// In the order received, which is the order of the log; the front is the oldest unsettled.
    open: VecDeque<Entry>,
    /// The end of the settled prefix.
    settled: Option<Checkpoint>,
}

#[derive(Debug)]
struct Entry {
    sequence: i64,
    offset: String,
    done: bool,
}

impl Watermark {
    /// Starts after a stored checkpoint.
    #[must_use]
    pub fn after(checkpoint: Option<Checkpoint>) -> Self {
        Self { open: VecDeque::new(), settled: checkpoint }
    }

    /// Notes that an event was handed out. One at or below what was handed out before is no new
    /// event (a reconnect may repeat): answers false, and it must not be handed out again.
    pub fn received(&mut self, sequence: i64, offset: &str) -> bool {
        let newest = self.open.back().map(|entry| entry.sequence);
        if newest.or(self.position()).is_some_and(|newest| sequence <= newest) {
            return false;
        }
        self.open.push_back(Entry { sequence, offset: offset.to_owned(), done: false });
        true
    }

    /// Marks an event settled. Answers whether the watermark moved. An unknown one is ignored:
    /// it was settled before.
    pub fn settle(&mut self, sequence: i64) -> bool {
        if let Ok(at) = self.open.binary_search_by_key(&sequence, |entry| entry.sequence) {
            self.open[at].done = true;
        }
        let mut moved = false;
        if planted!(CheckpointPastGap) {
            self.open
                .iter_mut()
                .take_while(|entry| entry.sequence < sequence)
                .for_each(|entry| entry.done = true);
        }
        while let Some(entry) = self.open.pop_front_if(|entry| entry.done) {
            self.settled =
                Some(Checkpoint { sequence: entry.sequence, offset: entry.offset, hub_made: None });
            moved = true;
        }
        moved
    }

    /// What may be written: the end of the contiguous settled prefix.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.settled.as_ref()
    }

    /// Its sequence number.
    #[must_use]
    pub fn position(&self) -> Option<i64> {
        self.settled.as_ref().map(|checkpoint| checkpoint.sequence)
    }

    /// How many events are handed out and hold or lie behind the watermark.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn six() -> Checkpoint {
        Checkpoint { sequence: 6, offset: "a".into(), hub_made: None }
    }

    fn after_each(settles: &[i64]) -> Vec<Option<i64>> {
        let mut watermark = Watermark::default();
        for sequence in 0..5 {
            assert!(watermark.received(sequence, &sequence.to_string()));
        }
        settles
            .iter()
            .map(|sequence| {
                watermark.settle(*sequence);
                watermark.position()
            })
            .collect()
    }

    #[test]
    fn only_a_contiguous_prefix_is_checkpointed() {
        assert_eq!(after_each(&[1, 2, 0, 4]), [None, None, Some(2), Some(2)]);
        assert_eq!(after_each(&[0, 1, 2, 3, 4]), [0, 1, 2, 3, 4].map(Some));
        assert_eq!(after_each(&[4, 3, 2, 1, 0]), [None, None, None, None, Some(4)]);
    }

    #[test]
    fn a_hole_in_the_sequence_numbers_does_not_stop_the_watermark() {
        let mut watermark = Watermark::after(Some(six()));
        for sequence in [7, 20, 21] {
            assert!(watermark.received(sequence, "x"));
        }
        watermark.settle(20);
        assert_eq!(watermark.position(), Some(6));
        watermark.settle(7);
        assert_eq!(watermark.position(), Some(20));
    }

    #[test]
    fn an_event_seen_before_is_not_handed_out_again() {
        let mut watermark = Watermark::after(Some(six()));
        assert!(!watermark.received(6, "x"));
        assert!(watermark.received(8, "x"));
        assert!(!watermark.received(7, "x"));
        assert!(!watermark.received(8, "x"));
    }
}
