//! Which events a route takes, and how it treats them. Pure: looks at an event, changes nothing.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    config::units::Span,
    event::{Event, Value},
};

/// What an event must be for a route to take it: every field that is given must match, and a
/// field matches if the event's value is one of those listed. Without any field, every event.
///
/// Values are compared as text, exactly; an event without the field does not match. This is the
/// part of the EventBridge pattern language that needs no operators.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// CloudEvents `type`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Vec<String>>,
    /// CloudEvents `source`; the address of the queue or hub where the producer gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Vec<String>>,
    /// CloudEvents `subject`, the SNS subject, the AMQP subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Vec<String>>,
    /// The producer's own attributes, by name. Text, numbers and booleans can match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Vec<String>>,
}

impl When {
    /// Whether every event matches.
    #[must_use]
    pub fn is_always(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `event` matches.
    #[must_use]
    pub fn accepts(&self, event: &Event) -> bool {
        let text = |field: &Option<Vec<String>>, value: Option<&str>| match field {
            Some(allowed) => value.is_some_and(|value| allowed.iter().any(|one| one == value)),
            None => true,
        };
        text(&self.kind, event.kind.as_deref())
            && text(&self.source, Some(&event.source))
            && text(&self.subject, event.subject.as_deref())
            && self.attributes.iter().all(|(name, allowed)| {
                event.attributes.get(name).is_some_and(|value| is_one_of(value, allowed))
            })
    }
}

fn is_one_of(value: &Value, allowed: &[String]) -> bool {
    let text = match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::ULong(value) => value.to_string(),
        value => return value.as_str().is_some_and(|text| allowed.iter().any(|one| one == text)),
    };
    allowed.contains(&text)
}

/// How often and how fast an event is tried again before it is dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries in all, the first one included. Only failures held against the event count: a
    /// service that is throttled or away uses none up.
    pub attempts: u32,
    /// Wait before the second try; doubles with every further one, with jitter.
    pub backoff: Span,
    /// The longest wait, except where the service itself asks for more.
    pub backoff_max: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            backoff: Span(Duration::from_millis(200)),
            backoff_max: Span(Duration::from_secs(30)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::event::{Attributes, Trace};

    fn event() -> Event {
        let attributes: Attributes = [
            ("tenant", Value::string("acme")),
            ("size", Value::Number("12".into())),
            ("urgent", Value::Bool(true)),
            ("zone", Value::Labelled("code".into(), Box::new(Value::string("eu")))),
            ("blob", Value::Binary(Bytes::from_static(b"acme"))),
        ]
        .into_iter()
        .collect();
        Event {
            id: "1".into(),
            source: "/shop".into(),
            kind: Some("order.placed".into()),
            subject: None,
            time: None,
            content_type: None,
            key: None,
            trace: Trace::default(),
            hops: 0,
            attributes,
            body: Bytes::new(),
            dead_letter: None,
        }
    }

    fn accepts(when: serde_json::Value) -> bool {
        serde_json::from_value::<When>(when).unwrap().accepts(&event())
    }

    #[test]
    fn a_route_without_conditions_takes_every_event() {
        assert!(accepts(json!({})));
    }

    #[test]
    fn every_given_field_must_match_one_of_its_values() {
        assert!(accepts(json!({"type": ["order.changed", "order.placed"]})));
        assert!(accepts(json!({"type": ["order.placed"], "source": ["/shop"]})));
        assert!(!accepts(json!({"type": ["order.placed"], "source": ["/other"]})));
        assert!(!accepts(json!({"type": []})));
    }

    #[test]
    fn an_absent_field_matches_nothing() {
        assert!(!accepts(json!({"subject": [""]})));
        assert!(!accepts(json!({"attributes": {"absent": ["acme"]}})));
    }

    #[test]
    fn attributes_match_as_text_whatever_their_type() {
        for (name, value) in
            [("tenant", "acme"), ("size", "12"), ("urgent", "true"), ("zone", "eu")]
        {
            assert!(accepts(json!({"attributes": {name: ["other", value]}})), "{name}");
        }
        assert!(!accepts(json!({"attributes": {"blob": ["acme"]}})));
        assert!(!accepts(json!({"attributes": {"tenant": ["acme"], "size": ["13"]}})));
    }
}
