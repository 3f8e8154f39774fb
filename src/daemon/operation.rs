//! What somebody may ask of a daemon that runs: to pause and resume, to slow a sink down or leave it
//! alone, to go back in a log, to end. None of it is in the file, so a restart forgets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};

use super::{Daemon, reload::Prepared};
use crate::{
    cloud::Context,
    config::difference::Difference,
    deliver::bucket::LimitConfig,
    fault::Fault,
    route::rate::{Pace, RateLimitConfig},
    source::{
        SourceConfig,
        positions::{Rewind, Rewound},
    },
};

/// Requests that wait for their turn.
const REQUESTS_MAX: usize = 8;

/// What is asked, and whom to tell what became of it; nobody may wait any more.
pub enum Operation {
    /// Receive nothing more of a source, or go on. Answers the sources that this is about, and
    /// whether they were paused before.
    Pause(Pausing, Answer<BTreeMap<Arc<str>, bool>>),
    /// Send no more than this in a second to the sink of this name; none for what the file says.
    /// Answers what has held before, and what holds now.
    Limit(Arc<str>, Option<LimitConfig>, Answer<(LimitConfig, LimitConfig)>),
    /// Pass on no more than this through the route of this name; none for what the file says. Answers
    /// what has held before, and what holds now.
    LimitRoute(Arc<str>, Option<Pace>, Answer<(Option<RateLimitConfig>, Option<RateLimitConfig>)>),
    /// Leave the sink of this name alone until this is asked for with `false`. Answers whether it
    /// was left alone before.
    Hold(Arc<str>, bool, Answer<bool>),
    /// What to look at sources with: name, settings, and what to build them with.
    Sources(Answer<Vec<(SourceConfig, Context)>>),
    /// Go back in the source of this name: its pipeline ends, and starts anew from there.
    Rewind(Arc<str>, Rewind, Answer<Vec<Rewound>>),
    /// End, as SIGTERM does.
    Drain(Answer<()>),
}

/// To pause or to resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pausing {
    /// What.
    pub what: Paused,
    /// Whether nothing is to be received; otherwise it goes on.
    pub paused: bool,
}

/// What can be paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paused {
    /// The source of this name.
    Source(Arc<str>),
    /// All sources of the route of this name. A source hands out to all of its routes alike: where
    /// others read them as well, only if this is wanted.
    Route {
        /// Its name.
        name: Arc<str>,
        /// Whether other routes may be stopped with it.
        with_others: bool,
    },
}

/// Tells what became of an [`Operation`].
pub type Answer<T> = oneshot::Sender<Result<T, Refused>>;

/// Why something was not done. Nothing has changed, unless it says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing has this name.
    #[error("the configuration that runs has no {kind} `{name}`")]
    Unknown {
        /// What it was taken for.
        kind: &'static str,
        /// As it was given.
        name: Arc<str>,
    },
    /// It cannot mean what was wanted.
    #[error("{0}")]
    Invalid(String),
    /// It cannot be done as things are.
    #[error("{0}")]
    Conflict(String),
    /// A service or a store does not answer as it should.
    #[error("{0}")]
    Unusable(String),
    /// The daemon is ending.
    #[error("the daemon is ending")]
    Ending,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Unusable(fault.to_string())
    }
}

/// The way to ask a daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Operations(mpsc::Sender<Operation>);

impl Operations {
    /// Both ends of the way.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Operation>) {
        let (ask, asked) = mpsc::channel(REQUESTS_MAX);
        (Self(ask), asked)
    }

    /// Asks, and waits for what became of it.
    ///
    /// # Errors
    /// It was not done.
    pub async fn ask<T>(
        &self,
        operation: impl FnOnce(Answer<T>) -> Operation,
    ) -> Result<T, Refused> {
        let (answer, answered) = oneshot::channel();
        self.0.send(operation(answer)).await.map_err(|_| Refused::Ending)?;
        answered.await.unwrap_or(Err(Refused::Ending))
    }
}

/// What differs from the file because somebody has asked for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Sources that receive nothing.
    pub paused: BTreeSet<Arc<str>>,
    /// Limits of sinks.
    pub limits: BTreeMap<Arc<str>, LimitConfig>,
    /// Sinks that are left alone.
    pub held: BTreeSet<Arc<str>>,
}

impl Daemon {
    /// Does what is asked. Answers whether the daemon is to end.
    pub(super) fn operate(&mut self, operation: Operation) -> bool {
        // Who asked may have left.
        match operation {
            Operation::Pause(pausing, answer) => drop(answer.send(self.pause(&pausing))),
            Operation::Limit(sink, limit, answer) => drop(answer.send(self.limit(&sink, limit))),
            Operation::LimitRoute(route, pace, answer) => {
                drop(answer.send(self.limit_route(&route, pace)));
            }
            Operation::Hold(sink, held, answer) => drop(answer.send(self.hold(&sink, held))),
            Operation::Sources(answer) => {
                let sources = self.plan.sources.iter();
                let sources = sources.map(|it| (it.config.clone(), self.context(&it.name)));
                drop(answer.send(Ok(sources.collect())));
            }
            Operation::Rewind(source, rewind, answer) => self.rewind(&source, rewind, answer),
            Operation::Drain(answer) => {
                tracing::info!("asked to end");
                drop(answer.send(Ok(())));
                return true;
            }
        }
        self.tell_overrides();
        false
    }

