//! One partition through the SDK: its stream, and the watch over it.

use std::{panic::AssertUnwindSafe, pin::pin, time::Duration};

use async_trait::async_trait;
use azure_messaging_eventhubs::{
    ConsumerClient, EventReceiver, Result as SdkResult, models::ReceivedEventData,
};
use eventhubs::{
    client::{Error, ErrorKind, ReceivedEvent},
    filter::Position,
};
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Fuse},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{SdkHub, meaning, message};
use crate::cloud::event_hubs::transport::{Hub, Receiver};

/// Events that wait between the SDK and the pipeline.
const WAITING: usize = 64;
/// A receiver that got nothing for this long asks what there is.
const QUIET: Duration = Duration::from_secs(20);
/// How long a detach may take.
const CLOSE: Duration = Duration::from_secs(2);

/// A receiver that ends at the first error.
pub(super) struct SdkReceiver {
    hub: SdkHub,
    partition: String,
    /// After the last event that was handed out.
    position: Position,
    arrived: mpsc::Receiver<SdkResult<ReceivedEventData>>,
    /// Owns the SDK's receiver and its connection. Driven by [`Receiver::receive`].
    pump: Fuse<BoxFuture<'static, ()>>,
    stop: CancellationToken,
    /// Came behind events that were handed out first.
    failed: Option<Error>,
    heard: Instant,
    /// There were events that had not come. They may have been under way.
    was_behind: bool,
}

impl SdkReceiver {
    pub(super) fn new(
        hub: SdkHub,
        partition: String,
        position: Position,
        consumer: ConsumerClient,
        events: EventReceiver,
    ) -> Self {
        let (out, arrived) = mpsc::channel(WAITING);
        let stop = CancellationToken::new();
        let pump = AssertUnwindSafe(pump(consumer, events, out, stop.clone())).catch_unwind();
        Self {
            hub,
            partition,
            position,
            arrived,
            pump: pump.map(drop).boxed().fuse(),
            stop,
            failed: None,
            heard: Instant::now(),
            was_behind: false,
        }
    }

    /// Takes an event, unless it has been handed out before.
    fn take(
        &mut self,
        event: SdkResult<ReceivedEventData>,
        events: &mut Vec<ReceivedEvent>,
    ) -> Result<(), Error> {
        let event = event.map_err(|error| meaning("receive", &error))?;
        let event = message::received(&event)?;
        (self.heard, self.was_behind) = (Instant::now(), false);
        let number = event.sequence_number;
        if !matches!(self.position, Position::SequenceNumber { number: last, inclusive: false } if number <= last)
        {
            self.position = Position::SequenceNumber { number, inclusive: false };
            events.push(event);
        }
        Ok(())
    }

    /// Nothing has come. The SDK notices neither a frozen peer nor a link that is lost in silence:
    /// the hub is asked, over another connection.
    async fn look(&mut self) -> Result<(), Error> {
        if self.heard.elapsed() < QUIET {
            return Ok(());
        }
        let end = match self.hub.partition_properties(&self.partition).await {
            Err(error) if error.kind() == ErrorKind::ServerBusy => return Ok(()),
            answered => answered?,
        };
        match end.has_after(&self.position) {
            true if self.was_behind => {
                let detail = "there are events and the link does not bring them";
                return Err(Error::new("receive", ErrorKind::Detached, detail));
            }
            true => self.was_behind = true,
            false => (self.heard, self.was_behind) = (Instant::now(), false),
        }
        Ok(())
    }
}

#[async_trait]
impl Receiver for SdkReceiver {
    async fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<ReceivedEvent>, Error> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let first = async {
            tokio::select! {
                biased;
                event = self.arrived.recv() => event,
                () = &mut self.pump => self.arrived.recv().await,
            }
        };
        let mut next = match timeout(wait, first).await {
            Ok(Some(event)) => Some(event),
            Ok(None) => {
                let detail = "the SDK's stream has ended";
                return Err(Error::new("receive", ErrorKind::Detached, detail));
            }
            Err(_) => return self.look().await.map(|()| Vec::new()),
        };
        let mut events = Vec::new();
        while let Some(event) = next {
            match self.take(event, &mut events) {
                Err(error) if events.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
                Ok(()) if events.len() >= max => break,
                Ok(()) => next = self.arrived.try_recv().ok(),
            }
        }
        Ok(events)
    }

    fn resumption(&self, _: &Error) -> Option<Position> {
        Some(self.position.clone())
    }

    async fn close(mut self: Box<Self>) {
        self.stop.cancel();
        if timeout(CLOSE, &mut self.pump).await.is_err() {
            tracing::debug!(partition = self.partition, "receiver did not close in time");
        }
    }
}

/// Carries events from the SDK's stream, which borrows its receiver, until told to stop.
async fn pump(
    consumer: ConsumerClient,
    events: EventReceiver,
    out: mpsc::Sender<SdkResult<ReceivedEventData>>,
    stop: CancellationToken,
) {
    let carry = async {
        let mut stream = pin!(events.stream_events());
        while let Some(event) = stream.next().await {
            if out.send(event).await.is_err() {
                break;
            }
        }
    };
    stop.run_until_cancelled(carry).await;
    drop(out);
    for closed in [events.close().await, consumer.close().await] {
        if let Err(error) = closed {
            tracing::debug!(%error, "the SDK did not close cleanly");
        }
    }
}
