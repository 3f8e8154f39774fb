//! How much of an event somebody may see.

use serde_json::{Map, Value as Json};

use crate::{
    cli::event_file::{read_event, show_event},
    event::Event,
    transform::{
        Draft,
        redact::{Config, Detector, Redact, With},
    },
};

/// The names under which an event's body is shown.
const BODY: [&str; 3] = ["data", "data_text", "data_base64"];
/// What is looked for before a body is shown.
const DETECTED: [Detector; 6] = [
    Detector::Key,
    Detector::Email,
    Detector::Iban,
    Detector::Ip,
    Detector::Phone,
    Detector::CardNumber,
];

/// How much of an event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// What it is about, the names of its attributes and its size: neither body nor values.
    Outside,
    /// All of it, with what looks sensitive covered.
    Redacted,
    /// All of it.
    Whole,
}

impl Sight {
    /// The event as far as it is seen, under the names that patterns use. One that cannot be
    /// searched for what is sensitive is seen from outside.
    #[must_use]
    pub fn show(self, event: &Event) -> Json {
        match self {
            Self::Whole => show_event(event),
            Self::Redacted => redacted(event).unwrap_or_else(|| outside(event)),
            Self::Outside => outside(event),
        }
    }

    /// The same of one that is shown already; nothing of what cannot be read.
    #[must_use]
    pub fn show_again(self, shown: Json) -> Json {
        read_event(shown).map_or(Json::Null, |event| self.show(&event))
    }
}

fn outside(event: &Event) -> Json {
    let Json::Object(mut shown) = show_event(event) else { return Json::Null };
    shown.retain(|name, _| !BODY.contains(&name.as_str()));
    if let Some(Json::Object(attributes)) = shown.get_mut("attributes") {
        let names = std::mem::take(attributes).into_iter();
        *attributes = names.map(|(name, _)| (name, Json::Null)).collect::<Map<_, _>>();
    }
    shown.insert("bytes".to_owned(), event.body.len().into());
    shown.into()
}

fn redacted(event: &Event) -> Option<Json> {
    let mut draft = Draft::new(event.clone());
    redact()?.apply(&mut draft).ok()?;
    Some(show_event(&draft.finish()))
}

fn redact() -> Option<Redact> {
    let (detect, with) = (DETECTED.to_vec(), With::Mask);
    let config = Config { paths: Vec::new(), detect, within: Vec::new(), with };
    let mut redact = config.compile().ok()?;
    redact.unlock().ok()?;
    Some(redact)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_sees_what_it_may() {
        let shown = json!({
            "id": "7", "source": "/shop", "type": "order.placed",
            "attributes": { "tenant": "acme" },
            "data": { "amount": 12, "mail": "jane@example.com" },
        });
        let event = read_event(shown.clone()).unwrap();
        assert_eq!(Sight::Whole.show(&event), shown);
        let redacted = Sight::Redacted.show(&event);
        assert_eq!((&redacted["data"]["amount"], &redacted["type"]), (&json!(12), &shown["type"]));
        assert!(!redacted.to_string().contains("jane@"), "{redacted}");
        let outside = json!({
            "id": "7", "source": "/shop", "type": "order.placed",
            "attributes": { "tenant": null }, "bytes": event.body.len(),
        });
        assert_eq!(Sight::Outside.show(&event), outside);
        assert_eq!(Sight::Outside.show_again(shown), outside);
    }
}
