//! A test file: events, and what is expected to become of them.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use serde_saphyr::{Location, Spanned};
use time::OffsetDateTime;

use super::{
    event_file,
    forecast::{Forecast, Outcome, Sent},
};
use crate::{config::problem::suggestion, event::Event};

/// A file of tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    pub(super) tests: Vec<Test>,
}

/// One event, and what is expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    pub(super) name: String,
    /// The source that brings it; not needed where there is only one.
    pub(super) source: Option<Spanned<String>>,
    /// The time it is; without it, the time it is.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub(super) now: Option<OffsetDateTime>,
    pub(super) event: Option<Spanned<Json>>,
    /// A file with the event, beside this one, in place of `event`.
    pub(super) file: Option<Spanned<String>>,
    pub(super) expect: Spanned<Expect>,
}

/// What is expected; only what is given is compared.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expect {
    /// Exactly these sinks get it.
    routed: Option<Vec<Spanned<String>>>,
    /// None of these gets it.
    not_routed: Vec<Spanned<String>>,
    /// A route takes it and does not send it, for this reason.
    filtered: Option<String>,
    /// It is parked, because of this class of cause.
    dead_letter: Option<String>,
    /// The cause of that says this, among others.
    because: Option<String>,
    /// What each of these sinks gets.
    sent: Map<String, Json>,
}

/// Something expected that is not so.
#[derive(Debug)]
pub(super) struct Miss {
    /// What was looked at, such as `routed`.
    pub(super) what: String,
    pub(super) expected: Json,
    pub(super) found: Json,
}

/// Where something stands, and what is wrong with it.
pub(super) type Wrong = (Location, String);

impl TestFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// It is none, with its place.
    pub(super) fn read(text: &str) -> Result<Self, (Option<Location>, String)> {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let text = error.to_string();
            // The text names the place once more, at its end.
            let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
            (error.location(), text)
        })
    }
}

impl Test {
    /// The event as it stands here, or in a file beside `folder`.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) fn event(&self, folder: &Path) -> Result<Event, Wrong> {
        let (at, json) = match (&self.event, &self.file) {
            (Some(event), None) => (event.referenced, Ok(event.value.clone())),
            (None, Some(file)) => (file.referenced, read_json(&folder.join(&file.value))),
            (_, file) => {
                let at = file.as_ref().map_or(self.expect.referenced, |file| file.referenced);
                return Err((at, "give `event` or `file`, and not both".to_owned()));
            }
        };
        json.and_then(event_file::read_event).map_err(|text| (at, text))
    }
}

fn read_json(path: &Path) -> Result<Json, String> {
    let name = path.display();
    let text = std::fs::read(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("{name} is not JSON: {error}"))
}

/// What of a message can be expected, beside what an event has.
const LANE: &str = "lane";

/// What is wrong with what is expected, for a file with these sinks.
pub(super) fn wrong(expect: &Spanned<Expect>, sinks: &[&str]) -> Option<Wrong> {
    let Spanned { value: expect, referenced, .. } = expect;
    if expect.because.is_some() && expect.dead_letter.is_none() {
        let text = "`because` goes with `dead_letter`, which names the class of the cause";
        return Some((*referenced, text.to_owned()));
    }
    let unknown = |name: &str| {
        let hint = suggestion(name, sinks.iter().copied());
        (!sinks.contains(&name)).then(|| format!("there is no sink `{name}`; {hint}"))
    };
    let named = expect.routed.iter().flatten().chain(&expect.not_routed);
    let mut named = named.filter_map(|sink| Some((sink.referenced, unknown(&sink.value)?)));
    let mut sent = expect.sent.iter().filter_map(|(sink, wanted)| {
        let text = unknown(sink).or_else(|| wanted_problem(wanted))?;
        Some((*referenced, format!("`sent`: {text}")))
    });
    named.next().or_else(|| sent.next())
}

/// What is wrong with what a sink is expected to get.
fn wanted_problem(wanted: &Json) -> Option<String> {
    let known = || event_file::KEYS.into_iter().chain([LANE]);
    let messages = match wanted {
        Json::Array(messages) => messages.as_slice(),
        one => std::slice::from_ref(one),
    };
    messages.iter().find_map(|message| match message {
        Json::Object(message) => {
            let name = message.keys().find(|name| known().all(|known| known != *name))?;
            Some(format!("`{name}` is nothing that is sent; {}", suggestion(name, known())))
        }
        _ => Some("for each sink, an object such as { type: order.placed }, or a list".to_owned()),
    })
}

impl Expect {
    /// All that is not as expected.
    pub(super) fn misses(&self, forecast: &Forecast) -> Vec<Miss> {
        let mut misses = Vec::new();
        let mut miss = |what: &str, expected: Json, found: Json| {
            if expected != found {
                misses.push(Miss { what: what.to_owned(), expected, found });
            }
        };
        if let Some(expected) = &self.routed {
            let mut expected: Vec<&str> = expected.iter().map(|sink| &*sink.value).collect();
            expected.sort_unstable();
            // Which of several sinks has its turn depends on what went before.
            let meant = |sent: &'_ Sent| {
                let is_expected = |sink: &&str| expected.contains(sink);
                sinks_of(sent).find(is_expected).unwrap_or(&sent.sink).to_owned()
            };
            let mut routed: Vec<_> = forecast.sent().map(meant).collect();
            routed.sort_unstable();
            routed.dedup();
            miss("routed", json!(expected), json!(routed));
        }
        let unwanted = self.not_routed.iter().map(|sink| &*sink.value);
        let can_get =
            |sink: &&str| forecast.sent().any(|sent| sinks_of(sent).any(|it| it == *sink));
        let unwanted: Vec<&str> = unwanted.filter(can_get).collect();
        miss("not routed", json!([]), json!(unwanted));

