//! An event as patterns see it: the values that they name, and which elements of arrays these lie
//! in. One pass over the event; what no pattern names is skipped, not parsed.

use std::{borrow::Cow, fmt, iter::successors};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use time::OffsetDateTime;

pub use super::wanted::{Spot, Wanted};

use super::{together, wanted::Slot};

/// The values of one event.
#[derive(Debug, Clone)]
pub struct Fields<'e> {
    wanted: &'e Wanted,
    now: OffsetDateTime,
    /// For each path the newest of its leaves, counted from 1; 0 where there is none.
    newest: Vec<u32>,
    leaves: Vec<Leaf<'e>>,
    /// Elements of arrays in which something is wanted.
    elements: Vec<Element>,
    arrays: u32,
}

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Leaf<'e> {
    pub(super) value: Scalar<'e>,
    /// The innermost element of an array that it lies in, if any.
    pub(super) within: Within,
    pub(super) slot: Slot,
    /// The next older leaf at this path, counted as in [`Fields::newest`].
    older: u32,
}

/// An element of an array, counted from 1; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Within(u32);

#[derive(Debug, Clone, Copy)]
struct Element {
    array: u32,
    /// The element that its array lies in.
    above: Within,
}

/// A value that is neither an object nor an array.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar<'e> {
    /// JSON null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(Cow<'e, str>),
    /// Bytes: there, and like no other value.
    Bytes,
}

impl<'e> Fields<'e> {
    /// No values yet, and room for those that are wanted. `now` is what ages are counted to.
    #[must_use]
    pub fn new(wanted: &'e Wanted, now: OffsetDateTime) -> Self {
        let newest = vec![0; wanted.slots()];
        Self { wanted, now, newest, leaves: Vec::new(), elements: Vec::new(), arrays: 0 }
    }

    /// Adds one value.
    pub fn add(&mut self, spot: Spot, value: Scalar<'e>) {
        self.leaf(spot, value, Within::NONE);
    }

    /// Adds the values of a document, which stands at `spot`. Names are joined by dots, so that
    /// `{"a.b": 1}` and `{"a": {"b": 1}}` are the same; an array lends its name to its elements.
    ///
    /// # Errors
    /// The document cannot be read; what came before the error has been added.
    pub fn read<D: Deserializer<'e>>(&mut self, spot: Spot, document: D) -> Result<(), D::Error> {
        let within = Within::NONE;
        Walk { fields: self, spot, within, around: within }.deserialize(document)
    }

    /// The same for a document as text. `false`, and nothing added, where that is no JSON.
    #[must_use]
    pub fn read_json(&mut self, spot: Spot, text: &'e [u8]) -> bool {
        let before = self.leaves.len();
        let read = std::str::from_utf8(text).ok().and_then(|text| {
            let mut document = serde_json::Deserializer::from_str(text);
            self.read(spot, &mut document).and_then(|()| document.end()).ok()
        });
        if read.is_none() {
            // From the newest on, so that each leaves its list as it found it.
            for leaf in self.leaves.drain(before..).rev() {
                self.newest[leaf.slot.0 as usize] = leaf.older;
            }
        }
        read.is_some()
    }

    fn leaf(&mut self, spot: Spot, value: Scalar<'e>, within: Within) {
        let Some(slot) = self.wanted.slot(spot) else { return };
        let newest = &mut self.newest[slot.0 as usize];
        if self.leaves.is_empty() {
            self.leaves.reserve(LEAVES_USUAL);
        }
        self.leaves.push(Leaf { value, within, slot, older: *newest });
        *newest = u32::try_from(self.leaves.len()).unwrap_or(u32::MAX);
    }

    pub(super) fn now(&self) -> OffsetDateTime {
        self.now
    }

    /// What of the event is here, at most.
    pub(super) fn wanted(&self) -> &'e Wanted {
        self.wanted
    }

    /// The number of a path, if it is wanted.
    pub(super) fn slot(&self, path: &str) -> Option<Slot> {
        self.wanted.slot(self.wanted.at(path)?)
    }

    /// The values at a path, the last of the event first.
    pub(super) fn at(&self, slot: Slot) -> impl Iterator<Item = &Leaf<'e>> {
        let leaf = |count: u32| self.leaves.get((count as usize).wrapping_sub(1));
        let newest = self.newest.get(slot.0 as usize).copied().unwrap_or(0);
        successors(leaf(newest), move |newer| leaf(newer.older))
    }

    /// Whether there is a value at a path.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.newest.get(slot.0 as usize).is_some_and(|newest| *newest != 0)
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// The paths that have values, each once.
    pub(super) fn present(&self) -> impl Iterator<Item = Slot> {
        let newest = |slot: Slot| self.newest[slot.0 as usize] as usize;
        let leaves = self.leaves.iter().enumerate();
        leaves.filter(move |(at, leaf)| newest(leaf.slot) == at + 1).map(|(_, leaf)| leaf.slot)
    }

    /// Whether one place can be chosen from each list so that no array holds two of them in
    /// different elements.
    pub(super) fn together(&self, places: &[Vec<Within>]) -> bool {
        let chain = |place: &Within| {
            let mut chain: Vec<_> = successors(self.step(*place), |step| self.step(step.1))
                .map(|(step, _)| step)
                .collect();
            chain.reverse();
            chain
        };
        let chains = |places: &Vec<Within>| places.iter().map(chain).collect();
        together::together(&mut places.iter().map(chains).collect::<Vec<_>>())
    }

    fn step(&self, Within(count): Within) -> Option<(together::Step, Within)> {
        let element = self.elements.get((count as usize).wrapping_sub(1))?;
        Some((together::Step { array: element.array, element: count }, element.above))
    }
}

