//! A dead letter as it is found.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::{
    dead_letter::DeadLetter,
    decode::{self, DecodeError, Format},
    delivery::{Origin, Received},
    event::Event,
};

/// An entry of a dead-letter sink.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The sink it was found in.
    pub sink: Arc<str>,
    /// Its place there, which no other entry has.
    pub position: Arc<str>,
    /// Why it is there; none where somebody else has put it there.
    pub record: Option<Arc<DeadLetter>>,
    /// The event as it came to the daemon that gave it up.
    pub event: Arc<Event>,
    /// Why the entry cannot be read, if it cannot: the event is then what it is as it stands.
    pub unreadable: Option<DecodeError>,
}

/// Tells an entry from all others, whenever it is read: a digest of its sink and its place there.
/// Events of one id may be parked by several journeys, and each is an entry of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark([u8; 16]);

impl Entry {
    /// What tells it from others. One that has been parked again is another.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let mut digest = Sha256::new();
        for part in [&*self.sink, &*self.position] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut mark = [0; 16];
        mark.copy_from_slice(&digest[..16]);
        Mark(mark)
    }

    /// What a message of a dead-letter sink holds.
    #[must_use]
    pub fn read(sink: &Arc<str>, received: &Received) -> Self {
        let (mut event, unreadable) = match decode::decode(received, Format::Auto) {
            Ok(event) => (event, None),
            Err(error) => (decode::undecoded(received), Some(error)),
        };
        let record = event.dead_letter.take();
        if let Some(record) = &record {
            // The way into the dead-letter sink and back is no relay.
            event.hops = record.hops;
        }
        let (sink, position) = (sink.clone(), received.origin.position.clone());
        Self { sink, position, record, event: Arc::new(event), unreadable }
    }

    /// When it was received from its source, as far as is known.
    #[must_use]
    pub fn arrived(&self) -> Option<OffsetDateTime> {
        self.record.as_ref().map(|record| record.arrived)
    }

    /// The message that could not be decoded, read once more: the source's format may have been
    /// the mistake.
    ///
    /// # Errors
    /// It cannot be decoded by this format either.
    pub(super) fn decode_again(
        &self,
        record: &DeadLetter,
        format: Format,
    ) -> Result<Event, DecodeError> {
        let event = &self.event;
        let origin = Origin {
            source: record.source.as_str().into(),
            resource: record.resource.as_str().into(),
            position: record.position.as_str().into(),
        };
        let received = Received {
            body: event.body.clone(),
            attributes: event.attributes.clone(),
            message_id: Some(event.id.clone()),
            subject: event.subject.clone(),
            content_type: event.content_type.clone(),
            key: event.key.clone(),
            enqueued: event.time,
            xray: None,
            claimed: None,
            origin,
        };
        decode::decode(&received, format)
    }
}

/// Entries for tests.
#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;
    use crate::event::{Attributes, Trace};

    pub(crate) fn foreign(id: &str) -> Entry {
        let event = Event {
            id: id.into(),
            source: "/shop".into(),
            kind: None,
            subject: None,
            time: None,
            content_type: None,
            key: None,
            trace: Trace::default(),
            hops: 0,
            attributes: Attributes::default(),
            body: r#"{"n":1}"#.into(),
            dead_letter: None,
            fitted: None,
        };
        Entry {
            sink: "parked".into(),
            position: id.into(),
            record: None,
            event: Arc::new(event),
            unreadable: None,
        }
    }

    pub(crate) fn entry(id: &str, route: &str, class: &str, at: i64) -> Entry {
        let time = OffsetDateTime::from_unix_timestamp(at).unwrap();
        let record = DeadLetter {
            route: Some(route.into()),
            sink: Some("far".into()),
            class: class.into(),
            error: "no".into(),
            attempts: 1,
            received: 1,
            source: "near".into(),
            resource: "memory:near".into(),
            position: "7".into(),
            hops: 2,
            part: None,
            arrived: time,
            first: time,
            last: time,
            redriven: 0,
            run: None,
        };
        Entry { record: Some(Arc::new(record)), ..foreign(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        fixtures::{entry, foreign},
        *,
    };
    use crate::{event::Value, metadata};

    fn received(event: &Event) -> Received {
        let packed = metadata::aws::pack(event);
        let attributes = packed.attributes.into_iter().collect();
        Received { attributes, ..Received::bare(packed.body) }
    }

    #[test]
    fn an_entry_is_the_event_as_it_came() {
        let parked = entry("e-1", "orders", "invalid", 100);
        let mut event = (*parked.event).clone();
        (event.hops, event.trace.parent) = (2, Some("00-t-p-01".into()));
        event.attributes.set("tenant", Value::string("acme"));
        let sent = Event { dead_letter: parked.record.clone(), ..event.clone() };
        let found = Entry::read(&"parked".into(), &received(&sent));
        assert_eq!((&*found.event, &found.record), (&event, &parked.record));
        assert_eq!(found.unreadable, None);
    }

    #[test]
    fn a_broken_entry_says_why() {
        let mut broken = received(&foreign("e-1").event);
        let mark = r#"{"id":"x","hops":1,"body":"base64"}"#;
        broken.attributes.set("eventferry", Value::string(mark));
        let found = Entry::read(&"parked".into(), &broken);
        assert!(found.record.is_none() && found.unreadable.is_some());
    }

    #[test]
    fn what_could_not_be_decoded_is_decoded_by_another_format() {
        let body = r#"{"specversion":"1.0","id":"c-1","source":"/s","type":"t"}"#;
        let mut parked = entry("7", "", "undecodable", 100);
        parked.event = Arc::new(Event { body: body.into(), ..(*parked.event).clone() });
        let record = parked.record.clone().unwrap();
        let decoded = parked.decode_again(&record, Format::Auto).unwrap();
        assert_eq!((&*decoded.id, decoded.kind.as_deref()), ("c-1", Some("t")));
        assert!(parked.decode_again(&record, Format::SnsEnvelope).is_err());
    }
}
