//! Metadata across clouds, without loss.
//!
//! What a service can hold natively travels natively: attributes with their types, W3C trace
//! context, subject, key. What it cannot hold travels in one reserved attribute,
//! [`RESERVED`], as a small JSON document ([`Carried`]), and is put back on the far side by
//! [`decode`](crate::decode). Sinks pack with the functions here; nobody else knows the rules.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    claim::Reference,
    dead_letter::DeadLetter,
    event::{Event, Fitted, Value},
};

pub mod aws;
pub mod envelope;
pub mod fit;
mod text;

use fit::Fit;

/// Name of the one attribute (SQS, SNS), application property (Event Hubs) or CloudEvents
/// extension (Storage Queues) that is ours.
pub const RESERVED: &str = "eventferry";
/// W3C trace context, under the name that every service's attributes use.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state.
pub const TRACESTATE: &str = "tracestate";

/// What older SDKs for Azure call the trace context of a message; the newer ones write both:
/// <https://learn.microsoft.com/azure/azure-monitor/app/custom-operations-tracking>.
pub const DIAGNOSTIC_ID: &str = "Diagnostic-Id";

/// An event in the shape of one kind of service.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// The body as it goes onto the wire.
    pub body: Bytes,
    /// Native attributes, ours and trace context among them, in types that the service has.
    pub attributes: Vec<(Arc<str>, Value)>,
    /// What it counts against the service's limits.
    pub bytes: usize,
}

/// What travels in [`RESERVED`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", default)]
pub struct Carried<'a> {
    /// Event id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// Event source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Cow<'a, str>>,
    /// Event type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Cow<'a, str>>,
    /// Subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Cow<'a, str>>,
    /// Event time.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub time: Option<OffsetDateTime>,
    /// Media type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Cow<'a, str>>,
    /// Ordering key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Cow<'a, str>>,
    /// Relays passed, this one included.
    pub hops: u8,
    /// How the body is written where the service takes text alone; on top of `fit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyEncoding>,
    /// How the body was made to fit, where it is too large as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// Types of native attributes that the service's own types do not tell apart.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Attributes that did not fit, as type and text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<Cow<'a, str>, (Cow<'a, str>, Cow<'a, str>)>,
    /// Trace context, where there was no native place left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<(Cow<'a, str>, Option<Cow<'a, str>>)>,
    /// Why it was parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<Cow<'a, DeadLetter>>,
}

/// How a body is written for a text-only service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyEncoding {
    /// Standard base64 with padding.
    Base64,
    /// There was none, where the service wants one: what stands there means nothing.
    Empty,
}

impl<'a> Carried<'a> {
    /// Everything of `event` that is not body, attributes or trace.
    fn of(event: &'a Event) -> Self {
        Self {
            id: Some(Cow::Borrowed(&event.id)),
            source: Some(Cow::Borrowed(&event.source)),
            kind: event.kind.as_deref().map(Cow::Borrowed),
            subject: event.subject.as_deref().map(Cow::Borrowed),
            // Years beyond four digits cannot be written, and must not take the rest with them.
            time: event.time.filter(|time| rfc3339(*time).is_some()),
            content_type: event.content_type.as_deref().map(Cow::Borrowed),
            key: event.key.as_deref().map(Cow::Borrowed),
            hops: event.hops.saturating_add(1),
            fit: event.fitted.as_ref().map(Fitted::how),
            dead_letter: event.dead_letter.as_deref().map(Cow::Borrowed),
            ..Self::default()
        }
    }

    /// Lets an attribute travel here as a whole.
    fn carry(&mut self, name: &'a str, value: &Value) {
        let (label, written) = text::to_text(value);
        self.more.insert(Cow::Borrowed(name), (label.into(), written.into()));
    }

    /// Notes the type of an attribute that travels natively in a poorer one.
    fn note_type(&mut self, name: &'a str, label: Option<String>) {
        if let Some(label) = label {
            self.types.insert(Cow::Borrowed(name), label.into());
        }
    }

    fn to_json(&self) -> String {
        // A struct of strings and maps with string keys always serializes.
        let json = serde_json::to_string(self).unwrap_or_default();
        // JSON leaves them as they are, and XML knows them not: SQS and SNS would refuse the event.
        if json.contains(['\u{fffe}', '\u{ffff}']) {
            return json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff");
        }
        json
    }

