//! Takes a hub up where it was left: every partition at its checkpoint, unless the hub is not the
//! one that the checkpoints are of.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use eventhubs::{
    client::{ErrorKind, Hub, HubProperties},
    filter::Position,
};
use futures::future::try_join_all;

use super::{
    Config,
    lane::{Lane, Place, Prefetch, remade},
};
use crate::{
    cloud::{Context, event_hubs::fault},
    fault::Fault,
    source::log::Log,
    state::{Checkpoint, PartitionKey},
};

/// Where the time at which a hub was made is kept among the checkpoints: no consumer group can
/// have this name.
const HUB_NOTE: &str = "$hub";
/// The sequence number that the client takes for the beginning of a partition.
const BEFORE_THE_FIRST: i64 = -1;

/// How partitions are opened: all at the start, and later those that have been added.
pub(super) struct Opening {
    config: Config,
    context: Context,
    hub: Hub,
    log: Arc<Log>,
    namespace: String,
    resource: Arc<str>,
}

/// Where to open partitions.
enum From {
    /// At the checkpoint; where there is none, at this position.
    Checkpoint(Position),
    /// Here, because the checkpoints are void.
    Void(Position),
}

/// The partitions that are read, and how others are found.
pub(super) struct Partitions {
    opening: Opening,
    created: SystemTime,
    known: HashSet<String>,
}

impl Partitions {
    /// Opens every partition of the hub.
    pub(super) async fn open(opening: Opening) -> Result<(Self, Vec<Lane>), Fault> {
        let properties = opening.properties().await?;
        let created = properties.created_at;
        let noted = opening.noted().await?;
        let now = millis(created);
        let configured = opening.config.start.position();
        let from = match noted {
            // Sequence numbers alone would not tell: a new hub that has already outgrown the old
            // checkpoints would be read from its middle.
            Some(noted) if noted != now => {
                From::Void(opening.recreated("the hub was deleted and made again")?)
            }
            // It was all open before: what has no checkpoint was added since.
            Some(_) if configured == Position::Latest => From::Checkpoint(Position::Earliest),
            _ => From::Checkpoint(configured),
        };
        let lanes = opening.open(&properties, &HashSet::new(), from).await?;
        // Last of all: until the old checkpoints are forgotten, the old note must stand.
        if noted != Some(now) {
            opening.note(now).await?;
        }
        let known = properties.partition_ids.into_iter().collect();
        Ok((Self { opening, created, known }, lanes))
    }

    /// Waits a while, and opens the partitions that the hub has got meanwhile. Nothing in them is
    /// old, whatever the start.
    pub(super) async fn look(mut self: Box<Self>) -> (Box<Self>, Result<Vec<Lane>, Fault>) {
        tokio::time::sleep(*self.opening.config.discover_every).await;
        let found = self.added().await;
        (self, found)
    }

    async fn added(&mut self) -> Result<Vec<Lane>, Fault> {
        let properties = self.opening.properties().await?;
        let ids = &properties.partition_ids;
        if properties.created_at != self.created {
            return Err(remade());
        }
        if ids.iter().all(|id| self.known.contains(id)) {
            return Ok(Vec::new());
        }
        let start = match self.opening.config.start.position() {
            Position::Latest => Position::Earliest,
            start => start,
        };
        let lanes = self.opening.open(&properties, &self.known, From::Checkpoint(start)).await?;
        let source = &self.opening.context.name;
        tracing::info!(%source, partitions = ids.len(), added = lanes.len(), "the hub has grown");
        self.known = properties.partition_ids.into_iter().collect();
        Ok(lanes)
    }
}

impl Opening {
    pub(super) fn new(config: &Config, context: &Context, hub: Hub, log: Arc<Log>) -> Self {
        let namespace = config.access().namespace(&hub);
        let resource = format!("eventhubs://{namespace}/{}", hub.name()).into();
        let (config, context) = (config.clone(), context.clone());
        Self { config, context, hub, log, namespace, resource }
    }

    async fn properties(&self) -> Result<HubProperties, Fault> {
        self.hub.properties().await.map_err(|error| fault("read hub properties", error))
    }

