//! The story that the demo plays: a shop in AWS takes orders, devices in Azure report readings,
//! and one of them sends something that cannot be delivered.

use bytes::Bytes;
use eventferry::event::{Attributes, Event, Trace};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// An event hub takes 1 MiB, an SNS topic 256 KiB: between the two is poison for the route of the
/// alerts.
const CRASH_DUMP_BYTES: usize = 300 << 10;
/// One reading in this many is an alert.
const ALERT_EVERY: u32 = 10;
/// One order in this many changes an earlier one.
const CHANGE_EVERY: u32 = 4;
const CUSTOMERS: u32 = 40;
const PUMPS: u32 = 12;

/// The order of this number, as the shop writes it.
pub(crate) fn order(number: u32) -> Event {
    let kind = if is_last_of(number, CHANGE_EVERY) { "order.changed" } else { "order.placed" };
    let customer = format!("customer-{:02}", number % CUSTOMERS);
    let euros = 10 + number * 37 % 500;
    let body = json!({ "order": number, "customer": customer, "amount": euros, "currency": "EUR" });
    event(format!("order-{number:06}"), "/shop", kind, customer, &body)
}

/// The reading of this number, as a pump writes it.
pub(crate) fn reading(number: u32) -> Event {
    let pump = format!("pump-{:02}", number % PUMPS);
    let celsius = 40 + number * 7 % 30;
    if is_last_of(number, ALERT_EVERY) {
        let body = json!({ "device": pump, "celsius": celsius + 40, "alert": "overheated" });
        return event(reading_id(number), "/plant", "device.alert", pump, &body);
    }
    let body = json!({ "device": pump, "celsius": celsius });
    event(reading_id(number), "/plant", "device.reading", pump, &body)
}

/// An alert with a crash dump in it, too large for the topic that alerts go to.
pub(crate) fn poisoned_reading(number: u32) -> Event {
    let pump = format!("pump-{:02}", number % PUMPS);
    let dump = "7f454c46".repeat(CRASH_DUMP_BYTES / 8);
    let body = json!({ "device": pump, "alert": "crashed", "dump": dump });
    event(reading_id(number), "/plant", "device.alert", pump, &body)
}

fn reading_id(number: u32) -> String {
    format!("reading-{number:06}")
}

fn is_last_of(number: u32, each: u32) -> bool {
    number % each == each - 1
}

fn event(id: String, source: &str, kind: &str, key: String, body: &Value) -> Event {
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
        body: Bytes::from(body.to_string()),
        dead_letter: None,
        fitted: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_poisoned_reading_is_too_large_for_the_topic() {
        let topic_bytes = eventferry::cloud::aws::topic::MESSAGE_BYTES_DEFAULT;
        assert!(poisoned_reading(1).body.len() > topic_bytes);
        assert!((0..100).all(|number| reading(number).body.len() < 1024));
        assert!((0..100).all(|number| order(number).body.len() < 1024));
    }
}
