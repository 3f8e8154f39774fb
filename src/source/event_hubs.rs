//! Reads the partitions of an event hub.
//!
//! A hub is a log: nothing is leased or deleted, progress is our checkpoint alone. Each partition
//! has a receiver that resumes after the last event it handed out; what the pipeline returns is
//! offered again from memory ([`Log`]), and only a contiguous prefix is checkpointed.
//!
//! Where replicas share the state store, each has its share of the partitions; else all of them.
//! Of two readers of one partition in one consumer group the service leaves it to the newer one, or
//! to the one with the higher epoch. The other sends no more of it, writes no checkpoint, says so,
//! and takes the partition back only when nobody has it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use eventhubs::{address::DEFAULT_CONSUMER_GROUP, filter::Position, limits};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, try_join_all},
    stream::FuturesUnordered,
};
use rand::{SeedableRng as _, rngs::StdRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::{Backlog, Hold, InFlight, Nature, Reach, Receive, Settle, Source, log::Log};
use crate::{
    cloud::{
        Context, azure,
        event_hubs::{
            Access, fault,
            transport::{Hub, Transport},
        },
    },
    config::{
        secret::Secret,
        units::{Size, Span},
    },
    delivery::{Delivery, Settled, Tenure},
    fault::Fault,
};

mod balance;
mod lane;
mod message;
mod positions;
mod share;
mod site;

use lane::{Came, HUB_RECREATED, Lane, Place, Polled, Prefetch, remade};
use share::{Keeping, Share, Taken, Told};
pub use share::{Sharing, Strategy};
use site::Site;

/// Where no replica shares the partitions: as all SDKs have it.
const EPOCH: i64 = 0;

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
    /// Which client speaks to the hub.
    #[serde(default, skip_serializing_if = "Transport::is_own")]
    pub client: Transport,
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
    /// How replicas share the partitions, with a `state` that they share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
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
            client: self.client,
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
        problems.extend(self.sharing.iter().flat_map(Sharing::problems));
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

    /// Connects: takes up every partition at its checkpoint, or this replica's share of them where
    /// the state store is one that replicas share.
    pub(super) async fn source(&self, context: &Context) -> Result<Source, Fault> {
        let hub = self.access().hub(context)?;
        let log = Arc::new(Log::new(context.state.clone()));
        let (site, ids) = Site::prepare(self, context, hub.clone(), log.clone()).await?;
        let site = Arc::new(site);
        let mut receive = HubReceive {
            site: site.clone(),
            turns: FuturesUnordered::new(),
            lanes: 0,
            known: ids.iter().cloned().collect(),
            down: HashSet::new(),
            is_remade: false,
            desk: None,
        };
        let mut hold: Option<Box<dyn Hold>> = None;
        if context.state.ownership().is_some() {
            let (takes, taken) = mpsc::unbounded_channel();
            let (tells, told) = mpsc::unbounded_channel();
            receive.desk = Some(Desk { taken, tells });
            hold = Some(Box::new(Share {
                state: context.state.clone(),
                group: site.group.clone(),
                sharing: self.sharing.clone().unwrap_or_default(),
                log: log.clone(),
                metrics: site.metrics.clone(),
                partitions: ids,
                taken: takes,
                told,
                dice: StdRng::from_os_rng(),
                keeping: Keeping::default(),
            }));
        } else {
            receive.open_all(&ids).await?;
        }
        receive.look();
        let wants_all = !matches!(self.start, Start::Time(_));
        Ok(Source {
            receive: Box::new(receive),
            settle: Box::new(HubSettle { hub, log, wants_all }),
            ordered: true,
            lease: None,
            hold,
        })
    }
}

/// The receiving half. Its channels hold as many messages as there are partitions, about.
struct HubReceive {
    site: Arc<Site>,
    /// One poll per partition, each in its turn, and the look for others; a dropped `receive`
    /// leaves them as they are.
    turns: FuturesUnordered<BoxFuture<'static, Turn>>,
    /// How many partitions are read.
    lanes: usize,
    /// All partitions of the hub.
    known: HashSet<String>,
    /// Partitions that cannot be read at the moment.
    down: HashSet<Arc<str>>,
    /// The hub is not the one that was opened: nothing is read any more.
    is_remade: bool,
    /// The way to the task that shares the partitions with other replicas; none where all are ours.
    desk: Option<Desk>,
}

struct Desk {
    taken: mpsc::UnboundedReceiver<Taken>,
    tells: mpsc::UnboundedSender<Told>,
}

enum Turn {
    Polled(Polled),
    Looked(Result<Vec<String>, Fault>),
}

impl HubReceive {
    fn place(&self, partition: Arc<str>, epoch: i64) -> Place {
        let all = self.site.config.prefetch;
        let prefetch = Prefetch::per_partition(all, self.known.len().max(1));
        Place { partition, epoch, prefetch }
    }

    /// A lane of a partition that no other replica can have.
    fn own(&self, id: &str) -> Lane {
        Lane::new(&self.site, self.place(id.into(), EPOCH), Tenure::begin())
    }

    async fn open_all(&mut self, ids: &[String]) -> Result<(), Fault> {
        let lanes = try_join_all(ids.iter().map(|id| self.own(id).open())).await?;
        lanes.into_iter().for_each(|lane| self.add(lane));
        Ok(())
    }

