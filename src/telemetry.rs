//! The names of metrics, logs, and the way of both to a collector.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard},
};

use prometheus::{
    CounterVec, Encoder, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector as _, MetricVec, MetricVecBuilder},
};
use time::OffsetDateTime;

use crate::{
    config::plan::{Plan, SourcePlan},
    trace::{Peer, Tracer, look::Looks},
};

mod admin;
mod dedup;
pub mod errors;
pub mod logs;
#[cfg(feature = "otlp")]
pub mod otlp;
mod repeats;
mod route;
mod sink;
mod source;
mod standing;

pub use route::Underway;
pub use sink::{SinkMetrics, Wait};
use standing::Standing;

/// Seconds; from a fast local hop to an event that waited for a service to come back.
const LATENCY_BUCKETS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0,
    600.0, 3600.0,
];

/// Every metric of the daemon. Labels are names from the configuration and a few fixed words.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    standing: Standing,
    generation: IntGaugeVec,
    applied: IntGaugeVec,
    reloads: IntCounterVec,
    pipeline_starts: IntCounterVec,
    received: IntCounterVec,
    settled: IntCounterVec,
    settle_failed: IntCounterVec,
    leases_lost: IntCounterVec,
    receive_failed: IntCounterVec,
    gaps: IntCounterVec,
    reopened: IntCounterVec,
    stalls: IntCounterVec,
    in_flight_events: IntGaugeVec,
    in_flight_bytes: IntGaugeVec,
    source_paused: IntGaugeVec,
    backlog_events: IntGaugeVec,
    backlog_age: IntGaugeVec,
    settled_number: IntGaugeVec,
    retention: GaugeVec,
    drains: HistogramVec,
    partitions_owned: IntGaugeVec,
    partitions_taken: IntCounterVec,
    partitions_lost: IntCounterVec,
    partitions_handed_over: IntCounterVec,
    delivered: IntCounterVec,
    delivered_bytes: IntCounterVec,
    retried: IntCounterVec,
    dead_lettered: IntCounterVec,
    returned: IntCounterVec,
    filtered: IntCounterVec,
    latency: HistogramVec,
    under_way: IntGaugeVec,
    batch: HistogramVec,
    breaker: IntGaugeVec,
    breaker_opened: IntCounterVec,
    concurrency: IntGaugeVec,
    waited: CounterVec,
    duplicates: IntCounterVec,
    dedup_waits: IntCounterVec,
    dedup_lost: IntCounter,
    dedup_failed: IntCounterVec,
    telemetry_dropped: IntCounterVec,
    admin_requests: IntCounterVec,
    audit_dropped: IntCounterVec,
    tapped: IntCounterVec,
    looked_at: IntCounterVec,
    jobs: IntCounterVec,
    tracer: OnceLock<Arc<Tracer>>,
    /// Read for what is traced alone.
    peers: RwLock<Peers>,
    looks: Arc<Looks>,
    /// Traces what is looked at where nothing else does.
    for_looks: Arc<Tracer>,
    errors: errors::Errors,
}

/// The counters of the store of deduplication keys.
#[derive(Debug, Clone)]
pub struct DedupMetrics(Arc<Metrics>);

/// The counters of one source.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    /// Name of the source.
    pub source: Arc<str>,
    all: Arc<Metrics>,
    received: IntCounter,
    delivered: IntCounter,
    dead_lettered: IntCounter,
    filtered: IntCounter,
    duplicate: IntCounter,
    returned: IntCounter,
    in_flight_events: IntGauge,
    in_flight_bytes: IntGauge,
}

