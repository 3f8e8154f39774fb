//! The services of a simulated world: queues in memory behind dice.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    chaos::{Chaos, Roll},
    history::History,
};
use crate::{
    dedup::Key,
    delivery::{Delivery, Settled, Token},
    event::Event,
    fault::Fault,
    metadata::Packed,
    settle::Budget,
    sink::{Limits, Order, Outgoing, Sink},
    source::{Backlog, Extended, Receive, Settle},
    state::{Checkpoint, DedupStore, Found, PartitionKey, StateStore, memory::MemoryStore},
};

/// What all connectors of a world share.
pub(super) struct Services {
    pub(super) chaos: Chaos,
    pub(super) history: History,
    /// Ids that no sink ever takes.
    pub(super) poison: BTreeSet<String>,
    /// Whether there are two dead-letter sinks, of which the first does not take all either.
    pub(super) spare: bool,
    pub(super) checkpoints: MemoryStore,
    pub(super) keys: Mutex<BTreeMap<Key, (Holder, Instant)>>,
    /// Where leaving a batch goes to.
    pub(super) order: Order,
    /// When no sink answers.
    pub(super) outage: Option<Range<Instant>>,
}

/// The one source.
pub(super) const SOURCE: &str = "near";

impl Services {
    /// What the event of this id holds.
    pub(super) fn body(id: &str) -> Bytes {
        format!("{{\"of\":\"{id}\"}}").into()
    }
}

/// Who holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Process(u32),
    Done,
}

/// What a sink is to the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Far {
    /// One that its events go to, by its number.
    Sink(usize),
    /// Where they end that it gives up.
    DeadLetters,
    /// Where those end that the dead letters do not take.
    Spare,
}

/// A sink that fails.
pub(super) struct FaultySink(pub(super) Arc<Services>, pub(super) Far);

#[async_trait]
impl Sink for FaultySink {
    fn limits(&self) -> Limits {
        let order = self.0.order;
        Limits { events: 10, bytes: 1 << 20, event_bytes: 1 << 18, order, in_flight: 3 }
    }

    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        Ok(Packed { body: event.body.clone(), attributes: Vec::new(), bytes: 100 })
    }

    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        let Self(services, far) = self;
        let Services { chaos, history, poison, .. } = &**services;
        let roll = chaos.roll().await;
        let fault = chaos.any_fault("send");
        let away = services.outage.as_ref().is_some_and(|away| away.contains(&Instant::now()));
        if away && chaos.strikes() {
            let away = || Err(Fault::busy("send", "away", "nobody answers"));
            return batch.iter().map(|_| away()).collect();
        }
        // Where a batch may hold several events of a key, none is taken behind a refused one.
        let mut refused = BTreeSet::new();
        let mut answer = |outgoing: &Outgoing| {
            let id = &*outgoing.event.id;
            let key = outgoing.event.key.as_ref().filter(|_| services.order == Order::Together);
            if key.is_some_and(|key| refused.contains(key)) {
                return Err(Fault::behind("send"));
            }
            let refuses = roll == Roll::Partial && chaos.below(2) == 0;
            let is_poison = match far {
                Far::Sink(_) => poison.contains(id),
                Far::DeadLetters => services.spare && poison.contains(id) && id.ends_with('7'),
                Far::Spare => false,
            };
            if refuses || is_poison {
                refused.extend(key.cloned());
            }
            match far {
                _ if is_poison => return Err(Fault::reject("send", "poison", "never")),
                _ if roll == Roll::Error => return Err(fault.again()),
                _ if refuses => return Err(fault.again()),
                Far::Sink(sink) => history.arrived(*sink, id),
                Far::DeadLetters | Far::Spare => {
                    let Event { body, dead_letter, .. } = &*outgoing.event;
                    // As it came, and with a word of why and from where.
                    let record = dead_letter.as_ref().filter(|record| {
                        *body == Services::body(id)
                            && record.source == SOURCE
                            && !record.class.is_empty()
                            && record.first <= record.last
                    });
                    if record.is_none() {
                        history.broken(format!("a dead letter is whole: {id} is {dead_letter:?}"));
                    }
                    let sink = record.and_then(|record| record.sink.as_ref()?.parse().ok());
                    history.parked(id, sink, *far == Far::Spare);
                }
            }
            if roll == Roll::LostAnswer {
                history.ambiguous(id);
                return Err(Fault::retry("send", "timeout", "no answer"));
            }
            Ok(())
        };
        batch.iter().map(&mut answer).collect()
    }

    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// What a process has received, by what it settles it by.
