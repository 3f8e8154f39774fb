//! What the service allows. Limits that depend on the tier are named after it.
//!
//! Quotas: <https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>.
//! Idle rules: <https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-troubleshoot>.

use std::time::Duration;

/// Bytes of one event or one batch as encoded, annotations included: every tier but Basic.
/// The truth for a given hub is the max-message-size of the link.
pub const MAX_MESSAGE_BYTES: u64 = 1_048_576;
/// Bytes of one event or one batch as encoded: the Basic tier.
pub const MAX_MESSAGE_BYTES_BASIC: u64 = 262_144;
/// Characters of a partition key.
/// <https://learn.microsoft.com/azure/event-hubs/event-hubs-programming-guide#partition-key>
pub const MAX_PARTITION_KEY_CHARS: usize = 128;
/// Receivers without an epoch on one partition of one consumer group.
pub const MAX_RECEIVERS_PER_PARTITION: usize = 5;
/// Reads of hub or partition properties per second and namespace.
pub const MAX_MANAGEMENT_READS_PER_SECOND: u32 = 50;
/// Partitions of a hub: Basic and Standard.
pub const MAX_PARTITIONS_STANDARD: u32 = 32;
/// Characters of the name of a hub.
pub const MAX_HUB_NAME_CHARS: usize = 256;
/// Characters of the name of a consumer group.
pub const MAX_CONSUMER_GROUP_NAME_CHARS: usize = 50;

/// A link without traffic this long is detached with
/// [`LINK_DETACH_FORCED`](crate::condition::LINK_DETACH_FORCED).
pub const IDLE_LINK: Duration = Duration::from_secs(10 * 60);
/// A connection without links this long is closed with
/// [`CONNECTION_FORCED`](crate::condition::CONNECTION_FORCED).
pub const IDLE_CONNECTION: Duration = Duration::from_secs(5 * 60);
/// A new connection has this long to attach its first link.
pub const FIRST_LINK: Duration = Duration::from_secs(60);
