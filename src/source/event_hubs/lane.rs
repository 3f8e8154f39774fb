//! One partition: its receiver, and what happens when that cannot go on.

use std::{sync::Arc, time::Duration};

use eventhubs::{
    client::{Error, ErrorKind, Hub, ReceivedEvent, Receiver, ReceiverOptions},
    filter::Position,
};

use super::{POLL, message};
use crate::{delivery::Received, source::InFlight};

/// Events that one poll hands to the pipeline at most.
const BATCH: usize = 500;
/// How long a partition that cannot be read is left alone before the next try. Long, because it
/// ended with an answer and not for want of one: somebody else has it, or somebody must mend it.
const REOPEN: Duration = Duration::from_secs(15);
/// How long a receiver without an epoch must hold before nobody else has the partition: one that
/// somebody else has is refused right after it is attached.
const UNCLAIMED: Duration = Duration::from_secs(2);
/// Of all receivers: the newest one has the partition.
const EPOCH: i64 = 0;

/// What one poll answers: the lane, to be polled again, and what came.
pub(super) type Polled = (Lane, Result<Vec<ReceivedEvent>, Error>);

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
    pub(super) group: String,
    pub(super) partition: Arc<str>,
    /// Name of the source in the configuration, for logs and origins.
    pub(super) source: Arc<str>,
    pub(super) prefetch: Prefetch,
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

    /// Opens the partition again after its receiver ended because of `why`.
    async fn reopen(&self, position: Position, why: ErrorKind) -> Result<Receiver, Error> {
        if why == ErrorKind::Stolen {
            // Taking it back from a living owner would only make the two trade it for ever.
            let mut probe = self.hub.receiver(self.options(position.clone(), None)).await?;
            probe.receive(1, UNCLAIMED).await?;
            probe.close().await;
        }
        self.open(position).await
    }
}

/// The way of one partition's events into the pipeline.
pub(super) struct Lane {
    place: Arc<Place>,
    resource: Arc<str>,
    state: State,
    /// The last event before the next one: none where the service decides where to start.
    last: Option<i64>,
}

enum State {
    Open(Box<Receiver>),
    /// To be opened again at this position, and why it is not open.
    Down(Position, ErrorKind),
}

impl Lane {
    /// With its receiver, which was opened after event `last`.
    pub(super) fn new(place: Place, receiver: Receiver, last: Option<i64>) -> Self {
        let resource = format!("eventhubs://{}/{}", place.hub.endpoint().host(), place.hub.name());
        let state = State::Open(Box::new(receiver));
        Self { place: Arc::new(place), resource: resource.into(), state, last }
    }

    pub(super) fn partition(&self) -> Arc<str> {
        self.place.partition.clone()
    }

    /// Waits for events. A receiver that has ended for good is opened anew after a while.
    pub(super) async fn poll(mut self) -> Polled {
        let result = match &mut self.state {
            State::Open(receiver) => receiver.receive(BATCH, POLL).await,
            State::Down(position, why) => {
                let (position, why) = (position.clone(), *why);
                tokio::time::sleep(REOPEN).await;
                let opened = self.place.reopen(position, why).await;
                opened.map(|receiver| {
                    self.state = State::Open(Box::new(receiver));
                    Vec::new()
                })
            }
        };
        match &result {
            Ok(events) => self.check_gaps(events),
            Err(error) => self.note(error),
        }
        (self, result)
    }

    /// Says what is wrong; a receiver that has ended gives its place up.
    fn note(&mut self, error: &Error) {
        if error.is_transient() {
            tracing::warn!(source = %self.place.source, partition = %self.place.partition, %error,
                "partition interrupted, resuming");
            return;
        }
        tracing::error!(source = %self.place.source, partition = %self.place.partition, %error,
            "partition cannot be read, will try again");
        let position = match &self.state {
            State::Open(receiver) => receiver.position(),
            State::Down(position, _) => position.clone(),
        };
        self.state = State::Down(position, error.kind());
    }

    /// Says when events between the last one and the next are gone: the hub no longer keeps them.
    fn check_gaps(&mut self, events: &[ReceivedEvent]) {
        for event in events {
            let next = event.sequence_number;
            let missing = self.last.map_or(0, |last| next - last - 1);
            if missing > 0 {
                tracing::error!(source = %self.place.source, partition = %self.place.partition,
                    after = self.last, next, missing,
                    "gap: events were gone from the hub before they were read");
            }
            self.last = Some(next);
        }
    }

    /// An event in the pipeline's terms, with its place in the log.
    pub(super) fn received(&self, event: ReceivedEvent) -> (i64, String, Received) {
        message::received(event, &self.place.source, &self.resource, &self.place.partition)
    }
}
