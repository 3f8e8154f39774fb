//! kill -9 at every point between which something is true of an event that was not before, from
//! every source to every sink: nothing is lost, and what was known as delivered comes once, which is
//! looked up for each event in the store of keys as the dead daemon has left it.
//! What was on its way to the sink when the daemon died, or confirmed and not yet committed, comes
//! again: that is the window which no store closes. Towards a FIFO queue or topic its service closes it.
//! Where both ends keep an order, the first copies of each key's events come in it.
//!
//! `EVENTFERRY_KILL_POINTS=1` runs all of them, `3` one in three; without it a few of each kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use eventferry::{
    dedup::Key,
    event::Event,
    fault::point::{Point, VARIABLE},
    state::{DedupStore, Found, embedded::EmbeddedStore},
};
use futures::StreamExt as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    canary::PAYLOAD,
    clouds::{alone, azurite, unique},
    crash::{Daemon, daemon, setting},
    figures,
    place::{KINDS, clouds, place_with_lease},
    redis::Server,
    rig,
    way::Seen,
};

const EVENTS: usize = 60;
/// One receive of a FIFO queue takes all of a key's events, ten. Of a key that it takes in part,
/// LocalStack may hand out the rest before that part comes back; see `scale_out`.
const KEYS: usize = 6;
/// How long a message is hidden that a killed daemon had received.
const LEASE_S: u32 = 5;
const AT_ONCE: usize = 3;
const ROUTE: &str = "kill";
const SINK: &str = "far";
/// One in so many runs where not all are asked for. Shares no factor with the number of pairs, so
/// that each is met; each point and each state is met as well. The test looks at it.
const ONE_IN: usize = 8;

/// A daemon that is killed, and one that goes on.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub near: &'static str,
    pub far: &'static str,
    pub point: Point,
    pub dedup: bool,
    pub events: usize,
    pub state: State,
}

/// Where the daemon keeps what must outlive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    File,
    Redis,
    Blob,
}

/// From where to where: each kind to each, what keeps an order to what takes nothing twice, and a
/// FIFO queue to hubs and to other queues, and from these.
fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let all = KINDS.into_iter().flat_map(|near| KINDS.map(|far| (near, far)));
    let fifo = ["sqs.fifo", "sns.fifo"].map(|far| [("sqs.fifo", far), ("event_hubs", far)]);
    let from_fifo = ["event_hubs", "sqs", "storage_queue"].map(|far| ("sqs.fifo", far));
    let to_fifo = ["sqs", "storage_queue"].map(|near| (near, "sqs.fifo"));
    all.chain(fifo.into_iter().flatten()).chain(from_fifo).chain(to_fifo)
}

/// Whether the events of a key come in their order.
fn keeps_order(near: &str, far: &str) -> bool {
    [near, far].iter().all(|kind| *kind == "event_hubs" || kind.ends_with(".fifo"))
}

/// Every run that can be: some points are only passed by some sources, or with deduplication.
fn runs() -> Vec<Run> {
    let mut runs = Vec::new();
    for point in Point::ALL {
        for dedup in [false, true] {
            for (near, far) in pairs() {
                let is_passed = match point {
                    Point::AfterClaim | Point::AfterCommit => dedup,
                    Point::DuringCheckpoint => near == "event_hubs",
                    _ => true,
                };
                if is_passed {
                    let state = State::File;
                    runs.push(Run { near, far, point, dedup, events: EVENTS, state });
                }
            }
        }
    }
    // What is written in another store, from a queue and from a log. The first is always met.
    let of =
        |near, far, point, dedup, state| Run { near, far, point, dedup, events: EVENTS, state };
    runs.push(of("event_hubs", "sqs", Point::DuringCheckpoint, false, State::Blob));
    for point in [Point::AfterClaim, Point::AfterCommit, Point::BeforeSettle] {
        runs.push(of("sqs", "event_hubs", point, true, State::Redis));
        runs.push(of("event_hubs", "sqs", point, true, State::Redis));
    }
    runs.push(of("event_hubs", "sqs", Point::DuringCheckpoint, true, State::Redis));
    runs
}

