//! SQS and SNS against LocalStack: the contract, and what only they do. What of the contract is
//! missing here is in `acceptance.rs`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_sqs::types::{
    MessageAttributeValue, MessageSystemAttributeName as System,
    MessageSystemAttributeNameForSends as SystemToSend, MessageSystemAttributeValue,
    QueueAttributeName,
};
use eventferry::{
    cloud::{Clouds, Context},
    decode::{Format, decode},
    delivery::{Outcome, Settled},
    event::{Event, Trace, Value},
    fault::Verdict,
    sink::{Outgoing, Sink, SinkConfig},
    source::{Source, SourceConfig},
    state::StateStore,
};
use serde_json::{Value as Json, json};
use tokio::sync::RwLockReadGuard;

use crate::{
    clouds::{cord::Cord, localstack, shared, unique},
    fixture::{Fixture, put, receive},
    rig,
};

/// A queue, or a topic with the queue behind it.
pub struct Aws {
    pub source: Json,
    pub sink: Json,
    fifo: bool,
    body_max: usize,
    clouds: Clouds,
    cord: Cord,
    _shared: RwLockReadGuard<'static, ()>,
}

/// Twice what a machine under load takes to extend a lease.
const VISIBILITY_S: u32 = 6;

async fn context(name: &str, state: &Arc<dyn StateStore>) -> Context {
    let clouds = Clouds { aws: localstack::settings().await, ..Clouds::default() };
    Context { clouds, ..rig::context(name, state) }
}

pub async fn standard_queue() -> Aws {
    queue("", VISIBILITY_S).await
}

pub async fn fifo_queue() -> Aws {
    queue(".fifo", VISIBILITY_S).await
}

async fn queue(suffix: &str, visibility_s: u32) -> Aws {
    let queue = localstack::queue(&format!("{}{suffix}", unique("queue")), visibility_s).await;
    let source = json!({ "sqs": { "queue": queue, "poll": { "wait": "2s" } } });
    let sink = json!({ "sqs": { "queue": queue } });
    Aws::new(source, sink, !suffix.is_empty(), (1 << 20) - 4096).await
}

/// A topic with a queue behind it.
async fn topic(raw: bool, suffix: &str) -> Aws {
    let topic = format!("{}{suffix}", unique("topic"));
    let queue = localstack::queue(&format!("{}{suffix}", unique("behind")), VISIBILITY_S).await;
    let source = json!({ "sns": { "topic": topic, "queue": queue, "create": true, "raw": raw,
        "poll": { "wait": "2s" } } });
    let sink = json!({ "sns": { "topic": topic } });
    let aws = Aws::new(source, sink, !suffix.is_empty(), (256 << 10) - 4096).await;
    // The first connect makes the topic, which a sink never does.
    drop(aws.source(&rig::store()).await);
    aws
}

impl Aws {
    async fn new(source: Json, sink: Json, fifo: bool, body_max: usize) -> Self {
        let _shared = shared().await;
        let (aws, cord) = localstack::on_a_cord().await;
        let clouds = Clouds { aws, ..Clouds::default() };
        Self { source, sink, fifo, body_max, clouds, cord, _shared }
    }

    fn context(&self, name: &str, state: &Arc<dyn StateStore>) -> Context {
        Context { clouds: self.clouds.clone(), ..rig::context(name, state) }
    }
}

#[async_trait]
impl Fixture for Aws {
    async fn source(&self, store: &Arc<dyn StateStore>) -> Source {
        let config: SourceConfig = serde_json::from_value(self.source.clone()).unwrap();
        config.build(&self.context("aws", store)).await.unwrap()
    }
    async fn sink(&self) -> Arc<dyn Sink> {
        let config: SinkConfig = serde_json::from_value(self.sink.clone()).unwrap();
        config.build(&self.context("aws", &rig::store())).await.unwrap()
    }
    fn visibility(&self) -> Option<Duration> {
        Some(Duration::from_secs(VISIBILITY_S.into()))
    }
    fn body_max(&self) -> usize {
        self.body_max
    }
    fn ordered(&self) -> bool {
        self.fifo
    }
    async fn left(&self, _: &Arc<dyn StateStore>) -> usize {
        let settings = self.source.get("sqs").or_else(|| self.source.get("sns")).unwrap();
        localstack::count(settings["queue"].as_str().unwrap()).await
    }
    async fn cut(&self) {
        self.cord.cut();
    }
}

mod standard {
    use super::standard_queue as fixture;
    crate::contract!(fixture =>
        round_trips_bytes_and_attributes, redelivers_after_return, returns_after_the_delay,
        redelivers_after_a_dropped_delivery, settles_out_of_order, survives_partial_batch_failure,
        survives_reconnect, drains_on_stop, loses_nothing_when_killed,
    );
}

