//! Error conditions: the symbols by which the service says why it refused, detached or closed.
//!
//! <https://learn.microsoft.com/azure/event-hubs/event-hubs-messaging-exceptions>

/// The namespace is throttling; try again after some seconds. The text holds 50002 (quota) or
/// 50008 (the service itself is busy).
pub const SERVER_BUSY: &str = "com.microsoft:server-busy";
/// The service did not answer itself in time: what was asked may or may not have happened.
pub const TIMEOUT: &str = "com.microsoft:timeout";
/// A value is wrong; the text of an unknown offset is that of [`unknown_offset`].
pub const ARGUMENT_ERROR: &str = "com.microsoft:argument-error";
/// A value lies outside what exists, such as a partition id that the hub does not have.
pub const ARGUMENT_OUT_OF_RANGE: &str = "com.microsoft:argument-out-of-range";
/// The hub exists and is switched off.
pub const ENTITY_DISABLED: &str = "com.microsoft:entity-disabled";
/// A receiver with an equal or higher epoch took the partition over.
pub const LINK_STOLEN: &str = "amqp:link:stolen";
/// The link was idle too long, or the service moved the partition: attach again.
pub const LINK_DETACH_FORCED: &str = "amqp:link:detach-forced";
/// The transfer was larger than the link's max-message-size.
pub const LINK_MESSAGE_SIZE_EXCEEDED: &str = "amqp:link:message-size-exceeded";
/// The connection was idle or without links too long: connect again.
pub const CONNECTION_FORCED: &str = "amqp:connection:forced";
/// No such hub, partition or consumer group.
pub const NOT_FOUND: &str = "amqp:not-found";
/// No token, a bad one, or one that has expired.
pub const UNAUTHORIZED_ACCESS: &str = "amqp:unauthorized-access";
/// The token does not allow this.
pub const NOT_ALLOWED: &str = "amqp:not-allowed";
/// A quota is used up, such as five receivers on one partition of a consumer group.
pub const RESOURCE_LIMIT_EXCEEDED: &str = "amqp:resource-limit-exceeded";
/// The service failed; try again.
pub const INTERNAL_ERROR: &str = "amqp:internal-error";

/// The service's words for an offset that it never issued, which is what a checkpoint of a hub
/// that was deleted and made again amounts to.
///
/// Seen at <https://github.com/Azure/azure-event-hubs-dotnet/issues/385>.
pub fn unknown_offset(offset: &str, last: &str) -> String {
    format!("The supplied offset '{offset}' is invalid. The last offset in the system is '{last}'")
}

/// The service's words for a sequence number beyond the end of the partition.
pub fn unknown_sequence_number(number: i64, last: i64) -> String {
    format!(
        "The supplied sequence number '{number}' is invalid. The last sequence number in the \
         system is '{last}'"
    )
}