pub(super) type Received = Arc<Mutex<BTreeMap<Token, String>>>;

/// The receiving half of a source, watched.
pub(super) struct FaultyReceive {
    pub(super) process: u32,
    pub(super) inner: Box<dyn Receive>,
    pub(super) services: Arc<Services>,
    pub(super) received: Received,
    pub(super) budget: Arc<Budget>,
    /// Events in flight at most, but for a last batch.
    pub(super) max: usize,
}

/// Events of a batch in memory.
const BATCH: usize = 400;

#[async_trait]
impl Receive for FaultyReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        let (in_flight, _) = self.budget.in_flight();
        if in_flight > self.max + BATCH {
            self.services.history.broken(format!("memory: {in_flight} events in flight"));
        }
        // The answer of a receive is never lost by itself: what was leased comes again.
        if self.services.chaos.roll().await == Roll::Error {
            return Err(self.services.chaos.any_fault("receive"));
        }
        let deliveries = self.inner.receive().await?;
        for Delivery { received, token, .. } in &deliveries {
            let id = received.message_id.as_deref().unwrap_or_default();
            self.received.lock().unwrap().insert(token.clone(), id.to_owned());
            self.services.history.out(self.process, id);
            if let Token::Position { partition, sequence, .. } = token {
                self.services.history.received(partition, *sequence, id);
            }
        }
        Ok(deliveries)
    }

    async fn close(&mut self) -> Vec<Delivery> {
        self.inner.close().await
    }
}

/// The settling half, watched.
pub(super) struct FaultySettle {
    pub(super) process: u32,
    pub(super) inner: Box<dyn Settle>,
    pub(super) services: Arc<Services>,
    pub(super) received: Received,
}

#[async_trait]
impl Settle for FaultySettle {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let Services { chaos, history, .. } = &*self.services;
        for settled in done.iter().filter(|settled| settled.outcome.is_done()) {
            let id = self.received.lock().unwrap().get(&settled.token).cloned();
            history.settles(self.process, id.as_deref().unwrap_or("what was never received"));
        }
        let roll = chaos.roll().await;
        let fails = |_: &Settled| match roll {
            Roll::Error => true,
            Roll::Partial => chaos.below(2) == 0,
            Roll::Well | Roll::LostAnswer => false,
        };
        let (failed, done): (Vec<_>, Vec<_>) = done.into_iter().partition(fails);
        let lost = if roll == Roll::LostAnswer { done.clone() } else { Vec::new() };
        let mut answer = self.inner.settle(done).await;
        let fault = || Fault::busy("settle", "simulated", "as the dice say");
        answer.extend(failed.into_iter().chain(lost).map(|settled| (settled, fault())));
        answer
    }

    async fn extend(&mut self, open: &[Token], by: Duration) -> Extended {
        let chaos = &self.services.chaos;
        let roll = chaos.roll().await;
        // Of what is extended, and of what it is told that it is.
        let (done, told) = match roll {
            Roll::Well => (open.len(), open.len()),
            Roll::Error => (0, 0),
            Roll::LostAnswer => (open.len(), 0),
            Roll::Partial => (open.len() / 2, open.len() / 2),
        };
        let mut extended = self.inner.extend(&open[..done], by).await;
        if told < open.len() {
            extended.unknown.extend_from_slice(&open[told..]);
            extended.fault = Some(chaos.any_fault("extend"));
        }
        extended
    }

    async fn checkpoint(&mut self) -> Result<(), Fault> {
        self.inner.checkpoint().await
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        self.inner.backlog().await
    }
}

/// Where checkpoints are kept.
pub(super) struct FaultyState(pub(super) Arc<Services>);

impl FaultyState {
    async fn change(
        &self,
        op: &'static str,
        change: impl Future<Output = Result<(), Fault>> + Send,
    ) -> Result<(), Fault> {
        let roll = self.0.chaos.roll().await;
        if roll == Roll::Error {
            return Err(self.0.chaos.any_fault(op));
        }
        change.await?;
        if roll == Roll::LostAnswer { Err(self.0.chaos.any_fault(op)) } else { Ok(()) }
    }
}

