//! The claims of this process, in front of the store that all replicas share.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{Key, OnStoreFailure};
use crate::{
    fault::Fault,
    settle::Branch,
    state::{DedupStore, Found},
    telemetry::DedupMetrics,
};

/// Parts of the table of open claims, so that lanes rarely wait for one another.
const SHARDS: usize = 64;

/// Which keys this process has claimed. Within it a key is claimed by one delivery at a time,
/// whatever the store believes; that is what lets the store know claims by their process alone.
pub struct Ledger {
    pub(super) store: Arc<dyn DedupStore>,
    open: [Mutex<HashMap<Key, Arc<Lease>>>; SHARDS],
    orders: mpsc::UnboundedSender<Order>,
    pub(super) metrics: DedupMetrics,
    epoch: Instant,
}

/// How long a claim is ours: milliseconds since the ledger's epoch.
#[derive(Debug)]
struct Lease(AtomicU64);

/// The store has not answered yet: nothing to renew.
const ASKED: u64 = 0;
/// Somebody else has it now, or it has ended.
const LOST: u64 = 1;
/// As long as the process lives.
const FOR_EVER: u64 = u64::MAX;

/// What a lane learns of a key.
#[derive(Debug)]
pub enum Answer {
    /// It is ours to deliver.
    Claimed(Claim),
    /// It has been delivered.
    Done,
    /// Somebody is delivering it.
    InFlight,
}

/// The right to deliver one event, which ends with [`Claim::commit`]. Dropped, it is released, so
/// that whoever gets the event again may deliver it.
#[must_use = "a dropped claim is released"]
pub struct Claim {
    key: Key,
    lease: Arc<Lease>,
    ledger: Arc<Ledger>,
    /// Whether the store may hold it.
    held: bool,
}

/// What the keeper of claims is asked to do. Bounded by what is in flight.
pub(super) enum Order {
    /// Mark a delivered event as done, then let its branch end.
    Commit(Commit),
    /// Let others claim it.
    Release(Key),
}

/// A delivered event whose claim is to be committed.
pub(super) struct Commit {
    pub(super) claim: Claim,
    pub(super) ttl: Duration,
    pub(super) on_store_failure: OnStoreFailure,
    /// None if its source was not to wait.
    pub(super) branch: Option<Branch>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Ledger {
    pub(super) fn new(
        store: Arc<dyn DedupStore>,
        orders: mpsc::UnboundedSender<Order>,
        metrics: DedupMetrics,
    ) -> Arc<Self> {
        let open = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { store, open, orders, metrics, epoch: Instant::now() })
    }

    /// Claims keys, all in one round trip to the store; answers for each, in their order.
    ///
    /// # Errors
    /// The store does not answer; then none is claimed.
    pub async fn claim(self: &Arc<Self>, keys: &[Key]) -> Result<Vec<Answer>, Fault> {
        let mut answers = Vec::with_capacity(keys.len());
        let (mut asked, mut places) = (Vec::new(), Vec::new());
        for key in keys {
            answers.push(Answer::InFlight);
            if let Some(claim) = self.take(*key) {
                places.push((answers.len() - 1, claim));
                asked.push(*key);
            }
        }
        if asked.is_empty() {
            return Ok(answers);
        }
        let start = Instant::now();
        let found = match self.store.claim(&asked).await {
            Ok(found) => found,
            Err(fault) => {
                self.metrics.store_failed("claim", fault.class);
                // The store may have them all the same. Whoever asks again from here gets them, and
                // for others they run out; to wait for a release would hold up only ourselves.
                places.iter_mut().for_each(|(_, claim)| claim.held = false);
                return Err(fault);
            }
        };
        let mut found = found.into_iter();
        for (place, mut claim) in places {
            // A store that answers too few has claimed nothing for the rest.
            answers[place] = match found.next().unwrap_or(Found::Theirs) {
                Found::Ours => {
                    self.confirm(&claim, start);
                    Answer::Claimed(claim)
                }
                Found::Done => {
                    claim.held = false;
                    Answer::Done
                }
                Found::Theirs => {
                    claim.held = false;
                    Answer::InFlight
                }
            };
        }
        Ok(answers)
    }

    /// Notes a claim in this process; none if there is one.
    fn take(self: &Arc<Self>, key: Key) -> Option<Claim> {
        let lease = Arc::new(Lease(AtomicU64::new(ASKED)));
        let mut shard = self.shard(&key);
        if shard.contains_key(&key) {
            return None;
        }
        shard.insert(key, lease.clone());
        Some(Claim { key, lease, ledger: self.clone(), held: true })
    }

    fn confirm(&self, claim: &Claim, since: Instant) {
        let until = self.store.lease().map_or(FOR_EVER, |lease| self.millis(since + lease));
        claim.lease.0.store(until, Ordering::Release);
    }

    /// The keys whose leases are to be renewed: all that the store has given and nobody has taken.
    pub(super) fn leased(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for shard in &self.open {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let is_ours = |lease: &Lease| lease.0.load(Ordering::Acquire) > LOST;
            keys.extend(shard.iter().filter(|(_, lease)| is_ours(lease)).map(|(key, _)| *key));
        }
        // In an order that a replay has again.
        keys.sort_unstable();
        keys
    }

    /// Notes what the store said when it was asked, at `since`, to renew these keys.
    pub(super) fn renewed(&self, keys: &[Key], lost: &[Key], since: Instant, lease: Duration) {
        let until = self.millis(since + lease);
        for key in keys {
            if let Some(lease) = self.shard(key).get(key) {
                let until = if lost.contains(key) { LOST } else { until };
                lease.0.store(until, Ordering::Release);
            }
        }
        self.metrics.lost(lost.len());
    }

    /// The store has let it go.
    pub(super) fn forget(&self, key: &Key) {
        self.shard(key).remove(key);
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Lease>>> {
        // A key is a digest: any of its bytes is as good as random.
        let shard = &self.open[usize::from(key.0[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from((at - self.epoch).as_millis()).unwrap_or(FOR_EVER)
    }
}

impl Claim {
    /// Whether it can be relied on for a request that begins now. One that could not be renewed in
    /// time may be somebody else's: to send by it would only duplicate.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.lease.0.load(Ordering::Acquire) > self.ledger.millis(Instant::now())
    }

    /// Marks the event as delivered, and ends its branch once that is kept. Does not wait.
    pub fn commit(self, branch: Branch, ttl: Duration, on_store_failure: OnStoreFailure) {
        let orders = self.ledger.orders.clone();
        // Without its keeper, at a forced end, the branch returns its delivery.
        let branch = Some(branch);
        let _ = orders.send(Order::Commit(Commit { claim: self, ttl, on_store_failure, branch }));
    }

    /// What no code may ever do, but for a mistake that a test plants.
    pub(crate) fn commit_unsent(self) {
        let (orders, ttl) = (self.ledger.orders.clone(), Duration::from_secs(86_400));
        let on_store_failure = OnStoreFailure::Deliver;
        let commit = Commit { claim: self, ttl, on_store_failure, branch: None };
        let _ = orders.send(Order::Commit(commit));
    }

    /// What it is a claim to.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// Its end is known to the store.
    pub(super) fn close(mut self) {
        self.held = false;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.lease.0.store(LOST, Ordering::Release);
        // Nobody in this process may claim the key before the store has let it go: the release
        // would end that claim. Without its keeper, at a forced end, it is left to run out.
        if !self.held || self.ledger.orders.send(Order::Release(self.key)).is_err() {
            self.ledger.forget(&self.key);
        }
    }
}
