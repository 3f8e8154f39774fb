//! An SNS topic, found by name or ARN.

use aws_sdk_sns::Client;

use super::{Config, fault};
use crate::fault::Fault;

/// What a topic takes where it does not say: 256 KiB, for a message and for a batch.
/// <https://docs.aws.amazon.com/sns/latest/dg/large-message-payloads.html>
pub const MESSAGE_BYTES_DEFAULT: usize = 256 << 10;

/// A topic.
#[derive(Debug, Clone)]
pub struct Topic {
    /// The client to reach it with.
    pub client: Client,
    /// Its ARN.
    pub arn: String,
    /// Whether it is a FIFO topic.
    pub fifo: bool,
    /// The largest message, and the largest batch, that it takes.
    pub message_bytes: usize,
}

impl Topic {
    /// Finds the topic of this name or ARN; makes it, where `create` says so.
    ///
    /// # Errors
    /// It is not there, may not be used, or AWS does not answer.
    pub async fn find(name: &str, settings: &Config, create: bool) -> Result<Self, Fault> {
        let client = Client::new(&settings.load().await);
        let arn = if name.starts_with("arn:") {
            name.to_owned()
        } else if create {
            make(&client, name).await?
        } else {
            by_name(&client, name).await?
        };
        let answer = client.get_topic_attributes().topic_arn(&arn).send().await;
        let answer = answer.map_err(|error| fault("GetTopicAttributes", name, error))?;
        let attributes = answer.attributes.unwrap_or_default();
        let bytes = attributes.get("MaximumMessageSize").and_then(|text| text.parse().ok());
        let message_bytes = bytes.unwrap_or(MESSAGE_BYTES_DEFAULT);
        Ok(Self { fifo: arn.ends_with(".fifo"), arn, client, message_bytes })
    }
}

async fn make(client: &Client, name: &str) -> Result<String, Fault> {
    let fifo = name.ends_with(".fifo").then_some(("FifoTopic", "true"));
    let mut request = client.create_topic().name(name);
    if let Some((key, value)) = fifo {
        request = request.attributes(key, value);
    }
    let answer = request.send().await.map_err(|error| fault("CreateTopic", name, error))?;
    Ok(answer.topic_arn.unwrap_or_default())
}

/// There is no call that finds a topic by name, so the list is read until it turns up.
async fn by_name(client: &Client, name: &str) -> Result<String, Fault> {
    let mut pages = client.list_topics().into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| fault("ListTopics", name, error))?;
        let arns = page.topics().iter().filter_map(|topic| topic.topic_arn());
        let mut found = arns.filter(|arn| arn.rsplit(':').next() == Some(name));
        if let Some(arn) = found.next() {
            return Ok(arn.to_owned());
        }
    }
    let text = format!("{name}: there is no such topic; create it, or mend its name or region");
    Err(Fault::stop("ListTopics", "missing", text))
}
