//! What routes do with events, through the whole daemon on queues in memory: each strategy as a
//! file says it.

use std::{collections::BTreeMap, time::Duration};

use eventferry::{
    config::{self, environment::Environment},
    daemon,
    event::Event,
};
use time::OffsetDateTime;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    rig::{self, PATIENCE, event},
    world::World,
};

fn typed(id: &str, kind: &str) -> Event {
    Event { kind: Some(kind.into()), ..event(id, "{}") }
}

fn numbered(count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&n.to_string(), format!(r#"{{"n":{n}}}"#))).collect()
}

fn ids(events: &[Event]) -> Vec<&str> {
    let mut ids: Vec<&str> = events.iter().map(|event| &*event.id).collect();
    ids.sort_unstable();
    ids
}

fn causes(events: &[Event]) -> Vec<(&str, &str)> {
    let mut causes: Vec<_> = events
        .iter()
        .map(|event| (&*event.id, event.dead_letter.as_ref().unwrap().class.as_str()))
        .collect();
    causes.sort_unstable();
    causes
}

#[tokio::test(start_paused = true)]
async fn a_directed_route_sends_to_the_first_case_that_matches() {
    let world = World::run(
        &["orders", "big", "rest"],
        r#"
  - name: directed
    from: near
    to:
      first:
        - { when: { type: [order], data: { amount: [{ numeric: [">", 100] }] } }, to: [big, orders] }
        - { when: { type: [order] }, to: orders }
        - { otherwise: rest }
"#,
    );
    let order = |id, amount| Event {
        body: format!(r#"{{"amount":{amount}}}"#).into(),
        ..typed(id, "order")
    };
    world.put(vec![order("a", 500), order("b", 5), typed("c", "click")]).await;
    let seen = world.end().await;
    assert_eq!(ids(&seen["big"]), ["a"]);
    assert_eq!(ids(&seen["orders"]), ["a", "b"]);
    assert_eq!(ids(&seen["rest"]), ["c"]);
    assert!(seen["parked"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_no_case_takes_is_unmatched() {
    let world = World::run(
        &["orders", "all"],
        r#"
  - { name: directed, from: near, to: { first: [{ when: { type: [order] }, to: orders }] } }
  - { name: clicks, from: near, when: { type: [click] }, to: { all: [all] } }
"#,
    );
    world.put(vec![typed("a", "order"), typed("b", "click"), typed("c", "other")]).await;
    let seen = world.end().await;
    assert_eq!((ids(&seen["orders"]), ids(&seen["all"])), (vec!["a"], vec!["b"]));
    assert_eq!(causes(&seen["parked"]), [("c", "unmatched")]);
}

#[tokio::test(start_paused = true)]
async fn weights_share_the_load() {
    let world = World::run(
        &["a", "b"],
        "  - { name: shared, from: near, to: { balance: { weighted: { a: 9, b: 1 } } } }\n",
    );
    world.put(numbered(200)).await;
    let seen = world.end().await;
    assert_eq!((seen["a"].len(), seen["b"].len()), (180, 20));
}

#[tokio::test(start_paused = true)]
async fn a_key_sticks_to_its_sink() {
    let world = World::of_kind(
        "fifo",
        &["a", "b", "c"],
        "  - { name: shared, from: near, to: { balance: { sticky: [a, b, c] } } }\n",
    );
    world.put(rig::events("e", 120, 12)).await;
    let seen = world.end().await;
    let mut sinks_of = BTreeMap::<_, Vec<&str>>::new();
    for (sink, events) in &seen {
        for event in events {
            let sinks = sinks_of.entry(event.key.clone()).or_default();
            if !sinks.contains(sink) {
                sinks.push(sink);
            }
        }
    }
    assert_eq!(sinks_of.len(), 12);
    assert!(sinks_of.values().all(|sinks| sinks.len() == 1), "{sinks_of:?}");
    assert!(["a", "b", "c"].iter().all(|sink| !seen[sink].is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_route_that_stops_hides_events_from_those_after_it() {
    let world = World::run(
        &["vip", "all"],
        r#"
  - { name: vip, from: near, when: { type: [vip] }, stop: true, to: { all: [vip] } }
  - { name: all, from: near, to: { all: [all] } }
"#,
    );
    world.put(vec![typed("a", "vip"), typed("b", "other")]).await;
    let seen = world.end().await;
    assert_eq!((ids(&seen["vip"]), ids(&seen["all"])), (vec!["a"], vec!["b"]));
}

#[tokio::test(start_paused = true)]
async fn what_the_steps_made_and_no_case_takes_is_for_other_routes() {
    let world = World::run(
        &["vip", "rest"],
        r#"
  - name: sorted
    from: near
    stop: true
    transform: [{ set: { type: "order.{{ data.kind? }}" } }]
    to: { first: [{ when: { type: [order.vip] }, to: vip }] }
  - { name: rest, from: near, to: { all: [rest] } }
"#,
    );
    let text = Event { content_type: Some("text/plain".into()), ..event("text", "no JSON") };
    world.put(vec![event("a", r#"{"kind":"vip"}"#), event("b", r#"{"kind":"x"}"#), text]).await;
    let seen = world.end().await;
    assert_eq!((ids(&seen["vip"]), ids(&seen["rest"])), (vec!["a"], vec!["b", "text"]));
    assert!(seen["parked"].is_empty());
    assert_eq!(seen["rest"][0].kind, None, "as it came");
}

#[tokio::test(start_paused = true)]
async fn parts_of_an_event_go_their_own_ways_and_are_settled_together() {
    let world = World::run(
        &["a", "b"],
        r#"
  - name: items
    from: near
    transform:
      - split: { list: data.items }
      - set: { type: "item.{{ data.kind }}", key: "{{ data.kind }}" }
    to:
      first:
        - { when: { type: [item.a] }, to: a }
        - { when: { type: [item.b] }, to: b }
"#,
    );
    let items = |id: &str, items: &str| event(id, format!(r#"{{"items":{items}}}"#));
    world
        .put(vec![
            items("x", r#"[{"kind":"a"},{"kind":"b"},{"kind":"a"}]"#),
            items("empty", "[]"),
            items("odd", r#"[{"kind":"a"},{"kind":"c"}]"#),
            items("broken", r#"[{"kind":"a"},{}]"#),
        ])
        .await;
    let seen = world.end().await;
    assert_eq!(ids(&seen["a"]), ["odd/0", "x/0", "x/2"]);
    assert_eq!(ids(&seen["b"]), ["x/1"]);
    assert_eq!(seen["b"][0].key.as_deref(), Some("b"));
    // A part that no case takes is parked by itself; what cannot be taken apart whole, as it came.
    let parked = &seen["parked"];
    assert_eq!(ids(parked), ["broken", "odd/1"]);
    let odd = parked.iter().find(|event| &*event.id == "odd/1").unwrap();
    assert_eq!(odd.body, r#"{"kind":"c"}"#);
    let broken = parked.iter().find(|event| &*event.id == "broken").unwrap();
    assert_eq!(broken.body, r#"{"items":[{"kind":"a"},{}]}"#);
    let record = broken.dead_letter.as_ref().unwrap();
    assert_eq!((record.class.as_str(), record.route.as_deref()), ("missing", Some("items")));
    assert!(record.error.ends_with("step 2 (set): `data.kind` is not there"), "{}", record.error);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_holds_the_event_as_it_came() {
    let world = World::run(
        &["out"],
        r#"
  - name: small
    from: near
    transform: [{ set: { "data.more": "{{ data.text }}{{ data.text }}" } }]
    to: { all: [out] }
"#,
    );
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(600_000));
    world.put(vec![event("large", body.clone())]).await;
    let seen = world.end().await;
    assert_eq!(causes(&seen["parked"]), [("large", "too_large")]);
    assert_eq!(seen["parked"][0].body, body);
}

#[tokio::test(start_paused = true)]
async fn a_sample_is_sent_and_the_rest_is_settled() {
    let world = World::run(
        &["out"],
        "  - { name: some, from: near, sample: { share: 25% }, to: { all: [out] } }\n",
    );
    world.put(numbered(400)).await;
    let seen = world.end().await;
    assert!((60..140).contains(&seen["out"].len()), "{}", seen["out"].len());
    assert!(seen["parked"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_sample_by_key_has_all_events_of_some_keys_and_none_of_the_others() {
    let world = World::run(
        &["out"],
        "  - { name: some, from: near, sample: { share: 25%, by: key }, to: { all: [out] } }\n",
    );
    world.put(rig::events("e", 2_000, 200)).await;
    let seen = world.end().await;
    let mut by_key = BTreeMap::<_, usize>::new();
    for event in &seen["out"] {
        *by_key.entry(event.key.clone().unwrap()).or_default() += 1;
    }
    assert!((25..80).contains(&by_key.len()), "{} of 200 keys", by_key.len());
    assert!(by_key.values().all(|events| *events == 10), "{by_key:?}");
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_dropped_or_parked() {
    let world = World::run(
        &["a", "b"],
        r#"
  - { name: drops, from: near, expire: { after: 1h, then: drop }, to: { all: [a] } }
  - { name: parks, from: near, expire: { after: 1h }, to: { all: [b] } }
"#,
    );
    let old = OffsetDateTime::now_utc() - Duration::from_secs(7200);
    world.put(vec![Event { time: Some(old), ..event("old", "{}") }, event("none", "{}")]).await;
    let seen = world.end().await;
    assert_eq!((ids(&seen["a"]), ids(&seen["b"])), (vec!["none"], vec!["none"]));
    assert_eq!(causes(&seen["parked"]), [("old", "expired")]);
}

/// Two daemons whose bridges point at each other.
#[tokio::test(start_paused = true)]
async fn an_event_in_a_loop_is_parked() {
    let there = "  - { name: there, from: near, to: { all: [back] } }\n";
    let world = World::run(&["back"], there);
    let name = |queue: &str| format!("{}{queue}", world.prefix);
    let file = format!(
        "{{state: memory, admin: off, dead_letter: parked, sources: {{ near: {{ memory: {{ queue: {} }} }} }}, \
         sinks: {{ back: {{ memory: {{ queue: {} }} }}, parked: {{ memory: {{ queue: {} }} }} }}, \
         routes: [{{ name: back, from: near, to: {{ all: [back] }} }}]}}",
        name("back"),
        name("near"),
        name("parked"),
    );
    let plan = config::read("back.yaml", &file, &Environment::default()).unwrap().plan;
    let (stop, stopped) = oneshot::channel::<()>();
    let other = tokio::spawn(daemon::run(plan, async {
        let _ = stopped.await;
    }));
    world.put(vec![event("e", "{}")]).await;
    let parked = world.sinks["parked"].clone();
    timeout(PATIENCE, parked.wait_until(|messages| !messages.is_empty())).await.unwrap();
    stop.send(()).unwrap();
    other.await.unwrap().unwrap();
    let seen = world.end().await;
    assert!(seen["back"].is_empty());
    assert_eq!(causes(&seen["parked"]), [("e", "loop")]);
    let error = &seen["parked"][0].dead_letter.as_ref().unwrap().error;
    assert!(error.contains("it has passed 4 relays, and `hops_max` is 4"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_held_event_waits_for_its_time_and_no_other_waits_for_it() {
    let world = World::run(
        &["out"],
        r#"
  - { name: holds, from: near, hold: { until: { field: data.at, max: 1h } }, to: { all: [out] } }
"#,
    );
    let at = |minutes: i64| {
        (OffsetDateTime::now_utc() + time::Duration::minutes(minutes)).unix_timestamp()
    };
    let held = |id: &str, minutes| event(id, format!(r#"{{"at":{}}}"#, at(minutes)));
    let begun = tokio::time::Instant::now();
    world.put(vec![held("later", 30), held("never", 90), event("now", "{}")]).await;
    let out = world.sinks["out"].clone();
    timeout(PATIENCE, out.wait_until(|messages| messages.len() == 1)).await.unwrap();
    timeout(Duration::from_secs(3600), out.wait_until(|messages| messages.len() == 2))
        .await
        .unwrap();
    let waited = begun.elapsed();
    assert!((1795..1810).contains(&waited.as_secs()), "{waited:?}");
    let seen = world.end().await;
    assert_eq!(ids(&seen["out"]), ["later", "now"]);
    assert_eq!(causes(&seen["parked"]), [("never", "hold")]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_delays_drops_or_parks_what_is_over_it() {
    let world = World::run(
        &["waits", "drops", "parks"],
        r#"
  - { name: waits, from: near, rate_limit: { per_second: 2, burst: 5 }, to: { all: [waits] } }
  - { name: drops, from: near, rate_limit: { per_second: 1, burst: 5, over: drop }, to: { all: [drops] } }
  - { name: parks, from: near, rate_limit: { per_second: 1, burst: 5, over: dead_letter }, to: { all: [parks] } }
"#,
    );
    let begun = tokio::time::Instant::now();
    world.put(numbered(45)).await;
    let waits = world.sinks["waits"].clone();
    timeout(PATIENCE, waits.wait_until(|messages| messages.len() == 45)).await.unwrap();
    let waited = begun.elapsed();
    assert!((19..22).contains(&waited.as_secs()), "{waited:?}");
    let seen = world.end().await;
    assert_eq!(seen["drops"].len(), 5);
    assert_eq!((seen["parks"].len(), seen["parked"].len()), (5, 40));
    assert!(causes(&seen["parked"]).iter().all(|(_, class)| *class == "rate_limited"));
}

#[tokio::test(start_paused = true)]
async fn urgent_events_arrive_before_the_backlog() {
    let world = World::run(
        &["out"],
        r#"
  - { name: alerts, from: near, when: { type: [alert] }, lane: urgent, to: { all: [out] } }
  - { name: bulk, from: near, when: { type: [report] }, lane: bulk, to: { all: [out] } }
"#,
    );
    let mut events: Vec<_> = (0..2000).map(|n| typed(&format!("r{n}"), "report")).collect();
    events.extend((0..20).map(|n| typed(&format!("a{n}"), "alert")));
    world.put(events).await;
    let seen = world.end().await;
    let last = seen["out"].iter().rposition(|event| event.id.starts_with('a')).unwrap();
    assert!(last < 1500, "the last alert was number {last} of {}", seen["out"].len());
}
