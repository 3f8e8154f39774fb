//! Which partitions a replica should take next, so that all replicas have equal shares.
//!
//! Nobody decides for all: each replica looks at who has what and makes its own next moves, as the
//! Azure SDKs do. Free partitions are taken up to the larger share, `⌈partitions / replicas⌉`; what
//! was given up for somebody who has asked is left to that one. When none is free, partitions are
//! taken from who has most, for as long as that one has two more: then it has no fewer afterwards,
//! and no reason to take them back.

use std::collections::BTreeMap;

/// Who has a partition now, and to whom it will go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder<'a> {
    pub(super) owner: &'a str,
    pub(super) wanted_by: Option<&'a str>,
}

/// What a replica sees.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) me: &'a str,
    /// All partitions of the hub.
    pub(super) partitions: &'a [String],
    /// Those that somebody has who lives. All others are free.
    pub(super) held: BTreeMap<&'a str, Holder<'a>>,
    /// Those that were given up for somebody who has asked, and has yet to take them.
    pub(super) promised: BTreeMap<&'a str, &'a str>,
}

/// A partition to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    /// Nobody has it.
    Claim(String),
    /// Somebody has it, who has more than enough.
    TakeOver(String),
}

/// The next moves, `at_once` at most. `pick` chooses a number below the one it is given: replicas
/// that look at the same time should not all choose the same.
pub(super) fn moves(
    view: &View<'_>,
    at_once: usize,
    mut pick: impl FnMut(usize) -> usize,
) -> Vec<Move> {
    let View { me, partitions, held, promised } = view;
    // By owner; what is wanted or promised counts as gone already.
    let mut shares: BTreeMap<&str, Vec<&str>> = BTreeMap::from([(*me, Vec::new())]);
    let mut free = Vec::new();
    for partition in partitions.iter().map(String::as_str) {
        if let Some(Holder { owner, wanted_by }) = held.get(partition) {
            // Who has it counts, also when it is all that it has.
            shares.entry(owner).or_default();
            shares.entry(wanted_by.unwrap_or(owner)).or_default().push(partition);
        } else if let Some(name) = promised.get(partition) {
            shares.entry(name).or_default().push(partition);
        } else {
            free.push(partition);
        }
    }
    let larger = partitions.len().div_ceil(shares.len());
    let mine = shares.remove(me).unwrap_or_default();
    // Nobody else takes what was given up for us: it is taken even if it is one too many by now.
    let ours = mine.iter().filter(|partition| promised.contains_key(*partition));
    let mut moves: Vec<_> =
        ours.take(at_once).map(|partition| Move::Claim((*partition).to_owned())).collect();
    let mut mine = mine.len();
    while mine < larger && !free.is_empty() && moves.len() < at_once {
        let partition = free.swap_remove(pick(free.len()));
        moves.push(Move::Claim(partition.to_owned()));
        mine += 1;
    }
    if !moves.is_empty() || !free.is_empty() {
        return moves;
    }
    while moves.len() < at_once {
        let is_asked =
            |partition: &str| held.get(partition).is_none_or(|held| held.wanted_by.is_some());
        // What somebody else has asked for is theirs, and not here yet.
        let spare = |share: &Vec<&str>| share.iter().any(|partition| !is_asked(partition));
        let most = shares.values_mut().filter(|share| spare(share)).max_by_key(|share| share.len());
        let Some(most) = most.filter(|share| share.len() >= mine + 2) else { break };
        let mut spare: Vec<usize> = (0..most.len()).filter(|at| !is_asked(most[*at])).collect();
        let at = spare.swap_remove(pick(spare.len()));
        moves.push(Move::TakeOver(most.swap_remove(at).to_owned()));
        mine += 1;
    }
    moves
}

#[cfg(test)]
mod tests;
