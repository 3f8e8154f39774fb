//! One source wired to its sinks: receive, decode, route, hand to the lanes. Settling comes back
//! through the keeper. The only module, with `daemon`, that spawns tasks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    decode::{self, Format},
    deliver::{Trail, backoff::Backoff},
    delivery::{Claimed, Delivery, Received},
    event::Event,
    fault::{Fault, Verdict},
    route::table::Now,
    settle::{Branches, Budget, Desk, Opening, keeper::Keeper},
    source::{Hold, Lease, Receive, Settle, Source, earlier},
    telemetry::SourceMetrics,
    trace::Operation,
};

pub mod gate;
pub mod routing;
pub mod tap;

use gate::Gate;
use routing::{Jobs, Routing, Work};
use tap::Taps;

/// One source and everything it needs to run.
pub struct Pipeline {
    /// Name of the source.
    pub name: Arc<str>,
    /// What its messages hold.
    pub format: Format,
    /// The routes that read it.
    pub routing: Arc<Routing>,
    /// Bounds what is in flight.
    pub budget: Arc<Budget>,
    /// Its counters.
    pub metrics: SourceMetrics,
    /// Told its standing faults.
    pub health: watch::Sender<Option<String>>,
    /// Shut while somebody has paused the source.
    pub gate: Gate,
    /// Who looks at what passes.
    pub taps: Arc<Taps>,
}

/// The two signals that end a pipeline.
#[derive(Debug, Clone)]
pub struct Ends {
    /// Stop receiving; what is in flight goes on.
    pub drain: CancellationToken,
    /// Stop settling, once what has ended is settled.
    pub finish: CancellationToken,
}

impl Pipeline {
    /// Spawns the receiving and the settling task of a connected source.
    pub fn spawn(self, source: Source, ends: &Ends, tasks: &mut JoinSet<()>) {
        let room = self.shared_room(&source);
        let Source { receive, settle, ordered, lease, hold } = source;
        let (budget, metrics) = (self.budget.clone(), self.metrics.clone());
        let kept = Kept { settle, lease, hold, budget, metrics };
        let desk = kept.start(&ends.finish, tasks);
        let arrivals = Arrivals::default();
        let intake = Intake { pipeline: self, ordered, desk, room, arrivals };
        tasks.spawn(intake.run(receive, ends.drain.clone()));
    }

    /// The room that sinks share, if there are several and events can go back without harm: a log,
    /// or a queue that keeps an order, hands out in that order alone.
    fn shared_room(&self, source: &Source) -> Option<Arc<Budget>> {
        let targets = self.routing.table.routes().iter().flat_map(|route| route.choice.sinks());
        let sinks: BTreeSet<_> = targets.map(|target| target.sink()).collect();
        let yields = source.lease.is_some() && !source.ordered && sinks.len() > 1;
        yields.then(|| self.budget.clone())
    }

    /// The event of a message. Adds what shall become of it: never nothing.
    fn plan<'s>(&'s self, received: &Received, now: Now, works: &mut Vec<Work<'s>>) -> Arc<Event> {
        let Self { format, routing, .. } = self;
        if received.claimed == Some(Claimed::Away) {
            works.push(Work::Return);
            return Arc::new(decode::undecoded(received));
        }
        match decode::decode(received, *format) {
            Ok(event) => {
                let event = Arc::new(event);
                routing.plan(&event, now, works);
                event
            }
            Err(error) => {
                works.push(Work::Unrouted(Fault::reject("decode", UNDECODABLE, error)));
                Arc::new(decode::undecoded(received))
            }
        }
    }
}

/// The settling half of a source, and what its tasks need beside it.
pub(crate) struct Kept {
    pub(crate) settle: Box<dyn Settle>,
    pub(crate) lease: Option<Lease>,
    pub(crate) hold: Option<Box<dyn Hold>>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: SourceMetrics,
}

