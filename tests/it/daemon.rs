//! The real binary: readiness, metrics, faults at start, and how it ends.

use std::{
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    canary,
    clouds::{free_port, localstack, unique},
    place::{clouds, place},
    rig::{self, PATIENCE},
};

mod dead_letters;
mod ending;
pub mod operations;
pub mod reload;

/// A running daemon, killed if its test ends early.
pub struct Daemon {
    child: Child,
    admin: String,
    dir: tempfile::TempDir,
    /// What every file of it says beside what its test is about.
    top: Json,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        canary::look_for_any(&self.dir.path().join("log"));
    }
}

impl Daemon {
    pub async fn start(config: Json) -> Self {
        Self::start_with(config, &[]).await
    }

    /// With more of an environment.
    async fn start_with(config: Json, more: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let clouds = clouds().await;
        let top = json!({
            "admin": { "listen": address },
            "state": { "embedded": { "path": dir.path().join("state") } },
            "aws": clouds.aws,
            "azure": clouds.azure,
        });
        let file = dir.path().join("daemon.yaml");
        std::fs::write(&file, whole(&top, config)).unwrap();
        let child = Self::spawn(dir.path(), more);
        Self { child, admin: format!("http://{address}"), dir, top }
    }

    /// The same daemon again, once it has ended.
    async fn start_again(&mut self, more: &[(&str, &str)]) {
        self.ended().await;
        self.child = Self::spawn(self.dir.path(), more);
    }

