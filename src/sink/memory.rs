//! Writes into a queue in this process.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Labels, Limits, Nature, Order, Outgoing, Sink};
pub use crate::source::memory::Config;
use crate::{
    cloud::Context,
    event::Event,
    fault::Fault,
    metadata::{Packed, amqp_properties},
    source::memory::{Kind, Message, Queue},
};

/// Decides per event what the sink answers, before it is stored: how tests make a service fail.
pub type Script = Box<dyn FnMut(&Outgoing) -> Result<(), Fault> + Send>;

/// A sink that stores in a [`Queue`].
pub struct MemorySink {
    queue: Queue,
    limits: Limits,
    script: Mutex<Script>,
}

/// Generous enough to be out of the way, small enough to be met in tests.
const LIMITS: Limits = Limits {
    events: 100,
    bytes: 4 << 20,
    event_bytes: 1 << 20,
    order: Order::OnePerBatch,
    in_flight: 8,
};

impl MemorySink {
    /// A sink that takes everything.
    #[must_use]
    pub fn new(queue: Queue) -> Self {
        Self::scripted(queue, Box::new(|_| Ok(())))
    }

    /// A sink that answers as `script` says.
    #[must_use]
    pub fn scripted(queue: Queue, script: Script) -> Self {
        Self { queue, limits: LIMITS, script: Mutex::new(script) }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        Ok(Config::pack(event))
    }

    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        let answers: Vec<_> = {
            let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
            batch.iter().map(&mut **script).collect()
        };
        let accepted = batch.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        self.queue.put(accepted.map(|(Outgoing { event, packed, .. }, _)| Message {
            body: packed.body.clone(),
            attributes: packed.attributes.iter().cloned().collect(),
            message_id: Some(event.id.clone()),
            subject: event.subject.clone(),
            content_type: event.content_type.clone(),
            key: event.key.clone(),
        }));
        answers
    }

    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }
}

impl Config {
    pub(super) fn sink_nature(&self) -> Nature {
        Nature {
            what: self.kind.what(),
            keeps_order: self.kind != Kind::Standard,
            event_bytes: LIMITS.event_bytes,
            needs_key: self.kind == Kind::Fifo,
            attributes: None,
            in_flight: LIMITS.in_flight,
            loses: None,
        }
    }

    /// The event as a message of the queue.
    pub(super) fn pack(event: &Event) -> Packed {
        let body = event.body.clone();
        Packed { bytes: body.len(), body, attributes: amqp_properties(event) }
    }

    /// What a message has beside body and attributes.
    pub(super) fn labels(event: &Event) -> Labels {
        let texts = [
            ("message id", Some(&*event.id)),
            ("subject", event.subject.as_deref()),
            ("content type", event.content_type.as_deref()),
            ("key", event.key.as_deref()),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name, text?.to_owned()))).collect()
    }

    pub(super) async fn sink(&self, _: &Context) -> Result<Arc<dyn Sink>, Fault> {
        Ok(Arc::new(MemorySink::new(Queue::named(self))))
    }
}
