//! Reads an SQS queue.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Lease, Nature, Source};
use crate::{
    cloud::{
        Context,
        aws::{
            self, LONG_POLL_MAX,
            queue::{IN_FLIGHT_MAX, MESSAGE_BYTES_MAX, Queue, name_problem},
        },
    },
    config::units::Span,
    fault::Fault,
};

mod receive;
mod settle;

/// An SQS queue, standard or FIFO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SqsSource")]
pub struct Config {
    /// Name or URL of the queue.
    pub queue: String,
    /// How this queue is polled.
    #[serde(default)]
    pub poll: Poll,
    /// How to reach AWS, where it differs from the file's `aws`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub aws: aws::Config,
}

fn is_default(config: &aws::Config) -> bool {
    *config == aws::Config::default()
}

/// How a queue is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SqsPoll")]
pub struct Poll {
    /// How long a poll of an empty queue is held by SQS: `1s` to `20s`.
    pub wait: Span,
    /// Polls at once at most. One is under way while the queue is idle; more are added while they
    /// come back full.
    pub concurrency_max: usize,
}

impl Default for Poll {
    fn default() -> Self {
        Self { wait: Span(LONG_POLL_MAX), concurrency_max: 8 }
    }
}

impl Poll {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        // A poll that SQS does not hold at all would ask an empty queue without a pause.
        let held = Duration::from_secs(1)..=LONG_POLL_MAX;
        if !held.contains(&*self.wait) || self.wait.subsec_nanos() != 0 {
            let text = "SQS holds a poll for whole seconds, 1s to 20s; write one like `20s`";
            problems.push(("poll.wait", text.to_owned()));
        }
        if !(1..=64).contains(&self.concurrency_max) {
            problems.push(("poll.concurrency_max", "must be between 1 and 64".to_owned()));
        }
        problems
    }
}

impl Config {
    pub(super) fn nature(&self) -> Nature {
        nature(self.queue.ends_with(".fifo"))
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = self.poll.problems();
        problems.extend(name_problem(&self.queue).map(|text| ("queue", text)));
        problems
    }

    pub(super) async fn source(&self, context: &Context) -> Result<Source, Fault> {
        let queue = Queue::find(&self.queue, &self.aws.or(&context.clouds.aws)).await?;
        Ok(source(queue, &context.name, self.poll))
    }
}

pub(super) fn nature(fifo: bool) -> Nature {
    Nature {
        what: if fifo { "a FIFO queue" } else { "an SQS queue" },
        ordered_by: fifo.then_some("message group"),
        is_log: false,
        event_bytes: MESSAGE_BYTES_MAX,
        hold_max: IN_FLIGHT_MAX - Duration::from_secs(3600),
    }
}

/// A source that reads `queue`; the SNS source is one, too.
pub(super) fn source(queue: Queue, name: &Arc<str>, poll: Poll) -> Source {
    let lease = Lease { duration: queue.visibility, total_max: IN_FLIGHT_MAX };
    Source {
        ordered: queue.fifo,
        receive: Box::new(receive::SqsReceive::new(queue.clone(), name.clone(), poll)),
        settle: Box::new(settle::SqsSettle::new(queue)),
        lease: Some(lease),
        hold: None,
    }
}

/// How long a stop waits for polls that are under way.
const CLOSE_MAX: Duration = Duration::from_secs(1);
