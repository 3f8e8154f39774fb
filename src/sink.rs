//! Where events go. A connector sends one batch and answers for each event; it never retries.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    cloud::{Clouds, Context},
    event::Event,
    fault::Fault,
    metadata::Packed,
    trace::Peer,
};

pub mod claim;
#[cfg(feature = "azure")]
pub mod event_hubs;
pub mod late;
pub mod memory;
#[cfg(feature = "aws")]
pub mod sns;
#[cfg(feature = "aws")]
pub mod sqs;
#[cfg(feature = "azure")]
pub mod storage_queue;

/// An event in the shape in which one sink sends it. Made once, sent as often as needed.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Name of the route that sends it: what two routes make of one event are two events.
    pub route: Arc<str>,
    /// The event.
    pub event: Arc<Event>,
    /// What [`Sink::pack`] made of it.
    pub packed: Packed,
}

/// A connected sink.
#[async_trait]
pub trait Sink: Send + Sync {
    /// What one request may hold. May change while running (a queue's limits can be edited).
    fn limits(&self) -> Limits;

    /// Puts an event into this sink's shape, with its exact size. Pure.
    ///
    /// # Errors
    /// A [`Reject`](crate::fault::Verdict::Reject) where this sink can never hold the event.
    /// Being over [`Limits::event_bytes`] is not the sink's to say: `deliver` compares.
    fn pack(&self, event: &Event) -> Result<Packed, Fault>;

    /// Sends one batch and answers for each event, in order. The batch keeps to [`Limits`].
    /// An event is confirmed only by `Ok`; an answer in doubt is a fault, and the event is sent
    /// again. Has its own deadline. Not cancelled by the pipeline before its grace period is over.
    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>>;

    /// What the URLs begin with of bodies that it stores before it sends references to them; none
    /// where it stores none.
    fn claims_root(&self) -> Option<&str> {
        None
    }

    /// Asks the service whether the target is there and may be written to, without writing.
    async fn probe(&self) -> Result<(), Fault>;
}

/// What a sink takes in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Events in a request.
    pub events: usize,
    /// Bytes of a request: the sum of [`Packed::bytes`].
    pub bytes: usize,
    /// Bytes of one event.
    pub event_bytes: usize,
    /// What becomes of the order of events that share a key.
    pub order: Order,
    /// Requests that may be under way at once.
    pub in_flight: usize,
}

/// What a sink does to the order of events that share a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It keeps none, so that nothing is held back for the sake of one.
    Lost,
    /// It keeps it, and may refuse one event of a batch and take the next: a batch holds at most
    /// one event of a key.
    OnePerBatch,
    /// It keeps it, and takes nothing of a key in a batch that is behind an event it has refused:
    /// that is [`Behind`](crate::fault::Verdict::Behind), if the whole batch was not refused.
    Together,
}

/// A sink in the configuration: exactly one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SinkConfig {
    /// An event hub.
    #[cfg(feature = "azure")]
    EventHubs(event_hubs::Config),
    /// A queue in this process.
    Memory(memory::Config),
    /// An SQS queue.
    #[cfg(feature = "aws")]
    Sqs(sqs::Config),
    /// An SNS topic.
    #[cfg(feature = "aws")]
    Sns(sns::Config),
    /// An Azure Storage Queue.
    #[cfg(feature = "azure")]
    StorageQueue(storage_queue::Config),
}

/// What a message has beside its body and its attributes, such as a group or a partition key: name
/// and value, for people.
pub type Labels = Vec<(&'static str, String)>;

/// What a kind of sink is known to do before it is asked; `check` judges routes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// In words, with its article: `a FIFO queue`.
    pub what: &'static str,
    /// Whether it hands on events of one key in the order in which they were sent.
    pub keeps_order: bool,
    /// Bytes that one event can have at most, in its encoding, unless the service is set lower.
    pub event_bytes: usize,
    /// Whether it orders by message group, so that an event without a key is in no order.
    pub needs_key: bool,
    /// Attributes that one event can have at most, where there is a limit.
    pub attributes: Option<usize>,
    /// Requests under way at once, unless the sink's `concurrency` says otherwise.
    pub in_flight: usize,
    /// What it may say it has stored and has not, where there is such a thing.
    pub loses: Option<&'static str>,
}

