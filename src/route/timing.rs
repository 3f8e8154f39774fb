//! What a route does about time: events that are too old for it, and events that are to wait.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use time::OffsetDateTime;

use crate::{
    config::units::Span,
    decode::parse_time,
    event::Event,
    transform::{Draft, Failure, NOT_JSON, path::FieldPath},
};

/// Events that come too late to be of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expire {
    /// An event whose `time` is longer ago than this has expired; one without a time never does.
    pub after: Span,
    /// What becomes of it.
    #[serde(default)]
    pub then: Then,
}

/// What becomes of an event that a route takes and does not send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It goes to the route's dead letter.
    #[default]
    DeadLetter,
    /// It is settled and counted as filtered.
    Drop,
}

impl Expire {
    /// Whether the event has expired.
    #[must_use]
    pub fn has_expired(&self, event: &Event, now: OffsetDateTime) -> bool {
        event.time.is_some_and(|time| now - time > *self.after)
    }
}

/// How long a route keeps an event before it is sent. It waits leased and counts as in flight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Hold {
    /// From when it was received.
    For(Span),
    /// Until a time that the event names.
    Until(Until),
}

/// A time that the event names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// Where it stands: RFC 3339 text, or seconds since 1970. An event without one does not wait.
    pub field: FieldPath,
    /// The longest wait; an event that asks for more is dead-lettered.
    pub max: Span,
}

impl Hold {
    /// The longest wait there can be.
    #[must_use]
    pub fn longest(&self) -> Duration {
        match self {
            Self::For(span) => **span,
            Self::Until(until) => *until.max,
        }
    }

    /// How long the event is to wait from now.
    ///
    /// # Errors
    /// It names no time, or one too far away.
    pub fn wait(&self, event: &Event, now: OffsetDateTime) -> Result<Duration, Failure> {
        let until = match self {
            Self::For(span) => return Ok(**span),
            Self::Until(until) => until,
        };
        let Until { field, max } = until;
        let found = match field.get(&mut Draft::new(event.clone())) {
            // A body that is no JSON names no time.
            Err(failure) if failure.class == NOT_JSON => None,
            found => found?,
        };
        let time = match found {
            None | Some(Json::Null) => return Ok(Duration::ZERO),
            Some(Json::String(text)) => parse_time(&text),
            Some(Json::Number(seconds)) => seconds.as_f64().and_then(|seconds| {
                // To the millisecond, which is more than anybody waits by.
                let millis = (seconds * 1_000.0) as i128;
                OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000).ok()
            }),
            Some(_) => None,
        };
        let no_time = || {
            let text = format!("`{field}` is no time: neither RFC 3339 nor seconds since 1970");
            Failure::new("hold", text)
        };
        let wait = Duration::try_from(time.ok_or_else(no_time)? - now).unwrap_or_default();
        if wait > **max {
            let text = format!("`{field}` is further away than {max}, the longest that it may be");
            return Err(Failure::new("hold", text));
        }
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::tests::event;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-21 12:00 UTC);

    #[test]
    fn an_event_expires_by_its_own_time() {
        let expire = Expire { after: Span(Duration::from_secs(60)), then: Then::Drop };
        let at = |seconds| Event { time: Some(NOW - time::Duration::seconds(seconds)), ..event() };
        assert!(!expire.has_expired(&at(60), NOW));
        assert!(expire.has_expired(&at(61), NOW));
        assert!(!expire.has_expired(&at(-1000), NOW));
        assert!(!expire.has_expired(&event(), NOW));
    }

    #[test]
    fn an_event_waits_until_the_time_that_it_names() {
        let field = "data.at".parse().unwrap();
        let hold = Hold::Until(Until { field, max: Span(Duration::from_secs(3600)) });
        let wait = |at: &str| {
            let body = format!(r#"{{"at": {at}}}"#);
            hold.wait(&Event { body: body.into(), ..event() }, NOW)
        };
        assert_eq!(wait("\"2026-11-21T12:30:00Z\"").unwrap(), Duration::from_secs(1800));
        assert_eq!(wait(&(NOW.unix_timestamp() + 5).to_string()).unwrap(), Duration::from_secs(5));
        assert_eq!(wait("\"2026-11-21T11:00:00Z\"").unwrap(), Duration::ZERO);
        assert_eq!(wait("null").unwrap(), Duration::ZERO);
        let soon = format!("{}.25", NOW.unix_timestamp());
        assert_eq!(wait(&soon).unwrap(), Duration::from_millis(250));
        for body in ["no JSON", ""] {
            let event = Event { body: body.into(), ..event() };
            assert_eq!(hold.wait(&event, NOW).unwrap(), Duration::ZERO, "{body}");
        }
        assert!(wait("\"soon\"").unwrap_err().text.contains("is no time"));
        assert!(
            wait("\"2026-11-21T13:00:01Z\"").unwrap_err().text.contains("further away than 1h")
        );
    }
}
