//! The entries of one dead-letter sink: read in rounds, and sent in their order.
//!
//! A round is read first and sent then, because queues that park have hardly any order: what stands
//! together in a round goes in the order in which it came from its source.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Summary, Task, Told,
    entry::Entry,
    filter::Filter,
    order::in_order,
    reading::{Opened, Unread},
    round::Round,
    ways::{Way, Ways, way},
};
use crate::{
    cloud::Context,
    config::plan::Plan,
    daemon::outlets::Outlets,
    dead_letter::{DeadLetter, Redriven},
    deliver::{Trail, backoff::Backoff},
    delivery::{Delivery, Outcome, Received, Token},
    fault::{Fault, Verdict},
    pipeline::{Kept, routing::Jobs},
    settle::{Branch, Budget, Desk, Note, Opening},
    source::{InFlight, Receive, Source},
    telemetry::Metrics,
};

/// Entries of one round.
const ROUND_EVENTS: usize = 10_000;
/// Their bytes.
const ROUND_BYTES: usize = 64 << 20;
/// A round is sent within this time, where there is a rate: leases do not last for ever.
const ROUND_MAX: Duration = Duration::from_secs(300);
/// Entries under way at once.
const IN_FLIGHT_MAX: usize = 500;
/// Entries that are looked at and kept hidden, or remembered. SQS hides no more than 120,000.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const HELD_MAX: usize = 100_000;
/// A queue that has answered so often with nothing is empty.
const EMPTY_MAX: u32 = 2;
/// A source that says nothing for so long has nothing more.
const QUIET: Duration = Duration::from_secs(10);
/// A source that fails so often in a row does not work.
const FAILURES_MAX: u32 = 5;
/// What is being sent when all else has been recalled may take so long.
const SENT_MAX: Duration = Duration::from_secs(60);
/// A service that has taken nothing back for so long is not waited for.
const STILL: Duration = Duration::from_secs(45);
/// Why an entry is left alone that would overtake another.
const BEHIND: &str = "it is behind one of its key that has failed";

/// What holds for all dead-letter sinks.
pub(super) struct Terms {
    pub(super) filter: Filter,
    pub(super) max: Option<usize>,
    pub(super) rate: Option<u32>,
    pub(super) task: Task,
    pub(super) dry_run: bool,
    /// The sink that everything is to go to.
    pub(super) to: Option<usize>,
    /// Names this redrive.
    pub(super) run: Arc<str>,
    /// The metrics of the daemon that it runs in.
    pub(super) beside: Option<Arc<Metrics>>,
    pub(super) stop: CancellationToken,
}

/// The work on one dead-letter sink.
pub(super) struct Drive<'a> {
    plan: &'a Plan,
    terms: &'a Terms,
    /// The dead-letter sink.
    name: Arc<str>,
    is_log: bool,
    receive: Box<dyn Receive>,
    /// What is to come of a log.
    unread: Option<Unread>,
    budget: Arc<Budget>,
    /// To the task that keeps leases and settles; it is told by us, who want to know first.
    keeper: Option<Desk>,
    tasks: JoinSet<()>,
    finish: CancellationToken,
    desk: Desk,
    told: mpsc::UnboundedReceiver<Note>,
    /// What goes back in the end, and is hidden until then.
    held: Vec<Branch>,
    round: Round<Found>,
    /// Where the dead-letter sink keeps an order: the keys that have failed. What is behind in them
    /// is parked behind them once more, so that it stays behind.
    moving: Option<HashSet<Arc<str>>>,
    /// How many entries have been parked so.
    moved: usize,
    flying: HashMap<Token, Flying>,
    /// The places of what has been looked at, and of what of it is not there any more.
    seen: HashSet<Arc<str>>,
    gone: HashSet<Arc<str>>,
    /// None where nothing is sent.
    ways: Option<Ways>,
    /// When the next entry may be sent.
    next_at: Instant,
    summary: &'a mut Summary,
    tell: &'a mut (dyn FnMut(Told<'_>) + Send),
}

/// An entry that is to be sent.
#[derive(Debug)]
struct Found {
    entry: Entry,
    way: Way,
    received: Arc<Received>,
    attempt: u32,
    token: Token,
    branch: Branch,
}

