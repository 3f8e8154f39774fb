//! Where events go: every strategy, from three services into four.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use eventferry::{cli::event_file::read_event, event::Event, route::sample::Share};
use serde_json::{Value as Json, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Arrival, Ferry, arrivals};
use crate::{
    clouds::{localstack, shared},
    place::place,
};

/// The type of an event says which of them it is for.
const ROUTES: &str = r#"
routes:
  - { name: all, from: shop, when: { type: [all] }, to: { all: [hub, topic, bin] } }
  - { name: fan-in, from: [shop, desk, lake], when: { type: [fan-in] }, to: { all: [topic] } }
  - name: first
    from: shop
    when: { type: [first] }
    to:
      first:
        - { when: { data: { amount: [{ numeric: [">", 100] }] } }, to: [hub, bin] }
        - { when: { data: { amount: [{ exists: true }] } }, to: topic }
        - { otherwise: bin }
  - { name: stops, from: shop, when: { type: [stop], data: { vip: [true] } }, stop: true, to: { all: [hub] } }
  - { name: behind-it, from: shop, when: { type: [stop] }, to: { all: [bin] } }
  - { name: refused, from: shop, when: { type: [refused] }, to: { any: [bin, hub] } }
  - { name: gone, from: shop, when: { type: [gone] }, to: { any: [going, topic] } }
  - { name: newer, from: shop, when: { type: [age], time: [{ newer_than: 1h }] }, to: { all: [hub] } }
  - { name: older, from: shop, when: { type: [age], time: [{ older_than: 1h }] }, to: { all: [bin] } }
  - name: daily
    from: shop
    when: { type: [daily], time: [{ daily: { from: "08:00", to: "18:00", zone: Europe/Berlin, days: [mon] } }] }
    to: { all: [topic] }
  - { name: drops-old, from: shop, when: { type: [expire] }, expire: { after: 1h, then: drop }, to: { all: [hub] } }
  - { name: parks-old, from: shop, when: { type: [expire] }, expire: { after: 1h }, to: { all: [bin] } }
  - { name: holds, from: shop, when: { type: [hold] }, hold: { for: 2s }, to: { all: [hub] } }
  - { name: holds-until, from: shop, when: { type: [until] }, hold: { until: { field: data.at, max: 1h } }, to: { all: [topic] } }
  - { name: half, from: shop, when: { type: [sample] }, sample: { share: 50% }, to: { all: [hub] } }
  - { name: same-half, from: desk, when: { type: [sample] }, sample: { share: 50% }, to: { all: [bin] } }
  - { name: waits, from: lake, when: { type: [waits] }, rate_limit: { per_second: 4, burst: 1 }, to: { all: [topic] } }
  - { name: drops, from: lake, when: { type: [over] }, rate_limit: { per_second: 0.001, burst: 2, over: drop }, to: { all: [hub] } }
  - name: parks
    from: lake
    when: { type: [over-by-key] }
    rate_limit: { per_second: 0.001, burst: 1, by: key, over: dead_letter }
    to: { all: [bin] }
  - { name: in-turn, from: shop, when: { type: [in-turn] }, to: { balance: { round_robin: [hub, topic] } } }
  - { name: weighted, from: shop, when: { type: [weighted] }, to: { balance: { weighted: { hub: 3, bin: 1 } } } }
  - { name: least, from: shop, when: { type: [least] }, to: { balance: { least_in_flight: [hub, bin] } } }
  - { name: sticky, from: lake, when: { type: [sticky] }, to: { balance: { sticky: [hub, topic, bin] } } }
"#;

/// An event that `source` gives, and where it must be at the end.
struct Case {
    source: &'static str,
    event: Event,
    at: &'static [&'static str],
}

