//! Deduplication keys and checkpoints in a real Redis, which is killed and restarted.

use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    time::Duration,
};

use eventferry::{
    dedup::{KEY_BYTES, Key},
    fault::Verdict,
    state::{
        Checkpoint, DedupStore, Found, PartitionKey, StateStore,
        redis::{Config, RedisStore},
    },
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    clouds::{
        cord::{Cord, Fault},
        free_port, shared,
    },
    crash::daemon,
    figures,
    place::{clouds, place, place_with_lease},
    rig::{self, PATIENCE},
    way::{self, Way, failed_sends},
    world::World,
};

/// A server with a disk of its own. What it has confirmed is on it.
pub struct Server {
    port: u16,
    dir: TempDir,
    process: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self { port: free_port(), dir, process: None };
        server.restart().await;
        server
    }

    pub async fn restart(&mut self) {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--port"])
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(child.expect("redis-server is installed by ./setup.sh"));
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < until, "redis-server does not listen");
            // It is another process, which tells nobody when it is ready.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// As from kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn open(&self) -> RedisStore {
        open(&self.url()).await
    }
}

async fn open(url: &str) -> RedisStore {
    let config = json!({ "url": url, "prefix": "test" });
    serde_json::from_value::<Config>(config).unwrap().open().await.unwrap()
}

/// Lets the first connection to `listener` through until it is told to stop; what comes then goes
/// to the server when it is told again, its sender gone. Later connections are let through.
async fn hold_back(listener: TcpListener, server: u16, mut told: mpsc::Receiver<()>) {
    let connect = || TcpStream::connect(("127.0.0.1", server));
    let mut client = listener.accept().await.unwrap().0;
    let mut behind = connect().await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut behind) => panic!("closed too early"),
        stop = told.recv() => stop.unwrap(),
    }
    let mut late = vec![0; 64 * 1024];
    let length = client.read(&mut late).await.unwrap();
    drop(client);
    loop {
        tokio::select! {
            go_on = told.recv() => {
                if go_on.is_none() {
                    return;
                }
                behind.write_all(&late[..length]).await.unwrap();
                // The server has carried it out when it answers.
                assert_ne!(behind.read(&mut late).await.unwrap(), 0);
            }
            other = listener.accept() => {
                let (mut client, mut behind) = (other.unwrap().0, connect().await.unwrap());
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut behind).await });
            }
        }
    }
}

fn key(number: u8) -> Key {
    Key([number; KEY_BYTES])
}

const TTL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn one_replica_claims_and_all_know_what_is_done() {
    use Found::{Done, Ours, Theirs};
    let server = Server::start().await;
    let (one, two) = (server.open().await, server.open().await);
    assert_eq!(one.claim(&[key(1), key(2)]).await.unwrap(), [Ours, Ours]);
    assert_eq!(two.claim(&[key(2), key(3), key(1)]).await.unwrap(), [Theirs, Ours, Theirs]);
    // An answer may have been lost.
    assert_eq!(one.claim(&[key(1)]).await.unwrap(), [Ours]);
    one.commit(&[(key(1), TTL)]).await.unwrap();
    two.release(&[key(1), key(2), key(3)]).await.unwrap();
    assert_eq!(two.claim(&[key(1), key(2), key(3)]).await.unwrap(), [Done, Theirs, Ours]);
    assert_eq!(one.renew(&[key(2), key(3), key(4)]).await.unwrap(), [key(3)]);
    // What somebody else has claimed meanwhile is theirs to finish.
    one.commit(&[(key(3), TTL)]).await.unwrap();
    assert_eq!(one.claim(&[key(3)]).await.unwrap(), [Theirs]);
    one.release(&[key(2)]).await.unwrap();
    assert_eq!(two.claim(&[key(2)]).await.unwrap(), [Ours]);
}

#[tokio::test]
async fn a_release_that_comes_late_leaves_what_was_claimed_since() {
    let server = Server::start().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel(1);
    let way = tokio::spawn(hold_back(listener, server.port, told));
    let (one, other) = (open(&url).await, server.open().await);
    assert_eq!(one.claim(&[key(1), key(2)]).await.unwrap(), [Found::Ours; 2]);
    tell.send(()).await.unwrap();
    while tell.capacity() == 0 {
        tokio::task::yield_now().await;
    }
    one.release(&[key(1)]).await.unwrap_err();

    let released = async { while one.release(&[key(1)]).await.is_err() {} };
    timeout(PATIENCE, released).await.expect("not connected again");
    assert_eq!(one.claim(&[key(1)]).await.unwrap(), [Found::Ours]);
    tell.send(()).await.unwrap();
    drop(tell);
    way.await.unwrap();
    assert_eq!(other.claim(&[key(1)]).await.unwrap(), [Found::Theirs], "released under its owner");
    // What is older than the failure is still released.
    one.release(&[key(1), key(2)]).await.unwrap();
    assert_eq!(other.claim(&[key(1), key(2)]).await.unwrap(), [Found::Ours; 2]);
}