/// An entry under way.
struct Flying {
    /// Its place in the dead-letter queue.
    position: Arc<str>,
    key: Option<Arc<str>>,
    errand: Errand,
}

/// What an entry is under way for.
enum Errand {
    /// To be deleted.
    Discard,
    /// To be sent again.
    Redrive(Arc<Redriven>),
    /// To be parked behind another of its key.
    Move,
}

impl<'a> Drive<'a> {
    /// The work on what this source reads.
    pub(super) fn new(
        plan: &'a Plan,
        terms: &'a Terms,
        opened: Opened,
        context: &Context,
        ways: Option<Ways>,
        summary: &'a mut Summary,
        tell: &'a mut (dyn FnMut(Told<'_>) + Send),
    ) -> Self {
        let Opened { source: Source { receive, settle, lease, hold, .. }, unread } = opened;
        let sink = plan.sinks.iter().find(|sink| sink.name == context.name);
        let keeps_order =
            lease.is_some() && sink.is_some_and(|sink| sink.config.nature().keeps_order);
        let budget = Arc::new(Budget::new(InFlight::default()));
        let metrics = context.metrics.source(&context.name);
        let (mut tasks, finish) = (JoinSet::new(), CancellationToken::new());
        let (desk, told) = Desk::new(lease.map(|lease| lease.duration));
        let kept = Kept { settle, lease, hold, budget: budget.clone(), metrics };
        let keeper = Some(kept.start(&finish, &mut tasks));
        Self {
            plan,
            terms,
            name: context.name.clone(),
            is_log: lease.is_none(),
            receive,
            unread,
            budget,
            keeper,
            tasks,
            finish,
            desk,
            told,
            held: Vec::new(),
            round: Round::default(),
            moving: keeps_order.then(HashSet::new),
            moved: 0,
            flying: HashMap::new(),
            seen: HashSet::new(),
            gone: HashSet::new(),
            ways,
            next_at: Instant::now(),
            summary,
            tell,
        }
    }

    /// Works through all entries.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) async fn work(&mut self) -> Result<(), Fault> {
        loop {
            let gone = self.summary.gone() + self.moved;
            let more = self.read_round().await?;
            self.send_round().await;
            // A FIFO queue shows what is behind only when what was before is gone.
            let is_opened = !self.is_log && self.summary.gone() + self.moved > gone;
            if self.terms.stop.is_cancelled() || self.is_enough() {
                return Ok(());
            }
            if self.is_over() || !(more || is_opened) {
                self.summary.unread += self.left().unwrap_or_default();
                return Ok(());
            }
        }
    }

    /// Reads a round. Answers whether there may be more.
    async fn read_round(&mut self) -> Result<bool, Fault> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let (mut empty, mut failures) = (0, 0);
        let more = loop {
            if self.is_over() {
                break false;
            }
            if found.len() >= self.round_events() || bytes >= ROUND_BYTES {
                break true;
            }
            let received = tokio::select! {
                biased;
                () = self.terms.stop.cancelled() => break false,
                received = timeout(QUIET, self.receive.receive()) => received,
            };
            match received {
                // A log may be waiting for what it has handed out.
                Err(_) => break self.is_log && !found.is_empty(),
                Ok(Ok(deliveries)) if deliveries.is_empty() => {
                    empty += 1;
                    if empty == EMPTY_MAX {
                        break self.is_log && !found.is_empty();
                    }
                }
                Ok(Ok(deliveries)) => {
                    (empty, failures) = (0, 0);
                    bytes += self.take(deliveries, &mut found);
                }
                Ok(Err(fault)) => {
                    failures += 1;
                    let is_final = matches!(fault.verdict, Verdict::Stop | Verdict::Reject);
                    if is_final || failures == FAILURES_MAX {
                        found.clear();
                        return Err(fault);
                    }
                    sleep_until(Instant::now() + Backoff::SERVICE.delay(failures, None)).await;
                }
            }
        };
        let keyed = found.into_iter().map(|found| (self.key(&found.entry), found)).collect();
        for (key, found) in in_order(keyed, |found: &Found| &found.entry) {
            if let Err(found) = self.round.push(key, found) {
                self.skip(BEHIND, found.branch);
            }
        }
        Ok(more)
    }

    /// Whether nothing more is to be read.
    fn is_over(&mut self) -> bool {
        self.is_enough() || self.left() == Some(0)
    }

    /// How many entries of a log are to come.
    fn left(&self) -> Option<u64> {
        self.unread.as_ref().map(Unread::left)
    }

    /// Whether no more entries are to be dealt with, or can be held.
    fn is_enough(&mut self) -> bool {
        let skipped: usize = self.summary.skipped.values().sum();
        let taken = self.summary.meant - skipped;
        // A log's entries are not held, and their places are remembered.
        let remembered = if self.is_log { self.seen.len() } else { self.held.len() };
        self.summary.is_full |= remembered >= HELD_MAX;
        self.summary.is_full || self.terms.max.is_some_and(|max| taken >= max)
    }

    fn round_events(&self) -> usize {
        let seconds = usize::try_from(ROUND_MAX.as_secs()).unwrap_or(usize::MAX);
        let rate = self.terms.rate.map(|rate| usize::try_from(rate).unwrap_or(usize::MAX));
        rate.map_or(ROUND_EVENTS, |rate| rate.saturating_mul(seconds).clamp(1, ROUND_EVENTS))
    }

    /// What an entry is in order by: the key of its event, where its source has an order.
    fn key(&self, entry: &Entry) -> Option<Arc<str>> {
        let key = entry.event.key.as_deref()?;
        let source = entry.record.as_ref().map_or("", |record| &record.source);
        let config = self.plan.sources.iter().find(|known| *known.name == *source);
        let kind = config.and_then(|source| source.config.kind());
        let is_ordered = kind.is_none_or(|kind| kind.nature().ordered_by.is_some());
        is_ordered.then(|| format!("{source}\n{key}").into())
    }

    /// Looks at what has been received, and adds what is to be sent to `found`. Answers its bytes.
    fn take(&mut self, deliveries: Vec<Delivery>, found: &mut Vec<Found>) -> usize {
        let now = OffsetDateTime::now_utc();
        let mut taken = 0;
        for (delivery, branch) in self.open(deliveries) {
            let Delivery { received, attempt, token, .. } = delivery;
            let position = received.origin.position.clone();
            let is_new = self.seen.insert(position.clone());
            if let Some(unread) = &mut self.unread
                && is_new
            {
                unread.came(&token);
            }
            if self.gone.contains(&position) {
                // Its lease was lost before it could be deleted.
                branch.finish(Outcome::Duplicate);
                continue;
            }
            let entry = Entry::read(&self.name, &received);
            let run = entry.record.as_ref().and_then(|record| record.run.as_deref());
            if run == Some(&*self.terms.run) || !is_new {
                // It has had its turn; or its lease was lost, and it has been looked at.
                self.hold(branch);
                continue;
            }
            self.summary.seen += 1;
            if self.is_enough() || !self.terms.filter.means(&entry, now) {
                self.hold(branch);
                continue;
            }
            self.summary.meant += 1;
            let way = match &self.terms.task {
                Task::Redrive { .. } => way(self.plan, self.terms.to, &entry).map(Some),
                Task::List | Task::Discard => Ok(None),
            };
            let why_not = way.as_ref().err().map(String::as_str);
            (self.tell)(Told::Found(&entry, why_not));
            match way {
                Err(reason) => self.skip(&reason, branch),
                Ok(_) if self.terms.dry_run => self.hold(branch),
                Ok(Some(way)) => {
                    taken += received.bytes();
                    found.push(Found { entry, way, received, attempt, token, branch });
                }
                Ok(None) if self.terms.task == Task::Discard => {
                    let errand = Errand::Discard;
                    self.flying.insert(token, Flying { position, key: None, errand });
                    branch.finish(Outcome::Filtered);
                }
                Ok(None) => self.hold(branch),
            }
        }
        self.listen();
        (self.tell)(Told::Progress(self.summary));
        taken
    }

    /// Has the leases kept of what was received.
    fn open(&self, deliveries: Vec<Delivery>) -> Vec<(Delivery, Branch)> {
        let (mut opened, mut all, mut bytes) = (Vec::new(), Vec::new(), 0);
        for delivery in deliveries {
            let (token, size) = (delivery.token.clone(), delivery.received.bytes());
            let (since, ties) = (delivery.since, delivery.ties.clone());
            let opening = Opening { token, since, bytes: size, ties, process: None };
            let (pending, branches) = self.desk.open(opening, 1);
            bytes += size;
            opened.push(pending);
            all.extend(branches.map(|branch| (delivery.clone(), branch)));
        }
        self.budget.take(all.len(), bytes);
        self.pass_on(Note::Opened { pending: opened, oldest: None });
        all
    }

    /// Keeps an entry hidden until the end, when it goes back. One of a log stays there anyway.
    fn hold(&mut self, branch: Branch) {
        if self.is_log {
            branch.finish(Outcome::Filtered);
        } else {
            self.held.push(branch);
        }
    }

    fn skip(&mut self, reason: &str, branch: Branch) {
        *self.summary.skipped.entry(reason.to_owned()).or_default() += 1;
        self.hold(branch);
    }

    /// Sends what was read, and waits until it has arrived, or failed, or has been stopped.
    async fn send_round(&mut self) {
        // When it is to end, if it was stopped, and whether the rest has been recalled.
        let mut end = None;
        loop {
            let mut jobs = Jobs::default();
            while end.is_none() && self.may_launch() && self.next_at <= Instant::now() {
                self.launch(&mut jobs).await;
            }
            jobs.dispatch().await;
            if self.flying.is_empty() && !self.may_launch() {
                return;
            }
            let is_paced = end.is_none() && self.may_launch();
            let end_at = end.map_or_else(Instant::now, |(at, _)| at);
            tokio::select! {
                biased;
                () = self.terms.stop.cancelled(), if end.is_none() => {
                    self.round.drain().into_iter().for_each(|found| self.hold(found.branch));
                    end = Some((Instant::now() + self.plan.grace, false));
                }
                Some(note) = self.told.recv() => self.note(note),
                () = sleep_until(self.next_at), if is_paced => {}
                () = sleep_until(end_at), if end.is_some() => {
                    if end.is_some_and(|(_, is_recalled)| is_recalled) {
                        self.flying.clear();
                    } else if let Some(ways) = &mut self.ways {
                        ways.recall();
                        ways.outlets().stop(Instant::now()).await;
                        // What the lanes have given back has been told. What another's are sending
                        // is heard of a little later.
                        self.listen();
                        end = Some((Instant::now() + SENT_MAX, true));
                    }
                }
            }
        }
    }

    fn may_launch(&self) -> bool {
        self.round.is_ready() && self.flying.len() < IN_FLIGHT_MAX
    }

    /// Sends the next entry.
    async fn launch(&mut self, jobs: &mut Jobs) {
        let (Some((key, found)), Some(ways)) = (self.round.next(), &mut self.ways) else { return };
        let Found { entry, way, received, attempt, token, branch } = found;
        let position = received.origin.position.clone();
        let moves = |keys: &HashSet<Arc<str>>| key.as_ref().is_some_and(|key| keys.contains(key));
        let is_moved = self.moving.as_ref().is_some_and(moves);
        if !is_moved && let Err(reason) = ways.open(way).await {
            self.skip(&reason, branch);
            self.ended(key.as_ref(), Outcome::Returned { after: None });
            return;
        }
        let run = self.terms.run.clone();
        if is_moved {
            let Some(record) = &entry.record else {
                // Nothing tells it from a new one, once it is parked again: it stays before them.
                self.skip(BEHIND, branch);
                self.ended(key.as_ref(), Outcome::Filtered);
                return;
            };
            let record = DeadLetter { run: Some(run.to_string()), ..(**record).clone() };
            let trail = trail(&entry, received, attempt, None);
            self.flying.insert(token, Flying { position, key, errand: Errand::Move });
            ways.park_again(branch, trail, record).into_iter().for_each(|job| jobs.add(job));
            return;
        }
        if let Some(rate) = self.terms.rate {
            self.next_at = self.next_at.max(Instant::now()) + Duration::from_secs(1) / rate.max(1);
        }
        if let Some(tracer) = self.terms.beside.as_ref().and_then(|metrics| metrics.tracer()) {
            let route = entry.record.as_ref().and_then(|record| record.route.as_deref());
            let intake = tracer.intake(SystemTime::now());
            branch.trace(intake.again(&entry.event, &received, attempt, route));
        }
        let redriven = Arc::new(Redriven::new(entry.record.clone(), run));
        let trail = trail(&entry, received, attempt, Some(redriven.clone()));
        let ordered = key.is_some();
        self.flying.insert(token, Flying { position, key, errand: Errand::Redrive(redriven) });
        self.summary.in_flight = self.flying.len();
        (self.tell)(Told::Progress(self.summary));
        let sent = ways.jobs(way, &entry, branch, ordered, trail);
        sent.into_iter().for_each(|job| jobs.add(job));
    }

    /// Takes in what has been told by now.
    fn listen(&mut self) {
        while let Ok(note) = self.told.try_recv() {
            self.note(note);
        }
    }

    /// Counts how an entry has ended, and has it settled.
    fn note(&mut self, note: Note) {
        let ended = match &note {
            Note::Settled { settled, .. } => {
                self.flying.remove(&settled.token).map(|flying| (flying, settled.outcome))
            }
            Note::Opened { .. } => None,
        };
        self.pass_on(note);
        let Some((Flying { position, key, errand }, outcome)) = ended else { return };
        if outcome.is_done() {
            self.gone.insert(position);
        }
        match (outcome, &errand) {
            (Outcome::Returned { .. }, _) => {}
            (_, Errand::Discard) => self.summary.discarded += 1,
            (_, Errand::Move) => {
                self.moved += 1;
                *self.summary.skipped.entry(BEHIND.to_owned()).or_default() += 1;
            }
            (Outcome::Delivered, _) => self.summary.redriven += 1,
            (Outcome::Duplicate, _) => self.summary.duplicates += 1,
            (Outcome::Filtered, _) => self.summary.filtered += 1,
            (Outcome::DeadLettered, Errand::Redrive(redriven)) => {
                let class = redriven.failed().unwrap_or_default().to_owned();
                *self.summary.failed.entry(class).or_default() += 1;
            }
        }
        self.ended(key.as_ref(), outcome);
        self.summary.in_flight = self.flying.len();
        (self.tell)(Told::Progress(self.summary));
    }

    /// Lets the next of a key go: to its sink, or behind one that was parked again. Where neither is
    /// possible, none goes any more.
    fn ended(&mut self, key: Option<&Arc<str>>, outcome: Outcome) {
        let Some(key) = key else { return };
        match (outcome, &mut self.moving) {
            (Outcome::DeadLettered, Some(moving)) => _ = moving.insert(key.clone()),
            (Outcome::DeadLettered | Outcome::Returned { .. }, _) => {
                let behind = self.round.fail(key);
                behind.into_iter().for_each(|found| self.skip(BEHIND, found.branch));
                return;
            }
            _ => {}
        }
        self.round.done(key);
    }

    /// Waits until everything is deleted or has gone back; not for a service that takes nothing.
    async fn released(&mut self) -> bool {
        let mut open = self.budget.in_flight();
        while timeout(STILL, ended(&mut self.tasks)).await.is_err() {
            if std::mem::replace(&mut open, self.budget.in_flight()) == open {
                return false;
            }
        }
        true
    }

    fn pass_on(&self, note: Note) {
        if let Some(keeper) = &self.keeper {
            keeper.tell(note);
        }
    }

    /// Gives everything back that is still in hand, and lets go of the source.
    pub(super) async fn end(mut self) -> Option<Outlets> {
        drop(self.round.drain());
        self.held.clear();
        let brought = self.receive.close().await;
        drop(self.open(brought));
        self.listen();
        self.keeper = None;
        if !self.released().await {
            self.finish.cancel();
            let _ = timeout(QUIET, ended(&mut self.tasks)).await;
        }
        self.summary.in_flight = 0;
        self.summary.unconfirmed += self.budget.in_flight().0;
        self.ways.map(Ways::into_outlets)
    }
}

/// Where an entry came from, as its next dead letter will tell.
fn trail(
    entry: &Entry,
    received: Arc<Received>,
    attempt: u32,
    redriven: Option<Arc<Redriven>>,
) -> Trail {
    Trail {
        received,
        attempt,
        arrived: entry.arrived().unwrap_or_else(OffsetDateTime::now_utc),
        original: entry.event.clone(),
        part: entry.record.as_ref().and_then(|record| record.parked_part()),
        redriven,
    }
}

async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}
