//! Replicas that share the partitions of a hub, by Redis and by Blob Storage: they take over from
//! one another while events come, and a checker reads the far side.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use eventferry::{
    config::{self, environment::Environment},
    daemon,
    state::{
        StateStore,
        blob::Config as BlobConfig,
        ownership::{Group, Held, Record},
    },
};
use eventhubs::emulator::{Append, Config, Emulator, HubConfig, Seed};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    canary,
    clouds::{azurite, unique},
    figures,
    redis::Server,
    rig::PATIENCE,
};

mod foreign;
mod rewind;
mod stops;
pub mod theft;
mod probes;
mod zombie;

const NEAR: &str = "near";
const FAR: &str = "far";
const PARTITIONS: usize = 8;
/// The most that one poll of a partition hands to the pipeline.
const BATCH: usize = 500;
/// What a replica that shares the keys of what was delivered may have sent and not committed when it
/// dies: all that it may have in hand.
const IN_HAND: usize = 100;
/// Other processes tell nobody when something has changed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the replicas share.
pub enum Shared {
    Redis(Server),
    Blob(String),
}

impl Shared {
    pub async fn redis() -> Self {
        Self::Redis(Server::start().await)
    }

    pub async fn blob() -> Self {
        let name = unique("sharing");
        azurite::container(&name).await;
        Self::Blob(name)
    }

    /// The file's `state`.
    async fn state(&self) -> Json {
        match self {
            Self::Redis(server) => json!({ "redis": { "url": server.url(), "prefix": "test" } }),
            Self::Blob(container) => json!({
                "blob": { "container": container, "azure": azurite::settings().await },
            }),
        }
    }

    /// Opened by somebody else.
    async fn open(&self) -> Arc<dyn StateStore> {
        match self {
            Self::Redis(server) => Arc::new(server.open().await),
            Self::Blob(_) => {
                let config = self.state().await["blob"].take();
                let config: BlobConfig = serde_json::from_value(config).unwrap();
                Arc::new(config.open(&Default::default()).await.unwrap())
            }
        }
    }
}

fn group(namespace: &str) -> Group {
    let (namespace, hub, group) = (namespace.to_owned(), NEAR.to_owned(), "$Default".to_owned());
    Group { namespace, hub, group }
}

/// Two hubs, and what the replicas between them share.
struct World {
    emulator: Emulator,
    shared: Shared,
    store: Arc<dyn StateStore>,
    /// As the source names it.
    namespace: String,
    dir: TempDir,
    replicas: AtomicUsize,
    /// How many events of each key have been put in.
    fed: BTreeMap<String, usize>,
}

impl World {
    async fn new(shared: Shared) -> Self {
        let hubs = [NEAR, FAR].map(|name| HubConfig::new(name, u32::try_from(PARTITIONS).unwrap()));
        let emulator = Emulator::start(Config::with_hubs(hubs)).unwrap();
        Self {
            // What the SDKs make of the address.
            namespace: emulator.endpoint().trim_start_matches("amqp://").to_owned(),
            store: shared.open().await,
            emulator,
            shared,
            dir: tempfile::tempdir().unwrap(),
            replicas: AtomicUsize::new(0),
            fed: BTreeMap::new(),
        }
    }

    fn source(&self, sharing: &Json) -> Json {
        json!({
            "namespace": self.namespace, "endpoint": self.emulator.endpoint(), "hub": NEAR,
            "sharing": sharing, "discover_every": "1s",
        })
    }

    async fn file(&self, sharing: &Json, dedup: bool) -> Json {
        let mut route = json!({ "name": "carry", "from": ["near"], "to": { "all": ["far"] } });
        if dedup {
            route["dedup"] = json!({ "ttl": "1h" });
        }
        let mut near = json!({ "event_hubs": self.source(sharing) });
        if dedup {
            near["max_in_flight"] = json!({ "events": IN_HAND });
        }
        json!({
            "state": self.shared.state().await,
            "admin": "off",
            "unmatched": "drop",
            "sources": { "near": near },
            "sinks": { "far": { "event_hubs": {
                "namespace": "local", "endpoint": self.emulator.endpoint(), "hub": FAR,
            } } },
            "routes": [route],
        })
    }

    /// A replica in this process.
    async fn start(&self, sharing: &Json, dedup: bool) -> Replica {
        let file = self.file(sharing, dedup).await.to_string();
        let checked = config::read("sharing.yaml", &file, &Environment::default());
        let plan = checked.unwrap_or_else(|problems| panic!("{problems}\n{file}")).plan;
        canary::watch();
        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = tokio::spawn(daemon::run(plan, async {
            let _ = stopped.await;
        }));
        Replica { stop, daemon }
    }

