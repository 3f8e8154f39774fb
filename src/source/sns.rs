//! Reads an SNS topic through a queue that is subscribed to it.

use aws_sdk_sqs::types::QueueAttributeName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{
    Nature, Source,
    sqs::{self, Poll},
};
use crate::{
    cloud::{
        Context,
        aws::{
            self, fault,
            queue::{Queue, name_problem},
            topic::Topic,
        },
    },
    fault::Fault,
};

/// An SNS topic, read through a queue that is subscribed to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SnsSource")]
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
    /// The filter policy of the subscription, as SNS spells it. Needs `create: true`, which then
    /// also changes the policy of a subscription that is there.
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
#[schemars(rename = "SnsFilter")]
pub struct Filter {
    /// The policy: fields and what they may be.
    pub policy: Json,
    /// What it looks at.
    #[serde(default)]
    pub scope: Scope,
}

/// What a filter policy looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SnsFilterScope")]
pub enum Scope {
    /// Message attributes.
    #[default]
    Attributes,
    /// The JSON body.
    Body,
}

impl Scope {
    /// As SNS spells it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Attributes => "MessageAttributes",
            Self::Body => "MessageBody",
        }
    }
}

/// Attributes of a subscription.
/// <https://docs.aws.amazon.com/sns/latest/api/API_SetSubscriptionAttributes.html>
const POLICY: &str = "FilterPolicy";
const SCOPE: &str = "FilterPolicyScope";

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
        let queue = self.queue.as_deref();
        problems.extend(queue.and_then(name_problem).map(|text| ("queue", text)));
        if self.create && queue.is_some_and(|queue| queue.contains("://")) {
            let text = "is a URL, which cannot be made; give the name of a queue";
            problems.push(("queue", text.to_owned()));
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
        match (subscription(&topic, &queue).await?, self.create) {
            (Some(subscription), true) => self.refilter(&topic, &subscription).await?,
            (Some(_), false) => {}
            (None, true) => self.subscribe(&topic, &queue).await?,
            (None, false) => return Err(self.unsubscribed(&topic.arn)),
        }
        Ok(sqs::source(queue, &context.name, self.poll))
    }

    /// With `create`, what is missing is no fault: it will be made.
    pub(super) async fn probe(&self, context: &Context) -> Result<(), Fault> {
        let settings = self.aws.or(&context.clouds.aws);
        let will_be_made = |fault: &Fault| self.create && fault.class == "missing";
        let topic = match Topic::find(&self.topic, &settings, false).await {
            // Nobody can choose an ARN.
            Err(fault) if will_be_made(&fault) && !self.topic.starts_with("arn:") => return Ok(()),
            found => found?,
        };
        let queue = match Queue::find(&self.queue(), &settings).await {
            Err(fault) if will_be_made(&fault) => return Ok(()),
            found => found?,
        };
        match subscription(&topic, &queue).await? {
            None if !self.create => Err(self.unsubscribed(&topic.arn)),
            _ => Ok(()),
        }
    }

    fn unsubscribed(&self, topic: &str) -> Fault {
        let name = self.queue();
        let text =
            format!("{name} is not subscribed to {topic}; subscribe it, or set `create: true`");
        Fault::stop("ListSubscriptionsByTopic", "unsubscribed", text)
    }

    async fn subscribe(&self, topic: &Topic, queue: &Queue) -> Result<(), Fault> {
        const OP: &str = "Subscribe";
        let mut request = topic
            .client
            .subscribe()
            .topic_arn(&topic.arn)
            .protocol("sqs")
            .endpoint(&queue.arn)
            .attributes("RawMessageDelivery", self.raw.to_string());
        if let Some(Filter { policy, scope }) = &self.filter {
            request =
                request.attributes(SCOPE, scope.as_str()).attributes(POLICY, policy.to_string());
        }
        request.send().await.map(drop).map_err(|error| fault(OP, &topic.arn, error))
    }

    /// Gives the subscription the filter policy of the file, where it has another one.
    async fn refilter(&self, topic: &Topic, subscription: &str) -> Result<(), Fault> {
        const OP: &str = "SetSubscriptionAttributes";
        let Some(Filter { policy, scope }) = &self.filter else { return Ok(()) };
        let asked = topic.client.get_subscription_attributes().subscription_arn(subscription);
        let asked = asked.send().await;
        let asked =
            asked.map_err(|error| fault("GetSubscriptionAttributes", subscription, error))?;
        let there = asked.attributes.unwrap_or_default();
        let same_scope =
            there.get(SCOPE).map_or(Scope::default().as_str(), String::as_str) == scope.as_str();
        let same_policy = there
            .get(POLICY)
            .and_then(|text| serde_json::from_str::<Json>(text).ok())
            .is_some_and(|there| there == *policy);
        let policy = policy.to_string();
        // A policy must fit its scope at every step; an empty one, which lets all pass, fits any.
        let steps: &[(&str, &str)] = match (same_scope, same_policy) {
            (true, true) => &[],
            (true, false) => &[(POLICY, &policy)],
            (false, _) => &[(POLICY, "{}"), (SCOPE, scope.as_str()), (POLICY, &policy)],
        };
        for (name, value) in steps {
            let set = topic.client.set_subscription_attributes().subscription_arn(subscription);
            let set = set.attribute_name(*name).attribute_value(*value).send().await;
            set.map_err(|error| fault(OP, subscription, error))?;
        }
        Ok(())
    }
}

