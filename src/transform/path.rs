//! Names of what an event has, as the settings of steps write them: `type`, `attributes.tenant`,
//! `data.items[0].price`, `data.cards[*].number`, `data["odd name"]`.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value as Json};

use super::{Draft, Failure};
use crate::{
    config::problem::suggestion,
    decode::parse_time,
    event::{Event, Value},
    metadata::rfc3339,
};

/// A place in an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldPath {
    /// One of the event's own attributes.
    Own(Own),
    /// One of the producer's attributes.
    Attribute(String),
    /// A place in the body.
    Data(Place),
}

/// What every event has, or can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// CloudEvents `id`.
    Id,
    /// CloudEvents `source`.
    Source,
    /// CloudEvents `type`.
    Type,
    /// CloudEvents `subject`.
    Subject,
    /// CloudEvents `time`.
    Time,
    /// CloudEvents `datacontenttype`.
    DataContentType,
    /// What the event is ordered by.
    Key,
}

pub(super) const OWN: [(&str, Own); 7] = [
    ("id", Own::Id),
    ("source", Own::Source),
    ("type", Own::Type),
    ("subject", Own::Subject),
    ("time", Own::Time),
    ("datacontenttype", Own::DataContentType),
    ("key", Own::Key),
];
pub(super) const ATTRIBUTES: &str = "attributes";
pub(super) const DATA: &str = "data";

/// A place in JSON: the whole where it has no parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place(pub Vec<Part>);

/// One step into JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Into an object, by name.
    Name(String),
    /// Into an array, counted from 0.
    Item(usize),
    /// Into every item of an array, or every member of an object.
    Each,
}

impl FieldPath {
    /// What is there, or nothing. JSON null in the body is something. Of several places that
    /// `[*]` opens, the first.
    ///
    /// # Errors
    /// It is in the body, and that is no JSON.
    pub fn get(&self, draft: &mut Draft) -> Result<Option<Json>, Failure> {
        Ok(match self {
            Self::Own(own) => own.get(draft.event()).map(Json::String),
            Self::Attribute(name) => draft.event().attributes.get(name).map(to_json),
            Self::Data(place) => place.get(draft.look()?).cloned(),
        })
    }

    /// Puts a value there. JSON null takes an attribute out. Objects on the way are made where
    /// there are none.
    ///
    /// # Errors
    /// The event can have no such value there.
    pub fn set(&self, draft: &mut Draft, value: Json) -> Result<(), Failure> {
        match self {
            Self::Own(own) => own.set(draft.event_mut(), value),
            Self::Attribute(name) => {
                let attributes = &mut draft.event_mut().attributes;
                match from_json(value) {
                    Some(value) => attributes.set(name.as_str(), value),
                    None => drop(attributes.remove(name)),
                }
                Ok(())
            }
            Self::Data(place) if place.0.is_empty() => {
                draft.set_json(value);
                Ok(())
            }
            Self::Data(place) => {
                if place.set(draft.json()?, value) {
                    return Ok(());
                }
                Err(Failure::new(
                    "transform",
                    format!(
                        "`{self}` cannot be set: what it lies in is no object or array that has it"
                    ),
                ))
            }
        }
    }

    /// Takes out what is there, everywhere that `[*]` opens. The last one of it, or nothing.
    ///
    /// # Errors
    /// It is in the body, and that is no JSON; or every event has to have it.
    pub fn remove(&self, draft: &mut Draft) -> Result<Option<Json>, Failure> {
        match self {
            Self::Own(own) => {
                let old = own.get(draft.event()).map(Json::String);
                own.set(draft.event_mut(), Json::Null)?;
                Ok(old)
            }
            Self::Attribute(name) => {
                Ok(draft.event_mut().attributes.remove(name).as_ref().map(to_json))
            }
            Self::Data(place) if place.0.is_empty() => {
                draft.set_bytes(bytes::Bytes::new());
                Ok(None)
            }
            Self::Data(place) => Ok(place.remove(draft.json()?)),
        }
    }
}

impl FieldPath {
    /// How many steps lie before it, and which item of a list it is.
    pub(super) fn depth(&self) -> (usize, usize) {
        let Self::Data(Place(parts)) = self else { return (0, 0) };
        let item = parts.last().map_or(0, |last| match last {
            Part::Item(item) => *item,
            Part::Name(_) | Part::Each => 0,
        });
        (parts.len(), item)
    }
}

impl Own {
    /// What the event has here.
    #[must_use]
    pub fn get(self, event: &Event) -> Option<String> {
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        match self {
            Self::Id => Some(event.id.to_string()),
            Self::Source => Some(event.source.to_string()),
            Self::Type => text(&event.kind),
            Self::Subject => text(&event.subject),
            Self::Time => event.time.and_then(rfc3339),
            Self::DataContentType => text(&event.content_type),
            Self::Key => text(&event.key),
        }
    }

