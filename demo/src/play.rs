//! The play itself: who publishes, who reads, and what is seen meanwhile.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use eventferry::{
    config::{self, environment::Environment, plan::Plan},
    event::Event,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    consumer::{Consumer, Manner},
    metrics::Metrics,
    opposite,
    outlets::Outlets,
    producer::Producer,
    relay::Relay,
    report,
    scenario::{invalid_order, order, poisoned_reading, reading},
    screen::Screen,
    table::{self, Resource, Table},
    tally::{Balance, Tally},
};

/// Orders, and as many readings, each time; and how often where nobody waits for the end.
const LIVE_BATCH: u32 = 10;
const LIVE_EVERY: Duration = Duration::from_millis(200);
/// Number of the order that is invalid and of the reading that is poisoned where there is no last
/// one.
const LIVE_POISON: u32 = 300;
/// Orders, and as many readings, each time where a number of events is to be carried.
const COUNTED_BATCH: u32 = 100;

/// How often a terminal is drawn anew, and how often a log gets a line.
const DRAW_EVERY: Duration = Duration::from_millis(500);
const LOG_EVERY: Duration = Duration::from_secs(5);
/// How often the books are looked into.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Without a new arrival for this long, what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// After the last arrival, a duplicate has this long to show itself.
const LINGER: Duration = Duration::from_secs(2);
/// Dead letters that wait to be told about.
const LETTERS_MAX: usize = 16;

/// How a play ended.
pub(crate) struct Ending {
    /// Events that were published.
    pub(crate) published: u64,
    /// What arrived of them.
    pub(crate) balance: Balance,
}

/// A play that is under way.
pub(crate) struct Play {
    plan: Arc<Plan>,
    outlets: Arc<Outlets>,
    tally: Arc<Tally>,
    published: Arc<AtomicU64>,
    letters: mpsc::Receiver<(Arc<str>, Event)>,
    consumers: JoinSet<()>,
    stop_consumers: CancellationToken,
    table: Table,
    screen: Screen,
}

impl Play {
    /// Connects the other ends. The daemon need not run yet.
    pub(crate) async fn prepare(config: &Path, screen: Screen) -> Result<Self> {
        let checked = config::load(config, &Environment::of_process());
        let mut plan = checked.map_err(|problems| anyhow!("{problems}"))?.plan;
        if let Some(missing) = plan.unlock().err().and_then(|all| all.into_iter().next()) {
            return Err(missing.into());
        }
        let outlets = Arc::new(Outlets::of(&plan));
        let plan = Arc::new(plan);
        let tally = Arc::new(Tally::default());
        let (told, letters) = mpsc::channel(LETTERS_MAX);
        let stop_consumers = CancellationToken::new();
        let mut consumers = JoinSet::new();
        for (index, sink) in plan.sinks.iter().enumerate() {
            let source = opposite::of_sink(&plan, index).await;
            let source =
                source.with_context(|| format!("cannot read back from sink {}", sink.name))?;
            let parks = |route: &config::plan::RoutePlan| route.dead_letters.contains(&index);
            let manner = match plan.routes.iter().any(parks) {
                true => Manner::Peek(told.clone()),
                false => Manner::Take,
            };
            let consumer = Consumer {
                sink: sink.name.clone(),
                outlet: outlets.at(index).clone(),
                guards: opposite::is_azure(&sink.config)?,
                manner,
                tally: tally.clone(),
            };
            consumers.spawn(consumer.consume(source, stop_consumers.clone()));
        }
        let table = Table::new(&plan)?;
        let published = Arc::new(AtomicU64::new(0));
        Ok(Self {
            plan,
            outlets,
            tally,
            published,
            letters,
            consumers,
            stop_consumers,
            table,
            screen,
        })
    }

    /// Publishes `count` events, or on and on, and shows what becomes of them: until all have
    /// arrived, or until `stop` and all that was published before has arrived, or `hurry`.
    pub(crate) async fn run(
        mut self,
        mut relay: Relay,
        count: Option<u32>,
        stop: &CancellationToken,
        hurry: &CancellationToken,
    ) -> Result<Ending> {
        let begun = Instant::now();
        self.screen.say(&format!("{}\n", table::LEGEND));
        let mut publishing = self.publish(count, stop.clone()).await?;
        let last = tokio::select! {
            watched = self.watch(&mut relay, &mut publishing, stop) => watched?,
            () = hurry.cancelled() => Instant::now(),
        };
        self.screen.say("Stopping eventferry, then the clouds.\n");
        relay.drain().await?;
        self.stop_consumers.cancel();
        while self.consumers.join_next().await.is_some() {}
        let took = last - begun;
        self.screen.say(&format!(
            "\nThe whole run, {:.1} s:\n\n{}\n{}\n{}\n",
            took.as_secs_f64(),
            self.table.render_whole(took),
            table::LEGEND,
            report::balance(&self.tally, &self.outlets),
        ));
        let published = self.published.load(Ordering::Relaxed);
        Ok(Ending { published, balance: self.tally.total() })
    }