    fn poll(&self, lane: Lane) {
        self.turns.push(lane.poll().map(Turn::Polled).boxed());
    }

    fn add(&mut self, lane: Lane) {
        self.lanes += 1;
        self.site.metrics.partitions_owned(self.lanes);
        self.poll(lane);
    }

    fn look(&self) {
        let looked = self.site.clone().look(self.known.clone());
        self.turns.push(looked.map(Turn::Looked).boxed());
    }

    /// Begins to read what another task has taken for us.
    fn begin(&mut self, Taken { partition, tenure, epoch, was_stolen }: Taken) {
        let lane = Lane::new(&self.site, self.place(partition, epoch), tenure);
        self.add(if was_stolen { lane.when_nobody_has_it() } else { lane });
    }

    fn take(&mut self, turn: Turn, found: &mut Vec<Delivery>) -> Result<(), Fault> {
        match turn {
            Turn::Polled((lane, came)) => self.take_events(lane, came, found),
            Turn::Looked(Ok(added)) => {
                self.known.extend(added.iter().cloned());
                match &self.desk {
                    Some(desk) => _ = desk.tells.send(Told::Added(added)),
                    None => added.iter().for_each(|id| self.add(self.own(id))),
                }
                self.look();
                Ok(())
            }
            // What is read from now on would be taken for events of the old hub.
            Turn::Looked(Err(fault)) if fault.class == HUB_RECREATED => {
                self.turns.clear();
                self.is_remade = true;
                self.quit();
                Err(fault)
            }
            Turn::Looked(Err(fault)) => {
                tracing::warn!(%fault, "cannot look for new partitions");
                self.look();
                Ok(())
            }
        }
    }

    /// Notes what a partition's poll brought, and polls again.
    fn take_events(
        &mut self,
        lane: Lane,
        came: Came,
        found: &mut Vec<Delivery>,
    ) -> Result<(), Fault> {
        let partition = lane.partition();
        match came {
            Came::Events(events) if !lane.tenure().is_over() => {
                self.down.remove(&partition);
                let events = events.into_iter().map(|event| lane.received(event));
                found.extend(self.site.log.receive(&partition, events));
                self.poll(lane);
                Ok(())
            }
            Came::Events(_) | Came::Over => {
                self.down.remove(&partition);
                self.lanes -= 1;
                Ok(())
            }
            Came::Trouble(fault) => {
                self.down.insert(partition);
                self.poll(lane);
                Err(fault)
            }
            Came::Stolen(fault) => {
                // At once: what is not sent by now is the other reader's to send.
                self.site.log.lose(&partition, lane.tenure());
                match &self.desk {
                    Some(desk) => {
                        self.lanes -= 1;
                        self.down.remove(&partition);
                        let _ = desk.tells.send(Told::Stolen(partition));
                    }
                    None => {
                        self.site.metrics.partition_lost(&partition);
                        self.down.insert(partition);
                        self.poll(lane.again().when_nobody_has_it());
                    }
                }
                Err(fault)
            }
        }
    }

    fn quit(&self) {
        if let Some(desk) = &self.desk {
            let _ = desk.tells.send(Told::Quit);
        }
    }
}

/// The next partition that has been taken for us; none where nobody takes any.
async fn next_taken(desk: &mut Option<Desk>) -> Taken {
    if let Some(desk) = desk
        && let Some(taken) = desk.taken.recv().await
    {
        return taken;
    }
    std::future::pending().await
}

#[async_trait]
impl Receive for HubReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        if self.is_remade {
            return Err(remade());
        }
        let mut found = Vec::new();
        let first = tokio::select! {
            again = self.site.log.redeliver() => return Ok(again),
            taken = next_taken(&mut self.desk) => {
                self.begin(taken);
                return Ok(found);
            }
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
        self.quit();
        Vec::new()
    }
}

struct HubSettle {
    hub: Arc<dyn Hub>,
    log: Arc<Log>,
    /// Whether it reads whatever has no checkpoint from its beginning.
    wants_all: bool,
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
        let Self { hub, log, wants_all } = &*self;
        let ask = |partition: Arc<str>| async move {
            let end = hub.partition_properties(&partition).await;
            let end = end.map_err(|error| fault("read partition properties", error))?;
            let (first, last) = (end.begin_sequence_number, end.last_enqueued_sequence_number);
            let before = first.saturating_sub(1);
            // Whoever begins at a time does not want what is before it, and begins nowhere before
            // it has read anything.
            let settled = log.position(&partition).or(wants_all.then_some(before));
            let events = last.saturating_sub(settled.map_or(before, |it| it.max(before)));
            let events = if end.is_empty { 0 } else { u64::try_from(events).unwrap_or(0) };
            let first = if end.is_empty { last.saturating_add(1) } else { first };
            let reach = settled.map(|settled| Reach { settled, first, last });
            let (oldest, partition) = (log.oldest(&partition), partition.to_string());
            Ok(Backlog { partition, events, oldest, reach })
        };
        let asked = futures::stream::iter(log.partitions().into_iter().map(ask));
        let answers: Vec<_> = asked.buffered(QUESTIONS_AT_ONCE).collect().await;
        answers.into_iter().collect()
    }
}

/// How long one partition is waited for before its poll begins again.
const POLL: Duration = Duration::from_secs(10);
