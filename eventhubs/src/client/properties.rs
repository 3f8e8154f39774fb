//! What hubs and partitions say about themselves.

use std::time::{Duration, SystemTime};

use fe2o3_amqp_management::{
    error::{Error as NodeError, InvalidType},
    request::Request,
    response::Response,
};
use fe2o3_amqp_types::{
    messaging::{AmqpValue, ApplicationProperties, Body, IntoBody, Message},
    primitives::{Array, OrderedMap, Value},
};

use super::error::{Error, ErrorKind};
use crate::{filter::Position, management};

/// A hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubProperties {
    /// Its name.
    pub name: String,
    /// When it was made. A hub that was deleted and made again has a newer time: positions from
    /// before mean nothing in it.
    pub created_at: SystemTime,
    /// The ids of its partitions.
    pub partition_ids: Vec<String>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProperties {
    /// Its id.
    pub id: String,
    /// The number of the oldest event that is kept.
    pub begin_sequence_number: i64,
    /// The number of the newest event; -1 when there was never one.
    pub last_enqueued_sequence_number: i64,
    /// The offset of the newest event.
    pub last_enqueued_offset: String,
    /// When the newest event came.
    pub last_enqueued_time: SystemTime,
    /// Whether no event is kept at the moment.
    pub is_empty: bool,
}

impl PartitionProperties {
    /// Where a receiver starts that is to begin at `position`: the end becomes a number, so that
    /// nothing that comes later can be missed, and a number below all becomes the beginning.
    ///
    /// # Errors
    /// [`ErrorKind::PositionInvalid`] when the partition ends before it.
    pub fn start(&self, position: Position) -> Result<Position, Error> {
        let last = self.last_enqueued_sequence_number;
        match position {
            // Never an event so far: the first one to come is the oldest as well.
            Position::Latest if last < 0 => Ok(Position::Earliest),
            Position::Latest => Ok(Position::SequenceNumber { number: last, inclusive: false }),
            Position::SequenceNumber { number: ..0, .. } => Ok(Position::Earliest),
            Position::SequenceNumber { number, inclusive }
                if number - i64::from(inclusive) > last =>
            {
                let number = number - i64::from(inclusive);
                let id = &self.id;
                let detail =
                    format!("event {number} was never in partition {id}: it ends at {last}");
                Err(Error::new("attach receiver", ErrorKind::PositionInvalid, detail))
            }
            other => Ok(other),
        }
    }

    /// Whether the partition holds events after `position`.
    pub fn has_after(&self, position: &Position) -> bool {
        match position {
            Position::SequenceNumber { number, inclusive } => {
                self.last_enqueued_sequence_number + i64::from(*inclusive) > *number
            }
            Position::Earliest => !self.is_empty,
            Position::EnqueuedTime { millis, .. } => {
                !self.is_empty && self.last_enqueued_time > system_time(*millis)
            }
            Position::Latest => false,
            Position::Offset { offset, .. } => {
                !self.is_empty && self.last_enqueued_offset != *offset
            }
        }
    }
}

/// A READ request for a hub, or for one of its partitions.
pub(crate) struct Read<T> {
    hub: String,
    partition: Option<String>,
    answer: std::marker::PhantomData<T>,
}

impl Read<HubProperties> {
    pub(crate) fn hub(hub: &str) -> Self {
        Self { hub: hub.to_owned(), partition: None, answer: std::marker::PhantomData }
    }
}

impl Read<PartitionProperties> {
    pub(crate) fn partition(hub: &str, partition: &str) -> Self {
        let partition = Some(partition.to_owned());
        Self { hub: hub.to_owned(), partition, answer: std::marker::PhantomData }
    }
}

impl<T: Response> Request for Read<T> {
    const OPERATION: &'static str = management::READ;
    type Response = T;
    type Body = NoBody;

    fn manageable_entity_type(&mut self) -> Option<String> {
        let kind = if self.partition.is_some() {
            management::TYPE_PARTITION
        } else {
            management::TYPE_HUB
        };
        Some(kind.to_owned())
    }

