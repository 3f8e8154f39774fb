//! A hub that was deleted and made again under its name: it counts from the beginning.

use super::*;

pub(super) async fn a_recreated_hub_stops_the_source_unless_told_otherwise(client: &'static str) {
    // The new hub ends before the old checkpoint, or has outgrown it already.
    for newer in [1, 20] {
        let hub = fixture(client);
        hub.append("0", 0..10);
        let store = store();
        let mut source = hub.source(&store).await;
        let deliveries = receive(&mut source, 10).await;
        deliver(&mut source, deliveries).await;
        drop(source);
        tokio::time::sleep(Duration::from_millis(5)).await;
        hub.emulator.control().recreate_hub(HUB).unwrap();
        hub.append("0", 100..100 + newer);

        let error = hub.source_with(&store, json!({})).await.err().unwrap();
        assert_eq!((error.verdict, error.class), (Verdict::Stop, "hub_recreated"), "{error}");
        let earliest = json!({ "on_recreated": "earliest" });
        let mut source = hub.source_with(&store, earliest).await.unwrap();
        let all = receive(&mut source, newer as usize).await;
        assert_eq!(bodies(&all)[0], "100");
        deliver(&mut source, all).await;
        drop(source);
        let mut source = hub.source(&store).await;
        receives_nothing(&mut source, Duration::from_millis(300)).await;
    }
}

/// A store that fails to note which hub the checkpoints are of, as often as it is told.
struct Forgetful {
    store: Arc<dyn StateStore>,
    failures: AtomicUsize,
}

#[async_trait]
impl StateStore for Forgetful {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        self.store.load(partition).await
    }
    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        let is_note = checkpoints.iter().any(|(key, _)| key.group == "$hub");
        let left = |failures: usize| failures.checked_sub(1);
        if is_note && self.failures.fetch_update(SeqCst, SeqCst, left).is_ok() {
            return Err(Fault::busy("store", "unreachable", "the disk is full"));
        }
        self.store.store(checkpoints).await
    }
    async fn begin(&self, partition: &PartitionKey, first: &Checkpoint) -> Result<(), Fault> {
        self.store.begin(partition, first).await
    }
    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        self.store.put_back(partition, to).await
    }
    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        self.store.forget(partition).await
    }
}

pub(super) async fn a_recreated_hub_is_read_from_its_beginning_also_when_that_cannot_be_noted_at_once(
    client: &'static str,
) {
    let hub = fixture(client);
    let settings = json!({ "start": "latest",
        "on_recreated": "earliest" });
    let forgetful = Arc::new(Forgetful { store: store(), failures: 0.into() });
    let store: Arc<dyn StateStore> = forgetful.clone();
    drop(hub.source_with(&store, settings.clone()).await.unwrap());
    tokio::time::sleep(Duration::from_millis(5)).await;
    hub.emulator.control().recreate_hub(HUB).unwrap();
    hub.append("0", 0..3);
    forgetful.failures.store(1, SeqCst);
    assert!(hub.source_with(&store, settings.clone()).await.is_err());
    let mut source = hub.source_with(&store, settings).await.unwrap();
    assert_eq!(bodies(&receive(&mut source, 3).await), ["0", "1", "2"]);
}

/// As a replica does that still delivers what it has of the old hub, while another one has begun
/// with the new one.
pub(super) async fn what_is_checkpointed_late_of_a_hub_that_is_gone_is_not_taken_for_the_new_one(
    client: &'static str,
) {
    let hub = fixture(client);
    let earliest = json!({ "on_recreated": "earliest" });
    hub.append("0", 0..10);
    let store = store();
    let mut late = hub.source(&store).await;
    let deliveries = receive(&mut late, 10).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    hub.emulator.control().recreate_hub(HUB).unwrap();
    hub.append("0", 100..120);
    drop(hub.source_with(&store, earliest.clone()).await.unwrap());
    deliver(&mut late, deliveries).await;
    drop(late);
    // Without a word of which hub it is of, all of it would be past the first ten.
    let stop = hub.source_with(&store, json!({})).await.err().unwrap();
    assert_eq!((stop.verdict, stop.class), (Verdict::Stop, "hub_recreated"), "{stop}");
    let mut source = hub.source_with(&store, earliest).await.unwrap();
    assert_eq!(bodies(&receive(&mut source, 20).await)[0], "100");
}

/// A producer that gives no ids has them made of where its events are, and a new hub counts anew.
pub(super) async fn what_has_no_id_in_a_recreated_hub_is_not_what_was_there_before(
    client: &'static str,
) {
    let hub = fixture(client);
    let store = store();
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..2 {
        hub.append("0", 0..3);
        let earliest = json!({ "on_recreated": "earliest" });
        let mut source = hub.source_with(&store, earliest).await.unwrap();
        for delivery in receive(&mut source, 3).await {
            let event = decode(&delivery.received, Format::Auto).unwrap();
            keys.insert(Key::of("route", None, &event, None, None));
        }
        drop(source);
        tokio::time::sleep(Duration::from_millis(5)).await;
        hub.emulator.control().recreate_hub(HUB).unwrap();
    }
    assert_eq!(keys.len(), 6, "a route with `dedup` would drop what it has not seen");
}
