//! One partition: its receiver, and what happens when that cannot go on.

use std::{sync::Arc, time::Duration};

use eventhubs::{
    client::{ErrorKind, ReceivedEvent},
    filter::Position,
};

use super::{POLL, message, site::Site};
use crate::{
    cloud::event_hubs::{fault, transport::Receiver},
    deliver::backoff::Backoff,
    delivery::{Received, Tenure},
    fault::{Fault, Verdict},
    source::InFlight,
};

/// Events that one poll hands to the pipeline at most.
pub(super) const BATCH: usize = 500;
/// How long a partition that cannot be read is left alone before the next try. Long, because it
/// ended with an answer and not for want of one: somebody else has it, or somebody must mend it.
const REOPEN: Duration = Duration::from_secs(5);

/// What one poll answers: the lane, to be polled again unless it has ended, and what came.
pub(super) type Polled = (Lane, Came);

/// What came of a poll.
pub(super) enum Came {
    /// These.
    Events(Vec<ReceivedEvent>),
    /// Nothing, for now.
    Trouble(Fault),
    /// Another reader of the consumer group has taken the partition.
    Stolen(Fault),
    /// The partition is not ours any more. The lane has ended.
    Over,
}

/// How much one partition may send ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefetch {
    pub(super) events: u32,
    pub(super) bytes: usize,
}

impl Prefetch {
    pub(super) fn per_partition(all: InFlight, partitions: usize) -> Self {
        let events = u32::try_from(all.events / partitions).unwrap_or(u32::MAX).max(1);
        Self { events, bytes: all.bytes.0 / partitions }
    }
}

/// A partition, and on what terms it is read.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) partition: Arc<str>,
    /// Of all receivers, the newest of those with the highest epoch has the partition.
    pub(super) epoch: i64,
    pub(super) prefetch: Prefetch,
}

pub(super) const HUB_RECREATED: &str = "hub_recreated";

/// The hub is not the one that was opened.
pub(super) fn remade() -> Fault {
    let cause = "the hub was made again while it was read: restart to go on with it";
    Fault::stop("open partition", HUB_RECREATED, cause)
}

/// The way of one partition's events into the pipeline, for one tenure.
pub(super) struct Lane {
    site: Arc<Site>,
    place: Place,
    tenure: Tenure,
    state: State,
    /// The last event before the next one: none where the service decides where to start.
    last: Option<i64>,
    /// Failures in a row.
    failures: u32,
    /// Why it is not read at the moment.
    broken: Option<&'static str>,
}

enum State {
    Open(Box<dyn Receiver>),
    /// Its receiver has ended. The next one goes on from here.
    Down {
        position: Position,
        after: Duration,
    },
    /// To be opened at its checkpoint.
    Shut {
        after: Duration,
        was_stolen: bool,
    },
}

impl Lane {
    /// Of a partition that is to be opened, with a tenure that begins now.
    pub(super) fn new(site: &Arc<Site>, place: Place, tenure: Tenure) -> Self {
        Self {
            site: site.clone(),
            place,
            tenure,
            state: State::Shut { after: Duration::ZERO, was_stolen: false },
            last: None,
            failures: 0,
            broken: None,
        }
    }

    /// Of one that somebody has taken, who may still have it: opened when nobody has it. Taking it
    /// back from a living reader would only make the two trade it for ever.
    #[must_use]
    pub(super) fn when_nobody_has_it(self) -> Self {
        Self { state: State::Shut { after: REOPEN, was_stolen: true }, ..self }
    }

    /// The same partition for another tenure.
    pub(super) fn again(&self) -> Self {
        Self::new(&self.site, self.place.clone(), Tenure::begin())
    }

    pub(super) fn partition(&self) -> Arc<str> {
        self.place.partition.clone()
    }

    pub(super) fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    /// Opens it, at once.
    pub(super) async fn open(mut self) -> Result<Self, Fault> {
        let (receiver, last) = self.site.open(&self.place, &self.tenure).await?;
        (self.state, self.last) = (State::Open(receiver), last);
        Ok(self)
    }

