//! An event of a hub in the pipeline's terms.

use std::sync::Arc;

use eventhubs::client::ReceivedEvent;

use crate::{
    cloud::event_hubs::{CORRELATION_ID, attribute, id_text},
    delivery::{Origin, Received},
    event::{Attributes, Value},
};

/// Its sequence number, its offset, and what was received. `made` is when the hub was, in
/// milliseconds since 1970: a hub that takes its name counts from the beginning again, and what is
/// there known by its place must not be taken for what was there before.
pub(super) fn received(
    event: ReceivedEvent,
    source: &Arc<str>,
    resource: &Arc<str>,
    partition: &Arc<str>,
    made: i64,
) -> (i64, String, Received) {
    let sequence = event.sequence_number;
    let properties = event.properties.into_iter();
    let mut attributes: Attributes =
        properties.map(|(name, value)| (name, attribute(value))).collect();
    if let Some(id) = event.correlation_id {
        attributes.set(CORRELATION_ID, Value::String(id_text(id)));
    }
    let received = Received {
        body: event.body,
        attributes,
        message_id: event.message_id.map(id_text),
        subject: event.subject.map(Into::into),
        content_type: event.content_type.map(Into::into),
        // Without a key, a partition is in order as a whole.
        key: Some(event.partition_key.map_or_else(|| partition.clone(), Into::into)),
        enqueued: event.enqueued_time.map(Into::into),
        xray: None,
        claimed: None,
        origin: Origin {
            source: source.clone(),
            resource: resource.clone(),
            position: format!("{partition}/{sequence}@{made:x}").into(),
        },
    };
    (sequence, event.offset.unwrap_or_default(), received)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;
    use eventhubs::client::{BodyKind, SimpleValue};

    use super::*;

    const MADE: i64 = 0x0019_3a5e_f0c7;

    fn event() -> ReceivedEvent {
        ReceivedEvent {
            body: Bytes::from_static(&[0xff, 0]),
            body_kind: BodyKind::Data,
            properties: vec![("n".into(), SimpleValue::Int(-4))],
            message_id: Some(7_u64.into()),
            correlation_id: Some("c".to_owned().into()),
            content_type: Some("text/plain".into()),
            subject: Some("s".into()),
            partition_key: Some("k".into()),
            sequence_number: 42,
            offset: Some("0:42".into()),
            enqueued_time: Some(SystemTime::UNIX_EPOCH),
        }
    }

    #[test]
    fn everything_an_event_has_is_kept() {
        let (source, hub) = ("telemetry".into(), "eventhubs://ns/devices".into());
        let (sequence, offset, received) = received(event(), &source, &hub, &"3".into(), MADE);
        assert_eq!((sequence, offset.as_str()), (42, "0:42"));
        assert_eq!(received.body, [0xff, 0].as_slice());
        assert_eq!(received.attributes.get("n"), Some(&Value::Int(-4)));
        assert_eq!(received.attributes.text(CORRELATION_ID), Some("c"));
        assert_eq!(received.message_id.as_deref(), Some("7"));
        assert_eq!(received.key.as_deref(), Some("k"));
        assert_eq!(&*received.origin.position, "3/42@193a5ef0c7");
        assert_eq!(received.enqueued, Some(time::OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn an_event_without_an_id_has_one_that_no_hub_of_this_name_gives_again() {
        for message_id in [None, Some(String::new().into())] {
            let bare = ReceivedEvent { message_id, ..event() };
            let id = |made| {
                let (source, hub) = ("s".into(), "r".into());
                let (_, _, received) = received(bare.clone(), &source, &hub, &"3".into(), made);
                crate::decode::undecoded(&received).id
            };
            assert_eq!(&*id(MADE), "3/42@193a5ef0c7");
            assert_ne!(id(MADE), id(MADE + 1));
        }
    }

    #[test]
    fn an_event_without_a_key_is_ordered_by_its_partition() {
        let bare = ReceivedEvent { partition_key: None, ..event() };
        let (_, _, received) = received(bare, &"s".into(), &"r".into(), &"3".into(), MADE);
        assert_eq!(received.key.as_deref(), Some("3"));
    }
}
