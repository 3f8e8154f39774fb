//! A sender that takes nothing but *accepted* for stored.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fe2o3_amqp::{
    Sender as AmqpSender,
    link::{SendError, delivery::DeliveryFut},
    session::SessionHandle,
};
use fe2o3_amqp_types::{definitions::SenderSettleMode, messaging::Outcome};
use futures::FutureExt;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Hub,
    batch::{EventBatch, Target},
    connection::Connection,
    error::{Error, ErrorKind},
    event::EventData,
};
use crate::{address::Address, limits};

/// How to send.
#[derive(Debug, Clone)]
pub struct SenderOptions {
    /// For one [`Sender::send`], from the wait for its turn to the service's answer.
    pub timeout: Duration,
    /// Batches under way at once, over all targets; further calls wait for their turn.
    pub in_flight_max: usize,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), in_flight_max: 32 }
    }
}

/// Part of a link's max-message-size that a batch leaves free, because the service counts what it
/// adds itself: one part in fifty.
const HEADROOM_PARTS: u64 = 50;

/// How often credit is looked at while there is none. The engine (fe2o3-amqp 0.18.4,
/// `SenderFlowState::consume`) misses a grant that arrives on another thread just before it begins
/// to wait, and would then wait for the next one.
const CREDIT_RECHECK: Duration = Duration::from_millis(200);

/// Sends batches to one hub. Several calls of [`Sender::send`] may be under way at once, also to
/// one partition: they go out in the order in which they were first polled, and the answers are
/// awaited side by side.
pub struct Sender {
    hub: Hub,
    options: SenderOptions,
    turns: Semaphore,
    /// By partition; `None` is the hub itself, where the service picks the partition.
    slots: Mutex<HashMap<Option<String>, Arc<LinkSlot>>>,
}

/// The place of a link to one node. One attaches while the others wait.
type LinkSlot = tokio::sync::Mutex<Option<Arc<SendLink>>>;

/// An attached link. Detached when the last user is done with it.
struct SendLink {
    /// Held while a transfer is handed to the engine, not while its outcome is awaited.
    amqp: tokio::sync::Mutex<Outlet>,
    bytes_max: usize,
    _session: SessionHandle<()>,
    connection: Arc<Connection>,
}

struct Outlet {
    sender: AmqpSender,
    /// A transfer was begun and given up half-way: nothing may follow it on this link.
    half_sent: bool,
}

/// The service's answer to a transfer that has gone out.
type Pending = DeliveryFut<Result<Outcome, SendError>>;

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("hub", &self.hub.name).finish_non_exhaustive()
    }
}

impl Sender {
    pub(crate) fn new(hub: Hub, options: SenderOptions) -> Self {
        let turns = Semaphore::new(options.in_flight_max.clamp(1, Semaphore::MAX_PERMITS));
        Self { hub, options, turns, slots: Mutex::default() }
    }

    /// An empty batch for `target`, as large as the link allows. Attaches if need be.
    ///
    /// # Errors
    /// As for [`Sender::send`], and [`ErrorKind::Invalid`] for a key that is too long.
    pub async fn batch(&self, target: Target) -> Result<EventBatch, Error> {
        let bytes_max = self.batch_bytes_max(&target).await?;
        EventBatch::new(target, bytes_max)
    }

    /// How many bytes a batch for `target` may have. Attaches if need be.
    ///
    /// # Errors
    /// As for [`Sender::send`].
    pub async fn batch_bytes_max(&self, target: &Target) -> Result<usize, Error> {
        let start = Instant::now();
        let attached = timeout_at(start + self.options.timeout, self.link(target)).await;
        Ok(attached.unwrap_or_else(|_| Err(self.not_begun(start)))?.bytes_max)
    }

    /// Sends `events` as one batch: for the few that surely fit.
    ///
    /// # Errors
    /// As for [`Sender::send`], and [`ErrorKind::TooLarge`] when they do not fit one batch.
    pub async fn send_events(&self, target: Target, events: &[EventData]) -> Result<(), Error> {
        let mut batch = self.batch(target).await?;
        for event in events {
            if !batch.try_add(event)? {
                let detail = "the events do not fit one batch";
                return Err(Error::new("send", ErrorKind::TooLarge, detail));
            }
        }
        self.send(&batch).await
    }

