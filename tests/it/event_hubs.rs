//! The Event Hubs connectors against the emulator: the contract, and what only a hub can do, each
//! through the daemon's own client and through the official SDK.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use eventferry::{
    cloud::Context,
    decode::{Format, decode},
    dedup::Key,
    delivery::{Delivery, Outcome, Settled},
    fault::{Fault, Verdict},
    sink::{Outgoing, Sink, SinkConfig},
    source::{Source, SourceConfig},
    state::{Checkpoint, PartitionKey, StateStore},
    telemetry::Metrics,
};
use eventhubs::client::{Client, ConnectionString, Options, ReceiverOptions};
use eventhubs::emulator::{
    Append, Config, Emulator, Fault as Trouble, HubConfig, Kind, LinkKind, Scope, Seed, Settings,
    Steal, Trim,
};
use eventhubs::filter::Position;
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    fixture::{Fixture, put, receive, receives_nothing},
    rig::{PATIENCE, context, events, store},
};

mod faults;
mod recreated;
#[cfg(feature = "eventhubs-sdk")]
mod shortcomings;

use recreated::{
    a_recreated_hub_is_read_from_its_beginning_also_when_that_cannot_be_noted_at_once,
    a_recreated_hub_stops_the_source_unless_told_otherwise,
    what_has_no_id_in_a_recreated_hub_is_not_what_was_there_before,
    what_is_checkpointed_late_of_a_hub_that_is_gone_is_not_taken_for_the_new_one,
    who_has_yet_to_notice_that_a_hub_is_another_one_touches_no_checkpoint,
    who_notices_late_that_a_hub_is_another_one_sets_nobody_back,
};

const HUB: &str = "orders";

/// A hub of four partitions in an emulator of its own.
pub struct EventHub {
    emulator: Emulator,
    metrics: Arc<Metrics>,
    /// Which client sources and sinks have, as the file says it.
    client: &'static str,
}

fn fixture(client: &'static str) -> EventHub {
    let emulator = Emulator::start(Config::with_hubs([HubConfig::new(HUB, 4)])).unwrap();
    EventHub { emulator, metrics: Metrics::new().unwrap(), client }
}

/// What comes of connecting, for as long as it may take the SDK: it loses its own connection before
/// its first link now and then, and a daemon connects again.
async fn connected<'b, T>(build: impl Fn() -> BoxFuture<'b, Result<T, Fault>>) -> Result<T, Fault> {
    for _ in 0..10 {
        match build().await {
            Err(fault) if fault.class == "connection_lost" => {}
            built => return built,
        }
    }
    build().await
}

impl EventHub {
    /// A source with these settings beside those that find the hub.
    fn config(&self, settings: serde_json::Value) -> SourceConfig {
        let mut hub = json!({
            "namespace": "local", "endpoint": self.emulator.endpoint(), "hub": HUB,
            "client": self.client,
        });
        hub.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        serde_json::from_value(json!({ "event_hubs": hub })).unwrap()
    }

    async fn sink_with(&self, settings: serde_json::Value) -> Arc<dyn Sink> {
        let mut hub = json!({
            "namespace": "local", "endpoint": self.emulator.endpoint(), "hub": HUB,
            "client": self.client,
        });
        hub.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let config: SinkConfig = serde_json::from_value(json!({ "event_hubs": hub })).unwrap();
        let context = context("orders", &store());
        connected(|| config.build(&context).boxed()).await.unwrap()
    }

    async fn source_with(
        &self,
        store: &Arc<dyn StateStore>,
        settings: serde_json::Value,
    ) -> Result<Source, Fault> {
        let (config, context) = (self.config(settings), self.context(store));
        connected(|| config.build(&context).boxed()).await
    }

    fn context(&self, store: &Arc<dyn StateStore>) -> Context {
        Context { metrics: self.metrics.clone(), ..context("telemetry", store) }
    }

    fn append(&self, partition: &str, numbers: std::ops::Range<u32>) {
        let append = Append {
            hub: HUB.into(),
            partition: Some(partition.into()),
            partition_key: None,
            events: numbers.map(|number| Seed::new(number.to_string())).collect(),
        };
        self.emulator.control().append(append).unwrap();
    }

    /// Where the store has the checkpoint of a partition.
    fn checkpoint_of(&self, partition: &str) -> PartitionKey {
        PartitionKey {
            namespace: "local.servicebus.windows.net".into(),
            hub: HUB.into(),
            group: "$Default".into(),
            partition: partition.into(),
        }
    }

    /// Does this to every connection that has a link of this kind, or any.
    fn trouble(&self, of: Option<LinkKind>, kind: &Kind) {
        let links = self.emulator.control().state().links;
        let links = links.iter().filter(|link| of.is_none() || link.kind == of);
        let connections: BTreeSet<u64> = links.map(|link| link.conn).collect();
        assert!(!connections.is_empty(), "nobody is there");
        for conn in connections {
            let scope = Scope { conn: Some(conn), ..Scope::default() };
            self.emulator.control().arm(Trouble::new(kind.clone()).within(scope));
        }
    }