    fn spawn(dir: &Path, more: &[(&str, &str)]) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_eventferry"))
            .args(["run", "--config"])
            .arg(dir.join("daemon.yaml"))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Status and text of an admin page; nothing while the listener is not up yet.
    pub(crate) async fn get(&self, page: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("{}/{page}", self.admin)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    pub async fn wait_for(&self, page: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        self.wait_long_for(page, PATIENCE, wanted).await
    }

    pub async fn wait_long_for(
        &self,
        page: &str,
        patience: Duration,
        wanted: impl Fn(u16, &str) -> bool,
    ) -> String {
        let until = Instant::now() + patience;
        loop {
            let answer = self.get(page).await;
            if let Some((status, text)) = &answer
                && wanted(*status, text)
            {
                return text.clone();
            }
            assert!(Instant::now() < until, "{page}: {answer:?}; log: {}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "does not end; log: {}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self) -> String {
        read(&self.dir.path().join("log"))
    }
}

/// A file that says both.
fn whole(top: &Json, mut config: Json) -> String {
    for (name, value) in top.as_object().unwrap() {
        config.as_object_mut().unwrap().entry(name).or_insert(value.clone());
    }
    config.to_string()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn route(near: Json, far: Json) -> Json {
    json!({
        "unmatched": "drop",
        "sources": { "near": near },
        "sinks": { "far": far },
        "routes": [{ "name": "over", "from": ["near"], "to": { "all": ["far"] } }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_becomes_ready_counts_and_ends_with_zero() {
    let (near, far) = (place("sqs").await, place("event_hubs").await);
    let mut daemon = Daemon::start(route(near.source.clone(), far.sink.clone())).await;
    daemon.wait_for("readyz", |status, text| status == 200 && text == "ready\n").await;
    assert_eq!(daemon.get("livez").await.unwrap().0, 200);
    near.put(rig::events("e", 25, 5)).await;
    let line = "eventferry_settled_total{outcome=\"delivered\",source=\"near\"} 25";
    daemon.wait_for("metrics", |_, text| text.contains(line)).await;
    for line in [
        "eventferry_received_total{source=\"near\"} 25",
        "eventferry_delivered_total{route=\"over\",sink=\"far\"} 25",
        "eventferry_delivery_seconds_count{route=\"over\",sink=\"far\"} 25",
        "eventferry_backlog_events{partition=\"\",source=\"near\"}",
    ] {
        // The last is asked for apart.
        daemon.wait_for("metrics", |_, text| text.contains(line)).await;
    }
    let status: Json = serde_json::from_str(&daemon.get("status").await.unwrap().1).unwrap();
    assert_eq!(status["sources"][0]["received"], 25);
    assert_eq!(status["routes"][0]["to"][0]["delivered"], 25);
    assert_eq!(
        (&status["problems"], &status["sinks"][0]["breaker"]),
        (&json!([]), &json!("closed"))
    );
    let (page, text) = daemon.get("").await.unwrap();
    assert_eq!(page, 200);
    // What is not in it would be asked of strangers.
    assert!(text.contains("</html>") && !text.contains("://"));
    daemon.terminate();
    assert!(daemon.ended().await.success());
    let log = daemon.log();
    assert!(log.contains("draining") && log.contains("\"everything_delivered\":true"), "{log}");
    let payload = "{\\\"n\\\"";
    assert!(!log.contains(payload), "a payload is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_hub_is_settled_and_what_is_left_out_is_counted() {
    let (mut near, far) = (place("event_hubs").await, place("sqs").await);
    near.sink["event_hubs"]["partition"] = json!("0");
    let mut config = route(near.source.clone(), far.sink.clone());
    config["routes"][0]["expire"] = json!({ "after": "1h", "then": "drop" });
    let mut all = rig::events("e", 5, 0);
    all[2].time = Some(OffsetDateTime::now_utc() - Duration::from_secs(7_200));
    near.put(all).await;
    let daemon = Daemon::start(config).await;
    // Asked of the hub every 15 s.
    let lines = [
        "eventferry_filtered_total{reason=\"expired\",route=\"over\"} 1",
        "eventferry_settled_sequence_number{partition=\"0\",source=\"near\"} 4",
        "eventferry_retention_margin_ratio{partition=\"0\",source=\"near\"} 1",
        "eventferry_connector_up{connector=\"near\",kind=\"source\"} 1",
        "eventferry_connector_up{connector=\"far\",kind=\"sink\"} 1",
    ];
    daemon.wait_for("metrics", |_, text| lines.iter().all(|line| text.contains(line))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_read_on_is_counted_and_read_on_once_its_event_gets_through() {
    const LARGE: usize = 80;
    let (near, far) = (place("event_hubs").await, place("event_hubs").await);
    let mut config = route(near.source.clone(), far.sink.clone());
    config["reload"] = json!("on_request");
    let lenient = config.clone();
    config["routes"][0]["transform"] = json!([{ "parse": ["data"] }]);
    let daemon = Daemon::start(config).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    let mut all = rig::events("e", 1 + LARGE, 1);
    all[0].body = "no json".into();
    for event in &mut all[1..] {
        event.body = format!("\"{}\"", "x".repeat(900_000)).into();
    }
    near.put(all).await;
    let stalled = |text: &str| {
        let mut lines =
            text.lines().filter_map(|it| it.strip_prefix("eventferry_partition_stalls_total{"));
        lines.any(|line| line.contains("source=\"near\"") && !line.ends_with(" 0"))
    };
    daemon.wait_for("metrics", |_, text| stalled(text)).await;
    daemon.write_file(&lenient);
    assert_eq!(daemon.post("/reload", json!({})).await.0, 200);
    let delivered =
        format!("settled_total{{outcome=\"delivered\",source=\"near\"}} {}\n", 1 + LARGE);
    daemon.wait_for("metrics", |_, text| text.contains(&delivered)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_is_told_every_second() {
    let (near, far) = (place("sqs").await, place("sqs").await);
    let daemon = Daemon::start(route(near.source.clone(), far.sink.clone())).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    let mut answer = reqwest::get(format!("{}/status/live", daemon.admin)).await.unwrap();
    near.put(rig::events("e", 3, 0)).await;
    let until = Instant::now() + PATIENCE;
    let mut text = String::new();
    while !text.contains("\"delivered\":3") {
        let chunk = timeout_at(until, answer.chunk()).await.expect("not told").unwrap();
        text += std::str::from_utf8(&chunk.expect("ended")).unwrap();
    }
    assert!(text.starts_with("data:"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_queue_is_named_and_waited_for() {
    let far = place("event_hubs").await;
    let name = unique("late");
    let near = json!({ "sqs": { "queue": name, "poll": { "wait": "1s" } } });
    let mut daemon = Daemon::start(route(near, far.sink.clone())).await;
    let told = |status, text: &str| {
        status == 503 && text.contains("source near: GetQueueUrl failed") && text.contains(&name)
    };
    daemon.wait_for("readyz", told).await;
    let up = |is: u8| format!("eventferry_connector_up{{connector=\"near\",kind=\"source\"}} {is}");
    daemon.wait_for("metrics", |_, text| text.contains(&up(0))).await;
    localstack::queue(&name, 30).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    daemon.wait_for("metrics", |_, text| text.contains(&up(1))).await;
    let log = daemon.log();
    assert_eq!(log.matches("cannot connect, will retry").count(), 1, "{log}");
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_returns_what_a_dead_sink_holds_up() {
    let near = place("sqs").await;
    // Nobody listens there: the sink never connects, so the source is not even read.
    let hub = json!({ "event_hubs": {
        "namespace": "local", "hub": "x", "endpoint": format!("amqp://127.0.0.1:{}", free_port()),
    } });
    let mut daemon = Daemon::start(route(near.source.clone(), hub)).await;
    near.put(rig::events("e", 5, 0)).await;
    daemon.wait_for("readyz", |status, text| status == 503 && text.contains("sink far: ")).await;
    daemon.terminate();
    assert!(daemon.ended().await.success());
    let until = Instant::now() + PATIENCE;
    let left = near.read(|events| events.len() >= 5, until).await;
    assert_eq!(left.len(), 5, "what was not delivered is still at its source");
}

/// What a sink can never hold is parked in another cloud, not tried for ever.
pub async fn a_mebibyte_for_a_storage_queue_is_parked_on_the_other_side() {
    let (near, far, parked) =
        (place("sqs").await, place("storage_queue").await, place("sqs").await);
    let mut config = route(near.source.clone(), far.sink.clone());
    config["sinks"]["parked"] = parked.sink.clone();
    config["dead_letter"] = json!("parked");
    let mut daemon = Daemon::start(config).await;
    let big = rig::event("big", vec![b'x'; (1 << 20) - 8192]);
    near.put(vec![rig::event("before", "1"), big.clone(), rig::event("after", "2")]).await;
    let until = Instant::now() + PATIENCE;
    let arrived = far.read(|events| events.len() >= 2, until).await;
    let mut ids: Vec<_> = arrived.iter().map(|event| &*event.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["after", "before"]);
    let parked = parked.read(|events| !events.is_empty(), until).await;
    assert_eq!((parked.len(), &*parked[0].id, &parked[0].body), (1, "big", &big.body));
    let record = parked[0].dead_letter.as_ref().unwrap();
    assert_eq!((record.class.as_str(), record.sink.as_deref()), ("too_large", Some("far")));
    assert_eq!((record.attempts, record.received), (0, 1));
    daemon.terminate();
    assert!(daemon.ended().await.success());
    let text = daemon.log();
    assert_eq!(text.matches("dead-lettering").count(), 1, "{text}");
}

#[test]
fn a_broken_file_ends_it_with_all_problems() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broken.yaml");
    std::fs::write(&file, "sources: { a: { memory: { queue: a } } }\nsinks: {}\nroutes: []\n")
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_eventferry"))
        .args(["run", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("broken.yaml:"), "{text}");
}
