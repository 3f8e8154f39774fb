//! The story that the demo plays: a shop in AWS takes orders, devices in Azure report readings,
//! and one of each is something that cannot be delivered.

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

/// Card numbers that are nobody's, made for tests. No part of any may reach Azure but its end.
const CARDS: [&str; 3] = ["4111111111111111", "5555555555554444", "378282246310005"];
/// Where the customers have their e-mail addresses.
const AT_DOMAIN: &str = "@example.com";

/// The order of this number, as the shop writes it.
pub(crate) fn order(number: u32) -> Event {
    let kind = if is_last_of(number, CHANGE_EVERY) { "order.changed" } else { "order.placed" };
    let customer = format!("customer-{:02}", number % CUSTOMERS);
    let euros = 10 + number * 37 % 500;
    let body = json!({
        "order": number,
        "customer": customer,
        "amount": euros,
        "currency": "EUR",
        "card": CARDS[number as usize % CARDS.len()],
        "note": format!("Invoice to {customer}{AT_DOMAIN}, please"),
    });
    event(order_id(number), "/shop", kind, customer, &body)
}

/// An order in a currency that its schema does not know, so that it does not let it pass: until
/// somebody adds it there.
pub(crate) fn invalid_order(number: u32) -> Event {
    let customer = format!("customer-{:02}", number % CUSTOMERS);
    let card = CARDS[number as usize % CARDS.len()];
    let body = json!({
        "order": number, "customer": customer, "amount": 120, "currency": "CHF", "card": card,
    });
    event(order_id(number), "/shop", "order.placed", customer, &body)
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

/// Whether a card number or an e-mail address stands in the event as it was written. The demo looks
/// for what it has put there itself: what the daemon takes for one must not matter.
pub(crate) fn has_secrets(event: &Event) -> bool {
    let attributes = event.attributes.iter().map(|(_, value)| format!("{value:?}"));
    let texts = [event.subject.as_deref(), event.key.as_deref()].into_iter().flatten();
    let mut texts = attributes
        .chain(texts.map(str::to_owned))
        .chain([String::from_utf8_lossy(&event.body).into_owned()]);
    texts.any(|text| {
        let addresses = text.match_indices(AT_DOMAIN);
        // A masked address ends in a star before its `@`.
        let mut names = addresses.filter_map(|(at, _)| text[..at].chars().next_back());
        names.any(char::is_alphanumeric) || CARDS.iter().any(|card| text.contains(card))
    })
}

fn order_id(number: u32) -> String {
    format!("order-{number:06}")
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

    #[test]
    fn secrets_are_seen_until_they_are_masked() {
        let with = |body: &str| Event { body: Bytes::from(body.to_owned()), ..reading(1) };
        assert!((0..100).all(|number| has_secrets(&order(number))));
        assert!(has_secrets(&invalid_order(1)));
        assert!(has_secrets(&with("to customer-07@example.com")));
        assert!(has_secrets(&Event { subject: Some(CARDS[1].into()), ..reading(1) }));
        assert!(!has_secrets(&with(r#"{"card":"****1111","note":"to c***@example.com"}"#)));
        assert!((0..100).all(|number| !has_secrets(&reading(number))));
    }
}
