//! A place of its own at each kind of service: something a sink can write to and a source can
//! read from, both as they stand in the configuration file.

use std::{sync::Arc, time::Duration};

use eventferry::{
    cloud::{Clouds, Context},
    decode::{Format, decode},
    delivery::{Outcome, Settled},
    event::Event,
    fault::Verdict,
    sink::{Sink, SinkConfig},
    source::{Source, SourceConfig},
};
use eventhubs::emulator::{Config, Emulator, HubConfig};
use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    clouds::{
        azurite::{self, Azurite},
        cord::Cord,
        localstack::{self, LocalStack},
        unique,
    },
    rig,
};

/// The kinds of service, as the file spells them.
pub const KINDS: [&str; 4] = ["sqs", "sns", "event_hubs", "storage_queue"];

/// Where events can be put and found.
pub struct Place {
    pub source: Json,
    pub sink: Json,
    /// Whether what waits there makes it slow.
    pub is_slow_when_full: bool,
    /// Serves the hub for as long as the place is there.
    emulator: Option<Emulator>,
    /// Serves the queue, where it is no other's.
    azurite: Option<Azurite>,
}

/// A fresh place at a service of this kind.
pub async fn place(kind: &str) -> Place {
    // Azurite under load is slower than the default lease.
    place_with_lease(kind, if kind == "storage_queue" { 60 } else { 30 }).await
}

/// The same, with how many seconds a message is hidden that a reader has not settled.
pub async fn place_with_lease(kind: &str, seconds: u32) -> Place {
    match kind {
        "sqs" | "sqs.fifo" | "sns" | "sns.fifo" => {
            place_in(&localstack::localstack().await, kind, seconds).await
        }
        "event_hubs" => {
            let name = unique("pair");
            let emulator = Emulator::start(Config::with_hubs([HubConfig::new(&name, 4)])).unwrap();
            let hub = json!({
                "namespace": "local", "endpoint": emulator.endpoint(), "hub": name,
            });
            Place {
                source: json!({ "event_hubs": hub }),
                sink: json!({ "event_hubs": hub }),
                is_slow_when_full: false,
                emulator: Some(emulator),
                azurite: None,
            }
        }
        "storage_queue" => storage_queue(azurite::azurite().await, seconds).await,
        other => panic!("no such kind: {other}"),
    }
}

/// The same for SQS and SNS in this LocalStack.
pub async fn place_in(localstack: &LocalStack, kind: &str, seconds: u32) -> Place {
    let (service, fifo) = kind.split_at(3);
    let (queue, topic) = (unique("pair") + fifo, unique("pair") + fifo);
    let aws = json!(localstack.settings());
    let poll = json!({ "wait": "2s" });
    let (source, sink) = match service {
        "sqs" => (
            json!({ "queue": queue, "poll": poll, "aws": aws }),
            json!({ "queue": queue, "aws": aws }),
        ),
        _ => (
            json!({ "topic": topic, "queue": queue, "create": true, "poll": poll, "aws": aws }),
            json!({ "topic": topic, "aws": aws }),
        ),
    };
    let place = Place {
        source: json!({ service: source }),
        sink: json!({ service: sink }),
        is_slow_when_full: false,
        emulator: None,
        azurite: None,
    };
    place.make(localstack, seconds).await;
    place
}

async fn storage_queue(azurite: Azurite, seconds: u32) -> Place {
    let queue = unique("pair");
    azurite.queue(&queue).await;
    let azure = azurite.by_key();
    let visibility = format!("{seconds}s");
    let source = json!({ "queue": queue, "visibility": visibility, "azure": azure });
    Place {
        source: json!({ "storage_queue": source }),
        sink: json!({ "storage_queue": { "queue": queue, "azure": azure } }),
        is_slow_when_full: true,
        emulator: None,
        azurite: None,
    }
}

/// A place at a service of its own, which can be killed: those whose clouds keep what they hold.
pub async fn place_to_kill(kind: &str, seconds: u32) -> Place {
    match kind {
        "event_hubs" => place_with_lease(kind, seconds).await,
        "storage_queue" => {
            let azurite = azurite::on_disk().await;
            Place { azurite: Some(azurite.clone()), ..storage_queue(azurite, seconds).await }
        }
        other => panic!("{other} forgets what it holds; see `Place::make`"),
    }
}

/// How to reach the local clouds, as the top of the file.
pub async fn clouds() -> Clouds {
    Clouds { aws: localstack::settings().await, azure: azurite::settings().await }
}

async fn context() -> Context {
    Context { clouds: clouds().await, ..rig::context("place", &rig::store()) }
}

impl Place {
    /// Makes the queue that is there in name only, and its topic.
    pub async fn make(&self, localstack: &LocalStack, seconds: u32) {
        let settings = self.source.as_object().unwrap().values().next().unwrap();
        localstack.queue(settings["queue"].as_str().unwrap(), seconds).await;
        if !settings["topic"].is_null() {
            drop(self.source().await);
        }
    }

    /// What can be done to the hub that is its own.
    pub fn hub(&self) -> &eventhubs::emulator::Control {
        self.emulator.as_ref().unwrap().control()
    }

