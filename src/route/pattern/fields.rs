//! An event as patterns see it: the values that they name, by path, and which elements of arrays
//! these lie in. One pass over the event; what no pattern names is skipped, not parsed.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The paths that patterns name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    paths: HashSet<Arc<str>>,
    /// What they begin with, up to each of their dots.
    above: HashSet<String>,
}

/// The values of one event.
#[derive(Debug, Clone)]
pub struct Fields<'e> {
    wanted: &'e Wanted,
    by_path: HashMap<Arc<str>, Vec<Leaf<'e>>>,
    arrays: u32,
}

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Leaf<'e> {
    pub(super) value: Scalar<'e>,
    /// The arrays that it lies in, from the outside in, and its place in each.
    pub(super) within: Vec<Element>,
}

/// An element of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    array: u32,
    index: usize,
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

impl Wanted {
    /// Adds a path.
    pub(super) fn insert(&mut self, path: &Arc<str>) {
        if self.paths.insert(path.clone()) {
            let dots = path.match_indices('.').map(|(at, _)| path[..at].to_owned());
            self.above.extend(dots);
        }
    }

    /// Adds the paths of another.
    pub fn add(&mut self, other: &Self) {
        other.paths.iter().for_each(|path| self.insert(path));
    }

    /// Whether a value at `path` or below is named.
    #[must_use]
    pub fn reaches(&self, path: &str) -> bool {
        self.paths.contains(path) || self.above.contains(path)
    }
}

impl<'e> Fields<'e> {
    /// No values yet, and room for those that are wanted.
    #[must_use]
    pub fn new(wanted: &'e Wanted) -> Self {
        Self { wanted, by_path: HashMap::new(), arrays: 0 }
    }

    /// Adds one value.
    pub fn add(&mut self, path: &str, value: Scalar<'e>) {
        self.leaf(path, value, &[]);
    }

    /// Takes out everything at `path` and below.
    pub fn forget(&mut self, path: &str) {
        let below = |of: &str| of.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.by_path.retain(|of, _| **of != *path && !below(of));
    }

    /// Adds the values of a document, which stands at `path`. Names are joined by dots, so that
    /// `{"a.b": 1}` and `{"a": {"b": 1}}` are the same; an array lends its name to its elements.
    ///
    /// # Errors
    /// The document cannot be read; what came before the error has been added.
    pub fn read<D: Deserializer<'e>>(&mut self, path: &str, document: D) -> Result<(), D::Error> {
        let mut path = path.to_owned();
        Walk { fields: self, path: &mut path, within: &mut Vec::new() }.deserialize(document)
    }

    fn leaf(&mut self, path: &str, value: Scalar<'e>, within: &[Element]) {
        let Some(path) = self.wanted.paths.get(path) else { return };
        let leaf = Leaf { value, within: within.to_vec() };
        self.by_path.entry(path.clone()).or_default().push(leaf);
    }

    /// The values at a path.
    pub(super) fn at(&self, path: &str) -> &[Leaf<'e>] {
        self.by_path.get(path).map_or(&[], Vec::as_slice)
    }

    /// Whether there is a value at a path.
    pub(super) fn has(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }
}

/// Whether an array holds the two in different elements.
pub(super) fn lie_apart(one: &[Element], other: &[Element]) -> bool {
    let apart = |one: &Element| {
        other.iter().any(|other| one.array == other.array && one.index != other.index)
    };
    one.iter().any(apart)
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

/// Puts a name behind a path.
struct Name<'p>(&'p mut String);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        if !self.0.is_empty() {
            self.0.push('.');
        }
        self.0.push_str(name);
        Ok(())
    }
}

/// On its way through a document.
struct Walk<'w, 'e> {
    fields: &'w mut Fields<'e>,
    path: &'w mut String,
    within: &'w mut Vec<Element>,
}

impl<'e> Walk<'_, 'e> {
    fn scalar<E>(self, value: Scalar<'e>) -> Result<(), E> {
        self.fields.leaf(self.path, value, self.within);
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
        let Self { fields, path, within } = self;
        let above = path.len();
        while map.next_key_seed(Name(path))?.is_some() {
            if fields.wanted.reaches(path) {
                map.next_value_seed(Walk { fields, path, within })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            path.truncate(above);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'e>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { fields, path, within } = self;
        let array = fields.arrays;
        fields.arrays += 1;
        for index in 0.. {
            within.push(Element { array, index });
            let next = list.next_element_seed(Walk { fields, path, within })?;
            within.pop();
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }
}
