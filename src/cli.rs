//! The command line: `run`, `check`, `explain`, `test`, `dead-letters`, `token` and `schema`; and
//! `status`, `tail`, `pause`, `resume` and `checkpoints`, which ask a daemon that runs.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Parser, Subcommand};

use crate::{
    admin::access::token,
    cloud::Context,
    config::{
        self, Checked,
        difference::Difference,
        environment::Environment,
        guarantee,
        plan::Plan,
        problem::{Finding, Problems},
    },
    fault::Fault,
    state::memory::MemoryStore,
    telemetry::Metrics,
};

pub mod dead_letters;
pub(crate) mod diff;
pub mod event_file;
mod expectation;
pub mod explain;
pub mod forecast;
pub mod operate;
pub mod paint;
pub mod remote;
pub mod status;
mod table;
pub mod tail;
pub mod test;

pub use dead_letters::dead_letters;
pub use explain::explain;
pub use test::test;

/// How long `check --online` waits for one source or sink.
const PROBE_DEADLINE: Duration = Duration::from_secs(30);

/// Carries events between AWS (SNS, SQS) and Azure (Event Hubs, Storage Queues), and loses none.
#[derive(Debug, Parser)]
#[command(name = "eventferry", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Carry events until SIGTERM or Ctrl-C, then finish what is open and stop.
    Run {
        /// The configuration file.
        #[arg(long, env = "EVENTFERRY_CONFIG")]
        config: PathBuf,
    },
    /// Say all that is wrong with a configuration, and what each of its routes guarantees.
    Check {
        /// The configuration file.
        #[arg(long, env = "EVENTFERRY_CONFIG")]
        config: PathBuf,
        /// Also ask the live services whether every source and sink can be used.
        #[arg(long)]
        online: bool,
        /// Also say what a daemon that runs this file would start anew to take up the other.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Say what would become of one event, step by step, without sending anything.
    Explain {
        /// The configuration file.
        #[arg(long, env = "EVENTFERRY_CONFIG")]
        config: PathBuf,
        /// What to explain, and how.
        #[command(flatten)]
        options: explain::Options,
    },
    /// Run tests of a configuration: events, and what is expected to become of them.
    Test {
        /// The configuration file.
        #[arg(long, env = "EVENTFERRY_CONFIG")]
        config: PathBuf,
        /// Files of tests, in YAML.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Look at what was parked, send it again, or throw it away.
    ///
    /// The messages of a queue are hidden from others meanwhile, and their receive counts rise.
    #[command(subcommand)]
    DeadLetters(Box<dead_letters::Command>),
    /// Make a token for the admin API, and the hash of it that the configuration has.
    Token,
    /// Ask a daemon that runs.
    #[command(flatten)]
    Ask(Box<Ask>),
    /// Print the JSON Schema of the configuration file.
    Schema,
}

/// What a daemon that runs can be asked, by its admin API.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Say what a daemon does and how it is doing.
    Status(remote::Remote),
    /// Print the next events of a daemon, as they pass.
    Tail(tail::Tail),
    /// Have a daemon receive nothing more of a source until it is resumed, or restarts.
    Pause(operate::Pause),
    /// Have a daemon go on with a source that is paused.
    Resume(operate::Pause),
    /// Say how far a daemon has read its event hubs, or go back in one.
    Checkpoints(Box<operate::OfLogs>),
}

/// Asks a daemon. Answers whether all is well.
///
/// # Errors
/// It has not done what it was asked.
pub async fn ask(
    command: &Ask,
    paint: paint::Paint,
    out: &mut impl Write,
) -> Result<bool, remote::Failure> {
    match command {
        Ask::Status(remote) => status::status(remote, paint, out).await,
        Ask::Tail(asked) => tail::tail(asked, paint, out).await,
        Ask::Pause(what) => operate::pause(what, true, out).await,
        Ask::Resume(what) => operate::pause(what, false, out).await,
        Ask::Checkpoints(asked) => operate::checkpoints(asked, paint, out).await,
    }
}

