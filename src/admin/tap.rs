//! The next events as they pass, each with what its routes make of it. What they make of it is told
//! here, of a copy, and never where events flow.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    response::IntoResponse,
    routing::get,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::time::timeout;

use super::{
    Api,
    access::Caller,
    answer::Refusal,
    endpoint::{Answer, Endpoint, describe},
    passing::{self, Watching},
    sight::Sight,
};
use crate::{
    cli::{
        diff,
        event_file::show_event,
        forecast::{self, DeadLettered, Forecast, Outcome, RouteForecast, Step},
        paint::Paint,
    },
    config::plan::Plan,
    metadata::rfc3339,
    pipeline::{
        UNDECODABLE,
        tap::{Passed, TAPS_MAX, Tap},
    },
};

/// A tap that nothing has passed for so long ends.
const QUIET: Duration = Duration::from_secs(60);
/// Events of one tap.
const EVENTS: u32 = 100;
const EVENTS_MAX: u32 = 1_000;
/// One in so many events.
const EVERY_MAX: u32 = 1_000_000;

/// What of the flow is looked at.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Only events that this route takes.
    pub route: Option<String>,
    /// One in so many of them; all of them without it.
    pub every: Option<u32>,
    /// After so many the tap ends: 100 without it, and 1,000 at most.
    pub max: Option<u32>,
    /// Whether what looks sensitive in bodies is told as it is, to admins.
    #[serde(default)]
    pub whole: bool,
}

/// An event that has passed.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Tapped {
    /// The source that brought it.
    pub source: Arc<str>,
    /// When it passed, as RFC 3339 has it.
    pub at: Option<String>,
    /// The event, under the names that patterns use: without its body and the values of its
    /// attributes, where those may not be seen.
    pub event: Json,
    /// Bytes of its body.
    pub bytes: usize,
    /// The routes that took it, in the order of the file.
    pub taken: Vec<Arc<str>>,
    /// The class of the cause for which it was parked without a route.
    pub unrouted: Option<String>,
    /// Every route that reads its source, and what it makes of such an event.
    pub routes: Vec<Way>,
    /// Events that should have been told and were not, because they came too fast.
    pub dropped: u64,
}

/// What a route makes of an event.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Way {
    /// Name of the route.
    pub route: String,
    /// Why it does not take it; empty where it does.
    pub why_not: Vec<String>,
    /// Its steps.
    pub steps: Vec<Seen>,
    /// What becomes of the event, a line each.
    pub outcomes: Vec<String>,
}

/// A step of a route.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Seen {
    /// Its name.
    pub step: String,
    /// How many events there are after it.
    pub events: usize,
    /// What it has changed: the lines of it, where the body may be seen, else names alone.
    pub changes: Vec<String>,
}

/// What can be asked of what passes.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        query: Some(describe::<Asked>),
        answer: Answer::Events(passing::describe::<Look>),
        ..Endpoint::read(
            "/tap",
            "tap",
            "The next events as they pass, with what their routes make of them, as server-sent \
             events; the last is called `end`.",
            get(tap),
        )
    }]
}

async fn tap(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<impl IntoResponse, Refusal> {
    let Query(Asked { route, every, max, whole }) = asked?;
    let route = passing::route(&api, &caller, route)?;
    let sight = caller.sight(whole)?;
    let every = passing::within("every", every.unwrap_or(1), EVERY_MAX)?;
    let left = passing::within("max", max.unwrap_or(EVENTS), EVENTS_MAX)?;
    let tap = api.taps.open(route, every);
    let tap = tap.ok_or_else(|| passing::too_many("taps", TAPS_MAX))?;
    Ok(passing::tell(Look { api, tap, left, caller, sight, counted: 0, asked: None }))
}

/// Somebody who looks.
struct Look {
    api: Api,
    tap: Tap,
    left: u32,
    caller: Caller,
    sight: Sight,
    /// Of those that were left out, how many have been counted.
    counted: u64,
    /// The plan that runs, and the copy of it that is asked.
    asked: Option<(Arc<Plan>, Plan)>,
}

impl Watching for Look {
    type Told = Tapped;

    async fn next(&mut self) -> Result<Tapped, &'static str> {
        if self.left == 0 {
            return Err("max");
        }
        let passed = timeout(QUIET, self.tap.next()).await.map_err(|_| "quiet")?;
        self.left -= 1;
        Ok(self.tell(&passed.ok_or("ending")?))
    }

    fn dropped(&self) -> u64 {
        self.tap.dropped()
    }
}

