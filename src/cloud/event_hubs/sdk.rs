//! A hub through the official SDK, under supervision.
//!
//! The SDK is let do one thing at a time and never mend itself: it would go on at the position given
//! when a receiver was opened, and not after the last event read. So it may not retry, every call has
//! a deadline, and what has failed is dropped and made anew by who asks again: a receiver at its own
//! position after the lane's pause, a sender by the sink's retry. Each receiver has a connection of
//! its own, for the SDK finds links by their address alone and drops all of a connection with one.
//!
//! With the seam it is more than the four hundred lines that were hoped for: half is the translation
//! of messages and errors, for which the SDK has types of its own on another version of the engine.
//!
//! What supervision cannot give it is listed in `docs/connectors/event_hubs.md`, each with a test
//! that fails the day the SDK has it.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::OffsetDateTime,
};
use azure_messaging_eventhubs::{
    ConsumerClient, EventDataBatchOptions, OpenReceiverOptions, ProducerClient,
    Result as SdkResult, RetryOptions, SendMessageOptions,
};
use eventhubs::{
    client::{
        Error, ErrorKind, EventData, HubProperties, PartitionProperties, ReceiverOptions,
        SenderOptions, Target,
    },
    limits,
};
use futures::FutureExt;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::transport::{Hub, Receiver, Sender};

mod meaning;
mod message;
mod receiver;

use meaning::meaning;
use receiver::SdkReceiver;

/// For a connection or an attach.
const CALL: Duration = Duration::from_secs(20);
/// For a question. On a link that the service has ended the SDK waits for the answer for ever.
const QUESTION: Duration = Duration::from_secs(5);
/// What a batch leaves free of the link's limit, as one part of so many.
const HEADROOM_PARTS: u64 = 50;

/// Where a hub is, and who asks.
pub(super) struct Place {
    /// The full name of the namespace.
    pub(super) namespace: String,
    /// Another way there.
    pub(super) endpoint: Option<String>,
    pub(super) hub: String,
    /// Names the connections.
    pub(super) id: String,
    pub(super) credential: Arc<dyn TokenCredential>,
}

/// For an emulator, which takes any token.
#[derive(Debug)]
pub(super) struct NoToken;

#[async_trait]
impl TokenCredential for NoToken {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let expires = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        Ok(AccessToken::new("emulator", expires))
    }
}

/// A hub. Cheap to clone; clones share the connection for questions.
#[derive(Clone)]
pub(super) struct SdkHub {
    place: Arc<Place>,
    questions: Arc<Slot>,
}

impl SdkHub {
    pub(super) fn new(place: Place) -> Self {
        let place = Arc::new(place);
        Self { questions: Arc::new(Slot::new(place.clone())), place }
    }

    /// Asks, and once more on a new connection where the one at hand turns out to be of no use.
    async fn ask<T, Answer: Future<Output = SdkResult<T>> + Send>(
        &self,
        op: &'static str,
        question: impl Fn(Arc<ProducerClient>) -> Answer + Sync,
    ) -> Result<T, Error> {
        let ask = || self.questions.call(op, QUESTION, &question);
        match ask().await {
            Err(error) if error.is_transient() && error.kind() != ErrorKind::ServerBusy => {
                ask().await
            }
            answered => answered,
        }
    }
}

#[async_trait]
impl Hub for SdkHub {
    fn name(&self) -> &str {
        &self.place.hub
    }

    fn host(&self) -> &str {
        &self.place.namespace
    }

    async fn properties(&self) -> Result<HubProperties, Error> {
        let ask =
            |client: Arc<ProducerClient>| async move { client.get_eventhub_properties().await };
        let hub = self.ask("read hub properties", ask).await?;
        Ok(HubProperties {
            name: hub.name,
            created_at: hub.created_on.unwrap_or(SystemTime::UNIX_EPOCH),
            partition_ids: hub.partition_ids,
        })
    }