/// Room for so many values is made at once.
const LEAVES_USUAL: usize = 16;

impl Within {
    /// In no array.
    pub(super) const NONE: Self = Self(0);
}

impl Scalar<'_> {
    /// The text, of text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, of a number.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

/// Reads a name, to where it leads if anything is wanted there.
struct Name<'w> {
    wanted: &'w Wanted,
    above: Spot,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<Spot>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<Spot>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.wanted.below(self.above, name))
    }
}

/// On its way through a document.
struct Walk<'w, 'e> {
    fields: &'w mut Fields<'e>,
    spot: Spot,
    /// The element that this is, or lies in.
    within: Within,
    /// The same for a plain value: as an element of an array it goes with all the others, and lies
    /// where the array does.
    around: Within,
}

impl<'e> Walk<'_, 'e> {
    fn scalar<E>(self, value: Scalar<'e>) -> Result<(), E> {
        self.fields.leaf(self.spot, value, self.around);
        Ok(())
    }
}

impl<'e> DeserializeSeed<'e> for Walk<'_, 'e> {
    type Value = ();

    fn deserialize<D: Deserializer<'e>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'e> Visitor<'e> for Walk<'_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(Scalar::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(Scalar::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(Scalar::Number(value))
    }

    fn visit_borrowed_str<E>(self, text: &'e str) -> Result<(), E> {
        self.scalar(Scalar::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(text.to_owned().into()))
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { fields, spot: above, within, .. } = self;
        while let Some(spot) = map.next_key_seed(Name { wanted: fields.wanted, above })? {
            match spot {
                Some(spot) => map.next_value_seed(Walk { fields, spot, within, around: within })?,
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'e>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { fields, spot, within: above, .. } = self;
        let array = fields.arrays;
        fields.arrays += 1;
        loop {
            fields.elements.push(Element { array, above });
            let within = Within(u32::try_from(fields.elements.len()).unwrap_or(u32::MAX));
            if list.next_element_seed(Walk { fields, spot, within, around: above })?.is_none() {
                // There was no such element.
                fields.elements.pop();
                return Ok(());
            }
        }
    }
}
