//! Fetches the bodies that messages refer to, between a source and its pipeline.
//!
//! A body that is lost is left for `decode` to say, so that its message is dead-lettered. While the
//! store is away, such messages go back to their source, and with them what came after them in
//! their key.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};

use super::Receive;
use crate::{
    claim::{BODY_MAX, Reference, Store, store::Missed},
    decode::{self, Format},
    delivery::{Claimed, Delivery, Received},
    fault::Fault,
};

/// Bodies on their way from the store at once.
const CONCURRENCY: usize = 8;

/// A source whose messages may refer to bodies in a store.
pub struct ResolvingReceive {
    inner: Box<dyn Receive>,
    store: Arc<Store>,
    format: Format,
    /// What was received and not handed out yet.
    held: VecDeque<Held>,
    /// Why the store did not answer, to be told by the next call.
    trouble: Option<Fault>,
}

struct Held {
    delivery: Delivery,
    /// To the body that has not been looked for.
    reference: Option<Reference>,
}

impl Held {
    fn found(&mut self, claimed: Claimed) {
        let received = (*self.delivery.received).clone();
        self.delivery.received = Arc::new(Received { claimed: Some(claimed), ..received });
        self.reference = None;
    }

    fn is_away(&self) -> bool {
        self.delivery.received.claimed == Some(Claimed::Away)
    }
}

impl ResolvingReceive {
    /// `inner`, whose messages of `format` may refer to bodies in `store`.
    #[must_use]
    pub fn new(inner: Box<dyn Receive>, store: Arc<Store>, format: Format) -> Self {
        Self { inner, store, format, held: VecDeque::new(), trouble: None }
    }

    fn hold(&mut self, received: Vec<Delivery>) {
        let held = received.into_iter().map(|delivery| {
            let reference = decode::reference(&delivery.received, self.format);
            Held { delivery, reference }
        });
        self.held.extend(held);
    }

    /// The next of what is held, with its bodies. Cancel-safe.
    async fn hand_out(&mut self) -> Vec<Delivery> {
        let count = self.next_len();
        self.resolve(count).await;
        self.held.drain(..count).map(|held| held.delivery).collect()
    }

    /// How many of what is held can be handed out together, bounded by the bodies they refer to.
    fn next_len(&self) -> usize {
        let mut bytes = 0_usize;
        let fits = self.held.iter().take_while(|held| {
            let claimed = match (&held.reference, &held.delivery.received.claimed) {
                (Some(reference), _) => reference.bytes,
                (None, Some(Claimed::Body(body))) => body.len(),
                _ => 0,
            };
            bytes = bytes.saturating_add(claimed);
            bytes <= BODY_MAX
        });
        // One that is too large by itself is refused by the store.
        fits.count().max(1).min(self.held.len())
    }

    /// Looks for the bodies of the first `count`. What is found stays found if this is cancelled.
    async fn resolve(&mut self, count: usize) {
        let store = &self.store;
        let wanted: Vec<_> = self.held.iter().take(count).enumerate().collect();
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter_map(|(at, held)| Some((at, held.reference.clone()?)))
            .collect();
        let fetch =
            |(at, reference): (usize, Reference)| async move { (at, store.get(&reference).await) };
        let mut fetched = stream::iter(wanted).map(fetch).buffer_unordered(CONCURRENCY);
        while let Some((at, body)) = fetched.next().await {
            let claimed = match body {
                Ok(body) => Claimed::Body(body),
                Err(Missed::Lost(why)) => Claimed::Lost(why),
                Err(Missed::Away(why)) => {
                    self.trouble = Some(why);
                    Claimed::Away
                }
            };
            if let Some(held) = self.held.get_mut(at) {
                held.found(claimed);
            }
        }
        drop(fetched);
        self.hold_back();
    }

    /// Sends what came after a message that goes back, in its key, back with it.
    fn hold_back(&mut self) {
        let mut keys = HashSet::new();
        for held in &mut self.held {
            let Some(key) = held.delivery.received.key.clone() else { continue };
            if held.is_away() {
                keys.insert(key);
            } else if keys.contains(&key) {
                held.found(Claimed::Away);
            }
        }
    }
}

#[async_trait]
impl Receive for ResolvingReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        // What could not be fetched was handed out to be returned; the pause and the alarm that
        // follow a fault come now.
        if let Some(fault) = self.trouble.take() {
            return Err(fault);
        }
        if self.held.is_empty() {
            let received = self.inner.receive().await?;
            self.hold(received);
        }
        Ok(self.hand_out().await)
    }

    async fn wind_down(&mut self) -> Option<Result<Vec<Delivery>, Fault>> {
        if self.held.is_empty() {
            match self.inner.wind_down().await? {
                Ok(received) => self.hold(received),
                Err(fault) => return Some(Err(fault)),
            }
        }
        Some(Ok(self.hand_out().await))
    }

    async fn close(&mut self) -> Vec<Delivery> {
        let held = self.held.drain(..).map(|held| held.delivery);
        let mut left: Vec<Delivery> = held.collect();
        left.extend(self.inner.close().await);
        left
    }
}

#[cfg(test)]
mod tests;
