//! Classes of urgency, and whose turn it is among them: each class that has something waiting gets
//! its share, and the heavier goes first. Pure.

use std::cmp::Reverse;

/// The class of an event: its place in the [`Weights`] that its sinks run with. One that they do
/// not have counts as their last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

/// The weight of each class. While all of them have events waiting, a class gets its weight's part
/// of the sum, counted in events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights(Vec<u32>);

impl Weights {
    /// Weights in the order of the classes. A weight of 0 counts as 1; without any, there is one
    /// class.
    #[must_use]
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut weights: Vec<_> = weights.into_iter().map(|weight| weight.max(1)).collect();
        if weights.is_empty() {
            weights.push(1);
        }
        Self(weights)
    }

    /// How many classes there are; at least one.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.0.len()
    }
}

/// One class for all.
impl Default for Weights {
    fn default() -> Self {
        Self::new([])
    }
}

/// What an event costs a class of weight 1, in steps of virtual time. Much finer than a weight, so
/// that rounding does not show.
const COST: u128 = 1 << 32;

/// Start-time fair queueing: each event of a class moves its clock on by the inverse of its weight,
/// and the class whose clock is furthest behind goes next.
#[derive(Debug)]
pub(super) struct Shares {
    classes: Vec<Share>,
    /// The clock of the class that went last, at the time.
    now: u128,
}

#[derive(Debug)]
struct Share {
    weight: u32,
    clock: u128,
}

impl Shares {
    pub(super) fn new(weights: &Weights) -> Self {
        let share = |&weight| Share { weight, clock: 0 };
        Self { classes: weights.0.iter().map(share).collect(), now: 0 }
    }

    /// Which of the classes that are `waiting` goes next, if any does.
    pub(super) fn next(&self, waiting: impl Fn(usize) -> bool) -> Option<usize> {
        if self.classes.len() == 1 {
            return waiting(0).then_some(0);
        }
        let candidates = self.classes.iter().enumerate().filter(|(class, _)| waiting(*class));
        let turn = |share: &Share| (self.start(share), Reverse(share.weight));
        candidates.min_by_key(|(_, share)| turn(share)).map(|(class, _)| class)
    }

    /// An event of `class` goes.
    pub(super) fn charge(&mut self, class: usize) {
        if self.classes.len() == 1 {
            return;
        }
        let start = self.start(&self.classes[class]);
        let share = &mut self.classes[class];
        share.clock = start + COST / u128::from(share.weight);
        self.now = start;
    }

    /// What a class did not use while it had nothing waiting is gone.
    fn start(&self, share: &Share) -> u128 {
        share.clock.max(self.now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(shares: &mut Shares, count: usize, waiting: impl Fn(usize) -> bool) -> Vec<usize> {
        let pick = |_| {
            let class = shares.next(&waiting).unwrap();
            shares.charge(class);
            class
        };
        (0..count).map(pick).collect()
    }

    fn count(picks: &[usize], class: usize) -> usize {
        picks.iter().filter(|pick| **pick == class).count()
    }

    #[test]
    fn the_heavier_goes_first_and_the_lighter_soon() {
        let mut shares = Shares::new(&Weights::new([1, 3]));
        assert_eq!(picks(&mut shares, 8, |_| true), [1, 0, 1, 1, 1, 0, 1, 1]);
    }

    #[test]
    fn an_idle_class_saves_up_no_credit() {
        let mut shares = Shares::new(&Weights::new([1, 1]));
        picks(&mut shares, 1000, |class| class == 0);
        let both = picks(&mut shares, 100, |_| true);
        assert_eq!((count(&both, 0), count(&both, 1)), (50, 50));
    }

    #[test]
    fn a_weight_of_nothing_is_one_and_no_weights_are_one_class() {
        assert_eq!(Weights::new([0, 2]), Weights::new([1, 2]));
        assert_eq!(Weights::default().classes(), 1);
        assert_eq!(Shares::new(&Weights::default()).next(|_| false), None);
    }

    proptest! {
        /// Over any window in which all of them wait, whatever went before.
        #[test]
        fn shares_converge_to_the_weights(
            weights in proptest::collection::vec(1u32..=32, 1..8),
            before in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let sum: u32 = weights.iter().sum();
            let mut shares = Shares::new(&Weights::new(weights.clone()));
            for waiting in before {
                let Some(class) = shares.next(|class| waiting & (1 << class) != 0) else { continue };
                shares.charge(class);
            }
            let picks = picks(&mut shares, 10_000, |_| true);
            for (class, weight) in weights.iter().enumerate() {
                let expected = 10_000.0 * f64::from(*weight) / f64::from(sum);
                let got = count(&picks, class) as f64;
                prop_assert!((got - expected).abs() <= expected * 0.05 + 1.0, "{class}: {got} of {expected}");
            }
            // None starves: the longest wait of a class is what the others' weights say.
            for (class, weight) in weights.iter().enumerate() {
                let wait = picks.split(|pick| *pick == class).map(<[_]>::len).max().unwrap_or(0);
                let bound = (sum / weight) as usize + 2 * weights.len();
                prop_assert!(wait <= bound, "{class}: {wait} over {bound}");
            }
        }
    }
}
