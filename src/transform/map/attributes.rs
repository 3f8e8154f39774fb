//! The producer's attributes as values of the language, and back with the types of attributes.

use std::time::SystemTime;

use time::OffsetDateTime;
use vrl::value::{ObjectMap, Value};

use super::{Failure, body};
use crate::event::{self, Attributes};

/// All of them, by name.
pub(super) fn to_object(attributes: &Attributes) -> Value {
    let members = attributes.iter().map(|(name, value)| ((&**name).into(), to_value(value)));
    Value::Object(members.collect())
}

/// Makes `attributes` say what the program left. What it did not change keeps its exact type.
///
/// # Errors
/// There is a value that no attribute can have.
pub(super) fn write_back(attributes: &mut Attributes, left: ObjectMap) -> Result<(), Failure> {
    let names = attributes.iter().map(|(name, _)| name.clone());
    let gone: Vec<_> = names.filter(|name| !left.contains_key(&**name)).collect();
    for name in gone {
        attributes.remove(&name);
    }
    for (name, value) in left {
        match attributes.get(&name) {
            Some(old) if to_value(old) == value => {}
            _ => match from_value(value)? {
                Some(value) => attributes.set(&*name, value),
                None => drop(attributes.remove(&name)),
            },
        }
    }
    Ok(())
}

fn to_value(value: &event::Value) -> Value {
    match value {
        event::Value::Null => Value::Null,
        event::Value::String(text) => Value::from(&**text),
        event::Value::Number(text) => number(text),
        event::Value::Binary(bytes) => Value::Bytes(bytes.clone()),
        event::Value::Bool(value) => Value::Boolean(*value),
        event::Value::Int(value) => Value::Integer((*value).into()),
        event::Value::Long(value) => Value::Integer(*value),
        event::Value::ULong(value) => number(&value.to_string()),
        event::Value::Double(value) if value.is_nan() => Value::Null,
        event::Value::Double(value) => Value::from_f64_or_zero(*value),
        event::Value::Timestamp(milliseconds) => {
            let time =
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(*milliseconds) * 1_000_000);
            time.map_or(Value::Integer(*milliseconds), from_time)
        }
        event::Value::Uuid(id) => Value::from(id.to_string()),
        event::Value::Labelled(_, plain) => to_value(plain),
    }
}

/// A decimal number; as text where the language has no number that is exactly this.
fn number(text: &str) -> Value {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    match (text.parse(), text.parse::<f64>()) {
        (Ok(whole), _) => Value::Integer(whole),
        // Fifteen digits are what a float keeps.
        (_, Ok(float)) if float.is_finite() && digits <= 15 => Value::from_f64_or_zero(float),
        _ => Value::from(text),
    }
}

fn from_value(value: Value) -> Result<Option<event::Value>, Failure> {
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bytes(bytes) => match std::str::from_utf8(&bytes) {
            Ok(text) => event::Value::string(text),
            Err(_) => event::Value::Binary(bytes),
        },
        Value::String(text) => event::Value::string(&*text),
        Value::Regex(regex) => event::Value::string(regex.as_str()),
        Value::Integer(value) => event::Value::Long(value),
        Value::Float(value) => event::Value::Double(value.into_inner()),
        Value::Boolean(value) => event::Value::Bool(value),
        Value::Timestamp(time) => event::Value::Timestamp(time.timestamp_millis()),
        Value::Object(_) | Value::Array(_) => {
            event::Value::string(String::from_utf8_lossy(&body::json(&value, 0)?))
        }
    }))
}

/// A time as the language has it.
pub(super) fn from_time(time: OffsetDateTime) -> Value {
    Value::Timestamp(SystemTime::from(time).into())
}

/// A time as the event has it; `None` beyond the year 9999.
pub(super) fn to_time(value: &Value) -> Option<OffsetDateTime> {
    let Value::Timestamp(time) = value else { return None };
    let nanoseconds = i128::from(time.timestamp()) * 1_000_000_000;
    let nanoseconds = nanoseconds + i128::from(time.timestamp_subsec_nanos());
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::event::Value as Attribute;

    fn every_kind() -> Attributes {
        [
            ("null", Attribute::Null),
            ("text", Attribute::string("a")),
            ("whole", Attribute::Number("7".into())),
            ("decimal", Attribute::Number("1.10".into())),
            ("long", Attribute::Number("123456789012345678901234567890".into())),
            ("exact", Attribute::Number("0.1000000000000000055511151231257827".into())),
            ("odd", Attribute::Number("x".into())),
            ("binary", Attribute::Binary(Bytes::from_static(b"\xff\0"))),
            ("bool", Attribute::Bool(true)),
            ("int", Attribute::Int(-1)),
            ("i64", Attribute::Long(i64::MIN)),
            ("u64", Attribute::ULong(u64::MAX)),
            ("nan", Attribute::Double(f64::INFINITY)),
            ("time", Attribute::Timestamp(1_700_000_000_123)),
            ("never", Attribute::Timestamp(i64::MAX)),
            ("uuid", Attribute::Uuid(uuid::Uuid::nil())),
            ("gif", Attribute::Labelled("gif".into(), Box::new(Attribute::Binary(Bytes::new())))),
        ]
        .into_iter()
        .collect()
    }

    fn object(attributes: &Attributes) -> ObjectMap {
        let Value::Object(object) = to_object(attributes) else { panic!() };
        object
    }

    #[test]
    fn what_is_not_changed_keeps_its_exact_type_and_place() {
        let mut attributes = every_kind();
        let left = object(&attributes);
        write_back(&mut attributes, left).unwrap();
        assert_eq!(attributes, every_kind());
    }

    #[test]
    fn what_is_changed_has_the_type_of_its_value() {
        let mut attributes = every_kind();
        let mut left = object(&attributes);
        assert_eq!(left["whole"], Value::Integer(7));
        assert_eq!(left["decimal"], Value::from_f64_or_zero(1.1));
        assert_eq!(left["u64"], Value::from("18446744073709551615"));
        left.insert("whole".into(), Value::Integer(8));
        left.insert("text".into(), Value::from_f64_or_zero(0.5));
        left.insert("gif".into(), Value::from("b"));
        left.insert("time".into(), from_time(OffsetDateTime::UNIX_EPOCH));
        left.insert("bool".into(), Value::Array(vec![Value::Integer(1)]));
        left.insert("uuid".into(), Value::Null);
        left.insert("new".into(), Value::Bytes(Bytes::from_static(b"\xfe")));
        left.remove("int");
        write_back(&mut attributes, left).unwrap();
        let mut expected = every_kind();
        expected.set("whole", Attribute::Long(8));
        expected.set("text", Attribute::Double(0.5));
        expected.set("gif", Attribute::string("b"));
        expected.set("time", Attribute::Timestamp(0));
        expected.set("bool", Attribute::string("[1]"));
        expected.remove("uuid");
        expected.remove("int");
        expected.set("new", Attribute::Binary(Bytes::from_static(b"\xfe")));
        assert_eq!(attributes, expected);
    }

    #[test]
    fn a_time_comes_back_to_the_nanosecond() {
        for nanoseconds in [0, -1, 1_700_000_000_123_456_789, -62_135_596_800_000_000_000] {
            let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap();
            assert_eq!(to_time(&from_time(time)), Some(time));
        }
        assert_eq!(to_time(&Value::Null), None);
    }
}
