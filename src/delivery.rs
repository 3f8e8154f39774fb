//! What a source hands out, and how it ends: every delivery ends once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::Attributes;

/// One message as a source received it, untouched. Shared by everything that is made of it: the
/// decoded event, its branches to several sinks, and the dead letter that must carry the original.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The bytes of the body, as the service gave them (base64 and envelopes still on).
    pub body: Bytes,
    /// The native attributes with their types.
    pub attributes: Attributes,
    /// The producer's own message id where the service has such a field (AMQP `message-id`).
    /// Not an id that the service made up: that belongs into [`Origin::position`].
    pub message_id: Option<Arc<str>>,
    /// The native subject.
    pub subject: Option<Arc<str>>,
    /// The native content type.
    pub content_type: Option<Arc<str>>,
    /// What the source orders by: message group, partition key, or else the partition.
    pub key: Option<Arc<str>>,
    /// When the service accepted it, by the service's clock.
    pub enqueued: Option<OffsetDateTime>,
    /// The SQS system attribute `AWSTraceHeader`.
    pub xray: Option<Arc<str>>,
    /// Where it came from.
    pub origin: Origin,
    /// What was found where its body refers to an object store, if that was looked for.
    pub claimed: Option<Claimed>,
}

/// The body that a message refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// This one.
    Body(Bytes),
    /// It cannot be had, for this reason.
    Lost(&'static str),
    /// It cannot be had now; or an earlier message of the same key has none now, and this one must
    /// not overtake it. The message goes back to its source.
    Away,
}

impl Received {
    /// A message that has nothing but a body, from nowhere in particular.
    #[cfg(test)]
    pub(crate) fn bare(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            attributes: Attributes::default(),
            message_id: None,
            subject: None,
            content_type: None,
            key: None,
            enqueued: None,
            xray: None,
            origin: Origin { source: "s".into(), resource: "r".into(), position: "p".into() },
            claimed: None,
        }
    }

    /// Bytes of body and attributes, which bound what is in flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let claimed = match &self.claimed {
            Some(Claimed::Body(body)) => body.len(),
            _ => 0,
        };
        self.body.len() + claimed + self.attributes.bytes()
    }
}

/// Where a message came from, precisely enough to find it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Name of the source in the configuration.
    pub source: Arc<str>,
    /// The queue or hub as a URI reference, such as `aws:sqs:eu-west-1:123456789012:orders`
    /// or `eventhubs://demo.servicebus.windows.net/devices`.
    pub resource: Arc<str>,
    /// The message's place there, which no other message of this resource has or will have: the
    /// service's id of it, or `partition/sequence@made`, the last when the hub was made.
    pub position: Arc<str>,
}

/// A received message together with the duty to settle it.
///
/// Forgetting one can only duplicate: what is never settled stays leased until its lease ends, or
/// holds its partition's checkpoint where it is.
#[derive(Debug, Clone)]
#[must_use = "an unsettled delivery comes back when its lease ends"]
pub struct Delivery {
    /// The message.
    pub received: Arc<Received>,
    /// 1 for the first time the service hands it out, as far as the service counts.
    pub attempt: u32,
    /// What the source needs to settle it.
    pub token: Token,
    /// When it was received; the lease counts from here.
    pub since: Instant,
    /// What it depends on beside itself, where it is of a log.
    pub ties: Option<Ties>,
}

/// What a delivery of a log depends on beside itself: once they are cut, it comes again, and must
/// not be sent before.
#[derive(Debug, Clone)]
pub struct Ties {
    /// For how long its partition is ours.
    pub tenure: Tenure,
    /// Those of its key that are out with it; none where it has no key.
    pub row: Option<Row>,
}

impl Ties {
    /// Whether the delivery of this sequence number must not be sent any more.
    #[must_use]
    pub fn are_cut(&self, sequence: i64) -> bool {
        let is_overtaken = |row: &Row| row.is_broken_before(sequence);
        self.tenure.is_over() || self.row.as_ref().is_some_and(is_overtaken)
    }
}

/// The deliveries of one key of a log that are out together. Once one of them goes back, those
/// behind it go back as well, however far they have come: sent before it, they would overtake it.
/// Clones are the same one.
#[derive(Debug, Clone)]
pub struct Row(Arc<AtomicI64>);

/// No sequence number is larger.
const WHOLE: i64 = i64::MAX;

impl Row {
    /// One of which nothing has gone back.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(WHOLE)))
    }

    /// The delivery of this sequence number goes back.
    pub fn break_at(&self, sequence: i64) {
        self.0.fetch_min(sequence, Ordering::AcqRel);
    }

    /// Whether one has gone back.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire) < WHOLE
    }

    /// Whether one before this sequence number has gone back.
    #[must_use]
    pub fn is_broken_before(&self, sequence: i64) -> bool {
        self.0.load(Ordering::Acquire) < sequence
    }
}

impl Default for Row {
    fn default() -> Self {
        Self::new()
    }
}

/// For how long a partition is ours. All that is received meanwhile knows when it is over: then
/// another replica has it, and what has not been sent is theirs to send. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Tenure {
    number: u64,
    over: CancellationToken,
}

impl Tenure {
    /// One that begins now.
    #[must_use]
    pub fn begin() -> Self {
        static BEGUN: AtomicU64 = AtomicU64::new(0);
        Self { number: BEGUN.fetch_add(1, Ordering::Relaxed), over: CancellationToken::new() }
    }

    /// No other tenure of this process has this number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Ends it, for everybody who knows it.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits for its end. Cancel-safe.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }
}

/// What a source needs to settle or extend one delivery. Unique among its open deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Token {
    /// The service leases each message by itself (SQS, Storage Queues).
    Lease {
        /// Made up by the source, rising with every delivery.
        serial: u64,
        /// Receipt handle, or message id and pop receipt.
        handle: Arc<str>,
    },
    /// The service keeps a log and we keep a position in it (Event Hubs).
    Position {
        /// The partition.
        partition: Arc<str>,
        /// The number of the tenure in which it was received: what is left of an earlier one must
        /// not be taken for it.
        tenure: u64,
        /// Its sequence number there.
        sequence: i64,
    },
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every sink that accepted it has confirmed it.
    Delivered,
    /// It had been delivered before.
    Duplicate,
    /// No route wants it, and the configuration says that such events may go.
    Filtered,
    /// A dead-letter sink has confirmed it.
    DeadLettered,
    /// It is not done; the source shall offer it again.
    Returned {
        /// Not before this; at once where there is none.
        after: Option<Duration>,
    },
}

impl Outcome {
    /// Whether the event may leave its source.
    pub fn is_done(self) -> bool {
        !matches!(self, Self::Returned { .. })
    }
}

/// The end of one delivery, on its way back to its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Which one.
    pub token: Token,
    /// How it ended.
    pub outcome: Outcome,
}
