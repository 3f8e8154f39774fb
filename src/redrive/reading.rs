//! How the messages of a dead-letter sink are read: by a source of the same kind and the same
//! place.

use std::collections::HashMap;

use crate::{
    cloud::Context,
    config::plan::SinkPlan,
    delivery::Token,
    fault::Fault,
    sink::SinkConfig,
    source::{Source, SourceConfig},
};

#[cfg(any(feature = "aws", feature = "azure"))]
use crate::config::units::Span;

/// What the configuration of a sink does not say of where its messages can be read.
#[derive(Debug, Clone, Default)]
pub struct Via {
    /// The SQS queue that is subscribed to its topic.
    pub queue: Option<String>,
    /// The consumer group of its hub; `$Default` where it is left out.
    pub consumer_group: Option<String>,
}

/// How long a message of a Storage Queue stays hidden if the redrive dies.
#[cfg(feature = "azure")]
const VISIBILITY: Span = seconds(300);
/// A hub's partitions are read as they are at the beginning.
#[cfg(feature = "azure")]
const HOUR: Span = seconds(3600);
/// How long SQS holds a poll: an empty one says that the queue is.
#[cfg(feature = "aws")]
const WAIT: Span = seconds(1);

#[cfg(any(feature = "aws", feature = "azure"))]
const fn seconds(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}

/// The source that reads what a sink has written.
///
/// # Errors
/// It cannot be read; in words, and what can be done about it.
pub(super) fn source_of(sink: &SinkPlan, via: &Via) -> Result<SourceConfig, String> {
    let name = &sink.name;
    if via.queue.is_some() && !is_topic(&sink.config) {
        return Err(format!("`{name}` is read where it writes to; leave out the queue"));
    }
    let none = SourceConfig::default();
    Ok(match &sink.config {
        SinkConfig::Memory(config) => SourceConfig { memory: Some(config.clone()), ..none },
        #[cfg(feature = "aws")]
        SinkConfig::Sqs(config) => {
            let (queue, aws) = (config.queue.clone(), config.aws.clone());
            let poll = crate::source::sqs::Poll { wait: WAIT, ..Default::default() };
            SourceConfig { sqs: Some(crate::source::sqs::Config { queue, poll, aws }), ..none }
        }
        #[cfg(feature = "aws")]
        SinkConfig::Sns(config) => {
            let Some(queue) = via.queue.clone() else {
                return Err(format!(
                    "`{name}` is a topic, which cannot be read: name an SQS queue that is \
                     subscribed to `{}` and holds its dead letters, with `--queue`",
                    config.topic
                ));
            };
            let (poll, aws) =
                (crate::source::sqs::Poll { wait: WAIT, ..Default::default() }, config.aws.clone());
            SourceConfig { sqs: Some(crate::source::sqs::Config { queue, poll, aws }), ..none }
        }
        #[cfg(feature = "azure")]
        SinkConfig::StorageQueue(config) => {
            use crate::{sink::storage_queue as sink, source::storage_queue as source};
            let encoding = match config.encoding {
                sink::Encoding::Base64 => source::Encoding::Base64,
                sink::Encoding::Text => source::Encoding::Text,
            };
            let config = source::Config {
                queue: config.queue.clone(),
                visibility: VISIBILITY,
                encoding,
                concurrency_max: 8,
                azure: config.azure.clone(),
            };
            SourceConfig { storage_queue: Some(config), ..none }
        }
        #[cfg(feature = "azure")]
        SinkConfig::EventHubs(config) => {
            use crate::source::event_hubs as source;
            let config = source::Config {
                namespace: config.namespace.clone(),
                connection_string: config.connection_string.clone(),
                endpoint: config.endpoint.clone(),
                hub: config.hub.clone(),
                azure: config.azure.clone(),
                consumer_group: via.consumer_group.clone().unwrap_or_else(source::default_group),
                start: source::Start::Earliest,
                on_recreated: source::OnRecreated::Earliest,
                discover_every: HOUR,
                prefetch: source::default_prefetch(),
                sharing: None,
                client: config.client,
            };
            SourceConfig { event_hubs: Some(config), ..none }
        }
    })
}

/// A dead-letter sink that can be read.
pub(super) struct Opened {
    /// What reads it.
    pub(super) source: Source,
    /// What is to come of a log, which never ends; none of a queue.
    pub(super) unread: Option<Unread>,
}

