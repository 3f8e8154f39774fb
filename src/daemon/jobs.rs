//! What is done to dead letters while the daemon runs: one thing at a time, because to look at them
//! is to receive them, and two who look would hide them from one another.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::{
    admin::sight::Sight,
    dead_letter::DeadLetter,
    metadata::rfc3339,
    redrive::{
        self, Beside, Request, Summary, Task, Told,
        entry::{Entry, Mark},
        filter::Filter,
    },
    telemetry::Metrics,
};

pub mod selection;

use selection::Selection;

/// What waits for its turn.
const WAITING_MAX: usize = 4;
/// Jobs that are remembered.
const KNOWN_MAX: usize = 20;
/// Entries of which one has more than a count.
const ENTRIES_MAX: usize = 500;
/// Groups by which they are counted; a class can be any word that stands in an entry.
const GROUPS_MAX: usize = 200;

/// The jobs of a daemon.
#[derive(Debug)]
pub struct Jobs {
    orders: mpsc::Sender<Order>,
    known: Mutex<VecDeque<Arc<Known>>>,
    next: AtomicU64,
}

/// A job that is remembered.
struct Known {
    id: String,
    job: watch::Sender<Job>,
    stop: CancellationToken,
    /// Which entries are meant, as it was understood when it was asked for.
    filter: Filter,
    /// What a dry run has found.
    found: Mutex<Arc<HashSet<Mark>>>,
    /// Whom to tell what has become of it.
    told: Mutex<Option<Ended>>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Is told of a job when it has ended.
pub type Ended = Box<dyn FnOnce(&Job) + Send>;

/// Something to be done to dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Job {
    /// Its name; empty of a look.
    pub id: String,
    /// What.
    pub task: Kind,
    /// Whether it only says what would be done.
    pub dry_run: bool,
    /// How far it is.
    pub state: State,
    /// To which of them.
    pub selection: Selection,
    /// When it began, as RFC 3339 has it.
    pub began: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// What has become of them.
    pub summary: Summary,
    /// How many there are of each route and cause.
    pub groups: Vec<Group>,
    /// The first of them, where they are looked at and left alone.
    pub entries: Vec<Parked>,
    /// Why it could not be done.
    pub error: Option<String>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Looks at them.
    List,
    /// Sends them again.
    Redrive,
    /// Deletes them.
    Discard,
}

impl Kind {
    /// As JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Redrive => "redrive",
            Self::Discard => "discard",
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Another is under way.
    Waiting,
    /// It is under way.
    Running,
    /// It has come to its end.
    Done,
    /// It could not be done, or not to its end.
    Failed,
    /// Somebody has stopped it.
    Stopped,
}

impl State {
    /// As JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// Entries of one route and cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Group {
    /// The route that gave them up.
    pub route: Option<String>,
    /// The class of the cause; none where somebody else has put them there.
    pub class: Option<String>,
    /// How many.
    pub entries: usize,
    /// When the first of them was given up, as RFC 3339 has it.
    pub first: Option<String>,
    /// When the last of them was.
    pub last: Option<String>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Parked {
    /// The dead-letter sink that has it.
    pub sink: Arc<str>,
    /// Why it is there, as a dead letter has it.
    pub record: Option<Json>,
    /// The event as it came, as far as it may be seen.
    pub event: Json,
    /// Why it cannot be read, if it cannot.
    pub unreadable: Option<String>,
    /// Why it would be left alone, if it would.
    pub skipped: Option<String>,
}

/// A job on its way to the task that does it.
#[derive(Debug)]
pub struct Order {
    job: Underway,
    sight: Sight,
    done: Option<oneshot::Sender<Job>>,
}

/// A job that has not ended. Once this is gone it has, however that came: who wanted to be told is.
#[derive(Debug)]
struct Underway(Arc<Known>);

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.job.send_if_modified(|job| {
            let is_left = matches!(job.state, State::Waiting | State::Running);
            if is_left {
                (job.state, job.ended) = (State::Stopped, rfc3339(OffsetDateTime::now_utc()));
            }
            is_left
        });
        let told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(told) = told {
            told(&self.0.job.borrow());
        }
    }
}

