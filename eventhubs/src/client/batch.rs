//! Batches: many events in one transfer, all or none of them stored, in one partition.

use fe2o3_amqp::link::delivery::Sendable;
use fe2o3_amqp_types::{
    messaging::{
        ApplicationProperties, Batch, Data, Message, MessageAnnotations, Properties,
        annotations::OwnedKey,
    },
    primitives::{OrderedMap, Symbol, Value},
};
use serde_amqp::serialized_size;

use super::{
    error::{Error, ErrorKind},
    event::EventData,
};
use crate::{annotation, limits, link};

/// Descriptor of a data section (`amqp:data:binary`).
const DATA_DESCRIPTOR: [u8; 3] = [0x00, 0x53, 0x75];
/// Format code of a binary with one byte of length.
const BINARY_8: u8 = 0xa0;
/// Format code of a binary with four bytes of length.
const BINARY_32: u8 = 0xb0;
/// What a data section costs besides its bytes: descriptor, format code and length.
const DATA_HEADER_SMALL: usize = 3 + 2;
/// The same from 256 bytes on.
const DATA_HEADER: usize = 3 + 5;

/// Where a batch goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The service picks a partition, another one each time.
    RoundRobin,
    /// The partition that this key belongs to. At most
    /// [`MAX_PARTITION_KEY_CHARS`](limits::MAX_PARTITION_KEY_CHARS) characters.
    Key(String),
    /// This partition, by its id.
    Partition(String),
}

/// Events for one target that fit one transfer. Made by [`Sender::batch`](super::Sender::batch);
/// may be sent again as it is.
#[derive(Debug)]
pub struct EventBatch {
    pub(crate) target: Target,
    pub(crate) sendable: Sendable<Batch<Data>>,
    bytes: usize,
    bytes_max: usize,
}

impl EventBatch {
    pub(crate) fn new(target: Target, bytes_max: usize) -> Result<Self, Error> {
        let mut message = Message::builder().body(Batch::new(Vec::new())).build();
        if let Target::Key(key) = &target {
            if key.chars().count() > limits::MAX_PARTITION_KEY_CHARS {
                return Err(Error::new("make batch", ErrorKind::Invalid, "partition key too long"));
            }
            message.message_annotations = Some(key_annotation(key));
        }
        let bytes = match &message.message_annotations {
            Some(annotations) => serialized_size(annotations).map_err(unencodable)?,
            None => 0,
        };
        let sendable =
            Sendable { message, message_format: link::BATCH_MESSAGE_FORMAT, settled: None };
        Ok(Self { target, sendable, bytes, bytes_max })
    }

    /// Adds an event. `Ok(false)` says that the batch is full and the event is not in it.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] when the event does not fit a batch of its own.
    pub fn try_add(&mut self, event: &EventData) -> Result<bool, Error> {
        let encoded = encode(event, &self.target)?;
        let more = section_bytes(encoded.len());
        if self.bytes + more <= self.bytes_max {
            self.bytes += more;
            self.sendable.message.body.push(Data(encoded.into()));
            return Ok(true);
        }
        if self.is_empty() {
            let detail = format!("{} bytes encoded, {} allowed", self.bytes + more, self.bytes_max);
            return Err(Error::new("make batch", ErrorKind::TooLarge, detail));
        }
        Ok(false)
    }

