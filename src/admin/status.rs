//! What runs and how it is doing, in one document: what the page shows, and `eventferry status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::proto::{Metric, MetricFamily};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

mod recent;

use recent::{Latencies, Recent};

use super::{LIVE_EVERY, access::Caller};
use crate::{
    config::{guarantee, plan::Plan},
    daemon::health::Health,
    deliver::bucket::LimitConfig,
    route::rate::RateLimitConfig,
    telemetry::Metrics,
};

/// A moment of the daemon. Counts are from its start, and are lost with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// The configuration that runs, by the beginning of the digest of its file.
    pub generation: String,
    /// Seconds since it has started.
    pub uptime_seconds: u64,
    /// What keeps it from being ready, a line each.
    pub problems: Vec<String>,
    /// Where events come from.
    pub sources: Vec<SourceStatus>,
    /// The ways of events.
    pub routes: Vec<RouteStatus>,
    /// Where events go.
    pub sinks: Vec<SinkStatus>,
}

/// A source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// What is wrong with it; none if it works.
    pub problem: Option<String>,
    /// Whether somebody has paused it: what is in flight goes on, and nothing more is received.
    pub paused: bool,
    /// Events received.
    pub received: u64,
    /// Events settled, however they have ended.
    pub settled: u64,
    /// Events between the two.
    pub in_flight: u64,
    /// Events that wait at the service, where it tells.
    pub backlog: Option<u64>,
    /// Seconds that the oldest of them waits, where the service tells.
    pub backlog_age_seconds: Option<u64>,
    /// The partitions that it reads, where it has some.
    pub partitions: Option<u64>,
    /// Whether it is also of routes that whoever asks may not see: they may not change it.
    pub shared: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteStatus {
    /// Its name.
    pub name: String,
    /// The names of its sources.
    pub from: Vec<String>,
    /// Its sinks.
    pub to: Vec<Leg>,
    /// The names of its dead letters.
    pub dead_letters: Vec<String>,
    /// Events that a dead-letter sink has confirmed, those among them that came to none of its
    /// sinks.
    pub dead_lettered: u64,
    /// The same by their cause.
    pub dead_lettered_by: BTreeMap<String, u64>,
    /// Events given back to their source, likewise.
    pub returned: u64,
    /// Events that it took and did not send.
    pub filtered: u64,
    /// What it passes on at most; none where it has no limit.
    pub rate_limit: Option<RateLimitConfig>,
    /// Whether that is what somebody has asked for, in place of what the file says.
    pub rate_limit_overridden: bool,
    /// What it promises, a line each.
    pub promises: Vec<String>,
}

/// A route into one of its sinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Leg {
    /// The name of the sink.
    pub sink: String,
    /// Events on their way into it.
    pub in_flight: u64,
    /// Events that it has confirmed.
    pub delivered: u64,
    /// Failed sends that were tried again.
    pub retried: u64,
    /// Events that a dead-letter sink has confirmed in its place.
    pub dead_lettered: u64,
    /// Events given back to their source.
    pub returned: u64,
    /// Events not sent, because the route had delivered them before.
    pub duplicates: u64,
    /// Seconds from receive to confirmation of half of the events of the last five minutes, as an
    /// upper bound; none where there were none.
    pub p50_seconds: Option<f64>,
    /// The same of 99 in a hundred.
    pub p99_seconds: Option<f64>,
}

/// A sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// What is wrong with it; none if it works.
    pub problem: Option<String>,
    /// Whether it is left alone.
    pub breaker: Breaker,
    /// Whether that is because somebody has opened its breaker, which stays so until it is reset.
    pub held: bool,
    /// Requests that may be under way at once.
    pub concurrency: u64,
    /// What it is sent in a second at most.
    pub limit: LimitConfig,
    /// Whether that is what somebody has asked for, in place of what the file says.
    pub limit_overridden: bool,
    /// Whether it is also of routes that whoever asks may not see: they may not change it.
    pub shared: bool,
}

/// Whether a sink is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Breaker {
    /// No.
    Closed,
    /// One event is on its way to see whether it works again.
    Probing,
    /// Yes.
    Open,
}

/// Where a status is taken from.
#[derive(Debug, Clone)]
pub struct Watch {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    start: Instant,
    /// Whoever asks often sees the same.
    recent: Arc<Mutex<Recent>>,
    /// What was last made for those who look live.
    last: Arc<Mutex<Option<(Instant, Status)>>>,
}

impl Watch {
    /// Of a daemon that starts now.
    #[must_use]
    pub fn new(health: Arc<Health>, metrics: Arc<Metrics>) -> Self {
        Self {
            health,
            metrics,
            start: Instant::now(),
            recent: Arc::default(),
            last: Arc::default(),
        }
    }

