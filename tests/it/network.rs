//! The network and the clouds fail under a whole daemon, at each service as its source and as its
//! sink: nothing is lost, it goes on by itself soon after, and what comes twice is accounted for.
//!
//! `EVENTFERRY_NETWORK=all` runs all of them, `EVENTFERRY_NETWORK='sqs, resets'` those with this in
//! their name; without it a few of each kind.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    clouds::{
        cord::{Cord, Fault},
        free_port, shared,
    },
    crash::daemon,
    figures,
    place::{Place, clouds, place, place_to_kill, place_with_lease},
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
    cords: [Cord; 2],
}

impl Service {
    fn suffer(&self, fault: Fault) {
        self.cords.iter().for_each(|cord| cord.suffer(fault));
    }

    fn cut(&self) {
        self.cords.iter().for_each(Cord::cut);
    }

    async fn restart(&mut self) {
        tokio::join!(self.near.restart(AWAY), self.far.restart(AWAY));
    }
}

/// Lets it happen under load. Answers how long after its end everything had arrived.
async fn strike(trouble: Trouble, service: &mut Service, ways: &[Way]) -> Result<Duration, String> {
    feed(ways, 50).await;
    arrived(ways, PATIENCE).await?;
    match trouble {
        Trouble::Restart => {
            feed(ways, 80).await;
            service.restart().await;
        }
        _ => {
            if let Trouble::Network(fault) = trouble {
                service.suffer(fault);
            }
            for _ in 0..8 {
                feed(ways, 10).await;
                if matches!(trouble, Trouble::Resets | Trouble::Network(Fault::Apart)) {
                    service.cut();
                }
                sleep(Duration::from_millis(500)).await;
            }
            service.suffer(Fault::Nothing);
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

/// A daemon with two ways: this kind is the source of one and the sink of the other, each behind a
/// cord; at their other ends are hubs that nothing happens to.
async fn run(kind: &'static str, trouble: Trouble) {
    let dir = tempfile::tempdir().unwrap();
    let (near, far) = match trouble {
        Trouble::Restart => {
            tokio::join!(place_to_kill(kind, LEASE_S.0), place_to_kill(kind, LEASE_S.1))
        }
        _ => tokio::join!(place_with_lease(kind, LEASE_S.0), place_with_lease(kind, LEASE_S.1)),
    };
    let ((source, from_cord), (sink, to_cord)) = tokio::join!(near.on_a_cord(), far.on_a_cord());
    let ways = [
        Way::new(near.reference(), place("event_hubs").await),
        Way::new(place("event_hubs").await, far.reference()),
    ];
    let mut service = Service { near, far, cords: [from_cord, to_cord] };
    let (file, log) = (dir.path().join("network.yaml"), dir.path().join("daemon.log"));
    let admin = format!("127.0.0.1:{}", free_port());
    let route = |name: &str| json!({ "name": name, "from": [name], "to": { "all": [name] }, "dedup": { "ttl": "1h" } });
    let clouds = clouds().await;
    let config = json!({
        "state": { "embedded": { "path": dir.path().join("state") } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": { "listen": admin },
        "sources": { "from": source.source, "to": ways[1].near.source },
        "sinks": { "from": ways[0].far.sink, "to": sink.sink },
        "routes": [route("from"), route("to")],
        "unmatched": "drop",
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let mut daemon = daemon(&file, &log, &[]);
    let told = |what: &str| {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(15).collect();
        format!("{kind}, {trouble:?}: {what}; the daemon's last words:\n{}", tail.join("\n"))
    };

    let recovered = tokio::select! {
        () = watch(&ways) => unreachable!("it watches for ever"),
        recovered = strike(trouble, &mut service, &ways) => recovered,
    };
    let recovered = recovered.unwrap_or_else(|what| panic!("{}", told(&what)));
    assert!(daemon.0.try_wait().unwrap().is_none(), "{}", told("it has ended"));

    let [from, to] = &ways;
    let failed = failed_sends(&admin, Some("to")).await.unwrap();
    // The route knows what it has delivered.
    assert_eq!(from.repeats(), 0, "{}", told("repeats of its source"));
    assert!(to.repeats() <= failed, "{}", told(&format!("{} repeats", to.repeats())));
    if kind == "sqs.fifo" {
        assert_eq!(to.repeats(), 0, "{}", told("a FIFO queue took a repeat"));
    }
    if matches!(kind, "sqs.fifo" | "event_hubs") {
        assert!(from.overtaken().or(to.overtaken()).is_none(), "{}", told("out of order"));
    }
    let max = trouble.recovery_max(kind);
    assert!(recovered <= max, "{}", told(&format!("recovered after {recovered:?}")));
    let figures = json!({
        "events": from.fed() + to.fed(),
        "lost": from.missing() + to.missing(),
        "duplicated": to.repeats(),
        "failed sends": failed,
        "recovered after s": recovered.as_secs_f64().ceil(),
    });
    figures::note("network", &format!("{kind}, {}", trouble.name()), figures);
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
