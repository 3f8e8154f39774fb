//! What is counted when something goes wrong, as it comes about: those of the metrics that no other
//! test has moved by the code that moves them in the daemon.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use eventferry::{
    dedup::Key,
    delivery::{Delivery, Settled, Token},
    fault::Fault,
    source::{Extended, Receive, Settle, Source, memory::Queue},
    state::{DedupStore, Found, memory::MemoryKeys},
    telemetry::errors::Place,
};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    rig::{Rig, Setup, context, event, queue, store},
    world::put,
};

/// Does not answer so often.
struct Away<T>(T, u32);

impl<T> Away<T> {
    fn fault(&mut self) -> Option<Fault> {
        self.1 = self.1.checked_sub(1)?;
        Some(Fault::busy("test", "away", "nobody answers"))
    }
}

#[async_trait]
impl Receive for Away<Box<dyn Receive>> {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        match self.fault() {
            Some(fault) => Err(fault),
            None => self.0.receive().await,
        }
    }
}

#[async_trait]
impl Settle for Away<Box<dyn Settle>> {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        match self.fault() {
            Some(fault) => done.into_iter().map(|it| (it, fault.again())).collect(),
            None => self.0.settle(done).await,
        }
    }

    /// Has given the lease to somebody else.
    async fn extend(&mut self, open: &[Token], _: Duration) -> Extended {
        Extended { lost: open.to_vec(), ..Extended::default() }
    }
}

struct Keys(Mutex<Away<MemoryKeys>>);

#[async_trait]
impl DedupStore for Keys {
    async fn claim(&self, keys: &[Key]) -> Result<Vec<Found>, Fault> {
        let mut store = self.0.lock().await;
        match store.fault() {
            Some(fault) => Err(fault),
            None => store.0.claim(keys).await,
        }
    }

    async fn commit(&self, done: &[(Key, Duration)]) -> Result<(), Fault> {
        self.0.lock().await.0.commit(done).await
    }

    async fn release(&self, keys: &[Key]) -> Result<(), Fault> {
        self.0.lock().await.0.release(keys).await
    }

    /// Has given them to somebody else.
    async fn renew(&self, keys: &[Key]) -> Result<Vec<Key>, Fault> {
        Ok(keys.to_vec())
    }

    fn lease(&self) -> Option<Duration> {
        Some(Duration::from_secs(30))
    }
}

/// A source that fails to receive, and to settle, so often.
async fn source(near: &Queue, receives: u32, settles: u32) -> Source {
    let inner = near.source(&context("near", &store())).await.unwrap();
    Source {
        receive: Box::new(Away(inner.receive, receives)),
        settle: Box::new(Away(inner.settle, settles)),
        ..inner
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_and_what_comes_through_all_the_same() {
    let near = queue();
    put(&near, vec![event("first", "abc"), event("poison", "x")]).await;
    let setup = Setup {
        dead_letter: true,
        script: Box::new(|outgoing| match &*outgoing.event.id {
            "poison" => Err(Fault::reject("send", "refused", "never")),
            _ => Ok(()),
        }),
        ..Setup::default()
    };
    let rig = Rig::start(source(&near, 2, 3).await, setup);
    rig.arrived(1).await;
    rig.settled().await;
    assert_eq!(rig.counted("receive_failed_total{class=\"away\",source=\"near\"}"), 2.0);
    assert!(rig.counted("settle_failed_total{class=\"away\",source=\"near\"}") >= 3.0);
    let near = Place::Source { source: "near".into() };
    let of_source = rig.errors().into_iter().find(|error| error.place == near).unwrap();
    assert!(of_source.class == "away" && of_source.count >= 5, "{of_source:?}");
    let parked = "dead_lettered_total{class=\"refused\",route=\"route\",sink=\"far\"}";
    assert_eq!(rig.counted(parked), 1.0);
    assert_eq!(rig.counted("delivered_bytes_total{route=\"route\",sink=\"far\"}"), 3.0);
    assert_eq!(rig.shown("in_flight_bytes{source=\"near\"}"), Some(0.0));
    // Both together, and the dead letter.
    assert_eq!(rig.counted("send_batch_events_sum{sink=\"far\"}"), 2.0);
    assert_eq!(rig.counted("send_batch_events_sum{sink=\"parked\"}"), 1.0);
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_has_nowhere_to_go() {
    let near = queue();
    put(&near, vec![event("poison", "x")]).await;
    let refuses = |_: &_| Err(Fault::reject("send", "refused", "never"));
    let setup = Setup { script: Box::new(refuses), ..Setup::default() };
    let rig = Rig::start(source(&near, 0, 0).await, setup);
    let returned = "returned_total{class=\"refused\",route=\"route\",sink=\"far\"}";
    while rig.counted(returned) == 0.0 {
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(near.contents().len(), 1, "it stays at its source");
    rig.drain_by_force().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_has() {
    let near = queue();
    put(&near, vec![event("slow", "x")]).await;
    let setup = Setup { slow: Duration::from_secs(40), ..Setup::default() };
    let rig = Rig::start(source(&near, 0, 0).await, setup);
    sleep(Duration::from_secs(1)).await;
    assert!(rig.counted("in_flight_bytes{source=\"near\"}") > 1.0, "its body, and more");
    sleep(Duration::from_secs(13)).await;
    // Extended after half of its 30 s.
    assert_eq!(rig.counted("leases_lost_total{source=\"near\"}"), 0.0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rig.counted("leases_lost_total{source=\"near\"}"), 1.0);
    rig.drain_by_force().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_store_of_keys_knows_and_when_it_is_away() {
    let near = queue();
    put(&near, vec![event("first", "x")]).await;
    let keys = Arc::new(Keys(Mutex::new(Away(MemoryKeys::default(), 1))));
    let setup = Setup { dedup: Some(keys), slow: Duration::from_secs(1), ..Setup::default() };
    let rig = Rig::start(source(&near, 0, 0).await, setup);
    rig.arrived(1).await;
    assert!(rig.counted("dedup_store_failed_total{class=\"away\",op=\"claim\"}") >= 1.0);
    put(&near, vec![event("twin", "x"), event("twin", "x")]).await;
    rig.arrived(2).await;
    rig.settled().await;
    assert_eq!(rig.far.contents().len(), 2);
    assert_eq!(rig.counted("dedup_claims_lost_total"), 0.0);
    let of = |name: &str| rig.counted(&format!("{name}{{route=\"route\",sink=\"far\"}}"));
    assert_eq!(of("duplicates_total"), 1.0);
    assert!(of("dedup_waits_total") >= 1.0, "one of them waits for the other");
    rig.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_somebody_else_has() {
    let near = queue();
    put(&near, vec![event("slow", "x")]).await;
    let keys = Arc::new(Keys(Mutex::new(Away(MemoryKeys::default(), 0))));
    let setup = Setup { dedup: Some(keys), slow: Duration::from_secs(25), ..Setup::default() };
    let rig = Rig::start(source(&near, 0, 0).await, setup);
    while rig.counted("dedup_claims_lost_total") == 0.0 {
        sleep(Duration::from_secs(1)).await;
    }
    rig.drain_by_force().await;
}
