//! Queues and logs in this process: real connectors for tests and trials, with the semantics that
//! matter (leases, receive counts, FIFO groups, partitions, checkpoints) and none of the network.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{Backlog, Extended, Lease, Nature, Receive, Settle, Source, log::Log};
use crate::{
    cloud::Context,
    config::units::Span,
    delivery::{Delivery, Origin, Outcome, Received, Settled, Tenure, Token},
    event::Attributes,
    fault::Fault,
    state::PartitionKey,
};

/// A queue in this process. Sources and sinks of the same name meet in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "MemoryQueue")]
pub struct Config {
    /// Name of the queue.
    pub queue: String,
    /// What kind of service it imitates.
    #[serde(default)]
    pub kind: Kind,
    /// How long a received message stays hidden, for queues.
    #[serde(default = "default_visibility")]
    pub visibility: Span,
    /// Partitions, for logs.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
}

impl Config {
    /// A standard queue of this name.
    pub(crate) fn named(queue: &str) -> Self {
        let (visibility, partitions) = (default_visibility(), default_partitions());
        Self { queue: queue.to_owned(), kind: Kind::default(), visibility, partitions }
    }
}

/// What an in-memory queue imitates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "MemoryKind")]
pub enum Kind {
    /// Leased messages in no order, like a standard SQS queue.
    #[default]
    Standard,
    /// Leased messages, in order per key, like a FIFO queue.
    Fifo,
    /// A partitioned log, like an event hub.
    Log,
}

impl Kind {
    /// In words, with its article.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Standard => "a standard queue",
            Self::Fifo => "a FIFO queue",
            Self::Log => "a log",
        }
    }
}

fn default_visibility() -> Span {
    Span(Duration::from_secs(30))
}

fn default_partitions() -> u32 {
    4
}

/// Messages at most per receive.
const BATCH: usize = 100;
/// How long an empty receive waits.
const POLL: Duration = Duration::from_secs(1);

/// A message as a producer puts it in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Payload.
    pub body: Bytes,
    /// Attributes.
    pub attributes: Attributes,
    /// Producer's id.
    pub message_id: Option<Arc<str>>,
    /// Subject.
    pub subject: Option<Arc<str>>,
    /// Media type.
    pub content_type: Option<Arc<str>>,
    /// Message group or partition key.
    pub key: Option<Arc<str>>,
}

/// A handle on an in-memory queue.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    kind: Kind,
    visibility: Duration,
    partitions: u32,
    messages: Mutex<Vec<Stored>>,
    /// The next serial: none is given twice, so that a late settlement hits nothing new.
    next: AtomicU64,
    changed: Notify,
}

struct Stored {
    serial: u64,
    message: Message,
    visible: Instant,
    /// The newest receipt; an older one no longer counts.
    receipt: u64,
    receives: u32,
    leased: bool,
}

