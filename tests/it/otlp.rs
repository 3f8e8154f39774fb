//! Telemetry as a collector gets it: real requests over HTTP and gRPC, decoded from the protocol.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use eventferry::event::{Event, Trace};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::{metric::Data, number_data_point},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::{Value as Json, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status};

use crate::{
    daemon::Daemon,
    place::place,
    rig::{self, PATIENCE},
};

/// What a collector has taken.
#[derive(Debug, Default, Clone)]
struct Taken {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
    /// The headers of the last request.
    token: Option<String>,
}

/// A collector that keeps what it gets.
#[derive(Debug, Clone)]
struct Collector {
    taken: Arc<watch::Sender<Taken>>,
    /// Answers that fail before the first that does not.
    failures: Arc<Mutex<usize>>,
}

impl Collector {
    fn new(failures: usize) -> Self {
        Self { taken: Arc::default(), failures: Arc::new(Mutex::new(failures)) }
    }

    fn fails(&self) -> bool {
        let mut failures = self.failures.lock().unwrap();
        let fails = *failures > 0;
        *failures = failures.saturating_sub(1);
        fails
    }

    async fn over_http(&self) -> String {
        async fn take(
            State(collector): State<Collector>,
            path: axum::http::Uri,
            headers: HeaderMap,
            body: Bytes,
        ) -> axum::http::StatusCode {
            if collector.fails() {
                return axum::http::StatusCode::SERVICE_UNAVAILABLE;
            }
            assert_eq!(headers["content-type"], "application/x-protobuf");
            collector.taken.send_modify(|taken| {
                taken.token = headers.get("x-token").map(|it| it.to_str().unwrap().to_owned());
                match path.path() {
                    "/v1/traces" => taken.traces.push(Message::decode(body).unwrap()),
                    "/v1/metrics" => taken.metrics.push(Message::decode(body).unwrap()),
                    "/v1/logs" => taken.logs.push(Message::decode(body).unwrap()),
                    other => panic!("{other}"),
                }
            });
            axum::http::StatusCode::OK
        }
        let router = Router::new().route("/v1/{signal}", post(take)).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    async fn over_grpc(&self) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()))
            .add_service(LogsServiceServer::new(self.clone()));
        tokio::spawn(server.serve(address));
        format!("http://{address}")
    }

    fn take<T, A>(
        &self,
        request: Request<T>,
        add: impl FnOnce(&mut Taken, T),
        answer: A,
    ) -> Result<Response<A>, Status> {
        if self.fails() {
            return Err(Status::unavailable("not yet"));
        }
        let token = request.metadata().get("x-token").map(|it| it.to_str().unwrap().to_owned());
        self.taken.send_modify(|taken| {
            taken.token = token;
            add(taken, request.into_inner());
        });
        Ok(Response::new(answer))
    }

    /// Waits until what it has taken is enough.
    async fn has(&self, what: &str, enough: impl Fn(&Taken) -> bool) -> Taken {
        let mut taken = self.taken.subscribe();
        let found = timeout_at(Instant::now() + PATIENCE, taken.wait_for(|it| enough(it))).await;
        match found {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("no {what}: {:?}", self.taken.borrow().spans()),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request, |taken, it| taken.traces.push(it), Default::default())
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request, |taken, it| taken.metrics.push(it), Default::default())
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(request, |taken, it| taken.logs.push(it), Default::default())
    }
}

