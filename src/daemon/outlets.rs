//! The sinks, with all that stands between a route and them: lanes, claims, and the store for large
//! bodies. The daemon sends through them, and so does a redrive.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
    sink::{Sink, claim::ClaimingSink, late::LateSink},
    state::DedupStore,
    telemetry::Metrics,
};

/// Sinks that have connected, or will.
pub(crate) struct Outlets {
    plan: Arc<Plan>,
    metrics: Arc<Metrics>,
    /// Where bodies go that are too large for their sinks.
    claims: Option<Arc<Store>>,
    /// In the order of the plan; none for those that nobody connects.
    outlets: Vec<Option<Outlet>>,
    lanes: JoinSet<()>,
    stop_lanes: CancellationToken,
    /// The claims of routes that deliver each event once.
    ledger: Option<Arc<Ledger>>,
    /// The task that keeps them, and the signal that ends it once no lane claims any more.
    claimed: JoinSet<()>,
    stop_claims: CancellationToken,
    /// Its sinks, for others.
    lent: Lent,
    /// The sinks of another, which are used in place of own ones.
    borrowed: Lent,
}

/// Sinks that somebody else in this process may send to as well, by name: their limits, their
/// breakers and what an operator has said of them hold for all.
#[derive(Clone, Default)]
pub(crate) struct Lent(Arc<Mutex<BTreeMap<Arc<str>, Outlet>>>);

/// A sink, connected or not, and what delivers to it.
#[derive(Clone)]
struct Outlet {
    deliverer: Arc<Deliverer>,
    sink: Arc<LateSink>,
}