    /// How it is now; none before there is anything.
    #[must_use]
    pub fn now(&self) -> Option<Status> {
        let plan = self.health.plan()?;
        let numbers = Numbers(self.metrics.gather());
        let problems = self.health.problems();
        let overrides = self.health.overrides();
        let problem = |of: &str| {
            let problem = problems.iter().find_map(|it| it.strip_prefix(of)?.strip_prefix(": "));
            problem.map(ToOwned::to_owned)
        };
        let sources = plan.sources.iter().map(|source| {
            let of = [("source", &*source.name)];
            SourceStatus {
                name: source.name.to_string(),
                problem: problem(&format!("source {}", source.name)),
                paused: overrides.paused.contains(&source.name),
                received: numbers.sum("received_total", &of).unwrap_or_default(),
                settled: numbers.sum("settled_total", &of).unwrap_or_default(),
                in_flight: numbers.sum("in_flight_events", &of).unwrap_or_default(),
                backlog: numbers.sum("backlog_events", &of),
                backlog_age_seconds: numbers.max("backlog_age_seconds", &of),
                partitions: numbers.sum("partitions_owned", &of),
                shared: false,
            }
        });
        let sinks = plan.sinks.iter().map(|sink| {
            let of = [("sink", &*sink.name)];
            SinkStatus {
                name: sink.name.to_string(),
                problem: problem(&format!("sink {}", sink.name)),
                breaker: match numbers.max("sink_breaker", &of) {
                    Some(2) => Breaker::Open,
                    Some(1) => Breaker::Probing,
                    _ => Breaker::Closed,
                },
                held: overrides.held.contains(&sink.name),
                concurrency: numbers.max("sink_concurrency_limit", &of).unwrap_or_default(),
                limit: overrides.limits.get(&sink.name).copied().unwrap_or(sink.flow.limit),
                limit_overridden: overrides.limits.contains_key(&sink.name),
                shared: false,
            }
        });
        Some(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: plan.generation.to_string(),
            uptime_seconds: self.start.elapsed().as_secs(),
            sources: sources.collect(),
            routes: routes(&plan, &numbers, &self.latencies(&numbers)),
            sinks: sinks.collect(),
            problems,
        })
    }
}

impl Watch {
    /// As much of it as the caller may see.
    #[must_use]
    pub fn seen_by(&self, caller: &Caller) -> Option<Status> {
        Some(caller.cut(&*self.health.plan()?, self.now()?))
    }

    /// The same, up to half a second old: all that look at it live cost no more than two.
    #[must_use]
    pub fn lately_seen_by(&self, caller: &Caller) -> Option<Status> {
        let plan = self.health.plan()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |(at, _): &(Instant, Status)| at.elapsed() < LIVE_EVERY / 2;
        if !last.as_ref().is_some_and(is_fresh) {
            *last = Some((Instant::now(), self.now()?));
        }
        let (_, status) = last.as_ref()?;
        Some(caller.cut(&plan, status.clone()))
    }

    /// How long deliveries have taken lately.
    fn latencies(&self, numbers: &Numbers) -> Latencies {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.since(Latencies::of(numbers.of("delivery_seconds", &[])), Instant::now())
    }
}

fn routes(plan: &Plan, numbers: &Numbers, latencies: &Latencies) -> Vec<RouteStatus> {
    let sink = |index: &usize| plan.sinks.get(*index).map(|sink| sink.name.to_string());
    let promises = guarantee::guarantees(plan);
    let of_route = |(route, promise): (&crate::config::plan::RoutePlan, guarantee::Guarantee)| {
        let legs = route.sinks.iter().filter_map(|(index, _)| sink(index)).map(|sink| {
            let of = [("route", &*route.name), ("sink", sink.as_str())];
            let count = |name: &str| numbers.sum(name, &of).unwrap_or_default();
            Leg {
                in_flight: count("route_in_flight_events"),
                delivered: count("delivered_total"),
                retried: count("retried_total"),
                dead_lettered: count("dead_lettered_total"),
                returned: count("returned_total"),
                duplicates: count("duplicates_total"),
                p50_seconds: latencies.quantile(&route.name, &sink, 0.5),
                p99_seconds: latencies.quantile(&route.name, &sink, 0.99),
                sink,
            }
        });
        let of_route =
            |name: &str| numbers.sum(name, &[("route", &*route.name)]).unwrap_or_default();
        let sources = route.from.iter().filter_map(|index| plan.sources.get(*index));
        RouteStatus {
            name: route.name.to_string(),
            from: sources.map(|source| source.name.to_string()).collect(),
            to: legs.collect(),
            dead_letters: route.dead_letters.iter().filter_map(sink).collect(),
            dead_lettered: of_route("dead_lettered_total"),
            dead_lettered_by: numbers.by("dead_lettered_total", &route.name, "class"),
            returned: of_route("returned_total"),
            filtered: of_route("filtered_total"),
            rate_limit: route.limit(),
            rate_limit_overridden: route.pace.is_some(),
            promises: promise.to_string().lines().skip(1).map(labelled).collect(),
        }
    };
    plan.routes.iter().zip(promises).map(of_route).collect()
}

