//! The body as a value of the language and back: parsed straight from the bytes, whose strings it
//! shares, and written straight to bytes.

use std::fmt;

use bytes::Bytes;
use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::Error as _,
};
use vrl::value::{KeyString, ObjectMap, Value};

use super::Failure;

/// Levels that JSON may have, in and out: serde_json's own bound.
const DEPTH_MAX: usize = 127;

/// The body as JSON; if it is none, as a string; if it is empty, as nothing.
///
/// # Errors
/// It is JSON that the language would change: a whole number that it cannot hold.
pub(super) fn read(body: &Bytes) -> Result<Option<Value>, Failure> {
    match parse(body) {
        Ok(json) => Ok(Some(json)),
        Err(error) if error.is_data() => Err(Failure::new(
            "map",
            "the body has a whole number above 9223372036854775807, which the transform language \
             cannot hold; send it as a string",
        )),
        Err(_) if body.is_empty() => Ok(None),
        Err(_) => Ok(Some(Value::Bytes(body.clone()))),
    }
}

/// A body of this value: JSON without white space, members in the order of their names. A string
/// is written as it is where the event's media type says so, and without one where the `old` body
/// was text, too.
///
/// # Errors
/// JSON cannot say it.
pub(super) fn write(
    value: Option<Value>,
    media: Option<&str>,
    old: &Bytes,
) -> Result<Bytes, Failure> {
    let Some(value) = value else { return Ok(Bytes::new()) };
    let is_string =
        matches!(value, Value::Bytes(_) | Value::String(_) | Value::Regex(_) | Value::Timestamp(_));
    let is_text = || match media {
        Some(media) if !media.contains("json") => true,
        _ => serde_json::from_slice::<IgnoredAny>(old).is_err(),
    };
    if is_string && is_text() {
        return Ok(value.coerce_to_bytes());
    }
    json(&value, old.len()).map(Bytes::from)
}

/// The value as JSON, about as long as `size`.
///
/// # Errors
/// JSON cannot say it.
pub(super) fn json(value: &Value, size: usize) -> Result<Vec<u8>, Failure> {
    let mut written = Vec::with_capacity(size);
    match serde_json::to_writer(&mut written, &Written(value, DEPTH_MAX)) {
        Ok(()) => Ok(written),
        Err(_) => Err(Failure::new(
            "map",
            "the program leaves in the event what JSON cannot say: bytes that are no UTF-8 (use \
             `encode_base64`), a number that is infinite, or more than 127 levels",
        )),
    }
}

fn parse(body: &Bytes) -> serde_json::Result<Value> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = Read(body).deserialize(&mut json)?;
    json.end().map(|()| value)
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

    fn round(body: &str) -> String {
        let body = Bytes::from(body.to_owned());
        let value = read(&body).unwrap();
        String::from_utf8(write(value, None, &body).unwrap().to_vec()).unwrap()
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
            assert_eq!(read(&body), Ok(Some(Value::Bytes(body.clone()))));
            assert_eq!(write(read(&body).unwrap(), None, &body), Ok(body));
        }
        assert_eq!(read(&Bytes::new()), Ok(None));
    }

    #[test]
    fn a_deep_body_is_text() {
        let body = Bytes::from("[".repeat(100_000));
        assert_eq!(read(&body), Ok(Some(Value::Bytes(body))));
        let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert_eq!(round(&deepest), deepest);
        let deeper = Value::Array(vec![read(&deepest.into()).unwrap().unwrap()]);
        assert_eq!(write(Some(deeper), None, &Bytes::new()).unwrap_err().class, "map");
    }

    #[test]
    fn a_number_that_would_change_is_refused() {
        let body = Bytes::from_static(b"{\"id\": 9223372036854775808}");
        assert_eq!(read(&body).unwrap_err().class, "map");
        assert_eq!(
            round("[9223372036854775807, -9223372036854775808]"),
            "[9223372036854775807,-9223372036854775808]"
        );
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let (text, json) = (Bytes::from_static(b"text"), Bytes::from_static(b"{}"));
        let bytes = Value::Bytes(Bytes::from_static(b"\xff"));
        assert_eq!(write(Some(bytes.clone()), None, &text), Ok(Bytes::from_static(b"\xff")));
        for value in [bytes.clone(), vec![bytes].into(), Value::from_f64_or_zero(f64::INFINITY)] {
            assert_eq!(write(Some(value), None, &json).unwrap_err().class, "map");
        }
    }

    #[test]
    fn a_string_is_what_the_media_type_says_and_else_what_the_body_was() {
        let written = |media, old: &'static str| {
            let body = write(Some(Value::from("a")), media, &Bytes::from_static(old.as_bytes()));
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
            let read = read(&body).unwrap().unwrap();
            prop_assert_eq!(&read, &serde_json::from_slice::<Value>(&body).unwrap());
            let written = write(Some(read), None, &body).unwrap();
            let back: serde_json::Value = serde_json::from_slice(&written).unwrap();
            prop_assert_eq!(back, serde_json::from_slice::<serde_json::Value>(&body).unwrap());
        }
    }
}
