//! Long polls: one while the queue is idle, more while they come back full.

use std::{pin::pin, sync::Arc};

use async_trait::async_trait;
use aws_sdk_sqs::types::{Message, MessageAttributeValue, MessageSystemAttributeName as System};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::{CLOSE_MAX, Poll};
use crate::{
    cloud::aws::{BATCH_MAX, fault, queue::Queue},
    delivery::{Delivery, Origin, Received, Token},
    event::Value,
    fault::Fault,
    metadata::aws,
    source::Receive,
};

pub(super) struct SqsReceive {
    queue: Arc<Queue>,
    name: Arc<str>,
    resource: Arc<str>,
    poll: Poll,
    /// Polls under way. They live here, not in `receive`, so that a cancelled call loses none.
    polls: FuturesUnordered<BoxFuture<'static, Polled>>,
    concurrency: usize,
    serial: u64,
    /// The attempt id of a poll that failed: FIFO queues answer it again with the same messages.
    failed_attempt: Option<String>,
}

/// The attempt id of a poll, when it began, and its answer.
type Polled = (String, Instant, Result<Vec<Message>, Fault>);

impl SqsReceive {
    pub(super) fn new(queue: Queue, name: Arc<str>, poll: Poll) -> Self {
        // arn:aws:sqs:REGION:ACCOUNT:NAME, without the part that never differs.
        let resource = queue.arn.strip_prefix("arn:").unwrap_or(&queue.url).into();
        Self {
            queue: Arc::new(queue),
            name,
            resource,
            poll,
            polls: FuturesUnordered::new(),
            concurrency: 1,
            serial: 0,
            failed_attempt: None,
        }
    }

    fn fill(&mut self) {
        while self.polls.len() < self.concurrency {
            let attempt =
                self.failed_attempt.take().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            let queue = self.queue.clone();
            let wait = i32::try_from(self.poll.wait.as_secs()).unwrap_or(20);
            self.polls.push(
                async move {
                    let polled = poll(&queue, wait, &attempt).await;
                    // The lease counts from the answer: SQS hides messages when it gives them.
                    (attempt, Instant::now(), polled)
                }
                .boxed(),
            );
        }
    }

    /// More polls while they are full, fewer when they are not: an idle queue costs one.
    fn adapt(&mut self, messages: usize) {
        self.concurrency = match messages {
            BATCH_MAX => (self.concurrency + 1).min(self.poll.concurrency_max),
            0 => 1,
            _ => self.concurrency.saturating_sub(1).max(1),
        };
    }

    fn deliveries(&mut self, (attempt, since, polled): Polled) -> Result<Vec<Delivery>, Fault> {
        let messages = polled.inspect_err(|_| {
            self.failed_attempt = Some(attempt);
            self.concurrency = 1;
        })?;
        self.adapt(messages.len());
        Ok(messages.into_iter().map(|message| self.delivery(message, since)).collect())
    }

    fn delivery(&mut self, message: Message, since: Instant) -> Delivery {
        self.serial += 1;
        let system = message.attributes.unwrap_or_default();
        let number = |name: System| system.get(&name).and_then(|text| text.parse::<u64>().ok());
        let shared = |name: System| system.get(&name).map(|text| Arc::from(text.as_str()));
        let sent = number(System::SentTimestamp).and_then(|millis| {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
        });
        let attributes = message.message_attributes.unwrap_or_default();
        let mut attributes: Vec<_> =
            attributes.into_iter().map(|(name, attribute)| (name, value(attribute))).collect();
        // The service has no order of attributes; a stable one makes every redelivery alike.
        attributes.sort_by(|(one, _), (other, _)| one.cmp(other));
        let position = message.message_id.unwrap_or_default().into();
        let origin =
            Origin { source: self.name.clone(), resource: self.resource.clone(), position };
        let received = Received {
            body: Bytes::from(message.body.unwrap_or_default()),
            attributes: attributes.into_iter().collect(),
            message_id: None,
            subject: None,
            content_type: None,
            key: shared(System::MessageGroupId),
            enqueued: sent,
            xray: shared(System::AwsTraceHeader),
            origin,
        };
        let attempt = number(System::ApproximateReceiveCount).unwrap_or(1);
        let handle = message.receipt_handle.unwrap_or_default().into();
        Delivery {
            received: Arc::new(received),
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            token: Token::Lease { serial: self.serial, handle },
            since,
        }
    }
}

async fn poll(queue: &Queue, wait: i32, attempt: &str) -> Result<Vec<Message>, Fault> {
    let answer = queue
        .client
        .receive_message()
        .queue_url(&queue.url)
        .max_number_of_messages(BATCH_MAX as i32)
        .wait_time_seconds(wait)
        .message_attribute_names("All")
        .message_system_attribute_names(System::All)
        .set_receive_request_attempt_id(queue.fifo.then(|| attempt.to_owned()))
        .send()
        .await;
    let answer = answer.map_err(|error| fault("ReceiveMessage", &queue.name, error))?;
    Ok(answer.messages.unwrap_or_default())
}

fn value(attribute: MessageAttributeValue) -> Value {
    let binary = attribute.binary_value.map(|blob| Bytes::from(blob.into_inner()));
    aws::value(&attribute.data_type, attribute.string_value.as_deref(), binary)
}

#[async_trait]
impl Receive for SqsReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        self.fill();
        let Some(polled) = self.polls.next().await else { return Ok(Vec::new()) };
        let mut deliveries = self.deliveries(polled)?;
        // Whatever else is here already goes along: fuller batches downstream.
        while let Some(Some(polled)) = self.polls.next().now_or_never() {
            match self.deliveries(polled) {
                Ok(more) => deliveries.extend(more),
                // What was received must go out; the next poll meets the fault again.
                Err(fault) => {
                    tracing::debug!(source = %self.name, error = %fault, "one of several polls failed");
                }
            }
        }
        Ok(deliveries)
    }

    async fn close(&mut self) -> Vec<Delivery> {
        let until = Instant::now() + CLOSE_MAX;
        let mut brought = Vec::new();
        while let Ok(Some(polled)) = timeout_at(until, pin!(self.polls.next())).await {
            brought.extend(self.deliveries(polled).unwrap_or_default());
        }
        brought
    }
}
