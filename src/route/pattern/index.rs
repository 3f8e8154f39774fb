//! Many patterns at once: which of them an event matches, at a cost that hardly grows with their
//! number.
//!
//! Each way to match is filed under one of its fields, the one whose tests fewest others share; of
//! the ways that are still together then, each is filed under a further field, and so on. An event
//! leads through this tree to a few ways, and these are judged as a pattern itself judges.

use std::{ptr, sync::Arc};

use smallvec::SmallVec;

use super::{
    Field, Pattern,
    fields::{Fields, Wanted},
    holds,
    wanted::Slot,
};
use switch::Switch;

mod affixes;
mod networks;
mod parts;
mod plant;
mod ranges;
mod switch;

/// Patterns, by number from 0.
#[derive(Debug)]
pub struct Index {
    wanted: Wanted,
    ways: Vec<Way>,
    /// The first is where every event begins.
    nodes: Vec<Node>,
}

/// Numbers of patterns. Few match, as a rule.
pub type Matching = SmallVec<[usize; 8]>;

/// One way to match a pattern.
#[derive(Debug)]
struct Way {
    pattern: usize,
    fields: Vec<(Slot, Arc<Field>)>,
}

/// Ways that match alike as far as has been looked.
#[derive(Debug, Default)]
struct Node {
    /// Those that are so few that each is judged.
    ways: Vec<u32>,
    /// By path: where the values of an event lead. Each node is led to from one place only.
    switches: Vec<(Slot, Switch)>,
    /// Where an event leads that has no value at a path.
    absent: Vec<(Slot, u32)>,
}

impl Index {
    /// Of patterns, in this order. `None` stands for one that every event matches.
    pub fn new<'p>(patterns: impl IntoIterator<Item = Option<&'p Pattern>>) -> Self {
        let (mut wanted, mut ways) = (Wanted::default(), Vec::new());
        for (number, pattern) in patterns.into_iter().enumerate() {
            let Some(Pattern { ways: of_pattern }) = pattern else {
                ways.push(Way { pattern: number, fields: Vec::new() });
                continue;
            };
            for way in of_pattern {
                let slotted = |field: &Arc<Field>| (wanted.insert(&field.path), field.clone());
                ways.push(Way { pattern: number, fields: way.iter().map(slotted).collect() });
            }
        }
        let nodes = plant::nodes(&ways);
        Self { wanted, ways, nodes }
    }

    /// What [`Fields`] must be made of, to be judged here.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The same, for paths that others look at in the same [`Fields`].
    pub fn wanted_mut(&mut self) -> &mut Wanted {
        &mut self.wanted
    }

    /// The numbers of the patterns that match, ascending.
    #[must_use]
    pub fn matches(&self, fields: &Fields<'_>) -> Matching {
        let mut matching = Matching::new();
        if ptr::eq(fields.wanted(), &raw const self.wanted) {
            self.candidates(fields, &mut matching);
            matching.sort_unstable();
            matching.dedup();
        } else {
            // Paths have other numbers there. Slow, and right.
            matching.extend(0..self.ways.len());
        }
        matching.retain(|way| {
            let way_of = &self.ways[*way];
            *way = way_of.pattern;
            way_of.holds(fields, &self.wanted)
        });
        matching.dedup();
        matching
    }

    /// Every way that can match, and others; some of them twice.
    fn candidates(&self, fields: &Fields<'_>, ways: &mut Matching) {
        let (mut open, mut next) = (Vec::new(), Some(0_u32));
        while let Some(node) = next {
            let node = &self.nodes[node as usize];
            ways.extend(node.ways.iter().map(|way| *way as usize));
            let absent = node.absent.iter().filter(|(slot, _)| !fields.has(*slot));
            open.extend(absent.map(|(_, to)| to));
            if node.switches.len() <= fields.len() {
                for (slot, switch) in &node.switches {
                    switch.follow(*slot, fields, &mut open);
                }
            } else {
                for slot in fields.present() {
                    if let Ok(at) = node.switches.binary_search_by_key(&slot, |(slot, _)| *slot) {
                        node.switches[at].1.follow(slot, fields, &mut open);
                    }
                }
            }
            next = open.pop();
        }
    }
}

impl Way {
    fn holds(&self, fields: &Fields<'_>, wanted: &Wanted) -> bool {
        let same = ptr::eq(fields.wanted(), wanted);
        let slotted = self.fields.iter().map(|(slot, field)| {
            let slot = if same { Some(*slot) } else { fields.slot(&field.path) };
            (slot, &**field)
        });
        holds(slotted, fields)
    }
}