    fn pause(
        &mut self,
        Pausing { what, paused }: &Pausing,
    ) -> Result<BTreeMap<Arc<str>, bool>, Refused> {
        let sources = match what {
            Paused::Source(name) => self.source(name)?,
            Paused::Route { name, with_others } => {
                self.sources_of(name, *with_others, if *paused { "pause" } else { "resume" })?
            }
        };
        let mut were = BTreeMap::new();
        for index in sources {
            let name = self.plan.sources[index].name.clone();
            let Some(part) = self.sources.get(&name) else { continue };
            let was = part.paused.send_replace(*paused);
            if was != *paused {
                tracing::info!(source = %name, paused, "asked to pause or to resume a source");
            }
            self.metrics.source(&name).paused(*paused);
            were.insert(name, was);
        }
        Ok(were)
    }

    fn source(&self, name: &Arc<str>) -> Result<BTreeSet<usize>, Refused> {
        let index = self.plan.sources.iter().position(|source| source.name == *name);
        let unknown = || Refused::Unknown { kind: "source", name: name.clone() };
        Ok(BTreeSet::from([index.ok_or_else(unknown)?]))
    }

    /// The sources of a route.
    fn sources_of(
        &self,
        name: &Arc<str>,
        with_others: bool,
        verb: &str,
    ) -> Result<BTreeSet<usize>, Refused> {
        let route = self.plan.routes.iter().find(|route| route.name == *name);
        let unknown = || Refused::Unknown { kind: "route", name: name.clone() };
        let from = &route.ok_or_else(unknown)?.from;
        let shares = |source: &&usize| from.contains(source);
        let others = self.plan.routes.iter().filter(|other| other.name != *name);
        let others = others.filter(|other| other.from.iter().any(|source| shares(&source)));
        let others: Vec<_> = others.map(|other| format!("`{}`", other.name)).collect();
        if !others.is_empty() && !with_others {
            return Err(Refused::Conflict(format!(
                "a source hands out to all of its routes alike, and those of `{name}` are also \
                 read by {}; say `with_others: true` to {verb} these as well",
                others.join(", ")
            )));
        }
        Ok(from.iter().copied().collect())
    }

    fn limit(
        &mut self,
        name: &Arc<str>,
        limit: Option<LimitConfig>,
    ) -> Result<(LimitConfig, LimitConfig), Refused> {
        let index = self.sink(name)?;
        let of_file = self.plan.sinks[index].flow.limit;
        let held = self.sinks.get(name).and_then(|part| part.limit).unwrap_or(of_file);
        let holds = limit.unwrap_or(of_file);
        if let Some(finding) = holds.findings().first() {
            return Err(Refused::Invalid(format!("{}: {finding}", finding.path)));
        }
        if let Some(part) = self.sinks.get_mut(name) {
            part.limit = limit;
        }
        if let Some(deliverer) = self.outlets.expected(index) {
            deliverer.limit(holds);
        }
        let in_words = holds.in_words().unwrap_or_else(|| "none".to_owned());
        tracing::info!(sink = %name, limit = in_words, "asked for another limit of a sink");
        Ok((held, holds))
    }

    /// What waits for its place has one by the limit that held, so that the sources of the route start
    /// anew, as they do where the file has another limit.
    fn limit_route(
        &mut self,
        name: &Arc<str>,
        pace: Option<Pace>,
    ) -> Result<(Option<RateLimitConfig>, Option<RateLimitConfig>), Refused> {
        let index = self.plan.routes.iter().position(|route| route.name == *name);
        let index = index.ok_or_else(|| Refused::Unknown { kind: "route", name: name.clone() })?;
        let asked = pace.map(|pace| pace.within(None).findings());
        if let Some(finding) = asked.and_then(|findings| findings.into_iter().next()) {
            return Err(Refused::Invalid(format!("{}: {finding}", finding.path)));
        }
        // It has been compared with what runs now.
        if !self.preparing.is_empty() {
            let text = "another configuration is being taken up; ask again when it has been";
            return Err(Refused::Conflict(text.to_owned()));
        }
        let plan = self.plan.limit_route(index, pace);
        let difference = Difference::between(&self.plan, &plan)
            .map_err(|needs_restart| Refused::Conflict(needs_restart.to_string()))?;
        let held = self.plan.routes[index].limit();
        let holds = plan.routes[index].limit();
        let claims = self.claims.clone();
        self.swap(Prepared { plan, difference, sinks: Vec::new(), claims });
        let in_words = holds.map_or_else(|| "none".to_owned(), |it| it.in_words());
        tracing::info!(route = %name, limit = in_words, "asked for another rate limit of a route");
        Ok((held, holds))
    }

    fn hold(&mut self, name: &Arc<str>, held: bool) -> Result<bool, Refused> {
        let index = self.sink(name)?;
        let part = self.sinks.get_mut(name);
        let was = part.is_some_and(|part| std::mem::replace(&mut part.is_held, held));
        if let Some(deliverer) = self.outlets.expected(index) {
            if held {
                deliverer.hold();
            } else {
                deliverer.reset();
            }
        }
        tracing::info!(sink = %name, held, "asked to leave a sink alone, or to send to it again");
        Ok(was)
    }

    fn sink(&self, name: &Arc<str>) -> Result<usize, Refused> {
        self.place(name).ok_or_else(|| Refused::Unknown { kind: "sink", name: name.clone() })
    }

    /// Lets the admin API tell what differs from the file.
    pub(super) fn tell_overrides(&self) {
        let paused = self.sources.iter().filter(|(_, part)| *part.paused.borrow());
        let limits = self.sinks.iter();
        let limits = limits.filter_map(|(name, part)| Some((name.clone(), part.limit?)));
        let held = self.sinks.iter().filter(|(_, part)| part.is_held);
        self.health.overrule(Overrides {
            paused: paused.map(|(name, _)| name.clone()).collect(),
            limits: limits.collect(),
            held: held.map(|(name, _)| name.clone()).collect(),
        });
    }
}
