//! Who has changed what is told in three ways.

use std::time::Duration;

use eventferry::{
    admin::audit::EVENT_TYPE,
    config::{self, environment::Environment},
    daemon,
    source::memory::{Config, Queue},
};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use super::*;
use crate::clouds::unique;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_and_what_was_refused_is_recorded_with_who_asked() {
    let daemon = Daemon::start(everybody()).await;
    let reload = async |caller: &str| {
        let request = daemon.ask(Method::POST, "/reload").bearer_auth(token(caller));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(reload("operator").await, 200);
    assert_eq!(reload("viewer").await, 403);
    assert_eq!(reload("wrong").await, 401);
    assert_eq!(daemon.get("/status", &token("viewer")).await.status(), StatusCode::OK);
    let records: Json = daemon.get("/audit", &token("admin")).await.json().await.unwrap();
    let records = records.as_array().unwrap();
    let told: Vec<_> = records
        .iter()
        .map(|it| (it["who"].as_str().unwrap(), it["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("viewer", 403), ("operator", 200)], "the latest first, and nobody unknown");
    let done = &records[1];
    assert_eq!((&done["method"], &done["path"]), (&json!("POST"), &json!("/reload")));
    assert_eq!((&done["by"], &done["role"]), (&json!("token"), &json!("operator")));
    assert_eq!(done["from"], "127.0.0.1");
    assert!(done["before"]["generation"].is_string());
    assert_eq!(done["before"], done["after"], "the same file");
    let log = daemon.log();
    let lines: Vec<Json> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Json| line["target"] == "eventferry::audit")
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert_eq!((&lines[0]["who"], &lines[0]["status"]), (&json!("operator"), &json!(200)));
    let metrics = daemon.get("/metrics", &token("admin")).await.text().await.unwrap();
    let counted = "eventferry_admin_requests_total{endpoint=\"reload\",status=\"401\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_says_how_it_was_before_and_how_it_is_now() {
    let daemon = Daemon::start(json!({})).await;
    let mut told = Vec::new();
    for (method, path, body) in [
        (Method::POST, "/sources/a/pause", json!({})),
        (Method::POST, "/routes/one/resume", json!({})),
        (Method::PUT, "/sinks/x/limit", json!({ "events_per_second": 5 })),
        (Method::DELETE, "/sinks/x/limit", json!({})),
        (Method::PUT, "/routes/one/limit", json!({ "per_second": 5, "burst": 2 })),
        (Method::DELETE, "/routes/one/limit", json!({})),
        (Method::POST, "/sinks/x/breaker", json!({ "state": "open" })),
        (Method::POST, "/sinks/x/breaker", json!({ "state": "closed" })),
        (Method::POST, "/dead-letters/discard", json!({ "dry_run": { "class": "map" } })),
    ] {
        let answer = daemon.ask(method, path).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {:?}", answer.text().await);
        let records: Json =
            daemon.ask(Method::GET, "/audit").send().await.unwrap().json().await.unwrap();
        let Json::Object(last) = &records[0] else { panic!("{records}") };
        let of = |name: &str| last.get(name).map_or_else(|| "-".to_owned(), Json::to_string);
        told.push(format!("{path}: {} -> {}", of("before"), of("after")));
    }
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_has_done_is_recorded_with_who_has_asked_for_it() {
    let daemon = Daemon::start(everybody()).await;
    let discard = async |wish: Json| -> Json {
        let ask = daemon.ask(Method::POST, "/dead-letters/discard").bearer_auth(token("admin"));
        ask.json(&wish).send().await.unwrap().json().await.unwrap()
    };
    let dry = discard(json!({ "dry_run": {} })).await;
    let path = format!("/jobs/{}", dry["id"].as_str().unwrap());
    let until = Instant::now() + PATIENCE;
    while daemon.get(&path, &token("admin")).await.json::<Json>().await.unwrap()["state"] != "done"
    {
        assert!(Instant::now() < until, "the dry run does not end");
        sleep(Duration::from_millis(20)).await;
    }
    let job = discard(json!({ "confirm": dry["id"] })).await;
    let ended = loop {
        assert!(Instant::now() < until, "the end is not recorded");
        let records: Json = daemon.get("/audit", &token("admin")).await.json().await.unwrap();
        let of_job = |it: &&Json| it["after"]["job"] == job["id"] && it["status"].is_null();
        if let Some(found) = records.as_array().unwrap().iter().find(of_job) {
            break found.clone();
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&ended["who"], &ended["path"]), (&json!("admin"), &json!("/dead-letters/discard")));
    assert_eq!(ended["after"]["state"], "done");
    assert_eq!(ended["after"]["summary"]["discarded"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_carries_the_records_as_events() {
    let (far, address) = (unique("audit"), format!("127.0.0.1:{}", free_port()));
    let file = json!({
        "admin": address,
        "sources": { "audit": { "audit": {} } },
        "sinks": { "far": { "memory": { "queue": far } } },
        "routes": [{
            "name": "over", "from": "audit", "when": { "type": [EVENT_TYPE] },
            "to": { "all": ["far"] },
        }],
        "unmatched": "drop",
    });
    let plan = config::read("f", &file.to_string(), &Environment::default()).unwrap().plan;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = JoinSet::new();
    running.spawn(async move { daemon::run(plan, async { _ = stopped.await }).await });
    let url = |path: &str| format!("http://{address}/{path}");
    let until = Instant::now() + PATIENCE;
    while !reqwest::get(url("readyz")).await.is_ok_and(|it| it.status() == 200) {
        assert!(Instant::now() < until, "not ready");
        sleep(Duration::from_millis(20)).await;
    }
    // It was not started with a file: refused, and recorded.
    let asked = Client::new().post(url("reload")).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::CONFLICT);
    let limit = json!({ "events_per_second": 500 });
    let asked = Client::new().put(url("sinks/far/limit")).json(&limit).send().await.unwrap();
    assert!(asked.status().is_success());
    let config: Config = serde_json::from_value(json!({ "queue": far })).unwrap();
    let queue = Queue::named(&config);
    let arrived = queue.wait_until(|messages| messages.len() == 2);
    timeout(PATIENCE, arrived).await.expect("no record has come");
    let event: Json = serde_json::from_slice(&queue.contents()[0].body).unwrap();
    assert_eq!((&event["type"], &event["data"]["path"]), (&json!(EVENT_TYPE), &json!("/reload")));
    assert_eq!((&event["data"]["who"], &event["data"]["status"]), (&json!("local"), &json!(409)));
    let event: Json = serde_json::from_slice(&queue.contents()[1].body).unwrap();
    let of = |name: &str| event["data"][name].clone();
    assert_eq!((of("about"), of("before")), (json!("sink far"), json!({ "limit": {} })));
    assert_eq!(of("after"), json!({ "limit": { "events_per_second": 500.0 } }));
    stop.send(()).unwrap();
    running.join_next().await.unwrap().unwrap().unwrap();
}
