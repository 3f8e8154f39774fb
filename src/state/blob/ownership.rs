//! Ownership in the layout that all Azure SDKs share: a blob per partition, the owner in its
//! metadata, its age the blob's own.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{
    http::{
        Etag,
        headers::{self, HeaderName},
    },
    time::parse_rfc7231,
};
use azure_storage_blob::models::{
    BlobClientSetMetadataOptions, BlobClientUploadOptions, BlobContainerClientListBlobsOptions,
    BlobItem, ListBlobsIncludeItem,
};
use futures::TryStreamExt as _;
use time::OffsetDateTime;

use super::{BlobStore, is_overtaken};
use crate::{
    cloud::azure::storage::call,
    fault::Fault,
    state::{
        PartitionKey,
        ownership::{Group, Held, OwnershipStore, Record, Written},
    },
};

const DATE: HeaderName = HeaderName::from_static("date");
const OWNER: &str = "ownerid";
/// Unknown to SDKs, which write the blob without it.
const WANTED_BY: &str = "wantedby";
/// Every SDK reads with this owner level, so that the newest reader has a partition.
const EPOCH: i64 = 0;

fn folder(group: &Group) -> String {
    let Group { namespace, hub, group } = group;
    format!("{namespace}/{hub}/{group}/ownership/").to_lowercase()
}

/// A listed blob: the partition and its record.
fn held(item: BlobItem, now: Option<OffsetDateTime>) -> Option<(String, Held)> {
    let name = item.name?;
    let (_, partition) = name.rsplit_once('/')?;
    let properties = item.properties?;
    let metadata = item.metadata.and_then(|metadata| metadata.values).unwrap_or_default();
    let wanted_by = metadata.get(WANTED_BY).filter(|name| !name.is_empty()).cloned();
    let owner = metadata.get(OWNER).cloned().unwrap_or_default();
    let age = now.zip(properties.last_modified).map(|(now, written)| now - written);
    let held = Held {
        record: Record { owner, wanted_by },
        version: properties.etag?.to_string(),
        age: age.and_then(|age| age.try_into().ok()).unwrap_or(Duration::ZERO),
    };
    Some((partition.to_owned(), held))
}

#[async_trait]
impl OwnershipStore for BlobStore {
    fn replica(&self) -> &str {
        &self.replica
    }

    async fn list(&self, group: &Group) -> Result<BTreeMap<String, Held>, Fault> {
        let options = BlobContainerClientListBlobsOptions {
            prefix: Some(folder(group)),
            include: Some(vec![ListBlobsIncludeItem::Metadata]),
            ..Default::default()
        };
        let unreadable = |_| Fault::retry("ListBlobs", "bad_answer", "the answer cannot be read");
        let mut pages = self.container.list_blobs(Some(options)).map_err(unreadable)?.into_pages();
        let mut found = BTreeMap::new();
        while let Some(page) = call("ListBlobs", &self.shown, pages.try_next()).await? {
            // Both times are the service's: its clock and ours may differ.
            let date = page.headers().get_optional_str(&DATE);
            let now = date.and_then(|text| parse_rfc7231(text).ok());
            let page = page.into_model().map_err(unreadable)?;
            found.extend(page.blob_items.into_iter().filter_map(|item| held(item, now)));
        }
        Ok(found)
    }

    async fn put(
        &self,
        partition: &PartitionKey,
        record: &Record,
        known: Option<&str>,
    ) -> Result<Option<Written>, Fault> {
        let PartitionKey { namespace, hub, group, partition } = partition.to_lower_case();
        let name = format!("{namespace}/{hub}/{group}/ownership/{partition}");
        let blob = self.container.blob_client(&name);
        let mut metadata = HashMap::from([(OWNER.to_owned(), record.owner.clone())]);
        if let Some(name) = &record.wanted_by {
            metadata.insert(WANTED_BY.to_owned(), name.clone());
        }
        let written = match known {
            None => {
                let options = BlobClientUploadOptions {
                    metadata: Some(metadata),
                    if_none_match: Some("*".into()),
                    ..Default::default()
                };
                let upload = blob.upload(bytes::Bytes::new().into(), Some(options));
                call("PutBlob", &self.shown, upload).await.map(|answer| answer.etag)
            }
            Some(version) => {
                let options = BlobClientSetMetadataOptions {
                    if_match: Some(Etag::from(version)),
                    ..Default::default()
                };
                let set = blob.set_metadata(&metadata, Some(options));
                call("SetBlobMetadata", &self.shown, set)
                    .await
                    .map(|answer| answer.headers().get_optional_str(&headers::ETAG).map(Etag::from))
            }
        };
        match written {
            // Without a tag there is nothing to name in the next write; the next list has it.
            Ok(etag) => {
                let version = etag.map(|etag| etag.to_string()).unwrap_or_default();
                Ok(Some(Written { version, epoch: EPOCH }))
            }
            Err(refusal) if is_overtaken(&refusal) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
