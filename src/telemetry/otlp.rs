//! Spans, metrics and logs to a collector, by the OpenTelemetry protocol.
//!
//! A collector that is slow or away costs what waits for it, never an event: queues are bounded,
//! and what finds no room is dropped and counted in `eventferry_telemetry_dropped_total`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    resource::v1::Resource,
};
use prometheus::IntCounter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Metrics,
    logs::{self, Line},
};
use crate::{
    config::{secret::Secret, units::Span as Time},
    deliver::backoff::Backoff,
    route::sample::Share,
    trace::{Span, Tracer},
};

mod transport;
mod wire;

use transport::{Transport, Unsent};

/// Where telemetry goes by the OpenTelemetry protocol, beside `/metrics` and the standard error
/// stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// The collector, such as `http://localhost:4317` for gRPC, `https://HOST:4318` for HTTP
    /// (without `/v1/traces`, which is added).
    pub endpoint: String,
    /// How it is spoken to.
    #[serde(default)]
    pub protocol: Protocol,
    /// What goes with each request, such as a token; by reference only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Which events are traced.
    #[serde(default)]
    pub traces: Traces,
    /// Other shares of all traces for events that these routes take, by their names; of several
    /// routes, the largest counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traces_by_route: BTreeMap<String, Share>,
    /// Whether metrics are sent as well.
    #[serde(default)]
    pub metrics: Exported,
    /// Whether every line of the log is sent as well.
    #[serde(default = "yes")]
    pub logs: bool,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// gRPC, by convention on port 4317.
    #[default]
    Grpc,
    /// Protobuf over HTTP, by convention on port 4318.
    Http,
}

/// Which events are traced. One that is dead-lettered or returned is in any case.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Traces {
    /// None, not even those that fail.
    Off,
    /// This share of all traces, unless the producer does not record its own.
    Share(Share),
}

/// Whether metrics are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Exported {
    /// They are only served.
    Off,
    /// This often.
    Every(Time),
}

fn yes() -> bool {
    true
}

impl Default for Traces {
    fn default() -> Self {
        Self::Share(Share::ALL)
    }
}

impl Default for Exported {
    fn default() -> Self {
        Self::Every(Time(Duration::from_secs(30)))
    }
}

impl Otlp {
    /// What is wrong with the settings: the name of one, and what to do.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Err(text) = transport::address(&self.endpoint, self.protocol) {
            problems.push(("endpoint", text));
        }
        for name in self.headers.keys() {
            if reqwest::header::HeaderName::try_from(name).is_err() {
                let text =
                    format!("`{name}` is no name of a header; write one like `authorization`");
                problems.push(("headers", text));
            }
        }
        if self.traces == Traces::Off && !self.traces_by_route.is_empty() {
            let text = "with `traces: off` nothing is traced; give `traces` a small `share`, or \
                        leave this out";
            problems.push(("traces_by_route", text.to_owned()));
        }
        problems
    }
}

/// Why export cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot send telemetry to {endpoint}: {what}")]
pub struct Unusable {
    endpoint: String,
    what: String,
}

/// How often what has gathered is sent.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// For one request.
const ANSWER: Duration = Duration::from_secs(10);
/// Spans or lines in one request.
const BATCH: usize = 512;
/// How long the end of the daemon waits for the collector.
const FLUSH: Duration = Duration::from_secs(3);

/// Sends what has gathered until it is told to end.
pub struct Exporter {
    transport: Transport,
    resource: Resource,
    spans: Option<Signal<Span>>,
    lines: Option<Signal<Line>>,
    /// None where they are not sent.
    metrics: Option<(Arc<Metrics>, Duration)>,
    metrics_failed: IntCounter,
    start: SystemTime,
    failures: u32,
    /// Not before then, after a failure.
    again: Instant,
}

/// What waits to be sent, and what could not be.
struct Signal<T> {
    queue: mpsc::Receiver<T>,
    held: Vec<T>,
    dropped: IntCounter,
}

impl<T> Signal<T> {
    fn new(queue: mpsc::Receiver<T>, dropped: IntCounter) -> Self {
        Self { queue, held: Vec::with_capacity(BATCH), dropped }
    }

    /// The next batch; empty if nothing waits.
    fn batch(&mut self) -> &[T] {
        while self.held.len() < BATCH {
            let Ok(one) = self.queue.try_recv() else { break };
            self.held.push(one);
        }
        &self.held
    }

