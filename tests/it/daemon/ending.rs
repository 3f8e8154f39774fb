//! How a daemon ends while it has work, and what its probes say meanwhile: Kubernetes kills what does
//! not live, and sends traffic of people to what is ready.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures::future::join_all;

use super::*;
use crate::{clouds::fake_sqs::FakeSqs, place::place_with_lease};

/// What the service takes for a request; less than the second that a drain leaves for the answers.
const SLOW: Duration = Duration::from_millis(300);
/// What SIGTERM leaves a daemon.
const GRACE: Duration = Duration::from_secs(4);
/// How much longer it may take: what the chart gives it on top before it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// An answer that was later than this may have come to nobody.
const IN_TIME: Duration = Duration::from_millis(900);
/// Daemons that are told to end at moments of their own.
const AT_ONCE: usize = 4;
/// More than can be delivered in it.
const EVENTS: usize = 200;

/// What the probes have said while a daemon ended.
#[derive(Debug, Default)]
struct Said {
    /// Answers of `/livez` other than 200.
    not_alive: Vec<u16>,
    /// Whether `/readyz` has said that it ends.
    draining: bool,
    /// Whether it has said that all is well since.
    ready: bool,
}

impl Daemon {
    /// Looks at both probes until nobody answers.
    async fn probed_until_the_end(&self) -> Said {
        let mut said = Said::default();
        loop {
            match self.get("livez").await {
                Some((200, _)) => {}
                Some((status, _)) => said.not_alive.push(status),
                None => return said,
            }
            match self.get("readyz").await {
                Some((503, text)) if text.contains("draining") => said.draining = true,
                Some(_) => said.ready |= said.draining,
                None => return said,
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// From a queue with more than can be delivered in time, into a service that takes its time. Told to
/// end at whatever moment comes `after` its first delivery.
async fn ends(after: Duration, stop: impl AsyncFnOnce(&Daemon, &Json)) {
    // What is not given back would be hidden for longer than this test waits.
    let mut near = place_with_lease("sqs", 600).await;
    // A request that outlives its daemon must not take what was given back.
    near.source["sqs"]["poll"]["wait"] = json!("1s");
    let unanswered: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let noted = unanswered.clone();
    let service = FakeSqs::start(30, move |_, input| {
        let noted = noted.clone();
        async move {
            let asked = Instant::now();
            noted.lock().unwrap().extend(bodies(&input).map(number));
            sleep(SLOW).await;
            if asked.elapsed() <= IN_TIME {
                bodies(&input).for_each(|body| _ = noted.lock().unwrap().remove(&number(body)));
            }
            let taken = input["Entries"].as_array().unwrap().iter();
            let taken =
                taken.map(|it| json!({ "Id": it["Id"], "MessageId": "m", "MD5OfMessageBody": "" }));
            Ok(json!({ "Successful": taken.collect::<Vec<_>>(), "Failed": [] }))
        }
    })
    .await;
    let far = json!({
        "sqs": { "queue": "queue", "aws": service.settings() }, "concurrency": { "max": 1 },
    });
    let mut config = route(near.source.clone(), far);
    config["drain"] = json!({ "grace": format!("{}s", GRACE.as_secs()) });
    near.put(rig::events("e", EVENTS, 0)).await;
    let mut daemon = Daemon::start(config.clone()).await;
    let has_begun = |_, text: &str| {
        let line = "eventferry_settled_total{outcome=\"delivered\",source=\"near\"} ";
        text.lines().any(|it| it.strip_prefix(line).is_some_and(|count| count != "0"))
    };
    daemon.wait_for("metrics", has_begun).await;

    // A moment of the test's choice: nothing is waited for.
    sleep(after).await;
    let began = Instant::now();
    stop(&daemon, &config).await;
    let said = daemon.probed_until_the_end().await;
    let status = daemon.ended().await;
    let took = began.elapsed();
    assert!(said.not_alive.is_empty() && said.draining && !said.ready, "{said:?}");
    assert!(status.success(), "{status}; log: {}", daemon.log());
    assert!(took < GRACE + ENDS_WITHIN, "{took:?}; log: {}", daemon.log());

    let sent = service.asked("SendMessageBatch");
    let sent: Vec<_> = sent.iter().flat_map(bodies).map(number).collect();
    let numbers: BTreeSet<_> = sent.iter().copied().collect();
    assert_eq!(numbers.len(), sent.len(), "an event was sent twice");
    assert!(numbers.len() < EVENTS, "it was not slow enough for anything to go back");
    let until = Instant::now() + PATIENCE;
    let left = near.read(|events| events.len() >= EVENTS - numbers.len(), until).await;
    let left: BTreeSet<_> =
        left.iter().map(|event| number(std::str::from_utf8(&event.body).unwrap())).collect();
    let both: BTreeSet<_> = left.intersection(&numbers).copied().collect();
    let unanswered = unanswered.lock().unwrap();
    assert!(both.is_subset(&unanswered), "what was delivered is still there: {both:?}");
    assert_eq!(left.union(&numbers).count(), EVENTS, "what was not delivered is still there");
}

/// What a request brings.
fn bodies(input: &Json) -> impl Iterator<Item = &str> {
    let entries = input["Entries"].as_array().unwrap().iter();
    entries.map(|entry| entry["MessageBody"].as_str().unwrap())
}

/// The number of an event, by which its body tells it.
fn number(body: &str) -> u64 {
    serde_json::from_str::<Json>(body).unwrap()["n"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_under_load_ends_in_its_time_when_it_is_told_to() {
    let moments = (0..AT_ONCE).map(|_| Duration::from_millis(rand::random_range(0..600)));
    join_all(moments.map(async |moment| {
        println!("told to end {moment:?} after its first delivery");
        ends(moment, async |daemon, _| daemon.terminate()).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_tells_it_again_and_otherwise_changes_nothing() {
    ends(Duration::ZERO, async |daemon, _| {
        daemon.signal("-INT");
        daemon.wait_for("readyz", |status, text| status == 503 && text.contains("draining")).await;
        daemon.terminate();
        daemon.signal("-INT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_so_in_the_middle_of_a_reload() {
    ends(Duration::ZERO, async |daemon, config| {
        let mut config = config.clone();
        config["sources"]["near"]["max_in_flight"] = json!({ "events": 500 });
        daemon.write_file(&config);
        daemon.signal("-HUP");
        // From here on one pipeline ends and another begins, which takes as long as the service.
        daemon.logged("configuration applied").await;
        daemon.terminate();
    })
    .await;
}
