//! A link on which a client receives.

use std::sync::{Arc, atomic::Ordering};

use fe2o3_amqp::Sender;
use tokio::sync::mpsc;

use super::{
    armed::Moment,
    attaching::Source,
    core::Core,
    event::{self, Metrics},
    fault::Kind,
    journal::What,
    partition::StoredEvent,
    roster::{Connection, Link, LinkOrder},
    session::{detach_note, end_sender},
};

/// Events taken from the log at a time.
const CHUNK: usize = 128;

/// A receiving link.
pub(crate) struct Consumer {
    pub(crate) core: Arc<Core>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) link: Arc<Link>,
    pub(crate) source: Source,
    pub(crate) sender: Sender,
    /// Whether events go out settled.
    pub(crate) settled: bool,
}

/// Why the loop of a link ends.
enum End {
    Ordered(LinkOrder),
    Gone,
}

impl Consumer {
    pub(crate) async fn run(mut self, mut ordered: mpsc::Receiver<LinkOrder>) {
        let end = self.follow(&mut ordered).await;
        self.core.ended(&self.connection, &self.link, Some(&self.source.hub));
        if let End::Ordered(order) = end {
            self.core.note(&self.link.place, detach_note(&order.error));
            end_sender(self.sender, order).await;
        }
    }

    async fn follow(&mut self, ordered: &mut mpsc::Receiver<LinkOrder>) -> End {
        let mut appended = self.source.partition.watch();
        loop {
            let events = self.source.partition.read(self.source.next, CHUNK);
            if events.is_empty() {
                tokio::select! {
                    biased;
                    Some(order) = ordered.recv() => return End::Ordered(order),
                    _ = self.sender.on_detach() => return End::Gone,
                    changed = appended.changed() => if changed.is_err() { return End::Gone },
                }
                continue;
            }
            if let Err(end) = self.deliver(&events, ordered).await {
                return end;
            }
        }
    }

    async fn deliver(
        &mut self,
        events: &[StoredEvent],
        ordered: &mut mpsc::Receiver<LinkOrder>,
    ) -> Result<(), End> {
        let first = events[0].stamp.sequence_number;
        let mut count = 0;
        for event in events {
            let bytes = event.encoded.len() as u64;
            let strike = self.core.strike(Moment::Delivery, &self.link.place, 1, bytes);
            let times = if matches!(strike, Some(Kind::DupDelivery)) { 2 } else { 1 };
            for _ in 0..times {
                if let Err(end) = self.send(event, ordered).await {
                    self.core.note(&self.link.place, What::Deliver { seq: first, count });
                    return Err(end);
                }
                count += 1;
            }
            self.source.next = event.stamp.sequence_number + 1;
            self.link.passed(1);
            self.link.last_delivered.store(event.stamp.sequence_number, Ordering::Relaxed);
        }
        self.core.note(&self.link.place, What::Deliver { seq: first, count });
        Ok(())
    }

    /// Waits for credit and hands the event to the session. Cut short only when the link ends.
    async fn send(
        &mut self,
        event: &StoredEvent,
        ordered: &mut mpsc::Receiver<LinkOrder>,
    ) -> Result<(), End> {
        let metrics = self
            .source
            .metrics
            .then(|| Metrics { extent: self.source.partition.extent(), now: self.core.now() });
        // Every event was decoded when it came in.
        let mut sendable = event::stamp(event, metrics).map_err(|_| End::Gone)?;
        sendable.settled = Some(self.settled);
        tokio::select! {
            biased;
            Some(order) = ordered.recv() => Err(End::Ordered(order)),
            // Batchable, or the Python client looks for the payload in the wrong place.
            sent = self.sender.send_batchable(sendable) => match sent {
                Ok(_outcome_is_ignored) => Ok(()),
                Err(_) => Err(End::Gone),
            },
        }
    }
}
