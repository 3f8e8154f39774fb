//! Routes, and the lanes that they name.

use std::{cmp::Reverse, collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

use super::{
    super::{
        BalanceConfig, CaseConfig, RouteConfig, To,
        names::Names,
        plan::RoutePlan,
        problem::{Finding, suggestion},
        tree::{Path, Step},
        units::Span,
    },
    Check, Targets,
};
use crate::{
    dedup::DedupConfig,
    route::{
        Retry,
        choice::{Balance, Case, Choice, Policy},
        lane::{self, LaneConfig},
        pattern::fields::Wanted,
        table::{Lane, Rate, Route},
    },
    source::SourceConfig,
    transform::{Transform, map::Naming},
};

const TRIES: RangeInclusive<u32> = 1..=100;
const WEIGHT: RangeInclusive<u32> = 1..=1000;
/// Stand-ins are remembered by one bit each.
const STAND_INS_MAX: usize = 64;
/// Shorter than a lease, it would forget what comes again.
const KNOWN: RangeInclusive<Span> =
    Span(Duration::from_secs(60))..=Span(Duration::from_secs(30 * 24 * 60 * 60));
/// SQS lets nobody hold a message longer than 12 h:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html>
const BACKOFF: RangeInclusive<Span> =
    Span(Duration::from_millis(1))..=Span(Duration::from_secs(12 * 60 * 60));

/// The sinks of a route, as they are found.
struct Sinks<'a> {
    targets: &'a Targets<'a>,
    seen: Vec<(usize, Path)>,
}