    async fn partition_properties(&self, id: &str) -> Result<PartitionProperties, Error> {
        let ask =
            |client: Arc<ProducerClient>| async move { client.get_partition_properties(id).await };
        let partition = self.ask("read partition properties", ask).await?;
        let last_time = partition.last_enqueued_time_utc;
        Ok(PartitionProperties {
            id: partition.id,
            begin_sequence_number: partition.beginning_sequence_number,
            last_enqueued_sequence_number: partition.last_enqueued_sequence_number,
            last_enqueued_offset: partition.last_enqueued_offset,
            last_enqueued_time: last_time.unwrap_or(SystemTime::UNIX_EPOCH),
            is_empty: partition.is_empty,
        })
    }

    async fn receiver(&self, options: ReceiverOptions) -> Result<Box<dyn Receiver>, Error> {
        let end = self.partition_properties(&options.partition).await?;
        let position = end.start(options.start.clone())?;
        let Place { namespace, endpoint, hub, id, credential } = &*self.place;
        let mut consumer = ConsumerClient::builder()
            .with_application_id(id.clone())
            .with_consumer_group(options.consumer_group.clone())
            .with_instance_id(format!("{}-{}", options.name, uuid::Uuid::new_v4().simple()))
            .with_retry_options(never_again());
        if let Some(endpoint) = endpoint {
            consumer = consumer.with_custom_endpoint(endpoint.clone());
        }
        let consumer = consumer.open(namespace, hub.clone(), credential.clone());
        let consumer = within("connect", CALL, consumer).await?;
        // The SDK counts events: so many as surely fit.
        let largest = usize::try_from(limits::MAX_MESSAGE_BYTES).unwrap_or(usize::MAX);
        let fitting = u32::try_from(options.credit_bytes / largest).unwrap_or(u32::MAX);
        let terms = OpenReceiverOptions {
            owner_level: options.epoch,
            prefetch: Some(options.credit_events.min(fitting).max(1)),
            start_position: Some(message::start(&position)),
            receive_timeout: None,
        };
        let opened = consumer.open_receiver_on_partition(options.partition.clone(), Some(terms));
        let events = within("open partition", CALL, opened).await?;
        let hub = self.clone();
        Ok(Box::new(SdkReceiver::new(hub, options.partition, position, consumer, events)))
    }

    fn sender(&self, options: SenderOptions) -> Box<dyn Sender> {
        Box::new(SdkSender { slot: Slot::new(self.place.clone()), timeout: options.timeout })
    }
}

/// A producer of the SDK: made when first needed, and made anew after it has failed.
struct Slot {
    place: Arc<Place>,
    current: Mutex<Option<Arc<ProducerClient>>>,
}

impl Slot {
    fn new(place: Arc<Place>) -> Self {
        Self { place, current: Mutex::default() }
    }

    async fn client(&self) -> Result<Arc<ProducerClient>, Error> {
        let mut current = self.current.lock().await;
        if let Some(client) = &*current {
            return Ok(client.clone());
        }
        let Place { namespace, endpoint, hub, id, credential } = &*self.place;
        let mut producer = ProducerClient::builder()
            .with_application_id(id.clone())
            .with_retry_options(never_again());
        if let Some(endpoint) = endpoint {
            producer = producer.with_custom_endpoint(endpoint.clone());
        }
        let opened = producer.open(namespace, hub, credential.clone());
        let client = Arc::new(within("connect", CALL, opened).await?);
        Ok(current.insert(client).clone())
    }

    /// Makes a call, and drops the client if the call has failed for another reason than what was
    /// asked.
    async fn call<T, Answer: Future<Output = SdkResult<T>> + Send>(
        &self,
        op: &'static str,
        limit: Duration,
        call: impl FnOnce(Arc<ProducerClient>) -> Answer,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let client =
            timeout(limit, self.client()).await.unwrap_or_else(|_| Err(late(op, limit)))?;
        let answer = within(op, limit.saturating_sub(begun.elapsed()), call(client.clone())).await;
        if let Err(error) = &answer
            && !is_an_answer(error.kind())
        {
            let mut current = self.current.lock().await;
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &client)) {
                *current = None;
            }
        }
        answer
    }
}

