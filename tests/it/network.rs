//! The network and the clouds fail under a whole daemon, at each service as its source and as its
//! sink: nothing is lost, it goes on by itself soon after, and what comes twice is accounted for.
//!
//! `EVENTFERRY_NETWORK=all` runs all of them, `EVENTFERRY_NETWORK='sqs, resets'` those with this in
//! their name; without it a few of each kind.

use std::{cell::Cell, future::Future, time::Duration};

use futures::{StreamExt as _, future::join_all};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use crate::{
    clouds::{
        cord::{Cord, Fault, Strike},
        free_port,
        localstack::{self, LocalStack},
        shared,
    },
    crash::daemon,
    figures,
    place::{Place, clouds, place, place_in, place_to_kill, place_with_lease},
    rig::PATIENCE,
    way::{Way, arrived, failed_sends, feed, watch},
};

const KINDS: [&str; 5] = ["sqs", "sqs.fifo", "sns", "event_hubs", "storage_queue"];
/// How long a message is hidden that a reader has not settled: at the daemon's source, and where
/// this test reads.
const LEASE_S: (u32, u32) = (5, 60);
/// How long a service that is restarted is away.
const AWAY: Duration = Duration::from_secs(3);
const AT_ONCE: usize = 8;
/// One in so many runs where not all are asked for. Shares no factor with the number of kinds.
const ONE_IN: usize = 4;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    Network(Fault),
    /// All connections are reset, twice in a second.
    Resets,
    /// The service goes away, and is back with all that it had confirmed.
    Restart,
}

impl Trouble {
    const ALL: [Self; 7] = [
        Self::Network(Fault::HalfOpen),
        Self::Network(Fault::Latency(Duration::from_millis(400))),
        Self::Network(Fault::Bandwidth(10_000)),
        Self::Network(Fault::CutAfter(400)),
        Self::Network(Fault::Apart),
        Self::Resets,
        Self::Restart,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Network(Fault::HalfOpen) => "half-open",
            Self::Network(Fault::Latency(_)) => "400 ms of latency",
            Self::Network(Fault::Bandwidth(_)) => "10 kB/s",
            Self::Network(Fault::CutAfter(_)) => "answers cut after 400 bytes",
            Self::Network(Fault::Apart) => "unreachable",
            Self::Network(Fault::Nothing) => "nothing",
            Self::Resets => "resets",
            Self::Restart => "service restarted",
        }
    }

    fn strikes(self, kind: &str) -> bool {
        self != Self::Restart || matches!(kind, "event_hubs" | "storage_queue")
    }

    /// What each cord must have done by its end. A restart is known by the sends that fail.
    fn counted_as(self) -> Option<Strike> {
        match self {
            Self::Network(Fault::HalfOpen) => Some(Strike::Silenced),
            Self::Network(Fault::Latency(_)) => Some(Strike::Delayed),
            Self::Network(Fault::Bandwidth(_)) => Some(Strike::Throttled),
            // The bytes of all answers on a connection count together: a few short ones are enough.
            Self::Network(Fault::CutAfter(_)) => Some(Strike::Cut),
            Self::Network(Fault::Apart) => Some(Strike::Refused),
            Self::Resets => Some(Strike::Reset),
            Self::Network(Fault::Nothing) | Self::Restart => None,
        }
    }

    /// Whether some sends must have failed: there were some while no answer could come.
    fn fails_sends(self) -> bool {
        matches!(self, Self::Network(Fault::HalfOpen | Fault::Apart) | Self::Restart)
    }

    /// How long after its end everything has arrived at the latest. What falls silent is noticed by
    /// a time-out: see `docs/operating.md`.
    fn recovery_max(self, kind: &str) -> Duration {
        let s = match (self, kind) {
            (Self::Network(Fault::HalfOpen), "event_hubs") => 90,
            // What the service had handed to the test itself when it died stays hidden for a while.
            (Self::Restart, "storage_queue") => 45 + u64::from(LEASE_S.1),
            _ => 45,
        };
        Duration::from_secs(s)
    }
}

