//! The daemon under demonstration, run as anybody would run it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{places::Places, report::tail};

/// How long it may take to connect to everything.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long it may take to finish what it has begun: its own grace period, and some more.
const DRAIN_MAX: Duration = Duration::from_secs(35);
/// How long one look at it may take.
const ASK_MAX: Duration = Duration::from_secs(5);

/// `eventferry run`, in its own process.
pub(crate) struct Relay {
    process: Child,
    admin: String,
    log: PathBuf,
    http: reqwest::Client,
}

impl Relay {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(places: &Places, config: &Path) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("eventferry");
        let log = places.local.join("eventferry.log");
        let output = File::create(&log)?;
        let mut daemon = Command::new(&program);
        daemon
            .args(["run", "--config"])
            .arg(config)
            .current_dir(&places.root)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true);
        let process = daemon
            .spawn()
            .with_context(|| format!("cannot run {}; is it built?", program.display()))?;
        let mut relay = Self { process, admin: places.admin(), log, http: reqwest::Client::new() };
        relay.ready().await?;
        Ok(relay)
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        let mut last = "no answer".to_owned();
        while Instant::now() < deadline {
            self.alive()?;
            match self.get("/readyz").await {
                Ok((true, _)) => return Ok(()),
                Ok((false, text)) => last = text,
                Err(_) => {}
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("eventferry was not ready in time: {last}\n{}", tail(&self.log))
    }

    /// An error with the end of its log if it has died.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("eventferry has ended ({status}); {}", tail(&self.log)),
        }
    }

    /// Its metrics, in the text format of Prometheus.
    pub(crate) async fn metrics(&self) -> Result<String> {
        Ok(self.get("/metrics").await?.1)
    }

    async fn get(&self, path: &str) -> Result<(bool, String)> {
        let request = self.http.get(format!("{}{path}", self.admin)).timeout(ASK_MAX);
        let answer = request.send().await?;
        Ok((answer.status().is_success(), answer.text().await?))
    }

    /// Asks it to end, and waits until it has finished what is open.
    pub(crate) async fn drain(mut self) -> Result<()> {
        let Some(id) = self.process.id() else { return self.alive() };
        Command::new("kill").args(["-TERM", &id.to_string()]).status().await?;
        match timeout(DRAIN_MAX, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(status) => bail!("eventferry did not end well ({:?}); {}", status?, tail(&self.log)),
            Err(_) => bail!("eventferry did not end in time; {}", tail(&self.log)),
        }
    }
}
