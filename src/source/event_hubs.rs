//! Reads the partitions of an event hub.
//!
//! A hub is a log: nothing is leased or deleted, progress is our checkpoint alone. Each partition
//! has a receiver that resumes after the last event it handed out; what the pipeline returns is
//! offered again from memory ([`Log`]), and only a contiguous prefix is checkpointed.
//!
//! Every receiver has epoch 0, so that of two daemons on one consumer group the newer one has the
//! partitions. The older one says so, and takes a partition back only when nobody has it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use eventhubs::{address::DEFAULT_CONSUMER_GROUP, client::Hub, filter::Position, limits};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Backlog, InFlight, Nature, Receive, Settle, Source, log::Log};
use crate::{
    cloud::{
        Context, azure,
        event_hubs::{Access, fault},
    },
    config::{
        secret::Secret,
        units::{Size, Span},
    },
    delivery::{Delivery, Settled},
    fault::Fault,
};

mod lane;
mod message;
mod opening;

use lane::{HUB_RECREATED, Lane, Polled, remade};
use opening::{Opening, Partitions};

/// An event hub to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EventHubsSource")]
pub struct Config {
    /// The namespace, as `demo` or `demo.servicebus.windows.net`; signs in with the credential of
    /// `azure`. Needs the role *Azure Event Hubs Data Receiver*.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// A connection string with the right *Listen*, instead of `namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<Secret>,
    /// `amqp://HOST:PORT` of an emulator, or `amqps://HOST:PORT` of a private end point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The hub.
    pub hub: String,
    /// How to reach Azure, where it differs from the file's `azure`.
    #[serde(default)]
    pub azure: azure::Config,
    /// The consumer group. It should be read by nobody else.
    #[serde(default = "default_group")]
    pub consumer_group: String,
    /// Where to start in a partition that has no checkpoint.
    #[serde(default)]
    pub start: Start,
    /// What to do when the hub was deleted and made again, so that the checkpoints mean nothing.
    #[serde(default)]
    pub on_recreated: OnRecreated,
    /// How often to look for partitions that were added to the hub.
    #[serde(default = "default_discover_every")]
    pub discover_every: Span,
    /// What the service may send ahead of the pipeline, all partitions together.
    #[serde(default = "default_prefetch")]
    pub prefetch: InFlight,
}

/// Where to start without a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EventHubsStart")]
pub enum Start {
    /// At the oldest event that the hub still keeps.
    #[default]
    Earliest,
    /// With what comes after the daemon first opens the partition. Turned into a checkpoint there
    /// and then, so that a restart misses nothing.
    Latest,
    /// With the first event that the service took at or after this time (RFC 3339).
    #[schemars(with = "String")]
    Time(#[serde(with = "time::serde::rfc3339")] OffsetDateTime),
}

/// What to do with a hub that is not the one that the checkpoints are of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRecreated {
    /// Read nothing, and say so until somebody decides.
    #[default]
    Stop,
    /// Forget the checkpoints and read the new hub from its beginning.
    Earliest,
    /// Forget the checkpoints and read what comes from now on.
    Latest,
}

pub(crate) fn default_group() -> String {
    DEFAULT_CONSUMER_GROUP.to_owned()
}

fn default_discover_every() -> Span {
    Span(Duration::from_secs(60))
}

pub(crate) fn default_prefetch() -> InFlight {
    InFlight { events: 8_000, bytes: Size(32 << 20) }
}

impl Start {
    fn position(self) -> Position {
        match self {
            Self::Earliest => Position::Earliest,
            Self::Latest => Position::Latest,
            Self::Time(time) => {
                let millis = i64::try_from(time.unix_timestamp_nanos() / 1_000_000);
                Position::EnqueuedTime { millis: millis.unwrap_or(i64::MAX), inclusive: true }
            }
        }
    }
}

impl OnRecreated {
    fn start(self) -> Option<Position> {
        match self {
            Self::Stop => None,
            Self::Earliest => Some(Position::Earliest),
            Self::Latest => Some(Position::Latest),
        }
    }
}

impl Config {
    fn access(&self) -> Access<'_> {
        Access {
            namespace: self.namespace.as_deref(),
            connection_string: self.connection_string.as_ref(),
            endpoint: self.endpoint.as_deref(),
            hub: &self.hub,
            azure: &self.azure,
        }
    }

    /// What is wrong with the settings, field by field.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = self.access().problems();
        if self.consumer_group.is_empty() {
            problems.push(("consumer_group", "name the consumer group, or leave it out".into()));
        }
        if *self.discover_every < Duration::from_secs(1) {
            let text = "the service answers few questions; write a second or more, such as `60s`";
            problems.push(("discover_every", text.into()));
        }
        problems
    }

    /// What is known before the hub is asked.
    pub(super) fn nature(&self) -> Nature {
        Nature {
            what: "an event hub",
            ordered_by: Some("partition key"),
            is_log: true,
            event_bytes: usize::try_from(limits::MAX_MESSAGE_BYTES).unwrap_or(usize::MAX),
            // A hub keeps events for a day at least, and a partition waits for what is kept.
            hold_max: Duration::from_secs(3600),
        }
    }

    /// Asks for the hub's properties: opening a partition would take it from a daemon that runs.
    pub(super) async fn probe(&self, context: &Context) -> Result<(), Fault> {
        let hub = self.access().hub(context)?;
        hub.properties().await.map(drop).map_err(|error| fault("read hub properties", error))
    }

    /// Connects: takes up every partition at its checkpoint.
    pub(super) async fn source(&self, context: &Context) -> Result<Source, Fault> {
        let hub = self.access().hub(context)?;
        let log = Arc::new(Log::new(context.state.clone()));
        let opening = Opening::new(self, context, hub.clone(), log.clone());
        let (partitions, lanes) = Partitions::open(opening).await?;
        let mut receive = HubReceive {
            turns: FuturesUnordered::new(),
            lanes: 0,
            log: log.clone(),
            down: HashSet::new(),
            is_remade: false,
        };
        receive.add(lanes);
        receive.look(Box::new(partitions));
        Ok(Source {
            receive: Box::new(receive),
            settle: Box::new(HubSettle { hub, log }),
            ordered: true,
            lease: None,
        })
    }
}