    /// How often a partition has been opened.
    fn openings(&self) -> usize {
        let log = self.emulator.control().log();
        let is = |line: &&str| line.contains("\"attach\"") && line.contains("\"partition\"");
        log.lines().filter(is).filter(|line| line.contains("\"recv\"")).count()
    }

    fn stored(&self, partition: &str) -> usize {
        self.emulator.control().events(HUB, partition, 0).unwrap().len()
    }
}

#[async_trait]
impl Fixture for EventHub {
    async fn source(&self, store: &Arc<dyn StateStore>) -> Source {
        self.source_with(store, json!({})).await.unwrap()
    }
    async fn sink(&self) -> Arc<dyn Sink> {
        self.sink_with(json!({})).await
    }
    fn visibility(&self) -> Option<Duration> {
        None
    }
    fn body_max(&self) -> usize {
        let link = 1 << 20;
        link - link / 50 - 1024
    }
    fn ordered(&self) -> bool {
        true
    }
    async fn left(&self, store: &Arc<dyn StateStore>) -> usize {
        let mut left = 0;
        for partition in ["0", "1", "2", "3"] {
            let settled = store.load(&self.checkpoint_of(partition)).await.unwrap();
            let settled = settled.map_or(0, |it| usize::try_from(it.sequence + 1).unwrap());
            left += self.stored(partition) - settled;
        }
        left
    }
    async fn cut(&self) {
        self.trouble(None, &Kind::Rst);
    }
    /// For the SDK alone, which misses an answer now and then (docs/connectors/event_hubs.md): our
    /// own client is to have every one.
    fn copies(&self, id: &str) -> usize {
        if self.client != "sdk" {
            return 0;
        }
        let stored =
            |partition| self.emulator.control().events(HUB, partition, 0).unwrap().into_iter();
        let all = ["0", "1", "2", "3"].into_iter().flat_map(stored);
        all.filter(|event| event.message_id.as_deref() == Some(id)).count()
    }
}

/// Makes tests of the contract, and of each that is named here, over one of the clients.
macro_rules! over {
    ($client:ident, $($test:ident),+ $(,)?) => {
        pub mod $client {
            pub async fn fixture() -> super::EventHub {
                super::fixture(stringify!($client))
            }

            crate::contract!(fixture =>
                round_trips_bytes_and_attributes, redelivers_after_return,
                returns_after_the_delay, redelivers_after_a_dropped_delivery,
                settles_out_of_order, survives_partial_batch_failure, survives_reconnect,
                holds_the_checkpoint_at_a_gap, holds_the_checkpoint_at_a_failed_event,
                keeps_order_per_key, drains_on_stop, loses_nothing_when_killed,
                settles_nothing_while_the_sink_is_down,
                parks_poison_and_lets_its_neighbours_pass,
            );

            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(stringify!($client)).await;
                }
            )+
        }
    };
}

macro_rules! over_both {
    ($($test:ident),+ $(,)?) => {
        over!(own, $($test),+);
        #[cfg(feature = "eventhubs-sdk")]
        over!(sdk, $($test),+);
    };
}

over_both!(
    a_recreated_hub_stops_the_source_unless_told_otherwise,
    a_recreated_hub_is_read_from_its_beginning_also_when_that_cannot_be_noted_at_once,
    what_is_checkpointed_late_of_a_hub_that_is_gone_is_not_taken_for_the_new_one,
    what_has_no_id_in_a_recreated_hub_is_not_what_was_there_before,
    who_notices_late_that_a_hub_is_another_one_sets_nobody_back,
    who_has_yet_to_notice_that_a_hub_is_another_one_touches_no_checkpoint,
    a_batch_that_is_refused_is_sent_again_one_by_one,
    latest_is_where_the_source_first_began_also_after_a_restart,
    a_time_is_where_the_source_begins_and_what_is_before_it_is_not_missed,
    a_checkpoint_older_than_retention_goes_on_with_what_is_left,
    a_stolen_partition_leaves_the_others_alone,
    a_stolen_partition_is_taken_back_when_nobody_has_it,
    a_hub_that_is_made_again_while_it_is_read_stops_the_source,
    partitions_that_are_added_are_read_from_their_beginning,
    a_probe_takes_no_partition_from_a_daemon,
    a_missing_hub_is_named,
    a_fixed_partition_takes_everything,
    the_partition_of_a_key_is_the_one_that_the_service_would_pick,
);