#[async_trait]
impl StateStore for FaultyState {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        match self.0.chaos.roll().await {
            Roll::Error => Err(self.0.chaos.any_fault("load")),
            _ => self.0.checkpoints.load(partition).await,
        }
    }

    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        for (key, checkpoint) in checkpoints {
            self.0.history.checkpoint(&key.partition, checkpoint.sequence);
        }
        self.change("store", self.0.checkpoints.store(checkpoints)).await
    }

    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault> {
        self.change("begin", self.0.checkpoints.begin(partition, first, instead_of)).await
    }

    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        self.change("put back", self.0.checkpoints.put_back(partition, to)).await
    }

    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        self.change("forget", self.0.checkpoints.forget(partition)).await
    }
}

/// Where claims are kept, as the process of this number sees it.
pub(super) struct FaultyKeys(pub(super) Arc<Services>, pub(super) u32);

const LEASE: Duration = Duration::from_secs(30);

impl FaultyKeys {
    /// Does it to each key that is held by `holder` or nobody, as the dice allow.
    async fn each<T>(
        &self,
        op: &'static str,
        keys: &[Key],
        mut with: impl FnMut(&Key, Option<Holder>, &mut BTreeMap<Key, (Holder, Instant)>) -> T + Send,
    ) -> Result<Vec<T>, Fault> {
        let roll = self.0.chaos.roll().await;
        if roll == Roll::Error {
            return Err(self.0.chaos.any_fault(op));
        }
        let now = Instant::now();
        let answers = {
            let mut held = self.0.keys.lock().unwrap();
            let mut one = |key: &Key| {
                let holder = held.get(key).filter(|(_, until)| *until > now).map(|held| held.0);
                with(key, holder, &mut held)
            };
            keys.iter().map(&mut one).collect()
        };
        match roll {
            Roll::LostAnswer => Err(self.0.chaos.any_fault(op)),
            _ => Ok(answers),
        }
    }
}

#[async_trait]
impl DedupStore for FaultyKeys {
    async fn claim(&self, keys: &[Key]) -> Result<Vec<Found>, Fault> {
        let mine = Holder::Process(self.1);
        let history = &self.0.history;
        self.each("claim", keys, |key, holder, held| match holder {
            Some(Holder::Done) => Found::Done,
            Some(other) if other != mine => Found::Theirs,
            _ => {
                let former = held.insert(*key, (mine, Instant::now() + LEASE));
                let is_taken = |it: &Holder| matches!(it, Holder::Process(_)) && *it != mine;
                if former.is_some_and(|(holder, _)| is_taken(&holder)) {
                    // It has lapsed while its event was being delivered, or its end kept: both send
                    // the event, whatever the former holder learns of it.
                    history.lapsed();
                }
                Found::Ours
            }
        })
        .await
    }

    async fn commit(&self, done: &[(Key, Duration)]) -> Result<(), Fault> {
        let mine = Holder::Process(self.1);
        let keys: Vec<Key> = done.iter().map(|(key, _)| *key).collect();
        let ttl = done.first().map_or(LEASE, |(_, ttl)| *ttl);
        let history = &self.0.history;
        self.each("commit", &keys, |key, holder, held| {
            if matches!(holder, Some(Holder::Process(_)) if holder != Some(mine)) {
                // Somebody took it over while it was being delivered: both send the event.
                history.lapsed();
            } else {
                held.insert(*key, (Holder::Done, Instant::now() + ttl));
            }
        })
        .await
        .map(drop)
    }

    async fn release(&self, keys: &[Key]) -> Result<(), Fault> {
        let mine = Holder::Process(self.1);
        self.each("release", keys, |key, holder, held| {
            if holder == Some(mine) {
                held.remove(key);
            }
        })
        .await
        .map(drop)
    }

    async fn renew(&self, keys: &[Key]) -> Result<Vec<Key>, Fault> {
        let mine = Holder::Process(self.1);
        let history = &self.0.history;
        let kept = self.each("renew", keys, |key, holder, held| {
            let is_ours = holder.is_none_or(|holder| holder == mine);
            if is_ours {
                held.insert(*key, (mine, Instant::now() + LEASE));
            } else {
                // Somebody took it over: both may have sent the event.
                history.lapsed();
            }
            is_ours
        });
        let kept = kept.await?;
        Ok(keys.iter().zip(kept).filter(|(_, kept)| !kept).map(|(key, _)| *key).collect())
    }

    fn lease(&self) -> Option<Duration> {
        Some(LEASE)
    }
}
