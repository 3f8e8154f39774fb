//! A sink that may not have connected yet: routes are wired to it all the same, and what is meant for
//! it waits, or goes to another that stands in for it, as if its service were down.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::{Limits, Order, Outgoing, Sink, SinkConfig};
use crate::{event::Event, fault::Fault, metadata::Packed};

/// A sink that may not have connected yet.
pub struct LateSink {
    config: SinkConfig,
    connected: OnceLock<Arc<dyn Sink>>,
}

impl LateSink {
    /// One that has not connected yet.
    #[must_use]
    pub fn new(config: SinkConfig) -> Self {
        Self { config, connected: OnceLock::new() }
    }

    /// It has connected. Does nothing if it had before.
    pub fn arrive(&self, sink: Arc<dyn Sink>) {
        let _ = self.connected.set(sink);
    }

    /// Whether it has connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.get().is_some()
    }

    /// What it has connected to, if it has.
    #[must_use]
    pub fn connection(&self) -> Option<Arc<dyn Sink>> {
        self.connected.get().cloned()
    }

    fn away() -> Fault {
        Fault::busy("send", "unconnected", "the sink has not connected yet")
    }
}

#[async_trait]
impl Sink for LateSink {
    /// Until it has connected, those that its kind has where nobody has set them lower.
    fn limits(&self) -> Limits {
        if let Some(sink) = self.connected.get() {
            return sink.limits();
        }
        let (nature, bytes) = (self.config.nature(), self.config.packed_bytes_max());
        let order = if nature.keeps_order { Order::OnePerBatch } else { Order::Lost };
        Limits { events: 1, bytes, event_bytes: bytes, order, in_flight: nature.in_flight }
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        match self.connected.get() {
            Some(sink) => sink.pack(event),
            None => self.config.pack(event),
        }
    }

    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        match self.connected.get() {
            Some(sink) => sink.send(batch).await,
            None => batch.iter().map(|_| Err(Self::away())).collect(),
        }
    }

    fn claims_root(&self) -> Option<&str> {
        self.connected.get()?.claims_root()
    }

    async fn probe(&self) -> Result<(), Fault> {
        match self.connected.get() {
            Some(sink) => sink.probe().await,
            None => Err(Self::away()),
        }
    }
}
