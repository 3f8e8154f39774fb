use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

/// A record as a store holds it.
#[derive(Debug, Clone, Default)]
struct Record {
    owner: Option<usize>,
    wanted_by: Option<usize>,
    version: u32,
    /// The round of the owner's last write.
    written: usize,
}

/// Rounds after which a record that is not renewed has no owner any more.
const EXPIRY: usize = 6;

/// Replicas around a store. Each looks, and acts on what it has seen some turns later.
struct World {
    records: Vec<Record>,
    names: Vec<String>,
    partitions: Vec<String>,
    alive: Vec<bool>,
    /// What each has seen and not acted upon.
    seen: Vec<Option<Vec<Record>>>,
    dice: StdRng,
    round: usize,
    moves: usize,
    at_once: usize,
}

impl World {
    fn new(partitions: usize, seed: u64, at_once: usize) -> Self {
        Self {
            records: vec![Record::default(); partitions],
            names: Vec::new(),
            partitions: (0..partitions).map(|id| id.to_string()).collect(),
            alive: Vec::new(),
            seen: Vec::new(),
            dice: StdRng::seed_from_u64(seed),
            round: 0,
            moves: 0,
            at_once,
        }
    }

    fn add(&mut self, replicas: usize) {
        for _ in 0..replicas {
            self.names.push(format!("replica-{}", self.names.len()));
            self.alive.push(true);
            self.seen.push(None);
        }
    }

    /// Everybody looks and acts once, in any order, so that many act on what is not so any more.
    fn pass(&mut self) {
        self.round += 1;
        let mut steps: Vec<usize> = (0..self.names.len()).flat_map(|me| [me, me]).collect();
        while !steps.is_empty() {
            let me = steps.swap_remove(self.dice.random_range(0..steps.len()));
            if !self.alive[me] {
                continue;
            }
            match self.seen[me].take() {
                None => self.seen[me] = Some(self.records.clone()),
                Some(seen) => self.act(me, &seen),
            }
        }
    }

    /// Writes, if nobody has since.
    fn put(&mut self, at: usize, seen: &[Record], change: impl FnOnce(&mut Record)) {
        if self.records[at].version == seen[at].version {
            change(&mut self.records[at]);
            self.records[at].version += 1;
        }
    }

    fn act(&mut self, me: usize, seen: &[Record]) {
        let round = self.round;
        for (at, record) in seen.iter().enumerate().filter(|(_, record)| record.owner == Some(me)) {
            self.put(at, seen, |held| {
                held.written = round;
                if record.wanted_by.is_some() {
                    held.owner = None;
                }
            });
        }
        let (mut held, mut promised) = (BTreeMap::new(), BTreeMap::new());
        for (at, record) in seen.iter().enumerate() {
            if round - record.written >= EXPIRY {
                continue;
            }
            let wanted_by = record.wanted_by.map(|name| self.names[name].as_str());
            let partition = self.partitions[at].as_str();
            if let Some(owner) = record.owner {
                held.insert(partition, Holder { owner: &self.names[owner], wanted_by });
            } else if let Some(name) = wanted_by {
                promised.insert(partition, name);
            }
        }
        let view = View { me: &self.names[me], partitions: &self.partitions, held, promised };
        let dice = &mut self.dice;
        for next in moves(&view, self.at_once, |below| dice.random_range(0..below)) {
            self.moves += 1;
            match next {
                Move::Claim(id) => self.put(id.parse().unwrap(), seen, |record| {
                    (record.owner, record.wanted_by, record.written) = (Some(me), None, round);
                }),
                // To ask does not renew.
                Move::TakeOver(id) => self.put(id.parse().unwrap(), seen, |record| {
                    record.wanted_by = Some(me);
                }),
            }
        }
    }

    /// How many partitions each of the living has, most first.
    fn shares(&self) -> Vec<usize> {
        let living = (0..self.names.len()).filter(|me| self.alive[*me]);
        let count = |me| self.records.iter().filter(|record| record.owner == Some(me)).count();
        let mut shares: Vec<usize> = living.map(count).collect();
        shares.sort_unstable_by_key(|share| std::cmp::Reverse(*share));
        shares
    }

    /// Nobody has a partition more than anybody else would have, all are had, and nobody moves.
    fn is_at_rest(&mut self) -> bool {
        let shares = self.shares();
        let (most, least) = (shares[0], shares[shares.len() - 1]);
        let is_fair = most - least <= 1 && shares.iter().sum::<usize>() == self.records.len();
        let before = self.moves;
        if is_fair {
            (0..3).for_each(|_| self.pass());
        }
        is_fair && self.moves == before && self.shares() == shares
    }