    /// Gives it to the event; null takes it away.
    ///
    /// # Errors
    /// It cannot be this, or nothing.
    pub fn set(self, event: &mut Event, value: Json) -> Result<(), Failure> {
        let text = match value {
            Json::Null => None,
            Json::String(text) => Some(text),
            Json::Number(number) => Some(number.to_string()),
            Json::Bool(value) => Some(value.to_string()),
            Json::Array(_) | Json::Object(_) => return Err(self.cannot("a list or an object")),
        };
        let shared = |text: Option<String>| text.map(std::sync::Arc::from);
        match self {
            Self::Id | Self::Source => {
                let Some(text) = text.filter(|text| !text.is_empty()) else {
                    return Err(self.cannot("nothing"));
                };
                let place = if self == Self::Id { &mut event.id } else { &mut event.source };
                *place = text.into();
            }
            Self::Type => event.kind = shared(text),
            Self::Subject => event.subject = shared(text),
            Self::DataContentType => event.content_type = shared(text),
            Self::Key => event.key = shared(text),
            Self::Time => {
                let time = text.as_deref().map(parse_time);
                event.time = match time {
                    Some(None) => return Err(self.cannot("what is no RFC 3339 time")),
                    time => time.flatten(),
                };
            }
        }
        Ok(())
    }

    fn cannot(self, what: &str) -> Failure {
        Failure::new("transform", format!("`{}` cannot be {what}", FieldPath::Own(self)))
    }
}

/// An attribute as JSON: what JSON has no type for is text.
#[must_use]
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::String(text) => Json::String(text.to_string()),
        Value::Number(text) => text.parse().map_or(Json::String(text.to_string()), Json::Number),
        Value::Binary(bytes) => Json::String(BASE64.encode(bytes)),
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Long(value) | Value::Timestamp(value) => Json::from(*value),
        Value::ULong(value) => Json::from(*value),
        Value::Double(value) => Json::from(*value),
        Value::Uuid(id) => Json::String(id.to_string()),
        Value::Labelled(_, plain) => to_json(plain),
    }
}

/// JSON as an attribute: lists and objects as text; nothing of null.
#[must_use]
pub fn from_json(value: Json) -> Option<Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => Value::Number(number.to_string().into()),
        Json::String(text) => Value::string(text),
        Json::Array(_) | Json::Object(_) => Value::string(value.to_string()),
    })
}

impl Place {
    /// Whether it can be several places at once.
    #[must_use]
    pub fn is_many(&self) -> bool {
        self.0.contains(&Part::Each)
    }

    /// What is there; the first of several.
    #[must_use]
    pub fn get<'j>(&self, json: &'j Json) -> Option<&'j Json> {
        fn get<'j>(parts: &[Part], json: &'j Json) -> Option<&'j Json> {
            let Some((part, rest)) = parts.split_first() else { return Some(json) };
            match (part, json) {
                (Part::Name(name), Json::Object(map)) => get(rest, map.get(name)?),
                (Part::Item(index), Json::Array(items)) => get(rest, items.get(*index)?),
                (Part::Each, Json::Array(items)) => items.iter().find_map(|item| get(rest, item)),
                (Part::Each, Json::Object(map)) => map.values().find_map(|item| get(rest, item)),
                _ => None,
            }
        }
        get(&self.0, json)
    }

    /// Shows everything that is there to `see`, which may change it.
    pub fn each(&self, json: &mut Json, see: &mut dyn FnMut(&mut Json)) {
        fn each(parts: &[Part], json: &mut Json, see: &mut dyn FnMut(&mut Json)) {
            let Some((part, rest)) = parts.split_first() else { return see(json) };
            let mut on = |json: &mut Json| each(rest, json, see);
            match (part, json) {
                (Part::Name(name), Json::Object(map)) => map.get_mut(name).map_or((), on),
                (Part::Item(index), Json::Array(items)) => items.get_mut(*index).map_or((), on),
                (Part::Each, Json::Array(items)) => items.iter_mut().for_each(on),
                (Part::Each, Json::Object(map)) => map.values_mut().for_each(&mut on),
                _ => {}
            }
        }
        each(&self.0, json, see);
    }

    /// Puts a value there; objects on the way are made where there is nothing. Answers false where
    /// something on the way is there and is not what it would have to be.
    #[must_use]
    pub fn set(&self, json: &mut Json, value: Json) -> bool {
        fn set(parts: &[Part], json: &mut Json, value: Json) -> bool {
            let Some((part, rest)) = parts.split_first() else {
                *json = value;
                return true;
            };
            if json.is_null() && matches!(part, Part::Name(_)) {
                *json = Json::Object(Map::new());
            }
            match (part, json) {
                (Part::Name(name), Json::Object(map)) => {
                    set(rest, map.entry(name).or_insert(Json::Null), value)
                }
                (Part::Item(index), Json::Array(items)) => {
                    items.get_mut(*index).is_some_and(|item| set(rest, item, value))
                }
                (Part::Each, Json::Array(items)) => {
                    items.iter_mut().all(|item| set(rest, item, value.clone()))
                }
                _ => false,
            }
        }
        set(&self.0, json, value)
    }

    /// Takes out everything that is there, and answers with the last of it.
    pub fn remove(&self, json: &mut Json) -> Option<Json> {
        let (last, way) = self.0.split_last()?;
        let mut removed = None;
        Self(way.to_vec()).each(json, &mut |json| {
            let taken = match (last, json) {
                (Part::Name(name), Json::Object(map)) => map.remove(name),
                (Part::Item(index), Json::Array(items)) if *index < items.len() => {
                    Some(items.remove(*index))
                }
                (Part::Each, Json::Array(items)) => items.drain(..).next_back(),
                (Part::Each, Json::Object(map)) => {
                    std::mem::take(map).into_iter().next_back().map(|(_, value)| value)
                }
                _ => None,
            };
            removed = taken.or(removed.take());
        });
        removed
    }
}

