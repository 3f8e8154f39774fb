//! A steady load through a daemon that deduplicates between all services, with a fault every ten
//! seconds: nothing is lost, what comes twice has a cause, and memory stays as it is.
//!
//! `EVENTFERRY_SOAK_SECONDS` says for how long.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use eventhubs::{
    condition,
    emulator::{self, Kind},
};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::{
    clouds::{
        cord::{Cord, Fault, Strike},
        free_port, shared,
    },
    crash::{Daemon, daemon, setting},
    figures,
    place::{Place, clouds, place, place_with_lease},
    redis::Server,
    rig,
    way::{Way, arrived, failed_sends, feed, watch},
};

const SECONDS: usize = 60;
const FAULT_EVERY: Duration = Duration::from_secs(10);
/// How long a fault lasts.
const LASTS: Duration = Duration::from_secs(3);
const RECOVERY_MAX: Duration = Duration::from_secs(120);
/// How many transfers a hub rejects in a row.
const REJECTIONS: u32 = 10;
/// Events into each of the ways, and how often.
const PORTION: usize = 5;
const PORTION_EVERY: Duration = Duration::from_millis(250);
/// What a killed daemon may have had between a sink's confirmation and the commit of its key, in
/// all of the ways: a request of each lane.
const OPEN_MAX: usize = 200;
/// By so much memory may grow from the first to the last quarter of the time without kills, in MiB:
/// buffers and the allocator take what they need when faults come together for the first time. Where
/// that is over long before the first quarter ends, there is nothing more to take.
const GROWTH_MAX: u64 = 24;
const GROWTH_MAX_OF_LONG: u64 = 6;
const LONG_SECONDS: usize = 1800;

/// What happens, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    SinksAway,
    Killed,
    Resets,
    Throttled,
    HubRestarted,
    RedisKilled,
    Slow,
    HalfOpen,
}

impl Trouble {
    const ALL: [Self; 8] = [
        Self::Killed,
        Self::Resets,
        Self::RedisKilled,
        Self::SinksAway,
        Self::HubRestarted,
        Self::HalfOpen,
        Self::Throttled,
        Self::Slow,
    ];

    /// What cords must have done by its end, if it is theirs.
    fn counted_as(self) -> Option<Strike> {
        match self {
            Self::SinksAway => Some(Strike::Refused),
            Self::Resets => Some(Strike::Reset),
            Self::Slow => Some(Strike::Throttled),
            Self::HalfOpen => Some(Strike::Silenced),
            // The daemon was there to be killed, and so was Redis; the rest counts for itself.
            Self::Killed | Self::RedisKilled | Self::HubRestarted | Self::Throttled => None,
        }
    }
}

/// All that can be struck.
struct World {
    daemon: RefCell<Daemon>,
    /// Of the daemons that were killed.
    failed_sends: Cell<usize>,
    kills: Cell<usize>,
    /// Transfers that a hub has rejected.
    rejected: Cell<u32>,
    near: Vec<Cord>,
    far: Vec<Cord>,
    start: Box<dyn Fn() -> Daemon>,
    admin: String,
}

impl World {
    /// How much of this all cords have done.
    fn struck(&self, by: Strike) -> u64 {
        self.near.iter().chain(&self.far).map(|cord| cord.struck(by)).sum()
    }

