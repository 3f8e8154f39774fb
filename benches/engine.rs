//! What the engine costs without its services: one core, from receive to settle, through a source
//! that has every event at hand and a sink that confirms at once.
//!
//! `cargo bench --bench engine`, or of some lines `cargo bench --bench engine -- forward`

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use eventferry::{
    config::plan::Unmatched,
    decode::Format,
    dedup::{self, Dedup, OnStoreFailure},
    deliver::{Deliverer, Target, flow::FlowConfig, oversize::Oversize, priority::Weights},
    delivery::{Delivery, Origin, Received, Settled, Token},
    event::{Attributes, Event, Value},
    fault::Fault,
    metadata::Packed,
    pipeline::{Ends, Pipeline, gate::Gate, routing::Routing},
    route::{
        Retry, When,
        choice::Choice,
        table::{Lane, Route, Table},
    },
    settle::Budget,
    sink::{Limits, Order, Outgoing, Sink},
    source::{InFlight, Receive, Settle, Source},
    state::memory::MemoryKeys,
    telemetry::Metrics,
    trace::Tracer,
    transform::{StepConfig, Transform},
};
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

mod gauge;
mod order;

use gauge::{Mark, TIME};

const BATCH: usize = 100;

/// Hands out the same message again and again.
struct Endless {
    received: Arc<Received>,
    /// Whether each has an id of its own.
    numbered: bool,
    serial: u64,
}

#[async_trait]
impl Receive for Endless {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        // Without it a task that never waits would keep the others from running.
        tokio::task::yield_now().await;
        let since = tokio::time::Instant::now();
        let handle: Arc<str> = "".into();
        let one = |_| {
            self.serial += 1;
            let token = Token::Lease { serial: self.serial, handle: handle.clone() };
            let mut received = self.received.clone();
            if self.numbered {
                Arc::make_mut(&mut received).message_id = Some(self.serial.to_string().into());
            }
            Delivery { received, attempt: 1, token, since, ties: None }
        };
        Ok((0..BATCH).map(one).collect())
    }
}

struct Forgetful(Arc<AtomicU64>);

#[async_trait]
impl Settle for Forgetful {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        self.0.fetch_add(done.len() as u64, Ordering::Relaxed);
        Vec::new()
    }
}

struct Void;

#[async_trait]
impl Sink for Void {
    fn limits(&self) -> Limits {
        Limits {
            events: 500,
            bytes: 1 << 20,
            event_bytes: 1 << 20,
            order: Order::Lost,
            in_flight: 1,
        }
    }
    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        Ok(Packed { body: event.body.clone(), attributes: Vec::new(), bytes: event.body.len() })
    }
    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        batch.iter().map(|_| Ok(())).collect()
    }
    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// The order, as a source has received it.
fn received() -> Received {
    let attributes: Attributes = [("tenant", Value::string("tenant-0017"))].into_iter().collect();
    Received {
        body: order::body().into(),
        attributes,
        message_id: Some("0190a6e2-3b1c-7d43-a0d8-2f7b5a0c9e11".into()),
        subject: None,
        content_type: Some("application/json".into()),
        key: None,
        enqueued: Some(time::OffsetDateTime::now_utc()),
        xray: None,
        claimed: None,
        origin: Origin {
            source: "near".into(),
            resource: "bench:near".into(),
            position: "1".into(),
        },
    }
}

/// How events pass.
#[derive(Clone, Copy, Default)]
struct Way {
    /// Each once.
    once: bool,
    /// The share of them that is traced, if any is.
    traced: Option<f64>,
}

