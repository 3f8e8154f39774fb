//! What the file comes to once it is checked: every name resolved, every bound kept. The pipeline
//! works from this alone and finds nothing wrong in it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Reload, problem::Finding, tree::Path};
use crate::{
    admin::setting::Listener,
    claim::ClaimCheck,
    cloud::Clouds,
    dedup::DedupConfig,
    deliver::{flow::FlowConfig, oversize::Oversize},
    route::{
        Retry,
        choice::{Candidate, Choice},
        rate::{Over, Pace, RateLimitConfig},
        table::{Lane, Rate, Route, Table},
    },
    sink::SinkConfig,
    source::SourceConfig,
    transform::validate::Files,
};

/// A configuration without anything wrong in it. Built by [`super::read`] alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where checkpoints and deduplication keys are kept.
    pub state: State,
    /// Defaults per cloud.
    pub clouds: Clouds,
    /// The listener of the admin API, if there is one.
    pub admin: Option<Box<Listener>>,
    /// Where telemetry is sent, if it is.
    #[cfg(feature = "otlp")]
    pub otlp: Option<crate::telemetry::otlp::Otlp>,
    /// How long a stop may take to finish what is open, and so may a pipeline that is replaced.
    pub grace: Duration,
    /// When the file is read again.
    pub reload: Reload,
    /// Which file this is: the beginning of a digest of it.
    pub generation: Arc<str>,
    /// All settings of the file, with every default filled in; secrets are references.
    pub settings: Arc<Json>,
    /// Sources, in the order of their names. Routes refer to them by index.
    pub sources: Vec<SourcePlan>,
    /// Sinks, in the order of their names. Routes refer to them by index.
    pub sinks: Vec<SinkPlan>,
    /// Routes, in the order of the file.
    pub routes: Vec<RoutePlan>,
    /// The sinks for events that no route takes or that cannot be decoded, in the order in which
    /// they are tried.
    pub dead_letters: Vec<usize>,
    /// What becomes of an event that no route takes.
    pub unmatched: Unmatched,
    /// How many relays an event may have passed, this one included.
    pub hops_max: u8,
    /// Where bodies go that are too large; there is one if a route needs it.
    pub claim_check: Option<ClaimCheck>,
    /// The lanes of every sink, the one of the greatest weight first.
    pub lanes: Arc<[Lane]>,
}

/// A source and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcePlan {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Exactly one kind is given in it.
    pub config: SourceConfig,
}

/// A sink and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkPlan {
    /// Its name in the file.
    pub name: Arc<str>,
    /// How to build it.
    pub config: SinkConfig,
    /// How it is treated, by whichever route.
    pub flow: FlowConfig,
}

/// A way from sources to sinks.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutePlan {
    /// Its name in the file; unique.
    pub name: Arc<str>,
    /// Sources it reads: indices into [`Plan::sources`]; at least one, none twice.
    pub from: Vec<usize>,
    /// Which of their events it takes, and what it does with them. Sinks are indices into
    /// [`Plan::sinks`].
    pub rule: Route<usize>,
    /// Its sinks, each once, and where the file names them first.
    pub sinks: Vec<(usize, Path)>,
    /// The sinks for what cannot be delivered, in the order in which they are tried; none of them
    /// one of its sinks. Without any, such events are returned to their source, again and again.
    pub dead_letters: Vec<usize>,
    /// How often delivery is tried.
    pub retry: Retry,
    /// What becomes of what is too large for a sink.
    pub oversize: Oversize,
    /// How it knows events that it has delivered before, if it does.
    pub dedup: Option<DedupConfig>,
    /// Its rate limit in the file. What holds is the one of its rule.
    pub rate_limit: Option<RateLimitConfig>,
    /// What somebody has [asked for](Plan::limit_route) in place of it.
    pub pace: Option<Pace>,
}

impl Plan {
    /// What becomes of a dead letter that is of no route and too large for its sink.
    #[must_use]
    pub fn oversize(&self) -> Oversize {
        // A store that no route writes into may be one that we can only read.
        match self.routes.iter().any(|route| route.oversize == Oversize::ClaimCheck) {
            true => Oversize::ClaimCheck,
            false => Oversize::DeadLetter,
        }
    }

