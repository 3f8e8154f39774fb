//! What can be done to a running emulator from outside, in process or over HTTP.

use std::sync::Arc;

use super::{
    attaching::not_found,
    config::Settings,
    core::Core,
    event,
    fault::Fault,
    namespace::Hub,
    partition::NewEvent,
    view::{EventView, Seed, StateView},
};
use serde::{Deserialize, Serialize};

/// Events shown at most in one answer.
const MAX_EVENTS: usize = 10_000;

/// A request that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such hub.
    #[error("there is no hub `{0}`")]
    NoHub(String),
    /// The hub has no such partition.
    #[error("the hub has no partition `{0}`")]
    NoPartition(String),
    /// A receiver with a higher epoch is there.
    #[error("{0}")]
    Refused(String),
    /// An event cannot be made of it.
    #[error("the body is not base64")]
    NotBase64,
}

/// A receiver that takes a partition over and then does nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steal {
    /// Name of the hub.
    pub hub: String,
    /// Name of the consumer group.
    pub group: String,
    /// Id of the partition.
    pub partition: String,
    /// Its epoch.
    pub epoch: i64,
}

/// Events to put into the log from outside.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Append {
    /// Name of the hub.
    pub hub: String,
    /// Id of the partition; by key or in turn when there is none.
    pub partition: Option<String>,
    /// The key of all of them.
    pub partition_key: Option<String>,
    /// The events, all for one partition.
    pub events: Vec<Seed>,
}

/// What retention is to remove. Without a bound: everything.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trim {
    /// Name of the hub.
    pub hub: String,
    /// Id of the partition; all of them when there is none.
    pub partition: Option<String>,
    /// Events with lower numbers go.
    pub before_sequence_number: Option<i64>,
    /// Events that are older go.
    pub max_age_ms: Option<i64>,
}

/// A running emulator, as seen from outside.
#[derive(Debug, Clone)]
pub struct Control {
    pub(crate) core: Arc<Core>,
    pub(crate) runtime: tokio::runtime::Handle,
    /// What `reset` goes back to.
    pub(crate) initial: Settings,
}

impl Control {
    /// Arms a fault and gives it a number.
    pub fn arm(&self, fault: Fault) -> u64 {
        self.core.arm(fault, &self.runtime)
    }

    /// Forgets the faults that have not struck yet.
    pub fn disarm(&self) {
        self.core.faults.clear();
    }

    /// Opens a competing receiver inside the emulator. It stays until it is displaced itself, or
    /// until [`Control::reset`].
    ///
    /// # Errors
    ///
    /// When there is no such partition, or a receiver with a higher epoch has it.
    pub fn steal(&self, steal: &Steal) -> Result<(), ControlError> {
        let (hub, index) = self.partition(&steal.hub, &steal.partition)?;
        let id = self.core.next_id();
        let displaced = hub
            .admission
            .enter(&steal.group, index, id, Some(steal.epoch))
            .map_err(|refusal| ControlError::Refused(refusal.description))?;
        self.core.displace(displaced);
        Ok(())
    }

    /// Puts events into the log and gives their sequence numbers.
    ///
    /// # Errors
    ///
    /// When there is no such partition, or a body is not base64.
    pub fn append(&self, append: Append) -> Result<Vec<i64>, ControlError> {
        let hub = self.hub(&append.hub)?;
        let index = match &append.partition {
            Some(id) => self.partition(&append.hub, id)?.1,
            None => hub.assign(append.partition_key.as_deref()),
        };
        let partition =
            hub.partition(index).ok_or_else(|| ControlError::NoPartition(index.to_string()))?;
        let partition_key: Option<Arc<str>> = append.partition_key.as_deref().map(Into::into);
        let encode = |seed: Seed| {
            let message = seed.into_message().ok_or(ControlError::NotBase64)?;
            let encoded = event::encode(&message).map_err(|_| ControlError::NotBase64)?;
            Ok(NewEvent { partition_key: partition_key.clone(), encoded })
        };
        let events = append.events.into_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let mode = self.core.settings().offsets;
        let stamps = partition.append(events, self.core.now(), mode, 0);
        Ok(stamps.into_iter().map(|stamp| stamp.sequence_number).collect())
    }

