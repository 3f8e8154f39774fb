//! The seam between the connectors and the client that speaks to a hub for them: ours, or the
//! official SDK. Positions, checkpoints, ownership, order and retries are above it, the same for
//! both; what an error means is said in the words of our client by both.

use std::time::Duration;

use async_trait::async_trait;
use eventhubs::{
    client::{
        Error, EventData, HubProperties, PartitionProperties, ReceivedEvent, ReceiverOptions,
        SenderOptions, Target,
    },
    filter::Position,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which client speaks to the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EventHubsClient")]
pub enum Transport {
    /// The daemon's own.
    #[default]
    Own,
    /// The official SDK for Rust, under supervision: for comparison. Only in a build with the
    /// feature `eventhubs-sdk`.
    Sdk,
}

impl Transport {
    pub(crate) fn is_own(&self) -> bool {
        *self == Self::Own
    }

    /// Why a build, with the SDK or without, cannot use it.
    pub(super) fn problem(self, has_sdk: bool) -> Option<String> {
        let text = "this program was built without the official SDK: build it with `--features \
                    eventhubs-sdk`, or take `client` out to use the daemon's own client";
        (self == Self::Sdk && !has_sdk).then(|| text.to_owned())
    }
}

/// A hub of a namespace.
#[async_trait]
pub trait Hub: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// The host of its namespace.
    fn host(&self) -> &str;

    /// What the hub says about itself.
    ///
    /// # Errors
    /// As for the client's own [`properties`](eventhubs::client::Hub::properties).
    async fn properties(&self) -> Result<HubProperties, Error>;

    /// What a partition says about itself.
    ///
    /// # Errors
    /// As for [`Hub::properties`].
    async fn partition_properties(&self, id: &str) -> Result<PartitionProperties, Error>;

    /// Opens a receiver of a partition. Tries once.
    ///
    /// # Errors
    /// Any that is about receiving. A refusal may also come with the first [`Receiver::receive`].
    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>, Error>;

    /// A sender. Attaches when first used.
    fn sender(&self, options: SenderOptions) -> Box<dyn Sender>;
}

/// Receives the events of one partition, in order.
#[async_trait]
pub trait Receiver: Send {
    /// Up to `max` events; none where none came within `wait`.
    ///
    /// # Errors
    /// [`Receiver::resumption`] says whether it goes on after that.
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<ReceivedEvent>, Error>;

    /// Where another receiver has to go on that takes the place of this one, which has failed with
    /// this error; none where this one mends itself.
    fn resumption(&self, error: &Error) -> Option<Position>;

    /// Why it has mended itself since this was asked last; none if it did not have to.
    fn interruption(&mut self) -> Option<Error> {
        None
    }

    /// Gives the partition up, and waits for the service to agree.
    async fn close(self: Box<Self>);
}

/// Sends batches.
#[async_trait]
pub trait Sender: Send + Sync {
    /// How many bytes a batch for `target` may have, as
    /// [`bytes_in_batch`](eventhubs::client::bytes_in_batch) counts them. Attaches if need be.
    ///
    /// # Errors
    /// As for [`Sender::send`].
    async fn batch_bytes_max(&self, target: &Target) -> Result<usize, Error>;

    /// Sends as many of the events as fit one batch, the first at least, and answers how many the
    /// service has stored.
    ///
    /// # Errors
    /// None is stored, except after an ambiguous error.
    async fn send(&self, target: &Target, events: &[EventData]) -> Result<usize, Error>;
}

#[async_trait]
impl Hub for eventhubs::client::Hub {
    fn name(&self) -> &str {
        self.name()
    }

    fn host(&self) -> &str {
        self.endpoint().host()
    }

    async fn properties(&self) -> Result<HubProperties, Error> {
        self.properties().await
    }

    async fn partition_properties(&self, id: &str) -> Result<PartitionProperties, Error> {
        self.partition_properties(id).await
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>, Error> {
        Ok(Box::new(self.receiver(options).await?))
    }

    fn sender(&self, options: SenderOptions) -> Box<dyn Sender> {
        Box::new(self.sender(options))
    }
}

#[async_trait]
impl Receiver for eventhubs::client::Receiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<ReceivedEvent>, Error> {
        self.receive(max, wait).await
    }

    fn resumption(&self, error: &Error) -> Option<Position> {
        (!error.is_transient()).then(|| self.position())
    }

    fn interruption(&mut self) -> Option<Error> {
        self.interruption()
    }

    async fn close(self: Box<Self>) {
        (*self).close().await;
    }
}

#[async_trait]
impl Sender for eventhubs::client::Sender {
    async fn batch_bytes_max(&self, target: &Target) -> Result<usize, Error> {
        self.batch_bytes_max(target).await
    }

    async fn send(&self, target: &Target, events: &[EventData]) -> Result<usize, Error> {
        let mut batch = self.batch(target.clone()).await?;
        for event in events {
            if !batch.try_add(event)? {
                break;
            }
        }
        self.send(&batch).await?;
        Ok(batch.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_sdk_says_how_to_get_it() {
        assert_eq!(Transport::Sdk.problem(true), None);
        assert_eq!(Transport::Own.problem(false), None);
        insta::assert_snapshot!(Transport::Sdk.problem(false).unwrap(), @"this program was built without the official SDK: build it with `--features eventhubs-sdk`, or take `client` out to use the daemon's own client");
    }
}
