//! What an operator does to a daemon that carries events, over its API and from the command line.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
};

use eventferry::{event::Event, fault::point::VARIABLE};
use reqwest::Method;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::*;
use crate::place::Place;

const EVENTS: usize = 300;
const CHUNK: usize = 20;

impl Daemon {
    /// Status and answer of a request with a body.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Json) -> (u16, Json) {
        let request = reqwest::Client::new().request(method, format!("{}{path}", self.admin));
        let answer = request.json(&body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Json::String(text)))
    }

    pub(crate) async fn post(&self, path: &str, body: Json) -> (u16, Json) {
        self.ask(Method::POST, path, body).await
    }

    async fn status(&self) -> Json {
        serde_json::from_str(&self.get("status").await.unwrap().1).unwrap()
    }

    /// Waits for a line of the metrics.
    async fn metric(&self, line: &str) {
        let line = format!("eventferry_{line}\n");
        self.wait_for("metrics", |_, text| text.contains(&line)).await;
    }

    pub(super) fn write_file(&self, config: &Json) {
        std::fs::write(self.dir.path().join("daemon.yaml"), whole(&self.top, config.clone()))
            .unwrap();
    }

    pub(super) async fn logged(&self, text: &str) {
        self.wait_for("livez", |_, _| self.log().contains(text)).await;
    }

    /// What the command line says of it, and whether all is well.
    fn command(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_eventferry"))
            .args(args)
            .args(["--url", &self.admin])
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// An event that was put after this was said has come by another way: time has passed.
    async fn carries_another(&self, other: &Place, count: usize) {
        other.put(rig::events(&format!("time-{count}"), 1, 0)).await;
        self.metric(&format!("settled_total{{outcome=\"delivered\",source=\"other\"}} {count}"))
            .await;
    }

    /// Waits until a hub is settled and its checkpoints say so; them by partition.
    async fn settled(&self) -> BTreeMap<String, i64> {
        let of = |text: &str| -> Vec<Json> {
            let told: Json = serde_json::from_str(text).unwrap();
            told["partitions"].as_array().unwrap().clone()
        };
        let done = |text: &str| of(text).iter().all(|it| it["lag"] == 0);
        let text = self.wait_for("checkpoints", |status, text| status == 200 && done(text)).await;
        let entry = |it: &Json| {
            let number = it["checkpoint"]["sequence_number"].as_i64().unwrap_or(-1);
            (it["partition"].as_str().unwrap().to_owned(), number)
        };
        of(&text).iter().map(entry).collect()
    }

    /// The same, where so many events were ever put into the hub.
    async fn settled_up_to(&self, count: i64) {
        let until = Instant::now() + PATIENCE;
        loop {
            // Numbers begin at 0.
            let settled: i64 = self.settled().await.values().map(|number| number + 1).sum();
            if settled == count {
                return;
            }
            assert!(settled < count && Instant::now() < until, "settled: {settled}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// `near` to `far`, and `other` to `beyond`, by which time is seen to pass.
fn two_ways(near: &Place, far: &Place, other: &Place, beyond: &Place) -> Json {
    json!({
        "unmatched": "drop",
        "reload": "on_request",
        "sources": { "near": near.source, "other": other.source },
        "sinks": { "far": far.sink, "beyond": beyond.sink },
        "routes": [
            { "name": "over", "from": "near", "to": { "all": ["far"] } },
            { "name": "apart", "from": "other", "to": { "all": ["beyond"] } },
        ],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_under_load_stops_receiving_loses_nothing_and_holds_through_a_reload() {
    let (near, far) = (place("sqs").await, place("event_hubs").await);
    let (other, beyond) = (place("event_hubs").await, place("sqs").await);
    let mut config = two_ways(&near, &far, &other, &beyond);
    let mut daemon = Daemon::start(config.clone()).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    let mut events = rig::events("e", EVENTS, 7);
    while events.len() > CHUNK {
        let rest = events.split_off(CHUNK);
        near.put(std::mem::replace(&mut events, rest)).await;
        if events.len() == EVENTS - 7 * CHUNK {
            let paused = json!({ "sources": ["near"], "paused": true });
            assert_eq!(daemon.post("/sources/near/pause", json!({})).await, (200, paused));
        }
    }
    daemon.logged("source is paused and at rest").await;
    daemon.metric("in_flight_events{source=\"near\"} 0").await;
    let before = daemon.status().await;
    near.put(events).await;
    daemon.carries_another(&other, 1).await;
    // One that begins anew begins paused.
    config["routes"][0]["dead_letter"] = json!("beyond");
    daemon.write_file(&config);
    assert_eq!(daemon.post("/reload", json!({})).await.0, 200);
    daemon.metric("pipeline_starts_total{source=\"near\"} 2").await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    daemon.carries_another(&other, 2).await;
    let status = daemon.status().await;
    assert_eq!(status["sources"][0]["received"], before["sources"][0]["received"]);
    assert_eq!(status["sources"][0]["paused"], true);
    daemon.metric("source_paused{source=\"near\"} 1").await;
    let (well, text) = daemon.command(&["status"]);
    assert!(well && text.contains("paused"), "{text}");
    let (well, text) = daemon.command(&["resume", "--source", "near"]);
    assert!(well, "{text}");
    assert_eq!(text, "near goes on\n");
    let line = format!("settled_total{{outcome=\"delivered\",source=\"near\"}} {EVENTS}");
    daemon.metric(&line).await;
    let arrived = far.read(|events| events.len() >= EVENTS, Instant::now() + PATIENCE).await;
    let mut ids: Vec<_> = arrived.iter().map(|event| event.id.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((arrived.len(), ids.len()), (EVENTS, EVENTS), "nothing is lost or sent twice");
    let text = daemon.get("metrics").await.unwrap().1;
    assert!(text.contains("eventferry_settled_total{outcome=\"returned\",source=\"near\"} 0"));
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_is_paused_with_its_sources_and_others_only_if_that_is_wanted() {
    let (near, far) = (place("event_hubs").await, place("event_hubs").await);
    let (other, beyond) = (place("event_hubs").await, place("event_hubs").await);
    let mut config = two_ways(&near, &far, &other, &beyond);
    config["routes"][1]["from"] = json!(["near", "other"]);
    let daemon = Daemon::start(config).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    let (status, told) = daemon.post("/routes/over/pause", json!({})).await;
    assert_eq!((status, &told["title"]), (409, &json!("conflict")));
    insta::assert_snapshot!(told["detail"].as_str().unwrap());
    let (well, text) = daemon.command(&["pause", "--route", "over", "--with-others"]);
    assert_eq!((well, &*text), (true, "near is paused; what is in flight goes on\n"));
    let both = json!({ "with_others": true });
    let told = json!({ "sources": ["near", "other"], "paused": false });
    assert_eq!(daemon.post("/routes/apart/resume", both).await, (200, told));
    let mut wrong = Vec::new();
    for (path, body) in [
        ("/routes/none/pause", json!({})),
        ("/sources/none/pause", json!({})),
        ("/routes/over/pause", json!({ "with_other": true })),
        ("/sinks/none/breaker", json!({ "state": "open" })),
        ("/sinks/far/breaker", json!({ "state": "probing" })),
        ("/sinks/far/breaker", json!({})),
    ] {
        let (status, told) = daemon.post(path, body).await;
        wrong.push(format!("{path}: {status}: {}", told["detail"].as_str().unwrap()));
    }
    insta::assert_snapshot!(wrong.join("\n"));
    let (well, text) = daemon.command(&["pause", "--source", "none"]);
    assert_eq!(
        (well, &*text),
        (false, "eventferry: the configuration that runs has no source `none`\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_is_left_alone_keeps_its_events_waiting_and_a_limit_is_the_operators_to_set() {
    let (near, far) = (place("sqs").await, place("event_hubs").await);
    let (other, beyond) = (place("event_hubs").await, place("sqs").await);
    let mut config = two_ways(&near, &far, &other, &beyond);
    config["sinks"]["far"]["limit"] = json!({ "events_per_second": 1000.0 });
    let mut daemon = Daemon::start(config).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    let set = json!({ "state": "open" });
    assert_eq!(daemon.post("/sinks/far/breaker", set.clone()).await, (200, set));
    near.put(rig::events("e", 10, 0)).await;
    daemon.metric("received_total{source=\"near\"} 10").await;
    daemon.carries_another(&other, 1).await;
    daemon.metric("in_flight_events{source=\"near\"} 10").await;
    let sink = |status: &Json| status["sinks"][1].clone();
    let told = sink(&daemon.status().await);
    assert_eq!((&told["breaker"], &told["held"]), (&json!("open"), &json!(true)));
    daemon.metric("delivered_total{route=\"over\",sink=\"far\"} 0").await;
    assert_eq!(daemon.post("/sinks/far/breaker", json!({ "state": "closed" })).await.0, 200);
    daemon.metric("settled_total{outcome=\"delivered\",source=\"near\"} 10").await;
    let text = daemon.get("metrics").await.unwrap().1;
    assert!(!text.contains("eventferry_retried_total{"), "no event has used an attempt");

    let limit = json!({ "events_per_second": 5.0, "bytes_per_second": "1MiB" });
    let path = "/sinks/far/limit";
    assert_eq!(daemon.ask(Method::PUT, path, limit.clone()).await, (200, limit.clone()));
    let told = sink(&daemon.status().await);
    assert_eq!((&told["limit"], &told["limit_overridden"]), (&limit, &json!(true)));
    let mut wrong = Vec::new();
    for body in [json!({}), json!({ "events_per_second": 0 }), json!({ "per_second": 1 })] {
        let (status, told) = daemon.ask(Method::PUT, path, body).await;
        wrong.push(format!("{status}: {}", told["detail"].as_str().unwrap()));
    }
    insta::assert_snapshot!(wrong.join("\n"));
    let of_file = json!({ "events_per_second": 1000.0 });
    assert_eq!(daemon.ask(Method::DELETE, path, json!({})).await, (200, of_file));
    assert_eq!(sink(&daemon.status().await)["limit_overridden"], false);

    assert_eq!(daemon.post("/drain", json!({})).await.0, 200);
    assert!(daemon.ended().await.success());
    let log = daemon.log();
    assert!(log.contains("\"everything_delivered\":true"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_slow_route_goes_by_the_limit_that_an_operator_sets() {
    let (near, far) = (place("sqs").await, place("event_hubs").await);
    let (other, beyond) = (place("event_hubs").await, place("sqs").await);
    let mut config = two_ways(&near, &far, &other, &beyond);
    let slow = json!({ "per_second": 0.01, "burst": 5, "by": "route", "over": "wait" });
    config["routes"][0]["rate_limit"] = slow.clone();
    config["drain"] = json!({ "grace": "1s" });
    let daemon = Daemon::start(config.clone()).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    near.put(rig::events("e", 40, 0)).await;
    daemon.metric("settled_total{outcome=\"delivered\",source=\"near\"} 5").await;
    daemon.metric("in_flight_events{source=\"near\"} 35").await;

    let path = "/routes/over/limit";
    let quick = json!({ "per_second": 1000.0, "by": "route", "over": "wait" });
    let told = daemon.ask(Method::PUT, path, json!({ "per_second": 1000 })).await;
    assert_eq!(told, (200, json!({ "rate_limit": quick })));
    let arrived = far.read(|events| events.len() >= 40, Instant::now() + PATIENCE).await;
    let ids: BTreeSet<_> = arrived.iter().map(|event| &event.id).collect();
    assert_eq!((arrived.len(), ids.len()), (40, 40), "nothing is lost or sent twice");
    daemon.carries_another(&other, 1).await;
    daemon.metric("pipeline_starts_total{source=\"other\"} 1").await;
    daemon.metric("pipeline_starts_total{source=\"near\"} 2").await;

    // It is not in the file, and another file does not undo it.
    config["routes"][0]["dead_letter"] = json!("beyond");
    daemon.write_file(&config);
    let (_, told) = daemon.post("/reload", json!({})).await;
    assert_eq!(told["changes"], json!(["~ route over: dead_letter"]), "{told}");
    let route = |status: Json| {
        let route = &status["routes"][0];
        (route["rate_limit"].clone(), route["rate_limit_overridden"].clone())
    };
    assert_eq!(route(daemon.status().await), (quick, json!(true)));
    let (_, text) = daemon.command(&["status"]);
    assert!(text.contains("over: 1000 events in a second, as somebody asked"), "{text}");

    let mut wrong = Vec::new();
    let drops = json!({ "per_second": 1, "over": "drop" });
    for body in [json!({}), json!({ "per_second": 0 }), json!({ "events_per_second": 1 }), drops] {
        let (status, told) = daemon.ask(Method::PUT, path, body).await;
        wrong.push(format!("{status}: {}", told["detail"].as_str().unwrap()));
    }
    insta::assert_snapshot!(wrong.join("\n"));
    assert_eq!(
        daemon.ask(Method::PUT, "/routes/none/limit", json!({ "per_second": 1 })).await.0,
        404
    );
    let told = daemon.ask(Method::DELETE, path, json!({})).await;
    assert_eq!(told, (200, json!({ "rate_limit": slow })));
    assert_eq!(route(daemon.status().await), (slow, json!(false)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewind_repeats_exactly_what_its_dry_run_said() {
    let (near, far) = (place("event_hubs").await, place("event_hubs").await);
    let (other, beyond) = (place("sqs").await, place("sqs").await);
    let mut daemon = Daemon::start(two_ways(&near, &far, &other, &beyond)).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    near.put(rig::events("before", 20, 7)).await;
    daemon.metric("settled_total{outcome=\"delivered\",source=\"near\"} 20").await;
    // Enqueued times are in milliseconds.
    sleep(Duration::from_millis(5)).await;
    let between = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    near.put(rig::events("after", 30, 7)).await;
    daemon.metric("settled_total{outcome=\"delivered\",source=\"near\"} 50").await;
    let settled = daemon.settled().await;
    let (fullest, newest) = settled.iter().max_by_key(|(_, number)| **number).unwrap();
    let one = json!({ "sequence_number": newest - 2 });
    let mut delivered = 50;
    for (number, (to, partition, repeats)) in [
        (one, Some(fullest), 3),
        (json!({ "time": between }), None, 30),
        (json!("earliest"), None, 50),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wish = json!({ "to": to, "dry_run": true });
        if let Some(partition) = partition {
            wish["partition"] = json!(partition);
        }
        let (status, dry) = daemon.post("/sources/near/rewind", wish.clone()).await;
        assert_eq!(status, 200, "{dry}");
        let of = |answer: &Json| -> u64 {
            let all = answer["partitions"].as_array().unwrap().iter();
            all.map(|it| it["repeats"].as_u64().unwrap()).sum()
        };
        assert_eq!((of(&dry), &dry["dry_run"]), (repeats, &json!(true)), "{dry}");
        assert_eq!(daemon.settled().await, settled, "a dry run moves nothing");
        wish["dry_run"] = json!(false);
        let (status, done) = daemon.post("/sources/near/rewind", wish).await;
        assert_eq!((status, &done["partitions"]), (200, &dry["partitions"]), "{number}");
        delivered += repeats;
        let line = format!("settled_total{{outcome=\"delivered\",source=\"near\"}} {delivered}");
        daemon.metric(&line).await;
        assert_eq!(daemon.settled().await, settled, "it has come as far as before");
    }
    daemon.carries_another(&other, 1).await;
    let status = daemon.status().await;
    assert_eq!(status["routes"][0]["to"][0]["delivered"], delivered, "and nothing more");

    let mut wrong = Vec::new();
    for (source, body) in [
        ("near", json!({ "partition": fullest, "to": { "sequence_number": newest + 5 } })),
        ("near", json!({ "partition": "77", "to": "earliest" })),
        ("near", json!({ "to": { "sequence_number": 1 } })),
        ("near", json!({ "to": "latest" })),
        ("near", json!({ "to": "earliest", "dry-run": true })),
        ("other", json!({ "to": "earliest" })),
        ("none", json!({ "to": "earliest" })),
    ] {
        let (status, told) = daemon.post(&format!("/sources/{source}/rewind"), body).await;
        let detail = told["detail"].as_str().unwrap();
        wrong.push(
            format!("{status}: {detail}").replace(&format!("partition {fullest}"), "partition P"),
        );
    }
    let wrong = wrong
        .join("\n")
        .replace(&format!("goes on with {}:", newest + 1), "goes on with N+1:")
        .replace(&format!("to go on with {} ", newest + 5), "to go on with N+5 ");
    insta::assert_snapshot!(wrong);
    assert_eq!(daemon.settled().await, settled, "what is refused moves nothing");

    let (well, text) = daemon.command(&["checkpoints"]);
    assert!(
        well && text.starts_with("source  partition  settled  newest  lag  read by\n"),
        "{text}"
    );
    let (well, text) =
        daemon.command(&["checkpoints", "rewind", "near", "--to", "earliest", "--dry-run"]);
    assert!(well && text.contains(" would repeat "), "{text}");
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_while_it_goes_back_repeats_some_and_loses_none() {
    let (near, far) = (place("event_hubs").await, place("event_hubs").await);
    let (other, beyond) = (place("sqs").await, place("sqs").await);
    let config = two_ways(&near, &far, &other, &beyond);
    let mut daemon = Daemon::start_with(config, &[(VARIABLE, "during_rewind:1")]).await;
    for (life, dies_next) in [(1, Some((VARIABLE, "during_rewind:2"))), (2, None)] {
        daemon.wait_for("readyz", |status, _| status == 200).await;
        near.put(rig::events(&format!("settled-{life}"), 50, 7)).await;
        daemon.settled_up_to(50 * life + 5 * (life - 1)).await;
        // While it goes back, more comes in.
        let rewind = reqwest::Client::new()
            .post(format!("{}/sources/near/rewind", daemon.admin))
            .json(&json!({ "to": "earliest" }))
            .send();
        let late = near.put(rig::events(&format!("late-{life}"), 5, 7));
        let (answer, ()) = tokio::join!(rewind, late);
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(daemon.ended().await.signal(), Some(6), "as `abort` ends a process");
        daemon.start_again(dies_next.as_slice()).await;
    }
    daemon.settled_up_to(110).await;
    let distinct = |events: &[Event]| -> usize {
        events.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len()
    };
    let arrived = far.read(|events| distinct(events) >= 110, Instant::now() + PATIENCE).await;
    assert_eq!(distinct(&arrived), 110, "none is lost");
    assert!(arrived.len() > 110, "a partition went back");
    daemon.terminate();
    assert!(daemon.ended().await.success());
}
