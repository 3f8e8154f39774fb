//! What a route has delivered is not delivered again, and nothing is taken for delivered that is
//! not.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use eventferry::{event::Event, fault::Fault, state::memory::MemoryKeys};
use serde_json::json;

use crate::{
    rig::{self, Rig, Setup, event},
    world::{World, put},
};

mod scale;

const ROUTE: &str = "  - { name: once, from: near, dedup: { ttl: 1h }, to: { all: [a, b] } }\n";

fn ids(events: &[Event]) -> BTreeSet<&str> {
    events.iter().map(|event| &*event.id).collect()
}

#[tokio::test(start_paused = true)]
async fn what_a_route_has_delivered_is_not_delivered_again() {
    let world = World::run(&["a", "b"], ROUTE);
    // Twins side by side, and later.
    world.put([rig::events("e", 200, 0), rig::events("e", 200, 0)].concat()).await;
    world.empty().await;
    world.put(rig::events("e", 300, 0)).await;
    let seen = world.end().await;
    for sink in ["a", "b"] {
        assert_eq!(seen[sink].len(), 300, "{sink}");
        assert_eq!(ids(&seen[sink]).len(), 300, "{sink}");
    }
    assert!(seen["parked"].is_empty());
}

#[tokio::test(start_paused = true)]
async fn order_holds_where_twins_wait() {
    let world = World::of_kind(
        "fifo",
        &["a"],
        "  - { name: once, from: near, dedup: { ttl: 1h }, to: { all: [a] } }\n",
    );
    let events = rig::events("e", 100, 3);
    let twice = events.iter().flat_map(|event| [event.clone(), event.clone()]);
    world.put(twice.collect()).await;
    let seen = world.end().await;
    assert_eq!(seen["a"].len(), 100);
    for key in 0..3 {
        let of_key = |events: &[Event]| -> Vec<_> {
            let key = format!("key-{key}");
            events.iter().filter(|e| e.key.as_deref() == Some(&key)).map(|e| e.id.clone()).collect()
        };
        assert_eq!(of_key(&seen["a"]), of_key(&events));
    }
}

#[cfg(feature = "vrl")]
#[tokio::test(start_paused = true)]
async fn a_route_can_tell_events_apart_by_what_they_hold() {
    let world = World::run(
        &["a"],
        "  - { name: once, from: near, dedup: { ttl: 1h, key: .data.order }, to: { all: [a] } }\n",
    );
    let order = |id: &str, order| event(id, json!({ "order": order }).to_string());
    world.put(vec![order("1", json!(7)), order("2", json!("x"))]).await;
    world.empty().await;
    let nameless = [json!(null), json!([7]), json!({}), json!(""), json!(1.5)];
    let nameless = nameless.into_iter().enumerate().map(|(n, it)| order(&format!("n{n}"), it));
    world
        .put([vec![order("3", json!(7)), order("4", json!(8))], nameless.collect()].concat())
        .await;
    let seen = world.end().await;
    assert_eq!(ids(&seen["a"]), BTreeSet::from(["1", "2", "4"]));
    assert_eq!(ids(&seen["parked"]), BTreeSet::from(["n0", "n1", "n2", "n3", "n4"]));
}

/// By one key the first part would be taken for all of them, and the others be lost.
#[cfg(feature = "vrl")]
#[tokio::test(start_paused = true)]
async fn each_part_of_a_split_event_is_delivered_and_none_twice() {
    let (own, named) = ("{ ttl: 1h }", "{ ttl: 1h, key: .data.order }");
    let same_id = ", { set: { id: '{{ data.order }}' } }";
    for (dedup, keep, then, again) in [
        (own, false, "", ["e-7", "e-8"]),
        (own, true, same_id, ["e-7", "e-8"]),
        // Their producer gives them other ids each time.
        (named, false, "", ["f-7", "f-8"]),
        (named, true, same_id, ["f-7", "f-8"]),
    ] {
        let world = World::run(
            &["a"],
            &format!(
                "  - name: once\n    from: near\n    dedup: {dedup}\n    to: {{ all: [a] }}\n    \
                 transform: [{{ split: {{ list: data.items, keep: {keep} }} }}{then}]\n"
            ),
        );
        let order = |id: &str, order: &str| {
            let items: Vec<_> = (0..3).map(|n| json!({ "of": order, "n": n })).collect();
            event(id, json!({ "order": order, "items": items }).to_string())
        };
        world.put(vec![order("e-7", "7"), order("e-8", "8")]).await;
        world.empty().await;
        world.put(vec![order(again[0], "7"), order(again[1], "8")]).await;
        let seen = world.end().await;
        let bodies: BTreeSet<_> = seen["a"].iter().map(|event| event.body.clone()).collect();
        assert_eq!((seen["a"].len(), bodies.len()), (6, 6), "{dedup} keep: {keep}");
        assert!(seen["parked"].is_empty(), "{dedup} keep: {keep}: {:?}", seen["parked"]);
    }
}

