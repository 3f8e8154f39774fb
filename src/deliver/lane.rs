//! One lane of a sink: one batch in flight, in order per key.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use prometheus::Histogram;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Backoff, Hold, Job, Once, Purpose, counts,
    priority::Weights,
    queue::{Entry, LaneQueue},
    wellness::Wellness,
};
use crate::{
    dedup::ledger::Answer,
    delivery::Outcome,
    fault::{Fault, Verdict},
    route::Retry,
    sink::Sink,
};

/// A batch that is not full waits this long for company: requests cost more than milliseconds.
const LINGER: Duration = Duration::from_millis(5);
/// How soon a full dead-letter lane is tried again.
const PARK_AGAIN: Duration = Duration::from_millis(50);

/// How long an event waits for a twin that somebody is delivering.
const TWIN: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(5) };
/// How often, before it goes back to its source: for more than a minute in all.
const TWIN_WAITS: u32 = 24;

/// A lane and what it is made of. The pipeline runs it.
pub struct Lane {
    name: Arc<str>,
    sink: Arc<dyn Sink>,
    jobs: mpsc::Receiver<Vec<Job>>,
    queue: LaneQueue<Job>,
    /// Keys of events that have left for a dead letter or a stand-in, and how many of each.
    parking: HashMap<Arc<str>, usize>,
    parked: mpsc::UnboundedReceiver<Arc<str>>,
    parked_tx: mpsc::UnboundedSender<Arc<str>>,
    /// Jobs for another sink whose lane was full.
    unparked: Vec<(Arc<super::Deliverer>, Job)>,
    /// Failures of the service in a row, and until when it is left alone.
    failures: u32,
    paused: Instant,
    batch_sizes: Histogram,
    health: watch::Sender<Option<String>>,
    wellness: Arc<Wellness>,
    recalled: watch::Receiver<()>,
    stop: CancellationToken,
}

/// What a lane is made of.
pub(super) struct Parts {
    pub(super) name: Arc<str>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) jobs: mpsc::Receiver<Vec<Job>>,
    pub(super) weights: Weights,
    pub(super) batch_sizes: Histogram,
    pub(super) health: watch::Sender<Option<String>>,
    pub(super) wellness: Arc<Wellness>,
    pub(super) recalled: watch::Receiver<()>,
    pub(super) stop: CancellationToken,
}

impl Lane {
    pub(super) fn new(parts: Parts) -> Self {
        let (parked_tx, parked) = mpsc::unbounded_channel();
        let Parts { name, sink, jobs, weights, batch_sizes, health, wellness, recalled, stop } =
            parts;
        Self {
            name,
            sink,
            jobs,
            queue: LaneQueue::new(&weights),
            parking: HashMap::new(),
            parked,
            parked_tx,
            unparked: Vec::new(),
            failures: 0,
            paused: Instant::now(),
            batch_sizes,
            health,
            wellness,
            recalled,
            stop,
        }
    }

    /// Runs until its senders are gone and it is empty, or until `stop`, when it gives back what it
    /// has not begun to send.
    pub async fn run(mut self) {
        let stop = self.stop.clone();
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
            if now >= self.paused && self.queue.is_ready(now) {
                self.linger(now + LINGER).await;
                self.send().await;
                self.queue.end_batch();
                continue;
            }
            let wake = self.next_wake(now);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(key) = self.parked.recv() => self.parked(&key),
                Ok(()) = self.recalled.changed() => self.let_go(),
                jobs = self.jobs.recv() => match jobs {
                    Some(jobs) => self.take_in(jobs),
                    None if wake.is_none() && self.parking.is_empty() => return,
                    None => self.idle(wake).await,
                },
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
        // Dropping the rest returns it to its source.
        self.queue.drain();
    }

    /// Queues what has been handed over, but for what is recalled, which goes back.
    fn take_in(&mut self, mut jobs: Vec<Job>) {
        jobs.retain(|job| !job.duty.target.is_recalled());
        self.queue.push(jobs);
    }

    /// Gives back what is recalled.
    fn let_go(&mut self) {
        while let Ok(jobs) = self.jobs.try_recv() {
            self.take_in(jobs);
        }
        let is_recalled = |job: &Job| job.duty.target.is_recalled();
        // A dropped job returns its delivery.
        drop(self.queue.take_out(is_recalled));
        self.unparked.retain(|(_, job)| !is_recalled(job));
    }

