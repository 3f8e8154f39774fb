//! A world that follows from its seed, and its processes, which die and are started again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    chaos::{Chaos, Rates},
    connectors::{
        Far, FaultyKeys, FaultyReceive, FaultySettle, FaultySink, FaultyState, SOURCE, Services,
    },
    history::History,
    planted,
};
use crate::{
    cloud::{Clouds, Context},
    config::{
        plan::Unmatched,
        units::{Size, Span},
    },
    decode::Format,
    dedup::{self, Dedup, OnStoreFailure},
    deliver::{
        Deliverer, Target, breaker::BreakerConfig, bucket::LimitConfig,
        concurrency::ConcurrencyConfig, flow::FlowConfig, oversize::Oversize, priority::Weights,
    },
    pipeline::{Ends, Pipeline, gate::Gate, routing::Routing},
    route::{
        Retry, When,
        choice::Choice,
        table::{Lane, Route, Table},
    },
    settle::Budget,
    sink::Order,
    source::{
        InFlight,
        memory::{Config, Kind, Message, Queue},
    },
    state::{StateStore, memory::MemoryStore},
    telemetry::Metrics,
};

/// Everything about a world that the seed decides before it begins.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    kind: Kind,
    events: usize,
    keys: usize,
    sinks: usize,
    /// Whether the sinks stand in for one another.
    stand_in: bool,
    together: bool,
    dedup: bool,
    dead_letters: usize,
    attempts: u32,
    replicas: u32,
    max_in_flight: usize,
    rates: Rates,
    /// When a process ends, in milliseconds, and whether it is asked to.
    ends: Vec<(u64, bool)>,
    /// When a partition of a log is stolen, in milliseconds.
    thefts: Vec<u64>,
    /// What becomes of events while the store of keys is away.
    on_store_failure: OnStoreFailure,
    /// How every sink is treated.
    flow: FlowConfig,
    /// When the sinks are all away, in milliseconds from when to when.
    outage: Option<(u64, u64)>,
}

/// How a run went.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) digest: u64,
    pub(super) faults: u64,
    pub(super) processes: u32,
    pub(super) summary: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, processes, summary, .. } = self;
        write!(f, "{summary}; {faults} faults, {processes} processes")
    }
}

/// Faults come for this long.
const STORM: Duration = Duration::from_secs(120);
/// All must be quiet this long after them: twice the longest back-off that a hint allows, a lease
/// of each kind, and the waits for a twin.
const CALM: Duration = Duration::from_secs(1_200);
/// A planned stop may take this long.
const GRACE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(86_400);
const PARTITIONS: u32 = 3;
/// Whoever has lost a partition learns of it within this time.
const TOLD_MAX: Duration = Duration::from_secs(5);

impl Scenario {
    pub(super) fn of(seed: u64) -> Self {
        // The dice of the world are others than those of its faults.
        let dice = Chaos::new(!seed, Rates { error: 0, lost_answer: 0, partial: 0, slow: 0 });
        let one_in = |n: u64| dice.below(n) == 0;
        let kind = [Kind::Standard, Kind::Fifo, Kind::Log][dice.below(3) as usize];
        let rate = |most: u64| u32::try_from(dice.below(most)).unwrap();
        let sinks = 1 + usize::from(one_in(2));
        Self {
            seed,
            kind,
            events: 20 + dice.below(180) as usize,
            keys: 1 + dice.below(12) as usize,
            sinks,
            // What overtakes without a wait would be offered to stand-ins for ever.
            stand_in: sinks > 1 && one_in(2) && !planted::is(planted::Bug::RetryOvertakes),
            together: one_in(3),
            dedup: !one_in(3),
            dead_letters: dice.below(4).min(2) as usize,
            attempts: 1 + rate(6),
            replicas: 1 + u32::from(one_in(2)),
            thefts: (0..dice.below(8)).map(|_| dice.below(STORM.as_millis() as u64)).collect(),
            on_store_failure: match one_in(4) {
                true => OnStoreFailure::Deliver,
                false => OnStoreFailure::Hold,
            },
            max_in_flight: if one_in(2) { 20 } else { 10_000 },
            rates: Rates {
                error: rate(200),
                lost_answer: rate(80),
                partial: rate(200),
                slow: rate(30),
            },
            ends: (0..dice.below(6))
                .map(|_| (dice.below(STORM.as_millis() as u64), one_in(2)))
                .collect(),
            flow: FlowConfig {
                limit: LimitConfig {
                    events_per_second: one_in(3).then(|| 5.0 + f64::from(rate(100))),
                    bytes_per_second: one_in(4).then(|| Size(1_000 + dice.below(4_000) as usize)),
                },
                concurrency: ConcurrencyConfig {
                    min: 1 + dice.below(3) as usize,
                    max: one_in(2).then(|| 3 + dice.below(6) as usize),
                },
                breaker: BreakerConfig {
                    failures: 1 + rate(8),
                    open: Span(Duration::from_millis(10 + dice.below(2_000))),
                    open_max: Span(Duration::from_millis(2_000 + dice.below(30_000))),
                },
            },
            outage: one_in(3).then(|| {
                let from = dice.below(STORM.as_millis() as u64);
                (from, from + dice.below(60_000))
            }),
        }
    }