impl Look {
    fn tell(&mut self, passed: &Passed) -> Tapped {
        let forecast = match passed.fate.unrouted {
            Some(UNDECODABLE) => None,
            _ => self.forecast(passed),
        };
        let dropped = self.tap.dropped();
        self.api.metrics.tapped(1, dropped - std::mem::replace(&mut self.counted, dropped));
        let mut tapped = tapped(passed, forecast.as_ref(), self.sight, dropped);
        tapped.taken.retain(|route| self.caller.sees(route));
        tapped.routes.retain(|way| self.caller.sees(&way.route));
        tapped
    }

    fn forecast(&mut self, passed: &Passed) -> Option<Forecast> {
        let running = self.api.health.plan()?;
        let (_, plan) = match self.asked.take_if(|(known, _)| Arc::ptr_eq(known, &running)) {
            Some(known) => self.asked.insert(known),
            None => self.asked.insert((running.clone(), running.apart())),
        };
        let source = plan.sources.iter().position(|source| source.name == passed.source)?;
        Some(forecast::forecast(plan, source, &passed.event, passed.at))
    }
}

fn tapped(passed: &Passed, forecast: Option<&Forecast>, sight: Sight, dropped: u64) -> Tapped {
    let Passed { source, event, at, fate } = passed;
    let before = show_event(event);
    let routes = forecast.into_iter().flat_map(|forecast| &forecast.routes);
    Tapped {
        source: source.clone(),
        at: rfc3339(*at),
        event: sight.show(event),
        bytes: event.body.len(),
        taken: fate.taken.clone(),
        unrouted: fate.unrouted.map(str::to_owned),
        routes: routes.map(|route| way(route, &before, sight)).collect(),
        dropped,
    }
}

fn way(route: &RouteForecast, event: &Json, sight: Sight) -> Way {
    let mut before = vec![event.clone()];
    let step = |step: &Step| {
        let changes = changes(&before, &step.events, sight);
        before.clone_from(&step.events);
        Seen { step: step.step.to_owned(), events: step.events.len(), changes }
    };
    Way {
        route: route.route.clone(),
        steps: route.steps.iter().map(step).collect(),
        why_not: match sight {
            Sight::Whole => route.why_not.iter().map(ToString::to_string).collect(),
            _ => route.why_not.iter().map(|why| why.without_values().to_owned()).collect(),
        },
        outcomes: route.outcomes.iter().map(outcome).collect(),
    }
}

/// What a step has changed of the first event.
fn changes(before: &[Json], after: &[Json], sight: Sight) -> Vec<String> {
    let (Some(before), Some(after)) = (before.first(), after.first()) else { return Vec::new() };
    let names = ["id", "source", "type", "subject", "time", "key", "datacontenttype"];
    let names = names.iter().chain(&["attributes", "data", "data_text", "data_base64"]);
    let differs = names.filter(|name| before.get(name) != after.get(name));
    if sight == Sight::Outside {
        return differs.map(|name| (*name).to_owned()).collect();
    }
    let shown = [before, after].map(|json| sight.show_again(json.clone()));
    match diff::lines(&shown[0], &shown[1], Paint::Plain) {
        // A step that covers what is covered here as well.
        none if none.is_empty() => {
            differs.map(|name| format!("  {name}: changed, and covered here")).collect()
        }
        lines => lines,
    }
}

