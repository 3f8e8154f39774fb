//! Dead letters in the local clouds: parked by the daemon in one, and brought back by the command.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Output},
    time::Duration,
};

use eventferry::{
    config::{self, environment::Environment, plan::Plan},
    daemon,
    event::Event,
    fault::point::{Point, VARIABLE},
    redrive::{self, Request, Summary, Task, filter::Filter, reading::Via},
    source::memory::{Config, Queue},
};
use serde_json::{Value as Json, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clouds::{free_port, shared, unique},
    place::{KINDS, clouds, place, place_with_lease},
    rig::{self, PATIENCE},
};

fn plan(file: &Json) -> Plan {
    let checked = config::read("dead-letters.yaml", &file.to_string(), &Environment::default());
    checked.unwrap_or_else(|problems| panic!("{problems}\n{file}")).plan
}

/// A file around these sources, sinks and routes, which parks in `parked`.
async fn file(sources: Json, sinks: Json, routes: Json) -> Json {
    let clouds = clouds().await;
    json!({
        "state": "memory", "aws": clouds.aws, "azure": clouds.azure, "admin": "off",
        "dead_letter": "parked", "sources": sources, "sinks": sinks, "routes": routes,
    })
}

/// Three causes to fail, the first of which can be mended.
fn three_causes(mended: bool) -> Json {
    let strict = if mended { "" } else { "if .data.n == .data.third { .data.x = to_int!(.id) }\n" };
    json!([{
        "name": "over", "from": ["near"],
        "transform": [
            { "map": format!("{strict}.data.seen = true") },
            { "set": { "attributes.tenant": "{{ data.tenant }}" } },
        ],
        "to": { "first": [{ "when": { "data": { "lane": ["known"] } }, "to": "far" }] },
    }])
}

/// What fails with `map`, `missing` and `unmatched` in turn.
fn failing(n: usize) -> Event {
    let body = match n % 3 {
        0 => json!({ "n": n, "third": n, "tenant": "acme", "lane": "known" }),
        1 => json!({ "n": n, "lane": "known" }),
        _ => json!({ "n": n, "tenant": "acme", "lane": "unknown" }),
    };
    rig::event(&format!("e-{n}"), body.to_string())
}

/// Runs the command on this file.
async fn eventferry(args: &[&str], file: &Json) -> Output {
    eventferry_with(args, file, Vec::new()).await
}

