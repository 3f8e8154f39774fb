//! Takes a hub up where it was left: every partition at its checkpoint, unless the hub is not the
//! one that the checkpoints are of.

use std::sync::Arc;

use eventhubs::{
    client::{ErrorKind, Hub},
    filter::Position,
};
use futures::future::try_join_all;

use super::{
    Config,
    lane::{Lane, Place, Prefetch},
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

/// Opens every partition of the hub.
pub(super) async fn open(
    config: &Config,
    context: &Context,
    hub: &Hub,
    log: &Log,
) -> Result<Vec<Lane>, Fault> {
    let properties = hub.properties().await.map_err(|e| fault("read hub properties", e))?;
    let created = properties.created_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let created = i64::try_from(created.as_millis()).unwrap_or(i64::MAX);
    let opening = Opening { config, context, hub, log, namespace: config.access().namespace(hub) };
    let noted = opening.noted().await?;
    let start = match noted {
        // Sequence numbers alone would not tell: a new hub that has already outgrown the old
        // checkpoints would be read from its middle.
        Some(noted) if noted != created => {
            Some(opening.recreated("the hub was deleted and made again")?)
        }
        _ => None,
    };
    let partitions = &properties.partition_ids;
    let place = |id: &String| Place {
        hub: hub.clone(),
        created: properties.created_at,
        resource: format!("eventhubs://{}/{}", opening.namespace, hub.name()).into(),
        group: config.consumer_group.clone(),
        partition: id.as_str().into(),
        source: context.name.clone(),
        prefetch: Prefetch::per_partition(config.prefetch, partitions.len()),
    };
    let lanes = partitions.iter().map(|id| opening.open_lane(place(id), start.clone()));
    let lanes = try_join_all(lanes).await?;
    // Last of all: until the old checkpoints are forgotten, the old note must stand.
    if noted != Some(created) {
        opening.note(created).await?;
    }
    Ok(lanes)
}

struct Opening<'a> {
    config: &'a Config,
    context: &'a Context,
    hub: &'a Hub,
    log: &'a Log,
    namespace: String,
}

impl Opening<'_> {
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
        Ok(noted.map(|noted| noted.sequence))
    }

    async fn note(&self, created: i64) -> Result<(), Fault> {
        // A store never lowers a number, and clocks may have been set back.
        self.context.state.forget(&self.note_key()).await?;
        let note = Checkpoint { sequence: created, offset: String::new() };
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

    /// Opens a partition at its checkpoint, or at `start` if the checkpoints are void.
    async fn open_lane(&self, place: Place, start: Option<Position>) -> Result<Lane, Fault> {
        let id: Arc<str> = place.partition.clone();
        let key = self.key(&self.config.consumer_group, &id);
        if let Some(checkpoint) = self.log.open(&id, key).await? {
            if start.is_none() {
                let after = checkpoint.sequence;
                let position = Position::SequenceNumber { number: after, inclusive: false };
                match place.open(position).await {
                    Ok(receiver) => return Ok(Lane::new(place, receiver, Some(after))),
                    Err(error) if error.kind() == ErrorKind::PositionInvalid => {}
                    Err(error) => return Err(fault("open partition", error)),
                }
            }
            let again = match start {
                Some(start) => start,
                None => self.recreated("the hub ends before the checkpoint")?,
            };
            self.log.forget(&id).await?;
            return self.begin(place, again).await;
        }
        self.begin(place, start.unwrap_or_else(|| self.config.start.position())).await
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