    /// Lets the world run.
    ///
    /// # Errors
    /// The first breach of an invariant.
    pub(super) async fn run(&self) -> Result<Report, String> {
        let chaos = Chaos::new(self.seed, self.rates);
        let poison = match self.dead_letters > 0 {
            true => (0..self.events / 20)
                .map(|_| format!("e-{}", chaos.below(self.events as u64)))
                .collect(),
            false => BTreeSet::new(),
        };
        // One sink that stands in for another overtakes it.
        let ordered = self.kind != Kind::Standard && !self.stand_in;
        let services = Arc::new(Services {
            chaos,
            history: History::new(self.sinks, self.stand_in, ordered),
            poison,
            spare: self.dead_letters > 1,
            checkpoints: MemoryStore::default(),
            keys: Mutex::default(),
            order: if self.together { Order::Together } else { Order::OnePerBatch },
            outage: self.outage.map(|(from, to)| {
                let at = |millis| Instant::now() + Duration::from_millis(millis);
                at(from)..at(to)
            }),
        });
        let config = json!({ "queue": "near", "kind": self.kind, "visibility": "30s",
            "partitions": PARTITIONS });
        let near = Queue::new(&serde_json::from_value::<Config>(config).unwrap());
        let mut world = World {
            scenario: self,
            services,
            near,
            processes: Vec::new(),
            owners: BTreeMap::new(),
            thefts: Vec::new(),
            started: 0,
        };
        world.run().await
    }
}

struct World<'s> {
    scenario: &'s Scenario,
    services: Arc<Services>,
    near: Queue,
    processes: Vec<Process>,
    /// The partitions of a log, and the processes that have them.
    owners: BTreeMap<u32, u32>,
    /// Partitions that were stolen, from whom, and when they learn of it.
    thefts: Vec<(Instant, u32, u32)>,
    started: u32,
}