mod fifo {
    use super::fifo_queue as fixture;
    crate::contract!(fixture =>
        round_trips_bytes_and_attributes, redelivers_after_return,
        redelivers_after_a_dropped_delivery, settles_out_of_order, survives_partial_batch_failure,
        keeps_order_per_key, drains_on_stop, loses_nothing_when_killed,
    );
}

pub mod sns_raw {
    pub async fn fixture() -> super::Aws {
        super::topic(true, "").await
    }
    crate::contract!(fixture =>
        round_trips_bytes_and_attributes, redelivers_after_return, returns_after_the_delay,
        redelivers_after_a_dropped_delivery, settles_out_of_order, survives_partial_batch_failure,
        extends_long_leases, stops_extending_when_settled, survives_reconnect, drains_on_stop,
        loses_nothing_when_killed,
    );
}

mod sns_fifo {
    async fn fixture() -> super::Aws {
        super::topic(true, ".fifo").await
    }
    crate::contract!(fixture => keeps_order_per_key, loses_nothing_when_killed);
}

mod sns_enveloped {
    async fn fixture() -> super::Aws {
        super::topic(false, "").await
    }
    crate::contract!(fixture => round_trips_bytes_and_attributes, redelivers_after_return);
}

#[tokio::test]
async fn a_foreign_message_keeps_its_attributes_and_trace() {
    let place = standard_queue().await;
    let client = localstack::sqs().await;
    let queue = place.sink["sqs"]["queue"].as_str().unwrap();
    let url = client.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
    let attribute = |kind: &str, value: &str| {
        MessageAttributeValue::builder().data_type(kind).string_value(value).build().unwrap()
    };
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client
        .send_message()
        .queue_url(url)
        .message_body("hello")
        .message_attributes("tenant", attribute("String", "acme"))
        .message_attributes("amount", attribute("Number.eur", "12.50"))
        .message_attributes("traceparent", attribute("String", parent))
        .send()
        .await
        .unwrap();
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, 1).await;
    let event = decode(&deliveries[0].received, Format::Auto).unwrap();
    assert_eq!(event.trace.parent.as_deref(), Some(parent));
    assert_eq!(event.attributes.text("tenant"), Some("acme"));
    let amount = Value::Labelled("eur".into(), Box::new(Value::Number("12.50".into())));
    assert_eq!(event.attributes.get("amount"), Some(&amount));
    assert!(event.source.starts_with("aws:sqs:us-east-1:000000000000:queue-"), "{}", event.source);
    assert!(event.time.is_some() && deliveries[0].attempt == 1);
}

#[tokio::test]
async fn deleting_what_is_gone_is_no_endless_task() {
    let place = standard_queue().await;
    put(&place, rig::events("e", 1, 0)).await;
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, 1).await;
    let settled = || {
        let done = deliveries.iter();
        done.map(|d| Settled { token: d.token.clone(), outcome: Outcome::Delivered }).collect()
    };
    assert!(source.settle.settle(settled()).await.is_empty());
    for (_, fault) in source.settle.settle(settled()).await {
        assert_eq!(fault.verdict, Verdict::Reject, "{fault}");
    }
}

#[tokio::test]
async fn a_returned_message_does_not_wait_for_its_lease() {
    let place = queue("", 3600).await;
    put(&place, rig::events("e", 1, 0)).await;
    let mut source = place.source(&rig::store()).await;
    for attempt in 1..=2 {
        // The patience of `receive` is far below the lease of an hour.
        let deliveries = receive(&mut source, 1).await;
        assert_eq!(deliveries[0].attempt, attempt);
        let token = deliveries[0].token.clone();
        let returned = Settled { token, outcome: Outcome::Returned { after: None } };
        assert!(source.settle.settle(vec![returned]).await.is_empty());
    }
}

#[tokio::test]
async fn what_is_missing_is_named_with_what_to_do() {
    let context = context("orders", &rig::store()).await;
    let source = |config: Json| async {
        let config: SourceConfig = serde_json::from_value(config).unwrap();
        config.build(&context).await.err().expect("it is not there")
    };
    let fault = source(json!({ "sqs": { "queue": "no-such-queue" } })).await;
    assert_eq!(fault.verdict, Verdict::Stop);
    let text = fault.to_string();
    assert!(text.starts_with("GetQueueUrl failed: no-such-queue: "), "{text}");
    assert!(text.ends_with("create it, or mend its name, region or account"), "{text}");
    let fault = source(json!({ "sns": { "topic": "no-such-topic" } })).await;
    assert_eq!(fault.verdict, Verdict::Stop);
    let text = "ListTopics failed: no-such-topic: there is no such topic; create it, or mend its name or region";
    assert_eq!(fault.to_string(), text);
}

