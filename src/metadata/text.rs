//! Attribute values as a type label and text, the one form that every service can carry.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::event::Value;

/// The label and text of `value`. [`from_text`] is its inverse.
pub(super) fn to_text(value: &Value) -> (String, String) {
    let (label, text) = match value {
        Value::Null => ("null", String::new()),
        Value::String(text) => ("string", text.to_string()),
        Value::Number(text) => ("number", text.to_string()),
        Value::Binary(bytes) => ("binary", BASE64.encode(bytes)),
        Value::Bool(flag) => ("bool", flag.to_string()),
        Value::Int(number) => ("int", number.to_string()),
        Value::Long(number) => ("long", number.to_string()),
        Value::ULong(number) => ("ulong", number.to_string()),
        Value::Double(number) => ("double", number.to_string()),
        Value::Timestamp(millis) => ("timestamp", timestamp_text(*millis)),
        Value::Uuid(uuid) => ("uuid", uuid.to_string()),
        Value::Labelled(label, inner) => {
            let (base, text) = to_text(inner);
            return (format!("{base}.{label}"), text);
        }
    };
    (label.to_owned(), text)
}

/// The value of a label and text; `None` where they do not belong together.
pub(super) fn from_text(label: &str, text: &str) -> Option<Value> {
    if let Some((base, custom)) = label.split_once('.') {
        return Some(Value::Labelled(custom.into(), Box::new(from_text(base, text)?)));
    }
    Some(match label {
        "null" => Value::Null,
        "string" => Value::string(text),
        "number" => Value::Number(text.into()),
        "binary" => Value::Binary(Bytes::from(BASE64.decode(text).ok()?)),
        "bool" => Value::Bool(text.parse().ok()?),
        "int" => Value::Int(text.parse().ok()?),
        "long" => Value::Long(text.parse().ok()?),
        "ulong" => Value::ULong(text.parse().ok()?),
        "double" => Value::Double(text.parse().ok()?),
        "timestamp" => Value::Timestamp(timestamp_millis(text)?),
        "uuid" => Value::Uuid(text.parse().ok()?),
        _ => return None,
    })
}

/// RFC 3339 where the calendar allows it, else the bare milliseconds.
fn timestamp_text(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| millis.to_string())
}

fn timestamp_millis(text: &str) -> Option<i64> {
    if let Ok(millis) = text.parse() {
        return Some(millis);
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Shared text of a value, for attributes that some service holds as text.
pub(super) fn shared_text(value: &Value) -> Arc<str> {
    match value {
        Value::String(text) | Value::Number(text) => text.clone(),
        other => to_text(other).1.into(),
    }
}
