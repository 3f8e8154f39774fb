//! Storage Queues have no attributes: everything travels in a CloudEvents JSON envelope.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Carried, Mark, RESERVED, rfc3339};
use crate::{
    decode::{Word, may_be_object_with},
    event::{Event, Fitted, Trace},
};

/// CloudEvents demands a type; this one says that the producer gave none.
const UNTYPED: &str = "eventferry.untyped";

/// CloudEvents 1.0 in JSON, with the extensions that we write. Foreign CloudEvents parse too.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    specversion: &'a str,
    id: String,
    source: String,
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitionkey: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eventferry: Option<String>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// `event` as a CloudEvents envelope. A JSON body stands in it as JSON, byte for byte; any other
/// is base64.
#[must_use]
pub fn wrap(event: &Event) -> Bytes {
    let mut carried = Carried {
        hops: event.hops.saturating_add(1),
        fit: event.fitted.as_ref().map(Fitted::how),
        dead_letter: event.dead_letter.as_deref().map(std::borrow::Cow::Borrowed),
        ..Carried::default()
    };
    for (name, value) in event.attributes.iter() {
        carried.carry(name, value);
    }
    let shared = |text: &Arc<str>| text.to_string();
    let data = embeddable(&event.body);
    let envelope = Envelope {
        specversion: "1.0",
        id: event.id.to_string(),
        source: event.source.to_string(),
        r#type: event.kind.as_ref().map_or_else(|| UNTYPED.to_owned(), shared),
        subject: event.subject.as_ref().map(shared),
        time: event.time.and_then(rfc3339),
        datacontenttype: event.content_type.as_ref().map(shared),
        partitionkey: event.key.as_ref().map(shared),
        traceparent: event.trace.parent.as_ref().map(shared),
        tracestate: event.trace.state.as_ref().map(shared),
        eventferry: Some(carried.to_json()),
        data_base64: data.is_none().then(|| BASE64.encode(&event.body)),
        data,
    };
    // Strings and raw JSON always serialize.
    Bytes::from(serde_json::to_vec(&envelope).unwrap_or_default())
}

/// The body as a JSON value that comes out again byte for byte: an object or array without
/// surrounding white space.
fn embeddable(body: &[u8]) -> Option<&RawValue> {
    let framed = matches!((body.first()?, body.last()?), (b'{', b'}') | (b'[', b']'));
    if framed { serde_json::from_slice(body).ok() } else { None }
}

/// Takes an envelope that [`wrap`] made off `event`, which is left as it is where its body is
/// something else.
///
/// # Errors
/// It is one of ours and does not hold what it says.
pub(crate) fn unwrap_marked(event: &mut Event) -> Result<Mark, &'static str> {
    static MARK: Word = Word::new(|| Finder::new("\"eventferry\""));
    if !may_be_object_with(&event.body, &MARK) {
        return Ok(Mark::None);
    }
    let body = event.body.clone();
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&body) else { return Ok(Mark::None) };
    let Some(carried) = &envelope.eventferry else { return Ok(Mark::None) };
    let carried: Carried = serde_json::from_str(carried).map_err(|_| BROKEN)?;
    event.body = match (envelope.data, envelope.data_base64) {
        (Some(data), _) => body.slice_ref(data.get().as_bytes()),
        (None, Some(text)) => Bytes::from(BASE64.decode(text).map_err(|_| BROKEN)?),
        (None, None) => Bytes::new(),
    };
    event.identify(Some(&envelope.id), Some(&envelope.source));
    event.kind = Some(envelope.r#type).filter(|kind| kind != UNTYPED).map(Into::into);
    event.subject = envelope.subject.map(Into::into);
    event.time = envelope.time.and_then(|time| crate::decode::parse_time(&time));
    event.content_type = envelope.datacontenttype.map(Into::into);
    event.key = envelope.partitionkey.map(Into::into);
    let state = envelope.traceparent.as_ref().and(envelope.tracestate).map(Into::into);
    event.trace = Trace { parent: envelope.traceparent.map(Into::into), state };
    carried.restore(event)
}

const BROKEN: &str = "the eventferry envelope is damaged";

const _: () = assert!(RESERVED.len() == 10, "the field `eventferry` of Envelope bears this name");
