//! Another configuration for a daemon that runs: read, checked, compared and connected before
//! anything that runs is touched, so that whatever is wrong with it changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::listed;
use crate::{
    claim::Store,
    cloud::Context,
    config::{
        self, Checked,
        difference::{Difference, NeedsRestart},
        environment::Environment,
        plan::Plan,
        problem::{Finding, Problems},
    },
    fault::Fault,
    sink::Sink,
};

/// How long a new source or sink may take to answer. One that takes longer is not there.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Requests that wait for their turn.
const REQUESTS_MAX: usize = 8;

/// Who wants the file to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// SIGHUP.
    Signal,
    /// `POST /reload`.
    Admin,
    /// The file has changed.
    Change,
}

impl By {
    /// A short name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Admin => "admin",
            Self::Change => "change",
        }
    }
}

/// A wish to have the file read again.
#[derive(Debug)]
pub struct Request {
    /// Whose.
    pub by: By,
    /// Whom to tell what became of it; nobody may wait any more.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of a [`Request`].
pub type Answer = Result<Applied, Arc<Refused>>;

/// The daemon runs what the file says.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Which file.
    pub generation: Arc<str>,
    /// What was different before.
    pub difference: Arc<Difference>,
}

/// Why a file is not taken up. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no file: the daemon was started with a configuration of its own.
    #[error("the daemon was not started with a file")]
    NoFile,
    /// The daemon is ending.
    #[error("the daemon is ending")]
    Ending,
    /// What is wrong with it.
    #[error("{0}")]
    Invalid(Problems),
    /// Keys or salts that cannot be had.
    #[error("{}", listed(.0))]
    Secrets(Vec<Finding>),
    /// It changes what cannot change while the daemon runs.
    #[error(transparent)]
    NeedsRestart(#[from] NeedsRestart),
    /// Something new in it cannot be used: which, and why. It may work later.
    #[error("{}", .0.join("\n"))]
    Unusable(Vec<String>),
}

impl Refused {
    /// A short stable name for metrics and logs.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::NoFile => "no_file",
            Self::Ending => "ending",
            Self::Invalid(_) => "invalid",
            Self::Secrets(_) => "secrets",
            Self::NeedsRestart(_) => "needs_restart",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// A configuration that can take over at once.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) difference: Difference,
    /// The sinks that are new, or whose connection is, by name, connected.
    pub(super) sinks: Vec<(Arc<str>, Arc<dyn Sink>)>,
    /// The store for large bodies.
    pub(super) claims: Option<Arc<Store>>,
}

/// What requests are made through.
#[must_use]
pub fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(REQUESTS_MAX)
}

/// Reads the file, and logs its warnings.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Plan, Problems> {
    let Checked { plan, warnings } = config::load(path, &Environment::of_process())?;
    for problem in &warnings.all {
        let (file, setting, why) = (&warnings.file, &problem.path, &problem.text);
        tracing::warn!(%file, %setting, why, "the configuration is doubtful");
    }
    Ok(plan)
}

/// Makes ready what the file says now, for a daemon that runs another plan.
///
/// # Errors
/// It cannot be taken up.
pub(super) async fn prepare(
    file: PathBuf,
    running: Arc<Plan>,
    claims: Option<Arc<Store>>,
    context: Context,
) -> Result<Prepared, Refused> {
    let read = tokio::task::spawn_blocking(move || load(&file)).await;
    let defect = |error| Refused::Unusable(vec![format!("the file cannot be read: {error}")]);
    let mut plan = read.map_err(defect)?.map_err(Refused::Invalid)?;
    plan.unlock().map_err(Refused::Secrets)?;
    plan.go_on(&running);
    let difference = Difference::between(&running, &plan)?;
    let context = Context { clouds: plan.clouds.clone(), ..context };
    let (sinks, sources) =
        tokio::join!(sinks(&plan, &difference, &context), sources(&plan, &difference, &context));
    let (mut unusable, mut connected) = (sources, Vec::new());
    for sink in sinks {
        match sink {
            Ok(sink) => connected.push(sink),
            Err(why) => unusable.push(why),
        }
    }
    let claims = match &plan.claim_check {
        Some(config) if difference.claim_check || claims.is_none() => {
            match config.open(&plan.clouds).await {
                Ok(store) => Some(Arc::new(store)),
                Err(fault) => {
                    unusable.push(format!("claim_check: {fault}"));
                    None
                }
            }
        }
        Some(_) => claims,
        None => None,
    };
    if unusable.is_empty() {
        Ok(Prepared { plan, difference, sinks: connected, claims })
    } else {
        Err(Refused::Unusable(unusable))
    }
}

/// Connects the sinks that have to be connected.
async fn sinks(
    plan: &Plan,
    difference: &Difference,
    context: &Context,
) -> Vec<Result<(Arc<str>, Arc<dyn Sink>), String>> {
    let new = plan.sinks.iter().filter(|sink| difference.new_connections.contains(&sink.name));
    let connect = |sink: &config::plan::SinkPlan| {
        let (name, config) = (sink.name.clone(), sink.config.clone());
        let context = Context { name: name.clone(), ..context.clone() };
        async move {
            let connected = within(async {
                let sink = config.build(&context).await?;
                sink.probe().await?;
                Ok(sink)
            });
            let failed = |fault| format!("sink {name}: {fault}");
            Ok((name.clone(), connected.await.map_err(failed)?))
        }
    };
    join_all(new.map(connect)).await
}

/// Asks whether the sources with new settings are there. To connect them now would take partitions
/// from those that run.
async fn sources(plan: &Plan, difference: &Difference, context: &Context) -> Vec<String> {
    let new = plan.sources.iter().filter(|it| difference.new_sources.contains(&it.name));
    let ask = |source: &config::plan::SourcePlan| {
        let (name, config) = (source.name.clone(), source.config.clone());
        let context = Context { name: name.clone(), ..context.clone() };
        async move {
            let asked = within(config.probe(&context)).await;
            asked.err().map(|fault| format!("source {name}: {fault}"))
        }
    };
    join_all(new.map(ask)).await.into_iter().flatten().collect()
}

async fn within<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let done = timeout(CONNECT_MAX, work).await;
    done.unwrap_or_else(|late| Err(Fault::busy("connect", "timeout", late)))
}
