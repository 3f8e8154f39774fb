//! Checkpoints and ownership in Azure Blob Storage, in the layout that all Azure SDKs and KEDA share: one empty
//! blob per partition, its position in the blob's metadata.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use azure_core::http::Etag;
use azure_storage_blob::{
    BlobClient, BlobContainerClient, BlobContainerClientOptions,
    models::{
        BlobClientGetPropertiesResultHeaders as _, BlobClientSetMetadataOptions,
        BlobClientUploadOptions,
    },
};
use futures::{StreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, PartitionKey, StateStore,
    ownership::{OURS, OwnershipStore},
};
use crate::{
    cloud::{
        Clouds,
        azure::{
            self,
            storage::{Refusal, Service, call, is_not_permitted, shown},
        },
    },
    fault::Fault,
};

mod ownership;

/// A container of an Azure storage account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BlobState")]
pub struct Config {
    /// Name of the container; it must be there.
    pub container: String,
    /// How to reach Azure, where it differs from the file's `azure`.
    #[serde(default)]
    pub azure: azure::Config,
}

impl Config {
    /// Opens the store. Asks whether the container is there.
    ///
    /// # Errors
    /// The account cannot be used, or the container is not there.
    pub async fn open(&self, clouds: &Clouds) -> Result<BlobStore, Fault> {
        let endpoint = self.azure.or(&clouds.azure).storage(Service::Blob)?;
        let url = endpoint.at(&self.container);
        let shown: Arc<str> = shown(&url).into();
        let options =
            BlobContainerClientOptions { client_options: endpoint.options, ..Default::default() };
        let container = BlobContainerClient::new(url, endpoint.credential, Some(options))
            .map_err(|_| Fault::stop("connect", "settings", format!("{shown}: unusable URL")))?;
        match call("GetContainerProperties", &shown, container.get_properties(None)).await {
            Err(refusal) if !is_not_permitted(&refusal) => return Err(refusal.into()),
            _ => {}
        }
        let replica = format!("{OURS}{}", uuid::Uuid::new_v4().simple());
        Ok(BlobStore { container, shown, replica, known: Mutex::default() })
    }
}

/// Requests under way at once within one call.
const CONCURRENCY: usize = 16;
/// Tries to write one checkpoint that others write, too.
const TRIES: usize = 4;

/// Checkpoints in the metadata of blobs.
///
/// Every write is conditional on the blob's last known tag, so that what another process has
/// written in between is read first, and never lowered.
pub struct BlobStore {
    container: BlobContainerClient,
    /// The container's URL without a signature.
    shown: Arc<str>,
    /// Who this process is to others.
    replica: String,
    /// What each partition's blob held when it was last read or written.
    known: Mutex<HashMap<PartitionKey, Known>>,
}

/// What is known of a partition's blob.
#[derive(Clone)]
struct Known {
    /// Its tag; `None` where there is no blob.
    etag: Option<Etag>,
    /// The highest under any spelling of its name.
    checkpoint: Option<Checkpoint>,
}

/// A blob that was read.
struct Found {
    etag: Option<Etag>,
    checkpoint: Option<Checkpoint>,
}

const SEQUENCE: &str = "sequencenumber";
const OFFSET: &str = "offset";
/// Ours alone: other SDKs pass it over, and leave it out where they write.
const HUB_MADE: &str = "hubmade";

