//! Writes to an SQS queue.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_sqs::{
    primitives::Blob,
    types::{
        MessageAttributeValue, MessageSystemAttributeNameForSends as System,
        MessageSystemAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{sync::Mutex, time::Instant};

use super::{Labels, Limits, Nature, Order, Outgoing, Sink};
use crate::{
    cloud::{
        Context,
        aws::{
            self, BATCH_BYTES_MAX, BATCH_MAX, entry_fault, fault,
            queue::{MESSAGE_BYTES_MAX, Queue, name_problem},
        },
    },
    config::units::Span,
    dead_letter::DeadLetter,
    decode::xray,
    event::{Event, Value},
    fault::{Fault, Verdict},
    metadata::{self, Packed},
};

/// An SQS queue, standard or FIFO. A FIFO queue's group is the event's ordering key, its
/// deduplication id follows from the route's name and the event's source and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SqsSink")]
pub struct Config {
    /// Name or URL of the queue.
    pub queue: String,
    /// How long SQS holds each message back, 15m at most. Not for FIFO queues, which know a delay
    /// for the whole queue only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Span>,
    /// How to reach AWS, where it differs from the file's `aws`.
    #[serde(default)]
    pub aws: aws::Config,
}

/// Requests at once, unless the sink's `concurrency` says otherwise.
pub(super) const IN_FLIGHT: usize = 8;

/// The longest delay of a message.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-timers.html>
const DELAY_MAX: Duration = Duration::from_secs(900);
/// The longest message group or deduplication id.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
const FIFO_ID_MAX: usize = 128;
/// A queue's limits can be edited while we run; they are read again this often.
const REREAD_EVERY: Duration = Duration::from_secs(3600);

impl Config {
    pub(super) fn nature(&self) -> Nature {
        let fifo = self.queue.ends_with(".fifo");
        Nature {
            what: if fifo { "a FIFO queue" } else { "an SQS queue" },
            keeps_order: fifo,
            event_bytes: MESSAGE_BYTES_MAX,
            needs_key: fifo,
            attributes: Some(metadata::aws::ATTRIBUTES_MAX),
            in_flight: IN_FLIGHT,
            loses: None,
        }
    }

    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems: Vec<_> =
            name_problem(&self.queue).map(|text| ("queue", text)).into_iter().collect();
        match self.delay {
            Some(delay) if *delay > DELAY_MAX => {
                problems.push(("delay", "SQS holds a message back for 15m at most".to_owned()));
            }
            Some(delay) if delay.subsec_nanos() != 0 => {
                let text = "SQS holds a message back for whole seconds; write one like `30s`";
                problems.push(("delay", text.to_owned()));
            }
            Some(_) if self.queue.ends_with(".fifo") => {
                let text = "a FIFO queue has one delay for all messages; set it at the queue";
                problems.push(("delay", text.to_owned()));
            }
            _ => {}
        }
        problems
    }

    /// What a message has beside body and attributes.
    pub(super) fn labels(&self, outgoing: &Outgoing) -> Labels {
        let Outgoing { route, event, .. } = outgoing;
        let fifo = self.queue.ends_with(".fifo");
        let group = has_group(fifo, event).then(|| (GROUP, group_id(event)));
        let deduplication = fifo.then(|| (DEDUPLICATION, deduplication_id(route, event)));
        let delay = self.delay.map(|delay| ("delay", delay.to_string()));
        [group, deduplication, delay].into_iter().flatten().collect()
    }

    pub(super) async fn sink(&self, context: &Context) -> Result<Arc<dyn Sink>, Fault> {
        let queue = Queue::find(&self.queue, &self.aws.or(&context.clouds.aws)).await?;
        Ok(Arc::new(SqsSink {
            message_bytes: AtomicUsize::new(queue.message_bytes),
            read: Mutex::new(Instant::now()),
            delay: self.delay.map(|delay| i32::try_from(delay.as_secs()).unwrap_or_default()),
            queue,
        }))
    }
}

struct SqsSink {
    queue: Queue,
    /// The queue's own limit, which may change.
    message_bytes: AtomicUsize,
    read: Mutex<Instant>,
    delay: Option<i32>,
}

