//! The hubs that are served, and the service's clock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{admission::Admission, config::HubConfig, partition::Partition};
use crate::{address::DEFAULT_CONSUMER_GROUP, partition_key};

/// The hubs, by name in lower case.
#[derive(Debug)]
pub(crate) struct Namespace {
    hubs: RwLock<BTreeMap<String, Arc<Hub>>>,
}

/// One hub, from its creation to its deletion.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: HubConfig,
    /// Milliseconds since 1970.
    pub(crate) created_ms: i64,
    pub(crate) admission: Admission,
    /// Never fewer than there were.
    partitions: RwLock<Vec<Arc<Partition>>>,
    turn: AtomicU32,
}

impl Namespace {
    pub(crate) fn new(hubs: &[HubConfig]) -> Self {
        let hubs =
            hubs.iter().map(|hub| (hub.name.to_lowercase(), Arc::new(Hub::new(hub.clone()))));
        Self { hubs: RwLock::new(hubs.collect()) }
    }

    pub(crate) fn hub(&self, name: &str) -> Option<Arc<Hub>> {
        let hubs = self.hubs.read().unwrap_or_else(PoisonError::into_inner);
        hubs.get(&name.to_lowercase()).cloned()
    }

    pub(crate) fn hubs(&self) -> Vec<Arc<Hub>> {
        let hubs = self.hubs.read().unwrap_or_else(PoisonError::into_inner);
        hubs.values().cloned().collect()
    }

    /// Deletes the hub and makes it anew, empty, with numbers from 0. `false`: there is none.
    pub(crate) fn recreate(&self, name: &str) -> bool {
        let mut hubs = self.hubs.write().unwrap_or_else(PoisonError::into_inner);
        match hubs.get_mut(&name.to_lowercase()) {
            Some(hub) => {
                *hub = Arc::new(Hub::new(hub.config.clone()));
                true
            }
            None => false,
        }
    }
}

impl Hub {
    fn new(config: HubConfig) -> Self {
        let partitions = (0..config.partitions).map(|_| Arc::new(Partition::new())).collect();
        Self {
            config,
            created_ms: machine_clock_ms(),
            admission: Admission::default(),
            partitions: RwLock::new(partitions),
            turn: AtomicU32::new(0),
        }
    }

    /// The partition of this index.
    pub(crate) fn partition(&self, index: u32) -> Option<Arc<Partition>> {
        self.partitions().get(index as usize).cloned()
    }

    pub(crate) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions().len()).unwrap_or(u32::MAX)
    }

    /// Adds partitions until there are `count`.
    pub(crate) fn grow(&self, count: u32) {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        while partitions.len() < count as usize {
            partitions.push(Arc::new(Partition::new()));
        }
    }

    fn partitions(&self) -> RwLockReadGuard<'_, Vec<Arc<Partition>>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of the partition that is called this.
    pub(crate) fn index_of(&self, partition_id: &str) -> Option<u32> {
        let index = partition_id.parse().ok()?;
        (index < self.partition_count()).then_some(index)
    }

    pub(crate) fn has_consumer_group(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case(DEFAULT_CONSUMER_GROUP)
            || self.config.consumer_groups.iter().any(|group| group.eq_ignore_ascii_case(name))
    }

    /// Where events go that name no partition: by key, else in turn.
    pub(crate) fn assign(&self, key: Option<&str>) -> u32 {
        match key {
            Some(key) => partition_key::partition_of(key, self.partition_count()),
            None => self.turn.fetch_add(1, Ordering::Relaxed) % self.partition_count(),
        }
    }
}

/// Milliseconds since 1970 by this machine's clock.
pub(crate) fn machine_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