async fn died(daemon: &mut Daemon) -> bool {
    let until = Instant::now() + Duration::from_secs(90);
    while Instant::now() < until {
        if let Some(status) = daemon.0.try_wait().unwrap() {
            // As `abort` ends a process.
            return status.signal() == Some(6);
        }
        // There is no event to await: it is another process.
        sleep(Duration::from_millis(20)).await;
    }
    false
}

/// The keys that a dead daemon has left as done.
async fn done(store: &dyn DedupStore, events: &[Event]) -> BTreeSet<Arc<str>> {
    let key = |event: &Event| Key::of(ROUTE, Some(SINK), event, None, None);
    let keys: Vec<_> = events.iter().map(key).collect();
    let found = store.claim(&keys).await.unwrap();
    // Of a store that the next one has as well.
    store.release(&keys).await.unwrap();
    let known = events.iter().zip(found).filter(|(_, found)| matches!(found, Found::Done));
    known.map(|(event, _)| event.id.clone()).collect()
}

/// Loses nothing, takes nothing twice that was known, and keeps what order there is. Answers how
/// many events came more than once.
pub async fn run(Run { near, far, point, dedup, events, state }: Run) -> usize {
    let (mut from, to) = (place_with_lease(near, LEASE_S).await, place_with_lease(far, 30).await);
    if near == "event_hubs" && state != State::File {
        // The partitions are the dead one's until then.
        let expiry = format!("{}s", LEASE_S - 1);
        from.source[near]["sharing"] = json!({ "expiry": expiry, "renew_every": "1s" });
    }
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("kill.yaml"), dir.path().join("daemon.log"));
    let clouds = clouds().await;
    let mut route = json!({
        "name": ROUTE, "from": ["near"], "transform": [{ "parse": ["data"] }],
        "to": { "all": [SINK] }, "dead_letter": "parked",
    });
    if dedup {
        route["dedup"] = json!({ "ttl": "1h" });
    }
    let redis = if state == State::Redis { Some(Server::start().await) } else { None };
    let store = match (&redis, state) {
        (Some(redis), _) => json!({ "redis": { "url": redis.url(), "prefix": "test" } }),
        (None, State::Blob) => {
            let container = unique("kill");
            azurite::container(&container).await;
            json!({ "blob": { "container": container, "azure": azurite::settings().await } })
        }
        (None, _) => json!({ "embedded": { "path": dir.path().join("state") } }),
    };
    let config = json!({
        "state": store,
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "unmatched": "drop",
        "sources": { "near": from.source },
        // The same place twice, so that all that comes is seen in one.
        "sinks": { SINK: to.sink, "parked": to.sink },
        "routes": [route],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let body = |n: usize| match point {
        // What the route's step refuses.
        Point::DuringDeadLetter if n.is_multiple_of(2) => format!("{{{n} {PAYLOAD}"),
        _ => format!("{{\"n\":{n},\"is\":\"{PAYLOAD}\"}}"),
    };
    let event = |n: usize| {
        // Of what the route refuses, and of what it takes, there is some in each key.
        let key = Some(format!("key-{}", n / 2 % KEYS).into());
        Event { key, ..rig::event(&format!("e-{n}"), body(n)) }
    };
    let put: Vec<_> = (0..events).map(event).collect();
    from.put(put.clone()).await;

    // The first checkpoint is no event's, but the note of which hub it is.
    let passing = if point == Point::DuringCheckpoint { 2 } else { 1 };
    let mut first = daemon(&file, &log, &[(VARIABLE, format!("{}:{passing}", point.name()))]);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(died(&mut first).await, "it was not killed {point:?}; its words:\n{}", said());
    let known = match (&redis, dedup) {
        (_, false) => BTreeSet::new(),
        (Some(redis), true) => done(&redis.open().await, &put).await,
        (None, true) => {
            let left = dir.path().join("left");
            copy(&dir.path().join("state"), &left);
            done(&EmbeddedStore::open(&left).unwrap(), &put).await
        }
    };
    let second = daemon(&file, &log, &[]);
    let until = Instant::now() + Duration::from_secs(120);
    let counts = |arrived: &[Event]| -> BTreeMap<_, (Event, usize)> {
        let mut counts = BTreeMap::new();
        for event in arrived {
            counts.entry(event.id.clone()).or_insert((event.clone(), 0)).1 += 1;
        }
        counts
    };
    let all = |arrived: &[Event]| counts(arrived).len() >= events;
    // What the first one had received comes again within its lease.
    let quiet_for = Duration::from_secs(u64::from(LEASE_S) + 3);
    let arrived = to.read_until_quiet(all, until, quiet_for).await;
    drop(second);
    let counts = counts(&arrived);
    let repeated = arrived.len() - counts.len();
    let run = format!("{near} to {far}, {point:?}, {state:?}");
    assert_eq!(events - counts.len(), 0, "{run}: lost; its words:\n{}", said());
    if dedup {
        let is_known =
            matches!(point, Point::AfterCommit | Point::BeforeSettle | Point::DuringCheckpoint);
        // Of the others, some may have been delivered beside the one that was parked.
        let is_sure = point != Point::DuringDeadLetter;
        assert!(!is_sure || known.is_empty() != is_known, "{run}: what was known: {known:?}");
        for id in &known {
            assert_eq!(counts[id].1, 1, "{run}: {id} was known, and came again");
        }
    } else if point == Point::DuringCheckpoint && !far.ends_with(".fifo") {
        assert!(repeated > 0, "{run}: nothing had been delivered when it was killed");
    }
    if far.ends_with(".fifo") {
        assert_eq!(repeated, 0, "{run}: the service takes nothing twice");
    }
    if keeps_order(near, far) {
        let mut seen = Seen::default();
        // A dead letter has left its place in the order.
        let delivered = arrived.iter().filter(|event| event.dead_letter.is_none());
        delivered.for_each(|event| seen.add(event));
        assert_eq!(seen.overtaken(), None, "{run}: an event was overtaken by the other");
    }
    repeated
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).into_iter().flatten().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_nothing_is_lost() {
    let _alone = alone().await;
    let one_in = setting("EVENTFERRY_KILL_POINTS", ONE_IN);
    let all_runs = runs();
    let (files, others): (Vec<Run>, Vec<Run>) =
        all_runs.iter().copied().partition(|run| run.state == State::File);
    // There are few of the other stores.
    let chosen = files.into_iter().step_by(one_in);
    let chosen = chosen.chain(others.into_iter().step_by(one_in.min(3)));
    let counts: Vec<_> = futures::stream::iter(chosen)
        .map(async |of| (of, run(of).await))
        .buffered(AT_ONCE)
        .collect()
        .await;
    for point in Point::ALL {
        for dedup in [false, true] {
            let of = counts.iter().filter(|(run, _)| run.point == point && run.dedup == dedup);
            let (mut runs, mut most) = (0, 0);
            for (run, duplicated) in of {
                (runs, most) = (runs + 1, most.max(*duplicated));
                // At its first passing nothing has been sent.
                if matches!(point, Point::AfterReceive | Point::AfterClaim) {
                    assert_eq!(*duplicated, 0, "{run:?}");
                }
            }
            if runs > 0 {
                let possible = all_runs.iter().filter(|it| it.point == point && it.dedup == dedup);
                let figures = json!({
                    "runs": runs,
                    "runs there are": possible.count(),
                    "events of each": EVENTS,
                    "lost": 0,
                    "duplicated at most": most,
                });
                let how = if dedup { ", with dedup" } else { "" };
                figures::note("kill_points", &format!("{}{how}", point.name()), figures);
            }
        }
    }
    let met: Vec<_> =
        Point::ALL.into_iter().filter(|p| counts.iter().any(|(run, _)| run.point == *p)).collect();
    assert_eq!(met, Point::ALL, "a point was not met");
    for state in [State::File, State::Redis, State::Blob] {
        assert!(counts.iter().any(|(run, _)| run.state == state), "{state:?} was not met");
    }
    for (near, far) in pairs() {
        let is_met = counts.iter().any(|(run, _)| (run.near, run.far) == (near, far));
        assert!(is_met, "{near} to {far} was not met");
    }
}