/// Reads the file for `explain` and `test`, with the secrets that its steps need. Those of sources
/// and sinks are not needed.
///
/// # Errors
/// Everything that is wrong with it.
fn ready(path: &Path) -> Result<Plan, Problems> {
    let mut plan = config::load(path, &Environment::of_process())?.plan;
    // Whoever asks what becomes of an event may well not have the keys of production.
    for Finding { path, text, .. } in plan.unlock().err().unwrap_or_default() {
        eprintln!("warning: {path}: {text}; the step fails");
    }
    Ok(plan)
}

/// Writes a report on the file, for a person. Answers whether it can be used.
///
/// # Errors
/// The report cannot be written.
pub async fn check(
    path: &Path,
    online: bool,
    against: Option<&Path>,
    out: &mut impl Write,
) -> io::Result<bool> {
    let environment = Environment::of_process();
    let Checked { plan, warnings } = match config::load(path, &environment) {
        Ok(checked) => checked,
        Err(problems) => {
            write!(out, "{problems}")?;
            return Ok(false);
        }
    };
    if !warnings.all.is_empty() {
        writeln!(out, "{warnings}")?;
    }
    for guarantee in guarantee::guarantees(&plan) {
        writeln!(out, "{guarantee}")?;
    }
    if let Some(running) = against {
        let running = match config::load(running, &environment) {
            Ok(checked) => checked.plan,
            Err(problems) => {
                write!(out, "{problems}")?;
                return Ok(false);
            }
        };
        match Difference::between(&running, &plan) {
            Ok(difference) => writeln!(out, "{difference}")?,
            Err(needs_restart) => writeln!(out, "{needs_restart}\n")?,
        }
    }
    let is_reachable = !online || probe(&plan, out).await?;
    if is_reachable {
        writeln!(out, "{} can be used; its generation is {}", path.display(), plan.generation)?;
    }
    Ok(is_reachable)
}

/// Writes the JSON Schema of the file.
///
/// # Errors
/// It cannot be written.
pub fn schema(out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &config::schema())?;
    writeln!(out)
}

/// Writes a new token, and what the file says of it. It is shown this once.
///
/// # Errors
/// It cannot be written.
pub fn token(out: &mut impl Write) -> io::Result<()> {
    let token = token::generate();
    writeln!(out, "token:  {token}")?;
    writeln!(out, "sha256: {}", token::Hash::of(&token))
}

/// Connects to every source and sink at once, and writes what each of them says.
async fn probe(plan: &Plan, out: &mut impl Write) -> io::Result<bool> {
    // Probing reads no checkpoint, and must not lock the file of a daemon that is running.
    let metrics = Metrics::new().map_err(io::Error::other)?;
    let context = |name: &Arc<str>| Context {
        name: name.clone(),
        clouds: plan.clouds.clone(),
        state: Arc::new(MemoryStore::default()),
        metrics: metrics.clone(),
        audit: Arc::default(),
    };
    let sources = plan.sources.iter().map(|source| async move {
        let probed = within(source.config.probe(&context(&source.name))).await;
        (format!("source {}", source.name), probed)
    });
    let sinks = plan.sinks.iter().map(|sink| async move {
        let context = context(&sink.name);
        let probed = within(async { sink.config.build(&context).await?.probe().await }).await;
        (format!("sink {}", sink.name), probed)
    });
    let (sources, sinks) =
        tokio::join!(futures::future::join_all(sources), futures::future::join_all(sinks));
    let mut is_reachable = true;
    for (name, probed) in sources.into_iter().chain(sinks) {
        match probed {
            Ok(()) => writeln!(out, "{name}: ok")?,
            Err(fault) => {
                is_reachable = false;
                writeln!(out, "{name}: {fault}")?;
            }
        }
    }
    writeln!(out)?;
    Ok(is_reachable)
}

async fn within<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let done = tokio::time::timeout(PROBE_DEADLINE, work).await;
    done.unwrap_or_else(|elapsed| Err(Fault::busy("probe", "timeout", elapsed)))
}
