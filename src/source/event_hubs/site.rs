//! Takes a hub up where it was left: every partition at its checkpoint, unless the hub is not the
//! one that the checkpoints are of.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use eventhubs::{
    client::{Error, ErrorKind, HubProperties, ReceiverOptions},
    filter::Position,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Config, QUESTIONS_AT_ONCE,
    lane::{Place, remade},
};
use crate::{
    cloud::{
        Context,
        event_hubs::{
            fault,
            transport::{Hub, Receiver},
        },
    },
    delivery::Tenure,
    fault::Fault,
    source::log::Log,
    state::{Checkpoint, PartitionKey, ownership::Group},
    telemetry::SourceMetrics,
};

/// Where the time at which a hub was made is kept among the checkpoints: no consumer group can
/// have this name.
const HUB_NOTE: &str = "$hub";
/// How long a receiver without an epoch must hold before nobody else has the partition: one that
/// somebody else has is refused right after it is attached.
const UNCLAIMED: Duration = Duration::from_secs(2);
/// The sequence number that the client takes for the beginning of a partition.
const BEFORE_THE_FIRST: i64 = -1;

/// A hub, and how its partitions are opened.
pub(super) struct Site {
    pub(super) config: Config,
    pub(super) context: Context,
    pub(super) hub: Arc<dyn Hub>,
    pub(super) log: Arc<Log>,
    pub(super) metrics: SourceMetrics,
    pub(super) group: Group,
    /// The hub as a URI, for origins.
    pub(super) resource: Arc<str>,
    /// When the hub was made.
    created: SystemTime,
    /// Where to start in a partition that has no checkpoint.
    start: Position,
}

impl Site {
    /// Looks at the hub, and answers its partitions. Settles where each begins that has no
    /// checkpoint.
    pub(super) async fn prepare(
        config: &Config,
        context: &Context,
        hub: Arc<dyn Hub>,
        log: Arc<Log>,
    ) -> Result<(Self, Vec<String>), Fault> {
        let (namespace, name) = (config.access().namespace(&*hub), hub.name().to_owned());
        let properties = properties(&*hub).await?;
        let mut site = Self {
            config: config.clone(),
            context: context.clone(),
            hub,
            log,
            metrics: context.metrics.source(&context.name),
            resource: format!("eventhubs://{namespace}/{name}").into(),
            group: Group { namespace, hub: name, group: config.consumer_group.clone() },
            created: properties.created_at,
            start: config.start.position(),
        };
        let now = site.made();
        let noted = site.noted().await?;
        if noted != Some(now) {
            // Sequence numbers alone would not tell: a new hub that has already outgrown the old
            // checkpoints would be read from its middle.
            let is_recreated = noted.is_some();
            if is_recreated {
                site.start = site.recreated("the hub was deleted and made again")?;
            }
            if is_recreated || site.start == Position::Latest {
                let ids = properties.partition_ids.iter();
                let begin: Vec<_> = ids.map(|id| site.begin(id, is_recreated)).collect();
                let begin = stream::iter(begin).buffer_unordered(QUESTIONS_AT_ONCE);
                begin.try_collect::<()>().await?;
            }
            site.is_still_there().await?;
            // Last of all: until the old checkpoints are forgotten, the old note must stand.
            site.note(now).await?;
        }
        // From here on, what has no checkpoint is new, and nothing in it is old.
        if site.start == Position::Latest {
            site.start = Position::Earliest;
        }
        Ok((site, properties.partition_ids))
    }

    /// Whether the hub is still the one that was opened.
    pub(super) async fn is_still_there(&self) -> Result<(), Fault> {
        self.current().await.map(drop)
    }

    /// Waits a while, and answers the partitions that the hub has got beside those that are `known`.
    pub(super) async fn look(
        self: Arc<Self>,
        known: HashSet<String>,
    ) -> Result<Vec<String>, Fault> {
        tokio::time::sleep(*self.config.discover_every).await;
        let mut ids = self.current().await?.partition_ids;
        let partitions = ids.len();
        ids.retain(|id| !known.contains(id));
        if !ids.is_empty() {
            let source = &self.context.name;
            tracing::info!(%source, partitions, added = ids.len(), "the hub has grown");
        }
        Ok(ids)
    }

    async fn current(&self) -> Result<HubProperties, Fault> {
        let properties = properties(&*self.hub).await?;
        if properties.created_at != self.created {
            // What of the old hub is still on its way would be taken for events of this one.
            return Err(remade());
        }
        Ok(properties)
    }

    /// Opens a partition at its checkpoint. Answers the last event before the next one, where that
    /// is known.
    pub(super) async fn open(
        &self,
        place: &Place,
        tenure: &Tenure,
    ) -> Result<(Box<dyn Receiver>, Option<i64>), Fault> {
        let (id, key) = (&place.partition, self.group.partition(&place.partition));
        let log = self.log.open(id, key.clone(), tenure, Some(self.made()));
        let start = match log.await? {
            None => self.start.clone(),
            Some(checkpoint) if self.is_of_another_hub(&checkpoint) => {
                let why = "the checkpoint is of a hub that is gone";
                self.begin_anew(id, key, tenure, &checkpoint, why).await?
            }
            Some(checkpoint) => match self.receiver(place, after(&checkpoint)).await {
                Ok(receiver) => return Ok((receiver, Some(checkpoint.sequence))),
                Err(error) if error.kind() == ErrorKind::PositionInvalid => {
                    let why = "the hub ends before the checkpoint";
                    self.begin_anew(id, key, tenure, &checkpoint, why).await?
                }
                Err(error) => return Err(fault("open partition", error)),
            },
        };
        let receiver = self.receiver(place, start).await;
        Ok((receiver.map_err(|error| fault("open partition", error))?, None))
    }

