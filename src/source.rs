//! Where events come from. A source is two halves: a long poll never holds up a settlement.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    claim::Store,
    cloud::{Clouds, Context},
    config::units::Size,
    decode::Format,
    delivery::{Delivery, Settled, Token},
    fault::Fault,
    trace::Peer,
};

pub mod audit;
pub mod claim;
#[cfg(feature = "azure")]
pub mod event_hubs;
pub mod log;
pub mod memory;
pub mod positions;
#[cfg(feature = "aws")]
pub mod sns;
#[cfg(feature = "aws")]
pub mod sqs;
#[cfg(feature = "azure")]
pub mod storage_queue;

use claim::ResolvingReceive;
use positions::Positions;

/// A connected source, as its connector built it.
pub struct Source {
    /// The half that receives.
    pub receive: Box<dyn Receive>,
    /// The half that settles.
    pub settle: Box<dyn Settle>,
    /// Whether events with the same key must be delivered in the order they are received.
    pub ordered: bool,
    /// How long the service hides a delivery from others; `None` for a log that we keep a
    /// position in.
    pub lease: Option<Lease>,
    /// What keeps the partitions that it shares with other replicas.
    pub hold: Option<Box<dyn Hold>>,
}

/// The share of a source that this replica holds, where replicas share it by a store.
#[async_trait]
pub trait Hold: Send {
    /// Takes its share, renews it and gives of it, for as long as the source runs. `settled` says
    /// that all is settled and the last checkpoint written: then it gives everything up and ends.
    async fn run(self: Box<Self>, settled: CancellationToken);
}

impl Source {
    /// The same, whose messages of `format` may refer to bodies in `store`.
    #[must_use]
    pub fn resolving(mut self, store: &Arc<Store>, format: Format) -> Self {
        if format != Format::Raw {
            self.receive = Box::new(ResolvingReceive::new(self.receive, store.clone(), format));
        }
        self
    }
}

/// The terms on which a service hands out a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How long a delivery stays ours without an extension.
    pub duration: Duration,
    /// How long it can stay ours with extensions, counted from the receive.
    pub total_max: Duration,
}

/// The receiving half.
#[async_trait]
pub trait Receive: Send {
    /// The next messages, in the source's order. Waits until there are some or a long poll has
    /// ended; an empty answer is no error. The connector reconnects by itself; a [`Fault`] says
    /// that this call failed, and the pipeline calls again after a back-off.
    ///
    /// Cancel-safe: a dropped call loses nothing and hands nothing out twice; what was under way
    /// is handed out by the next call or by [`Receive::close`].
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault>;

    /// What was asked for before brings this next; nothing more is asked for. `None` when nothing
    /// is under way: then the source is at rest, and [`Receive::receive`] goes on from there.
    /// Cancel-safe.
    async fn wind_down(&mut self) -> Option<Result<Vec<Delivery>, Fault>> {
        None
    }

    /// Stops receiving for good, within about a second. Answers what a poll in flight still
    /// brought; the pipeline returns it at once.
    async fn close(&mut self) -> Vec<Delivery> {
        Vec::new()
    }
}

/// The settling half. Its calls never overlap, so that an extension and a settlement of the same
/// message cannot race for its handle.
#[async_trait]
pub trait Settle: Send {
    /// Ends deliveries: deletes what [`is_done`](crate::delivery::Outcome::is_done), offers the
    /// rest again (a lease is given back after its delay; a log hands the event out again itself).
    /// Answers those that could not be settled, each with its own fault; they are tried again by
    /// the pipeline until their lease has run out. Settling what is gone already counts as done.
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)>;

    /// Holds the leases of open deliveries for `by` from now. A source without leases is never
    /// asked.
    async fn extend(&mut self, open: &[Token], by: Duration) -> Extended {
        let _ = (open, by);
        Extended::default()
    }

    /// Writes what a restart needs (checkpoints). Called now and then, and last at the end.
    async fn checkpoint(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// How much waits at the service, per partition where there are any. One cheap call.
    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        Ok(Vec::new())
    }
}

/// What has become of leases that were to be extended: all that is not named here has been.
#[derive(Debug, Default)]
pub struct Extended {
    /// Those that are lost for good: their messages will come again.
    pub lost: Vec<Token>,
    /// Those of which it is not known, to be asked for again before they end.
    pub unknown: Vec<Token>,
    /// Why that is so, of one of them.
    pub fault: Option<Fault>,
}

/// What waits at a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// The partition; empty where the source has none.
    pub partition: String,
    /// Events not yet settled.
    pub events: u64,
    /// When the service took the oldest one, as far as that is known.
    pub oldest: Option<OffsetDateTime>,
    /// How far it is read, if it is a log.
    pub reach: Option<Reach>,
}

