//! Makes messages of arbitrary bytes, mostly of words that mean something.

use std::sync::Arc;

use arbitrary::{Arbitrary as _, Result, Unstructured};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use eventferry::{
    delivery::{Claimed, Origin, Received},
    event::{Attributes, Value},
};
use serde_json::{Map, Value as Json, json};
use time::{Duration, OffsetDateTime};

/// Names of attributes and of members of objects.
const NAMES: [&str; 30] = [
    "a",
    "b",
    "c",
    "a.b",
    "items",
    "tenant",
    "dataschema",
    "content-encoding",
    "eventferry",
    "traceparent",
    "tracestate",
    "aws.x",
    "odd name",
    "",
    "card",
    "iban",
    "token",
    "password",
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_subject",
    "ce-partitionkey",
    "cloudEvents_specversion",
    "cloudEvents_id",
    "cloudEvents:source",
    "cloudEvents_type",
    "cloudEvents_time",
];

/// Texts: what detectors look for, what encodings and envelopes look like, what services refuse.
const TEXTS: [&str; 40] = [
    "",
    "x",
    "order.placed",
    "eventferry.untyped",
    "/shop",
    "1.0",
    "2026-11-21T12:00:00Z",
    "0000-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999999-23:59",
    "4111 1111 1111 1111",
    "4111111111111111",
    "378282246310005",
    "ada@example.com",
    "+49 30 901820",
    "DE89 3702 0044 0532 0130 00",
    "10.0.17.5",
    "2001:db8::1",
    "AKIAIOSFODNN7EXAMPLE",
    "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "password=hunter2hunter2",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "gzip, zstd",
    "gzip",
    "application/json",
    "text/plain",
    "application/cloudevents+json",
    "application/octet-stream",
    "eyJhIjogMX0=",
    "{\"a\": 1}",
    "[1, {\"b\": \"c\"}]",
    "\"text\"",
    "null",
    "\u{0}\u{fffe}",
    "grüße 🚢",
    "-12.50",
    "1e5",
    "18446744073709551615",
    "0.1000000000000000055",
    "aws:sqs:eu-west-1:123456789012:orders",
    "arn:aws:sns:eu-west-1:123456789012:orders",
];

/// The name of an attribute or a member.
pub fn name(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(7, 8)? { Ok((*u.choose(&NAMES)?).to_owned()) } else { String::arbitrary(u) }
}

/// A text.
pub fn text(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(match u.int_in_range(0..=7)? {
        0 => String::arbitrary(u)?,
        1 => format!("{}{}", u.choose(&TEXTS)?, String::arbitrary(u)?),
        2 => format!("{} {}", u.choose(&TEXTS)?, u.choose(&TEXTS)?),
        _ => (*u.choose(&TEXTS)?).to_owned(),
    })
}

/// The same, or none.
pub fn maybe(u: &mut Unstructured<'_>) -> Result<Option<Arc<str>>> {
    Ok(if u.ratio(1, 2)? { Some(text(u)?.into()) } else { None })
}

/// Up to `most` of them.
pub fn several<T>(
    u: &mut Unstructured<'_>,
    most: usize,
    mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=most)?;
    (0..count).map(|_| one(u)).collect()
}

/// JSON of so many levels at most.
pub fn json(u: &mut Unstructured<'_>, depth: usize) -> Result<Json> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Json::Null,
        1 => bool::arbitrary(u)?.into(),
        2 => i64::arbitrary(u)?.into(),
        3 => json!(f64::arbitrary(u)?),
        4 => u64::arbitrary(u)?.into(),
        5 | 6 if depth > 0 => several(u, 5, |u| json(u, depth - 1))?.into(),
        7 | 8 if depth > 0 => {
            let members = several(u, 6, |u| Ok((name(u)?, json(u, depth - 1)?)))?;
            members.into_iter().collect::<Map<_, _>>().into()
        }
        _ => text(u)?.into(),
    })
}

/// The value of an attribute, of any type that a service has.
pub fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=13)? {
        0 => Value::Null,
        1 => Value::Number(text(u)?.into()),
        2 => Value::Binary(Vec::arbitrary(u)?.into()),
        3 => Value::Bool(bool::arbitrary(u)?),
        4 => Value::Int(i32::arbitrary(u)?),
        5 => Value::Long(i64::arbitrary(u)?),
        6 => Value::ULong(u64::arbitrary(u)?),
        7 => Value::Double(f64::arbitrary(u)?),
        8 => Value::Timestamp(i64::arbitrary(u)?),
        // Within the years that have four digits, and somewhat beyond.
        9 => Value::Timestamp(i64::arbitrary(u)? % 300_000_000_000_000),
        10 => Value::Labelled(text(u)?.into(), Box::new(Value::string(text(u)?))),
        _ => Value::string(text(u)?),
    })
}

/// A body: bytes, text, JSON, or one of these in base64, up to three times.
pub fn body(u: &mut Unstructured<'_>) -> Result<Bytes> {
    encoded(u, 3)
}

/// Input that has run out answers the same for ever, so it has to end by itself.
fn encoded(u: &mut Unstructured<'_>, times: usize) -> Result<Bytes> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Vec::arbitrary(u)?.into(),
        1 => text(u)?.into(),
        2 if times > 0 => BASE64.encode(encoded(u, times - 1)?).into(),
        _ => json(u, 4)?.to_string().into(),
    })
}

/// A message with this body.
pub fn message(u: &mut Unstructured<'_>, body: Bytes) -> Result<Received> {
    let attributes = several(u, 12, |u| Ok((name(u)?, value(u)?)))?;
    let seconds = i64::from(i32::arbitrary(u)?);
    Ok(Received {
        attributes: attributes.into_iter().collect::<Attributes>(),
        message_id: maybe(u)?,
        subject: maybe(u)?,
        content_type: maybe(u)?,
        key: maybe(u)?,
        enqueued: OffsetDateTime::UNIX_EPOCH.checked_add(Duration::seconds(seconds)),
        xray: maybe(u)?,
        claimed: match u.int_in_range(0..=3)? {
            0 => Some(Claimed::Body(self::body(u)?)),
            1 => Some(Claimed::Lost("its body is gone")),
            _ => None,
        },
        ..plain(body)
    })
}

/// A message that has nothing but a body.
#[must_use]
pub fn plain(body: Bytes) -> Received {
    Received {
        body,
        attributes: Attributes::default(),
        message_id: None,
        subject: None,
        content_type: None,
        key: None,
        enqueued: None,
        xray: None,
        origin: Origin { source: "s".into(), resource: "r".into(), position: "p".into() },
        claimed: None,
    }
}