impl Kept {
    /// Spawns the settling task, and the one that holds the source's share. Answers the way to the
    /// settling task.
    pub(crate) fn start(self, finish: &CancellationToken, tasks: &mut JoinSet<()>) -> Desk {
        let Self { settle, lease, hold, budget, metrics } = self;
        let (desk, told) = Desk::new(lease.map(|lease| lease.duration));
        let keeper = Keeper::new(settle, lease, told, budget, metrics);
        let (finish, settled) = (finish.clone(), CancellationToken::new());
        if let Some(hold) = hold {
            tasks.spawn(hold.run(settled.clone()));
        }
        tasks.spawn(async move {
            keeper.run(finish).await;
            // Not before the last checkpoint: whoever takes over starts from it.
            settled.cancel();
        });
        desk
    }
}

/// The receiving task of one source.
struct Intake {
    pipeline: Pipeline,
    ordered: bool,
    desk: Desk,
    /// What events leave to others that wait for a sink which does not work.
    room: Option<Arc<Budget>>,
    arrivals: Arrivals,
}

/// The times at which deliveries came: no two of them the same, and in the order of the source,
/// also where the clock is set back meanwhile. A redrive of dead letters goes by them.
#[derive(Debug, Default)]
struct Arrivals(Option<OffsetDateTime>);

impl Arrivals {
    fn next(&mut self, now: OffsetDateTime) -> OffsetDateTime {
        let after = self.0.map(|last| last.saturating_add(time::Duration::nanoseconds(1)));
        *self.0.insert(after.map_or(now, |after| after.max(now)))
    }
}

