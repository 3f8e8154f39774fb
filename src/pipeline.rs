//! One source wired to its sinks: receive, decode, route, hand to the lanes. Settling comes back
//! through the keeper. The only module, with `daemon`, that spawns tasks.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    decode::{self, Format},
    deliver::{Deliverer, Job, Target, Trail, backoff::Backoff},
    delivery::{Delivery, Outcome},
    event::Event,
    fault::{Fault, Verdict},
    route::{self, When, pattern::fields::Wanted},
    settle::{Branch, Budget, Note, Pending, keeper::Keeper},
    source::{Receive, Source},
    telemetry::SourceMetrics,
};

/// A route as one source sees it.
pub struct Route {
    /// Which events it accepts.
    pub when: When,
    /// Where they go: all of them.
    pub targets: Vec<Arc<Target>>,
}

/// What becomes of an event that no route accepts.
pub enum Unmatched {
    /// It is settled as filtered.
    Drop,
    /// It is parked.
    Park(Arc<Target>),
}

/// One source and everything it needs to run.
pub struct Pipeline {
    /// Name of the source.
    pub name: Arc<str>,
    /// What its messages hold.
    pub format: Format,
    /// The routes that read it, in the order of the file.
    pub routes: Vec<Route>,
    /// For events that no route accepts.
    pub unmatched: Unmatched,
    /// For messages that cannot be decoded.
    pub undecodable: Arc<Target>,
    /// Bounds what is in flight.
    pub budget: Arc<Budget>,
    /// Its counters.
    pub metrics: SourceMetrics,
    /// Told its standing faults.
    pub health: watch::Sender<Option<String>>,
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
        let (notes, told) = mpsc::unbounded_channel();
        let keeper = Keeper::new(
            source.settle,
            source.lease,
            told,
            self.budget.clone(),
            self.metrics.clone(),
        );
        tasks.spawn(keeper.run(ends.finish.clone()));
        let mut wanted = Wanted::default();
        self.routes.iter().for_each(|route| route.when.want(&mut wanted));
        let intake = Intake { pipeline: self, ordered: source.ordered, wanted, notes };
        tasks.spawn(intake.run(source.receive, ends.drain.clone()));
    }
}

/// The receiving task of one source.
struct Intake {
    pipeline: Pipeline,
    ordered: bool,
    /// What its routes look at.
    wanted: Wanted,
    notes: mpsc::UnboundedSender<Note>,
}

