//! Around any sink: batches, ordering lanes, retry, and the dead letter. All policy about failed
//! sends lives here and nowhere else; connectors only say what a failure means.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letter::Redriven,
    dedup::{Dedup, OnStoreFailure},
    delivery::{Outcome, Received},
    event::Event,
    fault::{Fault, Verdict},
    route::{Retry, choice::Candidate, part::Part, rate::Turn},
    settle::{Branch, Budget},
    sink::{Order, Outgoing, Sink},
    telemetry::{RouteMetrics, SinkMetrics, Underway},
};

pub mod backoff;
pub mod breaker;
pub mod bucket;
pub mod concurrency;
pub mod flow;
mod lane;
mod once;
pub mod oversize;
mod park;
pub mod priority;
pub mod queue;
mod stand_in;
mod waiting;
mod wellness;

use backoff::Backoff;
use bucket::LimitConfig;
use flow::{Flow, FlowConfig};
pub use lane::Lane;
use once::Once;
use oversize::Oversize;
use priority::{Priority, Weights};
use stand_in::bit;

/// Batches that wait in a lane's channel before the receiver has to.
const LANE_CHANNEL: usize = 64;

/// A running sink: what routes hand their events to.
pub struct Deliverer {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    lanes: Vec<mpsc::Sender<Vec<Job>>>,
    next: AtomicUsize,
    flow: Arc<Flow>,
    /// Tells the lanes that targets have been recalled.
    recalled: watch::Sender<()>,
    /// Tells the lanes that what has failed is to be tried again at once.
    reset: watch::Sender<()>,
}

/// The name under which events that no route wants, or that cannot be decoded, are counted.
pub const UNROUTED: &str = "unrouted";

/// One route into one sink.
pub struct Target {
    /// Name of the route, or [`UNROUTED`].
    pub(crate) route: Arc<str>,
    /// The sink; none for what fails before a sink is chosen.
    deliverer: Option<Arc<Deliverer>>,
    /// Where to park what the sink does not take, in the order in which they are tried.
    dead_letters: Vec<Arc<Deliverer>>,
    /// How to try again.
    retry: Retry,
    /// What becomes of what is too large.
    oversize: Oversize,
    /// How it knows what it has delivered before, if it does.
    dedup: Option<Dedup>,
    /// Its counters.
    pub(crate) metrics: RouteMetrics,
    /// The sinks of the route that stand in for one another, this one among them, in their order;
    /// none where each event has one sink to go to.
    stand_ins: OnceLock<Vec<Weak<Target>>>,
    /// Whether its events go back to their source, unless their sending has begun.
    recalled: AtomicBool,
}

impl Candidate for Arc<Target> {
    fn name(&self) -> &str {
        self.sink()
    }

    fn is_well(&self) -> bool {
        self.deliverer.as_ref().is_some_and(|sink| sink.flow.wellness.is_well())
    }

    fn in_flight(&self) -> usize {
        self.metrics.in_flight()
    }

    type Underway = Underway;

    fn underway(&self) -> Underway {
        self.metrics.underway()
    }
}

/// One event on its way into one sink.
pub struct Job {
    outgoing: Outgoing,
    /// Jobs are handed on often; what they weigh then is this pointer.
    duty: Box<Duty>,
}

/// What is owed to a job's event, whatever shape it is sent in.
struct Duty {
    branch: Branch,
    target: Arc<Target>,
    /// Whether it must stay in order by its key: where the source has an order and the sink keeps
    /// it.
    ordered: bool,
    purpose: Purpose,
    /// Holds the event's key back in the lane that it was in before, until it is done with.
    hold: Option<Hold>,
    priority: Priority,
    /// When it may be sent, if not at once.
    not_before: Option<Instant>,
    /// What it has booked for that.
    turn: Option<Arc<Turn>>,
    attempts: u32,
    once: Once,
    /// The stand-ins, or the dead-letter sinks, that have refused it: one bit for each.
    refused: u64,
    /// The dead-letter sinks where its attempts have come to nothing.
    tired: u64,
    trail: Trail,
    /// Where it takes room that others may need; none if it must wait where it is.
    room: Option<Arc<Budget>>,
    /// It counts as under way for as long as this is here.
    loaded: Underway,
}

