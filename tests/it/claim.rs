//! What is too large for its sink, through the whole daemon: compressed, or stored and found again,
//! in a directory, in Azurite and in LocalStack.

use std::{path::Path, sync::Arc, time::Duration};

use eventferry::{
    claim::{ClaimCheck, Store},
    cloud::Clouds,
    config::{self, environment::Environment},
    daemon,
    decode::Format,
    deliver::oversize::Oversize,
    event::Event,
    route::Retry,
    sink::{Limits, Outgoing, Sink, claim::ClaimingSink, memory::MemorySink},
    source::{
        Source,
        claim::ResolvingReceive,
        memory::{Config, Queue},
    },
};
use serde_json::json;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    clouds::{azurite, localstack, shared, unique},
    rig::{self, PATIENCE, Rig, Setup, event},
};

/// A running daemon.
struct Ferry {
    stop: oneshot::Sender<()>,
    daemon: JoinHandle<Result<(), daemon::DaemonError>>,
}

impl Ferry {
    fn run(file: &str) -> Self {
        let file = format!("state: memory\nadmin: off\ndead_letter: parked\n{file}");
        let checked = config::read("claim.yaml", &file, &Environment::default());
        let plan = checked.unwrap_or_else(|problems| panic!("{problems}\n{file}")).plan;
        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = tokio::spawn(daemon::run(plan, async {
            let _ = stopped.await;
        }));
        Self { stop, daemon }
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.daemon.await.unwrap().unwrap();
    }
}

fn named(name: &str) -> Queue {
    Queue::named(&serde_json::from_value::<Config>(json!({ "queue": name })).unwrap())
}

async fn put(queue: &Queue, events: Vec<Event>) {
    let sink = MemorySink::new(queue.clone());
    let pack = |event| Outgoing {
        route: "test".into(),
        packed: sink.pack(&event).unwrap(),
        event: event.into(),
    };
    let batch: Vec<Outgoing> = events.into_iter().map(pack).collect();
    assert!(sink.send(&batch).await.iter().all(Result::is_ok));
}

async fn until(queue: &Queue, count: usize) {
    let arrived = queue.wait_until(|messages| messages.len() >= count);
    timeout(PATIENCE, arrived).await.expect("events do not arrive");
}

/// Letters that compress to about their half.
fn letters(length: usize) -> String {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + (state >> 60) as u8)
    };
    (0..length).map(|_| next()).collect()
}

/// An event that no queue in memory takes, and that one compressed takes.
fn large(id: &str) -> Event {
    let content_type = Some("text/plain".into());
    Event { content_type, attributes: rig::many_attributes(), ..event(id, letters(1_400_000)) }
}

/// Sends a large event out through `sink` and back in from `source`, which are the same place.
async fn out_and_back(settings: &str, source: &str, sink: &str, foreign: impl AsyncFnOnce()) {
    let prefix = unique("claim");
    let queues = ["near", "far", "parked"].map(|name| named(&format!("{prefix}-{name}")));
    let [near, far, parked] = &queues;
    let out = Ferry::run(&format!(
        "{settings}
sources: {{ near: {{ memory: {{ queue: {prefix}-near }} }} }}
sinks: {{ there: {sink}, parked: {{ memory: {{ queue: {prefix}-parked }} }} }}
routes: [{{ name: out, from: near, to: {{ all: [there] }}, oversize: claim_check }}]
"
    ));
    put(near, vec![event("small", "small"), large("large")]).await;
    let empty = near.wait_until(<[_]>::is_empty);
    timeout(PATIENCE, empty).await.expect("events stay at their source");
    out.end().await;
    foreign().await;
    let back = Ferry::run(&format!(
        "{settings}
sources: {{ there: {source} }}
sinks:
  far: {{ memory: {{ queue: {prefix}-far }} }}
  parked: {{ memory: {{ queue: {prefix}-parked }} }}
routes: [{{ name: back, from: there, to: {{ all: [far] }}, oversize: compress }}]
"
    ));
    until(far, 2).await;
    back.end().await;
    let mut arrived = rig::decoded(far).await;
    arrived.sort_by_key(|event| event.body.len());
    assert_eq!(arrived[0].body, "small");
    let expected = large("large");
    assert!(arrived[1].body == expected.body, "another body has come back");
    assert_eq!(arrived[1].content_type, expected.content_type);
    assert_eq!(arrived[1].id, expected.id);
    assert_eq!(arrived[1].attributes.len(), expected.attributes.len());
    // Putting it into the first queue counts as one.
    assert_eq!((arrived[1].hops, parked.contents().len()), (3, 0));
}