    /// Where it goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.sendable.message.body.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its exact size as encoded.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The exact number of bytes that `event` adds to a batch for `target`. Does not touch the body.
///
/// # Errors
/// A property that AMQP cannot encode.
pub fn bytes_in_batch(event: &EventData, target: &Target) -> Result<usize, Error> {
    let sections = sections(event, target)?.len();
    Ok(section_bytes(sections + section_bytes(event.body.len())))
}

/// A data section with so many bytes in it.
fn section_bytes(content: usize) -> usize {
    let header = if content <= usize::from(u8::MAX) { DATA_HEADER_SMALL } else { DATA_HEADER };
    header + content
}

/// One complete encoded message, its sections one after the other. Written by hand so that the
/// body is copied once.
fn encode(event: &EventData, target: &Target) -> Result<Vec<u8>, Error> {
    let mut encoded = sections(event, target)?;
    encoded.reserve_exact(section_bytes(event.body.len()));
    encoded.extend_from_slice(&DATA_DESCRIPTOR);
    match u8::try_from(event.body.len()) {
        Ok(length) => encoded.extend_from_slice(&[BINARY_8, length]),
        Err(_) => {
            let length = u32::try_from(event.body.len())
                .map_err(|_| Error::new("make batch", ErrorKind::TooLarge, "over 4 GiB"))?;
            encoded.push(BINARY_32);
            encoded.extend_from_slice(&length.to_be_bytes());
        }
    }
    encoded.extend_from_slice(&event.body);
    Ok(encoded)
}

/// Everything of a message that comes before its body.
fn sections(event: &EventData, target: &Target) -> Result<Vec<u8>, Error> {
    let mut encoded = Vec::new();
    let mut put = |section: Result<Vec<u8>, serde_amqp::Error>| {
        section.map(|mut bytes| encoded.append(&mut bytes)).map_err(unencodable)
    };
    let key = match target {
        Target::Key(key) => Some(key),
        Target::RoundRobin | Target::Partition(_) => event.partition_key.as_ref(),
    };
    if let Some(key) = key {
        put(serde_amqp::to_vec(&key_annotation(key)))?;
    }
    let properties = Properties {
        message_id: event.message_id.clone(),
        correlation_id: event.correlation_id.clone(),
        content_type: event.content_type.clone().map(Symbol),
        subject: event.subject.clone(),
        ..Properties::default()
    };
    if properties != Properties::default() {
        put(serde_amqp::to_vec(&properties))?;
    }
    if !event.properties.is_empty() {
        let mut map = OrderedMap::new();
        for (name, value) in &event.properties {
            map.insert(name.clone(), value.clone());
        }
        put(serde_amqp::to_vec(&ApplicationProperties(map)))?;
    }
    Ok(encoded)
}

fn key_annotation(key: &str) -> MessageAnnotations {
    let mut annotations = OrderedMap::new();
    annotations.insert(OwnedKey::from(annotation::PARTITION_KEY), Value::String(key.to_owned()));
    MessageAnnotations(annotations)
}

fn unencodable(error: serde_amqp::Error) -> Error {
    Error::new("encode event", ErrorKind::Invalid, "").with_source(error)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fe2o3_amqp_types::{
        messaging::{
            Body,
            message::__private::{Deserializable, Serializable},
        },
        primitives::SimpleValue,
    };

    use super::*;

    fn event(body: usize) -> EventData {
        EventData {
            properties: vec![
                ("n".into(), SimpleValue::Long(-1)),
                ("s".into(), SimpleValue::String("x".repeat(300))),
            ],
            message_id: Some("id".to_owned().into()),
            content_type: Some("application/json".into()),
            ..EventData::from(Bytes::from(vec![7; body]))
        }
    }

    #[test]
    fn the_size_of_a_batch_is_exactly_its_encoded_size() {
        for target in [Target::RoundRobin, Target::Key("k".repeat(128))] {
            let mut batch = EventBatch::new(target, 1 << 20).unwrap();
            for body in [0, 1, 200, 255, 256, 70_000] {
                let before = batch.bytes();
                assert!(batch.try_add(&event(body)).unwrap());
                let more = bytes_in_batch(&event(body), batch.target()).unwrap();
                assert_eq!(batch.bytes(), before + more);
                assert!(batch.try_add(&EventData::from(vec![1; body])).unwrap());
                let encoded = serde_amqp::to_vec(&Serializable(&batch.sendable.message)).unwrap();
                assert_eq!(batch.bytes(), encoded.len());
            }
        }
    }

    #[test]
    fn an_event_in_a_batch_is_one_complete_message() {
        let encoded = encode(&event(300), &Target::Key("key".into())).unwrap();
        let Deserializable(message): Deserializable<Message<Body<Value>>> =
            serde_amqp::from_slice(&encoded).unwrap();
        assert_eq!(message.message_annotations, Some(key_annotation("key")));
        assert_eq!(message.application_properties.unwrap().0.len(), 2);
        let Body::Data(data) = message.body else { panic!("data") };
        assert_eq!(data[0].0.as_ref(), [7; 300]);
    }

    #[test]
    fn a_full_batch_says_so_and_an_event_beyond_the_limit_is_an_error() {
        let mut batch = EventBatch::new(Target::RoundRobin, 1000).unwrap();
        assert!(batch.try_add(&EventData::from(vec![0; 900])).unwrap());
        assert!(!batch.try_add(&EventData::from(vec![0; 900])).unwrap());
        assert_eq!(batch.len(), 1);
        let mut empty = EventBatch::new(Target::RoundRobin, 1000).unwrap();
        let error = empty.try_add(&EventData::from(vec![0; 1000])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn a_key_over_the_limit_is_refused() {
        let error = EventBatch::new(Target::Key("k".repeat(129)), 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