impl Intake {
    async fn run(mut self, mut receive: Box<dyn Receive>, drain: CancellationToken) {
        let mut failures = 0;
        loop {
            let (received, asked) = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                next = self.next(&mut *receive) => next,
            };
            match received {
                Ok(deliveries) => {
                    self.healthy(&mut failures);
                    if !deliveries.is_empty() {
                        failpoint!(AfterReceive);
                    }
                    self.take(deliveries, asked.elapsed()).await;
                }
                Err(fault) => {
                    failures += 1;
                    let wait = self.unhealthy(&fault, asked.elapsed(), failures);
                    tokio::select! {
                        biased;
                        () = drain.cancelled() => break,
                        () = sleep(wait) => {}
                    }
                }
            }
        }
        self.give_back(receive.close().await);
    }

    /// What the source hands out next, and when it was asked. While it is paused, only what it was
    /// asked for before: leases go on, and nothing is left hidden. Cancel-safe.
    async fn next(&self, receive: &mut dyn Receive) -> (Result<Vec<Delivery>, Fault>, Instant) {
        let Pipeline { name, budget, gate, .. } = &self.pipeline;
        loop {
            if gate.is_shut() {
                let asked = Instant::now();
                if let Some(received) = receive.wind_down().await {
                    return (received, asked);
                }
                tracing::info!(source = %name, "source is paused and at rest");
                gate.opened().await;
                tracing::info!(source = %name, "source is resumed");
            }
            budget.room().await;
            let asked = Instant::now();
            tokio::select! {
                biased;
                () = gate.shut() => {}
                received = receive.receive() => return (received, asked),
            }
        }
    }

    fn healthy(&self, failures: &mut u32) {
        if *failures > 0 {
            tracing::info!(source = %self.pipeline.name, "source works again");
            self.pipeline.health.send_replace(None);
        }
        *failures = 0;
    }

    fn unhealthy(&self, fault: &Fault, took: Duration, failures: u32) -> Duration {
        let Pipeline { name, metrics, health, .. } = &self.pipeline;
        metrics.receive_failed(fault, took);
        let hint = match fault.verdict {
            Verdict::Busy { after } | Verdict::Retry { after } => after,
            Verdict::Stop | Verdict::Reject | Verdict::Behind => {
                health.send_replace(Some(fault.to_string()));
                Some(Backoff::SERVICE.max.min(Duration::from_secs(5)))
            }
        };
        let wait = Backoff::SERVICE.delay(failures, hint);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(source = %name, wait_ms, error = %fault, "receiving failed, will retry");
        wait
    }

    /// Decodes and routes a batch and hands it to the lanes. No way out of here forgets a
    /// delivery: each is open from the first line, and its branches end it. `took` is how long the
    /// source was asked for it.
    async fn take(&mut self, deliveries: Vec<Delivery>, took: Duration) {
        if deliveries.is_empty() {
            return;
        }
        let count = deliveries.len();
        let now = Now::read();
        let tracer = self.pipeline.metrics.tracer();
        let intake = tracer.map(|tracer| tracer.intake(now.time.into()));
        let (mut opened, mut trails) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut works = Vec::with_capacity(count);
        let (mut bytes, mut oldest) = (0, None);
        for delivery in deliveries {
            let Delivery { received, attempt, token, since, ties } = delivery;
            let size = received.bytes();
            bytes += size;
            oldest = earlier(oldest, received.enqueued);
            let before = works.len();
            let event = self.pipeline.plan(&received, now, &mut works);
            if works.len() == before {
                // A branch without work would take that of another delivery.
                works.push(Work::Return);
            }
            let work = works.get(before..).unwrap_or_default();
            let Pipeline { name, taps, routing, .. } = &self.pipeline;
            taps.pass(name, &event, || routing.fate(work));
            let process = intake.as_ref().map(|intake| {
                let routes = work.iter().filter_map(|work| routing.route(work).map(|it| &**it));
                intake.process(&event, &received, attempt, routes)
            });
            let count = u32::try_from(work.len()).unwrap_or(u32::MAX);
            let opening = Opening { token, since, bytes: size, ties, process };
            let (pending, branches) = self.desk.open(opening, count);
            opened.push(pending);
            let arrived = self.arrivals.next(now.time);
            let (part, redriven) = (None, None);
            let trail = Trail { received, attempt, arrived, original: event, part, redriven };
            trails.push((branches, trail));
        }
        self.pipeline.budget.take(count, bytes);
        let traced = opened.iter().filter_map(|pending| pending.span());
        if let Some(span) = self.pipeline.metrics.span(Operation::Receive, count, traced) {
            span.since(took).end(None);
        }
        self.pipeline.metrics.received(count);
        self.pipeline.metrics.in_flight(self.pipeline.budget.in_flight());
        // The keeper must know a delivery before its branches can end it.
        self.desk.opened(opened, oldest);
        self.dispatch(works, trails).await;
    }

    /// Hands to the lanes what shall become of deliveries: as much for each as it has branches.
    async fn dispatch(&self, works: Vec<Work<'_>>, trails: Vec<(Branches, Trail)>) {
        let (mut jobs, mut works) = (Jobs::of(trails.len()), works.into_iter());
        for (branches, trail) in trails {
            // One that goes elsewhere as well would arrive there twice.
            let room = self.room.as_ref().filter(|_| branches.len() == 1);
            let trails = std::iter::repeat_n(trail, branches.len());
            for ((branch, trail), work) in branches.zip(trails).zip(works.by_ref()) {
                let job = self.pipeline.routing.job(work, branch, self.ordered, trail);
                let job = job.map(|(sink, job)| (sink, job.leaves_room_in(room.cloned())));
                job.into_iter().for_each(|job| jobs.add(job));
            }
        }
        jobs.dispatch().await;
    }

    /// What a poll in flight still brought at the end goes back at once.
    fn give_back(&self, deliveries: Vec<Delivery>) {
        self.pipeline.budget.take(deliveries.len(), 0);
        for Delivery { token, since, ties, .. } in deliveries {
            // The branch is dropped, which returns the delivery.
            let _ = self.desk.open(Opening { token, since, bytes: 0, ties, process: None }, 1);
        }
    }
}

/// The class of a message that is not what it claims to be.
pub(crate) const UNDECODABLE: &str = "undecodable";

#[cfg(test)]
pub(crate) mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_in_their_order_though_the_clock_is_set_back() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut arrivals = Arrivals::default();
        let clock = [at(100), at(100), at(40), at(41), at(200), OffsetDateTime::UNIX_EPOCH];
        let times = clock.map(|now| arrivals.next(now));
        assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
        assert_eq!((times[0], times[4]), (at(100), at(200)));
    }
}