impl SinkConfig {
    /// What is known of it before it is asked.
    #[must_use]
    pub fn nature(&self) -> Nature {
        match self {
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => config.nature(),
            Self::Memory(config) => config.sink_nature(),
            #[cfg(feature = "aws")]
            Self::Sqs(config) => config.nature(),
            #[cfg(feature = "aws")]
            Self::Sns(config) => config.nature(),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.nature(),
        }
    }

    /// The service that it asks, and what it sends to there.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let (system, destination) = match self {
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => ("eventhubs", &config.hub),
            Self::Memory(config) => ("memory", &config.queue),
            #[cfg(feature = "aws")]
            Self::Sqs(config) => ("aws_sqs", &config.queue),
            #[cfg(feature = "aws")]
            Self::Sns(config) => ("aws.sns", &config.topic),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => ("storage_queue", &config.queue),
        };
        Peer { system, destination: destination.as_str().into() }
    }

    /// Whether its messages can say that a body is compressed or somewhere else.
    #[must_use]
    pub fn holds_marks(&self) -> bool {
        match self {
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.format != storage_queue::Format::Raw,
            _ => true,
        }
    }

    /// What the connected sink's [`Sink::pack`] makes of an event. Pure.
    ///
    /// # Errors
    /// The sink can never hold it.
    pub fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        match self {
            #[cfg(feature = "azure")]
            Self::EventHubs(_) => event_hubs::Config::pack(event),
            Self::Memory(_) => Ok(memory::Config::pack(event)),
            #[cfg(feature = "aws")]
            Self::Sqs(_) => Ok(crate::metadata::aws::pack(event)),
            #[cfg(feature = "aws")]
            Self::Sns(_) => Ok(sns::Config::pack(event)),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.pack(event),
        }
    }

    /// The greatest [`Packed::bytes`] of one event, unless the service is set lower.
    #[must_use]
    pub fn packed_bytes_max(&self) -> usize {
        match self {
            #[cfg(feature = "azure")]
            Self::StorageQueue(_) => crate::cloud::azure::queue::MESSAGE_BYTES_MAX,
            _ => self.nature().event_bytes,
        }
    }

    /// What the message of an event has beside what [`SinkConfig::pack`] answers.
    #[must_use]
    pub fn labels(&self, outgoing: &Outgoing) -> Labels {
        match self {
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => config.labels(&outgoing.event),
            Self::Memory(_) => memory::Config::labels(&outgoing.event),
            #[cfg(feature = "aws")]
            Self::Sqs(config) => config.labels(outgoing),
            #[cfg(feature = "aws")]
            Self::Sns(config) => config.labels(outgoing),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.labels(),
        }
    }

    /// What is wrong with its settings, beside those of its `clouds`: the path of a field below the
    /// kind, and why, with a hint.
    #[must_use]
    #[cfg_attr(not(feature = "azure"), expect(unused_variables, reason = "of no use to others"))]
    pub fn problems(&self, clouds: &Clouds) -> Vec<(&'static str, String)> {
        match self {
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => config.problems(),
            Self::Memory(_) => Vec::new(),
            #[cfg(feature = "aws")]
            Self::Sqs(config) => config.problems(),
            #[cfg(feature = "aws")]
            Self::Sns(config) => config.problems(),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.problems(&clouds.azure),
        }
    }

    /// Connects. Does I/O, with deadlines.
    ///
    /// # Errors
    /// The service cannot be reached or used; the daemon tries again unless it is asked not to.
    pub async fn build(&self, context: &Context) -> Result<Arc<dyn Sink>, Fault> {
        match self {
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => config.sink(context).await,
            Self::Memory(config) => config.sink(context).await,
            #[cfg(feature = "aws")]
            Self::Sqs(config) => config.sink(context).await,
            #[cfg(feature = "aws")]
            Self::Sns(config) => config.sink(context).await,
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.sink(context).await,
        }
    }
}
