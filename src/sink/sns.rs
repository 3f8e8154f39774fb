//! Publishes to an SNS topic.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sns::{
    primitives::Blob,
    types::{MessageAttributeValue, PublishBatchRequestEntry},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Labels, Limits, Nature, Order, Outgoing, Sink,
    sqs::{
        Answers, DEDUPLICATION, GROUP, IN_FLIGHT, answered, answers, deduplication_id, group_id,
    },
};
use crate::{
    cloud::{
        Context,
        aws::{self, BATCH_MAX, entry_fault, fault, topic::Topic},
    },
    event::{Event, Value},
    fault::Fault,
    metadata::{self, Packed},
};

/// An SNS topic, standard or FIFO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SnsSink")]
pub struct Config {
    /// Name or ARN of the topic. A name is looked up in the list of topics, which needs
    /// `sns:ListTopics`.
    pub topic: String,
    /// How to reach AWS, where it differs from the file's `aws`.
    #[serde(default)]
    pub aws: aws::Config,
}

/// A subject must be shorter than this, of printable ASCII, and not begin with a space.
/// <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>
const SUBJECT_MAX: usize = 100;

impl Config {
    pub(super) fn nature(&self) -> Nature {
        let fifo = self.topic.ends_with(".fifo");
        Nature {
            what: if fifo { "a FIFO topic" } else { "an SNS topic" },
            keeps_order: fifo,
            event_bytes: aws::topic::MESSAGE_BYTES_DEFAULT,
            needs_key: fifo,
            attributes: Some(metadata::aws::ATTRIBUTES_MAX),
            in_flight: IN_FLIGHT,
            loses: None,
        }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.topic.is_empty() {
            problems.push(("topic", "names no topic; give its name or ARN".to_owned()));
        }
        problems
    }

    /// The event as a message of the topic.
    pub(super) fn pack(event: &Event) -> Packed {
        let mut packed = metadata::aws::pack(event);
        // Whether SNS counts the subject is not documented.
        packed.bytes += subject(event).map_or(0, str::len);
        packed
    }

    /// What a message has beside body and attributes.
    pub(super) fn labels(&self, outgoing: &Outgoing) -> Labels {
        let Outgoing { route, event, .. } = outgoing;
        let subject = subject(event).map(|text| ("subject", text.to_owned()));
        let fifo = self.topic.ends_with(".fifo");
        let ids = fifo
            .then(|| [(GROUP, group_id(event)), (DEDUPLICATION, deduplication_id(route, event))]);
        subject.into_iter().chain(ids.into_iter().flatten()).collect()
    }

    pub(super) async fn sink(&self, context: &Context) -> Result<Arc<dyn Sink>, Fault> {
        let topic = Topic::find(&self.topic, &self.aws.or(&context.clouds.aws), false).await?;
        Ok(Arc::new(SnsSink { topic }))
    }
}

struct SnsSink {
    topic: Topic,
}

impl SnsSink {
    fn entry(&self, n: usize, outgoing: &Outgoing) -> Option<PublishBatchRequestEntry> {
        let Outgoing { route, event, packed } = outgoing;
        let mut entry = PublishBatchRequestEntry::builder()
            .id(n.to_string())
            .message(String::from_utf8_lossy(&packed.body))
            .set_subject(subject(event).map(Into::into));
        for (name, value) in &packed.attributes {
            entry = entry.message_attributes(&**name, attribute(value)?);
        }
        if self.topic.fifo {
            entry = entry.message_group_id(group_id(event));
            entry = entry.message_deduplication_id(deduplication_id(route, event));
        }
        entry.build().ok()
    }
}

/// The event's subject, where SNS takes it.
fn subject(event: &Event) -> Option<&str> {
    event.subject.as_deref().filter(|text| is_subject(text))
}

/// A subject that SNS takes; any other still travels, in our own attribute.
fn is_subject(text: &str) -> bool {
    let starts_well =
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c.is_ascii_punctuation());
    starts_well && text.len() < SUBJECT_MAX && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

fn attribute(value: &Value) -> Option<MessageAttributeValue> {
    let attribute = MessageAttributeValue::builder().data_type(metadata::aws::data_type(value));
    let plain = match value {
        Value::Labelled(_, inner) => inner,
        other => other,
    };
    let attribute = match plain {
        Value::Binary(bytes) => attribute.binary_value(Blob::new(bytes.as_ref())),
        other => attribute.string_value(other.as_str()?),
    };
    attribute.build().ok()
}

#[async_trait]
impl Sink for SnsSink {
    fn limits(&self) -> Limits {
        Limits {
            events: BATCH_MAX,
            bytes: self.topic.message_bytes,
            event_bytes: self.topic.message_bytes,
            order: if self.topic.fifo { Order::OnePerBatch } else { Order::Lost },
            in_flight: IN_FLIGHT,
        }
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        Ok(Config::pack(event))
    }

    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        answered(batch, |batch| self.request(batch)).await
    }

    async fn probe(&self) -> Result<(), Fault> {
        let asked =
            self.topic.client.get_topic_attributes().topic_arn(&self.topic.arn).send().await;
        asked.map(drop).map_err(|error| fault("GetTopicAttributes", &self.topic.arn, error))
    }
}

impl SnsSink {
    async fn request(&self, batch: &[Outgoing]) -> Answers {
        const OP: &str = "PublishBatch";
        let entries = batch.iter().enumerate().filter_map(|(n, outgoing)| self.entry(n, outgoing));
        let request = self.topic.client.publish_batch().topic_arn(&self.topic.arn);
        let timeouts = aws_sdk_sns::config::Builder::default().timeout_config(aws::short());
        let request =
            request.set_publish_batch_request_entries(Some(entries.collect())).customize();
        match request.config_override(timeouts).send().await {
            Ok(answer) => {
                let sent = answer.successful().iter().filter_map(|entry| entry.id());
                let failed = answer.failed().iter().map(|entry| {
                    (
                        entry.id(),
                        entry_fault(OP, entry.sender_fault(), entry.code(), entry.message()),
                    )
                });
                Ok(answers(OP, batch.len(), sent, failed))
            }
            Err(error) => Err(fault(OP, &self.topic.arn, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_subject_that_sns_takes_is_native() {
        assert!(is_subject("orders/7"));
        for refused in ["", " x", "a\nb", "grüße", &"x".repeat(100)] {
            assert!(!is_subject(refused), "{refused:?}");
        }
    }
}
