//! One lane of a sink: one batch in flight, in order per key.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

mod claim;

use super::{
    Backoff, Hold, Job, Once, Purpose, counts,
    flow::{Admission, Answer as Answered, Flow, Permit},
    priority::Weights,
    queue::{Entry, LaneQueue},
};
use crate::{
    delivery::Outcome,
    fault::{Fault, Verdict},
    route::Retry,
    sink::Sink,
    telemetry::SinkMetrics,
};

/// A batch that is not full waits this long for company: requests cost more than milliseconds.
const LINGER: Duration = Duration::from_millis(5);
/// How soon a full dead-letter lane is tried again.
const PARK_AGAIN: Duration = Duration::from_millis(50);

/// Failures of the service that make a lane wait longer and longer: from there on it is the breaker
/// that says how long the sink is left alone.
const FAILURES_MAX: u32 = 4;
/// What has failed last waits this much longer than the sink is left alone.
const AFTER_PROBE: Duration = Duration::from_secs(1);

/// A lane and what it is made of. The pipeline runs it.
pub struct Lane {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    jobs: mpsc::Receiver<Vec<Job>>,
    /// No more jobs can come.
    closed: bool,
    queue: LaneQueue<Job>,
    /// Whether some of its jobs need not wait for a sink that is left alone.
    evades: bool,
    /// Keys of events that have left for a dead letter or a stand-in, and how many of each.
    parking: HashMap<Arc<str>, usize>,
    parked: mpsc::UnboundedReceiver<Arc<str>>,
    parked_tx: mpsc::UnboundedSender<Arc<str>>,
    /// Jobs for another sink whose lane was full.
    unparked: Vec<(Arc<super::Deliverer>, Job)>,
    /// Failures of the service in a row, and until when it is left alone.
    failures: u32,
    paused: Instant,
    flow: Arc<Flow>,
    metrics: SinkMetrics,
    health: watch::Sender<Option<String>>,
    recalled: watch::Receiver<()>,
    reset: watch::Receiver<()>,
    stop: CancellationToken,
}

/// What a lane is made of.
pub(super) struct Parts {
    pub(super) name: Arc<str>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) jobs: mpsc::Receiver<Vec<Job>>,
    pub(super) weights: Weights,
    pub(super) flow: Arc<Flow>,
    pub(super) metrics: SinkMetrics,
    pub(super) health: watch::Sender<Option<String>>,
    pub(super) recalled: watch::Receiver<()>,
    pub(super) reset: watch::Receiver<()>,
    pub(super) stop: CancellationToken,
}

impl Lane {
    pub(super) fn new(parts: Parts) -> Self {
        let (parked_tx, parked) = mpsc::unbounded_channel();
        let Parts { name, sink, jobs, weights, flow, metrics, health, recalled, reset, stop } =
            parts;
        Self {
            name,
            sink,
            jobs,
            closed: false,
            queue: LaneQueue::new(&weights),
            evades: false,
            parking: HashMap::new(),
            parked,
            parked_tx,
            unparked: Vec::new(),
            failures: 0,
            paused: Instant::now(),
            flow,
            metrics,
            health,
            recalled,
            reset,
            stop,
        }
    }

