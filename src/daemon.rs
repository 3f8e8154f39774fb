//! The life of the daemon: connect, watch, drain.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    claim::Store,
    cloud::Context,
    config::{
        plan::{Plan, RoutePlan},
        problem::Finding,
    },
    deliver::backoff::Backoff,
    fault::Fault,
    pipeline::{Ends, Pipeline},
    settle::Budget,
    sink::Sink,
    source::Source,
    state::StateStore,
    telemetry::Metrics,
};

pub mod health;
pub(crate) mod outlets;
pub(crate) mod stores;

use health::Health;
use outlets::Outlets;
use stores::Stores;

/// Kept of the grace period for giving back what is still open and for the last checkpoint.
const GRACE_MARGIN: Duration = Duration::from_secs(3);

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
    Admin(std::net::SocketAddr, #[source] std::io::Error),
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

/// Runs until `shutdown`, then drains: stops receiving, finishes or returns what is open within
/// the grace period, writes checkpoints.
///
/// # Errors
/// It cannot start, or a task of it has died.
pub async fn run(mut plan: Plan, shutdown: impl Future<Output = ()>) -> Result<(), DaemonError> {
    plan.unlock().map_err(DaemonError::Secrets)?;
    let stores = Stores::open(&plan).await?;
    let claims = match &plan.claim_check {
        Some(config) => Some(Arc::new(config.open(&plan.clouds).await?)),
        None => None,
    };
    let metrics = Metrics::new()?;
    let mut daemon = Daemon::new(plan, stores, claims, metrics);
    let mut admin = JoinSet::new();
    if let Some(address) = daemon.plan.admin {
        let listen = admin::listen(address).await;
        let listener = listen.map_err(|error| DaemonError::Admin(address, error))?;
        let (health, metrics) = (daemon.health.clone(), daemon.metrics.clone());
        admin.spawn(admin::serve(listener, health, metrics));
    }
    let ended = daemon.serve(shutdown).await;
    if let Err(error) = &ended {
        tracing::error!(%error, "ending because of a defect");
    }
    daemon.drain().await;
    ended
}

/// What has connected.
enum Connected {
    Sink(usize, Arc<dyn Sink>),
    Source(usize, Source),
}

struct Daemon {
    plan: Arc<Plan>,
    state: Arc<dyn StateStore>,
    /// Where bodies go that are too large for their sinks.
    claims: Option<Arc<Store>>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// The state of each source and sink, in the order of the plan; read by `health`.
    source_health: Vec<watch::Sender<Option<String>>>,
    sink_health: Vec<watch::Sender<Option<String>>>,
    budgets: Vec<Arc<Budget>>,
    outlets: Outlets,
    /// Sources that wait for their sinks.
    waiting: Vec<usize>,
    connecting: JoinSet<Connected>,
    pipelines: JoinSet<()>,
    ends: Ends,
}

impl Daemon {
    fn new(plan: Plan, stores: Stores, claims: Option<Arc<Store>>, metrics: Arc<Metrics>) -> Self {
        let watches = |count| -> Vec<watch::Sender<Option<String>>> {
            (0..count).map(|_| watch::Sender::new(Some("connecting".to_owned()))).collect()
        };
        let (source_health, sink_health) = (watches(plan.sources.len()), watches(plan.sinks.len()));
        let sources = plan.sources.iter().map(|source| &source.name).zip(&source_health);
        let sinks = plan.sinks.iter().map(|sink| &sink.name).zip(&sink_health);
        let health = Arc::new(Health::new(
            sources.map(|(name, state)| (format!("source {name}"), state.subscribe())),
            sinks.map(|(name, state)| (format!("sink {name}"), state.subscribe())),
        ));
        let plan = Arc::new(plan);
        let outlets = Outlets::new(plan.clone(), stores.keys, claims.clone(), metrics.clone());
        let budgets = plan.sources.iter().map(|s| Arc::new(Budget::new(s.config.max_in_flight)));
        Self {
            budgets: budgets.collect(),
            outlets,
            waiting: (0..plan.sources.len()).collect(),
            plan,
            state: stores.checkpoints,
            claims,
            metrics,
            health,
            source_health,
            sink_health,
            connecting: JoinSet::new(),
            pipelines: JoinSet::new(),
            ends: Ends { drain: CancellationToken::new(), finish: CancellationToken::new() },
        }
    }

    /// Connects everything and watches it until `shutdown`.
    async fn serve(&mut self, shutdown: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let mut shutdown = std::pin::pin!(shutdown);
        for sink in 0..self.plan.sinks.len() {
            self.connect_sink(sink);
        }
        loop {
            self.connect_ready_sources();
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                Some(connected) = self.connecting.join_next() => {
                    self.connected(connected.map_err(DaemonError::Task)?);
                }
                error = self.outlets.died() => return Err(DaemonError::Task(error)),
                Some(Err(error)) = self.pipelines.join_next() => return Err(DaemonError::Task(error)),
            }
        }
    }

    fn context(&self, name: &Arc<str>) -> Context {
        Context {
            name: name.clone(),
            clouds: self.plan.clouds.clone(),
            state: self.state.clone(),
            metrics: self.metrics.clone(),
        }
    }

    fn connect_sink(&mut self, sink: usize) {
        let plan = &self.plan.sinks[sink];
        let (config, context) = (plan.config.clone(), self.context(&plan.name));
        let (name, health) = (format!("sink {}", plan.name), self.sink_health[sink].clone());
        self.connecting.spawn(async move {
            let build = || config.build(&context);
            Connected::Sink(sink, until_connected(&name, &health, build).await)
        });
    }

    /// A source starts when every sink that its events can reach has connected.
    fn connect_ready_sources(&mut self) {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|source| self.sinks_of(*source).all(|sink| self.outlets.has(sink)));
        self.waiting = waiting;
        let ready: Vec<usize> = ready;
        for source in ready {
            let plan = &self.plan.sources[source];
            let (config, context) = (plan.config.clone(), self.context(&plan.name));
            let (name, health) =
                (format!("source {}", plan.name), self.source_health[source].clone());
            self.connecting.spawn(async move {
                let build = || config.build(&context);
                Connected::Source(source, until_connected(&name, &health, build).await)
            });
        }
    }

    fn sinks_of(&self, source: usize) -> impl Iterator<Item = usize> + '_ {
        let routes = self.plan.routes.iter().filter(move |route| route.from.contains(&source));
        let routed = routes
            .flat_map(|route| route.sinks.iter().map(|(sink, _)| sink).chain(&route.dead_letters));
        routed.chain(&self.plan.dead_letters).copied()
    }

    fn connected(&mut self, connected: Connected) {
        match connected {
            Connected::Sink(index, sink) => {
                tracing::info!(sink = %self.plan.sinks[index].name, "sink connected");
                self.outlets.add(index, sink, &self.sink_health[index]);
            }
            Connected::Source(index, mut source) => {
                let plan = &self.plan.sources[index];
                tracing::info!(source = %plan.name, "source connected");
                if let Some(store) = &self.claims {
                    source = source.resolving(store, plan.config.format);
                }
                if let Some(pipeline) = self.pipeline(index) {
                    pipeline.spawn(source, &self.ends, &mut self.pipelines);
                }
            }
        }
    }

    /// The pipeline of a source; its sinks are connected.
    fn pipeline(&self, index: usize) -> Option<Pipeline> {
        let source = &self.plan.sources[index];
        let routes = self.plan.routes.iter().filter(|route| route.from.contains(&index));
        let routes: Vec<&RoutePlan> = routes.collect();
        Some(Pipeline {
            name: source.name.clone(),
            format: source.config.format,
            routing: self.outlets.routing(&routes, &self.plan.dead_letters)?,
            budget: self.budgets[index].clone(),
            metrics: self.metrics.source(&source.name),
            health: self.source_health[index].clone(),
        })
    }

    /// Stops receiving, lets what is in flight finish for as long as the grace period allows,
    /// gives the rest back, settles, writes checkpoints.
    async fn drain(mut self) {
        let started = Instant::now();
        let grace = self.plan.grace;
        let deadline = started + grace.saturating_sub(GRACE_MARGIN.min(grace / 2));
        tracing::info!(grace_s = grace.as_secs(), "draining");
        self.health.drain();
        self.connecting.shutdown().await;
        self.ends.drain.cancel();
        let empty = futures::future::join_all(self.budgets.iter().map(|budget| budget.empty()));
        let in_time = timeout_at(deadline, empty).await.is_ok();
        self.outlets.stop(deadline.max(Instant::now() + GRACE_MARGIN / 3)).await;
        self.ends.finish.cancel();
        let pipelines = async { while self.pipelines.join_next().await.is_some() {} };
        if timeout_at((started + grace).max(Instant::now() + GRACE_MARGIN / 3), pipelines)
            .await
            .is_err()
        {
            tracing::warn!("sources did not answer in time; what was not settled will come again");
            self.pipelines.shutdown().await;
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(took_ms, everything_delivered = in_time, "drained");
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