impl Queue {
    /// A queue that only its holders know.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self(Arc::new(Shared {
            name: config.queue.as_str().into(),
            kind: config.kind,
            visibility: *config.visibility,
            partitions: config.partitions.max(1),
            messages: Mutex::default(),
            next: AtomicU64::new(0),
            changed: Notify::new(),
        }))
    }

    /// The queue of this name in this process; the first to ask for it says what it is.
    #[must_use]
    pub fn named(config: &Config) -> Self {
        static QUEUES: Mutex<Option<HashMap<String, Queue>>> = Mutex::new(None);
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = queues.get_or_insert_default();
        queues.entry(config.queue.clone()).or_insert_with(|| Self::new(config)).clone()
    }

    /// Puts messages in.
    pub fn put(&self, messages: impl IntoIterator<Item = Message>) {
        let now = Instant::now();
        let mut stored = self.messages();
        for message in messages {
            let serial = self.0.next.fetch_add(1, Ordering::Relaxed);
            stored.push(Stored {
                serial,
                message,
                visible: now,
                receipt: 0,
                receives: 0,
                leased: false,
            });
        }
        drop(stored);
        self.0.changed.notify_waiters();
    }

    /// How many messages are in it, leased or not.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.messages().len()
    }

    /// What is in it, leased or not.
    #[must_use]
    pub fn contents(&self) -> Vec<Message> {
        self.messages().iter().map(|stored| stored.message.clone()).collect()
    }

    /// Waits until `condition` holds for the contents. The test's own time-out bounds it.
    pub async fn wait_until(&self, condition: impl Fn(&[Message]) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if condition(&self.contents()) {
                return;
            }
            changed.await;
        }
    }

    /// Connects a source to it.
    ///
    /// # Errors
    /// A log's checkpoints cannot be read.
    pub async fn source(&self, context: &Context) -> Result<Source, Fault> {
        let all = (0..self.0.partitions).collect();
        self.share_of(context, watch::channel(all).1).await
    }

    /// Connects a source that has these partitions of a log, and comes to have others.
    pub(crate) async fn share_of(
        &self,
        context: &Context,
        mine: watch::Receiver<BTreeSet<u32>>,
    ) -> Result<Source, Fault> {
        let ordered = self.0.kind != Kind::Standard;
        let name = context.name.clone();
        if self.0.kind == Kind::Log {
            let log = Arc::new(Log::new(context.state.clone()));
            let (queue, next) = (self.clone(), HashMap::new());
            let mut receive = LogReceive { queue, log: log.clone(), mine, next, name };
            receive.share().await?;
            let settle = LogSettle { queue: self.clone(), log };
            return Ok(Source {
                receive: Box::new(receive),
                settle: Box::new(settle),
                ordered,
                lease: None,
                hold: None,
            });
        }
        let lease =
            Lease { duration: self.0.visibility, total_max: Duration::from_secs(12 * 3600) };
        Ok(Source {
            receive: Box::new(LeaseReceive { queue: self.clone(), name }),
            settle: Box::new(LeaseSettle(self.clone())),
            ordered,
            lease: Some(lease),
            hold: None,
        })
    }

    /// The partition of a log's message, which follows from its key, or from its place.
    fn partition_of(&self, entry: &Stored) -> u32 {
        let hash = match &entry.message.key {
            Some(key) => {
                key.bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte))
            }
            None => entry.serial,
        };
        u32::try_from(hash % u64::from(self.0.partitions)).unwrap_or_default()
    }

    fn messages(&self) -> MutexGuard<'_, Vec<Stored>> {
        self.0.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self, stored: &Stored, source: &Arc<str>, position: String) -> Received {
        let Message { body, attributes, message_id, subject, content_type, key } =
            stored.message.clone();
        let resource = format!("memory:{}", self.0.name).into();
        let origin = Origin { source: source.clone(), resource, position: position.into() };
        Received {
            body,
            attributes,
            message_id,
            subject,
            content_type,
            key,
            enqueued: None,
            xray: None,
            claimed: None,
            origin,
        }
    }

    fn lease(&self, name: &Arc<str>) -> Vec<Delivery> {
        let now = Instant::now();
        let mut stored = self.messages();
        for entry in stored.iter_mut() {
            entry.leased &= entry.visible > now;
        }
        let mut busy: HashSet<Arc<str>> = HashSet::new();
        if self.0.kind == Kind::Fifo {
            let hidden = stored.iter().filter(|entry| entry.visible > now);
            busy = hidden.filter_map(|entry| entry.message.key.clone()).collect();
        }
        let free = |entry: &&mut Stored| {
            entry.visible <= now
                && !entry.message.key.as_ref().is_some_and(|key| busy.contains(key))
        };
        let mut deliveries = Vec::new();
        for entry in stored.iter_mut().filter(free).take(BATCH) {
            entry.visible = now + self.0.visibility;
            entry.leased = true;
            entry.receives += 1;
            entry.receipt += 1;
            let handle = format!("{}:{}", entry.serial, entry.receipt).into();
            let serial = (entry.serial << 16) | (entry.receipt & 0xffff);
            deliveries.push(Delivery {
                received: Arc::new(self.received(entry, name, entry.serial.to_string())),
                attempt: entry.receives,
                token: Token::Lease { serial, handle },
                since: now,
                ties: None,
            });
        }
        deliveries
    }

    /// The entry that a token still has the lease of.
    fn held<'a>(stored: &'a mut [Stored], token: &Token) -> Option<&'a mut Stored> {
        let Token::Lease { handle, .. } = token else { return None };
        let (serial, receipt) = handle.split_once(':')?;
        let (serial, receipt) = (serial.parse::<u64>().ok()?, receipt.parse::<u64>().ok()?);
        let at = stored.binary_search_by_key(&serial, |entry| entry.serial).ok()?;
        Some(&mut stored[at]).filter(|entry| entry.receipt == receipt && entry.leased)
    }

    /// When the next hidden message becomes visible, or a poll from now. One that is visible and
    /// waits for its group is waited for by what hides the group.
    fn next_visible(&self) -> Instant {
        let now = Instant::now();
        let stored = self.messages();
        let hidden = stored.iter().map(|entry| entry.visible).filter(|visible| *visible > now);
        hidden.fold(now + POLL, Instant::min)
    }
}

