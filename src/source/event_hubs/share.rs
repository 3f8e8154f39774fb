//! The partitions that this replica has: it takes its share, renews it, and gives of it.
//!
//! A round reads every record of the group, renews what is ours, and takes what [`balance`] says.
//! Between our own replicas a partition moves by agreement: who wants it asks, its owner finishes
//! what it has begun, writes the checkpoint and gives it up. From readers that cannot be asked it is
//! taken, and who took it is told from us by the service: its receiver ends ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use rand::{Rng as _, rngs::StdRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::balance::{self, Holder, Move, View};
use crate::{
    config::units::Span,
    deliver::backoff::Backoff,
    delivery::Tenure,
    fault::Fault,
    source::{Hold, log::Log},
    state::{
        StateStore,
        ownership::{Group, Held, OURS, OwnershipStore, Record, Written},
    },
    telemetry::SourceMetrics,
};

/// How replicas share the partitions of a hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sharing {
    /// How long a replica that does not renew its partitions keeps them: so long they wait after
    /// it has died.
    pub expiry: Span,
    /// How often a replica renews its partitions and looks for others.
    pub renew_every: Span,
    /// How many partitions it takes at once.
    pub strategy: Strategy,
}

/// How many partitions a replica takes at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All of its share.
    #[default]
    Greedy,
    /// One a round: replicas that start together disturb one another less.
    Balanced,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            expiry: Span(Duration::from_secs(60)),
            renew_every: Span(Duration::from_secs(10)),
            strategy: Strategy::default(),
        }
    }
}

/// A renewal may fail twice before a partition is anybody's.
const RENEWALS_PER_EXPIRY: u32 = 3;
const EXPIRY_MIN: Duration = Duration::from_secs(3);
const EXPIRY_MAX: Duration = Duration::from_secs(60 * 60);
/// While an owner is asked, it is looked at this often.
const SOON: Duration = Duration::from_secs(1);
/// A partition is given up by naming its last version, which somebody may have changed just now.
const TRIES: usize = 4;

impl Sharing {
    /// What is wrong with the settings, field by field.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let (expiry, renew_every) = (*self.expiry, *self.renew_every);
        if !(EXPIRY_MIN..=EXPIRY_MAX).contains(&expiry) {
            return vec![("sharing.expiry", "write something from `3s` to `1h`".to_owned())];
        }
        if renew_every.is_zero() || renew_every * RENEWALS_PER_EXPIRY > expiry {
            // In whole seconds, as people write it; the shortest expiry leaves one.
            let most = Span(Duration::from_secs((expiry / RENEWALS_PER_EXPIRY).as_secs()));
            let text = format!(
                "two renewals may fail before partitions expire: with `expiry: {}`, write {most} \
                 or less",
                self.expiry
            );
            return vec![("sharing.renew_every", text)];
        }
        Vec::new()
    }

    fn at_once(&self) -> usize {
        match self.strategy {
            Strategy::Greedy => usize::MAX,
            Strategy::Balanced => 1,
        }
    }
}

/// A partition that is ours from now on.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) partition: Arc<str>,
    pub(super) tenure: Tenure,
    pub(super) epoch: i64,
    /// Somebody reads it who may not have asked the store.
    pub(super) was_stolen: bool,
}

/// What the receiving half tells.
#[derive(Debug)]
pub(super) enum Told {
    /// The hub has these, too.
    Added(Vec<String>),
    /// Another reader has taken one of ours.
    Stolen(Arc<str>),
    /// Nothing is read any more.
    Quit,
}

/// One that we have.
struct Mine {
    tenure: Tenure,
    record: Record,
    version: String,
    is_leaving: bool,
}

/// Our share of a hub, and the task that keeps it.
pub(super) struct Share {
    pub(super) state: Arc<dyn StateStore>,
    pub(super) group: Group,
    pub(super) sharing: Sharing,
    pub(super) log: Arc<Log>,
    pub(super) metrics: SourceMetrics,
    /// All partitions of the hub.
    pub(super) partitions: Vec<String>,
    pub(super) taken: mpsc::UnboundedSender<Taken>,
    pub(super) told: mpsc::UnboundedReceiver<Told>,
    /// So that replicas that start together do not go on in step.
    pub(super) dice: StdRng,
    pub(super) keeping: Keeping,
}

