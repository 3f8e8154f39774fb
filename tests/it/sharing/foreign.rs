//! With the Python and JavaScript SDKs: they read what we have written in the store, and go on from
//! it, and we from what they have written; and they share a hub with us.
//!
//! The SDKs are set up by `eventhubs/peers/setup.sh`; without it these tests are skipped, unless
//! `EVENTFERRY_REQUIRE_PEERS` is set.

use std::collections::BTreeSet;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{self, ChildStdin, ChildStdout},
};

use tokio::time::timeout;

use super::*;

/// An SDK in a process of its own; `eventhubs/peers/README.md` says what it can be asked.
struct Peer {
    /// Ends with this.
    _child: process::Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    storage: Json,
}

impl Peer {
    async fn start(sdk: &str, world: &World) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let local = match std::env::var_os("EVENTHUBS_PEERS") {
            Some(directory) => PathBuf::from(directory),
            None => root.join(".local/peers"),
        };
        let peers = root.join("eventhubs/peers");
        let (needs, mut command) = match sdk {
            "python" => {
                let python = local.join("python/bin/python");
                let mut command = process::Command::new(&python);
                command.arg(peers.join("python/peer.py"));
                (python, command)
            }
            _ => {
                let modules = local.join("js/node_modules");
                let mut command = process::Command::new("node");
                command.arg(peers.join("js/peer.js")).env("NODE_PATH", &modules);
                (modules, command)
            }
        };
        if !needs.exists() {
            let hint = format!("{sdk} is not set up; run eventhubs/peers/setup.sh");
            assert!(std::env::var_os("EVENTFERRY_REQUIRE_PEERS").is_none(), "{hint}");
            eprintln!("skipped: {hint}");
            return None;
        }
        command.arg(world.emulator.address().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        let Shared::Blob(container) = &world.shared else { panic!("SDKs know blobs only") };
        let storage = json!({
            "connection_string": azurite::azurite().await.for_sdks(), "container": container,
        });
        Some(Self { _child: child, requests, answers, storage })
    }

    async fn ask(&mut self, request: Json) -> Json {
        let answer = async {
            self.requests.write_all(format!("{request}\n").as_bytes()).await.unwrap();
            let line = self.answers.next_line().await.unwrap();
            serde_json::from_str::<Json>(&line.expect("the peer has ended")).unwrap()
        };
        let answer = timeout(PATIENCE, answer).await.expect("the peer does not answer");
        assert!(answer.get("error").is_none(), "{request}: {answer}");
        answer
    }

    /// Begins to read its share; answers the namespace under which it does.
    async fn process(&mut self) -> String {
        let request = json!({
            "op": "process", "name": "p", "hub": NEAR, "group": "$Default",
            "storage": self.storage, "expiry_s": 60,
        });
        self.ask(request).await["namespace"].as_str().unwrap().to_owned()
    }

    async fn read(&mut self, count: usize) -> Vec<Json> {
        let request = json!({ "op": "read", "name": "p", "count": count, "timeout_ms": 30_000 });
        self.ask(request).await["events"].as_array().unwrap().clone()
    }

    /// All that has come since it was asked last, until nothing comes for a moment.
    async fn read_all(&mut self) -> Vec<Json> {
        const MOST: usize = 1_000;
        let mut all = Vec::new();
        loop {
            let request = json!({ "op": "read", "name": "p", "count": MOST, "timeout_ms": 500 });
            let answer = self.ask(request).await;
            let events = answer["events"].as_array().unwrap();
            if events.is_empty() {
                return all;
            }
            all.extend_from_slice(events);
        }
    }

    async fn stored(&mut self, namespace: &str) -> Json {
        let request = json!({
            "op": "stored", "namespace": namespace, "hub": NEAR, "group": "$Default",
            "storage": self.storage,
        });
        self.ask(request).await
    }

    async fn stop(&mut self) {
        self.ask(json!({ "op": "checkpoint", "name": "p" })).await;
        self.ask(json!({ "op": "close", "name": "p" })).await;
    }
}

/// In which we name the namespace as the SDK does: another name would be another place in the store.
async fn world(sdk: &str) -> World {
    let world = World::new(Shared::blob().await).await;
    match sdk {
        "python" => world,
        // It leaves the port out.
        _ => World { namespace: "127.0.0.1".to_owned(), ..world },
    }
}

/// Key and number of each event that a peer has read.
fn told(events: &[Json]) -> BTreeSet<(String, String)> {
    let one = |event: &Json| {
        let body = event["body"].as_str().unwrap();
        let body = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, body).unwrap();
        let key = event["partition_key"].as_str().unwrap().to_owned();
        (key, String::from_utf8(body).unwrap())
    };
    events.iter().map(one).collect()
}