struct HubReceive {
    /// One poll per partition, each in its turn, and the look for others; a dropped `receive`
    /// leaves them as they are.
    turns: FuturesUnordered<BoxFuture<'static, Turn>>,
    /// How many partitions are read.
    lanes: usize,
    log: Arc<Log>,
    /// Partitions that cannot be read at the moment.
    down: HashSet<Arc<str>>,
    /// The hub is not the one that was opened: nothing is read any more.
    is_remade: bool,
}

enum Turn {
    Polled(Polled),
    Looked(Box<Partitions>, Result<Vec<Lane>, Fault>),
}

impl HubReceive {
    fn poll(&self, lane: Lane) {
        self.turns.push(lane.poll().map(Turn::Polled).boxed());
    }

    fn look(&self, partitions: Box<Partitions>) {
        let looked = partitions.look().map(|(partitions, found)| Turn::Looked(partitions, found));
        self.turns.push(looked.boxed());
    }

    fn add(&mut self, lanes: Vec<Lane>) {
        self.lanes += lanes.len();
        lanes.into_iter().for_each(|lane| self.poll(lane));
    }

    fn take(&mut self, turn: Turn, found: &mut Vec<Delivery>) -> Result<(), Fault> {
        match turn {
            Turn::Polled(polled) => self.take_events(polled, found),
            Turn::Looked(partitions, added) => {
                let result = match added {
                    Ok(lanes) => {
                        self.add(lanes);
                        Ok(())
                    }
                    // What is read from now on would be taken for events of the old hub.
                    Err(fault) if fault.class == HUB_RECREATED => {
                        self.turns.clear();
                        self.is_remade = true;
                        Err(fault)
                    }
                    Err(fault) => {
                        tracing::warn!(%fault, "cannot look for new partitions");
                        Ok(())
                    }
                };
                if !self.is_remade {
                    self.look(partitions);
                }
                result
            }
        }
    }

    /// Notes what a partition's poll brought, and polls again.
    fn take_events(
        &mut self,
        (lane, result): Polled,
        found: &mut Vec<Delivery>,
    ) -> Result<(), Fault> {
        let partition = lane.partition();
        let result = result.map(|events| {
            self.down.remove(&partition);
            let events = events.into_iter().map(|event| lane.received(event));
            found.extend(self.log.receive(&partition, events));
        });
        if result.is_err() {
            self.down.insert(partition);
        }
        self.poll(lane);
        result
    }
}

#[async_trait]
impl Receive for HubReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        if self.is_remade {
            return Err(remade());
        }
        let mut found = Vec::new();
        let first = tokio::select! {
            again = self.log.redeliver() => return Ok(again),
            first = self.turns.next() => first,
        };
        let mut result = Ok(());
        // What other partitions have ready goes along: about a batch in all.
        let (mut next, mut left) = (first, self.turns.len() + 1);
        while let Some(turn) = next {
            result = self.take(turn, &mut found).and(result);
            left -= 1;
            let enough = left == 0 || found.len() >= lane::BATCH;
            next = if enough { None } else { self.turns.next().now_or_never().flatten() };
        }
        match result {
            // One bad partition must not hold up the others: it says so itself, and shows in the
            // backlog. When all are down, the source is.
            Err(fault) if found.is_empty() && self.down.len() == self.lanes => Err(fault),
            _ => Ok(found),
        }
    }

    async fn close(&mut self) -> Vec<Delivery> {
        self.turns.clear();
        Vec::new()
    }
}

struct HubSettle {
    hub: Hub,
    log: Arc<Log>,
}

/// The namespace allows fifty questions a second; a hub of many partitions asks in turn.
const QUESTIONS_AT_ONCE: usize = 4;

#[async_trait]
impl Settle for HubSettle {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        self.log.settle(&done);
        Vec::new()
    }

    async fn checkpoint(&mut self) -> Result<(), Fault> {
        self.log.checkpoint().await
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        let (hub, log) = (&self.hub, &self.log);
        let ask = |partition: Arc<str>| async move {
            let end = hub.partition_properties(&partition).await;
            let end = end.map_err(|error| fault("read partition properties", error))?;
            let kept = end.begin_sequence_number - 1;
            let settled = log.position(&partition).map_or(kept, |settled| settled.max(kept));
            let events = end.last_enqueued_sequence_number.saturating_sub(settled);
            let events = if end.is_empty { 0 } else { u64::try_from(events).unwrap_or(0) };
            Ok(Backlog { partition: partition.to_string(), events, oldest: None })
        };
        let asked = futures::stream::iter(log.partitions().into_iter().map(ask));
        let answers: Vec<_> = asked.buffered(QUESTIONS_AT_ONCE).collect().await;
        answers.into_iter().collect()
    }
}

/// How long one partition is waited for before its poll begins again.
const POLL: Duration = Duration::from_secs(10);
