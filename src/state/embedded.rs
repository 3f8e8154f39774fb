//! One file, one replica, nothing to install: redb.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use super::{
    Checkpoint, DedupStore, Found, PartitionKey, StateStore,
    keys::{self, Keys},
};
use crate::{
    dedup::{KEY_BYTES, Key},
    fault::{BoxError, Fault},
};

/// Partition path to checkpoint as JSON.
const CHECKPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("checkpoints");
/// Delivered keys, by when they are forgotten and a running number: what is written together lies
/// together, and what is forgotten is always the front.
const DELIVERED: TableDefinition<'_, (u32, u64), [u8; KEY_BYTES]> =
    TableDefinition::new("delivered");

/// The class of a file that another process has open.
pub(crate) const IN_USE: &str = "in_use";

/// The file in a directory of state.
pub(crate) fn file_in(dir: &Path) -> PathBuf {
    dir.join("state.redb")
}

/// Checkpoints and delivered keys in a redb file. Commits are synced to disk before they return.
#[derive(Debug)]
pub struct EmbeddedStore {
    database: Arc<Database>,
    /// What the table of delivered keys holds.
    keys: Arc<Keys>,
    /// The next running number.
    next: AtomicU64,
}

impl EmbeddedStore {
    /// Opens or creates `DIR/state.redb`. Blocks for as long as a repair after a crash takes.
    ///
    /// # Errors
    /// The directory cannot be made, the file is damaged, or another process has it open.
    pub fn open(dir: &Path) -> Result<Self, Fault> {
        let open = || -> Result<Self, BoxError> {
            std::fs::create_dir_all(dir)?;
            let database = Database::create(file_in(dir))?;
            let (keys, next) = read_keys(&database)?;
            Ok(Self { database: Arc::new(database), keys: Arc::new(keys), next })
        };
        open().map_err(|cause| {
            let in_use = matches!(cause.downcast_ref(), Some(DatabaseError::DatabaseAlreadyOpen));
            Fault::stop("open state store", if in_use { IN_USE } else { "state" }, cause)
        })
    }

    /// redb blocks on the disk, so its work runs where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Database) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, Fault> {
        let database = self.database.clone();
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        done.map_err(BoxError::from)
            .and_then(|result| result)
            .map_err(|cause| Fault::busy(op, "state", cause))
    }
}

/// The delivered keys, and the running number that comes next.
fn read_keys(database: &Database) -> Result<(Keys, AtomicU64), BoxError> {
    let (keys, mut next) = (Keys::default(), 0);
    match database.begin_read()?.open_table(DELIVERED) {
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        table => {
            for row in table?.iter()? {
                let (at, key) = row?;
                let (expiry, number) = at.value();
                keys.insert(Key(key.value()), expiry);
                next = next.max(number + 1);
            }
        }
    }
    Ok((keys, next.into()))
}

fn path(key: &PartitionKey) -> String {
    let PartitionKey { namespace, hub, group, partition } = key.to_lower_case();
    format!("{namespace}/{hub}/{group}/{partition}")
}

#[async_trait]
impl StateStore for EmbeddedStore {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        let path = path(partition);
        self.blocking("load checkpoint", move |database| {
            let table = match database.begin_read()?.open_table(CHECKPOINTS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let Some(found) = table.get(path.as_str())? else { return Ok(None) };
            Ok(Some(serde_json::from_slice(found.value())?))
        })
        .await
    }

    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        let rows: Vec<_> = checkpoints.iter().map(|(key, new)| (path(key), new.clone())).collect();
        self.blocking("store checkpoints", move |database| {
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            {
                let mut table = write.open_table(CHECKPOINTS)?;
                for (path, new) in rows {
                    let old: Option<Checkpoint> = match table.get(path.as_str())? {
                        Some(found) => Some(serde_json::from_slice(found.value())?),
                        None => None,
                    };
                    if old.is_none_or(|old| new.sequence > old.sequence) {
                        table.insert(path.as_str(), serde_json::to_vec(&new)?.as_slice())?;
                    }
                }
            }
            failpoint!(DuringCheckpoint);
            write.commit()?;
            Ok(())
        })
        .await
    }

    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        let path = path(partition);
        self.blocking("forget checkpoint", move |database| {
            let write = database.begin_write()?;
            write.open_table(CHECKPOINTS)?.remove(path.as_str())?;
            write.commit()?;
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl DedupStore for EmbeddedStore {
    async fn claim(&self, wanted: &[Key]) -> Result<Vec<Found>, Fault> {
        Ok(self.keys.claim(wanted, keys::now()))
    }

    async fn commit(&self, done: &[(Key, Duration)]) -> Result<(), Fault> {
        let now = keys::now();
        let rows: Vec<_> = done.iter().map(|(key, ttl)| (*key, keys::after(now, *ttl))).collect();
        let first = self.next.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let keys = self.keys.clone();
        self.blocking("keep deduplication keys", move |database| {
            let mut forgotten = Vec::new();
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            {
                let mut table = write.open_table(DELIVERED)?;
                for (number, (key, expiry)) in (first..).zip(&rows) {
                    table.insert((*expiry, number), key.0)?;
                }
                let mut spare = table.len()?.saturating_sub(keys::KEYS_MAX as u64);
                for _ in 0..keys::sweep(rows.len()) {
                    let Some((at, _)) = table.first()? else { break };
                    let (expiry, number) = at.value();
                    drop(at);
                    if expiry > now && spare == 0 {
                        break;
                    }
                    spare = spare.saturating_sub(1);
                    let Some(key) = table.remove((expiry, number))? else { break };
                    forgotten.push((Key(key.value()), expiry));
                }
            }
            write.commit()?;
            forgotten.iter().for_each(|(key, expiry)| keys.forget(key, *expiry));
            rows.iter().for_each(|(key, expiry)| keys.insert(*key, *expiry));
            Ok(())
        })
        .await
    }

    async fn release(&self, _: &[Key]) -> Result<(), Fault> {
        Ok(())
    }
}