    /// The sinks that events of a source can reach, dead letters among them. One can come twice.
    pub fn sinks_of(&self, source: usize) -> impl Iterator<Item = usize> + '_ {
        let routes = self.routes.iter().filter(move |route| route.from.contains(&source));
        let routed = routes
            .flat_map(|route| route.sinks.iter().map(|(sink, _)| sink).chain(&route.dead_letters));
        routed.chain(&self.dead_letters).copied()
    }

    /// Whether a source can start: every sink that its events can reach has connected, or one of
    /// those that stand in for one another, as the sinks of `any` and of dead letters do.
    #[must_use]
    pub fn can_start(&self, source: usize, has: impl Fn(usize) -> bool) -> bool {
        let has = |sink: &usize| has(*sink);
        let one = |sinks: &[usize]| sinks.is_empty() || sinks.iter().any(has);
        let can_send = |route: &RoutePlan| match &route.rule.choice {
            Choice::Any(sinks) => one(sinks),
            choice => choice.sinks().all(has),
        };
        let mut routes = self.routes.iter().filter(|route| route.from.contains(&source));
        one(&self.dead_letters) && routes.all(|it| one(&it.dead_letters) && can_send(it))
    }

    /// The first thing of it that needs its state kept, in words.
    #[must_use]
    pub fn needs_state(&self) -> Option<String> {
        let is_log = |it: &&SourcePlan| it.config.kind().is_some_and(|kind| kind.nature().is_log);
        let log = self.sources.iter().find(is_log);
        let log = log.map(|source| format!("source `{}`, with its checkpoints,", source.name));
        let dedup = self.routes.iter().find(|route| route.dedup.is_some());
        log.or_else(|| dedup.map(|route| format!("route `{}`, with its `dedup`,", route.name)))
    }

    /// The files that were read for its routes beside its own, and digests of what they held.
    #[must_use]
    pub fn files(&self) -> Files {
        self.routes.iter().flat_map(|route| route.rule.transform.files()).collect()
    }

    /// Goes on with the rate limits of a plan that ran before: with what has gone, where they are the
    /// same, as pipelines that start anew share them with those that do not; and with those that
    /// somebody has asked for.
    pub fn go_on(&mut self, before: &Self) {
        for route in &mut self.routes {
            let known = before.routes.iter().find(|known| known.name == route.name);
            if let Some(known) = known {
                // Who asked for it meant what waits; it would throw that away now.
                let drops = |it: &RoutePlan| it.rate_limit.is_some_and(|it| it.over == Over::Drop);
                route.pace = known.pace.filter(|_| drops(known) || !drops(route));
                route.limit_by(known.rule.rate.as_ref());
            }
        }
    }

    /// The same with another rate limit of this route: what somebody asks for, or what the file says.
    #[must_use]
    pub fn limit_route(&self, route: usize, pace: Option<Pace>) -> Self {
        let mut plan = self.clone();
        if let Some(route) = plan.routes.get_mut(route) {
            route.pace = pace;
            let running = route.rule.rate.take();
            route.limit_by(running.as_ref());
        }
        plan
    }

    /// The same, to be asked what would become of events: whatever is asked of it does not count in
    /// the rate limits of the one that runs.
    #[must_use]
    pub fn apart(&self) -> Self {
        let mut plan = self.clone();
        for route in &mut plan.routes {
            route.rule.rate = route.rule.rate.as_ref().map(Rate::apart);
        }
        plan
    }

    /// Reads the secrets that the steps of its routes need.
    ///
    /// # Errors
    /// Those that cannot be had, with their paths in the file. Steps that need them fail events.
    pub fn unlock(&mut self) -> Result<(), Vec<Finding>> {
        let mut missing = Vec::new();
        for (index, route) in self.routes.iter_mut().enumerate() {
            let below = |f: Finding| f.below("transform").below_item(index).below("routes");
            missing.extend(route.rule.transform.unlock().into_iter().map(below));
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// The routes that read a source, and what is planned for its events, before anything runs:
    /// every sink is taken to work. The places of the routes in [`Plan::routes`], and the table.
    #[must_use]
    pub fn table(&self, source: usize) -> (Vec<usize>, Table<Named>) {
        let reads = |(_, route): &(usize, &RoutePlan)| route.from.contains(&source);
        let (places, rules): (Vec<_>, Vec<_>) =
            self.routes.iter().enumerate().filter(reads).unzip();
        let mut named =
            |&index: &usize| Some(Named { index, name: self.sinks.get(index)?.name.clone() });
        let rules = rules.into_iter().filter_map(|route| route.rule.try_map(&mut named));
        (places, Table::new(rules.collect(), self.lanes.clone()))
    }
}

/// A sink that is only named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its place in [`Plan::sinks`].
    pub index: usize,
    /// Its name in the file.
    pub name: Arc<str>,
}