/// Finds the queue, or makes it, and lets the topic write to it.
async fn create(name: &str, topic: &Topic, settings: &aws::Config) -> Result<Queue, Fault> {
    let client = aws_sdk_sqs::Client::new(&settings.load().await);
    let url = match client.get_queue_url().queue_name(name).send().await {
        Ok(found) => found.queue_url.unwrap_or_default(),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_queue_does_not_exist()) => {
            make(&client, name).await?
        }
        Err(error) => return Err(fault("GetQueueUrl", name, error)),
    };
    let queue = Queue::at(client, url).await?;
    let policy = queue.text(QueueAttributeName::Policy).await?;
    if let Some(policy) = policy_with(policy.as_deref(), &topic.arn, &queue.arn) {
        let set = queue.client.set_queue_attributes().queue_url(&queue.url);
        let set = set.attributes(QueueAttributeName::Policy, policy).send().await;
        set.map_err(|error| fault("SetQueueAttributes", name, error))?;
    }
    Ok(queue)
}

/// The longest that SQS keeps a message: 14 days. What is older is gone, so no queue of ours
/// keeps for less.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const RETENTION_MAX_S: u32 = 14 * 86_400;

async fn make(client: &aws_sdk_sqs::Client, name: &str) -> Result<String, Fault> {
    let retention = RETENTION_MAX_S.to_string();
    let mut request = client.create_queue().queue_name(name);
    request = request.attributes(QueueAttributeName::MessageRetentionPeriod, retention);
    if name.ends_with(".fifo") {
        request = request.attributes(QueueAttributeName::FifoQueue, "true");
    }
    let made = request.send().await.map_err(|error| fault("CreateQueue", name, error))?;
    Ok(made.queue_url.unwrap_or_default())
}

/// The queue's policy with one statement more, that lets this topic send to it; `None` where one
/// stands there already. Without it SNS delivers nothing, and says so to nobody.
/// <https://docs.aws.amazon.com/sns/latest/dg/subscribe-sqs-queue-to-sns-topic.html>
fn policy_with(policy: Option<&str>, topic: &str, queue: &str) -> Option<String> {
    let empty = || json!({ "Version": "2012-10-17" });
    let mut policy = policy.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(empty);
    let mut statements = match policy["Statement"].take() {
        Json::Array(statements) => statements,
        Json::Null => Vec::new(),
        only => vec![only],
    };
    let topic_text = Json::from(topic).to_string();
    let lets_topic = |statement: &Json| {
        statement["Effect"] == "Allow" && statement["Condition"].to_string().contains(&topic_text)
    };
    if statements.iter().any(lets_topic) {
        return None;
    }
    statements.push(json!({
        "Effect": "Allow",
        "Principal": { "Service": "sns.amazonaws.com" },
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": { "ArnEquals": { "aws:SourceArn": topic } },
    }));
    policy["Statement"] = Json::Array(statements);
    Some(policy.to_string())
}

/// The ARN of the subscription of `queue` to `topic`.
async fn subscription(topic: &Topic, queue: &Queue) -> Result<Option<String>, Fault> {
    const OP: &str = "ListSubscriptionsByTopic";
    let list = topic.client.list_subscriptions_by_topic().topic_arn(&topic.arn);
    let mut pages = list.into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| fault(OP, &topic.arn, error))?;
        let of_queue = |s: &&aws_sdk_sns::types::Subscription| s.endpoint() == Some(&queue.arn);
        let Some(found) = page.subscriptions().iter().find(of_queue) else { continue };
        // The place of the ARN until the owner of a queue in another account has confirmed.
        return match found.subscription_arn() {
            Some(arn) if arn.starts_with("arn:") => Ok(Some(arn.to_owned())),
            _ => {
                let name = &queue.name;
                let text = format!(
                    "the subscription of {name} to {} waits to be confirmed; confirm it",
                    topic.arn
                );
                Err(Fault::stop(OP, "unconfirmed", text))
            }
        };
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "arn:aws:sns:eu-west-1:1:orders";
    const QUEUE: &str = "arn:aws:sqs:eu-west-1:1:orders-out";

    fn statements(policy: &str) -> Vec<Json> {
        let policy: Json = serde_json::from_str(policy).unwrap();
        assert_eq!(policy["Version"], "2012-10-17");
        policy["Statement"].as_array().unwrap().clone()
    }

    #[test]
    fn a_topic_may_write_beside_whoever_may_already() {
        let first = policy_with(None, TOPIC, QUEUE).unwrap();
        assert_eq!(statements(&first).len(), 1);
        assert_eq!(policy_with(Some(&first), TOPIC, QUEUE), None);
        // The name of the first begins with the name of the second.
        let second = policy_with(Some(&first), "arn:aws:sns:eu-west-1:1:order", QUEUE).unwrap();
        assert_eq!(statements(&second)[..1], statements(&first));
        assert_eq!(statements(&second).len(), 2);
    }

    #[test]
    fn a_single_statement_of_somebody_else_is_kept() {
        let deny = json!({ "Effect": "Deny", "Principal": "*", "Action": "*",
            "Condition": { "ArnEquals": { "aws:SourceArn": TOPIC } } });
        let policy = json!({ "Version": "2012-10-17", "Statement": deny }).to_string();
        let with = statements(&policy_with(Some(&policy), TOPIC, QUEUE).unwrap());
        assert_eq!((with.len(), &with[0]), (2, &deny));
    }
}