/// The service under test, at both ends of the daemon.
struct Service {
    near: Place,
    far: Place,
}

impl Service {
    async fn restart(&mut self) {
        tokio::join!(self.near.restart(AWAY), self.far.restart(AWAY));
    }
}

/// Lets it happen under load. Answers how long after its end everything had arrived.
async fn strike(trouble: Trouble, service: &mut Service, pair: &Pair) -> Result<Duration, String> {
    let ways = &pair.ways;
    feed(ways, 50).await;
    arrived(ways, PATIENCE).await?;
    match trouble {
        Trouble::Restart => {
            feed(ways, 80).await;
            let is_back = Cell::new(false);
            let restart = async {
                service.restart().await;
                is_back.set(true);
            };
            // What was fed before may have arrived before it went away.
            let feed = async {
                while !is_back.get() {
                    ways[1].feed(2).await;
                    sleep(AWAY / 10).await;
                }
            };
            tokio::join!(restart, feed);
        }
        _ => {
            if let Trouble::Network(fault) = trouble {
                pair.suffer(fault);
            }
            for _ in 0..8 {
                feed(ways, 10).await;
                if matches!(trouble, Trouble::Resets | Trouble::Network(Fault::Apart)) {
                    pair.cut();
                }
                sleep(Duration::from_millis(500)).await;
            }
            // A daemon that hardly gets to run may have said nothing yet.
            let until = Instant::now() + PATIENCE;
            while !pair.is_struck(trouble) && Instant::now() < until {
                sleep(Duration::from_millis(100)).await;
            }
            pair.suffer(Fault::Nothing);
        }
    }
    let mended = Instant::now();
    feed(ways, 20).await;
    arrived(ways, PATIENCE * 4).await?;
    let recovered = mended.elapsed();
    // What a source offers again because nobody has settled it would have come by then.
    sleep(Duration::from_secs(LEASE_S.0.into()) + Duration::from_secs(3)).await;
    Ok(recovered)
}

/// What a daemon does between a kind of service, which is the source of one of its ways and the sink
/// of another, and the hubs at their other ends, which nothing happens to.
struct Pair {
    kind: &'static str,
    /// The kind of service as the daemon shall see it.
    source: Json,
    sink: Json,
    ways: [Way; 2],
    /// Before the source and the sink, where they are struck by cords.
    cords: Vec<Cord>,
}

impl Pair {
    async fn new(kind: &'static str, [near, far]: [&Place; 2], [source, sink]: [Json; 2]) -> Self {
        let ways = [
            Way::new(near.reference(), place("event_hubs").await),
            Way::new(place("event_hubs").await, far.reference()),
        ];
        Self { kind, source, sink, ways, cords: Vec::new() }
    }

    fn suffer(&self, fault: Fault) {
        self.cords.iter().for_each(|cord| cord.suffer(fault));
    }

    fn cut(&self) {
        self.cords.iter().for_each(Cord::cut);
    }

    /// How much each of its cords has done.
    fn struck(&self, by: Strike) -> Vec<u64> {
        self.cords.iter().map(|cord| cord.struck(by)).collect()
    }

    /// Whether each of its cords has done what it was told to.
    fn is_struck(&self, trouble: Trouble) -> bool {
        // A source may have only listened on what fell silent; to a sink something was said.
        let is_said = trouble != Trouble::Network(Fault::HalfOpen)
            || self.struck(Strike::Swallowed).last().is_some_and(|bytes| *bytes > 0);
        is_said && trouble.counted_as().is_none_or(|by| !self.struck(by).contains(&0))
    }

    /// The names of its two routes, and of the source and sink of each.
    fn names(&self) -> [String; 2] {
        ["from", "to"].map(|way| format!("{way}-{}", self.kind.replace(['.', '_'], "-")))
    }

