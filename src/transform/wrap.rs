//! `wrap` and `unwrap`: the envelopes that consumers and producers of the two clouds know.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::{
    Draft, Failure,
    path::{Own, from_json, to_json},
};
use crate::{
    decode::sns_envelope,
    event::is_json,
    metadata::{RESERVED, rfc3339},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

/// An envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// CloudEvents 1.0 in JSON, with the producer's attributes as extensions.
    CloudEvents,
    /// What SNS puts around a message for a queue.
    Sns,
    /// What EventBridge puts around an event: `detail-type` is the type, `detail` the body.
    EventBridge,
}

/// What CloudEvents puts at the top itself, and the extension that is ours: one of that name that is
/// not would have the next relay take the body for an envelope of ours that is damaged.
/// <https://github.com/cloudevents/spec/blob/main/cloudevents/formats/json-format.md>
const CLOUD_EVENTS_OWN: [&str; 11] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "partitionkey",
    "data",
    "data_base64",
    RESERVED,
];
/// CloudEvents and EventBridge demand a type; this one says that there is none.
const UNTYPED: &str = "eventferry.untyped";

impl Envelope {
    /// Puts it around the body.
    ///
    /// # Errors
    /// The envelope can hold JSON or text alone, and the body is neither.
    pub fn wrap(self, draft: &mut Draft) -> Result<(), Failure> {
        let body = match self {
            Self::CloudEvents => cloud_event(draft),
            Self::Sns => notification(draft)?,
            Self::EventBridge => event_bridge(draft)?,
        };
        draft.set_json(body);
        let media = match self {
            Self::CloudEvents => "application/cloudevents+json",
            Self::Sns | Self::EventBridge => "application/json",
        };
        draft.event_mut().content_type = Some(media.into());
        Ok(())
    }

    /// Takes it off, and what it says about the event over.
    ///
    /// # Errors
    /// The body is no such envelope.
    pub fn unwrap(self, draft: &mut Draft) -> Result<(), Failure> {
        match self {
            Self::CloudEvents => unwrap_cloud_event(draft),
            Self::Sns => {
                draft.bytes();
                if !sns_envelope::unwrap(draft.event_mut()) {
                    return Err(other("an SNS envelope"));
                }
                let body = draft.event().body.clone();
                draft.set_bytes(body);
                Ok(())
            }
            Self::EventBridge => unwrap_event_bridge(draft),
        }
    }
}

fn other(what: &str) -> Failure {
    Failure::new("unwrap", format!("the body is not {what}"))
}

/// The body as JSON, where it is.
fn json_body(draft: &mut Draft) -> Option<Json> {
    if is_json(draft.event().content_type.as_deref()) { draft.look().ok().cloned() } else { None }
}

