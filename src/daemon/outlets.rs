//! The sinks that have connected, with all that stands between a route and them: lanes, claims,
//! and the store for large bodies. The daemon sends through them, and so does a redrive.

use std::{future::pending, sync::Arc};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    claim::Store,
    config::plan::{Plan, RoutePlan},
    dedup::{self, Dedup, ledger::Ledger},
    deliver::{Deliverer, Target, UNROUTED, priority::Weights},
    pipeline::routing::Routing,
    route::{
        Retry,
        choice::Choice,
        table::{Route, Table},
    },
    sink::{Sink, claim::ClaimingSink},
    state::DedupStore,
    telemetry::Metrics,
};

/// Connected sinks.
pub(crate) struct Outlets {
    plan: Arc<Plan>,
    metrics: Arc<Metrics>,
    /// Where bodies go that are too large for their sinks.
    claims: Option<Arc<Store>>,
    /// In the order of the plan; none for those that have not connected.
    deliverers: Vec<Option<Arc<Deliverer>>>,
    lanes: JoinSet<()>,
    stop_lanes: CancellationToken,
    /// The claims of routes that deliver each event once.
    ledger: Option<Arc<Ledger>>,
    /// The task that keeps them, and the signal that ends it once no lane claims any more.
    claimed: JoinSet<()>,
    stop_claims: CancellationToken,
}

impl Outlets {
    /// None has connected yet. Without `keys`, no route looks whether it has delivered an event
    /// before.
    pub(crate) fn new(
        plan: Arc<Plan>,
        keys: Option<Arc<dyn DedupStore>>,
        claims: Option<Arc<Store>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (mut claimed, stop_claims) = (JoinSet::new(), CancellationToken::new());
        let ledger = keys.map(|store| {
            let (ledger, keeper) = dedup::keeper::open(store, metrics.dedup());
            claimed.spawn(keeper.run(stop_claims.clone()));
            ledger
        });
        Self {
            deliverers: vec![None; plan.sinks.len()],
            plan,
            metrics,
            claims,
            lanes: JoinSet::new(),
            stop_lanes: CancellationToken::new(),
            ledger,
            claimed,
            stop_claims,
        }
    }

    /// Goes on with another plan. The sinks that `keeps` names are the same in both, and stay as
    /// they are; the lanes of the others end when the pipelines that use them have.
    pub(crate) fn replan(
        &mut self,
        plan: Arc<Plan>,
        claims: Option<Arc<Store>>,
        keeps: impl Fn(&str) -> bool,
    ) {
        let kept = std::mem::take(&mut self.deliverers);
        let find = |name: &str| {
            kept.iter().flatten().find(|it| **it.name() == *name && keeps(name)).cloned()
        };
        self.deliverers = plan.sinks.iter().map(|sink| find(&sink.name)).collect();
        (self.plan, self.claims) = (plan, claims);
    }

    /// Whether the sink of this index has connected.
    pub(crate) fn has(&self, sink: usize) -> bool {
        self.deliverers.get(sink).is_some_and(Option::is_some)
    }

    /// Adds a sink that has connected, whose standing faults are told to `health`.
    pub(crate) fn add(
        &mut self,
        index: usize,
        sink: Arc<dyn Sink>,
        health: &watch::Sender<Option<String>>,
    ) {
        let name = self.plan.sinks[index].name.clone();
        let sink = match &self.claims {
            Some(store) => Arc::new(ClaimingSink::new(sink, store.clone())),
            None => sink,
        };
        let weights = Weights::new(self.plan.lanes.iter().map(|lane| lane.weight));
        let (flow, metrics) = (self.plan.sinks[index].flow, self.metrics.sink(&name));
        let (deliverer, lanes) =
            Deliverer::new(name, sink, &weights, flow, &metrics, health, &self.stop_lanes);
        lanes.into_iter().for_each(|lane| drop(self.lanes.spawn(lane.run())));
        self.deliverers[index] = Some(deliverer);
    }