    /// Puts back onto `event` what travelled here. The native attributes are in place already.
    ///
    /// # Errors
    /// The body or an attribute says that it is encoded, and is not.
    pub(crate) fn restore(self, event: &mut Event) -> Result<Mark, &'static str> {
        match self.body {
            Some(BodyEncoding::Base64) => {
                let bytes = BASE64.decode(&event.body);
                event.body = Bytes::from(bytes.map_err(|_| "body is not the base64 it claims")?);
            }
            Some(BodyEncoding::Empty) => event.body = Bytes::new(),
            None => {}
        }
        let mark = match self.fit {
            None => Mark::Whole,
            Some(Fit::Zstd) => {
                event.body = fit::decompress(&event.body)?;
                Mark::Whole
            }
            Some(Fit::ClaimCheck) => Mark::Claimed(Reference::read(&event.body)?),
        };
        let retype = |label: &str, written: &str| {
            text::from_text(label, written).ok_or("an attribute is not of the type it claims")
        };
        for (name, label) in &self.types {
            if let Some(native) = event.attributes.get(name) {
                let value = retype(label, &text::to_text(native).1)?;
                event.attributes.set(&**name, value);
            }
        }
        for (name, (label, written)) in &self.more {
            event.attributes.set(&**name, retype(label, written)?);
        }
        if let Some((parent, state)) = self.trace {
            let state = state.as_deref().map(Into::into);
            event.trace = crate::event::Trace { parent: Some((&*parent).into()), state };
        }
        let put = |place: &mut Option<Arc<str>>, text: Option<Cow<'_, str>>| {
            if let Some(text) = text {
                *place = Some((&*text).into());
            }
        };
        event.identify(self.id.as_deref(), self.source.as_deref());
        put(&mut event.kind, self.kind);
        put(&mut event.subject, self.subject);
        put(&mut event.content_type, self.content_type);
        put(&mut event.key, self.key);
        event.time = self.time.or(event.time);
        event.hops = self.hops;
        event.dead_letter = self.dead_letter.map(|record| Arc::new(record.into_owned()));
        Ok(mark)
    }
}

/// What a message bears of ours.
#[derive(Debug, PartialEq)]
pub(crate) enum Mark {
    /// Nothing.
    None,
    /// All that its event is.
    Whole,
    /// All but the body of its event, which is in an object store.
    Claimed(Reference),
}

/// The application properties of `event` for an AMQP message, ours and trace context among them.
/// Id, subject, content type and key have places of their own there: the Event Hubs sink sets them.
/// A content type that is not ASCII travels in ours: its place there can hold no other.
#[must_use]
pub fn amqp_properties(event: &Event) -> Vec<(Arc<str>, Value)> {
    let mut carried = Carried::of(event);
    (carried.id, carried.subject) = (None, None);
    carried.content_type = carried.content_type.filter(|text| !text.is_ascii());
    let mut native = Vec::with_capacity(event.attributes.len() + 4);
    for (name, value) in event.attributes.iter() {
        if [RESERVED, TRACEPARENT, TRACESTATE].contains(&&**name) {
            carried.carry(name, value);
            continue;
        }
        let (value, label) = amqp_value(value);
        carried.note_type(name, label);
        native.push((name.clone(), value));
    }
    if let Some(parent) = &event.trace.parent {
        native.push((TRACEPARENT.into(), Value::String(parent.clone())));
        if let Some(state) = &event.trace.state {
            native.push((TRACESTATE.into(), Value::String(state.clone())));
        }
        if event.attributes.get(DIAGNOSTIC_ID).is_none() {
            native.push((DIAGNOSTIC_ID.into(), Value::String(parent.clone())));
        }
    }
    native.push((RESERVED.into(), Value::string(carried.to_json())));
    native
}

/// A value in an AMQP type, and the label that restores it where that type is not its own.
fn amqp_value(value: &Value) -> (Value, Option<String>) {
    match value {
        Value::Number(text) => {
            let native = match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(whole), _) if whole.to_string() == **text => Value::Long(whole),
                (_, Ok(real)) if real.to_string() == **text => Value::Double(real),
                _ => Value::String(text.clone()),
            };
            (native, Some("number".into()))
        }
        Value::Labelled(..) => {
            let (label, written) = text::to_text(value);
            (Value::string(written), Some(label))
        }
        other => (other.clone(), None),
    }
}

/// RFC 3339, the way CloudEvents writes time.
pub(crate) fn rfc3339(time: OffsetDateTime) -> Option<String> {
    time.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests;
