//! Events as they go in and as they come out.

use std::time::SystemTime;

use bytes::Bytes;
use fe2o3_amqp_types::{
    messaging::{
        AmqpSequence, AmqpValue, Batch, Body, Message, MessageId, annotations::AnnotationKey,
        message::__private::Deserializable,
    },
    primitives::{SimpleValue, Value},
};

use super::{
    error::{Error, ErrorKind},
    properties::system_time,
};
use crate::annotation;

/// An event to send.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventData {
    /// The payload, sent as one AMQP data section.
    pub body: Bytes,
    /// Application properties, with their AMQP types and in order. Names should be unique: of two
    /// alike the last one is sent.
    pub properties: Vec<(String, SimpleValue)>,
    /// `message-id`. The service does not look at it.
    pub message_id: Option<MessageId>,
    /// `correlation-id`.
    pub correlation_id: Option<MessageId>,
    /// `content-type`.
    pub content_type: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// Written onto the event as its partition key, for those who receive it. Where the event goes
    /// is the [`Target`](super::Target)'s to say; a batch for a key writes that key.
    pub partition_key: Option<String>,
}

impl<B: Into<Bytes>> From<B> for EventData {
    fn from(body: B) -> Self {
        Self { body: body.into(), ..Self::default() }
    }
}

/// Which AMQP body section an event came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Data sections: the bytes, joined where there were several. What every Event Hubs SDK sends.
    Data,
    /// One AMQP value. A string or a binary gives its bytes, null gives none; any other value
    /// gives its AMQP encoding.
    Value,
    /// AMQP sequences: their AMQP encoding, each a list, one after the other.
    Sequence,
    /// No body at all.
    Empty,
}

/// An event as the service handed it out.
#[derive(Debug, Clone, PartialEq)]
pub struct ReceivedEvent {
    /// The payload. See [`BodyKind`] for bodies that are not plain bytes.
    pub body: Bytes,
    /// What kind of body the publisher wrote.
    pub body_kind: BodyKind,
    /// Application properties, with their AMQP types and in order.
    pub properties: Vec<(String, SimpleValue)>,
    /// `message-id`, as the publisher set it.
    pub message_id: Option<MessageId>,
    /// `correlation-id`.
    pub correlation_id: Option<MessageId>,
    /// `content-type`.
    pub content_type: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// The partition key it was sent with.
    pub partition_key: Option<String>,
    /// Its position in the partition: rising, and without gaps unless events were lost.
    pub sequence_number: i64,
    /// Its position as the service writes it. Opaque: not a number, and not ordered as text.
    pub offset: Option<String>,
    /// When the service took it, by the service's clock.
    pub enqueued_time: Option<SystemTime>,
}

impl ReceivedEvent {
    /// Reads a whole encoded message, as somebody else has received it.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] when it is no message, or has no sequence number: without it, nobody
    /// can say where to resume.
    pub fn from_bytes(encoded: &[u8]) -> Result<Self, Error> {
        let message = serde_amqp::from_slice::<Deserializable<Message<Body<Value>>>>(encoded)
            .map_err(|error| protocol("no AMQP message").with_source(error))?;
        Self::from_message(message.0)
    }

    /// Fails only when there is no sequence number: without it, we cannot say where to resume.
    pub(crate) fn from_message(message: Message<Body<Value>>) -> Result<Self, Error> {
        let (body_kind, body) = body_bytes(message.body)?;
        let properties = message.properties.unwrap_or_default();
        let annotations = message.message_annotations.unwrap_or_default();
        let annotation = |key: &'static str| annotations.0.get(&key as &dyn AnnotationKey);
        let sequence_number = match annotation(annotation::SEQUENCE_NUMBER) {
            Some(Value::Long(number)) => *number,
            Some(Value::Int(number)) => i64::from(*number),
            _ => return Err(protocol("an event without a sequence number")),
        };
        let string = |key| match annotation(key) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        };
        let enqueued_time = match annotation(annotation::ENQUEUED_TIME) {
            Some(Value::Timestamp(time)) => Some(system_time(time.milliseconds())),
            _ => None,
        };
        let application = message.application_properties.map(|map| map.0.into_inner());
        Ok(Self {
            body,
            body_kind,
            properties: application.into_iter().flatten().collect(),
            message_id: properties.message_id,
            correlation_id: properties.correlation_id,
            content_type: properties.content_type.map(|symbol| symbol.0),
            subject: properties.subject,
            partition_key: string(annotation::PARTITION_KEY),
            sequence_number,
            offset: string(annotation::OFFSET),
            enqueued_time,
        })
    }

    /// What it takes in memory, roughly: body and properties.
    pub(crate) fn bytes(&self) -> usize {
        let properties =
            self.properties.iter().map(|(name, value)| name.len() + value_bytes(value));
        self.body.len() + properties.sum::<usize>()
    }
}

