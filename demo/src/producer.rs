//! An application that publishes: it stands at the other end of a source of the daemon.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use eventferry::{
    config::plan::Plan,
    event::Event,
    fault::Verdict,
    route::table::{Now, Planned, Send},
    sink::{Outgoing, Sink},
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use crate::tally::Tally;

/// Requests at once.
const IN_FLIGHT: usize = 4;
/// How often a batch is sent at most, and the wait between two tries.
const TRIES_MAX: u32 = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Publishes what one source of the daemon reads.
pub(crate) struct Producer {
    /// The topic or hub that the source reads.
    pub(crate) sink: Arc<dyn Sink>,
    /// Index of the source in the plan.
    pub(crate) source: usize,
    /// What the daemon has been told to do.
    pub(crate) plan: Arc<Plan>,
    /// Where to note which event shall arrive where.
    pub(crate) tally: Arc<Tally>,
}

impl Producer {
    /// Publishes, and notes beforehand where each event shall arrive.
    pub(crate) async fn publish(&self, events: Vec<Event>) -> Result<()> {
        events.iter().for_each(|event| self.expect(event));
        let sends = stream::iter(self.batches(events)?).map(|batch| self.send(batch));
        sends.buffer_unordered(IN_FLIGHT).try_collect().await
    }

    /// An event shall arrive at every sink that it is planned for, or in the route's dead letter
    /// if the sink cannot hold it.
    fn expect(&self, event: &Event) {
        let (routes, table) = self.plan.table(self.source);
        let mut planned = Vec::new();
        table.plan(&Arc::new(event.clone()), Now::now(), &mut planned);
        for planned in planned {
            let Planned::Send(Send { route, to, event, .. }) = planned else { continue };
            let fits = event.body.len() <= self.plan.sinks[to.index].config.nature().event_bytes;
            let dead_letter = self.plan.routes[routes[route]].dead_letter;
            let place = if fits { Some(to.index) } else { dead_letter };
            place.into_iter().for_each(|sink| {
                self.tally.expect(&self.plan.sinks[sink].name, &event.id);
            });
        }
    }

    fn batches(&self, events: Vec<Event>) -> Result<Vec<Vec<Outgoing>>> {
        let limits = self.sink.limits();
        let (mut batches, mut bytes) = (Vec::<Vec<Outgoing>>::new(), 0);
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
        Ok(batches)
    }

    async fn send(&self, mut batch: Vec<Outgoing>) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let answers = self.sink.send(&batch).await;
            let answered = batch.into_iter().zip(answers);
            let (failed, faults): (_, Vec<_>) =
                answered.filter_map(|(outgoing, answer)| Some((outgoing, answer.err()?))).unzip();
            batch = failed;
            match faults.into_iter().next() {
                None => return Ok(()),
                Some(fault) if fault.verdict == Verdict::Reject => return Err(fault.into()),
                Some(_) => sleep(TRY_AGAIN_AFTER).await,
            }
        }
        bail!("{} events could not be published in {TRIES_MAX} tries", batch.len())
    }
}
