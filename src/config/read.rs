//! From the tree to the settings' types: a serde deserializer whose errors know where they
//! happened, and a reader that goes on after each of them.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
        SeqAccess, Unexpected, VariantAccess, Visitor,
    },
};

use super::{
    environment::Environment,
    problem::{Problem, Severity, suggestion},
    secret,
    tree::{Entry, Node, Path, Place, Step, Value},
};

/// Reads `tree` as a `T` and reports everything that is wrong with it: what is wrong is struck
/// from the tree and the rest is read again, until it is right or nothing is left. Bounded by the
/// number of nodes.
pub(super) fn read<T: for<'de> Deserialize<'de>>(
    tree: &mut Node,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    loop {
        let error = match T::deserialize(Reader { node: tree, environment }) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path = Path(error.path.iter().rev().cloned().collect());
        let follows = tree.find(&path).is_some_and(|node| match &error.kind {
            // The setting was given, and has been reported already.
            Kind::Missing(name) => {
                node.children().any(|(found, child)| found == Some(*name) && child.struck)
            }
            Kind::Other(_) => node.children().any(|(_, child)| child.struck),
            Kind::Unknown { .. } => false,
        });
        if !follows {
            let place = Some(tree.place_of(&path).clone());
            let text = error.kind.to_string();
            problems.push(Problem { path: path.clone(), place, severity: Severity::Error, text });
        }
        if path.0.is_empty() || !tree.strike(&path) {
            return None;
        }
    }
}

/// What is wrong at one place, as serde reports it.
#[derive(Debug)]
struct ReadError {
    /// From the inside out.
    path: Vec<Step>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Missing(&'static str),
    Unknown { name: String, known: &'static [&'static str] },
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "`{name}` is missing"),
            Self::Unknown { name, known } => {
                let suggestion = suggestion(name, known.iter().copied());
                write!(f, "`{name}` is not known here; {suggestion}")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl ReadError {
    fn below(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// Takes what a reference was resolved to out of the text again.
    fn redacted(mut self, resolved: &str, shown: &str) -> Self {
        let redact = |text: &str| replace_words(text, resolved, shown);
        match &mut self.kind {
            Kind::Unknown { name, .. } => *name = redact(name),
            Kind::Other(text) => *text = redact(text),
            Kind::Missing(_) => {}
        }
        self
    }
}

/// Replaces `old` wherever it stands by itself: a short one is part of many a word.
fn replace_words(text: &str, old: &str, new: &str) -> String {
    let mut result = String::new();
    let mut copied = 0;
    for (start, _) in text.match_indices(old).filter(|_| !old.is_empty()) {
        let end = start + old.len();
        let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
        if is_edge(text[..start].chars().next_back()) && is_edge(text[end..].chars().next()) {
            result.push_str(&text[copied..start]);
            result.push_str(new);
            copied = end;
        }
    }
    result.push_str(&text[copied..]);
    result
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { path: Vec::new(), kind: Kind::Other(text.to_string()) }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        match found {
            Unexpected::UnitVariant => {
                Self::custom("this takes settings of its own; write `name: { ... }`")
            }
            found => Self::custom(format!("expected {expected}, but this is {found}")),
        }
    }

    fn missing_field(name: &'static str) -> Self {
        Self { path: Vec::new(), kind: Kind::Missing(name) }
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self { path: Vec::new(), kind: Kind::Unknown { name: name.to_owned(), known } }
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::unknown_field(name, known)
    }
}

/// A value of the tree on its way into its type.
#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
    environment: &'a Environment,
}

impl<'a> Reader<'a> {
    fn expected(self, what: &str) -> ReadError {
        ReadError::custom(match &self.node.value {
            Value::Nothing => format!("expected {what}, but there is no value"),
            Value::Scalar(_) => format!("expected {what}, but this is `{}`", self.shown()),
            Value::List(_) => format!("expected {what}, but this is a list"),
            Value::Map(_) => format!("expected {what}, but this is a mapping"),
        })
    }

