//! `explain`: what would become of one event, and why.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use time::OffsetDateTime;

use super::{
    diff,
    event_file::{read_event, show_event},
    forecast::{DeadLettered, Dedup, Forecast, Outcome, RouteForecast, Sent, Step, forecast},
    paint::Paint,
    ready,
};
use crate::{
    config::{plan::Plan, problem::suggestion},
    deliver::{breaker::BreakerConfig, flow::FlowConfig},
    event::Event,
};

/// The largest event file: above what any service takes.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Events of one that `split` made, shown to a person.
const EVENTS_SHOWN: usize = 3;
/// Messages of one route, shown to a person.
const OUTCOMES_SHOWN: usize = 8;
/// Characters of a body or an attribute, shown to a person.
const CHARACTERS_SHOWN: usize = 1000;

/// How to explain.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// File with the event as JSON: `type`, `source`, `subject`, `id`, `time`, `key`,
    /// `datacontenttype`, `attributes` and `data`, all optional; `-` for standard input.
    #[arg(long)]
    pub event: String,
    /// The source that brings it; without it, every source.
    #[arg(long)]
    pub source: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The answer as JSON.
#[derive(Serialize)]
struct Explained {
    event: Json,
    sources: Vec<Forecast>,
}

/// Writes what would become of the event. Answers whether that could be said.
///
/// # Errors
/// The answer cannot be written.
pub fn explain(
    config: &Path,
    options: &Options,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<bool> {
    let plan = match ready(config) {
        Ok(plan) => plan,
        Err(problems) => {
            write!(out, "{problems}")?;
            return Ok(false);
        }
    };
    let explained = event(&options.event).map(Arc::new).and_then(|event| {
        let sources = forecasts(&plan, options.source.as_deref(), &event)?;
        Ok(Explained { event: show_event(&event), sources })
    });
    let explained = match explained {
        Ok(explained) => explained,
        Err(text) => {
            writeln!(out, "{text}")?;
            return Ok(false);
        }
    };
    if options.json {
        serde_json::to_writer_pretty(&mut *out, &explained)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", View { paint, text: String::new() }.all(&explained))?;
    }
    Ok(true)
}

fn event(path: &str) -> Result<Event, String> {
    let name = if path == "-" { "standard input" } else { path };
    let cannot = |error: io::Error| format!("{name}  cannot read: {error}");
    let mut text = String::new();
    let file: Box<dyn Read> = match path {
        "-" => Box::new(io::stdin().lock()),
        path => Box::new(std::fs::File::open(path).map_err(cannot)?),
    };
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(cannot)?;
    let json = serde_json::from_str(&text).map_err(|error| {
        format!("{name}:{}:{}  not JSON: {error}", error.line(), error.column())
    })?;
    read_event(json).map_err(|text| format!("{name}  {text}"))
}

fn forecasts(
    plan: &Plan,
    source: Option<&str>,
    event: &Arc<Event>,
) -> Result<Vec<Forecast>, String> {
    let now = OffsetDateTime::now_utc();
    let names = || plan.sources.iter().map(|source| &*source.name);
    let wanted = |name: &str| source.is_none_or(|source| source == name);
    let indices = names().enumerate().filter(|(_, name)| wanted(name));
    let found: Vec<_> = indices.map(|(index, _)| forecast(plan, index, event, now)).collect();
    match source.filter(|_| found.is_empty()) {
        Some(source) => {
            Err(format!("there is no source `{source}`; {}", suggestion(source, names())))
        }
        None => Ok(found),
    }
}

/// The answer for a person, as it grows.
struct View {
    paint: Paint,
    text: String,
}

impl View {
    fn all(mut self, explained: &Explained) -> String {
        for (index, forecast) in explained.sources.iter().enumerate() {
            if index > 0 {
                self.line(0, "");
            }
            self.forecast(forecast, &explained.event);
        }
        self.text
    }

    fn line(&mut self, indent: usize, line: impl std::fmt::Display) {
        let line = line.to_string();
        // Writing into a String cannot fail.
        let _ = match line.as_str() {
            "" => writeln!(self.text),
            line => writeln!(self.text, "{:indent$}{line}", ""),
        };
    }

    fn forecast(&mut self, forecast: &Forecast, event: &Json) {
        let paint = self.paint;
        self.line(0, paint.strong(format!("from {}", forecast.source)));
        for route in &forecast.routes {
            self.line(0, "");
            self.route(route, event);
        }
        if let Some(outcome) = &forecast.unrouted {
            self.line(0, "");
            self.outcome(2, outcome);
        } else if forecast.routes.is_empty() {
            self.line(2, "no route reads it");
        }
    }

    fn route(&mut self, route: &RouteForecast, event: &Json) {
        let paint = self.paint;
        let name = &route.route;
        if route.outcomes.is_empty() {
            self.line(2, format!("{} {name}", paint.weak("no ")));
            for why in &route.why_not {
                self.line(6, paint.weak(why));
            }
            return;
        }
        self.line(2, format!("{} {}", paint.good("yes"), paint.strong(name)));
        let mut before = vec![event.clone()];
        for (index, step) in route.steps.iter().enumerate() {
            self.step(index + 1, &before, step);
            before.clone_from(&step.events);
        }
        for (index, outcome) in route.outcomes.iter().enumerate() {
            if index == OUTCOMES_SHOWN {
                let more = route.outcomes.len() - index;
                self.line(6, paint.weak(format!("… and {more} more; --json shows all")));
                break;
            }
            self.outcome(6, outcome);
        }
    }

    /// What a step changed. Where the number of events changed, each is compared with the first.
    fn step(&mut self, number: usize, before: &[Json], step: &Step) {
        let paint = self.paint;
        let count = |events: &[Json]| match events.len() {
            1 => "1 event".to_owned(),
            count => format!("{count} events"),
        };
        let is_split = before.len() != step.events.len();
        let becomes = match is_split {
            true => format!(": {} -> {}", count(before), count(&step.events)),
            false => String::new(),
        };
        self.line(6, format!("step {number}, {}{becomes}", step.step));
        for (index, after) in step.events.iter().enumerate() {
            if index == EVENTS_SHOWN {
                let more = step.events.len() - index;
                self.line(8, paint.weak(format!("… and {more} more; --json shows all")));
                return;
            }
            if step.events.len() > 1 {
                self.line(8, paint.weak(format!("event {}", index + 1)));
            }
            let Some(before) = before.get(if is_split { 0 } else { index }) else { continue };
            let lines = diff::lines(before, after, paint);
            if lines.is_empty() {
                self.line(8, paint.weak("nothing changes"));
            }
            lines.iter().for_each(|line| self.line(8, line));
        }
    }

    fn outcome(&mut self, indent: usize, outcome: &Outcome) {
        let paint = self.paint;
        match outcome {
            Outcome::Sent(sent) => self.sent(indent, sent),
            Outcome::Filtered(reason) => {
                self.line(indent, format!("filtered: {reason}; settled, and not sent"));
            }
            Outcome::DeadLettered(DeadLettered { to, refused_by, class, text }) => {
                let to = match to {
                    Some(sink) => format!("dead letter, to {sink}"),
                    None => "no dead letter: it stays at its source".to_owned(),
                };
                let by = refused_by.as_ref().map(|sink| format!("{sink}: ")).unwrap_or_default();
                self.line(indent, paint.bad(format!("{to}: {class}")));
                self.line(indent + 2, format!("{by}{text}"));
            }
        }
    }

    fn sent(&mut self, indent: usize, sent: &Sent) {
        let paint = self.paint;
        for refused in &sent.refused {
            self.line(indent, paint.weak(format!("not to {refused}")));
        }
        self.line(indent, format!("to {}, {}", paint.strong(&sent.sink), sent.what));
        let mut row = |name: &str, value: &str| {
            self.line(indent + 2, format!("{} {value}", paint.weak(format!("{name:16}"))));
        };
        sent.picked.iter().for_each(|picked| row("picked", picked));
        row("lane", &sent.lane);
        if sent.wait_secs > 0 {
            row("waits", &format!("{}s", sent.wait_secs));
        }
        let room = 100 * sent.bytes / sent.bytes_max.max(1);
        row("bytes", &format!("{} of {}, {room} %", sent.bytes, sent.bytes_max));
        match &sent.dedup {
            Dedup::None { none } => row("dedup", &format!("none: {none}")),
            Dedup::Key { key, of, scope, ttl, .. } => {
                row("dedup", &format!("{key}, of {}", plain(&of.as_str().into())));
                row("", &format!("for {scope}; known for {ttl} from its delivery on"));
            }
        }
        let FlowConfig { limit, concurrency, breaker } = &sent.flow;
        row("limit", &limit.in_words().unwrap_or_else(|| "none".to_owned()));
        let max = concurrency.max.unwrap_or(concurrency.min);
        row("concurrency", &format!("{} to {max} requests at once", concurrency.min));
        let BreakerConfig { failures, open, open_max } = breaker;
        row(
            "breaker",
            &format!("opens after {failures} failures in a row, for {open} to {open_max}"),
        );
        sent.labels.iter().for_each(|(name, value)| row(name, &plain(value)));
        for (index, (name, value)) in sent.attributes.iter().enumerate() {
            row(if index == 0 { "attributes" } else { "" }, &format!("{name} = {}", plain(value)));
        }
        row("body", &body(&sent.body));
    }
}

/// A value without quotes where it is text, and cut where it is long.
fn plain(value: &Json) -> String {
    let text = match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(CHARACTERS_SHOWN) {
        Some((end, _)) => {
            let rest = text.chars().count() - CHARACTERS_SHOWN;
            format!("{}… and {rest} characters more; --json shows all", &text[..end])
        }
        None => text,
    }
}

fn body(body: &Map<String, Json>) -> String {
    match body.iter().next() {
        None => "empty".to_owned(),
        Some((name, value)) if name == "data_base64" => {
            format!("bytes, in base64: {}", plain(value))
        }
        Some((_, Json::String(text))) => match enclosed(text) {
            Some(json) => format!("base64 of {}", plain(&json.into())),
            None => plain(&text.as_str().into()),
        },
        Some((_, value)) => plain(value),
    }
}

/// The JSON object that a text holds as base64, as those of Storage Queues do: what a person wants
/// to see of it.
fn enclosed(text: &str) -> Option<String> {
    let json = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let is_object = serde_json::from_str::<Map<String, Json>>(&json).is_ok();
    is_object.then_some(json)
}