/// What the task knows.
#[derive(Default)]
pub(super) struct Keeping {
    mine: BTreeMap<String, Mine>,
    /// The version of a record that we have left with its owner when we asked, and when the owner
    /// is dead if it has not written since: to ask may have made the record look new.
    asked: BTreeMap<String, (String, Instant)>,
    /// Taken from us by somebody, while the store said that they are ours.
    stolen: BTreeSet<String>,
    /// To be given up, once all that is out of them has ended.
    to_leave: Vec<String>,
    is_quitting: bool,
    failures: u32,
}

#[async_trait]
impl Hold for Share {
    async fn run(mut self: Box<Self>, settled: CancellationToken) {
        let state = self.state.clone();
        let Some(store) = state.ownership() else { return };
        let (mut next, mut leaving) = (Instant::now(), FuturesUnordered::new());
        loop {
            // While the daemon runs on, not later than others would wait for a dead replica.
            let patience = (!self.keeping.is_quitting).then_some(*self.sharing.expiry);
            for id in self.keeping.to_leave.drain(..) {
                leaving.push(close(self.log.clone(), id, patience));
            }
            tokio::select! {
                biased;
                () = settled.cancelled() => break,
                Some(partition) = leaving.next(), if !leaving.is_empty() => self.hand_over(store, &partition).await,
                told = self.told.recv(), if !self.keeping.is_quitting => match told {
                    Some(Told::Added(ids)) => self.partitions.extend(ids),
                    Some(Told::Stolen(partition)) => {
                        self.stolen(&partition);
                        next = Instant::now();
                    }
                    Some(Told::Quit) | None => {
                        self.quit();
                        next = Instant::now();
                    }
                },
                () = sleep_until(next) => next = Instant::now() + self.next_round(store).await,
            }
        }
        let mine = std::mem::take(&mut self.keeping.mine);
        let given_up = mine.into_iter().map(|(id, mine)| self.give_up(store, id, mine));
        let (_, withdrawn) = tokio::join!(join_all(given_up), self.withdraw(store));
        if let Err(fault) = withdrawn {
            tracing::warn!(source = %self.metrics.source, error = %fault,
                "partitions that were asked for wait until that expires");
        }
        self.metrics.partitions_owned(0);
    }
}

impl Share {
    /// One round. Answers how long the next one can wait.
    async fn next_round(&mut self, store: &dyn OwnershipStore) -> Duration {
        let every = *self.sharing.renew_every;
        let source = self.metrics.source.clone();
        let outcome = self.round(store).await;
        self.metrics.partitions_owned(self.keeping.mine.len());
        match outcome {
            Ok(()) => {
                if self.keeping.failures > 0 {
                    tracing::info!(%source, "the store of ownership works again");
                }
                self.keeping.failures = 0;
                let is_pending = !self.keeping.asked.is_empty() || !self.keeping.stolen.is_empty();
                if is_pending {
                    every.min(SOON)
                } else {
                    every.mul_f64(self.dice.random_range(0.8..=1.0))
                }
            }
            Err(fault) => {
                self.keeping.failures = self.keeping.failures.saturating_add(1);
                self.metrics.settle_failed(&fault);
                if self.keeping.failures == 1 {
                    tracing::warn!(%source, error = %fault,
                        "partitions can be neither renewed nor taken, will retry");
                }
                Backoff::SERVICE.delay(self.keeping.failures, None).min(every)
            }
        }
    }

    async fn round(&mut self, store: &dyn OwnershipStore) -> Result<(), Fault> {
        let listed = store.list(&self.group).await?;
        self.drop_lost(store.replica(), &listed);
        self.renew(store, &listed).await?;
        if self.keeping.is_quitting {
            return self.withdraw(store).await;
        }
        // After the store was away, everybody's records look old: first all renew theirs.
        if self.keeping.failures == 0 {
            self.take_more(store, &listed).await?;
        }
        Ok(())
    }

    /// Ends what somebody else has by now.
    fn drop_lost(&mut self, me: &str, listed: &BTreeMap<String, Held>) {
        let is_ours = |id: &str| listed.get(id).is_some_and(|held| held.record.owner == me);
        let lost: Vec<_> = self.keeping.mine.keys().filter(|id| !is_ours(id)).cloned().collect();
        for id in lost {
            if let Some(mine) = self.keeping.mine.remove(&id) {
                self.lose(&id, &mine.tenure);
            }
        }
        self.keeping.stolen.retain(|id| is_ours(id));
    }