impl World<'_> {
    async fn run(&mut self) -> Result<Report, String> {
        let begin = Instant::now();
        for _ in 0..self.scenario.replicas {
            self.start().await;
        }
        self.hand_out();
        let mut ends = self.scenario.ends.clone();
        ends.sort_unstable();
        let mut ends = ends.into_iter().peekable();
        let mut thefts = self.scenario.thefts.clone();
        thefts.sort_unstable();
        let mut thefts = thefts.into_iter().peekable();
        let mut put = 0;
        let storm = begin + STORM;
        while Instant::now() < storm {
            while put < self.scenario.events && self.services.chaos.below(3) > 0 {
                self.put(put);
                put += 1;
            }
            let next = Instant::now() + Duration::from_millis(self.services.chaos.below(2_000));
            sleep_until(next.min(storm)).await;
            self.look()?;
            let now = u64::try_from(begin.elapsed().as_millis()).unwrap();
            while let Some((_, asked)) = ends.next_if(|(at, _)| *at <= now) {
                let victim = self.services.chaos.below(self.processes.len() as u64);
                let process = self.processes.swap_remove(victim as usize);
                // A store that is away at a planned end leaves commits undone as well.
                self.services.history.ends(process.number);
                match asked {
                    true => process.stop().await,
                    false => process.crash().await,
                }
                self.start().await;
                self.hand_out();
            }
            while thefts.next_if(|at| *at <= now).is_some() {
                self.steal();
            }
            self.tell();
        }
        (put..self.scenario.events).for_each(|number| self.put(number));
        self.services.chaos.heal();
        self.calm().await?;
        for process in std::mem::take(&mut self.processes) {
            process.stop().await;
        }
        let services = self.services.clone();
        let Services { history, chaos, .. } = &*services;
        // Whoever delivers what nobody has looked up repeats it.
        if self.scenario.dedup && self.scenario.on_store_failure == OnStoreFailure::Hold {
            history.check_copies();
        }
        self.look()?;
        Ok(Report {
            digest: history.digest(),
            faults: chaos.faults.load(std::sync::atomic::Ordering::Relaxed),
            processes: self.started,
            summary: history.summary(),
        })
    }

    /// What has gone wrong by now.
    fn look(&mut self) -> Result<(), String> {
        for process in &mut self.processes {
            for tasks in [&mut process.lanes, &mut process.claims, &mut process.pipelines] {
                if let Some(Err(error)) = tasks.try_join_next() {
                    return Err(format!("a task of the engine has died: {error}"));
                }
            }
        }
        self.services.history.breach().map_or(Ok(()), Err)
    }

    fn put(&self, number: usize) {
        let Services { chaos, history, .. } = &*self.services;
        // Few keys have most of the events.
        let key = chaos.below(1 + chaos.below(self.scenario.keys as u64));
        let (id, key) = (format!("e-{number}"), format!("k-{key}"));
        let message = Message {
            body: Services::body(&id),
            message_id: Some(id.as_str().into()),
            key: Some(key.as_str().into()),
            ..Message::default()
        };
        history.put(&id, &key);
        // A standard queue hands some messages out twice.
        let twice = self.scenario.kind == Kind::Standard && chaos.happens(50);
        let copy = twice.then(|| message.clone());
        if twice && !self.scenario.dedup {
            history.ambiguous(&id);
        }
        self.near.put(std::iter::once(message).chain(copy));
    }

    /// Liveness: without faults everything ends.
    async fn calm(&mut self) -> Result<(), String> {
        let until = Instant::now() + CALM;
        loop {
            self.look()?;
            self.tell();
            let in_flight = self.processes.iter().any(|it| it.budget.in_flight().0 > 0);
            let left = self.scenario.kind != Kind::Log && !self.near.contents().is_empty();
            let Services { history, .. } = &*self.services;
            if !in_flight && !left && history.is_complete() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("liveness: {}", history.summary()));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Gives the partitions that nobody has to somebody.
    fn hand_out(&mut self) {
        for partition in 0..PARTITIONS {
            let owner = self.owners.get(&partition);
            if owner.is_some_and(|owner| self.processes.iter().any(|it| it.number == *owner)) {
                continue;
            }
            let heir = self.services.chaos.below(self.processes.len() as u64) as usize;
            self.give(partition, heir);
        }
    }

    fn give(&mut self, partition: u32, heir: usize) {
        let heir = &self.processes[heir];
        self.owners.insert(partition, heir.number);
        heir.share.send_modify(|share| _ = share.insert(partition));
    }

    /// Has a process take a partition of another, which goes on until it is told.
    fn steal(&mut self) {
        let chaos = &self.services.chaos;
        let partition = chaos.below(PARTITIONS.into()) as u32;
        let thief = chaos.below(self.processes.len() as u64) as usize;
        let told = Instant::now() + Duration::from_millis(chaos.below(TOLD_MAX.as_millis() as u64));
        let owner = self.owners.get(&partition).copied();
        let Some(owner) = owner.filter(|owner| *owner != self.processes[thief].number) else {
            return;
        };
        self.thefts.push((told, partition, owner));
        self.give(partition, thief);
    }

    /// Tells those whose partitions were stolen.
    fn tell(&mut self) {
        let now = Instant::now();
        for (_, partition, robbed) in self.thefts.extract_if(.., |(told, ..)| *told <= now) {
            if self.owners.get(&partition) == Some(&robbed) {
                // It has taken it back.
                continue;
            }
            if let Some(process) = self.processes.iter().find(|it| it.number == robbed) {
                process.share.send_modify(|share| _ = share.remove(&partition));
            }
        }
    }

    async fn start(&mut self) {
        self.started += 1;
        let process = Process::start(self.scenario, &self.services, &self.near, self.started).await;
        self.processes.push(process);
    }
}

/// One daemon's engine.
struct Process {
    number: u32,
    /// The partitions that it has, of a log.
    share: watch::Sender<BTreeSet<u32>>,
    budget: Arc<Budget>,
    ends: Ends,
    stop_lanes: CancellationToken,
    stop_claims: CancellationToken,
    lanes: JoinSet<()>,
    claims: JoinSet<()>,
    pipelines: JoinSet<()>,
}

