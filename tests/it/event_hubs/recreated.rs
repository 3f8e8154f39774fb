//! A hub that was deleted and made again under its name: it counts from the beginning.

use std::sync::{Mutex, atomic::AtomicBool};

use tokio::time::{sleep, timeout};

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
        made_again(&hub).await;
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

/// Whether a call of a store fails that does this to this partition.
type Fails = dyn Fn(&'static str, &PartitionKey) -> bool + Send + Sync;

/// A store that fails where it is told to, and may answer once as it would have before.
struct Troubled {
    store: Arc<dyn StateStore>,
    fails: Box<Fails>,
    stale: Mutex<Option<Checkpoint>>,
}

impl Troubled {
    fn new(
        store: &Arc<dyn StateStore>,
        fails: impl Fn(&'static str, &PartitionKey) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { store: store.clone(), fails: Box::new(fails), stale: Mutex::default() }
    }

    fn call(&self, op: &'static str, key: &PartitionKey) -> Result<&dyn StateStore, Fault> {
        match (self.fails)(op, key) {
            true => Err(Fault::busy(op, "unreachable", "the disk is full")),
            false => Ok(&*self.store),
        }
    }
}

fn is_note(key: &PartitionKey) -> bool {
    key.group == "$hub"
}

#[async_trait]
impl StateStore for Troubled {
    async fn load(&self, partition: &PartitionKey) -> Result<Option<Checkpoint>, Fault> {
        let store = self.call("load", partition)?;
        let stale = is_note(partition).then(|| self.stale.lock().unwrap().take()).flatten();
        if stale.is_some() {
            return Ok(stale);
        }
        store.load(partition).await
    }
    async fn store(&self, checkpoints: &[(PartitionKey, Checkpoint)]) -> Result<(), Fault> {
        self.call("store", &checkpoints[0].0)?.store(checkpoints).await
    }
    async fn begin(
        &self,
        partition: &PartitionKey,
        first: &Checkpoint,
        instead_of: Option<&Checkpoint>,
    ) -> Result<(), Fault> {
        self.call("begin", partition)?.begin(partition, first, instead_of).await
    }
    async fn put_back(&self, partition: &PartitionKey, to: &Checkpoint) -> Result<(), Fault> {
        self.call("put_back", partition)?.put_back(partition, to).await
    }
    async fn forget(&self, partition: &PartitionKey) -> Result<(), Fault> {
        self.call("forget", partition)?.forget(partition).await
    }
}

async fn made_again(hub: &EventHub) {
    // A hub knows in milliseconds when it was made.
    tokio::time::sleep(Duration::from_millis(5)).await;
    hub.emulator.control().recreate_hub(HUB).unwrap();
}

pub(super) async fn a_recreated_hub_is_read_from_its_beginning_also_when_that_cannot_be_noted_at_once(
    client: &'static str,
) {
    let hub = fixture(client);
    let settings = json!({ "start": "latest", "on_recreated": "earliest" });
    let good = store();
    drop(hub.source_with(&good, settings.clone()).await.unwrap());
    made_again(&hub).await;
    hub.append("0", 0..3);
    let bad: Arc<dyn StateStore> =
        Arc::new(Troubled::new(&good, |op, key| op == "store" && is_note(key)));
    assert!(hub.source_with(&bad, settings.clone()).await.is_err());
    let mut source = hub.source_with(&good, settings).await.unwrap();
    assert_eq!(bodies(&receive(&mut source, 3).await), ["0", "1", "2"]);
}

/// Wherever in it a daemon dies: as one whose store answers nothing more.
#[tokio::test]
async fn to_begin_with_a_recreated_hub_can_be_cut_off_anywhere() {
    for start in ["earliest", "latest"] {
        let settings = json!({ "start": "latest", "on_recreated": start });
        let mut calls = 0;
        loop {
            let hub = fixture("own");
            let good = store();
            hub.append("0", 0..10);
            let mut source = hub.source_with(&good, settings.clone()).await.unwrap();
            hub.append("0", 10..11);
            let deliveries = receive(&mut source, 1).await;
            deliver(&mut source, deliveries).await;
            drop(source);
            made_again(&hub).await;
            hub.append("0", 100..103);

            let (left, refused) = (AtomicUsize::new(calls), Arc::new(AtomicBool::new(false)));
            let tells = refused.clone();
            let answers = move |_: &'static str, _: &PartitionKey| {
                let is_dead =
                    left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err();
                tells.fetch_or(is_dead, SeqCst);
                is_dead
            };
            let dying: Arc<dyn StateStore> = Arc::new(Troubled::new(&good, answers));
            let begun = hub.source_with(&dying, settings.clone()).await;
            let noted = async || good.load(&hub.checkpoint_of("0")).await.unwrap();
            match begun {
                // A partition is opened when it is asked for, and then there is one that is new, or
                // nothing, or a call is refused.
                Ok(mut source) => {
                    let opened = async {
                        while !refused.load(SeqCst)
                            && noted().await.is_none_or(|it| it.sequence == 10)
                        {
                            sleep(Duration::from_millis(20)).await;
                        }
                        // The answer to the last of its calls.
                        sleep(Duration::from_secs(1)).await;
                    };
                    tokio::select! {
                        _ = source.receive.receive() => {}
                        done = timeout(PATIENCE, opened) => done.expect("it is opened"),
                    }
                }
                Err(fault) => assert!(matches!(fault.verdict, Verdict::Busy { .. }), "{fault}"),
            }
            let is_through = !refused.load(SeqCst);
            // What the store says by then is where it has begun.
            let noted = noted().await;
            hub.append("0", 103..105);
            let mut source = hub.source_with(&good, settings.clone()).await.unwrap();
            hub.append("0", 105..106);
            let is_new = |it: &Checkpoint| it.sequence < 10;
            let first = match noted.filter(is_new) {
                _ if start == "earliest" => 100,
                Some(noted) => u32::try_from(101 + noted.sequence).unwrap(),
                None => 105,
            };
            let expected: Vec<_> = (first..106).map(|number| number.to_string()).collect();
            let found = bodies(&receive(&mut source, expected.len()).await);
            assert_eq!(found, expected, "{start}, cut off after {calls} calls");
            if is_through {
                break;
            }
            calls += 1;
        }
        assert!(calls > 5, "{start}: it was cut off {calls} times");
    }
}

/// A name may come to lead to a hub that was made before, or by a clock that was set back.
#[tokio::test]
async fn a_hub_that_seems_older_than_its_checkpoints_is_begun_anew_as_well() {
    for start in ["earliest", "latest"] {
        let (hub, store) = (fixture("own"), store());
        let later = (OffsetDateTime::now_utc().unix_timestamp() + 86_400) * 1_000;
        let note = PartitionKey { group: "$hub".into(), ..hub.checkpoint_of("$default") };
        let noted = Checkpoint { sequence: 0, offset: later.to_string(), hub_made: None };
        let left = Checkpoint { sequence: 50, offset: "50".into(), hub_made: Some(later) };
        store.store(&[(note, noted), (hub.checkpoint_of("0"), left)]).await.unwrap();
        hub.append("0", 0..3);
        let settings = json!({ "on_recreated": start });
        let mut source = hub.source_with(&store, settings.clone()).await.unwrap();
        hub.append("0", 3..5);
        let expected =
            if start == "latest" { vec!["3", "4"] } else { vec!["0", "1", "2", "3", "4"] };
        let received = receive(&mut source, expected.len()).await;
        assert_eq!(bodies(&received), expected, "{start}");
        deliver(&mut source, received).await;
        drop(source);
        hub.append("0", 5..6);
        let mut source = hub.source_with(&store, settings).await.unwrap();
        assert_eq!(bodies(&receive(&mut source, 1).await), ["5"], "{start}, the checkpoint holds");
    }
}

/// Two replicas notice at once, and the other one has begun in between.
pub(super) async fn who_notices_late_that_a_hub_is_another_one_sets_nobody_back(
    client: &'static str,
) {
    let hub = fixture(client);
    let settings = json!({ "start": "latest", "on_recreated": "latest" });
    let good = store();
    drop(hub.source_with(&good, settings.clone()).await.unwrap());
    let note = PartitionKey { group: "$hub".into(), ..hub.checkpoint_of("$default") };
    let old = good.load(&note).await.unwrap();
    assert!(old.is_some());
    made_again(&hub).await;
    let mut first = hub.source_with(&good, settings.clone()).await.unwrap();
    hub.append("0", 0..3);
    // It has them, and dies before they are delivered.
    assert_eq!(receive(&mut first, 3).await.len(), 3);
    let late = Troubled { stale: Mutex::new(old), ..Troubled::new(&good, |_, _| false) };
    let late: Arc<dyn StateStore> = Arc::new(late);
    drop(hub.source_with(&late, settings.clone()).await.unwrap());
    drop(first);
    let mut source = hub.source_with(&good, settings).await.unwrap();
    assert_eq!(bodies(&receive(&mut source, 3).await), ["0", "1", "2"]);
}

/// The hub is made again once more, while somebody begins with the one before.
#[tokio::test]
async fn who_has_looked_at_a_hub_that_is_gone_by_now_settles_nothing_in_the_new_one() {
    for start in ["earliest", "latest"] {
        let hub = fixture("own");
        let settings = json!({ "start": "latest", "on_recreated": start });
        let good = store();
        drop(hub.source_with(&good, settings.clone()).await.unwrap());
        hub.append("0", 0..3);
        made_again(&hub).await;
        let known = good.load(&hub.checkpoint_of("0")).await.unwrap();
        assert!(known.is_some());
        let (control, is_first) = (hub.emulator.control().clone(), AtomicBool::new(true));
        let once_more = move |op: &'static str, key: &PartitionKey| {
            if op == "load" && is_note(key) && is_first.swap(false, SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
                control.recreate_hub(HUB).unwrap();
            }
            false
        };
        let late: Arc<dyn StateStore> = Arc::new(Troubled::new(&good, once_more));
        let fault = hub.source_with(&late, settings).await.err().expect("it is another hub");
        assert_eq!(fault.class, "hub_recreated", "{fault}");
        assert_eq!(good.load(&hub.checkpoint_of("0")).await.unwrap(), known, "{start}");
    }
}

