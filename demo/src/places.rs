//! Where everything of one run is. The standard ports where they are free, others where not, so
//! that a demo gets along with whatever else runs on this machine.

use std::{
    convert::Infallible,
    env,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

/// What the scripts, `config/demo.yaml` and the SDKs read, and the port each stands for.
const PORTS: [(&str, u16); 6] = [
    ("LOCALSTACK_PORT", 4566),
    ("AZURITE_BLOB_PORT", 10000),
    ("AZURITE_QUEUE_PORT", 10001),
    ("EVENTHUBS_PORT", 5672),
    ("EVENTHUBS_CONTROL_PORT", 5300),
    ("EVENTFERRY_ADMIN_PORT", 8080),
];

/// Set in the environment of the program that [`enter`] starts.
const ENTERED: &str = "EVENTFERRY_DEMO_ENTERED";

/// The account that every Azurite knows. Its key is public, and good for nothing else.
/// <https://learn.microsoft.com/azure/storage/common/storage-use-azurite#well-known-storage-account-and-key>
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Whether [`enter`] has been passed.
pub(crate) fn entered() -> bool {
    env::var_os(ENTERED).is_some()
}

/// Starts this program again, in its own place, with an environment that says where everything
/// is. Secrets and AWS credentials are read from the environment, here as in production, and a
/// running program cannot change its own.
pub(crate) fn enter() -> Result<Infallible> {
    let mut program = Command::new(env::current_exe()?);
    program.args(env::args_os().skip(1)).env(ENTERED, "1");
    let mut port_of = std::collections::HashMap::new();
    for (name, standard) in PORTS {
        let port = free_port(standard).with_context(|| format!("no free port for {name}"))?;
        program.env(name, port.to_string());
        port_of.insert(name, port);
    }
    program
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "eu-west-1")
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env("LOCALSTACK_ENDPOINT", format!("http://127.0.0.1:{}", port_of["LOCALSTACK_PORT"]))
        .env(
            "EVENTHUBS_CONNECTION_STRING",
            format!(
                "Endpoint=sb://127.0.0.1:{};SharedAccessKeyName=demo;SharedAccessKey=demo;\
                 UseDevelopmentEmulator=true;",
                port_of["EVENTHUBS_PORT"]
            ),
        )
        .env(
            "STORAGE_CONNECTION_STRING",
            format!(
                "DefaultEndpointsProtocol=http;AccountName={AZURITE_ACCOUNT};\
                 AccountKey={AZURITE_KEY};\
                 QueueEndpoint=http://127.0.0.1:{}/{AZURITE_ACCOUNT};",
                port_of["AZURITE_QUEUE_PORT"]
            ),
        );
    Err(program.exec()).context("cannot start again")
}

fn free_port(standard: u16) -> std::io::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    Ok(bind(standard).or_else(|_| bind(0))?.local_addr()?.port())
}

/// Where things are, for people to look and for [`crate::clouds`] and [`crate::relay`] to use.
pub(crate) struct Places {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Logs, process ids and state of this demo.
    pub(crate) local: PathBuf,
}

impl Places {
    /// Those of the environment that [`enter`] made.
    pub(crate) fn new() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("the demo is a member of a workspace")?.to_owned();
        let local = root.join(".local/demo");
        Ok(Self { root, local })
    }

    /// The port that a variable names.
    pub(crate) fn port(&self, name: &str) -> String {
        env::var(name).unwrap_or_default()
    }

    /// The daemon's admin listener.
    pub(crate) fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port("EVENTFERRY_ADMIN_PORT"))
    }
}
