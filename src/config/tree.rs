//! The file as a tree that still knows where everything stands, so that every finding can name a
//! path, a line and a column.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

mod written;

use written::Written;

/// One step from a value into a value it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping, by name.
    Name(String),
    /// Into a list, counted from 0.
    Index(usize),
}

/// The way from the top of the file to a value: `routes[0].to.all[1]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// This path and one name more.
    #[must_use]
    pub fn name(&self, name: impl Into<String>) -> Self {
        self.with(Step::Name(name.into()))
    }

    /// This path and one place in a list more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// This path and the one that goes on from there.
    #[must_use]
    pub fn join(&self, further: &Self) -> Self {
        Self(self.0.iter().chain(&further.0).cloned().collect())
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            match step {
                Step::Name(name) if depth == 0 => write!(f, "{name}")?,
                Step::Name(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file; both count from 1.
    File {
        /// Line.
        line: u64,
        /// Column, in characters.
        column: u64,
    },
    /// By this environment variable.
    Variable(String),
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
    /// A scalar that YAML itself takes for a number or a boolean.
    pub(super) typed: bool,
    /// Taken out because it is wrong; it has been reported and counts as absent.
    pub(super) struck: bool,
    /// Where the characters of a scalar stand.
    pub(super) text: Option<Written>,
}

/// What a value is. Scalars stay text until the setting that takes them says what they are.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Nothing,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One setting of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where the name stands.
    pub(super) place: Place,
    pub(super) node: Node,
}

/// Far more levels than the settings have, few enough for the stack of any thread.
const DEPTH_MAX: usize = 24;

impl Node {
    /// Reads YAML. Anchors and merge keys are resolved, duplicate names refused, and expansion is
    /// bounded by the parser's default budget.
    pub(super) fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        let budget = serde_saphyr::budget! { max_depth: DEPTH_MAX };
        let options = serde_saphyr::options! { with_snippet: false, budget: budget };
        let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options)?;
        Ok(Self::of(raw, text))
    }

    fn of(raw: Spanned<Raw>, text: &str) -> Self {
        let typed = matches!(raw.value, Raw::Typed(_));
        let value = match raw.value {
            Raw::Nothing => Value::Nothing,
            Raw::Text(text) => Value::Scalar(text),
            Raw::Typed(parsed) => Value::Scalar(as_written(&raw.defined, text).unwrap_or(parsed)),
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| Self::of(item, text)).collect())
            }
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(name, value)| Entry {
                        place: place(&name.referenced),
                        name: name.value,
                        node: Self::of(value, text),
                    })
                    .collect(),
            ),
        };
        let text = match &value {
            Value::Scalar(scalar) => Written::find(scalar, &raw.defined, text),
            _ => None,
        };
        Self { place: place(&raw.referenced), value, typed, struck: false, text }
    }

    /// The value at `path`, struck or not.
    pub(super) fn find(&self, path: &Path) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, step| match (&node.value, step) {
            (Value::Map(entries), Step::Name(name)) => {
                entries.iter().find(|entry| entry.name == *name).map(|entry| &entry.node)
            }
            (Value::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    fn find_mut(&mut self, path: &Path) -> Option<&mut Self> {
        path.0.iter().try_fold(self, |node, step| match (&mut node.value, step) {
            (Value::Map(entries), Step::Name(name)) => {
                entries.iter_mut().find(|entry| entry.name == *name).map(|entry| &mut entry.node)
            }
            (Value::List(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        })
    }

    /// Takes the value at `path` out. Whether there was one left to take.
    pub(super) fn strike(&mut self, path: &Path) -> bool {
        self.find_mut(path).is_some_and(|node| !std::mem::replace(&mut node.struck, true))
    }

    /// The values directly below, with their names where they have any.
    pub(super) fn children(&self) -> impl Iterator<Item = (Option<&str>, &Self)> {
        let (entries, items): (&[Entry], &[Self]) = match &self.value {
            Value::Map(entries) => (entries, &[]),
            Value::List(items) => (&[], items),
            Value::Nothing | Value::Scalar(_) => (&[], &[]),
        };
        let named = entries.iter().map(|entry| (Some(entry.name.as_str()), &entry.node));
        named.chain(items.iter().map(|item| (None, item)))
    }

    /// Whether it or anything below has been taken out.
    pub(super) fn is_damaged(&self) -> bool {
        self.struck || self.children().any(|(_, child)| child.is_damaged())
    }

    /// The paths of what a list at `path` still holds; of the value itself where it is no list.
    pub(super) fn items(&self, path: &Path) -> Vec<Path> {
        match self.find(path).map(|node| &node.value) {
            Some(Value::List(items)) => {
                let live = items.iter().enumerate().filter(|(_, item)| !item.struck);
                live.map(|(index, _)| path.index(index)).collect()
            }
            _ => vec![path.clone()],
        }
    }

    /// The names of what a mapping at `path` holds, struck or not.
    pub(super) fn names(&self, path: &Path) -> Vec<&str> {
        self.find(path)
            .map_or_else(Vec::new, |node| node.children().filter_map(|(name, _)| name).collect())
    }

    /// Where a finding about `path` points: at the name of a setting; for a setting that is not
    /// given, at the nearest thing around it.
    pub(super) fn place_of(&self, path: &Path) -> &Place {
        let mut node = self;
        let mut place = &self.place;
        for step in &path.0 {
            let next = match (&node.value, step) {
                (Value::Map(entries), Step::Name(name)) => {
                    let found = entries.iter().find(|entry| entry.name == *name);
                    found.map(|entry| (&entry.place, &entry.node))
                }
                (Value::List(items), Step::Index(index)) => {
                    items.get(*index).map(|item| (&item.place, item))
                }
                _ => None,
            };
            let Some(next) = next else { break };
            (place, node) = next;
            if matches!(node.place, Place::Variable(_)) {
                place = &node.place;
            }
        }
        place
    }

    /// Where a line and a column of the text at `path` are in the file, all from 1. Off by the
    /// difference in length behind a `${VARIABLE}` in the same line.
    pub(super) fn place_within(&self, path: &Path, line: usize, column: usize) -> Option<Place> {
        let written = self.find(path)?.text.as_ref()?;
        let (line, column) = (u64::try_from(line).ok()?, u64::try_from(column).ok()?);
        let (line, column) = written.place(line, column)?;
        Some(Place::File { line, column })
    }
}

fn place(location: &serde_saphyr::Location) -> Place {
    Place::File { line: location.line(), column: location.column() }
}

/// A plain scalar exactly as it was written: `007` is a name before it is the number 7.
fn as_written(location: &serde_saphyr::Location, text: &str) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    text.get(start..start.checked_add(length)?).map(|text| text.trim().to_owned())
}

/// What the parser hands over, before the text of plain scalars is looked up.
enum Raw {
    Nothing,
    Text(String),
    /// A plain scalar that YAML takes for a number or a boolean, as the parser prints it.
    Typed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