    /// Lets it happen, and sees that something did.
    async fn strike(
        &self,
        trouble: Trouble,
        redis: &mut Server,
        hub: &mut Place,
    ) -> Result<(), String> {
        let all = || self.near.iter().chain(&self.far);
        let counted = || trouble.counted_as().map(|by| self.struck(by));
        let before = counted();
        match trouble {
            Trouble::SinksAway => {
                self.far.iter().for_each(Cord::part);
                sleep(LASTS).await;
            }
            Trouble::Killed => {
                let failed = failed_sends(&self.admin, None).await.unwrap_or_default();
                self.failed_sends.set(self.failed_sends.get() + failed);
                self.kills.set(self.kills.get() + 1);
                // As from kill -9. It must be gone before another one starts.
                let mut daemon = self.daemon.borrow_mut();
                daemon.0.kill().unwrap();
                daemon.0.wait().unwrap();
                *daemon = (self.start)();
            }
            Trouble::Resets => {
                for _ in 0..6 {
                    all().for_each(Cord::cut);
                    sleep(LASTS / 6).await;
                }
            }
            Trouble::Throttled => {
                let condition = condition::SERVER_BUSY.to_owned();
                let busy = emulator::Fault::new(Kind::Reject { condition });
                hub.hub().arm(busy.times(REJECTIONS));
                // The load comes to it sooner or later. What is left then strikes later on.
                let left = || hub.hub().state().faults.iter().map(|fault| fault.count).sum::<u32>();
                let until = Instant::now() + rig::PATIENCE;
                while left() >= REJECTIONS && Instant::now() < until {
                    sleep(PORTION_EVERY).await;
                }
                sleep(LASTS).await;
                let rejected = REJECTIONS.saturating_sub(left());
                self.rejected.set(self.rejected.get() + rejected);
                if rejected == 0 {
                    return Err("the hub has rejected nothing".to_owned());
                }
            }
            Trouble::HubRestarted => hub.restart(LASTS).await,
            Trouble::RedisKilled => {
                redis.kill();
                sleep(LASTS).await;
                redis.restart().await;
            }
            Trouble::Slow => {
                all().for_each(|cord| cord.suffer(Fault::Bandwidth(10_000)));
                sleep(LASTS).await;
            }
            Trouble::HalfOpen => {
                all().for_each(|cord| cord.suffer(Fault::HalfOpen));
                sleep(LASTS).await;
            }
        }
        // A daemon that hardly gets to run may have said nothing yet.
        let is_spared = || before.is_some() && before == counted();
        let until = Instant::now() + rig::PATIENCE;
        while is_spared() && Instant::now() < until {
            sleep(PORTION_EVERY).await;
        }
        all().for_each(Cord::mend);
        if is_spared() {
            return Err("the cords have done nothing".to_owned());
        }
        Ok(())
    }
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_load_with_a_fault_every_ten_seconds_loses_nothing_and_grows_nothing() {
    let _shared = shared().await;
    let seconds = setting("EVENTFERRY_SOAK_SECONDS", SECONDS);
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("soak.yaml"), dir.path().join("daemon.log"));
    let mut redis = Server::start().await;

