//! What is counted of one route into one sink.

use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::RouteMetrics;

/// One event on its way into a sink, for as long as this is there.
#[derive(Debug)]
pub struct Underway(IntGauge);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl RouteMetrics {
    /// Another event is on its way.
    #[must_use]
    pub fn underway(&self) -> Underway {
        self.under_way.inc();
        Underway(self.under_way.clone())
    }

    /// How many are.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.under_way.get()).unwrap_or_default()
    }

    /// An event had been delivered before.
    pub fn duplicate(&self) {
        self.all.duplicates.with_label_values(&[&*self.labels[0], &*self.labels[1]]).inc();
    }

    /// A twin of an event is being delivered.
    pub fn waits_for_twin(&self) {
        self.all.dedup_waits.with_label_values(&[&*self.labels[0], &*self.labels[1]]).inc();
    }

    /// The sink has confirmed an event.
    pub fn delivered(&self, bytes: usize, latency: Duration) {
        self.delivered.inc();
        self.delivered_bytes.inc_by(bytes as u64);
        self.latency.observe(latency.as_secs_f64());
    }

    /// A send failed and is tried again.
    pub fn retried(&self, class: &str) {
        self.of(&self.all.retried, class).inc();
    }

    /// The dead-letter sink has confirmed an event.
    pub fn dead_lettered(&self, class: &str) {
        self.of(&self.all.dead_lettered, class).inc();
    }

    /// A route has taken an event and does not send it.
    pub fn filtered(&self, reason: &str) {
        self.all.filtered.with_label_values(&[&*self.labels[0], reason]).inc();
    }

    /// An event goes back to its source.
    pub fn returned(&self, class: &str) {
        self.of(&self.all.returned, class).inc();
    }

    fn of(&self, counters: &IntCounterVec, class: &str) -> IntCounter {
        counters.with_label_values(&[&*self.labels[0], &*self.labels[1], class])
    }
}
