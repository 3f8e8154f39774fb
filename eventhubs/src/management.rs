//! Questions about hubs and partitions, asked at the node `$management`.
//!
//! A request carries [`OPERATION`], [`TYPE`], [`NAME`], [`SECURITY_TOKEN`] and, for a partition,
//! [`PARTITION`] as application properties. The response's body is a map with string keys.
//!
//! <https://learn.microsoft.com/azure/event-hubs/event-hubs-amqp-protocol-guide>

/// Address of the node that answers.
pub const NODE: &str = "$management";

/// Application property of a request: what is asked for.
pub const OPERATION: &str = "operation";
/// The only [`OPERATION`] there is.
pub const READ: &str = "READ";
/// Application property of a request and key of a response: [`TYPE_HUB`] or [`TYPE_PARTITION`].
pub const TYPE: &str = "type";
/// Application property of a request and key of a response: the hub.
pub const NAME: &str = "name";
/// Application property of a request and key of a response: the partition's id (string).
pub const PARTITION: &str = "partition";
/// Application property of a request: the token, though the link is already authorised.
pub const SECURITY_TOKEN: &str = "security_token";
/// Asks for, or holds, the properties of a hub.
pub const TYPE_HUB: &str = "com.microsoft:eventhub";
/// Asks for, or holds, the properties of a partition.
pub const TYPE_PARTITION: &str = "com.microsoft:partition";
/// The status of a good answer. Clients compare for equality: 202 is a failure to them.
pub const OK: i32 = 200;

/// Hub (timestamp): when it was made.
pub const CREATED_AT: &str = "created_at";
/// Hub (int): how many partitions it has.
pub const PARTITION_COUNT: &str = "partition_count";
/// Hub (array of string, never a list): the partitions' ids.
pub const PARTITION_IDS: &str = "partition_ids";
/// Hub (int): more than one when geo-replicated.
pub const GEO_REPLICATION_FACTOR: &str = "georeplication_factor";

/// Partition (long): the oldest event's number; 0 when there is none.
pub const BEGIN_SEQUENCE_NUMBER: &str = "begin_sequence_number";
/// Partition (int): -1 unless geo-replicated.
pub const BEGIN_SEQUENCE_NUMBER_EPOCH: &str = "begin_sequence_number_epoch";
/// Partition (long): the newest event's number; -1 when there was never one.
pub const LAST_ENQUEUED_SEQUENCE_NUMBER: &str = "last_enqueued_sequence_number";
/// Partition (int): -1 unless geo-replicated.
pub const LAST_ENQUEUED_SEQUENCE_NUMBER_EPOCH: &str = "last_enqueued_sequence_number_epoch";
/// Partition (string): the newest event's offset; "-1" when there was never one.
pub const LAST_ENQUEUED_OFFSET: &str = "last_enqueued_offset";
/// Partition (timestamp): when the newest event was taken.
pub const LAST_ENQUEUED_TIME: &str = "last_enqueued_time_utc";
/// Partition (boolean): nothing is kept at the moment.
pub const IS_PARTITION_EMPTY: &str = "is_partition_empty";
