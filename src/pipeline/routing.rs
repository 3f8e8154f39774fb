//! The routes that read a source, wired to their sinks: what becomes of an event, and the jobs that
//! make it so.

use std::sync::Arc;

use crate::{
    config::plan::Unmatched,
    deliver::{Deliverer, Job, Target, Trail, backoff::Backoff, priority::Priority},
    delivery::Outcome,
    event::Event,
    fault::Fault,
    pipeline::tap::Fate,
    route::table::{Now, Planned, Send, Table},
    settle::Branch,
};

/// Routes and where they lead.
pub struct Routing {
    /// In the order of the file.
    pub table: Table<Arc<Target>>,
    /// For each of these routes: where its events go that fail before a sink is chosen.
    pub failed: Vec<Arc<Target>>,
    /// How many relays an event may have passed, this one included.
    pub hops_max: u8,
    /// What becomes of events that no route accepts.
    pub unmatched: Unmatched,
    /// For messages that cannot be decoded, and for events that run in a loop.
    pub unrouted: Arc<Target>,
}

/// What shall happen with an event, or with a part of it.
pub(crate) enum Work<'a> {
    /// What a route says.
    Planned(Planned<'a, Arc<Target>>),
    /// No route has seen it, or wants it: it is parked.
    Unrouted(Fault),
    /// No route wants it, and it may go.
    Drop,
    /// Its body is in a store that does not answer: its source shall offer it again.
    Return,
}

impl<'a> From<Planned<'a, Arc<Target>>> for Work<'a> {
    fn from(planned: Planned<'a, Arc<Target>>) -> Self {
        Self::Planned(planned)
    }
}

impl Routing {
    /// Adds what shall become of an event: never nothing.
    pub(crate) fn plan<'s>(&'s self, event: &Arc<Event>, now: Now, works: &mut Vec<Work<'s>>) {
        let hops_max = self.hops_max;
        if event.hops >= hops_max {
            let text = format!("it has passed {} relays, and `hops_max` is {hops_max}", event.hops);
            return works.push(Work::Unrouted(Fault::reject("route", "loop", text)));
        }
        let before = works.len();
        self.table.plan(event, now, works);
        if works.len() > before {
            return;
        }
        works.push(match self.unmatched {
            Unmatched::Drop => Work::Drop,
            Unmatched::DeadLetter => {
                let text = "no route accepts the event";
                Work::Unrouted(Fault::reject("route", "unmatched", text))
            }
        });
    }

    /// What `work` says about an event, in names.
    pub(crate) fn fate(&self, work: &[Work<'_>]) -> Fate {
        let mut fate = Fate::default();
        for work in work {
            if let Work::Unrouted(fault) = work {
                fate.unrouted = Some(fault.class);
            }
            let is_new = |route: &&Arc<str>| !fate.taken.contains(*route);
            fate.taken.extend(self.route(work).filter(is_new).cloned());
        }
        fate
    }

    /// The name of the route that some work is of.
    pub(crate) fn route(&self, work: &Work<'_>) -> Option<&Arc<str>> {
        let place = match work {
            Work::Planned(Planned::Send(Send { route, .. })) => *route,
            Work::Planned(Planned::Fail { route, .. } | Planned::Filter { route, .. }) => *route,
            Work::Unrouted(_) | Work::Drop | Work::Return => return None,
        };
        self.failed.get(place).map(|target| target.route())
    }

    /// Gives back to their source the events that are on their way through here, but for those whose
    /// sending has begun.
    pub fn recall(&self) {
        let targets = self.table.routes().iter().flat_map(|route| route.choice.sinks());
        targets.chain(&self.failed).chain([&self.unrouted]).for_each(|target| target.recall());
    }

    /// The job that does some work, and the sink it is for; none where nothing is left to do, and
    /// the branch is finished.
    pub(crate) fn job(
        &self,
        work: Work<'_>,
        branch: Branch,
        ordered: bool,
        trail: Trail,
    ) -> Option<(Arc<Deliverer>, Job)> {
        let Self { failed, unrouted, .. } = self;
        match work {
            Work::Planned(Planned::Send(send)) => {
                let Send {
                    to,
                    event,
                    original,
                    part,
                    lane,
                    not_before,
                    turn,
                    underway,
                    identity,
                    ..
                } = send;
                // What is sent again of a part is that part.
                let part = part.or(trail.part);
                let job = to.job(&event, branch, ordered, Trail { original, part, ..trail });
                // The job counts by itself now.
                drop(underway);
                let priority = Priority(u8::try_from(lane).unwrap_or(u8::MAX));
                job.map(|(sink, job)| {
                    let job = job.with_priority(priority).not_before(not_before).waiting_for(turn);
                    (sink, job.once(identity.as_deref()))
                })
            }
            Work::Planned(Planned::Fail { route, failure, original, part }) => {
                let trail = Trail { original, part: part.or(trail.part), ..trail };
                let fault = Fault::reject("route", failure.class, failure.text);
                failed.get(route).unwrap_or(unrouted).reject(branch, ordered, trail, &fault)
            }
            Work::Planned(Planned::Filter { route, reason }) => {
                if let Some(target) = failed.get(route) {
                    target.metrics.filtered(reason);
                }
                branch.finish(Outcome::Filtered);
                None
            }
            Work::Unrouted(fault) => unrouted.reject(branch, ordered, trail, &fault),
            Work::Drop => {
                branch.finish(Outcome::Filtered);
                None
            }
            Work::Return => {
                branch.finish(Outcome::Returned { after: Some(Backoff::SERVICE.max) });
                None
            }
        }
    }
}

/// Jobs by the sink that they are for.
#[derive(Default)]
pub(crate) struct Jobs {
    by_sink: Vec<(Arc<Deliverer>, Vec<Job>)>,
    /// How many the first sink will get, as a rule.
    usual: usize,
}

impl Jobs {
    /// None yet, of so many events.
    pub(crate) fn of(events: usize) -> Self {
        Self { usual: events, ..Self::default() }
    }

    /// Adds one, behind all others of its sink.
    pub(crate) fn add(&mut self, (deliverer, job): (Arc<Deliverer>, Job)) {
        match self.by_sink.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &deliverer)) {
            Some((_, jobs)) => jobs.push(job),
            None => {
                let mut jobs = Vec::with_capacity(std::mem::take(&mut self.usual));
                jobs.push(job);
                self.by_sink.push((deliverer, jobs));
            }
        }
    }

    /// Hands them to the lanes. Waits while those are full.
    pub(crate) async fn dispatch(self) {
        for (deliverer, jobs) in self.by_sink {
            deliverer.dispatch(jobs).await;
        }
    }
}