impl SqsSink {
    /// Reads the queue's limit again once in a while. A failure leaves the last known one.
    async fn reread(&self) {
        let Ok(mut read) = self.read.try_lock() else { return };
        if read.elapsed() < REREAD_EVERY {
            return;
        }
        *read = Instant::now();
        let bytes = self.queue.number(QueueAttributeName::MaximumMessageSize).await;
        if let Some(bytes) = bytes.ok().flatten().and_then(|bytes| usize::try_from(bytes).ok()) {
            self.message_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    fn entry(&self, n: usize, outgoing: &Outgoing) -> Option<SendMessageBatchRequestEntry> {
        let Outgoing { route, event, packed } = outgoing;
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(n.to_string())
            .message_body(String::from_utf8_lossy(&packed.body))
            .set_delay_seconds(self.delay);
        for (name, value) in &packed.attributes {
            entry = entry.message_attributes(&**name, attribute(value)?);
        }
        if let Some(header) = event.trace.parent.as_deref().and_then(xray::header) {
            let value = MessageSystemAttributeValue::builder().data_type("String");
            let value = value.string_value(header).build().ok()?;
            entry = entry.message_system_attributes(System::AwsTraceHeader, value);
        }
        if has_group(self.queue.fifo, event) {
            entry = entry.message_group_id(group_id(event));
        }
        if self.queue.fifo {
            entry = entry.message_deduplication_id(deduplication_id(route, event));
        }
        entry.build().ok()
    }
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

/// The names of a message's group and deduplication id, for people.
pub(super) const GROUP: &str = "message group";
pub(super) const DEDUPLICATION: &str = "deduplication id";

/// Whether the message has a group. In a standard queue it means fairness between tenants, not
/// order.
fn has_group(fifo: bool, event: &Event) -> bool {
    fifo || event.key.is_some()
}

/// The message group: the ordering key, or a group of its own for an event without one.
pub(super) fn group_id(event: &Event) -> String {
    let key = event.key.as_deref().unwrap_or(&event.id);
    let legal = key.bytes().all(|byte| byte.is_ascii_graphic());
    if legal && !key.is_empty() && key.len() <= FIFO_ID_MAX {
        key.to_owned()
    } else {
        digest(&[key])
    }
}

/// The same whenever a route sends an event, so that a replay after a crash collapses; another for
/// each route, because what two of them make of one event is no repeat. A dead letter is none of its
/// event, which the queue may have got, nor of the one that another route, a later journey of the
/// event, or a redrive has parked: it would be taken for that one, and be lost.
pub(super) fn deduplication_id(route: &str, event: &Event) -> String {
    let Some(record) = &event.dead_letter else {
        return digest(&[route, &event.source, &event.id]);
    };
    let DeadLetter { resource, position, .. } = &**record;
    digest(&[&event.source, &event.id, &record.copy(), resource, position])
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[async_trait]
impl Sink for SqsSink {
    fn limits(&self) -> Limits {
        Limits {
            events: BATCH_MAX,
            bytes: BATCH_BYTES_MAX,
            event_bytes: self.message_bytes.load(Ordering::Relaxed),
            order: if self.queue.fifo { Order::OnePerBatch } else { Order::Lost },
            in_flight: IN_FLIGHT,
        }
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        Ok(metadata::aws::pack(event))
    }

    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        self.reread().await;
        answered(batch, |batch| self.request(batch)).await
    }

    async fn probe(&self) -> Result<(), Fault> {
        self.queue.number(QueueAttributeName::MaximumMessageSize).await.map(drop)
    }
}

impl SqsSink {
    async fn request(&self, batch: &[Outgoing]) -> Answers {
        const OP: &str = "SendMessageBatch";
        let entries = batch.iter().enumerate().filter_map(|(n, outgoing)| self.entry(n, outgoing));
        let request = self.queue.client.send_message_batch().queue_url(&self.queue.url);
        let timeouts = aws_sdk_sqs::config::Builder::default().timeout_config(aws::short());
        let request = request.set_entries(Some(entries.collect())).customize();
        match request.config_override(timeouts).send().await {
            Ok(answer) => {
                let sent = answer.successful.iter().map(|entry| entry.id.as_str());
                let failed = answer.failed.iter().map(|entry| {
                    let text = entry.message.as_deref();
                    (entry.id.as_str(), entry_fault(OP, entry.sender_fault, &entry.code, text))
                });
                Ok(answers(OP, batch.len(), sent, failed))
            }
            Err(error) => Err(fault(OP, &self.queue.name, error)),
        }
    }
}

/// What became of a request: an answer for each of its events, or a failure as a whole.
pub(super) type Answers = Result<Vec<Result<(), Fault>>, Fault>;

/// Answers for each event of `batch`. A request that is refused as a whole names no culprit, and
/// nothing of it was accepted: each event is then asked for by itself, so that a bad one cannot
/// take its neighbours along into the dead letter.
pub(super) async fn answered<'a, F>(
    batch: &'a [Outgoing],
    request: impl Fn(&'a [Outgoing]) -> F,
) -> Vec<Result<(), Fault>>
where
    F: Future<Output = Answers>,
{
    match request(batch).await {
        Ok(answers) => answers,
        Err(Fault { verdict: Verdict::Retry { .. }, .. }) if batch.len() > 1 => {
            let mut answers = Vec::with_capacity(batch.len());
            for one in batch.chunks(1) {
                answers.extend(request(one).await.unwrap_or_else(|fault| vec![Err(fault)]));
            }
            answers
        }
        Err(fault) => batch.iter().map(|_| Err(fault.again())).collect(),
    }
}

/// One answer per event from the two lists of a batch's answer. An entry that is in neither was
/// not accepted as far as anybody knows. A service that fails every one of several entries by its
/// own fault does not work, and none of them is to blame; one that fails alone may be.
pub(super) fn answers<'a>(
    op: &'static str,
    count: usize,
    sent: impl Iterator<Item = &'a str>,
    failed: impl Iterator<Item = (&'a str, Fault)>,
) -> Vec<Result<(), Fault>> {
    let mut by_id: HashMap<&str, Result<(), Fault>> = sent.map(|id| (id, Ok(()))).collect();
    by_id.extend(failed.map(|(id, fault)| (id, Err(fault))));
    let missing = || Err(Fault::busy(op, "unanswered", "the service gave no answer for the entry"));
    let mut answers: Vec<_> =
        (0..count).map(|n| by_id.remove(n.to_string().as_str()).unwrap_or_else(missing)).collect();
    let is_its_own = |answer: &Result<(), Fault>| {
        matches!(answer, Err(Fault { verdict: Verdict::Retry { .. }, .. }))
    };
    if count > 1 && answers.iter().all(is_its_own) {
        for fault in answers.iter_mut().filter_map(|answer| answer.as_mut().err()) {
            fault.verdict = Verdict::Busy { after: None };
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_dead_letter_is_no_repeat_of_its_event_nor_of_another_one() {
        let event = crate::transform::tests::event();
        let parked = |route: &str, position: &str| {
            let record = DeadLetter {
                route: Some(route.into()),
                sink: Some("hub".into()),
                class: "refused".into(),
                error: "no".into(),
                attempts: 1,
                received: 1,
                source: "orders".into(),
                resource: "aws:sqs:orders".into(),
                position: position.into(),
                hops: 0,
                part: None,
                arrived: OffsetDateTime::UNIX_EPOCH,
                first: OffsetDateTime::UNIX_EPOCH,
                last: OffsetDateTime::UNIX_EPOCH,
                redriven: 0,
                run: None,
            };
            Event { dead_letter: Some(Arc::new(record)), ..event.clone() }
        };
        let all = [event.clone(), parked("a", "1"), parked("b", "1"), parked("a", "2")];
        let ids = all.iter().map(|event| deduplication_id("a", event));
        assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), all.len());
        let first = (**all[1].dead_letter.as_ref().unwrap()).clone();
        let id = |record| {
            let event = Event { dead_letter: Some(Arc::new(record)), ..event.clone() };
            deduplication_id("a", &event)
        };
        let again = DeadLetter { received: 2, ..first.clone() };
        assert_eq!(id(again), deduplication_id("a", &all[1]));
        let redriven = DeadLetter { redriven: 1, run: Some("r".into()), ..first };
        assert_ne!(id(redriven), deduplication_id("a", &all[1]));
    }

    #[test]
    fn what_two_routes_make_of_an_event_is_no_repeat_and_what_one_sends_again_is() {
        let event = crate::transform::tests::event();
        let id =
            |route, id: &str| deduplication_id(route, &Event { id: id.into(), ..event.clone() });
        assert_eq!(id("a", "1"), id("a", "1"));
        assert_ne!(id("a", "1"), id("b", "1"));
        assert_ne!(id("a", "1"), id("a", "2"));
        assert!(id("a", "1").len() <= FIFO_ID_MAX);
    }

    #[test]
    fn a_service_that_fails_all_of_several_by_its_own_fault_does_not_work() {
        let verdicts = |count: usize, sent: &[&str]| -> Vec<Option<Verdict>> {
            let numbers: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            let failed = numbers.iter().filter(|id| !sent.contains(&id.as_str()));
            let failed =
                failed.map(|id| (id.as_str(), entry_fault("op", false, "InternalError", None)));
            let answers = answers("op", count, sent.iter().copied(), failed);
            answers.iter().map(|it| it.as_ref().err().map(|fault| fault.verdict)).collect()
        };
        let (busy, retry) = (Verdict::Busy { after: None }, Verdict::Retry { after: None });
        assert_eq!(verdicts(2, &[]), [Some(busy); 2]);
        // It works, and this one it does not take.
        assert_eq!(verdicts(2, &["0"]), [None, Some(retry)]);
        assert_eq!(verdicts(1, &[]), [Some(retry)]);
    }

    #[test]
    fn each_event_gets_its_own_answer() {
        let failed = [
            ("3", entry_fault("op", true, "InvalidMessageContents", None)),
            ("5", entry_fault("op", false, "RequestThrottled", None)),
        ];
        let sent = ["0", "1", "2", "4", "6", "7", "8"];
        let answers = answers("op", 10, sent.into_iter(), failed.into_iter());
        let verdicts: Vec<_> =
            answers.iter().map(|a| a.as_ref().err().map(|f| f.verdict)).collect();
        let mut expected = vec![None; 10];
        expected[3] = Some(Verdict::Reject);
        expected[5] = Some(Verdict::Busy { after: None });
        // Nobody has said that the last one is there.
        expected[9] = Some(Verdict::Busy { after: None });
        assert_eq!(verdicts, expected);
    }
}
