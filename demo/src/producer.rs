//! An application that publishes: it stands at the other end of a source of the daemon.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use eventferry::{
    config::plan::{Named, Plan, Unmatched},
    event::Event,
    fault::Verdict,
    route::table::{Now, Planned, Send, Table},
    sink::{Outgoing, Sink},
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::sleep;

use crate::{outlets::Outlets, tally::Tally};

/// Requests at once.
const IN_FLIGHT: usize = 4;
/// How often a batch is sent at most, and the wait between two tries.
const TRIES_MAX: u32 = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Publishes what one source of the daemon reads.
pub(crate) struct Producer {
    /// The topic or hub that the source reads.
    sink: Arc<dyn Sink>,
    /// What the daemon has been told to do.
    plan: Arc<Plan>,
    /// What it does with what this source reads, and the places of these routes in the plan.
    table: Table<Named>,
    routes: Vec<usize>,
    outlets: Arc<Outlets>,
    /// Where to note which event shall arrive where.
    tally: Arc<Tally>,
}

impl Producer {
    /// Publishes with `sink` what the source of this index reads.
    pub(crate) fn new(
        sink: Arc<dyn Sink>,
        source: usize,
        plan: Arc<Plan>,
        outlets: Arc<Outlets>,
        tally: Arc<Tally>,
    ) -> Self {
        let (routes, table) = plan.table(source);
        Self { sink, plan, table, routes, outlets, tally }
    }

    /// Publishes, and notes beforehand where each event shall arrive.
    pub(crate) async fn publish(&self, events: Vec<Event>) -> Result<()> {
        events.iter().for_each(|event| self.expect(event));
        let sends = stream::iter(self.batches(events)?).map(|batch| self.send(batch));
        sends.buffer_unordered(IN_FLIGHT).try_collect().await
    }

    /// An event shall arrive at every sink that it is planned for, or in the dead letter if the
    /// sink cannot hold it, a step cannot pass it, or no route takes it.
    fn expect(&self, event: &Event) {
        let mut planned = Vec::new();
        self.table.plan(&Arc::new(event.clone()), Now::read(), &mut planned);
        let parks =
            |route: usize| self.plan.routes[self.routes[route]].dead_letters.first().copied();
        if planned.is_empty() && self.plan.unmatched == Unmatched::DeadLetter {
            self.expect_at(self.plan.dead_letters.first().copied(), event);
        }
        for planned in planned {
            match planned {
                Planned::Send(Send { route, to, event, .. }) => {
                    let fits = event.body.len() <= self.event_bytes(to.index);
                    self.expect_at(if fits { Some(to.index) } else { parks(route) }, &event);
                }
                Planned::Fail { route, .. } => {
                    self.expect_at(parks(route), event);
                    for (sink, _) in &self.plan.routes[self.routes[route]].sinks {
                        self.tally.may_arrive(self.outlets.at(*sink), &event.id);
                    }
                }
                Planned::Filter { .. } => {}
            }
        }
    }

    fn expect_at(&self, sink: Option<usize>, event: &Event) {
        if let Some(sink) = sink {
            self.tally.expect(self.outlets.at(sink), &event.id);
        }
    }

    fn event_bytes(&self, sink: usize) -> usize {
        self.plan.sinks[sink].config.nature().event_bytes
    }

    fn batches(&self, events: Vec<Event>) -> Result<Vec<Vec<Outgoing>>> {
        let limits = self.sink.limits();
        let (mut batches, mut bytes) = (Vec::<Vec<Outgoing>>::new(), 0);
        for event in events {
            let outgoing = Outgoing {
                route: "demo".into(),
                packed: self.sink.pack(&event)?,
                event: Arc::new(event),
            };
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
