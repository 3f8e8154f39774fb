//! Long polls: one while the queue is idle, more while they come back full.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_sqs::types::{Message, MessageAttributeValue, MessageSystemAttributeName as System};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::{CLOSE_MAX, Poll};
use crate::{
    cloud::aws::{BATCH_MAX, fault, long, queue::Queue},
    delivery::{Delivery, Origin, Received, Token},
    event::Value,
    fault::{Fault, Verdict},
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
    /// Until when somebody waited for the polls. What came in since then has a lease that may have
    /// run for all this time: a full pipeline does not receive.
    attended: Instant,
    /// A poll whose answer was lost: FIFO queues answer it again with the same messages.
    lost: Option<String>,
}

/// A poll, as a FIFO queue knows it.
struct Attempt {
    id: String,
    /// Whether it asks for a lost answer. It does so once: when some of the messages have been
    /// dealt with, SQS refuses it.
    again: bool,
}

/// A poll that has come back.
struct Polled {
    attempt: Attempt,
    answer: Result<Vec<Message>, Fault>,
}

/// Notes when somebody stopped waiting, also where the waiting was cancelled.
struct Attends<'a>(&'a mut Instant);

impl Drop for Attends<'_> {
    fn drop(&mut self) {
        *self.0 = Instant::now();
    }
}

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
            attended: Instant::now(),
            lost: None,
        }
    }

    fn fill(&mut self) {
        while self.polls.len() < self.concurrency {
            let attempt = match self.lost.take() {
                Some(id) => Attempt { id, again: true },
                None => Attempt { id: uuid::Uuid::new_v4().to_string(), again: false },
            };
            let queue = self.queue.clone();
            let wait = *self.poll.wait;
            self.polls.push(
                async move {
                    let answer = poll(&queue, wait, &attempt.id).await;
                    Polled { attempt, answer }
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

    /// All polls that have come back, at least one, and the moment from which their leases count.
    /// Cancel-safe: there is one wait, and nothing has been taken out before it.
    async fn answered(&mut self) -> (Vec<Polled>, Instant) {
        let Self { polls, attended, .. } = self;
        let since = *attended;
        let attends = Attends(attended);
        let here = ready(polls);
        if !here.is_empty() {
            return (here, since);
        }
        let mut answered: Vec<_> = polls.next().await.into_iter().collect();
        answered.extend(ready(polls));
        drop(attends);
        (answered, Instant::now())
    }

    fn deliveries(&mut self, polled: Polled, since: Instant) -> Result<Vec<Delivery>, Fault> {
        let Polled { attempt, answer } = polled;
        let messages = answer.inspect_err(|fault| {
            let is_lost = matches!(fault.verdict, Verdict::Busy { .. }) && !attempt.again;
            self.lost = is_lost.then_some(attempt.id);
            self.concurrency = 1;
        })?;
        self.adapt(messages.len());
        if since.elapsed() >= self.queue.visibility {
            // Others may have them by now. They were never ours to send, and come again.
            tracing::debug!(source = %self.name, events = messages.len(), "messages waited past their lease");
            return Ok(Vec::new());
        }
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
            claimed: None,
            origin,
        };
        let attempt = number(System::ApproximateReceiveCount).unwrap_or(1);
        let handle = message.receipt_handle.unwrap_or_default().into();
        Delivery {
            received: Arc::new(received),
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            token: Token::Lease { serial: self.serial, handle },
            since,
            ties: None,
        }
    }
}

/// The polls that have come back by now.
fn ready(polls: &mut FuturesUnordered<BoxFuture<'static, Polled>>) -> Vec<Polled> {
    std::iter::from_fn(|| polls.next().now_or_never().flatten()).collect()
}

async fn poll(queue: &Queue, wait: Duration, attempt: &str) -> Result<Vec<Message>, Fault> {
    let timeouts = aws_sdk_sqs::config::Builder::default().timeout_config(long(wait));
    let answer = queue
        .client
        .receive_message()
        .queue_url(&queue.url)
        .max_number_of_messages(BATCH_MAX as i32)
        .wait_time_seconds(i32::try_from(wait.as_secs()).unwrap_or(20))
        .visibility_timeout(i32::try_from(queue.visibility.as_secs()).unwrap_or(i32::MAX))
        .message_attribute_names("All")
        .message_system_attribute_names(System::All)
        .set_receive_request_attempt_id(queue.fifo.then(|| attempt.to_owned()))
        .customize()
        .config_override(timeouts)
        .send()
        .await;
    let answer = answer.map_err(|error| fault("ReceiveMessage", &queue.name, error))?;
    Ok(answer.messages.unwrap_or_default())
}

fn value(attribute: MessageAttributeValue) -> Value {
    let binary = attribute.binary_value.map(|blob| Bytes::from(blob.into_inner()));
    aws::value(&attribute.data_type, attribute.string_value.as_deref(), binary)
}

impl SqsReceive {
    /// What the polls under way bring next. Cancel-safe.
    async fn next(&mut self) -> Result<Vec<Delivery>, Fault> {
        let (answered, since) = self.answered().await;
        let mut deliveries = Vec::new();
        let mut failed = None;
        for polled in answered {
            match self.deliveries(polled, since) {
                Ok(more) => deliveries.extend(more),
                Err(fault) => failed = Some(fault),
            }
        }
        match failed {
            // Polls that fail together are one failure: the back-off is for the service.
            Some(fault) if deliveries.is_empty() => Err(fault),
            // What was received must go out; the next poll meets the fault again.
            Some(fault) => {
                tracing::debug!(source = %self.name, error = %fault, "one of several polls failed");
                Ok(deliveries)
            }
            None => Ok(deliveries),
        }
    }
}

#[async_trait]
impl Receive for SqsReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        self.fill();
        self.next().await
    }

    /// The service may hand messages to a poll for as long as it waits: one that is given up would
    /// hide them for a lease.
    async fn wind_down(&mut self) -> Option<Result<Vec<Delivery>, Fault>> {
        if self.polls.is_empty() {
            return None;
        }
        Some(self.next().await)
    }

    async fn close(&mut self) -> Vec<Delivery> {
        let until = Instant::now() + CLOSE_MAX;
        let mut brought = Vec::new();
        while let Ok(Some(polled)) = timeout_at(until, pin!(self.polls.next())).await {
            brought.extend(self.deliveries(polled, Instant::now()).unwrap_or_default());
        }
        brought
    }
}
