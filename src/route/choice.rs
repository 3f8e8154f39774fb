//! Which of a route's sinks an event goes to: to all of them, to those of the first case that
//! matches, to the first that works, or to one of several that share the load.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{When, pattern::fields::Fields};
use crate::{event::Event, transform::Failure};

/// How a route chooses. `T` is a sink: its index in a plan, or what delivers to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice<T> {
    /// All of them.
    All(Vec<T>),
    /// Those of the first case that matches, or else of `otherwise`. Where there is neither, the
    /// route does not take the event.
    First {
        /// In the order in which they are tried.
        cases: Vec<Case<T>>,
        /// For events that match none of them.
        otherwise: Vec<T>,
    },
    /// The first that works; the others stand by, in this order.
    Any(Vec<T>),
    /// One of them.
    Balance(Balance<T>),
}

/// One case of a directed route.
#[derive(Debug, Clone, PartialEq)]
pub struct Case<T> {
    /// Which events.
    pub when: When,
    /// All of these take them.
    pub to: Vec<T>,
}

/// Sinks that share the load of a route.
#[derive(Debug)]
pub struct Balance<T> {
    /// How it is shared.
    pub policy: Policy,
    /// The sinks.
    pub to: Vec<T>,
    /// The next of the policy's turns.
    turn: AtomicUsize,
}

/// How load is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// One after the other: indices of sinks, again and again in this order.
    InTurn(Vec<u16>),
    /// Whichever has the fewest events under way.
    LeastInFlight,
    /// The events of a key always to the same one. Where a sink is added or taken away, only the
    /// keys move that it gets or had.
    Sticky,
}

/// What a choice must know of a sink.
pub trait Candidate {
    /// Its name in the file.
    fn name(&self) -> &str;
    /// Whether it works, as far as is known.
    fn is_well(&self) -> bool;
    /// Events under way to it.
    fn in_flight(&self) -> usize;
    /// Counts one more as under way, until it is dropped.
    type Underway: std::fmt::Debug;
    /// One more is under way to it.
    fn underway(&self) -> Self::Underway;
}

impl Policy {
    /// In turn, each as often as its weight says, and spread out: with weights 3 and 1 the sinks
    /// come as 0 0 1 0. Weights are at least 1.
    #[must_use]
    pub fn weighted(weights: &[u32]) -> Self {
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let weights: Vec<i64> = weights.iter().map(|weight| (weight / divisor).into()).collect();
        let round: i64 = weights.iter().sum();
        let mut owed = vec![0; weights.len()];
        let mut turns = Vec::new();
        for _ in 0..round {
            owed.iter_mut().zip(&weights).for_each(|(owed, weight)| *owed += weight);
            // The first of those that are owed most.
            let most = (0..owed.len()).rev().max_by_key(|&index| owed[index]).unwrap_or(0);
            owed[most] -= round;
            turns.push(u16::try_from(most).unwrap_or(u16::MAX));
        }
        Self::InTurn(turns)
    }
}

fn gcd(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { gcd(other, one % other) }
}

impl<T> Choice<T> {
    /// Whether every event goes somewhere.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        !matches!(self, Self::First { otherwise, .. } if otherwise.is_empty())
    }

    /// Whether an event goes to each of several sinks, so that each of them can fail by itself;
    /// else it goes to one of them.
    #[must_use]
    pub fn sends_to_each(&self) -> bool {
        matches!(self, Self::All(_) | Self::First { .. })
    }

    /// The same choice among what `with` makes of each sink.
    pub fn try_map<U>(&self, with: &mut dyn FnMut(&T) -> Option<U>) -> Option<Choice<U>> {
        let mut all = |of: &[T]| of.iter().map(&mut *with).collect::<Option<Vec<U>>>();
        Some(match self {
            Self::All(to) => Choice::All(all(to)?),
            Self::Any(to) => Choice::Any(all(to)?),
            Self::First { cases, otherwise } => {
                let mut case =
                    |case: &Case<T>| Some(Case { when: case.when.clone(), to: all(&case.to)? });
                let cases = cases.iter().map(&mut case).collect::<Option<_>>()?;
                Choice::First { cases, otherwise: all(otherwise)? }
            }
            Self::Balance(Balance { policy, to, .. }) => {
                Choice::Balance(Balance::new(policy.clone(), all(to)?))
            }
        })
    }

    /// Every sink that an event can go to. One can come twice.
    pub fn sinks(&self) -> impl Iterator<Item = &T> {
        let (flat, cases): (&[T], &[Case<T>]) = match self {
            Self::All(to) | Self::Any(to) | Self::Balance(Balance { to, .. }) => (to, &[]),
            Self::First { cases, otherwise } => (otherwise, cases),
        };
        cases.iter().flat_map(|case| &case.to).chain(flat)
    }

    /// The sinks that an event can as well go to as to the one that it goes to now: their turn has
    /// not come, or they have more under way.
    #[must_use]
    pub fn alternatives(&self) -> &[T] {
        match self {
            Self::Balance(Balance { policy: Policy::Sticky, .. }) => &[],
            Self::Balance(Balance { to, .. }) => to,
            Self::All(_) | Self::First { .. } | Self::Any(_) => &[],
        }
    }

    /// The conditions of its cases.
    pub fn conditions(&self) -> impl Iterator<Item = &When> {
        let cases = if let Self::First { cases, .. } = self { cases.as_slice() } else { &[] };
        cases.iter().map(|case| &case.when)
    }
}