impl Check<'_> {
    pub(super) fn routes(
        &mut self,
        routes: &[RouteConfig],
        targets: &Targets<'_>,
        dead_letters: &[usize],
        lanes: &[Lane],
    ) -> Vec<RoutePlan> {
        let all = Path::default().name("routes");
        if routes.is_empty() {
            self.error(&all, "there is none; without a route nothing is carried");
        }
        let mut seen = BTreeMap::new();
        let mut plans = Vec::new();
        for (path, route) in self.tree.items(&all).iter().zip(routes) {
            let name = path.name("name");
            self.name(&name, &route.name);
            if let Some(first) = seen.insert(route.name.as_str(), path.clone()) {
                let shown = self.shown(&name, &route.name);
                self.error(
                    &name,
                    format!("`{shown}` is the name of {first} too; they must differ"),
                );
            }
            plans.push(self.route(path, route, targets, dead_letters, lanes));
        }
        plans
    }

    fn route(
        &mut self,
        path: &Path,
        route: &RouteConfig,
        targets: &Targets<'_>,
        dead_letters: &[usize],
        lanes: &[Lane],
    ) -> RoutePlan {
        let from_path = path.name("from");
        let names = self.listed(&from_path, &route.from.0);
        let from = self.resolve_all(&from_path, &names, "sources", &targets.sources);
        let from = from.into_iter().map(|(source, _)| source).collect();
        let to_path = path.name("to");
        let mut to = Sinks { targets, seen: Vec::new() };
        let choice = self.choice(&to_path, &route.to, &mut to);
        let sinks = to.seen;
        let when = self.when(&path.name("when"), route.when.as_ref());
        let transform = Transform::compile(&route.transform, self.folder);
        let transform = transform.unwrap_or_else(|findings| {
            // Steps are counted without those that have been struck.
            let steps = self.tree.items(&path.name("transform"));
            for finding in findings {
                let mut further = finding.path.0.iter().cloned();
                let step = match further.next() {
                    Some(Step::Index(index)) => steps.get(index),
                    _ => None,
                };
                let step = step.unwrap_or(path).clone();
                let path = Path(further.collect());
                self.findings(&step, vec![Finding { path, ..finding }]);
            }
            Transform::default()
        });
        self.retry(&path.name("retry"), &route.retry);
        if let Some(rate) = route.rate_limit {
            self.findings(&path.name("rate_limit"), rate.findings());
        }
        let own = path.name("dead_letter");
        let dead_letters = match &route.dead_letter {
            Some(names) => self.dead_letters(&own, Some(names), targets),
            None => dead_letters.to_vec(),
        };
        if let Some((_, place)) = sinks.iter().find(|(sink, _)| dead_letters.contains(sink)) {
            let at = if route.dead_letter.is_some() { &own } else { place };
            self.error(
                at,
                "a route cannot dead-letter to a sink it delivers to; \
                 give it another `dead_letter`",
            );
        }
        let rule = Route {
            when,
            stop: route.stop,
            sample: route.sample,
            expire: route.expire,
            transform,
            choice,
            lane: self.lane(&path.name("lane"), route.lane.as_deref(), lanes),
            hold: route.hold.clone(),
            rate: route.rate_limit.map(Rate::new),
            identity: self.dedup(&path.name("dedup"), route.dedup.as_ref()),
            wanted: Wanted::default(),
        };
        let name = Arc::from(route.name.as_str());
        let (retry, oversize) = (route.retry, route.oversize);
        let dedup = route.dedup.clone();
        let rate_limit = route.rate_limit;
        RoutePlan {
            name,
            from,
            rule,
            sinks,
            dead_letters,
            retry,
            oversize,
            dedup,
            rate_limit,
            pace: None,
        }
    }

    /// The expression that tells one event from another, if there is one.
    fn dedup(&mut self, path: &Path, dedup: Option<&DedupConfig>) -> Option<Naming> {
        let dedup = dedup?;
        self.bound(&path.name("ttl"), dedup.ttl, &KNOWN);
        let compiled = Naming::compile(dedup.key.as_deref()?);
        compiled.map_err(|wrong| self.findings(&path.name("key"), wrong)).ok()
    }

    /// The sinks for what cannot be delivered.
    pub(super) fn dead_letters(
        &mut self,
        path: &Path,
        names: Option<&Names>,
        targets: &Targets<'_>,
    ) -> Vec<usize> {
        let Some(Names(names)) = names else { return Vec::new() };
        if names.len() > STAND_INS_MAX {
            self.error(path, format!("up to {STAND_INS_MAX} sinks can stand in for one another"));
        }
        let names = self.listed(path, names);
        let found = self.resolve_all(path, &names, "sinks", &targets.sinks);
        found.into_iter().map(|(sink, _)| sink).collect()
    }

    fn choice(&mut self, path: &Path, to: &To, sinks: &mut Sinks<'_>) -> Choice<usize> {
        match to {
            To::All(names) => Choice::All(self.to(&path.name("all"), names, sinks)),
            To::Any(names) => {
                let path = path.name("any");
                if names.len() > STAND_INS_MAX {
                    self.error(
                        &path,
                        format!("up to {STAND_INS_MAX} sinks can stand in for one another"),
                    );
                }
                Choice::Any(self.to(&path, names, sinks))
            }
            To::First(cases) => self.cases(&path.name("first"), cases, sinks),
            To::Balance(balance) => {
                Choice::Balance(self.balance(&path.name("balance"), balance, sinks))
            }
        }
    }

    fn cases(&mut self, path: &Path, cases: &[CaseConfig], sinks: &mut Sinks<'_>) -> Choice<usize> {
        if cases.is_empty() {
            self.error(path, "name at least one case, with `when` and `to`");
        }
        let (mut read, mut otherwise) = (Vec::new(), Vec::new());
        let paths = self.tree.items(path);
        for (index, (path, case)) in paths.iter().zip(cases).enumerate() {
            match (&case.when, &case.to, &case.otherwise) {
                (Some(when), Some(to), None) => {
                    let when = self.when(&path.name("when"), Some(when));
                    read.push(Case { when, to: self.to(&path.name("to"), &to.0, sinks) });
                }
                (None, None, Some(names)) => {
                    otherwise = self.to(&path.name("otherwise"), &names.0, sinks);
                    if index + 1 < cases.len() {
                        self.error(path, "`otherwise` takes all events, so that no case after it is ever tried; put it last");
                    }
                }
                _ => self.error(path, "a case has `when` and `to`, or else `otherwise` alone"),
            }
        }
        Choice::First { cases: read, otherwise }
    }

    fn balance(
        &mut self,
        path: &Path,
        balance: &BalanceConfig,
        sinks: &mut Sinks<'_>,
    ) -> Balance<usize> {
        let (name, names, policy) = match balance {
            BalanceConfig::RoundRobin(names) => {
                ("round_robin", names, Policy::weighted(&vec![1; names.len()]))
            }
            BalanceConfig::LeastInFlight(names) => {
                ("least_in_flight", names, Policy::LeastInFlight)
            }
            BalanceConfig::Sticky(names) => ("sticky", names, Policy::Sticky),
            BalanceConfig::Weighted(weights) => {
                let path = path.name("weighted");
                for (name, weight) in weights {
                    self.bound(&path.name(name), *weight, &WEIGHT);
                }
                let bounded = |weight: &u32| *weight.clamp(WEIGHT.start(), WEIGHT.end());
                let policy = Policy::weighted(&weights.values().map(bounded).collect::<Vec<_>>());
                let names: Vec<_> =
                    weights.keys().map(|name| (path.name(name), name.as_str())).collect();
                return Balance::new(policy, self.sinks_named(&path, &names, sinks));
            }
        };
        Balance::new(policy, self.to(&path.name(name), names, sinks))
    }

    /// The sinks that a list at `path` names.
    fn to(&mut self, path: &Path, names: &[String], sinks: &mut Sinks<'_>) -> Vec<usize> {
        self.sinks_named(path, &self.listed(path, names), sinks)
    }

    fn sinks_named(
        &mut self,
        path: &Path,
        names: &[(Path, &str)],
        sinks: &mut Sinks<'_>,
    ) -> Vec<usize> {
        let found = self.resolve_all(path, names, "sinks", &sinks.targets.sinks);
        for (sink, place) in &found {
            if !sinks.seen.iter().any(|(seen, _)| seen == sink) {
                sinks.seen.push((*sink, place.clone()));
            }
        }
        found.into_iter().map(|(sink, _)| sink).collect()
    }

    /// The lanes, the heaviest first.
    pub(super) fn lanes(
        &mut self,
        lanes: Option<BTreeMap<String, LaneConfig>>,
        routes: &[RouteConfig],
    ) -> Vec<Lane> {
        let named = routes.iter().any(|route| route.lane.is_some());
        let lanes = match lanes {
            Some(lanes) => lanes,
            None if named => lane::defaults(),
            None => return Lane::only().to_vec(),
        };
        let path = Path::default().name("lanes");
        self.findings(&path, lane::findings(&lanes));
        let mut all = Vec::new();
        for (name, LaneConfig { weight, when }) in lanes {
            let path = path.name(&name);
            self.name(&path, &name);
            let when = when.as_ref().map(|when| self.when(&path.name("when"), Some(when)));
            all.push(Lane { name: name.into(), weight, when });
        }
        all.sort_by_key(|lane| Reverse(lane.weight));
        if all.is_empty() { Lane::only().to_vec() } else { all }
    }

    /// The place of a route's lane.
    fn lane(&mut self, path: &Path, name: Option<&str>, lanes: &[Lane]) -> Option<usize> {
        let name = name?;
        let place = lanes.iter().position(|lane| *lane.name == *name);
        if place.is_none() {
            let suggestion = suggestion(name, lanes.iter().map(|lane| &*lane.name));
            let name = self.shown(path, name);
            self.error(path, format!("`{name}` is not one of the lanes; {suggestion}"));
        }
        place
    }

    /// No route may keep an event longer than its source lets it be kept.
    pub(super) fn holds(&mut self, sources: &BTreeMap<String, SourceConfig>, routes: &[RoutePlan]) {
        let sources: Vec<_> = sources.iter().collect();
        let paths = self.tree.items(&Path::default().name("routes"));
        for (path, route) in paths.iter().zip(routes) {
            let Some(hold) = &route.rule.hold else { continue };
            let longest = hold.longest();
            for (name, source) in route.from.iter().filter_map(|index| sources.get(*index)) {
                let Some(nature) = source.kind().map(|kind| kind.nature()) else { continue };
                if longest > nature.hold_max {
                    let (longest, most) = (Span(longest), Span(nature.hold_max));
                    self.error(&path.name("hold"), format!(
                        "{longest} is too long: an event of `{name}` can be kept for {most} at most, as it is {}",
                        nature.what
                    ));
                }
            }
        }
    }

    fn retry(&mut self, path: &Path, retry: &Retry) {
        self.bound(&path.name("attempts"), retry.attempts, &TRIES);
        self.bound(&path.name("backoff"), retry.backoff, &BACKOFF);
        self.bound(&path.name("backoff_max"), retry.backoff_max, &BACKOFF);
        if retry.backoff > retry.backoff_max {
            let (backoff, max) = (retry.backoff, retry.backoff_max);
            self.error(&path.name("backoff"), format!(
                "{backoff} is longer than `backoff_max`, which is {max}; raise that or lower this"
            ));
        }
    }
}
