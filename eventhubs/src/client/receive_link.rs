//! One attached receiving link: its credit, and events one by one.

use std::sync::Arc;

use fe2o3_amqp::{Receiver as AmqpReceiver, link::receiver::CreditMode, session::SessionHandle};
use fe2o3_amqp_types::{
    definitions::{Fields, ReceiverSettleMode, SenderSettleMode},
    messaging::{Body, Source},
    primitives::{Symbol, Value},
};
use futures::FutureExt;
use serde_amqp::{described::Described, descriptor::Descriptor};

use super::{
    Hub, connection::Connection, error::Error, event::ReceivedEvent, receiver::ReceiverOptions,
};
use crate::{
    address::Address,
    filter::{self, Position},
    limits, link,
};

/// An attached link. Detached when dropped.
pub(crate) struct ReceiveLink {
    // Dropped before the session, so that the detach goes out before the end.
    receiver: AmqpReceiver,
    _session: SessionHandle<()>,
    pub(crate) connection: Arc<Connection>,
    credit: Credit,
}

impl ReceiveLink {
    /// Attaches at `position`.
    pub(crate) async fn attach(
        hub: &Hub,
        connection: Arc<Connection>,
        options: &ReceiverOptions,
        position: &Position,
    ) -> Result<Self, Error> {
        let address = Address::Events {
            hub: hub.name.clone(),
            group: options.consumer_group.clone(),
            partition: options.partition.clone(),
        };
        let endpoint = &hub.client.settings.endpoint;
        let selector = Described {
            descriptor: Descriptor::Code(filter::CODE),
            value: Value::String(position.to_string()),
        };
        let source = Source::builder()
            .address(address.absolute(endpoint.scheme(), endpoint.host()))
            .add_to_filter(filter::NAME, selector)
            .build();
        let name = format!("{}-{}", options.name, uuid::Uuid::new_v4().simple());
        let (session, receiver) = connection
            .within("attach receiver", async {
                let mut session = connection.session().await?;
                let receiver = AmqpReceiver::builder()
                    .name(name)
                    .source(source)
                    .sender_settle_mode(SenderSettleMode::Mixed)
                    .receiver_settle_mode(ReceiverSettleMode::First)
                    .properties(link_properties(options))
                    .credit_mode(CreditMode::Manual)
                    .attach(&mut session)
                    .await
                    .map_err(Error::from_receiver_attach)?;
                Ok((session, receiver))
            })
            .await?;
        let credit = Credit::new(options.credit_events, options.credit_bytes);
        Ok(Self { receiver, _session: session, connection, credit })
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<ReceivedEvent, Error> {
        self.replenish().await?;
        let delivery = self.receiver.recv::<Body<Value>>().await.map_err(Error::from_recv)?;
        self.take(delivery)
    }

    /// The next event if it has arrived already.
    pub(crate) fn ready(&mut self) -> Option<Result<ReceivedEvent, Error>> {
        // Without the cooperative budget of tokio, which would end a batch at 128 events.
        let delivery = tokio::task::unconstrained(self.receiver.recv::<Body<Value>>());
        let delivery = delivery.now_or_never()?;
        Some(delivery.map_err(Error::from_recv).and_then(|delivery| self.take(delivery)))
    }

    fn take(
        &mut self,
        delivery: fe2o3_amqp::Delivery<Body<Value>>,
    ) -> Result<ReceivedEvent, Error> {
        let (info, message) = delivery.into_parts();
        // The service sends settled. A peer that does not gets its disposition, for form's sake:
        // an event hub keeps no record of what was read. Without room for it, it goes without.
        let _ = self.receiver.accept(info).now_or_never();
        let event = ReceivedEvent::from_message(message)?;
        self.credit.saw(event.bytes());
        Ok(event)
    }

    async fn replenish(&mut self) -> Result<(), Error> {
        let window = self.credit.window();
        if self.receiver.credit() <= window / 2 {
            self.receiver
                .set_credit(window)
                .await
                .map_err(|error| Error::from_link_state("grant credit", &error.into()))?;
        }
        Ok(())
    }

    /// Detaches and waits for the peer to agree, so that an epoch is free at once.
    pub(crate) async fn close(self) {
        let (receiver, connection) = (self.receiver, self.connection);
        let closed = connection
            .within("detach", async {
                receiver.close().await.map_err(|error| Error::from_detach("detach", error))
            })
            .await;
        if let Err(error) = closed {
            tracing::debug!(%error, "link did not close cleanly");
        }
    }
}

fn link_properties(options: &ReceiverOptions) -> Fields {
    let mut properties = Fields::new();
    properties.insert(Symbol::from(link::RECEIVER_NAME), Value::String(options.name.clone()));
    if let Some(epoch) = options.epoch {
        properties.insert(Symbol::from(link::EPOCH), Value::Long(epoch));
    }
    properties
}

/// How many events the service may send ahead: bounded in events, and in bytes by the size that
/// recent events had.
///
/// AMQP counts credit in messages only. The estimate jumps up with the largest event and comes
/// down slowly, and starts at the largest there can be: what is held exceeds the bound only when
/// events suddenly grow, and then by at most one window that was already granted.
struct Credit {
    events_max: u32,
    bytes_max: usize,
    event_bytes: usize,
}

impl Credit {
    fn new(events_max: u32, bytes_max: usize) -> Self {
        let event_bytes = usize::try_from(limits::MAX_MESSAGE_BYTES).unwrap_or(usize::MAX);
        Self { events_max: events_max.max(1), bytes_max, event_bytes }
    }

    fn saw(&mut self, bytes: usize) {
        let slowly = self.event_bytes - self.event_bytes / 8;
        self.event_bytes = bytes.max(slowly).max(1);
    }

    fn window(&self) -> u32 {
        let by_bytes = u32::try_from(self.bytes_max / self.event_bytes).unwrap_or(u32::MAX);
        by_bytes.clamp(1, self.events_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_starts_small_grows_with_small_events_and_shrinks_at_once_with_a_large_one() {
        let mut credit = Credit::new(1000, 8 << 20);
        assert_eq!(credit.window(), 8);
        for _ in 0..100 {
            credit.saw(500);
        }
        assert_eq!(credit.window(), 1000);
        credit.saw(4 << 20);
        assert_eq!(credit.window(), 2);
    }

    #[test]
    fn credit_is_never_zero() {
        assert_eq!(Credit::new(0, 0).window(), 1);
    }
}