    let kinds = [("sqs", "event_hubs"), ("event_hubs", "storage_queue"), ("storage_queue", "sns")];
    let (mut ways, mut near, mut far) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sources, mut sinks, mut routes) = (json!({}), json!({}), Vec::new());
    // The one that is restarted.
    let mut hub = place("event_hubs").await;
    for (from, to) in kinds {
        let from = place_with_lease(from, 10).await;
        let to = if to == "event_hubs" { hub.reference() } else { place(to).await };
        let (source, from_cord) = from.on_a_cord().await;
        let (sink, to_cord) = to.on_a_cord().await;
        let name = format!("way-{}", ways.len());
        sources[&name] = source.source;
        sinks[&name] = sink.sink;
        routes.push(json!({
            "name": name, "from": [name], "to": { "all": [name] }, "dedup": { "ttl": "1h" },
        }));
        ways.push(Way::new(from, to));
        near.push(from_cord);
        far.push(to_cord);
    }
    let admin = format!("127.0.0.1:{}", free_port());
    let clouds = clouds().await;
    let config = json!({
        "state": { "redis": { "url": redis.url() } },
        "aws": clouds.aws,
        "azure": clouds.azure,
        "admin": { "listen": admin },
        "sources": sources,
        "sinks": sinks,
        "routes": routes,
        "unmatched": "drop",
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let start: Box<dyn Fn() -> Daemon> = {
        let log = log.clone();
        Box::new(move || daemon(&file, &log, &[]))
    };
    let world = World {
        daemon: RefCell::new(start()),
        failed_sends: Cell::default(),
        kills: Cell::default(),
        rejected: Cell::default(),
        near,
        far,
        start,
        admin,
    };

    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds as u64);
    let calm = begun + Duration::from_secs(seconds as u64) / 3;
    let load = async {
        let mut ticks = interval(PORTION_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < until {
            ticks.tick().await;
            feed(&ways, PORTION).await;
        }
    };
    let (mut recovery, mut struck) = (BTreeMap::<Trouble, Duration>::new(), 0_usize);
    let faults = async {
        for trouble in Trouble::ALL.into_iter().cycle() {
            // Memory is only seen to grow in a process that lives.
            if trouble == Trouble::Killed && Instant::now() > calm {
                continue;
            }
            let next = Instant::now() + FAULT_EVERY;
            if next > until {
                return Ok::<(), String>(());
            }
            let told = |what: String| format!("{trouble:?}: {what}");
            world.strike(trouble, &mut redis, &mut hub).await.map_err(told)?;
            let over = Instant::now();
            arrived(&ways, RECOVERY_MAX).await.map_err(told)?;
            struck += 1;
            let worst = recovery.entry(trouble).or_default();
            *worst = over.elapsed().max(*worst);
            sleep_until(next).await;
        }
        Ok(())
    };
    let memory = RefCell::new(Vec::new());
    let weigh = async {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            if Instant::now() > calm {
                let process = world.daemon.borrow().0.id();
                memory.borrow_mut().extend(rig::resident(process));
            }
        }
    };
    let run = async {
        let ((), faults) = tokio::join!(load, faults);
        faults?;
        arrived(&ways, RECOVERY_MAX).await
    };
    let ended: Result<(), String> = tokio::select! {
        () = watch(&ways) => unreachable!("it watches for ever"),
        () = weigh => unreachable!("it weighs for ever"),
        ended = run => ended,
    };
    let tail = std::fs::read_to_string(&log).unwrap_or_default();
    let tail: Vec<_> = tail.lines().rev().take(20).collect();
    if let Err(what) = ended {
        panic!("{what}; the daemon's last words, newest first:\n{}", tail.join("\n"));
    }

    let failed = world.failed_sends.get() + failed_sends(&world.admin, None).await.unwrap();
    let repeats: usize = ways.iter().map(Way::repeats).sum();
    let explained = failed + world.kills.get() * OPEN_MAX;
    assert!(repeats <= explained, "{repeats} repeats, of which {explained} have a cause");
    let memory = memory.into_inner();
    let quarter = memory.len() / 4;
    let (first, last) = (median(&memory[..quarter]), median(&memory[memory.len() - quarter..]));
    let growth_max = if seconds >= LONG_SECONDS { GROWTH_MAX_OF_LONG } else { GROWTH_MAX };
    assert!(last <= first + growth_max, "memory grew from {first} to {last} MiB");
    // Each kind in its turn; the next waits until all has arrived that was fed before.
    assert_eq!(recovery.len(), struck.min(Trouble::ALL.len()), "{recovery:?} of {struck}");
    let connections = [Strike::Silenced, Strike::Reset, Strike::Refused];
    let connections: u64 = connections.map(|by| world.struck(by)).iter().sum();
    let (worst, after) = recovery.iter().max_by_key(|(_, took)| **took).unwrap();
    let figures = json!({
        "seconds": seconds,
        "faults": struck,
        "events": ways.iter().map(Way::fed).sum::<usize>(),
        "kills": world.kills.get(),
        "connections struck": connections,
        "transfers rejected": world.rejected.get(),
        "lost": ways.iter().map(Way::missing).sum::<usize>(),
        "duplicated": repeats,
        "failed sends": failed,
        "worst recovery s": after.as_secs_f64().ceil(),
        "worst after": format!("{worst:?}"),
        "MiB at first": first,
        "MiB at last": last,
    });
    figures::note(
        "soak",
        "sqs to event_hubs, event_hubs to storage_queue, storage_queue to sns",
        figures,
    );
}
