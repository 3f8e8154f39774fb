//! Another configuration for a daemon that runs, by each of the ways there are, with events under
//! way and with services that do not work.

use std::{collections::BTreeMap, os::unix::fs::symlink};

use eventferry::event::Event;

use super::*;
use crate::place::{Place, place_with_lease};

const EVENTS: usize = 300;
/// Put at once; what is fed goes on while the daemon changes.
const CHUNK: usize = 20;

impl Daemon {
    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("daemon.yaml")
    }

    fn write(&self, config: &Json) {
        std::fs::write(self.file(), whole(&self.top, config.clone())).unwrap();
    }

    /// Status and what `POST /reload` answers.
    async fn reload(&self) -> (u16, Json) {
        self.post("/reload", json!(null)).await
    }

    async fn ready(&self) {
        self.wait_for("readyz", |status, _| status == 200).await;
    }

    /// Waits for a line of the metrics.
    async fn counted(&self, line: &str) {
        let line = format!("eventferry_{line}\n");
        self.wait_for("metrics", |_, text| text.contains(&line)).await;
    }

    /// Which configuration runs.
    async fn generation(&self) -> String {
        let (_, text) = self.get("metrics").await.unwrap();
        let lines: Vec<_> = text.lines().filter(|it| it.contains("_config_generation{")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].to_owned()
    }
}

/// Two sources, each with its own way: `near` to `far`, `other` to `beyond`.
fn two_ways(places: &Places) -> Json {
    json!({
        "unmatched": "drop",
        "reload": { "watch": "1s" },
        "sources": { "near": places.near.source, "other": places.other.source },
        "sinks": { "far": places.far.sink, "beyond": places.beyond.sink },
        "routes": [
            { "name": "over", "from": "near", "when": { "id": [{ "prefix": "e-" }] }, "to": { "all": ["far"] } },
            { "name": "apart", "from": "other", "to": { "all": ["beyond"] } },
        ],
    })
}

/// The same with a wider filter, a route and a sink more for `near`, and nothing new for `other`.
fn more_ways(places: &Places) -> Json {
    let mut config = two_ways(places);
    config["routes"][0]["when"]["id"] = json!([{ "prefix": "e-" }, { "prefix": "late-" }]);
    config["sinks"]["aside"] = places.aside.sink.clone();
    let copy = json!({ "name": "copy", "from": "near", "to": { "all": ["aside"] } });
    config["routes"].as_array_mut().unwrap().push(copy);
    config
}

struct Places {
    near: Place,
    other: Place,
    far: Place,
    beyond: Place,
    aside: Place,
}

async fn places(near: &str) -> Places {
    Places {
        near: place(near).await,
        other: place("sqs").await,
        far: place("event_hubs").await,
        beyond: place("event_hubs").await,
        aside: place("storage_queue").await,
    }
}

async fn feed(place: &Place, prefix: &str) {
    let mut events = rig::events(prefix, EVENTS, 7);
    while !events.is_empty() {
        let rest = events.split_off(CHUNK.min(events.len()));
        place.put(std::mem::replace(&mut events, rest)).await;
    }
}

/// Everything that is there once all `EVENTS` of these names are.
async fn all(place: &Place, prefix: &str, daemon: &Daemon) -> Vec<Event> {
    let of = |events: &[Event]| -> usize {
        let ids = events.iter().map(|event| &event.id).filter(|id| id.starts_with(prefix));
        ids.collect::<std::collections::BTreeSet<_>>().len()
    };
    let events = place.read(|events| of(events) >= EVENTS, Instant::now() + 3 * PATIENCE).await;
    assert_eq!(of(&events), EVENTS, "{prefix}: {}", daemon.log());
    events
}

/// The first time that each event of a key came is in the order in which they were put.
fn in_order(events: &[Event]) {
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for event in events.iter().filter(|event| event.id.starts_with("e-") && seen.insert(&event.id))
    {
        let number: usize = event.id["e-".len()..].parse().unwrap();
        let before = last.insert(event.key.as_deref().unwrap().to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "{number} after {before:?}");
    }
}

