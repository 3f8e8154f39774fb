//! The body as a value of the language and back: parsed straight from the bytes, whose strings it
//! shares, and written straight to bytes. Members that the program does not name are not parsed:
//! they are written as they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::Error as _,
};
use serde_json::value::RawValue;
use vrl::value::{KeyString, ObjectMap, Value};

use super::Failure;
use crate::event;

/// Levels that JSON may have, in and out: serde_json's own bound.
const DEPTH_MAX: usize = 127;

/// The names of the members of a body that a program names; `None` if it may look at all.
pub(super) type Members = Option<BTreeSet<KeyString>>;

/// What a program sees of a body, and the members that it does not see, as they are written.
#[derive(Debug, Default)]
pub(super) struct Body<'b> {
    pub(super) value: Option<Value>,
    pub(super) rest: Vec<(KeyString, &'b RawValue)>,
}

/// The body as JSON; if it is none, as a string; if it is empty, as nothing.
///
/// # Errors
/// It is JSON that the language would change: a whole number that it cannot hold.
pub(super) fn read<'b>(body: &'b Bytes, members: &'b Members) -> Result<Body<'b>, Failure> {
    match parse(body, members) {
        Ok(read) => Ok(read),
        Err(error) if error.is_data() => Err(Failure::new(
            "map",
            "the body has a whole number above 9223372036854775807, which the transform language \
             cannot hold; send it as a string",
        )),
        Err(_) if body.is_empty() => Ok(Body::default()),
        Err(_) => Ok(Body { value: Some(Value::Bytes(body.clone())), rest: Vec::new() }),
    }
}

/// A body of this value: JSON without white space, members in the order of their names. A string
/// is written as it is where the event's media type says so, and without one where the `old` body
/// was text, too.
///
/// # Errors
/// JSON cannot say it.
pub(super) fn write(
    Body { value, rest }: Body<'_>,
    media: Option<&str>,
    old: &Bytes,
) -> Result<Bytes, Failure> {
    let Some(value) = value else { return Ok(Bytes::new()) };
    let is_string =
        matches!(value, Value::Bytes(_) | Value::String(_) | Value::Regex(_) | Value::Timestamp(_));
    let is_text = || !event::is_json(media) || serde_json::from_slice::<IgnoredAny>(old).is_err();
    if is_string && is_text() {
        return Ok(value.coerce_to_bytes());
    }
    let written = match &value {
        Value::Object(members) if !rest.is_empty() => {
            let seen = members.iter().map(|(name, value)| (name, Part::Seen(value)));
            let kept = rest.iter().map(|(name, raw)| (name, Part::Kept(raw)));
            to_json(&seen.chain(kept).collect::<BTreeMap<_, _>>(), old.len())
        }
        value => json(value, old.len()),
    };
    written.map(Bytes::from)
}

/// The value as JSON, about as long as `size`.
///
/// # Errors
/// JSON cannot say it.
pub(super) fn json(value: &Value, size: usize) -> Result<Vec<u8>, Failure> {
    to_json(&Written(value, DEPTH_MAX), size)
}

fn to_json(what: &impl Serialize, size: usize) -> Result<Vec<u8>, Failure> {
    let mut written = Vec::with_capacity(size);
    match serde_json::to_writer(&mut written, what) {
        Ok(()) => Ok(written),
        Err(_) => Err(Failure::new(
            "map",
            "the program leaves in the event what JSON cannot say: bytes that are no UTF-8 (use \
             `encode_base64`), a number that is infinite, or more than 127 levels",
        )),
    }
}

fn parse<'b>(body: &'b Bytes, members: &'b Members) -> serde_json::Result<Body<'b>> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = match members {
        Some(members) if body.trim_ascii_start().first() == Some(&b'{') => {
            json.deserialize_map(Top { body, members })?
        }
        _ => Body { value: Some(Read(body).deserialize(&mut json)?), rest: Vec::new() },
    };
    json.end().map(|()| read)
}

/// Reads an object of which only these members are looked at.
struct Top<'b> {
    body: &'b Bytes,
    members: &'b BTreeSet<KeyString>,
}

impl<'de> Visitor<'de> for Top<'de> {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body<'de>, A::Error> {
        let mut seen = ObjectMap::new();
        let mut rest = Vec::new();
        while let Some(name) = map.next_key::<KeyString>()? {
            if self.members.contains(&name) {
                seen.insert(name, map.next_value_seed(Read(self.body))?);
            } else {
                rest.push((name, map.next_value()?));
            }
        }
        Ok(Body { value: Some(Value::Object(seen)), rest })
    }
}

/// Reads a value whose strings share this body.
#[derive(Clone, Copy)]
struct Read<'b>(&'b Bytes);

