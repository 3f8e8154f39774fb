//! The ways that entries go back: through the route that gave them up, through all routes of their
//! source, or straight into one sink.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::entry::Entry;
use crate::{
    cloud::Context,
    config::plan::{Plan, RoutePlan, Unmatched},
    daemon::outlets::Outlets,
    dead_letter::DeadLetter,
    decode::Format,
    deliver::{Deliverer, Job, Target, Trail},
    event::Event,
    fault::Fault,
    pipeline::{
        UNDECODABLE,
        routing::{Routing, Work},
    },
    route::{
        When,
        choice::{Candidate, Choice},
        table::{Now, Planned, Send},
    },
    settle::Branch,
    transform::Transform,
};

/// How long a sink may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// A way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Way {
    /// Through the route of this index.
    Route {
        /// Its place in the plan.
        index: usize,
        /// Whether its steps have been applied.
        made: bool,
    },
    /// Through whichever routes of the source of this index want it.
    Source(usize),
    /// Into the sink that was asked for.
    Straight,
}

/// The way of an entry, or why it has none. Asks nobody.
pub(super) fn way(plan: &Plan, to: Option<usize>, entry: &Entry) -> Result<Way, String> {
    if let Some(error) = entry.unreadable {
        return Err(format!("cannot be read: {error}"));
    }
    if to.is_some() {
        return Ok(Way::Straight);
    }
    let Some(record) = &entry.record else {
        return Err("it has no record of ours; name a sink with `--to`".to_owned());
    };
    if let Some(name) = &record.route {
        let index = plan.routes.iter().position(|route| *route.name == **name);
        let gone = || format!("the file has no route `{name}` any more; name a sink with `--to`");
        return Ok(Way::Route { index: index.ok_or_else(gone)?, made: record.part.is_some() });
    }
    let name = &record.source;
    let index = plan.sources.iter().position(|source| *source.name == **name);
    let gone = || format!("the file has no source `{name}` any more; name a sink with `--to`");
    Ok(Way::Source(index.ok_or_else(gone)?))
}

/// The ways of the entries of one dead-letter sink, opened as they are needed.
pub(super) struct Ways {
    plan: Arc<Plan>,
    /// What sinks are built with, but for their names.
    context: Context,
    outlets: Outlets,
    /// The dead-letter sink: what fails again goes back there.
    sink: usize,
    /// Where everything goes, if that was asked for.
    to: Option<usize>,
    open: HashMap<Way, Opened>,
    /// Why sinks could not be connected.
    broken: BTreeMap<usize, String>,
}

enum Opened {
    Routes(Routing),
    Sink(Arc<Target>),
}

impl Ways {
    pub(super) fn new(
        plan: Arc<Plan>,
        context: Context,
        outlets: Outlets,
        sink: usize,
        to: Option<usize>,
    ) -> Self {
        let (open, broken) = (HashMap::new(), BTreeMap::new());
        Self { plan, context, outlets, sink, to, open, broken }
    }

    /// The sinks, to be stopped or used for another dead-letter sink.
    pub(super) fn outlets(&mut self) -> &mut Outlets {
        &mut self.outlets
    }

    /// Gives back what has not begun to be sent.
    pub(super) fn recall(&self) {
        for opened in self.open.values() {
            match opened {
                Opened::Routes(routing) => routing.recall(),
                Opened::Sink(target) => target.recall(),
            }
        }
    }

    /// Lets go of everything but the sinks.
    pub(super) fn into_outlets(self) -> Outlets {
        self.outlets
    }

    /// Connects what a way leads through, unless it has been.
    ///
    /// # Errors
    /// A sink of it cannot be connected; in words.
    pub(super) async fn open(&mut self, way: Way) -> Result<(), String> {
        if self.open.contains_key(&way) {
            return Ok(());
        }
        self.connect(self.sink).await?;
        let opened = match way {
            Way::Straight => {
                let sink = self.to.unwrap_or(self.sink);
                self.connect(sink).await?;
                self.outlets.unrouted(Some(sink), &[self.sink]).map(Opened::Sink)
            }
            Way::Route { index, made } => {
                let route = again(&self.plan.routes[index], made);
                let route = self.reachable(route).await?;
                self.outlets.routing(&[&route], &[self.sink]).map(Opened::Routes)
            }
            Way::Source(source) => {
                let plan = self.plan.clone();
                let mut routes = Vec::new();
                for route in plan.routes.iter().filter(|route| route.from.contains(&source)) {
                    routes.push(self.reachable(route.clone()).await?);
                }
                let routes: Vec<&RoutePlan> = routes.iter().collect();
                let routing = self.outlets.routing(&routes, &[self.sink]);
                // Whoever asks for an entry again does not mean it to vanish.
                let unmatched = Unmatched::DeadLetter;
                routing.map(|routing| Opened::Routes(Routing { unmatched, ..routing }))
            }
        };
        let opened = opened.ok_or_else(|| "one of its sinks is not connected".to_owned())?;
        self.open.insert(way, opened);
        Ok(())
    }

    /// A route whose sinks are connected (of those that stand in for one another, the ones that can
    /// be), and that parks where its entries were found; in its own dead-letter sinks, as far as they
    /// can be connected, if that does not take them.
    async fn reachable(&mut self, mut route: RoutePlan) -> Result<RoutePlan, String> {
        let mut broken = None;
        for (sink, _) in &route.sinks {
            match (self.connect(*sink).await, &mut route.rule.choice) {
                (Ok(()), _) => {}
                (Err(why), Choice::Any(to)) if to.len() > 1 => {
                    to.retain(|other| other != sink);
                    broken = Some(why);
                }
                (Err(why), _) => return Err(broken.unwrap_or(why)),
            }
        }
        let mut dead_letters = vec![self.sink];
        for &sink in &route.dead_letters {
            if sink != self.sink && self.connect(sink).await.is_ok() {
                dead_letters.push(sink);
            }
        }
        Ok(RoutePlan { dead_letters, ..route })
    }

