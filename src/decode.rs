//! From what a source received to an [`Event`]. Pure; never panics on what comes from outside.

use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    claim::Reference,
    delivery::{Claimed, Received},
    event::{Event, Trace, Value},
    metadata::{Carried, DIAGNOSTIC_ID, Mark, RESERVED, TRACEPARENT, TRACESTATE, envelope},
    trace::SpanContext,
};

pub mod cloudevents;
pub mod sns_envelope;
pub mod xray;

/// What a source's messages hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Recognized message by message: an SNS envelope, a CloudEvent, or neither.
    #[default]
    Auto,
    /// Nothing is looked for: the body is the payload.
    Raw,
    /// CloudEvents 1.0, structured JSON or binary; anything else is dead-lettered.
    CloudEvents,
    /// The JSON envelope that SNS puts around a message; anything else is dead-lettered.
    SnsEnvelope,
}

/// A message that is not what it claims or is configured to be. Says which, never the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub &'static str);

/// Decodes one message.
///
/// # Errors
/// It is not of `format`, or carries our own marks and they are broken, or its body is not where
/// it refers to. The pipeline dead-letters it as [`undecoded`].
pub fn decode(received: &Received, format: Format) -> Result<Event, DecodeError> {
    let (mut event, mark) = read(received, format)?;
    let Mark::Claimed(reference) = mark else { return Ok(event) };
    match &received.claimed {
        Some(Claimed::Body(body)) => reference.redeem(&mut event, body.clone()),
        Some(Claimed::Lost(why)) => return Err(DecodeError(why)),
        Some(Claimed::Away) | None => return Err(DecodeError(NOT_FOLLOWED)),
    }
    Ok(event)
}

const NOT_FOLLOWED: &str = "its body is in an object store; name the store in `claim_check`";

/// Where the body of a message is, if it refers to an object store.
#[must_use]
pub fn reference(received: &Received, format: Format) -> Option<Reference> {
    // Most messages do not, and are decoded once.
    static MARK: Word = Word::new(|| Finder::new("claim_check"));
    let marked = received.attributes.text(RESERVED).is_some_and(|text| MARK.is_in(text.as_bytes()));
    if !marked && !MARK.is_in(&received.body) {
        return None;
    }
    match read(received, format) {
        Ok((_, Mark::Claimed(reference))) => Some(reference),
        _ => None,
    }
}

/// A message's event, but for a body that is in an object store.
fn read(received: &Received, format: Format) -> Result<(Event, Mark), DecodeError> {
    let mut event = undecoded(received);
    if format == Format::Raw {
        return Ok((event, Mark::None));
    }
    let mut carried = if format == Format::SnsEnvelope { None } else { take_carried(&mut event) };
    // What bears our mark holds the very body, also where that looks like an envelope itself.
    if carried.is_none() && matches!(format, Format::Auto | Format::SnsEnvelope) {
        let found = sns_envelope::unwrap(&mut event);
        if !found && format == Format::SnsEnvelope {
            return Err(DecodeError("not an SNS envelope"));
        }
        carried = take_carried(&mut event);
    }
    lift_trace(&mut event, received);
    let mark = match carried {
        Some(carried) => carried.restore(&mut event),
        None => envelope::unwrap_marked(&mut event),
    };
    let mark = mark.map_err(DecodeError)?;
    if mark != Mark::None {
        return Ok((event, mark));
    }
    let found = cloudevents::read(&mut event);
    if !found && format == Format::CloudEvents {
        return Err(DecodeError("not a CloudEvent"));
    }
    Ok((event, Mark::None))
}

/// The message as it came, with an id from its place at the source.
#[must_use]
pub fn undecoded(received: &Received) -> Event {
    // A producer may have left it empty, which names nothing.
    let id = received.message_id.clone().filter(|id| !id.is_empty());
    Event {
        id: id.unwrap_or_else(|| received.origin.position.clone()),
        source: received.origin.resource.clone(),
        kind: None,
        subject: received.subject.clone(),
        time: received.enqueued,
        content_type: received.content_type.clone(),
        key: received.key.clone(),
        trace: Trace::default(),
        hops: 0,
        attributes: received.attributes.clone(),
        body: received.body.clone(),
        dead_letter: None,
        fitted: None,
    }
}

/// Trace context stands in attributes of its own name in three of the four services; the name of
/// older SDKs and the X-Ray header are the last resorts.
fn lift_trace(event: &mut Event, received: &Received) {
    // The state means nothing without its parent.
    let parent = lift_text(event, TRACEPARENT);
    let state = parent.as_ref().and_then(|_| lift_text(event, TRACESTATE));
    // The same under the name of older SDKs; what else they write there is no trace context.
    let is_context = |older: &str| match &parent {
        Some(parent) => **parent == *older,
        None => SpanContext::parse(older).is_some(),
    };
    let has_older = event.attributes.text(DIAGNOSTIC_ID).is_some_and(is_context);
    let older = if has_older { lift_text(event, DIAGNOSTIC_ID) } else { None };
    let parent = parent.or(older);
    let parent = parent.or_else(|| received.xray.as_deref().and_then(xray::traceparent));
    event.trace = Trace { parent, state };
}

/// Takes an attribute out, if it is text.
fn lift_text(event: &mut Event, name: &str) -> Option<Arc<str>> {
    let Some(Value::String(text)) = event.attributes.get(name) else { return None };
    let text = text.clone();
    event.attributes.remove(name);
    Some(text)
}

/// What another eventferry carried. A foreign attribute of our name is left alone.
fn take_carried(event: &mut Event) -> Option<Carried<'static>> {
    let carried = serde_json::from_str(event.attributes.text(RESERVED)?).ok()?;
    event.attributes.remove(RESERVED);
    Some(carried)
}

/// RFC 3339 time, with the offset that CloudEvents demands.
#[must_use]
pub fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Whether the bytes may be a JSON object that names `word`: a cheap look before a parse, at every
/// event that comes.
pub(crate) fn may_be_object_with(body: &[u8], word: &Word) -> bool {
    let begins = body.trim_ascii_start().first() == Some(&b'{');
    // A parser does not look at what it passes over.
    begins && word.is_in(body) && std::str::from_utf8(body).is_ok()
}

/// What is looked for in many bodies.
pub(crate) struct Word(LazyLock<Finder<'static>>);

impl Word {
    pub(crate) const fn new(make: fn() -> Finder<'static>) -> Self {
        Self(LazyLock::new(make))
    }

    fn is_in(&self, body: &[u8]) -> bool {
        self.0.find(body).is_some()
    }
}

/// Shared text, where there is any.
fn shared(text: Option<String>) -> Option<Arc<str>> {
    text.map(Into::into)
}

#[cfg(test)]
mod tests;