struct SdkSender {
    slot: Slot,
    timeout: Duration,
}

#[async_trait]
impl Sender for SdkSender {
    async fn batch_bytes_max(&self, target: &Target) -> Result<usize, Error> {
        let options = placed(target);
        let attach = |client: Arc<ProducerClient>| async move {
            client.create_batch(Some(options)).await.map(drop)
        };
        self.slot.call("attach sender", self.timeout, attach).await?;
        // The SDK does not tell the link's own, and splits what does not fit it.
        let most = limits::MAX_MESSAGE_BYTES - limits::MAX_MESSAGE_BYTES / HEADROOM_PARTS;
        Ok(usize::try_from(most).unwrap_or(usize::MAX))
    }

    async fn send(&self, target: &Target, events: &[EventData]) -> Result<usize, Error> {
        let messages = events.iter().map(message::sent).collect::<Result<Vec<_>, _>>()?;
        let options = placed(target);
        let partition_id = options.partition_id.clone();
        let is_out = AtomicBool::new(false);
        let send = |client: Arc<ProducerClient>| async {
            let client = client;
            let batch = client.create_batch(Some(options)).await?;
            let first = messages.first().cloned();
            let mut taken = 0;
            for message in messages {
                if !batch.try_add_amqp_message(message, None)? {
                    break;
                }
                taken += 1;
            }
            is_out.store(true, Ordering::Relaxed);
            match first {
                // The SDK counts the first event of a batch twice, so that a large one does not fit
                // where it would; it is sent without a batch.
                Some(first) if taken == 0 => {
                    let options = SendMessageOptions { partition_id };
                    client.send_message(first, Some(options)).await?;
                    taken = 1;
                }
                Some(_) => client.send_batch(batch, None).await?,
                None => {}
            }
            Ok(taken)
        };
        let sent = self.slot.call("send", self.timeout, send).await;
        sent.map_err(|error| match is_out.load(Ordering::Relaxed) {
            true if is_an_answer(error.kind()) => error.of_transfer(),
            true => error.after_transfer(),
            false => error,
        })
    }
}

fn placed(target: &Target) -> EventDataBatchOptions {
    let mut options = EventDataBatchOptions::default();
    match target {
        Target::RoundRobin => {}
        Target::Key(key) => options.partition_key = Some(key.clone()),
        Target::Partition(id) => options.partition_id = Some(id.clone()),
    }
    options
}

/// Whether it is the service's answer to what was asked, over a connection that is in order.
fn is_an_answer(kind: ErrorKind) -> bool {
    use ErrorKind::{
        Disabled, Invalid, NotFound, PositionInvalid, QuotaExceeded, Rejected, ServerBusy, TooLarge,
    };
    matches!(
        kind,
        Disabled
            | Invalid
            | NotFound
            | PositionInvalid
            | QuotaExceeded
            | Rejected
            | ServerBusy
            | TooLarge
    )
}

fn never_again() -> RetryOptions {
    RetryOptions { max_retries: 0, ..RetryOptions::default() }
}

fn late(op: &'static str, limit: Duration) -> Error {
    Error::new(op, ErrorKind::Timeout, format!("after {limit:?}"))
}

/// A call of the SDK with a deadline. If the SDK panics, the call has failed.
async fn within<T>(
    op: &'static str,
    limit: Duration,
    call: impl Future<Output = SdkResult<T>> + Send,
) -> Result<T, Error> {
    let call = pin!(AssertUnwindSafe(call).catch_unwind());
    match timeout(limit, call).await {
        Ok(Ok(answer)) => answer.map_err(|error| meaning(op, &error)),
        Ok(Err(_)) => Err(Error::new(op, ErrorKind::Protocol, "the SDK has panicked")),
        Err(_) => Err(late(op, limit)),
    }
}