/// The counters of one route into one sink.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    all: Arc<Metrics>,
    labels: [Arc<str>; 2],
    delivered: IntCounter,
    delivered_bytes: IntCounter,
    latency: Histogram,
    under_way: IntGauge,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// Two metrics have one name: a defect of this file, found by every test.
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let (registry, looks) = (Registry::new(), Arc::<Looks>::default());
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(format!("eventferry_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(format!("eventferry_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: Vec<f64>| {
            let opts = HistogramOpts::new(format!("eventferry_{name}"), help).buckets(buckets);
            let vec = HistogramVec::new(opts, labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let route = ["route", "sink"];
        let with_class = ["route", "sink", "class"];
        Ok(Arc::new(Self {
            standing: Standing::new(gauge(
                "connector_up",
                "Whether a source or sink has connected and needs nobody's hand: 0 no, 1 yes.",
                &["kind", "connector"],
            )?),
            generation: gauge(
                "config_generation",
                "1 for the configuration that runs, by a digest of its file.",
                &["generation"],
            )?,
            applied: gauge(
                "config_applied_timestamp_seconds",
                "When the configuration that runs was taken up, in Unix time.",
                &[],
            )?,
            reloads: counter(
                "reloads_total",
                "Times that the file was read again, by what became of it.",
                &["result"],
            )?,
            pipeline_starts: counter(
                "pipeline_starts_total",
                "Times that a source has started.",
                &["source"],
            )?,
            received: counter("received_total", "Events received from a source.", &["source"])?,
            settled: counter(
                "settled_total",
                "Deliveries ended, by outcome: delivered, dead_lettered, filtered, duplicate, returned.",
                &["source", "outcome"],
            )?,
            settle_failed: counter(
                "settle_failed_total",
                "Settlements, and writes of checkpoints, that a source refused or did not answer.",
                &["source", "class"],
            )?,
            leases_lost: counter(
                "leases_lost_total",
                "Deliveries whose lease ended before they did; they come again.",
                &["source"],
            )?,
            receive_failed: counter(
                "receive_failed_total",
                "Failed receives.",
                &["source", "class"],
            )?,
            gaps: counter(
                "gap_events_total",
                "Events that were gone from the service before they were read.",
                &["source", "partition"],
            )?,
            reopened: counter(
                "receiver_reopened_total",
                "Partitions that are read again after they could not be, by why.",
                &["source", "class"],
            )?,
            stalls: counter(
                "partition_stalls_total",
                "Times that a partition was not read on, because one of its events did not get through.",
                &["source", "partition"],
            )?,
            in_flight_events: gauge(
                "in_flight_events",
                "Events between receive and settle.",
                &["source"],
            )?,
            in_flight_bytes: gauge(
                "in_flight_bytes",
                "Bytes between receive and settle.",
                &["source"],
            )?,
            source_paused: gauge(
                "source_paused",
                "Whether somebody has paused a source: 0 no, 1 yes.",
                &["source"],
            )?,
            backlog_events: gauge(
                "backlog_events",
                "Events that wait at the service: queue depth, or lag of a partition.",
                &["source", "partition"],
            )?,
            backlog_age: gauge(
                "backlog_age_seconds",
                "Age of the oldest event that is not settled, since its service took it.",
                &["source"],
            )?,
            settled_number: gauge(
                "settled_sequence_number",
                "Up to this number, everything of a partition is settled.",
                &["source", "partition"],
            )?,
            retention: {
                let help = "Of the events that a hub keeps, the share that is settled; near 0, \
                            those come to their end that nobody has read.";
                let opts = Opts::new("eventferry_retention_margin_ratio", help);
                let vec = GaugeVec::new(opts, &["source", "partition"])?;
                registry.register(Box::new(vec.clone()))?;
                vec
            },
            drains: histogram(
                "drain_seconds",
                "How long a source that was told to end took to deal with what was in flight.",
                &["source"],
                LATENCY_BUCKETS.to_vec(),
            )?,
            partitions_owned: gauge(
                "partitions_owned",
                "Partitions of an event hub that this replica has.",
                &["source"],
            )?,
            partitions_taken: counter(
                "partitions_taken_total",
                "Partitions that this replica has taken: free ones, and from others.",
                &["source"],
            )?,
            partitions_lost: counter(
                "partitions_lost_total",
                "Partitions that another reader has taken from this replica.",
                &["source"],
            )?,
            partitions_handed_over: counter(
                "partitions_handed_over_total",
                "Partitions that this replica has given up after it had finished with them.",
                &["source"],
            )?,
            delivered: counter("delivered_total", "Events that a sink has confirmed.", &route)?,
            delivered_bytes: counter(
                "delivered_bytes_total",
                "Bytes that a sink has confirmed, as packed for it.",
                &route,
            )?,
            retried: counter("retried_total", "Failed sends that are tried again.", &with_class)?,
            dead_lettered: counter(
                "dead_lettered_total",
                "Events that a dead-letter sink has confirmed.",
                &with_class,
            )?,
            returned: counter(
                "returned_total",
                "Events given back to their source because a sink did not take them.",
                &with_class,
            )?,
            filtered: counter(
                "filtered_total",
                "Events that a route took and did not send, by reason: sampled, expired, dropped.",
                &["route", "reason"],
            )?,
            latency: histogram(
                "delivery_seconds",
                "From receive to the sink's confirmation.",
                &route,
                LATENCY_BUCKETS.to_vec(),
            )?,
            under_way: gauge(
                "route_in_flight_events",
                "Events on their way from a route into a sink.",
                &route,
            )?,
            batch: histogram(
                "send_batch_events",
                "Events in a request to a sink.",
                &["sink"],
                vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0],
            )?,
            breaker: gauge(
                "sink_breaker",
                "Whether a sink is left alone: 0 no, 1 one event is on its way to see, 2 yes.",
                &["sink"],
            )?,
            breaker_opened: counter(
                "sink_breaker_opened_total",
                "How often a sink that worked was left alone.",
                &["sink"],
            )?,
            concurrency: gauge(
                "sink_concurrency_limit",
                "Requests to a sink that may be under way at once.",
                &["sink"],
            )?,
            waited: {
                let help = "Seconds that requests were put off, by what they waited for: \
                            concurrency, rate, throttle, breaker.";
                let opts = Opts::new("eventferry_sink_wait_seconds_total", help);
                let vec = CounterVec::new(opts, &["sink", "for"])?;
                registry.register(Box::new(vec.clone()))?;
                vec
            },
            duplicates: counter(
                "duplicates_total",
                "Events not sent, because the route had delivered them before.",
                &route,
            )?,
            dedup_waits: counter(
                "dedup_waits_total",
                "Waits for a twin that is being delivered.",
                &route,
            )?,
            dedup_failed: counter(
                "dedup_store_failed_total",
                "Requests that the store of deduplication keys did not answer, by operation.",
                &["op", "class"],
            )?,
            dedup_lost: {
                let help = "Claims that others took over before they were committed.";
                let lost = IntCounter::new("eventferry_dedup_claims_lost_total", help)?;
                registry.register(Box::new(lost.clone()))?;
                lost
            },
            telemetry_dropped: counter(
                "telemetry_dropped_total",
                "Spans, lines of the log and reports of metrics that no collector has taken.",
                &["signal"],
            )?,
            admin_requests: counter(
                "admin_requests_total",
                "Requests to the admin API that were answered or refused.",
                &["endpoint", "status"],
            )?,
            audit_dropped: counter(
                "audit_dropped_total",
                "Records of the audit log that no source could take in time.",
                &[],
            )?,
            tapped: counter(
                "tapped_events_total",
                "Events that passed under a tap, by whether they were shown or dropped.",
                &["result"],
            )?,
            looked_at: counter(
                "looked_spans_total",
                "Spans of deliveries that somebody looks at, by whether they were shown or dropped.",
                &["result"],
            )?,
            jobs: counter(
                "dead_letter_jobs_total",
                "Jobs on dead letters that have ended: redrive, discard or dry_run, and how.",
                &["task", "result"],
            )?,
            tracer: OnceLock::new(),
            peers: RwLock::default(),
            for_looks: Tracer::for_looks(looks.clone()),
            looks,
            errors: errors::Errors::default(),
            registry,
        }))
    }

    /// The counters of the store of deduplication keys.
    #[must_use]
    pub fn dedup(self: &Arc<Self>) -> DedupMetrics {
        DedupMetrics(self.clone())
    }

    /// The configuration that runs from now on.
    pub fn configured(&self, plan: &Plan) {
        let sources = plan.sources.iter();
        let source = |it: &SourcePlan| Some((it.name.clone(), it.config.kind()?.peer()));
        let sinks = plan.sinks.iter().map(|sink| (sink.name.clone(), sink.config.peer()));
        let peers = Peers { sources: sources.filter_map(source).collect(), sinks: sinks.collect() };
        *self.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        self.generation.reset();
        self.generation.with_label_values(&[&*plan.generation]).set(1);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        self.applied.with_label_values(&[] as &[&str]).set(now);
    }

    /// The file was read again.
    pub fn reloaded(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }

    /// A source is not there any more: what is said of it now would stay true for ever.
    pub fn forget(&self, source: &str) {
        forget(&self.in_flight_events, "source", source);
        forget(&self.in_flight_bytes, "source", source);
        forget(&self.source_paused, "source", source);
        forget(&self.partitions_owned, "source", source);
        forget(&self.backlog_events, "source", source);
        forget(&self.backlog_age, "source", source);
        forget(&self.settled_number, "source", source);
        forget(&self.retention, "source", source);
    }

    /// The same of a sink.
    pub fn forget_sink(&self, sink: &str) {
        forget(&self.breaker, "sink", sink);
        forget(&self.concurrency, "sink", sink);
        forget(&self.under_way, "sink", sink);
    }

    /// Whom requests are made to.
    fn peers(&self) -> RwLockReadGuard<'_, Peers> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has events traced from now on, by whoever asks first.
    pub fn trace_with(&self, tracer: Arc<Tracer>) {
        let _ = self.tracer.set(tracer);
    }

    /// What decides which events are traced; none where none is.
    #[must_use]
    pub fn tracer(&self) -> Option<&Arc<Tracer>> {
        self.tracer.get().or_else(|| self.for_looks.is_wanted().then_some(&self.for_looks))
    }

    /// By which somebody looks at what is traced.
    #[must_use]
    pub fn looks(&self) -> &Arc<Looks> {
        &self.looks
    }

    /// What no collector has taken of this signal.
    #[must_use]
    pub fn telemetry_dropped(&self, signal: &str) -> IntCounter {
        self.telemetry_dropped.with_label_values(&[signal])
    }

    /// Events have passed under a tap, some of them unseen.
    pub fn tapped(&self, shown: u64, dropped: u64) {
        self.tapped.with_label_values(&["shown"]).inc_by(shown);
        self.tapped.with_label_values(&["dropped"]).inc_by(dropped);
    }

    /// Spans have ended that somebody looks at, some of them unseen.
    pub fn looked_at(&self, shown: u64, dropped: u64) {
        self.looked_at.with_label_values(&["shown"]).inc_by(shown);
        self.looked_at.with_label_values(&["dropped"]).inc_by(dropped);
    }

    /// A job on dead letters has ended.
    pub fn job(&self, task: &str, result: &str) {
        self.jobs.with_label_values(&[task, result]).inc();
    }

    /// Asks from now on who works of the connectors, as in `source orders`, whenever it is asked.
    pub fn watch_connectors(&self, read: impl Fn() -> Vec<(String, bool)> + Send + Sync + 'static) {
        self.standing.watch(Box::new(read));
    }

    /// All metrics as they are now.
    #[must_use]
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.standing.refresh();
        self.registry.gather()
    }

    /// The Prometheus text format.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.gather(), &mut text);
        text
    }

    /// The counters of a source.
    #[must_use]
    pub fn source(self: &Arc<Self>, source: &Arc<str>) -> SourceMetrics {
        let outcome = |outcome| self.settled.with_label_values(&[&**source, outcome]);
        SourceMetrics {
            source: source.clone(),
            all: self.clone(),
            received: self.received.with_label_values(&[source]),
            delivered: outcome("delivered"),
            dead_lettered: outcome("dead_lettered"),
            filtered: outcome("filtered"),
            duplicate: outcome("duplicate"),
            returned: outcome("returned"),
            in_flight_events: self.in_flight_events.with_label_values(&[source]),
            in_flight_bytes: self.in_flight_bytes.with_label_values(&[source]),
        }
    }

    /// The counters of a route into a sink.
    #[must_use]
    pub fn route(self: &Arc<Self>, route: &Arc<str>, sink: &Arc<str>) -> RouteMetrics {
        let labels = [&**route, &**sink];
        RouteMetrics {
            all: self.clone(),
            delivered: self.delivered.with_label_values(&labels),
            delivered_bytes: self.delivered_bytes.with_label_values(&labels),
            latency: self.latency.with_label_values(&labels),
            under_way: self.under_way.with_label_values(&labels),
            labels: [route.clone(), sink.clone()],
        }
    }

    /// The metrics of a sink.
    #[must_use]
    pub fn sink(self: &Arc<Self>, sink: &Arc<str>) -> SinkMetrics {
        SinkMetrics {
            sink: sink.clone(),
            all: self.clone(),
            batch: self.batch.with_label_values(&[sink]),
            breaker: self.breaker.with_label_values(&[sink]),
            concurrency: self.concurrency.with_label_values(&[sink]),
        }
    }
}

/// The services behind sources and sinks, by the names of these.
#[derive(Debug, Default)]
struct Peers {
    sources: HashMap<Arc<str>, Peer>,
    sinks: HashMap<Arc<str>, Peer>,
}

/// Takes away what is said of a source or a sink.
fn forget<T: MetricVecBuilder>(all: &MetricVec<T>, label: &str, name: &str) {
    for family in all.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|it| (it.name(), it.value())).collect();
            if labels.get(label) == Some(&name) {
                // It may have gone meanwhile.
                let _ = all.remove(&labels);
            }
        }
    }
}
