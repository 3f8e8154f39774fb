//! A pipeline around connectors under test, with a scripted in-memory sink at its far end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use eventferry::{
    cloud::{Clouds, Context},
    config::{plan::Unmatched, units::Span},
    decode::Format,
    dedup::{self, Dedup, OnStoreFailure},
    deliver::{Deliverer, Target, flow::FlowConfig, oversize::Oversize, priority::Weights},
    delivery::{Settled, Token},
    event::{Attributes, Event, Trace, Value},
    fault::Fault,
    pipeline::{Ends, Pipeline, gate::Gate, routing::Routing},
    route::{
        Retry, When,
        choice::Choice,
        table::{Lane, Route, Table},
    },
    settle::Budget,
    sink::{
        Limits, Sink,
        memory::{MemorySink, Script},
    },
    source::{
        Backlog, Extended, InFlight, Settle, Source,
        memory::{Config, Queue},
    },
    state::{DedupStore, StateStore, memory::MemoryStore},
    telemetry::{Metrics, errors::Error},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::canary;

/// No event may take longer in a test: an emulator on a busy machine needs seconds, not minutes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A context that connectors are built with.
pub fn context(name: &str, state: &Arc<dyn StateStore>) -> Context {
    canary::watch();
    Context {
        name: name.into(),
        clouds: Clouds::default(),
        state: state.clone(),
        metrics: Metrics::new().unwrap(),
        audit: Arc::default(),
    }
}

/// A state store of its own.
pub fn store() -> Arc<dyn StateStore> {
    Arc::new(MemoryStore::default())
}

/// An in-memory queue that nobody else knows.
pub fn queue() -> Queue {
    let config = serde_json::json!({ "queue": "far-side" });
    Queue::new(&serde_json::from_value::<Config>(config).unwrap())
}

/// An event with nothing but an id and a body.
pub fn event(id: &str, body: impl Into<Bytes>) -> Event {
    Event {
        id: id.into(),
        source: "test:producer".into(),
        kind: None,
        subject: None,
        time: None,
        content_type: None,
        key: None,
        trace: Trace::default(),
        hops: 0,
        attributes: Attributes::default(),
        body: body.into(),
        dead_letter: None,
        fitted: None,
    }
}

/// `count` small events in a row, over `keys` keys if there are any.
pub fn events(prefix: &str, count: usize, keys: usize) -> Vec<Event> {
    let one = |n: usize| {
        let key = (keys > 0).then(|| format!("key-{}", n % keys.max(1)).into());
        Event { key, ..event(&format!("{prefix}-{n}"), format!("{{\"n\":{n}}}")) }
    };
    (0..count).map(one).collect()
}

/// A running pipeline: one source, one route, one scripted sink.
pub struct Rig {
    /// What the sink has stored.
    pub far: Queue,
    /// How often the sink was asked to take an event, by its body.
    pub seen: Arc<Mutex<BTreeMap<Bytes, usize>>>,
    /// What the dead-letter sink has stored.
    pub parked: Queue,
    /// The dead-letter sinks, in their order.
    pub parking: Vec<Arc<Deliverer>>,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    ends: Ends,
    stop_lanes: CancellationToken,
    lanes: JoinSet<()>,
    pipelines: JoinSet<()>,
}

