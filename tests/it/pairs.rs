//! Every kind of source into every kind of sink, through the whole daemon and the real emulators:
//! each event once, with its bytes, attributes and trace context.

use std::time::Duration;

use eventferry::{
    config::{self, environment::Environment},
    daemon,
    event::{Event, Trace, Value},
};
use serde_json::json;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    clouds::alone,
    place::{KINDS, Place, clouds, place},
    rig,
};

const EVENTS: usize = 300;

/// An event with everything that has to survive.
fn full(number: usize) -> Event {
    let attributes = [
        ("tenant", Value::string("acme")),
        ("amount", Value::Number("12.50".into())),
        ("urgent", Value::Bool(number.is_multiple_of(2))),
        ("signature", Value::Binary(vec![0, 255, 7].into())),
    ];
    Event {
        kind: Some("order.placed".into()),
        subject: Some(format!("orders/{number}").into()),
        content_type: Some("application/json".into()),
        key: Some(format!("customer-{}", number % 50).into()),
        trace: Trace {
            parent: Some(format!("00-{:032x}-{:016x}-01", number + 1, number + 1).into()),
            state: Some("vendor=1".into()),
        },
        attributes: attributes.into_iter().collect(),
        ..rig::event(&format!("e-{number}"), format!("{{\"n\":{number}}}"))
    }
}

/// A configuration file with one route.
async fn file(near: &Place, far: &Place, state: &std::path::Path) -> String {
    let clouds = clouds().await;
    let file = json!({
        "state": { "embedded": { "path": state } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "unmatched": "drop",
        "sources": { "near": near.source },
        "sinks": { "far": far.sink },
        "routes": [{ "name": "pair", "from": ["near"], "to": { "all": ["far"] } }],
    });
    file.to_string()
}

async fn carries_from(kind: &str) {
    for far in KINDS {
        let _alone = alone().await;
        carries(&format!("{kind} to {far}"), &place(kind).await, &place(far).await).await;
    }
}

async fn carries(pair: &str, near: &Place, far: &Place) {
    near.put((0..EVENTS).map(full).collect()).await;
    let state = tempfile::tempdir().unwrap();
    let text = file(near, far, state.path()).await;
    let checked = config::read("pairs.yaml", &text, &Environment::default());
    let plan = checked.unwrap_or_else(|problems| panic!("{problems}")).plan;
    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = tokio::spawn(daemon::run(plan, async {
        let _ = stopped.await;
    }));
    let until = Instant::now() + Duration::from_secs(120);
    let mut arrived = far.read(|events| events.len() >= EVENTS, until).await;
    arrived.sort_by_key(|event| event.id[2..].parse::<usize>().unwrap());
    let ids: Vec<_> = arrived.iter().map(|event| event.id.to_string()).collect();
    let expected: Vec<_> = (0..EVENTS).map(|number| format!("e-{number}")).collect();
    assert!(ids == expected, "{pair}: {} events, not each once", ids.len());
    for (number, event) in arrived.iter().enumerate() {
        same(event, &full(number), pair);
    }
    stop.send(()).unwrap();
    daemon.await.unwrap().unwrap();
}

fn same(event: &Event, sent: &Event, pair: &str) {
    assert_eq!(event.body, sent.body, "{pair}");
    assert_eq!(event.trace, sent.trace, "{pair}");
    assert_eq!((&event.kind, &event.subject), (&sent.kind, &sent.subject), "{pair}");
    assert_eq!((&event.key, &event.source), (&sent.key, &sent.source), "{pair}");
    assert_eq!(event.content_type, sent.content_type, "{pair}");
    assert_eq!(event.hops, 2, "{pair}");
    for (name, value) in sent.attributes.iter() {
        assert_eq!(event.attributes.get(name), Some(value), "{pair}: {name}");
    }
    assert_eq!(event.attributes.len(), sent.attributes.len(), "{pair}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sqs_to_every_service() {
    carries_from("sqs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_sns_to_every_service() {
    carries_from("sns").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_event_hubs_to_every_service() {
    carries_from("event_hubs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_storage_queues_to_every_service() {
    carries_from("storage_queue").await;
}
