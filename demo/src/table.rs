//! The table: one line for each sink of each route.

use std::{
    collections::VecDeque,
    fmt::{self, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use eventferry::config::plan::Plan;
use tokio::time::Instant;

use crate::{
    metrics::{Latency, Metrics},
    opposite::kind_of,
    report::thousands,
    tally::Balance,
};

/// Rates and latencies are of this last stretch of time.
const WINDOW: Duration = Duration::from_secs(10);

/// What the columns mean.
pub(crate) const LEGEND: &str = concat!(
    "  in      received from the source       out  confirmed by the sink (per s: each second)\n",
    "  parked  put aside as a dead letter     p99  from receive to confirmation, 99 % of events\n",
);

/// What the daemon does, in rows.
pub(crate) struct Table {
    rows: Vec<Row>,
    sources: Vec<Arc<str>>,
    begun: Instant,
    /// Readings of the metrics within [`WINDOW`], oldest first.
    readings: VecDeque<(Instant, Metrics)>,
}

/// A route into a sink.
struct Row {
    route: Arc<str>,
    sink: Arc<str>,
    /// Names of the sources, and whether they stand in a row above already.
    from: Vec<Arc<str>>,
    is_first: bool,
    from_text: String,
    to_text: String,
}

impl Table {
    /// The rows of a plan, without numbers yet.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        let mut rows = Vec::new();
        for route in &plan.routes {
            let sources = route.from.iter().map(|index| &plan.sources[*index]);
            let mut from_text = Vec::new();
            for source in sources.clone() {
                from_text.push(Resource::of(&serde_json::to_value(&source.config)?)?.brief());
            }
            for (index, sink) in
                route.sinks.iter().map(|(index, _)| &plan.sinks[*index]).enumerate()
            {
                rows.push(Row {
                    route: route.name.clone(),
                    sink: sink.name.clone(),
                    from: sources.clone().map(|source| source.name.clone()).collect(),
                    is_first: index == 0,
                    from_text: from_text.join(", "),
                    to_text: Resource::of(&serde_json::to_value(&sink.config)?)?.brief(),
                });
            }
        }
        let sources = plan.sources.iter().map(|source| source.name.clone()).collect();
        Ok(Self { rows, sources, begun: Instant::now(), readings: VecDeque::new() })
    }

    /// Takes in a new reading.
    pub(crate) fn read(&mut self, metrics: Metrics) {
        let now = Instant::now();
        while self.readings.get(1).is_some_and(|(then, _)| now - *then >= WINDOW) {
            self.readings.pop_front();
        }
        self.readings.push_back((now, metrics));
    }

    /// The table, with rates and latencies of the last ten seconds.
    pub(crate) fn render(&self, published: u64, balance: Balance) -> String {
        let (Some((then, before)), Some((now, after))) =
            (self.readings.front(), self.readings.back())
        else {
            return String::new();
        };
        let mut text = self.rows(before, after, (*now - *then).as_secs_f64());
        let _ = writeln!(text, "\n  {}", self.summary(published, balance));
        text
    }

    /// The table, with rates and latencies from the first event to the last.
    pub(crate) fn render_whole(&self, took: Duration) -> String {
        let after = self.readings.back().map(|(_, metrics)| metrics.clone()).unwrap_or_default();
        self.rows(&Metrics::default(), &after, took.as_secs_f64())
    }

    /// How far it is, in one line.
    pub(crate) fn summary(&self, published: u64, balance: Balance) -> String {
        let metrics = self.readings.back().map(|(_, metrics)| metrics.clone()).unwrap_or_default();
        let in_flight: f64 = self
            .sources
            .iter()
            .map(|source| metrics.sum("eventferry_in_flight_events", &[("source", source)]))
            .sum();
        let seconds = self.begun.elapsed().as_secs();
        format!(
            "{:02}:{:02}  published {}   in flight {}   read back at the sinks {} of {}",
            seconds / 60,
            seconds % 60,
            thousands(published),
            whole(in_flight),
            thousands(balance.arrived),
            thousands(balance.expected),
        )
    }

    fn rows(&self, before: &Metrics, after: &Metrics, seconds: f64) -> String {
        let width = |title: &str, texts: &dyn Fn(&Row) -> usize| {
            self.rows.iter().map(texts).max().unwrap_or(0).max(title.len())
        };
        let route_width = width("route", &|row| row.route.len());
        let from_width = width("from", &|row| row.from_text.len());
        let to_width = width("to", &|row| row.to_text.len());
        let mut text = format!(
            "  {:route_width$}  {:from_width$}  {:to_width$}  {:>7}  {:>7}  {:>6}  {:>5}  {:>6}\n",
            "route", "from", "to", "in", "out", "parked", "per s", "p99",
        );
        for row in &self.rows {
            let labels = [("route", &*row.route), ("sink", &*row.sink)];
            let received =
                |source: &Arc<str>| after.sum("eventferry_received_total", &[("source", source)]);
            let received = whole(row.from.iter().map(received).sum());
            let out = after.sum("eventferry_delivered_total", &labels);
            let rate = (out - before.sum("eventferry_delivered_total", &labels)) / seconds;
            let parked_at = |sink: &str| {
                let labels = [("route", &*row.route), ("sink", sink)];
                after.sum("eventferry_dead_lettered_total", &labels)
            };
            // What the route's steps refuse never had a sink.
            let refused = if row.is_first { parked_at("") } else { 0.0 };
            let parked = parked_at(&row.sink) + refused;
            let latency = after.latency(&row.route, &row.sink);
            let earlier = before.latency(&row.route, &row.sink);
            let (route, from, received) = match row.is_first {
                true => (&*row.route, &*row.from_text, &*received),
                false => ("", "", ""),
            };
            let _ = writeln!(
                text,
                "  {route:route_width$}  {from:from_width$}  {:to_width$}  {received:>7}  {:>7}  \
                 {:>6}  {:>5}  {:>6}",
                row.to_text,
                whole(out),
                whole(parked),
                if seconds > 0.0 { whole(rate) } else { String::new() },
                quantile(&latency, &earlier),
            );
        }
        text
    }
}

/// What a source reads or a sink writes, in words.
pub(crate) struct Resource {
    service: &'static str,
    /// What the service calls it, where its own name does not say so.
    kind: &'static str,
    name: String,
}

impl Resource {
    /// That of a connector's configuration.
    pub(crate) fn of(config: &serde_json::Value) -> Result<Self> {
        let (kind, settings) = kind_of(config)?;
        let (service, kind, name) = match kind.as_str() {
            "sqs" => ("SQS", " queue", "queue"),
            "sns" => ("SNS", " topic", "topic"),
            "storage_queue" => ("Storage Queue", "", "queue"),
            _ => ("event hub", "", "hub"),
        };
        let name = settings.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        Ok(Self { service, kind, name: name.to_owned() })
    }

    fn brief(&self) -> String {
        format!("{} {}", self.service, self.name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", self.service, self.kind, self.name)
    }
}

fn quantile(latency: &Latency, earlier: &Latency) -> String {
    match latency.since(earlier).quantile(0.99) {
        None => "-".to_owned(),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small")]
fn whole(number: f64) -> String {
    thousands(number.max(0.0).round() as u64)
}
