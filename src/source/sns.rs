//! Reads an SNS topic through a queue that is subscribed to it.

use aws_sdk_sqs::types::QueueAttributeName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Nature, Source,
    sqs::{self, Poll},
};
use crate::{
    cloud::{
        Context,
        aws::{self, fault, queue::Queue, topic::Topic},
    },
    fault::Fault,
};

/// An SNS topic, read through a queue that is subscribed to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name or ARN of the topic.
    pub topic: String,
    /// Name of the queue; `eventferry-TOPIC` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Makes what is missing: the topic, the queue, its policy and the subscription.
    #[serde(default)]
    pub create: bool,
    /// Whether a subscription that is made here delivers raw. An existing one is read either way.
    #[serde(default = "yes")]
    pub raw: bool,
    /// The filter policy of a subscription that is made here, as SNS spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// How the queue is polled.
    #[serde(default)]
    pub poll: Poll,
    /// How to reach AWS, where it differs from the file's `aws`.
    #[serde(default)]
    pub aws: aws::Config,
}

/// A filter policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The policy: fields and what they may be.
    pub policy: serde_json::Value,
    /// What it looks at.
    #[serde(default)]
    pub scope: Scope,
}

/// What a filter policy looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Message attributes.
    #[default]
    Attributes,
    /// The JSON body.
    Body,
}

fn yes() -> bool {
    true
}

impl Config {
    fn queue(&self) -> String {
        let topic = self.topic.rsplit(':').next().unwrap_or_default();
        self.queue.clone().unwrap_or_else(|| format!("eventferry-{topic}"))
    }

    pub(super) fn nature(&self) -> Nature {
        sqs::nature(self.queue().ends_with(".fifo"))
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = self.poll.problems();
        if self.topic.is_empty() {
            problems.push(("topic", "names no topic; give its name or ARN".to_owned()));
        }
        if self.filter.is_some() && !self.create {
            let text = "is only set on a subscription made here; add `create: true`, or set it at the subscription";
            problems.push(("filter", text.to_owned()));
        }
        problems
    }

    pub(super) async fn source(&self, context: &Context) -> Result<Source, Fault> {
        let settings = self.aws.or(&context.clouds.aws);
        let topic = Topic::find(&self.topic, &settings, self.create).await?;
        let name = self.queue();
        let queue = match self.create {
            true => create(&name, &topic, &settings).await?,
            false => Queue::find(&name, &settings).await?,
        };
        match (is_subscribed(&topic, &queue).await?, self.create) {
            (true, _) => {}
            (false, true) => self.subscribe(&topic, &queue).await?,
            (false, false) => {
                let text = format!(
                    "{name} is not subscribed to {}; subscribe it, or set `create: true`",
                    topic.arn
                );
                return Err(Fault::stop("ListSubscriptionsByTopic", "unsubscribed", text));
            }
        }
        Ok(sqs::source(queue, &context.name, self.poll))
    }

    async fn subscribe(&self, topic: &Topic, queue: &Queue) -> Result<(), Fault> {
        let mut request = topic
            .client
            .subscribe()
            .topic_arn(&topic.arn)
            .protocol("sqs")
            .endpoint(&queue.arn)
            .attributes("RawMessageDelivery", self.raw.to_string());
        if let Some(Filter { policy, scope }) = &self.filter {
            let scope = if *scope == Scope::Body { "MessageBody" } else { "MessageAttributes" };
            request = request
                .attributes("FilterPolicyScope", scope)
                .attributes("FilterPolicy", policy.to_string());
        }
        request.send().await.map(drop).map_err(|error| fault("Subscribe", &topic.arn, error))
    }
}

/// Makes the queue, if it is not there, and lets the topic write to it. Every policy that stands
/// there already is left alone.
async fn create(name: &str, topic: &Topic, settings: &aws::Config) -> Result<Queue, Fault> {
    let client = aws_sdk_sqs::Client::new(&settings.load().await);
    let mut request = client.create_queue().queue_name(name);
    if name.ends_with(".fifo") {
        request = request.attributes(QueueAttributeName::FifoQueue, "true");
    }
    let url = match request.send().await {
        Ok(made) => made.queue_url.unwrap_or_default(),
        // It is there with other attributes, which are its owner's business.
        Err(error) if is_taken(&error) => return Queue::find(name, settings).await,
        Err(error) => return Err(fault("CreateQueue", name, error)),
    };
    let queue = Queue::at(client.clone(), url).await?;
    let policy = queue.client.get_queue_attributes().queue_url(&queue.url);
    let policy = policy.attribute_names(QueueAttributeName::Policy).send().await;
    let policy = policy.map_err(|error| fault("GetQueueAttributes", name, error))?;
    let policies = policy.attributes.unwrap_or_default();
    if policies.get(&QueueAttributeName::Policy).is_none_or(String::is_empty) {
        let policy = policy_for(&topic.arn, &queue.arn);
        let set = client.set_queue_attributes().queue_url(&queue.url);
        let set = set.attributes(QueueAttributeName::Policy, policy).send().await;
        set.map_err(|error| fault("SetQueueAttributes", name, error))?;
    }
    Ok(queue)
}

fn is_taken<R>(
    error: &aws_sdk_sqs::error::SdkError<aws_sdk_sqs::operation::create_queue::CreateQueueError, R>,
) -> bool {
    error.as_service_error().is_some_and(|error| error.is_queue_name_exists())
}

/// Lets this topic, and no other, send to the queue.
/// <https://docs.aws.amazon.com/sns/latest/dg/subscribe-sqs-queue-to-sns-topic.html>
fn policy_for(topic: &str, queue: &str) -> String {
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": { "Service": "sns.amazonaws.com" },
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": { "ArnEquals": { "aws:SourceArn": topic } },
        }],
    })
    .to_string()
}

async fn is_subscribed(topic: &Topic, queue: &Queue) -> Result<bool, Fault> {
    let list = topic.client.list_subscriptions_by_topic().topic_arn(&topic.arn);
    let mut pages = list.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| fault("ListSubscriptionsByTopic", &topic.arn, error))?;
        let of_queue = |s: &aws_sdk_sns::types::Subscription| s.endpoint() == Some(&queue.arn);
        if page.subscriptions().iter().any(of_queue) {
            return Ok(true);
        }
    }
    Ok(false)
}