        let reasons = forecast.outcomes().filter_map(|outcome| match outcome {
            Outcome::Filtered(reason) => Some(*reason),
            _ => None,
        });
        if let Some(expected) = &self.filtered {
            let reasons: Vec<&str> = reasons.collect();
            if !reasons.contains(&expected.as_str()) {
                miss("filtered", json!([expected]), json!(reasons));
            }
        }
        self.dead_letters(forecast, &mut miss);
        for (sink, expected) in &self.sent {
            let mut messages: Vec<_> = forecast.sent().filter(|sent| sent.sink == *sink).collect();
            if messages.is_empty() {
                let is_for = |sent: &&Sent| sinks_of(sent).any(|it| it == sink);
                messages.extend(forecast.sent().filter(is_for));
            }
            let (expected, found) = sent(expected, &messages);
            miss(&format!("sent to {sink}"), expected, found);
        }
        misses
    }

    /// An event that is parked and not expected to be is a surprise that no test may hide, unless
    /// it was expected to go nowhere.
    fn dead_letters(&self, forecast: &Forecast, miss: &mut dyn FnMut(&str, Json, Json)) {
        let parked: Vec<_> = forecast
            .outcomes()
            .filter_map(|outcome| match outcome {
                Outcome::DeadLettered(parked) => Some(parked),
                _ => None,
            })
            .collect();
        let described = || -> Vec<_> {
            parked.iter().map(|parked| format!("{}: {}", parked.class, parked.text)).collect()
        };
        let says = |text: &str| self.because.as_ref().is_none_or(|because| text.contains(because));
        let goes_nowhere = self.routed.as_ref().is_some_and(Vec::is_empty);
        match &self.dead_letter {
            Some(class) if parked.iter().any(|it| it.class == *class && says(&it.text)) => {}
            Some(class) => {
                let expected = match &self.because {
                    Some(because) => format!("{class}: … {because} …"),
                    None => class.clone(),
                };
                miss("dead letter", json!([expected]), json!(described()));
            }
            None if parked.iter().all(|parked| goes_nowhere && parked.class == "unmatched") => {}
            None => miss("dead letter", json!([]), json!(described())),
        }
    }
}

/// The sink that a message goes to, and those that have it in its place.
fn sinks_of(sent: &Sent) -> impl Iterator<Item = &str> {
    std::iter::once(&sent.sink).chain(&sent.or_to).map(String::as_str)
}

/// What a sink is expected to get and what it gets, in the same shape.
fn sent(expected: &Json, messages: &[&Sent]) -> (Json, Json) {
    let list = match expected {
        Json::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let found = messages.iter().enumerate().map(|(index, message)| {
        let mut shown = message.event.clone();
        shown[LANE] = json!(message.lane);
        list.get(index).map_or_else(|| shown.clone(), |wanted| of_interest(wanted, &shown))
    });
    let mut found: Vec<_> = found.collect();
    match (expected, found.len()) {
        (Json::Object(_), 1) => (expected.clone(), found.remove(0)),
        _ => (Json::Array(list), Json::Array(found)),
    }
}

/// What of a message is compared: what is named, in objects within objects as well. A list is
/// compared as a whole. As deep as the expectation is, which the reader of YAML bounds.
fn of_interest(wanted: &Json, found: &Json) -> Json {
    match (wanted, found) {
        (Json::Object(wanted), Json::Object(found)) => {
            let one = |(name, wanted): (&String, &Json)| {
                let found = found.get(name).unwrap_or(&Json::Null);
                (name.clone(), of_interest(wanted, found))
            };
            wanted.iter().map(one).collect::<Map<_, _>>().into()
        }
        _ => found.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_compared() {
        let found = json!({"type": "x", "data": {"a": {"b": 1, "c": 2}, "list": [{"d": 1}]}});
        let same = |wanted: Json| of_interest(&wanted, &found) == wanted;
        assert!(same(json!({})));
        assert!(same(json!({"data": {"a": {"c": 2}, "absent": null}, "subject": null})));
        assert!(same(json!({"data": {"list": [{"d": 1}]}})));
        assert!(!same(json!({"data": {"a": {"c": 3}}})));
        assert!(!same(json!({"data": {"list": [{}]}})));
        assert!(!same(json!({"data": {"a": {"b": {"deep": null}}}})));
        assert!(!same(json!({"subject": "x"})));
    }

    #[test]
    fn what_is_no_message_is_told_so() {
        assert_eq!(wanted_problem(&json!([{"type": "x", "lane": "bulk"}])), None);
        let hint = "`lan` is nothing that is sent; did you mean `lane`?";
        assert_eq!(wanted_problem(&json!({"lan": "bulk"})).as_deref(), Some(hint));
        assert!(wanted_problem(&json!("x")).is_some());
    }
}