impl<'de> DeserializeSeed<'de> for Read<'de> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Read<'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map(Value::Integer).map_err(|_| E::custom("too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from_f64_or_zero(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value, E> {
        Ok(Value::Bytes(self.0.slice_ref(text.as_bytes())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = ObjectMap::new();
        while let Some(name) = map.next_key::<KeyString>()? {
            members.insert(name, map.next_value_seed(self)?);
        }
        Ok(Value::Object(members))
    }
}

/// A member of a body, looked at or not.
enum Part<'v> {
    Seen(&'v Value),
    Kept(&'v RawValue),
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Seen(value) => Written(value, DEPTH_MAX - 1).serialize(to),
            Self::Kept(raw) => raw.serialize(to),
        }
    }
}

/// Writes a value of no more levels than these, and does not change what JSON cannot say.
struct Written<'v>(&'v Value, usize);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let below = || self.1.checked_sub(1).ok_or_else(|| S::Error::custom("too deep"));
        match self.0 {
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => to.serialize_str(text),
                Err(_) => Err(S::Error::custom("no UTF-8")),
            },
            Value::Float(number) if !number.is_finite() => Err(S::Error::custom("infinite")),
            Value::Object(members) => {
                let depth = below()?;
                to.collect_map(members.iter().map(|(name, v)| (name, Written(v, depth))))
            }
            Value::Array(items) => {
                let depth = below()?;
                to.collect_seq(items.iter().map(|v| Written(v, depth)))
            }
            plain => plain.serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value_of(body: &Bytes) -> Option<Value> {
        read(body, &None).unwrap().value
    }

    fn written(value: Value, media: Option<&str>, old: &Bytes) -> Result<Bytes, Failure> {
        write(Body { value: Some(value), rest: Vec::new() }, media, old)
    }

    fn round(body: &str) -> String {
        let body = Bytes::from(body.to_owned());
        let read = read(&body, &None).unwrap();
        String::from_utf8(write(read, None, &body).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn members_that_are_not_named_are_written_as_they_were() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        let body = Bytes::from(format!(
            r#"{{"z": {{ "n": 18446744073709551616 }}, "b": {{"y": 1.0e1, "x": "\u00e9"}}, "z": [1.10, "\u00e9" ], "a": {deep}}}"#
        ));
        let members = Some(BTreeSet::from(["b".into(), "absent".into()]));
        let read = read(&body, &members).unwrap();
        let expected = BTreeMap::from([("b", json!({"y": 10.0, "x": "é"}))]);
        assert_eq!(serde_json::to_value(&read.value).unwrap(), json!(expected));
        let written = write(read, None, &body).unwrap();
        let expected = format!(r#"{{"a":{deep},"b":{{"x":"é","y":10.0}},"z":[1.10, "\u00e9" ]}}"#);
        assert_eq!(String::from_utf8(written.to_vec()).unwrap(), expected);
    }

    #[test]
    fn json_comes_back_in_the_order_of_its_names() {
        let body = r#" {"b": [1, -2, 1.5, null, true], "a": {"é": "x\ny \"z\""}, "": ""} "#;
        let sorted = r#"{"":"","a":{"é":"x\ny \"z\""},"b":[1,-2,1.5,null,true]}"#;
        assert_eq!(round(body), sorted);
    }

    #[test]
    fn what_is_no_json_is_text() {
        for text in ["hello", "{\"a\": 1", "{} {}", "\u{feff}{}", "NaN"] {
            let body = Bytes::from(text.to_owned());
            for members in [None, Some(BTreeSet::new())] {
                let read = read(&body, &members).unwrap();
                assert_eq!(read.value, Some(Value::Bytes(body.clone())));
                assert_eq!(write(read, None, &body), Ok(body.clone()));
            }
        }
        assert_eq!(value_of(&Bytes::new()), None);
    }

    #[test]
    fn a_deep_body_is_text() {
        let body = Bytes::from("[".repeat(100_000));
        assert_eq!(value_of(&body), Some(Value::Bytes(body)));
        let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert_eq!(round(&deepest), deepest);
        let deeper = Value::Array(vec![value_of(&deepest.into()).unwrap()]);
        assert_eq!(written(deeper, None, &Bytes::new()).unwrap_err().class, "map");
    }

    #[test]
    fn a_number_that_would_change_is_refused() {
        let body = Bytes::from_static(b"{\"id\": 9223372036854775808}");
        assert_eq!(read(&body, &None).unwrap_err().class, "map");
        assert_eq!(
            round("[9223372036854775807, -9223372036854775808]"),
            "[9223372036854775807,-9223372036854775808]"
        );
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let (text, json) = (Bytes::from_static(b"text"), Bytes::from_static(b"{}"));
        let bytes = Value::Bytes(Bytes::from_static(b"\xff"));
        assert_eq!(written(bytes.clone(), None, &text), Ok(Bytes::from_static(b"\xff")));
        for value in [bytes.clone(), vec![bytes].into(), Value::from_f64_or_zero(f64::INFINITY)] {
            assert_eq!(written(value, None, &json).unwrap_err().class, "map");
        }
    }

    #[test]
    fn a_string_is_what_the_media_type_says_and_else_what_the_body_was() {
        let written = |media, old: &'static str| {
            let body = written(Value::from("a"), media, &Bytes::from_static(old.as_bytes()));
            String::from_utf8(body.unwrap().to_vec()).unwrap()
        };
        assert_eq!(written(None, "{}"), "\"a\"");
        assert_eq!(written(None, "text"), "a");
        assert_eq!(written(None, ""), "a");
        assert_eq!(written(Some("application/cloudevents+json"), "{}"), "\"a\"");
        assert_eq!(written(Some("application/json"), "text"), "a");
        assert_eq!(written(Some("text/plain"), "{}"), "a");
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|v| json!(v)),
            any::<i64>().prop_map(|v| json!(v)),
            any::<i32>().prop_map(|v| json!(f64::from(v) / 8.0)),
            ".*".prop_map(|v| json!(v)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|v| json!(v)),
                prop::collection::btree_map(".*", inner, 0..4).prop_map(|v| json!(v)),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_comes_back_as_it_was(json in any_json()) {
            let body = Bytes::from(json.to_string());
            let read = value_of(&body).unwrap();
            prop_assert_eq!(&read, &serde_json::from_slice::<Value>(&body).unwrap());
            let written = written(read, None, &body).unwrap();
            let back: serde_json::Value = serde_json::from_slice(&written).unwrap();
            prop_assert_eq!(back, serde_json::from_slice::<serde_json::Value>(&body).unwrap());
        }
    }
}
