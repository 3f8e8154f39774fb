//! Gets: the service has no long poll, so an idle queue is asked less and less often, and a full
//! one by several gets at once.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_storage_queue::models::{QueueClientReceiveMessagesOptions, ReceivedMessage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Config, Encoding};
use crate::{
    cloud::azure::queue::{Queue, visibility_s},
    delivery::{Delivery, Origin, Received, Token},
    event::Attributes,
    fault::Fault,
    source::Receive,
};

/// Messages per get.
/// <https://learn.microsoft.com/rest/api/storageservices/get-messages>
const GET_MAX: usize = 32;
/// Pause after the first empty get; doubled with every further one.
const IDLE_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How long a stop waits for gets that are under way.
const CLOSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct QueueReceive {
    queue: Queue,
    name: Arc<str>,
    visibility: Duration,
    encoding: Encoding,
    concurrency_max: usize,
    concurrency: usize,
    idle: Duration,
    next_get: Instant,
    /// Gets under way. They live here, not in `receive`, so that a cancelled call loses none.
    /// All are awaited together: none runs, and hides messages, while nobody receives.
    gets: Option<BoxFuture<'static, Vec<Got>>>,
    serial: u64,
}

/// When a get was sent, which is when its leases began at the earliest, and its answer.
type Got = (Instant, Result<Vec<ReceivedMessage>, Fault>);

impl QueueReceive {
    pub(super) fn new(queue: Queue, name: Arc<str>, config: &Config) -> Self {
        Self {
            queue,
            name,
            visibility: *config.visibility,
            encoding: config.encoding,
            concurrency_max: config.concurrency_max,
            concurrency: 1,
            idle: Duration::ZERO,
            next_get: Instant::now(),
            gets: None,
            serial: 0,
        }
    }

    fn start(&self) -> BoxFuture<'static, Vec<Got>> {
        let visibility = visibility_s(self.visibility);
        let gets = (0..self.concurrency).map(|_| {
            let queue = self.queue.clone();
            async move { (Instant::now(), get(&queue, visibility).await) }
        });
        join_all(gets).boxed()
    }

    fn take(&mut self, gots: Vec<Got>) -> Result<Vec<Delivery>, Fault> {
        let (mut deliveries, mut failed, mut full) = (Vec::new(), None, true);
        for (since, got) in gots {
            match got {
                Ok(messages) => {
                    full &= messages.len() == GET_MAX;
                    deliveries.extend(messages.into_iter().map(|m| self.delivery(m, since)));
                }
                Err(fault) => failed = Some(fault),
            }
        }
        self.adapt(deliveries.len(), full && failed.is_none());
        // A lease that has run out while nobody received: another get brings the message.
        deliveries.retain(|delivery| delivery.since.elapsed() < self.visibility);
        match failed {
            Some(fault) if deliveries.is_empty() => Err(fault),
            // What was received must go out; the next get meets the fault again.
            Some(fault) => {
                tracing::debug!(source = %self.name, error = %fault, "one of several gets failed");
                Ok(deliveries)
            }
            None => Ok(deliveries),
        }
    }

    /// More gets while they come back full, as many as needed while they do not, and pauses once
    /// there is nothing.
    fn adapt(&mut self, messages: usize, full: bool) {
        if messages == 0 {
            self.concurrency = 1;
            self.idle = (self.idle * 2).clamp(IDLE_MIN, IDLE_MAX);
        } else {
            let wanted = if full { self.concurrency * 2 } else { messages.div_ceil(GET_MAX) };
            self.concurrency = wanted.clamp(1, self.concurrency_max);
            self.idle = Duration::ZERO;
        }
        self.next_get = Instant::now() + self.idle;
    }

    fn delivery(&mut self, message: ReceivedMessage, since: Instant) -> Delivery {
        self.serial += 1;
        let id = message.message_id.unwrap_or_default();
        let receipt = message.pop_receipt.unwrap_or_default();
        let origin = Origin {
            source: self.name.clone(),
            resource: self.queue.url.clone(),
            position: id.as_str().into(),
        };
        let received = Received {
            body: decoded(message.message_text.unwrap_or_default(), self.encoding),
            attributes: Attributes::default(),
            message_id: None,
            subject: None,
            content_type: None,
            key: None,
            enqueued: message.insertion_time,
            xray: None,
            claimed: None,
            origin,
        };
        let attempt = message.dequeue_count.unwrap_or(1);
        Delivery {
            received: Arc::new(received),
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            token: Token::Lease { serial: self.serial, handle: format!("{id} {receipt}").into() },
            since,
            ties: None,
        }
    }
}

