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
        plan::{Plan, RoutePlan, State},
        problem::Finding,
    },
    decode::Format,
    dedup::{self, Dedup, ledger::Ledger},
    deliver::{Deliverer, Target, UNROUTED, backoff::Backoff, priority::Weights},
    fault::Fault,
    pipeline::{Ends, Pipeline},
    route::{Retry, choice::Choice, table::Table},
    settle::Budget,
    sink::{Sink, claim::ClaimingSink},
    source::{Source, claim::ResolvingReceive},
    state::{
        DedupStore, StateStore,
        embedded::EmbeddedStore,
        memory::{MemoryKeys, MemoryStore},
    },
    telemetry::Metrics,
};

pub mod health;

use health::Health;

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

/// What outlives the process.
struct Stores {
    checkpoints: Arc<dyn StateStore>,
    /// Delivered keys; none if no route asks for them.
    keys: Option<Arc<dyn DedupStore>>,
}

impl Stores {
    async fn open(plan: &Plan) -> Result<Self, Fault> {
        let stores = match &plan.state {
            State::Memory => Self {
                checkpoints: Arc::new(MemoryStore::default()),
                keys: Some(Arc::new(MemoryKeys::default())),
            },
            State::Embedded { path } => {
                let path = path.clone();
                let open = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await;
                let open = open.map_err(|error| Fault::stop("open state store", "state", error))?;
                Self::both(open?)
            }
            #[cfg(feature = "redis")]
            State::Redis(config) => Self::both(config.open().await?),
            #[cfg(feature = "azure")]
            State::Blob(config) => {
                Self { checkpoints: Arc::new(config.open(&plan.clouds).await?), keys: None }
            }
        };
        let wanted = plan.routes.iter().any(|route| route.dedup.is_some());
        Ok(Self { keys: stores.keys.filter(|_| wanted), ..stores })
    }

    fn both(store: impl StateStore + DedupStore + 'static) -> Self {
        let store = Arc::new(store);
        Self { checkpoints: store.clone(), keys: Some(store) }
    }
}

/// What has connected.
enum Connected {
    Sink(usize, Arc<dyn Sink>),
    Source(usize, Source),
}

struct Daemon {
    plan: Plan,
    state: Arc<dyn StateStore>,
    /// Where bodies go that are too large for their sinks.
    claims: Option<Arc<Store>>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// The state of each source and sink, in the order of the plan; read by `health`.
    source_health: Vec<watch::Sender<Option<String>>>,
    sink_health: Vec<watch::Sender<Option<String>>>,
    budgets: Vec<Arc<Budget>>,
    deliverers: Vec<Option<Arc<Deliverer>>>,
    /// Sources that wait for their sinks.
    waiting: Vec<usize>,
    connecting: JoinSet<Connected>,
    lanes: JoinSet<()>,
    pipelines: JoinSet<()>,
    stop_lanes: CancellationToken,
    /// The claims of routes that deliver each event once.
    ledger: Option<Arc<Ledger>>,
    /// The task that keeps them, and the signal that ends it once no lane claims any more.
    claimed: JoinSet<()>,
    stop_claims: CancellationToken,
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
        let (mut claimed, stop_claims) = (JoinSet::new(), CancellationToken::new());
        let ledger = stores.keys.map(|store| {
            let (ledger, keeper) = dedup::keeper::open(store, metrics.dedup());
            claimed.spawn(keeper.run(stop_claims.clone()));
            ledger
        });
        let budgets = plan.sources.iter().map(|s| Arc::new(Budget::new(s.config.max_in_flight)));
        Self {
            budgets: budgets.collect(),
            deliverers: vec![None; plan.sinks.len()],
            waiting: (0..plan.sources.len()).collect(),
            plan,
            state: stores.checkpoints,
            claims,
            metrics,
            health,
            source_health,
            sink_health,
            connecting: JoinSet::new(),
            lanes: JoinSet::new(),
            pipelines: JoinSet::new(),
            stop_lanes: CancellationToken::new(),
            ledger,
            claimed,
            stop_claims,
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
                Some(Err(error)) = self.lanes.join_next() => return Err(DaemonError::Task(error)),
                Some(Err(error)) = self.claimed.join_next() => return Err(DaemonError::Task(error)),
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
            .partition(|source| self.sinks_of(*source).all(|sink| self.deliverers[sink].is_some()));
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
            .flat_map(|route| route.sinks.iter().map(|(sink, _)| *sink).chain(route.dead_letter));
        routed.chain(self.plan.dead_letter)
    }