fn value_bytes(value: &SimpleValue) -> usize {
    match value {
        SimpleValue::String(text) => text.len(),
        SimpleValue::Symbol(symbol) => symbol.0.len(),
        SimpleValue::Binary(bytes) => bytes.len(),
        _ => size_of::<SimpleValue>(),
    }
}

fn body_bytes(body: Body<Value>) -> Result<(BodyKind, Bytes), Error> {
    Ok(match body {
        Body::Data(sections) => (BodyKind::Data, join_data(sections)),
        Body::Value(AmqpValue(value)) => (BodyKind::Value, value_body(value)?),
        Body::Sequence(sections) => (BodyKind::Sequence, sequence_body(sections)?),
        Body::Empty => (BodyKind::Empty, Bytes::new()),
    })
}

fn join_data(sections: Batch<fe2o3_amqp_types::messaging::Data>) -> Bytes {
    let mut sections = sections.into_iter().map(|section| section.0.into_vec());
    let mut body = sections.next().unwrap_or_default();
    for section in sections {
        body.extend_from_slice(&section);
    }
    body.into()
}

fn value_body(value: Value) -> Result<Bytes, Error> {
    Ok(match value {
        Value::String(text) => text.into(),
        Value::Binary(bytes) => bytes.into_vec().into(),
        Value::Null => Bytes::new(),
        other => encoded(&other)?.into(),
    })
}

fn sequence_body(sections: Batch<AmqpSequence<Value>>) -> Result<Bytes, Error> {
    let mut body = Vec::new();
    for AmqpSequence(items) in sections {
        body.append(&mut encoded(&Value::List(items))?);
    }
    Ok(body.into())
}

fn encoded(value: &Value) -> Result<Vec<u8>, Error> {
    serde_amqp::to_vec(value)
        .map_err(|error| protocol("a body that cannot be kept").with_source(error))
}

fn protocol(what: &'static str) -> Error {
    Error::new("receive", ErrorKind::Protocol, what)
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp_types::messaging::{Data, MessageAnnotations};

    use super::*;

    fn message(body: Body<Value>) -> Message<Body<Value>> {
        let annotations = MessageAnnotations::builder()
            .insert(annotation::SEQUENCE_NUMBER, Value::Long(7))
            .insert(annotation::OFFSET, Value::String("0:7".into()))
            .build();
        Message::builder().message_annotations(annotations).body(body).build()
    }

    #[test]
    fn every_kind_of_body_becomes_bytes() {
        let two = Body::Data(vec![Data(vec![1].into()), Data(vec![2].into())].into());
        let text = Body::Value(AmqpValue(Value::String("hi".into())));
        let number = Body::Value(AmqpValue(Value::Ubyte(9)));
        let sequence = Body::Sequence(vec![AmqpSequence(vec![Value::Null])].into());
        for (body, kind, bytes) in [
            (two, BodyKind::Data, vec![1, 2]),
            (text, BodyKind::Value, b"hi".to_vec()),
            (number, BodyKind::Value, vec![0x50, 9]),
            (sequence, BodyKind::Sequence, vec![0xc0, 2, 1, 0x40]),
            (Body::Empty, BodyKind::Empty, vec![]),
        ] {
            let event = ReceivedEvent::from_message(message(body)).unwrap();
            assert_eq!((event.body_kind, event.body.to_vec()), (kind, bytes));
            assert_eq!((event.sequence_number, event.offset.as_deref()), (7, Some("0:7")));
        }
    }

    #[test]
    fn an_event_without_a_sequence_number_is_an_error_not_a_panic() {
        let bare = Message::builder().body(Body::<Value>::Empty).build();
        let error = ReceivedEvent::from_message(bare).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}