async fn get(queue: &Queue, visibility: i32) -> Result<Vec<ReceivedMessage>, Fault> {
    let options = QueueClientReceiveMessagesOptions {
        number_of_messages: Some(GET_MAX as i32),
        visibility_timeout: Some(visibility),
        ..Default::default()
    };
    let request = async { queue.client.receive_messages(Some(options)).await?.into_model() };
    Ok(queue.call("GetMessages", request).await?.items.unwrap_or_default())
}

/// The bytes that the producer meant.
fn decoded(text: String, encoding: Encoding) -> Bytes {
    let bytes = match encoding {
        Encoding::Text => None,
        Encoding::Base64 => BASE64.decode(&text).ok(),
        Encoding::Auto => BASE64.decode(&text).ok().filter(|bytes| is_text(bytes)),
    };
    bytes.unwrap_or_else(|| text.into_bytes()).into()
}

/// UTF-8 without the control characters that JSON escapes, which hardly any word has that happens to
/// be base64. The others stand in JSON as they are, and so in the envelopes of our own sink.
fn is_text(bytes: &[u8]) -> bool {
    let plain = |c: char| c >= ' ' || matches!(c, '\t' | '\n' | '\r');
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(plain))
}

#[async_trait]
impl Receive for QueueReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        if self.gets.is_none() {
            sleep_until(self.next_get).await;
        }
        let started = self.gets.take().unwrap_or_else(|| self.start());
        let gots = self.gets.insert(started).await;
        self.gets = None;
        self.take(gots)
    }

    async fn wind_down(&mut self) -> Option<Result<Vec<Delivery>, Fault>> {
        let gots = self.gets.as_mut()?.await;
        self.gets = None;
        Some(self.take(gots))
    }

    async fn close(&mut self) -> Vec<Delivery> {
        let Some(gets) = self.gets.take() else { return Vec::new() };
        let gots = timeout(CLOSE_MAX, gets).await.unwrap_or_default();
        self.take(gots).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str, encoding: Encoding) -> Bytes {
        decoded(text.to_owned(), encoding)
    }

    #[test]
    fn base64_of_text_is_taken_off() {
        assert_eq!(body("eyJhIjogMX0=", Encoding::Auto), r#"{"a": 1}"#);
        assert_eq!(body("", Encoding::Auto), "");
        let envelope = "{\"subject\":\"a\u{7f}\u{9f}\u{ffff}\"}";
        assert_eq!(body(&BASE64.encode(envelope), Encoding::Auto), envelope);
    }

    #[test]
    fn what_is_not_base64_is_text() {
        for text in [r#"{"a": 1}"#, "plain", "no padding=", "eyJhIjogMX0", "grüße"] {
            assert_eq!(body(text, Encoding::Auto), text);
            assert_eq!(body(text, Encoding::Base64), text);
        }
    }

    #[test]
    fn a_number_that_could_be_base64_is_left_alone() {
        assert_eq!(body("12345678", Encoding::Auto), "12345678");
        assert_eq!(body("eyJhIjogMX0=", Encoding::Text), "eyJhIjogMX0=");
    }

    #[test]
    fn base64_of_binary_needs_to_be_named() {
        assert_eq!(body("AP8B/g==", Encoding::Auto), "AP8B/g==");
        assert_eq!(body("AP8B/g==", Encoding::Base64), &[0, 255, 1, 254][..]);
    }
}