    /// Waits where no more jobs can come.
    async fn idle(&mut self, wake: Option<Instant>) {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(key) = self.parked.recv() => self.parked(&key),
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }

    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let queued =
            if self.queue.is_ready(now) { Some(self.paused) } else { self.queue.next_due() };
        let parking = (!self.unparked.is_empty()).then(|| now + PARK_AGAIN);
        [queued.map(|at| at.max(self.paused)), parking].into_iter().flatten().min()
    }

    /// Lets a batch fill up. Takes in all that has been handed over, so that nothing urgent waits
    /// in the channel behind what is not.
    async fn linger(&mut self, until: Instant) {
        while let Ok(jobs) = self.jobs.try_recv() {
            self.take_in(jobs);
        }
        let full = self.sink.limits().events;
        while !self.queue.fills(full) {
            match timeout_at(until, self.jobs.recv()).await {
                Ok(Some(jobs)) => self.take_in(jobs),
                Ok(None) | Err(_) => return,
            }
        }
    }

    async fn send(&mut self) {
        let batch = self.queue.batch(&self.sink.limits(), Instant::now());
        let batch = self.claim(batch).await;
        // What has lost its lease or is recalled comes again: sending it now would only duplicate
        // it, and what comes after it in its key may not overtake it.
        let mut lost_keys = HashSet::new();
        let (lost, batch): (Vec<Job>, Vec<Job>) = batch.into_iter().partition(|job| {
            let is_lost = job.is_lost() || job.order().is_some_and(|key| lost_keys.contains(key));
            if is_lost {
                lost_keys.extend(job.order().cloned());
            }
            is_lost
        });
        for job in lost {
            self.give_up(job);
        }
        if batch.is_empty() {
            return;
        }
        let (outgoing, duties): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|job| (job.outgoing, job.duty)).unzip();
        self.batch_sizes.observe(outgoing.len() as f64);
        let answers = self.sink.send(&outgoing).await;
        match duties.iter().any(|duty| matches!(duty.purpose, Purpose::Park { .. })) {
            true => failpoint!(DuringDeadLetter),
            false => failpoint!(AfterSend),
        }
        let mut answers = answers.into_iter();
        let mut released = Vec::new();
        let (mut first, mut first_taken) = (true, false);
        let mut worst: Option<Fault> = None;
        let mut again: Vec<(Job, Duration)> = Vec::new();
        for (outgoing, duty) in outgoing.into_iter().zip(duties) {
            let job = Job { outgoing, duty };
            // A connector that answers too few has not confirmed the rest.
            let unanswered = || Err(Fault::retry("send", "unanswered", "the sink gave no answer"));
            let mut answer = answers.next().unwrap_or_else(unanswered);
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
                    confirm(job);
                }
                Err(fault) => {
                    if let Some((job, delay)) = self.failed(job, &fault) {
                        again.push((job, delay));
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

    /// Keeps of a batch what its routes have not delivered before, with the right to deliver it.
    async fn claim(&mut self, batch: Vec<Job>) -> Vec<Job> {
        let mut keys = Vec::new();
        let mut ledger = None;
        let mut jobs = Vec::with_capacity(batch.len());
        for mut job in batch {
            let lapsed = match &job.duty.once {
                Once::Claimed(claim) if !claim.is_ours() => Some(claim.key()),
                _ => None,
            };
            if let Some(key) = lapsed {
                job.duty.once = Once::wanted(key);
            }
            if let (Once::Wanted { key, .. }, Some(dedup)) =
                (&job.duty.once, &job.duty.target.dedup)
            {
                keys.push(*key);
                ledger.get_or_insert_with(|| dedup.ledger.clone());
            }
            jobs.push(job);
        }
        let Some(ledger) = ledger else { return jobs };
        let mut answers = ledger.claim(&keys).await.map(Vec::into_iter);
        let (mut kept, mut again) = (Vec::with_capacity(jobs.len()), Vec::new());
        let mut done = Vec::new();
        // Keys of which something stays behind: what comes after it here may not overtake it.
        let (mut waiting, mut returned) = (HashSet::new(), HashSet::new());
        for mut job in jobs {
            let key = job.order().cloned();
            let is_in =
                |keys: &HashSet<Arc<str>>| key.as_ref().is_some_and(|key| keys.contains(key));
            let Once::Wanted { twin_waits, store_waits, .. } = &mut job.duty.once else {
                match (is_in(&returned), is_in(&waiting)) {
                    (true, _) => self.give_up(job),
                    (_, true) => again.push((job, TWIN.min)),
                    _ => kept.push(job),
                }
                continue;
            };
            (*twin_waits, *store_waits) = match answers {
                Ok(_) => (*twin_waits + 1, 0),
                Err(_) => (*twin_waits, *store_waits + 1),
            };
            let (twin_waits, store_waits) = (*twin_waits, *store_waits);
            let target = job.duty.target.clone();
            let answer = answers.as_mut().map(|answers| answers.next().unwrap_or(Answer::InFlight));
            let delay = match answer {
                Ok(Answer::Done) => {
                    target.metrics.duplicate();
                    done.extend(key);
                    job.duty.branch.finish(Outcome::Duplicate);
                    continue;
                }
                Ok(Answer::InFlight) if planted!(ClaimIsDone) => {
                    done.extend(key);
                    job.duty.branch.finish(Outcome::Duplicate);
                    continue;
                }
                Err(_) if planted!(DropWithoutStore) => {
                    done.extend(key);
                    job.duty.branch.finish(Outcome::Filtered);
                    continue;
                }
                Ok(Answer::Claimed(claim)) if planted!(CommitBeforeDelivery) => {
                    claim.commit_unsent();
                    job.duty.once = Once::Unasked;
                    is_in(&waiting).then_some(TWIN.min)
                }
                Ok(Answer::Claimed(claim)) => {
                    job.duty.once = Once::Claimed(claim);
                    is_in(&waiting).then_some(TWIN.min)
                }
                Ok(Answer::InFlight) => {
                    target.metrics.waits_for_twin();
                    Some(TWIN.delay(twin_waits, None))
                }
                Err(_) if target.delivers_unasked() => {
                    job.duty.once = Once::Unasked;
                    is_in(&waiting).then_some(TWIN.min)
                }
                Err(_) => Some(Backoff::SERVICE.delay(store_waits, None)),
            };
            // What waits for the store stays here: its source may count how often it is handed out.
            let is_tired = matches!(job.duty.once, Once::Wanted { .. }) && twin_waits > TWIN_WAITS;
            if is_in(&returned) || is_tired && answers.is_ok() {
                returned.extend(key);
                self.give_up(job);
            } else if let Some(delay) = delay {
                waiting.extend(key);
                again.push((job, delay));
            } else {
                kept.push(job);
            }
        }
        self.put_back(again, done);
        if !kept.is_empty() {
            failpoint!(AfterClaim);
        }
        kept
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
        let parking = matches!(job.duty.purpose, Purpose::Park { .. });
        let exhausted = job.duty.attempts >= target.retry.attempts;
        if parking && (exhausted || !matches!(fault.verdict, Verdict::Retry { .. })) {
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
            Verdict::Retry { after } => {
                target.metrics.retried(fault.class);
                tracing::debug!(route = %target.route, sink = %self.name, attempt = job.duty.attempts, error = %fault, "send failed, will retry");
                let delay = backoff(&target.retry).delay(job.duty.attempts, after);
                Some((job, delay))
            }
            Verdict::Busy { after } => {
                target.metrics.retried(fault.class);
                let delay = Backoff::SERVICE.delay(self.failures.saturating_add(1), after);
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
            Err(duty) => {
                let mut duty = *duty;
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
            self.take_in(jobs);
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
            self.wellness.well();
            self.health.send_if_modified(|state| state.take().is_some());
            return;
        };
        self.failures = self.failures.saturating_add(1);
        let (hint, stopped) = match fault.verdict {
            Verdict::Busy { after } => (after, false),
            _ => (Some(Backoff::SERVICE.max), true),
        };
        let wait = Backoff::SERVICE.delay(self.failures, hint);
        self.paused = Instant::now() + wait;
        self.wellness.unwell(self.paused);
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

/// The sink has the event.
fn confirm(job: Job) {
    let latency = job.duty.branch.since().elapsed();
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
        Purpose::Park { class } => {
            job.duty.target.metrics.dead_lettered(class);
            job.duty.branch.finish(Outcome::DeadLettered);
        }
    }
}

#[cfg(test)]
mod tests;
