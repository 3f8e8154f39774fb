//! Routes through the whole daemon and the real emulators: what each of them takes.

use std::{collections::BTreeSet, time::Duration};

use eventferry::{
    config::{self, environment::Environment},
    daemon,
    event::{Event, Value},
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