    /// These routes, wired to their sinks, all of which have connected; what none of them takes
    /// goes to `dead_letters`.
    pub(crate) fn routing(&self, routes: &[&RoutePlan], dead_letters: &[usize]) -> Option<Routing> {
        let (mut rules, mut failed) = (Vec::with_capacity(routes.len()), Vec::new());
        for route in routes {
            rules.push(self.rule(route)?);
            failed.push(self.target(route, None)?);
        }
        Some(Routing {
            table: Table::new(rules, self.plan.lanes.clone()),
            failed,
            hops_max: self.plan.hops_max,
            unmatched: self.plan.unmatched,
            unrouted: self.unrouted(None, dead_letters)?,
        })
    }

    fn rule(&self, route: &RoutePlan) -> Option<Route<Arc<Target>>> {
        let rule = route.rule.try_map(&mut |sink| self.target(route, Some(*sink)))?;
        if let Choice::Any(targets) = &rule.choice {
            targets.iter().for_each(|target| target.stand_in_for(targets));
        }
        Some(rule)
    }

    /// A route into one of its sinks, or into none.
    fn target(&self, route: &RoutePlan, sink: Option<usize>) -> Option<Arc<Target>> {
        let (name, deliverer) = self.deliverer(sink)?;
        let dead_letters = self.connected(&route.dead_letters)?;
        let metrics = self.metrics.route(&route.name, &name);
        let (name, retry, oversize) = (route.name.clone(), route.retry, route.oversize);
        let target = Target::new(name, deliverer, dead_letters, retry, oversize, metrics);
        Some(Arc::new(target.with_dedup(self.dedup(route, sink))))
    }

    /// The way into a sink, or into none, for events of no route.
    pub(crate) fn unrouted(
        &self,
        sink: Option<usize>,
        dead_letters: &[usize],
    ) -> Option<Arc<Target>> {
        let (name, deliverer) = self.deliverer(sink)?;
        let dead_letters = self.connected(dead_letters)?;
        let (retry, oversize) = (Retry::default(), self.plan.oversize());
        let metrics = self.metrics.route(&UNROUTED.into(), &name);
        let target =
            Target::new(UNROUTED.into(), deliverer, dead_letters, retry, oversize, metrics);
        Some(Arc::new(target))
    }

    /// The name of a sink and what delivers to it; neither for no sink.
    fn deliverer(&self, sink: Option<usize>) -> Option<(Arc<str>, Option<Arc<Deliverer>>)> {
        let Some(sink) = sink else { return Some(("".into(), None)) };
        let deliverer = self.deliverers.get(sink)?.clone()?;
        Some((deliverer.name().clone(), Some(deliverer)))
    }

    fn connected(&self, sinks: &[usize]) -> Option<Vec<Arc<Deliverer>>> {
        sinks.iter().map(|&sink| self.deliverers.get(sink)?.clone()).collect()
    }

    /// How a route knows what it has delivered before, if it does.
    fn dedup(&self, route: &RoutePlan, sink: Option<usize>) -> Option<Dedup> {
        let (config, ledger) = (route.dedup.as_ref()?, self.ledger.clone()?);
        let sink = sink.filter(|_| route.rule.choice.sends_to_each());
        let sink = sink.map(|sink| self.plan.sinks[sink].name.clone());
        Some(Dedup {
            ledger,
            ttl: *config.ttl,
            on_store_failure: config.on_store_failure,
            route: route.name.clone(),
            sink,
        })
    }

    /// Waits until a task of the lanes or the claims has died of a defect. Cancel-safe.
    pub(crate) async fn died(&mut self) -> JoinError {
        loop {
            let ended = tokio::select! {
                Some(ended) = self.lanes.join_next() => ended,
                Some(ended) = self.claimed.join_next() => ended,
                else => pending().await,
            };
            if let Err(error) = ended {
                return error;
            }
        }
    }

    /// Ends the lanes, which give back what they have not begun to send, and then the claims,
    /// which what is given back releases. What a lane is sending may finish until `deadline`.
    pub(crate) async fn stop(&mut self, deadline: Instant) {
        self.stop_lanes.cancel();
        let lanes = async { while self.lanes.join_next().await.is_some() {} };
        if timeout_at(deadline, lanes).await.is_err() {
            self.lanes.shutdown().await;
        }
        self.stop_claims.cancel();
        while self.claimed.join_next().await.is_some() {}
    }
}