    fn lose(&self, id: &str, tenure: &Tenure) {
        self.log.lose(id, tenure);
        self.metrics.partition_lost(id);
        tracing::warn!(source = %self.metrics.source, partition = id, "partition lost to another reader");
    }

    /// Renews what is ours, takes up what the store says is ours, and begins to leave what others
    /// have asked for.
    async fn renew(
        &mut self,
        store: &dyn OwnershipStore,
        listed: &BTreeMap<String, Held>,
    ) -> Result<(), Fault> {
        let me = store.replica();
        let ours: Vec<_> = listed
            .iter()
            .filter(|(id, held)| {
                held.record.owner == me
                    && (self.keeping.mine.contains_key(*id) || !self.keeping.is_quitting)
            })
            .collect();
        let renewals = ours.iter().map(|(id, held)| {
            let partition = self.group.partition(id);
            async move { store.put(&partition, &held.record, Some(&held.version)).await }
        });
        let renewed = join_all(renewals).await;
        let mut result = Ok(());
        for ((id, held), renewed) in ours.into_iter().zip(renewed) {
            match renewed {
                Ok(Some(written)) => {
                    self.take(id, held.record.clone(), written);
                    if held.record.wanted_by.is_some() {
                        self.leave(id);
                    }
                }
                // Somebody has written since the list was read: the next round sees what.
                Ok(None) => {}
                Err(fault) => result = Err(fault),
            }
        }
        result
    }

    async fn take_more(
        &mut self,
        store: &dyn OwnershipStore,
        listed: &BTreeMap<String, Held>,
    ) -> Result<(), Fault> {
        let now = Instant::now();
        let me = store.replica().to_owned();
        self.keeping.asked.retain(|id, (version, _)| {
            listed.get(id).is_some_and(|held| {
                held.version == *version
                    || (!held.record.owner.is_empty()
                        && held.record.wanted_by.as_deref() == Some(me.as_str()))
            })
        });
        let is_live = |id: &str, held: &Held| {
            let asked = self.keeping.asked.get(id);
            let is_dead =
                asked.is_some_and(|(version, dead)| *version == held.version && *dead <= now);
            self.keeping.mine.contains_key(id) || (held.age < *self.sharing.expiry && !is_dead)
        };
        let (mut holders, mut promised) = (BTreeMap::new(), BTreeMap::new());
        for (id, held) in listed.iter().filter(|(id, held)| is_live(id, held)) {
            let Record { owner, wanted_by } = &held.record;
            let (id, wanted_by) = (id.as_str(), wanted_by.as_deref());
            if !owner.is_empty() {
                holders.insert(id, Holder { owner, wanted_by });
            } else if let Some(name) = wanted_by {
                promised.insert(id, name);
            }
        }
        let view = View { me: &me, partitions: &self.partitions, held: holders, promised };
        let dice = &mut self.dice;
        let pick = |below| dice.random_range(0..below);
        for next in balance::moves(&view, self.sharing.at_once(), pick) {
            let (Move::Claim(id) | Move::TakeOver(id)) = &next;
            let held = listed.get(id);
            let claim = Record { owner: me.clone(), wanted_by: None };
            let record = match (&next, held) {
                (Move::TakeOver(_), Some(held)) if held.record.owner.starts_with(OURS) => {
                    Record { wanted_by: Some(me.clone()), ..held.record.clone() }
                }
                _ => claim,
            };
            let known = held.map(|held| held.version.as_str());
            let Some(written) = store.put(&self.group.partition(id), &record, known).await? else {
                continue;
            };
            if record.owner == me {
                self.take(id, record, written);
            } else {
                let age = held.map_or(Duration::ZERO, |held| held.age);
                let dead = now + self.sharing.expiry.saturating_sub(age);
                self.keeping.asked.insert(id.clone(), (written.version, dead));
            }
        }
        Ok(())
    }

