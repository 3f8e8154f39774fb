//! Grows the tree of an [`Index`](super::Index): decides which field each way is filed under.

use std::collections::HashMap;

use super::{Node, Slot, Test, Way, switch::Switch};

/// So few ways are judged one by one.
const FEW: usize = 4;
/// Nodes that one way may come into, where its fields list several values each.
const COPIES_MAX: usize = 256;
/// Fields of a way that can be filed under.
const FIELDS_MAX: usize = 64;

pub(super) fn nodes(ways: &[Way]) -> Vec<Node> {
    let mut plant = Plant { fields: Vec::new(), tests: Vec::new(), nodes: Vec::new() };
    let mut numbers = HashMap::new();
    for way in ways {
        let fields = way.fields.iter().take(FIELDS_MAX).map(|(slot, field)| {
            let tests = field.tests.iter().map(|test| {
                // What a test is, is all that its text shows.
                *numbers.entry((*slot, format!("{test:?}"))).or_insert_with(|| {
                    plant.tests.push((*slot, test));
                    plant.tests.len() - 1
                })
            });
            tests.collect()
        });
        let fields = fields.collect();
        plant.fields.push(fields);
    }
    let whole = (0..ways.len()).map(|way| Filed { way, used: 0, copies: COPIES_MAX });
    plant.node(whole.collect());
    plant.nodes
}

struct Plant<'w> {
    /// For each way and field the numbers of its tests.
    fields: Vec<Vec<Vec<usize>>>,
    /// Each test once, and its path.
    tests: Vec<(Slot, &'w Test)>,
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

impl Plant<'_> {
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
                    let tests = &self.fields[filed.way][field];
                    let used = filed.used | 1 << field;
                    let copies = filed.copies / tests.len().max(1);
                    for test in tests {
                        below.entry(*test).or_default().push(Filed { used, copies, ..*filed });
                    }
                }
                _ => few.push(u32::try_from(filed.way).unwrap_or(u32::MAX)),
            }
        }
        let mut below: Vec<_> = below.into_iter().collect();
        below.sort_unstable_by_key(|(test, _)| (self.tests[*test].0, *test));
        let mut node = Node { ways: few, ..Node::default() };
        for (test, ways) in below {
            let (slot, test) = self.tests[test];
            let to = self.node(ways);
            if *test == Test::Exists(false) {
                node.absent.push((slot, to));
                continue;
            }
            if node.switches.last().is_none_or(|(last, _)| *last != slot) {
                node.switches.push((slot, Switch::default()));
            }
            if let Some((_, switch)) = node.switches.last_mut() {
                switch.add(test, to);
            }
        }
        node.switches.iter_mut().for_each(|(_, switch)| switch.finish());
        self.nodes[at] = node;
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// How many of these ways have each test.
    fn shared(&self, ways: &[Filed]) -> HashMap<usize, usize> {
        let mut shared = HashMap::new();
        for filed in ways {
            for (_, tests) in self.open(*filed) {
                tests.iter().for_each(|test| *shared.entry(*test).or_default() += 1);
            }
        }
        shared
    }

    /// Fields that a way has not been filed under yet.
    fn open(&self, filed: Filed) -> impl Iterator<Item = (usize, &Vec<usize>)> {
        let fields = self.fields[filed.way].iter().enumerate();
        fields.filter(move |(field, tests)| {
            filed.used & (1 << field) == 0 && (filed.used == 0 || tests.len() <= filed.copies)
        })
    }

    /// The field of a way that tells it from most others.
    fn best(&self, filed: Filed, of: &[Filed], shared: &HashMap<usize, usize>) -> Option<usize> {
        let cost = |tests: &Vec<usize>| {
            let each = tests.iter().map(|test| {
                let shared = shared.get(test).copied().unwrap_or_default();
                self.tests[*test].1.passes(shared, of.len())
            });
            each.fold(0, usize::saturating_add)
        };
        self.open(filed).min_by_key(|(_, tests)| cost(tests)).map(|(field, _)| field)
    }
}

impl Test {
    /// How many of `all` ways an event will probably bring along that passes this test, which
    /// `shared` of them have. Literals are selective; a bound on one side lets half of all pass.
    fn passes(&self, shared: usize, all: usize) -> usize {
        use super::super::{Range, Text};
        match self {
            Self::Equals(_) | Self::Cidr(_) | Self::Text(Text::Equal(_)) => shared,
            Self::Text(Text::Wildcard(wildcard)) if wildcard.ends().is_none() => all,
            Self::Text(_) => (shared * 4).min(all),
            Self::Numeric(Range { above: Some(_), below: Some(_) }) => shared.max(all / 8),
            Self::Numeric(_) | Self::Exists(true) | Self::Clock(_) => shared.max(all / 2),
            Self::Exists(false) | Self::AnythingBut(_) | Self::AnythingButText(_) => all,
        }
    }
}