    /// Sends a batch and waits until the service has accepted it: then all of it is stored.
    /// An empty batch is stored at once.
    ///
    /// A link or connection that turns out to be gone before anything was sent is made anew within
    /// the call. After that, nothing is sent twice: what to do is the caller's to decide. Dropping
    /// the call leaves the outcome unknown.
    ///
    /// # Errors
    /// Nothing is stored, except for [`ErrorKind::Ambiguous`]: the events had gone out when the
    /// deadline passed or the link was lost, and may or may not be stored.
    pub async fn send(&self, batch: &EventBatch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let deadline = start + self.options.timeout;
        let out = async {
            // Never closed, so a turn always comes.
            let turn = self.turns.acquire().await;
            self.transfer(batch).await.map(|sent| (turn, sent))
        };
        let Ok(out) = timeout_at(deadline, out).await else { return Err(self.not_begun(start)) };
        let (_turn, (link, pending)) = out?;
        let answer = tokio::select! {
            biased;
            answer = pending => answer,
            // The engine does not tell the transfers that it takes with it.
            () = link.connection.ended() => {
                self.retire(&batch.target, &link).await;
                let detail = "the connection ended before the answer came";
                return Err(Error::new("send", ErrorKind::ConnectionLost, detail).after_transfer());
            }
            () = sleep_until(deadline) => {
                // The engine holds the events until they are answered: it is given a new link.
                self.retire(&batch.target, &link).await;
                link.connection.suspect(start);
                return Err(self.no_answer().after_transfer());
            }
        };
        match answer {
            Ok(outcome) => accepted(outcome),
            Err(error) => Err(Error::from_send("send", error).after_transfer()),
        }
    }

    /// Detaches all links and waits for the service to agree. Just dropping the sender detaches
    /// as well.
    pub async fn close(self) {
        let slots = std::mem::take(&mut *self.slots.lock().unwrap_or_else(|e| e.into_inner()));
        for slot in slots.into_values() {
            if let Some(link) = slot.lock().await.take().and_then(Arc::into_inner) {
                let amqp = link.amqp.into_inner().sender;
                let detach =
                    async { amqp.close().await.map_err(|e| Error::from_detach("detach", e)) };
                if let Err(error) = link.connection.within("detach", detach).await {
                    tracing::debug!(%error, "link did not close cleanly");
                }
            }
        }
    }

    /// Hands the batch to a link. Tries again, with back-off, while nothing has gone out and the
    /// cause may pass; the caller sets the deadline.
    async fn transfer(&self, batch: &EventBatch) -> Result<(Arc<SendLink>, Pending), Error> {
        let mut failures = 0;
        let mut token_replaced = false;
        loop {
            let error = match self.link(&batch.target).await {
                Ok(link) => match link.transfer(batch).await {
                    Ok(pending) => return Ok((link, pending)),
                    Err(error) => {
                        self.retire(&batch.target, &link).await;
                        if error.kind() == ErrorKind::Unauthorized && !token_replaced {
                            link.connection.forget_token(&self.hub.name);
                            token_replaced = true;
                            continue;
                        }
                        error
                    }
                },
                Err(error) => error,
            };
            if !error.is_transient() || error.retry_after().is_some() {
                return Err(error);
            }
            failures += 1;
            tracing::debug!(%error, failures, "nothing sent yet, trying again");
            tokio::time::sleep(self.hub.client.options().backoff.delay(failures)).await;
        }
    }

    async fn link(&self, target: &Target) -> Result<Arc<SendLink>, Error> {
        let slot = self.slot(target);
        let mut slot = slot.lock().await;
        if let Some(link) = slot.take()
            && link.connection.is_up()
        {
            return Ok(slot.insert(link).clone());
        }
        let link = SendLink::attach(&self.hub, partition_of(target)).await?;
        Ok(slot.insert(Arc::new(link)).clone())
    }

