//! A whole daemon on queues in memory, from a file as a person writes it.

use std::{collections::BTreeMap, sync::atomic::AtomicU32};

use eventferry::{
    config::{self, environment::Environment},
    daemon,
    event::Event,
    sink::{Outgoing, Sink, memory::MemorySink},
    source::memory::{Config, Queue},
};
use serde_json::json;
use tokio::{sync::oneshot, time::timeout};

use crate::rig::{self, PATIENCE};

/// A daemon with one source, `near`, and as many sinks as are named.
pub struct World {
    /// What the names of its queues begin with.
    pub prefix: String,
    pub near: Queue,
    pub sinks: BTreeMap<&'static str, Queue>,
    stop: oneshot::Sender<()>,
    daemon: tokio::task::JoinHandle<Result<(), daemon::DaemonError>>,
}

pub fn queue(name: &str, kind: &str) -> Queue {
    let config = json!({ "queue": name, "kind": kind });
    Queue::named(&serde_json::from_value::<Config>(config).unwrap())
}

/// Puts events into a queue, as a producer does.
pub async fn put(queue: &Queue, events: Vec<Event>) {
    let sink = MemorySink::new(queue.clone());
    let pack = |event| Outgoing {
        route: "test".into(),
        packed: sink.pack(&event).unwrap(),
        event: event.into(),
    };
    let batch: Vec<Outgoing> = events.into_iter().map(pack).collect();
    assert!(sink.send(&batch).await.iter().all(Result::is_ok));
}

impl World {
    /// Runs a file of these routes. Queues in memory are the process's: names get a number.
    pub fn run(sinks: &[&'static str], routes: &str) -> Self {
        Self::of_kind("standard", sinks, routes)
    }

    pub fn of_kind(kind: &str, sinks: &[&'static str], routes: &str) -> Self {
        Self::with_state("memory", kind, sinks, routes)
    }

    pub fn with_state(state: &str, kind: &str, sinks: &[&'static str], routes: &str) -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let prefix = format!("world-{number}-");
        let name = |sink: &str| format!("{prefix}{sink}");
        let mut file = format!("state: {state}\nadmin: off\ndead_letter: parked\n");
        file += &format!(
            "sources: {{ near: {{ memory: {{ queue: {}, kind: {kind} }} }} }}\nsinks:\n",
            name("near")
        );
        for sink in sinks.iter().chain(&["parked"]) {
            file += &format!("  {sink}: {{ memory: {{ queue: {} }} }}\n", name(sink));
        }
        let file = format!("{file}routes:\n{routes}");
        let checked = config::read("strategies.yaml", &file, &Environment::default());
        let plan = checked.unwrap_or_else(|problems| panic!("{problems}\n{file}")).plan;
        let near = queue(&name("near"), kind);
        let sinks =
            sinks.iter().chain(&["parked"]).map(|sink| (*sink, queue(&name(sink), "standard")));
        let sinks = sinks.collect();
        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = tokio::spawn(daemon::run(plan, async {
            let _ = stopped.await;
        }));
        Self { prefix, near, sinks, stop, daemon }
    }

    pub async fn put(&self, events: Vec<Event>) {
        put(&self.near, events).await;
    }

    /// Waits until everything has left the source.
    pub async fn empty(&self) {
        let empty = self.near.wait_until(<[_]>::is_empty);
        timeout(PATIENCE, empty).await.expect("events stay at their source");
    }

    /// Waits until everything has left the source, drains, and gives what is in each sink.
    pub async fn end(self) -> BTreeMap<&'static str, Vec<Event>> {
        self.empty().await;
        self.stop.send(()).unwrap();
        self.daemon.await.unwrap().unwrap();
        let mut contents = BTreeMap::new();
        for (name, queue) in self.sinks {
            contents.insert(name, rig::decoded(&queue).await);
        }
        contents
    }
}
