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
    Database, Error, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableError,
};

use super::{
    Checkpoint, DedupStore, Found, PartitionKey, StateStore,
    keys::{self, Keys},
};
use crate::{
    dedup::{KEY_BYTES, Key},
    fault::{BoxError, Fault},
};

mod file;

use file::StateFile;

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
/// While the disk fails, so does every call; once it works again, so do they.
#[derive(Debug)]
pub struct EmbeddedStore {
    file: Arc<StateFile>,
    /// What the table of delivered keys holds.
    keys: Arc<Keys>,
    /// The next running number.
    next: AtomicU64,
}

impl EmbeddedStore {
    /// Opens `DIR/state.redb`, or makes it where there is none. Blocks for as long as it takes to
    /// read all of it, and to repair it after a crash.
    ///
    /// # Errors
    /// The directory cannot be made, the file cannot be read and written or is damaged, or another
    /// process has it open. Says which file, and what to do.
    pub fn open(dir: &Path) -> Result<Self, Fault> {
        let open = || {
            let file = StateFile::open(file_in(dir))?;
            let (keys, next) = file.with(read_keys)?;
            Ok(Self { file: Arc::new(file), keys: Arc::new(keys), next })
        };
        open().map_err(|error: file::FileError| {
            let class = if error.is_in_use() { IN_USE } else { "state" };
            Fault::stop("open state store", class, error)
        })
    }

    /// redb blocks on the disk, so its work runs where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Database) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Fault> {
        let file = self.file.clone();
        let done = tokio::task::spawn_blocking(move || file.with(work)).await;
        done.map_err(BoxError::from)
            .and_then(|result| result.map_err(BoxError::from))
            .map_err(|cause| Fault::busy(op, "state", cause))
    }
}

/// A checkpoint as it stands in the table.
fn checkpoint(row: &[u8]) -> Result<Checkpoint, Error> {
    serde_json::from_slice(row).map_err(|error| Error::Corrupted(error.to_string()))
}

