//! The local clouds that tests run against: started on free ports by the same scripts that a
//! person uses, once per test run, and stopped when the test process is gone, however it went.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub mod azurite;
pub mod cord;
pub mod fake_sqs;
pub mod localstack;

/// Held for writing by tests that load the local clouds to their limit, and for reading by all
/// others that use them: a cloud that is slow to answer would look like one that fails.
static LOAD: RwLock<()> = RwLock::const_new(());

/// Waits for whoever loads the clouds to their limit.
pub async fn shared() -> RwLockReadGuard<'static, ()> {
    LOAD.read().await
}

/// Waits until nobody else uses the clouds.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    LOAD.write().await
}

/// A port that nobody listens at, below those that the system gives to connections on their way out:
/// one of these could be taken before whoever shall listen there does.
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const PORTS: u16 = 20_000;
    let first = uuid::Uuid::new_v4().as_fields().1 % PORTS;
    (0..PORTS)
        .map(|n| FIRST + (first + n) % PORTS)
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("some port is free")
}

/// A name that no other test of this or any other run uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// Where a local cloud of this run keeps its state.
fn state_dir(prefix: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique(prefix))
}

/// Runs `script start` with `env`, waits until it is ready, and leaves a watcher behind that runs
/// `script stop` and removes `state` once this process has ended.
#[expect(clippy::zombie_processes, reason = "the watcher outlives this process")]
pub fn start(script: &str, state: &Path, env: &[(&str, String)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let watch = r#"
        "$1" start >&2 || exit 1
        echo ready
        while kill -0 "$2" 2>/dev/null; do sleep 1; done
        "$1" stop >&2
        rm -rf "$3"
    "#;
    let mut child = Command::new("sh")
        .args(["-c", watch, "watch", script, &std::process::id().to_string()])
        .arg(state)
        .current_dir(root)
        .envs(env.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{script} start has failed; run `make test`, which installs it");
}

/// Runs `script command` with `env` and waits for it.
async fn command(script: &str, command: &str, env: &[(&'static str, String)]) {
    let status = tokio::process::Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .arg(command)
        .envs(env.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(status.await.unwrap().success(), "{script} {command} has failed");
}
