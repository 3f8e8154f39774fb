#![no_main]
//! CloudEvents in structured, binary and batch form: parsing says what is wrong or makes an event,
//! and an event that is written again and parsed again is the same.
//!
//! Text that begins like JSON is a structured event or a batch of them. All other input describes a
//! message: attributes of binary form, and a body.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use eventferry::{
    decode::{Format, decode, undecoded},
    delivery::Received,
    event::{Event, Value},
    metadata::RESERVED,
    transform::{StepConfig, Transform, path::to_json, split, wrap::Envelope},
};
use eventferry_fuzz::{
    compare::{document, sorted},
    make,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value as Json};

/// What stands for a type where there is none.
const UNTYPED: &str = "eventferry.untyped";
const PREFIXES: [&str; 4] = ["cloudEvents_", "cloudEvents:", "ce_", "ce-"];

fuzz_target!(|data: &[u8]| {
    let message = match data.first() {
        Some(b'{' | b'[') => Ok(make::plain(Bytes::copy_from_slice(data))),
        _ => described(&mut Unstructured::new(data)),
    };
    let Ok(message) = message else { return };
    if let Ok(event) = decode(&message, Format::CloudEvents) {
        decoded(&message, &event);
    }
    unwrapped(&message.body);
    batch(&message.body);
});

fn described(u: &mut Unstructured<'_>) -> Result<Received> {
    match u.int_in_range(0..=2)? {
        0 => {
            let body = structured(u)?.to_string();
            make::message(u, body.into())
        }
        1 => Ok(make::plain(Json::from(make::several(u, 4, structured)?).to_string().into())),
        _ => {
            let body = make::body(u)?;
            binary(u, body)
        }
    }
}

/// What an event in JSON can hold, more or less as it should be.
fn structured(u: &mut Unstructured<'_>) -> Result<Json> {
    let mut members = Map::new();
    for _ in 0..u.int_in_range(0..=3)? {
        members.insert(make::name(u)?, make::json(u, 2)?);
    }
    for (name, usual) in [("specversion", "1.0"), ("id", "e-1"), ("source", "/s"), ("type", "t")] {
        let value = if u.ratio(7, 8)? { usual.into() } else { make::json(u, 0)? };
        members.insert(name.into(), value);
    }
    for name in ["subject", "time", "datacontenttype", "partitionkey", "traceparent", "tracestate"]
    {
        if u.ratio(1, 3)? {
            members.insert(name.into(), make::text(u)?.into());
        }
    }
    match u.int_in_range(0..=3)? {
        0 => _ = members.insert("data_base64".into(), make::json(u, 0)?),
        1 => {}
        _ => _ = members.insert("data".into(), make::json(u, 3)?),
    }
    Ok(members.into())
}

fn binary(u: &mut Unstructured<'_>, body: Bytes) -> Result<Received> {
    let mut message = make::message(u, body)?;
    let prefix = *u.choose(&PREFIXES)?;
    for (name, usual) in [("specversion", "1.0"), ("id", "e-1"), ("source", "/s"), ("type", "t")] {
        let value = if u.ratio(7, 8)? { Value::string(usual) } else { make::value(u)? };
        message.attributes.set(format!("{prefix}{name}"), value);
    }
    for name in ["subject", "time", "partitionkey", "traceparent"] {
        if u.ratio(1, 3)? {
            message.attributes.set(format!("{prefix}{name}"), make::value(u)?);
        }
    }
    Ok(message)
}

/// An event that was read is written in structured form, and read again by the source.
fn decoded(message: &Received, event: &Event) {
    let again = Received { attributes: event.attributes.clone(), ..message.clone() };
    let again = Received { body: event.body.clone(), ..again };
    // What bears our mark is what that says, whatever its body looks like.
    let is_marked = message.attributes.get(RESERVED).is_some()
        || String::from_utf8_lossy(&message.body).contains(RESERVED);
    if !is_marked && let Ok(again) = decode(&again, Format::CloudEvents) {
        assert_eq!(context(&again), context(event), "read again");
    }
    let written = written(event);
    let read = decode(&make::plain(written.body.clone()), Format::CloudEvents);
    // A mark that somebody else has made may leave either out.
    if event.source.is_empty() || event.id.is_empty() {
        return;
    }
    let read = read.expect("what is written is a CloudEvent");
    assert_eq!(context(&read), context(event), "written and read");
}

/// What a structured event holds stays what it is when it is written and opened again.
fn unwrapped(body: &Bytes) {
    let Ok(first) = opened(body) else { return };
    let again = opened(&written(&first).body).expect("what is written can be opened");
    assert_eq!(context(&again), context(&first));
    assert_eq!(again.content_type, first.content_type);
    assert_eq!(document(&again.body), document(&first.body));
    assert_eq!(extensions(&again), extensions(&first));
}

/// Each event of a batch is what it is alone.
fn batch(body: &Bytes) {
    let Ok(Json::Array(items)) = document(body) else { return };
    let list = "data".parse().expect("the whole body is a place");
    let split = StepConfig::Split(split::Config { list, keep: false });
    let steps = transform(&[split, StepConfig::Unwrap(Envelope::CloudEvents)]);
    let alone: std::result::Result<Vec<_>, _> =
        items.iter().map(|item| opened(&item.to_string().into())).collect();
    match (steps.apply(undecoded(&make::plain(body.clone()))), alone) {
        (Ok(events), Ok(alone)) => {
            assert_eq!(events.len(), alone.len());
            for (item, (event, alone)) in items.iter().zip(events.into_iter().zip(alone)) {
                // One that names no id has one by its place.
                let id = if item.get("id").is_some() { event.id.clone() } else { alone.id.clone() };
                assert_eq!(sorted(Event { id, ..event }), sorted(alone));
            }
        }
        (batch, alone) => assert_eq!(batch.is_err(), alone.is_err()),
    }
}

fn transform(steps: &[StepConfig]) -> Transform {
    Transform::compile(steps, std::path::Path::new(".")).expect("the steps are right")
}

fn opened(body: &Bytes) -> std::result::Result<Event, eventferry::transform::Failure> {
    let steps = transform(&[StepConfig::Unwrap(Envelope::CloudEvents)]);
    let mut events = steps.apply(undecoded(&make::plain(body.clone())))?;
    Ok(events.pop().expect("there is one"))
}

fn written(event: &Event) -> Event {
    let steps = transform(&[StepConfig::Wrap(Envelope::CloudEvents)]);
    let mut events = steps.apply(event.clone()).expect("every event can be a CloudEvent");
    events.pop().expect("there is one")
}

/// What CloudEvents says about an event, and we keep.
fn context(event: &Event) -> [Option<String>; 6] {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    [
        Some(event.id.to_string()),
        Some(event.source.to_string()),
        text(&event.kind).filter(|kind| kind != UNTYPED),
        text(&event.subject),
        event.time.map(|time| time.unix_timestamp_nanos().to_string()),
        text(&event.key),
    ]
}

/// The attributes that can be extensions, as JSON.
fn extensions(event: &Event) -> BTreeMap<String, Json> {
    // The name that is ours is not written for others.
    let is_written = |name: &str| {
        name != RESERVED && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let attributes = event.attributes.iter().filter(|(name, _)| is_written(name));
    let values = attributes.map(|(name, value)| (name.to_string(), to_json(value)));
    values.filter(|(_, value)| !value.is_null()).collect()
}