    fn encode_application_properties(&mut self) -> Option<ApplicationProperties> {
        let mut properties =
            ApplicationProperties::builder().insert(management::NAME, self.hub.clone());
        if let Some(partition) = &self.partition {
            properties = properties.insert(management::PARTITION, partition.clone());
        }
        Some(properties.build())
    }

    fn encode_body(self) -> NoBody {
        NoBody
    }
}

/// An AMQP null: a request has nothing to say beyond its properties.
pub(crate) struct NoBody;

impl IntoBody for NoBody {
    type Body = AmqpValue<()>;

    fn into_body(self) -> Self::Body {
        AmqpValue(())
    }
}

impl Response for HubProperties {
    const STATUS_CODE: u16 = management::OK as u16;
    type Body = Body<Value>;
    type Error = NodeError;

    fn decode_message(message: Message<Self::Body>) -> Result<Self, NodeError> {
        let fields = Fields::of(message)?;
        Ok(Self {
            name: fields.string(management::NAME)?,
            created_at: fields.time(management::CREATED_AT)?,
            partition_ids: fields.strings(management::PARTITION_IDS)?,
        })
    }
}

impl Response for PartitionProperties {
    const STATUS_CODE: u16 = management::OK as u16;
    type Body = Body<Value>;
    type Error = NodeError;

    fn decode_message(message: Message<Self::Body>) -> Result<Self, NodeError> {
        let fields = Fields::of(message)?;
        Ok(Self {
            id: fields.string(management::PARTITION)?,
            begin_sequence_number: fields.long(management::BEGIN_SEQUENCE_NUMBER)?,
            last_enqueued_sequence_number: fields
                .long(management::LAST_ENQUEUED_SEQUENCE_NUMBER)?,
            last_enqueued_offset: fields.string(management::LAST_ENQUEUED_OFFSET)?,
            last_enqueued_time: fields.time(management::LAST_ENQUEUED_TIME)?,
            is_empty: fields.bool(management::IS_PARTITION_EMPTY)?,
        })
    }
}

/// The map of a response.
struct Fields(OrderedMap<Value, Value>);

impl Fields {
    fn of(message: Message<Body<Value>>) -> Result<Self, NodeError> {
        match message.body {
            Body::Value(AmqpValue(Value::Map(map))) => Ok(Self(map)),
            _ => Err(wrong("body", "map")),
        }
    }

    fn get(&self, key: &'static str) -> Option<&Value> {
        self.0.get(&Value::String(key.to_owned()))
    }

    fn string(&self, key: &'static str) -> Result<String, NodeError> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(wrong(key, "string")),
        }
    }

    fn strings(&self, key: &'static str) -> Result<Vec<String>, NodeError> {
        let items = match self.get(key) {
            Some(Value::Array(Array(items)) | Value::List(items)) => items,
            _ => return Err(wrong(key, "array of string")),
        };
        let text = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            _ => Err(wrong(key, "array of string")),
        };
        items.iter().map(text).collect()
    }

    fn long(&self, key: &'static str) -> Result<i64, NodeError> {
        match self.get(key) {
            Some(Value::Long(number)) => Ok(*number),
            Some(Value::Int(number)) => Ok(i64::from(*number)),
            _ => Err(wrong(key, "long")),
        }
    }

    fn bool(&self, key: &'static str) -> Result<bool, NodeError> {
        match self.get(key) {
            Some(Value::Bool(value)) => Ok(*value),
            _ => Err(wrong(key, "boolean")),
        }
    }

    fn time(&self, key: &'static str) -> Result<SystemTime, NodeError> {
        match self.get(key) {
            Some(Value::Timestamp(time)) => Ok(system_time(time.milliseconds())),
            _ => Err(wrong(key, "timestamp")),
        }
    }
}

fn wrong(key: &'static str, expected: &'static str) -> NodeError {
    InvalidType { expected: format!("{key}: {expected}"), actual: "something else".into() }.into()
}

/// An AMQP timestamp as system time. Times that the system cannot hold become 1970.
pub(crate) fn system_time(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = if millis >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}
