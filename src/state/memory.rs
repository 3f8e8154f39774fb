//! A store that ends with the process: for tests, and where every source has leases.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    Checkpoint, DedupStore, Found, PartitionKey, StateStore,
    keys::{self, Keys},
};
use crate::{dedup::Key, fault::Fault};

/// Checkpoints in a map.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<HashMap<PartitionKey, Checkpoint>>);

/// Delivered keys, the ones to be forgotten first at the front.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    keys: Keys,
    by_expiry: Mutex<BTreeSet<(u32, Key)>>,
}

#[async_trait]
impl DedupStore for MemoryKeys {
    async fn claim(&self, wanted: &[Key]) -> Result<Vec<Found>, Fault> {
        Ok(self.keys.claim(wanted, keys::now()))
    }

    async fn commit(&self, done: &[(Key, Duration)]) -> Result<(), Fault> {
        let now = keys::now();
        let mut by_expiry = self.by_expiry.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, ttl) in done {
            let expiry = keys::after(now, *ttl);
            by_expiry.insert((expiry, *key));
            self.keys.insert(*key, expiry);
        }
        for _ in 0..keys::sweep(done.len()) {
            let Some(&(expiry, key)) = by_expiry.first() else { break };
            if expiry > now && by_expiry.len() <= keys::KEYS_MAX {
                break;
            }
            by_expiry.pop_first();
            self.keys.forget(&key, expiry);
        }
        Ok(())
    }

    async fn release(&self, _: &[Key]) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map.get(&partition.to_lower_case()).cloned())
    }

    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, new) in checkpoints {
            let old = map.entry(partition.to_lower_case()).or_insert_with(|| new.clone());
            if new.outranks(old) {
                *old = new.clone();
            }
        }
        Ok(())
    }

    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = map.entry(partition.to_lower_case()).or_insert_with(|| first.clone());
        if instead_of.is_some_and(|old| old.is_where(there)) {
            *there = first.clone();
        }
        Ok(())
    }

    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(partition.to_lower_case(), to.clone());
        Ok(())
    }

    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition.to_lower_case());
        Ok(())
    }
}