/// The same with more of an environment.
async fn eventferry_with(args: &[&str], file: &Json, more: Vec<(&str, String)>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead-letters.yaml");
    std::fs::write(&path, file.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventferry"));
    command.arg("dead-letters").args(args).arg("--config").arg(&path).envs(more);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The lines of JSON that a command has printed.
fn lines(output: &Output) -> Vec<Json> {
    let text = String::from_utf8_lossy(&output.stdout);
    let parsed = text.lines().map(serde_json::from_str);
    parsed.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_of_three_causes_and_one_cause_is_mended() {
    const EVENTS: usize = 1_000;
    let _shared = shared().await;
    let (near, far, mut parked) =
        (place("sqs").await, place("sqs").await, place("storage_queue").await);
    // What is parked says what it was, also where what is delivered does not.
    parked.sink["storage_queue"]["format"] = json!("raw");
    near.put((0..EVENTS).map(failing).collect()).await;
    let sources = json!({ "near": near.source });
    let sinks = json!({ "far": far.sink, "parked": parked.sink });
    let broken = file(sources.clone(), sinks.clone(), three_causes(false)).await;
    let mended = file(sources, sinks, three_causes(true)).await;

    let address = format!("127.0.0.1:{}", free_port());
    let mut watched = broken.clone();
    watched["admin"] = json!({ "listen": address });
    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = tokio::spawn(daemon::run(plan(&watched), async {
        let _ = stopped.await;
    }));
    let done =
        format!("eventferry_settled_total{{outcome=\"dead_lettered\",source=\"near\"}} {EVENTS}");
    let until = Instant::now() + 3 * PATIENCE;
    loop {
        let page = reqwest::get(format!("http://{address}/metrics")).await;
        if let Ok(page) = page
            && page.text().await.unwrap().contains(&done)
        {
            break;
        }
        assert!(Instant::now() < until, "not all events are parked");
        sleep(Duration::from_millis(100)).await;
    }
    stop.send(()).unwrap();
    daemon.await.unwrap().unwrap();

    let dry = eventferry(&["redrive", "--class", "map", "--dry-run", "--json"], &mended).await;
    let told = lines(&dry);
    assert_eq!(told.last().unwrap()["summary"]["meant"], 334, "{dry:?}");
    assert_eq!(told.len(), 335);

    let redriven = eventferry(&["redrive", "--class", "map", "--json"], &mended).await;
    assert!(redriven.status.success(), "{redriven:?}");
    let summary = &lines(&redriven)[0]["summary"];
    let counts = ["seen", "meant", "redriven", "left"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [1_000, 334, 334, 0], "{summary}");

    let until = Instant::now() + PATIENCE;
    let arrived = far.read(|events| events.len() >= 334, until).await;
    let ids: BTreeSet<String> = arrived.iter().map(|event| event.id.to_string()).collect();
    let wanted = (0..EVENTS).step_by(3).map(|n| format!("e-{n}")).collect();
    assert_eq!((arrived.len(), ids), (334, wanted), "each of them once");
    assert!(arrived.iter().all(|event| event.attributes.text("tenant") == Some("acme")));

    let listed = eventferry(&["list", "--json"], &mended).await;
    let mut classes: BTreeMap<String, usize> = BTreeMap::new();
    let mut entries = lines(&listed);
    entries.pop();
    for entry in &entries {
        let class = entry["record"]["class"].as_str().unwrap().to_owned();
        *classes.entry(class).or_default() += 1;
    }
    let wanted = [("missing", 333), ("unmatched", 333)];
    assert_eq!(classes, wanted.map(|(class, count)| (class.to_owned(), count)).into());
}

fn memory(name: &str) -> (Json, Queue) {
    let config = json!({ "queue": unique(name) });
    let queue = Queue::named(&serde_json::from_value::<Config>(config.clone()).unwrap());
    (json!({ "memory": config }), queue)
}

async fn run(file: &Json, via: &Via, task: Task, class: Option<&str>) -> Summary {
    let request = Request {
        plan: plan(file),
        sinks: Vec::new(),
        via: via.clone(),
        filter: Filter { class: class.map(str::to_owned), ..Filter::default() },
        max: None,
        rate: None,
        task,
        dry_run: false,
    };
    let run = redrive::run(request, CancellationToken::new(), &mut |_| {}).await;
    run.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_sink_gives_its_dead_letters_back() {
    let _shared = shared().await;
    for kind in KINDS {
        let parked = place(kind).await;
        let ((near_config, near), (far_config, far)) = (memory("near"), memory("far"));
        let sources = json!({ "near": near_config });
        let sinks = json!({ "far": far_config, "parked": parked.sink });
        let broken = file(sources.clone(), sinks.clone(), three_causes(false)).await;
        let mended = file(sources, sinks, three_causes(true)).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = tokio::spawn(daemon::run(plan(&broken), async {
            let _ = stopped.await;
        }));
        let mut events: Vec<Event> = (0..6).map(failing).collect();
        for event in &mut events {
            event.attributes = rig::many_attributes();
            event.trace.parent = Some(format!("00-trace-{}-01", event.id).into());
        }
        let sink = eventferry::sink::memory::MemorySink::new(near.clone());
        crate::fixture::put_through(&sink, events).await;
        timeout(PATIENCE, near.wait_until(<[_]>::is_empty)).await.expect("stays at its source");
        stop.send(()).unwrap();
        daemon.await.unwrap().unwrap();

        let queue = parked.source["sns"]["queue"].as_str().map(str::to_owned);
        let via = Via { queue, ..Via::default() };
        let listed = run(&mended, &via, Task::List, None).await;
        assert_eq!((listed.seen, listed.meant), (6, 6), "{kind}");
        let back = Task::Redrive { to: None, without_dedup: false };
        let redriven = run(&mended, &via, back.clone(), Some("map")).await;
        assert_eq!((redriven.seen, redriven.redriven, redriven.left()), (6, 2, 0), "{kind}");
        let arrived = rig::decoded(&far).await;
        let ids: BTreeSet<&str> = arrived.iter().map(|event| &*event.id).collect();
        assert_eq!((arrived.len(), ids), (2, ["e-0", "e-3"].into()), "{kind}");
        for event in arrived {
            let trace = format!("00-trace-{}-01", event.id);
            assert_eq!(event.trace.parent.as_deref(), Some(&*trace), "{kind}");
            let mut wanted = rig::many_attributes();
            wanted.set("tenant", eventferry::event::Value::string("acme"));
            let sorted = |attributes: &eventferry::event::Attributes| {
                attributes
                    .iter()
                    .map(|(n, v)| (n.clone(), format!("{v:?}")))
                    .collect::<BTreeMap<_, _>>()
            };
            assert_eq!(sorted(&event.attributes), sorted(&wanted), "{kind}");
        }
        // What fails again is there once, except in a log, which keeps what it had.
        let again = run(&mended, &via, back, Some("missing")).await;
        assert_eq!((again.failures(), again.redriven), (2, 0), "{kind}");
        let listed = run(&mended, &via, Task::List, None).await;
        assert_eq!(listed.seen, if kind == "event_hubs" { 8 } else { 4 }, "{kind}");
        if kind != "event_hubs" {
            assert_eq!(run(&mended, &via, Task::Discard, None).await.discarded, 4, "{kind}");
            assert_eq!(run(&mended, &via, Task::List, None).await.seen, 0, "{kind}");
        }
    }
}

/// As from kill -9, when the sink has confirmed and when the dead-letter queue is about to be told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_that_is_killed_loses_nothing() {
    const EVENTS: usize = 30;
    let _shared = shared().await;
    // What a killed redrive has hidden is soon back.
    let (parked, far) = (place_with_lease("sqs", 5).await, place("sqs").await);
    let (near_config, near) = memory("near");
    let sources = json!({ "near": near_config });
    let sinks = json!({ "far": far.sink, "parked": parked.sink });
    let broken = file(sources.clone(), sinks.clone(), three_causes(false)).await;
    let mended = file(sources, sinks, three_causes(true)).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = tokio::spawn(daemon::run(plan(&broken), async {
        let _ = stopped.await;
    }));
    let sink = eventferry::sink::memory::MemorySink::new(near.clone());
    let events = (0..EVENTS).map(|n| failing(3 * n)).collect();
    crate::fixture::put_through(&sink, events).await;
    timeout(PATIENCE, near.wait_until(<[_]>::is_empty)).await.expect("stays at its source");
    stop.send(()).unwrap();
    daemon.await.unwrap().unwrap();

    for point in [Point::AfterSend, Point::BeforeSettle] {
        let until = Instant::now() + PATIENCE;
        loop {
            let kill = vec![(VARIABLE, format!("{}:1", point.name()))];
            let killed = eventferry_with(&["redrive"], &mended, kill).await;
            if killed.status.signal() == Some(6) {
                break;
            }
            // It has found nothing yet of what the one before had hidden.
            assert!(Instant::now() < until, "not killed {point:?}: {killed:?}");
        }
    }
    let all = |arrived: &[Event]| {
        arrived.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len() == EVENTS
    };
    let again = async {
        loop {
            eventferry(&["redrive"], &mended).await;
        }
    };
    let arrived = tokio::select! {
        arrived = far.read(all, Instant::now() + PATIENCE) => arrived,
        () = again => Vec::new(),
    };
    assert!(all(&arrived), "{} of them arrived, repeats counted", arrived.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_shows_and_guards() {
    let _shared = shared().await;
    let parked = place("sqs").await;
    let ((near_config, _), (far_config, _)) = (memory("near"), memory("far"));
    let sinks = json!({ "far": far_config, "parked": parked.sink });
    let file = file(json!({ "near": near_config }), sinks, three_causes(true)).await;
    parked.put(vec![rig::event("foreign", r#"{"secret":"payload"}"#)]).await;

    let shown = eventferry(&["show", "foreign"], &file).await;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("bytes          20\n"), "{shown:?}");
    assert!(!text.contains("payload"), "{text}");
    let shown = eventferry(&["show", "foreign", "--body"], &file).await;
    assert!(String::from_utf8_lossy(&shown.stdout).contains("payload"), "{shown:?}");
    let absent = eventferry(&["show", "absent"], &file).await;
    assert!(!absent.status.success(), "{absent:?}");

    let guarded = eventferry(&["discard"], &file).await;
    let told = String::from_utf8_lossy(&guarded.stderr).into_owned();
    assert!(!guarded.status.success() && told.contains("--all"), "{guarded:?}");
    let skipped = eventferry(&["redrive"], &file).await;
    let told = String::from_utf8_lossy(&skipped.stdout).into_owned();
    assert!(!skipped.status.success() && told.contains("1 skipped: it has no record"), "{told}");
    let gone = eventferry(&["discard", "--all"], &file).await;
    assert!(gone.status.success(), "{gone:?}");
    let listed = eventferry(&["list"], &file).await;
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "0 entries of 0\n", "{listed:?}");
}