    fn connected(&mut self, connected: Connected) {
        match connected {
            Connected::Sink(index, sink) => {
                let name = self.plan.sinks[index].name.clone();
                tracing::info!(sink = %name, "sink connected");
                let sink = match &self.claims {
                    Some(store) => Arc::new(ClaimingSink::new(sink, store.clone())),
                    None => sink,
                };
                let (metrics, health) = (self.metrics.sink(&name), &self.sink_health[index]);
                let (deliverer, lanes) = Deliverer::new(
                    name,
                    sink,
                    &Weights::new(self.plan.lanes.iter().map(|lane| lane.weight)),
                    self.plan.sinks[index].flow,
                    &metrics,
                    health,
                    &self.stop_lanes,
                );
                lanes.into_iter().for_each(|lane| drop(self.lanes.spawn(lane.run())));
                self.deliverers[index] = Some(deliverer);
            }
            Connected::Source(index, mut source) => {
                let plan = &self.plan.sources[index];
                tracing::info!(source = %plan.name, "source connected");
                if let Some(store) =
                    self.claims.clone().filter(|_| plan.config.format != Format::Raw)
                {
                    let resolving =
                        ResolvingReceive::new(source.receive, store, plan.config.format);
                    source.receive = Box::new(resolving);
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
        let deliverer = |sink: usize| self.deliverers[sink].clone();
        let (mut rules, mut failed) = (Vec::new(), Vec::new());
        for route in self.plan.routes.iter().filter(|route| route.from.contains(&index)) {
            let target = |sink: Option<usize>| {
                let name =
                    sink.map_or_else(|| "".into(), |sink| self.plan.sinks[sink].name.clone());
                let connected = match sink {
                    Some(sink) => Some(deliverer(sink)?),
                    None => None,
                };
                let dead_letter = route.dead_letter.and_then(deliverer);
                let metrics = self.metrics.route(&route.name, &name);
                let (name, retry, oversize) = (route.name.clone(), route.retry, route.oversize);
                let target = Target::new(name, connected, dead_letter, retry, oversize, metrics);
                Some(Arc::new(target.with_dedup(self.dedup(route, sink))))
            };
            let rule = route.rule.try_map(&mut |sink| target(Some(*sink)))?;
            if let Choice::Any(targets) = &rule.choice {
                targets.iter().for_each(|target| target.stand_in_for(targets));
            }
            rules.push(rule);
            failed.push(target(None)?);
        }
        let dead_letter = self.plan.dead_letter.and_then(deliverer);
        let metrics = self.metrics.route(&UNROUTED.into(), &"".into());
        let (retry, oversize) = (Retry::default(), self.plan.oversize());
        let unrouted = Target::new(UNROUTED.into(), None, dead_letter, retry, oversize, metrics);
        let unrouted = Arc::new(unrouted);
        Some(Pipeline {
            name: source.name.clone(),
            format: source.config.format,
            table: Table::new(rules, self.plan.lanes.clone()),
            failed,
            hops_max: self.plan.hops_max,
            unmatched: self.plan.unmatched,
            unrouted,
            budget: self.budgets[index].clone(),
            metrics: self.metrics.source(&source.name),
            health: self.source_health[index].clone(),
        })
    }

    /// How a route knows what it has delivered before, if it does.
    fn dedup(&self, route: &RoutePlan, sink: Option<usize>) -> Option<Dedup> {
        let (config, ledger) = (route.dedup.as_ref()?, self.ledger.clone()?);
        let each = matches!(route.rule.choice, Choice::All(_) | Choice::First { .. });
        let sink = sink.filter(|_| each).map(|sink| self.plan.sinks[sink].name.clone());
        Some(Dedup {
            ledger,
            ttl: *config.ttl,
            on_store_failure: config.on_store_failure,
            route: route.name.clone(),
            sink,
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
        self.stop_lanes.cancel();
        let lanes = async { while self.lanes.join_next().await.is_some() {} };
        if timeout_at(deadline.max(Instant::now() + GRACE_MARGIN / 3), lanes).await.is_err() {
            self.lanes.shutdown().await;
        }
        // Only now: what lanes give back releases its claims.
        self.stop_claims.cancel();
        while self.claimed.join_next().await.is_some() {}
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
