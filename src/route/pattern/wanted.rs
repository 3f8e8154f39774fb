//! The paths that patterns name, as a tree of names: a name in an event costs one look-up.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// The paths that patterns name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The first is the top of the event.
    names: Vec<Names>,
    slots: u32,
}

/// What is named directly below one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    below: QuickMap<Box<str>, Spot>,
    /// What these names begin with: one bit for a few bytes each. Most names in an event are sorted
    /// out by it.
    begin: u64,
    /// Where a pattern names this very place.
    slot: Option<Slot>,
}

/// A place in an event, at which or below which something is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot(u32);

/// The number of a path that is wanted, from 0 without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u32);

impl Default for Wanted {
    fn default() -> Self {
        Self { names: vec![Names::default()], slots: 0 }
    }
}

impl Wanted {
    /// The event as a whole.
    pub const TOP: Spot = Spot(0);

    /// Adds a path. Its number and those of others stay what they are.
    pub(super) fn insert(&mut self, path: &str) -> Slot {
        let mut at = Self::TOP;
        for name in path.split('.').filter(|_| !path.is_empty()) {
            let new = Spot(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
            let names = &mut self.names[at.0 as usize];
            names.begin |= name.bytes().next().map_or(u64::MAX, begin);
            at = *names.below.entry(name.into()).or_insert(new);
            if at == new {
                self.names.push(Names::default());
            }
        }
        let slots = &mut self.slots;
        *self.names[at.0 as usize].slot.get_or_insert_with(|| {
            *slots += 1;
            Slot(*slots - 1)
        })
    }

    /// How many paths there are.
    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }

    /// The place at `path`, if something at it or below is wanted.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<Spot> {
        self.below(Self::TOP, path)
    }

    /// The place that `name` leads to. Dots in it part names, too: `a.b` is `b` below `a`.
    #[must_use]
    pub fn below(&self, above: Spot, name: &str) -> Option<Spot> {
        let Some(first) = name.bytes().next() else { return self.below_empty(above) };
        if self.names[above.0 as usize].begin & begin(first) == 0 {
            return None;
        }
        let step = |at: Spot, name: &str| self.names[at.0 as usize].below.get(name).copied();
        match step(above, name) {
            None if name.contains('.') => name.split('.').try_fold(above, step),
            found => found,
        }
    }

    fn below_empty(&self, above: Spot) -> Option<Spot> {
        let named = self.names[above.0 as usize].below.get("").copied();
        named.or((above == Self::TOP).then_some(above))
    }

    /// The number of the path that leads to `spot`, if that itself is wanted.
    pub(super) fn slot(&self, spot: Spot) -> Option<Slot> {
        self.names[spot.0 as usize].slot
    }
}

/// The bit of a name that begins with this byte.
fn begin(byte: u8) -> u64 {
    1 << (byte % 64)
}

pub(super) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

/// Hashes short keys fast. What is put into a table of it comes from the configuration; events are
/// only looked up, so that nobody outside can fill a table with keys that collide.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Quick(u64);

impl Quick {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0xf135_7aea_2e62_a9c5);
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(byte.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.add(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_read_alike_lead_to_one_place() {
        let mut wanted = Wanted::default();
        let slot = wanted.insert("a.b.c");
        assert_eq!(wanted.insert("a.b.c"), slot);
        assert_ne!(wanted.insert("a.b"), slot);
        let at = |path| wanted.at(path).unwrap();
        assert_eq!(wanted.slot(at("a.b.c")), Some(slot));
        assert_eq!(wanted.slot(at("a")), None);
        assert_eq!(wanted.below(at("a"), "b.c"), Some(at("a.b.c")));
        for absent in ["b", "a.c", "a.b.c.d", "a.", ".a"] {
            assert_eq!(wanted.at(absent), None, "{absent}");
        }
    }

    #[test]
    fn empty_names_are_names_except_at_the_top() {
        let mut wanted = Wanted::default();
        let (top, empty) = (wanted.insert(""), wanted.insert("a."));
        assert_eq!(wanted.at("").and_then(|at| wanted.slot(at)), Some(top));
        assert_eq!(wanted.at("a.").and_then(|at| wanted.slot(at)), Some(empty));
        let a = wanted.at("a").unwrap();
        assert_eq!(wanted.below(a, "").and_then(|at| wanted.slot(at)), Some(empty));
    }
}