/// Connects a source, and asks a log for its end.
///
/// # Errors
/// Either fails.
pub(super) async fn open(config: &SourceConfig, context: &Context) -> Result<Opened, Fault> {
    let mut source = config.build(context).await?;
    let mut unread = None;
    if source.lease.is_none() {
        let backlog = source.settle.backlog().await?;
        unread = Some(Unread(backlog.into_iter().map(|of| (of.partition, of.events)).collect()));
    }
    Ok(Opened { source, unread })
}

/// How many entries of a log have not come yet, by partition, of those that it had when it was
/// opened. What it was given since, by the redrive itself among others, does not count: it stands
/// behind them in its partition, and may come before those of another.
#[derive(Debug)]
pub(super) struct Unread(HashMap<String, u64>);

impl Unread {
    /// One has come, for the first time.
    pub(super) fn came(&mut self, token: &Token) {
        let Token::Position { partition, .. } = token else { return };
        if let Some(left) = self.0.get_mut(&**partition) {
            *left = left.saturating_sub(1);
        }
    }

    /// How many are to come.
    pub(super) fn left(&self) -> u64 {
        self.0.values().sum()
    }
}

fn is_topic(config: &SinkConfig) -> bool {
    match config {
        #[cfg(feature = "aws")]
        SinkConfig::Sns(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::deliver::flow::FlowConfig;

    fn sink(config: Json) -> SinkPlan {
        let config = serde_json::from_value(config).unwrap();
        SinkPlan { name: "parked".into(), config, flow: FlowConfig::default() }
    }

    /// The source as the file would have it.
    fn read(config: Json, via: &Via) -> Result<Json, String> {
        let source = source_of(&sink(config), via)?;
        let Json::Object(mut shown) = serde_json::to_value(source).unwrap() else { panic!() };
        shown.remove("format");
        shown.remove("max_in_flight");
        Ok(shown.into())
    }

    #[test]
    fn a_queue_is_read_where_it_is_written_to() {
        let none = Via::default();
        let aws = json!({ "region": "eu-west-1" });
        let sqs = read(json!({ "sqs": { "queue": "q", "aws": aws } }), &none).unwrap();
        assert_eq!(
            (&sqs["sqs"]["queue"], &sqs["sqs"]["aws"]["region"]),
            (&json!("q"), &aws["region"])
        );
        let text = json!({ "storage_queue": { "queue": "q-1", "encoding": "text" } });
        let text = read(text, &none).unwrap();
        let storage = &text["storage_queue"];
        assert_eq!((&storage["queue"], &storage["encoding"]), (&json!("q-1"), &json!("text")));
        let memory = json!({ "memory": { "queue": "q", "kind": "fifo" } });
        assert_eq!(read(memory, &none).unwrap()["memory"]["kind"], "fifo");
    }

    #[test]
    fn a_hub_is_read_from_its_start() {
        let hub = json!({ "event_hubs": { "namespace": "ns", "hub": "h" } });
        let via = Via { consumer_group: Some("ops".into()), ..Via::default() };
        let source = read(hub.clone(), &via).unwrap();
        let hub_source = &source["event_hubs"];
        assert_eq!(hub_source["start"], "earliest");
        assert_eq!(hub_source["consumer_group"], "ops");
        assert_eq!(read(hub, &Via::default()).unwrap()["event_hubs"]["consumer_group"], "$Default");
    }

    #[test]
    fn what_stands_behind_the_end_of_one_partition_is_not_taken_for_what_is_left_of_another() {
        let mut unread = Unread([("0".to_owned(), 1), ("1".to_owned(), 2)].into());
        let token = |partition: &str| Token::Position {
            partition: partition.into(),
            tenure: 0,
            sequence: 7,
        };
        for partition in ["0", "0", "0", "1"] {
            unread.came(&token(partition));
        }
        assert_eq!(unread.left(), 1);
        unread.came(&token("1"));
        assert_eq!(unread.left(), 0);
    }

    #[test]
    fn a_topic_needs_a_queue_that_is_subscribed_to_it() {
        let topic = || json!({ "sns": { "topic": "parked-events" } });
        let told = read(topic(), &Via::default()).unwrap_err();
        assert!(told.contains("parked-events") && told.contains("--queue"), "{told}");
        let via = Via { queue: Some("inbox".into()), ..Via::default() };
        assert_eq!(read(topic(), &via).unwrap()["sqs"]["queue"], "inbox");
        let told = read(json!({ "sqs": { "queue": "q" } }), &via).unwrap_err();
        assert!(told.contains("leave out the queue"), "{told}");
    }
}
