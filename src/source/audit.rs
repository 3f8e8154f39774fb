//! The audit log of this daemon's own admin API, as events. What is not delivered when the process
//! ends is in the log, and nowhere else.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Nature, Source};
use crate::{cloud::Context, fault::Fault};

/// The requests to the admin API that changed something, or were refused to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AuditLog")]
pub struct Config {}

impl Config {
    pub(super) fn nature(&self) -> Nature {
        Nature {
            what: "the audit log",
            ordered_by: Some("all of it"),
            is_log: false,
            event_bytes: 64 << 10,
            hold_max: Duration::from_secs(11 * 3600),
        }
    }

    pub(super) async fn source(&self, context: &Context) -> Result<Source, Fault> {
        context.audit.queue().source(context).await
    }
}
