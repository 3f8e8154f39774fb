//! CloudEvents 1.0 in a message: structured JSON, or binary with the attributes beside the body.
//! <https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/amqp-protocol-binding.md>

use memchr::memmem::Finder;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;
use time::OffsetDateTime;

use super::{Word, may_be_object_with, parse_time, shared};
use crate::{
    event::{Event, Trace, Value},
    metadata::rfc3339,
};

/// How binary mode marks attributes: the two spellings of the AMQP binding, and the `ce_` and
/// `ce-` of the Kafka and HTTP bindings, which bridges leave behind.
const PREFIXES: [&str; 4] = ["cloudEvents_", "cloudEvents:", "ce_", "ce-"];

#[derive(Deserialize)]
struct Context {
    specversion: String,
    id: String,
    source: String,
    r#type: String,
    subject: Option<String>,
    time: Option<String>,
    // Extensions, which may be of any type; of another they mean nothing to us.
    #[serde(default, deserialize_with = "text_or_none")]
    partitionkey: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    traceparent: Option<String>,
    #[serde(default, deserialize_with = "text_or_none")]
    tracestate: Option<String>,
}

fn text_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Json::deserialize(from)? {
        Json::String(text) => Some(text),
        _ => None,
    })
}

/// Reads the CloudEvents attributes of `event` into it, if it is one. Body and attributes stay.
pub(super) fn read(event: &mut Event) -> bool {
    structured(event) || binary(event)
}

fn structured(event: &mut Event) -> bool {
    static MARK: Word = Word::new(|| Finder::new("\"specversion\""));
    if !may_be_object_with(&event.body, &MARK) {
        return false;
    }
    let Ok(context) = serde_json::from_slice::<Context>(&event.body) else { return false };
    if !is_supported(&context.specversion) || context.id.is_empty() || context.source.is_empty() {
        return false;
    }
    event.id = context.id.into();
    event.source = context.source.into();
    event.kind = Some(context.r#type.into());
    event.subject = shared(context.subject).or(event.subject.take());
    event.time = context.time.as_deref().and_then(parse_time).or(event.time);
    event.key = event.key.take().or(shared(context.partitionkey));
    let parent = event.trace.parent.is_none().then(|| shared(context.traceparent)).flatten();
    if parent.is_some() {
        event.trace = Trace { parent, state: shared(context.tracestate) };
    }
    true
}

fn binary(event: &mut Event) -> bool {
    // Of every event that comes, most of which are none: no name is put together to look for it.
    let is_marked = |prefix: &&str| {
        let is_version = |name: &str| name.strip_prefix(*prefix) == Some("specversion");
        let version = event.attributes.iter().find(|(name, _)| is_version(name));
        version.and_then(|(_, value)| value.as_str()).is_some_and(is_supported)
    };
    let Some(prefix) = PREFIXES.into_iter().find(is_marked) else { return false };
    let attributes = event.attributes.clone();
    let text = |name: &str| match attributes.get(&format!("{prefix}{name}")) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let (Some(id), Some(source), Some(kind)) = (text("id"), text("source"), text("type")) else {
        return false;
    };
    (event.id, event.source, event.kind) = (id, source, Some(kind));
    event.subject = text("subject").or(event.subject.take());
    event.time = match attributes.get(&format!("{prefix}time")) {
        Some(Value::Timestamp(millis)) => {
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(*millis) * 1_000_000);
            // What cannot be written as CloudEvents write time is none.
            time.ok().filter(|time| rfc3339(*time).is_some())
        }
        Some(Value::String(text)) => parse_time(text),
        _ => None,
    }
    .or(event.time);
    event.key = event.key.take().or_else(|| text("partitionkey"));
    let parent = event.trace.parent.is_none().then(|| text("traceparent")).flatten();
    if parent.is_some() {
        event.trace = Trace { parent, state: text("tracestate") };
    }
    true
}

fn is_supported(specversion: &str) -> bool {
    specversion == "1.0" || specversion.starts_with("1.")
}
