//! What sources without leases share: a log is read once and remembered by position, so what the
//! pipeline returns must be offered again from here, and only a contiguous prefix is checkpointed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    checkpoint::Watermark,
    delivery::{Delivery, Outcome, Received, Settled, Token},
    fault::Fault,
    state::{Checkpoint, PartitionKey, StateStore},
};

/// The open events and watermarks of a log's partitions. One half notes what it receives, the
/// other what is settled; they meet here once a batch.
pub struct Log {
    store: Arc<dyn StateStore>,
    tracks: Mutex<HashMap<Arc<str>, Track>>,
    returned: Notify,
}

struct Track {
    key: PartitionKey,
    watermark: Watermark,
    /// What is in the pipeline or waits to go there again.
    open: BTreeMap<i64, Arc<Received>>,
    waiting: BTreeMap<i64, Waiting>,
    /// The checkpoint that the store is known to have.
    stored: Option<i64>,
}

#[derive(Clone, Copy)]
struct Waiting {
    due: Instant,
    attempt: u32,
}

impl Log {
    /// A log whose checkpoints are kept in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, tracks: Mutex::default(), returned: Notify::new() }
    }

    /// Takes a partition up at its stored checkpoint, and answers it.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(
        &self,
        partition: &Arc<str>,
        key: PartitionKey,
    ) -> Result<Option<Checkpoint>, Fault> {
        let checkpoint = self.store.load(&key).await?;
        let stored = checkpoint.as_ref().map(|checkpoint| checkpoint.sequence);
        let watermark = Watermark::after(checkpoint.clone());
        let track =
            Track { key, watermark, open: BTreeMap::new(), waiting: BTreeMap::new(), stored };
        self.tracks().insert(partition.clone(), track);
        Ok(checkpoint)
    }

    /// Forgets a partition's checkpoint, here and in the store: its hub is a new one.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn forget(&self, partition: &Arc<str>) -> Result<(), Fault> {
        let Some(key) = self.tracks().get(partition).map(|track| track.key.clone()) else {
            return Ok(());
        };
        self.store.forget(&key).await?;
        if let Some(track) = self.tracks().get_mut(partition) {
            *track = Track {
                key,
                watermark: Watermark::default(),
                open: BTreeMap::new(),
                waiting: BTreeMap::new(),
                stored: None,
            };
        }
        Ok(())
    }

    /// Notes events that came from the log, in its order, and answers those to hand out: none
    /// that were seen before, and none whose key waits for an earlier event to go out again.
    pub fn receive(
        &self,
        partition: &Arc<str>,
        events: impl IntoIterator<Item = (i64, String, Received)>,
    ) -> Vec<Delivery> {
        let now = Instant::now();
        let mut tracks = self.tracks();
        let Some(track) = tracks.get_mut(partition) else { return Vec::new() };
        let mut fresh = Vec::new();
        for (sequence, offset, received) in events {
            if !track.watermark.received(sequence, &offset) {
                continue;
            }
            let received = Arc::new(received);
            let held = track.is_held(&received);
            track.open.insert(sequence, received.clone());
            if held {
                track.waiting.insert(sequence, Waiting { due: now, attempt: 1 });
            } else {
                fresh.push(delivery(partition, sequence, received, 1, now));
            }
        }
        fresh
    }

    /// Notes how deliveries ended.
    pub fn settle(&self, done: &[Settled]) {
        let now = Instant::now();
        let mut tracks = self.tracks();
        for Settled { token, outcome } in done {
            let Token::Position { partition, sequence } = token else { continue };
            let Some(track) = tracks.get_mut(partition) else { continue };
            match outcome {
                Outcome::Returned { after } if track.open.contains_key(sequence) => {
                    let due = now + after.unwrap_or_default();
                    let waiting = track.waiting.entry(*sequence);
                    waiting.or_insert(Waiting { due, attempt: 2 }).due = due;
                }
                Outcome::Returned { .. } => {}
                _ => {
                    track.open.remove(sequence);
                    track.waiting.remove(sequence);
                    track.watermark.settle(*sequence);
                }
            }
        }
        drop(tracks);
        self.returned.notify_one();
    }

    /// Waits for returned events to fall due and hands them out again, in the log's order per key.
    /// Cancel-safe.
    pub async fn redeliver(&self) -> Vec<Delivery> {
        loop {
            let notified = self.returned.notified();
            let (due, next) = self.take_due(Instant::now());
            if !due.is_empty() {
                return due;
            }
            match next {
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
                None => notified.await,
            }
        }
    }

    fn take_due(&self, now: Instant) -> (Vec<Delivery>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (partition, track) in self.tracks().iter_mut() {
            let mut blocked = HashSet::new();
            let open = &track.open;
            track.waiting.retain(|sequence, waiting| {
                let Some(received) = open.get(sequence) else { return false };
                if received.key.as_ref().is_some_and(|key| blocked.contains(key)) {
                    return true;
                }
                if waiting.due <= now {
                    let attempt = waiting.attempt;
                    due.push(delivery(partition, *sequence, received.clone(), attempt, now));
                    return false;
                }
                next = Some(next.map_or(waiting.due, |at| at.min(waiting.due)));
                blocked.extend(received.key.clone());
                true
            });
        }
        (due, next)
    }

    /// Writes the watermarks that have moved since the last write.
    ///
    /// # Errors
    /// The store does not answer; the next call tries again.
    pub async fn checkpoint(&self) -> Result<(), Fault> {
        let moved: Vec<_> = self
            .tracks()
            .values()
            .filter(|track| track.watermark.position() != track.stored)
            .filter_map(|track| Some((track.key.clone(), track.watermark.checkpoint()?.clone())))
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        self.store.store(&moved).await?;
        let mut tracks = self.tracks();
        for (key, written) in moved {
            if let Some(track) = tracks.values_mut().find(|track| track.key == key) {
                track.stored = Some(written.sequence);
            }
        }
        Ok(())
    }

    /// The settled position of a partition.
    #[must_use]
    pub fn position(&self, partition: &str) -> Option<i64> {
        self.tracks().get(partition).and_then(|track| track.watermark.position())
    }

    fn tracks(&self) -> MutexGuard<'_, HashMap<Arc<str>, Track>> {
        // Nothing panics while holding it; a poisoned lock would still hold consistent tracks.
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    /// Whether an earlier event of the same key waits to go out again.
    fn is_held(&self, received: &Received) -> bool {
        received.key.is_some()
            && self
                .waiting
                .keys()
                .filter_map(|sequence| self.open.get(sequence))
                .any(|earlier| earlier.key == received.key)
    }
}

fn delivery(
    partition: &Arc<str>,
    sequence: i64,
    received: Arc<Received>,
    attempt: u32,
    since: Instant,
) -> Delivery {
    let token = Token::Position { partition: partition.clone(), sequence };
    Delivery { received, attempt, token, since }
}