    /// A replica that can be killed.
    async fn start_process(&self, sharing: &Json, dedup: bool) -> Process {
        let number = self.replicas.fetch_add(1, Ordering::Relaxed);
        let file = self.dir.path().join(format!("replica-{number}.yaml"));
        std::fs::write(&file, self.file(sharing, dedup).await.to_string()).unwrap();
        Process::start(&file, self.dir.path().join(format!("replica-{number}.log")))
    }

    /// Puts events of 16 keys in, numbered by key.
    fn feed(&mut self, each: usize) {
        for key in (0..16).map(|key| format!("key-{key}")) {
            let fed = self.fed.entry(key.clone()).or_default();
            let events = (*fed..*fed + each).map(|n| Seed::new(n.to_string())).collect();
            *fed += each;
            let hub = NEAR.to_owned();
            let append = Append { hub, partition: None, partition_key: Some(key), events };
            self.emulator.control().append(append).unwrap();
        }
    }

    fn all_fed(&self) -> usize {
        self.fed.values().sum()
    }

    /// How many events the far side has.
    fn far(&self) -> usize {
        let hubs = self.emulator.control().state().hubs;
        let far = hubs.iter().find(|hub| hub.name == FAR).unwrap();
        let counts = far.partitions.iter().map(|partition| partition.last_sequence_number + 1);
        usize::try_from(counts.sum::<i64>()).unwrap()
    }

    async fn records(&self) -> BTreeMap<String, Held> {
        let ownership = self.store.ownership().unwrap();
        ownership.list(&group(&self.namespace)).await.unwrap()
    }

    /// How many partitions each replica has, most first.
    async fn shares(&self) -> Vec<usize> {
        let mut by_owner: BTreeMap<String, usize> = BTreeMap::new();
        for held in self.records().await.into_values() {
            *by_owner.entry(held.record.owner).or_default() += 1;
        }
        by_owner.remove("");
        let mut shares: Vec<usize> = by_owner.into_values().collect();
        shares.sort_unstable_by_key(|share| std::cmp::Reverse(*share));
        shares
    }