async fn deliver(source: &mut Source, deliveries: Vec<Delivery>) {
    let delivered =
        |delivery: Delivery| Settled { token: delivery.token, outcome: Outcome::Delivered };
    source.settle.settle(deliveries.into_iter().map(delivered).collect()).await;
    source.settle.checkpoint().await.unwrap();
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    let text = |d: &Delivery| String::from_utf8(d.received.body.to_vec()).unwrap();
    deliveries.iter().map(text).collect()
}

async fn a_batch_that_is_refused_is_sent_again_one_by_one(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink().await;
    let links = Scope { link: Some(LinkKind::Send), ..Scope::default() };
    let reject = Kind::Reject { condition: "com.example:no".into() };
    hub.emulator.control().arm(Trouble::new(reject).within(links));
    let batch = outgoing(sink.as_ref(), 20, 1);
    assert!(sink.send(&batch).await.iter().all(Result::is_ok));
    let stored: usize = ["0", "1", "2", "3"].iter().map(|id| hub.stored(id)).sum();
    assert_eq!(stored, 20);
}

async fn latest_is_where_the_source_first_began_also_after_a_restart(client: &'static str) {
    let hub = fixture(client);
    hub.append("0", 0..3);
    let (store, latest) = (store(), json!({ "start": "latest" }));
    drop(hub.source_with(&store, latest.clone()).await.unwrap());
    hub.append("0", 3..6);
    hub.append("1", 6..7);
    let mut source = hub.source_with(&store, latest).await.unwrap();
    let mut all = bodies(&receive(&mut source, 4).await);
    all.sort();
    assert_eq!(all, ["3", "4", "5", "6"]);
}

async fn a_time_is_where_the_source_begins_and_what_is_before_it_is_not_missed(
    client: &'static str,
) {
    let hub = fixture(client);
    hub.append("0", 0..3);
    // The hub counts in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    let mut source = hub.source_with(&store(), json!({ "start": { "time": time } })).await.unwrap();
    let reach = async |source: &mut Source| {
        let backlog = source.settle.backlog().await.unwrap();
        backlog.into_iter().find(|it| it.partition == "0").unwrap().reach
    };
    assert_eq!(reach(&mut source).await, None, "it begins nowhere yet");
    hub.append("0", 3..6);
    let deliveries = receive(&mut source, 3).await;
    assert_eq!(bodies(&deliveries), ["3", "4", "5"]);
    let before = reach(&mut source).await.unwrap();
    assert_eq!((before.settled, before.first, before.last), (2, 0, 5));
    deliver(&mut source, deliveries).await;
    assert_eq!(reach(&mut source).await.unwrap().settled, 5);
}

async fn a_checkpoint_older_than_retention_goes_on_with_what_is_left(client: &'static str) {
    let hub = fixture(client);
    hub.append("0", 0..10);
    let store = store();
    let mut source = hub.source(&store).await;
    let mut deliveries = receive(&mut source, 10).await;
    deliveries.truncate(3);
    deliver(&mut source, deliveries).await;
    drop(source);
    let trim = Trim {
        hub: HUB.into(),
        partition: Some("0".into()),
        before_sequence_number: Some(7),
        max_age_ms: None,
    };
    hub.emulator.control().trim(&trim).unwrap();
    let mut source = hub.source(&store).await;
    assert_eq!(bodies(&receive(&mut source, 3).await), ["7", "8", "9"]);
    let counted = "eventferry_gap_events_total{partition=\"0\",source=\"telemetry\"} 4";
    let metrics = String::from_utf8(hub.metrics.render()).unwrap();
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
}

async fn a_stolen_partition_leaves_the_others_alone(client: &'static str) {
    let hub = fixture(client);
    let mut source = hub.source(&store()).await;
    let steal =
        Steal { hub: HUB.into(), group: "$Default".into(), partition: "0".into(), epoch: 5 };
    hub.emulator.control().steal(&steal).unwrap();
    hub.append("1", 0..5);
    assert_eq!(receive(&mut source, 5).await.len(), 5);
    let backlog = source.settle.backlog().await.unwrap();
    assert_eq!(backlog.iter().map(|partition| partition.events).sum::<u64>(), 5);
    let told = backlog.iter().find(|it| it.partition == "1").unwrap();
    let reach = told.reach.unwrap();
    assert_eq!((reach.settled, reach.first, reach.last), (-1, 0, 4));
    let age = OffsetDateTime::now_utc() - told.oldest.unwrap();
    assert!(age < time::Duration::minutes(5), "{age}");
}