#[tokio::test]
async fn through_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let settings =
        format!("claim_check: {{ store: {{ directory: {{ path: {:?} }} }} }}", directory.path());
    let there = unique("claim-there");
    let place = format!("{{ memory: {{ queue: {there} }} }}");
    let foreign = async || {
        let messages = named(&there).contents();
        let large = messages.iter().find(|message| message.message_id.as_deref() == Some("large"));
        let body: serde_json::Value = serde_json::from_slice(&large.unwrap().body).unwrap();
        let claim = &body["claim_check"];
        assert_eq!(
            (&claim["bytes"], &claim["datacontenttype"]),
            (&1_400_000.into(), &"text/plain".into())
        );
        let path = claim["url"].as_str().unwrap().strip_prefix("file://").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), letters(1_400_000));
    };
    out_and_back(&settings, &place, &place, foreign).await;
}

#[tokio::test]
async fn through_a_storage_queue_and_blob_storage() {
    let _shared = shared().await;
    let (container, queue) = (unique("claims"), unique("claim"));
    azurite::container(&container).await;
    azurite::queue(&queue).await;
    let azurite = azurite::azurite().await;
    for azure in [azurite.by_key(), azurite.by_signature()] {
        let azure = serde_json::to_string(&azure).unwrap();
        let store = format!("{{ blob: {{ container: {container}, prefix: ferry/claims }} }}");
        let settings = format!("azure: {azure}\nclaim_check: {{ store: {store} }}");
        let place = format!("{{ storage_queue: {{ queue: {queue} }} }}");
        out_and_back(&settings, &place, &place, async || {}).await;
    }
}

#[tokio::test]
async fn through_sqs_and_s3() {
    let _shared = shared().await;
    let aws = localstack::settings().await;
    let (bucket, queue) = (unique("claims"), localstack::queue(&unique("claim"), 30).await);
    let url = format!("{}/{bucket}", aws.endpoint.as_deref().unwrap());
    let made = reqwest::Client::new().put(&url).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    let aws = serde_json::to_string(&aws).unwrap();
    let store = format!("{{ s3: {{ bucket: {bucket}, prefix: claims }} }}");
    let settings = format!("aws: {aws}\nclaim_check: {{ store: {store} }}");
    let place = format!("{{ sqs: {{ queue: {queue} }} }}");
    out_and_back(&settings, &place, &place, async || {}).await;
}

#[tokio::test]
async fn a_dead_letter_that_is_too_large_is_claimed_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = unique("claim");
    let queues = ["near", "far", "parked"].map(|name| named(&format!("{prefix}-{name}")));
    let [near, far, parked] = &queues;
    let ferry = Ferry::run(&format!(
        "claim_check: {{ store: {{ directory: {{ path: {:?} }} }} }}
sources: {{ near: {{ memory: {{ queue: {prefix}-near }} }} }}
sinks:
  far: {{ memory: {{ queue: {prefix}-far }} }}
  parked: {{ memory: {{ queue: {prefix}-parked }} }}
routes:
  - {{ name: picky, from: near, when: {{ id: [failing] }}, transform: [parse: data],
      to: {{ all: [far] }}, oversize: claim_check }}
",
        directory.path()
    ));
    put(near, vec![large("failing"), large("unmatched")]).await;
    until(parked, 2).await;
    ferry.end().await;
    assert!(far.contents().is_empty());
    let store = open(directory.path()).await;
    let mut source = resolving(parked, &store).await;
    let mut classes = Vec::new();
    for delivery in source.receive.receive().await.unwrap() {
        let event = eventferry::decode::decode(&delivery.received, Format::Auto).unwrap();
        assert!(event.body == large("").body);
        classes.push(event.dead_letter.as_ref().unwrap().class.clone());
    }
    classes.sort();
    assert_eq!(classes, ["not_json", "unmatched"]);
}

async fn open(path: &Path) -> Arc<Store> {
    let config = json!({ "store": { "directory": { "path": path } } });
    let config: ClaimCheck = serde_json::from_value(config).unwrap();
    Arc::new(config.open(&Clouds::default()).await.unwrap())
}

