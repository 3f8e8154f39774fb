//! Order by key while replicas come, are told to end, and die: read at the far side, which is a FIFO
//! queue or a FIFO topic.
//!
//! From a FIFO queue LocalStack cannot show it. It hands out a group as soon as one message of it is
//! visible again, also while others of it are in flight, and those of one receive become visible one
//! after the other: what a replica had in hand, or was about to be given when it ended, then comes
//! behind what follows it. The service holds the group. The simulation has two readers of such a
//! queue, which die and end.

use std::{process::Command, time::Duration};

use serde_json::json;
use tokio::time::timeout;

use crate::{
    clouds::alone,
    crash::{Daemon, daemon},
    figures,
    place::{clouds, place},
    redis::Server,
    way::{self, Way},
};

/// From one replica to three, one of which is killed and one told to end.
async fn keeps_order(far: &str) {
    let _alone = alone().await;
    let redis = Server::start().await;
    let mut near = place("event_hubs").await;
    near.source["event_hubs"]["sharing"] = json!({ "expiry": "5s", "renew_every": "1s" });
    let ways = [Way::new(near, place(far).await)];
    let [way] = &ways;
    let (dir, clouds) = (tempfile::tempdir().unwrap(), clouds().await);
    let config = json!({
        "state": { "redis": { "url": redis.url() } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "unmatched": "drop",
        "sources": { "near": way.near.source },
        "sinks": { "far": way.far.sink },
        "routes": [{ "name": "over", "from": ["near"], "to": { "all": ["far"] } }],
    });
    let file = dir.path().join("scale.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    let start = |name: &str| daemon(&file, &dir.path().join(name), &[]);
    let run = async {
        let _first = start("first");
        way.feed(200).await;
        way.arrived(50).await;
        let (told, killed) = (start("told"), start("killed"));
        way.feed(300).await;
        way.arrived(250).await;
        drop(killed);
        way.feed(300).await;
        way.arrived(500).await;
        end(told).await;
        way.feed(200).await;
        way::arrived(&ways, Duration::from_secs(120)).await
    };
    let ended = tokio::select! {
        _ = way::watch(&ways) => panic!("nobody watches"),
        ended = timeout(Duration::from_secs(240), run) => ended,
    };
    ended.unwrap_or_else(|_| Err("it takes too long".to_owned())).unwrap();
    assert_eq!(way.overtaken(), None, "to {far}: an event was overtaken by the other");
    let figures = json!({
        "events": way.fed(), "kills": 1, "lost": way.missing(), "duplicated": way.repeats(),
    });
    figures::note("crash", &format!("event_hubs to {far}, one to three to one, in order"), figures);
}

/// As Kubernetes ends it.
async fn end(mut daemon: Daemon) {
    let pid = daemon.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || daemon.0.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_an_event_hub_keep_its_order() {
    keeps_order("sqs.fifo").await;
    keeps_order("sns.fifo").await;
}
