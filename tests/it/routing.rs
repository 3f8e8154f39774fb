//! Routes through the whole daemon and the real emulators: what each of them takes.

use std::{collections::BTreeSet, time::Duration};

use eventferry::{
    config::{self, environment::Environment},
    daemon,
    event::{Event, Value},
    transform::{
        StepConfig, Transform,
        encode::{Coding, Config as DecodeConfig},
    },
};
use serde_json::json;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    clouds::shared,
    place::{Place, clouds, place},
    rig,
};

fn order(id: &str, tenant: &str, body: serde_json::Value) -> Event {
    let mut event = Event { kind: Some("order.placed".into()), ..rig::event(id, body.to_string()) };
    event.attributes.set("tenant", Value::string(tenant));
    event
}

async fn ids(place: &Place, count: usize) -> BTreeSet<String> {
    let until = Instant::now() + Duration::from_secs(60);
    let events = place.read(|events| events.len() >= count, until).await;
    events.iter().map(|event| event.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_sees_attributes_and_the_body_of_what_comes_from_a_queue() {
    let _shared = shared().await;
    let (near, large, rest) =
        (place("sqs").await, place("event_hubs").await, place("event_hubs").await);
    near.put(vec![
        order("large", "acme", json!({ "amount": 120.5, "items": [{ "sku": "a-XL" }] })),
        order("small", "acme", json!({ "amount": 20, "items": [{ "sku": "a-XL" }] })),
        order("foreign", "globex", json!({ "amount": 300, "items": [{ "sku": "a-XL" }] })),
        order("other-item", "acme", json!({ "amount": 300, "items": [{ "sku": "a-S" }] })),
        order("no-items", "acme", json!({ "amount": 300 })),
    ])
    .await;
    let clouds = clouds().await;
    let file = json!({
        "state": "memory",
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "unmatched": "drop",
        "sources": { "near": near.source },
        "sinks": { "large": large.sink, "rest": rest.sink },
        "routes": [
            { "name": "large", "from": ["near"], "to": { "all": ["large"] }, "when": {
                "type": [{ "prefix": "order." }],
                "attributes": { "tenant": ["acme"] },
                "data": {
                    "amount": [{ "numeric": [">", 100] }],
                    "items": { "sku": [{ "suffix": "-XL" }, { "exists": false }] },
                },
            } },
            { "name": "rest", "from": ["near"], "to": { "all": ["rest"] }, "when": { "$or": [
                { "attributes": { "tenant": [{ "anything-but": "acme" }] } },
                { "data": { "amount": [{ "numeric": ["<=", 100] }] } },
            ] } },
        ],
    });
    let checked = config::read("routing.yaml", &file.to_string(), &Environment::default());
    let plan = checked.unwrap_or_else(|problems| panic!("{problems}")).plan;
    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = tokio::spawn(daemon::run(plan, async {
        let _ = stopped.await;
    }));
    let (large, rest) = tokio::join!(ids(&large, 2), ids(&rest, 2));
    assert_eq!(large, ["large", "no-items"].map(str::to_owned).into());
    assert_eq!(rest, ["foreign", "small"].map(str::to_owned).into());
    stop.send(()).unwrap();
    daemon.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_and_strategies_work_between_the_clouds() {
    let _shared = shared().await;
    let (near, hub, queue, parked) = (
        place("sqs").await,
        place("event_hubs").await,
        place("storage_queue").await,
        place("sqs").await,
    );
    let body = |kind: &str, n: u32| json!({ "kind": kind, "n": n, "card": "4111 1111 1111 1111", "note": "ask jane@example.com" });
    near.put(vec![
        order(
            "mixed",
            "acme",
            json!({ "items": [body("hub", 1), body("queue", 2), body("hub", 3)] }),
        ),
        order("wrong", "acme", json!({ "items": [{ "kind": "hub", "n": "one" }] })),
        order("none", "acme", json!({ "items": [] })),
    ])
    .await;
    let clouds = clouds().await;
    let file = json!({
        "state": "memory",
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "dead_letter": "parked",
        "sources": { "near": near.source },
        "sinks": { "hub": hub.sink, "queue": queue.sink, "parked": parked.sink },
        "routes": [{
            "name": "items",
            "from": ["near"],
            "when": { "$if": "exists(.data.items)" },
            "transform": [
                { "split": { "list": "data.items" } },
                { "map": ".data.n = to_int!(.data.n) * 10\n.type = \"item.\" + string!(.data.kind)" },
                { "redact": { "paths": ["data.card"], "detect": ["email"] } },
                { "encode": ["gzip", "base64"] },
            ],
            "lane": "urgent",
            "rate_limit": { "per_second": 100 },
            "to": { "first": [
                { "when": { "type": ["item.hub"] }, "to": "hub" },
                { "otherwise": "queue" },
            ] },
        }],
    });
    let checked = config::read("routing.yaml", &file.to_string(), &Environment::default());
    let plan = checked.unwrap_or_else(|problems| panic!("{problems}")).plan;
    let (stop, stopped) = oneshot::channel::<()>();
    let daemon = tokio::spawn(daemon::run(plan, async {
        let _ = stopped.await;
    }));
    let until = Instant::now() + Duration::from_secs(60);
    let (at_hub, at_queue, dead) = tokio::join!(
        hub.read(|events| events.len() >= 2, until),
        queue.read(|events| !events.is_empty(), until),
        parked.read(|events| !events.is_empty(), until),
    );
    let decode = [StepConfig::Decode(DecodeConfig(vec![Coding::Base64, Coding::Gzip]))];
    let decode = Transform::compile(&decode, std::path::Path::new(".")).unwrap();
    let mut seen: Vec<_> = at_hub
        .into_iter()
        .chain(at_queue)
        .map(|event| {
            let event = decode.apply(event).unwrap().remove(0);
            let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
            assert_eq!(
                (&body["card"], &body["note"]),
                (&json!("****1111"), &json!("ask j***@example.com"))
            );
            (event.id.to_string(), event.kind.as_deref().unwrap().to_owned(), body["n"].clone())
        })
        .collect();
    seen.sort_by_key(|(id, ..)| id.clone());
    let item = |at: u32, kind: &str, n: u32| (format!("mixed/{at}"), kind.to_owned(), json!(n));
    assert_eq!(seen, [item(0, "item.hub", 10), item(1, "item.queue", 20), item(2, "item.hub", 30)]);
    let record = dead[0].dead_letter.as_ref().unwrap();
    assert_eq!((&*dead[0].id, record.class.as_str()), ("wrong", "map"));
    assert_eq!(dead[0].body, r#"{"items":[{"kind":"hub","n":"one"}]}"#);
    stop.send(()).unwrap();
    daemon.await.unwrap().unwrap();
}
