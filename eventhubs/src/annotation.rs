//! Names that the service writes onto events.
//!
//! <https://learn.microsoft.com/azure/event-hubs/event-hubs-amqp-protocol-guide>

/// Message annotation (long): the position in the partition, gapless while nothing is lost.
pub const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
/// Message annotation (string): the opaque position in the partition. Neither numeric nor ordered
/// as text; use [`SEQUENCE_NUMBER`] to compare.
pub const OFFSET: &str = "x-opt-offset";
/// Message annotation (timestamp): when the service took the event, by the service's clock.
pub const ENQUEUED_TIME: &str = "x-opt-enqueued-time";
/// Message annotation (string), written by the publisher: what decided the partition.
pub const PARTITION_KEY: &str = "x-opt-partition-key";

/// Delivery annotation (long) of receivers with runtime metrics: the newest event's number.
pub const LAST_ENQUEUED_SEQUENCE_NUMBER: &str = "last_enqueued_sequence_number";
/// Delivery annotation (string) of receivers with runtime metrics: the newest event's offset.
pub const LAST_ENQUEUED_OFFSET: &str = "last_enqueued_offset";
/// Delivery annotation (timestamp) of receivers with runtime metrics: the newest event's time.
pub const LAST_ENQUEUED_TIME: &str = "last_enqueued_time_utc";
/// Delivery annotation (timestamp) of receivers with runtime metrics: when these were read.
pub const RUNTIME_INFO_RETRIEVAL_TIME: &str = "runtime_info_retrieval_time_utc";