    /// Takes `link` out of use, unless another has taken its place already.
    async fn retire(&self, target: &Target, link: &Arc<SendLink>) {
        let slot = self.slot(target);
        let mut slot = slot.lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *slot = None;
        }
    }

    fn slot(&self, target: &Target) -> Arc<LinkSlot> {
        let mut slots = self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        slots.entry(partition_of(target).map(str::to_owned)).or_default().clone()
    }

    /// Nothing has gone out in time: a link takes longer than its sender has, and the peer may be
    /// silent.
    fn not_begun(&self, start: Instant) -> Error {
        self.hub.client.suspect(start);
        self.no_answer()
    }

    fn no_answer(&self) -> Error {
        Error::new("send", ErrorKind::Timeout, format!("after {:?}", self.options.timeout))
    }
}

impl SendLink {
    async fn attach(hub: &Hub, partition: Option<&str>) -> Result<Self, Error> {
        let connection = hub.authorized().await?;
        let hub_name = hub.name.clone();
        let address = match partition {
            Some(id) => Address::Partition { hub: hub_name, partition: id.to_owned() },
            None => Address::Hub { hub: hub_name },
        };
        let endpoint = &hub.client.settings.endpoint;
        let address = address.absolute(endpoint.scheme(), endpoint.host());
        let name = format!("{}-{}", hub.client.options().id, uuid::Uuid::new_v4().simple());
        let (session, amqp) = connection
            .within("attach sender", async {
                let mut session = connection.session().await?;
                let sender = AmqpSender::builder()
                    .name(name)
                    .target(address)
                    .sender_settle_mode(SenderSettleMode::Unsettled)
                    .attach(&mut session)
                    .await
                    .map_err(Error::from_sender_attach)?;
                Ok((session, sender))
            })
            .await?;
        let bytes_max = amqp.max_message_size().unwrap_or(limits::MAX_MESSAGE_BYTES);
        let bytes_max = bytes_max - bytes_max / HEADROOM_PARTS;
        Ok(Self {
            amqp: Outlet { sender: amqp, half_sent: false }.into(),
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            _session: session,
            connection,
        })
    }

    /// Hands the batch to the engine. On an error, nothing that the service could store has gone
    /// out.
    async fn transfer(&self, batch: &EventBatch) -> Result<Pending, Error> {
        let mut outlet = self.amqp.lock().await;
        if outlet.half_sent {
            return Err(Error::new(
                "send",
                ErrorKind::Detached,
                "a transfer was given up half-way",
            ));
        }
        // The peer may have detached since the last send: noticed now, it costs nothing; after
        // the transfer, the outcome would be unknown.
        if let Some(detached) = outlet.sender.on_detach().now_or_never() {
            return Err(Error::from_detach("send", detached));
        }
        outlet.half_sent = true;
        let pending = loop {
            // Unconstrained, so that waiting for credit is all it ever waits for in practice.
            let sending = outlet.sender.send_batchable_ref(&batch.sendable);
            match tokio::time::timeout(CREDIT_RECHECK, tokio::task::unconstrained(sending)).await {
                Ok(pending) => break pending,
                Err(_) => continue,
            }
        };
        outlet.half_sent = false;
        pending.map_err(|error| Error::from_send("send", error))
    }
}

fn partition_of(target: &Target) -> Option<&str> {
    match target {
        Target::Partition(id) => Some(id),
        Target::RoundRobin | Target::Key(_) => None,
    }
}

fn accepted(outcome: Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Accepted(_) => Ok(()),
        Outcome::Rejected(rejected) => Err(match rejected.error {
            Some(error) => Error::from_rejection(&error),
            None => Error::new("send", ErrorKind::Rejected, "no reason given"),
        }),
        Outcome::Released(_) => Err(Error::new("send", ErrorKind::Released, "")),
        Outcome::Modified(_) => Err(Error::new("send", ErrorKind::Modified, "")),
    }
}
