//! Dead letters that come back: looked at, sent again, or thrown away.
//!
//! Entries are read from where their sink has put them, which hides them there for as long as this
//! goes on. What is sent again leaves the dead-letter queue like any event leaves its source: when
//! its sink has confirmed it. What fails again is parked again, with its count of redrives raised,
//! and is not looked at any more by the same redrive. Everything else goes back as it was.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::{
    cloud::Context,
    config::{
        plan::{Plan, RoutePlan, State},
        problem::{Finding, suggestion},
    },
    daemon::{
        outlets::{Lent, Outlets},
        stores::Stores,
    },
    dedup::ledger::Ledger,
    fault::Fault,
    state::{DedupStore, embedded, memory::MemoryStore},
    telemetry::Metrics,
};

mod drive;
pub mod entry;
pub mod filter;
mod order;
pub mod reading;
mod round;
mod ways;

use drive::{Drive, Terms};
use entry::Entry;
use filter::Filter;
use reading::{Opened, Via};
use ways::Ways;

/// How long a dead-letter sink may take to connect as a source.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The configuration.
    pub plan: Plan,
    /// Names of dead-letter sinks; all of the plan's where there is none.
    pub sinks: Vec<String>,
    /// How to read them, where that does not follow from the plan.
    pub via: Via,
    /// Which entries.
    pub filter: Filter,
    /// How many of them at most.
    pub max: Option<usize>,
    /// How many are sent in a second at most.
    pub rate: Option<u32>,
    /// What to do with them.
    pub task: Task,
    /// Whether only to say what would be done.
    pub dry_run: bool,
}

/// What to do with entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Look at them.
    List,
    /// Delete them.
    Discard,
    /// Send them again.
    Redrive {
        /// Into this sink, as they are; else through their own routes.
        to: Option<String>,
        /// Whether routes that deliver each event once may for this time deliver it twice.
        without_dedup: bool,
    },
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Told<'a> {
    /// An entry that is meant; and why it is left alone, if it is.
    Found(&'a Entry, Option<&'a str>),
    /// How far it has come.
    Progress(&'a Summary),
}

/// What has become of the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// Entries that were looked at.
    pub seen: usize,
    /// Of these, the ones that are meant; all that follow are of them.
    pub meant: usize,
    /// Sent again, and confirmed.
    pub redriven: usize,
    /// Found to have been delivered before.
    pub duplicates: usize,
    /// Taken by their route, which then did not send them.
    pub filtered: usize,
    /// Deleted.
    pub discarded: usize,
    /// Failed again, by the class of the cause, and parked again.
    pub failed: BTreeMap<String, usize>,
    /// Left alone, by the reason.
    pub skipped: BTreeMap<String, usize>,
    /// Under way.
    pub in_flight: usize,
    /// Whether it was ended before it had come to its end.
    pub interrupted: bool,
    /// Whether it looked at as many entries as it can hold, and there may be more.
    pub is_full: bool,
    /// Entries that a log says it has, and that did not come.
    pub unread: u64,
    /// Entries whose deletion, or return, was not confirmed by the end: of those that are counted
    /// as gone, some may come again.
    pub unconfirmed: usize,
}

impl Summary {
    /// Those that have failed again.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// What is not known of them in the end, if anything.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        (self.unconfirmed > 0).then(|| {
            format!(
                "the service has not confirmed that {} of them were deleted or given back; see the \
                 log, and look again: what is counted as gone may still be there",
                self.unconfirmed
            )
        })
    }

    /// Those that are where they were, and were not skipped.
    #[must_use]
    pub fn left(&self) -> usize {
        let skipped: usize = self.skipped.values().sum();
        self.meant.saturating_sub(self.gone() + skipped + self.in_flight)
    }

    /// Those that are not where they were.
    fn gone(&self) -> usize {
        self.redriven + self.duplicates + self.filtered + self.discarded + self.failures()
    }
}

/// Why nothing can be done, or no more.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// What is asked for makes no sense for this plan.
    #[error("{0}")]
    Request(String),
    /// Routes that deliver each event once cannot ask what they have delivered.
    #[error(
        "route `{route}` delivers each event once, and {why}; stop the daemon, or say \
         `--without-dedup` to deliver all the same, perhaps for the second time"
    )]
    Dedup {
        /// Such a route.
        route: String,
        /// What is in the way.
        why: String,
    },
    /// A store that cannot be opened.
    #[error(transparent)]
    Store(Fault),
    /// Keys or salts that cannot be had.
    #[error("{}", listed(.0))]
    Secrets(Vec<Finding>),
    /// A dead-letter sink that cannot be read.
    #[error("`{sink}` cannot be read: {fault}")]
    Read {
        /// Its name.
        sink: Arc<str>,
        /// Why.
        fault: Fault,
    },
    /// Two metrics of one name.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