impl FromStr for FieldPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let (top, rest) = text.split_at(end);
        let parts = parts(rest).ok_or_else(|| {
            format!("`{text}` is no path; write one like `data.items[0].price`, `data.cards[*]` or `data[\"a name\"]`")
        })?;
        if let Some((_, own)) = OWN.iter().find(|(name, _)| *name == top) {
            return match parts.is_empty() {
                true => Ok(Self::Own(*own)),
                false => Err(format!("there is nothing below `{top}`")),
            };
        }
        match (top, parts.as_slice()) {
            (DATA, _) => Ok(Self::Data(Place(parts))),
            (ATTRIBUTES, [Part::Name(name)]) => Ok(Self::Attribute(name.clone())),
            (ATTRIBUTES, _) => {
                Err("name one of the attributes, as in `attributes.tenant`".to_owned())
            }
            _ => {
                let tops = OWN.iter().map(|(name, _)| *name).chain([ATTRIBUTES, DATA]);
                Err(format!("`{top}` is nothing that an event has; {}", suggestion(top, tops)))
            }
        }
    }
}

/// What follows the first name.
fn parts(mut rest: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (part, behind) = if let Some(name) = rest.strip_prefix('.') {
            let (name, behind) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
            (Part::Name(name.to_owned()), behind)
        } else if let Some(name) = rest.strip_prefix("[\"") {
            let (name, behind) = name.split_once("\"]")?;
            (Part::Name(name.to_owned()), behind)
        } else {
            let (index, behind) = rest.strip_prefix('[')?.split_once(']')?;
            let part = match index {
                "*" => Part::Each,
                index => Part::Item(index.parse().ok()?),
            };
            (part, behind)
        };
        if part == Part::Name(String::new()) {
            return None;
        }
        parts.push(part);
        rest = behind;
    }
    Some(parts)
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(own) => {
                f.write_str(OWN.iter().find(|(_, o)| o == own).map_or("", |(name, _)| name))
            }
            Self::Attribute(name) => {
                write!(f, "{ATTRIBUTES}{}", Place(vec![Part::Name(name.clone())]))
            }
            Self::Data(place) => write!(f, "{DATA}{place}"),
        }
    }
}

/// As it stands behind the name of what it is a place in.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Name(name) if name.contains(['.', '[']) => write!(f, "[\"{name}\"]"),
            Part::Name(name) => write!(f, ".{name}"),
            Part::Item(index) => write!(f, "[{index}]"),
            Part::Each => f.write_str("[*]"),
        })
    }
}

impl Serialize for FieldPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FieldPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for FieldPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FieldPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A place in an event: `type`, `attributes.tenant`, `data.items[0].price`, `data.cards[*].number`.",
            "type": "string"
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> FieldPath {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_reads_as_it_is_written() {
        for text in [
            "type",
            "key",
            "attributes.tenant",
            "data",
            "data.a.b[0][*].c",
            "data[\"a.b\"]",
            "attributes[\"x.y\"]",
        ] {
            assert_eq!(path(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_path_is_told_so() {
        for (text, part) in [
            ("", "nothing that an event has"),
            ("datta.x", "did you mean `data`?"),
            ("type.x", "nothing below `type`"),
            ("attributes", "name one of the attributes"),
            ("attributes.a.b", "name one of the attributes"),
            ("data..x", "is no path"),
            ("data[x]", "is no path"),
            ("data[1", "is no path"),
        ] {
            let error = text.parse::<FieldPath>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_got_set_and_taken_out() {
        let mut json = json!({"a": [{"b": 1}, {"b": 2}, {"c": 3}], "n": null});
        let place = |text: &str| match path(text) {
            FieldPath::Data(place) => place,
            other => panic!("{other}"),
        };
        assert_eq!(place("data.a[1].b").get(&json), Some(&json!(2)));
        assert_eq!(place("data.a[*].c").get(&json), Some(&json!(3)));
        assert_eq!(place("data.a[9].c").get(&json), None);
        assert_eq!(place("data.a[*].b").remove(&mut json), Some(json!(2)));
        assert_eq!(json, json!({"a": [{}, {}, {"c": 3}], "n": null}));
        assert!(place("data.n.x.y").set(&mut json, json!(true)));
        assert!(place("data.a[*].d").set(&mut json, json!(0)));
        assert_eq!(json["n"], json!({"x": {"y": true}}));
        assert_eq!(json["a"][2], json!({"c": 3, "d": 0}));
        assert!(!place("data.a.x").set(&mut json, json!(1)));
        assert!(!place("data.a[7]").set(&mut json, json!(1)));
    }
}