impl Candidate for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_well(&self) -> bool {
        true
    }

    fn in_flight(&self) -> usize {
        0
    }

    type Underway = ();

    fn underway(&self) {}
}

impl RoutePlan {
    /// The rate limit that holds.
    #[must_use]
    pub fn limit(&self) -> Option<RateLimitConfig> {
        self.rule.rate.as_ref().map(Rate::config)
    }

    /// Has the limit hold that somebody has asked for, or else that of the file: with what has gone of
    /// the one that runs, where it is the same.
    fn limit_by(&mut self, running: Option<&Rate>) {
        let limit = self.pace.map(|pace| pace.within(self.rate_limit)).or(self.rate_limit);
        let same = running.filter(|it| Some(it.config()) == limit);
        self.rule.rate = same.cloned().or_else(|| limit.map(Rate::new));
    }

    /// Whether it sends anything to the sink of this index.
    #[must_use]
    pub fn sends_to(&self, sink: usize) -> bool {
        self.sinks.iter().any(|(index, _)| *index == sink)
    }
}

/// Where checkpoints and deduplication keys are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum State {
    /// In this process: a restart reads every partition from its start position again.
    Memory,
    /// In a file on this machine's disk, for one replica.
    Embedded {
        /// Directory of the file; made if it is not there.
        path: PathBuf,
    },
    /// In Azure Blob Storage, in the layout that all Azure SDKs share, for many replicas.
    #[cfg(feature = "azure")]
    Blob(crate::state::blob::Config),
    /// In Redis, for many replicas.
    #[cfg(feature = "redis")]
    Redis(crate::state::redis::Config),
}

impl State {
    /// Whether several replicas can share it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Memory | Self::Embedded { .. } => false,
            #[cfg(feature = "azure")]
            Self::Blob(_) => true,
            #[cfg(feature = "redis")]
            Self::Redis(_) => true,
        }
    }

    /// Whether the keys of delivered events can be kept there.
    #[must_use]
    pub fn holds_keys(&self) -> bool {
        match self {
            Self::Memory | Self::Embedded { .. } => true,
            #[cfg(feature = "redis")]
            Self::Redis(_) => true,
            #[cfg(feature = "azure")]
            Self::Blob(_) => false,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Embedded { path: "./data".into() }
    }
}

/// What becomes of an event that no route takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// It goes to the file's `dead_letter` sink.
    #[default]
    DeadLetter,
    /// It is settled and counted as filtered.
    Drop,
}

#[cfg(test)]
mod tests {
    use crate::config::{self, environment::Environment};

    #[test]
    fn a_source_needs_one_of_the_sinks_that_stand_in_for_one_another_and_all_others() {
        let text = "
sources: { one: { memory: { queue: one } }, two: { memory: { queue: two } } }
sinks:
  a: { memory: { queue: a } }
  b: { memory: { queue: b } }
  p: { memory: { queue: p } }
  q: { memory: { queue: q } }
dead_letter: [p, q]
routes:
  - { name: any, from: one, to: { any: [a, b] } }
  - { name: all, from: two, to: { all: [a, b] }, dead_letter: p }
";
        let plan = config::read("f", text, &Environment::default()).unwrap().plan;
        let starts = |connected: &str| {
            let has = |sink: usize| connected.contains(&*plan.sinks[sink].name);
            [0, 1].map(|source| plan.can_start(source, has))
        };
        assert_eq!(starts(""), [false, false]);
        assert_eq!(starts("ab"), [false, false]);
        assert_eq!(starts("bq"), [true, false]);
        assert_eq!(starts("abq"), [true, false]);
        assert_eq!(starts("ap"), [true, false]);
        assert_eq!(starts("abp"), [true, true]);
    }
}