    /// Starts to publish: orders into what `orders` reads, readings into what `devices`
    /// reads.
    async fn publish(
        &self,
        count: Option<u32>,
        stop: CancellationToken,
    ) -> Result<JoinSet<Result<()>>> {
        let producer = async |name: &str| {
            let source = self.plan.sources.iter().position(|source| &*source.name == name);
            let source = source.with_context(|| format!("the demo needs a source `{name}`"))?;
            let sink = opposite::of_source(&self.plan, source).await;
            let sink = sink.with_context(|| format!("cannot write to what {name} reads"))?;
            let (plan, outlets) = (self.plan.clone(), self.outlets.clone());
            let tally = self.tally.clone();
            Ok::<_, anyhow::Error>(Producer::new(sink, source, plan, outlets, tally))
        };
        let publisher = Publisher {
            orders: producer("orders").await?,
            devices: producer("devices").await?,
            published: self.published.clone(),
        };
        let mut publishing = JoinSet::new();
        publishing.spawn(async move {
            match count {
                Some(count) => publisher.counted(count, &stop).await,
                None => publisher.live(&stop).await,
            }
        });
        Ok(publishing)
    }

    /// Shows what happens until nothing more can be expected. Answers when the last event arrived.
    async fn watch(
        &mut self,
        relay: &mut Relay,
        publishing: &mut JoinSet<Result<()>>,
        stop: &CancellationToken,
    ) -> Result<Instant> {
        let every = if self.screen.is_terminal() { DRAW_EVERY } else { LOG_EVERY };
        let mut tick = interval_at(Instant::now() + every, every);
        let mut look = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_publishing, mut is_stopping) = (true, false);
        let (mut arrived, mut last) = (0, Instant::now());
        loop {
            tokio::select! {
                Some(done) = publishing.join_next() => {
                    done.context("the producers have died")??;
                    is_publishing = false;
                }
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    self.screen.say("Waiting for what is under way; Ctrl-C again does not.\n");
                }
                Some((sink, event)) = self.letters.recv() => self.tell(&sink, &event),
                _ = tick.tick(), if !is_stopping => {
                    self.table.read(Metrics::parse(&relay.metrics().await?));
                    self.show();
                }
                _ = look.tick() => {
                    relay.alive()?;
                    let balance = self.tally.total();
                    let copies = balance.arrived + balance.duplicated + balance.strange;
                    if copies != arrived || is_publishing {
                        (arrived, last) = (copies, Instant::now());
                    }
                    let quiet = if balance.missing() == 0 { LINGER } else { PATIENCE };
                    if !is_publishing && last.elapsed() > quiet {
                        self.table.read(Metrics::parse(&relay.metrics().await?));
                        return Ok(last);
                    }
                }
            }
        }
    }

    fn show(&mut self) {
        let (published, balance) = (self.published.load(Ordering::Relaxed), self.tally.total());
        if self.screen.is_terminal() {
            self.screen.draw(&self.table.render(published, balance));
        } else {
            self.screen.say(&format!("{}\n", self.table.summary(published, balance)));
        }
    }

    fn tell(&mut self, sink: &str, event: &Event) {
        if let Some(record) = &event.dead_letter {
            let queue = self.plan.sinks.iter().find(|one| *one.name == *sink);
            let queue = queue.and_then(|sink| serde_json::to_value(&sink.config).ok());
            let queue = queue.and_then(|config| Resource::of(&config).ok());
            let queue = queue.map_or_else(|| sink.to_owned(), |queue| queue.to_string());
            self.screen.say(&format!("{}\n", report::dead_letter(event, record, &queue)));
        }
    }
}

/// The shop and the plant.
struct Publisher {
    orders: Producer,
    devices: Producer,
    published: Arc<AtomicU64>,
}

impl Publisher {
    /// As fast as they are taken, half of them orders, with the poison in the middle of each.
    async fn counted(&self, count: u32, stop: &CancellationToken) -> Result<()> {
        let (orders, readings) = (count / 2, count - count / 2);
        let poison = readings / 2;
        for first in (0..readings).step_by(COUNTED_BATCH as usize) {
            let to = |end: u32| first..(first + COUNTED_BATCH).min(end);
            self.batch(to(orders), to(readings), poison).await?;
            if stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// At a rate that an eye can follow.
    async fn live(&self, stop: &CancellationToken) -> Result<()> {
        let mut tick = interval(LIVE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for batch in 0.. {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => break,
            }
            let numbers = batch * LIVE_BATCH..(batch + 1) * LIVE_BATCH;
            self.batch(numbers.clone(), numbers, LIVE_POISON).await?;
        }
        Ok(())
    }

    /// Publishes the orders and the readings of these numbers. Those numbered `poison` cannot be
    /// delivered.
    async fn batch(&self, orders: Range<u32>, readings: Range<u32>, poison: u32) -> Result<()> {
        let orders = orders.map(|number| match number == poison {
            true => invalid_order(number),
            false => order(number),
        });
        let orders: Vec<Event> = orders.collect();
        let readings = readings.map(|number| match number == poison {
            true => poisoned_reading(number),
            false => reading(number),
        });
        let readings: Vec<Event> = readings.collect();
        let count = orders.len() + readings.len();
        tokio::try_join!(self.orders.publish(orders), self.devices.publish(readings))?;
        self.published.fetch_add(count as u64, Ordering::Relaxed);
        Ok(())
    }
}
