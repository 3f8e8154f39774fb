//! Positions and events in the SDK's terms and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use azure_core_amqp::{
    AmqpSimpleValue, AmqpSymbol,
    message::{AmqpMessageBody, AmqpMessageId, AmqpMessageProperties},
};
use azure_messaging_eventhubs::{
    StartLocation, StartPosition,
    models::{AmqpMessage, ReceivedEventData},
};
use eventhubs::{
    annotation::PARTITION_KEY,
    client::{Error, ErrorKind, EventData, MessageId, ReceivedEvent, SimpleValue},
    filter::Position,
};

/// Where to start.
pub(super) fn start(position: &Position) -> StartPosition {
    let (location, inclusive) = match position {
        Position::Earliest => (StartLocation::Earliest, false),
        Position::Latest => (StartLocation::Latest, false),
        Position::Offset { offset, inclusive } => {
            (StartLocation::Offset(offset.clone()), *inclusive)
        }
        Position::SequenceNumber { number, inclusive } => {
            (StartLocation::SequenceNumber(*number), *inclusive)
        }
        Position::EnqueuedTime { millis, inclusive } => {
            (StartLocation::EnqueuedTime(time(*millis).unwrap_or(UNIX_EPOCH)), *inclusive)
        }
    };
    StartPosition { location, inclusive }
}

/// The SDK panics on what is before 1970.
fn time(millis: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(millis).ok()?))
}

/// A received event. It goes through its encoding: the SDK's own view of an event has neither a
/// subject nor a body in several parts.
pub(super) fn received(event: &ReceivedEventData) -> Result<ReceivedEvent, Error> {
    let encoded = AmqpMessage::serialize(event.raw_amqp_message());
    let encoded = encoded.map_err(|error| super::meaning("receive", &error))?;
    ReceivedEvent::from_bytes(&encoded)
}

/// An event to send.
pub(super) fn sent(event: &EventData) -> Result<AmqpMessage, Error> {
    let properties = AmqpMessageProperties {
        message_id: event.message_id.as_ref().map(id),
        correlation_id: event.correlation_id.as_ref().map(id),
        content_type: event.content_type.clone().map(AmqpSymbol),
        subject: event.subject.clone(),
        ..AmqpMessageProperties::default()
    };
    let mut message = AmqpMessage::builder()
        .with_properties(properties)
        .with_body(AmqpMessageBody::Binary(vec![event.body.to_vec()]));
    for (name, property) in &event.properties {
        message = message.add_application_property(name.clone(), value(name, property)?);
    }
    let mut message = message.build();
    if let Some(key) = &event.partition_key {
        message.add_message_annotation(AmqpSymbol::from(PARTITION_KEY), key.clone());
    }
    Ok(message)
}

fn id(id: &MessageId) -> AmqpMessageId {
    match id {
        MessageId::String(text) => AmqpMessageId::String(text.clone()),
        MessageId::Ulong(number) => AmqpMessageId::Ulong(*number),
        MessageId::Uuid(id) => AmqpMessageId::Uuid(uuid::Uuid::from_bytes(id.clone().into_inner())),
        MessageId::Binary(bytes) => AmqpMessageId::Binary(bytes.to_vec()),
    }
}

/// Of the types that [`property`](super::super::property) makes.
fn value(name: &str, value: &SimpleValue) -> Result<AmqpSimpleValue, Error> {
    let cannot = |what: &str| {
        let detail = format!("the SDK cannot write {what}, as property `{name}` is");
        Error::new("encode event", ErrorKind::Rejected, detail)
    };
    Ok(match value {
        SimpleValue::Null => AmqpSimpleValue::Null,
        SimpleValue::Bool(value) => AmqpSimpleValue::Boolean(*value),
        SimpleValue::Int(value) => AmqpSimpleValue::Int(*value),
        SimpleValue::Long(value) => AmqpSimpleValue::Long(*value),
        SimpleValue::Ulong(value) => AmqpSimpleValue::ULong(*value),
        SimpleValue::Double(value) => AmqpSimpleValue::Double(value.0),
        SimpleValue::String(text) => AmqpSimpleValue::String(text.clone()),
        SimpleValue::Binary(bytes) => AmqpSimpleValue::Binary(bytes.to_vec()),
        SimpleValue::Uuid(id) => {
            AmqpSimpleValue::Uuid(uuid::Uuid::from_bytes(id.clone().into_inner()))
        }
        SimpleValue::Timestamp(millis) => {
            let time = time(millis.milliseconds()).ok_or_else(|| cannot("a time before 1970"))?;
            AmqpSimpleValue::TimeStamp(time.into())
        }
        _ => return Err(cannot("a value of this type")),
    })
}

