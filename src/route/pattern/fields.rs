//! An event as patterns see it: the values that they name, and which elements of arrays these lie
//! in. One pass over the event; what no pattern names is skipped, not parsed.

use std::{borrow::Cow, iter::successors};

use smallvec::{SmallVec, smallvec};
use time::OffsetDateTime;

pub use super::wanted::{Spot, Wanted};

use super::{
    scan::{DEPTH_MAX, NoJson, Scan},
    together,
    wanted::Slot,
};

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place {
    spot: Spot,
    /// The element that this is, or lies in.
    within: Within,
    /// The same for a plain value: as an element of an array it goes with all the others, and lies
    /// where the array does.
    around: Within,
}

/// The values of one event.
#[derive(Debug, Clone)]
pub struct Fields<'e> {
    wanted: &'e Wanted,
    now: OffsetDateTime,
    /// For each path the newest of its leaves, counted from 1; 0 where there is none.
    newest: SmallVec<[u32; 8]>,
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
        let newest = smallvec![0; wanted.slots()];
        Self { wanted, now, newest, leaves: Vec::new(), elements: Vec::new(), arrays: 0 }
    }

    /// Adds one value.
    pub fn add(&mut self, spot: Spot, value: Scalar<'e>) {
        self.leaf(spot, value, Within::NONE);
    }

    /// Adds the values of a JSON text, which stands at `spot`. Names are joined by dots, so that
    /// `{"a.b": 1}` and `{"a": {"b": 1}}` are the same; an array lends its name to its elements.
    /// `false`, and nothing added, where the text is no JSON.
    #[must_use]
    pub fn read_json(&mut self, spot: Spot, text: &'e [u8]) -> bool {
        let before = self.leaves.len();
        let read = std::str::from_utf8(text).map_err(|_| NoJson).and_then(|text| {
            let text = Scan::new(text);
            let within = Within::NONE;
            let at = self.walk(text, 0, Place { spot, within, around: within }, DEPTH_MAX)?;
            text.end(at)
        });
        if read.is_err() {
            // From the newest on, so that each leaves its list as it found it.
            for leaf in self.leaves.drain(before..).rev() {
                self.newest[leaf.slot.0 as usize] = leaf.older;
            }
        }
        read.is_ok()
    }

    /// Adds what is wanted of the value that is next and passes over the rest of it; at most
    /// `depth` deep. Returns the place behind it.
    fn walk(
        &mut self,
        text: Scan<'e>,
        at: usize,
        Place { spot, within, around }: Place,
        depth: usize,
    ) -> Result<usize, NoJson> {
        let (byte, at) = text.next(at)?;
        let (value, at) = match byte {
            b'{' if depth > 0 => {
                let mut entry = text.enter(at, b'}')?;
                while let Ok(at) = entry {
                    let (name, at) = text.name(at)?;
                    let below = match name.escaped {
                        false => self.wanted.below(spot, name.text),
                        true => self.wanted.below(spot, &name.unescaped()?),
                    };
                    let at = match below {
                        Some(spot) => {
                            let place = Place { spot, within, around: within };
                            self.walk(text, at, place, depth - 1)?
                        }
                        None => text.skip(at, depth - 1)?,
                    };
                    entry = text.more(at, b'}')?;
                }
                return entry.or_else(Ok);
            }
            b'[' if depth > 0 => {
                let array = self.arrays;
                self.arrays += 1;
                let mut entry = text.enter(at, b']')?;
                while let Ok(at) = entry {
                    self.elements.push(Element { array, above: within });
                    let element = Within(u32::try_from(self.elements.len()).unwrap_or(u32::MAX));
                    let place = Place { spot, within: element, around: within };
                    let at = self.walk(text, at, place, depth - 1)?;
                    entry = text.more(at, b']')?;
                }
                return entry.or_else(Ok);
            }
            b'"' => {
                let (quoted, at) = text.string(at)?;
                let text = match quoted.escaped {
                    false => Cow::Borrowed(quoted.text),
                    true => Cow::Owned(quoted.unescaped()?),
                };
                (Scalar::Text(text), at)
            }
            b't' => (Scalar::Bool(true), text.word(at, "true")?),
            b'f' => (Scalar::Bool(false), text.word(at, "false")?),
            b'n' => (Scalar::Null, text.word(at, "null")?),
            b'-' | b'0'..=b'9' => {
                let (number, at) = text.number(at)?;
                let number: f64 = number.parse().map_err(|_| NoJson)?;
                // No parser takes what is larger than any number.
                if !number.is_finite() {
                    return Err(NoJson);
                }
                (Scalar::Number(number), at)
            }
            _ => return Err(NoJson),
        };
        self.leaf(spot, value, around);
        Ok(at)
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