impl Process {
    async fn start(
        scenario: &Scenario,
        services: &Arc<Services>,
        near: &Queue,
        number: u32,
    ) -> Self {
        let metrics = Metrics::new().unwrap();
        let (stop_lanes, stop_claims) = (CancellationToken::new(), CancellationToken::new());
        let (mut lanes, mut claims, mut pipelines) =
            (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let mut deliverer = |name: &str, far| {
            let (health, name) = (watch::Sender::new(None), Arc::from(name));
            let (of_sink, flow) = (metrics.sink(&name), scenario.flow);
            let sink = Arc::new(FaultySink(services.clone(), far));
            let (deliverer, runners) = Deliverer::new(
                name,
                sink,
                &Weights::default(),
                flow,
                &of_sink,
                &health,
                &stop_lanes,
            );
            runners.into_iter().for_each(|lane| drop(lanes.spawn(lane.run())));
            deliverer
        };
        let dead_letters = [("parked", Far::DeadLetters), ("spare", Far::Spare)];
        let dead_letters = dead_letters.into_iter().take(scenario.dead_letters);
        let parking: Vec<_> = dead_letters.map(|(name, far)| deliverer(name, far)).collect();
        let ledger = scenario.dedup.then(|| {
            let keys = Arc::new(FaultyKeys(services.clone(), number));
            let (ledger, keeper) = dedup::keeper::open(keys, metrics.dedup());
            claims.spawn(keeper.run(stop_claims.clone()));
            ledger
        });
        let target = |name: &str, sink| {
            let of_sink = metrics.route(&"route".into(), &name.into());
            let retry = Retry {
                attempts: scenario.attempts,
                backoff: Span(Duration::from_millis(50)),
                backoff_max: Span(Duration::from_secs(5)),
            };
            let (route, oversize) = (Arc::from("route"), Oversize::default());
            let target = Target::new(route, sink, parking.clone(), retry, oversize, of_sink);
            let dedup = ledger.clone().map(|ledger| Dedup {
                ledger,
                ttl: TTL,
                on_store_failure: scenario.on_store_failure,
                route: "route".into(),
                sink: (!scenario.stand_in).then(|| name.into()),
            });
            Arc::new(target.with_dedup(dedup))
        };
        let sinks: Vec<_> = (0..scenario.sinks)
            .map(|sink| {
                let name = sink.to_string();
                target(&name, Some(deliverer(&name, Far::Sink(sink))))
            })
            .collect();
        let choice = match scenario.stand_in {
            true => {
                sinks.iter().for_each(|sink| sink.stand_in_for(&sinks));
                Choice::Any(sinks)
            }
            false => Choice::All(sinks),
        };
        let route = Route::new(When::default(), choice);
        let bound = InFlight { events: scenario.max_in_flight, ..InFlight::default() };
        let budget = Arc::new(Budget::new(bound));
        let pipeline = Pipeline {
            taps: Arc::default(),
            name: SOURCE.into(),
            format: Format::Auto,
            routing: Arc::new(Routing {
                table: Table::new(vec![route], Lane::only()),
                failed: vec![target("", None)],
                hops_max: 4,
                unmatched: Unmatched::DeadLetter,
                unrouted: target("", None),
            }),
            budget: budget.clone(),
            metrics: metrics.source(&SOURCE.into()),
            health: watch::Sender::new(None),
            gate: Gate::default(),
        };
        let state: Arc<dyn StateStore> = Arc::new(FaultyState(services.clone()));
        let (clouds, audit) = (Clouds::default(), Arc::default());
        let context = Context { name: SOURCE.into(), clouds, state, metrics, audit };
        let share = watch::Sender::new(BTreeSet::new());
        let mut source = loop {
            match near.share_of(&context, share.subscribe()).await {
                Ok(source) => break source,
                Err(_) => sleep(Duration::from_millis(500)).await,
            }
        };
        let received = Arc::new(Mutex::new(BTreeMap::new()));
        source.receive = Box::new(FaultyReceive {
            process: number,
            inner: source.receive,
            services: services.clone(),
            received: received.clone(),
            budget: budget.clone(),
            max: scenario.max_in_flight,
        });
        let services = services.clone();
        source.settle =
            Box::new(FaultySettle { process: number, inner: source.settle, services, received });
        let ends = Ends { drain: CancellationToken::new(), finish: CancellationToken::new() };
        pipeline.spawn(source, &ends, &mut pipelines);
        Self { number, share, budget, ends, stop_lanes, stop_claims, lanes, claims, pipelines }
    }

    /// As from kill -9: nobody does anything any more.
    async fn crash(mut self) {
        self.pipelines.abort_all();
        self.claims.abort_all();
        self.lanes.abort_all();
        for mut tasks in [self.pipelines, self.claims, self.lanes] {
            tasks.shutdown().await;
        }
    }

    /// As the daemon drains.
    async fn stop(mut self) {
        self.ends.drain.cancel();
        let _ = timeout(GRACE, self.budget.empty()).await;
        self.stop_lanes.cancel();
        let lanes = async { while self.lanes.join_next().await.is_some() {} };
        if timeout(GRACE, lanes).await.is_err() {
            self.lanes.shutdown().await;
        }
        self.stop_claims.cancel();
        while self.claims.join_next().await.is_some() {}
        self.ends.finish.cancel();
        let pipelines = async { while self.pipelines.join_next().await.is_some() {} };
        if timeout(GRACE, pipelines).await.is_err() {
            self.pipelines.shutdown().await;
        }
    }
}
