//! Where the partitions of a hub are read to, asked for beside whoever reads them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use eventhubs::{
    client::{ReceivedEvent, ReceiverOptions},
    filter::Position,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use time::OffsetDateTime;

use super::{Config, EPOCH, QUESTIONS_AT_ONCE, Start};
use crate::{
    cloud::{
        Context,
        event_hubs::{fault, transport::Hub},
    },
    fault::Fault,
    source::positions::{Owner, Positions, Standing},
    state::{
        Checkpoint, StateStore,
        ownership::{Group, Held, OwnershipStore, Record},
    },
};

/// How long an event that is there takes to come at most.
const READ: Duration = Duration::from_secs(5);
/// What SDKs that resume by an offset take for the beginning: they repeat, and leave out nothing.
const FROM_THE_BEGINNING: &str = "-1";

/// The partitions of a hub.
pub(super) struct HubPositions {
    hub: Arc<dyn Hub>,
    state: Arc<dyn StateStore>,
    group: Group,
    /// How long a replica keeps a partition that it does not renew.
    expiry: Duration,
    /// The name of the source.
    name: Arc<str>,
}

impl Config {
    /// Where it is read to. Connects when it is first asked.
    pub(in crate::source) fn positions(
        &self,
        context: &Context,
    ) -> Result<Box<dyn Positions>, Fault> {
        let hub = self.access().hub(context)?;
        let namespace = self.access().namespace(&*hub);
        let group =
            Group { namespace, hub: hub.name().to_owned(), group: self.consumer_group.clone() };
        let (state, name) = (context.state.clone(), context.name.clone());
        let expiry = *self.sharing.clone().unwrap_or_default().expiry;
        Ok(Box::new(HubPositions { hub, state, group, expiry, name }))
    }
}

impl HubPositions {
    async fn standing(&self, partition: String, owner: Option<Owner>) -> Result<Standing, Fault> {
        let end = self.hub.partition_properties(&partition).await;
        let end = end.map_err(|error| fault("read partition properties", error))?;
        let checkpoint = self.state.load(&self.group.partition(&partition)).await?;
        let last = end.last_enqueued_sequence_number;
        let first = if end.is_empty { last + 1 } else { end.begin_sequence_number };
        let last_enqueued = (last >= 0).then(|| end.last_enqueued_time.into());
        Ok(Standing { partition, checkpoint, first, last, last_enqueued, owner })
    }

    /// Who reads a partition by its record.
    fn owner(&self, store: &dyn OwnershipStore, held: &Held) -> Option<Owner> {
        let name = &held.record.owner;
        let is_live = !name.is_empty() && held.age < self.expiry;
        is_live.then(|| Owner { name: name.clone(), is_us: name == store.replica() })
    }

    /// Makes the partition ours, if replicas share it. Answers the epoch to read it with.
    async fn claim(&self, partition: &str) -> Result<i64, Fault> {
        let Some(store) = self.state.ownership() else { return Ok(EPOCH) };
        let held = store.list(&self.group).await?.remove(partition);
        let owner = held.as_ref().and_then(|held| self.owner(store, held));
        let taken = |who: &str| {
            let text = format!("partition {partition} is read by {who} now: ask that replica");
            Fault::stop("claim partition", "partition_taken", text)
        };
        if let Some(owner) = owner.filter(|owner| !owner.is_us) {
            return Err(taken(&format!("`{}`", owner.name)));
        }
        // Whoever asks for it gets it, once it is read again.
        let wanted_by = held.as_ref().and_then(|held| held.record.wanted_by.clone());
        let record = Record { owner: store.replica().to_owned(), wanted_by };
        let known = held.as_ref().map(|held| held.version.as_str());
        let written = store.put(&self.group.partition(partition), &record, known).await?;
        Ok(written.ok_or_else(|| taken("another"))?.epoch)
    }

    /// The first event from this position on, if there is one.
    async fn read_one(
        &self,
        partition: &str,
        start: Position,
    ) -> Result<Option<ReceivedEvent>, Fault> {
        let failed = |error| fault("read one event", error);
        let options = ReceiverOptions {
            consumer_group: self.group.group.clone(),
            epoch: Some(self.claim(partition).await?),
            credit_events: 1,
            name: format!("eventferry-{}", self.name),
            ..ReceiverOptions::new(partition, start)
        };
        let mut receiver = self.hub.receiver(options).await.map_err(failed)?;
        let read = receiver.receive(1, READ).await.map_err(failed);
        receiver.close().await;
        Ok(read?.into_iter().next())
    }
}

#[async_trait]
impl Positions for HubPositions {
    async fn standings(&self) -> Result<Vec<Standing>, Fault> {
        let hub = self.hub.properties().await;
        let ids = hub.map_err(|error| fault("read hub properties", error))?.partition_ids;
        let mut owners = match self.state.ownership() {
            Some(store) => {
                let listed = store.list(&self.group).await?;
                listed.into_iter().map(|(id, held)| (id, self.owner(store, &held))).collect()
            }
            None => std::collections::BTreeMap::new(),
        };
        let ask = ids.into_iter().map(|id| {
            let owner = owners.remove(&id).flatten();
            self.standing(id, owner)
        });
        stream::iter(ask.collect::<Vec<_>>()).buffered(QUESTIONS_AT_ONCE).try_collect().await
    }

    async fn first_since(
        &self,
        partition: &str,
        time: OffsetDateTime,
    ) -> Result<Option<i64>, Fault> {
        let first = self.read_one(partition, Start::Time(time).position()).await?;
        Ok(first.map(|event| event.sequence_number))
    }

    async fn go_on_with(&self, partition: &str, sequence: i64) -> Result<(), Fault> {
        let before = sequence - 1;
        let position = Position::SequenceNumber { number: before, inclusive: true };
        let event = self.read_one(partition, position).await?;
        let event = event.filter(|event| event.sequence_number == before);
        let offset = event.and_then(|event| event.offset);
        let offset = offset.unwrap_or_else(|| FROM_THE_BEGINNING.to_owned());
        let key = self.group.partition(partition);
        self.state.put_back(&key, &Checkpoint { sequence: before, offset, hub_made: None }).await?;
        failpoint!(DuringRewind);
        Ok(())
    }
}
