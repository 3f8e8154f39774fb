//! Retry, dead letters, bounds and drain around a scripted sink, on paused time.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use eventferry::{
    config::units::{Size, Span},
    event::Event,
    fault::{Fault, Verdict},
    route::Retry,
    sink::{Outgoing, memory::MemorySink},
    source::{
        InFlight, Source,
        memory::{Config, Queue},
    },
};
use tokio::time::Instant;

use crate::{
    fixture::Fixture,
    rig::{self, Rig, Setup, by_key, counter, event, events},
};

struct Near(Queue);

#[async_trait::async_trait]
impl Fixture for Near {
    async fn source(&self, store: &Arc<dyn eventferry::state::StateStore>) -> Source {
        self.0.source(&rig::context("near", store)).await.unwrap()
    }
    async fn sink(&self) -> Arc<dyn eventferry::sink::Sink> {
        Arc::new(MemorySink::new(self.0.clone()))
    }
    fn visibility(&self) -> Option<Duration> {
        None
    }
    fn body_max(&self) -> usize {
        1 << 20
    }
    fn ordered(&self) -> bool {
        true
    }
    async fn left(&self, _: &Arc<dyn eventferry::state::StateStore>) -> usize {
        self.0.len()
    }
}

async fn near(kind: &str, events: Vec<Event>) -> (Near, Source) {
    let config = serde_json::json!({ "queue": "near", "kind": kind, "visibility": "30s" });
    let near = Near(Queue::new(&serde_json::from_value::<Config>(config).unwrap()));
    crate::fixture::put(&near, events).await;
    let source = near.source(&rig::store()).await;
    (near, source)
}