/// How a rig differs from the plain one.
pub struct Setup {
    pub script: Script,
    pub retry: Retry,
    pub dead_letter: bool,
    pub max_in_flight: InFlight,
    /// The sink waits this long before each answer.
    pub slow: Duration,
    /// The sink takes no event over this.
    pub limit: Option<usize>,
    /// Another sink than the in-memory one.
    pub sink: Option<Arc<dyn Sink>>,
    /// What becomes of events over the limit.
    pub oversize: Oversize,
    /// Dead-letter sinks, in place of `parked`.
    pub park_in: Vec<Arc<dyn Sink>>,
    /// A sink that stands in for the first.
    pub stand_in: Option<Arc<dyn Sink>>,
    /// The route delivers each event once, as this store remembers.
    pub dedup: Option<Arc<dyn DedupStore>>,
    /// How its sinks are treated.
    pub flow: FlowConfig,
    /// Events with a subject go here by a route of their own.
    pub sibling: Option<Queue>,
    /// Whether the source may be asked.
    pub gate: Gate,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            script: Box::new(|_| Ok(())),
            retry: quick_retry(),
            dead_letter: false,
            max_in_flight: InFlight::default(),
            slow: Duration::ZERO,
            limit: None,
            sink: None,
            oversize: Oversize::DeadLetter,
            park_in: Vec::new(),
            stand_in: None,
            dedup: None,
            flow: FlowConfig::default(),
            sibling: None,
            gate: Gate::default(),
        }
    }
}

/// Retries at a pace for tests.
pub fn quick_retry() -> Retry {
    let backoff = Span(Duration::from_millis(20));
    Retry { attempts: 3, backoff, backoff_max: Span(Duration::from_millis(200)) }
}

/// A sink that takes its time.
struct Slow(MemorySink, Duration);

#[async_trait::async_trait]
impl Sink for Slow {
    fn limits(&self) -> eventferry::sink::Limits {
        self.0.limits()
    }
    fn pack(&self, event: &Event) -> Result<eventferry::metadata::Packed, Fault> {
        self.0.pack(event)
    }
    async fn send(&self, batch: &[eventferry::sink::Outgoing]) -> Vec<Result<(), Fault>> {
        tokio::time::sleep(self.1).await;
        self.0.send(batch).await
    }
    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// What a source was asked to do with the leases of its deliveries.
pub enum Asked {
    Extend(Vec<Token>),
    Settle(Vec<Token>),
}

/// Notes what it is asked, before it is done.
struct Watched(Box<dyn Settle>, Arc<Mutex<Vec<Asked>>>);

#[async_trait::async_trait]
impl Settle for Watched {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let tokens = done.iter().map(|settled| settled.token.clone()).collect();
        self.1.lock().unwrap().push(Asked::Settle(tokens));
        self.0.settle(done).await
    }
    async fn extend(&mut self, open: &[Token], by: Duration) -> Extended {
        self.1.lock().unwrap().push(Asked::Extend(open.to_vec()));
        self.0.extend(open, by).await
    }
    async fn checkpoint(&mut self) -> Result<(), Fault> {
        self.0.checkpoint().await
    }
    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        self.0.backlog().await
    }
}

/// A source, and all that it will be asked, in order.
pub fn watched(source: Source) -> (Source, Arc<Mutex<Vec<Asked>>>) {
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let settle = Box::new(Watched(source.settle, asked.clone()));
    (Source { settle, ..source }, asked)
}

