//! The contract: named behaviours that every connector passes against its real emulator, and the
//! in-memory connectors too. A connector's own file gives a [`Fixture`] and calls
//! [`contract!`](crate::contract) with the behaviours that its kind of service has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use eventferry::{
    decode::{Format, decode},
    delivery::{Delivery, Outcome, Token},
    event::{Event, Trace},
    fault::{Fault, Verdict},
    sink::Outgoing,
    source::InFlight,
};
use tokio::time::{Instant, timeout};

use crate::{
    fixture::{Fixture, ids, put, receive, receives_nothing, settle},
    rig::{
        Asked, PATIENCE, Rig, Setup, by_key, counter, event, events, many_attributes, store,
        watched,
    },
};

const RETURNED: Outcome = Outcome::Returned { after: None };

/// Bytes, attributes, trace context, subject, key and id are the same on the far side.
pub async fn round_trips_bytes_and_attributes(fixture: &dyn Fixture) {
    let max = fixture.body_max();
    let bodies: [(&str, Bytes); 9] = [
        ("empty", Bytes::new()),
        ("one-byte", Bytes::from_static(b"x")),
        ("one-nul", Bytes::from_static(&[0])),
        ("limit", Bytes::from(vec![b'a'; max])),
        ("binary", (0..=255).collect::<Vec<u8>>().into()),
        ("non-utf-8", Bytes::from_static(&[0xff, 0xfe, b'a', 0xc3])),
        ("unicode", Bytes::from("grüße, 世界, 🚢 \u{1}\u{fffe}")),
        ("json", Bytes::from_static(br#"{"a": [1, 2.50], "b": null}"#)),
        ("base64-like", Bytes::from_static(b"aGVsbG8=")),
    ];
    let mut sent: BTreeMap<String, Event> = BTreeMap::new();
    for (id, body) in bodies {
        let plain = event(id, body);
        let full = Event {
            kind: Some("order.placed".into()),
            subject: Some("orders/7".into()),
            content_type: Some("application/json".into()),
            key: Some("customer-7".into()),
            trace: Trace {
                parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
                state: Some("vendor=value".into()),
            },
            attributes: many_attributes(),
            ..event(&format!("{id}-full"), plain.body.clone())
        };
        sent.insert(id.to_owned(), plain);
        if id != "limit" {
            sent.insert(full.id.to_string(), full);
        }
    }
    put(fixture, sent.values().cloned().collect()).await;
    let mut source = fixture.source(&store()).await;
    for delivery in receive(&mut source, sent.len()).await {
        let event = decode(&delivery.received, Format::Auto).unwrap();
        let expected = sent.remove(&*event.id).unwrap_or_else(|| panic!("{} came twice", event.id));
        assert_eq!(event.body, expected.body, "{}", event.id);
        assert_eq!(sorted(&event), sorted(&expected), "{}", event.id);
        assert_eq!(event.source, expected.source);
        assert_eq!(event.kind, expected.kind);
        assert_eq!(event.subject, expected.subject);
        assert_eq!(event.content_type, expected.content_type);
        assert_eq!(event.trace, expected.trace);
        assert_eq!(event.hops, 1);
        if expected.key.is_some() {
            assert_eq!(event.key, expected.key);
        }
        settle(&mut source, &[delivery], Outcome::Delivered).await;
    }
    assert!(sent.is_empty(), "missing: {:?}", sent.keys());
}

fn sorted(event: &Event) -> Vec<(String, String)> {
    let text =
        event.attributes.iter().map(|(name, value)| (name.to_string(), format!("{value:?}")));
    let mut list: Vec<_> = text.collect();
    list.sort();
    list
}

/// A returned event comes again, with its attempt raised; the others do not.
pub async fn redelivers_after_return(fixture: &dyn Fixture) {
    put(fixture, events("e", 3, 3)).await;
    let mut source = fixture.source(&store()).await;
    let deliveries = receive(&mut source, 3).await;
    settle(&mut source, &deliveries[1..], Outcome::Delivered).await;
    settle(&mut source, &deliveries[..1], RETURNED).await;
    let again = receive(&mut source, 1).await;
    assert_eq!(ids(&again), ids(&deliveries[..1]));
    assert!(again[0].attempt >= 2, "attempt {}", again[0].attempt);
    settle(&mut source, &again, Outcome::Delivered).await;
    receives_nothing(&mut source, Duration::from_millis(300)).await;
}

/// Returned with a delay, an event does not come before it.
pub async fn returns_after_the_delay(fixture: &dyn Fixture) {
    put(fixture, events("e", 1, 0)).await;
    let mut source = fixture.source(&store()).await;
    let deliveries = receive(&mut source, 1).await;
    let returned = Instant::now();
    let after = Some(Duration::from_secs(2));
    settle(&mut source, &deliveries, Outcome::Returned { after }).await;
    let again = receive(&mut source, 1).await;
    let waited = returned.elapsed();
    // Services count whole seconds.
    assert!(waited >= Duration::from_millis(900), "came after {waited:?}");
    settle(&mut source, &again, Outcome::Delivered).await;
}

/// What was received and never settled comes again: after its lease, or after a restart.
pub async fn redelivers_after_a_dropped_delivery(fixture: &dyn Fixture) {
    put(fixture, events("e", 2, 0)).await;
    let store = store();
    let mut source = fixture.source(&store).await;
    let deliveries = receive(&mut source, 2).await;
    let dropped = ids(&deliveries);
    drop((source, deliveries));
    let mut source = fixture.source(&store).await;
    let again = receive(&mut source, 2).await;
    assert_eq!(ids(&again), dropped);
    settle(&mut source, &again, Outcome::Delivered).await;
}

/// Deliveries may be settled in any order, each on its own.
pub async fn settles_out_of_order(fixture: &dyn Fixture) {
    put(fixture, events("e", 20, 20)).await;
    let store = store();
    let mut source = fixture.source(&store).await;
    let mut deliveries = receive(&mut source, 20).await;
    deliveries.reverse();
    for delivery in &deliveries {
        settle(&mut source, std::slice::from_ref(delivery), Outcome::Delivered).await;
    }
    source.settle.checkpoint().await.unwrap();
    drop(source);
    let mut source = fixture.source(&store).await;
    let wait = fixture.visibility().unwrap_or_default() + Duration::from_millis(500);
    receives_nothing(&mut source, wait).await;
}

/// The sink refuses some events of a batch for good and others for now: those and only those are
/// parked or sent again.
pub async fn survives_partial_batch_failure(fixture: &dyn Fixture) {
    put(fixture, events("e", 30, 30)).await;
    let (throttled, _) = counter();
    let script = move |outgoing: &Outgoing| match &*outgoing.event.id {
        "e-3" => Err(Fault::reject("send", "refused", "never")),
        "e-4" if throttled.fetch_add(1, Ordering::SeqCst) == 0 => {
            Err(Fault::retry("send", "throttled", "not now"))
        }
        _ => Ok(()),
    };
    let source = fixture.source(&store()).await;
    let setup = Setup { script: Box::new(script), dead_letter: true, ..Setup::default() };
    let rig = Rig::start(source, setup);
    let arrived = rig.arrived(29).await;
    let arrived: BTreeSet<_> = arrived.iter().map(|e| e.id.to_string()).collect();
    assert!(!arrived.contains("e-3") && arrived.len() == 29, "{arrived:?}");
    rig.settled().await;
    let parked = crate::rig::decoded(&rig.parked).await;
    let record = parked[0].dead_letter.as_ref().unwrap();
    assert_eq!((&*parked[0].id, &*record.class), ("e-3", "refused"));
    assert_eq!(rig.sends().iter().filter(|count| **count == 2).count(), 1);
    assert_eq!(rig.sends().iter().filter(|count| **count == 1).count(), 29);
    rig.drain().await;
}

/// A sink slower than three leases gets each event once.
pub async fn extends_long_leases(fixture: &dyn Fixture) {
    let visibility = fixture.visibility().expect("a service with leases");
    put(fixture, events("e", 3, 3)).await;
    let source = fixture.source(&store()).await;
    let setup = Setup { slow: visibility * 3, ..Setup::default() };
    let rig = Rig::start(source, setup);
    rig.arrived(3).await;
    rig.settled().await;
    tokio::time::sleep(visibility + Duration::from_secs(1)).await;
    assert_eq!(rig.sends(), [1, 1, 1]);
    rig.drain().await;
}

/// Once settled, a lease is left alone: from the request that settles it on, no other names its
/// token, for two leases.
pub async fn stops_extending_when_settled(fixture: &dyn Fixture) {
    let visibility = fixture.visibility().expect("a service with leases");
    put(fixture, events("e", 1, 1)).await;
    let (source, asked) = watched(fixture.source(&store()).await);
    let (tries, tried) = counter();
    let script = move |_: &Outgoing| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Err(Fault::reject("send", "refused", "not this time")),
        _ => Ok(()),
    };
    // Without a dead letter, a refused event goes back to its source, and comes as a new delivery.
    let setup = Setup { script: Box::new(script), slow: visibility, ..Setup::default() };
    let rig = Rig::start(source, setup);
    rig.arrived(1).await;
    rig.settled().await;
    tokio::time::sleep(visibility * 2).await;
    assert_eq!(tried(), 2);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    let (mut settled, mut extended) = (BTreeSet::<Token>::new(), BTreeSet::<Token>::new());
    for asked in asked {
        match asked {
            Asked::Settle(tokens) => settled.extend(tokens),
            Asked::Extend(tokens) => {
                let late: Vec<_> = tokens.iter().filter(|token| settled.contains(*token)).collect();
                assert!(late.is_empty(), "extended after they were settled: {late:?}");
                extended.extend(tokens);
            }
        }
    }
    // Each was, before.
    assert_eq!((extended.len(), &extended), (2, &settled));
    rig.drain().await;
}

/// Connections that die, at rest and under load, delay and may repeat, and lose nothing.
pub async fn survives_reconnect(fixture: &dyn Fixture) {
    let source = fixture.source(&store()).await;
    let rig = Rig::start(source, Setup::default());
    put(fixture, events("a", 50, 10)).await;
    rig.arrived(50).await;
    fixture.cut().await;
    put(fixture, events("b", 50, 10)).await;
    fixture.cut().await;
    let complete = |messages: &[eventferry::source::memory::Message]| {
        let ids = messages.iter().filter_map(|message| message.message_id.clone());
        ids.collect::<BTreeSet<_>>().len() == 100
    };
    timeout(PATIENCE, rig.far.wait_until(complete)).await.expect("events are missing");
    rig.drain().await;
}

/// The checkpoint stays before the first unsettled event, whatever lies settled behind it.
pub async fn holds_the_checkpoint_at_a_gap(fixture: &dyn Fixture) {
    let one_key = |mut event: Event| {
        event.key = Some("one".into());
        event
    };
    put(fixture, events("e", 5, 0).into_iter().map(one_key).collect()).await;
    let store = store();
    let mut source = fixture.source(&store).await;
    let deliveries = receive(&mut source, 5).await;
    for settled in [0, 1, 3] {
        settle(&mut source, &deliveries[settled..=settled], Outcome::Delivered).await;
    }
    source.settle.checkpoint().await.unwrap();
    drop(source);
    let mut source = fixture.source(&store).await;
    let again = receive(&mut source, 3).await;
    assert_eq!(ids(&again), ["e-2", "e-3", "e-4"]);
    settle(&mut source, &again, Outcome::Delivered).await;
    source.settle.checkpoint().await.unwrap();
}

/// Events of a key arrive in order although some fail on the way; other keys overtake them.
pub async fn keeps_order_per_key(fixture: &dyn Fixture) {
    assert!(fixture.ordered());
    put(fixture, events("e", 60, 6)).await;
    let source = fixture.source(&store()).await;
    assert!(source.ordered);
    let mut failures = BTreeMap::new();
    let script = move |outgoing: &Outgoing| {
        let failed: &mut u32 = failures.entry(outgoing.event.id.clone()).or_default();
        let number: usize = outgoing.event.id[2..].parse().unwrap();
        if number.is_multiple_of(7) && *failed < 2 {
            *failed += 1;
            return Err(Fault::retry("send", "flaky", "not yet"));
        }
        Ok(())
    };
    let rig = Rig::start(source, Setup { script: Box::new(script), ..Setup::default() });
    let arrived = rig.arrived(60).await;
    for (key, numbers) in by_key(&arrived) {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        assert_eq!(numbers.len(), 10, "{key}");
    }
    rig.drain().await;
}

/// On a stop what is in flight finishes, and what is not received yet stays.
pub async fn drains_on_stop(fixture: &dyn Fixture) {
    put(fixture, events("a", 40, 40)).await;
    let store = store();
    let source = fixture.source(&store).await;
    let setup = Setup { slow: Duration::from_millis(300), ..Setup::default() };
    let rig = Rig::start(source, setup);
    let seen = rig.seen.clone();
    rig.far.wait_until(|messages| !messages.is_empty()).await;
    let far = rig.far.clone();
    rig.drain().await;
    assert!(seen.lock().unwrap().values().all(|count| *count == 1));
    let first: Vec<_> = far.contents().iter().filter_map(|m| m.message_id.clone()).collect();
    // Whatever the first run has not delivered, a second one does, and nothing twice.
    let rig = Rig::start(fixture.source(&store).await, Setup::default());
    put(fixture, events("b", 1, 1)).await;
    let rest = rig.arrived(41 - first.len()).await;
    let mut all: Vec<_> = first.iter().map(ToString::to_string).collect();
    all.extend(rest.iter().map(|event| event.id.to_string()));
    all.sort();
    let count = all.len();
    all.dedup();
    assert_eq!((all.len(), count), (41, 41), "something came twice or not at all");
    rig.drain().await;
}

/// A killed process loses nothing: what it had not settled comes again.
pub async fn loses_nothing_when_killed(fixture: &dyn Fixture) {
    put(fixture, events("e", 60, 12)).await;
    let store = store();
    let few = InFlight { events: 20, ..InFlight::default() };
    let setup = Setup { slow: Duration::from_millis(50), max_in_flight: few, ..Setup::default() };
    let rig = Rig::start(fixture.source(&store).await, setup);
    rig.far.wait_until(|messages| !messages.is_empty()).await;
    let far = rig.far.clone();
    rig.kill().await;
    let mut ids: BTreeSet<_> = far.contents().iter().filter_map(|m| m.message_id.clone()).collect();
    let rig = Rig::start(fixture.source(&store).await, Setup::default());
    let complete = |messages: &[eventferry::source::memory::Message]| {
        let second = messages.iter().filter_map(|message| message.message_id.clone());
        second.chain(ids.iter().cloned()).collect::<BTreeSet<_>>().len() == 60
    };
    timeout(PATIENCE, rig.far.wait_until(complete)).await.expect("events are missing");
    ids.extend(rig.far.contents().iter().filter_map(|m| m.message_id.clone()));
    assert_eq!(ids.len(), 60);
    rig.drain().await;
}

/// While the sink is down nothing is deleted or checkpointed, for longer than three leases; when it
/// is back everything arrives.
pub async fn settles_nothing_while_the_sink_is_down(fixture: &dyn Fixture) {
    put(fixture, events("e", 30, 6)).await;
    let store = store();
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let switch = down.clone();
    let script = move |_: &Outgoing| match switch.load(Ordering::SeqCst) {
        true => Err(Fault::busy("send", "unreachable", "connection refused")),
        false => Ok(()),
    };
    let setup = Setup { script: Box::new(script), dead_letter: true, ..Setup::default() };
    let rig = Rig::start(fixture.source(&store).await, setup);
    let tried = async {
        while rig.sends().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, tried).await.expect("the sink was never tried");
    let lease = fixture.visibility().unwrap_or(Duration::from_secs(1));
    tokio::time::sleep(lease * 3 + lease / 2).await;
    assert_eq!(rig.ended(), 0, "something was settled");
    assert_eq!(fixture.left(&store).await, 30, "something was deleted or checkpointed");
    assert!(rig.far.contents().is_empty() && rig.parked.contents().is_empty());
    down.store(false, Ordering::SeqCst);
    let complete = |messages: &[eventferry::source::memory::Message]| {
        let ids = messages.iter().filter_map(|message| message.message_id.clone());
        ids.collect::<BTreeSet<_>>().len() == 30
    };
    timeout(PATIENCE, rig.far.wait_until(complete)).await.expect("events are missing");
    rig.settled().await;
    assert!(rig.parked.contents().is_empty(), "an outage is no event's fault");
    rig.drain().await;
    assert_eq!(fixture.left(&store).await, 0, "what was delivered is still there");
}

/// The third of five events of a key fails; a restart begins with it, until it has been delivered
/// or parked. Partitions without such an event are through.
pub async fn holds_the_checkpoint_at_a_failed_event(fixture: &dyn Fixture) {
    const KEYS: [&str; 4] = ["one", "two", "three", "four"];
    let store = store();
    for is_parked in [true, false] {
        let of = |key: &str, number| Event {
            key: Some(key.into()),
            ..event(&format!("{key}-{number}"), "{}")
        };
        put(fixture, (0..5).flat_map(|number| KEYS.map(|key| of(key, number))).collect()).await;
        let script = |outgoing: &Outgoing| match &*outgoing.event.id {
            "one-2" => Err(Fault::busy("send", "unreachable", "not now")),
            _ => Ok(()),
        };
        let setup = Setup { script: Box::new(script), ..Setup::default() };
        let rig = Rig::start(fixture.source(&store).await, setup);
        rig.arrived(17).await;
        rig.drain_by_force().await;

        let mut source = fixture.source(&store).await;
        let mut again: Vec<Delivery> = Vec::new();
        // What must come, however long it takes; and a second in which nothing more does.
        loop {
            let has_come = ids(&again).iter().filter(|id| id.starts_with("one-")).count() >= 3;
            let wait = if has_come { Duration::from_secs(1) } else { PATIENCE };
            match timeout(wait, source.receive.receive()).await {
                Ok(Err(fault)) if matches!(fault.verdict, Verdict::Busy { .. }) => {}
                Ok(found) => again.extend(found.unwrap()),
                Err(_) => break,
            }
        }
        let ids = ids(&again);
        let of_key =
            |key: &str| -> Vec<_> { ids.iter().filter(|id| id.starts_with(key)).collect() };
        assert_eq!(of_key("one-"), ["one-2", "one-3", "one-4"], "not at the failed event");
        // Some may share its partition; not all do.
        assert!(KEYS.iter().any(|key| of_key(key).is_empty()), "{ids:?}");
        drop((source, again));

        let script = move |outgoing: &Outgoing| match &*outgoing.event.id {
            "one-2" if is_parked => Err(Fault::reject("send", "refused", "never")),
            _ => Ok(()),
        };
        let setup = Setup { script: Box::new(script), dead_letter: true, ..Setup::default() };
        let rig = Rig::start(fixture.source(&store).await, setup);
        let through = async {
            while fixture.left(&store).await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, through).await.expect("the checkpoint does not get past it");
        assert_eq!(rig.parked.contents().len(), usize::from(is_parked));
        rig.drain().await;
    }
}

/// What the sink refuses or cannot hold is parked with the producer's bytes and attributes and with
/// its cause; its neighbours arrive.
pub async fn parks_poison_and_lets_its_neighbours_pass(fixture: &dyn Fixture) {
    let noise: &[u8] = &[0xff, 0, 0xfe];
    // Of each its cause, and how often it was sent.
    let poison = [
        (event("base64", r#"{"data_base64": "AP8=!"}"#), "bad_base64", 1),
        (event("broken", "{\"unfinished\": "), "bad_json", 1),
        (event("large", format!("{{\"a\": \"{}\"}}", "a".repeat(20_000))), "too_large", 0),
        (Event { attributes: many_attributes(), ..event("noise", noise) }, "bad_json", 1),
    ];
    let mut all = events("e", 20, 5);
    for (number, (event, ..)) in poison.iter().enumerate() {
        all.insert(5 * number + 3, event.clone());
    }
    put(fixture, all).await;
    let script = |outgoing: &Outgoing| {
        let json = serde_json::from_slice::<serde_json::Value>(&outgoing.packed.body);
        let json = json.map_err(|error| Fault::reject("send", "bad_json", error))?;
        let data = BASE64.decode(json["data_base64"].as_str().unwrap_or_default());
        data.map(drop).map_err(|error| Fault::reject("send", "bad_base64", error))
    };
    let script = Box::new(script);
    let setup = Setup { script, dead_letter: true, limit: Some(1 << 14), ..Setup::default() };
    let rig = Rig::start(fixture.source(&store()).await, setup);
    rig.arrived(20).await;
    rig.settled().await;
    let mut parked = crate::rig::decoded(&rig.parked).await;
    parked.sort_by_key(|event| event.id.clone());
    assert_eq!(parked.len(), poison.len());
    for (parked, (original, class, attempts)) in parked.iter().zip(&poison) {
        let record = parked.dead_letter.as_ref().unwrap();
        assert_eq!((&parked.id, &parked.body), (&original.id, &original.body));
        assert_eq!(sorted(parked), sorted(original));
        assert_eq!((record.class.as_str(), record.attempts), (*class, *attempts));
        assert_eq!((record.route.as_deref(), record.sink.as_deref()), (Some("route"), Some("far")));
        assert!(!record.position.is_empty() && !record.resource.is_empty());
    }
    rig.drain().await;
}

/// Makes a test of each named behaviour against a fresh fixture: `contract!(fixture => a, b);`
/// where `fixture` is an async function that answers a [`Fixture`].
#[macro_export]
macro_rules! contract {
    ($fixture:path => $($behaviour:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                $crate::contract::$behaviour(&$fixture().await).await;
            }
        )+
    };
}