    /// A scalar as it may be shown: what the file says, but not what the environment says.
    fn shown(self) -> Cow<'a, str> {
        match (&self.node.place, &self.node.value) {
            (Place::Variable(name), _) => Cow::Owned(format!("${name}")),
            (Place::File { .. }, Value::Scalar(text)) => Cow::Borrowed(text),
            (Place::File { .. }, _) => Cow::Borrowed(""),
        }
    }

    /// Hands the resolved text of a scalar to `use_it`.
    fn scalar<T>(
        self,
        what: &str,
        use_it: impl FnOnce(&str) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let Value::Scalar(raw) = &self.node.value else { return Err(self.expected(what)) };
        use_it(&self.environment.interpolate(raw).map_err(ReadError::custom)?)
    }

    /// Reads the value that stands at `step`. Whatever its type says against it comes by here,
    /// and what the environment said is taken out of that.
    fn read<'de, T: DeserializeSeed<'de>>(
        self,
        step: Step,
        seed: T,
    ) -> Result<T::Value, ReadError> {
        seed.deserialize(self).map_err(|error| {
            let resolved = match &self.node.value {
                Value::Scalar(raw) => self.environment.interpolate(raw).ok(),
                _ => None,
            };
            let shown = self.shown();
            let error = match resolved.filter(|resolved| *resolved != shown) {
                Some(resolved) => error.redacted(&resolved, &shown),
                None => error,
            };
            error.below(step)
        })
    }

    fn number<T: std::str::FromStr>(self, what: &str) -> Result<T, ReadError> {
        self.scalar(what, |text| text.parse().map_err(|_| self.expected(what)))
    }

    fn live_entries(self) -> Result<impl Iterator<Item = &'a Entry>, ReadError> {
        let entries: &[Entry] = match &self.node.value {
            Value::Map(entries) => entries,
            Value::Nothing => &[],
            _ => return Err(self.expected("a mapping of settings")),
        };
        Ok(entries.iter().filter(|entry| !entry.node.struck))
    }

    fn at(self, node: &'a Node) -> Self {
        Self { node, environment: self.environment }
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            let what = format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX);
            visitor.$visit(self.number::<$type>(&what)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Nothing => visitor.visit_unit(),
            Value::Scalar(_) => self.deserialize_str(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_bool(self.number("`true` or `false`")?)
    }

    whole_numbers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_f64(self.number("a number")?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.scalar("text", |text| visitor.visit_str(text))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// A secret keeps its reference; it is read when it is needed.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Scalar(reference) if name == secret::REFERENCE => {
                visitor.visit_newtype_struct(reference.as_str().into_deserializer())
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { items, next: 0, list: self }),
            _ => Err(self.expected("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_map(Entries { entries: self.live_entries()?, value: None, map: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let one_of = match names.as_slice() {
            [name] => name.clone(),
            names => format!("one of {}", names.join(", ")),
        };
        if let Value::Map(_) = &self.node.value {
            let mut entries = self.live_entries()?;
            let (Some(entry), None) = (entries.next(), entries.next()) else {
                return Err(ReadError::custom(format!("expected exactly {one_of}")));
            };
            let below = |error: ReadError| error.below(Step::Name(entry.name.clone()));
            return visitor.visit_enum(Tagged { entry, map: self }).map_err(below);
        }
        self.scalar(&one_of, |text| visitor.visit_enum(text.into_deserializer()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char string bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
    list: Reader<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        while let Some(item) = self.items.get(self.next) {
            let index = self.next;
            self.next += 1;
            if !item.struck {
                return self.list.at(item).read(Step::Index(index), seed).map(Some);
            }
        }
        Ok(None)
    }
}

struct Entries<'a, I> {
    entries: I,
    value: Option<&'a Entry>,
    map: Reader<'a>,
}

impl<'de, 'a, I: Iterator<Item = &'a Entry>> MapAccess<'de> for Entries<'a, I> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        self.value = self.entries.next();
        let Some(entry) = self.value else { return Ok(None) };
        let name: de::value::StrDeserializer<'_, ReadError> =
            entry.name.as_str().into_deserializer();
        let below = |error: ReadError| error.below(Step::Name(entry.name.clone()));
        seed.deserialize(name).map(Some).map_err(below)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        let Some(entry) = self.value.take() else {
            return Err(ReadError::custom("a value without a name"));
        };
        self.map.at(&entry.node).read(Step::Name(entry.name.clone()), seed)
    }
}

/// The one entry of a mapping that says by its name which variant of an enum it is.
struct Tagged<'a> {
    entry: &'a Entry,
    map: Reader<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Tagged<'a> {
    type Error = ReadError;
    type Variant = Reader<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Reader<'a>), ReadError> {
        let name: de::value::StrDeserializer<'_, ReadError> =
            self.entry.name.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, self.map.at(&self.entry.node)))
    }
}

impl<'de> VariantAccess<'de> for Reader<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.node.value {
            Value::Nothing => Ok(()),
            _ => Err(self.expected("no value")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_map(visitor)
    }
}
