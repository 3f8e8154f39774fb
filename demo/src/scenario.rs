//! The story that the demo plays: a shop in AWS takes orders, devices in Azure report readings,
//! and one of them sends something that cannot be delivered.

use bytes::Bytes;
use eventferry::event::{Attributes, Event, Trace};
use serde_json::json;
use time::OffsetDateTime;

/// Bytes of the crash dump that one device sends: fine for an event hub, which takes 1 MiB, and
/// more than the queue `telemetry` takes (256 KiB, see `localstack/seed.json`).
const CRASH_DUMP_BYTES: usize = 300 << 10;
/// One reading in this many is an alert.
const ALERT_EVERY: u32 = 10;
/// One order in this many changes an earlier one.
const CHANGE_EVERY: u32 = 4;
const CUSTOMERS: u32 = 40;
const DEVICES: u32 = 12;

/// The order of this number, as the shop writes it.
pub fn order(number: u32) -> Event {
    let kind = if number % CHANGE_EVERY == CHANGE_EVERY - 1 { "order.changed" } else { "order.placed" };
    let customer = format!("customer-{:02}", number % CUSTOMERS);
    let cents = 990 + u64::from(number) * 137 % 50_000;
    let body = json!({
        "order": number,
        "customer": customer,
        "amount": cents as f64 / 100.0,
        "currency": "EUR",
    });
    event(format!("order-{number:06}"), "/shop", kind, customer, body.to_string())
}

/// The reading of this number, as a device writes it.
pub fn reading(number: u32) -> Event {
    let device = format!("pump-{:02}", number % DEVICES);
    let celsius = f64::from(400 + number * 7 % 300) / 10.0;
    let (kind, body) = if number % ALERT_EVERY == ALERT_EVERY - 1 {
        ("device.alert", json!({ "device": device, "alert": "overheated", "celsius": celsius + 40.0 }))
    } else {
        ("device.reading", json!({ "device": device, "celsius": celsius }))
    };
    event(format!("reading-{number:06}"), "/plant", kind, device, body.to_string())
}

/// A reading with a crash dump in it, too large for the queue that it is bound for.
pub fn poisoned_reading(number: u32) -> Event {
    let device = "pump-07".to_owned();
    let body = json!({ "device": device, "crash_dump": "7f454c46".repeat(CRASH_DUMP_BYTES / 8) });
    event(format!("reading-{number:06}"), "/plant", "device.reading", device, body.to_string())
}

fn event(id: String, source: &str, kind: &str, key: String, body: String) -> Event {
    Event {
        id: id.into(),
        source: source.into(),
        kind: Some(kind.into()),
        subject: None,
        time: Some(OffsetDateTime::now_utc()),
        content_type: Some("application/json".into()),
        key: Some(key.into()),
        trace: Trace::default(),
        hops: 0,
        attributes: Attributes::default(),
        body: Bytes::from(body),
        dead_letter: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_poisoned_reading_is_too_large_for_its_queue() {
        let queue_bytes = 256 << 10;
        assert!(poisoned_reading(1).body.len() > queue_bytes);
        assert!((0..100).all(|number| reading(number).body.len() < 1024));
    }
}
