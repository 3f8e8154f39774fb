//! What client and service tell each other about a link when it is attached, and the message
//! format of a batch.

/// Message format of a transfer that holds many events: each data section of its body is one
/// complete encoded message. All other formats hold one event.
pub const BATCH_MESSAGE_FORMAT: u32 = 0x8001_3700;

/// Link property of a receiver (long): the epoch, also called owner level. A partition of a
/// consumer group has at most one receiver with an epoch; a newcomer with an equal or higher one
/// takes it over.
pub const EPOCH: &str = "com.microsoft:epoch";
/// Link property of a receiver (string): its name in the service's error texts.
pub const RECEIVER_NAME: &str = "com.microsoft:receiver-name";
/// Desired capability of a receiver: each event also carries the end of its partition as delivery
/// annotations (see [`crate::annotation`]).
pub const RUNTIME_METRIC_CAPABILITY: &str = "com.microsoft:enable-receiver-runtime-metric";

/// Desired capability of a sender: the service drops a repeated range of sequence numbers.
pub const IDEMPOTENT_PRODUCER_CAPABILITY: &str = "com.microsoft:idempotent-producer";
/// Link property and message annotation (long) of an idempotent producer: who publishes.
pub const PRODUCER_ID: &str = "com.microsoft:producer-id";
/// Link property and message annotation (short) of an idempotent producer: its incarnation.
pub const PRODUCER_EPOCH: &str = "com.microsoft:producer-epoch";
/// Link property and message annotation (int) of an idempotent producer: the number of the first
/// event of the transfer.
pub const PRODUCER_SEQUENCE_NUMBER: &str = "com.microsoft:producer-sequence-number";

/// Offered capability of a namespace that is geo-replicated: offsets are no longer numbers.
pub const GEO_REPLICATION_CAPABILITY: &str = "com.microsoft:georeplication";
