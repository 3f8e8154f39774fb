//! An SQS queue, found and measured: what source and sink need to know of it before they start.

use std::{collections::HashMap, time::Duration};

use aws_sdk_sqs::{Client, types::QueueAttributeName};

use super::{Config, fault};
use crate::fault::Fault;

/// What a message may weigh where the queue does not say: 1 MiB.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The longest time that a message can stay in flight, extensions included.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html>
pub const IN_FLIGHT_MAX: Duration = Duration::from_secs(12 * 3600);

/// How long SQS hides a received message where the queue does not say. We also ask for it where
/// the queue says 0, which would hand out the same message for ever.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-visibility-timeout.html>
const VISIBILITY_DEFAULT: Duration = Duration::from_secs(30);

/// What is wrong with the way in which a queue is named in the file.
pub(crate) fn name_problem(name: &str) -> Option<String> {
    let text = match name {
        "" => "names no queue; give its name or URL",
        arn if arn.starts_with("arn:") => "is an ARN; give the name or URL of the queue",
        url if url.contains("://") => return None,
        name if !is_name(name) => {
            "an SQS queue's name has up to 80 letters, digits, hyphens and underscores, and may \
             end in .fifo"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html>
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.len() <= 80 && name.strip_suffix(".fifo").unwrap_or(name).bytes().all(allowed)
}

/// A queue and its attributes.
#[derive(Debug, Clone)]
pub struct Queue {
    /// The client to reach it with.
    pub client: Client,
    /// Its URL.
    pub url: String,
    /// Its ARN.
    pub arn: String,
    /// Its name, for messages.
    pub name: String,
    /// Whether it is a FIFO queue.
    pub fifo: bool,
    /// How long a received message stays hidden: what each poll asks for.
    pub visibility: Duration,
    /// The largest message it takes.
    pub message_bytes: usize,
}

impl Queue {
    /// Finds the queue `name` (or its URL) and reads its attributes.
    ///
    /// # Errors
    /// It is not there, may not be used, or AWS does not answer.
    pub async fn find(name: &str, settings: &Config) -> Result<Self, Fault> {
        let client = Client::new(&settings.load().await);
        let url = if name.starts_with("http://") || name.starts_with("https://") {
            name.to_owned()
        } else {
            let found = client.get_queue_url().queue_name(name).send().await;
            let found = found.map_err(|error| fault("GetQueueUrl", name, error))?;
            found.queue_url.unwrap_or_default()
        };
        Self::at(client, url).await
    }

    /// Reads the attributes of the queue at `url`.
    ///
    /// # Errors
    /// As [`Queue::find`].
    pub async fn at(client: Client, url: String) -> Result<Self, Fault> {
        let name = url.rsplit('/').next().unwrap_or_default().to_owned();
        let attributes = attributes(&client, &url, &name, QueueAttributeName::All).await?;
        let get = |name: QueueAttributeName| attributes.get(&name).map(String::as_str);
        let seconds = get(QueueAttributeName::VisibilityTimeout).and_then(|text| text.parse().ok());
        let bytes = get(QueueAttributeName::MaximumMessageSize).and_then(|text| text.parse().ok());
        Ok(Self {
            arn: get(QueueAttributeName::QueueArn).unwrap_or_default().to_owned(),
            fifo: get(QueueAttributeName::FifoQueue) == Some("true"),
            visibility: seconds
                .filter(|seconds| *seconds > 0)
                .map_or(VISIBILITY_DEFAULT, Duration::from_secs),
            message_bytes: bytes.unwrap_or(MESSAGE_BYTES_MAX),
            client,
            url,
            name,
        })
    }

    /// Reads one attribute that is a number.
    ///
    /// # Errors
    /// As [`Queue::find`].
    pub async fn number(&self, name: QueueAttributeName) -> Result<Option<u64>, Fault> {
        Ok(self.text(name).await?.and_then(|text| text.parse().ok()))
    }

    /// Reads one attribute.
    ///
    /// # Errors
    /// As [`Queue::find`].
    pub async fn text(&self, name: QueueAttributeName) -> Result<Option<String>, Fault> {
        let mut all = attributes(&self.client, &self.url, &self.name, name.clone()).await?;
        Ok(all.remove(&name))
    }
}

async fn attributes(
    client: &Client,
    url: &str,
    name: &str,
    wanted: QueueAttributeName,
) -> Result<HashMap<QueueAttributeName, String>, Fault> {
    let ask = client.get_queue_attributes().queue_url(url).attribute_names(wanted);
    let override_ = aws_sdk_sqs::config::Builder::default().timeout_config(super::short());
    let answer = ask.customize().config_override(override_).send().await;
    let answer = answer.map_err(|error| fault("GetQueueAttributes", name, error))?;
    Ok(answer.attributes.unwrap_or_default())
}
