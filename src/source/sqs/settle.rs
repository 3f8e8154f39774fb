//! Deletes, returns and extends in batches of ten, each entry answered for by itself.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, QueueAttributeName,
};
use futures::{FutureExt, StreamExt, stream};

use crate::{
    cloud::aws::{BATCH_MAX, entry_fault, fault, queue::Queue},
    delivery::{Outcome, Settled, Token},
    fault::{Fault, Verdict},
    source::{Backlog, Extended, Settle},
};

/// Requests under way at once within one call.
const CONCURRENCY: usize = 8;
/// The request that sets how long messages stay hidden: longer, or no longer.
const HIDE: &str = "ChangeMessageVisibilityBatch";
/// The longest visibility timeout that can be asked for.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html>
const VISIBILITY_MAX: Duration = Duration::from_secs(43_200);

pub(super) struct SqsSettle(Queue);

impl SqsSettle {
    pub(super) fn new(queue: Queue) -> Self {
        Self(queue)
    }

    async fn delete(&self, chunk: Vec<Settled>) -> Vec<(Settled, Fault)> {
        const OP: &str = "DeleteMessageBatch";
        let entry = |(n, settled): (usize, &Settled)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(n.to_string());
            entry.receipt_handle(handle(&settled.token)).build().ok()
        };
        let entries = chunk.iter().enumerate().filter_map(entry).collect();
        let request = self.0.client.delete_message_batch().queue_url(&self.0.url);
        match short(request.set_entries(Some(entries)).customize()).send().await {
            Ok(answer) => refused(OP, chunk, &answer.failed),
            Err(error) => all_failed(chunk, &fault(OP, &self.0.name, error)),
        }
    }

    /// Sets how long messages stay hidden from now. Answers what was refused.
    async fn hide(&self, chunk: &[(Token, Duration)]) -> Result<Vec<BatchResultErrorEntry>, Fault> {
        let entry = |(n, (token, by)): (usize, &(Token, Duration))| {
            let seconds = by.min(&VISIBILITY_MAX).as_millis().div_ceil(1000);
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(n.to_string())
                .receipt_handle(handle(token))
                .visibility_timeout(i32::try_from(seconds).unwrap_or(i32::MAX))
                .build()
                .ok()
        };
        let entries = chunk.iter().enumerate().filter_map(entry).collect();
        let request = self.0.client.change_message_visibility_batch().queue_url(&self.0.url);
        let answer = short(request.set_entries(Some(entries)).customize()).send().await;
        Ok(answer.map_err(|error| fault(HIDE, &self.0.name, error))?.failed)
    }

    async fn give_back(&self, chunk: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let delay = |settled: &Settled| match settled.outcome {
            Outcome::Returned { after } => after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let hidden: Vec<_> = chunk.iter().map(|s| (s.token.clone(), delay(s))).collect();
        match self.hide(&hidden).await {
            Ok(failed) => refused(HIDE, chunk, &failed),
            Err(fault) => all_failed(chunk, &fault),
        }
    }
}

/// Adds what has become of the leases of `chunk`: one that was not extended for a passing reason is
/// asked for again, long before it ends.
fn judge(chunk: &[Token], failed: &[BatchResultErrorEntry], extended: &mut Extended) {
    for entry in failed {
        let text = entry.message.as_deref();
        let fault = entry_fault(HIDE, entry.sender_fault, &entry.code, text);
        let token = entry.id.parse().ok().and_then(|n: usize| chunk.get(n)).cloned();
        if is_gone(entry) || fault.verdict == Verdict::Reject {
            extended.lost.extend(token);
        } else {
            extended.unknown.extend(token);
            extended.fault = Some(fault);
        }
    }
}

/// Requests that settle do not poll, and must not hold up a lease's extension.
fn short<O, E, B>(
    request: aws_sdk_sqs::client::customize::CustomizableOperation<O, E, B>,
) -> aws_sdk_sqs::client::customize::CustomizableOperation<O, E, B> {
    let timeouts = crate::cloud::aws::short();
    request.config_override(aws_sdk_sqs::config::Builder::default().timeout_config(timeouts))
}

fn handle(token: &Token) -> &str {
    match token {
        Token::Lease { handle, .. } => handle,
        Token::Position { .. } => "",
    }
}