    /// Waits for events. A receiver that has ended for good is opened anew after a while.
    pub(super) async fn poll(mut self) -> Polled {
        let tenure = self.tenure.clone();
        let came = tokio::select! {
            biased;
            () = tenure.over() => Came::Over,
            came = self.step() => came,
        };
        match &came {
            Came::Events(events) => {
                self.check_gaps(events);
                if let Some(class) = self.broken.take() {
                    self.site.metrics.receiver_reopened(class);
                }
            }
            Came::Trouble(fault) => {
                self.broken = Some(fault.class);
                self.report(fault);
            }
            Came::Stolen(fault) => {
                let (source, partition) = (&self.site.context.name, &self.place.partition);
                tracing::error!(%source, %partition, %fault, "partition taken by another reader");
            }
            Came::Over => {
                if let State::Open(receiver) = self.state {
                    receiver.close().await;
                }
                self.state = State::Shut { after: REOPEN, was_stolen: false };
            }
        }
        (self, came)
    }

    async fn step(&mut self) -> Came {
        let (site, partition) = (&self.site, &self.place.partition);
        site.log.room(partition, || site.metrics.partition_stalled(partition)).await;
        let reopened = match &mut self.state {
            State::Open(receiver) => {
                let error = match receiver.receive(BATCH, POLL).await {
                    Ok(events) => {
                        self.failures = 0;
                        let mended = receiver.interruption().map(|error| fault("receive", error));
                        self.broken = mended.map(|fault| fault.class).or(self.broken.take());
                        return Came::Events(events);
                    }
                    Err(error) => error,
                };
                let (kind, resumption) = (error.kind(), receiver.resumption(&error));
                let fault = fault("receive", error);
                if kind == ErrorKind::Stolen {
                    return Came::Stolen(fault);
                }
                if let Some(position) = resumption {
                    let after = self.pause(&fault);
                    self.state = State::Down { position, after };
                }
                return Came::Trouble(fault);
            }
            State::Down { position, after } => {
                let (position, after) = (position.clone(), *after);
                tokio::time::sleep(after).await;
                let reopened = self.reopen(position.clone()).await;
                if let Err(fault) = &reopened {
                    let after = self.pause(fault);
                    self.state = State::Down { position, after };
                }
                reopened
            }
            State::Shut { after, was_stolen } => {
                let was_stolen = *was_stolen;
                tokio::time::sleep(std::mem::replace(after, REOPEN)).await;
                self.take_up(was_stolen).await
            }
        };
        match reopened {
            Ok(receiver) => {
                let (source, partition) = (&self.site.context.name, &self.place.partition);
                tracing::info!(%source, %partition, epoch = self.place.epoch, "partition open");
                self.state = State::Open(receiver);
                Came::Events(Vec::new())
            }
            Err(fault) => Came::Trouble(fault),
        }
    }

    /// How long to leave the partition alone after a failure.
    fn pause(&mut self, fault: &Fault) -> Duration {
        self.failures = self.failures.saturating_add(1);
        match fault.verdict {
            Verdict::Busy { after } => Backoff::SERVICE.delay(self.failures, after),
            _ => REOPEN,
        }
    }

    /// Goes on after its receiver has ended.
    async fn reopen(&mut self, position: Position) -> Result<Box<dyn Receiver>, Fault> {
        self.site.is_still_there().await?;
        let receiver = self.site.receiver(&self.place, position).await;
        receiver.map_err(|error| fault("open partition", error))
    }

    /// Begins at its checkpoint.
    async fn take_up(&mut self, was_stolen: bool) -> Result<Box<dyn Receiver>, Fault> {
        if was_stolen {
            self.site.is_still_there().await?;
            self.site.is_nobodys(&self.place).await?;
        }
        let (receiver, last) = self.site.open(&self.place, &self.tenure).await?;
        self.last = last;
        Ok(receiver)
    }

    fn report(&self, fault: &Fault) {
        let (source, partition) = (&self.site.context.name, &self.place.partition);
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
                let (source, partition) = (&self.site.context.name, &self.place.partition);
                self.site.metrics.gap(partition, u64::try_from(missing).unwrap_or_default());
                tracing::error!(%source, %partition, after = self.last, next, missing,
                    "gap: events were gone from the hub before they were read");
            }
            self.last = Some(next);
        }
    }

    /// An event in the pipeline's terms, with its place in the log.
    pub(super) fn received(&self, event: ReceivedEvent) -> (i64, String, Received) {
        let Site { context, resource, .. } = &*self.site;
        message::received(event, &context.name, resource, &self.place.partition, self.site.made())
    }
}