struct LeaseReceive {
    queue: Queue,
    name: Arc<str>,
}

#[async_trait]
impl Receive for LeaseReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        let mut changed = std::pin::pin!(self.queue.0.changed.notified());
        changed.as_mut().enable();
        let deliveries = self.queue.lease(&self.name);
        if !deliveries.is_empty() {
            return Ok(deliveries);
        }
        let _ = tokio::time::timeout_at(self.queue.next_visible(), changed).await;
        Ok(self.queue.lease(&self.name))
    }
}

struct LeaseSettle(Queue);

#[async_trait]
impl Settle for LeaseSettle {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        let now = Instant::now();
        let mut stored = self.0.messages();
        let mut gone = HashSet::new();
        for Settled { token, outcome } in &done {
            let Some(entry) = Queue::held(&mut stored, token) else { continue };
            match outcome {
                Outcome::Returned { after } => {
                    entry.visible = now + after.unwrap_or_default();
                    entry.leased = false;
                }
                _ => _ = gone.insert(entry.serial),
            }
        }
        stored.retain(|entry| !gone.contains(&entry.serial));
        drop(stored);
        self.0.0.changed.notify_waiters();
        Vec::new()
    }

    async fn extend(&mut self, open: &[Token], by: Duration) -> Extended {
        let now = Instant::now();
        let mut stored = self.0.messages();
        let mut lost = Vec::new();
        for token in open {
            match Queue::held(&mut stored, token).filter(|entry| entry.visible > now) {
                Some(entry) => entry.visible = now + by,
                None => lost.push(token.clone()),
            }
        }
        Extended { lost, ..Extended::default() }
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        let events = self.0.messages().len() as u64;
        Ok(vec![Backlog { partition: String::new(), events, oldest: None, reach: None }])
    }
}

struct LogReceive {
    queue: Queue,
    log: Arc<Log>,
    /// The partitions that it should have.
    mine: watch::Receiver<BTreeSet<u32>>,
    /// Those that it has, since when, and what it reads next of each.
    next: HashMap<u32, (Tenure, i64)>,
    name: Arc<str>,
}

impl LogReceive {
    /// Takes up what is its own now, and lets go of what is not any more.
    async fn share(&mut self) -> Result<(), Fault> {
        let mine = self.mine.borrow_and_update().clone();
        self.next.retain(|partition, (tenure, _)| {
            let is_mine = mine.contains(partition);
            if !is_mine {
                self.log.lose(&partition.to_string(), tenure);
            }
            is_mine
        });
        for partition in mine {
            if self.next.contains_key(&partition) {
                continue;
            }
            let key = PartitionKey {
                namespace: "memory".into(),
                hub: self.queue.0.name.to_string(),
                group: self.name.to_string(),
                partition: partition.to_string(),
            };
            let (id, tenure) = (partition.to_string().into(), Tenure::begin());
            let checkpoint = self.log.open(&id, key, &tenure, None).await?;
            let next = checkpoint.map_or(0, |at| at.sequence + 1);
            self.next.insert(partition, (tenure, next));
        }
        Ok(())
    }

