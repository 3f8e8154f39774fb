//! Many pieces of text, and which of them another text has anywhere in it.

use crate::route::pattern::wanted::QuickMap;

/// The pieces as a tree of bytes, in which each step of a text is looked up.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The nodes after one byte; 0 where nothing begins with it. Empty without pieces.
    first: Vec<u32>,
    /// From a node and a byte to the next node.
    next: QuickMap<(u32, u8), u32>,
    /// Where a piece that ends at a node leads, by the number of the node less one.
    ends: Vec<Option<u32>>,
}

impl Parts {
    /// A piece that is not empty and that no other is equal to.
    pub(super) fn add(&mut self, piece: &str, to: u32) {
        self.first.resize(256, 0);
        let ends = &mut self.ends;
        let mut new = || {
            ends.push(None);
            u32::try_from(ends.len()).unwrap_or(u32::MAX)
        };
        let mut node = 0;
        for byte in piece.bytes() {
            let next = match node {
                0 => &mut self.first[usize::from(byte)],
                node => self.next.entry((node, byte)).or_default(),
            };
            if *next == 0 {
                *next = new();
            }
            node = *next;
        }
        if let Some(end) = (node as usize).checked_sub(1).and_then(|at| self.ends.get_mut(at)) {
            *end = Some(to);
        }
    }

    /// Those that are in `text`; one that is in it twice, twice.
    pub(super) fn find(&self, text: &str, to: &mut dyn FnMut(u32)) {
        if self.first.is_empty() {
            return;
        }
        for from in 0..text.len() {
            let mut bytes = text.as_bytes()[from..].iter();
            let first = bytes.next().map_or(0, |byte| self.first[usize::from(*byte)]);
            let mut next = (first != 0).then_some(first);
            while let Some(node) = next {
                self.ends[node as usize - 1].into_iter().for_each(&mut *to);
                next = bytes.next().and_then(|byte| self.next.get(&(node, *byte)).copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_that_are_in_a_text_are_found(
            pieces in prop::collection::btree_set("[abü]{1,4}", 0..20),
            text in "[abü]{0,8}",
        ) {
            let mut all = Parts::default();
            pieces.iter().zip(0..).for_each(|(piece, at)| all.add(piece, at));
            let mut found = BTreeSet::new();
            all.find(&text, &mut |at| _ = found.insert(at));
            let within = pieces.iter().zip(0..).filter(|(piece, _)| text.contains(piece.as_str()));
            prop_assert_eq!(found, within.map(|(_, at)| at).collect::<BTreeSet<u32>>());
        }
    }
}
