//! Replicas around a store, on simulated time: they come, end and die while partitions move, and the
//! store is slow, refuses, and loses its answers. Every event of every partition is handed out in
//! turn by one of them at a time, and once all is quiet each has its share, soon.
//!
//! `EVENTFERRY_SEED=N cargo test --lib share::replicas` replays a seed exactly.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use rand::SeedableRng as _;
use tokio::time::sleep;

use super::*;
use crate::{
    delivery::{Delivery, Outcome, Received, Settled},
    pipeline::simulation::{on_simulated_time, setting},
    state::{Checkpoint, PartitionKey, memory::MemoryStore},
    telemetry::Metrics,
};

const SEEDS: u64 = 300;
/// Longer than anything here lasts.
const NEVER: Duration = Duration::from_secs(3600);
const RENEW_EVERY: Duration = Duration::from_secs(1);
const EXPIRY: Duration = Duration::from_secs(6);
/// The longest that an event is in hand.
const IN_HAND_MAX: u64 = 3_000;
/// How long the store takes at most for the way there, and as long for the way back.
const WAY_MAX: u64 = 40;

/// What may go wrong in a world.
#[derive(Debug)]
struct Rules {
    partitions: usize,
    sharing: Sharing,
    /// Replicas die, and the store fails.
    is_stormy: bool,
    /// A question makes a record look new, as in blobs.
    asking_renews: bool,
}

impl Rules {
    fn of(dice: &mut StdRng) -> Self {
        let is_stormy = dice.random_bool(0.5);
        let strategy = if dice.random_bool(0.7) { Strategy::Greedy } else { Strategy::Balanced };
        // Where nobody dies nothing has to expire, and nothing does.
        let expiry = Span(if is_stormy { EXPIRY } else { NEVER });
        Self {
            partitions: dice.random_range(1..=12),
            sharing: Sharing { expiry, renew_every: Span(RENEW_EVERY), strategy },
            is_stormy,
            asking_renews: dice.random_bool(0.5),
        }
    }

    /// How long it may take, when nothing happens any more, until everybody has a share.
    fn rest(&self) -> Duration {
        let rounds = match self.sharing.strategy {
            Strategy::Greedy => 6,
            // One after the other, and each is asked for, given up and taken.
            Strategy::Balanced => 4 + 3 * u32::try_from(self.partitions).unwrap(),
        };
        let gone = if self.is_stormy { 2 * EXPIRY } else { Duration::ZERO };
        rounds * (RENEW_EVERY + Duration::from_millis(IN_HAND_MAX)) + gone
    }
}

/// A record, and when it was last its owner's.
struct Kept {
    record: Record,
    version: u64,
    epoch: i64,
    renewed: Instant,
}

/// What is there beside the replicas: the store, and the hub with its receivers.
struct World {
    rules: Rules,
    dice: Mutex<StdRng>,
    records: Mutex<BTreeMap<String, Kept>>,
    checkpoints: MemoryStore,
    /// The receiver of each partition, its epoch, and what ends it.
    readers: Mutex<BTreeMap<Arc<str>, (i64, CancellationToken)>>,
    /// The next event of each partition that nobody has handed out, and who has one in hand.
    handed_out: Mutex<BTreeMap<Arc<str>, i64>>,
    in_hand: Mutex<BTreeMap<Arc<str>, String>>,
    breaches: Mutex<Vec<String>>,
    /// The store is away.
    is_away: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

fn group() -> Group {
    Group { namespace: "n".into(), hub: "h".into(), group: "g".into() }
}

impl World {
    async fn takes(&self, most: u64) {
        let millis = lock(&self.dice).random_range(0..=most);
        sleep(Duration::from_millis(millis)).await;
    }

    /// The way to the store or back from it, on which something may be lost.
    async fn way(&self) -> Result<(), Fault> {
        self.takes(WAY_MAX).await;
        let is_lost = self.rules.is_stormy && lock(&self.dice).random_bool(0.02);
        if is_lost || *lock(&self.is_away) {
            return Err(Fault::retry("store", "timeout", "no answer"));
        }
        Ok(())
    }

    fn breach(&self, what: String) {
        lock(&self.breaches).push(what);
    }

    /// Attaches a receiver; none where one of a higher epoch is attached.
    fn attach(&self, partition: &Arc<str>, epoch: i64) -> Option<CancellationToken> {
        let mut readers = lock(&self.readers);
        if let Some((theirs, ends)) = readers.get(partition) {
            if *theirs > epoch && !ends.is_cancelled() {
                return None;
            }
            ends.cancel();
        }
        let ends = CancellationToken::new();
        readers.insert(partition.clone(), (epoch, ends.clone()));
        Some(ends)
    }

