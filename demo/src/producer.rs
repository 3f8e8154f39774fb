//! The applications that publish: they stand at the other end of what the daemon reads.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use eventferry::{
    config::plan::Plan,
    event::Event,
    sink::{Outgoing, Sink},
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use crate::tally::Tally;

/// Requests at once.
const IN_FLIGHT: usize = 4;
/// How often an event is sent at most, and the wait between two tries.
const TRIES_MAX: u32 = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Publishes into what one source of the daemon reads.
pub struct Producer {
    sink: Arc<dyn Sink>,
    plan: Arc<Plan>,
    source: usize,
    tally: Arc<Tally>,
}

impl Producer {
    /// A producer for the source of this index.
    pub fn new(sink: Arc<dyn Sink>, plan: Arc<Plan>, source: usize, tally: Arc<Tally>) -> Self {
        Self { sink, plan, source, tally }
    }

    /// Publishes events that can be delivered, and notes at which sinks they shall arrive.
    pub async fn publish(&self, events: Vec<Event>) -> Result<()> {
        for event in &events {
            for route in self.routes_of(event) {
                route.to.iter().for_each(|sink| self.expect(*sink, event));
            }
        }
        self.send(events).await
    }

    /// Publishes an event that no sink of its routes can take.
    pub async fn publish_poisoned(&self, event: Event) -> Result<()> {
        for route in self.routes_of(&event) {
            route.dead_letter.iter().for_each(|sink| self.expect(*sink, &event));
        }
        self.send(vec![event]).await
    }

    fn routes_of(&self, event: &Event) -> impl Iterator<Item = &eventferry::config::plan::RoutePlan> {
        let routes = self.plan.routes.iter();
        routes.filter(|route| route.from.contains(&self.source) && route.accepts(event))
    }

    fn expect(&self, sink: usize, event: &Event) {
        self.tally.expect(&self.plan.sinks[sink].name, &event.id);
    }

    async fn send(&self, events: Vec<Event>) -> Result<()> {
        let limits = self.sink.limits();
        let mut batches: Vec<Vec<Outgoing>> = Vec::new();
        let mut bytes = 0;
        for event in events {
            let outgoing = Outgoing { packed: self.sink.pack(&event)?, event: Arc::new(event) };
            bytes += outgoing.packed.bytes;
            match batches.last_mut() {
                Some(batch) if batch.len() < limits.events && bytes <= limits.bytes => {
                    batch.push(outgoing);
                }
                _ => {
                    bytes = outgoing.packed.bytes;
                    batches.push(vec![outgoing]);
                }
            }
        }
        let sends = stream::iter(batches).map(|batch| self.send_batch(batch));
        sends.buffer_unordered(IN_FLIGHT).try_collect().await
    }

    async fn send_batch(&self, mut batch: Vec<Outgoing>) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let answers = self.sink.send(&batch).await;
            let sent = batch.into_iter().zip(answers);
            let (failed, faults): (_, Vec<_>) =
                sent.filter_map(|(outgoing, answer)| Some((outgoing, answer.err()?))).unzip();
            batch = failed;
            match faults.into_iter().next() {
                None => return Ok(()),
                Some(fault) if fault.verdict == eventferry::fault::Verdict::Reject => {
                    return Err(fault.into());
                }
                Some(_) => sleep(TRY_AGAIN_AFTER).await,
            }
        }
        bail!("{} events could not be published in {TRIES_MAX} tries", batch.len())
    }
}