/// What a dead letter will have to tell about where an event came from.
#[derive(Debug, Clone)]
pub struct Trail {
    /// The message as received.
    pub received: Arc<Received>,
    /// How often the source had handed it out.
    pub attempt: u32,
    /// When it was received; in the order of the source, no two at the same time.
    pub arrived: OffsetDateTime,
    /// What a dead letter holds: the event before any step, or the part of it that a step made.
    pub original: Arc<Event>,
    /// Which part that is, if it is one.
    pub part: Option<Part>,
    /// The dead letter that it was, if it is redriven.
    pub redriven: Option<Arc<Redriven>>,
}

enum Purpose {
    /// Into the route's sink.
    Deliver,
    /// Into the dead letter, because of this class of cause; `again` where all that could hold it have
    /// refused it once.
    Park { class: &'static str, again: bool },
}

/// Tells a lane, when dropped, that the entry of a key that has left it is done with.
struct Hold {
    key: Arc<str>,
    done: Option<mpsc::UnboundedSender<Arc<str>>>,
}

impl Hold {
    /// Drops it without a word.
    fn forget(mut self) {
        self.done = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(done) = &self.done {
            // The lane may be gone; then nobody waits.
            let _ = done.send(self.key.clone());
        }
    }
}

impl queue::Entry for Job {
    fn order(&self) -> Option<&Arc<str>> {
        self.outgoing.event.key.as_ref().filter(|_| self.duty.ordered)
    }

    fn bytes(&self) -> usize {
        self.outgoing.packed.bytes
    }

    fn priority(&self) -> Priority {
        self.duty.priority
    }

    fn not_before(&self) -> Option<Instant> {
        self.duty.not_before
    }
}

impl Job {
    /// Whether it comes again in any case, so that sending it now would only duplicate it.
    fn is_lost(&self) -> bool {
        self.duty.branch.is_lost() || self.duty.target.is_recalled()
    }

    /// The same in another class than the first.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.duty.priority = priority;
        self
    }

    /// The same, unless its route has delivered it before; `identity` is what the route's own
    /// expression has made of it.
    #[must_use]
    pub fn once(mut self, identity: Option<&str>) -> Self {
        if let (Some(dedup), Purpose::Deliver) = (&self.duty.target.dedup, &self.duty.purpose) {
            let Trail { original, part, .. } = &self.duty.trail;
            let key = dedup.key(original, identity, part.as_ref());
            self.duty.once = Once::wanted(key);
        }
        self
    }

    /// The same, sent at this time at the earliest. Where it is ordered, its key waits with it.
    #[must_use]
    pub fn not_before(mut self, due: Option<Instant>) -> Self {
        self.duty.not_before = due;
        self
    }

    /// The same; where it goes back to its source before its turn, that is another's.
    #[must_use]
    pub fn waiting_for(mut self, turn: Option<Arc<Turn>>) -> Self {
        self.duty.turn = turn;
        self
    }
}

impl Deliverer {
    /// A deliverer and the lanes that the pipeline must run.
    ///
    /// `weights` are those of the classes that its jobs may have; `flow` says how the sink is
    /// treated, by whichever route;
    /// `health` is told the sink's standing faults; `stop` makes the lanes give back what they
    /// have not begun to send.
    pub fn new(
        name: Arc<str>,
        sink: Arc<dyn Sink>,
        weights: &Weights,
        flow: FlowConfig,
        metrics: &SinkMetrics,
        health: &watch::Sender<Option<String>>,
        stop: &CancellationToken,
    ) -> (Arc<Self>, Vec<Lane>) {
        let flow = Arc::new(Flow::new(name.clone(), flow, &sink.limits(), metrics.clone()));
        let (lanes, ends): (Vec<_>, Vec<_>) =
            (0..flow.lanes()).map(|_| mpsc::channel(LANE_CHANNEL)).unzip();
        let (recalled, recalls) = watch::channel(());
        let (reset, resets) = watch::channel(());
        let lane = |jobs| {
            Lane::new(lane::Parts {
                name: name.clone(),
                sink: sink.clone(),
                jobs,
                weights: weights.clone(),
                flow: flow.clone(),
                metrics: metrics.clone(),
                health: health.clone(),
                recalled: recalls.clone(),
                reset: resets.clone(),
                stop: stop.clone(),
            })
        };
        let runners = ends.into_iter().map(lane).collect();
        let next = AtomicUsize::new(0);
        (Arc::new(Self { name, sink, lanes, next, flow, recalled, reset }), runners)
    }

