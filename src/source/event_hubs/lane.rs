//! One partition: its receiver, and what happens when that cannot go on.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use eventhubs::{
    client::{Error, ErrorKind, Hub, ReceivedEvent, Receiver, ReceiverOptions},
    filter::Position,
};

use super::{POLL, message};
use crate::{
    cloud::event_hubs::fault,
    delivery::Received,
    fault::{Fault, Verdict},
    source::{InFlight, log::Log},
    telemetry::SourceMetrics,
};

/// Events that one poll hands to the pipeline at most.
pub(super) const BATCH: usize = 500;
/// How long a partition that cannot be read is left alone before the next try. Long, because it
/// ended with an answer and not for want of one: somebody else has it, or somebody must mend it.
const REOPEN: Duration = Duration::from_secs(5);
/// How long a receiver without an epoch must hold before nobody else has the partition: one that
/// somebody else has is refused right after it is attached.
const UNCLAIMED: Duration = Duration::from_secs(2);
/// Of all receivers: the newest one has the partition.
const EPOCH: i64 = 0;

/// What one poll answers: the lane, to be polled again, and what came.
pub(super) type Polled = (Lane, Result<Vec<ReceivedEvent>, Fault>);

/// How much one partition may send ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefetch {
    events: u32,
    bytes: usize,
}

impl Prefetch {
    pub(super) fn per_partition(all: InFlight, partitions: usize) -> Self {
        let events = u32::try_from(all.events / partitions).unwrap_or(u32::MAX).max(1);
        Self { events, bytes: all.bytes.0 / partitions }
    }
}

/// One partition of a hub, and how it is read.
pub(super) struct Place {
    pub(super) hub: Hub,
    /// When the hub was made.
    pub(super) created: SystemTime,
    /// The hub as a URI, for origins.
    pub(super) resource: Arc<str>,
    pub(super) group: String,
    pub(super) partition: Arc<str>,
    /// Name of the source in the configuration, for logs and origins.
    pub(super) source: Arc<str>,
    pub(super) prefetch: Prefetch,
    pub(super) log: Arc<Log>,
    pub(super) metrics: SourceMetrics,
}

impl Place {
    /// A receiver that has the partition for itself.
    pub(super) async fn open(&self, position: Position) -> Result<Receiver, Error> {
        self.hub.receiver(self.options(position, Some(EPOCH))).await
    }

    fn options(&self, start: Position, epoch: Option<i64>) -> ReceiverOptions {
        ReceiverOptions {
            consumer_group: self.group.clone(),
            epoch,
            credit_events: self.prefetch.events,
            credit_bytes: self.prefetch.bytes,
            name: format!("eventferry-{}", self.source),
            ..ReceiverOptions::new(&*self.partition, start)
        }
    }

    /// Opens the partition again after its receiver has ended.
    async fn reopen(&self, position: Position, was_stolen: bool) -> Result<Receiver, Fault> {
        let failed = |error| fault("open partition", error);
        let hub = self.hub.properties().await.map_err(failed)?;
        if hub.created_at != self.created {
            // What of the old hub is still on its way would be taken for events of this one.
            return Err(remade());
        }
        if was_stolen {
            // Taking it back from a living owner would only make the two trade it for ever.
            let probe = self.hub.receiver(self.options(position.clone(), None)).await;
            let mut probe = probe.map_err(failed)?;
            probe.receive(1, UNCLAIMED).await.map_err(failed)?;
            probe.close().await;
        }
        self.open(position).await.map_err(failed)
    }
}

pub(super) const HUB_RECREATED: &str = "hub_recreated";

/// The hub is not the one that was opened.
pub(super) fn remade() -> Fault {
    let cause = "the hub was made again while it was read: restart to go on with it";
    Fault::stop("open partition", HUB_RECREATED, cause)
}

/// The way of one partition's events into the pipeline.
pub(super) struct Lane {
    place: Arc<Place>,
    state: State,
    /// The last event before the next one: none where the service decides where to start.
    last: Option<i64>,
}

enum State {
    Open(Box<Receiver>),
    Down {
        /// Where to open it again.
        position: Position,
        was_stolen: bool,
    },
}

impl Lane {
    /// With its receiver, which was opened after event `last`.
    pub(super) fn new(place: Place, receiver: Receiver, last: Option<i64>) -> Self {
        Self { place: Arc::new(place), state: State::Open(Box::new(receiver)), last }
    }

    pub(super) fn partition(&self) -> Arc<str> {
        self.place.partition.clone()
    }

    /// Waits for events. A receiver that has ended for good is opened anew after a while.
    pub(super) async fn poll(mut self) -> Polled {
        self.place.log.room(&self.place.partition).await;
        let result = match &mut self.state {
            State::Open(receiver) => match receiver.receive(BATCH, POLL).await {
                Ok(events) => Ok(events),
                Err(error) => {
                    if !error.is_transient() {
                        let was_stolen = error.kind() == ErrorKind::Stolen;
                        self.state = State::Down { position: receiver.position(), was_stolen };
                    }
                    Err(fault("receive", error))
                }
            },
            State::Down { position, was_stolen } => {
                tokio::time::sleep(REOPEN).await;
                let reopened = self.place.clone().reopen(position.clone(), *was_stolen).await;
                reopened.map(|receiver| {
                    let Place { source, partition, .. } = &*self.place;
                    tracing::info!(%source, %partition, "partition open again");
                    self.state = State::Open(Box::new(receiver));
                    Vec::new()
                })
            }
        };
        match &result {
            Ok(events) => self.check_gaps(events),
            Err(fault) => self.report(fault),
        }
        (self, result)
    }

    fn report(&self, fault: &Fault) {
        let Place { source, partition, .. } = &*self.place;
        if matches!(fault.verdict, Verdict::Busy { .. }) {
            tracing::warn!(%source, %partition, %fault, "partition interrupted, resuming");
        } else {
            tracing::error!(%source, %partition, %fault, "partition cannot be read, will try again");
        }
    }

    /// Says when events between the last one and the next are gone: the hub no longer keeps them.
    fn check_gaps(&mut self, events: &[ReceivedEvent]) {
        for event in events {
            let next = event.sequence_number;
            let missing = self.last.map_or(0, |last| next - last - 1);
            if missing > 0 {
                let Place { source, partition, .. } = &*self.place;
                self.place.metrics.gap(partition, u64::try_from(missing).unwrap_or_default());
                tracing::error!(%source, %partition, after = self.last, next, missing,
                    "gap: events were gone from the hub before they were read");
            }
            self.last = Some(next);
        }
    }

    /// An event in the pipeline's terms, with its place in the log.
    pub(super) fn received(&self, event: ReceivedEvent) -> (i64, String, Received) {
        message::received(event, &self.place.source, &self.place.resource, &self.place.partition)
    }
}