impl Taken {
    fn spans(&self) -> Vec<Span> {
        let resources = self.traces.iter().flat_map(|it| &it.resource_spans);
        resources.flat_map(|it| &it.scope_spans).flat_map(|it| it.spans.clone()).collect()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// A metric as it was told last.
    fn metric(&self, name: &str) -> Option<&Data> {
        let metrics = self.metrics.last()?.resource_metrics.iter().flat_map(|it| &it.scope_metrics);
        metrics.flat_map(|it| &it.metrics).find(|metric| metric.name == name)?.data.as_ref()
    }

    /// The value of a counter, over all its labels.
    fn counter(&self, name: &str) -> f64 {
        let Some(Data::Sum(sum)) = self.metric(name) else { return 0.0 };
        let value = |value: &Option<_>| match value {
            Some(number_data_point::Value::AsDouble(value)) => *value,
            _ => 0.0,
        };
        sum.data_points.iter().map(|point| value(&point.value)).sum()
    }

    fn log(&self, message: &str) -> Option<&LogRecord> {
        let resources = self.logs.iter().flat_map(|it| &it.resource_logs);
        let mut lines = resources.flat_map(|it| &it.scope_logs).flat_map(|it| &it.log_records);
        let says = |line: &LogRecord| {
            let text = line.body.as_ref().and_then(|body| body.value.as_ref());
            matches!(text, Some(Value::StringValue(text)) if text == message)
        };
        lines.find(|line| says(line))
    }
}

fn attributes(of: &[KeyValue]) -> HashMap<&str, String> {
    let text = |value: &KeyValue| match value.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    of.iter().map(|it| (it.key.as_str(), text(it))).collect()
}

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

fn traced(id: &str, trace: u128, flags: &str) -> Event {
    let parent = Some(format!("00-{trace:032x}-{SPAN:016x}-{flags}").into());
    Event { trace: Trace { parent, state: None }, ..rig::event(id, r#"{"n":1}"#) }
}

/// From a topic to a hub, and from there to a queue: all of it is one trace, to a collector that
/// is away at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_over_two_clouds_is_one_trace() {
    let (near, hub, far) = (place("sns").await, place("event_hubs").await, place("sqs").await);
    let collector = Collector::new(2);
    let endpoint = collector.over_http().await;
    let daemon = Daemon::start(json!({
        "otlp": {
            "endpoint": endpoint, "protocol": "http", "headers": { "x-token": "${HOME}" },
            "metrics": "off", "logs": false,
        },
        "sources": { "orders": near.source, "devices": hub.source },
        "sinks": { "hub": hub.sink, "back": far.sink },
        "routes": [
            { "name": "out", "from": ["orders"], "to": { "all": ["hub"] } },
            { "name": "home", "from": ["devices"], "to": { "all": ["back"] } },
        ],
        "unmatched": "drop",
    }))
    .await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    // What its producer does not record, goes on the same way without a word.
    near.put(vec![traced("silent", 7, "00"), traced("told", TRACE, "01")]).await;
    let arrived = far.read(|events| events.len() >= 2, Instant::now() + PATIENCE).await;
    let told = arrived.iter().find(|event| &*event.id == "told").unwrap();
    assert_eq!(
        told.trace,
        traced("told", TRACE, "01").trace,
        "its context is not its own any more"
    );

    let settled =
        |taken: &Taken| taken.named("settle devices").len() + taken.named("settle orders").len();
    let taken = collector.has("settlements", |taken| settled(taken) >= 2).await;
    assert_eq!(taken.token, std::env::var("HOME").ok());
    let of_trace = |name: &str| {
        let spans = taken.named(name);
        let span = spans.iter().find(|span| span.trace_id == TRACE.to_be_bytes());
        span.unwrap_or_else(|| panic!("no {name} of the trace: {:?}", taken.spans())).clone()
    };
    let (first, second) = (of_trace("process orders"), of_trace("process devices"));
    for (span, system, source) in [(&first, "aws_sqs", "orders"), (&second, "eventhubs", "devices")]
    {
        assert_eq!(span.parent_span_id, SPAN.to_be_bytes());
        assert_eq!(span.kind, i32::from(SpanKind::Consumer));
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        let of = attributes(&span.attributes);
        assert_eq!(
            (of["messaging.system"].as_str(), of["eventferry.source"].as_str()),
            (system, source)
        );
        assert_eq!(of["eventferry.outcome"], "delivered");
        assert_eq!(of["messaging.message.id"], "told");
    }
    // Whatever it was sent and settled with: by its number, or by a link.
    let about = |name: &str, process: &Span| {
        taken.named(name).iter().any(|span| {
            span.parent_span_id == process.span_id
                || span.links.iter().any(|link| link.span_id == process.span_id)
        })
    };
    for (name, process, system) in [
        ("receive orders", &first, "aws_sqs"),
        ("send hub", &first, "eventhubs"),
        ("settle orders", &first, "aws_sqs"),
        ("receive devices", &second, "eventhubs"),
        ("send back", &second, "aws_sqs"),
        ("settle devices", &second, "eventhubs"),
    ] {
        assert!(about(name, process), "{name} has nothing to do with it");
        for span in taken.named(name) {
            let of = attributes(&span.attributes);
            assert_eq!(of["messaging.system"], system, "{name}");
            assert!(!of["messaging.destination.name"].is_empty(), "{name}");
        }
    }
    let silent = taken.spans().into_iter().filter(|span| span.trace_id == 7_u128.to_be_bytes());
    assert_eq!(silent.count(), 0, "its producer does not record it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_refuses_is_counted_and_holds_up_nothing() {
    let refuse = async || axum::http::StatusCode::BAD_REQUEST;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/{signal}", post(refuse));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (near, far) = (place("sqs").await, place("event_hubs").await);
    let daemon = Daemon::start(json!({
        "otlp": {
            "endpoint": endpoint, "protocol": "http", "metrics": { "every": "1s" }, "logs": true,
            "traces": { "share": "100%" },
        },
        "sources": { "near": near.source },
        "sinks": { "far": far.sink },
        "routes": [{ "name": "over", "from": "near", "to": { "all": ["far"] } }],
        "unmatched": "drop",
    }))
    .await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    near.put(rig::events("e", 3, 0)).await;
    let counted = |text: &str| {
        ["traces", "logs", "metrics"].iter().all(|signal| {
            let name = format!("eventferry_telemetry_dropped_total{{signal=\"{signal}\"}} ");
            text.lines().any(|line| line.strip_prefix(&name).is_some_and(|count| count != "0"))
        }) && text.contains("settled_total{outcome=\"delivered\",source=\"near\"} 3\n")
    };
    daemon.wait_for("metrics", |_, text| counted(text)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told_over_grpc_with_metrics_and_logs() {
    let collector = Collector::new(1);
    let endpoint = collector.over_grpc().await;
    what_fails_is_told(collector, json!({ "endpoint": endpoint })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told_over_http_with_metrics_and_logs() {
    let collector = Collector::new(1);
    let endpoint = collector.over_http().await;
    what_fails_is_told(collector, json!({ "endpoint": endpoint, "protocol": "http" })).await;
}

async fn what_fails_is_told(collector: Collector, mut otlp: Json) {
    let (near, far) = (place("sqs").await, place("storage_queue").await);
    otlp["metrics"] = json!({ "every": "1s" });
    otlp["traces"] = json!({ "share": "0.0001%" });
    let mut daemon = Daemon::start(json!({
        "otlp": otlp,
        "sources": { "orders": near.source },
        "sinks": { "parked": far.sink, "hub": { "memory": { "queue": "nowhere" } } },
        "routes": [{
            "name": "strict", "from": ["orders"], "to": { "all": ["hub"] },
            "transform": [{ "parse": ["data"] }], "dead_letter": "parked",
        }],
        "unmatched": "drop",
    }))
    .await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    let broken = Event { body: "no json".into(), ..traced("broken", TRACE, "00") };
    near.put(vec![broken, traced("whole", TRACE + 1, "01")]).await;
    let counted = |taken: &Taken| taken.counter("eventferry_settled_total") >= 2.0;
    let taken = collector.has("metrics", |taken| counted(taken) && !taken.traces.is_empty()).await;
    let spans = taken.named("process orders");
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].trace_id, TRACE.to_be_bytes());
    assert_eq!(spans[0].status.as_ref().unwrap().message, "dead_lettered");
    assert_eq!(taken.counter("eventferry_received_total"), 2.0);
    let Some(Data::Gauge(gauge)) = taken.metric("eventferry_in_flight_events") else {
        panic!("no gauge");
    };
    assert_eq!(gauge.data_points.len(), 1);
    // The collector's buckets hold what is between two bounds, those of Prometheus all below one.
    let sent = |taken: &Taken| match taken.metric("eventferry_delivery_seconds") {
        Some(Data::Histogram(all)) => all.data_points.iter().find(|point| point.count > 0).cloned(),
        _ => None,
    };
    let taken = collector.has("a histogram", |taken| sent(taken).is_some()).await;
    let point = sent(&taken).unwrap();
    let (_, text) = daemon.get("metrics").await.unwrap();
    let mut below = 0;
    for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
        below += count;
        let line = format!("le=\"{bound}\"}} {below}\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    assert_eq!((point.count, point.bucket_counts.iter().sum()), (1, 1_u64));
    assert!(point.sum.unwrap() > 0.0);
    let service = taken.traces[0].resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(attributes(&service.attributes)["service.name"], "eventferry");

    // Sent again by hand, it is in its trace whatever the share says.
    let redrive = async |body: Json| daemon.post("/dead-letters/redrive", body).await;
    let (status, dry) = redrive(json!({ "dry_run": { "to": "hub" } })).await;
    assert_eq!(status, 202, "{dry}");
    assert_eq!(daemon.ended_job(&dry).await["summary"]["meant"], 1);
    let (_, job) = redrive(json!({ "confirm": dry["id"] })).await;
    assert_eq!(daemon.ended_job(&job).await["summary"]["redriven"], 1);
    let again = |taken: &Taken| taken.named("process parked").first().cloned();
    let taken = collector.has("redrive", |taken| again(taken).is_some()).await;
    let again = again(&taken).unwrap();
    assert_eq!(
        (&again.trace_id[..], &again.parent_span_id[..]),
        (&TRACE.to_be_bytes()[..], &SPAN.to_be_bytes()[..])
    );
    assert_eq!(attributes(&again.attributes)["eventferry.outcome"], "delivered");
    collector
        .has("send", |taken| {
            taken.named("send hub").iter().any(|send| send.parent_span_id == again.span_id)
        })
        .await;

    daemon.terminate();
    assert!(daemon.ended().await.success());
    // The last line that it writes; it reaches the collector before the process ends.
    let taken = collector.taken.borrow();
    assert!(taken.log("drained").is_some(), "its last words are lost");
    let parked = taken.log("dead-lettering").expect("it is not said");
    assert_eq!((&parked.trace_id, &parked.span_id), (&spans[0].trace_id, &spans[0].span_id));
}
