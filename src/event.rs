//! The event as the pipeline sees it: CloudEvents vocabulary around bytes that nobody copies.

use std::sync::Arc;

use bytes::Bytes;
use time::OffsetDateTime;

use crate::{claim::Reference, dead_letter::DeadLetter, metadata::fit::Fit};

/// One event on its way from a source to its sinks.
///
/// The body is what the producer wrote, after the transport's own wrapping (an SNS envelope,
/// base64) has been taken off. A CloudEvent in structured mode keeps its whole JSON as body: its
/// attributes are read from it, never cut out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// CloudEvents `id`; derived from the source position where the producer gave none, so that
    /// a redelivery has the same id.
    pub id: Arc<str>,
    /// CloudEvents `source`; the queue or hub it was read from where the producer gave none.
    pub source: Arc<str>,
    /// CloudEvents `type`.
    pub kind: Option<Arc<str>>,
    /// CloudEvents `subject`, the SNS subject, the AMQP subject.
    pub subject: Option<Arc<str>>,
    /// CloudEvents `time`; when the source accepted it where the producer gave none.
    pub time: Option<OffsetDateTime>,
    /// Media type of the body.
    pub content_type: Option<Arc<str>>,
    /// What the event is ordered by: FIFO message group, partition key, or the partition itself.
    /// It travels on to the next service.
    pub key: Option<Arc<str>>,
    /// W3C trace context of the event's creation, forwarded untouched.
    pub trace: Trace,
    /// How many relays it has passed.
    pub hops: u8,
    /// The producer's own attributes, with their types, in the order the service gave them.
    pub attributes: Attributes,
    /// The payload.
    pub body: Bytes,
    /// Why this event was parked; only on events that go to a dead-letter sink or come from one.
    pub dead_letter: Option<Arc<DeadLetter>>,
    /// What its body stands for, where the event is made to fit a sink; none on an event that is
    /// whole, as all are that `decode` makes.
    pub fitted: Option<Fitted>,
}

impl Event {
    /// Takes up an id and a source that were given to it. One that is empty names nothing, and
    /// leaves what the service has said: what deduplicates by it would take all such events for one.
    pub(crate) fn identify(&mut self, id: Option<&str>, source: Option<&str>) {
        let named = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(Arc::from);
        if let Some(id) = named(id) {
            self.id = id;
        }
        if let Some(source) = named(source) {
            self.source = source;
        }
    }
}

/// The event that one was made of because it is too large for its sink.
#[derive(Debug, Clone, PartialEq)]
pub enum Fitted {
    /// The body is this one's, compressed.
    Compressed(Arc<Event>),
    /// The body is a reference to this one's.
    Claimed(Arc<Event>, Reference),
}

impl Fitted {
    /// What was done to the body.
    #[must_use]
    pub fn how(&self) -> Fit {
        match self {
            Self::Compressed(_) => Fit::Zstd,
            Self::Claimed(..) => Fit::ClaimCheck,
        }
    }

    /// The event as it was before.
    #[must_use]
    pub fn whole(&self) -> &Arc<Event> {
        match self {
            Self::Compressed(whole) | Self::Claimed(whole, _) => whole,
        }
    }
}

/// Whether a body of this media type is JSON: it is, where none is given. Media types are the same
/// in capitals (RFC 2045, section 5.1).
#[must_use]
pub fn is_json(media: Option<&str>) -> bool {
    let names = |media: &str| media.as_bytes().windows(4).any(|w| w.eq_ignore_ascii_case(b"json"));
    media.is_none_or(names)
}

/// W3C trace context, as the two headers carry it. Opaque: a relay does not judge it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`.
    pub parent: Option<Arc<str>>,
    /// `tracestate`.
    pub state: Option<Arc<str>>,
}

/// A typed attribute value: the union of what SQS/SNS message attributes and AMQP application
/// properties can say.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// AMQP null.
    Null,
    /// Text.
    String(Arc<str>),
    /// A decimal number as text, the way SQS and SNS hold it.
    Number(Arc<str>),
    /// Bytes.
    Binary(Bytes),
    /// AMQP boolean.
    Bool(bool),
    /// AMQP byte, short, int, ubyte or ushort.
    Int(i32),
    /// AMQP long or uint.
    Long(i64),
    /// AMQP ulong.
    ULong(u64),
    /// AMQP float or double.
    Double(f64),
    /// AMQP timestamp: milliseconds since 1970.
    Timestamp(i64),
    /// AMQP uuid.
    Uuid(uuid::Uuid),
    /// An SQS/SNS type with a custom label (`String.gif`): the label after the dot, and the value.
    Labelled(Arc<str>, Box<Value>),
}

impl Value {
    /// A text value.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    fn bytes(&self) -> usize {
        match self {
            Self::String(text) | Self::Number(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Labelled(label, inner) => label.len() + inner.bytes(),
            _ => size_of::<Self>(),
        }
    }

    /// The text of a [`Value::String`] or [`Value::Number`].
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Number(text) => Some(text),
            Self::Labelled(_, inner) => inner.as_str(),
            _ => None,
        }
    }
}

/// Attributes in order, with unique names. Cloning shares them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes(Arc<Vec<(Arc<str>, Value)>>);

impl Attributes {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| &**n == name).map(|(_, v)| v)
    }

    /// The text of `name`, where it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Sets `name`, replacing a former value in its place.
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: Value) {
        let name = name.into();
        let list = Arc::make_mut(&mut self.0);
        match list.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => list.push((name, value)),
        }
    }

    /// Takes `name` out. Copies nothing where there is no such attribute.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(n, _)| &**n == name)?;
        Some(Arc::make_mut(&mut self.0).remove(at).1)
    }

    /// Name and value, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Value)> {
        self.0.iter().map(|(n, v)| (n, v))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes of names and values, roughly: what they take in memory.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.bytes()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<Arc<str>>> FromIterator<(N, Value)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(iter: I) -> Self {
        let mut attributes = Self::default();
        for (name, value) in iter {
            attributes.set(name, value);
        }
        attributes
    }
}