fn run(name: &str, whens: &[serde_json::Value], steps: &serde_json::Value, way: Way) {
    let mut asked = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).peekable();
    if asked.peek().is_some() && !asked.any(|asked| name.contains(&asked)) {
        return;
    }
    let Way { once, traced } = way;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
    let settled = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let metrics = Metrics::new().unwrap_or_else(|error| panic!("{error}"));
        let (stop_lanes, health) = (CancellationToken::new(), watch::Sender::new(None));
        let (sink, lanes) = Deliverer::new(
            "void".into(),
            Arc::new(Void),
            &Weights::default(),
            FlowConfig::default(),
            &metrics.sink(&"void".into()),
            &health,
            &stop_lanes,
        );
        let mut tasks = JoinSet::new();
        if let Some(share) = traced {
            let (looks, dropped) = (metrics.looks().clone(), metrics.telemetry_dropped("traces"));
            let (tracer, mut spans) = Tracer::new(share, HashMap::new(), dropped, looks);
            metrics.trace_with(tracer);
            // In the place of the exporter, which has a core of its own to spend.
            tasks.spawn(async move { while spans.recv().await.is_some() {} });
        }
        lanes.into_iter().for_each(|lane| drop(tasks.spawn(lane.run())));
        let stop_claims = CancellationToken::new();
        let dedup = once.then(|| {
            let (ledger, keeper) =
                dedup::keeper::open(Arc::new(MemoryKeys::default()), metrics.dedup());
            tasks.spawn(keeper.run(stop_claims.clone()));
            Dedup {
                ledger,
                ttl: Duration::from_secs(3_600),
                on_store_failure: OnStoreFailure::Hold,
                route: "route".into(),
                sink: None,
            }
        });
        let target = |sink| {
            let metrics = metrics.route(&"route".into(), &"void".into());
            let (retry, oversize) = (Retry::default(), Oversize::default());
            let target = Target::new("route".into(), sink, Vec::new(), retry, oversize, metrics);
            Arc::new(target.with_dedup(dedup.clone()))
        };
        let steps: Vec<StepConfig> =
            serde_json::from_value(steps.clone()).unwrap_or_else(|error| panic!("{error}"));
        let transform = Transform::compile(&steps, Path::new("."))
            .unwrap_or_else(|findings| panic!("{findings:?}"));
        let route = |when: &serde_json::Value| {
            let when = When::read(when.as_object().unwrap_or_else(|| panic!("{when}")));
            let when = when.unwrap_or_else(|findings| panic!("{findings:?}"));
            let route = Route::new(when, Choice::All(vec![target(Some(sink.clone()))]));
            Route { transform: transform.clone(), ..route }
        };
        let routes: Vec<_> = whens.iter().map(route).collect();
        let budget = Arc::new(Budget::new(InFlight::default()));
        let pipeline = Pipeline {
            taps: Arc::default(),
            name: "near".into(),
            format: Format::Auto,
            routing: Arc::new(Routing {
                failed: routes.iter().map(|_| target(None)).collect(),
                table: Table::new(routes, Lane::only()),
                hops_max: 4,
                unmatched: Unmatched::Drop,
                unrouted: target(None),
            }),
            budget: budget.clone(),
            metrics: metrics.source(&"near".into()),
            health: watch::Sender::new(None),
            gate: Gate::default(),
        };
        let ends = Ends { drain: CancellationToken::new(), finish: CancellationToken::new() };
        let source = Source {
            receive: Box::new(Endless {
                received: Arc::new(received()),
                numbered: once,
                serial: 0,
            }),
            settle: Box::new(Forgetful(settled.clone())),
            ordered: false,
            lease: None,
            hold: None,
        };
        pipeline.spawn(source, &ends, &mut tasks);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (mark, before) = (Mark::now(), settled.load(Ordering::Relaxed));
        while mark.busy() < TIME {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        mark.print(name, settled.load(Ordering::Relaxed) - before);
        tasks.shutdown().await;
    });
}

fn main() {
    let (none, all) = (json!([]), [json!({"id": [{"exists": true}]})]);
    let pattern = [
        json!({"data": {"tenant": ["tenant-0017"], "order": {"total": [{"numeric": [">", 100]}]}}}),
    ];
    let many: Vec<_> = (0..100)
        .map(|n| json!({"data": {"tenant": [format!("tenant-{n:04}")], "urgent": [false]}}))
        .collect();
    let set = json!([{"set": {"type": "order", "data.seen": true, "attributes.tier": "{{ data.customer.tier }}"}}]);
    let map =
        json!([{"map": ".data.total = .data.order.total\ndel(.data.client)\n.type = \"order\""}]);
    let redact = json!([{"redact": {"detect": ["card_number", "email"]}}]);
    let (plain, once) = (Way::default(), Way { once: true, traced: None });
    let traced = |share| Way { once: false, traced: Some(share) };
    run("forward", &all, &none, plain);
    run("forward, 1 % traced", &all, &none, traced(0.01));
    run("forward, all traced", &all, &none, traced(1.0));
    run("pattern on two fields of the body", &pattern, &none, plain);
    run("100 routes, one matches", &many, &none, plain);
    run("pattern, set of three fields", &pattern, &set, plain);
    run("pattern, map of three fields", &pattern, &map, plain);
    run("pattern, map of three fields, 1 % traced", &pattern, &map, traced(0.01));
    run("pattern, redact by two detectors", &pattern, &redact, plain);
    run("forward, dedup", &all, &none, once);
    run("pattern, map of three fields, dedup", &pattern, &map, once);
}
