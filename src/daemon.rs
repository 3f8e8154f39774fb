//! The life of the daemon: connect, watch, take up another configuration, drain.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinError, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "otlp")]
use crate::telemetry::otlp::Exporter;
use crate::{
    admin::{self, Api, access::Streams, audit::Audit, setting::Listener, status::Watch},
    claim::Store,
    cloud::Context,
    config::{
        plan::{Plan, RoutePlan},
        problem::Finding,
    },
    deliver::{backoff::Backoff, bucket::LimitConfig},
    fault::Fault,
    pipeline::{Pipeline, gate::Gate, tap::Taps},
    redrive::Beside,
    settle::Budget,
    sink::Sink,
    source::Source,
    state::StateStore,
    telemetry::Metrics,
};

pub mod health;
pub mod history;
pub mod jobs;
pub mod operation;
pub(crate) mod outlets;
pub mod reload;
mod rewinding;
mod running;
pub(crate) mod stores;
mod swap;
pub mod triggers;

use health::Health;
use history::History;
use jobs::Jobs;
use operation::{Operation, Operations};
use outlets::Outlets;
use reload::{Prepared, Refused, Request};
use rewinding::Rewinding;
use running::{Bounds, End, Ended, Running};
use stores::Stores;
use triggers::{File, Triggers};

