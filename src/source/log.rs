//! What sources without leases share: a log is read once and remembered by position, so what the
//! pipeline returns must be offered again from here, and only a contiguous prefix is checkpointed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use time::OffsetDateTime;
use tokio::{sync::Notify, time::Instant};

use crate::{
    checkpoint::Watermark,
    delivery::{Delivery, Outcome, Received, Row, Settled, Tenure, Ties, Token},
    fault::Fault,
    state::{Checkpoint, PartitionKey, StateStore},
};

/// The open events and watermarks of a log's partitions. One half notes what it receives, the
/// other what is settled; they meet here once a batch.
pub struct Log {
    store: Arc<dyn StateStore>,
    tracks: Mutex<BTreeMap<Arc<str>, Track>>,
    settled: Notify,
}

/// How far a partition is read past its oldest unsettled event: so much is repeated after a crash
/// at worst, and remembered until then.
const AHEAD_MAX: usize = 100_000;
/// How much may wait in memory to be handed out again, all partitions together. Above it, the
/// partitions that have something waiting are not read on.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// How many are handed out again at once.
const REDELIVERED_MAX: usize = 500;
/// What an event takes in memory beside its body and attributes, roughly.
const WAITING_EVENT_BYTES: usize = 1 << 10;

struct Track {
    key: PartitionKey,
    /// Once it is over, nothing is handed out or written any more.
    tenure: Tenure,
    hub_made: Option<i64>,
    /// Nothing more is handed out: it is to be given up once what is out has ended.
    is_closing: bool,
    watermark: Watermark,
    /// What is in the pipeline or waits to go there again.
    open: BTreeMap<i64, Open>,
    /// What waits, and until when.
    waiting: BTreeMap<i64, Instant>,
    /// How many wait, by key.
    held: HashMap<Arc<str>, usize>,
    /// What is out, by key, and how many these are.
    rows: HashMap<Arc<str>, (Row, usize)>,
    waiting_bytes: usize,
    /// The checkpoint that the store is known to have.
    stored: Option<i64>,
}

struct Open {
    received: Arc<Received>,
    /// Of the delivery that is out, or of the next one.
    attempt: u32,
}

