//! Dead letters, taps and the past through the API of a daemon that runs.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt};

use eventferry::{
    event::Event,
    fault::point::{Point, VARIABLE},
};

use super::*;
use crate::place::place_with_lease;

impl Daemon {
    async fn look(&self, path: &str) -> Json {
        let (status, text) = self.get(path).await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Begins to send again all that a dry run finds. None where it dies.
    async fn redrive_all(&self) -> Option<()> {
        let change = async |body: Json| {
            let path = format!("{}/dead-letters/redrive", self.admin);
            let answer = reqwest::Client::new().post(path).json(&body).send().await.ok()?;
            answer.json::<Json>().await.ok()
        };
        let mut dry = change(json!({ "dry_run": {} })).await?;
        while dry["ended"].is_null() {
            sleep(Duration::from_millis(50)).await;
            let (_, text) = self.get(&format!("jobs/{}", dry["id"].as_str()?)).await?;
            dry = serde_json::from_str(&text).unwrap();
        }
        if dry["summary"]["meant"] != 0 {
            change(json!({ "confirm": dry["id"] })).await?;
        }
        Some(())
    }

    /// Waits for the end of a job.
    pub(crate) async fn ended_job(&self, job: &Json) -> Json {
        let path = format!("jobs/{}", job["id"].as_str().unwrap());
        let ended = |text: &str| {
            let job: Json = serde_json::from_str(text).unwrap();
            !job["ended"].is_null()
        };
        let text = self.wait_for(&path, |status, text| status == 200 && ended(text)).await;
        serde_json::from_str(&text).unwrap()
    }
}

/// A route that delivers once, and cannot take what has a number below 3 until it is mended.
fn once(near: &Json, far: &Json, parked: &Json, mended: bool) -> Json {
    let strict = "if includes([0, 1, 2], .data.n) { .data.x = to_int!(.id) }\n";
    let strict = if mended { "" } else { strict };
    json!({
        "reload": "on_request",
        "dead_letter": "parked",
        "sources": { "near": near },
        "sinks": { "far": far, "parked": parked },
        "routes": [{
            "name": "over", "from": "near", "to": { "all": ["far"] }, "dedup": { "ttl": "1h" },
            "transform": [{ "map": format!("{strict}.data.seen = true") }],
        }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dry_run_has_found_is_sent_again_beside_a_daemon_that_delivers_once() {
    let (near, far) = (place("sqs").await, place("storage_queue").await);
    let parked = place("sqs").await;
    let file = |mended| once(&near.source, &far.sink, &parked.sink, mended);
    let mut daemon = Daemon::start(file(false)).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    near.put(rig::events("e", 10, 0)).await;
    let settled = |outcome: &str, count: u32| {
        format!("eventferry_settled_total{{outcome=\"{outcome}\",source=\"near\"}} {count}\n")
    };
    daemon.wait_for("metrics", |_, text| text.contains(&settled("dead_lettered", 3))).await;
    daemon.wait_for("metrics", |_, text| text.contains(&settled("delivered", 7))).await;

    let errors = daemon.look("errors").await;
    let error = &errors["errors"][0];
    assert_eq!(
        (&error["route"], &error["class"], &error["count"]),
        (&json!("over"), &json!("map"), &json!(3))
    );
    assert!(error["event"]["id"].as_str().unwrap().starts_with("e-"), "{errors}");

    let listing = daemon.look("dead-letters?route=over").await;
    assert_eq!(
        (&listing["groups"][0]["class"], &listing["groups"][0]["entries"]),
        (&json!("map"), &json!(3))
    );
    let shown = daemon.look("dead-letters/e-1").await;
    assert_eq!(shown["entries"][0]["record"]["route"], "over");
    // Whoever is on the machine is an admin, where nobody is named.
    assert_eq!(shown["entries"][0]["event"]["data"], json!({ "n": 1 }));
    assert!(listing["entries"][0]["event"]["data"].is_null(), "a body is in the list: {listing}");
    assert_eq!(daemon.get("dead-letters/e-9").await.unwrap().0, 404);

    let (status, refused) = daemon.post("/dead-letters/redrive", json!({ "confirm": "7" })).await;
    assert_eq!((status, &refused["title"]), (404, &json!("not found")));
    let (_, refused) =
        daemon.post("/dead-letters/redrive", json!({ "dry_run": { "clas": "map" } })).await;
    assert!(refused["detail"].as_str().unwrap().contains("clas"), "{refused}");

    let config = daemon.look("config").await;
    assert_eq!(config["now"]["changes"], json!([]));
    std::fs::write(daemon.dir.path().join("daemon.yaml"), whole(&daemon.top, file(true))).unwrap();
    let config = daemon.look("config").await;
    assert_eq!(config["now"]["changes"], json!(["~ route over: transform"]));
    assert_eq!(config["running"]["routes"][0]["name"], "over");
    assert_eq!(daemon.post("/reload", json!(null)).await.0, 200);

    let select = json!({ "dry_run": { "class": "map" } });
    let (status, dry) = daemon.post("/dead-letters/redrive", select).await;
    assert_eq!(status, 202);
    let dry = daemon.ended_job(&dry).await;
    assert_eq!((&dry["state"], &dry["summary"]["meant"]), (&json!("done"), &json!(3)), "{dry}");
    // A sink that is left alone is left alone by whoever sends to it.
    let breaker =
        async |state: &str| daemon.post("/sinks/far/breaker", json!({ "state": state })).await.0;
    assert_eq!(breaker("open").await, 200);
    let (_, job) = daemon.post("/dead-letters/redrive", json!({ "confirm": dry["id"] })).await;
    let path = format!("jobs/{}", job["id"].as_str().unwrap());
    daemon.wait_for(&path, |_, text| text.contains("\"in_flight\":3")).await;
    near.put(rig::events("before", 1, 0)).await;
    daemon
        .wait_for("metrics", |_, text| text.contains("received_total{source=\"near\"} 11\n"))
        .await;
    assert_eq!(daemon.look(&path).await["summary"]["redriven"], 0);
    assert_eq!(breaker("closed").await, 200);
    let job = daemon.ended_job(&job).await;
    assert_eq!((&job["state"], &job["summary"]["redriven"]), (&json!("done"), &json!(3)), "{job}");
    assert_eq!(daemon.look("dead-letters").await["summary"]["meant"], 0);

    // What the job has delivered is known to the daemon.
    near.put(rig::events("e", 10, 0)).await;
    daemon.wait_for("metrics", |_, text| text.contains(&settled("duplicate", 10))).await;
    let until = Instant::now() + PATIENCE;
    assert_eq!(far.read(|events| events.len() >= 11, until).await.len(), 11);
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

/// As from kill -9, in the middle of a job: once when the sink has confirmed, once when that is known
/// to the store, once when the dead-letter queue is about to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_while_it_redrives_loses_none_and_repeats_what_was_not_yet_known() {
    let (near, far) = (place("sqs").await, place("storage_queue").await);
    // What a killed job has hidden is soon back.
    let parked = place_with_lease("sqs", 5).await;
    let file = |mended| once(&near.source, &far.sink, &parked.sink, mended);
    let mut daemon = Daemon::start(file(false)).await;
    near.put(rig::events("e", 10, 0)).await;
    for (outcome, count) in [("dead_lettered", 3), ("delivered", 7)] {
        let line =
            format!("eventferry_settled_total{{outcome=\"{outcome}\",source=\"near\"}} {count}\n");
        daemon.wait_for("metrics", |_, text| text.contains(&line)).await;
    }
    daemon.terminate();
    daemon.write_file(&file(true));
    for point in [Point::AfterSend, Point::AfterCommit, Point::BeforeSettle] {
        daemon.start_again(&[(VARIABLE, &format!("{}:1", point.name()))]).await;
        daemon.wait_for("readyz", |status, _| status == 200).await;
        let until = Instant::now() + PATIENCE;
        while daemon.redrive_all().await.is_some() {
            assert!(Instant::now() < until, "lives on: {point:?}; log: {}", daemon.log());
        }
        assert_eq!(daemon.ended().await.signal(), Some(6), "as `abort` ends a process: {point:?}");
    }
    daemon.start_again(&[]).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    // A job that was found again ends all three, of which one at least is known by now: that goes
    // nowhere, and is gone from where it was.
    let ended = |jobs: &Json, how: &[&str]| -> u64 {
        let jobs = jobs["jobs"].as_array().unwrap().iter();
        jobs.flat_map(|job| how.iter().map(|how| job["summary"][how].as_u64().unwrap())).sum()
    };
    let until = Instant::now() + PATIENCE;
    while ended(&daemon.look("jobs").await, &["redriven", "duplicates"]) < 3 {
        assert!(Instant::now() < until, "not found again; log: {}", daemon.log());
        daemon.redrive_all().await.unwrap();
    }
    assert!(ended(&daemon.look("jobs").await, &["duplicates"]) >= 1, "log: {}", daemon.log());
    let distinct = |events: &[Event]| -> usize {
        events.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len()
    };
    let arrived = far.read(|events| distinct(events) >= 10, Instant::now() + PATIENCE).await;
    assert_eq!(distinct(&arrived), 10, "none is lost");
    // Each is sent on its own. The first death comes before the store knows of any, each of the others
    // after it knows of one.
    assert!(arrived.len() <= 10 + 3 + 2 + 2, "{} arrived", arrived.len());
    daemon.terminate();
    assert!(daemon.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tap_tells_what_passes_a_look_what_it_goes_through_and_the_past_what_has() {
    let (near, far) = (place("sqs").await, place("sqs").await);
    let daemon = Daemon::start(route(near.source.clone(), far.sink.clone())).await;
    daemon.wait_for("readyz", |status, _| status == 200).await;
    assert_eq!(daemon.get("tap?route=ovr").await.unwrap().0, 404);
    assert_eq!(daemon.get("tap?max=0").await.unwrap().0, 422);
    assert_eq!(daemon.get("traces?route=ovr").await.unwrap().0, 404);
    assert_eq!(daemon.get("traces?max=101").await.unwrap().0, 422);
    let open = async |path: &str| reqwest::get(format!("{}/{path}", daemon.admin)).await.unwrap();
    let mut tap = open("tap?route=over&max=2").await;
    let mut look = open("traces?route=over&max=1").await;
    near.put(rig::events("e", 2, 0)).await;
    // Before it would end because nothing passes.
    let until = Instant::now() + Duration::from_secs(45);
    let told = async |answer: &mut reqwest::Response| {
        let mut text = String::new();
        while !text.contains("event: end") {
            let chunk = timeout_at(until, answer.chunk()).await.expect("not told").unwrap();
            text += std::str::from_utf8(&chunk.expect("ended")).unwrap();
        }
        text
    };
    let text = told(&mut tap).await;
    assert_eq!(text.matches("\"taken\":[\"over\"]").count(), 2, "{text}");
    assert!(
        text.contains("\"outcomes\":[\"to far, ") && text.contains("\"why\":\"max\""),
        "{text}"
    );
    assert!(text.contains("\"data\":{\"n\":"), "an admin sees bodies: {text}");
    let line = "eventferry_tapped_events_total{result=\"shown\"} 2\n";
    daemon.wait_for("metrics", |_, text| text.contains(line)).await;
    let text = told(&mut look).await;
    for span in ["receive near", "process near", "send far", "settle near"] {
        let name = format!("\"name\":\"{span}\"");
        assert_eq!(text.matches(&name).count(), 1, "{span} of one delivery: {text}");
    }
    assert!(text.contains("\"why\":\"max\",\"dropped\":0"), "{text}");
    let line = "eventferry_looked_spans_total{result=\"shown\"} 4\n";
    daemon.wait_for("metrics", |_, text| text.contains(line)).await;
    let received = |text: &str| {
        let hour: Json = serde_json::from_str(text).unwrap();
        let steps = hour["sources"][0]["received"].as_array().cloned().unwrap_or_default();
        steps.iter().filter_map(Json::as_u64).sum::<u64>() == 2
    };
    daemon.wait_for("history", |_, text| received(text)).await;
}
