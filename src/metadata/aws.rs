//! SQS and SNS: ten attributes of three types, and bodies of XML-legal text.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;

use super::{BodyEncoding, Carried, Packed, RESERVED, TRACEPARENT, TRACESTATE, text};
use crate::event::{Event, Value};

/// Most message attributes of one message.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
pub const ATTRIBUTES_MAX: usize = 10;
/// Longest attribute name and longest data type, in bytes. Same source; it says 256, and the service
/// that they must be shorter.
pub const ATTRIBUTE_NAME_MAX: usize = 255;

/// `event` as an SQS or SNS message.
///
/// The order of precedence for the ten places: ours, trace context, then the producer's
/// attributes in their order. A body that is not XML-legal text is base64, marked as such; an empty
/// one, which neither service takes, is a marked hyphen.
#[must_use]
pub fn pack(event: &Event) -> Packed {
    let mut carried = Carried::of(event);
    let body = match std::str::from_utf8(&event.body) {
        Ok("") => {
            carried.body = Some(BodyEncoding::Empty);
            Bytes::from_static(b"-")
        }
        Ok(text) if text.chars().all(is_legal) => event.body.clone(),
        _ => {
            carried.body = Some(BodyEncoding::Base64);
            Bytes::from(BASE64.encode(&event.body))
        }
    };
    let mut native = Vec::with_capacity(ATTRIBUTES_MAX);
    if let Some(parent) = &event.trace.parent {
        let legal = |text: &Option<Arc<str>>| text.as_deref().is_none_or(is_legal_value);
        if is_legal_value(parent) && legal(&event.trace.state) {
            native.push((Arc::from(TRACEPARENT), Value::String(parent.clone())));
            let state = event.trace.state.iter();
            native.extend(state.map(|text| (Arc::from(TRACESTATE), Value::String(text.clone()))));
        } else {
            let state = event.trace.state.as_deref().map(Into::into);
            carried.trace = Some(((&**parent).into(), state));
        }
    }
    for (name, value) in event.attributes.iter() {
        match native_value(name, value).filter(|_| native.len() + 1 < ATTRIBUTES_MAX) {
            Some((value, label)) => {
                carried.note_type(name, label);
                native.push((name.clone(), value));
            }
            None => {
                carried.carry(name, value);
            }
        }
    }
    native.push((RESERVED.into(), Value::string(carried.to_json())));
    let bytes =
        body.len() + native.iter().map(|(name, value)| attribute_bytes(name, value)).sum::<usize>();
    Packed { body, attributes: native, bytes }
}

/// The data type that goes with a native value: `String`, `Number`, `Binary`, with a custom label.
#[must_use]
pub fn data_type(value: &Value) -> String {
    match value {
        Value::Number(_) => "Number".into(),
        Value::Binary(_) => "Binary".into(),
        Value::Labelled(label, inner) => format!("{}.{label}", data_type(inner)),
        _ => "String".into(),
    }
}

/// The value of a native attribute as received: data type, and text or bytes.
#[must_use]
pub fn value(data_type: &str, text: Option<&str>, binary: Option<Bytes>) -> Value {
    let (base, label) = match data_type.split_once('.') {
        Some((base, label)) => (base, Some(label)),
        None => (data_type, None),
    };
    let plain = match (base, binary) {
        ("Binary", Some(bytes)) => Value::Binary(bytes),
        ("Number", _) => Value::Number(text.unwrap_or_default().into()),
        _ => Value::string(text.unwrap_or_default()),
    };
    match label {
        Some(label) => Value::Labelled(label.into(), Box::new(plain)),
        None => plain,
    }
}

/// A value in a type of SQS and SNS and the label that restores it; `None` if it cannot be held.
fn native_value(name: &str, value: &Value) -> Option<(Value, Option<String>)> {
    if !is_legal_name(name) {
        return None;
    }
    let native = match value {
        Value::Null => return None,
        Value::Binary(bytes) => return (!bytes.is_empty()).then(|| (value.clone(), None)),
        Value::Number(text) if !is_number(text) && is_legal_value(text) => {
            Value::String(text.clone())
        }
        Value::String(text) | Value::Number(text) => {
            return is_legal_value(text).then(|| (value.clone(), None));
        }
        Value::Labelled(label, inner) => {
            let is_legal = is_label(label) && data_type(value).len() <= ATTRIBUTE_NAME_MAX;
            let (_, None) = native_value(name, inner)? else { return None };
            return is_legal.then(|| (value.clone(), None));
        }
        Value::Int(_) | Value::Long(_) | Value::ULong(_) | Value::Double(_) => {
            let text = text::shared_text(value);
            if is_number(&text) { Value::Number(text) } else { Value::String(text) }
        }
        Value::Bool(_) | Value::Timestamp(_) | Value::Uuid(_) => {
            Value::String(text::shared_text(value))
        }
    };
    Some((native, Some(text::to_text(value).0)))
}

fn attribute_bytes(name: &str, value: &Value) -> usize {
    let bytes = match value {
        Value::Labelled(_, inner) => match &**inner {
            Value::Binary(bytes) => bytes.len(),
            other => other.as_str().map_or(0, str::len),
        },
        Value::Binary(bytes) => bytes.len(),
        other => other.as_str().map_or(0, str::len),
    };
    name.len() + data_type(value).len() + bytes
}

/// The custom part of a data type. What a forged mark says it is may be anything.
fn is_label(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// Letters, digits, underscore, hyphen and period; no leading, trailing or double period; not
/// `AWS.` or `Amazon.` in front. Our own names are ours.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>
fn is_legal_name(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    !name.is_empty()
        && name.len() <= ATTRIBUTE_NAME_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
        && !lower.starts_with("aws.")
        && !lower.starts_with("amazon.")
        && ![RESERVED, TRACEPARENT, TRACESTATE].contains(&name)
}

/// What SQS takes as a number: 38 digits, 10^-128 to 10^126. Any other travels as text.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>
fn is_number(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let magnitude = |number: f64| number == 0.0 || (1e-128..=1e126).contains(&number.abs());
    text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && (1..=38).contains(&digits)
        && text.parse().is_ok_and(magnitude)
}

fn is_legal_value(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_legal)
}

/// The characters of XML 1.0, which are all that a body or attribute may hold.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn is_legal(c: char) -> bool {
    matches!(c, '\u{9}' | '\u{A}' | '\u{D}' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}