#[cfg(test)]
mod tests {
    use azure_core_amqp::AmqpValue;
    use eventhubs::client::{BodyKind, Timestamp};

    use super::*;

    fn arrived(body: AmqpMessageBody) -> ReceivedEvent {
        let mut message = AmqpMessage::builder().with_body(body).build();
        message.add_message_annotation(AmqpSymbol::from("x-opt-sequence-number"), 7_i64);
        received(&message.into()).unwrap()
    }

    #[test]
    fn every_kind_of_body_becomes_bytes() {
        for (body, kind, bytes) in [
            (AmqpMessageBody::Binary(vec![vec![1], vec![2]]), BodyKind::Data, vec![1, 2]),
            (AmqpMessageBody::Value("hi".into()), BodyKind::Value, b"hi".to_vec()),
            (AmqpMessageBody::Value(AmqpValue::UByte(9)), BodyKind::Value, vec![0x50, 9]),
            // The SDK writes no body as a null.
            (AmqpMessageBody::Empty, BodyKind::Value, vec![]),
        ] {
            let event = arrived(body);
            assert_eq!((event.body_kind, event.body.to_vec()), (kind, bytes));
            assert_eq!(event.sequence_number, 7);
        }
    }

    #[test]
    fn what_is_sent_is_what_is_received() {
        let properties = vec![
            ("n".to_owned(), SimpleValue::Null),
            ("b".to_owned(), SimpleValue::Bool(true)),
            ("i".to_owned(), SimpleValue::Int(-4)),
            ("l".to_owned(), SimpleValue::Long(i64::MIN)),
            ("u".to_owned(), SimpleValue::Ulong(u64::MAX)),
            ("d".to_owned(), SimpleValue::Double(0.5.into())),
            ("s".to_owned(), SimpleValue::String("text".into())),
            ("x".to_owned(), SimpleValue::Binary(vec![0xff].into())),
            (
                "t".to_owned(),
                SimpleValue::Timestamp(Timestamp::from_milliseconds(1_700_000_000_123)),
            ),
            ("g".to_owned(), SimpleValue::Uuid([7; 16].into())),
        ];
        let event = EventData {
            body: vec![0xff, 0].into(),
            properties: properties.clone(),
            message_id: Some("m".to_owned().into()),
            correlation_id: Some(7_u64.into()),
            content_type: Some("text/plain".into()),
            subject: Some("s".into()),
            partition_key: Some("k".into()),
        };
        let mut message = sent(&event).unwrap();
        message.add_message_annotation(AmqpSymbol::from("x-opt-sequence-number"), 42_i64);
        message.add_message_annotation(AmqpSymbol::from("x-opt-offset"), "0:42");
        let back = received(&message.into()).unwrap();
        assert_eq!(back.properties, properties);
        assert_eq!((back.body, back.message_id), (event.body, event.message_id));
        assert_eq!((back.correlation_id, back.subject), (event.correlation_id, event.subject));
        assert_eq!(back.content_type, event.content_type);
        assert_eq!(back.partition_key, event.partition_key);
        assert_eq!((back.sequence_number, back.offset.as_deref()), (42, Some("0:42")));
    }

    #[test]
    fn a_time_before_1970_is_refused_not_a_panic() {
        let early = SimpleValue::Timestamp(Timestamp::from_milliseconds(-1));
        let properties = vec![("born".to_owned(), early)];
        let error = sent(&EventData { properties, ..EventData::default() }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        let start = start(&Position::EnqueuedTime { millis: i64::MIN, inclusive: true });
        assert_eq!(start.location, StartLocation::EnqueuedTime(UNIX_EPOCH));
    }

    #[test]
    fn an_event_without_a_sequence_number_is_an_error_not_a_panic() {
        let bare = AmqpMessage::builder().build();
        assert_eq!(received(&bare.into()).unwrap_err().kind(), ErrorKind::Protocol);
    }
}
