//! Writes to an Azure Storage Queue.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_storage_queue::models::{QueueClientSendMessageOptions, QueueMessage};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures::future::join_all;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Labels, Limits, Nature, Order, Outgoing, Sink};
use crate::{
    cloud::{
        Context,
        azure::{
            self,
            queue::{MESSAGE_BYTES_MAX, Queue, name_problem},
        },
    },
    config::units::Span,
    event::Event,
    fault::Fault,
    metadata::{Packed, envelope},
};

/// An Azure Storage Queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "StorageQueueSink")]
pub struct Config {
    /// Name of the queue.
    pub queue: String,
    /// What a message holds.
    #[serde(default)]
    pub format: Format,
    /// How it is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// When the service throws away a message that nobody has taken; never where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// How to reach Azure, where it differs from the file's `azure`.
    #[serde(default)]
    pub azure: azure::Config,
}

/// What a message of a Storage Queue holds, which has no attributes beside its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "StorageQueueSinkFormat")]
pub enum Format {
    /// The event in a CloudEvents 1.0 envelope, with everything that belongs to it.
    #[default]
    CloudEvents,
    /// The body alone; attributes, trace context and the rest are left behind.
    Raw,
}

/// How a message is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "StorageQueueSinkEncoding")]
pub enum Encoding {
    /// Base64, which Azure Functions expect. Takes every byte, 48 KiB of them.
    #[default]
    Base64,
    /// Text as it stands, 64 KiB of it. What XML cannot hold unchanged is rejected.
    Text,
}

/// Batches at once, unless the sink's `concurrency` says otherwise. The service takes each message
/// by a request of its own.
const IN_FLIGHT: usize = 2;

/// Messages handed over at once, and sent side by side.
const BATCH: usize = 32;

impl Config {
    pub(super) fn nature(&self) -> Nature {
        let event_bytes = match self.encoding {
            Encoding::Base64 => MESSAGE_BYTES_MAX / 4 * 3,
            Encoding::Text => MESSAGE_BYTES_MAX,
        };
        Nature {
            what: "a Storage Queue",
            keeps_order: false,
            event_bytes,
            needs_key: false,
            attributes: None,
            in_flight: IN_FLIGHT,
            loses: None,
        }
    }

    pub(super) fn problems(&self, defaults: &azure::Config) -> Vec<(&'static str, String)> {
        let mut problems = self.azure.problems();
        problems.extend(self.azure.or(defaults).no_account().map(|text| ("", text)));
        problems.extend(name_problem(&self.queue));
        let whole = |ttl: Span| *ttl >= Duration::from_secs(1) && ttl.subsec_nanos() == 0;
        if !self.ttl.is_none_or(|ttl| whole(ttl) && i32::try_from(ttl.as_secs()).is_ok()) {
            let text = "a message expires after whole seconds, 1s or more; leave it out for never";
            problems.push(("ttl", text.to_owned()));
        }
        problems
    }

    /// The event as a message of the queue.
    pub(super) fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        let bytes = match self.format {
            Format::CloudEvents => envelope::wrap(event),
            // Nothing else would say what it was, nor why it was given up, and nobody could send it
            // again.
            Format::Raw if event.dead_letter.is_some() => envelope::wrap(event),
            Format::Raw if event.fitted.is_some() => {
                let text = "a raw message cannot say how its body was made to fit";
                return Err(Fault::reject("pack", "too_large", text));
            }
            Format::Raw => event.body.clone(),
        };
        let body = encoded(bytes, self.encoding)?;
        Ok(Packed { bytes: body.len(), body, attributes: Vec::new() })
    }

    /// What a message has beside its text.
    pub(super) fn labels(&self) -> Labels {
        self.ttl.map(|ttl| ("ttl", ttl.to_string())).into_iter().collect()
    }

    pub(super) async fn sink(&self, context: &Context) -> Result<Arc<dyn Sink>, Fault> {
        let queue = Queue::find(&self.queue, &self.azure.or(&context.clouds.azure)).await?;
        Ok(Arc::new(QueueSink { queue, config: self.clone() }))
    }
}

struct QueueSink {
    queue: Queue,
    config: Config,
}

impl QueueSink {
    async fn put(&self, packed: &Packed) -> Result<(), Fault> {
        const OP: &str = "PutMessage";
        let text = String::from_utf8(packed.body.to_vec())
            .map_err(|_| Fault::reject(OP, "not_text", NOT_TEXT))?;
        let message = QueueMessage { message_text: Some(text) };
        let message = message
            .try_into()
            .map_err(|_| Fault::reject(OP, "not_text", "the message cannot be written as XML"))?;
        let ttl =
            self.config.ttl.map_or(FOREVER, |ttl| i32::try_from(ttl.as_secs()).unwrap_or(i32::MAX));
        let options =
            QueueClientSendMessageOptions { message_time_to_live: Some(ttl), ..Default::default() };
        self.queue.call(OP, self.queue.client.send_message(message, Some(options))).await?;
        Ok(())
    }
}

/// Without this the service throws a message away after seven days.
/// <https://learn.microsoft.com/rest/api/storageservices/put-message>
const FOREVER: i32 = -1;
const NOT_TEXT: &str = "XML cannot hold it unchanged; use `encoding: base64`";

/// `bytes` as the text of a message.
fn encoded(bytes: Bytes, encoding: Encoding) -> Result<Bytes, Fault> {
    match encoding {
        Encoding::Base64 => Ok(BASE64.encode(bytes).into()),
        Encoding::Text if is_xml_text(&bytes) => Ok(bytes),
        Encoding::Text => Err(Fault::reject("PutMessage", "not_text", NOT_TEXT)),
    }
}

/// Whether `bytes` come out of an XML document as they went in: text of XML's own characters, no
/// carriage return, which parsers turn into a line feed, and no white space at either end, which
/// some cut off.
/// <https://www.w3.org/TR/xml/#charsets>
fn is_xml_text(bytes: &[u8]) -> bool {
    let allowed = |c: char| matches!(c, '\t' | '\n' | ' '..='\u{fffd}' | '\u{10000}'..);
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    text.chars().all(allowed) && text.trim().len() == text.len()
}

#[async_trait]
impl Sink for QueueSink {
    fn limits(&self) -> Limits {
        Limits {
            events: BATCH,
            bytes: BATCH * MESSAGE_BYTES_MAX,
            event_bytes: MESSAGE_BYTES_MAX,
            order: Order::Lost,
            in_flight: IN_FLIGHT,
        }
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        self.config.pack(event)
    }

    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        join_all(batch.iter().map(|outgoing| self.put(&outgoing.packed))).await
    }

    async fn probe(&self) -> Result<(), Fault> {
        self.queue.probe().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_goes_as_base64() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encoded(all.clone().into(), Encoding::Base64).unwrap();
        assert_eq!(BASE64.decode(&text).unwrap(), all);
    }

    #[test]
    fn text_that_xml_would_change_is_rejected() {
        for good in ["", "a<b&c>d", "grüße\t世界\n🚢", "{ }"] {
            assert_eq!(encoded(good.into(), Encoding::Text).unwrap(), good);
        }
        for bad in [&b"\xff"[..], b"a\0", b"a\r\nb", "a\u{fffe}".as_bytes(), b" a", b"a\n"] {
            let fault = encoded(Bytes::copy_from_slice(bad), Encoding::Text).unwrap_err();
            assert_eq!(fault.verdict, crate::fault::Verdict::Reject);
        }
    }
}