    /// The sink has not connected yet: what it is given waits, or goes to a stand-in, as if its
    /// service were down, until it has [arrived](Self::arrived).
    pub fn absent(&self) {
        self.flow.absent();
    }

    /// The sink has connected.
    pub fn arrived(&self) {
        self.flow.arrived();
    }

    /// Sends no more than this in a second from now on, whatever it was made with.
    pub fn limit(&self, limit: LimitConfig) {
        self.flow.limit(limit);
    }

    /// Leaves the sink alone until it is [reset](Self::reset): its events wait, or go to a
    /// stand-in, and none of their attempts is used up.
    pub fn hold(&self) {
        self.flow.hold();
    }

    /// Sends again, whatever the sink has said, and first what has failed there.
    pub fn reset(&self) {
        self.flow.reset();
        self.reset.send_replace(());
    }

    /// Name of the sink.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Hands jobs to the lanes: ordered ones by their key, the others in runs that fill a batch.
    /// Waits while the lanes are full.
    pub async fn dispatch(&self, jobs: Vec<Job>) {
        if let [lane] = &self.lanes[..] {
            // As below.
            let _ = lane.send(jobs).await;
            return;
        }
        let run_max = self.sink.limits().events.max(1);
        let mut by_lane: Vec<Vec<Job>> = (0..self.lanes.len()).map(|_| Vec::new()).collect();
        let (mut lane, mut run) = (self.next.load(Ordering::Relaxed), 0);
        for job in jobs {
            if let Some(lane) = self.lane_of(&job) {
                by_lane[lane].push(job);
                continue;
            }
            if run == run_max {
                (lane, run) = (lane.wrapping_add(1), 0);
            }
            run += 1;
            by_lane[lane % self.lanes.len()].push(job);
        }
        self.next.store(lane.wrapping_add(1), Ordering::Relaxed);
        for (lane, jobs) in self.lanes.iter().zip(by_lane) {
            if !jobs.is_empty() {
                // A closed lane means a forced end: the dropped branches return their deliveries.
                let _ = lane.send(jobs).await;
            }
        }
    }

    /// The lane of an ordered job.
    fn lane_of(&self, job: &Job) -> Option<usize> {
        let key = queue::Entry::order(job)?;
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let lanes = self.lanes.len() as u64;
        usize::try_from(hasher.finish() % lanes).ok()
    }

    /// Hands one job over without waiting; gives it back if its lane is full.
    fn try_dispatch(&self, job: Job) -> Result<(), Job> {
        let lane = self
            .lane_of(&job)
            .unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len());
        self.lanes[lane].try_send(vec![job]).map_err(|error| {
            let (mpsc::error::TrySendError::Full(mut jobs)
            | mpsc::error::TrySendError::Closed(mut jobs)) = error;
            jobs.swap_remove(0)
        })
    }

    /// Packs an event for this sink and checks that it can ever hold it.
    fn pack(
        &self,
        route: &Arc<str>,
        event: &Arc<Event>,
        oversize: Oversize,
    ) -> Result<Outgoing, Fault> {
        oversize::fit(&*self.sink, route, event, oversize)
    }
}

impl Target {
    /// One that nothing is under way to, and that nobody stands in for.
    #[must_use]
    pub fn new(
        route: Arc<str>,
        deliverer: Option<Arc<Deliverer>>,
        dead_letters: Vec<Arc<Deliverer>>,
        retry: Retry,
        oversize: Oversize,
        metrics: RouteMetrics,
    ) -> Self {
        let stand_ins = OnceLock::new();
        Self {
            route,
            deliverer,
            dead_letters,
            retry,
            oversize,
            dedup: None,
            metrics,
            stand_ins,
            recalled: AtomicBool::new(false),
        }
    }

    /// Gives its events back to their source, but for those whose sending has begun: its pipeline
    /// ends, and sinks that it shares with others may not work for long.
    pub fn recall(&self) {
        self.recalled.store(true, Ordering::Release);
        for sink in self.deliverer.iter().chain(&self.dead_letters) {
            sink.recalled.send_replace(());
        }
    }

    fn is_recalled(&self) -> bool {
        self.recalled.load(Ordering::Acquire)
    }

    /// The same, which delivers an event once.
    #[must_use]
    pub fn with_dedup(self, dedup: Option<Dedup>) -> Self {
        Self { dedup, ..self }
    }