    /// The same place for somebody who does not serve it.
    pub fn reference(&self) -> Self {
        let (source, sink) = (self.source.clone(), self.sink.clone());
        let is_slow_when_full = self.is_slow_when_full;
        Self { source, sink, is_slow_when_full, emulator: None, azurite: None }
    }

    /// The same, as seen through a cord.
    pub async fn on_a_cord(&self) -> (Self, Cord) {
        let mut seen = self.reference();
        let mut say = |kind: &str, setting: &str, value: Json| {
            seen.source[kind][setting] = value.clone();
            seen.sink[kind][setting] = value;
        };
        let kind = self.sink.as_object().unwrap().keys().next().unwrap();
        let cord = match kind.as_str() {
            "event_hubs" => {
                let endpoint = self.sink[kind]["endpoint"].as_str().unwrap();
                let cord = Cord::to(endpoint.rsplit(':').next().unwrap().parse().unwrap()).await;
                say(kind, "endpoint", json!(format!("amqp://127.0.0.1:{}", cord.port)));
                cord
            }
            "storage_queue" => {
                let azurite = match &self.azurite {
                    Some(own) => own.clone(),
                    None => azurite::azurite().await,
                };
                let (azurite, cord) = azurite.on_a_cord().await;
                say(kind, "azure", json!(azurite.by_key()));
                cord
            }
            _ => {
                let (aws, cord) = localstack::on_a_cord().await;
                say(kind, "aws", json!(aws));
                cord
            }
        };
        (seen, cord)
    }

    /// Ends the service that is its own, and starts it again after so long: an event hub as from
    /// kill -9, Azurite in order, because it writes to its disk every few seconds only.
    pub async fn restart(&mut self, after: Duration) {
        if let Some(azurite) = &self.azurite {
            azurite.stop().await;
            sleep(after).await;
            azurite.start_again().await;
        }
        if let Some(emulator) = self.emulator.take() {
            let killed = emulator.kill();
            sleep(after).await;
            self.emulator = Some(killed.start().unwrap());
        }
    }

    /// Connects a source of its own, without a past.
    pub async fn source(&self) -> Source {
        let config: SourceConfig = serde_json::from_value(self.source.clone()).unwrap();
        config.build(&context().await).await.unwrap()
    }

    /// Puts events in.
    pub async fn put(&self, events: Vec<Event>) {
        let config: SinkConfig = serde_json::from_value(self.sink.clone()).unwrap();
        let sink: Arc<dyn Sink> = config.build(&context().await).await.unwrap();
        crate::fixture::put_through(sink.as_ref(), events).await;
    }

    /// Reads until `enough` says so or `until` has come, then goes on for as long as anything
    /// still comes, so that duplicates are seen, too.
    pub async fn read(&self, enough: impl Fn(&[Event]) -> bool, until: Instant) -> Vec<Event> {
        self.read_until_quiet(enough, until, Duration::from_secs(2)).await
    }

    /// The same, until nothing has come for so long.
    pub async fn read_until_quiet(
        &self,
        enough: impl Fn(&[Event]) -> bool,
        until: Instant,
        quiet_for: Duration,
    ) -> Vec<Event> {
        let mut source = self.source().await;
        let mut events = Vec::new();
        let mut deadline = until;
        while let Ok(received) = timeout_at(deadline, source.receive.receive()).await {
            let deliveries = match received {
                // An emulator under load; the pipeline would ask again, too.
                Err(fault) if matches!(fault.verdict, Verdict::Busy { .. }) => continue,
                received => received.unwrap(),
            };
            let decoded = deliveries.iter().map(|d| decode(&d.received, Format::Auto).unwrap());
            let before = events.len();
            events.extend(decoded);
            let done = deliveries
                .into_iter()
                .map(|d| Settled { token: d.token, outcome: Outcome::Delivered });
            source.settle.settle(done.collect()).await;
            if events.len() > before && enough(&events) {
                deadline = (Instant::now() + quiet_for).min(until);
            }
        }
        events
    }

    /// Gives each event that is there or comes to `take`, with when the service took it, by its
    /// clock. Ends when it is dropped.
    pub async fn follow(&self, take: impl Fn(Event, OffsetDateTime)) {
        let mut source = self.source().await;
        loop {
            let deliveries = match source.receive.receive().await {
                Err(fault) if matches!(fault.verdict, Verdict::Busy { .. } | Verdict::Stop) => {
                    // As the pipeline does, in short: the service is being restarted, or has come
                    // back without what it had.
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                received => received.unwrap(),
            };
            for delivery in &deliveries {
                let event = decode(&delivery.received, Format::Auto).unwrap();
                take(event, delivery.received.enqueued.unwrap());
            }
            let done = deliveries
                .into_iter()
                .map(|d| Settled { token: d.token, outcome: Outcome::Delivered });
            let mut done: Vec<_> = done.collect();
            while !done.is_empty() {
                let failed = source.settle.settle(done).await;
                done = failed.into_iter().map(|(settled, _)| settled).collect();
            }
        }
    }
}
