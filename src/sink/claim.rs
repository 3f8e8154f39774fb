//! Stores the bodies that a batch refers to before the batch is sent: whoever reads a reference
//! finds what it is to.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};

use super::{Limits, Outgoing, Sink};
use crate::{
    claim::Store,
    event::{Event, Fitted},
    fault::Fault,
    metadata::Packed,
};

/// Bodies of a batch on their way to the store at once.
const CONCURRENCY: usize = 8;

/// A sink and the store for what is too large for it.
pub struct ClaimingSink {
    inner: Arc<dyn Sink>,
    store: Arc<Store>,
}

impl ClaimingSink {
    /// `inner`, whose large bodies go to `store`.
    #[must_use]
    pub fn new(inner: Arc<dyn Sink>, store: Arc<Store>) -> Self {
        Self { inner, store }
    }

    /// Stores the bodies that `batch` refers to.
    async fn store(&self, batch: &[Outgoing]) -> Result<(), Fault> {
        let puts: Vec<_> = batch
            .iter()
            .filter_map(|outgoing| match &outgoing.event.fitted {
                Some(Fitted::Claimed(whole, reference)) => {
                    Some(self.store.put(reference, &whole.body))
                }
                _ => None,
            })
            .collect();
        let mut puts = stream::iter(puts).buffer_unordered(CONCURRENCY);
        while let Some(stored) = puts.next().await {
            stored?;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for ClaimingSink {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        self.inner.pack(event)
    }

    /// Sends nothing unless all bodies are stored: to send a part of the batch could change the
    /// order of its keys.
    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        match self.store(batch).await {
            Ok(()) => self.inner.send(batch).await,
            Err(fault) => batch.iter().map(|_| Err(fault.again())).collect(),
        }
    }

    fn claims_root(&self) -> Option<&str> {
        Some(self.store.root())
    }

    async fn probe(&self) -> Result<(), Fault> {
        self.inner.probe().await
    }
}

#[cfg(test)]
mod tests;
