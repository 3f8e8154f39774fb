//! The local clouds that tests run against: started on free ports by the same scripts that a
//! person uses, once per test run, and stopped when the test process is gone, however it went.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

pub mod azurite;
pub mod fake_sqs;
pub mod localstack;

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A name that no other test of this or any other run uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

/// Runs `script start` with `env`, waits until it is ready, and leaves a watcher behind that runs
/// `script stop` once this process has ended.
#[expect(clippy::zombie_processes, reason = "the watcher outlives this process")]
pub fn start(script: &str, env: &[(&str, String)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let watch = r#"
        "$1" start >&2 || exit 1
        echo ready
        while kill -0 "$2" 2>/dev/null; do sleep 1; done
        "$1" stop >&2
    "#;
    let mut child = Command::new("sh")
        .args(["-c", watch, "watch", script, &std::process::id().to_string()])
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
