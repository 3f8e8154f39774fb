//! Which events a route takes, and how it treats them. Pure: looks at an event, changes nothing.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    config::{
        problem::{Finding, suggestion},
        units::Span,
    },
    event::{Event, Value, is_json},
    transform::{Draft, Failure, map::Condition},
};

use pattern::{
    Pattern,
    fields::{Fields, Scalar, Spot, Wanted},
};

pub mod choice;
pub mod lane;
pub mod part;
pub mod pattern;
pub mod rate;
pub mod sample;
pub mod table;
pub mod timing;

/// Which events a route takes: those that match its pattern, or all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct When {
    pattern: Option<Pattern>,
    /// What the pattern cannot say; asked of events that match it.
    condition: Option<Condition>,
}

/// What of an event a pattern can name, at its top; the body, where it is JSON, lies below `data`.
pub const NAMES: [&str; 9] =
    ["type", "source", "subject", "id", "time", "key", "datacontenttype", "attributes", DATA];
const DATA: &str = "data";
/// What stands beside the fields of a pattern: a condition in the transform language.
pub const IF: &str = "$if";

impl When {
    /// Reads what stands in the file.
    ///
    /// # Errors
    /// It is no pattern, or names what no event has.
    pub fn read(when: &Map<String, Json>) -> Result<Self, Vec<Finding>> {
        let mut fields = when.clone();
        let mut findings = Vec::new();
        let condition = match fields.remove(IF) {
            None => None,
            Some(Json::String(text)) => Condition::compile(&text)
                .map_err(|wrong| findings.extend(wrong.into_iter().map(|f| f.below(IF))))
                .ok(),
            Some(_) => {
                findings.push(Finding::new("write a condition as text: \".data.a > 1\"").below(IF));
                None
            }
        };
        // A condition can stand alone; nothing at all cannot.
        let alone = fields.is_empty() && when.contains_key(IF);
        let pattern = if alone { None } else { Self::pattern_of(&fields, &mut findings) };
        if findings.is_empty() { Ok(Self { pattern, condition }) } else { Err(findings) }
    }

    fn pattern_of(fields: &Map<String, Json>, findings: &mut Vec<Finding>) -> Option<Pattern> {
        let read = match Pattern::read(fields) {
            Ok(read) => read,
            Err(wrong) => {
                findings.extend(wrong);
                return None;
            }
        };
        let unknown = |top: &&str| !NAMES.contains(top);
        findings.extend(read.tops().into_iter().filter(unknown).map(|top| {
            let hint = match top {
                // CloudEvents know more, which stay where the producer has put them.
                "dataschema" | "specversion" => format!(
                    "write `attributes.cloudEvents_{top}`, or `data.{top}` where events are in \
                     structured mode"
                ),
                top => suggestion(top, NAMES),
            };
            let text = format!("`{top}` is nothing that an event has; {hint}");
            Finding::new(text).below(top)
        }));
        Some(read)
    }

    /// Whether every event matches.
    #[must_use]
    pub fn is_always(&self) -> bool {
        self.pattern.is_none() && self.condition.is_none()
    }

