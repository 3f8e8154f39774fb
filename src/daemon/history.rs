//! The last hour of the daemon, in steps of ten seconds, for who looks only now.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::admin::status::{Status, Watch};

/// How long a step is.
const STEP: Duration = Duration::from_secs(10);
/// Steps of an hour.
const STEPS: usize = 360;

/// The steps that are kept.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<Step>>);

/// What has happened in a step.
#[derive(Debug, Clone)]
struct Step {
    /// When it ended, in Unix time.
    at: i64,
    /// Received and backlog.
    sources: BTreeMap<String, (u64, Option<u64>)>,
    /// Delivered, retried and dead-lettered, by route and sink.
    legs: BTreeMap<(String, String), [u64; 3]>,
    /// Dead-lettered, by route and cause.
    parked: BTreeMap<(String, String), u64>,
}

/// The last hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Hour {
    /// When each step ended, in Unix time, the oldest first. All lists that follow have a place for
    /// each of them: nothing where the source, route or sink was not there.
    pub at: Vec<i64>,
    /// Seconds of a step.
    pub step_seconds: u64,
    /// The sources.
    pub sources: Vec<SourceHour>,
    /// The routes into their sinks.
    pub legs: Vec<LegHour>,
    /// What routes have parked, by cause.
    pub parked: Vec<ParkedHour>,
}

/// What a route has parked for one cause in the last hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ParkedHour {
    /// Name of the route.
    pub route: String,
    /// The class of the cause.
    pub class: String,
    /// Events that a dead-letter sink has confirmed in each step.
    pub dead_lettered: Vec<Option<u64>>,
}

/// The last hour of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SourceHour {
    /// Its name.
    pub source: String,
    /// Events received in each step.
    pub received: Vec<Option<u64>>,
    /// Events that waited at the service at the end of each step, where it tells.
    pub backlog: Vec<Option<u64>>,
}

/// The last hour of a route into a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LegHour {
    /// Name of the route.
    pub route: String,
    /// Name of the sink; empty for what was parked before it came to one.
    pub sink: String,
    /// Events that it has confirmed in each step.
    pub delivered: Vec<Option<u64>>,
    /// Failed sends that were tried again.
    pub retried: Vec<Option<u64>>,
    /// Events that a dead-letter sink has confirmed in its place.
    pub dead_lettered: Vec<Option<u64>>,
}

impl History {
    /// Takes a sample at the end of each step, for ever.
    pub(super) async fn run(self: Arc<Self>, watch: Watch) {
        let mut ticks = interval_at(Instant::now() + STEP, STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // All counts begin at nothing.
        let mut before: Option<Status> = None;
        loop {
            ticks.tick().await;
            let Some(now) = watch.now() else { continue };
            self.add(before.as_ref(), &now, OffsetDateTime::now_utc().unix_timestamp());
            before = Some(now);
        }
    }

    fn add(&self, before: Option<&Status>, now: &Status, at: i64) {
        let sources = now.sources.iter().map(|source| {
            let past = before.map(|before| &before.sources).into_iter().flatten();
            let past = past.into_iter().find(|past| past.name == source.name);
            let received = source.received.saturating_sub(past.map_or(0, |past| past.received));
            (source.name.clone(), (received, source.backlog))
        });
        let mut past = before.map(legs).unwrap_or_default();
        let legs = legs(now).into_iter().map(|(edge, mut counts)| {
            let past = past.remove(&edge).unwrap_or_default();
            counts.iter_mut().zip(past).for_each(|(count, past)| *count -= past.min(*count));
            (edge, counts)
        });
        let mut past = before.map(parked).unwrap_or_default();
        let parked = parked(now).into_iter().map(|(of, count)| {
            let before = past.remove(&of).unwrap_or_default();
            (of, count - before.min(count))
        });
        let (sources, legs, parked) = (sources.collect(), legs.collect(), parked.collect());
        let step = Step { at, sources, legs, parked };
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.len() == STEPS {
            steps.pop_front();
        }
        steps.push_back(step);
    }

    /// What is known of the last hour.
    #[must_use]
    pub fn hour(&self) -> Hour {
        let steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sources: BTreeSet<_> = steps.iter().flat_map(|step| step.sources.keys()).collect();
        let sources = sources.into_iter().map(|source| {
            let of = |step: &Step| step.sources.get(source).copied();
            SourceHour {
                source: source.clone(),
                received: steps.iter().map(|step| of(step).map(|it| it.0)).collect(),
                backlog: steps.iter().map(|step| of(step)?.1).collect(),
            }
        });
        let legs: BTreeSet<_> = steps.iter().flat_map(|step| step.legs.keys()).collect();
        let legs = legs.into_iter().map(|edge| {
            let of = |which: usize| {
                steps.iter().map(|step| step.legs.get(edge).map(|counts| counts[which])).collect()
            };
            let (route, sink) = edge.clone();
            let (delivered, retried, dead_lettered) = (of(0), of(1), of(2));
            LegHour { route, sink, delivered, retried, dead_lettered }
        });
        let parked: BTreeSet<_> = steps.iter().flat_map(|step| step.parked.keys()).collect();
        let parked = parked.into_iter().map(|of| {
            let (route, class) = of.clone();
            // Of a cause that has not come up there is no count; of a route, there is one.
            let has = |step: &Step| step.legs.keys().any(|(it, _)| *it == route);
            let count = |step: &Step| step.parked.get(of).copied().or(has(step).then_some(0));
            let dead_lettered = steps.iter().map(count).collect();
            ParkedHour { route, class, dead_lettered }
        });
        Hour {
            parked: parked.collect(),
            at: steps.iter().map(|step| step.at).collect(),
            step_seconds: STEP.as_secs(),
            sources: sources.collect(),
            legs: legs.collect(),
        }
    }
}

fn parked(status: &Status) -> BTreeMap<(String, String), u64> {
    let of_route = |route: &crate::admin::status::RouteStatus| {
        let name = route.name.clone();
        let by = route.dead_lettered_by.clone().into_iter();
        by.map(move |(class, count)| ((name.clone(), class), count))
    };
    status.routes.iter().flat_map(of_route).collect()
}

fn legs(status: &Status) -> BTreeMap<(String, String), [u64; 3]> {
    let of_route = |route: &crate::admin::status::RouteStatus| {
        let name = route.name.clone();
        let to_sinks: u64 = route.to.iter().map(|leg| leg.dead_lettered).sum();
        let before = [0, 0, route.dead_lettered.saturating_sub(to_sinks)];
        let none = ((name.clone(), String::new()), before);
        let legs = route.to.clone().into_iter();
        let legs = legs.map(move |leg| {
            ((name.clone(), leg.sink), [leg.delivered, leg.retried, leg.dead_lettered])
        });
        legs.chain([none])
    };
    status.routes.iter().flat_map(of_route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, environment::Environment},
        daemon::health::Health,
        telemetry::Metrics,
    };