/// What is left of the list takes no other part's place.
#[cfg(feature = "vrl")]
#[tokio::test]
async fn a_part_keeps_its_place_where_another_step_leaves_parts_out() {
    let dir = tempfile::tempdir().unwrap();
    let state = format!("{{ embedded: {{ path: {} }} }}", dir.path().display());
    let route = |then: &str, to: &str| {
        format!(
            "  - name: once\n    from: near\n    dedup: {{ ttl: 1h }}\n    to: {to}\n    \
             transform: [{{ split: {{ list: data.items }} }}{then}]\n"
        )
    };
    // The last one is parked at first, and its claim released.
    let some = "{ first: [{ when: { data: { n: [0, 1] } }, to: a }] }";
    let without_first = ", { map: 'if .data.n == 0 { abort }' }";
    let mut bodies = Vec::new();
    for route in [route("", some), route(without_first, "{ all: [a] }")] {
        let world = World::with_state(&state, "standard", &["a"], &route);
        let items: Vec<_> = (0..3).map(|n| json!({ "n": n })).collect();
        world.put(vec![event("e", json!({ "items": items }).to_string())]).await;
        let seen = world.end().await;
        bodies.push(seen["a"].iter().map(|event| event.body.clone()).collect::<Vec<_>>());
    }
    bodies[0].sort();
    assert_eq!(bodies, [vec![&br#"{"n":0}"#[..], br#"{"n":1}"#], vec![br#"{"n":2}"#]]);
}

#[tokio::test]
async fn a_restart_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let state = format!("{{ embedded: {{ path: {} }} }}", dir.path().display());
    let mut arrived = Vec::new();
    for count in [50, 80] {
        let world = World::with_state(&state, "standard", &["a", "b"], ROUTE);
        world.put(rig::events("e", count, 0)).await;
        arrived.extend(world.end().await.remove("b").unwrap());
    }
    assert_eq!((arrived.len(), ids(&arrived).len()), (80, 80));
}

/// The claim of an event that was given up does not stand in its way when it comes again.
#[tokio::test(start_paused = true)]
async fn what_was_parked_can_be_delivered_later() {
    let refuses = Arc::new(AtomicBool::new(true));
    let script = {
        let refuses = refuses.clone();
        move |_: &_| match refuses.load(Ordering::Relaxed) {
            true => Err(Fault::reject("send", "refused", "not today")),
            false => Ok(()),
        }
    };
    let keys = Some(Arc::new(MemoryKeys::default()) as _);
    let setup =
        Setup { script: Box::new(script), dead_letter: true, dedup: keys, ..Setup::default() };
    let near = rig::queue();
    put(&near, rig::events("e", 3, 0)).await;
    let source = near.source(&rig::context("near", &rig::store())).await.unwrap();
    let rig = Rig::start(source, setup);
    rig.parked.wait_until(|messages| messages.len() == 3).await;
    refuses.store(false, Ordering::Relaxed);
    put(&near, rig::events("e", 3, 0)).await;
    rig.far.wait_until(|messages| messages.len() == 3).await;
    put(&near, rig::events("e", 3, 0)).await;
    near.wait_until(<[_]>::is_empty).await;
    assert_eq!((rig.far.contents().len(), rig.parked.contents().len()), (3, 3));
    rig.drain().await;
}