    fn is_read(&self, partition: &Arc<str>) -> bool {
        lock(&self.readers).get(partition).is_some_and(|(_, ends)| !ends.is_cancelled())
    }

    /// Notes that an event goes out: in turn, and not beside one of another replica.
    fn hand_out(&self, me: &str, partition: &Arc<str>, sequence: i64) {
        if let Some(other) = lock(&self.in_hand).insert(partition.clone(), me.to_owned())
            && !self.rules.is_stormy
        {
            self.breach(format!("{me} and {other} have events of {partition}"));
        }
        let mut handed_out = lock(&self.handed_out);
        let next = handed_out.entry(partition.clone()).or_default();
        if sequence > *next || (sequence < *next && !self.rules.is_stormy) {
            self.breach(format!("{me} hands out {sequence} of {partition} where {next} is next"));
        }
        *next = (*next).max(sequence + 1);
    }
}

/// A replica's way to the store.
struct Seat {
    world: Arc<World>,
    name: String,
}

#[async_trait]
impl StateStore for Seat {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        self.world.way().await?;
        self.world.checkpoints.load(partition).await
    }

    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        self.world.way().await?;
        self.world.checkpoints.store(checkpoints).await?;
        self.world.way().await
    }

    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault> {
        self.world.checkpoints.begin(partition, first, instead_of).await
    }

    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        self.world.checkpoints.put_back(partition, to).await
    }

    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        self.world.checkpoints.forget(partition).await
    }

    fn ownership(&self) -> Option<&dyn OwnershipStore> {
        Some(self)
    }
}

#[async_trait]
impl OwnershipStore for Seat {
    fn replica(&self) -> &str {
        &self.name
    }

    async fn list(&self, _: &Group) -> Result<BTreeMap<String, Held>, Fault> {
        self.world.way().await?;
        let held = |kept: &Kept| Held {
            record: kept.record.clone(),
            version: kept.version.to_string(),
            age: kept.renewed.elapsed(),
        };
        let listed =
            lock(&self.world.records).iter().map(|(id, kept)| (id.clone(), held(kept))).collect();
        self.world.way().await?;
        Ok(listed)
    }

    async fn put(
        &self,
        partition: &PartitionKey,
        record: &Record,
        known: Option<&str>,
    ) -> Result<Option<Written>, Fault> {
        self.world.way().await?;
        let written = {
            let mut records = lock(&self.world.records);
            let old = records.get(&partition.partition);
            if old.map(|old| old.version.to_string()).as_deref() == known {
                let (mut epoch, mut renewed) = (1, Instant::now());
                if let Some(old) = old {
                    let is_anothers = record.owner == old.record.owner && record.owner != self.name;
                    if is_anothers && !self.world.rules.asking_renews {
                        renewed = old.renewed;
                    }
                    let is_taken = record.owner != old.record.owner && !record.owner.is_empty();
                    epoch = old.epoch + i64::from(is_taken);
                }
                let version = old.map_or(1, |old| old.version + 1);
                let kept = Kept { record: record.clone(), version, epoch, renewed };
                records.insert(partition.partition.clone(), kept);
                Some(Written { version: version.to_string(), epoch })
            } else {
                None
            }
        };
        self.world.way().await?;
        Ok(written)
    }
}

