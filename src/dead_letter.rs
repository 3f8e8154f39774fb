//! Why an event was parked: who, where, when, why and how often. It travels with the original
//! bytes and attributes into a dead-letter sink in any cloud, and back when it is redriven.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::route::part::Part;

/// The record of a parked event. The event itself, with its trace context, stands beside it as it
/// came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct DeadLetter {
    /// The route that gave up; none where no route wanted the event or it could not be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The sink that refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
    /// A short stable name of the cause, such as `too_large`, `unmatched` or `undecodable`.
    pub class: String,
    /// The cause in words.
    pub error: String,
    /// How often it was tried at the sink, all redrives together.
    pub attempts: u32,
    /// How often the source had handed it out.
    pub received: u32,
    /// Name of the source in the configuration.
    pub source: String,
    /// The queue or hub it came from.
    pub resource: String,
    /// Its place there: of a log, the partition, the number and, in hexadecimal milliseconds since
    /// 1970, when the hub was made, as `3/42@19ab0c5f0c7`.
    pub position: String,
    /// How many relays it had passed.
    #[serde(default)]
    pub hops: u8,
    /// Which part of an event it is, if the steps of its route have made it: a digest that tells it
    /// from all others. The steps are not for it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// When it was received from its source. No two events of one source have the same
    /// time while its pipeline runs, and they have it in their order.
    #[serde(with = "time::serde::rfc3339")]
    pub arrived: OffsetDateTime,
    /// When it was given up for the first time.
    #[serde(with = "time::serde::rfc3339")]
    pub first: OffsetDateTime,
    /// When it was given up last.
    #[serde(with = "time::serde::rfc3339")]
    pub last: OffsetDateTime,
    /// How often it was redriven, and failed again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub redriven: u32,
    /// The redrive that it failed in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl DeadLetter {
    /// The part that it is, if it is one.
    #[must_use]
    pub fn parked_part(&self) -> Option<Part> {
        self.part.as_deref().map(Arc::from).map(Part::Parked)
    }

    /// What tells it from the other dead letters of its event: every sink of a fan-out can refuse
    /// it, each part of it can be refused, and every redrive can fail.
    #[must_use]
    pub fn copy(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (route, sink, run) = (text(&self.route), text(&self.sink), text(&self.run));
        format!("{route}/{sink}/{}/{run}/{}", self.redriven, text(&self.part))
    }
}

/// A dead letter on its way back.
#[derive(Debug)]
pub struct Redriven {
    /// Its record, as it was found.
    pub record: Option<Arc<DeadLetter>>,
    /// Names the redrive.
    pub run: Arc<str>,
    /// The class of the cause for which it has failed again, if it has.
    failed: OnceLock<String>,
}

impl Redriven {
    /// One that is about to be sent again by the redrive of this name.
    #[must_use]
    pub fn new(record: Option<Arc<DeadLetter>>, run: Arc<str>) -> Self {
        Self { record, run, failed: OnceLock::new() }
    }

    /// The class of the cause for which it has failed again, if it has.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Notes that it has failed again: `record` is what there is to say of this time. Answers the
    /// record of all times, which remembers where the event came from at first.
    #[must_use]
    pub fn fail(&self, record: DeadLetter) -> DeadLetter {
        // The branches of a fan-out fail one by one; the first is as good a cause as any.
        let _ = self.failed.set(record.class.clone());
        let run = Some(self.run.to_string());
        let Some(past) = self.record.as_deref() else {
            return DeadLetter { redriven: 1, run, ..record };
        };
        let DeadLetter { route, sink, class, error, attempts, part, last, .. } = record;
        DeadLetter {
            route: route.or_else(|| past.route.clone()),
            sink,
            class,
            error,
            attempts: past.attempts.saturating_add(attempts),
            part: past.part.clone().or(part),
            last,
            redriven: past.redriven.saturating_add(1),
            run,
            ..past.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(class: &str, attempts: u32, at: i64) -> DeadLetter {
        let time = OffsetDateTime::from_unix_timestamp(at).unwrap();
        DeadLetter {
            route: Some("orders".into()),
            sink: Some("hub".into()),
            class: class.into(),
            error: format!("{class}: no"),
            attempts,
            received: 2,
            source: "near".into(),
            resource: "memory:near".into(),
            position: "7".into(),
            hops: 1,
            part: None,
            arrived: time,
            first: time,
            last: time,
            redriven: 0,
            run: None,
        }
    }

    #[test]
    fn what_fails_again_remembers_its_first_time() {
        let past = record("invalid", 1, 100);
        let redriven = Redriven::new(Some(Arc::new(past.clone())), "run-1".into());
        let now = DeadLetter {
            source: "parked".into(),
            position: "99".into(),
            sink: Some("audit".into()),
            hops: 5,
            ..record("refused", 3, 900)
        };
        let again = redriven.fail(now);
        assert_eq!(redriven.failed(), Some("refused"));
        let wanted = DeadLetter {
            sink: Some("audit".into()),
            class: "refused".into(),
            error: "refused: no".into(),
            attempts: 4,
            last: OffsetDateTime::from_unix_timestamp(900).unwrap(),
            redriven: 1,
            run: Some("run-1".into()),
            ..past
        };
        assert_eq!(again, wanted);
        let third = Redriven::new(Some(Arc::new(again)), "run-2".into());
        assert_eq!(third.fail(record("refused", 1, 901)).redriven, 2);
    }

    #[test]
    fn the_dead_letters_of_one_event_can_be_told_apart() {
        let one = record("refused", 1, 1);
        let other_sink = DeadLetter { sink: Some("audit".into()), ..one.clone() };
        let again = DeadLetter { redriven: 1, run: Some("r".into()), ..one.clone() };
        let later = DeadLetter { last: OffsetDateTime::UNIX_EPOCH, attempts: 9, ..one.clone() };
        assert_ne!(one.copy(), other_sink.copy());
        assert_ne!(one.copy(), again.copy());
        assert_eq!(one.copy(), later.copy());
    }

    #[test]
    fn a_record_without_the_newer_fields_is_read() {
        let old = r#"{"class":"c","error":"e","attempts":1,"received":1,"source":"s","resource":"r",
            "position":"p","arrived":"2026-01-01T00:00:00Z","first":"2026-01-01T00:00:00Z",
            "last":"2026-01-01T00:00:00Z"}"#;
        let read: DeadLetter = serde_json::from_str(old).unwrap();
        assert_eq!((read.redriven, read.hops, read.part, read.run), (0, 0, None, None));
    }
}
