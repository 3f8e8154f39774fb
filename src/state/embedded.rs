//! One file, one replica, nothing to install: redb.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Checkpoint, PartitionKey, StateStore};
use crate::fault::{BoxError, Fault};

/// Partition path to checkpoint as JSON.
const CHECKPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("checkpoints");

/// Checkpoints in a redb file. Commits are synced to disk before they return.
#[derive(Debug)]
pub struct EmbeddedStore(Arc<Database>);

impl EmbeddedStore {
    /// Opens or creates `DIR/state.redb`. Blocks for as long as a repair after a crash takes.
    ///
    /// # Errors
    /// The directory cannot be made, the file is damaged, or another process has it open.
    pub fn open(dir: &Path) -> Result<Self, Fault> {
        let open = || -> Result<Self, BoxError> {
            std::fs::create_dir_all(dir)?;
            Ok(Self(Arc::new(Database::create(dir.join("state.redb"))?)))
        };
        open().map_err(|cause| Fault::stop("open state store", "state", cause))
    }

    /// redb blocks on the disk, so its work runs where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Database) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, Fault> {
        let database = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&database)).await;
        done.map_err(BoxError::from)
            .and_then(|result| result)
            .map_err(|cause| Fault::busy(op, "state", cause))
    }
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