    async fn connect(&mut self, index: usize) -> Result<(), String> {
        if self.outlets.has(index) || self.outlets.borrow(index) {
            return Ok(());
        }
        if let Some(why) = self.broken.get(&index) {
            return Err(why.clone());
        }
        let sink = &self.plan.sinks[index];
        let context = Context { name: sink.name.clone(), ..self.context.clone() };
        let built = timeout(CONNECT_MAX, sink.config.build(&context)).await;
        let built = built.unwrap_or_else(|late| Err(Fault::busy("connect", "timeout", late)));
        match built {
            Ok(sink) => {
                self.outlets.expect(index, &watch::Sender::new(None));
                self.outlets.arrived(index, sink);
                Ok(())
            }
            Err(fault) => {
                let why = format!("sink `{}` cannot be connected: {fault}", sink.name);
                self.broken.insert(index, why.clone());
                Err(why)
            }
        }
    }

    /// The job that parks an entry once more where it was found, behind what has failed since. Some
    /// way is open.
    pub(super) fn park_again(
        &self,
        branch: Branch,
        trail: Trail,
        record: DeadLetter,
    ) -> Option<(Arc<Deliverer>, Job)> {
        let target = self.outlets.unrouted(None, &[self.sink])?;
        target.park_again(branch, trail, record)
    }

    /// The jobs that send an entry its way, which is open. Every branch that there is no job for
    /// has ended.
    pub(super) fn jobs(
        &self,
        way: Way,
        entry: &Entry,
        branch: Branch,
        ordered: bool,
        trail: Trail,
    ) -> Vec<(Arc<Deliverer>, Job)> {
        let routing = match self.open.get(&way) {
            None => return Vec::new(),
            Some(Opened::Sink(target)) => {
                return target.job(&entry.event, branch, ordered, trail).into_iter().collect();
            }
            Some(Opened::Routes(routing)) => routing,
        };
        let now = Now::read();
        let (event, work) = match (way, &entry.record) {
            (Way::Source(source), Some(record)) => {
                self.decoded(source, routing, entry, record, now)
            }
            (_, record) => {
                let refused_by = record.as_ref().and_then(|record| record.sink.as_deref());
                let work = planned(routing, &entry.event, refused_by, now);
                (entry.event.clone(), work)
            }
        };
        let branches = branch.split(u32::try_from(work.len()).unwrap_or(u32::MAX));
        let trail = Trail { original: event, ..trail };
        let jobs = work.into_iter().zip(branches);
        jobs.filter_map(|(work, branch)| routing.job(work, branch, ordered, trail.clone()))
            .collect()
    }

    /// What becomes of an entry that no route has given up: it is new to all routes of its source.
    fn decoded<'r>(
        &self,
        source: usize,
        routing: &'r Routing,
        entry: &Entry,
        record: &DeadLetter,
        now: Now,
    ) -> (Arc<Event>, Vec<Work<'r>>) {
        let format = self.plan.sources.get(source).map_or(Format::Auto, |it| it.config.format);
        let event = match record.class.as_str() {
            UNDECODABLE => match entry.decode_again(record, format) {
                Ok(event) => Arc::new(event),
                Err(error) => {
                    let fault = Fault::reject("decode", UNDECODABLE, error);
                    return (entry.event.clone(), vec![Work::Unrouted(fault)]);
                }
            },
            _ => entry.event.clone(),
        };
        let mut work = Vec::new();
        routing.plan(&event, now, &mut work);
        (event, work)
    }
}

/// A route as a redrive uses it. What it does with an event holds: its steps, its choice of sinks,
/// its retries, its deduplication. Whether and when it takes one does not: it has taken this one.
fn again(route: &RoutePlan, made: bool) -> RoutePlan {
    let mut route = route.clone();
    let rule = &mut route.rule;
    (rule.when, rule.stop) = (When::default(), false);
    (rule.sample, rule.expire, rule.hold, rule.rate) = (None, None, None, None);
    if made {
        // What tells it from others is known, and its route's expression is not for parts.
        (rule.transform, rule.identity) = (Transform::default(), None);
    }
    route
}

/// What becomes of an entry of a route. Where each of several sinks gets every event, and one of
/// them has refused it, it goes to that one alone: the others have it.
fn planned<'r>(
    routing: &'r Routing,
    event: &Arc<Event>,
    refused_by: Option<&str>,
    now: Now,
) -> Vec<Work<'r>> {
    let mut planned: Vec<Planned<'_, _>> = Vec::new();
    routing.table.plan(event, now, &mut planned);
    let to_each = routing.table.routes().iter().all(|route| route.choice.sends_to_each());
    let is_for = |planned: &Planned<'_, Arc<Target>>, sink: &str| match planned {
        Planned::Send(Send { to, .. }) => to.name() == sink,
        _ => false,
    };
    if let Some(sink) = refused_by.filter(|_| to_each)
        && planned.iter().any(|planned| is_for(planned, sink))
    {
        planned.retain(|planned| is_for(planned, sink));
    }
    if planned.is_empty() {
        let fault = Fault::reject("route", "unmatched", "no case of the route takes the event");
        return vec![Work::Unrouted(fault)];
    }
    planned.into_iter().map(Work::Planned).collect()
}
