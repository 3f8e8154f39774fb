//! What must outlive the process: the checkpoints of partitions, and the keys of events that have
//! been delivered.

use std::time::Duration;

use async_trait::async_trait;

use crate::{dedup::Key, fault::Fault};
use ownership::OwnershipStore;

#[cfg(feature = "azure")]
pub mod blob;
pub mod embedded;
pub mod keys;
pub mod memory;
pub mod ownership;
#[cfg(feature = "redis")]
pub mod redis;

/// How far a partition has been settled.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Checkpoint {
    /// Sequence number of the last event of the contiguous settled prefix.
    pub sequence: i64,
    /// The service's opaque offset of the same event, for SDKs that resume by it.
    pub offset: String,
    /// When the hub was made that it is of, in milliseconds since 1970: a replica that still
    /// delivers what it has of a hub that is gone may write after another one has forgotten. None
    /// where others wrote it, whose word is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_made: Option<i64>,
}

impl Checkpoint {
    /// Whether it takes the place of another one: it is of a newer hub, or further on in the same.
    #[must_use]
    pub fn outranks(&self, other: &Self) -> bool {
        match (self.hub_made, other.hub_made) {
            (Some(ours), Some(theirs)) if ours != theirs => ours > theirs,
            _ => self.sequence > other.sequence,
        }
    }

    /// Whether it says the same place of the same hub, however it was written.
    #[must_use]
    pub fn is_where(&self, other: &Self) -> bool {
        (self.sequence, self.hub_made) == (other.sequence, other.hub_made)
    }
}

/// Names a partition of a log as one consumer group reads it. Names are as they are configured;
/// to the service, and to every store, they are the same in any case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    /// Fully qualified namespace.
    pub namespace: String,
    /// Hub.
    pub hub: String,
    /// Consumer group.
    pub group: String,
    /// Partition id.
    pub partition: String,
}

impl PartitionKey {
    /// The one spelling under which stores keep it.
    #[must_use]
    pub fn to_lower_case(&self) -> Self {
        Self {
            namespace: self.namespace.to_lowercase(),
            hub: self.hub.to_lowercase(),
            group: self.group.to_lowercase(),
            partition: self.partition.clone(),
        }
    }
}

/// Where checkpoints are kept. Writes are durable when they return.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The checkpoint of a partition, if it has one.
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault>;

    /// Writes checkpoints, of which each has to [outrank](Checkpoint::outranks) what is there. Never
    /// lowers a sequence number: a lower one is left out silently, because a zombie's late write
    /// must not rewind its successor; nor is one of a hub that is gone taken. All of them in one round
    /// trip where the store can.
    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault>;

    /// Writes the first checkpoint of a partition; one that is there already stays, unless it still
    /// is the one that this is `instead_of`, of a hub that is gone. So of several replicas that begin
    /// at once, one says where. A death leaves the one or the other.
    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault>;

    /// Puts a checkpoint in place of one that may be higher: somebody wants to go back. Only while
    /// nobody reads the partition.
    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault>;

    /// Forgets a partition, so that a re-created hub can start again.
    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault>;

    /// Where replicas agree on who has which partition; none where the store is of one process
    /// alone, which has them all.
    fn ownership(&self) -> Option<&dyn OwnershipStore> {
        None
    }
}

/// Where the keys of delivered events are kept, and who is delivering which. One value of this type
/// is one owner of claims.
#[async_trait]
pub trait DedupStore: Send + Sync {
    /// Claims keys, all in one round trip; answers for each, in their order. A key that this owner
    /// has claimed already is [`Found::Ours`]: an answer may have been lost.
    async fn claim(&self, keys: &[Key]) -> Result<Vec<Found>, Fault>;

    /// Marks keys as done for as long as their second part says. Durable when it returns. A key
    /// that somebody else has claimed meanwhile is left to them.
    async fn commit(&self, done: &[(Key, Duration)]) -> Result<(), Fault>;

    /// Lets keys go that this owner has claimed; others are left alone.
    async fn release(&self, keys: &[Key]) -> Result<(), Fault>;

    /// Holds claims for another [`lease`](Self::lease). Answers those that somebody else has now.
    async fn renew(&self, keys: &[Key]) -> Result<Vec<Key>, Fault> {
        let _ = keys;
        Ok(Vec::new())
    }

    /// How long a claim lasts without being renewed. None where the store is of one process alone,
    /// whose claims end with it.
    fn lease(&self) -> Option<Duration> {
        None
    }
}

/// What a store knows of a key that it was asked to claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is claimed now.
    Ours,
    /// Its event has been delivered.
    Done,
    /// Somebody else has claimed it.
    Theirs,
}