/// The entries of `chunk` that SQS refused. One whose message is gone, or back in the queue,
/// cannot be settled any more: it counts as refused for good, and comes again if it is there.
fn refused(
    op: &'static str,
    chunk: Vec<Settled>,
    failed: &[BatchResultErrorEntry],
) -> Vec<(Settled, Fault)> {
    let of = |n: usize| failed.iter().find(|entry| entry.id == n.to_string());
    let pair = |(n, settled): (usize, Settled)| {
        let entry = of(n)?;
        if is_gone(entry) && !settled.outcome.is_done() {
            return None;
        }
        let text = entry.message.as_deref();
        let fault = match is_gone(entry) {
            true => {
                Fault::reject(op, "lease_lost", format!("{}: the message comes again", entry.code))
            }
            false => entry_fault(op, entry.sender_fault, &entry.code, text),
        };
        Some((settled, fault))
    };
    chunk.into_iter().enumerate().filter_map(pair).collect()
}

fn is_gone(entry: &BatchResultErrorEntry) -> bool {
    let gone = ["ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"];
    gone.iter().any(|code| entry.code.ends_with(code))
}

fn all_failed(chunk: Vec<Settled>, fault: &Fault) -> Vec<(Settled, Fault)> {
    chunk.into_iter().map(|settled| (settled, fault.again())).collect()
}

#[async_trait]
impl Settle for SqsSettle {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let (done, back): (Vec<_>, Vec<_>) = done.into_iter().partition(|s| s.outcome.is_done());
        let this = &*self;
        let deletes = chunks(done).map(|chunk| this.delete(chunk).boxed());
        let returns = chunks(back).map(|chunk| this.give_back(chunk).boxed());
        let requests: Vec<_> = deletes.chain(returns).collect();
        stream::iter(requests).buffer_unordered(CONCURRENCY).concat().await
    }

    async fn extend(&mut self, open: &[Token], by: Duration) -> Extended {
        let this = &*self;
        let hide = |chunk: Vec<Token>| {
            async move {
                let hidden: Vec<_> = chunk.iter().map(|token| (token.clone(), by)).collect();
                (this.hide(&hidden).await, chunk)
            }
            .boxed()
        };
        let requests: Vec<_> = chunks(open.to_vec()).map(hide).collect();
        let answers: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENCY).collect().await;
        let mut extended = Extended::default();
        for (answer, chunk) in answers {
            match answer {
                Ok(failed) => judge(&chunk, &failed, &mut extended),
                Err(fault) => {
                    extended.unknown.extend(chunk);
                    extended.fault = Some(fault);
                }
            }
        }
        extended
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        let events = self.0.number(QueueAttributeName::ApproximateNumberOfMessages).await?;
        let partition = String::new();
        Ok(vec![Backlog {
            partition,
            events: events.unwrap_or_default(),
            oldest: None,
            reach: None,
        }])
    }
}

/// `list` in batches.
fn chunks<T>(list: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut rest = list.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<T> = rest.by_ref().take(BATCH_MAX).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(serial: u64) -> Settled {
        let token = Token::Lease { serial, handle: serial.to_string().into() };
        Settled { token, outcome: Outcome::Delivered }
    }

    fn error(id: &str, sender: bool, code: &str) -> BatchResultErrorEntry {
        let entry = BatchResultErrorEntry::builder().id(id).sender_fault(sender).code(code);
        entry.build().unwrap()
    }

    #[test]
    fn only_refused_entries_are_settled_again() {
        let chunk: Vec<_> = (0..10).map(settled).collect();
        let failed =
            [error("3", false, "InternalError"), error("7", true, "ReceiptHandleIsInvalid")];
        let again = refused("DeleteMessageBatch", chunk, &failed);
        let found: Vec<_> = again.iter().map(|(s, f)| (handle(&s.token), f.class)).collect();
        assert_eq!(found, [("3", "failed"), ("7", "lease_lost")]);
    }

    #[test]
    fn a_lease_that_was_not_extended_is_either_lost_or_asked_for_again() {
        let chunk: Vec<_> = (0..10).map(|serial| settled(serial).token).collect();
        let gone = error("7", true, "ReceiptHandleIsInvalid");
        let throttled = error("3", true, "RequestThrottled");
        let mut extended = Extended::default();
        judge(&chunk, &[throttled, gone], &mut extended);
        assert_eq!(extended.lost, [chunk[7].clone()]);
        assert_eq!(extended.unknown, [chunk[3].clone()]);
        assert_eq!(extended.fault.unwrap().verdict, Verdict::Busy { after: None });
    }

    #[test]
    fn batches_are_full_and_keep_their_order() {
        let sizes: Vec<_> = chunks((0..23).collect()).map(|chunk| chunk.len()).collect();
        assert_eq!(sizes, [10, 10, 3]);
    }
}