/// Changes the configuration with `change` while events flow from both sources.
async fn changes_under_load(near: &str, change: impl AsyncFnOnce(&Daemon, &Json)) {
    let places = places(near).await;
    let mut daemon = Daemon::start(two_ways(&places)).await;
    daemon.ready().await;
    let (before, begun) = (daemon.generation().await, time::OffsetDateTime::now_utc());
    let changed = async {
        let line = |text: &str| {
            text.lines().any(|line| {
                let count = line.strip_prefix(
                    "eventferry_settled_total{outcome=\"delivered\",source=\"near\"} ",
                );
                count.is_some_and(|count| count.parse::<usize>().unwrap() > EVENTS / 10)
            })
        };
        daemon.wait_for("metrics", |_, text| line(text)).await;
        change(&daemon, &more_ways(&places)).await;
        daemon.counted("reloads_total{result=\"applied\"} 1").await;
        daemon.counted("pipeline_starts_total{source=\"near\"} 2").await;
        daemon.counted("drain_seconds_count{source=\"near\"} 1").await;
        daemon.ready().await;
        let (_, text) = daemon.get("metrics").await.unwrap();
        let applied = text.lines().find_map(|line| {
            line.strip_prefix("eventferry_config_applied_timestamp_seconds ")?.parse::<f64>().ok()
        });
        assert!(applied.unwrap() >= begun.unix_timestamp() as f64, "{applied:?}");
    };
    tokio::join!(feed(&places.near, "e"), feed(&places.other, "o"), changed);
    assert_ne!(daemon.generation().await, before);
    let late = rig::events("late", EVENTS, 7);
    places.near.put(late).await;
    all(&places.far, "late-", &daemon).await;
    all(&places.aside, "late-", &daemon).await;
    all(&places.beyond, "o-", &daemon).await;
    let far = all(&places.far, "e-", &daemon).await;
    if near == "event_hubs" {
        in_order(&far);
    }
    daemon.counted("pipeline_starts_total{source=\"other\"} 1").await;
    let log = daemon.log();
    let told =
        "\"changes\":\"+ sink aside; ~ route over: when; + route copy\",\"restarted\":\"near\"";
    assert!(log.contains(told), "{log}");
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_changes_the_configuration_under_load() {
    changes_under_load("sqs", async |daemon, config| {
        daemon.write(config);
        daemon.signal("-HUP");
        daemon.counted("reloads_total{result=\"applied\"} 1").await;
        let (_, records) = daemon.get("audit").await.unwrap();
        let records: Json = serde_json::from_str(&records).unwrap();
        let of = |name: &str| records[0][name].clone();
        assert_eq!(
            (of("who"), of("by"), of("status")),
            (json!("nobody"), json!("signal"), json!(200))
        );
        let generation = records[0]["after"]["generation"].as_str().unwrap();
        assert!(daemon.generation().await.contains(generation));
        assert_ne!(of("before"), of("after"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_api_changes_the_configuration_under_load() {
    changes_under_load("event_hubs", async |daemon, config| {
        daemon.write(config);
        let (status, told) = daemon.reload().await;
        assert_eq!(status, 200, "{told}");
        assert!(daemon.generation().await.contains(told["generation"].as_str().unwrap()));
        let changes = ["+ sink aside", "~ route over: when", "+ route copy"];
        assert_eq!((&told["changes"], &told["restarted"]), (&json!(changes), &json!(["near"])));
    })
    .await;
}

/// As Kubernetes changes what a ConfigMap holds: the file is a link into a folder that is a link,
/// which is swapped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_config_map_changes_the_configuration_under_load() {
    changes_under_load("storage_queue", async |daemon, config| {
        let dir = daemon.dir.path();
        let publish = |name: &str, text: &str| {
            std::fs::create_dir(dir.join(name)).unwrap();
            std::fs::write(dir.join(name).join("daemon.yaml"), text).unwrap();
            symlink(name, dir.join("..data_tmp")).unwrap();
            std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        };
        publish("..one", &read(&daemon.file()));
        symlink("..data/daemon.yaml", dir.join("link")).unwrap();
        std::fs::rename(dir.join("link"), daemon.file()).unwrap();
        publish("..two", &whole(&daemon.top, config.clone()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_up_changes_nothing_and_is_told() {
    let (near, far) = (place("sqs").await, place("sqs").await);
    let mut config = route(near.source.clone(), far.sink.clone());
    config["reload"] = json!("on_request");
    let mut daemon = Daemon::start(config.clone()).await;
    daemon.ready().await;
    let generation = daemon.generation().await;
    let missing = unique("missing");
    let refused = async |change: &dyn Fn(&mut Json), status: u16, why: &str| {
        let mut changed = config.clone();
        change(&mut changed);
        daemon.write(&changed);
        let (got, told) = daemon.reload().await;
        assert_eq!(got, status, "{told}");
        let text = told["detail"].as_str().unwrap();
        assert!(text.starts_with("nothing has changed\n") && text.contains(why), "{text}");
        assert_eq!(daemon.generation().await, generation);
    };
    let filter = |it: &mut Json| it["routes"][0]["when"] = json!({ "id": "no list" });
    refused(&filter, 422, "routes[0].when.id").await;
    let admin = |it: &mut Json| it["admin"] = json!("off");
    refused(&admin, 409, "where `admin` listens").await;
    let sink = |it: &mut Json| it["sinks"]["far"]["sqs"]["queue"] = json!(missing);
    refused(&sink, 503, &format!("sink far: GetQueueUrl failed: {missing}")).await;
    let source = |it: &mut Json| it["sources"]["near"]["sqs"]["queue"] = json!(missing);
    refused(&source, 503, &format!("source near: GetQueueUrl failed: {missing}")).await;
    std::fs::write(daemon.file(), "sources: [").unwrap();
    daemon.signal("-HUP");
    for (result, count) in [("invalid", 2), ("needs_restart", 1), ("unusable", 2)] {
        daemon.counted(&format!("reloads_total{{result=\"{result}\"}} {count}")).await;
    }
    near.put(rig::events("e", 5, 0)).await;
    let arrived = far.read(|events| events.len() >= 5, Instant::now() + PATIENCE).await;
    assert_eq!(arrived.len(), 5);
    daemon.counted("pipeline_starts_total{source=\"near\"} 1").await;
    daemon.write(&config);
    let (_, told) = daemon.reload().await;
    assert_eq!((&told["changes"], &told["restarted"]), (&json!([]), &json!([])));
    daemon.counted("reloads_total{result=\"unchanged\"} 1").await;
    let mut locked = config.clone();
    let key = daemon.dir.path().join("none.key");
    locked["routes"][0]["transform"] = json!([{ "redact": { "paths": ["data"], "with": { "hash": { "salt": format!("file:{}", key.display()) } } } }]);
    daemon.write(&locked);
    assert_eq!(daemon.reload().await.0, 422);
    daemon.counted("reloads_total{result=\"secrets\"} 1").await;
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

/// What waits for the sink goes back to its source, and on by the new configuration.
pub async fn a_sink_that_is_down_holds_up_no_other_configuration() {
    // What is not given back would be hidden for longer than this test waits.
    let mut near = place_with_lease("sqs", 600).await;
    // A request that outlives its daemon must not take what was given back.
    near.source["sqs"]["poll"]["wait"] = json!("1s");
    let (other, far, aside) =
        (place("sqs").await, place("event_hubs").await, place("storage_queue").await);
    let mut config = json!({
        "unmatched": "drop",
        "drain": { "grace": "4s" },
        "sources": { "near": near.source, "other": other.source },
        "sinks": { "far": far.sink, "aside": aside.sink },
        "routes": [
            { "name": "over", "from": "near", "to": { "all": ["far"] } },
            { "name": "apart", "from": "other", "to": { "all": ["far"] } },
        ],
    });
    let mut daemon = Daemon::start(config.clone()).await;
    daemon.ready().await;
    drop(far);
    near.put(rig::events("e", 25, 5)).await;
    other.put(rig::events("o", 5, 0)).await;
    daemon.counted("in_flight_events{source=\"near\"} 25").await;
    daemon.counted("in_flight_events{source=\"other\"} 5").await;
    config["routes"][0]["to"] = json!({ "all": ["aside"] });
    let before = daemon.generation().await;
    daemon.write(&config);
    let (status, told) = daemon.reload().await;
    assert_eq!((status, &told["restarted"]), (200, &json!(["near"])), "{told}");
    assert_ne!(daemon.generation().await, before, "it is not seen which configuration runs");
    let arrived = aside.read(|events| events.len() >= 25, Instant::now() + PATIENCE).await;
    let ids: std::collections::BTreeSet<_> = arrived.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), 25, "{}", daemon.log());
    // The other one waits on, for the same sink.
    daemon.counted("in_flight_events{source=\"other\"} 5").await;
    daemon.counted("pipeline_starts_total{source=\"other\"} 1").await;
    // How it is sent to can change while it does not answer.
    config["sinks"]["far"]["limit"] = json!({ "events_per_second": 50 });
    config["sinks"]["far"]["breaker"] = json!({ "failures": 3 });
    daemon.write(&config);
    let (status, told) = daemon.reload().await;
    assert_eq!((status, &told["restarted"]), (200, &json!(["other"])), "{told}");
    daemon.counted("pipeline_starts_total{source=\"other\"} 2").await;
    daemon.counted("in_flight_events{source=\"other\"} 5").await;
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_reload_loses_nothing() {
    for delay in [0, 150, 1200] {
        let places = places("event_hubs").await;
        let mut daemon = Daemon::start(two_ways(&places)).await;
        daemon.ready().await;
        let killed = async {
            daemon.wait_for("metrics", |_, text| text.contains("settled_total{")).await;
            daemon.write(&more_ways(&places));
            let (status, text) = daemon.reload().await;
            assert_eq!(status, 200, "{text}");
            // Where in its course the change is then is for the delay to vary.
            sleep(Duration::from_millis(delay)).await;
            daemon.signal("-KILL");
        };
        tokio::join!(feed(&places.near, "e"), feed(&places.other, "o"), killed);
        assert!(!daemon.ended().await.success());
        daemon.start_again(&[]).await;
        in_order(&all(&places.far, "e-", &daemon).await);
        all(&places.beyond, "o-", &daemon).await;
        assert!(daemon.generation().await.contains("generation="));
    }
}