    /// Opens the partitions of the hub that are not `known`.
    async fn open(
        &self,
        hub: &HubProperties,
        known: &HashSet<String>,
        from: From,
    ) -> Result<Vec<Lane>, Fault> {
        let place = |id: &String| Place {
            hub: self.hub.clone(),
            created: hub.created_at,
            resource: self.resource.clone(),
            group: self.config.consumer_group.clone(),
            partition: id.as_str().into(),
            source: self.context.name.clone(),
            prefetch: Prefetch::per_partition(self.config.prefetch, hub.partition_ids.len()),
            log: self.log.clone(),
            metrics: self.context.metrics.source(&self.context.name),
        };
        let ids = hub.partition_ids.iter().filter(|id| !known.contains(*id));
        try_join_all(ids.map(|id| self.open_lane(place(id), &from))).await
    }

    fn key(&self, group: &str, partition: &str) -> PartitionKey {
        PartitionKey {
            namespace: self.namespace.clone(),
            hub: self.hub.name().to_owned(),
            group: group.to_owned(),
            partition: partition.to_owned(),
        }
    }

    fn note_key(&self) -> PartitionKey {
        self.key(HUB_NOTE, &self.config.consumer_group.to_lowercase())
    }

    /// When the hub was made that the checkpoints are of, in milliseconds since 1970.
    async fn noted(&self) -> Result<Option<i64>, Fault> {
        let noted = self.context.state.load(&self.note_key()).await?;
        Ok(noted.and_then(|noted| noted.offset.parse().ok()))
    }

    /// Takes the place of the old note in one write: a hub without a note would be a new one to us,
    /// and with `start: latest` be read from its end. A store never lowers a number, and a clock
    /// may have been set back, so that the number counts the notes, and the time stands beside it.
    async fn note(&self, created: i64) -> Result<(), Fault> {
        let old = self.context.state.load(&self.note_key()).await?;
        let sequence = old.map_or(0, |old| old.sequence + 1);
        let note = Checkpoint { sequence, offset: created.to_string() };
        self.context.state.store(&[(self.note_key(), note)]).await
    }

    /// Where to go on in a hub that the checkpoints are not of, if that is wanted.
    fn recreated(&self, what: &'static str) -> Result<Position, Fault> {
        let Some(start) = self.config.on_recreated.start() else {
            let cause = format!(
                "{what}: the checkpoints are of another hub; set `on_recreated: earliest` or \
                 `latest` to go on with this one"
            );
            return Err(Fault::stop("open hub", "hub_recreated", cause));
        };
        tracing::warn!(source = %self.context.name, hub = %self.hub.name(), ?start,
            "{what}, checkpoints forgotten");
        Ok(start)
    }

    async fn open_lane(&self, place: Place, from: &From) -> Result<Lane, Fault> {
        let id: Arc<str> = place.partition.clone();
        let key = self.key(&self.config.consumer_group, &id);
        let Some(checkpoint) = self.log.open(&id, key).await? else {
            let (From::Checkpoint(start) | From::Void(start)) = from;
            return self.begin(place, start.clone()).await;
        };
        let start = match from {
            From::Void(start) => start.clone(),
            From::Checkpoint(_) => {
                let after = checkpoint.sequence;
                let position = Position::SequenceNumber { number: after, inclusive: false };
                match place.open(position).await {
                    Ok(receiver) => return Ok(Lane::new(place, receiver, Some(after))),
                    Err(error) if error.kind() == ErrorKind::PositionInvalid => {
                        self.recreated("the hub ends before the checkpoint")?
                    }
                    Err(error) => return Err(fault("open partition", error)),
                }
            }
        };
        self.log.forget(&id).await?;
        self.begin(place, start).await
    }

    /// Opens a partition that has no checkpoint.
    async fn begin(&self, place: Place, start: Position) -> Result<Lane, Fault> {
        let receiver =
            place.open(start.clone()).await.map_err(|error| fault("open partition", error))?;
        if start == Position::Latest {
            self.remember(&place.partition, receiver.position()).await?;
        }
        Ok(Lane::new(place, receiver, None))
    }

    /// Makes a checkpoint of where *latest* was: a position to come back to, even if nothing is
    /// ever settled.
    async fn remember(&self, partition: &Arc<str>, latest: Position) -> Result<(), Fault> {
        let sequence = match latest {
            Position::SequenceNumber { number, .. } => number,
            _ => BEFORE_THE_FIRST,
        };
        let key = self.key(&self.config.consumer_group, partition);
        let begun = Checkpoint { sequence, offset: String::new() };
        self.context.state.store(&[(key.clone(), begun)]).await?;
        self.log.open(partition, key).await.map(drop)
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