impl<T: Candidate> Choice<T> {
    /// Whether it asks how many events are under way, so that those count that it has just chosen
    /// a sink for.
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(self, Self::Balance(Balance { policy: Policy::LeastInFlight, .. }))
    }

    /// How it picks one of several sinks; none where it does not.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        let names = |to: &[T]| to.iter().map(Candidate::name).collect::<Vec<_>>().join(", ");
        Some(match self {
            Self::All(_) | Self::First { .. } => return None,
            Self::Any(to) => format!("the first that works of {}", names(to)),
            Self::Balance(Balance { policy, to, .. }) => match policy {
                Policy::InTurn(turns) => {
                    let share = |(index, sink): (usize, &T)| {
                        let of = turns.iter().filter(|turn| usize::from(**turn) == index).count();
                        let tenths = (1000 * of + turns.len() / 2) / turns.len().max(1);
                        let rest = if tenths % 10 == 0 {
                            String::new()
                        } else {
                            format!(".{}", tenths % 10)
                        };
                        format!("{} {}{rest} %", sink.name(), tenths / 10)
                    };
                    let shares: Vec<_> = to.iter().enumerate().map(share).collect();
                    format!("in turn, {}", shares.join(", "))
                }
                Policy::LeastInFlight => {
                    format!("whichever has the fewest events under way of {}", names(to))
                }
                Policy::Sticky => format!("by its key, of {}", names(to)),
            },
        })
    }

    /// The sinks for an event; none if the route does not take it.
    ///
    /// # Errors
    /// A condition of a case fails.
    pub fn choose(&self, event: &Event, fields: &Fields<'_>) -> Result<&[T], Failure> {
        match self {
            Self::All(to) => Ok(to),
            Self::First { cases, otherwise } => {
                for case in cases {
                    if case.when.accepts(event, fields)? {
                        return Ok(&case.to);
                    }
                }
                Ok(otherwise)
            }
            Self::Any(to) => {
                let well = to.iter().position(Candidate::is_well).unwrap_or(0);
                Ok(one(to, well))
            }
            Self::Balance(balance) => Ok(balance.choose(event)),
        }
    }
}

impl<T> Balance<T> {
    /// Nothing has been chosen yet.
    #[must_use]
    pub fn new(policy: Policy, to: Vec<T>) -> Self {
        Self { policy, to, turn: AtomicUsize::new(0) }
    }
}

/// The copy begins anew.
impl<T: Clone> Clone for Balance<T> {
    fn clone(&self) -> Self {
        Self::new(self.policy.clone(), self.to.clone())
    }
}

/// Whose turn it is does not matter.
impl<T: PartialEq> PartialEq for Balance<T> {
    fn eq(&self, other: &Self) -> bool {
        self.policy == other.policy && self.to == other.to
    }
}

impl<T: Candidate> Balance<T> {
    /// The sink for an event, as a list of one.
    fn choose(&self, event: &Event) -> &[T] {
        let next = || self.turn.fetch_add(1, Ordering::Relaxed);
        let index = match &self.policy {
            Policy::InTurn(turns) => {
                turns.get(next() % turns.len().max(1)).copied().map_or(0, usize::from)
            }
            Policy::LeastInFlight => {
                // Where several have as few, it is their turn one after the other.
                let (count, start) = (self.to.len().max(1), next());
                let turn = |index: &usize| (index + count - start % count) % count;
                let load = |index: &usize| (self.to[*index].in_flight(), turn(index));
                (0..self.to.len()).min_by_key(load).unwrap_or(0)
            }
            Policy::Sticky => {
                let key = event.key.as_deref().unwrap_or(&event.id);
                let score = |index: &usize| score(key, self.to[*index].name());
                (0..self.to.len()).max_by_key(score).unwrap_or(0)
            }
        };
        one(&self.to, index)
    }
}

