//! Limits, breakers and siblings around a scripted sink, on paused time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use eventferry::{
    config::{self, environment::Environment, units::Span},
    daemon,
    deliver::{
        breaker::BreakerConfig, bucket::LimitConfig, concurrency::ConcurrencyConfig,
        flow::FlowConfig,
    },
    event::Event,
    fault::{Fault, Verdict},
    route::Retry,
    sink::Outgoing,
    source::{
        InFlight, Source,
        memory::{Config, Queue},
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::{
    rig::{self, PATIENCE, Rig, Setup, by_key, event, events},
    world,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn near(kind: &str, events: Vec<Event>) -> (Queue, Source) {
    let config = serde_json::json!({ "queue": "near", "kind": kind, "visibility": "30s" });
    let near = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
    world::put(&near, events).await;
    let source = near.source(&rig::context("near", &rig::store())).await.unwrap();
    (near, source)
}

/// A switch, and a script of a sink that is out of reach until it is thrown.
fn away() -> (Arc<AtomicBool>, impl FnMut(&Outgoing) -> Result<(), Fault> + Send) {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = is_back.clone();
    let script = move |_: &Outgoing| match back.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(Fault::busy("send", "unreachable", "connection refused")),
    };
    (is_back, script)
}

#[tokio::test(start_paused = true)]
async fn an_hours_outage_uses_no_attempts_and_no_memory() {
    for kind in ["standard", "fifo", "log"] {
        let (near, source) = near(kind, events("e", 1200, 50)).await;
        let (is_back, script) = away();
        let max_in_flight = InFlight { events: 200, ..InFlight::default() };
        let retry = Retry { attempts: 1, ..rig::quick_retry() };
        let (script, dead_letter) = (Box::new(script), true);
        let setup = Setup { script, dead_letter, max_in_flight, retry, ..Setup::default() };
        let rig = Rig::start(source, setup);
        for _ in 0..60 {
            sleep(HOUR / 60).await;
            // One batch may come on top of the bound: a hundred of each partition.
            assert!(rig.in_flight() <= 600, "{kind}: {}", rig.in_flight());
        }
        assert_eq!(near.contents().len(), 1200, "{kind}: all is where it was");
        let asked: usize = rig.sends().iter().sum();
        assert!(asked < 1000, "{kind}: a sink that is away was asked for {asked} events");
        is_back.store(true, Ordering::SeqCst);
        let arrived = rig.arrived(1200).await;
        rig.settled().await;
        assert_eq!((arrived.len(), rig.parked.contents().len()), (1200, 0), "{kind}");
        if kind != "standard" {
            assert!(by_key(&arrived).values().all(|numbers| numbers.is_sorted()), "{kind}");
        }
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_away_does_not_hold_up_another() {
    let sibling = |n| Event { subject: Some("sibling".into()), ..event(&format!("s-{n}"), "{}") };
    // Those of the sink that is away come first, and are far more than may be in flight.
    let all = events("e", 1000, 0).into_iter().chain((0..1000).map(sibling)).collect();
    let (near, source) = near("standard", all).await;
    let (is_back, script) = away();
    let config = serde_json::json!({ "queue": "sibling" });
    let beside = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
    let max_in_flight = InFlight { events: 200, ..InFlight::default() };
    let setup = Setup {
        script: Box::new(script),
        dead_letter: true,
        max_in_flight,
        sibling: Some(beside.clone()),
        ..Setup::default()
    };
    let rig = Rig::start(source, setup);
    let began = Instant::now();
    timeout(PATIENCE, beside.wait_until(|messages| messages.len() == 1000)).await.unwrap();
    assert!(began.elapsed() < PATIENCE && rig.far.contents().is_empty());
    sleep(HOUR / 4).await;
    assert!(rig.in_flight() <= 300, "{}", rig.in_flight());
    assert_eq!(near.contents().len(), 1000);
    is_back.store(true, Ordering::SeqCst);
    // What has gone back is away for about as long as it has waited.
    timeout(HOUR, rig.far.wait_until(|messages| messages.len() == 1000)).await.unwrap();
    rig.settled().await;
    assert_eq!((beside.contents().len(), rig.parked.contents().len()), (1000, 0));
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_does_not_hold_up_another() {
    let sibling = |n| Event { subject: Some("sibling".into()), ..event(&format!("s-{n}"), "{}") };
    let mut all = events("e", 2000, 0);
    all.extend((0..2000).map(sibling));
    for kind in ["standard", "log"] {
        let (_, source) = near(kind, all.clone()).await;
        let config = serde_json::json!({ "queue": "sibling" });
        let beside = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
        // One request at a time, each of which takes ten minutes.
        let concurrency = ConcurrencyConfig { min: 1, max: Some(1) };
        let setup = Setup {
            slow: Duration::from_secs(600),
            flow: FlowConfig { concurrency, ..FlowConfig::default() },
            sibling: Some(beside.clone()),
            ..Setup::default()
        };
        let rig = Rig::start(source, setup);
        let through = beside.wait_until(|messages| messages.len() == 2000);
        timeout(PATIENCE, through).await.unwrap_or_else(|_| panic!("{kind}: it waits"));
        assert!(rig.far.contents().is_empty());
        rig.drain_by_force().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_poison_event_costs_its_attempts_and_no_more() {
    for kind in ["standard", "fifo", "log"] {
        let (_, source) = near(kind, events("e", 500, 20)).await;
        let asked: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let counts = asked.clone();
        let script = move |outgoing: &Outgoing| {
            let id = outgoing.event.id.to_string();
            *counts.lock().unwrap().entry(id.clone()).or_default() += 1;
            match id.ends_with("99") {
                true => Err(Fault::retry("send", "poison", "not this one")),
                false => Ok(()),
            }
        };
        let retry = Retry { attempts: 7, ..rig::quick_retry() };
        // One failure of the sink would be enough.
        let breaker = BreakerConfig { failures: 1, open: Span(HOUR), open_max: Span(HOUR) };
        let flow = FlowConfig { breaker, ..FlowConfig::default() };
        let (script, dead_letter) = (Box::new(script), true);
        let setup = Setup { script, dead_letter, retry, flow, ..Setup::default() };
        let began = Instant::now();
        let rig = Rig::start(source, setup);
        rig.arrived(495).await;
        rig.settled().await;
        assert!(began.elapsed() < Duration::from_secs(30), "{kind}: nothing was left alone");
        assert_eq!(rig.parked.contents().len(), 5, "{kind}");
        for (id, asked) in asked.lock().unwrap().iter() {
            assert_eq!(*asked, if id.ends_with("99") { 7 } else { 1 }, "{kind}: {id}");
        }
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_throttles_is_sent_less_and_gets_all() {
    let (_, source) = near("standard", events("e", 2000, 0)).await;
    // A bucket of its own: five events a second, and a wait for whoever asks for more.
    let (began, mut taken) = (Instant::now(), 0_u64);
    let script = move |_: &Outgoing| {
        if taken < 20 + began.elapsed().as_secs() * 20 {
            taken += 1;
            return Ok(());
        }
        let after = Some(Duration::from_secs(2));
        Err(Fault::new(Verdict::Busy { after }, "send", "throttled", "slow down"))
    };
    let (script, dead_letter) = (Box::new(script), true);
    let retry = Retry { attempts: 1, ..rig::quick_retry() };
    let rig = Rig::start(source, Setup { script, dead_letter, retry, ..Setup::default() });
    timeout(HOUR, rig.far.wait_until(|messages| messages.len() == 2000)).await.unwrap();
    rig.settled().await;
    assert!(rig.parked.contents().is_empty());
    // It cannot be faster than the service, and should not be much slower.
    let took = began.elapsed().as_secs();
    assert!((99..200).contains(&took), "{took} s");
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_bytes_is_kept_to() {
    let bodies = (0..100).map(|n| event(&format!("e-{n}"), vec![b'x'; 10_000]));
    let (_, source) = near("standard", bodies.collect()).await;
    let bytes_per_second = Some(eventferry::config::units::Size(50_000));
    let limit = LimitConfig { bytes_per_second, ..LimitConfig::default() };
    let flow = FlowConfig { limit, ..FlowConfig::default() };
    let began = Instant::now();
    let rig = Rig::start(source, Setup { flow, ..Setup::default() });
    rig.arrived(100).await;
    let took = began.elapsed().as_secs_f64();
    // A megabyte, of which one second's worth goes at once.
    assert!((18.0..22.0).contains(&took), "{took} s");
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn routes_and_sources_share_the_limit_of_a_sink() {
    let file = r#"
state: memory
admin: off
dead_letter: parked
sources:
  one: { memory: { queue: shared-limit-one } }
  two: { memory: { queue: shared-limit-two, kind: log } }
sinks:
  out: { memory: { queue: shared-limit-out }, limit: { events_per_second: 10 } }
  parked: { memory: { queue: shared-limit-parked } }
routes:
  - { name: a, from: one, to: { all: [out] } }
  - { name: b, from: [one, two], to: { all: [out] } }
"#;
    let plan = config::read("limit.yaml", file, &Environment::default()).unwrap().plan;
    let queue = |name: &str, kind| world::queue(&format!("shared-limit-{name}"), kind);
    world::put(&queue("one", "standard"), events("one", 100, 0)).await;
    world::put(&queue("two", "log"), events("two", 100, 4)).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let began = Instant::now();
    let daemon = tokio::spawn(daemon::run(plan, async {
        let _ = stopped.await;
    }));
    let out = queue("out", "standard");
    timeout(HOUR, out.wait_until(|messages| messages.len() == 300)).await.unwrap();
    let took = began.elapsed().as_secs_f64();
    // Three hundred, of which one second's worth goes at once.
    assert!((28.5..32.0).contains(&took), "{took} s");
    stop.send(()).unwrap();
    daemon.await.unwrap().unwrap();
    assert!(queue("parked", "standard").contents().is_empty());
}
