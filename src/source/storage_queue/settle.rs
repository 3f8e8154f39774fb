//! Deletes, returns and extends, one request per message: the service has no batches.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use futures::{StreamExt, stream};

use crate::{
    cloud::azure::{
        queue::{Queue, visibility_s},
        storage::Refusal,
    },
    delivery::{Outcome, Settled, Token},
    fault::Fault,
    source::{Backlog, Extended, Settle},
};

/// Requests under way at once within one call.
const CONCURRENCY: usize = 32;
const POP_RECEIPT: HeaderName = HeaderName::from_static("x-ms-popreceipt");

pub(super) struct QueueSettle {
    queue: Queue,
    /// The newest pop receipt of each open delivery whose lease was extended, by serial. Every
    /// extension makes a new one, and the one before it is void.
    receipts: HashMap<u64, String>,
}

/// A message, and the receipt that shows it is ours.
struct Held<'a> {
    id: &'a str,
    receipt: &'a str,
}

impl QueueSettle {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, receipts: HashMap::new() }
    }

    fn held<'a>(&'a self, token: &'a Token) -> Option<Held<'a>> {
        let Token::Lease { serial, handle } = token else { return None };
        let (id, receipt) = handle.split_once(' ')?;
        let receipt = self.receipts.get(serial).map_or(receipt, String::as_str);
        Some(Held { id, receipt })
    }

    /// Deletes a message or gives it back. One that is gone, or another's by now, is settled.
    async fn end(&self, settled: &Settled) -> Result<(), Fault> {
        let Some(held) = self.held(&settled.token) else { return Ok(()) };
        let ended = match settled.outcome {
            Outcome::Returned { after } => {
                self.hide(&held, after.unwrap_or_default()).await.map(drop)
            }
            _ => {
                let request = self.queue.client.delete_message(held.id, held.receipt, None);
                self.queue.call("DeleteMessage", request).await.map(drop)
            }
        };
        match ended {
            Err(refusal) if !is_gone(&refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    /// Hides a message for `by` from now and answers its new receipt.
    async fn hide(&self, held: &Held<'_>, by: Duration) -> Result<Option<String>, Refusal> {
        let visibility = visibility_s(by);
        let request = self.queue.client.update_message(held.id, held.receipt, visibility, None);
        let answer = self.queue.call("UpdateMessage", request).await?;
        Ok(answer.headers().get_optional_str(&POP_RECEIPT).map(ToOwned::to_owned))
    }
}

/// Whether the message is deleted or expired, or its receipt is void because its lease has ended
/// and another has it.
/// <https://learn.microsoft.com/rest/api/storageservices/delete-message>
fn is_gone(refusal: &Refusal) -> bool {
    ["MessageNotFound", "PopReceiptMismatch"].contains(&refusal.code.as_str())
}

#[async_trait]
impl Settle for QueueSettle {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let this = &*self;
        let end = |settled: Settled| async move { (this.end(&settled).await, settled) };
        let ended: Vec<_> =
            stream::iter(done).map(end).buffer_unordered(CONCURRENCY).collect().await;
        let mut failed = Vec::new();
        for (answer, settled) in ended {
            match answer {
                Err(fault) => failed.push((settled, fault)),
                Ok(()) => {
                    if let Token::Lease { serial, .. } = settled.token {
                        self.receipts.remove(&serial);
                    }
                }
            }
        }
        failed
    }

    async fn extend(&mut self, open: &[Token], by: Duration) -> Extended {
        let this = &*self;
        let extend = |token: Token| async move {
            let answer = match this.held(&token) {
                Some(held) => this.hide(&held, by).await,
                None => Ok(None),
            };
            (token, answer)
        };
        let tokens = open.to_vec();
        let answers: Vec<_> =
            stream::iter(tokens).map(extend).buffer_unordered(CONCURRENCY).collect().await;
        let mut extended = Extended::default();
        for (token, answer) in answers {
            let Token::Lease { serial, .. } = token else { continue };
            match answer {
                Ok(Some(receipt)) => _ = self.receipts.insert(serial, receipt),
                Ok(None) => extended.lost.push(token),
                Err(refusal) if is_gone(&refusal) => {
                    self.receipts.remove(&serial);
                    extended.lost.push(token);
                }
                Err(refusal) => {
                    extended.unknown.push(token);
                    extended.fault = Some(refusal.fault);
                }
            }
        }
        extended
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        let (events, oldest) = tokio::join!(self.queue.messages(), self.queue.oldest());
        // Who may receive need not be allowed to peek.
        let (events, oldest) = (events?, oldest.unwrap_or_default());
        Ok(vec![Backlog { partition: String::new(), events, oldest, reach: None }])
    }
}
