//! What is counted of one sink.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, IntGauge};

use super::Metrics;
use crate::trace::{Operation, Request, SpanContext};

/// Shorter than this, nothing was waited for.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The metrics of one sink, whoever sends to it.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    pub(super) sink: Arc<str>,
    pub(super) all: Arc<Metrics>,
    pub(super) batch: Histogram,
    pub(super) breaker: IntGauge,
    pub(super) concurrency: IntGauge,
}

/// What a request to a sink waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For fewer requests to be under way.
    Concurrency,
    /// For the limit of events or bytes in a second.
    Rate,
    /// For as long as the service has asked for.
    Throttle,
    /// For a sink that does not work.
    Breaker,
}

impl Wait {
    /// As the metric has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Rate => "rate",
            Self::Throttle => "throttle",
            Self::Breaker => "breaker",
        }
    }
}

impl SinkMetrics {
    /// A request of so many events is made, some of which may be traced.
    pub fn request(
        &self,
        events: usize,
        about: impl Iterator<Item = SpanContext>,
    ) -> Option<Request> {
        self.batch.observe(events as f64);
        self.span(events, about)
    }

    /// Begins the span of a request to it; none where none of its events is traced.
    pub fn span(&self, events: usize, about: impl Iterator<Item = SpanContext>) -> Option<Request> {
        let tracer = self.all.tracer();
        let request = Request::begin(tracer, Operation::Send, &self.sink, events, about)?;
        Some(request.to(self.all.peers().sinks.get(&self.sink).cloned()))
    }

    /// Whether it is left alone: 0 no, 1 one event is on its way to see, 2 yes.
    pub fn breaker(&self, state: i64) {
        self.breaker.set(state);
    }

    /// A sink that worked is left alone.
    pub fn opened(&self) {
        self.all.breaker_opened.with_label_values(&[&*self.sink]).inc();
    }

    /// Requests that may be under way at once.
    pub fn concurrency(&self, limit: usize) {
        self.concurrency.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// A request was put off for so long.
    pub fn waited(&self, reason: Wait, time: Duration) {
        if time >= WAIT_MIN {
            let labels = [&*self.sink, reason.name()];
            self.all.waited.with_label_values(&labels).inc_by(time.as_secs_f64());
        }
    }
}
