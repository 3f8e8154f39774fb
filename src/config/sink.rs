//! A sink as the file has it: one connector, and how that is treated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "azure")]
use crate::sink::{event_hubs, storage_queue};
#[cfg(feature = "aws")]
use crate::sink::{sns, sqs};
use crate::{
    deliver::{
        breaker::BreakerConfig, bucket::LimitConfig, concurrency::ConcurrencyConfig,
        flow::FlowConfig,
    },
    sink::{SinkConfig, memory},
};

/// A sink: one connector, and what holds for every kind. Routes that send to it share its limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Sink")]
pub struct SinkEntry {
    /// An event hub.
    #[cfg(feature = "azure")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_hubs: Option<event_hubs::Config>,
    /// A queue in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<memory::Config>,
    /// An SQS queue.
    #[cfg(feature = "aws")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqs: Option<sqs::Config>,
    /// An SNS topic.
    #[cfg(feature = "aws")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sns: Option<sns::Config>,
    /// An Azure Storage Queue.
    #[cfg(feature = "azure")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_queue: Option<storage_queue::Config>,
    /// How much it is sent in a second. Without it: as much as it takes.
    pub limit: LimitConfig,
    /// How many requests are under way at once.
    pub concurrency: ConcurrencyConfig,
    /// When it is left alone because it does not work.
    pub breaker: BreakerConfig,
}

impl SinkEntry {
    /// The names of the kinds, as the file spells them.
    pub const KINDS: &'static [&'static str] = &[
        #[cfg(feature = "azure")]
        "event_hubs",
        "memory",
        #[cfg(feature = "aws")]
        "sqs",
        #[cfg(feature = "aws")]
        "sns",
        #[cfg(feature = "azure")]
        "storage_queue",
    ];

    /// The connector, if exactly one is given.
    #[must_use]
    pub fn kind(&self) -> Option<SinkConfig> {
        let kinds = [
            #[cfg(feature = "azure")]
            self.event_hubs.clone().map(SinkConfig::EventHubs),
            self.memory.clone().map(SinkConfig::Memory),
            #[cfg(feature = "aws")]
            self.sqs.clone().map(SinkConfig::Sqs),
            #[cfg(feature = "aws")]
            self.sns.clone().map(SinkConfig::Sns),
            #[cfg(feature = "azure")]
            self.storage_queue.clone().map(SinkConfig::StorageQueue),
        ];
        let mut given = kinds.into_iter().flatten();
        let kind = given.next();
        if given.next().is_some() { None } else { kind }
    }

    /// How it is treated.
    #[must_use]
    pub fn flow(&self) -> FlowConfig {
        FlowConfig { limit: self.limit, concurrency: self.concurrency, breaker: self.breaker }
    }
}