/// How far a log is read, by sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The last one up to which everything is settled.
    pub settled: i64,
    /// The oldest one that is kept.
    pub first: i64,
    /// The newest one.
    pub last: i64,
}

impl Reach {
    /// Of what is kept, the share that is settled: the nearer to 0, the sooner events go that
    /// nobody has read. 1 while a log has never let go of anything.
    #[must_use]
    pub fn margin(&self) -> f64 {
        let kept = self.last.saturating_sub(self.first).saturating_add(1);
        if self.first <= 0 || kept <= 0 {
            return 1.0;
        }
        let settled = self.settled.saturating_sub(self.first).saturating_add(1);
        (settled as f64 / kept as f64).clamp(0.0, 1.0)
    }
}

/// The earlier of two times, as far as they are known.
#[must_use]
pub(crate) fn earlier(
    one: Option<OffsetDateTime>,
    other: Option<OffsetDateTime>,
) -> Option<OffsetDateTime> {
    one.into_iter().chain(other).min()
}

/// A source in the configuration: one connector, and what holds for every kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// What the admin API of this daemon was asked to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<audit::Config>,
    /// An event hub.
    #[cfg(feature = "azure")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_hubs: Option<event_hubs::Config>,
    /// A queue in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<memory::Config>,
    /// An SQS queue.
    #[cfg(feature = "aws")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqs: Option<sqs::Config>,
    /// An SNS topic.
    #[cfg(feature = "aws")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sns: Option<sns::Config>,
    /// An Azure Storage Queue.
    #[cfg(feature = "azure")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_queue: Option<storage_queue::Config>,
    /// What the messages hold.
    #[serde(default)]
    pub format: Format,
    /// How much may be between receive and settle at once.
    #[serde(default)]
    pub max_in_flight: InFlight,
}

/// A bound on what is between receive and settle. Whichever is reached first stops the intake;
/// one more batch of the connector may come on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InFlight {
    /// Events.
    pub events: usize,
    /// Bytes of their bodies and attributes.
    pub bytes: Size,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { events: 10_000, bytes: Size(64 << 20) }
    }
}