    /// Runs until its senders are gone and it is empty, or until `stop`, when it gives back what it
    /// has not begun to send.
    pub async fn run(mut self) {
        let stop = self.stop.clone();
        let mut turn: OptionFuture<BoxFuture<'static, Admission>> = None.into();
        let mut waits = false;
        while !stop.is_cancelled() {
            let now = Instant::now();
            // Not only where there is nothing to send: a lane may never be idle.
            while let Ok(key) = self.parked.try_recv() {
                self.parked(&key);
            }
            if self.recalled.has_changed().unwrap_or(false) {
                self.recalled.mark_unchanged();
                self.let_go();
            }
            self.unpark();
            let ready = now >= self.paused && self.queue.is_ready(now);
            if ready != waits {
                let admission = || self.flow.clone().admit(self.sink.limits(), self.evades).boxed();
                turn = ready.then(admission).into();
                waits = ready;
            }
            let wake = self.next_wake(now, ready);
            if self.closed && !ready && wake.is_none() && self.parking.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(key) = self.parked.recv() => self.parked(&key),
                Ok(()) = self.recalled.changed() => self.let_go(),
                Ok(()) = self.reset.changed() => self.hasten(),
                Some(admission) = &mut turn => {
                    (turn, waits) = (None.into(), false);
                    match admission {
                        Admission::Go(permit) => {
                            self.linger(Instant::now() + LINGER).await;
                            self.send(permit).await;
                            self.queue.end_batch();
                        }
                        Admission::Shut { until, works } => self.evade(until, works),
                    }
                }
                jobs = self.jobs.recv(), if !self.closed => self.take_in(jobs),
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
        // Dropping the rest returns it to its source.
        self.queue.drain();
    }

    /// When to look again; `ready` says that there is something to send, which waits for its turn.
    fn next_wake(&self, now: Instant, ready: bool) -> Option<Instant> {
        let queued =
            if self.queue.is_ready(now) { Some(self.paused) } else { self.queue.next_due() };
        let queued = queued.map(|at| at.max(self.paused)).filter(|_| !ready);
        let parking = (!self.unparked.is_empty()).then(|| now + PARK_AGAIN);
        [queued, parking].into_iter().flatten().min()
    }

    /// Takes in jobs, or notes that no more can come.
    fn take_in(&mut self, jobs: Option<Vec<Job>>) {
        let Some(mut jobs) = jobs else {
            self.closed = true;
            return;
        };
        // What is recalled goes back: a dropped job returns its delivery.
        jobs.retain(|job| !job.duty.target.is_recalled());
        self.evades |= jobs.iter().any(Job::can_leave);
        self.queue.push(jobs);
    }

    /// Gives back what is recalled.
    fn let_go(&mut self) {
        while let Ok(jobs) = self.jobs.try_recv() {
            self.take_in(Some(jobs));
        }
        let is_recalled = |job: &Job| job.duty.target.is_recalled();
        drop(self.queue.take_out(is_recalled));
        self.unparked.retain(|(_, job)| !is_recalled(job));
    }

    /// Somebody says that the sink works: nothing waits any longer because it did not.
    fn hasten(&mut self) {
        let now = Instant::now();
        (self.failures, self.paused) = (0, now);
        self.queue.hasten(now);
    }

    /// Does something that takes a while. What is handed over meanwhile is taken in, because
    /// whoever hands it over has other sinks to see to.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                jobs = self.jobs.recv(), if !self.closed => self.take_in(jobs),
            }
        }
    }

    /// Hands a job to a sink that works, because this one is left alone. Gives it back where there
    /// is none.
    fn send_elsewhere(&mut self, job: Job) -> Option<Job> {
        if matches!(job.duty.purpose, Purpose::Deliver) {
            return self.stand_in(job);
        }
        let target = job.duty.target.clone();
        let away = Fault::busy("send", "left_alone", "the sink does not work");
        match target.park_elsewhere(&self.name, job, &away) {
            Ok(moved) => self.moved(moved, None),
            Err(job) => return Some(job),
        }
        None
    }

    /// The sink is left alone until then: what another can take goes there, and the rest waits,
    /// but for what takes too much room while the sink does not work.
    fn evade(&mut self, until: Instant, works: bool) {
        loop {
            let now = Instant::now();
            let batch = self.queue.batch(&self.sink.limits(), now);
            if batch.is_empty() {
                return;
            }
            let wait = until.saturating_duration_since(now).max(LINGER);
            let stay = batch.into_iter().filter_map(|job| self.send_elsewhere(job));
            let stay = stay.filter_map(|job| if works { Some(job) } else { job.leave_room() });
            let stay: Vec<_> = stay.map(|job| (job, wait)).collect();
            self.put_back(stay, Vec::new());
            self.queue.end_batch();
        }
    }

    /// Lets a batch fill up. Takes in all that has been handed over, so that nothing urgent waits
    /// in the channel behind what is not.
    async fn linger(&mut self, until: Instant) {
        while let Ok(jobs) = self.jobs.try_recv() {
            self.take_in(Some(jobs));
        }
        let full = self.sink.limits().events;
        while !self.queue.fills(full) && !self.closed {
            match timeout_at(until, self.jobs.recv()).await {
                Ok(jobs) => self.take_in(jobs),
                Err(_) => return,
            }
        }
    }

    async fn send(&mut self, mut permit: Permit) {
        let limits = permit.within(self.sink.limits());
        let batch = self.queue.batch(&limits, Instant::now());
        permit.holds(batch.len(), batch.iter().map(Entry::bytes).sum());
        let batch = self.claim(batch).await;
        // What has lost its lease or is recalled comes again: sending it now would only duplicate
        // it, and what comes after it in its key may not overtake it.
        let (mut batch, mut lost_keys) = (batch, HashSet::new());
        if batch.iter().any(Job::is_lost) {
            let is_lost = |job: &mut Job| {
                let is_behind = job.order().is_some_and(|key| lost_keys.contains(key));
                let is_lost = is_behind || job.is_lost();
                lost_keys.extend(job.order().filter(|_| is_lost).cloned());
                is_lost
            };
            let lost: Vec<Job> = batch.extract_if(.., is_lost).collect();
            lost.into_iter().for_each(|job| self.give_up(job));
        }
        if batch.is_empty() {
            return;
        }
        let (outgoing, duties): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|job| (job.outgoing, job.duty)).unzip();
        permit.holds(outgoing.len(), outgoing.iter().map(|one| one.packed.bytes).sum());
        permit.sends();
        let traced = duties.iter().filter_map(|duty| duty.branch.span());
        let span = self.metrics.request(outgoing.len(), traced);
        let (sink, asked) = (self.sink.clone(), Instant::now());
        let mut answers = self.meanwhile(sink.send(&outgoing)).await;
        // What fails is traced, which could not be known before.
        let span = span.or_else(|| {
            let is_blamed =
                |answer: &Result<_, Fault>| matches!(answer, Err(it) if counts(it.verdict));
            let blamed = duties.iter().zip(&answers).filter(|(_, answer)| is_blamed(answer));
            let about = blamed.filter_map(|(duty, _)| duty.branch.failed_span());
            Some(self.metrics.span(outgoing.len(), about)?.since(asked.elapsed()))
        });
        if let Some(span) = span {
            span.end(answers.iter().find_map(|it| it.as_ref().err()).map(|fault| fault.class));
        }
        match duties.iter().any(|duty| matches!(duty.purpose, Purpose::Park { .. })) {
            true => failpoint!(DuringDeadLetter),
            false => failpoint!(AfterSend),
        }
        // A connector that answers too few has not confirmed the rest, nor said a word against it.
        let unanswered = || Err(Fault::busy("send", "unanswered", "the sink gave no answer"));
        answers.resize_with(outgoing.len(), unanswered);
        let shut = permit.answered(answered(&answers));
        let mut released = Vec::new();
        let (mut first, mut first_taken) = (true, false);
        let mut worst: Option<Fault> = None;
        let mut again: Vec<(Job, Duration)> = Vec::new();
        // Keys of which an event has gone back to its source.
        let mut gone_back = HashSet::new();
        let now = Instant::now();
        for ((outgoing, duty), mut answer) in outgoing.into_iter().zip(duties).zip(answers) {
            let job = Job { outgoing, duty };
            first_taken |= std::mem::take(&mut first) && answer.is_ok();
            let is_parking = matches!(job.duty.purpose, Purpose::Park { .. });
            let mistaken = match () {
                () if planted!(AckOnFailure) => true,
                () if planted!(BatchAnswersAsOne) => first_taken,
                () if planted!(ParkedUnconfirmed) => is_parking,
                () => false,
            };
            if mistaken {
                answer = Ok(());
            }
            match answer {
                Ok(()) => {
                    released.extend(job.order().cloned());
                    confirm(job, now);
                }
                Err(fault) => {
                    let key = job.order().cloned();
                    let left = key.as_ref().map(|key| self.parking.get(key).copied());
                    // It may have attempts left that the one before it in its key has not.
                    if key.as_ref().is_some_and(|key| gone_back.contains(key)) {
                        let after = Some(*job.duty.target.retry.backoff_max);
                        job.duty.branch.finish(Outcome::Returned { after });
                    } else if let Some((job, delay)) = self.failed(job, &fault) {
                        // Another goes first to see whether the sink works: this may be the one
                        // that it does not bear.
                        let probed = shut.map(|until| until + AFTER_PROBE - Instant::now());
                        again.push((job, delay.max(probed.unwrap_or_default())));
                    } else {
                        // It has gone back, unless it has left for another sink just now.
                        gone_back
                            .extend(key.filter(|key| left == Some(self.parking.get(key).copied())));
                    }
                    if matches!(fault.verdict, Verdict::Busy { .. } | Verdict::Stop) {
                        worst = Some(fault);
                    }
                }
            }
        }
        self.put_back(again, released);
        self.note_health(worst);
    }

    /// Puts back what is to be tried again, each after its delay, and lets go of the keys whose
    /// events are done with.
    fn put_back(&mut self, again: Vec<(Job, Duration)>, done: Vec<Arc<str>>) {
        let now = Instant::now();
        self.queue.retry(again.into_iter().map(|(job, delay)| (job, now + delay)).collect());
        for key in done {
            if !self.parking.contains_key(&key) {
                self.queue.release(&key);
            }
        }
    }

    /// What becomes of a job whose send has failed: tried again after a wait, parked, or returned.
    fn failed(&mut self, mut job: Job, fault: &Fault) -> Option<(Job, Duration)> {
        if counts(fault.verdict) {
            job.duty.attempts = job.duty.attempts.saturating_add(1);
        }
        let target = job.duty.target.clone();
        let is_behind = fault.verdict == Verdict::Behind;
        if !is_behind {
            target.metrics.failed(fault, &job.outgoing.event);
        }
        let parking = matches!(job.duty.purpose, Purpose::Park { .. });
        let exhausted = job.duty.attempts >= target.retry.attempts;
        let may_pass = matches!(fault.verdict, Verdict::Retry { .. }) && !exhausted;
        if parking && !is_behind && !may_pass {
            match target.park_elsewhere(&self.name, job, fault) {
                Ok(moved) => {
                    self.moved(moved, None);
                    return None;
                }
                Err(back) => job = back,
            }
        }
        match fault.verdict {
            // Giving it back would let what came after it in its key overtake it.
            Verdict::Reject if parking && job.duty.hold.is_some() => {
                Some((job, Backoff::SERVICE.max))
            }
            Verdict::Reject if parking => {
                target.give_back(job.duty.branch, fault);
                None
            }
            Verdict::Reject => self.elsewhere(job, fault),
            Verdict::Retry { .. } if exhausted && !parking => self.elsewhere(job, fault),
            Verdict::Behind => Some((job, *target.retry.backoff)),
            Verdict::Retry { after } => {
                target.metrics.retried(fault.class);
                tracing::debug!(route = %target.route, sink = %self.name, attempt = job.duty.attempts, error = %fault, traceparent = job.duty.branch.span().map(display), "send failed, will retry");
                let delay = backoff(&target.retry).delay(job.duty.attempts, after);
                Some((job, delay))
            }
            Verdict::Busy { after } => {
                target.metrics.retried(fault.class);
                let failures = self.failures.saturating_add(1).min(FAILURES_MAX);
                let delay = Backoff::SERVICE.delay(failures, after);
                self.stand_in(job).map(|job| (job, delay))
            }
            Verdict::Stop => {
                target.metrics.retried(fault.class);
                self.stand_in(job).map(|job| (job, Backoff::SERVICE.max))
            }
        }
    }

    /// Hands a job whose sink has refused it to a stand-in, or parks it, or returns it where there
    /// is nowhere to park. Its key is held back until it is done with; where it is returned, what
    /// came after it in its key is returned with it.
    fn elsewhere(&mut self, mut job: Job, fault: &Fault) -> Option<(Job, Duration)> {
        let key = self.hold_key(&mut job);
        let target = job.duty.target.clone();
        match (target.elsewhere(&job.outgoing.event, job.duty, fault), key) {
            (Some(moved), key) => self.moved(moved, key),
            (None, Some(key)) => self.return_behind(&key, Some(*target.retry.backoff_max)),
            (None, None) => {}
        }
        None
    }

    /// Hands a job whose service does not work to a stand-in that does. Gives it back where there
    /// is none.
    fn stand_in(&mut self, mut job: Job) -> Option<Job> {
        let target = job.duty.target.clone();
        if matches!(job.duty.purpose, Purpose::Park { .. }) || target.stand_ins.get().is_none() {
            return Some(job);
        }
        let ordered = job.duty.ordered;
        let key = self.hold_key(&mut job);
        match target.stand_in(&job.outgoing.event, job.duty) {
            Ok(moved) => {
                self.moved(moved, key);
                None
            }
            Err(mut duty) => {
                duty.ordered = ordered;
                // It is still the one that holds its key; nothing may be told of that.
                if key.is_some()
                    && let Some(hold) = duty.hold.take()
                {
                    hold.forget();
                }
                Some(Job { outgoing: job.outgoing, duty })
            }
        }
    }

    /// Makes a job that leaves this lane hold its key here. The key, if it has one.
    fn hold_key(&self, job: &mut Job) -> Option<Arc<str>> {
        let key = job.order().cloned()?;
        job.duty.hold = Some(Hold { key: key.clone(), done: Some(self.parked_tx.clone()) });
        Some(key)
    }

    /// A job has left this lane for another.
    fn moved(&mut self, moved: (Arc<super::Deliverer>, Job), key: Option<Arc<str>>) {
        if let Some(key) = key {
            self.queue.hold(&key);
            *self.parking.entry(key).or_default() += 1;
        }
        self.unparked.push(moved);
        self.unpark();
    }

    /// Hands jobs to the sinks that they have left for, as far as those have room.
    fn unpark(&mut self) {
        for (deliverer, job) in std::mem::take(&mut self.unparked) {
            if let Err(job) = deliverer.try_dispatch(job) {
                self.unparked.push((deliverer, job));
            }
        }
    }

    /// An event of `key` that had left is done with, wherever it went.
    fn parked(&mut self, key: &Arc<str>) {
        if let Some(count) = self.parking.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.parking.remove(key);
                self.queue.release(key);
            }
        }
    }

    /// Returns a job that is not sent, and what came after it in its key.
    fn give_up(&mut self, job: Job) {
        let key = job.order().cloned();
        job.duty.branch.finish(Outcome::Returned { after: None });
        if let Some(key) = key {
            self.return_behind(&key, None);
        }
    }

    /// Returns everything of a key whose first event goes back to the source: it may not overtake.
    fn return_behind(&mut self, key: &Arc<str>, after: Option<Duration>) {
        while let Ok(jobs) = self.jobs.try_recv() {
            self.take_in(Some(jobs));
        }
        for follower in self.queue.take_behind(key) {
            follower.duty.branch.finish(Outcome::Returned { after });
        }
    }

    /// Leaves an unwell service alone for a while, and says so once.
    fn note_health(&mut self, fault: Option<Fault>) {
        let Some(fault) = fault else {
            if self.failures > 0 {
                tracing::info!(sink = %self.name, "sink works again");
            }
            self.failures = 0;
            self.flow.wellness.well();
            self.health.send_if_modified(|state| state.take().is_some());
            return;
        };
        self.failures = self.failures.saturating_add(1);
        let (hint, stopped) = match fault.verdict {
            Verdict::Busy { after } => (after, false),
            _ => (Some(Backoff::SERVICE.max), true),
        };
        let wait = Backoff::SERVICE.delay(self.failures.min(FAILURES_MAX), hint);
        self.paused = Instant::now() + wait;
        self.flow.wellness.unwell(self.paused);
        if self.failures == 1 {
            tracing::warn!(sink = %self.name, error = %fault, "sink is unwell, waiting");
        }
        let text = stopped.then(|| fault.to_string());
        self.health.send_if_modified(|state| {
            let changed = *state != text;
            state.clone_from(&text);
            changed
        });
    }
}

