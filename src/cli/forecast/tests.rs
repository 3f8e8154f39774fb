use serde_json::json;

use super::*;
use crate::{
    cli::event_file::read_event,
    config::{self, environment::Environment},
};

const NOW: OffsetDateTime = time::macros::datetime!(2026-11-21 12:00 UTC);

fn of(routes: &str, event: Json) -> Forecast {
    let text = format!(
        "sources: {{ in: {{ memory: {{ queue: in }} }} }}
sinks:
  a: {{ memory: {{ queue: a }} }}
  b: {{ memory: {{ queue: b }} }}
  parked: {{ memory: {{ queue: parked }} }}
dead_letter: parked
routes: {routes}"
    );
    let checked = config::read("f", &text, &Environment::default());
    let plan = checked.unwrap_or_else(|problems| panic!("{problems}")).plan;
    forecast(&plan, 0, &Arc::new(read_event(event).unwrap()), NOW)
}

fn sinks(forecast: &Forecast) -> Vec<&str> {
    forecast.sent().map(|sent| sent.sink.as_str()).collect()
}

fn parked(forecast: &Forecast) -> Vec<(&'static str, Option<&str>)> {
    let parked = forecast.outcomes().filter_map(|outcome| match outcome {
        Outcome::DeadLettered(parked) => Some((parked.class, parked.to.as_deref())),
        _ => None,
    });
    parked.collect()
}

#[test]
fn a_route_that_does_not_take_an_event_says_why() {
    let routes = "[{ name: one, from: in, stop: true, when: { type: [x] }, to: { all: [a] } },
        { name: two, from: in, to: { first: [{ when: { type: [y] }, to: b }] } }]";
    let taken = of(routes, json!({"type": "x"}));
    assert_eq!(sinks(&taken), ["a"]);
    assert_eq!(taken.routes[1].why_not[0].to_string(), "`one` has taken it, and says `stop`");
    let unmatched = of(routes, json!({"type": "z"}));
    assert_eq!(unmatched.routes[0].why_not.len(), 1);
    assert!(unmatched.routes[1].why_not[0].to_string().starts_with("case 1: "));
    assert_eq!(parked(&unmatched), [("unmatched", Some("parked"))]);
}

#[test]
fn steps_are_shown_only_for_events_that_reach_them() {
    let route = "[{ name: one, from: in, expire: { after: 1h, then: drop },
        transform: [{ set: { subject: s } }, { parse: [data.text] }], to: { all: [a] } }]";
    let late = of(route, json!({"time": "2026-11-21T10:00:00Z", "data": {"text": "{}"}}));
    assert_eq!(late.routes[0].steps, []);
    assert_eq!(late.routes[0].outcomes, [Outcome::Filtered("expired")]);
    let fine = of(route, json!({"data": {"text": "{}"}}));
    assert_eq!(fine.routes[0].steps[0].events[0]["subject"], "s");
    assert_eq!(fine.routes[0].steps[1].events[0]["data"], json!({"text": {}}));
    let failed = of(route, json!({"data": {"text": "{"}}));
    assert_eq!((failed.routes[0].steps.len(), parked(&failed).len()), (1, 1));
}

#[test]
fn what_is_too_large_for_its_sink_is_parked() {
    let route = "[{ name: one, from: in, to: { any: [a, b] } }]";
    let large = "x".repeat(1 << 20);
    assert_eq!(parked(&of(route, json!({"data": large}))), [("too_large", Some("parked"))]);
    let fine = of(route, json!({"data": "x", "key": "k"}));
    let sent: Vec<_> = fine.sent().collect();
    assert_eq!((sent.len(), &*sent[0].sink, sent[0].bytes), (1, "a", 3));
    assert_eq!(sent[0].labels["key"], "k");
}

#[test]
fn what_has_passed_too_many_relays_runs_in_a_loop() {
    let route = "[{ name: one, from: in, to: { all: [a] } }]";
    assert_eq!(sinks(&of(route, json!({"hops": 3}))), ["a"]);
    let looped = of(route, json!({"hops": 4}));
    assert_eq!((parked(&looped), sinks(&looped).len()), (vec![("loop", Some("parked"))], 0));
}