    /// What has come at both ends is what may come, and has come through that trouble. Answers what
    /// to note of it.
    async fn judge(&self, admin: &str, trouble: Trouble) -> Result<Json, String> {
        let [from, to] = &self.ways;
        let failed = failed_sends(admin, Some(&self.names()[1])).await.unwrap();
        // The route knows what it has delivered.
        let is_right = from.repeats() == 0
            && to.repeats() <= failed
            && (self.kind != "sqs.fifo" || to.repeats() == 0);
        if !is_right {
            return Err(format!(
                "{} and {} repeats, {failed} failed",
                from.repeats(),
                to.repeats()
            ));
        }
        let overtaken = from.overtaken().or(to.overtaken());
        if let Some(of) = overtaken.filter(|_| matches!(self.kind, "sqs.fifo" | "event_hubs")) {
            return Err(format!("out of order: {of:?}"));
        }
        if !self.is_struck(trouble) || (trouble.fails_sends() && failed == 0) {
            let struck = trouble.counted_as().map(|by| self.struck(by));
            return Err(format!("nothing was wrong: {struck:?} struck, {failed} failed"));
        }
        let mut figures = json!({
            "events": from.fed() + to.fed(),
            "lost": from.missing() + to.missing(),
            "duplicated": to.repeats(),
            "failed sends": failed,
        });
        if let Some(by) = trouble.counted_as() {
            figures["struck"] = json!(self.struck(by).iter().sum::<u64>());
        }
        Ok(figures)
    }
}

/// Runs a daemon between all of these while `strike` lets the trouble happen, and answers how long
/// after its end everything had arrived.
async fn under(
    name: &str,
    pairs: &[Pair],
    (trouble, recovery_max): (Trouble, Duration),
    strike: impl Future<Output = Result<Duration, String>>,
) {
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("network.yaml"), dir.path().join("daemon.log"));
    let admin = format!("127.0.0.1:{}", free_port());
    let clouds = clouds().await;
    let mut config = json!({
        "state": { "embedded": { "path": dir.path().join("state") } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": { "listen": admin },
        "routes": [],
        "unmatched": "drop",
    });
    for pair in pairs {
        let names = pair.names();
        let sources = [&pair.source, &pair.ways[1].near.source];
        let sinks = [&pair.ways[0].far.sink, &pair.sink];
        for ((name, source), sink) in names.iter().zip(sources).zip(sinks) {
            config["sources"][name] = source.clone();
            config["sinks"][name] = sink.clone();
            config["routes"].as_array_mut().unwrap().push(json!({
                "name": name, "from": [name], "to": { "all": [name] }, "dedup": { "ttl": "1h" },
            }));
        }
    }
    std::fs::write(&file, config.to_string()).unwrap();
    let mut daemon = daemon(&file, &log, &[]);
    let told = |what: &str| {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        format!("{name}: {what}; the daemon's last words:\n{}", tail.join("\n"))
    };

    let watched = join_all(pairs.iter().map(|pair| watch(&pair.ways)));
    let recovered = tokio::select! {
        _ = watched => unreachable!("it watches for ever"),
        recovered = strike => recovered,
    };
    let recovered = recovered.unwrap_or_else(|what| panic!("{}", told(&what)));
    assert!(daemon.0.try_wait().unwrap().is_none(), "{}", told("it has ended"));
    assert!(recovered <= recovery_max, "{}", told(&format!("recovered after {recovered:?}")));
    for pair in pairs {
        let name = format!("{}, {name}", pair.kind);
        let mut figures =
            pair.judge(&admin, trouble).await.unwrap_or_else(|what| panic!("{}", told(&what)));
        figures["recovered after s"] = json!(recovered.as_secs_f64().ceil());
        figures::note("network", &name, figures);
    }
}