    fn come_to_rest(&mut self, within: usize) -> Result<(), TestCaseError> {
        let until = self.round + within;
        while self.round < until {
            self.pass();
            if self.is_at_rest() {
                // And so it stays.
                let (before, shares) = (self.moves, self.shares());
                (0..3 * EXPIRY).for_each(|_| self.pass());
                prop_assert_eq!(self.moves, before, "restless");
                prop_assert_eq!(self.shares(), shares);
                return Ok(());
            }
        }
        let shares = self.shares();
        Err(TestCaseError::fail(format!("no rest after {within} rounds: {shares:?}")))
    }
}

proptest! {
    // Each is hundreds of rounds.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn replicas_come_to_fair_shares_and_rest(
        partitions in 1..40_usize, start in 1..6_usize, more in 0..6_usize, dead in 0..6_usize,
        greedy: bool, seed: u64,
    ) {
        let mut world = World::new(partitions, seed, if greedy { usize::MAX } else { 1 });
        let rounds = 12 * partitions + 8 * EXPIRY;
        world.add(start);
        world.come_to_rest(rounds)?;
        world.add(more);
        world.come_to_rest(rounds)?;
        for dies in 0..dead.min(start + more - 1) {
            world.alive[dies] = false;
        }
        // In time, nothing is left to the dead.
        (0..2 * EXPIRY).for_each(|_| world.pass());
        if greedy {
            let is_alive = |record: &Record| record.owner.is_none_or(|owner| world.alive[owner]);
            prop_assert!(world.records.iter().all(is_alive), "the dead have partitions");
        }
        world.come_to_rest(rounds)?;
    }
}

fn partitions(count: usize) -> Vec<String> {
    (0..count).map(|id| id.to_string()).collect()
}

fn seen<'a>(
    partitions: &'a [String],
    owners: &[Option<&'a str>],
    wanted: &[Option<&'a str>],
    promised: &[(&'a str, &'a str)],
) -> View<'a> {
    let held = partitions.iter().zip(owners).zip(wanted.iter().chain(std::iter::repeat(&None)));
    let held = held.filter_map(|((id, owner), wanted_by)| {
        Some((id.as_str(), Holder { owner: (*owner)?, wanted_by: *wanted_by }))
    });
    let held = held.collect();
    View { me: "me", partitions, held, promised: promised.iter().copied().collect() }
}

fn first(_: usize) -> usize {
    0
}

#[test]
fn what_is_free_is_taken_up_to_the_larger_share() {
    let four = partitions(4);
    let claim = |id: &str| Move::Claim(id.into());
    let alone = seen(&four, &[None; 4], &[], &[]);
    assert_eq!(moves(&alone, usize::MAX, first).len(), 4);
    assert_eq!(moves(&alone, 1, first), [claim("0")]);
    let after_a_death = seen(&four, &[Some("me"), Some("other"), None, None], &[], &[]);
    assert_eq!(moves(&after_a_death, usize::MAX, first), [claim("2")]);
}

#[test]
fn what_was_given_up_for_another_is_left_to_it() {
    let four = partitions(4);
    let owners = [Some("me"), Some("third"), Some("third"), None];
    let to_other = seen(&four, &owners, &[], &[("3", "other")]);
    assert_eq!(moves(&to_other, usize::MAX, first), []);
    let to_me = seen(&four, &owners, &[], &[("3", "me")]);
    assert_eq!(moves(&to_me, usize::MAX, first), [Move::Claim("3".into())]);
    // Somebody has gone meanwhile, and others have come: who has it then is for them to say.
    let too_many = seen(&four, &[Some("me"), Some("me"), Some("third"), None], &[], &[("3", "me")]);
    assert_eq!(moves(&too_many, usize::MAX, first), [Move::Claim("3".into())]);
}

#[test]
fn nobody_takes_what_would_be_taken_back() {
    let three = partitions(3);
    let taken = seen(&three, &[Some("me"), Some("other"), Some("other")], &[], &[]);
    assert_eq!(moves(&taken, usize::MAX, first), []);
    let two = partitions(2);
    let one_each = seen(&two, &[Some("one"), Some("other")], &[], &[]);
    assert_eq!(moves(&one_each, usize::MAX, first), []);
}

#[test]
fn nothing_is_asked_for_twice() {
    let four = partitions(4);
    let all = [Some("other"); 4];
    assert_eq!(moves(&seen(&four, &all, &[], &[]), usize::MAX, first).len(), 2);
    let asked = [Some("me"), Some("me")];
    assert_eq!(moves(&seen(&four, &all, &asked, &[]), usize::MAX, first), []);
    let by_another = [Some("third")];
    let next = moves(&seen(&four, &all, &by_another, &[]), usize::MAX, first);
    assert_eq!(next, [Move::TakeOver("1".into())]);
}
