//! From the tree to the settings' types: a serde deserializer whose errors know where they
//! happened, and a reader that goes on after each of them.

use std::borrow::Cow;

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
        SeqAccess, VariantAccess, Visitor,
    },
};

mod error;

use error::{Kind, ReadError};

use super::{
    environment::Environment,
    problem::{Problem, Severity, listed},
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

    /// Hands the value to its type. Whatever that says against it comes by here, and what the
    /// environment said is taken out again.
    fn hand_to<'de, T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(self).map_err(|error| {
            let resolved = match &self.node.value {
                Value::Scalar(raw) => self.environment.interpolate(raw).ok(),
                _ => None,
            };
            let shown = self.shown();
            match resolved.filter(|resolved| *resolved != shown) {
                Some(resolved) => error.redacted(&resolved, &shown),
                None => error,
            }
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
            let (least, most) = (<$type>::MIN, <$type>::MAX);
            let what = match (u64::try_from(least), u64::try_from(most)) {
                // No bound that anybody would look for.
                (Ok(0), Ok(u64::MAX)) => "a whole number, 0 or more".to_owned(),
                _ => format!("a whole number from {least} to {most}"),
            };
            visitor.$visit(self.number::<$type>(&what)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Nothing => visitor.visit_unit(),
            Value::Scalar(text) if self.node.typed => visit_typed(text, visitor),
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

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
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
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if let (Value::Scalar(_) | Value::List(_), [first, ..]) = (&self.node.value, fields) {
            // Some write the name of the setting alone.
            let shown = self.shown();
            let meant = fields.iter().find(|field| **field == shown).unwrap_or(first);
            return Err(self.expected(&format!("settings such as `{{ {meant}: … }}`")));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let says = (&visitor as &dyn de::Expected).to_string();
        // What serde says of a type that has no words of its own, by `#[serde(expecting)]`.
        let has_words = !says.starts_with("enum ");
        let one_of = match names.as_slice() {
            _ if has_words => says,
            [name] => name.clone(),
            names => format!("one of {}", names.join(", ")),
        };
        if let Value::Map(_) = &self.node.value {
            let entries: Vec<_> = self.live_entries()?.collect();
            let entry = match entries.as_slice() {
                [entry] => *entry,
                [] => return Err(ReadError::custom(format!("expected {one_of}"))),
                several => {
                    let names: Vec<_> = several.iter().map(|entry| entry.name.as_str()).collect();
                    let names = listed(&names);
                    return Err(ReadError::custom(format!("{names} exclude each other; keep one")));
                }
            };
            let below = |error: ReadError| error.below(Step::Name(entry.name.clone()));
            return visitor.visit_enum(Tagged { entry, map: self }).map_err(below);
        }
        self.scalar(&one_of, |text| match has_words && !known.contains(&text) {
            true => Err(self.expected(&one_of)),
            false => visitor.visit_enum(text.into_deserializer()),
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// A number or boolean for a type that takes anything, such as a JSON document in the file.
fn visit_typed<'de, V: Visitor<'de>>(text: &str, visitor: V) -> Result<V::Value, ReadError> {
    if let Ok(value) = text.parse() {
        visitor.visit_bool(value)
    } else if let Ok(value) = text.parse() {
        visitor.visit_u64(value)
    } else if let Ok(value) = text.parse() {
        visitor.visit_i64(value)
    } else if let Ok(value) = text.parse() {
        visitor.visit_f64(value)
    } else {
        visitor.visit_str(text)
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
                let below = |error: ReadError| error.below(Step::Index(index));
                return self.list.at(item).hand_to(seed).map(Some).map_err(below);
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
        let below = |error: ReadError| error.below(Step::Name(entry.name.clone()));
        self.map.at(&entry.node).hand_to(seed).map_err(below)
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
        self.hand_to(seed)
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

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::config::secret::Secret;

    fn read_as<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Vec<String>> {
        let environment = [("PORT", "8080"), ("WORD", "hunter2")].into_iter().collect();
        let mut problems = Vec::new();
        let mut tree = Node::parse(text).unwrap();
        let value = read(&mut tree, &environment, &mut problems);
        let texts: Vec<_> = problems.iter().map(|p| format!("{}: {}", p.path, p.text)).collect();
        value.filter(|_| texts.is_empty()).ok_or(texts)
    }

    #[test]
    fn a_scalar_is_what_its_setting_takes() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Settings {
            account: String,
            port: u16,
            quoted: u16,
            on: bool,
            absent: Option<u8>,
        }
        let text = "{ account: 012345678901, port: '${PORT}', quoted: '7', on: true }";
        let settings = Settings {
            account: "012345678901".to_owned(),
            port: 8080,
            quoted: 7,
            on: true,
            absent: None,
        };
        assert_eq!(read_as(text), Ok(settings));
    }

    #[test]
    fn a_json_document_keeps_its_numbers_and_its_text() {
        let text = "{ price: [1, -2, 0.5, true, '1', a, ~], deep: { x: [] } }";
        let json = json!({"price": [1, -2, 0.5, true, "1", "a", null], "deep": {"x": []}});
        assert_eq!(read_as::<Json>(text), Ok(json));
    }

    #[test]
    fn a_secret_keeps_its_reference() {
        assert_eq!(read_as("'${WORD}'"), Ok(Secret::Env("WORD".to_owned())));
    }

    #[test]
    fn an_error_does_not_tell_what_a_variable_holds() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Settings {
            #[serde(default)]
            port: Option<u16>,
            #[serde(default)]
            wait: Option<crate::config::units::Span>,
            #[serde(default)]
            kind: Option<crate::config::plan::Unmatched>,
        }
        let text = "{ port: '${WORD}', wait: 'x${WORD}', kind: '${WORD}' }";
        let problems = read_as::<Settings>(text).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems.iter().all(|p| p.contains("${WORD}") && !p.contains("hunter2")));
    }

    #[test]
    fn everything_wrong_is_found_at_once() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            a: u8,
            b: u8,
        }
        let problems = read_as::<Vec<Inner>>("[{ a: x, b: y, c: 1 }, { a: 1 }, { a: 1, b: 300 }]");
        let paths: Vec<_> = problems
            .unwrap_err()
            .iter()
            .map(|problem| problem.split(':').next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(paths, ["[0].a", "[0].b", "[0].c", "[1]", "[2].b"]);
    }
}
