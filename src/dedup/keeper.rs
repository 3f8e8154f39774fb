//! The task that tells the store how claims have ended, for all lanes in one request, and that
//! keeps the leases of those that have not.

use std::sync::Arc;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Key, OnStoreFailure,
    ledger::{Commit, Ledger, Order},
};
use crate::{
    deliver::backoff::Backoff, delivery::Outcome, fault::Fault, state::DedupStore,
    telemetry::DedupMetrics,
};

/// Keys in one request to the store.
const KEYS_MAX: usize = 1_000;
/// A lease is renewed after this part of it, so that two renewals may fail before it ends.
const RENEW_AFTER: u32 = 3;
/// Delivered events that are remembered while the store does not answer and their sources do not
/// wait for it.
const REMEMBERED_MAX: usize = 100_000;
/// How long the end of the daemon waits for a store that does not answer.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(2);

/// The task behind a [`Ledger`].
pub struct Keeper {
    ledger: Arc<Ledger>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// What the store has not taken yet.
    commits: Vec<Commit>,
    releases: Vec<Key>,
    failures: u32,
    /// When to try again.
    due: Instant,
}

/// A ledger over `store`, and the task that the daemon must run for it.
#[must_use]
pub fn open(store: Arc<dyn DedupStore>, metrics: DedupMetrics) -> (Arc<Ledger>, Keeper) {
    let (told, orders) = mpsc::unbounded_channel();
    let ledger = Ledger::new(store, told, metrics);
    let (commits, releases) = (Vec::new(), Vec::new());
    let keeper = Keeper {
        ledger: ledger.clone(),
        orders,
        commits,
        releases,
        failures: 0,
        due: Instant::now(),
    };
    (ledger, keeper)
}

impl Keeper {
    /// Runs until `finish`, then tells the store what it does not know yet.
    pub async fn run(mut self, finish: CancellationToken) {
        let every = self.ledger.store.lease().map(|lease| lease / RENEW_AFTER);
        let mut renewal = every.map(|every| Instant::now() + every);
        let mut orders = Vec::new();
        loop {
            let waits = !self.commits.is_empty() || !self.releases.is_empty();
            tokio::select! {
                biased;
                () = finish.cancelled() => break,
                () = sleep_until(renewal.unwrap_or(self.due)), if renewal.is_some() => {
                    self.renew().await;
                    renewal = every.map(|every| Instant::now() + every);
                }
                () = sleep_until(self.due), if waits => self.tell().await,
                // While the store does not answer, what comes waits in the channel, but for the
                // events that shall not.
                count = self.orders.recv_many(&mut orders, KEYS_MAX) => {
                    if count == 0 {
                        break;
                    }
                    self.take(&mut orders);
                    if !waits {
                        self.tell().await;
                    } else {
                        self.let_go();
                    }
                }
            }
        }
        while let Ok(order) = self.orders.try_recv() {
            orders.push(order);
        }
        self.take(&mut orders);
        let deadline = Instant::now() + FLUSH;
        let told = async {
            while !self.commits.is_empty() || !self.releases.is_empty() {
                self.tell().await;
                if self.failures > 0 {
                    sleep_until(self.due).await;
                }
            }
        };
        // Dropping the rest returns it to its source.
        let _ = timeout_at(deadline, told).await;
    }

    fn take(&mut self, orders: &mut Vec<Order>) {
        for order in orders.drain(..) {
            match order {
                Order::Commit(commit) => self.commits.push(commit),
                Order::Release(key) => self.releases.push(key),
            }
        }
    }

    /// Tells the store all that it does not know, each kind in requests as large as it takes.
    async fn tell(&mut self) {
        let told = match self.commit().await {
            Ok(()) => self.release().await,
            Err(fault) => Err(fault),
        };
        match told {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!("the store of deduplication keys works again");
                }
                self.failures = 0;
            }
            Err(fault) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures == 1 {
                    tracing::warn!(error = %fault, "deduplication keys cannot be kept, will retry");
                }
                self.due = Instant::now() + Backoff::SERVICE.delay(self.failures, None);
                self.let_go();
            }
        }
    }

    async fn commit(&mut self) -> Result<(), Fault> {
        while !self.commits.is_empty() {
            let count = self.commits.len().min(KEYS_MAX);
            let done: Vec<_> =
                self.commits[..count].iter().map(|it| (it.claim.key(), it.ttl)).collect();
            let kept = self.ledger.store.commit(&done).await;
            kept.inspect_err(|fault| self.ledger.metrics.store_failed("commit", fault.class))?;
            failpoint!(AfterCommit);
            for Commit { claim, branch, .. } in self.commits.drain(..count) {
                claim.close();
                if let Some(branch) = branch {
                    branch.finish(Outcome::Delivered);
                }
            }
        }
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Fault> {
        while !self.releases.is_empty() {
            let count = self.releases.len().min(KEYS_MAX);
            let released = self.ledger.store.release(&self.releases[..count]).await;
            released
                .inspect_err(|fault| self.ledger.metrics.store_failed("release", fault.class))?;
            for key in self.releases.drain(..count) {
                self.ledger.forget(&key);
            }
        }
        Ok(())
    }

    /// Ends the events that shall not wait for the store; it is told of them when it answers.
    fn let_go(&mut self) {
        let mut remembered = 0;
        self.commits.retain_mut(|commit| {
            if commit.on_store_failure == OnStoreFailure::Hold {
                return true;
            }
            if let Some(branch) = commit.branch.take() {
                branch.finish(Outcome::Delivered);
            }
            remembered += 1;
            remembered <= REMEMBERED_MAX
        });
    }

    async fn renew(&self) {
        let Some(lease) = self.ledger.store.lease() else { return };
        for keys in self.ledger.leased().chunks(KEYS_MAX) {
            let since = Instant::now();
            match self.ledger.store.renew(keys).await {
                Ok(lost) => self.ledger.renewed(keys, &lost, since, lease),
                Err(fault) => {
                    self.ledger.metrics.store_failed("renew", fault.class);
                    return;
                }
            }
        }
    }
}