fn one<T>(to: &[T], index: usize) -> &[T] {
    to.get(index..=index).unwrap_or_default()
}

/// How much a key likes a sink: rendezvous hashing.
fn score(key: &str, sink: &str) -> u64 {
    hash(key.bytes().chain([0]).chain(sink.bytes()))
}

/// A hash that stays the same over restarts and releases: FNV-1a, and the finalizer of `SplitMix64`
/// because the last bytes of FNV reach the high bits badly.
pub(super) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transform::tests::event;

    struct Fake(&'static str, AtomicUsize, bool);

    impl Candidate for Fake {
        fn name(&self) -> &str {
            self.0
        }
        fn is_well(&self) -> bool {
            self.2
        }
        fn in_flight(&self) -> usize {
            self.1.load(Ordering::Relaxed)
        }
        type Underway = ();
        fn underway(&self) {}
    }

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    fn fakes(count: usize) -> Vec<Fake> {
        NAMES.iter().take(count).map(|name| Fake(name, 0.into(), true)).collect()
    }

    fn counts(balance: &Balance<Fake>, events: usize) -> Vec<usize> {
        let mut counts = vec![0; balance.to.len()];
        let mut event = event();
        for number in 0..events {
            event.id = number.to_string().into();
            let chosen = &balance.choose(&event)[0];
            counts[balance.to.iter().position(|to| std::ptr::eq(to, chosen)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn weights_are_spread_out() {
        assert_eq!(Policy::weighted(&[3, 1]), Policy::InTurn(vec![0, 0, 1, 0]));
        assert_eq!(Policy::weighted(&[50, 50]), Policy::InTurn(vec![0, 1]));
        assert_eq!(Policy::weighted(&[7]), Policy::InTurn(vec![0]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn weights_are_kept(weights in prop::collection::vec(1_u32..=100, 1..8)) {
            let balance = Balance::new(Policy::weighted(&weights), fakes(weights.len()));
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts(&balance, 100_000).into_iter().zip(&weights) {
                let share = count as f64 / 100_000.0;
                prop_assert!((share - f64::from(*weight) / f64::from(sum)).abs() < 0.01);
            }
        }

        #[test]
        fn a_key_stays_where_it_is_when_another_sink_goes(key in ".{0,12}", gone in 1_usize..8) {
            let of = |to: Vec<Fake>| {
                let balance = Balance::new(Policy::Sticky, to);
                let event = Event { key: Some(key.as_str().into()), ..event() };
                balance.choose(&event)[0].0
            };
            let before = of(fakes(8));
            let mut left = fakes(8);
            left.remove(gone);
            if before != NAMES[gone] {
                prop_assert_eq!(of(left), before);
            }
        }
    }

    #[test]
    fn sticky_keys_spread() {
        let balance = Balance::new(Policy::Sticky, fakes(4));
        assert!(counts(&balance, 10_000).iter().all(|&count| (2_300..2_700).contains(&count)));
    }

    #[test]
    fn the_least_loaded_is_chosen_and_equals_take_turns() {
        let balance = Balance::new(Policy::LeastInFlight, fakes(3));
        assert_eq!(counts(&balance, 300), [100, 100, 100]);
        balance.to[0].1.store(5, Ordering::Relaxed);
        balance.to[1].1.store(2, Ordering::Relaxed);
        balance.to[2].1.store(3, Ordering::Relaxed);
        assert_eq!(counts(&balance, 10), [0, 10, 0]);
    }

    #[test]
    fn the_first_that_works_is_chosen() {
        let choose = |well: [bool; 3]| {
            let to = NAMES.iter().zip(well).map(|(name, well)| Fake(name, 0.into(), well));
            let choice = Choice::Any(to.collect());
            let wanted = crate::route::pattern::fields::Wanted::default();
            let event = event();
            let fields = crate::route::fields(&event, &wanted, time::OffsetDateTime::UNIX_EPOCH);
            choice.choose(&event, &fields).unwrap()[0].0
        };
        assert_eq!(choose([true, true, true]), "a");
        assert_eq!(choose([false, false, true]), "c");
        assert_eq!(choose([false, false, false]), "a");
    }
}