/// A daemon as far as it shares a hub.
struct Replica {
    name: String,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Replica {
    /// Answers what must be driven for it to live.
    fn start(world: &Arc<World>, number: usize) -> (Self, BoxFuture<'static, ()>) {
        let name = format!("{OURS}{number}");
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let life = live(world.clone(), name.clone(), stop.clone());
        let killed = kill.clone();
        let world = world.clone();
        let me = name.clone();
        let life = async move {
            tokio::select! {
                () = killed.cancelled() => {}
                () = life => {}
            }
            // Its connections end with it.
            lock(&world.in_hand).retain(|_, owner| *owner != me);
        };
        (Self { name, stop, kill }, life.boxed())
    }
}

async fn live(world: Arc<World>, name: String, stop: CancellationToken) {
    let state: Arc<dyn StateStore> = Arc::new(Seat { world: world.clone(), name: name.clone() });
    let log = Arc::new(Log::new(state.clone()));
    let (takes, mut taken) = mpsc::unbounded_channel();
    let (tells, told) = mpsc::unbounded_channel();
    let seed = lock(&world.dice).random();
    let share = Box::new(Share {
        state,
        group: group(),
        sharing: world.rules.sharing.clone(),
        log: log.clone(),
        metrics: Metrics::new().unwrap().source(&name.as_str().into()),
        partitions: (0..world.rules.partitions).map(|id| id.to_string()).collect(),
        taken: takes,
        told,
        dice: StdRng::seed_from_u64(seed),
        keeping: Keeping::default(),
    });
    let settled = CancellationToken::new();
    let reading = async {
        let mut lanes = FuturesUnordered::new();
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                           biased;
                           () = stop.cancelled() => break,
                           Some(next) = taken.recv() => {
                               let lane = Lane {
                                   world: &world, me: &name, log: &log, tells: &tells, stop: &stop,
                               };
                               lanes.push(lane.read(next));
                           }
                           Some(()) = lanes.next(), if !lanes.is_empty() => {}
                           _ = ticks.tick() => {
            let _ = log.checkpoint().await;
            }
                       }
        }
        let _ = tells.send(Told::Quit);
        while lanes.next().await.is_some() {}
        let _ = log.checkpoint().await;
        settled.cancel();
    };
    tokio::join!(share.run(settled.clone()), reading);
}

/// A partition as one replica reads it.
struct Lane<'a> {
    world: &'a World,
    me: &'a str,
    log: &'a Log,
    tells: &'a mpsc::UnboundedSender<Told>,
    stop: &'a CancellationToken,
}

impl Lane<'_> {
    async fn read(self, Taken { partition, tenure, epoch, was_stolen }: Taken) {
        while was_stolen && self.world.is_read(&partition) {
            if self.is_over(&tenure) {
                return;
            }
            self.world.takes(1_000).await;
        }
        let key = group().partition(&partition);
        let mut next = loop {
            if self.is_over(&tenure) {
                return;
            }
            match self.log.open(&partition, key.clone(), &tenure, None).await {
                Ok(checkpoint) => break checkpoint.map_or(0, |last| last.sequence + 1),
                Err(_) => self.world.takes(1_000).await,
            }
        };
        let Some(ends) = self.world.attach(&partition, epoch) else {
            return self.stolen(&partition, &tenure);
        };
        let _detaches = ends.clone().drop_guard();
        while !self.is_over(&tenure) {
            if ends.is_cancelled() {
                return self.stolen(&partition, &tenure);
            }
            let event = (next, next.to_string(), Received::bare(Bytes::new()));
            for delivery in self.log.receive(&partition, [event]) {
                next += 1;
                self.deliver(&partition, delivery).await;
            }
            self.world.takes(200).await;
        }
    }

    fn is_over(&self, tenure: &Tenure) -> bool {
        tenure.is_over() || self.stop.is_cancelled()
    }

    /// As an event that goes to a sink.
    async fn deliver(&self, partition: &Arc<str>, delivery: Delivery) {
        let crate::delivery::Token::Position { sequence, .. } = delivery.token else { return };
        self.world.hand_out(self.me, partition, sequence);
        let is_slow = lock(&self.world.dice).random_bool(0.1);
        self.world.takes(if is_slow { IN_HAND_MAX } else { 50 }).await;
        let mut in_hand = lock(&self.world.in_hand);
        if in_hand.get(partition).is_some_and(|owner| owner == self.me) {
            in_hand.remove(partition);
        }
        drop(in_hand);
        self.log.settle(&[Settled { token: delivery.token, outcome: Outcome::Delivered }]);
    }

    fn stolen(&self, partition: &Arc<str>, tenure: &Tenure) {
        self.log.lose(partition, tenure);
        let _ = self.tells.send(Told::Stolen(partition.clone()));
    }
}

/// What has happened in a world.
struct Story {
    world: Arc<World>,
    living: Vec<Replica>,
    births: usize,
}