fn case(source: &'static str, event: Json, at: &'static [&'static str]) -> Case {
    Case { source, event: read_event(event).unwrap(), at }
}

fn before_now(minutes: i64) -> Json {
    let time = OffsetDateTime::now_utc() - time::Duration::minutes(minutes);
    time.format(&Rfc3339).unwrap().into()
}

/// One way for each event.
fn cases() -> Vec<Case> {
    let after_an_hour = before_now(-90);
    vec![
        case("shop", json!({"id": "all", "type": "all"}), &["hub", "topic", "bin"]),
        case("shop", json!({"id": "nobodys", "type": "nobodys"}), &["parked: unmatched"]),
        case("shop", json!({"id": "in-1", "type": "fan-in"}), &["topic"]),
        case("desk", json!({"id": "in-2", "type": "fan-in"}), &["topic"]),
        case("lake", json!({"id": "in-3", "type": "fan-in"}), &["topic"]),
        case(
            "shop",
            json!({"id": "big", "type": "first", "data": {"amount": 500}}),
            &["hub", "bin"],
        ),
        case("shop", json!({"id": "small", "type": "first", "data": {"amount": 5}}), &["topic"]),
        case("shop", json!({"id": "other", "type": "first", "data": {}}), &["bin"]),
        case("shop", json!({"id": "vip", "type": "stop", "data": {"vip": true}}), &["hub"]),
        case("shop", json!({"id": "guest", "type": "stop", "data": {"vip": false}}), &["bin"]),
        case("shop", json!({"id": "fits", "type": "refused", "data": "x"}), &["bin"]),
        case(
            "shop",
            json!({"id": "large", "type": "refused", "data": "x".repeat(60_000)}),
            &["hub"],
        ),
        case("shop", json!({"id": "new", "type": "age", "time": before_now(5)}), &["hub"]),
        case("shop", json!({"id": "old", "type": "age", "time": before_now(90)}), &["bin"]),
        // A Monday; half past eight in Berlin, and half past six.
        case(
            "shop",
            json!({"id": "day", "type": "daily", "time": "2026-01-05T07:30:00Z"}),
            &["topic"],
        ),
        case(
            "shop",
            json!({"id": "night", "type": "daily", "time": "2026-01-05T05:30:00Z"}),
            &["parked: unmatched"],
        ),
        case(
            "shop",
            json!({"id": "fresh", "type": "expire", "time": before_now(5)}),
            &["hub", "bin"],
        ),
        case(
            "shop",
            json!({"id": "stale", "type": "expire", "time": before_now(90)}),
            &["parked: expired"],
        ),
        case("shop", json!({"id": "held", "type": "hold"}), &["hub"]),
        case("shop", json!({"id": "at-once", "type": "until", "data": {}}), &["topic"]),
        case(
            "shop",
            json!({"id": "never", "type": "until", "data": {"at": after_an_hour}}),
            &["parked: hold"],
        ),
        case("lake", json!({"id": "over-1", "type": "over", "key": "k"}), &["hub"]),
        case("lake", json!({"id": "over-2", "type": "over", "key": "k"}), &["hub"]),
        case("lake", json!({"id": "over-3", "type": "over", "key": "k"}), &[]),
        case("lake", json!({"id": "a-1", "type": "over-by-key", "key": "a"}), &["bin"]),
        case(
            "lake",
            json!({"id": "a-2", "type": "over-by-key", "key": "a"}),
            &["parked: rate_limited"],
        ),
        case("lake", json!({"id": "b-1", "type": "over-by-key", "key": "b"}), &["bin"]),
    ]
}

/// Events that share the load of several sinks, or wait for each other: how many of which type.
const MANY: [(&str, &str, usize); 7] = [
    ("shop", "sample", 20),
    ("desk", "sample", 20),
    ("lake", "waits", 5),
    ("shop", "in-turn", 6),
    ("shop", "weighted", 8),
    ("shop", "least", 8),
    ("lake", "sticky", 24),
];

fn many((source, kind, count): (&'static str, &str, usize)) -> impl Iterator<Item = Case> {
    (0..count).map(move |n| {
        let key = format!("key-{}", n % 6);
        case(source, json!({"id": format!("{kind}-{n}"), "type": kind, "key": key}), &[])
    })
}

/// Which of `sinks` have how many events of this type.
fn counts<const N: usize>(arrived: &[Arrival], kind: &str, sinks: [&str; N]) -> [usize; N] {
    sinks.map(|sink| of(arrived, kind).filter(|arrival| arrival.sink == sink).count())
}

fn of<'a>(arrived: &'a [Arrival], kind: &'a str) -> impl Iterator<Item = &'a Arrival> {
    arrived.iter().filter(move |arrival| arrival.event.kind.as_deref() == Some(kind))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_strategy_sends_events_where_it_says() {
    let _shared = shared().await;
    let (shop, desk, lake) =
        (place("sqs").await, place("storage_queue").await, place("event_hubs").await);
    let (hub, topic, bin, parked) = (
        place("event_hubs").await,
        place("sns").await,
        place("storage_queue").await,
        place("sqs").await,
    );
    let going = place("sqs").await;
    let ferry = Ferry::run(
        &[("shop", &shop), ("desk", &desk), ("lake", &lake)],
        &[("hub", &hub), ("topic", &topic), ("bin", &bin), ("parked", &parked), ("going", &going)],
        ROUTES,
    )
    .await;
    // What comes first finds a queue, which is then deleted: failover goes to the next sink.
    let gone = |id: &str| read_event(json!({"id": id, "type": "gone"})).unwrap();
    shop.put(vec![gone("before")]).await;
    let before = arrivals(&[("going", &going)], 1).await;
    assert_eq!(before.iter().map(Arrival::told).collect::<Vec<_>>(), ["before at going"]);
    let (sqs, name) = (localstack::sqs().await, going.sink["sqs"]["queue"].as_str().unwrap());
    let queue = sqs.get_queue_url().queue_name(name).send().await.unwrap();
    sqs.delete_queue().queue_url(queue.queue_url().unwrap()).send().await.unwrap();

    let mut cases = cases();
    cases.push(Case { source: "shop", event: gone("after"), at: &["topic"] });
    let begun = OffsetDateTime::now_utc();
    let all: Vec<&Case> = cases.iter().collect();
    let others: Vec<Case> = MANY.into_iter().flat_map(many).collect();
    for (name, source) in [("shop", &shop), ("desk", &desk), ("lake", &lake)] {
        let of_it = all.iter().copied().chain(&others).filter(|case| case.source == name);
        source.put(of_it.map(|case| case.event.clone()).collect()).await;
    }
    let count = cases.iter().map(|case| case.at.len()).sum::<usize>()
        + others.iter().filter(|case| case.event.kind.as_deref() != Some("sample")).count()
        + 2 * sampled().len();
    let sinks = [("hub", &hub), ("topic", &topic), ("bin", &bin), ("parked", &parked)];
    let arrived = arrivals(&sinks, count).await;
    ferry.end().await;

    let is_one_of_many = |arrival: &&Arrival| {
        MANY.iter().any(|(_, kind, _)| arrival.event.kind.as_deref() == Some(*kind))
    };
    let mut told: Vec<_> =
        arrived.iter().filter(|arrival| !is_one_of_many(arrival)).map(Arrival::told).collect();
    told.sort();
    let expected =
        cases.iter().flat_map(|case| case.at.iter().map(|at| format!("{} at {at}", case.event.id)));
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(told, expected);

    assert_eq!(counts(&arrived, "in-turn", ["hub", "topic"]), [3, 3]);
    assert_eq!(counts(&arrived, "weighted", ["hub", "bin"]), [6, 2]);
    let least = counts(&arrived, "least", ["hub", "bin"]);
    assert!(least.iter().sum::<usize>() == 8 && !least.contains(&0), "{least:?}");
    sticks(&arrived);
    samples_are_the_same(&arrived);
    // Five of them at four in a second: the last has waited for a second.
    assert_eq!(counts(&arrived, "waits", ["topic"]), [5]);
    let last = of(&arrived, "waits").map(|arrival| arrival.at).max().unwrap();
    assert!(last - begun >= Duration::from_secs(1), "{}", last - begun);
    let held = of(&arrived, "hold").next().unwrap();
    assert!(held.at - begun >= Duration::from_secs(2), "{}", held.at - begun);
}

/// Each key has one sink, and not all have the same.
fn sticks(arrived: &[Arrival]) {
    let mut sinks = BTreeMap::<_, Vec<&str>>::new();
    for arrival in of(arrived, "sticky") {
        sinks.entry(arrival.event.key.as_deref().unwrap()).or_default().push(arrival.sink);
    }
    assert_eq!(sinks.values().map(Vec::len).collect::<Vec<_>>(), [4; 6]);
    assert!(sinks.values().all(|of_key| of_key.iter().all(|sink| *sink == of_key[0])), "{sinks:?}");
    let used: BTreeSet<_> = sinks.values().map(|of_key| of_key[0]).collect();
    assert!(used.len() > 1, "{used:?}");
}

/// The ids of the half of the sampled events, in order.
fn sampled() -> Vec<String> {
    let half: Share = serde_json::from_value(json!("50%")).unwrap();
    let mut ids: Vec<_> = (0..20).map(|n| format!("sample-{n}")).collect();
    ids.retain(|id| half.holds(id));
    ids.sort();
    ids
}

/// Two routes with one share take the same events, from whatever source.
fn samples_are_the_same(arrived: &[Arrival]) {
    let ids = |sink| -> Vec<&str> {
        let sampled = of(arrived, "sample").filter(|arrival| arrival.sink == sink);
        let mut ids: Vec<_> = sampled.map(|arrival| &*arrival.event.id).collect();
        ids.sort_unstable();
        ids
    };
    let (half, same) = (ids("hub"), ids("bin"));
    assert_eq!(half, sampled());
    assert_eq!(same, sampled());
    assert!((1..20).contains(&half.len()), "{half:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_urgent_event_overtakes_the_backlog_of_its_sink() {
    let _shared = shared().await;
    let (lake, mut far, parked) =
        (place("event_hubs").await, place("sqs").await, place("sqs").await);
    // Ten events at a time: what has come from the hub waits for its turn.
    far.sink["concurrency"] = json!({ "max": 1 });
    let typed = |kind: &str, n: usize| {
        read_event(json!({"id": format!("{kind}-{n}"), "type": kind, "key": kind})).unwrap()
    };
    let mut events: Vec<_> = (0..400).map(|n| typed("report", n)).collect();
    events.extend((0..20).map(|n| typed("alert", n)));
    lake.put(events).await;
    let ferry = Ferry::run(
        &[("lake", &lake)],
        &[("far", &far), ("parked", &parked)],
        r#"
lanes: { urgent: { weight: 16, when: { type: [alert] } }, bulk: { weight: 1 } }
routes: [{ name: out, from: lake, lane: bulk, when: { type: [report] }, to: { all: [far] } }, { name: alerts, from: lake, when: { type: [alert] }, to: { all: [far] } }]
"#,
    )
    .await;
    let arrived = arrivals(&[("far", &far)], 420).await;
    ferry.end().await;
    assert_eq!(arrived.len(), 420);
    let last_alert = of(&arrived, "alert").map(|arrival| arrival.at).max().unwrap();
    let overtaken = of(&arrived, "report").filter(|report| report.at > last_alert).count();
    assert!(overtaken > 200, "{overtaken} of 400 reports came after the last alert");
}