#[tokio::test]
async fn what_is_done_is_known_for_as_long_as_it_was_said() {
    let server = Server::start().await;
    let store = server.open().await;
    store.claim(&[key(1), key(2)]).await.unwrap();
    let soon = Duration::from_millis(100);
    store.commit(&[(key(1), soon), (key(2), TTL)]).await.unwrap();
    let forgotten = async {
        while store.claim(&[key(1)]).await.unwrap() == [Found::Done] {
            sleep(soon / 4).await;
        }
    };
    timeout(PATIENCE, forgotten).await.expect("it is known for ever");
    assert_eq!(store.claim(&[key(2)]).await.unwrap(), [Found::Done]);
}

#[tokio::test]
async fn a_checkpoint_is_never_lowered() {
    let server = Server::start().await;
    let (one, two) = (server.open().await, server.open().await);
    let partition = |hub: &str| PartitionKey {
        namespace: "n".into(),
        hub: hub.into(),
        group: "$Default".into(),
        partition: "0".into(),
    };
    let at =
        |sequence: i64| Checkpoint { sequence, offset: format!("o{sequence}"), hub_made: Some(7) };
    assert_eq!(one.load(&partition("a")).await.unwrap(), None);
    one.store(&[(partition("a"), at(7)), (partition("b"), at(1 << 40))]).await.unwrap();
    two.store(&[(partition("A"), at(6)), (partition("b"), at((1 << 40) + 1))]).await.unwrap();
    assert_eq!(one.load(&partition("a")).await.unwrap(), Some(at(7)));
    assert_eq!(one.load(&partition("b")).await.unwrap(), Some(at((1 << 40) + 1)));
    // Unless somebody wants to go back.
    two.put_back(&partition("A"), &at(3)).await.unwrap();
    assert_eq!(one.load(&partition("a")).await.unwrap(), Some(at(3)));
    one.store(&[(partition("a"), at(4))]).await.unwrap();
    assert_eq!(one.load(&partition("a")).await.unwrap(), Some(at(4)));
    two.forget(&partition("a")).await.unwrap();
    assert_eq!(one.load(&partition("a")).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_that_is_away_is_a_fault_and_then_works_again() {
    let mut server = Server::start().await;
    let store = server.open().await;
    store.claim(&[key(1)]).await.unwrap();
    store.commit(&[(key(1), TTL)]).await.unwrap();
    server.kill();
    let fault = store.claim(&[key(1)]).await.unwrap_err();
    assert!(matches!(fault.verdict, Verdict::Busy { .. }), "{fault}");
    server.restart().await;
    let back = async {
        loop {
            if let Ok(found) = store.claim(&[key(1)]).await {
                return found;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, back).await.unwrap(), [Found::Done]);
}

/// A fail-over or a firewall may leave a connection that nobody answers on, and nobody ends.
#[tokio::test]
async fn a_connection_that_falls_silent_is_replaced() {
    let server = Server::start().await;
    let cord = Cord::to(server.port).await;
    let config = json!({ "url": format!("redis://127.0.0.1:{}", cord.port) });
    let store = serde_json::from_value::<Config>(config).unwrap().open().await.unwrap();
    assert_eq!(store.claim(&[key(1)]).await.unwrap(), [Found::Ours]);
    cord.suffer(Fault::HalfOpen);
    let fault = store.claim(&[key(1)]).await.unwrap_err();
    assert!(matches!(fault.verdict, Verdict::Busy { .. }), "{fault}");
    cord.mend();
    let back = async {
        loop {
            if let Ok(found) = store.claim(&[key(1)]).await {
                return found;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, back).await.unwrap(), [Found::Ours]);
}

/// How long a server is away that is killed under a daemon.
const AWAY: Duration = Duration::from_secs(3);

/// Kills the server. Answers how long after it was back all had arrived that had been fed by then.
async fn kill_for_a_while(server: &mut Server, ways: &[Way]) -> Result<Duration, String> {
    server.kill();
    sleep(AWAY).await;
    server.restart().await;
    let back = Instant::now();
    way::arrived(ways, PATIENCE).await?;
    Ok(back.elapsed())
}

/// How many events lie at or before the checkpoints. All of them have arrived.
async fn settled(server: &Server, way: &Way) -> usize {
    let store = server.open().await;
    let hub = way.near.source["event_hubs"]["hub"].as_str().unwrap();
    let mut settled = 0;
    for partition in ["0", "1", "2", "3"] {
        let key = PartitionKey {
            namespace: "local.servicebus.windows.net".into(),
            hub: hub.into(),
            group: "$Default".into(),
            partition: partition.into(),
        };
        let Some(checkpoint) = store.load(&key).await.unwrap() else { continue };
        let events = way.near.hub().events(hub, partition, 0).unwrap();
        let count = usize::try_from(checkpoint.sequence + 1).unwrap();
        for event in events.get(..count).expect("a checkpoint lies beyond the end of the hub") {
            let number = event.message_id.as_deref().unwrap().strip_prefix("e-").unwrap();
            let number = number.parse().unwrap();
            assert!(way.has(number), "a checkpoint lies beyond e-{number}, which has not arrived");
        }
        settled += count;
    }
    settled
}

/// Twice under load, and once while the queue is away, when a checkpoint could be ahead of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_a_daemon_has_nothing_lost_repeated_or_checkpointed_early() {
    let _shared = shared().await;
    let mut server = Server::start().await;
    let far = place_with_lease("sqs", 60).await;
    let (sink, cord) = far.on_a_cord().await;
    let ways = [Way::new(place("event_hubs").await, far)];
    let [way] = &ways;
    let (dir, clouds) = (tempfile::tempdir().unwrap(), clouds().await);
    let admin = format!("127.0.0.1:{}", free_port());
    let route = json!({
        "name": "kept", "from": ["near"], "to": { "all": ["far"] }, "dedup": { "ttl": "1h" },
    });
    let config = json!({
        "state": { "redis": { "url": server.url(), "prefix": "test" } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": { "listen": admin },
        "unmatched": "drop",
        "sources": { "near": way.near.source },
        "sinks": { "far": sink.sink },
        "routes": [route],
    });
    let (file, log) = (dir.path().join("redis.yaml"), dir.path().join("daemon.log"));
    std::fs::write(&file, config.to_string()).unwrap();
    let _daemon = daemon(&file, &log, &[]);

    let run = async {
        let mut worst = Duration::ZERO;
        for _ in 0..2 {
            let under_way = way.fed() + 50;
            let load = async {
                for _ in 0..40 {
                    way.feed(10).await;
                    sleep(Duration::from_millis(100)).await;
                }
            };
            let killed = async {
                way.arrived(under_way).await;
                kill_for_a_while(&mut server, &ways).await
            };
            let ((), recovered) = tokio::join!(load, killed);
            worst = recovered?.max(worst);
        }
        way::arrived(&ways, PATIENCE).await?;
        // Keys and checkpoints of all that are written, and no send is under way.
        sleep(AWAY).await;
        let failed = failed_sends(&admin, None).await.unwrap();
        let before = way.fed();
        cord.part();
        way.feed(50).await;
        server.kill();
        sleep(AWAY).await;
        server.restart().await;
        // A checkpoint that is not due would be written by then.
        sleep(AWAY).await;
        while settled(&server, way).await < before {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(way.missing(), 50, "the queue was not away");
        cord.mend();
        way::arrived(&ways, PATIENCE).await?;
        // A repeat would have come by then.
        sleep(AWAY).await;
        Ok::<_, String>((worst, failed))
    };
    let run = timeout(PATIENCE * 4, run);
    let ended = tokio::select! {
        () = way::watch(&ways) => unreachable!("it watches for ever"),
        ended = run => ended.unwrap_or_else(|_| Err("it takes too long".to_owned())),
    };
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let (recovered, failed) = ended.unwrap_or_else(|what| panic!("{what}; its words:\n{said}"));
    // An answer of the queue that is lost is a repeat that no store prevents.
    assert!(way.repeats() <= failed, "{} repeats, {failed} failed sends", way.repeats());
    let figures = json!({
        "events": way.fed(), "kills": 3, "lost": way.missing(), "duplicated": way.repeats(),
        "failed sends": failed, "recovered after s": recovered.as_secs_f64().ceil(),
    });
    figures::note("redis", "event_hubs to sqs, keys and checkpoints", figures);
}

/// While it is away, and after it is back.
pub async fn events_wait_for_the_store_or_go_on_as_their_route_says() {
    let mut server = Server::start().await;
    let state = format!("{{ redis: {{ url: '{}' }} }}", server.url());
    let routes = r#"
  - { name: holds, from: near, dedup: { ttl: 1h }, to: { all: [held] } }
  - { name: goes, from: near, dedup: { ttl: 1h, on_store_failure: deliver }, to: { all: [gone] } }
"#;
    let world = World::with_state(&state, "standard", &["held", "gone"], routes);
    world.put(rig::events("e", 100, 0)).await;
    world.empty().await;
    server.kill();
    world.put(rig::events("e", 150, 0)).await;
    let gone = world.sinks["gone"].wait_until(|messages| messages.len() == 250);
    timeout(PATIENCE, gone).await.expect("a store that is away held up a route that goes on");
    assert_eq!(world.sinks["held"].contents().len(), 100);
    server.restart().await;
    let seen = world.end().await;
    let ids: BTreeSet<_> = seen["held"].iter().map(|event| &*event.id).collect();
    assert_eq!((seen["held"].len(), ids.len()), (150, 150));
    assert!(seen["parked"].is_empty());
    let figures = json!({
        "events": 150, "kills": 1, "lost": 150 - ids.len(),
        "duplicated": seen["held"].len() - ids.len(),
    });
    figures::note("redis", "keys of a route that waits for them", figures);
}