/// One kind of source; the compiler lists what a new kind must supply.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    /// What the admin API of this daemon was asked to change.
    Audit(&'a audit::Config),
    /// An event hub.
    #[cfg(feature = "azure")]
    EventHubs(&'a event_hubs::Config),
    /// A queue in this process.
    Memory(&'a memory::Config),
    /// An SQS queue.
    #[cfg(feature = "aws")]
    Sqs(&'a sqs::Config),
    /// An SNS topic.
    #[cfg(feature = "aws")]
    Sns(&'a sns::Config),
    /// An Azure Storage Queue.
    #[cfg(feature = "azure")]
    StorageQueue(&'a storage_queue::Config),
}

/// What a kind of source is known to do before it is asked; `check` judges routes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// In words, with its article: `a FIFO queue`.
    pub what: &'static str,
    /// What its events are in order by, such as `message group`, if by anything.
    pub ordered_by: Option<&'static str>,
    /// Whether it is a log whose position we keep, and lose with the state.
    pub is_log: bool,
    /// Bytes that one of its events can have at most.
    pub event_bytes: usize,
    /// How long one of its events can be kept unsettled, with room for being sent: within the
    /// longest lease of a queue; of a log, far within the shortest retention.
    pub hold_max: Duration,
}

impl Kind<'_> {
    /// What is known of it before it is asked.
    #[must_use]
    pub fn nature(self) -> Nature {
        match self {
            Self::Audit(config) => config.nature(),
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => config.nature(),
            Self::Memory(config) => config.source_nature(),
            #[cfg(feature = "aws")]
            Self::Sqs(config) => config.nature(),
            #[cfg(feature = "aws")]
            Self::Sns(config) => config.nature(),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.nature(),
        }
    }

    /// The service that it asks, and what it asks it for.
    #[must_use]
    pub fn peer(self) -> Peer {
        let (system, destination) = match self {
            Self::Audit(_) => ("eventferry", "audit"),
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => ("eventhubs", config.hub.as_str()),
            Self::Memory(config) => ("memory", config.queue.as_str()),
            #[cfg(feature = "aws")]
            Self::Sqs(config) => ("aws_sqs", config.queue.as_str()),
            #[cfg(feature = "aws")]
            Self::Sns(config) => ("aws_sqs", config.queue.as_deref().unwrap_or(&config.topic)),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => ("storage_queue", config.queue.as_str()),
        };
        Peer { system, destination: destination.into() }
    }

    /// What is wrong with its settings, beside those of its `clouds`: the path of a field below the
    /// kind, and why, with a hint.
    #[must_use]
    #[cfg_attr(not(feature = "azure"), expect(unused_variables, reason = "of no use to others"))]
    pub fn problems(self, clouds: &Clouds) -> Vec<(&'static str, String)> {
        match self {
            #[cfg(feature = "azure")]
            Self::EventHubs(config) => config.problems(),
            Self::Audit(_) | Self::Memory(_) => Vec::new(),
            #[cfg(feature = "aws")]
            Self::Sqs(config) => config.problems(),
            #[cfg(feature = "aws")]
            Self::Sns(config) => config.problems(),
            #[cfg(feature = "azure")]
            Self::StorageQueue(config) => config.problems(&clouds.azure),
        }
    }
}

impl SourceConfig {
    /// The names of the kinds, as the file spells them.
    pub const KINDS: &'static [&'static str] = &[
        "audit",
        #[cfg(feature = "azure")]
        "event_hubs",
        "memory",
        #[cfg(feature = "aws")]
        "sqs",
        #[cfg(feature = "aws")]
        "sns",
        #[cfg(feature = "azure")]
        "storage_queue",
    ];

    /// The kind, if exactly one is given.
    #[must_use]
    pub fn kind(&self) -> Option<Kind<'_>> {
        let kinds = [
            self.audit.as_ref().map(Kind::Audit),
            #[cfg(feature = "azure")]
            self.event_hubs.as_ref().map(Kind::EventHubs),
            self.memory.as_ref().map(Kind::Memory),
            #[cfg(feature = "aws")]
            self.sqs.as_ref().map(Kind::Sqs),
            #[cfg(feature = "aws")]
            self.sns.as_ref().map(Kind::Sns),
            #[cfg(feature = "azure")]
            self.storage_queue.as_ref().map(Kind::StorageQueue),
        ];
        let mut given = kinds.into_iter().flatten();
        let kind = given.next();
        if given.next().is_some() { None } else { kind }
    }

    /// Connects. Does I/O, with deadlines.
    ///
    /// # Errors
    /// The service cannot be reached or used; the daemon tries again unless it is asked not to.
    pub async fn build(&self, context: &Context) -> Result<Source, Fault> {
        match self.kind() {
            #[cfg(feature = "azure")]
            Some(Kind::EventHubs(config)) => config.source(context).await,
            Some(Kind::Audit(config)) => config.source(context).await,
            Some(Kind::Memory(config)) => config.source(context).await,
            #[cfg(feature = "aws")]
            Some(Kind::Sqs(config)) => config.source(context).await,
            #[cfg(feature = "aws")]
            Some(Kind::Sns(config)) => config.source(context).await,
            #[cfg(feature = "azure")]
            Some(Kind::StorageQueue(config)) => config.source(context).await,
            None => Err(Fault::stop("build", "config", "not exactly one kind of source")),
        }
    }

    /// Where it is read to; none if it has no positions.
    #[must_use]
    #[cfg_attr(not(feature = "azure"), expect(unused_variables, reason = "of no use to others"))]
    pub fn positions(&self, context: &Context) -> Option<Result<Box<dyn Positions>, Fault>> {
        match self.kind()? {
            #[cfg(feature = "azure")]
            Kind::EventHubs(config) => Some(config.positions(context)),
            _ => None,
        }
    }

    /// Asks whether it is there and may be read, and changes nothing: a daemon that is running
    /// keeps what it has, and nothing is made.
    ///
    /// # Errors
    /// The service cannot be reached or used.
    pub async fn probe(&self, context: &Context) -> Result<(), Fault> {
        match self.kind() {
            #[cfg(feature = "azure")]
            Some(Kind::EventHubs(config)) => config.probe(context).await,
            #[cfg(feature = "aws")]
            Some(Kind::Sns(config)) => config.probe(context).await,
            // To connect is to ask, and no more.
            _ => self.build(context).await.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_is_the_share_of_what_is_kept_that_is_settled() {
        for (settled, first, last, margin) in [
            (99, 0, 99, 1.0),
            (-1, 0, 99, 1.0),
            (149, 100, 199, 0.5),
            (199, 100, 199, 1.0),
            (99, 100, 199, 0.0),
            (7, 100, 199, 0.0),
            (199, 200, 199, 1.0),
            (i64::MIN, i64::MAX, i64::MIN, 1.0),
        ] {
            let reach = Reach { settled, first, last };
            assert_eq!(reach.margin(), margin, "{reach:?}");
        }
    }
}
