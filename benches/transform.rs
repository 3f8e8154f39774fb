//! What each step of a transform costs on an event of one KiB, from its bytes to the bytes that
//! would be sent.
//!
//! `cargo bench --bench transform`

use std::path::Path;

use eventferry::{
    event::{Event, Trace, Value},
    transform::Transform,
};
use serde_json::json;
use time::macros::datetime;

mod gauge;

use gauge::measure;

/// An order of one KiB, with what a detector looks for.
fn order() -> Event {
    let item = |at: u32| {
        json!({
            "sku": format!("SKU-{at:05}"), "name": format!("Article no. {at}, blue, size {at}"),
            "count": at % 3 + 1, "price": f64::from(at) * 1.25, "tags": ["new", "sale"],
        })
    };
    let body = json!({
        "order": {"id": "O-2026-11-21-000017", "state": "placed", "total": 259.9, "currency": "EUR"},
        "tenant": "tenant-0017",
        "customer": {"id": "C-4711", "email": "ada@example.com", "phone": "+49 30 901820", "tier": "gold"},
        "payment": {"card": "4111 1111 1111 1111", "iban": "DE89 3704 0044 0532 0130 00"},
        "ship_to": {"street": "Unter den Linden 1", "zip": "10117", "city": "Berlin", "country": "de"},
        "items": (17..22).map(item).collect::<Vec<_>>(),
        "client": {"ip": "10.0.17.5", "agent": "Mozilla/5.0 (X11; Linux x86_64)", "path": "/cart"},
        "urgent": false, "note": null, "created": "2026-11-21T11:59:58Z",
    });
    let body = body.to_string();
    assert!((1000..1050).contains(&body.len()), "{}", body.len());
    Event {
        id: "0190a6e2-3b1c-7d43-a0d8-2f7b5a0c9e11".into(),
        source: "/shop/berlin".into(),
        kind: Some("order.placed".into()),
        subject: None,
        time: Some(datetime!(2026-11-21 11:59:58 UTC)),
        content_type: Some("application/json".into()),
        key: None,
        trace: Trace::default(),
        hops: 0,
        attributes: [("tenant", Value::string("tenant-0017"))].into_iter().collect(),
        body: body.into(),
        dead_letter: None,
        fitted: None,
    }
}

/// Measures the last of the steps, on what those before it make of the order.
fn step(name: &str, steps: serde_json::Value) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches"));
    let compile = |steps: &[_]| {
        let mut transform =
            Transform::compile(steps, folder).unwrap_or_else(|findings| panic!("{findings:?}"));
        assert!(transform.unlock().is_empty(), "{name}: a key is missing");
        transform
    };
    let steps: Vec<_> = serde_json::from_value(steps).unwrap_or_else(|error| panic!("{error}"));
    let Some((_, before)) = steps.split_last() else { return };
    let apply = |transform: &Transform, event| {
        transform.apply(event).unwrap_or_else(|failure| panic!("{name}: {failure:?}"))
    };
    let event = apply(&compile(before), order()).remove(0);
    let last = compile(&steps[before.len()..]);
    measure(name, || apply(&last, event.clone()));
}

fn main() {
    step("parse", json!([{"parse": ["data"]}]));
    step(
        "map of three fields",
        json!([{
            "map": ".data.total = .data.order.total\ndel(.data.client)\n.type = \"order\""
        }]),
    );
    step(
        "set of three fields",
        json!([{
            "set": {"type": "order", "data.seen": true, "attributes.tier": "{{ data.customer.tier }}"}
        }]),
    );
    step("remove of a field", json!([{"remove": ["data.client"]}]));
    step("rename of a field", json!([{"rename": {"data.client": "data.browser"}}]));
    step(
        "validate",
        json!([{
            "validate": {"schemas": {"order.placed": {"1": "order.schema.json"}}}
        }]),
    );
    for detector in ["card_number", "email", "phone", "iban", "ip", "key"] {
        step(&format!("redact, {detector}"), json!([{"redact": {"detect": [detector]}}]));
    }
    step(
        "redact, two paths",
        json!([{"redact": {"paths": ["data.payment.card", "data.client.ip"]}}]),
    );
    for envelope in ["cloud_events", "event_bridge"] {
        step(&format!("wrap, {envelope}"), json!([{"wrap": envelope}]));
        step(&format!("unwrap, {envelope}"), json!([{"wrap": envelope}, {"unwrap": envelope}]));
    }
    for coding in ["json", "base64", "gzip", "zstd"] {
        step(&format!("encode, {coding}"), json!([{"encode": coding}]));
        step(&format!("decode, {coding}"), json!([{"encode": coding}, {"decode": coding}]));
    }
    step("encrypt", json!([{"encrypt": {"key": "a", "keys": {"a": "${ORDERS_KEY}"}}}]));
    step(
        "decrypt",
        json!([
            {"encrypt": {"key": "a", "keys": {"a": "${ORDERS_KEY}"}}}, {"decrypt": {"keys": {"a": "${ORDERS_KEY}"}}}
        ]),
    );
    step("split of five items", json!([{"split": "data.items"}]));
}