fn backoff(retry: &Retry) -> Backoff {
    Backoff { min: *retry.backoff, max: *retry.backoff_max }
}

/// What the service made of a request.
fn answered(answers: &[Result<(), Fault>]) -> Answered {
    let unwell = |answer: &Result<(), Fault>| match answer {
        Err(Fault { verdict: Verdict::Busy { after }, .. }) => Some(*after),
        Err(Fault { verdict: Verdict::Stop, .. }) => Some(None),
        _ => None,
    };
    let unwell: Vec<_> = answers.iter().filter_map(unwell).collect();
    let longest = unwell.iter().flatten().max().copied();
    match unwell.len() {
        0 => Answered::Well,
        some if some < answers.len() => Answered::Partly(longest),
        _ => Answered::Failed(longest),
    }
}

/// The sink has the event, since `now`.
fn confirm(job: Job, now: Instant) {
    let latency = now.saturating_duration_since(job.duty.branch.since());
    match job.duty.purpose {
        Purpose::Deliver => {
            let target = job.duty.target;
            target.metrics.delivered(job.outgoing.packed.bytes, latency);
            match (job.duty.once, &target.dedup) {
                (Once::Claimed(claim), Some(dedup)) => {
                    claim.commit(job.duty.branch, dedup.ttl, dedup.on_store_failure);
                }
                _ => job.duty.branch.finish(Outcome::Delivered),
            }
        }
        Purpose::Park { class, .. } => {
            job.duty.target.metrics.dead_lettered(class);
            job.duty.branch.finish(Outcome::DeadLettered);
        }
    }
}

#[cfg(test)]
mod tests;
