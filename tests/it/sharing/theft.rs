//! Partitions that somebody takes who was not asked to.

use eventferry::{
    event::Event,
    fault::Fault,
    metadata::Packed,
    sink::{Limits, Outgoing, Sink, memory::MemorySink},
    source::SourceConfig,
};
use eventhubs::{
    client::{Client, ConnectionString, Options, ReceiverOptions},
    emulator::Steal,
    filter::Position,
};
use tokio::{sync::Semaphore, time::timeout};

use super::*;
use crate::rig::{self, Rig, Setup};

/// A sink that stores nothing before it is let.
struct Gated {
    inner: MemorySink,
    /// Requests that have come, and those that may go on.
    came: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

#[async_trait::async_trait]
impl Sink for Gated {
    fn limits(&self) -> Limits {
        Limits { events: 50, in_flight: 1, ..self.inner.limits() }
    }
    fn pack(&self, event: &Event) -> Result<Packed, Fault> {
        self.inner.pack(event)
    }
    async fn send(&self, batch: &[Outgoing]) -> Vec<Result<(), Fault>> {
        self.came.add_permits(1);
        let _pass = self.gate.acquire().await.unwrap();
        self.inner.send(batch).await
    }
    async fn probe(&self) -> Result<(), Fault> {
        Ok(())
    }
}

/// With one request under way, another reader takes the partition.
async fn a_stolen_partition_stops(world: &World, store: Arc<dyn StateStore>, by_store: bool) {
    let seeds = (0..1_000).map(|n| Seed::new(n.to_string())).collect();
    let (hub, partition) = (NEAR.to_owned(), Some("0".to_owned()));
    let append = Append { hub, partition, partition_key: None, events: seeds };
    world.emulator.control().append(append).unwrap();
    let sharing = match store.ownership() {
        Some(_) => json!({ "expiry": "10m", "renew_every": "1s" }),
        None => Json::Null,
    };
    let is_shared = store.ownership().is_some();
    let config = json!({ "event_hubs": world.source(&sharing) });
    let config: SourceConfig = serde_json::from_value(config).unwrap();
    let context = rig::context("near", &store);
    let source = config.build(&context).await.unwrap();
    let far = rig::queue();
    let (came, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let inner = MemorySink::new(far.clone());
    let sink = Arc::new(Gated { inner, came: came.clone(), gate: gate.clone() });
    let rig = Rig::start(source, Setup { sink: Some(sink), ..Setup::default() });
    timeout(PATIENCE, came.acquire()).await.expect("nothing is sent").unwrap().forget();

    let partition = group(&world.namespace).partition("0");
    if by_store {
        let ownership = world.store.ownership().unwrap();
        let thief = Record { owner: "a-foreign-reader".to_owned(), wanted_by: None };
        // Its owner may renew it at the same time.
        loop {
            let known = world.records().await["0"].version.clone();
            if ownership.put(&partition, &thief, Some(&known)).await.unwrap().is_some() {
                break;
            }
        }
    }
    let steal =
        Steal { hub: NEAR.into(), group: "$Default".into(), partition: "0".into(), epoch: 1_000 };
    world.emulator.control().steal(&steal).unwrap();
    let until = Instant::now() + PATIENCE;
    let counted = |name: &str| {
        rig::shown(&context.metrics, &format!("{name}{{source=\"near\"}}")).unwrap_or_default()
    };
    assert_eq!(counted("partitions_owned"), 8.0);
    while counted("partitions_lost_total") < 1.0 {
        assert!(Instant::now() < until, "the loss is not noticed");
        sleep(LOOK_EVERY).await;
    }
    gate.add_permits(1_000);
    rig.settled().await;
    let sent = far.contents().len();
    assert!((1..=50).contains(&sent), "{sent} events sent, of which 50 were under way");
    rig.drain().await;
    assert_eq!(far.contents().len(), sent);
    if is_shared {
        assert!(counted("partitions_taken_total") >= 8.0);
        assert_eq!(counted("partitions_handed_over_total"), 7.0, "all but the one that was stolen");
    }
    assert_eq!(store.load(&partition).await.unwrap(), None, "a checkpoint after the loss");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_partition_stops_within_a_batch_in_redis() {
    let world = World::new(Shared::redis().await).await;
    a_stolen_partition_stops(&world, world.shared.open().await, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_partition_stops_within_a_batch_in_blobs() {
    let world = World::new(Shared::blob().await).await;
    a_stolen_partition_stops(&world, world.shared.open().await, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_partition_stops_within_a_batch_where_one_replica_has_all() {
    let world = World::new(Shared::redis().await).await;
    a_stolen_partition_stops(&world, rig::store(), false).await;
}

/// Two replicas lose a partition each while events come: one to a reader that takes it at the
/// service and goes away again, the other in the store, to a replica that then does nothing.
pub async fn what_was_stolen_goes_on_when_nobody_has_it(shared: Shared) {
    // So long that no stall of this process lets anything else expire.
    let sharing = json!({ "expiry": "12s", "renew_every": "1s" });
    let mut world = World::new(shared).await;
    let one = world.start(&sharing, false).await;
    world.shared_as(&[8]).await;
    let other = world.start(&sharing, false).await;
    world.shared_as(&[4, 4]).await;
    world.feed(100);
    let string: ConnectionString = world.emulator.connection_string(NEAR).parse().unwrap();
    let hub = Client::new(string.endpoint, string.auth, Options::default()).hub(NEAR);
    let options =
        ReceiverOptions { epoch: Some(1_000), ..ReceiverOptions::new("0", Position::Latest) };
    let thief = hub.receiver(options).await.unwrap();
    let owner = world.records().await["0"].record.owner.clone();
    let of_the_other = |(_, held): &(&String, &Held)| held.record.owner != owner;
    let records = world.records().await;
    let claimed = records.iter().find(of_the_other).unwrap().0.clone();
    let record = Record { owner: "a-replica-that-is-gone".to_owned(), wanted_by: None };
    let partition = group(&world.namespace).partition(&claimed);
    // Its owner may renew it at the same time.
    loop {
        let known = world.records().await[&claimed].version.clone();
        let put = world.store.ownership().unwrap().put(&partition, &record, Some(&known)).await;
        if put.unwrap().is_some() {
            break;
        }
    }
    world.feed(100);
    thief.close().await;
    world.shared_as(&[4, 4]).await;
    world.feed(50);
    let repeated = world.verify().await;
    println!("{} events, two thefts: 0 lost, {repeated} repeated", world.all_fed());
    // Each goes back to its checkpoint, once; how much that is depends on what comes within the
    // second between two checkpoints. No other partition has to.
    let went_back = world.went_back();
    let is_a_theft = |(id, times): (&String, &usize)| (*id == "0" || *id == claimed) && *times == 1;
    assert!(went_back.iter().all(is_a_theft), "{went_back:?} went back, 0 and {claimed} stolen");
    one.stop().await;
    other.stop().await;
}