fn cloud_event(draft: &mut Draft) -> Json {
    let data = json_body(draft);
    let bytes = if data.is_none() { draft.bytes().clone() } else { Bytes::new() };
    let event = draft.event();
    let mut members = Map::new();
    // Extension names are lower-case letters and digits.
    for (name, value) in event.attributes.iter() {
        let legal = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if legal && !CLOUD_EVENTS_OWN.contains(&&**name) {
            members.insert(name.to_string(), to_json(value));
        }
    }
    let kind = event.kind.as_deref().unwrap_or(UNTYPED);
    members.insert("specversion".into(), "1.0".into());
    members.insert("id".into(), (*event.id).into());
    members.insert("source".into(), (*event.source).into());
    members.insert("type".into(), kind.into());
    let optional = [
        ("subject", event.subject.as_deref().map(str::to_owned)),
        ("time", event.time.and_then(rfc3339)),
        ("datacontenttype", event.content_type.as_deref().map(str::to_owned)),
        ("partitionkey", event.key.as_deref().map(str::to_owned)),
    ];
    for (name, value) in optional {
        members.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    match data {
        Some(data) => members.insert("data".into(), data),
        None if bytes.is_empty() => None,
        None => match std::str::from_utf8(&bytes) {
            // Of a media type that says JSON, or of none, a text in `data` would be a JSON string.
            Ok(text) if !is_json(event.content_type.as_deref()) => {
                members.insert("data".into(), text.into())
            }
            _ => members.insert("data_base64".into(), BASE64.encode(&bytes).into()),
        },
    };
    Json::Object(members)
}

fn unwrap_cloud_event(draft: &mut Draft) -> Result<(), Failure> {
    let not = || other("a CloudEvent in JSON");
    let Json::Object(mut members) = draft.json()?.take() else { return Err(not()) };
    let version = members.get("specversion").and_then(Json::as_str);
    if !version.is_some_and(|version| version.starts_with("1.")) {
        return Err(not());
    }
    let (data, encoded) = (members.remove("data"), members.remove("data_base64"));
    members.remove("specversion");
    let own = [
        ("id", Own::Id),
        ("source", Own::Source),
        ("type", Own::Type),
        ("subject", Own::Subject),
        ("time", Own::Time),
        ("partitionkey", Own::Key),
    ];
    for (name, own) in own {
        match members.remove(name) {
            // It stands for none, whatever the event around it has.
            Some(value) if own == Own::Type && value == UNTYPED => draft.event_mut().kind = None,
            Some(value) => own.set(draft.event_mut(), value)?,
            None => {}
        }
    }
    let media = members.remove("datacontenttype");
    Own::DataContentType.set(draft.event_mut(), media.clone().unwrap_or(Json::Null))?;
    for (name, value) in members {
        if let Some(value) = from_json(value) {
            draft.event_mut().attributes.set(name, value);
        }
    }
    let is_json = is_json(media.as_ref().and_then(Json::as_str));
    match (data, encoded) {
        (Some(Json::String(text)), _) if !is_json => draft.set_bytes(text.into()),
        (Some(data), _) => draft.set_json(data),
        (None, Some(Json::String(text))) => {
            let bytes = BASE64.decode(text);
            draft.set_bytes(
                bytes.map_err(|_| other("a CloudEvent with base64 in `data_base64`"))?.into(),
            );
        }
        (None, _) => draft.set_bytes(Bytes::new()),
    }
    Ok(())
}

/// The body as text: SNS holds nothing else.
fn text_body(draft: &mut Draft) -> Result<String, Failure> {
    let text = std::str::from_utf8(draft.bytes());
    let not_text = |_| Failure::new("wrap", "the body is not UTF-8; encode it as base64 before");
    text.map(str::to_owned).map_err(not_text)
}

/// <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>
fn notification(draft: &mut Draft) -> Result<Json, Failure> {
    let message = text_body(draft)?;
    let event = draft.event();
    let attributes = event.attributes.iter().map(|(name, value)| {
        let (kind, text) = match to_json(value) {
            Json::Number(number) => ("Number", number.to_string()),
            Json::String(text) => ("String", text),
            other => ("String", other.to_string()),
        };
        (name.to_string(), json!({ "Type": kind, "Value": text }))
    });
    let attributes: Map<String, Json> = attributes.collect();
    Ok(json!({
        "Type": "Notification",
        "MessageId": &*event.id,
        "TopicArn": &*event.source,
        "Subject": event.subject.as_deref(),
        "Message": message,
        "Timestamp": event.time.and_then(rfc3339),
        "MessageAttributes": attributes,
    }))
}

/// <https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html>
fn event_bridge(draft: &mut Draft) -> Result<Json, Failure> {
    let Some(detail) = json_body(draft) else {
        return Err(Failure::new("wrap", "the body is no JSON, and `detail` holds nothing else"));
    };
    let event = draft.event();
    Ok(json!({
        "version": "0",
        "id": &*event.id,
        "source": &*event.source,
        "detail-type": event.kind.as_deref().unwrap_or(UNTYPED),
        "time": event.time.and_then(rfc3339),
        "resources": event.subject.as_deref().map_or_else(Vec::new, |subject| vec![subject]),
        "detail": detail,
    }))
}

fn unwrap_event_bridge(draft: &mut Draft) -> Result<(), Failure> {
    let not = || other("an EventBridge event");
    let Json::Object(mut members) = draft.json()?.take() else { return Err(not()) };
    let (Some(detail), Some(kind)) = (members.remove("detail"), members.remove("detail-type"))
    else {
        return Err(not());
    };
    let event = draft.event_mut();
    Own::Type.set(event, if kind == UNTYPED { Json::Null } else { kind })?;
    for (name, own) in [("id", Own::Id), ("source", Own::Source), ("time", Own::Time)] {
        if let Some(value) = members.remove(name).filter(|value| !value.is_null()) {
            own.set(event, value)?;
        }
    }
    if let Some(Json::Array(resources)) = members.remove("resources") {
        Own::Subject.set(event, resources.into_iter().next().unwrap_or_default())?;
    }
    for name in ["account", "region"] {
        if let Some(value) = members.remove(name).and_then(from_json) {
            event.attributes.set(name, value);
        }
    }
    event.content_type = Some("application/json".into());
    draft.set_json(detail);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Value},
        transform::tests::event,
    };

    fn full(body: &'static [u8], media: &str) -> Event {
        Event {
            subject: Some("s".into()),
            kind: Some("order.placed".into()),
            content_type: Some(media.into()),
            attributes: [("n", Value::Number("7".into())), ("tenant", Value::string("acme"))]
                .into_iter()
                .collect(),
            body: Bytes::from_static(body),
            ..event()
        }
    }

    #[test]
    fn what_is_wrapped_is_unwrapped_again() {
        for (envelope, event) in [
            (Envelope::CloudEvents, full(b"{\"a\":1}", "application/json")),
            (Envelope::CloudEvents, full(b"plain", "text/plain")),
            (Envelope::CloudEvents, full(b"\xff\x00", "application/octet-stream")),
            (Envelope::CloudEvents, full(b"", "text/plain")),
            (Envelope::CloudEvents, full(b"no json", "application/json")),
            (Envelope::CloudEvents, full(b"\"a text\"", "Application/JSON")),
            (Envelope::CloudEvents, Event { content_type: None, ..full(b"plain", "") }),
            (Envelope::Sns, full(b"{\"a\":1}", "application/json")),
            (Envelope::EventBridge, full(b"{\"a\":1}", "application/json")),
        ] {
            let mut draft = Draft::new(event.clone());
            envelope.wrap(&mut draft).unwrap();
            let wrapped = draft.clone().finish();
            assert_ne!(wrapped.body, event.body);
            let mut blank =
                Draft::new(Event { body: wrapped.body.clone(), ..super::super::tests::event() });
            envelope.unwrap(&mut blank).unwrap();
            let unwrapped = blank.finish();
            assert_eq!(unwrapped.body, event.body, "{envelope:?}");
            assert_eq!(unwrapped.subject, event.subject, "{envelope:?}");
            assert_eq!(unwrapped.id, event.id);
            if envelope != Envelope::Sns {
                assert_eq!(unwrapped.kind, event.kind, "{envelope:?}");
            }
            if envelope != Envelope::EventBridge {
                assert_eq!(unwrapped.attributes, event.attributes, "{envelope:?}");
            }
        }
    }

    #[test]
    fn an_event_without_a_type_comes_back_without_one() {
        for envelope in [Envelope::CloudEvents, Envelope::EventBridge] {
            let mut draft = Draft::new(Event { body: "1".into(), ..event() });
            envelope.wrap(&mut draft).unwrap();
            envelope.unwrap(&mut draft).unwrap();
            assert_eq!(draft.finish().kind, None, "{envelope:?}");
        }
    }

    /// Found by fuzzing.
    #[test]
    fn what_stands_for_no_type_may_be_an_id() {
        let body = json!({"specversion": "1.0", "id": UNTYPED, "source": UNTYPED, "type": "t"});
        let mut draft = Draft::new(Event { body: body.to_string().into(), ..event() });
        Envelope::CloudEvents.unwrap(&mut draft).unwrap();
        let event = draft.finish();
        assert_eq!((&*event.id, &*event.source), (UNTYPED, UNTYPED));
    }

    #[test]
    fn an_event_without_a_type_has_none_though_what_carried_it_has_one() {
        let body = json!({"specversion": "1.0", "id": "i", "source": "s", "type": UNTYPED});
        let kind = Some("carrier".into());
        let mut draft = Draft::new(Event { body: body.to_string().into(), kind, ..event() });
        Envelope::CloudEvents.unwrap(&mut draft).unwrap();
        assert_eq!(draft.finish().kind, None);
    }

    /// Found by fuzzing.
    #[test]
    fn no_attribute_makes_an_envelope_of_ours() {
        let mut event = full(b"plain", "text/plain");
        event.attributes.set(RESERVED, Value::string("of somebody else"));
        let mut draft = Draft::new(event);
        Envelope::CloudEvents.wrap(&mut draft).unwrap();
        let body: Json = serde_json::from_slice(draft.bytes()).unwrap();
        assert_eq!((body.get(RESERVED), &body["tenant"]), (None, &"acme".into()));
    }

    #[test]
    fn what_is_no_envelope_fails() {
        for body in ["", "x", "{}", "[]", "{\"specversion\": \"0.3\"}"] {
            for envelope in [Envelope::CloudEvents, Envelope::Sns, Envelope::EventBridge] {
                let mut draft = Draft::new(Event { body: body.into(), ..event() });
                assert!(envelope.unwrap(&mut draft).is_err(), "{body} {envelope:?}");
            }
        }
        let mut binary = Draft::new(full(b"\xff", "application/octet-stream"));
        assert!(Envelope::Sns.wrap(&mut binary).is_err());
        assert!(Envelope::EventBridge.wrap(&mut binary).is_err());
    }
}