/// The delivered keys, and the running number that comes next.
fn read_keys(database: &Database) -> Result<(Keys, AtomicU64), Error> {
    let (keys, mut next) = (Keys::default(), 0);
    match database.begin_read()?.open_table(DELIVERED) {
        Err(TableError::TableDoesNotExist(_)) => {}
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
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let found = table.get(path.as_str())?;
            found.map(|found| checkpoint(found.value())).transpose()
        })
        .await
    }

    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        // A struct of numbers and a string always serializes.
        let row = |new: &Checkpoint| serde_json::to_vec(new).unwrap_or_default();
        let rows = checkpoints.iter().map(|(key, new)| (path(key), new.clone(), row(new)));
        let rows: Vec<_> = rows.collect();
        self.blocking("store checkpoints", move |database| {
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            {
                let mut table = write.open_table(CHECKPOINTS)?;
                for (path, new, row) in rows {
                    let old = table.get(path.as_str())?;
                    let old = old.map(|found| checkpoint(found.value())).transpose()?;
                    if old.is_none_or(|old| new.outranks(&old)) {
                        table.insert(path.as_str(), row.as_slice())?;
                    }
                }
            }
            failpoint!(DuringCheckpoint);
            write.commit()?;
            Ok(())
        })
        .await
    }

    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault> {
        // Nothing else begins meanwhile.
        match self.load(partition).await? {
            Some(there) if !instead_of.is_some_and(|old| old.is_where(&there)) => Ok(()),
            _ => self.put_back(partition, first).await,
        }
    }

    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        let (path, row) = (path(partition), serde_json::to_vec(to).unwrap_or_default());
        self.blocking("put a checkpoint back", move |database| {
            let mut write = database.begin_write()?;
            write.set_quick_repair(true);
            write.open_table(CHECKPOINTS)?.insert(path.as_str(), row.as_slice())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PartitionKey {
        let [namespace, hub, group, partition] = ["n", "h", "g", "0"].map(str::to_owned);
        PartitionKey { namespace, hub, group, partition }
    }

    fn at(sequence: i64) -> Checkpoint {
        Checkpoint { sequence, offset: sequence.to_string(), hub_made: None }
    }

    async fn written(dir: &Path) -> EmbeddedStore {
        let store = EmbeddedStore::open(dir).unwrap();
        store.store(&[(key(), at(7))]).await.unwrap();
        store.commit(&[(Key([1; KEY_BYTES]), Duration::from_secs(600))]).await.unwrap();
        store
    }

    /// Why a file that was changed like this is not opened.
    async fn refused(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let dir = tempfile::tempdir().unwrap();
        drop(written(dir.path()).await);
        let file = file_in(dir.path());
        let mut bytes = std::fs::read(&file).unwrap();
        change(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
        let fault = EmbeddedStore::open(dir.path()).expect_err("it is damaged");
        let text = fault.to_string();
        let start = format!("open state store failed: {}: it is ", file.display());
        text.strip_prefix(&start).unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    #[tokio::test]
    async fn what_is_damaged_is_told_from_what_is_new() {
        for length in [0, 5, 100, 5_000] {
            let text = refused(|bytes| bytes.truncate(length)).await;
            assert!(text.starts_with("damaged; put a copy back"), "{length}: {text}");
        }
        let text = refused(|bytes| bytes[..9].copy_from_slice(b"SQLite fo")).await;
        assert!(text.starts_with("damaged; "), "{text}");
        // Each place in which the sequence number of the checkpoint is written.
        let text = refused(|bytes| {
            let needle = br#""sequence":7"#;
            let places = bytes.windows(needle.len()).enumerate().filter(|(_, it)| it == needle);
            let places: Vec<_> = places.map(|(at, _)| at + needle.len() - 1).collect();
            assert!(!places.is_empty());
            places.into_iter().for_each(|at| bytes[at] = b'9');
        })
        .await;
        assert!(text.starts_with("damaged; "), "{text}");
    }

    #[tokio::test]
    async fn a_file_of_another_version_is_told_from_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let other: TableDefinition<'_, u64, u64> = TableDefinition::new("delivered");
        let database = Database::create(file_in(dir.path())).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(other).unwrap().insert(1, 1).unwrap();
        write.commit().unwrap();
        drop(database);
        let text = EmbeddedStore::open(dir.path()).expect_err("another type").to_string();
        assert!(text.contains("it is of another version; run the version that wrote it"), "{text}");
    }

    #[tokio::test]
    async fn a_checkpoint_is_lowered_only_by_who_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = written(dir.path()).await;
        store.store(&[(key(), at(3))]).await.unwrap();
        assert_eq!(store.load(&key()).await.unwrap(), Some(at(7)));
        store.put_back(&key(), &at(3)).await.unwrap();
        drop(store);
        let store = EmbeddedStore::open(dir.path()).unwrap();
        assert_eq!(store.load(&key()).await.unwrap(), Some(at(3)));
    }

    #[tokio::test]
    async fn what_was_half_made_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let begun = file_in(dir.path()).with_extension("begun");
        std::fs::write(&begun, [0; 4096]).unwrap();
        let store = written(dir.path()).await;
        assert_eq!(store.load(&key()).await.unwrap(), Some(at(7)));
        assert!(!begun.exists());
        let text = EmbeddedStore::open(dir.path()).expect_err("open already").to_string();
        assert!(text.contains("another process has it open; stop that one"), "{text}");
    }

    #[tokio::test]
    async fn after_an_error_the_file_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = written(dir.path()).await;
        let fails = |_: &Database| Err::<(), _>(Error::Io(std::io::ErrorKind::StorageFull.into()));
        let fault = store.blocking("write", fails).await.unwrap_err();
        assert!(fault.to_string().contains("the disk is full; make room"), "{fault}");
        store.store(&[(key(), at(8))]).await.unwrap();
        assert_eq!(store.load(&key()).await.unwrap(), Some(at(8)));
        // What is moved away while it is closed is not made anew, or its checkpoints were lost.
        store.blocking("write", fails).await.unwrap_err();
        std::fs::rename(file_in(dir.path()), dir.path().join("aside")).unwrap();
        let fault = store.store(&[(key(), at(9))]).await.unwrap_err();
        assert!(fault.to_string().contains("it is gone; put it back"), "{fault}");
        std::fs::rename(dir.path().join("aside"), file_in(dir.path())).unwrap();
        store.store(&[(key(), at(9))]).await.unwrap();
        assert_eq!(store.load(&key()).await.unwrap(), Some(at(9)));
    }
}