/// One kind of service in one trouble, behind a cord at both ends.
async fn run(kind: &'static str, trouble: Trouble) {
    let (near, far) = match trouble {
        Trouble::Restart => {
            tokio::join!(place_to_kill(kind, LEASE_S.0), place_to_kill(kind, LEASE_S.1))
        }
        _ => tokio::join!(place_with_lease(kind, LEASE_S.0), place_with_lease(kind, LEASE_S.1)),
    };
    let ((source, from_cord), (sink, to_cord)) = tokio::join!(near.on_a_cord(), far.on_a_cord());
    let mut pair = Pair::new(kind, [&near, &far], [source.source, sink.sink]).await;
    pair.cords = vec![from_cord, to_cord];
    let mut service = Service { near, far };
    let strike = strike(trouble, &mut service, &pair);
    let pairs = std::slice::from_ref(&pair);
    under(trouble.name(), pairs, (trouble, trouble.recovery_max(kind)), strike).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_network_does_nothing_is_lost_and_all_goes_on() {
    let _shared = shared().await;
    let runs = Trouble::ALL.into_iter().flat_map(|trouble| KINDS.map(|kind| (kind, trouble)));
    let runs = runs.filter(|(kind, trouble)| trouble.strikes(kind)).enumerate();
    let wanted = std::env::var("EVENTFERRY_NETWORK").unwrap_or_default();
    let chosen = runs.filter(|(n, (kind, trouble))| {
        let name = format!("{kind}, {}", trouble.name());
        match wanted.as_str() {
            // What falls silent is what programs do not notice.
            "" => n % ONE_IN == 0 || *trouble == Trouble::Network(Fault::HalfOpen),
            "all" => true,
            wanted => name.contains(wanted),
        }
    });
    let runs: Vec<_> = chosen.map(|(_, run)| run).collect();
    assert!(!runs.is_empty(), "no such run: {wanted}");
    futures::stream::iter(runs)
        .map(async |(kind, trouble)| run(kind, trouble).await)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
}

/// LocalStack keeps nothing: what it had is delivered before it goes away.
async fn forget(
    localstack: &LocalStack,
    places: &[Place],
    pairs: &[Pair],
) -> Result<Duration, String> {
    let feed = async |count| {
        join_all(pairs.iter().map(|pair| feed(&pair.ways, count))).await;
    };
    let arrived = async |within| {
        let all = join_all(pairs.iter().map(|pair| arrived(&pair.ways, within))).await;
        all.into_iter().collect::<Result<(), String>>()
    };
    feed(50).await;
    arrived(PATIENCE).await?;
    localstack.stop().await;
    // What waits for it.
    join_all(pairs.iter().map(|pair| pair.ways[1].feed(80))).await;
    sleep(AWAY).await;
    localstack.start_again().await;
    // It answers, and knows no queue.
    sleep(AWAY).await;
    for place in places {
        place.make(localstack, LEASE_S.0).await;
    }
    let mended = Instant::now();
    feed(20).await;
    arrived(PATIENCE * 4).await?;
    let recovered = mended.elapsed();
    sleep(Duration::from_secs(LEASE_S.0.into()) + Duration::from_secs(3)).await;
    Ok(recovered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_and_topics_that_are_gone_and_made_again_are_taken_up_again() {
    let _shared = shared().await;
    let localstack = localstack::of_ones_own().await;
    let (mut places, mut pairs) = (Vec::new(), Vec::new());
    for kind in ["sqs", "sqs.fifo", "sns"] {
        let near = place_in(&localstack, kind, LEASE_S.0).await;
        let far = place_in(&localstack, kind, LEASE_S.1).await;
        let seen = [near.source.clone(), far.sink.clone()];
        pairs.push(Pair::new(kind, [&near, &far], seen).await);
        places.extend([near, far]);
    }
    let forget = forget(&localstack, &places, &pairs);
    let trouble = (Trouble::Restart, Duration::from_secs(90));
    under("service restarted without its queues", &pairs, trouble, forget).await;
}