    /// The events of a partition from a sequence number on, 10,000 at most.
    ///
    /// # Errors
    ///
    /// When there is no such partition.
    pub fn events(
        &self,
        hub: &str,
        partition: &str,
        from: i64,
    ) -> Result<Vec<EventView>, ControlError> {
        let (hub, index) = self.partition(hub, partition)?;
        let partition = hub.partition(index).into_iter();
        let stored = partition.flat_map(|partition| partition.read(from, MAX_EVENTS));
        Ok(stored.map(|event| EventView::of(index, &event)).collect())
    }

    /// Everything that happened so far and is still remembered, one JSON object a line.
    pub fn log(&self) -> String {
        let entries = self.core.journal.read();
        let lines = entries.iter().filter_map(|entry| serde_json::to_string(entry).ok());
        lines.map(|line| line + "\n").collect()
    }

    /// The emulator as it is now.
    pub fn state(&self) -> StateView {
        StateView::of(&self.core)
    }

    /// How the emulator behaves.
    pub fn settings(&self) -> Settings {
        self.core.settings()
    }

    /// Changes how the emulator behaves from now on.
    pub fn set_settings(&self, settings: Settings) {
        self.core.set_settings(settings);
    }

    /// Deletes a hub and makes it anew: numbers start at 0 again, its links are detached.
    ///
    /// # Errors
    ///
    /// When there is no such hub.
    pub fn recreate_hub(&self, name: &str) -> Result<(), ControlError> {
        if !self.core.namespace.recreate(name) {
            return Err(ControlError::NoHub(name.to_owned()));
        }
        for link in self.core.roster.links() {
            if link.place.hub.as_ref().is_some_and(|hub| hub.eq_ignore_ascii_case(name)) {
                link.end(not_found(name), true);
            }
        }
        Ok(())
    }

    /// Adds partitions to a hub until it has `count`, as the premium tier can while it is in use.
    ///
    /// # Errors
    ///
    /// When there is no such hub.
    pub fn grow_hub(&self, name: &str, count: u32) -> Result<(), ControlError> {
        self.hub(name)?.grow(count);
        Ok(())
    }

    /// Does what retention does, and says how many events are gone.
    ///
    /// # Errors
    ///
    /// When there is no such partition.
    pub fn trim(&self, trim: &Trim) -> Result<usize, ControlError> {
        let hub = self.hub(&trim.hub)?;
        let indices = match &trim.partition {
            Some(id) => vec![self.partition(&trim.hub, id)?.1],
            None => (0..hub.partition_count()).collect(),
        };
        let now = self.core.now();
        let partitions = indices.into_iter().filter_map(|index| hub.partition(index));
        Ok(partitions
            .map(|partition| {
                partition.trim(|event| {
                    let by_number =
                        trim.before_sequence_number.is_none_or(|n| event.stamp.sequence_number < n);
                    let by_age =
                        trim.max_age_ms.is_none_or(|age| now - event.stamp.enqueued_ms > age);
                    by_number && by_age
                })
            })
            .sum())
    }

    /// Empties all hubs, forgets faults and the log, and goes back to the first settings.
    pub fn reset(&self) {
        self.disarm();
        self.core.set_settings(self.initial.clone());
        for hub in self.core.namespace.hubs() {
            // It was there a moment ago; if not, it needs no emptying.
            let _ = self.recreate_hub(&hub.config.name);
        }
        for connection in self.core.roster.connections() {
            connection.wire.mend();
        }
        self.core.journal.clear();
    }

    fn hub(&self, name: &str) -> Result<Arc<Hub>, ControlError> {
        self.core.namespace.hub(name).ok_or_else(|| ControlError::NoHub(name.to_owned()))
    }

    fn partition(&self, hub: &str, id: &str) -> Result<(Arc<Hub>, u32), ControlError> {
        let hub = self.hub(hub)?;
        let index = hub.index_of(id).ok_or_else(|| ControlError::NoPartition(id.to_owned()))?;
        Ok((hub, index))
    }
}
