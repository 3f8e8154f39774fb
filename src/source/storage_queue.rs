//! Reads an Azure Storage Queue.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Lease, Nature, Source};
use crate::{
    cloud::{
        Context,
        azure::{
            self,
            queue::{MESSAGE_BYTES_MAX, Queue, VISIBILITY_MAX, name_problem},
        },
    },
    config::units::Span,
    fault::Fault,
};

mod receive;
mod settle;

/// An Azure Storage Queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "StorageQueueSource")]
pub struct Config {
    /// Name of the queue.
    pub queue: String,
    /// How long a message stays hidden from others before its lease is extended again, 2s to 7d,
    /// in whole seconds.
    #[serde(default = "default_visibility")]
    pub visibility: Span,
    /// How producers wrote the messages.
    #[serde(default)]
    pub encoding: Encoding,
    /// Gets at once at most, 32 messages each. One is made while the queue is idle; more are added
    /// while they come back full.
    #[serde(default = "default_concurrency")]
    pub concurrency_max: usize,
    /// How to reach Azure, where it differs from the file's `azure`.
    #[serde(default)]
    pub azure: azure::Config,
}

/// How producers write messages into a Storage Queue, which holds text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "StorageQueueSourceEncoding")]
pub enum Encoding {
    /// Base64 where a message is base64 of text, else text. Base64 of binary stays as it is,
    /// because a word or a number can look the same: name `base64` for it.
    #[default]
    Auto,
    /// Base64. A message that is not comes as it is.
    Base64,
    /// Text as it stands.
    Text,
}

fn default_visibility() -> Span {
    Span(Duration::from_secs(30))
}

fn default_concurrency() -> usize {
    8
}

impl Config {
    pub(super) fn nature(&self) -> Nature {
        Nature {
            what: "a Storage Queue",
            ordered_by: None,
            is_log: false,
            event_bytes: MESSAGE_BYTES_MAX,
            hold_max: VISIBILITY_MAX - Duration::from_secs(86_400),
        }
    }

    pub(super) fn problems(&self, defaults: &azure::Config) -> Vec<(&'static str, String)> {
        let mut problems = self.azure.problems();
        problems.extend(self.azure.or(defaults).no_account().map(|text| ("", text)));
        problems.extend(name_problem(&self.queue));
        let visibility = Duration::from_secs(2)..=VISIBILITY_MAX;
        if !visibility.contains(&*self.visibility) || self.visibility.subsec_nanos() != 0 {
            let text = "a message can be hidden for whole seconds, 2s to 7d; write one like `30s`";
            problems.push(("visibility", text.to_owned()));
        }
        if !(1..=64).contains(&self.concurrency_max) {
            problems.push(("concurrency_max", "must be between 1 and 64".to_owned()));
        }
        problems
    }

    pub(super) async fn source(&self, context: &Context) -> Result<Source, Fault> {
        let queue = Queue::find(&self.queue, &self.azure.or(&context.clouds.azure)).await?;
        Ok(Source {
            receive: Box::new(receive::QueueReceive::new(
                queue.clone(),
                context.name.clone(),
                self,
            )),
            settle: Box::new(settle::QueueSettle::new(queue)),
            ordered: false,
            lease: Some(Lease { duration: *self.visibility, total_max: VISIBILITY_MAX }),
            hold: None,
        })
    }
}