/// We read, the SDK goes on, and we go on after it: nothing is read twice, and nothing left out.
async fn each_goes_on_where_the_other_has_stopped(sdk: &str) {
    let mut world = world(sdk).await;
    let Some(mut peer) = Peer::start(sdk, &world).await else { return };
    let one = world.start(&patient(), false).await;
    world.shared_as(&[8]).await;
    world.feed(5);
    assert_eq!(world.verify().await, 0);
    let stored = peer.stored(&world.namespace).await;
    let owners = stored["owners"].as_object().unwrap();
    let is_ours = |owner: &Json| owner.as_str().unwrap().starts_with("eventferry-");
    assert!(owners.len() == 8 && owners.values().all(is_ours), "{stored}");
    one.stop().await;

    let stored = peer.stored(&world.namespace).await;
    let owners = stored["owners"].as_object().unwrap();
    // What is empty is nothing to one of them.
    assert!(owners.values().all(|owner| owner == "" || owner.is_null()), "{stored}");
    for partition in 0..PARTITIONS {
        let partition = partition.to_string();
        let events = world.emulator.control().events(NEAR, &partition, 0).unwrap();
        let Some(last) = events.last() else { continue };
        let last = json!({ "sequence_number": last.sequence_number, "offset": last.offset });
        assert_eq!(stored["checkpoints"][&partition], last);
    }

    let ours = world.fed.clone();
    world.feed(5);
    let namespace = peer.process().await;
    assert_eq!(namespace, world.namespace);
    let read = peer.read(16 * 5).await;
    let expected: BTreeSet<_> = ours
        .iter()
        .flat_map(|(key, fed)| (*fed..fed + 5).map(|n| (key.clone(), n.to_string())))
        .collect();
    assert_eq!((read.len(), told(&read)), (16 * 5, expected));
    peer.stop().await;

    let before = world.far();
    world.feed(5);
    let one = world.start(&patient(), false).await;
    let until = Instant::now() + PATIENCE;
    while world.far() < before + 16 * 5 {
        assert!(Instant::now() < until, "{} of 80 events", world.far() - before);
        sleep(LOOK_EVERY).await;
    }
    one.stop().await;
    assert_eq!(world.far(), before + 16 * 5);
    let arrived = world.arrived();
    for (key, fed) in &world.fed {
        let last: Vec<usize> = (fed - 5..*fed).collect();
        assert!(arrived[key].ends_with(&last), "{key}: {:?}", arrived[key]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_goes_on_where_python_or_we_have_stopped() {
    each_goes_on_where_the_other_has_stopped("python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_goes_on_where_javascript_or_we_have_stopped() {
    each_goes_on_where_the_other_has_stopped("javascript").await;
}

/// Waits until each event that was fed is there, or was read by the SDK.
async fn nothing_is_lost(world: &World, theirs: &mut BTreeSet<(String, String)>, peer: &mut Peer) {
    let until = Instant::now() + PATIENCE;
    loop {
        theirs.extend(told(&peer.read_all().await));
        if lost(world, theirs).is_empty() {
            return;
        }
        assert!(Instant::now() < until, "lost: {:?}", lost(world, theirs));
    }
}

/// What is neither there nor was read by the SDK.
fn lost(world: &World, theirs: &BTreeSet<(String, String)>) -> Vec<(String, usize)> {
    let mut missing = world.missing();
    missing.retain(|(key, number)| !theirs.contains(&(key.clone(), number.to_string())));
    missing
}

/// The SDK takes its share from us while we run, and we take it back when it has gone. Between us, we
/// read everything.
async fn a_hub_is_shared_with(sdk: &str) {
    let mut world = world(sdk).await;
    let Some(mut peer) = Peer::start(sdk, &world).await else { return };
    let one = world.start(&patient(), false).await;
    world.shared_as(&[8]).await;
    peer.process().await;
    world.shared_as(&[4, 4]).await;
    // Both get some of what comes now, once we have noticed: there are keys in seven of the eight
    // partitions.
    let before = world.fed.clone();
    let is_new = |key: &str, number: usize| number >= before[key];
    let mut theirs = BTreeSet::new();
    let until = Instant::now() + PATIENCE;
    loop {
        world.feed(20);
        nothing_is_lost(&world, &mut theirs, &mut peer).await;
        let is_theirs = theirs.iter().any(|(key, number)| is_new(key, number.parse().unwrap()));
        let ours = world.arrived();
        let is_ours = ours.iter().any(|(key, all)| all.iter().any(|number| is_new(key, *number)));
        if is_theirs && is_ours {
            break;
        }
        assert!(Instant::now() < until, "theirs: {is_theirs}, ours: {is_ours}");
    }
    peer.stop().await;
    world.shared_as(&[8]).await;

    world.feed(20);
    let until = Instant::now() + PATIENCE;
    while !lost(&world, &theirs).is_empty() {
        assert!(Instant::now() < until, "lost: {:?}", lost(&world, &theirs));
        sleep(4 * LOOK_EVERY).await;
    }
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_is_shared_with_python() {
    a_hub_is_shared_with("python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_is_shared_with_javascript() {
    a_hub_is_shared_with("javascript").await;
}
