//! Dead letters into the first of several sinks that works, on paused time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use eventferry::{
    event::Event,
    fault::{Fault, Verdict},
    metadata::Packed,
    route::Retry,
    sink::{Limits, Outgoing, Sink, memory::MemorySink},
    source::{
        Source,
        memory::{Config, Queue},
    },
};

use crate::rig::{self, Rig, Setup, events};

fn queue(kind: &str) -> Queue {
    let config = serde_json::json!({ "queue": "q", "kind": kind });
    Queue::new(&serde_json::from_value::<Config>(config).unwrap())
}

async fn near(kind: &str, count: usize, keys: usize) -> (Queue, Source) {
    let near = queue(kind);
    let sink = MemorySink::new(near.clone());
    crate::fixture::put_through(&sink, events("e", count, keys)).await;
    let source = near.source(&rig::context("near", &rig::store())).await.unwrap();
    (near, source)
}

/// A route whose sink refuses everything, and that parks in these.
fn parking_in(sinks: Vec<Arc<dyn Sink>>) -> Setup {
    let script = |_: &Outgoing| Err(Fault::reject("send", "refused", "never"));
    Setup { script: Box::new(script), park_in: sinks, ..Setup::default() }
}

fn scripted(
    queue: &Queue,
    script: impl FnMut(&Outgoing) -> Result<(), Fault> + Send + 'static,
) -> Arc<dyn Sink> {
    Arc::new(MemorySink::scripted(queue.clone(), Box::new(script)))
}

