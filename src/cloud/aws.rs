//! AWS: credentials, endpoint, and what its errors mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to reach AWS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}
