//! Many prefixes, or suffixes, and which of them a text has.

use std::cmp::Ordering;

/// Where of a text they are.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Front,
    Back,
}

/// All at one end of the text. Sorted, suffixes from their back.
#[derive(Debug, Default)]
pub(super) struct Affixes(Vec<Affix>);

#[derive(Debug)]
struct Affix {
    /// Of a suffix the last byte is first.
    bytes: Box<[u8]>,
    to: u32,
    /// The longest other one that this begins with.
    shorter: Option<usize>,
}

impl Affixes {
    pub(super) fn add(&mut self, end: End, text: &str, to: u32) {
        let mut bytes: Box<[u8]> = text.as_bytes().into();
        if let End::Back = end {
            bytes.reverse();
        }
        self.0.push(Affix { bytes, to, shorter: None });
    }

    pub(super) fn finish(&mut self) {
        self.0.sort_unstable_by(|one, other| one.bytes.cmp(&other.bytes));
        let mut begun: Vec<usize> = Vec::new();
        for at in 0..self.0.len() {
            while let Some(last) = begun.last()
                && !self.0[at].bytes.starts_with(&self.0[*last].bytes)
            {
                begun.pop();
            }
            self.0[at].shorter = begun.last().copied();
            begun.push(at);
        }
    }

    /// Those that `text` has. What it begins with stands before it in order, and so does only what
    /// these begin with, too: all of them are the last one before it and what that begins with.
    pub(super) fn find(&self, end: End, text: &str, to: &mut dyn FnMut(u32)) {
        let text = text.as_bytes();
        let compare = |affix: &Affix| match end {
            End::Front => (*affix.bytes).cmp(text),
            End::Back => affix.bytes.iter().cmp(text.iter().rev()),
        };
        let has = |affix: &Affix| match end {
            End::Front => text.starts_with(&affix.bytes),
            End::Back => {
                affix.bytes.len() <= text.len()
                    && affix.bytes.iter().eq(text.iter().rev().take(affix.bytes.len()))
            }
        };
        let after = self.0.partition_point(|affix| compare(affix) != Ordering::Greater);
        let mut next = after.checked_sub(1);
        while let Some(affix) = next.and_then(|at| self.0.get(at)) {
            if has(affix) {
                to(affix.to);
            }
            next = affix.shorter;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(end: End, affixes: &[String], text: &str) -> Vec<u32> {
        let mut all = Affixes::default();
        affixes.iter().zip(0..).for_each(|(affix, at)| all.add(end, affix, at));
        all.finish();
        let mut found = Vec::new();
        all.find(end, text, &mut |at| found.push(at));
        found.sort_unstable();
        found
    }

    proptest! {
        #[test]
        fn all_that_a_text_has_are_found(
            affixes in prop::collection::vec("[abü]{0,4}", 0..20),
            text in "[abü]{0,6}",
        ) {
            let having = |has: &dyn Fn(&String) -> bool| -> Vec<u32> {
                affixes.iter().zip(0..).filter(|(a, _)| has(a)).map(|(_, at)| at).collect()
            };
            let front = having(&|affix| text.starts_with(affix.as_str()));
            prop_assert_eq!(found(End::Front, &affixes, &text), front);
            let back = having(&|affix| text.ends_with(affix.as_str()));
            prop_assert_eq!(found(End::Back, &affixes, &text), back);
        }
    }
}