    /// Settles where a partition begins, before the hub is noted. Where the hub was made again, what
    /// does not say that it is of this one is no place to begin at; another replica may have begun
    /// already, and is not set back.
    async fn begin(&self, id: &str, is_recreated: bool) -> Result<(), Fault> {
        let (key, state) = (self.group.partition(id), &self.context.state);
        let known = if is_recreated { state.load(&key).await? } else { None };
        let old = known.filter(|known| known.hub_made != Some(self.made()));
        let first = match (self.start == Position::Latest, &old) {
            // Of this the store has a checkpoint from now on: a position to come back to, even if
            // nothing is ever settled, and the same for every replica.
            (true, _) => self.end(id).await?,
            (false, Some(_)) => self.beginning(),
            (false, None) => return Ok(()),
        };
        // What was asked last may be a hub that was made since, in which another replica has begun.
        self.is_still_there().await?;
        state.begin(&key, &first, old.as_ref()).await
    }

    /// Leaves the checkpoint of a partition that was opened, and answers where to begin.
    async fn begin_anew(
        &self,
        id: &Arc<str>,
        key: PartitionKey,
        tenure: &Tenure,
        old: &Checkpoint,
        why: &'static str,
    ) -> Result<Position, Fault> {
        // It may be this replica that has yet to notice, and another one has begun.
        self.is_still_there().await?;
        let start = self.recreated(why)?;
        if start != Position::Latest {
            // The log lets the old position go, so that what is written late moves nothing.
            self.log.forget(id).await?;
            return Ok(start);
        }
        // In one write: a death in between would leave no place to begin at.
        self.context.state.begin(&key, &self.end(id).await?, Some(old)).await?;
        match self.log.open(id, key, tenure, Some(self.made())).await? {
            Some(begun) if !self.is_of_another_hub(&begun) => Ok(after(&begun)),
            _ => {
                let cause = "another replica still writes checkpoints of a hub that is gone";
                Err(Fault::busy("open partition", "state", cause))
            }
        }
    }

    /// When the hub was made, in milliseconds since 1970.
    pub(super) fn made(&self) -> i64 {
        millis(self.created)
    }

    fn is_of_another_hub(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.hub_made.is_some_and(|made| made != self.made())
    }

    /// A receiver that has the partition for itself.
    pub(super) async fn receiver(
        &self,
        place: &Place,
        start: Position,
    ) -> Result<Box<dyn Receiver>, Error> {
        self.hub.receiver(self.options(place, start, Some(place.epoch))).await
    }

    /// Fails while another reader has the partition.
    pub(super) async fn is_nobodys(&self, place: &Place) -> Result<(), Fault> {
        let failed = |error| fault("open partition", error);
        let options = self.options(place, Position::Latest, None);
        let mut probe = self.hub.receiver(options).await.map_err(failed)?;
        let held = probe.receive(1, UNCLAIMED).await.map_err(failed);
        probe.close().await;
        held.map(drop)
    }

    /// How to attach to a partition; without an epoch, only where nobody has it.
    fn options(&self, place: &Place, start: Position, epoch: Option<i64>) -> ReceiverOptions {
        ReceiverOptions {
            consumer_group: self.group.group.clone(),
            epoch,
            credit_events: place.prefetch.events,
            credit_bytes: place.prefetch.bytes,
            name: format!("eventferry-{}", self.context.name),
            ..ReceiverOptions::new(&*place.partition, start)
        }
    }

    fn note_key(&self) -> PartitionKey {
        let group = HUB_NOTE.to_owned();
        Group { group, ..self.group.clone() }.partition(&self.group.group.to_lowercase())
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
        let note = Checkpoint { sequence, offset: created.to_string(), hub_made: None };
        self.context.state.store(&[(self.note_key(), note)]).await
    }

    /// Where to go on in a hub that the checkpoints are not of, if that is wanted.
    fn recreated(&self, why: &'static str) -> Result<Position, Fault> {
        let Some(start) = self.config.on_recreated.start() else {
            let cause = format!(
                "{why}: the checkpoints are of another hub; set `on_recreated: earliest` or \
                 `latest` to go on with this one"
            );
            return Err(Fault::stop("open hub", "hub_recreated", cause));
        };
        tracing::warn!(source = %self.context.name, hub = %self.hub.name(), ?start, why,
            "checkpoints of another hub are no place to begin at");
        Ok(start)
    }

    /// A checkpoint of the beginning of a partition.
    fn beginning(&self) -> Checkpoint {
        let offset = BEFORE_THE_FIRST.to_string();
        Checkpoint { sequence: BEFORE_THE_FIRST, offset, hub_made: Some(self.made()) }
    }

    /// A checkpoint of the end of a partition.
    async fn end(&self, id: &str) -> Result<Checkpoint, Fault> {
        let end = self.hub.partition_properties(id).await;
        let end = end.map_err(|error| fault("read partition properties", error))?;
        let sequence = end.last_enqueued_sequence_number.max(BEFORE_THE_FIRST);
        let hub_made = Some(self.made());
        Ok(Checkpoint { sequence, offset: end.last_enqueued_offset, hub_made })
    }
}

async fn properties(hub: &dyn Hub) -> Result<HubProperties, Fault> {
    hub.properties().await.map_err(|error| fault("read hub properties", error))
}

fn after(checkpoint: &Checkpoint) -> Position {
    Position::SequenceNumber { number: checkpoint.sequence, inclusive: false }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