    fn read(&mut self) -> Vec<Delivery> {
        let stored = self.queue.messages();
        let mut found: BTreeMap<u32, Vec<(i64, String, Received)>> = BTreeMap::new();
        // Once for all of them: room for a later one must not let an earlier one be passed over.
        let is_full = |partition: &u32| self.log.is_full(&partition.to_string());
        let full: HashSet<u32> = self.next.keys().copied().filter(is_full).collect();
        let first = self.next.values().map(|(_, next)| *next).min().unwrap_or_default();
        let start = stored.partition_point(|entry| (entry.serial as i64) < first);
        for entry in stored[start..].iter() {
            let (partition, sequence) = (self.queue.partition_of(entry), entry.serial as i64);
            let Some((_, next)) = self.next.get(&partition) else { continue };
            let of_partition = found.entry(partition).or_default();
            let is_full = full.contains(&partition);
            if sequence < *next || of_partition.len() == BATCH || is_full {
                continue;
            }
            let position = format!("{partition}/{sequence}");
            let mut received = self.queue.received(entry, &self.name, position);
            received.key.get_or_insert_with(|| partition.to_string().into());
            of_partition.push((sequence, sequence.to_string(), received));
        }
        drop(stored);
        let mut deliveries = Vec::new();
        for (partition, events) in found {
            if let (Some((last, ..)), Some((_, next))) =
                (events.last(), self.next.get_mut(&partition))
            {
                *next = last + 1;
            }
            deliveries.extend(self.log.receive(&partition.to_string().into(), events));
        }
        deliveries
    }
}

#[async_trait]
impl Receive for LogReceive {
    async fn receive(&mut self) -> Result<Vec<Delivery>, Fault> {
        self.share().await?;
        let queue = self.queue.clone();
        let mut changed = std::pin::pin!(queue.0.changed.notified());
        changed.as_mut().enable();
        let fresh = self.read();
        if !fresh.is_empty() {
            return Ok(fresh);
        }
        tokio::select! {
            biased;
            again = self.log.redeliver() => Ok(again),
            Ok(()) = self.mine.changed() => Ok(Vec::new()),
            () = changed => Ok(self.read()),
            () = tokio::time::sleep(POLL) => Ok(Vec::new()),
        }
    }
}

struct LogSettle {
    queue: Queue,
    log: Arc<Log>,
}

#[async_trait]
impl Settle for LogSettle {
    async fn settle(&mut self, done: Vec<Settled>) -> Vec<(Settled, Fault)> {
        self.log.settle(&done);
        Vec::new()
    }

    async fn checkpoint(&mut self) -> Result<(), Fault> {
        self.log.checkpoint().await
    }

    async fn backlog(&mut self) -> Result<Vec<Backlog>, Fault> {
        let stored = self.queue.messages();
        let of = |partition: Arc<str>| {
            let settled = self.log.position(&partition).unwrap_or(-1);
            let waits = |entry: &&Stored| {
                entry.serial as i64 > settled
                    && self.queue.partition_of(entry).to_string() == *partition
            };
            let events = stored.iter().filter(waits).count() as u64;
            let oldest = self.log.oldest(&partition);
            Backlog { partition: partition.to_string(), events, oldest, reach: None }
        };
        Ok(self.log.partitions().into_iter().map(of).collect())
    }
}

impl Config {
    pub(super) fn source_nature(&self) -> Nature {
        let ordered_by = match self.kind {
            Kind::Standard => None,
            Kind::Fifo => Some("key"),
            Kind::Log => Some("partition"),
        };
        let what = self.kind.what();
        let hold_max = Duration::from_secs(11 * 3600);
        Nature { what, ordered_by, is_log: self.kind == Kind::Log, event_bytes: 1 << 20, hold_max }
    }

    pub(super) async fn source(&self, context: &Context) -> Result<Source, Fault> {
        Queue::named(self).source(context).await
    }
}