    /// Whether every event that matches `other` matches here too. `false` where that is not certain.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let asks_no_more = self.condition.is_none() || self.condition == other.condition;
        asks_no_more
            && match (&self.pattern, &other.pattern) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(one), Some(other)) => one.covers(other),
            }
    }

    /// The same of every event that both `other` and `further` match.
    #[must_use]
    pub fn covers_both(&self, other: &Self, further: &Self) -> bool {
        let asks_no_more = self.condition.is_none()
            || self.condition == other.condition
            || self.condition == further.condition;
        asks_no_more
            && match (&self.pattern, &other.pattern, &further.pattern) {
                (None, ..) => true,
                (Some(one), Some(other), Some(further)) => one.covers_both(other, further),
                (Some(one), Some(other), None) | (Some(one), None, Some(other)) => {
                    one.covers(other)
                }
                (Some(_), None, None) => false,
            }
    }

    /// Whether it is certain that no event matches both.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        let both = self.pattern.as_ref().zip(other.pattern.as_ref());
        both.is_some_and(|(one, other)| one.excludes(other))
    }

    /// Names the paths that it looks at.
    pub fn want(&self, wanted: &mut Wanted) {
        if let Some(pattern) = &self.pattern {
            pattern.want(wanted);
        }
    }

    /// Its pattern; `None` where there is none.
    #[must_use]
    pub fn pattern(&self) -> Option<&Pattern> {
        self.pattern.as_ref()
    }

    /// Whether an event matches, whose fields these are.
    ///
    /// # Errors
    /// Its expression fails for this event.
    pub fn accepts(&self, event: &Event, fields: &Fields<'_>) -> Result<bool, Failure> {
        let matches = self.pattern.as_ref().is_none_or(|pattern| pattern.matches(fields));
        if matches { self.confirms(event) } else { Ok(false) }
    }

    /// Whether its expression, if it has one, holds for an event that matches its pattern.
    ///
    /// # Errors
    /// The expression fails for this event.
    pub fn confirms(&self, event: &Event) -> Result<bool, Failure> {
        match &self.condition {
            None => Ok(true),
            Some(condition) => condition.holds(&mut Draft::new(event.clone())),
        }
    }
}

/// What of an event is wanted. `now` is what ages are counted to.
#[must_use]
pub fn fields<'e>(event: &'e Event, wanted: &'e Wanted, now: OffsetDateTime) -> Fields<'e> {
    let mut fields = Fields::new(wanted, now);
    let mut add = |name: &str, text: Option<&'e str>| {
        if let (Some(spot), Some(text)) = (wanted.at(name), text) {
            fields.add(spot, Scalar::Text(text.into()));
        }
    };
    add("type", event.kind.as_deref());
    add("source", Some(&event.source));
    add("subject", event.subject.as_deref());
    add("id", Some(&event.id));
    add("key", event.key.as_deref());
    add("datacontenttype", event.content_type.as_deref());
    if let (Some(spot), Some(time)) = (wanted.at("time"), event.time)
        && let Ok(text) = time.format(&Rfc3339)
    {
        fields.add(spot, Scalar::Text(text.into()));
    }
    if let Some(spot) = wanted.at("attributes") {
        for (name, value) in event.attributes.iter() {
            if let Some(spot) = wanted.below(spot, name) {
                attribute(&mut fields, spot, value);
            }
        }
    }
    if let (Some(spot), true) = (wanted.at(DATA), is_json(event.content_type.as_deref())) {
        // A body that is no JSON has no fields.
        let _ = fields.read_json(spot, &event.body);
    }
    fields
}