impl Log {
    /// A log whose checkpoints are kept in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, tracks: Mutex::default(), settled: Notify::new() }
    }

    /// Takes a partition up at its stored checkpoint, for as long as `tenure` lasts, and answers it.
    /// An earlier tenure of it ends. What is checkpointed is of the hub that was made then.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn open(
        &self,
        partition: &Arc<str>,
        key: PartitionKey,
        tenure: &Tenure,
        hub_made: Option<i64>,
    ) -> Result<Option<Checkpoint>, Fault> {
        let checkpoint = self.store.load(&key).await?;
        let stored = checkpoint.as_ref().map(|checkpoint| checkpoint.sequence);
        let watermark = Watermark::after(checkpoint.clone());
        let track = Track::new(key, tenure.clone(), hub_made, watermark, stored);
        let mut tracks = self.tracks();
        // Whoever ends a tenure then takes its track away, and must find it here if it is put here.
        if !tenure.is_over()
            && let Some(earlier) = tracks.insert(partition.clone(), track)
            && earlier.tenure.number() != tenure.number()
        {
            earlier.tenure.end();
        }
        Ok(checkpoint)
    }

    /// Ends a tenure: what has not been sent will not be, and nothing of it is checkpointed.
    pub fn lose(&self, partition: &str, tenure: &Tenure) {
        tenure.end();
        let mut tracks = self.tracks();
        if tracks.get(partition).is_some_and(|track| track.tenure.number() == tenure.number()) {
            tracks.remove(partition);
        }
        drop(tracks);
        self.settled.notify_waiters();
    }

    /// Hands out nothing more of a partition, and waits until all that is out has ended.
    /// Cancel-safe.
    pub async fn close(&self, partition: &str) {
        if let Some(track) = self.tracks().get_mut(partition) {
            track.is_closing = true;
        }
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            let is_out = |track: &Track| track.open.len() > track.waiting.len();
            if !self.tracks().get(partition).is_some_and(is_out) {
                return;
            }
            settled.await;
        }
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
            let (tenure, made) = (track.tenure.clone(), track.hub_made);
            *track = Track::new(key, tenure, made, Watermark::default(), None);
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
        if track.is_closing || track.tenure.is_over() {
            return Vec::new();
        }
        let mut fresh = Vec::new();
        for (sequence, offset, received) in events {
            if !track.watermark.received(sequence, &offset) {
                continue;
            }
            let open = Open { received: Arc::new(received), attempt: 1 };
            if track.is_held(&open.received) {
                track.wait(sequence, open, now);
            } else {
                fresh.push(track.hand_out(partition, sequence, &open, now));
                track.open.insert(sequence, open);
            }
        }
        fresh
    }

    /// Notes how deliveries ended.
    pub fn settle(&self, done: &[Settled]) {
        let now = Instant::now();
        let mut tracks = self.tracks();
        for Settled { token, outcome } in done {
            let Token::Position { partition, tenure, sequence } = token else { continue };
            let Some(track) = tracks.get_mut(partition) else { continue };
            // What is left of an earlier tenure says nothing of what was received in this one.
            if track.tenure.number() != *tenure {
                continue;
            }
            // What waits is not out: it has been returned before, and once is enough.
            if track.waiting.contains_key(sequence) {
                continue;
            }
            let Some(open) = track.open.remove(sequence) else { continue };
            track.came_back(*sequence, &open, *outcome);
            match outcome {
                Outcome::Returned { after } => {
                    let again = Open { attempt: open.attempt.saturating_add(1), ..open };
                    track.wait(*sequence, again, now + after.unwrap_or_default());
                }
                _ => _ = track.watermark.settle(*sequence),
            }
        }
        drop(tracks);
        self.settled.notify_waiters();
    }

    /// Waits for returned events to fall due and hands them out again, in the log's order per key.
    /// Cancel-safe.
    pub async fn redeliver(&self) -> Vec<Delivery> {
        loop {
            let notified = self.settled.notified();
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
            if track.is_closing {
                continue;
            }
            let (taken, later) = track.take_due(now);
            for sequence in taken {
                // Out of the map for as long as the track is asked for a row.
                let Some(open) = track.open.remove(&sequence) else { continue };
                due.push(track.hand_out(partition, sequence, &open, now));
                track.open.insert(sequence, open);
            }
            next = [next, later].into_iter().flatten().min();
        }
        (due, next)
    }

    /// Waits until a partition may be read on; says so first, where it may not. Cancel-safe.
    pub async fn room(&self, partition: &str, stalled: impl FnOnce()) {
        let mut stalled = Some(stalled);
        loop {
            let settled = self.settled.notified();
            if !self.is_full(partition) {
                return;
            }
            if let Some(stalled) = stalled.take() {
                tracing::warn!(partition, "an event does not get through: partition not read on");
                stalled();
            }
            settled.await;
        }
    }

    /// Whether a partition should not be read on for now, because one of its events does not get
    /// through: the rest of the log would only pile up here.
    #[must_use]
    pub fn is_full(&self, partition: &str) -> bool {
        let tracks = self.tracks();
        let Some(track) = tracks.get(partition) else { return false };
        let waiting = || tracks.values().map(|track| track.waiting_bytes).sum::<usize>();
        track.watermark.open() >= AHEAD_MAX
            || (!track.waiting.is_empty() && waiting() >= WAITING_BYTES_MAX)
    }

    /// Writes the watermarks that have moved since the last write.
    ///
    /// # Errors
    /// The store does not answer; the next call tries again.
    pub async fn checkpoint(&self) -> Result<(), Fault> {
        let moved: Vec<_> = self
            .tracks()
            .values()
            .filter(|track| !track.tenure.is_over())
            .filter(|track| track.watermark.position() != track.stored)
            .filter_map(|track| Some((track.key.clone(), track.checkpoint()?)))
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

    /// The partitions that have been taken up.
    #[must_use]
    pub fn partitions(&self) -> Vec<Arc<str>> {
        self.tracks().keys().cloned().collect()
    }

    /// The last position of a partition up to which everything is settled: as long as nothing is,
    /// what stands before the first that was received. None before any was.
    #[must_use]
    pub fn position(&self, partition: &str) -> Option<i64> {
        let tracks = self.tracks();
        let track = tracks.get(partition)?;
        let before = || track.open.keys().next().map(|first| first.saturating_sub(1));
        track.watermark.position().or_else(before)
    }

    /// When the service took the oldest event of a partition that was received and is not settled.
    #[must_use]
    pub fn oldest(&self, partition: &str) -> Option<OffsetDateTime> {
        let tracks = self.tracks();
        let (_, open) = tracks.get(partition)?.open.first_key_value()?;
        open.received.enqueued
    }

    fn tracks(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Track>> {
        // Nothing panics while holding it; a poisoned lock would still hold consistent tracks.
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    fn new(
        key: PartitionKey,
        tenure: Tenure,
        hub_made: Option<i64>,
        watermark: Watermark,
        stored: Option<i64>,
    ) -> Self {
        Self {
            key,
            tenure,
            hub_made,
            is_closing: false,
            watermark,
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            held: HashMap::new(),
            rows: HashMap::new(),
            waiting_bytes: 0,
            stored,
        }
    }

    /// What may be written.
    fn checkpoint(&self) -> Option<Checkpoint> {
        let settled = self.watermark.checkpoint()?.clone();
        Some(Checkpoint { hub_made: self.hub_made, ..settled })
    }

    /// Whether an earlier event of the same key waits to go out again, or is about to.
    fn is_held(&self, received: &Received) -> bool {
        let is_held = |key| self.held.contains_key(key) || self.is_broken(key);
        received.key.as_ref().is_some_and(is_held)
    }

    /// Whether something of this key is out that an earlier one of it has left behind.
    fn is_broken(&self, key: &Arc<str>) -> bool {
        self.rows.get(key).is_some_and(|(row, _)| row.is_broken())
    }

    fn hand_out(
        &mut self,
        partition: &Arc<str>,
        sequence: i64,
        open: &Open,
        since: Instant,
    ) -> Delivery {
        let row = open.received.key.as_ref().map(|key| {
            let (row, out) = self.rows.entry(key.clone()).or_default();
            *out += 1;
            row.clone()
        });
        let (partition, tenure) = (partition.clone(), self.tenure.clone());
        Delivery {
            received: open.received.clone(),
            attempt: open.attempt,
            token: Token::Position { partition, tenure: tenure.number(), sequence },
            since,
            ties: Some(Ties { tenure, row }),
        }
    }

    /// One that was out is not any more.
    fn came_back(&mut self, sequence: i64, open: &Open, outcome: Outcome) {
        let Some(key) = &open.received.key else { return };
        if let Some((row, out)) = self.rows.get_mut(key) {
            if matches!(outcome, Outcome::Returned { .. }) {
                row.break_at(sequence);
            }
            *out -= 1;
            if *out == 0 {
                self.rows.remove(key);
            }
        }
    }

    fn wait(&mut self, sequence: i64, open: Open, due: Instant) {
        if let Some(key) = &open.received.key {
            *self.held.entry(key.clone()).or_default() += 1;
        }
        self.waiting_bytes += open.bytes();
        self.waiting.insert(sequence, due);
        self.open.insert(sequence, open);
    }

    /// Takes out what is due and not behind an earlier event of its key that is not. Answers when
    /// the next one is.
    fn take_due(&mut self, now: Instant) -> (Vec<i64>, Option<Instant>) {
        let mut taken = Vec::new();
        let mut next: Option<Instant> = None;
        let mut blocked = HashSet::new();
        for (sequence, due) in &self.waiting {
            let Some(open) = self.open.get(sequence) else { continue };
            let key = open.received.key.as_ref();
            // What is still out of a broken row comes back: then all of it goes out in order.
            if key.is_some_and(|key| blocked.contains(key) || self.is_broken(key)) {
                continue;
            }
            if *due <= now && taken.len() == REDELIVERED_MAX {
                next = Some(now);
                break;
            }
            if *due <= now {
                taken.push(*sequence);
            } else {
                next = Some(next.map_or(*due, |at| at.min(*due)));
                blocked.extend(key);
            }
        }
        for sequence in &taken {
            self.waiting.remove(sequence);
            let Some(open) = self.open.get(sequence) else { continue };
            self.waiting_bytes -= open.bytes();
            let Some(key) = &open.received.key else { continue };
            if let Some(count) = self.held.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(key);
                }
            }
        }
        (taken, next)
    }
}

impl Open {
    fn bytes(&self) -> usize {
        self.received.bytes() + WAITING_EVENT_BYTES
    }
}

#[cfg(test)]
mod tests;