    fn done(&mut self, unsent: Option<&Unsent>) {
        match unsent {
            // The same again, later.
            Some(Unsent::Away(_)) => return,
            Some(Unsent::Refused(_)) => self.dropped.inc_by(self.held.len() as u64),
            None => {}
        }
        self.held.clear();
    }
}

impl Exporter {
    /// Makes `metrics` trace, and answers what must be run for it. Connects when there is
    /// something to send, so that a daemon starts without its collector.
    ///
    /// # Errors
    /// The endpoint cannot be used, or a header's secret not be read.
    pub fn start(config: &Otlp, metrics: &Arc<Metrics>) -> Result<Self, Unusable> {
        let unusable = |what| Unusable { endpoint: config.endpoint.clone(), what };
        let transport = Transport::new(config).map_err(unusable)?;
        let dropped = |signal: &str| metrics.telemetry_dropped(signal);
        let spans = match config.traces {
            Traces::Off => None,
            Traces::Share(share) => {
                let by_route = config.traces_by_route.iter();
                let by_route = by_route.map(|(route, share)| (route.as_str().into(), share.part()));
                let looks = metrics.looks().clone();
                let (tracer, spans) =
                    Tracer::new(share.part(), by_route.collect(), dropped("traces"), looks);
                metrics.trace_with(tracer);
                Some(Signal::new(spans, dropped("traces")))
            }
        };
        let lines = config.logs.then(|| Signal::new(logs::tap(dropped("logs")), dropped("logs")));
        Ok(Self {
            transport,
            resource: wire::resource(),
            spans,
            lines,
            metrics: match config.metrics {
                Exported::Off => None,
                Exported::Every(every) => Some((metrics.clone(), *every)),
            },
            metrics_failed: dropped("metrics"),
            start: SystemTime::now(),
            failures: 0,
            again: Instant::now(),
        })
    }

    /// Runs until `finish`, then sends what is left.
    pub async fn run(mut self, finish: CancellationToken) {
        let mut ticks = interval(SEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut measured = Instant::now();
        loop {
            tokio::select! {
                () = finish.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if Instant::now() < self.again {
                continue;
            }
            self.send().await;
            if let Some((_, every)) = &self.metrics
                && measured.elapsed() >= *every
            {
                measured = Instant::now();
                self.measure().await;
            }
        }
        let rest = async {
            self.send().await;
            self.measure().await;
        };
        let _ = timeout(FLUSH, rest).await;
    }

    /// Sends spans and lines until none waits, or the collector fails.
    async fn send(&mut self) {
        while let Some(signal) = &mut self.spans {
            let batch = signal.batch();
            if batch.is_empty() {
                break;
            }
            let resource_spans = vec![wire::spans(&self.resource, batch)];
            let request = ExportTraceServiceRequest { resource_spans };
            let unsent = self.transport.traces(request).await.err();
            signal.done(unsent.as_ref());
            if !self.told(unsent.as_ref()) {
                return;
            }
        }
        while let Some(signal) = &mut self.lines {
            let batch = signal.batch();
            if batch.is_empty() {
                break;
            }
            let request = ExportLogsServiceRequest {
                resource_logs: vec![wire::lines(&self.resource, batch)],
            };
            let unsent = self.transport.logs(request).await.err();
            signal.done(unsent.as_ref());
            if !self.told(unsent.as_ref()) {
                return;
            }
        }
    }

    async fn measure(&mut self) {
        let Some((metrics, _)) = &self.metrics else { return };
        let families = metrics.gather();
        let resource_metrics = vec![wire::metrics(&self.resource, &families, self.start)];
        let request = ExportMetricsServiceRequest { resource_metrics };
        let unsent = self.transport.metrics(request).await.err();
        if unsent.is_some() {
            self.metrics_failed.inc();
        }
        self.told(unsent.as_ref());
    }

    /// Notes how a request has ended; answers whether to go on at once.
    fn told(&mut self, unsent: Option<&Unsent>) -> bool {
        let Some(unsent) = unsent else {
            if self.failures > 0 {
                tracing::info!("the collector of telemetry takes it again");
            }
            self.failures = 0;
            return true;
        };
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            tracing::warn!(error = %unsent, "telemetry cannot be sent, will retry");
        }
        self.again = Instant::now() + Backoff::SERVICE.delay(self.failures, None);
        false
    }
}
