//! kill -9 of the real binary in the middle of a load, again and again: nothing is lost.
//!
//! `EVENTFERRY_CRASH_EVENTS` and `EVENTFERRY_CRASH_KILLS` make it longer or shorter.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use eventferry::source::Backlog;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    canary,
    clouds::alone,
    figures,
    place::{Place, clouds, place, place_with_lease},
    rig,
    way::{self, Way},
};

const EVENTS: usize = 5_000;
/// What may wait at the source before more is put in: Azurite sorts its whole queue anew for
/// every message that it gives or deletes.
const BACKLOG_MAX: u64 = 500;
/// What a daemon may have in flight from a queue.
const IN_FLIGHT: usize = 200;
/// What one more receive may bring on top of it: eight gets of a Storage Queue, of 32 messages.
const RECEIVED_MAX: usize = 256;

/// A number from the environment.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A daemon that does not outlive its test.
pub struct Daemon(pub Child, PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        canary::look_for_any(&self.1);
    }
}

/// Starts one that adds to a log, with more of an environment.
pub fn daemon(file: &Path, log: &Path, more: &[(&str, String)]) -> Daemon {
    let written = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_eventferry"))
        .args(["run", "--config"])
        .arg(file)
        .envs(more.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(written)
        .spawn();
    Daemon(child.unwrap(), log.to_owned())
}

/// What came twice, after so many kills.
struct Counts {
    duplicated: usize,
    /// Of the event that came most often.
    copies_max: usize,
    kills: usize,
}

/// What was sent and not settled when a daemon was killed comes again. From a queue that is what was
/// in flight, since a message is in flight until its deletion is confirmed. From a hub it is all that
/// was sent since the last checkpoint, and a daemon that is killed within a second has written none:
/// the next one sends all of that again. How much it is depends on the machine, so only this is
/// known: none of them sends an event twice.
async fn survives_kills(near: &str, far: &str) {
    let kills = setting("EVENTFERRY_CRASH_KILLS", 8);
    let events = setting("EVENTFERRY_CRASH_EVENTS", EVENTS);
    let Counts { duplicated, copies_max, .. } = survives(near, far, events, kills, json!({})).await;
    assert!(copies_max <= kills + 1, "{copies_max} copies of one event, of {} lives", kills + 1);
    let in_hand = if near == "event_hubs" { events } else { IN_FLIGHT + RECEIVED_MAX };
    assert!(duplicated <= kills * in_hand, "{duplicated} duplicated, {in_hand} may be by a kill");
}

/// With more settings of the route.
async fn survives(near: &str, far: &str, events: usize, kills: usize, more: Value) -> Counts {
    let _alone = alone().await;
    let (mut from, to) = (place(near).await, place(far).await);
    if let Some(queue) = from.source.get_mut("storage_queue") {
        // What a killed daemon had hidden is back before the next one is killed, too.
        queue["visibility"] = json!("20s");
    }
    if near != "event_hubs" {
        from.source["max_in_flight"] = json!({ "events": IN_FLIGHT });
    }
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = configured(dir.path(), &from, &to, &more).await;
    let feed = feed(&from, events);
    let kill = async {
        for round in 0..kills {
            let killed = daemon(&file, &log, &[]);
            // Spread over start, the first batches, and full speed; the same in every run.
            sleep(Duration::from_millis(300 + (round as u64 * 737) % 1700)).await;
            // SIGKILL, as from kill -9.
            drop(killed);
        }
        daemon(&file, &log, &[])
    };
    let ((), last) = tokio::join!(feed, kill);
    let until = Instant::now() + Duration::from_secs(240);
    let arrived = to
        .read(
            |arrived| {
                let distinct: BTreeSet<_> = arrived.iter().map(|event| &event.id).collect();
                distinct.len() >= events
            },
            until,
        )
        .await;
    drop(last);
    let mut copies = BTreeMap::<String, usize>::new();
    arrived.iter().for_each(|event| *copies.entry(event.id.to_string()).or_default() += 1);
    let (lost, duplicated) = (events - copies.len(), arrived.len() - copies.len());
    let copies_max = copies.into_values().max().unwrap_or_default();
    let how = if more == json!({}) { "" } else { ", with dedup" };
    let figures =
        json!({ "events": events, "kills": kills, "lost": lost, "duplicated": duplicated });
    figures::note("crash", &format!("{near} to {far}{how}"), figures);
    let tail = std::fs::read_to_string(&log).unwrap_or_default();
    let tail: Vec<_> = tail.lines().rev().take(20).collect();
    assert_eq!(lost, 0, "the daemon's last words, newest first:\n{}", tail.join("\n"));
    Counts { duplicated, copies_max, kills }
}

/// A configuration file with one route, which has these settings more, and where its log is.
async fn configured(dir: &Path, from: &Place, to: &Place, more: &Value) -> (PathBuf, PathBuf) {
    let clouds = clouds().await;
    let mut route = json!({ "name": "crash", "from": ["near"], "to": { "all": ["far"] } });
    let settings = more.as_object().unwrap().clone();
    route.as_object_mut().unwrap().extend(settings);
    let config = json!({
        "state": { "embedded": { "path": dir.join("state") } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "unmatched": "drop",
        "sources": { "near": from.source },
        "sinks": { "far": to.sink },
        "routes": [route],
    });
    let file = dir.join("crash.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    (file, dir.join("daemon.log"))
}

/// Kills daemons in the middle of keyed events: they may come again, and none overtakes another of
/// its key.
async fn keeps_order(near: &str, far: &str) {
    const EVENTS: usize = 1_000;
    const KILLS: usize = 4;
    let _alone = alone().await;
    // What a killed daemon had in hand is hidden for no longer, and holds back its keys meanwhile.
    let ways = [Way::new(place_with_lease(near, 5).await, place(far).await)];
    let [way] = &ways;
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = configured(dir.path(), &way.near, &way.far, &json!({})).await;
    let kill = async {
        for round in 1..=KILLS {
            let killed = daemon(&file, &log, &[]);
            way.arrived(round * EVENTS / (KILLS + 2)).await;
            drop(killed);
        }
        daemon(&file, &log, &[])
    };
    let feed = async {
        for _ in 0..10 {
            way.feed(EVENTS / 10).await;
        }
    };
    let run = async {
        let (_last, ()) = tokio::join!(kill, feed);
        way::arrived(&ways, Duration::from_secs(120)).await
    };
    let run = tokio::time::timeout(Duration::from_secs(240), run);
    let ended = tokio::select! {
        _ = way::watch(&ways) => panic!("nobody watches"),
        ended = run => ended,
    };
    ended.unwrap_or_else(|_| Err("it takes too long".to_owned())).unwrap();
    assert_eq!(way.overtaken(), None, "{near} to {far}: an event was overtaken by the other");
    let figures = json!({
        "events": EVENTS, "kills": KILLS, "lost": way.missing(), "duplicated": way.repeats(),
    });
    figures::note("crash", &format!("{near} to {far}, in order"), figures);
}

/// Puts the events in while the daemon is killed.
async fn feed(from: &Place, events: usize) {
    const CHUNK: usize = 500;
    let mut full = match from.is_slow_when_full {
        true => Some(from.source().await.settle),
        false => None,
    };
    for first in (0..events).step_by(CHUNK) {
        let chunk = first..(first + CHUNK).min(events);
        if let Some(queue) = &mut full {
            let room = |of: &Backlog| of.events <= BACKLOG_MAX;
            while !queue.backlog().await.is_ok_and(|backlog| backlog.iter().all(room)) {
                // There is no event to await: the daemon under test is another process.
                sleep(Duration::from_millis(200)).await;
            }
        }
        from.put(chunk.map(|n| rig::event(&format!("e-{n}"), format!("{{\"n\":{n}}}"))).collect())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_from_sqs() {
    survives_kills("sqs", "event_hubs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_from_sns() {
    survives_kills("sns", "event_hubs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_from_event_hubs() {
    survives_kills("event_hubs", "sqs").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_from_storage_queues() {
    survives_kills("storage_queue", "event_hubs").await;
}

/// A kill leaves open what was sent and not committed yet: a request of each lane, and what waits
/// for the store. What was committed never comes again, though a second's worth of checkpoint does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_repeat_next_to_nothing_where_a_route_deduplicates() {
    let dedup = json!({ "dedup": { "ttl": "1h" } });
    let counts = survives("event_hubs", "sqs", 5_000, 8, dedup).await;
    let open_max = 200;
    assert!(counts.duplicated <= counts.kills * open_max, "{} duplicated", counts.duplicated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_keep_the_order_of_a_fifo_queue() {
    keeps_order("sqs.fifo", "sqs.fifo").await;
    keeps_order("sqs.fifo", "event_hubs").await;
    keeps_order("sqs.fifo", "sns.fifo").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_keep_the_order_of_an_event_hub() {
    keeps_order("event_hubs", "sqs.fifo").await;
    keeps_order("event_hubs", "sns.fifo").await;
}