/// A line of a promise, without the columns that it has on a terminal.
fn labelled(line: &str) -> String {
    match line.trim().split_once("  ") {
        Some((label, text)) => format!("{label}: {}", text.trim()),
        None => line.trim().to_owned(),
    }
}

/// All metrics at one moment.
struct Numbers(Vec<MetricFamily>);

impl Numbers {
    fn of<'a>(
        &'a self,
        name: &str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Metric> {
        let name = format!("eventferry_{name}");
        let family = self.0.iter().find(|family| family.name() == name);
        let all = family.into_iter().flat_map(MetricFamily::get_metric);
        all.filter(move |metric| {
            let has = |(name, value): &(&str, &str)| {
                metric.get_label().iter().any(|it| it.name() == *name && it.value() == *value)
            };
            labels.iter().all(has)
        })
    }

    fn values<'a>(&'a self, name: &str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = u64> {
        // One of the two is there, the other is 0. Neither is negative or has a fraction.
        self.of(name, labels)
            .map(|it| it.get_counter().get_value() + it.get_gauge().get_value())
            .map(|value| value as u64)
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        self.values(name, labels).reduce(|sum, value| sum + value)
    }

    /// What is counted of a route, by another label.
    fn by(&self, name: &str, route: &str, label: &str) -> BTreeMap<String, u64> {
        let mut by = BTreeMap::new();
        for metric in self.of(name, &[("route", route)]) {
            let found = metric.get_label().iter().find(|it| it.name() == label);
            let value = found.map_or("", |it| it.value()).to_owned();
            *by.entry(value).or_default() += metric.get_counter().get_value() as u64;
        }
        by
    }

    fn max(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        self.values(name, labels).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, environment::Environment};

    const FILE: &str = "
sources: { near: { memory: { queue: n } } }
sinks: { far: { memory: { queue: f } }, parked: { memory: { queue: p } } }
routes: [{ name: pair, from: near, to: { all: [far] }, dead_letter: parked }]
unmatched: drop
";

    #[test]
    fn a_status_has_the_counts_of_each_part_and_what_is_wrong_with_it() {
        let (health, metrics) = (Arc::new(Health::default()), Metrics::new().unwrap());
        let watch = Watch::new(health.clone(), metrics.clone());
        assert_eq!(watch.now(), None);
        let plan = config::read("f.yaml", FILE, &Environment::default()).unwrap().plan;
        let (_well, no_problem) = tokio::sync::watch::channel(None);
        let (_told, problem) = tokio::sync::watch::channel(Some("away".to_owned()));
        let parts = vec![("source near".to_owned(), no_problem), ("sink far".to_owned(), problem)];
        health.watch(Arc::new(plan), parts);
        let route = metrics.route(&"pair".into(), &"far".into());
        let second = std::time::Duration::from_secs(1);
        (0..98).for_each(|_| route.delivered(10, second / 1_000));
        (0..2).for_each(|_| route.delivered(10, second * 4));
        metrics.route(&"pair".into(), &"".into()).dead_lettered("invalid");
        route.dead_lettered("refused");
        metrics.route(&"other".into(), &"far".into()).delivered(10, second);
        metrics.source(&"near".into()).received(101);
        metrics.sink(&"far".into()).breaker(2);

        let status = watch.now().unwrap();
        assert_eq!(status.problems, ["sink far: away"]);
        assert_eq!((status.sources[0].received, &status.sources[0].problem), (101, &None));
        assert_eq!(status.sources[0].backlog, None, "nobody has told");
        let leg = &status.routes[0].to[0];
        assert_eq!(
            (leg.delivered, leg.p50_seconds, leg.p99_seconds),
            (100, Some(0.001), Some(5.0))
        );
        assert_eq!(status.routes[0].dead_letters, ["parked"]);
        assert_eq!((leg.dead_lettered, status.routes[0].dead_lettered), (1, 2));
        let by = [("invalid".to_owned(), 1), ("refused".to_owned(), 1)];
        assert_eq!(status.routes[0].dead_lettered_by, by.into());
        assert_eq!(status.routes[0].promises[0], "delivery: at least once");
        let far = &status.sinks[0];
        assert_eq!((far.breaker, far.problem.as_deref()), (Breaker::Open, Some("away")));
    }
}
