//! The three local clouds, each started, seeded and stopped by its own script. The demo's have
//! directories of their own: fresh at every start, and never somebody else's.

use std::{
    fs::File,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};
use tokio::{
    process::{Child, Command},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{places::Places, report::tail};

/// A local cloud.
struct Cloud {
    name: &'static str,
    script: &'static str,
    /// The variable that tells the script where to keep its log and process id.
    state: &'static str,
}

const CLOUDS: [Cloud; 3] = [
    Cloud {
        name: "LocalStack (SNS, SQS)",
        script: "localstack/localstack.sh",
        state: "LOCALSTACK_STATE",
    },
    Cloud {
        name: "Azurite (Storage Queues)",
        script: "azurite/azurite.sh",
        state: "AZURITE_STATE",
    },
    Cloud {
        name: "Event Hubs emulator",
        script: "eventhubs/emulator.sh",
        state: "EVENTHUBS_STATE",
    },
];

/// Starts all three and waits until they are ready and seeded. What an earlier demo that was
/// killed has left behind is stopped first. Answers false if it was stopped itself.
pub(crate) async fn start(places: &Places, stop: &CancellationToken) -> Result<bool> {
    self::stop(places).await?;
    let starts = CLOUDS.iter().map(|cloud| async move {
        let begun = Instant::now();
        let mut script = cloud.script(places, "start")?;
        tokio::select! {
            run = script.wait() => cloud.succeeded(places, "start", run?)?,
            () = stop.cancelled() => {
                kill_group(&script).await?;
                script.wait().await?;
                return Ok(false);
            }
        }
        println!("  {:<26} ready after {:.1} s", cloud.name, begun.elapsed().as_secs_f32());
        Ok(true)
    });
    // All are waited for, also when one fails: what starts half-way cannot be stopped.
    let started: Vec<Result<bool>> = futures::future::join_all(starts).await;
    started.into_iter().try_fold(true, |all, one| Ok(all && one?))
}

/// Stops what [`start`] has started. Does nothing for what is not running.
pub(crate) async fn stop(places: &Places) -> Result<()> {
    let stops = CLOUDS.iter().map(|cloud| async move {
        let run = cloud.script(places, "stop")?.wait().await?;
        cloud.succeeded(places, "stop", run)
    });
    futures::future::join_all(stops).await.into_iter().collect()
}

/// Ends a script and all that it has started.
async fn kill_group(script: &Child) -> Result<()> {
    if let Some(id) = script.id() {
        Command::new("kill").args(["-TERM", "--", &format!("-{id}")]).status().await?;
    }
    Ok(())
}

impl Cloud {
    /// Runs the script, apart from this program's process group: a Ctrl-C at the terminal must
    /// reach this program only, which then stops everything in its order.
    fn script(&self, places: &Places, verb: &str) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log(places))?;
        let mut script = Command::new(places.root.join(self.script));
        script
            .arg(verb)
            .env(self.state, places.local.join(self.directory()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        script.spawn().with_context(|| format!("cannot run {}", self.script))
    }

    fn succeeded(&self, places: &Places, verb: &str, run: ExitStatus) -> Result<()> {
        if !run.success() {
            bail!("{} {verb} failed; {}", self.script, tail(&self.log(places)));
        }
        Ok(())
    }

    fn directory(&self) -> &str {
        self.script.split('/').next().unwrap_or(self.script)
    }

    fn log(&self, places: &Places) -> PathBuf {
        places.local.join(format!("{}.log", self.directory()))
    }
}
