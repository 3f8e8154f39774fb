//! A place at a service for one test, and what a test does there by hand: put, receive, settle.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use eventferry::{
    decode::{Format, decode},
    delivery::{Delivery, Outcome, Settled},
    event::Event,
    fault::Verdict,
    sink::{Outgoing, Sink},
    source::Source,
    state::StateStore,
};
use tokio::time::{Instant, timeout};

use crate::rig::PATIENCE;

/// A queue, topic or hub of its own at a service, for one test.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Connects a source. Sources that share a store are restarts of one another.
    async fn source(&self, store: &Arc<dyn StateStore>) -> Source;
    /// Connects a sink that writes to where the source reads.
    async fn sink(&self) -> Arc<dyn Sink>;
    /// How long a message stays hidden without an extension; `None` for a log.
    fn visibility(&self) -> Option<Duration>;
    /// The largest body that fits beside a small event's metadata.
    fn body_max(&self) -> usize;
    /// Whether the service keeps order per key.
    fn ordered(&self) -> bool;
    /// How many events there are yet, read or not, by the word of the service or the checkpoints.
    async fn left(&self, store: &Arc<dyn StateStore>) -> usize;
    /// Cuts every connection that is open now.
    async fn cut(&self) {}
    /// How many events of this id the service has, where answers are lost by the client: what is
    /// there and sent again would be two.
    fn copies(&self, _id: &str) -> usize {
        0
    }
}

/// Puts events where the source reads.
pub async fn put(fixture: &dyn Fixture, events: Vec<Event>) {
    let before: HashMap<Arc<str>, usize> =
        events.iter().map(|event| (event.id.clone(), fixture.copies(&event.id))).collect();
    let is_there = |id: &str| fixture.copies(id) > before[id];
    put_what_is_not_there(fixture.sink().await.as_ref(), events, is_there).await;
}

/// Puts events by a sink at hand.
pub async fn put_through(sink: &dyn Sink, events: Vec<Event>) {
    put_what_is_not_there(sink, events, |_| false).await;
}

async fn put_what_is_not_there(
    sink: &dyn Sink,
    events: Vec<Event>,
    is_there: impl Fn(&str) -> bool + Send + Sync,
) {
    let limits = sink.limits();
    let mut batch: Vec<Outgoing> = Vec::new();
    for event in events {
        let packed = sink.pack(&event).unwrap();
        let bytes: usize = batch.iter().map(|outgoing| outgoing.packed.bytes).sum();
        if batch.len() == limits.events || bytes + packed.bytes > limits.bytes {
            send(sink, std::mem::take(&mut batch), &is_there).await;
        }
        batch.push(Outgoing { route: "test".into(), event: Arc::new(event), packed });
    }
    send(sink, batch, &is_there).await;
}

/// Sends until everything is there: an emulator under load may be busy for a while, and the SDK for
/// event hubs misses an answer now and then.
async fn send(
    sink: &dyn Sink,
    mut batch: Vec<Outgoing>,
    is_there: &(impl Fn(&str) -> bool + Send + Sync),
) {
    let until = Instant::now() + PATIENCE;
    while !batch.is_empty() {
        let answers = sink.send(&batch).await;
        let failed = batch.into_iter().zip(answers).filter_map(|(outgoing, answer)| match answer {
            Err(fault)
                if Instant::now() < until && matches!(fault.verdict, Verdict::Busy { .. }) =>
            {
                (!is_there(&outgoing.event.id)).then_some(outgoing)
            }
            answer => {
                answer.unwrap();
                None
            }
        });
        batch = failed.collect();
    }
}

/// Receives until `count` deliveries are here.
pub async fn receive(source: &mut Source, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    let all = async {
        while deliveries.len() < count {
            match source.receive.receive().await {
                // An emulator under load; the pipeline would ask again, too.
                Err(fault) if matches!(fault.verdict, Verdict::Busy { .. }) => {}
                received => deliveries.extend(received.unwrap()),
            }
        }
    };
    if timeout(PATIENCE, all).await.is_err() {
        panic!("{} of {count} deliveries came", deliveries.len());
    }
    deliveries
}

/// Receives for a while and expects nothing.
pub async fn receives_nothing(source: &mut Source, wait: Duration) {
    let until = Instant::now() + wait;
    while let Ok(received) = tokio::time::timeout_at(until, source.receive.receive()).await {
        let bodies: Vec<_> = received.unwrap().iter().map(|d| d.received.body.clone()).collect();
        assert!(bodies.is_empty(), "received again: {bodies:?}");
    }
}

/// Settles all with one outcome, and expects the service to take it.
pub async fn settle(source: &mut Source, deliveries: &[Delivery], outcome: Outcome) {
    let done = deliveries.iter().map(|d| Settled { token: d.token.clone(), outcome }).collect();
    let failed = source.settle.settle(done).await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// The ids of events, sorted.
pub fn ids(deliveries: &[Delivery]) -> Vec<String> {
    let decoded = deliveries.iter().map(|d| decode(&d.received, Format::Auto).unwrap());
    let mut ids: Vec<String> = decoded.map(|event| event.id.to_string()).collect();
    ids.sort();
    ids
}
