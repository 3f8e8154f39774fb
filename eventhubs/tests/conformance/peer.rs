//! Clients of the emulator, all driven by the same JSON requests: the official SDKs as programs of
//! their own, and our client in this process. The requests are described in `peers/README.md`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use eventhubs::emulator::Emulator;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::own::Own;

/// No request takes longer: the slowest is an SDK that retries.
const PATIENCE: Duration = Duration::from_secs(180);

/// Which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sdk {
    Own,
    Rust,
    Python,
    JavaScript,
}

impl Sdk {
    pub(crate) const ALL: [Self; 4] = [Self::Own, Self::Rust, Self::Python, Self::JavaScript];

    /// Connects the client, or says why it cannot be used. Where `EVENTFERRY_REQUIRE_PEERS` is set
    /// a client that is not set up is a failure.
    pub(crate) fn start(self, emulator: &Emulator) -> Option<Peer> {
        let address = emulator.address().to_string();
        let Some(mut command) = self.command() else {
            return Some(Peer { sdk: self, inner: Inner::Own(Box::new(Own::new(emulator))) });
        };
        if !Path::new(command.as_std().get_program()).exists() {
            let hint = format!("{self:?} is not set up; run eventhubs/peers/setup.sh");
            assert!(std::env::var_os("EVENTFERRY_REQUIRE_PEERS").is_none(), "{hint}");
            eprintln!("skipped: {hint}");
            return None;
        }
        command.arg(address).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let program = Program { _child: child, requests, answers };
        Some(Peer { sdk: self, inner: Inner::Foreign(Box::new(program)) })
    }

    fn command(self) -> Option<Command> {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let local = match std::env::var_os("EVENTHUBS_PEERS") {
            Some(directory) => PathBuf::from(directory),
            None => peers.join("../../.local/peers"),
        };
        match self {
            Self::Own => None,
            Self::Rust => {
                // Beside this test's own program, where the workspace is built.
                let built = std::env::current_exe().unwrap();
                Some(Command::new(built.parent().unwrap().with_file_name("eventhubs-peer")))
            }
            Self::Python => {
                let mut command = Command::new(local.join("python/bin/python"));
                command.arg(peers.join("python/peer.py"));
                Some(command)
            }
            Self::JavaScript => {
                let modules = local.join("js/node_modules");
                let node = find_node().filter(|_| modules.exists());
                let mut command = Command::new(node.unwrap_or_else(|| "no-node".into()));
                command.arg(peers.join("js/peer.js")).env("NODE_PATH", modules);
                Some(command)
            }
        }
    }
}

fn find_node() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("node")).find(|node| node.exists())
}

/// A client that is connected.
pub(crate) struct Peer {
    pub(crate) sdk: Sdk,
    inner: Inner,
}

enum Inner {
    Own(Box<Own>),
    Foreign(Box<Program>),
}

struct Program {
    /// Ends with this.
    _child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Asks, and gives the answer whatever it is.
    pub(crate) async fn ask(&mut self, request: Value) -> Value {
        let sdk = self.sdk;
        let answer = self.ask_within(request, PATIENCE).await;
        answer.unwrap_or_else(|| panic!("{sdk:?} does not answer"))
    }

    /// Asks, and gives the answer if it comes in time. If not, the peer is of no use any more.
    pub(crate) async fn ask_within(&mut self, request: Value, time: Duration) -> Option<Value> {
        let answer = async {
            match &mut self.inner {
                Inner::Own(own) => own.answer(request).await,
                Inner::Foreign(program) => {
                    let Program { requests, answers, .. } = program.as_mut();
                    requests.write_all(format!("{request}\n").as_bytes()).await.unwrap();
                    let line = answers.next_line().await.unwrap();
                    serde_json::from_str(&line.expect("the peer has ended")).unwrap()
                }
            }
        };
        tokio::time::timeout(time, answer).await.ok()
    }

    /// Asks, and fails the test unless the answer is good.
    pub(crate) async fn must(&mut self, request: Value) -> Value {
        let mut about = request.clone();
        about.as_object_mut().unwrap().remove("events");
        let answer = self.ask(request).await;
        assert!(answer.get("error").is_none(), "{:?}, asked to {about}: {answer}", self.sdk);
        answer
    }

    /// Opens a receiver called `name` on a partition of the hub `hub`.
    pub(crate) async fn open(&mut self, name: &str, partition: &str, from: Value) {
        self.must(json!({
            "op": "open", "name": name, "hub": "hub", "group": "$Default",
            "partition": partition, "from": from,
        }))
        .await;
    }

    /// Reads that many events, unless they do not come in time.
    pub(crate) async fn read(&mut self, name: &str, count: usize) -> Vec<Value> {
        let request = json!({ "op": "read", "name": name, "count": count, "timeout_ms": 20_000 });
        let answer = self.must(request).await;
        answer["events"].as_array().unwrap().clone()
    }

    pub(crate) async fn close(&mut self, name: &str) {
        self.must(json!({ "op": "close", "name": name })).await;
    }
}
