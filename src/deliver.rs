//! Around any sink: batches, ordering lanes, retry, and the dead letter. All policy about failed
//! sends lives here and nowhere else; connectors only say what a failure means.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    dead_letter::DeadLetter,
    delivery::{Outcome, Received},
    event::Event,
    fault::{Fault, Verdict},
    route::Retry,
    settle::Branch,
    sink::{Order, Outgoing, Sink},
    telemetry::RouteMetrics,
};

pub mod backoff;
mod lane;
pub mod priority;
pub mod queue;
pub mod rate;

use backoff::Backoff;
pub use lane::Lane;
use priority::{Priority, Weights};

/// Batches that wait in a lane's channel before the receiver has to.
const LANE_CHANNEL: usize = 64;

/// A running sink: what routes hand their events to.
pub struct Deliverer {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    lanes: Vec<mpsc::Sender<Vec<Job>>>,
    next: AtomicUsize,
}

/// The name under which events that no route wants, or that cannot be decoded, are counted.
pub const UNROUTED: &str = "unrouted";

/// One route into one sink.
pub struct Target {
    /// Name of the route, or [`UNROUTED`].
    pub route: Arc<str>,
    /// The sink; none for events that no route wants.
    pub deliverer: Option<Arc<Deliverer>>,
    /// Where to park what the sink does not take.
    pub dead_letter: Option<Arc<Deliverer>>,
    /// How to try again.
    pub retry: Retry,
    /// Its counters.
    pub metrics: RouteMetrics,
}

/// One event on its way into one sink.
pub struct Job {
    outgoing: Outgoing,
    duty: Duty,
}

/// What is owed to a job's event, whatever shape it is sent in.
struct Duty {
    branch: Branch,
    target: Arc<Target>,
    /// Whether it must stay in order by its key: where the source has an order and the sink keeps
    /// it.
    ordered: bool,
    purpose: Purpose,
    priority: Priority,
    /// When it may be sent, if not at once.
    not_before: Option<Instant>,
    attempts: u32,
    trail: Trail,
}

/// What a dead letter will have to tell about where an event came from.
#[derive(Debug, Clone)]
pub struct Trail {
    /// The message as received.
    pub received: Arc<Received>,
    /// How often the source had handed it out.
    pub attempt: u32,
    /// When it was received.
    pub first: OffsetDateTime,
}

impl Duty {
    /// Whether events of its key wait until it is parked.
    fn holds_a_key(&self) -> bool {
        matches!(self.purpose, Purpose::Park { hold: Some(_), .. })
    }
}

enum Purpose {
    /// Into the route's sink.
    Deliver,
    /// Into the dead letter, because of this class of cause. Holds the event's key back in its
    /// own lane until it is parked.
    Park { class: &'static str, hold: Option<Hold> },
}

/// Tells a lane, when dropped, that the entry of a key that was parked is done with.
struct Hold {
    key: Arc<str>,
    done: mpsc::UnboundedSender<Arc<str>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The lane may be gone; then nobody waits.
        let _ = self.done.send(self.key.clone());
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
    /// The same in another class than the first.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.duty.priority = priority;
        self
    }

    /// The same, sent at this time at the earliest. Where it is ordered, its key waits with it.
    #[must_use]
    pub fn not_before(mut self, due: Option<Instant>) -> Self {
        self.duty.not_before = due;
        self
    }
}

impl Deliverer {
    /// A deliverer and the lanes that the pipeline must run.
    ///
    /// `weights` are those of the classes that its jobs may have;
    /// `health` is told the sink's standing faults; `stop` makes the lanes give back what they
    /// have not begun to send.
    pub fn new(
        name: Arc<str>,
        sink: Arc<dyn Sink>,
        weights: &Weights,
        batch_sizes: &prometheus::Histogram,
        health: &watch::Sender<Option<String>>,
        stop: &CancellationToken,
    ) -> (Arc<Self>, Vec<Lane>) {
        let count = sink.limits().in_flight.max(1);
        let (lanes, ends): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::channel(LANE_CHANNEL)).unzip();
        let lane = |jobs| {
            let (sink, batch_sizes) = (sink.clone(), batch_sizes.clone());
            let (health, stop) = (health.clone(), stop.clone());
            Lane::new(name.clone(), sink, jobs, weights, batch_sizes, health, stop)
        };
        let runners = ends.into_iter().map(lane).collect();
        (Arc::new(Self { name, sink, lanes, next: AtomicUsize::new(0) }), runners)
    }

    /// Name of the sink.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Hands jobs to the lanes: ordered ones by their key, the others in runs that fill a batch.
    /// Waits while the lanes are full.
    pub async fn dispatch(&self, jobs: Vec<Job>) {
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
    #[expect(clippy::result_large_err, reason = "what comes back is the job itself")]
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
    fn pack(&self, event: &Event) -> Result<crate::metadata::Packed, Fault> {
        let packed = self.sink.pack(event)?;
        let max = self.sink.limits().event_bytes;
        if packed.bytes > max {
            let text = format!("{} bytes as packed, {max} is the limit", packed.bytes);
            return Err(Fault::reject("pack", "too_large", text));
        }
        Ok(packed)
    }
}