impl Intake {
    async fn run(self, mut receive: Box<dyn Receive>, drain: CancellationToken) {
        let mut failures = 0;
        loop {
            let received = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                received = async {
                    self.pipeline.budget.room().await;
                    receive.receive().await
                } => received,
            };
            match received {
                Ok(deliveries) => {
                    self.healthy(&mut failures);
                    self.take(deliveries).await;
                }
                Err(fault) => {
                    failures += 1;
                    let wait = self.unhealthy(&fault, failures);
                    tokio::select! {
                        () = sleep(wait) => {}
                        () = drain.cancelled() => break,
                    }
                }
            }
        }
        self.give_back(receive.close().await);
    }

    fn healthy(&self, failures: &mut u32) {
        if *failures > 0 {
            tracing::info!(source = %self.pipeline.name, "source works again");
            self.pipeline.health.send_replace(None);
        }
        *failures = 0;
    }

    fn unhealthy(&self, fault: &Fault, failures: u32) -> std::time::Duration {
        let Pipeline { name, metrics, health, .. } = &self.pipeline;
        metrics.receive_failed(fault.class);
        let hint = match fault.verdict {
            Verdict::Busy { after } | Verdict::Retry { after } => after,
            Verdict::Stop | Verdict::Reject => {
                health.send_replace(Some(fault.to_string()));
                Some(Backoff::SERVICE.max.min(std::time::Duration::from_secs(5)))
            }
        };
        let wait = Backoff::SERVICE.delay(failures, hint);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(source = %name, wait_ms, error = %fault, "receiving failed, will retry");
        wait
    }

    /// Decodes and routes a batch and hands it to the lanes. No way out of here forgets a
    /// delivery: each is open from the first line, and its branches end it.
    async fn take(&self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let count = deliveries.len();
        let first = OffsetDateTime::now_utc();
        let mut opened = Vec::with_capacity(count);
        let mut jobs = Jobs::default();
        let mut bytes = 0;
        for delivery in deliveries {
            let Delivery { received, attempt, token, since } = delivery;
            let size = received.bytes();
            bytes += size;
            let trail = Trail { received, attempt, first };
            let (event, targets) = self.plan(&trail);
            let branches = u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1);
            let (pending, branches) = Pending::open(token, since, size, branches, &self.notes);
            opened.push(pending);
            jobs.0.push((event, targets, branches, trail));
        }
        self.pipeline.budget.take(count, bytes);
        self.pipeline.metrics.received(count);
        self.pipeline.metrics.in_flight(self.pipeline.budget.in_flight());
        // The keeper must know a delivery before its branches can end it.
        let _ = self.notes.send(Note::Opened(opened));
        self.dispatch(jobs).await;
    }

    /// The event of a message and the targets it goes to.
    fn plan(&self, trail: &Trail) -> (Arc<Event>, Planned<'_>) {
        let Pipeline { format, routes, unmatched, undecodable, .. } = &self.pipeline;
        let event = match decode::decode(&trail.received, *format) {
            Ok(event) => Arc::new(event),
            Err(error) => {
                let event = Arc::new(decode::undecoded(&trail.received));
                return (event, Planned::Undecodable(undecodable, error));
            }
        };
        let fields = route::fields(&event, &self.wanted, OffsetDateTime::now_utc());
        let accepting = routes.iter().filter(|route| route.when.accepts(&fields));
        let targets: Vec<&Arc<Target>> = accepting.flat_map(|route| &route.targets).collect();
        let planned = match unmatched {
            _ if !targets.is_empty() => Planned::Deliver(targets),
            Unmatched::Drop => Planned::Drop,
            Unmatched::Park(target) => Planned::Deliver(vec![target]),
        };
        (event, planned)
    }

    async fn dispatch(&self, jobs: Jobs<'_>) {
        let mut by_sink: Vec<(Arc<Deliverer>, Vec<Job>)> = Vec::new();
        for (event, planned, branches, trail) in jobs.0 {
            let branches = branches.into_iter();
            let mut put = |job: Option<(Arc<Deliverer>, Job)>| {
                let Some((deliverer, job)) = job else { return };
                match by_sink.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &deliverer)) {
                    Some((_, jobs)) => jobs.push(job),
                    None => by_sink.push((deliverer, vec![job])),
                }
            };
            match planned {
                Planned::Drop => {
                    branches.for_each(|branch: Branch| branch.finish(Outcome::Filtered));
                }
                Planned::Undecodable(target, error) => {
                    let fault = Fault::reject("decode", "undecodable", error);
                    for branch in branches {
                        put(target.reject(&event, branch, self.ordered, trail.clone(), &fault));
                    }
                }
                Planned::Deliver(targets) => {
                    for (target, branch) in targets.into_iter().zip(branches) {
                        put(target.job(&event, branch, self.ordered, trail.clone()));
                    }
                }
            }
        }
        for (deliverer, jobs) in by_sink {
            deliverer.dispatch(jobs).await;
        }
    }

    /// What a poll in flight still brought at the end goes back at once.
    fn give_back(&self, deliveries: Vec<Delivery>) {
        self.pipeline.budget.take(deliveries.len(), 0);
        for Delivery { token, since, .. } in deliveries {
            // The branch is dropped, which returns the delivery.
            let (pending, _) = Pending::open(token, since, 0, 1, &self.notes);
            drop(pending);
        }
    }
}

/// What shall happen with an event.
enum Planned<'a> {
    Drop,
    Undecodable(&'a Arc<Target>, decode::DecodeError),
    Deliver(Vec<&'a Arc<Target>>),
}

impl Planned<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Drop | Self::Undecodable(..) => 1,
            Self::Deliver(targets) => targets.len(),
        }
    }
}

/// A batch between opening and dispatch.
#[derive(Default)]
struct Jobs<'a>(Vec<(Arc<Event>, Planned<'a>, Vec<Branch>, Trail)>);
