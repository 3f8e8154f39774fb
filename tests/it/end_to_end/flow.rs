//! Sinks that throttle, refuse or are away, beside sinks that work, in one daemon.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use eventferry::{cli::event_file::read_event, event::Event};
use serde_json::{Value as Json, json};
use tokio::time::{sleep, timeout};

use super::{Ferry, arrivals};
use crate::{
    clouds::{
        fake_sqs::{Answer, FakeSqs},
        localstack, shared,
    },
    place::{Place, place},
    rig::PATIENCE,
};

fn typed(kind: &str, count: usize) -> impl Iterator<Item = Event> + '_ {
    (0..count).map(move |n| {
        let event = json!({ "id": format!("{kind}-{n}"), "type": kind, "data": { "n": n } });
        read_event(event).unwrap()
    })
}

const ROUTES: &str = r#"
routes:
  - { name: bad, from: shop, when: { type: [bad] }, to: { all: [bad] }, retry: { attempts: 3, backoff: 10ms } }
  - { name: good, from: shop, when: { type: [good] }, to: { all: [good] } }
"#;

fn ids<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeSet<&'a str> {
    events.into_iter().map(|event| &*event.id).collect()
}

/// A queue and a hub as sources; a queue that is away for longer than all attempts would take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_parks_nothing_and_holds_up_no_other_route() {
    let _shared = shared().await;
    for kind in ["sqs", "event_hubs"] {
        let (shop, mut bad) = (place(kind).await, place("sqs").await);
        let (good, parked) = (place("event_hubs").await, place("sqs").await);
        let (aws, cord) = localstack::on_a_cord().await;
        let direct = bad.sink.clone();
        bad.sink["sqs"]["aws"] = json!(aws);
        bad.sink["breaker"] = json!({ "failures": 3, "open": "50ms", "open_max": "200ms" });
        let places = [("bad", &bad), ("good", &good), ("parked", &parked)];
        let ferry = Ferry::run(&[("shop", &shop)], &places, ROUTES).await;
        // Everything is connected once one of each has arrived.
        shop.put(typed("bad", 1).chain(typed("good", 1)).collect()).await;
        let first = arrivals(&[("bad", &bad), ("good", &good)], 2).await;
        assert_eq!(first.len(), 2, "{kind}");

        cord.part();
        let others = typed("bad", 300).skip(1).chain(typed("good", 300).skip(1));
        shop.put(others.collect()).await;
        let there = arrivals(&[("good", &good)], 299).await;
        let there: BTreeSet<_> = ids(there.iter().map(|arrival| &arrival.event))
            .into_iter()
            .map(str::to_owned)
            .collect();
        assert!(there.len() >= 299, "{kind}: the other route goes on");
        // Far more often than an event has attempts.
        timeout(PATIENCE, cord.refused(30)).await.expect("it is asked again and again");
        cord.mend();

        bad.sink = direct;
        let arrived = arrivals(&[("bad", &bad)], 299).await;
        let mut seen: Vec<_> = arrived.iter().map(|arrival| &*arrival.event.id).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 299, "{kind}");
        ferry.end().await;
        let parked = parked.source().await.receive.receive().await.unwrap();
        assert!(parked.is_empty(), "{kind}: {} dead letters", parked.len());
    }
}

/// Throttles every other request, and never takes the message that is poison.
async fn moody(asked: usize, input: Json) -> Answer {
    if asked % 2 == 1 {
        return Err("RequestThrottled");
    }
    let entries = input["Entries"].as_array().unwrap();
    let answer = |entry: &Json| (entry["Id"].clone(), entry["MessageBody"].to_string());
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for (id, body) in entries.iter().map(answer) {
        match is_poison(&body) {
            false => taken.push(json!({ "Id": id, "MessageId": "m", "MD5OfMessageBody": "" })),
            true => refused.push(
                json!({ "Id": id, "SenderFault": false, "Code": "InternalError", "Message": "no" }),
            ),
        }
    }
    Ok(json!({ "Successful": taken, "Failed": refused }))
}

fn is_poison(body: &str) -> bool {
    body.replace('\\', "").contains(r#""n":13}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_throttles_and_a_poison_event_cost_nobody_else_anything() {
    let _shared = shared().await;
    let (shop, good, parked) = (place("sqs").await, place("event_hubs").await, place("sqs").await);
    let asked: &'static AtomicUsize = Box::leak(Box::default());
    let service =
        FakeSqs::start(30, move |_, input| moody(asked.fetch_add(1, Ordering::SeqCst), input))
            .await;
    let mut bad = place("sqs").await;
    bad.sink = json!({ "sqs": { "queue": "queue", "aws": service.settings() } });
    let sinks: [(&str, &Place); 3] = [("bad", &bad), ("good", &good), ("parked", &parked)];
    shop.put(typed("bad", 100).chain(typed("good", 100)).collect()).await;
    let ferry = Ferry::run(&[("shop", &shop)], &sinks, ROUTES).await;
    let arrived = arrivals(&[("good", &good), ("parked", &parked)], 101).await;
    let good = ids(arrived.iter().filter(|it| it.sink == "good").map(|it| &it.event)).len();
    let letters: Vec<_> = arrived.iter().filter(|it| it.sink == "parked").collect();
    assert_eq!((good, letters.len()), (100, 1));
    let record = letters[0].event.dead_letter.as_ref().unwrap();
    assert_eq!((&*letters[0].event.id, record.attempts, &*record.class), ("bad-13", 3, "failed"));
    // All others have been taken by now or are soon.
    let bodies = || {
        let asked = service.asked("SendMessageBatch");
        let entries = asked.iter().flat_map(|input| input["Entries"].as_array().unwrap().clone());
        entries.map(|entry| entry["MessageBody"].to_string()).collect::<Vec<_>>()
    };
    let all = async {
        while bodies().iter().collect::<BTreeSet<_>>().len() < 100 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("all are sent");
    ferry.end().await;
}