impl Story {
    fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let world = World {
            rules: Rules::of(&mut dice),
            dice: Mutex::new(dice),
            records: Mutex::default(),
            checkpoints: MemoryStore::default(),
            readers: Mutex::default(),
            handed_out: Mutex::default(),
            in_hand: Mutex::default(),
            breaches: Mutex::default(),
            is_away: Mutex::default(),
        };
        Self { world: Arc::new(world), living: Vec::new(), births: 0 }
    }

    /// Lets replicas come and go, and then rest.
    async fn run(mut self) -> Result<usize, String> {
        let mut lives = FuturesUnordered::new();
        let steps = lock(&self.world.dice).random_range(2..12);
        for _ in 0..steps {
            let (what, wait) = {
                let mut dice = lock(&self.world.dice);
                (dice.random_range(0..10), dice.random_range(0..5_000))
            };
            match what {
                0..3 if self.living.len() > 1 => self.leaves().stop.cancel(),
                3 if self.world.rules.is_stormy && !self.living.is_empty() => {
                    self.leaves().kill.cancel();
                }
                4 if self.world.rules.is_stormy => {
                    *lock(&self.world.is_away) = true;
                }
                _ if self.living.len() < 5 => {
                    let (replica, life) = Replica::start(&self.world, self.births);
                    self.births += 1;
                    self.living.push(replica);
                    lives.push(life);
                }
                _ => {}
            }
            drive(&mut lives, Duration::from_millis(wait)).await;
            *lock(&self.world.is_away) = false;
        }
        if self.living.is_empty() {
            let (replica, life) = Replica::start(&self.world, self.births);
            self.living.push(replica);
            lives.push(life);
        }
        drive(&mut lives, self.world.rules.rest()).await;
        self.look()?;
        // And so it stays, and everything is read.
        let before = lock(&self.world.handed_out).clone();
        let owners = self.owners();
        drive(&mut lives, 5 * RENEW_EVERY + Duration::from_millis(2 * IN_HAND_MAX)).await;
        self.look()?;
        if !self.world.rules.is_stormy && owners != self.owners() {
            return Err("no rest".to_owned());
        }
        let after = lock(&self.world.handed_out).clone();
        let is_read = |id: &str| after.get(id) > before.get(id);
        match (0..self.world.rules.partitions).find(|id| !is_read(&id.to_string())) {
            Some(id) => Err(format!("nobody reads {id}")),
            None => Ok(self.births),
        }
    }

    /// One of the living, who is not one of them any more.
    fn leaves(&mut self) -> Replica {
        let at = lock(&self.world.dice).random_range(0..self.living.len());
        self.living.swap_remove(at)
    }

    fn owners(&self) -> Vec<String> {
        lock(&self.world.records).values().map(|kept| kept.record.owner.clone()).collect()
    }

    /// Whether everybody has a share, and nothing has gone wrong before.
    fn look(&self) -> Result<(), String> {
        if let Some(breach) = lock(&self.world.breaches).first() {
            return Err(breach.clone());
        }
        let owners = self.owners();
        let living: BTreeSet<&str> = self.living.iter().map(|it| it.name.as_str()).collect();
        let is_had = |owner: &String| living.contains(owner.as_str());
        if owners.len() != self.world.rules.partitions || !owners.iter().all(is_had) {
            return Err(format!("not all are had: {owners:?} of {living:?}"));
        }
        let share = |name: &&str| owners.iter().filter(|owner| *owner == name).count();
        let shares: Vec<usize> = living.iter().map(share).collect();
        let (most, least) = (shares.iter().max(), shares.iter().min());
        if most > least.map(|least| least + 1).as_ref() {
            return Err(format!("unfair: {shares:?}"));
        }
        Ok(())
    }
}

/// Lets everybody live for so long.
async fn drive(lives: &mut FuturesUnordered<BoxFuture<'static, ()>>, time: Duration) {
    let mut over = std::pin::pin!(sleep(time));
    loop {
        tokio::select! {
            biased;
            Some(()) = lives.next(), if !lives.is_empty() => {}
            () = &mut over => return,
        }
    }
}

#[test]
fn partitions_are_shared_and_read_whoever_comes_and_goes() {
    if let Some(seed) = setting("EVENTFERRY_SEED") {
        println!("{:#?}", Story::of(seed).world.rules);
        println!("{:?}", on_simulated_time(seed, Story::of(seed).run()));
        return;
    }
    let first = setting("EVENTFERRY_FIRST_SEED").unwrap_or_default();
    let seeds = setting("EVENTFERRY_SEEDS").unwrap_or(SEEDS);
    let mut replicas = 0;
    for seed in first..first + seeds {
        replicas += on_simulated_time(seed, Story::of(seed).run()).unwrap_or_else(|breach| {
            panic!("seed {seed}: {breach}\nreplay: EVENTFERRY_SEED={seed} cargo test --lib share::replicas")
        });
    }
    assert!(replicas as u64 > seeds, "nobody comes or goes");
}
