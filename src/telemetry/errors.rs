//! What has failed lately, of each source and of each route into each sink: what for, how often, and
//! an event that it has happened to. Without a word of the event's body.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use schemars::JsonSchema;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::{Metrics, RouteMetrics, SourceMetrics};
use crate::{event::Event, fault::Fault, metadata::rfc3339};

/// Classes of causes that are kept of a place. The one that has not been met for the
/// longest goes for another.
const KINDS_MAX: usize = 20;
/// Places that are kept: more than a file has, for names go out of use.
const PLACES_MAX: usize = 1_000;
/// Words and event are taken anew after so long: a sink that is away fails thousands of events in a
/// second.
const ANEW: Duration = Duration::SECOND;

/// The last errors of all sources and routes.
#[derive(Debug, Default)]
pub struct Errors(Mutex<BTreeMap<Place, Vec<Kind>>>);

/// Where something has failed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Place {
    /// On the way into a sink.
    Leg {
        /// Name of the route; `unrouted` for what no route took.
        route: Arc<str>,
        /// Name of the sink; empty where it failed before it came to one.
        sink: Arc<str>,
    },
    /// At a source: it was asked for events, or told how they have ended.
    Source {
        /// Its name.
        source: Arc<str>,
    },
}

#[derive(Debug)]
struct Kind {
    class: &'static str,
    count: u64,
    first: OffsetDateTime,
    last: OffsetDateTime,
    /// When words and event were taken.
    taken: OffsetDateTime,
    text: String,
    event: Option<About>,
}

/// An event that something has happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct About {
    /// Its id.
    pub id: Arc<str>,
    /// Its type.
    pub r#type: Option<Arc<str>>,
    /// Its source, as CloudEvents means it.
    pub source: Arc<str>,
    /// Its subject.
    pub subject: Option<Arc<str>>,
    /// What it is ordered by.
    pub key: Option<Arc<str>>,
    /// Bytes of its body.
    pub bytes: usize,
}

/// What has failed for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Error {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// A short stable name of the cause.
    pub class: String,
    /// The cause in words, as it was met lately.
    pub text: String,
    /// How often it was met since the daemon has started: each attempt of each event counts.
    pub count: u64,
    /// When it was met first, as RFC 3339 has it.
    pub first: Option<String>,
    /// When it was met last.
    pub last: Option<String>,
    /// One of the events, where it is about any.
    pub event: Option<About>,
}

impl Errors {
    fn add(&self, place: Place, fault: &Fault, event: Option<&Event>, now: OffsetDateTime) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(&place) && all.len() >= PLACES_MAX {
            let last = |kinds: &Vec<Kind>| kinds.iter().map(|kind| kind.last).max();
            let oldest = all.iter().min_by_key(|(_, kinds)| last(kinds));
            if let Some(oldest) = oldest.map(|(place, _)| place.clone()) {
                all.remove(&oldest);
            }
        }
        let kinds = all.entry(place).or_default();
        if let Some(kind) = kinds.iter_mut().find(|kind| kind.class == fault.class) {
            kind.count += 1;
            kind.last = now;
            if now - kind.taken >= ANEW {
                (kind.taken, kind.text) = (now, fault.to_string());
                kind.event = event.map(About::of);
            }
            return;
        }
        if kinds.len() >= KINDS_MAX
            && let Some(oldest) = (0..kinds.len()).min_by_key(|at| kinds[*at].last)
        {
            kinds.swap_remove(oldest);
        }
        let (class, text, event) = (fault.class, fault.to_string(), event.map(About::of));
        kinds.push(Kind { class, count: 1, first: now, last: now, taken: now, text, event });
    }

    /// All that are known, what was met last first.
    #[must_use]
    pub fn known(&self) -> Vec<Error> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each =
            all.iter().flat_map(|(place, kinds)| kinds.iter().map(move |kind| (place, kind)));
        let mut each: Vec<_> = each.collect();
        each.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.last));
        let told = |(place, kind): (&Place, &Kind)| Error {
            place: place.clone(),
            class: kind.class.to_owned(),
            text: kind.text.clone(),
            count: kind.count,
            first: rfc3339(kind.first),
            last: rfc3339(kind.last),
            event: kind.event.clone(),
        };
        each.into_iter().map(told).collect()
    }
}

impl About {
    fn of(event: &Event) -> Self {
        Self {
            id: event.id.clone(),
            r#type: event.kind.clone(),
            source: event.source.clone(),
            subject: event.subject.clone(),
            key: event.key.clone(),
            bytes: event.body.len(),
        }
    }
}

impl Metrics {
    /// What has failed lately.
    #[must_use]
    pub fn errors(&self) -> &Errors {
        &self.errors
    }
}

impl RouteMetrics {
    /// A sink has not taken an event this time, or nothing could be made of it for a sink.
    pub fn failed(&self, fault: &Fault, event: &Event) {
        let [route, sink] = self.labels.clone();
        let now = OffsetDateTime::now_utc();
        self.all.errors.add(Place::Leg { route, sink }, fault, Some(event), now);
    }
}

impl SourceMetrics {
    /// The source has not answered, or has refused.
    pub(super) fn failed(&self, fault: &Fault) {
        let place = Place::Source { source: self.source.clone() };
        self.all.errors.add(place, fault, None, OffsetDateTime::now_utc());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::tests::event;

    const CLASSES: [&str; KINDS_MAX + 1] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s", "t", "u",
    ];

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(second).unwrap()
    }

    fn leg(route: &str) -> Place {
        Place::Leg { route: route.into(), sink: "far".into() }
    }

    #[test]
    fn a_cause_has_a_count_and_an_event_of_late() {
        let errors = Errors::default();
        let of = |id: &str| Event { id: id.into(), body: "secret".into(), ..event() };
        for (id, second) in [("1", 10), ("2", 10), ("3", 20)] {
            let fault = Fault::retry("send", "refused", format!("no {id}"));
            errors.add(leg("orders"), &fault, Some(&of(id)), at(second));
        }
        let source = Place::Source { source: "near".into() };
        errors.add(source.clone(), &Fault::busy("receive", "throttled", "x"), None, at(15));
        let known = errors.known();
        let about = known[0].event.as_ref().unwrap();
        let of_first = (&*known[0].class, known[0].count, &*about.id, &*known[0].text);
        assert_eq!(of_first, ("refused", 3, "3", "send failed: no 3"));
        assert_eq!((about.bytes, &known[1].place, &known[1].event), (6, &source, &None));
        let told = serde_json::to_value(&known).unwrap();
        assert_eq!((&told[0]["route"], &told[1]["source"]), (&"orders".into(), &"near".into()));
        assert!(!serde_json::to_string(&known).unwrap().contains("secret"));
    }

    #[test]
    fn so_many_are_kept_and_the_oldest_goes() {
        let errors = Errors::default();
        for (class, second) in CLASSES.into_iter().zip(0..) {
            errors.add(leg("r"), &Fault::retry("send", class, "no"), None, at(second));
        }
        let known: Vec<_> = errors.known().into_iter().map(|error| error.class).collect();
        assert_eq!((known.len(), known.contains(&"a".to_owned())), (KINDS_MAX, false));
        for number in 0..PLACES_MAX {
            let leg = leg(&format!("r{number}"));
            errors.add(leg, &Fault::retry("send", "late", "no"), None, at(100));
        }
        assert_eq!(errors.0.lock().unwrap().len(), PLACES_MAX);
        assert!(errors.known().iter().all(|error| error.class == "late"));
    }
}
