//! Strategies, steps and sizes through the whole daemon between the real emulators: many routes in
//! one daemon, and tables of what goes in and where it must come out.

use std::{sync::Arc, time::Duration};

use eventferry::{
    config::{self, environment::Environment, plan::Plan},
    daemon,
    dead_letter::DeadLetter,
    event::Event,
    redrive::{self, Request, Summary, Task, filter::Filter, reading::Via},
};
use futures::future::join_all;
use serde_json::{Map, Value as Json, json};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    place::{Place, clouds},
    rig::PATIENCE,
};

pub mod bridges;
mod failover;
mod fifo;
mod flow;
mod sizes;
mod steps;
mod strategies;

/// How long nothing more must come, for there to be nothing more.
const QUIET: Duration = Duration::from_secs(2);

/// A running daemon.
pub struct Ferry {
    stop: oneshot::Sender<()>,
    daemon: JoinHandle<Result<(), daemon::DaemonError>>,
}

impl Ferry {
    /// Runs a file.
    pub async fn run(sources: &[(&str, &Place)], sinks: &[(&str, &Place)], rest: &str) -> Self {
        let plan = plan(sources, sinks, rest).await;
        let (stop, stopped) = oneshot::channel::<()>();
        let daemon = tokio::spawn(daemon::run(plan, async {
            let _ = stopped.await;
        }));
        Self { stop, daemon }
    }

    /// Drains it.
    pub async fn end(self) {
        self.stop.send(()).unwrap();
        self.daemon.await.unwrap().unwrap();
    }
}

/// A file with these sources and sinks; `rest` is its routes, and what else it says.
async fn plan(sources: &[(&str, &Place)], sinks: &[(&str, &Place)], rest: &str) -> Plan {
    let named = |places: &[(&str, &Place)], side: fn(&Place) -> &Json| -> Json {
        let entry = |(name, place): &(&str, &Place)| ((*name).to_owned(), side(place).clone());
        places.iter().map(entry).collect::<Map<_, _>>().into()
    };
    let clouds = clouds().await;
    let top = json!({ "aws": clouds.aws, "azure": clouds.azure });
    let file = format!(
        "state: memory\nadmin: off\ndead_letter: parked\naws: {}\nazure: {}\nsources: {}\nsinks: {}\n{rest}",
        top["aws"],
        top["azure"],
        named(sources, |place| &place.source),
        named(sinks, |place| &place.sink),
    );
    // Schemas are found from the folder of the file.
    let name = concat!(env!("CARGO_MANIFEST_DIR"), "/config/end-to-end.yaml");
    let checked = config::read(name, &file, &Environment::default());
    checked.unwrap_or_else(|problems| panic!("{problems}\n{file}")).plan
}

/// An event as a route has parked it.
fn parked_by(route: &str, event: Event) -> Event {
    let now = OffsetDateTime::now_utc();
    let record = DeadLetter {
        route: Some(route.into()),
        sink: None,
        class: "refused".into(),
        error: "no".into(),
        attempts: 1,
        received: 1,
        source: "shop".into(),
        resource: "aws:sqs:shop".into(),
        position: route.into(),
        hops: 0,
        part: None,
        arrived: now,
        first: now,
        last: now,
        redriven: 0,
        run: None,
    };
    Event { dead_letter: Some(Arc::new(record)), ..event }
}

/// Sends again what is parked: through its routes, or straight into a sink.
async fn redrive(plan: Plan, to: Option<&str>) -> Summary {
    let request = Request {
        plan,
        sinks: Vec::new(),
        via: Via::default(),
        filter: Filter::default(),
        max: None,
        rate: None,
        task: Task::Redrive { to: to.map(str::to_owned), without_dedup: false },
        dry_run: false,
    };
    redrive::run(request, CancellationToken::new(), &mut |_| {}).await.unwrap()
}

/// An event at a sink.
pub struct Arrival {
    pub sink: &'static str,
    pub event: Event,
    at: OffsetDateTime,
}

impl Arrival {
    /// Which event is where, and why it is parked if it is.
    fn told(&self) -> String {
        let class = self.event.dead_letter.as_ref().map(|record| format!(": {}", record.class));
        format!("{} at {}{}", self.event.id, self.sink, class.unwrap_or_default())
    }
}

/// Reads these places until `count` events have come in all, and for as long as more come.
pub async fn arrivals(places: &[(&'static str, &Place)], count: usize) -> Vec<Arrival> {
    let (arrives, mut comes) = mpsc::unbounded_channel();
    let follow = places.iter().map(|(sink, place)| {
        place.follow(|event, at| arrives.send(Arrival { sink, event, at }).unwrap())
    });
    let collect = async {
        let mut arrived = Vec::new();
        loop {
            let wait = if arrived.len() < count { PATIENCE } else { QUIET };
            match timeout(wait, comes.recv()).await {
                Ok(arrival) => arrived.extend(arrival),
                Err(_) => return arrived,
            }
        }
    };
    let arrived = tokio::select! {
        _ = join_all(follow) => unreachable!("it follows for ever"),
        arrived = collect => arrived,
    };
    let told: Vec<_> = arrived.iter().map(Arrival::told).collect();
    assert!(arrived.len() >= count, "{} of {count} events: {told:#?}", arrived.len());
    arrived
}
