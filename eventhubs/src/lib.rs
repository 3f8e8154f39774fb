//! Azure Event Hubs over AMQP 1.0: the protocol's facts, a client that owns its position, and an
//! emulator that three official SDKs accept.
//!
//! The map, in the order a connection meets these things:
//!
//! - [`cbs`]: how a token is put before a link is attached.
//! - [`address`]: what the nodes of a namespace are called.
//! - [`link`]: capabilities and properties of links, the batch message format.
//! - [`filter`]: where a receiver starts.
//! - [`annotation`]: what the service writes onto each event.
//! - [`partition_key`]: which partition a key belongs to.
//! - [`management`]: questions about hubs and partitions.
//! - [`condition`]: what the service says when it refuses.
//! - [`limits`]: what the service allows.
//! - `client` (feature `client`): receives from and sends to a real namespace or the emulator.
//! - `emulator` (feature `emulator`): a namespace on a local port, with faults on request.
//!
//! The facts need no feature and pull in no AMQP engine, so that a configuration checker can use
//! them alone. Client and emulator both state the protocol through them; neither has a copy.

pub mod address;
pub mod annotation;
pub mod cbs;
#[cfg(feature = "client")]
pub mod client;
pub mod condition;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod filter;
pub mod limits;
pub mod link;
pub mod management;
pub mod partition_key;