#[tokio::test(start_paused = true)]
async fn while_the_first_is_away_the_second_takes_dead_letters() {
    for kind in ["standard", "fifo"] {
        let (near, source) = near(kind, 20, 4).await;
        let (first, second) = (queue("standard"), queue("standard"));
        let away = Arc::new(AtomicBool::new(true));
        let is_away = away.clone();
        let unwell = scripted(&first, move |_| match is_away.load(Ordering::SeqCst) {
            true => Err(Fault::busy("send", "away", "not there")),
            false => Ok(()),
        });
        let well: Arc<dyn Sink> = Arc::new(MemorySink::new(second.clone()));
        let rig = Rig::start(source, parking_in(vec![unwell, well]));
        second.wait_until(|messages| messages.len() == 20).await;
        near.wait_until(<[_]>::is_empty).await;
        rig.settled().await;
        assert!(first.contents().is_empty());
        let parked = rig::decoded(&second).await;
        assert!(parked.iter().all(|e| e.dead_letter.as_ref().unwrap().class == "refused"));
        for numbers in rig::by_key(&parked).values() {
            assert!(kind != "fifo" || numbers.is_sorted(), "{numbers:?}");
        }
        // Once it is back, it is the first again.
        away.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(120)).await;
        let sink = MemorySink::new(near.clone());
        crate::fixture::put_through(&sink, events("f", 4, 0)).await;
        first.wait_until(|messages| messages.len() == 4).await;
        rig.settled().await;
        assert_eq!(second.contents().len(), 20);
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_first_refuses_or_cannot_hold_the_second_takes() {
    let refuse = |_: &Outgoing| Err(Fault::reject("send", "no", "never"));
    let small = MemorySink::new(queue("standard"));
    let limits = Limits { event_bytes: 1, ..small.limits() };
    let firsts: [Arc<dyn Sink>; 3] = [
        scripted(&queue("standard"), refuse),
        Arc::new(small.with_limits(limits)),
        // Refuses as if it might pass: that ends with its attempts.
        scripted(&queue("standard"), |_| Err(Fault::retry("send", "flaky", "not now"))),
    ];
    for first in firsts {
        let (near, source) = near("fifo", 10, 2).await;
        let second = queue("standard");
        let well = Arc::new(MemorySink::new(second.clone()));
        let rig = Rig::start(source, parking_in(vec![first, well]));
        second.wait_until(|messages| messages.len() == 10).await;
        near.wait_until(<[_]>::is_empty).await;
        assert_eq!(second.contents().len(), 10);
        rig.drain().await;
    }
}

/// One that has not taken it once is asked again, and not left for another that never takes it.
#[tokio::test(start_paused = true)]
async fn what_all_have_refused_is_offered_to_all_once_more() {
    for kind in ["standard", "fifo"] {
        let (near, source) = near(kind, 10, 2).await;
        let first = queue("standard");
        let mut failures = 60;
        let flaky = scripted(&first, move |_| {
            failures -= i32::from(failures > 0);
            match failures {
                0 => Ok(()),
                _ => Err(Fault::retry("send", "flaky", "not now")),
            }
        });
        let never =
            scripted(&queue("standard"), |_| Err(Fault::reject("send", "no", "too large for it")));
        let rig = Rig::start(source, parking_in(vec![flaky, never]));
        let parked = first.wait_until(|messages| messages.len() == 10);
        let parked = tokio::time::timeout(Duration::from_secs(24 * 3_600), parked).await;
        assert!(parked.is_ok(), "{kind}: {} of 10 are parked", first.contents().len());
        near.wait_until(<[_]>::is_empty).await;
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_refuses_waits_for_another_that_is_away_and_asks_no_more() {
    let (near, source) = near("standard", 10, 0).await;
    let first = queue("standard");
    let (away, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (is_away, asks) = (away.clone(), asked.clone());
    let unwell = scripted(&first, move |_| match is_away.load(Ordering::SeqCst) {
        true => Err(Fault::busy("send", "away", "not there")),
        false => Ok(()),
    });
    let never = scripted(&queue("standard"), move |_| {
        asks.fetch_add(1, Ordering::SeqCst);
        Err(Fault::reject("send", "no", "never"))
    });
    let rig = Rig::start(source, parking_in(vec![unwell, never]));
    tokio::time::sleep(Duration::from_secs(600)).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!((10..=20).contains(&asked), "{asked} times for ten events");
    away.store(false, Ordering::SeqCst);
    first.wait_until(|messages| messages.len() == 10).await;
    near.wait_until(<[_]>::is_empty).await;
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_takes_only_later_does_not_wait_for_another_that_stays_away() {
    // Not there, unwell, or left alone because somebody has asked for that.
    for verdict in [Some(Verdict::Stop), Some(Verdict::Busy { after: None }), None] {
        let (near, source) = near("fifo", 10, 0).await;
        let first = queue("standard");
        let asked = Arc::new(AtomicUsize::new(0));
        let (asks, since) = (asked.clone(), tokio::time::Instant::now());
        let unready = scripted(&first, move |_| {
            asks.fetch_add(1, Ordering::SeqCst);
            match since.elapsed() < Duration::from_secs(600) {
                true => Err(Fault::retry("send", "unready", "not now")),
                false => Ok(()),
            }
        });
        let gone = scripted(&queue("standard"), move |_| {
            Err(Fault::new(verdict.expect("it is left alone"), "send", "away", "not there"))
        });
        let setup = Setup { retry: Retry::default(), ..parking_in(vec![unready, gone]) };
        let rig = Rig::start(source, setup);
        if verdict.is_none() {
            rig.parking[1].hold();
        }
        let parked = first.wait_until(|messages| messages.len() == 10);
        let parked = tokio::time::timeout(Duration::from_secs(900), parked).await;
        parked.expect("it is asked again");
        near.wait_until(<[_]>::is_empty).await;
        let asked = asked.load(Ordering::SeqCst);
        // Each of them about every `backoff_max`, 30 s.
        assert!(asked < 500, "{verdict:?}: {asked} times for ten events");
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_all_refuse_is_offered_ever_more_seldom() {
    let (_near, source) = near("fifo", 1, 1).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let asks = asked.clone();
    let flaky = scripted(&queue("standard"), move |_| {
        asks.fetch_add(1, Ordering::SeqCst);
        Err(Fault::retry("send", "flaky", "not now"))
    });
    let never = scripted(&queue("standard"), |_| Err(Fault::reject("send", "no", "never")));
    let rig = Rig::start(source, parking_in(vec![flaky, never]));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let asked = asked.load(Ordering::SeqCst);
    // About every `backoff_max`, 30 s.
    assert!((60..=250).contains(&asked), "{asked} times in an hour");
    rig.drain_by_force().await;
}

/// A sink that has no room for a record.
struct Small(MemorySink);

#[async_trait]
impl Sink for Small {
    fn limits(&self) -> Limits {
        Limits { event_bytes: 500, ..self.0.limits() }
    }
    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        let packed = self.0.pack(event)?;
        let record = event.dead_letter.as_ref().map_or(0, |_| 1_000);
        Ok(Packed { bytes: packed.bytes + record, ..packed })
    }
    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        self.0.send(batch).await
    }
    async fn probe(&self) -> Result<(), Fault> {
        self.0.probe().await
    }
}

#[tokio::test(start_paused = true)]
async fn what_none_can_hold_with_its_record_stays_at_its_source() {
    let (near, source) = near("fifo", 3, 1).await;
    let (first, second) = (queue("standard"), queue("standard"));
    let small = |of: &Queue| -> Arc<dyn Sink> { Arc::new(Small(MemorySink::new(of.clone()))) };
    let rig = Rig::start(source, parking_in(vec![small(&first), small(&second)]));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(first.contents().is_empty() && second.contents().is_empty());
    assert_eq!(near.contents().len(), 3);
    rig.drain_by_force().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_can_hold_the_record_comes_before_one_that_cannot() {
    let (near, source) = near("standard", 3, 0).await;
    let (first, second) = (queue("standard"), queue("standard"));
    let small: Arc<dyn Sink> = Arc::new(Small(MemorySink::new(first.clone())));
    let rig =
        Rig::start(source, parking_in(vec![small, Arc::new(MemorySink::new(second.clone()))]));
    near.wait_until(<[_]>::is_empty).await;
    rig.drain().await;
    assert_eq!((first.contents().len(), second.contents().len()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn while_none_takes_it_an_event_stays_at_its_source() {
    let (near, source) = near("standard", 5, 0).await;
    let queues = [queue("standard"), queue("standard")];
    let away = Arc::new(AtomicBool::new(true));
    let sinks = queues.iter().map(|queue| {
        let is_away = away.clone();
        scripted(queue, move |_| match is_away.load(Ordering::SeqCst) {
            true => Err(Fault::busy("send", "away", "not there")),
            false => Ok(()),
        })
    });
    let rig = Rig::start(source, parking_in(sinks.collect()));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(near.contents().len(), 5);
    away.store(false, Ordering::SeqCst);
    near.wait_until(<[_]>::is_empty).await;
    rig.settled().await;
    let parked: usize = queues.iter().map(|queue| queue.contents().len()).sum();
    assert_eq!(parked, 5, "each of them once");
    rig.drain().await;
}
