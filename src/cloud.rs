//! What connectors share per cloud: credentials, endpoints, and what an SDK's error means.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{admin::audit::Audit, state::StateStore, telemetry::Metrics};

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "azure")]
pub mod event_hubs;
#[cfg(any(feature = "aws", feature = "azure"))]
mod lasting;

/// A connection that nothing was asked on for so long is not asked again. Less than any request may
/// take: when a network falls silent, the requests that are under way are lost, and all idle
/// connections are too old to be tried one after the other by the time this is noticed.
#[cfg(any(feature = "aws", feature = "azure"))]
const IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Settings per cloud: defaults at the top of the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Clouds {
    /// AWS: region, endpoint, credentials.
    #[cfg(feature = "aws")]
    pub aws: aws::Config,
    /// Azure: credential.
    #[cfg(feature = "azure")]
    pub azure: azure::Config,
}

/// What a connector is built with, beside its own configuration.
#[derive(Clone)]
pub struct Context {
    /// Name of the source or sink in the file; every error and log line of the connector bears it.
    pub name: Arc<str>,
    /// Defaults per cloud.
    pub clouds: Clouds,
    /// Where checkpoints are kept.
    pub state: Arc<dyn StateStore>,
    /// Where the connector counts what only it can see.
    pub metrics: Arc<Metrics>,
    /// What the admin API was asked to change.
    pub audit: Arc<Audit>,
}
