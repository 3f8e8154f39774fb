//! kill -9 at every point between which something is true of an event that was not before, from
//! every source to every sink: nothing is lost, and what was known as delivered comes once.
//! What was on its way to the sink when the daemon died, or confirmed and not yet committed, comes
//! again: that is the window which no store closes.
//!
//! `EVENTFERRY_KILL_POINTS=1` runs all of them, `3` one in three; without it a few of each kind.

use std::{collections::BTreeSet, os::unix::process::ExitStatusExt as _, time::Duration};

use eventferry::fault::point::{Point, VARIABLE};
use futures::StreamExt as _;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    canary::PAYLOAD,
    clouds::alone,
    crash::{Daemon, daemon, setting},
    figures,
    place::{KINDS, clouds, place_with_lease},
    rig,
};

const EVENTS: usize = 60;
/// How long a message is hidden that a killed daemon had received.
const LEASE_S: u32 = 5;
const AT_ONCE: usize = 3;
/// One in so many runs where not all are asked for. Shares no factor with the number of kinds, so
/// that each is met; each point is met as well, which the test looks at.
const ONE_IN: usize = 9;

/// A daemon that is killed, and one that goes on.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub near: &'static str,
    pub far: &'static str,
    pub point: Point,
    pub dedup: bool,
    pub events: usize,
}

/// Every run that can be: some points are only passed by some sources, or with deduplication.
fn runs() -> Vec<Run> {
    let mut runs = Vec::new();
    for point in Point::ALL {
        for dedup in [false, true] {
            for near in KINDS {
                for far in KINDS {
                    let is_passed = match point {
                        Point::AfterClaim | Point::AfterCommit => dedup,
                        Point::DuringCheckpoint => near == "event_hubs",
                        Point::DuringDeadLetter => !dedup,
                        _ => true,
                    };
                    if is_passed {
                        runs.push(Run { near, far, point, dedup, events: EVENTS });
                    }
                }
            }
        }
    }
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

/// Loses nothing. Answers how many events came more than once.
pub async fn run(Run { near, far, point, dedup, events }: Run) -> usize {
    let (from, to) = (place_with_lease(near, LEASE_S).await, place_with_lease(far, 30).await);
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("kill.yaml"), dir.path().join("daemon.log"));
    let clouds = clouds().await;
    let mut route = json!({
        "name": "kill", "from": ["near"], "transform": [{ "parse": ["data"] }],
        "to": { "all": ["far"] }, "dead_letter": "parked",
    });
    if dedup {
        route["dedup"] = json!({ "ttl": "1h" });
    }
    let config = json!({
        "state": { "embedded": { "path": dir.path().join("state") } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": "off",
        "unmatched": "drop",
        "sources": { "near": from.source },
        // The same place twice, so that all that comes is seen in one.
        "sinks": { "far": to.sink, "parked": to.sink },
        "routes": [route],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let body = |n: usize| match point {
        // What the route's step refuses.
        Point::DuringDeadLetter if n.is_multiple_of(2) => format!("{{{n} {PAYLOAD}"),
        _ => format!("{{\"n\":{n},\"is\":\"{PAYLOAD}\"}}"),
    };
    from.put((0..events).map(|n| rig::event(&format!("e-{n}"), body(n))).collect()).await;

    let mut first = daemon(&file, &log, &[(VARIABLE, format!("{}:1", point.name()))]);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    assert!(died(&mut first).await, "it was not killed {point:?}; its words:\n{}", said());
    let second = daemon(&file, &log, &[]);
    let until = Instant::now() + Duration::from_secs(120);
    let all = |arrived: &[eventferry::event::Event]| {
        arrived.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len() >= events
    };
    // What the first one had received comes again within its lease.
    let quiet_for = Duration::from_secs(u64::from(LEASE_S) + 3);
    let arrived = to.read_until_quiet(all, until, quiet_for).await;
    drop(second);
    let seen = arrived.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len();
    assert_eq!(events - seen, 0, "{near} to {far}, {point:?}: lost; its words:\n{}", said());
    arrived.len() - seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_point_nothing_is_lost() {
    let _alone = alone().await;
    let one_in = setting("EVENTFERRY_KILL_POINTS", ONE_IN);
    let chosen = runs().into_iter().enumerate().filter(|(n, _)| n % one_in == 0);
    let counts: Vec<_> = futures::stream::iter(chosen)
        .map(async |(_, of)| (of, run(of).await))
        .buffered(AT_ONCE)
        .collect()
        .await;
    for point in Point::ALL {
        for dedup in [false, true] {
            let of = counts.iter().filter(|(run, _)| run.point == point && run.dedup == dedup);
            let (mut runs, mut most) = (0, 0);
            for (run, duplicated) in of {
                (runs, most) = (runs + 1, most.max(*duplicated));
                let allowed = match point {
                    // At its first passing nothing has been sent.
                    Point::AfterReceive | Point::AfterClaim => 0,
                    // Some were known as delivered. What else was under way comes again.
                    Point::AfterCommit | Point::BeforeSettle | Point::DuringCheckpoint if dedup => {
                        EVENTS - 1
                    }
                    _ => EVENTS,
                };
                assert!(*duplicated <= allowed, "{run:?}: {duplicated} came twice");
            }
            if runs > 0 {
                let figures = json!({
                    "runs": runs,
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
}
