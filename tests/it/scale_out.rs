//! Replicas come, are told to end, and die: nothing is lost, and of an event hub the order by key is
//! kept, read at the far side, which is a FIFO queue or a FIFO topic. Those of a queue compete for its
//! messages, and have the keys of what was delivered in common.
//!
//! The order of a FIFO queue LocalStack cannot show it. It hands out a group as soon as one message of it is
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
    place::{clouds, place, place_with_lease},
    redis::Server,
    way::{self, Way},
};

/// What a replica may have delivered and not noted when it is killed.
const IN_FLIGHT: usize = 50;

/// From one replica to three, one of which is killed and one told to end.
async fn one_to_three_to_one(near: &str, far: &str, dedup: bool) {
    let _alone = alone().await;
    let redis = Server::start().await;
    let is_hub = near == "event_hubs";
    // What a killed one had in hand comes back after that many seconds.
    let mut from = place_with_lease(near, if near == "sqs" { 5 } else { 20 }).await;
    if is_hub {
        from.source[near]["sharing"] = json!({ "expiry": "5s", "renew_every": "1s" });
    }
    from.source["max_in_flight"] = json!({ "events": IN_FLIGHT });
    let ways = [Way::new(from, place(far).await)];
    let [way] = &ways;
    let (dir, clouds) = (tempfile::tempdir().unwrap(), clouds().await);
    let mut config = json!({
        "state": { "redis": { "url": redis.url() } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "unmatched": "drop",
        "sources": { "near": way.near.source },
        "sinks": { "far": way.far.sink },
        "routes": [{ "name": "over", "from": ["near"], "to": { "all": ["far"] } }],
    });
    if dedup {
        config["routes"][0]["dedup"] = json!({ "ttl": "1h" });
    }
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
        way::arrived(&ways, Duration::from_secs(240)).await
    };
    let ended = tokio::select! {
        _ = way::watch(&ways) => panic!("nobody watches"),
        ended = timeout(Duration::from_secs(480), run) => ended,
    };
    ended.unwrap_or_else(|_| Err("it takes too long".to_owned())).unwrap();
    if is_hub {
        assert_eq!(way.overtaken(), None, "to {far}: an event was overtaken by the other");
    }
    if dedup {
        assert!(way.repeats() <= IN_FLIGHT, "{} came twice", way.repeats());
    }
    let figures = json!({
        "events": way.fed(), "kills": 1, "lost": way.missing(), "duplicated": way.repeats(),
    });
    let how = if is_hub { "in order" } else { "with dedup" };
    figures::note("crash", &format!("{near} to {far}, one to three to one, {how}"), figures);
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
    one_to_three_to_one("event_hubs", "sqs.fifo", false).await;
    one_to_three_to_one("event_hubs", "sns.fifo", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_of_a_queue_compete_and_lose_and_repeat_nothing() {
    one_to_three_to_one("sqs", "event_hubs", true).await;
    one_to_three_to_one("storage_queue", "event_hubs", true).await;
}
