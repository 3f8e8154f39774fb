//! One source wired to its sinks: receive, decode, route, hand to the lanes. Settling comes back
//! through the keeper. The only module, with `daemon`, that spawns tasks.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::plan::Unmatched,
    decode::{self, Format},
    deliver::{Deliverer, Job, Target, Trail, backoff::Backoff, priority::Priority},
    delivery::{Claimed, Delivery, Outcome, Received},
    event::Event,
    fault::{Fault, Verdict},
    route::table::{Now, Planned, Send, Table},
    settle::{Branch, Budget, Note, Pending, keeper::Keeper},
    source::{Receive, Source},
    telemetry::SourceMetrics,
};

/// One source and everything it needs to run.
pub struct Pipeline {
    /// Name of the source.
    pub name: Arc<str>,
    /// What its messages hold.
    pub format: Format,
    /// The routes that read it, in the order of the file.
    pub table: Table<Arc<Target>>,
    /// For each of these routes: where its events go that fail before a sink is chosen.
    pub failed: Vec<Arc<Target>>,
    /// How many relays an event may have passed, this one included.
    pub hops_max: u8,
    /// For events that no route accepts.
    pub unmatched: Unmatched,
    /// For messages that cannot be decoded, and for events that run in a loop.
    pub unrouted: Arc<Target>,
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
        let settled = CancellationToken::new();
        let (finish, told) = (ends.finish.clone(), settled.clone());
        tasks.spawn(async move {
            keeper.run(finish).await;
            // Not before the last checkpoint: whoever takes over starts from it.
            told.cancel();
        });
        if let Some(hold) = source.hold {
            tasks.spawn(hold.run(settled));
        }
        let intake = Intake { pipeline: self, ordered: source.ordered, notes };
        tasks.spawn(intake.run(source.receive, ends.drain.clone()));
    }
}

/// The receiving task of one source.
struct Intake {
    pipeline: Pipeline,
    ordered: bool,
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
        let now = Now::read();
        let mut opened = Vec::with_capacity(count);
        let mut jobs = Jobs::default();
        let mut bytes = 0;
        for delivery in deliveries {
            let Delivery { received, attempt, token, since, tenure } = delivery;
            let size = received.bytes();
            bytes += size;
            let (event, work) = self.plan(&received, now);
            let branches = u32::try_from(work.len()).unwrap_or(u32::MAX).max(1);
            let (pending, branches) =
                Pending::open(token, since, size, branches, tenure, &self.notes);
            opened.push(pending);
            let trail = Trail { received, attempt, first: now.time, original: event };
            jobs.0.push((work, branches, trail));
        }
        self.pipeline.budget.take(count, bytes);
        self.pipeline.metrics.received(count);
        self.pipeline.metrics.in_flight(self.pipeline.budget.in_flight());
        // The keeper must know a delivery before its branches can end it.
        let _ = self.notes.send(Note::Opened(opened));
        self.dispatch(jobs).await;
    }

    /// The event of a message, and what shall become of it: never nothing.
    fn plan(&self, received: &Received, now: Now) -> (Arc<Event>, Vec<Work<'_>>) {
        let Pipeline { format, table, unmatched, hops_max, .. } = &self.pipeline;
        if received.claimed == Some(Claimed::Away) {
            return (Arc::new(decode::undecoded(received)), vec![Work::Return]);
        }
        let event = match decode::decode(received, *format) {
            Ok(event) => Arc::new(event),
            Err(error) => {
                let event = Arc::new(decode::undecoded(received));
                let fault = Fault::reject("decode", "undecodable", error);
                return (event, vec![Work::Unrouted(fault)]);
            }
        };
        if event.hops >= *hops_max {
            let text = format!("it has passed {} relays, and `hops_max` is {hops_max}", event.hops);
            return (event, vec![Work::Unrouted(Fault::reject("route", "loop", text))]);
        }
        let mut planned = Vec::new();
        table.plan(&event, now, &mut planned);
        let mut work: Vec<_> = planned.into_iter().map(Work::Planned).collect();
        if work.is_empty() {
            work.push(match unmatched {
                Unmatched::Drop => Work::Drop,
                Unmatched::DeadLetter => {
                    let text = "no route accepts the event";
                    Work::Unrouted(Fault::reject("route", "unmatched", text))
                }
            });
        }
        (event, work)
    }

    async fn dispatch(&self, jobs: Jobs<'_>) {
        let mut by_sink: Vec<(Arc<Deliverer>, Vec<Job>)> = Vec::new();
        for (work, branches, trail) in jobs.0 {
            for (work, branch) in work.into_iter().zip(branches) {
                let Some((deliverer, job)) = self.job(work, branch, trail.clone()) else {
                    continue;
                };
                match by_sink.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &deliverer)) {
                    Some((_, jobs)) => jobs.push(job),
                    None => by_sink.push((deliverer, vec![job])),
                }
            }
        }
        for (deliverer, jobs) in by_sink {
            deliverer.dispatch(jobs).await;
        }
    }

    fn job(&self, work: Work<'_>, branch: Branch, trail: Trail) -> Option<(Arc<Deliverer>, Job)> {
        let Pipeline { failed, unrouted, .. } = &self.pipeline;
        match work {
            Work::Planned(Planned::Send(send)) => {
                let Send { to, event, original, lane, not_before, underway, identity, .. } = send;
                let job = to.job(&event, branch, self.ordered, Trail { original, ..trail });
                // The job counts by itself now.
                drop(underway);
                let priority = Priority(u8::try_from(lane).unwrap_or(u8::MAX));
                job.map(|(sink, job)| {
                    let job = job.with_priority(priority).not_before(not_before);
                    (sink, job.once(identity.as_deref()))
                })
            }
            Work::Planned(Planned::Fail { route, failure, original }) => {
                let trail = Trail { original, ..trail };
                let fault = Fault::reject("route", failure.class, failure.text);
                failed.get(route).unwrap_or(unrouted).reject(branch, self.ordered, trail, &fault)
            }
            Work::Planned(Planned::Filter { route, reason }) => {
                if let Some(target) = failed.get(route) {
                    target.metrics.filtered(reason);
                }
                branch.finish(Outcome::Filtered);
                None
            }
            Work::Unrouted(fault) => unrouted.reject(branch, self.ordered, trail, &fault),
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

    /// What a poll in flight still brought at the end goes back at once.
    fn give_back(&self, deliveries: Vec<Delivery>) {
        self.pipeline.budget.take(deliveries.len(), 0);
        for Delivery { token, since, tenure, .. } in deliveries {
            // The branch is dropped, which returns the delivery.
            let (pending, _) = Pending::open(token, since, 0, 1, tenure, &self.notes);
            drop(pending);
        }
    }
}

/// What shall happen with an event, or with a part of it.
enum Work<'a> {
    /// What a route says.
    Planned(Planned<'a, Arc<Target>>),
    /// No route has seen it, or wants it: it is parked.
    Unrouted(Fault),
    /// No route wants it, and it may go.
    Drop,
    /// Its body is in a store that does not answer: its source shall offer it again.
    Return,
}

/// A batch between opening and dispatch.
#[derive(Default)]
struct Jobs<'a>(Vec<(Vec<Work<'a>>, Vec<Branch>, Trail)>);

#[cfg(test)]
pub(crate) mod simulation;