/// Why a job is not taken on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too much waits already, or the daemon is ending.
    #[error("{WAITING_MAX} others wait for their turn already; try again when one has ended")]
    Busy,
    /// There is no such job.
    #[error("there is no job `{0}`, or it has been forgotten: the last {KNOWN_MAX} are kept")]
    Unknown(String),
    /// It is no dry run of this that has come to its end.
    #[error("job `{0}` is no dry run of this that has come to its end; make one first")]
    NoDryRun(String),
    /// What is asked for makes no sense.
    #[error("{0}")]
    Selection(String),
}

impl Jobs {
    /// Those of a daemon that starts, and what `work` needs.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Order>) {
        let (orders, asked) = mpsc::channel(WAITING_MAX);
        let (known, next) = (Mutex::default(), AtomicU64::new(1));
        (Arc::new(Self { orders, known, next }), asked)
    }

    /// Looks at entries, and waits for what there is to see.
    ///
    /// # Errors
    /// It is not taken on.
    pub async fn look(&self, selection: Selection, sight: Sight) -> Result<Job, Refused> {
        let filter = selection.filter().map_err(Refused::Selection)?;
        let job = Known::new(String::new(), Kind::List, true, selection, filter);
        let (done, told) = oneshot::channel();
        self.order(Order { job: Underway(Arc::new(job)), sight, done: Some(done) })?;
        told.await.map_err(|_| Refused::Busy)
    }

    /// Has it found out what would be done.
    ///
    /// # Errors
    /// It is not taken on.
    pub fn dry_run(&self, task: Kind, selection: Selection) -> Result<Job, Refused> {
        let filter = selection.filter().map_err(Refused::Selection)?;
        self.begin(task, true, selection, filter, None)
    }

    /// Has it done, to what this dry run has found and to nothing else; `ended` is told when.
    ///
    /// # Errors
    /// It is not taken on.
    pub fn confirm(&self, task: Kind, dry_run: &str, ended: Ended) -> Result<Job, Refused> {
        let known = self.find(dry_run)?;
        let job = known.job.borrow().clone();
        if (job.task, job.dry_run, job.state) != (task, true, State::Done) {
            return Err(Refused::NoDryRun(dry_run.to_owned()));
        }
        let among = known.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let filter = Filter { among: Some(among), ..known.filter.clone() };
        self.begin(task, false, job.selection, filter, Some(ended))
    }

    fn begin(
        &self,
        task: Kind,
        dry_run: bool,
        selection: Selection,
        filter: Filter,
        ended: Option<Ended>,
    ) -> Result<Job, Refused> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let known = Known::new(id, task, dry_run, selection, filter);
        let known = Arc::new(Known { told: Mutex::new(ended), ..known });
        let order = Order { job: Underway(known.clone()), sight: Sight::Outside, done: None };
        self.order(order)?;
        let job = known.job.borrow().clone();
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KNOWN_MAX
            && let Some(oldest) = all.iter().position(|known| known.job.borrow().ended.is_some())
        {
            all.remove(oldest);
        }
        all.push_back(known);
        Ok(job)
    }

    fn order(&self, order: Order) -> Result<(), Refused> {
        self.orders.try_send(order).map_err(|refused| {
            // It has not begun, so that there is no end to tell of.
            let order = refused.into_inner();
            order.job.0.told.lock().unwrap_or_else(PoisonError::into_inner).take();
            Refused::Busy
        })
    }

    fn find(&self, id: &str) -> Result<Arc<Known>, Refused> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().find(|known| known.id == id).cloned();
        known.ok_or_else(|| Refused::Unknown(id.to_owned()))
    }

    /// The jobs that are known, the last first.
    #[must_use]
    pub fn known(&self) -> Vec<Job> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().map(|known| known.job.borrow().clone()).collect()
    }

    /// A job, as it goes on.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn watch(&self, id: &str) -> Result<watch::Receiver<Job>, Refused> {
        Ok(self.find(id)?.job.subscribe())
    }

    /// Stops a job: what is under way may finish, the rest goes back.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn stop(&self, id: &str) -> Result<Job, Refused> {
        let known = self.find(id)?;
        known.stop.cancel();
        Ok(known.job.borrow().clone())
    }
}

