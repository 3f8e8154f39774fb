//! What each step of a transform costs on an event of one KiB, from its bytes to the bytes that
//! would be sent.
//!
//! `cargo bench --bench transform`

use std::path::Path;

use eventferry::transform::Transform;
use serde_json::json;

mod gauge;
mod order;

use gauge::measure;

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
    let event = apply(&compile(before), order::event()).remove(0);
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
    step("split of five items", json!([{"split": {"list": "data.items"}}]));
}
