//! The event that the benchmarks measure with: an order of one KiB, as a shop would send it.

use eventferry::event::{Event, Trace, Value};
use serde_json::json;
use time::macros::datetime;

/// Its body.
pub(crate) fn body() -> String {
    let item = |at: u32| {
        json!({
            "sku": format!("SKU-{at:05}"), "name": format!("Article no. {at}, blue, size {at}"),
            "count": at % 3 + 1, "price": f64::from(at) * 1.25, "tags": ["new", "sale"],
        })
    };
    let body = json!({
        "order": {"id": "O-2026-11-21-000017", "state": "placed", "total": 259.9, "currency": "EUR"},
        "tenant": "tenant-0017",
        "customer": {
            "id": "C-4711", "email": "ada@example.com", "phone": "+49 30 901820", "tier": "gold",
            "country": "de",
        },
        "payment": {"card": "4111 1111 1111 1111", "iban": "DE89 3704 0044 0532 0130 00"},
        "ship_to": {"street": "Unter den Linden 1", "zip": "10117", "city": "Berlin", "country": "de"},
        "items": (17..21).map(item).collect::<Vec<_>>(),
        "client": {"ip": "10.0.17.5", "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101", "path": "/shop/berlin/cart"},
        "urgent": false, "channel": "web", "note": null, "created": "2026-11-21T11:59:58Z",
    });
    let body = body.to_string();
    assert!((1000..1050).contains(&body.len()), "{}", body.len());
    body
}

/// The whole of it.
#[allow(dead_code, reason = "the engine makes its own of the body")]
pub(crate) fn event() -> Event {
    Event {
        id: "0190a6e2-3b1c-7d43-a0d8-2f7b5a0c9e11".into(),
        source: "/shop/berlin".into(),
        kind: Some("order.placed".into()),
        subject: Some("orders/O-2026-11-21-000017".into()),
        time: Some(datetime!(2026-11-21 11:59:58 UTC)),
        content_type: Some("application/json".into()),
        key: None,
        trace: Trace::default(),
        hops: 0,
        attributes: [("tenant", "tenant-0017"), ("region", "eu-central-1")]
            .map(|(name, value)| (name, Value::string(value)))
            .into_iter()
            .collect(),
        body: body().into(),
        dead_letter: None,
        fitted: None,
    }
}