fn listed(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| format!("{}: {finding}", finding.path));
    lines.collect::<Vec<_>>().join("; ")
}

/// Does what is asked for, until `stop`: then what is under way may finish within the grace period
/// of the plan, and the rest goes back. `tell` hears of it.
///
/// # Errors
/// It cannot be done, or a dead-letter sink does not answer any more. What was in hand has gone
/// back.
pub async fn run(
    request: Request,
    stop: CancellationToken,
    tell: &mut (dyn FnMut(Told<'_>) + std::marker::Send),
) -> Result<Summary, RedriveError> {
    run_beside(request, Beside::default(), stop, tell).await
}

/// What a daemon in the same process has, and a redrive uses with it.
#[derive(Clone, Default)]
pub(crate) struct Beside {
    /// What knows what has been delivered.
    pub(crate) ledger: Option<Arc<Ledger>>,
    /// Its sinks.
    pub(crate) sinks: Lent,
    /// Its metrics, by which what is sent again is traced.
    pub(crate) metrics: Option<Arc<Metrics>>,
}

/// The same beside a daemon in this process.
///
/// # Errors
/// See [`run`].
pub(crate) async fn run_beside(
    request: Request,
    Beside { ledger, sinks: lent, metrics: beside }: Beside,
    stop: CancellationToken,
    tell: &mut (dyn FnMut(Told<'_>) + std::marker::Send),
) -> Result<Summary, RedriveError> {
    let Request { mut plan, sinks, via, filter, max, rate, task, dry_run } = request;
    let sinks = resolve(&plan, &sinks)?;
    let sources = sources(&plan, &sinks, &via, &task)?;
    let to = straight(&plan, &sinks, &task)?;
    let sends = matches!(task, Task::Redrive { .. }) && !dry_run;
    let mut keys = None;
    if sends {
        plan.unlock().map_err(RedriveError::Secrets)?;
        if let Some(route) = once(&plan, &filter, &task).filter(|_| ledger.is_none()) {
            keys = open_keys(&plan, route).await?;
        }
    }
    let claims = match &plan.claim_check {
        Some(config) => {
            Some(Arc::new(config.open(&plan.clouds).await.map_err(RedriveError::Store)?))
        }
        None => None,
    };
    let plan = Arc::new(plan);
    let metrics = Metrics::new()?;
    let context = Context {
        name: "redrive".into(),
        clouds: plan.clouds.clone(),
        // What is read of a log is forgotten, so that it can be read again.
        state: Arc::new(MemoryStore::default()),
        metrics: metrics.clone(),
        audit: Arc::default(),
    };
    let mut outlets =
        sends.then(|| Outlets::new(plan.clone(), keys, claims.clone(), metrics.clone()));
    if let Some(outlets) = &mut outlets {
        outlets.send_through(lent);
    }
    let asks = once(&plan, &filter, &task).is_some();
    if let (Some(outlets), Some(ledger)) = (&mut outlets, ledger.filter(|_| asks)) {
        outlets.share(ledger);
    }
    let run: Arc<str> = uuid::Uuid::new_v4().simple().to_string().into();
    let terms = Terms { filter, max, rate, task, dry_run, to, run, beside, stop };
    let mut summary = Summary::default();
    let mut result = Ok(());
    for (sink, config) in sinks.into_iter().zip(sources) {
        if terms.stop.is_cancelled() {
            break;
        }
        let name = plan.sinks[sink].name.clone();
        let failed = |fault| RedriveError::Read { sink: name.clone(), fault };
        let context = Context { name: name.clone(), ..context.clone() };
        let opened = tokio::time::timeout(CONNECT_MAX, reading::open(&config, &context)).await;
        let opened = opened.unwrap_or_else(|late| Err(Fault::busy("connect", "timeout", late)));
        let Opened { mut source, unread } = match opened {
            Ok(opened) => opened,
            Err(fault) => {
                result = Err(failed(fault));
                break;
            }
        };
        if let Some(store) = &claims {
            source = source.resolving(store, config.format);
        }
        let ways = outlets
            .take()
            .map(|outlets| Ways::new(plan.clone(), context.clone(), outlets, sink, to));
        let opened = Opened { source, unread };
        let mut drive = Drive::new(&plan, &terms, opened, &context, ways, &mut summary, &mut *tell);
        let worked = drive.work().await;
        outlets = drive.end().await;
        if let Err(fault) = worked {
            result = Err(failed(fault));
            break;
        }
    }
    if let Some(mut outlets) = outlets {
        outlets.stop(tokio::time::Instant::now() + plan.grace).await;
    }
    summary.interrupted = terms.stop.is_cancelled();
    result.map(|()| summary)
}

/// The dead-letter sinks of a plan, by their places.
fn dead_letter_sinks(plan: &Plan) -> Vec<usize> {
    let routes = plan.routes.iter().flat_map(|route| &route.dead_letters);
    let mut sinks: Vec<usize> = plan.dead_letters.iter().chain(routes).copied().collect();
    sinks.sort_unstable();
    sinks.dedup();
    sinks
}

fn resolve(plan: &Plan, names: &[String]) -> Result<Vec<usize>, RedriveError> {
    let all = dead_letter_sinks(plan);
    if all.is_empty() {
        let text = "the file names no `dead_letter` sink, so that nothing is parked anywhere";
        return Err(RedriveError::Request(text.to_owned()));
    }
    if names.is_empty() {
        return Ok(all);
    }
    let mut found = Vec::new();
    for name in names {
        let index = all.iter().find(|index| *plan.sinks[**index].name == **name);
        let known = || all.iter().map(|index| &*plan.sinks[*index].name);
        let unknown = || {
            let text = suggestion(name, known());
            RedriveError::Request(format!("`{name}` is not a dead-letter sink of the file; {text}"))
        };
        let index = *index.ok_or_else(unknown)?;
        if !found.contains(&index) {
            found.push(index);
        }
    }
    Ok(found)
}

/// The sources that read these sinks.
fn sources(
    plan: &Plan,
    sinks: &[usize],
    via: &Via,
    task: &Task,
) -> Result<Vec<crate::source::SourceConfig>, RedriveError> {
    if via.queue.is_some() && sinks.len() != 1 {
        let text = "a queue stands for one topic; say with `--sink` for which";
        return Err(RedriveError::Request(text.to_owned()));
    }
    let mut sources = Vec::new();
    for &sink in sinks {
        let sink = &plan.sinks[sink];
        let source = reading::source_of(sink, via).map_err(RedriveError::Request)?;
        let is_log = source.kind().is_some_and(|kind| kind.nature().is_log);
        if is_log && *task == Task::Discard {
            return Err(RedriveError::Request(format!(
                "`{}` is {}, which nothing can be deleted from: its entries go when their \
                 retention ends",
                sink.name,
                sink.config.nature().what
            )));
        }
        sources.push(source);
    }
    Ok(sources)
}

/// The sink that everything is to go to, if that was asked for.
fn straight(plan: &Plan, from: &[usize], task: &Task) -> Result<Option<usize>, RedriveError> {
    let Task::Redrive { to: Some(name), .. } = task else { return Ok(None) };
    let index = plan.sinks.iter().position(|sink| *sink.name == **name);
    let unknown = || {
        let text = suggestion(name, plan.sinks.iter().map(|sink| &*sink.name));
        RedriveError::Request(format!("`{name}` is not one of the sinks; {text}"))
    };
    let index = index.ok_or_else(unknown)?;
    if from.contains(&index) {
        let text = format!("`{name}` is where the entries are; name another sink to send them to");
        return Err(RedriveError::Request(text));
    }
    Ok(Some(index))
}

/// A route that entries may go through and that has to know what has been delivered.
fn once<'p>(plan: &'p Plan, filter: &Filter, task: &Task) -> Option<&'p RoutePlan> {
    let Task::Redrive { to: None, without_dedup: false } = task else { return None };
    let is_used = |name: &str| filter.route.as_deref().is_none_or(|wanted| wanted == name);
    let mut routes = plan.routes.iter().filter(|route| is_used(&route.name));
    routes.find(|route| route.dedup.is_some())
}

/// The keys of what has been delivered, which this route needs.
async fn open_keys(
    plan: &Plan,
    route: &RoutePlan,
) -> Result<Option<Arc<dyn DedupStore>>, RedriveError> {
    let refuse = |why: &str| RedriveError::Dedup { route: route.name.to_string(), why: why.into() };
    match &plan.state {
        State::Memory => {
            return Err(refuse("`state: memory` keeps what it has delivered within the daemon"));
        }
        // To open a file that is not there would make one in which nothing has been delivered.
        State::Embedded { path } if !embedded::file_in(path).exists() => {
            let file = embedded::file_in(path);
            let why = format!("what it has delivered is not on this machine in {}", file.display());
            return Err(refuse(&why));
        }
        _ => {}
    }
    match Stores::open(plan).await {
        Ok(stores) => Ok(stores.keys),
        Err(fault) if fault.class == embedded::IN_USE => {
            Err(refuse("the file of what it has delivered is open in a daemon that is running"))
        }
        Err(fault) => Err(RedriveError::Store(fault)),
    }
}