impl Target {
    /// A job that carries `event` into this target, or what becomes of an event that it can never
    /// take: the job that parks it, if there is a dead letter. Otherwise the branch is finished.
    pub fn job(
        self: &Arc<Self>,
        event: &Arc<Event>,
        branch: Branch,
        ordered: bool,
        trail: Trail,
    ) -> Option<(Arc<Deliverer>, Job)> {
        let Some(deliverer) = &self.deliverer else {
            let fault = Fault::reject("route", "unmatched", "no route accepts the event");
            return self.park(event, branch, ordered, trail, (0, &fault), None);
        };
        match deliverer.pack(event) {
            Ok(packed) => {
                let outgoing = Outgoing { event: event.clone(), packed };
                let duty = self.duty(deliverer, branch, ordered, trail, Purpose::Deliver);
                Some((deliverer.clone(), Job { outgoing, duty }))
            }
            Err(fault) => self.park(event, branch, ordered, trail, (0, &fault), None),
        }
    }

    /// A job that parks an event because of `fault`, or none: then the branch is finished as
    /// returned, because an event that has nowhere to go stays at its source.
    pub fn reject(
        self: &Arc<Self>,
        event: &Arc<Event>,
        branch: Branch,
        ordered: bool,
        trail: Trail,
        fault: &Fault,
    ) -> Option<(Arc<Deliverer>, Job)> {
        self.park(event, branch, ordered, trail, (0, fault), None)
    }

    fn park(
        self: &Arc<Self>,
        event: &Arc<Event>,
        branch: Branch,
        ordered: bool,
        trail: Trail,
        (attempts, fault): (u32, &Fault),
        hold: Option<Hold>,
    ) -> Option<(Arc<Deliverer>, Job)> {
        let Some(parking) = &self.dead_letter else {
            self.give_back(branch, fault);
            return None;
        };
        let record = DeadLetter {
            route: self.deliverer.as_ref().map(|_| self.route.to_string()),
            sink: self.deliverer.as_ref().map(|sink| sink.name.to_string()),
            class: fault.class.to_owned(),
            error: fault.to_string(),
            attempts,
            received: trail.attempt,
            source: trail.received.origin.source.to_string(),
            resource: trail.received.origin.resource.to_string(),
            position: trail.received.origin.position.to_string(),
            first: trail.first,
            last: OffsetDateTime::now_utc(),
        };
        let event = Arc::new(Event { dead_letter: Some(Arc::new(record)), ..(**event).clone() });
        match parking.pack(&event) {
            Ok(packed) => {
                tracing::warn!(
                    route = %self.route, sink = self.sink(), dead_letter = %parking.name,
                    id = %event.id, class = fault.class, attempts, error = %fault, "dead-lettering"
                );
                let purpose = Purpose::Park { class: fault.class, hold };
                let duty = self.duty(parking, branch, ordered, trail, purpose);
                Some((parking.clone(), Job { outgoing: Outgoing { event, packed }, duty }))
            }
            Err(refused) => {
                self.give_back(branch, &refused);
                None
            }
        }
    }

    fn duty(
        self: &Arc<Self>,
        sink: &Deliverer,
        branch: Branch,
        ordered: bool,
        trail: Trail,
        purpose: Purpose,
    ) -> Duty {
        // Dead letters of a key come one after the other, because its lane waits for each; to order
        // them here as well would let two sinks that park in each other wait for ever.
        let parks = matches!(purpose, Purpose::Park { .. });
        let ordered = ordered && !parks && sink.sink.limits().order != Order::Lost;
        Duty {
            branch,
            target: self.clone(),
            ordered,
            purpose,
            priority: Priority::default(),
            not_before: None,
            attempts: 0,
            trail,
        }
    }

    fn sink(&self) -> &str {
        self.deliverer.as_ref().map_or("", |sink| &sink.name)
    }

    /// Returns an event that neither sink nor dead letter can take. It stays at its source, seen
    /// in the logs and in `returned_total`, until somebody makes room for it.
    fn give_back(&self, branch: Branch, fault: &Fault) {
        tracing::error!(
            route = %self.route, sink = self.sink(), error = %fault,
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