impl Rig {
    pub fn start(source: Source, setup: Setup) -> Self {
        let (far, parked) = (queue(), queue());
        let seen: Arc<Mutex<BTreeMap<Bytes, usize>>> = Arc::default();
        let (counts, mut script) = (seen.clone(), setup.script);
        let counting: Script = Box::new(move |outgoing| {
            *counts.lock().unwrap().entry(outgoing.packed.body.clone()).or_default() += 1;
            script(outgoing)
        });
        let metrics = Metrics::new().unwrap();
        let stop_lanes = CancellationToken::new();
        let mut lanes = JoinSet::new();
        let dedup = setup.dedup.map(|store| {
            let (ledger, keeper) = dedup::keeper::open(store, metrics.dedup());
            lanes.spawn(keeper.run(stop_lanes.clone()));
            let (ttl, on_store_failure) = (Duration::from_secs(600), OnStoreFailure::Hold);
            Dedup { ledger, ttl, on_store_failure, route: "route".into(), sink: None }
        });
        let mut deliverer = |name: &str, sink: Arc<dyn Sink>| {
            let name: Arc<str> = name.into();
            let health = watch::Sender::new(None);
            let of_sink = metrics.sink(&name);
            let (weights, flow) = (Weights::default(), setup.flow);
            let (deliverer, runners) =
                Deliverer::new(name, sink, &weights, flow, &of_sink, &health, &stop_lanes);
            runners.into_iter().for_each(|lane| drop(lanes.spawn(lane.run())));
            deliverer
        };
        let sink = MemorySink::scripted(far.clone(), counting);
        let event_bytes = setup.limit.unwrap_or(sink.limits().event_bytes);
        let limits = Limits { event_bytes, ..sink.limits() };
        let slow = Arc::new(Slow(sink.with_limits(limits), setup.slow));
        let sink = deliverer("far", setup.sink.unwrap_or(slow));
        let parking = deliverer("parked", Arc::new(MemorySink::new(parked.clone())));
        let mut dead_letters: Vec<_> = setup.dead_letter.then_some(parking).into_iter().collect();
        for (number, sink) in setup.park_in.into_iter().enumerate() {
            dead_letters.push(deliverer(&format!("parked-{number}"), sink));
        }
        let target = |route: &str, deliverer| {
            let metrics = metrics.route(&route.into(), &"far".into());
            let (parking, name) = (dead_letters.clone(), route.into());
            let target =
                Target::new(name, deliverer, parking, setup.retry, setup.oversize, metrics);
            Arc::new(target.with_dedup(dedup.clone()))
        };
        let budget = Arc::new(Budget::new(setup.max_in_flight));
        let choice = match setup.stand_in {
            None => Choice::All(vec![target("route", Some(sink))]),
            Some(other) => {
                let other = deliverer("other", other);
                let targets = vec![target("route", Some(sink)), target("route", Some(other))];
                targets.iter().for_each(|target| target.stand_in_for(&targets));
                Choice::Any(targets)
            }
        };
        let subject = |exists: bool| {
            let pattern = serde_json::json!({ "subject": [{ "exists": exists }] });
            When::read(pattern.as_object().unwrap()).unwrap()
        };
        let routes = match setup.sibling {
            None => vec![Route::new(When::default(), choice)],
            Some(queue) => {
                let sibling = deliverer("sibling", Arc::new(MemorySink::new(queue)));
                let sibling = Choice::All(vec![target("sibling", Some(sibling))]);
                vec![Route::new(subject(false), choice), Route::new(subject(true), sibling)]
            }
        };
        let pipeline = Pipeline {
            taps: Arc::default(),
            name: "near".into(),
            format: Format::Auto,
            routing: Arc::new(Routing {
                failed: routes.iter().map(|_| target("route", None)).collect(),
                table: Table::new(routes, Lane::only()),
                hops_max: 4,
                unmatched: Unmatched::DeadLetter,
                unrouted: target("unrouted", None),
            }),
            budget: budget.clone(),
            metrics: metrics.source(&"near".into()),
            health: watch::Sender::new(None),
            gate: setup.gate,
        };
        let ends = Ends { drain: CancellationToken::new(), finish: CancellationToken::new() };
        let mut pipelines = JoinSet::new();
        pipeline.spawn(source, &ends, &mut pipelines);
        Self {
            far,
            seen,
            parked,
            parking: dead_letters,
            metrics,
            budget,
            ends,
            stop_lanes,
            lanes,
            pipelines,
        }
    }

    /// Waits until the far side holds `count` events, and gives them as decoded events.
    pub async fn arrived(&self, count: usize) -> Vec<Event> {
        let arrived = self.far.wait_until(|messages| messages.len() >= count);
        if timeout(PATIENCE, arrived).await.is_err() {
            panic!("{} of {count} events arrived", self.far.contents().len());
        }
        decoded(&self.far).await
    }

    /// Waits until nothing is between receive and settle.
    pub async fn settled(&self) {
        timeout(PATIENCE, self.budget.empty()).await.expect("settling takes too long");
    }

    /// How often each body was sent, bodies in order.
    pub fn sends(&self) -> Vec<usize> {
        self.seen.lock().unwrap().values().copied().collect()
    }

