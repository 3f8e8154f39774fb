//! Grows the tree of an [`Index`](super::Index): decides which field each way is filed under.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::{
    Field, Node, Slot, Way,
    switch::{Key, Switch},
};
use crate::route::pattern::{Range, Test, Text, wildcard::Wildcard};

/// So few ways are judged one by one.
const FEW: usize = 4;
/// Nodes that one way may come into, where its fields list several values each.
const COPIES_MAX: usize = 256;
/// Fields of a way that can be filed under.
const FIELDS_MAX: usize = 64;

pub(super) fn nodes(ways: &[Way]) -> Vec<Node> {
    let (mut keys, mut numbers) = (Vec::new(), HashMap::new());
    let pieces = pieces(ways);
    let mut number = |slot: Slot, test: &Test| {
        let key = match test {
            Test::Text(Text::Wildcard(wildcard)) => rarest(slot, wildcard, &pieces),
            _ => None,
        };
        let key = key.map_or_else(|| Key::Test(test.clone()), Key::Part);
        // What a key is, is all that its text shows.
        *numbers.entry((slot, format!("{key:?}"))).or_insert_with(|| {
            keys.push((slot, key));
            keys.len() - 1
        })
    };
    let mut fields = Vec::new();
    for way in ways {
        let of_field = |(slot, field): &(Slot, Arc<Field>)| {
            let mut keys: Vec<_> = field.tests.iter().map(|test| number(*slot, test)).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        fields.push(way.fields.iter().take(FIELDS_MAX).map(of_field).collect());
    }
    let whole = (0..ways.len()).map(|way| Filed { way, used: 0, copies: COPIES_MAX });
    let mut plant = Plant { fields, keys, nodes: Vec::new() };
    plant.node(whole.collect());
    plant.nodes
}

/// In how many wildcards of a path each piece of text is.
type Pieces<'w> = HashMap<(Slot, &'w Arc<str>), usize>;

fn pieces(ways: &[Way]) -> Pieces<'_> {
    let mut pieces = HashMap::new();
    for (slot, field) in ways.iter().flat_map(|way| &way.fields) {
        for test in &field.tests {
            if let Test::Text(Text::Wildcard(wildcard)) = test {
                let counted = wildcard.pieces().map(|piece| (*slot, piece));
                counted.for_each(|piece| *pieces.entry(piece).or_default() += 1);
            }
        }
    }
    pieces
}

/// The piece of a wildcard that fewest others have.
fn rarest(slot: Slot, wildcard: &Wildcard, pieces: &Pieces<'_>) -> Option<Arc<str>> {
    let count = |piece: &&Arc<str>| {
        (pieces.get(&(slot, *piece)).copied().unwrap_or_default(), Reverse(piece.len()))
    };
    wildcard.pieces().min_by_key(count).cloned()
}

struct Plant {
    /// For each way and field the numbers of its keys.
    fields: Vec<Vec<Vec<usize>>>,
    /// Each key once, and its path.
    keys: Vec<(Slot, Key)>,
    nodes: Vec<Node>,
}

/// A way on its way down.
#[derive(Clone, Copy)]
struct Filed {
    way: usize,
    /// Fields that it has been filed under, one bit each.
    used: u64,
    /// How many copies of it may be made yet.
    copies: usize,
}

impl Plant {
    /// Grows a node for these ways and all below it; as deep as a way has fields.
    fn node(&mut self, ways: Vec<Filed>) -> u32 {
        let at = self.nodes.len();
        self.nodes.push(Node::default());
        let mut below: HashMap<usize, Vec<Filed>> = HashMap::new();
        let mut few = Vec::new();
        let shared = self.shared(&ways);
        for filed in &ways {
            match self.best(*filed, &ways, &shared) {
                Some(field) if ways.len() > FEW => {
                    let keys = &self.fields[filed.way][field];
                    let used = filed.used | 1 << field;
                    let copies = filed.copies / keys.len().max(1);
                    for key in keys {
                        below.entry(*key).or_default().push(Filed { used, copies, ..*filed });
                    }
                }
                _ => few.push(u32::try_from(filed.way).unwrap_or(u32::MAX)),
            }
        }
        let mut below: Vec<_> = below.into_iter().collect();
        below.sort_unstable_by_key(|(key, _)| (self.keys[*key].0, *key));
        let mut node = Node { ways: few, ..Node::default() };
        for (key, ways) in below {
            let to = self.node(ways);
            let (slot, key) = (self.keys[key].0, &self.keys[key].1);
            if matches!(key, Key::Test(Test::Exists(false))) {
                node.absent.push((slot, to));
                continue;
            }
            if node.switches.last().is_none_or(|(last, _)| *last != slot) {
                node.switches.push((slot, Switch::default()));
            }
            if let Some((_, switch)) = node.switches.last_mut() {
                switch.add(key, to);
            }
        }
        node.switches.iter_mut().for_each(|(_, switch)| switch.finish());
        self.nodes[at] = node;
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// How many of these ways have each key.
    fn shared(&self, ways: &[Filed]) -> HashMap<usize, usize> {
        let mut shared = HashMap::new();
        for filed in ways {
            for (_, keys) in self.open(*filed) {
                keys.iter().for_each(|key| *shared.entry(*key).or_default() += 1);
            }
        }
        shared
    }

    /// Fields that a way has not been filed under yet.
    fn open(&self, filed: Filed) -> impl Iterator<Item = (usize, &Vec<usize>)> {
        let fields = self.fields[filed.way].iter().enumerate();
        fields.filter(move |(field, keys)| {
            filed.used & (1 << field) == 0 && (filed.used == 0 || keys.len() <= filed.copies)
        })
    }

    /// The field of a way that tells it from most others.
    fn best(&self, filed: Filed, of: &[Filed], shared: &HashMap<usize, usize>) -> Option<usize> {
        let cost = |keys: &Vec<usize>| {
            let each = keys.iter().map(|key| {
                let shared = shared.get(key).copied().unwrap_or_default();
                self.keys[*key].1.passes(shared, of.len())
            });
            each.fold(0, usize::saturating_add)
        };
        self.open(filed).min_by_key(|(_, keys)| cost(keys)).map(|(field, _)| field)
    }
}

impl Key {
    /// How many of `all` ways an event will probably bring along that passes this, which `shared`
    /// of them have. Literals are selective; a bound on one side lets half of all pass.
    fn passes(&self, shared: usize, all: usize) -> usize {
        let test = match self {
            Self::Part(_) => return (shared * 4).min(all),
            Self::Test(test) => test,
        };
        match test {
            Test::Equals(_) | Test::Cidr(_) | Test::Text(Text::Equal(_)) => shared,
            Test::Text(Text::Wildcard(_)) => all,
            Test::Text(_) => (shared * 4).min(all),
            Test::Numeric(Range { above: Some(_), below: Some(_) }) => shared.max(all / 8),
            Test::Numeric(_) | Test::Exists(true) | Test::Clock(_) => shared.max(all / 2),
            Test::Exists(false) | Test::AnythingBut(_) | Test::AnythingButText(_) => all,
        }
    }
}
