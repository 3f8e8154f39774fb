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

/// The way of one partition's events into the pipeline.
pub(super) struct Lane {
    hub: Hub,
    group: String,
    partition: Arc<str>,
    source: Arc<str>,
    resource: Arc<str>,
    prefetch: Prefetch,
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
    pub(super) fn new(hub: Hub, group: &str, partition: Arc<str>, prefetch: Prefetch) -> Self {
        let resource = format!("eventhubs://{}/{}", hub.endpoint().host(), hub.name()).into();
        let state = State::Down(Position::Earliest, ErrorKind::Detached);
        let (group, source) = (group.to_owned(), "".into());
        Self { hub, group, partition, source, resource, prefetch, state, last: None }
    }

    /// For logs and origins: the source in the configuration.
    pub(super) fn named(self, source: Arc<str>) -> Self {
        Self { source, ..self }
    }

    /// With its receiver, which was opened after event `last`.
    pub(super) fn with(self, receiver: Receiver, last: Option<i64>) -> Self {
        Self { state: State::Open(Box::new(receiver)), last, ..self }
    }

    pub(super) fn partition(&self) -> Arc<str> {
        self.partition.clone()
    }

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

    /// Waits for events. A receiver that has ended for good is opened anew after a while.
    pub(super) async fn poll(mut self) -> Polled {
        let result = match &mut self.state {
            State::Open(receiver) => receiver.receive(BATCH, POLL).await,
            State::Down(position, why) => {
                let (position, why) = (position.clone(), *why);
                tokio::time::sleep(REOPEN).await;
                self.reopen(position, why).await
            }
        };
        match &result {
            Ok(events) => self.check_gap(events),
            Err(error) => self.note(error),
        }
        (self, result)
    }

    async fn reopen(
        &mut self,
        position: Position,
        why: ErrorKind,
    ) -> Result<Vec<ReceivedEvent>, Error> {
        if why == ErrorKind::Stolen {
            // Taking it back from a living owner would only make the two trade it for ever.
            let mut probe = self.hub.receiver(self.options(position.clone(), None)).await?;
            probe.receive(1, UNCLAIMED).await?;
            probe.close().await;
        }
        let receiver = self.open(position).await?;
        tracing::info!(source = %self.source, partition = %self.partition, "partition open again");
        self.state = State::Open(Box::new(receiver));
        Ok(Vec::new())
    }

    /// Says what is wrong; a receiver that has ended gives its place up.
    fn note(&mut self, error: &Error) {
        if error.is_transient() {
            tracing::warn!(source = %self.source, partition = %self.partition, %error,
                "partition interrupted, resuming");
            return;
        }
        tracing::error!(source = %self.source, partition = %self.partition, %error,
            "partition cannot be read, will try again");
        let position = match &self.state {
            State::Open(receiver) => receiver.position(),
            State::Down(position, _) => position.clone(),
        };
        self.state = State::Down(position, error.kind());
    }

    /// Says when events between the last one and the next are gone: the hub no longer keeps them.
    fn check_gap(&mut self, events: &[ReceivedEvent]) {
        let [first, .., newest] = events else {
            if let [only] = events {
                self.gap_before(only.sequence_number);
                self.last = Some(only.sequence_number);
            }
            return;
        };
        self.gap_before(first.sequence_number);
        self.last = Some(newest.sequence_number);
    }

    fn gap_before(&self, sequence: i64) {
        if let Some(last) = self.last
            && sequence > last + 1
        {
            tracing::error!(source = %self.source, partition = %self.partition,
                after = last, next = sequence, missing = sequence - last - 1,
                "gap: events were gone from the hub before they were read");
        }
    }

    /// An event in the pipeline's terms, with its place in the log.
    pub(super) fn received(&self, event: ReceivedEvent) -> (i64, String, Received) {
        message::received(event, &self.source, &self.resource, &self.partition)
    }
}