    /// Notes what was written of one that is ours, and hands it to the receiving half if it was not.
    fn take(&mut self, id: &str, record: Record, written: Written) {
        let Written { version, epoch } = written;
        if let Some(mine) = self.keeping.mine.get_mut(id) {
            (mine.record, mine.version) = (record, version);
            return;
        }
        let (tenure, partition) = (Tenure::begin(), id.into());
        let was_stolen = self.keeping.stolen.remove(id);
        tracing::info!(source = %self.metrics.source, partition = id, epoch, "partition taken");
        self.metrics.partition_taken();
        let taken = Taken { partition, tenure: tenure.clone(), epoch, was_stolen };
        let _ = self.taken.send(taken);
        let mine = Mine { tenure, record, version, is_leaving: false };
        self.keeping.mine.insert(id.to_owned(), mine);
    }

    /// Another reader has it. If the store does not know of that, it is ours again when nobody has
    /// it any more.
    fn stolen(&mut self, id: &str) {
        if let Some(mine) = self.keeping.mine.remove(id) {
            self.lose(id, &mine.tenure);
            self.keeping.stolen.insert(id.to_owned());
        }
    }

    fn leave(&mut self, id: &str) {
        if let Some(mine) = self.keeping.mine.get_mut(id).filter(|mine| !mine.is_leaving) {
            mine.is_leaving = true;
            self.keeping.to_leave.push(id.to_owned());
        }
    }

    fn quit(&mut self) {
        self.keeping.is_quitting = true;
        let all: Vec<_> = self.keeping.mine.keys().cloned().collect();
        all.iter().for_each(|id| self.leave(id));
    }

    /// Takes back what was asked of others: what they give up for somebody is left to that one until
    /// it expires.
    async fn withdraw(&self, store: &dyn OwnershipStore) -> Result<(), Fault> {
        for _ in 0..TRIES {
            let mut asked = store.list(&self.group).await?;
            asked.retain(|_, held| held.record.wanted_by.as_deref() == Some(store.replica()));
            let withdrawals = asked.into_iter().map(|(id, Held { record, version, .. })| {
                let (partition, record) =
                    (self.group.partition(&id), Record { wanted_by: None, ..record });
                async move { store.put(&partition, &record, Some(&version)).await }
            });
            // Where the owner has written meanwhile, its record names us still.
            let written: Vec<_> =
                join_all(withdrawals).await.into_iter().collect::<Result<_, _>>()?;
            if written.iter().all(Option::is_some) {
                break;
            }
        }
        Ok(())
    }

    async fn hand_over(&mut self, store: &dyn OwnershipStore, id: &str) {
        // Taken from us meanwhile, and perhaps ours again.
        if !self.keeping.mine.get(id).is_some_and(|mine| mine.is_leaving) {
            return;
        }
        let Some(mine) = self.keeping.mine.remove(id) else { return };
        if let Err(fault) = self.log.checkpoint().await {
            tracing::warn!(source = %self.metrics.source, partition = id, error = %fault,
                "partition handed over without its last checkpoint: some of it will be repeated");
        }
        self.give_up(store, id.to_owned(), mine).await;
        self.metrics.partitions_owned(self.keeping.mine.len());
    }

    /// Ends a tenure, and tells the store that the partition is free.
    async fn give_up(&self, store: &dyn OwnershipStore, id: String, mine: Mine) {
        let source = &self.metrics.source;
        self.log.lose(&id, &mine.tenure);
        self.metrics.partition_handed_over(&id);
        let partition = self.group.partition(&id);
        let (mut record, mut version) = (mine.record, mine.version);
        for _ in 0..TRIES {
            record.owner.clear();
            match store.put(&partition, &record, Some(&version)).await {
                Ok(Some(_)) => {
                    tracing::info!(%source, partition = id, "partition handed over");
                    return;
                }
                Ok(None) => {}
                Err(fault) => {
                    tracing::warn!(%source, partition = id, error = %fault,
                        "partition given up, and the store does not know: others wait until it expires");
                    return;
                }
            }
            // Somebody has asked for it just now.
            match store.list(&self.group).await.map(|mut listed| listed.remove(&id)) {
                Ok(Some(held)) if held.record.owner == store.replica() => {
                    (record, version) = (held.record, held.version);
                }
                _ => return,
            }
        }
    }
}

/// Hands out nothing more of a partition, and waits until all that is out has ended, or for this
/// long.
async fn close(log: Arc<Log>, id: String, patience: Option<Duration>) -> String {
    match patience {
        Some(patience) => _ = timeout(patience, log.close(&id)).await,
        None => log.close(&id).await,
    }
    id
}

#[cfg(test)]
mod replicas;
