//! Why an event was parked: who, where, when, why and how often. It travels with the original
//! bytes and attributes into a dead-letter sink in any cloud.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The record of a parked event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct DeadLetter {
    /// The route that gave up; none where no route wanted the event or it could not be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The sink that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// A short stable name of the cause, such as `too_large`, `unmatched` or `undecodable`.
    pub class: String,
    /// The cause in words.
    pub error: String,
    /// How often it was tried at the sink.
    pub attempts: u32,
    /// How often the source had handed it out.
    pub received: u32,
    /// Name of the source in the configuration.
    pub source: String,
    /// The queue or hub it came from.
    pub resource: String,
    /// Its place there.
    pub position: String,
    /// When it was received.
    #[serde(with = "time::serde::rfc3339")]
    pub first: OffsetDateTime,
    /// When it was given up.
    #[serde(with = "time::serde::rfc3339")]
    pub last: OffsetDateTime,
}
