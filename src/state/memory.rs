//! A store that ends with the process: for tests, and where every source has leases.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;

use super::{Checkpoint, PartitionKey, StateStore};
use crate::fault::Fault;

/// Checkpoints in a map.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<HashMap<PartitionKey, Checkpoint>>);

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
            if new.sequence > old.sequence {
                *old = new.clone();
            }
        }
        Ok(())
    }

    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition.to_lower_case());
        Ok(())
    }
}
