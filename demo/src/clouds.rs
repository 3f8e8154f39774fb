//! The three local clouds, each started, seeded and stopped by its own script. The demo's have
//! directories of their own: fresh at every start, and never somebody else's.

use std::{fs::File, path::PathBuf, process::Stdio, time::Instant};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

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
/// killed has left behind is stopped first.
pub async fn start(places: &Places) -> Result<()> {
    stop(places).await?;
    let starts = CLOUDS.iter().map(|cloud| async move {
        let begun = Instant::now();
        cloud.run(places, "start").await?;
        println!("  {:<26} ready after {:.1} s", cloud.name, begun.elapsed().as_secs_f32());
        Ok::<_, anyhow::Error>(())
    });
    // All are waited for, also when one fails: a start that is left half-way cannot be stopped.
    futures::future::join_all(starts).await.into_iter().collect()
}

/// Stops what [`start`] has started. Does nothing for what is not running.
pub async fn stop(places: &Places) -> Result<()> {
    let stops = CLOUDS.iter().map(|cloud| cloud.run(places, "stop"));
    futures::future::join_all(stops).await.into_iter().collect()
}

impl Cloud {
    /// Runs the script, apart from this program's process group: a Ctrl-C at the terminal must
    /// reach this program only, which then stops everything in its order.
    async fn run(&self, places: &Places, verb: &str) -> Result<()> {
        let log = self.log(places);
        let output = File::options().create(true).append(true).open(&log)?;
        let mut script = Command::new(places.root.join(self.script));
        script
            .arg(verb)
            .env(self.state, places.local.join(self.directory()))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let run = script.status().await.with_context(|| format!("cannot run {}", self.script))?;
        if !run.success() {
            bail!("{} {verb} failed; {}", self.script, tail(&log));
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