    /// How many deliveries have ended, settled or not.
    pub fn ended(&self) -> usize {
        let (received, _) = self.budget.in_flight();
        self.received() - received
    }

    /// Events between receive and settle.
    pub fn in_flight(&self) -> usize {
        self.budget.in_flight().0
    }

    fn received(&self) -> usize {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find(|line| line.starts_with("eventferry_received_total{"));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// The value of a metric, by its name and labels as they are shown; 0 where it has none.
    pub fn counted(&self, metric: &str) -> f64 {
        self.shown(metric).unwrap_or_default()
    }

    /// The same, where it is shown.
    pub fn shown(&self, metric: &str) -> Option<f64> {
        shown(&self.metrics, metric)
    }

    /// What has failed, and where.
    pub fn errors(&self) -> Vec<Error> {
        self.metrics.errors().known()
    }

    /// Stops at the end of the grace period: what is not delivered goes back, the rest is settled.
    pub async fn drain_by_force(mut self) {
        self.ends.drain.cancel();
        self.stop_lanes.cancel();
        while self.lanes.join_next().await.is_some() {}
        self.ends.finish.cancel();
        while self.pipelines.join_next().await.is_some() {}
    }

    /// Drains: what is in flight finishes.
    pub async fn drain(mut self) {
        self.ends.drain.cancel();
        self.settled().await;
        self.stop_lanes.cancel();
        self.ends.finish.cancel();
        let all = async {
            while self.lanes.join_next().await.is_some() {}
            while self.pipelines.join_next().await.is_some() {}
        };
        timeout(PATIENCE, all).await.expect("draining takes too long");
    }

    /// Dies as a killed process does: nothing is finished, settled or written.
    pub async fn kill(mut self) {
        self.lanes.shutdown().await;
        self.pipelines.shutdown().await;
    }
}

/// The events that an in-memory queue holds, decoded, in the order in which they were stored.
pub async fn decoded(queue: &Queue) -> Vec<Event> {
    let store = store();
    let mut source = queue.source(&context("reader", &store)).await.unwrap();
    let mut events = Vec::new();
    let count = queue.contents().len();
    while events.len() < count {
        for delivery in source.receive.receive().await.unwrap() {
            events.push(eventferry::decode::decode(&delivery.received, Format::Auto).unwrap());
        }
    }
    events
}

/// Event numbers by key, in the order in which they arrived.
pub fn by_key(events: &[Event]) -> BTreeMap<String, Vec<usize>> {
    let mut keys: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for event in events {
        let number: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
        let number = usize::try_from(number["n"].as_u64().unwrap()).unwrap();
        keys.entry(event.key.as_deref().unwrap_or_default().to_owned()).or_default().push(number);
    }
    keys
}

/// Memory of a process that is in use, in MiB.
pub fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

/// A counter that scripts can share with their test.
pub fn counter() -> (Arc<AtomicUsize>, impl Fn() -> usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let read = count.clone();
    (count, move || read.load(Ordering::SeqCst))
}

/// Twelve attributes of every type, with names and text from many scripts.
pub fn many_attributes() -> Attributes {
    let values = [
        ("text", Value::string("grüße, 世界, 🚢")),
        ("tenant", Value::string("acme")),
        ("number", Value::Number("12.50".into())),
        ("int", Value::Int(-7)),
        ("long", Value::Long(1 << 40)),
        ("double", Value::Double(0.1)),
        ("flag", Value::Bool(true)),
        ("binary", Value::Binary(Bytes::from_static(&[0, 255, 1, 254]))),
        ("when", Value::Timestamp(1_700_000_000_123)),
        ("uuid", Value::Uuid(uuid::Uuid::from_u128(7))),
        ("empty", Value::string("")),
        ("name with spaces", Value::string("x")),
    ];
    values.into_iter().collect()
}

/// The value of a metric, by its name and labels as they are shown, where it is.
pub fn shown(metrics: &Metrics, metric: &str) -> Option<f64> {
    let text = String::from_utf8(metrics.render()).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("eventferry_")?.strip_prefix(metric)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}