    /// Feeds while it waits until the replicas have these shares.
    async fn shared_as(&mut self, wanted: &[usize]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let shares = self.shares().await;
            if shares == wanted {
                return;
            }
            assert!(Instant::now() < until, "{shares:?} instead of {wanted:?}");
            if self.all_fed() < self.far() + 2_000 {
                self.feed(10);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Feeds until the first of them is the second replica's: others are on their way to it.
    async fn shared_by_two(&mut self) {
        let until = Instant::now() + PATIENCE;
        self.feed(10);
        while self.shares().await.len() != 2 {
            assert!(Instant::now() < until, "not shared");
            sleep(LOOK_EVERY / 10).await;
        }
    }

    /// Waits until somebody has asked for a partition.
    async fn asked(&self) {
        let until = Instant::now() + PATIENCE;
        while self.records().await.values().all(|held| held.record.wanted_by.is_none()) {
            assert!(Instant::now() < until, "nobody has asked");
            sleep(LOOK_EVERY / 10).await;
        }
    }

    /// Waits until one replica has everything, and nobody wants any of it.
    async fn all_of_one(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let records = self.records().await;
            let are_kept = records.values().all(|held| held.record.wanted_by.is_none());
            if are_kept && self.shares().await == [PARTITIONS] {
                return;
            }
            assert!(Instant::now() < until, "{records:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until everything has arrived, and answers how much of it came twice. Nothing is lost,
    /// and each key is in order, but for what is repeated.
    async fn verify(&self) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{} lost: {missing:?}", missing.len());
            sleep(4 * LOOK_EVERY).await;
        }
        let mut all = 0;
        for (key, numbers) in self.arrived() {
            all += numbers.len();
            let mut next = 0;
            for number in numbers {
                assert!(number <= next, "{key}: {number} came before {next}");
                next = next.max(number + 1);
            }
            assert_eq!(Some(&next), self.fed.get(&key), "{key}");
        }
        all - self.all_fed()
    }

    /// How often a key of each partition went back: what somebody had to repeat.
    fn went_back(&self) -> BTreeMap<String, usize> {
        let arrived = self.arrived();
        let mut went_back = BTreeMap::new();
        for partition in (0..PARTITIONS).map(|partition| partition.to_string()) {
            let events = self.emulator.control().events(NEAR, &partition, 0).unwrap();
            let keys: BTreeSet<_> = events.into_iter().filter_map(|it| it.partition_key).collect();
            let steps = |key| arrived[key].windows(2).filter(|pair| pair[1] <= pair[0]).count();
            let most = keys.iter().map(steps).max().unwrap_or(0);
            if most > 0 {
                went_back.insert(partition, most);
            }
        }
        went_back
    }

    /// The numbers of each key, in the order of the far side.
    fn arrived(&self) -> BTreeMap<String, Vec<usize>> {
        let mut arrived: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for partition in (0..PARTITIONS).map(|partition| partition.to_string()) {
            // There are only so many in one answer.
            let read = |from| self.emulator.control().events(FAR, &partition, from).unwrap();
            let mut events = read(0);
            while let Some(last) = events.last().map(|event| event.sequence_number) {
                for event in events {
                    let number = String::from_utf8(event.body().unwrap()).unwrap();
                    let numbers = arrived.entry(event.partition_key.unwrap()).or_default();
                    numbers.push(number.parse().unwrap());
                }
                events = read(last + 1);
            }
        }
        arrived
    }

    fn missing(&self) -> Vec<(String, usize)> {
        let arrived = self.arrived();
        let mut missing = Vec::new();
        for (key, count) in &self.fed {
            let mut is_here = vec![false; *count];
            arrived.get(key).into_iter().flatten().for_each(|number| is_here[*number] = true);
            let numbers = (0..*count).filter(|number| !is_here[*number]);
            missing.extend(numbers.map(|number| (key.clone(), number)));
        }
        missing
    }
}

struct Replica {
    stop: oneshot::Sender<()>,
    daemon: JoinHandle<Result<(), daemon::DaemonError>>,
}

impl Replica {
    /// Drains it.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.daemon.await.unwrap().unwrap();
    }
}

/// A daemon that does not outlive its test.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(file: &Path, log: PathBuf) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_eventferry"))
            .args(["run", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn();
        Self { child: child.unwrap(), log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Process {
    /// As from kill -9.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        canary::look_for_any(&self.log);
    }
}

/// So long that nothing expires within a test.
fn patient() -> Json {
    json!({ "expiry": "10m", "renew_every": "1s" })
}

fn note(run: &str, moves: usize, events: usize, repeated: usize) {
    let figures = json!({ "events": events, "moves": moves, "lost": 0, "duplicated": repeated });
    figures::note("sharing", run, figures);
}

async fn one_to_three_to_one_under_load(shared: Shared, dedup: bool) {
    let mut world = World::new(shared).await;
    let one = world.start(&patient(), dedup).await;
    world.shared_as(&[8]).await;
    let sharing = patient();
    let (two, three) = tokio::join!(world.start(&sharing, dedup), world.start(&sharing, dedup));
    world.shared_as(&[3, 3, 2]).await;
    tokio::join!(two.stop(), three.stop());
    world.shared_as(&[8]).await;
    world.feed(50);
    let repeated = world.verify().await;
    let how = if dedup { ", with dedup" } else { "" };
    note(&format!("one replica to three to one{how}"), 16, world.all_fed(), repeated);
    assert_eq!(repeated, 0, "moves by agreement repeat nothing");
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_to_three_to_one_under_load_in_blobs() {
    one_to_three_to_one_under_load(Shared::blob().await, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_to_three_to_one_under_load_in_redis() {
    one_to_three_to_one_under_load(Shared::redis().await, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_to_three_to_one_under_load_repeats_nothing_with_deduplication() {
    one_to_three_to_one_under_load(Shared::redis().await, true).await;
}

async fn what_a_killed_replica_had_is_taken_within_the_expiry(shared: Shared, dedup: bool) {
    let sharing = json!({ "expiry": "6s", "renew_every": "1s" });
    let mut world = World::new(shared).await;
    let one = world.start_process(&sharing, dedup).await;
    world.shared_as(&[8]).await;
    let other = world.start_process(&sharing, dedup).await;
    world.shared_as(&[4, 4]).await;
    let killed = Instant::now();
    drop(one);
    world.shared_as(&[8]).await;
    let took = killed.elapsed();
    // One more look of the survivor, and a slow machine.
    assert!(took < Duration::from_secs(6 + 1 + 13), "{took:?}");
    world.feed(50);
    let repeated = world.verify().await;
    let figures = json!({
        "events": world.all_fed(), "kills": 1, "lost": 0, "duplicated": repeated,
        "taken over after s": took.as_secs_f64().ceil(),
    });
    let how = if dedup { ", with dedup" } else { "" };
    figures::note("sharing", &format!("one of two is killed, its expiry is 6 s{how}"), figures);
    let most = if dedup { IN_HAND } else { 4 * BATCH };
    assert!(repeated <= most, "{repeated} repeated, and it had four partitions");
    assert!(other.log().contains("partition taken"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_had_is_taken_within_the_expiry_in_redis() {
    what_a_killed_replica_had_is_taken_within_the_expiry(Shared::redis().await, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_had_is_taken_within_the_expiry_where_keys_are_known() {
    what_a_killed_replica_had_is_taken_within_the_expiry(Shared::redis().await, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_had_is_taken_within_the_expiry_in_blobs() {
    what_a_killed_replica_had_is_taken_within_the_expiry(Shared::blob().await, false).await;
}

async fn of_two_who_write_one_comes_too_late(shared: Shared) {
    let (one, two) = (shared.open().await, shared.open().await);
    let (one, two) = (one.ownership().unwrap(), two.ownership().unwrap());
    let (mine, theirs) = (one.replica().to_owned(), two.replica().to_owned());
    assert_ne!(mine, theirs);
    let group = group("demo.servicebus.windows.net");
    let partition = group.partition("3");
    let of = |owner: &str| Record { owner: owner.to_owned(), wanted_by: None };
    assert!(one.list(&group).await.unwrap().is_empty());

    let first = one.put(&partition, &of(&mine), None).await.unwrap().unwrap();
    assert_eq!(two.put(&partition, &of(&theirs), None).await.unwrap(), None);
    let renewed = one.put(&partition, &of(&mine), Some(&first.version)).await.unwrap().unwrap();
    assert_eq!(renewed.epoch, first.epoch);
    assert_eq!(two.put(&partition, &of(&theirs), Some(&first.version)).await.unwrap(), None);

    let seen = two.list(&group).await.unwrap().remove("3").unwrap();
    assert_eq!(seen.record, of(&mine));
    assert!(seen.age < Duration::from_secs(30));
    let asks = Record { wanted_by: Some(theirs.clone()), ..of(&mine) };
    assert!(two.put(&partition, &asks, Some(&seen.version)).await.unwrap().is_some());
    let asked = one.list(&group).await.unwrap().remove("3").unwrap();
    assert_eq!(asked.record, asks);
    let free = Record { owner: String::new(), ..asks };
    one.put(&partition, &free, Some(&asked.version)).await.unwrap().unwrap();
    let given_up = two.list(&group).await.unwrap().remove("3").unwrap();
    assert_eq!(given_up.record, free);
    let taken = two.put(&partition, &of(&theirs), Some(&given_up.version)).await.unwrap().unwrap();
    assert!(taken.epoch >= first.epoch);
}

#[tokio::test]
async fn of_two_who_write_one_comes_too_late_in_redis() {
    of_two_who_write_one_comes_too_late(Shared::redis().await).await;
}

#[tokio::test]
async fn of_two_who_write_one_comes_too_late_in_blobs() {
    of_two_who_write_one_comes_too_late(Shared::blob().await).await;
}

#[tokio::test]
async fn in_redis_no_checkpoint_is_written_of_what_another_has() {
    use eventferry::state::Checkpoint;
    let shared = Shared::redis().await;
    let (one, two) = (shared.open().await, shared.open().await);
    let partition = group("demo.servicebus.windows.net").partition("0");
    let owner = two.ownership().unwrap().replica().to_owned();
    let record = Record { owner, wanted_by: None };
    let at = |sequence| {
        [(partition.clone(), Checkpoint { sequence, offset: "o".into(), hub_made: None })]
    };
    one.store(&at(3)).await.unwrap();
    two.ownership().unwrap().put(&partition, &record, None).await.unwrap().unwrap();
    one.store(&at(5)).await.unwrap();
    assert_eq!(two.load(&partition).await.unwrap().unwrap().sequence, 3);
    two.store(&at(4)).await.unwrap();
    assert_eq!(one.load(&partition).await.unwrap().unwrap().sequence, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_shared_too() {
    let mut world = World::new(Shared::redis().await).await;
    let one = world.start(&patient(), false).await;
    let other = world.start(&patient(), false).await;
    world.shared_as(&[4, 4]).await;
    world.emulator.control().grow_hub(NEAR, 12).unwrap();
    world.shared_as(&[6, 6]).await;
    one.stop().await;
    other.stop().await;
}