async fn resolving(queue: &Queue, store: &Arc<Store>) -> Source {
    let source = queue.source(&rig::context("near", &rig::store())).await.unwrap();
    let receive = ResolvingReceive::new(source.receive, store.clone(), Format::Auto);
    Source { receive: Box::new(receive), ..source }
}

/// A sink into `queue` that stores bodies of more than 4000 bytes.
fn claiming(queue: &Queue, store: &Arc<Store>) -> Arc<dyn Sink> {
    let sink = MemorySink::new(queue.clone());
    let limits = Limits { event_bytes: 4000, ..sink.limits() };
    Arc::new(ClaimingSink::new(Arc::new(sink.with_limits(limits)), store.clone()))
}

/// Sends events the way that a route with `oversize: claim_check` does.
async fn claim_into(queue: &Queue, store: &Arc<Store>, events: Vec<Event>) {
    let count = events.len();
    let source = near("fifo", events).await;
    let source = source.source(&rig::context("near", &rig::store())).await.unwrap();
    let (sink, oversize) = (Some(claiming(queue, store)), Oversize::ClaimCheck);
    let rig = Rig::start(source, Setup { sink, oversize, ..Setup::default() });
    until(queue, count).await;
    rig.drain().await;
}

/// Takes the place of the directory, and gives it back after ten minutes.
async fn ten_minutes_away(path: &Path) {
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    std::fs::write(path, "in its place").unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    std::fs::remove_file(path).unwrap();
    std::fs::rename(&aside, path).unwrap();
}

/// Small events and large ones in turn, over two keys.
fn mixed() -> Vec<Event> {
    let body = |n: usize| if n.is_multiple_of(2) { letters(5000 + n) } else { format!("{n}") };
    let key = |n: usize| Some(format!("key-{}", n / 2 % 2).into());
    (0..12).map(|n| Event { key: key(n), ..event(&format!("e-{n:02}"), body(n)) }).collect()
}

/// Ids by key, in the order in which they are in `queue`.
fn ids(queue: &Queue) -> [Vec<String>; 2] {
    ["key-0", "key-1"].map(|key| {
        let contents = queue.contents();
        let of_key = contents.iter().filter(|message| message.key.as_deref() == Some(key));
        of_key.map(|message| message.message_id.as_deref().unwrap().to_owned()).collect()
    })
}

fn expected_ids() -> [Vec<String>; 2] {
    [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]].map(|of| of.map(|n| format!("e-{n:02}")).to_vec())
}

const KINDS: [&str; 2] = ["fifo", "log"];

async fn near(kind: &str, events: Vec<Event>) -> Queue {
    let config = json!({ "queue": "near", "kind": kind, "visibility": "30s", "partitions": 1 });
    let queue = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
    put(&queue, events).await;
    queue
}

#[tokio::test(start_paused = true)]
async fn while_bodies_cannot_be_stored_events_stay_in_order_at_their_source() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = open(&path).await;
        let near = near(kind, mixed()).await;
        let source = near.source(&rig::context("near", &rig::store())).await.unwrap();
        let far = rig::queue();
        let sink = claiming(&far, &store);
        let (sink, oversize) = (Some(sink), Oversize::ClaimCheck);
        let retry = Retry { attempts: 2, ..rig::quick_retry() };
        let setup = Setup { sink, oversize, retry, dead_letter: true, ..Setup::default() };
        let rig = Rig::start(source, setup);
        ten_minutes_away(&path).await;
        until(&far, 12).await;
        rig.settled().await;
        assert_eq!(ids(&far), expected_ids(), "{kind}");
        assert!(rig.parked.contents().is_empty(), "{kind}");
        rig.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_bodies_cannot_be_fetched_events_stay_in_order_at_their_source() {
    for kind in KINDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = open(&path).await;
        let middle = near(kind, Vec::new()).await;
        claim_into(&middle, &store, mixed()).await;
        let source = resolving(&middle, &store).await;
        let rig = Rig::start(source, Setup { dead_letter: true, ..Setup::default() });
        ten_minutes_away(&path).await;
        let arrived = rig.arrived(12).await;
        rig.settled().await;
        assert_eq!(ids(&rig.far), expected_ids(), "{kind}");
        assert!(rig.parked.contents().is_empty(), "{kind}");
        for event in arrived {
            let original = mixed().into_iter().find(|original| original.id == event.id);
            assert_eq!(event.body, original.unwrap().body);
        }
        rig.drain().await;
    }
}