    /// A job that carries `event` into this target, or what becomes of an event that it can never
    /// take: a job for a stand-in, or the job that parks it. Otherwise the branch is finished.
    pub fn job(
        self: &Arc<Self>,
        event: &Arc<Event>,
        branch: Branch,
        ordered: bool,
        trail: Trail,
    ) -> Option<(Arc<Deliverer>, Job)> {
        let fault = match self.pack(event, &trail) {
            Ok((deliverer, outgoing)) => {
                let duty = self.duty(&deliverer, branch, ordered, trail, Purpose::Deliver);
                return Some((deliverer, Job { outgoing, duty }));
            }
            Err(fault) => fault,
        };
        self.metrics.failed(&fault, event);
        let duty = self.duty_of_none(branch, ordered, trail);
        self.elsewhere(event, duty, &fault)
    }

    /// A job that parks an event because of `fault`, or none: then the branch is finished as
    /// returned, because an event that has nowhere to go stays at its source.
    pub fn reject(
        self: &Arc<Self>,
        branch: Branch,
        ordered: bool,
        trail: Trail,
        fault: &Fault,
    ) -> Option<(Arc<Deliverer>, Job)> {
        self.metrics.failed(fault, &trail.original);
        let duty = self.duty_of_none(branch, ordered, trail);
        self.park(duty, fault)
    }

    fn pack(&self, event: &Arc<Event>, trail: &Trail) -> Result<(Arc<Deliverer>, Outgoing), Fault> {
        let Some(deliverer) = &self.deliverer else {
            return Err(Fault::reject("route", "unmatched", "no route accepts the event"));
        };
        Ok((deliverer.clone(), deliverer.pack(&self.sender(trail), event, self.oversize)?))
    }

    /// The route that sends an event: where a dead letter goes straight into a sink, the one that
    /// gave it up.
    fn sender(&self, trail: &Trail) -> Arc<str> {
        let record = trail.redriven.as_ref().and_then(|redriven| redriven.record.as_ref());
        let gave_up = record.and_then(|record| record.route.as_deref());
        match gave_up.filter(|_| *self.route == *UNROUTED) {
            Some(route) => route.into(),
            None => self.route.clone(),
        }
    }

    fn duty(
        self: &Arc<Self>,
        sink: &Deliverer,
        branch: Branch,
        ordered: bool,
        trail: Trail,
        purpose: Purpose,
    ) -> Box<Duty> {
        let ordered = ordered && sink.sink.limits().order != Order::Lost;
        let mut duty = self.duty_of_none(branch, ordered, trail);
        duty.purpose = purpose;
        duty
    }

    /// What is owed to an event that no sink has been tried for.
    fn duty_of_none(self: &Arc<Self>, branch: Branch, ordered: bool, trail: Trail) -> Box<Duty> {
        Box::new(Duty {
            branch,
            target: self.clone(),
            ordered,
            purpose: Purpose::Deliver,
            priority: Priority::default(),
            not_before: None,
            turn: None,
            hold: None,
            attempts: 0,
            once: Once::Unasked,
            refused: 0,
            tired: 0,
            trail,
            room: None,
            loaded: self.metrics.underway(),
        })
    }

    /// Whether its events go out while nobody can say whether they went before.
    fn delivers_unasked(&self) -> bool {
        let rule = self.dedup.as_ref().map(|dedup| dedup.on_store_failure);
        rule.is_none_or(|rule| rule == OnStoreFailure::Deliver)
    }

    /// Name of the route, or [`UNROUTED`].
    pub(crate) fn route(&self) -> &Arc<str> {
        &self.route
    }

    /// Name of the sink; empty where there is none.
    #[must_use]
    pub(crate) fn sink(&self) -> &str {
        self.deliverer.as_ref().map_or("", |sink| &sink.name)
    }

    /// Returns an event that neither sink nor dead letter can take. It stays at its source, seen
    /// in the logs and in `returned_total`, until somebody makes room for it.
    fn give_back(&self, branch: Branch, fault: &Fault) {
        let traceparent = branch.failed_span().map(tracing::field::display);
        tracing::error!(
            route = %self.route, sink = self.sink(), error = %fault, traceparent,
            "event has nowhere to go and stays at its source; give the route a dead_letter that can hold it"
        );
        self.metrics.returned(fault.class);
        branch.finish(Outcome::Returned { after: Some(*self.retry.backoff_max) });
    }
}

/// Whether a fault counts as one of an event's attempts.
fn counts(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Retry { .. } | Verdict::Reject)
}