impl BlobStore {
    fn known(&self) -> MutexGuard<'_, HashMap<PartitionKey, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob(&self, key: &PartitionKey) -> BlobClient {
        let PartitionKey { namespace, hub, group, partition } = key;
        self.container.blob_client(&format!("{namespace}/{hub}/{group}/checkpoint/{partition}"))
    }

    async fn read(&self, key: &PartitionKey) -> Result<Found, Fault> {
        let blob = self.blob(key);
        match call("GetBlobProperties", &self.shown, blob.get_properties(None)).await {
            Ok(answer) => {
                let metadata = answer.metadata().unwrap_or_default();
                let sequence = metadata.get(SEQUENCE).and_then(|text| text.parse().ok());
                let checkpoint = sequence.map(|sequence| Checkpoint {
                    sequence,
                    offset: metadata.get(OFFSET).cloned().unwrap_or_default(),
                    hub_made: metadata.get(HUB_MADE).and_then(|text| text.parse().ok()),
                });
                Ok(Found { etag: answer.etag().ok().flatten(), checkpoint })
            }
            Err(refusal) if refusal.code == "BlobNotFound" => {
                Ok(Found { etag: None, checkpoint: None })
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Reads a partition under both spellings. .NET, JavaScript and Python write names in lower
    /// case, Rust, Go and Java as they are given; the higher position is the newer one.
    async fn fetch(&self, key: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        let lower = key.to_lower_case();
        let found = self.read(&lower).await?;
        let mut newest = found.checkpoint;
        if lower != *key {
            let verbatim = self.read(key).await?.checkpoint;
            let higher = |one: Checkpoint, other| if one.outranks(&other) { one } else { other };
            newest = newest.into_iter().chain(verbatim).reduce(higher);
        }
        let known = Known { etag: found.etag, checkpoint: newest.clone() };
        self.known().insert(lower, known);
        Ok(newest)
    }

    /// Writes one checkpoint, unless the blob is there already or further on.
    async fn write(&self, key: &PartitionKey, new: &Checkpoint) -> Result<(), Fault> {
        let lower = key.to_lower_case();
        for _ in 0..TRIES {
            let known = self.known().get(&lower).cloned();
            let Some(known) = known else {
                self.fetch(key).await?;
                continue;
            };
            if known.checkpoint.is_some_and(|known| !new.outranks(&known)) {
                return Ok(());
            }
            match self.put(&lower, new, known.etag).await {
                Ok(etag) => {
                    let known = Known { etag, checkpoint: Some(new.clone()) };
                    self.known().insert(lower, known);
                    return Ok(());
                }
                Err(refusal) => {
                    // Whatever has happened: what is known of the blob may be wrong now.
                    self.known().remove(&lower);
                    if !is_overtaken(&refusal) {
                        return Err(refusal.into());
                    }
                }
            }
        }
        Err(self.contended())
    }

    /// Puts the first checkpoint in place of what was found by the last [fetch](Self::fetch), unless
    /// another has written since.
    async fn begin_once(
        &self,
        key: &PartitionKey,
        first: &Checkpoint,
        there: Option<&Checkpoint>,
    ) -> Result<(), Refusal> {
        let lower = key.to_lower_case();
        let mut etag = self.known().remove(&lower).and_then(|known| known.etag);
        // Of two spellings the higher position counts, and would count again.
        if let Some(there) = there.filter(|_| lower != *key) {
            etag = self.put(&lower, there, etag).await?;
            self.delete(key).await?;
        }
        self.put(&lower, first, etag).await.map(drop)
    }

    /// Deletes a blob that may be gone already.
    async fn delete(&self, key: &PartitionKey) -> Result<(), Refusal> {
        let blob = self.blob(key);
        match call("DeleteBlob", &self.shown, blob.delete(None)).await {
            Err(refusal) if refusal.code != "BlobNotFound" => Err(refusal),
            _ => Ok(()),
        }
    }

    fn contended(&self) -> Fault {
        let text = format!("{}: others write the same checkpoint all the time", self.shown);
        Fault::busy("SetBlobMetadata", "contended", text)
    }

    /// Writes the blob if its tag is still `etag`, and answers its new one.
    async fn put(
        &self,
        lower: &PartitionKey,
        new: &Checkpoint,
        etag: Option<Etag>,
    ) -> Result<Option<Etag>, Refusal> {
        let blob = self.blob(lower);
        let mut metadata = HashMap::from([
            (SEQUENCE.to_owned(), new.sequence.to_string()),
            (OFFSET.to_owned(), new.offset.clone()),
        ]);
        metadata.extend(new.hub_made.map(|made| (HUB_MADE.to_owned(), made.to_string())));
        let Some(etag) = etag else {
            let options = BlobClientUploadOptions {
                metadata: Some(metadata),
                if_none_match: Some("*".into()),
                ..Default::default()
            };
            let upload = blob.upload(bytes::Bytes::new().into(), Some(options));
            return Ok(call("PutBlob", &self.shown, upload).await?.etag);
        };
        let options = BlobClientSetMetadataOptions { if_match: Some(etag), ..Default::default() };
        let set = blob.set_metadata(&metadata, Some(options));
        let answer = call("SetBlobMetadata", &self.shown, set).await?;
        Ok(answer.headers().get_optional_str(&azure_core::http::headers::ETAG).map(Etag::from))
    }
}

/// Whether another has written, made or deleted the blob since it was last read.
/// <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>
fn is_overtaken(refusal: &Refusal) -> bool {
    ["ConditionNotMet", "BlobAlreadyExists", "BlobNotFound"].contains(&refusal.code.as_str())
}

#[async_trait]
impl StateStore for BlobStore {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        self.fetch(partition).await
    }

    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        let checkpoints = checkpoints.to_vec();
        let write = |(key, new)| async move {
            failpoint!(DuringCheckpoint);
            self.write(&key, &new).await
        };
        let mut writes = stream::iter(checkpoints).map(write).buffer_unordered(CONCURRENCY);
        let mut first = Ok(());
        // One that fails must not keep the others back.
        while let Some(written) = writes.next().await {
            first = first.and(written);
        }
        first
    }

    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault> {
        for _ in 0..TRIES {
            let there = self.fetch(partition).await?;
            if there
                .as_ref()
                .is_some_and(|there| !instead_of.is_some_and(|old| old.is_where(there)))
            {
                return Ok(());
            }
            match self.begin_once(partition, first, there.as_ref()).await {
                Ok(()) => return Ok(()),
                // Another one begins: what it has written says whether there is still something to do.
                Err(refusal) if is_overtaken(&refusal) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(self.contended())
    }

    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        let lower = partition.to_lower_case();
        let etag = self.read(&lower).await?.etag;
        self.known().remove(&lower);
        let etag = self.put(&lower, to, etag).await?;
        // Of two spellings the higher position counts.
        if lower != *partition {
            self.delete(partition).await?;
        }
        self.known().insert(lower, Known { etag, checkpoint: Some(to.clone()) });
        Ok(())
    }

    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        let lower = partition.to_lower_case();
        self.known().remove(&lower);
        for key in [&lower, partition] {
            self.delete(key).await?;
        }
        Ok(())
    }

    fn ownership(&self) -> Option<&dyn OwnershipStore> {
        Some(self)
    }
}