/// It lost its links, and finds the checkpoints of another replica, which has begun with the new hub.
pub(super) async fn who_has_yet_to_notice_that_a_hub_is_another_one_touches_no_checkpoint(
    client: &'static str,
) {
    let hub = fixture(client);
    let store = store();
    let earliest = json!({ "on_recreated": "earliest" });
    hub.append("0", 0..3);
    let mut late = hub.source_with(&store, earliest.clone()).await.unwrap();
    assert_eq!(receive(&mut late, 3).await.len(), 3);
    made_again(&hub).await;
    hub.append("0", 100..103);
    let mut source = hub.source_with(&store, earliest).await.unwrap();
    let all = receive(&mut source, 3).await;
    deliver(&mut source, all).await;
    drop(source);
    let key = hub.checkpoint_of("0");
    let newer = store.load(&key).await.unwrap();
    assert_eq!(newer.as_ref().map(|it| it.sequence), Some(2));
    let stopped = async {
        loop {
            match late.receive.receive().await {
                Err(fault) if fault.class == "hub_recreated" => return,
                Ok(found) => assert!(found.is_empty(), "of the new hub"),
                Err(_) => {}
            }
        }
    };
    // The SDK sees it when it looks at the hub again, after a minute.
    tokio::time::timeout(PATIENCE * 3, stopped).await.expect("it does not notice");
    assert_eq!(store.load(&key).await.unwrap(), newer);
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
    made_again(&hub).await;
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
        made_again(&hub).await;
    }
    assert_eq!(keys.len(), 6, "a route with `dedup` would drop what it has not seen");
}
