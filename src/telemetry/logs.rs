//! Logs for people or machines, and for whoever taps them.

use std::{fmt, io::IsTerminal, sync::OnceLock, time::SystemTime};

use prometheus::IntCounter;
use tokio::{sync::mpsc, time::Instant};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use super::repeats::Repeats;
use crate::trace::SpanContext;

/// A line of the log.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was written.
    pub time: SystemTime,
    /// How bad it is.
    pub level: Level,
    /// The module that says it.
    pub target: &'static str,
    /// What it says: always the same words, so that it can be counted.
    pub message: String,
    /// Of whom and what.
    pub fields: Vec<(&'static str, String)>,
    /// The span of the event that it is about.
    pub context: Option<SpanContext>,
}

/// Lines that may wait to be sent.
const QUEUE: usize = 4_096;

/// Whoever taps the log, and what they could not take in time.
static TAP: OnceLock<(mpsc::Sender<Line>, IntCounter)> = OnceLock::new();

/// Lines from now on, for the first who asks in this process; for others none.
pub fn tap(dropped: IntCounter) -> mpsc::Receiver<Line> {
    let (lines, taken) = mpsc::channel(QUEUE);
    let _ = TAP.set((lines, dropped));
    taken
}

/// Sums up, when it is dropped, what was said too often.
#[derive(Debug)]
#[must_use]
pub struct Logging(Repeats);

impl Logging {
    /// Sums it up now and then as well. Does not end by itself.
    pub fn keep_summing_up(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.clone().keep_summing_up()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.sum_up(Instant::now());
    }
}

/// Starts logging to standard error: for people on a terminal, as JSON otherwise. `RUST_LOG`
/// chooses what; by default what the daemon says and the warnings of its libraries.
pub fn log() -> Logging {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,eventferry=info,eventhubs=info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match std::io::stderr().is_terminal() {
        true => lines.with_target(false).boxed(),
        false => lines.json().flatten_event(true).boxed(),
    };
    let repeats = Repeats::default();
    let said = tracing_subscriber::registry().with(filter).with(repeats.clone());
    said.with(lines).with(Tapped).init();
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        // A message that was put together may quote what was being handled.
        let text = panic.payload().downcast_ref::<&str>().copied().unwrap_or_default();
        tracing::error!(at, text, "a defect: something has panicked");
    }));
    Logging(repeats)
}

/// Hands every line to whoever taps.
struct Tapped;

impl<S: Subscriber> Layer<S> for Tapped {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some((lines, dropped)) = TAP.get() else { return };
        let meta = event.metadata();
        // What the way to the collector says of itself would never end.
        if ["h2", "hyper", "tonic", "tower", "reqwest"]
            .iter()
            .any(|it| meta.target().starts_with(it))
        {
            return;
        }
        if lines.try_send(Line::of(event)).is_err() {
            dropped.inc();
        }
    }
}

/// The field of a line that names the context of the event that it is about.
pub const TRACEPARENT: &str = "traceparent";

impl Line {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let meta = event.metadata();
        let mut line = Self {
            time: SystemTime::now(),
            level: *meta.level(),
            target: meta.target(),
            message: String::new(),
            fields: Vec::new(),
            context: None,
        };
        event.record(&mut line);
        line
    }

    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            TRACEPARENT => self.context = SpanContext::parse(&value),
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }
}