impl Known {
    fn new(id: String, task: Kind, dry_run: bool, selection: Selection, filter: Filter) -> Self {
        let job = Job {
            id: id.clone(),
            task,
            dry_run,
            state: State::Waiting,
            selection,
            began: None,
            ended: None,
            summary: Summary::default(),
            groups: Vec::new(),
            entries: Vec::new(),
            error: None,
        };
        let (stop, found) = (CancellationToken::new(), Mutex::default());
        Self { id, job: watch::Sender::new(job), stop, filter, found, told: Mutex::default() }
    }
}

/// Does one job after the other, until `end`: then what is under way may finish within the grace
/// period, and the rest goes back.
pub(super) async fn work(
    mut orders: mpsc::Receiver<Order>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    beside: Beside,
    end: CancellationToken,
) {
    loop {
        let order = tokio::select! {
            biased;
            () = end.cancelled() => return,
            order = orders.recv() => order,
        };
        let Some(order) = order else { return };
        // Stopped, each ends in order; dropped, what it holds would stay hidden for a while.
        let stop = order.job.0.stop.clone();
        let mut doing = std::pin::pin!(order.run(&health, &metrics, beside.clone()));
        tokio::select! {
            () = &mut doing => continue,
            () = end.cancelled() => stop.cancel(),
        }
        doing.await;
        return;
    }
}

impl Order {
    async fn run(self, health: &Health, metrics: &Metrics, beside: Beside) {
        let Self { job: underway, sight, mut done } = self;
        let known = underway.0.clone();
        let filter = known.filter.clone();
        let now = || rfc3339(OffsetDateTime::now_utc());
        known.job.send_modify(|job| (job.state, job.began) = (State::Running, now()));
        let job = known.job.borrow().clone();
        let (keeps, marks) = (job.dry_run, job.task != Kind::List);
        let mut sum = Sum { sight, keeps, marks, ..Sum::new(&known) };
        let result = match health.plan() {
            _ if known.stop.is_cancelled() => Ok(Summary { interrupted: true, ..job.summary }),
            None => Err("the daemon has not begun".to_owned()),
            Some(plan) => {
                let task = match job.task {
                    Kind::List => Task::List,
                    Kind::Discard => Task::Discard,
                    Kind::Redrive => Task::Redrive {
                        to: job.selection.to.clone(),
                        without_dedup: job.selection.without_dedup,
                    },
                };
                let request = Request {
                    plan: (*plan).clone(),
                    sinks: job.selection.sinks.clone(),
                    via: job.selection.via(),
                    filter,
                    max: job.selection.max,
                    rate: job.selection.rate,
                    dry_run: job.dry_run && task != Task::List,
                    task,
                };
                let mut tell = |told: Told<'_>| sum.hear(&told);
                let run = redrive::run_beside(request, beside, known.stop.clone(), &mut tell);
                stopped_if_left(run, &known.stop, done.as_mut())
                    .await
                    .map_err(|error| error.to_string())
            }
        };
        let Sum { groups, entries, found, .. } = sum;
        *known.found.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        known.job.send_modify(|job| {
            (job.groups, job.entries) = (told(groups), entries);
            job.ended = now();
            match result {
                Ok(summary) => {
                    job.error = summary.doubt().filter(|_| !job.dry_run);
                    job.state = match (summary.interrupted, &job.error) {
                        (true, _) => State::Stopped,
                        (false, Some(_)) => State::Failed,
                        (false, None) => State::Done,
                    };
                    job.summary = summary;
                }
                Err(error) => (job.state, job.error) = (State::Failed, Some(error)),
            }
        });
        tracing::info!(
            job = %known.id, task = job.task.as_str(), dry_run = job.dry_run,
            state = known.job.borrow().state.as_str(), "dead letters dealt with"
        );
        drop(underway);
        if job.task != Kind::List {
            let task = if job.dry_run { "dry_run" } else { job.task.as_str() };
            metrics.job(task, known.job.borrow().state.as_str());
        }
        if let Some(done) = done {
            // Whoever asked may have left.
            let _ = done.send(known.job.borrow().clone());
        }
    }
}