impl Lent {
    fn sinks(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Outlet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            outlets: vec![None; plan.sinks.len()],
            plan,
            metrics,
            claims,
            lanes: JoinSet::new(),
            stop_lanes: CancellationToken::new(),
            ledger,
            claimed,
            stop_claims,
            lent: Lent::default(),
            borrowed: Lent::default(),
        }
    }

    /// Uses the claims of somebody else in this process, who keeps them: within it a key is claimed
    /// by one delivery at a time.
    pub(crate) fn share(&mut self, ledger: Arc<Ledger>) {
        self.ledger = Some(ledger);
    }

    /// Sends through the sinks of somebody else in this process, as far as these are connected.
    pub(crate) fn send_through(&mut self, sinks: Lent) {
        self.borrowed = sinks;
    }

    /// Its sinks, for others in this process.
    pub(crate) fn lent(&self) -> Lent {
        self.lent.clone()
    }

    /// Uses the sink of this index that another has. Answers whether that is connected.
    pub(crate) fn borrow(&mut self, index: usize) -> bool {
        let name = &self.plan.sinks[index].name;
        let found = self.borrowed.sinks().get(name).filter(|it| it.sink.is_connected()).cloned();
        let is_found = found.is_some();
        if is_found {
            self.outlets[index] = found;
        }
        is_found
    }

    /// Others use what it has now.
    fn lend(&self) {
        let mut lent = self.lent.sinks();
        *lent = self
            .outlets
            .iter()
            .flatten()
            .map(|it| (it.deliverer.name().clone(), it.clone()))
            .collect();
    }

    /// Its claims, for others in this process.
    pub(crate) fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.as_ref()
    }

    /// Goes on with another plan. The sinks that `keeps` names are the same in both, and stay as
    /// they are; the lanes of the others end when the pipelines that use them have.
    pub(crate) fn replan(
        &mut self,
        plan: Arc<Plan>,
        claims: Option<Arc<Store>>,
        keeps: impl Fn(&str) -> bool,
    ) {
        let kept = std::mem::take(&mut self.outlets);
        let find = |name: &str| {
            kept.iter().flatten().find(|it| **it.deliverer.name() == *name && keeps(name)).cloned()
        };
        self.outlets = plan.sinks.iter().map(|sink| find(&sink.name)).collect();
        (self.plan, self.claims) = (plan, claims);
        self.lend();
    }

    /// The connection of the sink of this name, if it has one: for the same sink in another plan.
    pub(crate) fn connection(&self, name: &str) -> Option<Arc<dyn Sink>> {
        let mut all = self.outlets.iter().flatten();
        all.find(|it| **it.deliverer.name() == *name)?.sink.connection()
    }

    /// Whether the sink of this index has connected.
    pub(crate) fn has(&self, sink: usize) -> bool {
        self.outlets.get(sink).and_then(Option::as_ref).is_some_and(|it| it.sink.is_connected())
    }

    /// Adds a sink that somebody connects, whose standing faults are told to `health`: routes can be
    /// wired to it from now on.
    pub(crate) fn expect(&mut self, index: usize, health: &watch::Sender<Option<String>>) {
        let plan = &self.plan.sinks[index];
        let (name, late) = (plan.name.clone(), Arc::new(LateSink::new(plan.config.clone())));
        let sink: Arc<dyn Sink> = match &self.claims {
            Some(store) => Arc::new(ClaimingSink::new(late.clone(), store.clone())),
            None => late.clone(),
        };
        let weights = Weights::new(self.plan.lanes.iter().map(|lane| lane.weight));
        let (flow, metrics) = (self.plan.sinks[index].flow, self.metrics.sink(&name));
        let (deliverer, lanes) =
            Deliverer::new(name, sink, &weights, flow, &metrics, health, &self.stop_lanes);
        deliverer.absent();
        lanes.into_iter().for_each(|lane| drop(self.lanes.spawn(lane.run())));
        self.outlets[index] = Some(Outlet { deliverer, sink: late });
        self.lend();
    }

    /// A sink that was expected has connected.
    pub(crate) fn arrived(&mut self, index: usize, sink: Arc<dyn Sink>) {
        if let Some(Some(outlet)) = self.outlets.get(index) {
            outlet.sink.arrive(sink);
            outlet.deliverer.arrived();
        }
    }

    /// These routes, wired to their sinks, connected or not; what none of them takes goes to
    /// `dead_letters`. None where one of the sinks is not expected.
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
        let dead_letters = self.all_of(&route.dead_letters)?;
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
        let dead_letters = self.all_of(dead_letters)?;
        let (retry, oversize) = (Retry::default(), self.plan.oversize());
        let metrics = self.metrics.route(&UNROUTED.into(), &name);
        let target =
            Target::new(UNROUTED.into(), deliverer, dead_letters, retry, oversize, metrics);
        Some(Arc::new(target))
    }

    /// The name of a sink and what delivers to it; neither for no sink.
    fn deliverer(&self, sink: Option<usize>) -> Option<(Arc<str>, Option<Arc<Deliverer>>)> {
        let Some(sink) = sink else { return Some(("".into(), None)) };
        let deliverer = self.expected(sink)?;
        Some((deliverer.name().clone(), Some(deliverer)))
    }

    /// What delivers to the sink of this index, connected or not.
    pub(crate) fn expected(&self, sink: usize) -> Option<Arc<Deliverer>> {
        Some(self.outlets.get(sink)?.as_ref()?.deliverer.clone())
    }

    fn all_of(&self, sinks: &[usize]) -> Option<Vec<Arc<Deliverer>>> {
        sinks.iter().map(|&sink| self.expected(sink)).collect()
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

    /// Ends the lanes and then the claims.
    pub(crate) async fn stop(&mut self, deadline: Instant) {
        self.stop_lanes(deadline).await;
        self.stop_claims().await;
    }

    /// Ends the lanes, which give back what they have not begun to send. What a lane is sending may
    /// finish until `deadline`.
    pub(crate) async fn stop_lanes(&mut self, deadline: Instant) {
        self.stop_lanes.cancel();
        let lanes = async { while self.lanes.join_next().await.is_some() {} };
        if timeout_at(deadline, lanes).await.is_err() {
            self.lanes.shutdown().await;
        }
    }

    /// Ends the claims, which what lanes give back has released. Nobody may use them any more.
    pub(crate) async fn stop_claims(&mut self) {
        self.stop_claims.cancel();
        while self.claimed.join_next().await.is_some() {}
    }
}