fn attribute<'e>(fields: &mut Fields<'e>, spot: Spot, value: &'e Value) {
    let number = |text: &str| text.parse().ok().map(Scalar::Number);
    let scalar = match value {
        Value::Null => Scalar::Null,
        Value::String(text) => Scalar::Text((&**text).into()),
        Value::Number(text) => number(text).unwrap_or(Scalar::Text((&**text).into())),
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Int(value) => Scalar::Number((*value).into()),
        Value::Long(value) => Scalar::Number(*value as f64),
        Value::ULong(value) => Scalar::Number(*value as f64),
        Value::Double(value) => Scalar::Number(*value),
        Value::Timestamp(millis) => Scalar::Number(*millis as f64),
        Value::Uuid(id) => Scalar::Text(id.to_string().into()),
        Value::Binary(_) => Scalar::Bytes,
        // SNS and SQS hold a list as text of this type.
        Value::Labelled(label, list) if &**label == "Array" => {
            let text = list.as_str().unwrap_or_default();
            if fields.read_json(spot, text.as_bytes()) {
                return;
            }
            Scalar::Text(text.into())
        }
        Value::Labelled(_, plain) => return attribute(fields, spot, plain),
    };
    fields.add(spot, scalar);
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
        let list = Box::new(Value::string("[\"red\", 7]"));
        let attributes: Attributes = [
            ("tenant", Value::string("acme")),
            ("size", Value::Number("12.0".into())),
            ("urgent", Value::Bool(true)),
            ("zone", Value::Labelled("code".into(), Box::new(Value::string("eu")))),
            ("colors", Value::Labelled("Array".into(), list)),
            ("blob", Value::Binary(Bytes::from_static(b"acme"))),
        ]
        .into_iter()
        .collect();
        Event {
            id: "1".into(),
            source: "/shop".into(),
            kind: Some("order.placed".into()),
            subject: None,
            time: Some(time::OffsetDateTime::UNIX_EPOCH),
            content_type: None,
            key: Some("c-7".into()),
            trace: Trace::default(),
            hops: 0,
            attributes,
            body: r#"{"amount": 120.5, "items": [{"sku": "a"}], "note": null}"#.into(),
            dead_letter: None,
            fitted: None,
        }
    }

    fn accepts(event: &Event, when: Json) -> bool {
        let Json::Object(when) = when else { panic!("{when}") };
        let when = When::read(&when).unwrap();
        let mut wanted = Wanted::default();
        when.want(&mut wanted);
        when.accepts(event, &fields(event, &wanted, OffsetDateTime::UNIX_EPOCH)).unwrap()
    }

    #[test]
    fn a_route_without_conditions_takes_every_event() {
        assert!(When::default().is_always());
        let (wanted, now) = (Wanted::default(), OffsetDateTime::UNIX_EPOCH);
        assert!(When::default().accepts(&event(), &Fields::new(&wanted, now)).unwrap());
    }

    #[test]
    fn a_pattern_sees_attributes_of_the_event_its_own_ones_and_the_body() {
        let event = event();
        for when in [
            json!({"type": ["order.changed", "order.placed"], "source": ["/shop"]}),
            json!({"subject": [{"exists": false}], "id": ["1"], "key": [{"prefix": "c-"}]}),
            json!({"time": [{"prefix": "1970-01-01T"}]}),
            json!({"attributes": {"tenant": ["acme"], "size": [12], "urgent": [true]}}),
            json!({"attributes": {"zone": ["eu"], "colors": ["red"]}}),
            json!({"attributes": {"colors": [{"numeric": [">", 5]}], "blob": [{"exists": true}]}}),
            json!({"data": {"amount": [{"numeric": [">", 100]}], "items": {"sku": ["a"]}}}),
            json!({"data": {"note": [null]}}),
            json!({"$or": [{"type": ["other"]}, {"data": {"amount": [120.5]}}]}),
        ] {
            assert!(accepts(&event, when.clone()), "{when}");
        }
        for when in [
            json!({"type": ["order.placed"], "source": ["/other"]}),
            json!({"subject": [""]}),
            json!({"attributes": {"absent": ["acme"]}}),
            json!({"attributes": {"blob": ["acme"]}}),
            json!({"attributes": {"size": ["12.0"]}}),
            json!({"data": {"items": {"sku": ["b"]}}}),
        ] {
            assert!(!accepts(&event, when.clone()), "{when}");
        }
    }

    #[test]
    fn a_body_that_is_no_json_has_no_data() {
        let no_data = json!({"data": {"amount": [{"exists": false}]}});
        for body in ["", "x", r#"{"amount": 1"#, r#"{"amount": 1} x"#] {
            let event = Event { body: body.into(), ..event() };
            assert!(accepts(&event, no_data.clone()), "{body}");
        }
        let text = Event { content_type: Some("text/plain".into()), ..event() };
        assert!(accepts(&text, no_data.clone()));
        assert!(!accepts(&event(), no_data.clone()));
        let capitals = Event { content_type: Some("Application/JSON".into()), ..event() };
        assert!(!accepts(&capitals, no_data));
    }

    #[test]
    fn what_no_event_has_is_named() {
        let Json::Object(when) = json!({"tpye": ["x"]}) else { unreachable!() };
        let text = "`tpye` is nothing that an event has; did you mean `type`?";
        assert_eq!(When::read(&when).unwrap_err()[0].to_string(), text);
        let Json::Object(when) = json!({"dataschema": ["x"]}) else { unreachable!() };
        let text = "`dataschema` is nothing that an event has; write \
                    `attributes.cloudEvents_dataschema`, or `data.dataschema` where events are in \
                    structured mode";
        assert_eq!(When::read(&when).unwrap_err()[0].to_string(), text);
    }
}
