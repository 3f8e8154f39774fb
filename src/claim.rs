//! Claim checks: the body of an event that is too large for its sink goes to an object store, and
//! a small [`Reference`] to it through the sink. Here is where the store is, and what a file says
//! of it; the sink half is [`sink::claim`](crate::sink::claim), the far half
//! [`source::claim`](crate::source::claim).

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{cloud::Clouds, fault::Fault};

pub mod reference;
pub mod store;

pub use reference::Reference;
pub use store::Store;

/// The largest body that is stored, followed or decompressed: whatever a message claims, it takes
/// no more memory than this.
pub const BODY_MAX: usize = 64 << 20;

/// Where the bodies of events go that are too large for their sinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimCheck {
    /// The object store. Nothing is ever deleted from it: that is for its lifecycle rules, and
    /// they must leave an object for longer than its event can wait in a queue.
    pub store: StoreConfig,
}

/// An object store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StoreConfig {
    /// A bucket of S3.
    #[cfg(feature = "aws")]
    S3(S3),
    /// A container of Azure Blob Storage.
    #[cfg(feature = "azure")]
    Blob(Blob),
    /// A directory that all who follow its references see under the same path.
    Directory(Directory),
}

/// A bucket of S3.
#[cfg(feature = "aws")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ClaimBucket")]
pub struct S3 {
    /// Name of the bucket; it must be there.
    pub bucket: String,
    /// What the names of its objects begin with, such as `claims` or `ferry/claims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How to reach AWS, where it differs from the file's `aws`.
    #[serde(default)]
    pub aws: crate::cloud::aws::Config,
}

/// A container of Azure Blob Storage.
#[cfg(feature = "azure")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ClaimContainer")]
pub struct Blob {
    /// Name of the container; it must be there.
    pub container: String,
    /// What the names of its blobs begin with, such as `claims` or `ferry/claims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How to reach Azure, where it differs from the file's `azure`.
    #[serde(default)]
    pub azure: crate::cloud::azure::Config,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ClaimDirectory")]
pub struct Directory {
    /// Its path; it is made where it is not there.
    pub path: PathBuf,
}

impl ClaimCheck {
    /// What is wrong with its settings, beside those of its `clouds`: the kind of the store, the
    /// path of a field below it, and why, with a hint.
    #[must_use]
    #[cfg_attr(not(feature = "azure"), expect(unused_variables, reason = "of no use to others"))]
    pub fn problems(&self, clouds: &Clouds) -> Vec<(&'static str, &'static str, String)> {
        #[cfg(any(feature = "aws", feature = "azure"))]
        let prefix_problem = |prefix: &Option<String>| {
            let wrong = !prefix.as_deref().is_none_or(is_prefix);
            wrong.then(|| ("prefix", format!("{PREFIX}, such as `ferry/claims`")))
        };
        let (kind, found): (_, Vec<(&'static str, String)>) = match &self.store {
            #[cfg(feature = "aws")]
            StoreConfig::S3(config) => {
                let mut found = Vec::from_iter(prefix_problem(&config.prefix));
                if !is_name(&config.bucket, ".-") {
                    found.push(("bucket", "is no name of a bucket".to_owned()));
                }
                ("s3", found)
            }
            #[cfg(feature = "azure")]
            StoreConfig::Blob(config) => {
                let mut found = config.azure.problems();
                found.extend(config.azure.or(&clouds.azure).no_account().map(|text| ("", text)));
                found.extend(prefix_problem(&config.prefix));
                if !is_name(&config.container, "-$") {
                    found.push(("container", "is no name of a container".to_owned()));
                }
                ("blob", found)
            }
            StoreConfig::Directory(config) => {
                let empty = config.path.as_os_str().is_empty();
                let text = "say which directory".to_owned();
                ("directory", empty.then_some(("path", text)).into_iter().collect())
            }
        };
        found.into_iter().map(|(field, text)| (kind, field, text)).collect()
    }

    /// The store in words, much like what the URLs into it begin with.
    #[must_use]
    pub fn shown(&self) -> String {
        #[cfg(any(feature = "aws", feature = "azure"))]
        let below = |prefix: &Option<String>| {
            prefix.as_ref().map_or_else(String::new, |prefix| format!("/{prefix}"))
        };
        match &self.store {
            #[cfg(feature = "aws")]
            StoreConfig::S3(config) => format!("s3://{}{}", config.bucket, below(&config.prefix)),
            #[cfg(feature = "azure")]
            StoreConfig::Blob(config) => {
                format!("blob://{}{}", config.container, below(&config.prefix))
            }
            StoreConfig::Directory(config) => format!("file://{}", config.path.display()),
        }
    }

    /// Opens the store. Asks it nothing: a bucket that is not there is found out by the first body.
    ///
    /// # Errors
    /// Its settings or secrets cannot be used, or its directory cannot be made.
    #[cfg_attr(
        not(any(feature = "aws", feature = "azure")),
        expect(unused_variables, reason = "directories need no cloud")
    )]
    pub async fn open(&self, clouds: &Clouds) -> Result<Store, Fault> {
        match &self.store {
            #[cfg(feature = "aws")]
            StoreConfig::S3(config) => {
                let aws = config.aws.or(&clouds.aws);
                let bucket = crate::cloud::aws::bucket::open(&aws, &config.bucket).await?;
                let root = format!("s3://{}", config.bucket);
                Ok(Store::new(bucket, &root, config.prefix.as_deref()))
            }
            #[cfg(feature = "azure")]
            StoreConfig::Blob(config) => {
                let azure = config.azure.or(&clouds.azure);
                let (container, root) =
                    crate::cloud::azure::container::open(&azure, &config.container)?;
                Ok(Store::new(container, &root, config.prefix.as_deref()))
            }
            StoreConfig::Directory(config) => Store::directory(&config.path).await,
        }
    }
}

#[cfg(any(feature = "aws", feature = "azure"))]
const PREFIX: &str = "a prefix has letters, digits and `-_.` between single slashes";

#[cfg(any(feature = "aws", feature = "azure", test))]
/// Whether it stands in a URL and in the name of an object as it is.
fn is_prefix(prefix: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    prefix.split('/').all(|part| !["", ".", ".."].contains(&part) && part.chars().all(plain))
}

/// A first look at the name of a bucket or container: small letters, digits, and these.
#[cfg(any(feature = "aws", feature = "azure"))]
fn is_name(name: &str, more: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
    (3..=63).contains(&name.len()) && name.chars().all(allowed)
}

#[cfg(test)]
mod tests;
