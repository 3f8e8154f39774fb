//! Which replica has which partition of a log: one record a partition, each written only by who
//! knows how it stands.
//!
//! To take, to renew, to ask for and to give up a partition is the same request: a new record in
//! place of the version that was read. Of two who write at once, one is told that it came too late.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use super::PartitionKey;
use crate::fault::Fault;

/// What the names of our replicas begin with: they answer when they are asked for a partition, and
/// others do not.
pub const OURS: &str = "eventferry-";

/// A log as one consumer group reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Fully qualified namespace.
    pub namespace: String,
    /// Hub.
    pub hub: String,
    /// Consumer group.
    pub group: String,
}

impl Group {
    /// One of its partitions.
    #[must_use]
    pub fn partition(&self, id: &str) -> PartitionKey {
        PartitionKey {
            namespace: self.namespace.clone(),
            hub: self.hub.clone(),
            group: self.group.clone(),
            partition: id.to_owned(),
        }
    }
}

/// What is written of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Who has it; empty where nobody does.
    pub owner: String,
    /// Who would like to have it: its owner finishes what it has begun, and gives it up.
    pub wanted_by: Option<String>,
}

/// A record as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it says.
    pub record: Record,
    /// Its version: another after every write.
    pub version: String,
    /// How long ago its owner wrote it, by the store's own clock.
    pub age: Duration,
}

/// What a write has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The version to name in the next write.
    pub version: String,
    /// The owner level of whoever reads the partition under this record: it rises with every change
    /// of owner, so that one who does not know yet that it has lost the partition cannot have it
    /// back. 0 throughout where foreign readers share the store, all of which have 0.
    pub epoch: i64,
}

/// Where replicas agree on who has which partition.
#[async_trait]
pub trait OwnershipStore: Send + Sync {
    /// What others know this process by. Begins with [`OURS`]; of one process alone.
    fn replica(&self) -> &str;

    /// Every record of a group, by partition, in one request.
    async fn list(&self, group: &Group) -> Result<BTreeMap<String, Held>, Fault>;

    /// Writes a record in place of version `known`, or where there is none yet. Answers `None`, and
    /// changes nothing, if somebody else has written meanwhile. A write by another than the owner
    /// that leaves the owner as it is may renew it or not.
    async fn put(
        &self,
        partition: &PartitionKey,
        record: &Record,
        known: Option<&str>,
    ) -> Result<Option<Written>, Fault>;
}