/// What becomes of an event, without a word of it.
fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Sent(sent) => {
            let wait = match sent.wait_secs {
                0 => String::new(),
                seconds => format!(", after {seconds} s"),
            };
            format!("to {}, {}, {} bytes{wait}", sent.sink, sent.what, sent.bytes)
        }
        Outcome::Filtered(reason) => format!("filtered: {reason}"),
        Outcome::DeadLettered(DeadLettered { to, class, text, .. }) => match to {
            Some(sink) => format!("dead letter, to {sink}: {class}: {text}"),
            None => format!("no dead letter, it stays at its source: {class}: {text}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::OffsetDateTime;

    use super::*;
    use crate::{
        cli::event_file::read_event,
        config::{self, environment::Environment},
        pipeline::tap::Fate,
    };

    const FILE: &str = "
sources: { near: { memory: { queue: n } } }
sinks: { far: { memory: { queue: f } } }
routes:
  - name: orders
    from: near
    when: { type: [order.placed] }
    rate_limit: { per_second: 1, burst: 1, over: drop }
    transform: [{ set: { subject: seen, data.mail: gone } }]
    to: { all: [far] }
  - { name: clean, from: near, transform: [{ redact: { detect: [email] } }], to: { all: [far] } }
  - { name: big, from: near, when: { data: { amount: [{ numeric: ['>', 400] }] } }, to: { all: [far] } }
unmatched: drop
";

    fn told(sight: Sight) -> Tapped {
        let plan = config::read("f.yaml", FILE, &Environment::default()).unwrap().plan;
        let event =
            json!({ "type": "order.placed", "data": { "amount": 12345, "mail": "j@x.org" } });
        let event = Arc::new(read_event(event).unwrap());
        let fate = Fate { taken: vec!["orders".into()], unrouted: None };
        let at = OffsetDateTime::UNIX_EPOCH;
        let forecast = forecast::forecast(&plan.apart(), 0, &event, at);
        let passed = Passed { source: "near".into(), event, at, fate };
        tapped(&passed, Some(&forecast), sight, 3)
    }

    #[test]
    fn who_may_not_see_a_body_sees_no_value_of_it() {
        let tapped = told(Sight::Outside);
        let text = serde_json::to_string(&tapped).unwrap();
        assert!(!text.contains("12345") && !text.contains("j@x"), "{text}");
        let orders = &tapped.routes[0];
        assert_eq!(orders.steps[0].changes, ["subject", "data"]);
        assert!(orders.outcomes[0].starts_with("to far, "), "{:?}", orders.outcomes);
    }

    #[test]
    fn a_body_is_redacted_and_the_steps_are_told() {
        let tapped = told(Sight::Redacted);
        let text = serde_json::to_string(&tapped).unwrap();
        assert!(text.contains("12345") && !text.contains("j@x"), "{text}");
        let changes = tapped.routes[0].steps[0].changes.join("\n");
        assert!(changes.contains("+   \"subject\": \"seen\""), "{changes}");
        let clean = tapped.routes.iter().find(|way| way.route == "clean").unwrap();
        assert_eq!(clean.steps[0].changes, ["  data: changed, and covered here"]);
    }

    #[test]
    fn to_ask_takes_nothing_from_the_rate_of_what_runs() {
        let plan = config::read("f.yaml", FILE, &Environment::default()).unwrap().plan;
        let event = Arc::new(read_event(json!({ "type": "order.placed", "data": {} })).unwrap());
        let at = OffsetDateTime::UNIX_EPOCH;
        let is_sent = |plan: &Plan| {
            let forecast = forecast::forecast(plan, 0, &event, at);
            matches!(forecast.routes[0].outcomes[0], Outcome::Sent(_))
        };
        assert!((0..3).all(|_| is_sent(&plan.apart())));
        assert!(is_sent(&plan), "the first is still to go");
        assert!(!is_sent(&plan));
    }
}