    const FILE: &str = "
sources: { near: { memory: { queue: n } } }
sinks: { far: { memory: { queue: f } } }
routes: [{ name: pair, from: near, to: { all: [far] } }]
unmatched: drop
";

    #[tokio::test(start_paused = true)]
    async fn an_hour_is_told_in_steps() {
        let (health, metrics) = (Arc::new(Health::default()), Metrics::new().unwrap());
        let plan = config::read("f.yaml", FILE, &Environment::default()).unwrap().plan;
        health.watch(Arc::new(plan), Vec::new());
        let (history, watch) = (Arc::new(History::default()), Watch::new(health, metrics.clone()));
        let mut run = std::pin::pin!(history.clone().run(watch));
        let mut advance = async |steps: u32| {
            let _ = tokio::time::timeout(STEP * steps, &mut run).await;
        };
        let second = Duration::from_secs(1);
        let route = metrics.route(&"pair".into(), &"far".into());
        (0..3).for_each(|_| route.delivered(1, second));
        metrics.source(&"near".into()).received(5);
        advance(1).await;
        route.dead_lettered("refused");
        advance(1).await;
        let hour = history.hour();
        let some = |counts: &[u64]| counts.iter().copied().map(Some).collect::<Vec<_>>();
        let (leg, source) = (&hour.legs[1], &hour.sources[0]);
        assert_eq!((&*leg.sink, &*hour.legs[0].sink), ("far", ""));
        let from = leg.delivered.iter().position(|count| *count == Some(3)).unwrap();
        assert_eq!(leg.delivered[from..], some(&[3, 0])[..hour.at.len() - from]);
        assert_eq!(source.received[from], Some(5));
        let parked = &hour.parked[0];
        assert_eq!((&*parked.route, &*parked.class), ("pair", "refused"));
        let counts: Vec<_> = parked.dead_lettered.iter().flatten().collect();
        assert_eq!(counts.into_iter().sum::<u64>(), 1);
        assert_eq!(parked.dead_lettered[from], Some(0), "it came in the step after");
        assert_eq!(source.backlog, vec![None; hour.at.len()]);
        advance(400).await;
        let hour = history.hour();
        assert_eq!((hour.at.len(), hour.legs[1].dead_lettered.len()), (STEPS, STEPS));
        assert!(hour.legs[1].delivered.iter().all(|count| *count == Some(0)), "it has gone by");
    }
}