/// What comes of `run`, which is stopped once nobody waits for it any more. One that nobody waits
/// for in the first place goes on.
async fn stopped_if_left<T>(
    run: impl Future<Output = T>,
    stop: &CancellationToken,
    waits: Option<&mut oneshot::Sender<Job>>,
) -> T {
    let mut run = std::pin::pin!(run);
    if let Some(waits) = waits {
        tokio::select! {
            ended = &mut run => return ended,
            () = waits.closed() => stop.cancel(),
        }
    }
    run.await
}

/// What entries are counted by.
type RouteAndClass = (Option<String>, Option<String>);
/// How many, and when the first and the last were given up.
type Counted = (usize, Option<OffsetDateTime>, Option<OffsetDateTime>);

/// What has been heard of a job.
struct Sum<'a> {
    known: &'a Known,
    sight: Sight,
    /// Whether entries are told.
    keeps: bool,
    /// Whether they are remembered, so that it can be done to them.
    marks: bool,
    groups: BTreeMap<RouteAndClass, Counted>,
    entries: Vec<Parked>,
    found: HashSet<Mark>,
}

impl<'a> Sum<'a> {
    fn new(known: &'a Known) -> Self {
        let (groups, entries, found) = (BTreeMap::new(), Vec::new(), HashSet::new());
        let sight = Sight::Outside;
        Self { known, sight, keeps: true, marks: true, groups, entries, found }
    }

    fn hear(&mut self, told: &Told<'_>) {
        match told {
            Told::Progress(summary) => {
                self.known.job.send_modify(|job| job.summary.clone_from(summary));
            }
            Told::Found(entry, skipped) => self.found(entry, *skipped),
        }
    }

    fn found(&mut self, entry: &Entry, skipped: Option<&str>) {
        let record = entry.record.as_deref();
        let class = record.map(|record| record.class.clone());
        let mut group = (record.and_then(|record| record.route.clone()), class);
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&group) {
            group = (None, Some("others".to_owned()));
        }
        let last = record.map(|record| record.last);
        let (count, from, to) = self.groups.entry(group).or_default();
        *count += 1;
        *from = from.map_or(last, |from| Some(last.map_or(from, |last| from.min(last))));
        *to = (*to).max(last);
        if !self.keeps {
            return;
        }
        if skipped.is_none() && self.marks {
            self.found.insert(entry.mark());
        }
        if self.entries.len() < ENTRIES_MAX {
            self.entries.push(Parked {
                sink: entry.sink.clone(),
                record: record.and_then(|record| {
                    // A digest of what may be guessed.
                    let part = record.part.clone().filter(|_| self.sight != Sight::Outside);
                    serde_json::to_value(DeadLetter { part, ..record.clone() }).ok()
                }),
                event: self.sight.show(&entry.event),
                unreadable: entry.unreadable.map(|error| error.to_string()),
                skipped: skipped.map(str::to_owned),
            });
        }
    }
}

fn told(groups: BTreeMap<RouteAndClass, Counted>) -> Vec<Group> {
    let group = |((route, class), (entries, first, last)): (RouteAndClass, Counted)| Group {
        route,
        class,
        entries,
        first: first.and_then(rfc3339),
        last: last.and_then(rfc3339),
    };
    groups.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests;