fn always(fault: fn() -> Fault) -> Setup {
    Setup { script: Box::new(move |_| Err(fault())), dead_letter: true, ..Setup::default() }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_for_good_is_parked_after_its_attempts() {
    let (_, source) = near("standard", events("e", 1, 0)).await;
    let rig = Rig::start(source, always(|| Fault::retry("send", "flaky", "not now")));
    rig.parked.wait_until(|messages| !messages.is_empty()).await;
    rig.settled().await;
    assert_eq!(rig.sends(), [3]);
    let parked = rig::decoded(&rig.parked).await;
    let record = parked[0].dead_letter.as_ref().unwrap();
    assert_eq!((record.attempts, record.class.as_str()), (3, "flaky"));
    assert_eq!(record.error, "send failed: not now");
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_event_is_parked_at_once() {
    let (_, source) = near("standard", events("e", 1, 0)).await;
    let rig = Rig::start(source, always(|| Fault::reject("send", "refused", "never")));
    rig.parked.wait_until(|messages| !messages.is_empty()).await;
    assert_eq!(rig.sends(), [1]);
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_ten_minutes_uses_up_no_attempts() {
    for kind in ["standard", "fifo", "log"] {
        let (near, source) = near(kind, events("e", 50, 5)).await;
        let back = Instant::now() + Duration::from_secs(600);
        let script = move |_: &Outgoing| match Instant::now() < back {
            true => Err(Fault::busy("send", "unreachable", "connection refused")),
            false => Ok(()),
        };
        let setup = Setup { script: Box::new(script), dead_letter: true, ..Setup::default() };
        let rig = Rig::start(source, setup);
        let stayed = near.0.contents().len();
        rig.far.wait_until(|messages| messages.len() >= 50).await;
        assert!(Instant::now() >= back && stayed == 50);
        rig.settled().await;
        assert!(rig.parked.contents().is_empty());
        let arrived = rig::decoded(&rig.far).await;
        let ids: BTreeSet<_> = arrived.iter().map(|event| event.id.clone()).collect();
        assert_eq!((ids.len(), arrived.len()), (50, 50), "{kind}");
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_hint_is_obeyed() {
    let (_, source) = near("standard", events("e", 1, 0)).await;
    let (tries, tried) = counter();
    let script = move |_: &Outgoing| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => {
            let after = Some(Duration::from_secs(42));
            Err(Fault::new(Verdict::Busy { after }, "send", "throttled", "slow down"))
        }
        _ => Ok(()),
    };
    let started = Instant::now();
    let rig = Rig::start(source, Setup { script: Box::new(script), ..Setup::default() });
    rig.arrived(1).await;
    assert!(started.elapsed() >= Duration::from_secs(42) && tried() == 2);
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_dead_letter_an_event_stays_at_its_source() {
    for kind in ["standard", "log"] {
        let (_, source) = near(kind, events("e", 2, 2)).await;
        let (refusals, refused) = counter();
        let script = move |outgoing: &Outgoing| {
            if &*outgoing.event.id == "e-0" && refusals.fetch_add(1, Ordering::SeqCst) < 4 {
                return Err(Fault::reject("send", "refused", "not yet"));
            }
            Ok(())
        };
        let rig = Rig::start(source, Setup { script: Box::new(script), ..Setup::default() });
        rig.arrived(2).await;
        assert_eq!(refused(), 5, "{kind}: four refusals and the delivery");
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_until_its_failed_event_is_parked_and_others_do_not() {
    let (_, source) = near("log", events("e", 40, 4)).await;
    let script = |outgoing: &Outgoing| match &*outgoing.event.id {
        "e-8" => Err(Fault::retry("send", "flaky", "never well")),
        _ => Ok(()),
    };
    let retry = Retry { attempts: 5, backoff: Span(Duration::from_secs(1)), ..rig::quick_retry() };
    let setup = Setup { script: Box::new(script), dead_letter: true, retry, ..Setup::default() };
    let rig = Rig::start(source, setup);
    let arrived = rig.arrived(39).await;
    for (key, numbers) in by_key(&arrived) {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        assert_eq!(numbers.len(), if key == "key-0" { 9 } else { 10 });
    }
    // The other keys are through before key-0, which waited for e-8.
    let last = arrived.iter().rev().take(7).map(|event| event.key.clone().unwrap());
    assert_eq!(last.collect::<BTreeSet<_>>(), ["key-0".into()].into());
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn intake_stops_at_its_bounds() {
    let bodies = (0..200).map(|n| event(&format!("e-{n}"), Bytes::from(vec![b'x'; 10_000])));
    let (_, source) = near("standard", bodies.collect()).await;
    let max_in_flight = InFlight { events: 1000, bytes: Size(500_000) };
    let mut setup = always(|| Fault::busy("send", "unreachable", "down"));
    setup.max_in_flight = max_in_flight;
    let rig = Rig::start(source, setup);
    tokio::time::sleep(Duration::from_secs(20)).await;
    // One batch of a hundred may come on top of the bound.
    assert!(rig.in_flight() <= 150, "{}", rig.in_flight());
    rig.drain_by_force().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_over_the_sinks_limit_is_parked_without_being_sent() {
    let (_, source) = near("standard", vec![event("big", vec![b'x'; (1 << 20) - 10])]).await;
    let setup = Setup { dead_letter: true, limit: Some(1 << 16), ..Setup::default() };
    let rig = Rig::start(source, setup);
    rig.parked.wait_until(|messages| !messages.is_empty()).await;
    let parked = rig::decoded(&rig.parked).await;
    assert_eq!(parked[0].dead_letter.as_ref().unwrap().class, "too_large");
    assert_eq!(parked[0].body.len(), (1 << 20) - 10);
    assert!(rig.sends().is_empty());
    rig.drain().await;
}

/// A rig whose first sink answers by this script, and the queue of the sink that stands in.
fn standing_in(
    script: impl FnMut(&Outgoing) -> Result<(), Fault> + Send + 'static,
) -> (Setup, Queue) {
    let config = serde_json::json!({ "queue": "other" });
    let other = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
    let stand_in: Arc<dyn eventferry::sink::Sink> = Arc::new(MemorySink::new(other.clone()));
    let setup = Setup {
        script: Box::new(script),
        dead_letter: true,
        stand_in: Some(stand_in),
        ..Setup::default()
    };
    (setup, other)
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_away_is_stood_in_for_until_it_is_back() {
    let (near, source) = near("standard", events("a", 20, 0)).await;
    let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_away = away.clone();
    let (setup, other) = standing_in(move |_| match is_away.load(Ordering::SeqCst) {
        true => Err(Fault::busy("send", "away", "not there")),
        false => Ok(()),
    });
    let rig = Rig::start(source, setup);
    other.wait_until(|messages| messages.len() == 20).await;
    rig.settled().await;
    assert!(rig.far.contents().is_empty());
    away.store(false, Ordering::SeqCst);
    // Longer than any pause of a sink that is left alone.
    tokio::time::sleep(Duration::from_secs(120)).await;
    crate::fixture::put(&near, events("b", 20, 0)).await;
    rig.arrived(20).await;
    rig.settled().await;
    assert_eq!((other.contents().len(), rig.parked.contents().len()), (20, 0));
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_sink_refuses_another_takes() {
    let (_, source) = near("fifo", events("e", 30, 3)).await;
    let (setup, other) = standing_in(|outgoing| match outgoing.event.id.ends_with('7') {
        true => Err(Fault::reject("send", "refused", "not this one")),
        false => Ok(()),
    });
    let rig = Rig::start(source, setup);
    rig.arrived(27).await;
    rig.settled().await;
    assert_eq!((other.contents().len(), rig.parked.contents().len()), (3, 0));
    for numbers in by_key(&rig::decoded(&rig.far).await).values() {
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_every_sink_refuses_is_parked_once() {
    let (_, source) = near("fifo", events("e", 10, 2)).await;
    let (mut setup, _) = standing_in(|_| Err(Fault::reject("send", "refused", "never")));
    let refusing = |_: &Outgoing| Err(Fault::reject("send", "refused", "never"));
    let config = serde_json::json!({ "queue": "none" });
    let none = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
    setup.stand_in = Some(Arc::new(MemorySink::scripted(none, Box::new(refusing))));
    let rig = Rig::start(source, setup);
    rig.parked.wait_until(|messages| messages.len() == 10).await;
    rig.settled().await;
    assert_eq!(rig.sends(), [1; 10]);
    rig.drain().await;
}