/// The messages of a queue, as a foreign program sees them.
async fn foreign_receive(queue: &str) -> Vec<aws_sdk_sqs::types::Message> {
    let client = localstack::sqs().await;
    let url = client.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
    let request = client.receive_message().queue_url(url).wait_time_seconds(10);
    let request = request.message_system_attribute_names(System::All);
    request.send().await.unwrap().messages.unwrap_or_default()
}

#[tokio::test]
async fn a_standard_queue_learns_the_key_for_fairness() {
    let place = standard_queue().await;
    let event = Event { key: Some("tenant-7".into()), ..rig::event("e", "x") };
    put(&place, vec![event]).await;
    let messages = foreign_receive(place.sink["sqs"]["queue"].as_str().unwrap()).await;
    let system = messages[0].attributes.as_ref().unwrap();
    assert_eq!(system.get(&System::MessageGroupId).map(String::as_str), Some("tenant-7"));
}

/// What reads X-Ray's header alone, as Lambda's instrumentation does, finds the trace, and we find
/// its.
#[tokio::test]
async fn the_trace_goes_and_comes_in_the_header_of_aws_as_well() {
    let place = standard_queue().await;
    let queue = place.sink["sqs"]["queue"].as_str().unwrap();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let header = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
    let trace = Trace { parent: Some(parent.into()), ..Trace::default() };
    put(&place, vec![Event { trace, ..rig::event("e", "x") }]).await;
    let messages = foreign_receive(queue).await;
    let system = messages[0].attributes.as_ref().unwrap();
    assert_eq!(system.get(&System::AwsTraceHeader).map(String::as_str), Some(header));

    drop(place);
    let place = standard_queue().await;
    let client = localstack::sqs().await;
    let queue = place.sink["sqs"]["queue"].as_str().unwrap();
    let url = client.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(header);
    client
        .send_message()
        .queue_url(url)
        .message_body("hello")
        .message_system_attributes(SystemToSend::AwsTraceHeader, value.build().unwrap())
        .send()
        .await
        .unwrap();
    let mut source = place.source(&rig::store()).await;
    let deliveries = receive(&mut source, 1).await;
    let event = decode(&deliveries[0].received, Format::Auto).unwrap();
    assert_eq!(event.trace.parent.as_deref(), Some(parent));
}

#[tokio::test]
async fn a_topic_may_write_to_a_queue_that_was_made_for_it_and_is_filtered_as_the_file_says() {
    let topic = unique("filtered");
    let build = |filter: Json| {
        let config = json!({ "sns": { "topic": topic, "create": true, "filter": filter,
            "poll": { "wait": "2s" } } });
        let config: SourceConfig = serde_json::from_value(config).unwrap();
        async move { config.build(&context("orders", &rig::store()).await).await.unwrap() }
    };
    drop(build(json!({ "policy": { "tenant": ["acme"] } })).await);
    let body = json!({ "policy": { "order": { "tenant": ["globex"] } }, "scope": "body" });
    drop(build(body).await);
    let mut source = build(json!({ "policy": { "tenant": ["globex"] } })).await;
    let sink: SinkConfig = serde_json::from_value(json!({ "sns": { "topic": topic } })).unwrap();
    let sink = sink.build(&context("orders", &rig::store()).await).await.unwrap();
    let outgoing = |tenant: &str| {
        let mut event = rig::event(tenant, "{}");
        event.attributes.set("tenant", Value::string(tenant));
        Outgoing {
            route: "test".into(),
            packed: sink.pack(&event).unwrap(),
            event: Arc::new(event),
        }
    };
    for answer in sink.send(&[outgoing("acme"), outgoing("globex")]).await {
        answer.unwrap();
    }
    let deliveries = receive(&mut source, 1).await;
    let ids: Vec<_> = deliveries
        .iter()
        .map(|delivery| decode(&delivery.received, Format::Auto).unwrap().id)
        .collect();
    assert_eq!(ids, [Arc::<str>::from("globex")]);
    let queue = format!("eventferry-{topic}");
    let client = localstack::sqs().await;
    let url = client.get_queue_url().queue_name(queue).send().await.unwrap().queue_url.unwrap();
    let attributes = client.get_queue_attributes().queue_url(url);
    let attributes = attributes.attribute_names(QueueAttributeName::All).send().await.unwrap();
    let attributes = attributes.attributes.unwrap();
    assert_eq!(attributes[&QueueAttributeName::MessageRetentionPeriod], "1209600");
    assert!(attributes[&QueueAttributeName::Policy].contains(&format!(":{topic}\"")));
}