async fn a_stolen_partition_is_taken_back_when_nobody_has_it(client: &'static str) {
    let hub = fixture(client);
    let mut source = hub.source(&store()).await;
    hub.append("0", 0..5);
    let first = receive(&mut source, 5).await;
    deliver(&mut source, first).await;
    let string: ConnectionString = hub.emulator.connection_string(HUB).parse().unwrap();
    let other = Client::new(string.endpoint, string.auth, Options::default()).hub(HUB);
    let options = ReceiverOptions { epoch: Some(5), ..ReceiverOptions::new("0", Position::Latest) };
    let thief = other.receiver(options).await.unwrap();
    hub.append("0", 5..10);
    receives_nothing(&mut source, Duration::from_secs(2)).await;
    thief.close().await;
    let rest = receive(&mut source, 5).await;
    assert_eq!(bodies(&rest), ["5", "6", "7", "8", "9"]);
}

async fn a_hub_that_is_made_again_while_it_is_read_stops_the_source(client: &'static str) {
    let hub = fixture(client);
    let mut source = hub.source(&store()).await;
    hub.append("0", 0..5);
    assert_eq!(receive(&mut source, 5).await.len(), 5);
    hub.emulator.control().recreate_hub(HUB).unwrap();
    hub.append("0", 100..120);
    let stopped = async {
        loop {
            match source.receive.receive().await {
                Err(fault) if fault.class == "hub_recreated" => return fault,
                Ok(deliveries) => assert!(deliveries.is_empty(), "of the new hub"),
                Err(_) => {}
            }
        }
    };
    // The SDK sees it when it looks at the hub again, after a minute.
    let fault = tokio::time::timeout(PATIENCE * 3, stopped).await.unwrap();
    assert_eq!(fault.verdict, Verdict::Stop);
}

async fn partitions_that_are_added_are_read_from_their_beginning(client: &'static str) {
    let hub = fixture(client);
    let (store, latest) = (store(), json!({ "start": "latest", "discover_every": "1s" }));
    let mut source = hub.source_with(&store, latest.clone()).await.unwrap();
    hub.emulator.control().grow_hub(HUB, 5).unwrap();
    hub.append("4", 0..3);
    assert_eq!(bodies(&receive(&mut source, 3).await), ["0", "1", "2"]);
    let backlog = source.settle.backlog().await.unwrap();
    assert_eq!(backlog.len(), 5);
    drop(source);

    // Also those that were added while nobody looked.
    hub.emulator.control().grow_hub(HUB, 6).unwrap();
    hub.append("5", 3..4);
    let mut source = hub.source_with(&store, latest).await.unwrap();
    let mut all = bodies(&receive(&mut source, 4).await);
    all.sort();
    assert_eq!(all, ["0", "1", "2", "3"]);
}

async fn a_probe_takes_no_partition_from_a_daemon(client: &'static str) {
    let hub = fixture(client);
    let store = store();
    let mut source = hub.source(&store).await;
    for partition in ["0", "1", "2", "3"] {
        hub.append(partition, 0..1);
    }
    receive(&mut source, 4).await;
    hub.config(json!({})).probe(&hub.context(&store)).await.unwrap();
    let missing = hub.config(json!({ "hub": "nowhere" }));
    assert_eq!(missing.probe(&hub.context(&store)).await.unwrap_err().class, "not_found");
    hub.append("0", 1..2);
    assert_eq!(bodies(&receive(&mut source, 1).await), ["1"]);
    assert_eq!(hub.openings(), 4, "only the source opens partitions");
}

async fn a_missing_hub_is_named(client: &'static str) {
    let hub = fixture(client);
    let missing = hub.source_with(&store(), json!({ "hub": "nowhere" })).await.err().unwrap();
    assert_eq!((missing.verdict, missing.class), (Verdict::Stop, "not_found"), "{missing}");
}

async fn a_fixed_partition_takes_everything(client: &'static str) {
    let hub = fixture(client);
    let sink = hub.sink_with(json!({ "partition": "2" })).await;
    let one = put_events(sink.as_ref()).await;
    assert_eq!((one, hub.stored("2")), (20, 20));
}

async fn put_events(sink: &dyn Sink) -> usize {
    sink.send(&outgoing(sink, 20, 7)).await.into_iter().filter(Result::is_ok).count()
}

fn outgoing(sink: &dyn Sink, count: usize, keys: usize) -> Vec<Outgoing> {
    let pack = |event| {
        let packed = sink.pack(&event).unwrap();
        Outgoing { route: "test".into(), event: Arc::new(event), packed }
    };
    events("e", count, keys).into_iter().map(pack).collect()
}

async fn the_partition_of_a_key_is_the_one_that_the_service_would_pick(client: &'static str) {
    let hub = fixture(client);
    put(&hub, events("e", 40, 8)).await;
    for partition in ["0", "1", "2", "3"] {
        for event in hub.emulator.control().events(HUB, partition, 0).unwrap() {
            let key = event.partition_key.unwrap();
            let expected = eventhubs::partition_key::partition_of(&key, 4).to_string();
            assert_eq!(partition, expected, "{key}");
        }
    }
}