/// Why the daemon ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A state store or the store of `claim_check` that cannot be opened.
    #[error(transparent)]
    Store(#[from] Fault),
    /// Keys or salts that cannot be had.
    #[error("{}", listed(.0))]
    Secrets(Vec<Finding>),
    /// The admin listener cannot be opened.
    #[error("cannot listen on {0} for the admin API")]
    Admin(std::net::SocketAddr, #[source] admin::ListenError),
    /// Telemetry cannot be sent anywhere.
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Telemetry(#[from] crate::telemetry::otlp::Unusable),
    /// Two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A task has panicked. The process ends so that it is started anew: a task that is gone
    /// would hold up its events in silence.
    #[error("a task of the daemon has failed")]
    Task(#[source] JoinError),
}

fn listed(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| format!("{}: {finding}", finding.path));
    lines.collect::<Vec<_>>().join("; ")
}

/// What a daemon starts with.
#[derive(Debug)]
pub struct Start {
    /// What it runs.
    pub plan: Plan,
    /// The file that this stands in, if it is to be read again.
    pub file: Option<File>,
}

/// A daemon that runs this, and nothing else.
impl From<Plan> for Start {
    fn from(plan: Plan) -> Self {
        Self { plan, file: None }
    }
}

/// Runs until `shutdown`, then drains: stops receiving, finishes or returns what is open within
/// the grace period, writes checkpoints.
///
/// # Errors
/// It cannot start, or a task of it has died.
pub async fn run(
    start: impl Into<Start>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let Start { mut plan, file } = start.into();
    plan.unlock().map_err(DaemonError::Secrets)?;
    let stores = Stores::open(&plan).await?;
    let claims = match &plan.claim_check {
        Some(config) => Some(Arc::new(config.open(&plan.clouds).await?)),
        None => None,
    };
    let metrics = Metrics::new()?;
    let finish = CancellationToken::new();
    let mut exports = JoinSet::<()>::new();
    #[cfg(feature = "otlp")]
    if let Some(config) = &plan.otlp {
        exports.spawn(Exporter::start(config, &metrics)?.run(finish.clone()));
    }
    let (ask, requests) = reload::requests();
    let path = file.as_ref().map(|file| file.path.clone());
    let (operations, asked) = Operations::new();
    let triggers = Triggers::new(file, requests, &plan);
    let mut daemon = Daemon::new(plan, stores, claims, metrics);
    let health = daemon.health.clone();
    daemon.metrics.watch_connectors(move || health.standing());
    // Whoever asks is told of all sinks from the first answer on.
    daemon.begin();
    let (mut watching, mut serving, mut working) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let end_jobs = CancellationToken::new();
    if let Some(Listener { listen, tls, .. }) = daemon.plan.admin.as_deref() {
        let opened = admin::listen(*listen, tls.as_ref()).await;
        let listener = opened.map_err(|error| DaemonError::Admin(*listen, error))?;
        let history = Arc::<History>::default();
        let (jobs, orders) = Jobs::new();
        let (health, metrics) = (daemon.health.clone(), daemon.metrics.clone());
        let outlets = &daemon.outlets;
        let beside = Beside {
            ledger: outlets.ledger().cloned(),
            sinks: outlets.lent(),
            metrics: Some(metrics.clone()),
        };
        let work = jobs::work(orders, health.clone(), metrics.clone(), beside, end_jobs.clone());
        working.spawn(work);
        let api = Api {
            watch: Watch::new(health.clone(), metrics.clone()),
            taps: daemon.taps.clone(),
            history: history.clone(),
            audit: daemon.audit.clone(),
            keys: Arc::default(),
            streams: Streams::default(),
            reload: ask,
            health,
            metrics,
            operations,
            jobs,
            file: path,
        };
        watching.spawn(history.run(api.watch.clone()));
        serving.spawn(admin::serve(listener, api, finish.clone()));
    }
    let died = async {
        tokio::select! {
            Some(Err(error)) = watching.join_next() => error,
            Some(Err(error)) = serving.join_next() => error,
            Some(Err(error)) = working.join_next() => error,
            else => pending().await,
        }
    };
    let ended = daemon.serve(triggers, asked, shutdown, died).await;
    if let Err(error) = &ended {
        tracing::error!(%error, "ending because of a defect");
    }
    end_jobs.cancel();
    let end = Instant::now() + daemon.plan.grace.max(Duration::from_secs(1));
    daemon.drain(&mut working).await;
    // What a job has in hand goes back; what it has not given back by then comes again by itself.
    let _ = timeout_at(end, working.join_next()).await;
    finish.cancel();
    // Whoever has asked for the end is told.
    while serving.join_next().await.is_some() {}
    // Whatever has become of it, everything is settled.
    while exports.join_next().await.is_some() {}
    ended
}

/// What has connected: its name, and which of its parts it is for.
enum Connected {
    Sink(Arc<str>, u64, Arc<dyn Sink>),
    Source(Arc<str>, u64, Source),
}

struct Daemon {
    plan: Arc<Plan>,
    state: Arc<dyn StateStore>,
    /// Where bodies go that are too large for their sinks.
    claims: Option<Arc<Store>>,
    metrics: Arc<Metrics>,
    audit: Arc<Audit>,
    health: Arc<Health>,
    /// Who looks at what passes.
    taps: Arc<Taps>,
    /// The sources of the plan, and those of an earlier one that have not ended yet.
    sources: BTreeMap<Arc<str>, SourcePart>,
    sinks: BTreeMap<Arc<str>, SinkPart>,
    outlets: Outlets,
    connecting: JoinSet<Connected>,
    /// How many parts there have been.
    parts: u64,
    pipelines: JoinSet<Result<Ended, JoinError>>,
    /// The configuration that is being made ready, and who asked for it.
    preparing: JoinSet<(Request, Result<Prepared, Refused>)>,
    /// What is to be done once the pipelines of these sources have ended.
    rewinds: BTreeMap<Arc<str>, Rewinding>,
    /// What goes back in a log; answers its source.
    rewinding: JoinSet<Arc<str>>,
}

/// A sink as it is, or will be once it has connected.
struct SinkPart {
    /// Tells it from a former one of the name.
    number: u64,
    /// The task that connects it.
    connecting: Option<AbortHandle>,
    /// Told its standing faults; `None` is well.
    health: watch::Sender<Option<String>>,
    /// What somebody wants it to be sent in a second at most, in place of what the file says.
    limit: Option<LimitConfig>,
    /// Whether somebody wants it to be left alone.
    is_held: bool,
}

impl SinkPart {
    fn new(
        number: u64,
        connecting: Option<AbortHandle>,
        health: watch::Sender<Option<String>>,
    ) -> Self {
        Self { number, connecting, health, limit: None, is_held: false }
    }
}

/// A source, and how far it has come.
struct SourcePart {
    stage: Stage,
    health: watch::Sender<Option<String>>,
    /// Whether it may read what a source reads that has not ended yet.
    is_new: bool,
    /// Whether somebody wants nothing to be received, whatever becomes of its pipeline.
    paused: watch::Sender<bool>,
    /// Whether it starts from another place than it has come to.
    is_rewinding: bool,
}

enum Stage {
    /// For its sinks, or for others to end.
    Waiting,
    /// By the task of this number.
    Connecting(u64, AbortHandle),
    Running(End),
    /// Its pipeline ends, or its checkpoints are moved.
    Ending,
}

impl SourcePart {
    fn new() -> Self {
        let health = watch::Sender::new(Some("connecting".to_owned()));
        let paused = watch::Sender::new(false);
        Self { stage: Stage::Waiting, health, is_new: true, paused, is_rewinding: false }
    }
}

impl Daemon {
    fn new(plan: Plan, stores: Stores, claims: Option<Arc<Store>>, metrics: Arc<Metrics>) -> Self {
        let plan = Arc::new(plan);
        let outlets = Outlets::new(plan.clone(), stores.keys, claims.clone(), metrics.clone());
        let sources = plan.sources.iter().map(|it| (it.name.clone(), SourcePart::new()));
        let daemon = Self {
            sources: sources.collect(),
            sinks: BTreeMap::new(),
            outlets,
            plan,
            state: stores.checkpoints,
            claims,
            metrics,
            audit: Arc::default(),
            health: Arc::default(),
            taps: Arc::default(),
            connecting: JoinSet::new(),
            parts: 0,
            pipelines: JoinSet::new(),
            preparing: JoinSet::new(),
            rewinds: BTreeMap::new(),
            rewinding: JoinSet::new(),
        };
        daemon.metrics.configured(&daemon.plan);
        daemon.tell_audit();
        tracing::info!(generation = %daemon.plan.generation, "configuration read");
        daemon
    }

    /// Begins to connect the sinks.
    fn begin(&mut self) {
        for sink in 0..self.plan.sinks.len() {
            self.connect_sink(sink);
        }
        self.watch_health();
    }

    /// Connects the rest and watches it until `shutdown`, or until a task beside it has died.
    async fn serve(
        &mut self,
        mut triggers: Triggers,
        mut operations: mpsc::Receiver<Operation>,
        shutdown: impl Future<Output = ()>,
        died: impl Future<Output = JoinError>,
    ) -> Result<(), DaemonError> {
        let (mut shutdown, mut died) = (std::pin::pin!(shutdown), std::pin::pin!(died));
        loop {
            self.connect_ready_sources();
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                Some(connected) = self.connecting.join_next() => match connected {
                    Ok(connected) => self.connected(connected),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(DaemonError::Task(error)),
                },
                error = &mut died => return Err(DaemonError::Task(error)),
                error = self.outlets.died() => return Err(DaemonError::Task(error)),
                Some(ended) = self.pipelines.join_next() => {
                    let ended = ended.and_then(|ended| ended).map_err(DaemonError::Task)?;
                    self.ended(&ended);
                }
                Some(operation) = operations.recv() => {
                    if self.operate(operation) {
                        return Ok(());
                    }
                }
                Some(source) = self.rewinding.join_next() => {
                    self.rewound(&source.map_err(DaemonError::Task)?);
                }
                request = triggers.next(), if self.preparing.is_empty() => {
                    self.prepare(request, triggers.path());
                }
                Some(prepared) = self.preparing.join_next() => {
                    let (request, prepared) = prepared.map_err(DaemonError::Task)?;
                    if self.take_up(request, prepared) {
                        triggers.applied(&self.plan);
                    }
                }
            }
        }
    }

    /// Lets the audit log know whether the configuration reads it.
    fn tell_audit(&self) {
        let is_read = self.plan.sources.iter().any(|source| source.config.audit.is_some());
        self.audit.read_by_a_source(is_read);
    }

    fn context(&self, name: &Arc<str>) -> Context {
        Context {
            name: name.clone(),
            clouds: self.plan.clouds.clone(),
            state: self.state.clone(),
            metrics: self.metrics.clone(),
            audit: self.audit.clone(),
        }
    }

    /// A number that no part has had.
    fn number(&mut self) -> u64 {
        self.parts += 1;
        self.parts
    }

    fn connect_sink(&mut self, sink: usize) {
        let number = self.number();
        let plan = &self.plan.sinks[sink];
        let health = watch::Sender::new(Some("connecting".to_owned()));
        let (name, config, context) =
            (plan.name.clone(), plan.config.clone(), self.context(&plan.name));
        let (what, told) = (format!("sink {name}"), health.clone());
        let connecting = self.connecting.spawn(async move {
            let build = || config.build(&context);
            let sink = until_connected(&what, &told, build).await;
            Connected::Sink(context.name.clone(), number, sink)
        });
        self.outlets.expect(sink, &health);
        self.sinks.insert(name, SinkPart::new(number, Some(connecting), health));
    }

    /// A source starts when the sinks that its events need have connected, and what it may take over
    /// from has ended.
    fn connect_ready_sources(&mut self) {
        let is_ending = self.sources.values().any(|part| matches!(part.stage, Stage::Ending));
        for index in 0..self.plan.sources.len() {
            let plan = &self.plan.sources[index];
            let Some(part) = self.sources.get(&plan.name) else { continue };
            let is_ready = matches!(part.stage, Stage::Waiting)
                && !(part.is_new && is_ending)
                && self.plan.can_start(index, |sink| self.outlets.has(sink));
            if !is_ready {
                continue;
            }
            let (name, config, context) =
                (plan.name.clone(), plan.config.clone(), self.context(&plan.name));
            let (what, health) = (format!("source {name}"), part.health.clone());
            let number = self.number();
            let connecting = self.connecting.spawn(async move {
                let build = || config.build(&context);
                let source = until_connected(&what, &health, build).await;
                Connected::Source(context.name.clone(), number, source)
            });
            if let Some(part) = self.sources.get_mut(&name) {
                part.stage = Stage::Connecting(number, connecting);
            }
        }
    }

    fn connected(&mut self, connected: Connected) {
        match connected {
            Connected::Sink(name, number, sink) => {
                let Some(part) = self.sinks.get_mut(&name).filter(|it| it.number == number) else {
                    return;
                };
                tracing::info!(sink = %name, "sink connected");
                part.connecting = None;
                if let Some(index) = self.place(&name) {
                    self.outlets.arrived(index, sink);
                }
            }
            Connected::Source(name, number, source) => {
                let is_meant = |it: &&mut SourcePart| match it.stage {
                    Stage::Connecting(meant, _) => meant == number,
                    _ => false,
                };
                let index = self.plan.sources.iter().position(|source| source.name == name);
                let Some(index) = index else { return };
                let pipeline = self.pipeline(index);
                let Some(part) = self.sources.get_mut(&name).filter(is_meant) else { return };
                tracing::info!(source = %name, "source connected");
                let source = match &self.claims {
                    Some(store) => source.resolving(store, self.plan.sources[index].config.format),
                    None => source,
                };
                part.is_new = false;
                part.stage = Stage::Waiting;
                if let Some(pipeline) = pipeline {
                    let (running, end) = Running::start(pipeline, source);
                    self.pipelines.spawn(running.run());
                    self.metrics.source(&name).started();
                    part.stage = Stage::Running(end);
                }
            }
        }
    }

    /// The place of a sink in the plan.
    fn place(&self, sink: &str) -> Option<usize> {
        self.plan.sinks.iter().position(|known| *known.name == *sink)
    }

    /// The pipeline of a source that can start.
    fn pipeline(&self, index: usize) -> Option<Pipeline> {
        let source = &self.plan.sources[index];
        let routes = self.plan.routes.iter().filter(|route| route.from.contains(&index));
        let routes: Vec<&RoutePlan> = routes.collect();
        let part = self.sources.get(&source.name)?;
        Some(Pipeline {
            name: source.name.clone(),
            format: source.config.format,
            routing: Arc::new(self.outlets.routing(&routes, &self.plan.dead_letters)?),
            budget: Arc::new(Budget::new(source.config.max_in_flight)),
            metrics: self.metrics.source(&source.name),
            health: part.health.clone(),
            gate: Gate::shut_by(&part.paused),
            taps: self.taps.clone(),
        })
    }

    /// Lets the admin API tell the state of what is there now.
    fn watch_health(&self) {
        let sources = self.plan.sources.iter().filter_map(|source| {
            let part = self.sources.get(&source.name)?;
            Some((format!("source {}", source.name), part.health.subscribe()))
        });
        let sinks = self.plan.sinks.iter().filter_map(|sink| {
            let part = self.sinks.get(&sink.name)?;
            Some((format!("sink {}", sink.name), part.health.subscribe()))
        });
        self.health.watch(self.plan.clone(), sources.chain(sinks).collect());
        self.tell_overrides();
    }

    /// Stops receiving, lets what is in flight finish for as long as the grace period allows,
    /// gives the rest back, settles, writes checkpoints.
    async fn drain(mut self, jobs: &mut JoinSet<()>) {
        let (started, bounds) = (Instant::now(), Bounds::within(self.plan.grace));
        tracing::info!(grace_s = self.plan.grace.as_secs(), "draining");
        self.health.drain();
        self.taps.end();
        self.metrics.looks().end();
        self.preparing.shutdown().await;
        self.connecting.shutdown().await;
        for part in self.sources.values_mut() {
            if let Stage::Running(end) = std::mem::replace(&mut part.stage, Stage::Ending) {
                end.begin(bounds);
            }
        }
        // Half of it would repeat less than was asked for.
        let moved = async { while self.rewinding.join_next().await.is_some() {} };
        let mut everything_delivered = true;
        let pipelines = &mut self.pipelines;
        let mut ended = async || {
            while let Some(ended) = pipelines.join_next().await {
                everything_delivered &= matches!(ended, Ok(Ok(Ended { in_time: true, .. })));
            }
        };
        let all = async { tokio::join!(ended(), moved) };
        let in_time = timeout_at(bounds.deliver, all).await.is_ok();
        self.outlets.stop_lanes(bounds.send).await;
        // What it has sent is kept as delivered only while somebody keeps the claims.
        let _ = timeout_at(bounds.send, jobs.join_next()).await;
        self.outlets.stop_claims().await;
        let end = (started + self.plan.grace).max(Instant::now() + Duration::from_secs(1));
        if !in_time && timeout_at(end, ended()).await.is_err() {
            everything_delivered = false;
            tracing::warn!("sources did not answer in time; what was not settled will come again");
        }
        self.pipelines.shutdown().await;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(took_ms, everything_delivered, "drained");
    }
}

/// Builds a connector until it works, telling what is wrong once and then whenever it changes.
async fn until_connected<T, F: Future<Output = Result<T, Fault>>>(
    name: &str,
    health: &watch::Sender<Option<String>>,
    build: impl Fn() -> F,
) -> T {
    let mut failures = 0;
    loop {
        match build().await {
            Ok(connected) => {
                health.send_replace(None);
                return connected;
            }
            Err(fault) => {
                failures += 1;
                let text = fault.to_string();
                let known = health.borrow().as_ref() == Some(&text);
                if !known {
                    tracing::error!(connector = name, error = text, "cannot connect, will retry");
                    health.send_replace(Some(text));
                }
                sleep(Backoff::SERVICE.delay(failures, None)).await;
            }
        }
    }
}
